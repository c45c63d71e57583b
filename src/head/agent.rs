//! The agent: one head's state, and the way of a run through it from request to attestation.

use crate::admission::{self, Head, Refusal};
use crate::environment;
use crate::journal::Journal;
use crate::runs::{Entry, Keep, Registry, Run};
use crate::tls::Identity;
use crypto::attestation::{BlockState, RunError};
use crypto::{DigestSet, SigningKey, Suite};
use head_proto::run_event::Event;
use head_proto::{BlockChanged, Finished, HeadStatus, Output, RunRequest, Started, output};
use jiff::Timestamp;
use sandbox::attestation::{Attested, Machine, attest};
use sandbox::consumption::Consumption;
use sandbox::execution::{Happening, Place, execute, failure};
use sandbox::folder::Folders;
use sandbox::job::{Block, Job};
use sandbox::reason;
use sandbox::stream::Stream;
use sandbox::zygote::{Configuration, Ready, State, Zygote};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tonic::Status;

const CANARY_LIMIT: Duration = Duration::from_secs(30);
const CANARY_PAUSE: Duration = Duration::from_secs(2);

/// Why an agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No folder for the runs.
    #[error("make the folder of the runs")]
    Folders(#[source] std::io::Error),
    /// No key to sign attestations with.
    #[error("make the attestation key")]
    Key(#[source] crypto::key::Error),
}

/// How an agent is set up.
#[derive(Debug)]
pub struct Setup {
    /// UID of the pod.
    pub pod_uid: String,
    /// Runs at once.
    pub workers: usize,
    /// Where the folders of the runs lie.
    pub runs: PathBuf,
    /// What is kept of finished runs.
    pub keep: Keep,
    /// The zygote.
    pub zygote: Configuration,
    /// What a run's processes may use together.
    pub together: Consumption,
    /// Image and devices.
    pub machine: Machine,
    /// Whether what runs print goes to the agent's standard output.
    pub journal: bool,
}

/// One head.
pub struct Agent {
    identity: Arc<Identity>,
    head: Head,
    key: SigningKey,
    machine: Machine,
    zygote: Zygote,
    together: Consumption,
    journal: bool,
    folders: Folders,
    registry: Registry,
    workers: usize,
    /// The highest fencing token of a grant.
    token: AtomicU64,
    draining: AtomicBool,
    condition: Mutex<Condition>,
    revision: watch::Sender<u64>,
}

/// Whether runs are taken: only when a zygote is there and has run the canary.
#[derive(Clone, Debug)]
enum Condition {
    Unready(String),
    Ready(Arc<Ready>),
}

impl Agent {
    /// Starts the zygote and the watch over it.
    pub fn start(setup: Setup, identity: Arc<Identity>) -> Result<Arc<Self>, Error> {
        let key = SigningKey::generate(Suite::MlDsa87).map_err(Error::Key)?;
        let agent = Arc::new(Self {
            identity,
            head: Head {
                uid: setup.pod_uid,
                attester: key.verifying_key().key_id().clone(),
                only_run: setup.machine.only_run.clone(),
            },
            key,
            machine: setup.machine,
            folders: Folders::open(&setup.runs).map_err(Error::Folders)?,
            zygote: Zygote::start(setup.zygote),
            together: setup.together,
            journal: setup.journal,
            registry: Registry::new(setup.workers, setup.keep),
            workers: setup.workers,
            token: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            condition: Mutex::new(Condition::Unready("the interpreter is starting".into())),
            revision: watch::Sender::new(0),
        });
        tokio::spawn(agent.clone().keep_condition());
        Ok(agent)
    }

    /// Joins the run if it is known, else begins it.
    pub fn run(self: &Arc<Self>, request: RunRequest) -> Result<Arc<Run>, Status> {
        let root = self.identity.root().map_err(|error| {
            Status::unavailable(format!(
                "the pinned root is not readable: {}",
                crate::tls::chain(&error)
            ))
        })?;
        let admitted = admission::admit(&request, &root, &self.head).map_err(|refusal| refuse(&refusal))?;
        if let Some(run) = self.registry.find(&admitted.grant.run_id) {
            return Ok(run);
        }
        admitted
            .begin(Timestamp::now(), self.token.load(Ordering::Acquire))
            .map_err(|refusal| refuse(&refusal))?;
        let job = admission::job(&request, &admitted.grant).map_err(|refusal| refuse(&refusal))?;
        if self.is_draining() {
            return Err(Status::unavailable("this head is draining and takes no new runs"));
        }
        let ready = match self.condition() {
            Condition::Ready(ready) => ready,
            Condition::Unready(message) => return Err(Status::unavailable(message)),
        };
        match self.registry.enter(&admitted.grant.run_id) {
            Entry::Known(run) => Ok(run),
            Entry::Full => Err(Status::resource_exhausted(format!(
                "{} runs are under way, and this head takes no more at once",
                self.workers
            ))),
            Entry::New(run) => {
                self.token
                    .fetch_max(admitted.grant.fencing_token, Ordering::AcqRel);
                run.add(Event::Started(Started {
                    grant: request.grant,
                    document: request.document,
                    inputs: request.inputs,
                    inputs_blinding: request.inputs_blinding,
                }));
                self.changed();
                let (agent, begun) = (self.clone(), run.clone());
                let work = tokio::spawn({
                    let (agent, run) = (self.clone(), run.clone());
                    async move { agent.carry_out(&run, job, admitted.digest, &ready).await }
                });
                tokio::spawn(async move {
                    // Whatever happened, the run ends and its place is free again. A Finished that attests nothing is
                    // a result for no controller.
                    let finished = work.await.unwrap_or_default();
                    agent.registry.finish(&begun, finished);
                    agent.changed();
                });
                Ok(run)
            }
        }
    }

    /// A run by its id.
    pub fn find(&self, run_id: &str) -> Option<Arc<Run>> {
        self.registry.find(run_id)
    }

    /// Stops a run. False when it is unknown or over.
    pub fn cancel(&self, run_id: &str, why: &str) -> bool {
        let message = match why {
            "" => "the run was cancelled".to_owned(),
            why => format!(
                "the run was cancelled: {}",
                why.chars().take(500).collect::<String>()
            ),
        };
        self.registry.stop(run_id, failure(reason::CANCELLED, message))
    }

    /// The head's state now.
    pub fn status(&self) -> HeadStatus {
        let (ready, message, environment) = match self.condition() {
            Condition::Ready(ready) => (true, String::new(), Some(environment::of(&ready))),
            Condition::Unready(message) => (false, message, None),
        };
        let draining = self.is_draining();
        HeadStatus {
            attester_spki: self.key.verifying_key().spki_der().to_vec(),
            ready: ready && !draining,
            message: if draining { "draining".into() } else { message },
            capacity: u32::try_from(self.workers).unwrap_or(u32::MAX),
            running: self.registry.running_ids(),
            devices: self.machine.devices.clone(),
            environment,
            draining,
            ..HeadStatus::default()
        }
    }

    /// Changes with every change of [`Agent::status`].
    pub fn revision(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// Takes no new runs, gives those under way `grace` to finish, then stops them.
    pub async fn drain(&self, grace: Duration) {
        self.draining.store(true, Ordering::Release);
        self.changed();
        let mut running = self.registry.running();
        if timeout(grace, running.wait_for(|running| *running == 0))
            .await
            .is_ok()
        {
            return;
        }
        self.registry.stop_all(&failure(
            reason::HEAD_STOPPING,
            "the head was stopped before the run was over",
        ));
        let _ = timeout(Duration::from_secs(2), running.wait_for(|running| *running == 0)).await;
    }

    fn place(&self) -> Place<'_> {
        Place {
            zygote: &self.zygote,
            folders: &self.folders,
            together: self.together,
        }
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    fn condition(&self) -> Condition {
        self.condition
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set_condition(&self, condition: Condition) {
        *self.condition.lock().unwrap_or_else(PoisonError::into_inner) = condition;
        self.changed();
    }

    fn changed(&self) {
        self.revision.send_modify(|revision| *revision += 1);
    }

    /// From job to attestation.
    async fn carry_out(&self, run: &Arc<Run>, job: Job, grant: DigestSet, ready: &Ready) -> Finished {
        let mut stdout = Journal::new(run.id().clone(), Stream::Stdout);
        let mut stderr = Journal::new(run.id().clone(), Stream::Stderr);
        let outcome = execute(self.place(), &job, run.stopped(), |happening| {
            if let (true, Happening::Printed(stream, data)) = (self.journal, &happening) {
                match stream {
                    Stream::Stdout => stdout.take(data),
                    Stream::Stderr => stderr.take(data),
                }
            }
            run.add(event(&job, happening));
        })
        .await;
        stdout.finish();
        stderr.finish();
        tracing::info!(
            run_id = %run.id(),
            millis = outcome.elapsed.as_secs_f64() * 1e3,
            reason = outcome.result.as_ref().err().map(|error| error.reason.as_str()),
            "run finished"
        );
        match attest(&self.key, &self.machine, ready, run.id(), grant, outcome) {
            Ok(Attested { envelope, outputs }) => Finished {
                attestation: envelope.to_json().into_bytes(),
                outputs,
            },
            Err(error) => {
                tracing::error!(run_id = %run.id(), error = %crate::tls::chain(&error), "a run cannot be attested");
                Finished::default()
            }
        }
    }

    /// Follows the zygote: a new one is ready once it has run the canary.
    async fn keep_condition(self: Arc<Self>) {
        let mut state = self.zygote.state();
        loop {
            let current = state.borrow_and_update().clone();
            match current {
                State::Starting => {}
                State::Down(cause) => self.set_condition(Condition::Unready(cause)),
                State::Ready(ready) => match self.canary().await {
                    Ok(()) => {
                        tracing::info!(interpreter = %ready.interpreter, landlock = ready.landlock_abi, "ready");
                        self.set_condition(Condition::Ready(ready));
                    }
                    Err(error) => {
                        tracing::error!(reason = %error.reason, message = %error.message, "the canary failed");
                        self.set_condition(Condition::Unready(format!(
                            "the canary failed: {}",
                            error.message
                        )));
                        tokio::select! {
                            () = sleep(CANARY_PAUSE) => continue,
                            changed = state.changed() => if changed.is_err() { return } else { continue },
                        }
                    }
                },
            }
            if state.changed().await.is_err() {
                return;
            }
        }
    }

    /// A run of the head's own, through everything that a document's run goes through.
    async fn canary(&self) -> Result<(), RunError> {
        let job = Job {
            blocks: vec![Block {
                name: "canary".into(),
                language: "python".into(),
                code: "answer = sum(range(10))".into(),
                line: 1,
                ..Block::default()
            }],
            inputs: "{}".into(),
            outputs: Some(vec!["answer".into()]),
            specifications: vec![],
            strict: false,
            time_limit: CANARY_LIMIT,
        };
        let (_keep, stop) = watch::channel(None);
        let outputs = execute(self.place(), &job, stop, |_| {}).await.result?;
        if outputs == br#"{"answer":45}"# {
            Ok(())
        } else {
            Err(failure(reason::BLOCK_FAILED, "the interpreter cannot add"))
        }
    }
}

fn refuse(refusal: &Refusal) -> Status {
    let status = refusal.status();
    tracing::warn!(reason = %status.message(), "a run is refused");
    status
}

fn event(job: &Job, happening: Happening) -> Event {
    match happening {
        Happening::Began(index) => Event::Block(BlockChanged {
            name: job.blocks[index].name.clone(),
            language: job.blocks[index].language.clone(),
            state: head_proto::BlockState::Running.into(),
            duration_millis: 0,
            diagnostics: String::new(),
        }),
        Happening::Ended(_, block) => Event::Block(BlockChanged {
            name: block.name,
            language: block.language,
            state: match block.state {
                BlockState::Succeeded => head_proto::BlockState::Succeeded,
                BlockState::Failed => head_proto::BlockState::Failed,
                BlockState::Skipped => head_proto::BlockState::Skipped,
            }
            .into(),
            duration_millis: block.duration_millis,
            diagnostics: block.diagnostics,
        }),
        Happening::Printed(stream, data) => Event::Output(Output {
            stream: match stream {
                Stream::Stdout => output::Stream::Stdout,
                Stream::Stderr => output::Stream::Stderr,
            }
            .into(),
            data,
        }),
    }
}
