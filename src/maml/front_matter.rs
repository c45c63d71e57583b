//! The front matter: the keys that the format knows, and the ones that it keeps.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::codes::Code;
use crate::diagnostic::{Findings, Severity, nearest};
use crate::permissions::{Permissions, permissions};
use crate::place::Span;
use crate::requires::{Requires, requires};
use crate::verification::{Verification, verification};
use crate::yaml::{Data, Key, Node};

/// What the front matter says.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct FrontMatter {
    /// Version of the format, as written.
    pub maml_version: String,
    /// Identity of the document: a URI, or a name.
    pub id: String,
    /// The document's type, such as `workflow`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Who made it.
    pub origin: Option<String>,
    /// Who may do what with it.
    pub permissions: Permissions,
    /// What a run of it needs.
    pub requires: Requires,
    /// How it wants to be verified before a run.
    pub verification: Option<Verification>,
    /// When it was made, as written.
    pub created_at: Option<String>,
    /// Whether it asks for signatures that withstand quantum computers; every receipt has them anyway.
    pub quantum_security_flag: Option<bool>,
    /// Keys without a meaning to the format, as JSON.
    pub unknown: Map<String, Value>,
}

impl FrontMatter {
    /// Whether a document of this type is there to be run, so that it must hold code.
    pub fn is_runnable_type(&self) -> bool {
        self.kind == "workflow" || self.kind.ends_with("_workflow")
    }

    /// Whether nothing is known about the type, so that the code blocks decide.
    pub(crate) fn is_open_type(&self) -> bool {
        !RESTING_TYPES.contains(&self.kind.as_str())
    }
}

/// Keys that mean something here.
const KNOWN_KEYS: [&str; 11] = [
    "maml_version",
    "id",
    "type",
    "origin",
    "permissions",
    "requires",
    "verification",
    "created_at",
    "quantum_security_flag",
    "encryption",
    "schema",
];

/// Types that hold text or data and need no code blocks.
const RESTING_TYPES: [&str; 10] = [
    "documentation",
    "prompt",
    "dataset",
    "agent_blueprint",
    "api_request",
    "data",
    "guide",
    "template",
    "tutorial",
    "specification",
];

/// Reads the map of the front matter, whose place as a whole is `at`. Gives nothing when it is a document of another format.
pub(crate) fn front_matter(root: &Node, at: Span, findings: &mut Findings<'_>) -> Option<FrontMatter> {
    let Data::Map(entries) = &root.data else {
        let message = format!("the front matter must be a map of keys, not {}", root.kind());
        findings.error(Code::NotAMap, at, message, "write `key: value` lines");
        return None;
    };
    if is_rival(entries, findings) {
        return None;
    }
    let mut front = FrontMatter::default();
    for (key, value) in entries {
        match key.text.as_str() {
            "maml_version" => front.maml_version = version(value, findings),
            "id" => front.id = id(value, findings),
            "type" => front.kind = kind(value, findings),
            "origin" => front.origin = origin(value, findings),
            "permissions" => front.permissions = permissions(value, findings),
            "requires" => front.requires = requires(value, findings),
            "verification" => front.verification = verification(key, value, findings),
            "created_at" => front.created_at = created_at(value, findings),
            "quantum_security_flag" => {
                front.quantum_security_flag = flag(key, value, findings);
                let message = "quantum_security_flag changes nothing: every receipt is signed with ML-DSA-87, and connections are TLS 1.3 with X25519MLKEM768";
                findings.info(Code::NoEffect, key.span, message, "");
            }
            _ => {
                unknown(key, entries, findings);
                front.unknown.insert(key.text.clone(), value.to_json());
            }
        }
    }
    for (name, example) in [
        ("maml_version", "maml_version: \"2.0.0\""),
        ("id", "id: \"urn:uuid:…\""),
        ("type", "type: workflow"),
    ] {
        if !has(entries, name) {
            let message = format!("the front matter has no `{name}`");
            findings.error(Code::KeyMissing, at, message, format!("add `{example}`"));
        }
    }
    if !has(entries, "permissions") {
        findings.warn(
            Code::PermissionsMissing,
            at,
            "the front matter has no `permissions`, so whoever may submit it may run it",
            "permissions: {read: [\"agent://*\"], execute: [\"agent://name\"]}",
        );
    }
    if !has(entries, "origin") {
        let hint = "origin: \"agent://name\"";
        findings.info(
            Code::OriginUnclear,
            at,
            "the front matter does not say where the document comes from",
            hint,
        );
    }
    Some(front)
}

fn has(entries: &[(Key, Node)], name: &str) -> bool {
    entries.iter().any(|(key, _)| key.text == name)
}

