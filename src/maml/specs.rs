//! Specifications that stand in the document itself: fences of the section Verification that have a file's name.

use serde::Serialize;

use crate::attributes::file_name;
use crate::blocks::{MAX_BLOCKS, attributes_offset, fences, split_info};
use crate::codes::Code;
use crate::diagnostic::Findings;
use crate::outline::Outline;
use crate::place::{Excerpt, Span, Text, number};
use crate::sections::{Section, SectionKind};
use crate::verification::Verification;

/// A specification that stands in the document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EmbeddedSpec {
    /// The plain name of its file, as `verification.spec_files` names it.
    pub name: String,
    /// Its code, lines ended by `\n`.
    pub code: String,
    /// The line of the document in which the code starts, from 1.
    pub line: u32,
    /// The bytes of the code in the document.
    pub span: Span,
}

/// Whether a specification may be named so: a plain file name, which leads into no other folder.
pub(crate) fn is_plain_file_name(name: &str) -> bool {
    (1..=255).contains(&name.len())
        && !name.starts_with('.')
        && !name.contains(|sign: char| matches!(sign, '/' | '\\' | ':') || sign.is_control())
        && name.trim() == name
}

/// Collects the named fences of the section Verification, and reports those that no one asks for and those that are missing.
pub(crate) fn embedded_specs(
    text: &Text<'_>,
    outline: &Outline,
    sections: &[Section],
    verification: Option<&Verification>,
    findings: &mut Findings<'_>,
) -> Vec<EmbeddedSpec> {
    let mut specs: Vec<EmbeddedSpec> = Vec::new();
    let asked = verification.map_or(&[][..], |verification| &verification.spec_files);
    let fences = sections
        .iter()
        .filter(|section| section.kind == SectionKind::Verification)
        .flat_map(|section| fences(outline, section));
    for fence in fences {
        if specs.len() == MAX_BLOCKS {
            let message = format!("the document holds more than {MAX_BLOCKS} specifications");
            findings.error(Code::TooManyBlocks, fence.span, message, "join specifications");
            break;
        }
        let (_, behind) = split_info(&fence.info);
        let Some((name, at)) = file_name(behind, attributes_offset(fence, behind), findings) else {
            continue;
        };
        if !is_plain_file_name(&name) {
            let message = format!("`{name}` is not the plain name of a file");
            findings.error(
                Code::SpecName,
                at,
                message,
                "a name without folders, such as spec.py",
            );
            continue;
        }
        if specs.iter().any(|spec| spec.name == name) {
            let message = format!("the specification `{name}` stands in the document already");
            findings.error(Code::SpecName, at, message, "give it another name");
            continue;
        }
        if !asked.contains(&name) {
            let message = format!("the specification `{name}` is not run, because nothing names it");
            let hint = format!("add it to verification.spec_files: [{name}]");
            findings.warn(Code::SpecPlace, at, message, hint);
        }
        let lines = fence.open + 1..fence.close;
        let code = Excerpt::new(text, lines.clone(), fence.indent);
        specs.push(EmbeddedSpec {
            name,
            code: code.text,
            line: number(fence.open + 2),
            span: if lines.is_empty() {
                Span::new(fence.span.end, fence.span.end)
            } else {
                text.lines_span(lines)
            },
        });
    }
    if let Some(verification) = verification {
        let missing = verification
            .python_specs()
            .filter(|file| !specs.iter().any(|spec| spec.name == *file));
        for file in missing {
            let message = format!("the specification `{file}` does not stand in the document");
            let hint = "it has to lie beside the document, or stand under `## Verification` as a fence with {name=…}";
            findings.info(Code::SpecPlace, verification.span, message, hint);
        }
    }
    specs
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "---\nmaml_version: \"2.0\"\nid: urn:uuid:550e8400-e29b-41d4-a716-446655440000\ntype: workflow\norigin: agent://ann\npermissions: {execute: ['*']}\nverification:\n  spec_files: [spec.py, other.py]\n---\n## Intent\na\n## Context\nb\n## Code_Blocks\n```python\nx = 1\n```\n## Verification\n";

    #[test]
    fn named_fences_of_the_section_verification_are_specifications() {
        let source = format!(
            "{HEAD}Text.\n```python {{name=spec.py}}\ndef post(outputs): pass\n```\n```python\nnot named\n```\n```python {{name=unasked.py}}\n```\n"
        );
        let reading = crate::read(&source);
        let document = reading.document.unwrap();
        let names: Vec<&str> = document
            .embedded_specs
            .iter()
            .map(|spec| spec.name.as_str())
            .collect();
        assert_eq!(names, ["spec.py", "unasked.py"]);
        let spec = &document.embedded_specs[0];
        assert_eq!(spec.code, "def post(outputs): pass\n");
        assert_eq!(spec.span.slice(&source), "def post(outputs): pass");
        assert_eq!(
            source.lines().nth(spec.line as usize - 1),
            Some("def post(outputs): pass")
        );
        let found: Vec<String> = reading
            .diagnostics
            .iter()
            .map(|found| found.message.clone())
            .collect();
        assert_eq!(
            found,
            [
                "the specification `other.py` does not stand in the document",
                "the specification `unasked.py` is not run, because nothing names it",
            ]
        );
        assert_eq!(document.blocks.len(), 1);
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in [
            "../x.py",
            "/etc/x.py",
            "a/b.py",
            "a\\b.py",
            ".hidden.py",
            "..",
            "C:x.py",
            "",
        ] {
            assert!(!is_plain_file_name(name), "{name}");
            let fence = format!("{HEAD}```python {{name=\"{name}\"}}\n```\n");
            assert!(
                crate::read(&fence)
                    .diagnostics
                    .iter()
                    .any(|found| found.code == Code::SpecName),
                "{name}"
            );
            let key = HEAD.replace("other.py", &format!("'{name}'"));
            assert!(
                crate::read(&key)
                    .diagnostics
                    .iter()
                    .any(|found| found.code == Code::SpecName),
                "{name}"
            );
        }
        assert!(is_plain_file_name("spec.py"));
    }
}
