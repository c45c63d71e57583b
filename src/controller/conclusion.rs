//! The end of a run: judged, signed, stored, shown.

use std::time::Duration;

use api::{MamlWorkflow, MamlWorkflowStatus, MuReceipt, maml_workflow::ReceiptRef, reasons};
use controller_core::{
    inputs::Inputs,
    mirror::mirrored,
    queue::waited,
    receipt::{Finished, OPERATOR, Signatory, build_claim, build_receipt, failure, refusal_failure},
    run::{self, run_key},
    suspicion::Ended,
    workflow_plan::{Conclusion, Loss, Outcome, is_first_run, receipt_name},
    workflow_status,
};
use crypto::{DigestSet, attestation::RunError, trust::TrustedKeys};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Api, ResourceExt as _, runtime::controller::Action};

use crate::{
    apply::{apply_status, create},
    client::{CallError, call},
    clock,
    context::Scope,
    keys::keyring::Signer,
    workflow::{RESYNC, SOON, WorkflowError, created, known_status, policy},
};

/// Judges the outcome, signs and stores the receipt, then writes the status.
pub async fn conclude(
    scope: &Scope,
    workflow: &MamlWorkflow,
    over: Conclusion,
) -> Result<Action, WorkflowError> {
    let context = &scope.context;
    let uid = workflow.uid().unwrap_or_default();
    let (Ok(signer), Some(trust)) = (
        context.keyring.signer(&policy(workflow, scope)),
        context.keyring.trust(),
    ) else {
        return Ok(Action::requeue(SOON));
    };
    let judged = match judge(workflow, &over, &trust.keys) {
        Ok(judged) => {
            let failure = judged.failure.as_ref();
            note_ended(
                scope,
                workflow,
                &over,
                failure.map(|failure| failure.reason.as_str()),
            );
            judged
        }
        Err(loss) => {
            note_ended(scope, workflow, &over, Some(loss.reason));
            context
                .metrics
                .attempts_lost
                .with_label_values(&[loss.reason])
                .inc();
            context
                .events
                .warning(workflow, loss.reason, loss.message.clone());
            context.runs.lose(&uid, loss);
            return Ok(Action::requeue(Duration::ZERO));
        }
    };
    let finished = Finished {
        workflow,
        attempt: over.attempt,
        document: &over.source,
        inputs: &judged.inputs,
        record: judged.record.as_ref(),
        failure: judged.failure.as_ref(),
    };
    let now = clock::now();
    let reference = match store_receipt(scope, &finished, &signer, &trust.keys, now).await? {
        Stored::Ours(reference) => reference,
        Stored::Earlier => return recover(scope, workflow).await,
        Stored::Foreign(message) => {
            context
                .events
                .warning(workflow, reasons::RECEIPT_CONFLICT, message);
            return Ok(Action::requeue(RESYNC));
        }
    };
    let mut status = over.status;
    if let Some(record) = &judged.record {
        status = workflow_status::with_record(status, record);
    }
    let refusal = match &over.outcome {
        Outcome::Refused(refusal) => Some(refusal),
        _ => None,
    };
    status.run_id = Some(run_key(workflow).run_id(over.attempt));
    if status.document_digest.is_none() {
        status.document_digest = Some(workflow_status::shown_digest(&DigestSet::of(&over.source)));
    }
    let receipt = reference.name.clone();
    let status = workflow_status::concluded(status, reference, judged.failure.as_ref(), refusal, now);
    write_conclusion(scope, workflow, status).await?;
    announce(scope, workflow, &judged, &receipt, now);
    Ok(Action::requeue(SOON))
}

/// Notes how the document ended on its pod. A pod on which too many end alike is replaced.
fn note_ended(scope: &Scope, workflow: &MamlWorkflow, over: &Conclusion, failure: Option<&str>) {
    let (Outcome::Answered { .. }, Some(head)) = (&over.outcome, &over.status.head) else {
        return;
    };
    let digest = over.status.document_digest.as_ref();
    scope.context.fleet.note_ended(Ended {
        pod_uid: head.uid.clone(),
        run: receipt_name(workflow),
        document: digest.map_or_else(
            || DigestSet::of(&over.source).sha256,
            |digest| digest.sha256.clone(),
        ),
        failure: failure.map(workflow_status::reason_constant),
    });
}

