//! `chimera submit FILE`: checks a document here, creates a MamlWorkflow from it, and waits for its end when asked to.

use std::path::{Path, PathBuf};
use std::time::Duration;

use api::condition::{self, ConditionStatus};
use api::maml_workflow::Source;
use api::{Isolation, MamlWorkflow, MamlWorkflowSpec, Role};
use clap::ValueEnum;
use controller_core::sealed::hides;
use crypto::seal::Binding;
use kube::Api;
use kube::api::PostParams;
use maml::Document;
use serde_json::{Map, Value};

use crate::cluster::{self, ClusterArgs};
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::output::{self, Format};
use crate::seal::{self, Recipients, SealingArgs};
use crate::secret::{self, Secret};
use crate::source::{self, InputArgs};
use crate::{render, status, verify, wait};

/// Runs a document in the cluster
///
/// Prints the workflow's name or, with --wait, its outputs as JSON. Ends with 0 when it succeeded, 1 when it failed, 2 when the
/// document or its inputs are invalid, 3 when --timeout passed.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The document; `-` is stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Name of the workflow; made from the file's name when not given
    #[arg(long)]
    name: Option<String>,

    #[command(flatten)]
    inputs: InputArgs,

    /// An input that only its run may know, as NAME=VALUE, NAME=@FILE or NAME=@- for stdin; sealed for this document
    #[arg(long, value_name = "NAME=VALUE", value_parser = secret::parse)]
    seal: Vec<Secret>,

    /// A file that `chimera seal` wrote, for a workflow of this name
    #[arg(long, value_name = "FILE", conflicts_with = "seal")]
    sealed_inputs: Option<PathBuf>,

    /// The agent on whose behalf it runs
    #[arg(long, value_name = "agent://NAME", value_parser = source::parse_agent)]
    act_as: Option<String>,

    /// Runs only on heads of this role
    #[arg(long, value_enum)]
    role: Option<RoleArg>,

    /// Whose turn it is among runs that wait: the highest goes first
    #[arg(long, default_value_t, allow_negative_numbers = true, value_parser = clap::value_parser!(i32).range(-1000..=1000))]
    priority: i32,

    /// A sandbox on a warm pod, or a pod that is made for this run alone
    #[arg(long, value_enum, default_value_t = IsolationArg::Process)]
    isolation: IsolationArg,

    /// How long the program may run, such as 90s or 5m
    #[arg(long, value_name = "DURATION", value_parser = api::duration::parse)]
    run_timeout: Option<Duration>,

    /// Waits for the end of the run and prints its outputs
    #[arg(short, long)]
    wait: bool,

    /// How long to wait, such as 90s or 5m; the run itself goes on
    #[arg(long, value_name = "DURATION", requires = "wait", value_parser = api::duration::parse)]
    timeout: Option<Duration>,

    /// Verifies the receipt when the run is over; the checks go to stderr
    #[arg(long, requires = "wait")]
    verify: bool,

    /// Prints the workflow instead of creating it
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,

    #[arg(short, long, value_enum, default_value_t)]
    output: Format,

    #[command(flatten)]
    cluster: ClusterArgs,

    #[command(flatten)]
    sealing: SealingArgs,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RoleArg {
    Quantum,
    Crypto,
    Inference,
    Orchestrator,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum IsolationArg {
    Process,
    Pod,
}

impl From<IsolationArg> for Isolation {
    fn from(isolation: IsolationArg) -> Self {
        match isolation {
            IsolationArg::Process => Self::Process,
            IsolationArg::Pod => Self::Pod,
        }
    }
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Quantum => Self::Quantum,
            RoleArg::Crypto => Self::Crypto,
            RoleArg::Inference => Self::Inference,
            RoleArg::Orchestrator => Self::Orchestrator,
        }
    }
}

