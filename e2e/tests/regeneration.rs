//! What heads do about each class of fault, and how they change, shrink and leave their node without losing a run.
//!
//! These tests kill processes of pods and cordon the node, so they have a program of their own and take turns in it.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the answer")]

use api::{ChimeraHead, MamlWorkflow, chimera_head::Regeneration, names, reasons};
use e2e::{
    Namespace,
    cli::{chimera, kubectl},
    cluster, documents,
    faults::{BrokenDevice, HeadFault},
    heads, images, in_namespace, runs, wait,
};
use futures::future::join_all;
use k8s_openapi::api::{core::v1::Pod, events::v1::Event, policy::v1::PodDisruptionBudget};
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use tokio::sync::Mutex;

static TURN: Mutex<()> = Mutex::const_new(());

/// A head with that many spares whose pods are all ready, and the one pod that serves.
async fn started(space: &Namespace, name: &str, spares: i32) -> Pod {
    let mut head = heads::small(name);
    head.spec.spares = spares;
    heads::start(space, head).await;
    let mut pods = heads::on_duty(space, name, false).await;
    assert_eq!(pods.len(), 1, "one pod serves");
    pods.remove(0)
}

/// The row about that pod, once its replacement takes runs.
async fn made_good(space: &Namespace, head: &str, lost: &Pod) -> Regeneration {
    let uid = lost.uid();
    let of_pod = |head: &ChimeraHead| {
        let rows = head.status.clone().unwrap_or_default().last_regenerations;
        rows.into_iter()
            .find(|row| row.uid == uid && row.duration_millis.is_some())
    };
    let found = wait::until(
        &space.api::<ChimeraHead>(),
        head,
        "the loss is made good and told",
        |head| of_pod(head).is_some(),
    )
    .await;
    of_pod(&found).unwrap()
}

/// Exactly one receipt of the run, and it verifies.
async fn assert_one_receipt(space: &Namespace, workflow: &MamlWorkflow) {
    runs::assert_succeeded(space, workflow).await;
    assert_eq!(
        runs::receipts(space, workflow).await.len(),
        1,
        "{}",
        wait::yaml(workflow)
    );
}

/// The value of a metric of the operator; 0 before it is counted for the first time.
async fn metric(space: &Namespace, series: &str) -> f64 {
    let pod = cluster::operator_pod(&space.client).await.name_any();
    let url = format!(
        "/api/v1/namespaces/{}/pods/{pod}:9090/proxy/metrics",
        cluster::OPERATOR_NAMESPACE
    );
    let request = http::Request::get(url).body(Vec::new()).unwrap();
    let text = space.client.request_text(request).await.unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().unwrap())
}

#[tokio::test]
async fn every_fault_is_made_good_counted_and_told() {
    if !cluster::is_local() {
        eprintln!("nothing to break: processes of pods can be killed on the local cluster only");
        return;
    }
    let _turn = TURN.lock().await;
    for (fault, causes) in [
        (HeadFault::Worker, &[reasons::WORKER_LOST][..]),
        (HeadFault::Agent, &[reasons::AGENT_LOST]),
        (HeadFault::Pod, &[reasons::POD_DELETED, reasons::AGENT_LOST]),
        (HeadFault::Node, &[reasons::HEARTBEAT_LOST, reasons::NODE_LOST]),
    ] {
        for spares in [0, 1] {
            let stem = format!("fault-{}-{spares}", fault.as_str().replace(' ', "-"));
            in_namespace(&stem, async |space| {
                let victim = started(space, "small", spares).await;
                let cut_off = fault.strike(&space.client, &victim).await;
                let done = runs::run(space, runs::workflow("next", documents::small())).await;
                assert_one_receipt(space, &done).await;
                let row = made_good(space, "small", &victim).await;
                assert!(causes.contains(&row.reason.as_str()), "{row:#?}");
                assert!(row.ready_time.unwrap() >= row.time, "{row:#?}");
                assert!(row.replacement.is_some(), "{row:#?}");
                let series = format!(
                    r#"chimera_regenerations_total{{cause="{}",role="quantum"}}"#,
                    row.reason
                );
                assert!(metric(space, &series).await >= 1.0, "{series}");
                let series = format!(
                    r#"chimera_regeneration_time_seconds_count{{cause="{}",role="quantum"}}"#,
                    row.reason
                );
                assert!(metric(space, &series).await >= 1.0, "{series}");
                told_by_event(space, &row.pod).await;
                drop(cut_off);
                let whole = heads::ready(space, "small").await.status.unwrap();
                assert_eq!((whole.ready_replicas, whole.spares), (1, spares));
            })
            .await;
        }
    }
}

