//! DSSE envelopes with exactly one signature, read strictly.
//!
//! The signature covers the pre-authentication encoding of type and payload, so the payload's bytes travel as they
//! were signed and are never serialised again. Protocol: <https://github.com/secure-systems-lab/dsse>, version 1.

use crate::binary_text::{BASE64, Engine as _};
use crate::key::{self, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::borrow::Cow;

/// Why an envelope could not be read, made or opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not JSON of the envelope's shape, or with a field twice, an unknown field, or bytes after it.
    #[error("not a DSSE envelope")]
    Format(#[source] serde_json::Error),
    /// None, or more than one.
    #[error("an envelope must carry exactly one signature, this one has {0}")]
    SignatureCount(usize),
    /// Payload or signature is not standard base64 with padding.
    #[error("the envelope's {0} is not base64")]
    Base64(&'static str),
    /// The payload is of another type than the reader expects.
    #[error("the payload's type is `{found}`, expected `{expected}`")]
    PayloadType {
        /// The type that the envelope names.
        found: String,
        /// The type that was asked for.
        expected: &'static str,
    },
    /// Signing failed, or the signature is not valid.
    #[error(transparent)]
    Key(#[from] key::Error),
}

/// One payload with one signature. What it holds is unproven until [`Envelope::verify`] or [`Envelope::open`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    payload_type: String,
    /// The bytes that are signed; they end with the payload.
    signed: Vec<u8>,
    payload_len: usize,
    key_id: String,
    signature: Vec<u8>,
}

impl Envelope {
    /// Signs `payload` as one of `payload_type`.
    pub fn sign(payload_type: &str, payload: &[u8], key: &SigningKey) -> Result<Self, Error> {
        Self::sign_owned(payload_type, payload.to_vec(), key)
    }

    /// As [`Envelope::sign`], for a payload that is needed no longer: it becomes a part of the envelope without a copy.
    pub(crate) fn sign_owned(payload_type: &str, payload: Vec<u8>, key: &SigningKey) -> Result<Self, Error> {
        let payload_len = payload.len();
        let mut signed = payload;
        signed.splice(..0, pae_head(payload_type, payload_len).into_bytes());
        let signature = key.sign(&signed)?;
        Ok(Self {
            payload_type: payload_type.to_owned(),
            signed,
            payload_len,
            key_id: key.verifying_key().key_id().to_string(),
            signature,
        })
    }

    /// Reads one envelope from exactly `json`.
    pub fn from_json(json: &[u8]) -> Result<Self, Error> {
        serde_json::from_slice::<Wire>(json)
            .map_err(Error::Format)?
            .decode()
    }

    /// The envelope as compact JSON.
    ///
    /// Base64 needs no escapes, so it is written straight into its place: a serialiser would look at every sign of it.
    pub fn to_json(&self) -> String {
        let base64_len = (self.payload().len() + self.signature.len()) / 3 * 4;
        let mut json = String::with_capacity(base64_len + self.payload_type.len() + self.key_id.len() + 128);
        json.push_str("{\"payloadType\":");
        json.push_str(&quoted(&self.payload_type));
        json.push_str(",\"payload\":\"");
        BASE64.encode_string(self.payload(), &mut json);
        json.push_str("\",\"signatures\":[{\"keyid\":");
        json.push_str(&quoted(&self.key_id));
        json.push_str(",\"sig\":\"");
        BASE64.encode_string(&self.signature, &mut json);
        json.push_str("\"}]}");
        json
    }

    /// The payload, if the signature is valid under `key`. The envelope's own key id is a hint and plays no part.
    pub fn verify(&self, key: &VerifyingKey) -> Result<&[u8], Error> {
        key.verify(&self.signed, &self.signature)?;
        Ok(self.payload())
    }

    /// As [`Envelope::verify`], for a payload that must be of one type.
    pub fn open(&self, payload_type: &'static str, key: &VerifyingKey) -> Result<&[u8], Error> {
        if self.payload_type != payload_type {
            return Err(Error::PayloadType {
                found: self.payload_type.clone(),
                expected: payload_type,
            });
        }
        self.verify(key)
    }

    /// The type that the envelope gives its payload.
    pub fn payload_type(&self) -> &str {
        &self.payload_type
    }

    /// The payload's bytes, as yet unproven: for digests, and for looking up the key to verify with.
    pub fn payload(&self) -> &[u8] {
        &self.signed[self.signed.len() - self.payload_len..]
    }

    /// The key that the envelope says signed it: a hint, never a decision.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The raw signature.
    pub fn signature(&self) -> &[u8] {
        &self.signature
    }
}

impl Serialize for Envelope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Wire {
            payload_type: Cow::Borrowed(&self.payload_type),
            payload: BASE64.encode(self.payload()).into(),
            signatures: vec![WireSignature {
                keyid: Cow::Borrowed(&self.key_id),
                sig: BASE64.encode(&self.signature).into(),
            }],
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Envelope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Wire::deserialize(deserializer)?
            .decode()
            .map_err(de::Error::custom)
    }
}

/// The bytes that are signed: `"DSSEv1" SP LEN(type) SP type SP LEN(payload) SP payload`.
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    [pae_head(payload_type, payload.len()).as_bytes(), payload].concat()
}

