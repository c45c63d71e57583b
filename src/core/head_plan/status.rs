//! What the status of a head says.

use api::{
    ChimeraHeadStatus, ConditionStatus,
    chimera_head::{HeadPod, PodRole, Regeneration, UNHEALTHY_DEVICES_LIMIT, UnhealthyDevice, same_device},
    condition::{READY, Verdict, is_true, set},
    reasons,
};

use super::{Observed, PodView, Removal, regeneration::role};
use crate::head_pod::{selector_text, template_hash};

/// What was decided, as far as the status tells of it.
pub(super) struct Outcome<'a> {
    pub observed: &'a Observed<'a>,
    pub active: &'a [&'a str],
    pub draining: &'a [Removal],
    pub returning: &'a [&'a PodView],
    pub removed: &'a [Removal],
    pub rows: Vec<Regeneration>,
    pub found: usize,
    pub image_error: Option<String>,
}

/// Builds the status.
pub(super) fn build(outcome: &Outcome<'_>) -> ChimeraHeadStatus {
    let observed = outcome.observed;
    let head = observed.head;
    let before = head.status.clone().unwrap_or_default();
    let pods = pods(outcome, &before);
    let serving = |role: PodRole, ready: bool| {
        let counted = pods
            .iter()
            .filter(|pod| !pod.draining && pod.role == role && (!ready || pod.ready))
            .count();
        count(counted)
    };
    let per_pod = head.spec.gpu.as_ref().map_or(0, |gpu| gpu.count);
    let mut status = ChimeraHeadStatus {
        observed_generation: head.metadata.generation,
        replicas: serving(PodRole::Active, false),
        ready_replicas: serving(PodRole::Active, true),
        spares: serving(PodRole::Spare, true),
        selector: head.metadata.name.as_deref().map(selector_text),
        gpus: per_pod.saturating_mul(count(pods.len())),
        regenerations: before
            .regenerations
            .saturating_add(i64::try_from(outcome.found).unwrap_or(0)),
        last_regenerations: outcome.rows.clone(),
        unhealthy_devices: unhealthy_devices(observed, &before.unhealthy_devices),
        conditions: before.conditions,
        pods,
    };
    let (ready, reason, message) = judge(outcome, &status);
    let verdict = Verdict {
        type_: READY,
        status: ConditionStatus::from(ready),
        reason,
        message: &message,
        observed_generation: head.metadata.generation,
    };
    set(&mut status.conditions, &verdict, observed.now);
    status
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// Rows of the pods that stay and of those that are drained, by name.
fn pods(outcome: &Outcome<'_>, before: &ChimeraHeadStatus) -> Vec<HeadPod> {
    let observed = outcome.observed;
    let hash = template_hash(observed.head, observed.template);
    let is_in = |removals: &[Removal], pod: &PodView| removals.iter().any(|removal| removal.uid == pod.uid);
    let mut pods: Vec<_> = observed
        .pods
        .iter()
        .filter(|pod| pod.lives() && !is_in(outcome.removed, pod))
        .map(|pod| {
            let known = before
                .pods
                .iter()
                .find(|known| known.uid.as_ref() == Some(&pod.uid));
            let returns = outcome.returning.iter().any(|returning| returning.uid == pod.uid);
            let draining = (pod.draining && !returns) || is_in(outcome.draining, pod);
            HeadPod {
                name: pod.name.clone(),
                uid: Some(pod.uid.clone()),
                node: pod.node.clone(),
                role: role(outcome.active, &pod.uid),
                ready: pod.ready && !draining,
                message: Some(pod.message.clone()).filter(|message| !pod.ready && !message.is_empty()),
                devices: pod.devices.clone(),
                running: 0,
                agent: agent(pod, known),
                mends: mends(pod, known),
                draining,
                outdated: outcome.image_error.is_none() && pod.template_hash != hash,
            }
        })
        .collect();
    pods.sort_by(|a, b| a.name.cmp(&b.name));
    pods
}

/// The agent that is heard; while none was heard yet, the one that was known, so that another one is noticed.
fn agent(pod: &PodView, known: Option<&HeadPod>) -> Option<String> {
    let known = known.and_then(|known| known.agent.clone());
    pod.agent.clone().or_else(|| known.filter(|_| pod.lost.is_none()))
}

fn mends(pod: &PodView, known: Option<&HeadPod>) -> i64 {
    let told = pod.mends.iter().map(|mend| mend.number).max().unwrap_or(0);
    match known {
        Some(known) if pod.agent.is_none() || known.agent == pod.agent => known.mends.max(told),
        _ => told,
    }
}

/// Devices that failed: those known that nobody has found healthy since, and those found now.
fn unhealthy_devices(observed: &Observed<'_>, known: &[UnhealthyDevice]) -> Vec<UnhealthyDevice> {
    let living = || observed.pods.iter().filter(|pod| pod.lives());
    let is_healthy = |device: &str| {
        living().any(|pod| {
            pod.healthy_devices
                .iter()
                .any(|healthy| same_device(healthy, device))
        })
    };
    let mut devices: Vec<_> = known
        .iter()
        .filter(|known| !is_healthy(&known.device))
        .cloned()
        .collect();
    for pod in living() {
        for sick in &pod.sick_devices {
            if devices
                .iter()
                .any(|known| same_device(&known.device, &sick.device))
            {
                continue;
            }
            devices.push(UnhealthyDevice {
                device: sick.device.clone(),
                node: pod.node.clone(),
                message: Some(sick.message.clone()).filter(|message| !message.is_empty()),
                since: observed.now,
            });
        }
    }
    devices.sort_by(|a, b| (a.since, &a.device).cmp(&(b.since, &b.device)));
    let surplus = devices.len().saturating_sub(UNHEALTHY_DEVICES_LIMIT);
    devices.drain(..surplus);
    devices
}

fn judge(outcome: &Outcome<'_>, status: &ChimeraHeadStatus) -> (bool, &'static str, String) {
    let observed = outcome.observed;
    let wanted = observed.head.spec.replicas;
    if let Some(message) = &outcome.image_error {
        return (false, reasons::IMAGE_NOT_ALLOWED, message.clone());
    }
    if let Err(message) = &observed.identity {
        return (false, reasons::IDENTITY_UNAVAILABLE, message.clone());
    }
    if wanted == 0 {
        return (true, reasons::SCALED_TO_ZERO, "spec.replicas is 0".to_owned());
    }
    if status.ready_replicas >= wanted {
        let message = format!("{wanted} of {wanted} pods take runs{}", change(outcome, status));
        return (true, reasons::HEADS_READY, message);
    }
    if let Some((reason, message)) = &observed.refused {
        return (false, reason, message.clone());
    }
    let ready = status.ready_replicas;
    let why = status.pods.iter().find_map(|pod| {
        let message = pod.message.as_deref()?;
        Some(format!(" ({}: {message})", pod.name))
    });
    let message = format!("{ready} of {wanted} pods take runs{}", why.unwrap_or_default());
    let was_ready = is_true(&status.conditions, READY)
        || status
            .conditions
            .iter()
            .any(|condition| condition.reason == reasons::DEGRADED);
    let reason = if was_ready || ready > 0 {
        reasons::DEGRADED
    } else {
        reasons::STARTING
    };
    (false, reason, message)
}

/// How far a change of the head has come, and what keeps it.
fn change(outcome: &Outcome<'_>, status: &ChimeraHeadStatus) -> String {
    let outdated = status.pods.iter().filter(|pod| pod.outdated).count();
    if outdated == 0 {
        return String::new();
    }
    let refused = outcome.observed.refused.as_ref();
    let kept_by = refused.map(|(reason, message)| format!(" ({reason}: {message})"));
    let waiting = || {
        let new = status
            .pods
            .iter()
            .find(|pod| !pod.outdated && pod.message.is_some())?;
        Some(format!(
            " ({}: {})",
            new.name,
            new.message.as_deref().unwrap_or_default()
        ))
    };
    format!(
        "; {outdated} of {} are of an earlier spec and are replaced one by one{}",
        status.pods.len(),
        kept_by.or_else(waiting).unwrap_or_default()
    )
}
