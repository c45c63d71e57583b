//! `chimera logs NAME`: what the program of a workflow printed.
//!
//! The agent in a head's pod prints every line of every run as JSON with the run's id; this verb picks the lines of one run
//! out of the pod's log. Lines come from user code, so what could control the terminal is taken out.

use api::MamlWorkflow;
use futures::{AsyncBufRead, AsyncBufReadExt, TryStreamExt};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::LogParams;
use serde::{Deserialize, Serialize};

use crate::cluster::{self, WorkflowArgs};
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::{output, wait};

/// Prints what the program of a workflow printed
#[derive(clap::Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct Args {
    #[command(flatten)]
    workflow: WorkflowArgs,

    /// Prints only what came while this block was running
    #[arg(short, long, value_name = "BLOCK")]
    block: Option<String>,

    /// Waits for more until the run is over
    #[arg(short, long)]
    follow: bool,

    /// Keeps escape sequences and control characters of the program
    #[arg(long)]
    raw: bool,

    /// Puts the time before each line
    #[arg(long)]
    timestamps: bool,

    /// Prints the agent's JSON lines as they are
    #[arg(long, conflicts_with_all = ["raw", "timestamps"])]
    json: bool,
}

/// One line of a run's output, as the agent in the head prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogLine {
    /// The run that printed it.
    pub run_id: String,
    /// The block that was running; none before the first and after the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<String>,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// The line, without its end.
    pub line: String,
    /// When.
    #[serde(default)]
    pub timestamp: String,
}

/// Clocks of nodes and of the controller may differ by this much.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_secs(60);

pub async fn run(args: Args) -> Result<ExitCode, Error> {
    let (client, workflows, mut workflow) = args.workflow.find().await?;
    let name = &args.workflow.name;
    if args.follow && running_at(&workflow).is_none() && !cluster::is_complete(&workflow) {
        output::note(format!("{name} waits for a head"));
        workflow = wait::until(workflows.clone(), name, |workflow| {
            running_at(workflow).is_some() || cluster::is_complete(workflow)
        })
        .await?;
    }
    let Some(place) = running_at(&workflow) else {
        return Err(Error::failed(format!("{name} has not run")).hint(format!("chimera why {name}")));
    };
    if let Some(block) = &args.block {
        check_block(&workflow, block)?;
    }
    let printer = Printer {
        args: &args,
        run_id: &place.run_id,
    };
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let mut count = 0;
    if args.follow && !cluster::is_complete(&workflow) {
        let lines = open(&pods, &place, true).await?;
        tokio::select! {
            result = printer.print(lines, 0, &mut count) => result?,
            over = wait::until(workflows, name, |workflow| {
                cluster::is_complete(workflow) || running_at(workflow).is_none_or(|now| now.run_id != place.run_id)
            }) => workflow = over?,
        }
    }
    // When the run is over, its last lines are in the log, but the stream that was followed may not have brought them yet.
    let lines = open(&pods, &place, false).await?;
    let skip = count;
    printer.print(lines, skip, &mut count).await?;
    if count == 0 {
        // Only now are the blocks of a run known that was followed.
        if let Some(block) = &args.block {
            check_block(&workflow, block)?;
            output::note(format!("block {block} of {name} printed nothing"));
        } else {
            output::note(format!("{name} printed nothing"));
        }
    }
    Ok(ExitCode::Ok)
}

/// Where the current attempt runs, or ran.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    pod: String,
    run_id: String,
    since: Option<Timestamp>,
}

fn running_at(workflow: &MamlWorkflow) -> Option<Place> {
    let status = workflow.status.as_ref()?;
    let pod = status.head.as_ref()?.pod.clone();
    let since = status.scheduled_at.and_then(|at| at.checked_sub(CLOCK_SKEW).ok());
    Some(Place {
        pod,
        run_id: status.run_id.clone()?,
        since,
    })
}

/// A name that no block has is a mistake. The blocks are in the status when the run is over.
fn check_block(workflow: &MamlWorkflow, block: &str) -> Result<(), Error> {
    let blocks: Vec<_> = workflow
        .status
        .iter()
        .filter(|_| cluster::is_complete(workflow))
        .flat_map(|status| &status.blocks)
        .map(|block| block.name.as_str())
        .collect();
    if blocks.is_empty() || blocks.contains(&block) {
        return Ok(());
    }
    let name = workflow.metadata.name.as_deref().unwrap_or_default();
    Err(Error::failed(format!("{name} has no block {block}"))
        .hint(format!("its blocks: {}", blocks.join(", "))))
}

async fn open(pods: &Api<Pod>, place: &Place, follow: bool) -> Result<impl AsyncBufRead + use<>, Error> {
    let params = LogParams {
        follow,
        since_time: place.since,
        ..LogParams::default()
    };
    pods.log_stream(&place.pod, &params)
        .await
        .map_err(|cause| match &cause {
            kube::Error::Api(status) if status.code == 404 => {
                Error::failed(format!("the pod {} is gone, and its log with it", place.pod))
                    .hint("the receipt keeps digests of what was printed, not the text")
            }
            _ => cause.into(),
        })
}

