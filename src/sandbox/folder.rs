//! The folders of runs: one each, with a name that nobody can guess, and gone with everything in it when the run is.

use rustix::fs::Mode;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What is in a run's folder when the run begins.
const PARTS: [&str; 3] = ["work", "home", "tmp"];

/// Where the folders of runs lie.
#[derive(Clone, Debug)]
pub struct Folders {
    base: PathBuf,
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
        })
    }

    /// A new folder with `work`, `home` and `tmp` in it.
    pub fn make(&self) -> io::Result<PathBuf> {
        let mut random = [0_u8; 16];
        getrandom::fill(&mut random).map_err(|error| io::Error::other(error.to_string()))?;
        let folder = self.base.join(hex::encode(random));
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
}
