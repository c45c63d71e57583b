//! The verdict on a receipt: an ordered list of checks; the first that fails decides.
//!
//! Order matters to whoever reads the verdict. What cannot be a receipt is told apart first, then a key that nobody
//! vouches for, then a signature that does not hold, and only then what the signed bytes say: nothing inside the
//! payload is looked at before its signature was found valid.

use crate::attestation::{Attestation, Outcome, Unit};
use crate::digest::DigestSet;
use crate::dsse::{self, Envelope};
use crate::grant::Grant;
use crate::key::{KeyId, VerifyingKey};
use crate::key_statement::KeyStatement;
use crate::receipt::{self, InternalParameters, RunFigures, Statement};
use crate::trust::{Bundle, Error as TrustError, TrustedKey, TrustedKeys};
use jiff::Timestamp;
use serde::Serialize;
use std::fmt::{self, Display};

/// Name of the check whether a root has revoked the key.
pub const REVOCATION: &str = "revocation";

/// A receipt and what it is held against.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The receipt: the JSON of its envelope.
    pub envelope: &'a [u8],
    /// The published bundle.
    pub bundle: &'a Bundle,
    /// The root that the verifier trusts; without one, the bundle's own root is believed.
    pub pinned_root: Option<&'a KeyId>,
    /// The document that the receipt should be about.
    pub document: Option<&'a [u8]>,
    /// The outputs that the receipt should be about.
    pub outputs: Option<&'a [u8]>,
}

/// How a verification ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// Every check passed.
    Valid,
    /// It is not a receipt at all.
    NotAReceipt,
    /// Nobody whom the verifier trusts vouches for the key.
    UntrustedKey,
    /// The signed bytes are not those that were signed.
    BadSignature,
    /// The signature holds, but for another document, other outputs, or a run whose records disagree.
    DigestMismatch,
}

impl Verdict {
    /// The exit code of `chimera verify`.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Valid => 0,
            Self::NotAReceipt => 2,
            Self::BadSignature => 10,
            Self::UntrustedKey => 11,
            Self::DigestMismatch => 12,
        }
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Valid => "valid",
            Self::NotAReceipt => "not a receipt",
            Self::UntrustedKey => "untrusted key",
            Self::BadSignature => "bad signature",
            Self::DigestMismatch => "digest mismatch",
        })
    }
}

/// One check and how it went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// What was checked: a constant word or two.
    pub name: &'static str,
    /// Whether it held.
    pub passed: bool,
    /// What was found, for a person.
    pub detail: String,
}

/// Every check that was made, and the verdict.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The checks in the order in which they were made; a check that needs a failed one is absent.
    pub checks: Vec<Check>,
    /// That of the first check that failed.
    pub verdict: Verdict,
    /// What is signed; only there when the signature holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statement: Option<Statement>,
}

impl Report {
    /// A report without checks; valid until one fails.
    pub fn new() -> Self {
        Self {
            checks: Vec::new(),
            verdict: Verdict::Valid,
            statement: None,
        }
    }

    /// Adds a check; a failed one decides the verdict unless an earlier one has. Returns whether it passed.
    pub fn check(
        &mut self,
        name: &'static str,
        passed: bool,
        detail: impl Into<String>,
        otherwise: Verdict,
    ) -> bool {
        self.checks.push(Check {
            name,
            passed,
            detail: detail.into(),
        });
        if !passed && self.verdict == Verdict::Valid {
            self.verdict = otherwise;
        }
        passed
    }

    /// The first check that failed.
    pub fn failure(&self) -> Option<&Check> {
        self.checks.iter().find(|check| !check.passed)
    }

    fn fail(&mut self, name: &'static str, detail: impl Into<String>, verdict: Verdict) {
        self.check(name, false, detail, verdict);
    }

    fn pass(&mut self, name: &'static str, detail: impl Into<String>) {
        self.check(name, true, detail, Verdict::Valid);
    }
}

impl Default for Report {
    fn default() -> Self {
        Self::new()
    }
}

/// Verifies one receipt.
pub fn verify(request: &Request<'_>) -> Report {
    let trusted = request.bundle.verify_pinned(request.pinned_root);
    verify_with(
        request.envelope,
        trusted.as_ref(),
        request.document,
        request.outputs,
    )
}

/// Verifies one of many receipts: the bundle was verified before, once.
pub fn verify_with(
    envelope: &[u8],
    trusted: Result<&TrustedKeys, &TrustError>,
    document: Option<&[u8]>,
    outputs: Option<&[u8]>,
) -> Report {
    let mut report = Report::new();
    let Some(envelope) = check_envelope(&mut report, envelope) else {
        return report;
    };
    let Some(trusted) = check_trust(&mut report, trusted) else {
        return report;
    };
    let Some(signer) = check_key(&mut report, &envelope, trusted) else {
        return report;
    };
    if !check_signature(&mut report, &envelope, signer, trusted) {
        return report;
    }
    let Some(statement) = check_statement(&mut report, &envelope, signer) else {
        return report;
    };
    check_run(&mut report, &statement, trusted);
    if let Some(document) = document {
        check_document(&mut report, &statement, document);
    }
    if let Some(outputs) = outputs {
        check_outputs(&mut report, &statement, outputs);
    }
    report.statement = Some(statement);
    report
}

