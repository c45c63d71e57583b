//! Reconciles a KeyRotationPolicy: observe Secrets and bundle, plan one write, apply it, put the keys to use.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use api::{KeyRotationPolicy, key_rotation_policy::Purpose, names, reasons};
use controller_core::{
    key_plan::{Observed, Plan, Step, Stored, plan},
    key_ring::KeyRing,
    new_key,
};
use crypto::{KeyId, KeyStatement, PrivateKey, offline_root::Requests, revocation::Revocation};
use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{ResourceExt as _, runtime::controller::Action};

use crate::{
    apply::{apply, apply_new, apply_status},
    client::CallError,
    context::Context,
    identity::managed,
    keys::activation::{put_to_use, usage},
    keys::bundle::{page, publish},
    keys::keyring::PolicyName,
    keys::requests::request,
    keys::root_key::RootKey,
    keys::root_rotation::{mint_root, mint_successor, roll_root},
    keys::store::{OWNER, PublishedBundle, Seen, observe, owner_of, paged_keys, secret_name},
};

/// After a write that another process or policy came before.
const AGAIN: Duration = Duration::from_millis(50);

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
    /// Statements about roots could not be signed.
    #[error("sign the statements of two roots about one another")]
    Roots(#[from] crypto::root_statement::Error),
    /// A revocation could not be signed.
    #[error("sign a revocation")]
    Revocation(#[from] crypto::revocation::Error),
    /// What would be published does not hold.
    #[error("the trust bundle with what this policy adds would not be believed")]
    Bundle(#[from] crypto::trust::Error),
    /// There is no room for another page.
    #[error(
        "the trust bundle has {} pages, which is all that it may have",
        names::TRUST_PAGES
    )]
    Full,
}

/// Brings one policy a step further.
pub async fn reconcile(policy: Arc<KeyRotationPolicy>, context: Arc<Context>) -> Result<Action, KeyError> {
    let name = name_of(&policy);
    let own = name.0 == context.settings.namespace;
    if policy.metadata.deletion_timestamp.is_some() {
        context.keyring.withdraw(&name, own);
        return Ok(Action::await_change());
    }
    let seen = if own || policy.spec.purpose == Purpose::Sealing {
        observe(&context, &policy).await?
    } else {
        Seen::nothing()
    };
    let plan = plan(&Observed {
        policy: &policy,
        operator_namespace: &context.settings.namespace,
        root: seen.root.map(|root| root.known(&owner_of(&policy))),
        keys: seen.known_keys(),
        bundle: seen.bundle.map(PublishedBundle::known),
        keys_elsewhere: seen.keys_elsewhere,
        answered: answered(&seen),
        root_answered: !seen.new_root_statements().is_empty(),
        requested: seen.requests.iter().flat_map(Requests::keys).cloned().collect(),
        usage: usage(&context, &policy, &seen),
        dropped_sources: context.key_maker.dropped(),
        now: context.clock.steady(),
    });
    if plan.usable {
        put_to_use(&context, &policy, &seen);
    } else {
        context.keyring.withdraw(&name, own);
    }
    apply_plan(&context, &policy, plan, seen).await
}

/// Namespace and name of a policy.
pub fn name_of(policy: &KeyRotationPolicy) -> PolicyName {
    (policy.namespace().unwrap_or_default(), policy.name_any())
}

/// Keys that the offline root has stated something of that was not yet taken.
fn answered(seen: &Seen) -> BTreeSet<KeyId> {
    let statements = seen.new_statements();
    let revocations = seen.new_revocations();
    let revoked = revocations.iter().filter_map(Revocation::claimed_key);
    statements
        .iter()
        .filter_map(KeyStatement::claimed_key)
        .chain(revoked)
        .collect()
}

async fn apply_plan(
    context: &Context,
    policy: &KeyRotationPolicy,
    plan: Plan,
    seen: Seen,
) -> Result<Action, KeyError> {
    let mut again = plan.again;
    match apply_step(context, policy, &plan, seen).await {
        // Another policy or another process was first: what is to be done follows from what it wrote.
        Err(KeyError::Call(error)) if error.is_conflict() => again = AGAIN,
        other => other?,
    }
    if policy.status.as_ref() != Some(&plan.status) {
        match apply_status(&context.client, policy, &plan.status, None).await {
            Err(error) if error.is_not_found() => {}
            other => other.map(|_| ())?,
        }
    }
    Ok(Action::requeue(again))
}

