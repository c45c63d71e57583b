//! One run with every record of it, for tests and benches: fixed seeds, fixed times, real signatures.

use crypto::attestation::{
    self, Attestation, BlockResult, BlockState, Environment, Isolation, Outcome, RunError, StreamDigest, Unit,
};
use crypto::grant::{self, Grant, HeadIdentity, WorkflowRef};
use crypto::receipt::{self, Builder, Claim};
use crypto::trust::Bundle;
use crypto::{DigestSet, Envelope, KeyId, KeyPurpose, KeyStatement, SigningKey, Suite, VerifyingKey};
use std::collections::BTreeMap;

/// The document that was run.
pub const DOCUMENT: &[u8] = b"---\nmaml_version: \"2.0.0\"\n---\n## Intent\nSay hello.\n";
/// Its outputs.
pub const OUTPUTS: &[u8] = br#"{"greeting":"hello"}"#;
/// Its inputs.
pub const INPUTS: &[u8] = b"{}";
/// The run's id.
pub const RUN_ID: &str = "0123456789abcdef0123456789abcdef";

/// Keys and envelopes of the run.
pub struct Sample {
    /// The root.
    pub root: SigningKey,
    /// The key that signs grant and receipt.
    pub signing: SigningKey,
    /// The head's own key.
    pub attester: SigningKey,
    /// Two signing keys (the sample's and a second) and a sealing key, all vouched for.
    pub bundle: Bundle,
    /// What the receipt is made from.
    pub claim: Claim,
}

impl Sample {
    /// A run that succeeded.
    pub fn success() -> Self {
        let (root, signing, attester) = (key(1), key(2), key(4));
        let grant = grant(attester.verifying_key())
            .sign(&signing)
            .expect("a grant signs");
        let attestation = attestation(grant.payload(), OUTPUTS)
            .sign(&attester)
            .expect("an attestation signs");
        let mut claim = claim(signing.verifying_key().key_id(), Some(grant), Some(attestation));
        claim.predecessor = Some(key(3).verifying_key().key_id().clone());
        let bundle = bundle(&root);
        Self {
            root,
            signing,
            attester,
            bundle,
            claim,
        }
    }

    /// A document that was refused before it ran.
    pub fn refused() -> Self {
        let mut sample = Self::success();
        sample.claim.grant = None;
        sample.claim.attestation = None;
        sample.claim.error = Some(RunError {
            reason: "DocumentInvalid".into(),
            message: "the section Intent is missing".into(),
            line: Some(4),
            column: Some(1),
            code: Some("MAML010".into()),
        });
        sample
    }

    /// The receipt's envelope.
    pub fn envelope(&self) -> Envelope {
        let statement = receipt::statement(&self.claim).expect("a sound claim");
        receipt::sign(&statement, &self.signing).expect("a receipt signs")
    }

    /// The receipt as a file.
    pub fn file(&self) -> Vec<u8> {
        self.envelope().to_json().into_bytes()
    }
}

/// The key of a seed made of one byte: 1 root, 2 signing, 3 the signing key before it, 4 attester, 5 sealing key, 9 nobody's.
pub fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(Suite::MlDsa87, &[seed; 32]).expect("every seed gives a key")
}

/// A bundle of `root` with the sample's keys.
pub fn bundle(root: &SigningKey) -> Bundle {
    let start = "2026-01-01T00:00:00Z".parse().expect("a constant");
    let end = "2027-01-01T00:00:00Z".parse().ok();
    let statements = [
        (
            2,
            KeyPurpose::Signing,
            Some(key(3).verifying_key().key_id().clone()),
        ),
        (3, KeyPurpose::Signing, None),
        (5, KeyPurpose::Sealing, None),
    ]
    .map(|(seed, purpose, predecessor)| {
        KeyStatement::about(key(seed).verifying_key(), purpose, start, end, predecessor, 4)
            .sign(root)
            .expect("a statement signs")
    });
    Bundle::new(root.verifying_key(), statements.to_vec())
}

