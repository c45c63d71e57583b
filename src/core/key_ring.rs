//! The keys of a policy as its Secret holds them, and the steps of a rotation on them. No IO and no randomness: new keys
//! and the time are arguments, and what comes out is the Secret's whole new content.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::key_rotation_policy::Purpose;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use crypto::{Envelope, KeyId, KeyStatement, KeySuite, PrivateKey};
use jiff::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

/// The key in use.
const ACTIVE: &str = "active";
/// Keys that wait for their turn, in that order.
const NEXT: &str = "next";
/// Keys that are still accepted, newest first.
const PREVIOUS: &str = "previous";
/// Keys that only open what was sealed under them long ago, newest first.
const RETIRED: &str = "retired";
/// The root's statements about the keys of the policy: the bundle can be rebuilt from them.
const STATEMENTS: &str = "statements.json";

/// A private key and since when it is in its place.
#[derive(Clone)]
pub struct Key {
    /// The key.
    pub private: Arc<PrivateKey>,
    /// When it came to its place.
    pub since: Timestamp,
}

impl Key {
    /// The key's name.
    pub fn id(&self) -> &KeyId {
        self.private.key_id()
    }

    fn moved(&self, now: Timestamp) -> Self {
        Self {
            private: Arc::clone(&self.private),
            since: now,
        }
    }
}

/// All keys of a policy. It has no `Debug`.
#[derive(Clone, Default)]
pub struct KeyRing {
    /// The key in use. Whether it may be used yet is for the plan to say: it must be published.
    pub active: Option<Key>,
    /// Keys that wait for their turn, in that order.
    pub next: Vec<Key>,
    /// Keys that are still accepted, newest first.
    pub previous: Vec<Key>,
    /// Keys that only open what was sealed under them long ago, newest first. Signing keys do not come here: once they are
    /// retired nobody needs their private halves.
    pub retired: Vec<Key>,
    /// Value of the annotation that asked for the key in use, if one did.
    pub rotate: Option<String>,
    /// The root's statements about keys of this policy, oldest first.
    pub statements: Vec<Envelope>,
}

/// A key as it is stored. Never logged, never shown.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StoredKey {
    suite: KeySuite,
    /// Base64.
    seed: Zeroizing<String>,
    /// Absent in Secrets that were made before keys rotated.
    #[serde(default = "long_ago")]
    since: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rotate: Option<String>,
}

fn long_ago() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

impl KeyRing {
    /// Reads the data of a Secret. The error says what is wrong, without any of its contents.
    pub fn from_data(data: &BTreeMap<String, k8s_openapi::ByteString>) -> Result<Self, String> {
        let mut active: Vec<StoredKey> = Vec::new();
        if let Some(bytes) = data.get(ACTIVE) {
            active.push(parse(ACTIVE, &bytes.0)?);
        }
        let rotate = active.first().and_then(|stored| stored.rotate.clone());
        let ring = Self {
            active: restore(ACTIVE, active)?.pop(),
            next: read(data, NEXT)?,
            previous: read(data, PREVIOUS)?,
            retired: read(data, RETIRED)?,
            rotate,
            statements: match data.get(STATEMENTS) {
                Some(bytes) => parse(STATEMENTS, &bytes.0)?,
                None => Vec::new(),
            },
        };
        if ring.active.is_none() {
            return Err(format!("it has no key `{ACTIVE}`"));
        }
        Ok(ring)
    }

    /// The data of the policy's Secret.
    pub fn to_data(&self) -> BTreeMap<String, k8s_openapi::ByteString> {
        let mut data = BTreeMap::new();
        let mut put = |name: &str, bytes: Vec<u8>| {
            data.insert(name.to_owned(), k8s_openapi::ByteString(bytes));
        };
        if let Some(active) = &self.active {
            put(ACTIVE, json(&store(active, self.rotate.clone())));
        }
        for (name, keys) in [
            (NEXT, &self.next),
            (PREVIOUS, &self.previous),
            (RETIRED, &self.retired),
        ] {
            if !keys.is_empty() {
                put(
                    name,
                    json(&keys.iter().map(|key| store(key, None)).collect::<Vec<_>>()),
                );
            }
        }
        put(STATEMENTS, json(&self.statements));
        data
    }

