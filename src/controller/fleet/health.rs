//! What is known of a pod's agent, and whether it takes runs.

use std::collections::HashMap;

use api::{chimera_head::same_device, reasons};
use controller_core::head_plan::{Lost, Mend, SickDevice};
use head_proto::HeadStatus;
use jiff::Timestamp;

use super::{Entry, Retirement, view::view};

/// What a ChimeraHead's status shows of one pod.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PodHealth {
    /// Whether the agent takes runs.
    pub ready: bool,
    /// Why not.
    pub message: String,
    /// UUIDs of its devices.
    pub devices: Vec<String>,
    /// Runs under way.
    pub running: u32,
    /// Id of the agent's attestation key, while it is heard.
    pub agent: Option<String>,
    /// Why it is heard no more.
    pub lost: Option<Lost>,
    /// Devices that the agent finds unhealthy.
    pub sick_devices: Vec<SickDevice>,
    /// Devices that it finds healthy.
    pub healthy_devices: Vec<String>,
    /// Faults that it mended itself.
    pub mends: Vec<Mend>,
    /// Why it is to be replaced although it is heard.
    pub suspect: Option<String>,
}

/// What is known of one pod among all.
pub(super) fn health_in(entries: &HashMap<String, Entry>, pod_uid: &str) -> Option<PodHealth> {
    let entry = entries.get(pod_uid)?;
    let mut health = health(entry);
    if let Some(lost) = &mut health.lost
        && lost.cause == reasons::HEARTBEAT_LOST
        && is_node_silent(entries, entry.member.node.as_deref())
    {
        lost.cause = reasons::NODE_LOST;
    }
    Some(health)
}

/// Whether no pod of a node is heard, of several.
fn is_node_silent(entries: &HashMap<String, Entry>, node: Option<&str>) -> bool {
    let Some(node) = node else { return false };
    let there = || {
        entries
            .values()
            .filter(|entry| entry.member.node.as_deref() == Some(node))
    };
    let is_silent = |entry: &Entry| {
        let lost = entry.lost.as_ref();
        lost.is_some_and(|lost| lost.cause == reasons::HEARTBEAT_LOST)
    };
    there().count() > 1 && there().all(is_silent)
}

/// Devices that an agent finds unhealthy.
pub(super) fn sick_devices(status: &HeadStatus) -> Vec<SickDevice> {
    let sick = status.device_states.iter().filter(|device| !device.healthy);
    sick.map(|device| SickDevice {
        device: device.uuid.clone(),
        message: device.message.clone(),
    })
    .collect()
}

/// What is known of a pod by itself.
pub(super) fn health(entry: &Entry) -> PodHealth {
    let view = view(entry);
    let status = entry.link.as_ref().map(|link| link.status.as_ref());
    let healthy = |status: &HeadStatus| {
        let devices = status.device_states.iter().filter(|device| device.healthy);
        devices.map(|device| device.uuid.clone()).collect()
    };
    let message = match avoided_device(entry) {
        Some(device) if entry.message.is_empty() => {
            format!("it holds device {device}, which failed and was not found healthy since")
        }
        _ => entry.message.clone(),
    };
    PodHealth {
        ready: view.ready,
        message,
        devices: view.devices,
        running: view.running,
        agent: entry.session.as_ref().map(|session| session.agent.clone()),
        lost: entry.lost.clone(),
        sick_devices: status.map(sick_devices).unwrap_or_default(),
        healthy_devices: status.map(healthy).unwrap_or_default(),
        mends: status.map(mends).unwrap_or_default(),
        suspect: entry.suspect.clone(),
    }
}

fn mends(status: &HeadStatus) -> Vec<Mend> {
    let told = status.mends.iter().map(|mend| Mend {
        number: i64::try_from(mend.number).unwrap_or(i64::MAX),
        cause: mend.cause.clone(),
        message: mend.message.clone(),
        noticed: i64::try_from(mend.noticed_unix_millis)
            .ok()
            .and_then(|millis| Timestamp::from_millisecond(millis).ok())
            .unwrap_or(Timestamp::MAX),
        duration_millis: i64::try_from(mend.duration_millis).unwrap_or(i64::MAX),
    });
    told.collect()
}

/// A device of the pod that failed and that its agent does not vouch for.
fn avoided_device(entry: &Entry) -> Option<&String> {
    let status = &entry.link.as_ref()?.status;
    let vouched = |device: &str| {
        let mut states = status.device_states.iter();
        states.any(|state| state.healthy && same_device(&state.uuid, device))
    };
    let avoided = |device: &&String| {
        entry
            .member
            .avoided
            .iter()
            .any(|avoided| same_device(avoided, device))
    };
    status
        .devices
        .iter()
        .find(|device| avoided(device) && !vouched(device))
}

/// Whether a pod is on its way out, as far as it is shown or this process brings it about.
pub(super) fn is_leaving(entry: &Entry) -> bool {
    entry.member.leaving || entry.retirement != Retirement::None
}

/// Whether runs may be placed on a pod.
pub(super) fn takes_runs(entry: &Entry) -> bool {
    let status = entry.link.as_ref().map(|link| &link.status);
    let healthy = |status: &HeadStatus| status.device_states.iter().all(|device| device.healthy);
    !is_leaving(entry)
        && entry.suspect.is_none()
        && entry.session.as_ref().is_some_and(|session| !session.is_over())
        && avoided_device(entry).is_none()
        && status.is_some_and(|status| status.ready && !status.draining && healthy(status))
}
