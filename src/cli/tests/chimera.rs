//! The binary as its user meets it, where no cluster is needed.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;

use assert_cmd::Command;
use serde_json::Value;

const GOOD: &str = "---\nmaml_version: \"2.0.0\"\nid: urn:uuid:550e8400-e29b-41d4-a716-446655440000\ntype: workflow\norigin: agent://ann\npermissions: {execute: ['*']}\n---\n## Intent\nAdd.\n## Context\nNone.\n## Code_Blocks\n```python\nx = 1 + 1\n```\n";
const WARNED: &str = "---\nmaml_version: \"2.0.0\"\nid: urn:uuid:nope\ntype: workflow\norigin: agent://ann\npermissions: {execute: ['*']}\n---\n## Intent\nAdd.\n## Context\nNone.\n## Code_Blocks\n```python\nx = 1 + 1\n```\n";
const BAD: &str = "---\nmaml_version: 9\ntype: workflow\n---\n## Intent\nAdd.\n";

fn chimera() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chimera"));
    command.env_remove("KUBECONFIG").env("HOME", "/nonexistent");
    command
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn with(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

#[test]
fn lint_ends_with_what_it_found() {
    for (text, strict, code) in [
        (GOOD, true, 0),
        (WARNED, false, 0),
        (WARNED, true, 2),
        (BAD, false, 2),
        ("", false, 2),
    ] {
        let mut command = chimera();
        command.args(["lint", "-"]).write_stdin(text);
        if strict {
            command.arg("--strict");
        }
        command.assert().code(code);
    }
}

#[test]
fn lint_names_code_line_and_column_of_every_fault() {
    let folder = Folder::with(&[("bad.maml.md", BAD)]);
    let output = chimera()
        .arg("lint")
        .arg(folder.path("bad.maml.md"))
        .assert()
        .code(2)
        .get_output()
        .clone();
    let text = String::from_utf8(output.stdout).unwrap();
    for expected in [
        "error[MAML012]",
        "error[MAML010]",
        "error[MAML040]",
        "bad.maml.md:2:15",
        "help:",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert!(!text.contains('\u{1b}'), "no escape codes in a pipe");
}

#[test]
fn no_color_is_obeyed_even_when_colour_is_forced() {
    let output = chimera()
        .args(["lint", "-"])
        .env("NO_COLOR", "1")
        .write_stdin(BAD)
        .output()
        .unwrap();
    assert!(!output.stdout.contains(&0x1b) && !output.stderr.contains(&0x1b));
}

#[test]
fn a_document_cannot_control_the_terminal() {
    let text = GOOD
        .replace("type: workflow", "type: workflow\n\"\\e]0;own\\a\\e[2J\": 1")
        .replace("x = 1", "\u{1b}[2Jx = 1");
    for arguments in [["lint", "-"], ["submit", "-"]] {
        let output = chimera()
            .args(arguments)
            .env("CLICOLOR_FORCE", "1")
            .write_stdin(text.clone())
            .output()
            .unwrap();
        let shown = [output.stdout, output.stderr].concat();
        let shown = String::from_utf8(shown).unwrap();
        assert!(
            !shown.contains("\u{1b}]") && !shown.contains("\u{1b}[2J"),
            "{shown:?}"
        );
    }
}

#[test]
fn json_and_sarif_are_valid_and_complete() {
    let folder = Folder::with(&[("bad.maml.md", BAD), ("good.maml.md", GOOD)]);
    let lint = |format: &str| -> Value {
        let output = chimera()
            .args(["lint", "--format", format])
            .args([folder.path("good.maml.md"), folder.path("bad.maml.md")])
            .assert()
            .code(2)
            .get_output()
            .clone();
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let json = lint("json");
    assert_eq!(json[0]["diagnostics"], Value::Array(Vec::new()));
    assert_eq!(json[1]["diagnostics"][0]["start"]["line"], 1);
    let sarif = lint("sarif");
    assert_eq!(sarif["version"], "2.1.0");
    // As OASIS publishes it, without descriptions; one of its patterns has a stray bracket.
    let schema = include_str!("sarif-2.1.0.schema.json").replace("[a-zA-Z]{2}]?$", "[a-zA-Z]{2}$");
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let violations: Vec<String> = jsonschema::validator_for(&schema)
        .unwrap()
        .iter_errors(&sarif)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert_eq!(violations, Vec::<String>::new());
    let results = sarif["runs"][0]["results"].as_array().unwrap();
    assert_eq!(results.len(), json[1]["diagnostics"].as_array().unwrap().len());
    for result in results {
        let rule = usize::try_from(result["ruleIndex"].as_u64().unwrap()).unwrap();
        assert_eq!(
            sarif["runs"][0]["tool"]["driver"]["rules"][rule]["id"],
            result["ruleId"]
        );
    }
}

#[test]
fn a_missing_file_and_bytes_that_are_no_text_are_errors_with_a_sentence() {
    let output = chimera()
        .args(["lint", "missing.maml.md"])
        .assert()
        .code(2)
        .get_output()
        .clone();
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .starts_with("error: cannot read missing.maml.md")
    );
    chimera()
        .args(["lint", "-"])
        .write_stdin(vec![0xff, 0xfe])
        .assert()
        .code(2);
}

#[test]
fn explain_knows_codes_and_reasons() {
    for code in ["MAML012", "maml012", "NoHead"] {
        chimera().args(["explain", code]).assert().success();
    }
    chimera().args(["explain", "MAML000"]).assert().code(2);
    let output = chimera()
        .args(["explain", "-o", "json"])
        .assert()
        .success()
        .get_output()
        .clone();
    let all: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(all.as_array().unwrap().len() > 50);
}

#[test]
fn a_mirror_goes_back_and_is_checked() {
    let folder = Folder::with(&[("good.maml.md", GOOD), ("other.maml.md", WARNED)]);
    let source = folder.path("good.maml.md");
    let chimera = || {
        let mut command = chimera();
        command.env("XDG_DATA_HOME", folder.path("data"));
        command
    };
    let mirrored = chimera()
        .arg("mu")
        .arg(&source)
        .assert()
        .success()
        .get_output()
        .stdout
        .clone();
    let mu = folder.path("good.mu");
    std::fs::write(&mu, &mirrored).unwrap();
    let back = chimera()
        .args(["mu", "--reverse"])
        .arg(&mu)
        .assert()
        .success()
        .get_output()
        .stdout
        .clone();
    assert_eq!(back, GOOD.as_bytes());
    chimera()
        .args(["mu", "--check"])
        .arg(&mu)
        .arg("--source")
        .arg(&source)
        .assert()
        .success();
    chimera()
        .args(["mu", "--check"])
        .arg(&mu)
        .arg("--source")
        .arg(folder.path("other.maml.md"))
        .assert()
        .code(12);
    let check = |text: &[u8]| {
        std::fs::write(&mu, text).unwrap();
        let mut command = chimera();
        command
            .args(["mu", "--check"])
            .arg(&mu)
            .arg("--source")
            .arg(&source);
        command.output().unwrap().status.code()
    };
    let text = String::from_utf8(mirrored.clone()).unwrap();
    assert_eq!(check(&mirrored[..mirrored.len() - 1]), Some(12));
    assert_eq!(
        check(text.replace("type: \"receipt", "type: \"error").as_bytes()),
        Some(10)
    );
    let key = text.lines().find(|line| line.starts_with("signer")).unwrap();
    assert_eq!(
        check(text.replace(&key[9..19], "0000000000").as_bytes()),
        Some(2),
        "nobody's key"
    );
    let unsigned = chimera()
        .args(["mu", "--unsigned"])
        .arg(&source)
        .output()
        .unwrap();
    assert_eq!(check(&unsigned.stdout), Some(0));
    chimera().args(["mu", "--reverse"]).arg(&source).assert().code(2);
}

#[test]
fn submit_refuses_an_invalid_document_before_it_asks_the_cluster() {
    let output = chimera()
        .args(["submit", "-"])
        .write_stdin(BAD)
        .assert()
        .code(2)
        .get_output()
        .clone();
    assert!(output.stdout.is_empty());
    assert!(String::from_utf8(output.stderr).unwrap().contains("MAML012"));
}

#[test]
fn a_dry_run_prints_the_workflow() {
    let output = chimera()
        .args([
            "submit",
            "-",
            "--dry-run",
            "--name",
            "a",
            "-i",
            "x=1",
            "-o",
            "json",
            "--act-as",
            "agent://ann",
        ])
        .write_stdin(GOOD)
        .assert()
        .success()
        .get_output()
        .clone();
    let workflow: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(workflow["kind"], "MamlWorkflow");
    assert_eq!(workflow["spec"]["inputs"]["x"], 1);
    assert_eq!(workflow["spec"]["actAs"], "agent://ann");
    assert_eq!(workflow["spec"]["source"]["inline"], GOOD);
    assert!(workflow["spec"].get("submitter").is_none());
}

#[test]
fn without_a_cluster_the_error_says_what_to_do() {
    let output = chimera()
        .args(["status", "a"])
        .assert()
        .failure()
        .get_output()
        .clone();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.starts_with("error: ") && text.contains("\nhint: "), "{text}");
}

#[test]
fn completion_and_help_name_every_verb() {
    for shell in ["bash", "zsh", "fish"] {
        let output = chimera()
            .args(["completion", shell])
            .assert()
            .success()
            .get_output()
            .clone();
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(
            script.contains("COMPLETE") && script.contains("chimera"),
            "{script}"
        );
    }
    for (words, offered) in [
        (&["chimera", "sub"][..], "submit"),
        (&["chimera", "why", "--names"], "--namespace"),
        (&["chimera", "verify", "m"], "mur/"),
    ] {
        let output = chimera()
            .env("COMPLETE", "fish")
            .arg("--")
            .args(words)
            .assert()
            .success();
        let candidates = String::from_utf8(output.get_output().stdout.clone()).unwrap();
        assert!(
            candidates
                .lines()
                .any(|line| line.split('\t').next() == Some(offered)),
            "{words:?}: {candidates}"
        );
    }
    // Where no cluster answers, there are no names and no complaints.
    let output = chimera()
        .env("COMPLETE", "fish")
        .env("KUBECONFIG", "/nowhere")
        .args(["--", "chimera", "why", ""])
        .assert()
        .success();
    assert!(output.get_output().stderr.is_empty());
    let output = chimera().arg("--help").assert().success().get_output().clone();
    let help = String::from_utf8(output.stdout).unwrap();
    for verb in [
        "lint",
        "explain",
        "mu",
        "submit",
        "status",
        "logs",
        "why",
        "events",
        "cancel",
        "completion",
    ] {
        assert!(help.contains(&format!("\n  {verb} ")), "{verb}");
    }
}

#[test]
fn fmt_writes_the_canonical_form_once_and_check_agrees() {
    let folder = Folder::with(&[("a.maml.md", GOOD), ("b.maml.md", WARNED)]);
    let fmt = |arguments: &[&str]| {
        chimera()
            .arg("fmt")
            .args(arguments)
            .arg(folder.0.path())
            .output()
            .unwrap()
    };
    let found = fmt(&["--check"]);
    assert_eq!(found.status.code(), Some(1));
    assert_eq!(String::from_utf8(found.stdout).unwrap().lines().count(), 2);
    assert_eq!(std::fs::read_to_string(folder.path("a.maml.md")).unwrap(), GOOD);
    assert_eq!(fmt(&[]).status.code(), Some(0));
    let formatted = std::fs::read_to_string(folder.path("a.maml.md")).unwrap();
    assert!(
        formatted.contains("---\n\n## Intent\n\nAdd.\n\n## Context\n"),
        "{formatted}"
    );
    assert_eq!(fmt(&["--check"]).status.code(), Some(0));
    let listed: Value = serde_json::from_slice(&fmt(&["--check", "-o", "json"]).stdout).unwrap();
    assert_eq!(listed[1]["state"], "canonical");
    let piped = chimera().args(["fmt", "-"]).write_stdin(GOOD).output().unwrap();
    assert_eq!(String::from_utf8(piped.stdout).unwrap(), formatted);
}

#[test]
fn fmt_leaves_what_it_cannot_read_and_does_the_rest() {
    let broken = "no front matter\n";
    let folder = Folder::with(&[("a.maml.md", broken), ("b.maml.md", GOOD)]);
    let output = chimera().arg("fmt").arg(folder.0.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("MAML002"));
    assert_eq!(std::fs::read_to_string(folder.path("a.maml.md")).unwrap(), broken);
    assert_ne!(std::fs::read_to_string(folder.path("b.maml.md")).unwrap(), GOOD);
}

#[test]
fn lint_reads_the_documents_of_a_folder_and_goes_on_after_one_that_it_cannot_read() {
    let folder = Folder::with(&[("a.maml.md", GOOD), ("notes.txt", "x")]);
    std::fs::create_dir(folder.path("deeper")).unwrap();
    std::fs::write(folder.path("deeper/b.MAML.ml"), BAD).unwrap();
    std::fs::write(folder.path("deeper/c.maml.md"), [0xff]).unwrap();
    let output = chimera()
        .args(["lint", "-o", "json"])
        .arg(folder.0.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
    let reports: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(reports.as_array().unwrap().len(), 2);
    assert!(
        String::from_utf8(output.stderr)
            .unwrap()
            .contains("c.maml.md is not UTF-8")
    );
    let nothing = tempfile::tempdir().unwrap();
    chimera().arg("lint").arg(nothing.path()).assert().code(2);
}
