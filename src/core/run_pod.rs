//! The pod of one run: made from the template of a ChimeraHead for a run that asks for `isolation: Pod`, used once. No IO.
//!
//! It belongs to the workflow and goes with it. Its labels are not those by which the pods of a ChimeraHead are found, so it
//! is no replica and no spare, and nothing that counts or drains those sees it.

use std::collections::BTreeMap;

use api::{
    ChimeraHead, MamlWorkflow, MamlWorkflowStatus,
    condition::{COMPLETE, is_true},
    names, reasons,
};
use k8s_openapi::{
    api::{core::v1::Pod, networking::v1::NetworkPolicy},
    apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference},
};

use crate::{
    head_pod::{Template, build_network_policy, build_pod},
    run::run_key,
    workflow_plan::{Loss, Plan},
};

/// The one run that the agent may take, by its id.
const ONLY_RUN: &str = "CHIMERA_ONLY_RUN";

/// The name of a run's pod. Nobody else's: the id is a digest of workflow, generation and attempt.
pub fn run_pod_name(run_id: &str) -> String {
    format!("chimera-run-{run_id}")
}

fn labels(head: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (names::MANAGED_BY_LABEL.to_owned(), names::MANAGED_BY.to_owned()),
        (names::RUN_OF_LABEL.to_owned(), head.to_owned()),
    ])
}

/// Builds the pod: that of the head in everything but its name, its labels, its owner and that it takes one run, which may use
/// all that several would share.
pub fn build_run_pod(workflow: &MamlWorkflow, head: &ChimeraHead, template: &Template, run_id: &str) -> Pod {
    let mut alone = head.clone();
    alone.spec.workers.warm = 1;
    let mut pod = build_pod(&alone, template, 0, 0, false);
    let mut labels = labels(head.metadata.name.as_deref().unwrap_or_default());
    labels.insert("app.kubernetes.io/name".into(), "chimera-run".into());
    labels.insert(names::ROLE_LABEL.into(), head.spec.role.as_str().into());
    labels.insert(names::RUN_LABEL.into(), run_id.to_owned());
    pod.metadata = ObjectMeta {
        name: Some(run_pod_name(run_id)),
        namespace: workflow.metadata.namespace.clone(),
        labels: Some(labels),
        owner_references: owner(workflow),
        ..ObjectMeta::default()
    };
    if let Some(spec) = &mut pod.spec {
        // An agent that has ended took its run with it: there is nothing to start again.
        spec.restart_policy = Some("Never".to_owned());
        // There is no other pod to be spread from.
        spec.topology_spread_constraints = None;
        for container in &mut spec.containers {
            container
                .env
                .get_or_insert_default()
                .push(k8s_openapi::api::core::v1::EnvVar {
                    name: ONLY_RUN.to_owned(),
                    value: Some(run_id.to_owned()),
                    value_from: None,
                });
        }
    }
    pod
}

fn owner(workflow: &MamlWorkflow) -> Option<Vec<OwnerReference>> {
    Some(vec![OwnerReference {
        api_version: format!("{}/{}", names::GROUP, names::VERSION),
        kind: "MamlWorkflow".to_owned(),
        name: workflow.metadata.name.clone()?,
        uid: workflow.metadata.uid.clone()?,
        controller: Some(true),
        block_owner_deletion: None,
    }])
}

/// Builds the NetworkPolicy around the run pods of a head: the same as around its own pods.
pub fn build_run_network_policy(head: &ChimeraHead, template: &Template) -> NetworkPolicy {
    let name = head.metadata.name.clone().unwrap_or_default();
    let mut policy = build_network_policy(head, template);
    policy.metadata.name = Some(names::run_network_policy(&name));
    policy.metadata.labels = Some(labels(&name));
    if let Some(spec) = &mut policy.spec {
        spec.pod_selector = Some(LabelSelector {
            match_labels: Some(labels(&name)),
            ..LabelSelector::default()
        });
    }
    policy
}

/// What is known of a pod that was made for a run of a workflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunPod {
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// The run that it is for.
    pub run_id: String,
    /// Being deleted.
    pub deleting: bool,
    /// Ended by itself, was evicted or refused by its node; why.
    pub failed: Option<String>,
}

