//! `chimera verify`: every check of a receipt on a line, then the verdict; of many receipts a line each, then the counts.
//! Works on files alone, without a cluster.

mod desk;
mod form;
mod listing;
mod named;

use std::fmt::Write as _;
use std::num::NonZero;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use crypto::verify::{Check, Report, Verdict};
use indicatif::{ProgressBar, ProgressStyle};
use rayon::prelude::*;
use serde::Serialize;

use self::desk::{Desk, Examined};
use self::listing::{Entry, Tally};
use self::named::{Named, Reader, read_file};
use crate::cluster::ClusterArgs;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::output;
use crate::trust::OperatorArgs;

/// Receipts that are read, verified and shown before the next ones: enough to keep every core busy.
const PART: usize = 256;

/// Verifies receipts: each check on a line, then the verdict
///
/// Needs neither a cluster nor a network when receipts and trust bundle are files. Of several receipts each has a line, with the
/// checks that failed below it, in the order in which they were named; the last line counts them. Exit codes: 0 all valid, 2 not
/// a receipt, 10 bad signature, 11 untrusted key, 12 digest mismatch, 13 no such receipt; of several receipts that of the first
/// that is not valid.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Receipts: files, folders in which every `*.json` is meant, `-` for standard input, or `mur/NAME` from the cluster
    ///
    /// A file holds the envelope (JSON), or a whole MuReceipt (YAML or JSON, from `kubectl get mur NAME -o yaml`); the plain
    /// fields of the latter are compared with what is signed. At most 16 MiB are read of each.
    #[arg(required = true, value_name = "RECEIPT", add = crate::completion::receipts())]
    receipts: Vec<String>,

    /// The trust bundle: its JSON, or the ConfigMap `chimera-trust` as YAML or JSON
    ///
    /// Without it: the cluster's bundle when the receipt is `mur/NAME`; this machine's own when `chimera run` signed it here; and
    /// otherwise the one that `chimera trust pin` stored.
    /// Without --root, the root in this file is believed: then the file must come from a place that you trust.
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,

    /// The root to insist on: its key id (64 hexadecimal digits), or a file with its public key (PEM)
    ///
    /// Without it: the root of --trust; else the root that `chimera trust pin` stored; else, for `mur/NAME`, the cluster's.
    #[arg(long, value_name = "FILE|KEYID")]
    root: Option<String>,

    /// The document that every receipt must be about, byte for byte
    #[arg(long, value_name = "FILE")]
    document: Option<PathBuf>,

    /// The outputs that every receipt must be about: JSON, in any layout
    #[arg(long, value_name = "FILE")]
    outputs: Option<PathBuf>,

    /// How many receipts are verified at once; by default one for each core
    #[arg(short, long, value_name = "N")]
    jobs: Option<NonZero<usize>>,

    /// Of several receipts: every check, not only those that failed
    #[arg(short, long)]
    verbose: bool,

    /// How to write the result
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,

    #[command(flatten)]
    cluster: ClusterArgs,

    #[command(flatten)]
    operator: OperatorArgs,
}

/// How the result is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A line for each check, or for each of several receipts.
    #[default]
    Text,
    /// JSON, indented; of several receipts a list.
    Json,
}

impl Args {
    /// What `--verify` of another verb asks for: the receipt of that name in the cluster, under the cluster's bundle.
    pub fn of_cluster(name: &str, cluster: ClusterArgs, operator: OperatorArgs) -> Self {
        Self {
            receipts: vec![format!("mur/{name}")],
            trust: None,
            root: None,
            document: None,
            outputs: None,
            jobs: None,
            verbose: false,
            output: Format::Text,
            cluster,
            operator,
        }
    }
}

/// The verdict on a receipt in the cluster; the checks go to stderr, since stdout holds another verb's data.
pub async fn aside(args: &Args) -> Result<ExitCode, Error> {
    for receipt in Named::all(&args.receipts)? {
        let examined = examine(args, &receipt).await?;
        output::note(text(&examined.report).trim_end());
        tell(&examined);
        if examined.report.verdict != Verdict::Valid {
            return Ok(exit_code(examined.report.verdict));
        }
    }
    Ok(ExitCode::Ok)
}

pub async fn run(args: Args) -> Result<ExitCode, Error> {
    match args.receipts.as_slice() {
        [receipt] if !Path::new(receipt).is_dir() => run_one(&args, receipt).await,
        _ => run_many(&args).await,
    }
}

async fn run_one(args: &Args, receipt: &str) -> Result<ExitCode, Error> {
    let examined = examine(args, &Named::parse(receipt)).await?;
    let report = &examined.report;
    match args.output {
        Format::Text => output::print(&text(report))?,
        Format::Json => output::print_json(&Printed {
            receipt,
            exit_code: report.verdict.exit_code(),
            notes: &examined.notes,
            report,
        })?,
    }
    tell(&examined);
    if examined.other_pin {
        tell_of_other_pin();
    }
    Ok(exit_code(report.verdict))
}

