//! Key encapsulation: ML-KEM-1024 of FIPS 203. Private keys are 64-byte seeds; the expanded form lives only in memory.
//!
//! A ciphertext that was changed decapsulates to another secret without an error (implicit rejection): whoever uses a
//! secret must confirm it, as seals and streams do by their key commitments.

use crate::entropy::{Dropped, Entropy};
use crate::key::{Error, KeyId};
use crate::pem;
use oqs::kem::{Algorithm, Kem};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// A key encapsulation suite. Unknown names are refused when a document is read, never guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum KemSuite {
    /// ML-KEM-1024 of FIPS 203 (NIST level 5).
    #[serde(rename = "ML-KEM-1024")]
    MlKem1024,
}

impl KemSuite {
    /// The name as it stands in key statements, seals and epoch headers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MlKem1024 => "ML-KEM-1024",
        }
    }
}

impl fmt::Display for KemSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Length of a private key's seed in bytes: d and z of FIPS 203, algorithm 16.
pub const SEED_LEN: usize = 64;
/// Length of an encoded public key in bytes (FIPS 203, table 3).
pub const PUBLIC_KEY_LEN: usize = 1568;
/// Length of a ciphertext in bytes (FIPS 203, table 3).
pub const CIPHERTEXT_LEN: usize = 1568;

/// SEQUENCE { SEQUENCE { OID 2.16.840.1.101.3.4.4.3 }, BIT STRING (no unused bits) }: what stands before the raw key in
/// a SubjectPublicKeyInfo (RFC 9935).
const SPKI_PREFIX: [u8; 22] = [
    0x30, 0x82, 0x06, 0x32, 0x30, 0x0b, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x04, 0x03,
    0x03, 0x82, 0x06, 0x21, 0x00,
];
/// SEQUENCE { INTEGER 0, SEQUENCE { OID }, OCTET STRING { [0] of 64 bytes } }: what stands before the seed in a PKCS #8
/// private key that holds nothing but the seed (RFC 9935).
const PKCS8_PREFIX: [u8; 22] = [
    0x30, 0x54, 0x02, 0x01, 0x00, 0x30, 0x0b, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x04,
    0x03, 0x04, 0x42, 0x80, 0x40,
];

/// What both sides hold after an encapsulation: 32 bytes, wiped when dropped, compared in constant time. No `Debug`.
pub struct SharedSecret(Zeroizing<Vec<u8>>);

impl SharedSecret {
    /// The bytes: input of a key derivation, never a key themselves.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq for SharedSecret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

/// A private key. Neither `Debug` nor `Clone`; its bytes are wiped when it is dropped.
pub struct DecapsulationKey {
    seed: Zeroizing<[u8; SEED_LEN]>,
    expanded: Zeroizing<Vec<u8>>,
    kem: Kem,
    public: EncapsulationKey,
}

impl DecapsulationKey {
    /// A new key from the operating system's randomness.
    pub fn generate() -> Result<Self, Error> {
        Ok(Self::generate_from(&Entropy::system())?.0)
    }

    /// A new key from `entropy`, and the sources that gave nothing to it.
    pub fn generate_from(entropy: &Entropy) -> Result<(Self, Vec<Dropped>), Error> {
        let mut seed = Zeroizing::new([0_u8; SEED_LEN]);
        let dropped = entropy.fill(seed.as_mut_slice())?;
        Ok((Self::from_seed(&seed)?, dropped))
    }

    /// The key that belongs to `seed` (FIPS 203, ML-KEM.KeyGen_internal): always the same one.
    pub fn from_seed(seed: &[u8; SEED_LEN]) -> Result<Self, Error> {
        let suite = KemSuite::MlKem1024;
        let kem = new_kem(suite)?;
        let seed = Zeroizing::new(*seed);
        let input = kem
            .keypair_seed_from_bytes(seed.as_slice())
            .ok_or(Error::Encapsulation(suite))?;
        let (public, expanded) = kem
            .keypair_derand(input)
            .map_err(|_| Error::Encapsulation(suite))?;
        let expanded = Zeroizing::new(expanded.into_vec());
        let public = EncapsulationKey::from_raw(public.as_ref())?;
        Ok(Self {
            seed,
            expanded,
            kem,
            public,
        })
    }

