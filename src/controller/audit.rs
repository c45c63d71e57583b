//! Verifies receipts again, at a low rate, and says so in their status. It reads what is stored and believes nothing
//! that it wrote itself.

use std::{sync::Arc, time::Duration};

use api::{
    ConditionStatus, MuReceipt, MuReceiptStatus,
    condition::{READY, VERIFIED, Verdict, set},
    reasons,
};
use crypto::verify::{self, Request, verify};
use kube::{Api, ResourceExt as _, core::PartialObjectMeta, runtime::controller::Action};

use crate::{
    apply::apply_status,
    client::{CallError, call},
    clock,
    context::Scope,
    keyring::Trust,
};

/// Every receipt is verified again after this time.
const AUDIT_EVERY: Duration = Duration::from_secs(24 * 3600);
/// While no bundle is published.
const AGAIN: Duration = Duration::from_secs(2);

/// Verifies one receipt and writes the verdict when it changed.
pub async fn reconcile(receipt: Arc<PartialObjectMeta<MuReceipt>>, scope: Arc<Scope>) -> Result<Action, CallError> {
    let context = &scope.context;
    let Some(trust) = context.keyring.trust() else { return Ok(Action::requeue(AGAIN)) };
    let namespace = receipt.namespace().unwrap_or_default();
    let api: Api<MuReceipt> = Api::namespaced(context.client.clone(), &namespace);
    let Some(receipt) = call("read a receipt", api.get_opt(&receipt.name_any())).await? else {
        return Ok(Action::await_change());
    };
    let (verified, reason, message) = judge(&receipt, &trust);
    context.metrics.count_verification(reason, verified);
    let status = build_status(&receipt, verified, reason, &message);
    if receipt.status.as_ref() != Some(&status) {
        match apply_status(&context.client, &receipt, &status, None).await {
            Err(error) if error.is_not_found() || error.is_conflict() => {}
            other => other.map(|_| ())?,
        }
    }
    if !verified {
        tracing::error!(receipt = %receipt.name_any(), reason, message, "a receipt does not verify");
        context.events.warning(&receipt, reason, message);
    }
    Ok(Action::requeue(AUDIT_EVERY))
}

fn judge(receipt: &MuReceipt, trust: &Trust) -> (bool, &'static str, String) {
    let report = verify(&Request {
        envelope: receipt.spec.envelope.as_bytes(),
        bundle: &trust.bundle,
        pinned_root: Some(trust.keys.root().key_id()),
        document: None,
        outputs: None,
    });
    if let Some(failed) = report.failure() {
        let reason = match report.verdict {
            verify::Verdict::Valid | verify::Verdict::DigestMismatch => reasons::DIGEST_MISMATCH,
            verify::Verdict::NotAReceipt => reasons::NOT_A_RECEIPT,
            verify::Verdict::UntrustedKey => reasons::UNTRUSTED_KEY,
            verify::Verdict::BadSignature => reasons::BAD_SIGNATURE,
        };
        return (false, reason, format!("{}: {}", failed.name, failed.detail));
    }
    let differing = report.statement.as_ref().and_then(|statement| differing_field(receipt, statement));
    match differing {
        Some(field) => (false, reasons::DIGEST_MISMATCH, format!("spec.{field} is not what is signed")),
        None => (true, reasons::RECEIPT_VERIFIED, "all signatures and digests hold".to_owned()),
    }
}

/// The first plain field that is not a copy of what is signed.
fn differing_field(receipt: &MuReceipt, statement: &crypto::receipt::Statement) -> Option<&'static str> {
    let (spec, internal) = (&receipt.spec, statement.internal());
    let outputs = statement.outputs().filter(|_| internal.error.is_none());
    let shown = spec.outputs_digest.as_ref().map(|digest| digest.sha256.as_str());
    [
        ("result", spec.result.as_str() == statement.result().name()),
        ("keyId", spec.key_id == internal.key_id.as_str()),
        ("algorithm", spec.algorithm == internal.suite.to_string()),
        ("runId", spec.run_id == statement.metadata().invocation_id),
        ("gpuSeconds", (spec.gpu_seconds - statement.gpu_seconds()).abs() < 1e-9),
        ("outputsDigest", outputs.is_none_or(|digest| shown == Some(digest.sha256.as_str()))),
    ]
    .into_iter()
    .find_map(|(field, same)| (!same).then_some(field))
}

fn build_status(receipt: &MuReceipt, verified: bool, reason: &str, message: &str) -> MuReceiptStatus {
    let mut status = receipt.status.clone().unwrap_or_default();
    let now = clock::now();
    let mut changed = false;
    for type_ in [VERIFIED, READY] {
        let verdict = Verdict {
            type_,
            status: ConditionStatus::from(verified),
            reason,
            message,
            observed_generation: receipt.metadata.generation,
        };
        changed |= set(&mut status.conditions, &verdict, now);
    }
    status.observed_generation = receipt.metadata.generation;
    if changed {
        status.last_audit_time = Some(now);
    }
    status
}
