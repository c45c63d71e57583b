//! Pods that are about to be taken out of service and are not: they take runs again.

use controller_core::head_pod::{INCARNATION_LABEL, SLOT_LABEL, template_hash};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::{connect, join};
use crate::{
    clock,
    context::Context,
    fleet::Fleet,
    head,
    recorded_server::{Fault, Server},
    test_context::{context, scope_of},
};
use api::{ChimeraHead, names, reasons};
use controller_core::head_plan::Lost;
use std::sync::Arc;

const HEAD: &str = "/apis/chimera.dunes.io/v1alpha1/namespaces/team/chimeraheads/q";
const PODS: &str = "/api/v1/namespaces/team/pods";
/// No reconcile here writes as often.
const WRITES: usize = 8;

fn chimera_head(replicas: i32) -> ChimeraHead {
    let head = json!({
        "apiVersion": "chimera.dunes.io/v1alpha1", "kind": "ChimeraHead",
        "metadata": {"name": "q", "namespace": "team", "uid": "head", "generation": 1},
        "spec": {"role": "quantum", "replicas": replicas},
    });
    serde_json::from_value(head).expect("a head")
}

/// A pod of the head whose device the kubelet reports so.
fn pod(context: &Context, slot: i32, health: &str) -> Pod {
    let name = format!("q-{slot}-0");
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "team", "uid": format!("uid-{name}"),
            "labels": {names::HEAD_LABEL: "q", SLOT_LABEL: slot.to_string(), INCARNATION_LABEL: "0"},
            "annotations": {names::TEMPLATE_HASH_ANNOTATION: template_hash(&chimera_head(1), &context.template)},
            "ownerReferences": [{
                "apiVersion": "chimera.dunes.io/v1alpha1", "kind": "ChimeraHead", "name": "q", "uid": "head",
            }],
        },
        "status": {
            "podIP": "127.0.0.1",
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{
                "name": "head", "image": "", "imageID": "", "ready": true, "restartCount": 0,
                "allocatedResourcesStatus": [{
                    "name": "nvidia.com/gpu", "resources": [{"resourceID": "GPU-1", "health": health}],
                }],
            }],
        },
    });
    serde_json::from_value(pod).expect("a pod")
}

/// An operator that hears these pods of a head, and a server that has them.
fn begin(slots: &[i32]) -> (Arc<Server>, Arc<Context>, Vec<Pod>) {
    let server = Arc::new(Server::default());
    let context = context(&server.client());
    let pods: Vec<_> = slots.iter().map(|slot| pod(&context, *slot, "Healthy")).collect();
    for pod in &pods {
        let name = pod.metadata.name.as_deref().expect("a name");
        server.put(&format!("{PODS}/{name}"), pod);
        join(&context.fleet, name);
        connect(&context.fleet, name, 1);
    }
    server.put(HEAD, &chimera_head(1));
    (server, context, pods)
}

/// Whether it could be done.
async fn reconcile(context: &Arc<Context>, replicas: i32, pods: &[Pod]) -> bool {
    let head = chimera_head(replicas);
    let scope = scope_of(Arc::clone(context), vec![head.clone()], pods.to_vec());
    head::reconcile(Arc::new(head), scope).await.is_ok()
}

fn takes_runs(fleet: &Fleet, slot: i32) -> bool {
    fleet.health(&format!("uid-q-{slot}-0")).expect("known").ready
}

/// The pod's agent is not heard for so long that the pod is to be replaced.
fn fall_silent(fleet: &Fleet, slot: i32) {
    let since = clock::now() - jiff::SignedDuration::from_secs(60);
    let mut entries = fleet.entries();
    let entry = entries.get_mut(&format!("uid-q-{slot}-0")).expect("known");
    (entry.link, entry.session) = (None, None);
    entry.lost = Some(Lost {
        cause: reasons::HEARTBEAT_LOST,
        message: "no heartbeat".into(),
        since,
    });
}

