//! The folders of runs: one each, with a name that nobody can guess, and gone with everything in it when the run is. One that a run
//! has left exactly as it found it holds nothing: under another name it serves a later run, which saves making and removing four
//! folders for most runs.

use rustix::fs::Mode;
use std::collections::VecDeque;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What is in a run's folder when the run begins.
const PARTS: [&str; 3] = ["work", "home", "tmp"];
/// Folders that are kept for later runs, at most.
const MOST_KEPT: usize = 16;
/// Kernels tell times in steps of up to 10 ms: what is changed this much later has another time.
const REST: Duration = Duration::from_millis(20);

/// Where the folders of runs lie.
#[derive(Clone, Debug)]
pub struct Folders {
    base: PathBuf,
    /// The longest kept first.
    kept: Arc<Mutex<VecDeque<Kept>>>,
}

/// A folder for a later run.
#[derive(Debug)]
struct Kept {
    folder: Folder,
    since: Instant,
}

/// A run's folder.
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
    /// What it and its parts were like before the run, if every change since then shows.
    before: Option<[Mark; 4]>,
}

/// What becomes another with every change of a folder, whatever is undone later. A listing changes it too: the time of
/// the last one would tell the next run of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    place: (u64, u64),
    mode: u32,
    owner: (u32, u32),
    links: u64,
    read: (i64, i64),
    written: (i64, i64),
    changed: (i64, i64),
}

impl Folders {
    /// Makes `base`, or empties it: nothing of an earlier agent's runs is kept.
    pub fn open(base: &Path) -> io::Result<Self> {
        if fs::symlink_metadata(base).is_ok() {
            remove_tree(base)?;
        }
        fs::create_dir_all(base)?;
        // No other user enters it; runs, which have the same user, are kept out by landlock.
        rustix::fs::chmod(base, Mode::RWXU)?;
        Ok(Self {
            base: base.canonicalize()?,
            kept: Arc::default(),
        })
    }

    /// A folder with `work`, `home` and `tmp` in it, and nothing else.
    pub fn take(&self) -> io::Result<Folder> {
        let rested = self.kept().pop_front_if(|kept| kept.since.elapsed() >= REST);
        match rested {
            Some(kept) => Ok(kept.folder),
            // What is done to a new one at once may leave its times as they are, so nothing is said of them.
            None => Ok(Folder {
                path: self.make()?,
                before: None,
            }),
        }
    }

    /// Takes the folder of a run of which no process is left, and keeps it or a new one for a later run.
    pub fn give_back(&self, folder: &Folder) -> io::Result<()> {
        if folder.is_untouched()
            && let Ok(path) = self.rename(folder)
        {
            return self.keep(path);
        }
        remove_tree(&folder.path)?;
        if self.kept().len() >= MOST_KEPT {
            return Ok(());
        }
        match self.make() {
            Ok(path) => self.keep(path),
            // Tried again for the run that needs it, which is told why it cannot be.
            Err(_) => Ok(()),
        }
    }

    fn keep(&self, path: PathBuf) -> io::Result<()> {
        let before = marks(&path);
        let since = Instant::now();
        let mut kept = self.kept();
        if kept.len() >= MOST_KEPT {
            drop(kept);
            return remove_tree(&path);
        }
        let folder = Folder { path, before };
        kept.push_back(Kept { folder, since });
        Ok(())
    }

