//! The claim of a head for one attempt: what whoever leads next has to know of it, to ask the same head.

use api::{DigestSet, MamlWorkflow, MamlWorkflowStatus, maml_workflow::AssignedHead};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{run::run_key, workflow_status::claimed};

/// A claim of a head.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// The run's id.
    pub run_id: String,
    /// Counts from 1.
    pub attempt: i32,
    /// The head, and its pod.
    pub head: AssignedHead,
    /// Digest of the document.
    pub document: DigestSet,
    /// Digest of the inputs.
    pub inputs: DigestSet,
    /// When it was made.
    pub time: Timestamp,
}

impl Claim {
    /// The status with this claim in it, if it is of the workflow's current run and the status does not tell of it, or of
    /// what became of it, already.
    pub fn told_by(&self, status: MamlWorkflowStatus, workflow: &MamlWorkflow) -> MamlWorkflowStatus {
        let is_current = run_key(workflow).run_id(self.attempt) == self.run_id;
        if is_current && status.attempt.unwrap_or(0) < self.attempt {
            claimed(status, self)
        } else {
            status
        }
    }
}

#[cfg(test)]
mod tests {
    use api::MamlWorkflowSpec;

    use super::*;
    use crate::workflow_plan::current_status;

    fn workflow(generation: i64) -> MamlWorkflow {
        let mut workflow = MamlWorkflow::new("w", MamlWorkflowSpec::default());
        workflow.metadata.uid = Some("u".into());
        workflow.metadata.generation = Some(generation);
        workflow
    }

    fn claim(workflow: &MamlWorkflow) -> Claim {
        Claim {
            run_id: run_key(workflow).run_id(1),
            attempt: 1,
            head: AssignedHead {
                pod: "h-0-0".into(),
                ..AssignedHead::default()
            },
            document: DigestSet::default(),
            inputs: DigestSet::default(),
            time: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_claim_of_the_current_run_is_told_as_if_it_had_been_written() {
        let workflow = workflow(1);
        let status = claim(&workflow).told_by(current_status(&workflow), &workflow);
        assert_eq!(status, claimed(current_status(&workflow), &claim(&workflow)));
        assert_eq!(status.head.expect("a head").pod, "h-0-0");
    }

    #[test]
    fn a_claim_of_another_run_or_one_that_the_status_has_outlived_is_not() {
        let (before, now) = (workflow(1), workflow(2));
        let status = current_status(&now);
        assert_eq!(claim(&before).told_by(status.clone(), &now), status);

        let mut lost = claimed(status, &claim(&now));
        lost.head = None;
        assert_eq!(claim(&now).told_by(lost.clone(), &now), lost);
    }

    #[test]
    fn a_claim_is_read_as_it_was_written() {
        let claim = claim(&workflow(1));
        let text = serde_json::to_string(&claim).expect("JSON");
        assert_eq!(serde_json::from_str::<Claim>(&text).expect("a claim"), claim);
    }
}
