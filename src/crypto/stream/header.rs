//! Epoch headers: what the sender signs before the first packet of each epoch.

use super::schedule::LEN;
use super::{Error, PAYLOAD_TYPE, TYPE};
use crate::dsse::Envelope;
use crate::entropy::Entropy;
use crate::kem::{CIPHERTEXT_LEN, KemSuite};
use crate::key::{self, KeyId, SigningKey, VerifyingKey};
use crate::{Suite, json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;

/// The longest envelope of a header in bytes that is read from a transport.
pub const HEADER_LIMIT: usize = 32 * 1024;

/// What packets are encrypted with. Unknown names are refused when a header is read, never guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AeadSuite {
    /// Four lanes of AES-256-GCM, each with its own key.
    #[serde(rename = "AES-256-GCM-L4")]
    Aes256GcmL4,
}

impl fmt::Display for AeadSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Aes256GcmL4 => "AES-256-GCM-L4",
        })
    }
}

/// The name of a stream: 16 random bytes, written as 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StreamId([u8; Self::LEN]);

impl StreamId {
    pub(super) const LEN: usize = 16;

    pub(super) fn generate() -> Result<Self, Error> {
        let mut bytes = [0; Self::LEN];
        Entropy::system().fill(&mut bytes).map_err(key::Error::from)?;
        Ok(Self(bytes))
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    #[cfg(test)]
    pub(super) const fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl Serialize for StreamId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for StreamId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        hex_array(deserializer).map(Self)
    }
}

/// What the sender says of an epoch.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    /// Always [`TYPE`].
    #[serde(rename = "_type")]
    pub(super) type_: String,
    /// The suite of the header's own signature.
    pub(super) suite: Suite,
    /// How the stream's secret was agreed on.
    pub(super) kem: KemSuite,
    /// What packets are encrypted with.
    pub(super) aead: AeadSuite,
    /// The stream.
    pub(super) sid: StreamId,
    /// The receiver's key.
    pub(super) kid: KeyId,
    /// The KEM's ciphertext; epoch 0 alone has one.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "write_base64",
        deserialize_with = "read_base64"
    )]
    pub(super) ct: Option<Vec<u8>>,
    /// The epoch, from 0 on without gaps.
    pub(super) epoch: u16,
    /// The sequence number of its first packet; the epoch before ended with the number before.
    pub(super) first: u64,
    /// The commitment to the epoch's keys.
    #[serde(serialize_with = "write_hex", deserialize_with = "hex_array")]
    pub(super) cmt: [u8; LEN],
}

impl Header {
    pub(super) fn payload(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and numbers alone always serialise")
    }

    pub(super) fn sign(&self, key: &SigningKey) -> Result<Envelope, Error> {
        Ok(Envelope::sign(PAYLOAD_TYPE, &self.payload(), key)?)
    }

    /// Reads a header strictly, once its signature was found to be the sender's.
    pub(super) fn verify(envelope: &Envelope, sender: &VerifyingKey) -> Result<Self, Error> {
        // A hint elsewhere, and here no bit of a header may be another.
        if envelope.key_id() != sender.key_id().as_str() {
            return Err(Error::OtherSender);
        }
        let header: Self = json::from_slice(envelope.open(PAYLOAD_TYPE, sender)?).map_err(Error::Format)?;
        if header.type_ != TYPE {
            return Err(Error::Type(header.type_));
        }
        if header.suite != sender.suite() {
            return Err(Error::Suite {
                named: header.suite,
                actual: sender.suite(),
            });
        }
        if header.ct.as_ref().map(Vec::len) != (header.epoch == 0).then_some(CIPHERTEXT_LEN) {
            return Err(Error::Ciphertext);
        }
        Ok(header)
    }
}

#[expect(clippy::ref_option, reason = "serde gives a reference to the field")]
fn write_base64<S: Serializer>(bytes: &Option<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
    bytes
        .as_ref()
        .map(|bytes| STANDARD.encode(bytes))
        .serialize(serializer)
}

/// A text; `null` is not one, so a field that is not there has no second form.
fn read_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
    let text = String::deserialize(deserializer)?;
    STANDARD.decode(text).map(Some).map_err(de::Error::custom)
}

fn write_hex<S: Serializer>(bytes: &[u8; LEN], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex::encode(bytes))
}

/// `N` bytes in lower-case hexadecimal.
fn hex_array<'de, D: Deserializer<'de>, const N: usize>(deserializer: D) -> Result<[u8; N], D::Error> {
    let text = String::deserialize(deserializer)?;
    let mut bytes = [0; N];
    hex::decode_to_slice(&text, &mut bytes).map_err(de::Error::custom)?;
    if text.bytes().any(|sign| sign.is_ascii_uppercase()) {
        return Err(de::Error::custom("hexadecimal digits must be lower-case"));
    }
    Ok(bytes)
}
