//! Every reason that a condition, an Event or an Error receipt can give, and what each means.
//!
//! docs/reference/reasons.md is made from [`ALL`]; a reason that is not here does not exist.

use std::fmt::Write;

/// One reason and its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The word.
    pub name: &'static str,
    /// Kind and condition that give it, or `Event`.
    pub given_by: &'static str,
    /// What it means and what to do.
    pub meaning: &'static str,
}

macro_rules! reasons {
    ($( $constant:ident = $name:literal, $given_by:literal, $meaning:literal; )+) => {
        $(
            #[doc = $meaning]
            pub const $constant: &str = $name;
        )+

        /// All reasons, in the order of the documentation.
        pub const ALL: &[Reason] = &[
            $( Reason { name: $name, given_by: $given_by, meaning: $meaning }, )+
        ];
    };
}

reasons! {
    // MamlWorkflow: before a head is chosen.
    PENDING = "Pending", "MamlWorkflow Ready", "The run waits; `Accepted` and `Scheduled` say for what.";
    SUSPENDED = "Suspended", "MamlWorkflow Ready, Scheduled; KeyRotationPolicy Ready", "`spec.suspend` is true.";
    DOCUMENT_ACCEPTED = "DocumentAccepted", "MamlWorkflow Accepted", "Document, inputs and permissions are in order.";
    SOURCE_NOT_FOUND = "SourceNotFound", "MamlWorkflow Accepted", "The ConfigMap of `spec.source.configMapRef`, or its key, does not exist yet. The run starts when it appears.";
    DOCUMENT_INVALID = "DocumentInvalid", "MamlWorkflow Accepted", "The document has errors; message and `status.diagnostics` give line and column. Correct it with `chimera lint`.";
    DOCUMENT_TOO_LARGE = "DocumentTooLarge", "MamlWorkflow Accepted", "The document has more than 1 MiB.";
    NOT_RUNNABLE = "NotRunnable", "MamlWorkflow Accepted", "The document has no code block to run.";
    UNSUPPORTED_LANGUAGE = "UnsupportedLanguage", "MamlWorkflow Accepted", "A code block is in a language that no head runs.";
    UNSUPPORTED_REQUIREMENT = "UnsupportedRequirement", "MamlWorkflow Accepted", "The document requires something that no head may give, such as network access.";
    INPUTS_INVALID = "InputsInvalid", "MamlWorkflow Accepted", "`spec.inputs` breaks the document's Input_Schema; the message names the member.";
    SEALED_INPUTS_REFUSED = "SealedInputsRefused", "MamlWorkflow Accepted", "`spec.sealedInputs` is damaged, or sealed for another namespace, workflow or document, or holds what `spec.inputs` holds too; the message says which. Seal it again with `chimera seal`.";
    NOT_PERMITTED = "NotPermitted", "MamlWorkflow Accepted", "The document's `permissions.execute` allows neither the requester nor `spec.actAs`, or none of the heads asked for.";
    VERIFICATION_FAILED = "VerificationFailed", "MamlWorkflow Succeeded", "A condition of the document's specifications does not hold; the message gives file, line and function.";
    SPECIFICATION_NOT_FOUND = "SpecificationNotFound", "MamlWorkflow Accepted; Event", "A file of `verification.spec_files` stands neither in the document nor beside it in its ConfigMap. A document of level warn runs without it.";
    SIGNING_POLICY_NOT_FOUND = "SigningPolicyNotFound", "MamlWorkflow Accepted", "`spec.signingPolicyRef` names no signing policy of the operator.";

    SEALING_KEY_UNAVAILABLE = "SealingKeyUnavailable", "MamlWorkflow Scheduled", "The operator holds none of the keys that `spec.sealedInputs` is sealed for. The run starts when it does; a text for keys that are gone is renewed with `chimera seal --rewrap`.";

    // MamlWorkflow: choosing a head.
    HEAD_ASSIGNED = "HeadAssigned", "MamlWorkflow Scheduled", "A head has been claimed.";
    NO_HEAD = "NoHead", "MamlWorkflow Scheduled", "No ChimeraHead of this namespace matches role, selector and permissions, or offers what the document requires. The message says what is missing and what would help.";
    HEADS_NOT_READY = "HeadsNotReady", "MamlWorkflow Scheduled", "Heads match, but none is ready yet.";
    HEADS_BUSY = "HeadsBusy", "MamlWorkflow Scheduled", "All matching heads hold as many runs as they can. The run starts when one is free and it is its turn.";
    WAITING_FOR_GPU = "WaitingForGpu", "MamlWorkflow Scheduled", "The document asks for GPUs, or a version of CUDA, that no head of this namespace offers.";
    PREPARING_POD = "PreparingPod", "MamlWorkflow Scheduled", "With `spec.isolation: Pod`, the pod for this run alone is being made; the message says what it waits for.";
    PENDING_DEADLINE_EXCEEDED = "PendingDeadlineExceeded", "MamlWorkflow Scheduled, Succeeded", "No head was free within `spec.pendingDeadlineSeconds`.";
    NOT_SCHEDULED = "NotScheduled", "MamlWorkflow Scheduled", "The run ended before a head was claimed.";

    // MamlWorkflow: running.
    RUNNING = "Running", "MamlWorkflow Ready, Succeeded, Complete", "The program runs.";
    SUCCEEDED = "Succeeded", "MamlWorkflow Ready, Succeeded", "The program ended well and its outputs fit their schema.";
    PROGRAM_FAILED = "ProgramFailed", "MamlWorkflow Succeeded", "The program raised an error; the message gives it with line and column in the document.";
    OUTPUTS_INVALID = "OutputsInvalid", "MamlWorkflow Succeeded", "The outputs break the document's Output_Schema; the message names the member.";
    OUTPUTS_TOO_LARGE = "OutputsTooLarge", "MamlWorkflow Succeeded", "The outputs are larger than a head may return.";
    OUTPUTS_UNREADABLE = "OutputsUnreadable", "MamlWorkflow Succeeded", "An output is no JSON value.";
    TIMED_OUT = "TimedOut", "MamlWorkflow Succeeded", "The program took longer than `spec.timeoutSeconds`, or a block longer than its own `timeout`, and was killed.";
    OUT_OF_MEMORY = "OutOfMemory", "MamlWorkflow Succeeded", "The program used more memory than it may and was killed.";
    OUTPUT_LIMIT_EXCEEDED = "OutputLimitExceeded", "MamlWorkflow Succeeded", "The program printed more than a run may and was killed.";
    PROCESS_LIMIT_EXCEEDED = "ProcessLimitExceeded", "MamlWorkflow Succeeded", "The program started more processes and threads than a run may and was killed.";
    DISK_LIMIT_EXCEEDED = "DiskLimitExceeded", "MamlWorkflow Succeeded", "The program wrote more to disk than a run may and was killed.";
    INTERPRETER_EXITED = "InterpreterExited", "MamlWorkflow Succeeded", "The program ended the interpreter before the document was over.";
    PROGRAM_KILLED = "ProgramKilled", "MamlWorkflow Succeeded", "The program ended by a signal that nobody here sent.";
    CANCELLED = "Cancelled", "MamlWorkflow Succeeded", "The annotation `chimera.dunes.io/cancel` asked for the end of the run.";
    RETRYING = "Retrying", "MamlWorkflow Succeeded, Scheduled; Event", "The attempt was lost with its head and is tried again on another.";
    HEAD_LOST = "HeadLost", "MamlWorkflow Succeeded, status.attempts", "The head of the attempt was lost before it answered.";
    HEAD_STOPPING = "HeadStopping", "MamlWorkflow status.attempts", "The head was stopped before the run was over; it is tried again on another.";
    INTERPRETER_LOST = "InterpreterLost", "MamlWorkflow status.attempts", "The head lost the warm interpreter of the run, which is tried again.";
    SANDBOX_FAILED = "SandboxFailed", "MamlWorkflow status.attempts", "The head could not put the sandbox in force; nothing was run there, and the run is tried again.";
    GRANT_REFUSED = "GrantRefused", "MamlWorkflow Succeeded, status.attempts", "The head did not accept the grant; the message says why.";
    RETRIES_EXHAUSTED = "RetriesExhausted", "MamlWorkflow Succeeded", "The run was lost more often than `spec.infrastructureRetries` allows.";

    // MamlWorkflow: the receipt.
    RECEIPT_SIGNED = "ReceiptSigned", "MamlWorkflow Signed", "The signed receipt exists; `status.receiptRef` names it.";
    RECEIPT_PENDING = "ReceiptPending", "MamlWorkflow Signed", "The run is not over yet.";
    SIGNING_KEY_UNAVAILABLE = "SigningKeyUnavailable", "MamlWorkflow Signed, Scheduled", "The signing policy has no published key in use. Nothing is run or signed until it has.";
    ATTESTATION_INVALID = "AttestationInvalid", "MamlWorkflow Succeeded, Signed", "The head's attestation does not fit its grant; the result is not used.";
    RECEIPT_CONFLICT = "ReceiptConflict", "MamlWorkflow Signed", "A receipt of that name exists that is not this run's.";
    FINISHED = "Finished", "MamlWorkflow Complete", "The run is over and its receipt is signed.";

    // ChimeraHead.
    HEADS_READY = "HeadsReady", "ChimeraHead Ready", "As many pods take runs as asked for.";
    STARTING = "Starting", "ChimeraHead Ready", "Pods are starting.";
    DEGRADED = "Degraded", "ChimeraHead Ready", "Fewer pods take runs than asked for; the message says why.";
    SCALED_TO_ZERO = "ScaledToZero", "ChimeraHead Ready; MamlWorkflow Scheduled", "`spec.replicas` is 0; of a workflow: the only ChimeraHeads that suit have no pods. The run starts when one is scaled up.";
    IMAGE_NOT_ALLOWED = "ImageNotAllowed", "ChimeraHead Ready; MamlWorkflow Scheduled", "`spec.image` is not on the operator's list of allowed images. No pod is made.";
    RUNTIME_CLASS_NOT_FOUND = "RuntimeClassNotFound", "ChimeraHead Ready", "The RuntimeClass of `spec.runtimeClassName` or `spec.gpu.runtimeClassName` does not exist. No pod is made.";
    PODS_REFUSED = "PodsRefused", "ChimeraHead Ready; MamlWorkflow Scheduled", "The API server refused a pod, for example by a quota; the message is its answer.";
    IDENTITY_UNAVAILABLE = "IdentityUnavailable", "ChimeraHead Ready", "The TLS identity of the heads could not be written or read.";
    NAME_TAKEN = "NameTaken", "ChimeraHead Ready; MamlWorkflow Scheduled", "A pod of the needed name exists that belongs to something else. It is not touched.";
    REGENERATED = "Regenerated", "Event", "A pod, its agent or its interpreters were lost and are replaced or mended; the message says why and by what.";
    PROMOTED = "Promoted", "Event", "A spare took over from a lost pod.";
    POD_FAILED = "PodFailed", "ChimeraHead status.lastRegenerations; MamlWorkflow status.attempts", "The pod failed or was evicted.";
    POD_DELETED = "PodDeleted", "ChimeraHead status.lastRegenerations", "Somebody deleted the pod.";
    WORKER_LOST = "WorkerLost", "ChimeraHead status.lastRegenerations", "The pod lost its warm interpreters; its agent has made new ones.";
    WORKER_SLOW = "WorkerSlow", "ChimeraHead status.lastRegenerations", "The pod's warm interpreters took long to answer; its agent has put others in their place. Runs under way went on.";
    WORKER_GROWN = "WorkerGrown", "ChimeraHead status.lastRegenerations", "The memory of the pod's warm interpreters had grown; its agent has put others in their place. Runs under way went on.";
    RUN_UNENDING = "RunUnending", "ChimeraHead status.lastRegenerations", "A run of the pod did not end when it was killed; its agent has put other warm interpreters in place. Other runs went on.";
    CANARY_FAILED = "CanaryFailed", "ChimeraHead status.lastRegenerations", "A test computation of the pod failed; its agent has mended it.";
    AGENT_LOST = "AgentLost", "ChimeraHead status.lastRegenerations", "The agent in the pod ended. A spare serves; the pod's container is started again.";
    SUSPECT_HEAD = "SuspectHead", "ChimeraHead status.lastRegenerations", "Three different documents failed alike on this pod and nowhere else.";
    HEARTBEAT_LOST = "HeartbeatLost", "ChimeraHead status.lastRegenerations", "The pod's agent gave no sign of life within `spec.health`.";
    NODE_LOST = "NodeLost", "ChimeraHead status.lastRegenerations", "No pod of the node gives a sign of life.";
    GPU_UNHEALTHY = "GpuUnhealthy", "ChimeraHead status.lastRegenerations; MamlWorkflow status.attempts", "A GPU of the pod failed.";
    TEMPLATE_CHANGED = "TemplateChanged", "Event", "The pod takes no more runs and goes when those under way have ended: the ChimeraHead's spec has changed and another pod serves in its stead, or fewer are asked for.";
    DRAINED = "Drained", "Event", "The pod had no more runs and was removed.";

    // KeyRotationPolicy.
    KEY_ACTIVE = "KeyActive", "KeyRotationPolicy Ready", "A published key is in use.";
    PUBLISHING = "Publishing", "KeyRotationPolicy Ready", "The first key is made and published; it is used when everybody can see it.";
    AWAITING_ROOT = "AwaitingRoot", "KeyRotationPolicy Ready", "The root is offline and has not yet vouched for the key. Answer the requests in `chimera-trust-requests` with `chimera trust sign`.";
    KEY_REVOKED = "KeyRevoked", "KeyRotationPolicy Ready; MuReceipt Verified", "The key in use is revoked and its successor not yet published; of a receipt: a root has revoked the key that signed it.";
    ENTROPY_SOURCES_HEALTHY = "EntropySourcesHealthy", "KeyRotationPolicy EntropyHealthy", "Every named source was mixed into the last key.";
    ENTROPY_SOURCE_DROPPED = "EntropySourceDropped", "KeyRotationPolicy EntropyHealthy", "A named source failed its health test or gave no answer; keys are made of the operating system's randomness and the other sources.";
    KEY_ROTATED = "KeyRotated", "Event", "The next key took over.";
    KEY_RETIRED = "KeyRetired", "Event", "A previous key is accepted no longer.";
    ROOT_SUCCEEDED = "RootSucceeded", "Event", "A new root vouches for new keys; the former one vouches for it.";
    ROOT_UNAVAILABLE = "RootUnavailable", "KeyRotationPolicy Ready", "The root key's Secret is missing or unreadable although a trust bundle exists. Restore it; a new root is never made silently.";
    KEYS_UNREADABLE = "KeysUnreadable", "KeyRotationPolicy Ready", "The Secret with the policy's keys is missing or unreadable although keys are published. Restore it.";
    TRUST_UNREADABLE = "TrustUnreadable", "KeyRotationPolicy Ready; MuReceipt Verified", "The ConfigMap `chimera-trust` is missing or does not verify against the root.";
    PURPOSE_UNSUPPORTED = "PurposeUnsupported", "KeyRotationPolicy Ready", "This version of the operator keeps no keys of that purpose.";
    OUTSIDE_OPERATOR_NAMESPACE = "OutsideOperatorNamespace", "KeyRotationPolicy Ready", "Signing policies work only in the operator's namespace.";
    ROTATED = "Rotated", "Event", "The next key was put to use.";
    KEY_PUBLISHED = "KeyPublished", "Event", "The public half of a new key was published.";

    // MuReceipt.
    RECEIPT_VERIFIED = "ReceiptVerified", "MuReceipt Verified, Ready", "All signatures and digests hold.";
    BAD_SIGNATURE = "BadSignature", "MuReceipt Verified, Ready", "A signature does not fit the signed bytes.";
    UNTRUSTED_KEY = "UntrustedKey", "MuReceipt Verified, Ready", "The signing key is not in the trust bundle.";
    DIGEST_MISMATCH = "DigestMismatch", "MuReceipt Verified, Ready", "A digest, or a plain field of the spec, does not fit what is signed.";
    NOT_A_RECEIPT = "NotAReceipt", "MuReceipt Verified, Ready", "The envelope holds no receipt.";
    RECEIPT_ISSUED = "ReceiptIssued", "Event", "The signed receipt of a run was created.";
}

/// The text of docs/reference/reasons.md.
pub fn documentation() -> String {
    let mut text = String::from(
        "# Reasons\n\n\
         <!-- Generated by `cargo xtask generate` from src/api/reasons.rs. -->\n\n\
         The words in the column REASON of `kubectl get`, in conditions, Events and Error receipts.\n\n\
         | reason | given by | meaning |\n| --- | --- | --- |\n",
    );
    for reason in ALL {
        writeln!(
            text,
            "| `{}` | {} | {} |",
            reason.name, reason.given_by, reason.meaning
        )
        .expect("writing to a String cannot fail");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn reasons_are_distinct_camel_case_words() {
        let names: BTreeSet<_> = ALL.iter().map(|reason| reason.name).collect();
        assert_eq!(names.len(), ALL.len());
        for name in names {
            assert!(name.starts_with(|c: char| c.is_ascii_uppercase()), "{name}");
            assert!(name.chars().all(|c| c.is_ascii_alphanumeric()), "{name}");
        }
    }

    #[test]
    fn meanings_are_sentences_that_fit_a_table() {
        for reason in ALL {
            assert!(reason.meaning.ends_with('.'), "{}", reason.name);
            assert!(!reason.meaning.contains('|'), "{}", reason.name);
        }
    }
}