    /// Every key whose private half is held.
    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        self.active
            .iter()
            .chain(&self.next)
            .chain(&self.previous)
            .chain(&self.retired)
    }

    /// The statement about a key, whoever signed it.
    pub fn statement(&self, id: &KeyId) -> Option<&Envelope> {
        self.statements
            .iter()
            .find(|envelope| KeyStatement::claimed_key(envelope).as_ref() == Some(id))
    }

    /// With a new key: in use when it is the first, else the last to have its turn.
    #[must_use]
    pub fn with_key(
        mut self,
        private: PrivateKey,
        statement: Option<Envelope>,
        rotate: Option<String>,
        now: Timestamp,
    ) -> Self {
        let key = Key {
            private: Arc::new(private),
            since: now,
        };
        self.statements.extend(statement);
        if self.active.is_none() {
            self.active = Some(key);
            self.rotate = rotate;
        } else {
            self.next.push(key);
        }
        self
    }

    /// With statements that came later than their keys.
    #[must_use]
    pub fn with_statements(mut self, statements: Vec<Envelope>) -> Self {
        self.statements.extend(statements);
        self
    }

    /// The next key takes over; the one in use is still accepted. `rotate` is the request that this obeys, if any.
    #[must_use]
    pub fn rotated(mut self, rotate: Option<String>, now: Timestamp) -> Self {
        if self.next.is_empty() {
            return self;
        }
        let successor = self.next.remove(0).moved(now);
        if let Some(before) = self.active.replace(successor) {
            self.previous.insert(0, before.moved(now));
        }
        self.rotate = rotate;
        self
    }

    /// Keys whose time as previous ones ended before `until` are accepted no longer. Sealing keys stay for what was sealed
    /// under them, `retain` of them; the private halves of all others are forgotten.
    #[must_use]
    pub fn retired(mut self, purpose: Purpose, until: Timestamp, retain: usize, now: Timestamp) -> Self {
        let (kept, done): (Vec<_>, Vec<_>) = self.previous.into_iter().partition(|key| key.since > until);
        self.previous = kept;
        if purpose == Purpose::Sealing {
            let done = done.iter().map(|key| key.moved(now));
            self.retired = done.chain(self.retired).take(retain).collect();
        }
        if purpose != Purpose::Signing {
            let held: Vec<_> = self.iter().map(|key| key.id().clone()).collect();
            self.statements
                .retain(|one| KeyStatement::claimed_key(one).is_some_and(|id| held.contains(&id)));
        }
        self
    }

    /// Without the statements about these keys, which are published elsewhere, unless they are still held.
    #[must_use]
    pub fn without_statements(mut self, paged: &BTreeSet<KeyId>) -> Self {
        let held: BTreeSet<_> = self.iter().map(|key| key.id().clone()).collect();
        self.statements.retain(|one| {
            KeyStatement::claimed_key(one).is_none_or(|id| held.contains(&id) || !paged.contains(&id))
        });
        self
    }
}

fn read(data: &BTreeMap<String, k8s_openapi::ByteString>, name: &str) -> Result<Vec<Key>, String> {
    match data.get(name) {
        Some(bytes) => restore(name, parse(name, &bytes.0)?),
        None => Ok(Vec::new()),
    }
}

fn parse<T: DeserializeOwned>(name: &str, bytes: &[u8]) -> Result<T, String> {
    // The parser's own words could quote what it read.
    serde_json::from_slice(bytes).map_err(|_| format!("`{name}` is damaged"))
}

fn restore(name: &str, stored: Vec<StoredKey>) -> Result<Vec<Key>, String> {
    stored
        .into_iter()
        .map(|stored| {
            let seed = STANDARD.decode(stored.seed.as_bytes()).map(Zeroizing::new);
            let seed = seed.map_err(|_| format!("`{name}` holds a seed that is no base64"))?;
            let private = PrivateKey::from_seed(stored.suite, &seed)
                .map_err(|_| format!("`{name}` holds a seed that makes no key"))?;
            Ok(Key {
                private: Arc::new(private),
                since: stored.since,
            })
        })
        .collect()
}

