//! Whether a head is to blame for the runs that fail on it: three different documents that fail alike on one pod and
//! nowhere else, or three runs of whatever documents that fail there by the head's own word and succeed elsewhere. No IO.
//!
//! A user's error fails wherever it is run, and one user may send many broken documents to the same pod, so a failure that
//! could be the program's own doing counts only where the same document has succeeded on another pod. Time-outs, limits and
//! outputs that break their schema never count.

use std::collections::{BTreeSet, VecDeque};

use api::reasons;

/// How many different documents, or runs, must fail alike.
const ENOUGH: usize = 3;
/// How many attempts are remembered.
const REMEMBERED: usize = 512;

/// Failures of the head itself, which no program can bring about.
const OF_THE_HEAD: [&str; 3] = [
    reasons::INTERPRETER_LOST,
    reasons::SANDBOX_FAILED,
    reasons::ATTESTATION_INVALID,
];
/// Failures of the head or of who asks it, as of the clock of either: an agent that refuses grants or does not answer.
const OF_THE_HEAD_OR_OPERATOR: [&str; 2] = [reasons::GRANT_REFUSED, reasons::HEAD_LOST];
/// Failures that a program can bring about, and a head too.
const OF_EITHER: [&str; 4] = [
    reasons::PROGRAM_FAILED,
    reasons::INTERPRETER_EXITED,
    reasons::PROGRAM_KILLED,
    reasons::OUTPUTS_UNREADABLE,
];

/// How an attempt ended on a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// UID of the pod.
    pub pod_uid: String,
    /// Names the run: the same for all of its attempts.
    pub run: String,
    /// SHA-256 of the document.
    pub document: String,
    /// One of [`api::reasons`]; none when it succeeded.
    pub failure: Option<&'static str>,
}

/// A pod that is to blame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suspect {
    /// UID of the pod.
    pub pod_uid: String,
    /// Why, for a person.
    pub why: String,
}

/// The latest attempts.
#[derive(Debug, Default)]
pub struct Suspicion {
    ended: VecDeque<Ended>,
}

impl Suspicion {
    /// Notes an attempt. If a pod is to blame for it and for others, which, and why; those are forgotten then.
    pub fn note(&mut self, ended: Ended) -> Option<Suspect> {
        if self.ended.len() == REMEMBERED {
            self.ended.pop_front();
        }
        let document = ended.document.clone();
        let candidates = if ended.failure.is_some() {
            vec![ended.clone()]
        } else {
            // What has succeeded here may speak against those pods on which it failed.
            let failed = |known: &&Ended| known.document == document && known.failure.is_some();
            self.ended.iter().filter(failed).cloned().collect()
        };
        self.ended.push_back(ended);
        let all = &*self.ended.make_contiguous();
        let suspect = candidates
            .iter()
            .find_map(|failed| blame(all, &failed.pod_uid, failed.failure?))?;
        self.ended.retain(|known| known.pod_uid != suspect.pod_uid);
        Some(suspect)
    }
}

