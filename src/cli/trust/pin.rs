//! `chimera trust pin`: the bundle that this user has stored, and the root that he insists on.
//!
//! The root that was pinned first stays pinned when others succeed it: it is the one that a person has compared. What its
//! successors state counts because statements of roots lead to them from it, and whatever was made under it or under any of
//! them goes on verifying.

use std::path::{Path, PathBuf};

use crypto::trust::{Bundle, TrustedKeys};
use crypto::{Envelope, KeyId};

use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::{output, user_folder};

/// The bundle, as it was pinned last.
const BUNDLE: &str = "trust.json";
/// The id of the root that was pinned first. Without it, the bundle's own root is.
const ROOT: &str = "trust-root";

/// What is pinned.
pub struct Pinned {
    /// The bundle.
    pub bundle: Bundle,
    /// The root to insist on.
    pub root: KeyId,
}

/// What this user has pinned. In a container there may be no home, and so nothing pinned.
pub fn read() -> Result<Option<Pinned>, Error> {
    match user_folder::config() {
        Ok(folder) => read_in(&folder),
        Err(_) => Ok(None),
    }
}

/// Pins a bundle for this user.
pub fn pin(bundle: &Bundle, replace: bool) -> Result<(), Error> {
    let folder = user_folder::config()?;
    let pinned = pin_in(&folder, bundle, replace)?;
    output::print(pinned.root.as_str())?;
    let path = folder.join(BUNDLE);
    output::note(format_args!(
        "pinned in {}: compare this root with what the operator tells you",
        path.display()
    ));
    if pinned.root != bundle.root.key_id {
        output::note(format_args!(
            "it has been succeeded: the root is {}",
            bundle.root.key_id
        ));
    }
    Ok(())
}

fn read_in(folder: &Path) -> Result<Option<Pinned>, Error> {
    let path = folder.join(BUNDLE);
    if !path.exists() {
        return Ok(None);
    }
    let bundle = super::read_file(&path)?;
    let root = read_root(&folder.join(ROOT))?.unwrap_or_else(|| bundle.root.key_id.clone());
    Ok(Some(Pinned { bundle, root }))
}

fn read_root(path: &Path) -> Result<Option<KeyId>, Error> {
    let fail = |cause: &dyn std::error::Error| {
        Error::usage(format!("cannot read the pinned root {}", path.display()))
            .because(cause)
            .hint("`chimera trust pin --replace` pins anew")
    };
    match std::fs::read_to_string(path) {
        Ok(text) => text.trim().parse().map(Some).map_err(|cause| fail(&cause)),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(fail(&cause)),
    }
}

fn pin_in(folder: &Path, bundle: &Bundle, replace: bool) -> Result<Pinned, Error> {
    let trusted = super::believe(bundle)?;
    let before = if replace { None } else { read_in(folder)? };
    let root = match before {
        Some(before) => {
            led_to(bundle, &before)?;
            before.root
        }
        None => trusted.root().key_id().clone(),
    };
    let path = |name: &str| -> PathBuf { folder.join(name) };
    // The root first: a bundle that it does not lead to is refused, so a crash in between fails closed.
    super::write(&path(ROOT), format!("{root}\n").as_bytes())?;
    super::write(&path(BUNDLE), bundle.to_json().as_bytes())?;
    Ok(Pinned {
        bundle: bundle.clone(),
        root,
    })
}

/// The new bundle's keys, if it continues what is pinned: statements lead to it from the pinned root, and what roots once
/// said of one another and of revoked keys is still in it.
fn led_to(bundle: &Bundle, before: &Pinned) -> Result<TrustedKeys, Error> {
    let hint = "--replace pins the new one, if you know why it changed";
    let trusted = bundle.verify_pinned(Some(&before.root)).map_err(|cause| {
        let message = format!(
            "nothing leads from the pinned root, {}, to this bundle, whose root is {}",
            before.root, bundle.root.key_id
        );
        Error::new(ExitCode::UntrustedKey, message)
            .because(&cause)
            .hint(hint)
    })?;
    let lacks = |old: &[Envelope], new: &[Envelope]| old.iter().any(|one| !new.contains(one));
    if lacks(&before.bundle.roots, &bundle.roots) || lacks(&before.bundle.revocations, &bundle.revocations) {
        let message = "the bundle is older than the pinned one: it lacks statements of roots or revocations";
        return Err(Error::new(ExitCode::UntrustedKey, message).hint(hint));
    }
    Ok(trusted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crypto::revocation::{Revocation, RevocationReason};
    use crypto::root_statement::RootStatement;
    use crypto::{SigningKey, Suite};
    use jiff::Timestamp;

    fn root(seed: u8) -> SigningKey {
        SigningKey::from_seed(Suite::MlDsa87, &[seed; 32]).unwrap()
    }

    fn id(seed: u8) -> KeyId {
        root(seed).verifying_key().key_id().clone()
    }

    fn bundle(seed: u8) -> Bundle {
        Bundle::new(root(seed).verifying_key(), vec![])
    }

    fn rolled(old: u8, new: u8) -> Bundle {
        let now = Timestamp::from_second(1_000).unwrap();
        let mut bundle = bundle(new);
        bundle.roots = RootStatement::roll_over(&root(old), &root(new), now)
            .unwrap()
            .into();
        bundle
    }

    #[test]
    fn a_pinned_root_is_replaced_on_demand_only() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("chimera");
        assert!(read_in(&folder).unwrap().is_none());
        pin_in(&folder, &bundle(1), false).unwrap();
        pin_in(&folder, &bundle(1), false).unwrap();
        assert!(pin_in(&folder, &bundle(2), false).is_err());
        assert_eq!(read_in(&folder).unwrap().unwrap().bundle, bundle(1));
        pin_in(&folder, &bundle(2), true).unwrap();
        let pinned = read_in(&folder).unwrap().unwrap();
        assert_eq!((pinned.bundle, pinned.root), (bundle(2), id(2)));
    }

    #[test]
    fn the_first_root_stays_pinned_across_a_roll_over_and_nothing_goes_back_behind_it() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path();
        pin_in(folder, &bundle(1), false).unwrap();
        let next = rolled(1, 2);
        pin_in(folder, &next, false).unwrap();
        let pinned = read_in(folder).unwrap().unwrap();
        assert_eq!((&pinned.bundle, &pinned.root), (&next, &id(1)));
        assert!(pinned.bundle.verify_pinned(Some(&pinned.root)).is_ok());
        assert!(
            pin_in(folder, &bundle(1), false).is_err(),
            "the roll-over is missing"
        );
        assert!(
            pin_in(folder, &rolled(3, 4), false).is_err(),
            "another line of roots"
        );
    }

    #[test]
    fn a_bundle_that_forgets_a_revocation_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let now = Timestamp::from_second(1_000).unwrap();
        let revocation = Revocation::of(id(7), RevocationReason::KeyCompromise, None, now);
        let mut revoking = bundle(1);
        revoking.revocations.push(revocation.sign(&root(1)).unwrap());
        pin_in(folder.path(), &revoking, false).unwrap();
        assert!(pin_in(folder.path(), &bundle(1), false).is_err());
    }

    #[test]
    fn a_bundle_that_was_pinned_without_a_file_for_its_root_pins_its_own() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(BUNDLE), bundle(1).to_json()).unwrap();
        assert_eq!(read_in(folder.path()).unwrap().unwrap().root, id(1));
    }
}
