//! One zygote process, from its start to its end: spoken to, listened to, and watched.

use super::pool::{Pool, Told};
use super::pulse::Pulse;
use super::wire::{Account, FromZygote, PACKET, ToZygote, Wire};
use super::{Begin, Configuration, Ending, Known, Ready, Warmth, interpreter};
use crate::environment::packages_digest;
use crate::folder::{Folders, remove_tree};
use rustix::process::{
    Pid, Signal, WaitOptions, kill_process, kill_process_group, test_kill_process_group, waitpgid, waitpid,
};
use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::process::Child as Process;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};

/// Importing torch or qiskit from a cold disk takes its time.
const START_LIMIT: Duration = Duration::from_mins(2);
/// An answer that takes longer is a reason to let another take the runs.
const SLOW: Duration = Duration::from_secs(2);
/// An answer that takes longer never comes.
const PONG_LIMIT: Duration = Duration::from_secs(10);
/// Nothing but forks happens in a zygote, so its memory stays as it was; this is far beyond what its allocator plays with.
const MOST_GROWTH: u64 = 64 << 20;

/// Processes that were killed end as fast as the kernel gives their memory back.
const REAP_INTERVAL: Duration = Duration::from_millis(20);
const REAP_LIMIT: Duration = Duration::from_mins(1);

/// What a session is told.
pub(super) enum ToSession {
    Begin(Begin),
    Kill(u64),
    /// Fork a zygote like this one, with the number, requests and account given.
    Spawn((u64, mpsc::UnboundedReceiver<ToSession>, Arc<Ready>)),
    /// End when the last run has.
    Retire,
}

/// What a session tells of itself.
pub(super) enum News {
    Ready(Arc<Ready>),
    Slow,
    /// By so many bytes.
    Grown(u64),
    Ended {
        cause: String,
        unbegun: Vec<Begin>,
    },
}

/// A session as the supervisor knows it; it ends when this is dropped.
pub(super) struct Handle {
    pub(super) number: u64,
    requests: mpsc::UnboundedSender<ToSession>,
}

impl Handle {
    pub(super) fn new(number: u64) -> (Self, mpsc::UnboundedReceiver<ToSession>) {
        let (requests, receiver) = mpsc::unbounded_channel();
        (Self { number, requests }, receiver)
    }

    pub(super) fn tell(&self, what: ToSession) {
        // A session that has ended says so, and what it had not begun.
        if let Err(mpsc::error::SendError(ToSession::Begin(begin))) = self.requests.send(what) {
            let _ = begin.ended.send(Ending::Lost);
        }
    }
}

enum Body {
    Started(Process),
    /// A zygote's child, until that one ends.
    Forked(Option<Pid>),
}

/// One zygote process.
pub(super) struct Session {
    body: Body,
    wire: Wire,
    folders: Folders,
    runs: HashMap<u64, Run>,
    ready: Ready,
    pool: Option<Pool>,
}

pub(super) struct Run {
    token: u64,
    known: Arc<Known>,
    ended: oneshot::Sender<Ending>,
}

/// Why a conversation is over.
struct Over(String);

impl From<io::Error> for Over {
    fn from(error: io::Error) -> Self {
        Self(format!("the zygote takes no requests: {error}"))
    }
}

impl Session {
    /// Starts an interpreter.
    pub(super) fn start(configuration: &Configuration) -> io::Result<Self> {
        let (wire, theirs) = Wire::pair()?;
        let process = interpreter::start(configuration, theirs)?;
        let pool = match configuration.warmth {
            Warmth::Fork => None,
            Warmth::Cuda(most) => Some(Pool::new(most)),
        };
        Ok(Self {
            body: Body::Started(process),
            wire,
            folders: configuration.folders.clone(),
            runs: HashMap::new(),
            ready: Ready::default(),
            pool,
        })
    }

