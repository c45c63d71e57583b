//! The status of a MamlWorkflow at each step of its run. No IO; the same input gives the same status.

use api::{
    ConditionStatus, DigestSet, MamlWorkflow, MamlWorkflowStatus, MuReceipt,
    condition::{
        ACCEPTED, COMPLETE, READY, SCHEDULED, SIGNED, STALLED, SUCCEEDED, Verdict, find, is_true, remove, set,
    },
    maml_workflow::{BlockState, BlockStatus, Candidate, Diagnostic, OUTPUTS_LIMIT, ReceiptRef, Severity},
    mu_receipt::ReceiptResult,
    reasons,
};
use crypto::attestation::{Attestation, RunError};
use jiff::Timestamp;

use crate::{claim::Claim, document::Refusal, run::Record};

/// Why a run waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    /// The condition that says so: `Accepted`, `Scheduled` or `Signed`.
    pub condition: &'static str,
    /// One of [`api::reasons`].
    pub reason: &'static str,
    /// For a person.
    pub message: String,
    /// What stands between the run and each head.
    pub candidates: Vec<Candidate>,
}

impl Wait {
    fn because(condition: &'static str, reason: &'static str, message: String) -> Self {
        Self {
            condition,
            reason,
            message,
            candidates: Vec::new(),
        }
    }

    /// Whether something tells of the end of the wait. Nothing tells when a quota has room again.
    pub fn is_told(&self) -> bool {
        !matches!(self.reason, reasons::PODS_REFUSED | reasons::NAME_TAKEN)
    }

    /// `spec.suspend` is set.
    pub fn suspended() -> Self {
        let message = "spec.suspend is true; set it to false to start the run".to_owned();
        Self::because(SCHEDULED, reasons::SUSPENDED, message)
    }

    /// The document's ConfigMap is not there.
    pub fn for_source(message: String) -> Self {
        Self::because(ACCEPTED, reasons::SOURCE_NOT_FOUND, message)
    }

    /// The run is over, or will never begin, and no published key can sign its receipt.
    pub fn to_be_signed(message: String) -> Self {
        Self {
            condition: SIGNED,
            ..Self::for_signer(message)
        }
    }

    /// No published key can sign, so that no run is begun.
    pub fn for_signer(message: String) -> Self {
        Self::because(SCHEDULED, reasons::SIGNING_KEY_UNAVAILABLE, message)
    }

    /// No key at hand opens the sealed inputs.
    pub fn for_opener(message: String) -> Self {
        Self::because(SCHEDULED, reasons::SEALING_KEY_UNAVAILABLE, message)
    }

    /// No head has room.
    pub fn for_head(reason: &'static str, message: String) -> Self {
        Self::because(SCHEDULED, reason, message)
    }
}

/// One condition to set: type, status, reason, message.
type Row<'a> = (&'static str, ConditionStatus, &'a str, &'a str);

