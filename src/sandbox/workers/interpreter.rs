//! The process that becomes a zygote: a Python interpreter with the modules of `python/` and nothing else from this place.

use super::Configuration;
use crate::policy::Policy;
use serde::Serialize;
use std::io;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};

/// Each after those that it imports.
const MODULES: [(&str, &str); 9] = [
    ("_chimera_values", include_str!("../python/values.py")),
    ("_chimera_failures", include_str!("../python/failures.py")),
    ("_chimera_programs", include_str!("../python/programs.py")),
    ("_chimera_circuits", include_str!("../python/circuits.py")),
    (
        "_chimera_specifications",
        include_str!("../python/specifications.py"),
    ),
    ("_chimera_execute", include_str!("../python/execute.py")),
    ("_chimera_devices", include_str!("../python/devices.py")),
    ("_chimera_sandbox", include_str!("../python/sandbox.py")),
    ("_chimera_zygote", include_str!("../python/zygote.py")),
];

/// The whole program of the interpreter: its modules come in the argument, so nothing is read from a writable place.
const BOOTSTRAP: &str = "\
import json, sys, types
c = json.loads(sys.argv[1])
for n, s in c.pop('modules'):
    m = sys.modules[n] = types.ModuleType(n)
    exec(compile(s, '<' + n + '>', 'exec'), m.__dict__)
sys.modules['_chimera_zygote'].main(c)
";

#[derive(Serialize)]
struct Arguments<'a> {
    modules: &'a [(&'a str, &'a str)],
    policy: &'a Policy,
    preload: &'a [String],
}

/// Starts an interpreter that is spoken to through `socket`.
pub(super) fn start(configuration: &Configuration, socket: OwnedFd) -> io::Result<Child> {
    let arguments = Arguments {
        modules: &MODULES,
        policy: &configuration.policy,
        preload: &configuration.preload,
    };
    let mut process = Command::new(&configuration.python)
        // No user site-packages and nothing from the working folder; PYTHONPATH counts.
        .args(["-s", "-P", "-B", "-c", BOOTSTRAP])
        .arg(serde_json::to_string(&arguments)?)
        .env_clear()
        .envs(&configuration.environment)
        .current_dir("/")
        .stdin(Stdio::from(socket))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    if let Some(stderr) = process.stderr.take() {
        tokio::spawn(log_lines(stderr));
    }
    Ok(process)
}

/// Python's own complaints, into the agent's log.
async fn log_lines(stderr: ChildStderr) {
    let mut lines = BufReader::new(stderr);
    let mut line = Vec::new();
    while let Ok(1..) = (&mut lines).take(4096).read_until(b'\n', &mut line).await {
        tracing::warn!(line = %String::from_utf8_lossy(&line).trim_end(), "zygote");
        line.clear();
    }
}
