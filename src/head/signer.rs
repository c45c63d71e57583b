//! Who signs grants: the key that the pinned root, or one that has succeeded it, vouches for.
//!
//! Every run shows the same statements until a key is rotated, so what they proved is kept for as long as they are the same, byte
//! for byte, under the same root. Whether the key is valid at the time of a grant is not decided here.

use crate::admission::Refusal;
use crypto::roots::Roots;
use crypto::{Envelope, KeyId, KeyPurpose, KeyStatement, PublicKey, VerifyingKey};
use head_proto::RunRequest;
use std::sync::{Arc, Mutex, PoisonError};

/// A key that may sign grants, and what is stated of it.
#[derive(Debug)]
pub struct Signer {
    /// What the root states.
    pub statement: KeyStatement,
    /// The key.
    pub key: VerifyingKey,
}

/// The latest signer that was believed.
#[derive(Debug, Default)]
pub struct Signers(Mutex<Option<Believed>>);

#[derive(Debug)]
struct Believed {
    root: KeyId,
    root_statements: Vec<Vec<u8>>,
    key_statement: Vec<u8>,
    signer: Arc<Signer>,
}

impl Signers {
    /// The signer of `request`'s grant, if `root` vouches for it.
    pub fn believe(&self, request: &RunRequest, root: &VerifyingKey) -> Result<Arc<Signer>, Refusal> {
        if let Some(signer) = self.known(request, root) {
            return Ok(signer);
        }
        let signer = Arc::new(verify(request, root)?);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Believed {
            root: root.key_id().clone(),
            root_statements: request.root_statements.clone(),
            key_statement: request.key_statement.clone(),
            signer: signer.clone(),
        });
        Ok(signer)
    }

    fn known(&self, request: &RunRequest, root: &VerifyingKey) -> Option<Arc<Signer>> {
        let believed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let believed = believed.as_ref()?;
        let same = believed.root == *root.key_id()
            && believed.key_statement == request.key_statement
            && believed.root_statements == request.root_statements;
        same.then(|| believed.signer.clone())
    }
}

fn verify(request: &RunRequest, root: &VerifyingKey) -> Result<Signer, Refusal> {
    let envelope =
        Envelope::from_json(&request.key_statement).map_err(|e| Refusal::Unreadable("key statement", e))?;
    let statement = believed_roots(request, root)?
        .key_statement(&envelope)
        .map_err(Refusal::KeyStatement)?;
    if statement.purpose != KeyPurpose::Signing {
        return Err(Refusal::Key);
    }
    let Ok(PublicKey::Verifying(key)) = statement.public_key() else {
        return Err(Refusal::Key);
    };
    Ok(Signer { statement, key })
}

/// The pinned root, and those that have succeeded it since this head began.
fn believed_roots(request: &RunRequest, pinned: &VerifyingKey) -> Result<Roots, Refusal> {
    let statements = request
        .root_statements
        .iter()
        .map(|json| Envelope::from_json(json).map_err(|e| Refusal::Unreadable("root statement", e)))
        .collect::<Result<Vec<_>, _>>()?;
    Roots::follow(pinned, &statements).map_err(Refusal::KeyStatement)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crypto::{SigningKey, Suite};
    use jiff::Timestamp;

    fn key() -> SigningKey {
        SigningKey::generate(Suite::MlDsa87).unwrap()
    }

    fn request(root: &SigningKey, signing: &SigningKey) -> RunRequest {
        let key = signing.verifying_key();
        let now = Timestamp::now();
        let statement = KeyStatement::about(key, KeyPurpose::Signing, now, None, None, 1);
        RunRequest {
            key_statement: statement.sign(root).unwrap().to_json().into_bytes(),
            ..RunRequest::default()
        }
    }

    #[test]
    fn a_signer_that_was_believed_is_believed_for_the_same_statements_and_root_alone() {
        let (root, other_root, first, second) = (key(), key(), key(), key());
        let signers = Signers::default();
        let asked = request(&root, &first);
        let believed = signers.believe(&asked, root.verifying_key()).unwrap();
        let again = signers.believe(&asked, root.verifying_key()).unwrap();
        assert!(Arc::ptr_eq(&believed, &again));

        assert!(signers.believe(&asked, other_root.verifying_key()).is_err());
        let mut changed = asked.clone();
        let place = changed.key_statement.len() / 2;
        changed.key_statement[place] ^= 1;
        assert!(signers.believe(&changed, root.verifying_key()).is_err());
        let mut more = asked.clone();
        more.root_statements.push(b"{}".to_vec());
        assert!(signers.believe(&more, root.verifying_key()).is_err());

        let rotated = signers
            .believe(&request(&root, &second), root.verifying_key())
            .unwrap();
        assert_eq!(rotated.key.key_id(), second.verifying_key().key_id());
        let back = signers.believe(&asked, root.verifying_key()).unwrap();
        assert_eq!(back.key.key_id(), first.verifying_key().key_id());
    }
}
