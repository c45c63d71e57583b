//! Code blocks: the fences of the section Code_Blocks.

use std::collections::HashSet;
use std::fmt;

use serde::{Serialize, Serializer};

use crate::attributes::attributes;
use crate::codes::Code;
use crate::diagnostic::{Findings, Severity, nearest};
use crate::order;
use crate::outline::{Fence, Outline};
use crate::place::{Excerpt, Span, Text, number};
use crate::sections::{Section, SectionKind};

/// The languages that can be run, with their aliases, for messages.
pub const SUPPORTED_LANGUAGES: &str =
    "python (also python3, py, qiskit, torch), bash (sh), javascript (js, node), openqasm (qasm)";

/// Every word that names a language which can be run.
const WORDS: [(&str, Language); 16] = [
    ("python", Language::Python),
    ("python3", Language::Python),
    ("py", Language::Python),
    ("ipython", Language::Python),
    ("qiskit", Language::Python),
    ("torch", Language::Python),
    ("pytorch", Language::Python),
    ("bash", Language::Bash),
    ("sh", Language::Bash),
    ("shell", Language::Bash),
    ("javascript", Language::JavaScript),
    ("js", Language::JavaScript),
    ("node", Language::JavaScript),
    ("openqasm", Language::OpenQasm),
    ("qasm", Language::OpenQasm),
    ("qasm3", Language::OpenQasm),
];

/// More blocks than this in one document are refused.
pub(crate) const MAX_BLOCKS: usize = 256;

/// The language of a block.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Language {
    /// Python, under any of its names; all such blocks of a run share one interpreter.
    Python,
    /// Bash: a process of its own.
    Bash,
    /// JavaScript: a node process of its own, where the head has node.
    JavaScript,
    /// OpenQASM 2 or 3: a circuit that Qiskit simulates.
    OpenQasm,
    /// A language that cannot be run, as written; empty when none was named.
    Other(String),
}

impl Language {
    fn of(word: &str) -> Self {
        let known = WORDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
        known.map_or_else(|| Self::Other(word.to_owned()), |(_, language)| language.clone())
    }

    /// The language's name.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Python => "python",
            Self::Bash => "bash",
            Self::JavaScript => "javascript",
            Self::OpenQasm => "openqasm",
            Self::Other(name) => name,
        }
    }
}

impl fmt::Display for Language {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

impl Serialize for Language {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// One code block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Block {
    /// `{name=…}` of its fence, or `block-1`, `block-2` and so on by place.
    pub name: String,
    /// Its language.
    pub language: Language,
    /// The code, lines ended by `\n`.
    pub code: String,
    /// The bytes of the code in the document.
    pub span: Span,
    /// The line of the document in which the code starts, from 1.
    pub line: u32,
    /// Names of the blocks that must have succeeded before this one: `{needs=a,b}`.
    pub needs: Vec<String>,
    /// How long it may take at most, in seconds: `{timeout=30}`. The run's own limit holds beside it.
    pub timeout_seconds: Option<u32>,
    /// Whether the run goes on when it fails: `{allow_failure=true}`.
    pub allow_failure: bool,
}

/// Collects the code blocks of all sections that hold them. With `runnable`, what keeps a block from being run is an error.
pub(crate) fn blocks(
    text: &Text<'_>,
    outline: &Outline,
    sections: &[Section],
    runnable: bool,
    findings: &mut Findings<'_>,
) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut names = HashSet::new();
    let mut needs = Vec::new();
    let severity = if runnable { Severity::Error } else { Severity::Info };
    for section in sections
        .iter()
        .filter(|section| section.kind == SectionKind::CodeBlocks)
    {
        for fence in fences(outline, section) {
            if blocks.len() == MAX_BLOCKS {
                let message = format!("the document holds more than {MAX_BLOCKS} code blocks");
                findings.error(
                    Code::TooManyBlocks,
                    fence.span,
                    message,
                    "join blocks, or split the document",
                );
                return blocks;
            }
            let (word, behind) = split_info(&fence.info);
            let language = Language::of(word);
            report_language(&language, fence, severity, findings);
            let attributes = attributes(behind, attributes_offset(fence, behind), severity, findings);
            let name = name(attributes.name, blocks.len() + 1, &mut names, findings);
            needs.push(attributes.needs.1);
            let lines = fence.open + 1..fence.close;
            let code = Excerpt::new(text, lines.clone(), fence.indent);
            if code.text.trim().is_empty() {
                findings.warn(Code::BlockEmpty, fence.span, "this code block is empty", "");
            }
            blocks.push(Block {
                name,
                language,
                span: if lines.is_empty() {
                    Span::new(fence.span.end, fence.span.end)
                } else {
                    text.lines_span(lines)
                },
                code: code.text,
                line: number(fence.open + 2),
                needs: attributes.needs.0,
                timeout_seconds: attributes.timeout_seconds,
                allow_failure: attributes.allow_failure,
            });
        }
    }
    order::check(&blocks, &needs, severity, findings);
    blocks
}

