//! What is to be done about a ChimeraHead: which pods to make, remove, promote, and what its status says. No IO.
//!
//! Each of the `replicas + spares` places of a head is filled by one pod. A lost pod leaves its place to a new one of
//! a new name at once, without waiting for the old one to be gone; meanwhile a ready spare serves in its stead.

use api::{
    ChimeraHead, ChimeraHeadStatus, ConditionStatus,
    chimera_head::{HeadPod, PodRole, REGENERATIONS_LIMIT, Regeneration},
    condition::{READY, Verdict, is_true, set},
    reasons,
};
use jiff::Timestamp;

use crate::head_pod::{Template, pod_name, selector_text, template_hash};

/// One pod that this head owns (by UID).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PodView {
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Which place it fills.
    pub slot: i32,
    /// How often the place was filled before.
    pub incarnation: u32,
    /// Whether it is marked as a spare.
    pub spare: bool,
    /// Digest of the template that it was made from.
    pub template_hash: String,
    /// Being deleted.
    pub deleting: bool,
    /// Ended by itself, was evicted or refused by its node; why.
    pub failed: Option<String>,
    /// A device that Kubernetes reports as unhealthy.
    pub unhealthy_device: Option<String>,
    /// Node.
    pub node: Option<String>,
    /// Whether its agent takes runs.
    pub ready: bool,
    /// Why not.
    pub message: String,
    /// UUIDs of its devices.
    pub devices: Vec<String>,
    /// Runs under way.
    pub running: u32,
}

impl PodView {
    fn lives(&self) -> bool {
        !self.deleting && self.failed.is_none()
    }
}

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

/// A pod that is to be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// Name.
    pub name: String,
    /// UID: only this very pod is removed.
    pub uid: String,
    /// One of [`api::reasons`].
    pub reason: &'static str,
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

/// The decision.
#[derive(Debug, PartialEq)]
pub struct Plan {
    /// Pods to remove, first.
    pub remove: Vec<Removal>,
    /// Duties to change: promotions before new pods, so that a spare serves at once.
    pub duties: Vec<Duty>,
    /// Pods to make.
    pub create: Vec<NewPod>,
    /// The status when all this is done.
    pub status: ChimeraHeadStatus,
    /// Regenerations that this plan found, for Events and metrics.
    pub regenerations: Vec<Regeneration>,
}

/// Decides.
pub fn plan(observed: &Observed<'_>) -> Plan {
    let spec = &observed.head.spec;
    let image = observed.template.image(spec);
    let may_create = image.is_ok() && observed.identity.is_ok();
    let places = spec.replicas + spec.spares;

    let mut remove = removals(observed, places);
    remove.extend(outdated(observed, &remove));
    let kept: Vec<&PodView> = observed
        .pods
        .iter()
        .filter(|pod| pod.lives() && !remove.iter().any(|removal| removal.uid == pod.uid))
        .collect();
    let active = choose_active(&kept, spec.replicas);
    let duties = kept
        .iter()
        .filter(|pod| pod.spare == active.contains(&pod.uid.as_str()))
        .map(|pod| Duty {
            name: pod.name.clone(),
            uid: pod.uid.clone(),
            spare: !pod.spare,
        })
        .collect();
    let create = if may_create {
        missing(observed, &kept, &active, places)
    } else {
        Vec::new()
    };
    let regenerations = regenerations(observed, &kept, &create);
    let status = build_status(observed, &kept, &active, &regenerations, image.err());
    Plan {
        remove,
        duties,
        create,
        status,
        regenerations,
    }
}

/// Pods that are dead, surplus, or doubles.
fn removals(observed: &Observed<'_>, places: i32) -> Vec<Removal> {
    let removal = |pod: &PodView, reason| Removal {
        name: pod.name.clone(),
        uid: pod.uid.clone(),
        reason,
    };
    let mut removals = Vec::new();
    for pod in observed.pods.iter().filter(|pod| !pod.deleting) {
        let newest = observed
            .pods
            .iter()
            .filter(|other| other.slot == pod.slot && other.lives())
            .max_by_key(|other| other.incarnation);
        if pod.failed.is_some() {
            removals.push(removal(pod, reasons::POD_FAILED));
        } else if pod.unhealthy_device.is_some() {
            removals.push(removal(pod, reasons::GPU_UNHEALTHY));
        } else if pod.slot >= places || newest.is_some_and(|newest| newest.uid != pod.uid) {
            removals.push(removal(pod, reasons::TEMPLATE_CHANGED));
        }
    }
    removals
}

