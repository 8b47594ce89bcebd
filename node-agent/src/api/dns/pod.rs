//! What the proxy knows of one pod. Used by [`super::Proxy`] and [`super::exchange`].

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use pilotlight_common::network::{NetworkRules, RulesDigest};
use tokio::sync::Semaphore;

use super::kept::Kept;
use super::opened::Opened;
use super::rate::Rate;
use super::refused::Refused;
use crate::protocol::PodUid;

/// Questions of one pod that servers are asked at a time; what comes beyond is dropped, and asked again by its resolver.
const MAX_ASKED: usize = 64;
/// Connections of one pod at a time; others are closed as they come.
const MAX_CONNECTIONS: usize = 16;

/// One pod.
#[derive(Debug)]
pub(super) struct Pod {
    /// Its UID.
    pub uid: PodUid,
    /// Places for questions that servers are asked.
    pub asked: Arc<Semaphore>,
    /// Places for connections.
    pub connections: Arc<Semaphore>,
    state: Mutex<State>,
}

/// What changes.
#[derive(Debug)]
pub(super) struct State {
    /// What it may reach.
    pub rules: Arc<NetworkRules>,
    /// What its table says.
    pub digest: RulesDigest,
    /// What was opened.
    pub opened: Opened,
    /// What it was answered lately.
    pub kept: Kept,
    /// What it was refused.
    pub refused: Refused,
    /// How much it may ask.
    pub rate: Rate,
}

impl Pod {
    /// One that may reach nothing.
    pub fn new(uid: PodUid) -> Self {
        Self {
            uid,
            asked: Arc::new(Semaphore::new(MAX_ASKED)),
            connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            state: Mutex::new(State {
                rules: Arc::default(),
                digest: RulesDigest::FRESH,
                opened: Opened::default(),
                kept: Kept::default(),
                refused: Refused::default(),
                rate: Rate::new(Instant::now()),
            }),
        }
    }

    /// Its state. Never held while anything is awaited.
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
