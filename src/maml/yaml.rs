//! YAML with places: the events of the parser under serde-saphyr, built into a tree whose every key and value knows where
//! it stands. Serde alone would report the first fault only, and without the place of a key.
//!
//! Bounded in depth, nodes and aliases, so that a small text cannot grow large in memory.

use std::collections::{HashMap, HashSet};

use granit_parser::{Event, Parser, ScalarStyle, Tag};
use serde_json::{Number, Value};

use crate::codes::Code;
use crate::diagnostic::Findings;
use crate::place::{Excerpt, Span};

/// Nested collections, the top map included.
const MAX_DEPTH: usize = 32;
/// Nodes after aliases were replaced by what they stand for.
const MAX_NODES: usize = 10_000;
/// Aliases in one front matter.
const MAX_ALIASES: usize = 64;

/// A value with its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub span: Span,
    pub data: Data,
    height: usize,
    size: usize,
}

#[derive(Clone, Debug)]
pub(crate) enum Data {
    Null,
    Bool(bool),
    /// A number and how it was written.
    Number(Number, String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key with its place.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub text: String,
    pub span: Span,
}

impl Node {
    /// The value as JSON. What has no place in JSON (`.nan`, `.inf`) was read as text.
    pub fn to_json(&self) -> Value {
        match &self.data {
            Data::Null => Value::Null,
            Data::Bool(value) => Value::Bool(*value),
            Data::Number(value, _) => Value::Number(value.clone()),
            Data::Text(value) => Value::String(value.clone()),
            Data::List(items) => Value::Array(items.iter().map(Self::to_json).collect()),
            Data::Map(entries) => Value::Object(
                entries
                    .iter()
                    .map(|(key, value)| (key.text.clone(), value.to_json()))
                    .collect(),
            ),
        }
    }

    /// A scalar as it was written; nothing for null, lists and maps.
    pub fn scalar(&self) -> Option<String> {
        match &self.data {
            Data::Bool(value) => Some(value.to_string()),
            Data::Number(_, written) => Some(written.clone()),
            Data::Text(value) => Some(value.clone()),
            Data::Null | Data::List(_) | Data::Map(_) => None,
        }
    }

    /// What kind of value this is, for messages.
    pub fn kind(&self) -> &'static str {
        match self.data {
            Data::Null => "nothing",
            Data::Bool(_) => "true or false",
            Data::Number(..) => "a number",
            Data::Text(_) => "text",
            Data::List(_) => "a list",
            Data::Map(_) => "a map",
        }
    }
}

