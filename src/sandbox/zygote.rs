//! The zygote: a Python that has imported the preload modules and forks one child for each run.
//!
//! Started, spoken to, supervised and replaced here. What happens in a child is `execution.rs`.

use crate::policy::Policy;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Interest};
use tokio::net::UnixStream;
use tokio::process::{Child as Process, ChildStderr, Command};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

/// Each after those that it imports.
const MODULES: [(&str, &str); 8] = [
    ("_chimera_values", include_str!("python/values.py")),
    ("_chimera_failures", include_str!("python/failures.py")),
    ("_chimera_programs", include_str!("python/programs.py")),
    ("_chimera_circuits", include_str!("python/circuits.py")),
    (
        "_chimera_specifications",
        include_str!("python/specifications.py"),
    ),
    ("_chimera_execute", include_str!("python/execute.py")),
    ("_chimera_sandbox", include_str!("python/sandbox.py")),
    ("_chimera_zygote", include_str!("python/zygote.py")),
];

/// The whole program of the interpreter: its modules come in the argument, so nothing is read from a writable place.
const BOOTSTRAP: &str = "\
import json, sys, types
c = json.loads(sys.argv[1])
for n, s in c.pop('modules'):
    m = sys.modules[n] = types.ModuleType(n)
    exec(compile(s, '<' + n + '>', 'exec'), m.__dict__)
sys.modules['_chimera_zygote'].main(c)
";

/// Importing torch or qiskit from a cold disk takes its time.
const START_LIMIT: Duration = Duration::from_mins(2);
const PING_INTERVAL: Duration = Duration::from_secs(2);
const PONG_LIMIT: Duration = Duration::from_secs(10);
const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);
const PACKET: usize = 1 << 17;

/// How the zygote is started.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// The interpreter: a path, or a name on PATH.
    pub python: OsString,
    /// Modules imported before the first run.
    pub preload: Vec<String>,
    /// What children are confined by.
    pub policy: Policy,
    /// The interpreter's own environment; nothing else of the agent's environment reaches it.
    pub environment: BTreeMap<String, OsString>,
}

/// What a zygote tells of itself once its modules are imported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// For example `CPython 3.13.5`.
    pub interpreter: String,
    /// Installed distributions, name to version.
    pub packages: BTreeMap<String, String>,
    /// Languages of code blocks that it can run, in order.
    pub languages: Vec<String>,
    /// Whether its children are confined by landlock and seccomp.
    pub confined: bool,
    /// Landlock ABI in force in its children; 0 when they are not confined.
    pub landlock_abi: u32,
    /// The resource limits of its children, by setrlimit's names.
    pub limits: BTreeMap<String, u64>,
    /// Anonymous memory that each child shares with it at first, in bytes.
    pub anonymous: u64,
}

/// Where the zygote stands.
#[derive(Clone, Debug)]
pub enum State {
    /// Started, not yet ready.
    Starting,
    /// Forks on request.
    Ready(Arc<Ready>),
    /// Ended, for the reason given; the next start is under way.
    Down(String),
}

/// A run to be forked.
#[derive(Debug)]
pub struct Order {
    /// The run's own folder, with `work`, `home` and `tmp` in it.
    pub folder: PathBuf,
    /// CPU seconds of each of the run's processes.
    pub cpu_seconds: u64,
    /// The child's end of the control socket.
    pub control: OwnedFd,
    /// The writing end of the run's standard output.
    pub stdout: OwnedFd,
    /// The writing end of the run's standard error.
    pub stderr: OwnedFd,
}

/// How the first process of a run ended. It is told when none of the run's processes is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
    /// With its zygote.
    Lost,
}

/// A forked run.
#[derive(Debug)]
pub struct Child {
    token: u64,
    requests: mpsc::UnboundedSender<Request>,
    group: Arc<AtomicI32>,
    /// Resolves when no process of the run is left.
    pub ended: oneshot::Receiver<Ending>,
}

