//! What runs print, as JSON lines on the agent's standard output: one object a line, for `chimera logs`.
//!
//! The text is the user's: control characters are escaped, so that it cannot move a terminal's cursor. A slow reader
//! never holds up a run: lines that do not fit the queue are dropped and counted.

use jiff::Timestamp;
use sandbox::execution::Happening;
use sandbox::job::Job;
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
    #[serde(flatten)]
    source: Source<'a>,
    line: &'a str,
}

/// Writes the lines of one run, each with the block that was running when it came.
pub struct Journal<'a> {
    run_id: Arc<str>,
    job: &'a Job,
    /// The place in the job of the block that is running.
    block: Option<usize>,
    stdout: Lines,
    stderr: Lines,
}

impl<'a> Journal<'a> {
    /// Before the run's first block.
    pub fn new(run_id: Arc<str>, job: &'a Job) -> Self {
        Self {
            run_id,
            job,
            block: None,
            stdout: Lines::default(),
            stderr: Lines::default(),
        }
    }

    /// Takes what happens next.
    pub fn take(&mut self, happening: &Happening) {
        self.tell(happening, write);
    }

    /// Writes what is left without a newline.
    pub fn finish(&mut self) {
        self.cut(&mut write);
    }

    fn tell(&mut self, happening: &Happening, mut write: impl FnMut(Source<'_>, &[u8])) {
        match happening {
            Happening::Began(index) => {
                self.cut(&mut write);
                self.block = Some(*index);
            }
            Happening::Ended(..) => {
                self.cut(&mut write);
                self.block = None;
            }
            Happening::Printed(stream, data) => {
                let source = source(&self.run_id, self.job, self.block, *stream);
                let lines = match stream {
                    Stream::Stdout => &mut self.stdout,
                    Stream::Stderr => &mut self.stderr,
                };
                lines.take(data, |line| write(source, line));
            }
        }
    }

    /// A line belongs to one block: it ends with it.
    fn cut(&mut self, write: &mut impl FnMut(Source<'_>, &[u8])) {
        for (stream, lines) in [
            (Stream::Stdout, &mut self.stdout),
            (Stream::Stderr, &mut self.stderr),
        ] {
            let source = source(&self.run_id, self.job, self.block, stream);
            lines.finish(|line| write(source, line));
        }
    }
}

/// Where a line comes from.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Source<'a> {
    run_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    block: Option<&'a str>,
    stream: Stream,
}

fn source<'a>(run_id: &'a str, job: &'a Job, block: Option<usize>, stream: Stream) -> Source<'a> {
    Source {
        run_id,
        block: block.map(|index| job.blocks[index].name.as_str()),
        stream,
    }
}

fn write(source: Source<'_>, line: &[u8]) {
    let text = encode(source, &String::from_utf8_lossy(line), Timestamp::now());
    if queue().try_send(Task::Write(text)).is_err() {
        DROPPED.fetch_add(1, Ordering::Relaxed);
    }
}

fn encode(source: Source<'_>, line: &str, timestamp: Timestamp) -> String {
    let entry = Entry {
        timestamp,
        source,
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
    use crypto::attestation::{BlockResult, BlockState};
    use sandbox::job::Block;

    const SOURCE: Source<'_> = Source {
        run_id: "r",
        block: Some("a"),
        stream: Stream::Stdout,
    };

    #[test]
    fn terminal_escapes_are_inert() {
        let text = encode(SOURCE, "\u{1b}[2J\u{9b}31m\u{7f}\"", Timestamp::UNIX_EPOCH);
        assert!(text.trim_end().chars().all(|c| !c.is_control()), "{text:?}");
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["line"], "\u{1b}[2J\u{9b}31m\u{7f}\"");
        assert_eq!(value["stream"], "stdout");
    }

    #[test]
    fn what_no_block_printed_names_none() {
        let parse = |source| {
            let text = encode(source, "hi", Timestamp::UNIX_EPOCH);
            serde_json::from_str::<serde_json::Value>(&text).unwrap()
        };
        let mut line = serde_json::json!({
            "timestamp": "1970-01-01T00:00:00Z", "runId": "r", "block": "a", "stream": "stdout", "line": "hi",
        });
        assert_eq!(parse(SOURCE), line);
        line.as_object_mut().unwrap().remove("block");
        let source = Source {
            block: None,
            ..SOURCE
        };
        assert_eq!(parse(source), line);
    }

    #[test]
    fn a_line_ends_with_the_block_that_printed_it() {
        let job = Job {
            blocks: ["a", "b"].map(named).into(),
            inputs: "{}".into(),
            outputs: None,
            specifications: vec![],
            strict: false,
            time_limit: Duration::from_secs(1),
        };
        let out = |text: &str| Happening::Printed(Stream::Stdout, text.into());
        let err = |text: &str| Happening::Printed(Stream::Stderr, text.into());
        let ended = |index: usize| {
            let result = BlockResult {
                name: job.blocks[index].name.clone(),
                language: "python".into(),
                state: BlockState::Succeeded,
                duration_millis: 1,
                diagnostics: String::new(),
            };
            Happening::Ended(index, result)
        };
        let happenings = [
            out("before"),
            Happening::Began(0),
            out("one\ntw"),
            err("oh"),
            out("o"),
            ended(0),
            out("between\n"),
            Happening::Began(1),
            out("three\n"),
            ended(1),
            err("after"),
        ];
        let mut journal = Journal::new("r".into(), &job);
        let mut told = Vec::new();
        let mut write = |source: Source<'_>, line: &[u8]| {
            let block = source.block.unwrap_or("-");
            told.push(format!("{block} {}", String::from_utf8_lossy(line)));
        };
        for happening in &happenings {
            journal.tell(happening, &mut write);
        }
        journal.cut(&mut write);
        let expected = [
            "- before",
            "a one",
            "a two",
            "a oh",
            "- between",
            "b three",
            "- after",
        ];
        assert_eq!(told, expected);
    }

    fn named(name: &str) -> Block {
        Block {
            name: name.into(),
            ..Block::default()
        }
    }
}
