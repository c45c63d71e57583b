//! Where a run goes: the choice of a head, from what is known of all heads. No IO, no clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{Isolation, Role};

use crate::demand::Demand;

/// What is known of one head pod.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadView {
    /// UID of the pod.
    pub pod_uid: String,
    /// Name of the pod.
    pub pod: String,
    /// Namespace of pod and ChimeraHead: a head serves its own namespace only.
    pub namespace: String,
    /// Name of the ChimeraHead.
    pub head: String,
    /// The ChimeraHead's labels, for `spec.headSelector`.
    pub labels: BTreeMap<String, String>,
    /// Role of the ChimeraHead.
    pub role: Role,
    /// Node that the pod runs on.
    pub node: Option<String>,
    /// Spares take no runs until they are promoted.
    pub spare: bool,
    /// Whether the agent takes runs: connected, interpreters warm, not draining.
    pub ready: bool,
    /// Runs that fit at once.
    pub capacity: u32,
    /// Runs under way.
    pub running: u32,
    /// UUIDs of its GPU devices.
    pub devices: Vec<String>,
    /// How many of its devices are healthy.
    pub gpus: u32,
    /// What its interpreter offers; unknown until its agent has told.
    pub offer: Option<Arc<Offer>>,
}

/// What a head offers documents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offer {
    /// Languages of blocks that it runs.
    pub languages: Vec<String>,
    /// The interpreter, such as `CPython 3.13.5`.
    pub interpreter: String,
    /// Installed Python distributions by normalised name, to versions.
    pub packages: BTreeMap<String, String>,
    /// The newest CUDA that its driver runs; empty when unknown.
    pub cuda: String,
    /// Bytes of memory that one run may use; 0 when unknown.
    pub memory_bytes: u64,
}

/// What is known of a ChimeraHead, whether or not it has pods.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// A pod of it as far as it is known beforehand: role and labels from the object, devices as its spec asks for, and
    /// what its last pod offered.
    pub view: HeadView,
    /// `spec.replicas`.
    pub replicas: i32,
}

/// Whether a head meets every need of a run, as far as it has told.
pub fn meets(head: &HeadView, demand: &Demand) -> bool {
    head.namespace == demand.namespace && demand.needs().iter().all(|need| need.lacking(head).is_none())
}

/// Whether a run may have a place on this pod beside others.
pub fn suits(head: &HeadView, demand: &Demand) -> bool {
    demand.isolation == Isolation::Process && meets(head, demand)
}

/// Chooses a free pod that suits: one that has lost no attempt of the run, else the one whose loss is longest ago; of several
/// the least loaded, and the first by name among equals. Gives its UID.
pub fn choose<'a>(pods: &'a [HeadView], demand: &Demand) -> Option<&'a str> {
    let free = pods
        .iter()
        .filter(|pod| is_free(pod) && suits(pod, demand) && !is_avoided(pod, demand, pods));
    // Load as a fraction, compared without division: running / capacity.
    let least = free.min_by(|a, b| {
        let left = u64::from(a.running) * u64::from(b.capacity);
        let right = u64::from(b.running) * u64::from(a.capacity);
        let lately = |pod: &HeadView| demand.tried.lately(&pod.pod);
        (lately(a), left, &a.pod).cmp(&(lately(b), right, &b.pod))
    });
    least.map(|pod| pod.pod_uid.as_str())
}

/// Whether a place elsewhere is rather waited for: the pod has just lost an attempt of the run, and another one, be it busy,
/// takes such runs. A pod on which everything fails at once is always the least loaded one.
pub fn is_avoided(pod: &HeadView, demand: &Demand, pods: &[HeadView]) -> bool {
    let others = || {
        pods.iter()
            .filter(|other| demand.tried.lately(&other.pod).is_none())
    };
    demand.tried.avoids(&pod.pod) && others().any(|other| other.ready && !other.spare && suits(other, demand))
}

