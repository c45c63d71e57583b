//! Why a run has no place, and what would help: one message for its condition, one row for each head that might have
//! taken it. No IO.

use std::collections::BTreeMap;

use api::maml_workflow::{CANDIDATES_LIMIT, Candidate, CandidateState};
use pep508_rs::pep440_rs::Version;

use crate::{
    demand::{Demand, Need},
    placement::{Group, HeadView, is_free},
};

/// What a head says that is asked to serve nobody.
const SCALED_TO_ZERO: &str = "spec.replicas is 0";

/// Why a run has no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Heads that suit exist, but none has room.
    Busy,
    /// Heads that suit exist, but none is ready.
    NotReady,
    /// Heads that suit exist, but are asked to serve nobody.
    ScaledToZero,
    /// No head suits, for want of GPUs among others.
    NoGpu,
    /// No head suits.
    NoMatch,
}

/// A run has no place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoPlace {
    /// Why.
    pub why: Why,
    /// For a person: what is missing and what would help.
    pub message: String,
    /// What each head of the namespace says to the run.
    pub candidates: Vec<Candidate>,
}

/// Says why none of these pods takes the run.
pub fn no_place(pods: &[HeadView], groups: &[Group], demand: &Demand) -> NoPlace {
    let needs = demand.needs();
    let pods: Vec<_> = pods
        .iter()
        .filter(|pod| pod.namespace == demand.namespace)
        .collect();
    let without_pods: Vec<_> = groups
        .iter()
        .filter(|group| group.view.namespace == demand.namespace)
        .filter(|group| !pods.iter().any(|pod| pod.head == group.view.head))
        .collect();
    let to_have_none = |pod: &HeadView| {
        let asked = groups
            .iter()
            .find(|group| group.view.namespace == pod.namespace && group.view.head == pod.head);
        asked.is_some_and(|group| group.replicas == 0)
    };
    let of_pods = pods
        .iter()
        .map(|pod| candidate(pod, state_of_pod(pod, to_have_none(pod), &needs), 1));
    let of_groups = without_pods
        .iter()
        .map(|group| candidate(&group.view, state_of_group(group, &needs), 0));
    let candidates = gathered(of_pods.chain(of_groups));
    let count = |state| {
        let of_state = candidates.iter().filter(|candidate| candidate.state == state);
        of_state.map(|candidate| candidate.pods.max(1)).sum::<i32>()
    };
    let (busy, unready) = (
        count(CandidateState::Busy),
        count(CandidateState::NotReady) + count(CandidateState::Spare),
    );
    let empty = candidates
        .iter()
        .find(|candidate| candidate.state == CandidateState::ScaledToZero);
    let (why, message) = if busy > 0 {
        let avoided = pods
            .iter()
            .filter(|pod| demand.tried.avoids(&pod.pod) && is_free(pod));
        let but = match avoided.count() {
            0 => String::new(),
            count => format!(", but for {count} that lost an attempt of this run a moment ago"),
        };
        (
            Why::Busy,
            format!("all {busy} suitable head pod(s) are busy{but}"),
        )
    } else if unready > 0 {
        let message = format!("{unready} suitable head pod(s), none of them ready");
        (Why::NotReady, message)
    } else if let Some(empty) = empty {
        let message = format!(
            "ChimeraHead {0} suits and is scaled to zero: kubectl scale head/{0} --replicas=1, or let an autoscaler do it",
            empty.head
        );
        (Why::ScaledToZero, message)
    } else {
        let views: Vec<_> = pods
            .iter()
            .copied()
            .chain(without_pods.iter().map(|group| &group.view))
            .collect();
        let lacks_gpu = needs
            .iter()
            .any(|need| matches!(need, Need::Gpus(_) | Need::Cuda(_)) && missing_everywhere(need, &views));
        let why = if lacks_gpu { Why::NoGpu } else { Why::NoMatch };
        (why, no_match(&views, demand, &needs))
    };
    NoPlace {
        why,
        message,
        candidates: candidates.into_iter().take(CANDIDATES_LIMIT).collect(),
    }
}

