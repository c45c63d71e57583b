//! The runs that this process has under way: one task each, which drives the head's stream to its end.
//!
//! What is here can be lost with the process at any time: the status says which head holds the run, and the head
//! answers a known run id with what it has stored.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use api::{MamlWorkflow, MamlWorkflowStatus, reasons};
use controller_core::{
    inputs::Inputs,
    run::Ending,
    suspicion::Ended,
    workflow_plan::{Loss, RunState},
};
use head_proto::{ResumeRequest, RunEvent, RunRequest, run_event};
use kube::runtime::reflector::ObjectRef;
use tokio::task::AbortHandle;
use tonic::{Code, Status, Streaming};
use tracing::Instrument as _;

use crate::{
    connection,
    fleet::{Fleet, Reservation},
    metrics::Metrics,
    triggers::Triggers,
};

/// How long a head may take to answer after the run's own time limit.
const GRACE: Duration = Duration::from_secs(15);
/// For how long the stream of a run is asked for again although the agent is heard.
const RECONNECT_FOR: Duration = Duration::from_secs(5);
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// How a run is asked for.
pub enum Request {
    /// For the first time.
    Run(RunRequest),
    /// Again, by its id: a predecessor asked first.
    Resume,
}

/// One run under way.
struct Record {
    /// The same for all attempts of a run; another for the next run of the same workflow.
    receipt_name: String,
    run_id: String,
    pod_uid: String,
    state: RunState,
    /// The status with which the head was claimed.
    status: MamlWorkflowStatus,
    task: Option<AbortHandle>,
    cancelled: bool,
}

/// A run that is to be driven.
pub struct Driven {
    /// The workflow.
    pub workflow: ObjectRef<MamlWorkflow>,
    /// UID of the workflow.
    pub uid: String,
    /// Name of the run's receipt.
    pub receipt_name: String,
    /// The run's id.
    pub run_id: String,
    /// Counts from 1.
    pub attempt: i32,
    /// The status with which the head was claimed.
    pub status: MamlWorkflowStatus,
    /// The run's own time limit.
    pub timeout: Duration,
}

/// All runs under way, by the UID of their workflow.
pub struct Runs {
    records: Mutex<HashMap<String, Record>>,
    fleet: Arc<Fleet>,
    triggers: Arc<Triggers>,
    metrics: Arc<Metrics>,
}

