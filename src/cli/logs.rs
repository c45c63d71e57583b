//! `chimera logs NAME`: what the program of a workflow printed.
//!
//! The agent in a head's pod prints every line of every run as JSON with the run's id; this verb picks the lines of one run
//! out of the pod's log. Lines come from user code, so what could control the terminal is taken out.

mod blocks;
mod line;

use std::time::Duration;

use api::MamlWorkflow;
use futures::{AsyncBufReadExt as _, TryStreamExt as _};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::LogParams;

use crate::cluster::{self, WorkflowArgs};
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::{output, wait};
use line::LogLine;

/// Prints what the program of a workflow printed
#[derive(clap::Args, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct Args {
    #[command(flatten)]
    workflow: WorkflowArgs,

    /// Prints only what came while this block was running
    #[arg(short, long, value_name = "BLOCK")]
    block: Option<String>,

    /// Waits for more until the run is over, and goes on with the next attempt when one is lost
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

/// Clocks of nodes and of the controller may differ by this much.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_secs(60);
/// When a log whose stream ended is read again, as long as the run goes on.
const AGAIN: Duration = Duration::from_secs(1);
/// How long the last lines of a lost attempt are waited for: its node may not answer any more.
const LAST_LINES: Duration = Duration::from_secs(5);

pub async fn run(args: Args) -> Result<ExitCode, Error> {
    let (client, workflows, mut workflow) = args.workflow.find().await?;
    let name = &args.workflow.name;
    if let Some(block) = &args.block {
        blocks::check(&client, &workflow, block).await?;
    }
    let log = Log {
        args: &args,
        pods: Api::default_namespaced(client),
    };
    let printed = if args.follow && !cluster::is_complete(&workflow) {
        log.follow(workflows, &mut workflow).await?
    } else {
        let Some(place) = running_at(&workflow) else {
            return Err(Error::failed(format!("{name} has not run")).hint(format!("chimera why {name}")));
        };
        log.show(&place).await?
    };
    if printed == 0 {
        // A document that could not be read has told its blocks only now.
        if let Some(block) = &args.block {
            blocks::check_status(&workflow, block)?;
            output::note(format!("block {block} of {name} printed nothing"));
        } else {
            output::note(format!("{name} printed nothing"));
        }
    }
    Ok(ExitCode::Ok)
}

/// Where an attempt runs, or ran.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    attempt: i32,
    pod: String,
    run_id: String,
    since: Option<Timestamp>,
}

fn running_at(workflow: &MamlWorkflow) -> Option<Place> {
    let status = workflow.status.as_ref()?;
    let pod = status.head.as_ref()?.pod.clone();
    let since = status.scheduled_at.and_then(|at| at.checked_sub(CLOCK_SKEW).ok());
    Some(Place {
        attempt: status.attempt.unwrap_or(1),
        pod,
        run_id: status.run_id.clone()?,
        since,
    })
}

/// What whoever follows a workflow does next.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Waits for a head.
    Wait,
    /// Follows this attempt.
    Follow(Place),
    /// Nothing: the run is over.
    End,
}

/// Goes by the attempt that was followed last: of the present one there may be lines that were not read.
fn next(workflow: &MamlWorkflow, followed: Option<&Place>) -> Next {
    match running_at(workflow) {
        Some(place) if followed.is_none_or(|followed| followed.run_id != place.run_id) => Next::Follow(place),
        _ if cluster::is_complete(workflow) => Next::End,
        _ => Next::Wait,
    }
}

/// What became of the attempt that was followed, and what is followed now.
fn transition(name: &str, before: &Place, now: &Place) -> String {
    if now.attempt > before.attempt {
        format!(
            "attempt {} was lost; following attempt {}",
            before.attempt, now.attempt
        )
    } else {
        format!("{name} runs anew; following that run")
    }
}

/// How the reading of a log ended.
enum End {
    /// With the last line.
    Read,
    /// The pod is not there any more.
    Gone,
    /// It may go on later.
    Broken(Error),
}

struct Log<'a> {
    args: &'a Args,
    pods: Api<Pod>,
}

