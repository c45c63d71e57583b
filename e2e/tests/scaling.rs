//! Scaling: by hand, from zero, and by the cluster's own HorizontalPodAutoscaler through the `scale` subresource.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the answer")]

use api::{ChimeraHead, condition::SCHEDULED, maml_workflow::CandidateState, reasons};
use e2e::{Namespace, cluster, documents, external_metrics, heads, in_namespace, runs, wait};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::{
    ResourceExt as _,
    api::{Patch, PatchParams},
};
use serde_json::json;

/// Sets the number of pods as an autoscaler does.
async fn scale(space: &Namespace, head: &str, replicas: i32) {
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    let scaled = space
        .api::<ChimeraHead>()
        .patch_scale(head, &PatchParams::default(), &patch)
        .await;
    scaled.unwrap_or_else(|error| panic!("scale {head}: {error}"));
}

/// The value of one of the operator's series about a head, if it is there.
async fn told(space: &Namespace, metric: &str, head: &str) -> Option<String> {
    let text = external_metrics::operator_metrics(&space.client).await?;
    let series = format!("{metric}{{head=\"{head}\",namespace=\"{}\"}} ", space.name);
    text.lines()
        .find_map(|line| line.strip_prefix(&series).map(ToOwned::to_owned))
}

#[tokio::test]
async fn a_run_waits_for_a_head_that_is_scaled_to_zero_and_counts_for_its_autoscaler() {
    in_namespace("from-zero", async |space| {
        let mut head = heads::small("sleeper");
        head.spec.replicas = 0;
        heads::start(space, head).await;
        let workflow = runs::workflow("early", documents::small());
        space.create_object(&workflow).await;
        let waiting = runs::says_why(space, "early", SCHEDULED, reasons::SCALED_TO_ZERO).await;
        let message = runs::condition(&waiting, SCHEDULED).message;
        assert!(message.contains("kubectl scale head/sleeper"), "{message}");
        let candidates = runs::status(&waiting).candidates;
        assert_eq!(candidates.len(), 1, "{candidates:?}");
        assert_eq!(
            (candidates[0].head.as_str(), candidates[0].state),
            ("sleeper", CandidateState::ScaledToZero)
        );
        for metric in ["chimera_head_runs_waiting", "chimera_head_places_wanted"] {
            assert_eq!(
                told(space, metric, "sleeper").await.as_deref(),
                Some("1"),
                "{metric}"
            );
        }
        scale(space, "sleeper", 1).await;
        let done = runs::complete(space, "early").await;
        runs::assert_succeeded(space, &done).await;
        assert_eq!(runs::status(&done).candidates, []);
        scale(space, "sleeper", 0).await;
        space
            .api::<ChimeraHead>()
            .delete("sleeper", &kube::api::DeleteParams::background())
            .await
            .unwrap();
        wait::until_answered("the series of a head that is gone are gone", async || {
            told(space, "chimera_head_places", "sleeper").await.is_none()
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn the_horizontal_pod_autoscaler_scales_a_head_up_for_those_who_wait_and_down_again() {
    in_namespace("autoscaled", async |space| {
        let mut head = heads::small("elastic");
        head.spec.workers.warm = 1;
        heads::start(space, head).await;
        external_metrics::while_served(space, async || {
            space.create_object(&autoscaler("elastic")).await;
            // One place and three runs, which last longer than the autoscaler takes to look: every 15 s unless told otherwise.
            let seconds = if cluster::is_local() { 10 } else { 45 };
            let names = ["one", "two", "three"];
            for name in names {
                let workflow = runs::workflow(name, documents::lasting(seconds));
                space.create_object(&workflow).await;
            }
            let grown = wait::until(&space.api::<ChimeraHead>(), "elastic", "two pods serve", |head| {
                head.spec.replicas == 2
                    && head
                        .status
                        .as_ref()
                        .is_some_and(|status| status.ready_replicas == 2)
            })
            .await;
            assert_eq!(heads::pods(space, &grown.name_any()).await.len(), 2);
            for name in names {
                let done = runs::complete(space, name).await;
                runs::assert_succeeded(space, &done).await;
            }
            wait::until(&space.api::<ChimeraHead>(), "elastic", "one pod serves", |head| {
                head.spec.replicas == 1 && head.status.as_ref().is_some_and(|status| status.replicas == 1)
            })
            .await;
        })
        .await;
    })
    .await;
}

/// One pod for each place wanted, at most two, and down again without delay.
fn autoscaler(head: &str) -> HorizontalPodAutoscaler {
    serde_json::from_value(json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": head},
        "spec": {
            "scaleTargetRef": {"apiVersion": "chimera.dunes.io/v1alpha1", "kind": "ChimeraHead", "name": head},
            "minReplicas": 1, "maxReplicas": 2,
            "metrics": [{"type": "External", "external": {
                "metric": {"name": "chimera_head_places_wanted", "selector": {"matchLabels": {"head": head}}},
                "target": {"type": "AverageValue", "averageValue": "1"},
            }}],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
        },
    }))
    .unwrap()
}