fn set_all(status: &mut MamlWorkflowStatus, rows: &[Row<'_>], now: Timestamp) {
    let observed_generation = status.observed_generation;
    for &(type_, condition, reason, message) in rows {
        let verdict = Verdict {
            type_,
            status: condition,
            reason,
            message,
            observed_generation,
        };
        set(&mut status.conditions, &verdict, now);
    }
}

/// Whether no wait has been shown yet, so that a short one need not be.
pub fn says_nothing_yet(status: &MamlWorkflowStatus) -> bool {
    find(&status.conditions, SCHEDULED).is_none() && status.attempts.is_empty()
}

/// The status of a run that waits.
pub fn waiting(mut status: MamlWorkflowStatus, wait: &Wait, now: Timestamp) -> MamlWorkflowStatus {
    let message = wait.message.as_str();
    let (ready, what) = if wait.reason == reasons::SUSPENDED {
        (reasons::SUSPENDED, message)
    } else {
        (reasons::PENDING, message)
    };
    let mut rows: Vec<Row<'_>> = Vec::new();
    if wait.condition == ACCEPTED {
        rows.push((ACCEPTED, ConditionStatus::Unknown, wait.reason, message));
        rows.push((
            SCHEDULED,
            ConditionStatus::False,
            reasons::PENDING,
            "the document is not known yet",
        ));
    } else {
        rows.push((wait.condition, ConditionStatus::False, wait.reason, message));
    }
    rows.push((
        COMPLETE,
        ConditionStatus::False,
        reasons::PENDING,
        "the run waits",
    ));
    rows.push((READY, ConditionStatus::False, ready, what));
    set_all(&mut status, &rows, now);
    status.candidates.clone_from(&wait.candidates);
    status
}

/// The status of a run that has claimed a head.
pub fn claimed(mut status: MamlWorkflowStatus, claim: &Claim) -> MamlWorkflowStatus {
    let Claim { head, attempt, .. } = claim;
    status.run_id = Some(claim.run_id.clone());
    status.attempt = Some(*attempt);
    status.gpus = i32::try_from(head.devices.len()).ok();
    status.scheduled_at = Some(claim.time);
    status.document_digest = Some(claim.document.clone());
    status.inputs_digest = Some(claim.inputs.clone());
    let on = format!("runs on pod {}, attempt {attempt}", head.pod);
    status.head = Some(head.clone());
    status.candidates.clear();
    let rows: [Row<'_>; 6] = [
        (
            ACCEPTED,
            ConditionStatus::True,
            reasons::DOCUMENT_ACCEPTED,
            "document, inputs and permissions are in order",
        ),
        (SCHEDULED, ConditionStatus::True, reasons::HEAD_ASSIGNED, &on),
        (
            SUCCEEDED,
            ConditionStatus::Unknown,
            reasons::RUNNING,
            "the program runs",
        ),
        (
            SIGNED,
            ConditionStatus::False,
            reasons::RECEIPT_PENDING,
            "the run is not over",
        ),
        (
            COMPLETE,
            ConditionStatus::False,
            reasons::RUNNING,
            "the program runs",
        ),
        (READY, ConditionStatus::False, reasons::RUNNING, &on),
    ];
    set_all(&mut status, &rows, claim.time);
    status
}

/// Writes what the head attested into the status.
pub fn with_record(mut status: MamlWorkflowStatus, record: &Record) -> MamlWorkflowStatus {
    let attestation = &record.attestation;
    status.started_at = Some(attestation.started_at);
    status.finished_at = Some(attestation.finished_at);
    let millis = attestation
        .finished_at
        .duration_since(attestation.started_at)
        .as_millis();
    let millis = i64::try_from(millis).unwrap_or(i64::MAX).max(0);
    status.duration_millis = Some(millis);
    status.duration = Some(readable(millis));
    status.gpu_seconds = Some(attestation.gpu_seconds);
    status.outputs_digest = attestation.outputs.as_ref().map(shown_digest);
    let small = attestation.output_bytes <= OUTPUTS_LIMIT as u64 && record.failure.is_none();
    status.outputs = record.outputs.clone().filter(|_| small);
    status.blocks = blocks(attestation);
    status
}

fn blocks(attestation: &Attestation) -> Vec<BlockStatus> {
    let shown = attestation.blocks.iter().take(256).map(|block| BlockStatus {
        name: block.name.clone(),
        language: block.language.clone(),
        state: match block.state {
            crypto::attestation::BlockState::Succeeded => BlockState::Succeeded,
            crypto::attestation::BlockState::Failed => BlockState::Failed,
            crypto::attestation::BlockState::Skipped => BlockState::Skipped,
        },
        duration_millis: i64::try_from(block.duration_millis).ok(),
        diagnostics: block_diagnostics(&block.diagnostics),
    });
    shown.collect()
}

fn block_diagnostics(text: &str) -> Vec<Diagnostic> {
    if text.is_empty() {
        return Vec::new();
    }
    let message = shortened(text, 4096);
    vec![Diagnostic {
        code: "RUN".to_owned(),
        severity: Severity::Error,
        line: None,
        column: None,
        message,
        hint: None,
    }]
}

/// The status of a run whose receipt exists.
pub fn concluded(
    mut status: MamlWorkflowStatus,
    receipt: ReceiptRef,
    failure: Option<&RunError>,
    refusal: Option<&Refusal>,
    now: Timestamp,
) -> MamlWorkflowStatus {
    status.finished_at = status.finished_at.or(Some(now));
    status.candidates.clear();
    let signed = format!("signed as mur/{}", receipt.name);
    status.receipt_ref = Some(receipt);
    if let Some(refusal) = refusal {
        status.diagnostics.clone_from(&refusal.diagnostics);
        let message = refusal.message.as_str();
        let rows: [Row<'_>; 2] = [
            (ACCEPTED, ConditionStatus::False, refusal.reason, message),
            (
                SCHEDULED,
                ConditionStatus::False,
                reasons::NOT_SCHEDULED,
                "the document was refused",
            ),
        ];
        set_all(&mut status, &rows, now);
    } else if !is_true(&status.conditions, SCHEDULED) {
        let reason = failure.map_or(reasons::NOT_SCHEDULED, |failure| reason_constant(&failure.reason));
        let message = failure.map_or("", |failure| failure.message.as_str());
        set_all(
            &mut status,
            &[(SCHEDULED, ConditionStatus::False, reason, message)],
            now,
        );
    }
    let (reason, message) = failure.map_or((reasons::SUCCEEDED, "the run succeeded"), |failure| {
        (reason_constant(&failure.reason), failure.message.as_str())
    });
    let succeeded = ConditionStatus::from(failure.is_none());
    let ready = if failure.is_none() {
        signed.as_str()
    } else {
        message
    };
    let rows: [Row<'_>; 4] = [
        (SUCCEEDED, succeeded, reason, message),
        (SIGNED, ConditionStatus::True, reasons::RECEIPT_SIGNED, &signed),
        (
            COMPLETE,
            ConditionStatus::True,
            reasons::FINISHED,
            "the run is over and its receipt is signed",
        ),
        (READY, succeeded, reason, ready),
    ];
    set_all(&mut status, &rows, now);
    if failure.is_some() {
        set_all(
            &mut status,
            &[(STALLED, ConditionStatus::True, reason, message)],
            now,
        );
    } else {
        remove(&mut status.conditions, STALLED);
    }
    status
}

/// The status of a run of which only the receipt is left: a predecessor died between writing the two, and the head
/// is gone as well. Everything but the outputs themselves is in the receipt.
pub fn recovered(
    mut status: MamlWorkflowStatus,
    workflow: &MamlWorkflow,
    receipt: &MuReceipt,
    now: Timestamp,
) -> MamlWorkflowStatus {
    let spec = &receipt.spec;
    status.observed_generation = workflow.metadata.generation;
    status.run_id = Some(spec.run_id.clone());
    status.attempt = Some(spec.workflow_ref.attempt);
    status.document_digest = Some(spec.document_digest.clone());
    status.outputs_digest.clone_from(&spec.outputs_digest);
    status.started_at = spec.started_at;
    status.finished_at = spec.finished_at;
    status.gpu_seconds = Some(spec.gpu_seconds);
    if let (Some(start), Some(end)) = (spec.started_at, spec.finished_at) {
        let millis = i64::try_from(end.duration_since(start).as_millis())
            .unwrap_or(i64::MAX)
            .max(0);
        status.duration_millis = Some(millis);
        status.duration = Some(readable(millis));
    }
    let failure = spec.error.as_ref().map(|error| RunError {
        reason: error.reason.clone(),
        message: error.message.clone(),
        line: None,
        column: None,
        code: error.code.clone(),
    });
    let failure = failure.or_else(|| {
        (spec.result == ReceiptResult::Error).then(|| RunError {
            reason: reasons::PROGRAM_FAILED.to_owned(),
            message: "the receipt names no cause".to_owned(),
            line: None,
            column: None,
            code: None,
        })
    });
    let reference = ReceiptRef {
        name: receipt.metadata.name.clone().unwrap_or_default(),
        uid: receipt.metadata.uid.clone().unwrap_or_default(),
    };
    concluded(status, reference, failure.as_ref(), None, now)
}

/// The form of digests in the API.
pub fn shown_digest(digest: &crypto::DigestSet) -> DigestSet {
    DigestSet {
        sha256: digest.sha256.clone(),
        blake3: digest.blake3.clone(),
    }
}

/// The known reason of that name; a head's own word never becomes a reason.
pub fn reason_constant(name: &str) -> &'static str {
    reasons::ALL
        .iter()
        .find(|reason| reason.name == name)
        .map_or(reasons::PROGRAM_FAILED, |reason| reason.name)
}

