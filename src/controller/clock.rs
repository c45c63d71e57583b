//! The one place that reads the wall clock. Plans get the time as an argument.

use jiff::Timestamp;

/// The present moment.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the clock that everything else is given"
)]
pub fn now() -> Timestamp {
    Timestamp::try_from(std::time::SystemTime::now()).expect("the present lies within jiff's range of years")
}
