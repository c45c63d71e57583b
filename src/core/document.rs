//! Whether a submitted document may run: reading, permissions, requirements, inputs. No IO.

use api::maml_workflow::{DIAGNOSTICS_LIMIT, DOCUMENT_LIMIT, Diagnostic, Severity};
use api::reasons;
use maml::{Document, Language};
use serde_json::{Map, Value};

use crate::{
    inputs::Inputs,
    sealed::{Opened, wipe},
    violation,
};

/// A document as it was submitted, with who asks for what.
#[derive(Debug, Clone, Copy)]
pub struct Submission<'a> {
    /// The document, byte for byte.
    pub document: &'a [u8],
    /// `spec.inputs`.
    pub inputs: &'a Map<String, Value>,
    /// What `spec.sealedInputs` held.
    pub sealed: Option<&'a Opened>,
    /// `spec.actAs`, such as `agent://name`.
    pub act_as: Option<&'a str>,
}

/// A document that may run.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// What was read.
    pub document: Document,
    /// All inputs, with the defaults of Input_Schema.
    pub inputs: Inputs,
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

/// Reads a document and decides whether it may run with its inputs.
pub fn accept(submission: &Submission<'_>) -> Result<Accepted, Refusal> {
    let document = read(submission.document, submission.act_as)?;
    let inputs = checked_inputs(&document, submission)?;
    Ok(Accepted { document, inputs })
}

/// Reads a document and decides whether it may run, whatever its inputs.
pub fn read(document: &[u8], act_as: Option<&str>) -> Result<Document, Refusal> {
    let text = readable(document)?;
    let document = maml::read(text).accept().map_err(|faults| invalid(&faults))?;
    permitted(&document, act_as)?;
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
    Ok(document)
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

fn checked_inputs(document: &Document, submission: &Submission<'_>) -> Result<Inputs, Refusal> {
    let Submission { inputs, sealed, .. } = *submission;
    let mut all = Value::Object(merged(inputs, sealed)?);
    let mut refusal = None;
    if let Some(schema) = &document.input_schema {
        all = schema.with_defaults(all);
        let violations = schema.check(&all);
        let secret = |pointer: &str| sealed.is_some_and(|opened| opened.hides(pointer));
        refusal = violation::first_of(&violations, schema, "inputs", "Input_Schema", secret);
    }
    let bytes = serde_json::to_vec(&all).expect("a JSON value serialises");
    let inputs = match sealed {
        None => Inputs::plain(bytes),
        Some(opened) => {
            wipe(&mut all);
            Inputs::blinded(bytes, opened.blinding().clone())
        }
    };
    match refusal {
        None => Ok(inputs),
        Some((message, _)) => Err(Refusal::plain(reasons::INPUTS_INVALID, message)),
    }
}

/// `spec.inputs` and what was sealed. Which of two values of one name is meant, nobody can know.
fn merged(inputs: &Map<String, Value>, sealed: Option<&Opened>) -> Result<Map<String, Value>, Refusal> {
    let mut all = inputs.clone();
    for (name, value) in sealed.into_iter().flat_map(Opened::members) {
        if all.insert(name.clone(), value.clone()).is_some() {
            let message = format!("input {name} is in spec.inputs and in spec.sealedInputs; leave one out");
            return Err(Refusal::plain(reasons::SEALED_INPUTS_REFUSED, message));
        }
    }
    Ok(all)
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
            sealed: None,
            act_as,
        })
    }

    #[test]
    fn inputs_get_the_defaults_of_their_schema() {
        let accepted = submit("\"agent://*\"", json!({"a": 1}), None).expect("accepted");
        let inputs: Value = serde_json::from_slice(accepted.inputs.bytes()).expect("JSON");
        assert_eq!(inputs, json!({"a": 1, "b": 2}));
    }

    #[test]
    fn inputs_that_break_their_schema_are_refused_with_the_member() {
        let refusal = submit("\"*\"", json!({"a": "x"}), None).expect_err("refused");
        assert_eq!(refusal.reason, reasons::INPUTS_INVALID);
        assert!(refusal.message.contains("/a"), "{}", refusal.message);
    }

    /// Submits with inputs of which some were sealed.
    fn submit_sealed(inputs: &Value, secret: &Value) -> Result<Accepted, Refusal> {
        let key = crypto::kem::DecapsulationKey::from_seed(&[1; 64]).expect("a key");
        let sealed = crypto::seal::Sealed::seal(
            secret.to_string().as_bytes(),
            crypto::seal::Binding::new("", "w", None),
            &[key.encapsulation_key()],
        );
        let mut workflow = api::MamlWorkflow::new("w", api::MamlWorkflowSpec::default());
        workflow.spec.sealed_inputs = Some(sealed.expect("sealed").to_json());
        let key = std::sync::Arc::new(key);
        let opened = crate::sealed::open(&workflow, b"", |_| Some(key.clone()));
        let crate::sealed::SealedInputs::Opened(opened) = opened else {
            panic!("not opened: {opened:?}")
        };
        accept(&Submission {
            document: DOCUMENT.replace("EXECUTE", "\"*\"").as_bytes(),
            inputs: inputs.as_object().expect("an object"),
            sealed: Some(&opened),
            act_as: None,
        })
    }

    #[test]
    fn sealed_inputs_are_merged_with_the_plain_ones_and_named_by_a_blinded_digest() {
        let accepted = submit_sealed(&json!({"b": 3}), &json!({"a": 1})).expect("accepted");
        let inputs: Value = serde_json::from_slice(accepted.inputs.bytes()).expect("JSON");
        assert_eq!(inputs, json!({"a": 1, "b": 3}));
        assert_ne!(
            accepted.inputs.digest(),
            crypto::DigestSet::of(accepted.inputs.bytes())
        );
        assert_eq!(accepted.inputs.blinding().len(), 32);
        assert!(!format!("{accepted:?}").contains("\"a\":1"));
    }

    #[test]
    fn an_input_both_plain_and_sealed_is_refused() {
        let refusal = submit_sealed(&json!({"a": 1}), &json!({"a": 1})).expect_err("refused");
        assert_eq!(refusal.reason, reasons::SEALED_INPUTS_REFUSED);
    }

    #[test]
    fn a_refusal_names_a_sealed_input_and_its_rule_and_never_its_value() {
        for (plain, secret) in [
            (json!({}), json!({"a": "hunter2"})),
            (json!({}), json!({"a": {"hunter2": "hunter2"}})),
            (json!({}), json!({"c": "hunter2"})),
            (json!({"b": "x"}), json!({"a": "hunter2"})),
        ] {
            let refusal = submit_sealed(&plain, &secret).expect_err("refused");
            assert_eq!(refusal.reason, reasons::INPUTS_INVALID);
            assert!(!format!("{refusal:?}").contains("hunter2"), "{refusal:?}");
            assert!(refusal.message.contains("line "), "{}", refusal.message);
        }
        // What is not secret is quoted as ever.
        let refusal = submit_sealed(&json!({"b": "plain"}), &json!({"a": 1})).expect_err("refused");
        assert!(refusal.message.contains("plain"), "{}", refusal.message);
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
            sealed: None,
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
            sealed: None,
            act_as: None,
        });
        assert!(refusal.expect_err("refused").message.contains("byte 5"));
    }
}
