//! One run, from the fork to the last of its processes: feeds the child, hears it, holds it to its limits.
//!
//! The control socket and both pipes are in the hands of user code. Whatever arrives is bounded, and believed only as
//! what this run says of itself. Nothing here knows gRPC, grants or signatures.

use crate::consumption::{self, Consumption};
use crate::folder::{Folders, remove_tree};
use crate::job::{Block, Job};
use crate::reason;
use crate::zygote::{Ending, Order, State, Zygote};
use crypto::DigestSet;
use crypto::attestation::{BlockResult, BlockState, RunError, StreamDigest};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};

/// The outputs of a run, at most.
pub const LONGEST_OUTPUTS: usize = 8 << 20;
/// Nesting of the outputs, at most: twice what the child's own conversion allows.
const DEEPEST_OUTPUTS: usize = 128;
/// What is kept of each stream.
pub const KEPT_OUTPUT: usize = 1 << 20;
/// What a run may print before it is stopped.
const MOST_OUTPUT: u64 = 1 << 30;
const LONGEST_MESSAGE: usize = 64 << 10;
const LONGEST_TEXT: usize = 8 << 10;
/// From the kill to the end of the last process.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// Short runs are never looked at.
const FIRST_LOOK: Duration = Duration::from_millis(100);
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// One of a run's two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What happens while a run is under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Happening {
    /// A block began.
    Began(usize),
    /// A block ended.
    Ended(usize, BlockResult),
    /// Something was printed.
    Printed(Stream, Vec<u8>),
}

/// How a run went.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The outputs, or why there are none.
    pub result: Result<Vec<u8>, RunError>,
    /// Every block of the job, in order.
    pub blocks: Vec<BlockResult>,
    /// Standard output.
    pub stdout: StreamDigest,
    /// Standard error.
    pub stderr: StreamDigest,
    /// When the run began.
    pub started_at: Timestamp,
    /// When the last of its processes was gone.
    pub finished_at: Timestamp,
    /// The time between, by the monotonic clock.
    pub elapsed: Duration,
}

/// Where runs are carried out.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Forks their children.
    pub zygote: &'a Zygote,
    /// Holds their folders.
    pub folders: &'a Folders,
    /// What the processes of one run may use together.
    pub together: Consumption,
}

/// Runs `job` and tells `sink` what happens. `stop` ends the run with the cause that is put into it.
pub async fn execute(
    place: Place<'_>,
    job: &Job,
    mut stop: watch::Receiver<Option<RunError>>,
    mut sink: impl FnMut(Happening) + Send,
) -> Outcome {
    let (started_at, began) = (Timestamp::now(), Instant::now());
    let mut progress = Progress::of(job);
    let (mut stdout, mut stderr) = (Kept::default(), Kept::default());
    let begun = match refuse_language(place, job) {
        None => begin(place, job).map_err(|error| {
            failure(
                reason::SANDBOX_FAILED,
                format!("the run's folder or pipes cannot be made: {error}"),
            )
        }),
        Some(refusal) => Err(refusal),
    };
    let result = match begun {
        Ok(mut running) => {
            let result = running
                .follow(
                    job,
                    place,
                    &mut stop,
                    &mut progress,
                    [&mut stdout, &mut stderr],
                    &mut sink,
                )
                .await;
            running.clean_up().await;
            result
        }
        Err(error) => Err(error),
    };
    if let Err(error) = &result {
        progress.fail(error, &mut sink);
    }
    Outcome {
        result,
        blocks: progress.finish(&mut sink),
        stdout: stdout.digest(),
        stderr: stderr.digest(),
        started_at,
        finished_at: Timestamp::now(),
        elapsed: began.elapsed(),
    }
}

/// An error without a place in the document.
pub fn failure(reason: &str, message: impl Into<String>) -> RunError {
    RunError {
        reason: reason.to_owned(),
        message: message.into(),
        line: None,
        column: None,
        code: None,
    }
}

/// Nothing is run when a part of the document could not be.
fn refuse_language(place: Place<'_>, job: &Job) -> Option<RunError> {
    let state = place.zygote.state();
    let State::Ready(ready) = &*state.borrow() else {
        return None;
    };
    let block = job.unsupported(&ready.languages)?;
    let message = format!(
        "block {} is in {}, which is not offered here; offered: {}",
        block.name,
        block.language,
        ready.languages.join(", ")
    );
    Some(RunError {
        line: Some(block.line),
        ..failure(reason::UNSUPPORTED_LANGUAGE, message)
    })
}