#[tokio::test]
async fn a_pod_that_could_not_be_deleted_and_is_heard_again_takes_runs() {
    let mut undeleted = 0;
    for at in 0..WRITES {
        let (server, context, pods) = begin(&[0]);
        fall_silent(&context.fleet, 0);
        server.fail(at, Fault::LostBefore);
        let done = reconcile(&context, 1, &pods).await;
        if server.get(&format!("{PODS}/q-0-0")).is_none() {
            continue;
        }
        assert!(!done, "write {at} failed");
        let deleted = format!("DELETE {PODS}/q-0-0");
        undeleted += usize::from(server.writes().contains(&deleted));
        connect(&context.fleet, "q-0-0", 1);
        assert!(reconcile(&context, 1, &pods).await);
        assert!(takes_runs(&context.fleet, 0), "write {at} failed");
    }
    assert_eq!(undeleted, 1, "one of the writes that failed was the deletion");
}

#[tokio::test]
async fn a_pod_that_was_deleted_takes_no_runs_whatever_is_still_seen_of_it() {
    let (server, context, pods) = begin(&[0]);
    fall_silent(&context.fleet, 0);
    assert!(reconcile(&context, 1, &pods).await);
    assert_eq!(server.get(&format!("{PODS}/q-0-0")), None);
    connect(&context.fleet, "q-0-0", 1);
    assert!(reconcile(&context, 1, &pods).await);
    assert!(!takes_runs(&context.fleet, 0));
}

#[tokio::test]
async fn a_pod_that_could_not_be_drained_takes_runs_when_it_is_wanted_again() {
    let mut undrained = 0;
    for at in 0..WRITES {
        let (server, context, pods) = begin(&[0, 1]);
        server.fail(at, Fault::LostBefore);
        let done = reconcile(&context, 1, &pods).await;
        let labels = |slot: i32| {
            let pod = server.get(&format!("{PODS}/q-{slot}-0")).expect("there");
            pod["metadata"]["labels"][names::DRAINING_LABEL].clone()
        };
        let unlabelled = [0, 1].iter().all(|slot| labels(*slot) == Value::Null);
        let tried = server.writes().iter().any(|write| write.contains("/pods/"));
        if unlabelled {
            assert!(!done, "write {at} failed");
            undrained += usize::from(tried);
            let both = takes_runs(&context.fleet, 0) && takes_runs(&context.fleet, 1);
            assert!(both, "write {at} failed, and both go on");
        } else {
            assert!(!takes_runs(&context.fleet, 1), "it is drained");
        }
        // The label is not seen yet when the head is scaled up again.
        assert!(reconcile(&context, 2, &pods).await);
        assert!(
            takes_runs(&context.fleet, 0) && takes_runs(&context.fleet, 1),
            "write {at} failed"
        );
    }
    assert_eq!(undrained, 1, "one of the writes that failed was the label");
}

#[tokio::test]
async fn a_device_that_was_unhealthy_for_a_moment_is_used_again() {
    let (_server, context, pods) = begin(&[0]);
    let scope = scope_of(Arc::clone(&context), vec![chimera_head(1)], pods.clone());
    let fate = |context: &Context| context.fleet.link("uid-q-0-0").expect("heard").link.fate;
    let before = fate(&context);
    head::follow_pod(&scope, &pod(&context, 0, "Unhealthy"), false);
    assert_eq!(before.lost().await.expect("told").cause, reasons::GPU_UNHEALTHY);
    assert!(!takes_runs(&context.fleet, 0));
    // The same agent is heard all the while.
    connect(&context.fleet, "q-0-0", 1);
    assert!(!takes_runs(&context.fleet, 0), "the kubelet says otherwise");
    head::follow_pod(&scope, &pod(&context, 0, "Healthy"), false);
    connect(&context.fleet, "q-0-0", 1);
    assert!(takes_runs(&context.fleet, 0));
    let after = tokio::time::timeout(std::time::Duration::from_millis(1), fate(&context).lost());
    assert!(after.await.is_err(), "nothing is held against what it runs now");
}
