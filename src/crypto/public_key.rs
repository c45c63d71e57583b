//! Public keys of any purpose, as key statements hold them: those that verify and those that encapsulate.

use crate::kem::{EncapsulationKey, KemSuite};
use crate::key::{Error, KeyId, VerifyingKey};
use crate::suite::Suite;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The suite of a key of any purpose, by its one name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum KeySuite {
    /// Of a key that signs.
    Signature(Suite),
    /// Of a key that decapsulates.
    Encapsulation(KemSuite),
}

impl fmt::Display for KeySuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signature(suite) => suite.fmt(f),
            Self::Encapsulation(suite) => suite.fmt(f),
        }
    }
}

/// A public key of any purpose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicKey {
    /// Verifies signatures.
    Verifying(VerifyingKey),
    /// Encapsulates secrets.
    Encapsulation(EncapsulationKey),
}

impl PublicKey {
    /// Reads the PEM of a key of `suite`.
    pub fn from_spki_pem(suite: KeySuite, text: &str) -> Result<Self, Error> {
        match suite {
            KeySuite::Signature(_) => VerifyingKey::from_spki_pem(text).map(Self::Verifying),
            KeySuite::Encapsulation(_) => EncapsulationKey::from_spki_pem(text).map(Self::Encapsulation),
        }
    }

    /// The PEM of the key.
    pub fn spki_pem(&self) -> String {
        match self {
            Self::Verifying(key) => key.spki_pem(),
            Self::Encapsulation(key) => key.spki_pem(),
        }
    }

    /// The key's name.
    pub fn key_id(&self) -> &KeyId {
        match self {
            Self::Verifying(key) => key.key_id(),
            Self::Encapsulation(key) => key.key_id(),
        }
    }

    /// The suite of the key.
    pub fn suite(&self) -> KeySuite {
        match self {
            Self::Verifying(key) => KeySuite::Signature(key.suite()),
            Self::Encapsulation(_) => KeySuite::Encapsulation(KemSuite::MlKem1024),
        }
    }

    /// The key, if it verifies signatures.
    pub fn as_verifying(&self) -> Option<&VerifyingKey> {
        match self {
            Self::Verifying(key) => Some(key),
            Self::Encapsulation(_) => None,
        }
    }

    /// The key, if it encapsulates secrets.
    pub fn as_encapsulation(&self) -> Option<&EncapsulationKey> {
        match self {
            Self::Verifying(_) => None,
            Self::Encapsulation(key) => Some(key),
        }
    }
}

impl From<&VerifyingKey> for PublicKey {
    fn from(key: &VerifyingKey) -> Self {
        Self::Verifying(key.clone())
    }
}

impl From<&EncapsulationKey> for PublicKey {
    fn from(key: &EncapsulationKey) -> Self {
        Self::Encapsulation(key.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kem::DecapsulationKey;
    use crate::key::SigningKey;

    #[test]
    fn suites_have_one_name_each_and_keys_keep_to_theirs() {
        for (name, suite) in [
            ("ML-DSA-87", KeySuite::Signature(Suite::MlDsa87)),
            ("ML-KEM-1024", KeySuite::Encapsulation(KemSuite::MlKem1024)),
        ] {
            let json = format!("\"{name}\"");
            assert_eq!(serde_json::from_str::<KeySuite>(&json).unwrap(), suite);
            assert_eq!(serde_json::to_string(&suite).unwrap(), json);
            assert_eq!(suite.to_string(), name);
        }
        assert!(serde_json::from_str::<KeySuite>("\"ML-KEM-512\"").is_err());

        let kem = DecapsulationKey::from_seed(&[1; 64]).unwrap();
        let signing = SigningKey::from_seed(Suite::MlDsa87, &[1; 32]).unwrap();
        let keys = [
            PublicKey::from(kem.encapsulation_key()),
            PublicKey::from(signing.verifying_key()),
        ];
        for key in &keys {
            let read = PublicKey::from_spki_pem(key.suite(), &key.spki_pem()).unwrap();
            assert_eq!(&read, key);
        }
        assert!(PublicKey::from_spki_pem(keys[0].suite(), &keys[1].spki_pem()).is_err());
    }
}