/// An Event of the head says that this pod was lost.
async fn told_by_event(space: &Namespace, pod: &str) {
    let events: Api<Event> = space.api();
    wait::until_answered("an Event tells of the loss", async || {
        let all = events.list(&ListParams::default()).await.unwrap();
        all.items.iter().any(|event| {
            let note = event.note.as_deref().unwrap_or_default();
            event.reason.as_deref() == Some(reasons::REGENERATED) && note.contains(pod)
        })
    })
    .await;
}

#[tokio::test]
async fn a_run_under_way_goes_on_elsewhere_and_what_was_cut_off_concludes_nothing() {
    if !cluster::is_local() {
        eprintln!("nothing to break: processes of pods can be killed on the local cluster only");
        return;
    }
    let _turn = TURN.lock().await;
    for fault in [HeadFault::Agent, HeadFault::Node] {
        let stem = format!("moved-{}", fault.as_str().replace(' ', "-"));
        in_namespace(&stem, async |space| {
            let victim = started(space, "small", 1).await;
            space
                .create_object(&runs::workflow("moved", documents::lasting(4)))
                .await;
            let running = runs::running(space, "moved").await;
            runs::printed(space, &running, "begun").await;
            let cut_off = fault.strike(&space.client, &victim).await;
            let moved = wait::until(
                &space.api::<MamlWorkflow>(),
                "moved",
                "it runs elsewhere",
                |workflow| runs::status(workflow).attempt == Some(2),
            )
            .await;
            // What was cut off comes back while the second attempt is under way, and may still finish the first.
            drop(cut_off);
            let done = runs::complete(space, "moved").await;
            assert_one_receipt(space, &done).await;
            let status = runs::status(&done);
            assert_eq!(status.attempt, Some(2), "{}", wait::yaml(&moved));
            assert_eq!(
                status.attempts.len(),
                1,
                "the output of the lost attempt is kept as such"
            );
            assert_eq!(status.attempts[0].reason, reasons::HEAD_LOST);
            assert_eq!(
                status.attempts[0].pod.as_deref(),
                Some(victim.name_any().as_str())
            );
            assert_ne!(status.head.unwrap().uid, victim.uid().unwrap());
        })
        .await;
    }
}

#[tokio::test]
async fn a_run_on_a_device_that_fails_moves_and_the_device_is_avoided() {
    if !cluster::is_local() {
        eprintln!("nothing to break: only the local cluster's device plugin obeys a test");
        return;
    }
    let _turn = TURN.lock().await;
    in_namespace("sick-device", async |space| {
        heads::start(space, heads::with_gpu("gpu")).await;
        space
            .create_object(&runs::workflow("moved", documents::lasting(4).on_gpu()))
            .await;
        let running = runs::running(space, "moved").await;
        runs::printed(space, &running, "begun").await;
        let before = runs::status(&running).head.unwrap();
        let sick = before.devices[0].clone();
        let broken = BrokenDevice::begin(&sick);
        let done = runs::complete(space, "moved").await;
        assert_one_receipt(space, &done).await;
        let status = runs::status(&done);
        let after = status.head.unwrap();
        assert_eq!(status.attempts[0].reason, reasons::GPU_UNHEALTHY);
        assert_ne!((&after.uid, &after.devices), (&before.uid, &before.devices));

        let head = heads::ready(space, "gpu").await.status.unwrap();
        let avoided: Vec<_> = head
            .unhealthy_devices
            .iter()
            .map(|known| known.device.as_str())
            .collect();
        assert_eq!(avoided, [sick.as_str()]);
        let row = head.last_regenerations.last().unwrap();
        assert_eq!(
            (row.pod.as_str(), row.reason.as_str()),
            (before.pod.as_str(), reasons::GPU_UNHEALTHY)
        );
        told_by_event(space, &before.pod).await;
        let series = r#"chimera_regenerations_total{cause="GpuUnhealthy",role="quantum"}"#;
        assert!(metric(space, series).await >= 1.0);
        let answer = kubectl(&["get", "head", "gpu", "-n", &space.name, "--no-headers"]).await;
        let columns: Vec<_> = answer.stdout.split_whitespace().collect();
        assert_eq!(columns[6], "1", "REGENERATIONS of {}", answer.stdout);

        let answer = chimera(&["head", "status", "gpu", "-n", &space.name, "-o", "json"]).await;
        let shown: Value = serde_json::from_str(&answer.stdout).unwrap();
        let devices = shown["devices"].as_array().unwrap();
        assert!(
            devices
                .iter()
                .any(|device| device["name"] == sick.as_str() && device["healthy"] == false),
            "{shown:#}"
        );
        drop(broken);
    })
    .await;
}

