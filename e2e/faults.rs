//! Faults: killed operators, lost pods, agents and interpreters, nodes that are cut off, broken devices.

use std::process::Command;

use api::{MamlWorkflow, names};
use k8s_openapi::api::{apps::v1::Deployment, coordination::v1::Lease, core::v1::Pod};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{cluster, processes, wait};

/// Annotation of the operator's pod template that asks for new pods.
const FRESH: &str = "chimera.dunes.io/e2e-fresh";

/// The operator, about to be killed: its process is looked up beforehand, so that the kill itself takes no time.
pub struct Victim {
    client: Client,
    pod: Pod,
    processes: Vec<processes::Process>,
}

impl Victim {
    /// Finds the operator.
    pub async fn operator(client: &Client) -> Self {
        let pod = cluster::operator_pod(client).await;
        let processes = if cluster::is_local() {
            let found = processes::of_pod(&pod.uid().unwrap_or_default());
            assert!(
                !found.is_empty(),
                "no process of pod {} on this machine",
                pod.name_any()
            );
            found
        } else {
            Vec::new()
        };
        Self {
            client: client.clone(),
            pod,
            processes,
        }
    }

    /// Kills it without warning: SIGKILL on the local cluster, elsewhere the pod is deleted without grace.
    pub async fn kill(self) {
        if self.processes.is_empty() {
            return delete_by_force(&self.client, &self.pod).await;
        }
        for process in &self.processes {
            process.kill();
        }
        // Elsewhere in the test the operator must be the new one, not the one whose death nobody has noticed.
        let before = restarts(&self.pod);
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), cluster::OPERATOR_NAMESPACE);
        let again = |pod: &Pod| {
            let running = pod
                .status
                .as_ref()
                .and_then(|status| status.container_statuses.as_ref());
            restarts(pod) > before && running.is_some_and(|all| all.iter().all(|container| container.ready))
        };
        wait::until(&pods, &self.pod.name_any(), "the killed operator is back", again).await;
    }
}

/// Waits until the Lease tells of the claim of a head for this workflow; the run's id, and the name of the head's pod.
pub async fn claimed(client: &Client, workflow: &MamlWorkflow) -> (String, String) {
    let uid = workflow.uid().expect("a stored workflow");
    let claim = |lease: &Lease| {
        let text = lease.annotations().get(names::CLAIMS_ANNOTATION)?;
        let claims: Value = serde_json::from_str(text).expect("claims are JSON");
        claims.get(&uid).cloned()
    };
    let leases: Api<Lease> = Api::namespaced(client.clone(), cluster::OPERATOR_NAMESPACE);
    let told = |lease: &Lease| claim(lease).is_some();
    let lease = wait::until(&leases, names::LEASE, "a head is claimed for the run", told).await;
    let claim = claim(&lease).expect("just seen");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    (text(&claim["runId"]), text(&claim["head"]["pod"]))
}

fn restarts(pod: &Pod) -> i32 {
    let containers = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_ref());
    containers.map_or(0, |all| all.iter().map(|container| container.restart_count).sum())
}

