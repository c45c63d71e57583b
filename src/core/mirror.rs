//! The mirrored text of a receipt: the document, redacted, in reverse, under a header that the caller's key signs.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use crypto::{DigestSet, receipt::Claim};
use jiff::Timestamp;
use maml::mirror::{Header, redact, write};

/// The mirrored text of a claim's document, or nothing when the document is no text. Secrets in the document are blotted
/// out first; the header's digest is that of what is mirrored. `sign` signs with the key that the claim names.
pub fn mirrored<E>(
    document: &[u8],
    claim: &Claim,
    now: Timestamp,
    sign: impl FnOnce(&[u8]) -> Result<Vec<u8>, E>,
) -> Result<Option<String>, E> {
    let text = std::str::from_utf8(document).unwrap_or_default();
    if text.is_empty() {
        return Ok(None);
    }
    let source = redact(text);
    let digest = DigestSet::of(source.as_bytes()).blake3;
    let kind = if claim.error.is_some() { "error" } else { "receipt" };
    let mut header = Header::of(kind, &claim.run_id, &source, &digest, &now.to_string());
    header.signer = Some(claim.key_id.to_string());
    header.signature = Some(STANDARD.encode(sign(&header.signed_bytes())?));
    Ok(Some(write(&header, &source)))
}