    /// Until the process ends or misbehaves, or nobody wants it any more.
    pub(super) async fn serve(
        mut self,
        number: u64,
        mut requests: mpsc::UnboundedReceiver<ToSession>,
        news: mpsc::UnboundedSender<(u64, News)>,
    ) {
        let Err(Over(cause)) = self.converse(number, &mut requests, &news).await;
        requests.close();
        let mut unbegun = Vec::new();
        while let Ok(request) = requests.try_recv() {
            if let ToSession::Begin(begin) = request {
                unbegun.push(begin);
            }
        }
        unbegun.extend(self.pool.iter_mut().flat_map(Pool::take_waiting));
        // Told before the rest: whoever stands by takes the runs meanwhile.
        let _ = news.send((number, News::Ended { cause, unbegun }));
        self.end().await;
    }

    async fn end(mut self) {
        match &mut self.body {
            Body::Started(process) => drop(process.kill().await),
            Body::Forked(Some(pid)) => {
                let pid = *pid;
                let _ = kill_process(pid, Signal::KILL);
                // This process may have inherited it.
                let _ = tokio::task::spawn_blocking(move || waitpid(Some(pid), WaitOptions::empty())).await;
            }
            // It ends when its socket does.
            Body::Forked(None) => {}
        }
        // The kernel kills the children of a zygote that dies, but not their own children.
        let runs = self
            .runs
            .values()
            .map(|run| run.known.group.load(Ordering::Acquire));
        let workers = self.pool.iter().flat_map(Pool::groups);
        let groups: Vec<_> = runs.chain(workers).filter_map(Pid::from_raw).collect();
        for group in &groups {
            let _ = kill_process_group(*group, Signal::KILL);
        }
        for (_, run) in self.runs.drain() {
            let _ = run.ended.send(Ending::Lost);
        }
        for folder in self.pool.iter().flat_map(Pool::folders) {
            let _ = remove_tree(folder.path());
        }
        reap(groups).await;
    }

    async fn converse(
        &mut self,
        number: u64,
        requests: &mut mpsc::UnboundedReceiver<ToSession>,
        news: &mpsc::UnboundedSender<(u64, News)>,
    ) -> Result<std::convert::Infallible, Over> {
        let tell = |what| drop(news.send((number, what)));
        let mut buffer = vec![0_u8; PACKET];
        let start = sleep(START_LIMIT);
        tokio::pin!(start);
        let (mut ready, mut retiring) = (false, false);
        let mut pulse = Pulse::new();
        loop {
            tokio::select! {
                biased;
                request = requests.recv() => match request {
                    None => return Err(Over("nobody wants the zygote any more".into())),
                    Some(ToSession::Kill(token)) => self.kill(token).await?,
                    Some(ToSession::Begin(begin)) => self.begin(begin).await?,
                    Some(ToSession::Spawn((number, requests, ready))) => {
                        self.spawn(number, requests, &ready, news).await?;
                    }
                    Some(ToSession::Retire) => retiring = true,
                },
                length = self.wire.receive(&mut buffer) => {
                    let length = length.map_err(|error| Over(format!("the zygote cannot be heard: {error}")))?;
                    if length == 0 {
                        return Err(self.last_words().await);
                    }
                    let said = serde_json::from_slice(&buffer[..length]);
                    match said.map_err(|error| Over(format!("the zygote speaks nonsense: {error}")))? {
                        FromZygote::Packages { packages } => self.ready.packages.extend(packages),
                        FromZygote::Ready(account) => {
                            self.know(account);
                            ready = true;
                        }
                        FromZygote::Standby { pid, anonymous } => {
                            self.body = Body::Forked(Pid::from_raw(pid));
                            self.ready.anonymous = anonymous;
                            ready = true;
                        }
                        FromZygote::Failed { message } => return Err(Over(message)),
                        FromZygote::Started { token, pid } => self.started(token, pid),
                        FromZygote::Ended { token, code, signal } => self.ended(token, code, signal)?,
                        FromZygote::Pong { nonce, anonymous } => {
                            pulse.answered(nonce);
                            let grown = anonymous.saturating_sub(self.ready.anonymous);
                            if grown > MOST_GROWTH {
                                tell(News::Grown(grown));
                            }
                        }
                    }
                    if ready && !pulse.began() {
                        pulse.begin();
                        if self.pool.is_none() {
                            tell(News::Ready(Arc::new(self.ready.clone())));
                        }
                    }
                },
                warmed = async { self.pool.as_mut()?.warmed().await }, if self.pool.is_some() => {
                    if self.warmed(warmed).await? {
                        tell(News::Ready(Arc::new(self.ready.clone())));
                    }
                },
                () = &mut start, if !ready => {
                    let limit = START_LIMIT.as_secs();
                    return Err(Over(format!("the preload modules were not imported within {limit} s")));
                }
                () = pulse.beat(), if ready => {
                    if pulse.silence() > PONG_LIMIT {
                        return Err(Over("the zygote does not answer".into()));
                    }
                    if pulse.silence() > SLOW {
                        tell(News::Slow);
                    }
                    let nonce = pulse.ask();
                    self.wire.send(&ToZygote::Ping { nonce }, &[]).await?;
                }
            }
            if ready {
                self.refill().await?;
            }
            if retiring && self.runs.is_empty() {
                return Err(Over("the zygote has retired".into()));
            }
        }
    }