fn pae_head(payload_type: &str, payload_len: usize) -> String {
    format!("DSSEv1 {} {payload_type} {payload_len} ", payload_type.len())
}

/// `text` as a JSON string.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string always serialises")
}

/// The JSON of an envelope. Derived structs refuse a field that occurs twice; `deny_unknown_fields` refuses the rest.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Wire<'a> {
    #[serde(borrow)]
    payload_type: Cow<'a, str>,
    #[serde(borrow)]
    payload: Cow<'a, str>,
    #[serde(borrow)]
    signatures: Vec<WireSignature<'a>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WireSignature<'a> {
    #[serde(borrow)]
    keyid: Cow<'a, str>,
    #[serde(borrow)]
    sig: Cow<'a, str>,
}

impl Wire<'_> {
    fn decode(self) -> Result<Envelope, Error> {
        let [signature] = self.signatures.as_slice() else {
            return Err(Error::SignatureCount(self.signatures.len()));
        };
        let payload = BASE64
            .decode(self.payload.as_bytes())
            .map_err(|_| Error::Base64("payload"))?;
        Ok(Envelope {
            signed: pae(&self.payload_type, &payload),
            payload_len: payload.len(),
            signature: BASE64
                .decode(signature.sig.as_bytes())
                .map_err(|_| Error::Base64("signature"))?,
            key_id: signature.keyid.clone().into_owned(),
            payload_type: self.payload_type.into_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Suite;
    use std::sync::LazyLock;

    static KEY: LazyLock<SigningKey> =
        LazyLock::new(|| SigningKey::from_seed(Suite::MlDsa87, &[1; 32]).unwrap());

    #[test]
    fn the_encoding_to_sign_is_that_of_the_protocol() {
        assert_eq!(
            pae("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
        assert_eq!(pae("", b""), b"DSSEv1 0  0 ");
    }

    #[test]
    fn an_envelope_survives_json_and_opens_for_its_key_and_type_only() {
        let envelope = Envelope::sign("text/x", b"{}", &KEY).unwrap();
        let read = Envelope::from_json(envelope.to_json().as_bytes()).unwrap();
        assert_eq!(read, envelope);
        assert_eq!(read.open("text/x", KEY.verifying_key()).unwrap(), b"{}");
        assert!(matches!(
            read.open("text/y", KEY.verifying_key()),
            Err(Error::PayloadType { .. })
        ));
        let other = SigningKey::from_seed(Suite::MlDsa87, &[2; 32]).unwrap();
        assert!(read.verify(other.verifying_key()).is_err());
    }

    #[test]
    fn an_envelope_written_by_hand_is_what_a_serialiser_writes() {
        for text in ["", "text/x", "a \"quoted\" \\ type", "\u{0}\n\u{7f}é\u{2028}"] {
            let mut envelope = Envelope::sign(text, text.as_bytes(), &KEY).unwrap();
            envelope.key_id = text.to_owned();
            assert_eq!(envelope.to_json(), serde_json::to_string(&envelope).unwrap());
        }
    }

    #[test]
    fn whatever_is_not_exactly_an_envelope_is_refused() {
        let good = r#"{"payloadType":"t","payload":"e30=","signatures":[{"keyid":"k","sig":"AA=="}]}"#;
        assert!(Envelope::from_json(good.as_bytes()).is_ok());
        for (bad, why) in [
            (good.replace("e30=", "e30"), "padding missing"),
            (good.replace("e30=", "e30=="), "too much padding"),
            (good.replace("e30=", "e31="), "bits after the end"),
            (good.replace("e30=", "e3 0="), "white space in base64"),
            (good.replace("e30=", "_-8="), "the other alphabet"),
            (good.replace("AA==", "A"), "a broken signature"),
            (format!("{good}x"), "trailing bytes"),
            (format!("{good}{good}"), "two envelopes"),
            (
                good.replace("\"payload\"", "\"payloadType\":\"t\",\"payload\""),
                "a field twice",
            ),
            (
                good.replace("\"payload\"", "\"extra\":1,\"payload\""),
                "an unknown field",
            ),
            (
                good.replace("\"sig\"", "\"cert\":\"\",\"sig\""),
                "an unknown field in a signature",
            ),
            (
                good.replace("}]", "},{\"keyid\":\"k\",\"sig\":\"AA==\"}]"),
                "two signatures",
            ),
            (
                good.replace("{\"keyid\":\"k\",\"sig\":\"AA==\"}", ""),
                "no signature",
            ),
            (good.replace("\"keyid\":\"k\",", ""), "no key id"),
            (good.replace("\"t\"", "1"), "a number for a type"),
            ("[]".into(), "a list"),
            (String::new(), "nothing"),
        ] {
            assert!(Envelope::from_json(bad.as_bytes()).is_err(), "{why}");
        }
    }
}