/// Whether this pod is to blame for attempts that ended for this reason since one last succeeded there.
fn blame(all: &[Ended], pod_uid: &str, reason: &'static str) -> Option<Suspect> {
    let of_the_head = OF_THE_HEAD.contains(&reason);
    let runs_count = of_the_head || OF_THE_HEAD_OR_OPERATOR.contains(&reason);
    if !runs_count && !OF_EITHER.contains(&reason) {
        return None;
    }
    let elsewhere = |document: &str, failure: Option<&str>| {
        all.iter()
            .any(|known| known.pod_uid != pod_uid && known.document == document && known.failure == failure)
    };
    let here = all.iter().rev().filter(|known| known.pod_uid == pod_uid);
    let failed: Vec<_> = here
        .take_while(|known| known.failure.is_some())
        .filter(|known| known.failure == Some(reason) && !elsewhere(&known.document, Some(reason)))
        .map(|known| (known, elsewhere(&known.document, None)))
        .collect();
    let documents: BTreeSet<_> = failed
        .iter()
        .filter(|(_, succeeded)| of_the_head || *succeeded)
        .map(|(known, _)| &known.document)
        .collect();
    let runs: BTreeSet<_> = failed
        .iter()
        .filter(|(_, succeeded)| runs_count && *succeeded)
        .map(|(known, _)| &known.run)
        .collect();
    let why = if documents.len() >= ENOUGH {
        let count = documents.len();
        format!("{count} different documents failed here with {reason} and nowhere else")
    } else if runs.len() >= ENOUGH {
        let count = runs.len();
        format!("{count} runs failed here with {reason}, whose documents succeeded elsewhere")
    } else {
        return None;
    };
    Some(Suspect {
        pod_uid: pod_uid.to_owned(),
        why,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An attempt of a run of its own.
    fn ended(pod: &str, document: &str, failure: Option<&'static str>) -> Ended {
        attempt(pod, document, document, failure)
    }

    fn attempt(pod: &str, run: &str, document: &str, failure: Option<&'static str>) -> Ended {
        Ended {
            pod_uid: pod.to_owned(),
            run: run.to_owned(),
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
    fn runs_of_one_document_that_the_head_fails_and_others_carry_out_make_it_suspect() {
        for reason in [
            reasons::INTERPRETER_LOST,
            reasons::SANDBOX_FAILED,
            reasons::GRANT_REFUSED,
            reasons::HEAD_LOST,
        ] {
            let mut suspicion = Suspicion::default();
            let mut run = |run: &str, elsewhere| {
                let failed = suspicion.note(attempt("a", run, "1", Some(reason)));
                failed.or_else(|| suspicion.note(attempt("b", run, "1", elsewhere)))
            };
            assert_eq!(
                (run("x", None), run("y", None), run("x", None)),
                (None, None, None)
            );
            let suspect = run("z", None).expect("three runs");
            assert_eq!(suspect.pod_uid, "a", "{reason}");
            assert!(suspect.why.starts_with("3 runs"), "{}", suspect.why);
        }
    }

    #[test]
    fn a_success_elsewhere_that_comes_after_the_failures_speaks_against_the_pod_too() {
        let mut suspicion = Suspicion::default();
        for run in ["x", "y", "z"] {
            assert_eq!(
                suspicion.note(attempt("a", run, "1", Some(reasons::GRANT_REFUSED))),
                None
            );
        }
        let suspect = suspicion
            .note(attempt("b", "x", "1", None))
            .expect("a is to blame");
        assert_eq!(suspect.pod_uid, "a");
    }

    #[test]
    fn what_the_operator_may_be_to_blame_for_counts_only_where_others_did_better() {
        for reason in [reasons::GRANT_REFUSED, reasons::HEAD_LOST] {
            let runs: Vec<_> = ["1", "2", "3", "4"]
                .map(|document| ("a", document, Some(reason)))
                .into();
            assert!(!is_suspect(&runs), "{reason}");
        }
    }

    #[test]
    fn runs_of_one_document_whose_own_error_it_may_be_never_make_a_pod_suspect() {
        for reason in [
            reasons::PROGRAM_FAILED,
            reasons::PROGRAM_KILLED,
            reasons::TIMED_OUT,
        ] {
            let mut suspicion = Suspicion::default();
            for run in 0..20 {
                let run = run.to_string();
                assert_eq!(suspicion.note(attempt("a", &run, "flaky", Some(reason))), None);
                assert_eq!(suspicion.note(attempt("b", &run, "flaky", None)), None);
            }
        }
    }

    #[test]
    fn memory_is_bounded() {
        let mut suspicion = Suspicion::default();
        for index in 0..10 * REMEMBERED {
            suspicion.note(ended("a", &index.to_string(), Some(reasons::PROGRAM_FAILED)));
        }
        assert_eq!(suspicion.ended.len(), REMEMBERED);
    }
}
