//! Puts a policy's published keys to use in this process, and says how much the key in use was used.

use std::sync::Arc;

use api::{KeyRotationPolicy, key_rotation_policy::Purpose};
use controller_core::{
    key_plan::{Stored, Usage},
    key_ring::{Key, KeyRing},
};
use crypto::KeyId;
use kube::ResourceExt as _;

use crate::{
    context::Context,
    keys::keyring::{Counter, Opener, PolicyName, Signer, Trust},
    keys::rotation::name_of,
    keys::store::{PublishedBundle, Seen},
};

/// How much the key in use was used: as counted here, or as the last process wrote it down.
pub fn usage(context: &Context, policy: &KeyRotationPolicy, seen: &Seen) -> Usage {
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

/// The keys of a policy whose key in use is published.
pub fn put_to_use(context: &Context, policy: &KeyRotationPolicy, seen: &Seen) {
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
