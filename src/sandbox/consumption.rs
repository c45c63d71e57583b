//! What a run uses in all: the kernel's own limits hold for each process and each file alone, and neither cgroups nor
//! quotas are at hand in a restricted pod. Looked at every so often, so a burst may pass before it is seen.

mod memory;
mod open;

use memory::Memory;
use open::Open;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Files and folders of a run that are looked at; one that has more is over any limit.
const MOST_FILES: usize = 20_000;

/// One look at a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Consumption {
    /// Processes and threads.
    pub tasks: u64,
    /// Memory that is backed by no file, beyond what is shared with the zygote, and what the kernel keeps for the processes:
    /// tables of pages, mappings, and all that may wait in sockets and pipes; in bytes.
    pub memory: u64,
    /// What its folder holds on disk, and what its processes hold open of files that are deleted, in bytes.
    pub disk: u64,
}

/// The processes and threads of `group`, counted until they are more than `most`, so that a storm of forks is known for one
/// before it has grown further.
pub fn tasks_of_group(group: i32, most: u64) -> io::Result<u64> {
    let mut tasks = 0;
    for pid in pids()? {
        tasks += threads(&pid?, group).unwrap_or(0);
        if tasks > most {
            break;
        }
    }
    Ok(tasks)
}

/// Adds up the processes of `group`, whose files lie in `folder`. `inherited` is the anonymous memory that its first process
/// began with. Memory is told exactly only where it may be more than `enough`: to find out what processes share takes
/// a walk through their tables of pages.
pub fn of_group(group: i32, inherited: u64, enough: u64, folder: &Path) -> io::Result<Consumption> {
    let mut tasks = 0;
    let (mut memory, mut open) = (Memory::default(), Open::of(folder));
    for pid in pids()? {
        let pid = pid?;
        let Some(threads) = threads(&pid, group) else {
            continue;
        };
        tasks += threads;
        memory.look_at(&pid);
        open.look_at(&pid);
    }
    Ok(Consumption {
        tasks,
        memory: memory.bytes(inherited, open.kernel_memory(), enough),
        disk: of_folder(folder).saturating_add(open.deleted()),
    })
}

/// The machine's processes.
fn pids() -> io::Result<impl Iterator<Item = io::Result<String>>> {
    Ok(fs::read_dir("/proc")?.filter_map(|entry| {
        let name = match entry {
            Ok(entry) => entry.file_name().into_string().ok()?,
            Err(error) => return Some(Err(error)),
        };
        name.bytes().all(|byte| byte.is_ascii_digit()).then_some(Ok(name))
    }))
}

/// The number of threads, if the process belongs to the group and still lives: processes come and go meanwhile.
fn threads(pid: &str, group: i32) -> Option<u64> {
    threads_in_group(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?, group)
}

/// Whether a process is one still: one that ends loses its memory first, then its open files.
fn has_memory(pid: &str) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.contains("\nVmSize:")
}

/// What lies in `folder`, in bytes on disk. A tree that cannot be looked through, because it is too deep, too large or
/// closed to its owner, counts as endless: no honest document makes one.
pub fn of_folder(folder: &Path) -> u64 {
    let (mut folders, mut bytes, mut files) = (vec![folder.to_owned()], 0, 0);
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            // Gone meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(_) => return u64::MAX,
        };
        for entry in entries {
            let Ok(entry) = entry else {
                return u64::MAX;
            };
            files += 1;
            if files > MOST_FILES {
                return u64::MAX;
            }
            match entry.metadata() {
                Ok(metadata) => {
                    bytes += metadata.blocks() * 512;
                    if metadata.is_dir() {
                        folders.push(entry.path());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(_) => return u64::MAX,
            }
        }
    }
    bytes
}

/// The number of threads, if the process belongs to the group: proc_pid_stat(5), fields 5 and 20.
fn threads_in_group(stat: &str, group: i32) -> Option<u64> {
    // The name in parentheses is the user's and may hold anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    if fields.nth(2)?.parse::<i32>().ok()? != group {
        return None;
    }
    fields.nth(14)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_process_cannot_hide_its_group() {
        let stat = "7 (a) S 1 1 1) R 3 42 42 0 -1 4194304 90 0 0 0 0 0 0 0 20 0 5 0 100 0 0";
        assert_eq!(threads_in_group(stat, 42), Some(5));
        assert_eq!(threads_in_group(stat, 1), None);
    }

    #[test]
    fn this_process_is_found_in_its_group() {
        let group = rustix::process::getpgrp().as_raw_nonzero().get();
        let folder = tempfile::tempdir().unwrap();
        for enough in [0, u64::MAX] {
            let own = of_group(group, 0, enough, folder.path()).unwrap();
            assert!(own.tasks >= 1 && own.memory > 0, "{own:?}");
        }
    }

    #[test]
    fn what_is_left_of_a_process_that_has_ended_hides_nothing() {
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        let pid = rustix::process::Pid::from_child(&ended);
        let nothing_yet = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
        rustix::process::waitid(rustix::process::WaitId::Pid(pid), nothing_yet).unwrap();
        assert!(!has_memory(&pid.as_raw_nonzero().to_string()));
        assert!(has_memory("self"));
        ended.wait().unwrap();
    }
}
