//! The heads as this process knows them: one connection to each head pod, and who has reserved a place on it.
//!
//! Placement decides on this view and reserves in the same critical section, so two runs never take the same place.

mod contact;
mod health;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use api::Role;
use controller_core::{
    head_plan::Lost,
    placement::{Demand, HeadView, Offer, Placement, place},
};
use crypto::VerifyingKey;
use head_proto::{Environment, HeadStatus};
use rustls::ClientConfig;
use tokio::task::AbortHandle;
use tonic::transport::Channel;

use crate::{
    fate::{Fate, Session},
    triggers::{Triggers, WAKE_ON_RELEASE},
};

pub use health::PodHealth;
use health::{health_in, takes_runs};

/// A head pod as Kubernetes describes it: what is needed to dial and to place runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// UID of the pod.
    pub pod_uid: String,
    /// Name of the pod.
    pub pod: String,
    /// Its namespace.
    pub namespace: String,
    /// Its address.
    pub address: IpAddr,
    /// Its node.
    pub node: Option<String>,
    /// Name of the ChimeraHead.
    pub head: String,
    /// Labels of the ChimeraHead.
    pub labels: BTreeMap<String, String>,
    /// Role of the ChimeraHead.
    pub role: Role,
    /// Whether the pod is a spare.
    pub spare: bool,
    /// Whether the pod is on its way out: it takes no more runs.
    pub leaving: bool,
    /// Whether the kubelet found its agent ready.
    pub kubelet_ready: bool,
    /// Devices that failed and that nobody but the agent itself may have found healthy since.
    pub avoided: Vec<String>,
    /// Time between heartbeats.
    pub heartbeat: Duration,
    /// Heartbeats that may be missed.
    pub failure_threshold: u32,
}

/// What the connected agent said of itself.
#[derive(Clone)]
pub struct Link {
    /// The open connection.
    pub channel: Channel,
    /// What its interpreter offers, once it has told.
    pub offer: Option<Arc<Offer>>,
    /// The agent's attestation key, made at its start.
    pub attester: VerifyingKey,
    /// Its last state.
    pub status: Arc<HeadStatus>,
    /// Tells when no answer is to be expected any more.
    pub fate: Fate,
}

struct Entry {
    member: Member,
    link: Option<Link>,
    /// The agent that was heard last, unless it is lost.
    session: Option<Session>,
    /// Why the agent is heard no more.
    lost: Option<Lost>,
    /// Why the pod must not be believed although it is heard.
    suspect: Option<String>,
    reserved: HashSet<String>,
    /// Runs that were given up here and are tried elsewhere: an agent that comes back is told to stop them.
    abandoned: HashSet<String>,
    /// Why the head is not connected or not ready.
    message: String,
    task: AbortHandle,
}

/// A place on a head, reserved for one run.
#[derive(Clone)]
pub struct Reservation {
    /// Whose place it is.
    pub member: Member,
    /// The way to it.
    pub link: Link,
}

/// All head pods that this process is, or tries to be, connected to.
pub struct Fleet {
    entries: Mutex<HashMap<String, Entry>>,
    triggers: Arc<Triggers>,
}

