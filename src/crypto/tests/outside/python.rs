//! A Python with the pinned packages of `requirements.txt`: made in the user's cache on first use, made anew when the pins
//! change.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// The interpreter of the environment.
pub fn python() -> PathBuf {
    // Tests of one program run at once; only one may make the environment.
    static MAKING: Mutex<()> = Mutex::new(());
    let _making = MAKING.lock().unwrap();
    let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/requirements.txt");
    let pins = fs::read_to_string(&requirements).unwrap();
    let venv = cache().join("chimera/verify-venv");
    let python = venv.join("bin/python");
    if fs::read_to_string(venv.join("pins.txt")).is_ok_and(|made| made == pins) {
        return python;
    }
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv));
    run(Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--require-hashes"])
        .args(["--only-binary", ":all:", "-r"])
        .arg(&requirements));
    fs::write(venv.join("pins.txt"), pins).unwrap();
    python
}

fn cache() -> PathBuf {
    std::env::var_os("XDG_CACHE_HOME")
        .filter(|path| !path.is_empty())
        .map_or_else(
            || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache"),
            PathBuf::from,
        )
}

fn run(command: &mut Command) {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
