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
    demand::avoided_for,
    document::{Accepted, Refusal, Submission, accept, read},
    queue::waited,
    run::{Ending, rerun, run_key},
    sealed::SealedInputs,
    specification::{self, Files},
    workflow_status::{self, Wait},
};

/// How long a run may wait without its status saying so: writes for waits that are over in a moment would only slow
/// a full queue down.
const QUIET_WAIT: Duration = Duration::from_millis(1500);
/// How long a run may be under way without its status saying so: most are over by then, and are told of once.
pub const QUIET_RUN: Duration = Duration::from_secs(1);
/// In a queue for busy heads, about one of those that wait says so in this time: telling a queue of a thousand all at once
/// would take the API server from the runs that end it.
const BETWEEN_TELLINGS: Duration = Duration::from_millis(200);
/// When a run is looked at again that waits for something whose coming may be missed.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// When a run is looked at again that is woken by what it waits for: a place, or a change of its spec.
const WOKEN: Duration = Duration::from_secs(300);

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
    /// What lies beside the document: the other texts of its ConfigMap.
    pub beside: Files,
    /// The sealed inputs, opened for this document; none as long as nothing is to be started.
    pub sealed: SealedInputs,
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
    Wait {
        /// Why.
        wait: Wait,
        /// The status so far.
        status: Box<MamlWorkflowStatus>,
        /// When to look again.
        again: Duration,
    },
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
    /// Show the status of a run that has been under way for a while.
    Show(Box<MamlWorkflowStatus>),
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
    /// Its specifications from beside it.
    pub specifications: specification::Found,
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
        document: Box<maml::Document>,
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
        return if matches!(observed.run, RunState::Running(_)) {
            Plan::Cancel
        } else {
            Plan::Rest
        };
    }
    if is_current(workflow, &observed.status) && is_true(&observed.status.conditions, COMPLETE) {
        return plan_expiry(workflow, &observed.status, observed.now);
    }
    match &observed.run {
        RunState::Running(_) if cancel_requested(workflow) => Plan::Cancel,
        RunState::Running(_) => plan_running(observed),
        RunState::Concluded => Plan::Rest,
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
    let claimed = observed
        .status
        .head
        .as_ref()
        .filter(|_| is_current(observed.workflow, &observed.status));
    match (claimed, observed.status.attempt) {
        (Some(head), Some(attempt)) if observed.claimed_head_known => Plan::Rejoin {
            attempt,
            pod_uid: head.uid.clone(),
        },
        _ if observed.receipt_exists => Plan::Recover,
        (Some(head), Some(attempt)) => {
            let message = format!("pod {} is gone", head.pod);
            plan_retry(
                observed,
                &Loss {
                    attempt,
                    reason: reasons::HEAD_LOST,
                    message,
                },
            )
        }
        _ => plan_start(observed),
    }
}

/// A run is under way: its status says so once it has been for long enough to be looked at.
fn plan_running(observed: Observed<'_>) -> Plan {
    let shown = observed.workflow.status.as_ref();
    let is_shown = |shown: &MamlWorkflowStatus| {
        (&shown.run_id, &shown.head) == (&observed.status.run_id, &observed.status.head)
    };
    let Some(since) = observed.status.scheduled_at else {
        return Plan::Rest;
    };
    if shown.is_some_and(is_shown) {
        return Plan::Rest;
    }
    match QUIET_RUN.checked_sub(waited(since, observed.now)) {
        Some(left) if !left.is_zero() => Plan::RestFor(left),
        _ => Plan::Show(Box::new(observed.status)),
    }
}