pub async fn run(args: Args) -> Result<ExitCode, Error> {
    let text = source::read_text(&args.file)?;
    let Some(document) = accept(&args.file, &text) else {
        return Ok(ExitCode::Usage);
    };
    let inputs = args.inputs.read()?;
    let secrets = secret::read(&args.seal)?;
    check_inputs(&document, &inputs, &secrets, args.sealed_inputs.is_some())?;
    let mut workflow = workflow(&args, text, inputs)?;
    add_sealed(&mut workflow, &args, secrets).await?;
    if args.dry_run {
        let format = if args.output == Format::Table {
            Format::Yaml
        } else {
            args.output
        };
        format.print(&workflow, |_| String::new())?;
        return Ok(ExitCode::Ok);
    }
    let client = args.cluster.connect().await?;
    let workflows: Api<MamlWorkflow> = Api::default_namespaced(client);
    let params = PostParams {
        field_manager: Some("chimera-cli".to_owned()),
        ..PostParams::default()
    };
    let created = workflows
        .create(&params, &workflow)
        .await
        .map_err(|cause| match &cause {
            kube::Error::Api(refused) if refused.reason == "AlreadyExists" => {
                Error::failed(refused.message.clone())
                    .hint("choose another name with --name, or leave it out")
            }
            _ => cause.into(),
        })?;
    let name = created.metadata.name.clone().unwrap_or_default();
    if !args.wait {
        args.output
            .print(&created, |_| format!("mamlworkflow.chimera.dunes.io/{name}"))?;
        return Ok(ExitCode::Ok);
    }
    output::note(format!("{name}: created"));
    let ended = follow(workflows, &name);
    let ended = match args.timeout {
        None => ended.await?,
        Some(limit) => match tokio::time::timeout(limit, ended).await {
            Ok(ended) => ended?,
            Err(_) => {
                return Err(
                    Error::new(ExitCode::TimedOut, format!("{name} did not end within {limit:?}"))
                        .hint(format!("it goes on; `chimera why {name}` says what it waits for")),
                );
            }
        },
    };
    let outcome = report(&ended, &name, args.output)?;
    if !args.verify {
        return Ok(outcome);
    }
    let receipt = ended.status.and_then(|status| status.receipt_ref);
    let receipt = receipt.ok_or_else(|| Error::new(ExitCode::NoReceipt, format!("{name} has no receipt")))?;
    let verify = verify::Args::of_cluster(&receipt.name, args.cluster, args.sealing.operator);
    match verify::aside(&verify).await? {
        ExitCode::Ok => Ok(outcome),
        verdict => Ok(verdict),
    }
}

/// The document, or nothing after its faults were printed.
fn accept(path: &Path, text: &str) -> Option<Document> {
    let reading = maml::read(text);
    let shown = source::shown(path);
    let summary = render::tell(&shown, text, reading.diagnostics.clone());
    let accepted = reading.accept().ok();
    if accepted.is_none() {
        Error::usage(format!("{shown} is not a valid document: {summary}"))
            .hint("`chimera explain CODE` tells more about a fault")
            .report();
    }
    accepted
}

/// Checks the inputs that are known here. Of those that are to be sealed, no value is told; of what is `partly` sealed
/// already, only the plain inputs themselves can be judged.
fn check_inputs(
    document: &Document,
    inputs: &Map<String, Value>,
    secrets: &Map<String, Value>,
    partly: bool,
) -> Result<(), Error> {
    if let Some(name) = secrets.keys().find(|name| inputs.contains_key(*name)) {
        return Err(Error::usage(format!(
            "input {name} is given twice, once to be sealed"
        )));
    }
    let Some(schema) = &document.input_schema else {
        return Ok(());
    };
    let mut all = inputs.clone();
    all.extend(secrets.clone());
    let violations: Vec<String> = schema
        .check(&schema.with_defaults(Value::Object(all)))
        .iter()
        .filter(|violation| !partly || !violation.pointer.is_empty())
        .map(|violation| {
            if hides(secrets, &violation.pointer) {
                format!(
                    "what is to be sealed breaks the schema's {}",
                    violation.schema_path
                )
            } else {
                violation.to_string()
            }
        })
        .collect();
    if violations.is_empty() {
        return Ok(());
    }
    Err(Error::usage(format!(
        "the inputs break the Input_Schema:\n  {}",
        violations.join("\n  ")
    ))
    .hint("set inputs with -i NAME=VALUE or --inputs FILE"))
}

/// Puts the sealed inputs into the workflow: sealed now, for its name and document, or before.
async fn add_sealed(
    workflow: &mut MamlWorkflow,
    args: &Args,
    secrets: Map<String, Value>,
) -> Result<(), Error> {
    if let Some(path) = &args.sealed_inputs {
        let sealed = seal::read_text(path)?
            .ok_or_else(|| Error::usage(format!("{} holds no sealed text", source::shown(path))))?;
        let meant = sealed.header().binding().workflow.clone();
        if args.name.as_ref().is_some_and(|name| *name != meant) {
            return Err(Error::usage(format!(
                "{} is sealed for workflow {meant}",
                source::shown(path)
            )));
        }
        workflow.metadata.name = Some(meant);
        workflow.spec.sealed_inputs = Some(sealed.to_json());
    } else if !secrets.is_empty() {
        let namespace = args.cluster.namespace().await?;
        let keys = Recipients::find(&namespace, &args.sealing, &args.cluster).await?;
        let name = workflow.metadata.name.as_deref().unwrap_or_default();
        let document = workflow.spec.source.inline.as_deref().map(str::as_bytes);
        let sealed = keys.seal(secrets, Binding::new(&namespace, name, document))?;
        workflow.spec.sealed_inputs = Some(sealed.to_json());
    }
    Ok(())
}

