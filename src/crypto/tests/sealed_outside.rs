//! What is sealed here is opened by the program printed in docs/sealing.md, word by word, by a Python that knows nothing of
//! Chimera.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

#[path = "outside/python.rs"]
mod python;

use crypto::kem::DecapsulationKey;
use crypto::seal::{Binding, Sealed, seal_file};
use python::python;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn key(seed: u8) -> DecapsulationKey {
    DecapsulationKey::from_seed(&[seed; 64]).unwrap()
}

/// The manual's program in a folder of its own, with a recipient's key.
fn folder() -> PathBuf {
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/sealing.md");
    let manual = fs::read_to_string(manual).unwrap();
    let (_, rest) = manual.split_once("```python\n").unwrap();
    let (program, _) = rest.split_once("```").unwrap();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("sealed-outside");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("open.py"), program).unwrap();
    fs::write(folder.join("key.pem"), key(1).pkcs8_pem().as_bytes()).unwrap();
    folder
}

#[test]
fn the_program_of_the_manual_opens_texts_and_files_and_refuses_changed_ones() {
    let (folder, python) = (folder(), python());
    let open = |sealed: &[u8]| -> Output {
        fs::write(folder.join("sealed"), sealed).unwrap();
        let mut command = Command::new(&python);
        let command = command.args(["open.py", "key.pem", "sealed"]);
        command.current_dir(&folder).output().unwrap()
    };
    let (one, two) = (key(1), key(2));
    let recipients = [two.encapsulation_key(), one.encapsulation_key()];

    for document in [None, Some(&b"a document"[..])] {
        let binding = Binding::new("team", "report", document);
        let sealed = Sealed::seal(b"{\"a\":1}", binding, &recipients).unwrap();
        let output = open(sealed.to_json().as_bytes());
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{told}");
        assert_eq!(output.stdout, b"{\"a\":1}");
        assert!(
            told.contains(&format!("digest {}", sealed.digest().sha256)),
            "{told}"
        );
        let blinding = sealed.open(&one).unwrap().blinding;
        assert!(
            told.contains(&format!("blinding {}", hex::encode(blinding.as_bytes()))),
            "{told}"
        );
        for (from, to) in [("team", "meat"), ("\"body\":\"", "\"body\":\"AAAA")] {
            let bent = sealed.to_json().replacen(from, to, 1);
            assert!(!open(bent.as_bytes()).status.success(), "{from}");
        }
    }

    for length in [0, 1, 65_536, 200_000] {
        let plaintext: Vec<u8> = (0..length).map(|i: u32| i.to_le_bytes()[0]).collect();
        let mut file = Vec::new();
        let binding = Binding::new("team", "report", None);
        seal_file(&mut &*plaintext, &mut file, binding, &recipients).unwrap();
        let output = open(&file);
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(output.stdout, plaintext, "{length}");
        assert!(!open(&file[..file.len() - 1]).status.success());
    }
}
