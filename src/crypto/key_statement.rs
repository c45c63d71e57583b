//! Statements about keys: what the root says of a key that signs, in the form that a verifier needs years later.

use crate::dsse::{self, Envelope};
use crate::json;
use crate::key::{self, KeyId, SigningKey};
use crate::public_key::{KeySuite, PublicKey};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The payload type of a key statement's envelope.
pub const PAYLOAD_TYPE: &str = "application/vnd.chimera.key+json";
/// The `_type` of a key statement.
pub const TYPE: &str = "https://chimera.dunes.io/key/v1";

/// Why a key statement could not be made or believed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The envelope could not be signed, or the root did not sign it.
    #[error("a key statement must be signed by the root")]
    Envelope(#[from] dsse::Error),
    /// The signed bytes are no key statement.
    #[error("the signed bytes are no key statement")]
    Format(#[source] serde_json::Error),
    /// A `_type` of another version.
    #[error("a key statement's _type must be `{TYPE}`, found `{0}`")]
    Type(String),
    /// The public key in it cannot be read.
    #[error("read the public key of a key statement")]
    PublicKey(#[source] key::Error),
    /// Id or suite are not those of the public key beside them.
    #[error("the statement names key {named} of {suite}, but its public key is {actual}")]
    KeyMismatch {
        /// The id in the statement.
        named: KeyId,
        /// The suite in the statement.
        suite: KeySuite,
        /// The id of the public key in the statement.
        actual: KeyId,
    },
}

/// What a key may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KeyPurpose {
    /// Signs grants and receipts.
    Signing,
    /// Opens sealed inputs.
    Sealing,
    /// Agrees on the keys of streams.
    Session,
}

impl fmt::Display for KeyPurpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Signing => "Signing",
            Self::Sealing => "Sealing",
            Self::Session => "Session",
        })
    }
}

/// The root's statement about one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KeyStatement {
    /// Always [`TYPE`].
    #[serde(rename = "_type")]
    pub type_: String,
    /// The suite of the key.
    pub suite: KeySuite,
    /// The key's id.
    pub key_id: KeyId,
    /// The public key: SubjectPublicKeyInfo, PEM.
    pub public_key: String,
    /// What the key may be used for.
    pub purpose: KeyPurpose,
    /// The namespace that it serves; without one, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// From when on its signatures count.
    pub not_before: Timestamp,
    /// Until when its signatures count; without one, until a later statement says otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// The key that this one follows; the first key has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predecessor: Option<KeyId>,
    /// The fencing token (transitions of the controller's lease) of the controller that made the key.
    pub fencing_token: u64,
}

impl KeyStatement {
    /// A statement about `key`, not yet signed.
    pub fn about(
        key: impl Into<PublicKey>,
        purpose: KeyPurpose,
        not_before: Timestamp,
        not_after: Option<Timestamp>,
        predecessor: Option<KeyId>,
        fencing_token: u64,
    ) -> Self {
        let key = key.into();
        Self {
            type_: TYPE.to_owned(),
            suite: key.suite(),
            key_id: key.key_id().clone(),
            public_key: key.spki_pem(),
            purpose,
            namespace: None,
            not_before,
            not_after,
            predecessor,
            fencing_token,
        }
    }

    /// Signs the statement with the root.
    pub fn sign(&self, root: &SigningKey) -> Result<Envelope, Error> {
        let payload = serde_json::to_vec(self).map_err(Error::Format)?;
        Ok(Envelope::sign(PAYLOAD_TYPE, &payload, root)?)
    }

    /// Believes `envelope` if `root` signed it and what it says of its key is true.
    pub fn verify(envelope: &Envelope, root: &key::VerifyingKey) -> Result<Self, Error> {
        let statement: Self = json::from_slice(envelope.open(PAYLOAD_TYPE, root)?).map_err(Error::Format)?;
        if statement.type_ != TYPE {
            return Err(Error::Type(statement.type_));
        }
        statement.check()?;
        Ok(statement)
    }

