//! Turns, against a fleet whose agents only seem to be connected.

mod service;

use api::ChimeraHead;
use controller_core::demand::{Demand, Tried};
use crypto::{SigningKey, Suite};
use head_proto::Environment;
use prometheus::core::Collector as _;
use tonic::transport::Endpoint;

use super::{view::offered, *};
use crate::{demand_metrics::DemandMetrics, waiting_room::Candidacy};

fn member(pod: &str) -> Member {
    Member {
        pod_uid: format!("uid-{pod}"),
        pod: pod.to_owned(),
        namespace: "team".to_owned(),
        address: IpAddr::from([127, 0, 0, 1]),
        node: None,
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

fn fleet() -> (
    Arc<Fleet>,
    tokio::sync::mpsc::UnboundedReceiver<kube::runtime::reflector::ObjectRef<api::MamlWorkflow>>,
) {
    let triggers = Arc::new(Triggers::default());
    let woken = triggers.subscribe_workflows();
    (Fleet::new(triggers), woken)
}

/// A pod that has joined and is not connected yet.
fn join(fleet: &Fleet, pod: &str) {
    let entry = Entry {
        member: member(pod),
        link: None,
        session: None,
        lost: None,
        suspect: None,
        retirement: Retirement::None,
        reserved: HashSet::new(),
        abandoned: HashSet::new(),
        message: "connecting".into(),
        suited: HashMap::new(),
        task: tokio::spawn(std::future::pending::<()>()).abort_handle(),
    };
    fleet.entries().insert(entry.member.pod_uid.clone(), entry);
}

/// The pod's agent says that it takes so many runs.
fn connect(fleet: &Fleet, pod: &str, capacity: u32) {
    connect_with(fleet, pod, capacity, "2.3.1");
}

/// The same, with that version of numpy.
fn connect_with(fleet: &Fleet, pod: &str, capacity: u32, numpy: &str) {
    hear(fleet, &member(pod), capacity, numpy);
}

fn hear(fleet: &Fleet, member: &Member, capacity: u32, numpy: &str) {
    let environment = Environment {
        interpreter: "CPython 3.13.5".into(),
        languages: vec!["python".into()],
        packages: [("numpy".to_owned(), numpy.to_owned())].into(),
        ..Environment::default()
    };
    let key = SigningKey::from_seed(Suite::MlDsa87, &[1; 32]).expect("a key");
    let channel = Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
    let offer = Arc::new(offered(&environment));
    let status = HeadStatus {
        attester_spki: key.verifying_key().spki_der().to_vec(),
        ready: true,
        capacity,
        environment: Some(environment),
        ..HeadStatus::default()
    };
    fleet
        .hear(member, &channel, Some(offer), status)
        .expect("a valid key");
}

fn demand() -> Demand {
    Demand {
        namespace: "team".into(),
        role: None,
        labels: BTreeMap::new(),
        allowed: Role::ALL.to_vec(),
        gpus: 0,
        languages: vec!["python".into()],
        packages: Vec::new(),
        cuda: None,
        memory_bytes: None,
        qubits: None,
        isolation: api::Isolation::Process,
        tried: Tried::default(),
    }
}

fn run(uid: &str, submitter: &str, priority: i32, created: i64) -> Candidacy {
    Candidacy {
        run_id: format!("run-{uid}"),
        workflow: kube::runtime::reflector::ObjectRef::new(uid).within("team"),
        uid: uid.to_owned(),
        submitter: submitter.to_owned(),
        priority,
        created: jiff::Timestamp::from_second(created).expect("in range"),
        since: jiff::Timestamp::from_second(created).expect("in range"),
    }
}

#[tokio::test]
async fn a_place_that_becomes_free_is_kept_for_the_run_whose_turn_it_is() {
    let (fleet, mut woken) = fleet();
    join(&fleet, "a");
    connect(&fleet, "a", 1);
    let first = run("first", "ann", 0, 1);
    fleet.reserve(&first, &demand()).expect("a free place");
    let (old, high) = (run("old", "ann", 0, 2), run("high", "ann", 5, 3));
    for waiting in [&old, &high] {
        assert!(fleet.reserve(waiting, &demand()).is_err());
    }
    fleet.release("run-first", "uid-a");
    assert_eq!(woken.try_recv().expect("looked at").name, "high");
    assert!(
        woken.try_recv().is_err(),
        "nobody else is looked at for one place"
    );
    // Neither a newcomer of any priority nor who waits longer takes it.
    let newcomer = run("new", "bob", 1000, 4);
    for other in [&newcomer, &old] {
        assert!(fleet.reserve(other, &demand()).is_err());
    }
    assert_eq!(
        fleet.reserve(&high, &demand()).expect("its place").member.pod,
        "a"
    );
    fleet.release("run-high", "uid-a");
    assert_eq!(woken.try_recv().expect("looked at").name, "new");
}

#[tokio::test]
async fn a_place_that_is_not_taken_up_goes_to_the_next() {
    let (fleet, mut woken) = fleet();
    join(&fleet, "a");
    connect(&fleet, "a", 1);
    fleet
        .reserve(&run("first", "ann", 0, 1), &demand())
        .expect("a place");
    let (second, third) = (run("second", "ann", 0, 2), run("third", "ann", 0, 3));
    for waiting in [&second, &third] {
        assert!(fleet.reserve(waiting, &demand()).is_err());
    }
    fleet.release("run-first", "uid-a");
    assert_eq!(woken.try_recv().expect("looked at").name, "second");
    // It was suspended meanwhile.
    fleet.stop_waiting("second");
    assert_eq!(woken.try_recv().expect("looked at").name, "third");
    assert!(fleet.reserve(&third, &demand()).is_ok());
    fleet.release("run-third", "uid-a");
    fleet
        .room()
        .look(|queues| assert!(queues.is_empty(), "nothing is remembered: {queues:?}"));
}

#[tokio::test]
async fn a_place_on_a_pod_that_is_gone_is_given_anew() {
    let (fleet, mut woken) = fleet();
    for pod in ["a", "b"] {
        join(&fleet, pod);
        connect(&fleet, pod, 1);
    }
    fleet
        .reserve(&run("one", "ann", 0, 1), &demand())
        .expect("a place");
    fleet
        .reserve(&run("two", "ann", 0, 2), &demand())
        .expect("a place");
    let waiting = run("waiting", "ann", 0, 3);
    assert!(fleet.reserve(&waiting, &demand()).is_err());
    fleet.release("run-one", "uid-a");
    assert_eq!(woken.try_recv().expect("looked at").name, "waiting");
    fleet.leave("uid-a");
    assert!(fleet.reserve(&waiting, &demand()).is_err(), "it waits again");
    fleet.release("run-two", "uid-b");
    assert_eq!(
        fleet.reserve(&waiting, &demand()).expect("a place").member.pod,
        "b"
    );
}

#[tokio::test]
async fn a_place_that_is_held_is_free_again_whatever_ends_the_reconcile() {
    let (fleet, mut woken) = fleet();
    join(&fleet, "a");
    connect(&fleet, "a", 1);
    let (first, second) = (run("first", "ann", 0, 1), run("second", "ann", 0, 2));
    let reservation = fleet.reserve(&first, &demand()).expect("a place");
    assert!(fleet.reserve(&second, &demand()).is_err());
    let held = fleet.hold("run-first", &reservation);
    let reconcile = tokio::spawn(async move {
        let _held = held;
        std::future::pending::<()>().await;
    });
    assert!(woken.try_recv().is_err());
    reconcile.abort();
    assert!(reconcile.await.expect_err("aborted").is_cancelled());
    assert_eq!(woken.try_recv().expect("looked at").name, "second");
    let reservation = fleet.reserve(&second, &demand()).expect("its place");
    fleet.hold("run-second", &reservation).keep();
    let third = run("third", "ann", 0, 3);
    assert!(fleet.reserve(&third, &demand()).is_err(), "it is driven");
}

/// What a run asks for whose attempts were just lost on these pods.
fn retry(pods: &[&str]) -> Demand {
    let now = crate::clock::now();
    let lost = pods
        .iter()
        .zip(1..)
        .map(|(pod, attempt)| api::maml_workflow::LostAttempt {
            attempt,
            head: Some("q".into()),
            pod: Some((*pod).to_owned()),
            reason: api::reasons::HEAD_LOST.into(),
            message: None,
            time: now,
        });
    Demand {
        tried: Tried::of(&lost.collect::<Vec<_>>(), now),
        ..demand()
    }
}

#[tokio::test]
async fn a_retry_waits_for_another_pod_and_gets_the_one_that_lost_it_as_a_last_resort() {
    let (fleet, mut woken) = fleet();
    for pod in ["a", "b"] {
        join(&fleet, pod);
        connect(&fleet, pod, 1);
    }
    let (one, two, lost) = (
        run("1", "ann", 0, 1),
        run("2", "ann", 0, 2),
        run("3", "ann", 0, 3),
    );
    assert_eq!(fleet.reserve(&one, &demand()).expect("a place").member.pod, "a");
    assert_eq!(fleet.reserve(&two, &demand()).expect("a place").member.pod, "b");
    assert!(fleet.reserve(&lost, &retry(&["a"])).is_err());
    fleet.release("run-1", "uid-a");
    assert!(woken.try_recv().is_err(), "the free place is where it was lost");
    let none = fleet
        .reserve(&lost, &retry(&["a"]))
        .err()
        .expect("no other place");
    assert!(none.message.contains("lost an attempt"), "{}", none.message);
    fleet.release("run-2", "uid-b");
    assert_eq!(woken.try_recv().expect("looked at").name, "3");
    let given = fleet.reserve(&lost, &retry(&["a"])).expect("its place");
    assert_eq!(given.member.pod, "b");

    let again = run("4", "ann", 0, 4);
    assert!(fleet.reserve(&again, &retry(&["a"])).is_err());
    fleet.leave("uid-b");
    assert_eq!(woken.try_recv().expect("looked at").name, "4");
    let given = fleet.reserve(&again, &retry(&["a"])).expect("there is no other");
    assert_eq!(given.member.pod, "a");
}

#[tokio::test]
async fn a_free_place_goes_to_a_retry_when_it_was_lost_everywhere() {
    let (fleet, mut woken) = fleet();
    for pod in ["a", "b"] {
        join(&fleet, pod);
        connect(&fleet, pod, 1);
    }
    for (uid, pod) in [("1", "a"), ("2", "b")] {
        let taken = fleet.reserve(&run(uid, "ann", 0, 1), &demand()).expect("a place");
        assert_eq!(taken.member.pod, pod);
    }
    let lost = run("3", "ann", 0, 3);
    assert!(fleet.reserve(&lost, &retry(&["a", "b"])).is_err());
    fleet.release("run-2", "uid-b");
    assert_eq!(woken.try_recv().expect("looked at").name, "3");
}

#[tokio::test]
async fn a_run_that_waits_is_written_upon_its_last_write_until_the_watch_shows_another() {
    let (fleet, _woken) = fleet();
    let room = fleet.room();
    let wrote = || room.wrote("one", "7".to_owned(), "8".to_owned());
    let next = |seen: &str| room.take_version("one", Some(seen)).expect("a version");
    wrote();
    assert_eq!(next("7"), "7", "nothing is kept of a run that does not wait");
    assert!(fleet.reserve(&run("one", "ann", 0, 1), &demand()).is_err());
    wrote();
    assert_eq!(next("7"), "8", "the watch has not shown the write");
    assert_eq!(
        next("7"),
        "7",
        "that write was not enough: somebody else wrote too"
    );
    wrote();
    assert_eq!(next("9"), "9", "the watch has shown more than the write");
    wrote();
    fleet.stop_waiting("one");
    assert_eq!(next("7"), "7");
}

#[tokio::test]
async fn runs_that_no_head_suits_stand_in_nobodys_way() {
    let (fleet, mut woken) = fleet();
    join(&fleet, "a");
    connect(&fleet, "a", 1);
    let gpus = Demand { gpus: 8, ..demand() };
    assert!(fleet.reserve(&run("picky", "ann", 1000, 1), &gpus).is_err());
    assert!(fleet.reserve(&run("easy", "ann", 0, 2), &demand()).is_ok());
    assert!(fleet.reserve(&run("next", "ann", 0, 3), &demand()).is_err());
    fleet.release("run-easy", "uid-a");
    assert_eq!(woken.try_recv().expect("looked at").name, "next");
}

#[tokio::test]
async fn a_head_that_appears_serves_those_who_wait_in_their_order() {
    let (fleet, mut woken) = fleet();
    join(&fleet, "a");
    for (uid, priority) in [("low", 0), ("high", 1), ("middle", 0)] {
        let none = fleet.reserve(&run(uid, "ann", priority, 1), &demand()).err();
        assert_eq!(
            none.map(|none| none.why),
            Some(controller_core::no_place::Why::NotReady)
        );
    }
    connect(&fleet, "a", 2);
    let first_two = [woken.try_recv(), woken.try_recv()].map(|woken| woken.expect("looked at").name);
    assert_eq!(first_two, ["high", "low"]);
    fleet.room().look(|queues| assert_eq!(queues["team"].len(), 1));
    assert_eq!(woken.try_recv().expect("what changed is told").name, "middle");
}

#[tokio::test]
async fn a_run_that_asks_for_numpy_99_waits_for_that_and_runs_when_a_head_offers_it() {
    let (fleet, mut woken) = fleet();
    join(&fleet, "old");
    connect(&fleet, "old", 1);
    let numpy = Demand {
        packages: vec!["numpy>=99".into()],
        ..demand()
    };
    let early = run("early", "ann", 0, 1);
    let none = fleet.reserve(&early, &numpy).err().expect("no place");
    assert!(
        none.message
            .contains("the package numpy>=99 (installed is 2.3.1)"),
        "{}",
        none.message
    );
    join(&fleet, "new");
    connect_with(&fleet, "new", 1, "99.1");
    assert_eq!(woken.try_recv().expect("looked at").name, "early");
    assert_eq!(fleet.reserve(&early, &numpy).expect("a place").member.pod, "new");
    // A pod whose image is replaced in place offers otherwise too.
    let later = run("later", "ann", 0, 2);
    assert!(fleet.reserve(&later, &numpy).is_err());
    connect_with(&fleet, "old", 1, "99.0");
    assert_eq!(fleet.reserve(&later, &numpy).expect("a place").member.pod, "old");
}

#[tokio::test]
async fn a_pod_that_was_made_for_one_run_is_given_to_that_one_only() {
    let (fleet, mut woken) = fleet();
    let alone = Demand {
        isolation: api::Isolation::Pod,
        ..demand()
    };
    let own = run("own", "ann", 0, 1);
    assert!(matches!(fleet.reserve_own(&own, &alone), OwnPod::Unknown));
    join(&fleet, "single");
    let only = OnlyFor {
        run_id: own.run_id.clone(),
        workflow: own.workflow.clone(),
    };
    if let Some(entry) = fleet.entries().get_mut("uid-single") {
        entry.member.only_for = Some(only.clone());
    }
    assert!(matches!(fleet.reserve_own(&own, &alone), OwnPod::NotReady(_)));
    assert!(fleet.reserve(&run("other", "ann", 0, 2), &demand()).is_err());
    let member = member("single");
    let member = Member {
        only_for: Some(only),
        ..member
    };
    hear(&fleet, &member, 1, "2.3.1");
    assert_eq!(woken.try_recv().expect("looked at").name, "own");
    assert!(fleet.reserve(&run("other", "ann", 0, 2), &demand()).is_err());
    let OwnPod::Ready(reservation) = fleet.reserve_own(&own, &alone) else {
        panic!("it is ready")
    };
    assert_eq!(reservation.member.pod, "single");
    let next_attempt = Candidacy {
        run_id: "run-own-2".into(),
        ..own
    };
    assert!(matches!(
        fleet.reserve_own(&next_attempt, &alone),
        OwnPod::Unknown
    ));
}

#[tokio::test]
async fn autoscalers_are_told_of_places_and_waits_and_of_nothing_that_is_gone() {
    let (fleet, _woken) = fleet();
    let metrics = DemandMetrics::new(Arc::clone(&fleet)).expect("metrics");
    let told = || -> Vec<String> {
        let families = metrics.collect();
        let mut lines = Vec::new();
        for family in families
            .iter()
            .filter(|family| !family.name().ends_with("_seconds"))
        {
            for metric in family.get_metric() {
                let labels: Vec<_> = metric
                    .get_label()
                    .iter()
                    .map(|label| label.value().to_owned())
                    .collect();
                let value = metric.get_gauge().get_value();
                lines.push(format!("{} {} {value}", family.name(), labels.join(",")));
            }
        }
        lines.sort();
        lines
    };
    let head = |name: &str, role: &str| {
        let spec = serde_json::from_value(serde_json::json!({"role": role, "replicas": 0})).expect("a spec");
        let mut head = ChimeraHead::new(name, spec);
        head.metadata.namespace = Some("team".into());
        head
    };
    fleet.note(&head("q", "quantum"));
    fleet.note(&head("zero", "inference"));
    join(&fleet, "a");
    connect(&fleet, "a", 2);
    let inference = Demand {
        role: Some(Role::Inference),
        ..demand()
    };
    fleet
        .reserve(&run("runs", "ann", 0, 1), &demand())
        .expect("a place");
    let none = fleet
        .reserve(&run("waits", "ann", 0, 2), &inference)
        .err()
        .expect("no place");
    assert_eq!(none.why, controller_core::no_place::Why::ScaledToZero);
    assert_eq!(
        told(),
        [
            "chimera_head_places q,team 2",
            "chimera_head_places zero,team 0",
            "chimera_head_places_busy q,team 1",
            "chimera_head_places_busy zero,team 0",
            "chimera_head_places_wanted q,team 1",
            "chimera_head_places_wanted zero,team 1",
            "chimera_head_runs_waiting q,team 0",
            "chimera_head_runs_waiting zero,team 1",
            "chimera_queue_runs_waiting team,inference 1",
            "chimera_runs_waiting  1",
        ]
    );
    fleet.forget("team", "zero");
    fleet.stop_waiting("waits");
    assert!(
        told()
            .iter()
            .all(|line| !line.contains("zero") && !line.contains("inference")),
        "{:?}",
        told()
    );
}
