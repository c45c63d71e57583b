//! Which pods go, and which are made: the dead, those too many, and those of an earlier spec.
//!
//! A changed spec replaces one pod at a time. One more pod than there are places is made of the new spec; when it is
//! ready, a pod of the old one is drained. Where there is no room for one more, as with exclusive GPUs, the old pod goes
//! first.

use std::{cmp::Reverse, time::Duration};

use api::reasons;
use jiff::Timestamp;

use super::{NewPod, Observed, PodView, Removal};
use crate::head_pod::template_hash;

/// For how long an agent that is heard no more may come back before its pod is replaced. A container that is started
/// again needs about a second; a spare serves at once.
const PATIENCE: Duration = Duration::from_secs(5);
/// For how long a pod may find no node before the change of a head goes on without one more.
const SURGE_PATIENCE: Duration = Duration::from_secs(15);

fn is_over(patience: Duration, since: Timestamp, now: Timestamp) -> bool {
    Duration::try_from(now.duration_since(since)).is_ok_and(|passed| passed >= patience)
}

/// Pods that are dead, and drained ones that have no run left.
pub(super) fn removals(observed: &Observed<'_>) -> Vec<Removal> {
    let pods = observed.pods.iter().filter(|pod| !pod.deleting);
    pods.filter_map(|pod| Some(Removal::of(pod, why_gone(observed, pod)?)))
        .collect()
}

fn why_gone(observed: &Observed<'_>, pod: &PodView) -> Option<&'static str> {
    let now = observed.now;
    if pod.failed.is_some() {
        return (!failed_at_birth(pod, now)).then_some(reasons::POD_FAILED);
    }
    if !pod.sick_devices.is_empty() {
        return Some(reasons::GPU_UNHEALTHY);
    }
    if pod.suspect.is_some() {
        return Some(reasons::SUSPECT_HEAD);
    }
    if let Some(lost) = &pod.lost
        && (pod.draining || is_over(PATIENCE, lost.since, now))
    {
        return Some(lost.cause);
    }
    let has_no_run = never_served(observed, pod) || (pod.agent.is_some() && pod.running == 0);
    (pod.draining && has_no_run).then_some(reasons::DRAINED)
}

/// Whether nobody was ever served by a pod: neither has this process heard its agent, nor has any before that wrote the
/// status. After a start of the operator nobody is heard yet, and a pod that the kubelet doubts at that moment may have runs.
fn never_served(observed: &Observed<'_>, pod: &PodView) -> bool {
    let status = observed.head.status.as_ref();
    let known = status.and_then(|status| {
        let mut pods = status.pods.iter();
        pods.find(|known| known.uid.as_ref() == Some(&pod.uid))
    });
    pod.is_unheard() && known.is_some_and(|known| !known.has_served())
}

/// Whether a pod failed as soon as it was made, as when its node refuses it. It keeps its place for a while: the next one
/// would fare no better, and be made again and again.
fn failed_at_birth(pod: &PodView, now: Timestamp) -> bool {
    let made = pod.created.filter(|_| pod.failed.is_some() && !pod.deleting);
    made.is_some_and(|made| !is_over(PATIENCE, made, now))
}

/// The pods that stay, by the spec that they were made from.
pub(super) struct Generation<'a> {
    current: Vec<&'a PodView>,
    old: Vec<&'a PodView>,
    /// Whether the pod that went before is still on its way.
    goes_on: bool,
}

impl<'a> Generation<'a> {
    /// Without the right to make pods, none is outdated: it could not be replaced.
    pub(super) fn of(observed: &Observed<'_>, kept: &[&'a PodView], may_create: bool) -> Self {
        let hash = template_hash(observed.head, observed.template);
        let (current, old) = kept
            .iter()
            .copied()
            .partition(|pod| !may_create || pod.template_hash == hash);
        // A pod that nobody hears may be on its way for ever: its node is dead.
        let goes_on = observed
            .pods
            .iter()
            .any(|pod| (pod.deleting || pod.draining) && (pod.agent.is_some() || pod.is_awaited()));
        Self {
            current,
            old,
            goes_on,
        }
    }

    /// Whether pods of an earlier spec are still to be replaced.
    pub(super) fn is_changing(&self) -> bool {
        !self.old.is_empty()
    }

    /// Whether one more pod than there are places may be made: while nothing else is on its way.
    pub(super) fn surges(&self, drain: &[Removal]) -> bool {
        self.is_changing() && self.is_complete() && !self.goes_on && drain.is_empty()
    }

    fn is_complete(&self) -> bool {
        self.current.iter().all(|pod| pod.ready)
    }

    /// Whether a pod of the new spec finds no node while those of the old one hold what it needs.
    fn finds_no_room(&self, now: Timestamp) -> bool {
        let mut waiting = self.current.iter().filter_map(|pod| pod.unschedulable_since);
        waiting.any(|since| is_over(SURGE_PATIENCE, since, now))
    }
}

