//! The section History: one line for each thing that happened to the document, only ever added to.

use serde::Serialize;

use crate::codes::Code;
use crate::diagnostic::{Findings, nearest};
use crate::outline::Outline;
use crate::place::{Span, Text, number};
use crate::sections::{Section, SectionKind};

/// What may happen to a document.
const OPERATIONS: [&str; 6] = ["CREATE", "VERIFY", "EXECUTE", "VALIDATE", "WRAP", "TICKET"];

/// One line of History.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HistoryLine {
    /// When it happened, as written.
    pub time: String,
    /// What happened: CREATE, VERIFY, EXECUTE, VALIDATE, WRAP or TICKET, or another word as written.
    pub op: String,
    /// What is said about it.
    pub text: String,
    /// The line's bytes without surrounding white space.
    pub span: Span,
    /// The line, from 1.
    pub line: u32,
}

/// How lines of History are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Style {
    /// The sign of a list in front.
    pub bullet: Option<char>,
    /// `[time] [OP]` instead of `time: [OP]`.
    pub brackets: bool,
}

impl Default for Style {
    fn default() -> Self {
        Self {
            bullet: Some('-'),
            brackets: false,
        }
    }
}

impl Style {
    /// A line in this style.
    pub fn write(self, time: &str, op: &str, text: &str) -> String {
        let bullet = self.bullet.map(|sign| format!("{sign} ")).unwrap_or_default();
        if self.brackets {
            format!("{bullet}[{time}] [{op}] {text}")
        } else {
            format!("{bullet}{time}: [{op}] {text}")
        }
    }
}

/// A line that was understood, the index of its line, and how it is written.
pub(crate) struct Entry {
    pub line: usize,
    pub style: Style,
    pub said: HistoryLine,
}

/// Reads the first section History and reports the lines that mean nothing.
pub(crate) fn history(
    text: &Text<'_>,
    outline: &Outline,
    sections: &[Section],
    findings: &mut Findings<'_>,
) -> Vec<HistoryLine> {
    let Some(section) = sections
        .iter()
        .find(|section| section.kind == SectionKind::History)
    else {
        return Vec::new();
    };
    let (entries, others) = entries(text, outline, section);
    for line in others {
        findings.info(
            Code::HistoryLine,
            text.line_span(line),
            "this line of History is kept but not understood",
            "- 2026-05-04T10:00:00Z: [EXECUTE] text",
        );
    }
    for HistoryLine { time, op, span, .. } in entries.iter().map(|entry| &entry.said) {
        if time.parse::<jiff::Timestamp>().is_err() {
            let message = format!("the time `{time}` in History is not an RFC 3339 time");
            findings.info(Code::InvalidTime, *span, message, "2026-05-04T10:00:00Z");
        }
        if !OPERATIONS.contains(&op.as_str()) {
            let words = OPERATIONS.map(str::to_ascii_lowercase);
            let hint = match nearest(op, &words.each_ref().map(String::as_str)) {
                Some(near) => format!("did you mean {}?", near.to_ascii_uppercase()),
                None => format!("known: {}", OPERATIONS.join(", ")),
            };
            let message = format!("the operation `{op}` in History is not known");
            findings.warn(Code::HistoryOperation, *span, message, hint);
        }
    }
    entries.into_iter().map(|entry| entry.said).collect()
}

/// The lines of a section that are lines of History, and those that are none although they say something.
pub(crate) fn entries(text: &Text<'_>, outline: &Outline, section: &Section) -> (Vec<Entry>, Vec<usize>) {
    let (mut entries, mut others) = (Vec::<Entry>::new(), Vec::new());
    for index in section.lines.0..section.lines.1 {
        let line = text.line(index);
        let content = line.trim();
        let delimits = outline
            .fence_at(index)
            .is_some_and(|fence| index == fence.open || index == fence.close);
        if content.is_empty() || delimits || outline.is_comment(index) {
            continue;
        }
        if let Some((style, time, op, said)) = parse(content) {
            let said = HistoryLine {
                time: time.to_owned(),
                op: op.to_owned(),
                text: said.to_owned(),
                span: text.line_span(index),
                line: number(index + 1),
            };
            entries.push(Entry {
                line: index,
                style,
                said,
            });
        } else if !(content.starts_with('#') || is_rule(content) || continues(line) && !entries.is_empty()) {
            others.push(index);
        }
    }
    (entries, others)
}

/// Whether a line goes on with what the line before it says.
pub(crate) fn continues(line: &str) -> bool {
    line.starts_with(['\t', ' ']) && !line.trim().is_empty()
}

fn is_rule(content: &str) -> bool {
    content.len() >= 3
        && ['-', '*', '_']
            .iter()
            .any(|sign| content.chars().all(|one| one == *sign))
}

/// Style, time, operation and text of a line.
fn parse(content: &str) -> Option<(Style, &str, &str, &str)> {
    let bullet = content
        .chars()
        .next()
        .filter(|sign| matches!(sign, '-' | '*') && content[1..].starts_with(' '));
    let rest = match bullet {
        Some(_) => content[1..].trim_start(),
        None => content,
    };
    let brackets = rest.starts_with('[');
    let (time, behind) = if brackets {
        rest[1..].split_once(']')?
    } else {
        bullet?;
        let end = rest.find(": [")?;
        (&rest[..end], &rest[end + 1..])
    };
    let (op, said) = behind.trim_start().strip_prefix('[')?.split_once(']')?;
    let (time, op) = (time.trim(), op.trim());
    let is_op = !op.is_empty() && op.chars().all(|sign| sign.is_alphanumeric() || sign == '_');
    (time.starts_with(|first: char| first.is_ascii_digit()) && is_op).then_some((
        Style { bullet, brackets },
        time,
        op,
        said.trim(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_styles_are_read_and_written() {
        for line in [
            "- 2026-05-04T10:00:00Z: [CREATE] made by hand",
            "- [2026-05-04T10:00:00Z] [CREATE] made by hand",
            "[2026-05-04T10:00:00Z] [CREATE] made by hand",
            "* 2026-05-04T10:00:00Z: [CREATE] made by hand",
        ] {
            let (style, time, op, text) = parse(line).unwrap();
            assert_eq!(
                (time, op, text),
                ("2026-05-04T10:00:00Z", "CREATE", "made by hand"),
                "{line}"
            );
            assert_eq!(style.write(time, op, text), line);
        }
    }

    #[test]
    fn other_lines_are_none() {
        for line in [
            "",
            "-",
            "- text",
            "- [ ] [x] done",
            "[a](b)",
            "2026-05-04: [CREATE] without a list",
            "- see: [the manual]",
            "- 2026-05-04: [] nothing",
            "- 2026-05-04: [CREATE",
            "é",
        ] {
            assert!(parse(line).is_none(), "{line}");
        }
    }
}
