//! Private keys in files: PKCS #8 that holds the seed alone (RFC 9881, section 6; RFC 8410, section 7), as PEM, a block
//! for each algorithm of the suite. OpenSSL 3.5 reads each of them too.

use zeroize::Zeroizing;

use crate::algorithm::Algorithm;
use crate::key::{Error, SigningKey};
use crate::pem;
use crate::suite::Suite;

impl SigningKey {
    /// The key as PEM, newline at the end. For storage that only its owner can read.
    pub fn pkcs8_pem(&self) -> Zeroizing<String> {
        let seed = self.seed();
        let parts = self.suite().split(&seed, |_| Algorithm::SEED_LEN);
        let blocks: Vec<_> = parts
            .expect("the key was made from this seed")
            .into_iter()
            .map(|(algorithm, seed)| {
                let der = Zeroizing::new([algorithm.pkcs8_prefix(), seed].concat());
                pem::encode("PRIVATE KEY", &der)
            })
            .collect();
        // Of its full length from the start: a string that grows leaves its bytes behind.
        let mut text = Zeroizing::new(String::with_capacity(
            blocks.iter().map(|block| block.len()).sum(),
        ));
        for block in &blocks {
            text.push_str(block);
        }
        text
    }

    /// Reads one PEM block `PRIVATE KEY` for each algorithm of a known suite, with nothing but white space around them.
    /// Expanded private keys are refused: a seed can be checked, they cannot.
    pub fn from_pkcs8_pem(text: &str) -> Result<Self, Error> {
        let blocks: Vec<Zeroizing<Vec<u8>>> = pem::decode_blocks("PRIVATE KEY", text).ok_or(Error::Pkcs8)?;
        let (suite, seed) = Suite::ALL
            .into_iter()
            .find_map(|suite| Some((suite, seed_in(suite, &blocks)?)))
            .ok_or(Error::Pkcs8)?;
        Self::from_seed(suite, &seed)
    }
}

/// The seed in `blocks`, if they are those of a key of `suite`.
fn seed_in(suite: Suite, blocks: &[Zeroizing<Vec<u8>>]) -> Option<Zeroizing<Vec<u8>>> {
    if blocks.len() != suite.algorithms().len() {
        return None;
    }
    let mut seed = Zeroizing::new(Vec::with_capacity(suite.seed_len()));
    for (block, algorithm) in blocks.iter().zip(suite.algorithms()) {
        let part = block.strip_prefix(algorithm.pkcs8_prefix())?;
        if part.len() != Algorithm::SEED_LEN {
            return None;
        }
        seed.extend_from_slice(part);
    }
    Some(seed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::encoding::AsDer as _;
    use aws_lc_rs::signature::{self, Ed25519KeyPair, KeyPair as _, PqdsaKeyPair};

    fn key(suite: Suite) -> SigningKey {
        let seed: Vec<u8> = (0..64).take(suite.seed_len()).collect();
        SigningKey::from_seed(suite, &seed).unwrap()
    }

    #[test]
    fn a_key_reads_back_from_its_file() {
        for suite in Suite::ALL {
            let key = key(suite);
            let pem = key.pkcs8_pem();
            let back = SigningKey::from_pkcs8_pem(&pem).unwrap();
            assert_eq!(back.suite(), suite);
            assert_eq!(back.verifying_key().key_id(), key.verifying_key().key_id());
            for bad in [
                "",
                "x",
                &pem.replacen("MDQ", "MDU", 1).replacen("MC4", "MC8", 1),
                &pem.replace("PRIVATE", "PUBLIC"),
                &format!("{}{}", *pem, *pem),
                &pem[..pem.len() / 2],
            ] {
                assert!(SigningKey::from_pkcs8_pem(bad).is_err(), "{bad}");
            }
        }
    }

    #[test]
    fn half_a_hybrid_file_is_no_hybrid_key_and_the_order_matters() {
        let pem = key(Suite::Ed25519MlDsa87).pkcs8_pem();
        let second = pem.rfind("-----BEGIN").unwrap();
        let (classical, quantum) = pem.split_at(second);
        assert!(SigningKey::from_pkcs8_pem(classical).is_err());
        assert!(SigningKey::from_pkcs8_pem(&format!("{quantum}{classical}")).is_err());
        let half = SigningKey::from_pkcs8_pem(quantum).unwrap();
        assert_eq!(half.suite(), Suite::MlDsa87);
    }

    #[test]
    fn the_encodings_are_those_of_another_library() {
        let blocks = |suite| pem::decode_blocks::<Vec<u8>>("PRIVATE KEY", &key(suite).pkcs8_pem()).unwrap();
        for (suite, algorithm) in [
            (Suite::MlDsa87, &signature::ML_DSA_87_SIGNING),
            (Suite::MlDsa65, &signature::ML_DSA_65_SIGNING),
        ] {
            let pair = PqdsaKeyPair::from_pkcs8(algorithm, &blocks(suite)[0]).unwrap();
            assert_eq!(
                pair.public_key().as_der().unwrap().as_ref(),
                key(suite).verifying_key().spki_der()
            );
        }
        let suite = Suite::Ed25519MlDsa87;
        let classical = Ed25519KeyPair::from_pkcs8(&blocks(suite)[0]).unwrap();
        let quantum = PqdsaKeyPair::from_pkcs8(&signature::ML_DSA_87_SIGNING, &blocks(suite)[1]).unwrap();
        let ders = [
            classical.public_key().as_der().unwrap(),
            quantum.public_key().as_der().unwrap(),
        ];
        assert_eq!(
            [ders[0].as_ref(), ders[1].as_ref()].concat(),
            key(suite).verifying_key().spki_der()
        );
        assert_eq!(
            classical.to_pkcs8v1().unwrap().as_ref(),
            blocks(suite)[0].as_slice()
        );
    }
}
