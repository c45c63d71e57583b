//! The Python that knows nothing of Chimera: packages of its own, pinned by their digests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A Python with the pinned packages: made in the user's cache on first use, made anew when the pins change.
pub fn python() -> PathBuf {
    let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/requirements.txt");
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
