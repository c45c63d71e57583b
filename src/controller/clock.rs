//! The one place that reads the clocks. Plans get the time as an argument.

use std::{sync::OnceLock, time::Instant};

use jiff::Timestamp;

/// The present moment.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the clock that everything else is given"
)]
pub fn now() -> Timestamp {
    Timestamp::try_from(std::time::SystemTime::now()).expect("the present lies within jiff's range of years")
}

/// The present moment by a clock that runs on evenly from the start of the process, whatever becomes of the wall clock:
/// keys age by it, so that a jump of an hour rotates nothing early.
pub fn steady() -> Timestamp {
    static START: OnceLock<(Timestamp, Instant)> = OnceLock::new();
    let (wall, monotonic) = START.get_or_init(|| (now(), Instant::now()));
    wall.checked_add(monotonic.elapsed()).unwrap_or(Timestamp::MAX)
}
