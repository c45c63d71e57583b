//! The agent: one head's state, and the way of a run through it from request to attestation.

use crate::admission::{self, Head, Refusal};
use crate::environment;
use crate::gpu::{self, Gpus};
use crate::journal::Journal;
use crate::runs::{Entry, Keep, Registry, Run};
use crate::signer::Signers;
use crate::tls::Identity;
use crypto::attestation::{BlockState, RunError};
use crypto::{DigestSet, SigningKey, Suite};
use head_proto::run_event::Event;
use head_proto::{BlockChanged, Finished, HeadStatus, Output, RunRequest, Started, output};
use jiff::Timestamp;
use sandbox::attestation::{Attested, Machine, attest};
use sandbox::consumption::Consumption;
use sandbox::execution::{Happening, Place, execute, failure};
use sandbox::job::{Block, Job};
use sandbox::reason;
use sandbox::stream::Stream;
use sandbox::workers::{Cause, Configuration, Ready, State, Workers};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tonic::Status;

const CANARY_LIMIT: Duration = Duration::from_secs(30);
const CANARY_PAUSE: Duration = Duration::from_secs(2);
/// With less, not even a document of one line runs.
const LEAST_MEMORY_MIB: u64 = 32;
const LEAST_DISK_MIB: u64 = 1;

/// Why an agent cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
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
    /// What is kept of finished runs.
    pub keep: Keep,
    /// The interpreters.
    pub interpreter: Configuration,
    /// Where the GPUs are found, if there are any.
    pub gpus: Option<gpu::Configuration>,
    /// How often an idle head computes something whose answer is known.
    pub canary_every: Duration,
    /// What a run's processes may use together.
    pub together: Consumption,
    /// Image, and the devices as long as no driver tells of them.
    pub machine: Machine,
    /// Whether what runs print goes to the agent's standard output.
    pub journal: bool,
}

