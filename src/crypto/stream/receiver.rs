//! The receiving side: which headers and packets are accepted, and for how long the epoch before still is.

use super::header::Header;
use super::lanes::Lanes;
use super::packet::Nonce;
use super::policy::PACKETS_PER_EPOCH;
use super::schedule::{Binding, EpochSecret};
use super::window::Window;
use super::{Error, StreamId};
use crate::dsse::Envelope;
use crate::kem::DecapsulationKey;
use crate::key::{KeyId, VerifyingKey};
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq as _;

/// For how long packets of an epoch are accepted after the first one of the next.
pub const OVERLAP: Duration = Duration::from_secs(30);
/// How many sequence numbers before its last one an epoch still accepts in that time.
pub const OVERLAP_PACKETS: u64 = 4;

/// Opens the packets of one stream, in whatever order they come. Neither `Debug` nor `Clone`.
pub struct Receiver {
    sender: VerifyingKey,
    kid: KeyId,
    sid: StreamId,
    secret: EpochSecret,
    current: Epoch,
    previous: Option<Closing>,
    window: Window,
    opened: u64,
    /// The final packet's number, once it came.
    last: Option<u64>,
}

/// An epoch and its first sequence number.
struct Epoch {
    lanes: Lanes,
    first: u64,
}

/// An epoch that another one follows.
struct Closing {
    epoch: Epoch,
    /// Its last sequence number.
    end: u64,
    /// When it is over; set by the first packet of the next epoch.
    until: Option<Instant>,
}

/// A genuine packet. No `Debug`: it holds plaintext.
pub struct Opened<'p> {
    /// Its sequence number: counted from 0, over all epochs, without gaps.
    pub seq: u64,
    /// Its epoch.
    pub epoch: u16,
    /// Whether it is the stream's last.
    pub is_final: bool,
    /// What it carries.
    pub payload: &'p [u8],
}

/// What came of a stream whose final packet came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// How many packets were opened.
    pub opened: u64,
    /// How many never came.
    pub missing: u64,
    /// For [`Sender::is_confirmed_by`](super::Sender::is_confirmed_by), which believes it if nothing is missing.
    pub confirmation: [u8; 32],
}

impl Receiver {
    /// Accepts a stream by its first header: `sender` signed it, it is meant for `key`, and the keys are those that it
    /// commits to. `context` must be the sender's.
    pub fn accept(
        header: &Envelope,
        sender: &VerifyingKey,
        key: &DecapsulationKey,
        context: &[u8],
    ) -> Result<Self, Error> {
        let header = Header::verify(header, sender)?;
        let ours = key.encapsulation_key();
        if header.kid != *ours.key_id() {
            return Err(Error::NotForKey {
                named: header.kid,
                ours: ours.key_id().clone(),
            });
        }
        if (header.epoch, header.first) != (0, 0) {
            return Err(header.out_of_order());
        }
        let ciphertext = header.ct.as_deref().ok_or(Error::Ciphertext)?;
        let binding = Binding {
            receiver: ours,
            sender: sender.key_id(),
            ciphertext,
            sid: header.sid,
            context,
        };
        let secret = EpochSecret::first(&binding, &key.decapsulate(ciphertext)?);
        header.check_commitment(&secret)?;
        Ok(Self {
            sender: sender.clone(),
            sid: header.sid,
            current: Epoch::new(&secret, &header),
            kid: header.kid,
            secret,
            previous: None,
            window: Window::new(),
            opened: 0,
            last: None,
        })
    }

    /// Accepts the header of the next epoch. From the epoch before, packets up to its last one are still accepted: all of
    /// them until the first one of the new epoch comes, then the newest five for [`OVERLAP`] at most. Older epochs are over.
    pub fn rotate(&mut self, header: &Envelope) -> Result<(), Error> {
        let header = Header::verify(header, &self.sender)?;
        if (header.sid, &header.kid) != (self.sid, &self.kid) {
            return Err(Error::OtherStream);
        }
        let follows = self.epoch().checked_add(1) == Some(header.epoch)
            && self.current.may_end_before(header.first)
            && self.window.next() <= header.first
            && self.last.is_none();
        if !follows {
            return Err(header.out_of_order());
        }
        let secret = self.secret.next();
        header.check_commitment(&secret)?;
        let next = Epoch::new(&secret, &header);
        self.secret = secret;
        self.previous = Some(Closing {
            epoch: std::mem::replace(&mut self.current, next),
            end: header.first - 1,
            until: None,
        });
        Ok(())
    }

