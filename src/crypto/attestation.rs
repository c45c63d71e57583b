//! Attestations: what happened in a run, signed by the head that ran it. The second of a run's two records.

use crate::digest::DigestSet;
use crate::dsse::{self, Envelope};
use crate::json;
use crate::key::{SigningKey, VerifyingKey};
use crate::suite::Suite;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The payload type of an attestation's envelope.
pub const PAYLOAD_TYPE: &str = "application/vnd.chimera.attestation+json";
/// The `_type` of an attestation.
pub const TYPE: &str = "https://chimera.dunes.io/attestation/v1";

/// Why an attestation could not be made or believed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The envelope could not be signed, or this key did not sign it.
    #[error("an attestation must be signed by the head that its grant names")]
    Envelope(#[from] dsse::Error),
    /// The signed bytes are no attestation.
    #[error("the signed bytes are no attestation")]
    Format(#[source] serde_json::Error),
    /// A `_type` of another version.
    #[error("an attestation's _type must be `{TYPE}`, found `{0}`")]
    Type(String),
    /// The suite named inside is not that of the key.
    #[error("the attestation names suite {named}, its key is of {actual}")]
    Suite {
        /// The suite in the attestation.
        named: Suite,
        /// The suite of the key that signed it.
        actual: Suite,
    },
    /// Outputs without success, success without outputs, or an error without a cause.
    #[error("result, error and outputs of the attestation contradict one another")]
    Contradiction,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// Every block ran, and the outputs were harvested.
    Success,
    /// Something went wrong; a [`RunError`] says what.
    Error,
}

impl Outcome {
    /// The name as it stands in signed payloads.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Success => "Success",
            Self::Error => "Error",
        }
    }
}

/// Why a run, or a document before its run, failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RunError {
    /// One word in CamelCase, as in the workflow's conditions.
    pub reason: String,
    /// A sentence for a person.
    pub message: String,
    /// Line of the document, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<u32>,
    /// Column in that line, in characters from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<u32>,
    /// Code of the diagnostic, for example `MAML012`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// What came out of one of a run's output streams.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StreamDigest {
    /// Bytes written by the run.
    pub bytes: u64,
    /// Whether only the first part was kept.
    pub truncated: bool,
    /// Digests of what was kept.
    pub digest: DigestSet,
}

/// How one code block went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BlockResult {
    /// The block's name.
    pub name: String,
    /// Its language.
    pub language: String,
    /// How it ended.
    pub state: BlockState,
    /// How long it took, in milliseconds.
    pub duration_millis: u64,
    /// What went wrong, for a person; empty on success.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub diagnostics: String,
}

/// How a code block ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BlockState {
    /// It ran to its end.
    Succeeded,
    /// It raised an error, or was stopped.
    Failed,
    /// It was not run, because an earlier block failed.
    Skipped,
}

/// What ran the document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Environment {
    /// The interpreter and its version, for example `CPython 3.13.5`.
    pub interpreter: String,
    /// SHA-256 (hexadecimal) over the sorted lines `name==version\n` of the installed packages.
    pub packages_digest: String,
    /// The head's image, for example `sha256:…`, when it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_digest: Option<String>,
    /// Languages of code blocks that the head runs.
    pub languages: Vec<String>,
}

/// What a run has to itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Unit {
    /// A sandbox, on a pod that may hold other runs. Payloads say nothing of it.
    #[default]
    Process,
    /// A pod that takes no other run, before or after.
    Pod,
}

impl Unit {
    /// The name as it stands in signed payloads.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Process => "Process",
            Self::Pod => "Pod",
        }
    }

    /// Whether payloads leave it out.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    pub(crate) fn is_process(&self) -> bool {
        *self == Self::Process
    }
}

/// What the run was confined by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Isolation {
    /// What the run had to itself.
    #[serde(default, skip_serializing_if = "Unit::is_process")]
    pub unit: Unit,
    /// Landlock ABI in force; 0 when there was none.
    pub landlock_abi: u32,
    /// Whether a seccomp filter was in force.
    pub seccomp: bool,
    /// Whether the run could open sockets.
    pub network: bool,
    /// Resource limits by name (`as`, `cpu`, `nofile`, …), in the units of setrlimit(2).
    pub rlimits: BTreeMap<String, u64>,
}

/// What GPU time is taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GpuSecondsFrom {
    /// How busy the driver said that the devices were, shared out among the runs that were under way.
    Utilization,
}

