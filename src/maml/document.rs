//! A whole document, and the reading that gives it.

use std::ops::Range;

use serde::Serialize;

use crate::blocks::{Block, SUPPORTED_LANGUAGES, blocks};
use crate::codes::Code;
use crate::diagnostic::{Diagnostic, Findings, Severity};
use crate::front_matter::{FrontMatter, front_matter};
use crate::history::{HistoryLine, history};
use crate::order::run_order;
use crate::outline::{Outline, outline};
use crate::place::{Excerpt, Span, Text};
use crate::schema::{Schema, schema};
use crate::sections::{self, Section, SectionKind};
use crate::specs::{EmbeddedSpec, embedded_specs};
use crate::yaml;

/// What a document may be at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the whole document.
    pub document_bytes: usize,
    /// Bytes of the front matter.
    pub front_matter_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            document_bytes: 1024 * 1024,
            front_matter_bytes: 64 * 1024,
        }
    }
}

/// What a document says.
#[derive(Clone, Debug, Serialize)]
pub struct Document {
    /// Its front matter.
    pub front_matter: FrontMatter,
    /// The heading of level one before the first section.
    pub title: Option<String>,
    /// Its sections in order.
    pub sections: Vec<Section>,
    /// Its code blocks in order.
    pub blocks: Vec<Block>,
    /// What inputs must be like.
    pub input_schema: Option<Schema>,
    /// What outputs must be like.
    pub output_schema: Option<Schema>,
    /// Specifications that stand in the section Verification.
    pub embedded_specs: Vec<EmbeddedSpec>,
    /// The lines of the section History.
    pub history: Vec<HistoryLine>,
}

impl Document {
    /// Whether there is something to run.
    pub fn is_runnable(&self) -> bool {
        !self.blocks.is_empty()
    }

    /// The order in which the blocks run, as indices into [`blocks`](Self::blocks): a block after those that it needs,
    /// else by place.
    pub fn run_order(&self) -> Vec<usize> {
        run_order(&self.blocks)
    }

    /// The first section of a kind.
    pub fn section(&self, kind: &SectionKind) -> Option<&Section> {
        self.sections.iter().find(|section| section.kind == *kind)
    }
}

/// A document, as far as it could be understood, and everything there is to say about it.
#[derive(Clone, Debug)]
pub struct Reading {
    /// The document; absent when there is no front matter to speak of.
    pub document: Option<Document>,
    /// The findings, in the order of the text.
    pub diagnostics: Vec<Diagnostic>,
}

impl Reading {
    /// The document when nothing speaks against it, or else all findings.
    pub fn accept(self) -> Result<Document, Vec<Diagnostic>> {
        self.accept_below(Severity::Error)
    }

    /// As [`accept`](Self::accept), but warnings refuse the document too.
    pub fn accept_strictly(self) -> Result<Document, Vec<Diagnostic>> {
        self.accept_below(Severity::Warning)
    }

    fn accept_below(self, worst: Severity) -> Result<Document, Vec<Diagnostic>> {
        match self.document {
            Some(document) if self.diagnostics.iter().all(|found| found.severity < worst) => Ok(document),
            _ => Err(self.diagnostics),
        }
    }
}

/// Reads a document within the default limits. Never panics; takes time linear in the length.
pub fn read(source: &str) -> Reading {
    read_within(source, &Limits::default())
}

/// Reads a document within limits of your own.
pub fn read_within(source: &str, limits: &Limits) -> Reading {
    if source.len() > limits.document_bytes {
        let text = Text::new("");
        let mut findings = Findings::new(&text);
        findings.error(
            Code::TooLarge,
            Span::default(),
            format!(
                "the document has {} bytes, more than the {} allowed",
                source.len(),
                limits.document_bytes
            ),
            "pass data as inputs instead of writing it into the document",
        );
        return Reading {
            document: None,
            diagnostics: findings.finish(),
        };
    }
    let text = Text::new(source);
    let mut findings = Findings::new(&text);
    let document = read_text(&text, limits, &mut findings);
    let diagnostics = findings.finish();
    debug_assert!(
        document.is_some() || diagnostics.iter().any(|found| found.severity == Severity::Error),
        "a document that could not be read has an error"
    );
    Reading {
        document,
        diagnostics,
    }
}

/// Where the front matter was found.
pub(crate) struct Head {
    /// Its lines, delimiters excluded; none when it is missing or not closed.
    pub yaml: Option<Range<usize>>,
    /// The first line of the body.
    pub body: usize,
    /// The opening delimiter, or the first line with text.
    at: Span,
}

