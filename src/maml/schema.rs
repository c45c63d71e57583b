//! JSON Schemas of inputs and outputs: read from their sections, compiled once, never looked up anywhere else.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use jsonschema::{Draft, PatternOptions, Validator};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::blocks::fences;
use crate::codes::Code;
use crate::diagnostic::Findings;
use crate::json_text::JsonText;
use crate::outline::Outline;
use crate::place::{Excerpt, Place, Span, Text, number};
use crate::sections::{Section, SectionKind};

/// A larger schema is refused.
pub(crate) const MAX_SCHEMA_BYTES: usize = 64 * 1024;
/// Steps that a regular expression with look-around may go back; others take linear time.
const MAX_BACKTRACKING: usize = 100_000;
/// Compiled size of one regular expression in bytes.
const MAX_PATTERN_BYTES: usize = 256 * 1024;
/// At most so many violations are listed.
const MAX_VIOLATIONS: usize = 50;
/// Steps of checking one value; a large output with one rule for each of its numbers stays far below.
const MAX_EFFORT: usize = 4_000_000;
/// Steps that a schema may ask for before it looks inside the value.
const MAX_EFFORT_IN_PLACE: usize = 10_000;
/// Keywords whose values are data, not schemas.
const DATA_KEYWORDS: [&str; 4] = ["const", "enum", "default", "examples"];
/// Nested objects that get defaults.
const MAX_DEFAULT_DEPTH: usize = 16;
/// Objects looked at and defaults put in, of one value. A large default counts as several.
const MAX_DEFAULTS: usize = 10_000;
/// So many bytes of a default count as one more.
const BYTES_A_STEP: usize = 64;

/// A JSON Schema of a document: 2020-12, or the draft that it declares.
#[derive(Clone)]
pub struct Schema {
    /// The schema.
    pub value: Value,
    /// Its bytes in the document.
    pub span: Span,
    /// Its first line, from 1.
    pub line: u32,
    validator: Arc<Validator>,
    written: Arc<Written>,
}

/// A schema as it stands in the document, to lead from its keywords to their places.
struct Written {
    text: String,
    /// The line of the document in which the text starts, from 1.
    line: u32,
    /// For each line of an indented document what was stripped from it, in characters; empty for any other document.
    margins: Vec<u32>,
}

impl Written {
    /// Where the keyword that a JSON Pointer names stands in the document, or else the nearest part that holds it.
    fn place(&self, pointer: &str) -> Option<Place> {
        let at = JsonText::parse(&self.text)?.locate(pointer).start;
        let before = &self.text[..at];
        let index = before.matches('\n').count();
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count();
        Some(Place {
            line: self.line + number(index),
            column: number(column + 1) + self.margins.get(index).copied().unwrap_or_default(),
        })
    }
}

/// One way in which a value breaks a schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// JSON Pointer (RFC 6901) to the value that is wrong; empty for the whole.
    pub pointer: String,
    /// JSON Pointer to the keyword of the schema that it breaks.
    pub schema_path: String,
    /// What is wrong.
    pub message: String,
    /// The line of the document in which that keyword stands, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Its column in characters, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pointer = if self.pointer.is_empty() {
            "/"
        } else {
            &self.pointer
        };
        write!(out, "{pointer}: {} (", self.message)?;
        if let Some(line) = self.line {
            write!(out, "line {line}, ")?;
        }
        write!(out, "schema {})", self.schema_path)
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Schema")
            .field("value", &self.value)
            .field("line", &self.line)
            .finish_non_exhaustive()
    }
}

impl Serialize for Schema {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

impl Schema {
    /// How `instance` breaks the schema; empty when it does not.
    pub fn check(&self, instance: &Value) -> Vec<Violation> {
        if exceeds_effort(&self.value, instance, MAX_EFFORT) {
            let message = "checking this value takes too many steps".to_owned();
            return vec![Violation {
                pointer: String::new(),
                schema_path: String::new(),
                message,
                line: Some(self.line),
                column: None,
            }];
        }
        self.validator
            .iter_errors(instance)
            .take(MAX_VIOLATIONS)
            .map(|error| {
                let schema_path = error.schema_path().as_str().to_owned();
                let place = self.written.place(&schema_path);
                Violation {
                    pointer: error.instance_path().as_str().to_owned(),
                    message: shorten(&error.to_string()),
                    line: place.map(|place| place.line),
                    column: place.map(|place| place.column),
                    schema_path,
                }
            })
            .collect()
    }

