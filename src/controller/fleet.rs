//! The heads as this process knows them: one connection to each head pod, and who has reserved a place on it.
//!
//! Placement decides on this view and reserves in the same critical section, so two runs never take the same place.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use api::Role;
use controller_core::placement::{Demand, HeadView, Offer, Placement, place};
use crypto::VerifyingKey;
use head_proto::{Environment, HeadStatus};
use rustls::ClientConfig;
use tokio::task::AbortHandle;
use tonic::transport::Channel;

use crate::{
    causes::with_causes,
    connection,
    triggers::{Triggers, WAKE_ON_RELEASE},
};

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
    /// Whether the pod is on its way out, or has a sick device: it takes no more runs.
    pub leaving: bool,
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
}

struct Entry {
    member: Member,
    link: Option<Link>,
    reserved: HashSet<String>,
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
            reserved: HashSet::new(),
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

    /// Whether the pod is known at all.
    pub fn knows(&self, pod_uid: &str) -> bool {
        self.entries().contains_key(pod_uid)
    }

    /// What is known of a pod's agent.
    pub fn health(&self, pod_uid: &str) -> Option<PodHealth> {
        let entries = self.entries();
        let entry = entries.get(pod_uid)?;
        let view = view(entry);
        Some(PodHealth {
            ready: view.ready,
            message: entry.message.clone(),
            devices: view.devices,
            running: view.running,
        })
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
        let freed = self
            .entries()
            .get_mut(pod_uid)
            .is_some_and(|entry| entry.reserved.remove(run_id));
        if freed {
            self.triggers.wake_waiting_up_to(WAKE_ON_RELEASE);
        }
    }

    /// Keeps one pod connected until it leaves.
    async fn follow(self: Arc<Self>, member: Member, tls: Arc<ClientConfig>) {
        let mut pause = Duration::from_millis(50);
        loop {
            let error = match self.attend(&member, &tls).await {
                Ok(error) => {
                    pause = Duration::from_millis(50);
                    error
                }
                Err(error) => error,
            };
            self.set(&member, None, error);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }

    /// Connects and follows the agent's states. `Ok` when it was connected for a while; both hold why it ended.
    async fn attend(&self, member: &Member, tls: &Arc<ClientConfig>) -> Result<String, String> {
        let connected = connection::connect(member.address, &member.namespace, Arc::clone(tls)).await;
        let channel = connected.map_err(|error| with_causes(&error))?;
        let watched = connection::watch(channel.clone(), member.heartbeat).await;
        let mut states = watched.map_err(|error| with_causes(&error))?;
        let silence = member.heartbeat * member.failure_threshold.max(2);
        let mut offer: Option<Arc<Offer>> = None;
        loop {
            match tokio::time::timeout(silence, states.message()).await {
                Ok(Ok(Some(status))) => {
                    let attester = VerifyingKey::from_spki_der(&status.attester_spki)
                        .map_err(|error| format!("the agent's attestation key: {error}"))?;
                    let message = status.message.clone();
                    if let Some(environment) = &status.environment {
                        // The same one again with every heartbeat.
                        if !offer.as_deref().is_some_and(|offer| is_what(environment, offer)) {
                            offer = Some(Arc::new(offered(environment)));
                        }
                    }
                    let link = Link {
                        channel: channel.clone(),
                        offer: offer.clone(),
                        attester,
                        status: Arc::new(status),
                    };
                    self.set(member, Some(link), message);
                }
                Ok(Ok(None)) => return Ok("the agent closed the connection".to_owned()),
                Ok(Err(status)) => return Ok(format!("the connection broke: {}", status.message())),
                Err(_) => return Ok(format!("no heartbeat for {} ms", silence.as_millis())),
            }
        }
    }

    /// Notes the agent's state; tells the head's reconcile when something changed that it shows.
    fn set(&self, member: &Member, link: Option<Link>, message: String) {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(&member.pod_uid) else {
            return;
        };
        let before = (view(entry), std::mem::replace(&mut entry.message, message));
        entry.link = link;
        let after = view(entry);
        let changed =
            (before.0.ready, &before.0.devices, &before.1) != (after.ready, &after.devices, &entry.message);
        let room = after.ready && after.running < after.capacity;
        let roomier = changed || after.running < before.0.running;
        drop(entries);
        if changed {
            self.triggers.head(&member.namespace, &member.head);
        }
        if room && roomier {
            self.triggers.wake_waiting();
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
        ready: !entry.member.leaving && status.is_some_and(|status| status.ready && !status.draining),
        capacity: status.map_or(0, |status| status.capacity),
        running: u32::try_from(entry.reserved.len() + foreign).unwrap_or(u32::MAX),
        devices: status.map(|status| status.devices.clone()).unwrap_or_default(),
        offer: entry.link.as_ref().and_then(|link| link.offer.clone()),
    }
}
