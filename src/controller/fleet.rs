//! The heads as this process knows them: one connection to each head pod, and who has reserved a place on it.
//!
//! Placement decides on this view and reserves in the same critical section, so two runs never take the same place.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use api::{Role, reasons};
use controller_core::{
    head_plan::{Lost, Mend, SickDevice, same_device},
    placement::{Demand, HeadView, Offer, Placement, place},
};
use crypto::VerifyingKey;
use head_proto::{Environment, HeadStatus};
use jiff::Timestamp;
use rustls::ClientConfig;
use tokio::task::AbortHandle;
use tonic::{Streaming, transport::Channel};

use crate::{
    causes::with_causes,
    clock,
    connection::{self, CONNECT_DEADLINE},
    fate::{Fate, Session},
    triggers::{Triggers, WAKE_ON_RELEASE},
};

/// How long an agent whose connection broke or fell silent may take to answer once more before it is given up.
const PROBE_DEADLINE: Duration = Duration::from_secs(1);
/// Between two attempts to connect.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

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
    /// Id of the agent's attestation key, while it is heard.
    pub agent: Option<String>,
    /// Why it is heard no more.
    pub lost: Option<Lost>,
    /// Devices that the agent finds unhealthy.
    pub sick_devices: Vec<SickDevice>,
    /// Devices that it finds healthy.
    pub healthy_devices: Vec<String>,
    /// Faults that it mended itself.
    pub mends: Vec<Mend>,
    /// Why it is to be replaced although it is heard.
    pub suspect: Option<String>,
}

/// How a connection ended.
struct Broken {
    cause: &'static str,
    message: String,
    at: Timestamp,
}

/// An agent's first word on a new connection.
struct Greeting {
    channel: Channel,
    first: HeadStatus,
    states: Streaming<HeadStatus>,
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
        let entry = entries.get(pod_uid)?;
        let mut health = health(entry);
        if let Some(lost) = &mut health.lost
            && lost.cause == reasons::HEARTBEAT_LOST
            && is_node_silent(&entries, entry.member.node.as_deref())
        {
            lost.cause = reasons::NODE_LOST;
        }
        Some(health)
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