/// One pod of an older template, when everything else is well: idle ones first, spares before those that serve.
fn outdated(observed: &Observed<'_>, removed: &[Removal]) -> Option<Removal> {
    let hash = template_hash(observed.head, observed.template);
    let alive: Vec<_> = observed.pods.iter().filter(|pod| pod.lives()).collect();
    let unsettled = !removed.is_empty() || observed.pods.iter().any(|pod| pod.deleting);
    let (current, old): (Vec<_>, Vec<_>) = alive.into_iter().partition(|pod| pod.template_hash == hash);
    let waits = current.iter().any(|pod| !pod.ready);
    let broken = old.iter().find(|pod| !pod.ready).copied();
    let next = broken.or_else(|| {
        let healthy = !unsettled && !waits;
        healthy
            .then(|| {
                old.iter()
                    .min_by_key(|pod| (pod.running, !pod.spare, pod.slot))
                    .copied()
            })
            .flatten()
    })?;
    Some(Removal {
        name: next.name.clone(),
        uid: next.uid.clone(),
        reason: reasons::TEMPLATE_CHANGED,
    })
}

/// The pods that serve: ready ones before others, and among equals those that serve already.
fn choose_active<'a>(kept: &[&'a PodView], replicas: i32) -> Vec<&'a str> {
    let mut ranked: Vec<_> = kept.to_vec();
    ranked.sort_by_key(|pod| (!pod.ready, pod.spare, pod.slot));
    let replicas = usize::try_from(replicas).unwrap_or(0);
    ranked
        .into_iter()
        .take(replicas)
        .map(|pod| pod.uid.as_str())
        .collect()
}

/// Pods for the places that nobody fills.
fn missing(observed: &Observed<'_>, kept: &[&PodView], active: &[&str], places: i32) -> Vec<NewPod> {
    let mut serving = active.len();
    let replicas = usize::try_from(observed.head.spec.replicas).unwrap_or(0);
    let empty = (0..places).filter(|slot| !kept.iter().any(|pod| pod.slot == *slot));
    let pods = empty.map(|slot| {
        let before = observed
            .pods
            .iter()
            .filter(|pod| pod.slot == slot)
            .map(|pod| pod.incarnation + 1)
            .max();
        let spare = serving >= replicas;
        serving += usize::from(!spare);
        NewPod {
            slot,
            incarnation: before.unwrap_or(0),
            spare,
        }
    });
    pods.collect()
}

/// Pods that the last status listed and that are lost now.
fn regenerations(observed: &Observed<'_>, kept: &[&PodView], create: &[NewPod]) -> Vec<Regeneration> {
    let Some(status) = &observed.head.status else {
        return Vec::new();
    };
    let name = observed.head.metadata.name.as_deref().unwrap_or_default();
    let mut promoted = kept
        .iter()
        .filter(|pod| pod.spare && pod.ready)
        .map(|pod| pod.name.clone());
    let mut made = create.iter().map(|pod| pod_name(name, pod.slot, pod.incarnation));
    let lost = status.pods.iter().filter(|known| {
        let still_there = |pod: &PodView| Some(&pod.uid) == known.uid.as_ref() && pod.lives();
        !observed
            .pods
            .iter()
            .any(|pod| still_there(pod) && pod.unhealthy_device.is_none())
    });
    lost.map(|known| {
        let pod = observed
            .pods
            .iter()
            .find(|pod| Some(&pod.uid) == known.uid.as_ref());
        let (reason, message) = match pod {
            Some(PodView {
                failed: Some(why), ..
            }) => (reasons::POD_FAILED, Some(why.clone())),
            Some(PodView {
                unhealthy_device: Some(device),
                ..
            }) => (
                reasons::GPU_UNHEALTHY,
                Some(format!("device {device} is unhealthy")),
            ),
            _ => (reasons::POD_DELETED, None),
        };
        let serving = known.role == PodRole::Active;
        let replacement = serving.then(|| promoted.next()).flatten().or_else(|| made.next());
        Regeneration {
            pod: known.name.clone(),
            replacement,
            reason: reason.to_owned(),
            message,
            duration_millis: None,
            time: observed.now,
        }
    })
    .collect()
}

