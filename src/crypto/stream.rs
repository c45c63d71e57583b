//! Streams: `AES-256-GCM-L4`, packets from one sender to the holder of one ML-KEM-1024 key.
//!
//! A fresh encapsulation begins each stream; a ratchet gives each epoch four keys of 256 bits, and packets take them in
//! turn. GCM commits to no key and a bent KEM ciphertext gives another secret without an error, so each epoch's header,
//! signed by the sender, carries a key commitment that is compared before a packet is looked at. No IO, clock or threads:
//! whoever calls brings bytes and times. docs/streams.md has the format to the byte.
//!
//! AES-256-GCM is that of AWS-LC, which is several times faster than the crate `aes-gcm`; docs/streams.md has the figures,
//! and a test opens each one's packets with the other.

pub mod frame;
mod header;
mod lanes;
mod packet;
mod policy;
mod receiver;
mod schedule;
mod sender;
mod window;

#[cfg(test)]
mod disorder;
#[cfg(test)]
mod sample;
#[cfg(test)]
mod vectors;

pub use header::{AeadSuite, HEADER_LIMIT, StreamId};
pub use packet::{OVERHEAD, PACKET_LIMIT, PAYLOAD_LIMIT, PAYLOAD_START, packet_len};
pub use policy::{PACKETS_PER_EPOCH, RotationPolicy};
pub use receiver::{Delivery, OVERLAP, OVERLAP_PACKETS, Opened, Receiver};
pub use sender::Sender;
pub use window::WINDOW;

use crate::key::{self, KeyId};
use crate::{Suite, dsse};

/// The payload type of an epoch header's envelope.
pub const PAYLOAD_TYPE: &str = "application/vnd.chimera.epoch+json";
/// The `_type` of an epoch header.
pub const TYPE: &str = "https://chimera.dunes.io/epoch/v1";
/// How many keys packets take in turn. Their bits do not add up: the strength is that of one key.
pub const LANES: u8 = 4;
/// Length of each lane's key in bits.
pub const KEY_BITS: u16 = 256;
/// Length of a packet's tag in bits.
pub const TAG_BITS: u16 = 128;

/// Why a stream could not begin or go on, or something of it was refused. What was refused changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A key could not be made or used.
    #[error("use a key for a stream")]
    Key(#[from] key::Error),
    /// The envelope could not be signed, or the sender did not sign it.
    #[error("an epoch header must be signed by the stream's sender")]
    Envelope(#[from] dsse::Error),
    /// The envelope names another key than the sender's.
    #[error("the epoch header names another key than its sender's")]
    OtherSender,
    /// The signed bytes are no epoch header.
    #[error("the signed bytes are no epoch header")]
    Format(#[source] serde_json::Error),
    /// A `_type` of another version.
    #[error("an epoch header's _type must be `{TYPE}`, found `{0}`")]
    Type(String),
    /// The header names another signature suite than that of its key.
    #[error("the header names {named}, but its sender signs with {actual}")]
    Suite {
        /// The suite in the header.
        named: Suite,
        /// The suite of the sender's key.
        actual: Suite,
    },
    /// The stream is meant for another receiver.
    #[error("the stream is encrypted to key {named}, not to {ours}")]
    NotForKey {
        /// The key that the header names.
        named: KeyId,
        /// The receiver's key.
        ours: KeyId,
    },
    /// The header is of another stream.
    #[error("the header is of another stream")]
    OtherStream,
    /// The first header lacks its ciphertext, or a later one has one.
    #[error("the first header of a stream, and no other, carries a KEM ciphertext")]
    Ciphertext,
    /// The header's epoch or first sequence number is not one that can follow.
    #[error("a header of epoch {epoch} from packet {first} on cannot follow here")]
    Order {
        /// The header's epoch.
        epoch: u16,
        /// The first sequence number that it names.
        first: u64,
    },
    /// The keys are not those that the sender committed to.
    #[error(
        "the keys are not those that the sender committed to: another key or context, or a changed header"
    )]
    Commitment,
    /// A packet of a length that none has.
    #[error("a packet of {0} bytes: it must have {OVERHEAD} to {PACKET_LIMIT}")]
    Length(usize),
    /// Flags that nobody has given a meaning.
    #[error("unknown packet flags {0:#04x}")]
    Flags(u8),
    /// A packet in another lane than its sequence number's.
    #[error("packet {seq} in lane {lane}")]
    Lane {
        /// The lane that the packet names.
        lane: u8,
        /// Its sequence number.
        seq: u64,
    },
    /// A packet of an epoch whose keys are not known yet, or no longer.
    #[error("no keys for epoch {0}")]
    Epoch(u16),
    /// A packet whose sequence number is not one of its epoch, or no longer accepted.
    #[error("packet {0} is outside what its epoch may still carry")]
    Sequence(u64),
    /// A packet that came before, or is too old to tell.
    #[error("packet {0} came before, or is too old to tell")]
    Replay(u64),
    /// The packet was changed, or is of another stream.
    #[error("the packet is not genuine")]
    Tag,
    /// The final packet is sealed already.
    #[error("the stream has ended")]
    Ended,
    /// No epoch is left.
    #[error("the stream has used up its 65536 epochs: begin another one")]
    Exhausted,
    /// The final packet never came.
    #[error("the stream was cut off: its final packet never came")]
    Truncated,
    /// Not a frame of this version.
    #[error("not a frame of a stream")]
    Frame,
}