fn check_envelope(report: &mut Report, bytes: &[u8]) -> Option<Envelope> {
    let name = "envelope";
    match Envelope::from_json(bytes) {
        Ok(envelope) if envelope.payload_type() == receipt::PAYLOAD_TYPE => {
            report.pass(name, format!("DSSE, {}, one signature", receipt::PAYLOAD_TYPE));
            return Some(envelope);
        }
        Ok(envelope) => {
            let detail = format!(
                "its payload is `{}`, not an in-toto statement",
                envelope.payload_type()
            );
            report.fail(name, detail, Verdict::NotAReceipt);
        }
        Err(dsse::Error::Base64(part)) => {
            report.fail(
                name,
                format!("its {part} is damaged: not base64"),
                Verdict::BadSignature,
            );
        }
        Err(dsse::Error::Format(error)) if !error.is_data() && is_damaged(bytes) => {
            report.fail(
                name,
                format!("a receipt that was damaged: {error}"),
                Verdict::BadSignature,
            );
        }
        Err(error) => report.fail(name, chain(&error), Verdict::NotAReceipt),
    }
    None
}

/// Whether bytes that are no JSON were once a receipt: a changed byte can end a string early or start an escape, and
/// the reader should hear of a damaged receipt rather than of a file that never was one.
fn is_damaged(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    [
        "\"payloadType\"",
        receipt::PAYLOAD_TYPE,
        "\"payload\"",
        "\"signatures\"",
    ]
    .iter()
    .all(|part| text.contains(part))
}

fn check_trust<'a>(
    report: &mut Report,
    trusted: Result<&'a TrustedKeys, &TrustError>,
) -> Option<&'a TrustedKeys> {
    match trusted {
        Ok(trusted) => {
            report.pass("root", root_detail(trusted));
            report.pass(
                "bundle",
                format!(
                    "{} key statement(s), each signed by the root",
                    trusted.iter().count()
                ),
            );
            Some(trusted)
        }
        Err(error @ (TrustError::Statement { .. } | TrustError::Revocation { .. })) => {
            report.fail("bundle", chain(error), Verdict::UntrustedKey);
            None
        }
        Err(error) => {
            report.fail("root", chain(error), Verdict::UntrustedKey);
            None
        }
    }
}

fn root_detail(trusted: &TrustedKeys) -> String {
    let (root, anchor) = (trusted.root(), trusted.anchor());
    if root == anchor {
        format!("{} {}", root.suite(), root.key_id())
    } else {
        format!(
            "{} {}, which {} leads to",
            root.suite(),
            root.key_id(),
            anchor.key_id()
        )
    }
}

fn check_key<'a>(report: &mut Report, envelope: &Envelope, trusted: &'a TrustedKeys) -> Option<Signer<'a>> {
    let name = "key";
    let Some(found) = trusted.find(envelope.key_id()) else {
        let detail = format!("the root vouches for no key `{}`", envelope.key_id());
        report.fail(name, detail, Verdict::UntrustedKey);
        return None;
    };
    let Some(key) = found.signing() else {
        let purpose = found.statement.purpose;
        report.fail(
            name,
            format!("key {} is for {purpose}, not for signing", envelope.key_id()),
            Verdict::UntrustedKey,
        );
        return None;
    };
    report.pass(name, format!("the root vouches for {}", envelope.key_id()));
    Some(Signer { trusted: found, key })
}

/// A key that may sign receipts.
#[derive(Clone, Copy)]
struct Signer<'a> {
    trusted: &'a TrustedKey,
    key: &'a VerifyingKey,
}

fn check_signature(
    report: &mut Report,
    envelope: &Envelope,
    signer: Signer<'_>,
    trusted: &TrustedKeys,
) -> bool {
    let name = "signature";
    let suite = signer.key.suite();
    if envelope.verify(signer.key).is_ok() {
        report.pass(name, format!("{suite} over the pre-authentication encoding"));
        return true;
    }
    let actual = trusted
        .iter()
        .filter_map(|other| other.key.as_verifying())
        .find(|other| *other != signer.key && envelope.verify(other).is_ok());
    match actual {
        Some(actual) => {
            let detail = format!(
                "the envelope names key {}, but {} signed it",
                envelope.key_id(),
                actual.key_id()
            );
            report.fail("key", detail, Verdict::UntrustedKey);
        }
        None => report.fail(
            name,
            format!("not a {suite} signature of this payload"),
            Verdict::BadSignature,
        ),
    }
    false
}

