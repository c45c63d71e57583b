//! Reconciles a KeyRotationPolicy: observe Secrets and bundle, plan one write, apply it, put the key to use.

use std::{sync::Arc, time::Duration};

use api::{KeyRotationPolicy, names, reasons};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use controller_core::key_plan::{Observed, Plan, Published, Step, Stored, plan};
use crypto::{
    Envelope, KeyPurpose, KeyStatement, SigningKey, Suite,
    trust::{Bundle, TrustedKeys},
};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, ResourceExt as _, runtime::controller::Action};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::{
    apply::{apply, apply_new, apply_status},
    client::{CallError, call},
    clock,
    context::Context,
    identity::{data, managed},
    keyring::{Signer, Trust},
};

/// Key of the seed in the root's Secret.
const SEED: &str = "seed";
/// Key of the key in use in a policy's Secret.
const ACTIVE: &str = "active";
/// Key of the root's statements about all keys of the policy, in a policy's Secret: the bundle can be rebuilt.
const STATEMENTS: &str = "statements.json";
/// When a policy at rest is looked at again, so that a Secret that is lost or damaged is noticed.
const RESYNC: Duration = Duration::from_secs(30);

/// A policy's key could not be made, stored or published.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The API server refused.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A key could not be made.
    #[error("make a key")]
    Key(#[from] crypto::key::Error),
    /// A statement could not be signed.
    #[error("sign the statement about a key")]
    Statement(#[from] crypto::key_statement::Error),
}

/// A key as it is stored. Never logged, never shown.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StoredKey {
    suite: Suite,
    /// Base64.
    seed: Zeroizing<String>,
}

/// Everything that was read, with the keys themselves.
struct Keys {
    root: Stored<SigningKey>,
    key: Stored<(SigningKey, Vec<Envelope>)>,
    bundle: Stored<(Bundle, TrustedKeys)>,
}

/// Brings one policy a step further.
pub async fn reconcile(policy: Arc<KeyRotationPolicy>, context: Arc<Context>) -> Result<Action, KeyError> {
    let name = policy.name_any();
    let ours = policy.namespace().as_deref() == Some(context.settings.namespace.as_str());
    if policy.metadata.deletion_timestamp.is_some() {
        if ours {
            context.keyring.withdraw(&name);
        }
        return Ok(Action::await_change());
    }
    let keys = if ours {
        observe(&context, &name).await?
    } else {
        Keys::none()
    };
    let plan = plan(&Observed {
        policy: &policy,
        operator_namespace: &context.settings.namespace,
        root: keys.root.ids(),
        key: keys.key.ids(),
        bundle: keys.bundle.ids(),
        now: clock::now(),
    });
    apply_plan(&context, &policy, plan, keys).await
}

async fn observe(context: &Context, policy: &str) -> Result<Keys, CallError> {
    let namespace = &context.settings.namespace;
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), namespace);
    let maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), namespace);
    let key_secret = names::key_secret(policy);
    let root = call("read the root key", secrets.get_opt(names::ROOT_SECRET)).await?;
    let key = call("read the policy's key", secrets.get_opt(&key_secret)).await?;
    let bundle = call("read the trust bundle", maps.get_opt(names::TRUST_CONFIG_MAP)).await?;
    Ok(Keys {
        root: root.map_or(Stored::Missing, |secret| read_root(&secret)),
        key: key.map_or(Stored::Missing, |secret| read_key(&secret)),
        bundle: bundle.map_or(Stored::Missing, |map| read_bundle(&map)),
    })
}

fn entry<'a>(secret: &'a Secret, key: &str) -> Option<&'a [u8]> {
    secret.data.as_ref()?.get(key).map(|bytes| bytes.0.as_slice())
}

fn read_root(secret: &Secret) -> Stored<SigningKey> {
    let Some(seed) = entry(secret, SEED) else {
        return Stored::Unreadable(format!("it has no key {SEED}"));
    };
    let Ok(seed) = <&[u8; 32]>::try_from(seed) else {
        return Stored::Unreadable(format!("{SEED} has {} bytes instead of 32", seed.len()));
    };
    match SigningKey::from_seed(Suite::MlDsa87, seed) {
        Ok(key) => Stored::Present(key),
        Err(error) => Stored::Unreadable(error.to_string()),
    }
}

