//! The trust bundle's next state: what is added, what leaves, what goes to a page of its own. The same input gives the same
//! bytes, so that a write that was cut off is repeated as it was.

use std::collections::BTreeSet;

use api::key_rotation_policy::{RevocationReason, RevokedKey};
use crypto::revocation::{self, Revocation};
use crypto::trust::{Bundle, RootKey, TrustedKeys};
use crypto::{Envelope, KeyId, KeyPurpose, KeyStatement, VerifyingKey};
use jiff::Timestamp;

/// What a bundle is to hold beside what it holds.
#[derive(Debug, Default)]
pub struct Edit {
    /// Statements about keys.
    pub statements: Vec<Envelope>,
    /// Keys whose statements leave it.
    pub withdrawn: BTreeSet<KeyId>,
    /// Statements of roots about one another.
    pub roots: Vec<Envelope>,
    /// Revocations.
    pub revocations: Vec<Envelope>,
}

/// The bundle of `root` with `edit` made to `before`. A statement about a key that the bundle or one of its `paged` keys
/// has already is not added again.
pub fn edited(before: Option<Bundle>, root: &VerifyingKey, paged: &BTreeSet<KeyId>, edit: Edit) -> Bundle {
    let mut bundle = before.unwrap_or_else(|| Bundle::new(root, Vec::new()));
    bundle.root = RootKey::of(root);
    bundle
        .statements
        .retain(|one| KeyStatement::claimed_key(one).is_none_or(|id| !edit.withdrawn.contains(&id)));
    let mut known: BTreeSet<_> = bundle
        .statements
        .iter()
        .filter_map(KeyStatement::claimed_key)
        .chain(paged.iter().cloned())
        .collect();
    for statement in edit.statements {
        if KeyStatement::claimed_key(&statement).is_some_and(|id| known.insert(id)) {
            bundle.statements.push(statement);
        }
    }
    for (held, more) in [
        (&mut bundle.roots, edit.roots),
        (&mut bundle.revocations, edit.revocations),
    ] {
        for envelope in more {
            if !held.contains(&envelope) {
                held.push(envelope);
            }
        }
    }
    bundle
}

/// The bundle without its oldest `count` statements about signing keys, and the page that holds them. Statements about
/// other keys leave the bundle in time, so they are never put on a page.
pub fn paged(mut bundle: Bundle, count: usize) -> (Bundle, Bundle) {
    let mut page = Bundle {
        statements: Vec::new(),
        roots: Vec::new(),
        revocations: Vec::new(),
        ..bundle.clone()
    };
    let mut left = Vec::with_capacity(bundle.statements.len());
    for statement in bundle.statements {
        if page.statements.len() < count && claims_to_sign(&statement) {
            page.statements.push(statement);
        } else {
            left.push(statement);
        }
    }
    bundle.statements = left;
    (bundle, page)
}

/// The bundle without what stands on a page that was written before.
pub fn continued(mut bundle: Bundle, page: &Bundle) -> Bundle {
    bundle.statements.retain(|one| !page.statements.contains(one));
    bundle
}

/// How many of a bundle's statements may go to a page.
pub fn pageable(bundle: &Bundle) -> usize {
    bundle.statements.iter().filter(|one| claims_to_sign(one)).count()
}

fn claims_to_sign(statement: &Envelope) -> bool {
    KeyStatement::claimed_purpose(statement) == Some(KeyPurpose::Signing)
}

/// What a root is to state of the keys that a policy revokes: of those that are `trusted`, and not revoked yet.
pub fn revocations(revoked: &[RevokedKey], trusted: &TrustedKeys, now: Timestamp) -> Vec<Revocation> {
    let new = revoked.iter().filter_map(|revoked| {
        let key = trusted
            .find(&revoked.key_id)
            .filter(|key| key.revocation.is_none())?;
        let key_id = key.statement.key_id.clone();
        Some(Revocation::of(key_id, stated(revoked.reason), revoked.since, now))
    });
    new.collect()
}