impl Child {
    /// The process group of the run, once it is forked.
    pub fn group(&self) -> Option<i32> {
        Some(self.group.load(Ordering::Acquire)).filter(|group| *group > 0)
    }

    /// Ends every process of the run.
    pub fn kill(&self) {
        // A zygote that is gone has taken its children with it.
        let _ = self.requests.send(Request::Kill(self.token));
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.ended.is_terminated() {
            self.kill();
        }
    }
}

/// The handle to the zygote; it lives until this is dropped.
#[derive(Debug)]
pub struct Zygote {
    requests: mpsc::UnboundedSender<Request>,
    state: watch::Receiver<State>,
    tokens: AtomicU64,
}

impl Zygote {
    /// Starts the zygote and keeps it running.
    pub fn start(configuration: Configuration) -> Self {
        let (requests, receiver) = mpsc::unbounded_channel();
        let (sender, state) = watch::channel(State::Starting);
        tokio::spawn(supervise(configuration, receiver, sender));
        Self {
            requests,
            state,
            tokens: AtomicU64::new(1),
        }
    }

    /// The zygote's state, and a way to wait for the next.
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// Forks a child. One that cannot be forked ends as lost.
    pub fn fork(&self, order: Order) -> Child {
        let token = self.tokens.fetch_add(1, Ordering::Relaxed);
        let (sender, ended) = oneshot::channel();
        let group = Arc::new(AtomicI32::new(0));
        let known = group.clone();
        // Fails only when the supervisor is gone; then the sender is dropped, which reads as lost too.
        let _ = self.requests.send(Request::Fork {
            token,
            order,
            group: known,
            ended: sender,
        });
        Child {
            token,
            requests: self.requests.clone(),
            group,
            ended,
        }
    }

    /// Ends the zygote, which is then started again: for a child that does not end when it is killed.
    pub fn replace(&self) {
        let _ = self.requests.send(Request::Replace);
    }
}

#[derive(Debug)]
enum Request {
    Fork {
        token: u64,
        order: Order,
        group: Arc<AtomicI32>,
        ended: oneshot::Sender<Ending>,
    },
    Kill(u64),
    Replace,
}

async fn supervise(
    configuration: Configuration,
    mut requests: mpsc::UnboundedReceiver<Request>,
    state: watch::Sender<State>,
) {
    let mut backoff = FIRST_BACKOFF;
    loop {
        let began = Instant::now();
        let cause = match Session::start(&configuration) {
            Ok(session) => match session.serve(&mut requests, &state).await {
                Some(cause) => cause,
                None => return,
            },
            Err(error) => format!(
                "the interpreter {} cannot be started: {error}",
                configuration.python.display()
            ),
        };
        tracing::error!(%cause, "the zygote is down");
        state.send_replace(State::Down(cause));
        if began.elapsed() > LONGEST_BACKOFF {
            backoff = FIRST_BACKOFF;
        }
        let pause = sleep(backoff);
        tokio::pin!(pause);
        loop {
            tokio::select! {
                () = &mut pause => break,
                request = requests.recv() => match request {
                    Some(Request::Fork { ended, .. }) => drop(ended.send(Ending::Lost)),
                    Some(_) => {}
                    None => return,
                },
            }
        }
        backoff = (backoff * 2).min(LONGEST_BACKOFF);
    }
}

/// One zygote process, from start to end.
struct Session {
    process: Process,
    /// Of type SOCK_SEQPACKET: spoken to with sendmsg and recv alone, a packet at a time.
    socket: UnixStream,
    runs: HashMap<u64, Run>,
    ready: Ready,
}

struct Run {
    /// Zero until the run is forked.
    group: Arc<AtomicI32>,
    ended: oneshot::Sender<Ending>,
}

