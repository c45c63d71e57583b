//! Makes the root, its successor, and puts the successor in its place. What another term or policy has made is never
//! overwritten.

use std::time::Duration;

use api::{KeyRotationPolicy, reasons};
use controller_core::key_plan::Stored;
use crypto::{SigningKey, Suite, entropy::Entropy};
use jiff::Timestamp;

use crate::{
    apply::{apply, apply_new},
    context::Context,
    keys::root_key::{KeptRoot, RootKey},
    keys::rotation::{KeyError, maker},
    keys::store::{PublishedBundle, Seen, owner_of},
};

/// How long after a roll-over the former root's word still counts: for what other processes and clocks that are ahead have
/// stated by it and not yet published. Its private key is gone long before.
const GRACE: Duration = Duration::from_secs(24 * 3600);

/// Makes the first root.
pub async fn mint_root(context: &Context) -> Result<(), KeyError> {
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

/// Makes the root that is to follow, and has both state it of one another.
pub async fn mint_successor(
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

/// Puts the successor in the root's place, once its statements are published.
pub async fn roll_root(
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
