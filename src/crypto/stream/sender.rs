//! The sending side: one counter for all packets of a stream, and a new epoch whenever the policy asks for one.

use super::header::{AeadSuite, Header};
use super::lanes::Lanes;
use super::packet::{Nonce, OVERHEAD, PACKET_LIMIT};
use super::policy::{RotationPolicy, Usage};
use super::schedule::{Binding, EpochSecret};
use super::{Error, StreamId, TYPE};
use crate::dsse::Envelope;
use crate::kem::{EncapsulationKey, KemSuite, SharedSecret};
use crate::key::{KeyId, SigningKey};
use std::time::Instant;
use subtle::ConstantTimeEq as _;

/// Seals the packets of one stream. Lives in memory alone: whoever starts again begins another stream. Neither `Debug`
/// nor `Clone`.
pub struct Sender<'k> {
    signing: &'k SigningKey,
    receiver: KeyId,
    sid: StreamId,
    policy: RotationPolicy,
    secret: EpochSecret,
    lanes: Lanes,
    began: Instant,
    usage: Usage,
    next: u64,
    ended: bool,
}

/// What begins a stream: its name, and a secret that its receiver can have.
pub(super) struct Agreement {
    pub(super) sid: StreamId,
    pub(super) ciphertext: Vec<u8>,
    pub(super) secret: SharedSecret,
}

impl<'k> Sender<'k> {
    /// Begins a stream to the holder of `receiver`: a fresh encapsulation, and the header that goes out before any packet.
    ///
    /// `context` is what both sides know of the stream's purpose; a receiver with another one refuses the header. Whoever
    /// puts a receiver's fresh challenge into it keeps a recorded stream from being accepted a second time.
    pub fn begin(
        receiver: &EncapsulationKey,
        signing: &'k SigningKey,
        context: &[u8],
        policy: RotationPolicy,
        now: Instant,
    ) -> Result<(Self, Envelope), Error> {
        let (ciphertext, secret) = receiver.encapsulate()?;
        let agreement = Agreement {
            sid: StreamId::generate()?,
            ciphertext,
            secret,
        };
        Self::with(agreement, receiver, signing, context, policy, now)
    }

    pub(super) fn with(
        agreement: Agreement,
        receiver: &EncapsulationKey,
        signing: &'k SigningKey,
        context: &[u8],
        policy: RotationPolicy,
        now: Instant,
    ) -> Result<(Self, Envelope), Error> {
        let binding = Binding {
            receiver,
            sender: signing.verifying_key().key_id(),
            ciphertext: &agreement.ciphertext,
            sid: agreement.sid,
            context,
        };
        let secret = EpochSecret::first(&binding, &agreement.secret);
        let sender = Self {
            signing,
            receiver: receiver.key_id().clone(),
            sid: agreement.sid,
            policy,
            lanes: Lanes::new(&secret, 0, agreement.sid),
            secret,
            began: now,
            usage: Usage::default(),
            next: 0,
            ended: false,
        };
        let header = sender
            .header(0, &sender.secret, Some(agreement.ciphertext))
            .sign(signing)?;
        Ok((sender, header))
    }

    /// The stream's name.
    pub fn sid(&self) -> StreamId {
        self.sid
    }

    /// The epoch of the newest packet.
    pub fn epoch(&self) -> u16 {
        self.lanes.epoch()
    }

    /// Makes a packet, in place, of the payload that stands in it between [`PAYLOAD_START`](super::PAYLOAD_START) and the
    /// last 16 bytes. When a new epoch is due, its header comes back: it goes out before the packet.
    ///
    /// A packet that was lost is sent again as it is, byte for byte: sealing its payload again is another packet.
    pub fn seal(&mut self, packet: &mut [u8], now: Instant) -> Result<Option<Envelope>, Error> {
        self.seal_with(packet, false, now)
    }

    /// As [`Sender::seal`], for the final packet, which every stream must have; its payload may be empty.
    pub fn seal_final(&mut self, packet: &mut [u8], now: Instant) -> Result<Option<Envelope>, Error> {
        let header = self.seal_with(packet, true, now)?;
        self.ended = true;
        Ok(header)
    }

    /// Whether these bytes are the receiver's word that it has opened every packet of this stream, the final one included.
    pub fn is_confirmed_by(&self, confirmation: &[u8]) -> bool {
        let expected = self.secret.confirmation(self.epoch(), self.sid, self.next);
        self.ended && bool::from(expected.ct_eq(confirmation))
    }

    fn seal_with(
        &mut self,
        packet: &mut [u8],
        is_final: bool,
        now: Instant,
    ) -> Result<Option<Envelope>, Error> {
        if self.ended {
            return Err(Error::Ended);
        }
        let payload = packet
            .len()
            .checked_sub(OVERHEAD)
            .filter(|_| packet.len() <= PACKET_LIMIT)
            .ok_or(Error::Length(packet.len()))?;
        let age = now.saturating_duration_since(self.began);
        let header = if self.policy.is_due(self.usage, age, payload) {
            Some(self.rotate(now)?)
        } else {
            None
        };
        let nonce = Nonce {
            epoch: self.epoch(),
            is_final,
            seq: self.next,
        };
        // Counted before it is used: whatever fails from here on, no nonce comes twice.
        self.next += 1;
        self.usage.packets += 1;
        self.usage.bytes += payload as u64;
        self.lanes.seal(nonce, packet)?;
        Ok(header)
    }

    /// Goes on to the next epoch once its header is signed; the keys of the one before are wiped.
    fn rotate(&mut self, now: Instant) -> Result<Envelope, Error> {
        let epoch = self.epoch().checked_add(1).ok_or(Error::Exhausted)?;
        let secret = self.secret.next();
        let header = self.header(epoch, &secret, None).sign(self.signing)?;
        self.lanes = Lanes::new(&secret, epoch, self.sid);
        self.secret = secret;
        self.began = now;
        self.usage = Usage::default();
        Ok(header)
    }

    fn header(&self, epoch: u16, secret: &EpochSecret, ct: Option<Vec<u8>>) -> Header {
        Header {
            type_: TYPE.to_owned(),
            suite: self.signing.suite(),
            kem: KemSuite::MlKem1024,
            aead: AeadSuite::Aes256GcmL4,
            sid: self.sid,
            kid: self.receiver.clone(),
            ct,
            epoch,
            first: self.next,
            cmt: secret.commitment(epoch, self.sid),
        }
    }

    #[cfg(test)]
    pub(super) fn epoch_secret(&self) -> &EpochSecret {
        &self.secret
    }
}
