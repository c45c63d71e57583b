//! `chimera run` as its user meets it: real interpreters in the real sandbox of this machine.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::process::Output;

use assert_cmd::Command;
use serde_json::{Value, json};

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// `chimera` as a user whose home this is.
    fn chimera(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chimera"));
        command
            .args(arguments)
            .current_dir(self.0.path())
            .env_remove("KUBECONFIG")
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("VIRTUAL_ENV")
            .env("XDG_DATA_HOME", self.path("data"))
            .env("HOME", self.path("home"));
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.chimera(&[&["run"], arguments].concat()).output().unwrap()
    }

    /// The checks of a receipt, as `chimera verify` lists them: its exit code and its result.
    fn verify(&self, receipt: &str) -> (i32, String) {
        let output = self.chimera(&["verify", receipt, "-o", "json"]).output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let result = report["checks"]
            .as_array()
            .unwrap()
            .iter()
            .find(|check| check["name"] == "result")
            .map(|check| check["detail"].as_str().unwrap().to_owned());
        (output.status.code().unwrap(), result.unwrap_or_default())
    }
}

fn document(sections: &str) -> String {
    format!(
        "---\nmaml_version: \"2.0.0\"\nid: urn:uuid:550e8400-e29b-41d4-a716-446655440000\ntype: workflow\n\
         origin: agent://ann\npermissions: {{execute: ['agent://*']}}\n---\n## Intent\nTest.\n## Context\nNone.\n{sections}"
    )
}

fn python(code: &str) -> String {
    document(&format!("## Code_Blocks\n```python\n{code}\n```\n"))
}