struct Printer<'a> {
    args: &'a Args,
    run_id: &'a str,
}

impl Printer<'_> {
    /// Prints the lines that are asked for but for the first `skip`, and counts all of them.
    async fn print(&self, lines: impl AsyncBufRead, skip: usize, count: &mut usize) -> Result<(), Error> {
        let mut lines = std::pin::pin!(lines.lines());
        let mut seen = 0;
        let fail = |cause: std::io::Error| Error::failed("the log cannot be read").because(&cause);
        while let Some(line) = lines.try_next().await.map_err(fail)? {
            let Some(found) =
                of_run(&line, self.run_id).filter(|found| is_of(found, self.args.block.as_deref()))
            else {
                continue;
            };
            seen += 1;
            if seen <= skip {
                continue;
            }
            *count += 1;
            if self.args.json {
                output::print_raw(format!("{line}\n").as_bytes())?;
            } else {
                output::print_raw(self.form(&found).as_bytes())?;
            }
        }
        Ok(())
    }

    fn form(&self, line: &LogLine) -> String {
        let text = if self.args.raw {
            line.line.clone()
        } else {
            output::harmless(&line.line)
        };
        if self.args.timestamps {
            format!("{} {text}\n", output::harmless(&line.timestamp))
        } else {
            format!("{text}\n")
        }
    }
}

/// The line, when it is one of this run. Anything else in the pod's log is the agent's own.
fn of_run(line: &str, run_id: &str) -> Option<LogLine> {
    // Most lines of a busy head are of other runs: look before parsing.
    if !line.contains(run_id) {
        return None;
    }
    serde_json::from_str(line)
        .ok()
        .filter(|found: &LogLine| found.run_id == run_id)
}

/// Whether the line came while `block` was running; without one, every line is asked for.
fn is_of(line: &LogLine, block: Option<&str>) -> bool {
    block.is_none_or(|block| line.block.as_deref() == Some(block))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn lines_are_picked_by_the_block_they_name() {
        let line = |block: &str| {
            let text = format!("{{\"runId\":\"abc\",{block}\"stream\":\"stdout\",\"line\":\"hi\"}}");
            of_run(&text, "abc").unwrap()
        };
        // An agent that knows nothing of blocks leaves them out.
        let (named, nameless) = (line("\"block\":\"load\","), line(""));
        assert!(is_of(&named, None) && is_of(&nameless, None));
        assert!(is_of(&named, Some("load")) && !is_of(&nameless, Some("load")));
        assert!(!is_of(&named, Some("loa")) && !is_of(&named, Some("")));
    }

    #[test]
    fn a_block_that_a_finished_run_does_not_have_is_a_mistake() {
        let parse = |conditions: Value| -> MamlWorkflow {
            let block = |name| json!({"name": name, "language": "python", "state": "Succeeded"});
            serde_json::from_value(json!({
                "apiVersion": "chimera.dunes.io/v1alpha1", "kind": "MamlWorkflow", "metadata": {"name": "w"},
                "spec": {"source": {"inline": "x"}}, "status": {"blocks": [block("load"), block("fit")], "conditions": conditions},
            }))
            .unwrap()
        };
        // Until the run is over these may be the blocks of another attempt.
        assert!(check_block(&parse(json!([])), "lode").is_ok());
        let workflow = parse(json!([{
            "type": "Complete", "status": "True", "reason": "Finished", "lastTransitionTime": "2026-05-04T10:00:00Z",
        }]));
        assert!(check_block(&workflow, "fit").is_ok());
        let error = check_block(&workflow, "lode").unwrap_err();
        assert_eq!(error.message(), "w has no block lode");
        assert!(error.to_string().contains("its blocks: load, fit"), "{error}");
    }

    #[test]
    fn only_the_lines_of_the_run_are_taken() {
        let line = |run: &str| {
            format!(
                "{{\"runId\":\"{run}\",\"stream\":\"stdout\",\"line\":\"hi\",\"timestamp\":\"2026-05-04T10:00:00Z\"}}"
            )
        };
        assert_eq!(
            of_run(&line("abc"), "abc").map(|found| found.line),
            Some("hi".to_owned())
        );
        assert_eq!(of_run(&line("abd"), "abc"), None);
        assert_eq!(of_run("{\"message\":\"run abc started\"}", "abc"), None);
        assert_eq!(of_run("abc", "abc"), None);
        // A program that prints such a line prints it inside of one.
        let forged = "{\"runId\":\"xyz\",\"stream\":\"stdout\",\"line\":\"{\\\"runId\\\":\\\"abc\\\"}\"}";
        assert_eq!(of_run(forged, "abc"), None);
    }
}
