//! What every reconcile may use. One for the process, and one [`Scope`] for each watched namespace (or the cluster).

use std::sync::{Arc, PoisonError, RwLock};

use api::{ChimeraHead, MamlWorkflow, MuReceipt};
use controller_core::head_pod::Template;
use crypto::VerifyingKey;
use k8s_openapi::api::core::v1::Pod;
use kube::{Client, core::PartialObjectMeta, runtime::reflector::Store};
use rustls::ClientConfig;

use crate::{
    certificates::Authority, claims::Claims, clock::Clock, events::Events, fleet::Fleet,
    identity::Identities, keys::entropy::KeyMaker, keys::keyring::Keyring, metrics::Metrics,
    policies::Applied, runs::Runs, settings::Settings, triggers::Triggers,
};

/// Shared by all reconciles of the process.
pub struct Context {
    /// For short calls.
    pub client: Client,
    /// What the operator was told at start.
    pub settings: Settings,
    /// What it counts.
    pub metrics: Arc<Metrics>,
    /// The heads.
    pub fleet: Arc<Fleet>,
    /// The claims of heads that no status tells of yet.
    pub claims: Arc<Claims>,
    /// The runs under way.
    pub runs: Arc<Runs>,
    /// What makes objects be looked at again.
    pub triggers: Arc<Triggers>,
    /// The keys in use.
    pub keyring: Keyring,
    /// The root whose private key is elsewhere, if it is.
    pub offline_root: Option<VerifyingKey>,
    /// What makes keys.
    pub key_maker: KeyMaker,
    /// The clocks that keys age by.
    pub clock: Clock,
    /// Events for `kubectl describe`.
    pub events: Events,
    /// What the operator decides about all head pods.
    pub template: Template,
    /// TLS identities of heads.
    pub identities: Identities,
    /// The certificate authority for heads.
    pub authority: Authority,
    /// How heads are dialled.
    pub tls: Arc<ClientConfig>,
    /// From the Lease: receipts and grants carry it.
    pub fencing_token: u64,
}

/// One watched namespace, or the whole cluster.
pub struct Scope {
    /// Shared by all scopes.
    pub context: Arc<Context>,
    /// Workflows as last seen.
    pub workflows: Store<MamlWorkflow>,
    /// Heads as last seen.
    pub heads: Store<ChimeraHead>,
    /// Head pods as last seen.
    pub pods: Store<Pod>,
    /// Receipts as last seen, without their contents.
    pub receipts: Store<PartialObjectMeta<MuReceipt>>,
    /// Why the last pod of a head could not be made, by the head's UID.
    pub refused_pods: Remembered<(&'static str, String)>,
    /// The policies around pods that this process has applied, by the head's UID.
    pub head_policies: Remembered<Applied>,
    /// The NetworkPolicies around pods that are made for one run, likewise.
    pub run_network_policies: Remembered<Applied>,
}

/// Small facts that a process remembers about objects, by UID.
pub struct Remembered<T>(RwLock<std::collections::HashMap<String, T>>);

impl<T> Default for Remembered<T> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<T: Clone> Remembered<T> {
    /// The fact about an object.
    pub fn recall(&self, uid: &str) -> Option<T> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(uid)
            .cloned()
    }

    /// Notes a fact, or forgets it.
    pub fn note(&self, uid: &str, fact: Option<T>) {
        let mut facts = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match fact {
            Some(fact) => facts.insert(uid.to_owned(), fact),
            None => facts.remove(uid),
        };
    }
}
