//! The attributes of a code fence: `{name= needs= timeout= allow_failure=}`.

use std::collections::HashSet;

use crate::blocks::MAX_BLOCKS;
use crate::codes::Code;
use crate::diagnostic::{Findings, Severity, nearest};
use crate::place::Span;

/// What the reader acts on, for messages.
const KNOWN: &str = "known: {name= needs= timeout= allow_failure=}";
const KEYS: [&str; 4] = ["name", "needs", "timeout", "allow_failure"];

/// The longest time that a block may ask for: a day.
const MAX_TIMEOUT_SECONDS: u32 = 86_400;

/// What stands behind the language of a fence.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// The name as written, and where.
    pub name: Option<(String, Span)>,
    /// The blocks that this one needs, each once, and where they are named.
    pub needs: (Vec<String>, Span),
    pub timeout_seconds: Option<u32>,
    pub allow_failure: bool,
}

/// Reads attributes that start at the byte `at` of the source. What cannot be acted on is reported; a wrong value has the
/// severity that the document's type asks for.
pub(crate) fn attributes(
    text: &str,
    at: usize,
    severity: Severity,
    findings: &mut Findings<'_>,
) -> Attributes {
    let mut attributes = Attributes::default();
    let mut seen: Vec<&str> = Vec::new();
    for attribute in scan(text) {
        let Attribute { key, value, .. } = attribute;
        let span = Span::new(at + attribute.start, at + attribute.end);
        let mut wrong = |wanted: &str| {
            let message = match value {
                Some(value) if !value.is_empty() => {
                    format!("`{value}` is no value for the attribute `{key}`")
                }
                _ => format!("the attribute `{key}` has no value"),
            };
            findings.add(Code::AttributeValue, severity, span, message, wanted.to_owned());
        };
        match (key, value) {
            (known, _) if KEYS.contains(&known) && seen.contains(&known) => {
                let message = format!("the attribute `{known}` is given twice");
                let hint = "remove one of them".to_owned();
                findings.add(Code::AttributeValue, severity, span, message, hint);
            }
            ("name", Some(value)) => attributes.name = Some((value.to_owned(), span)),
            ("name", None) => wrong("{name=prepare}"),
            ("needs", value) => match names(value.unwrap_or_default()) {
                names if names.is_empty() => wrong("{needs=prepare,measure}"),
                names if names.len() > MAX_BLOCKS => wrong("fewer names than a document may have blocks"),
                names => attributes.needs = (names, span),
            },
            ("timeout", value) => match value.and_then(seconds) {
                Some(timeout) => attributes.timeout_seconds = Some(timeout),
                None => wrong("seconds, 30s, 2m or 1h; at least a second, at most a day"),
            },
            ("allow_failure", None | Some("true" | "yes")) => attributes.allow_failure = true,
            ("allow_failure", Some("false" | "no")) => attributes.allow_failure = false,
            ("allow_failure", _) => wrong("true or false"),
            _ => {
                let written = &text[attribute.start..attribute.end];
                let message = format!("the attribute `{written}` has no effect");
                let hint = match nearest(key, &KEYS) {
                    Some(near) => format!("did you mean `{near}`? {KNOWN}"),
                    None => KNOWN.to_owned(),
                };
                findings.warn(Code::AttributeNoEffect, span, message, hint);
            }
        }
        if KEYS.contains(&key) && !seen.contains(&key) {
            seen.push(key);
        }
    }
    attributes
}

/// The name that the attributes of a fence give to a file, and where. The other attributes mean nothing there.
pub(crate) fn file_name(text: &str, at: usize, findings: &mut Findings<'_>) -> Option<(String, Span)> {
    let mut name = None;
    for attribute in scan(text) {
        let span = Span::new(at + attribute.start, at + attribute.end);
        match (attribute.key, attribute.value) {
            ("name", Some(value)) if name.is_none() => name = Some((value.to_owned(), span)),
            _ => {
                let written = &text[attribute.start..attribute.end];
                let message = format!("the attribute `{written}` has no effect");
                findings.warn(Code::AttributeNoEffect, span, message, "known here: {name=FILE}");
            }
        }
    }
    name
}

/// One attribute: its key, its value without quotes or brackets, and where it stands.
#[derive(Debug, PartialEq, Eq)]
struct Attribute<'a> {
    key: &'a str,
    value: Option<&'a str>,
    start: usize,
    end: usize,
}

/// Cuts attributes apart at blanks and commas.
fn scan(text: &str) -> Vec<Attribute<'_>> {
    let mut found = Vec::new();
    let mut rest = text.trim_start_matches(separates);
    while !rest.is_empty() {
        let start = text.len() - rest.len();
        let key_end = rest
            .find(|sign| sign == '=' || separates(sign))
            .unwrap_or(rest.len());
        let (key, behind) = rest.split_at(key_end);
        let (value, behind) = match behind.strip_prefix('=') {
            Some(behind) => {
                let (value, behind) = cut_value(behind, key == "needs");
                (Some(value), behind)
            }
            None => (None, behind),
        };
        let end = text.len() - behind.len();
        found.push(Attribute {
            key,
            value,
            start,
            end,
        });
        rest = behind.trim_start_matches(separates);
    }
    found
}

