//! Statements of one root about another: how trust passes from a root to its successor, and back.
//!
//! At a roll-over the old root vouches for the new one, so that whoever pinned the old one goes on verifying; and the
//! new root vouches for the old one, so that whoever pins the new one still verifies what is older.

use crate::dsse::{self, Envelope};
use crate::json;
use crate::key::{self, KeyId, SigningKey, VerifyingKey};
use crate::suite::Suite;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The payload type of a root statement's envelope.
pub const PAYLOAD_TYPE: &str = "application/vnd.chimera.root+json";
/// The `_type` of a root statement.
pub const TYPE: &str = "https://chimera.dunes.io/root/v1";

/// Why a root statement could not be made or believed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The envelope could not be signed, or this root did not sign it.
    #[error("a root statement must be signed by a root")]
    Envelope(#[from] dsse::Error),
    /// The signed bytes are no root statement.
    #[error("the signed bytes are no root statement")]
    Format(#[source] serde_json::Error),
    /// A `_type` of another version.
    #[error("a root statement's _type must be `{TYPE}`, found `{0}`")]
    Type(String),
    /// The public key in it cannot be read.
    #[error("read the public key of a root statement")]
    PublicKey(#[source] key::Error),
    /// Id or suite are not those of the public key beside them.
    #[error("the statement names root {named}, but its public key is {actual}")]
    KeyMismatch {
        /// The id in the statement.
        named: KeyId,
        /// The id of the public key in the statement.
        actual: KeyId,
    },
}

/// One root's statement about another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RootStatement {
    /// Always [`TYPE`].
    #[serde(rename = "_type")]
    pub type_: String,
    /// The suite of the other root.
    pub suite: Suite,
    /// Its id.
    pub key_id: KeyId,
    /// Its public key: SubjectPublicKeyInfo, PEM.
    pub public_key: String,
    /// From when on its statements count.
    pub not_before: Timestamp,
    /// What it states after this time does not count: set for a root that was succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
}

impl RootStatement {
    /// A statement about `root`, not yet signed.
    pub fn about(root: &VerifyingKey, not_before: Timestamp, not_after: Option<Timestamp>) -> Self {
        Self {
            type_: TYPE.to_owned(),
            suite: root.suite(),
            key_id: root.key_id().clone(),
            public_key: root.spki_pem(),
            not_before,
            not_after,
        }
    }

    /// Both statements of a roll-over at `now`: the old root's about the new one, the new one's about the old one.
    pub fn roll_over(old: &SigningKey, new: &SigningKey, now: Timestamp) -> Result<[Envelope; 2], Error> {
        let forward = Self::about(new.verifying_key(), now, None).sign(old)?;
        let back = Self::about(old.verifying_key(), Timestamp::MIN, Some(now)).sign(new)?;
        Ok([forward, back])
    }

    /// Signs the statement with the root that makes it.
    pub fn sign(&self, by: &SigningKey) -> Result<Envelope, Error> {
        let payload = serde_json::to_vec(self).map_err(Error::Format)?;
        Ok(Envelope::sign(PAYLOAD_TYPE, &payload, by)?)
    }

    /// Believes `envelope` if the root `by` signed it and what it says of its key is true.
    pub fn verify(envelope: &Envelope, by: &VerifyingKey) -> Result<Self, Error> {
        Self::parse(envelope.open(PAYLOAD_TYPE, by)?)
    }

    /// Reads the payload without asking who signed it.
    pub(crate) fn parse(payload: &[u8]) -> Result<Self, Error> {
        let statement: Self = json::from_slice(payload).map_err(Error::Format)?;
        if statement.type_ != TYPE {
            return Err(Error::Type(statement.type_));
        }
        let key = statement.verifying_key()?;
        if *key.key_id() == statement.key_id && key.suite() == statement.suite {
            Ok(statement)
        } else {
            Err(Error::KeyMismatch {
                named: statement.key_id,
                actual: key.key_id().clone(),
            })
        }
    }

    /// The public key that the statement is about.
    pub fn verifying_key(&self) -> Result<VerifyingKey, Error> {
        VerifyingKey::from_spki_pem(&self.public_key).map_err(Error::PublicKey)
    }
}
