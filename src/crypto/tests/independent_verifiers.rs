//! Receipts verify without our code: the program printed in docs/verify.md, run word by word by a Python that knows
//! nothing of Chimera.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

#[path = "outside/python.rs"]
mod python;
#[path = "sample/receipt.rs"]
#[allow(dead_code, reason = "each test uses a part of the sample")]
mod sample;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crypto::revocation::{Revocation, RevocationReason};
use crypto::root_statement::RootStatement;
use crypto::trust::Bundle;
use crypto::{KeyPurpose, KeyStatement, SigningKey, Suite, receipt};
use sample::Sample;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const CRATE: &str = env!("CARGO_MANIFEST_DIR");

/// The program of the manual, in a folder of its own.
struct Manual {
    folder: PathBuf,
}

impl Manual {
    fn new(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("verify.py"), block("python")).unwrap();
        Self { folder }
    }

    fn run(&self, bundle: &Bundle, receipt: &[u8], root: &SigningKey) -> Output {
        fs::write(self.folder.join("receipt.json"), receipt).unwrap();
        fs::write(self.folder.join("trust.json"), bundle.to_json()).unwrap();
        let root = root.verifying_key().key_id().as_str();
        Command::new(python::python())
            .args(["verify.py", "receipt.json", "trust.json", root])
            .current_dir(&self.folder)
            .output()
            .unwrap()
    }

    fn accepts(&self, bundle: &Bundle, receipt: &[u8], root: &SigningKey) -> bool {
        self.run(bundle, receipt, root).status.success()
    }
}

#[test]
fn the_python_program_of_the_manual_verifies_a_receipt_and_refuses_forged_ones() {
    let manual = Manual::new("python");
    for sample in [Sample::success(), Sample::refused()] {
        let (file, bundle) = (sample.file(), &sample.bundle);
        let output = manual.run(bundle, &file, &sample.root);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(text.contains("signature: valid ML-DSA-87\n"), "{text}");
        let subject = crypto::receipt::parse(&sample.envelope())
            .unwrap()
            .subject
            .remove(0);
        assert!(text.contains(&subject.digest["sha256"]), "{text}");
        println!("{text}");

        let file = String::from_utf8(file).unwrap();
        let start = file.find("\"payload\":\"").unwrap() + 200;
        let mut bent = file.clone().into_bytes();
        bent[start] = if bent[start] == b'A' { b'B' } else { b'A' };
        assert!(!manual.accepts(bundle, &bent, &sample.root));
        assert!(!manual.accepts(bundle, file.as_bytes(), &sample.signing));
        let other = sample::key(3).verifying_key().key_id().to_string();
        let misnamed = file.replace(sample.signing.verifying_key().key_id().as_str(), &other);
        assert!(!manual.accepts(bundle, misnamed.as_bytes(), &sample.root));
        let mut late = sample.claim.clone();
        late.signed_at = "2027-01-01T00:00:00.000000001Z".parse().unwrap();
        let late = receipt::statement(&late).unwrap();
        let late = receipt::sign(&late, &sample.signing).unwrap().to_json();
        assert!(!manual.accepts(bundle, late.as_bytes(), &sample.root));
    }
}

#[test]
fn the_python_program_of_the_manual_knows_every_suite() {
    let manual = Manual::new("python-suites");
    for suite in Suite::ALL {
        let key = |seed: u8| SigningKey::from_seed(suite, &vec![seed; suite.seed_len()]).unwrap();
        let (root, signing) = (key(1), key(2));
        let mut sample = Sample::refused();
        let start = "2026-01-01T00:00:00Z".parse().unwrap();
        let about = KeyStatement::about(signing.verifying_key(), KeyPurpose::Signing, start, None, None, 0);
        sample.bundle = Bundle::new(root.verifying_key(), vec![about.sign(&root).unwrap()]);
        sample.claim.suite = suite;
        sample.claim.key_id = signing.verifying_key().key_id().clone();
        sample.claim.predecessor = None;
        sample.signing = signing;
        let output = manual.run(&sample.bundle, &sample.file(), &root);
        let text = String::from_utf8(output.stdout).unwrap();
        println!("{text}{}", String::from_utf8_lossy(&output.stderr));
        assert!(text.contains(&format!("signature: valid {suite}\n")));

        // Each of the algorithms decides: a change at either end of the signature is a change of one of them.
        let envelope = sample.envelope();
        for place in [0, suite.signature_len() - 1] {
            let mut signature = envelope.signature().to_vec();
            signature[place] ^= 1;
            let mut json: serde_json::Value = serde_json::from_str(&envelope.to_json()).unwrap();
            json["signatures"][0]["sig"] = STANDARD.encode(signature).into();
            assert!(!manual.accepts(&sample.bundle, json.to_string().as_bytes(), &root));
        }
    }
}

