//! The heads as this process knows them: one connection to each head pod, and who has reserved a place on it.
//!
//! Placement decides on this view and reserves in the same critical section, so two runs never take the same place. A place
//! that becomes free goes to the run whose turn it is, in the [waiting room](crate::waiting_room).

mod contact;
mod health;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use api::{ChimeraHead, ChimeraHeadSpec, MamlWorkflow, Role};
use controller_core::{
    demand::Demand,
    head_plan::Lost,
    no_place::{NoPlace, no_place},
    placement::{Group, HeadView, Offer, choose, is_free, meets, suits},
};
use crypto::VerifyingKey;
use head_proto::{Environment, HeadStatus};
use kube::{ResourceExt as _, runtime::reflector::ObjectRef};
use rustls::ClientConfig;
use tokio::task::AbortHandle;
use tonic::transport::Channel;

use crate::{
    fate::{Fate, Session},
    triggers::Triggers,
    waiting_room::{Candidacy, WaitingRoom},
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

/// What is known of the pod that was made for a run.
pub enum OwnPod {
    /// Nothing: it has not joined.
    Unknown,
    /// Its agent takes no run yet; why.
    NotReady(String),
    /// It lacks what the run needs; its UID.
    Unsuitable(String),
    /// The run has it.
    Ready(Box<Reservation>),
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
    /// Which lanes of waiting runs it suits, as far as that was asked.
    suited: HashMap<u64, bool>,
    task: AbortHandle,
}

/// A ChimeraHead as last seen.
struct Noted {
    group: Group,
    /// Its spec but for the numbers of pods: while that stays the same, its pods offer the same.
    spec: ChimeraHeadSpec,
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
            groups: Mutex::default(),
            room: WaitingRoom::new(Arc::clone(&triggers)),
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
            reserved: HashSet::new(),
            abandoned: HashSet::new(),
            message: "connecting".into(),
            suited: HashMap::new(),
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
        let entries = self.entries();
        let ready = entries
            .values()
            .filter(|entry| is_shared(entry) && view(entry).ready);
        for entry in ready {
            *counts.entry((entry.member.role, entry.member.spare)).or_default() += 1;
        }
        counts
    }

    /// Notes what is known of a ChimeraHead, whatever pods it has.
    pub fn note(&self, head: &ChimeraHead) {
        let key = (head.namespace().unwrap_or_default(), head.name_any());
        let mut spec = head.spec.clone();
        (spec.replicas, spec.spares) = (0, 0);
        let mut groups = self.groups();
        let known = groups.get(&key).filter(|known| known.spec == spec);
        let offer = known.and_then(|known| known.group.view.offer.clone());
        let group = group(head, offer);
        let changed = known.is_none_or(|known| known.group != group);
        groups.insert(key, Noted { group, spec });
        drop(groups);
        if changed {
            self.room.tell(&head.namespace().unwrap_or_default());
        }
    }

    /// Forgets a ChimeraHead that is gone.
    pub fn forget(&self, namespace: &str, name: &str) {
        self.groups().remove(&(namespace.to_owned(), name.to_owned()));
        self.room.tell(namespace);
    }

    /// Forgets ChimeraHeads that are not there any more: their deletion may have been missed.
    pub fn retain_heads(&self, wanted: impl Fn(&(String, String)) -> bool) {
        self.groups().retain(|head, _| wanted(head));
    }

    fn groups(&self) -> MutexGuard<'_, BTreeMap<(String, String), Noted>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves a place for the run: the one that was given to it while it waited, or a free one. Without one, it waits.
    pub fn reserve(&self, run: &Candidacy, demand: &Demand) -> Result<Reservation, NoPlace> {
        let mut entries = self.entries();
        if let Some(reservation) = self.take_up(&mut entries, run, demand) {
            return Ok(reservation);
        }
        let pods: Vec<_> = entries
            .values()
            .filter(|entry| is_shared(entry))
            .map(view)
            .collect();
        let Some(pod_uid) = choose(&pods, demand) else {
            self.room.wait(run, demand);
            return Err(no_place(&pods, &self.known_groups(), demand));
        };
        let entry = entries
            .get_mut(pod_uid)
            .expect("placement chooses among the entries");
        let link = entry.link.clone().expect("only a connected head is ready");
        entry.reserved.insert(run.run_id.clone());
        self.room.begun(&demand.namespace, run);
        Ok(Reservation {
            member: entry.member.clone(),
            link,
        })
    }

    fn known_groups(&self) -> Vec<Group> {
        self.groups().values().map(|noted| noted.group.clone()).collect()
    }

    /// All pods and ChimeraHeads as placement sees them.
    pub fn views(&self) -> (Vec<HeadView>, Vec<Group>) {
        let entries = self.entries();
        let pods = entries
            .values()
            .filter(|entry| is_shared(entry))
            .map(view)
            .collect();
        drop(entries);
        (pods, self.known_groups())
    }

    /// Gives a run the pod that was made for it, as soon as its agent takes runs.
    pub fn reserve_own(&self, run: &Candidacy, demand: &Demand) -> OwnPod {
        let mut entries = self.entries();
        let own = entries.values_mut().find(|entry| {
            let only = entry.member.only_for.as_ref();
            only.is_some_and(|only| only.run_id == run.run_id && only.workflow == run.workflow)
        });
        let Some(entry) = own else {
            return OwnPod::Unknown;
        };
        let view = view(entry);
        if view.offer.is_some() && !meets(&view, demand) {
            return OwnPod::Unsuitable(view.pod_uid);
        }
        match entry.link.clone().filter(|_| view.ready) {
            Some(link) => {
                entry.reserved.insert(run.run_id.clone());
                self.room.begun(&demand.namespace, run);
                let member = entry.member.clone();
                OwnPod::Ready(Box::new(Reservation { member, link }))
            }
            None => OwnPod::NotReady(entry.message.clone()),
        }
    }

    /// The ChimeraHead after which to make a pod for one run: the first by name that suits as far as is known, whatever pods
    /// it has.
    pub fn template_for(&self, demand: &Demand) -> Result<String, NoPlace> {
        let groups = self.known_groups();
        let suitable = groups.iter().find(|group| meets(&group.view, demand));
        suitable
            .map(|group| group.view.head.clone())
            .ok_or_else(|| no_place(&[], &groups, demand))
    }

    /// The place that was given to the run while it waited, unless it suits no longer.
    fn take_up(
        &self,
        entries: &mut HashMap<String, Entry>,
        run: &Candidacy,
        demand: &Demand,
    ) -> Option<Reservation> {
        let grant = self.room.take_up(&run.uid)?;
        let entry = entries.get(&grant.pod_uid);
        let usable = entry.filter(|entry| {
            let view = view(entry);
            grant.run_id == run.run_id && view.ready && !view.spare && suits(&view, demand)
        });
        if let Some(Entry {
            member,
            link: Some(link),
            ..
        }) = usable
        {
            return Some(Reservation {
                member: member.clone(),
                link: link.clone(),
            });
        }
        self.give_back(entries, &grant.run_id, &grant.pod_uid);
        None
    }

    /// Takes a workflow out of the queue: it waits for something else, ended, or is gone.
    pub fn stop_waiting(&self, uid: &str) {
        if let Some(grant) = self.room.leave(uid) {
            self.release(&grant.run_id, &grant.pod_uid);
        }
    }

    /// The runs that wait.
    pub fn room(&self) -> &WaitingRoom {
        &self.room
    }

    /// Notes that a run which this process did not start occupies a place.
    pub fn occupy(&self, run_id: &str, pod_uid: &str, submitter: &str) {
        if let Some(entry) = self.entries().get_mut(pod_uid) {
            entry.reserved.insert(run_id.to_owned());
            self.room.rejoined(&entry.member.namespace, run_id, submitter);
        }
    }

    /// Gives a run's place back.
    pub fn release(&self, run_id: &str, pod_uid: &str) {
        self.give_back(&mut self.entries(), run_id, pod_uid);
    }

    fn give_back(&self, entries: &mut HashMap<String, Entry>, run_id: &str, pod_uid: &str) {
        self.room.ended(run_id);
        let Some(entry) = entries.get_mut(pod_uid) else {
            return;
        };
        let freed = entry.reserved.remove(run_id);
        if freed && entry.member.leaving && view(entry).running == 0 {
            self.triggers.head(&entry.member.namespace, &entry.member.head);
        }
        if freed {
            self.serve(entries, pod_uid);
        }
    }

    /// Gives the free places of a pod to waiting runs, in their order.
    fn serve(&self, entries: &mut HashMap<String, Entry>, pod_uid: &str) {
        let Some(entry) = entries.get_mut(pod_uid).filter(|entry| is_shared(entry)) else {
            return;
        };
        loop {
            let view = view(entry);
            if !is_free(&view) {
                return;
            }
            // Lanes end, and answers about them are of no more use.
            if entry.suited.len() > 2 * self.room.lanes(&view.namespace) + 64 {
                entry.suited.clear();
            }
            let suited = &mut entry.suited;
            let of = (view.namespace.as_str(), view.head.as_str());
            let given = self.room.give(of, pod_uid, |lane, demand| {
                *suited.entry(lane).or_insert_with(|| suits(&view, demand))
            });
            match given {
                Some(run_id) => entry.reserved.insert(run_id),
                None => return,
            };
        }
    }

    /// Notes that a run is tried elsewhere: nothing that this pod may still say of it is asked for.
    pub fn abandon(&self, run_id: &str, pod_uid: &str) {
        if let Some(entry) = self.entries().get_mut(pod_uid) {
            entry.abandoned.insert(run_id.to_owned());
        }
    }

    /// Remembers what a pod of a head offers, for the time when it has none.
    fn remember(&self, member: &Member, offer: Arc<Offer>) {
        let key = (member.namespace.clone(), member.head.clone());
        if let Some(noted) = self.groups().get_mut(&key) {
            noted.group.view.offer = Some(offer);
        }
    }
}

/// Whether the pod takes whatever runs it suits.
fn is_shared(entry: &Entry) -> bool {
    entry.member.only_for.is_none()
}

fn is_what(environment: &Environment, offer: &Offer) -> bool {
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

fn offered(environment: &Environment) -> Offer {
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

/// What is known of a head's pods before there are any.
fn group(head: &ChimeraHead, offer: Option<Arc<Offer>>) -> Group {
    let gpus = head.spec.gpu.as_ref().map_or(0, |gpu| gpu.count);
    Group {
        view: HeadView {
            pod_uid: String::new(),
            pod: String::new(),
            namespace: head.namespace().unwrap_or_default(),
            head: head.name_any(),
            labels: head.metadata.labels.clone().unwrap_or_default(),
            role: head.spec.role,
            node: None,
            spare: false,
            ready: false,
            capacity: 0,
            running: 0,
            devices: Vec::new(),
            gpus: u32::try_from(gpus).unwrap_or(0),
            offer,
        },
        replicas: head.spec.replicas,
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
        gpus: status.map_or(0, |status| healthy(status)),
        offer: entry.link.as_ref().and_then(|link| link.offer.clone()),
    }
}

#[cfg(test)]
mod tests;