fn plan_conclusion(observed: Observed<'_>) -> Plan {
    let RunState::Ended { attempt, ending } = observed.run else {
        return Plan::Rest;
    };
    if let Err(message) = observed.signer {
        return show(Wait::to_be_signed(message), observed.status, LOOK_AGAIN);
    }
    // What ran is what the head was started with, whatever the ConfigMap says by now.
    let act_as = observed.workflow.spec.act_as.as_deref();
    let source = ending.document.clone();
    let outcome = match read(&source, act_as) {
        Ok(document) => Outcome::Answered {
            ending,
            document: Box::new(document),
        },
        Err(refusal) => Outcome::Failed {
            reason: reasons::ATTESTATION_INVALID,
            message: format!(
                "the head ran a document that is not acceptable: {}",
                refusal.message
            ),
        },
    };
    Plan::Conclude(Box::new(Conclusion {
        attempt,
        source,
        status: observed.status,
        outcome,
    }))
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
        let surplus = status
            .attempts
            .len()
            .saturating_sub(api::maml_workflow::ATTEMPTS_LIMIT);
        status.attempts.drain(..surplus);
    }
    status.attempt = Some(loss.attempt);
    status.head = None;
    if cancel_requested(observed.workflow) {
        return fail(observed, reasons::CANCELLED, "the run was cancelled".to_owned());
    }
    if loss.attempt > observed.workflow.spec.infrastructure_retries {
        let message = format!(
            "attempt {} was the last one allowed: {}",
            loss.attempt, loss.message
        );
        let reason = if observed.workflow.spec.infrastructure_retries == 0 {
            loss.reason
        } else {
            reasons::RETRIES_EXHAUSTED
        };
        return fail(observed, reason, message);
    }
    plan_start(observed)
}

fn show(wait: Wait, status: MamlWorkflowStatus, again: Duration) -> Plan {
    Plan::Wait {
        wait,
        status: Box::new(status),
        again,
    }
}

/// No attempt is under way: start one, wait, or refuse.
fn plan_start(observed: Observed<'_>) -> Plan {
    let spec = &observed.workflow.spec;
    if cancel_requested(observed.workflow) {
        return fail(
            observed,
            reasons::CANCELLED,
            "the run was cancelled before it started".to_owned(),
        );
    }
    if spec.suspend {
        return show(Wait::suspended(), observed.status, WOKEN);
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
        return deadline(
            Observed {
                source: Source::Found(source),
                signer: Ok(()),
                ..observed
            },
            wait,
        );
    }
    let sealed = match observed.sealed {
        SealedInputs::Locked(message) => {
            let wait = Wait::for_opener(message);
            return deadline(
                Observed {
                    source: Source::Found(source),
                    sealed: SealedInputs::None,
                    ..observed
                },
                wait,
            );
        }
        SealedInputs::Refused(message) => Err(Refusal::plain(reasons::SEALED_INPUTS_REFUSED, message)),
        SealedInputs::Opened(opened) => Ok(Some(opened)),
        SealedInputs::None => Ok(None),
    };
    let status = observed.status;
    let attempt = status
        .attempt
        .filter(|_| is_current(observed.workflow, &status))
        .unwrap_or(0)
        + 1;
    let accepted = sealed.and_then(|sealed| {
        let accepted = accept(&Submission {
            document: &source,
            inputs: &spec.inputs,
            sealed: sealed.as_ref(),
            act_as: spec.act_as.as_deref(),
        })?;
        let found = specification::find(&accepted.document, &observed.beside)?;
        Ok((accepted, found))
    });
    match accepted {
        Ok((accepted, specifications)) => Plan::Start(Box::new(Start {
            attempt,
            source,
            accepted,
            specifications,
            status,
        })),
        Err(refusal) => Plan::Conclude(Box::new(Conclusion {
            attempt: attempt - 1,
            source,
            status,
            outcome: Outcome::Refused(refusal),
        })),
    }
}

/// What to do when no head could be reserved: wait with the `waiting` runs of the namespace, or give up at the pending
/// deadline.
pub fn plan_without_head(
    workflow: &MamlWorkflow,
    start: Start,
    wait: Wait,
    waiting: usize,
    now: Timestamp,
) -> Plan {
    let waited = pending_for(workflow, &start.status, now);
    let left = pending_left(workflow, waited);
    if left.is_some_and(|left| left.is_zero()) {
        let message = format!("no head within {} s: {}", waited.as_secs(), wait.message);
        let outcome = Outcome::Failed {
            reason: reasons::PENDING_DEADLINE_EXCEEDED,
            message,
        };
        let (attempt, source, status) = (start.attempt - 1, start.source, start.status);
        return Plan::Conclude(Box::new(Conclusion {
            attempt,
            source,
            status,
            outcome,
        }));
    }
    let quiet = quiet_wait(workflow, &wait, waiting).saturating_sub(waited);
    // Only of a first run is it known how long it has waited before anything was written.
    let unwritten = is_first_run(workflow) && workflow_status::says_nothing_yet(&start.status);
    if unwritten && !quiet.is_zero() {
        return Plan::RestFor(left.map_or(quiet, |left| left.min(quiet)));
    }
    let again = if wait.is_told() { WOKEN } else { LOOK_AGAIN };
    // Nothing tells when the pods of lost attempts are to be tried again.
    let again = avoided_for(&start.status.attempts, now).map_or(again, |avoided| avoided.min(again));
    show(wait, start.status, left.map_or(again, |left| left.min(again)))
}

