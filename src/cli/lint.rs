//! `chimera lint FILE…`: everything that there is to say about documents, without running them.

use std::path::PathBuf;

use clap::ValueEnum;
use maml::{Diagnostic, Severity};
use serde::Serialize;

use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::{output, render, sarif, source};

/// Checks documents and explains every fault
///
/// Ends with 0 when all can be run, with 2 when one has an error (with --strict: or a warning).
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Documents; `-` is stdin
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

#[allow(clippy::unused_async, reason = "every verb has the same form")]
pub async fn run(args: Args) -> Result<ExitCode, Error> {
    let worst = if args.strict {
        Severity::Warning
    } else {
        Severity::Error
    };
    let mut refused = false;
    let mut reports = Vec::with_capacity(args.files.len());
    for path in &args.files {
        let text = source::read_text(path)?;
        let path = source::shown(path);
        let mut diagnostics = maml::read(&text).diagnostics;
        refused |= diagnostics.iter().any(|found| found.severity >= worst);
        if args.quiet {
            diagnostics.retain(|found| found.severity > Severity::Info);
        }
        if args.format == LintFormat::Text {
            output::print(&render::findings(&path, &text, &diagnostics))?;
            if let Some(summary) = render::summary(&diagnostics) {
                output::note(format!("{path}: {summary}"));
            }
        }
        reports.push(Report { path, diagnostics });
    }
    match args.format {
        LintFormat::Text => {}
        LintFormat::Json => output::print_json(&reports)?,
        LintFormat::Sarif => output::print_json(&sarif::log(&reports))?,
    }
    Ok(if refused { ExitCode::Usage } else { ExitCode::Ok })
}
