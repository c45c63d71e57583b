//! The two ends of a stream, for tests.

use super::{Error, Opened, PAYLOAD_START, Receiver, RotationPolicy, Sender, packet_len};
use crate::kem::{DecapsulationKey, SEED_LEN};
use crate::{Envelope, SigningKey, Suite};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

pub(super) const CONTEXT: &[u8] = b"a test";

pub(super) static SENDER: LazyLock<SigningKey> =
    LazyLock::new(|| SigningKey::from_seed(Suite::MlDsa87, &[1; 32]).unwrap());
pub(super) static RECEIVER: LazyLock<DecapsulationKey> = LazyLock::new(|| receiver_key(2));

pub(super) fn receiver_key(seed: u8) -> DecapsulationKey {
    DecapsulationKey::from_seed(&[seed; SEED_LEN]).unwrap()
}

/// A new epoch after so many bytes.
pub(super) fn every(max_bytes: u64) -> RotationPolicy {
    RotationPolicy {
        interval: Duration::from_secs(3600),
        max_bytes,
    }
}

/// A stream that has begun and nothing was sent on.
pub(super) struct Link {
    pub(super) sender: Sender<'static>,
    pub(super) receiver: Receiver,
    pub(super) now: Instant,
}

impl Link {
    pub(super) fn new(policy: RotationPolicy) -> Self {
        let now = Instant::now();
        let (sender, header) =
            Sender::begin(RECEIVER.encapsulation_key(), &SENDER, CONTEXT, policy, now).unwrap();
        let receiver = Receiver::accept(&header, SENDER.verifying_key(), &RECEIVER, CONTEXT).unwrap();
        Self {
            sender,
            receiver,
            now,
        }
    }

    pub(super) fn seal(&mut self, payload: &[u8]) -> (Option<Envelope>, Vec<u8>) {
        let mut packet = unsealed(payload);
        (self.sender.seal(&mut packet, self.now).unwrap(), packet)
    }

    pub(super) fn seal_final(&mut self, payload: &[u8]) -> (Option<Envelope>, Vec<u8>) {
        let mut packet = unsealed(payload);
        (self.sender.seal_final(&mut packet, self.now).unwrap(), packet)
    }

    /// Sequence number and payload of the packet.
    pub(super) fn open(&mut self, packet: &[u8]) -> Result<(u64, Vec<u8>), Error> {
        let mut packet = packet.to_vec();
        let Opened { seq, payload, .. } = self.receiver.open(&mut packet, self.now)?;
        Ok((seq, payload.to_vec()))
    }
}

/// A packet with its payload in place.
pub(super) fn unsealed(payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; packet_len(payload.len())];
    packet[PAYLOAD_START..][..payload.len()].copy_from_slice(payload);
    packet
}
