//! The key schedule: from a KEM secret to the secret of each epoch, and from that to the keys of its lanes.

use super::{LANES, StreamId};
use crate::kem::{EncapsulationKey, SharedSecret};
use crate::key::KeyId;
use hkdf::Hkdf;
use sha3::{Digest as _, Sha3_512};
use zeroize::Zeroizing;

/// Length of a lane's key, a commitment and a confirmation in bytes.
pub(super) const LEN: usize = 32;
/// Length of an epoch's secret in bytes: that of one output of SHA3-512.
const SECRET_LEN: usize = 64;

/// A lane's key.
pub(super) type Key = Zeroizing<[u8; LEN]>;

/// Everything that the keys of one stream are bound to.
pub(super) struct Binding<'a> {
    pub(super) receiver: &'a EncapsulationKey,
    pub(super) sender: &'a KeyId,
    pub(super) ciphertext: &'a [u8],
    pub(super) sid: StreamId,
    pub(super) context: &'a [u8],
}

impl Binding<'_> {
    /// Every part but the last has a fixed length: no two bindings give the same bytes.
    fn salt(&self) -> impl AsRef<[u8]> {
        Sha3_512::new()
            .chain_update(b"l4/v1 salt")
            .chain_update(self.receiver.raw())
            .chain_update(self.ciphertext)
            .chain_update(self.receiver.key_id().as_str())
            .chain_update(self.sender.as_str())
            .chain_update(self.sid.as_bytes())
            .chain_update(self.context)
            .finalize()
    }
}

/// The secret of one epoch. Neither `Debug` nor `Clone`; wiped when it is dropped, which is when the next one is made.
pub(super) struct EpochSecret(Zeroizing<[u8; SECRET_LEN]>);

impl EpochSecret {
    /// The secret of epoch 0.
    pub(super) fn first(binding: &Binding<'_>, secret: &SharedSecret) -> Self {
        let prk = Hkdf::<Sha3_512>::new(Some(binding.salt().as_ref()), secret.as_bytes());
        Self(expand(&prk, &[b"l4/v1 epoch0"]))
    }

    /// The secret of the epoch that follows; nothing leads back.
    pub(super) fn next(&self) -> Self {
        Self(expand(&self.prk(), &[b"l4/v1 ratchet"]))
    }

    /// The keys of the epoch's lanes.
    pub(super) fn lane_keys(&self, epoch: u16, sid: StreamId) -> [Key; LANES as usize] {
        let prk = self.prk();
        [0_u8, 1, 2, 3].map(|lane| {
            expand(
                &prk,
                &[b"l4/v1 lane", &[lane], &epoch.to_be_bytes(), sid.as_bytes()],
            )
        })
    }

    /// What commits to the epoch's keys and tells nothing of them.
    pub(super) fn commitment(&self, epoch: u16, sid: StreamId) -> [u8; LEN] {
        *expand(
            &self.prk(),
            &[b"l4/v1 commit", &epoch.to_be_bytes(), sid.as_bytes()],
        )
    }

    /// What a receiver answers who has opened so many packets.
    pub(super) fn confirmation(&self, epoch: u16, sid: StreamId, packets: u64) -> [u8; LEN] {
        *expand(
            &self.prk(),
            &[
                b"l4/v1 delivered",
                &epoch.to_be_bytes(),
                sid.as_bytes(),
                &packets.to_be_bytes(),
            ],
        )
    }

    fn prk(&self) -> Hkdf<Sha3_512> {
        Hkdf::from_prk(self.0.as_slice()).expect("as long as an output of the hash")
    }

    #[cfg(test)]
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_slice()
    }
}

fn expand<const N: usize>(prk: &Hkdf<Sha3_512>, info: &[&[u8]]) -> Zeroizing<[u8; N]> {
    let mut output = Zeroizing::new([0; N]);
    prk.expand_multi_info(info, output.as_mut_slice())
        .expect("at most 64 bytes");
    output
}
