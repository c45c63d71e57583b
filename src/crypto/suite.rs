//! The signature suites and their sizes. A suite's name stands inside every signed payload, so that a signature made
//! under one suite can never be passed off as one of another.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A signature suite. Unknown names are refused when a document is read, never guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Suite {
    /// Pure ML-DSA-87 of FIPS 204 (NIST level 5) with an empty context.
    #[serde(rename = "ML-DSA-87")]
    MlDsa87,
}

impl Suite {
    /// The name as it stands in signed payloads, key statements and receipts.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MlDsa87 => "ML-DSA-87",
        }
    }

    /// Length of an encoded public key in bytes (FIPS 204, table 2).
    pub const fn public_key_len(self) -> usize {
        match self {
            Self::MlDsa87 => 2592,
        }
    }

    /// Length of a signature in bytes (FIPS 204, table 2).
    pub const fn signature_len(self) -> usize {
        match self {
            Self::MlDsa87 => 4627,
        }
    }

    /// Length of an expanded private key in bytes (FIPS 204, table 2). Only the seed is ever stored.
    pub(crate) const fn expanded_key_len(self) -> usize {
        match self {
            Self::MlDsa87 => 4896,
        }
    }

    /// The DER that stands before the raw key in a SubjectPublicKeyInfo. Key lengths are fixed, so this prefix is too:
    /// comparing it refuses every other encoding of the same key.
    pub(crate) const fn spki_prefix(self) -> &'static [u8] {
        match self {
            // SEQUENCE { SEQUENCE { OID 2.16.840.1.101.3.4.3.19 }, BIT STRING (no unused bits) }
            Self::MlDsa87 => &[
                0x30, 0x82, 0x0a, 0x32, 0x30, 0x0b, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04,
                0x03, 0x13, 0x03, 0x82, 0x0a, 0x21, 0x00,
            ],
        }
    }

    /// The DER that stands before the seed in a PKCS #8 private key that holds nothing but the seed.
    pub(crate) const fn pkcs8_prefix(self) -> &'static [u8] {
        match self {
            // SEQUENCE { INTEGER 0, SEQUENCE { OID 2.16.840.1.101.3.4.3.19 }, OCTET STRING { [0] of 32 bytes } }
            Self::MlDsa87 => &[
                0x30, 0x34, 0x02, 0x01, 0x00, 0x30, 0x0b, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03,
                0x04, 0x03, 0x13, 0x04, 0x22, 0x80, 0x20,
            ],
        }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
