//! The volumes of the class `pilotlight-local`: makes a folder on the node that a claim's pod was given, grows it on paper when the
//! claim asks for more, and removes it when the claim is gone. One more process of the control plane; its whole state is what the
//! API server and the nodes' folders hold, so it may be killed and started again at any moment.
//!
//! `watch` tells what there is, `decide` says what is to be done, `apply` does it.

mod apply;
mod decide;
mod watch;

use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::progress::say;
use crate::state::State;
use apply::Applier;
use decide::View;
use watch::Message;

pub(crate) use decide::PROVISIONER;

/// The component's client of the API server.
pub(crate) const CLIENT: &str = "storage";

/// After this long without news everything is looked at again: what failed is repeated.
const RESYNC: Duration = Duration::from_secs(5);

/// Serves the cluster of a state folder, until the process is ended.
pub fn serve_storage(dir: &Path) -> Result<()> {
    let state = State::load(dir)?.ok_or_else(|| Error::NoCluster(dir.to_path_buf()))?;
    let applier = Applier::new(&state)?;
    let (sender, news) = mpsc::channel();
    for kind in watch::Kind::ALL {
        let (api, sender) = (applier.api.clone(), sender.clone());
        std::thread::spawn(move || watch::forever(&api, kind, &sender));
    }
    let mut view = View::default();
    loop {
        match news.recv_timeout(RESYNC) {
            Ok(message) => take(&mut view, message),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        while let Ok(message) = news.try_recv() {
            take(&mut view, message);
        }
        for action in view.decide() {
            // What was written counts at once; the watch would tell a little later, and meanwhile it would be written again.
            match applier.apply(&action) {
                Ok(written) => written.into_iter().for_each(|object| view.put(&object)),
                Err(error) => say(format_args!("{action:?} failed: {error}")),
            }
        }
    }
}

fn take(view: &mut View, message: Message) {
    match message {
        Message::Restarted(kind) => view.clear(kind),
        Message::There(object) => view.put(&object),
        Message::Gone(object) => view.remove(&object),
    }
}