fn read_text(text: &Text<'_>, limits: &Limits, findings: &mut Findings<'_>) -> Option<Document> {
    let head = head(text, findings)?;
    let outline = outline(text, head.body);
    if head.yaml.is_none()
        && let Some(line) = outline.at_markup
    {
        findings.clear();
        let span = text.line_span(line);
        let message = "this is the markup `@kind:style(…)` of another format, not MAML";
        findings.error(
            Code::RivalDialect,
            span,
            message,
            "MAML is Markdown behind YAML front matter",
        );
        return None;
    }
    let before = findings.rivals();
    let front = head.yaml.and_then(|lines| {
        let excerpt = Excerpt::new(text, lines.clone(), 0);
        if excerpt.text.len() > limits.front_matter_bytes {
            let message = format!(
                "the front matter is larger than {} bytes",
                limits.front_matter_bytes
            );
            findings.error(Code::YamlLimit, head.at, message, "move data into a section");
            return None;
        }
        let root = yaml::load(&excerpt, findings);
        if let Some(root) = root {
            front_matter(&root, head.at, findings)
        } else {
            if findings.is_empty() {
                let message = "the front matter is empty";
                findings.error(Code::NotAMap, head.at, message, "write `key: value` lines");
            }
            None
        }
    });
    if findings.rivals() > before {
        return None;
    }
    let (title, sections) = sections::sections(text, &outline);
    sections::check(text, &outline, &sections, findings);
    let runnable = front
        .as_ref()
        .is_some_and(|front| front.is_runnable_type() || has_code(&outline, &sections, front));
    check_required(&outline, &sections, front.as_ref(), head.at, findings);
    let blocks = blocks(text, &outline, &sections, runnable, findings);
    if blocks.is_empty()
        && front.as_ref().is_some_and(FrontMatter::is_runnable_type)
        && let Some(section) = sections
            .iter()
            .find(|section| section.kind == SectionKind::CodeBlocks)
    {
        let hint = format!("open one with ``` and a language; supported: {SUPPORTED_LANGUAGES}");
        findings.error(
            Code::BlockMissing,
            section.heading,
            "the document holds no code block",
            hint,
        );
    }
    let input_schema = schema(text, &outline, &sections, &SectionKind::InputSchema, findings);
    let output_schema = schema(text, &outline, &sections, &SectionKind::OutputSchema, findings);
    let verification = front.as_ref().and_then(|front| front.verification.as_ref());
    let embedded_specs = embedded_specs(text, &outline, &sections, verification, findings);
    let history = history(text, &outline, &sections, findings);
    Some(Document {
        front_matter: front?,
        title,
        sections,
        blocks,
        input_schema,
        output_schema,
        embedded_specs,
        history,
    })
}

/// Finds the front matter, and says what is wrong when it is not there. An empty document has nothing else to look at.
pub(crate) fn head(text: &Text<'_>, findings: &mut Findings<'_>) -> Option<Head> {
    let is_delimiter = |index: usize| text.line(index).trim_end() == "---";
    let count = text.lines.len();
    let first = (0..count).find(|index| !text.line(*index).trim().is_empty());
    let Some(first) = first else {
        findings.error(
            Code::FrontMatterMissing,
            Span::default(),
            "the document is empty",
            "start it with a line `---`",
        );
        return None;
    };
    let at = text.line_span(first);
    if !is_delimiter(first) {
        let hint = match (first..count).find(|index| is_delimiter(*index)) {
            Some(line) => format!(
                "a line `---` stands in line {}, but it must be the first",
                line + 1
            ),
            None => "start it with `---`, the keys maml_version, id and type, and another `---`".to_owned(),
        };
        findings.error(
            Code::FrontMatterMissing,
            at,
            "the document does not start with front matter",
            hint,
        );
        return Some(Head {
            yaml: None,
            body: first,
            at,
        });
    }
    if let Some(close) = (first + 1..count).find(|index| is_delimiter(*index)) {
        return Some(Head {
            yaml: Some(first + 1..close),
            body: close + 1,
            at,
        });
    }
    findings.error(
        Code::FrontMatterUnclosed,
        at,
        "the front matter is opened here but never closed",
        "write a line `---` behind its last key",
    );
    // A line `## Name` is a comment to YAML, so the body starts at the first one.
    let body = (first + 1..count)
        .find(|index| text.line(*index).starts_with("## "))
        .unwrap_or(count);
    Some(Head { yaml: None, body, at })
}

/// Whether a document of a type that nobody knows is there to be run.
fn has_code(outline: &Outline, sections: &[Section], front: &FrontMatter) -> bool {
    front.is_open_type()
        && sections
            .iter()
            .filter(|section| section.kind == SectionKind::CodeBlocks)
            .any(|section| crate::blocks::fences(outline, section).next().is_some())
}

