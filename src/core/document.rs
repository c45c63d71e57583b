//! Whether a submitted document may run: reading, permissions, requirements, inputs. No IO.

use api::maml_workflow::{DIAGNOSTICS_LIMIT, DOCUMENT_LIMIT, Diagnostic, Severity};
use api::reasons;
use maml::{Document, Language};
use serde_json::{Map, Value};

use crate::violation;

/// A document as it was submitted, with who asks for what.
#[derive(Debug, Clone, Copy)]
pub struct Submission<'a> {
    /// The document, byte for byte.
    pub document: &'a [u8],
    /// `spec.inputs`.
    pub inputs: &'a Map<String, Value>,
    /// `spec.actAs`, such as `agent://name`.
    pub act_as: Option<&'a str>,
}

/// A document that may run.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// What was read.
    pub document: Document,
    /// The inputs with the defaults of Input_Schema, serialised once: these bytes are what is signed and sent.
    pub inputs: Vec<u8>,
}

/// Why a document may not run.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// One of [`api::reasons`].
    pub reason: &'static str,
    /// A sentence; begins with `line:column` where there is a place.
    pub message: String,
    /// All faults that were found, the first ones if they are many.
    pub diagnostics: Vec<Diagnostic>,
}

impl Refusal {
    pub(crate) fn plain(reason: &'static str, message: String) -> Self {
        Self {
            reason,
            message,
            diagnostics: Vec::new(),
        }
    }

    /// The first error that has a place in the document.
    pub fn first(&self) -> Option<&Diagnostic> {
        self.diagnostics
            .iter()
            .find(|diagnostic| diagnostic.severity == Severity::Error)
    }
}

/// Reads a document and decides whether it may run.
pub fn accept(submission: &Submission<'_>) -> Result<Accepted, Refusal> {
    let text = readable(submission.document)?;
    let document = maml::read(text).accept().map_err(|faults| invalid(&faults))?;
    permitted(&document, submission.act_as)?;
    if document.blocks.is_empty() {
        let message = format!(
            "a document of type {} without a code block cannot run",
            document.front_matter.kind
        );
        return Err(Refusal::plain(reasons::NOT_RUNNABLE, message));
    }
    if let Some(block) = document
        .blocks
        .iter()
        .find(|block| matches!(block.language, Language::Other(_)))
    {
        let message = format!(
            "{}:1: block {} is in a language that no head runs; supported: {}",
            block.line,
            block.name,
            maml::SUPPORTED_LANGUAGES
        );
        return Err(Refusal::plain(reasons::UNSUPPORTED_LANGUAGE, message));
    }
    if document.front_matter.requires.network {
        let message =
            "the document requires network access, which no head gives; remove `requires.network`".to_owned();
        return Err(Refusal::plain(reasons::UNSUPPORTED_REQUIREMENT, message));
    }
    let inputs = checked_inputs(&document, submission.inputs)?;
    Ok(Accepted { document, inputs })
}

fn readable(document: &[u8]) -> Result<&str, Refusal> {
    if document.len() > DOCUMENT_LIMIT {
        let message = format!(
            "the document has {} bytes; the limit is {DOCUMENT_LIMIT}",
            document.len()
        );
        return Err(Refusal::plain(reasons::DOCUMENT_TOO_LARGE, message));
    }
    std::str::from_utf8(document).map_err(|error| {
        let message = format!(
            "the document is not UTF-8: byte {} is invalid",
            error.valid_up_to() + 1
        );
        Refusal::plain(reasons::DOCUMENT_INVALID, message)
    })
}

fn invalid(faults: &[maml::Diagnostic]) -> Refusal {
    // The worst first, so that no error is lost behind remarks.
    let mut worst: Vec<_> = faults.iter().collect();
    worst.sort_by_key(|fault| std::cmp::Reverse(fault.severity));
    let diagnostics: Vec<_> = worst.into_iter().take(DIAGNOSTICS_LIMIT).map(shown).collect();
    let errors = faults
        .iter()
        .filter(|fault| fault.severity == maml::Severity::Error)
        .count();
    let first = faults
        .iter()
        .find(|fault| fault.severity == maml::Severity::Error);
    let message = first.map_or_else(
        || "the document is invalid".to_owned(),
        |fault| {
            let more = if errors > 1 {
                format!(" (and {} more)", errors - 1)
            } else {
                String::new()
            };
            let place = format!("{}:{}", fault.start.line, fault.start.column);
            format!("{place}: {} [{}]{more}", fault.message, fault.code)
        },
    );
    Refusal {
        reason: reasons::DOCUMENT_INVALID,
        message,
        diagnostics,
    }
}

