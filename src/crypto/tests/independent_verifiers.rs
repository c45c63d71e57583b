//! Receipts verify without our code: the program printed in docs/verify.md, run word by word by a Python that knows
//! nothing of Chimera.

#[path = "sample/receipt.rs"]
#[allow(dead_code, reason = "each test uses a part of the sample")]
mod sample;

use sample::Sample;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const CRATE: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn the_python_program_of_the_manual_verifies_a_receipt_and_refuses_forged_ones() {
    let python = python();
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("independent-verifiers");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("verify.py"), program()).unwrap();
    let run = |sample: &Sample, receipt: &[u8], root: &str| -> Output {
        fs::write(folder.join("receipt.json"), receipt).unwrap();
        fs::write(folder.join("trust.json"), sample.bundle.to_json()).unwrap();
        let mut command = Command::new(&python);
        command
            .args(["verify.py", "receipt.json", "trust.json", root])
            .current_dir(&folder)
            .output()
            .unwrap()
    };

    for sample in [Sample::success(), Sample::refused()] {
        let root = sample.root.verifying_key().key_id().as_str();
        let output = run(&sample, &sample.file(), root);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(text.contains("signature: valid"), "{text}");
        let subject = crypto::receipt::parse(&sample.envelope())
            .unwrap()
            .subject
            .remove(0);
        assert!(text.contains(&subject.digest["sha256"]), "{text}");
        println!("{text}");

        let file = String::from_utf8(sample.file()).unwrap();
        let start = file.find("\"payload\":\"").unwrap() + 200;
        let mut bent = file.clone().into_bytes();
        bent[start] = if bent[start] == b'A' { b'B' } else { b'A' };
        assert!(!run(&sample, &bent, root).status.success());
        assert!(
            !run(
                &sample,
                file.as_bytes(),
                sample.signing.verifying_key().key_id().as_str()
            )
            .status
            .success()
        );
        let other = sample::key(3).verifying_key().key_id().to_string();
        let misnamed = file.replace(sample.signing.verifying_key().key_id().as_str(), &other);
        assert!(!run(&sample, misnamed.as_bytes(), root).status.success());
    }
}

/// The first Python block of the manual.
fn program() -> String {
    let manual = fs::read_to_string(Path::new(CRATE).join("../../docs/verify.md")).unwrap();
    let start = manual
        .find("```python\n")
        .expect("the manual prints a Python program")
        + "```python\n".len();
    manual[start..start + manual[start..].find("```").unwrap()].to_owned()
}

/// A Python with the pinned packages: made in the user's cache on first use, made anew when the pins change.
fn python() -> PathBuf {
    let requirements = Path::new(CRATE).join("tests/requirements.txt");
    let pins = fs::read_to_string(&requirements).unwrap();
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .filter(|path| !path.is_empty())
        .map_or_else(
            || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache"),
            PathBuf::from,
        );
    let venv = cache.join("chimera/verify-venv");
    let python = venv.join("bin/python");
    if fs::read_to_string(venv.join("pins.txt")).is_ok_and(|made| made == pins) {
        return python;
    }
    let run = |command: &mut Command| {
        let output = command
            .output()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        assert!(
            output.status.success(),
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv));
    run(Command::new(&python)
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--require-hashes",
            "--only-binary",
            ":all:",
            "-r",
        ])
        .arg(&requirements));
    fs::write(venv.join("pins.txt"), pins).unwrap();
    python
}
