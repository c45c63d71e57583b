//! The keys in use, as the last reconcile of their policies found them. Without a published key nothing is signed.

use std::{
    borrow::Borrow,
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use controller_core::key_plan::Usage;
use crypto::{KeyId, PrivateKey, SigningKey, kem::DecapsulationKey, trust::TrustedKeys};
use jiff::Timestamp;
use tokio::sync::watch;

/// A published key that may sign.
pub struct Signer {
    private: Arc<PrivateKey>,
    /// The root's statement about it: an envelope, JSON.
    pub statement: Vec<u8>,
    /// Statements of roots about one another, since the first roll-over: envelopes, JSON.
    pub root_statements: Vec<Vec<u8>>,
    /// From when on its signatures count.
    pub not_before: Timestamp,
    /// How much it was used.
    pub counter: Arc<Counter>,
}

impl Signer {
    /// `None` for a key that does not sign.
    pub fn new(
        private: Arc<PrivateKey>,
        statement: (&crypto::Envelope, &crypto::KeyStatement),
        root_statements: Vec<Vec<u8>>,
        counter: Arc<Counter>,
    ) -> Option<Self> {
        private.as_signing()?;
        Some(Self {
            private,
            statement: statement.0.to_json().into_bytes(),
            root_statements,
            not_before: statement.1.not_before,
            counter,
        })
    }

    /// The key.
    pub fn key(&self) -> &SigningKey {
        self.private.as_signing().expect("asked when the signer was made")
    }

    /// The time to name in what is signed now: a clock that was set back must not make a signature older than its key.
    pub fn time(&self, now: Timestamp) -> Timestamp {
        now.max(self.not_before)
    }
}

/// A key that opens what was sealed under it.
pub struct Opener {
    private: Arc<PrivateKey>,
    /// The namespace whose inputs it opens; without one, those of all.
    pub namespace: Option<String>,
    /// How much it was used.
    pub counter: Arc<Counter>,
}

impl Opener {
    /// `None` for a key that does not decapsulate.
    pub fn new(private: Arc<PrivateKey>, namespace: Option<String>, counter: Arc<Counter>) -> Option<Self> {
        private.as_decapsulation()?;
        Some(Self {
            private,
            namespace,
            counter,
        })
    }

    /// The key.
    pub fn key(&self) -> &DecapsulationKey {
        self.private
            .as_decapsulation()
            .expect("asked when the opener was made")
    }
}

impl Borrow<DecapsulationKey> for Opener {
    fn borrow(&self) -> &DecapsulationKey {
        self.key()
    }
}

/// Counts the uses of a key, and tells when a limit comes near.
pub struct Counter {
    uses: AtomicU64,
    bytes: AtomicU64,
    /// What is to be told when it is passed: nine tenths of a limit, and the limit.
    marks: [Usage; 2],
    passed: watch::Sender<()>,
}

impl Counter {
    /// A counter that goes on from `usage`. `passed` is told when one of `marks` is reached.
    pub fn new(usage: Usage, marks: [Usage; 2], passed: watch::Sender<()>) -> Self {
        Self {
            uses: AtomicU64::new(usage.uses),
            bytes: AtomicU64::new(usage.bytes),
            marks,
            passed,
        }
    }

    /// The key was used on so many bytes.
    pub fn count(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let uses = self.uses.fetch_add(1, Ordering::Relaxed);
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let reached = |mark: &Usage| {
            uses + 1 == mark.uses || (before < mark.bytes && before.saturating_add(bytes) >= mark.bytes)
        };
        if self.marks.iter().any(reached) {
            self.passed.send_replace(());
        }
    }

    /// How much the key was used.
    pub fn usage(&self) -> Usage {
        Usage {
            uses: self.uses.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

/// The published bundle, verified.
pub struct Trust {
    /// The keys that it vouches for.
    pub keys: TrustedKeys,
    /// The root's public key, PEM: what heads pin.
    pub root_pem: String,
}

impl Trust {
    /// The keys that are revoked.
    fn revoked(&self) -> BTreeSet<KeyId> {
        let revoked = self.keys.iter().filter(|key| key.revocation.is_some());
        revoked.map(|key| key.statement.key_id.clone()).collect()
    }
}

/// Names a policy: its namespace and its name.
pub type PolicyName = (String, String);

/// Signers and openers by policy, and the bundle.
pub struct Keyring {
    signers: RwLock<HashMap<String, Arc<Signer>>>,
    openers: RwLock<HashMap<PolicyName, Vec<Arc<Opener>>>>,
    trust: RwLock<Option<Arc<Trust>>>,
    used_up: watch::Sender<()>,
    revoked: watch::Sender<()>,
}

impl Default for Keyring {
    fn default() -> Self {
        Self {
            signers: RwLock::default(),
            openers: RwLock::default(),
            trust: RwLock::default(),
            used_up: watch::Sender::new(()),
            revoked: watch::Sender::new(()),
        }
    }
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

impl Keyring {
    /// The key in use of a policy; if there is none, why, for a person.
    pub fn signer(&self, policy: &str) -> Result<Arc<Signer>, String> {
        read(&self.signers).get(policy).cloned().ok_or_else(|| {
            format!("KeyRotationPolicy {policy} has no published key in use; see `kubectl get krp`")
        })
    }

    /// The key `id`, if it opens what was sealed under it for `namespace`.
    pub fn opener(&self, id: &KeyId, namespace: &str) -> Option<Arc<Opener>> {
        let openers = read(&self.openers);
        let serves = |opener: &&Arc<Opener>| {
            let served = opener.namespace.as_deref();
            opener.private.key_id() == id && served.is_none_or(|served| served == namespace)
        };
        openers.values().flatten().find(serves).cloned()
    }

    /// The bundle, once it is published.
    pub fn trust(&self) -> Option<Arc<Trust>> {
        read(&self.trust).clone()
    }

    /// Takes note of the published bundle.
    pub fn publish(&self, trust: Trust) {
        let revoked = trust.revoked();
        let before = write(&self.trust).replace(Arc::new(trust));
        if before.is_some_and(|before| before.revoked() != revoked) {
            self.revoked.send_replace(());
        }
    }

    /// Puts a published key to use. Whether it is another than before.
    pub fn put_signer(&self, policy: &str, signer: Signer) -> bool {
        let id = signer.private.key_id().clone();
        let before = write(&self.signers).insert(policy.to_owned(), Arc::new(signer));
        before.is_none_or(|before| *before.private.key_id() != id)
    }

    /// Puts the keys of a policy to use that open what was sealed under them. Whether the newest is another than before.
    pub fn put_openers(&self, policy: PolicyName, openers: Vec<Opener>) -> bool {
        let id = openers.first().map(|opener| opener.private.key_id().clone());
        let openers = openers.into_iter().map(Arc::new).collect();
        let before = write(&self.openers).insert(policy, openers);
        let before = before.and_then(|all| all.first().map(|opener| opener.private.key_id().clone()));
        before != id
    }

    /// Takes a policy's keys out of use.
    pub fn withdraw(&self, policy: &PolicyName, own: bool) {
        write(&self.openers).remove(policy);
        if own {
            write(&self.signers).remove(&policy.1);
        }
    }

    /// The counter of the key `id` in use of a policy, if it has one already.
    pub fn counter(&self, policy: &PolicyName, id: &KeyId) -> Option<Arc<Counter>> {
        let signer = read(&self.signers)
            .get(&policy.1)
            .filter(|signer| signer.private.key_id() == id)
            .map(|signer| Arc::clone(&signer.counter));
        signer.or_else(|| {
            let openers = read(&self.openers);
            let opener = openers.get(policy)?.first()?;
            (opener.private.key_id() == id).then(|| Arc::clone(&opener.counter))
        })
    }

    /// A new counter of one of the policies' keys.
    pub fn new_counter(&self, usage: Usage, marks: [Usage; 2]) -> Arc<Counter> {
        Arc::new(Counter::new(usage, marks, self.used_up.clone()))
    }

    /// Changes whenever a key is revoked: what it signed is to be verified again.
    pub fn revoked(&self) -> watch::Receiver<()> {
        self.revoked.subscribe()
    }

    /// Changes whenever a key's limit on uses or bytes is near or reached.
    pub fn used_up(&self) -> watch::Receiver<()> {
        self.used_up.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_tells_once_when_a_limit_is_near_and_once_when_it_is_reached() {
        let (sender, mut receiver) = watch::channel(());
        let mark = |uses, bytes| Usage { uses, bytes };
        let counter = Counter::new(mark(2, 0), [mark(9, 900), mark(10, 1000)], sender);
        let mut told = Vec::new();
        for round in 3..=12 {
            counter.count(100);
            if receiver.has_changed().expect("the sender lives") {
                receiver.mark_unchanged();
                told.push(round);
            }
        }
        assert_eq!(told, [9, 10, 11, 12]);
        assert_eq!(counter.usage(), mark(12, 1000));
    }
}
