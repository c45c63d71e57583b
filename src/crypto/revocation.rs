//! Revocations: what a root says of a key whose signatures must no longer be believed.

use crate::dsse::{self, Envelope};
use crate::json;
use crate::key::{KeyId, SigningKey, VerifyingKey};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The payload type of a revocation's envelope.
pub const PAYLOAD_TYPE: &str = "application/vnd.chimera.revocation+json";
/// The `_type` of a revocation.
pub const TYPE: &str = "https://chimera.dunes.io/revocation/v1";

/// Why a revocation could not be made or believed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The envelope could not be signed, or this root did not sign it.
    #[error("a revocation must be signed by a root")]
    Envelope(#[from] dsse::Error),
    /// The signed bytes are no revocation.
    #[error("the signed bytes are no revocation")]
    Format(#[source] serde_json::Error),
    /// A `_type` of another version.
    #[error("a revocation's _type must be `{TYPE}`, found `{0}`")]
    Type(String),
}

/// Why a key was revoked: the reasons of RFC 5280, section 5.3.1, that apply here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RevocationReason {
    /// Somebody else has or may have the private key. He can write any time into what he signs.
    KeyCompromise,
    /// Another key took its place.
    Superseded,
    /// It is no longer needed.
    CessationOfOperation,
    /// Its owner lost the right to use it.
    PrivilegeWithdrawn,
}

impl fmt::Display for RevocationReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KeyCompromise => "KeyCompromise",
            Self::Superseded => "Superseded",
            Self::CessationOfOperation => "CessationOfOperation",
            Self::PrivilegeWithdrawn => "PrivilegeWithdrawn",
        })
    }
}

/// A root's statement that a key must no longer be believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Revocation {
    /// Always [`TYPE`].
    #[serde(rename = "_type")]
    pub type_: String,
    /// The key that is revoked.
    pub key_id: KeyId,
    /// Why.
    pub reason: RevocationReason,
    /// What names this time or a later one under the key does not count; without it, nothing does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// When the root said so.
    pub revoked_at: Timestamp,
}

impl Revocation {
    /// A revocation, not yet signed.
    pub fn of(
        key_id: KeyId,
        reason: RevocationReason,
        since: Option<Timestamp>,
        revoked_at: Timestamp,
    ) -> Self {
        Self {
            type_: TYPE.to_owned(),
            key_id,
            reason,
            since,
            revoked_at,
        }
    }

    /// The key that the revocation in `envelope` claims to be of, whoever signed it: for finding it, not for belief.
    pub fn claimed_key(envelope: &Envelope) -> Option<KeyId> {
        let claimed: Self = serde_json::from_slice(envelope.payload()).ok()?;
        Some(claimed.key_id)
    }

    /// Whether what the key signed at `time` is still believed.
    pub fn spares(&self, time: Timestamp) -> bool {
        self.since.is_some_and(|since| time < since)
    }

    /// Signs the revocation with the root.
    pub fn sign(&self, root: &SigningKey) -> Result<Envelope, Error> {
        let payload = serde_json::to_vec(self).map_err(Error::Format)?;
        Ok(Envelope::sign(PAYLOAD_TYPE, &payload, root)?)
    }

    /// Believes `envelope` if `root` signed it.
    pub fn verify(envelope: &Envelope, root: &VerifyingKey) -> Result<Self, Error> {
        let revocation: Self = json::from_slice(envelope.open(PAYLOAD_TYPE, root)?).map_err(Error::Format)?;
        if revocation.type_ == TYPE {
            Ok(revocation)
        } else {
            Err(Error::Type(revocation.type_))
        }
    }
}

impl fmt::Display for Revocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "revoked {} for {}", self.revoked_at, self.reason)?;
        match self.since {
            Some(since) => write!(f, ", from {since} on"),
            None => write!(f, ", all that it ever signed"),
        }
    }
}
