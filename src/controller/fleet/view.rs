//! Pods as placement sees them.

use controller_core::placement::{HeadView, Offer};
use head_proto::{Environment, HeadStatus};

use super::{Entry, Member, health::takes_runs};

/// Whether the pod takes whatever runs it suits.
pub(super) fn is_shared(entry: &Entry) -> bool {
    entry.member.only_for.is_none()
}

/// All pods that take whatever runs they suit.
pub(super) fn shared<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Vec<HeadView> {
    let pods = entries.into_iter().filter(|entry| is_shared(entry));
    pods.map(view).collect()
}

/// Whether an agent offers just this.
pub(super) fn is_what(environment: &Environment, offer: &Offer) -> bool {
    offer.languages == environment.languages
        && offer.interpreter == environment.interpreter
        && offer.packages.len() == environment.packages.len()
        && offer
            .packages
            .iter()
            .all(|(name, version)| environment.packages.get(name) == Some(version))
        && offer.cuda == environment.cuda
        && offer.memory_bytes == environment.memory_bytes
}

/// What an agent offers to runs.
pub(super) fn offered(environment: &Environment) -> Offer {
    Offer {
        languages: environment.languages.clone(),
        interpreter: environment.interpreter.clone(),
        packages: environment
            .packages
            .iter()
            .map(|(name, version)| (name.clone(), version.clone()))
            .collect(),
        cuda: environment.cuda.clone(),
        memory_bytes: environment.memory_bytes,
    }
}

/// Devices that are not known to be sick; an agent of an older version tells of none.
fn healthy(status: &HeadStatus) -> u32 {
    let sick = |uuid: &String| {
        status
            .device_states
            .iter()
            .any(|device| device.uuid == *uuid && !device.healthy)
    };
    let healthy = status.devices.iter().filter(|uuid| !sick(uuid)).count();
    u32::try_from(healthy).unwrap_or(u32::MAX)
}

/// One pod.
pub(super) fn view(entry: &Entry) -> HeadView {
    let Member {
        pod_uid,
        pod,
        namespace,
        head,
        labels,
        role,
        node,
        spare,
        ..
    } = entry.member.clone();
    let status = entry.link.as_ref().map(|link| &link.status);
    // A run counts once: reserved here, or reported by the agent, which also knows those of a predecessor.
    let foreign = status.map_or(0, |status| {
        status
            .running
            .iter()
            .filter(|run| !entry.reserved.contains(run.as_str()))
            .count()
    });
    HeadView {
        pod_uid,
        pod,
        namespace,
        head,
        labels,
        role,
        node,
        spare,
        ready: takes_runs(entry),
        capacity: status.map_or(0, |status| status.capacity),
        running: u32::try_from(entry.reserved.len() + foreign).unwrap_or(u32::MAX),
        devices: status.map(|status| status.devices.clone()).unwrap_or_default(),
        gpus: status.map_or(0, |status| healthy(status)),
        offer: entry.link.as_ref().and_then(|link| link.offer.clone()),
    }
}