fn check_statement(report: &mut Report, envelope: &Envelope, signer: Signer<'_>) -> Option<Statement> {
    let statement = match receipt::parse(envelope) {
        Ok(statement) => statement,
        Err(error) => {
            report.fail("statement", chain(&error), Verdict::NotAReceipt);
            return None;
        }
    };
    report.pass(
        "statement",
        format!("{}, {}", receipt::STATEMENT_TYPE, receipt::PREDICATE_TYPE),
    );
    let internal = statement.internal();
    report.check(
        "suite",
        internal.suite == signer.key.suite(),
        format!("the signed bytes name {}", internal.suite),
        Verdict::BadSignature,
    );
    check_signer(report, internal, signer);
    check_validity(report, &signer.trusted.statement, internal.signed_at);
    check_revocation(report, signer.trusted, internal.signed_at);
    Some(statement)
}

/// The signed bytes name the key that signed them and, if any, the key before it as the root's statement does.
fn check_signer(report: &mut Report, internal: &InternalParameters, signer: Signer<'_>) {
    let own = internal.key_id == *signer.key.key_id();
    let vouched = signer.trusted.statement.predecessor.as_ref();
    let (passed, detail) = match &internal.predecessor {
        None => (
            own,
            format!("the signed bytes name key {}", internal.key_id.short()),
        ),
        Some(named) => (
            own && vouched == Some(named),
            format!(
                "the signed bytes name key {} after {}",
                internal.key_id.short(),
                named.short()
            ),
        ),
    };
    report.check("signer", passed, detail, Verdict::UntrustedKey);
}

fn check_validity(report: &mut Report, statement: &KeyStatement, signed_at: Timestamp) {
    let end = statement
        .not_after
        .map_or_else(|| "further notice".to_owned(), |end| end.to_string());
    report.check(
        "validity",
        statement.valid_at(signed_at),
        format!(
            "signed {signed_at}; the key is valid from {} until {end}",
            statement.not_before
        ),
        Verdict::UntrustedKey,
    );
}

/// Whoever holds a key writes any time into what he signs: a revocation without a beginning spares nothing.
fn check_revocation(report: &mut Report, key: &TrustedKey, time: Timestamp) {
    let (passed, detail) = match &key.revocation {
        None => (true, "no root has revoked the key".to_owned()),
        Some(revocation) => {
            let spared = revocation.spares(time);
            let verb = if spared { "counts" } else { "does not count" };
            let id = key.statement.key_id.short();
            (
                spared,
                format!("key {id} was {revocation}: what it signed at {time} {verb}"),
            )
        }
    };
    report.check(REVOCATION, passed, detail, Verdict::UntrustedKey);
}

/// The two records of the run, against one another and against the receipt.
fn check_run(report: &mut Report, statement: &Statement, trusted: &TrustedKeys) {
    let internal = statement.internal();
    let explained = (internal.result == Outcome::Error) == internal.error.is_some();
    let detail = match &internal.error {
        Some(error) => format!("{}: {}: {}", internal.result.name(), error.reason, error.message),
        None => internal.result.name().to_owned(),
    };
    report.check("result", explained, detail, Verdict::DigestMismatch);

    let grant = check_grant(report, statement, trusted);
    let attestation = check_attestation(report, statement, grant.as_ref());
    check_subject(report, statement, attestation.as_ref());
}

/// A grant that a trusted key signed, its envelope, and the head's key that it names.
struct Granted {
    /// Why its key is no longer believed, if it is not.
    revoked: Option<String>,
    grant: Grant,
    envelope: Envelope,
    attester: VerifyingKey,
}

fn check_grant(report: &mut Report, statement: &Statement, trusted: &TrustedKeys) -> Option<Granted> {
    let granted = read_grant(statement, trusted);
    let (passed, detail) = match &granted {
        Ok(Some(Granted { grant, .. })) => match grant_difference(statement, grant) {
            None => (
                true,
                format!(
                    "granted to head {} (pod {}{}) under a trusted key",
                    grant.head.name,
                    grant.head.pod,
                    match grant.isolation {
                        Unit::Process => "",
                        Unit::Pod => ", for this run alone",
                    }
                ),
            ),
            Some(field) => (false, format!("the grant's {field} is not the receipt's")),
        },
        Ok(None) => (
            statement.result() == Outcome::Error,
            "nothing was granted, so nothing ran".to_owned(),
        ),
        Err(detail) => (false, detail.clone()),
    };
    report.check("grant", passed, detail, Verdict::DigestMismatch);
    let granted = granted.ok().flatten();
    if let Some(Granted {
        revoked: Some(detail),
        ..
    }) = &granted
    {
        report.check(REVOCATION, false, detail, Verdict::UntrustedKey);
    }
    granted
}

