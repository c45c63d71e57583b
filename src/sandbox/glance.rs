//! What the machine tells of itself at a glance: two small reads every so often, for all runs under way together.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

const INTERVAL: Duration = Duration::from_millis(20);
/// All of /proc/loadavg, and of /proc/meminfo as much as holds its third line.
const LONGEST: usize = 256;

/// The machine at one moment. What it does not tell is unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Glance {
    /// Processes and threads.
    pub(crate) tasks: Option<u64>,
    /// What could still be given away, in bytes.
    pub(crate) memory: Option<u64>,
}

/// Glances at the machine as long as somebody wants to know.
#[derive(Debug)]
pub(crate) struct Glances {
    machine: Arc<Machine>,
    latest: Mutex<watch::Sender<Glance>>,
}

impl Glances {
    pub(crate) fn new() -> Self {
        Self {
            machine: Arc::new(Machine::open()),
            latest: Mutex::new(watch::Sender::new(Glance::default())),
        }
    }

    /// The latest glance, and a way to wait for the next. They end with the last of those that follow them.
    pub(crate) fn follow(&self) -> watch::Receiver<Glance> {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.receiver_count() > 0 {
            return latest.subscribe();
        }
        // Whoever kept the one before it up to date knows that nobody follows, and never finds anybody again.
        let (sender, receiver) = watch::channel(self.machine.glance());
        tokio::spawn(keep_glancing(self.machine.clone(), sender.clone()));
        *latest = sender;
        receiver
    }
}

async fn keep_glancing(machine: Arc<Machine>, latest: watch::Sender<Glance>) {
    let mut times = interval_at(Instant::now() + INTERVAL, INTERVAL);
    times.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = latest.closed() => return,
            _ = times.tick() => drop(latest.send_replace(machine.glance())),
        }
    }
}

/// Files of the kernel's, which writes them anew for each who reads them from their beginning.
#[derive(Debug)]
struct Machine {
    load: Option<File>,
    memory: Option<File>,
}

impl Machine {
    fn open() -> Self {
        Self {
            load: File::open("/proc/loadavg").ok(),
            memory: File::open("/proc/meminfo").ok(),
        }
    }

    fn glance(&self) -> Glance {
        Glance {
            tasks: read(self.load.as_ref(), all_tasks),
            memory: read(self.memory.as_ref(), available_memory),
        }
    }
}

fn read(file: Option<&File>, number: fn(&str) -> Option<u64>) -> Option<u64> {
    let mut buffer = [0; LONGEST];
    let length = file?.read_at(&mut buffer, 0).ok()?;
    number(std::str::from_utf8(&buffer[..length]).ok()?)
}

/// The fourth field of proc_loadavg(5): tasks that run, and all tasks.
fn all_tasks(load: &str) -> Option<u64> {
    let (_, tasks) = load.split_ascii_whitespace().nth(3)?.split_once('/')?;
    tasks.parse().ok()
}

/// The third line of proc_meminfo(5).
fn available_memory(memory: &str) -> Option<u64> {
    let line = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    #[test]
    fn the_machine_tells_again_and_again() {
        let machine = Machine::open();
        for _ in 0..2 {
            let glance = machine.glance();
            assert!(glance.tasks > Some(1) && glance.memory > Some(0), "{glance:?}");
        }
    }

    #[test]
    fn what_is_cut_off_is_not_known() {
        assert_eq!(all_tasks("1.00 0.50 0.25 2/345 6789\n"), Some(345));
        assert_eq!(all_tasks("1.00 0.50"), None);
        let memory = "MemTotal: 9 kB\nMemFree: 8 kB\nMemAvailable:   7 kB\nBuf";
        assert_eq!(available_memory(memory), Some(7 << 10));
        assert_eq!(
            available_memory("MemTotal: 9 kB\nMemFree: 8 kB\nMemAvailable: 7"),
            None
        );
    }

    #[tokio::test]
    async fn all_who_follow_share_the_glances_and_the_last_one_ends_them() {
        let glances = Glances::new();
        let (mut one, two) = (glances.follow(), glances.follow());
        assert!(one.same_channel(&two));
        one.changed().await.unwrap();
        drop((one, two));
        let later = glances.follow();
        assert_eq!(glances.latest.lock().unwrap().receiver_count(), 1);
        drop(later);
        let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
        let ended = async {
            while tasks() > 0 {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(10), ended).await.unwrap();
    }
}
