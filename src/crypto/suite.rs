//! The signature suites. A suite's name stands inside every signed payload, so that a signature made under one suite
//! can never be passed off as one of another.

use crate::algorithm::Algorithm;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A signature suite: one algorithm, or two whose signatures must both be valid. Unknown names are refused when a
/// document is read, never guessed.
///
/// A suite of two has no encoding of its own: its keys, seeds and signatures are those of its algorithms, one after the
/// other in the order of the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Suite {
    /// Pure ML-DSA-87 of FIPS 204 (NIST level 5) with an empty context.
    #[serde(rename = "ML-DSA-87")]
    MlDsa87,
    /// Pure ML-DSA-65 of FIPS 204 (NIST level 3) with an empty context.
    #[serde(rename = "ML-DSA-65")]
    MlDsa65,
    /// Ed25519 of RFC 8032 and pure ML-DSA-87, each over the same message.
    #[serde(rename = "Ed25519+ML-DSA-87")]
    Ed25519MlDsa87,
}

impl Suite {
    /// Every suite that this crate knows, the default first.
    pub const ALL: [Self; 3] = [Self::MlDsa87, Self::MlDsa65, Self::Ed25519MlDsa87];

    /// The name as it stands in signed payloads, key statements and receipts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MlDsa87 => "ML-DSA-87",
            Self::MlDsa65 => "ML-DSA-65",
            Self::Ed25519MlDsa87 => "Ed25519+ML-DSA-87",
        }
    }

    /// Length of a raw public key in bytes.
    pub fn public_key_len(self) -> usize {
        self.sum(Algorithm::public_key_len)
    }

    /// Length of a signature in bytes.
    pub fn signature_len(self) -> usize {
        self.sum(Algorithm::signature_len)
    }

    /// Length of a private key's seed in bytes.
    pub fn seed_len(self) -> usize {
        self.algorithms().len() * Algorithm::SEED_LEN
    }

    /// The algorithms whose signatures must all be valid, in the order of every encoding.
    pub(crate) const fn algorithms(self) -> &'static [Algorithm] {
        match self {
            Self::MlDsa87 => &[Algorithm::MlDsa87],
            Self::MlDsa65 => &[Algorithm::MlDsa65],
            Self::Ed25519MlDsa87 => &[Algorithm::Ed25519, Algorithm::MlDsa87],
        }
    }

    /// Cuts `bytes` into one part for each algorithm, of the length that `len` gives it; `None` unless they are used up
    /// to the last.
    pub(crate) fn split(
        self,
        bytes: &[u8],
        len: impl Fn(Algorithm) -> usize,
    ) -> Option<Vec<(Algorithm, &[u8])>> {
        let mut rest = bytes;
        let mut parts = Vec::with_capacity(self.algorithms().len());
        for &algorithm in self.algorithms() {
            let (part, tail) = rest.split_at_checked(len(algorithm))?;
            parts.push((algorithm, part));
            rest = tail;
        }
        rest.is_empty().then_some(parts)
    }

    fn sum(self, len: impl Fn(Algorithm) -> usize) -> usize {
        self.algorithms().iter().copied().map(len).sum()
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suite_has_one_name_and_unknown_names_are_refused() {
        for suite in Suite::ALL {
            let json = format!("\"{suite}\"");
            assert_eq!(serde_json::to_string(&suite).unwrap(), json);
            assert_eq!(serde_json::from_str::<Suite>(&json).unwrap(), suite);
        }
        for name in [
            "",
            "ML-DSA-44",
            "ml-dsa-87",
            "ML-DSA-87 ",
            "Ed25519",
            "ML-DSA-87+Ed25519",
            "Ed25519+ML-DSA-65",
            "MlDsa87",
            "none",
        ] {
            assert!(
                serde_json::from_str::<Suite>(&format!("\"{name}\"")).is_err(),
                "{name}"
            );
        }
        assert!(serde_json::from_str::<Suite>("null").is_err());
    }

    #[test]
    fn sizes_are_those_of_the_standards() {
        let sizes = Suite::ALL.map(|s| (s.public_key_len(), s.signature_len(), s.seed_len()));
        assert_eq!(sizes, [(2592, 4627, 32), (1952, 3309, 32), (2624, 4691, 64)]);
    }
}