fn outputs(output: &Output) -> Value {
    assert!(output.status.success(), "{}", text(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_run_gives_outputs_and_a_receipt_that_verifies() {
    let home = Home::new();
    let source = python("print('working')\noutputs = {'sum': inputs['a'] + inputs['b']}");
    home.write("add.maml.md", &source);
    home.write("inputs.yaml", "a: 1\nb: 1\n");
    let output = home.run(&["add.maml.md", "--inputs", "inputs.yaml", "-i", "b=41"]);
    assert_eq!(outputs(&output), json!({"sum": 42}));
    assert!(text(&output).contains("working"), "{}", text(&output));
    assert!(!output.stderr.contains(&0x1b), "no escape codes in a pipe");
    assert_eq!(home.verify("add.receipt.json"), (0, "Success".to_owned()));
    let verified = |more: &[&str]| {
        home.chimera(&[&["verify", "add.receipt.json"], more].concat())
            .output()
            .unwrap()
            .status
            .code()
    };
    home.write("outputs.json", "{ \"sum\": 42 }");
    assert_eq!(
        verified(&["--document", "add.maml.md", "--outputs", "outputs.json"]),
        Some(0)
    );
    home.write("outputs.json", "{ \"sum\": 43 }");
    assert_eq!(verified(&["--outputs", "outputs.json"]), Some(12));

    // The key of the first run signs the second.
    let first: Value = serde_json::from_str(&home.read("add.receipt.json")).unwrap();
    outputs(&home.run(&[
        "add.maml.md",
        "-i",
        "a=1",
        "-i",
        "b=2",
        "--receipt",
        "second.json",
    ]));
    let second: Value = serde_json::from_str(&home.read("second.json")).unwrap();
    assert_eq!(first["spec"]["keyId"], second["spec"]["keyId"]);
    assert_ne!(first["spec"]["runId"], second["spec"]["runId"]);
}

#[test]
fn another_machine_does_not_trust_the_receipt_without_the_bundle() {
    let (home, other) = (Home::new(), Home::new());
    home.write("a.maml.md", &python("outputs = {}"));
    outputs(&home.run(&["a.maml.md"]));
    other.write("a.receipt.json", &home.read("a.receipt.json"));
    let verify = |arguments: &[&str]| {
        let arguments = [&["verify", "a.receipt.json"], arguments].concat();
        other.chimera(&arguments).output().unwrap().status.code()
    };
    assert_eq!(verify(&[]), Some(2), "no bundle at all");
    let bundle = home.read("data/chimera/keys/trust.json");
    other.write("trust.json", &bundle);
    assert_eq!(verify(&["--trust", "trust.json"]), Some(0));
    other.write("b.maml.md", &python("outputs = {}"));
    outputs(&other.run(&["b.maml.md"]));
    other.write("other.json", &other.read("data/chimera/keys/trust.json"));
    assert_eq!(verify(&["--trust", "other.json"]), Some(11));
}

#[test]
fn in_place_writes_one_outputs_section_and_a_line_of_history_for_each_run() {
    let home = Home::new();
    let source = python("import random\noutputs = {'n': random.random()}");
    let path = home.write("a.maml.md", &source);
    for count in 1..=2 {
        let output = outputs(&home.run(&["a.maml.md", "--in-place"]));
        let edited = std::fs::read_to_string(&path).unwrap();
        assert_eq!(edited.matches("## Outputs").count(), 1, "{edited}");
        assert_eq!(edited.matches("[EXECUTE]").count(), count, "{edited}");
        assert!(edited.contains(&output["n"].to_string()), "{edited}");
        assert!(edited.starts_with(&source), "{edited}");
    }
    assert_eq!(home.verify("a.receipt.json"), (0, "Success".to_owned()));
    home.chimera(&["lint", "a.maml.md", "--strict"])
        .assert()
        .success();
}

#[test]
fn a_failure_says_where_and_leaves_an_error_receipt() {
    let home = Home::new();
    home.write("a.maml.md", &python("x = 1\nraise ValueError('no such thing')"));
    let output = home.run(&["a.maml.md", "--in-place"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    for expected in ["a.maml.md:15", "ProgramFailed", "ValueError: no such thing"] {
        assert!(text(&output).contains(expected), "{expected}: {}", text(&output));
    }
    assert!(output.stdout.is_empty());
    let (code, result) = home.verify("a.receipt.json");
    assert_eq!(code, 0);
    assert!(result.starts_with("Error"), "{result}");
    assert!(!home.read("a.maml.md").contains("## Outputs"));
}

#[test]
fn outputs_that_break_their_schema_are_an_error() {
    let home = Home::new();
    let sections = "## Code_Blocks\n```python\nn = 'x'\n```\n## Output_Schema\n{\"properties\": {\"n\": {\"type\": \"integer\"}}}\n";
    home.write("a.maml.md", &document(sections));
    let output = home.run(&["a.maml.md"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output).contains("OutputsInvalid") && text(&output).contains("/n"),
        "{}",
        text(&output)
    );
}

#[test]
fn lines_that_a_program_draws_anew_are_shown_once() {
    let home = Home::new();
    home.write(
        "a.maml.md",
        &python("print('10 %\\r20 %', end='\\r\\n')\nprint('end', end='')"),
    );
    let shown = text(&home.run(&["a.maml.md"]));
    assert!(shown.contains("\n20 %\nend\n"), "{shown:?}");
}

#[test]
fn warnings_are_told_and_do_not_keep_a_document_from_running() {
    let home = Home::new();
    home.write(
        "a.maml.md",
        &python("outputs = {}").replace("550e8400", "1g0h8400"),
    );
    let output = home.run(&["a.maml.md"]);
    assert_eq!(outputs(&output), json!({}));
    assert!(text(&output).contains("warning[MAML014]"), "{}", text(&output));
    assert!(!text(&home.run(&["a.maml.md", "--quiet"])).contains("MAML014"));
}

#[test]
fn a_run_that_never_ends_is_stopped_with_exit_code_3() {
    let home = Home::new();
    home.write("a.maml.md", &python("while True: pass"));
    let output = home.run(&["a.maml.md", "--timeout", "1s"]);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output));
    assert!(text(&output).contains("longer than 1 s"), "{}", text(&output));
    assert_eq!(home.verify("a.receipt.json").0, 0);
}

#[test]
fn refused_documents_and_inputs_end_with_2_and_nothing_is_run() {
    let home = Home::new();
    let needs = document(
        "## Code_Blocks\n```python\nopen('ran', 'w')\n```\n## Input_Schema\n{\"required\": [\"a\"], \"properties\": {\"a\": {\"type\": \"integer\"}}}\n",
    );
    home.write("needs.maml.md", &needs);
    home.write(
        "other.maml.md",
        &python("x = 1").replace("agent://*", "agent://bob"),
    );
    home.write(
        "broken.maml.md",
        &python("x = 1").replace("type: workflow", "type: [1]"),
    );
    for (arguments, expected) in [
        (&["needs.maml.md"][..], "\"a\" is a required property"),
        (&["needs.maml.md", "-i", "a=x"], "/a"),
        (&["other.maml.md"], "--act-as"),
        (&["broken.maml.md"], "error[MAML011]"),
        (&["missing.maml.md"], "cannot read missing.maml.md"),
    ] {
        let output = home.run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", text(&output));
        assert!(
            text(&output).contains(expected),
            "{arguments:?}: {}",
            text(&output)
        );
    }
    assert!(!home.path("needs.receipt.json").exists());
    assert!(
        home.run(&["other.maml.md", "--act-as", "agent://bob"])
            .status
            .success()
    );
    let output = home.run(&["broken.maml.md", "--receipt", "refused.json"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(home.verify("refused.json").0, 0);
}

#[test]
fn a_document_on_stdin_runs_and_leaves_nothing_behind() {
    let home = Home::new();
    let output = home
        .chimera(&["run", "-"])
        .write_stdin(python("outputs = {'a': 1}"))
        .output()
        .unwrap();
    assert_eq!(outputs(&output), json!({"a": 1}));
    let left: Vec<_> = std::fs::read_dir(home.0.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(left, ["data"]);
}

#[test]
fn the_program_sees_neither_the_home_nor_the_keys_nor_the_network() {
    let home = Home::new();
    let keys = home.path("data/chimera/keys/signing.pem");
    let code = format!(
        "import os, socket\noutputs = {{}}\nfor name, attempt in {{\n  'keys': lambda: open({keys:?}).read(),\n  \
         'home': lambda: os.listdir({:?}),\n  'write': lambda: open({:?}, 'w'),\n  \
         'socket': lambda: socket.socket(),\n}}.items():\n  try:\n    attempt()\n    outputs[name] = 'reached'\n  \
         except OSError as error:\n    outputs[name] = type(error).__name__\n",
        home.0.path(),
        home.path("written"),
    );
    home.write("probe.maml.md", &python(&code));
    let found = outputs(&home.run(&["probe.maml.md"]));
    let denied = json!("PermissionError");
    assert_eq!(
        found,
        json!({"keys": denied, "home": denied, "write": denied, "socket": denied})
    );
}

#[test]
fn without_a_sandbox_the_receipt_says_so() {
    use base64::Engine as _;
    let home = Home::new();
    home.write("a.maml.md", &python("outputs = {}"));
    outputs(&home.run(&["a.maml.md", "--sandbox=none"]));
    assert_eq!(home.verify("a.receipt.json").0, 0);
    let decode = |text: &str| -> Value {
        let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    };
    let receipt: Value = serde_json::from_str(&home.read("a.receipt.json")).unwrap();
    let envelope: Value = serde_json::from_str(receipt["spec"]["envelope"].as_str().unwrap()).unwrap();
    let statement = decode(envelope["payload"].as_str().unwrap());
    let attestation = statement["predicate"]["runDetails"]["byproducts"]
        .as_array()
        .unwrap()
        .iter()
        .find(|byproduct| byproduct["name"] == "attestation")
        .unwrap()["content"]
        .clone();
    let attested = decode(decode(attestation.as_str().unwrap())["payload"].as_str().unwrap());
    assert_eq!(attested["isolation"]["landlockAbi"], 0);
    assert_eq!(attested["isolation"]["seccomp"], false);
}
