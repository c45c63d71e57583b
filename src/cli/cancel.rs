//! `chimera cancel NAME`: asks for the end of a run.

use api::names::CANCEL_ANNOTATION;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::cluster::{self, WorkflowArgs};
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::output;

/// Cancels a run; its receipt says so
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    workflow: WorkflowArgs,
}

pub async fn run(args: Args) -> Result<ExitCode, Error> {
    let (_, workflows, workflow) = args.workflow.find().await?;
    let name = &args.workflow.name;
    if cluster::is_complete(&workflow) {
        output::note(format!("{name} is complete already"));
        return Ok(ExitCode::Ok);
    }
    // The annotation belongs to whoever asks, so it is a merge and not an apply that would have to own it.
    let patch = json!({"metadata": {"annotations": {CANCEL_ANNOTATION: "true"}}});
    workflows
        .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    output::note(format!(
        "{name} is asked to end; watch it with `chimera status {name}`"
    ));
    Ok(ExitCode::Ok)
}
