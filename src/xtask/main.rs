//! `cargo xtask generate` writes what is derived from the kinds and the chart; `cargo xtask check`
//! names the files that are stale and writes nothing.

mod chart;
mod chart_rules;
mod output;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use crate::{chart::Helm, output::Output};

/// Generates the custom resource definitions, the chart's copies of them, the reference of reasons
/// and manifests/install.yaml.
#[derive(Parser)]
#[command(name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Writes every generated file.
    Generate {
        /// helm, to render manifests/install.yaml.
        #[arg(long, env = "HELM", default_value = "helm")]
        helm: PathBuf,

        /// Leaves manifests/install.yaml as it is, for machines without helm.
        #[arg(long)]
        no_helm: bool,
    },
    /// Renders the chart with each of its test values and checks the rules that it must keep.
    Chart {
        /// helm.
        #[arg(long, env = "HELM", default_value = "helm")]
        helm: PathBuf,
    },
    /// Fails, with their names, when generated files are stale. Needs no helm.
    Check,
}

fn main() -> Result<ExitCode> {
    let root = root();
    match Arguments::parse().command {
        Command::Generate { helm, no_helm } => {
            let mut outputs = output::of_the_kinds()?;
            for output in &outputs {
                output.write(&root)?;
            }
            // The chart is rendered after its templates have been written.
            if !no_helm {
                let install = chart::install_manifest(&root, &Helm::new(helm))?;
                install.write(&root)?;
                outputs.push(install);
            }
            eprintln!("{} files are up to date", outputs.len());
            Ok(ExitCode::SUCCESS)
        }
        Command::Chart { helm } => {
            let violations = chart::violations(&root, &Helm::new(helm))?;
            for violation in &violations {
                eprintln!("{violation}");
            }
            Ok(ExitCode::from(u8::from(!violations.is_empty())))
        }
        Command::Check => {
            let stale = stale(&root)?;
            if stale.is_empty() {
                return Ok(ExitCode::SUCCESS);
            }
            for path in &stale {
                eprintln!("stale: {}", path.display());
            }
            eprintln!("hint: run `cargo xtask generate` and commit the result");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// The generated files that are not what they should be, relative to the root.
fn stale(root: &Path) -> Result<Vec<PathBuf>> {
    let mut stale: Vec<PathBuf> = output::of_the_kinds()?
        .into_iter()
        .filter(|output| !output.is_current(root))
        .map(Output::into_path)
        .collect();
    if !chart::install_manifest_is_current(root).context("cannot read the chart")? {
        stale.push(chart::INSTALL_MANIFEST.into());
    }
    Ok(stale)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("this crate lies two folders below the root")
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_files_are_current() {
        let stale = stale(&root()).unwrap();
        assert!(stale.is_empty(), "run `cargo xtask generate`; stale: {stale:?}");
    }

    #[test]
    fn definitions_stay_below_200_kilobytes() {
        for output in output::of_the_kinds().unwrap() {
            let bytes = output.len();
            let path = output.into_path();
            assert!(bytes < 200_000, "{} has {bytes} bytes", path.display());
        }
    }
}