    /// The run that had it may have told its name.
    fn rename(&self, folder: &Folder) -> io::Result<PathBuf> {
        let path = self.free_path()?;
        fs::rename(&folder.path, &path)?;
        Ok(path)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, VecDeque<Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make(&self) -> io::Result<PathBuf> {
        let folder = self.free_path()?;
        rustix::fs::mkdir(&folder, Mode::RWXU)?;
        let made = PARTS
            .into_iter()
            .try_for_each(|name| rustix::fs::mkdir(folder.join(name), Mode::RWXU));
        if let Err(error) = made {
            // Where there is room for no more, none is taken by a part of a folder.
            let _ = remove_tree(&folder);
            return Err(error.into());
        }
        Ok(folder)
    }

    fn free_path(&self) -> io::Result<PathBuf> {
        let mut random = [0_u8; 16];
        getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(self.base.join(hex::encode(random)))
    }
}

impl Folder {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn is_untouched(&self) -> bool {
        self.before.is_some() && marks(&self.path) == self.before
    }
}

/// Of the folder and its parts. None where it cannot be told, or where the file system counts whole seconds, so that not
/// every change shows.
fn marks(folder: &Path) -> Option<[Mark; 4]> {
    let [work, home, tmp] = PARTS.map(|name| Mark::of(&folder.join(name)));
    let marks = [Mark::of(folder)?, work?, home?, tmp?];
    marks.iter().all(|mark| mark.changed.1 != 0).then_some(marks)
}

impl Mark {
    /// Of what is there itself, not of what a link leads to.
    fn of(path: &Path) -> Option<Self> {
        let found = fs::symlink_metadata(path).ok()?;
        Some(Self {
            place: (found.dev(), found.ino()),
            mode: found.mode(),
            owner: (found.uid(), found.gid()),
            links: found.nlink(),
            read: (found.atime(), found.atime_nsec()),
            written: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }
}

/// Removes a tree that hostile code has made: of any depth and with any permissions, without recursion and without
/// following links. Nobody may be changing it meanwhile.
pub fn remove_tree(root: &Path) -> io::Result<()> {
    // Most runs leave nothing in their folders, and the kernel removes only empty ones: nobody has to look.
    if remove_empty(root).is_ok() {
        return Ok(());
    }
    let mut counter = 0_u64;
    loop {
        // Every folder found is emptied of its files; the folders in it are moved up beside it, so that paths stay
        // short and each round has one level less.
        rustix::fs::chmod(root, Mode::RWXU)?;
        let mut folders = 0_u64;
        for entry in fs::read_dir(root)? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                fs::remove_file(entry.path())?;
                continue;
            }
            folders += 1;
            let folder = entry.path();
            rustix::fs::chmod(&folder, Mode::RWXU)?;
            for inner in fs::read_dir(&folder)? {
                let inner = inner?;
                if inner.file_type()?.is_dir() {
                    rustix::fs::chmod(inner.path(), Mode::RWXU)?;
                    counter += 1;
                    fs::rename(inner.path(), free_name(root, &mut counter))?;
                } else {
                    fs::remove_file(inner.path())?;
                }
            }
            fs::remove_dir(&folder)?;
        }
        if folders == 0 {
            return fs::remove_dir(root);
        }
    }
}

fn remove_empty(root: &Path) -> io::Result<()> {
    PARTS
        .into_iter()
        .try_for_each(|name| fs::remove_dir(root.join(name)))?;
    fs::remove_dir(root)
}

fn free_name(root: &Path, counter: &mut u64) -> PathBuf {
    loop {
        let path = root.join(format!("_{counter}"));
        if fs::symlink_metadata(&path).is_err() {
            return path;
        }
        *counter += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_folder_is_removed_whatever_is_left_of_its_parts() {
        let base = tempfile::tempdir().unwrap();
        let folders = Folders::open(&base.path().join("runs")).unwrap();
        let changes: [fn(&Path); 4] = [
            |_| {},
            |folder| fs::remove_dir(folder.join("home")).unwrap(),
            |folder| fs::write(folder.join("tmp/file"), "x").unwrap(),
            |folder| {
                fs::remove_dir(folder.join("work")).unwrap();
                symlink("/", folder.join("work")).unwrap();
            },
        ];
        for change in changes {
            let folder = folders.make().unwrap();
            change(&folder);
            remove_tree(&folder).unwrap();
            assert!(!folder.exists());
        }
    }

    #[test]
    fn a_hostile_tree_is_removed_and_what_its_links_point_to_is_not() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("kept"), "kept").unwrap();
        let base = tempfile::tempdir().unwrap();
        let folders = Folders::open(&base.path().join("runs")).unwrap();
        let folder = folders.make().unwrap();
        let work = folder.join("work");
        symlink(outside.path(), work.join("link")).unwrap();
        fs::write(work.join("_1"), "in the way").unwrap();
        let mut deep = work.clone();
        for _ in 0..200 {
            deep.push("d");
            fs::create_dir(&deep).unwrap();
            fs::write(deep.join("file"), "x").unwrap();
        }
        rustix::fs::chmod(work.join("d"), Mode::empty()).unwrap();
        remove_tree(&folder).unwrap();
        assert!(!folder.exists());
        assert!(outside.path().join("kept").exists());
    }