async fn write_conclusion(
    scope: &Scope,
    workflow: &MamlWorkflow,
    status: MamlWorkflowStatus,
) -> Result<(), CallError> {
    match apply_status(&scope.context.client, workflow, &status, None).await {
        // Deleted meanwhile: the receipt is there, and that is all that is left to be said.
        Err(error) if error.is_not_found() || error.is_conflict() => {}
        other => {
            other?;
        }
    }
    let uid = workflow.uid().unwrap_or_default();
    scope.context.claims.settle(&uid);
    scope.context.fleet.stop_waiting(&uid);
    scope
        .context
        .runs
        .concluded(&uid, &receipt_name(workflow), status);
    Ok(())
}

/// An outcome with everything that the receipt needs.
struct Judged {
    record: Option<run::Record>,
    failure: Option<RunError>,
    inputs: Inputs,
}

fn judge(workflow: &MamlWorkflow, over: &Conclusion, trusted: &TrustedKeys) -> Result<Judged, Loss> {
    let raw_inputs = || Inputs::plain(serde_json::to_vec(&workflow.spec.inputs).unwrap_or_default());
    match &over.outcome {
        Outcome::Answered { ending, document } => {
            match run::judge(ending, workflow, over.attempt, trusted, document) {
                Ok(record) => {
                    let failure = record.failure.clone();
                    Ok(Judged {
                        record: Some(record),
                        failure,
                        inputs: ending.inputs.clone(),
                    })
                }
                Err(disbelief) => {
                    tracing::warn!(
                        error = &disbelief as &dyn std::error::Error,
                        "an attempt's answer is not used"
                    );
                    let message = disbelief.to_string();
                    Err(Loss {
                        attempt: over.attempt,
                        reason: disbelief.reason(),
                        message,
                    })
                }
            }
        }
        Outcome::Refused(refusal) => Ok(Judged {
            record: None,
            failure: Some(refusal_failure(refusal)),
            inputs: raw_inputs(),
        }),
        Outcome::Failed { reason, message } => Ok(Judged {
            record: None,
            failure: Some(failure(reason, message)),
            inputs: raw_inputs(),
        }),
    }
}

/// What became of the attempt to store a receipt.
enum Stored {
    /// It is stored, now or by an earlier try of this very attempt.
    Ours(ReceiptRef),
    /// The run has a receipt already, of another attempt: that one counts.
    Earlier,
    /// The name belongs to something else.
    Foreign(String),
}

async fn store_receipt(
    scope: &Scope,
    finished: &Finished<'_>,
    signer: &Signer,
    keys: &TrustedKeys,
    now: jiff::Timestamp,
) -> Result<Stored, WorkflowError> {
    let context = &scope.context;
    let (key, now) = (signer.key(), signer.time(now));
    let key_id = key.verifying_key().key_id();
    let by = Signatory {
        suite: key.suite(),
        key_id: key_id.clone(),
        predecessor: keys.predecessor(key_id).cloned(),
        fencing_token: context.fencing_token,
        builder: OPERATOR,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        now,
    };
    let claim = build_claim(finished, &by);
    let statement = crypto::receipt::statement(&claim)?;
    let envelope = crypto::receipt::sign(&statement, key)?;
    signer.counter.count(envelope.payload().len());
    context.metrics.signatures.with_label_values(&["receipt"]).inc();
    let mu = mirrored(finished.document, &claim, now, |bytes| {
        signer.counter.count(bytes.len());
        key.sign(bytes)
    })?;
    let receipt = build_receipt(finished, &claim, &envelope, mu);
    match create(&context.client, &receipt).await {
        Ok(stored) => Ok(Stored::Ours(reference(&stored.metadata))),
        Err(error) if error.is_conflict() => {
            let api: Api<MuReceipt> = crate::apply::api_of(&context.client, &receipt);
            let stored = call("read the receipt", api.get(&receipt.name_any())).await?;
            let (theirs, ours) = (&stored.spec, &receipt.spec);
            if theirs.run_id == ours.run_id && theirs.workflow_ref == ours.workflow_ref {
                Ok(Stored::Ours(reference(&stored.metadata)))
            } else if theirs.workflow_ref.uid == ours.workflow_ref.uid {
                Ok(Stored::Earlier)
            } else {
                Ok(Stored::Foreign(format!(
                    "receipt {} belongs to another workflow",
                    stored.name_any()
                )))
            }
        }
        Err(error) => Err(error.into()),
    }
}

