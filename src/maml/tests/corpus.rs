//! Every trap, dialect and oddity of real documents, each with what there is to say about it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::path::Path;

/// What a reader of the snapshot needs to judge it: the findings, and what was understood.
fn describe(source: &str) -> String {
    let reading = maml::read(source);
    let mut text = String::new();
    for found in &reading.diagnostics {
        let end = if found.start == found.end {
            String::new()
        } else {
            format!("-{}:{}", found.end.line, found.end.column)
        };
        let (start, code, severity) = (found.start, found.code, found.severity);
        writeln!(
            text,
            "{}:{}{end} {severity} {code} {}",
            start.line, start.column, found.message
        )
        .unwrap();
        if let Some(hint) = &found.hint {
            writeln!(text, "    {hint}").unwrap();
        }
    }
    let Some(document) = &reading.document else {
        text.push_str("no document\n");
        return text;
    };
    let front = &document.front_matter;
    writeln!(
        text,
        "maml {} type {} id {}",
        front.maml_version, front.kind, front.id
    )
    .unwrap();
    writeln!(
        text,
        "permissions {:?} {:?}",
        front.permissions.read, front.permissions.execute
    )
    .unwrap();
    let requires = &front.requires;
    if !requires.raw.is_null() {
        let (packages, gpus, network) = (&requires.packages, requires.gpus, requires.network);
        writeln!(text, "requires {packages:?} gpus {gpus} network {network}").unwrap();
    }
    if !front.unknown.is_empty() {
        writeln!(text, "unknown {}", serde_json::to_string(&front.unknown).unwrap()).unwrap();
    }
    if let Some(title) = &document.title {
        writeln!(text, "title {title}").unwrap();
    }
    for section in &document.sections {
        writeln!(text, "{} section {:?}", section.line, section.kind).unwrap();
    }
    for block in &document.blocks {
        write!(
            text,
            "{} block {} {} {:?}",
            block.line, block.name, block.language, block.code
        )
        .unwrap();
        if !block.needs.is_empty() {
            write!(text, " needs {:?}", block.needs).unwrap();
        }
        if let Some(seconds) = block.timeout_seconds {
            write!(text, " timeout {seconds}").unwrap();
        }
        if block.allow_failure {
            text.push_str(" allow_failure");
        }
        text.push('\n');
    }
    let order = document.run_order();
    if !order.is_sorted() {
        writeln!(text, "order {order:?}").unwrap();
    }
    for spec in &document.embedded_specs {
        writeln!(text, "{} spec {} {:?}", spec.line, spec.name, spec.code).unwrap();
    }
    for line in &document.history {
        writeln!(
            text,
            "{} history {} {} {:?}",
            line.line, line.time, line.op, line.text
        )
        .unwrap();
    }
    for (name, schema) in [
        ("input", &document.input_schema),
        ("output", &document.output_schema),
    ] {
        if let Some(schema) = schema {
            writeln!(text, "{} {name} schema {}", schema.line, schema.value).unwrap();
        }
    }
    text
}

#[test]
fn every_document_of_the_corpus_is_read_as_before() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(files.len() >= 120, "the corpus is not found");
    for file in files {
        let name = file
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .trim_end_matches(".maml.md")
            .to_owned();
        let source = std::fs::read_to_string(&file).unwrap();
        insta::with_settings!({ snapshot_path => "snapshots", prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(name, describe(&source));
        });
    }
}

#[test]
fn spans_lead_to_the_code_in_the_document() {
    for file in ["plain", "crlf", "byte_order_mark", "no_last_newline", "indented"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/corpus/{file}.maml.md"));
        let source = std::fs::read_to_string(path).unwrap();
        let document = maml::read(&source).document.unwrap();
        assert_eq!(document.blocks[0].span.slice(&source), "dry = [1, 4]", "{file}");
        assert_eq!(document.blocks[0].code, "dry = [1, 4]\n", "{file}");
    }
}

fn read_format_and_edit(source: &str) {
    let limits = maml::Limits {
        document_bytes: usize::MAX,
        ..maml::Limits::default()
    };
    let _ = maml::read_within(source, &limits);
    let _ = maml::format(source);
    let _ = maml::with_run(source, &note("r1"));
    assert_eq!(
        maml::parts(source).last().map(|part| part.span.end),
        Some(source.len())
    );
}

fn note(run_id: &str) -> maml::RunNote<'_> {
    maml::RunNote {
        outputs_json: Some("{\"dry\": [1, 4]}"),
        ended_at: "2026-05-04T10:00:00Z",
        run_id,
        result: maml::RunResult::Success,
        text: "",
    }
}

