//! Receipts: an in-toto Statement v1 with SLSA provenance v1 as its predicate, so that supply-chain tools that know
//! nothing of Chimera read them. Like in-toto's own readers, this one skips fields that it does not know.

use crate::attestation::{Attestation, BlockResult, Outcome, RunError};
use crate::binary_text::{BASE64, Engine as _};
use crate::digest::DigestSet;
use crate::dsse::{self, Envelope};
use crate::grant::WorkflowRef;
use crate::json;
use crate::key::{KeyId, SigningKey};
use crate::suite::Suite;
use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// The payload type of a receipt's envelope.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// The statement's `_type`.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// The statement's `predicateType`.
pub const PREDICATE_TYPE: &str = "https://slsa.dev/provenance/v1";
/// The provenance's `buildType`.
pub const BUILD_TYPE: &str = "https://chimera.dunes.io/maml/v1";
/// Media type of the byproducts that are envelopes.
pub const ENVELOPE_MEDIA_TYPE: &str = "application/vnd.dsse.envelope.v1+json";

/// Name of the subject and of the outputs in messages.
pub const OUTPUTS: &str = "outputs";
/// Name of the subject of a receipt without outputs, and of the dependency.
pub const DOCUMENT: &str = "document";
/// Name of the byproduct that holds the grant.
pub const GRANT: &str = "grant";
/// Name of the byproduct that holds the attestation.
pub const ATTESTATION: &str = "attestation";

/// Why a receipt could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The envelope could not be signed, or is not one of a receipt.
    #[error("a receipt is a signed envelope")]
    Envelope(#[from] dsse::Error),
    /// The signed bytes are no statement of this form.
    #[error("the signed bytes are no receipt")]
    Format(#[source] serde_json::Error),
    /// The payload, statement, predicate or build type is another.
    #[error("a receipt's {field} must be `{expected}`, found `{found}`")]
    Type {
        /// Which type.
        field: &'static str,
        /// What a receipt has there.
        expected: &'static str,
        /// What was found.
        found: String,
    },
    /// The attestation that the receipt is to carry cannot be read.
    #[error("read the attestation for the receipt")]
    Attestation(#[from] crate::attestation::Error),
    /// A receipt of success needs grant, attestation and outputs.
    #[error("a receipt of success needs a grant and an attestation of success")]
    NothingToAttest,
    /// The statement names another key or suite than the one that is to sign it.
    #[error("the receipt names key {named}, but {actual} is to sign it")]
    KeyMismatch {
        /// The key in the statement.
        named: KeyId,
        /// The key given.
        actual: KeyId,
    },
    /// A byproduct's content is not the envelope that it should be.
    #[error("the receipt's {0} is not an envelope, or not the one of its digest")]
    Byproduct(&'static str),
}

/// What a receipt is made from. What the head attested is taken from the attestation itself and from nowhere else.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The suite of the key that will sign.
    pub suite: Suite,
    /// The key that will sign.
    pub key_id: KeyId,
    /// The key that it follows, as the root's statement about it says.
    pub predecessor: Option<KeyId>,
    /// When the receipt is signed.
    pub signed_at: Timestamp,
    /// The fencing token of the controller that signs.
    pub fencing_token: u64,
    /// Who signs.
    pub builder: Builder,
    /// The run's id.
    pub run_id: String,
    /// The workflow that was run.
    pub workflow: WorkflowRef,
    /// Digests of the document's bytes.
    pub document: DigestSet,
    /// Digests of the inputs' bytes, behind their blinding when some of them were sealed.
    pub inputs: DigestSet,
    /// Digests of the sealed text that some of the inputs came in.
    pub sealed_inputs: Option<DigestSet>,
    /// Who submitted the workflow.
    pub submitter: String,
    /// The agent that the submitter acted as.
    pub act_as: Option<String>,
    /// When the run began; the attestation's time wins.
    pub started_at: Timestamp,
    /// When it ended; the attestation's time wins.
    pub finished_at: Timestamp,
    /// What went wrong: makes the receipt one of result Error.
    pub error: Option<RunError>,
    /// The grant, when there was one.
    pub grant: Option<Envelope>,
    /// The attestation, when there is one.
    pub attestation: Option<Envelope>,
}

/// An in-toto Statement v1: <https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md>.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Statement {
    /// Always [`STATEMENT_TYPE`].
    #[serde(rename = "_type")]
    pub type_: String,
    /// What the statement is about: the outputs, or the document when there are none.
    pub subject: Vec<ResourceDescriptor>,
    /// Always [`PREDICATE_TYPE`].
    pub predicate_type: String,
    /// How the subject came to be.
    pub predicate: Provenance,
}

/// SLSA provenance v1: <https://slsa.dev/spec/v1.0/provenance>.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Provenance {
    /// What was asked for.
    pub build_definition: BuildDefinition,
    /// What happened.
    pub run_details: RunDetails,
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BuildDefinition {
    /// Always [`BUILD_TYPE`].
    pub build_type: String,
    /// What the submitter decided.
    pub external_parameters: ExternalParameters,
    /// What the operator decided.
    pub internal_parameters: InternalParameters,
    /// What the run was made from.
    pub resolved_dependencies: Vec<ResourceDescriptor>,
}

/// What the submitter decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExternalParameters {
    /// Digests of the document's bytes.
    pub document: DigestSet,
    /// Digests of the inputs' bytes (one JSON object), behind their blinding when some of them were sealed and the
    /// run was granted.
    pub inputs: DigestSet,
    /// Digests of the sealed text that some of the inputs came in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_inputs: Option<DigestSet>,
    /// Who submitted the workflow, as the API server knows him.
    pub submitter: String,
    /// The agent (`agent://name`) that the submitter acted as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub act_as: Option<String>,
    /// The workflow that was run.
    pub workflow: WorkflowRef,
}