/// Reads one YAML document. Every fault is reported; a syntax fault or an exceeded limit gives nothing.
pub(crate) fn load(excerpt: &Excerpt, findings: &mut Findings<'_>) -> Option<Node> {
    let options = granit_parser::options! {
        emit_comments: false,
        disallow_directives: true,
        emit_unresolved_aliases: true,
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    let mut builder = Builder {
        findings,
        stack: Vec::new(),
        anchors: HashMap::new(),
        aliases: 0,
        nodes: 0,
        root: None,
        documents: 0,
    };
    for event in Parser::new_from_str_with_options(&excerpt.text, options) {
        let (event, span) = match event {
            Ok(event) => event,
            Err(error) => {
                let at = excerpt.source_offset(error.marker().byte_offset().unwrap_or_default());
                let span = Span::new(at, at);
                builder.findings.error(
                    Code::YamlSyntax,
                    span,
                    format!("the front matter is not valid YAML: {}", error.info()),
                    "indent with spaces; quote values that start with * & @ % ` or that hold `: ` or ` #`",
                );
                return None;
            }
        };
        let span = excerpt.source_span(span.byte_range().unwrap_or_default());
        if builder.take(event, span).is_err() {
            return None;
        }
    }
    builder.root
}

/// A limit was exceeded; it has been reported.
struct Exceeded;

struct Builder<'f, 't> {
    findings: &'f mut Findings<'t>,
    stack: Vec<Frame>,
    anchors: HashMap<usize, Node>,
    aliases: usize,
    nodes: usize,
    root: Option<Node>,
    documents: usize,
}

struct Frame {
    span: Span,
    anchor: usize,
    height: usize,
    size: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map {
        entries: Vec<(Key, Node)>,
        seen: HashSet<String>,
        key: Option<(Key, bool)>,
    },
}

impl Builder<'_, '_> {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Exceeded> {
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents == 2 {
                    self.findings.error(
                        Code::YamlSyntax,
                        span,
                        "the front matter holds more than one YAML document",
                        "remove the line `...`",
                    );
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.count(1, span)?;
                let data = self.resolve(&text, style, tag.as_deref(), span);
                self.finish(
                    Node {
                        span,
                        data,
                        height: 0,
                        size: 1,
                    },
                    anchor,
                )?;
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.open(span, anchor, tag.as_deref(), Content::List(Vec::new()))?;
            }
            Event::MappingStart(_, anchor, tag) => {
                let content = Content::Map {
                    entries: Vec::new(),
                    seen: HashSet::new(),
                    key: None,
                };
                self.open(span, anchor, tag.as_deref(), content)?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(frame) = self.stack.pop() {
                    let data = match frame.content {
                        Content::List(items) => Data::List(items),
                        Content::Map { entries, .. } => Data::Map(entries),
                    };
                    let span = Span::new(frame.span.start, span.end);
                    let node = Node {
                        span,
                        data,
                        height: frame.height,
                        size: frame.size,
                    };
                    self.finish(node, frame.anchor)?;
                }
            }
            Event::Alias(id) => self.alias(id, span)?,
            Event::UnresolvedAlias(name) => {
                self.findings.error(
                    Code::YamlSyntax,
                    span,
                    format!("the YAML alias *{name} stands for nothing"),
                    format!("write it as text: \"*{name}\""),
                );
                self.finish(
                    Node {
                        span,
                        data: Data::Text(format!("*{name}")),
                        height: 0,
                        size: 1,
                    },
                    0,
                )?;
            }
            _ => {}
        }
        Ok(())
    }

    fn alias(&mut self, id: usize, span: Span) -> Result<(), Exceeded> {
        self.aliases += 1;
        if self.aliases > MAX_ALIASES {
            return Err(self.exceeded(span, &format!("more than {MAX_ALIASES} aliases")));
        }
        let Some(mut node) = self.anchors.get(&id).cloned() else {
            self.findings.error(
                Code::YamlSyntax,
                span,
                "this YAML alias stands for something that contains it",
                "write the value out",
            );
            return self.finish(
                Node {
                    span,
                    data: Data::Null,
                    height: 0,
                    size: 1,
                },
                0,
            );
        };
        self.count(node.size, span)?;
        node.span = span;
        self.finish(node, 0)
    }

    fn open(
        &mut self,
        span: Span,
        anchor: usize,
        tag: Option<&Tag>,
        content: Content,
    ) -> Result<(), Exceeded> {
        self.tag(tag, span);
        self.count(1, span)?;
        if self.stack.len() >= MAX_DEPTH {
            return Err(self.exceeded(span, &format!("nesting deeper than {MAX_DEPTH}")));
        }
        self.stack.push(Frame {
            span,
            anchor,
            height: 1,
            size: 1,
            content,
        });
        Ok(())
    }

    fn count(&mut self, nodes: usize, span: Span) -> Result<(), Exceeded> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            return Err(self.exceeded(span, &format!("more than {MAX_NODES} values")));
        }
        Ok(())
    }

    fn finish(&mut self, node: Node, anchor: usize) -> Result<(), Exceeded> {
        if self.stack.len() + node.height > MAX_DEPTH {
            return Err(self.exceeded(node.span, &format!("nesting deeper than {MAX_DEPTH}")));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(frame) = self.stack.last_mut() else {
            if self.root.is_none() {
                self.root = Some(node);
            }
            return Ok(());
        };
        frame.height = frame.height.max(node.height + 1);
        frame.size += node.size;
        match &mut frame.content {
            Content::List(items) => items.push(node),
            Content::Map { entries, seen, key } => match key.take() {
                None => {
                    let text = match &node.data {
                        Data::Null => "null".to_owned(),
                        _ => node.scalar().unwrap_or_default(),
                    };
                    let mut kept = true;
                    if matches!(node.data, Data::List(_) | Data::Map(_)) {
                        kept = false;
                        self.findings.error(
                            Code::KeyNotText,
                            node.span,
                            "a key must be text",
                            "quote the key",
                        );
                    } else if !seen.insert(text.clone()) {
                        kept = false;
                        self.findings.error(
                            Code::DuplicateKey,
                            node.span,
                            format!("the key `{text}` stands twice in this map"),
                            "remove one of them, or join their values",
                        );
                    }
                    *key = Some((
                        Key {
                            text,
                            span: node.span,
                        },
                        kept,
                    ));
                }
                Some((key, kept)) => {
                    if kept {
                        entries.push((key, node));
                    }
                }
            },
        }
        Ok(())
    }

    fn resolve(&mut self, text: &str, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> Data {
        if tag.and_then(Tag::core_suffix) == Some("str") {
            return Data::Text(text.to_owned());
        }
        self.tag(tag, span);
        if style == ScalarStyle::Plain {
            plain(text)
        } else {
            Data::Text(text.to_owned())
        }
    }

    fn tag(&mut self, tag: Option<&Tag>, span: Span) {
        if let Some(tag) = tag
            && tag.core_suffix().is_none()
        {
            let message = format!("the YAML tag {} has no effect", tag.original());
            self.findings
                .warn(Code::TagIgnored, span, message, "remove the tag");
        }
    }

    fn exceeded(&mut self, span: Span, what: &str) -> Exceeded {
        self.findings.error(
            Code::YamlLimit,
            span,
            format!("the front matter has {what}"),
            "make it simpler",
        );
        Exceeded
    }
}

/// A plain scalar by the core schema of YAML 1.2.
fn plain(text: &str) -> Data {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Data::Null,
        "true" | "True" | "TRUE" => return Data::Bool(true),
        "false" | "False" | "FALSE" => return Data::Bool(false),
        _ => {}
    }
    match parse_number(text) {
        Some(number) => Data::Number(number, text.to_owned()),
        None => Data::Text(text.to_owned()),
    }
}