fn check_attestation(
    report: &mut Report,
    statement: &Statement,
    granted: Option<&Granted>,
) -> Option<Attestation> {
    let attested = read_attestation(statement, granted);
    let (passed, detail) = match &attested {
        Ok(Some(attestation)) => match attestation_difference(statement, attestation) {
            None => {
                let result = attestation.result.name();
                let isolation = attestation.isolation.describe();
                (
                    true,
                    format!("{result} by the head that the grant names, for that grant; {isolation}"),
                )
            }
            Some(field) => (false, format!("the attestation's {field} is not the receipt's")),
        },
        Ok(None) => (
            statement.result() == Outcome::Error,
            "no head attested a run".to_owned(),
        ),
        Err(detail) => (false, detail.clone()),
    };
    report.check("attestation", passed, detail, Verdict::DigestMismatch);
    attested.ok().flatten()
}

fn check_subject(report: &mut Report, statement: &Statement, attestation: Option<&Attestation>) {
    let attested = attestation.and_then(|attestation| attestation.outputs.as_ref());
    let (holds, detail) = match attested {
        Some(outputs) => (
            statement.outputs().as_ref() == Some(outputs),
            "the outputs that the head attested",
        ),
        None => (
            statement.subject_named(receipt::DOCUMENT).as_ref() == Some(&statement.external().document),
            "the document: there are no outputs",
        ),
    };
    report.check("subject", holds, detail, Verdict::DigestMismatch);
}

fn read_grant(statement: &Statement, trusted: &TrustedKeys) -> Result<Option<Granted>, String> {
    let Some(envelope) = statement.grant().map_err(|error| chain(&error))? else {
        return Ok(None);
    };
    let unknown = || {
        format!(
            "the root vouches for no signing key `{}` of the grant",
            envelope.key_id()
        )
    };
    let signer = trusted.find(envelope.key_id()).ok_or_else(unknown)?;
    let key = signer.signing().ok_or_else(unknown)?;
    let (grant, attester) = Grant::verify_for_attester(&envelope, key).map_err(|error| chain(&error))?;
    // Overlap, not containment: a controller may date a grant back a little, for heads whose clocks run late.
    let statement = &signer.statement;
    let ended = statement.not_after.is_some_and(|end| end < grant.not_before);
    if statement.not_before <= grant.expires && !ended {
        Ok(Some(Granted {
            revoked: signer
                .revoked_at(grant.not_before)
                .map(|revocation| format!("the grant's key was {revocation}")),
            grant,
            envelope,
            attester,
        }))
    } else {
        Err("the grant's key was not valid when the grant was made".to_owned())
    }
}

fn read_attestation(statement: &Statement, granted: Option<&Granted>) -> Result<Option<Attestation>, String> {
    let Some(envelope) = statement.attestation().map_err(|error| chain(&error))? else {
        return Ok(None);
    };
    let granted = granted.ok_or("an attestation without a grant")?;
    let attestation = Attestation::verify(&envelope, &granted.attester).map_err(|error| chain(&error))?;
    if attestation.grant != DigestSet::of(granted.envelope.payload()) {
        return Err("the attestation answers another grant".to_owned());
    }
    let (given, asked) = (attestation.isolation.unit, granted.grant.isolation);
    if given == asked {
        Ok(Some(attestation))
    } else {
        Err(format!(
            "the run had isolation {}, and {} was granted",
            given.name(),
            asked.name()
        ))
    }
}

/// The first field in which the grant differs from the receipt.
fn grant_difference(statement: &Statement, grant: &Grant) -> Option<&'static str> {
    let external = statement.external();
    let dependencies = &statement.predicate.build_definition.resolved_dependencies;
    [
        ("run id", grant.run_id == statement.metadata().invocation_id),
        ("workflow", grant.workflow == external.workflow),
        ("document", grant.document == external.document),
        ("inputs", grant.inputs == external.inputs),
        ("sealed inputs", grant.sealed_inputs == external.sealed_inputs),
        ("submitter", grant.submitter == external.submitter),
        ("agent", grant.act_as == external.act_as),
        (
            "specifications",
            receipt::build_specifications(&grant.specifications)
                .iter()
                .all(|one| dependencies.contains(one)),
        ),
    ]
    .into_iter()
    .find_map(|(field, same)| (!same).then_some(field))
}

/// The first field in which the attestation differs from the receipt.
fn attestation_difference(statement: &Statement, attestation: &Attestation) -> Option<&'static str> {
    let metadata = statement.metadata();
    let figures = statement
        .byproduct(receipt::ATTESTATION)
        .and_then(|descriptor| descriptor.annotations.as_ref());
    let dependencies = &statement.predicate.build_definition.resolved_dependencies;
    // A failed run may be reported as one, and a good run as a failure (its outputs broke their schema); never a
    // failed run as a success.
    let result = attestation.result == Outcome::Success || statement.result() == Outcome::Error;
    [
        ("run id", attestation.run_id == metadata.invocation_id),
        ("result", result),
        ("start", attestation.started_at == metadata.started_on),
        ("end", attestation.finished_at == metadata.finished_on),
        ("figures", figures == Some(&RunFigures::of(attestation))),
        (
            "environment",
            receipt::build_attested_dependencies(attestation)
                .iter()
                .all(|one| dependencies.contains(one)),
        ),
    ]
    .into_iter()
    .find_map(|(field, same)| (!same).then_some(field))
}

