//! Writes down what an offline root is to state about a policy's keys, for a person to carry to it.

use std::collections::BTreeMap;

use api::{KeyRotationPolicy, names};
use controller_core::{
    key_plan::Stored,
    key_ring::{Key, KeyRing},
};
use crypto::{digest::sha256_hex, offline_root::Requests};
use k8s_openapi::api::core::v1::ConfigMap;

use crate::{
    apply::apply_new,
    context::Context,
    identity::managed,
    keys::bundle::revocations,
    keys::rotation::{KeyError, statement_about},
    keys::store::{Seen, requests_key},
};

/// Writes down what the offline root is to state.
pub async fn request(context: &Context, policy: &KeyRotationPolicy, seen: &Seen) -> Result<(), KeyError> {
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
