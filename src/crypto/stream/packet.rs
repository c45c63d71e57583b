//! A packet's layout: nonce, ciphertext, tag. The nonce is all that is in the clear.

use super::{Error, LANES};

/// The longest payload of a packet in bytes.
pub const PAYLOAD_LIMIT: usize = 65_536;
/// Where the payload begins in a packet: behind the nonce.
pub const PAYLOAD_START: usize = NONCE_LEN;
/// How much longer a packet is than its payload: nonce and tag.
pub const OVERHEAD: usize = NONCE_LEN + TAG_LEN;
/// The longest packet in bytes.
pub const PACKET_LIMIT: usize = packet_len(PAYLOAD_LIMIT);

pub(super) const NONCE_LEN: usize = 12;
pub(super) const TAG_LEN: usize = 16;

const FINAL: u8 = 1;

/// Length of the packet that carries a payload of this length.
pub const fn packet_len(payload: usize) -> usize {
    OVERHEAD + payload
}

/// What a nonce says: `epoch:u16 ‖ lane:u8 ‖ flags:u8 ‖ seq:u64`, big-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Nonce {
    pub(super) epoch: u16,
    pub(super) is_final: bool,
    pub(super) seq: u64,
}

impl Nonce {
    /// `seq mod 4`: the lane is no choice of its own.
    pub(super) const fn lane(self) -> u8 {
        // The lowest byte is enough, since 256 is a multiple of 4.
        self.seq.to_be_bytes()[7] % LANES
    }

    pub(super) fn to_bytes(self) -> [u8; NONCE_LEN] {
        let mut bytes = [0; NONCE_LEN];
        bytes[..2].copy_from_slice(&self.epoch.to_be_bytes());
        bytes[2] = self.lane();
        bytes[3] = if self.is_final { FINAL } else { 0 };
        bytes[4..].copy_from_slice(&self.seq.to_be_bytes());
        bytes
    }

    /// The nonce of `packet`, whose length is right and whose flags and lane are possible.
    pub(super) fn of(packet: &[u8]) -> Result<Self, Error> {
        if !(OVERHEAD..=PACKET_LIMIT).contains(&packet.len()) {
            return Err(Error::Length(packet.len()));
        }
        let (&[e0, e1, lane, flags, ref seq @ ..], _) = packet
            .split_first_chunk::<NONCE_LEN>()
            .ok_or(Error::Length(packet.len()))?;
        let nonce = Self {
            epoch: u16::from_be_bytes([e0, e1]),
            is_final: flags & FINAL != 0,
            seq: u64::from_be_bytes(*seq),
        };
        if flags & !FINAL != 0 {
            return Err(Error::Flags(flags));
        }
        if lane != nonce.lane() {
            return Err(Error::Lane { lane, seq: nonce.seq });
        }
        Ok(nonce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_reads_back_and_nothing_else_is_read() {
        let nonce = Nonce {
            epoch: 0x0102,
            is_final: true,
            seq: 0x0304_0506_0708_090a,
        };
        let mut packet = nonce.to_bytes().to_vec();
        assert_eq!(packet, [1, 2, 2, 1, 3, 4, 5, 6, 7, 8, 9, 10]);
        assert!(matches!(Nonce::of(&packet), Err(Error::Length(12))));
        packet.resize(OVERHEAD, 0);
        assert_eq!(Nonce::of(&packet).unwrap(), nonce);
        for flags in 2..=255 {
            packet[3] = flags;
            assert!(matches!(Nonce::of(&packet), Err(Error::Flags(_))));
        }
        packet[3] = 0;
        for lane in [0, 1, 3, 4, 6, 255] {
            packet[2] = lane;
            assert!(matches!(Nonce::of(&packet), Err(Error::Lane { .. })));
        }
        packet[2] = 2;
        packet.resize(PACKET_LIMIT, 0);
        assert!(Nonce::of(&packet).is_ok());
        packet.push(0);
        assert!(matches!(Nonce::of(&packet), Err(Error::Length(_))));
    }
}
