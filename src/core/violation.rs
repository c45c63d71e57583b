//! How inputs or outputs that break their schema are told: which member, what is wrong, and where the document says so.

use maml::{Schema, Violation};

/// The first violation as a sentence, and the line of the document; nothing when there is none. `value` is what was
/// checked, `section` where its schema stands.
pub fn first_of(
    violations: &[Violation],
    schema: &Schema,
    value: &str,
    section: &str,
) -> Option<(String, u32)> {
    let first = violations.first()?;
    let line = first.line.unwrap_or(schema.line);
    let pointer = if first.pointer.is_empty() {
        "/"
    } else {
        &first.pointer
    };
    let keyword = if first.schema_path.is_empty() {
        String::new()
    } else {
        format!(": {}", first.schema_path)
    };
    let more = match violations.len() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    let message = &first.message;
    Some((
        format!("{value}{pointer}: {message} ({section}, line {line}{keyword}){more}"),
        line,
    ))
}
