//! Writes what a run gave back into its document: the outputs, and a line of History. Every other byte stays.

use std::fmt;

use serde::Serialize;
use serde::de::IgnoredAny;

use crate::blocks::fences;
use crate::diagnostic::{Diagnostic, Findings};
use crate::document::{Limits, head, read};
use crate::history::{Style, continues, entries};
use crate::outline::{Outline, fence_for, outline};
use crate::place::{Text, number};
use crate::sections::{Section, SectionKind, sections};

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum RunResult {
    /// All that it was asked for is there.
    Success,
    /// It failed; there are no outputs.
    Error,
}

impl fmt::Display for RunResult {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Success => "Success",
            Self::Error => "Error",
        })
    }
}

/// What is noted about a run.
#[derive(Clone, Copy, Debug)]
pub struct RunNote<'a> {
    /// The outputs as JSON text, written as it is. Without outputs the section is left as it stands.
    pub outputs_json: Option<&'a str>,
    /// When the run ended, RFC 3339.
    pub ended_at: &'a str,
    /// The run's id: one word.
    pub run_id: &'a str,
    /// How it ended.
    pub result: RunResult,
    /// What else there is to say, in a few words; may be empty.
    pub text: &'a str,
}

/// Why a document was left as it was.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// It cannot be read.
    #[error("the document cannot be read{}", first(.0))]
    Unreadable(Vec<Diagnostic>),
    /// A code fence or a comment reaches to the end, so that whatever is added would be a part of it.
    #[error("what is opened in line {0} is never closed, so nothing can be added behind it")]
    Unclosed(u32),
    /// The outputs are not JSON.
    #[error("the outputs are not JSON")]
    Outputs(#[source] serde_json::Error),
    /// The time is not RFC 3339.
    #[error("the time `{0}` is not RFC 3339")]
    Time(String),
    /// The run's id is not one word.
    #[error("the run id `{0}` is not one word")]
    RunId(String),
    /// The result would be larger than a document may be.
    #[error("the document would have {0} bytes, more than the {limit} allowed", limit = Limits::default().document_bytes)]
    TooLarge(usize),
}

fn first(diagnostics: &[Diagnostic]) -> String {
    diagnostics
        .iter()
        .max_by_key(|found| (found.severity, std::cmp::Reverse(found.start)))
        .map_or_else(String::new, |found| format!(": {found}"))
}

/// The document with the outputs of a run in its section Outputs and one more line in its section History.
///
/// Outputs are written in a fence: in the place of the first JSON fence of the section, else behind its text. A missing
/// section is made, Outputs before History, else at the end. The lines of History that are there never change, and the new one
/// is written as the last of them is. A run that History tells already is not noted again: the document comes back as it is.
pub fn with_run(source: &str, note: &RunNote<'_>) -> Result<String, EditError> {
    if note.run_id.is_empty()
        || note
            .run_id
            .contains(|sign: char| sign.is_whitespace() || sign.is_control())
    {
        return Err(EditError::RunId(note.run_id.to_owned()));
    }
    if note.ended_at.parse::<jiff::Timestamp>().is_err() {
        return Err(EditError::Time(note.ended_at.to_owned()));
    }
    let reading = read(source);
    let Some(document) = reading.document else {
        return Err(EditError::Unreadable(reading.diagnostics));
    };
    if let Some(line) = unclosed(source) {
        return Err(EditError::Unclosed(line));
    }
    if document.history.iter().any(|line| tells(&line.text, note.run_id)) {
        return Ok(source.to_owned());
    }
    let mut edited = source.to_owned();
    if let Some(json) = note.outputs_json {
        serde_json::from_str::<IgnoredAny>(json).map_err(EditError::Outputs)?;
        edited = with_outputs(&edited, json.trim());
    }
    edited = with_history(&edited, note);
    if edited.len() > Limits::default().document_bytes {
        return Err(EditError::TooLarge(edited.len()));
    }
    Ok(edited)
}

/// Whether a line of History is about this run.
fn tells(text: &str, run_id: &str) -> bool {
    let mut words = text.split_whitespace().rev();
    words.next() == Some(run_id) && words.next() == Some("run")
}

/// The line of a fence or a comment that is never closed.
fn unclosed(source: &str) -> Option<u32> {
    let text = Text::new(source);
    let page = Page::of(&text);
    let fence = page.outline.fences.iter().find(|fence| !fence.closed);
    let comment = page.outline.comments.last().filter(|_| page.outline.comment_open);
    fence
        .map(|fence| fence.open)
        .or(comment.map(|comment| comment.start))
        .map(|line| number(line + 1))
}

