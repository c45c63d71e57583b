//! Claims of heads that no status tells of yet. They are kept in the Lease.
//!
//! A head is claimed before it is asked for a run, so that whoever leads next asks the same head and no other. Most runs are
//! over before anybody could read that in their status: so a claim is written where that costs least and fences best. The
//! Lease can be written by its holder alone, one write takes all the claims that came while the last one was under way, and
//! who acquires the Lease reads in the same object what its predecessor had begun. A claim leaves when the status of its
//! workflow tells of it, or of the end of its run.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use controller_core::claim::Claim;
use tokio::sync::{Notify, watch};

/// More would make each write of the Lease dearer than a status.
const MOST: usize = 64;

/// A claim, and the revision of the claims with which it came.
struct Entry {
    claim: Claim,
    revision: u64,
}

#[derive(Default)]
struct State {
    /// By the UID of the workflow.
    entries: BTreeMap<String, Entry>,
    /// Grows with every claim.
    revision: u64,
}

/// The claims of this process, and those of its predecessor that are not settled.
pub struct Claims {
    state: Mutex<State>,
    added: Notify,
    /// The revision that the Lease has.
    written: watch::Sender<u64>,
}

/// The annotation of the Lease cannot be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "annotation {} of the Lease cannot be read; what its holder had begun is not known. Remove the annotation to have \
     those runs begin again",
    api::names::CLAIMS_ANNOTATION
)]
pub struct Unreadable(#[from] serde_json::Error);

impl Claims {
    /// Those that a predecessor left in the Lease.
    pub fn inherited(text: Option<&str>) -> Result<Self, Unreadable> {
        let left: BTreeMap<String, Claim> = text.map(serde_json::from_str).transpose()?.unwrap_or_default();
        let entries = left
            .into_iter()
            .map(|(uid, claim)| (uid, Entry { claim, revision: 0 }));
        Ok(Self {
            state: Mutex::new(State {
                entries: entries.collect(),
                revision: 0,
            }),
            added: Notify::new(),
            written: watch::Sender::new(0),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a claim for the workflow with this UID. Ends when the Lease has it; `false`, at once, if there is no room.
    /// Who stops waiting takes the claim back.
    pub async fn claim(&self, uid: &str, claim: Claim) -> bool {
        let Some(revision) = self.add(uid, claim) else {
            return false;
        };
        let unwritten = Unwritten {
            claims: self,
            uid,
            revision,
        };
        self.added.notify_one();
        let mut written = self.written.subscribe();
        let held = written.wait_for(|written| *written >= revision).await.is_ok();
        std::mem::forget(unwritten);
        held
    }

    fn add(&self, uid: &str, claim: Claim) -> Option<u64> {
        let mut state = self.state();
        if state.entries.len() >= MOST {
            return None;
        }
        state.revision += 1;
        let revision = state.revision;
        state.entries.insert(uid.to_owned(), Entry { claim, revision });
        Some(revision)
    }

    /// The claim for the workflow with this UID.
    pub fn of(&self, uid: &str) -> Option<Claim> {
        self.state().entries.get(uid).map(|entry| entry.claim.clone())
    }

    /// The UIDs of all workflows with a claim.
    pub fn workflows(&self) -> Vec<String> {
        self.state().entries.keys().cloned().collect()
    }

    /// The workflow's status tells of the claim or of what became of it, or the workflow is gone. The Lease is told with the
    /// next claim or renewal.
    pub fn settle(&self, uid: &str) {
        self.state().entries.remove(uid);
    }

    /// Waits until there is a claim that is not written.
    pub async fn added(&self) {
        while self.state().revision <= *self.written.borrow() {
            self.added.notified().await;
        }
    }

    /// All claims as the Lease keeps them, and their revision.
    pub fn text(&self) -> (u64, String) {
        let state = self.state();
        let claims: BTreeMap<&str, &Claim> = state
            .entries
            .iter()
            .map(|(uid, entry)| (uid.as_str(), &entry.claim))
            .collect();
        let text = serde_json::to_string(&claims).expect("claims are plain data with text as keys");
        (state.revision, text)
    }

    /// The Lease has all claims of this revision.
    pub fn written(&self, revision: u64) {
        self.written.send_replace(revision);
    }
}

/// A claim that nobody may rely on yet.
struct Unwritten<'a> {
    claims: &'a Claims,
    uid: &'a str,
    revision: u64,
}

impl Drop for Unwritten<'_> {
    fn drop(&mut self) {
        let mut state = self.claims.state();
        if state
            .entries
            .get(self.uid)
            .is_some_and(|entry| entry.revision == self.revision)
        {
            state.entries.remove(self.uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use api::{DigestSet, maml_workflow::AssignedHead};
    use futures::FutureExt as _;
    use jiff::Timestamp;

    use super::*;

    fn claim(run_id: &str) -> Claim {
        Claim {
            run_id: run_id.to_owned(),
            attempt: 1,
            head: AssignedHead::default(),
            document: DigestSet::default(),
            inputs: DigestSet::default(),
            time: Timestamp::UNIX_EPOCH,
        }
    }

    fn none() -> Arc<Claims> {
        Arc::new(Claims::inherited(None).expect("none"))
    }

    #[tokio::test]
    async fn a_claim_ends_when_the_lease_has_it_and_one_write_takes_several() {
        let claims = none();
        assert_eq!(claims.added().now_or_never(), None, "nothing to write");
        let (mut first, mut second) = (
            Box::pin(claims.claim("a", claim("1"))),
            Box::pin(claims.claim("b", claim("2"))),
        );
        assert_eq!((&mut first).now_or_never(), None);
        let (before, _) = claims.text();
        assert_eq!((&mut second).now_or_never(), None);
        claims.added().await;

        claims.written(before);
        assert_eq!((&mut second).now_or_never(), None, "it came after that write");
        assert!(first.await);
        claims.added().await;

        let (both, text) = claims.text();
        claims.written(both);
        assert!(second.await);
        assert_eq!(claims.added().now_or_never(), None, "all is written");
        let successor = Claims::inherited(Some(&text)).expect("readable");
        assert_eq!(successor.of("a"), Some(claim("1")));
        assert_eq!(successor.of("b"), Some(claim("2")));
        assert_eq!(successor.added().now_or_never(), None, "it is written already");
    }

    #[tokio::test]
    async fn who_stops_waiting_takes_the_claim_back_and_no_other() {
        let claims = none();
        let waiting = claims.claim("a", claim("1"));
        assert!(tokio::time::timeout(Duration::ZERO, waiting).await.is_err());
        assert_eq!(claims.of("a"), None);

        let mut superseded = Box::pin(claims.claim("a", claim("1")));
        assert_eq!((&mut superseded).now_or_never(), None);
        let mut next = Box::pin(claims.claim("a", claim("2")));
        assert_eq!((&mut next).now_or_never(), None);
        drop(superseded);
        assert_eq!(claims.of("a"), Some(claim("2")));
    }

    #[tokio::test]
    async fn a_settled_claim_leaves_and_makes_room() {
        let claims = none();
        for number in 0..MOST {
            let uid = number.to_string();
            let mut waiting = Box::pin(claims.claim(&uid, claim("1")));
            assert_eq!((&mut waiting).now_or_never(), None);
            claims.written(claims.text().0);
            assert!(waiting.await);
        }
        assert!(!claims.claim("one more", claim("1")).await, "there is no room");
        assert_eq!(claims.of("one more"), None);
        claims.settle("7");
        assert!(!claims.workflows().contains(&"7".to_owned()));
        assert_eq!(claims.added().now_or_never(), None, "no write for that alone");
        assert_eq!(claims.claim("one more", claim("1")).now_or_never(), None);
    }

    #[test]
    fn what_cannot_be_read_is_not_taken_for_nothing() {
        let error = Claims::inherited(Some("{\"a\": 1}")).err().expect("an error");
        assert!(
            error.to_string().contains(api::names::CLAIMS_ANNOTATION),
            "{error}"
        );
    }
}
