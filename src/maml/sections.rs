//! Sections: what stands under the headings of level two.

use serde::Serialize;

use crate::codes::Code;
use crate::diagnostic::Findings;
use crate::outline::{Heading, Outline};
use crate::place::{Span, Text, number};

/// Which section it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SectionKind {
    /// What the document is for.
    Intent,
    /// What a reader has to know; opaque text.
    Context,
    /// The code that is run.
    CodeBlocks,
    /// JSON Schema of the inputs.
    InputSchema,
    /// JSON Schema of the outputs.
    OutputSchema,
    /// What a run gave, written by it.
    Outputs,
    /// What happened to the document, one line each.
    History,
    /// Environment of the run.
    Environment,
    /// Text about verification.
    Verification,
    /// Text about dependencies.
    Dependencies,
    /// Text about telemetry.
    Telemetry,
    /// Data that travels with the document.
    DataBlock,
    /// A signature over the document.
    Signature,
    /// A section that the format does not know; kept.
    Other(String),
}

const KNOWN: [(&str, SectionKind); 19] = [
    ("intent", SectionKind::Intent),
    ("context", SectionKind::Context),
    ("code_blocks", SectionKind::CodeBlocks),
    ("code_block", SectionKind::CodeBlocks),
    ("codeblocks", SectionKind::CodeBlocks),
    ("input_schema", SectionKind::InputSchema),
    ("inputschema", SectionKind::InputSchema),
    ("output_schema", SectionKind::OutputSchema),
    ("outputschema", SectionKind::OutputSchema),
    ("outputs", SectionKind::Outputs),
    ("history", SectionKind::History),
    ("environment", SectionKind::Environment),
    ("verification", SectionKind::Verification),
    ("dependencies", SectionKind::Dependencies),
    ("telemetry", SectionKind::Telemetry),
    ("data_block", SectionKind::DataBlock),
    ("data_blocks", SectionKind::DataBlock),
    ("datablock", SectionKind::DataBlock),
    ("signature", SectionKind::Signature),
];

impl SectionKind {
    /// The kind that a heading names. Case, emoji, numbering and the sign between words do not matter.
    pub fn of(title: &str) -> Self {
        let name = normalise(title);
        KNOWN
            .iter()
            .find(|(known, _)| *known == name)
            .map_or_else(|| Self::Other(name.clone()), |(_, kind)| kind.clone())
    }

    /// How its heading is written; nothing for a section that the format does not know.
    pub fn canonical(&self) -> Option<&'static str> {
        Some(match self {
            Self::Intent => "Intent",
            Self::Context => "Context",
            Self::CodeBlocks => "Code_Blocks",
            Self::InputSchema => "Input_Schema",
            Self::OutputSchema => "Output_Schema",
            Self::Outputs => "Outputs",
            Self::History => "History",
            Self::Environment => "Environment",
            Self::Verification => "Verification",
            Self::Dependencies => "Dependencies",
            Self::Telemetry => "Telemetry",
            Self::DataBlock => "Data_Block",
            Self::Signature => "Signature",
            Self::Other(_) => return None,
        })
    }

    fn is_known(&self) -> bool {
        self.canonical().is_some()
    }
}

/// `1. Code-Blocks 🐪:` becomes `code_blocks`.
fn normalise(title: &str) -> String {
    let words: Vec<String> = title[numbering(title)..]
        .split(|sign: char| !sign.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect();
    words.join("_")
}

/// The length of the numbering in front of a title, such as `1. `.
pub(crate) fn numbering(title: &str) -> usize {
    let behind =
        title.trim_start_matches(|first: char| first.is_ascii_digit() || matches!(first, '.' | ')' | ' '));
    title.len() - behind.len()
}

/// One section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Section {
    /// Which one.
    pub kind: SectionKind,
    /// The heading as written, without its signs.
    pub title: String,
    /// The heading's bytes.
    pub heading: Span,
    /// The bytes from behind the heading up to the next section.
    pub body: Span,
    /// The heading's line, from 1.
    pub line: u32,
    /// The lines of the body, from 0, end exclusive.
    #[serde(skip)]
    pub(crate) lines: (usize, usize),
}