#[test]
fn time_grows_with_the_length_only() {
    // Shapes that make careless readers quadratic. Each is read in well under a second; the test would hang otherwise.
    let limits = maml::Limits {
        document_bytes: usize::MAX,
        ..maml::Limits::default()
    };
    let head = "---\nmaml_version: \"2.0\"\nid: a\ntype: workflow\n---\n";
    for piece in [
        "## Intent\n",
        "```\n",
        "````\n```\n",
        "#",
        "<!--\n",
        "@a:b(",
        "> ",
        "## Code_Blocks\n```x\n```\n",
        "é",
        "\r\n",
        "`",
        "## History\n",
        "<!-- -->\n",
        "## Verification\n```py {name=a.py}\n```\n",
    ] {
        read_format_and_edit(&format!("{head}{}", piece.repeat(SIZE / piece.len())));
    }
    for (opening, piece) in [
        ("## History\n", "- 2026-05-04: [X] y\n"),
        ("## Code_Blocks\n```python {", "needs=a x=b name=c "),
        ("## Code_Blocks\n```python {needs=", "a,b "),
        ("## Code_Blocks\n```python {needs=[", "é, "),
        ("## Input_Schema\n", "[{\"a\": 1}, "),
        ("## Input_Schema\n[1", ", 2"),
    ] {
        read_format_and_edit(&format!(
            "{head}{opening}{}}}\n```\n",
            piece.repeat(SIZE / piece.len())
        ));
    }
    let needs: String = (0..250)
        .map(|number| format!("need-{number},"))
        .collect::<Vec<_>>()
        .concat();
    let block = format!("```python {{needs={needs}}}\n```\n");
    read_format_and_edit(&format!("{head}## Code_Blocks\n{}", block.repeat(250)));
    for piece in [
        "a: ", "[", "- ", "{a: ", "'", "\"\\n", "&a *a ", "? ", "|\n ", "k: v\n",
    ] {
        let source = format!("---\n{}\n---\n", piece.repeat(60_000 / piece.len()));
        let _ = maml::read_within(&source, &limits);
    }
}

/// Bytes of a document whose time is watched.
const SIZE: usize = 300_000;

/// Every document of the corpus with its name.
fn corpus() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut documents: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.display().to_string(), std::fs::read_to_string(path).unwrap()))
        .collect();
    documents.sort();
    documents
}

/// What a document says, without where it says it.
fn meaning(source: &str) -> Option<String> {
    let document = maml::read(source).document?;
    let front = serde_json::to_string(&document.front_matter).unwrap();
    let kinds: Vec<_> = document.sections.iter().map(|section| &section.kind).collect();
    let blocks: Vec<_> = document
        .blocks
        .iter()
        .map(|block| (&block.name, &block.code))
        .collect();
    let schemas =
        [document.input_schema, document.output_schema].map(|schema| schema.map(|schema| schema.value));
    Some(format!(
        "{front} {:?} {kinds:?} {blocks:?} {schemas:?}",
        document.title
    ))
}

#[test]
fn the_parts_of_a_document_are_the_document() {
    for (name, source) in corpus() {
        let joined: String = maml::parts(&source)
            .iter()
            .map(|part| part.span.slice(&source))
            .collect();
        assert_eq!(joined, source, "{name}");
    }
}

#[test]
fn formatting_changes_no_meaning_and_is_done_once() {
    for (name, source) in corpus() {
        if let Ok(once) = maml::format(&source) {
            assert_eq!(maml::format(&once).unwrap(), once, "{name}");
            assert_eq!(meaning(&once), meaning(&source), "{name}");
        }
    }
}

#[test]
fn runs_are_noted_without_new_faults() {
    let errors = |source: &str| {
        let found = maml::read(source).diagnostics;
        found
            .iter()
            .filter(|found| found.severity == maml::Severity::Error)
            .count()
    };
    let mut noted = 0;
    for (name, source) in corpus() {
        let Ok(once) = maml::with_run(&source, &note("r1")) else {
            continue;
        };
        let twice = maml::with_run(&once, &note("r2")).unwrap();
        assert_eq!(errors(&twice), errors(&source), "{name}");
        assert_eq!(twice.matches("## Outputs").count(), 1, "{name}");
        assert_eq!(twice.matches("[EXECUTE] Success run r").count(), 2, "{name}");
        noted += 1;
    }
    assert!(noted > 30, "only {noted}");
}
