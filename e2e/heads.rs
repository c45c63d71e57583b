//! Heads for tests: as small as a head can be, so that many fit on a node of two cores.

use std::collections::{BTreeMap, BTreeSet};

use api::{
    ChimeraHead, ChimeraHeadSpec, Role,
    chimera_head::{Gpu, Health, ResourceAmounts, Resources, Workers},
    condition::{READY, is_true},
    names,
};
use futures::{StreamExt as _, pin_mut};
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::api::resource::Quantity};
use kube::{
    ResourceExt as _,
    api::{DeleteParams, ListParams},
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event},
    },
};

use crate::{Namespace, wait};

/// A head of one pod with two bare interpreters.
pub fn small(name: &str) -> ChimeraHead {
    let amounts = |cpu: Option<&str>, memory: &str, storage: &str| ResourceAmounts {
        cpu: cpu.map(|cpu| Quantity(cpu.to_owned())),
        memory: Some(Quantity(memory.to_owned())),
        ephemeral_storage: Some(Quantity(storage.to_owned())),
    };
    ChimeraHead::new(
        name,
        ChimeraHeadSpec {
            role: Role::Quantum,
            replicas: 1,
            spares: 0,
            image: None,
            gpu: None,
            workers: Workers {
                warm: 2,
                preload: Vec::new(),
            },
            resources: Some(Resources {
                requests: Some(amounts(Some("10m"), "32Mi", "16Mi")),
                limits: Some(amounts(None, "4Gi", "1Gi")),
            }),
            health: Health::default(),
            runtime_class_name: None,
            termination_grace_period_seconds: None,
            node_selector: BTreeMap::new(),
            tolerations: Vec::new(),
            priority_class_name: None,
            topology_spread: Vec::new(),
        },
    )
}

/// A small head whose pods have one GPU each.
pub fn with_gpu(name: &str) -> ChimeraHead {
    let mut head = small(name);
    head.spec.gpu = Some(Gpu {
        count: 1,
        resource_name: "nvidia.com/gpu".to_owned(),
        runtime_class_name: None,
    });
    head
}

/// Creates a head and waits until all its pods are ready, spares too.
pub async fn start(space: &Namespace, head: ChimeraHead) -> ChimeraHead {
    let name = head.metadata.name.clone().unwrap_or_default();
    space.create_object(&head).await;
    ready(space, &name).await
}

/// Deletes a head and waits until its pods are gone.
pub async fn remove(space: &Namespace, name: &str) {
    let heads = space.api::<ChimeraHead>();
    let deleted = heads.delete(name, &DeleteParams::background()).await;
    deleted.unwrap_or_else(|error| panic!("delete {name}: {error}"));
    wait::until_gone(&heads, name).await;
    for pod in pods(space, name).await {
        wait::until_gone(&space.api::<Pod>(), &pod.name_any()).await;
    }
}

/// Waits until a head is Ready as its present spec asks, spares included.
pub async fn ready(space: &Namespace, name: &str) -> ChimeraHead {
    wait::until(&space.api::<ChimeraHead>(), name, "every pod is ready", |head| {
        let places = head.spec.replicas + head.spec.spares;
        head.status.as_ref().is_some_and(|status| {
            status.observed_generation == head.metadata.generation
                && is_true(&status.conditions, READY)
                && status.ready_replicas == head.spec.replicas
                && i32::try_from(status.pods.iter().filter(|pod| pod.ready).count()) == Ok(places)
                && status.pods.iter().all(|pod| !pod.outdated && !pod.draining)
        })
    })
    .await
}

/// The pods of a head that are not being deleted.
pub async fn pods(space: &Namespace, head: &str) -> Vec<Pod> {
    let which = ListParams::default().labels(&format!("{}={head}", names::HEAD_LABEL));
    let list = space.api::<Pod>().list(&which).await.expect("pods can be listed");
    list.items
        .into_iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .collect()
}

/// What comes of the work, and the largest number of pods that the head had at one time until it was done. Those that
/// are being deleted do not count.
pub async fn most_pods_while<T>(space: &Namespace, head: &str, work: impl Future<Output = T>) -> (T, usize) {
    let which = watcher::Config::default().labels(&format!("{}={head}", names::HEAD_LABEL));
    let changes = watcher::watcher(space.api::<Pod>(), which).default_backoff();
    pin_mut!(work, changes);
    let mut there = BTreeSet::new();
    let mut most = 0;
    loop {
        let change = tokio::select! {
            done = &mut work => return (done, most),
            change = changes.next() => change.expect("a watch has no end"),
        };
        match change {
            Ok(Event::Init) => there.clear(),
            Ok(Event::InitApply(pod) | Event::Apply(pod)) if pod.metadata.deletion_timestamp.is_none() => {
                there.insert(pod.uid());
            }
            Ok(Event::InitApply(pod) | Event::Apply(pod) | Event::Delete(pod)) => {
                there.remove(&pod.uid());
            }
            Ok(Event::InitDone) => {}
            // The API server may restart; the watcher comes back by itself.
            Err(error) => eprintln!("watch of the pods of {head}: {error}"),
        }
        most = most.max(there.len());
    }
}

/// The pods of a head that serve, or its spares.
pub async fn on_duty(space: &Namespace, head: &str, spare: bool) -> Vec<Pod> {
    let mut pods = pods(space, head).await;
    let is = |pod: &Pod, label: &str| {
        let value = pod.metadata.labels.as_ref().and_then(|labels| labels.get(label));
        value.is_some_and(|value| value == "true")
    };
    pods.retain(|pod| is(pod, names::SPARE_LABEL) == spare && !is(pod, names::DRAINING_LABEL));
    pods
}

/// Names, UIDs and restarts of a head's pods: the same before and after, if nothing happened to them.
pub async fn fingerprint(space: &Namespace, head: &str) -> Vec<(String, String, i32)> {
    let mut all: Vec<_> = pods(space, head)
        .await
        .into_iter()
        .map(|pod| {
            let containers = pod
                .status
                .and_then(|status| status.container_statuses)
                .unwrap_or_default();
            let restarts = containers.iter().map(|container| container.restart_count).sum();
            (
                pod.metadata.name.unwrap_or_default(),
                pod.metadata.uid.unwrap_or_default(),
                restarts,
            )
        })
        .collect();
    all.sort();
    all
}