/// Cuts the body into sections and reports which are missing, doubled or empty.
///
/// A heading of level one before the first section is the document's title, which is returned too.
pub(crate) fn sections(text: &Text<'_>, outline: &Outline) -> (Option<String>, Vec<Section>) {
    let tops: Vec<&Heading> = outline
        .headings
        .iter()
        .filter(|heading| heading.level == 2)
        .collect();
    let first = tops.first().map_or(usize::MAX, |heading| heading.line);
    let title = outline
        .headings
        .iter()
        .find(|heading| heading.level == 1 && heading.line < first && !heading.title.is_empty())
        .map(|heading| heading.title.clone());
    let mut sections = Vec::with_capacity(tops.len());
    for (index, heading) in tops.iter().enumerate() {
        let lines = (
            heading.line + 1,
            tops.get(index + 1).map_or(text.lines.len(), |next| next.line),
        );
        sections.push(Section {
            kind: SectionKind::of(&heading.title),
            title: heading.title.clone(),
            heading: heading.span,
            body: text.lines_span(lines.0..lines.1),
            line: number(heading.line + 1),
            lines,
        });
    }
    (title, sections)
}

/// Reports doubled and empty sections, a comment that hides the rest, and lines that were probably meant to be headings.
pub(crate) fn check(text: &Text<'_>, outline: &Outline, sections: &[Section], findings: &mut Findings<'_>) {
    let mut firsts: Vec<&Section> = Vec::new();
    for section in sections {
        let earlier = firsts
            .iter()
            .copied()
            .find(|earlier| earlier.kind == section.kind);
        if earlier.is_none() && section.kind.is_known() {
            firsts.push(section);
        }
        if let Some(earlier) = earlier {
            let message = format!(
                "the section {} stands in line {} already",
                section.title, earlier.line
            );
            match section.kind {
                SectionKind::InputSchema | SectionKind::OutputSchema => {
                    findings.error(
                        Code::SectionDuplicate,
                        section.heading,
                        message,
                        "keep one of the two schemas",
                    );
                }
                SectionKind::CodeBlocks => {
                    findings.warn(
                        Code::SectionDuplicate,
                        section.heading,
                        message,
                        "the blocks of both run, in order",
                    );
                }
                _ => findings.warn(
                    Code::SectionDuplicate,
                    section.heading,
                    message,
                    "the first one counts",
                ),
            }
        }
        let required = matches!(section.kind, SectionKind::Intent | SectionKind::Context);
        if required && section.body.slice(text.source).trim().is_empty() {
            let message = format!("the section {} has no text", section.title);
            findings.warn(
                Code::SectionEmpty,
                section.heading,
                message,
                "say it in a sentence",
            );
        }
    }
    if let Some(comment) = outline.comments.last().filter(|_| outline.comment_open) {
        findings.warn(
            Code::CommentUnclosed,
            text.line_span(comment.start),
            "this comment is never closed, so that everything behind it is hidden",
            "close it with -->",
        );
    }
    for near in &outline.near_headings {
        if near.level == 2 && SectionKind::of(&near.title).is_known() {
            findings.warn(
                Code::HeadingMalformed,
                near.span,
                "this is text, not a heading: the space behind ## is missing",
                format!("write `## {}`", near.title),
            );
        }
    }
}

/// Reports that a required section is not there; when a heading of another level has its name, the hint says so.
pub(crate) fn require(
    wanted: &SectionKind,
    name: &str,
    outline: &Outline,
    sections: &[Section],
    at: Span,
    findings: &mut Findings<'_>,
) {
    if sections.iter().any(|section| section.kind == *wanted) {
        return;
    }
    let elsewhere = outline
        .headings
        .iter()
        .chain(&outline.near_headings)
        .find(|heading| SectionKind::of(&heading.title) == *wanted);
    let hint = match elsewhere {
        Some(heading) => format!(
            "line {} has that name, but sections are headings `## {name}`",
            heading.line + 1
        ),
        None => format!("add a heading `## {name}`"),
    };
    findings.error(
        Code::SectionMissing,
        at,
        format!("the section {name} is missing"),
        hint,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_are_known_however_they_are_written() {
        let cases = [
            ("Intent", SectionKind::Intent),
            ("Intent 🐪", SectionKind::Intent),
            ("🐪 INTENT:", SectionKind::Intent),
            ("Code Blocks", SectionKind::CodeBlocks),
            ("Code_Blocks", SectionKind::CodeBlocks),
            ("code-block", SectionKind::CodeBlocks),
            ("3. Input Schema", SectionKind::InputSchema),
            ("**Output_Schema**", SectionKind::OutputSchema),
            ("Intentions", SectionKind::Other("intentions".to_owned())),
            ("", SectionKind::Other(String::new())),
        ];
        for (title, kind) in cases {
            assert_eq!(SectionKind::of(title), kind, "{title}");
        }
    }
}