impl Fleet {
    /// An empty fleet, which announces changes through `triggers`.
    pub fn new(triggers: Arc<Triggers>) -> Arc<Self> {
        Arc::new(Self {
            entries: Mutex::default(),
            triggers,
        })
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects to a pod, or notes what changed about it.
    pub fn join(self: &Arc<Self>, member: Member, tls: &Arc<ClientConfig>) {
        let mut entries = self.entries();
        if let Some(entry) = entries.get_mut(&member.pod_uid) {
            if entry.member.address == member.address {
                // Once a pod is on its way out, an older view of it does not bring it back.
                let member = Member {
                    leaving: member.leaving || entry.member.leaving,
                    ..member
                };
                if entry.member != member {
                    entry.member = member;
                    drop(entries);
                    self.triggers.wake_waiting();
                }
                return;
            }
            entry.task.abort();
        }
        let fleet = Arc::clone(self);
        let (of, tls) = (member.clone(), Arc::clone(tls));
        let task = tokio::spawn(async move { fleet.follow(of, tls).await }).abort_handle();
        let entry = Entry {
            member,
            link: None,
            session: None,
            lost: None,
            suspect: None,
            reserved: HashSet::new(),
            abandoned: HashSet::new(),
            message: "connecting".into(),
            task,
        };
        entries.insert(entry.member.pod_uid.clone(), entry);
    }

    /// Gives a pod no more runs; those under way go on.
    pub fn retire(&self, pod_uid: &str) {
        if let Some(entry) = self.entries().get_mut(pod_uid) {
            entry.member.leaving = true;
        }
    }

    /// Gives a pod no more runs and expects nothing of those under way: they are tried again elsewhere.
    pub fn condemn(&self, pod_uid: &str, lost: &Lost) {
        if let Some(entry) = self.entries().get_mut(pod_uid) {
            entry.member.leaving = true;
            if let Some(session) = &entry.session {
                session.end(lost);
            }
        }
    }

    /// Has a pod replaced although its agent is heard.
    pub fn suspect(&self, pod_uid: &str, why: &str) {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(pod_uid) else {
            return;
        };
        entry.suspect = Some(why.to_owned());
        let (namespace, head) = (entry.member.namespace.clone(), entry.member.head.clone());
        drop(entries);
        self.triggers.head(&namespace, &head);
    }

    /// Forgets a pod that is gone.
    pub fn leave(&self, pod_uid: &str) {
        if let Some(entry) = self.entries().remove(pod_uid) {
            entry.task.abort();
        }
    }

    /// Forgets pods that are not wanted any more.
    pub fn retain(&self, wanted: impl Fn(&str) -> bool) {
        self.entries().retain(|uid, entry| {
            let keep = wanted(uid);
            if !keep {
                entry.task.abort();
            }
            keep
        });
    }

    /// Whether the pod is known and connected; a run on it may still be asked for.
    pub fn link(&self, pod_uid: &str) -> Option<Reservation> {
        let entries = self.entries();
        let entry = entries.get(pod_uid)?;
        Some(Reservation {
            member: entry.member.clone(),
            link: entry.link.clone()?,
        })
    }

    /// Whether the pod is known and its agent not given up: a run on it may still be answered.
    pub fn may_answer(&self, pod_uid: &str) -> bool {
        self.entries()
            .get(pod_uid)
            .is_some_and(|entry| entry.lost.is_none())
    }

    /// What is known of a pod's agent.
    pub fn health(&self, pod_uid: &str) -> Option<PodHealth> {
        let entries = self.entries();
        health_in(&entries, pod_uid)
    }

    /// How many pods of each role are ready, spares apart: `(role, spare) → count`.
    pub fn ready_by_role(&self) -> HashMap<(Role, bool), i64> {
        let mut counts = HashMap::new();
        for entry in self.entries().values().filter(|entry| view(entry).ready) {
            *counts.entry((entry.member.role, entry.member.spare)).or_default() += 1;
        }
        counts
    }

    /// Chooses a head for the run and reserves a place on it.
    pub fn reserve(&self, run_id: &str, demand: &Demand<'_>) -> Result<Reservation, Placement> {
        let mut entries = self.entries();
        let views: Vec<_> = entries.values().map(view).collect();
        let placement = place(&views, demand);
        let Placement::On { pod_uid } = &placement else {
            return Err(placement);
        };
        let entry = entries
            .get_mut(pod_uid)
            .expect("placement chooses among the entries");
        let link = entry.link.clone().expect("only a connected head is ready");
        entry.reserved.insert(run_id.to_owned());
        Ok(Reservation {
            member: entry.member.clone(),
            link,
        })
    }

    /// Notes that a run which this process did not start occupies a place.
    pub fn occupy(&self, run_id: &str, pod_uid: &str) {
        if let Some(entry) = self.entries().get_mut(pod_uid) {
            entry.reserved.insert(run_id.to_owned());
        }
    }

    /// Gives a run's place back.
    pub fn release(&self, run_id: &str, pod_uid: &str) {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(pod_uid) else {
            return;
        };
        let freed = entry.reserved.remove(run_id);
        let drained = entry.member.leaving && view(entry).running == 0;
        let (namespace, head) = (entry.member.namespace.clone(), entry.member.head.clone());
        drop(entries);
        if freed && drained {
            self.triggers.head(&namespace, &head);
        }
        if freed {
            self.triggers.wake_waiting_up_to(WAKE_ON_RELEASE);
        }
    }

    /// Notes that a run is tried elsewhere: nothing that this pod may still say of it is asked for.
    pub fn abandon(&self, run_id: &str, pod_uid: &str) {
        if let Some(entry) = self.entries().get_mut(pod_uid) {
            entry.abandoned.insert(run_id.to_owned());
        }
    }
}

fn is_what(environment: &Environment, offer: &Offer) -> bool {
    offer.languages == environment.languages
        && offer.interpreter == environment.interpreter
        && offer.packages.len() == environment.packages.len()
        && offer
            .packages
            .iter()
            .all(|(name, version)| environment.packages.get(name) == Some(version))
}

fn offered(environment: &Environment) -> Offer {
    Offer {
        languages: environment.languages.clone(),
        interpreter: environment.interpreter.clone(),
        packages: environment
            .packages
            .iter()
            .map(|(name, version)| (name.clone(), version.clone()))
            .collect(),
    }
}

fn view(entry: &Entry) -> HeadView {
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
        offer: entry.link.as_ref().and_then(|link| link.offer.clone()),
    }
}