    /// What is done to a folder, and how.
    type Touch = (&'static str, fn(&Path));

    /// One that has lain for a while.
    fn rested(folders: &Folders) -> Folder {
        folders.give_back(&folders.take().unwrap()).unwrap();
        loop {
            let folder = folders.take().unwrap();
            if folder.before.is_some() {
                return folder;
            }
            remove_tree(folder.path()).unwrap();
        }
    }

    fn inode(folder: &Folder) -> u64 {
        fs::metadata(folder.path()).unwrap().ino()
    }

    #[test]
    fn a_folder_that_was_not_touched_serves_again_under_another_name() {
        let base = tempfile::tempdir().unwrap();
        let folders = Folders::open(&base.path().join("runs")).unwrap();
        let first = rested(&folders);
        let (path, inode_of_first) = (first.path().to_owned(), inode(&first));
        folders.give_back(&first).unwrap();
        assert!(!path.exists());
        let kept = folders.kept().pop_front().unwrap().folder;
        assert_eq!(inode(&kept), inode_of_first);
        assert_ne!(kept.path(), path);
    }

    #[test]
    fn a_folder_that_was_touched_in_any_way_serves_nobody() {
        let touches: [Touch; 11] = [
            ("a file", |folder| {
                fs::write(folder.join("work/file"), "x").unwrap();
            }),
            ("a file that is gone", |folder| {
                fs::write(folder.join("tmp/file"), "x").unwrap();
                fs::remove_file(folder.join("tmp/file")).unwrap();
            }),
            ("a file beside the parts that is gone", |folder| {
                fs::write(folder.join("file"), "x").unwrap();
                fs::remove_file(folder.join("file")).unwrap();
            }),
            ("a mode", |folder| {
                rustix::fs::chmod(folder.join("home"), Mode::empty()).unwrap();
                rustix::fs::chmod(folder.join("home"), Mode::RWXU).unwrap();
            }),
            ("the mode of the folder", |folder| {
                rustix::fs::chmod(folder, Mode::RUSR).unwrap();
                rustix::fs::chmod(folder, Mode::RWXU).unwrap();
            }),
            ("an attribute", |folder| {
                let (part, flags) = (folder.join("work"), rustix::fs::XattrFlags::empty());
                rustix::fs::setxattr(&part, "user.mark", b"x", flags).unwrap();
                rustix::fs::removexattr(&part, "user.mark").unwrap();
            }),
            ("times that are set back", |folder| {
                let part = fs::File::open(folder.join("work")).unwrap();
                let before = part.metadata().unwrap();
                let times = fs::FileTimes::new()
                    .set_accessed(before.accessed().unwrap())
                    .set_modified(before.modified().unwrap());
                part.set_times(times).unwrap();
            }),
            ("a listing", |folder| {
                assert_eq!(fs::read_dir(folder.join("home")).unwrap().count(), 0);
            }),
            ("a part that is gone", |folder| {
                fs::remove_dir(folder.join("tmp")).unwrap();
            }),
            ("a part that was made anew", |folder| {
                fs::remove_dir(folder.join("tmp")).unwrap();
                fs::create_dir(folder.join("tmp")).unwrap();
            }),
            ("a part that is a link to another", |folder| {
                fs::rename(folder.join("work"), folder.join("home/work")).unwrap();
                symlink("home/work", folder.join("work")).unwrap();
            }),
        ];
        let base = tempfile::tempdir().unwrap();
        let folders = Folders::open(&base.path().join("runs")).unwrap();
        for (what, touch) in touches {
            let folder = rested(&folders);
            assert!(folder.is_untouched());
            touch(folder.path());
            assert!(!folder.is_untouched(), "{what}");
            folders.give_back(&folder).unwrap();
            assert!(!folder.path().exists(), "{what}");
            let kept = folders.kept().pop_front().unwrap().folder;
            for part in PARTS {
                assert_eq!(fs::read_dir(kept.path().join(part)).unwrap().count(), 0, "{what}");
            }
        }
    }

    #[test]
    fn a_folder_swapped_for_a_link_serves_nobody_and_what_it_leads_to_is_not_touched() {
        let base = tempfile::tempdir().unwrap();
        let folders = Folders::open(&base.path().join("runs")).unwrap();
        let (folder, elsewhere) = (rested(&folders), base.path().join("elsewhere"));
        fs::rename(folder.path(), &elsewhere).unwrap();
        symlink(&elsewhere, folder.path()).unwrap();
        assert!(!folder.is_untouched());
    }

    #[test]
    fn what_cannot_be_known_of_a_new_folder_is_not_believed() {
        let base = tempfile::tempdir().unwrap();
        let folders = Folders::open(&base.path().join("runs")).unwrap();
        let folder = folders.take().unwrap();
        assert!(!folder.is_untouched());
        folders.give_back(&folder).unwrap();
        assert!(!folder.path().exists());
    }

    #[test]
    fn no_more_are_kept_than_can_be_needed() {
        let base = tempfile::tempdir().unwrap();
        let folders = Folders::open(&base.path().join("runs")).unwrap();
        let taken: Vec<_> = (0..MOST_KEPT + 3).map(|_| folders.take().unwrap()).collect();
        for folder in taken {
            folders.give_back(&folder).unwrap();
        }
        assert_eq!(fs::read_dir(&folders.base).unwrap().count(), MOST_KEPT);
        assert_eq!(folders.kept().len(), MOST_KEPT);
    }
}