/// How long this run may wait before its status says so. Where a queue gets shorter by itself, its runs are told one by
/// one, in an order that only their UIDs decide.
fn quiet_wait(workflow: &MamlWorkflow, wait: &Wait, waiting: usize) -> Duration {
    if !matches!(wait.reason, reasons::HEADS_BUSY | reasons::HEADS_NOT_READY) {
        return QUIET_WAIT;
    }
    let all = BETWEEN_TELLINGS.saturating_mul(u32::try_from(waiting).unwrap_or(u32::MAX));
    QUIET_WAIT + all.mul_f64(share(workflow.metadata.uid.as_deref().unwrap_or_default()))
}

/// A number from 0 to 1 that is the same for the same text and evenly spread over random UUIDs (RFC 9562).
fn share(uid: &str) -> f64 {
    let first = uid.get(..8).and_then(|first| u32::from_str_radix(first, 16).ok());
    f64::from(first.unwrap_or(0)) / f64::from(u32::MAX)
}

fn deadline(observed: Observed<'_>, wait: Wait) -> Plan {
    let waited = pending_for(observed.workflow, &observed.status, observed.now);
    match pending_left(observed.workflow, waited) {
        Some(left) if left.is_zero() => {
            let message = format!("not started within {} s: {}", waited.as_secs(), wait.message);
            fail(observed, reasons::PENDING_DEADLINE_EXCEEDED, message)
        }
        Some(left) => show(wait, observed.status, left.min(LOOK_AGAIN)),
        None => show(wait, observed.status, LOOK_AGAIN),
    }
}

fn pending_left(workflow: &MamlWorkflow, waited: Duration) -> Option<Duration> {
    let limit = u64::try_from(workflow.spec.pending_deadline_seconds?).ok()?;
    Some(Duration::from_secs(limit).saturating_sub(waited))
}

/// Whether the workflow was neither changed nor run again since it was created.
pub fn is_first_run(workflow: &MamlWorkflow) -> bool {
    workflow.metadata.generation.unwrap_or(1) <= 1 && rerun(workflow).is_none()
}

/// Since when the current run has been pending: since the workflow was created or changed, or its last attempt was lost.
pub fn pending_since(workflow: &MamlWorkflow, status: &MamlWorkflowStatus, now: Timestamp) -> Timestamp {
    let begun = if is_first_run(workflow) {
        workflow.metadata.creation_timestamp.as_ref().map(|time| time.0)
    } else {
        // Of a later run only the status tells when it was first seen.
        find(&status.conditions, SCHEDULED).map(|condition| condition.last_transition_time)
    };
    let begun = begun.unwrap_or(now);
    status.attempts.last().map_or(begun, |lost| lost.time.max(begun))
}

fn pending_for(workflow: &MamlWorkflow, status: &MamlWorkflowStatus, now: Timestamp) -> Duration {
    waited(pending_since(workflow, status, now), now)
}

fn fail(observed: Observed<'_>, reason: &'static str, message: String) -> Plan {
    if let Err(why) = observed.signer {
        return show(Wait::to_be_signed(why), observed.status, LOOK_AGAIN);
    }
    let source = match observed.source {
        Source::Found(source) => source,
        Source::Missing(_) => Vec::new(),
    };
    let attempt = observed
        .status
        .attempt
        .filter(|_| is_current(observed.workflow, &observed.status))
        .unwrap_or(0);
    let outcome = Outcome::Failed { reason, message };
    Plan::Conclude(Box::new(Conclusion {
        attempt,
        source,
        status: observed.status,
        outcome,
    }))
}

fn plan_expiry(workflow: &MamlWorkflow, status: &MamlWorkflowStatus, now: Timestamp) -> Plan {
    let Some(ttl) = workflow
        .spec
        .ttl_seconds_after_finished
        .and_then(|seconds| u64::try_from(seconds).ok())
    else {
        return Plan::Rest;
    };
    let Some(finished) = status.finished_at else {
        return Plan::Rest;
    };
    let age = Duration::try_from(now.duration_since(finished)).unwrap_or_default();
    match Duration::from_secs(ttl).checked_sub(age) {
        Some(left) if !left.is_zero() => Plan::RestFor(left),
        _ => Plan::Expire,
    }
}