    /// Whether id and suite are those of the public key beside them.
    pub fn check(&self) -> Result<(), Error> {
        let key = self.public_key()?;
        if *key.key_id() == self.key_id && key.suite() == self.suite {
            Ok(())
        } else {
            Err(Error::KeyMismatch {
                named: self.key_id.clone(),
                suite: self.suite,
                actual: key.key_id().clone(),
            })
        }
    }

    /// The key that the statement in `envelope` claims to be about, whoever signed it: for finding it, not for belief.
    pub fn claimed_key(envelope: &Envelope) -> Option<KeyId> {
        Claim::of(envelope).map(|claim| claim.key_id)
    }

    /// The purpose that the statement in `envelope` claims for its key, whoever signed it.
    pub fn claimed_purpose(envelope: &Envelope) -> Option<KeyPurpose> {
        Claim::of(envelope).map(|claim| claim.purpose)
    }

    /// The public key that the statement is about.
    pub fn public_key(&self) -> Result<PublicKey, Error> {
        PublicKey::from_spki_pem(self.suite, &self.public_key).map_err(Error::PublicKey)
    }

    /// Whether a signature made at `time` counts.
    pub fn valid_at(&self, time: Timestamp) -> bool {
        self.not_before <= time && self.not_after.is_none_or(|end| time <= end)
    }
}

/// What a statement says before anybody has verified it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Claim {
    key_id: KeyId,
    purpose: KeyPurpose,
}

impl Claim {
    fn of(envelope: &Envelope) -> Option<Self> {
        serde_json::from_slice(envelope.payload()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::Suite;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(Suite::MlDsa87, &[seed; 32]).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn statement(about: &SigningKey) -> KeyStatement {
        let (start, end) = (at("2026-01-01T00:00:00Z"), at("2026-02-01T00:00:00Z"));
        KeyStatement::about(
            about.verifying_key(),
            KeyPurpose::Signing,
            start,
            Some(end),
            None,
            3,
        )
    }

    #[test]
    fn a_statement_is_believed_under_its_root_only() {
        let (root, signing) = (key(1), key(2));
        let envelope = statement(&signing).sign(&root).unwrap();
        let read = KeyStatement::verify(&envelope, root.verifying_key()).unwrap();
        assert_eq!(read, statement(&signing));
        assert_eq!(read.public_key().unwrap(), signing.verifying_key().into());
        assert!(KeyStatement::verify(&envelope, signing.verifying_key()).is_err());
    }

    #[test]
    fn a_statement_that_names_another_key_or_version_is_refused() {
        let root = key(1);
        let mut lying = statement(&key(2));
        lying.key_id = key(3).verifying_key().key_id().clone();
        let error = KeyStatement::verify(&lying.sign(&root).unwrap(), root.verifying_key()).unwrap_err();
        assert!(matches!(error, Error::KeyMismatch { .. }), "{error}");
        let mut newer = statement(&key(2));
        newer.type_ = "https://chimera.dunes.io/key/v2".into();
        let error = KeyStatement::verify(&newer.sign(&root).unwrap(), root.verifying_key()).unwrap_err();
        assert!(matches!(error, Error::Type(_)), "{error}");
    }

    #[test]
    fn an_unknown_suite_or_field_is_refused_even_when_the_root_signed_it() {
        let root = key(1);
        let text = serde_json::to_string(&statement(&key(2))).unwrap();
        for bad in [
            text.replace("ML-DSA-87", "ML-DSA-44"),
            text.replace("\"suite\"", "\"extra\":0,\"suite\""),
        ] {
            let envelope = Envelope::sign(PAYLOAD_TYPE, bad.as_bytes(), &root).unwrap();
            assert!(matches!(
                KeyStatement::verify(&envelope, root.verifying_key()),
                Err(Error::Format(_))
            ));
        }
    }

    #[test]
    fn validity_includes_both_ends() {
        let statement = statement(&key(2));
        for (time, valid) in [
            ("2025-12-31T23:59:59Z", false),
            ("2026-01-01T00:00:00Z", true),
            ("2026-02-01T00:00:00Z", true),
            ("2026-02-01T00:00:00.001Z", false),
        ] {
            assert_eq!(statement.valid_at(at(time)), valid, "{time}");
        }
    }
}