/// What the operator decided; the suite, the key and the result are thereby inside the signed bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InternalParameters {
    /// The suite that the receipt is signed with.
    pub suite: Suite,
    /// The key that it is signed with.
    pub key_id: KeyId,
    /// The key that this one follows; the first key has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predecessor: Option<KeyId>,
    /// When it was signed: compared with the key's validity.
    pub signed_at: Timestamp,
    /// The fencing token of the controller that signed.
    pub fencing_token: u64,
    /// How the run ended.
    pub result: Outcome,
    /// Why, when it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<RunError>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunDetails {
    /// Who ran it and signs for it.
    pub builder: Builder,
    /// Which run, and when.
    pub metadata: Metadata,
    /// The grant and the attestation, as envelopes.
    pub byproducts: Vec<ResourceDescriptor>,
}

/// The operator that signs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Builder {
    /// A URI that names the operator and its trust domain.
    pub id: String,
    /// Versions of its components by name.
    pub version: BTreeMap<String, String>,
}

/// Which run, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// The run's id.
    pub invocation_id: String,
    /// When the run began.
    pub started_on: Timestamp,
    /// When it ended.
    pub finished_on: Timestamp,
}

/// An in-toto ResourceDescriptor, with the fields that receipts use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourceDescriptor {
    /// Its name within the statement.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A URI that identifies it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// Digests by algorithm, hexadecimal.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub digest: BTreeMap<String, String>,
    /// Its bytes, base64.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "serialize_base64"
    )]
    pub content: Option<String>,
    /// The media type of the bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Of the attestation: what a reader would otherwise have to unpack it for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<RunFigures>,
}

/// Most of a statement is the base64 of its records, in which there is nothing to escape: it is written as it is.
#[expect(clippy::ref_option, reason = "serde hands over the field as it is")]
fn serialize_base64<S: Serializer>(text: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
    let text = text.as_deref().unwrap_or_default();
    match RawValue::from_string(format!("\"{text}\"")) {
        Ok(raw) if !text.contains('\\') => raw.serialize(serializer),
        _ => text.serialize(serializer),
    }
}

/// Figures of the run, repeated from the attestation in the open.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunFigures {
    /// The code blocks in their order.
    pub blocks: Vec<BlockResult>,
    /// GPU time: devices times seconds.
    pub gpu_seconds: f64,
    /// UUIDs of the GPU devices.
    pub devices: Vec<String>,
}

