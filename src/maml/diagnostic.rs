//! What a reading has to say about a document: one finding, and the list that collects them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::codes::Code;
use crate::place::{Place, Span, Text};

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; nothing to mend.
    Info,
    /// Probably not what was meant; refused only in strict mode.
    Warning,
    /// The document is refused.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// The stable code, such as `MAML010`.
    pub code: Code,
    /// How much it matters.
    pub severity: Severity,
    /// The bytes meant.
    pub span: Span,
    /// Where they start.
    pub start: Place,
    /// Where they end (the column behind the last character).
    pub end: Place,
    /// A sentence, without a full stop.
    pub message: String,
    /// What would help.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            code,
            severity,
            start,
            message,
            ..
        } = self;
        write!(
            out,
            "{}:{}: {severity}[{code}]: {message}",
            start.line, start.column
        )
    }
}

/// Beyond this many findings the rest is only counted.
const MAX_DIAGNOSTICS: usize = 200;

/// The findings of one reading.
#[derive(Debug)]
pub(crate) struct Findings<'a> {
    text: &'a Text<'a>,
    list: Vec<Diagnostic>,
    dropped: usize,
    dropped_error: bool,
}

impl<'a> Findings<'a> {
    pub fn new(text: &'a Text<'a>) -> Self {
        Self {
            text,
            list: Vec::new(),
            dropped: 0,
            dropped_error: false,
        }
    }

    pub fn error(&mut self, code: Code, span: Span, message: impl Into<String>, hint: impl Into<String>) {
        self.add(code, Severity::Error, span, message.into(), hint.into());
    }

    pub fn warn(&mut self, code: Code, span: Span, message: impl Into<String>, hint: impl Into<String>) {
        self.add(code, Severity::Warning, span, message.into(), hint.into());
    }

    pub fn info(&mut self, code: Code, span: Span, message: impl Into<String>, hint: impl Into<String>) {
        self.add(code, Severity::Info, span, message.into(), hint.into());
    }

    /// Adds a finding; an empty hint is no hint.
    pub fn add(&mut self, code: Code, severity: Severity, span: Span, message: String, hint: String) {
        if self.list.len() >= MAX_DIAGNOSTICS {
            self.dropped += 1;
            self.dropped_error |= severity == Severity::Error;
            return;
        }
        let hint = (!hint.is_empty()).then_some(hint);
        let (start, end) = (self.text.place(span.start), self.text.place(span.end));
        self.list.push(Diagnostic {
            code,
            severity,
            span,
            start,
            end,
            message,
            hint,
        });
    }

    /// Whether nothing was found so far.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Forgets what was found: it was measured by the wrong format.
    pub fn clear(&mut self) {
        self.list.clear();
    }

    /// How often another format was recognised.
    pub fn rivals(&self) -> usize {
        self.list
            .iter()
            .filter(|found| found.code == Code::RivalDialect)
            .count()
    }

    /// The findings in the order of the document.
    pub fn finish(mut self) -> Vec<Diagnostic> {
        self.list.sort_by_key(|found| (found.span.start, found.code));
        if self.dropped > 0 {
            let at = Span::new(self.text.source.len(), self.text.source.len());
            // An error among the ones left out still has to refuse the document.
            let severity = if self.dropped_error {
                Severity::Error
            } else {
                Severity::Info
            };
            let (start, end) = (self.text.place(at.start), self.text.place(at.end));
            let message = format!("{} more findings are not shown", self.dropped);
            self.list.push(Diagnostic {
                code: Code::TooManyFindings,
                severity,
                span: at,
                start,
                end,
                message,
                hint: Some("mend the first ones and look again".to_owned()),
            });
        }
        self.list
    }
}

/// The entry of `known` that `word` was probably meant to be.
pub(crate) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    if word.len() < 3 || word.len() > 40 {
        return None;
    }
    known
        .iter()
        .map(|candidate| (distance(&word.to_lowercase(), candidate), *candidate))
        .filter(|(distance, candidate)| *distance <= 2 && *distance * 3 <= candidate.len())
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's edit distance.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, from) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, to) in right.iter().enumerate() {
            let change = diagonal + usize::from(from != *to);
            diagonal = row[column + 1];
            row[column + 1] = change.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_word_finds_its_neighbour() {
        let known = ["permissions", "requires", "origin"];
        assert_eq!(nearest("permission", &known), Some("permissions"));
        assert_eq!(nearest("Requries", &known), Some("requires"));
        assert_eq!(nearest("colour", &known), None);
        assert_eq!(nearest("or", &known), None);
    }

    #[test]
    fn an_error_that_is_not_shown_still_refuses() {
        let text = Text::new("x");
        let mut findings = Findings::new(&text);
        for _ in 0..MAX_DIAGNOSTICS {
            findings.info(Code::UnknownKey, Span::new(0, 1), "a", "");
        }
        findings.error(Code::UnknownKey, Span::new(0, 1), "b", "");
        let list = findings.finish();
        assert_eq!(list.len(), MAX_DIAGNOSTICS + 1);
        assert_eq!(list.last().map(|last| last.severity), Some(Severity::Error));
    }
}
