//! Signing and verifying keys. Private keys are seeds; the expanded form lives only in memory and is wiped.

use crate::Suite;
use crate::algorithm::{Algorithm, Signer};
use crate::digest::{is_hex32, sha256_hex};
use crate::entropy::{self, Dropped, Entropy};
use crate::kem::KemSuite;
use crate::pem;
use aws_lc_rs::signature::ParsedPublicKey;
use serde::{Deserialize, Deserializer, Serialize, de};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Why a key could not be made or used, or a signature was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system gave no randomness.
    #[error("make a key")]
    Entropy(#[from] entropy::Error),
    /// A seed of another length than the suite's.
    #[error("a seed of {suite} has {} bytes, this one {found}", suite.seed_len())]
    Seed {
        /// The suite of the key.
        suite: Suite,
        /// How many bytes were given.
        found: usize,
    },
    /// The library could not expand the seed of this algorithm.
    #[error("derive a {0} key from its seed")]
    Derive(&'static str),
    /// The library was built without the algorithm, or refused to sign.
    #[error("sign with {0}")]
    Sign(&'static str),
    /// Not the one DER encoding of a public key of a known suite.
    #[error("not a public key of a known suite (SubjectPublicKeyInfo, DER)")]
    Spki,
    /// Not PEM blocks `PUBLIC KEY`.
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
    seed: Zeroizing<Vec<u8>>,
    signers: Vec<Signer>,
    public: VerifyingKey,
}

impl SigningKey {
    /// A new key from the operating system's randomness.
    pub fn generate(suite: Suite) -> Result<Self, Error> {
        Ok(Self::generate_from(suite, &Entropy::system())?.0)
    }

    /// A new key from `entropy`, and the sources that gave nothing to it.
    pub fn generate_from(suite: Suite, entropy: &Entropy) -> Result<(Self, Vec<Dropped>), Error> {
        let mut seed = Zeroizing::new(vec![0; suite.seed_len()]);
        let dropped = entropy.fill(&mut seed)?;
        Ok((Self::from_seed(suite, &seed)?, dropped))
    }

    /// The key that belongs to `seed`, of [`Suite::seed_len`] bytes: always the same one (FIPS 204,
    /// ML-DSA.KeyGen_internal; RFC 8032, section 5.1.5).
    pub fn from_seed(suite: Suite, seed: &[u8]) -> Result<Self, Error> {
        let parts = suite.split(seed, |_| Algorithm::SEED_LEN).ok_or(Error::Seed {
            suite,
            found: seed.len(),
        })?;
        let mut signers = Vec::with_capacity(parts.len());
        let mut public = Vec::with_capacity(suite.public_key_len());
        for (algorithm, seed) in parts {
            let (signer, raw) = algorithm.signer(seed)?;
            signers.push(signer);
            public.extend(raw);
        }
        Ok(Self {
            suite,
            seed: Zeroizing::new(seed.to_vec()),
            signers,
            public: VerifyingKey::from_raw(suite, &public)?,
        })
    }

    /// The seed, to be stored where only its owner can read it.
    pub fn seed(&self) -> Zeroizing<Vec<u8>> {
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

    /// Signs `message` itself (not a hash of it), ML-DSA with an empty context and hedged: two signatures of one message
    /// differ.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let mut signature = Vec::with_capacity(self.suite.signature_len());
        for signer in &self.signers {
            signature.extend(signer.sign(message)?);
        }
        Ok(signature)
    }
}

/// A public key, parsed once.
#[derive(Clone)]
pub struct VerifyingKey {
    suite: Suite,
    parsed: Arc<[ParsedPublicKey]>,
    spki: Arc<[u8]>,
    id: KeyId,
}

impl VerifyingKey {
    /// Reads a key's SubjectPublicKeyInfo in DER, those of a suite of two one after the other; every byte must be as
    /// this crate would write it.
    pub fn from_spki_der(der: &[u8]) -> Result<Self, Error> {
        let (suite, raw) = Suite::ALL
            .into_iter()
            .find_map(|suite| Some((suite, raw_keys(suite, der)?)))
            .ok_or(Error::Spki)?;
        let parsed = raw
            .into_iter()
            .map(|(algorithm, raw)| algorithm.public_key(raw))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            suite,
            parsed,
            spki: der.into(),
            id: KeyId::of_spki(der),
        })
    }

    /// Reads one PEM block `PUBLIC KEY` for each algorithm of the suite, with nothing but white space around them.
    pub fn from_spki_pem(text: &str) -> Result<Self, Error> {
        let blocks: Vec<Vec<u8>> = pem::decode_blocks("PUBLIC KEY", text).ok_or(Error::Pem)?;
        let der = blocks.concat();
        let key = Self::from_spki_der(&der)?;
        let lengths = key.suite.algorithms().iter().map(|one| one.spki_len());
        if blocks.iter().map(Vec::len).eq(lengths) {
            Ok(key)
        } else {
            Err(Error::Pem)
        }
    }

    /// Reads the raw encoding of a public key, those of a suite of two one after the other.
    pub fn from_raw(suite: Suite, raw: &[u8]) -> Result<Self, Error> {
        let parts = suite.split(raw, Algorithm::public_key_len).ok_or(Error::Spki)?;
        let der: Vec<u8> = parts
            .into_iter()
            .flat_map(|(algorithm, raw)| [algorithm.spki_prefix(), raw])
            .flatten()
            .copied()
            .collect();
        Self::from_spki_der(&der)
    }

    /// The SubjectPublicKeyInfo in DER (RFC 9881 for ML-DSA, RFC 8410 for Ed25519), those of a suite of two one after
    /// the other.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki
    }

    /// The same as PEM, a block for each algorithm: lines of 64 characters, newline at the end.
    pub fn spki_pem(&self) -> String {
        let parts = self.suite.split(&self.spki, Algorithm::spki_len);
        parts
            .expect("the key was read by these lengths")
            .into_iter()
            .map(|(_, der)| pem::encode("PUBLIC KEY", der).to_string())
            .collect()
    }

    /// The key's name.
    pub fn key_id(&self) -> &KeyId {
        &self.id
    }

    /// The suite that signatures under this key are made with.
    pub fn suite(&self) -> Suite {
        self.suite
    }

    /// Accepts `signature` only if it is one of `message` under this key: of every algorithm of the suite, ML-DSA with an
    /// empty context (FIPS 204, algorithm 3; RFC 8032, section 5.1.7).
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), Error> {
        let refused = || Error::Signature(self.id.clone());
        let parts = self
            .suite
            .split(signature, Algorithm::signature_len)
            .ok_or_else(refused)?;
        parts
            .iter()
            .zip(self.parsed.iter())
            .try_for_each(|((_, signature), key)| key.verify_sig(message, signature))
            .map_err(|_| refused())
    }
}

