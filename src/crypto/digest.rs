//! Digests of raw bytes, in the shape of in-toto's DigestSet.

use aws_lc_rs::digest::{SHA256, digest};
use serde::{Deserialize, Deserializer, Serialize, de};
use std::collections::BTreeMap;

/// Two digests of the same bytes. in-toto predefines no `blake3`, so `sha256` always stands beside it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DigestSet {
    /// SHA-256, 64 lower-case hexadecimal digits.
    #[serde(deserialize_with = "hex32")]
    pub sha256: String,
    /// BLAKE3 (256 bit), 64 lower-case hexadecimal digits.
    #[serde(deserialize_with = "hex32")]
    pub blake3: String,
}

impl DigestSet {
    /// Both digests of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self {
            sha256: sha256_hex(bytes),
            blake3: blake3::hash(bytes).to_hex().to_string(),
        }
    }

    /// Whether `bytes` has both digests.
    pub fn matches(&self, bytes: &[u8]) -> bool {
        *self == Self::of(bytes)
    }

    /// Both digests as a resource descriptor's map.
    pub fn to_map(&self) -> BTreeMap<String, String> {
        BTreeMap::from([
            ("blake3".into(), self.blake3.clone()),
            ("sha256".into(), self.sha256.clone()),
        ])
    }
}

/// Lower-case hexadecimal SHA-256 of `bytes`.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(digest(&SHA256, bytes))
}

/// Whether `text` is 32 bytes in lower-case hexadecimal.
pub(crate) fn is_hex32(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn hex32<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if is_hex32(&text) {
        Ok(text)
    } else {
        Err(de::Error::custom(
            "a digest must be 64 lower-case hexadecimal digits",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_empty_string_has_the_published_digests() {
        let digest = DigestSet::of(b"");
        assert_eq!(
            digest.sha256,
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(
            digest.blake3,
            "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
        );
        assert!(digest.matches(b"") && !digest.matches(b" "));
    }

    #[test]
    fn digests_of_another_form_are_refused() {
        let good = serde_json::to_string(&DigestSet::of(b"x")).unwrap();
        assert!(serde_json::from_str::<DigestSet>(&good).is_ok());
        for bad in [
            good.to_uppercase()
                .replace("SHA256", "sha256")
                .replace("BLAKE3", "blake3"),
            r#"{"sha256":"00","blake3":"00"}"#.into(),
            good.replace('}', r#","md5":"00"}"#),
            format!("{{\"sha256\":\"{}\"}}", "0".repeat(64)),
        ] {
            assert!(serde_json::from_str::<DigestSet>(&bad).is_err(), "{bad}");
        }
    }
}
