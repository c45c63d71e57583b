//! Private keys of any purpose, as policies keep them: those that sign and those that decapsulate.

use crate::entropy::{Dropped, Entropy};
use crate::kem::DecapsulationKey;
use crate::key::{Error, KeyId, SigningKey};
use crate::public_key::{KeySuite, PublicKey};
use zeroize::Zeroizing;

/// A private key of any purpose. Neither `Debug` nor `Clone`; its bytes are wiped when it is dropped.
pub enum PrivateKey {
    /// Signs.
    Signing(SigningKey),
    /// Opens what was encapsulated.
    Decapsulation(DecapsulationKey),
}

impl PrivateKey {
    /// A new key from `entropy`, and the sources that failed.
    pub fn generate_from(suite: KeySuite, entropy: &Entropy) -> Result<(Self, Vec<Dropped>), Error> {
        match suite {
            KeySuite::Signature(suite) => {
                let (key, dropped) = SigningKey::generate_from(suite, entropy)?;
                Ok((Self::Signing(key), dropped))
            }
            KeySuite::Encapsulation(_) => {
                let (key, dropped) = DecapsulationKey::generate_from(entropy)?;
                Ok((Self::Decapsulation(key), dropped))
            }
        }
    }

    /// The key that belongs to `seed`, which must have the suite's length.
    pub fn from_seed(suite: KeySuite, seed: &[u8]) -> Result<Self, Error> {
        match suite {
            KeySuite::Signature(suite) => SigningKey::from_seed(suite, seed).map(Self::Signing),
            KeySuite::Encapsulation(suite) => {
                let seed = seed.try_into().map_err(|_| Error::Encapsulation(suite))?;
                DecapsulationKey::from_seed(seed).map(Self::Decapsulation)
            }
        }
    }

    /// The seed, to be stored where only its owner can read it.
    pub fn seed(&self) -> Zeroizing<Vec<u8>> {
        match self {
            Self::Signing(key) => key.seed(),
            Self::Decapsulation(key) => Zeroizing::new(key.seed().to_vec()),
        }
    }

    /// The suite of the key.
    pub fn suite(&self) -> KeySuite {
        self.public_key().suite()
    }

    /// The public half.
    pub fn public_key(&self) -> PublicKey {
        match self {
            Self::Signing(key) => key.verifying_key().into(),
            Self::Decapsulation(key) => key.encapsulation_key().into(),
        }
    }

    /// The name of the public half.
    pub fn key_id(&self) -> &KeyId {
        match self {
            Self::Signing(key) => key.verifying_key().key_id(),
            Self::Decapsulation(key) => key.encapsulation_key().key_id(),
        }
    }

    /// The key, if it signs.
    pub fn as_signing(&self) -> Option<&SigningKey> {
        match self {
            Self::Signing(key) => Some(key),
            Self::Decapsulation(_) => None,
        }
    }

    /// The key, if it opens what was encapsulated.
    pub fn as_decapsulation(&self) -> Option<&DecapsulationKey> {
        match self {
            Self::Signing(_) => None,
            Self::Decapsulation(key) => Some(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kem::KemSuite;
    use crate::suite::Suite;

    #[test]
    fn keys_of_every_purpose_come_back_from_their_seeds() {
        for suite in [
            KeySuite::Signature(Suite::MlDsa87),
            KeySuite::Signature(Suite::Ed25519MlDsa87),
            KeySuite::Encapsulation(KemSuite::MlKem1024),
        ] {
            let (key, dropped) = PrivateKey::generate_from(suite, &Entropy::system()).unwrap();
            assert!(dropped.is_empty());
            assert_eq!(key.suite(), suite);
            let back = PrivateKey::from_seed(suite, &key.seed()).unwrap();
            assert_eq!(back.public_key(), key.public_key());
            assert!(PrivateKey::from_seed(suite, &key.seed()[1..]).is_err());
        }
    }
}
