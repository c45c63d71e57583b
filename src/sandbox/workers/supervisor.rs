//! Keeps a zygote ready, and another standing by: decides which one takes the runs, and starts what is missing.

use super::session::{Handle, News, Session, ToSession};
use super::{Begin, Cause, Configuration, Ending, KEPT_MENDS, Mend, Ready, Request, State};
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

const FIRST_BACKOFF: Duration = Duration::from_millis(50);
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);

/// A zygote that has told of itself.
struct Warm {
    handle: Handle,
    ready: Arc<Ready>,
}

/// A fault that is not mended yet.
struct Fault {
    cause: Cause,
    message: String,
    noticed: Timestamp,
    since: Instant,
}

impl Fault {
    fn now(cause: Cause, message: String) -> Self {
        Self {
            cause,
            message,
            noticed: Timestamp::now(),
            since: Instant::now(),
        }
    }
}

/// The zygotes of one head.
pub(super) struct Supervisor {
    configuration: Configuration,
    state: watch::Sender<State>,
    mends: watch::Sender<Vec<Mend>>,
    news: mpsc::UnboundedSender<(u64, News)>,
    heard: mpsc::UnboundedReceiver<(u64, News)>,
    /// Takes the runs.
    active: Option<Warm>,
    /// Takes them next.
    standby: Option<Warm>,
    /// Started or forked, and not ready yet.
    coming: Option<Handle>,
    /// Have runs, and get no more.
    retiring: Vec<Handle>,
    fault: Option<Fault>,
    mended: u64,
    numbers: u64,
    backoff: Duration,
    /// When the next one is started.
    next_start: Instant,
    last_ready: Instant,
}

impl Supervisor {
    pub(super) fn new(
        configuration: Configuration,
        state: watch::Sender<State>,
        mends: watch::Sender<Vec<Mend>>,
    ) -> Self {
        let (news, heard) = mpsc::unbounded_channel();
        Self {
            configuration,
            state,
            mends,
            news,
            heard,
            active: None,
            standby: None,
            coming: None,
            retiring: Vec::new(),
            fault: None,
            mended: 0,
            numbers: 0,
            backoff: FIRST_BACKOFF,
            next_start: Instant::now(),
            last_ready: Instant::now(),
        }
    }

    /// Until nobody holds the handle any more.
    pub(super) async fn supervise(mut self, mut requests: mpsc::UnboundedReceiver<Request>) {
        loop {
            let missing = self.is_missing();
            tokio::select! {
                biased;
                Some((number, news)) = self.heard.recv() => self.hear(number, news),
                request = requests.recv() => match request {
                    Some(request) => self.answer(request),
                    None => return,
                },
                () = sleep_until(self.next_start), if missing => self.start_missing(),
            }
        }
    }

    fn answer(&mut self, request: Request) {
        match request {
            Request::Begin(begin) => self.begin(begin),
            Request::Kill(token) => {
                let active = self.active.as_ref().map(|warm| &warm.handle);
                for handle in active.into_iter().chain(&self.retiring) {
                    handle.tell(ToSession::Kill(token));
                }
            }
            Request::Replace(cause, message) => self.replace(Fault::now(cause, message)),
        }
    }

    fn begin(&self, begin: Begin) {
        match &self.active {
            Some(active) => active.handle.tell(ToSession::Begin(begin)),
            None => drop(begin.ended.send(Ending::Lost)),
        }
    }

    fn is_missing(&self) -> bool {
        self.coming.is_none()
            && (self.active.is_none() || (self.configuration.standby && self.standby.is_none()))
    }

    /// A zygote where there is none; beside one that there is, a copy of it.
    fn start_missing(&mut self) {
        self.numbers += 1;
        let (handle, requests) = Handle::new(self.numbers);
        let session = match &self.active {
            Some(active) => {
                let beginning = (self.numbers, requests, active.ready.clone());
                active.handle.tell(ToSession::Spawn(beginning));
                Ok(())
            }
            None => Session::start(&self.configuration).map(|session| {
                tokio::spawn(session.serve(self.numbers, requests, self.news.clone()));
            }),
        };
        match session {
            Ok(()) => self.coming = Some(handle),
            Err(error) => {
                let python = self.configuration.python.display();
                self.down(format!("the interpreter {python} cannot be started: {error}"));
            }
        }
    }

