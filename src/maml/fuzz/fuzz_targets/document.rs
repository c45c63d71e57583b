//! Everything that the library promises about any text, asserted about texts that a fuzzer makes up.

#![no_main]

use std::io::Cursor;

use libfuzzer_sys::fuzz_target;
use maml::{Document, RunNote, RunResult, Severity, mirror};

fuzz_target!(|source: &str| {
    parts_are_the_document(source);
    findings_have_places(source);
    formatting_is_done_once(source);
    edits_are_safe(source);
    mirrors_lead_back(source);
});

fn parts_are_the_document(source: &str) {
    let joined: String = maml::parts(source)
        .iter()
        .map(|part| part.span.slice(source))
        .collect();
    assert_eq!(joined, source);
}

fn findings_have_places(source: &str) {
    let reading = maml::read(source);
    for found in &reading.diagnostics {
        assert!(
            source.get(found.span.start..found.span.end).is_some(),
            "{found:?}"
        );
        assert!(found.start <= found.end, "{found:?}");
    }
    let Some(document) = reading.document else {
        return;
    };
    let mut order = document.run_order();
    order.sort_unstable();
    assert!(order.into_iter().eq(0..document.blocks.len()));
    for schema in [document.input_schema, document.output_schema]
        .into_iter()
        .flatten()
    {
        let value = schema.with_defaults(schema.value.clone());
        for violation in schema.check(&value) {
            assert!(violation.line.is_some(), "{violation:?}");
        }
    }
}

fn formatting_is_done_once(source: &str) {
    if let Ok(once) = maml::format(source) {
        assert_eq!(
            maml::format(&once).expect("what was formatted is understood"),
            once
        );
        assert_eq!(meaning(&once), meaning(source));
    }
}

/// What a document says, without where it says it.
fn meaning(source: &str) -> String {
    let document = read(source);
    let kinds: Vec<_> = document.sections.iter().map(|section| &section.kind).collect();
    let blocks: Vec<_> = document
        .blocks
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
    let specs: Vec<_> = document
        .embedded_specs
        .iter()
        .map(|spec| (&spec.name, &spec.code))
        .collect();
    let history: Vec<_> = document
        .history
        .iter()
        .map(|line| (&line.time, &line.op, &line.text))
        .collect();
    let schemas = [&document.input_schema, &document.output_schema]
        .map(|schema| schema.as_ref().map(|schema| schema.value.to_string()));
    format!(
        "{:?} {:?} {kinds:?} {blocks:?} {specs:?} {history:?} {schemas:?}",
        document.front_matter.unknown, document.title
    )
}

fn read(source: &str) -> Document {
    maml::read(source)
        .document
        .expect("a document that was understood")
}

fn edits_are_safe(source: &str) {
    let note = |run_id, outputs_json| RunNote {
        outputs_json,
        ended_at: "2026-05-04T10:00:00Z",
        run_id,
        result: RunResult::Success,
        text: "on chimera-head-1",
    };
    let Ok(once) = maml::with_run(source, &note("fuzz-1", Some("{\"a\": \"```\"}"))) else {
        return;
    };
    if once == source {
        return;
    }
    assert_eq!(
        maml::with_run(&once, &note("fuzz-1", None)).expect("was edited"),
        once
    );
    let Ok(twice) = maml::with_run(&once, &note("fuzz-2", Some("{}"))) else {
        return;
    };
    let (before, after) = (read(source), read(&twice));
    assert_eq!(errors(source), errors(&twice));
    assert_eq!(after.history.len(), before.history.len() + 2);
    assert_eq!(after.blocks.len(), before.blocks.len());
    for (before, after) in before.blocks.iter().zip(&after.blocks) {
        assert_eq!(before.code, after.code);
    }
}

fn errors(source: &str) -> usize {
    let found = maml::read(source).diagnostics;
    found
        .iter()
        .filter(|found| found.severity == Severity::Error)
        .count()
}

fn mirrors_lead_back(source: &str) {
    let mirrored = mirror::forward(source);
    assert_eq!(mirror::reverse(&mirrored), source);
    let mut streamed = Vec::new();
    mirror::forward_stream(&mut Cursor::new(source), &mut streamed).expect("a text in memory");
    assert_eq!(streamed, mirrored.as_bytes());
    let redacted = mirror::redact(source);
    assert_eq!(mirror::redact(&redacted), redacted);
    let _ = mirror::read(source);
}