/// The fences within a section.
pub(crate) fn fences<'o>(outline: &'o Outline, section: &Section) -> impl Iterator<Item = &'o Fence> {
    let (first, end) = section.lines;
    // Fences are in order, so a binary search keeps many sections times many fences linear.
    let from = outline.fences.partition_point(|fence| fence.open < first);
    outline.fences[from..]
        .iter()
        .take_while(move |fence| fence.open < end)
}

fn report_language(language: &Language, fence: &Fence, severity: Severity, findings: &mut Findings<'_>) {
    let Language::Other(name) = language else { return };
    let (code, message) = if name.is_empty() {
        (
            Code::LanguageMissing,
            "this code block names no language".to_owned(),
        )
    } else {
        (
            Code::LanguageUnsupported,
            format!("blocks in `{name}` cannot be run"),
        )
    };
    let mut hint = format!("supported: {SUPPORTED_LANGUAGES}");
    if let Some(near) = nearest(name, &WORDS.map(|(word, _)| word)) {
        hint = format!("did you mean `{near}`? {hint}");
    }
    findings.add(code, severity, fence.span, message, hint);
}

/// Splits `python {name=a}`, `{.python name=a}` and `python name=a` into language and attributes.
pub(crate) fn split_info(info: &str) -> (&str, &str) {
    let info = info.trim();
    if let Some(inner) = info.strip_prefix('{') {
        let inner = inner.strip_suffix('}').unwrap_or(inner).trim();
        return match inner.strip_prefix('.') {
            Some(inner) => inner
                .split_once(char::is_whitespace)
                .unwrap_or(inner.split_at(inner.len())),
            None => ("", inner),
        };
    }
    let end = info
        .find(|sign: char| sign.is_whitespace() || matches!(sign, '{' | ','))
        .unwrap_or(info.len());
    let (word, rest) = info.split_at(end);
    let rest = rest.trim_start_matches(|sign: char| sign.is_whitespace() || sign == ',');
    (
        word,
        rest.strip_prefix('{')
            .map_or(rest, |inner| inner.strip_suffix('}').unwrap_or(inner)),
    )
}

/// Where `attributes`, a part of the info string, starts in the source: the info string ends where the fence's line does.
pub(crate) fn attributes_offset(fence: &Fence, attributes: &str) -> usize {
    let before = attributes.as_ptr().addr() - fence.info.as_ptr().addr();
    fence.span.end - fence.info.len() + before
}

/// The name given, or else one by the block's place.
fn name(
    given: Option<(String, Span)>,
    number: usize,
    names: &mut HashSet<String>,
    findings: &mut Findings<'_>,
) -> String {
    if let Some((name, span)) = given {
        if is_name(&name) {
            if !names.insert(name.clone()) {
                let message = format!("another block is named `{name}` already");
                findings.error(Code::BlockName, span, message, "");
            }
            return name;
        }
        let message = format!("`{name}` is no name for a block");
        findings.error(
            Code::BlockName,
            span,
            message,
            "letters, digits, _, - and ., at most 63",
        );
    }
    let mut name = format!("block-{number}");
    for next in number + 1.. {
        if names.insert(name.clone()) {
            break;
        }
        name = format!("block-{next}");
    }
    name
}

fn is_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_behind_a_fence_are_language_and_attributes() {
        for (info, expected) in [
            ("python", ("python", "")),
            ("python {name=a}", ("python", "name=a")),
            ("python{name=a}", ("python", "name=a")),
            ("{.python name=a}", ("python", "name=a")),
            ("{name=a}", ("", "name=a")),
            ("python, linenos", ("python", "linenos")),
            ("python name=a", ("python", "name=a")),
            ("", ("", "")),
            ("{", ("", "")),
            ("python {", ("python", "")),
        ] {
            assert_eq!(split_info(info), expected, "{info}");
        }
    }

    #[test]
    fn python_has_several_names() {
        for word in ["python", "Python", "qiskit", "torch", "py"] {
            assert_eq!(Language::of(word), Language::Python);
        }
        assert_eq!(Language::of("SH"), Language::Bash);
        assert_eq!(Language::of("sql"), Language::Other("sql".to_owned()));
    }
}
