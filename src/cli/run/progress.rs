//! What a run prints and how far it is, on stderr: lines as they come, and on a terminal one line of progress below them.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use sandbox::lines::Lines;
use sandbox::stream::Stream;

use crate::output;

const TICK: Duration = Duration::from_millis(100);

/// Shows a run.
pub struct Progress {
    bar: ProgressBar,
    blocks: Vec<String>,
    /// What the program prints on stdout and on stderr.
    lines: [Lines; 2],
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
            lines: Default::default(),
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

    /// The program printed something.
    pub fn printed(&mut self, stream: Stream, data: &[u8]) {
        let lines = match stream {
            Stream::Stdout => &mut self.lines[0],
            Stream::Stderr => &mut self.lines[1],
        };
        lines.take(data, |line| show(&self.bar, self.quiet, line));
    }

    /// The run is over: what was printed without a line end, and no progress any more.
    pub fn finish(mut self) {
        for lines in &mut self.lines {
            lines.finish(|line| show(&self.bar, self.quiet, line));
        }
        self.bar.finish_and_clear();
    }
}

fn show(bar: &ProgressBar, quiet: bool, line: &[u8]) {
    if !quiet {
        // Of a line that was drawn anew again and again, the last state counts.
        let last = line.rsplit(|byte| *byte == b'\r').next().unwrap_or(line);
        // What the program prints may not control the terminal.
        bar.suspend(|| output::note(output::harmless(&String::from_utf8_lossy(last))));
    }
}
