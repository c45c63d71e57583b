//! What a pod object says of a head pod: whether it runs, why not, and what the kubelet finds of its devices. Only reads.

use api::{ChimeraHead, chimera_head::same_device, reasons};
use controller_core::head_plan::SickDevice;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use kube::ResourceExt as _;

/// Whether a label of the operator's own is set.
pub fn is_labelled(pod: &Pod, label: &str) -> bool {
    pod.labels().get(label).is_some_and(|value| value == "true")
}

fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Whether the kubelet found the agent ready.
pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|ready| ready.status == "True")
}

/// Why the pod has ended, if it has: failed, evicted, or refused by its node.
pub fn failure(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let phase = status
        .phase
        .as_deref()
        .filter(|phase| matches!(*phase, "Failed" | "Succeeded"))?;
    let told: Vec<_> = [status.reason.as_deref(), status.message.as_deref()]
        .into_iter()
        .flatten()
        .collect();
    Some(if told.is_empty() {
        format!("the pod ended: {phase}")
    } else {
        told.join(": ")
    })
}

/// Who disrupts the pod, as by an eviction.
pub fn disruption(pod: &Pod) -> Option<String> {
    let target = condition(pod, "DisruptionTarget").filter(|target| target.status == "True")?;
    let told = [target.reason.as_deref(), target.message.as_deref()];
    Some(told.into_iter().flatten().collect::<Vec<_>>().join(": "))
}

/// Since when no node has room for the pod.
pub fn unschedulable_since(pod: &Pod) -> Option<Timestamp> {
    let scheduled = condition(pod, "PodScheduled")?;
    let refused = scheduled.status == "False" && scheduled.reason.as_deref() == Some("Unschedulable");
    let since = scheduled.last_transition_time.as_ref().filter(|_| refused)?;
    Some(since.0)
}

/// Why the pod does not run yet.
pub fn waiting(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let container = status.container_statuses.iter().flatten().find_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting.reason.clone().unwrap_or_default();
        Some(
            waiting
                .message
                .as_ref()
                .map_or(reason.clone(), |message| format!("{reason}: {message}")),
        )
    });
    container.or_else(|| {
        let unscheduled = condition(pod, "PodScheduled").filter(|scheduled| scheduled.status != "True");
        unscheduled?.message.clone()
    })
}

/// Why nothing is to be expected of the pod although it runs.
pub struct Condemnation {
    /// One of [`api::reasons`].
    pub cause: &'static str,
    /// For a person.
    pub message: String,
}

/// A run on a device that the kubelet reports as unhealthy is tried again elsewhere.
pub fn condemnation(pod: &Pod) -> Option<Condemnation> {
    let device = devices_of(pod, UNHEALTHY).next()?;
    Some(Condemnation {
        cause: reasons::GPU_UNHEALTHY,
        message: format!("device {device}: {BY_KUBELET}"),
    })
}

const HEALTHY: &str = "Healthy";
const UNHEALTHY: &str = "Unhealthy";
const BY_KUBELET: &str = "the device plugin reports it unhealthy";

/// Devices of the pod of which the kubelet says this (KEP-4680).
fn devices_of<'a>(pod: &'a Pod, health: &'static str) -> impl Iterator<Item = String> + use<'a> {
    let containers = pod.status.iter().flat_map(|status| &status.container_statuses);
    let statuses = containers
        .flatten()
        .flat_map(|container| container.allocated_resources_status.iter().flatten());
    let devices = statuses.flat_map(|status| status.resources.iter().flatten());
    devices
        .filter(move |device| device.health.as_deref() == Some(health))
        .map(|device| device.resource_id.clone())
}

/// Sick and healthy devices of a pod by the words of kubelet and agent together: who says unhealthy is believed.
pub fn devices(
    pod: &Pod,
    by_agent_sick: Vec<SickDevice>,
    by_agent_healthy: Vec<String>,
) -> (Vec<SickDevice>, Vec<String>) {
    let mut sick = by_agent_sick;
    for device in devices_of(pod, UNHEALTHY) {
        if !sick.iter().any(|known| same_device(&known.device, &device)) {
            let message = BY_KUBELET.to_owned();
            sick.push(SickDevice { device, message });
        }
    }
    let mut healthy = by_agent_healthy;
    healthy.extend(devices_of(pod, HEALTHY));
    healthy.retain(|device| !sick.iter().any(|sick| same_device(&sick.device, device)));
    (sick, healthy)
}

