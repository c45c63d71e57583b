//! `chimera verify` as a user or a script calls it: real receipts in files, no cluster, and the exit codes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

#[path = "../../crypto/tests/sample/receipt.rs"]
#[allow(dead_code, reason = "each test uses a part of the sample")]
mod sample;

use std::fs;
use std::path::PathBuf;

use assert_cmd::Command;
use crypto::DigestSet;
use crypto::receipt::{Statement, parse};
use sample::Sample;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder with a receipt, its trust bundle, its document and its outputs, and an empty home.
struct Desk {
    folder: TempDir,
    sample: Sample,
}

impl Desk {
    fn new(sample: Sample) -> Self {
        let desk = Self {
            folder: tempfile::tempdir().unwrap(),
            sample,
        };
        desk.write("receipt.json", desk.sample.file());
        desk.write("trust.json", desk.sample.bundle.to_json());
        desk.write("hello.maml.md", sample::DOCUMENT);
        desk.write("outputs.json", sample::OUTPUTS);
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).unwrap();
    }

    fn chimera(&self, args: &[&str]) -> Command {
        let mut command = Command::cargo_bin("chimera").unwrap();
        command
            .current_dir(self.folder.path())
            .env_clear()
            .env("HOME", self.folder.path())
            .args(args);
        command
    }

    /// Exit code, stdout and stderr of `chimera verify`.
    fn verify(&self, args: &[&str]) -> (i32, String, String) {
        let output = self.chimera(&[&["verify"], args].concat()).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (
            output.status.code().unwrap(),
            text(output.stdout),
            text(output.stderr),
        )
    }

    fn root(&self) -> String {
        self.sample.root.verifying_key().key_id().to_string()
    }
}

/// The envelope's text with one character of a field replaced.
fn bent(file: &[u8], field: &str, offset: usize) -> Vec<u8> {
    let text = std::str::from_utf8(file).unwrap();
    let start = text.find(&format!("\"{field}\":\"")).unwrap() + field.len() + 4 + offset;
    let mut bytes = file.to_vec();
    bytes[start] = if bytes[start] == b'A' { b'B' } else { b'A' };
    bytes
}

#[test]
fn a_sound_receipt_verifies_without_cluster_and_prints_every_check() {
    let desk = Desk::new(Sample::success());
    let root = desk.root();
    let (code, out, err) = desk.verify(&[
        "receipt.json",
        "--trust",
        "trust.json",
        "--root",
        &root,
        "--document",
        "hello.maml.md",
        "--outputs",
        "outputs.json",
    ]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.ends_with("verdict: valid\n"), "{out}");
    for check in [
        "envelope",
        "root",
        "bundle",
        "signature",
        "validity",
        "grant",
        "attestation",
        "document",
        "outputs",
    ] {
        assert!(
            out.lines()
                .any(|line| line.starts_with("ok ") && line.contains(check)),
            "{check} in {out}"
        );
    }
    let stdin = desk
        .chimera(&["verify", "-", "--trust", "trust.json"])
        .write_stdin(desk.sample.file())
        .output()
        .unwrap();
    assert_eq!(stdin.status.code(), Some(0));
}

#[test]
fn json_tells_the_same_to_programs() {
    let desk = Desk::new(Sample::refused());
    let (code, out, _) = desk.verify(&["receipt.json", "--trust", "trust.json", "-o", "json"]);
    let value: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &value["verdict"], &value["exitCode"]),
        (0, &json!("valid"), &json!(0))
    );
    assert!(
        value["checks"]
            .as_array()
            .unwrap()
            .iter()
            .all(|check| check["passed"] == true)
    );
    let internal = &value["statement"]["predicate"]["buildDefinition"]["internalParameters"];
    assert_eq!(internal["error"]["code"], "MAML010");
}

