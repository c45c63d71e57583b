//! What envelopes, statements and checks cost on top of the raw operations of the suites, measured in one process.
//! `cargo bench -p chimera-crypto` prints medians in microseconds and the ratio to the raw operation; `ROUNDS` and
//! `RECEIPTS` change how often.

#![allow(clippy::print_stdout, reason = "the figures are what the bench is for")]

#[path = "../tests/sample/receipt.rs"]
#[allow(dead_code, reason = "the bench uses a part of the sample")]
mod sample;

use aws_lc_rs::encoding::AsRawBytes;
use aws_lc_rs::signature::{ML_DSA_87, ML_DSA_87_SIGNING, ParsedPublicKey, PqdsaKeyPair};
use crypto::kem::DecapsulationKey;
use crypto::trust::TrustedKeys;
use crypto::{Envelope, SigningKey, VerifyingKey, receipt, verify};
use sample::Sample;
use std::fs;
use std::hint::black_box;
use std::path::PathBuf;
use std::time::Instant;

fn main() {
    let rounds = setting("ROUNDS", 2000);
    let sample = Sample::success();
    measure_receipts(rounds, &sample);
    measure_encapsulation(rounds);
    measure_files(setting("RECEIPTS", 10_000));
}

fn setting(name: &str, default: u32) -> u32 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

fn measure_receipts(rounds: u32, sample: &Sample) {
    let statement = receipt::statement(&sample.claim).expect("a sound claim");
    let payload = serde_json::to_vec(&statement).expect("a statement serialises");
    let file = sample.file();
    println!(
        "receipt payload: {} bytes, envelope: {} bytes, {rounds} rounds",
        payload.len(),
        file.len()
    );
    let raw_sign = raw_sign(rounds, &sample.signing, &payload);
    println!("raw sign, this payload             {raw_sign:8.1} µs");
    against("sign a payload (Envelope::sign)", raw_sign, {
        median(rounds, || {
            Envelope::sign(receipt::PAYLOAD_TYPE, &payload, &sample.signing).expect("signs")
        })
    });
    against("build, sign and write a receipt", raw_sign, {
        median(rounds, || {
            let statement = receipt::statement(&sample.claim).expect("a sound claim");
            receipt::sign(&statement, &sample.signing)
                .expect("signs")
                .to_json()
        })
    });

    // Three signatures are verified in a receipt: its own, the grant's and the attestation's.
    let envelope = sample.envelope();
    let own = raw_verify(rounds, &envelope, sample.signing.verifying_key());
    let grant = sample.claim.grant.as_ref().expect("a grant");
    let attestation = sample.claim.attestation.as_ref().expect("an attestation");
    let inner = raw_verify(rounds, grant, sample.signing.verifying_key())
        + raw_verify(rounds, attestation, sample.attester.verifying_key());
    println!("raw verify, this payload           {own:8.1} µs");
    println!("raw verify, its three payloads     {:8.1} µs", own + inner);
    against("verify an envelope", own, {
        let key = sample.signing.verifying_key();
        median(rounds, || envelope.verify(key).expect("valid").len())
    });
    let trusted = sample.bundle.verify().expect("a sound bundle");
    against("every check of a receipt from bytes", own + inner, {
        median(rounds, || {
            verify::verify_with(&file, Ok(&trusted), Some(sample::DOCUMENT), Some(sample::OUTPUTS))
        })
    });
}

fn raw_sign(rounds: u32, key: &SigningKey, payload: &[u8]) -> f64 {
    let pair = PqdsaKeyPair::from_seed(&ML_DSA_87_SIGNING, &key.seed()[..]).expect("a seed");
    let expanded = pair.private_key().as_raw_bytes().expect("an expanded key");
    let signer = oqs::sig::Sig::new(oqs::sig::Algorithm::MlDsa87).expect("the suite is built in");
    let secret = signer
        .secret_key_from_bytes(expanded.as_ref())
        .expect("the suite's length");
    let message = crypto::dsse::pae(receipt::PAYLOAD_TYPE, payload);
    median(rounds, || signer.sign(&message, secret).expect("signs"))
}

fn raw_verify(rounds: u32, envelope: &Envelope, key: &VerifyingKey) -> f64 {
    let public = ParsedPublicKey::new(&ML_DSA_87, key.spki_der()).expect("a key");
    let message = crypto::dsse::pae(envelope.payload_type(), envelope.payload());
    median(rounds, || {
        public
            .verify_sig(&message, envelope.signature())
            .expect("a valid signature");
    })
}

fn measure_encapsulation(rounds: u32) {
    let private = DecapsulationKey::from_seed(&[7; 64]).expect("every seed gives a key");
    let public = private.encapsulation_key();
    let kem = oqs::kem::Kem::new(oqs::kem::Algorithm::MlKem1024).expect("the suite is built in");
    let raw_public = kem.public_key_from_bytes(public.raw()).expect("a key");
    let (ciphertext, _) = public.encapsulate().expect("encapsulates");
    let raw = median(rounds, || kem.encapsulate(raw_public).expect("encapsulates"));
    println!("raw encapsulate                    {raw:8.1} µs");
    against("encapsulate", raw, {
        median(rounds, || public.encapsulate().expect("encapsulates"))
    });
    println!(
        "decapsulate                        {:8.1} µs",
        median(rounds, || private.decapsulate(&ciphertext).expect("decapsulates"))
    );
}

/// Many receipts in files: each is read, and every check of it is made.
fn measure_files(count: u32) {
    let folder = tempfile::tempdir().expect("a folder");
    let distinct: Vec<Vec<u8>> = (0..64).map(|n| numbered(n).file()).collect();
    let mut files = distinct.iter().cycle();
    let paths: Vec<PathBuf> = (0..count)
        .map(|n| {
            let path = folder.path().join(format!("{n}.json"));
            fs::write(&path, files.next().expect("a cycle has no end")).expect("a file");
            path
        })
        .collect();
    let trusted = Sample::success().bundle.verify().expect("a sound bundle");
    for threads in [1, 2] {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for part in paths.chunks(paths.len().div_ceil(threads)) {
                scope.spawn(|| part.iter().for_each(|path| verify_file(path, &trusted)));
            }
        });
        let rate = f64::from(count) / start.elapsed().as_secs_f64();
        println!("{count} receipts from files, {threads} core(s)  {rate:8.0} receipts/s");
    }
}

fn verify_file(path: &PathBuf, trusted: &TrustedKeys) {
    let bytes = fs::read(path).expect("a file");
    let report = verify::verify_with(&bytes, Ok(trusted), None, None);
    assert_eq!(report.verdict, verify::Verdict::Valid, "{:?}", report.failure());
}

/// A run whose records differ from every other's.
fn numbered(n: u32) -> Sample {
    let mut sample = Sample::success();
    let mut grant = sample::grant(sample.attester.verifying_key());
    grant.submitter = format!("user-{n}");
    let grant = grant.sign(&sample.signing).expect("a grant signs");
    let attestation = sample::attestation(grant.payload(), sample::OUTPUTS)
        .sign(&sample.attester)
        .expect("an attestation signs");
    sample.claim.submitter = format!("user-{n}");
    sample.claim.grant = Some(grant);
    sample.claim.attestation = Some(attestation);
    sample
}

fn against(name: &str, raw: f64, time: f64) {
    println!("{name:35}{time:8.1} µs   {:.2} × raw", time / raw);
}

fn median<T>(rounds: u32, mut work: impl FnMut() -> T) -> f64 {
    let mut times: Vec<_> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            black_box(work());
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
}
