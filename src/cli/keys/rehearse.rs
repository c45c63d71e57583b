//! `chimera keys rehearse`: whole rotations on a copy. Reads the cluster, writes nothing.

use std::fmt::Write as _;
use std::path::PathBuf;

use api::key_rotation_policy::{Algorithm, KeyRotationPolicySpec, Purpose, Rotation};
use api::{KeyRotationPolicy, MuReceipt};
use crypto::trust::{Bundle, TrustedKeys};
use crypto::verify::{Verdict, verify_with};
use jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, Client};
use serde::Serialize;

use super::policy::PolicyName;
use super::rehearsal::{Line, Rehearsal};
use crate::cluster::ClusterArgs;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::output::{self, Format};
use crate::trust::{self, OperatorArgs};

#[derive(clap::Args, Debug)]
pub struct Args {
    /// The KeyRotationPolicy: NAME in the operator's namespace, or NAMESPACE/NAME
    #[arg(default_value = api::names::DEFAULT_SIGNING_POLICY)]
    policy: PolicyName,

    /// Needs no cluster: rehearses a signing policy that rotates every 24 hours
    #[arg(long)]
    offline: bool,

    /// A file with the bundle to copy, instead of the cluster's; implies --offline
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,

    /// How many of the cluster's receipts to verify before and after
    #[arg(long, value_name = "COUNT", default_value_t = 200)]
    receipts: u32,

    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    operator: OperatorArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// What is copied.
struct Original {
    policy: KeyRotationPolicy,
    bundle: Option<Bundle>,
    receipts: Vec<MuReceipt>,
}

/// What came of it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    policy: String,
    purpose: Purpose,
    steps: Vec<Line>,
    /// How many receipts were signed, or secrets sealed, on the way.
    samples: usize,
    /// How many receipts of the cluster were verified before and after.
    receipts: usize,
    /// How many of those were valid, both times.
    valid: usize,
    passed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

pub async fn run(args: Args) -> Result<ExitCode, Error> {
    let original = read(&args).await?;
    let report = rehearse(&args, original)?;
    args.output.print(&report, text)?;
    Ok(if report.passed {
        ExitCode::Ok
    } else {
        ExitCode::Failed
    })
}

async fn read(args: &Args) -> Result<Original, Error> {
    if let Some(file) = &args.trust {
        return Ok(Original::offline(Some(trust::read_file(file)?), args));
    }
    if args.offline {
        return Ok(Original::offline(None, args));
    }
    let client = args.cluster.connect().await?;
    let policies = args.policy.api(client.clone(), &args.operator.operator_namespace);
    Ok(Original {
        policy: args.policy.find(&policies).await?,
        bundle: Some(trust::read_cluster(&args.cluster, &args.operator).await?),
        receipts: read_receipts(client, args.receipts).await?,
    })
}

impl Original {
    fn offline(bundle: Option<Bundle>, args: &Args) -> Self {
        let spec = KeyRotationPolicySpec {
            purpose: Purpose::Signing,
            algorithm: Algorithm::MlDsa87,
            rotation: Rotation {
                interval: Some("24h".to_owned()),
                ..Rotation::default()
            },
            retain: 8,
            suspend: false,
            revoked: Vec::new(),
        };
        let mut policy = KeyRotationPolicy::new(&args.policy.name, spec);
        policy.metadata.namespace = Some(args.operator.operator_namespace.clone());
        Self {
            policy,
            bundle,
            receipts: Vec::new(),
        }
    }
}

/// Receipts of every namespace, or of one's own where only those may be read.
async fn read_receipts(client: Client, count: u32) -> Result<Vec<MuReceipt>, Error> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let params = ListParams::default().limit(count);
    let everywhere: Api<MuReceipt> = Api::all(client.clone());
    match everywhere.list(&params).await {
        Ok(receipts) => Ok(receipts.items),
        Err(kube::Error::Api(status)) if status.code == 403 => {
            let own: Api<MuReceipt> = Api::default_namespaced(client);
            Ok(own.list(&params).await?.items)
        }
        Err(cause) => Err(cause.into()),
    }
}

fn rehearse(args: &Args, original: Original) -> Result<Report, Error> {
    let before = original.bundle.as_ref().map(trust::believe).transpose()?;
    let failed = |problem: String| Error::failed(format!("cannot rehearse: {problem}"));
    let purpose = original.policy.spec.purpose;
    let namespace = &args.operator.operator_namespace;
    let mut rehearsal =
        Rehearsal::new(original.policy, namespace, original.bundle, Timestamp::now()).map_err(failed)?;
    let mut result = rehearsal.run();
    let mut valid = 0;
    if let (Ok(()), Some(before)) = (&result, &before) {
        let after = rehearsal.trusted().map_err(failed)?;
        match compare(&original.receipts, before, &after) {
            Ok(count) => valid = count,
            Err(problem) => result = Err(problem),
        }
    }
    Ok(Report {
        policy: args.policy.to_string(),
        purpose,
        steps: rehearsal.lines().to_vec(),
        samples: rehearsal.samples(),
        receipts: original.receipts.len(),
        valid,
        passed: result.is_ok(),
        problem: result.err(),
    })
}

/// The receipts' verdicts must be the same before and after; how many are valid.
fn compare(receipts: &[MuReceipt], before: &TrustedKeys, after: &TrustedKeys) -> Result<usize, String> {
    let mut valid = 0;
    for receipt in receipts {
        let verdict = |keys| verify_with(receipt.spec.envelope.as_bytes(), Ok(keys), None, None).verdict;
        let (was, is) = (verdict(before), verdict(after));
        if was != is {
            let name = receipt.metadata.name.as_deref().unwrap_or_default();
            return Err(format!("the receipt {name} was {was} before and is {is} after"));
        }
        valid += usize::from(is == Verdict::Valid);
    }
    Ok(valid)
}

fn text(report: &Report) -> String {
    let rows: Vec<_> = report
        .steps
        .iter()
        .map(|line| {
            vec![
                line.phase.to_owned(),
                line.at.to_string(),
                line.step.clone(),
                line.key.as_ref().map_or("none yet", |key| key.short()).to_owned(),
            ]
        })
        .collect();
    let steps = output::table(&["ROTATION", "CLOCK", "WRITE", "KEY IN USE"], &rows);
    let made = if report.purpose == Purpose::Signing {
        "receipts were signed on the way; all verify with the root that was pinned first"
    } else {
        "secrets were sealed on the way; all opened, as long as their keys were kept"
    };
    let verdict = match &report.problem {
        None => {
            "passed: from the first publication on, a key was in use before and after each write".to_owned()
        }
        Some(problem) => format!("failed: {problem}"),
    };
    let mut text = format!("{steps}\n");
    if report.passed {
        let _ = writeln!(text, "{} {made}", report.samples);
        if report.receipts > 0 {
            let _ = writeln!(
                text,
                "{} receipts of the cluster verify as before, {} of them as valid",
                report.receipts, report.valid
            );
        }
    }
    text.push_str(&verdict);
    text
}