    /// Reads one PEM block `PRIVATE KEY` that holds the seed alone (RFC 9935).
    pub fn from_pkcs8_pem(text: &str) -> Result<Self, Error> {
        let der = pem::decode("PRIVATE KEY", text).ok_or(Error::Pkcs8)?;
        let seed = der.strip_prefix(&PKCS8_PREFIX).ok_or(Error::Pkcs8)?;
        Self::from_seed(seed.try_into().map_err(|_| Error::Pkcs8)?)
    }

    /// The key as one PEM block. For storage that only its owner can read.
    pub fn pkcs8_pem(&self) -> Zeroizing<String> {
        let der = Zeroizing::new([&PKCS8_PREFIX[..], self.seed.as_slice()].concat());
        pem::encode("PRIVATE KEY", &der)
    }

    /// The seed, to be stored where only its owner can read it.
    pub fn seed(&self) -> Zeroizing<[u8; SEED_LEN]> {
        self.seed.clone()
    }

    /// The public half.
    pub fn encapsulation_key(&self) -> &EncapsulationKey {
        &self.public
    }

    /// The secret in `ciphertext`: some secret for whatever bytes of the right length (see the module's text).
    pub fn decapsulate(&self, ciphertext: &[u8]) -> Result<SharedSecret, Error> {
        let suite = KemSuite::MlKem1024;
        let key = self.kem.secret_key_from_bytes(&self.expanded);
        let ciphertext = self.kem.ciphertext_from_bytes(ciphertext);
        let (Some(key), Some(ciphertext)) = (key, ciphertext) else {
            return Err(Error::Encapsulation(suite));
        };
        let secret = self
            .kem
            .decapsulate(key, ciphertext)
            .map_err(|_| Error::Encapsulation(suite))?;
        Ok(SharedSecret(Zeroizing::new(secret.into_vec())))
    }
}

/// A public key, checked once.
#[derive(Clone, PartialEq, Eq)]
pub struct EncapsulationKey {
    spki: Arc<[u8]>,
    id: KeyId,
}

impl EncapsulationKey {
    /// Reads a SubjectPublicKeyInfo in DER; every byte must be as this crate would write it, every coefficient below the
    /// modulus (FIPS 203, section 7.2).
    pub fn from_spki_der(der: &[u8]) -> Result<Self, Error> {
        let raw = der.strip_prefix(&SPKI_PREFIX).ok_or(Error::Spki)?;
        if raw.len() != PUBLIC_KEY_LEN || !coefficients_are_reduced(raw) {
            return Err(Error::Spki);
        }
        Ok(Self {
            spki: der.into(),
            id: KeyId::of_spki(der),
        })
    }

    /// Reads one PEM block `PUBLIC KEY`.
    pub fn from_spki_pem(text: &str) -> Result<Self, Error> {
        Self::from_spki_der(&pem::decode("PUBLIC KEY", text).ok_or(Error::Pem)?)
    }

    /// Reads the suite's raw encoding of a public key.
    pub fn from_raw(raw: &[u8]) -> Result<Self, Error> {
        Self::from_spki_der(&[&SPKI_PREFIX, raw].concat())
    }

    /// The raw encoding of FIPS 203.
    pub fn raw(&self) -> &[u8] {
        &self.spki[SPKI_PREFIX.len()..]
    }

    /// The SubjectPublicKeyInfo in DER (RFC 9935).
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

    /// A new secret, and the ciphertext ([`CIPHERTEXT_LEN`] bytes) from which the private key's holder gets it.
    pub fn encapsulate(&self) -> Result<(Vec<u8>, SharedSecret), Error> {
        let suite = KemSuite::MlKem1024;
        let kem = new_kem(suite)?;
        let key = kem
            .public_key_from_bytes(self.raw())
            .ok_or(Error::Encapsulation(suite))?;
        let (ciphertext, secret) = kem.encapsulate(key).map_err(|_| Error::Encapsulation(suite))?;
        Ok((
            ciphertext.into_vec(),
            SharedSecret(Zeroizing::new(secret.into_vec())),
        ))
    }
}

impl fmt::Debug for EncapsulationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncapsulationKey({} {})", KemSuite::MlKem1024, self.id)
    }
}