    /// Keeps one pod connected until it leaves. An agent whose connection ends is asked once more, at once; if it does
    /// not answer, it is lost.
    async fn follow(self: Arc<Self>, member: Member, tls: Arc<ClientConfig>) {
        let begun = Instant::now();
        let mut pause = FIRST_PAUSE;
        let mut broken: Option<Broken> = None;
        loop {
            let limit = if broken.is_some() {
                PROBE_DEADLINE
            } else {
                CONNECT_DEADLINE
            };
            match greet(&member, &tls, limit).await {
                Ok(greeting) => {
                    let connected = Instant::now();
                    broken = Some(self.listen(&member, greeting).await);
                    self.mute(&member);
                    if connected.elapsed() > PROBE_DEADLINE {
                        pause = FIRST_PAUSE;
                        continue;
                    }
                }
                Err(error) => {
                    let silent = || self.is_overdue(&member, begun.elapsed()).then(never_heard);
                    self.miss(&member, broken.take().or_else(silent), error);
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Follows the agent's states to the end of the connection.
    async fn listen(&self, member: &Member, greeting: Greeting) -> Broken {
        let Greeting {
            channel,
            first,
            mut states,
        } = greeting;
        let silence = silence(member);
        let mut offer: Option<Arc<Offer>> = None;
        let mut status = first;
        let (cause, message) = loop {
            if let Some(environment) = &status.environment {
                // The same one again with every heartbeat.
                if !offer.as_deref().is_some_and(|offer| is_what(environment, offer)) {
                    offer = Some(Arc::new(offered(environment)));
                }
            }
            if let Err(error) = self.hear(member, &channel, offer.clone(), status) {
                break (reasons::AGENT_LOST, error);
            }
            status = match tokio::time::timeout(silence, states.message()).await {
                Ok(Ok(Some(status))) => status,
                Ok(Ok(None)) => break (reasons::AGENT_LOST, "the agent closed the connection".to_owned()),
                Ok(Err(status)) => {
                    break (
                        reasons::AGENT_LOST,
                        format!("the connection broke: {}", status.message()),
                    );
                }
                Err(_) => {
                    let message = format!("no heartbeat for {} ms", silence.as_millis());
                    break (reasons::HEARTBEAT_LOST, message);
                }
            };
        };
        Broken {
            cause,
            message,
            at: clock::now(),
        }
    }

    /// Notes the agent's state.
    fn hear(
        &self,
        member: &Member,
        channel: &Channel,
        offer: Option<Arc<Offer>>,
        status: HeadStatus,
    ) -> Result<(), String> {
        let attester = VerifyingKey::from_spki_der(&status.attester_spki)
            .map_err(|error| format!("the agent's attestation key: {error}"))?;
        self.change(member, |entry| {
            let agent = attester.key_id().to_string();
            if entry
                .session
                .as_ref()
                .is_none_or(|session| session.agent != agent)
            {
                if let Some(former) = entry.session.take() {
                    former.end(&lost_now(
                        reasons::AGENT_LOST,
                        "the agent was started again".to_owned(),
                    ));
                }
                entry.abandoned.clear();
                entry.session = Some(Session::begin(agent));
            }
            let Some(session) = &entry.session else { return };
            if let Some(sick) = sick_devices(&status).first() {
                let message = format!("device {}: {}", sick.device, sick.message);
                session.end(&lost_now(reasons::GPU_UNHEALTHY, message));
            }
            entry
                .abandoned
                .retain(|run| status.running.iter().any(|running| running == run));
            for run_id in &entry.abandoned {
                let reason = "the run is tried elsewhere";
                tokio::spawn(connection::cancel(
                    channel.clone(),
                    run_id.clone(),
                    reason.to_owned(),
                ));
            }
            entry.lost = None;
            entry.message.clone_from(&status.message);
            entry.link = Some(Link {
                channel: channel.clone(),
                offer,
                attester,
                fate: session.fate(),
                status: Arc::new(status),
            });
        });
        Ok(())
    }

    /// Places no runs on a pod whose connection ended. Nobody is told before it is clear whether its agent is lost.
    fn mute(&self, member: &Member) {
        if let Some(entry) = self.entries().get_mut(&member.pod_uid) {
            entry.link = None;
        }
    }

    /// Notes that the agent does not answer, and gives it up if it did before.
    fn miss(&self, member: &Member, broken: Option<Broken>, error: String) {
        self.change(member, |entry| {
            entry.link = None;
            if let Some(Broken { cause, message, at }) = broken {
                let lost = Lost {
                    cause,
                    message: format!("{message}; asked once more: {error}"),
                    since: at,
                };
                if let Some(session) = entry.session.take() {
                    session.end(&lost);
                }
                entry.lost = Some(lost);
            }
            entry.message = error;
        });
    }

    /// Whether an agent that the kubelet found ready ought to have been heard by now.
    fn is_overdue(&self, member: &Member, waited: Duration) -> bool {
        let entries = self.entries();
        entries.get(&member.pod_uid).is_some_and(|entry| {
            let unheard = entry.session.is_none() && entry.lost.is_none();
            unheard && entry.member.kubelet_ready && waited > silence(member) + PROBE_DEADLINE
        })
    }

    /// Changes what is known of a pod; tells the head's reconcile when something changed that it decides by.
    fn change(&self, member: &Member, change: impl FnOnce(&mut Entry)) {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(&member.pod_uid) else {
            return;
        };
        let before = health(entry);
        change(entry);
        let (after, capacity) = (health(entry), view(entry).capacity);
        let leaving = entry.member.leaving;
        drop(entries);
        let running = (before.running, after.running);
        let room = after.ready && after.running < capacity;
        let quiet = PodHealth {
            running: after.running,
            ..before
        };
        let changed = quiet != after;
        if changed || (leaving && running.0 > 0 && running.1 == 0) {
            self.triggers.head(&member.namespace, &member.head);
        }
        if room && (changed || running.1 < running.0) {
            self.triggers.wake_waiting();
        }
    }
}

/// Connects, and waits for the agent's first word.
async fn greet(member: &Member, tls: &Arc<ClientConfig>, limit: Duration) -> Result<Greeting, String> {
    let greeting = async {
        let connected = connection::connect(member.address, &member.namespace, Arc::clone(tls)).await;
        let channel = connected.map_err(|error| with_causes(&error))?;
        let watched = connection::watch(channel.clone(), member.heartbeat).await;
        let mut states = watched.map_err(|error| with_causes(&error))?;
        match states.message().await {
            Ok(Some(first)) => Ok(Greeting {
                channel,
                first,
                states,
            }),
            Ok(None) => Err("the agent closed the connection".to_owned()),
            Err(status) => Err(format!("watch the head: {}", status.message())),
        }
    };
    let greeted = tokio::time::timeout(limit, greeting).await;
    greeted.unwrap_or_else(|_| Err(format!("no answer in {} ms", limit.as_millis())))
}

/// How long an agent may say nothing.
fn silence(member: &Member) -> Duration {
    member.heartbeat * member.failure_threshold.max(2)
}

fn lost_now(cause: &'static str, message: String) -> Lost {
    Lost {
        cause,
        message,
        since: clock::now(),
    }
}

fn never_heard() -> Broken {
    Broken {
        cause: reasons::HEARTBEAT_LOST,
        message: "the kubelet found the agent ready, but it was never heard".to_owned(),
        at: clock::now(),
    }
}

/// Whether no pod of a node is heard, of several.
fn is_node_silent(entries: &HashMap<String, Entry>, node: Option<&str>) -> bool {
    let Some(node) = node else { return false };
    let there = || {
        entries
            .values()
            .filter(|entry| entry.member.node.as_deref() == Some(node))
    };
    let is_silent = |entry: &Entry| {
        let lost = entry.lost.as_ref();
        lost.is_some_and(|lost| lost.cause == reasons::HEARTBEAT_LOST)
    };
    there().count() > 1 && there().all(is_silent)
}

fn sick_devices(status: &HeadStatus) -> Vec<SickDevice> {
    let sick = status.device_states.iter().filter(|device| !device.healthy);
    sick.map(|device| SickDevice {
        device: device.uuid.clone(),
        message: device.message.clone(),
    })
    .collect()
}

fn health(entry: &Entry) -> PodHealth {
    let view = view(entry);
    let status = entry.link.as_ref().map(|link| link.status.as_ref());
    let healthy = |status: &HeadStatus| {
        let devices = status.device_states.iter().filter(|device| device.healthy);
        devices.map(|device| device.uuid.clone()).collect()
    };
    let message = match avoided_device(entry) {
        Some(device) if entry.message.is_empty() => {
            format!("it holds device {device}, which failed and was not found healthy since")
        }
        _ => entry.message.clone(),
    };
    PodHealth {
        ready: view.ready,
        message,
        devices: view.devices,
        running: view.running,
        agent: entry.session.as_ref().map(|session| session.agent.clone()),
        lost: entry.lost.clone(),
        sick_devices: status.map(sick_devices).unwrap_or_default(),
        healthy_devices: status.map(healthy).unwrap_or_default(),
        mends: status.map(mends).unwrap_or_default(),
        suspect: entry.suspect.clone(),
    }
}

fn mends(status: &HeadStatus) -> Vec<Mend> {
    let told = status.mends.iter().map(|mend| Mend {
        number: i64::try_from(mend.number).unwrap_or(i64::MAX),
        cause: mend.cause.clone(),
        message: mend.message.clone(),
        noticed: i64::try_from(mend.noticed_unix_millis)
            .ok()
            .and_then(|millis| Timestamp::from_millisecond(millis).ok())
            .unwrap_or(Timestamp::MAX),
        duration_millis: i64::try_from(mend.duration_millis).unwrap_or(i64::MAX),
    });
    told.collect()
}

/// A device of the pod that failed and that its agent does not vouch for.
fn avoided_device(entry: &Entry) -> Option<&String> {
    let status = &entry.link.as_ref()?.status;
    let vouched = |device: &str| {
        let mut states = status.device_states.iter();
        states.any(|state| state.healthy && same_device(&state.uuid, device))
    };
    let avoided = |device: &&String| {
        entry
            .member
            .avoided
            .iter()
            .any(|avoided| same_device(avoided, device))
    };
    status
        .devices
        .iter()
        .find(|device| avoided(device) && !vouched(device))
}

fn takes_runs(entry: &Entry) -> bool {
    let status = entry.link.as_ref().map(|link| &link.status);
    let healthy = |status: &HeadStatus| status.device_states.iter().all(|device| device.healthy);
    !entry.member.leaving
        && entry.suspect.is_none()
        && avoided_device(entry).is_none()
        && status.is_some_and(|status| status.ready && !status.draining && healthy(status))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crypto::{SigningKey, Suite};
    use head_proto::Device;
    use tonic::transport::Endpoint;

    fn member(pod: &str) -> Member {
        Member {
            pod_uid: pod.to_owned(),
            pod: pod.to_owned(),
            namespace: "team".to_owned(),
            address: IpAddr::from([127, 0, 0, 1]),
            node: Some("node".to_owned()),
            head: "q".to_owned(),
            labels: BTreeMap::new(),
            role: Role::Quantum,
            spare: false,
            leaving: false,
            kubelet_ready: true,
            avoided: Vec::new(),
            heartbeat: Duration::from_millis(500),
            failure_threshold: 3,
        }
    }

    /// A fleet of pods that nobody dials.
    fn fleet(pods: &[&str]) -> Arc<Fleet> {
        let fleet = Fleet::new(Arc::new(Triggers::default()));
        for pod in pods {
            let entry = Entry {
                member: member(pod),
                link: None,
                session: None,
                lost: None,
                suspect: None,
                reserved: HashSet::new(),
                abandoned: HashSet::new(),
                message: String::new(),
                task: tokio::spawn(async {}).abort_handle(),
            };
            fleet.entries().insert((*pod).to_owned(), entry);
        }
        fleet
    }

    /// What an agent with a key of its own says.
    fn status(key: &SigningKey) -> HeadStatus {
        HeadStatus {
            attester_spki: key.verifying_key().spki_der().to_vec(),
            ready: true,
            capacity: 2,
            devices: vec!["GPU-1".to_owned()],
            ..HeadStatus::default()
        }
    }

    fn key() -> SigningKey {
        SigningKey::generate(Suite::MlDsa87).expect("a key")
    }

    fn hear(fleet: &Fleet, pod: &str, status: HeadStatus) {
        let channel = Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
        fleet
            .hear(&member(pod), &channel, None, status)
            .expect("a valid key");
    }

    fn broken(cause: &'static str) -> Option<Broken> {
        Some(Broken {
            cause,
            message: "no heartbeat".to_owned(),
            at: clock::now(),
        })
    }

    #[tokio::test]
    async fn runs_learn_at_once_that_their_agent_was_started_again() {
        let (fleet, agent) = (fleet(&["a"]), key());
        hear(&fleet, "a", status(&agent));
        let before = fleet.link("a").expect("connected").link.fate;
        hear(&fleet, "a", status(&agent));
        hear(&fleet, "a", status(&key()));
        assert_eq!(before.lost().await.expect("told").cause, reasons::AGENT_LOST);
        let after = fleet.link("a").expect("connected").link.fate;
        let waits = tokio::time::timeout(Duration::from_millis(1), after.lost()).await;
        assert!(waits.is_err(), "the new agent is well");
    }

    #[tokio::test]
    async fn a_broken_connection_is_no_loss_before_the_agent_was_asked_again() {
        let (fleet, agent) = (fleet(&["a"]), key());
        hear(&fleet, "a", status(&agent));
        fleet.mute(&member("a"));
        let health = fleet.health("a").expect("known");
        assert!(!health.ready && health.lost.is_none() && fleet.may_answer("a"));
        hear(&fleet, "a", status(&agent));
        assert!(fleet.health("a").expect("known").ready);
        fleet.mute(&member("a"));
        fleet.miss(&member("a"), broken(reasons::AGENT_LOST), "refused".to_owned());
        let health = fleet.health("a").expect("known");
        assert_eq!(health.lost.expect("lost").cause, reasons::AGENT_LOST);
        assert!(health.agent.is_none() && !fleet.may_answer("a"));
        hear(&fleet, "a", status(&agent));
        assert!(fleet.health("a").expect("known").lost.is_none(), "it is back");
    }

    #[tokio::test]
    async fn a_node_is_lost_when_none_of_its_pods_is_heard() {
        let fleet = fleet(&["a", "b"]);
        for pod in ["a", "b"] {
            hear(&fleet, pod, status(&key()));
        }
        let cause = |fleet: &Fleet| fleet.health("a").expect("known").lost.expect("lost").cause;
        fleet.miss(&member("a"), broken(reasons::HEARTBEAT_LOST), String::new());
        assert_eq!(cause(&fleet), reasons::HEARTBEAT_LOST);
        fleet.miss(&member("b"), broken(reasons::HEARTBEAT_LOST), String::new());
        assert_eq!(cause(&fleet), reasons::NODE_LOST);
    }

    #[tokio::test]
    async fn a_sick_device_ends_the_runs_on_it_and_takes_no_new_ones() {
        let (fleet, agent) = (fleet(&["a"]), key());
        hear(&fleet, "a", status(&agent));
        let fate = fleet.link("a").expect("connected").link.fate;
        let sick = Device {
            uuid: "GPU-1".to_owned(),
            message: "XID 79".to_owned(),
            ..Device::default()
        };
        let mut told = status(&agent);
        told.device_states = vec![sick];
        hear(&fleet, "a", told);
        assert_eq!(fate.lost().await.expect("told").cause, reasons::GPU_UNHEALTHY);
        let health = fleet.health("a").expect("known");
        assert!(!health.ready);
        assert_eq!(health.sick_devices[0].device, "GPU-1");
    }

    #[tokio::test]
    async fn a_device_that_failed_is_used_again_when_its_agent_vouches_for_it() {
        let (fleet, agent) = (fleet(&["a"]), key());
        let avoiding = Member {
            avoided: vec!["GPU-1::1".to_owned()],
            ..member("a")
        };
        fleet.entries().get_mut("a").expect("there").member = avoiding;
        hear(&fleet, "a", status(&agent));
        let health = fleet.health("a").expect("known");
        assert!(
            !health.ready && health.message.contains("GPU-1"),
            "{}",
            health.message
        );
        let mut told = status(&agent);
        told.device_states = vec![Device {
            uuid: "GPU-1".to_owned(),
            healthy: true,
            ..Device::default()
        }];
        hear(&fleet, "a", told);
        assert!(fleet.health("a").expect("known").ready);
    }

    #[tokio::test]
    async fn a_pod_that_is_gone_or_condemned_answers_no_run() {
        let fleet = fleet(&["a", "b"]);
        for pod in ["a", "b"] {
            hear(&fleet, pod, status(&key()));
        }
        let fates = ["a", "b"].map(|pod| fleet.link(pod).expect("connected").link.fate);
        fleet.leave("a");
        let lost = lost_now(reasons::GPU_UNHEALTHY, "XID 79".to_owned());
        fleet.condemn("b", &lost);
        let [gone, condemned] = fates;
        assert!(gone.lost().await.is_none());
        assert_eq!(condemned.lost().await.expect("told").message, "XID 79");
        assert!(!fleet.health("b").expect("known").ready);
    }

    #[tokio::test]
    async fn a_drained_pods_last_run_has_its_head_looked_at() {
        let triggers = Arc::new(Triggers::default());
        let mut looked_at = triggers.subscribe_heads();
        let fleet = Fleet {
            entries: Mutex::new(std::mem::take(&mut fleet(&["a"]).entries())),
            triggers,
        };
        fleet.occupy("run", "a");
        fleet.release("run", "a");
        assert!(looked_at.try_recv().is_err(), "it serves on");
        fleet.occupy("run", "a");
        fleet.retire("a");
        fleet.release("run", "a");
        assert_eq!(looked_at.try_recv().expect("told").name, "q");
    }
}
