//! What runs print, as JSON lines on the agent's standard output: one object a line, for `chimera logs`.
//!
//! The text is the user's: control characters are escaped, so that it cannot move a terminal's cursor. A slow reader
//! never holds up a run: lines that do not fit the queue are dropped and counted.

use jiff::Timestamp;
use sandbox::lines::Lines;
use sandbox::stream::Stream;
use serde::Serialize;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

const QUEUE: usize = 4096;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry<'a> {
    timestamp: Timestamp,
    run_id: &'a str,
    stream: Stream,
    line: &'a str,
}

/// Writes the lines of one stream of one run.
pub struct Journal {
    run_id: Arc<str>,
    stream: Stream,
    lines: Lines,
}

impl Journal {
    /// For one stream of one run.
    pub fn new(run_id: Arc<str>, stream: Stream) -> Self {
        Self {
            run_id,
            stream,
            lines: Lines::default(),
        }
    }

    /// Takes what the stream gave next.
    pub fn take(&mut self, data: &[u8]) {
        self.lines
            .take(data, |line| write(&self.run_id, self.stream, line));
    }

    /// Writes what is left without a newline.
    pub fn finish(&mut self) {
        self.lines.finish(|line| write(&self.run_id, self.stream, line));
    }
}

fn write(run_id: &str, stream: Stream, line: &[u8]) {
    let text = encode(run_id, stream, &String::from_utf8_lossy(line), Timestamp::now());
    if queue().try_send(Task::Write(text)).is_err() {
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

fn encode(run_id: &str, stream: Stream, line: &str, timestamp: Timestamp) -> String {
    let entry = Entry {
        timestamp,
        run_id,
        stream,
        line,
    };
    let json = serde_json::to_string(&entry).expect("text and a time always serialise");
    let mut escaped = String::with_capacity(json.len() + 1);
    for character in json.chars() {
        // serde_json escapes what is below a space; terminals also obey the C1 controls.
        if ('\u{7f}'..='\u{9f}').contains(&character) {
            let _ = write!(escaped, "\\u{:04x}", u32::from(character));
        } else {
            escaped.push(character);
        }
    }
    escaped.push('\n');
    escaped
}

static DROPPED: AtomicU64 = AtomicU64::new(0);

enum Task {
    Write(String),
    /// Answered when everything before it is written.
    Flush(SyncSender<()>),
}

/// Waits until all lines so far are written, or `limit` has passed. Blocks.
pub fn flush(limit: Duration) {
    let (sender, receiver) = sync_channel(1);
    if queue().try_send(Task::Flush(sender)).is_ok() {
        let _ = receiver.recv_timeout(limit);
    }
}

/// The thread that writes: standard output may block for as long as its reader likes.
fn queue() -> &'static SyncSender<Task> {
    static WRITER: OnceLock<SyncSender<Task>> = OnceLock::new();
    WRITER.get_or_init(|| {
        let (sender, receiver) = sync_channel::<Task>(QUEUE);
        std::thread::spawn(move || {
            let mut out = std::io::BufWriter::new(std::io::stdout());
            while let Ok(first) = receiver.recv() {
                for task in std::iter::once(first).chain(receiver.try_iter()) {
                    match task {
                        Task::Write(text) => drop(out.write_all(text.as_bytes())),
                        Task::Flush(done) => {
                            let _ = out.flush();
                            let _ = done.send(());
                        }
                    }
                }
                let _ = out.flush();
                let dropped = DROPPED.swap(0, Ordering::Relaxed);
                if dropped > 0 {
                    tracing::warn!(
                        dropped,
                        "lines of runs were not written: standard output is too slow"
                    );
                }
            }
        });
        sender
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_escapes_are_inert() {
        let text = encode(
            "r",
            Stream::Stdout,
            "\u{1b}[2J\u{9b}31m\u{7f}\"",
            Timestamp::UNIX_EPOCH,
        );
        assert!(text.trim_end().chars().all(|c| !c.is_control()), "{text:?}");
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["line"], "\u{1b}[2J\u{9b}31m\u{7f}\"");
        assert_eq!(value["stream"], "stdout");
    }
}
