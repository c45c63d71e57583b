//! What an offline root is asked to state, and its answers: two files that travel between the cluster and the machine that
//! holds the root. Requests are not signed: whoever answers them reads them first.

use crate::dsse::Envelope;
use crate::json;
use crate::key::{KeyId, SigningKey};
use crate::key_statement::{self, KeyStatement};
use crate::revocation::{self, Revocation};
use serde::{Deserialize, Serialize};

/// The `_type` of requests.
pub const REQUESTS_TYPE: &str = "https://chimera.dunes.io/root-requests/v1";
/// The `_type` of answers.
pub const ANSWERS_TYPE: &str = "https://chimera.dunes.io/root-answers/v1";

/// Why requests could not be read or answered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not JSON of this shape.
    #[error("not {0} of an offline root")]
    Format(&'static str, #[source] serde_json::Error),
    /// A `_type` of another version.
    #[error("the _type must be `{expected}`, found `{found}`")]
    Type {
        /// The one that this version reads.
        expected: &'static str,
        /// The one in the file.
        found: String,
    },
    /// The requests are for another root.
    #[error("the requests are for root {asked}, this is root {given}")]
    OtherRoot {
        /// The root that is asked.
        asked: KeyId,
        /// The root that is to answer.
        given: KeyId,
    },
    /// A statement names a key that is not the one in it.
    #[error("request {index} is not about the key that it names")]
    Key {
        /// Its place, counted from 0.
        index: usize,
        /// What is wrong.
        source: key_statement::Error,
    },
    /// A statement could not be signed.
    #[error(transparent)]
    Statement(#[from] key_statement::Error),
    /// A revocation could not be signed.
    #[error(transparent)]
    Revocation(#[from] revocation::Error),
}

/// What the root is asked to state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Requests {
    /// Always [`REQUESTS_TYPE`].
    #[serde(rename = "_type")]
    pub type_: String,
    /// The root that is asked.
    pub root: KeyId,
    /// Statements about keys.
    pub statements: Vec<KeyStatement>,
    /// Revocations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revocations: Vec<Revocation>,
}

impl Requests {
    /// Requests for `root`.
    pub fn of(root: KeyId, statements: Vec<KeyStatement>, revocations: Vec<Revocation>) -> Self {
        Self {
            type_: REQUESTS_TYPE.to_owned(),
            root,
            statements,
            revocations,
        }
    }

    /// Reads requests strictly.
    pub fn from_json(bytes: &[u8]) -> Result<Self, Error> {
        let requests: Self = json::from_slice(bytes).map_err(|e| Error::Format("requests", e))?;
        check_type(&requests.type_, REQUESTS_TYPE)?;
        Ok(requests)
    }

    /// The keys that the requests are about.
    pub fn keys(&self) -> impl Iterator<Item = &KeyId> {
        let statements = self.statements.iter().map(|one| &one.key_id);
        statements.chain(self.revocations.iter().map(|one| &one.key_id))
    }

    /// Signs everything that is asked.
    pub fn answer(&self, root: &SigningKey) -> Result<Answers, Error> {
        let given = root.verifying_key().key_id();
        if self.root != *given {
            return Err(Error::OtherRoot {
                asked: self.root.clone(),
                given: given.clone(),
            });
        }
        let mut answers = Answers::default();
        for (index, statement) in self.statements.iter().enumerate() {
            statement.check().map_err(|source| Error::Key { index, source })?;
            answers.statements.push(statement.sign(root)?);
        }
        for revocation in &self.revocations {
            answers.revocations.push(revocation.sign(root)?);
        }
        Ok(answers)
    }
}

/// What the root states.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Answers {
    /// Always [`ANSWERS_TYPE`].
    #[serde(rename = "_type")]
    pub type_: String,
    /// Envelopes of key statements.
    #[serde(default)]
    pub statements: Vec<Envelope>,
    /// Envelopes of revocations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub revocations: Vec<Envelope>,
    /// Envelopes of statements of this root and its successor about one another.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roots: Vec<Envelope>,
}

impl Default for Answers {
    fn default() -> Self {
        Self {
            type_: ANSWERS_TYPE.to_owned(),
            statements: Vec::new(),
            revocations: Vec::new(),
            roots: Vec::new(),
        }
    }
}

impl Answers {
    /// Reads answers strictly; nothing in them is believed before its signature was verified.
    pub fn from_json(bytes: &[u8]) -> Result<Self, Error> {
        let answers: Self = json::from_slice(bytes).map_err(|e| Error::Format("answers", e))?;
        check_type(&answers.type_, ANSWERS_TYPE)?;
        Ok(answers)
    }

    /// The same with what another file answers.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        for (mine, theirs) in [
            (&mut self.statements, other.statements),
            (&mut self.revocations, other.revocations),
            (&mut self.roots, other.roots),
        ] {
            for envelope in theirs {
                if !mine.contains(&envelope) {
                    mine.push(envelope);
                }
            }
        }
        self
    }
}

fn check_type(found: &str, expected: &'static str) -> Result<(), Error> {
    if found == expected {
        Ok(())
    } else {
        Err(Error::Type {
            expected,
            found: found.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key_statement::KeyPurpose;
    use crate::revocation::RevocationReason;
    use crate::roots::Roots;
    use crate::suite::Suite;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(Suite::MlDsa87, &[seed; 32]).unwrap()
    }

    fn requests() -> Requests {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let statement = KeyStatement::about(key(2).verifying_key(), KeyPurpose::Signing, now, None, None, 1);
        let revocation = Revocation::of(
            key(3).verifying_key().key_id().clone(),
            RevocationReason::Superseded,
            None,
            now,
        );
        let root = key(1).verifying_key().key_id().clone();
        Requests::of(root, vec![statement], vec![revocation])
    }

    #[test]
    fn the_root_states_what_it_is_asked_and_another_root_does_not() {
        let json = serde_json::to_vec(&requests()).unwrap();
        let read = Requests::from_json(&json).unwrap();
        assert_eq!(read, requests());
        let answers = read.answer(&key(1)).unwrap();
        let answers = Answers::from_json(&serde_json::to_vec(&answers).unwrap()).unwrap();
        let roots = Roots::follow(key(1).verifying_key(), &[]).unwrap();
        assert_eq!(
            roots.key_statement(&answers.statements[0]).unwrap(),
            read.statements[0]
        );
        assert_eq!(
            roots.revocation(&answers.revocations[0]).unwrap(),
            read.revocations[0]
        );
        assert!(matches!(read.answer(&key(9)), Err(Error::OtherRoot { .. })));
        assert_eq!(answers.clone().and(answers.clone()), answers);
    }

    #[test]
    fn a_request_that_names_one_key_and_holds_another_is_not_answered() {
        let mut lying = requests();
        lying.statements[0].key_id = key(5).verifying_key().key_id().clone();
        assert!(matches!(lying.answer(&key(1)), Err(Error::Key { index: 0, .. })));
        let text = serde_json::to_string(&requests()).unwrap();
        for bad in [
            text.replace("requests/v1", "requests/v2"),
            text.replace("\"root\"", "\"more\":1,\"root\""),
        ] {
            assert!(Requests::from_json(bad.as_bytes()).is_err());
        }
    }
}