/// What is held while a run is under way.
struct Running {
    folder: PathBuf,
    child: crate::zygote::Child,
    control: UnixStream,
    stdout: pipe::Receiver,
    stderr: pipe::Receiver,
}

fn begin(place: Place<'_>, job: &Job) -> io::Result<Running> {
    let (ours, theirs) = StdUnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let (stdout, stdout_writer) = io::pipe()?;
    let (stderr, stderr_writer) = io::pipe()?;
    let (stdout, stderr) = (
        pipe::Receiver::from_owned_fd(stdout.into())?,
        pipe::Receiver::from_owned_fd(stderr.into())?,
    );
    let control = UnixStream::from_std(ours)?;
    let folder = place.folders.make()?;
    let child = place.zygote.fork(Order {
        folder: folder.clone(),
        // A second line behind the time limit: each process may use every core for all of it.
        cpu_seconds: (job.time_limit.as_secs() + 1).saturating_mul(cores()),
        control: OwnedFd::from(theirs),
        stdout: stdout_writer.into(),
        stderr: stderr_writer.into(),
    });
    Ok(Running {
        folder,
        child,
        control,
        stdout,
        stderr,
    })
}

fn cores() -> u64 {
    std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64)
}

impl Running {
    /// Until no process of the run is left and everything it wrote is read.
    async fn follow(
        &mut self,
        job: &Job,
        place: Place<'_>,
        stop: &mut watch::Receiver<Option<RunError>>,
        progress: &mut Progress,
        [stdout, stderr]: [&mut Kept; 2],
        sink: &mut (impl FnMut(Happening) + Send),
    ) -> Result<Vec<u8>, RunError> {
        let mut order = frame(&Told {
            blocks: &job.blocks,
            inputs: &job.inputs,
            outputs: job.outputs.as_deref(),
        });
        let deadline = Instant::now() + job.time_limit;
        let mut kill_deadline = None;
        let mut looks = interval_at(Instant::now() + FIRST_LOOK, LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut reader, mut writer) = self.control.split();
        let (mut frames, mut out, mut err) = (
            Frames::default(),
            Vec::with_capacity(8 << 10),
            Vec::with_capacity(8 << 10),
        );
        let (mut control_open, mut out_open, mut err_open) = (true, true, true);
        let mut ending = None;
        // The first cause counts: what comes after is its consequence.
        let mut verdict: Option<Result<Vec<u8>, RunError>> = None;
        let mut stop_open = true;
        while ending.is_none() || control_open || out_open || err_open {
            let (mut fatal, mut look) = (None, false);
            tokio::select! {
                read = reader.read_buf(&mut frames.buffer), if control_open => {
                    control_open = matches!(read, Ok(1..));
                    while let Some(said) = frames.next() {
                        match said {
                            Ok(said) => match progress.hear(said, sink) {
                                Some(result @ Err(_)) => { verdict.get_or_insert(result); }
                                Some(Ok(outputs)) => {
                                    let checked = check_outputs(outputs);
                                    verdict.get_or_insert(checked);
                                }
                                None => {}
                            },
                            Err(error) => fatal = Some(error),
                        }
                        if fatal.is_some() {
                            control_open = false;
                            break;
                        }
                    }
                }
                written = writer.write(&order), if !order.is_empty() => match written {
                    Ok(length) => drop(order.drain(..length)),
                    // The child is gone or going; how it ended says more.
                    Err(_) => order.clear(),
                },
                read = self.stdout.read_buf(&mut out), if out_open => {
                    out_open = matches!(read, Ok(1..));
                    fatal = stdout.take(&mut out, Stream::Stdout, sink);
                }
                read = self.stderr.read_buf(&mut err), if err_open => {
                    err_open = matches!(read, Ok(1..));
                    fatal = stderr.take(&mut err, Stream::Stderr, sink);
                }
                ended = &mut self.child.ended, if ending.is_none() => {
                    ending = Some(ended.unwrap_or(Ending::Lost));
                    if ending == Some(Ending::Lost) {
                        break;
                    }
                }
                () = sleep_until(deadline), if kill_deadline.is_none() => {
                    let seconds = job.time_limit.as_secs();
                    fatal = Some(failure(reason::TIMED_OUT, format!("the run took longer than {seconds} s")));
                }
                _ = looks.tick(), if kill_deadline.is_none() && ending.is_none() => {
                    look = true;
                }
                changed = stop.wait_for(Option::is_some), if stop_open && kill_deadline.is_none() => match changed {
                    Ok(cause) => fatal.clone_from(&cause),
                    Err(_) => stop_open = false,
                },
                () = sleep_until(kill_deadline.unwrap_or(deadline)), if kill_deadline.is_some() => {
                    tracing::error!("a run's processes did not end when they were killed");
                    place.zygote.replace();
                    break;
                }
            }
            if look {
                fatal = over_limit(place, self.child.group(), &self.folder).await;
            }
            if let Some(error) = fatal {
                // A verdict that was told before counts no more: the run was not over.
                if kill_deadline.is_none() {
                    verdict = Some(Err(error));
                    kill_deadline = Some(Instant::now() + KILL_LIMIT);
                    self.child.kill();
                }
            }
        }
        verdict.unwrap_or_else(|| Err(cause_of(ending.unwrap_or(Ending::Lost), progress.entered)))
    }