fn reference(receipt: &ObjectMeta) -> ReceiptRef {
    ReceiptRef {
        name: receipt.name.clone().unwrap_or_default(),
        uid: receipt.uid.clone().unwrap_or_default(),
    }
}

/// Brings the status in line with a receipt that a predecessor stored.
pub async fn recover(scope: &Scope, workflow: &MamlWorkflow) -> Result<Action, WorkflowError> {
    let namespace = workflow.namespace().unwrap_or_default();
    let api: Api<MuReceipt> = Api::namespaced(scope.context.client.clone(), &namespace);
    let Some(receipt) = call("read the receipt", api.get_opt(&receipt_name(workflow))).await? else {
        return Ok(Action::requeue(SOON));
    };
    if Some(&receipt.spec.workflow_ref.uid) != workflow.metadata.uid.as_ref() {
        let message = format!("receipt {} belongs to another workflow", receipt.name_any());
        scope
            .context
            .events
            .warning(workflow, reasons::RECEIPT_CONFLICT, message);
        return Ok(Action::requeue(RESYNC));
    }
    let status = workflow_status::recovered(
        known_status(&scope.context, workflow),
        workflow,
        &receipt,
        clock::now(),
    );
    write_conclusion(scope, workflow, status).await?;
    Ok(Action::requeue(SOON))
}

/// Tells of a concluded run: log, Event, metrics.
fn announce(scope: &Scope, workflow: &MamlWorkflow, judged: &Judged, receipt: &str, now: jiff::Timestamp) {
    let context = &scope.context;
    let result = if judged.failure.is_none() {
        "Success"
    } else {
        "Error"
    };
    let reason = judged.failure.as_ref().map_or(reasons::SUCCEEDED, |failure| {
        workflow_status::reason_constant(&failure.reason)
    });
    context
        .metrics
        .requests
        .with_label_values(&[result, reason])
        .inc();
    if let Some(record) = &judged.record {
        let ran = record
            .attestation
            .finished_at
            .duration_since(record.attestation.started_at);
        context
            .metrics
            .execution_seconds
            .with_label_values(&[result])
            .observe(ran.as_secs_f64());
    }
    // Of a later run it would be the age of the workflow.
    if is_first_run(workflow) {
        let since_created = waited(created(workflow), now);
        context
            .metrics
            .signed_seconds
            .with_label_values(&[result])
            .observe(since_created.as_secs_f64());
    }
    let run_id = record_run_id(workflow, judged);
    tracing::info!(workflow = %workflow.name_any(), run_id, result, reason, receipt, "run concluded");
    match &judged.failure {
        None => context.events.normal(
            workflow,
            reasons::RECEIPT_ISSUED,
            format!("signed as mur/{receipt}"),
        ),
        Some(failure) => context.events.warning(workflow, reason, failure.message.clone()),
    }
}

fn record_run_id(workflow: &MamlWorkflow, judged: &Judged) -> String {
    let attested = judged
        .record
        .as_ref()
        .map(|record| record.attestation.run_id.clone());
    attested.unwrap_or_else(|| run_key(workflow).run_id(0))
}
