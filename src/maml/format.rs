//! The canonical form of a document: the same document, written as everyone writes it.
//!
//! Code, the text of Context, data, YAML and comments stay as they are. What is made uniform is line ends, the indentation of a
//! whole document, blanks at the ends of lines, blank lines around headings, the spelling of known headings, and schemas.

use std::ops::Range;

use serde::de::IgnoredAny;

use crate::diagnostic::{Diagnostic, Findings, Severity};
use crate::document::{Head, head, read};
use crate::json_text::JsonText;
use crate::outline::{Outline, fence_for, outline};
use crate::place::{Excerpt, Text};
use crate::schema::MAX_SCHEMA_BYTES;
use crate::sections::{Section, SectionKind, numbering, sections};
use crate::yaml;

/// The canonical form of a document. Formatting twice changes nothing more, and the result reads as the source does.
///
/// A document that is not understood (no front matter, a fence that is never closed, another format) is refused with
/// everything there is to say about it; other faults do not stand in the way.
pub fn format(source: &str) -> Result<String, Vec<Diagnostic>> {
    let reading = read(source);
    let text = Text::new(source);
    let (Some(_), Some(head)) = (&reading.document, head(&text, &mut Findings::new(&text))) else {
        return Err(reading.diagnostics);
    };
    let outline = outline(&text, head.body);
    if outline.fences.iter().any(|fence| !fence.closed) {
        return Err(reading.diagnostics);
    }
    let (_, sections) = sections(&text, &outline);
    let page = Page {
        text: &text,
        outline: &outline,
    };
    let mut canonical = page.front_matter(&head);
    let first = sections
        .first()
        .map_or(text.lines.len(), |section| section.lines.0 - 1);
    append(&mut canonical, &page.prose(head.body..first));
    for section in &sections {
        append(&mut canonical, &[page.heading(section)]);
        append(&mut canonical, &page.section(section));
    }
    Ok(canonical)
}

/// Adds lines behind a blank one; no lines add nothing.
fn append(canonical: &mut String, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    canonical.push('\n');
    for line in lines {
        canonical.push_str(line);
        canonical.push('\n');
    }
}

struct Page<'t, 's> {
    text: &'t Text<'s>,
    outline: &'t Outline,
}

impl Page<'_, '_> {
    /// The front matter between its delimiters. Blanks at the ends of its lines stay where they mean something.
    fn front_matter(&self, head: &Head) -> String {
        let lines = head.yaml.clone().unwrap_or_default();
        let yaml = Excerpt::new(self.text, lines, 0).text;
        let trimmed: String = yaml.lines().flat_map(|line| [trim(line), "\n"]).collect();
        let kept = if means_the_same(&yaml, &trimmed) {
            &trimmed
        } else {
            &yaml
        };
        format!("---\n{kept}---\n")
    }

    fn heading(&self, section: &Section) -> String {
        match canonical_title(section) {
            Some(title) => format!("## {title}"),
            None => trim(self.text.line(section.lines.0 - 1)).to_owned(),
        }
    }

    fn section(&self, section: &Section) -> Vec<String> {
        let lines = self.within_blanks(section.lines.0..section.lines.1);
        match section.kind {
            SectionKind::Context | SectionKind::DataBlock | SectionKind::Signature => {
                lines.map(|line| self.text.line(line).to_owned()).collect()
            }
            SectionKind::InputSchema | SectionKind::OutputSchema => {
                self.schema(lines.clone()).unwrap_or_else(|| self.prose(lines))
            }
            _ => self.prose(lines),
        }
    }

    /// A bare schema, in a fence; nothing where there is anything else.
    fn schema(&self, lines: Range<usize>) -> Option<Vec<String>> {
        let bare = Excerpt::new(self.text, lines, 0).text;
        serde_json::from_str::<IgnoredAny>(&bare).ok()?;
        // What was small enough to be read stays so.
        let pretty = (bare.len() <= MAX_SCHEMA_BYTES)
            .then(|| JsonText::parse(&bare))?
            .map(|json| json.pretty())
            .filter(|pretty| pretty.len() < MAX_SCHEMA_BYTES);
        let json = pretty.as_deref().unwrap_or(bare.trim_end());
        let fence = fence_for(json);
        let mut fenced = vec![format!("{fence}json")];
        fenced.extend(json.lines().map(str::to_owned));
        fenced.push(fence);
        Some(fenced)
    }

