//! What the command line takes of its user's time, beside the bare interpreter.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use e2e::documents;
use serde::Serialize;

use crate::figures::Quantiles;

/// Documents that are linted at once.
const DOCUMENTS: usize = 1000;
const REPETITIONS: usize = 20;

/// Milliseconds of whole commands, from start to exit.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Commands {
    /// `chimera lint` of a folder with 1,000 documents.
    pub lint: Quantiles,
    /// `chimera run` of a document with one line of Python, signed.
    pub run: Quantiles,
    /// `python3 -c` of the same line.
    pub python: Quantiles,
}

/// Runs each command several times, in turn, in a home of its own.
pub fn measure(chimera: &Path) -> std::io::Result<Commands> {
    let home = tempfile::tempdir()?;
    let folder = home.path().join("documents");
    std::fs::create_dir(&folder)?;
    let text = documents::small().text();
    for index in 0..DOCUMENTS {
        std::fs::write(folder.join(format!("{index}.maml.md")), &text)?;
    }
    let document = folder.join("0.maml.md");
    let command = |program: &Path, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).env("XDG_DATA_HOME", home.path());
        command
    };
    let (mut lint, mut run, mut python) = (Vec::new(), Vec::new(), Vec::new());
    // The first of each is not counted: it makes keys and fills the page cache.
    for round in 0..=REPETITIONS {
        let taken = [
            millis(command(chimera, &["lint", "--quiet"]).arg(&folder))?,
            millis(command(chimera, &["run", "--quiet"]).arg(&document))?,
            millis(&mut command(Path::new("python3"), &["-c", "answer = 42"]))?,
        ];
        if round > 0 {
            lint.push(taken[0]);
            run.push(taken[1]);
            python.push(taken[2]);
        }
    }
    Ok(Commands {
        lint: Quantiles::of(lint),
        run: Quantiles::of(run),
        python: Quantiles::of(python),
    })
}

fn millis(command: &mut Command) -> std::io::Result<f64> {
    let began = Instant::now();
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    if !status.success() {
        return Err(std::io::Error::other(format!("{command:?} ended with {status}")));
    }
    Ok(began.elapsed().as_secs_f64() * 1e3)
}