    /// Nothing of the run remains.
    async fn clean_up(self) {
        let folder = self.folder;
        let removed = tokio::task::spawn_blocking(move || remove_tree(&folder)).await;
        if let Ok(Err(error)) = removed {
            tracing::error!(%error, "a run's folder cannot be removed");
        }
    }
}

/// Whether the run's processes use too much together.
async fn over_limit(place: Place<'_>, group: Option<i32>, folder: &Path) -> Option<RunError> {
    let group = group?;
    let inherited = match &*place.zygote.state().borrow() {
        State::Ready(ready) => ready.anonymous,
        _ => return None,
    };
    let folder = folder.to_owned();
    let used = tokio::task::spawn_blocking(move || {
        let disk = consumption::of_folder(&folder);
        consumption::of_group(group, inherited).map(|used| Consumption { disk, ..used })
    })
    .await;
    let Ok(Ok(used)) = used else {
        return None;
    };
    if used.tasks > place.together.tasks {
        let message = format!(
            "the run had more than {} processes and threads",
            place.together.tasks
        );
        return Some(failure(reason::PROCESS_LIMIT_EXCEEDED, message));
    }
    if used.disk > place.together.disk {
        let message = format!(
            "the run wrote more than {} MiB to disk, or more files than can be looked at",
            place.together.disk >> 20
        );
        return Some(failure(reason::DISK_LIMIT_EXCEEDED, message));
    }
    (used.memory > place.together.memory).then(|| {
        let message = format!(
            "the run's processes used more than {} MiB together",
            place.together.memory >> 20
        );
        failure(reason::OUT_OF_MEMORY, message)
    })
}

/// Why a run ended that did not say so itself.
fn cause_of(ending: Ending, entered: bool) -> RunError {
    match ending {
        Ending::Lost => failure(
            reason::INTERPRETER_LOST,
            "the warm interpreter was lost with this run",
        ),
        Ending::Exited(code) if !entered => failure(
            reason::SANDBOX_FAILED,
            format!("the child ended with code {code} before the sandbox was in force"),
        ),
        Ending::Exited(code) => failure(
            reason::INTERPRETER_EXITED,
            format!("the interpreter ended with code {code} before the document did"),
        ),
        Ending::Signalled(libc::SIGXCPU) => {
            failure(reason::TIMED_OUT, "the run used more CPU time than it may")
        }
        Ending::Signalled(signal) => failure(reason::KILLED, format!("the run was ended by signal {signal}")),
    }
}

/// Where a run stands in its blocks.
struct Progress {
    blocks: Vec<BlockResult>,
    /// The block that runs, and since when.
    current: Option<(usize, Instant)>,
    /// Blocks that have ended.
    done: usize,
    /// Whether the child said that its sandbox is in force: always the first thing said, before any user code.
    entered: bool,
    heard: bool,
    diagnostics: String,
}

impl Progress {
    fn of(job: &Job) -> Self {
        let blocks = job.blocks.iter().map(|block| BlockResult {
            name: block.name.clone(),
            language: block.language.clone(),
            state: BlockState::Skipped,
            duration_millis: 0,
            diagnostics: String::new(),
        });
        Self {
            blocks: blocks.collect(),
            current: None,
            done: 0,
            entered: false,
            heard: false,
            diagnostics: String::new(),
        }
    }