impl Log<'_> {
    /// Prints what there is; the number of lines.
    async fn show(&self, place: &Place) -> Result<usize, Error> {
        let mut printed = 0;
        match self.read(place, false, &mut printed).await? {
            End::Read => Ok(printed),
            End::Gone => Err(Error::failed(gone(place))
                .hint("the receipt keeps digests of what was printed, not the text")),
            End::Broken(error) => Err(error),
        }
    }

    /// Prints what comes until the run is over, whichever attempt ends it; the number of lines.
    async fn follow(
        &self,
        workflows: Api<MamlWorkflow>,
        workflow: &mut MamlWorkflow,
    ) -> Result<usize, Error> {
        let name = &self.args.workflow.name;
        let mut followed: Option<Place> = None;
        let mut printed = 0;
        loop {
            match next(workflow, followed.as_ref()) {
                Next::End => return Ok(printed),
                Next::Wait => {
                    let lost = followed
                        .as_ref()
                        .map(|place| format!("attempt {} was lost; ", place.attempt));
                    output::note(format!("{}{name} waits for a head", lost.unwrap_or_default()));
                    let waits = |now: &MamlWorkflow| next(now, followed.as_ref()) == Next::Wait;
                    *workflow = wait::until(workflows.clone(), name, |now| !waits(now)).await?;
                }
                Next::Follow(place) => {
                    if let Some(before) = &followed {
                        output::note(transition(name, before, &place));
                    }
                    printed += self.follow_attempt(workflows.clone(), workflow, &place).await?;
                    followed = Some(place);
                }
            }
        }
    }

    /// Prints what comes from one attempt until it is over; the number of lines.
    async fn follow_attempt(
        &self,
        workflows: Api<MamlWorkflow>,
        workflow: &mut MamlWorkflow,
        place: &Place,
    ) -> Result<usize, Error> {
        let mut printed = 0;
        let is_over = |now: &MamlWorkflow| next(now, Some(place)) != Next::Wait || running_at(now).is_none();
        let mut over = std::pin::pin!(wait::until(workflows, &self.args.workflow.name, is_over));
        *workflow = loop {
            let end = tokio::select! {
                now = &mut over => break now?,
                end = self.read(place, true, &mut printed) => end?,
            };
            // A connection may end before the attempt does.
            tokio::select! {
                now = &mut over => break now?,
                () = tokio::time::sleep(AGAIN), if !matches!(end, End::Gone) => {}
            }
        };
        // The last lines are in the log, but the stream that was followed may not have brought them yet.
        let rest = self.read(place, false, &mut printed);
        let rest = if cluster::is_complete(workflow) {
            rest.await?
        } else {
            let silent = || Error::failed(format!("the node of pod {} does not answer", place.pod));
            let rest = tokio::time::timeout(LAST_LINES, rest).await;
            rest.unwrap_or_else(|_| Ok(End::Broken(silent())))?
        };
        match rest {
            End::Read => {}
            End::Gone => output::note(gone(place)),
            End::Broken(error) if cluster::is_complete(workflow) => return Err(error),
            End::Broken(error) => output::note(error.message()),
        }
        Ok(printed)
    }

    /// Prints the lines that are asked for but for those `printed` already, and counts them.
    async fn read(&self, place: &Place, follow: bool, printed: &mut usize) -> Result<End, Error> {
        let params = LogParams {
            follow,
            since_time: place.since,
            ..LogParams::default()
        };
        let log = match self.pods.log_stream(&place.pod, &params).await {
            Ok(log) => log,
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(End::Gone),
            Err(kube::Error::Api(status)) if matches!(status.code, 401 | 403) => {
                return Err(kube::Error::Api(status).into());
            }
            Err(cause) => return Ok(End::Broken(cause.into())),
        };
        let mut lines = std::pin::pin!(log.lines());
        let skip = *printed;
        let mut seen = 0;
        loop {
            let line = match lines.try_next().await {
                Ok(Some(line)) => line,
                Ok(None) => return Ok(End::Read),
                Err(cause) => {
                    return Ok(End::Broken(
                        Error::failed("the log cannot be read").because(&cause),
                    ));
                }
            };
            let Some(found) =
                LogLine::of_run(&line, &place.run_id).filter(|found| found.is_of(self.args.block.as_deref()))
            else {
                continue;
            };
            seen += 1;
            if seen <= skip {
                continue;
            }
            *printed += 1;
            if self.args.json {
                output::print_raw(format!("{line}\n").as_bytes())?;
            } else {
                output::print_raw(found.text(self.args.raw, self.args.timestamps).as_bytes())?;
            }
        }
    }
}

fn gone(place: &Place) -> String {
    format!("the pod {} is gone, and its log with it", place.pod)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A workflow of which this attempt runs or ran, if one does.
    fn workflow(attempt: Option<i32>, complete: bool) -> MamlWorkflow {
        let head = attempt.map(|attempt| json!({"name": "q", "pod": format!("q-{attempt}"), "uid": "1"}));
        serde_json::from_value(json!({
            "apiVersion": "chimera.dunes.io/v1alpha1", "kind": "MamlWorkflow", "metadata": {"name": "w", "generation": 1},
            "spec": {"source": {"inline": "x"}},
            "status": {
                "attempt": attempt.unwrap_or(1), "runId": format!("run-{}", attempt.unwrap_or(1)), "head": head,
                "conditions": [{"type": "Complete", "status": if complete { "True" } else { "False" }, "reason": "Running",
                                "message": "", "observedGeneration": 1, "lastTransitionTime": "2026-05-04T10:00:00Z"}],
            },
        }))
        .unwrap()
    }

    #[test]
    fn a_lost_attempt_is_followed_by_the_next_until_the_run_is_over() {
        let place = |attempt| running_at(&workflow(Some(attempt), false)).unwrap();
        let (first, second) = (place(1), place(2));
        assert_eq!(next(&workflow(None, false), None), Next::Wait);
        assert_eq!(next(&workflow(Some(1), false), None), Next::Follow(first.clone()));
        assert_eq!(
            next(&workflow(Some(1), false), Some(&first)),
            Next::Wait,
            "it runs on"
        );
        assert_eq!(
            next(&workflow(None, false), Some(&first)),
            Next::Wait,
            "it was lost"
        );
        assert_eq!(
            next(&workflow(Some(2), false), Some(&first)),
            Next::Follow(second.clone())
        );
        // What ended before anybody looked has lines, too.
        assert_eq!(
            next(&workflow(Some(2), true), Some(&first)),
            Next::Follow(second.clone())
        );
        assert_eq!(next(&workflow(Some(2), true), Some(&second)), Next::End);
        assert_eq!(
            next(&workflow(None, true), Some(&second)),
            Next::End,
            "no attempt was left"
        );
        assert_eq!(
            transition("w", &first, &second),
            "attempt 1 was lost; following attempt 2"
        );
        assert_eq!(
            transition("w", &second, &first),
            "w runs anew; following that run"
        );
    }
}
