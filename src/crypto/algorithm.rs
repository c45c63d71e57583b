//! The signature algorithms of which suites are made: their sizes, their DER, and who signs and who judges.
//!
//! ML-DSA is signed by liboqs and judged by AWS-LC; Ed25519 is both in AWS-LC.

use crate::key::Error;
use aws_lc_rs::encoding::AsRawBytes;
use aws_lc_rs::signature::{
    self, Ed25519KeyPair, KeyPair, ParsedPublicKey, PqdsaKeyPair, PqdsaSigningAlgorithm,
};
use zeroize::Zeroizing;

/// A signature algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Algorithm {
    /// Ed25519 of RFC 8032.
    Ed25519,
    /// Pure ML-DSA-65 of FIPS 204 with an empty context.
    MlDsa65,
    /// Pure ML-DSA-87 of FIPS 204 with an empty context.
    MlDsa87,
}

impl Algorithm {
    /// Length of a private key's seed in bytes: the same for all three.
    pub(crate) const SEED_LEN: usize = 32;

    /// Length of an encoded public key in bytes (RFC 8032, section 5.1.5; FIPS 204, table 2).
    pub(crate) const fn public_key_len(self) -> usize {
        match self {
            Self::Ed25519 => 32,
            Self::MlDsa65 => 1952,
            Self::MlDsa87 => 2592,
        }
    }

    /// Length of a signature in bytes (RFC 8032, section 5.1.6; FIPS 204, table 2).
    pub(crate) const fn signature_len(self) -> usize {
        match self {
            Self::Ed25519 => 64,
            Self::MlDsa65 => 3309,
            Self::MlDsa87 => 4627,
        }
    }

    /// Length of a SubjectPublicKeyInfo in bytes.
    pub(crate) const fn spki_len(self) -> usize {
        self.spki_prefix().len() + self.public_key_len()
    }

    /// The DER that stands before the raw key in a SubjectPublicKeyInfo. Key lengths are fixed, so this prefix is too:
    /// comparing it refuses every other encoding of the same key.
    pub(crate) const fn spki_prefix(self) -> &'static [u8] {
        match self {
            // SEQUENCE { SEQUENCE { OID 1.3.101.112 }, BIT STRING (no unused bits) } (RFC 8410)
            Self::Ed25519 => &[
                0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
            ],
            // SEQUENCE { SEQUENCE { OID 2.16.840.1.101.3.4.3.18 }, BIT STRING (no unused bits) } (RFC 9881)
            Self::MlDsa65 => &[
                0x30, 0x82, 0x07, 0xb2, 0x30, 0x0b, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04,
                0x03, 0x12, 0x03, 0x82, 0x07, 0xa1, 0x00,
            ],
            // SEQUENCE { SEQUENCE { OID 2.16.840.1.101.3.4.3.19 }, BIT STRING (no unused bits) } (RFC 9881)
            Self::MlDsa87 => &[
                0x30, 0x82, 0x0a, 0x32, 0x30, 0x0b, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04,
                0x03, 0x13, 0x03, 0x82, 0x0a, 0x21, 0x00,
            ],
        }
    }

    /// The DER that stands before the seed in a PKCS #8 private key that holds nothing but the seed.
    pub(crate) const fn pkcs8_prefix(self) -> &'static [u8] {
        match self {
            // SEQUENCE { INTEGER 0, SEQUENCE { OID 1.3.101.112 }, OCTET STRING { OCTET STRING } } (RFC 8410)
            Self::Ed25519 => &[
                0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04,
                0x20,
            ],
            // SEQUENCE { INTEGER 0, SEQUENCE { OID 2.16.840.1.101.3.4.3.18 }, OCTET STRING { [0] } } (RFC 9881)
            Self::MlDsa65 => &[
                0x30, 0x34, 0x02, 0x01, 0x00, 0x30, 0x0b, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03,
                0x04, 0x03, 0x12, 0x04, 0x22, 0x80, 0x20,
            ],
            // SEQUENCE { INTEGER 0, SEQUENCE { OID 2.16.840.1.101.3.4.3.19 }, OCTET STRING { [0] } } (RFC 9881)
            Self::MlDsa87 => &[
                0x30, 0x34, 0x02, 0x01, 0x00, 0x30, 0x0b, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03,
                0x04, 0x03, 0x13, 0x04, 0x22, 0x80, 0x20,
            ],
        }
    }

    /// Reads the raw encoding of a public key.
    pub(crate) fn public_key(self, raw: &[u8]) -> Result<ParsedPublicKey, Error> {
        if raw.len() != self.public_key_len() {
            return Err(Error::Spki);
        }
        let parsed = match self {
            Self::Ed25519 if !is_sound_point(raw) => return Err(Error::Spki),
            Self::Ed25519 => ParsedPublicKey::new(&signature::ED25519, raw),
            Self::MlDsa65 => ParsedPublicKey::new(&signature::ML_DSA_65, raw),
            Self::MlDsa87 => ParsedPublicKey::new(&signature::ML_DSA_87, raw),
        };
        parsed.map_err(|_| Error::Spki)
    }

    /// The private key that belongs to `seed`, and its raw public key.
    pub(crate) fn signer(self, seed: &[u8]) -> Result<(Signer, Vec<u8>), Error> {
        match self {
            Self::Ed25519 => {
                let pair =
                    Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| Error::Derive(self.name()))?;
                let public = pair.public_key().as_ref().to_vec();
                Ok((Signer::Ed25519(pair), public))
            }
            Self::MlDsa65 => MlDsaSigner::derive(
                self,
                oqs::sig::Algorithm::MlDsa65,
                &signature::ML_DSA_65_SIGNING,
                seed,
            ),
            Self::MlDsa87 => MlDsaSigner::derive(
                self,
                oqs::sig::Algorithm::MlDsa87,
                &signature::ML_DSA_87_SIGNING,
                seed,
            ),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "Ed25519",
            Self::MlDsa65 => "ML-DSA-65",
            Self::MlDsa87 => "ML-DSA-87",
        }
    }
}

