//! One run: what a head is granted, and whether what it answers may be believed. No IO.

use std::{collections::BTreeMap, time::Duration};

use api::{Isolation, MamlWorkflow, names::RunKey, reasons};
use crypto::{
    DigestSet, KeyId, Suite, VerifyingKey,
    attestation::{Attestation, Outcome, RunError, Unit},
    dsse::Envelope,
    grant::{self, Grant, HeadIdentity, WorkflowRef},
    key_statement::KeyPurpose,
    trust::TrustedKeys,
};
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::{inputs::Inputs, sealed, specification::Files, violation, workflow_status::reason_constant};

/// How long a grant may wait for its head; the head's clock may differ a little.
const GRANT_LIFETIME: Duration = Duration::from_secs(60);

/// Ends of a run that are not the document's doing: the attempt counts as lost.
const INFRASTRUCTURE: [&str; 3] = [
    reasons::HEAD_STOPPING,
    reasons::INTERPRETER_LOST,
    reasons::SANDBOX_FAILED,
];

/// A workflow's current run, apart from the attempt.
pub fn run_key(workflow: &MamlWorkflow) -> RunKey<'_> {
    RunKey {
        uid: workflow.metadata.uid.as_deref().unwrap_or_default(),
        generation: workflow.metadata.generation.unwrap_or_default(),
        rerun: rerun(workflow),
    }
}

/// The workflow's rerun annotation.
pub fn rerun(workflow: &MamlWorkflow) -> Option<&str> {
    workflow
        .metadata
        .annotations
        .as_ref()?
        .get(api::names::RERUN_ANNOTATION)
        .map(String::as_str)
}

/// Where a grant sends a run.
#[derive(Debug, Clone)]
pub struct Destination<'a> {
    /// Name of the ChimeraHead.
    pub head: &'a str,
    /// Name of its pod.
    pub pod: &'a str,
    /// UID of the pod.
    pub pod_uid: &'a str,
    /// Node of the pod.
    pub node: Option<&'a str>,
    /// The agent's attestation key.
    pub attester: &'a VerifyingKey,
}

/// What is granted, besides the destination.
#[derive(Debug, Clone, Copy)]
pub struct Intent<'a> {
    /// The workflow.
    pub workflow: &'a MamlWorkflow,
    /// Counts from 1.
    pub attempt: i32,
    /// The document's bytes.
    pub document: &'a [u8],
    /// The inputs.
    pub inputs: &'a Inputs,
    /// Specifications that the document names and does not hold.
    pub specifications: &'a Files,
    /// The suite of the key that will sign.
    pub suite: Suite,
    /// From the controller's Lease.
    pub fencing_token: u64,
    /// The present.
    pub now: Timestamp,
}

/// Builds the grant of one attempt.
pub fn build_grant(intent: &Intent<'_>, to: &Destination<'_>) -> Grant {
    let spec = &intent.workflow.spec;
    Grant {
        type_: grant::TYPE.to_owned(),
        suite: intent.suite,
        run_id: run_key(intent.workflow).run_id(intent.attempt),
        workflow: workflow_ref(intent.workflow, intent.attempt),
        document: DigestSet::of(intent.document),
        inputs: intent.inputs.digest(),
        sealed_inputs: sealed::digest(spec),
        specifications: digests(intent.specifications),
        submitter: spec.submitter.clone().unwrap_or_default(),
        act_as: spec.act_as.clone(),
        head: HeadIdentity {
            name: to.head.to_owned(),
            pod: to.pod.to_owned(),
            uid: to.pod_uid.to_owned(),
            node: to.node.map(ToOwned::to_owned),
            attester: to.attester.key_id().clone(),
            attester_public_key: to.attester.spki_pem(),
        },
        isolation: unit(spec.isolation),
        not_before: intent.now,
        expires: intent
            .now
            .saturating_add(GRANT_LIFETIME)
            .unwrap_or(Timestamp::MAX),
        timeout_seconds: u32::try_from(spec.timeout_seconds).unwrap_or(1),
        network: false,
        fencing_token: intent.fencing_token,
    }
}

fn unit(isolation: Isolation) -> Unit {
    match isolation {
        Isolation::Process => Unit::Process,
        Isolation::Pod => Unit::Pod,
    }
}

fn digests(files: &Files) -> BTreeMap<String, DigestSet> {
    files
        .iter()
        .map(|(name, code)| (name.clone(), DigestSet::of(code.as_bytes())))
        .collect()
}

/// The reference to a workflow's attempt that is signed.
pub fn workflow_ref(workflow: &MamlWorkflow, attempt: i32) -> WorkflowRef {
    WorkflowRef {
        namespace: workflow.metadata.namespace.clone().unwrap_or_default(),
        name: workflow.metadata.name.clone().unwrap_or_default(),
        uid: workflow.metadata.uid.clone().unwrap_or_default(),
        generation: workflow.metadata.generation.unwrap_or_default(),
        attempt: u32::try_from(attempt).unwrap_or_default(),
    }
}

/// What came back from a head, as yet unproven.
#[derive(Debug, Clone, PartialEq)]
pub struct Ending {
    /// What the run was started with: envelope of the grant.
    pub grant: Vec<u8>,
    /// The document that was run.
    pub document: Vec<u8>,
    /// The inputs that it got.
    pub inputs: Inputs,
    /// Envelope of the attestation.
    pub attestation: Vec<u8>,
    /// The outputs; empty when the run failed.
    pub outputs: Vec<u8>,
}