impl Isolation {
    /// In a few words, for a person.
    pub fn describe(&self) -> String {
        let landlock = match self.landlock_abi {
            0 => "no landlock".to_owned(),
            abi => format!("landlock {abi}"),
        };
        let seccomp = if self.seccomp { "seccomp" } else { "no seccomp" };
        let network = if self.network { "network" } else { "no network" };
        let unit = self.unit.name();
        format!("isolation {unit}: {landlock}, {seccomp}, {network}")
    }
}

/// One run, as it happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Attestation {
    /// Always [`TYPE`].
    #[serde(rename = "_type")]
    pub type_: String,
    /// The suite that the attestation is signed with.
    pub suite: Suite,
    /// The run's id.
    pub run_id: String,
    /// Digests of the payload of the grant's envelope that this run answers.
    pub grant: DigestSet,
    /// When the run began.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// How it ended.
    pub result: Outcome,
    /// Why, when it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<RunError>,
    /// Digests of the outputs' bytes (one JSON object), when it succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs: Option<DigestSet>,
    /// Length of the outputs in bytes; 0 when it failed.
    pub output_bytes: u64,
    /// Standard output.
    pub stdout: StreamDigest,
    /// Standard error.
    pub stderr: StreamDigest,
    /// The code blocks in their order.
    pub blocks: Vec<BlockResult>,
    /// GPU time: devices times seconds.
    pub gpu_seconds: f64,
    /// What the GPU time is taken from; without it, it is the time for which the devices were reserved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_seconds_from: Option<GpuSecondsFrom>,
    /// UUIDs of the GPU devices that the run could see.
    pub devices: Vec<String>,
    /// What ran the document.
    pub environment: Environment,
    /// What the run was confined by.
    pub isolation: Isolation,
}

impl Attestation {
    /// Signs the attestation. Its `suite` must be the key's, and its result must agree with itself.
    pub fn sign(&self, key: &SigningKey) -> Result<Envelope, Error> {
        self.check(key.suite())?;
        let payload = serde_json::to_vec(self).map_err(Error::Format)?;
        Ok(Envelope::sign(PAYLOAD_TYPE, &payload, key)?)
    }

    /// Believes `envelope` if `attester`, the key named in the grant, signed it. Whether it answers that grant is
    /// decided by [`Attestation::grant`].
    pub fn verify(envelope: &Envelope, attester: &VerifyingKey) -> Result<Self, Error> {
        let attestation = Self::parse(envelope.open(PAYLOAD_TYPE, attester)?)?;
        attestation.check(attester.suite())?;
        Ok(attestation)
    }

    /// Reads the payload without asking who signed it.
    pub(crate) fn parse(payload: &[u8]) -> Result<Self, Error> {
        let attestation: Self = json::from_slice(payload).map_err(Error::Format)?;
        if attestation.type_ == TYPE {
            Ok(attestation)
        } else {
            Err(Error::Type(attestation.type_))
        }
    }

    fn check(&self, actual: Suite) -> Result<(), Error> {
        if self.suite != actual {
            return Err(Error::Suite {
                named: self.suite,
                actual,
            });
        }
        let consistent = match self.result {
            Outcome::Success => self.outputs.is_some() && self.error.is_none(),
            Outcome::Error => self.outputs.is_none() && self.error.is_some(),
        };
        if consistent {
            Ok(())
        } else {
            Err(Error::Contradiction)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn an_attestation_is_believed_under_its_key_only_and_must_agree_with_itself() {
        let key = SigningKey::from_seed(Suite::MlDsa87, &[4; 32]).unwrap();
        let other = SigningKey::from_seed(Suite::MlDsa87, &[5; 32]).unwrap();
        let good = sample::attestation(b"grant", b"{}");
        let envelope = good.sign(&key).unwrap();
        assert_eq!(Attestation::verify(&envelope, key.verifying_key()).unwrap(), good);
        assert!(Attestation::verify(&envelope, other.verifying_key()).is_err());

        let mut bad = good.clone();
        bad.outputs = None;
        assert!(matches!(bad.sign(&key), Err(Error::Contradiction)));
        let mut bad = good.clone();
        bad.result = Outcome::Error;
        assert!(matches!(bad.sign(&key), Err(Error::Contradiction)));
        let envelope = Envelope::sign(PAYLOAD_TYPE, &serde_json::to_vec(&bad).unwrap(), &key).unwrap();
        assert!(matches!(
            Attestation::verify(&envelope, key.verifying_key()),
            Err(Error::Contradiction)
        ));
    }

    #[test]
    fn a_limit_given_twice_is_refused() {
        let text = serde_json::to_string(&sample::attestation(b"grant", b"{}")).unwrap();
        let text = text.replace("\"nofile\":256", "\"nofile\":256,\"nofile\":1");
        assert!(matches!(
            Attestation::parse(text.as_bytes()),
            Err(Error::Format(_))
        ));
    }
}