impl RunFigures {
    /// The figures of `attestation`.
    pub fn of(attestation: &Attestation) -> Self {
        Self {
            blocks: attestation.blocks.clone(),
            gpu_seconds: attestation.gpu_seconds,
            devices: attestation.devices.clone(),
        }
    }
}

/// Builds the statement of a receipt; the same claim gives the same bytes.
pub fn statement(claim: &Claim) -> Result<Statement, Error> {
    let attestation = match &claim.attestation {
        Some(envelope) => Some(Attestation::parse(envelope.payload())?),
        None => None,
    };
    let outputs = attestation
        .as_ref()
        .and_then(|attestation| attestation.outputs.as_ref());
    if claim.error.is_none() && (outputs.is_none() || claim.grant.is_none()) {
        return Err(Error::NothingToAttest);
    }
    let mut byproducts = Vec::new();
    if let Some(grant) = &claim.grant {
        byproducts.push(build_byproduct(GRANT, grant, None));
    }
    if let (Some(envelope), Some(attestation)) = (&claim.attestation, &attestation) {
        byproducts.push(build_byproduct(
            ATTESTATION,
            envelope,
            Some(RunFigures::of(attestation)),
        ));
    }
    Ok(Statement {
        type_: STATEMENT_TYPE.to_owned(),
        subject: vec![match outputs {
            Some(outputs) => build_file(OUTPUTS, outputs, "application/json"),
            None => build_file(DOCUMENT, &claim.document, "text/markdown"),
        }],
        predicate_type: PREDICATE_TYPE.to_owned(),
        predicate: Provenance {
            build_definition: BuildDefinition {
                build_type: BUILD_TYPE.to_owned(),
                external_parameters: ExternalParameters {
                    document: claim.document.clone(),
                    inputs: claim.inputs.clone(),
                    sealed_inputs: claim.sealed_inputs.clone(),
                    submitter: claim.submitter.clone(),
                    act_as: claim.act_as.clone(),
                    workflow: claim.workflow.clone(),
                },
                internal_parameters: InternalParameters {
                    suite: claim.suite,
                    key_id: claim.key_id.clone(),
                    predecessor: claim.predecessor.clone(),
                    signed_at: claim.signed_at,
                    fencing_token: claim.fencing_token,
                    result: if claim.error.is_none() {
                        Outcome::Success
                    } else {
                        Outcome::Error
                    },
                    error: claim.error.clone(),
                },
                resolved_dependencies: build_dependencies(claim, attestation.as_ref()),
            },
            run_details: RunDetails {
                builder: claim.builder.clone(),
                metadata: Metadata {
                    invocation_id: claim.run_id.clone(),
                    started_on: attestation.as_ref().map_or(claim.started_at, |a| a.started_at),
                    finished_on: attestation.as_ref().map_or(claim.finished_at, |a| a.finished_at),
                },
                byproducts,
            },
        },
    })
}

/// Signs a statement with the key that it names.
pub fn sign(statement: &Statement, key: &SigningKey) -> Result<Envelope, Error> {
    let internal = &statement.predicate.build_definition.internal_parameters;
    let actual = key.verifying_key().key_id();
    if internal.key_id != *actual || internal.suite != key.suite() {
        return Err(Error::KeyMismatch {
            named: internal.key_id.clone(),
            actual: actual.clone(),
        });
    }
    let payload = serde_json::to_vec(statement).map_err(Error::Format)?;
    Ok(Envelope::sign_owned(PAYLOAD_TYPE, payload, key)?)
}

/// Reads the statement in an envelope without asking who signed it; `verify` decides that.
pub fn parse(envelope: &Envelope) -> Result<Statement, Error> {
    expect("payloadType", PAYLOAD_TYPE, envelope.payload_type())?;
    let statement: Statement = json::from_slice(envelope.payload()).map_err(Error::Format)?;
    expect("_type", STATEMENT_TYPE, &statement.type_)?;
    expect("predicateType", PREDICATE_TYPE, &statement.predicate_type)?;
    expect(
        "buildType",
        BUILD_TYPE,
        &statement.predicate.build_definition.build_type,
    )?;
    Ok(statement)
}