fn shown(fault: &maml::Diagnostic) -> Diagnostic {
    Diagnostic {
        code: fault.code.to_string(),
        severity: match fault.severity {
            maml::Severity::Error => Severity::Error,
            maml::Severity::Warning => Severity::Warning,
            maml::Severity::Info => Severity::Note,
        },
        line: i32::try_from(fault.start.line).ok(),
        column: i32::try_from(fault.start.column).ok(),
        message: fault.message.clone(),
        hint: fault.hint.clone(),
    }
}

fn permitted(document: &Document, act_as: Option<&str>) -> Result<(), Refusal> {
    let agent = act_as.and_then(api::names::agent_name);
    if document.front_matter.permissions.may_execute(agent) {
        return Ok(());
    }
    let who = agent.map_or_else(
        || "a requester without spec.actAs".to_owned(),
        |name| format!("agent://{name}"),
    );
    let allowed = document.front_matter.permissions.execute.join(", ");
    let message = format!("{who} may not execute this document: its permissions.execute allows {allowed}");
    Err(Refusal::plain(reasons::NOT_PERMITTED, message))
}

fn checked_inputs(document: &Document, inputs: &Map<String, Value>) -> Result<Vec<u8>, Refusal> {
    let mut inputs = Value::Object(inputs.clone());
    if let Some(schema) = &document.input_schema {
        inputs = schema.with_defaults(inputs);
        let violations = schema.check(&inputs);
        if let Some((message, _)) = violation::first_of(&violations, schema, "inputs", "Input_Schema") {
            return Err(Refusal::plain(reasons::INPUTS_INVALID, message));
        }
    }
    Ok(serde_json::to_vec(&inputs).expect("a JSON value serialises"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const DOCUMENT: &str = "---\nmaml_version: \"2.0.0\"\nid: urn:uuid:3f2b6c1e-6a63-4f0e-9d0a-0d8a2f1c7b11\n\
        type: workflow\norigin: agent://tests\npermissions:\n  read: [\"agent://*\"]\n  write: [\"agent://tests\"]\n  \
        execute: [EXECUTE]\ncreated_at: 2026-01-01T00:00:00Z\n---\n## Intent\n\nAdd.\n\n## Context\n\nNone.\n\n\
        ## Input_Schema\n\n{\"type\":\"object\",\"required\":[\"a\"],\"properties\":{\"a\":{\"type\":\"integer\"},\
        \"b\":{\"type\":\"integer\",\"default\":2}}}\n\n## Code_Blocks\n\n```python\nsum = inputs[\"a\"]\n```\n";

    fn submit(execute: &str, inputs: Value, act_as: Option<&str>) -> Result<Accepted, Refusal> {
        let document = DOCUMENT.replace("EXECUTE", execute);
        let Value::Object(inputs) = inputs else {
            panic!("inputs are an object")
        };
        accept(&Submission {
            document: document.as_bytes(),
            inputs: &inputs,
            act_as,
        })
    }

    #[test]
    fn inputs_get_the_defaults_of_their_schema() {
        let accepted = submit("\"agent://*\"", json!({"a": 1}), None).expect("accepted");
        let inputs: Value = serde_json::from_slice(&accepted.inputs).expect("JSON");
        assert_eq!(inputs, json!({"a": 1, "b": 2}));
    }

    #[test]
    fn inputs_that_break_their_schema_are_refused_with_the_member() {
        let refusal = submit("\"*\"", json!({"a": "x"}), None).expect_err("refused");
        assert_eq!(refusal.reason, reasons::INPUTS_INVALID);
        assert!(refusal.message.contains("/a"), "{}", refusal.message);
    }

    #[test]
    fn only_the_agents_that_the_document_names_may_execute_it() {
        assert!(submit("\"agent://alpha\"", json!({"a": 1}), Some("agent://alpha")).is_ok());
        for act_as in [None, Some("agent://beta")] {
            let refusal = submit("\"agent://alpha\"", json!({"a": 1}), act_as).expect_err("refused");
            assert_eq!(refusal.reason, reasons::NOT_PERMITTED, "{act_as:?}");
        }
    }

    #[test]
    fn a_fault_is_reported_with_line_column_and_code() {
        let inputs = Map::new();
        let refusal = accept(&Submission {
            document: b"# no front matter\n",
            inputs: &inputs,
            act_as: None,
        });
        let refusal = refusal.expect_err("refused");
        assert_eq!(refusal.reason, reasons::DOCUMENT_INVALID);
        let first = refusal.first().expect("a fault");
        assert_eq!((first.line, first.column), (Some(1), Some(1)));
        assert!(
            refusal.message.starts_with("1:1: ") && refusal.message.contains("MAML0"),
            "{}",
            refusal.message
        );
    }

    #[test]
    fn bytes_that_are_no_text_are_refused() {
        let inputs = Map::new();
        let refusal = accept(&Submission {
            document: b"---\n\xff\n---\n",
            inputs: &inputs,
            act_as: None,
        });
        assert!(refusal.expect_err("refused").message.contains("byte 5"));
    }
}
