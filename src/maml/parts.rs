//! A document cut into its parts without losing a byte: what is joined again is the document.

use serde::Serialize;

use crate::diagnostic::Findings;
use crate::document::head;
use crate::outline::outline;
use crate::place::{Span, Text};

/// What a part of a document is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PartKind {
    /// The byte order mark.
    ByteOrderMark,
    /// The front matter with both of its delimiters, and blank lines before it.
    FrontMatter,
    /// The line of a heading, whatever its level.
    Heading,
    /// A fenced code block with its fences.
    Code,
    /// An HTML comment.
    Comment,
    /// Everything else.
    Text,
}

/// A part of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Part {
    /// What it is.
    pub kind: PartKind,
    /// Its bytes, line ends included.
    pub span: Span,
}

/// The parts of a document in order. Each begins where the one before it ends, the first at the first byte and the last one
/// ends behind the last; any text has parts, also one that is no document. Never panics; takes time linear in the length.
pub fn parts(source: &str) -> Vec<Part> {
    let text = Text::new(source);
    let kinds = kinds(&text);
    let mut parts: Vec<Part> = Vec::new();
    let mut add = |kind, begin: usize, end: usize, joins: bool| match parts.last_mut() {
        Some(last) if joins && last.kind == kind => last.span.end = end,
        _ if begin < end => parts.push(Part {
            kind,
            span: Span::new(begin, end),
        }),
        _ => {}
    };
    let first = text.lines.first().map_or(0, |line| line.begin);
    add(PartKind::ByteOrderMark, 0, first, false);
    for (index, (kind, starts)) in kinds.into_iter().enumerate() {
        let end = text.lines.get(index + 1).map_or(source.len(), |next| next.begin);
        add(kind, text.lines[index].begin, end, !starts);
    }
    parts
}

/// For each line what it belongs to, and whether a part starts with it in any case.
fn kinds(text: &Text<'_>) -> Vec<(PartKind, bool)> {
    let mut kinds = vec![(PartKind::Text, false); text.lines.len()];
    let Some(head) = head(text, &mut Findings::new(text)) else {
        return kinds;
    };
    if head.yaml.is_some() {
        kinds[..head.body].fill((PartKind::FrontMatter, false));
    }
    let outline = outline(text, head.body);
    for heading in &outline.headings {
        kinds[heading.line] = (PartKind::Heading, true);
    }
    let mut mark = |kind, first: usize, end: usize| {
        let end = end.min(text.lines.len());
        kinds[first..end].fill((kind, false));
        kinds[first].1 = true;
    };
    for fence in &outline.fences {
        mark(PartKind::Code, fence.open, fence.close + 1);
    }
    for comment in &outline.comments {
        mark(PartKind::Comment, comment.start, comment.end);
    }
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn joined(source: &str) -> String {
        let parts = parts(source);
        for pair in parts.windows(2) {
            assert_eq!(pair[0].span.end, pair[1].span.start);
        }
        parts.iter().map(|part| part.span.slice(source)).collect()
    }

    #[test]
    fn the_parts_of_a_document_are_told_apart() {
        let source = "\u{feff}\r\n---\r\nid: a\r\n---\r\n# T\r\n## A\r\ntext\r\n<!-- ## B -->\r\n```\r\n## C\r\n```\r\n~~~\r\n~~~";
        let found: Vec<(PartKind, &str)> = parts(source)
            .iter()
            .map(|part| (part.kind, part.span.slice(source)))
            .collect();
        assert_eq!(
            found,
            [
                (PartKind::ByteOrderMark, "\u{feff}"),
                (PartKind::FrontMatter, "\r\n---\r\nid: a\r\n---\r\n"),
                (PartKind::Heading, "# T\r\n"),
                (PartKind::Heading, "## A\r\n"),
                (PartKind::Text, "text\r\n"),
                (PartKind::Comment, "<!-- ## B -->\r\n"),
                (PartKind::Code, "```\r\n## C\r\n```\r\n"),
                (PartKind::Code, "~~~\r\n~~~"),
            ]
        );
    }

    proptest! {
        #[test]
        fn no_byte_of_any_text_is_lost(source in any::<String>()) {
            prop_assert_eq!(joined(&source), source);
        }

        #[test]
        fn no_byte_of_pieces_of_documents_is_lost(pieces in crate::pieces::pieces()) {
            let source = pieces.concat();
            prop_assert_eq!(joined(&source), source);
        }
    }
}