/// Replaces the operator by a new pod in the ordinary way. The kubelet makes a container wait ever longer before it
/// starts it again; a new pod begins without such a past.
pub async fn fresh_operator(client: &Client) {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), cluster::OPERATOR_NAMESPACE);
    let before = deployments
        .get(cluster::OPERATOR)
        .await
        .expect("the operator's Deployment can be read");
    let annotation = |deployment: &Deployment| {
        let template = deployment.spec.as_ref()?.template.metadata.as_ref()?;
        template.annotations.as_ref()?.get(FRESH)?.parse::<u64>().ok()
    };
    let count = annotation(&before).unwrap_or(0) + 1;
    let change = json!({"spec": {"template": {"metadata": {"annotations": {FRESH: count.to_string()}}}}});
    let patched = deployments
        .patch(cluster::OPERATOR, &PatchParams::default(), &Patch::Merge(change))
        .await;
    let generation = patched
        .expect("the operator's Deployment can be changed")
        .metadata
        .generation;
    wait::until(
        &deployments,
        cluster::OPERATOR,
        "the new operator is the only one",
        |deployment| {
            let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas);
            deployment.status.as_ref().is_some_and(|status| {
                status.observed_generation >= generation
                    && status.updated_replicas == wanted
                    && status.available_replicas == wanted
                    && status.replicas == wanted
            })
        },
    )
    .await;
    // The Deployment no longer counts a pod that is about to end, but such a pod may still hold the Lease.
    let pods: Api<Pod> = Api::namespaced(client.clone(), cluster::OPERATOR_NAMESPACE);
    let all = pods
        .list(&kube::api::ListParams::default().labels(cluster::OPERATOR_PODS))
        .await;
    for pod in all.expect("the operator's pods can be listed").items {
        if pod.metadata.deletion_timestamp.is_some() {
            wait::until_gone(&pods, &pod.name_any()).await;
        }
    }
}

/// Deletes a pod as `kubectl delete --force --grace-period=0` does.
pub async fn delete_by_force(client: &Client, pod: &Pod) {
    let namespace = pod.namespace().expect("a stored pod has a namespace");
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let how = DeleteParams {
        grace_period_seconds: Some(0),
        ..DeleteParams::background()
    };
    pods.delete(&pod.name_any(), &how)
        .await
        .unwrap_or_else(|error| panic!("delete {}: {error}", pod.name_any()));
}

/// A way to lose a head's pod or a part of it. All but the third need the local cluster, whose node is this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadFault {
    /// Its warm interpreters are killed.
    Worker,
    /// Its agent is killed.
    Agent,
    /// It is deleted without grace.
    Pod,
    /// Its agent says nothing any more, and its connections stay open.
    Node,
}

impl HeadFault {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Worker, Self::Agent, Self::Pod, Self::Node];

    /// Its name in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Worker => "worker killed",
            Self::Agent => "agent killed",
            Self::Pod => "pod deleted",
            Self::Node => "node cut off",
        }
    }

    /// Brings it about. A pod that is gone already, or whose agent is, is left alone.
    pub async fn strike(self, client: &Client, pod: &Pod) -> Option<CutOff> {
        let uid = pod.uid().unwrap_or_default();
        match self {
            Self::Worker => {
                for process in processes::interpreters_of(&uid) {
                    process.kill();
                }
            }
            Self::Agent => {
                if let Some(agent) = processes::agent_of(&uid) {
                    agent.kill();
                }
            }
            Self::Pod => delete_by_force(client, pod).await,
            Self::Node => return processes::agent_of(&uid).map(CutOff::begin),
        }
        None
    }
}

/// An agent that is cut off for as long as this lives.
#[derive(Debug)]
pub struct CutOff(processes::Process);

impl CutOff {
    fn begin(agent: processes::Process) -> Self {
        agent.halt();
        Self(agent)
    }
}

impl Drop for CutOff {
    fn drop(&mut self) {
        self.0.resume();
    }
}

/// A device of the local cluster's device plugin that is Unhealthy for as long as this lives, whatever becomes of the test.
pub struct BrokenDevice(String);

impl BrokenDevice {
    /// Breaks the device.
    pub fn begin(device: &str) -> Self {
        let broken = Self(device.to_owned());
        assert!(broken.set_health("unhealthy"), "device {device} cannot be broken");
        broken
    }

    fn set_health(&self, health: &str) -> bool {
        Command::new("device-plugin")
            .args(["health", &self.0, health])
            .status()
            .is_ok_and(|status| status.success())
    }
}

impl Drop for BrokenDevice {
    fn drop(&mut self) {
        if !self.set_health("healthy") {
            eprintln!("device {} stays broken", self.0);
        }
    }
}