fn check_document(report: &mut Report, statement: &Statement, document: &[u8]) {
    let expected = &statement.external().document;
    let listed = statement
        .predicate
        .build_definition
        .resolved_dependencies
        .iter()
        .any(|one| one.name.as_deref() == Some(receipt::DOCUMENT) && one.digest == expected.to_map());
    let holds = expected.matches(document) && listed;
    report.check(
        "document",
        holds,
        compared("document", &expected.sha256, document),
        Verdict::DigestMismatch,
    );
}

fn check_outputs(report: &mut Report, statement: &Statement, outputs: &[u8]) {
    match statement.outputs() {
        Some(expected) => {
            let holds = expected.matches(outputs);
            report.check(
                "outputs",
                holds,
                compared("outputs", &expected.sha256, outputs),
                Verdict::DigestMismatch,
            );
        }
        None => report.fail(
            "outputs",
            "the receipt is about no outputs",
            Verdict::DigestMismatch,
        ),
    }
}

fn compared(what: &str, signed: &str, given: &[u8]) -> String {
    let given = crate::digest::sha256_hex(given);
    if given == signed {
        format!("sha256 {signed}")
    } else {
        format!("the signed {what} has sha256 {signed}, the given file {given}")
    }
}

/// An error with its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KeyStatement;
    use crate::key_statement::KeyPurpose;
    use crate::sample::{self, Sample, key};

    fn judge(sample: &Sample, file: &[u8]) -> Report {
        verify(&Request {
            envelope: file,
            bundle: &sample.bundle,
            pinned_root: None,
            document: None,
            outputs: None,
        })
    }

    fn verdict_of(sample: &Sample) -> (Verdict, &'static str) {
        let report = judge(sample, &sample.file());
        (report.verdict, report.failure().map_or("", |check| check.name))
    }

    /// Signs a receipt whose statement was changed after it was built.
    fn resigned(sample: &Sample, change: impl FnOnce(&mut Statement)) -> Report {
        let mut statement = receipt::statement(&sample.claim).unwrap();
        change(&mut statement);
        let payload = serde_json::to_vec(&statement).unwrap();
        let envelope = Envelope::sign(receipt::PAYLOAD_TYPE, &payload, &sample.signing).unwrap();
        judge(sample, envelope.to_json().as_bytes())
    }

    #[test]
    fn a_sound_receipt_passes_every_check() {
        let sample = Sample::success();
        let report = verify(&Request {
            envelope: &sample.file(),
            bundle: &sample.bundle,
            pinned_root: Some(sample.root.verifying_key().key_id()),
            document: Some(sample::DOCUMENT),
            outputs: Some(sample::OUTPUTS),
        });
        assert_eq!(report.failure(), None);
        assert_eq!(report.verdict, Verdict::Valid);
        assert_eq!(
            report.checks.iter().map(|check| check.name).collect::<Vec<_>>(),
            [
                "envelope",
                "root",
                "bundle",
                "key",
                "signature",
                "statement",
                "suite",
                "signer",
                "validity",
                "revocation",
                "result",
                "grant",
                "attestation",
                "subject",
                "document",
                "outputs"
            ]
        );
        assert_eq!(report.statement.unwrap().result(), Outcome::Success);
    }

    #[test]
    fn a_receipt_of_a_refused_document_is_valid_but_has_no_outputs() {
        let sample = Sample::refused();
        let request = Request {
            envelope: &sample.file(),
            bundle: &sample.bundle,
            pinned_root: None,
            document: Some(sample::DOCUMENT),
            outputs: None,
        };
        assert_eq!(verify(&request).failure(), None);
        let report = verify(&Request {
            outputs: Some(b"{}"),
            ..request
        });
        assert_eq!(
            (report.verdict, report.failure().unwrap().name),
            (Verdict::DigestMismatch, "outputs")
        );
    }

    #[test]
    fn files_that_are_no_receipts_say_so() {
        let sample = Sample::success();
        let grant = sample.claim.grant.as_ref().unwrap().to_json();
        let signed_other = Envelope::sign(receipt::PAYLOAD_TYPE, b"{}", &sample.signing)
            .unwrap()
            .to_json();
        let extra = String::from_utf8(sample.file())
            .unwrap()
            .replacen('{', "{\"extra\":0,", 1);
        for file in [
            "",
            "hello",
            "{}",
            "[]",
            "null",
            &grant,
            &signed_other,
            &sample.bundle.to_json(),
            &extra,
        ] {
            assert_eq!(
                judge(&sample, file.as_bytes()).verdict,
                Verdict::NotAReceipt,
                "{file:.40}"
            );
        }
    }

    #[test]
    fn another_document_or_other_outputs_are_told_apart() {
        let sample = Sample::success();
        let file = sample.file();
        let request = Request {
            envelope: &file,
            bundle: &sample.bundle,
            pinned_root: None,
            document: None,
            outputs: None,
        };
        let report = verify(&Request {
            document: Some(b"another"),
            ..request
        });
        assert_eq!(
            (report.verdict, report.failure().unwrap().name),
            (Verdict::DigestMismatch, "document")
        );
        let report = verify(&Request {
            outputs: Some(b"{}"),
            ..request
        });
        assert_eq!(
            (report.verdict, report.failure().unwrap().name),
            (Verdict::DigestMismatch, "outputs")
        );
    }

    #[test]
    fn a_key_that_nobody_vouches_for_is_untrusted() {
        let mut sample = Sample::success();
        let other = key(9);
        let pinned = other.verifying_key().key_id();
        let report = verify(&Request {
            envelope: &sample.file(),
            bundle: &sample.bundle,
            pinned_root: Some(pinned),
            document: None,
            outputs: None,
        });
        assert_eq!(
            (report.verdict, report.failure().unwrap().name),
            (Verdict::UntrustedKey, "root")
        );

        sample.bundle = sample::bundle(&other);
        sample.bundle.root = Sample::success().bundle.root;
        assert_eq!(verdict_of(&sample), (Verdict::UntrustedKey, "bundle"));

        let mut sample = Sample::success();
        sample.bundle.statements.remove(0);
        assert_eq!(verdict_of(&sample), (Verdict::UntrustedKey, "key"));

        for (seed, purpose) in [(9, None), (5, Some(KeyPurpose::Sealing))] {
            let mut sample = Sample::success();
            sample.signing = key(seed);
            sample.claim.key_id = key(seed).verifying_key().key_id().clone();
            assert_eq!(verdict_of(&sample), (Verdict::UntrustedKey, "key"), "{purpose:?}");
        }
    }

    #[test]
    fn a_key_id_that_is_not_the_signing_keys_is_untrusted() {
        let sample = Sample::success();
        let text = String::from_utf8(sample.file()).unwrap();
        let own = sample.signing.verifying_key().key_id().as_str();
        for other in [
            key(3).verifying_key().key_id().as_str(),
            key(9).verifying_key().key_id().as_str(),
            "",
            "x",
        ] {
            let report = judge(&sample, text.replace(own, other).as_bytes());
            assert_eq!(
                (report.verdict, report.failure().unwrap().name),
                (Verdict::UntrustedKey, "key"),
                "{other}"
            );
        }
    }

    #[test]
    fn a_receipt_that_names_other_keys_than_the_roots_statement_is_untrusted() {
        type Change = fn(&mut InternalParameters, KeyId);
        let sample = Sample::success();
        // The hint is right, but the signed bytes name another trusted key, or another key before it.
        let changes: [(u8, Change); 2] = [
            (3, |internal, other| internal.key_id = other),
            (5, |internal, other| internal.predecessor = Some(other)),
        ];
        for (other, change) in changes {
            let report = resigned(&sample, |statement| {
                let internal = &mut statement.predicate.build_definition.internal_parameters;
                change(internal, key(other).verifying_key().key_id().clone());
            });
            assert_eq!(
                (report.verdict, report.failure().unwrap().name),
                (Verdict::UntrustedKey, "signer")
            );
        }
        let unnamed = resigned(&sample, |statement| {
            statement
                .predicate
                .build_definition
                .internal_parameters
                .predecessor = None;
        });
        assert_eq!(unnamed.verdict, Verdict::Valid, "receipts need not name it");
    }

    #[test]
    fn a_signature_made_outside_the_keys_validity_is_untrusted() {
        for (time, verdict) in [
            ("2025-12-31T23:59:59Z", Verdict::UntrustedKey),
            ("2027-01-01T00:00:00Z", Verdict::Valid),
            ("2027-01-01T00:00:01Z", Verdict::UntrustedKey),
        ] {
            let mut sample = Sample::success();
            sample.claim.signed_at = time.parse().unwrap();
            assert_eq!(verdict_of(&sample).0, verdict, "{time}");
        }
    }

    #[test]
    fn records_that_disagree_are_a_mismatch() {
        type Change = fn(&mut Sample);
        let cases: [(&str, &str, Change); 8] = [
            ("a grant by a key that nobody vouches for", "grant", |sample| {
                sample.claim.grant = Some(
                    sample::grant(sample.attester.verifying_key())
                        .sign(&key(9))
                        .unwrap(),
                );
            }),
            ("a grant for another document", "grant", |sample| {
                sample.claim.document = DigestSet::of(b"another");
            }),
            ("a grant for another submitter", "grant", |sample| {
                sample.claim.submitter = "mallory".into();
            }),
            ("a grant for another run", "grant", |sample| {
                sample.claim.run_id = "f".repeat(32);
            }),
            ("an attestation by another head", "attestation", |sample| {
                let grant = sample.claim.grant.as_ref().unwrap();
                let forged = sample::attestation(grant.payload(), sample::OUTPUTS)
                    .sign(&key(9))
                    .unwrap();
                sample.claim.attestation = Some(forged);
            }),
            ("an attestation of another grant", "attestation", |sample| {
                let forged = sample::attestation(b"another", sample::OUTPUTS)
                    .sign(&sample.attester)
                    .unwrap();
                sample.claim.attestation = Some(forged);
            }),
            ("an attestation of another run", "attestation", |sample| {
                let grant = sample.claim.grant.as_ref().unwrap();
                let mut forged = sample::attestation(grant.payload(), sample::OUTPUTS);
                forged.run_id = "f".repeat(32);
                sample.claim.attestation = Some(forged.sign(&sample.attester).unwrap());
            }),
            ("a grant that came before its key", "grant", |sample| {
                let mut early = sample::grant(sample.attester.verifying_key());
                early.not_before = "2025-01-01T00:00:00Z".parse().unwrap();
                early.expires = "2025-01-01T00:01:00Z".parse().unwrap();
                sample.claim.grant = Some(early.sign(&sample.signing).unwrap());
            }),
        ];
        for (case, check, change) in cases {
            let mut sample = Sample::success();
            change(&mut sample);
            assert_eq!(verdict_of(&sample), (Verdict::DigestMismatch, check), "{case}");
        }
    }

    #[test]
    fn a_statement_bent_before_it_was_signed_is_a_mismatch() {
        type Change = fn(&mut Statement);
        let sample = Sample::success();
        let cases: [(&str, Change); 7] = [
            ("subject", |s| {
                s.subject[0].digest = DigestSet::of(b"other").to_map();
            }),
            ("attestation", |s| {
                let figures = s.predicate.run_details.byproducts[1]
                    .annotations
                    .as_mut()
                    .unwrap();
                figures.gpu_seconds = 0.0;
            }),
            ("attestation", |s| {
                s.predicate.run_details.metadata.finished_on = Timestamp::UNIX_EPOCH;
            }),
            ("attestation", |s| {
                s.predicate.build_definition.resolved_dependencies.truncate(2);
            }),
            ("attestation", |s| s.predicate.run_details.byproducts.truncate(1)),
            ("grant", |s| s.predicate.run_details.byproducts.clear()),
            ("result", |s| {
                s.predicate.build_definition.internal_parameters.result = Outcome::Error;
            }),
        ];
        for (check, change) in cases {
            let report = resigned(&sample, change);
            assert_eq!(
                (report.verdict, report.failure().unwrap().name),
                (Verdict::DigestMismatch, check)
            );
        }
    }

    #[test]
    fn a_receipt_names_every_specification_that_was_granted() {
        let mut sample = Sample::success();
        let mut grant = sample::grant(sample.attester.verifying_key());
        grant
            .specifications
            .insert("checks.py".into(), DigestSet::of(b"def post(): pass"));
        let grant = grant.sign(&sample.signing).unwrap();
        let attestation = sample::attestation(grant.payload(), sample::OUTPUTS);
        sample.claim.grant = Some(grant);
        sample.claim.attestation = Some(attestation.sign(&sample.attester).unwrap());
        assert_eq!(verdict_of(&sample), (Verdict::Valid, ""));
        let report = resigned(&sample, |statement| {
            let dependencies = &mut statement.predicate.build_definition.resolved_dependencies;
            let before = dependencies.len();
            dependencies.retain(|one| one.name.as_deref() != Some("specification/checks.py"));
            assert_eq!(dependencies.len(), before - 1);
        });
        assert_eq!(
            (report.verdict, report.failure().unwrap().name),
            (Verdict::DigestMismatch, "grant")
        );
    }

    #[test]
    fn the_isolation_that_was_granted_is_the_one_that_was_given_and_is_shown() {
        let with = |asked: Unit, given: Unit| {
            let mut sample = Sample::success();
            let mut grant = sample::grant(sample.attester.verifying_key());
            grant.isolation = asked;
            let grant = grant.sign(&sample.signing).unwrap();
            let mut attestation = sample::attestation(grant.payload(), sample::OUTPUTS);
            attestation.isolation.unit = given;
            sample.claim.grant = Some(grant);
            sample.claim.attestation = Some(attestation.sign(&sample.attester).unwrap());
            sample
        };
        for unit in [Unit::Process, Unit::Pod] {
            let sample = with(unit, unit);
            assert_eq!(verdict_of(&sample), (Verdict::Valid, ""));
            let report = resigned(&sample, |_| {});
            let attested = report
                .checks
                .iter()
                .find(|check| check.name == "attestation")
                .unwrap();
            assert!(
                attested
                    .detail
                    .contains(&format!("; isolation {}: landlock ", unit.name())),
                "{}",
                attested.detail
            );
        }
        for (asked, given) in [(Unit::Pod, Unit::Process), (Unit::Process, Unit::Pod)] {
            assert_eq!(
                verdict_of(&with(asked, given)),
                (Verdict::DigestMismatch, "attestation")
            );
        }
        // What shares its pod is signed as it ever was.
        let plain = serde_json::to_value(sample::attestation(b"grant", sample::OUTPUTS)).unwrap();
        assert_eq!(plain["isolation"].get("unit"), None);
    }

    #[test]
    fn a_failed_run_cannot_be_receipted_as_a_success() {
        let mut sample = Sample::success();
        let grant = sample.claim.grant.as_ref().unwrap();
        let mut failed = sample::attestation(grant.payload(), b"");
        failed.result = Outcome::Error;
        failed.outputs = None;
        let cause = crate::attestation::RunError {
            reason: "BlockFailed".into(),
            message: "division by zero".into(),
            line: Some(12),
            column: None,
            code: None,
        };
        failed.error = Some(cause.clone());
        sample.claim.attestation = Some(failed.sign(&sample.attester).unwrap());
        assert!(receipt::statement(&sample.claim).is_err());
        sample.claim.error = Some(cause);
        assert_eq!(verdict_of(&sample), (Verdict::Valid, ""));
        let report = resigned(&sample, |statement| {
            statement.predicate.build_definition.internal_parameters.result = Outcome::Success;
            statement.predicate.build_definition.internal_parameters.error = None;
        });
        assert_eq!(
            (report.verdict, report.failure().unwrap().name),
            (Verdict::DigestMismatch, "attestation")
        );
    }

    /// A receipt small enough to change it at every place.
    #[test]
    fn no_receipt_with_one_byte_changed_is_accepted_and_the_verdict_fits_the_place() {
        let sample = Sample::refused();
        let file = sample.file();
        let text = String::from_utf8(file.clone()).unwrap();
        let trusted = sample.bundle.verify().unwrap();
        let range = |field: &str| {
            let start = text.find(&format!("\"{field}\":\"")).unwrap() + field.len() + 4;
            start..start + text[start..].find('"').unwrap()
        };
        let (payload, signature, key_id) = (range("payload"), range("sig"), range("keyid"));
        let mut accepted = 0;
        for index in 0..file.len() {
            for flip in [0x01, 0x20, 0x80] {
                let mut bent = file.clone();
                bent[index] ^= flip;
                let verdict = verify_with(&bent, Ok(&trusted), None, None).verdict;
                accepted += usize::from(verdict == Verdict::Valid);
                if payload.contains(&index) || signature.contains(&index) {
                    assert_eq!(verdict, Verdict::BadSignature, "byte {index} ^ {flip:#x}");
                } else if key_id.contains(&index) && bent[index] != b'"' && bent[index].is_ascii_graphic() {
                    assert_eq!(verdict, Verdict::UntrustedKey, "byte {index} ^ {flip:#x}");
                }
            }
        }
        println!("{} bytes, 3 flips each: {accepted} accepted", file.len());
        assert_eq!(accepted, 0);
    }

    #[test]
    fn a_bundle_with_one_byte_changed_never_gives_a_key_that_the_root_did_not_sign() {
        let root = key(1);
        let start = "2026-01-01T00:00:00Z".parse().unwrap();
        let statement =
            KeyStatement::about(key(2).verifying_key(), KeyPurpose::Signing, start, None, None, 0);
        let bundle = Bundle::new(root.verifying_key(), vec![statement.sign(&root).unwrap()]);
        let json = bundle.to_json().into_bytes();
        let pinned = root.verifying_key().key_id();
        let unchanged = bundle.verify().unwrap();
        for index in (0..json.len()).step_by(7) {
            let mut bent = json.clone();
            bent[index] ^= 0x02;
            if let Ok(trusted) =
                Bundle::from_json(&bent).and_then(|bundle| bundle.verify_pinned(Some(pinned)))
            {
                let same = trusted.iter().eq(unchanged.iter());
                assert!(same, "byte {index}");
            }
        }
    }

    #[test]
    fn exit_codes_are_those_of_the_command_line() {
        let codes = [
            (Verdict::Valid, 0),
            (Verdict::NotAReceipt, 2),
            (Verdict::BadSignature, 10),
            (Verdict::UntrustedKey, 11),
            (Verdict::DigestMismatch, 12),
        ];
        for (verdict, code) in codes {
            assert_eq!(verdict.exit_code(), code);
        }
    }
}
