//! The keys of a seal: what is derived from the content key, and how a recipient's secret wraps it.

use super::{Binding, Error};
use crate::digest::DigestSet;
use crate::entropy::Entropy;
use crate::kem::{EncapsulationKey, SharedSecret};
use crate::key;
use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use hkdf::Hkdf;
use sha3::{Digest as _, Sha3_512};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Length of every derived key, and of the commitment, in bytes.
pub(super) const LEN: usize = 32;
/// Length of a wrapped content key: the key and a tag.
pub(super) const WRAPPED_LEN: usize = LEN + 16;
/// A wrapping key is used once: its nonce may be a constant.
const NONCE: [u8; 12] = [0; 12];

type Key = Zeroizing<[u8; LEN]>;

/// The random key of one seal. Neither `Debug` nor `Clone`; wiped when it is dropped.
pub struct ContentKey(Key);

impl ContentKey {
    pub(super) fn generate() -> Result<Self, Error> {
        let mut bytes = Zeroizing::new([0; LEN]);
        let filled = Entropy::system().fill(bytes.as_mut_slice());
        filled.map_err(key::Error::from)?;
        Ok(Self(bytes))
    }

    /// What proves, before anything is decrypted, that this is the key of this binding.
    pub(super) fn commitment(&self, binding: &Binding) -> [u8; LEN] {
        *self.derive(binding, b"seal/v1 commitment", &[])
    }

    /// The code over everything else that a header says.
    pub(super) fn authenticate(&self, binding: &Binding, header: &[u8]) -> [u8; LEN] {
        *self.derive(binding, b"seal/v1 header", &Sha3_512::digest(header))
    }

    pub(super) fn body_key(&self, binding: &Binding) -> Key {
        self.derive(binding, b"seal/v1 body", &[])
    }

    pub(super) fn blinding(&self, binding: &Binding) -> Blinding {
        Blinding(self.derive(binding, b"seal/v1 blinding", &[]))
    }

    fn derive(&self, binding: &Binding, label: &[u8], rest: &[u8]) -> Key {
        expand(&binding.context(), self.0.as_slice(), &[label, rest])
    }

    /// The key, encrypted for the holder of `secret`.
    pub(super) fn wrap(&self, with: &Wrapping<'_>) -> Result<Vec<u8>, Error> {
        let payload = Payload {
            msg: self.0.as_slice(),
            aad: &with.binding.context(),
        };
        let cipher = with.cipher();
        cipher
            .encrypt(&Nonce::from(NONCE), payload)
            .map_err(|_| Error::Damaged)
    }

    /// The key in `wrapped`, if nothing of it was changed.
    pub(super) fn unwrap(wrapped: &[u8], with: &Wrapping<'_>) -> Result<Self, Error> {
        let payload = Payload {
            msg: wrapped,
            aad: &with.binding.context(),
        };
        let bytes = with.cipher().decrypt(&Nonce::from(NONCE), payload);
        let bytes = Zeroizing::new(bytes.map_err(|_| Error::Damaged)?);
        let bytes = <[u8; LEN]>::try_from(bytes.as_slice()).map_err(|_| Error::Damaged)?;
        Ok(Self(Zeroizing::new(bytes)))
    }
}

/// One encapsulation: what a content key is wrapped with.
pub(super) struct Wrapping<'a> {
    pub(super) binding: &'a Binding,
    pub(super) recipient: &'a EncapsulationKey,
    pub(super) ciphertext: &'a [u8],
    pub(super) secret: &'a SharedSecret,
}

impl Wrapping<'_> {
    fn cipher(&self) -> Aes256Gcm {
        let mut salt = self.binding.context();
        put(&mut salt, self.recipient.spki_der());
        put(&mut salt, self.ciphertext);
        let key = expand(&salt, self.secret.as_bytes(), &[b"seal/v1 wrap"]);
        Aes256Gcm::new(&(*key).into())
    }
}

/// 32 secret bytes that are digested before inputs: without them, short secrets could be found by trying.
#[derive(Clone)]
pub struct Blinding(Key);

impl Blinding {
    /// Reads what [`Blinding::as_bytes`] gave.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        Some(Self(Zeroizing::new(bytes.try_into().ok()?)))
    }

    /// The bytes: sent to the head beside the inputs, and nowhere else.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_slice()
    }

    /// Digests of the blinding and, behind it, `inputs`.
    pub fn digest(&self, inputs: &[u8]) -> DigestSet {
        DigestSet::of(&Zeroizing::new([self.as_bytes(), inputs].concat()))
    }
}

impl PartialEq for Blinding {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(other.0.as_slice()).into()
    }
}

/// HKDF-SHA3-512 (RFC 5869): the salt is hashed first, so that its length is no matter.
fn expand(salt: &[u8], secret: &[u8], info: &[&[u8]]) -> Key {
    let mut key = Zeroizing::new([0; LEN]);
    Hkdf::<Sha3_512>::new(Some(&Sha3_512::digest(salt)), secret)
        .expand_multi_info(info, key.as_mut_slice())
        .expect("32 bytes are not too many");
    key
}

/// Appends `bytes` behind their length: no two lists of parts become the same bytes.
pub(super) fn put(to: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("names, keys and ciphertexts are short");
    to.extend_from_slice(&length.to_be_bytes());
    to.extend_from_slice(bytes);
}
