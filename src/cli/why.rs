//! `chimera why NAME`: what a workflow waits for, or why it failed, and what would help.
//!
//! The explanation is computed from the conditions and the last warning alone, so that it can be tested without a cluster.

use api::MamlWorkflow;
use api::condition::{self, ConditionStatus};
use api::maml_workflow::{Candidate, CandidateState, Diagnostic, Severity};
use api::reasons;
use serde::Serialize;

use crate::cluster::{self, WorkflowArgs};
use crate::error::Error;
use crate::events::{self, Report};
use crate::exit_code::ExitCode;
use crate::output::{self, Format};

/// Explains what a workflow waits for or why it failed
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    workflow: WorkflowArgs,

    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// The explanation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The state in a sentence.
    pub summary: String,
    /// Why, as one word of docs/reference/reasons.md.
    pub reason: String,
    /// What exactly was found.
    pub details: Vec<String>,
    /// What stands between the run and each head, those first that are nearest to taking it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub heads: Vec<Candidate>,
    /// What would help.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}

pub async fn run(args: Args) -> Result<ExitCode, Error> {
    let (client, _, workflow) = args.workflow.find().await?;
    let uid = workflow.metadata.uid.clone().unwrap_or_default();
    // Who may see workflows may not see events; the conditions say most of it anyway.
    let events = events::of(client, &uid).await.unwrap_or_default();
    let explanation = explain(&workflow, &events);
    args.output.print(&explanation, text)?;
    Ok(ExitCode::Ok)
}

fn text(explanation: &Explanation) -> String {
    let mut text = format!("{}\n", output::harmless(&explanation.summary));
    for detail in &explanation.details {
        text.extend(["  ", &output::harmless(detail), "\n"]);
    }
    if !explanation.heads.is_empty() {
        let rows: Vec<_> = explanation.heads.iter().map(row).collect();
        text.push_str(&output::table(&["HEAD", "PODS", "STATE", "WHY"], &rows));
    }
    if let Some(help) = &explanation.help {
        text.extend(["hint: ", help, "\n"]);
    }
    text
}

fn row(head: &Candidate) -> Vec<String> {
    vec![
        head.head.clone(),
        head.pods.to_string(),
        format!("{:?}", head.state),
        output::harmless(&head.message),
    ]
}

/// Explains the state of a workflow.
pub fn explain(workflow: &MamlWorkflow, events: &[Report]) -> Explanation {
    let name = workflow.metadata.name.clone().unwrap_or_default();
    let status = workflow.status.clone().unwrap_or_default();
    // The first aspect that does not hold, in the order of a run, is the one that explains.
    let order = [
        condition::ACCEPTED,
        condition::SCHEDULED,
        condition::SUCCEEDED,
        condition::SIGNED,
    ];
    let blocking = order
        .iter()
        .filter_map(|type_| cluster::current(workflow, type_))
        .find(|condition| condition.status != ConditionStatus::True);
    let complete = cluster::is_complete(workflow);
    let Some(blocking) = blocking else {
        return if complete {
            let receipt = status
                .receipt_ref
                .map(|receipt| format!("its receipt is {}", receipt.name));
            Explanation {
                summary: format!("{name} succeeded"),
                reason: reasons::SUCCEEDED.to_owned(),
                details: receipt.into_iter().collect(),
                heads: Vec::new(),
                help: None,
            }
        } else {
            unseen(&name, workflow)
        };
    };
    let reason = blocking.reason.clone();
    let failed =
        complete || (blocking.status == ConditionStatus::False && blocking.type_ == condition::ACCEPTED);
    let summary = match (failed, blocking.type_.as_str()) {
        (true, condition::ACCEPTED) => format!("{name} was refused: {reason}"),
        (true, _) => format!("{name} failed: {reason}"),
        (false, condition::SUCCEEDED) => format!("{name} is running"),
        (false, condition::SIGNED) => format!("{name} has run and waits for its receipt: {reason}"),
        (false, _) => format!("{name} waits: {reason}"),
    };
    let mut details = Vec::new();
    if !blocking.message.is_empty() {
        details.push(blocking.message.clone());
    }
    let blocks = status
        .blocks
        .iter()
        .flat_map(|block| block.diagnostics.iter().map(move |found| (Some(block), found)));
    let errors = status.diagnostics.iter().map(|found| (None, found)).chain(blocks);
    for (block, found) in errors.filter(|(_, found)| found.severity == Severity::Error) {
        let line = place(found);
        let block = block.map(|block| format!("{}: ", block.name)).unwrap_or_default();
        let detail = format!("{line}{block}{} [{}]", found.message, found.code);
        if !blocking.message.contains(&found.message) || found.hint.is_some() {
            details.push(detail);
        }
        details.extend(found.hint.as_ref().map(|hint| format!("    {hint}")));
    }
    for lost in &status.attempts {
        let pod = lost.pod.as_deref().unwrap_or("an unknown pod");
        details.push(format!(
            "attempt {} on {pod} was lost: {}",
            lost.attempt, lost.reason
        ));
    }
    if !failed {
        let warning = events.iter().rev().find(|event| event.kind == "Warning");
        details.extend(warning.map(|event| format!("last warning: {}: {}", event.reason, event.message)));
    }
    details.dedup();
    let waits_for_head = !failed && blocking.type_ == condition::SCHEDULED;
    let heads = if waits_for_head {
        status.candidates
    } else {
        Vec::new()
    };
    Explanation {
        summary,
        help: help(&reason, &name).map(|help| with_scaling(help, &heads)),
        reason,
        details,
        heads,
    }
}

