//! One line on standard error for every long step, with the seconds since the first, so that a waiting person knows what is
//! being waited for. Called by everything that may take more than a second.

use std::fmt::Display;
use std::sync::OnceLock;
use std::time::Instant;

static STARTED: OnceLock<Instant> = OnceLock::new();

/// Prints one progress line.
pub(crate) fn say(message: impl Display) {
    let started = STARTED.get_or_init(Instant::now);
    eprintln!(
        "[cluster {:6.1}s] {message}",
        started.elapsed().as_secs_f64()
    );
}
