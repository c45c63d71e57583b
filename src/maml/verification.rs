//! How a document wants to be verified before it is run.
//!
//! No method that runs before the blocks is available yet. That is never passed over in silence: a strict document is
//! refused, any other gets a warning.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::codes::Code;
use crate::diagnostic::{Findings, Severity};
use crate::front_matter::{texts, wrong_type};
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
    /// Files with specifications.
    pub spec_files: Vec<String>,
    /// The value as JSON.
    pub raw: Value,
}

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
    };
    match &node.data {
        Data::Null => return None,
        Data::Map(entries) => {
            for (key, value) in entries {
                match key.text.as_str() {
                    "method" => match value.scalar() {
                        Some(method) => verification.method = Some(method.trim().to_owned()),
                        None if matches!(value.data, Data::Null) => {}
                        None => wrong_type("verification.method", "text", value, findings),
                    },
                    "level" => verification.level = level(value, findings),
                    "spec_files" => {
                        let files = texts(value, "verification.spec_files", findings);
                        verification.spec_files = files.into_iter().map(|(file, _)| file).collect();
                    }
                    _ => {
                        let message = format!("verification.{} is kept but has no effect", key.text);
                        findings.info(Code::NoEffect, key.span, message, "");
                    }
                }
            }
        }
        _ => match node.scalar() {
            Some(method) => verification.method = Some(method.trim().to_owned()),
            None => wrong_type("verification", "a map with method and level", node, findings),
        },
    }
    report(&verification, key, findings);
    Some(verification)
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

fn report(verification: &Verification, key: &Key, findings: &mut Findings<'_>) {
    let method = verification.method.as_deref().unwrap_or_default();
    let signature_only = SIGNATURES.contains(&method.to_ascii_lowercase().as_str()) || method.is_empty();
    if signature_only && verification.spec_files.is_empty() {
        return;
    }
    let what = if signature_only { "spec_files" } else { method };
    let (severity, hint) = match verification.level {
        Level::Strict => (
            Severity::Error,
            "level: warn lets it run unverified; the receipt is signed in any case",
        ),
        Level::Warn => (
            Severity::Warning,
            "the run goes on without it; the receipt is signed in any case",
        ),
    };
    let message = format!("the verification `{what}` is not available");
    findings.add(
        Code::VerificationUnavailable,
        severity,
        key.span,
        message,
        hint.to_owned(),
    );
}