/// A reason of the API, as roots state it. The crates that define the two do not know one another.
fn stated(reason: RevocationReason) -> revocation::RevocationReason {
    match reason {
        RevocationReason::KeyCompromise => revocation::RevocationReason::KeyCompromise,
        RevocationReason::Superseded => revocation::RevocationReason::Superseded,
        RevocationReason::CessationOfOperation => revocation::RevocationReason::CessationOfOperation,
        RevocationReason::PrivilegeWithdrawn => revocation::RevocationReason::PrivilegeWithdrawn,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crypto::kem::DecapsulationKey;
    use crypto::{PublicKey, SigningKey, Suite};

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(Suite::MlDsa87, &[seed; 32]).expect("a key")
    }

    fn statement(about: impl Into<PublicKey>, purpose: KeyPurpose) -> Envelope {
        KeyStatement::about(about, purpose, Timestamp::UNIX_EPOCH, None, None, 1)
            .sign(&key(1))
            .expect("signs")
    }

    fn signing(seed: u8) -> Envelope {
        statement(key(seed).verifying_key(), KeyPurpose::Signing)
    }

    #[test]
    fn statements_come_once_and_leave_when_withdrawn() {
        let root = key(1);
        let edit = |statements: Vec<Envelope>, withdrawn: &[u8]| Edit {
            statements,
            withdrawn: withdrawn
                .iter()
                .map(|&seed| key(seed).verifying_key().key_id().clone())
                .collect(),
            ..Edit::default()
        };
        let none = BTreeSet::new();
        let first = edited(
            None,
            root.verifying_key(),
            &none,
            edit(vec![signing(2), signing(3)], &[]),
        );
        assert_eq!(first.statements.len(), 2);
        // Signatures are hedged: another statement about the same key is another envelope, and not wanted.
        let again = edited(
            Some(first.clone()),
            root.verifying_key(),
            &none,
            edit(vec![signing(2)], &[]),
        );
        assert_eq!(again, first);
        let paged = BTreeSet::from([key(4).verifying_key().key_id().clone()]);
        let next = edited(
            Some(again),
            root.verifying_key(),
            &paged,
            edit(vec![signing(4), signing(5)], &[2]),
        );
        assert_eq!(next.statements[0], first.statements[1]);
        assert_eq!(next.statements.len(), 2);
        assert!(next.verify().is_ok());
    }

    #[test]
    fn a_page_takes_the_oldest_signing_keys_and_is_a_bundle_by_itself() {
        let kem = DecapsulationKey::from_seed(&[9; 64]).expect("a key");
        let all = vec![
            statement(kem.encapsulation_key(), KeyPurpose::Sealing),
            signing(2),
            signing(3),
            signing(4),
        ];
        let whole = Bundle::new(key(1).verifying_key(), all);
        let (left, page) = paged(whole.clone(), 2);
        assert_eq!(page.statements, whole.statements[1..3]);
        assert_eq!(left.statements.len(), 2);
        assert!(page.verify().is_ok() && left.verify().is_ok());
        assert_eq!(continued(whole.clone(), &page), left);
        assert_eq!((pageable(&whole), pageable(&left)), (3, 1));
        let merged = left.with_pages([page.clone()]);
        assert_eq!(merged.verify().expect("sound").iter().count(), 4);
        // A page that was written just before a crash: its statements stand in both.
        assert_eq!(whole.with_pages([page]).statements.len(), 4);
    }

    #[test]
    fn a_key_is_revoked_once_and_only_if_the_bundle_has_it() {
        let revoked = |seed: u8| RevokedKey {
            key_id: key(seed).verifying_key().key_id().to_string(),
            reason: RevocationReason::Superseded,
            since: None,
        };
        let now = Timestamp::UNIX_EPOCH;
        let mut bundle = Bundle::new(key(1).verifying_key(), vec![signing(2), signing(3)]);
        let new = |bundle: &Bundle| {
            let trusted = bundle.verify().expect("sound");
            revocations(&[revoked(2), revoked(4)], &trusted, now)
        };
        let first = new(&bundle);
        let id = key(2).verifying_key().key_id().clone();
        let expected = Revocation::of(id, revocation::RevocationReason::Superseded, None, now);
        assert_eq!(first, [expected]);
        bundle.revocations = vec![first[0].sign(&key(1)).expect("signs")];
        assert_eq!(new(&bundle), []);
    }

    /// Whoever reads a policy reads the same word in the bundle.
    #[test]
    fn reasons_are_stated_in_the_words_of_the_api() {
        for reason in [
            RevocationReason::KeyCompromise,
            RevocationReason::Superseded,
            RevocationReason::CessationOfOperation,
            RevocationReason::PrivilegeWithdrawn,
        ] {
            let word = serde_json::to_value(reason).expect("a word");
            assert_eq!(word, stated(reason).to_string());
        }
    }
}
