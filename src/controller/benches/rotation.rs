//! What a rotation costs those who sign meanwhile: 200 signatures a second, each timed from the moment at which it was due,
//! first in peace and then with four rotations a second. A rotation does everything that the operator does but its calls:
//! make a key, have the root state it, write Secret and bundle, read and verify both, put the key to use.
//! `cargo bench -p chimera-controller` prints percentiles and the difference.

#![allow(clippy::print_stdout, reason = "the figures are what the bench is for")]
#![allow(clippy::disallowed_methods, reason = "a bench reads the clock")]

#[path = "../keys/keyring.rs"]
#[allow(dead_code, unused_imports, reason = "the bench uses a part of the keyring")]
mod keyring;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use controller_core::bundle_edit::{Edit, edited};
use controller_core::key_plan::Usage;
use controller_core::key_ring::KeyRing;
use crypto::entropy::Entropy;
use crypto::trust::Bundle;
use crypto::{Envelope, KeyPurpose, KeyStatement, KeySuite, PrivateKey, SigningKey, Suite};
use jiff::Timestamp;
use keyring::{Keyring, Signer, Trust};

const POLICY: &str = "signing";
const A_SECOND: u32 = 200;
const SECONDS: u32 = 5;
const BETWEEN_ROTATIONS: Duration = Duration::from_millis(250);
/// As long as the payload of a common receipt.
const PAYLOAD_LEN: usize = 27_000;

fn main() {
    let keyring = Keyring::default();
    let mut keys = Keys::new();
    keys.rotate(&keyring);
    let peace = percentiles(sign(&keyring));
    let stop = AtomicBool::new(false);
    let (mut rotated, mut worst) = (0, Duration::ZERO);
    let rotations = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let begun = Instant::now();
                keys.rotate(&keyring);
                worst = worst.max(begun.elapsed());
                rotated += 1;
                std::thread::sleep(BETWEEN_ROTATIONS);
            }
        });
        let times = sign(&keyring);
        stop.store(true, Ordering::Relaxed);
        percentiles(times)
    });
    println!("{A_SECOND} signatures/s for {SECONDS} s, payload {PAYLOAD_LEN} bytes, milliseconds:");
    println!("                  p50      p99      max");
    println!("  in peace     {}", row(peace));
    println!(
        "  rotating     {}   {rotated} rotations, the longest {:.2}",
        row(rotations),
        worst.as_secs_f64() * 1e3
    );
    let added = rotations.map(|time| time.as_secs_f64() * 1e3);
    let before = peace.map(|time| time.as_secs_f64() * 1e3);
    println!(
        "  added        {:8.3} {:8.3} {:8.3}   (aim: at most 5)",
        added[0] - before[0],
        added[1] - before[1],
        added[2] - before[2]
    );
}

/// Signs at an even rate; how long after it was due each signature was there.
fn sign(keyring: &Keyring) -> Vec<Duration> {
    let payload = vec![7; PAYLOAD_LEN];
    let start = Instant::now();
    (0..A_SECOND * SECONDS)
        .map(|number| {
            let due = start + Duration::from_secs(1) / A_SECOND * number;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            // What the machine's own timer takes is not the keyring's.
            let due = due.max(Instant::now());
            let signer = keyring.signer(POLICY).expect("a key is in use");
            Envelope::sign("application/vnd.in-toto+json", &payload, signer.key()).expect("signs");
            signer.counter.count(payload.len());
            due.elapsed()
        })
        .collect()
}

/// Median, 99th percentile and maximum.
fn percentiles(mut times: Vec<Duration>) -> [Duration; 3] {
    times.sort_unstable();
    [times.len() / 2, times.len() * 99 / 100, times.len() - 1].map(|index| times[index])
}

fn row(times: [Duration; 3]) -> String {
    let millis = times.map(|time| time.as_secs_f64() * 1e3);
    format!("{:8.3} {:8.3} {:8.3}", millis[0], millis[1], millis[2])
}

/// What is stored.
struct Keys {
    root: SigningKey,
    ring: KeyRing,
    bundle: Option<Bundle>,
}

impl Keys {
    fn new() -> Self {
        Self {
            root: SigningKey::generate(Suite::MlDsa87).expect("a root"),
            ring: KeyRing::default(),
            bundle: None,
        }
    }

    fn rotate(&mut self, keyring: &Keyring) {
        let suite = KeySuite::Signature(Suite::MlDsa87);
        let (key, _) = PrivateKey::generate_from(suite, &Entropy::system()).expect("a key");
        let now = Timestamp::now();
        let statement = KeyStatement::about(key.public_key(), KeyPurpose::Signing, now, None, None, 1)
            .sign(&self.root)
            .expect("signs");
        let ring = self.ring.clone().with_key(key, Some(statement), None, now);
        let edit = Edit {
            statements: ring.statements.clone(),
            ..Edit::default()
        };
        let bundle = edited(
            self.bundle.take(),
            self.root.verifying_key(),
            &BTreeSet::new(),
            edit,
        );
        // What was written is read again, as the operator does before it believes it.
        let bundle = Bundle::from_json(bundle.to_json().as_bytes()).expect("a bundle");
        let trusted = bundle.verify().expect("sound");
        let data = ring.rotated(None, now).to_data();
        self.ring = KeyRing::from_data(&data).unwrap_or_else(|why| panic!("{why}"));
        self.bundle = Some(bundle);
        self.put_to_use(keyring, trusted);
    }

    fn put_to_use(&self, keyring: &Keyring, trusted: crypto::trust::TrustedKeys) {
        let active = self.ring.active.as_ref().expect("a key in use");
        let envelope = self.ring.statement(active.id()).expect("a statement");
        let statement = trusted.roots().key_statement(envelope).expect("believed");
        let unlimited = Usage {
            uses: u64::MAX,
            bytes: u64::MAX,
        };
        let counter = keyring.new_counter(Usage::default(), [unlimited; 2]);
        keyring.publish(Trust {
            root_pem: trusted.root().spki_pem(),
            keys: trusted,
        });
        let private = Arc::clone(&active.private);
        let signer = Signer::new(private, (envelope, &statement), Vec::new(), counter).expect("it signs");
        keyring.put_signer(POLICY, signer);
    }
}