/// The raw keys in `der`, if it is the SubjectPublicKeyInfo of a key of `suite`.
fn raw_keys(suite: Suite, der: &[u8]) -> Option<Vec<(Algorithm, &[u8])>> {
    suite
        .split(der, Algorithm::spki_len)?
        .into_iter()
        .map(|(algorithm, der)| Some((algorithm, der.strip_prefix(algorithm.spki_prefix())?)))
        .collect()
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
    use std::collections::BTreeSet;
    use std::sync::LazyLock;

    fn key(suite: Suite, seed: u8) -> SigningKey {
        SigningKey::from_seed(suite, &vec![seed; suite.seed_len()]).unwrap()
    }

    static KEYS: LazyLock<[SigningKey; 3]> = LazyLock::new(|| Suite::ALL.map(|suite| key(suite, 7)));

    #[test]
    fn a_seed_gives_one_key_and_signatures_are_hedged() {
        for key in KEYS.iter() {
            let again = SigningKey::from_seed(key.suite(), &key.seed()).unwrap();
            assert_eq!(again.verifying_key(), key.verifying_key());
            let (one, two) = (key.sign(b"m").unwrap(), again.sign(b"m").unwrap());
            assert_ne!(one, two);
            for signature in [one, two] {
                assert_eq!(signature.len(), key.suite().signature_len());
                key.verifying_key().verify(b"m", &signature).unwrap();
                assert!(key.verifying_key().verify(b"n", &signature).is_err());
            }
        }
    }

    #[test]
    fn a_seed_of_another_length_is_refused() {
        for suite in Suite::ALL {
            for found in [0, 31, 33, 63, 65].into_iter().chain([96 - suite.seed_len()]) {
                assert!(matches!(
                    SigningKey::from_seed(suite, &vec![7; found]),
                    Err(Error::Seed { .. })
                ));
            }
        }
    }

    #[test]
    fn generated_keys_differ() {
        for suite in Suite::ALL {
            let one = SigningKey::generate(suite).unwrap();
            let two = SigningKey::generate(suite).unwrap();
            assert_ne!(one.verifying_key().key_id(), two.verifying_key().key_id());
            let signature = one.sign(b"m").unwrap();
            assert!(two.verifying_key().verify(b"m", &signature).is_err());
        }
    }

    #[test]
    fn one_key_signs_in_many_threads_at_once() {
        std::thread::scope(|scope| {
            for thread in 0_u8..4 {
                let key = &KEYS[usize::from(thread) % KEYS.len()];
                scope.spawn(move || {
                    for round in 0_u8..8 {
                        let message = [thread, round];
                        let signature = key.sign(&message).unwrap();
                        key.verifying_key().verify(&message, &signature).unwrap();
                    }
                });
            }
        });
    }

    #[test]
    fn public_keys_survive_der_and_pem_and_nothing_else_is_read() {
        for key in KEYS.iter().map(SigningKey::verifying_key) {
            let (der, pem) = (key.spki_der(), key.spki_pem());
            assert_eq!(&VerifyingKey::from_spki_der(der).unwrap(), key);
            assert_eq!(&VerifyingKey::from_spki_pem(&pem).unwrap(), key);
            assert_eq!(
                &VerifyingKey::from_spki_pem(&pem.replace('\n', "\r\n")).unwrap(),
                key
            );
            assert_eq!(key.key_id().as_str(), sha256_hex(der));
            assert!(VerifyingKey::from_spki_der(&[der, &[0]].concat()).is_err());
            assert!(VerifyingKey::from_spki_der(&der[1..]).is_err());
            assert!(VerifyingKey::from_spki_der(&der[..der.len() - 1]).is_err());
            let mut start = 0;
            for algorithm in key.suite().algorithms() {
                for index in start..start + algorithm.spki_prefix().len() {
                    let mut bent = der.to_vec();
                    bent[index] ^= 1;
                    assert!(VerifyingKey::from_spki_der(&bent).is_err(), "byte {index}");
                }
                start += algorithm.spki_len();
            }
            for bad in [
                "",
                "x",
                &pem.replace("PUBLIC", "PRIVATE"),
                &format!("{pem}{pem}"),
                &format!("{pem}x"),
                &pem.replace('M', "!"),
                &pem::encode("PUBLIC KEY", &[der, &[0]].concat()),
            ] {
                assert!(VerifyingKey::from_spki_pem(bad).is_err(), "{bad}");
            }
        }
    }

    #[test]
    fn a_hybrid_key_is_two_blocks_that_any_reader_of_either_algorithm_knows() {
        use aws_lc_rs::signature::{ED25519, ML_DSA_87};
        let hybrid = key(Suite::Ed25519MlDsa87, 7);
        let pem = hybrid.verifying_key().spki_pem();
        let blocks: Vec<Vec<u8>> = pem::decode_blocks("PUBLIC KEY", &pem).unwrap();
        let signature = hybrid.sign(b"m").unwrap();
        let (classical, quantum) = signature.split_at(64);
        ParsedPublicKey::new(&ED25519, &blocks[0])
            .unwrap()
            .verify_sig(b"m", classical)
            .unwrap();
        ParsedPublicKey::new(&ML_DSA_87, &blocks[1])
            .unwrap()
            .verify_sig(b"m", quantum)
            .unwrap();
        // One block that holds both, and both in the other order, are no keys.
        let joined = pem::encode("PUBLIC KEY", hybrid.verifying_key().spki_der());
        assert!(VerifyingKey::from_spki_pem(&joined).is_err());
        let swapped = [blocks[1].as_slice(), &blocks[0]].concat();
        assert!(VerifyingKey::from_spki_der(&swapped).is_err());
    }

    #[test]
    fn half_a_hybrid_key_is_another_key_and_never_verifies_a_hybrid_signature() {
        let hybrid = key(Suite::Ed25519MlDsa87, 7);
        let signature = hybrid.sign(b"m").unwrap();
        let der = hybrid.verifying_key().spki_der();
        assert!(VerifyingKey::from_spki_der(&der[..44]).is_err());
        let half = VerifyingKey::from_spki_der(&der[44..]).unwrap();
        assert_eq!(half.suite(), Suite::MlDsa87);
        assert_ne!(half.key_id(), hybrid.verifying_key().key_id());
        assert!(half.verify(b"m", &signature).is_err());
        // The names of suites in signed bytes are what tells this one apart: see tests/suites.rs.
        assert!(half.verify(b"m", &signature[64..]).is_ok());
    }

    #[test]
    fn a_hybrid_signature_needs_both_halves_whole_and_in_order() {
        let (one, two) = (key(Suite::Ed25519MlDsa87, 7), key(Suite::Ed25519MlDsa87, 8));
        let public = one.verifying_key();
        let (good, other) = (one.sign(b"m").unwrap(), two.sign(b"m").unwrap());
        public.verify(b"m", &good).unwrap();
        let (classical, quantum) = good.split_at(64);
        for (why, bad) in [
            ("Ed25519 alone", classical.to_vec()),
            ("ML-DSA alone", quantum.to_vec()),
            ("halves swapped", [quantum, classical].concat()),
            ("a zeroed Ed25519 half", [&[0; 64], quantum].concat()),
            ("a zeroed ML-DSA half", [classical, &[0; 4627]].concat()),
            ("another key's Ed25519 half", [&other[..64], quantum].concat()),
            ("another key's ML-DSA half", [classical, &other[64..]].concat()),
            ("another message's Ed25519 half", {
                [&one.sign(b"n").unwrap()[..64], quantum].concat()
            }),
            ("truncated", good[..good.len() - 1].to_vec()),
            ("extended", [&good[..], &[0]].concat()),
            ("extended in front", [&[0], &good[..]].concat()),
            ("twice", [&good[..], &good[..]].concat()),
            ("nothing", vec![]),
        ] {
            assert!(public.verify(b"m", &bad).is_err(), "{why}");
        }
        for index in (0..good.len()).step_by(13).chain(0..64) {
            let mut bent = good.clone();
            bent[index] ^= 0x10;
            assert!(public.verify(b"m", &bent).is_err(), "byte {index}");
        }
    }

    #[test]
    fn a_signature_of_one_suite_is_refused_under_every_other() {
        for signer in KEYS.iter() {
            let signature = signer.sign(b"m").unwrap();
            for verifier in KEYS.iter().filter(|key| key.suite() != signer.suite()) {
                let public = verifier.verifying_key();
                assert!(public.verify(b"m", &signature).is_err());
                let mut fitted = signature.clone();
                fitted.resize(public.suite().signature_len(), 0);
                assert!(public.verify(b"m", &fitted).is_err());
            }
        }
    }

    /// RFC 8032, section 5.1.7: S below the order of the group, else one signature could be written in several ways.
    #[test]
    fn an_ed25519_half_whose_scalar_is_not_reduced_is_refused() {
        const ORDER: [u8; 32] = [
            0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
        ];
        let hybrid = key(Suite::Ed25519MlDsa87, 7);
        let mut signature = hybrid.sign(b"m").unwrap();
        let mut carry = 0;
        for (byte, order) in signature[32..64].iter_mut().zip(ORDER) {
            let sum = u16::from(*byte) + u16::from(order) + carry;
            [*byte, _] = sum.to_le_bytes();
            carry = sum >> 8;
        }
        assert_eq!(carry, 0);
        assert!(hybrid.verifying_key().verify(b"m", &signature).is_err());
    }

    #[test]
    fn ed25519_keys_of_small_order_and_keys_with_two_encodings_are_refused() {
        let quantum = key(Suite::MlDsa87, 7);
        let quantum = &quantum.verifying_key().spki_der()[22..];
        let read =
            |point: [u8; 32]| VerifyingKey::from_raw(Suite::Ed25519MlDsa87, &[&point, quantum].concat());
        let number = |low: u8, rest: u8, high: u8| {
            let mut point = [rest; 32];
            (point[0], point[31]) = (low, high);
            point
        };
        let mut bad = BTreeSet::from([number(0, 0, 0), number(1, 0, 0), number(0xec, 0xff, 0x7f)]);
        // The prime itself and whatever else fits into 255 bits.
        bad.extend((0xed..=0xff).map(|low| number(low, 0xff, 0x7f)));
        for order_8 in [
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        ] {
            bad.insert(hex::decode(order_8).unwrap().try_into().unwrap());
        }
        assert_eq!(bad.len(), 24);
        for point in bad {
            for sign in [0, 0x80] {
                let mut point = point;
                point[31] |= sign;
                assert!(matches!(read(point), Err(Error::Spki)), "{point:?}");
            }
        }
        // The reason: under the point of order 1, AWS-LC holds this for a signature of whatever one likes.
        let identity = number(1, 0, 0);
        let theirs = ParsedPublicKey::new(&aws_lc_rs::signature::ED25519, identity).unwrap();
        theirs
            .verify_sig(b"anything", &[identity, [0; 32]].concat())
            .unwrap();
        let honest = key(Suite::Ed25519MlDsa87, 7);
        let honest = honest.verifying_key().spki_der()[12..44].try_into().unwrap();
        assert!(read(honest).is_ok());
    }

    #[test]
    fn key_ids_of_another_form_are_refused() {
        assert!("ab".parse::<KeyId>().is_err());
        assert!("A".repeat(64).parse::<KeyId>().is_err());
        assert_eq!("a".repeat(64).parse::<KeyId>().unwrap().short(), "aaaaaaaaaaaa");
    }
}
