//! The four keys of an epoch, ready for use. AWS-LC wipes them when they are dropped.

use super::packet::{NONCE_LEN, Nonce, TAG_LEN};
use super::schedule::EpochSecret;
use super::{Error, LANES, StreamId};
use aws_lc_rs::aead::{self, AES_256_GCM, Aad, LessSafeKey, UnboundKey};

/// The format's version, the first byte of what every packet authenticates beside itself.
const VERSION: u8 = 1;
const AAD_LEN: usize = 1 + StreamId::LEN;

/// The keys of one epoch. Neither `Debug` nor `Clone`.
pub(super) struct Lanes {
    epoch: u16,
    aad: [u8; AAD_LEN],
    keys: [LessSafeKey; LANES as usize],
}

impl Lanes {
    pub(super) fn new(secret: &EpochSecret, epoch: u16, sid: StreamId) -> Self {
        let mut aad = [VERSION; AAD_LEN];
        aad[1..].copy_from_slice(sid.as_bytes());
        let keys = secret.lane_keys(epoch, sid).map(|key| {
            let key = UnboundKey::new(&AES_256_GCM, key.as_slice()).expect("32 bytes are a key of AES-256");
            LessSafeKey::new(key)
        });
        Self { epoch, aad, keys }
    }

    pub(super) const fn epoch(&self) -> u16 {
        self.epoch
    }

    /// Makes a packet of the payload that stands in its place in `packet`. The caller vouches that no nonce comes twice.
    pub(super) fn seal(&self, nonce: Nonce, packet: &mut [u8]) -> Result<(), Error> {
        let (key, wire, aad) = self.inputs(nonce);
        let length = packet.len();
        let (head, rest) = packet
            .split_first_chunk_mut::<NONCE_LEN>()
            .ok_or(Error::Length(length))?;
        let (payload, tag) = rest
            .split_last_chunk_mut::<TAG_LEN>()
            .ok_or(Error::Length(length))?;
        *head = wire;
        let made = key
            .seal_in_place_separate_tag(aead::Nonce::assume_unique_for_key(wire), aad, payload)
            .map_err(|_| Error::Length(length))?;
        tag.copy_from_slice(made.as_ref());
        Ok(())
    }

    /// The payload of `packet`, in its place, if the packet is genuine; what is left of it otherwise is of no use.
    pub(super) fn open<'p>(&self, nonce: Nonce, packet: &'p mut [u8]) -> Result<&'p [u8], Error> {
        let (key, wire, aad) = self.inputs(nonce);
        let sealed = packet.get_mut(NONCE_LEN..).ok_or(Error::Tag)?;
        let payload = key
            .open_in_place(aead::Nonce::assume_unique_for_key(wire), aad, sealed)
            .map_err(|_| Error::Tag)?;
        Ok(payload)
    }

    fn inputs(&self, nonce: Nonce) -> (&LessSafeKey, [u8; NONCE_LEN], Aad<&[u8; AAD_LEN]>) {
        let key = &self.keys[usize::from(nonce.lane())];
        (key, nonce.to_bytes(), Aad::from(&self.aad))
    }
}
