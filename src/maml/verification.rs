//! How a document wants to be verified before and after it is run.
//!
//! Python specifications are run by the head, OCaml ones by a head that offers Ortac. What is asked for beyond that is never
//! passed over in silence: a strict document is refused, any other gets a warning.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::codes::Code;
use crate::diagnostic::{Findings, Severity};
use crate::front_matter::{texts, wrong_type};
use crate::place::Span;
use crate::specs::is_plain_file_name;
use crate::yaml::{Data, Key, Node};

/// What follows from a verification that fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The document is not run.
    Strict,
    /// The run goes on.
    #[default]
    Warn,
}

/// The key `verification`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verification {
    /// The method, as written.
    pub method: Option<String>,
    /// What follows from a failure.
    pub level: Level,
    /// Files with specifications, as plain file names: Python modules (`.py`), or OCaml (`.ml`, `.mli`) for Ortac.
    pub spec_files: Vec<String>,
    /// The value as JSON.
    pub raw: Value,
    /// The key.
    #[serde(skip)]
    pub(crate) span: Span,
}

impl Verification {
    /// Whether a head has to offer Ortac for it. With [`Level::Strict`] the document may run on no other head.
    pub fn needs_ortac(&self) -> bool {
        let method = self.method.as_deref().unwrap_or_default();
        ORTAC.iter().any(|name| name.eq_ignore_ascii_case(method))
            || self.spec_files.iter().any(|file| is_ocaml(file))
    }

    /// The specifications that are Python modules, in order.
    pub fn python_specs(&self) -> impl Iterator<Item = &str> {
        self.spec_files
            .iter()
            .map(String::as_str)
            .filter(|file| is_python(file))
    }
}

/// Names of the run-time checker of OCaml specifications.
const ORTAC: [&str; 2] = ["ortac-runtime", "ortac"];

/// Methods that ask for Python specifications to be run, which is done wherever there are any.
const PYTHON: [&str; 2] = ["python", "python-spec"];

/// Methods that ask for no more than every receipt has: a post-quantum signature.
const SIGNATURES: [&str; 8] = [
    "chimera-2048",
    "crystals-dilithium",
    "dilithium",
    "dilithium3",
    "dilithium5",
    "ml-dsa",
    "ml-dsa-87",
    "mldsa87",
];

/// Reads the value of `verification`.
pub(crate) fn verification(key: &Key, node: &Node, findings: &mut Findings<'_>) -> Option<Verification> {
    let mut verification = Verification {
        method: None,
        level: Level::default(),
        spec_files: Vec::new(),
        raw: node.to_json(),
        span: key.span,
    };
    match &node.data {
        Data::Null => return None,
        Data::Map(entries) => {
            // What follows from the other entries depends on the level.
            if let Some((_, value)) = entries.iter().find(|(key, _)| key.text == "level") {
                verification.level = level(value, findings);
            }
            for (key, value) in entries {
                entry(&mut verification, key, value, findings);
            }
        }
        _ => match node.scalar() {
            Some(method) => verification.method = Some(method.trim().to_owned()),
            None => wrong_type("verification", "a map with method and level", node, findings),
        },
    }
    report(&verification, findings);
    Some(verification)
}

fn entry(verification: &mut Verification, key: &Key, value: &Node, findings: &mut Findings<'_>) {
    let no_effect = |what: &str, findings: &mut Findings<'_>| {
        let message = format!("verification.{} has no effect: {what}", key.text);
        findings.info(Code::NoEffect, key.span, message, "");
    };
    match key.text.as_str() {
        "level" => {}
        "method" => match value.scalar() {
            Some(method) => verification.method = Some(method.trim().to_owned()),
            None if matches!(value.data, Data::Null) => {}
            None => wrong_type("verification.method", "text", value, findings),
        },
        "spec_files" => {
            for (file, span) in texts(value, "verification.spec_files", findings) {
                if is_plain_file_name(&file) {
                    verification.spec_files.push(file);
                } else {
                    let message = format!("`{file}` is not the plain name of a file");
                    let hint = "a name without folders, such as spec.py";
                    findings.error(Code::SpecName, span, message, hint);
                }
            }
        }
        _ if matches!(value.data, Data::Null) => {}
        "signature" | "public_key" => unchecked(verification.level, key, findings),
        "quantum_signature" => match value.data {
            // Every receipt has one.
            Data::Bool(true) => {}
            Data::Bool(false) => no_effect("every receipt is signed with ML-DSA-87", findings),
            _ => unchecked(verification.level, key, findings),
        },
        "double_tracing" => {
            // Every receipt holds both records.
            if !matches!(value.data, Data::Bool(true)) {
                no_effect("every receipt holds what was granted and what was done", findings);
            }
        }
        "security_level" => no_effect(
            "it is a label; receipts are signed with ML-DSA-87, and connections are TLS 1.3 with X25519MLKEM768",
            findings,
        ),
        "schema" => no_effect(
            "inputs and outputs are checked against the sections Input_Schema and Output_Schema",
            findings,
        ),
        _ => no_effect("nothing is known about it", findings),
    }
}

