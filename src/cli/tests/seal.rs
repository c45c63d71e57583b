//! `chimera seal` and `chimera submit --seal` as a user or a script calls them: a bundle in a file, no cluster.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

use std::fs;
use std::path::PathBuf;

use assert_cmd::Command;
use crypto::kem::DecapsulationKey;
use crypto::seal::{Binding, Run, Sealed};
use crypto::trust::Bundle;
use crypto::{KeyPurpose, KeyStatement, SigningKey, Suite};
use serde_json::{Value, json};

const DOCUMENT: &str = "---\nmaml_version: \"2.0.0\"\nid: urn:uuid:550e8400-e29b-41d4-a716-446655440000\ntype: workflow\norigin: agent://ann\npermissions: {execute: ['*']}\n---\n## Intent\nAdd.\n## Context\nNone.\n## Code_Blocks\n```python\nx = 1 + 1\n```\n## Input_Schema\n{\"required\": [\"password\"], \"properties\": {\"password\": {\"type\": \"string\"}}}\n";
const FOR_REPORT: [&str; 6] = ["-n", "team", "--workflow", "report", "--trust", "trust.json"];

/// A user's home and working folder, and the cluster's keys.
struct Desk(tempfile::TempDir);

impl Desk {
    /// With a bundle that vouches for the sealing keys of these seeds, oldest first.
    fn trusting(seeds: &[u8]) -> Self {
        let desk = Self(tempfile::tempdir().unwrap());
        desk.trust(seeds);
        desk.write("hello.maml.md", DOCUMENT);
        desk
    }

    fn trust(&self, seeds: &[u8]) {
        let root = SigningKey::generate(Suite::MlDsa87).unwrap();
        let statements = seeds.iter().enumerate().map(|(index, seed)| {
            let start = format!("2026-01-0{}T00:00:00Z", index + 1).parse().unwrap();
            let key = cluster_key(*seed);
            let about = key.encapsulation_key();
            KeyStatement::about(about, KeyPurpose::Sealing, start, None, None, 0)
                .sign(&root)
                .unwrap()
        });
        let bundle = Bundle::new(root.verifying_key(), statements.collect());
        self.write("trust.json", bundle.to_json());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).unwrap();
    }

    fn chimera(&self, args: &[&str]) -> Command {
        let mut command = Command::cargo_bin("chimera").unwrap();
        command
            .current_dir(self.0.path())
            .env_clear()
            .env("HOME", self.0.path())
            .args(args);
        command
    }

    /// Exit code, stdout and stderr.
    fn run(&self, args: &[&str]) -> (i32, String, String) {
        let output = self.chimera(args).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (
            output.status.code().unwrap(),
            text(output.stdout),
            text(output.stderr),
        )
    }

    /// The stdout of a command that succeeds.
    fn stdout(&self, args: &[&str]) -> String {
        let (code, stdout, stderr) = self.run(args);
        assert_eq!(code, 0, "{args:?}: {stderr}");
        stdout
    }

    fn seal(&self, args: &[&str]) -> String {
        self.stdout(&[&["seal"], args, &FOR_REPORT[..]].concat())
    }
}

fn cluster_key(seed: u8) -> DecapsulationKey {
    DecapsulationKey::from_seed(&[seed; 64]).unwrap()
}

/// What the operator finds in a text for `team/report`.
fn opened(text: &str, seed: u8) -> Value {
    let run = Run {
        namespace: "team",
        workflow: "report",
        document: DOCUMENT.as_bytes(),
    };
    let sealed = Sealed::from_json(text.as_bytes()).unwrap();
    serde_json::from_slice(&sealed.open_for(&run, &cluster_key(seed)).unwrap().plaintext).unwrap()
}

#[test]
fn inputs_from_arguments_files_and_stdin_are_sealed_for_operator_and_owner() {
    let desk = Desk::trusting(&[1]);
    desk.write("password", "hunter2\n");
    desk.write("more.yaml", "user: ann\n");
    let args = [
        "seal",
        "-i",
        "n=1",
        "-i",
        "password=@password",
        "-i",
        "token=@-",
        "--inputs",
        "more.yaml",
    ];
    let output = desk
        .chimera(&[&args, &FOR_REPORT[..]].concat())
        .write_stdin("t0ken")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let expected = json!({"n": 1, "password": "hunter2", "token": "t0ken", "user": "ann"});
    assert!(!text.contains("hunter2") && text.lines().count() == 1, "{text}");
    assert_eq!(opened(&text, 1), expected);

    desk.write("sealed", &text);
    let own: Value = serde_json::from_str(&desk.stdout(&["seal", "--open", "sealed"])).unwrap();
    assert_eq!(own, expected);
    let stranger = Desk::trusting(&[1]);
    stranger.write("sealed", &text);
    let (code, stdout, stderr) = stranger.run(&["seal", "--open", "sealed"]);
    assert_eq!((code, &*stdout), (1, ""));
    assert!(stderr.contains("is not sealed for key"), "{stderr}");
}

