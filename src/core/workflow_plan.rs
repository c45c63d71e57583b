//! What is to be done about a MamlWorkflow: the pure decision between observing and applying.
//!
//! A run moves through: wait → start (claim a head, dispatch) → ended → conclude (receipt, status). Every step can be
//! the last before a crash: what is decided next depends only on what is observed then.

use std::time::Duration;

use api::{
    MamlWorkflow, MamlWorkflowStatus,
    condition::{COMPLETE, SCHEDULED, find, is_true},
    maml_workflow::LostAttempt,
    reasons,
};
use jiff::Timestamp;

use crate::{
    document::{Accepted, Refusal, Submission, accept},
    run::{Ending, rerun, run_key},
    workflow_status::{self, Wait},
};

/// How long a run may wait without its status saying so: writes for waits that are over in a moment would only slow
/// a full queue down.
const QUIET_WAIT: Duration = Duration::from_millis(1500);
/// When a waiting run is looked at again without any other cause.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// The document of a workflow, as far as it could be found.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// Its bytes.
    Found(Vec<u8>),
    /// The ConfigMap or its key is not there; why, for a person.
    Missing(String),
}

/// What this process knows of the workflow's current run.
#[derive(Debug, Clone, PartialEq)]
pub enum RunState {
    /// Nothing: not started, or started by a predecessor.
    Unknown,
    /// Under way; the attempt.
    Running(i32),
    /// The head answered.
    Ended {
        /// The attempt that ended.
        attempt: i32,
        /// The head's answer.
        ending: Box<Ending>,
    },
    /// The attempt is lost and will not answer.
    Lost(Loss),
    /// The receipt is stored; the store of workflows may not show it yet.
    Concluded,
}

/// An attempt that was lost to infrastructure.
#[derive(Debug, Clone, PartialEq)]
pub struct Loss {
    /// The attempt.
    pub attempt: i32,
    /// One of [`api::reasons`].
    pub reason: &'static str,
    /// For a person.
    pub message: String,
}

/// Everything that the decision depends on.
#[derive(Debug)]
pub struct Observed<'a> {
    /// The workflow as last seen.
    pub workflow: &'a MamlWorkflow,
    /// The status on which to build: the one last written by this process when that is newer than the store's.
    pub status: MamlWorkflowStatus,
    /// The document.
    pub source: Source,
    /// This process's knowledge of the run.
    pub run: RunState,
    /// Whether the run's receipt exists.
    pub receipt_exists: bool,
    /// Whether the head pod that the status names is known, so that its agent can be asked.
    pub claimed_head_known: bool,
    /// Whether a published key can sign; if not, why.
    pub signer: Result<(), String>,
    /// The present.
    pub now: Timestamp,
}

/// The decision.
#[derive(Debug)]
pub enum Plan {
    /// Nothing until something changes.
    Rest,
    /// Nothing until then.
    RestFor(Duration),
    /// Show why the run waits (unless the status says so already), and look again after a while.
    Wait(Wait, Duration),
    /// Choose a head, claim it, dispatch.
    Start(Box<Start>),
    /// Ask the claimed head for the run that a predecessor started there.
    Rejoin {
        /// The attempt.
        attempt: i32,
        /// UID of the head's pod.
        pod_uid: String,
    },
    /// Ask the head to stop the run; its answer arrives as any other.
    Cancel,
    /// Sign and store the receipt, then the status.
    Conclude(Box<Conclusion>),
    /// The receipt exists: bring the status in line with it.
    Recover,
    /// The time to keep the finished workflow is over: delete it.
    Expire,
}

/// An attempt that is to be started.
#[derive(Debug)]
pub struct Start {
    /// Counts from 1.
    pub attempt: i32,
    /// The document's bytes.
    pub source: Vec<u8>,
    /// The document, read and found in order.
    pub accepted: Accepted,
    /// The status so far, with lost attempts.
    pub status: MamlWorkflowStatus,
}

/// A run that is over.
#[derive(Debug)]
pub struct Conclusion {
    /// The last attempt; 0 when none was started.
    pub attempt: i32,
    /// The document's bytes, as far as they are known.
    pub source: Vec<u8>,
    /// The status so far.
    pub status: MamlWorkflowStatus,
    /// How it ended.
    pub outcome: Outcome,
}

/// How a run ended, before it is judged and signed.
#[derive(Debug)]
pub enum Outcome {
    /// The head answered.
    Answered {
        /// Its answer, to be judged.
        ending: Box<Ending>,
        /// The document that was granted.
        accepted: Box<Accepted>,
    },
    /// The document was refused; nothing ran.
    Refused(Refusal),
    /// The run ended without an answer.
    Failed {
        /// One of [`api::reasons`].
        reason: &'static str,
        /// For a person.
        message: String,
    },
}

