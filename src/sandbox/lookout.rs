//! When a run is to be looked at: every so often, and at once when the machine has suddenly many more tasks or much less memory.

use crate::consumption::Consumption;
use crate::glance::Glance;
use std::io;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until};

/// Short runs are never looked at without a cause.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
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
    /// The next look, whatever the glances show.
    next: Instant,
    glances: watch::Receiver<Glance>,
    crowd: Crowd,
    room: Room,
    /// A look under way on another thread, which may have to wait for its turn behind everything that a run has forked.
    looking: Option<JoinHandle<io::Result<Consumption>>>,
}

impl Lookout {
    /// From the start of a run that may use so much, on a machine that is glanced at.
    pub(crate) fn new(allowed: &Consumption, glances: watch::Receiver<Glance>) -> Self {
        let now = *glances.borrow();
        Self {
            next: Instant::now() + LOOK_INTERVAL,
            crowd: Crowd::at(now),
            glances,
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
                () = sleep_until(self.next), if self.looking.is_none() => {
                    self.next = Instant::now() + LOOK_INTERVAL;
                    return Cause::Time;
                }
                used = async { self.looking.as_mut()?.await.ok()?.ok() }, if self.looking.is_some() => {
                    self.looking = None;
                    if let Some(used) = used {
                        return Cause::Seen(used);
                    }
                }
                Ok(()) = self.glances.changed() => {
                    let glance = *self.glances.borrow_and_update();
                    if self.crowd.has_grown(glance) {
                        return Cause::Crowd;
                    }
                    if self.looking.is_none() && self.room.has_shrunk(glance) {
                        return Cause::Time;
                    }
                }
            }
        }
    }

    /// Takes what the look has shown.
    pub(crate) fn seen(&mut self, used: &Consumption) {
        if used.tasks > MANY_TASKS {
            // Never later than it was to be: a crowd that stays is told of by every glance.
            self.next = self.next.min(Instant::now() + BRISK_INTERVAL);
        } else {
            // Whoever has so many processes now: it is not this run.
            let now = *self.glances.borrow();
            self.crowd = Crowd::at(now);
        }
    }
}

/// Notices that the machine has many more tasks than a while ago: a storm of forks must be seen before it takes the processor
/// from whoever is to end it, and the kernel's own limit does not count for root.
#[derive(Debug)]
struct Crowd {
    base: u64,
}

impl Crowd {
    /// New tasks of the machine that are worth a look.
    const MANY: u64 = 48;

    /// From now on. Where the tasks are unknown, those of the next glance are the first.
    fn at(now: Glance) -> Self {
        Self {
            base: now.tasks.unwrap_or(u64::MAX),
        }
    }

    /// Whether it has grown by many.
    fn has_grown(&mut self, now: Glance) -> bool {
        let Some(tasks) = now.tasks else {
            return false;
        };
        self.base = self.base.min(tasks);
        tasks - self.base > Self::MANY
    }
}

/// Notices that the machine has much less memory than at the last look: many processes together take more between two looks
/// than a pod has left.
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
    fn has_shrunk(&mut self, now: Glance) -> bool {
        let Some(memory) = now.memory else {
            return false;
        };
        self.base.get_or_insert(memory).saturating_sub(memory) > self.much
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    const FREE: u64 = 1 << 30;
    const MOST: u64 = 1 << 20;

    fn glance(tasks: u64, memory: u64) -> Glance {
        Glance {
            tasks: Some(tasks),
            memory: Some(memory),
        }
    }

    fn lookout(now: Glance) -> (watch::Sender<Glance>, Lookout) {
        let allowed = Consumption {
            memory: MOST * PART_OF_MEMORY,
            ..Consumption::default()
        };
        let (sender, glances) = watch::channel(now);
        (sender, Lookout::new(&allowed, glances))
    }

    #[tokio::test]
    async fn a_run_is_looked_at_every_quarter_of_a_second_and_nothing_else_is_a_cause_on_a_calm_machine() {
        let (_sender, mut lookout) = lookout(glance(100, FREE));
        let began = Instant::now();
        for looks in 1..3 {
            assert_eq!(lookout.due().await, Cause::Time);
            assert!(began.elapsed() >= LOOK_INTERVAL * looks);
        }
    }

    #[tokio::test]
    async fn many_more_tasks_are_a_cause_at_once_and_only_once_when_they_are_not_the_runs() {
        let (sender, mut lookout) = lookout(glance(100, FREE));
        sender.send_replace(glance(101 + Crowd::MANY, FREE));
        assert_eq!(lookout.due().await, Cause::Crowd);
        lookout.seen(&Consumption::default());
        sender.send_replace(glance(102 + Crowd::MANY, FREE));
        assert_eq!(lookout.due().await, Cause::Time);
    }

    #[tokio::test]
    async fn a_crowd_that_stays_and_is_the_runs_is_looked_at_closely_before_long() {
        let (sender, mut lookout) = lookout(glance(100, FREE));
        let crowd = Consumption {
            tasks: MANY_TASKS + 1,
            ..Consumption::default()
        };
        let looked_at_closely = async {
            loop {
                sender.send_replace(glance(101 + Crowd::MANY, FREE));
                match lookout.due().await {
                    Cause::Crowd => lookout.seen(&crowd),
                    cause => return cause,
                }
                tokio::time::sleep(BRISK_INTERVAL / 2).await;
            }
        };
        let cause = timeout(Duration::from_secs(10), looked_at_closely).await;
        assert_eq!(cause, Ok(Cause::Time));
    }

    #[tokio::test]
    async fn much_less_memory_than_at_the_first_glance_is_a_cause_at_once() {
        let (sender, mut lookout) = lookout(glance(100, 2 * FREE));
        lookout.next += Duration::from_hours(1);
        for memory in [FREE, FREE - MOST] {
            sender.send_replace(glance(100, memory));
            assert!(timeout(Duration::from_millis(1), lookout.due()).await.is_err());
        }
        sender.send_replace(glance(100, FREE - MOST - 1));
        assert_eq!(
            timeout(Duration::from_secs(10), lookout.due()).await,
            Ok(Cause::Time)
        );
    }

    #[tokio::test]
    async fn a_machine_that_tells_nothing_is_looked_at_all_the_same() {
        let (sender, mut lookout) = lookout(Glance::default());
        sender.send_replace(Glance::default());
        assert_eq!(lookout.due().await, Cause::Time);
        drop(sender);
        assert_eq!(lookout.due().await, Cause::Time);
    }
}