async fn examine(args: &Args, receipt: &Named) -> Result<Examined, Error> {
    let bytes = Reader::new(&args.cluster).read(receipt).await?;
    let desk = Desk::open(args, std::slice::from_ref(receipt)).await?;
    desk.examine(receipt, &bytes)
}

/// Many receipts, a part at a time, so that memory does not grow with their number.
async fn run_many(args: &Args) -> Result<ExitCode, Error> {
    let receipts = Named::all(&args.receipts)?;
    let desk = Desk::open(args, &receipts).await?;
    let jobs = rayon::ThreadPoolBuilder::new()
        .num_threads(args.jobs.map_or(0, NonZero::get))
        .build()
        .map_err(|cause| Error::failed("cannot start the jobs").because(&cause))?;
    let mut reader = Reader::new(&args.cluster);
    let mut tally = Tally::default();
    let mut list = Vec::new();
    let bar = progress(receipts.len());
    for part in receipts.chunks(PART) {
        let fetched = fetch(&mut reader, part).await;
        let examined: Vec<Entry> = jobs.install(|| {
            let part = part.par_iter().zip(fetched);
            part.map(|(receipt, fetched)| examine_fetched(&desk, receipt, fetched))
                .collect()
        });
        for entry in examined {
            tally.count(&entry);
            match args.output {
                Format::Text => bar.suspend(|| output::print(&entry.text(args.verbose)))?,
                Format::Json => list.push(entry),
            }
        }
        bar.inc(part.len() as u64);
    }
    bar.finish_and_clear();
    match args.output {
        Format::Text => output::print(&format!("\n{tally}"))?,
        Format::Json => output::print_json(&list)?,
    }
    if tally.other_pin {
        tell_of_other_pin();
    }
    Ok(tally.exit_code())
}

/// The bytes of those receipts that are no files: files are read by the job that verifies them.
async fn fetch(reader: &mut Reader<'_>, receipts: &[Named]) -> Vec<Option<Result<Vec<u8>, Error>>> {
    let mut fetched = Vec::with_capacity(receipts.len());
    for receipt in receipts {
        fetched.push(match receipt {
            Named::File(_) => None,
            Named::Stdin | Named::Cluster(_) => Some(reader.read(receipt).await),
        });
    }
    fetched
}

fn examine_fetched(desk: &Desk, receipt: &Named, fetched: Option<Result<Vec<u8>, Error>>) -> Entry {
    let bytes = match (fetched, receipt) {
        (Some(bytes), _) => bytes,
        (None, Named::File(path)) => read_file(path),
        (None, _) => Err(Error::failed(format!("{receipt} was not read"))),
    };
    Entry::new(receipt, bytes.and_then(|bytes| desk.examine(receipt, &bytes)))
}

/// Drawn on stderr, and nothing where that is no terminal.
fn progress(receipts: usize) -> ProgressBar {
    let bar = ProgressBar::new(receipts as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} receipts, {per_sec}, {eta} left") {
        bar.set_style(style);
    }
    bar
}

fn tell(examined: &Examined) {
    for note in &examined.notes {
        output::note(format_args!("note: {note}"));
    }
}

fn tell_of_other_pin() {
    output::note(
        "hint: the root that `chimera trust pin` stored is another; --root KEYID names the one to trust here",
    );
}

fn exit_code(verdict: Verdict) -> ExitCode {
    match verdict {
        Verdict::Valid => ExitCode::Ok,
        Verdict::NotAReceipt => ExitCode::Usage,
        Verdict::BadSignature => ExitCode::BadSignature,
        Verdict::UntrustedKey => ExitCode::UntrustedKey,
        Verdict::DigestMismatch => ExitCode::DigestMismatch,
    }
}

/// A report as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Printed<'a> {
    receipt: &'a str,
    exit_code: u8,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    notes: &'a [String],
    #[serde(flatten)]
    report: &'a Report,
}

fn text(report: &Report) -> String {
    let mut text = checks(&report.checks, |_| true);
    let _ = writeln!(text, "verdict: {}", report.verdict);
    text
}

/// A line for each of the checks that `shown` chooses.
fn checks(checks: &[Check], shown: impl Fn(&Check) -> bool) -> String {
    let names = checks.iter().map(|check| check.name.len());
    let width = names.max().unwrap_or(0);
    let mut text = String::new();
    for check in checks.iter().filter(|check| shown(check)) {
        let mark = if check.passed { "ok  " } else { "FAIL" };
        let detail = output::harmless(&check.detail);
        let _ = writeln!(text, "{mark}  {:width$}  {detail}", check.name);
    }
    text
}
