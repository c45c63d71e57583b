//! What is shown of a head, computed from it and from the workflows of its namespace.

use api::chimera_head::{HeadPod, PodRole, Regeneration, same_device};
use api::condition::{self, READY};
use api::{ChimeraHead, MamlWorkflow};
use jiff::Timestamp;
use kube::ResourceExt as _;
use serde::Serialize;

use crate::{cluster, output};

/// One head.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Overview {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub role: String,
    /// Pods that take runs.
    pub ready: i32,
    /// Pods that should.
    pub desired: i32,
    /// Warm pods that wait to take over.
    pub spares: i32,
    /// What was lost since the head was created.
    pub regenerations: i64,
    /// Why it is ready or not, as one word.
    pub reason: String,
    /// The same as a sentence.
    pub message: String,
    /// Its pods, by name.
    pub pods: Vec<Pod>,
    /// Their devices, and those that failed.
    pub devices: Vec<Device>,
    /// The latest losses, newest last.
    pub last_regenerations: Vec<Regeneration>,
}

/// One pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// What it does.
    pub state: State,
    /// Names of the workflows that it runs.
    pub running: Vec<String>,
    /// Whether it is of an earlier spec.
    pub outdated: bool,
    /// Why it is not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// What a pod does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// It runs documents.
    Busy,
    /// It waits for documents.
    Warm,
    /// It waits to take over.
    Spare,
    /// It finishes its runs and takes no new ones.
    Draining,
    /// It takes no runs.
    NotReady,
}

impl State {
    fn of(pod: &HeadPod, running: usize) -> Self {
        match pod {
            HeadPod { draining: true, .. } => Self::Draining,
            HeadPod { ready: false, .. } => Self::NotReady,
            // A pod that was taken out of service may have a run still.
            _ if running > 0 => Self::Busy,
            HeadPod {
                role: PodRole::Spare, ..
            } => Self::Spare,
            _ => Self::Warm,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Warm => "warm",
            Self::Spare => "spare",
            Self::Draining => "draining",
            Self::NotReady => "not ready",
        }
    }
}

/// One GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// The name that its driver gives it.
    pub name: String,
    /// The pod that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Whether it may be used.
    pub healthy: bool,
    /// Since when it may not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Overview {
    /// What is to be said of a head.
    pub fn of(head: &ChimeraHead, workflows: &[&MamlWorkflow]) -> Self {
        let status = head.status.clone().unwrap_or_default();
        let ready = condition::find(&status.conditions, READY);
        let pods = status.pods.iter().map(|pod| {
            let running: Vec<_> = workflows
                .iter()
                .filter(|workflow| runs_on(workflow, pod))
                .map(|workflow| workflow.name_any())
                .collect();
            Pod {
                name: pod.name.clone(),
                node: pod.node.clone(),
                state: State::of(pod, running.len()),
                running,
                outdated: pod.outdated,
                message: pod.message.clone(),
            }
        });
        Self {
            name: head.name_any(),
            role: head.spec.role.as_str().to_owned(),
            ready: status.ready_replicas,
            desired: head.spec.replicas,
            spares: status.spares,
            regenerations: status.regenerations,
            reason: ready.map_or_else(String::new, |ready| ready.reason.clone()),
            message: ready.map_or_else(
                || "the operator has not looked at it yet".to_owned(),
                |ready| ready.message.clone(),
            ),
            pods: pods.collect(),
            devices: devices(&status),
            last_regenerations: status.last_regenerations,
        }
    }
}

fn runs_on(workflow: &MamlWorkflow, pod: &HeadPod) -> bool {
    let head = workflow.status.as_ref().and_then(|status| status.head.as_ref());
    let there = head.is_some_and(|head| Some(&head.uid) == pod.uid.as_ref());
    there && !cluster::is_complete(workflow)
}

fn devices(status: &api::ChimeraHeadStatus) -> Vec<Device> {
    let failed = |device: &str| {
        status
            .unhealthy_devices
            .iter()
            .find(|known| same_device(&known.device, device))
    };
    let of = |device: &str, pod: Option<&HeadPod>| {
        let failed = failed(device);
        Device {
            name: device.to_owned(),
            pod: pod.map(|pod| pod.name.clone()),
            healthy: failed.is_none(),
            since: failed.map(|failed| failed.since),
            message: failed.and_then(|failed| failed.message.clone()),
        }
    };
    let held = status
        .pods
        .iter()
        .flat_map(|pod| pod.devices.iter().map(|device| of(device, Some(pod))));
    let mut devices: Vec<_> = held.collect();
    for known in &status.unhealthy_devices {
        if !devices
            .iter()
            .any(|device| same_device(&device.name, &known.device))
        {
            devices.push(of(&known.device, None));
        }
    }
    devices
}

/// For people.
pub fn text(heads: &[Overview]) -> String {
    if heads.is_empty() {
        return "no heads in this namespace\n".to_owned();
    }
    heads.iter().map(text_of).collect::<Vec<_>>().join("\n")
}