/// Both records of a run, checked against one another.
#[derive(Debug, Clone)]
pub struct Record {
    /// Envelope of the grant.
    pub grant: Envelope,
    /// Envelope of the attestation.
    pub attestation_envelope: Envelope,
    /// What the head attested.
    pub attestation: Attestation,
    /// The outputs, when the run succeeded on its head.
    pub outputs: Option<Map<String, Value>>,
    /// Why the run failed: the head's account, or outputs that break their schema.
    pub failure: Option<RunError>,
}

impl Disbelief {
    /// The reason to show.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Infrastructure { reason, .. } => reason,
            _ => reasons::ATTESTATION_INVALID,
        }
    }
}

/// The head's answer does not fit what it was granted, or is no answer about the document: the attempt is lost.
#[derive(Debug, thiserror::Error)]
pub enum Disbelief {
    /// An envelope cannot be read.
    #[error("an envelope of the head's answer cannot be read")]
    Envelope(#[from] crypto::dsse::Error),
    /// The grant is not signed by a key of the trust bundle.
    #[error("the grant is signed by the unknown key {0}")]
    UnknownKey(String),
    /// The grant is not valid.
    #[error("the grant of the head's answer is not valid")]
    Grant(#[from] grant::Error),
    /// The attestation is not valid under the key that the grant names.
    #[error("the attestation is not valid")]
    Attestation(#[from] crypto::attestation::Error),
    /// The head itself says that the attempt failed for a cause of its own.
    #[error("{message}")]
    Infrastructure {
        /// One of [`api::reasons`].
        reason: &'static str,
        /// The head's account.
        message: String,
    },
    /// Another run, workflow, grant, document, inputs or outputs than those signed.
    #[error("the {0} of the head's answer is not the one that was granted")]
    Mismatch(&'static str),
}

/// Checks a head's answer: grant by a trusted key for this very run, attestation by the head that the grant names,
/// every digest; then the outputs against the document's Output_Schema.
pub fn judge(
    ending: &Ending,
    workflow: &MamlWorkflow,
    attempt: i32,
    trusted: &TrustedKeys,
    document: &maml::Document,
) -> Result<Record, Disbelief> {
    let grant_envelope = Envelope::from_json(&ending.grant)?;
    let grant = trusted_grant(&grant_envelope, trusted)?;
    let attestation_envelope = Envelope::from_json(&ending.attestation)?;
    let attestation = Attestation::verify(&attestation_envelope, &grant.head.attester_key()?)?;
    let run_id = run_key(workflow).run_id(attempt);
    let outputs_match = match &attestation.outputs {
        Some(digest) => digest.matches(&ending.outputs),
        None => ending.outputs.is_empty(),
    };
    for (what, matches) in [
        ("run id", grant.run_id == run_id && attestation.run_id == run_id),
        ("workflow", grant.workflow == workflow_ref(workflow, attempt)),
        ("grant", attestation.grant.matches(grant_envelope.payload())),
        ("document", grant.document.matches(&ending.document)),
        ("inputs", grant.inputs == ending.inputs.digest()),
        (
            "sealed inputs",
            grant.sealed_inputs == sealed::digest(&workflow.spec),
        ),
        (
            "isolation",
            grant.isolation == unit(workflow.spec.isolation) && attestation.isolation.unit == grant.isolation,
        ),
        ("outputs", outputs_match),
    ] {
        if !matches {
            return Err(Disbelief::Mismatch(what));
        }
    }
    if let Some(error) = attestation
        .error
        .as_ref()
        .filter(|error| INFRASTRUCTURE.contains(&error.reason.as_str()))
    {
        return Err(Disbelief::Infrastructure {
            reason: reason_constant(&error.reason),
            message: error.message.clone(),
        });
    }
    let (outputs, failure) = match attestation.result {
        Outcome::Error => (None, attestation.error.clone()),
        Outcome::Success => check_outputs(&ending.outputs, document),
    };
    Ok(Record {
        grant: grant_envelope,
        attestation_envelope,
        attestation,
        outputs,
        failure,
    })
}

fn trusted_grant(envelope: &Envelope, trusted: &TrustedKeys) -> Result<Grant, Disbelief> {
    let unknown = || Disbelief::UnknownKey(envelope.key_id().to_owned());
    let id: KeyId = envelope.key_id().parse().map_err(|_| unknown())?;
    let key = trusted.key(&id, KeyPurpose::Signing).ok_or_else(unknown)?;
    Ok(Grant::verify(envelope, key)?)
}

/// The outputs as an object, and what is wrong with them.
fn check_outputs(bytes: &[u8], document: &maml::Document) -> (Option<Map<String, Value>>, Option<RunError>) {
    let failure = |reason: &str, message: String, line| RunError {
        reason: reason.to_owned(),
        message,
        line,
        column: None,
        code: None,
    };
    let Ok(Value::Object(outputs)) = serde_json::from_slice(bytes) else {
        let message = "the outputs are no JSON object".to_owned();
        return (None, Some(failure(reasons::OUTPUTS_UNREADABLE, message, None)));
    };
    let Some(schema) = &document.output_schema else {
        return (Some(outputs), None);
    };
    let violations = schema.check(&Value::Object(outputs.clone()));
    let broken = violation::first_of(&violations, schema, "outputs", "Output_Schema", |_| false)
        .map(|(message, line)| failure(reasons::OUTPUTS_INVALID, message, Some(line)));
    (Some(outputs), broken)
}