fn check_required(
    outline: &Outline,
    sections: &[Section],
    front: Option<&FrontMatter>,
    at: Span,
    findings: &mut Findings<'_>,
) {
    let unclosed = outline.fences.iter().find(|fence| !fence.closed);
    if let Some(fence) = unclosed {
        findings.error(
            Code::FenceUnclosed,
            fence.span,
            "this code fence is never closed",
            "close it with as many signs as it was opened with",
        );
        // The missing sections may well stand inside of it.
        return;
    }
    let mut required = vec![(SectionKind::Intent, "Intent"), (SectionKind::Context, "Context")];
    if front.is_some_and(FrontMatter::is_runnable_type) {
        required.push((SectionKind::CodeBlocks, "Code_Blocks"));
    }
    for (kind, name) in &required {
        sections::require(kind, name, outline, sections, at, findings);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOOD: &str = "---\nmaml_version: \"2.0.0\"\nid: urn:uuid:550e8400-e29b-41d4-a716-446655440000\ntype: workflow\norigin: agent://ann\npermissions: {execute: ['*']}\n---\n# Title\n## Intent\nAdd.\n## Context\nNone.\n## Code_Blocks\n```python {name=add}\nx = 1 + 1\n```\n## Output_Schema\n{\"properties\": {\"x\": {\"type\": \"integer\"}}}\n";

    fn codes(source: &str) -> Vec<String> {
        read(source).diagnostics.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_good_document_has_no_findings() {
        let reading = read(GOOD);
        assert_eq!(reading.diagnostics, []);
        let document = reading.accept().unwrap();
        assert_eq!(document.title.as_deref(), Some("Title"));
        assert_eq!(document.blocks[0].name, "add");
        assert_eq!(document.blocks[0].code, "x = 1 + 1\n");
        assert_eq!(document.blocks[0].line, 15);
        assert_eq!(document.blocks[0].span.slice(GOOD), "x = 1 + 1");
        assert_eq!(document.output_schema.unwrap().property_names(), ["x"]);
    }

    #[test]
    fn the_same_document_is_read_with_other_line_ends_marks_and_indentation() {
        let crlf = GOOD.replace('\n', "\r\n");
        let marked = format!("\u{feff}{GOOD}");
        let indented = format!("    {}", GOOD.trim_end().replace('\n', "\n    "));
        let blank = format!("\n\n{GOOD}");
        let cut = GOOD.trim_end().to_owned();
        for source in [crlf, marked, indented, blank, cut] {
            let reading = read(&source);
            assert_eq!(reading.diagnostics, [], "{source}");
            assert_eq!(
                reading.document.unwrap().blocks[0].code,
                "x = 1 + 1\n",
                "{source}"
            );
        }
    }

    #[test]
    fn all_faults_are_found_in_one_pass() {
        let source = "---\nmaml_version: 9\nid: urn:uuid:zz\nid: a\n---\n## Intent\n## Code_Blocks\n```bash\nls\n```\n## Input_Schema\n{\n";
        let found = codes(source);
        for code in [
            "MAML006", "MAML010", "MAML012", "MAML014", "MAML040", "MAML042", "MAML060",
        ] {
            assert!(found.iter().any(|line| line.contains(code)), "{code}: {found:#?}");
        }
    }

    #[test]
    fn a_document_over_the_limit_is_refused_unread() {
        let limits = Limits {
            document_bytes: 10,
            ..Limits::default()
        };
        let reading = read_within(GOOD, &limits);
        assert_eq!(reading.diagnostics[0].code, Code::TooLarge);
        assert!(reading.accept().is_err());
    }

    #[test]
    fn warnings_refuse_in_strict_mode_only() {
        let source = GOOD.replace("permissions: {execute: ['*']}\n", "");
        assert!(read(&source).accept().is_ok());
        assert!(read(&source).accept_strictly().is_err());
        let source = GOOD.replace("550e8400", "1g0h8400");
        assert!(read(&source).accept().is_ok());
        let found = read(&source).accept_strictly().unwrap_err();
        assert_eq!(found[0].code, Code::InvalidUuid);
        assert!(read(GOOD).accept_strictly().is_ok());
    }

    #[test]
    fn the_front_matter_has_a_limit_of_its_own() {
        let limits = Limits {
            front_matter_bytes: 50,
            ..Limits::default()
        };
        let reading = read_within(GOOD, &limits);
        assert!(reading.document.is_none());
        assert!(
            reading
                .diagnostics
                .iter()
                .any(|found| found.code == Code::YamlLimit)
        );
    }

    proptest! {
        #[test]
        fn reading_never_panics(source in ".*") {
            let _ = read(&source);
        }

        #[test]
        fn reading_pieces_of_documents_never_panics(pieces in prop::collection::vec(prop::sample::select(vec![
            "---\n", "---", "\r\n", "\n", "    ", "id: *a\n", "&a [", "]", "{", "}", "## Intent\n", "## Code_Blocks\n", "```",
            "````python {name=", "~~~", "## Input_Schema\n", "{\"$ref\": \"#\"}", "\u{feff}", "é😀", "type: workflow\n",
            "requires:\n  libs: x\n", "permissions: [", "\t", "<!--", "-->", "@text:bold(", ": ", "- ", "\"", "'", "|\n", "? ", "!!x ",
        ]), 0..40)) {
            let source = pieces.concat();
            for found in read(&source).diagnostics {
                prop_assert!(found.span.start <= found.span.end && found.span.end <= source.len());
                prop_assert!(source.is_char_boundary(found.span.start) && source.is_char_boundary(found.span.end));
                prop_assert!(found.start <= found.end, "{found:?}");
            }
        }
    }
}