    /// Text with fences and comments in it.
    fn prose(&self, lines: Range<usize>) -> Vec<String> {
        let lines = self.within_blanks(lines);
        let end = lines.end;
        lines
            .map(|index| {
                let line = self.text.line(index);
                let fence = self.outline.fence_at(index);
                if self.outline.is_comment(index)
                    || fence.is_some_and(|fence| index != fence.open && index != fence.close)
                {
                    return line.to_owned();
                }
                let trimmed = trim(line);
                // Two blanks break a line within a paragraph.
                let breaks = line.ends_with("  ")
                    && !trimmed.is_empty()
                    && fence.is_none()
                    && index + 1 < end
                    && !trim(self.text.line(index + 1)).is_empty();
                format!("{trimmed}{}", if breaks { "  " } else { "" })
            })
            .collect()
    }

    /// These lines without the blank ones at either end.
    fn within_blanks(&self, lines: Range<usize>) -> Range<usize> {
        let says = |index: &usize| !trim(self.text.line(*index)).is_empty();
        let Some(first) = lines.clone().find(says) else {
            return lines.start..lines.start;
        };
        let last = lines.clone().rfind(says).unwrap_or(first);
        first..last + 1
    }
}

/// A line without the blanks at its end. A carriage return among them would become a part of the line end.
fn trim(line: &str) -> &str {
    line.trim_end_matches([' ', '\t', '\r'])
}

fn means_the_same(left: &str, right: &str) -> bool {
    let value = |yaml: &str| {
        let text = Text::new(yaml);
        let excerpt = Excerpt::new(&text, 0..text.lines.len(), 0);
        let mut findings = Findings::new(&text);
        let node = yaml::load(&excerpt, &mut findings)?;
        let codes: Vec<_> = findings
            .finish()
            .into_iter()
            .map(|found| (found.code, found.severity == Severity::Error))
            .collect();
        Some((node.to_json(), codes))
    };
    left == right || value(left) == value(right)
}

