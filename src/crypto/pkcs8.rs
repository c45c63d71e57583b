//! Private keys in files: PKCS #8 that holds the seed alone (RFC 9881, section 6), as PEM. OpenSSL 3.5 reads it too.

use zeroize::Zeroizing;

use crate::key::{Error, SigningKey};
use crate::pem;
use crate::suite::Suite;

impl SigningKey {
    /// The key as one PEM block, newline at the end. For storage that only its owner can read.
    pub fn pkcs8_pem(&self) -> Zeroizing<String> {
        let der = Zeroizing::new([self.suite().pkcs8_prefix(), self.seed().as_slice()].concat());
        pem::encode("PRIVATE KEY", &der)
    }

    /// Reads one PEM block `PRIVATE KEY` of a known suite, with nothing but white space around it. Expanded private keys
    /// are refused: a seed can be checked, they cannot.
    pub fn from_pkcs8_pem(text: &str) -> Result<Self, Error> {
        let der = pem::decode("PRIVATE KEY", text).ok_or(Error::Pkcs8)?;
        let suite = Suite::MlDsa87;
        let seed = der.strip_prefix(suite.pkcs8_prefix()).ok_or(Error::Pkcs8)?;
        Self::from_seed(suite, seed.try_into().map_err(|_| Error::Pkcs8)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_from_its_file() {
        let key = SigningKey::from_seed(Suite::MlDsa87, &[7; 32]).unwrap();
        let pem = key.pkcs8_pem();
        let back = SigningKey::from_pkcs8_pem(&pem).unwrap();
        assert_eq!(back.verifying_key().key_id(), key.verifying_key().key_id());
        for bad in [
            "",
            "x",
            &pem.replace("MDQ", "MDU"),
            &pem.replace("PRIVATE", "PUBLIC"),
        ] {
            assert!(SigningKey::from_pkcs8_pem(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_encoding_is_the_one_of_another_library() {
        use aws_lc_rs::encoding::AsDer as _;
        use aws_lc_rs::signature::{KeyPair as _, ML_DSA_87_SIGNING, PqdsaKeyPair};
        let key = SigningKey::from_seed(Suite::MlDsa87, &[7; 32]).unwrap();
        let der = [Suite::MlDsa87.pkcs8_prefix(), key.seed().as_slice()].concat();
        let pair = PqdsaKeyPair::from_pkcs8(&ML_DSA_87_SIGNING, &der).unwrap();
        let public = pair.public_key().as_der().unwrap();
        assert_eq!(public.as_ref(), key.verifying_key().spki_der());
    }
}
