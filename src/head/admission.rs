//! Whether a head runs what it is asked to: every check of a grant, none of them taken on trust from the transport.

use crate::signer::Signer;
use crate::tls::chain;
use crypto::attestation::Unit;
use crypto::grant::Grant;
use crypto::seal::Blinding;
use crypto::{DigestSet, Envelope, KeyId, KeyStatement};
use head_proto::{RunRequest, SpecificationFile};
use jiff::{SignedDuration, Timestamp};
use maml::Severity;
use sandbox::job::Job;
use std::collections::BTreeSet;
use std::time::Duration;
use tonic::{Code, Status};

/// Clocks of controller and node may differ by this much.
const LEEWAY: SignedDuration = SignedDuration::from_secs(5);
const LONGEST_RUN_ID: usize = 64;

/// Why a run is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// Envelopes or payloads cannot be read.
    #[error("the {0} cannot be read")]
    Unreadable(&'static str, #[source] crypto::dsse::Error),
    /// The root does not vouch for the key.
    #[error("the key statement is not believed")]
    KeyStatement(#[source] crypto::roots::Error),
    /// The key is for something else, or not valid now.
    #[error("the key that signed the grant is no signing key that is valid now")]
    Key,
    /// The key did not sign the grant.
    #[error("the grant is not believed")]
    Grant(#[source] crypto::grant::Error),
    /// The grant is for another pod, or another start of this one's agent.
    #[error("the grant is for another head: {0}")]
    OtherHead(&'static str),
    /// A pod of its own was granted and this is none, or this one is for another run.
    #[error("the grant asks for isolation {0}, which this pod does not give to that run")]
    Isolation(&'static str),
    /// A controller that has been replaced.
    #[error("the grant's fencing token {found} is older than {seen}: its controller leads no more")]
    Fenced {
        /// In the grant.
        found: u64,
        /// The highest seen by this head.
        seen: u64,
    },
    /// Too early or too late.
    #[error("the grant is valid from {0} to {1}, and it is {2}")]
    NotNow(Timestamp, Timestamp, Timestamp),
    /// Heads of this kind have no network to give.
    #[error("the grant asks for a network, and this head offers none")]
    Network,
    /// What is sent is not what was granted.
    #[error("the {0} is not the one that was granted")]
    Digest(&'static str),
    /// A run id that could not be one.
    #[error("the run id is malformed")]
    RunId,
    /// The document has errors; the controller ought to have refused it.
    #[error("the document is not valid: {0}")]
    Document(String),
    /// Inputs are not one JSON object.
    #[error("the inputs are not one JSON object")]
    Inputs,
}

impl Refusal {
    /// As a gRPC status.
    pub fn status(&self) -> Status {
        let code = match self {
            Self::KeyStatement(_) | Self::Key | Self::Grant(_) | Self::Network => Code::PermissionDenied,
            Self::OtherHead(_) | Self::Isolation(_) | Self::Fenced { .. } | Self::NotNow(..) => {
                Code::FailedPrecondition
            }
            Self::Unreadable(..) | Self::Digest(_) | Self::RunId | Self::Document(_) | Self::Inputs => {
                Code::InvalidArgument
            }
        };
        Status::new(code, chain(self))
    }
}

/// Who this head is, as a grant must name it.
#[derive(Clone, Debug)]
pub struct Head {
    /// UID of the pod.
    pub uid: String,
    /// Id of the agent's attestation key.
    pub attester: KeyId,
    /// The one run that it is there for, if it is for one.
    pub only_run: Option<String>,
}

/// A grant that is genuine and for this head. Whether it may begin now is asked by [`Admitted::begin`].
#[derive(Debug)]
pub struct Admitted {
    /// What is granted.
    pub grant: Grant,
    /// Digests of the payload of the grant's envelope.
    pub digest: DigestSet,
}

/// Checks everything that holds however late the request comes: a run that is known already may be rejoined with it.
pub fn admit(request: &RunRequest, signer: &Signer, head: &Head) -> Result<Admitted, Refusal> {
    let envelope = Envelope::from_json(&request.grant).map_err(|e| Refusal::Unreadable("grant", e))?;
    let grant = Grant::verify(&envelope, &signer.key).map_err(Refusal::Grant)?;
    if !valid_around(&signer.statement, grant.not_before) {
        return Err(Refusal::Key);
    }
    if grant.head.uid != head.uid {
        return Err(Refusal::OtherHead("the pod's UID differs"));
    }
    if grant.head.attester != head.attester {
        return Err(Refusal::OtherHead(
            "the attestation key differs: the agent was started again",
        ));
    }
    if DigestSet::of(&request.document) != grant.document {
        return Err(Refusal::Digest("document"));
    }
    if !inputs_granted(request, &grant) {
        return Err(Refusal::Digest("inputs"));
    }
    if !specifications_granted(request, &grant) {
        return Err(Refusal::Digest("set of specifications"));
    }
    // A run that is to have a pod to itself gets that, and such a pod takes no other.
    let alone = (grant.isolation == Unit::Pod).then_some(&grant.run_id);
    if head.only_run.as_ref() != alone {
        return Err(Refusal::Isolation(grant.isolation.name()));
    }
    let id = &grant.run_id;
    if id.is_empty() || id.len() > LONGEST_RUN_ID || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Refusal::RunId);
    }
    Ok(Admitted {
        digest: DigestSet::of(envelope.payload()),
        grant,
    })
}

/// Sealed inputs are granted by a digest that covers their blinding too.
fn inputs_granted(request: &RunRequest, grant: &Grant) -> bool {
    let (inputs, blinding) = (&request.inputs, &request.inputs_blinding);
    if grant.sealed_inputs.is_none() {
        return blinding.is_empty() && grant.inputs.matches(inputs);
    }
    Blinding::from_slice(blinding).is_some_and(|blinding| blinding.digest(inputs) == grant.inputs)
}

/// Each of those that are granted, once, and no other.
fn specifications_granted(request: &RunRequest, grant: &Grant) -> bool {
    let files = &request.specifications;
    let names: BTreeSet<_> = files.iter().map(|file| &file.name).collect();
    let granted = |file: &SpecificationFile| {
        let digest = grant.specifications.get(&file.name);
        digest.is_some_and(|digest| digest.matches(&file.content))
    };
    names.len() == files.len() && files.len() == grant.specifications.len() && files.iter().all(granted)
}

/// Clocks may differ, for keys as for grants.
fn valid_around(statement: &KeyStatement, time: Timestamp) -> bool {
    [SignedDuration::ZERO, LEEWAY, -LEEWAY].iter().any(|shift| {
        time.checked_add(*shift)
            .is_ok_and(|time| statement.valid_at(time))
    })
}

impl Admitted {
    /// Checks what must hold when a run begins.
    pub fn begin(&self, now: Timestamp, seen_token: u64) -> Result<(), Refusal> {
        let grant = &self.grant;
        if grant.fencing_token < seen_token {
            return Err(Refusal::Fenced {
                found: grant.fencing_token,
                seen: seen_token,
            });
        }
        if now
            < grant
                .not_before
                .saturating_sub(LEEWAY)
                .unwrap_or(grant.not_before)
            || now > grant.expires.saturating_add(LEEWAY).unwrap_or(grant.expires)
        {
            return Err(Refusal::NotNow(grant.not_before, grant.expires, now));
        }
        if grant.network {
            return Err(Refusal::Network);
        }
        Ok(())
    }
}

/// What is to be run, as the sandbox takes it.
pub fn job(request: &RunRequest, grant: &Grant) -> Result<Job, Refusal> {
    let source = std::str::from_utf8(&request.document)
        .map_err(|error| Refusal::Document(format!("not UTF-8: {error}")))?;
    let document = maml::read(source).accept().map_err(|diagnostics| {
        let first = diagnostics.iter().find(|one| one.severity == Severity::Error);
        Refusal::Document(first.map_or_else(String::new, |first| {
            format!(
                "line {}, column {}: {}",
                first.start.line, first.start.column, first.message
            )
        }))
    })?;
    let inputs = std::str::from_utf8(&request.inputs).map_err(|_| Refusal::Inputs)?;
    let time_limit = Duration::from_secs(u64::from(grant.timeout_seconds.max(1)));
    let mut job =
        Job::of(&document, inputs, time_limit).map_err(|sandbox::job::Error::Inputs(_)| Refusal::Inputs)?;
    for file in &request.specifications {
        let code = std::str::from_utf8(&file.content)
            .map_err(|error| Refusal::Document(format!("specification {}: not UTF-8: {error}", file.name)))?;
        job.add_specification(&file.name, code);
    }
    Ok(job)
}