fn new_kem(suite: KemSuite) -> Result<Kem, Error> {
    oqs::init();
    Kem::new(Algorithm::MlKem1024).map_err(|_| Error::Encapsulation(suite))
}

/// Whether each of the 12-bit coefficients is below q = 3329; the last 32 bytes are the matrix seed.
fn coefficients_are_reduced(raw: &[u8]) -> bool {
    const Q: u16 = 3329;
    raw[..PUBLIC_KEY_LEN - 32].chunks_exact(3).all(|three| {
        let [a, b, c] = [three[0], three[1], three[2]].map(u16::from);
        (a | (b & 0x0f) << 8) < Q && (b >> 4 | c << 4) < Q
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::sha256_hex;
    use aws_lc_rs::kem::{Ciphertext, ML_KEM_1024};

    fn key(seed: u8) -> DecapsulationKey {
        DecapsulationKey::from_seed(&[seed; SEED_LEN]).unwrap()
    }

    #[test]
    fn both_sides_get_one_secret_and_another_key_another() {
        let (one, two) = (key(1), key(2));
        let (ciphertext, secret) = one.encapsulation_key().encapsulate().unwrap();
        assert_eq!(ciphertext.len(), CIPHERTEXT_LEN);
        assert!(one.decapsulate(&ciphertext).unwrap() == secret);
        assert!(two.decapsulate(&ciphertext).unwrap() != secret);
        let mut bent = ciphertext.clone();
        bent[0] ^= 1;
        assert!(one.decapsulate(&bent).unwrap() != secret);
        assert!(one.decapsulate(&ciphertext[1..]).is_err());
        let (again, other) = one.encapsulation_key().encapsulate().unwrap();
        assert!(again != ciphertext && other != secret);
    }

    #[test]
    fn another_library_agrees_on_keys_and_secrets() {
        let one = key(1);
        let theirs = aws_lc_rs::kem::DecapsulationKey::new(&ML_KEM_1024, &one.expanded).unwrap();
        let (ciphertext, secret) = one.encapsulation_key().encapsulate().unwrap();
        let opened = theirs
            .decapsulate(Ciphertext::from(ciphertext.as_slice()))
            .unwrap();
        assert_eq!(opened.as_ref(), secret.as_bytes());
        let public =
            aws_lc_rs::kem::EncapsulationKey::new(&ML_KEM_1024, one.encapsulation_key().raw()).unwrap();
        let (ciphertext, secret) = public.encapsulate().unwrap();
        let opened = one.decapsulate(ciphertext.as_ref()).unwrap();
        assert_eq!(opened.as_bytes(), secret.as_ref());
    }

    #[test]
    fn keys_read_back_from_their_files_and_nothing_else_is_read() {
        let one = key(1);
        let public = one.encapsulation_key();
        assert_eq!(
            &EncapsulationKey::from_spki_pem(&public.spki_pem()).unwrap(),
            public
        );
        assert_eq!(public.key_id().as_str(), sha256_hex(public.spki_der()));
        let back = DecapsulationKey::from_pkcs8_pem(&one.pkcs8_pem()).unwrap();
        assert_eq!(back.encapsulation_key(), public);
        for index in 0..SPKI_PREFIX.len() {
            let mut bent = public.spki_der().to_vec();
            bent[index] ^= 1;
            assert!(EncapsulationKey::from_spki_der(&bent).is_err(), "byte {index}");
        }
        let mut large = public.raw().to_vec();
        large[..2].copy_from_slice(&[0x01, 0x0d]);
        assert!(
            EncapsulationKey::from_raw(&large).is_err(),
            "a coefficient of 3329"
        );
        assert!(EncapsulationKey::from_raw(&public.raw()[1..]).is_err());
    }
}