#[test]
fn a_text_is_ready_to_stand_in_a_workflow() {
    let desk = Desk::trusting(&[1]);
    let yaml = desk.seal(&["-i", "a=1", "-o", "yaml"]);
    let value: Value = serde_saphyr::from_str(&yaml).unwrap();
    assert_eq!(
        opened(value["spec"]["sealedInputs"].as_str().unwrap(), 1),
        json!({"a": 1})
    );
    let value: Value = serde_json::from_str(&desk.seal(&["-i", "a=1", "-o", "json"])).unwrap();
    assert_eq!(
        opened(value["spec"]["sealedInputs"].as_str().unwrap(), 1),
        json!({"a": 1})
    );
}

#[test]
fn the_owner_moves_a_text_on_across_several_rotations() {
    let desk = Desk::trusting(&[1]);
    let first = desk.seal(&["-i", "a=1", "--document", "hello.maml.md"]);
    desk.write("sealed", &first);
    desk.trust(&[1, 2, 3]);
    let moved = desk.stdout(&["seal", "--rewrap", "sealed", "--trust", "trust.json"]);
    assert_eq!(opened(&moved, 3), json!({"a": 1}));
    let sealed = |text: &str| Sealed::from_json(text.as_bytes()).unwrap();
    assert!(
        sealed(&moved).open(&cluster_key(1)).is_err(),
        "the old key opens it no more"
    );
    assert_eq!(sealed(&moved).digest(), sealed(&first).digest());
    assert_eq!(
        sealed(&moved).header().binding(),
        &Binding::new("team", "report", Some(DOCUMENT.as_bytes()))
    );
    // From stdin too, and what was moved can be moved again.
    desk.trust(&[1, 2, 3, 4]);
    let output = desk
        .chimera(&["seal", "--rewrap", "-", "--trust", "trust.json"])
        .write_stdin(moved)
        .output();
    assert_eq!(
        opened(&String::from_utf8(output.unwrap().stdout).unwrap(), 4),
        json!({"a": 1})
    );
}

#[test]
fn without_an_own_key_nobody_but_the_operator_opens_or_moves_a_text() {
    let desk = Desk::trusting(&[1]);
    let text = desk.seal(&["-i", "a=1", "--no-own-key"]);
    assert!(!desk.path(".local").exists(), "no key is made that is not used");
    assert_eq!(opened(&text, 1), json!({"a": 1}));
    desk.write("sealed", text);
    for verb in ["--open", "--rewrap"] {
        let (code, _, stderr) = desk.run(&["seal", verb, "sealed", "--trust", "trust.json"]);
        assert!(
            code == 1 && stderr.contains("is not sealed for key"),
            "{verb}: {stderr}"
        );
    }
}

#[test]
fn large_files_come_back_whole_or_not_at_all() {
    let desk = Desk::trusting(&[1]);
    let content: Vec<u8> = (0..300_000_u32).map(|i| i.to_le_bytes()[1]).collect();
    desk.write("big.bin", &content);
    desk.seal(&["--file", "big.bin", "--out", "big.sealed"]);
    desk.stdout(&["seal", "--open", "big.sealed", "--out", "back.bin"]);
    assert_eq!(fs::read(desk.path("back.bin")).unwrap(), content);

    desk.trust(&[2]);
    desk.stdout(&[
        "seal",
        "--rewrap",
        "big.sealed",
        "--trust",
        "trust.json",
        "--out",
        "big.sealed",
    ]);
    let file = fs::read(desk.path("big.sealed")).unwrap();
    let mut plain = Vec::new();
    crypto::seal::open_file(&mut &*file, &mut plain, &cluster_key(2)).unwrap();
    assert_eq!(plain, content);

    desk.write("cut.sealed", &file[..file.len() - 20_000]);
    let (code, _, stderr) = desk.run(&["seal", "--open", "cut.sealed", "--out", "cut.bin"]);
    assert!(code == 1 && stderr.contains("cut off"), "{stderr}");
    assert!(!desk.path("cut.bin").exists());
    let left = fs::read_dir(desk.0.path()).unwrap();
    let left = left.filter(|entry| {
        entry
            .as_ref()
            .unwrap()
            .file_name()
            .to_string_lossy()
            .starts_with(".chimera")
    });
    assert_eq!(left.count(), 0, "nothing half is left behind");
}