fn read_key(secret: &Secret) -> Stored<(SigningKey, Vec<Envelope>)> {
    let unreadable = |what: &str| Stored::Unreadable(what.to_owned());
    let Some(active) = entry(secret, ACTIVE) else {
        return unreadable("it has no key `active`");
    };
    let Ok(stored) = serde_json::from_slice::<StoredKey>(active) else {
        return unreadable("`active` is damaged");
    };
    let seed = STANDARD.decode(stored.seed.as_bytes()).map(Zeroizing::new);
    let Some(seed) = seed
        .ok()
        .and_then(|seed| <[u8; 32]>::try_from(seed.as_slice()).ok().map(Zeroizing::new))
    else {
        return unreadable("`active` holds no seed of 32 bytes");
    };
    let Ok(key) = SigningKey::from_seed(stored.suite, &seed) else {
        return unreadable("`active` makes no key");
    };
    let statements = entry(secret, STATEMENTS).unwrap_or_default();
    match serde_json::from_slice::<Vec<Envelope>>(statements) {
        Ok(statements) => Stored::Present((key, statements)),
        Err(_) => unreadable("`statements.json` is damaged"),
    }
}

fn read_bundle(map: &ConfigMap) -> Stored<(Bundle, TrustedKeys)> {
    let text = map
        .data
        .as_ref()
        .and_then(|data| data.get(names::TRUST_BUNDLE_KEY));
    let Some(text) = text else {
        return Stored::Unreadable(format!("it has no key {}", names::TRUST_BUNDLE_KEY));
    };
    let bundle = match Bundle::from_json(text.as_bytes()) {
        Ok(bundle) => bundle,
        Err(error) => return Stored::Unreadable(error.to_string()),
    };
    match bundle.verify() {
        Ok(keys) => Stored::Present((bundle, keys)),
        Err(error) => Stored::Unreadable(error.to_string()),
    }
}

impl Keys {
    fn none() -> Self {
        Self {
            root: Stored::Missing,
            key: Stored::Missing,
            bundle: Stored::Missing,
        }
    }
}

/// The ids of what was read: all that a plan may know.
trait Ids {
    type Ids;
    fn ids(&self) -> Stored<Self::Ids>;
}

fn map<T, U>(stored: &Stored<T>, ids: impl FnOnce(&T) -> U) -> Stored<U> {
    match stored {
        Stored::Missing => Stored::Missing,
        Stored::Unreadable(why) => Stored::Unreadable(why.clone()),
        Stored::Present(value) => Stored::Present(ids(value)),
    }
}

impl Ids for Stored<SigningKey> {
    type Ids = crypto::KeyId;
    fn ids(&self) -> Stored<Self::Ids> {
        map(self, |key| key.verifying_key().key_id().clone())
    }
}

impl Ids for Stored<(SigningKey, Vec<Envelope>)> {
    type Ids = crypto::KeyId;
    fn ids(&self) -> Stored<Self::Ids> {
        map(self, |(key, _)| key.verifying_key().key_id().clone())
    }
}

impl Ids for Stored<(Bundle, TrustedKeys)> {
    type Ids = Published;
    fn ids(&self) -> Stored<Self::Ids> {
        map(self, |(_, keys)| Published {
            root: keys.root().key_id().clone(),
            keys: keys
                .iter()
                .map(|trusted| trusted.statement.key_id.clone())
                .collect(),
        })
    }
}

async fn apply_plan(
    context: &Context,
    policy: &KeyRotationPolicy,
    plan: Plan,
    keys: Keys,
) -> Result<Action, KeyError> {
    let Plan { step, status } = plan;
    let name = policy.name_any();
    if step != Step::Use && policy.namespace().as_deref() == Some(context.settings.namespace.as_str()) {
        context.keyring.withdraw(&name);
    }
    let next = match (step, keys) {
        (Step::MintRoot, _) => {
            mint_root(context).await?;
            Duration::ZERO
        }
        (
            Step::MintKey,
            Keys {
                root: Stored::Present(root),
                ..
            },
        ) => {
            mint_key(context, policy, &root).await?;
            Duration::ZERO
        }
        (
            Step::Publish,
            Keys {
                root: Stored::Present(root),
                key: Stored::Present((_, statements)),
                bundle,
            },
        ) => {
            publish(context, &root, statements, bundle).await?;
            context.events.normal(
                policy,
                reasons::KEY_PUBLISHED,
                "the public key is in chimera-trust".to_owned(),
            );
            Duration::ZERO
        }
        (
            Step::Use,
            Keys {
                key: Stored::Present((key, statements)),
                bundle: Stored::Present((_, keys)),
                ..
            },
        ) => {
            put_to_use(context, &name, key, &statements, keys);
            RESYNC
        }
        _ => RESYNC,
    };
    if policy.status.as_ref() != Some(&status) {
        apply_status(&context.client, policy, &status, None).await?;
    }
    Ok(Action::requeue(next))
}

