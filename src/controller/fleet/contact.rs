//! The connection to one agent: made, followed, asked once more when it ends, given up when it does not answer.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use api::reasons;
use controller_core::{head_plan::Lost, placement::Offer};
use crypto::VerifyingKey;
use head_proto::HeadStatus;
use jiff::Timestamp;
use rustls::ClientConfig;
use tonic::{Streaming, transport::Channel};

use super::{
    Entry, Fleet, Link, Member,
    health::{PodHealth, health, is_leaving, sick_devices},
    view::{is_what, offered, view},
};
use crate::{
    causes::with_causes,
    clock,
    connection::{self, CONNECT_DEADLINE},
    fate::Session,
};

/// How long an agent whose connection broke or fell silent may take to answer once more before it is given up.
const PROBE_DEADLINE: Duration = Duration::from_millis(1500);
/// Between two attempts to connect.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

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

impl Fleet {
    /// Keeps one pod connected until it leaves. An agent whose connection ends is asked once more, at once; if it does
    /// not answer, it is lost.
    pub(super) async fn follow(self: Arc<Self>, member: Member, tls: Arc<ClientConfig>) {
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
    pub(super) fn hear(
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
                entry.session = Some(Session::begin(agent.clone()));
            }
            let sick = sick_devices(&status);
            let is_well = sick.is_empty() && !entry.member.leaving;
            if is_well && entry.session.as_ref().is_some_and(Session::is_over) {
                // A device that failed works again: what is asked of the agent from now on has another fate.
                entry.session = Some(Session::begin(agent));
            }
            let Some(session) = &entry.session else { return };
            if let Some(sick) = sick.first() {
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

    /// Whether an agent ought to have been heard by now.
    fn is_overdue(&self, member: &Member, waited: Duration) -> bool {
        let entries = self.entries();
        entries.get(&member.pod_uid).is_some_and(|entry| {
            let unheard = entry.session.is_none() && entry.lost.is_none();
            unheard && entry.member.expected && waited > silence(member) + PROBE_DEADLINE
        })
    }

    /// Changes what is known of a pod; tells the head's reconcile when something changed that it decides by.
    fn change(&self, member: &Member, change: impl FnOnce(&mut Entry)) {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(&member.pod_uid) else {
            return;
        };
        let before = (health(entry), view(entry));
        change(entry);
        let after = (health(entry), view(entry));
        let offers_otherwise = (&before.1.offer, before.1.gpus) != (&after.1.offer, after.1.gpus);
        if offers_otherwise {
            entry.suited.clear();
        }
        let leaving = is_leaving(entry);
        self.serve(&mut entries, &member.pod_uid);
        drop(entries);
        if let Some(offer) = after.1.offer {
            self.remember(member, offer);
        }
        let running = (before.0.running, after.0.running);
        let quiet = PodHealth {
            running: after.0.running,
            ..before.0
        };
        let changed = quiet != after.0;
        if let Some(only) = &member.only_for {
            if changed || offers_otherwise {
                self.triggers.workflow(&only.workflow);
            }
        } else if changed || (leaving && running.0 > 0 && running.1 == 0) {
            self.triggers.head(&member.namespace, &member.head);
        }
        if changed || offers_otherwise {
            self.room.tell(&member.namespace);
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
        message: "the agent has served before or was found ready by the kubelet, but it is not heard"
            .to_owned(),
        at: clock::now(),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::{BTreeMap, HashMap, HashSet},
        net::IpAddr,
    };

    use super::{super::Retirement, *};
    use crate::triggers::Triggers;
    use api::Role;
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
            expected: true,
            avoided: Vec::new(),
            heartbeat: Duration::from_millis(500),
            failure_threshold: 3,
            only_for: None,
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
                retirement: Retirement::None,
                reserved: HashSet::new(),
                abandoned: HashSet::new(),
                message: String::new(),
                suited: HashMap::new(),
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

    fn broken(cause: &'static str) -> Broken {
        Broken {
            cause,
            message: "no heartbeat".to_owned(),
            at: clock::now(),
        }
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
        fleet.miss(
            &member("a"),
            Some(broken(reasons::AGENT_LOST)),
            "refused".to_owned(),
        );
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
        fleet.miss(&member("a"), Some(broken(reasons::HEARTBEAT_LOST)), String::new());
        assert_eq!(cause(&fleet), reasons::HEARTBEAT_LOST);
        fleet.miss(&member("b"), Some(broken(reasons::HEARTBEAT_LOST)), String::new());
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
        let pods = std::mem::take(&mut *fleet(&["a"]).entries());
        let fleet = Fleet::new(triggers);
        *fleet.entries() = pods;
        fleet.occupy("run", "a", "ann");
        fleet.release("run", "a");
        assert!(looked_at.try_recv().is_err(), "it serves on");
        fleet.occupy("run", "a", "ann");
        fleet.retire("a");
        fleet.release("run", "a");
        assert_eq!(looked_at.try_recv().expect("told").name, "q");
    }
}