#[test]
fn a_changed_byte_of_payload_or_signature_ends_with_10() {
    let desk = Desk::new(Sample::success());
    for (field, offset) in [("payload", 0), ("payload", 9000), ("sig", 0), ("sig", 4000)] {
        desk.write("bent.json", bent(&desk.sample.file(), field, offset));
        let (code, out, _) = desk.verify(&["bent.json", "--trust", "trust.json"]);
        assert_eq!(code, 10, "{field} {offset}: {out}");
        assert!(out.ends_with("verdict: bad signature\n"), "{out}");
    }
}

#[test]
fn another_root_or_another_key_ends_with_11() {
    let desk = Desk::new(Sample::success());
    let other = sample::key(9);
    let (code, out, _) = desk.verify(&[
        "receipt.json",
        "--trust",
        "trust.json",
        "--root",
        other.verifying_key().key_id().as_str(),
    ]);
    assert_eq!(code, 11, "{out}");
    desk.write("other.pem", other.verifying_key().spki_pem());
    assert_eq!(
        desk.verify(&["receipt.json", "--trust", "trust.json", "--root", "other.pem"])
            .0,
        11
    );
    desk.write("root.pem", desk.sample.root.verifying_key().spki_pem());
    assert_eq!(
        desk.verify(&["receipt.json", "--trust", "trust.json", "--root", "root.pem"])
            .0,
        0
    );

    let text = String::from_utf8(desk.sample.file()).unwrap();
    let own = desk.sample.signing.verifying_key().key_id().as_str();
    for seed in [3, 9] {
        desk.write(
            "named.json",
            text.replace(own, sample::key(seed).verifying_key().key_id().as_str()),
        );
        assert_eq!(desk.verify(&["named.json", "--trust", "trust.json"]).0, 11);
    }
    let mut foreign = sample::bundle(&other);
    foreign.root = desk.sample.bundle.root.clone();
    desk.write("foreign.json", foreign.to_json());
    assert_eq!(desk.verify(&["receipt.json", "--trust", "foreign.json"]).0, 11);
}

#[test]
fn another_document_or_other_outputs_end_with_12() {
    let desk = Desk::new(Sample::success());
    for (flag, file) in [("--document", "outputs.json"), ("--outputs", "hello.maml.md")] {
        let (code, out, _) = desk.verify(&["receipt.json", "--trust", "trust.json", flag, file]);
        assert_eq!(code, 12, "{out}");
        assert!(out.ends_with("verdict: digest mismatch\n"), "{out}");
    }
}

#[test]
fn no_receipt_ends_with_13_and_what_is_none_with_2() {
    let desk = Desk::new(Sample::success());
    let (code, out, err) = desk.verify(&["missing.json", "--trust", "trust.json"]);
    assert_eq!((code, out.as_str()), (13, ""));
    assert!(err.contains("missing.json") && err.contains("hint"), "{err}");
    for file in ["hello.maml.md", "trust.json", "outputs.json"] {
        assert_eq!(desk.verify(&[file, "--trust", "trust.json"]).0, 2, "{file}");
    }
    assert_eq!(desk.verify(&["receipt.json", "--trust", "receipt.json"]).0, 2);
    let (code, _, err) = desk.verify(&["receipt.json"]);
    assert_eq!(code, 2);
    assert!(err.contains("chimera trust pin"), "{err}");
    assert_eq!(
        desk.verify(&["receipt.json", "--trust", "trust.json", "--root", "nothing"])
            .0,
        2
    );
    assert_eq!(
        desk.verify(&["receipt.json", "--trust", "trust.json", "--document", "nothing"])
            .0,
        2
    );
}

