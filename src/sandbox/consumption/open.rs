//! What processes hold through their descriptors and mappings: files that are deleted, and the kernel's memory behind sockets,
//! pipes and mappings, which belongs to no process.

use super::has_memory;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// What may wait in a socket to be read: the kernel's default, 208 KiB (net.core.wmem_default), which a run cannot raise, and a last
/// message of that length.
const IN_A_SOCKET: u64 = 416 << 10;
/// What may wait in a pipe: the kernel's default, which a run cannot raise either.
const IN_A_PIPE: u64 = 64 << 10;
/// What the kernel needs to know of a mapping.
const OF_A_MAPPING: u64 = 256;

/// What the processes that were looked at hold open or mapped.
pub(super) struct Open<'a> {
    folder: &'a Path,
    /// Bytes by inode: files that are in no folder any more take room until the last process lets go.
    deleted: BTreeMap<u64, u64>,
    /// By inode, since processes share them.
    sockets: BTreeSet<u64>,
    pipes: BTreeSet<u64>,
    mappings: u64,
    /// Whether a process hides what it has open: it may be anything.
    hidden: bool,
}

impl<'a> Open<'a> {
    pub(super) fn of(folder: &'a Path) -> Self {
        Self {
            folder,
            deleted: BTreeMap::new(),
            sockets: BTreeSet::new(),
            pipes: BTreeSet::new(),
            mappings: 0,
            hidden: false,
        }
    }

    pub(super) fn look_at(&mut self, pid: &str) {
        self.look_at_open(pid);
        self.look_at_mapped(pid);
    }

    /// What the kernel may keep for them. What really waits in a socket is told to nobody outside.
    pub(super) fn kernel_memory(&self) -> u64 {
        self.sockets.len() as u64 * IN_A_SOCKET
            + self.pipes.len() as u64 * IN_A_PIPE
            + self.mappings * OF_A_MAPPING
    }

    /// Bytes on disk of files that are deleted.
    pub(super) fn deleted(&self) -> u64 {
        if self.hidden {
            return u64::MAX;
        }
        self.deleted.values().sum()
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
            let Ok(file) = fs::metadata(entry.path()) else {
                continue;
            };
            if file.is_file() && file.nlink() == 0 {
                self.add_deleted(file.ino(), file.blocks() * 512);
            } else if file.file_type().is_socket() {
                self.sockets.insert(file.ino());
            } else if file.file_type().is_fifo() {
                self.pipes.insert(file.ino());
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
            self.mappings += 1;
            if let Some((inode, bytes)) = deleted_mapping(line, folder) {
                self.add_deleted(inode, bytes);
            }
        }
    }

    fn add_deleted(&mut self, inode: u64, bytes: u64) {
        let known = self.deleted.entry(inode).or_default();
        *known = bytes.max(*known);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deleted_file_counts_until_it_is_closed_and_unmapped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let held = fs::File::create(&path).unwrap();
        io::Write::write_all(&mut &held, &vec![1; 1 << 20]).unwrap();
        held.sync_all().unwrap();
        fs::remove_file(&path).unwrap();
        let mut open = Open::of(folder.path());
        open.look_at("self");
        assert!(open.deleted() >= 1 << 20, "{}", open.deleted());
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

    #[test]
    fn what_may_wait_in_sockets_and_pipes_counts_once_for_each() {
        let folder = tempfile::tempdir().unwrap();
        let before = {
            let mut open = Open::of(folder.path());
            open.look_at_open("self");
            open.kernel_memory()
        };
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let (_copy, _pipe) = (one.try_clone().unwrap(), io::pipe().unwrap());
        let mut open = Open::of(folder.path());
        for _ in 0..2 {
            open.look_at_open("self");
        }
        assert!(open.kernel_memory() >= before + 2 * IN_A_SOCKET + IN_A_PIPE);
        assert!(open.sockets.len() < 100, "{}", open.sockets.len());
    }
}