/// Whether the status speaks of the workflow's current run.
pub fn is_current(workflow: &MamlWorkflow, status: &MamlWorkflowStatus) -> bool {
    status.observed_generation == workflow.metadata.generation
        && status.observed_rerun.as_deref() == rerun(workflow)
}

/// The status on which the current run builds: its own, or a fresh one, of which nothing is true yet.
pub fn current_status(workflow: &MamlWorkflow) -> MamlWorkflowStatus {
    if let Some(status) = workflow
        .status
        .as_ref()
        .filter(|status| is_current(workflow, status))
    {
        return status.clone();
    }
    MamlWorkflowStatus {
        observed_generation: workflow.metadata.generation,
        observed_rerun: rerun(workflow).map(ToOwned::to_owned),
        ..MamlWorkflowStatus::default()
    }
}

fn cancel_requested(workflow: &MamlWorkflow) -> bool {
    let annotations = workflow.metadata.annotations.as_ref();
    annotations
        .and_then(|all| all.get(api::names::CANCEL_ANNOTATION))
        .is_some_and(|value| value == "true")
}

/// The name of the current run's receipt.
pub fn receipt_name(workflow: &MamlWorkflow) -> String {
    run_key(workflow).receipt_name(workflow.metadata.name.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claim::Claim;
    use api::{
        condition::READY,
        maml_workflow::{AssignedHead, ConfigMapKeyRef},
    };
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    const DOCUMENT: &str = "---\nmaml_version: \"2.0.0\"\nid: urn:uuid:3f2b6c1e-6a63-4f0e-9d0a-0d8a2f1c7b11\n\
        type: workflow\norigin: agent://tests\npermissions:\n  read: [\"agent://*\"]\n  write: [\"agent://tests\"]\n  \
        execute: [\"agent://*\"]\ncreated_at: 2026-01-01T00:00:00Z\n---\n## Intent\n\nAdd.\n\n## Context\n\nNone.\n\n\
        ## Code_Blocks\n\n```python\nx = 1\n```\n";

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }

    fn workflow() -> MamlWorkflow {
        let mut workflow = MamlWorkflow::new("w", api::MamlWorkflowSpec::default());
        workflow.metadata.uid = Some("u".into());
        workflow.metadata.namespace = Some("team".into());
        workflow.metadata.generation = Some(1);
        workflow.metadata.creation_timestamp = Some(Time(at(100)));
        workflow
    }

    fn annotate(workflow: &mut MamlWorkflow, name: &str, value: &str) {
        workflow
            .metadata
            .annotations
            .get_or_insert_default()
            .insert(name.into(), value.into());
    }

    /// Observed: a new workflow whose document is found, with a key that can sign.
    fn observed(workflow: &MamlWorkflow) -> Observed<'_> {
        Observed {
            workflow,
            status: current_status(workflow),
            source: Source::Found(DOCUMENT.as_bytes().to_vec()),
            beside: Files::new(),
            sealed: SealedInputs::None,
            run: RunState::Unknown,
            receipt_exists: false,
            claimed_head_known: false,
            signer: Ok(()),
            now: at(101),
        }
    }

    fn claimed_status(workflow: &MamlWorkflow, attempt: i32) -> MamlWorkflowStatus {
        let head = AssignedHead {
            name: "h".into(),
            pod: "h-0-0".into(),
            uid: "pod".into(),
            ..AssignedHead::default()
        };
        let claim = Claim {
            run_id: "id".into(),
            attempt,
            head,
            document: api::DigestSet::default(),
            inputs: api::DigestSet::default(),
            time: at(101),
        };
        workflow_status::claimed(current_status(workflow), &claim)
    }

    fn complete(workflow: &MamlWorkflow) -> MamlWorkflowStatus {
        let receipt = api::maml_workflow::ReceiptRef {
            name: "r".into(),
            uid: "ru".into(),
        };
        workflow_status::concluded(claimed_status(workflow, 1), receipt, None, None, at(102))
    }

    fn loss(attempt: i32) -> Loss {
        Loss {
            attempt,
            reason: reasons::HEAD_LOST,
            message: "gone".into(),
        }
    }

    #[test]
    fn a_new_workflow_is_started_at_attempt_one() {
        let workflow = workflow();
        let Plan::Start(start) = plan(observed(&workflow)) else {
            panic!("not started")
        };
        assert_eq!(start.attempt, 1);
    }

    #[test]
    fn a_run_is_shown_once_when_it_has_been_under_way_for_a_while() {
        let mut workflow = workflow();
        let claimed = claimed_status(&workflow, 1);
        let running = |workflow: &MamlWorkflow, millis: i64| {
            plan(Observed {
                status: claimed.clone(),
                run: RunState::Running(1),
                now: at(101) + jiff::SignedDuration::from_millis(millis),
                ..observed(workflow)
            })
        };
        assert!(matches!(running(&workflow, 100), Plan::RestFor(left) if left == Duration::from_millis(900)));
        let Plan::Show(shown) = running(&workflow, 1000) else {
            panic!("not shown")
        };
        assert_eq!(*shown, claimed);
        workflow.status = Some(*shown);
        assert!(matches!(running(&workflow, 1100), Plan::Rest));
    }

    #[test]
    fn a_refused_document_is_concluded_without_an_attempt() {
        let workflow = workflow();
        let source = Source::Found(b"no front matter".to_vec());
        let Plan::Conclude(over) = plan(Observed {
            source,
            ..observed(&workflow)
        }) else {
            panic!("not concluded")
        };
        assert!(matches!(over.outcome, Outcome::Refused(_)));
        assert_eq!(over.attempt, 0);
    }

    #[test]
    fn what_is_missing_is_waited_for_and_said() {
        let mut suspended = workflow();
        suspended.spec.suspend = true;
        let mut from_map = workflow();
        from_map.spec.source.config_map_ref = Some(ConfigMapKeyRef {
            name: "m".into(),
            key: "k".into(),
        });
        let plain = workflow();
        let cases = [
            (observed(&suspended), reasons::SUSPENDED),
            (
                Observed {
                    source: Source::Missing("no map".into()),
                    ..observed(&from_map)
                },
                reasons::SOURCE_NOT_FOUND,
            ),
            (
                Observed {
                    signer: Err("no key".into()),
                    ..observed(&plain)
                },
                reasons::SIGNING_KEY_UNAVAILABLE,
            ),
        ];
        for (observed, reason) in cases {
            let Plan::Wait { wait, .. } = plan(observed) else {
                panic!("does not wait: {reason}")
            };
            assert_eq!(wait.reason, reason);
        }
    }

    #[test]
    fn sealed_inputs_without_a_key_are_waited_for_and_those_of_another_run_refused() {
        let workflow = workflow();
        let locked = plan(Observed {
            sealed: SealedInputs::Locked("no key".into()),
            ..observed(&workflow)
        });
        let Plan::Wait { wait, .. } = locked else {
            panic!("does not wait")
        };
        assert_eq!(wait.reason, reasons::SEALING_KEY_UNAVAILABLE);
        let refused = plan(Observed {
            sealed: SealedInputs::Refused("of another".into()),
            ..observed(&workflow)
        });
        let Plan::Conclude(over) = refused else {
            panic!("not concluded")
        };
        assert!(
            matches!(over.outcome, Outcome::Refused(refusal) if refusal.reason == reasons::SEALED_INPUTS_REFUSED)
        );
    }

    #[test]
    fn a_wait_past_the_pending_deadline_ends_the_run() {
        let mut workflow = workflow();
        workflow.spec.pending_deadline_seconds = Some(10);
        let source = || Source::Missing("no map".into());
        let early = plan(Observed {
            source: source(),
            now: at(109),
            ..observed(&workflow)
        });
        assert!(matches!(early, Plan::Wait { again, .. } if again == Duration::from_secs(1)));
        let late = plan(Observed {
            source: source(),
            now: at(110),
            ..observed(&workflow)
        });
        let Plan::Conclude(over) = late else {
            panic!("not concluded")
        };
        assert!(matches!(
            over.outcome,
            Outcome::Failed {
                reason: reasons::PENDING_DEADLINE_EXCEEDED,
                ..
            }
        ));
    }

    #[test]
    fn a_wait_for_a_head_ends_at_the_deadline_and_is_looked_at_again_no_sooner() {
        let mut workflow = workflow();
        workflow.spec.pending_deadline_seconds = Some(60);
        let wait = || Wait::for_head(reasons::NO_HEAD, "none".into());
        let at_time = |now| match plan(observed(&workflow)) {
            Plan::Start(start) => plan_without_head(&workflow, *start, wait(), 1, at(now)),
            other => panic!("not started: {other:?}"),
        };
        assert!(matches!(at_time(102), Plan::Wait { again, .. } if again == Duration::from_secs(58)));
        assert!(matches!(at_time(159), Plan::Wait { again, .. } if again == Duration::from_secs(1)));
        let Plan::Conclude(over) = at_time(160) else {
            panic!("not concluded")
        };
        assert!(
            matches!(&over.outcome, Outcome::Failed { reason: reasons::PENDING_DEADLINE_EXCEEDED, message } if message == "no head within 60 s: none")
        );
    }

    #[test]
    fn the_deadline_of_a_run_that_was_suspended_counts_from_when_it_was_not() {
        let mut workflow = workflow();
        workflow.spec.pending_deadline_seconds = Some(60);
        workflow.spec.suspend = true;
        let Plan::Wait { wait, status, .. } = plan(Observed {
            now: at(9_000),
            ..observed(&workflow)
        }) else {
            panic!("does not wait")
        };
        workflow.status = Some(workflow_status::waiting(*status, &wait, at(9_000)));
        // Whoever sets it to false makes a new generation.
        (workflow.spec.suspend, workflow.metadata.generation) = (false, Some(2));
        let wait = || Wait::for_head(reasons::HEADS_BUSY, "busy".into());
        let next = |workflow: &MamlWorkflow, now| match plan(observed(workflow)) {
            Plan::Start(start) => plan_without_head(workflow, *start, wait(), 1, at(now)),
            other => panic!("not started: {other:?}"),
        };
        let Plan::Wait { status, again, .. } = next(&workflow, 10_000) else {
            panic!("does not wait")
        };
        assert_eq!(again, Duration::from_secs(60));
        // Another process finds in the status since when it waits.
        workflow.status = Some(workflow_status::waiting(*status, &wait(), at(10_000)));
        assert!(
            matches!(next(&workflow, 10_059), Plan::Wait { again, .. } if again == Duration::from_secs(1))
        );
        assert!(matches!(next(&workflow, 10_060), Plan::Conclude(_)));
    }

    #[test]
    fn another_run_of_an_old_workflow_has_waited_since_it_was_first_seen() {
        let mut workflow = workflow();
        let since =
            |workflow: &MamlWorkflow, now| pending_since(workflow, &current_status(workflow), at(now));
        assert_eq!(
            since(&workflow, 9_000),
            at(100),
            "the first run, since its creation"
        );
        let done = complete(&workflow);
        for change in ["rerun", "edited"] {
            workflow.status = Some(done.clone());
            match change {
                "rerun" => annotate(&mut workflow, api::names::RERUN_ANNOTATION, "1"),
                _ => workflow.metadata.generation = Some(2),
            }
            assert_eq!(since(&workflow, 9_000), at(9_000), "{change}");
            let wait = Wait::for_head(reasons::HEADS_BUSY, "busy".into());
            workflow.status = Some(workflow_status::waiting(
                current_status(&workflow),
                &wait,
                at(9_000),
            ));
            assert_eq!(since(&workflow, 9_700), at(9_000), "{change}: kept in the status");
        }
    }

    #[test]
    fn a_raised_priority_before_the_start_leaves_one_run_and_one_receipt() {
        let mut workflow = workflow();
        let Plan::Start(first) = plan(observed(&workflow)) else {
            panic!("not started")
        };
        let wait = Wait::for_head(reasons::HEADS_BUSY, "busy".into());
        workflow.status = Some(workflow_status::waiting(first.status, &wait, at(103)));
        (workflow.spec.priority, workflow.metadata.generation) = (5, Some(2));
        let Plan::Start(second) = plan(observed(&workflow)) else {
            panic!("not started")
        };
        assert_eq!(
            (second.attempt, second.status.attempts.len()),
            (1, 0),
            "nothing was lost or begun"
        );
    }

    #[test]
    fn a_complete_run_rests_until_its_time_to_live_is_over() {
        let mut workflow = workflow();
        workflow.status = Some(complete(&workflow));
        assert!(matches!(plan(observed(&workflow)), Plan::Rest));
        workflow.spec.ttl_seconds_after_finished = Some(10);
        let early = plan(Observed {
            now: at(105),
            ..observed(&workflow)
        });
        assert!(matches!(early, Plan::RestFor(left) if left == Duration::from_secs(7)));
        assert!(matches!(
            plan(Observed {
                now: at(112),
                ..observed(&workflow)
            }),
            Plan::Expire
        ));
    }

    #[test]
    fn a_new_generation_or_rerun_annotation_is_a_new_run() {
        let mut finished = workflow();
        finished.status = Some(complete(&finished));
        let mut changed = finished.clone();
        changed.metadata.generation = Some(2);
        let mut again = finished.clone();
        annotate(&mut again, api::names::RERUN_ANNOTATION, "1");
        for workflow in [&changed, &again] {
            assert_ne!(receipt_name(workflow), receipt_name(&finished));
            let Plan::Start(start) = plan(observed(workflow)) else {
                panic!("not started again")
            };
            assert_eq!(start.attempt, 1);
            assert!(!is_true(&start.status.conditions, READY));
        }
    }

    #[test]
    fn a_run_that_a_predecessor_started_is_rejoined_while_its_head_is_there() {
        let mut workflow = workflow();
        workflow.status = Some(claimed_status(&workflow, 2));
        let rejoined = plan(Observed {
            claimed_head_known: true,
            ..observed(&workflow)
        });
        assert!(matches!(rejoined, Plan::Rejoin { attempt: 2, pod_uid } if pod_uid == "pod"));
        // Even when the receipt exists: the head still has the outputs.
        let stored = Observed {
            claimed_head_known: true,
            receipt_exists: true,
            ..observed(&workflow)
        };
        assert!(matches!(plan(stored), Plan::Rejoin { .. }));
        assert!(matches!(
            plan(Observed {
                receipt_exists: true,
                ..observed(&workflow)
            }),
            Plan::Recover
        ));
    }

    #[test]
    fn a_lost_attempt_is_recorded_and_followed_by_the_next() {
        let mut workflow = workflow();
        workflow.status = Some(claimed_status(&workflow, 1));
        let lost = Observed {
            run: RunState::Lost(loss(1)),
            ..observed(&workflow)
        };
        let Plan::Start(start) = plan(lost) else {
            panic!("not tried again")
        };
        assert_eq!((start.attempt, start.status.attempts.len()), (2, 1));
        assert_eq!(start.status.attempts[0].pod.as_deref(), Some("h-0-0"));
        assert!(start.status.head.is_none());
        let gone = plan(observed(&workflow));
        assert!(
            matches!(gone, Plan::Start(start) if start.attempt == 2),
            "a head that is gone is a lost attempt"
        );
    }

    #[test]
    fn a_lost_attempt_that_finds_no_head_is_recorded_once() {
        let workflow = workflow();
        let run = || RunState::Lost(loss(1));
        let lost = Observed {
            run: run(),
            status: claimed_status(&workflow, 1),
            ..observed(&workflow)
        };
        let Plan::Start(start) = plan(lost) else {
            panic!("not tried again")
        };
        let wait = || Wait::for_head(reasons::HEADS_NOT_READY, "none".into());
        let Plan::Wait { status, .. } = plan_without_head(&workflow, *start, wait(), 1, at(102)) else {
            panic!("does not wait")
        };
        let shown = workflow_status::waiting(*status, &wait(), at(102));
        assert_eq!(shown.attempts.len(), 1);
        let later = Observed {
            run: run(),
            status: shown.clone(),
            now: at(107),
            ..observed(&workflow)
        };
        let Plan::Start(start) = plan(later) else {
            panic!("not tried again")
        };
        assert_eq!(start.attempt, 2);
        let Plan::Wait { status, .. } = plan_without_head(&workflow, *start, wait(), 1, at(107)) else {
            panic!("does not wait")
        };
        assert_eq!(
            workflow_status::waiting(*status, &wait(), at(107)),
            shown,
            "nothing to write"
        );
    }

    #[test]
    fn attempts_end_with_the_allowed_retries() {
        let mut workflow = workflow();
        workflow.spec.infrastructure_retries = 1;
        workflow.status = Some(claimed_status(&workflow, 2));
        let lost = Observed {
            run: RunState::Lost(loss(2)),
            ..observed(&workflow)
        };
        let Plan::Conclude(over) = plan(lost) else {
            panic!("not concluded")
        };
        assert!(matches!(
            over.outcome,
            Outcome::Failed {
                reason: reasons::RETRIES_EXHAUSTED,
                ..
            }
        ));
        assert_eq!(over.attempt, 2);
    }

    #[test]
    fn a_cancelled_run_is_stopped_and_one_that_has_not_started_ends() {
        let mut workflow = workflow();
        annotate(&mut workflow, api::names::CANCEL_ANNOTATION, "true");
        assert!(matches!(
            plan(Observed {
                run: RunState::Running(1),
                ..observed(&workflow)
            }),
            Plan::Cancel
        ));
        let Plan::Conclude(over) = plan(observed(&workflow)) else {
            panic!("not concluded")
        };
        assert!(matches!(
            over.outcome,
            Outcome::Failed {
                reason: reasons::CANCELLED,
                ..
            }
        ));
    }

    #[test]
    fn nothing_is_signed_while_there_is_no_key() {
        let workflow = workflow();
        let ending = Ending {
            grant: Vec::new(),
            document: DOCUMENT.as_bytes().to_vec(),
            inputs: crate::inputs::Inputs::plain(b"{}".to_vec()),
            attestation: Vec::new(),
            outputs: Vec::new(),
        };
        let run = || RunState::Ended {
            attempt: 1,
            ending: Box::new(ending.clone()),
        };
        let without = plan(Observed {
            run: run(),
            status: claimed_status(&workflow, 1),
            signer: Err("no key".into()),
            ..observed(&workflow)
        });
        let Plan::Wait { wait, status, .. } = without else {
            panic!("does not wait")
        };
        assert_eq!(wait.reason, reasons::SIGNING_KEY_UNAVAILABLE);
        // It was scheduled, and stays so.
        let shown = workflow_status::waiting(*status, &wait, at(103));
        assert!(api::condition::is_true(
            &shown.conditions,
            api::condition::SCHEDULED
        ));
        assert!(matches!(
            plan(Observed {
                run: run(),
                ..observed(&workflow)
            }),
            Plan::Conclude(_)
        ));
    }

    #[test]
    fn a_short_wait_for_a_head_is_not_written() {
        let workflow = workflow();
        let wait = || Wait::for_head(reasons::HEADS_BUSY, "busy".into());
        let start = || match plan(observed(&workflow)) {
            Plan::Start(start) => *start,
            other => panic!("not started: {other:?}"),
        };
        assert!(matches!(
            plan_without_head(&workflow, start(), wait(), 1, at(101)),
            Plan::RestFor(_)
        ));
        assert!(matches!(
            plan_without_head(&workflow, start(), wait(), 1, at(103)),
            Plan::Wait { .. }
        ));
        // Nor is it where the run is given up in time.
        let mut soon = workflow.clone();
        soon.spec.pending_deadline_seconds = Some(2);
        assert!(matches!(
            plan_without_head(&soon, start(), wait(), 1, at(101)),
            Plan::RestFor(quiet) if quiet < Duration::from_secs(1)
        ));
        // Of a later run nothing tells since when it waits, until it is written.
        let mut later = workflow.clone();
        later.metadata.generation = Some(2);
        assert!(matches!(
            plan_without_head(&later, start(), wait(), 1, at(103)),
            Plan::Wait { .. }
        ));
    }

    #[test]
    fn a_long_queue_for_busy_heads_is_told_run_by_run() {
        let told = |reason: &'static str, uid: &str, second| {
            let mut workflow = workflow();
            workflow.metadata.uid = Some(uid.to_owned());
            let Plan::Start(start) = plan(observed(&workflow)) else {
                panic!("not started")
            };
            let wait = Wait::for_head(reason, "none".into());
            let plan = plan_without_head(&workflow, *start, wait, 1000, at(second));
            matches!(plan, Plan::Wait { .. })
        };
        let uids = (0..100_u32).map(|index| format!("{:08x}-0000", index * 0x028f_5c28));
        let after = |seconds: i64| {
            uids.clone()
                .filter(|uid| told(reasons::HEADS_BUSY, uid, 100 + seconds))
                .count()
        };
        assert_eq!((after(1), after(2)), (0, 1));
        assert!((45..55).contains(&after(101)), "{}", after(101));
        assert_eq!(after(202), 100);
        // What only somebody else can end is said at once.
        assert!(told(reasons::NO_HEAD, "ffffffff-0000", 102));
    }
}
