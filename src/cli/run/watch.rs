//! `chimera run --watch`: runs again whenever the document or the file of its inputs changes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{EventKind, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use crate::error::Error;

/// Editors write a file in several steps.
const SETTLED: Duration = Duration::from_millis(100);

/// Tells when one of some files changes.
pub struct Changes {
    /// Ends the watch when it is dropped.
    _watcher: notify::RecommendedWatcher,
    events: mpsc::UnboundedReceiver<()>,
}

impl Changes {
    /// Watches the folders of the files: editors replace a file, and a watch on the old one would see nothing more.
    pub fn of(files: &[&Path]) -> Result<Self, Error> {
        let fail = |cause: notify::Error| Error::failed("cannot watch the document").because(&cause);
        let watched: Vec<PathBuf> = files
            .iter()
            .map(|file| std::path::absolute(file).unwrap_or_else(|_| file.to_path_buf()))
            .collect();
        let (sender, events) = mpsc::unbounded_channel();
        let names = watched.clone();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let changed = event.is_ok_and(|event| {
                !matches!(event.kind, EventKind::Access(_))
                    && event.paths.iter().any(|path| names.contains(path))
            });
            if changed {
                // Nobody listens any more: the program is ending.
                let _ = sender.send(());
            }
        })
        .map_err(fail)?;
        for folder in watched.iter().filter_map(|file| file.parent()) {
            watcher.watch(folder, RecursiveMode::NonRecursive).map_err(fail)?;
        }
        Ok(Self {
            _watcher: watcher,
            events,
        })
    }

    /// Waits for the next change, and until no more follow at once.
    pub async fn next(&mut self) {
        if self.events.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
        while let Ok(Some(())) = tokio::time::timeout(SETTLED, self.events.recv()).await {}
    }
}