    /// Takes what the child said; what is out of order is a forgery and ignored. A result when it said the last word.
    fn hear(&mut self, said: Said, sink: &mut impl FnMut(Happening)) -> Option<Result<Vec<u8>, RunError>> {
        let first = !std::mem::replace(&mut self.heard, true);
        match said {
            Said::Message(Message::Entered) if first => self.entered = true,
            Said::Message(Message::Refused { message }) if first => {
                return Some(Err(failure(reason::SANDBOX_FAILED, plain(&message))));
            }
            Said::Message(Message::Block {
                index,
                state: Step::Running,
            }) => {
                if index == self.done && index < self.blocks.len() && self.current.is_none() {
                    self.current = Some((index, Instant::now()));
                    sink(Happening::Began(index));
                }
            }
            Said::Message(Message::Block {
                index,
                state: Step::Succeeded,
            }) => {
                if self.current.is_some_and(|(current, _)| current == index) {
                    self.end_block(BlockState::Succeeded, String::new(), sink);
                }
            }
            Said::Message(Message::Failed {
                reason,
                message,
                line,
                column,
                traceback,
            }) => {
                self.diagnostics = plain(&traceback);
                return Some(Err(RunError {
                    reason: match reason.as_str() {
                        reason::OUT_OF_MEMORY | reason::INVALID_OUTPUT => reason,
                        _ => reason::BLOCK_FAILED.to_owned(),
                    },
                    message: plain(&message),
                    line,
                    column,
                    code: None,
                }));
            }
            Said::Outputs(outputs) if self.done == self.blocks.len() => return Some(Ok(outputs)),
            Said::Outputs(_) | Said::Message(_) => {}
        }
        None
    }

    fn end_block(&mut self, state: BlockState, diagnostics: String, sink: &mut impl FnMut(Happening)) {
        if let Some((index, began)) = self.current.take() {
            let block = &mut self.blocks[index];
            block.state = state;
            block.duration_millis = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            block.diagnostics = diagnostics;
            self.done = index + 1;
            sink(Happening::Ended(index, block.clone()));
        }
    }

    /// The run failed: so did the block that was running.
    fn fail(&mut self, error: &RunError, sink: &mut impl FnMut(Happening)) {
        let mut diagnostics = std::mem::take(&mut self.diagnostics);
        if diagnostics.is_empty() {
            diagnostics.clone_from(&error.message);
        }
        self.end_block(BlockState::Failed, diagnostics, sink);
    }

    /// Tells of the blocks that were never begun.
    fn finish(self, sink: &mut impl FnMut(Happening)) -> Vec<BlockResult> {
        for (index, block) in self.blocks.iter().enumerate().skip(self.done) {
            sink(Happening::Ended(index, block.clone()));
        }
        self.blocks
    }
}

/// One stream: its beginning, and how much there was.
#[derive(Default)]
struct Kept {
    data: Vec<u8>,
    bytes: u64,
}

impl Kept {
    fn take(
        &mut self,
        data: &mut Vec<u8>,
        stream: Stream,
        sink: &mut impl FnMut(Happening),
    ) -> Option<RunError> {
        self.bytes += data.len() as u64;
        let room = KEPT_OUTPUT - self.data.len();
        let kept = &data[..data.len().min(room)];
        if !kept.is_empty() {
            self.data.extend(kept);
            sink(Happening::Printed(stream, kept.to_vec()));
        }
        data.clear();
        // A pipe's worth at a time; read_buf fills what is reserved.
        data.reserve(64 << 10);
        (self.bytes > MOST_OUTPUT).then(|| {
            failure(
                reason::OUTPUT_LIMIT_EXCEEDED,
                format!("the run printed more than {} MiB", MOST_OUTPUT >> 20),
            )
        })
    }

    fn digest(&self) -> StreamDigest {
        StreamDigest {
            bytes: self.bytes,
            truncated: self.bytes > self.data.len() as u64,
            digest: DigestSet::of(&self.data),
        }
    }
}

/// Outputs are one JSON object of bounded size and depth. Read without being built: a few bytes of text can stand for
/// many of memory.
fn check_outputs(outputs: Vec<u8>) -> Result<Vec<u8>, RunError> {
    let refuse = |what: String| Err(failure(reason::INVALID_OUTPUT, what));
    let Ok(text) = std::str::from_utf8(&outputs) else {
        return refuse("the outputs are not UTF-8".into());
    };
    if !text.starts_with('{') {
        return refuse("the outputs are not one JSON object".into());
    }
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text) {
        return refuse(format!("the outputs are not JSON: {error}"));
    }
    if depth(&outputs) > DEEPEST_OUTPUTS {
        return refuse(format!("the outputs are nested more than {DEEPEST_OUTPUTS} deep"));
    }
    Ok(outputs)
}

