//! What envelopes, statements and checks cost on top of the raw operations of the suite, measured in one process.
//! `cargo bench -p chimera-crypto` prints medians in microseconds and the ratio to the raw operation.

#![allow(clippy::print_stdout, reason = "the figures are what the bench is for")]

#[path = "../tests/sample/receipt.rs"]
#[allow(dead_code, reason = "the bench uses a part of the sample")]
mod sample;

use aws_lc_rs::encoding::AsRawBytes;
use aws_lc_rs::signature::{ML_DSA_87, ML_DSA_87_SIGNING, ParsedPublicKey, PqdsaKeyPair};
use crypto::{Envelope, receipt, verify};
use sample::Sample;
use std::hint::black_box;
use std::time::Instant;

fn main() {
    let rounds = std::env::var("ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(2000);
    let sample = Sample::success();
    let statement = receipt::statement(&sample.claim).expect("a sound claim");
    let payload = serde_json::to_vec(&statement).expect("a statement serialises");
    let message = crypto::dsse::pae(receipt::PAYLOAD_TYPE, &payload);
    println!(
        "receipt payload: {} bytes, envelope: {} bytes, {rounds} rounds",
        payload.len(),
        sample.file().len()
    );

    let pair = PqdsaKeyPair::from_seed(&ML_DSA_87_SIGNING, &sample.signing.seed()[..]).expect("a seed");
    let expanded = pair.private_key().as_raw_bytes().expect("an expanded key");
    let signer = oqs::sig::Sig::new(oqs::sig::Algorithm::MlDsa87).expect("the suite is built in");
    let secret = signer
        .secret_key_from_bytes(expanded.as_ref())
        .expect("the suite's length");
    let public = ParsedPublicKey::new(&ML_DSA_87, sample.signing.verifying_key().spki_der()).expect("a key");
    let envelope = sample.envelope();
    let file = sample.file();
    let trusted = sample.bundle.verify().expect("a sound bundle");

    let raw_sign = median(rounds, || signer.sign(&message, secret).expect("signs"));
    let raw_verify = median(rounds, || {
        public.verify_sig(&message, envelope.signature()).is_ok()
    });
    let raw_short = median(rounds, || signer.sign(&[0; 32], secret).expect("signs"));
    println!("raw sign, 32 bytes                 {raw_short:8.1} µs");
    println!("raw sign, this payload             {raw_sign:8.1} µs");
    println!("raw verify, this payload           {raw_verify:8.1} µs");
    let against =
        |name: &str, raw: f64, time: f64| println!("{name:34} {time:8.1} µs   {:.2} × raw", time / raw);
    against("sign a payload (Envelope::sign)", raw_sign, {
        median(rounds, || {
            Envelope::sign(receipt::PAYLOAD_TYPE, &payload, &sample.signing).expect("signs")
        })
    });
    against("verify an envelope", raw_verify, {
        let key = sample.signing.verifying_key();
        median(rounds, || envelope.verify(key).expect("valid").len())
    });
    against("build, sign and write a receipt", raw_sign, {
        median(rounds, || {
            let statement = receipt::statement(&sample.claim).expect("a sound claim");
            receipt::sign(&statement, &sample.signing)
                .expect("signs")
                .to_json()
        })
    });
    // Three signatures are verified here: receipt, grant and attestation.
    against("every check of a receipt from a file", 3.0 * raw_verify, {
        median(rounds, || {
            verify::verify_with(&file, Ok(&trusted), Some(sample::DOCUMENT), Some(sample::OUTPUTS))
        })
    });
}

fn median<T>(rounds: usize, mut work: impl FnMut() -> T) -> f64 {
    let mut times: Vec<_> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            black_box(work());
            start.elapsed()
        })
        .collect();
    times.sort_unstable();
    times[rounds / 2].as_secs_f64() * 1e6
}
