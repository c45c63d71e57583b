//! `chimera events NAME`: what was reported about a workflow, oldest first.

use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use kube::{Api, Client};
use serde::Serialize;

use crate::cluster::WorkflowArgs;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::output::{self, Format};

/// Lists the events of a workflow, oldest first
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    workflow: WorkflowArgs,

    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// One event, as far as a reader needs it.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// When it happened last.
    pub time: Option<Timestamp>,
    /// `Normal` or `Warning`.
    pub kind: String,
    /// Why, as one word.
    pub reason: String,
    /// Why, as a sentence.
    pub message: String,
    /// How often.
    pub count: i32,
}

pub async fn run(args: Args) -> Result<ExitCode, Error> {
    let (client, _, workflow) = args.workflow.find().await?;
    let uid = workflow.metadata.uid.as_deref().unwrap_or_default();
    let reports = of(client, uid).await?;
    args.output.print(&reports, |reports| {
        let rows: Vec<Vec<String>> = reports
            .iter()
            .map(|report| {
                vec![
                    report.time.map(|time| format!("{time:.0}")).unwrap_or_default(),
                    report.kind.clone(),
                    report.reason.clone(),
                    report.count.to_string(),
                    output::harmless(&report.message),
                ]
            })
            .collect();
        output::table(&["TIME", "TYPE", "REASON", "COUNT", "MESSAGE"], &rows)
    })?;
    Ok(ExitCode::Ok)
}

/// The events about the object with this UID, oldest first.
pub async fn of(client: Client, uid: &str) -> Result<Vec<Report>, Error> {
    let events: Api<Event> = Api::default_namespaced(client);
    let about = ListParams::default().fields(&format!("regarding.uid={uid}"));
    let mut reports: Vec<Report> = events.list(&about).await?.into_iter().map(report).collect();
    reports.sort_by_key(|report| report.time);
    Ok(reports)
}

fn report(event: Event) -> Report {
    let series = event.series.as_ref();
    let first = event.event_time.as_ref().map(|time| time.0);
    let last = series.map(|series| series.last_observed_time.0);
    let created = event.metadata.creation_timestamp.as_ref().map(|time| time.0);
    Report {
        time: last.or(first).or(created),
        kind: event.type_.unwrap_or_default(),
        reason: event.reason.unwrap_or_default(),
        message: event.note.unwrap_or_default(),
        count: series.map_or(1, |series| series.count),
    }
}