#[test]
fn a_pinned_bundle_is_used_without_being_named() {
    let desk = Desk::new(Sample::success());
    let pinned = desk
        .chimera(&["trust", "pin", "--trust", "trust.json"])
        .output()
        .unwrap();
    assert_eq!(pinned.status.code(), Some(0));
    assert_eq!(String::from_utf8(pinned.stdout).unwrap().trim(), desk.root());
    assert_eq!(desk.verify(&["receipt.json"]).0, 0);
    desk.write("other.json", sample::bundle(&sample::key(9)).to_json());
    assert_eq!(
        desk.chimera(&["trust", "pin", "--trust", "other.json"])
            .output()
            .unwrap()
            .status
            .code(),
        Some(11)
    );
    assert_eq!(desk.verify(&["receipt.json"]).0, 0);
    let shown = desk
        .chimera(&["trust", "show", "--trust", "trust.json", "-o", "json"])
        .output()
        .unwrap();
    let value: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(value["root"]["keyId"], desk.root());
    assert_eq!(value["keys"].as_array().unwrap().len(), 3);
    let table = desk
        .chimera(&["trust", "show", "--trust", "trust.json"])
        .output()
        .unwrap();
    assert!(String::from_utf8(table.stdout).unwrap().contains("Sealing"));
}

#[test]
fn many_receipts_have_a_line_each_in_their_order_and_are_counted() {
    let desk = Desk::new(Sample::success());
    let file = desk.sample.file();
    fs::create_dir_all(desk.path("many/deeper/.hidden")).unwrap();
    for name in [
        "b.json",
        "a.json",
        "deeper/c.json",
        "deeper/.hidden/d.json",
        "notes.txt",
    ] {
        desk.write(&format!("many/{name}"), &file);
    }
    let (code, out, err) = desk.verify(&["many", "--trust", "trust.json"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert_eq!(
        out,
        "ok    many/a.json  valid\nok    many/b.json  valid\nok    many/deeper/c.json  valid\n\n3 receipts: 3 valid\n"
    );

    desk.write("bent.json", bent(&file, "payload", 500));
    desk.write("refused.json", Sample::refused().file());
    let receipts = [
        "missing.json",
        "receipt.json",
        "bent.json",
        "refused.json",
        "outputs.json",
    ];
    let with = |more: &[&str]| desk.verify(&[&receipts[..], &["--trust", "trust.json"], more].concat());
    let (code, out, _) = with(&["--jobs", "2"]);
    assert_eq!(code, 13, "that of the first that is not valid: {out}");
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines[0].starts_with("FAIL  missing.json  no receipt"), "{out}");
    assert!(
        lines[1].starts_with("      cannot read the receipt missing.json"),
        "{out}"
    );
    assert_eq!(lines[2], "ok    receipt.json  valid");
    assert_eq!(lines[3], "FAIL  bent.json  bad signature");
    assert!(lines[4].starts_with("      FAIL  signature"), "{out}");
    assert_eq!(lines[5], "ok    refused.json  valid");
    assert_eq!(lines[6], "FAIL  outputs.json  not a receipt");
    assert!(
        out.ends_with("\n\n5 receipts: 2 valid, 1 not a receipt, 1 bad signature, 1 no receipt\n"),
        "{out}"
    );
    let (_, verbose, _) = with(&["-v"]);
    assert!(verbose.contains("      ok    attestation"), "{verbose}");
    assert_eq!(with(&["--jobs", "1"]).1, out);
    assert_eq!(with(&["--jobs", "0"]).0, 2);

    let (code, out, _) = with(&["-o", "json"]);
    let list: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, 13);
    let told: Vec<(&Value, &Value, &Value)> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (&one["receipt"], &one["exitCode"], &one["verdict"]))
        .collect();
    assert_eq!(
        told,
        [
            (&json!("missing.json"), &json!(13), &Value::Null),
            (&json!("receipt.json"), &json!(0), &json!("valid")),
            (&json!("bent.json"), &json!(10), &json!("badSignature")),
            (&json!("refused.json"), &json!(0), &json!("valid")),
            (&json!("outputs.json"), &json!(2), &json!("notAReceipt")),
        ]
    );
    assert!(list[0]["error"].as_str().unwrap().contains("missing.json"));
    assert_eq!(list[1]["checks"][0]["name"], "envelope");
}

