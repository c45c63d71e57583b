//! How far a stream is: one line on a terminal, redrawn; nothing elsewhere.

use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressFinish, ProgressStyle};

use crate::output;

const TICK: Duration = Duration::from_millis(100);

/// Shows a stream.
pub struct Progress {
    bar: ProgressBar,
    quiet: bool,
}

impl Progress {
    /// `quiet` shows nothing at all.
    pub fn new(quiet: bool) -> Self {
        // Draws on stderr, and nothing where that is no terminal.
        let bar = if quiet {
            ProgressBar::hidden()
        } else {
            // A stream that fails leaves no line behind.
            ProgressBar::new_spinner().with_finish(ProgressFinish::AndClear)
        };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {bytes} {bytes_per_sec} {elapsed}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(TICK);
        Self { bar, quiet }
    }

    /// So many bytes more.
    pub fn add(&self, bytes: usize) {
        self.bar.inc(bytes as u64);
    }

    /// The stream is over: what was done, with how many epochs of keys.
    pub fn finish(self, done: &str, last_epoch: u16) {
        let bytes = self.bar.position();
        self.bar.finish_and_clear();
        if !self.quiet {
            let epochs = u32::from(last_epoch) + 1;
            output::note(format_args!(
                "{done} {bytes} bytes ({}), epochs of keys: {epochs}",
                HumanBytes(bytes)
            ));
        }
    }
}