fn build_status(
    observed: &Observed<'_>,
    kept: &[&PodView],
    active: &[&str],
    regenerations: &[Regeneration],
    image_error: Option<String>,
) -> ChimeraHeadStatus {
    let head = observed.head;
    let before = head.status.clone().unwrap_or_default();
    let mut pods: Vec<HeadPod> = kept
        .iter()
        .map(|pod| HeadPod {
            name: pod.name.clone(),
            uid: Some(pod.uid.clone()),
            node: pod.node.clone(),
            role: if active.contains(&pod.uid.as_str()) {
                PodRole::Active
            } else {
                PodRole::Spare
            },
            ready: pod.ready,
            message: Some(pod.message.clone()).filter(|message| !pod.ready && !message.is_empty()),
            devices: pod.devices.clone(),
            // The number of runs changes all the time; showing it would be a write for every run.
            running: 0,
        })
        .collect();
    pods.sort_by(|a, b| a.name.cmp(&b.name));
    let count = |role: PodRole, ready: bool| {
        let counted = pods
            .iter()
            .filter(|pod| pod.role == role && (!ready || pod.ready))
            .count();
        i32::try_from(counted).unwrap_or(i32::MAX)
    };
    let per_pod = head.spec.gpu.as_ref().map_or(0, |gpu| gpu.count);
    let mut last_regenerations = before.last_regenerations;
    last_regenerations.extend_from_slice(regenerations);
    let surplus = last_regenerations.len().saturating_sub(REGENERATIONS_LIMIT);
    last_regenerations.drain(..surplus);
    let mut status = ChimeraHeadStatus {
        observed_generation: head.metadata.generation,
        replicas: count(PodRole::Active, false),
        ready_replicas: count(PodRole::Active, true),
        spares: count(PodRole::Spare, true),
        selector: head.metadata.name.as_deref().map(selector_text),
        gpus: per_pod.saturating_mul(i32::try_from(pods.len()).unwrap_or(i32::MAX)),
        regenerations: before.regenerations + i64::try_from(regenerations.len()).unwrap_or(0),
        pods,
        last_regenerations,
        conditions: before.conditions,
    };
    let (ready, reason, message) = judge(observed, &status, image_error);
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

fn judge(
    observed: &Observed<'_>,
    status: &ChimeraHeadStatus,
    image_error: Option<String>,
) -> (bool, &'static str, String) {
    let wanted = observed.head.spec.replicas;
    if let Some(message) = image_error {
        return (false, reasons::IMAGE_NOT_ALLOWED, message);
    }
    if let Err(message) = &observed.identity {
        return (false, reasons::IDENTITY_UNAVAILABLE, message.clone());
    }
    if wanted == 0 {
        return (true, reasons::SCALED_TO_ZERO, "spec.replicas is 0".to_owned());
    }
    if status.ready_replicas >= wanted {
        return (
            true,
            reasons::HEADS_READY,
            format!("{wanted} of {wanted} pods take runs"),
        );
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

#[cfg(test)]
mod tests {
    use super::*;

    fn head(replicas: i32, spares: i32) -> ChimeraHead {
        let spec = serde_json::json!({"role": "quantum", "replicas": replicas, "spares": spares});
        let mut head = ChimeraHead::new("q", serde_json::from_value(spec).expect("a spec"));
        head.metadata.generation = Some(1);
        head.metadata.namespace = Some("team".into());
        head.metadata.uid = Some("u".into());
        head
    }

    fn template() -> Template {
        Template {
            default_image: "localhost/head:1".into(),
            allowed_images: Vec::new(),
            isolation: "full".into(),
            operator_namespace: "chimera-system".into(),
        }
    }

    fn pod(head: &ChimeraHead, slot: i32, incarnation: u32, spare: bool) -> PodView {
        PodView {
            name: pod_name("q", slot, incarnation),
            uid: format!("uid-{slot}-{incarnation}"),
            slot,
            incarnation,
            spare,
            template_hash: template_hash(head, &template()),
            ready: true,
            ..PodView::default()
        }
    }

    fn decide(head: &ChimeraHead, pods: Vec<PodView>) -> Plan {
        let now = Timestamp::from_second(100).expect("in range");
        plan(&Observed {
            head,
            template: &template(),
            identity: Ok(()),
            refused: None,
            pods,
            now,
        })
    }

    /// The pods after a plan was applied, all ready.
    fn applied(head: &ChimeraHead, plan: &Plan, pods: Vec<PodView>) -> Vec<PodView> {
        let mut pods = pods;
        pods.retain(|pod| !plan.remove.iter().any(|removal| removal.uid == pod.uid) && pod.lives());
        for duty in &plan.duties {
            let pod = pods
                .iter_mut()
                .find(|pod| pod.uid == duty.uid)
                .expect("a pod of that UID");
            pod.spare = duty.spare;
        }
        pods.extend(
            plan.create
                .iter()
                .map(|new| pod(head, new.slot, new.incarnation, new.spare)),
        );
        pods
    }

    #[test]
    fn a_new_head_gets_replicas_and_spares() {
        let head = head(2, 1);
        let plan = decide(&head, Vec::new());
        let spares: Vec<_> = plan.create.iter().map(|pod| pod.spare).collect();
        assert_eq!(spares, [false, false, true]);
        assert!(plan.remove.is_empty() && plan.duties.is_empty() && plan.regenerations.is_empty());
    }

    #[test]
    fn applying_a_plan_and_planning_again_changes_nothing() {
        for (replicas, spares) in [(0, 0), (1, 0), (2, 1), (3, 2)] {
            let mut head = head(replicas, spares);
            let first = decide(&head, Vec::new());
            let pods = applied(&head, &first, Vec::new());
            head.status = Some(decide(&head, pods.clone()).status);
            let again = decide(&head, pods);
            assert!(again.create.is_empty() && again.remove.is_empty() && again.duties.is_empty());
            assert_eq!(
                Some(&again.status),
                head.status.as_ref(),
                "an unchanged status is not written"
            );
        }
    }

    #[test]
    fn a_lost_pod_is_replaced_under_a_new_name_while_a_spare_is_promoted() {
        let mut head = head(1, 1);
        let mut pods = vec![pod(&head, 0, 0, false), pod(&head, 1, 0, true)];
        head.status = Some(decide(&head, pods.clone()).status);
        pods[0].deleting = true;
        let plan = decide(&head, pods);
        assert_eq!(
            plan.duties,
            [Duty {
                name: "q-1-0".into(),
                uid: "uid-1-0".into(),
                spare: false
            }]
        );
        assert_eq!(
            plan.create,
            [NewPod {
                slot: 0,
                incarnation: 1,
                spare: true
            }]
        );
        assert_eq!(plan.regenerations.len(), 1);
        assert_eq!(plan.regenerations[0].replacement.as_deref(), Some("q-1-0"));
        assert_eq!((plan.status.ready_replicas, plan.status.regenerations), (1, 1));
        head.status = Some(plan.status);
        let later = decide(&head, vec![pod(&head, 0, 1, true), pod(&head, 1, 0, false)]);
        assert_eq!(later.status.regenerations, 1, "a loss is counted once");
    }

    #[test]
    fn a_failed_pod_is_removed_and_its_place_filled() {
        let head = head(1, 0);
        let mut failed = pod(&head, 0, 3, false);
        failed.failed = Some("Evicted".into());
        let plan = decide(&head, vec![failed]);
        assert_eq!(plan.remove.len(), 1);
        assert_eq!(
            plan.create,
            [NewPod {
                slot: 0,
                incarnation: 4,
                spare: false
            }]
        );
    }

    #[test]
    fn a_pod_with_an_unhealthy_device_is_moved() {
        let head = head(1, 0);
        let mut broken = pod(&head, 0, 0, false);
        broken.unhealthy_device = Some("GPU-1".into());
        let plan = decide(&head, vec![broken]);
        assert_eq!(plan.remove[0].reason, reasons::GPU_UNHEALTHY);
        assert_eq!(plan.create.len(), 1);
    }

    #[test]
    fn a_changed_template_replaces_one_pod_at_a_time_idle_ones_first() {
        let head = head(2, 0);
        let mut busy = pod(&head, 0, 0, false);
        busy.template_hash = "old".into();
        busy.running = 1;
        let mut idle = pod(&head, 1, 0, false);
        idle.template_hash = "old".into();
        let plan = decide(&head, vec![busy.clone(), idle]);
        assert_eq!(
            plan.remove
                .iter()
                .map(|removal| removal.uid.as_str())
                .collect::<Vec<_>>(),
            ["uid-1-0"]
        );
        let mut starting = pod(&head, 1, 1, false);
        starting.ready = false;
        assert!(
            decide(&head, vec![busy, starting]).remove.is_empty(),
            "the next one waits for the new one"
        );
    }

    #[test]
    fn scaling_down_removes_the_last_places() {
        let head = head(1, 0);
        let plan = decide(&head, vec![pod(&head, 0, 0, false), pod(&head, 1, 0, false)]);
        assert_eq!(
            plan.remove
                .iter()
                .map(|removal| removal.uid.as_str())
                .collect::<Vec<_>>(),
            ["uid-1-0"]
        );
    }

    #[test]
    fn without_identity_or_with_a_forbidden_image_no_pod_is_made() {
        let mut head = head(1, 0);
        let now = Timestamp::UNIX_EPOCH;
        let template = template();
        let identity = Err("no root".to_owned());
        let observed = Observed {
            head: &head,
            template: &template,
            identity,
            refused: None,
            pods: Vec::new(),
            now,
        };
        let without = plan(&observed);
        assert!(without.create.is_empty());
        assert_eq!(without.status.conditions[0].reason, reasons::IDENTITY_UNAVAILABLE);
        head.spec.image = Some("evil/image".into());
        let forbidden = decide(&head, Vec::new());
        assert!(forbidden.create.is_empty());
        assert_eq!(forbidden.status.conditions[0].reason, reasons::IMAGE_NOT_ALLOWED);
    }
}
