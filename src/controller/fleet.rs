//! The heads as this process knows them: one connection to each head pod, and who has reserved a place on it.
//!
//! Placement decides on this view and reserves in the same critical section, so two runs never take the same place. A place
//! that becomes free goes to the run whose turn it is, in the [waiting room](crate::waiting_room).

mod contact;
mod heads;
mod health;
mod places;
mod view;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use api::{MamlWorkflow, Role};
use controller_core::{
    head_plan::Lost,
    placement::{Group, HeadView, Offer},
    suspicion::{Ended, Suspect, Suspicion},
};
use crypto::VerifyingKey;
use head_proto::HeadStatus;
use kube::runtime::reflector::ObjectRef;
use rustls::ClientConfig;
use tokio::task::AbortHandle;
use tonic::transport::Channel;

use crate::{
    fate::{Fate, Session},
    triggers::Triggers,
    waiting_room::WaitingRoom,
};

use heads::Noted;
pub use health::PodHealth;
use health::health_in;
pub use places::{OwnPod, Reservation};
use view::shared;

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
    /// Whether the pod is on its way out, or a device of it is reported to have failed: it takes no more runs.
    pub leaving: bool,
    /// Whether its agent ought to be heard: the kubelet found it ready, or it was heard before, if by another process.
    pub expected: bool,
    /// Devices that failed and that nobody but the agent itself may have found healthy since.
    pub avoided: Vec<String>,
    /// Time between heartbeats.
    pub heartbeat: Duration,
    /// Heartbeats that may be missed.
    pub failure_threshold: u32,
    /// The one run that the pod was made for, if it was made for one.
    pub only_for: Option<OnlyFor>,
}

/// The run that a pod was made for.
#[derive(Debug, Clone, PartialEq)]
pub struct OnlyFor {
    /// Its id.
    pub run_id: String,
    /// Its workflow.
    pub workflow: ObjectRef<MamlWorkflow>,
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
    /// What this process is about to do about the pod, or has done and not seen yet.
    retirement: Retirement,
    reserved: HashSet<String>,
    /// Runs that were given up here and are tried elsewhere: an agent that comes back is told to stop them.
    abandoned: HashSet<String>,
    /// Why the head is not connected or not ready.
    message: String,
    /// Which lanes of waiting runs it suits, as far as that was asked.
    suited: HashMap<u64, bool>,
    task: AbortHandle,
}

/// What keeps runs from a pod before the API server shows why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Retirement {
    /// Nothing.
    None,
    /// A write that takes it out of service is under way.
    Intended,
    /// It was deleted, which nobody can take back.
    Deleted,
}

/// All head pods that this process is, or tries to be, connected to.
pub struct Fleet {
    entries: Mutex<HashMap<String, Entry>>,
    /// Which pods are to blame for runs that fail.
    suspicion: Mutex<Suspicion>,
    /// The ChimeraHeads, by namespace and name.
    groups: Mutex<BTreeMap<(String, String), Noted>>,
    /// Who waits for a place. Its lock is taken last.
    room: WaitingRoom,
    triggers: Arc<Triggers>,
}

impl Fleet {
    /// An empty fleet, which announces changes through `triggers`.
    pub fn new(triggers: Arc<Triggers>) -> Arc<Self> {
        Arc::new(Self {
            entries: Mutex::default(),
            suspicion: Mutex::default(),
            groups: Mutex::default(),
            room: WaitingRoom::new(Arc::clone(&triggers)),
            triggers,
        })
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The runs that wait.
    pub fn room(&self) -> &WaitingRoom {
        &self.room
    }

    /// Connects to a pod, or notes what changed about it.
    pub fn join(self: &Arc<Self>, member: Member, tls: &Arc<ClientConfig>) {
        let mut entries = self.entries();
        if let Some(entry) = entries.get_mut(&member.pod_uid) {
            if entry.member.address == member.address {
                if entry.member != member {
                    let (namespace, pod_uid) = (member.namespace.clone(), member.pod_uid.clone());
                    entry.member = member;
                    entry.suited.clear();
                    self.serve(&mut entries, &pod_uid);
                    drop(entries);
                    self.room.tell(&namespace);
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
            retirement: Retirement::None,
            reserved: HashSet::new(),
            abandoned: HashSet::new(),
            message: "connecting".into(),
            suited: HashMap::new(),
            task,
        };
        entries.insert(entry.member.pod_uid.clone(), entry);
    }

    /// Gives a pod no more runs while a write that takes it out of service is under way; those under way go on.
    pub fn retire(&self, pod_uid: &str) {
        if let Some(entry) = self.entries().get_mut(pod_uid)
            && entry.retirement == Retirement::None
        {
            entry.retirement = Retirement::Intended;
        }
    }

    /// Gives a pod runs again that was to be taken out of service and is not: its write failed, or it is wanted after all.
    /// Whether that changed anything.
    pub fn restore(&self, pod_uid: &str) -> bool {
        let mut entries = self.entries();
        let intended = |entry: &&mut Entry| entry.retirement == Retirement::Intended;
        let Some(entry) = entries.get_mut(pod_uid).filter(intended) else {
            return false;
        };
        entry.retirement = Retirement::None;
        let namespace = entry.member.namespace.clone();
        self.serve(&mut entries, pod_uid);
        drop(entries);
        self.room.tell(&namespace);
        true
    }

    /// Gives a pod no more runs, whatever older views of it are still to come: it was deleted.
    pub fn deleted(&self, pod_uid: &str) {
        if let Some(entry) = self.entries().get_mut(pod_uid) {
            entry.retirement = Retirement::Deleted;
        }
    }

    /// Expects nothing of the runs under way on a pod: they are tried again elsewhere.
    pub fn condemn(&self, pod_uid: &str, lost: &Lost) {
        if let Some(entry) = self.entries().get_mut(pod_uid)
            && let Some(session) = &entry.session
        {
            session.end(lost);
        }
    }

    /// Notes how an attempt ended on a pod. One that is to blame for too many is replaced.
    pub fn note_ended(&self, ended: Ended) {
        let mut suspicion = self.suspicion.lock().unwrap_or_else(PoisonError::into_inner);
        let suspect = suspicion.note(ended);
        drop(suspicion);
        if let Some(Suspect { pod_uid, why }) = suspect {
            self.suspect(&pod_uid, &why);
        }
    }

    /// Has a pod replaced although its agent is heard.
    fn suspect(&self, pod_uid: &str, why: &str) {
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
        let left = self.entries().remove(pod_uid);
        if let Some(entry) = left {
            entry.task.abort();
            self.room.tell(&entry.member.namespace);
        }
    }

    /// The UIDs of all pods.
    pub fn pods(&self) -> Vec<String> {
        self.entries().keys().cloned().collect()
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
        let pods = shared(self.entries().values());
        for pod in pods.iter().filter(|pod| pod.ready) {
            *counts.entry((pod.role, pod.spare)).or_default() += 1;
        }
        counts
    }

    /// All pods and ChimeraHeads as placement sees them.
    pub fn views(&self) -> (Vec<HeadView>, Vec<Group>) {
        let pods = shared(self.entries().values());
        (pods, self.known_groups())
    }
}

#[cfg(test)]
mod tests;
