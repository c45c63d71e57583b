//! The trust bundle: the root's public key, and every statement that it or a root before it made about keys. Published
//! in full, and retired keys stay in it, so that an old receipt needs nothing but the bundle and the pinned root.

use crate::dsse::Envelope;
use crate::json;
use crate::kem::EncapsulationKey;
use crate::key::{self, KeyId, VerifyingKey};
use crate::key_statement::{KeyPurpose, KeyStatement};
use crate::public_key::PublicKey;
use crate::revocation::Revocation;
use crate::root_statement::RootStatement;
use crate::roots::{self, Roots};
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
    /// Nothing leads from the pinned root to the bundle's.
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
        source: roots::Error,
    },
    /// The public key in a statement cannot be read.
    #[error(transparent)]
    PublicKey(#[from] crate::key_statement::Error),
    /// A statement of one root about another does not hold.
    #[error("the bundle's statements about roots do not hold")]
    Roots(#[source] roots::Error),
    /// A revocation in the bundle does not hold.
    #[error("revocation {index} of the bundle: {source}")]
    Revocation {
        /// Its place, counted from 0.
        index: usize,
        /// What is wrong with it.
        source: roots::Error,
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
    /// Envelopes of statements of one root about another: two for each roll-over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roots: Vec<Envelope>,
    /// Envelopes of revocations, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revocations: Vec<Envelope>,
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

impl RootKey {
    /// The public half of a root.
    pub fn of(root: &VerifyingKey) -> Self {
        Self {
            key_id: root.key_id().clone(),
            suite: root.suite(),
            public_key: root.spki_pem(),
        }
    }
}

impl Bundle {
    /// A bundle of `root` with `statements`, oldest first.
    pub fn new(root: &VerifyingKey, statements: Vec<Envelope>) -> Self {
        Self {
            type_: TYPE.to_owned(),
            root: RootKey::of(root),
            statements,
            roots: Vec::new(),
            revocations: Vec::new(),
        }
    }

    /// With the statements of its pages, which are older. A statement that stands in both is taken once.
    #[must_use]
    pub fn with_pages(mut self, pages: impl IntoIterator<Item = Self>) -> Self {
        let mut statements: Vec<Envelope> = pages.into_iter().flat_map(|page| page.statements).collect();
        let paged = statements.len();
        for statement in self.statements {
            if !statements[..paged].contains(&statement) {
                statements.push(statement);
            }
        }
        self.statements = statements;
        self
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

    /// As [`Bundle::verify`], and the statements of roots must lead from the `pinned` root to the bundle's. One statement
    /// that does not hold spoils the whole bundle: it was tampered with, so nothing in it deserves belief.
    pub fn verify_pinned(&self, pinned: Option<&KeyId>) -> Result<TrustedKeys, Error> {
        let root = self.root_key()?;
        let anchor = match pinned {
            Some(pinned) if pinned != root.key_id() => self.former_root(pinned)?,
            _ => root.clone(),
        };
        let roots = Roots::follow(&anchor, &self.roots).map_err(Error::Roots)?;
        if !roots.contains(root.key_id()) {
            return Err(Error::NotPinned {
                found: root.key_id().clone(),
                pinned: anchor.key_id().clone(),
            });
        }
        let mut keys = self.read_keys(&roots)?;
        for (index, envelope) in self.revocations.iter().enumerate() {
            let revocation = roots
                .revocation(envelope)
                .map_err(|source| Error::Revocation { index, source })?;
            if let Some(key) = keys.get_mut(&revocation.key_id) {
                key.revoke(revocation);
            }
        }
        Ok(TrustedKeys {
            root,
            anchor,
            roots,
            keys,
        })
    }

    fn root_key(&self) -> Result<VerifyingKey, Error> {
        let root = VerifyingKey::from_spki_pem(&self.root.public_key).map_err(Error::Root)?;
        if *root.key_id() == self.root.key_id && root.suite() == self.root.suite {
            Ok(root)
        } else {
            Err(Error::RootMismatch {
                named: self.root.key_id.clone(),
                actual: root.key_id().clone(),
            })
        }
    }

    /// The public key of a root that was pinned before a roll-over: a statement about it holds it. The key's id is the
    /// digest of the key, so it does not matter who says so.
    fn former_root(&self, pinned: &KeyId) -> Result<VerifyingKey, Error> {
        self.roots
            .iter()
            .filter_map(|envelope| RootStatement::parse(envelope.payload()).ok())
            .find(|statement| statement.key_id == *pinned)
            .and_then(|statement| statement.verifying_key().ok())
            .ok_or_else(|| Error::NotPinned {
                found: self.root.key_id.clone(),
                pinned: pinned.clone(),
            })
    }

    fn read_keys(&self, roots: &Roots) -> Result<BTreeMap<KeyId, TrustedKey>, Error> {
        let mut keys = BTreeMap::new();
        for (index, envelope) in self.statements.iter().enumerate() {
            let statement = roots
                .key_statement(envelope)
                .map_err(|source| Error::Statement { index, source })?;
            let id = statement.key_id.clone();
            let key = TrustedKey {
                key: statement.public_key()?,
                statement,
                revocation: None,
            };
            if keys.insert(id.clone(), key).is_some() {
                return Err(Error::Twice(id));
            }
        }
        Ok(keys)
    }
}

/// A key that a root vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedKey {
    /// What the root says of it.
    pub statement: KeyStatement,
    /// The key, parsed.
    pub key: PublicKey,
    /// The root's word that it must no longer be believed.
    pub revocation: Option<Revocation>,
}

impl TrustedKey {
    /// Of several revocations the one that spares least counts.
    fn revoke(&mut self, revocation: Revocation) {
        let wider = self
            .revocation
            .as_ref()
            .is_none_or(|known| revocation.since < known.since);
        if wider {
            self.revocation = Some(revocation);
        }
    }

    /// The key, if it signs receipts and grants.
    pub fn signing(&self) -> Option<&VerifyingKey> {
        self.key
            .as_verifying()
            .filter(|_| self.statement.purpose == KeyPurpose::Signing)
    }

    /// The revocation, if what the key signed at `time` is no longer believed.
    pub fn revoked_at(&self, time: jiff::Timestamp) -> Option<&Revocation> {
        self.revocation
            .as_ref()
            .filter(|revocation| !revocation.spares(time))
    }
}

/// The keys of a bundle that holds. Made once, then used for any number of verifications.
#[derive(Clone, Debug)]
pub struct TrustedKeys {
    root: VerifyingKey,
    anchor: VerifyingKey,
    roots: Roots,
    keys: BTreeMap<KeyId, TrustedKey>,
}

impl TrustedKeys {
    /// The bundle's root: the one that vouches for new keys.
    pub fn root(&self) -> &VerifyingKey {
        &self.root
    }

    /// The root that was pinned, or the bundle's own.
    pub fn anchor(&self) -> &VerifyingKey {
        &self.anchor
    }

    /// Every root that is believed.
    pub fn roots(&self) -> &Roots {
        &self.roots
    }

    /// The key `id`, if a root vouches for it, for this purpose, and it verifies signatures.
    pub fn key(&self, id: &KeyId, purpose: KeyPurpose) -> Option<&VerifyingKey> {
        self.keys
            .get(id)
            .filter(|trusted| trusted.statement.purpose == purpose)
            .and_then(|trusted| trusted.key.as_verifying())
    }

    /// The key that an envelope's `keyid` names, whatever its purpose.
    pub fn find(&self, key_id: &str) -> Option<&TrustedKey> {
        self.keys.get(&key_id.parse().ok()?)
    }

    /// The key to seal inputs for `namespace` with: the newest of its own that was not revoked, else the newest that
    /// serves all namespaces.
    pub fn sealing_key(&self, namespace: &str) -> Option<(&KeyStatement, &EncapsulationKey)> {
        self.keys
            .values()
            .filter(|trusted| {
                trusted.statement.purpose == KeyPurpose::Sealing && trusted.revocation.is_none()
            })
            .filter(|trusted| {
                let served = trusted.statement.namespace.as_deref();
                served.is_none_or(|served| served == namespace)
            })
            .max_by_key(|trusted| {
                (
                    trusted.statement.namespace.is_some(),
                    trusted.statement.not_before,
                )
            })
            .and_then(|trusted| Some((&trusted.statement, trusted.key.as_encapsulation()?)))
    }

    /// The key that the key `id` follows, as its statement says.
    pub fn predecessor(&self, id: &KeyId) -> Option<&KeyId> {
        self.keys.get(id)?.statement.predecessor.as_ref()
    }

    /// Every key, in the order of ids.
    pub fn iter(&self) -> impl Iterator<Item = &TrustedKey> {
        self.keys.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kem::DecapsulationKey;
    use crate::key::SigningKey;
    use crate::revocation::RevocationReason;

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
    fn keys_of_every_root_are_believed_by_whoever_pinned_any_of_them() {
        let now = "2026-06-01T00:00:00Z".parse().unwrap();
        let [forward, back] = RootStatement::roll_over(&key(1), &key(4), now).unwrap();
        let mut bundle = Bundle::new(key(4).verifying_key(), vec![statement(2, 1), statement(3, 4)]);
        assert!(bundle.verify().is_err(), "nothing leads to the first root yet");
        bundle.roots = vec![forward, back];
        let read = Bundle::from_json(bundle.to_json().as_bytes()).unwrap();
        for pinned in [None, Some(key(1)), Some(key(4))] {
            let id = pinned.as_ref().map(|key| key.verifying_key().key_id());
            let keys = read.verify_pinned(id).unwrap();
            assert_eq!(keys.root(), key(4).verifying_key());
            assert_eq!(keys.iter().count(), 2);
        }
        let stranger = key(9).verifying_key().key_id().clone();
        assert!(matches!(
            read.verify_pinned(Some(&stranger)),
            Err(Error::NotPinned { .. })
        ));
    }

    #[test]
    fn revocations_of_a_root_are_heard_and_the_one_that_spares_least_counts() {
        let time = |hour: u8| -> jiff::Timestamp { format!("2026-01-01T{hour:02}:00:00Z").parse().unwrap() };
        let revoke = |root: u8, since: Option<u8>| {
            let id = key(2).verifying_key().key_id().clone();
            Revocation::of(id, RevocationReason::KeyCompromise, since.map(time), time(20))
                .sign(&key(root))
                .unwrap()
        };
        let mut bundle = Bundle::new(key(1).verifying_key(), vec![statement(2, 1)]);
        bundle.revocations = vec![revoke(1, Some(12)), revoke(1, Some(8)), revoke(1, Some(10))];
        let keys = bundle.verify().unwrap();
        let trusted = keys.iter().next().unwrap();
        assert!(trusted.revoked_at(time(7)).is_none());
        assert!(trusted.revoked_at(time(8)).is_some());
        bundle.revocations.push(revoke(1, None));
        let keys = bundle.verify().unwrap();
        assert!(keys.iter().next().unwrap().revoked_at(time(0)).is_some());
        bundle.revocations.push(revoke(9, None));
        assert!(matches!(bundle.verify(), Err(Error::Revocation { index: 4, .. })));
    }

    #[test]
    fn inputs_are_sealed_with_the_newest_key_of_their_own_namespace() {
        let statement = |seed: u8, namespace: Option<&str>, day: u8| {
            let key = DecapsulationKey::from_seed(&[seed; 64]).unwrap();
            let start = format!("2026-01-{day:02}T00:00:00Z").parse().unwrap();
            let mut statement =
                KeyStatement::about(key.encapsulation_key(), KeyPurpose::Sealing, start, None, None, 0);
            statement.namespace = namespace.map(Into::into);
            statement.sign(&self::key(1)).unwrap()
        };
        let all = vec![
            statement(1, None, 9),
            statement(2, Some("a"), 2),
            statement(3, Some("a"), 3),
            statement(4, Some("b"), 4),
        ];
        let keys = Bundle::new(key(1).verifying_key(), all).verify().unwrap();
        for (namespace, seed) in [("a", 3), ("b", 4), ("c", 1)] {
            let expected = DecapsulationKey::from_seed(&[seed; 64]).unwrap();
            let (_, found) = keys.sealing_key(namespace).unwrap();
            assert_eq!(found, expected.encapsulation_key(), "{namespace}");
        }
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
