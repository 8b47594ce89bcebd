//! One query and its answer. Called by [`super::serve`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use hickory_proto::op::{Message, ResponseCode};
use ipnet::IpNet;
use pilotlight_common::network::{NetworkRules, PortRule};

use super::pod::Pod;
use super::query::{PLAIN, Question, Read, Why, read};
use super::{Shared, upstream};

/// What becomes of a query.
pub(super) enum Step {
    /// Nothing.
    Dropped,
    /// This answer, in so many bytes at most over UDP.
    Answered(Box<Message>, u16),
    /// Servers must be asked.
    Ask(Box<Asked>),
}

/// A question that servers are asked.
pub(super) struct Asked {
    question: Question,
    ports: BTreeSet<PortRule>,
    /// What it was judged by.
    rules: Arc<NetworkRules>,
    /// Of what is kept, when it was asked.
    age: u64,
}

impl Asked {
    /// The question.
    pub(super) fn question(&self) -> &Question {
        &self.question
    }
}

/// Reads and judges a query, as far as that can be done at once.
pub(super) fn begin(shared: &Shared, pod: &Pod, bytes: &[u8]) -> Step {
    let now = Instant::now();
    let mut state = pod.state();
    let count = &shared.counts;
    if !state.rate.take(now) {
        count.add(&count.over_rate);
        return Step::Dropped;
    }
    match read(bytes, &state.rules) {
        Read::Ignored => {
            count.add(&count.malformed);
            Step::Dropped
        }
        Read::Answered(message, why) => {
            match why {
                Why::Refused(name) => {
                    count.add(&count.refused);
                    state.refused.add(name);
                }
                Why::SearchDomain | Why::Empty => count.add(&count.passed_over),
                Why::Unsupported => count.add(&count.malformed),
            }
            Step::Answered(message, PLAIN)
        }
        Read::Asked(question, ports) => {
            if let Some(message) = state.kept.answer(&question, now) {
                count.add(&count.kept);
                return Step::Answered(Box::new(message), question.payload.0);
            }
            Step::Ask(Box::new(Asked {
                question,
                ports,
                rules: Arc::clone(&state.rules),
                age: state.kept.age(),
            }))
        }
    }
}

/// Asks servers and opens what they name.
pub(super) async fn finish(shared: &Shared, pod: &Pod, asked: &Asked) -> Message {
    let Asked {
        question,
        ports,
        rules,
        age,
    } = asked;
    let count = &shared.counts;
    let ranges: Vec<IpNet> = rules
        .egress
        .iter()
        .map(|rule| rule.range)
        .chain(shared.config.allowed_ranges.iter().copied())
        .collect();
    let allowed = upstream::Allowed {
        ports,
        ranges: &ranges,
    };
    let mut told = match upstream::ask(&shared.config.upstreams, question, &allowed).await {
        Ok(told) => told,
        Err(error) => {
            tracing::debug!(pod = %pod.uid, %error, "no answer to a query");
            count.add(&count.upstream_failed);
            return question.answer(ResponseCode::ServFail);
        }
    };
    if told.withheld > 0 {
        count.add(&count.withheld);
    }
    let since = Instant::now();
    let openings = std::mem::take(&mut told.openings);
    if !openings.is_empty() {
        let opening = {
            let mut state = pod.state();
            // The rules changed meanwhile: the resolver asks again, under the new ones.
            if !Arc::ptr_eq(&state.rules, rules) {
                return question.answer(ResponseCode::ServFail);
            }
            let name = question.name.to_lowercase().to_ascii();
            let name: Arc<str> = name.trim_end_matches('.').into();
            state.opened.remember(&name, &openings);
            // Queued under the lock: before any change of the rules that closes it.
            shared.opener.open(&pod.uid, state.digest, openings)
        };
        if let Err(error) = opening.await {
            tracing::warn!(pod = %pod.uid, %error, "an address could not be opened; its name is not answered");
            count.add(&count.not_opened);
            return question.answer(ResponseCode::ServFail);
        }
    }
    pod.state().kept.keep(question, &told, *age, since);
    count.add(&count.allowed);
    told.message
}
