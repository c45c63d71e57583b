//! What was lost, by fault class, and what makes it good. The status is the memory: each loss is found once, by the
//! difference between what it shows and what is there, whichever process looks.
//!
//! | lost | how it shows | what serves |
//! | --- | --- | --- |
//! | interpreters | the agent tells a mend that the status does not count yet | the same pod |
//! | agent | its connection broke and it does not answer, or another attestation key | a spare, else the same pod |
//! | pod | deleted, evicted, failed | a spare, else a new pod |
//! | device | kubelet or agent report it | a spare, else a new pod on another device |
//! | node | no heartbeat | a spare, else a new pod |

use api::{
    chimera_head::{HeadPod, PodRole, REGENERATIONS_LIMIT, Regeneration},
    reasons,
};
use jiff::Timestamp;

use super::{Mend, NewPod, Observed, PodView};
use crate::{head_pod::pod_name, workflow_status::shortened};

/// What an agent may call a fault that it mended.
const MENDED: [&str; 5] = [
    reasons::WORKER_LOST,
    reasons::WORKER_SLOW,
    reasons::WORKER_GROWN,
    reasons::RUN_UNENDING,
    reasons::CANARY_FAILED,
];
/// The longest account of a loss that is kept.
const LONGEST_MESSAGE: usize = 512;

/// What was found.
pub(super) struct Review {
    /// Losses that the status does not show yet.
    pub found: Vec<Regeneration>,
    /// Losses whose replacement takes runs now and did not before.
    pub recovered: Vec<Regeneration>,
    /// The losses that are not made good yet, and the latest others, for the status.
    pub rows: Vec<Regeneration>,
}

impl Review {
    /// Whether a replacement is still on its way.
    pub(super) fn is_open(&self) -> bool {
        self.rows.iter().any(is_open)
    }
}

/// Finds losses, and replacements that have come.
pub(super) fn review(
    observed: &Observed<'_>,
    staying: &[&PodView],
    active: &[&str],
    create: &[NewPod],
) -> Review {
    let before = observed.head.status.clone().unwrap_or_default();
    let mut rows = before.last_regenerations;
    let known = rows.len();
    rows.extend(losses(observed));

    let head = observed.head.metadata.name.as_deref().unwrap_or_default();
    let mut heirs = Heirs::new(head, staying, active, create);
    let places = places(observed);
    let complete = heirs.fill(places);
    let mut recovered = Vec::new();
    // The newest first: a spare that is promoted now takes over from who was lost now.
    for index in (0..rows.len()).rev() {
        let (until, later) = rows.split_at_mut(index + 1);
        let row = &mut until[index];
        if !is_open(row) {
            continue;
        }
        row.replacement = heirs.next_for(row, later);
        let served = heirs.serves(row.replacement.as_deref());
        // Without anybody to come, it was the place that went: fewer are asked for.
        if served || (complete && row.replacement.is_none()) {
            row.ready_time = Some(observed.now);
            row.duration_millis = Some(millis_between(row.time, observed.now));
        }
        if served {
            recovered.push(row.clone());
        }
    }
    let mut found = rows[known..].to_vec();
    let mended = mends(observed);
    found.extend_from_slice(&mended);
    recovered.extend_from_slice(&mended);
    rows.extend(mended);
    keep_latest(&mut rows, places, &observed.pods);
    Review {
        found,
        recovered,
        rows,
    }
}

fn is_open(row: &Regeneration) -> bool {
    // A row without a UID was written by an operator that never closed one.
    row.ready_time.is_none() && row.uid.is_some()
}

fn millis_between(from: Timestamp, to: Timestamp) -> i64 {
    i64::try_from(to.duration_since(from).as_millis())
        .unwrap_or(i64::MAX)
        .max(0)
}

/// How many pods there are to be.
fn places(observed: &Observed<'_>) -> usize {
    let spec = &observed.head.spec;
    usize::try_from(spec.replicas.saturating_add(spec.spares)).unwrap_or(0)
}

