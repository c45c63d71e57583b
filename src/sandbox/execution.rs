//! One run, from the fork to the last of its processes: feeds the child, hears it, holds it to its limits.
//!
//! The control socket and both pipes are in the hands of user code. Whatever arrives is bounded, and believed only as
//! what this run says of itself. Nothing here knows gRPC, grants or signatures.

use crate::consumption::{self, Consumption};
use crate::dialogue::{Frames, Outbox};
use crate::folder::remove_tree;
use crate::job::Job;
use crate::limit::exceeded;
use crate::lookout::{Cause, Lookout};
use crate::outputs::check_outputs;
use crate::progress::Progress;
use crate::reason;
use crate::stream::Kept;
pub use crate::stream::Stream;
use crate::tap::Tap;
use crate::workers::{Cause as Fault, Child, Ending, Order, State, Workers};
use crypto::attestation::{BlockResult, RunError, StreamDigest};
use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process_group};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

/// From the kill to the end of the last process.
const KILL_LIMIT: Duration = Duration::from_secs(10);
/// What happens while a run is under way, in its order: what a block printed comes between its beginning and its end.
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
    /// The interpreters.
    pub workers: &'a Workers,
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
    let mut progress = Progress::of(job, place.together);
    let (mut stdout, mut stderr) = (Kept::default(), Kept::default());
    let begun = match refuse_language(place, job) {
        None => begin(place, job).map_err(|error| {
            failure(
                reason::SANDBOX_FAILED,
                format!("the run's pipes cannot be made: {error}"),
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
            running.clean_up(place).await;
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
    let state = place.workers.state();
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
    child: Child,
    control: UnixStream,
    stdout: pipe::Receiver,
    stderr: pipe::Receiver,
    /// Whether it is certain that no process of the run is left.
    over: bool,
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
    let child = place.workers.begin(Order {
        // A second line behind the time limit: each process may use every core for all of it.
        cpu_seconds: (job.time_limit.as_secs() + 1).saturating_mul(cores()),
        control: OwnedFd::from(theirs),
        stdout: stdout_writer.into(),
        stderr: stderr_writer.into(),
    });
    Ok(Running {
        child,
        control,
        stdout,
        stderr,
        over: false,
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
        progress: &mut Progress<'_>,
        [stdout, stderr]: [&mut Kept; 2],
        sink: &mut (impl FnMut(Happening) + Send),
    ) -> Result<Vec<u8>, RunError> {
        let mut outbox = Outbox::of(job);
        let deadline = Instant::now() + job.time_limit;
        let mut kill_deadline = None;
        let mut lookout = Lookout::new(&place.together, place.workers.glances());
        let (mut reader, mut writer) = self.control.split();
        let (mut frames, mut control_open) = (Frames::default(), true);
        let mut out = Tap::new(&mut self.stdout, Stream::Stdout, stdout);
        let mut err = Tap::new(&mut self.stderr, Stream::Stderr, stderr);
        let mut ending = None;
        // The first cause counts: what comes after is its consequence.
        let mut verdict: Option<Result<Vec<u8>, RunError>> = None;
        let mut stop_open = true;
        while ending.is_none() || control_open || out.open || err.open {
            let (mut fatal, mut look) = (None, None);
            let block_deadline = progress.deadline();
            tokio::select! {
                read = reader.read_buf(&mut frames.buffer), if control_open => {
                    control_open = matches!(read, Ok(1..));
                    while let Some(said) = frames.next() {
                        // What was printed before this was said is in the pipes by now, and is told before it.
                        fatal = out.give_present(sink).or_else(|| err.give_present(sink));
                        match said {
                            Ok(said) => {
                                outbox.answer(&said);
                                match progress.hear(said, sink) {
                                    Some(result @ Err(_)) => { verdict.get_or_insert(result); }
                                    Some(Ok(outputs)) => {
                                        let checked = check_outputs(outputs);
                                        verdict.get_or_insert(checked);
                                    }
                                    None => {}
                                }
                            }
                            Err(error) => fatal = Some(error),
                        }
                        if fatal.is_some() {
                            control_open = false;
                            break;
                        }
                    }
                }
                written = writer.write(&outbox.bytes), if !outbox.bytes.is_empty() => match written {
                    Ok(length) => drop(outbox.bytes.drain(..length)),
                    // The child is gone or going; how it ended says more.
                    Err(_) => outbox.bytes.clear(),
                },
                () = out.fill(), if out.open => fatal = out.give(sink),
                () = err.fill(), if err.open => fatal = err.give(sink),
                ended = &mut self.child.ended, if ending.is_none() => {
                    ending = Some(ended.unwrap_or(Ending::Lost));
                    if matches!(ending, Some(Ending::Lost | Ending::NotBegun(_))) {
                        break;
                    }
                }
                () = sleep_until(deadline), if kill_deadline.is_none() => {
                    let seconds = job.time_limit.as_secs();
                    fatal = Some(failure(reason::TIMED_OUT, format!("the run took longer than {seconds} s")));
                }
                () = sleep_until(block_deadline.as_ref().map_or(deadline, |(deadline, _)| *deadline)),
                    if block_deadline.is_some() && kill_deadline.is_none() =>
                {
                    fatal = block_deadline.map(|(_, error)| error);
                }
                cause = lookout.due(), if kill_deadline.is_none() && ending.is_none() => look = Some(cause),
                changed = stop.wait_for(Option::is_some), if stop_open && kill_deadline.is_none() => match changed {
                    Ok(cause) => fatal.clone_from(&cause),
                    Err(_) => stop_open = false,
                },
                () = sleep_until(kill_deadline.unwrap_or(deadline)), if kill_deadline.is_some() => {
                    tracing::error!("a run's processes did not end when they were killed");
                    place.workers.replace(Fault::RunUnending, "a run did not end when it was killed");
                    break;
                }
            }
            let used = match look {
                Some(Cause::Seen(used)) => Some(used),
                Some(Cause::Crowd) => count(place, self.child.group()),
                Some(Cause::Time) => {
                    look_closer(&mut lookout, place, &self.child);
                    count(place, self.child.group())
                }
                None => None,
            };
            if let Some(used) = used {
                fatal = exceeded(&used, &place.together);
                lookout.seen(&used);
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
        self.over = matches!(ending, Some(Ending::Exited(_) | Ending::Signalled(_)));
        verdict.unwrap_or_else(|| Err(cause_of(ending.unwrap_or(Ending::Lost), progress.entered)))
    }

    /// Nothing of the run remains.
    async fn clean_up(self, place: Place<'_>) {
        let Some(folder) = self.child.folder().cloned() else {
            return;
        };
        let folders = place.workers.folders().filter(|_| self.over).cloned();
        let removed = tokio::task::spawn_blocking(move || match folders {
            Some(folders) => folders.give_back(&folder),
            None => remove_tree(folder.path()),
        });
        let removed = removed.await;
        if let Ok(Err(error)) = removed {
            tracing::error!(%error, "a run's folder cannot be removed");
        }
    }
}

/// The run's processes alone, here and now. If they are too many they are killed at once: as long as one of them is left, the group's
/// number is no other's.
fn count(place: Place<'_>, group: Option<i32>) -> Option<Consumption> {
    let group = group?;
    let most = place.together.tasks;
    let tasks = consumption::tasks_of_group(group, most).ok()?;
    if tasks > most {
        kill_process_group(Pid::from_raw(group)?, Signal::KILL).ok()?;
    }
    Some(Consumption {
        tasks,
        ..Consumption::default()
    })
}

/// Begins to find out what the run's processes use together, as far as it can be seen.
fn look_closer(lookout: &mut Lookout, place: Place<'_>, child: &Child) {
    let inherited = match &*place.workers.state().borrow() {
        State::Ready(ready) => ready.anonymous,
        _ => return,
    };
    let (Some(group), Some(folder)) = (child.group(), child.folder()) else {
        return;
    };
    let (folder, enough) = (folder.path().to_owned(), place.together.memory);
    lookout.begin(move || consumption::of_group(group, inherited, enough, &folder));
}

/// Why a run ended that did not say so itself.
fn cause_of(ending: Ending, entered: bool) -> RunError {
    match ending {
        Ending::Lost => failure(
            reason::INTERPRETER_LOST,
            "the warm interpreter was lost with this run",
        ),
        Ending::NotBegun(cause) => failure(reason::SANDBOX_FAILED, cause),
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

/// Waits for `workers` to be ready, for tests and for programs that run one document.
pub async fn wait_until_ready(
    workers: &Workers,
    limit: Duration,
) -> Result<std::sync::Arc<crate::workers::Ready>, String> {
    let mut state = workers.state();
    let waited = timeout(limit, state.wait_for(|state| !matches!(state, State::Starting))).await;
    match waited {
        Ok(Ok(state)) => match &*state {
            State::Ready(ready) => Ok(ready.clone()),
            State::Down(cause) => Err(cause.clone()),
            State::Starting => Err("the interpreter is starting".into()),
        },
        Ok(Err(_)) => Err("the interpreter's supervisor is gone".into()),
        Err(_) => Err(format!(
            "the interpreter was not ready within {} s",
            limit.as_secs()
        )),
    }
}