/// Pods that are to take no new runs: those that nobody was ever served by at once, of the others one at a time, or as
/// many as there are too many.
pub(super) fn drains(
    observed: &Observed<'_>,
    kept: &[&PodView],
    generation: &Generation<'_>,
) -> Vec<Removal> {
    let surplus = kept.len().saturating_sub(places(observed));
    let drain = |pods: Vec<&PodView>| {
        pods.into_iter()
            .map(|pod| Removal::of(pod, reasons::TEMPLATE_CHANGED))
            .collect()
    };
    if !generation.is_changing() {
        let spares = kept.iter().filter(|pod| pod.spare).count();
        let too_many_spares = i32::try_from(spares).unwrap_or(i32::MAX) > observed.head.spec.spares;
        let mut ranked = kept.to_vec();
        // The least loss first, and always the same choice from the same pods.
        ranked.sort_by_key(|pod| {
            (
                pod.ready,
                pod.running,
                pod.spare != too_many_spares,
                Reverse(pod.slot),
            )
        });
        ranked.truncate(surplus);
        return drain(ranked);
    }
    let stillborn: Vec<_> = generation
        .old
        .iter()
        .copied()
        .filter(|pod| never_served(observed, pod))
        .collect();
    if !stillborn.is_empty() {
        return drain(stillborn);
    }
    let may_go = generation.is_complete() || generation.finds_no_room(observed.now);
    if surplus == 0 || generation.goes_on || !may_go {
        return Vec::new();
    }
    let next = generation
        .old
        .iter()
        .copied()
        .min_by_key(|pod| (pod.ready, pod.running, !pod.spare, pod.slot));
    drain(next.into_iter().collect())
}

/// Pods that are on their way out although nothing is wrong with them, for the places that nobody fills: they are warm, and
/// the runs that keep them leave others room. Those with the most room first.
pub(super) fn returning<'a>(
    observed: &'a Observed<'_>,
    staying: &[&PodView],
    remove: &[Removal],
) -> Vec<&'a PodView> {
    let hash = template_hash(observed.head, observed.template);
    let is_well = |pod: &&PodView| {
        let heard = pod.agent.is_some() && pod.lost.is_none();
        heard && pod.disruption.is_none() && pod.template_hash == hash
    };
    let mut pods: Vec<_> = observed
        .pods
        .iter()
        .filter(|pod| pod.lives() && pod.draining)
        .filter(is_well)
        .filter(|pod| !remove.iter().any(|removal| removal.uid == pod.uid))
        .collect();
    pods.sort_by_key(|pod| (pod.running, pod.slot, pod.incarnation));
    pods.truncate(places(observed).saturating_sub(staying.len()));
    pods
}

/// Pods for the places that nobody fills, and one more while pods of an earlier spec are to be replaced.
pub(super) fn missing(
    observed: &Observed<'_>,
    staying: &[&PodView],
    active: &[&str],
    surges: bool,
) -> Vec<NewPod> {
    let full = !staying.is_empty() && staying.len() == places(observed);
    let resting = observed
        .pods
        .iter()
        .filter(|pod| failed_at_birth(pod, observed.now))
        .count();
    let wanted = (places(observed) + usize::from(surges && full)).saturating_sub(resting);
    let mut serving = active.len();
    let replicas = usize::try_from(observed.head.spec.replicas).unwrap_or(0);
    let taken = |slot: &i32| {
        let there = |pod: &&PodView| pod.lives() && pod.slot == *slot;
        staying.iter().any(|pod| pod.slot == *slot)
            || observed.pods.iter().filter(there).any(|pod| pod.draining)
    };
    (0..)
        .filter(|slot| !taken(slot))
        .take(wanted.saturating_sub(staying.len()))
        .map(|slot| {
            let spare = serving >= replicas;
            serving += usize::from(!spare);
            NewPod {
                slot,
                incarnation: next_incarnation(observed, slot),
                spare,
            }
        })
        .collect()
}

fn places(observed: &Observed<'_>) -> usize {
    usize::try_from(observed.head.spec.replicas + observed.head.spec.spares).unwrap_or(0)
}

/// A name that no pod of the place has had as far as anybody remembers: the API server may still show the last one.
fn next_incarnation(observed: &Observed<'_>, slot: i32) -> u32 {
    let there = observed
        .pods
        .iter()
        .filter(|pod| pod.slot == slot)
        .map(|pod| pod.incarnation);
    let status = observed.head.status.iter();
    let told = status.flat_map(|status| {
        let pods = status.pods.iter().map(|pod| pod.name.as_str());
        pods.chain(status.last_regenerations.iter().map(|row| row.pod.as_str()))
    });
    let told = told
        .filter_map(place_of)
        .filter(|(of, _)| *of == slot)
        .map(|(_, count)| count);
    there.chain(told).max().map_or(0, |last| last.saturating_add(1))
}

/// Slot and incarnation at the end of a pod's name.
fn place_of(name: &str) -> Option<(i32, u32)> {
    let (rest, incarnation) = name.rsplit_once('-')?;
    let (_, slot) = rest.rsplit_once('-')?;
    Some((slot.parse().ok()?, incarnation.parse().ok()?))
}
