//! The command line under test: the `chimera` binary of this build, as a user would call it.

use std::{path::PathBuf, process::Stdio};

use tokio::{process::Command, time::timeout};

use crate::wait::DEADLINE;

/// What a command answered.
#[derive(Debug)]
pub struct Answer {
    /// Its exit code.
    pub code: i32,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

/// Runs `chimera` against the cluster of the test.
pub async fn chimera(args: &[&str]) -> Answer {
    let mut command = Command::new(binary());
    command.args(args);
    answer(command).await
}

/// Runs `chimera` in `home`, with an empty environment: no kubeconfig, nothing pinned, no way to a cluster.
pub async fn chimera_offline(home: &std::path::Path, args: &[&str]) -> Answer {
    let mut command = Command::new(binary());
    command.args(args).env_clear().env("HOME", home).current_dir(home);
    answer(command).await
}

/// Runs `kubectl` against the cluster of the test.
pub async fn kubectl(args: &[&str]) -> Answer {
    let mut command = Command::new("kubectl");
    command.args(args);
    answer(command).await
}

/// Runs any command to its end, which must come before the deadline.
pub async fn answer(mut command: Command) -> Answer {
    let shown = format!("{:?}", command.as_std());
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(DEADLINE, command.output())
        .await
        .unwrap_or_else(|_| panic!("{shown}: not within {} s", DEADLINE.as_secs()))
        .unwrap_or_else(|error| panic!("{shown}: {error}"));
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Answer {
        code: output.status.code().unwrap_or(-1),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// `CHIMERA_BIN`, or what cargo built beside the test itself.
fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("CHIMERA_BIN") {
        return path.into();
    }
    let test = std::env::current_exe().expect("a process knows its program");
    // target/debug/deps/TEST-HASH
    let built = test
        .ancestors()
        .nth(2)
        .expect("cargo puts tests two folders below its target folder")
        .join("chimera");
    assert!(
        built.exists(),
        "there is no {}: `cargo build -p chimera` first, or name one in CHIMERA_BIN",
        built.display()
    );
    built
}
