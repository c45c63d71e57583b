//! The vectors in tests/vectors/l4.json: what this crate makes of fixed keys, to the byte. `UPDATE_VECTORS=1` writes them
//! anew; the KEM's ciphertext and the signatures, which cannot be repeated, stay as they are in the file.

use super::lanes::Lanes;
use super::sample::{every, unsealed};
use super::sender::Agreement;
use super::{PAYLOAD_START, Receiver, Sender, StreamId};
use crate::kem::DecapsulationKey;
use crate::{Envelope, SigningKey, Suite};
use aes_gcm::aead::{Aead as _, KeyInit as _, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use serde::{Deserialize, Serialize};
use std::fs;
use std::time::Instant;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/l4.json");

/// All bytes are in hexadecimal.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Vectors {
    receiver_seed: String,
    sender_seed: String,
    context: String,
    sid: String,
    ciphertext: String,
    shared_secret: String,
    epochs: Vec<Epoch>,
    packets: Vec<Packet>,
    confirmation: String,
    refused: Vec<Refused>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Epoch {
    secret: String,
    lane_keys: Vec<String>,
    /// The signed payload.
    header: String,
    envelope: Envelope,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Packet {
    payload: String,
    packet: String,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Refused {
    why: String,
    packet: String,
}

fn bytes(from: usize, length: usize) -> Vec<u8> {
    (0..=255).cycle().skip(from).take(length).collect()
}

/// The vectors, with the ciphertext and the envelopes of `old`, where these still fit.
fn generate(old: Option<&Vectors>) -> Vectors {
    let (receiver_seed, sender_seed) = (bytes(0, 64), bytes(100, 32));
    let receiver = DecapsulationKey::from_seed(receiver_seed.as_slice().try_into().unwrap()).unwrap();
    let signing = SigningKey::from_seed(Suite::MlDsa87, &sender_seed).unwrap();
    let ciphertext = match old {
        Some(old) => hex::decode(&old.ciphertext).unwrap(),
        None => receiver.encapsulation_key().encapsulate().unwrap().0,
    };
    let secret = receiver.decapsulate(&ciphertext).unwrap();
    let shared_secret = hex::encode(secret.as_bytes());
    let (sid, context, now) = (bytes(200, 16), b"vectors", Instant::now());
    let agreement = Agreement {
        sid: StreamId::from_bytes(sid.as_slice().try_into().unwrap()),
        ciphertext: ciphertext.clone(),
        secret,
    };
    let begun = Sender::with(
        agreement,
        receiver.encapsulation_key(),
        &signing,
        context,
        every(100),
        now,
    );
    let (mut sender, header) = begun.unwrap();

    let (mut epochs, mut packets) = (Vec::new(), Vec::new());
    let mut note_epoch = |sender: &Sender<'_>, made: Envelope| {
        let kept = old.and_then(|old| old.epochs.get(epochs.len()));
        let kept = kept.filter(|kept| kept.envelope.payload() == made.payload());
        epochs.push(Epoch {
            secret: hex::encode(sender.epoch_secret().as_bytes()),
            lane_keys: sender
                .epoch_secret()
                .lane_keys(sender.epoch(), sender.sid())
                .map(|key| hex::encode(key.as_slice()))
                .to_vec(),
            header: String::from_utf8(made.payload().to_vec()).unwrap(),
            envelope: kept.map_or(made, |kept| kept.envelope.clone()),
        });
    };
    note_epoch(&sender, header);
    let lengths = [0, 1, 15, 16, 17, 48, 33, 64, 100, 101, 0];
    for (index, length) in lengths.into_iter().enumerate() {
        let payload = bytes(index, length);
        let mut packet = unsealed(&payload);
        let header = if index + 1 == lengths.len() {
            sender.seal_final(&mut packet, now)
        } else {
            sender.seal(&mut packet, now)
        };
        if let Some(header) = header.unwrap() {
            note_epoch(&sender, header);
        }
        packets.push(Packet {
            payload: hex::encode(payload),
            packet: hex::encode(packet),
        });
    }
    let confirmation = sender
        .epoch_secret()
        .confirmation(sender.epoch(), sender.sid(), lengths.len() as u64);

    Vectors {
        refused: refused(&sender, &packets),
        receiver_seed: hex::encode(receiver_seed),
        sender_seed: hex::encode(sender_seed),
        context: hex::encode(context),
        sid: hex::encode(sid),
        ciphertext: hex::encode(ciphertext),
        shared_secret,
        epochs,
        packets,
        confirmation: hex::encode(confirmation),
    }
}

/// Packets that the receiver of all headers and of no packet refuses, made of the last epoch's.
fn refused(sender: &Sender<'_>, packets: &[Packet]) -> Vec<Refused> {
    let [.., genuine, _] = packets else { unreachable!() };
    let genuine = hex::decode(&genuine.packet).unwrap();
    let bent = |why: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut packet = genuine.clone();
        change(&mut packet);
        Refused {
            why: why.to_owned(),
            packet: hex::encode(packet),
        }
    };
    // Sealed with the right key, as no honest sender would.
    let mut misplaced = unsealed(b"misplaced");
    let lanes = Lanes::new(sender.epoch_secret(), sender.epoch(), sender.sid());
    let nonce = super::packet::Nonce {
        epoch: sender.epoch(),
        is_final: false,
        seq: 0,
    };
    lanes.seal(nonce, &mut misplaced).unwrap();
    vec![
        bent("a bit of the tag", &|packet| *packet.last_mut().unwrap() ^= 1),
        bent("a bit of the ciphertext", &|packet| packet[PAYLOAD_START] ^= 0x80),
        bent("the epoch before", &|packet| packet[1] -= 1),
        bent("an epoch to come", &|packet| packet[1] += 1),
        bent("another lane", &|packet| packet[2] ^= 1),
        bent("the final flag", &|packet| packet[3] ^= 1),
        bent("an unknown flag", &|packet| packet[3] ^= 2),
        bent("another number in the same lane", &|packet| packet[11] += 4),
        bent("a byte less", &|packet| packet.truncate(packet.len() - 1)),
        bent("a byte more", &|packet| packet.push(0)),
        bent("nonce and half a tag", &|packet| packet.truncate(20)),
        Refused {
            why: "a number of an earlier epoch".to_owned(),
            packet: hex::encode(misplaced),
        },
    ]
}

#[test]
fn the_vectors_are_what_this_crate_makes() {
    let text = fs::read_to_string(FILE).ok();
    let old = text.map(|text| serde_json::from_str::<Vectors>(&text).unwrap());
    let new = generate(old.as_ref());
    if std::env::var_os("UPDATE_VECTORS").is_some() {
        fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors")).unwrap();
        fs::write(FILE, serde_json::to_string_pretty(&new).unwrap() + "\n").unwrap();
    } else {
        assert_eq!(old.as_ref(), Some(&new), "UPDATE_VECTORS=1 writes them anew");
    }
}

#[test]
fn the_vectors_open_and_the_refused_ones_do_not() {
    let vectors: Vectors = serde_json::from_str(&fs::read_to_string(FILE).unwrap()).unwrap();
    let decoded = |text: &str| hex::decode(text).unwrap();
    let seed = decoded(&vectors.receiver_seed);
    let key = DecapsulationKey::from_seed(seed.as_slice().try_into().unwrap()).unwrap();
    let signing = SigningKey::from_seed(Suite::MlDsa87, &decoded(&vectors.sender_seed)).unwrap();
    let accept = || {
        let first = &vectors.epochs[0].envelope;
        Receiver::accept(first, signing.verifying_key(), &key, &decoded(&vectors.context)).unwrap()
    };
    let now = Instant::now();

    let mut receiver = accept();
    let mut later = vectors.epochs[1..].iter();
    for packet in &vectors.packets {
        let mut sealed = decoded(&packet.packet);
        if u16::from_be_bytes([sealed[0], sealed[1]]) > receiver.epoch() {
            receiver.rotate(&later.next().unwrap().envelope).unwrap();
        }
        let opened = receiver.open(&mut sealed, now).unwrap();
        assert_eq!(hex::encode(opened.payload), packet.payload);
    }
    let delivery = receiver.finish().unwrap();
    assert_eq!(delivery.missing, 0);
    assert_eq!(hex::encode(delivery.confirmation), vectors.confirmation);

    let mut receiver = accept();
    for epoch in &vectors.epochs[1..] {
        receiver.rotate(&epoch.envelope).unwrap();
    }
    for packet in &vectors.refused {
        assert!(
            receiver.open(&mut decoded(&packet.packet), now).is_err(),
            "{}",
            packet.why
        );
    }
}

#[test]
fn the_crate_aes_gcm_opens_the_vectors_too() {
    let vectors: Vectors = serde_json::from_str(&fs::read_to_string(FILE).unwrap()).unwrap();
    let aad = [&[1][..], &hex::decode(&vectors.sid).unwrap()].concat();
    for packet in &vectors.packets {
        let sealed = hex::decode(&packet.packet).unwrap();
        let (nonce, msg) = sealed.split_at(PAYLOAD_START);
        let epoch = &vectors.epochs[usize::from(nonce[1])];
        let key = hex::decode(&epoch.lane_keys[usize::from(nonce[2])]).unwrap();
        let opened = Aes256Gcm::new_from_slice(&key)
            .unwrap()
            .decrypt(&Nonce::try_from(nonce).unwrap(), Payload { msg, aad: &aad })
            .unwrap();
        assert_eq!(hex::encode(opened), packet.payload);
    }
}
