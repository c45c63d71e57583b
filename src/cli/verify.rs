//! `chimera verify`: every check of a receipt on a line, then the verdict. Works on files alone, without a cluster.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use api::MuReceipt;
use clap::ValueEnum;
use controller_core::receipt_check::check_object;
use crypto::verify::{Report, Verdict, verify_with};
use crypto::{KeyId, VerifyingKey};
use kube::Api;
use serde::Serialize;
use serde_json::Value;

use crate::cluster::ClusterArgs;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::output;
use crate::trust::{self, OperatorArgs};

/// Verifies a receipt: each check on a line, then the verdict
///
/// Needs neither a cluster nor a network when the receipt and the trust bundle are files. Exit codes: 0 valid, 2 not a receipt,
/// 10 bad signature, 11 untrusted key, 12 digest mismatch, 13 no such receipt.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The receipt: a file, `-` for standard input, or `mur/NAME` to read it from the cluster
    ///
    /// A file holds the envelope (JSON), or a whole MuReceipt (YAML or JSON, from `kubectl get mur NAME -o yaml`); the plain
    /// fields of the latter are compared with what is signed.
    receipt: String,

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

    /// The document that the receipt must be about, byte for byte
    #[arg(long, value_name = "FILE")]
    document: Option<PathBuf>,

    /// The outputs that the receipt must be about: JSON, in any layout
    #[arg(long, value_name = "FILE")]
    outputs: Option<PathBuf>,

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
    /// A line for each check.
    #[default]
    Text,
    /// JSON, indented.
    Json,
}

impl Args {
    /// What `--verify` of another verb asks for: the receipt of that name in the cluster, under the cluster's bundle.
    pub fn of_cluster(name: &str, cluster: ClusterArgs, operator: OperatorArgs) -> Self {
        Self {
            receipt: format!("mur/{name}"),
            trust: None,
            root: None,
            document: None,
            outputs: None,
            output: Format::Text,
            cluster,
            operator,
        }
    }
}

/// The verdict on a receipt in the cluster; the checks go to stderr, since stdout holds another verb's data.
pub async fn aside(args: &Args) -> Result<ExitCode, Error> {
    let (report, notes, _) = examine(args).await?;
    output::note(text(&report).trim_end());
    for note in notes {
        output::note(format_args!("note: {note}"));
    }
    Ok(exit_code(report.verdict))
}

pub async fn run(args: Args) -> Result<ExitCode, Error> {
    let (report, notes, other_pin) = examine(&args).await?;
    match args.output {
        Format::Text => output::print(&text(&report))?,
        Format::Json => output::print_json(&Printed {
            receipt: &args.receipt,
            exit_code: report.verdict.exit_code(),
            notes: &notes,
            report: &report,
        })?,
    }
    for note in notes {
        output::note(format_args!("note: {note}"));
    }
    if other_pin {
        output::note(
            "hint: the root that `chimera trust pin` stored is another; --root KEYID names the one to trust here",
        );
    }
    Ok(exit_code(report.verdict))
}

/// Reads everything and makes every check: the report, notes, and whether another root than the pinned one was met.
async fn examine(args: &Args) -> Result<(Report, Vec<String>, bool), Error> {
    let source = read_receipt(args).await?;
    let named = args.root.as_deref().map(parse_root).transpose()?;
    let trust = args.trust.as_deref();
    let anchor = if in_cluster(&args.receipt).is_some() {
        trust::of_cluster(trust, &args.cluster, &args.operator).await?
    } else {
        trust::of_file(trust, signer(&source).as_deref())?
    };
    let document = read_evidence(args.document.as_deref())?;
    let outputs = read_evidence(args.outputs.as_deref())?;

    let trusted = anchor
        .bundle
        .verify_pinned(named.as_ref().or(anchor.pinned.as_ref()));
    let held_against = |outputs: Option<&[u8]>| {
        let evidence = Evidence {
            document: document.as_deref(),
            outputs,
        };
        judge(&source, trusted.as_ref(), &evidence)
    };
    let (mut report, mut notes) = held_against(outputs.as_deref());
    if report.failure().is_some_and(|check| check.name == "outputs")
        && let Some(signed) = outputs.as_deref().and_then(as_signed)
    {
        (report, notes) = held_against(Some(&signed));
    }
    if anchor.local {
        notes.push("signed on this machine, and checked under its own root".to_owned());
    }
    let other_pin = named.is_none()
        && anchor.pinned.is_some()
        && report.failure().is_some_and(|check| check.name == "root");
    Ok((report, notes, other_pin))
}

