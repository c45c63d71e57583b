//! Suites, keys, envelopes and receipts: everything that decides whether something is signed.
//!
//! The only crate that links C. liboqs makes signatures, AWS-LC decides whether they are valid: liboqs 0.13 skips a
//! norm check of FIPS 204 in its AVX2 verification and accepts invalid signatures, so it is never asked.
//! No clock, no network; times come in as arguments, bytes come in as bytes. No files, apart from the entropy sources
//! that a caller names.

// The sample of the tests names this crate as its dependents do.
#[cfg(test)]
extern crate self as crypto;

mod algorithm;
pub mod attestation;
mod binary_text;
pub mod digest;
pub mod dsse;
pub mod entropy;
pub mod grant;
mod json;
pub mod kem;
pub mod key;
pub mod key_statement;
pub mod offline_root;
mod pem;
mod pkcs8;
mod private_key;
mod public_key;
pub mod receipt;
pub mod revocation;
pub mod root_statement;
pub mod roots;
#[cfg(test)]
#[path = "tests/sample/receipt.rs"]
mod sample;
pub mod seal;
pub mod stream;
mod suite;
pub mod trust;
pub mod verify;

pub use digest::DigestSet;
pub use dsse::Envelope;
pub use kem::KemSuite;
pub use key::{KeyId, SigningKey, VerifyingKey};
pub use key_statement::{KeyPurpose, KeyStatement};
pub use private_key::PrivateKey;
pub use public_key::{KeySuite, PublicKey};
pub use suite::Suite;
