//! `chimera fmt FILE…`: documents in their one canonical form.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use rayon::prelude::*;
use serde::Serialize;

use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::{output, render, source, whole_file};

/// Brings documents into canonical form; their meaning stays
///
/// Ends with 0; with 1 when --check found a document that is not in canonical form; with 2 when a document cannot be read.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Documents, or folders in which all documents (`*.maml.md` and the like) are meant; `-` is stdin, written to stdout
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Changes nothing; names the documents that would change
    #[arg(long)]
    check: bool,

    /// How the documents that changed, or would change, are listed
    #[arg(short, long, value_enum, default_value_t)]
    output: Listing,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Listing {
    /// A line each, with --check
    #[default]
    Text,
    /// A list of all files, each with what became of it
    Json,
}

/// What became of one file.
#[derive(Debug, Serialize)]
struct Formatted {
    path: String,
    state: &'static str,
}

/// What became of one document.
enum Outcome {
    /// It is in canonical form already.
    Same(String),
    /// It differs from this canonical form.
    Different(String),
    /// It cannot be read well enough to be changed: what is wrong with it.
    Refused(String),
}

#[allow(clippy::unused_async, reason = "every verb has the same form")]
pub async fn run(args: Args) -> Result<ExitCode, Error> {
    let files = source::documents(&args.files)?;
    if args.output == Listing::Json && !args.check && files.iter().any(|path| source::is_stdin(path)) {
        return Err(Error::usage(
            "the canonical form of stdin goes to stdout, and so does -o json",
        ));
    }
    let outcomes: Vec<Result<Outcome, Error>> = files.par_iter().map(|path| canonical(path)).collect();
    let mut code = ExitCode::Ok;
    let mut listed = Vec::with_capacity(files.len());
    for (path, outcome) in files.iter().zip(outcomes) {
        let state = match outcome {
            Err(error) => {
                code = error.report();
                "unreadable"
            }
            Ok(Outcome::Refused(findings)) => {
                output::note(findings.trim_end());
                code = Error::usage(format!("{} cannot be formatted as it is", source::shown(path))).report();
                "refused"
            }
            Ok(Outcome::Different(text)) => {
                if !args.check {
                    write(path, &text)?;
                } else if code == ExitCode::Ok {
                    code = ExitCode::Failed;
                }
                "changed"
            }
            Ok(Outcome::Same(text)) => {
                if source::is_stdin(path) && !args.check {
                    write(path, &text)?;
                }
                "canonical"
            }
        };
        if args.check && args.output == Listing::Text && state == "changed" {
            output::print(&source::shown(path))?;
        }
        listed.push(Formatted {
            path: source::shown(path),
            state,
        });
    }
    if args.output == Listing::Json {
        output::print_json(&listed)?;
    }
    Ok(code)
}

fn canonical(path: &Path) -> Result<Outcome, Error> {
    let text = source::read_text(path)?;
    Ok(match maml::format(&text) {
        Ok(formatted) if formatted == text => Outcome::Same(text),
        Ok(formatted) => Outcome::Different(formatted),
        Err(diagnostics) => Outcome::Refused(render::findings(&source::shown(path), &text, &diagnostics)),
    })
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    if source::is_stdin(path) {
        return output::print_raw(text.as_bytes());
    }
    whole_file::replace(path, text.as_bytes())
        .map_err(|cause| Error::failed(format!("cannot write {}", path.display())).because(&cause))
}
