//! What a run prints and how far it is, on stderr: lines as they come, and on a terminal one line of progress below them.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::output;

const TICK: Duration = Duration::from_millis(100);
/// A line without end is shown in parts.
const LONGEST_LINE: usize = 16 * 1024;

/// Shows a run.
pub struct Progress {
    bar: ProgressBar,
    blocks: Vec<String>,
    /// What the program printed behind its last line end, of each stream.
    partial: [Vec<u8>; 2],
    quiet: bool,
}

impl Progress {
    /// For a run of these blocks. `quiet` shows nothing at all.
    pub fn new(blocks: Vec<String>, quiet: bool) -> Self {
        // Draws on stderr, and nothing where that is no terminal.
        let bar = if quiet {
            ProgressBar::hidden()
        } else {
            ProgressBar::new_spinner()
        };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed}") {
            bar.set_style(style);
        }
        bar.set_message("starting");
        bar.enable_steady_tick(TICK);
        Self {
            bar,
            blocks,
            partial: [Vec::new(), Vec::new()],
            quiet,
        }
    }

    /// A block began.
    pub fn began(&self, index: usize) {
        if let Some(name) = self.blocks.get(index) {
            self.bar
                .set_message(format!("block {name} ({} of {})", index + 1, self.blocks.len()));
        }
    }

    /// The program printed something on its stream 0 (stdout) or 1 (stderr).
    pub fn printed(&mut self, stream: usize, data: &[u8]) {
        let partial = &mut self.partial[stream];
        for &byte in data {
            if byte == b'\n' || byte == b'\r' || partial.len() == LONGEST_LINE {
                let line = std::mem::take(partial);
                // A carriage return before a line end, or one that draws progress anew.
                if byte == b'\n' || !line.is_empty() {
                    show(&self.bar, self.quiet, &line);
                }
                if byte == b'\n' || byte == b'\r' {
                    continue;
                }
            }
            partial.push(byte);
        }
    }

    /// The run is over: what was printed without a line end, and no progress any more.
    pub fn finish(mut self) {
        for partial in &mut self.partial {
            if !partial.is_empty() {
                show(&self.bar, self.quiet, &std::mem::take(partial));
            }
        }
        self.bar.finish_and_clear();
    }
}

fn show(bar: &ProgressBar, quiet: bool, line: &[u8]) {
    if !quiet {
        // What the program prints may not control the terminal.
        bar.suspend(|| output::note(output::harmless(&String::from_utf8_lossy(line))));
    }
}
