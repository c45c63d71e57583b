//! PEM (RFC 7468), strictly: one block of a known label with nothing but white space around it, lines of 64 characters.

use crate::binary_text::{BASE64, Engine as _};
use zeroize::Zeroizing;

/// `der` as one block, newline at the end. The text is wiped when it is dropped: it may be a private key.
pub(crate) fn encode(label: &str, der: &[u8]) -> Zeroizing<String> {
    let text = Zeroizing::new(BASE64.encode(der));
    let mut pem = Zeroizing::new(String::with_capacity(
        text.len() + text.len() / 64 + 2 * label.len() + 40,
    ));
    for part in ["-----BEGIN ", label, "-----\n"] {
        pem.push_str(part);
    }
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = tail;
    }
    for part in ["-----END ", label, "-----\n"] {
        pem.push_str(part);
    }
    pem
}

/// The DER of the one block that `text` is.
pub(crate) fn decode(label: &str, text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let body = text
        .trim()
        .strip_prefix("-----BEGIN ")?
        .strip_prefix(label)?
        .strip_prefix("-----")?
        .strip_suffix("-----")?
        .strip_suffix(label)?
        .strip_suffix("-----END ")?;
    let mut base64 = Zeroizing::new(String::with_capacity(body.len()));
    base64.extend(body.lines().map(str::trim_ascii));
    BASE64.decode(base64.as_bytes()).ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_block_is_read_back_and_nothing_else() {
        for der in [&b""[..], b"x", &[7; 48], &[7; 49], &[9; 1000]] {
            let pem = encode("PUBLIC KEY", der);
            assert_eq!(decode("PUBLIC KEY", &pem).unwrap().as_slice(), der);
            assert_eq!(
                decode("PUBLIC KEY", &pem.replace('\n', "\r\n"))
                    .unwrap()
                    .as_slice(),
                der
            );
            assert!(pem.lines().all(|line| line.len() <= 64));
            assert!(decode("PRIVATE KEY", &pem).is_none());
            assert!(decode("PUBLIC KEY", &format!("{}{}", *pem, *pem)).is_none());
            assert!(decode("PUBLIC KEY", &format!("x{}", *pem)).is_none());
        }
        assert!(decode("PUBLIC KEY", "").is_none());
    }
}