#[test]
fn hundreds_of_receipts_from_files_and_standard_input_are_verified_in_their_order() {
    let desk = Desk::new(Sample::success());
    let file = desk.sample.file();
    let names: Vec<String> = (0..300).map(|number| format!("{number}.json")).collect();
    for name in &names {
        desk.write(name, &file);
    }
    let arguments: Vec<&str> = ["verify", "-", "--trust", "trust.json"]
        .into_iter()
        .chain(names.iter().map(String::as_str))
        .collect();
    let output = desk.chimera(&arguments).write_stdin(file).output().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{out}");
    let shown = out.lines().filter_map(|line| line.split_whitespace().nth(1));
    let expected = ["-"].into_iter().chain(names.iter().map(String::as_str));
    assert!(shown.take(301).eq(expected));
    assert!(out.ends_with("\n301 receipts: 301 valid\n"), "{out}");
    assert_eq!(desk.verify(&["-", "-", "--trust", "trust.json"]).0, 2);
}

#[test]
fn a_file_that_is_far_too_large_is_refused_without_being_read() {
    let desk = Desk::new(Sample::success());
    let huge = fs::File::create(desk.path("huge.json")).unwrap();
    huge.set_len(1 << 30).unwrap();
    let (code, _, err) = desk.verify(&["huge.json", "--trust", "trust.json"]);
    assert_eq!(code, 2);
    assert!(err.contains("larger than 16 MiB"), "{err}");
    let (code, out, _) = desk.verify(&["receipt.json", "huge.json", "--trust", "trust.json"]);
    assert_eq!(code, 2);
    assert!(out.contains("FAIL  huge.json  not verified\n"), "{out}");
    assert!(out.contains("larger than 16 MiB"), "{out}");
}

/// The MuReceipt that the controller would write.
fn object(sample: &Sample) -> Value {
    let envelope = sample.envelope();
    let statement: Statement = parse(&envelope).unwrap();
    let external = statement.external();
    let digest = |digest: &DigestSet| json!({"sha256": digest.sha256, "blake3": digest.blake3});
    let source = std::str::from_utf8(sample::DOCUMENT).unwrap();
    let header = maml::mirror::Header::of(
        "receipt",
        "urn:uuid:5b0fd1f8-6f0d-4a6c-9b43-3f8a8e8d4f10",
        source,
        &external.document.blake3,
        "2026-03-01T12:00:00Z",
    );
    json!({
        "apiVersion": "chimera.dunes.io/v1alpha1",
        "kind": "MuReceipt",
        "metadata": {"name": "hello-0123456789", "namespace": "team"},
        "spec": {
            "workflowRef": {
                "name": external.workflow.name,
                "uid": external.workflow.uid,
                "generation": external.workflow.generation,
                "attempt": external.workflow.attempt,
            },
            "result": "Success",
            "envelope": envelope.to_json(),
            "mu": maml::mirror::write(&header, source),
            "algorithm": "ML-DSA-87",
            "keyId": statement.internal().key_id,
            "runId": statement.metadata().invocation_id,
            "documentDigest": digest(&external.document),
            "outputsDigest": digest(&statement.outputs().unwrap()),
            "submitter": "alice",
            "actAs": "agent://tester",
            "head": "quantum",
            "startedAt": statement.metadata().started_on,
            "finishedAt": statement.metadata().finished_on,
            "gpuSeconds": 0.25,
        },
    })
}

fn verify_object(desk: &Desk, object: &Value) -> (i32, String) {
    desk.write("object.json", serde_json::to_vec_pretty(object).unwrap());
    let (code, out, _) = desk.verify(&["object.json", "--trust", "trust.json"]);
    (code, out)
}

#[test]
fn an_exported_object_verifies_as_json_and_as_yaml() {
    let desk = Desk::new(Sample::success());
    let mut object = object(&desk.sample);
    let (code, out) = verify_object(&desk, &object);
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("fields") && out.contains("mirror"), "{out}");
    desk.write("object.yaml", serde_saphyr::to_string(&object).unwrap());
    let (code, out, err) = desk.verify(&["object.yaml", "--trust", "trust.json"]);
    assert_eq!(code, 0, "{out}{err}");
    object["spec"]["envelope"] = serde_json::from_str(object["spec"]["envelope"].as_str().unwrap()).unwrap();
    assert_eq!(
        verify_object(&desk, &object).0,
        0,
        "an envelope unpacked into an object"
    );
}