#[test]
fn the_python_program_of_the_manual_follows_roots_and_heeds_revocations() {
    let manual = Manual::new("python-trust");
    let sample = Sample::success();
    let (file, next) = (sample.file(), sample::key(6));
    let time = "2026-06-01T00:00:00Z".parse().unwrap();
    let mut bundle = sample.bundle.clone();
    bundle.roots = RootStatement::roll_over(&sample.root, &next, time)
        .unwrap()
        .into();
    let mut rolled = Bundle::new(next.verifying_key(), bundle.statements.clone());
    rolled.roots.clone_from(&bundle.roots);
    for root in [&sample.root, &next] {
        assert!(manual.accepts(&rolled, &file, root));
    }
    assert!(!manual.accepts(&rolled, &file, &sample::key(9)));
    // Both statements of a roll-over are needed: the first root's key stands in the second of them.
    rolled.roots.truncate(1);
    for root in [&sample.root, &next] {
        assert!(rolled.verify_pinned(Some(root.verifying_key().key_id())).is_err());
        assert!(!manual.accepts(&rolled, &file, root));
    }

    // Signed at 12:00:00.140.
    for (since, accepted) in [
        (None, false),
        ("2026-03-01T12:00:00.14Z".parse().ok(), false),
        ("2026-03-01T12:00:00.2Z".parse().ok(), true),
        ("2026-03-01T12:00:00Z".parse().ok(), false),
        ("2026-03-01T12:00:01Z".parse().ok(), true),
    ] {
        let id = sample.claim.key_id.clone();
        let revocation = Revocation::of(id, RevocationReason::KeyCompromise, since, time);
        bundle.revocations = vec![revocation.sign(&sample.root).unwrap()];
        assert_eq!(
            manual.accepts(&bundle, &file, &sample.root),
            accepted,
            "{since:?}"
        );
        let strange = revocation.sign(&sample::key(9)).unwrap();
        bundle.revocations = vec![strange];
        assert!(!manual.accepts(&bundle, &file, &sample.root));
    }
}

#[test]
fn the_openssl_commands_of_the_manual_verify_a_receipt_and_refuse_a_forged_one() {
    let algorithms = Command::new("openssl")
        .args(["list", "-signature-algorithms"])
        .output();
    let known = algorithms.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains("ML-DSA-87"));
    let jq = Command::new("jq")
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success());
    if !known || !jq {
        println!("skipped: needs jq and an openssl that knows ML-DSA (3.5 or later)");
        return;
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("openssl");
    fs::create_dir_all(&folder).unwrap();
    let sample = Sample::success();
    fs::write(folder.join("trust.json"), sample.bundle.to_json()).unwrap();
    let commands = block("bash");
    let run = |receipt: &str| {
        fs::write(folder.join("receipt.json"), receipt).unwrap();
        let output = Command::new("bash")
            .args(["-c", &commands])
            .current_dir(&folder)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        println!("{text}{}", String::from_utf8_lossy(&output.stderr));
        (text.matches("Signature Verified Successfully").count(), text)
    };
    let file = String::from_utf8(sample.file()).unwrap();
    let (verified, text) = run(&file);
    assert_eq!(verified, 2, "{text}");
    assert!(text.contains(sample.root.verifying_key().key_id().as_str()));
    assert!(text.contains(sample.signing.verifying_key().key_id().as_str()));
    assert!(text.contains("\"result\": \"Success\""));
    let place = file.find("\"payload\":\"").unwrap() + 300;
    let other = if &file[place..=place] == "A" { "B" } else { "A" };
    assert_eq!(
        run(&format!("{}{other}{}", &file[..place], &file[place + 1..])).0,
        1
    );
}

#[test]
fn the_python_program_of_the_crypto_manual_verifies_every_suite_and_reads_its_keys() {
    let python = python::python();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("suites");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("verify.py"), block_of("crypto.md", "python")).unwrap();
    fs::write(folder.join("message"), b"a message").unwrap();
    let run = |arguments: &[&str]| -> bool {
        let mut command = Command::new(&python);
        let output = command.args(arguments).current_dir(&folder).output().unwrap();
        print!("{}", String::from_utf8_lossy(&output.stderr));
        output.status.success()
    };
    let public_of_private = "import sys
from cryptography.hazmat.primitives.serialization import *
text = open(sys.argv[1]).read()
end = '-----END PRIVATE KEY-----\\n'
keys = [load_pem_private_key((block + end).encode(), None) for block in text.split(end)[:-1]]
pem = b''.join(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo) for key in keys)
assert pem == open(sys.argv[2], 'rb').read()";
    for suite in Suite::ALL {
        let key = SigningKey::from_seed(suite, &vec![7; suite.seed_len()]).unwrap();
        fs::write(folder.join("public.pem"), key.verifying_key().spki_pem()).unwrap();
        fs::write(folder.join("private.pem"), key.pkcs8_pem().as_bytes()).unwrap();
        assert!(
            run(&["-c", public_of_private, "private.pem", "public.pem"]),
            "{suite}"
        );
        let verifies = |signature: &[u8]| {
            fs::write(folder.join("signature"), signature).unwrap();
            run(&["verify.py", "public.pem", "message", "signature"])
        };
        let good = key.sign(b"a message").unwrap();
        assert!(verifies(&good), "{suite}");
        for place in [0, good.len() - 1] {
            let mut bent = good.clone();
            bent[place] ^= 1;
            assert!(!verifies(&bent), "{suite}, byte {place}");
        }
        assert!(!verifies(&[&good[..], &[0]].concat()), "{suite}");
    }
}

/// The first block of this language in the manual.
fn block(language: &str) -> String {
    block_of("verify.md", language)
}

fn block_of(manual: &str, language: &str) -> String {
    let manual = fs::read_to_string(Path::new(CRATE).join("../../docs").join(manual)).unwrap();
    let fence = format!("```{language}\n");
    let start = manual.find(&fence).expect("the manual has such a block") + fence.len();
    manual[start..start + manual[start..].find("```").unwrap()].to_owned()
}