    async fn begin(&mut self, begin: Begin) -> Result<(), Over> {
        if let Some(pool) = &mut self.pool {
            pool.wait(begin);
            return self.dispatch().await;
        }
        let folder = match self.folders.take() {
            Ok(folder) => folder,
            Err(error) => {
                let cause = format!("the run's folder cannot be made: {error}");
                let _ = begin.ended.send(Ending::NotBegun(cause));
                return Ok(());
            }
        };
        let Begin {
            token,
            order,
            known,
            ended,
        } = begin;
        let folder = known.folder.get_or_init(|| folder);
        let request = ToZygote::Run {
            token,
            folder: folder.path(),
            cpu: order.cpu_seconds,
        };
        let descriptors = [&order.control, &order.stdout, &order.stderr];
        let sent = self.wire.send(&request, &descriptors).await;
        self.runs.insert(token, Run { token, known, ended });
        Ok(sent?)
    }

    /// Gives runs that wait to workers that are warm.
    async fn dispatch(&mut self) -> Result<(), Over> {
        while let Some((worker, begin)) = self.pool.as_mut().and_then(Pool::pair) {
            let Begin {
                token,
                order,
                known,
                ended,
            } = begin;
            known.group.store(worker.group, Ordering::Release);
            known.folder.get_or_init(|| worker.folder.clone());
            // One that has died meanwhile is told of by the zygote, and its run is lost.
            if let Err(error) = worker.give(&order).await {
                tracing::warn!(%error, "a warm worker takes no run");
            }
            self.runs.insert(worker.token, Run { token, known, ended });
        }
        Ok(())
    }

    /// Takes what a worker has told after its warm-up. True when it is the first.
    async fn warmed(&mut self, told: Option<Told>) -> Result<bool, Over> {
        let (Some(pool), Some((token, told))) = (&mut self.pool, told) else {
            return Ok(false);
        };
        let memory = told.map_err(|message| Over(format!("a worker cannot initialise CUDA: {message}")))?;
        let first = pool.arrive(token, memory);
        self.dispatch().await?;
        Ok(first)
    }

    async fn refill(&mut self) -> Result<(), Over> {
        while let Some(token) = self.pool.as_mut().and_then(Pool::missing) {
            let folder = self
                .folders
                .take()
                .map_err(|error| Over(format!("a worker's folder cannot be made: {error}")))?;
            let (wire, theirs) = Wire::pair()?;
            self.wire
                .send(
                    &ToZygote::Warm {
                        token,
                        folder: folder.path(),
                    },
                    &[&theirs],
                )
                .await?;
            if let Some(pool) = &mut self.pool {
                pool.come(token, wire, folder);
            }
        }
        Ok(())
    }