impl Session {
    fn start(configuration: &Configuration) -> io::Result<Self> {
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        let arguments = Arguments {
            modules: &MODULES,
            policy: &configuration.policy,
            preload: &configuration.preload,
        };
        let mut process = Command::new(&configuration.python)
            // No user site-packages and nothing from the working folder; PYTHONPATH counts.
            .args(["-s", "-P", "-B", "-c", BOOTSTRAP])
            .arg(serde_json::to_string(&arguments)?)
            .env_clear()
            .envs(&configuration.environment)
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(stderr) = process.stderr.take() {
            tokio::spawn(log_lines(stderr));
        }
        Ok(Self {
            process,
            socket: UnixStream::from_std(StdUnixStream::from(ours))?,
            runs: HashMap::new(),
            ready: Ready::default(),
        })
    }

    /// Until the process ends or misbehaves: then why. None when nobody wants the zygote any more.
    async fn serve(
        mut self,
        requests: &mut mpsc::UnboundedReceiver<Request>,
        state: &watch::Sender<State>,
    ) -> Option<String> {
        state.send_replace(State::Starting);
        let cause = self.converse(requests, state).await;
        // The kernel kills the children of a zygote that dies, but not their own children.
        let _ = self.process.kill().await;
        for run in self.runs.values() {
            if let Some(group) = rustix::process::Pid::from_raw(run.group.load(Ordering::Acquire)) {
                let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
                while let Ok(Some(_)) = rustix::process::waitpgid(group, rustix::process::WaitOptions::NOHANG)
                {
                }
            }
        }
        for (_, run) in self.runs.drain() {
            let _ = run.ended.send(Ending::Lost);
        }
        cause
    }

    async fn converse(
        &mut self,
        requests: &mut mpsc::UnboundedReceiver<Request>,
        state: &watch::Sender<State>,
    ) -> Option<String> {
        let mut buffer = vec![0_u8; PACKET];
        let start = sleep(START_LIMIT);
        tokio::pin!(start);
        let mut ready = false;
        let mut pings = interval(PING_INTERVAL);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut nonce, mut answered, mut last_answer) = (0_u64, 0_u64, Instant::now());
        loop {
            tokio::select! {
                biased;
                request = requests.recv() => match request {
                    None => return None,
                    Some(Request::Replace) => return Some("a run did not end when it was killed".into()),
                    Some(Request::Kill(token)) => {
                        if let Err(error) = self.send(&ToZygote::Kill { token }, &[]).await {
                            return Some(format!("the zygote takes no requests: {error}"));
                        }
                    }
                    Some(Request::Fork { ended, .. }) if !ready => drop(ended.send(Ending::Lost)),
                    Some(Request::Fork { token, order, group, ended }) => {
                        self.runs.insert(token, Run { group, ended });
                        let request = ToZygote::Run { token, folder: &order.folder, cpu: order.cpu_seconds };
                        let descriptors = [&order.control, &order.stdout, &order.stderr];
                        if let Err(error) = self.send(&request, &descriptors).await {
                            return Some(format!("the zygote takes no requests: {error}"));
                        }
                    }
                },
                packet = receive(&self.socket, &mut buffer) => {
                    let length = match packet {
                        Ok(0) => return Some(self.last_words().await),
                        Ok(length) => length,
                        Err(error) => return Some(format!("the zygote cannot be heard: {error}")),
                    };
                    match serde_json::from_slice(&buffer[..length]) {
                        Ok(FromZygote::Packages { packages }) => self.ready.packages.extend(packages),
                        Ok(FromZygote::Ready { interpreter, languages, confined, landlock, limits, anonymous }) => {
                            ready = true;
                            last_answer = Instant::now();
                            let told = Ready {
                                interpreter,
                                languages,
                                confined,
                                landlock_abi: landlock,
                                limits,
                                anonymous,
                                packages: std::mem::take(&mut self.ready.packages),
                            };
                            state.send_replace(State::Ready(Arc::new(told)));
                        }
                        Ok(FromZygote::Failed { message }) => return Some(message),
                        Ok(FromZygote::Started { token, pid }) => {
                            if let Some(run) = self.runs.get(&token) {
                                run.group.store(pid, Ordering::Release);
                            }
                        }
                        Ok(FromZygote::Ended { token, code, signal }) => {
                            if let Some(run) = self.runs.remove(&token) {
                                let ending = signal.map_or(Ending::Exited(code.unwrap_or_default()), Ending::Signalled);
                                let _ = run.ended.send(ending);
                            }
                        }
                        Ok(FromZygote::Pong { nonce }) => {
                            answered = nonce;
                            last_answer = Instant::now();
                        }
                        Err(error) => return Some(format!("the zygote speaks nonsense: {error}")),
                    }
                },
                () = &mut start, if !ready => {
                    return Some(format!("the preload modules were not imported within {} s", START_LIMIT.as_secs()));
                }
                _ = pings.tick(), if ready => {
                    if answered < nonce && last_answer.elapsed() > PONG_LIMIT {
                        return Some("the zygote does not answer".into());
                    }
                    nonce += 1;
                    if let Err(error) = self.send(&ToZygote::Ping { nonce }, &[]).await {
                        return Some(format!("the zygote takes no requests: {error}"));
                    }
                }
            }
        }
    }

    async fn last_words(&mut self) -> String {
        match timeout(Duration::from_secs(1), self.process.wait()).await {
            Ok(Ok(status)) => format!("the zygote ended ({status})"),
            _ => "the zygote closed its socket".into(),
        }
    }

    async fn send(&self, request: &ToZygote<'_>, descriptors: &[&OwnedFd]) -> io::Result<()> {
        let bytes = serde_json::to_vec(request)?;
        let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        self.socket
            .async_io(Interest::WRITABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
                let mut ancillary = SendAncillaryBuffer::new(&mut space);
                if !descriptors.is_empty() {
                    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
                }
                rustix::net::sendmsg(
                    &self.socket,
                    &[IoSlice::new(&bytes)],
                    &mut ancillary,
                    SendFlags::NOSIGNAL,
                )?;
                Ok(())
            })
            .await
    }
}

