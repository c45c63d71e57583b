//! Pods for one run alone, against a recorded API server: made once, whatever goes wrong at which write, and removed.

use std::sync::Arc;

use api::{ChimeraHead, Isolation, MamlWorkflow, condition::COMPLETE, names};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::{
    context::Context,
    recorded_server::{Fault, Server},
    sequences::{COUNTS, settle_keys},
    test_context::{context, scope_of},
    workflow,
};

const WORKFLOW: &str = "/apis/chimera.dunes.io/v1alpha1/namespaces/team/mamlworkflows/w";
const POLICY: &str = "/apis/networking.k8s.io/v1/namespaces/team/networkpolicies/chimera-run-q";
const PODS: &str = "/api/v1/namespaces/team/pods";

fn head() -> ChimeraHead {
    let head = json!({
        "apiVersion": "chimera.dunes.io/v1alpha1", "kind": "ChimeraHead",
        "metadata": {"name": "q", "namespace": "team", "uid": "head", "generation": 1},
        "spec": {"role": "quantum", "replicas": 0},
    });
    serde_json::from_value(head).expect("a head")
}

fn isolated() -> MamlWorkflow {
    let workflow = json!({
        "apiVersion": "chimera.dunes.io/v1alpha1", "kind": "MamlWorkflow",
        "metadata": {"name": "w", "namespace": "team", "uid": "u", "generation": 1,
                     "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"source": {"inline": COUNTS}, "submitter": "alice", "isolation": "Pod"},
    });
    serde_json::from_value(workflow).expect("a workflow")
}

async fn begin(server: &Arc<Server>) -> Arc<Context> {
    let context = context(&server.client());
    settle_keys(server, &context).await;
    server.writes();
    context
}

/// Looks at the workflow as it is stored, with the pods that this process has seen.
async fn reconcile(server: &Arc<Server>, context: &Arc<Context>, seen: Vec<Pod>) {
    let workflow: MamlWorkflow =
        serde_json::from_value(server.get(WORKFLOW).expect("stored")).expect("a workflow");
    let scope = scope_of(Arc::clone(context), vec![head()], seen);
    // What failed is tried again by the next look.
    let _ = workflow::reconcile(Arc::new(workflow), scope).await;
}

fn pods(server: &Server) -> Vec<Pod> {
    let objects = server.objects();
    let pods = objects.iter().filter(|(path, _)| path.starts_with(PODS));
    pods.map(|(_, pod)| serde_json::from_value(pod.clone()).expect("a pod"))
        .collect()
}

fn reason(server: &Server) -> String {
    let status = server.get(WORKFLOW).expect("stored")["status"].clone();
    let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
    let scheduled = conditions
        .iter()
        .find(|condition| condition["type"] == "Scheduled");
    scheduled
        .map_or(Value::Null, |condition| condition["reason"].clone())
        .to_string()
}

#[tokio::test]
async fn the_policy_is_there_before_the_pod_and_both_are_made_once() {
    let server = Arc::new(Server::default());
    let context = begin(&server).await;
    server.put(WORKFLOW, &isolated());
    reconcile(&server, &context, Vec::new()).await;
    assert_eq!(
        server.writes(),
        [
            format!("PATCH {POLICY}"),
            format!("POST {PODS}"),
            format!("PATCH {WORKFLOW}/status")
        ]
    );
    assert_eq!(reason(&server), "\"PreparingPod\"");
    let made = pods(&server);
    assert_eq!(made.len(), 1);
    assert_eq!(
        made[0]
            .metadata
            .owner_references
            .as_ref()
            .map(|owners| owners[0].uid.as_str()),
        Some("u")
    );
    // Whether or not its own watch has shown it the pod by now.
    reconcile(&server, &context, Vec::new()).await;
    reconcile(&server, &context, made.clone()).await;
    assert_eq!(pods(&server), made);
}

#[tokio::test]
async fn a_fault_at_any_write_leaves_one_pod_in_the_end() {
    for fault in Fault::ALL {
        for at in 0..3 {
            let server = Arc::new(Server::default());
            let mut context = begin(&server).await;
            server.put(WORKFLOW, &isolated());
            server.fail(at, fault);
            for _ in 0..4 {
                reconcile(&server, &context, Vec::new()).await;
                if server.begin_anew() {
                    context = begin(&server).await;
                }
            }
            assert_eq!(pods(&server).len(), 1, "{fault:?} at write {at}");
            assert!(server.get(POLICY).is_some(), "{fault:?} at write {at}");
        }
    }
}

#[tokio::test]
async fn a_pod_whose_run_is_over_suspended_or_superseded_is_removed() {
    let over = |workflow: &mut MamlWorkflow| {
        let status = json!({
            "observedGeneration": 1, "attempt": 1,
            "conditions": [{"type": COMPLETE, "status": "True", "reason": "Finished", "message": "",
                            "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        });
        workflow.status = Some(serde_json::from_value(status).expect("a status"));
    };
    let suspended = |workflow: &mut MamlWorkflow| workflow.spec.suspend = true;
    let shared = |workflow: &mut MamlWorkflow| {
        (workflow.spec.isolation, workflow.metadata.generation) = (Isolation::Process, Some(2));
    };
    let changes: [&dyn Fn(&mut MamlWorkflow); 3] = [&over, &suspended, &shared];
    for change in changes {
        let server = Arc::new(Server::default());
        let context = begin(&server).await;
        server.put(WORKFLOW, &isolated());
        reconcile(&server, &context, Vec::new()).await;
        let made = pods(&server);
        assert_eq!(made.len(), 1);
        let mut changed = isolated();
        change(&mut changed);
        server.put(WORKFLOW, &changed);
        reconcile(&server, &context, made).await;
        assert_eq!(pods(&server), []);
    }
}

#[tokio::test]
async fn a_pod_that_failed_before_the_run_began_is_a_lost_attempt_and_replaced() {
    let server = Arc::new(Server::default());
    let mut context = begin(&server).await;
    server.put(WORKFLOW, &isolated());
    reconcile(&server, &context, Vec::new()).await;
    for lost in 1..=3_u64 {
        let mut made = pods(&server);
        assert_eq!(made.len(), 1, "after {lost} attempts");
        made[0].status = serde_json::from_value(json!({"phase": "Failed", "reason": "Evicted"})).ok();
        reconcile(&server, &context, made).await;
        let status = server.get(WORKFLOW).expect("stored")["status"].clone();
        assert_eq!(
            status["attempts"].as_array().map(Vec::len),
            Some(usize::try_from(lost).expect("small"))
        );
        assert!(status["attempts"].to_string().contains("Evicted"), "{status}");
        // Another process knows as much.
        context = begin(&server).await;
    }
    // infrastructureRetries is 2: the third loss is the last.
    assert_eq!(pods(&server), []);
    assert!(
        server.get(WORKFLOW).expect("stored")["status"]
            .to_string()
            .contains("RetriesExhausted")
    );
}

#[tokio::test]
async fn a_pod_of_the_same_name_that_is_somebody_elses_is_not_touched() {
    let server = Arc::new(Server::default());
    let context = begin(&server).await;
    server.put(WORKFLOW, &isolated());
    reconcile(&server, &context, Vec::new()).await;
    let mut foreign = pods(&server).remove(0);
    foreign.metadata.owner_references = None;
    let path = format!("{PODS}/{}", foreign.metadata.name.clone().expect("a name"));
    server.put(&path, &foreign);
    reconcile(&server, &begin(&server).await, Vec::new()).await;
    assert_eq!(reason(&server), "\"NameTaken\"");
    assert!(server.get(&path).is_some());
    assert_eq!(
        foreign
            .metadata
            .labels
            .and_then(|labels| labels.get(names::RUN_OF_LABEL).cloned())
            .as_deref(),
        Some("q")
    );
}
