//! Conditions in the form of KEP-1623, and the one way to change them.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Ready: the object does, or has done, what its spec asks. Every kind has it.
pub const READY: &str = "Ready";
/// Accepted: document, inputs and permissions of a workflow passed; False is final for the run.
pub const ACCEPTED: &str = "Accepted";
/// Scheduled: a head has been claimed for the run.
pub const SCHEDULED: &str = "Scheduled";
/// Succeeded: the program ended well and its outputs fit their schema.
pub const SUCCEEDED: &str = "Succeeded";
/// Signed: the signed receipt of the run exists.
pub const SIGNED: &str = "Signed";
/// Complete: the run is over, well or badly.
pub const COMPLETE: &str = "Complete";
/// Stalled: the run failed for good and nothing more will be tried (kstatus).
pub const STALLED: &str = "Stalled";
/// Verified: the receipt's signatures and digests hold against the trust bundle.
pub const VERIFIED: &str = "Verified";
/// EntropyHealthy: every named source was mixed into the policy's last key.
pub const ENTROPY_HEALTHY: &str = "EntropyHealthy";

/// The longest message that [`set`] stores, in bytes; longer ones are cut with an ellipsis.
pub const MESSAGE_LIMIT: usize = 4096;

/// One aspect of the state of an object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What the condition is about, such as `Ready`.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 316))]
    pub type_: String,

    /// `True`, `False` or `Unknown`.
    pub status: ConditionStatus,

    /// Why, as one word in CamelCase. The words are listed in docs/reference/reasons.md.
    #[schemars(
        length(min = 1, max = 1024),
        regex(pattern = r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")
    )]
    pub reason: String,

    /// Why, as a sentence for people.
    #[serde(default)]
    #[schemars(length(max = 32768))]
    pub message: String,

    /// The `metadata.generation` that the condition was computed from. When it is smaller than the
    /// object's, the condition speaks of an older spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,

    /// When `status` last changed (RFC 3339, UTC).
    pub last_transition_time: Timestamp,
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// It is not known yet.
    Unknown,
}

impl ConditionStatus {
    /// The word used in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for ConditionStatus {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// What a condition should say now; [`set`] adds the time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict<'a> {
    /// The condition's type, one of the constants of this module.
    pub type_: &'a str,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// One of the constants of [`crate::reasons`].
    pub reason: &'a str,
    /// A sentence for people.
    pub message: &'a str,
    /// The generation that the verdict was computed from.
    pub observed_generation: Option<i64>,
}

/// Stores `verdict` in `conditions` and returns whether anything changed.
///
/// `lastTransitionTime` moves to `now` only when the status changes (KEP-1623), so that storing the
/// same verdict twice leaves the object as it was and needs no write.
pub fn set(conditions: &mut Vec<Condition>, verdict: &Verdict<'_>, now: Timestamp) -> bool {
    // metav1.Time has no fractions of a second; a client that reads and writes it back must not change anything.
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let message = shortened(verdict.message);
    let Some(current) = conditions.iter_mut().find(|c| c.type_ == verdict.type_) else {
        conditions.push(Condition {
            type_: verdict.type_.to_owned(),
            status: verdict.status,
            reason: verdict.reason.to_owned(),
            message,
            observed_generation: verdict.observed_generation,
            last_transition_time: now,
        });
        return true;
    };
    let before = current.clone();
    if current.status != verdict.status {
        current.status = verdict.status;
        current.last_transition_time = now;
    }
    verdict.reason.clone_into(&mut current.reason);
    current.message = message;
    current.observed_generation = verdict.observed_generation;
    *current != before
}

/// Removes the condition of that type and returns whether there was one.
pub fn remove(conditions: &mut Vec<Condition>, type_: &str) -> bool {
    let before = conditions.len();
    conditions.retain(|condition| condition.type_ != type_);
    conditions.len() != before
}

/// The condition of that type.
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Whether the condition of that type exists and is True.
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    find(conditions, type_).is_some_and(|condition| condition.status == ConditionStatus::True)
}

/// Whether the condition of that type exists and is False.
pub fn is_false(conditions: &[Condition], type_: &str) -> bool {
    find(conditions, type_).is_some_and(|condition| condition.status == ConditionStatus::False)
}

fn shortened(message: &str) -> String {
    if message.len() <= MESSAGE_LIMIT {
        return message.to_owned();
    }
    let ellipsis = '…';
    let mut end = MESSAGE_LIMIT - ellipsis.len_utf8();
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    let mut short = message[..end].to_owned();
    short.push(ellipsis);
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn ready<'a>(status: ConditionStatus, reason: &'a str, message: &'a str) -> Verdict<'a> {
        Verdict {
            type_: READY,
            status,
            reason,
            message,
            observed_generation: Some(1),
        }
    }

    #[test]
    fn the_same_verdict_changes_nothing() {
        let mut conditions = Vec::new();
        let verdict = ready(ConditionStatus::False, "Running", "The run has begun.");
        assert!(set(&mut conditions, &verdict, at(10)));
        let first = conditions.clone();
        assert!(!set(&mut conditions, &verdict, at(20)));
        assert_eq!(conditions, first);
    }

    #[test]
    fn transition_time_moves_only_with_the_status() {
        let mut conditions = Vec::new();
        set(
            &mut conditions,
            &ready(ConditionStatus::False, "Pending", ""),
            at(10),
        );
        assert!(set(
            &mut conditions,
            &ready(ConditionStatus::False, "Running", ""),
            at(20)
        ));
        assert_eq!(conditions[0].last_transition_time, at(10));
        assert!(set(
            &mut conditions,
            &ready(ConditionStatus::True, "Succeeded", ""),
            at(30)
        ));
        assert_eq!(conditions[0].last_transition_time, at(30));
    }

    #[test]
    fn a_new_generation_is_a_change() {
        let mut conditions = Vec::new();
        let mut verdict = ready(ConditionStatus::True, "Succeeded", "");
        set(&mut conditions, &verdict, at(10));
        verdict.observed_generation = Some(2);
        assert!(set(&mut conditions, &verdict, at(20)));
        assert_eq!(conditions[0].last_transition_time, at(10));
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let mut conditions = Vec::new();
        let message = "é".repeat(MESSAGE_LIMIT);
        set(
            &mut conditions,
            &ready(ConditionStatus::True, "Succeeded", &message),
            at(1),
        );
        assert!(conditions[0].message.len() <= MESSAGE_LIMIT);
        assert!(conditions[0].message.ends_with('…'));
    }

    #[test]
    fn removal_says_whether_there_was_one() {
        let mut conditions = Vec::new();
        assert!(!remove(&mut conditions, READY));
        set(
            &mut conditions,
            &ready(ConditionStatus::True, "Succeeded", ""),
            at(1),
        );
        assert!(is_true(&conditions, READY));
        assert!(remove(&mut conditions, READY));
        assert!(!is_true(&conditions, READY) && !is_false(&conditions, READY));
    }

    #[test]
    fn fields_are_spelled_as_kubernetes_spells_them() {
        let mut conditions = Vec::new();
        set(
            &mut conditions,
            &ready(ConditionStatus::True, "Succeeded", "Done."),
            at(0),
        );
        assert_eq!(
            serde_json::to_value(&conditions[0]).unwrap(),
            serde_json::json!({
                "type": "Ready", "status": "True", "reason": "Succeeded", "message": "Done.",
                "observedGeneration": 1, "lastTransitionTime": "1970-01-01T00:00:00Z",
            })
        );
    }
}
