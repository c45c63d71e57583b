//! How inputs or outputs that break their schema are told: which member, what is wrong, and where the document says so.
//! Of what is secret, only the input's name and the rule.

use maml::{Schema, Violation};

/// The first violation as a sentence, and the line of the document; nothing when there is none. `value` is what was
/// checked, `section` where its schema stands; what stands at a pointer that is `secret` is not quoted.
pub fn first_of(
    violations: &[Violation],
    schema: &Schema,
    value: &str,
    section: &str,
    secret: impl Fn(&str) -> bool,
) -> Option<(String, u32)> {
    let first = violations.first()?;
    let line = first.line.unwrap_or(schema.line);
    let (pointer, message) = if secret(&first.pointer) {
        (input_of(&first.pointer), "the sealed value breaks its schema")
    } else {
        (first.pointer.as_str(), first.message.as_str())
    };
    let pointer = if pointer.is_empty() { "/" } else { pointer };
    let keyword = if first.schema_path.is_empty() {
        String::new()
    } else {
        format!(": {}", first.schema_path)
    };
    let more = match violations.len() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    Some((
        format!("{value}{pointer}: {message} ({section}, line {line}{keyword}){more}"),
        line,
    ))
}

/// The pointer to the input itself: the names inside a secret are secret too.
fn input_of(pointer: &str) -> &str {
    let second = pointer.match_indices('/').nth(1);
    second.map_or(pointer, |(end, _)| &pointer[..end])
}
