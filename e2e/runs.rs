//! Runs: submitting workflows, waiting for what becomes of them, and finding their receipts.

use std::time::Duration;

use api::{
    Condition, ConditionStatus, MamlWorkflow, MamlWorkflowSpec, MamlWorkflowStatus, MuReceipt,
    condition::{ACCEPTED, COMPLETE, READY, SCHEDULED, SIGNED, STALLED, SUCCEEDED, VERIFIED, find, is_true},
    maml_workflow::Source,
    mu_receipt::ReceiptResult,
    names, reasons,
};
use futures::{AsyncBufReadExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt as _,
    api::{ListParams, LogParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{Namespace, wait};

/// A workflow with that document in it.
pub fn workflow(name: &str, document: impl Into<String>) -> MamlWorkflow {
    let source = Source {
        inline: Some(document.into()),
        config_map_ref: None,
    };
    MamlWorkflow::new(
        name,
        MamlWorkflowSpec {
            source,
            ..MamlWorkflowSpec::default()
        },
    )
}

/// The workflow's status; empty before the operator wrote one.
pub fn status(workflow: &MamlWorkflow) -> MamlWorkflowStatus {
    workflow.status.clone().unwrap_or_default()
}

/// Creates a workflow and waits until its run is over and signed.
pub async fn run(space: &Namespace, workflow: MamlWorkflow) -> MamlWorkflow {
    let created = space.create_object(&workflow).await;
    complete(space, &created.name_any()).await
}

/// Waits until the workflow's present run is over and signed.
pub async fn complete(space: &Namespace, name: &str) -> MamlWorkflow {
    wait::until(
        &space.api::<MamlWorkflow>(),
        name,
        "its run is complete",
        |workflow| is_current(workflow) && is_true(&status(workflow).conditions, COMPLETE),
    )
    .await
}

/// The same for a run that waits in a long queue.
pub async fn complete_within(space: &Namespace, name: &str, limit: Duration) -> MamlWorkflow {
    wait::until_within(
        &space.api::<MamlWorkflow>(),
        name,
        "its run is complete",
        limit,
        |workflow| is_current(workflow) && is_true(&status(workflow).conditions, COMPLETE),
    )
    .await
}

/// Waits until a head runs the workflow.
pub async fn running(space: &Namespace, name: &str) -> MamlWorkflow {
    wait::until(&space.api::<MamlWorkflow>(), name, "it runs", |workflow| {
        is_current(workflow) && says(workflow, SCHEDULED, ConditionStatus::True, reasons::HEAD_ASSIGNED)
    })
    .await
}

/// Waits until a condition of the workflow's present run has that reason.
pub async fn says_why(space: &Namespace, name: &str, condition: &str, reason: &str) -> MamlWorkflow {
    wait::until(
        &space.api::<MamlWorkflow>(),
        name,
        &format!("{condition} says {reason}"),
        |workflow| {
            is_current(workflow)
                && find(&status(workflow).conditions, condition).is_some_and(|found| found.reason == reason)
        },
    )
    .await
}

fn says(workflow: &MamlWorkflow, type_: &str, is: ConditionStatus, reason: &str) -> bool {
    find(&status(workflow).conditions, type_)
        .is_some_and(|found| found.status == is && found.reason == reason)
}

/// Whether the status speaks of the present spec and annotations.
fn is_current(workflow: &MamlWorkflow) -> bool {
    let status = status(workflow);
    let rerun = workflow.annotations().get(names::RERUN_ANNOTATION);
    status.observed_generation == workflow.metadata.generation && status.observed_rerun.as_ref() == rerun
}

/// One condition, which must be there.
pub fn condition(workflow: &MamlWorkflow, type_: &str) -> Condition {
    let status = status(workflow);
    let found = find(&status.conditions, type_).cloned();
    found.unwrap_or_else(|| panic!("no condition {type_} in:\n{}", wait::yaml(workflow)))
}

/// Sets an annotation.
pub async fn annotate(space: &Namespace, name: &str, annotation: &str, value: &str) -> MamlWorkflow {
    patch(
        space,
        name,
        json!({"metadata": {"annotations": {annotation: value}}}),
    )
    .await
}

/// Changes a workflow by a merge patch.
pub async fn patch(space: &Namespace, name: &str, change: Value) -> MamlWorkflow {
    let api = space.api::<MamlWorkflow>();
    let patched = api
        .patch(name, &PatchParams::default(), &Patch::Merge(change))
        .await;
    patched.unwrap_or_else(|error| panic!("patch {name}: {error}"))
}

/// The first line of a run's output that begins so, from the log of its pod, as soon as it is there.
pub async fn printed(space: &Namespace, workflow: &MamlWorkflow, beginning: &str) -> String {
    let status = status(workflow);
    let pod = status.head.expect("a head runs it, or ran it").pod;
    let run_id = status.run_id.expect("a run has an id");
    printed_by(space, &pod, &run_id, beginning).await
}

/// The same of a run of which its status need not tell.
pub async fn printed_by(space: &Namespace, pod: &str, run_id: &str, beginning: &str) -> String {
    let params = LogParams {
        follow: true,
        ..LogParams::default()
    };
    let log = space.api::<Pod>().log_stream(pod, &params).await;
    let mut lines = log
        .unwrap_or_else(|error| panic!("the log of {pod}: {error}"))
        .lines();
    let find = async {
        while let Some(line) = lines.try_next().await.expect("the log can be read") {
            let Ok(entry) = serde_json::from_str::<Value>(&line) else {
                continue;
            };
            let text = entry["line"].as_str().unwrap_or_default();
            if entry["runId"] == run_id && text.starts_with(beginning) {
                return text.to_owned();
            }
        }
        panic!("the log of {pod} ended without the line `{beginning}…`");
    };
    let found = timeout(wait::DEADLINE, find).await;
    found.unwrap_or_else(|_| panic!("no line `{beginning}…` of run {run_id} in the log of {pod}"))
}

/// Every receipt of a workflow, whatever its run.
pub async fn receipts(space: &Namespace, workflow: &MamlWorkflow) -> Vec<MuReceipt> {
    let uid = workflow.uid().expect("a stored object has a UID");
    let which = ListParams::default().labels(&format!("{}={uid}", names::WORKFLOW_UID_LABEL));
    space
        .api::<MuReceipt>()
        .list(&which)
        .await
        .expect("receipts can be listed")
        .items
}

/// The receipt that the workflow's status names, once the operator's audit has verified it.
pub async fn verified_receipt(space: &Namespace, workflow: &MamlWorkflow) -> MuReceipt {
    let reference = status(workflow).receipt_ref;
    let reference = reference.unwrap_or_else(|| panic!("no receiptRef in:\n{}", wait::yaml(workflow)));
    let receipt = wait::until(
        &space.api::<MuReceipt>(),
        &reference.name,
        "the audit has spoken",
        |receipt| {
            receipt
                .status
                .as_ref()
                .is_some_and(|status| find(&status.conditions, VERIFIED).is_some())
        },
    )
    .await;
    assert_eq!(receipt.uid().as_deref(), Some(reference.uid.as_str()));
    let conditions = receipt.status.clone().unwrap_or_default().conditions;
    for type_ in [VERIFIED, READY] {
        assert!(
            is_true(&conditions, type_),
            "{type_} of\n{}",
            wait::yaml(&receipt)
        );
    }
    receipt
}

/// The run succeeded, every condition says so, and there is one receipt of it, which verifies.
pub async fn assert_succeeded(space: &Namespace, workflow: &MamlWorkflow) -> MuReceipt {
    let shown = wait::yaml(workflow);
    for (type_, reason) in [
        (ACCEPTED, reasons::DOCUMENT_ACCEPTED),
        (SCHEDULED, reasons::HEAD_ASSIGNED),
        (SUCCEEDED, reasons::SUCCEEDED),
        (SIGNED, reasons::RECEIPT_SIGNED),
        (COMPLETE, reasons::FINISHED),
        (READY, reasons::SUCCEEDED),
    ] {
        assert!(
            says(workflow, type_, ConditionStatus::True, reason),
            "{type_} is not True, {reason}:\n{shown}"
        );
    }
    assert!(find(&status(workflow).conditions, STALLED).is_none(), "{shown}");
    let receipt = verified_receipt(space, workflow).await;
    assert_agree(workflow, &receipt);
    assert_eq!(receipt.spec.result, ReceiptResult::Success);
    assert_eq!(receipt.spec.error, None);
    receipt
}

/// The run failed for that reason, every condition says so, and there is an Error receipt, which verifies.
pub async fn assert_failed(space: &Namespace, workflow: &MamlWorkflow, reason: &str) -> MuReceipt {
    let shown = wait::yaml(workflow);
    for (type_, is, reason) in [
        (SUCCEEDED, ConditionStatus::False, reason),
        (SIGNED, ConditionStatus::True, reasons::RECEIPT_SIGNED),
        (COMPLETE, ConditionStatus::True, reasons::FINISHED),
        (READY, ConditionStatus::False, reason),
        (STALLED, ConditionStatus::True, reason),
    ] {
        assert!(
            says(workflow, type_, is, reason),
            "{type_} is not {}, {reason}:\n{shown}",
            is.as_str()
        );
    }
    let receipt = verified_receipt(space, workflow).await;
    assert_agree(workflow, &receipt);
    assert_eq!(receipt.spec.result, ReceiptResult::Error);
    let error = receipt
        .spec
        .error
        .clone()
        .expect("an Error receipt names the cause");
    assert_eq!(error.reason, reason, "{shown}");
    receipt
}

fn assert_agree(workflow: &MamlWorkflow, receipt: &MuReceipt) {
    let (status, spec) = (status(workflow), &receipt.spec);
    assert_eq!(spec.workflow_ref.name, workflow.name_any());
    assert_eq!(Some(&spec.workflow_ref.uid), workflow.uid().as_ref());
    assert_eq!(Some(spec.workflow_ref.generation), workflow.metadata.generation);
    assert_eq!(Some(&spec.run_id), status.run_id.as_ref());
    assert_eq!(Some(&spec.document_digest), status.document_digest.as_ref());
    assert_eq!(spec.submitter, workflow.spec.submitter);
    assert_eq!(spec.act_as, workflow.spec.act_as);
    assert_eq!(spec.algorithm, "ML-DSA-87");
    assert_eq!(
        receipt.labels().get(names::RESULT_LABEL).map(String::as_str),
        Some(spec.result.as_str())
    );
    assert!(
        receipt.owner_references().is_empty(),
        "a receipt outlives its workflow"
    );
}