async fn apply_step(
    context: &Context,
    policy: &KeyRotationPolicy,
    plan: &Plan,
    seen: Seen,
) -> Result<(), KeyError> {
    match &plan.step {
        Step::None => Ok(()),
        Step::MintRoot => mint_root(context).await,
        Step::MintSuccessor(asked) => mint_successor(context, policy, seen, asked.clone()).await,
        Step::RollRoot => roll_root(context, policy, seen.root).await,
        Step::MintKey => mint_key(context, policy, seen).await,
        Step::Request => request(context, policy, &seen).await,
        Step::Endorse => {
            let statements = seen.new_statements();
            store_ring(context, policy, seen, |ring| ring.with_statements(statements)).await
        }
        Step::Publish => publish(context, policy, plan, seen).await,
        Step::Page => page(context, seen.bundle).await,
        Step::Rotate(asked) => {
            let asked = asked.clone();
            store_ring(context, policy, seen, |ring| {
                ring.rotated(asked, context.clock.steady())
            })
            .await?;
            context.metrics.count_rotation(policy.spec.purpose);
            let message = "the next key took over".to_owned();
            context.events.normal(policy, reasons::KEY_ROTATED, message);
            Ok(())
        }
        Step::Retire(until) => {
            let (purpose, until) = (policy.spec.purpose, *until);
            let retain = usize::try_from(policy.spec.retain).unwrap_or(0);
            store_ring(context, policy, seen, |ring| {
                ring.retired(purpose, until, retain, context.clock.steady())
            })
            .await?;
            let message = "a previous key is accepted no longer".to_owned();
            context.events.normal(policy, reasons::KEY_RETIRED, message);
            Ok(())
        }
    }
}

/// A field manager of this term and this key alone: what another term has made, or another policy, is never overwritten, it
/// is a conflict.
pub fn maker(context: &Context, id: &KeyId) -> String {
    format!(
        "{}-{}-{}",
        names::FIELD_MANAGER,
        context.fencing_token,
        id.short()
    )
}

async fn mint_key(context: &Context, policy: &KeyRotationPolicy, seen: Seen) -> Result<(), KeyError> {
    let suite = new_key::suite_of(policy.spec.algorithm);
    let (key, _) = context
        .key_maker
        .make(move |entropy| PrivateKey::generate_from(suite, entropy))
        .await?;
    let (now, id) = (context.clock.steady(), key.key_id().clone());
    let ring = match &seen.ring {
        Stored::Present(ring) => ring.clone(),
        _ => KeyRing::default(),
    };
    let statement = statement_about(context, policy, &key, new_key::predecessor_in(&ring), now);
    let statement = match &seen.root {
        Stored::Present(RootKey::Kept(root)) => Some(statement.sign(root.signer())?),
        _ => None,
    };
    let asked = policy.annotations().get(names::ROTATE_ANNOTATION).cloned();
    let first = ring.active.is_none();
    let ring = trimmed(ring, &seen.bundle).with_key(key, statement, asked, now);
    let secret = build_secret(context, policy, &ring, seen.ring_version);
    if first {
        apply_new(&context.client, &secret, &maker(context, &id)).await?;
    } else {
        apply(&context.client, &secret).await?;
    }
    tracing::info!(policy = %policy.name_any(), key = id.short(), "made a key");
    Ok(())
}

/// What the root is to state of a key.
pub fn statement_about(
    context: &Context,
    policy: &KeyRotationPolicy,
    key: &PrivateKey,
    predecessor: Option<KeyId>,
    now: Timestamp,
) -> KeyStatement {
    let (namespace, token) = (&context.settings.namespace, context.fencing_token);
    new_key::statement_about(policy, namespace, key.public_key(), predecessor, token, now)
}

/// Writes what becomes of the policy's keys.
async fn store_ring(
    context: &Context,
    policy: &KeyRotationPolicy,
    seen: Seen,
    change: impl FnOnce(KeyRing) -> KeyRing,
) -> Result<(), KeyError> {
    let Stored::Present(ring) = seen.ring else {
        return Ok(());
    };
    let ring = change(trimmed(ring, &seen.bundle));
    let secret = build_secret(context, policy, &ring, seen.ring_version);
    apply(&context.client, &secret).await?;
    Ok(())
}

/// Without statements that stand on pages: those are never written again.
fn trimmed(ring: KeyRing, bundle: &Stored<PublishedBundle>) -> KeyRing {
    match bundle {
        Stored::Present(bundle) => ring.without_statements(&paged_keys(&bundle.pages)),
        _ => ring,
    }
}

fn build_secret(
    context: &Context,
    policy: &KeyRotationPolicy,
    ring: &KeyRing,
    version: Option<String>,
) -> Secret {
    let mut metadata = managed(&secret_name(context, policy), &context.settings.namespace);
    metadata.resource_version = version;
    let mut data = ring.to_data();
    data.insert(OWNER.to_owned(), ByteString(owner_of(policy).into_bytes()));
    Secret {
        metadata,
        type_: Some("chimera.dunes.io/keys".to_owned()),
        data: Some(data),
        ..Secret::default()
    }
}
