//! `chimera status NAME`: what became of a workflow, at a glance.

use api::MamlWorkflow;
use api::condition::{self, Condition};

use crate::cluster::{self, WorkflowArgs};
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::output::{self, Format};

/// Shows what became of a workflow
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    workflow: WorkflowArgs,

    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub async fn run(args: Args) -> Result<ExitCode, Error> {
    let (.., workflow) = args.workflow.find().await?;
    args.output.print(&workflow, text)?;
    Ok(ExitCode::Ok)
}

/// One word for how far the run has come.
pub fn phase(workflow: &MamlWorkflow) -> String {
    let reason = |condition: &Condition| condition.reason.clone();
    let ready = cluster::current(workflow, condition::READY);
    ready.map_or_else(|| api::reasons::PENDING.to_owned(), reason)
}

fn text(workflow: &MamlWorkflow) -> String {
    let status = workflow.status.clone().unwrap_or_default();
    let mut lines = Vec::new();
    let mut line = |name: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            lines.push(format!("{name:<11}{}", output::harmless(&value)));
        }
    };
    line("Workflow", workflow.metadata.name.clone());
    line("Phase", Some(phase(workflow)));
    line(
        "Message",
        cluster::current(workflow, condition::READY).map(|ready| ready.message.clone()),
    );
    line("Submitter", workflow.spec.submitter.clone());
    line("Acts as", workflow.spec.act_as.clone());
    line("Run", status.run_id.clone());
    line(
        "Attempt",
        status
            .attempt
            .filter(|attempt| *attempt > 1)
            .map(|attempt| attempt.to_string()),
    );
    line(
        "Head",
        status
            .head
            .as_ref()
            .map(|head| format!("{} (pod {})", head.name, head.pod)),
    );
    line("Duration", status.duration.clone());
    line(
        "GPU-seconds",
        status
            .gpu_seconds
            .filter(|seconds| *seconds > 0.0)
            .map(|seconds| format!(" {seconds:.3}")),
    );
    line(
        "Receipt",
        status.receipt_ref.as_ref().map(|receipt| receipt.name.clone()),
    );
    let mut text = lines.join("\n");
    text.push('\n');
    if !status.blocks.is_empty() {
        let rows: Vec<Vec<String>> = status
            .blocks
            .iter()
            .map(|block| {
                let duration = block
                    .duration_millis
                    .map(|millis| format!("{millis} ms"))
                    .unwrap_or_default();
                vec![
                    block.name.clone(),
                    block.language.clone(),
                    format!("{:?}", block.state),
                    duration,
                ]
            })
            .collect();
        text.push('\n');
        text.push_str(&output::table(&["BLOCK", "LANGUAGE", "STATE", "DURATION"], &rows));
    }
    if !status.conditions.is_empty() {
        let rows: Vec<Vec<String>> = status
            .conditions
            .iter()
            .map(|condition| {
                vec![
                    condition.type_.clone(),
                    condition.status.as_str().to_owned(),
                    condition.reason.clone(),
                    output::harmless(&condition.message),
                ]
            })
            .collect();
        text.push('\n');
        text.push_str(&output::table(
            &["CONDITION", "STATUS", "REASON", "MESSAGE"],
            &rows,
        ));
    }
    if let Some(outputs) = &status.outputs {
        text.push_str("\nOutputs\n");
        text.push_str(&serde_json::to_string_pretty(outputs).unwrap_or_default());
        text.push('\n');
    }
    text
}