/// A head without pods may help where others are too busy, too.
fn with_scaling(help: String, heads: &[Candidate]) -> String {
    let empty = heads
        .iter()
        .find(|head| head.state == CandidateState::ScaledToZero);
    match empty {
        Some(empty) => format!(
            "{help}; kubectl scale head/{} --replicas=1 starts one",
            empty.head
        ),
        None => help,
    }
}

fn unseen(name: &str, workflow: &MamlWorkflow) -> Explanation {
    let seen = workflow
        .status
        .as_ref()
        .is_some_and(|status| !status.conditions.is_empty());
    Explanation {
        summary: if seen {
            format!("{name} is under way")
        } else {
            format!("{name} waits or has just begun: its status says nothing yet")
        },
        reason: reasons::PENDING.to_owned(),
        details: Vec::new(),
        heads: Vec::new(),
        help: (!seen).then(|| "a run is told of when it is over, or has gone on for a second; in a long queue that takes a while: chimera head status shows who is busy. Otherwise, is the controller running, and does it watch this namespace?".to_owned()),
    }
}

fn place(found: &Diagnostic) -> String {
    match (found.line, found.column) {
        (Some(line), Some(column)) => format!("{line}:{column}: "),
        (Some(line), None) => format!("line {line}: "),
        _ => String::new(),
    }
}

