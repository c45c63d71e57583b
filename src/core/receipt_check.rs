//! Whether a MuReceipt says what is signed in it: its plain fields and its mirrored text against the statement of its
//! envelope. The envelope itself is `crypto::verify`'s.

use api::{MuReceipt, mu_receipt::MuReceiptSpec};
use crypto::{
    DigestSet,
    receipt::Statement,
    verify::{Report, Verdict},
};

/// Checks the object around a receipt's envelope: each plain field, and the mirrored text. What a reader should know
/// besides comes back as sentences.
pub fn check_object(report: &mut Report, receipt: &MuReceipt, statement: &Statement) -> Vec<String> {
    let mut notes = Vec::new();
    check_fields(report, receipt, statement);
    if let Some(mu) = &receipt.spec.mu {
        check_mirror(report, &mut notes, mu, statement);
    }
    notes
}

/// The plain fields of a MuReceipt, each against what is signed.
fn check_fields(report: &mut Report, receipt: &MuReceipt, statement: &Statement) {
    let different = differing_fields(receipt, statement);
    let detail = if different.is_empty() {
        "the object's fields say what is signed".to_owned()
    } else {
        format!("not what is signed: {}", different.join(", "))
    };
    report.check("fields", different.is_empty(), detail, Verdict::DigestMismatch);
}

fn differing_fields(receipt: &MuReceipt, statement: &Statement) -> Vec<&'static str> {
    // Taken apart without `..`: a field that is added to the kind is compared here, or this does not compile.
    let MuReceiptSpec {
        workflow_ref,
        result,
        envelope: _,
        mu: _,
        algorithm,
        key_id,
        run_id,
        document_digest,
        outputs_digest,
        submitter,
        act_as,
        head,
        started_at,
        finished_at,
        gpu_seconds,
        error,
    } = &receipt.spec;
    let (external, internal, metadata) = (statement.external(), statement.internal(), statement.metadata());
    let workflow = &external.workflow;
    let same = |plain: &api::DigestSet, signed: &DigestSet| {
        plain.sha256 == signed.sha256 && plain.blake3 == signed.blake3
    };
    let granted = statement.grant().ok().flatten();
    let granted_head = granted
        .and_then(|envelope| serde_json::from_slice::<crypto::grant::Grant>(envelope.payload()).ok())
        .map(|grant| grant.head.name);
    let same_error = match (error, &internal.error) {
        (None, None) => true,
        (Some(plain), Some(signed)) => {
            plain.reason == signed.reason
                && plain.message == signed.message
                && plain.code == signed.code
                && plain.line.map(i64::from) == signed.line.map(i64::from)
                && plain.column.map(i64::from) == signed.column.map(i64::from)
        }
        _ => false,
    };
    [
        (
            "namespace",
            receipt
                .metadata
                .namespace
                .as_ref()
                .is_none_or(|namespace| *namespace == workflow.namespace),
        ),
        ("workflowRef.name", workflow_ref.name == workflow.name),
        ("workflowRef.uid", workflow_ref.uid == workflow.uid),
        (
            "workflowRef.generation",
            workflow_ref.generation == workflow.generation,
        ),
        (
            "workflowRef.attempt",
            i64::from(workflow_ref.attempt) == i64::from(workflow.attempt),
        ),
        ("result", result.as_str() == internal.result.name()),
        ("algorithm", *algorithm == internal.suite.name()),
        ("keyId", *key_id == internal.key_id.as_str()),
        ("runId", *run_id == metadata.invocation_id),
        ("documentDigest", same(document_digest, &external.document)),
        (
            "outputsDigest",
            match (outputs_digest, statement.outputs()) {
                (None, None) => true,
                (Some(plain), Some(signed)) => same(plain, &signed),
                _ => false,
            },
        ),
        (
            "submitter",
            submitter
                .as_ref()
                .is_none_or(|submitter| *submitter == external.submitter),
        ),
        ("actAs", *act_as == external.act_as),
        ("head", head.is_none() || *head == granted_head),
        (
            "startedAt",
            started_at.is_none_or(|time| time == metadata.started_on),
        ),
        (
            "finishedAt",
            finished_at.is_none_or(|time| time == metadata.finished_on),
        ),
        ("gpuSeconds", (gpu_seconds - statement.gpu_seconds()).abs() < 1e-9),
        ("error", same_error),
    ]
    .into_iter()
    .filter_map(|(field, same)| (!same).then_some(field))
    .collect()
}

/// The mirrored document, reversed, against the signed digest.
fn check_mirror(report: &mut Report, notes: &mut Vec<String>, mu: &str, statement: &Statement) {
    let name = "mirror";
    let (header, body) = match maml::mirror::read(mu) {
        Ok(read) => read,
        Err(error) => {
            report.check(name, false, error.to_string(), Verdict::DigestMismatch);
            return;
        }
    };
    let source = maml::mirror::reverse(body);
    let digest = DigestSet::of(source.as_bytes());
    if digest.blake3 != header.source_digest {
        let detail = "the mirrored text is not the one that its header names";
        report.check(name, false, detail, Verdict::DigestMismatch);
    } else if digest == statement.external().document {
        report.check(
            name,
            true,
            "reversed, it is the signed document",
            Verdict::DigestMismatch,
        );
    } else if source.contains("[redacted:") {
        notes.push(
            "the mirrored document was redacted, so it cannot be compared with what is signed".to_owned(),
        );
    } else {
        let detail = "reversed, it is another document than the signed one";
        report.check(name, false, detail, Verdict::DigestMismatch);
    }
}
