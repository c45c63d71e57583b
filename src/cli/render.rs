//! Findings for people: each with the lines of the document that it speaks of.

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use maml::{Diagnostic, Severity};

use crate::output;

/// Findings about `source`, which the user knows as `path`.
pub fn findings(path: &str, source: &str, diagnostics: &[Diagnostic]) -> String {
    let renderer = Renderer::styled();
    let mut text = String::new();
    for found in diagnostics {
        let level = match found.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
            Severity::Info => Level::INFO,
        };
        let span = if source.get(found.span.start..found.span.end).is_some() {
            found.span.start..found.span.end
        } else {
            0..0
        };
        let snippet = Snippet::source(source)
            .path(path)
            .annotation(AnnotationKind::Primary.span(span));
        let mut group = level
            .primary_title(output::harmless(&found.message))
            .id(found.code.as_str())
            .element(snippet);
        if let Some(hint) = &found.hint {
            group = group.element(Level::HELP.message(output::harmless(hint)));
        }
        text.push_str(&renderer.render(&[group]));
        text.push_str("\n\n");
    }
    text
}

/// Tells the user, on stderr, of what is more than a remark, and gives its summary; empty when there is nothing.
pub fn tell(path: &str, source: &str, mut diagnostics: Vec<Diagnostic>) -> String {
    diagnostics.retain(|found| found.severity > Severity::Info);
    if !diagnostics.is_empty() {
        output::note(findings(path, source, &diagnostics).trim_end());
    }
    summary(&diagnostics).unwrap_or_default()
}

/// How many of each severity, as a sentence; nothing when there are none.
pub fn summary(diagnostics: &[Diagnostic]) -> Option<String> {
    let count = |severity| {
        diagnostics
            .iter()
            .filter(|found| found.severity == severity)
            .count()
    };
    let parts: Vec<String> = [
        (count(Severity::Error), "error", "errors"),
        (count(Severity::Warning), "warning", "warnings"),
        (count(Severity::Info), "note", "notes"),
    ]
    .into_iter()
    .filter(|(count, ..)| *count > 0)
    .map(|(count, one, many)| format!("{count} {}", if count == 1 { one } else { many }))
    .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}