async fn receive(socket: &UnixStream, buffer: &mut [u8]) -> io::Result<usize> {
    socket
        .async_io(Interest::READABLE, || {
            match rustix::net::recv(socket, &mut *buffer, RecvFlags::empty()) {
                Ok((length, _)) => Ok(length),
                Err(Errno::CONNRESET) => Ok(0),
                Err(error) => Err(error.into()),
            }
        })
        .await
}

/// Python's own complaints, into the agent's log.
async fn log_lines(stderr: ChildStderr) {
    let mut lines = BufReader::new(stderr);
    let mut line = Vec::new();
    while let Ok(1..) = (&mut lines).take(4096).read_until(b'\n', &mut line).await {
        tracing::warn!(line = %String::from_utf8_lossy(&line).trim_end(), "zygote");
        line.clear();
    }
}

#[derive(Serialize)]
struct Arguments<'a> {
    modules: &'a [(&'a str, &'a str)],
    policy: &'a Policy,
    preload: &'a [String],
}

#[derive(Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
enum ToZygote<'a> {
    Run {
        token: u64,
        folder: &'a PathBuf,
        cpu: u64,
    },
    Kill {
        token: u64,
    },
    Ping {
        nonce: u64,
    },
}

#[derive(Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
enum FromZygote {
    Packages {
        packages: BTreeMap<String, String>,
    },
    Ready {
        interpreter: String,
        languages: Vec<String>,
        confined: bool,
        landlock: u32,
        limits: BTreeMap<String, u64>,
        anonymous: u64,
    },
    Failed {
        message: String,
    },
    Started {
        token: u64,
        pid: i32,
    },
    Ended {
        token: u64,
        code: Option<i32>,
        signal: Option<i32>,
    },
    Pong {
        nonce: u64,
    },
}
