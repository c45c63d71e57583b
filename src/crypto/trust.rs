//! The trust bundle: the root's public key and every statement it ever made about a key. Published in full, and
//! retired keys stay in it, so that an old receipt needs nothing but the bundle and the pinned root.

use crate::dsse::Envelope;
use crate::json;
use crate::key::{self, KeyId, VerifyingKey};
use crate::key_statement::{self, KeyPurpose, KeyStatement};
use crate::suite::Suite;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The `_type` of a bundle.
pub const TYPE: &str = "https://chimera.dunes.io/trust/v1";

/// Why a bundle cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not JSON of a bundle's shape.
    #[error("not a trust bundle")]
    Format(#[source] serde_json::Error),
    /// A `_type` of another version.
    #[error("a trust bundle's _type must be `{TYPE}`, found `{0}`")]
    Type(String),
    /// The root's public key cannot be read.
    #[error("read the bundle's root key")]
    Root(#[source] key::Error),
    /// The root's id or suite are not those of its public key.
    #[error("the bundle names root {named}, but its root key is {actual}")]
    RootMismatch {
        /// The id that the bundle gives.
        named: KeyId,
        /// The id of the key that it holds.
        actual: KeyId,
    },
    /// Another root than the pinned one.
    #[error("the bundle's root is {found}, pinned is {pinned}")]
    NotPinned {
        /// The bundle's root.
        found: KeyId,
        /// The root that the verifier trusts.
        pinned: KeyId,
    },
    /// A statement in the bundle does not hold.
    #[error("key statement {index} of the bundle: {source}")]
    Statement {
        /// Its place, counted from 0.
        index: usize,
        /// What is wrong with it.
        source: key_statement::Error,
    },
    /// Two statements about one key.
    #[error("the bundle holds two statements about key {0}")]
    Twice(KeyId),
}

/// The bundle as it is published. Nothing in it is believed before [`Bundle::verify`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Bundle {
    /// Always [`TYPE`].
    #[serde(rename = "_type")]
    pub type_: String,
    /// The root key.
    pub root: RootKey,
    /// Envelopes of key statements, oldest first.
    pub statements: Vec<Envelope>,
}

/// The root's public key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RootKey {
    /// The root's id: what a verifier pins.
    pub key_id: KeyId,
    /// The root's suite.
    pub suite: Suite,
    /// SubjectPublicKeyInfo, PEM.
    pub public_key: String,
}

impl Bundle {
    /// A bundle of `root` with `statements`, oldest first.
    pub fn new(root: &VerifyingKey, statements: Vec<Envelope>) -> Self {
        Self {
            type_: TYPE.to_owned(),
            root: RootKey {
                key_id: root.key_id().clone(),
                suite: root.suite(),
                public_key: root.spki_pem(),
            },
            statements,
        }
    }

    /// Reads a bundle strictly; see [`Bundle::verify`] for what makes it trustworthy.
    pub fn from_json(json: &[u8]) -> Result<Self, Error> {
        let bundle: Self = json::from_slice(json).map_err(Error::Format)?;
        if bundle.type_ == TYPE {
            Ok(bundle)
        } else {
            Err(Error::Type(bundle.type_))
        }
    }

    /// The bundle as indented JSON with a newline at the end.
    #[expect(clippy::missing_panics_doc, reason = "strings alone always serialise")]
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("strings alone always serialise");
        text.push('\n');
        text
    }

    /// Checks every statement against the bundle's own root. Whoever did not get the bundle from the source that he
    /// trusts pins the root instead: [`Bundle::verify_pinned`].
    pub fn verify(&self) -> Result<TrustedKeys, Error> {
        self.verify_pinned(None)
    }

    /// As [`Bundle::verify`], and the root must be the `pinned` one. One statement that does not hold spoils the whole
    /// bundle: it was tampered with, so nothing in it deserves belief.
    pub fn verify_pinned(&self, pinned: Option<&KeyId>) -> Result<TrustedKeys, Error> {
        let root = VerifyingKey::from_spki_pem(&self.root.public_key).map_err(Error::Root)?;
        if *root.key_id() != self.root.key_id || root.suite() != self.root.suite {
            return Err(Error::RootMismatch {
                named: self.root.key_id.clone(),
                actual: root.key_id().clone(),
            });
        }
        if let Some(pinned) = pinned
            && pinned != root.key_id()
        {
            return Err(Error::NotPinned {
                found: root.key_id().clone(),
                pinned: pinned.clone(),
            });
        }
        let mut keys = BTreeMap::new();
        for (index, envelope) in self.statements.iter().enumerate() {
            let bad = |source| Error::Statement { index, source };
            let statement = KeyStatement::verify(envelope, &root).map_err(bad)?;
            let key = statement.verifying_key().map_err(bad)?;
            let id = statement.key_id.clone();
            if keys.insert(id.clone(), TrustedKey { statement, key }).is_some() {
                return Err(Error::Twice(id));
            }
        }
        Ok(TrustedKeys { root, keys })
    }
}

