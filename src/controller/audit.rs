//! Verifies receipts again, at a low rate, and says so in their status. It reads what is stored and believes nothing
//! that it wrote itself.

use std::{sync::Arc, time::Duration};

use api::{
    ConditionStatus, MuReceipt, MuReceiptStatus,
    condition::{self, READY, VERIFIED},
    reasons,
};
use controller_core::receipt_check::check_object;
use crypto::verify::{REVOCATION, Verdict, verify_with};
use kube::{Api, ResourceExt as _, core::PartialObjectMeta, runtime::controller::Action};

use crate::{
    apply::apply_status,
    client::{CallError, call},
    clock,
    context::Scope,
    keys::keyring::Trust,
};

/// Every receipt is verified again after this time.
const AUDIT_EVERY: Duration = Duration::from_secs(24 * 3600);
/// While no bundle is published.
const AGAIN: Duration = Duration::from_secs(2);

/// Verifies one receipt and writes the verdict when it changed.
pub async fn reconcile(
    receipt: Arc<PartialObjectMeta<MuReceipt>>,
    scope: Arc<Scope>,
) -> Result<Action, CallError> {
    let context = &scope.context;
    let Some(trust) = context.keyring.trust() else {
        return Ok(Action::requeue(AGAIN));
    };
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
    let mut report = verify_with(receipt.spec.envelope.as_bytes(), Ok(&trust.keys), None, None);
    if let Some(statement) = report.statement.take() {
        check_object(&mut report, receipt, &statement);
    }
    let Some(failed) = report.failure() else {
        return (
            true,
            reasons::RECEIPT_VERIFIED,
            "all signatures and digests hold".to_owned(),
        );
    };
    let reason = match report.verdict {
        Verdict::Valid | Verdict::DigestMismatch => reasons::DIGEST_MISMATCH,
        Verdict::NotAReceipt => reasons::NOT_A_RECEIPT,
        Verdict::UntrustedKey if failed.name == REVOCATION => reasons::KEY_REVOKED,
        Verdict::UntrustedKey => reasons::UNTRUSTED_KEY,
        Verdict::BadSignature => reasons::BAD_SIGNATURE,
    };
    (false, reason, format!("{}: {}", failed.name, failed.detail))
}

fn build_status(receipt: &MuReceipt, verified: bool, reason: &str, message: &str) -> MuReceiptStatus {
    let mut status = receipt.status.clone().unwrap_or_default();
    let now = clock::now();
    let mut changed = false;
    for type_ in [VERIFIED, READY] {
        let verdict = condition::Verdict {
            type_,
            status: ConditionStatus::from(verified),
            reason,
            message,
            observed_generation: receipt.metadata.generation,
        };
        changed |= condition::set(&mut status.conditions, &verdict, now);
    }
    status.observed_generation = receipt.metadata.generation;
    if changed {
        status.last_audit_time = Some(now);
    }
    status
}
