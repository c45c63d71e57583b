//! The outline of a document's body: headings and code fences, found line by line in one pass.
//!
//! It follows CommonMark where that matters here: what stands inside a fence or an HTML comment is no heading, and a fence
//! is closed only by at least as many of the same signs.

use std::ops::Range;

use crate::place::{Span, Text};

/// A heading outside of fences and comments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Heading {
    pub line: usize,
    pub level: usize,
    pub title: String,
    pub span: Span,
}

/// A fenced code block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fence {
    /// Line of the opening fence.
    pub open: usize,
    /// Line of the closing fence, or the number of lines when there is none.
    pub close: usize,
    pub closed: bool,
    /// Blanks before the opening fence.
    pub indent: usize,
    /// What stands behind the opening signs, trimmed.
    pub info: String,
    /// The opening line.
    pub span: Span,
}

/// What the body consists of.
#[derive(Debug, Default)]
pub(crate) struct Outline {
    pub headings: Vec<Heading>,
    pub fences: Vec<Fence>,
    /// Lines like `##Intent`, which CommonMark reads as text.
    pub near_headings: Vec<Heading>,
    /// The lines of each HTML comment, end exclusive.
    pub comments: Vec<Range<usize>>,
    /// Whether the last comment is never closed.
    pub comment_open: bool,
    /// The first line with markup such as `@text:bold()`.
    pub at_markup: Option<usize>,
}

/// Looks through the lines from `first` on.
pub(crate) fn outline(text: &Text<'_>, first: usize) -> Outline {
    let mut outline = Outline::default();
    let mut open: Option<(Fence, u8, usize)> = None;
    let mut comment: Option<usize> = None;
    for index in first..text.lines.len() {
        let line = text.line(index);
        if let Some((fence, sign, count)) = &mut open {
            if closes(line, *sign, *count) {
                fence.close = index;
                fence.closed = true;
                outline.fences.extend(open.take().map(|(fence, ..)| fence));
            }
            continue;
        }
        if let Some(begin) = comment {
            if line.contains("-->") {
                outline.comments.push(begin..index + 1);
                comment = None;
            }
            continue;
        }
        let content = line.trim_start_matches(' ');
        let indent = line.len() - content.len();
        if indent > 3 {
            continue;
        }
        if let Some(rest) = content.strip_prefix("<!--") {
            if rest.contains("-->") {
                outline.comments.push(index..index + 1);
            } else {
                comment = Some(index);
            }
        } else if let Some((sign, count, info)) = opens(content) {
            let span = text.line_span(index);
            let close = text.lines.len();
            let info = info.to_owned();
            open = Some((
                Fence {
                    open: index,
                    close,
                    closed: false,
                    indent,
                    info,
                    span,
                },
                sign,
                count,
            ));
        } else if content.starts_with('#') {
            let level = content.bytes().take_while(|byte| *byte == b'#').count();
            let rest = &content[level..];
            let title = rest.trim().trim_end_matches('#').trim().to_owned();
            let heading = Heading {
                line: index,
                level,
                title,
                span: text.line_span(index),
            };
            if level > 6 {
            } else if rest.is_empty() || rest.starts_with([' ', '\t']) {
                outline.headings.push(heading);
            } else {
                outline.near_headings.push(heading);
            }
        } else if outline.at_markup.is_none() && is_at_markup(content) {
            outline.at_markup = Some(index);
        }
    }
    outline.fences.extend(open.map(|(fence, ..)| fence));
    if let Some(begin) = comment {
        outline.comments.push(begin..text.lines.len());
        outline.comment_open = true;
    }
    outline
}

impl Outline {
    /// The fence whose lines, its delimiters included, hold this line.
    pub fn fence_at(&self, line: usize) -> Option<&Fence> {
        let next = self.fences.partition_point(|fence| fence.open <= line);
        let fence = self.fences.get(next.checked_sub(1)?)?;
        (line <= fence.close).then_some(fence)
    }

    /// Whether the line is a part of an HTML comment.
    pub fn is_comment(&self, line: usize) -> bool {
        let next = self.comments.partition_point(|comment| comment.start <= line);
        next.checked_sub(1)
            .is_some_and(|index| self.comments[index].contains(&line))
    }
}

/// The back quotes that fence `content`: three, or more than it holds in a row.
pub(crate) fn fence_for(content: &str) -> String {
    let longest = content
        .split(|sign| sign != '`')
        .map(str::len)
        .max()
        .unwrap_or_default();
    "`".repeat(3.max(longest + 1))
}

/// The sign, its count and the info string, when the line opens a fence.
fn opens(content: &str) -> Option<(u8, usize, &str)> {
    let sign = *content.as_bytes().first()?;
    if sign != b'`' && sign != b'~' {
        return None;
    }
    let count = content.bytes().take_while(|byte| *byte == sign).count();
    let info = content[count..].trim();
    // `a` `b`: back quotes behind back quotes are code in a line of text.
    (count >= 3 && !(sign == b'`' && info.contains('`'))).then_some((sign, count, info))
}

fn closes(line: &str, sign: u8, count: usize) -> bool {
    let content = line.trim_start_matches(' ');
    let signs = content.bytes().take_while(|byte| *byte == sign).count();
    line.len() - content.len() <= 3 && signs >= count && content[signs..].trim().is_empty()
}

/// `@text:bold(`: the markup of another format.
fn is_at_markup(content: &str) -> bool {
    let word = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    content
        .strip_prefix('@')
        .and_then(|rest| rest.split_once(':'))
        .and_then(|(kind, rest)| rest.split_once('(').map(|(call, _)| word(kind) && word(call)))
        .unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headings(source: &str) -> Vec<String> {
        let text = Text::new(source);
        outline(&text, 0)
            .headings
            .into_iter()
            .map(|heading| format!("{} {}", heading.level, heading.title))
            .collect()
    }

    #[test]
    fn headings_inside_fences_and_comments_are_none() {
        let source = "## A ##\n```\n## B\n```\n````\n```\n## C\n```\n````\n~~~\n```\n## D\n~~~\n<!--\n## E\n-->\n    ## F\n# G\n";
        assert_eq!(headings(source), ["2 A", "1 G"]);
    }

    #[test]
    fn a_fence_is_closed_by_enough_of_the_same_sign_only() {
        let text = Text::new("````python {name=a}\n```\n~~~~\n```` x\n`````\n## A");
        let outline = outline(&text, 0);
        assert_eq!(outline.fences.len(), 1);
        assert_eq!(
            (
                outline.fences[0].open,
                outline.fences[0].close,
                outline.fences[0].closed
            ),
            (0, 4, true)
        );
        assert_eq!(outline.fences[0].info, "python {name=a}");
        assert_eq!(outline.headings.len(), 1);
    }

    #[test]
    fn a_fence_that_is_never_closed_reaches_to_the_end() {
        let text = Text::new("```\n## A\n");
        let outline = outline(&text, 0);
        assert!(!outline.fences[0].closed);
        assert!(outline.headings.is_empty());
    }

    #[test]
    fn markup_of_another_format_is_seen() {
        let text = Text::new("@text:bold(x)\n");
        assert_eq!(outline(&text, 0).at_markup, Some(0));
        assert!(!is_at_markup("@decorator"));
        assert!(!is_at_markup("mail@a:b(c)"));
    }
}