fn store(key: &Key, rotate: Option<String>) -> StoredKey {
    StoredKey {
        suite: key.private.suite(),
        seed: Zeroizing::new(STANDARD.encode(key.private.seed().as_slice())),
        since: key.since,
        rotate,
    }
}

fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("names, texts and times serialise")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crypto::{KemSuite, Suite};

    fn key(seed: u8) -> PrivateKey {
        PrivateKey::from_seed(KeySuite::Signature(Suite::MlDsa87), &[seed; 32]).expect("a key")
    }

    fn sealing(seed: u8) -> PrivateKey {
        PrivateKey::from_seed(KeySuite::Encapsulation(KemSuite::MlKem1024), &[seed; 64]).expect("a key")
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn ids(keys: &[Key]) -> Vec<KeyId> {
        keys.iter().map(|key| key.id().clone()).collect()
    }

    #[test]
    fn a_ring_comes_back_from_its_secret_and_says_what_is_damaged_without_quoting_it() {
        let ring = KeyRing::default()
            .with_key(key(1), None, Some("a".into()), at(1))
            .with_key(key(2), None, None, at(2))
            .rotated(Some("b".into()), at(3))
            .with_key(key(3), None, None, at(4));
        let data = ring.to_data();
        let back = KeyRing::from_data(&data).unwrap_or_else(|why| panic!("{why}"));
        assert_eq!(ids(&back.next), [key(3).key_id().clone()]);
        assert_eq!(ids(&back.previous), [key(1).key_id().clone()]);
        let active = back.active.as_ref().expect("a key in use");
        assert_eq!((active.id(), active.since), (key(2).key_id(), at(3)));
        assert_eq!(back.rotate.as_deref(), Some("b"));
        assert_eq!(back.to_data(), data);

        for (name, bytes) in [
            (ACTIVE, &b"{}"[..]),
            (NEXT, b"hunter2"),
            (
                PREVIOUS,
                br#"[{"suite":"ML-DSA-87","seed":"hunter2","since":"2026-01-01T00:00:00Z"}]"#,
            ),
            (STATEMENTS, b"[1]"),
        ] {
            let mut damaged = data.clone();
            damaged.insert(name.to_owned(), k8s_openapi::ByteString(bytes.to_vec()));
            let why = KeyRing::from_data(&damaged).err().expect("refused");
            assert!(why.contains(name) && !why.contains("hunter2"), "{why}");
        }
        let mut without = data;
        without.remove(ACTIVE);
        assert!(KeyRing::from_data(&without).is_err());
    }

    #[test]
    fn previous_keys_are_kept_for_the_overlap_and_sealing_keys_beyond_it() {
        let rotate = |first: PrivateKey, rest: [PrivateKey; 2]| {
            rest.into_iter().zip(10..).fold(
                KeyRing::default().with_key(first, None, None, at(0)),
                |ring, (key, second)| ring.with_key(key, None, None, at(0)).rotated(None, at(second)),
            )
        };
        let ring = rotate(key(1), [key(2), key(3)]);
        assert_eq!(
            ids(&ring.previous),
            [key(2).key_id().clone(), key(1).key_id().clone()]
        );
        let signing = ring.retired(Purpose::Signing, at(10), 8, at(20));
        assert_eq!(ids(&signing.previous), [key(2).key_id().clone()]);
        assert!(signing.retired.is_empty());

        let ring = rotate(sealing(1), [sealing(2), sealing(3)]);
        let kept = ring.clone().retired(Purpose::Sealing, at(11), 8, at(20));
        assert_eq!(
            ids(&kept.retired),
            [sealing(2).key_id().clone(), sealing(1).key_id().clone()]
        );
        let kept = ring.retired(Purpose::Sealing, at(11), 1, at(20));
        assert_eq!(ids(&kept.retired), [sealing(2).key_id().clone()]);
    }

    #[test]
    fn without_a_next_key_nothing_rotates() {
        let ring = KeyRing::default().with_key(key(1), None, None, at(1));
        let same = ring.rotated(Some("now".into()), at(9));
        assert_eq!(same.active.as_ref().map(|key| key.since), Some(at(1)));
        assert_eq!(same.rotate, None);
    }
}