/// A document as something is written into it.
struct Page<'t, 's> {
    text: &'t Text<'s>,
    outline: Outline,
    sections: Vec<Section>,
}

impl<'t, 's> Page<'t, 's> {
    fn of(text: &'t Text<'s>) -> Self {
        let body = head(text, &mut Findings::new(text)).map_or(0, |head| head.body);
        let outline = outline(text, body);
        let (_, sections) = sections(text, &outline);
        Self {
            text,
            outline,
            sections,
        }
    }

    fn section(&self, kind: &SectionKind) -> Option<&Section> {
        self.sections.iter().find(|section| section.kind == *kind)
    }

    /// The line behind the last line of the section that says something; its heading always does.
    fn end_of(&self, section: &Section) -> usize {
        let last = (section.lines.0..section.lines.1).rfind(|index| !self.is_blank(*index));
        last.map_or(section.lines.0, |last| last + 1)
    }

    fn is_blank(&self, line: usize) -> bool {
        self.text.line(line).trim().is_empty()
    }

    /// Puts lines in the place of the lines `from` up to `to`, with a blank line before and behind them where `apart` asks for
    /// it and none is there.
    fn replace(&self, from: usize, to: usize, lines: &[String], apart: bool) -> String {
        let source = self.text.source;
        let offset = |line: usize| self.text.lines.get(line).map_or(source.len(), |line| line.begin);
        let newline = if source.split('\n').next().is_some_and(|line| line.ends_with('\r')) {
            "\r\n"
        } else {
            "\n"
        };
        let mut edited = source[..offset(from)].to_owned();
        if !edited.is_empty() && !edited.ends_with('\n') {
            edited.push_str(newline);
        }
        if apart && from > 0 && !self.is_blank(from - 1) {
            edited.push_str(newline);
        }
        for line in lines {
            edited.push_str(line);
            edited.push_str(newline);
        }
        if apart && to < self.text.lines.len() && !self.is_blank(to) {
            edited.push_str(newline);
        }
        edited.push_str(&source[offset(to)..]);
        edited
    }

    /// Lines with the document's own indentation.
    fn indented<'l>(&self, lines: impl IntoIterator<Item = &'l str>) -> Vec<String> {
        lines
            .into_iter()
            .map(|line| {
                if line.is_empty() {
                    String::new()
                } else {
                    format!("{}{line}", self.text.indent)
                }
            })
            .collect()
    }
}

fn with_outputs(source: &str, json: &str) -> String {
    let text = Text::new(source);
    let page = Page::of(&text);
    let fence = fence_for(json);
    let opening = format!("{fence}json");
    let mut lines = vec![opening.as_str()];
    lines.extend(json.lines());
    lines.push(&fence);
    if let Some(section) = page.section(&SectionKind::Outputs) {
        let old = fences(&page.outline, section).find(|fence| {
            fence
                .info
                .get(..4)
                .is_some_and(|word| word.eq_ignore_ascii_case("json"))
        });
        let end = page.end_of(section);
        let (from, to) = old.map_or((end, end), |old| (old.open, old.close + 1));
        return page.replace(from, to, &page.indented(lines), old.is_none());
    }
    let at = page
        .section(&SectionKind::History)
        .map_or(text.lines.len(), |section| section.lines.0 - 1);
    lines.splice(0..0, ["## Outputs", ""]);
    page.replace(at, at, &page.indented(lines), true)
}

