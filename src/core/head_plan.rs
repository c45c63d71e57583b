//! What is to be done about a ChimeraHead: which pods to make, drain, remove, promote, and what its status says. No IO.
//!
//! A head has `replicas + spares` places, each filled by one pod. A lost pod leaves its place to a new one of a new name
//! at once, without waiting for the old one to be gone; meanwhile a ready spare serves in its stead. A pod that is to go
//! although it is well is drained first: it takes no new runs, and is removed when it has none left.

mod duties;
mod pod_view;
mod regeneration;
mod rollout;
mod status;
#[cfg(test)]
mod test_head;
#[cfg(test)]
mod tests;

use api::{ChimeraHead, ChimeraHeadStatus, chimera_head::Regeneration};
use jiff::Timestamp;

use crate::head_pod::Template;

pub use pod_view::{Lost, Mend, PodView, SickDevice};

/// Everything that the decision depends on.
#[derive(Debug)]
pub struct Observed<'a> {
    /// The head.
    pub head: &'a ChimeraHead,
    /// What the operator decides about all heads.
    pub template: &'a Template,
    /// Whether the namespace has a TLS identity; if not, why.
    pub identity: Result<(), String>,
    /// Why the last pod could not be made, if it could not.
    pub refused: Option<(&'static str, String)>,
    /// The pods that the head owns.
    pub pods: Vec<PodView>,
    /// The present.
    pub now: Timestamp,
}

/// A pod that is to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPod {
    /// Which place it fills.
    pub slot: i32,
    /// How often the place was filled before.
    pub incarnation: u32,
    /// Whether it starts as a spare.
    pub spare: bool,
}

/// A pod that is to be drained or removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// Name.
    pub name: String,
    /// UID: only this very pod is meant.
    pub uid: String,
    /// One of [`api::reasons`].
    pub reason: &'static str,
}

impl Removal {
    fn of(pod: &PodView, reason: &'static str) -> Self {
        Self {
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            reason,
        }
    }
}

/// A pod that was to go and is wanted again: it takes new runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Return {
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
}

impl Return {
    fn of(pod: &PodView) -> Self {
        Self {
            name: pod.name.clone(),
            uid: pod.uid.clone(),
        }
    }
}

/// A pod whose duty changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Duty {
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Whether it becomes a spare; else it is promoted.
    pub spare: bool,
}

/// The decision. It is applied in the order of its fields, so that whoever takes over serves before anybody stops.
#[derive(Debug, PartialEq)]
pub struct Plan {
    /// UIDs of the pods that stay in service.
    pub keep: Vec<String>,
    /// Duties to change, promotions first.
    pub duties: Vec<Duty>,
    /// Pods that are drained no longer.
    pub restore: Vec<Return>,
    /// Pods to make.
    pub create: Vec<NewPod>,
    /// Pods that take no new runs from now on.
    pub drain: Vec<Removal>,
    /// Pods to remove.
    pub remove: Vec<Removal>,
    /// The status when all this is done.
    pub status: ChimeraHeadStatus,
    /// Losses that this plan found.
    pub regenerations: Vec<Regeneration>,
    /// Losses, of now or before, whose replacement takes runs now.
    pub recovered: Vec<Regeneration>,
    /// Whether something is on its way that no watch will tell of.
    pub unsettled: bool,
}

/// Decides.
pub fn plan(observed: &Observed<'_>) -> Plan {
    let spec = &observed.head.spec;
    let image = observed.template.image(spec);
    let may_create = image.is_ok() && observed.identity.is_ok();

    let remove = rollout::removals(observed);
    let kept: Vec<&PodView> = observed
        .pods
        .iter()
        .filter(|pod| pod.stays() && !remove.iter().any(|removal| removal.uid == pod.uid))
        .collect();
    let generation = rollout::Generation::of(observed, &kept, may_create);
    let drain = rollout::drains(observed, &kept, &generation);
    let mut staying: Vec<&PodView> = kept
        .iter()
        .copied()
        .filter(|pod| !drain.iter().any(|removal| removal.uid == pod.uid))
        .collect();
    let returning = rollout::returning(observed, &staying, &remove);
    staying.extend(&returning);
    let active = duties::choose_active(&staying, spec.replicas);
    let duties = duties::changes(&staying, &active);
    let create = if may_create {
        rollout::missing(observed, &staying, &active, generation.surges(&drain))
    } else {
        Vec::new()
    };
    let review = regeneration::review(observed, &staying, &active, &create);
    let unsettled = generation.is_changing()
        || review.is_open()
        || !drain.is_empty()
        || observed
            .pods
            .iter()
            .any(|pod| pod.draining || pod.lost.is_some() || pod.failed.is_some());
    let status = status::build(&status::Outcome {
        observed,
        active: &active,
        draining: &drain,
        returning: &returning,
        removed: &remove,
        rows: review.rows,
        found: review.found.len(),
        image_error: image.err(),
    });
    Plan {
        keep: staying.iter().map(|pod| pod.uid.clone()).collect(),
        duties,
        restore: returning.into_iter().map(Return::of).collect(),
        create,
        drain,
        remove,
        status,
        regenerations: review.found,
        recovered: review.recovered,
        unsettled,
    }
}