/// Decides.
pub fn plan(observed: Observed<'_>) -> Plan {
    let workflow = observed.workflow;
    if workflow.metadata.deletion_timestamp.is_some() {
        return if matches!(observed.run, RunState::Running(_)) { Plan::Cancel } else { Plan::Rest };
    }
    if is_current(workflow, &observed.status) && is_true(&observed.status.conditions, COMPLETE) {
        return plan_expiry(workflow, &observed.status, observed.now);
    }
    match &observed.run {
        RunState::Running(_) if cancel_requested(workflow) => Plan::Cancel,
        RunState::Running(_) | RunState::Concluded => Plan::Rest,
        RunState::Ended { .. } => plan_conclusion(observed),
        RunState::Lost(_) if observed.receipt_exists => Plan::Recover,
        RunState::Lost(loss) => {
            let loss = loss.clone();
            plan_retry(observed, &loss)
        }
        RunState::Unknown => plan_unknown(observed),
    }
}

/// This process knows nothing of the run: it is new, or a predecessor started it.
fn plan_unknown(observed: Observed<'_>) -> Plan {
    let claimed = observed.status.head.as_ref().filter(|_| is_current(observed.workflow, &observed.status));
    match (claimed, observed.status.attempt) {
        (Some(head), Some(attempt)) if observed.claimed_head_known => {
            Plan::Rejoin { attempt, pod_uid: head.uid.clone() }
        }
        _ if observed.receipt_exists => Plan::Recover,
        (Some(head), Some(attempt)) => {
            let message = format!("pod {} is gone", head.pod);
            plan_retry(observed, &Loss { attempt, reason: reasons::HEAD_LOST, message })
        }
        _ => plan_start(observed),
    }
}

fn plan_conclusion(observed: Observed<'_>) -> Plan {
    let RunState::Ended { attempt, ending } = observed.run else { return Plan::Rest };
    if let Err(message) = observed.signer {
        return Plan::Wait(Wait::for_signer(message), LOOK_AGAIN);
    }
    // What ran is what the head was started with, whatever the ConfigMap says by now.
    let spec = &observed.workflow.spec;
    let submission =
        Submission { document: &ending.document, inputs: &spec.inputs, act_as: spec.act_as.as_deref() };
    let source = ending.document.clone();
    let outcome = match accept(&submission) {
        Ok(accepted) => Outcome::Answered { ending, accepted: Box::new(accepted) },
        Err(refusal) => Outcome::Failed {
            reason: reasons::ATTESTATION_INVALID,
            message: format!("the head ran a document that is not acceptable: {}", refusal.message),
        },
    };
    Plan::Conclude(Box::new(Conclusion { attempt, source, status: observed.status, outcome }))
}

/// An attempt was lost: start the next one, or give up.
fn plan_retry(mut observed: Observed<'_>, loss: &Loss) -> Plan {
    let status = &mut observed.status;
    if !status.attempts.iter().any(|known| known.attempt == loss.attempt) {
        let lost = LostAttempt {
            attempt: loss.attempt,
            head: status.head.as_ref().map(|head| head.name.clone()),
            pod: status.head.as_ref().map(|head| head.pod.clone()),
            reason: loss.reason.to_owned(),
            message: Some(loss.message.clone()),
            time: observed.now,
        };
        status.attempts.push(lost);
        let surplus = status.attempts.len().saturating_sub(api::maml_workflow::ATTEMPTS_LIMIT);
        status.attempts.drain(..surplus);
    }
    status.attempt = Some(loss.attempt);
    status.head = None;
    if cancel_requested(observed.workflow) {
        return fail(observed, reasons::CANCELLED, "the run was cancelled".to_owned());
    }
    if loss.attempt > observed.workflow.spec.infrastructure_retries {
        let message = format!("attempt {} was the last one allowed: {}", loss.attempt, loss.message);
        let reason = if observed.workflow.spec.infrastructure_retries == 0 {
            loss.reason
        } else {
            reasons::RETRIES_EXHAUSTED
        };
        return fail(observed, reason, message);
    }
    plan_start(observed)
}

/// No attempt is under way: start one, wait, or refuse.
fn plan_start(observed: Observed<'_>) -> Plan {
    let spec = &observed.workflow.spec;
    if cancel_requested(observed.workflow) {
        return fail(observed, reasons::CANCELLED, "the run was cancelled before it started".to_owned());
    }
    if spec.suspend {
        return Plan::Wait(Wait::suspended(), LOOK_AGAIN);
    }
    let source = match observed.source {
        Source::Found(source) => source,
        Source::Missing(ref message) => {
            let message = message.clone();
            return deadline(observed, Wait::for_source(message));
        }
    };
    if let Err(message) = observed.signer {
        let wait = Wait::for_signer(message);
        return deadline(Observed { source: Source::Found(source), signer: Ok(()), ..observed }, wait);
    }
    let submission = Submission { document: &source, inputs: &spec.inputs, act_as: spec.act_as.as_deref() };
    let status = observed.status;
    let attempt = status.attempt.filter(|_| is_current(observed.workflow, &status)).unwrap_or(0) + 1;
    match accept(&submission) {
        Ok(accepted) => Plan::Start(Box::new(Start { attempt, source, accepted, status })),
        Err(refusal) => Plan::Conclude(Box::new(Conclusion {
            attempt: attempt - 1,
            source,
            status,
            outcome: Outcome::Refused(refusal),
        })),
    }
}