/// Drops losses that are over, the oldest first, as long as there are more rows than are kept. What is not over stays: it is
/// told of when it is made good. More losses are open than there are places only when pods are lost before they ever serve;
/// of those the first, which began it, and the latest stay.
fn keep_latest(rows: &mut Vec<Regeneration>, places: usize, pods: &[PodView]) {
    while rows.len() > REGENERATIONS_LIMIT
        && let Some(oldest) = rows.iter().position(|row| !is_open(row))
    {
        rows.remove(oldest);
    }
    // A row about a pod that is there keeps its loss from being found again.
    let is_gone = |row: &Regeneration| !pods.iter().any(|pod| Some(&pod.uid) == row.uid.as_ref());
    while rows.len() > places.max(REGENERATIONS_LIMIT) {
        let mut gone = (0..rows.len()).filter(|index| is_gone(&rows[*index]));
        let second = gone.nth(1);
        rows.remove(second.unwrap_or(0));
    }
}

/// Pods and agents that the status shows and that are lost now.
fn losses(observed: &Observed<'_>) -> Vec<Regeneration> {
    let Some(status) = &observed.head.status else {
        return Vec::new();
    };
    let known = status.pods.iter().filter(|known| !known.draining);
    known
        .filter(|known| !is_recorded(known, &status.last_regenerations))
        .filter_map(|known| {
            let pod = observed
                .pods
                .iter()
                .find(|pod| Some(&pod.uid) == known.uid.as_ref());
            let (cause, message, time) = why_lost(known, pod, observed.now)?;
            Some(Regeneration {
                pod: known.name.clone(),
                uid: known.uid.clone(),
                replacement: None,
                reason: cause.to_owned(),
                message: message.map(|message| shortened(&message, LONGEST_MESSAGE)),
                duration_millis: None,
                time,
                ready_time: None,
            })
        })
        .collect()
}

/// Whether the pod has not been heard since a loss of it was recorded.
fn is_recorded(known: &HeadPod, rows: &[Regeneration]) -> bool {
    !known.has_served() && known.uid.is_some() && rows.iter().any(|row| row.uid == known.uid)
}

fn why_lost(
    known: &HeadPod,
    pod: Option<&PodView>,
    now: Timestamp,
) -> Option<(&'static str, Option<String>, Timestamp)> {
    let Some(pod) = pod else {
        return Some((reasons::POD_DELETED, None, now));
    };
    if pod.draining {
        // It goes by the operator's own will.
        return None;
    }
    if let Some(why) = &pod.failed {
        return Some((reasons::POD_FAILED, Some(why.clone()), now));
    }
    if let Some(sick) = pod.sick_devices.first() {
        let message = format!("device {}: {}", sick.device, sick.message);
        return Some((reasons::GPU_UNHEALTHY, Some(message), now));
    }
    if let Some(why) = &pod.suspect {
        return Some((reasons::SUSPECT_HEAD, Some(why.clone()), now));
    }
    if let Some(lost) = pod.lost.as_ref().filter(|_| known.has_served()) {
        return Some((lost.cause, Some(lost.message.clone()), lost.since.min(now)));
    }
    if pod.deleting {
        return Some((reasons::POD_DELETED, pod.disruption.clone(), now));
    }
    let another = known.agent.is_some() && pod.agent.is_some() && known.agent != pod.agent;
    another.then(|| {
        let message = "the agent was started again".to_owned();
        (reasons::AGENT_LOST, Some(message), now)
    })
}

