//! Receipts are read by tools that know nothing of Chimera: unmodified readers of in-toto, SLSA and DSSE from PyPI, and a
//! second implementation of ML-DSA that shares nothing with the first.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

#[path = "outside/python.rs"]
mod python;
#[path = "sample/receipt.rs"]
#[allow(dead_code, reason = "each test uses a part of the sample")]
mod sample;

use crypto::{DigestSet, Envelope, receipt};
use sample::Sample;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const CRATE: &str = env!("CARGO_MANIFEST_DIR");

fn read(name: &str, sample: &Sample, receipt: &[u8]) -> Output {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("outside-readers")
        .join(name);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("receipt.json"), receipt).unwrap();
    fs::write(folder.join("trust.json"), sample.bundle.to_json()).unwrap();
    Command::new(python::python())
        .arg(Path::new(CRATE).join("tests/outside/readers.py"))
        .args(["receipt.json", "trust.json"])
        .current_dir(&folder)
        .output()
        .unwrap()
}

fn facts(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn readers_of_in_toto_and_slsa_find_what_was_signed() {
    let sample = Sample::success();
    let text = facts(&read("success", &sample, &sample.file()));
    println!("{text}");
    let key = sample.signing.verifying_key().key_id();
    let outputs = DigestSet::of(sample::OUTPUTS).sha256;
    for fact in [
        format!("mldsa: valid under {key}"),
        "predicateType: https://slsa.dev/provenance/v1".to_owned(),
        format!("subject: outputs {outputs}"),
        "buildType: https://chimera.dunes.io/maml/v1".to_owned(),
        "builder: https://chimera.dunes.io/controller/sample {'chimera': '0.1.0'}".to_owned(),
        format!("invocation: {} 2026-03-01T12:00:00.100Z", sample::RUN_ID),
        "dependencies: document inputs head-image interpreter packages".to_owned(),
        "byproducts: grant attestation".to_owned(),
    ] {
        assert!(text.lines().any(|line| line == fact), "{fact} in {text}");
    }

    let refused = Sample::refused();
    let text = facts(&read("refused", &refused, &refused.file()));
    let document = DigestSet::of(sample::DOCUMENT).sha256;
    assert!(text.contains(&format!("subject: document {document}")), "{text}");
}

#[test]
fn they_refuse_what_was_not_signed_and_what_is_no_provenance() {
    let sample = Sample::success();
    let envelope = sample.envelope();
    let other = Envelope::sign(envelope.payload_type(), envelope.payload(), &sample::key(3)).unwrap();
    let forged = other.to_json().replace(
        sample::key(3).verifying_key().key_id().as_str(),
        envelope.key_id(),
    );
    assert!(!read("forged", &sample, forged.as_bytes()).status.success());

    // Their schemas are strict: a receipt with a field of another standard would be found out here.
    let payload = String::from_utf8(envelope.payload().to_vec()).unwrap();
    let payload = payload.replacen("\"runDetails\":{", "\"runDetails\":{\"extra\":1,", 1);
    let strange = Envelope::sign(receipt::PAYLOAD_TYPE, payload.as_bytes(), &sample.signing).unwrap();
    assert!(
        !read("strange", &sample, strange.to_json().as_bytes())
            .status
            .success()
    );
}
