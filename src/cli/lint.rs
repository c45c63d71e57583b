//! `chimera lint FILE…`: everything that there is to say about documents, without running them.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use maml::{Diagnostic, Severity};
use rayon::prelude::*;
use serde::Serialize;

use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::{output, render, sarif, source};

/// Checks documents and explains every fault
///
/// Ends with 0 when all can be run, with 2 when one has an error (with --strict: or a warning).
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Documents, or folders in which all documents (`*.maml.md` and the like) are meant; `-` is stdin
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// How the findings are written
    #[arg(short = 'o', long, visible_alias = "output", value_enum, default_value_t)]
    format: LintFormat,

    /// Warnings refuse a document too
    #[arg(long)]
    strict: bool,

    /// Errors and warnings only
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum LintFormat {
    /// With the lines of the document
    #[default]
    Text,
    /// A list of files with their findings
    Json,
    /// SARIF 2.1.0
    Sarif,
}

/// The findings about one file.
#[derive(Debug, Serialize)]
pub struct Report {
    /// As the user named it.
    pub path: String,
    /// The findings, in the order of the text.
    pub diagnostics: Vec<Diagnostic>,
}

/// One file as it was read, and what was found.
struct Checked {
    text: String,
    report: Report,
}

#[allow(clippy::unused_async, reason = "every verb has the same form")]
pub async fn run(args: Args) -> Result<ExitCode, Error> {
    let worst = if args.strict {
        Severity::Warning
    } else {
        Severity::Error
    };
    let files = source::documents(&args.files)?;
    let checked: Vec<Result<Checked, Error>> = files.par_iter().map(|path| check(path)).collect();
    let mut refused = false;
    let mut reports = Vec::with_capacity(files.len());
    for checked in checked {
        let Checked { text, mut report } = match checked {
            Ok(checked) => checked,
            // The others are worth telling all the same.
            Err(error) => {
                error.report();
                refused = true;
                continue;
            }
        };
        refused |= report.diagnostics.iter().any(|found| found.severity >= worst);
        if args.quiet {
            report.diagnostics.retain(|found| found.severity > Severity::Info);
        }
        if args.format == LintFormat::Text {
            output::print(&render::findings(&report.path, &text, &report.diagnostics))?;
            if let Some(summary) = render::summary(&report.diagnostics) {
                output::note(format!("{}: {summary}", report.path));
            }
        }
        reports.push(report);
    }
    match args.format {
        LintFormat::Text => {}
        LintFormat::Json => output::print_json(&reports)?,
        LintFormat::Sarif => output::print_json(&sarif::log(&reports))?,
    }
    Ok(if refused { ExitCode::Usage } else { ExitCode::Ok })
}

fn check(path: &Path) -> Result<Checked, Error> {
    let text = source::read_text(path)?;
    let diagnostics = maml::read(&text).diagnostics;
    let path = source::shown(path);
    Ok(Checked {
        text,
        report: Report { path, diagnostics },
    })
}
