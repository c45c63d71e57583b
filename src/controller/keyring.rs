//! The keys in use, as the last reconcile of their policies found them. Without a published key nothing is signed.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use crypto::{KeyId, SigningKey, kem::DecapsulationKey, trust::TrustedKeys};

/// A published key that may sign.
pub struct Signer {
    /// The key.
    pub key: SigningKey,
    /// The root's statement about it: an envelope, JSON.
    pub statement: Vec<u8>,
    /// Statements of roots about one another, since the first roll-over: envelopes, JSON.
    pub root_statements: Vec<Vec<u8>>,
}

/// A key that opens sealed inputs: in use, accepted for the overlap, or retained.
pub struct Opener {
    /// The key.
    pub key: Arc<DecapsulationKey>,
    /// The one namespace that it serves; without one, all of them.
    pub namespace: Option<String>,
}

/// The published bundle, verified.
pub struct Trust {
    /// The keys that it vouches for.
    pub keys: TrustedKeys,
    /// The root's public key, PEM: what heads pin.
    pub root_pem: String,
}

/// Signers by policy, and the bundle.
#[derive(Default)]
pub struct Keyring {
    signers: RwLock<HashMap<String, Arc<Signer>>>,
    openers: RwLock<HashMap<String, Vec<Opener>>>,
    trust: RwLock<Option<Arc<Trust>>>,
}

impl Keyring {
    /// The key in use of a policy; if there is none, why, for a person.
    pub fn signer(&self, policy: &str) -> Result<Arc<Signer>, String> {
        let signers = self.signers.read().unwrap_or_else(PoisonError::into_inner);
        signers.get(policy).cloned().ok_or_else(|| {
            format!("KeyRotationPolicy {policy} has no published key in use; see `kubectl get krp`")
        })
    }

    /// The key `id`, if some policy holds it and it may open what is sealed for `namespace`.
    pub fn opener(&self, id: &KeyId, namespace: &str) -> Option<Arc<DecapsulationKey>> {
        let openers = self.openers.read().unwrap_or_else(PoisonError::into_inner);
        openers
            .values()
            .flatten()
            .find(|opener| {
                let serves = opener
                    .namespace
                    .as_deref()
                    .is_none_or(|served| served == namespace);
                serves && opener.key.encapsulation_key().key_id() == id
            })
            .map(|opener| Arc::clone(&opener.key))
    }

    /// Sets the keys of a sealing policy, named as `namespace/name`; none takes them all away.
    pub fn put_openers(&self, policy: &str, keys: Vec<Opener>) {
        let mut openers = self.openers.write().unwrap_or_else(PoisonError::into_inner);
        if keys.is_empty() {
            openers.remove(policy);
        } else {
            openers.insert(policy.to_owned(), keys);
        }
    }

    /// The bundle, once it is published.
    pub fn trust(&self) -> Option<Arc<Trust>> {
        self.trust.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts a published key to use. Whether that is a change.
    pub fn put(&self, policy: &str, signer: Signer, trust: Trust) -> bool {
        let mut signers = self.signers.write().unwrap_or_else(PoisonError::into_inner);
        let id = signer.key.verifying_key().key_id().clone();
        let before = signers.insert(policy.to_owned(), Arc::new(signer));
        *self.trust.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(trust));
        before.is_none_or(|before| *before.key.verifying_key().key_id() != id)
    }

    /// Takes a policy's key out of use.
    pub fn withdraw(&self, policy: &str) {
        self.signers
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(policy);
    }
}