impl Statement {
    /// What the submitter decided.
    pub fn external(&self) -> &ExternalParameters {
        &self.predicate.build_definition.external_parameters
    }

    /// What the operator decided.
    pub fn internal(&self) -> &InternalParameters {
        &self.predicate.build_definition.internal_parameters
    }

    /// Which run, and when.
    pub fn metadata(&self) -> &Metadata {
        &self.predicate.run_details.metadata
    }

    /// How the run ended.
    pub fn result(&self) -> Outcome {
        self.internal().result
    }

    /// Digests of the outputs, when the receipt has outputs.
    pub fn outputs(&self) -> Option<DigestSet> {
        self.subject_named(OUTPUTS)
    }

    /// GPU time of the run; 0 when nothing ran.
    pub fn gpu_seconds(&self) -> f64 {
        self.byproduct(ATTESTATION)
            .and_then(|d| d.annotations.as_ref())
            .map_or(0.0, |figures| figures.gpu_seconds)
    }

    /// The grant's envelope, when there is one; what it holds is as yet unproven.
    pub fn grant(&self) -> Result<Option<Envelope>, Error> {
        self.byproduct_envelope(GRANT)
    }

    /// The attestation's envelope, when there is one; what it holds is as yet unproven.
    pub fn attestation(&self) -> Result<Option<Envelope>, Error> {
        self.byproduct_envelope(ATTESTATION)
    }

    /// Digests of the only subject, if it has this name.
    pub(crate) fn subject_named(&self, name: &str) -> Option<DigestSet> {
        let [subject] = self.subject.as_slice() else {
            return None;
        };
        (subject.name.as_deref() == Some(name)).then_some(())?;
        digest_set(&subject.digest)
    }

    pub(crate) fn byproduct(&self, name: &str) -> Option<&ResourceDescriptor> {
        self.predicate
            .run_details
            .byproducts
            .iter()
            .find(|descriptor| descriptor.name.as_deref() == Some(name))
    }

    fn byproduct_envelope(&self, name: &'static str) -> Result<Option<Envelope>, Error> {
        let Some(descriptor) = self.byproduct(name) else {
            return Ok(None);
        };
        let content = descriptor.content.as_deref().ok_or(Error::Byproduct(name))?;
        let bytes = BASE64.decode(content).map_err(|_| Error::Byproduct(name))?;
        if descriptor.digest != DigestSet::of(&bytes).to_map() {
            return Err(Error::Byproduct(name));
        }
        Ok(Some(Envelope::from_json(&bytes)?))
    }
}

/// The dependencies as a claim and its attestation give them.
pub(crate) fn build_attested_dependencies(attestation: &Attestation) -> Vec<ResourceDescriptor> {
    let environment = &attestation.environment;
    let mut dependencies = Vec::new();
    if let Some(digest) = environment
        .image_digest
        .as_deref()
        .and_then(|digest| digest.strip_prefix("sha256:"))
    {
        dependencies.push(ResourceDescriptor {
            name: Some("head-image".into()),
            digest: BTreeMap::from([("sha256".into(), digest.to_owned())]),
            ..ResourceDescriptor::default()
        });
    }
    dependencies.push(ResourceDescriptor {
        name: Some("interpreter".into()),
        uri: Some(format!(
            "pkg:generic/{}",
            environment.interpreter.to_lowercase().replacen(' ', "@", 1)
        )),
        ..ResourceDescriptor::default()
    });
    dependencies.push(ResourceDescriptor {
        name: Some("packages".into()),
        digest: BTreeMap::from([("sha256".into(), environment.packages_digest.clone())]),
        ..ResourceDescriptor::default()
    });
    dependencies
}

/// What a receipt repeats of a grant that its builder has made itself.
#[derive(Deserialize)]
struct Granted {
    #[serde(default)]
    specifications: BTreeMap<String, DigestSet>,
}

