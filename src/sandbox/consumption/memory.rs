//! The memory of a run's processes, without what they share with the zygote and with one another counted twice.

use super::has_memory;
use std::ops::AddAssign;
use std::{fs, io};

/// What the processes that were looked at hold.
#[derive(Debug, Default)]
pub(super) struct Memory {
    processes: Vec<Process>,
}

#[derive(Debug)]
struct Process {
    pid: String,
    held: Held,
}

/// Of one process or several, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Held {
    /// Backed by no file, its own or copied when it is written to.
    anonymous: u64,
    /// Backed by no file and shared on purpose.
    shared: u64,
    /// Tables of its pages.
    tables: u64,
}

impl Memory {
    pub(super) fn look_at(&mut self, pid: &str) {
        self.processes.push(Process {
            pid: pid.to_owned(),
            held: Held::at_most(&fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default()),
        });
    }

    /// All of them with what the `kernel` keeps for them. What was `inherited` is taken off once, not for each process: one
    /// that has executed a program has nothing of it, and a forked one may have written to all of it.
    pub(super) fn bytes(&self, inherited: u64, kernel: u64, enough: u64) -> u64 {
        let mut most = Held::default();
        for process in &self.processes {
            most += process.held;
        }
        let most = most.beyond(inherited).saturating_add(kernel);
        if most <= enough {
            return most;
        }
        let mut exact = Held::default();
        for process in &self.processes {
            exact += process.look_closer();
            if exact.beyond(inherited).saturating_add(kernel) > enough {
                break;
            }
        }
        exact.beyond(inherited).saturating_add(kernel)
    }
}

impl Process {
    /// One that hides what it shares counts in full, and one that has ended meanwhile not at all.
    fn look_closer(&self) -> Held {
        match fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid)) {
            Ok(rollup) => self.held.divided(&rollup),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && has_memory(&self.pid) => {
                self.held
            }
            Err(_) => Held::default(),
        }
    }
}

impl Held {
    /// From proc_pid_status(5): pages that several processes share count for each of them.
    fn at_most(status: &str) -> Self {
        Self {
            anonymous: kilobytes(status, "RssAnon:").unwrap_or(0),
            shared: kilobytes(status, "RssShmem:").unwrap_or(0),
            tables: kilobytes(status, "VmPTE:").unwrap_or(0),
        }
    }

    /// The same with each page divided by the number of processes that share it: proc_pid_smaps(5). What an older kernel does
    /// not tell counts in full.
    fn divided(self, rollup: &str) -> Self {
        Self {
            anonymous: kilobytes(rollup, "Pss_Anon:").unwrap_or(self.anonymous),
            shared: kilobytes(rollup, "Pss_Shmem:").unwrap_or(self.shared),
            tables: self.tables,
        }
    }

    fn beyond(self, inherited: u64) -> u64 {
        self.anonymous.saturating_sub(inherited) + self.shared + self.tables
    }
}

impl AddAssign for Held {
    fn add_assign(&mut self, other: Self) {
        self.anonymous += other.anonymous;
        self.shared += other.shared;
        self.tables += other.tables;
    }
}

/// A line of the kernel's, in bytes.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let number: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    number.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn held(anonymous: u64) -> Held {
        Held {
            anonymous,
            ..Held::default()
        }
    }

    #[test]
    fn what_is_shared_is_divided_and_what_is_not_told_counts_in_full() {
        let rollup =
            "5500-7fff ---p 00000000 00:00 0 [rollup]\nRss:  900 kB\nPss_Anon:  100 kB\nPss_Shmem:  5 kB\n";
        let most = Held::at_most("Name:\tx\nVmPTE:\t 8 kB\nRssAnon:\t 300 kB\nRssShmem:\t 10 kB\n");
        let exact = Held {
            anonymous: 100 << 10,
            shared: 5 << 10,
            tables: 8 << 10,
        };
        assert_eq!(most.divided(rollup), exact);
        assert_eq!(most.divided(""), most);
    }

    #[test]
    fn what_was_inherited_is_taken_off_once() {
        let processes = (0..60).map(|_| Process {
            // No process has this number.
            pid: "0".to_owned(),
            held: held(80 * MIB),
        });
        let memory = Memory {
            processes: processes.collect(),
        };
        assert_eq!(memory.bytes(80 * MIB, MIB, u64::MAX), (59 * 80 + 1) * MIB);
        assert_eq!(memory.bytes(80 * MIB, MIB, 0), MIB, "they have ended meanwhile");
    }

    #[test]
    fn a_closer_look_finds_no_more_than_the_first() {
        let mut memory = Memory::default();
        memory.look_at("self");
        let most = memory.bytes(0, 0, u64::MAX);
        let exact = memory.bytes(0, 0, 0);
        assert!(0 < exact && exact <= most + 8 * MIB, "{exact} {most}");
    }
}