async fn mint_root(context: &Context) -> Result<(), KeyError> {
    let key = SigningKey::generate(Suite::MlDsa87)?;
    let secret = Secret {
        metadata: managed(names::ROOT_SECRET, &context.settings.namespace),
        // A root is never written again; the API server itself refuses to.
        immutable: Some(true),
        type_: Some("chimera.dunes.io/root".to_owned()),
        data: Some(data([
            (SEED, key.seed().as_slice()),
            (names::TRUST_ROOT_KEY, key.verifying_key().spki_pem().as_bytes()),
        ])),
        ..Secret::default()
    };
    apply_new(&context.client, &secret, &minter(context)).await?;
    tracing::info!(root = key.verifying_key().key_id().short(), "made the root key");
    Ok(())
}

/// A field manager of this term alone: what another term has made is never overwritten, it is a conflict.
fn minter(context: &Context) -> String {
    format!("{}-{}", names::FIELD_MANAGER, context.fencing_token)
}

async fn mint_key(context: &Context, policy: &KeyRotationPolicy, root: &SigningKey) -> Result<(), KeyError> {
    let key = SigningKey::generate(Suite::MlDsa87)?;
    let public = key.verifying_key();
    let now = clock::now();
    let statement = KeyStatement::about(
        public,
        KeyPurpose::Signing,
        now,
        None,
        None,
        context.fencing_token,
    )
    .sign(root)?;
    let stored = StoredKey {
        suite: key.suite(),
        seed: Zeroizing::new(STANDARD.encode(key.seed().as_slice())),
    };
    let active = Zeroizing::new(serde_json::to_vec(&stored).expect("two strings serialise"));
    let statements = serde_json::to_vec(&[statement]).expect("an envelope serialises");
    let secret = Secret {
        metadata: managed(
            &names::key_secret(&policy.name_any()),
            &context.settings.namespace,
        ),
        type_: Some("chimera.dunes.io/keys".to_owned()),
        data: Some(data([
            (ACTIVE, active.as_slice()),
            (STATEMENTS, statements.as_slice()),
        ])),
        ..Secret::default()
    };
    apply_new(&context.client, &secret, &minter(context)).await?;
    tracing::info!(policy = %policy.name_any(), key = public.key_id().short(), "made a signing key");
    Ok(())
}

/// Writes the bundle: what was published before, and the statements of this policy.
async fn publish(
    context: &Context,
    root: &SigningKey,
    statements: Vec<Envelope>,
    bundle: Stored<(Bundle, TrustedKeys)>,
) -> Result<(), KeyError> {
    let mut all = match bundle {
        Stored::Present((bundle, _)) => bundle.statements,
        _ => Vec::new(),
    };
    for statement in statements {
        if !all.contains(&statement) {
            all.push(statement);
        }
    }
    let bundle = Bundle::new(root.verifying_key(), all);
    let map = ConfigMap {
        metadata: managed(names::TRUST_CONFIG_MAP, &context.settings.namespace),
        data: Some(
            [
                (names::TRUST_BUNDLE_KEY.to_owned(), bundle.to_json()),
                (names::TRUST_ROOT_KEY.to_owned(), root.verifying_key().spki_pem()),
            ]
            .into(),
        ),
        ..ConfigMap::default()
    };
    apply(&context.client, &map).await?;
    Ok(())
}

fn put_to_use(context: &Context, policy: &str, key: SigningKey, statements: &[Envelope], keys: TrustedKeys) {
    let id = key.verifying_key().key_id().clone();
    let statement = statements.iter().find(|statement| {
        KeyStatement::verify(statement, keys.root()).is_ok_and(|statement| statement.key_id == id)
    });
    let Some(statement) = statement else {
        tracing::error!(
            policy,
            "the policy's Secret has no valid statement about its own key"
        );
        context.keyring.withdraw(policy);
        return;
    };
    let signer = Signer {
        statement: statement.to_json().into_bytes(),
        root_statements: Vec::new(),
        key,
    };
    let root_pem = keys.root().spki_pem();
    if context.keyring.put(policy, signer, Trust { keys, root_pem }) {
        tracing::info!(policy, key = id.short(), "a published key is in use");
        context.triggers.wake_all();
    }
}
