//! The receipt of a run: what is claimed, and the MuReceipt that carries it. No IO, no signing.

use std::collections::BTreeMap;

use api::{
    MamlWorkflow, MuReceipt, MuReceiptSpec,
    mu_receipt::{ReceiptError, ReceiptResult, WorkflowRef},
    names,
};
use crypto::{
    DigestSet, KeyId, Suite,
    attestation::RunError,
    dsse::Envelope,
    receipt::{Builder, Claim},
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::{
    inputs::Inputs,
    run::{Record, run_key, workflow_ref},
    sealed,
    workflow_status::{shortened, shown_digest},
};

/// The operator as a builder of receipts.
pub const OPERATOR: &str = "https://chimera.dunes.io/operator";
/// The command line as a builder of receipts, on its user's own machine.
pub const COMMAND_LINE: &str = "https://chimera.dunes.io/cli";

/// Who signs, and when.
#[derive(Debug, Clone)]
pub struct Signatory {
    /// Suite of the signing key.
    pub suite: Suite,
    /// Id of the signing key.
    pub key_id: KeyId,
    /// The key that it follows, if any.
    pub predecessor: Option<KeyId>,
    /// From the controller's Lease.
    pub fencing_token: u64,
    /// Who builds the receipt: a URI.
    pub builder: &'static str,
    /// Version of the builder.
    pub version: String,
    /// The present.
    pub now: Timestamp,
}

/// A run that is over, with what is known of it.
#[derive(Debug, Clone, Copy)]
pub struct Finished<'a> {
    /// The workflow.
    pub workflow: &'a MamlWorkflow,
    /// The last attempt; 0 when none was started.
    pub attempt: i32,
    /// The document's bytes.
    pub document: &'a [u8],
    /// The inputs; those of the spec alone when nothing ran.
    pub inputs: &'a Inputs,
    /// Both records, when the head answered.
    pub record: Option<&'a Record>,
    /// Why it failed, if it did.
    pub failure: Option<&'a RunError>,
}

/// What the receipt claims.
pub fn build_claim(finished: &Finished<'_>, by: &Signatory) -> Claim {
    let spec = &finished.workflow.spec;
    let record = finished.record;
    Claim {
        suite: by.suite,
        key_id: by.key_id.clone(),
        predecessor: by.predecessor.clone(),
        signed_at: by.now,
        fencing_token: by.fencing_token,
        builder: Builder {
            id: by.builder.to_owned(),
            version: BTreeMap::from([("chimera".to_owned(), by.version.clone())]),
        },
        run_id: run_key(finished.workflow).run_id(finished.attempt),
        workflow: workflow_ref(finished.workflow, finished.attempt),
        document: DigestSet::of(finished.document),
        inputs: finished.inputs.digest(),
        sealed_inputs: sealed::digest(spec),
        submitter: spec.submitter.clone().unwrap_or_default(),
        act_as: spec.act_as.clone(),
        started_at: record.map_or(by.now, |record| record.attestation.started_at),
        finished_at: record.map_or(by.now, |record| record.attestation.finished_at),
        error: finished.failure.cloned(),
        grant: record.map(|record| record.grant.clone()),
        attestation: record.map(|record| record.attestation_envelope.clone()),
    }
}

/// The MuReceipt of a signed claim. Its plain fields are copies of what is signed.
pub fn build_receipt(
    finished: &Finished<'_>,
    claim: &Claim,
    envelope: &Envelope,
    mu: Option<String>,
) -> MuReceipt {
    let workflow = finished.workflow;
    let name = workflow.metadata.name.clone().unwrap_or_default();
    let result = if claim.error.is_none() {
        ReceiptResult::Success
    } else {
        ReceiptResult::Error
    };
    let attestation = finished.record.map(|record| &record.attestation);
    let spec = MuReceiptSpec {
        workflow_ref: WorkflowRef {
            name: name.clone(),
            uid: claim.workflow.uid.clone(),
            generation: claim.workflow.generation,
            attempt: finished.attempt,
        },
        result,
        envelope: envelope.to_json(),
        mu: mu.filter(|text| text.len() <= api::mu_receipt::MU_LIMIT),
        algorithm: claim.suite.to_string(),
        key_id: claim.key_id.to_string(),
        run_id: claim.run_id.clone(),
        document_digest: shown_digest(&claim.document),
        outputs_digest: attestation
            .and_then(|attestation| attestation.outputs.as_ref())
            .map(shown_digest),
        submitter: workflow.spec.submitter.clone(),
        act_as: claim.act_as.clone(),
        head: status_head(finished),
        started_at: attestation.map(|attestation| attestation.started_at),
        finished_at: attestation.map(|attestation| attestation.finished_at),
        gpu_seconds: attestation.map_or(0.0, |attestation| attestation.gpu_seconds),
        error: claim.error.as_ref().map(|error| ReceiptError {
            reason: error.reason.clone(),
            message: error.message.clone(),
            code: error.code.clone(),
            line: error.line.and_then(|line| i32::try_from(line).ok()),
            column: error.column.and_then(|column| i32::try_from(column).ok()),
        }),
    };
    let mut receipt = MuReceipt::new(&run_key(workflow).receipt_name(&name), spec);
    receipt.metadata = ObjectMeta {
        namespace: workflow.metadata.namespace.clone(),
        labels: Some(BTreeMap::from([
            (names::MANAGED_BY_LABEL.to_owned(), names::MANAGED_BY.to_owned()),
            (
                names::WORKFLOW_LABEL.to_owned(),
                names::label_value(&name).to_owned(),
            ),
            (names::WORKFLOW_UID_LABEL.to_owned(), claim.workflow.uid.clone()),
            (names::RESULT_LABEL.to_owned(), result.as_str().to_owned()),
        ])),
        ..receipt.metadata
    };
    receipt
}

fn status_head(finished: &Finished<'_>) -> Option<String> {
    let grant = &finished.record?.grant;
    let grant: crypto::grant::Grant = serde_json::from_slice(grant.payload()).ok()?;
    Some(grant.head.name)
}

/// A failure without a place in the document.
pub fn failure(reason: &str, message: &str) -> RunError {
    RunError {
        reason: reason.to_owned(),
        message: shortened(message, 4096),
        line: None,
        column: None,
        code: None,
    }
}

/// The failure of a refused document: its reason, and the place and code of the first error.
pub fn refusal_failure(refusal: &crate::document::Refusal) -> RunError {
    let first = refusal.first();
    RunError {
        line: first
            .and_then(|first| first.line)
            .and_then(|line| u32::try_from(line).ok()),
        column: first
            .and_then(|first| first.column)
            .and_then(|column| u32::try_from(column).ok()),
        code: first.map(|first| first.code.clone()),
        ..failure(refusal.reason, &refusal.message)
    }
}