/// The grant of the run.
pub fn grant(attester: &VerifyingKey) -> Grant {
    Grant {
        type_: grant::TYPE.into(),
        suite: Suite::MlDsa87,
        run_id: RUN_ID.into(),
        workflow: workflow(),
        document: DigestSet::of(DOCUMENT),
        inputs: DigestSet::of(INPUTS),
        sealed_inputs: None,
        specifications: BTreeMap::new(),
        submitter: "alice".into(),
        act_as: Some("agent://tester".into()),
        head: HeadIdentity {
            name: "quantum".into(),
            pod: "quantum-7f".into(),
            uid: "d3f1d1c5-8e0c-4f4f-9d57-4a3b9c1f2e11".into(),
            node: Some("node-1".into()),
            attester: attester.key_id().clone(),
            attester_public_key: attester.spki_pem(),
        },
        isolation: Unit::Process,
        not_before: "2026-03-01T12:00:00Z".parse().expect("a constant"),
        expires: "2026-03-01T12:01:00Z".parse().expect("a constant"),
        timeout_seconds: 300,
        network: false,
        fencing_token: 4,
    }
}

/// The attestation of the run.
pub fn attestation(grant_payload: &[u8], outputs: &[u8]) -> Attestation {
    let stream = |bytes: &[u8]| StreamDigest {
        bytes: bytes.len() as u64,
        truncated: false,
        digest: DigestSet::of(bytes),
    };
    Attestation {
        type_: attestation::TYPE.into(),
        suite: Suite::MlDsa87,
        run_id: RUN_ID.into(),
        grant: DigestSet::of(grant_payload),
        started_at: "2026-03-01T12:00:00.100Z".parse().expect("a constant"),
        finished_at: "2026-03-01T12:00:00.130Z".parse().expect("a constant"),
        result: Outcome::Success,
        error: None,
        outputs: Some(DigestSet::of(outputs)),
        output_bytes: outputs.len() as u64,
        stdout: stream(b"hello\n"),
        stderr: stream(b""),
        blocks: vec![BlockResult {
            name: "block-1".into(),
            language: "python".into(),
            state: BlockState::Succeeded,
            duration_millis: 12,
            diagnostics: String::new(),
        }],
        gpu_seconds: 0.25,
        gpu_seconds_from: None,
        devices: vec!["GPU-1".into()],
        environment: Environment {
            interpreter: "CPython 3.13.5".into(),
            packages_digest: "5d".repeat(32),
            image_digest: Some(format!("sha256:{}", "ab".repeat(32))),
            languages: vec!["python".into()],
        },
        isolation: Isolation {
            unit: Unit::Process,
            landlock_abi: 6,
            seccomp: true,
            network: false,
            rlimits: BTreeMap::from([("nofile".into(), 256)]),
        },
    }
}

/// What the receipt is made from.
pub fn claim(key_id: &KeyId, grant: Option<Envelope>, attestation: Option<Envelope>) -> Claim {
    Claim {
        suite: Suite::MlDsa87,
        key_id: key_id.clone(),
        predecessor: None,
        signed_at: "2026-03-01T12:00:00.140Z".parse().expect("a constant"),
        fencing_token: 4,
        builder: Builder {
            id: "https://chimera.dunes.io/controller/sample".into(),
            version: BTreeMap::from([("chimera".into(), "0.1.0".into())]),
        },
        run_id: RUN_ID.into(),
        workflow: workflow(),
        document: DigestSet::of(DOCUMENT),
        inputs: DigestSet::of(INPUTS),
        sealed_inputs: None,
        submitter: "alice".into(),
        act_as: Some("agent://tester".into()),
        started_at: "2026-03-01T12:00:00Z".parse().expect("a constant"),
        finished_at: "2026-03-01T12:00:00Z".parse().expect("a constant"),
        error: None,
        grant,
        attestation,
    }
}

fn workflow() -> WorkflowRef {
    WorkflowRef {
        namespace: "team".into(),
        name: "hello".into(),
        uid: "8c8e4c9e-3c55-4f6c-9d3c-0a5b0a6f1f10".into(),
        generation: 1,
        attempt: 1,
    }
}