/// The specifications that were granted beside the document.
pub(crate) fn build_specifications(granted: &BTreeMap<String, DigestSet>) -> Vec<ResourceDescriptor> {
    granted
        .iter()
        .map(|(name, digest)| build_file(&format!("specification/{name}"), digest, "text/x-python"))
        .collect()
}

fn build_dependencies(claim: &Claim, attestation: Option<&Attestation>) -> Vec<ResourceDescriptor> {
    let mut dependencies = vec![
        build_file(DOCUMENT, &claim.document, "text/markdown"),
        build_file("inputs", &claim.inputs, "application/json"),
    ];
    let granted = claim
        .grant
        .as_ref()
        .and_then(|envelope| serde_json::from_slice::<Granted>(envelope.payload()).ok());
    dependencies.extend(
        granted
            .iter()
            .flat_map(|granted| build_specifications(&granted.specifications)),
    );
    dependencies.extend(attestation.map(build_attested_dependencies).unwrap_or_default());
    dependencies
}

fn build_file(name: &str, digest: &DigestSet, media_type: &str) -> ResourceDescriptor {
    ResourceDescriptor {
        name: Some(name.to_owned()),
        digest: digest.to_map(),
        media_type: Some(media_type.to_owned()),
        ..ResourceDescriptor::default()
    }
}

fn build_byproduct(name: &str, envelope: &Envelope, figures: Option<RunFigures>) -> ResourceDescriptor {
    let json = envelope.to_json();
    ResourceDescriptor {
        name: Some(name.to_owned()),
        digest: DigestSet::of(json.as_bytes()).to_map(),
        content: Some(BASE64.encode(json)),
        media_type: Some(ENVELOPE_MEDIA_TYPE.to_owned()),
        annotations: figures,
        ..ResourceDescriptor::default()
    }
}

fn digest_set(map: &BTreeMap<String, String>) -> Option<DigestSet> {
    Some(DigestSet {
        sha256: map.get("sha256")?.clone(),
        blake3: map.get("blake3")?.clone(),
    })
}