#[test]
fn submit_seals_for_the_name_and_document_that_it_submits() {
    let desk = Desk::trusting(&[1]);
    let args = [
        "submit",
        "hello.maml.md",
        "--dry-run",
        "--name",
        "report",
        "-n",
        "team",
        "--trust",
        "trust.json",
    ];
    let dry = desk.stdout(&[&args[..], &["--seal", "password=hunter2"]].concat());
    assert!(!dry.contains("hunter2"));
    let workflow: Value = serde_saphyr::from_str(&dry).unwrap();
    let text = workflow["spec"]["sealedInputs"].as_str().unwrap();
    assert_eq!(opened(text, 1), json!({"password": "hunter2"}));
    assert_eq!(
        Sealed::from_json(text.as_bytes()).unwrap().header().binding(),
        &Binding::new("team", "report", Some(DOCUMENT.as_bytes()))
    );
    // What breaks the schema is refused here, and not quoted.
    let (code, _, stderr) = desk.run(&[&args[..], &["--seal", "password=271828"]].concat());
    assert!(
        code == 2 && !stderr.contains("271828") && stderr.contains("/properties/password/type"),
        "{stderr}"
    );
    let (code, _, stderr) = desk.run(&[&args[..], &["--seal", "password=a", "-i", "password=b"]].concat());
    assert!(code == 2 && stderr.contains("given twice"), "{stderr}");
}

#[test]
fn submit_takes_a_sealed_text_and_the_name_in_it() {
    let desk = Desk::trusting(&[1]);
    desk.write("sealed", desk.seal(&["-i", "password=x"]));
    let args = [
        "submit",
        "hello.maml.md",
        "--dry-run",
        "-n",
        "team",
        "--sealed-inputs",
        "sealed",
    ];
    let workflow: Value = serde_saphyr::from_str(&desk.stdout(&args)).unwrap();
    assert_eq!(workflow["metadata"]["name"], "report");
    assert_eq!(
        opened(workflow["spec"]["sealedInputs"].as_str().unwrap(), 1),
        json!({"password": "x"})
    );
    let (code, _, stderr) = desk.run(&[&args[..], &["--name", "other"]].concat());
    assert!(
        code == 2 && stderr.contains("sealed for workflow report"),
        "{stderr}"
    );
}

#[test]
fn what_cannot_be_sealed_is_an_error_that_says_why() {
    let desk = Desk::trusting(&[]);
    let none = desk.run(&[&["seal", "-i", "a=1"], &FOR_REPORT[..]].concat());
    assert!(
        none.0 == 1 && none.2.contains("names no sealing key for namespace team"),
        "{}",
        none.2
    );
    desk.trust(&[1]);
    let nothing = desk.run(&[&["seal"], &FOR_REPORT[..]].concat());
    assert!(
        nothing.0 == 2 && nothing.2.contains("nothing to seal"),
        "{}",
        nothing.2
    );
    let nameless = desk.run(&["seal", "-i", "a=1", "-n", "team", "--trust", "trust.json"]);
    assert!(
        nameless.0 == 2 && nameless.2.contains("--workflow"),
        "{}",
        nameless.2
    );
    desk.write("text", "hello");
    let foreign = desk.run(&["seal", "--open", "text"]);
    assert_eq!(foreign.0, 2, "{}", foreign.2);
    let bundle = fs::read_to_string(desk.path("trust.json")).unwrap();
    desk.write(
        "trust.json",
        bundle
            .replacen("\"sig\": \"A", "\"sig\": \"B", 1)
            .replacen("\"sig\": \"", "\"sig\": \"AAAA", 1),
    );
    let bent = desk.run(&[&["seal", "-i", "a=1"], &FOR_REPORT[..]].concat());
    assert_ne!(bent.0, 0, "{}", bent.2);
}
