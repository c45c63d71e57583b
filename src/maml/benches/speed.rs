//! How long reading, formatting and mirroring take. `cargo bench -p chimera-maml` prints medians; ROUNDS sets how often each
//! small thing is done.

#![allow(clippy::print_stdout, reason = "the figures are what the bench is for")]

use std::hint::black_box;
use std::io::{Cursor, sink};
use std::time::Instant;

use maml::{Limits, RunNote, RunResult, mirror};

const MEGA: usize = 1_000_000;

fn main() {
    let rounds = std::env::var("ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1000);
    let document = document(6_000);
    let reading = maml::read(&document);
    assert!(
        reading.diagnostics.is_empty(),
        "the sample is sound: {:?}",
        reading.diagnostics
    );
    let note = RunNote {
        outputs_json: Some("{\n  \"mean\": 1.5\n}"),
        ended_at: "2026-05-04T10:00:00Z",
        run_id: "r1",
        result: RunResult::Success,
        text: "",
    };
    println!("document: {} bytes, {rounds} rounds", document.len());
    let micros = |name: &str, seconds: f64| println!("{name:34} {:9.1} µs", seconds * 1e6);
    micros(
        "parse and lint",
        median(rounds, || maml::read(&document).diagnostics.len()),
    );
    micros(
        "format",
        median(rounds, || maml::format(&document).map(|text| text.len())),
    );
    micros(
        "note a run",
        median(rounds, || {
            maml::with_run(&document, &note).map(|text| text.len()).ok()
        }),
    );
    micros(
        "redact and mirror",
        median(rounds, || mirror::forward(&mirror::redact(&document)).len()),
    );

    let large = Limits {
        document_bytes: usize::MAX,
        ..Limits::default()
    };
    for megabytes in [2, 20] {
        let text = large_document(megabytes * MEGA);
        let seconds = median(5, || maml::read_within(&text, &large).diagnostics.len());
        rate(&format!("parse and lint {megabytes} MB"), text.len(), seconds);
    }

    let ascii = document.repeat(100 * MEGA / document.len());
    let mixed = "Größe 5 €, 😀 und so weiter.\n".repeat(20 * MEGA / 30);
    for (name, text) in [("ASCII", &ascii), ("other text", &mixed)] {
        rate(
            &format!("mirror {name}"),
            text.len(),
            median(5, || mirror::forward(text).len()),
        );
        let seconds = median(5, || {
            mirror::forward_stream(&mut Cursor::new(text), &mut sink()).ok()
        });
        rate(&format!("mirror {name} as a stream"), text.len(), seconds);
    }
}

fn rate(name: &str, bytes: usize, seconds: f64) {
    #[expect(clippy::cast_precision_loss, reason = "a figure to look at")]
    let rate = bytes as f64 / seconds / 1e6;
    println!("{name:34} {:9.1} ms   {rate:8.0} MB/s", seconds * 1e3);
}

/// The time that half of the rounds stay below, in seconds.
fn median<T>(rounds: usize, mut work: impl FnMut() -> T) -> f64 {
    black_box(work());
    let mut times: Vec<f64> = (0..rounds.max(1))
        .map(|_| {
            let start = Instant::now();
            black_box(work());
            start.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

const HEAD: &str = r#"---
maml_version: "2.0.0"
id: "urn:uuid:550e8400-e29b-41d4-a716-446655440000"
type: workflow
origin: "agent://gardener"
permissions:
  read: ["agent://*"]
  execute: ["agent://gardener", "gateway://chimera-2048"]
requires:
  libs: [numpy>=2, "qiskit[visualization]>=1.0,<3"]
  gpu: 1
created_at: 2026-05-04T10:00:00Z
---

## Intent

Find the beds that are dry.

## Context

"#;

const SCHEMAS: &str = r#"
## Input_Schema

```json
{
  "type": "object",
  "required": ["beds"],
  "properties": {
    "beds": {"type": "array", "items": {"type": "object", "properties": {"moisture": {"type": "number"}}}},
    "limit": {"type": "number", "default": 0.3, "minimum": 0, "maximum": 1}
  }
}
```

## Output_Schema

```json
{"type": "object", "required": ["dry"], "properties": {"dry": {"type": "array", "items": {"type": "integer"}}}}
```

## History

- 2026-05-04T10:00:00Z: [CREATE] written by hand
"#;

/// A document of about so many bytes, as people write them.
fn document(bytes: usize) -> String {
    let prose =
        "Moisture comes once an hour from the sensors in the beds; a bed without a sensor is taken as wet.\n";
    let code = "dry = [number for number, bed in enumerate(beds) if bed[\"moisture\"] < limit]\n";
    let rest = bytes.saturating_sub(HEAD.len() + SCHEMAS.len());
    let prose = prose.repeat(rest / 2 / prose.len());
    let code = code.repeat(rest / 2 / code.len());
    format!("{HEAD}{prose}\n## Code_Blocks\n\n```python {{name=find timeout=30s}}\n{code}```\n{SCHEMAS}")
}

/// A large document with everything in it that could cost more than its length.
fn large_document(bytes: usize) -> String {
    let piece = "Text with `code` and *signs*.\n### Note\n<!-- hidden -->\n## Notes\n```text\n## no heading\n---\n```\n- 2026-05-04: [CREATE] x\n";
    let body = piece.repeat(bytes / piece.len());
    format!("{HEAD}{body}\n## Code_Blocks\n\n```python\nx = 1\n```\n")
}