/// The key that a receipt says it is signed with; nothing is believed of it.
fn signer(source: &[u8]) -> Option<String> {
    let key_id = |bytes: &[u8]| Some(crypto::Envelope::from_json(bytes).ok()?.key_id().to_owned());
    match open_source(source) {
        Source::Envelope(bytes) => key_id(bytes),
        Source::Object(_, envelope) => key_id(&envelope),
        Source::Broken(..) => None,
    }
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

/// What a receipt is held against beside the trust bundle.
struct Evidence<'a> {
    document: Option<&'a [u8]>,
    outputs: Option<&'a [u8]>,
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

/// `NAME` of `mur/NAME`, and of the other names of the kind.
fn in_cluster(receipt: &str) -> Option<&str> {
    let (kind, name) = receipt.split_once('/')?;
    let known = ["mur", "mureceipt", "mureceipts", "mureceipts.chimera.dunes.io"].contains(&kind);
    (known && !name.is_empty() && !name.contains('/')).then_some(name)
}

async fn read_receipt(args: &Args) -> Result<Vec<u8>, Error> {
    if args.receipt == "-" {
        let mut bytes = Vec::new();
        std::io::stdin()
            .read_to_end(&mut bytes)
            .map_err(|cause| Error::failed("cannot read the receipt from standard input").because(&cause))?;
        return Ok(bytes);
    }
    if let Some(name) = in_cluster(&args.receipt) {
        let client = args.cluster.connect().await?;
        let receipts: Api<MuReceipt> = Api::default_namespaced(client.clone());
        let receipt = receipts.get_opt(name).await?.ok_or_else(|| {
            let namespace = client.default_namespace();
            Error::new(
                ExitCode::NoReceipt,
                format!("there is no MuReceipt {name} in namespace {namespace}"),
            )
            .hint("kubectl get mur -A")
        })?;
        return serde_json::to_vec(&receipt)
            .map_err(|cause| Error::failed("cannot read the MuReceipt").because(&cause));
    }
    std::fs::read(&args.receipt).map_err(|cause| {
        let missing = cause.kind() == std::io::ErrorKind::NotFound;
        let code = if missing {
            ExitCode::NoReceipt
        } else {
            ExitCode::Failed
        };
        let error = Error::new(code, format!("cannot read the receipt {}", args.receipt)).because(&cause);
        if missing {
            error.hint("a receipt is a file, `-`, or mur/NAME for one in the cluster")
        } else {
            error
        }
    })
}

fn read_evidence(path: Option<&Path>) -> Result<Option<Vec<u8>>, Error> {
    let read = |path: &Path| {
        std::fs::read(path)
            .map_err(|cause| Error::usage(format!("cannot read {}", path.display())).because(&cause))
    };
    path.map(read).transpose()
}

/// The form in which heads sign outputs: no white space, members in order, whole numbers without a fraction. Outputs
/// that went through a cluster or a formatter get their signed bytes back; `None` when they are no JSON.
fn as_signed(outputs: &[u8]) -> Option<Vec<u8>> {
    fn whole(value: &mut Value) {
        match value {
            Value::Number(number) => {
                let float = number
                    .as_f64()
                    .filter(|float| number.is_f64() && float.fract() == 0.0);
                if let Some(float) = float.filter(|float| float.abs() < 9_007_199_254_740_992.0) {
                    #[expect(clippy::cast_possible_truncation, reason = "a whole number below 2^53")]
                    let integer = float as i64;
                    *number = integer.into();
                }
            }
            Value::Array(items) => items.iter_mut().for_each(whole),
            Value::Object(members) => members.values_mut().for_each(whole),
            Value::Null | Value::Bool(_) | Value::String(_) => {}
        }
    }
    let mut value = serde_json::from_slice(outputs).ok()?;
    whole(&mut value);
    serde_json::to_vec(&value).ok()
}

/// A key id, or the id of the key in a PEM file.
fn parse_root(root: &str) -> Result<KeyId, Error> {
    if let Ok(id) = root.parse() {
        return Ok(id);
    }
    let pem = std::fs::read_to_string(root).map_err(|cause| {
        Error::usage(format!("cannot read the root {root}"))
            .because(&cause)
            .hint("--root takes a key id of 64 hexadecimal digits, or a file with a public key in PEM")
    })?;
    let key = VerifyingKey::from_spki_pem(&pem)
        .map_err(|cause| Error::usage(format!("cannot read the public key in {root}")).because(&cause))?;
    Ok(key.key_id().clone())
}

/// Every check of one receipt, and what a reader should know besides.
fn judge(
    source: &[u8],
    trusted: Result<&crypto::trust::TrustedKeys, &crypto::trust::Error>,
    evidence: &Evidence<'_>,
) -> (Report, Vec<String>) {
    let mut notes = Vec::new();
    match open_source(source) {
        Source::Envelope(bytes) => (
            verify_with(bytes, trusted, evidence.document, evidence.outputs),
            notes,
        ),
        Source::Object(receipt, envelope) => {
            let mut report = verify_with(&envelope, trusted, evidence.document, evidence.outputs);
            if let Some(statement) = report.statement.take() {
                notes = check_object(&mut report, &receipt, &statement);
                report.statement = Some(statement);
            }
            (report, notes)
        }
        Source::Broken(detail, verdict) => {
            let mut report = Report::new();
            report.check("object", false, detail, verdict);
            (report, notes)
        }
    }
}

/// The forms in which a receipt is handed in.
enum Source<'a> {
    /// Bytes that should be an envelope.
    Envelope(&'a [u8]),
    /// A MuReceipt and the envelope in it.
    Object(Box<MuReceipt>, Vec<u8>),
    /// A MuReceipt that cannot be read, and what that means.
    Broken(String, Verdict),
}

fn open_source(bytes: &[u8]) -> Source<'_> {
    let text = String::from_utf8_lossy(bytes);
    let is_object = text.contains("MuReceipt") && text.contains("envelope");
    if !is_object {
        return Source::Envelope(bytes);
    }
    let value = if text.trim_start().starts_with('{') {
        serde_json::from_slice::<serde_json::Value>(bytes).map_err(|error| error.to_string())
    } else {
        serde_saphyr::from_str::<serde_json::Value>(&text).map_err(|error| error.to_string())
    };
    let mut value = match value {
        Ok(value) => value,
        Err(error) => {
            return Source::Broken(
                format!("a MuReceipt that was damaged: {error}"),
                Verdict::BadSignature,
            );
        }
    };
    if value["kind"] == "List" {
        let detail = "a list of objects: give one receipt at a time";
        return Source::Broken(detail.to_owned(), Verdict::NotAReceipt);
    }
    if value["kind"] != "MuReceipt" {
        return Source::Envelope(bytes);
    }
    // An envelope that was unpacked into an object by some tool is packed again; the payload's own bytes are inside.
    if let Some(envelope) = value.pointer_mut("/spec/envelope")
        && envelope.is_object()
    {
        *envelope = serde_json::Value::String(envelope.to_string());
    }
    match serde_json::from_value::<MuReceipt>(value) {
        Ok(receipt) => {
            let envelope = receipt.spec.envelope.clone().into_bytes();
            Source::Object(Box::new(receipt), envelope)
        }
        Err(error) => Source::Broken(
            format!("a MuReceipt without a sound spec: {error}"),
            Verdict::NotAReceipt,
        ),
    }
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    let width = report
        .checks
        .iter()
        .map(|check| check.name.len())
        .max()
        .unwrap_or(0);
    for check in &report.checks {
        let mark = if check.passed { "ok  " } else { "FAIL" };
        let _ = writeln!(
            text,
            "{mark}  {:width$}  {}",
            check.name,
            output::harmless(&check.detail)
        );
    }
    let _ = writeln!(text, "verdict: {}", report.verdict);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_get_their_signed_bytes_back_in_any_layout() {
        let printed = "{\n  \"b\": \"\\u0001ä\",\n  \"a\": [1.0, 5e-1]\n}\n";
        assert_eq!(
            as_signed(printed.as_bytes()).as_deref(),
            Some("{\"a\":[1,0.5],\"b\":\"\\u0001ä\"}".as_bytes())
        );
        assert_eq!(as_signed(b"no JSON"), None);
    }
}
