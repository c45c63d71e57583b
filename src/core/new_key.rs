//! What a new key of a policy is: its suite, the key that it follows, and what the root is to state of it.

use api::KeyRotationPolicy;
use api::key_rotation_policy::{Algorithm, Purpose};
use crypto::{KemSuite, KeyId, KeyPurpose, KeyStatement, KeySuite, PublicKey, Suite};
use jiff::Timestamp;

use crate::key_ring::KeyRing;

/// The suite of a policy's keys.
pub fn suite_of(algorithm: Algorithm) -> KeySuite {
    match algorithm {
        Algorithm::MlDsa87 => KeySuite::Signature(Suite::MlDsa87),
        Algorithm::MlDsa65 => KeySuite::Signature(Suite::MlDsa65),
        Algorithm::Ed25519MlDsa87 => KeySuite::Signature(Suite::Ed25519MlDsa87),
        // Streams agree on their keys by encapsulation.
        Algorithm::MlKem1024 | Algorithm::Aes256GcmL4 => KeySuite::Encapsulation(KemSuite::MlKem1024),
    }
}

/// What a policy's keys may be used for, as statements say it.
pub fn purpose_of(purpose: Purpose) -> KeyPurpose {
    match purpose {
        Purpose::Signing => KeyPurpose::Signing,
        Purpose::Sealing => KeyPurpose::Sealing,
        Purpose::Session => KeyPurpose::Session,
    }
}

/// The key that a new one will follow.
pub fn predecessor_in(ring: &KeyRing) -> Option<KeyId> {
    let key = ring.next.last().or(ring.active.as_ref());
    key.map(|key| key.id().clone())
}

/// The statement about a policy's key, not yet signed. Keys of other namespaces than the operator's serve only theirs.
pub fn statement_about(
    policy: &KeyRotationPolicy,
    operator_namespace: &str,
    key: PublicKey,
    predecessor: Option<KeyId>,
    fencing_token: u64,
    now: Timestamp,
) -> KeyStatement {
    let purpose = purpose_of(policy.spec.purpose);
    let mut statement = KeyStatement::about(key, purpose, now, None, predecessor, fencing_token);
    let namespace = policy.metadata.namespace.clone();
    statement.namespace = namespace.filter(|namespace| namespace != operator_namespace);
    statement
}