/// The pods that serve no purpose any more: of all but the run that is wanted, if one is.
pub fn superfluous<'a>(pods: &'a [RunPod], wanted: Option<&str>) -> impl Iterator<Item = &'a RunPod> {
    pods.iter()
        .filter(move |pod| !pod.deleting && Some(pod.run_id.as_str()) != wanted)
}

/// The run whose pod is to stay: the one that is about to start or under way, until its receipt and status are written.
pub fn wanted(workflow: &MamlWorkflow, status: &MamlWorkflowStatus, plan: &Plan) -> Option<String> {
    let attempt = match plan {
        Plan::Start(start) => Some(start.attempt),
        Plan::Rejoin { attempt, .. } => Some(*attempt),
        Plan::Expire => None,
        Plan::Wait { wait, .. } if wait.reason != reasons::SUSPENDED => Some(current_attempt(status)),
        Plan::Wait { .. }
        | Plan::Rest
        | Plan::RestFor(_)
        | Plan::Cancel
        | Plan::Show(_)
        | Plan::Conclude(_)
        | Plan::Recover => status.attempt.filter(|_| status.head.is_some()),
    };
    let over = is_true(&status.conditions, COMPLETE);
    attempt
        .filter(|_| !over)
        .map(|attempt| run_key(workflow).run_id(attempt))
}

/// The attempt that has begun, else the next.
fn current_attempt(status: &MamlWorkflowStatus) -> i32 {
    status.attempt.unwrap_or(0) + i32::from(status.head.is_none())
}

