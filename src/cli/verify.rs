//! `chimera verify`: every check of a receipt on a line, then the verdict. Works on files alone, without a cluster.

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use api::MuReceipt;
use api::mu_receipt::MuReceiptSpec;
use clap::ValueEnum;
use crypto::receipt::Statement;
use crypto::verify::{Report, Verdict, verify_with};
use crypto::{DigestSet, KeyId, VerifyingKey};
use kube::Api;
use serde::Serialize;

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
    /// Without it: the cluster's bundle when the receipt is `mur/NAME`, and otherwise the one that `chimera trust pin` stored.
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

    /// The outputs that the receipt must be about, byte for byte
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

pub async fn run(args: Args) -> Result<ExitCode, Error> {
    let source = read_receipt(&args).await?;
    let named = args.root.as_deref().map(parse_root).transpose()?;
    let from_cluster = in_cluster(&args.receipt).is_some().then_some(&args.cluster);
    let anchor = trust::resolve(args.trust.as_deref(), from_cluster, &args.operator).await?;
    let document = read_evidence(args.document.as_deref())?;
    let outputs = read_evidence(args.outputs.as_deref())?;

    let trusted = anchor
        .bundle
        .verify_pinned(named.as_ref().or(anchor.pinned.as_ref()));
    let evidence = Evidence {
        document: document.as_deref(),
        outputs: outputs.as_deref(),
    };
    let (report, notes) = judge(&source, trusted.as_ref(), &evidence);
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
    if named.is_none()
        && anchor.pinned.is_some()
        && report.failure().is_some_and(|check| check.name == "root")
    {
        output::note(
            "hint: the root that `chimera trust pin` stored is another; --root KEYID names the one to trust here",
        );
    }
    Ok(exit_code(report.verdict))
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
                check_fields(&mut report, &receipt, &statement);
                if let Some(mu) = &receipt.spec.mu {
                    check_mirror(&mut report, &mut notes, mu, &statement);
                }
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

/// The plain fields of a MuReceipt, each against what is signed.
fn check_fields(report: &mut Report, receipt: &MuReceipt, statement: &Statement) {
    let different = differing_fields(receipt, statement);
    let detail = if different.is_empty() {
        "the object's fields say what is signed".to_owned()
    } else {
        format!("not what is signed: {}", different.join(", "))
    };
    report.check("fields", different.is_empty(), detail, Verdict::DigestMismatch);
}

fn differing_fields(receipt: &MuReceipt, statement: &Statement) -> Vec<&'static str> {
    // Taken apart without `..`: a field that is added to the kind is compared here, or this does not compile.
    let MuReceiptSpec {
        workflow_ref,
        result,
        envelope: _,
        mu: _,
        algorithm,
        key_id,
        run_id,
        document_digest,
        outputs_digest,
        submitter,
        act_as,
        head,
        started_at,
        finished_at,
        gpu_seconds,
        error,
    } = &receipt.spec;
    let (external, internal, metadata) = (statement.external(), statement.internal(), statement.metadata());
    let workflow = &external.workflow;
    let same = |plain: &api::DigestSet, signed: &DigestSet| {
        plain.sha256 == signed.sha256 && plain.blake3 == signed.blake3
    };
    let granted = statement.grant().ok().flatten();
    let granted_head = granted
        .and_then(|envelope| serde_json::from_slice::<crypto::grant::Grant>(envelope.payload()).ok())
        .map(|grant| grant.head.name);
    let same_error = match (error, &internal.error) {
        (None, None) => true,
        (Some(plain), Some(signed)) => {
            plain.reason == signed.reason
                && plain.message == signed.message
                && plain.code == signed.code
                && plain.line.map(i64::from) == signed.line.map(i64::from)
                && plain.column.map(i64::from) == signed.column.map(i64::from)
        }
        _ => false,
    };
    [
        (
            "namespace",
            receipt
                .metadata
                .namespace
                .as_ref()
                .is_none_or(|namespace| *namespace == workflow.namespace),
        ),
        ("workflowRef.name", workflow_ref.name == workflow.name),
        ("workflowRef.uid", workflow_ref.uid == workflow.uid),
        (
            "workflowRef.generation",
            workflow_ref.generation == workflow.generation,
        ),
        (
            "workflowRef.attempt",
            i64::from(workflow_ref.attempt) == i64::from(workflow.attempt),
        ),
        ("result", result.as_str() == internal.result.name()),
        ("algorithm", *algorithm == internal.suite.name()),
        ("keyId", *key_id == internal.key_id.as_str()),
        ("runId", *run_id == metadata.invocation_id),
        ("documentDigest", same(document_digest, &external.document)),
        (
            "outputsDigest",
            match (outputs_digest, statement.outputs()) {
                (None, None) => true,
                (Some(plain), Some(signed)) => same(plain, &signed),
                _ => false,
            },
        ),
        (
            "submitter",
            submitter
                .as_ref()
                .is_none_or(|submitter| *submitter == external.submitter),
        ),
        ("actAs", *act_as == external.act_as),
        ("head", head.is_none() || *head == granted_head),
        (
            "startedAt",
            started_at.is_none_or(|time| time == metadata.started_on),
        ),
        (
            "finishedAt",
            finished_at.is_none_or(|time| time == metadata.finished_on),
        ),
        ("gpuSeconds", (gpu_seconds - statement.gpu_seconds()).abs() < 1e-9),
        ("error", same_error),
    ]
    .into_iter()
    .filter_map(|(field, same)| (!same).then_some(field))
    .collect()
}

/// The mirrored document, reversed, against the signed digest.
fn check_mirror(report: &mut Report, notes: &mut Vec<String>, mu: &str, statement: &Statement) {
    let name = "mirror";
    let (header, body) = match maml::mirror::read(mu) {
        Ok(read) => read,
        Err(error) => {
            report.check(name, false, error.to_string(), Verdict::DigestMismatch);
            return;
        }
    };
    let source = maml::mirror::reverse(body);
    let digest = DigestSet::of(source.as_bytes());
    if digest.blake3 != header.source_digest {
        let detail = "the mirrored text is not the one that its header names";
        report.check(name, false, detail, Verdict::DigestMismatch);
    } else if digest == statement.external().document {
        report.check(
            name,
            true,
            "reversed, it is the signed document",
            Verdict::DigestMismatch,
        );
    } else if source.contains("[redacted:") {
        notes.push(
            "the mirrored document was redacted, so it cannot be compared with what is signed".to_owned(),
        );
    } else {
        let detail = "reversed, it is another document than the signed one";
        report.check(name, false, detail, Verdict::DigestMismatch);
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
