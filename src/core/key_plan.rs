//! What is to be done about a KeyRotationPolicy: the next single write towards a published key in use. No IO.
//!
//! Order is everything: root, then key, then publication, then use. A crash after any write leaves a state from which
//! the same order goes on. What is missing although it once existed is never made again silently.

use api::{
    ConditionStatus, KeyRotationPolicy, KeyRotationPolicyStatus,
    condition::{READY, Verdict, set},
    key_rotation_policy::{KeyState, KeyStatus, Purpose},
    reasons,
};
use crypto::KeyId;
use jiff::Timestamp;

/// Something that is stored, as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored<T> {
    /// It does not exist.
    Missing,
    /// It exists and cannot be used; why, without any of its contents.
    Unreadable(String),
    /// It can be used.
    Present(T),
}

/// What is known of the published bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The bundle's root.
    pub root: KeyId,
    /// Keys that the bundle has statements about.
    pub keys: Vec<KeyId>,
}

/// Everything that the decision depends on.
#[derive(Debug)]
pub struct Observed<'a> {
    /// The policy.
    pub policy: &'a KeyRotationPolicy,
    /// The operator's namespace: the only one where keys are kept.
    pub operator_namespace: &'a str,
    /// The root key.
    pub root: Stored<KeyId>,
    /// The policy's key.
    pub key: Stored<KeyId>,
    /// The published bundle.
    pub bundle: Stored<Published>,
    /// The present.
    pub now: Timestamp,
}

/// The next write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Make the root. Only where there is neither root nor key nor bundle.
    MintRoot,
    /// Make the policy's first key, with the root's statement about it.
    MintKey,
    /// Put the statement into the bundle.
    Publish,
    /// The key is published: it may sign.
    Use,
    /// Nothing can be done; the status says why.
    None,
}

/// The decision.
#[derive(Debug, PartialEq)]
pub struct Plan {
    /// The next write.
    pub step: Step,
    /// The status as it is before that write.
    pub status: KeyRotationPolicyStatus,
}

/// Decides.
pub fn plan(observed: &Observed<'_>) -> Plan {
    let (step, reason, message) = decide(observed);
    let active = match (&observed.key, step) {
        (Stored::Present(key), Step::Use) => Some(key),
        _ => None,
    };
    Plan {
        step,
        status: build_status(observed, active, reason, &message),
    }
}

fn decide(observed: &Observed<'_>) -> (Step, &'static str, String) {
    let policy = observed.policy;
    if policy.metadata.namespace.as_deref() != Some(observed.operator_namespace) {
        let message = format!(
            "key policies work in the operator's namespace, {}, only",
            observed.operator_namespace
        );
        return (Step::None, reasons::OUTSIDE_OPERATOR_NAMESPACE, message);
    }
    if policy.spec.purpose != Purpose::Signing {
        let message = format!("this version keeps no {} keys", policy.spec.purpose.as_str());
        return (Step::None, reasons::PURPOSE_UNSUPPORTED, message);
    }
    if let Stored::Unreadable(why) = &observed.bundle {
        return (
            Step::None,
            reasons::TRUST_UNREADABLE,
            format!("ConfigMap chimera-trust: {why}"),
        );
    }
    let had_key = policy
        .status
        .as_ref()
        .is_some_and(|status| status.active_key_id.is_some());
    match (&observed.root, &observed.key, &observed.bundle) {
        (Stored::Missing, Stored::Missing, Stored::Missing) if !had_key => (
            Step::MintRoot,
            reasons::PUBLISHING,
            "the root key is being made".to_owned(),
        ),
        (Stored::Missing, ..) => {
            let message =
                "Secret chimera-root is missing although keys or a trust bundle exist: restore it".to_owned();
            (Step::None, reasons::ROOT_UNAVAILABLE, message)
        }
        (Stored::Unreadable(why), ..) => (
            Step::None,
            reasons::ROOT_UNAVAILABLE,
            format!("Secret chimera-root: {why}; restore it from a backup"),
        ),
        (Stored::Present(root), _, Stored::Present(bundle)) if bundle.root != *root => {
            let message = format!(
                "Secret chimera-root holds key {} but the trust bundle is of root {}: restore one of them",
                root.short(),
                bundle.root.short(),
            );
            (Step::None, reasons::ROOT_UNAVAILABLE, message)
        }
        (_, Stored::Unreadable(why), _) => (
            Step::None,
            reasons::KEYS_UNREADABLE,
            format!("the policy's Secret: {why}; restore it from a backup"),
        ),
        (_, Stored::Missing, _) if had_key => {
            let message =
                "the policy's Secret is missing although its key was published: restore it, or delete and \
                           create the policy to begin with a new key"
                    .to_owned();
            (Step::None, reasons::KEYS_UNREADABLE, message)
        }
        (_, Stored::Missing, _) => (
            Step::MintKey,
            reasons::PUBLISHING,
            "the first key is being made".to_owned(),
        ),
        (_, Stored::Present(key), Stored::Present(bundle)) if bundle.keys.contains(key) => (
            Step::Use,
            reasons::KEY_ACTIVE,
            format!("key {} is published and in use", key.short()),
        ),
        (_, Stored::Present(key), _) => (
            Step::Publish,
            reasons::PUBLISHING,
            format!("key {} is being published", key.short()),
        ),
    }
}

