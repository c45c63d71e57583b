//! Reconciles a KeyRotationPolicy: observe Secrets and bundle, plan one write, apply it, put the keys to use.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use api::{
    KeyRotationPolicy,
    key_rotation_policy::{Purpose, RevocationReason},
    names, reasons,
};
use controller_core::{
    bundle_edit::{Edit, continued, edited, paged},
    key_plan::{Observed, PAGE_SIZE, Plan, Step, Stored, Usage, plan},
    key_ring::{Key, KeyRing},
    new_key,
};
use crypto::{
    KeyId, KeyStatement, PrivateKey, SigningKey, Suite,
    digest::sha256_hex,
    entropy::Entropy,
    offline_root::Requests,
    revocation::{self, Revocation},
    trust::Bundle,
};
use jiff::Timestamp;
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
};
use kube::{ResourceExt as _, runtime::controller::Action};

use crate::{
    apply::{apply, apply_new, apply_status},
    client::CallError,
    context::Context,
    identity::managed,
    key_store::{OWNER, PublishedBundle, Seen, observe, owner_of, paged_keys, requests_key, secret_name},
    keyring::{Counter, Opener, PolicyName, Signer, Trust},
    root_key::{KeptRoot, RootKey},
};

/// How long after a roll-over the former root's word still counts: for what other processes and clocks that are ahead have
/// stated by it and not yet published. Its private key is gone long before.
const GRACE: Duration = Duration::from_secs(24 * 3600);
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
    Revocation(#[from] revocation::Error),
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

fn name_of(policy: &KeyRotationPolicy) -> PolicyName {
    (policy.namespace().unwrap_or_default(), policy.name_any())
}

/// Keys that the offline root has stated something of that was not yet taken.
fn answered(seen: &Seen) -> std::collections::BTreeSet<KeyId> {
    let statements = seen.new_statements();
    let revocations = seen.new_revocations();
    let revoked = revocations.iter().filter_map(Revocation::claimed_key);
    statements
        .iter()
        .filter_map(KeyStatement::claimed_key)
        .chain(revoked)
        .collect()
}

/// How much the key in use was used: as counted here, or as the last process wrote it down.
fn usage(context: &Context, policy: &KeyRotationPolicy, seen: &Seen) -> Usage {
    let Stored::Present(ring) = &seen.ring else {
        return Usage::default();
    };
    let Some(active) = &ring.active else {
        return Usage::default();
    };
    let counter = context.keyring.counter(&name_of(policy), active.id());
    counter.map_or_else(|| noted_usage(policy, active.id()), |counter| counter.usage())
}

fn noted_usage(policy: &KeyRotationPolicy, active: &KeyId) -> Usage {
    let status = policy.status.as_ref();
    let status = status.filter(|status| status.active_key_id.as_deref() == Some(active.as_str()));
    let noted = |count: Option<i64>| count.and_then(|count| u64::try_from(count).ok()).unwrap_or(0);
    status.map_or_else(Usage::default, |status| Usage {
        uses: noted(status.uses),
        bytes: noted(status.bytes),
    })
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

async fn mint_root(context: &Context) -> Result<(), KeyError> {
    let root = KeptRoot::first(new_root(context).await?);
    let secret = root.to_secret(&context.settings.namespace);
    apply_new(
        &context.client,
        &secret,
        &maker(context, root.key.verifying_key().key_id()),
    )
    .await?;
    tracing::info!(
        root = root.key.verifying_key().key_id().short(),
        "made the root key"
    );
    Ok(())
}

async fn new_root(context: &Context) -> Result<SigningKey, KeyError> {
    let make = |entropy: &Entropy| SigningKey::generate_from(Suite::MlDsa87, entropy);
    Ok(context.key_maker.make(make).await?.0)
}

async fn mint_successor(
    context: &Context,
    policy: &KeyRotationPolicy,
    seen: Seen,
    asked: String,
) -> Result<(), KeyError> {
    let Stored::Present(RootKey::Kept(root)) = seen.root else {
        return Ok(());
    };
    let now = context.clock.steady();
    let last = match &seen.bundle {
        Stored::Present(bundle) => last_word(bundle).map_or(now, |last| last.max(now)),
        _ => now,
    };
    let end = last.checked_add(GRACE).unwrap_or(Timestamp::MAX);
    let root = root.with_successor(new_root(context).await?, (now, end), (owner_of(policy), asked))?;
    apply(&context.client, &root.to_secret(&context.settings.namespace)).await?;
    Ok(())
}

/// The latest time of anything that is stated in the bundle: a clock may have been ahead when it was.
fn last_word(bundle: &PublishedBundle) -> Option<Timestamp> {
    let keys = bundle.trusted.iter();
    keys.flat_map(|key| {
        let revoked = key.revocation.as_ref().map(|revocation| revocation.revoked_at);
        [Some(key.statement.not_before), revoked]
    })
    .flatten()
    .max()
}

async fn roll_root(
    context: &Context,
    policy: &KeyRotationPolicy,
    root: Stored<RootKey>,
) -> Result<(), KeyError> {
    let Stored::Present(RootKey::Kept(root)) = root else {
        return Ok(());
    };
    let root = root.rolled();
    apply(&context.client, &root.to_secret(&context.settings.namespace)).await?;
    let message = format!("{} is the root", root.key.verifying_key().key_id());
    context.events.normal(policy, reasons::ROOT_SUCCEEDED, message);
    Ok(())
}

/// A field manager of this term and this key alone: what another term has made, or another policy, is never overwritten, it
/// is a conflict.
fn maker(context: &Context, id: &KeyId) -> String {
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

fn statement_about(
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

/// Writes down what the offline root is to state.
async fn request(context: &Context, policy: &KeyRotationPolicy, seen: &Seen) -> Result<(), KeyError> {
    let (Stored::Present(root), Stored::Present(ring)) = (&seen.root, &seen.ring) else {
        return Ok(());
    };
    let mut statements = Vec::new();
    let mut before = None;
    for key in by_turn(ring) {
        if ring.statement(key.id()).is_none() {
            statements.push(statement_about(context, policy, &key.private, before, key.since));
        }
        before = Some(key.id().clone());
    }
    let revocations = revocations(policy, &seen.bundle, context.clock.now());
    let requests = Requests::of(root.public().key_id().clone(), statements, revocations);
    let text = serde_json::to_string_pretty(&requests).expect("names, texts and times serialise");
    // Each policy applies its own entry as a manager of its own: the others' stay.
    let key = requests_key(policy);
    let map = ConfigMap {
        metadata: managed(names::TRUST_REQUESTS_CONFIG_MAP, &context.settings.namespace),
        data: Some(BTreeMap::from([(key.clone(), text)])),
        ..ConfigMap::default()
    };
    apply_new(
        &context.client,
        &map,
        &format!(
            "{}-requests-{}",
            names::FIELD_MANAGER,
            &sha256_hex(key.as_bytes())[..16]
        ),
    )
    .await?;
    Ok(())
}

/// Keys in the order of their use.
fn by_turn(ring: &KeyRing) -> impl Iterator<Item = &Key> {
    ring.active.iter().chain(&ring.next)
}

/// The policy's revocations that are not yet published.
fn revocations(
    policy: &KeyRotationPolicy,
    bundle: &Stored<PublishedBundle>,
    now: Timestamp,
) -> Vec<Revocation> {
    let Stored::Present(bundle) = bundle else {
        return Vec::new();
    };
    let revoked = policy.spec.revoked.iter();
    revoked
        .filter(|revoked| {
            let key = bundle.trusted.find(&revoked.key_id);
            key.is_some_and(|key| key.revocation.is_none())
        })
        .filter_map(|revoked| {
            let reason = match revoked.reason {
                RevocationReason::KeyCompromise => revocation::RevocationReason::KeyCompromise,
                RevocationReason::Superseded => revocation::RevocationReason::Superseded,
                RevocationReason::CessationOfOperation => revocation::RevocationReason::CessationOfOperation,
                RevocationReason::PrivilegeWithdrawn => revocation::RevocationReason::PrivilegeWithdrawn,
            };
            Some(Revocation::of(
                revoked.key_id.parse().ok()?,
                reason,
                revoked.since,
                now,
            ))
        })
        .collect()
}

/// Writes the bundle: what was published before, and what this policy adds and takes out.
async fn publish(
    context: &Context,
    policy: &KeyRotationPolicy,
    plan: &Plan,
    seen: Seen,
) -> Result<(), KeyError> {
    let mut edit = Edit {
        withdrawn: plan.withdrawn.clone(),
        roots: seen.new_root_statements(),
        revocations: seen.new_revocations(),
        ..Edit::default()
    };
    let Stored::Present(root) = &seen.root else {
        return Ok(());
    };
    if let RootKey::Kept(root) = root {
        edit.roots.extend(root.statements.iter().cloned());
        for revocation in revocations(policy, &seen.bundle, context.clock.now()) {
            edit.revocations.push(revocation.sign(root.signer())?);
        }
    }
    let mut active = None;
    if let Stored::Present(ring) = &seen.ring {
        edit.statements.clone_from(&ring.statements);
        active = ring.active.as_ref().map(|key| key.id().clone());
    }
    let (main, pages, version) = match seen.bundle {
        Stored::Present(bundle) => (Some(bundle.main), bundle.pages, bundle.version),
        _ => (None, seen.orphans, None),
    };
    let bundle = edited(main, root.public(), &paged_keys(&pages), edit);
    let map = build_bundle(context, &bundle, pages.len(), version);
    // Nothing is published that nobody could believe.
    bundle.with_pages(pages).verify()?;
    match active {
        Some(active) if map.metadata.resource_version.is_none() => {
            apply_new(&context.client, &map, &maker(context, &active)).await?;
        }
        _ => {
            apply(&context.client, &map).await?;
        }
    }
    let message = format!("the public key is in {}", names::TRUST_CONFIG_MAP);
    context.events.normal(policy, reasons::KEY_PUBLISHED, message);
    Ok(())
}

fn build_bundle(context: &Context, bundle: &Bundle, pages: usize, version: Option<String>) -> ConfigMap {
    let mut metadata = managed(names::TRUST_CONFIG_MAP, &context.settings.namespace);
    metadata.resource_version = version;
    let mut data = BTreeMap::from([
        (names::TRUST_BUNDLE_KEY.to_owned(), bundle.to_json()),
        (names::TRUST_ROOT_KEY.to_owned(), bundle.root.public_key.clone()),
    ]);
    if pages > 0 {
        data.insert(names::TRUST_PAGES_KEY.to_owned(), pages.to_string());
    }
    ConfigMap {
        metadata,
        data: Some(data),
        ..ConfigMap::default()
    }
}

/// Puts the oldest statements on a page, then takes them out of the bundle. When only the first was written, the page is
/// there and the bundle continues on it.
async fn page(context: &Context, bundle: Stored<PublishedBundle>) -> Result<(), KeyError> {
    let Stored::Present(bundle) = bundle else {
        return Ok(());
    };
    let number = bundle.pages.len() + 1;
    if number > names::TRUST_PAGES {
        return Err(KeyError::Full);
    }
    if let Some(begun) = &bundle.begun {
        let left = continued(bundle.main, begun);
        apply(
            &context.client,
            &build_bundle(context, &left, number, bundle.version),
        )
        .await?;
        return Ok(());
    }
    let (left, page) = paged(bundle.main, PAGE_SIZE);
    let map = ConfigMap {
        metadata: managed(&names::trust_page(number), &context.settings.namespace),
        immutable: Some(true),
        data: Some(BTreeMap::from([(
            names::TRUST_BUNDLE_KEY.to_owned(),
            page.to_json(),
        )])),
        ..ConfigMap::default()
    };
    apply(&context.client, &map).await?;
    apply(
        &context.client,
        &build_bundle(context, &left, number, bundle.version),
    )
    .await?;
    Ok(())
}

/// The keys of a policy whose key in use is published.
fn put_to_use(context: &Context, policy: &KeyRotationPolicy, seen: &Seen) {
    let (Stored::Present(ring), Stored::Present(bundle)) = (&seen.ring, &seen.bundle) else {
        return;
    };
    let Some(active) = &ring.active else { return };
    context.keyring.publish(Trust {
        keys: bundle.trusted.clone(),
        root_pem: bundle.trusted.root().spki_pem(),
    });
    let name = name_of(policy);
    let counter = counter(context, policy, &name, active);
    let changed = match policy.spec.purpose {
        Purpose::Signing => put_signer(context, &name, ring, active, bundle, counter),
        Purpose::Sealing | Purpose::Session => put_openers(context, policy, name, ring, &counter),
    };
    if changed {
        tracing::info!(policy = %policy.name_any(), key = active.id().short(), "a published key is in use");
        context.triggers.wake_all();
    }
}

/// The counter of the key in use: the one that counts already, or one that goes on from what was noted.
fn counter(context: &Context, policy: &KeyRotationPolicy, name: &PolicyName, active: &Key) -> Arc<Counter> {
    context.keyring.counter(name, active.id()).unwrap_or_else(|| {
        let rotation = &policy.spec.rotation;
        let limit = |limit: Option<i64>| limit.and_then(|limit| u64::try_from(limit).ok());
        let (uses, bytes) = (limit(rotation.max_uses), limit(rotation.max_bytes));
        let mark = |tenths: u64| Usage {
            uses: uses.map_or(u64::MAX, |uses| uses.saturating_mul(tenths) / 10),
            bytes: bytes.map_or(u64::MAX, |bytes| bytes.saturating_mul(tenths) / 10),
        };
        let noted = noted_usage(policy, active.id());
        context.keyring.new_counter(noted, [mark(9), mark(10)])
    })
}

fn put_signer(
    context: &Context,
    name: &PolicyName,
    ring: &KeyRing,
    active: &Key,
    bundle: &PublishedBundle,
    counter: Arc<Counter>,
) -> bool {
    let statement = ring
        .statement(active.id())
        .and_then(|envelope| Some((envelope, bundle.trusted.roots().key_statement(envelope).ok()?)));
    let Some((envelope, statement)) = statement else {
        tracing::error!(
            policy = name.1,
            "the policy's Secret has no valid statement about its own key"
        );
        context.keyring.withdraw(name, true);
        return false;
    };
    let roots = &bundle.main.roots;
    let roots = roots.iter().map(|one| one.to_json().into_bytes()).collect();
    let private = Arc::clone(&active.private);
    match Signer::new(private, (envelope, &statement), roots, counter) {
        Some(signer) => context.keyring.put_signer(&name.1, signer),
        None => false,
    }
}

/// All keys of the policy open what was sealed under them, whatever their place.
fn put_openers(
    context: &Context,
    policy: &KeyRotationPolicy,
    name: PolicyName,
    ring: &KeyRing,
    counter: &Arc<Counter>,
) -> bool {
    if policy.spec.purpose != Purpose::Sealing {
        return false;
    }
    let namespace = Some(name.0.clone()).filter(|namespace| *namespace != context.settings.namespace);
    let openers = ring
        .iter()
        .filter_map(|key| Opener::new(Arc::clone(&key.private), namespace.clone(), Arc::clone(counter)))
        .collect();
    context.keyring.put_openers(name, openers)
}