fn with_history(source: &str, note: &RunNote<'_>) -> String {
    let text = Text::new(source);
    let page = Page::of(&text);
    // A line of History is one line, whatever was said.
    let said: String = note
        .text
        .chars()
        .map(|sign| if sign.is_control() { ' ' } else { sign })
        .collect();
    let words = [&note.result.to_string(), said.trim(), "run", note.run_id];
    let said = words
        .into_iter()
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    let line = |style: Style| style.write(note.ended_at, "EXECUTE", &said);
    let Some(section) = page.section(&SectionKind::History) else {
        let line = line(Style::default());
        let at = text.lines.len();
        let lines = page.indented(["## History", "", line.as_str()]);
        return page.replace(at, at, &lines, true);
    };
    let (entries, _) = entries(&text, &page.outline, section);
    let Some(last) = entries.last() else {
        let end = page.end_of(section);
        let line = line(Style::default());
        return page.replace(end, end, &page.indented([line.as_str()]), true);
    };
    let mut at = last.line + 1;
    let fence = page.outline.fence_at(last.line).map(|fence| fence.open);
    while at < section.lines.1
        && continues(text.line(at))
        && !page.outline.is_comment(at)
        && page.outline.fence_at(at).map(|fence| fence.open) == fence
        && page.outline.fence_at(at).is_none_or(|fence| fence.close != at)
    {
        at += 1;
    }
    let before = text.lines[last.line];
    let margin = &source[before.begin..last.said.span.start];
    let mut lines = vec![format!("{margin}{}", line(last.style))];
    let spaced = entries.len() > 1 && page.is_blank(last.line - 1);
    if spaced {
        lines.insert(0, String::new());
    }
    page.replace(at, at, &lines, false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Severity;
    use crate::pieces::{HEAD, documents};
    use proptest::prelude::*;

    fn note<'a>(run_id: &'a str, outputs_json: Option<&'a str>) -> RunNote<'a> {
        RunNote {
            outputs_json,
            ended_at: "2026-05-04T10:00:00Z",
            run_id,
            result: RunResult::Success,
            text: "in 12 ms",
        }
    }

    fn edited(body: &str, run_id: &str, outputs: Option<&str>) -> String {
        let edited = with_run(&format!("{HEAD}{body}"), &note(run_id, outputs)).unwrap();
        edited.strip_prefix(HEAD).unwrap().to_owned()
    }

    const LINE: &str = "2026-05-04T10:00:00Z: [EXECUTE] Success in 12 ms run r1";

    #[test]
    fn outputs_and_history_find_their_place() {
        let fence = "```json\n{\"a\": 1}\n```\n";
        for (body, expected) in [
            (
                "## Intent\na",
                format!("## Intent\na\n\n## Outputs\n\n{fence}\n## History\n\n- {LINE}\n"),
            ),
            (
                "## History\n- 2026-05-03T10:00:00Z: [CREATE] x\n  more\n\n## Intent\n",
                format!(
                    "\n## Outputs\n\n{fence}\n## History\n- 2026-05-03T10:00:00Z: [CREATE] x\n  more\n- {LINE}\n\n## Intent\n"
                ),
            ),
            (
                "## Outputs 📤\nThey follow.\n````JSON x\nold\n````\nThat was it.\n## HISTORY\n\n\n",
                format!("## Outputs 📤\nThey follow.\n{fence}That was it.\n## HISTORY\n\n- {LINE}\n\n\n"),
            ),
            (
                "## History\n## Outputs\nprose\n## Intent",
                format!("## History\n\n- {LINE}\n\n## Outputs\nprose\n\n{fence}\n## Intent"),
            ),
        ] {
            assert_eq!(edited(body, "r1", Some("{\"a\": 1}\n")), expected, "{body:?}");
        }
    }

    #[test]
    fn the_style_of_history_is_kept() {
        for (before, after) in [
            (
                "[2026-05-03T10:00:00Z] [CREATE] x",
                "[2026-05-04T10:00:00Z] [EXECUTE] Success in 12 ms run r1",
            ),
            (
                "- [2026-05-03T10:00:00Z] [CREATE] x",
                "- [2026-05-04T10:00:00Z] [EXECUTE] Success in 12 ms run r1",
            ),
            (
                " * 2026-05-03T10:00:00Z: [CREATE] x",
                " * 2026-05-04T10:00:00Z: [EXECUTE] Success in 12 ms run r1",
            ),
        ] {
            let expected = format!("## History\n{before}\n{after}\n");
            assert_eq!(edited(&format!("## History\n{before}"), "r1", None), expected);
        }
        let spaced = "## History\n[2026-05-03] [CREATE] x\n\n[2026-05-03] [VERIFY] y\n---\nend\n";
        let expected = spaced.replace(
            "[VERIFY] y\n",
            "[VERIFY] y\n\n[2026-05-04T10:00:00Z] [EXECUTE] Success in 12 ms run r1\n",
        );
        assert_eq!(edited(spaced, "r1", None), expected);
        let fenced = "## History\n```\n- 2026-05-03T10:00:00Z: [CREATE] x\n```\n";
        let expected = fenced.replace("x\n", &format!("x\n- {LINE}\n"));
        assert_eq!(edited(fenced, "r1", None), expected);
    }

    #[test]
    fn line_ends_marks_and_indentation_stay() {
        let source = format!("{HEAD}## Intent\na\n");
        let written = with_run(&source, &note("r1", Some("{}"))).unwrap();
        let crlf = with_run(&source.replace('\n', "\r\n"), &note("r1", Some("{}"))).unwrap();
        assert_eq!(crlf, written.replace('\n', "\r\n"));
        let marked = with_run(&format!("\u{feff}{source}"), &note("r1", Some("{}"))).unwrap();
        assert_eq!(marked, format!("\u{feff}{written}"));
        let indented: String = source.lines().flat_map(|line| ["  ", line, "\n"]).collect();
        let indented = with_run(&indented, &note("r1", Some("{}"))).unwrap();
        assert_eq!(indented.replace("\n  ", "\n"), format!("  {written}"));
    }

    #[test]
    fn a_run_is_noted_once() {
        let once = with_run(HEAD, &note("r1", Some("1"))).unwrap();
        assert_eq!(with_run(&once, &note("r1", Some("2"))).unwrap(), once);
        let twice = with_run(&once, &note("r", Some("```"))).unwrap_err();
        assert!(matches!(twice, EditError::Outputs(_)));
        let twice = with_run(&once, &note("r", Some("\"```\""))).unwrap();
        assert_eq!(twice.matches("## Outputs").count(), 1);
        assert_eq!(twice.matches("[EXECUTE]").count(), 2);
        assert!(twice.contains("````json\n\"```\"\n````\n"));
    }

    #[test]
    fn a_text_of_several_lines_stays_one_line() {
        let said = RunNote {
            text: "a\n## Intent\r\nb",
            ..note("r1", None)
        };
        let written = with_run(HEAD, &said).unwrap();
        assert_eq!(written.lines().count(), HEAD.lines().count() + 4);
    }

    #[test]
    fn what_could_be_spoilt_is_left_alone() {
        for (body, line) in [("## Intent\n```\n", 7), ("## Intent\n<!--\n", 7)] {
            match with_run(&format!("{HEAD}{body}"), &note("r1", None)) {
                Err(EditError::Unclosed(found)) => assert_eq!(found, line),
                other => panic!("{other:?}"),
            }
        }
        assert!(matches!(
            with_run("text", &note("r1", None)),
            Err(EditError::Unreadable(_))
        ));
        assert!(matches!(
            with_run(HEAD, &note("a b", None)),
            Err(EditError::RunId(_))
        ));
        let large = format!("\"{}\"", "x".repeat(2 << 20));
        assert!(matches!(
            with_run(HEAD, &note("r1", Some(&large))),
            Err(EditError::TooLarge(_))
        ));
    }

    fn errors(source: &str) -> Vec<String> {
        read(source)
            .diagnostics
            .into_iter()
            .filter(|found| found.severity == Severity::Error)
            .map(|found| found.message)
            .collect()
    }

    proptest! {
        #[test]
        fn two_runs_leave_one_section_and_two_lines(source in documents()) {
            let Ok(once) = with_run(&source, &note("run-a", Some("{\n  \"a\": 1\n}"))) else {
                return Ok(());
            };
            let twice = with_run(&once, &note("run-b", Some("{\"a\": 2}"))).unwrap();
            prop_assert_eq!(with_run(&twice, &note("run-a", Some("3"))).unwrap(), twice.as_str());
            let before = errors(&source);
            let new: Vec<String> = errors(&twice).into_iter().filter(|message| !before.contains(message)).collect();
            // Messages that name lines may name others now.
            prop_assert!(new.iter().all(|message| message.contains("line ")), "{new:?}");
            prop_assert_eq!(errors(&twice).len(), before.len());
            let (old, new) = (read(&source).document.unwrap(), read(&twice).document.unwrap());
            prop_assert_eq!(new.history.len(), old.history.len() + 2);
            let outputs = |document: &crate::Document| {
                document.sections.iter().filter(|section| section.kind == SectionKind::Outputs).count()
            };
            prop_assert_eq!(outputs(&new), outputs(&old).max(1));
            let (first, second) = (twice.contains("\"a\": 1\n"), twice.contains("{\"a\": 2}"));
            prop_assert!(second && !first);
            prop_assert_eq!(new.blocks.len(), old.blocks.len());
        }

        #[test]
        fn no_other_line_changes(source in documents()) {
            let Ok(once) = with_run(&source, &note("run-a", None)) else {
                return Ok(());
            };
            // Take the new lines out: what is left is the source.
            let mut rest = source.split_inclusive('\n').peekable();
            for line in once.split_inclusive('\n') {
                if rest.peek().is_some_and(|next| *next == line || next.trim_end_matches(['\r', '\n']) == line.trim_end_matches(['\r', '\n']) && !next.ends_with('\n')) {
                    rest.next();
                }
            }
            prop_assert_eq!(rest.next(), None);
        }
    }
}