#[tokio::test]
async fn head_status_tells_who_is_busy_warm_and_spare() {
    let _turn = TURN.lock().await;
    in_namespace("head-status", async |space| {
        let mut head = heads::small("trio");
        (head.spec.replicas, head.spec.spares) = (2, 1);
        heads::start(space, head).await;
        space
            .create_object(&runs::workflow("busy", documents::lasting(5)))
            .await;
        let running = runs::running(space, "busy").await;
        let pod = runs::status(&running).head.unwrap().pod;
        let answer = chimera(&["head", "status", "head/trio", "-n", &space.name, "-o", "json"]).await;
        assert_eq!(answer.code, 0, "{}", answer.stderr);
        let shown: Value = serde_json::from_str(&answer.stdout).unwrap();
        let pods = shown["pods"].as_array().unwrap();
        let mut states: Vec<_> = pods.iter().map(|pod| pod["state"].as_str().unwrap()).collect();
        states.sort_unstable();
        assert_eq!(states, ["busy", "spare", "warm"], "{shown:#}");
        let busy = pods.iter().find(|shown| shown["name"] == pod.as_str()).unwrap();
        assert_eq!(busy["running"], json!(["busy"]));
        let answer = chimera(&["head", "status", "-n", &space.name]).await;
        assert!(answer.stdout.contains("2 of 2 ready"), "{}", answer.stdout);
        let answer = chimera(&["head", "status", "nobody", "-n", &space.name]).await;
        assert_eq!(answer.code, 1);
        assert!(answer.stderr.contains("hint:"), "{}", answer.stderr);
        runs::complete(space, "busy").await;
    })
    .await;
}

/// A node that takes no pods for as long as this lives.
struct Cordon(String);

impl Drop for Cordon {
    fn drop(&mut self) {
        let done = std::process::Command::new("kubectl")
            .args(["uncordon", &self.0])
            .status();
        if !done.is_ok_and(|status| status.success()) {
            eprintln!("node {} stays cordoned", self.0);
        }
    }
}

#[tokio::test]
async fn a_node_is_drained_during_ten_runs_and_each_has_one_receipt() {
    let _turn = TURN.lock().await;
    in_namespace("drained", async |space| {
        let mut head = heads::small("guest");
        head.spec.workers.warm = 10;
        heads::start(space, head).await;
        let budget = space
            .api::<PodDisruptionBudget>()
            .get(&names::head_disruption_budget("guest"))
            .await
            .unwrap();
        assert_eq!(
            budget.owner_references().len(),
            1,
            "the budget goes with its head"
        );
        let node = heads::pods(space, "guest").await[0]
            .spec
            .clone()
            .unwrap()
            .node_name
            .unwrap();
        let names: Vec<_> = (0..10).map(|index| format!("run-{index}")).collect();
        join_all(names.iter().map(async |name| {
            space
                .create_object(&runs::workflow(name, documents::lasting(3)))
                .await;
            runs::running(space, name).await
        }))
        .await;
        let cordon = Cordon(node.clone());
        let which = format!("--pod-selector={}=guest", names::HEAD_LABEL);
        let answer = kubectl(&[
            "drain",
            &node,
            &which,
            "--delete-emptydir-data",
            "--ignore-daemonsets",
            "--force",
            "--timeout=100s",
        ])
        .await;
        drop(cordon);
        assert_eq!(answer.code, 0, "{}", answer.stderr);
        let done = join_all(names.iter().map(async |name| runs::complete(space, name).await)).await;
        for workflow in &done {
            assert_one_receipt(space, workflow).await;
        }
        heads::ready(space, "guest").await;
    })
    .await;
}

