//! Warm interpreters: a zygote that has imported the preload modules, and what it gives to each run.
//!
//! Without a GPU it forks a child when a run begins. With one, children are forked ahead, confined, and wait with CUDA
//! initialised; each is used once. Beside the zygote stands another, forked from it before its first run, which takes its
//! place at once when it dies, hangs or grows. What happens in a child is `execution.rs`.

mod interpreter;
mod pool;
mod pulse;
mod session;
mod supervisor;
mod wire;

use crate::folder::{Folder, Folders};
use crate::glance::{Glance, Glances};
use crate::policy::Policy;
use jiff::Timestamp;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// Faults that were mended are kept, so many of them.
pub const KEPT_MENDS: usize = 16;

/// How the interpreters are started.
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
    /// Where runs have their folders.
    pub folders: Folders,
    /// When children are forked.
    pub warmth: Warmth,
    /// Whether a second zygote stands by.
    pub standby: bool,
}

/// When children are forked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Warmth {
    /// When their run begins.
    Fork,
    /// Before, with CUDA initialised: at most so many, and fewer where the device's memory does not suffice.
    Cuda(usize),
}

/// What a zygote tells of itself once its modules are imported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// For example `CPython 3.13.5`.
    pub interpreter: String,
    /// Installed distributions, name to version.
    pub packages: BTreeMap<String, String>,
    /// Over the packages, as [`packages_digest`](crate::environment::packages_digest) makes it.
    pub packages_digest: String,
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

/// Whether runs can begin.
#[derive(Clone, Debug)]
pub enum State {
    /// Not yet.
    Starting,
    /// At once.
    Ready(Arc<Ready>),
    /// Not now, for the reason given; the next start is under way.
    Down(String),
}

/// A fault that is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mend {
    /// Counts from 1.
    pub number: u64,
    /// What it was.
    pub cause: Cause,
    /// For a person.
    pub message: String,
    /// When it was noticed.
    pub noticed: Timestamp,
    /// From then until runs could begin again.
    pub duration: Duration,
}

/// Why a zygote is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It is gone, or does not answer.
    WorkerLost,
    /// It takes long to answer. Its runs go on.
    WorkerSlow,
    /// Its memory has grown. Its runs go on.
    WorkerGrown,
    /// A run on it did not end when it was killed. Its other runs go on.
    RunUnending,
    /// The canary failed on it.
    CanaryFailed,
}

impl Cause {
    /// One word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::WorkerLost => "WorkerLost",
            Self::WorkerSlow => "WorkerSlow",
            Self::WorkerGrown => "WorkerGrown",
            Self::RunUnending => "RunUnending",
            Self::CanaryFailed => "CanaryFailed",
        }
    }
}

/// What a run needs to begin.
#[derive(Debug)]
pub struct Order {
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
    /// With its zygote, or there was none for it.
    Lost,
    /// It could not begin although its zygote is well; why.
    NotBegun(String),
}

/// What becomes known of a run when it begins.
#[derive(Debug, Default)]
struct Known {
    group: AtomicI32,
    folder: OnceLock<Folder>,
}

/// A run's processes.
#[derive(Debug)]
pub struct Child {
    token: u64,
    requests: mpsc::UnboundedSender<Request>,
    known: Arc<Known>,
    /// Resolves when no process of the run is left.
    pub ended: oneshot::Receiver<Ending>,
}

impl Child {
    /// The process group of the run, once it has begun.
    pub fn group(&self) -> Option<i32> {
        Some(self.known.group.load(Ordering::Acquire)).filter(|group| *group > 0)
    }

    /// The run's folder, once it has one. Whoever began the run removes it, or gives it back.
    pub fn folder(&self) -> Option<&Folder> {
        self.known.folder.get()
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

/// The handle to the warm interpreters; they live until this is dropped.
#[derive(Debug)]
pub struct Workers {
    requests: mpsc::UnboundedSender<Request>,
    state: watch::Receiver<State>,
    mends: watch::Receiver<Vec<Mend>>,
    tokens: AtomicU64,
    glances: Glances,
    folders: Option<Folders>,
}

impl Workers {
    /// Starts them and keeps them running.
    pub fn start(configuration: Configuration) -> Self {
        let (requests, receiver) = mpsc::unbounded_channel();
        let (state_sender, state) = watch::channel(State::Starting);
        let (mends_sender, mends) = watch::channel(Vec::new());
        let folders = configuration
            .policy
            .confines()
            .then(|| configuration.folders.clone());
        let supervisor = supervisor::Supervisor::new(configuration, state_sender, mends_sender);
        tokio::spawn(supervisor.supervise(receiver));
        Self {
            requests,
            state,
            mends,
            tokens: AtomicU64::new(1),
            glances: Glances::new(),
            folders,
        }
    }

    /// Whether runs can begin, and a way to wait for a change.
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// The latest faults that were mended, newest last, and a way to wait for the next.
    pub fn mends(&self) -> watch::Receiver<Vec<Mend>> {
        self.mends.clone()
    }

    /// Begins a run. One that cannot begin ends as lost.
    pub fn begin(&self, order: Order) -> Child {
        let token = self.tokens.fetch_add(1, Ordering::Relaxed);
        let (sender, ended) = oneshot::channel();
        let known = Arc::<Known>::default();
        // Fails only when the supervisor is gone; then the sender is dropped, which reads as lost too.
        let _ = self.requests.send(Request::Begin(Begin {
            token,
            order,
            known: known.clone(),
            ended: sender,
        }));
        Child {
            token,
            requests: self.requests.clone(),
            known,
            ended,
        }
    }

    /// Where to give folders back. Nowhere when runs are not confined: processes of theirs may outlive them.
    pub(crate) fn folders(&self) -> Option<&Folders> {
        self.folders.as_ref()
    }

    /// At the machine, the same for all runs under way.
    pub(crate) fn glances(&self) -> watch::Receiver<Glance> {
        self.glances.follow()
    }

    /// Has the zygote replaced.
    pub fn replace(&self, cause: Cause, message: impl Into<String>) {
        let _ = self.requests.send(Request::Replace(cause, message.into()));
    }
}

#[derive(Debug)]
enum Request {
    Begin(Begin),
    Kill(u64),
    Replace(Cause, String),
}

#[derive(Debug)]
struct Begin {
    token: u64,
    order: Order,
    known: Arc<Known>,
    ended: oneshot::Sender<Ending>,
}