fn expect(field: &'static str, expected: &'static str, found: &str) -> Result<(), Error> {
    if found == expected {
        Ok(())
    } else {
        Err(Error::Type {
            field,
            expected,
            found: found.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{self, Sample};

    fn json(sample: &Sample) -> serde_json::Value {
        serde_json::from_slice(sample.envelope().payload()).unwrap()
    }

    #[test]
    fn a_receipt_has_the_shape_of_slsa_provenance() {
        let value = json(&Sample::success());
        let keys = |pointer: &str| {
            let object = value.pointer(pointer).unwrap().as_object().unwrap();
            object.keys().cloned().collect::<Vec<_>>()
        };
        assert_eq!(value["_type"], STATEMENT_TYPE);
        assert_eq!(value["predicateType"], PREDICATE_TYPE);
        assert_eq!(keys(""), ["_type", "predicate", "predicateType", "subject"]);
        assert_eq!(keys("/predicate"), ["buildDefinition", "runDetails"]);
        assert_eq!(
            keys("/predicate/buildDefinition"),
            [
                "buildType",
                "externalParameters",
                "internalParameters",
                "resolvedDependencies"
            ]
        );
        assert_eq!(
            keys("/predicate/runDetails"),
            ["builder", "byproducts", "metadata"]
        );
        assert_eq!(keys("/predicate/runDetails/builder"), ["id", "version"]);
        assert_eq!(
            keys("/predicate/runDetails/metadata"),
            ["finishedOn", "invocationId", "startedOn"]
        );
        let internal = &value["predicate"]["buildDefinition"]["internalParameters"];
        assert_eq!(
            (&internal["suite"], &internal["fencingToken"]),
            (&"ML-DSA-87".into(), &4.into())
        );
        assert_eq!(internal["result"], "Success");
        let outputs = DigestSet::of(sample::OUTPUTS);
        assert_eq!(value["subject"][0]["name"], "outputs");
        assert_eq!(value["subject"][0]["digest"]["sha256"], outputs.sha256.as_str());
        assert_eq!(value["subject"][0]["digest"]["blake3"], outputs.blake3.as_str());
        // in-toto asks of each descriptor one of digest, uri and content, and SLSA of each time RFC 3339 in UTC.
        for list in [
            "/predicate/buildDefinition/resolvedDependencies",
            "/predicate/runDetails/byproducts",
        ] {
            for one in value.pointer(list).unwrap().as_array().unwrap() {
                assert!(one.get("digest").or(one.get("uri")).is_some(), "{one}");
            }
        }
        assert_eq!(
            value["predicate"]["runDetails"]["metadata"]["startedOn"],
            "2026-03-01T12:00:00.1Z"
        );
    }

    #[test]
    fn a_refused_document_is_the_subject_of_its_receipt_and_the_cause_is_signed() {
        let value = json(&Sample::refused());
        assert_eq!(value["subject"][0]["name"], "document");
        let internal = &value["predicate"]["buildDefinition"]["internalParameters"];
        assert_eq!(internal["result"], "Error");
        assert_eq!(
            (&internal["error"]["reason"], &internal["error"]["line"]),
            (&"DocumentInvalid".into(), &4.into())
        );
    }

    #[test]
    fn the_same_claim_gives_the_same_bytes_and_they_are_read_again() {
        let sample = Sample::success();
        let statement = statement(&sample.claim).unwrap();
        let envelope = sign(&statement, &sample.signing).unwrap();
        assert_eq!(envelope.payload(), sample.envelope().payload());
        assert_eq!(parse(&envelope).unwrap(), statement);
        assert_eq!(statement.grant().unwrap(), sample.claim.grant);
        assert_eq!(statement.attestation().unwrap(), sample.claim.attestation);
        assert!((statement.gpu_seconds() - 0.25).abs() < f64::EPSILON);
    }

    #[test]
    fn a_content_that_needs_escapes_gets_them() {
        for text in [
            "",
            "QUJD",
            "a\"b",
            "\",\"name\":\"x",
            "a\\u0041",
            "a\\",
            "\n\u{e9}",
        ] {
            let descriptor = ResourceDescriptor {
                content: Some(text.to_owned()),
                ..ResourceDescriptor::default()
            };
            let json = serde_json::to_string(&descriptor).unwrap();
            assert_eq!(json, format!("{{\"content\":{}}}", serde_json::json!(text)));
        }
    }

    #[test]
    fn success_cannot_be_claimed_without_its_records() {
        for strip in [
            |claim: &mut Claim| claim.grant = None,
            |claim: &mut Claim| claim.attestation = None,
        ] {
            let mut sample = Sample::success();
            strip(&mut sample.claim);
            assert!(matches!(statement(&sample.claim), Err(Error::NothingToAttest)));
        }
    }

    #[test]
    fn a_receipt_is_signed_by_the_key_that_it_names_only() {
        let statement = statement(&Sample::success().claim).unwrap();
        assert!(matches!(
            sign(&statement, &sample::key(3)),
            Err(Error::KeyMismatch { .. })
        ));
    }

    #[test]
    fn other_statements_are_no_receipts() {
        let sample = Sample::success();
        let text = String::from_utf8(sample.envelope().payload().to_vec()).unwrap();
        for bad in [
            text.replace("Statement/v1", "Statement/v0.1"),
            text.replace("provenance/v1", "provenance/v0.2"),
            text.replace("maml/v1", "github/v1"),
            text.replace("\"ML-DSA-87\"", "\"none\""),
            text.replace(
                "\"result\":\"Success\"",
                "\"result\":\"Success\",\"result\":\"Success\"",
            ),
            format!("{text} 1"),
        ] {
            let envelope = Envelope::sign(PAYLOAD_TYPE, bad.as_bytes(), &sample.signing).unwrap();
            assert!(parse(&envelope).is_err());
        }
        let more = text.replacen('{', "{\"later\":{},", 1);
        assert!(parse(&Envelope::sign(PAYLOAD_TYPE, more.as_bytes(), &sample.signing).unwrap()).is_ok());
    }
}