/// The title with the section's name in its canonical spelling. Numbering, emoji and the like around it are kept; nothing is
/// given for a section that the format does not know, or whose words are not next to one another.
fn canonical_title(section: &Section) -> Option<String> {
    let name = section.kind.canonical()?;
    let (number, title) = section.title.split_at(numbering(&section.title));
    let first = title.find(char::is_alphanumeric)?;
    let last = title.rfind(char::is_alphanumeric)?;
    let behind = last + title[last..].chars().next().map_or(0, char::len_utf8);
    if !title[first..behind].is_ascii() {
        return None;
    }
    // Emphasis and colons are spelling; what is no ASCII was put there on purpose.
    let kept = |around: &str| {
        let sign = |sign: char| !sign.is_ascii() && !sign.is_whitespace();
        match (around.find(sign), around.rfind(sign)) {
            (Some(first), Some(last)) => {
                let end = last + around[last..].chars().next().map_or(0, char::len_utf8);
                around[first..end].to_owned()
            }
            _ => String::new(),
        }
    };
    let parts = [
        number.trim().to_owned(),
        kept(&title[..first]),
        name.to_owned(),
        kept(&title[behind..]),
    ];
    let title = parts
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    (SectionKind::of(&title) == section.kind).then_some(title)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Document;
    use crate::pieces::{HEAD, documents};
    use proptest::prelude::*;

    /// What a document says, without where it says it.
    fn meaning(source: &str) -> String {
        let Document {
            front_matter,
            title,
            sections,
            blocks,
            input_schema,
            output_schema,
            embedded_specs,
            history,
        } = read(source).document.unwrap();
        let kinds: Vec<&SectionKind> = sections.iter().map(|section| &section.kind).collect();
        let blocks: Vec<_> = blocks
            .iter()
            .map(|block| {
                (
                    &block.name,
                    &block.language,
                    &block.code,
                    &block.needs,
                    block.timeout_seconds,
                )
            })
            .collect();
        let specs: Vec<_> = embedded_specs
            .iter()
            .map(|spec| (&spec.name, &spec.code))
            .collect();
        let history: Vec<_> = history
            .iter()
            .map(|line| (&line.time, &line.op, &line.text))
            .collect();
        let context = sections
            .iter()
            .find(|section| section.kind == SectionKind::Context)
            .map(|section| {
                let text = Text::new(source);
                let lines: Vec<&str> = (section.lines.0..section.lines.1)
                    .map(|line| text.line(line))
                    .collect();
                lines.join("\n").trim_matches([' ', '\t', '\n']).to_owned()
            });
        let schemas = [input_schema, output_schema].map(|schema| schema.map(|schema| schema.value));
        let front = serde_json::to_string(&front_matter).unwrap();
        format!("{front} {title:?} {kinds:?} {blocks:?} {specs:?} {history:?} {context:?} {schemas:?}")
    }

    fn canonical(body: &str) -> String {
        let formatted = format(&format!("{HEAD}{body}")).unwrap();
        formatted.strip_prefix(HEAD).unwrap().to_owned()
    }

    #[test]
    fn each_thing_has_one_form() {
        for (body, expected) in [
            ("", ""),
            ("\n\n\n", ""),
            ("a\t\r\t\r\n", "\na\n"),
            ("# T  \r\n\r\n\r\nText\t\r\n", "\n# T\n\n\nText\n"),
            (
                "## Intent\na\n## Context\nb",
                "\n## Intent\n\na\n\n## Context\n\nb\n",
            ),
            (
                "## Code Blocks ##\n```python  \nx = 1  \n```  \n",
                "\n## Code_Blocks\n\n```python\nx = 1  \n```\n",
            ),
            ("## **Input Schema**:\n", "\n## Input_Schema\n"),
            (
                "## 3. intent 🐪\n## 🐪 HISTORY: 🐪\n",
                "\n## 3. Intent 🐪\n\n## 🐪 History 🐪\n",
            ),
            ("##  My Notes ##\n", "\n##  My Notes ##\n"),
            (
                "## Intent\nhard  \nbreak   \nend  \n\n",
                "\n## Intent\n\nhard  \nbreak  \nend\n",
            ),
            (
                "## Context\n\na  \n\n \n b\t\n\n",
                "\n## Context\n\na  \n\n \n b\t\n",
            ),
            (
                "## Intent\n<!-- a  \n b -->  \n",
                "\n## Intent\n\n<!-- a  \n b -->  \n",
            ),
            (
                "## Input_Schema\n{\"type\":\"object\",\n\"b\":1.50,\"a\":[]}\n## Intent",
                "\n## Input_Schema\n\n```json\n{\n  \"type\": \"object\",\n  \"b\": 1.50,\n  \"a\": []\n}\n```\n\n## Intent\n",
            ),
            (
                "## Input_Schema\n```\n{ }\n```",
                "\n## Input_Schema\n\n```\n{ }\n```\n",
            ),
            (
                "## Output_Schema\n{\"a\": \"````\"}",
                "\n## Output_Schema\n\n`````json\n{\n  \"a\": \"````\"\n}\n`````\n",
            ),
            (
                "## Output_Schema\nnot {JSON}  \n",
                "\n## Output_Schema\n\nnot {JSON}\n",
            ),
        ] {
            assert_eq!(canonical(body), expected, "{body:?}");
        }
    }

    #[test]
    fn front_matter_keeps_comments_order_and_quotes() {
        let source = "\u{feff}\n --- \n # why  \n type: 'workflow'  \n maml_version: 2.0\n id: a # b\n text: |\n   kept  \n ---\n ## Intent\n";
        assert_eq!(
            format(source).unwrap(),
            "---\n# why  \ntype: 'workflow'  \nmaml_version: 2.0\nid: a # b\ntext: |\n  kept  \n---\n\n## Intent\n"
        );
        let source = source.replace("kept  ", "kept");
        assert!(format(&source).unwrap().contains("# why\ntype: 'workflow'\n"));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for source in [
            "",
            "text",
            "---\nid: a\n",
            "---\nschema: maml_v1\n---\n",
            "---\nid: [\n---\n",
        ] {
            assert!(format(source).is_err(), "{source:?}");
        }
        assert!(format(&format!("{HEAD}## Intent\n```\n")).is_err());
    }

    proptest! {
        #[test]
        fn formatting_twice_changes_nothing_and_once_no_meaning(source in documents()) {
            if let Ok(once) = format(&source) {
                let twice = format(&once).unwrap_or_default();
                prop_assert_eq!(&twice, &once);
                prop_assert_eq!(meaning(&once), meaning(&source));
            }
        }
    }
}
