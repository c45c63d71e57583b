//! The root: kept in a Secret that only the operator reads, or offline and known by its public key alone.

use std::collections::BTreeMap;

use controller_core::key_plan::{Root, Stored};
use crypto::{Envelope, SigningKey, Suite, VerifyingKey, root_statement::RootStatement};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;

use api::names;

use crate::identity::{data, managed};

/// Key of the seed of the root that is to succeed it.
const SUCCESSOR: &str = "successor";
/// Key of the values of the annotations that were obeyed, by policy.
const ROLLED: &str = "rolled";
/// Key of the statements of roots about one another: the bundle can be rebuilt from them.
const STATEMENTS: &str = "roots.json";

/// The root, as far as this operator has it.
pub enum RootKey {
    /// With its private key.
    Kept(Box<KeptRoot>),
    /// Its public key alone.
    Offline(VerifyingKey),
}

/// A root that the operator keeps. No `Debug`.
pub struct KeptRoot {
    /// The root.
    pub key: SigningKey,
    /// The root that is to succeed it.
    pub successor: Option<SigningKey>,
    /// Values of the annotations that were obeyed, by policy: no request is obeyed twice, whichever policy's turn it is.
    pub rolled: BTreeMap<String, String>,
    /// Statements of roots about one another.
    pub statements: Vec<Envelope>,
    /// `metadata.resourceVersion` of the Secret.
    pub version: Option<String>,
}

impl RootKey {
    /// The public key.
    pub fn public(&self) -> &VerifyingKey {
        match self {
            Self::Kept(root) => root.key.verifying_key(),
            Self::Offline(key) => key,
        }
    }

    /// What the plan of a policy may know of it.
    pub fn known(&self, policy: &str) -> Root {
        let id = self.public().key_id().clone();
        match self {
            Self::Kept(root) => Root {
                id,
                offline: false,
                successor: root
                    .successor
                    .as_ref()
                    .map(|key| key.verifying_key().key_id().clone()),
                rolled: root.rolled.get(policy).cloned(),
            },
            Self::Offline(_) => Root {
                id,
                offline: true,
                successor: None,
                rolled: None,
            },
        }
    }
}

/// Reads the root's Secret. What is wrong is said without any of its contents.
pub fn read(secret: &Secret) -> Stored<KeptRoot> {
    match parse(secret) {
        Ok(root) => Stored::Present(root),
        Err(why) => Stored::Unreadable(why),
    }
}

fn parse(secret: &Secret) -> Result<KeptRoot, String> {
    let entry = |name: &str| {
        let data = secret.data.as_ref()?;
        data.get(name).map(|bytes| bytes.0.as_slice())
    };
    let key = |name: &str| {
        entry(name)
            .map(|seed| {
                let seed: &[u8; 32] = seed
                    .try_into()
                    .map_err(|_| format!("{name} has {} bytes instead of 32", seed.len()))?;
                SigningKey::from_seed(Suite::MlDsa87, seed).map_err(|error| error.to_string())
            })
            .transpose()
    };
    let statements = entry(STATEMENTS).map_or(Ok(Vec::new()), |bytes| {
        serde_json::from_slice(bytes).map_err(|_| format!("{STATEMENTS} is damaged"))
    })?;
    let root = key(names::ROOT_SEED_KEY)?.ok_or_else(|| format!("it has no key {}", names::ROOT_SEED_KEY))?;
    if entry(names::TRUST_ROOT_KEY) != Some(root.verifying_key().spki_pem().as_bytes()) {
        return Err(format!(
            "{} is not the public half of {}",
            names::TRUST_ROOT_KEY,
            names::ROOT_SEED_KEY
        ));
    }
    let rolled = entry(ROLLED).map(serde_json::from_slice).transpose();
    Ok(KeptRoot {
        key: root,
        successor: key(SUCCESSOR)?,
        rolled: rolled
            .map_err(|_| format!("{ROLLED} is damaged"))?
            .unwrap_or_default(),
        statements,
        version: secret.metadata.resource_version.clone(),
    })
}

impl KeptRoot {
    /// A first root.
    pub fn first(key: SigningKey) -> Self {
        Self {
            key,
            successor: None,
            rolled: BTreeMap::new(),
            statements: Vec::new(),
            version: None,
        }
    }

    /// The key that signs statements now. A successor does from the moment when it is made: its first statement is
    /// published together with the word of the root before it.
    pub fn signer(&self) -> &SigningKey {
        self.successor.as_ref().unwrap_or(&self.key)
    }

    /// With a successor that a policy asked for, and the statements of both about one another. What this root states after
    /// `end` does not count.
    pub fn with_successor(
        mut self,
        successor: SigningKey,
        (now, end): (Timestamp, Timestamp),
        (policy, asked): (String, String),
    ) -> Result<Self, crypto::root_statement::Error> {
        let forward = RootStatement::about(successor.verifying_key(), now, None);
        let back = RootStatement::about(self.key.verifying_key(), Timestamp::MIN, Some(end));
        self.statements
            .extend([forward.sign(&self.key)?, back.sign(&successor)?]);
        self.successor = Some(successor);
        self.rolled.insert(policy, asked);
        Ok(self)
    }

    /// The successor takes over; the private key of the root before it is forgotten.
    pub fn rolled(mut self) -> Self {
        if let Some(successor) = self.successor.take() {
            self.key = successor;
        }
        self
    }

    /// The Secret that holds it. With the version that was read, so that no other write is lost.
    pub fn to_secret(&self, namespace: &str) -> Secret {
        let mut metadata = managed(names::ROOT_SECRET, namespace);
        metadata.resource_version.clone_from(&self.version);
        let statements = serde_json::to_vec(&self.statements).expect("envelopes serialise");
        let pem = self.key.verifying_key().spki_pem();
        let mut content = data([
            (names::ROOT_SEED_KEY, self.key.seed().as_slice()),
            (names::TRUST_ROOT_KEY, pem.as_bytes()),
            (STATEMENTS, statements.as_slice()),
        ]);
        if let Some(successor) = &self.successor {
            content.extend(data([(SUCCESSOR, successor.seed().as_slice())]));
        }
        if !self.rolled.is_empty() {
            let rolled = serde_json::to_vec(&self.rolled).expect("texts serialise");
            content.extend(data([(ROLLED, rolled.as_slice())]));
        }
        Secret {
            metadata,
            type_: Some("chimera.dunes.io/root".to_owned()),
            data: Some(content),
            ..Secret::default()
        }
    }
}
