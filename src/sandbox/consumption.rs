//! What a run uses in all: the kernel's own limits hold for each process and each file alone, and neither cgroups nor
//! quotas are at hand in a restricted pod. Looked at every so often, so a burst may pass before it is seen.

use std::collections::BTreeMap;
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
    /// Resident memory that is backed by no file, beyond what each process shares with the zygote, and the tables of its
    /// pages, in bytes.
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

/// Adds up the processes of `group`, whose files lie in `folder`. `inherited` is the anonymous memory that each began with.
pub fn of_group(group: i32, inherited: u64, folder: &Path) -> io::Result<Consumption> {
    let mut total = Consumption::default();
    let mut deleted = Deleted::of(folder);
    for pid in pids()? {
        let pid = pid?;
        let Some(threads) = threads(&pid, group) else {
            continue;
        };
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        total.tasks += threads;
        total.memory += kilobytes(&status, "RssAnon:")
            .saturating_mul(1024)
            .saturating_sub(inherited)
            + (kilobytes(&status, "RssShmem:") + kilobytes(&status, "VmPTE:")) * 1024;
        deleted.look_at(&pid);
    }
    total.disk = of_folder(folder).saturating_add(deleted.bytes());
    Ok(total)
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

/// Files of a folder that are in no folder any more, but open or mapped: they take room until the last process lets go.
struct Deleted<'a> {
    folder: &'a Path,
    /// Bytes by inode.
    files: BTreeMap<u64, u64>,
    /// Whether a process hides what it has open: it may be anything.
    hidden: bool,
}

impl<'a> Deleted<'a> {
    fn of(folder: &'a Path) -> Self {
        Self {
            folder,
            files: BTreeMap::new(),
            hidden: false,
        }
    }

    fn look_at(&mut self, pid: &str) {
        self.look_at_open(pid);
        self.look_at_mapped(pid);
    }

    fn look_at_open(&mut self, pid: &str) {
        let entries = match fs::read_dir(format!("/proc/{pid}/fd")) {
            Ok(entries) => entries,
            Err(error) => {
                // The kernel gives what is left of a process that ends to root.
                self.hidden |= error.kind() == io::ErrorKind::PermissionDenied && has_memory(pid);
                return;
            }
        };
        for entry in entries.flatten() {
            // Of the file behind the link, not of the link.
            if let Ok(file) = fs::metadata(entry.path())
                && file.is_file()
                && file.nlink() == 0
            {
                self.add(file.ino(), file.blocks() * 512);
            }
        }
    }

    /// proc_pid_maps(5): a file can be mapped and closed.
    fn look_at_mapped(&mut self, pid: &str) {
        let Some(folder) = self.folder.to_str() else {
            return;
        };
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        for line in maps.lines() {
            if let Some((inode, bytes)) = deleted_mapping(line, folder) {
                self.add(inode, bytes);
            }
        }
    }

    fn add(&mut self, inode: u64, bytes: u64) {
        let known = self.files.entry(inode).or_default();
        *known = bytes.max(*known);
    }

    fn bytes(&self) -> u64 {
        if self.hidden {
            return u64::MAX;
        }
        self.files.values().sum()
    }
}

/// Inode and length, if a line of proc_pid_maps(5) is of a deleted file of the folder.
fn deleted_mapping(line: &str, folder: &str) -> Option<(u64, u64)> {
    let mut fields = line.strip_suffix(" (deleted)")?.splitn(6, ' ');
    let (start, end) = fields.next()?.split_once('-')?;
    let inode = fields.nth(3)?.parse().ok()?;
    if !fields.next()?.trim_start().starts_with(folder) {
        return None;
    }
    let [start, end] = [start, end].map(|address| u64::from_str_radix(address, 16).ok());
    Some((inode, end?.checked_sub(start?)?))
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

fn kilobytes(status: &str, name: &str) -> u64 {
    status
        .lines()
        .find_map(|line| {
            line.strip_prefix(name)?
                .trim()
                .strip_suffix("kB")?
                .trim()
                .parse()
                .ok()
        })
        .unwrap_or(0)
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
        let own = of_group(group, 0, folder.path()).unwrap();
        assert!(own.tasks >= 1 && own.memory > 0, "{own:?}");
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

    #[test]
    fn a_deleted_file_counts_until_it_is_closed_and_unmapped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let held = fs::File::create(&path).unwrap();
        io::Write::write_all(&mut &held, &vec![1; 1 << 20]).unwrap();
        held.sync_all().unwrap();
        fs::remove_file(&path).unwrap();
        let mut deleted = Deleted::of(folder.path());
        deleted.look_at("self");
        assert!(deleted.bytes() >= 1 << 20, "{}", deleted.bytes());
    }

    #[test]
    fn a_deleted_file_counts_where_it_is_mapped_too() {
        let mapped = |line| deleted_mapping(line, "/runs/a");
        let line = "7f00-8f00 rw-s 00000000 08:01 12345                      /runs/a/work/x y (deleted)";
        assert_eq!(mapped(line), Some((12345, 0x1000)));
        assert_eq!(
            mapped("7f00-8f00 rw-s 00000000 08:01 12345   /runs/a/work/x"),
            None
        );
        assert_eq!(
            mapped("7f00-8f00 rw-s 00000000 00:01 1024   /dev/zero (deleted)"),
            None
        );
    }
}