/// Names the formats that are easily taken for this one.
fn is_rival(entries: &[(Key, Node)], findings: &mut Findings<'_>) -> bool {
    if has(entries, "maml_version") {
        return false;
    }
    let schema = entries.iter().find(|(key, value)| {
        key.text == "schema"
            && value
                .scalar()
                .is_some_and(|value| value.to_ascii_lowercase().starts_with("maml_v"))
    });
    if let Some((key, value)) = schema {
        findings.error(
            Code::RivalDialect,
            Span::new(key.span.start, value.span.end),
            format!(
                "this is a document of the dialect `{}`, not MAML",
                value.scalar().unwrap_or_default()
            ),
            "MAML front matter has `maml_version`, `id` and `type`",
        );
        return true;
    }
    let signed_data = ["data_id", "content", "signature", "public_key"];
    if signed_data.iter().filter(|name| has(entries, name)).count() >= 3 && !has(entries, "type") {
        let span = entries.first().map_or_else(Span::default, |(key, _)| key.span);
        findings.error(
            Code::RivalDialect,
            span,
            "this is a signed data record (data_id, content, signature, public_key), not MAML",
            "put the data under `## Data_Block` of a document with `maml_version`, `id` and `type`",
        );
        return true;
    }
    false
}

fn version(node: &Node, findings: &mut Findings<'_>) -> String {
    let Some(written) = node.scalar() else {
        wrong_type("maml_version", "a text such as \"2.0.0\"", node, findings);
        return String::new();
    };
    let parts: Vec<&str> = written.split('.').collect();
    let numeric = parts
        .iter()
        .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    let known =
        numeric && parts.len() <= 3 && matches!((parts[0], parts.get(1)), ("0", Some(&"1")) | ("1" | "2", _));
    if !known {
        let message = format!("the version `{written}` of the format is not known");
        findings.error(
            Code::UnknownVersion,
            node.span,
            message,
            "known are 0.1, 1.x and 2.x",
        );
    } else if matches!(node.data, Data::Number(..)) {
        let message = format!("the version {written} is written as a number");
        findings.info(
            Code::VersionIsNumber,
            node.span,
            message,
            format!("quote it: \"{written}\""),
        );
    }
    written
}

fn id(node: &Node, findings: &mut Findings<'_>) -> String {
    let id = match node.scalar() {
        Some(id) if !id.trim().is_empty() => id,
        _ => {
            wrong_type("id", "a URI such as urn:uuid:…", node, findings);
            return String::new();
        }
    };
    if id
        .get(..9)
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case("urn:uuid:"))
    {
        if !is_uuid(&id[9..]) {
            let message = format!("`{id}` is not a valid UUID");
            findings.warn(
                Code::InvalidUuid,
                node.span,
                message,
                "write 32 hexadecimal digits as 8-4-4-4-12",
            );
        }
    } else if !is_uri(&id) {
        let message = format!("the id `{id}` is a name, not a URI");
        findings.info(
            Code::IdNotUri,
            node.span,
            message,
            "urn:uuid:… is unique everywhere",
        );
    }
    id
}

fn kind(node: &Node, findings: &mut Findings<'_>) -> String {
    let kind = match node.scalar() {
        Some(kind) if !kind.trim().is_empty() => kind.trim().to_owned(),
        _ => {
            wrong_type("type", "a text such as workflow", node, findings);
            return String::new();
        }
    };
    let known = kind == "workflow" || kind.ends_with("_workflow") || RESTING_TYPES.contains(&kind.as_str());
    if !known {
        let message =
            format!("the type `{kind}` is not a known one; the document runs if it holds code blocks");
        findings.info(Code::UnknownType, node.span, message, "");
    }
    kind
}

fn origin(node: &Node, findings: &mut Findings<'_>) -> Option<String> {
    let Some(origin) = node.scalar() else {
        if !matches!(node.data, Data::Null) {
            wrong_type("origin", "a URI such as agent://name", node, findings);
        }
        return None;
    };
    if !is_uri(&origin) {
        let message = format!("the origin `{origin}` is a word, not a URI");
        findings.info(
            Code::OriginUnclear,
            node.span,
            message,
            format!("agent://{}", origin.trim()),
        );
    }
    Some(origin)
}

fn created_at(node: &Node, findings: &mut Findings<'_>) -> Option<String> {
    let written = node.scalar()?;
    let is_time = written.parse::<jiff::Timestamp>().is_ok();
    if !is_time {
        let message = format!("created_at `{written}` is not an RFC 3339 time");
        findings.warn(Code::InvalidTime, node.span, message, "2026-05-04T10:00:00Z");
    }
    Some(written)
}

