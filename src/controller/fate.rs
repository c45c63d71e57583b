//! What becomes of one start of an agent, told at once to everybody who waits for its answers.

use std::sync::Arc;

use controller_core::head_plan::Lost;
use tokio::sync::watch;

/// One start of an agent, as long as it is heard.
pub struct Session {
    /// Id of its attestation key, which it made at its start.
    pub agent: String,
    fate: watch::Sender<Option<Arc<Lost>>>,
}

impl Session {
    /// An agent that was just heard for the first time.
    pub fn begin(agent: String) -> Self {
        Self {
            agent,
            fate: watch::Sender::new(None),
        }
    }

    /// Tells everybody that nothing is to be expected of it any more. The first cause counts.
    pub fn end(&self, lost: &Lost) {
        self.fate.send_if_modified(|fate| {
            let first = fate.is_none();
            fate.get_or_insert_with(|| Arc::new(lost.clone()));
            first
        });
    }

    /// Whether nothing is to be expected of it.
    pub fn is_over(&self) -> bool {
        self.fate.borrow().is_some()
    }

    /// A way to learn of its end.
    pub fn fate(&self) -> Fate {
        Fate(self.fate.subscribe())
    }
}

/// Tells of the end of a session.
#[derive(Clone)]
pub struct Fate(watch::Receiver<Option<Arc<Lost>>>);

impl Fate {
    /// Waits for the end. `None`: the pod is gone.
    pub async fn lost(mut self) -> Option<Arc<Lost>> {
        match self.0.wait_for(Option::is_some).await {
            Ok(lost) => lost.clone(),
            Err(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(message: &str) -> Lost {
        Lost {
            cause: api::reasons::AGENT_LOST,
            message: message.to_owned(),
            since: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    #[tokio::test]
    async fn whoever_waits_learns_the_first_cause_and_a_pod_that_is_gone_has_none() {
        let session = Session::begin("a".into());
        let (before, gone) = (session.fate(), Session::begin("b".into()).fate());
        session.end(&lost("first"));
        session.end(&lost("second"));
        for fate in [before, session.fate()] {
            assert_eq!(fate.lost().await.expect("a cause").message, "first");
        }
        assert!(gone.lost().await.is_none());
    }
}