/// Devices that failed and of which the kubelet does not say that this pod's is healthy.
pub fn avoided(pod: &Pod, head: &ChimeraHead) -> Vec<String> {
    let healthy: Vec<_> = devices_of(pod, HEALTHY).collect();
    let status = head.status.iter();
    status
        .flat_map(|status| &status.unhealthy_devices)
        .filter(|known| !healthy.iter().any(|device| same_device(device, &known.device)))
        .map(|known| known.device.clone())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(status: &Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "q-0-0"}, "status": status})).expect("a pod")
    }

    fn allocated(health: &str) -> Value {
        json!({"containerStatuses": [{
            "name": "head", "image": "", "imageID": "", "ready": true, "restartCount": 0,
            "allocatedResourcesStatus": [{"name": "nvidia.com/gpu", "resources": [{"resourceID": "GPU-1", "health": health}]}],
        }]})
    }

    #[test]
    fn evicted_and_refused_pods_say_why() {
        for (status, expected) in [
            (json!({"phase": "Running"}), None),
            (
                json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory"}),
                Some("Evicted: low on memory"),
            ),
            (
                json!({"phase": "Failed", "reason": "UnexpectedAdmissionError"}),
                Some("UnexpectedAdmissionError"),
            ),
            (json!({"phase": "Succeeded"}), Some("the pod ended: Succeeded")),
        ] {
            assert_eq!(failure(&pod(&status)).as_deref(), expected);
        }
    }

    #[test]
    fn whoever_says_that_a_device_is_unhealthy_is_believed() {
        let sick = || {
            vec![SickDevice {
                device: "GPU-1".into(),
                message: "XID 79".into(),
            }]
        };
        for (kubelet, by_agent_sick, by_agent_healthy, is_sick) in [
            (HEALTHY, vec![], vec![], false),
            (UNHEALTHY, vec![], vec![], true),
            (UNHEALTHY, vec![], vec!["GPU-1".to_owned()], true),
            (HEALTHY, sick(), vec![], true),
            ("Unknown", sick(), vec![], true),
        ] {
            let (sick, healthy) = devices(&pod(&allocated(kubelet)), by_agent_sick, by_agent_healthy);
            assert_eq!(
                (sick.len() == 1, healthy.is_empty()),
                (is_sick, is_sick),
                "{kubelet}"
            );
        }
        let (sick, healthy) = devices(&pod(&allocated("Unknown")), vec![], vec![]);
        assert!(sick.is_empty() && healthy.is_empty(), "nobody said anything");
    }

    #[test]
    fn a_device_that_failed_is_avoided_until_the_kubelet_vouches_for_it() {
        let head: ChimeraHead = serde_json::from_value(json!({
            "apiVersion": "chimera.dunes.io/v1alpha1", "kind": "ChimeraHead", "metadata": {"name": "q"},
            "spec": {"role": "quantum"},
            "status": {"unhealthyDevices": [{"device": "GPU-1::0", "since": "2026-01-01T00:00:00Z"}]},
        }))
        .expect("a head");
        assert_eq!(avoided(&pod(&allocated("Unknown")), &head), ["GPU-1::0"]);
        assert!(avoided(&pod(&allocated(HEALTHY)), &head).is_empty());
    }

    #[test]
    fn only_a_pod_that_no_node_takes_is_unschedulable() {
        let scheduled = |status: &str, reason: &str| {
            pod(
                &json!({"conditions": [{"type": "PodScheduled", "status": status, "reason": reason,
                                        "lastTransitionTime": "2026-01-01T00:00:00Z"}]}),
            )
        };
        assert!(unschedulable_since(&scheduled("False", "Unschedulable")).is_some());
        assert!(unschedulable_since(&scheduled("False", "SchedulingGated")).is_none());
        assert!(unschedulable_since(&scheduled("True", "")).is_none());
    }
}
