//! Writes the trust bundle: what a policy adds to it and takes out of it, and pages for statements that have become old.

use std::collections::BTreeMap;

use api::{KeyRotationPolicy, names, reasons};
use controller_core::{
    bundle_edit::{self, Edit, continued, edited, paged},
    key_plan::{PAGE_SIZE, Plan, Stored},
};
use crypto::{revocation::Revocation, trust::Bundle};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;

use crate::{
    apply::{apply, apply_new},
    context::Context,
    identity::managed,
    keys::root_key::RootKey,
    keys::rotation::{KeyError, maker},
    keys::store::{PublishedBundle, Seen, paged_keys},
};

/// The policy's revocations that are not yet published.
pub fn revocations(
    policy: &KeyRotationPolicy,
    bundle: &Stored<PublishedBundle>,
    now: Timestamp,
) -> Vec<Revocation> {
    match bundle {
        Stored::Present(bundle) => bundle_edit::revocations(&policy.spec.revoked, &bundle.trusted, now),
        _ => Vec::new(),
    }
}

/// Writes the bundle: what was published before, and what this policy adds and takes out.
pub async fn publish(
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
pub async fn page(context: &Context, bundle: Stored<PublishedBundle>) -> Result<(), KeyError> {
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
