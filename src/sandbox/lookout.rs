//! When a run is to be looked at: every so often, and at once when the machine has suddenly many more tasks or much less memory.

use crate::consumption::Consumption;
use std::time::Duration;
use std::{fs, io};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// Short runs are never looked at.
const FIRST_LOOK: Duration = Duration::from_millis(100);
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// How often the machine's tasks are counted.
const GLANCE_INTERVAL: Duration = Duration::from_millis(20);
/// A run with this many processes and threads may be about to have many more: it is looked at more often.
const MANY_TASKS: u64 = 32;
const BRISK_INTERVAL: Duration = Duration::from_millis(25);

/// When the machine has less memory by this part of what a run may use, it may be this run's doing.
const PART_OF_MEMORY: u64 = 8;

/// Why it is time to look at a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Some time has passed, or the machine has much less memory.
    Time,
    /// The machine has many more tasks.
    Crowd,
    /// A look that was begun has shown this.
    Seen(Consumption),
}

/// Says when to look at one run.
#[derive(Debug)]
pub(crate) struct Lookout {
    looks: Interval,
    glances: Interval,
    crowd: Crowd,
    room: Room,
    /// A look under way on another thread, which may have to wait for its turn behind everything that a run has forked.
    looking: Option<JoinHandle<io::Result<Consumption>>>,
}

impl Lookout {
    /// From the start of a run that may use so much.
    pub(crate) fn new(allowed: &Consumption) -> Self {
        Self {
            looks: every(LOOK_INTERVAL, FIRST_LOOK),
            glances: every(GLANCE_INTERVAL, GLANCE_INTERVAL),
            crowd: Crowd::now(),
            room: Room::new(allowed.memory / PART_OF_MEMORY),
            looking: None,
        }
    }

    /// Begins a look at everything; what it shows is a cause of its own.
    pub(crate) fn begin(&mut self, look: impl FnOnce() -> io::Result<Consumption> + Send + 'static) {
        self.room = Room::new(self.room.much);
        self.looking = Some(spawn_blocking(look));
    }

    /// Waits until it is time. May be dropped and asked again.
    pub(crate) async fn due(&mut self) -> Cause {
        loop {
            tokio::select! {
                _ = self.looks.tick(), if self.looking.is_none() => return Cause::Time,
                used = async { self.looking.as_mut()?.await.ok()?.ok() }, if self.looking.is_some() => {
                    self.looking = None;
                    if let Some(used) = used {
                        return Cause::Seen(used);
                    }
                }
                _ = self.glances.tick() => {
                    if self.crowd.has_grown() {
                        return Cause::Crowd;
                    }
                    if self.looking.is_none() && self.room.has_shrunk() {
                        return Cause::Time;
                    }
                }
            }
        }
    }

    /// Takes what the look has shown.
    pub(crate) fn seen(&mut self, used: &Consumption) {
        if used.tasks > MANY_TASKS {
            self.looks.reset_after(BRISK_INTERVAL);
        } else {
            // Whoever has so many processes now: it is not this run.
            self.crowd = Crowd::now();
        }
    }
}

fn every(period: Duration, first: Duration) -> Interval {
    let mut interval = interval_at(Instant::now() + first, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// Notices that the machine has many more tasks than a while ago, which costs one small read: a storm of forks must be
/// seen before it takes the processor from whoever is to end it, and the kernel's own limit does not count for root.
#[derive(Debug)]
struct Crowd {
    base: u64,
}

impl Crowd {
    /// New tasks of the machine that are worth a look.
    const MANY: u64 = 48;

    /// As it is now.
    fn now() -> Self {
        Self {
            base: tasks_of_the_machine().unwrap_or(u64::MAX),
        }
    }

    /// Whether it has grown by many.
    fn has_grown(&mut self) -> bool {
        let Some(tasks) = tasks_of_the_machine() else {
            return false;
        };
        self.base = self.base.min(tasks);
        tasks - self.base > Self::MANY
    }
}

/// Notices that the machine has much less memory than at the last look, which costs one small read too: many processes together
/// take more between two looks than a pod has left.
#[derive(Debug)]
struct Room {
    /// None until the first glance.
    base: Option<u64>,
    much: u64,
}

impl Room {
    /// `much` is what is worth a look, in bytes.
    fn new(much: u64) -> Self {
        Self { base: None, much }
    }

    /// Whether it has shrunk by much.
    fn has_shrunk(&mut self) -> bool {
        let Some(now) = available_memory() else {
            return false;
        };
        self.base.get_or_insert(now).saturating_sub(now) > self.much
    }
}

/// What the machine could still give away, in bytes: proc_meminfo(5).
fn available_memory() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// The fourth field of proc_loadavg(5): tasks that run, and all tasks.
fn tasks_of_the_machine() -> Option<u64> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    let (_, tasks) = text.split_ascii_whitespace().nth(3)?.split_once('/')?;
    tasks.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_tasks() {
        assert!(tasks_of_the_machine().unwrap() > 1);
        assert!(Crowd { base: 0 }.has_grown() || tasks_of_the_machine().unwrap() <= Crowd::MANY);
    }

    #[test]
    fn the_machine_has_memory() {
        assert!(available_memory().unwrap() > 0);
        let room = |base| Room { base, much: 1 << 20 };
        assert!(room(Some(u64::MAX)).has_shrunk());
        assert!(!room(Some(0)).has_shrunk() && !room(None).has_shrunk());
    }
}