fn workflow(args: &Args, text: String, inputs: Map<String, Value>) -> Result<MamlWorkflow, Error> {
    let name = match &args.name {
        Some(name) => name.clone(),
        None => name_for(&args.file, &uuid::Uuid::new_v4().simple().to_string()),
    };
    let mut spec = MamlWorkflowSpec {
        source: Source {
            inline: Some(text),
            config_map_ref: None,
        },
        inputs,
        act_as: args.act_as.clone(),
        role: args.role.map(Role::from),
        priority: args.priority,
        isolation: args.isolation.into(),
        ..MamlWorkflowSpec::default()
    };
    if let Some(limit) = args.run_timeout {
        spec.timeout_seconds = i32::try_from(limit.as_secs().max(1))
            .map_err(|_| Error::usage("--run-timeout is longer than a run may take"))?;
    }
    Ok(MamlWorkflow::new(&name, spec))
}

/// `Bell State.maml.md` becomes `bell-state-1f3a9`.
fn name_for(path: &Path, random: &str) -> String {
    format!(
        "{}-{}",
        source::workflow_name(path),
        &random[..5.min(random.len())]
    )
}

/// Prints every change of phase until the run is over.
async fn follow(workflows: Api<MamlWorkflow>, name: &str) -> Result<MamlWorkflow, Error> {
    let last = std::cell::RefCell::new(String::new());
    wait::until(workflows, name, |workflow| {
        let now = progress(workflow);
        if *last.borrow() != now {
            output::note(format!("{name}: {}", output::harmless(&now)));
            last.replace(now);
        }
        cluster::is_complete(workflow)
    })
    .await
}

/// The state in a few words. What it waits for is the news, not that it waits.
fn progress(workflow: &MamlWorkflow) -> String {
    let head = workflow.status.as_ref().and_then(|status| status.head.as_ref());
    match (status::phase(workflow), head) {
        (phase, _) if cluster::is_complete(workflow) => phase,
        (phase, Some(head)) => format!("{phase} on {}", head.name),
        (phase, None) => match crate::why::explain(workflow, &[]).reason {
            reason if reason == phase => phase,
            reason => format!("{phase}: {reason}"),
        },
    }
}

/// Outputs on stdout; when it failed, why, on stderr.
fn report(workflow: &MamlWorkflow, name: &str, format: Format) -> Result<ExitCode, Error> {
    let status = workflow.status.clone().unwrap_or_default();
    if cluster::is(workflow, condition::SUCCEEDED, ConditionStatus::True) {
        match &status.outputs {
            Some(outputs) if format == Format::Yaml => format.print(outputs, |_| String::new())?,
            Some(outputs) => output::print_json(outputs)?,
            None if status.outputs_digest.is_some() => {
                output::note(format!(
                    "{name}: the outputs are too large for the status; their digest is in the receipt"
                ));
                output::print_json(&Map::new())?;
            }
            None => output::print_json(&Map::new())?,
        }
        if let Some(receipt) = &status.receipt_ref {
            output::note(format!("{name}: receipt {}", receipt.name));
        }
        return Ok(ExitCode::Ok);
    }
    let explanation = crate::why::explain(workflow, &[]);
    let mut message = explanation.summary;
    for detail in &explanation.details {
        message.push_str("\n  ");
        message.push_str(&output::harmless(detail));
    }
    let mut error = Error::failed(message);
    if let Some(help) = explanation.help {
        error = error.hint(help);
    }
    Err(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_become_names_of_workflows() {
        for (path, name) in [
            ("bell.maml.md", "bell-01234"),
            ("docs/Bell State_2.maml.md", "bell-state-2-01234"),
            ("-", "maml-01234"),
            ("ü.md", "maml-01234"),
            (
                &format!("{}.md", "a-".repeat(60)),
                &format!("{}-01234", "a-".repeat(25).trim_end_matches('-')),
            ),
        ] {
            assert_eq!(name_for(Path::new(path), "0123456789"), *name, "{path}");
        }
    }

    #[test]
    fn inputs_are_checked_with_their_defaults() {
        let text = "---\nmaml_version: \"2.0\"\nid: urn:x:a\ntype: workflow\n---\n## Intent\nx\n## Context\nx\n## Code_Blocks\n```python\nx = 1\n```\n## Input_Schema\n{\"required\": [\"a\", \"b\"], \"properties\": {\"a\": {\"default\": 1}, \"b\": {\"type\": \"integer\"}}}\n";
        let document = maml::read(text).accept().unwrap();
        let inputs = |value: Value| value.as_object().cloned().unwrap();
        assert!(
            check_inputs(
                &document,
                &inputs(serde_json::json!({"b": 2})),
                &Map::new(),
                false
            )
            .is_ok()
        );
        let error = check_inputs(
            &document,
            &inputs(serde_json::json!({"b": "x"})),
            &Map::new(),
            false,
        )
        .unwrap_err()
        .to_string();
        assert!(error.contains("/b"), "{error}");
        let secret = inputs(serde_json::json!({"b": "hunter2"}));
        let error = check_inputs(&document, &Map::new(), &secret, false)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("/properties/b/type") && !error.contains("hunter2"),
            "{error}"
        );
        assert!(check_inputs(&document, &Map::new(), &Map::new(), true).is_ok());
        assert!(check_inputs(&document, &secret, &secret, false).is_err());
    }
}