/// One head.
pub struct Agent {
    identity: Arc<Identity>,
    signers: Signers,
    head: Head,
    key: SigningKey,
    machine: Machine,
    interpreters: Workers,
    gpus: Option<Arc<Gpus>>,
    together: Consumption,
    canary_every: Duration,
    journal: bool,
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
    /// Starts the interpreters and the watch over them.
    pub fn start(setup: Setup, identity: Arc<Identity>) -> Result<Arc<Self>, Error> {
        let key = SigningKey::generate(Suite::MlDsa87).map_err(Error::Key)?;
        let registry = Registry::new(setup.workers, setup.keep);
        let (running, every) = (registry.running(), setup.canary_every);
        let gpus = setup.gpus.map(|gpus| Gpus::follow(gpus, running, every));
        let agent = Arc::new(Self {
            identity,
            signers: Signers::default(),
            head: Head {
                uid: setup.pod_uid,
                attester: key.verifying_key().key_id().clone(),
                only_run: setup.machine.only_run.clone(),
            },
            key,
            machine: setup.machine,
            interpreters: Workers::start(setup.interpreter),
            together: setup.together,
            canary_every: setup.canary_every,
            journal: setup.journal,
            registry,
            gpus,
            workers: setup.workers,
            token: AtomicU64::new(0),
            draining: AtomicBool::new(false),
            condition: Mutex::new(Condition::Unready("the interpreter is starting".into())),
            revision: watch::Sender::new(0),
        });
        match too_small(&agent.together) {
            Some(message) => agent.set_condition(Condition::Unready(message)),
            None => drop(tokio::spawn(agent.clone().keep_condition())),
        }
        tokio::spawn(agent.clone().tell(agent.interpreters.mends()));
        if let Some(gpus) = &agent.gpus {
            tokio::spawn(agent.clone().tell(gpus.view()));
        }
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
        let admitted = self
            .signers
            .believe(&request, &root)
            .and_then(|signer| admission::admit(&request, &signer, &self.head))
            .map_err(|refusal| refuse(&refusal))?;
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
        if let Some(fault) = self.gpus.as_ref().and_then(|gpus| gpus.view().borrow().fault()) {
            return Err(Status::unavailable(fault));
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
        let view = self
            .gpus
            .as_ref()
            .map(|gpus| gpus.view().borrow().clone())
            .unwrap_or_default();
        let (ready, message, environment) = match (self.condition(), view.fault()) {
            (Condition::Ready(ready), fault) => {
                let environment = environment::of(&ready, self.together.memory, view.cuda.clone());
                (fault.is_none(), fault.unwrap_or_default(), Some(environment))
            }
            (Condition::Unready(message), fault) => (false, fault.unwrap_or(message), None),
        };
        let draining = self.is_draining();
        HeadStatus {
            attester_spki: self.key.verifying_key().spki_der().to_vec(),
            ready: ready && !draining,
            message: if draining { "draining".into() } else { message },
            capacity: u32::try_from(self.workers).unwrap_or(u32::MAX),
            running: self.registry.running_ids(),
            devices: view.uuids().unwrap_or_else(|| self.machine.devices.clone()),
            environment,
            draining,
            device_states: view.devices.iter().map(device_state).collect(),
            mends: self.interpreters.mends().borrow().iter().map(mend).collect(),
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
            workers: &self.interpreters,
            together: self.together,
        }
    }

    /// With the devices that the driver tells of.
    fn machine(&self) -> Machine {
        let mut machine = self.machine.clone();
        let told = self.gpus.as_ref().and_then(|gpus| gpus.view().borrow().uuids());
        machine.devices = told.unwrap_or(machine.devices);
        machine
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
        let mut journal = self.journal.then(|| Journal::new(run.id().clone(), &job));
        let used = || self.gpus.as_ref().and_then(|gpus| gpus.used());
        let before = used();
        let outcome = execute(self.place(), &job, run.stopped(), |happening| {
            if let Some(journal) = &mut journal {
                journal.take(&happening);
            }
            run.add(event(&job, happening));
        })
        .await;
        if let Some(journal) = &mut journal {
            journal.finish();
        }
        tracing::info!(
            run_id = %run.id(),
            millis = outcome.elapsed.as_secs_f64() * 1e3,
            reason = outcome.result.as_ref().err().map(|error| error.reason.as_str()),
            "run finished"
        );
        let gpu_seconds = before
            .zip(used())
            .map(|(before, after)| (after - before).max(0.0));
        match attest(
            &self.key,
            &self.machine(),
            ready,
            run.id(),
            grant,
            outcome,
            gpu_seconds,
        ) {
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

    /// Follows the interpreters: runs are taken once the canary has run, and it is run again while the head is idle.
    async fn keep_condition(self: Arc<Self>) {
        let mut state = self.interpreters.state();
        let mut failures = 0;
        loop {
            let current = state.borrow_and_update().clone();
            match current {
                State::Starting => {}
                State::Down(cause) => self.set_condition(Condition::Unready(cause)),
                State::Ready(ready) => match self.canary().await {
                    Ok(()) => {
                        failures = 0;
                        self.take_runs(ready);
                    }
                    // What became of the interpreter meanwhile is told by the state.
                    Err(error) if error.reason == reason::INTERPRETER_LOST && !is_ready(&state) => {}
                    Err(error) => {
                        failures += 1;
                        self.distrust(failures, &error);
                    }
                },
            }
            let pause = if failures > 0 {
                CANARY_PAUSE
            } else {
                self.canary_every
            };
            tokio::select! {
                changed = state.changed() => if changed.is_err() { return },
                () = self.idle_after(pause) => {}
            }
        }
    }

    fn take_runs(&self, ready: Arc<Ready>) {
        if matches!(self.condition(), Condition::Ready(known) if known == ready) {
            return;
        }
        tracing::info!(interpreter = %ready.interpreter, landlock = ready.landlock_abi, "ready");
        self.set_condition(Condition::Ready(ready));
    }

    /// After a wrong answer or none. A head that was ready is believed once more; then its zygote is replaced, and again at
    /// longer and longer intervals: it may not be the zygote's fault.
    fn distrust(&self, failures: u32, error: &RunError) {
        tracing::error!(reason = %error.reason, message = %error.message, "the canary failed");
        if failures == 1 && matches!(self.condition(), Condition::Ready(_)) {
            return;
        }
        let message = format!("the canary failed: {}", error.message);
        self.set_condition(Condition::Unready(message.clone()));
        if failures.is_power_of_two() {
            self.interpreters.replace(Cause::CanaryFailed, message);
        }
    }

    /// At the first moment without a run after `pause`.
    async fn idle_after(&self, pause: Duration) {
        sleep(pause).await;
        let _ = self.registry.running().wait_for(|running| *running == 0).await;
    }

    /// What changes elsewhere changes the status.
    async fn tell<T: Send + Sync>(self: Arc<Self>, mut changing: watch::Receiver<T>) {
        while changing.changed().await.is_ok() {
            self.changed();
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

/// Whether the interpreters are ready for runs now.
fn is_ready(state: &watch::Receiver<State>) -> bool {
    matches!(*state.borrow(), State::Ready(_))
}

/// Why no run could live in what it may use, if none could.
fn too_small(together: &Consumption) -> Option<String> {
    let (memory, disk) = (together.memory >> 20, together.disk >> 20);
    let what = if memory < LEAST_MEMORY_MIB {
        format!(
            "{memory} MiB of memory, and {LEAST_MEMORY_MIB} are needed; raise spec.resources.limits.memory"
        )
    } else if disk < LEAST_DISK_MIB {
        format!(
            "{disk} MiB on disk, and {LEAST_DISK_MIB} are needed; raise spec.resources.limits.ephemeral-storage"
        )
    } else {
        return None;
    };
    Some(format!("each run would have {what} or lower spec.workers.warm"))
}

fn refuse(refusal: &Refusal) -> Status {
    let status = refusal.status();
    tracing::warn!(reason = %status.message(), "a run is refused");
    status
}

fn device_state(health: &gpu::Health) -> head_proto::Device {
    head_proto::Device {
        uuid: health.device.uuid.clone(),
        name: health.device.name.clone(),
        memory_bytes: health.device.memory,
        healthy: health.fault.is_none(),
        message: health.fault.clone().unwrap_or_default(),
    }
}

fn mend(mend: &sandbox::workers::Mend) -> head_proto::Mend {
    head_proto::Mend {
        number: mend.number,
        cause: mend.cause.name().to_owned(),
        message: mend.message.clone(),
        noticed_unix_millis: u64::try_from(mend.noticed.as_millisecond()).unwrap_or_default(),
        duration_millis: u64::try_from(mend.duration.as_millis()).unwrap_or(u64::MAX),
    }
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
