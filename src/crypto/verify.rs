//! The verdict on a receipt: an ordered list of checks; the first that fails decides.
//!
//! Order matters to whoever reads the verdict. What cannot be a receipt is told apart first, then a key that nobody
//! vouches for, then a signature that does not hold, and only then what the signed bytes say: nothing inside the
//! payload is looked at before its signature was found valid.

use crate::attestation::{Attestation, Outcome};
use crate::digest::DigestSet;
use crate::dsse::{self, Envelope};
use crate::grant::Grant;
use crate::key::{KeyId, VerifyingKey};
use crate::key_statement::KeyPurpose;
use crate::receipt::{self, RunFigures, Statement};
use crate::trust::{Bundle, Error as TrustError, TrustedKey, TrustedKeys};
use jiff::Timestamp;
use serde::Serialize;
use std::fmt::{self, Display};

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
            report.pass(
                "root",
                format!("{} {}", trusted.root().suite(), trusted.root().key_id()),
            );
            report.pass(
                "bundle",
                format!(
                    "{} key statement(s), each signed by the root",
                    trusted.iter().count()
                ),
            );
            Some(trusted)
        }
        Err(error @ TrustError::Statement { .. }) => {
            report.fail("bundle", chain(error), Verdict::UntrustedKey);
            None
        }
        Err(error) => {
            report.fail("root", chain(error), Verdict::UntrustedKey);
            None
        }
    }
}

fn check_key<'a>(
    report: &mut Report,
    envelope: &Envelope,
    trusted: &'a TrustedKeys,
) -> Option<&'a TrustedKey> {
    let name = "key";
    let Some(signer) = trusted.find(envelope.key_id()) else {
        let detail = format!("the root vouches for no key `{}`", envelope.key_id());
        report.fail(name, detail, Verdict::UntrustedKey);
        return None;
    };
    let purpose = signer.statement.purpose;
    if purpose != KeyPurpose::Signing {
        report.fail(
            name,
            format!("key {} is for {purpose}, not for signing", envelope.key_id()),
            Verdict::UntrustedKey,
        );
        return None;
    }
    report.pass(name, format!("the root vouches for {}", envelope.key_id()));
    Some(signer)
}

fn check_signature(
    report: &mut Report,
    envelope: &Envelope,
    signer: &TrustedKey,
    trusted: &TrustedKeys,
) -> bool {
    let name = "signature";
    let suite = signer.key.suite();
    if envelope.verify(&signer.key).is_ok() {
        report.pass(name, format!("{suite} over the pre-authentication encoding"));
        return true;
    }
    let actual = trusted
        .iter()
        .find(|other| other.key != signer.key && envelope.verify(&other.key).is_ok());
    match actual {
        Some(actual) => {
            let detail = format!(
                "the envelope names key {}, but {} signed it",
                envelope.key_id(),
                actual.key.key_id()
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

fn check_statement(report: &mut Report, envelope: &Envelope, signer: &TrustedKey) -> Option<Statement> {
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
    report.check(
        "signer",
        internal.key_id == *signer.key.key_id(),
        format!("the signed bytes name key {}", internal.key_id.short()),
        Verdict::UntrustedKey,
    );
    check_validity(report, signer, internal.signed_at);
    Some(statement)
}

fn check_validity(report: &mut Report, signer: &TrustedKey, signed_at: Timestamp) {
    let statement = &signer.statement;
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

/// The two records of the run, against one another and against the receipt.
fn check_run(report: &mut Report, statement: &Statement, trusted: &TrustedKeys) {
    let internal = statement.internal();
    let explained = (internal.result == Outcome::Error) == internal.error.is_some();
    let detail = match &internal.error {
        Some(error) => format!("{}: {}: {}", internal.result.name(), error.reason, error.message),
        None => internal.result.name().to_owned(),
    };
    report.check("result", explained, detail, Verdict::DigestMismatch);

    let grant = match read_grant(statement, trusted) {
        Ok(grant) => grant,
        Err(detail) => return report.fail("grant", detail, Verdict::DigestMismatch),
    };
    match &grant {
        Some((grant, _)) => {
            let difference = grant_difference(statement, grant);
            let detail = difference.map_or_else(
                || {
                    format!(
                        "granted to head {} (pod {}) under a trusted key",
                        grant.head.name, grant.head.pod
                    )
                },
                |field| format!("the grant's {field} is not the receipt's"),
            );
            report.check("grant", difference.is_none(), detail, Verdict::DigestMismatch);
        }
        None => {
            let detail = "nothing was granted: the document was refused before a run";
            report.check(
                "grant",
                internal.result == Outcome::Error,
                detail,
                Verdict::DigestMismatch,
            );
        }
    }
    let attestation = match read_attestation(statement, grant.as_ref()) {
        Ok(attestation) => attestation,
        Err(detail) => return report.fail("attestation", detail, Verdict::DigestMismatch),
    };
    match &attestation {
        Some(attestation) => {
            let difference = attestation_difference(statement, attestation);
            let detail = difference.map_or_else(
                || {
                    format!(
                        "{} by the head that the grant names, for that grant",
                        attestation.result.name()
                    )
                },
                |field| format!("the attestation's {field} is not the receipt's"),
            );
            report.check(
                "attestation",
                difference.is_none(),
                detail,
                Verdict::DigestMismatch,
            );
        }
        None => {
            let detail = "no head attested a run";
            report.check(
                "attestation",
                internal.result == Outcome::Error,
                detail,
                Verdict::DigestMismatch,
            );
        }
    }
    check_subject(report, statement, attestation.as_ref());
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

fn read_grant(statement: &Statement, trusted: &TrustedKeys) -> Result<Option<(Grant, Envelope)>, String> {
    let Some(envelope) = statement.grant().map_err(|error| chain(&error))? else {
        return Ok(None);
    };
    let signer = trusted
        .find(envelope.key_id())
        .filter(|signer| signer.statement.purpose == KeyPurpose::Signing)
        .ok_or_else(|| {
            format!(
                "the root vouches for no signing key `{}` of the grant",
                envelope.key_id()
            )
        })?;
    let grant = Grant::verify(&envelope, &signer.key).map_err(|error| chain(&error))?;
    if signer.statement.valid_at(grant.not_before) {
        Ok(Some((grant, envelope)))
    } else {
        Err("the grant's key was not valid when the grant was made".to_owned())
    }
}

fn read_attestation(
    statement: &Statement,
    grant: Option<&(Grant, Envelope)>,
) -> Result<Option<Attestation>, String> {
    let Some(envelope) = statement.attestation().map_err(|error| chain(&error))? else {
        return Ok(None);
    };
    let (grant, grant_envelope) = grant.ok_or("an attestation without a grant")?;
    let attester: VerifyingKey = grant.head.attester_key().map_err(|error| chain(&error))?;
    let attestation = Attestation::verify(&envelope, &attester).map_err(|error| chain(&error))?;
    if attestation.grant == DigestSet::of(grant_envelope.payload()) {
        Ok(Some(attestation))
    } else {
        Err("the attestation answers another grant".to_owned())
    }
}

/// The first field in which the grant differs from the receipt.
fn grant_difference(statement: &Statement, grant: &Grant) -> Option<&'static str> {
    let external = statement.external();
    [
        ("run id", grant.run_id == statement.metadata().invocation_id),
        ("workflow", grant.workflow == external.workflow),
        ("document", grant.document == external.document),
        ("inputs", grant.inputs == external.inputs),
        ("submitter", grant.submitter == external.submitter),
        ("agent", grant.act_as == external.act_as),
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