fn flag(key: &Key, node: &Node, findings: &mut Findings<'_>) -> Option<bool> {
    match &node.data {
        Data::Bool(value) => Some(*value),
        Data::Null => None,
        _ => match node.scalar().map(|value| value.to_ascii_lowercase()).as_deref() {
            Some("true" | "yes" | "on") => Some(true),
            Some("false" | "no" | "off") => Some(false),
            _ => {
                wrong_type(&key.text, "true or false", node, findings);
                None
            }
        },
    }
}

fn unknown(key: &Key, entries: &[(Key, Node)], findings: &mut Findings<'_>) {
    if key.text == "encryption" {
        let message = "encryption changes nothing: a document is stored as it is written, and connections are TLS 1.3 with X25519MLKEM768";
        let hint = "pass what is secret as a sealed input";
        findings.info(Code::NoEffect, key.span, message, hint);
        return;
    }
    if let Some(near) = nearest(&key.text, &KNOWN_KEYS).filter(|near| !has(entries, near)) {
        // Misspelt permissions would open the document to everyone, so that is refused.
        let severity = if near == "permissions" {
            Severity::Error
        } else {
            Severity::Warning
        };
        let message = format!("the key `{}` is not known", key.text);
        findings.add(
            Code::MisspeltKey,
            severity,
            key.span,
            message,
            format!("did you mean `{near}`?"),
        );
    } else {
        let message = format!("the key `{}` is kept but has no effect", key.text);
        findings.info(Code::UnknownKey, key.span, message, "");
    }
}

/// The value of `name` has the wrong type.
pub(crate) fn wrong_type(name: &str, wanted: &str, node: &Node, findings: &mut Findings<'_>) {
    let kind = if node.scalar().is_some_and(|text| text.trim().is_empty()) {
        "empty text"
    } else {
        node.kind()
    };
    findings.error(
        Code::WrongType,
        node.span,
        format!("`{name}` must be {wanted}, not {kind}"),
        "",
    );
}

/// The texts of a list; a single value is a list of one, nothing is the empty list.
pub(crate) fn texts(node: &Node, name: &str, findings: &mut Findings<'_>) -> Vec<(String, Span)> {
    match &node.data {
        Data::Null => Vec::new(),
        Data::List(items) => items
            .iter()
            .filter_map(|item| {
                if let Some(text) = item.scalar() {
                    Some((text.trim().to_owned(), item.span))
                } else {
                    wrong_type(&format!("an entry of {name}"), "text", item, findings);
                    None
                }
            })
            .collect(),
        Data::Map(_) => {
            wrong_type(name, "a list", node, findings);
            Vec::new()
        }
        _ => {
            let text = node.scalar().unwrap_or_default();
            let message = format!("`{name}` is a list; the single value `{text}` is read as a list of one");
            findings.info(Code::ScalarForList, node.span, message, format!("[{text}]"));
            vec![(text.trim().to_owned(), node.span)]
        }
    }
}

/// RFC 3986: a scheme, a colon, and something without blanks behind it.
fn is_uri(text: &str) -> bool {
    text.split_once(':').is_some_and(|(scheme, rest)| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'))
            && !rest.is_empty()
            && !rest.contains(char::is_whitespace)
    })
}

/// RFC 9562: hexadecimal digits in groups of 8-4-4-4-12.
fn is_uuid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    groups.len() == 5
        && groups.iter().zip([8, 4, 4, 4, 12]).all(|(group, length)| {
            group.len() == length && group.bytes().all(|byte| byte.is_ascii_hexdigit())
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_and_uuids_are_told_from_words() {
        assert!(is_uri("agent://ann"));
        assert!(is_uri("urn:uuid:x"));
        assert!(!is_uri("my-slug"));
        assert!(!is_uri("a b: c"));
        assert!(!is_uri("http:"));
        assert!(is_uuid("550e8400-e29b-41d4-a716-446655440000"));
        assert!(!is_uuid("1g0h8400-e29b-41d4-a716-446655440000"));
        assert!(!is_uuid("550e8400e29b41d4a716446655440000"));
    }

    #[test]
    fn workflows_of_every_sort_are_there_to_be_run() {
        for (kind, runs) in [
            ("workflow", true),
            ("quantum_workflow", true),
            ("documentation", false),
            ("prompt", false),
        ] {
            assert_eq!(
                FrontMatter {
                    kind: kind.to_owned(),
                    ..FrontMatter::default()
                }
                .is_runnable_type(),
                runs
            );
        }
    }
}
