//! Where things are: byte spans, lines and columns, and the lines of a document as the reader sees them.
//!
//! All spans refer to the bytes of the source as it was given, whatever was stripped (byte order mark, carriage returns,
//! the indentation of an indented document) before a part of it was looked at.

use std::ops::Range;

use serde::Serialize;

/// A range of bytes in the source, end exclusive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct Span {
    /// Offset of the first byte.
    pub start: usize,
    /// Offset behind the last byte.
    pub end: usize,
}

impl Span {
    /// A span from `start` to `end`; an end before the start gives the empty span at `start`.
    pub fn new(start: usize, end: usize) -> Self {
        Self {
            start,
            end: end.max(start),
        }
    }

    /// The bytes that the span covers in `source`; empty where the span does not fit it.
    pub fn slice(self, source: &str) -> &str {
        source.get(self.start..self.end).unwrap_or_default()
    }
}

/// A place as an editor shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters (Unicode scalar values), from 1.
    pub column: u32,
}

/// One line of the source.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Line {
    /// First byte of the line.
    pub begin: usize,
    /// First byte behind what is stripped from every line.
    pub start: usize,
    /// Behind the last byte, line end excluded.
    pub end: usize,
}

/// A source cut into lines.
#[derive(Debug)]
pub(crate) struct Text<'a> {
    pub source: &'a str,
    /// What an indented document is indented with; empty for any other.
    pub indent: &'a str,
    pub lines: Vec<Line>,
}

impl<'a> Text<'a> {
    /// Cuts `source` into lines. A byte order mark is passed over. When the first line with text on it is an indented `---`,
    /// the whole document is an indented one, and that indentation is taken off wherever a line has it.
    pub fn new(source: &'a str) -> Self {
        let mut lines = Vec::new();
        let mut begin = if source.starts_with('\u{feff}') {
            '\u{feff}'.len_utf8()
        } else {
            0
        };
        loop {
            let newline = source[begin..].find('\n').map(|at| begin + at);
            let end = newline.unwrap_or(source.len());
            let content = begin + source[begin..end].trim_end_matches('\r').len();
            if newline.is_some() || content > begin || lines.is_empty() {
                lines.push(Line {
                    begin,
                    start: begin,
                    end: content,
                });
            }
            match newline {
                Some(at) => begin = at + 1,
                None => break,
            }
        }
        let mut text = Self {
            source,
            indent: "",
            lines,
        };
        text.dedent();
        text
    }

    fn dedent(&mut self) {
        let Some(first) = self
            .lines
            .iter()
            .find(|line| !self.source[line.begin..line.end].trim().is_empty())
        else {
            return;
        };
        let line = &self.source[first.begin..first.end];
        let content = line.trim_start_matches([' ', '\t']);
        if content.len() == line.len() || content.trim_end() != "---" {
            return;
        }
        self.indent = &line[..line.len() - content.len()];
        let indent = self.indent.as_bytes();
        for line in &mut self.lines {
            let bytes = &self.source.as_bytes()[line.begin..line.end];
            line.start += bytes
                .iter()
                .zip(indent)
                .take_while(|(byte, wanted)| byte == wanted)
                .count();
        }
    }

    /// The text of line `index` without indentation of the document and line end.
    pub fn line(&self, index: usize) -> &'a str {
        let line = self.lines[index];
        &self.source[line.start..line.end]
    }

    /// The span of line `index` without surrounding white space.
    pub fn line_span(&self, index: usize) -> Span {
        let content = self.line(index);
        let start = self.lines[index].start + (content.len() - content.trim_start().len());
        Span::new(start, start + content.trim().len())
    }

    /// From the start of the first to the end of the last of these lines.
    pub fn lines_span(&self, range: Range<usize>) -> Span {
        match (
            self.lines.get(range.start),
            range.end.checked_sub(1).and_then(|last| self.lines.get(last)),
        ) {
            (Some(first), Some(last)) if range.start < range.end => Span::new(first.start, last.end),
            (Some(first), _) => Span::new(first.start, first.start),
            _ => Span::new(self.source.len(), self.source.len()),
        }
    }

    /// Line and column of a byte offset.
    pub fn place(&self, offset: usize) -> Place {
        let index = self
            .lines
            .partition_point(|line| line.begin <= offset)
            .saturating_sub(1);
        let line = self.lines[index];
        let offset = offset.clamp(line.begin, line.end);
        let column = self
            .source
            .get(line.begin..offset)
            .map_or(0, |before| before.chars().count());
        Place {
            line: number(index + 1),
            column: number(column + 1),
        }
    }
}

/// Lines taken out of a document, joined by single line feeds, that remember where they came from.
#[derive(Debug)]
pub(crate) struct Excerpt {
    pub text: String,
    /// For each line: its offset in `text`, its offset in the source.
    starts: Vec<(usize, usize)>,
    end: usize,
}

impl Excerpt {
    /// Takes `range` of the lines; up to `indent` leading blanks are stripped from each.
    pub fn new(text: &Text<'_>, range: Range<usize>, indent: usize) -> Self {
        let end = text.lines_span(range.clone()).end;
        let mut excerpt = Self {
            text: String::new(),
            starts: Vec::with_capacity(range.len()),
            end,
        };
        for index in range {
            let line = text.line(index);
            let stripped = line.bytes().take(indent).take_while(|byte| *byte == b' ').count();
            excerpt
                .starts
                .push((excerpt.text.len(), text.lines[index].start + stripped));
            excerpt.text.push_str(&line[stripped..]);
            excerpt.text.push('\n');
        }
        excerpt
    }

    /// The offset in the source of an offset in the excerpt.
    pub fn source_offset(&self, offset: usize) -> usize {
        let index = self.starts.partition_point(|(start, _)| *start <= offset);
        match index.checked_sub(1).and_then(|index| self.starts.get(index)) {
            Some((start, source)) => (source + (offset - start)).min(self.end),
            None => self.end,
        }
    }

    /// The span in the source of a range of the excerpt.
    pub fn source_span(&self, range: Range<usize>) -> Span {
        Span::new(self.source_offset(range.start), self.source_offset(range.end))
    }
}

/// A count as it is shown; documents are far below the limit.
pub(crate) fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_pass_over_a_byte_order_mark() {
        let text = Text::new("\u{feff}äb\r\nc");
        assert_eq!(text.lines.len(), 2);
        assert_eq!(text.place(3), Place { line: 1, column: 1 });
        assert_eq!(text.place(5), Place { line: 1, column: 2 });
        assert_eq!(text.line(0), "äb");
        assert_eq!(text.place(8), Place { line: 2, column: 1 });
    }

    #[test]
    fn an_excerpt_leads_back_to_the_source_of_an_indented_document() {
        let source = "    ---\r\n    id: a\r\n    ---\r\n";
        let text = Text::new(source);
        let excerpt = Excerpt::new(&text, 1..2, 0);
        assert_eq!(excerpt.text, "id: a\n");
        assert_eq!(excerpt.source_span(4..5).slice(source), "a");
    }

    #[test]
    fn an_empty_source_has_one_empty_line() {
        assert_eq!(Text::new("").place(0), Place { line: 1, column: 1 });
    }
}