/// With `scaled_to_zero` it is a spare that nobody is to be served by, or goes.
fn state_of_pod(pod: &HeadView, scaled_to_zero: bool, needs: &[Need<'_>]) -> (CandidateState, String) {
    if let Some(lacks) = lacks(pod, needs) {
        (CandidateState::Unsuitable, lacks)
    } else if scaled_to_zero {
        (CandidateState::ScaledToZero, SCALED_TO_ZERO.to_owned())
    } else if !pod.ready {
        (CandidateState::NotReady, "its agent takes no runs yet".to_owned())
    } else if pod.spare {
        (CandidateState::Spare, "waits to replace a lost pod".to_owned())
    } else if is_free(pod) {
        let message = "lost an attempt of this run: another pod is waited for first";
        (CandidateState::Busy, message.to_owned())
    } else {
        (
            CandidateState::Busy,
            format!("all {} place(s) are taken", pod.capacity),
        )
    }
}

fn state_of_group(group: &Group, needs: &[Need<'_>]) -> (CandidateState, String) {
    if let Some(lacks) = lacks(&group.view, needs) {
        (CandidateState::Unsuitable, lacks)
    } else if group.replicas == 0 {
        (CandidateState::ScaledToZero, SCALED_TO_ZERO.to_owned())
    } else {
        (
            CandidateState::NotReady,
            "none of its pods is connected yet".to_owned(),
        )
    }
}

/// What the head lacks, in words; nothing when it suits.
fn lacks(head: &HeadView, needs: &[Need<'_>]) -> Option<String> {
    let lacks: Vec<_> = needs
        .iter()
        .filter_map(|need| Some(with_instead(need, &need.lacking(head)?)))
        .collect();
    (!lacks.is_empty()).then(|| format!("lacks {}", lacks.join(", ")))
}

fn with_instead(need: &Need<'_>, instead: &str) -> String {
    match (need, instead) {
        (_, "") => need.to_string(),
        // What is missing of a package repeats its name.
        (Need::Package(_), _) => format!("the package {instead}"),
        _ => format!("{need} ({instead})"),
    }
}

fn candidate(view: &HeadView, (state, message): (CandidateState, String), pods: i32) -> Candidate {
    Candidate {
        head: view.head.clone(),
        pods,
        state,
        message,
    }
}

/// One row for all pods of a head of which the same is to be said: those nearest to taking the run first.
fn gathered(all: impl Iterator<Item = Candidate>) -> Vec<Candidate> {
    let mut rows: BTreeMap<_, i32> = BTreeMap::new();
    for candidate in all {
        let key = (candidate.state, candidate.head, candidate.message);
        *rows.entry(key).or_default() += candidate.pods;
    }
    let rows = rows.into_iter().map(|((state, head, message), pods)| Candidate {
        head,
        pods,
        state,
        message,
    });
    rows.collect()
}

fn missing_everywhere(need: &Need<'_>, heads: &[&HeadView]) -> bool {
    heads.iter().all(|head| need.lacking(head).is_some())
}

fn no_match(heads: &[&HeadView], demand: &Demand, needs: &[Need<'_>]) -> String {
    let namespace = &demand.namespace;
    if heads.is_empty() {
        let with = match listed(needs).as_str() {
            "" => String::new(),
            needs => format!(" with {needs}"),
        };
        return format!("no head in namespace {namespace}: create a ChimeraHead{with} there");
    }
    let count = heads.len();
    let missing: Vec<_> = needs
        .iter()
        .filter(|need| missing_everywhere(need, heads))
        .copied()
        .collect();
    if missing.is_empty() {
        let nearest = heads
            .iter()
            .filter_map(|head| Some((head, lacks(head, needs)?)))
            .min_by_key(|(head, _)| {
                let lacking = needs.iter().filter(|need| need.lacking(head).is_some());
                (lacking.count(), &head.head)
            });
        let nearest = nearest.map_or(String::new(), |(head, lacks)| format!(": {} {lacks}", head.head));
        return format!(
            "none of {count} head pod(s) in namespace {namespace} offers all that the document requires at once{nearest}"
        );
    }
    let offers: Vec<_> = missing
        .iter()
        .map(|need| with_instead(need, &nearest_instead(need, heads)))
        .collect();
    format!(
        "none of {count} head pod(s) in namespace {namespace} offers {}; a ChimeraHead with {} would",
        offers.join(", "),
        listed(&missing)
    )
}

fn listed(needs: &[Need<'_>]) -> String {
    let needs: Vec<_> = needs.iter().map(ToString::to_string).collect();
    needs.join(", ")
}

/// What the head that comes nearest to the need has instead.
fn nearest_instead(need: &Need<'_>, heads: &[&HeadView]) -> String {
    let offer = |head: &HeadView| head.offer.as_deref().cloned().unwrap_or_default();
    let heads = heads.iter().copied();
    let nearest = match need {
        // There is no nearer or farther.
        Need::Role(_) | Need::Label(..) | Need::Allowed(_) => None,
        Need::Gpus(_) => heads.max_by_key(|head| head.gpus),
        Need::Cuda(_) => heads.max_by_key(|head| offer(head).cuda.parse::<Version>().ok()),
        Need::Memory(_) => heads.max_by_key(|head| offer(head).memory_bytes),
        Need::Qubits(_) => heads.max_by_key(|head| {
            let simulates = Need::Qubits(0).lacking(head).is_none();
            (simulates, offer(head).memory_bytes)
        }),
        Need::Language(_) | Need::Package(_) => heads.min_by(|a, b| a.pod.cmp(&b.pod)),
    };
    nearest.and_then(|head| need.lacking(head)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use api::Role;

    use super::*;
    use crate::placement::{
        Offer,
        tests::{demand, head, offer, place},
    };

    fn refused(pods: &[HeadView], groups: &[Group], demand: &Demand) -> NoPlace {
        place(pods, groups, demand).expect_err("there is no place")
    }

    fn with_offer(pod: &str, change: impl FnOnce(&mut Offer)) -> HeadView {
        let mut head = head(pod, Role::Quantum);
        change(Arc::make_mut(head.offer.as_mut().expect("it has told")));
        head
    }

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn each_need_that_nobody_meets_is_named_with_the_nearest_offer_and_what_would_help() {
        let heads = [
            with_offer("a", |offer| offer.cuda = "12.8".into()),
            with_offer("b", |offer| {
                (offer.cuda, offer.memory_bytes) = ("12.2".into(), 2 << 30);
            }),
        ];
        for (demand, expected) in [
            (
                Demand {
                    cuda: Some(">=13".into()),
                    ..demand()
                },
                "offers CUDA >=13 (newest is 12.8); a ChimeraHead with CUDA >=13 would",
            ),
            (
                Demand {
                    memory_bytes: Some(16 << 30),
                    packages: words(&["numpy>=99", "numpy"]),
                    ..demand()
                },
                "offers 16 GiB of memory (its runs may use 2 GiB), the package numpy>=99 (installed is 2.3.1); \
                 a ChimeraHead with 16 GiB of memory, the package numpy>=99 would",
            ),
            (
                Demand {
                    role: Some(Role::Crypto),
                    languages: words(&["javascript", "python", "ortac"]),
                    ..demand()
                },
                "offers role crypto, the language javascript, ortac, which the document's verification needs; \
                 a ChimeraHead with role crypto, the language javascript, ortac, which the document's verification needs would",
            ),
        ] {
            let message = refused(&heads, &[], &demand).message;
            let whole = format!("none of 2 head pod(s) in namespace team {expected}");
            assert_eq!(message, whole);
        }
    }

    #[test]
    fn needs_that_no_single_head_meets_at_once_are_said_to_be_that() {
        let mut torch = head("torch", Role::Quantum);
        torch.head = "t".into();
        torch.offer = Some(offer(&["python"], &[("torch", "2.9.0")]));
        let demand = Demand {
            packages: words(&["numpy>=2", "torch"]),
            ..demand()
        };
        let message = refused(&[torch, head("numpy", Role::Quantum)], &[], &demand).message;
        assert!(
            message.ends_with(
                "offers all that the document requires at once: h lacks the package torch (not installed)"
            ),
            "{message}"
        );
    }

    #[test]
    fn what_only_some_heads_lack_is_not_the_reason() {
        let mut busy = head("a", Role::Quantum);
        busy.running = 2;
        let other = head("b", Role::Crypto);
        let demand = Demand {
            role: Some(Role::Quantum),
            ..demand()
        };
        let no = refused(&[busy, other], &[], &demand);
        assert_eq!(
            (no.why, no.message.as_str()),
            (Why::Busy, "all 1 suitable head pod(s) are busy")
        );
    }

    #[test]
    fn every_head_says_what_it_has_against_the_run_the_nearest_first() {
        let mut busy = head("a", Role::Quantum);
        busy.running = 2;
        let mut spare = head("b", Role::Quantum);
        spare.spare = true;
        let mut cold = head("c", Role::Quantum);
        cold.ready = false;
        let mut other = head("d", Role::Crypto);
        other.head = "c".into();
        let demand = Demand {
            role: Some(Role::Quantum),
            ..demand()
        };
        let mut twice = busy.clone();
        twice.pod = "e".into();
        let rows: Vec<_> = refused(&[other, cold, spare, busy, twice], &[], &demand)
            .candidates
            .into_iter()
            .map(|row| (row.state, row.head, row.pods, row.message))
            .collect();
        let row = |state, head: &str, pods, message: &str| (state, head.to_owned(), pods, message.to_owned());
        assert_eq!(
            rows,
            [
                row(CandidateState::Busy, "h", 2, "all 2 place(s) are taken"),
                row(CandidateState::Spare, "h", 1, "waits to replace a lost pod"),
                row(CandidateState::NotReady, "h", 1, "its agent takes no runs yet"),
                row(
                    CandidateState::Unsuitable,
                    "c",
                    1,
                    "lacks role quantum (it is crypto)"
                ),
            ]
        );
    }

    #[test]
    fn a_head_without_pods_that_would_suit_is_said_to_be_scaled_to_zero_or_not_ready() {
        let group = |replicas| Group {
            view: HeadView {
                ready: false,
                capacity: 0,
                offer: None,
                ..head("", Role::Inference)
            },
            replicas,
        };
        let inference = Demand {
            role: Some(Role::Inference),
            ..demand()
        };
        let empty = refused(&[], &[group(0)], &inference);
        assert_eq!(empty.why, Why::ScaledToZero);
        assert!(
            empty.message.contains("kubectl scale head/h"),
            "{}",
            empty.message
        );
        assert_eq!(refused(&[], &[group(1)], &inference).why, Why::NotReady);
        let quantum = Demand {
            role: Some(Role::Quantum),
            ..demand()
        };
        assert_eq!(refused(&[], &[group(0)], &quantum).why, Why::NoMatch);
        // What its last pod offered is remembered.
        let mut known = group(0);
        known.view.offer = Some(offer(&["python"], &[]));
        let torch = Demand {
            packages: words(&["torch"]),
            ..inference
        };
        assert_eq!(refused(&[], &[known], &torch).why, Why::NoMatch);
        assert_eq!(refused(&[], &[group(0)], &torch).why, Why::ScaledToZero);
    }

    #[test]
    fn the_spares_and_the_last_pods_of_a_head_at_zero_are_not_waited_for() {
        let at_zero = |replicas| Group {
            view: HeadView {
                offer: None,
                ..head("", Role::Quantum)
            },
            replicas,
        };
        let spare = HeadView {
            spare: true,
            ..head("spare", Role::Quantum)
        };
        let last = HeadView {
            ready: false,
            running: 1,
            ..head("last", Role::Quantum)
        };
        for pods in [vec![spare.clone()], vec![last.clone()], vec![spare.clone(), last]] {
            let none = refused(&pods, &[at_zero(0)], &demand());
            assert_eq!(none.why, Why::ScaledToZero, "{none:?}");
            assert!(
                none.message.contains("kubectl scale head/h --replicas=1"),
                "{none:?}"
            );
            assert!(
                none.candidates
                    .iter()
                    .all(|row| row.state == CandidateState::ScaledToZero)
            );
        }
        assert_eq!(
            refused(std::slice::from_ref(&spare), &[at_zero(1)], &demand()).why,
            Why::NotReady
        );
        // Another head that suits is waited for, or its turn.
        let busy = HeadView {
            head: "other".into(),
            running: 2,
            ..head("busy", Role::Quantum)
        };
        assert_eq!(refused(&[spare, busy], &[at_zero(0)], &demand()).why, Why::Busy);
    }

    #[test]
    fn an_empty_namespace_is_told_what_to_create() {
        let demand = Demand { gpus: 1, ..demand() };
        let no = refused(&[], &[], &demand);
        assert_eq!(
            no.message,
            "no head in namespace team: create a ChimeraHead with 1 GPU(s) there"
        );
        assert_eq!((no.why, no.candidates.len()), (Why::NoGpu, 0));
    }
}
