//! Streams between this crate and the second implementation, which was written from docs/streams.md alone.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

#[path = "outside/python.rs"]
mod python;

use crypto::kem::DecapsulationKey;
use crypto::stream::frame::{self, Kind};
use crypto::stream::{PAYLOAD_START, Receiver, RotationPolicy, Sender, packet_len};
use crypto::{Envelope, SigningKey, Suite};
use python::python;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/l4.py");
const CONTEXT: &[u8] = b"both implementations";

/// Keys of both sides, and the file from which the other implementation reads them.
struct Keys {
    receiver: DecapsulationKey,
    sender: SigningKey,
    file: PathBuf,
}

impl Keys {
    fn new(name: &str) -> Self {
        let (receiver, sender) = (
            DecapsulationKey::generate().unwrap(),
            SigningKey::generate(Suite::MlDsa87).unwrap(),
        );
        let text = format!(
            "{{\"receiverSeed\":\"{}\",\"senderSeed\":\"{}\",\"context\":\"{}\"}}",
            hex::encode(receiver.seed().as_slice()),
            hex::encode(sender.seed().as_slice()),
            hex::encode(CONTEXT)
        );
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::write(&file, text).unwrap();
        Self {
            receiver,
            sender,
            file,
        }
    }

    fn run(&self, verb: &str, numbers: &[&str], input: &[u8]) -> Output {
        let mut child = Command::new(python())
            .args([PROGRAM, verb])
            .arg(&self.file)
            .args(numbers)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            // A program that refuses its input reads no more of it.
            scope.spawn(move || drop(stdin.write_all(input)));
            child.wait_with_output().unwrap()
        })
    }
}

fn payload() -> Vec<u8> {
    (0..300_000_u32).map(|index| (index % 251) as u8).collect()
}

/// The frames of a stream that carries `payload` in pieces of these lengths, and its sender.
fn sent<'k>(keys: &'k Keys, payload: &[u8], lengths: &[usize]) -> (Vec<u8>, Sender<'k>) {
    let policy = RotationPolicy {
        interval: Duration::from_secs(3600),
        max_bytes: 100_000,
    };
    let now = Instant::now();
    let receiver = keys.receiver.encapsulation_key();
    let (mut sender, header) = Sender::begin(receiver, &keys.sender, CONTEXT, policy, now).unwrap();
    let mut frames = Vec::new();
    let mut put = |kind, body: &[u8]| {
        frames.extend(frame::head(kind, body.len()).unwrap());
        frames.extend(body);
    };
    put(Kind::Header, header.to_json().as_bytes());
    let mut rest = payload;
    for length in lengths.iter().cycle() {
        let (piece, tail) = rest.split_at(rest.len().min(*length));
        let mut packet = vec![0; packet_len(piece.len())];
        packet[PAYLOAD_START..][..piece.len()].copy_from_slice(piece);
        let header = if tail.is_empty() {
            sender.seal_final(&mut packet, now).unwrap()
        } else {
            sender.seal(&mut packet, now).unwrap()
        };
        if let Some(header) = header {
            put(Kind::Header, header.to_json().as_bytes());
        }
        put(Kind::Packet, &packet);
        if tail.is_empty() {
            break;
        }
        rest = tail;
    }
    assert!(sender.epoch() >= 3);
    (frames, sender)
}

#[test]
fn the_second_implementation_gets_every_value_of_the_vectors() {
    let vectors = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/l4.json");
    let output = Command::new(python())
        .args([PROGRAM, "vectors", vectors])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    println!("{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn the_second_implementation_reads_what_this_one_sends_and_refuses_it_bent() {
    let keys = Keys::new("l4-receive.json");
    let (frames, sender) = sent(&keys, &payload(), &[65_536, 0, 1, 30_000]);
    let output = keys.run("receive", &[], &frames);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{errors}");
    assert!(output.stdout == payload());
    assert!(sender.is_confirmed_by(&hex::decode(errors.trim()).unwrap()));

    let mut bent = frames.clone();
    *bent.last_mut().unwrap() ^= 1;
    for bad in [&bent[..], &frames[..frames.len() - 1], &frames[..200_000]] {
        assert!(!keys.run("receive", &[], bad).status.success());
    }
}

#[test]
fn this_implementation_reads_what_the_second_one_sends() {
    let keys = Keys::new("l4-send.json");
    let output = keys.run("send", &["100000", "40000"], &payload());
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{errors}");

    let mut rest = output.stdout.as_slice();
    let mut next = || {
        let (head, tail) = rest.split_first_chunk()?;
        let (kind, length) = frame::parse_head(*head).unwrap();
        let (body, tail) = tail.split_at(length);
        rest = tail;
        Some((kind, body.to_vec()))
    };
    let (Kind::Header, first) = next().unwrap() else {
        panic!("the first frame is a header");
    };
    let first = Envelope::from_json(&first).unwrap();
    let mut receiver =
        Receiver::accept(&first, keys.sender.verifying_key(), &keys.receiver, CONTEXT).unwrap();
    let (mut received, now) = (Vec::<u8>::new(), Instant::now());
    while let Some((kind, mut body)) = next() {
        match kind {
            Kind::Header => receiver.rotate(&Envelope::from_json(&body).unwrap()).unwrap(),
            Kind::Packet => received.extend(receiver.open(&mut body, now).unwrap().payload),
        }
    }
    assert!(received == payload());
    assert!(receiver.epoch() >= 2);
    let delivery = receiver.finish().unwrap();
    assert_eq!(delivery.missing, 0);
    assert_eq!(hex::encode(delivery.confirmation), errors.trim());
}
