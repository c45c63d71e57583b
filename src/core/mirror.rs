//! The mirrored text of a receipt: the document, redacted, in reverse, under a header that is to be signed. No signing.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use crypto::{DigestSet, receipt::Claim};
use jiff::Timestamp;
use maml::mirror::{Header, redact, write};

/// A mirrored text before its signature.
#[derive(Debug, Clone)]
pub struct Unsigned {
    header: Header,
    source: String,
}

/// Prepares the mirrored text of a claim's document, or nothing when the document is no text. Secrets in the document
/// are blotted out first; the header's digest is that of what is mirrored.
pub fn prepare(document: &[u8], claim: &Claim, now: Timestamp) -> Option<Unsigned> {
    let text = std::str::from_utf8(document)
        .ok()
        .filter(|text| !text.is_empty())?;
    let source = redact(text);
    let digest = DigestSet::of(source.as_bytes()).blake3;
    let kind = if claim.error.is_some() { "error" } else { "receipt" };
    let mut header = Header::of(kind, &claim.run_id, &source, &digest, &now.to_string());
    header.signer = Some(claim.key_id.to_string());
    Some(Unsigned { header, source })
}

impl Unsigned {
    /// What the key that the claim names has to sign.
    pub fn signed_bytes(&self) -> Vec<u8> {
        self.header.signed_bytes()
    }

    /// The whole text.
    pub fn with_signature(mut self, signature: &[u8]) -> String {
        self.header.signature = Some(STANDARD.encode(signature));
        write(&self.header, &self.source)
    }
}