/// A key that the root vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedKey {
    /// What the root says of it.
    pub statement: KeyStatement,
    /// The key, parsed.
    pub key: VerifyingKey,
}

/// The keys of a bundle that holds. Made once, then used for any number of verifications.
#[derive(Clone, Debug)]
pub struct TrustedKeys {
    root: VerifyingKey,
    keys: BTreeMap<KeyId, TrustedKey>,
}

impl TrustedKeys {
    /// The root that vouches for the keys.
    pub fn root(&self) -> &VerifyingKey {
        &self.root
    }

    /// The key `id`, if the root vouches for it and for this purpose.
    pub fn key(&self, id: &KeyId, purpose: KeyPurpose) -> Option<&VerifyingKey> {
        self.find(id.as_str())
            .filter(|trusted| trusted.statement.purpose == purpose)
            .map(|trusted| &trusted.key)
    }

    /// The key that an envelope's `keyid` names, whatever its purpose.
    pub fn find(&self, key_id: &str) -> Option<&TrustedKey> {
        self.keys.get(&key_id.parse().ok()?)
    }

    /// Every key, in the order of ids.
    pub fn iter(&self) -> impl Iterator<Item = &TrustedKey> {
        self.keys.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::SigningKey;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(Suite::MlDsa87, &[seed; 32]).unwrap()
    }

    fn statement(about: u8, root: u8) -> Envelope {
        let start = "2026-01-01T00:00:00Z".parse().unwrap();
        KeyStatement::about(
            key(about).verifying_key(),
            KeyPurpose::Signing,
            start,
            None,
            None,
            0,
        )
        .sign(&key(root))
        .unwrap()
    }

    #[test]
    fn a_bundle_survives_json_and_gives_its_keys() {
        let bundle = Bundle::new(key(1).verifying_key(), vec![statement(2, 1), statement(3, 1)]);
        let read = Bundle::from_json(bundle.to_json().as_bytes()).unwrap();
        assert_eq!(read, bundle);
        let keys = read.verify_pinned(Some(key(1).verifying_key().key_id())).unwrap();
        assert_eq!(keys.iter().count(), 2);
        let id = key(3).verifying_key().key_id().clone();
        assert_eq!(keys.key(&id, KeyPurpose::Signing), Some(key(3).verifying_key()));
        assert_eq!(keys.key(&id, KeyPurpose::Sealing), None);
        assert_eq!(keys.find("nonsense"), None);
    }

    #[test]
    fn a_bundle_with_anything_wrong_gives_no_keys() {
        let good = Bundle::new(key(1).verifying_key(), vec![statement(2, 1)]);
        assert!(good.verify().is_ok());
        let other = key(9).verifying_key().key_id().clone();
        assert!(matches!(
            good.verify_pinned(Some(&other)),
            Err(Error::NotPinned { .. })
        ));
        let foreign = Bundle::new(key(1).verifying_key(), vec![statement(2, 1), statement(3, 9)]);
        assert!(matches!(foreign.verify(), Err(Error::Statement { index: 1, .. })));
        let twice = Bundle::new(key(1).verifying_key(), vec![statement(2, 1), statement(2, 1)]);
        assert!(matches!(twice.verify(), Err(Error::Twice(_))));
        let mut renamed = good.clone();
        renamed.root.key_id = other;
        assert!(matches!(renamed.verify(), Err(Error::RootMismatch { .. })));
    }

    #[test]
    fn json_that_is_no_bundle_is_refused() {
        let good = Bundle::new(key(1).verifying_key(), vec![]).to_json();
        for bad in [
            good.replace("trust/v1", "trust/v9"),
            good.replace("\"root\"", "\"root\":null,\"root\""),
            good.replace("\"statements\"", "\"more\":1,\"statements\""),
            good.replace("ML-DSA-87", "RSA"),
            format!("{good}{good}"),
        ] {
            assert!(Bundle::from_json(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
