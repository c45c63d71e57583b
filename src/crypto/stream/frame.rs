//! How a stream travels on a transport of bytes, such as TCP: frames with a kind and a length, and before them the
//! receiver's greeting with a fresh challenge, which both sides take as their context.

use super::Error;
use super::header::HEADER_LIMIT;
use super::packet::{OVERHEAD, PACKET_LIMIT};

/// Length of a frame's head in bytes: `kind:u8 ‖ length:u32`, big-endian.
pub const HEAD_LEN: usize = 5;
/// What a greeting begins with.
pub const GREETING: [u8; 16] = *b"chimera-l4/v1\r\n\0";
/// Length of the greeting: [`GREETING`] and 32 random bytes.
pub const GREETING_LEN: usize = GREETING.len() + 32;

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The envelope of an epoch header, as JSON.
    Header,
    /// A packet.
    Packet,
}

/// The head of a frame whose body has `length` bytes: an error if no such frame would be accepted.
pub fn head(kind: Kind, length: usize) -> Result<[u8; HEAD_LEN], Error> {
    let [a, b, c, d] = u32::try_from(length).map_err(|_| Error::Frame)?.to_be_bytes();
    let kind = match kind {
        Kind::Header => 1,
        Kind::Packet => 2,
    };
    let head = [kind, a, b, c, d];
    parse_head(head).map(|_| head)
}

/// Kind and length of the body that follows. No other length is ever read: a hostile peer decides on nothing beyond it.
pub fn parse_head([kind, length @ ..]: [u8; HEAD_LEN]) -> Result<(Kind, usize), Error> {
    let length = u32::from_be_bytes(length) as usize;
    match kind {
        1 if (1..=HEADER_LIMIT).contains(&length) => Ok((Kind::Header, length)),
        2 if (OVERHEAD..=PACKET_LIMIT).contains(&length) => Ok((Kind::Packet, length)),
        _ => Err(Error::Frame),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_read_back_and_other_kinds_and_lengths_are_refused() {
        for (kind, length) in [
            (Kind::Header, 1),
            (Kind::Header, HEADER_LIMIT),
            (Kind::Packet, OVERHEAD),
            (Kind::Packet, PACKET_LIMIT),
        ] {
            assert_eq!(parse_head(head(kind, length).unwrap()).unwrap(), (kind, length));
        }
        for (kind, length) in [
            (Kind::Header, 0),
            (Kind::Header, HEADER_LIMIT + 1),
            (Kind::Packet, OVERHEAD - 1),
            (Kind::Packet, PACKET_LIMIT + 1),
            (Kind::Packet, usize::MAX),
        ] {
            assert!(head(kind, length).is_err(), "{kind:?} {length}");
        }
        for kind in [0, 3, 255] {
            assert!(parse_head([kind, 0, 0, 1, 0]).is_err());
        }
    }
}
