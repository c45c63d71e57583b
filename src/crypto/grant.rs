//! Grants: what a head is asked to do, signed before the run. The first of a run's two records.

use crate::attestation::Unit;
use crate::digest::DigestSet;
use crate::dsse::{self, Envelope};
use crate::json;
use crate::key::{self, KeyId, SigningKey, VerifyingKey};
use crate::suite::Suite;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The payload type of a grant's envelope.
pub const PAYLOAD_TYPE: &str = "application/vnd.chimera.grant+json";
/// The `_type` of a grant.
pub const TYPE: &str = "https://chimera.dunes.io/grant/v1";

/// Why a grant could not be made or believed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The envelope could not be signed, or this key did not sign it.
    #[error("a grant must be signed by a signing key")]
    Envelope(#[from] dsse::Error),
    /// The signed bytes are no grant.
    #[error("the signed bytes are no grant")]
    Format(#[source] serde_json::Error),
    /// A `_type` of another version.
    #[error("a grant's _type must be `{TYPE}`, found `{0}`")]
    Type(String),
    /// The suite named inside is not that of the key.
    #[error("the grant names suite {named}, its key is of {actual}")]
    Suite {
        /// The suite in the grant.
        named: Suite,
        /// The suite of the key that signed it.
        actual: Suite,
    },
    /// The head's public key cannot be read, or is not the one that the grant names.
    #[error("the grant's attester key is not the key that it names")]
    Attester(#[source] Option<key::Error>),
}

/// The workflow that a run belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkflowRef {
    /// Namespace of the MamlWorkflow.
    pub namespace: String,
    /// Name of the MamlWorkflow.
    pub name: String,
    /// UID of the MamlWorkflow.
    pub uid: String,
    /// Generation that runs.
    pub generation: i64,
    /// Attempt within the generation, counted from 1; 0 when nothing was run.
    pub attempt: u32,
}

/// The head that is to run the document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeadIdentity {
    /// Name of the ChimeraHead.
    pub name: String,
    /// Name of its pod.
    pub pod: String,
    /// UID of the pod.
    pub uid: String,
    /// Node that the pod runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Id of the key that the head's agent signs attestations with.
    pub attester: KeyId,
    /// That key: SubjectPublicKeyInfo, PEM.
    pub attester_public_key: String,
}

impl HeadIdentity {
    /// The key that attestations must be signed with.
    pub fn attester_key(&self) -> Result<VerifyingKey, Error> {
        let key =
            VerifyingKey::from_spki_pem(&self.attester_public_key).map_err(|e| Error::Attester(Some(e)))?;
        if *key.key_id() == self.attester {
            Ok(key)
        } else {
            Err(Error::Attester(None))
        }
    }
}

/// One run, as it was intended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Grant {
    /// Always [`TYPE`].
    #[serde(rename = "_type")]
    pub type_: String,
    /// The suite that the grant is signed with.
    pub suite: Suite,
    /// The run's id.
    pub run_id: String,
    /// What is run.
    pub workflow: WorkflowRef,
    /// Digests of the document's bytes.
    pub document: DigestSet,
    /// Digests of the inputs' bytes (one JSON object); with `sealed_inputs`, of their blinding and, behind it, the
    /// inputs' bytes: see [`crate::seal::Blinding`].
    pub inputs: DigestSet,
    /// Digests of the sealed text that some of the inputs came in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_inputs: Option<DigestSet>,
    /// Digests of the specifications that lie beside the document, by the names of their files.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub specifications: BTreeMap<String, DigestSet>,
    /// Who submitted the workflow, as the API server knows him.
    pub submitter: String,
    /// The agent (`agent://name`) that the submitter acts as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act_as: Option<String>,
    /// Where it may run.
    pub head: HeadIdentity,
    /// What the run must have to itself.
    #[serde(default, skip_serializing_if = "Unit::is_process")]
    pub isolation: Unit,
    /// Not to be started before.
    pub not_before: Timestamp,
    /// Not to be started after.
    pub expires: Timestamp,
    /// How long the run may take.
    pub timeout_seconds: u32,
    /// Whether the run may use the network.
    pub network: bool,
    /// The fencing token of the controller that grants: a head refuses one lower than it has seen.
    pub fencing_token: u64,
}

impl Grant {
    /// Signs the grant. Its `suite` must be the key's.
    pub fn sign(&self, key: &SigningKey) -> Result<Envelope, Error> {
        self.check_suite(key.suite())?;
        let payload = serde_json::to_vec(self).map_err(Error::Format)?;
        Ok(Envelope::sign(PAYLOAD_TYPE, &payload, key)?)
    }

    /// Believes `envelope` if `key` signed it. Whether times, head and token fit is for the head to decide.
    pub fn verify(envelope: &Envelope, key: &VerifyingKey) -> Result<Self, Error> {
        Self::verify_for_attester(envelope, key).map(|(grant, _)| grant)
    }

    /// As [`Grant::verify`]; beside the grant comes the key that must attest it.
    pub(crate) fn verify_for_attester(
        envelope: &Envelope,
        key: &VerifyingKey,
    ) -> Result<(Self, VerifyingKey), Error> {
        let grant: Self = json::from_slice(envelope.open(PAYLOAD_TYPE, key)?).map_err(Error::Format)?;
        if grant.type_ != TYPE {
            return Err(Error::Type(grant.type_));
        }
        grant.check_suite(key.suite())?;
        let attester = grant.head.attester_key()?;
        Ok((grant, attester))
    }

    fn check_suite(&self, actual: Suite) -> Result<(), Error> {
        if self.suite == actual {
            Ok(())
        } else {
            Err(Error::Suite {
                named: self.suite,
                actual,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(Suite::MlDsa87, &[seed; 32]).unwrap()
    }

    #[test]
    fn a_grant_is_believed_under_its_key_and_type_only() {
        let (signing, attester) = (key(2), key(4));
        let grant = sample::grant(attester.verifying_key());
        let envelope = grant.sign(&signing).unwrap();
        assert_eq!(Grant::verify(&envelope, signing.verifying_key()).unwrap(), grant);
        assert!(Grant::verify(&envelope, attester.verifying_key()).is_err());
        let disguised = Envelope::sign("application/json", envelope.payload(), &signing).unwrap();
        assert!(Grant::verify(&disguised, signing.verifying_key()).is_err());
    }

    #[test]
    fn a_grant_whose_attester_is_another_key_is_refused() {
        let signing = key(2);
        let mut grant = sample::grant(key(4).verifying_key());
        grant.head.attester = key(5).verifying_key().key_id().clone();
        let envelope = grant.sign(&signing).unwrap();
        assert!(matches!(
            Grant::verify(&envelope, signing.verifying_key()),
            Err(Error::Attester(None))
        ));
    }

    #[test]
    fn a_restriction_that_this_version_does_not_know_is_refused() {
        let signing = key(2);
        let text = serde_json::to_string(&sample::grant(key(4).verifying_key())).unwrap();
        let text = text.replace("\"network\":false", "\"network\":false,\"maxMemory\":1");
        let envelope = Envelope::sign(PAYLOAD_TYPE, text.as_bytes(), &signing).unwrap();
        assert!(matches!(
            Grant::verify(&envelope, signing.verifying_key()),
            Err(Error::Format(_))
        ));
    }
}