/// What to do when no head could be reserved: wait, or give up at the pending deadline.
pub fn plan_without_head(workflow: &MamlWorkflow, start: Start, wait: Wait, now: Timestamp) -> Plan {
    let waited = pending_for(workflow, &start.status, now);
    if let Some(left) = pending_left(workflow, waited) {
        if left.is_zero() {
            let message = format!("no head within {} s: {}", waited.as_secs(), wait.message);
            let outcome = Outcome::Failed { reason: reasons::PENDING_DEADLINE_EXCEEDED, message };
            let (attempt, source, status) = (start.attempt - 1, start.source, start.status);
            return Plan::Conclude(Box::new(Conclusion { attempt, source, status, outcome }));
        }
        return Plan::Wait(wait, left.min(LOOK_AGAIN));
    }
    if waited < QUIET_WAIT && workflow_status::says_nothing_yet(&start.status) {
        return Plan::RestFor(QUIET_WAIT.saturating_sub(waited).max(Duration::from_millis(100)));
    }
    Plan::Wait(wait, LOOK_AGAIN)
}

fn deadline(observed: Observed<'_>, wait: Wait) -> Plan {
    let waited = pending_for(observed.workflow, &observed.status, observed.now);
    match pending_left(observed.workflow, waited) {
        Some(left) if left.is_zero() => {
            let message = format!("not started within {} s: {}", waited.as_secs(), wait.message);
            fail(observed, reasons::PENDING_DEADLINE_EXCEEDED, message)
        }
        Some(left) => Plan::Wait(wait, left.min(LOOK_AGAIN)),
        None => Plan::Wait(wait, LOOK_AGAIN),
    }
}

fn pending_left(workflow: &MamlWorkflow, waited: Duration) -> Option<Duration> {
    let limit = u64::try_from(workflow.spec.pending_deadline_seconds?).ok()?;
    Some(Duration::from_secs(limit).saturating_sub(waited))
}

/// For how long the current run has been pending: since its creation, or since the last attempt was lost.
fn pending_for(workflow: &MamlWorkflow, status: &MamlWorkflowStatus, now: Timestamp) -> Duration {
    let first_run = workflow.metadata.generation.unwrap_or(1) <= 1 && rerun(workflow).is_none();
    let begun = if first_run {
        workflow.metadata.creation_timestamp.as_ref().map(|time| time.0)
    } else {
        // Of a later run only the status tells when it was first seen.
        find(&status.conditions, SCHEDULED).map(|condition| condition.last_transition_time)
    };
    let begun = begun.unwrap_or(now);
    let since = status.attempts.last().map_or(begun, |lost| lost.time.max(begun));
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

fn fail(observed: Observed<'_>, reason: &'static str, message: String) -> Plan {
    if let Err(why) = observed.signer {
        return Plan::Wait(Wait::for_signer(why), LOOK_AGAIN);
    }
    let source = match observed.source {
        Source::Found(source) => source,
        Source::Missing(_) => Vec::new(),
    };
    let attempt = observed.status.attempt.filter(|_| is_current(observed.workflow, &observed.status)).unwrap_or(0);
    let outcome = Outcome::Failed { reason, message };
    Plan::Conclude(Box::new(Conclusion { attempt, source, status: observed.status, outcome }))
}

fn plan_expiry(workflow: &MamlWorkflow, status: &MamlWorkflowStatus, now: Timestamp) -> Plan {
    let Some(ttl) = workflow.spec.ttl_seconds_after_finished.and_then(|seconds| u64::try_from(seconds).ok()) else {
        return Plan::Rest;
    };
    let Some(finished) = status.finished_at else { return Plan::Rest };
    let age = Duration::try_from(now.duration_since(finished)).unwrap_or_default();
    match Duration::from_secs(ttl).checked_sub(age) {
        Some(left) if !left.is_zero() => Plan::RestFor(left),
        _ => Plan::Expire,
    }
}

/// Whether the status speaks of the workflow's current run.
pub fn is_current(workflow: &MamlWorkflow, status: &MamlWorkflowStatus) -> bool {
    status.observed_generation == workflow.metadata.generation && status.observed_rerun.as_deref() == rerun(workflow)
}

/// The status on which the current run builds: its own, or a fresh one that keeps the conditions' history.
pub fn current_status(workflow: &MamlWorkflow) -> MamlWorkflowStatus {
    let status = workflow.status.clone().unwrap_or_default();
    if is_current(workflow, &status) {
        return status;
    }
    MamlWorkflowStatus {
        observed_generation: workflow.metadata.generation,
        observed_rerun: rerun(workflow).map(ToOwned::to_owned),
        conditions: workflow_status::carried_over(status.conditions),
        ..MamlWorkflowStatus::default()
    }
}

fn cancel_requested(workflow: &MamlWorkflow) -> bool {
    let annotations = workflow.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(api::names::CANCEL_ANNOTATION)).is_some_and(|value| value == "true")
}

/// The name of the current run's receipt.
pub fn receipt_name(workflow: &MamlWorkflow) -> String {
    run_key(workflow).receipt_name(workflow.metadata.name.as_deref().unwrap_or_default())
}