/// The deepest nesting of a text that is known to be JSON.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_text, mut escaped) = (0_usize, 0, false, false);
    for &byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Text of the user's, for people and for objects in a cluster: bounded, without control characters.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    for character in text.chars() {
        if plain.len() >= LONGEST_TEXT {
            plain.push('…');
            break;
        }
        match character {
            '\n' | '\t' => plain.push(character),
            character if character.is_control() => plain.push('\u{fffd}'),
            character => plain.push(character),
        }
    }
    plain
}

/// What the child is told: the whole job, in one frame.
#[derive(Serialize)]
struct Told<'a> {
    blocks: &'a [Block],
    /// JSON in JSON, so that its numbers reach Python as they were written.
    inputs: &'a str,
    outputs: Option<&'a [String]>,
}

fn frame(told: &Told<'_>) -> Vec<u8> {
    let body = serde_json::to_vec(told).expect("text and numbers always serialise");
    let length = u32::try_from(body.len()).expect("documents and inputs are far below 4 GiB");
    [b"J".as_slice(), &length.to_be_bytes(), &body].concat()
}

/// What the child says.
#[derive(Debug)]
enum Said {
    Message(Message),
    Outputs(Vec<u8>),
}

#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Message {
    Entered,
    Refused {
        message: String,
    },
    Block {
        index: usize,
        state: Step,
    },
    Failed {
        reason: String,
        message: String,
        #[serde(default)]
        line: Option<u32>,
        #[serde(default)]
        column: Option<u32>,
        #[serde(default)]
        traceback: String,
    },
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Step {
    Running,
    Succeeded,
}

/// Cuts the control socket's bytes into frames.
#[derive(Default)]
struct Frames {
    buffer: Vec<u8>,
}

impl Frames {
    fn next(&mut self) -> Option<Result<Said, RunError>> {
        let (kind, length) = match self.buffer.as_slice() {
            [kind, a, b, c, d, ..] => (*kind, u32::from_be_bytes([*a, *b, *c, *d]) as usize),
            _ => return None,
        };
        let limit = if kind == b'O' {
            LONGEST_OUTPUTS
        } else {
            LONGEST_MESSAGE
        };
        if length > limit {
            let message = format!("the outputs have {length} bytes; at most {limit} are taken");
            return Some(Err(failure(reason::INVALID_OUTPUT, message)));
        }
        if self.buffer.len() < 5 + length {
            self.buffer.reserve(5 + length - self.buffer.len());
            return None;
        }
        let rest = self.buffer.split_off(5 + length);
        let body = std::mem::replace(&mut self.buffer, rest).split_off(5);
        Some(match kind {
            b'O' => Ok(Said::Outputs(body)),
            _ => serde_json::from_slice(&body).map(Said::Message).map_err(|_| {
                failure(
                    reason::INTERPRETER_EXITED,
                    "the run wrote nonsense on its control socket",
                )
            }),
        })
    }
}

/// Waits for `zygote` to be ready, for tests and for programs that run one document.
pub async fn wait_until_ready(
    zygote: &Zygote,
    limit: Duration,
) -> Result<std::sync::Arc<crate::zygote::Ready>, String> {
    let mut state = zygote.state();
    let waited = timeout(limit, state.wait_for(|state| !matches!(state, State::Starting))).await;
    match waited {
        Ok(Ok(state)) => match &*state {
            State::Ready(ready) => Ok(ready.clone()),
            State::Down(cause) => Err(cause.clone()),
            State::Starting => Err("the zygote is starting".into()),
        },
        Ok(Err(_)) => Err("the zygote's supervisor is gone".into()),
        Err(_) => Err(format!("the zygote was not ready within {} s", limit.as_secs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_brackets_outside_of_text() {
        assert_eq!(depth(br#"{"a":[1,{"b]]":"\"[[["}]}"#), 3);
    }

    #[test]
    fn outputs_that_are_no_object_or_too_deep_are_refused() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(200), "]".repeat(200));
        for bad in ["[1]", "{\"a\":NaN}", "{\"a\":1} x", "", deep.as_str()] {
            assert!(check_outputs(bad.as_bytes().to_vec()).is_err(), "{bad}");
        }
        assert!(check_outputs(br#"{"a":[1.5,"x",null]}"#.to_vec()).is_ok());
    }

    #[test]
    fn a_forged_length_is_refused_before_anything_is_kept_for_it() {
        let mut frames = Frames {
            buffer: b"O\xff\xff\xff\xff".to_vec(),
        };
        assert!(frames.next().unwrap().is_err());
        assert!(frames.buffer.capacity() < 1024);
    }
}
