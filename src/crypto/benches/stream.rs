//! What streams cost on top of the raw AEAD and the raw KEM, measured in one process. `cargo bench -p chimera-crypto`
//! prints GB/s of payload and the ratio to the raw operation.

#![allow(clippy::print_stdout, reason = "the figures are what the bench is for")]

use aes_gcm::aead::{AeadInOut as _, KeyInit as _};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use crypto::kem::DecapsulationKey;
use crypto::stream::{OVERHEAD, PAYLOAD_START, Receiver, RotationPolicy, Sender, packet_len};
use crypto::{SigningKey, Suite};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// Each figure is the median of so many rounds, the raw operation's and ours in turn. A round's packets fit into a
/// processor's second cache, as those do that a program seals into buffers of its own.
const ROUNDS: usize = 401;
const ROUND_BYTES: u32 = 1 << 20;

fn main() {
    for payload in [64 << 10, 1 << 10] {
        packets(payload);
    }
    rotation();
    encapsulation();
}

/// Packets with `payload` bytes each. Rounds with a rotation are no median: [`rotation`] has its cost.
fn packets(payload: usize) {
    let count = ROUND_BYTES as usize / payload;
    let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).expect("a key of AES-256"));
    let crate_key = aes_gcm::Aes256Gcm::new(&[7; 32].into());
    let mut ends = Ends::new(RotationPolicy::default());
    let mut packets: Vec<Vec<u8>> = vec![vec![7; packet_len(payload)]; count];
    let mut times: [Vec<f64>; 5] = Default::default();
    for _ in 0..ROUNDS {
        let mut counter = 0_u64;
        times[0].push(seconds(|| {
            for packet in &mut packets {
                let tag = key
                    .seal_in_place_separate_tag(nonce(&mut counter), Aad::from([1; 17]), body(packet))
                    .expect("seals");
                write_tag(packet, tag.as_ref());
            }
        }));
        counter = 0;
        times[1].push(seconds(|| {
            for packet in &mut packets {
                key.open_in_place(
                    nonce(&mut counter),
                    Aad::from([1; 17]),
                    &mut packet[PAYLOAD_START..],
                )
                .expect("opens");
            }
        }));
        times[2].push(seconds(|| {
            for (number, packet) in (0_u64..).zip(&mut packets) {
                let mut nonce = [0; 12];
                nonce[4..].copy_from_slice(&number.to_be_bytes());
                let tag = crate_key
                    .encrypt_inout_detached(&nonce.into(), &[1; 17], body(packet).into())
                    .expect("seals");
                write_tag(packet, &tag);
            }
        }));
        let mut headers = Vec::new();
        times[3].push(seconds(|| {
            for (index, packet) in packets.iter_mut().enumerate() {
                if let Some(header) = ends.sender.seal(packet, Instant::now()).expect("seals") {
                    headers.push((index, header));
                }
            }
        }));
        let mut headers = headers.into_iter().peekable();
        times[4].push(seconds(|| {
            for (index, packet) in packets.iter_mut().enumerate() {
                if let Some((_, header)) = headers.next_if(|(at, _)| *at == index) {
                    ends.receiver.rotate(&header).expect("follows");
                }
                black_box(ends.receiver.open(packet, Instant::now()).expect("opens"));
            }
        }));
    }
    let [seal, open, other, sender, receiver] = times.map(median);
    let rate = |time: f64| f64::from(ROUND_BYTES) / time / 1e9;
    println!("packets with {payload} bytes of payload:");
    println!(
        "  AES-256-GCM of aws-lc-rs     seal {:6.2} GB/s   open {:6.2} GB/s",
        rate(seal),
        rate(open)
    );
    println!(
        "  AES-256-GCM of aes-gcm       seal {:6.2} GB/s   aws-lc-rs is {:.1} × as fast",
        rate(other),
        other / seal
    );
    println!(
        "  sender                       seal {:6.2} GB/s   {:3.0} % of aws-lc-rs",
        rate(sender),
        100.0 * seal / sender
    );
    println!(
        "  receiver                     open {:6.2} GB/s   {:3.0} % of aws-lc-rs",
        rate(receiver),
        100.0 * open / receiver
    );
}

fn nonce(counter: &mut u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_be_bytes());
    *counter += 1;
    Nonce::assume_unique_for_key(bytes)
}

fn body(packet: &mut [u8]) -> &mut [u8] {
    let end = packet.len() - (OVERHEAD - PAYLOAD_START);
    &mut packet[PAYLOAD_START..end]
}

fn write_tag(packet: &mut [u8], tag: &[u8]) {
    let start = packet.len() - tag.len();
    packet[start..].copy_from_slice(tag);
}

/// Both ends of a stream.
struct Ends {
    sender: Sender<'static>,
    receiver: Receiver,
}

impl Ends {
    fn new(policy: RotationPolicy) -> Self {
        let signing: &'static SigningKey =
            Box::leak(Box::new(SigningKey::generate(Suite::MlDsa87).expect("a key")));
        let key = DecapsulationKey::generate().expect("a key");
        let (sender, header) =
            Sender::begin(key.encapsulation_key(), signing, b"bench", policy, Instant::now())
                .expect("begins");
        let receiver = Receiver::accept(&header, signing.verifying_key(), &key, b"bench").expect("accepts");
        Self { sender, receiver }
    }
}

/// What a new epoch costs either side beside its first packet, which is empty.
fn rotation() {
    let mut ends = Ends::new(RotationPolicy {
        interval: Duration::ZERO,
        ..RotationPolicy::default()
    });
    let mut times: [Vec<f64>; 2] = Default::default();
    let mut packet = [0; OVERHEAD];
    ends.sender.seal(&mut packet, Instant::now()).expect("seals");
    for _ in 0..1000 {
        let mut header = None;
        times[0].push(seconds(|| {
            header = ends.sender.seal(&mut packet, Instant::now()).expect("seals");
        }));
        let header = header.expect("a new epoch each time");
        times[1].push(seconds(|| ends.receiver.rotate(&header).expect("follows")));
    }
    let [sender, receiver] = times.map(|times| median(times) * 1e6);
    println!("a new epoch: sender {sender:.0} µs, receiver {receiver:.0} µs");
}

fn encapsulation() {
    let key = DecapsulationKey::generate().expect("a key");
    let public = key.encapsulation_key();
    let kem = oqs::kem::Kem::new(oqs::kem::Algorithm::MlKem1024).expect("the suite is built in");
    let raw = kem.public_key_from_bytes(public.raw()).expect("a key");
    let mut times: [Vec<f64>; 2] = Default::default();
    for _ in 0..4000 {
        times[0].push(seconds(|| kem.encapsulate(raw).expect("encapsulates")));
        times[1].push(seconds(|| public.encapsulate().expect("encapsulates")));
    }
    let [raw, ours] = times.map(|times| median(times) * 1e6);
    println!(
        "encapsulate: raw oqs {raw:.1} µs, ours {ours:.1} µs, {:.2} × raw",
        ours / raw
    );
}

fn seconds<T>(work: impl FnOnce() -> T) -> f64 {
    let start = Instant::now();
    black_box(work());
    start.elapsed().as_secs_f64()
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