impl Runs {
    /// No runs.
    pub fn new(fleet: Arc<Fleet>, triggers: Arc<Triggers>, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            records: Mutex::default(),
            fleet,
            triggers,
            metrics,
        })
    }

    fn records(&self) -> MutexGuard<'_, HashMap<String, Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of a workflow's current run, and the status on which to build.
    pub fn state(&self, uid: &str, receipt_name: &str) -> (RunState, Option<MamlWorkflowStatus>) {
        match self
            .records()
            .get(uid)
            .filter(|record| record.receipt_name == receipt_name)
        {
            Some(record) => (record.state.clone(), Some(record.status.clone())),
            None => (RunState::Unknown, None),
        }
    }

    /// Forgets a workflow's run; if it is of an earlier generation and still under way, the head is asked to stop.
    pub fn forget_others(self: &Arc<Self>, uid: &str, receipt_name: &str) {
        let stale = self
            .records()
            .get(uid)
            .is_some_and(|record| record.receipt_name != receipt_name);
        if stale {
            self.cancel(uid, "superseded by a new run of the same workflow");
            self.forget(uid);
        }
    }

    /// Forgets a workflow's run.
    pub fn forget(&self, uid: &str) {
        if let Some(record) = self.records().remove(uid) {
            if let Some(task) = record.task {
                task.abort();
            }
            self.fleet.release(&record.run_id, &record.pod_uid);
        }
        self.count();
    }

    /// The UIDs of workflows with a run here.
    pub fn workflows(&self) -> Vec<String> {
        self.records().keys().cloned().collect()
    }

    /// Notes that the receipt and the status are written.
    pub fn concluded(&self, uid: &str, receipt_name: &str, status: MamlWorkflowStatus) {
        let record = Record {
            receipt_name: receipt_name.to_owned(),
            run_id: String::new(),
            pod_uid: String::new(),
            state: RunState::Concluded,
            status,
            task: None,
            cancelled: false,
        };
        self.records().insert(uid.to_owned(), record);
        self.count();
    }

    /// Notes the status that was written of a run that is known here.
    pub fn shown(&self, uid: &str, status: MamlWorkflowStatus) {
        if let Some(record) = self.records().get_mut(uid) {
            record.status = status;
        }
    }

    /// Notes that an attempt's answer cannot be used.
    pub fn lose(&self, uid: &str, loss: Loss) {
        if let Some(record) = self.records().get_mut(uid) {
            record.state = RunState::Lost(loss);
        }
    }

    /// Asks a head for a run and follows it; when it has ended, the workflow is looked at again.
    pub fn drive(self: &Arc<Self>, run: Driven, on: Reservation, request: Request) {
        let span =
            tracing::info_span!("run", run_id = %run.run_id, workflow = %run.workflow, attempt = run.attempt);
        let mut record = Record {
            receipt_name: run.receipt_name,
            run_id: run.run_id.clone(),
            pod_uid: on.member.pod_uid.clone(),
            state: RunState::Running(run.attempt),
            status: run.status,
            task: None,
            cancelled: false,
        };
        let mut records = self.records();
        let runs = Arc::clone(self);
        let (uid, workflow, run_id, attempt, timeout) =
            (run.uid, run.workflow, run.run_id, run.attempt, run.timeout);
        let key = uid.clone();
        let document = record.status.document_digest.clone();
        let run = record.receipt_name.clone();
        let task = async move {
            let pod_uid = on.member.pod_uid.clone();
            let limit = timeout + GRACE;
            let answered = tokio::time::timeout(limit, answer(&runs.fleet, &run_id, on, request)).await;
            let state = match answered.unwrap_or_else(|_| Err(Unanswered::too_late())) {
                Ok(ending) => RunState::Ended {
                    attempt,
                    ending: Box::new(ending),
                },
                Err(Unanswered {
                    reason,
                    message,
                    by_itself,
                }) => {
                    tracing::warn!(reason, message, "attempt lost");
                    runs.metrics.attempts_lost.with_label_values(&[reason]).inc();
                    runs.fleet.abandon(&run_id, &pod_uid);
                    if let Some(document) = document.filter(|_| by_itself) {
                        runs.fleet.note_ended(Ended {
                            pod_uid: pod_uid.clone(),
                            run,
                            document: document.sha256,
                            failure: Some(reason),
                        });
                    }
                    RunState::Lost(Loss {
                        attempt,
                        reason,
                        message,
                    })
                }
            };
            runs.end(&uid, &run_id, &pod_uid, state);
            runs.triggers.workflow(&workflow);
        };
        record.task = Some(tokio::spawn(task.instrument(span)).abort_handle());
        records.insert(key, record);
        drop(records);
        self.count();
    }

    fn end(&self, uid: &str, run_id: &str, pod_uid: &str, state: RunState) {
        if let Some(record) = self
            .records()
            .get_mut(uid)
            .filter(|record| record.run_id == run_id)
        {
            record.state = state;
            record.task = None;
        }
        self.fleet.release(run_id, pod_uid);
        self.count();
    }

    /// Asks the head to stop a workflow's run, once.
    pub fn cancel(self: &Arc<Self>, uid: &str, reason: &str) {
        let mut records = self.records();
        let Some(record) = records.get_mut(uid) else {
            return;
        };
        if record.cancelled || !matches!(record.state, RunState::Running(_)) {
            return;
        }
        let Some(on) = self.fleet.link(&record.pod_uid) else {
            return;
        };
        record.cancelled = true;
        let run_id = record.run_id.clone();
        drop(records);
        tokio::spawn(connection::cancel(on.link.channel, run_id, reason.to_owned()));
    }

    /// Whether any run is under way here.
    pub fn are_under_way(&self) -> bool {
        self.records()
            .values()
            .any(|record| matches!(record.state, RunState::Running(_)))
    }

    fn count(&self) {
        let running = self
            .records()
            .values()
            .filter(|record| matches!(record.state, RunState::Running(_)))
            .count();
        self.metrics
            .runs_in_flight
            .set(i64::try_from(running).unwrap_or(i64::MAX));
    }
}

/// An attempt that will have no answer.
struct Unanswered {
    /// One of [`api::reasons`].
    reason: &'static str,
    /// For a person.
    message: String,
    /// Whether its agent is heard nevertheless, so that no other fault explains it.
    by_itself: bool,
}

impl Unanswered {
    /// With its agent, its device or its pod, which is made good as such.
    fn with_its_head(reason: &'static str, message: String) -> Self {
        Self {
            reason,
            message,
            by_itself: false,
        }
    }

    fn by_itself(reason: &'static str, message: String) -> Self {
        Self {
            reason,
            message,
            by_itself: true,
        }
    }