    /// `inputs` with the defaults that the schema gives for what is absent. Nothing that is there is changed; no inputs at
    /// all are an empty object when the schema describes an object.
    pub fn with_defaults(&self, inputs: Value) -> Value {
        let describes_object = self.value.get("properties").is_some()
            || self.value.get("type").and_then(Value::as_str) == Some("object");
        let mut inputs = if inputs.is_null() && describes_object {
            Value::Object(Map::new())
        } else {
            inputs
        };
        Defaults::of(&self.value, false).fill(&self.value, "", &mut inputs, "", 0);
        inputs
    }

    /// Defaults that break the schema themselves: the pointer to the default in the schema, and how it does.
    fn wrong_defaults(&self) -> Vec<(String, Violation)> {
        let mut defaults = Defaults::of(&self.value, true);
        let mut instance = Value::Object(Map::new());
        defaults.fill(&self.value, "", &mut instance, "", 0);
        let violations = self.check(&instance);
        let holds = |default: &str, pointer: &str| {
            pointer
                .strip_prefix(default)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        violations
            .into_iter()
            .filter_map(|violation| {
                let mut filled = defaults.filled.iter();
                let (_, place) = filled.rfind(|(default, _)| holds(default, &violation.pointer))?;
                Some((place.clone(), violation))
            })
            .collect()
    }

    /// The names under `properties`, in the order of the JSON text as far as it is kept.
    pub fn property_names(&self) -> Vec<String> {
        let properties = self.value.get("properties").and_then(Value::as_object);
        properties
            .map(|map| map.keys().cloned().collect())
            .unwrap_or_default()
    }
}

/// Puts the defaults of a schema where an instance has nothing.
struct Defaults<'s> {
    root: &'s Value,
    /// Whether objects that are absent are made, so that every default finds its place.
    makes_objects: bool,
    /// How many values may still be put in: schemas that refer to themselves ask for any number.
    left: usize,
    /// The pointer to each default in the instance, and in the schema; collected when objects are made.
    filled: Vec<(String, String)>,
}

impl<'s> Defaults<'s> {
    fn of(root: &'s Value, makes_objects: bool) -> Self {
        Self {
            root,
            makes_objects,
            left: MAX_DEFAULTS,
            filled: Vec::new(),
        }
    }

