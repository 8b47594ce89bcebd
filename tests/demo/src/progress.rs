//! One line on standard error for every step that takes longer than a moment.

use std::fmt::Display;
use std::sync::OnceLock;
use std::time::Instant;

static STARTED: OnceLock<Instant> = OnceLock::new();

/// Prints one progress line with the seconds since the first.
pub(crate) fn say(message: impl Display) {
    let started = STARTED.get_or_init(Instant::now);
    eprintln!(
        "[pilotlight {:6.1}s] {message}",
        started.elapsed().as_secs_f64()
    );
}
