//! The name of a suite inside signed bytes: every document verifies under each suite, and under no other suite's name.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

#[path = "sample/receipt.rs"]
#[allow(dead_code, reason = "each test uses a part of the sample")]
mod sample;

use crypto::attestation::{self, Attestation};
use crypto::grant::{self, Grant};
use crypto::trust::{self, Bundle};
use crypto::verify::{Request, Verdict, verify};
use crypto::{Envelope, KeyPurpose, KeyStatement, SigningKey, Suite, VerifyingKey, key_statement, receipt};

/// A run whose keys are all of one suite.
struct Run {
    root: SigningKey,
    signing: SigningKey,
    attester: SigningKey,
    bundle: Bundle,
    grant: Envelope,
    attestation: Envelope,
    receipt: Envelope,
}

impl Run {
    fn of(suite: Suite) -> Self {
        Self::with(key(suite, 1), key(suite, 2), key(suite, 4))
    }

    fn with(root: SigningKey, signing: SigningKey, attester: SigningKey) -> Self {
        let statement = statement(signing.verifying_key()).sign(&root).unwrap();
        let mut grant = sample::grant(attester.verifying_key());
        grant.suite = signing.suite();
        let grant = grant.sign(&signing).unwrap();
        let mut attestation = sample::attestation(grant.payload(), sample::OUTPUTS);
        attestation.suite = attester.suite();
        let attestation = attestation.sign(&attester).unwrap();
        let mut claim = sample::claim(
            signing.verifying_key().key_id(),
            Some(grant.clone()),
            Some(attestation.clone()),
        );
        claim.suite = signing.suite();
        let receipt = receipt::sign(&receipt::statement(&claim).unwrap(), &signing).unwrap();
        Self {
            bundle: Bundle::new(root.verifying_key(), vec![statement]),
            root,
            signing,
            attester,
            grant,
            attestation,
            receipt,
        }
    }

    /// The verdict on `receipt`, and the check that failed.
    fn judge(&self, receipt: &Envelope) -> (Verdict, Option<&'static str>) {
        let report = verify(&Request {
            envelope: receipt.to_json().as_bytes(),
            bundle: &self.bundle,
            pinned_root: Some(self.root.verifying_key().key_id()),
            document: Some(sample::DOCUMENT),
            outputs: Some(sample::OUTPUTS),
        });
        (report.verdict, report.failure().map(|check| check.name))
    }
}

fn key(suite: Suite, seed: u8) -> SigningKey {
    SigningKey::from_seed(suite, &vec![seed; suite.seed_len()]).unwrap()
}

fn statement(about: &VerifyingKey) -> KeyStatement {
    let start = "2026-01-01T00:00:00Z".parse().unwrap();
    KeyStatement::about(about, KeyPurpose::Signing, start, None, None, 4)
}

/// Every pair of two different suites.
fn pairs() -> impl Iterator<Item = (Suite, Suite)> {
    Suite::ALL
        .into_iter()
        .flat_map(|one| Suite::ALL.map(|other| (one, other)))
        .filter(|(one, other)| one != other)
}

/// `envelope` with another suite named in its payload, signed again by the key that signed it.
fn renamed(envelope: &Envelope, from: Suite, to: Suite, key: &SigningKey) -> Envelope {
    let text = str::from_utf8(envelope.payload()).unwrap();
    let (from, to) = (format!("\"suite\":\"{from}\""), format!("\"suite\":\"{to}\""));
    assert_eq!(text.matches(&from).count(), 1, "{text}");
    Envelope::sign(envelope.payload_type(), text.replace(&from, &to).as_bytes(), key).unwrap()
}

#[test]
fn a_receipt_verifies_under_each_suite_and_under_a_mixture() {
    for suite in Suite::ALL {
        let run = Run::of(suite);
        assert_eq!(run.judge(&run.receipt), (Verdict::Valid, None), "{suite}");
    }
    let mixed = Run::with(
        key(Suite::Ed25519MlDsa87, 1),
        key(Suite::MlDsa65, 2),
        key(Suite::MlDsa87, 4),
    );
    assert_eq!(mixed.judge(&mixed.receipt), (Verdict::Valid, None));
}

