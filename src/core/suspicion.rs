//! Whether a head is to blame for the runs that fail on it: three different documents that fail alike on one pod and
//! nowhere else. No IO.
//!
//! A user's error fails wherever it is run, and one user may send many broken documents to the same pod, so a failure that
//! could be the program's own doing counts only where the same document has succeeded on another pod. Time-outs, limits and
//! outputs that break their schema never count.

use std::collections::{BTreeSet, VecDeque};

use api::reasons;

/// How many different documents must fail alike.
const DOCUMENTS: usize = 3;
/// How many runs are remembered.
const REMEMBERED: usize = 512;

/// Failures of the head itself.
const OF_THE_HEAD: [&str; 3] = [
    reasons::INTERPRETER_LOST,
    reasons::SANDBOX_FAILED,
    reasons::ATTESTATION_INVALID,
];
/// Failures that a program can bring about, and a head too.
const OF_EITHER: [&str; 4] = [
    reasons::PROGRAM_FAILED,
    reasons::INTERPRETER_EXITED,
    reasons::PROGRAM_KILLED,
    reasons::OUTPUTS_UNREADABLE,
];

/// How a run ended on a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// UID of the pod.
    pub pod_uid: String,
    /// SHA-256 of the document.
    pub document: String,
    /// One of [`api::reasons`]; none when it succeeded.
    pub failure: Option<&'static str>,
}

/// The latest runs.
#[derive(Debug, Default)]
pub struct Suspicion {
    runs: VecDeque<Ended>,
}

impl Suspicion {
    /// Notes a run. If its pod is to blame for it and for others, why; those are forgotten then.
    pub fn note(&mut self, run: Ended) -> Option<String> {
        if self.runs.len() == REMEMBERED {
            self.runs.pop_front();
        }
        let (pod_uid, failure) = (run.pod_uid.clone(), run.failure);
        self.runs.push_back(run);
        let reason = failure?;
        let documents = blamed(self.runs.make_contiguous(), &pod_uid, reason);
        if documents < DOCUMENTS {
            return None;
        }
        self.runs.retain(|run| run.pod_uid != pod_uid);
        Some(format!(
            "{documents} different documents failed here with {reason} and nowhere else"
        ))
    }
}

/// How many documents failed on this pod for this reason since a document last succeeded there, and did not fail so on
/// another pod.
fn blamed(runs: &[Ended], pod_uid: &str, reason: &'static str) -> usize {
    if !OF_THE_HEAD.contains(&reason) && !OF_EITHER.contains(&reason) {
        return 0;
    }
    let elsewhere = |document: &str, failure: Option<&str>| {
        runs.iter()
            .any(|run| run.pod_uid != pod_uid && run.document == document && run.failure == failure)
    };
    let here = runs.iter().rev().filter(|run| run.pod_uid == pod_uid);
    let documents: BTreeSet<_> = here
        .take_while(|run| run.failure.is_some())
        .filter(|run| run.failure == Some(reason))
        .map(|run| run.document.as_str())
        .collect();
    let is_the_heads = |document: &&str| {
        !elsewhere(document, Some(reason)) && (OF_THE_HEAD.contains(&reason) || elsewhere(document, None))
    };
    documents.into_iter().filter(is_the_heads).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(pod: &str, document: &str, failure: Option<&'static str>) -> Ended {
        Ended {
            pod_uid: pod.to_owned(),
            document: document.to_owned(),
            failure,
        }
    }

    /// Whether the last of these runs makes its pod suspect.
    fn is_suspect(runs: &[(&str, &str, Option<&'static str>)]) -> bool {
        let mut suspicion = Suspicion::default();
        let told: Vec<_> = runs
            .iter()
            .map(|(pod, document, failure)| suspicion.note(ended(pod, document, *failure)).is_some())
            .collect();
        let (last, others) = told.split_last().expect("a run");
        assert!(!others.contains(&true), "suspected too early: {told:?}");
        *last
    }

    #[test]
    fn three_different_documents_that_fail_alike_on_one_pod_make_it_suspect() {
        let lost = Some(reasons::INTERPRETER_LOST);
        assert!(is_suspect(&[
            ("a", "1", lost),
            ("a", "2", lost),
            ("a", "3", lost)
        ]));
        assert!(!is_suspect(&[
            ("a", "1", lost),
            ("a", "1", lost),
            ("a", "1", lost)
        ]));
        assert!(!is_suspect(&[
            ("a", "1", lost),
            ("b", "2", lost),
            ("a", "3", lost)
        ]));
        let other = Some(reasons::SANDBOX_FAILED);
        assert!(!is_suspect(&[
            ("a", "1", lost),
            ("a", "2", other),
            ("a", "3", lost)
        ]));
    }

    #[test]
    fn what_fails_elsewhere_too_is_the_documents_fault() {
        let lost = Some(reasons::INTERPRETER_LOST);
        assert!(!is_suspect(&[
            ("b", "1", lost),
            ("a", "1", lost),
            ("a", "2", lost),
            ("a", "3", lost)
        ]));
    }

    #[test]
    fn a_success_in_between_speaks_for_the_pod() {
        let lost = Some(reasons::INTERPRETER_LOST);
        assert!(!is_suspect(&[
            ("a", "1", lost),
            ("a", "2", lost),
            ("a", "9", None),
            ("a", "3", lost)
        ]));
    }

    #[test]
    fn users_errors_alone_never_make_a_pod_suspect() {
        for reason in [
            reasons::PROGRAM_FAILED,
            reasons::TIMED_OUT,
            reasons::OUT_OF_MEMORY,
            reasons::INTERPRETER_EXITED,
            reasons::OUTPUTS_INVALID,
            reasons::OUTPUT_LIMIT_EXCEEDED,
            reasons::CANCELLED,
            reasons::VERIFICATION_FAILED,
        ] {
            let documents: Vec<_> = (0..100).map(|index| index.to_string()).collect();
            let runs: Vec<_> = documents
                .iter()
                .map(|document| ("a", document.as_str(), Some(reason)))
                .collect();
            assert!(!is_suspect(&runs), "{reason}");
        }
    }

    #[test]
    fn documents_that_succeed_elsewhere_and_fail_here_make_the_pod_suspect() {
        let failed = Some(reasons::PROGRAM_FAILED);
        let mut runs = vec![("b", "1", None), ("b", "2", None), ("b", "3", None)];
        runs.extend([("a", "1", failed), ("a", "2", failed), ("a", "3", failed)]);
        assert!(is_suspect(&runs));
        let late = Some(reasons::TIMED_OUT);
        let mut slow = vec![("b", "1", None), ("b", "2", None), ("b", "3", None)];
        slow.extend([("a", "1", late), ("a", "2", late), ("a", "3", late)]);
        assert!(!is_suspect(&slow));
    }

    #[test]
    fn memory_is_bounded() {
        let mut suspicion = Suspicion::default();
        for index in 0..10 * REMEMBERED {
            suspicion.note(ended("a", &index.to_string(), Some(reasons::PROGRAM_FAILED)));
        }
        assert_eq!(suspicion.runs.len(), REMEMBERED);
    }
}