#[tokio::test]
async fn a_rolling_change_of_the_image_during_a_hundred_runs_loses_none() {
    let _turn = TURN.lock().await;
    in_namespace("rolling", async |space| {
        let mut head = heads::small("rolling");
        (head.spec.replicas, head.spec.workers.warm) = (2, 4);
        heads::start(space, head).await;
        let before = heads::pods(space, "rolling").await;
        let image = images::head_next();
        let names: Vec<_> = (0..100).map(|index| format!("run-{index}")).collect();
        let work = async {
            join_all(names.iter().map(async |name| {
                space
                    .create_object(&runs::workflow(name, documents::lasting(1)))
                    .await
            }))
            .await;
            let change = Patch::Merge(json!({"spec": {"image": image}}));
            space
                .api::<ChimeraHead>()
                .patch("rolling", &PatchParams::default(), &change)
                .await
                .unwrap();
            let done = join_all(names.iter().map(async |name| runs::complete(space, name).await)).await;
            (done, heads::ready(space, "rolling").await)
        };
        let ((done, head), most) = heads::most_pods_while(space, "rolling", Box::pin(work)).await;
        assert_eq!(most, 3, "one pod more than there are places");
        for workflow in &done {
            assert_one_receipt(space, workflow).await;
            assert_eq!(runs::status(workflow).attempt, Some(1), "a run was lost");
        }
        let status = head.status.unwrap();
        assert_eq!(status.regenerations, 0, "a change is no loss: {status:#?}");

        let after = heads::pods(space, "rolling").await;
        assert_eq!(after.len(), 2);
        for pod in &after {
            let containers = &pod.spec.as_ref().unwrap().containers;
            assert!(
                containers
                    .iter()
                    .all(|container| container.image.as_ref() == Some(&image)),
                "{}",
                wait::yaml(pod)
            );
        }
        let (old, new) = (run_by(&before, &done), run_by(&after, &done));
        assert_eq!(old + new, done.len());
        assert!(old > 0 && new > 0, "{old} runs before the change, {new} after it");
    })
    .await;
}

/// How many of the runs were given to one of these pods.
fn run_by(pods: &[Pod], done: &[MamlWorkflow]) -> usize {
    done.iter()
        .filter_map(|workflow| runs::status(workflow).head)
        .filter(|head| pods.iter().any(|pod| pod.uid().as_ref() == Some(&head.uid)))
        .count()
}

#[tokio::test]
async fn a_missing_runtime_class_is_told_and_the_pods_that_serve_stay() {
    let _turn = TURN.lock().await;
    in_namespace("no-class", async |space| {
        let mut head = heads::small("classless");
        head.spec.runtime_class_name = Some("does-not-exist".to_owned());
        space.create_object(&head).await;
        wait::until(&space.api::<ChimeraHead>(), "classless", "it says why", |head| {
            let status = head.status.clone().unwrap_or_default();
            status
                .conditions
                .iter()
                .any(|condition| condition.reason == reasons::RUNTIME_CLASS_NOT_FOUND)
        })
        .await;
        assert!(heads::pods(space, "classless").await.is_empty());
        started(space, "small", 0).await;
        let before = heads::fingerprint(space, "small").await;
        let change = Patch::Merge(json!({"spec": {"runtimeClassName": "does-not-exist"}}));
        space
            .api::<ChimeraHead>()
            .patch("small", &PatchParams::default(), &change)
            .await
            .unwrap();
        wait::until(&space.api::<ChimeraHead>(), "small", "it says why", |head| {
            let status = head.status.clone().unwrap_or_default();
            status.ready_replicas == 1
                && status
                    .conditions
                    .iter()
                    .any(|condition| condition.message.contains("does-not-exist"))
        })
        .await;
        assert_eq!(heads::fingerprint(space, "small").await, before);
    })
    .await;
}