    fn too_late() -> Self {
        let message = format!("no answer {} s after the run's time limit", GRACE.as_secs());
        Self::by_itself(reasons::HEAD_LOST, message)
    }
}

/// Follows a run to its end, or to that of its agent, whichever is first. An answer that has arrived counts.
async fn answer(
    fleet: &Fleet,
    run_id: &str,
    on: Reservation,
    request: Request,
) -> Result<Ending, Unanswered> {
    let (fate, pod) = (on.link.fate.clone(), on.member.pod.clone());
    tokio::select! {
        biased;
        ended = follow(fleet, run_id, on, request) => ended,
        lost = fate.lost() => {
            let (reason, message) = match lost {
                None => (reasons::HEAD_LOST, format!("pod {pod} is gone")),
                Some(lost) if lost.cause == reasons::GPU_UNHEALTHY => {
                    (reasons::GPU_UNHEALTHY, format!("pod {pod}: {}", lost.message))
                }
                Some(lost) => (reasons::HEAD_LOST, format!("pod {pod}: {}", lost.message)),
            };
            Err(Unanswered::with_its_head(reason, message))
        }
    }
}

/// Follows a run to its end, over reconnections, as long as its agent may answer.
async fn follow(
    fleet: &Fleet,
    run_id: &str,
    mut on: Reservation,
    request: Request,
) -> Result<Ending, Unanswered> {
    let mut answer = match request {
        Request::Run(request) => connection::client(on.link.channel.clone()).run(request).await,
        Request::Resume => resume(&on, run_id).await,
    };
    let mut broken_since: Option<Instant> = None;
    loop {
        let error = match answer {
            Ok(stream) => match read(stream.into_inner()).await {
                Ok(ending) => return Ok(ending),
                Err(status) => status,
            },
            Err(status) => status,
        };
        if let Some(loss) = final_refusal(&error) {
            return Err(loss);
        }
        // Whether the agent is lost or only the connection is soon known; an agent that is heard is asked for a while.
        let since = *broken_since.get_or_insert_with(Instant::now);
        let message = || format!("pod {}: {}", on.member.pod, error.message());
        if !fleet.may_answer(&on.member.pod_uid) {
            return Err(Unanswered::with_its_head(reasons::HEAD_LOST, message()));
        }
        if since.elapsed() > RECONNECT_FOR {
            return Err(Unanswered::by_itself(reasons::HEAD_LOST, message()));
        }
        tokio::time::sleep(RECONNECT_PAUSE).await;
        if let Some(link) = fleet.link(&on.member.pod_uid) {
            on = link;
        }
        answer = resume(&on, run_id).await;
    }
}

async fn resume(on: &Reservation, run_id: &str) -> Result<tonic::Response<Streaming<RunEvent>>, Status> {
    connection::client(on.link.channel.clone())
        .resume(ResumeRequest {
            run_id: run_id.to_owned(),
        })
        .await
}

/// Whether the head's word is final: asking it again would not help.
fn final_refusal(status: &Status) -> Option<Unanswered> {
    match status.code() {
        // Its agent was started again.
        Code::NotFound => Some(Unanswered::with_its_head(
            reasons::HEAD_LOST,
            format!("the head does not know the run: {}", status.message()),
        )),
        // It has more runs than this process knows of, which says nothing against it.
        Code::ResourceExhausted => Some(Unanswered::with_its_head(
            reasons::GRANT_REFUSED,
            status.message().to_owned(),
        )),
        Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::Unimplemented => Some(Unanswered::by_itself(
            reasons::GRANT_REFUSED,
            status.message().to_owned(),
        )),
        _ => None,
    }
}

/// Reads a run's events up to the last.
async fn read(mut events: Streaming<RunEvent>) -> Result<Ending, Status> {
    let mut started = None;
    while let Some(event) = events.message().await? {
        match event.event {
            Some(run_event::Event::Started(event)) => started = Some(event),
            Some(run_event::Event::Finished(finished)) => {
                let started =
                    started.ok_or_else(|| Status::internal("the run's stream did not begin with Started"))?;
                let inputs = Inputs::from_head(started.inputs, &started.inputs_blinding)
                    .ok_or_else(|| Status::internal("the run's inputs have a malformed blinding"))?;
                return Ok(Ending {
                    grant: started.grant,
                    document: started.document,
                    inputs,
                    attestation: finished.attestation,
                    outputs: finished.outputs,
                });
            }
            Some(run_event::Event::Block(_) | run_event::Event::Output(_)) | None => {}
        }
    }
    Err(Status::unavailable("the run's stream ended early"))
}