fn text_of(head: &Overview) -> String {
    let mut text = format!(
        "{} ({}): {} of {} ready, {} spare, {} regenerations\n{}: {}\n",
        output::harmless(&head.name),
        head.role,
        head.ready,
        head.desired,
        head.spares,
        head.regenerations,
        output::harmless(&head.reason),
        output::harmless(&head.message),
    );
    let shown = |text: &Option<String>| text.as_deref().map_or_else(|| "-".to_owned(), output::harmless);
    let mut add = |heading: &[&str], rows: Vec<Vec<String>>| {
        if !rows.is_empty() {
            text.push('\n');
            text.push_str(&output::table(heading, &rows));
        }
    };
    let pods = head.pods.iter().map(|pod| {
        let running: Vec<_> = pod.running.iter().map(|name| output::harmless(name)).collect();
        let old = if pod.outdated { ", of an earlier spec" } else { "" };
        vec![
            output::harmless(&pod.name),
            format!("{}{old}", pod.state.as_str()),
            shown(&pod.node),
            running.join(" "),
            pod.message.as_deref().map(output::harmless).unwrap_or_default(),
        ]
    });
    add(&["POD", "STATE", "NODE", "RUNS", "MESSAGE"], pods.collect());
    let devices = head.devices.iter().map(|device| {
        vec![
            output::harmless(&device.name),
            if device.healthy { "healthy" } else { "unhealthy" }.to_owned(),
            shown(&device.pod),
            device
                .since
                .map_or_else(String::new, |since| format!("{since:.0}")),
            device
                .message
                .as_deref()
                .map(output::harmless)
                .unwrap_or_default(),
        ]
    });
    add(&["DEVICE", "STATE", "POD", "SINCE", "MESSAGE"], devices.collect());
    let losses = head.last_regenerations.iter().map(|row| {
        vec![
            format!("{:.3}", row.time),
            output::harmless(&row.reason),
            output::harmless(&row.pod),
            shown(&row.replacement),
            row.duration_millis
                .map_or_else(|| "not yet".to_owned(), |millis| format!("{millis} ms")),
            row.message.as_deref().map(output::harmless).unwrap_or_default(),
        ]
    });
    add(
        &[
            "NOTICED",
            "CAUSE",
            "LOST",
            "REPLACED BY",
            "READY AFTER",
            "MESSAGE",
        ],
        losses.collect(),
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn head() -> ChimeraHead {
        serde_json::from_value(json!({
            "apiVersion": "chimera.dunes.io/v1alpha1", "kind": "ChimeraHead", "metadata": {"name": "q"},
            "spec": {"role": "inference", "replicas": 2, "spares": 1, "gpu": {}},
            "status": {
                "replicas": 2, "readyReplicas": 2, "spares": 1, "regenerations": 3,
                "pods": [
                    {"name": "q-0-0", "uid": "0", "role": "active", "ready": true, "devices": ["GPU-1"]},
                    {"name": "q-1-0", "uid": "1", "role": "active", "ready": true},
                    {"name": "q-2-0", "uid": "2", "role": "spare", "ready": true},
                    {"name": "q-3-0", "uid": "3", "role": "spare", "ready": false, "draining": true, "outdated": true},
                    {"name": "q-4-0", "uid": "4", "role": "spare", "ready": false, "message": "starts\u{1b}[2J"},
                ],
                "unhealthyDevices": [{"device": "GPU-2", "since": "2026-05-04T10:00:00Z", "message": "XID 79"}],
                "lastRegenerations": [
                    {"pod": "q-0-9", "replacement": "q-0-0", "reason": "PodDeleted", "time": "2026-05-04T10:00:00.25Z", "durationMillis": 37},
                    {"pod": "q-1-9", "reason": "AgentLost", "time": "2026-05-04T10:00:01Z"},
                ],
            },
        }))
        .unwrap()
    }

    fn workflow(name: &str, pod: &str, complete: &str) -> MamlWorkflow {
        serde_json::from_value(json!({
            "apiVersion": "chimera.dunes.io/v1alpha1", "kind": "MamlWorkflow", "metadata": {"name": name, "generation": 1},
            "spec": {"source": {"inline": "x"}},
            "status": {
                "head": {"name": "q", "pod": format!("q-{pod}-0"), "uid": pod},
                "conditions": [{"type": "Complete", "status": complete, "reason": "Running", "message": "",
                                "observedGeneration": 1, "lastTransitionTime": "2026-05-04T10:00:00Z"}],
            },
        }))
        .unwrap()
    }

    #[test]
    fn pods_are_busy_by_the_workflows_that_they_run() {
        let (busy, done) = (workflow("w", "0", "False"), workflow("old", "1", "True"));
        let overview = Overview::of(&head(), &[&busy, &done]);
        let states: Vec<_> = overview.pods.iter().map(|pod| pod.state).collect();
        assert_eq!(
            states,
            [
                State::Busy,
                State::Warm,
                State::Spare,
                State::Draining,
                State::NotReady
            ]
        );
        assert_eq!(overview.pods[0].running, ["w"]);
        let devices: Vec<_> = overview
            .devices
            .iter()
            .map(|device| (device.name.as_str(), device.healthy))
            .collect();
        assert_eq!(devices, [("GPU-1", true), ("GPU-2", false)]);
    }

    #[test]
    fn a_share_of_a_device_that_failed_has_failed_whatever_name_each_side_gives_it() {
        let mut head = head();
        let status = head.status.as_mut().unwrap();
        status.pods[0].devices = vec!["GPU-1".to_owned()];
        status.pods[1].devices = vec!["GPU-2::1".to_owned()];
        status.unhealthy_devices[0].device = "GPU-1::0".to_owned();
        let overview = Overview::of(&head, &[]);
        let devices: Vec<_> = overview
            .devices
            .iter()
            .map(|device| (device.name.as_str(), device.healthy))
            .collect();
        assert_eq!(devices, [("GPU-1", false), ("GPU-2::1", true)]);
    }

    #[test]
    fn the_text_tells_milliseconds_and_cannot_control_the_terminal() {
        let text = text(&[Overview::of(&head(), &[])]);
        for part in [
            "2 of 2 ready",
            "37 ms",
            "not yet",
            "XID 79",
            "draining, of an earlier spec",
        ] {
            assert!(text.contains(part), "{part} is missing in:\n{text}");
        }
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
}
