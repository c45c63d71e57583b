//! What a rehearsal makes with the keys that are usable: receipts of a document that was refused, and secrets that were
//! encapsulated. Both are made as the operator and the command line make them.

use api::MamlWorkflow;
use controller_core::inputs::Inputs;
use controller_core::receipt::{COMMAND_LINE, Finished, Signatory, build_claim};
use crypto::attestation::RunError;
use crypto::kem::SharedSecret;
use crypto::{Envelope, KeyId, KeyStatement, PrivateKey, SigningKey, receipt};
use jiff::Timestamp;

/// Something made with a key, to be checked later.
pub enum Sample {
    /// A receipt.
    Receipt(Envelope),
    /// A secret, encapsulated to a key.
    Sealed {
        /// The key.
        key: KeyId,
        /// What only the key opens.
        ciphertext: Vec<u8>,
        /// What it opens to.
        secret: SharedSecret,
    },
}

/// The receipt of a document that was refused, signed at `now` by the key of a statement.
pub fn receipt(key: &SigningKey, about: &KeyStatement, now: Timestamp) -> Result<Envelope, receipt::Error> {
    let mut workflow = MamlWorkflow::new("rehearsal", api::MamlWorkflowSpec::default());
    workflow.spec.submitter = Some("rehearsal".to_owned());
    let failure = RunError {
        reason: api::reasons::DOCUMENT_INVALID.to_owned(),
        message: "a rehearsal runs no document".to_owned(),
        line: None,
        column: None,
        code: None,
    };
    let claim = build_claim(
        &Finished {
            workflow: &workflow,
            attempt: 0,
            document: b"",
            inputs: &Inputs::plain(b"{}".to_vec()),
            record: None,
            failure: Some(&failure),
        },
        &Signatory {
            suite: key.suite(),
            key_id: key.verifying_key().key_id().clone(),
            predecessor: about.predecessor.clone(),
            fencing_token: about.fencing_token,
            builder: COMMAND_LINE,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            now,
        },
    );
    receipt::sign(&receipt::statement(&claim)?, key)
}

/// Whether the key opens what was sealed.
pub fn opens(key: &PrivateKey, ciphertext: &[u8], secret: &SharedSecret) -> bool {
    key.as_decapsulation()
        .and_then(|key| key.decapsulate(ciphertext).ok())
        .is_some_and(|opened| opened == *secret)
}