    fn hear(&mut self, number: u64, news: News) {
        match news {
            News::Ready(ready) => self.arrive(number, ready),
            News::Slow if self.is_active(number) && self.standby.is_some() => {
                self.replace(Fault::now(
                    Cause::WorkerSlow,
                    "the zygote is slow to answer".into(),
                ));
            }
            News::Grown(bytes) if self.is_active(number) && self.standby.is_some() => {
                let message = format!("the zygote's memory has grown by {} MiB", bytes >> 20);
                self.replace(Fault::now(Cause::WorkerGrown, message));
            }
            News::Slow | News::Grown(_) => {}
            News::Ended { cause, unbegun } => {
                self.end(number, cause);
                for begin in unbegun {
                    self.begin(begin);
                }
            }
        }
    }

    fn is_active(&self, number: u64) -> bool {
        self.active
            .as_ref()
            .is_some_and(|active| active.handle.number == number)
    }

    /// A zygote has become ready.
    fn arrive(&mut self, number: u64, ready: Arc<Ready>) {
        let Some(handle) = self.coming.take_if(|coming| coming.number == number) else {
            return;
        };
        self.last_ready = Instant::now();
        let warm = Warm { handle, ready };
        if self.active.is_some() {
            self.standby = Some(warm);
        } else {
            self.state.send_replace(State::Ready(warm.ready.clone()));
            self.active = Some(warm);
            self.mend();
        }
    }

    /// The one that stands by takes the runs; the other keeps those that it has.
    fn replace(&mut self, fault: Fault) {
        let Some(old) = self.active.take() else { return };
        tracing::warn!(cause = fault.cause.name(), message = %fault.message, "the zygote is replaced");
        old.handle.tell(ToSession::Retire);
        self.retiring.push(old.handle);
        self.fault.get_or_insert(fault);
        self.promote();
    }

    fn promote(&mut self) {
        self.active = self.standby.take();
        if self.active.is_some() {
            self.mend();
        } else if let Some(fault) = &self.fault {
            self.state.send_replace(State::Down(fault.message.clone()));
        }
    }

    fn end(&mut self, number: u64, cause: String) {
        self.retiring.retain(|handle| handle.number != number);
        if self.is_active(number) {
            tracing::error!(%cause, "the zygote is down");
            self.active = None;
            self.fault.get_or_insert(Fault::now(Cause::WorkerLost, cause));
            self.promote();
            if self.active.is_some() {
                // However often it happens: without the next one standing by, the next fault would be noticed.
                self.next_start = Instant::now() + FIRST_BACKOFF;
            } else {
                self.postpone();
            }
        } else if self.coming.take_if(|coming| coming.number == number).is_some() {
            self.down(cause);
        } else if self
            .standby
            .take_if(|warm| warm.handle.number == number)
            .is_some()
        {
            tracing::warn!(%cause, "the zygote that stood by is down");
            self.postpone();
        }
    }

    /// A start has failed.
    fn down(&mut self, cause: String) {
        tracing::error!(%cause, "a zygote cannot be started");
        if self.active.is_none() {
            self.state.send_replace(State::Down(cause));
        }
        self.postpone();
    }

    /// The next start comes at once after a long time without a fault, and later each time else.
    fn postpone(&mut self) {
        if self.last_ready.elapsed() > LONGEST_BACKOFF {
            self.backoff = FIRST_BACKOFF;
        }
        self.next_start = Instant::now() + self.backoff;
        self.backoff = (self.backoff * 2).min(LONGEST_BACKOFF);
    }

    /// Runs begin again.
    fn mend(&mut self) {
        let Some(fault) = self.fault.take() else { return };
        self.mended += 1;
        let mend = Mend {
            number: self.mended,
            cause: fault.cause,
            message: fault.message,
            noticed: fault.noticed,
            duration: fault.since.elapsed(),
        };
        self.mends.send_modify(|mends| {
            if mends.len() == KEPT_MENDS {
                mends.remove(0);
            }
            mends.push(mend);
        });
    }
}