/// Whether the pod can take one more run.
pub fn is_free(pod: &HeadView) -> bool {
    pod.ready && !pod.spare && pod.running < pod.capacity
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::demand::Tried;
    use crate::no_place::{NoPlace, Why, no_place};

    pub fn offer(languages: &[&str], packages: &[(&str, &str)]) -> Arc<Offer> {
        let packages = packages
            .iter()
            .map(|&(name, version)| (name.to_owned(), version.to_owned()));
        Arc::new(Offer {
            languages: languages.iter().map(|&language| language.to_owned()).collect(),
            interpreter: "CPython 3.13.5".to_owned(),
            packages: packages.collect(),
            ..Offer::default()
        })
    }

    pub fn head(pod: &str, role: Role) -> HeadView {
        HeadView {
            pod_uid: format!("uid-{pod}"),
            pod: pod.to_owned(),
            namespace: "team".to_owned(),
            head: "h".to_owned(),
            labels: BTreeMap::new(),
            role,
            node: None,
            spare: false,
            ready: true,
            capacity: 2,
            running: 0,
            devices: Vec::new(),
            gpus: 0,
            offer: Some(offer(&["python", "bash"], &[("numpy", "2.3.1")])),
        }
    }

    /// Asks for nothing.
    pub fn demand() -> Demand {
        Demand {
            namespace: "team".to_owned(),
            role: None,
            labels: BTreeMap::new(),
            allowed: Role::ALL.to_vec(),
            gpus: 0,
            languages: Vec::new(),
            packages: Vec::new(),
            cuda: None,
            memory_bytes: None,
            qubits: None,
            isolation: api::Isolation::Process,
            tried: Tried::default(),
        }
    }

    /// As the controller asks.
    pub fn place(pods: &[HeadView], groups: &[Group], demand: &Demand) -> Result<String, NoPlace> {
        let chosen = choose(pods, demand).map(ToOwned::to_owned);
        chosen.ok_or_else(|| no_place(pods, groups, demand))
    }

    fn why(heads: &[HeadView], demand: &Demand) -> Why {
        place(heads, &[], demand).expect_err("there is no place").why
    }

    #[test]
    fn the_least_loaded_head_is_chosen_and_the_first_by_name_among_equals() {
        let mut heads = vec![head("b", Role::Quantum), head("a", Role::Quantum)];
        assert_eq!(place(&heads, &[], &demand()), Ok("uid-a".into()));
        heads[1].running = 1;
        assert_eq!(place(&heads, &[], &demand()), Ok("uid-b".into()));
        heads[0].running = 2;
        heads[1].running = 2;
        assert_eq!(why(&heads, &demand()), Why::Busy);
    }

    /// After losses on these pods, so many seconds ago.
    fn retry(pods: &[&str], seconds_ago: i64) -> Demand {
        let time = jiff::Timestamp::from_second(1_000).expect("in range");
        let lost = pods
            .iter()
            .zip(1..)
            .map(|(pod, attempt)| api::maml_workflow::LostAttempt {
                attempt,
                head: Some("h".into()),
                pod: Some((*pod).into()),
                reason: api::reasons::HEAD_LOST.into(),
                message: None,
                time,
            });
        let now = jiff::Timestamp::from_second(1_000 + seconds_ago).expect("in range");
        let tried = Tried::of(&lost.collect::<Vec<_>>(), now);
        Demand { tried, ..demand() }
    }

    #[test]
    fn a_pod_that_lost_an_attempt_is_the_last_resort_for_the_next() {
        let mut heads = vec![head("a", Role::Quantum), head("b", Role::Quantum)];
        heads[1].running = 1;
        assert_eq!(
            place(&heads, &[], &retry(&["a"], 0)),
            Ok("uid-b".into()),
            "however loaded"
        );
        assert_eq!(
            place(&heads, &[], &retry(&["b", "a"], 0)),
            Ok("uid-b".into()),
            "longest ago"
        );
        assert_eq!(place(&heads, &[], &retry(&["a", "b"], 0)), Ok("uid-a".into()));
        heads[1].running = 2;
        let none = place(&heads, &[], &retry(&["a"], 0)).expect_err("another one is waited for");
        assert_eq!(none.why, Why::Busy);
        assert!(none.message.contains("lost an attempt"), "{}", none.message);
        assert_eq!(
            place(&heads, &[], &retry(&["a"], 30)),
            Ok("uid-a".into()),
            "but not for ever"
        );
        for unusable in [
            HeadView {
                ready: false,
                ..heads[1].clone()
            },
            HeadView {
                spare: true,
                ..heads[1].clone()
            },
            HeadView {
                namespace: "other".into(),
                ..heads[1].clone()
            },
        ] {
            let heads = [heads[0].clone(), unusable];
            assert_eq!(
                place(&heads, &[], &retry(&["a"], 0)),
                Ok("uid-a".into()),
                "{heads:?}"
            );
        }
    }

    #[test]
    fn heads_of_another_namespace_are_never_used() {
        let mut other = head("a", Role::Quantum);
        other.namespace = "other".into();
        assert_eq!(why(&[other], &demand()), Why::NoMatch);
    }

    #[test]
    fn only_allowed_roles_are_used() {
        let heads = vec![head("q", Role::Quantum), head("o", Role::Orchestrator)];
        for (allowed, expected) in [
            (&[Role::Quantum][..], Some("uid-q")),
            (&[Role::Orchestrator], Some("uid-o")),
            (&[Role::Inference], None),
            (&[], None),
        ] {
            let demand = Demand {
                allowed: allowed.to_vec(),
                ..demand()
            };
            assert_eq!(
                place(&heads, &[], &demand).ok().as_deref(),
                expected,
                "{allowed:?}"
            );
        }
    }

    #[test]
    fn role_labels_and_gpus_must_all_match() {
        let mut gpu = head("gpu", Role::Inference);
        (gpu.devices, gpu.gpus) = (vec!["GPU-1".into()], 1);
        gpu.labels.insert("zone".into(), "a".into());
        let heads = vec![head("cpu", Role::Inference), gpu];
        let one = Demand { gpus: 1, ..demand() };
        let labelled = Demand {
            labels: BTreeMap::from([("zone".to_owned(), "a".to_owned())]),
            ..demand()
        };
        for demand in [&one, &labelled] {
            assert_eq!(place(&heads, &[], demand), Ok("uid-gpu".into()));
        }
        let quantum = Demand {
            role: Some(Role::Quantum),
            ..demand()
        };
        assert_eq!(why(&heads, &quantum), Why::NoMatch);
        let two = Demand { gpus: 2, ..demand() };
        assert_eq!(why(&heads, &two), Why::NoGpu);
    }

    #[test]
    fn a_document_goes_where_all_its_languages_are_run_and_its_packages_installed() {
        let mut node = head("node", Role::Quantum);
        node.offer = Some(offer(
            &["python", "javascript"],
            &[("torch", "2.9.0"), ("numpy", "1.26.4")],
        ));
        let heads = vec![head("bash", Role::Quantum), node];
        for (languages, packages, expected) in [
            (&["python"][..], &[][..], Some("uid-bash")),
            (&["python", "javascript"], &[], Some("uid-node")),
            (&["bash", "javascript"], &[], None),
            (&[], &["numpy>=2"], Some("uid-bash")),
            (&[], &["numpy", "torch>=2,<3"], Some("uid-node")),
            (&["bash"], &["torch"], None),
        ] {
            let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
            let demand = Demand {
                languages: owned(languages),
                packages: owned(packages),
                ..demand()
            };
            assert_eq!(
                place(&heads, &[], &demand).ok().as_deref(),
                expected,
                "{languages:?} {packages:?}"
            );
        }
    }

    #[test]
    fn spares_and_heads_that_are_not_ready_take_no_runs() {
        let mut spare = head("spare", Role::Quantum);
        spare.spare = true;
        let mut cold = head("cold", Role::Quantum);
        cold.ready = false;
        assert_eq!(why(&[spare, cold], &demand()), Why::NotReady);
        let mut unknown = head("unknown", Role::Quantum);
        (unknown.offer, unknown.ready) = (None, false);
        let demand = Demand {
            languages: vec!["javascript".to_owned()],
            ..demand()
        };
        assert_eq!(why(&[unknown], &demand), Why::NotReady, "it has not told yet");
    }
}
