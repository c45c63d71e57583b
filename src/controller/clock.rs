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
fn steady() -> Timestamp {
    static START: OnceLock<(Timestamp, Instant)> = OnceLock::new();
    let (wall, monotonic) = START.get_or_init(|| (now(), Instant::now()));
    wall.checked_add(monotonic.elapsed()).unwrap_or(Timestamp::MAX)
}

type Reading = Box<dyn Fn() -> Timestamp + Send + Sync>;

/// The clocks that rotations go by.
pub struct Clock {
    wall: Reading,
    steady: Reading,
}

impl Default for Clock {
    /// The clocks of the machine.
    fn default() -> Self {
        Self::reading(now, steady)
    }
}

impl Clock {
    /// Clocks that these functions read.
    pub fn reading(
        wall: impl Fn() -> Timestamp + Send + Sync + 'static,
        steady: impl Fn() -> Timestamp + Send + Sync + 'static,
    ) -> Self {
        Self {
            wall: Box::new(wall),
            steady: Box::new(steady),
        }
    }

    /// The present moment by the wall clock, which may be set back and forth.
    pub fn now(&self) -> Timestamp {
        (self.wall)()
    }

    /// The present moment by a clock that runs on evenly from the start of the process, whatever becomes of the wall
    /// clock: keys age by it, so that a jump of an hour rotates nothing early.
    pub fn steady(&self) -> Timestamp {
        (self.steady)()
    }
}