/// The value at the start of `text`, and what is behind it. A `list` goes on over blanks and commas until the next attribute.
fn cut_value(text: &str, list: bool) -> (&str, &str) {
    let closing = match text.chars().next() {
        Some(quote @ ('"' | '\'')) => Some(quote),
        Some('[') => Some(']'),
        _ => None,
    };
    if let Some(closing) = closing {
        return text[1..].split_once(closing).unwrap_or((&text[1..], ""));
    }
    let word_end = |from: usize| text[from..].find(separates).map_or(text.len(), |at| from + at);
    let mut end = word_end(0);
    loop {
        let next = text.len() - text[end..].trim_start_matches(separates).len();
        let word = &text[next..word_end(next)];
        if !list || word.is_empty() || word.contains('=') || KEYS.contains(&word) {
            return text.split_at(end);
        }
        end = next + word.len();
    }
}

fn separates(sign: char) -> bool {
    sign.is_whitespace() || sign == ','
}

/// The names of a list, each once.
fn names(list: &str) -> Vec<String> {
    let mut seen = HashSet::new();
    list.split(separates)
        .map(|name| name.trim_matches(['"', '\'']))
        .filter(|name| !name.is_empty() && seen.insert(*name))
        .map(str::to_owned)
        .collect()
}

/// `30`, `30s`, `2m` and `1h`, from a second to a day.
fn seconds(text: &str) -> Option<u32> {
    let (count, unit) = match text.trim().strip_suffix(['s', 'm', 'h']) {
        Some(count) if text.ends_with('m') => (count, 60),
        Some(count) if text.ends_with('h') => (count, 3600),
        Some(count) => (count, 1),
        None => (text.trim(), 1),
    };
    // `+5` is a number to Rust.
    if !count.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds = count.parse::<u32>().ok()?.checked_mul(unit)?;
    (1..=MAX_TIMEOUT_SECONDS).contains(&seconds).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::Text;

    fn read(attributes_text: &str) -> (Attributes, Vec<String>) {
        let text = Text::new(attributes_text);
        let mut findings = Findings::new(&text);
        let attributes = attributes(attributes_text, 0, Severity::Error, &mut findings);
        let found = findings.finish();
        (
            attributes,
            found
                .iter()
                .map(|found| format!("{} {}", found.code, found.span.slice(attributes_text)))
                .collect(),
        )
    }

    #[test]
    #[expect(clippy::type_complexity, reason = "a table of cases")]
    fn every_way_to_write_attributes_is_read() {
        let cases: &[(&str, &str, &[&str], Option<u32>, bool)] = &[
            ("", "", &[], None, false),
            ("name=a", "a", &[], None, false),
            ("name=\"a\", needs='b c'", "a", &["b", "c"], None, false),
            ("name=a,needs=b,c", "a", &["b", "c"], None, false),
            (
                "needs=[b, 'c'] timeout=30s name=a",
                "a",
                &["b", "c"],
                Some(30),
                false,
            ),
            ("needs=b, c timeout=2m", "", &["b", "c"], Some(120), false),
            ("needs=b c allow_failure", "", &["b", "c"], None, true),
            ("needs=b,b", "", &["b"], None, false),
            ("timeout=86400 allow_failure=false", "", &[], Some(86_400), false),
            ("allow_failure=true timeout=1h", "", &[], Some(3600), true),
        ];
        for (text, name, needs, timeout, allow) in cases {
            let (found, findings) = read(text);
            assert_eq!(findings, [""; 0], "{text}");
            assert_eq!(
                found.name.map(|(name, _)| name).unwrap_or_default(),
                *name,
                "{text}"
            );
            assert_eq!(found.needs.0, *needs, "{text}");
            assert_eq!(
                (found.timeout_seconds, found.allow_failure),
                (*timeout, *allow),
                "{text}"
            );
        }
    }

    #[test]
    fn what_cannot_be_acted_on_is_reported_in_its_place() {
        for (text, expected) in [
            ("timeout=0", "MAML065 timeout=0"),
            ("timeout=2d", "MAML065 timeout=2d"),
            ("timeout=25h", "MAML065 timeout=25h"),
            ("timeout=99999999999", "MAML065 timeout=99999999999"),
            ("timeout=+5", "MAML065 timeout=+5"),
            ("timeout=m", "MAML065 timeout=m"),
            ("timeout", "MAML065 timeout"),
            ("name=a needs=", "MAML065 needs="),
            ("needs=[]", "MAML065 needs=[]"),
            ("allow_failure=maybe", "MAML065 allow_failure=maybe"),
            ("name=a name=b", "MAML065 name=b"),
            ("name=a linenos", "MAML055 linenos"),
            ("tmeout=3", "MAML055 tmeout=3"),
            ("é=\"x", "MAML055 é=\"x"),
            ("=", "MAML055 ="),
        ] {
            assert_eq!(read(text).1, [expected], "{text}");
        }
    }

    #[test]
    fn a_misspelt_attribute_is_recognised() {
        let text = Text::new("alow_failure");
        let mut findings = Findings::new(&text);
        attributes("alow_failure", 0, Severity::Error, &mut findings);
        let hint = findings.finish()[0].hint.clone().unwrap();
        assert!(hint.starts_with("did you mean `allow_failure`?"), "{hint}");
    }
}