/// A private key of one algorithm. Its bytes are wiped when it is dropped; those of Ed25519 by AWS-LC, which clears all
/// memory that it frees.
pub(crate) enum Signer {
    /// Signs deterministically.
    Ed25519(Ed25519KeyPair),
    /// Signs hedged.
    MlDsa(MlDsaSigner),
}

impl Signer {
    /// Signs `message` itself, not a hash of it.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        match self {
            Self::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Self::MlDsa(signer) => signer.sign(message),
        }
    }
}

/// An expanded ML-DSA key in the hands of liboqs.
pub(crate) struct MlDsaSigner {
    algorithm: Algorithm,
    expanded: Zeroizing<Vec<u8>>,
    oqs: oqs::sig::Sig,
}

impl MlDsaSigner {
    fn derive(
        algorithm: Algorithm,
        oqs: oqs::sig::Algorithm,
        aws: &'static PqdsaSigningAlgorithm,
        seed: &[u8],
    ) -> Result<(Signer, Vec<u8>), Error> {
        oqs::init();
        let oqs = oqs::sig::Sig::new(oqs).map_err(|_| Error::Sign(algorithm.name()))?;
        // liboqs cannot derive an ML-DSA key from its seed.
        let pair = PqdsaKeyPair::from_seed(aws, seed).map_err(|_| Error::Derive(algorithm.name()))?;
        let expanded = pair
            .private_key()
            .as_raw_bytes()
            .map_err(|_| Error::Derive(algorithm.name()))?;
        let signer = Self {
            algorithm,
            expanded: Zeroizing::new(expanded.as_ref().to_vec()),
            oqs,
        };
        Ok((Signer::MlDsa(signer), pair.public_key().as_ref().to_vec()))
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        let refused = || Error::Sign(self.algorithm.name());
        // The binding reads as many bytes as its parameter set has, whatever it is given: a key may reach it only
        // through this function, which compares the length.
        let key = self
            .oqs
            .secret_key_from_bytes(&self.expanded)
            .ok_or_else(refused)?;
        let signature = self.oqs.sign(message, key).map_err(|_| refused())?;
        Ok(signature.into_vec())
    }
}

/// Whether an encoded Ed25519 point is canonical and not of small order.
///
/// AWS-LC takes points of small order, under which signatures can be made without any private key: that would leave a
/// hybrid suite with one half. Coordinates of 2^255 - 19 or more, which would give one key two names, its portable code
/// takes and its assembly does not: no verdict may depend on the processor.
fn is_sound_point(raw: &[u8]) -> bool {
    /// The coordinates of the points of order 1, 2, 4 and 8, the sign bit cleared.
    const SMALL_ORDER: [&str; 5] = [
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    ];
    let mut y = raw.to_vec();
    y[31] &= 0x7f;
    let canonical = y[0] < 0xed || y[31] < 0x7f || y[1..31].iter().any(|&byte| byte < 0xff);
    canonical && !SMALL_ORDER.contains(&hex::encode(y).as_str())
}