    /// Opens `packet` in place: each genuine packet once. The replay window is asked before, and told after, the tag was
    /// found to be right.
    pub fn open<'p>(&mut self, packet: &'p mut [u8], now: Instant) -> Result<Opened<'p>, Error> {
        self.expire(now);
        let nonce = Nonce::of(packet)?;
        let epoch = self.epoch_of(nonce)?;
        if !self.may_come(nonce) {
            return Err(Error::Sequence(nonce.seq));
        }
        if !self.window.is_unseen(nonce.seq) {
            return Err(Error::Replay(nonce.seq));
        }
        let payload = epoch.lanes.open(nonce, packet)?;

        self.window.mark(nonce.seq);
        self.opened += 1;
        if nonce.is_final {
            self.last = Some(nonce.seq);
        }
        if nonce.epoch == self.epoch()
            && let Some(previous) = &mut self.previous
        {
            previous.until.get_or_insert(now + OVERLAP);
        }
        Ok(Opened {
            seq: nonce.seq,
            epoch: nonce.epoch,
            is_final: nonce.is_final,
            payload,
        })
    }

    /// Wipes the keys of the epoch before when its time is over. [`Receiver::open`] does the same: only who waits long for
    /// a packet has to ask for it.
    pub fn expire(&mut self, now: Instant) {
        let over = |previous: &Closing| previous.until.is_some_and(|until| now >= until);
        if self.previous.as_ref().is_some_and(over) {
            self.previous = None;
        }
    }

    /// The stream's name.
    pub fn sid(&self) -> StreamId {
        self.sid
    }

    /// The newest epoch whose header was accepted.
    pub fn epoch(&self) -> u16 {
        self.current.lanes.epoch()
    }

    /// Whether the final packet came.
    pub fn has_ended(&self) -> bool {
        self.last.is_some()
    }

    /// Ends the stream: an error when its final packet never came.
    pub fn finish(self) -> Result<Delivery, Error> {
        let last = self.last.ok_or(Error::Truncated)?;
        let epoch = self.epoch();
        Ok(Delivery {
            opened: self.opened,
            missing: last + 1 - self.opened,
            confirmation: self.secret.confirmation(epoch, self.sid, self.opened),
        })
    }

    /// The epoch of a packet, if it still or already accepts the packet's number.
    fn epoch_of(&self, nonce: Nonce) -> Result<&Epoch, Error> {
        let (epoch, accepted) = match &self.previous {
            Some(previous) if previous.epoch.lanes.epoch() == nonce.epoch => {
                (&previous.epoch, previous.accepts(nonce.seq))
            }
            _ if self.epoch() == nonce.epoch => (&self.current, self.current.may_carry(nonce.seq)),
            _ => return Err(Error::Epoch(nonce.epoch)),
        };
        accepted.then_some(epoch).ok_or(Error::Sequence(nonce.seq))
    }

    /// Nothing follows the final packet, there is one, and the newest epoch has it.
    fn may_come(&self, nonce: Nonce) -> bool {
        let before_end = self.last.is_none_or(|last| nonce.seq <= last && !nonce.is_final);
        let can_end = nonce.seq >= self.window.next() && nonce.epoch == self.epoch();
        before_end && (!nonce.is_final || can_end)
    }
}

impl Epoch {
    fn new(secret: &EpochSecret, header: &Header) -> Self {
        Self {
            lanes: Lanes::new(secret, header.epoch, header.sid),
            first: header.first,
        }
    }

    fn may_carry(&self, seq: u64) -> bool {
        seq.checked_sub(self.first)
            .is_some_and(|index| index < PACKETS_PER_EPOCH)
    }