/// The loss of an attempt whose pod failed before it could be asked for the run. One that somebody deletes is made anew.
pub fn lost(pods: &[RunPod], run_id: &str, attempt: i32) -> Option<Loss> {
    let pod = pods.iter().find(|pod| pod.run_id == run_id && !pod.deleting)?;
    let why = pod.failed.as_deref()?;
    Some(Loss {
        attempt,
        reason: reasons::POD_FAILED,
        message: format!(
            "pod {}, made for this run, failed before it began: {why}",
            pod.name
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workflow_status::Wait;

    fn head() -> ChimeraHead {
        let spec = serde_json::json!({
            "role": "quantum", "spares": 2, "workers": {"warm": 8, "preload": ["numpy"]},
            "gpu": {"count": 1, "runtimeClassName": "gvisor"},
            "topologySpread": [{"maxSkew": 1, "topologyKey": "zone"}],
        });
        let mut head = ChimeraHead::new("q", serde_json::from_value(spec).expect("a spec"));
        head.metadata.namespace = Some("team".into());
        head.metadata.uid = Some("head-uid".into());
        head
    }

    fn workflow() -> MamlWorkflow {
        let mut workflow = MamlWorkflow::new("w", api::MamlWorkflowSpec::default());
        workflow.metadata.namespace = Some("team".into());
        workflow.metadata.uid = Some("workflow-uid".into());
        workflow
    }

    fn template() -> Template {
        Template {
            default_image: "localhost/head:1".into(),
            allowed_images: Vec::new(),
            isolation: "full".into(),
            operator_namespace: "chimera-system".into(),
        }
    }

    #[test]
    fn a_run_pod_is_the_heads_own_in_all_that_keeps_it_safe() {
        let of_head = build_pod(&head(), &template(), 0, 0, false).spec.expect("a spec");
        let of_run = build_run_pod(&workflow(), &head(), &template(), "abc")
            .spec
            .expect("a spec");
        assert_eq!(of_run.security_context, of_head.security_context);
        assert_eq!(of_run.runtime_class_name.as_deref(), Some("gvisor"));
        assert_eq!(of_run.automount_service_account_token, Some(false));
        assert_eq!(of_run.volumes, of_head.volumes);
        let (run, head) = (&of_run.containers[0], &of_head.containers[0]);
        assert_eq!(run.security_context, head.security_context);
        assert_eq!((&run.image, &run.resources), (&head.image, &head.resources));
        let args = run.args.as_ref().expect("arguments");
        assert!(args.contains(&"--workers=1".to_owned()) && args.contains(&"--preload=numpy".to_owned()));
        let env = run.env.as_ref().expect("an environment");
        let value = |name: &str| env.iter().find(|one| one.name == name)?.value.as_deref();
        assert_eq!(value(ONLY_RUN), Some("abc"));
        // All of what eight would share.
        assert_eq!(value("CHIMERA_RUN_MEMORY_MIB"), Some("4480"));
        assert_eq!(of_run.restart_policy.as_deref(), Some("Never"));
    }

    #[test]
    fn a_run_pod_belongs_to_its_workflow_and_is_found_by_no_head() {
        let pod = build_run_pod(&workflow(), &head(), &template(), "abc");
        let owners = pod.metadata.owner_references.expect("an owner");
        assert_eq!((owners.len(), owners[0].uid.as_str()), (1, "workflow-uid"));
        let labels = pod.metadata.labels.expect("labels");
        for label in crate::head_pod::selector_labels("q") {
            if label.0 != names::MANAGED_BY_LABEL {
                assert_ne!(labels.get(&label.0), Some(&label.1));
            }
        }
        let policy = build_run_network_policy(&head(), &template());
        assert_ne!(
            policy.metadata.name,
            build_network_policy(&head(), &template()).metadata.name
        );
        let selector = policy.spec.expect("a spec").pod_selector.expect("a selector");
        for (key, value) in selector.match_labels.expect("labels") {
            assert_eq!(labels.get(&key), Some(&value), "the policy is around the pod");
        }
    }

    #[test]
    fn pods_of_other_runs_serve_no_purpose_and_a_failed_one_is_a_lost_attempt() {
        let pod = |run_id: &str, deleting, failed: Option<&str>| RunPod {
            name: run_pod_name(run_id),
            uid: run_id.to_owned(),
            run_id: run_id.to_owned(),
            deleting,
            failed: failed.map(ToOwned::to_owned),
        };
        let pods = [
            pod("old", false, None),
            pod("going", true, None),
            pod("now", false, None),
        ];
        let names = |wanted| {
            superfluous(&pods, wanted)
                .map(|pod| pod.uid.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(Some("now")), ["old"]);
        assert_eq!(names(None), ["old", "now"]);
        assert_eq!(lost(&pods, "now", 1), None);
        assert_eq!(lost(&pods, "none yet", 1), None);
        let stopped = [pod("now", true, Some("the pod ended: Failed"))];
        assert_eq!(lost(&stopped, "now", 1), None, "it was told to end");
        let loss = lost(&[pod("now", false, Some("Evicted"))], "now", 3).expect("lost");
        assert_eq!((loss.attempt, loss.reason), (3, reasons::POD_FAILED));
        assert!(loss.message.contains("Evicted"), "{}", loss.message);
    }

    #[test]
    fn the_pod_of_a_run_that_waits_or_is_under_way_is_wanted_and_no_other() {
        let workflow = workflow();
        let id = |attempt| Some(run_key(&workflow).run_id(attempt));
        let waits = |reason| Plan::Wait {
            wait: Wait::for_head(reason, String::new()),
            status: Box::default(),
            again: std::time::Duration::ZERO,
        };
        let fresh = MamlWorkflowStatus::default();
        let running = MamlWorkflowStatus {
            attempt: Some(2),
            head: Some(api::maml_workflow::AssignedHead::default()),
            ..fresh.clone()
        };
        let lost = MamlWorkflowStatus {
            head: None,
            ..running.clone()
        };
        let want = |status: &MamlWorkflowStatus, plan: &Plan| wanted(&workflow, status, plan);
        assert_eq!(want(&fresh, &waits(reasons::PREPARING_POD)), id(1));
        assert_eq!(
            want(&lost, &waits(reasons::PREPARING_POD)),
            id(3),
            "the next attempt's"
        );
        assert_eq!(want(&fresh, &waits(reasons::SUSPENDED)), None);
        assert_eq!(want(&running, &Plan::Rest), id(2));
        assert_eq!(want(&lost, &Plan::Rest), None);
        assert_eq!(want(&running, &Plan::Expire), None);
        let mut over = running;
        let complete = api::condition::Verdict {
            type_: COMPLETE,
            status: api::ConditionStatus::True,
            reason: reasons::FINISHED,
            message: "",
            observed_generation: None,
        };
        api::condition::set(&mut over.conditions, &complete, jiff::Timestamp::UNIX_EPOCH);
        assert_eq!(want(&over, &Plan::Rest), None);
    }
}