/// Faults that agents mended themselves and that the status does not count yet.
fn mends(observed: &Observed<'_>) -> Vec<Regeneration> {
    let status = observed.head.status.as_ref();
    let counted = |pod: &PodView| {
        let known = status?
            .pods
            .iter()
            .find(|known| known.uid.as_ref() == Some(&pod.uid))?;
        // The count begins anew with the agent.
        (known.agent == pod.agent).then_some(known.mends)
    };
    let pods = observed
        .pods
        .iter()
        .filter(|pod| pod.lives() && pod.agent.is_some());
    pods.flat_map(|pod| {
        let counted = counted(pod).unwrap_or(0);
        let new = pod.mends.iter().filter(move |mend| mend.number > counted);
        new.map(|mend| mended(pod, mend, observed.now))
    })
    .collect()
}

fn mended(pod: &PodView, mend: &Mend, now: Timestamp) -> Regeneration {
    let known = MENDED.into_iter().find(|known| *known == mend.cause);
    // Clocks differ: nothing was noticed in the future.
    let time = mend.noticed.min(now);
    let ready = time.checked_add(jiff::SignedDuration::from_millis(mend.duration_millis));
    Regeneration {
        pod: pod.name.clone(),
        uid: Some(pod.uid.clone()),
        replacement: Some(pod.name.clone()),
        reason: known.unwrap_or(reasons::WORKER_LOST).to_owned(),
        message: Some(shortened(&mend.message, LONGEST_MESSAGE)).filter(|message| !message.is_empty()),
        duration_millis: Some(mend.duration_millis),
        time,
        ready_time: Some(ready.unwrap_or(time)),
    }
}

/// Who may take over, each for one loss.
struct Heirs<'a> {
    staying: &'a [&'a PodView],
    active: &'a [&'a str],
    promoted: Vec<String>,
    made: Vec<String>,
}

impl<'a> Heirs<'a> {
    fn new(head: &str, staying: &'a [&'a PodView], active: &'a [&'a str], create: &[NewPod]) -> Self {
        let is_promoted = |pod: &&&PodView| pod.ready && pod.spare && active.contains(&pod.uid.as_str());
        let promoted = staying.iter().filter(is_promoted);
        Self {
            staying,
            active,
            promoted: promoted.map(|pod| pod.name.clone()).collect(),
            made: create
                .iter()
                .map(|pod| pod_name(head, pod.slot, pod.incarnation))
                .collect(),
        }
    }

    /// Whether there are as many pods as there are to be, and each does its duty.
    fn fill(&self, places: usize) -> bool {
        self.staying.len() >= places && self.staying.iter().all(|pod| self.serves(Some(&pod.name)))
    }

    /// Who takes over from who was to take over before, if that pod was lost too; else a spare that is promoted now, else who
    /// was to take over before, else the pod itself, else a new one.
    fn next_for(&mut self, row: &Regeneration, later: &[Regeneration]) -> Option<String> {
        let lost_too = later
            .iter()
            .find(|later| row.replacement.as_ref() == Some(&later.pod));
        if let Some(lost_too) = lost_too {
            // The name leads there also while nobody takes over yet.
            return lost_too.replacement.clone().or_else(|| row.replacement.clone());
        }
        if !self.promoted.is_empty() {
            return Some(self.promoted.remove(0));
        }
        let stays = |name: &String| self.staying.iter().any(|pod| pod.name == *name);
        if let Some(before) = row.replacement.clone().filter(stays) {
            return Some(before);
        }
        let itself = self.staying.iter().any(|pod| Some(&pod.uid) == row.uid.as_ref());
        if itself {
            return Some(row.pod.clone());
        }
        (!self.made.is_empty()).then(|| self.made.remove(0))
    }

    /// Whether a pod does its duty, and its label says so already.
    fn serves(&self, name: Option<&str>) -> bool {
        let pod = self.staying.iter().find(|pod| Some(pod.name.as_str()) == name);
        pod.is_some_and(|pod| pod.ready && pod.spare != self.active.contains(&pod.uid.as_str()))
    }
}

/// The role that a pod has in the status.
pub(super) fn role(active: &[&str], uid: &str) -> PodRole {
    if active.contains(&uid) {
        PodRole::Active
    } else {
        PodRole::Spare
    }
}
