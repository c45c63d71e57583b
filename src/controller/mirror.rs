//! The mirrored text of a receipt: the document, redacted, in reverse, under a signed header.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use crypto::{DigestSet, SigningKey, receipt::Claim};
use jiff::Timestamp;
use maml::mirror::{Header, redact, write};

/// The mirrored text, or nothing when the document is no text. Secrets in the document are blotted out first; the
/// header's digest is that of what was mirrored.
pub fn mirrored(
    document: &[u8],
    error: bool,
    claim: &Claim,
    key: &SigningKey,
    now: Timestamp,
) -> Option<String> {
    let text = std::str::from_utf8(document)
        .ok()
        .filter(|text| !text.is_empty())?;
    let source = redact(text);
    let digest = DigestSet::of(source.as_bytes()).blake3;
    let kind = if error { "error" } else { "receipt" };
    let mut header = Header::of(kind, &claim.run_id, &source, &digest, &now.to_string());
    header.signer = Some(claim.key_id.to_string());
    let signature = key.sign(&header.signed_bytes()).ok()?;
    header.signature = Some(STANDARD.encode(&signature));
    Some(write(&header, &source))
}