#[test]
fn an_object_that_says_other_than_what_is_signed_ends_with_12() {
    let desk = Desk::new(Sample::success());
    let good = object(&desk.sample);
    for (pointer, value) in [
        ("/metadata/namespace", json!("other")),
        ("/spec/workflowRef/name", json!("other")),
        ("/spec/workflowRef/uid", json!("other")),
        ("/spec/workflowRef/generation", json!(2)),
        ("/spec/workflowRef/attempt", json!(2)),
        ("/spec/result", json!("Error")),
        ("/spec/algorithm", json!("ML-DSA-65")),
        ("/spec/keyId", json!("0".repeat(64))),
        ("/spec/runId", json!("0".repeat(32))),
        ("/spec/documentDigest/sha256", json!("0".repeat(64))),
        ("/spec/outputsDigest/blake3", json!("0".repeat(64))),
        ("/spec/submitter", json!("mallory")),
        ("/spec/actAs", json!("agent://other")),
        ("/spec/head", json!("other")),
        ("/spec/startedAt", json!("2026-03-01T11:00:00Z")),
        ("/spec/finishedAt", json!("2026-03-01T13:00:00Z")),
        ("/spec/gpuSeconds", json!(0)),
        (
            "/spec/mu",
            json!(
                good["spec"]["mu"]
                    .as_str()
                    .unwrap()
                    .replace(".olleh yaS", ".olleh yaZ")
            ),
        ),
    ] {
        let mut object = good.clone();
        *object.pointer_mut(pointer).unwrap() = value;
        let (code, out) = verify_object(&desk, &object);
        assert_eq!(code, 12, "{pointer}: {out}");
    }
}

#[test]
fn a_damaged_object_ends_with_10_and_a_foreign_one_with_2() {
    let desk = Desk::new(Sample::success());
    let good = object(&desk.sample);
    let mut damaged = good.clone();
    let envelope = bent(
        good["spec"]["envelope"].as_str().unwrap().as_bytes(),
        "payload",
        500,
    );
    damaged["spec"]["envelope"] = json!(String::from_utf8(envelope).unwrap());
    assert_eq!(verify_object(&desk, &damaged).0, 10);
    desk.write("cut.json", &serde_json::to_vec(&good).unwrap()[..9000]);
    assert_eq!(desk.verify(&["cut.json", "--trust", "trust.json"]).0, 10);
    let mut foreign = good.clone();
    foreign["kind"] = json!("List");
    assert_eq!(verify_object(&desk, &foreign).0, 2);
    let mut empty = good;
    empty["spec"] = json!({});
    assert_eq!(verify_object(&desk, &empty).0, 2);
}

#[test]
fn a_bit_flipped_anywhere_in_the_payload_of_an_exported_object_ends_with_10() {
    let desk = Desk::new(Sample::success());
    let object = object(&desk.sample);
    let files = [
        serde_json::to_vec(&object).unwrap(),
        serde_saphyr::to_string(&object).unwrap().into_bytes(),
    ];
    for file in files {
        let text = String::from_utf8(file.clone()).unwrap();
        let longest = desk.sample.envelope().to_json();
        let base64 = longest
            .split('"')
            .max_by_key(|part| part.len())
            .unwrap()
            .to_owned();
        let start = text.find(&base64).unwrap();
        for (step, place) in (start..start + base64.len())
            .step_by(base64.len() / 40)
            .enumerate()
        {
            let mut bent = file.clone();
            bent[place] ^= 1 << (step % 8);
            desk.write("bent", &bent);
            let (code, out, _) = desk.verify(&["bent", "--trust", "trust.json"]);
            assert_eq!(code, 10, "byte {place} bit {}: {out}", step % 8);
        }
    }
}