    /// Fills `instance`, at the pointer `at`, by `schema`, at the pointer `place`.
    fn fill(&mut self, schema: &Value, place: &str, instance: &mut Value, at: &str, depth: usize) {
        if depth >= MAX_DEFAULT_DEPTH || self.left == 0 {
            return;
        }
        self.left -= 1;
        if let Some(pointer) = schema
            .get("$ref")
            .and_then(Value::as_str)
            .and_then(|reference| reference.strip_prefix('#'))
            && let Some(target) = self.root.pointer(pointer)
        {
            self.fill(target, pointer, instance, at, depth + 1);
        }
        let (Some(properties), Some(object)) = (
            schema.get("properties").and_then(Value::as_object),
            instance.as_object_mut(),
        ) else {
            return;
        };
        // All of one level before any of the next, so that a schema that refers to itself loses deep ones only.
        for (name, property) in properties {
            if object.contains_key(name) || self.left == 0 {
                continue;
            }
            if let Some(default) = property.get("default") {
                let size = default.to_string().len() / BYTES_A_STEP;
                self.left = self.left.saturating_sub(1 + size);
                object.insert(name.clone(), default.clone());
                if self.makes_objects {
                    let segment = segment(name);
                    let places = (
                        format!("{at}/{segment}"),
                        format!("{place}/properties/{segment}/default"),
                    );
                    self.filled.push(places);
                }
            } else if self.makes_objects && property.get("properties").is_some() {
                object.insert(name.clone(), Value::Object(Map::new()));
            }
        }
        for (name, property) in properties {
            if let Some(value) = object.get_mut(name) {
                let segment = segment(name);
                let place = format!("{place}/properties/{segment}");
                self.fill(property, &place, value, &format!("{at}/{segment}"), depth + 1);
            }
        }
    }
}

/// A name as a segment of a JSON Pointer.
fn segment(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

fn shorten(message: &str) -> String {
    const MOST: usize = 300;
    if message.chars().count() <= MOST {
        return message.to_owned();
    }
    let mut short: String = message.chars().take(MOST).collect();
    short.push('…');
    short
}

/// Reads the schema of the first section of this kind.
pub(crate) fn schema(
    text: &Text<'_>,
    outline: &Outline,
    sections: &[Section],
    kind: &SectionKind,
    findings: &mut Findings<'_>,
) -> Option<Schema> {
    let section = sections.iter().find(|section| section.kind == *kind)?;
    let Some(lines) = body(text, outline, section) else {
        let message = format!(
            "the section {} holds no schema, so nothing is checked",
            section.title
        );
        findings.warn(
            Code::SchemaMissing,
            section.heading,
            message,
            "{\"type\": \"object\", \"properties\": {}}",
        );
        return None;
    };
    let excerpt = Excerpt::new(text, lines.clone(), 0);
    let indent = excerpt.text.len() - excerpt.text.trim_start().len();
    let span = excerpt.source_span(indent..excerpt.text.trim_end().len());
    let line = number(lines.start + 1 + excerpt.text[..indent].matches('\n').count());
    if excerpt.text.len() > MAX_SCHEMA_BYTES {
        let message = format!("the schema is larger than {MAX_SCHEMA_BYTES} bytes");
        findings.error(Code::SchemaInvalid, section.heading, message, "make it simpler");
        return None;
    }
    let value: Value = match serde_json::from_str(&excerpt.text) {
        Ok(value) => value,
        Err(error) => {
            let at = excerpt.source_offset(offset(&excerpt.text, error.line(), error.column()));
            let reason = error.to_string();
            let reason = reason.split(" at line ").next().unwrap_or_default();
            findings.error(
                Code::SchemaSyntax,
                Span::new(at, at),
                format!("the section {} is not JSON: {reason}", section.title),
                "a JSON Schema, bare or in one code fence, and nothing else",
            );
            return None;
        }
    };
    let indented = !text.indent.is_empty();
    let margin = |index: usize| number(text.lines[index].start - text.lines[index].begin);
    let written = Written {
        line: number(lines.start + 1),
        margins: if indented {
            lines.map(margin).collect()
        } else {
            Vec::new()
        },
        text: excerpt.text.clone(),
    };
    let schema = compile(value, (span, line), section, &excerpt, written, findings)?;
    if section.kind == SectionKind::InputSchema {
        let mut defaults = Defaults::of(&schema.value, false);
        defaults.fill(&schema.value, "", &mut Value::Object(Map::new()), "", 0);
        if defaults.left == 0 {
            let message = format!("the defaults in the schema of {} multiply", section.title);
            let hint = "let no default hold what refers to it";
            findings.error(Code::SchemaInvalid, span, message, hint);
            return None;
        }
        report_defaults(&schema, &excerpt, findings);
    }
    Some(schema)
}

/// Reports the defaults that a run could not be started with.
fn report_defaults(schema: &Schema, excerpt: &Excerpt, findings: &mut Findings<'_>) {
    for (place, violation) in schema.wrong_defaults() {
        let pointer = &violation.pointer;
        let message = format!(
            "the default of {pointer} breaks its own schema: {}",
            violation.message
        );
        let hint = "a run that does not give this input would be refused";
        findings.warn(Code::DefaultInvalid, span_of(excerpt, &place), message, hint);
    }
}

/// The first line of what a JSON Pointer names in the schema.
fn span_of(excerpt: &Excerpt, pointer: &str) -> Span {
    let text = excerpt.text.trim_end();
    let found = JsonText::parse(text).map_or(0..text.len(), |json| json.locate(pointer));
    let line = text[found.clone()].lines().next().map_or(0, str::len);
    excerpt.source_span(found.start..found.start + line)
}

/// The lines that hold the JSON: of the first fence, or else the whole body.
fn body(text: &Text<'_>, outline: &Outline, section: &Section) -> Option<Range<usize>> {
    let lines = match fences(outline, section).next() {
        Some(fence) => fence.open + 1..fence.close,
        None => section.lines.0..section.lines.1,
    };
    lines
        .clone()
        .any(|index| !text.line(index).trim().is_empty())
        .then_some(lines)
}

/// The byte offset of serde_json's line and column, both from 1 (0 for the end of an empty line).
fn offset(text: &str, line: usize, column: usize) -> usize {
    let start: usize = text
        .split_inclusive('\n')
        .take(line.saturating_sub(1))
        .map(str::len)
        .sum();
    let mut at = (start + column.saturating_sub(1)).min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

fn compile(
    value: Value,
    (span, line): (Span, u32),
    section: &Section,
    excerpt: &Excerpt,
    written: Written,
    findings: &mut Findings<'_>,
) -> Option<Schema> {
    let name = &section.title;
    if !value.is_object() && !value.is_boolean() {
        let message = format!("the schema of {name} must be a JSON object");
        findings.error(
            Code::SchemaInvalid,
            span,
            message,
            "{\"type\": \"object\", \"properties\": {}}",
        );
        return None;
    }
    let declared = Draft::default().detect(&value);
    let known = matches!(
        declared,
        Draft::Draft4 | Draft::Draft6 | Draft::Draft7 | Draft::Draft201909 | Draft::Draft202012
    );
    if !known {
        let draft = value.get("$schema").and_then(Value::as_str).unwrap_or_default();
        let message = format!("the schema of {name} declares the unknown draft `{draft}`");
        findings.error(
            Code::SchemaDraft,
            span,
            message,
            "https://json-schema.org/draft/2020-12/schema",
        );
        return None;
    }
    let mut remote = Vec::new();
    remote_references(&value, "", &mut remote);
    for (reference, pointer) in remote.iter().take(MAX_VIOLATIONS) {
        let message = format!("the schema of {name} refers to `{reference}` outside the document");
        findings.error(
            Code::SchemaRemote,
            span_of(excerpt, pointer),
            message,
            "copy it under `$defs` and refer to `#/$defs/…`",
        );
    }
    if !remote.is_empty() {
        return None;
    }
    if let Some(id) = embedded_resource(&value) {
        let message = format!("the schema of {name} embeds the resource `{id}`");
        findings.error(
            Code::SchemaInvalid,
            span,
            message,
            "remove `$id` below the root and refer to `#/$defs/…`",
        );
        return None;
    }
    if exceeds_effort(&value, &Value::Null, MAX_EFFORT_IN_PLACE) {
        let message = format!("the references in the schema of {name} lead in circles or multiply");
        findings.error(
            Code::SchemaInvalid,
            span,
            message,
            "let references pass through properties or items",
        );
        return None;
    }
    let patterns = PatternOptions::fancy_regex()
        .backtrack_limit(MAX_BACKTRACKING)
        .size_limit(MAX_PATTERN_BYTES);
    let built = jsonschema::options()
        .with_draft(declared)
        .offline()
        .should_validate_formats(true)
        .should_ignore_unknown_formats(true)
        .with_pattern_options(patterns)
        .build(&value);
    match built {
        Ok(validator) => Some(Schema {
            value,
            span,
            line,
            validator: Arc::new(validator),
            written: Arc::new(written),
        }),
        Err(error) => {
            let at = error.instance_path().as_str();
            let at = if at.is_empty() { "/" } else { at };
            let message = format!(
                "the schema of {name} is not valid at {at}: {}",
                shorten(&error.to_string())
            );
            findings.error(Code::SchemaInvalid, span_of(excerpt, at), message, "");
            None
        }
    }
}

/// References that do not start with `#`, and the pointers to them. What stands under `const`, `enum`, `default` and
/// `examples` is data.
fn remote_references(value: &Value, at: &str, found: &mut Vec<(String, String)>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let at = format!("{at}/{}", segment(key));
                match (key.as_str(), value) {
                    ("$ref" | "$dynamicRef" | "$recursiveRef", Value::String(reference)) => {
                        if !reference.starts_with('#') {
                            found.push((reference.clone(), at));
                        }
                    }
                    (keyword, _) if DATA_KEYWORDS.contains(&keyword) => {}
                    _ => remote_references(value, &at, found),
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                remote_references(item, &format!("{at}/{index}"), found);
            }
        }
        _ => {}
    }
}

/// Resources with an own base would change what `#` means.
fn embedded_resource(root: &Value) -> Option<&str> {
    let mut open: Vec<&Value> = match root {
        Value::Object(map) => map.values().collect(),
        _ => Vec::new(),
    };
    while let Some(value) = open.pop() {
        match value {
            Value::Object(map) => {
                if let Some(id) = map
                    .get("$id")
                    .and_then(Value::as_str)
                    .filter(|id| !id.starts_with('#'))
                {
                    return Some(id);
                }
                open.extend(
                    map.iter()
                        .filter(|(key, _)| !DATA_KEYWORDS.contains(&key.as_str()))
                        .map(|(_, value)| value),
                );
            }
            Value::Array(items) => open.extend(items),
            _ => {}
        }
    }
    None
}

/// Schemas by the names that `#name` may use.
fn anchors(root: &Value) -> HashMap<&str, &Value> {
    let mut found = HashMap::new();
    let mut open = vec![root];
    while let Some(value) = open.pop() {
        match value {
            Value::Object(map) => {
                let names = ["$anchor", "$dynamicAnchor", "$id"]
                    .into_iter()
                    .filter_map(|key| map.get(key)?.as_str());
                found.extend(names.map(|name| (name.trim_start_matches('#'), value)));
                open.extend(map.values());
            }
            Value::Array(items) => open.extend(items),
            _ => {}
        }
    }
    found
}

/// Whether checking `instance` against `root` takes more than `budget` steps.
///
/// References let a small schema ask for endless or exponential work (a schema that applies another one twice, which applies
/// a third one twice …), and validators do what they are asked. This walks along as a validator does, an upper bound of its
/// steps, and stops at the budget.
fn exceeds_effort(root: &Value, instance: &Value, budget: usize) -> bool {
    let anchors = anchors(root);
    let target = |reference: &str| -> Option<&Value> {
        let fragment = reference.strip_prefix('#')?;
        let fragment = fragment.replace("%24", "$").replace("%25", "%");
        if fragment.is_empty() || fragment.starts_with('/') {
            root.pointer(&fragment)
        } else {
            anchors.get(&*fragment).copied()
        }
    };
    let mut steps = 0;
    let mut open = vec![(root, instance)];
    while let Some((schema, instance)) = open.pop() {
        steps += 1;
        if steps + open.len() > budget {
            return true;
        }
        let Some(keywords) = schema.as_object() else {
            continue;
        };
        for (keyword, value) in keywords {
            match (keyword.as_str(), value) {
                ("$ref" | "$dynamicRef" | "$recursiveRef", Value::String(reference)) => {
                    open.extend(target(reference).map(|schema| (schema, instance)));
                }
                ("allOf" | "anyOf" | "oneOf", Value::Array(schemas)) => {
                    open.extend(schemas.iter().map(|schema| (schema, instance)));
                }
                ("not" | "if" | "then" | "else", schema) => open.push((schema, instance)),
                ("dependentSchemas" | "dependencies", Value::Object(schemas)) => {
                    open.extend(schemas.values().map(|schema| (schema, instance)));
                }
                ("properties", Value::Object(schemas)) => {
                    if let Some(object) = instance.as_object() {
                        open.extend(
                            schemas
                                .iter()
                                .filter_map(|(name, schema)| Some((schema, object.get(name)?))),
                        );
                    }
                }
                ("patternProperties", Value::Object(schemas)) => {
                    for schema in schemas.values() {
                        open.extend(members(instance).map(|member| (schema, member)));
                    }
                }
                ("propertyNames" | "additionalProperties" | "unevaluatedProperties", schema) => {
                    open.extend(members(instance).map(|member| (schema, member)));
                }
                ("prefixItems" | "items", Value::Array(schemas)) => {
                    open.extend(schemas.iter().zip(elements(instance)));
                }
                ("items" | "contains" | "additionalItems" | "unevaluatedItems", schema) => {
                    // The common case of many plain values is counted without walking.
                    if schema
                        .as_object()
                        .is_some_and(|map| map.values().all(|value| !value.is_object() && !value.is_array()))
                    {
                        steps += elements(instance).count();
                    } else {
                        open.extend(elements(instance).map(|element| (schema, element)));
                    }
                }
                _ => {}
            }
        }
    }
    steps > budget
}

fn members(instance: &Value) -> impl Iterator<Item = &Value> {
    instance.as_object().into_iter().flat_map(Map::values)
}

fn elements(instance: &Value) -> impl Iterator<Item = &Value> {
    instance.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(body: &str) -> (Option<Schema>, Vec<String>) {
        let source = format!("## Input_Schema\n{body}\n");
        let text = Text::new(&source);
        let outline = crate::outline::outline(&text, 0);
        let (_, sections) = crate::sections::sections(&text, &outline);
        let mut findings = Findings::new(&text);
        let schema = schema(
            &text,
            &outline,
            &sections,
            &SectionKind::InputSchema,
            &mut findings,
        );
        (
            schema,
            findings.finish().iter().map(ToString::to_string).collect(),
        )
    }

    #[test]
    fn bare_and_fenced_schemas_are_read() {
        let bare = read("{\"type\": \"object\"}").0.unwrap();
        let fenced = read("```json\n{\"type\": \"object\"}\n```").0.unwrap();
        assert_eq!(bare.value, fenced.value);
        assert_eq!((bare.line, fenced.line), (2, 3));
        assert_eq!(read("prose\n\n```\n{}\n```\nmore prose").0.unwrap().line, 5);
    }

    #[test]
    fn faults_of_json_have_their_place() {
        let (schema, findings) = read("{\n  \"type\": \"object\",\n  \"properties\" {}\n}");
        assert!(schema.is_none());
        assert!(findings[0].starts_with("4:16: error[MAML060]"), "{findings:?}");
    }

    #[test]
    fn references_never_leave_the_document() {
        for body in [
            "{\"$ref\": \"https://example.com/x.json\"}",
            "{\"properties\": {\"a\": {\"$ref\": \"other.json#/a\"}}}",
            "{\"$ref\": \"file:///etc/passwd\"}",
        ] {
            let (schema, findings) = read(body);
            assert!(
                schema.is_none() && findings[0].contains("MAML062"),
                "{findings:?}"
            );
        }
        let local = read(
            "{\"$defs\": {\"n\": {\"type\": \"integer\"}}, \"properties\": {\"a\": {\"$ref\": \"#/$defs/n\"}}}",
        );
        assert_eq!(local.0.unwrap().check(&json!({"a": "x"}))[0].pointer, "/a");
    }

    #[test]
    fn references_that_never_end_are_refused_and_those_through_the_instance_are_not() {
        for body in [
            "{\"$ref\": \"#\"}",
            "{\"allOf\": [{\"$ref\": \"#\"}]}",
            "{\"$defs\": {\"a\": {\"$ref\": \"#/$defs/b\"}, \"b\": {\"anyOf\": [{\"$ref\": \"#/$defs/a\"}]}}, \"$ref\": \"#/$defs/a\"}",
            "{\"not\": {\"$ref\": \"#\"}}",
        ] {
            let (schema, findings) = read(body);
            assert!(schema.is_none(), "{body}");
            assert!(findings[0].contains("MAML061"), "{findings:?}");
        }
        let doubled: Vec<String> = (0..40)
            .map(|step| {
                let reference = format!("{{\"$ref\": \"#/$defs/a{}\"}}", step + 1);
                format!("\"a{step}\": {{\"allOf\": [{reference}, {reference}]}},")
            })
            .collect();
        let doubled = doubled.concat();
        let (schema, findings) = read(&format!(
            "{{\"$defs\": {{{doubled} \"a40\": {{}}}}, \"$ref\": \"#/$defs/a0\"}}"
        ));
        assert!(
            schema.is_none() && findings[0].contains("MAML061"),
            "{findings:?}"
        );
        let tree = read("{\"properties\": {\"next\": {\"$ref\": \"#\"}, \"n\": {\"type\": \"integer\"}}}")
            .0
            .unwrap();
        assert_eq!(
            tree.check(&json!({"next": {"next": {"n": "x"}}}))[0].pointer,
            "/next/next/n"
        );
    }

    #[test]
    fn a_schema_that_multiplies_with_the_depth_of_the_value_is_stopped() {
        let schema = read("{\"properties\": {\"a\": {\"allOf\": [{\"$ref\": \"#\"}, {\"$ref\": \"#\"}]}}}")
            .0
            .unwrap();
        let deep = (0..100).fold(json!({}), |inner, _| json!({"a": inner}));
        assert!(schema.check(&deep)[0].message.contains("too many steps"));
        let many = read("{\"type\": \"array\", \"items\": {\"type\": \"number\"}}")
            .0
            .unwrap();
        assert!(many.check(&Value::from(vec![1.5; 1_000_000])).is_empty());
    }

    #[test]
    fn drafts_are_followed_where_declared() {
        let seven = "{\"$schema\": \"http://json-schema.org/draft-07/schema#\", \"items\": [{\"type\": \"integer\"}]}";
        assert_eq!(read(seven).0.unwrap().check(&json!(["x"])).len(), 1);
        assert!(read("{\"$schema\": \"https://example.com/mine\"}").1[0].contains("MAML063"));
    }

    #[test]
    fn defaults_fill_what_is_absent_at_every_depth() {
        let schema = read(
            "{\"type\": \"object\", \"$defs\": {\"o\": {\"properties\": {\"z\": {\"default\": 3}}}},
              \"properties\": {\"shots\": {\"type\": \"integer\", \"default\": 1024},
              \"deep\": {\"properties\": {\"x\": {\"default\": 1}}, \"default\": {}}, \"r\": {\"$ref\": \"#/$defs/o\"}}}",
        )
        .0
        .unwrap();
        assert_eq!(
            schema.with_defaults(Value::Null),
            json!({"shots": 1024, "deep": {"x": 1}})
        );
        assert_eq!(
            schema.with_defaults(json!({"shots": 5, "deep": {"x": 2}, "r": {}})),
            json!({"shots": 5, "deep": {"x": 2}, "r": {"z": 3}})
        );
        assert_eq!(schema.property_names().len(), 3);
    }

    #[test]
    fn violations_name_the_line_of_the_keyword() {
        let schema = read(
            "```json\n{\n  \"$defs\": {\n    \"n\": {\n      \"type\": \"integer\"}},\n  \"required\": [\"b\"],\n  \"properties\": {\n    \"a\": {\"$ref\": \"#/$defs/n\"},\n    \"c\": {\"items\": false}}\n}\n```",
        )
        .0
        .unwrap();
        let shown: Vec<String> = schema
            .check(&json!({"a": "x", "c": [1]}))
            .iter()
            .map(|violation| format!("{violation} {:?}", violation.column))
            .collect();
        assert_eq!(
            shown,
            [
                "/: \"b\" is a required property (line 7, schema /required) Some(3)",
                "/a: \"x\" is not of type \"integer\" (line 6, schema /$defs/n/type) Some(7)",
                "/c/0: False schema does not allow 1 (line 10, schema /properties/c/items) Some(11)",
            ]
        );
    }

    #[test]
    fn defaults_that_break_the_schema_are_reported_where_they_stand() {
        let (schema, findings) = read(
            "{\"required\": [\"x\"], \"properties\": {\n  \"a\": {\"type\": \"integer\", \"default\": \"one\"},\n  \"b\": {\"properties\": {\n    \"c\": {\"default\": [1],\n     \"items\": {\"type\": \"string\"}}}},\n  \"good\": {\"type\": \"integer\", \"default\": 1}}}",
        );
        assert!(schema.is_some());
        assert_eq!(
            findings,
            [
                "3:28: warning[MAML066]: the default of /a breaks its own schema: \"one\" is not of type \"integer\"",
                "5:11: warning[MAML066]: the default of /b/c/0 breaks its own schema: 1 is not of type \"string\"",
            ]
        );
    }

    #[test]
    fn defaults_that_multiply_are_bounded() {
        let properties: Vec<String> = (0..50)
            .map(|index| format!("\"p{index}\": {{\"default\": {{}}, \"$ref\": \"#\"}}"))
            .collect();
        let (schema, findings) = read(&format!("{{\"properties\": {{{}}}}}", properties.join(",")));
        assert!(
            schema.is_none() && findings[0].contains("MAML061"),
            "{findings:?}"
        );
        let (schema, _) = read("{\"properties\": {\"a\": {\"default\": {}, \"$ref\": \"#\"}}}");
        assert!(schema.unwrap().with_defaults(json!({}))["a"]["a"].is_object());
    }

    #[test]
    fn a_hostile_pattern_ends_in_time() {
        let schema = read("{\"type\": \"string\", \"pattern\": \"^(?=(a+)+$)(a+)+b$\"}")
            .0
            .unwrap();
        assert!(!schema.check(&json!("a".repeat(2000))).is_empty());
        let big = read("{\"pattern\": \"(((a{1,1000}){1,1000}){1,1000})\"}");
        assert!(big.0.is_none(), "{:?}", big.1);
    }
}