    async fn kill(&self, token: u64) -> io::Result<()> {
        if let Some((child, _)) = self.runs.iter().find(|(_, run)| run.token == token) {
            self.wire.send(&ToZygote::Kill { token: *child }, &[]).await?;
        }
        Ok(())
    }

    async fn spawn(
        &mut self,
        number: u64,
        requests: mpsc::UnboundedReceiver<ToSession>,
        ready: &Ready,
        news: &mpsc::UnboundedSender<(u64, News)>,
    ) -> Result<(), Over> {
        let (wire, theirs) = Wire::pair()?;
        self.wire.send(&ToZygote::Spawn { number }, &[&theirs]).await?;
        let session = Self {
            body: Body::Forked(None),
            wire,
            folders: self.folders.clone(),
            runs: HashMap::new(),
            ready: ready.clone(),
            pool: self.pool.as_ref().map(Pool::like),
        };
        tokio::spawn(serve_boxed(session, number, requests, news.clone()));
        Ok(())
    }

    fn know(&mut self, account: Account) {
        let packages = std::mem::take(&mut self.ready.packages);
        self.ready = Ready {
            interpreter: account.interpreter,
            packages_digest: packages_digest(&packages),
            packages,
            languages: account.languages,
            confined: account.confined,
            landlock_abi: account.landlock,
            limits: account.limits,
            anonymous: account.anonymous,
        };
    }

    fn started(&mut self, token: u64, pid: i32) {
        if let Some(run) = self.runs.get(&token) {
            run.known.group.store(pid, Ordering::Release);
        } else if let Some(pool) = &mut self.pool {
            pool.started(token, pid);
        }
    }

    fn ended(&mut self, token: u64, code: Option<i32>, signal: Option<i32>) -> Result<(), Over> {
        if let Some(run) = self.runs.remove(&token) {
            let ending = signal.map_or(Ending::Exited(code.unwrap_or_default()), Ending::Signalled);
            let _ = run.ended.send(ending);
        } else if let Some(folder) = self.pool.as_mut().and_then(|pool| pool.lose(token)) {
            let _ = remove_tree(folder.path());
            return Err(Over("a worker ended before it had a run".into()));
        }
        Ok(())
    }

    async fn last_words(&mut self) -> Over {
        Over(match &mut self.body {
            Body::Started(process) => match timeout(Duration::from_millis(50), process.wait()).await {
                Ok(Ok(status)) => format!("the zygote ended ({status})"),
                _ => "the zygote closed its socket".into(),
            },
            Body::Forked(_) => "the zygote ended".into(),
        })
    }
}

/// Takes note of the end of killed groups, so that no zombie of theirs stays. Where this is the first process of a container, what
/// a zygote leaves behind becomes its own child, the deeper ones when those above them have ended.
async fn reap(mut groups: Vec<Pid>) {
    let give_up = Instant::now() + REAP_LIMIT;
    loop {
        groups.retain(|group| {
            while let Ok(Some(_)) = waitpgid(*group, WaitOptions::NOHANG) {}
            test_kill_process_group(*group).is_ok()
        });
        if groups.is_empty() {
            return;
        }
        if Instant::now() > give_up {
            tracing::error!(?groups, "processes of runs do not end although they were killed");
            return;
        }
        sleep(REAP_INTERVAL).await;
    }
}

/// A session that begins in another's would else have a type without end.
fn serve_boxed(
    session: Session,
    number: u64,
    requests: mpsc::UnboundedReceiver<ToSession>,
    news: mpsc::UnboundedSender<(u64, News)>,
) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(session.serve(number, requests, news))
}