fn build_status(
    observed: &Observed<'_>,
    active: Option<&KeyId>,
    reason: &'static str,
    message: &str,
) -> KeyRotationPolicyStatus {
    let mut status = observed.policy.status.clone().unwrap_or_default();
    status.observed_generation = observed.policy.metadata.generation;
    if let Some(key) = active
        && status.active_key_id.as_deref() != Some(key.as_str())
    {
        let row = KeyStatus {
            key_id: key.to_string(),
            state: KeyState::Active,
            since: observed.now,
        };
        status.keys.retain(|known| known.key_id != row.key_id);
        for known in &mut status.keys {
            known.state = KeyState::Retired;
        }
        status.keys.push(row);
        status.active_key_id = Some(key.to_string());
        status.active_key = Some(key.short().to_owned());
        status.last_rotation_time = Some(observed.now);
    }
    let verdict = Verdict {
        type_: READY,
        status: ConditionStatus::from(active.is_some()),
        reason,
        message,
        observed_generation: observed.policy.metadata.generation,
    };
    set(&mut status.conditions, &verdict, observed.now);
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(digit: char) -> KeyId {
        digit.to_string().repeat(64).parse().expect("a key id")
    }

    fn policy(namespace: &str, purpose: &str, algorithm: &str) -> KeyRotationPolicy {
        let spec = serde_json::json!({"purpose": purpose, "algorithm": algorithm});
        let mut policy = KeyRotationPolicy::new("signing", serde_json::from_value(spec).expect("a spec"));
        policy.metadata.namespace = Some(namespace.into());
        policy.metadata.generation = Some(1);
        policy
    }

    fn decide_on(
        policy: &KeyRotationPolicy,
        root: Stored<KeyId>,
        key: Stored<KeyId>,
        bundle: Stored<Published>,
    ) -> Plan {
        plan(&Observed {
            policy,
            operator_namespace: "ops",
            root,
            key,
            bundle,
            now: Timestamp::UNIX_EPOCH,
        })
    }

    fn bundle(root: char, keys: &[char]) -> Stored<Published> {
        Stored::Present(Published {
            root: id(root),
            keys: keys.iter().map(|&key| id(key)).collect(),
        })
    }

    #[test]
    fn an_installation_goes_root_key_publication_use() {
        let policy = policy("ops", "Signing", "ML-DSA-87");
        let steps = [
            (Stored::Missing, Stored::Missing, Stored::Missing, Step::MintRoot),
            (
                Stored::Present(id('a')),
                Stored::Missing,
                Stored::Missing,
                Step::MintKey,
            ),
            (
                Stored::Present(id('a')),
                Stored::Present(id('b')),
                Stored::Missing,
                Step::Publish,
            ),
            (
                Stored::Present(id('a')),
                Stored::Present(id('b')),
                bundle('a', &['c']),
                Step::Publish,
            ),
            (
                Stored::Present(id('a')),
                Stored::Present(id('b')),
                bundle('a', &['b']),
                Step::Use,
            ),
        ];
        for (root, key, bundle, expected) in steps {
            assert_eq!(decide_on(&policy, root, key, bundle).step, expected);
        }
    }

    #[test]
    fn a_key_in_use_is_shown_and_nothing_changes_at_rest() {
        let mut policy = policy("ops", "Signing", "ML-DSA-87");
        let first = decide_on(
            &policy,
            Stored::Present(id('a')),
            Stored::Present(id('b')),
            bundle('a', &['b']),
        );
        assert_eq!(first.status.active_key.as_deref(), Some("bbbbbbbbbbbb"));
        policy.status = Some(first.status.clone());
        let again = decide_on(
            &policy,
            Stored::Present(id('a')),
            Stored::Present(id('b')),
            bundle('a', &['b']),
        );
        assert_eq!(again.status, first.status);
    }

    #[test]
    fn what_is_lost_is_never_made_again_silently() {
        let fresh = policy("ops", "Signing", "ML-DSA-87");
        let mut used = fresh.clone();
        used.status = Some(KeyRotationPolicyStatus {
            active_key_id: Some(id('b').to_string()),
            ..Default::default()
        });
        let damaged = || Stored::Unreadable("truncated".to_owned());
        let cases = [
            (
                &fresh,
                Stored::Missing,
                Stored::Missing,
                bundle('a', &[]),
                reasons::ROOT_UNAVAILABLE,
            ),
            (
                &fresh,
                Stored::Missing,
                Stored::Present(id('b')),
                Stored::Missing,
                reasons::ROOT_UNAVAILABLE,
            ),
            (
                &used,
                Stored::Missing,
                Stored::Missing,
                Stored::Missing,
                reasons::ROOT_UNAVAILABLE,
            ),
            (
                &fresh,
                damaged(),
                Stored::Missing,
                Stored::Missing,
                reasons::ROOT_UNAVAILABLE,
            ),
            (
                &fresh,
                Stored::Present(id('a')),
                damaged(),
                bundle('a', &[]),
                reasons::KEYS_UNREADABLE,
            ),
            (
                &used,
                Stored::Present(id('a')),
                Stored::Missing,
                bundle('a', &['b']),
                reasons::KEYS_UNREADABLE,
            ),
            (
                &fresh,
                Stored::Present(id('a')),
                Stored::Present(id('b')),
                bundle('c', &['b']),
                reasons::ROOT_UNAVAILABLE,
            ),
        ];
        for (policy, root, key, bundle, reason) in cases {
            let plan = decide_on(policy, root, key, bundle);
            assert_eq!(
                (plan.step, plan.status.conditions[0].reason.as_str()),
                (Step::None, reason)
            );
        }
        let plan = decide_on(
            &fresh,
            Stored::Present(id('a')),
            Stored::Present(id('b')),
            Stored::Unreadable("x".into()),
        );
        assert_eq!(plan.status.conditions[0].reason, reasons::TRUST_UNREADABLE);
    }

    #[test]
    fn a_lost_bundle_is_published_again_from_the_secrets() {
        let mut used = policy("ops", "Signing", "ML-DSA-87");
        used.status = Some(KeyRotationPolicyStatus {
            active_key_id: Some(id('b').to_string()),
            ..Default::default()
        });
        let plan = decide_on(
            &used,
            Stored::Present(id('a')),
            Stored::Present(id('b')),
            Stored::Missing,
        );
        assert_eq!(plan.step, Step::Publish);
    }

    #[test]
    fn policies_elsewhere_and_of_other_purposes_say_so() {
        for (policy, reason) in [
            (
                policy("team", "Signing", "ML-DSA-87"),
                reasons::OUTSIDE_OPERATOR_NAMESPACE,
            ),
            (
                policy("ops", "Sealing", "ML-KEM-1024"),
                reasons::PURPOSE_UNSUPPORTED,
            ),
        ] {
            let plan = decide_on(&policy, Stored::Missing, Stored::Missing, Stored::Missing);
            assert_eq!(
                (plan.step, plan.status.conditions[0].reason.as_str()),
                (Step::None, reason)
            );
        }
    }
}