fn level(node: &Node, findings: &mut Findings<'_>) -> Level {
    match node.scalar().map(|level| level.to_ascii_lowercase()).as_deref() {
        Some("strict") => Level::Strict,
        Some("warn" | "warning") => Level::Warn,
        Some(other) => {
            let message = format!("verification.level `{other}` is neither strict nor warn");
            findings.error(
                Code::WrongType,
                node.span,
                message,
                "strict: do not run unverified; warn: go on",
            );
            Level::Strict
        }
        None => Level::default(),
    }
}

/// A signature or a key of the document's own.
fn unchecked(level: Level, key: &Key, findings: &mut Findings<'_>) {
    let message = format!("verification.{} is not checked", key.text);
    let hint = "remove it: the receipt of a run is signed, and names the document by its digest".to_owned();
    findings.add(Code::SignatureUnchecked, severity(level), key.span, message, hint);
}

fn severity(level: Level) -> Severity {
    match level {
        Level::Strict => Severity::Error,
        Level::Warn => Severity::Warning,
    }
}

fn report(verification: &Verification, findings: &mut Findings<'_>) {
    let (level, span) = (verification.level, verification.span);
    let method = verification.method.as_deref().unwrap_or_default();
    let known = [&SIGNATURES[..], &PYTHON, &ORTAC].concat();
    if !method.is_empty() && !known.iter().any(|known| known.eq_ignore_ascii_case(method)) {
        unavailable(method, level, span, findings);
    }
    for file in &verification.spec_files {
        if !is_python(file) && !is_ocaml(file) {
            unavailable(file, level, span, findings);
        }
    }
    let no_specs = verification.spec_files.is_empty();
    if no_specs && PYTHON.iter().any(|name| name.eq_ignore_ascii_case(method)) {
        let message = format!("the verification `{method}` names no specification, so nothing is verified");
        let hint = "spec_files: [spec.py]".to_owned();
        findings.add(
            Code::VerificationUnavailable,
            severity(level),
            span,
            message,
            hint,
        );
    }
    if !verification.needs_ortac() {
        return;
    }
    match level {
        Level::Strict => findings.info(
            Code::OrtacNeeded,
            span,
            "the verification runs only on a head that offers ortac, and the document on no other",
            "level: warn lets it run unverified elsewhere",
        ),
        Level::Warn => findings.warn(
            Code::VerificationUnavailable,
            span,
            "the verification runs only on a head that offers ortac",
            "on any other the run goes on without it; the receipt is signed in any case",
        ),
    }
}

fn unavailable(what: &str, level: Level, span: Span, findings: &mut Findings<'_>) {
    let hint = match level {
        Level::Strict => "level: warn lets it run unverified; the receipt is signed in any case",
        Level::Warn => "the run goes on without it; the receipt is signed in any case",
    };
    let message = format!("the verification `{what}` is not available");
    findings.add(
        Code::VerificationUnavailable,
        severity(level),
        span,
        message,
        hint.to_owned(),
    );
}

fn is_python(file: &str) -> bool {
    has_extension(file, &["py"])
}

fn is_ocaml(file: &str) -> bool {
    has_extension(file, &["ml", "mli"])
}

fn has_extension(file: &str, extensions: &[&str]) -> bool {
    file.rsplit_once('.')
        .is_some_and(|(_, found)| extensions.iter().any(|known| known.eq_ignore_ascii_case(found)))
}