/// What would help; for the rest, what the reason means.
fn help(reason: &str, name: &str) -> Option<String> {
    let help = match reason {
        reasons::NO_HEAD => {
            "create a ChimeraHead that offers what is missing, or correct what the document requires"
        }
        reasons::SCALED_TO_ZERO => "a head that suits is scaled to zero",
        reasons::HEADS_NOT_READY => "kubectl describe head says what its pods wait for",
        reasons::HEADS_BUSY => {
            "it starts by itself when a head is free; kubectl scale head/NAME --replicas=N adds more"
        }
        reasons::WAITING_FOR_GPU => {
            "give a ChimeraHead enough GPUs with spec.gpu.count, on nodes whose driver runs the CUDA asked for"
        }
        reasons::SUSPENDED => "set spec.suspend to false",
        reasons::DOCUMENT_INVALID => {
            "correct the document; `chimera lint FILE` shows every fault with its line"
        }
        reasons::INPUTS_INVALID => "correct spec.inputs; the document's Input_Schema says what it takes",
        reasons::SEALED_INPUTS_REFUSED => {
            "seal them again: chimera seal --namespace NAMESPACE --workflow NAME, and never into two places"
        }
        reasons::SEALING_KEY_UNAVAILABLE => {
            "chimera seal --rewrap FILE renews what is sealed for keys that are gone; kubectl get krp -A shows the keys"
        }
        reasons::NOT_PERMITTED => {
            "ask the document's author for an entry in permissions.execute, or set spec.actAs"
        }
        reasons::SOURCE_NOT_FOUND => "create the ConfigMap, or correct spec.source.configMapRef",
        reasons::TIMED_OUT => "give it more time with spec.timeoutSeconds, or make the program faster",
        reasons::PROGRAM_FAILED | reasons::OUTPUTS_INVALID | reasons::OUTPUTS_UNREADABLE => {
            return Some(format!("chimera logs {name} shows what the program printed"));
        }
        _ => {
            return reasons::ALL
                .iter()
                .find(|known| known.name == reason)
                .map(|known| known.meaning.to_owned());
        }
    };
    Some(help.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn workflow(conditions: &[(&str, &str, &str, &str)]) -> MamlWorkflow {
        let conditions: Vec<serde_json::Value> = conditions
            .iter()
            .map(|(type_, status, reason, message)| {
                json!({"type": type_, "status": status, "reason": reason, "message": message,
                    "observedGeneration": 1, "lastTransitionTime": "2026-05-04T10:00:00Z"})
            })
            .collect();
        serde_json::from_value(json!({
            "apiVersion": "chimera.dunes.io/v1alpha1", "kind": "MamlWorkflow",
            "metadata": {"name": "w", "generation": 1},
            "spec": {"source": {"inline": "x"}},
            "status": {"conditions": conditions},
        }))
        .unwrap()
    }

    #[test]
    #[expect(clippy::type_complexity, reason = "a table of cases")]
    fn every_state_has_its_explanation() {
        let accepted = ("Accepted", "True", "DocumentAccepted", "");
        let scheduled = ("Scheduled", "True", "HeadAssigned", "");
        let complete = ("Complete", "True", "Finished", "");
        let cases: &[(&[(&str, &str, &str, &str)], &str)] = &[
            (&[], "w waits or has just begun: its status says nothing yet"),
            (
                &[("Accepted", "False", "DocumentInvalid", "2:1: no id"), complete],
                "w was refused: DocumentInvalid",
            ),
            (
                &[accepted, ("Scheduled", "False", "NoHead", "")],
                "w waits: NoHead",
            ),
            (
                &[accepted, scheduled, ("Succeeded", "Unknown", "Running", "")],
                "w is running",
            ),
            (
                &[
                    accepted,
                    scheduled,
                    ("Succeeded", "False", "TimedOut", "300 s"),
                    complete,
                ],
                "w failed: TimedOut",
            ),
            (
                &[
                    accepted,
                    scheduled,
                    ("Succeeded", "True", "Succeeded", ""),
                    ("Signed", "False", "SigningKeyUnavailable", ""),
                ],
                "w has run and waits for its receipt: SigningKeyUnavailable",
            ),
            (
                &[
                    accepted,
                    scheduled,
                    ("Succeeded", "True", "Succeeded", ""),
                    ("Signed", "True", "ReceiptSigned", ""),
                    complete,
                ],
                "w succeeded",
            ),
        ];
        for (conditions, summary) in cases {
            assert_eq!(explain(&workflow(conditions), &[]).summary, *summary);
        }
    }

    #[test]
    fn conditions_of_an_older_spec_explain_nothing() {
        let mut workflow = workflow(&[("Accepted", "False", "DocumentInvalid", "")]);
        workflow.metadata.generation = Some(2);
        assert_eq!(explain(&workflow, &[]).reason, "Pending");
    }

    #[test]
    fn a_waiting_workflow_shows_the_last_warning_and_what_helps() {
        let warning = Report {
            kind: "Warning".to_owned(),
            reason: "Retrying".to_owned(),
            ..Report::default()
        };
        let explanation = explain(
            &workflow(&[("Scheduled", "False", "HeadsBusy", "3 of 3 are busy")]),
            &[warning],
        );
        assert_eq!(
            explanation.details,
            ["3 of 3 are busy", "last warning: Retrying: "]
        );
        assert!(explanation.help.is_some_and(|help| help.contains("scale")));
    }

    #[test]
    fn a_run_that_waits_for_a_head_shows_what_every_head_says() {
        let mut workflow = workflow(&[("Scheduled", "False", "HeadsBusy", "all 2 are busy")]);
        let row = |head: &str, state, message: &str| Candidate {
            head: head.to_owned(),
            pods: 2,
            state,
            message: message.to_owned(),
        };
        workflow.status.as_mut().unwrap().candidates = vec![
            row("q", CandidateState::Busy, "all 2 place(s) are taken"),
            row("z", CandidateState::ScaledToZero, "spec.replicas is 0"),
            row(
                "c",
                CandidateState::Unsuitable,
                "lacks role quantum (it is crypto)",
            ),
        ];
        let explanation = explain(&workflow, &[]);
        assert_eq!(explanation.heads.len(), 3);
        let help = explanation.help.clone().unwrap();
        assert!(
            help.ends_with("kubectl scale head/z --replicas=1 starts one"),
            "{help}"
        );
        assert_eq!(
            text(&explanation),
            format!(
                "w waits: HeadsBusy\n  all 2 are busy\n\
                 HEAD   PODS   STATE          WHY\n\
                 q      2      Busy           all 2 place(s) are taken\n\
                 z      2      ScaledToZero   spec.replicas is 0\n\
                 c      2      Unsuitable     lacks role quantum (it is crypto)\n\
                 hint: {help}\n"
            )
        );
        // A run under way waits for nobody.
        let workflow = self::workflow(&[("Succeeded", "Unknown", "Running", "")]);
        assert_eq!(explain(&workflow, &[]).heads, []);
    }

    #[test]
    fn every_reason_has_some_help() {
        for reason in reasons::ALL {
            assert!(
                help(reason.name, "w").is_some_and(|help| !help.is_empty()),
                "{}",
                reason.name
            );
        }
    }
}