/// A duration as `kubectl` would print it: `85ms`, `1.2s`, `3m20s`, `2h5m`.
pub fn readable(millis: i64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0 => format!("{millis}ms"),
        1..60 => format!("{seconds}.{}s", millis % 1000 / 100),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        _ => format!("{}h{}m", seconds / 3600, seconds % 3600 / 60),
    }
}

/// A text cut at a character's border.
pub fn shortened(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let mut end = limit.saturating_sub('…'.len_utf8());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_in_kubectl() {
        for (millis, text) in [
            (0, "0ms"),
            (85, "85ms"),
            (1234, "1.2s"),
            (200_000, "3m20s"),
            (7_500_000, "2h5m"),
        ] {
            assert_eq!(readable(millis), text);
        }
    }

    #[test]
    fn a_heads_own_words_never_become_a_reason() {
        assert_eq!(reason_constant(reasons::TIMED_OUT), reasons::TIMED_OUT);
        assert_eq!(reason_constant("Ready\nNotReady"), reasons::PROGRAM_FAILED);
    }

    #[test]
    fn a_wait_that_is_written_twice_changes_nothing() {
        let wait = Wait::for_head(reasons::HEADS_BUSY, "all busy".into());
        let first = waiting(
            MamlWorkflowStatus::default(),
            &wait,
            Timestamp::from_second(1).expect("in range"),
        );
        let second = waiting(first.clone(), &wait, Timestamp::from_second(9).expect("in range"));
        assert_eq!(first, second);
    }

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(shortened("äöü", 6), "äöü");
        assert_eq!(shortened("äöüß", 7), "äö…");
    }
}