    /// Whether the next epoch may begin with packet `first`: this one has one packet at least, and not too many.
    fn may_end_before(&self, first: u64) -> bool {
        first.checked_sub(1).is_some_and(|end| self.may_carry(end))
    }
}

impl Closing {
    fn accepts(&self, seq: u64) -> bool {
        let late = self.until.is_none() || seq >= self.end.saturating_sub(OVERLAP_PACKETS);
        (self.epoch.first..=self.end).contains(&seq) && late
    }
}

impl Header {
    fn check_commitment(&self, secret: &EpochSecret) -> Result<(), Error> {
        let expected = secret.commitment(self.epoch, self.sid);
        if bool::from(expected.ct_eq(&self.cmt)) {
            Ok(())
        } else {
            Err(Error::Commitment)
        }
    }

    fn out_of_order(&self) -> Error {
        Error::Order {
            epoch: self.epoch,
            first: self.first,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{CONTEXT, Link, RECEIVER, SENDER, every, receiver_key, unsealed};
    use super::super::{AeadSuite, PAYLOAD_TYPE, RotationPolicy, Sender, WINDOW};
    use super::*;
    use crate::{SigningKey, Suite};

    const NEVER: u64 = 1 << 40;
    const INSTANT: Duration = Duration::from_millis(1);

    #[test]
    fn packets_come_as_they_were_sent_and_the_receiver_confirms_all_of_them() {
        let mut link = Link::new(every(100));
        for (seq, payload) in (0_u64..).zip([&b""[..], b"x", &[7; 99], &[8; 101], &vec![9; 65_536]]) {
            let (header, packet) = link.seal(payload);
            if let Some(header) = header {
                link.receiver.rotate(&header).unwrap();
            }
            assert_eq!(link.open(&packet).unwrap(), (seq, payload.to_vec()));
        }
        let (header, packet) = link.seal_final(b"end");
        link.receiver.rotate(&header.unwrap()).unwrap();
        assert!(!link.receiver.has_ended());
        link.open(&packet).unwrap();
        assert!(link.receiver.has_ended());
        let delivery = link.receiver.finish().unwrap();
        assert_eq!((delivery.opened, delivery.missing), (6, 0));
        assert!(link.sender.is_confirmed_by(&delivery.confirmation));
        let mut bent = delivery.confirmation;
        bent[31] ^= 1;
        assert!(!link.sender.is_confirmed_by(&bent));
        assert!(!link.sender.is_confirmed_by(&[]));
    }

    #[test]
    fn a_stream_without_its_final_packet_was_cut_off_and_a_lost_one_is_missing() {
        let mut link = Link::new(every(NEVER));
        link.seal(b"lost");
        let (_, packet) = link.seal_final(b"");
        assert!(matches!(link.receiver.finish(), Err(Error::Truncated)));

        let mut other = Link::new(every(NEVER));
        assert!(
            matches!(other.open(&packet), Err(Error::Tag)),
            "of another stream"
        );
        other.seal(b"lost");
        let (_, packet) = other.seal_final(b"");
        other.open(&packet).unwrap();
        let delivery = other.receiver.finish().unwrap();
        assert_eq!((delivery.opened, delivery.missing), (1, 1));
        assert!(!other.sender.is_confirmed_by(&delivery.confirmation));
    }

    #[test]
    fn nothing_is_sealed_or_opened_after_the_final_packet_but_what_was_sent_before() {
        let mut link = Link::new(every(NEVER));
        let (_, late) = link.seal(b"late");
        let (_, last) = link.seal_final(b"");
        let mut packet = unsealed(b"more");
        assert!(matches!(
            link.sender.seal(&mut packet, link.now),
            Err(Error::Ended)
        ));
        assert!(matches!(
            link.sender.seal_final(&mut packet, link.now),
            Err(Error::Ended)
        ));
        link.open(&last).unwrap();
        assert!(matches!(link.open(&last), Err(Error::Sequence(1))));
        assert_eq!(link.open(&late).unwrap().0, 0);
        assert_eq!(link.receiver.finish().unwrap().missing, 0);
    }

    #[test]
    fn a_packet_opens_once_and_within_the_window() {
        let mut link = Link::new(every(NEVER));
        let packets: Vec<_> = (0..=WINDOW).map(|_| link.seal(b"x").1).collect();
        link.open(&packets[1]).unwrap();
        link.open(packets.last().unwrap()).unwrap();
        assert!(matches!(link.open(&packets[0]), Err(Error::Replay(0))));
        assert!(matches!(link.open(&packets[1]), Err(Error::Replay(1))));
        link.open(&packets[2]).unwrap();
        assert!(matches!(link.open(&packets[2]), Err(Error::Replay(2))));
    }

    /// Epoch 0 has packets 0 to 9, and epoch 1 begins with packet 10.
    fn rotated() -> (Link, Vec<Vec<u8>>, Envelope) {
        let mut link = Link::new(every(10));
        let packets: Vec<_> = (0..10).map(|_| link.seal(b"x").1).collect();
        let (header, packet) = link.seal(b"x");
        (link, [packets, vec![packet]].concat(), header.unwrap())
    }

    #[test]
    fn the_epoch_before_is_open_for_its_last_packets_and_for_30_seconds() {
        let (mut link, packets, header) = rotated();
        assert!(
            matches!(link.open(&packets[10]), Err(Error::Epoch(1))),
            "its header first"
        );
        link.receiver.rotate(&header).unwrap();
        link.open(&packets[3]).unwrap();
        link.open(&packets[10]).unwrap();
        assert!(matches!(link.open(&packets[4]), Err(Error::Sequence(4))));
        link.open(&packets[5]).unwrap();
        assert!(matches!(link.open(&packets[5]), Err(Error::Replay(5))));
        link.now += OVERLAP.saturating_sub(INSTANT);
        link.open(&packets[6]).unwrap();
        link.now += INSTANT;
        assert!(matches!(link.open(&packets[7]), Err(Error::Epoch(0))));
    }

    #[test]
    fn old_keys_are_forgotten_without_a_packet_too_and_when_two_epochs_have_followed() {
        let (mut link, packets, header) = rotated();
        link.receiver.rotate(&header).unwrap();
        link.open(&packets[10]).unwrap();
        link.receiver.expire(link.now + OVERLAP.saturating_sub(INSTANT));
        assert!(link.receiver.previous.is_some());
        link.receiver.expire(link.now + OVERLAP);
        assert!(link.receiver.previous.is_none());

        let (mut link, packets, header) = rotated();
        link.receiver.rotate(&header).unwrap();
        let (header, _) = link.seal(&[0; 10]);
        link.receiver.rotate(&header.unwrap()).unwrap();
        assert!(matches!(link.open(&packets[9]), Err(Error::Epoch(0))));
        link.open(&packets[10]).unwrap();
    }

    #[test]
    fn headers_follow_one_another_without_gaps_and_once() {
        let (mut link, _, header) = rotated();
        let (next, _) = link.seal(&[0; 10]);
        let next = next.unwrap();
        assert!(matches!(
            link.receiver.rotate(&next),
            Err(Error::Order { epoch: 2, .. })
        ));
        link.receiver.rotate(&header).unwrap();
        assert!(matches!(
            link.receiver.rotate(&header),
            Err(Error::Order { epoch: 1, .. })
        ));
        link.receiver.rotate(&next).unwrap();
        let begun = Receiver::accept(&next, SENDER.verifying_key(), &RECEIVER, CONTEXT);
        assert!(matches!(begun, Err(Error::Order { .. })));
    }

    #[test]
    fn another_key_sender_or_context_accepts_no_header() {
        let link = Link::new(every(NEVER));
        let (_, header) = Sender::begin(
            RECEIVER.encapsulation_key(),
            &SENDER,
            CONTEXT,
            RotationPolicy::default(),
            link.now,
        )
        .unwrap();
        let sender = SENDER.verifying_key();
        let other = SigningKey::from_seed(Suite::MlDsa87, &[9; 32]).unwrap();
        assert!(matches!(
            Receiver::accept(&header, sender, &receiver_key(9), CONTEXT),
            Err(Error::NotForKey { .. })
        ));
        assert!(Receiver::accept(&header, other.verifying_key(), &RECEIVER, CONTEXT).is_err());
        assert!(matches!(
            Receiver::accept(&header, sender, &RECEIVER, b"another"),
            Err(Error::Commitment)
        ));
        assert!(matches!(
            { link }.receiver.rotate(&header),
            Err(Error::OtherStream)
        ));
    }

    /// What a header would be after a change that its sender signed himself.
    fn signed(header: &Envelope, from: &str, to: &str) -> Envelope {
        let payload = String::from_utf8(header.payload().to_vec()).unwrap();
        assert!(payload.contains(from), "{payload}");
        Envelope::sign(PAYLOAD_TYPE, payload.replacen(from, to, 1).as_bytes(), &SENDER).unwrap()
    }

    #[test]
    fn headers_with_anything_unknown_twice_or_out_of_place_are_refused_even_when_signed() {
        let now = Instant::now();
        let (_, header) = Sender::begin(
            RECEIVER.encapsulation_key(),
            &SENDER,
            CONTEXT,
            RotationPolicy::default(),
            now,
        )
        .unwrap();
        let accept = |header: &Envelope| Receiver::accept(header, SENDER.verifying_key(), &RECEIVER, CONTEXT);
        assert!(accept(&signed(&header, "{", " {")).is_ok());
        let aead = AeadSuite::Aes256GcmL4.to_string();
        for (from, to) in [
            ("epoch/v1", "epoch/v2"),
            ("ML-DSA-87", "ML-DSA-65"),
            ("ML-DSA-87", "ML-DSA-44"),
            ("ML-KEM-1024", "ML-KEM-512"),
            (aead.as_str(), "AES-128-GCM-L4"),
            ("\"epoch\":0", "\"epoch\":1"),
            ("\"epoch\":0", "\"epoch\":65536"),
            ("\"epoch\":0", "\"epoch\":0,\"epoch\":0"),
            ("\"first\":0", "\"first\":1"),
            ("\"first\":0", "\"first\":0,\"more\":0"),
            ("\"sid\":\"", "\"sid\":\"00"),
            ("\"kid\":\"", "\"kid\":\"A"),
            ("\"ct\":\"", "\"ct\":\"AAAA"),
            ("\"ct\":", "\"ct\":null,\"x\":"),
            ("\"cmt\":\"", "\"cmt\":\"00"),
        ] {
            assert!(accept(&signed(&header, from, to)).is_err(), "{from} {to}");
        }
        let other_type = Envelope::sign("application/json", header.payload(), &SENDER).unwrap();
        assert!(accept(&other_type).is_err());
    }

    #[test]
    fn a_later_header_may_name_no_impossible_first_packet() {
        let (mut link, packets, header) = rotated();
        link.open(&packets[9]).unwrap();
        for first in ["0", "9", "16777217", "18446744073709551615"] {
            let bent = signed(&header, "\"first\":10", &format!("\"first\":{first}"));
            assert!(
                matches!(link.receiver.rotate(&bent), Err(Error::Order { epoch: 1, .. })),
                "{first}"
            );
        }
        let with_ciphertext = signed(&header, "\"epoch\"", "\"ct\":\"AAAA\",\"epoch\"");
        assert!(matches!(
            link.receiver.rotate(&with_ciphertext),
            Err(Error::Ciphertext)
        ));
        link.receiver.rotate(&header).unwrap();
    }

    #[test]
    fn an_epoch_carries_no_more_packets_than_it_may() {
        let link = Link::new(every(NEVER));
        let epoch = &link.receiver.current;
        assert!(epoch.may_carry(PACKETS_PER_EPOCH - 1) && !epoch.may_carry(PACKETS_PER_EPOCH));
        assert!(epoch.may_end_before(PACKETS_PER_EPOCH) && !epoch.may_end_before(PACKETS_PER_EPOCH + 1));
        assert!(!epoch.may_end_before(0));
    }
}
