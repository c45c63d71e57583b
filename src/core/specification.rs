//! Which specifications a run needs from beside its document, and whether they are there. No IO.

use std::collections::BTreeMap;

use api::reasons;
use maml::{Document, Level};

use crate::document::Refusal;

/// Specifications by the names of their files.
pub type Files = BTreeMap<String, String>;

/// What was found of the specifications that a document names and does not hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Those that were found.
    pub files: Files,
    /// The names of the others, of a document that runs without them.
    pub missing: Vec<String>,
}

/// The Python specifications that a document names and does not hold.
pub fn needed(document: &Document) -> Vec<&str> {
    let Some(verification) = &document.front_matter.verification else {
        return Vec::new();
    };
    let embedded = |name: &str| document.embedded_specs.iter().any(|spec| spec.name == name);
    verification
        .python_specs()
        .filter(|name| !embedded(name))
        .collect()
}

/// Takes what the document needs from what lies beside it; a strict document is refused when something is missing.
pub fn find(document: &Document, beside: &Files) -> Result<Found, Refusal> {
    let mut found = Found::default();
    for name in needed(document) {
        match beside.get(name) {
            Some(code) => drop(found.files.insert(name.to_owned(), code.clone())),
            None => found.missing.push(name.to_owned()),
        }
    }
    let verification = document.front_matter.verification.as_ref();
    let strict = verification.is_some_and(|verification| verification.level == Level::Strict);
    if strict && !found.missing.is_empty() {
        return Err(Refusal::plain(
            reasons::SPECIFICATION_NOT_FOUND,
            not_found(&found.missing),
        ));
    }
    Ok(found)
}

/// A sentence about specifications that are nowhere.
pub fn not_found(missing: &[String]) -> String {
    format!(
        "verification.spec_files names {}, found neither in the document's section Verification nor beside it",
        missing.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(level: &str) -> Document {
        let text = format!(
            "---\nmaml_version: \"2.0\"\nid: urn:uuid:550e8400-e29b-41d4-a716-446655440000\ntype: workflow\n\
             origin: agent://ann\npermissions: {{execute: ['*']}}\nverification:\n  level: {level}\n  \
             spec_files: [inside.py, beside.py]\n---\n## Intent\na\n## Context\nb\n## Code_Blocks\n```python\nx = 1\n```\n\
             ## Verification\n```python {{name=inside.py}}\ndef post(outputs): pass\n```\n"
        );
        maml::read(&text).document.expect("a document")
    }

    #[test]
    fn what_the_document_does_not_hold_is_taken_from_beside_it_and_nothing_else_is() {
        let beside = Files::from([
            ("beside.py".to_owned(), "pass".to_owned()),
            ("other.py".to_owned(), String::new()),
            ("inside.py".to_owned(), String::new()),
        ]);
        let found = find(&document("strict"), &beside).expect("all of it");
        assert_eq!(found.files.into_keys().collect::<Vec<_>>(), ["beside.py"]);
        assert!(found.missing.is_empty());
    }

    #[test]
    fn what_is_nowhere_refuses_a_strict_document_only() {
        let refusal = find(&document("strict"), &Files::new()).expect_err("refused");
        assert_eq!(refusal.reason, reasons::SPECIFICATION_NOT_FOUND);
        assert!(refusal.message.contains("beside.py"), "{}", refusal.message);
        let found = find(&document("warn"), &Files::new()).expect("it runs");
        assert_eq!(found.missing, ["beside.py"]);
    }
}
