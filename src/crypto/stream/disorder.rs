//! Whatever happens to packets on their way, each payload comes at most once and as it was sent.

use super::sample::{CONTEXT, Link, RECEIVER, SENDER, every};
use super::{Error, OVERHEAD, Receiver, Sender, WINDOW};
use crate::Envelope;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

const NEVER: u64 = 1 << 40;

/// What the network does to one packet.
#[derive(Clone, Debug)]
struct Fate {
    /// By how many places each copy comes late; no copy is a loss.
    copies: Vec<u64>,
    /// A bit that flips in an additional copy.
    flip: Option<usize>,
    /// Seconds that pass before the packet is sent.
    pause: u64,
}

fn fate() -> impl Strategy<Value = Fate> {
    let late = prop_oneof![4 => Just(0), 4 => 0_u64..12, 1 => 0_u64..1500];
    (
        prop::collection::vec(late, 0..3),
        prop::option::weighted(0.2, any::<usize>()),
        prop_oneof![9 => Just(0), 1 => 0_u64..40],
    )
        .prop_map(|(copies, flip, pause)| Fate { copies, flip, pause })
}

enum Arrival {
    Header(Envelope),
    Packet { seq: u64, bytes: Vec<u8>, genuine: bool },
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn no_payload_comes_twice_or_changed(
        fates in prop::collection::vec(fate(), 1..120),
        max_bytes in prop_oneof![Just(60_u64), Just(600), Just(NEVER)],
    ) {
        let mut link = Link::new(every(max_bytes));
        let payload = |seq: u64| seq.to_be_bytes().repeat(1 + usize::from(seq.to_be_bytes()[7]) % 4);
        let mut arrivals = Vec::new();
        for (seq, fate) in (0_u64..).zip(&fates) {
            let (header, packet) = link.seal(&payload(seq));
            if let Some(header) = header {
                arrivals.push((2 * seq, 0, Arrival::Header(header)));
            }
            for late in &fate.copies {
                let arrival = Arrival::Packet { seq, bytes: packet.clone(), genuine: true };
                arrivals.push((2 * (seq + late) + 1, fate.pause, arrival));
            }
            if let Some(flip) = fate.flip {
                let mut bytes = packet.clone();
                let bit = flip % (8 * bytes.len());
                bytes[bit / 8] ^= 1 << (bit % 8);
                arrivals.push((2 * seq + 1, 0, Arrival::Packet { seq, bytes, genuine: false }));
            }
        }
        arrivals.sort_by_key(|(place, ..)| *place);

        let mut opened = BTreeSet::new();
        for (_, pause, arrival) in arrivals {
            link.now += Duration::from_secs(pause);
            match arrival {
                Arrival::Header(header) => link.receiver.rotate(&header).unwrap(),
                Arrival::Packet { seq, bytes, genuine } => match link.open(&bytes) {
                    Ok((number, bytes)) => {
                        prop_assert!(genuine);
                        prop_assert_eq!(number, seq);
                        prop_assert_eq!(bytes, payload(seq));
                        prop_assert!(opened.insert(seq), "packet {} came twice", seq);
                    }
                    Err(Error::Replay(_)) => prop_assert!(!genuine || opened.contains(&seq) || opened.last() >= Some(&(seq + WINDOW))),
                    Err(_) => prop_assert!(!genuine || max_bytes < NEVER),
                },
            }
        }
        prop_assert!(matches!(link.receiver.finish(), Err(Error::Truncated)));
    }

    #[test]
    fn bytes_that_nobody_sealed_are_refused(mut bytes in prop::collection::vec(any::<u8>(), 0..200), plausible: bool) {
        let mut link = Link::new(every(40));
        if plausible && bytes.len() > OVERHEAD {
            bytes[..12].copy_from_slice(&[0; 12]);
        }
        prop_assert!(link.open(&bytes).is_err());
    }
}

#[test]
fn every_bit_of_a_packet_counts() {
    let mut link = Link::new(every(NEVER));
    for payload in [&b""[..], b"some payload"] {
        let (_, packet) = link.seal(payload);
        for bit in 0..8 * packet.len() {
            let mut bent = packet.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            assert!(link.open(&bent).is_err(), "bit {bit}");
        }
        for length in 0..packet.len() {
            assert!(link.open(&packet[..length]).is_err());
        }
        assert!(link.open(&[&packet[..], &[0]].concat()).is_err());
        assert_eq!(link.open(&packet).unwrap().1, payload);
    }
}

#[test]
fn every_bit_of_a_first_header_counts() {
    let now = Instant::now();
    let (_, header) = Sender::begin(RECEIVER.encapsulation_key(), &SENDER, CONTEXT, every(1), now).unwrap();
    let accept = |json: &[u8]| {
        let header = Envelope::from_json(json)?;
        Receiver::accept(&header, SENDER.verifying_key(), &RECEIVER, CONTEXT).map(drop)
    };
    let json = header.to_json().into_bytes();
    accept(&json).unwrap();
    thread::scope(|scope| {
        for bit in 0..8 {
            let mut bent = json.clone();
            scope.spawn(move || {
                for index in 0..bent.len() {
                    bent[index] ^= 1 << bit;
                    assert!(accept(&bent).is_err(), "bit {bit} of byte {index}");
                    bent[index] ^= 1 << bit;
                }
            });
        }
    });
}

#[test]
fn every_byte_of_a_later_header_counts() {
    let mut link = Link::new(every(1));
    link.seal(b"a packet of epoch 0");
    let (header, _) = link.seal(b"a packet of epoch 1");
    let json = header.unwrap().to_json().into_bytes();
    let mut rotate = |json: &[u8]| link.receiver.rotate(&Envelope::from_json(json)?);
    for index in 0..json.len() {
        let mut bent = json.clone();
        bent[index] ^= 1 << (index % 8);
        assert!(rotate(&bent).is_err(), "byte {index}");
    }
    rotate(&json).unwrap();
}
