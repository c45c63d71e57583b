//! The roots that a verifier believes: the one that he pinned, and those to which statements of roots lead from it.

use crate::dsse::Envelope;
use crate::key::{KeyId, VerifyingKey};
use crate::key_statement::{self, KeyStatement};
use crate::revocation::{self, Revocation};
use crate::root_statement::{self, RootStatement};
use jiff::Timestamp;
use std::collections::BTreeMap;

/// Why a statement is not believed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No believed root has this id.
    #[error("no trusted root `{0}` is known to have signed it")]
    UnknownRoot(String),
    /// The root statement does not hold.
    #[error(transparent)]
    Root(#[from] root_statement::Error),
    /// The key statement does not hold.
    #[error(transparent)]
    Key(#[from] key_statement::Error),
    /// The revocation does not hold.
    #[error(transparent)]
    Revocation(#[from] revocation::Error),
    /// The root had been succeeded.
    #[error("root {root} was succeeded at {end}, but states something of {time}")]
    Succeeded {
        /// The root.
        root: KeyId,
        /// When its successor took over.
        end: Timestamp,
        /// The time in the statement.
        time: Timestamp,
    },
}

/// A believed root.
#[derive(Clone, Debug)]
struct Root {
    key: VerifyingKey,
    /// What it states of later times does not count.
    until: Option<Timestamp>,
}

/// Believed roots.
#[derive(Clone, Debug)]
pub struct Roots(BTreeMap<KeyId, Root>);

impl Roots {
    /// The roots to which `statements` lead from `anchor`, in whatever order they stand. A statement that no believed
    /// root signed is an error: it was tampered with, or belongs to other roots.
    pub fn follow(anchor: &VerifyingKey, statements: &[Envelope]) -> Result<Self, Error> {
        let root = Root {
            key: anchor.clone(),
            until: None,
        };
        let mut roots = Self(BTreeMap::from([(anchor.key_id().clone(), root)]));
        let mut left: Vec<_> = statements.iter().collect();
        while !left.is_empty() {
            let before = left.len();
            let mut later = Vec::new();
            for envelope in left {
                match roots.signer(envelope) {
                    Ok(signer) => {
                        let statement = RootStatement::verify(envelope, &signer.key)?;
                        roots.believe(statement)?;
                    }
                    Err(_) => later.push(envelope),
                }
            }
            if later.len() == before {
                return Err(Error::UnknownRoot(later[0].key_id().to_owned()));
            }
            left = later;
        }
        Ok(roots)
    }

    /// The believed roots.
    pub fn ids(&self) -> impl Iterator<Item = &KeyId> {
        self.0.keys()
    }

    /// Whether the root `id` is believed.
    pub fn contains(&self, id: &KeyId) -> bool {
        self.0.contains_key(id)
    }

    /// Believes a key statement that a believed root made while it was one.
    pub fn key_statement(&self, envelope: &Envelope) -> Result<KeyStatement, Error> {
        let root = self.signer(envelope)?;
        let statement = KeyStatement::verify(envelope, &root.key)?;
        root.at(statement.not_before)?;
        Ok(statement)
    }

    /// Believes a revocation that a believed root made while it was one.
    pub fn revocation(&self, envelope: &Envelope) -> Result<Revocation, Error> {
        let root = self.signer(envelope)?;
        let revocation = Revocation::verify(envelope, &root.key)?;
        root.at(revocation.revoked_at)?;
        Ok(revocation)
    }

    /// The believed root that an envelope names; whether it signed is still to be verified.
    fn signer(&self, envelope: &Envelope) -> Result<&Root, Error> {
        let id: Option<KeyId> = envelope.key_id().parse().ok();
        id.and_then(|id| self.0.get(&id))
            .ok_or_else(|| Error::UnknownRoot(envelope.key_id().to_owned()))
    }

    /// The earliest end that anybody states of a root counts.
    fn believe(&mut self, statement: RootStatement) -> Result<(), Error> {
        let key = statement.verifying_key()?;
        let known = self
            .0
            .entry(statement.key_id)
            .or_insert(Root { key, until: None });
        known.until = match (known.until, statement.not_after) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        Ok(())
    }
}

impl Root {
    fn at(&self, time: Timestamp) -> Result<(), Error> {
        match self.until {
            Some(end) if time > end => Err(Error::Succeeded {
                root: self.key.key_id().clone(),
                end,
                time,
            }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::SigningKey;
    use crate::key_statement::KeyPurpose;
    use crate::suite::Suite;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(Suite::MlDsa87, &[seed; 32]).unwrap()
    }

    fn at(hour: u8) -> Timestamp {
        format!("2026-01-01T{hour:02}:00:00Z").parse().unwrap()
    }

    fn statement(root: &SigningKey, hour: u8) -> Envelope {
        KeyStatement::about(
            key(9).verifying_key(),
            KeyPurpose::Signing,
            at(hour),
            None,
            None,
            1,
        )
        .sign(root)
        .unwrap()
    }

    #[test]
    fn trust_passes_forwards_and_back_across_roll_overs_in_any_order() {
        let (one, two, three) = (key(1), key(2), key(3));
        let [a, b] = RootStatement::roll_over(&one, &two, at(5)).unwrap();
        let [c, d] = RootStatement::roll_over(&two, &three, at(10)).unwrap();
        for anchor in [&one, &two, &three] {
            let roots = Roots::follow(
                anchor.verifying_key(),
                &[d.clone(), b.clone(), c.clone(), a.clone()],
            )
            .unwrap();
            roots.key_statement(&statement(&one, 4)).unwrap();
            roots.key_statement(&statement(&two, 9)).unwrap();
            roots.key_statement(&statement(&three, 20)).unwrap();
            for (root, hour) in [(&one, 6), (&two, 11)] {
                let late = roots.key_statement(&statement(root, hour));
                assert!(matches!(late, Err(Error::Succeeded { .. })), "{hour}");
            }
            assert!(matches!(
                roots.key_statement(&statement(&key(4), 1)),
                Err(Error::UnknownRoot(_))
            ));
        }
    }

    #[test]
    fn a_statement_of_a_stranger_or_under_a_false_name_spoils_all() {
        let (one, two, stranger) = (key(1), key(2), key(8));
        let [forward, _] = RootStatement::roll_over(&stranger, &two, at(5)).unwrap();
        assert!(Roots::follow(one.verifying_key(), &[forward]).is_err());
        let forged = RootStatement::about(two.verifying_key(), at(5), None)
            .sign(&stranger)
            .unwrap();
        let renamed = forged.to_json().replace(
            stranger.verifying_key().key_id().as_str(),
            one.verifying_key().key_id().as_str(),
        );
        let renamed = Envelope::from_json(renamed.as_bytes()).unwrap();
        assert!(Roots::follow(one.verifying_key(), &[renamed]).is_err());
        let roots = Roots::follow(one.verifying_key(), &[]).unwrap();
        assert!(!roots.contains(two.verifying_key().key_id()));
    }
}