fn parse_number(text: &str) -> Option<Number> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !unsigned.starts_with(|first: char| first.is_ascii_digit() || first == '.') {
        return None;
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).ok().map(Number::from);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return u64::from_str_radix(digits, 8).ok().map(Number::from);
    }
    if unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        let digits = text.strip_prefix('+').unwrap_or(text);
        if let Ok(number) = digits.parse::<i64>() {
            return Some(number.into());
        }
        if let Ok(number) = digits.parse::<u64>() {
            return Some(number.into());
        }
    }
    if !unsigned
        .bytes()
        .all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'e' | b'E' | b'+' | b'-'))
    {
        return None;
    }
    text.parse::<f64>().ok().and_then(Number::from_f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::Text;
    use serde_json::json;

    fn parse(source: &str) -> (Option<Value>, Vec<String>) {
        let text = Text::new(source);
        let excerpt = Excerpt::new(&text, 0..text.lines.len(), 0);
        let mut findings = Findings::new(&text);
        let node = load(&excerpt, &mut findings);
        (
            node.map(|node| node.to_json()),
            findings.finish().iter().map(ToString::to_string).collect(),
        )
    }

    #[test]
    fn plain_scalars_follow_the_core_schema() {
        let (value, findings) = parse(
            "a: 1\nb: 1.5\nc: yes\nd: 0x1f\ne:\nf: 'true'\ng: True\nh: 1.2.3\ni: -7\nj: .nan\nk: 2026-05-04\n",
        );
        assert!(findings.is_empty(), "{findings:?}");
        assert_eq!(
            value.unwrap(),
            json!({"a": 1, "b": 1.5, "c": "yes", "d": 31, "e": null, "f": "true", "g": true, "h": "1.2.3", "i": -7,
                "j": ".nan", "k": "2026-05-04"})
        );
    }

    #[test]
    fn aliases_are_replaced_and_bounded() {
        let (value, _) = parse("a: &x [1, 2]\nb: *x\n");
        assert_eq!(value.unwrap(), json!({"a": [1, 2], "b": [1, 2]}));
        let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
        for step in 1..9 {
            use std::fmt::Write as _;
            let item = format!("*a{}", step - 1);
            writeln!(bomb, "a{step}: &a{step} [{}]", vec![item; 7].join(",")).unwrap();
        }
        let (value, findings) = parse(&bomb);
        assert_eq!(value, None);
        assert!(
            findings.iter().any(|line| line.contains("MAML007")),
            "{findings:?}"
        );
    }

    #[test]
    fn an_alias_inside_its_own_anchor_is_reported() {
        let (_, findings) = parse("a: &x [*x]\n");
        assert!(findings[0].contains("contains it"), "{findings:?}");
    }

    #[test]
    fn depth_is_bounded() {
        let (value, findings) = parse(&format!("a: {}{}", "[".repeat(500), "]".repeat(500)));
        assert_eq!(value, None);
        assert_eq!(findings.len(), 1);
    }

    #[test]
    fn aliases_and_values_are_bounded_in_number() {
        let aliases = |count: usize| format!("a: &x 1\nb: [{}]\n", vec!["*x"; count].join(", "));
        assert!(parse(&aliases(MAX_ALIASES)).1.is_empty());
        let (value, findings) = parse(&aliases(MAX_ALIASES + 1));
        assert!(value.is_none() && findings[0].contains("MAML007"), "{findings:?}");
        let many = format!("a: [{}]", vec!["1"; MAX_NODES].join(","));
        assert!(parse(&many).1[0].contains("MAML007"));
        let deep = |depth: usize| format!("a: {}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(&deep(MAX_DEPTH - 1)).1.is_empty());
        assert_eq!(parse(&deep(MAX_DEPTH)).0, None);
    }

    #[test]
    fn an_unquoted_star_is_read_as_text_and_reported() {
        let (value, findings) = parse("execute: [*]\n");
        assert!(
            findings.iter().any(|line| line.contains("MAML004")),
            "{value:?} {findings:?}"
        );
    }
}