#[test]
fn a_receipt_that_names_another_suite_than_its_keys_is_refused() {
    for (own, other) in pairs() {
        let run = Run::of(own);
        let bent = renamed(&run.receipt, own, other, &run.signing);
        assert_eq!(run.judge(&bent), (Verdict::BadSignature, Some("suite")));
        let mut statement = receipt::parse(&run.receipt).unwrap();
        statement.predicate.build_definition.internal_parameters.suite = other;
        assert!(receipt::sign(&statement, &run.signing).is_err());
    }
}

#[test]
fn records_that_name_another_suite_than_their_keys_are_refused() {
    for (own, other) in pairs() {
        let run = Run::of(own);
        let (signing, attester) = (run.signing.verifying_key(), run.attester.verifying_key());
        assert!(Grant::verify(&run.grant, signing).is_ok());
        assert!(matches!(
            Grant::verify(&renamed(&run.grant, own, other, &run.signing), signing),
            Err(grant::Error::Suite { .. })
        ));
        assert!(Attestation::verify(&run.attestation, attester).is_ok());
        assert!(matches!(
            Attestation::verify(&renamed(&run.attestation, own, other, &run.attester), attester),
            Err(attestation::Error::Suite { .. })
        ));
    }
}

#[test]
fn statements_and_bundles_that_name_another_suite_than_their_keys_are_refused() {
    for (own, other) in pairs() {
        let run = Run::of(own);
        let root = run.root.verifying_key();
        let good = &run.bundle.statements[0];
        assert!(KeyStatement::verify(good, root).is_ok());
        assert!(matches!(
            KeyStatement::verify(&renamed(good, own, other, &run.root), root),
            Err(key_statement::Error::KeyMismatch { .. })
        ));
        let mut bundle = run.bundle.clone();
        bundle.root.suite = other;
        assert!(matches!(bundle.verify(), Err(trust::Error::RootMismatch { .. })));
    }
}

#[test]
fn records_signed_under_one_suite_are_refused_under_a_key_of_another() {
    for (own, other) in pairs() {
        let (run, foreign) = (Run::of(own), Run::of(other));
        assert!(Grant::verify(&run.grant, foreign.signing.verifying_key()).is_err());
        assert!(Attestation::verify(&run.attestation, foreign.attester.verifying_key()).is_err());
        assert!(KeyStatement::verify(&run.bundle.statements[0], foreign.root.verifying_key()).is_err());
        assert_eq!(foreign.judge(&run.receipt), (Verdict::UntrustedKey, Some("key")));
    }
}

/// Half of a hybrid signature is a sound signature of the same bytes under half of the key. The bytes name the suite and
/// the key, and so they are refused even where a root vouches for the half as a key of its own.
#[test]
fn a_hybrid_receipt_stripped_to_its_ml_dsa_half_is_refused() {
    let mut run = Run::of(Suite::Ed25519MlDsa87);
    let half = VerifyingKey::from_spki_der(&run.signing.verifying_key().spki_der()[44..]).unwrap();
    assert_eq!(half.suite(), Suite::MlDsa87);
    let strip = |envelope: &Envelope| -> Envelope {
        let mut json: serde_json::Value = serde_json::from_str(&envelope.to_json()).unwrap();
        json["signatures"][0]["keyid"] = half.key_id().as_str().into();
        json["signatures"][0]["sig"] = base64(&envelope.signature()[64..]).into();
        Envelope::from_json(json.to_string().as_bytes()).unwrap()
    };
    let stripped = strip(&run.receipt);
    assert!(stripped.verify(&half).is_ok());
    assert_eq!(run.judge(&stripped), (Verdict::UntrustedKey, Some("key")));

    let vouched = statement(&half).sign(&run.root).unwrap();
    run.bundle.statements.push(vouched);
    assert_eq!(run.judge(&run.receipt), (Verdict::Valid, None));
    assert_eq!(run.judge(&stripped), (Verdict::BadSignature, Some("suite")));
    assert!(matches!(
        Grant::verify(&strip(&run.grant), &half),
        Err(grant::Error::Suite { .. })
    ));
    let half_root = VerifyingKey::from_spki_der(&run.root.verifying_key().spki_der()[44..]).unwrap();
    let stripped_root = Bundle::new(&half_root, run.bundle.statements.iter().map(strip).collect());
    assert!(
        stripped_root
            .verify_pinned(Some(run.root.verifying_key().key_id()))
            .is_err()
    );
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
