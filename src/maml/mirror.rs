//! The mirror (`.mu`): a text with its Unicode scalar values in reverse order, behind a header that is not reversed.
//!
//! Nothing is normalised, trimmed or converted, so mirroring twice gives back every bit. The mirror finds errors of
//! transmission; what makes a mirrored receipt trustworthy is the digest and the signature in its header. Code that was
//! mirrored back is never run.

use serde::Serialize;

pub use crate::mirror_stream::{StreamError, forward_stream, reverse_stream};
pub use crate::redact::redact;

/// The only algorithm.
pub const ALGORITHM: &str = "unicode-scalar-reverse";
/// The version of the header that is written.
pub const MU_VERSION: &str = "1.0";

/// Separates what is signed here from everything else that the same key signs.
const DOMAIN: &[u8] = b"https://chimera.dunes.io/mu/v1\n";

/// The header of a mirrored text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Header {
    /// `receipt` or `error`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The version of the header.
    pub mu_version: String,
    /// The `id` of the source.
    pub source_id: String,
    /// The length of the source in bytes.
    pub source_bytes: u64,
    /// BLAKE3 of the source, in hexadecimal digits.
    pub source_digest: String,
    /// How the body was mirrored.
    pub algorithm: String,
    /// When it was mirrored, RFC 3339.
    pub created_at: String,
    /// The id of the key that signed.
    pub signer: Option<String>,
    /// The signature over [`Header::signed_bytes`], in base64.
    pub signature: Option<String>,
}

/// Why a mirrored text cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The first line is not `---`.
    #[error("the mirrored text does not start with a header")]
    NoHeader,
    /// No second `---`.
    #[error("the header is not closed")]
    Unclosed,
    /// A line of the header is not `key: value`.
    #[error("line {0} of the header is not a key and a value")]
    Syntax(usize),
    /// A key that has to be there.
    #[error("the header has no {0}")]
    Missing(&'static str),
    /// A key twice.
    #[error("the header has {0} twice")]
    Duplicate(String),
    /// A key that the format does not know: it would not be covered by the signature.
    #[error("the header has the unknown key {0}")]
    Unknown(String),
    /// Another algorithm.
    #[error("the algorithm {0} is not known")]
    Algorithm(String),
    /// Another version.
    #[error("the version {0} of the header is not known")]
    Version(String),
    /// The body does not have the length that the header tells.
    #[error("the body has {found} bytes instead of {expected}")]
    Length {
        /// As the header says.
        expected: u64,
        /// As it is.
        found: u64,
    },
}

/// What closes the header.
const END: &[u8] = b"\n---\n";

/// The text reversed.
pub fn forward(source: &str) -> String {
    let mut bytes = source.as_bytes().to_vec();
    mirror(&mut bytes);
    String::from_utf8(bytes).expect("the characters of a text in another order are a text")
}

/// Reverses UTF-8: all bytes first, then those of each character back, which now stand in front of their leading byte.
pub(crate) fn mirror(bytes: &mut [u8]) {
    let is_ascii = bytes.is_ascii();
    bytes.reverse();
    if is_ascii {
        return;
    }
    let mut start = 0;
    for index in 0..bytes.len() {
        // A continuation byte is 10xxxxxx; the byte that leads a character ends it here.
        if bytes[index] & 0b1100_0000 != 0b1000_0000 {
            bytes[start..=index].reverse();
            start = index + 1;
        }
    }
}

/// The text reversed back; the same operation.
pub fn reverse(body: &str) -> String {
    forward(body)
}

impl Header {
    /// A header for `source`. The digest is taken by the caller: this crate holds no hash.
    pub fn of(kind: &str, source_id: &str, source: &str, source_digest: &str, created_at: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            mu_version: MU_VERSION.to_owned(),
            source_id: source_id.to_owned(),
            source_bytes: source.len() as u64,
            source_digest: source_digest.to_owned(),
            algorithm: ALGORITHM.to_owned(),
            created_at: created_at.to_owned(),
            signer: None,
            signature: None,
        }
    }

    /// What a signature is made over: every key but the signature, each with its length, behind a domain separator. The
    /// digest among them covers the body.
    pub fn signed_bytes(&self) -> Vec<u8> {
        let mut bytes = DOMAIN.to_vec();
        for (key, value) in self.fields().into_iter().filter(|(key, _)| *key != "signature") {
            if let Some(value) = value {
                bytes.extend_from_slice(format!("{key} {} {value}\n", value.len()).as_bytes());
            }
        }
        bytes
    }

    fn fields(&self) -> [(&'static str, Option<String>); 9] {
        [
            ("type", Some(self.kind.clone())),
            ("mu_version", Some(self.mu_version.clone())),
            ("source_id", Some(self.source_id.clone())),
            ("source_bytes", Some(self.source_bytes.to_string())),
            ("source_digest", Some(self.source_digest.clone())),
            ("algorithm", Some(self.algorithm.clone())),
            ("created_at", Some(self.created_at.clone())),
            ("signer", self.signer.clone()),
            ("signature", self.signature.clone()),
        ]
    }
}

/// The mirrored text: header, then the reversed source, to the last byte.
pub fn write(header: &Header, source: &str) -> String {
    let mut text = write_header(header);
    text.push_str(&forward(source));
    text
}

/// The header as it stands before the mirrored source, which [`forward_stream`] may write behind it.
pub fn write_header(header: &Header) -> String {
    let mut text = "---\n".to_owned();
    for (key, value) in header.fields() {
        let Some(value) = value else { continue };
        let value = if key == "source_bytes" {
            value
        } else {
            quoted(&value)
        };
        for part in [key, ": ", value.as_str(), "\n"] {
            text.push_str(part);
        }
    }
    text.push_str("---\n");
    text
}

/// Header and (still reversed) body of a mirrored text. The length of the body is checked, its digest and the signature are
/// not.
pub fn read(text: &str) -> Result<(Header, &str), Error> {
    let (header, body) = read_header(text.as_bytes())?;
    let body = &text[body..];
    let found = body.len() as u64;
    if found != header.source_bytes {
        return Err(Error::Length {
            expected: header.source_bytes,
            found,
        });
    }
    Ok((header, body))
}

/// The header of a mirrored text of which no more than the start is given, and the offset of its body.
pub fn read_header(start: &[u8]) -> Result<(Header, usize), Error> {
    let rest = start.strip_prefix(b"---\n").ok_or(Error::NoHeader)?;
    let end = rest
        .windows(END.len())
        .position(|bytes| bytes == END)
        .ok_or(Error::Unclosed)?;
    let lines = std::str::from_utf8(&rest[..end]).map_err(|error| {
        let lines = rest[..error.valid_up_to()].split(|byte| *byte == b'\n');
        Error::Syntax(1 + lines.count())
    })?;
    let mut values: [Option<String>; 9] = Default::default();
    let keys = Header::default().fields().map(|(key, _)| key);
    for (index, line) in lines.lines().enumerate() {
        let (key, value) = line.split_once(": ").ok_or(Error::Syntax(index + 2))?;
        let slot = keys
            .iter()
            .position(|known| *known == key)
            .ok_or_else(|| Error::Unknown(key.to_owned()))?;
        let value = unquoted(value.trim()).ok_or(Error::Syntax(index + 2))?;
        if values[slot].replace(value).is_some() {
            return Err(Error::Duplicate(key.to_owned()));
        }
    }
    let mut take = |index: usize| values[index].take().ok_or(Error::Missing(keys[index]));
    let header = Header {
        kind: take(0)?,
        mu_version: take(1)?,
        source_id: take(2)?,
        source_bytes: take(3)?.parse().map_err(|_| Error::Missing("source_bytes"))?,
        source_digest: take(4)?,
        algorithm: take(5)?,
        created_at: take(6)?,
        signer: take(7).ok(),
        signature: take(8).ok(),
    };
    if header.mu_version != MU_VERSION {
        return Err(Error::Version(header.mu_version));
    }
    if header.algorithm != ALGORITHM {
        return Err(Error::Algorithm(header.algorithm));
    }
    Ok((header, start.len() - rest.len() + end + END.len()))
}

/// A double-quoted scalar that is the same in YAML and JSON.
fn quoted(value: &str) -> String {
    let mut quoted = String::with_capacity(value.len() + 2);
    quoted.push('"');
    for sign in value.chars() {
        match sign {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            // Line breaks and the like to YAML.
            '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}' => quoted.extend(escaped(sign)),
            _ if sign.is_control() => quoted.extend(escaped(sign)),
            _ => quoted.push(sign),
        }
    }
    quoted.push('"');
    quoted
}

/// `\u0085` and the like; all of these characters have four digits at most.
fn escaped(sign: char) -> impl Iterator<Item = char> {
    let code = u32::from(sign);
    let digits = [12, 8, 4, 0].map(|shift| char::from_digit((code >> shift) & 15, 16).unwrap_or('0'));
    ['\\', 'u'].into_iter().chain(digits)
}

fn unquoted(value: &str) -> Option<String> {
    if value.starts_with('"') {
        return serde_json::from_str(value).ok();
    }
    if let Some(inner) = value.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
        return Some(inner.replace("''", "'"));
    }
    Some(value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_words_have_known_mirrors() {
        for (source, mirrored) in [
            ("Hello", "olleH"),
            ("Secure", "eruceS"),
            ("/assets/simple_cnn.bin", "nib.nnc_elpmis/stessa/"),
            ("air_quality_data", "atad_ytilauq_ria"),
            ("# Hello World\nThis is a test.", ".tset a si sihT\ndlroW olleH #"),
            ("", ""),
            ("a\r\n", "\n\ra"),
            ("e\u{301}😀", "😀\u{301}e"),
        ] {
            assert_eq!(forward(source), mirrored);
            assert_eq!(reverse(mirrored), source);
        }
    }

    #[test]
    fn a_written_mirror_reads_back_and_a_shortened_one_does_not() {
        let source = "---\nid: a\n---\nBody\n---\n";
        let mut header = Header::of(
            "receipt",
            "urn:x: \"1\"\n",
            source,
            "00ff",
            "2026-05-04T10:00:00Z",
        );
        header.signer = Some("key".to_owned());
        let text = write(&header, source);
        let (found, body) = read(&text).unwrap();
        assert_eq!(found, header);
        assert_eq!(reverse(body), source);
        assert_eq!(
            read(&text[..text.len() - 1]),
            Err(Error::Length {
                expected: source.len() as u64,
                found: source.len() as u64 - 1
            })
        );
        assert_eq!(
            read(&text.replace("mu_version", "wrong")),
            Err(Error::Unknown("wrong".to_owned()))
        );
        assert_eq!(read("x"), Err(Error::NoHeader));
        let mut start = text.clone().into_bytes();
        start.truncate(text.len() - 3);
        start.push(0xff);
        assert_eq!(read_header(&start), Ok((header, text.len() - source.len())));
        assert_eq!(read_header(b"---\ntype: \xff\n---\n"), Err(Error::Syntax(2)));
    }

    #[test]
    fn the_signature_covers_every_key_but_itself() {
        let header = Header::of("receipt", "a", "b", "c", "d");
        let signed = header.signed_bytes();
        let with_signature = Header {
            signature: Some("s".to_owned()),
            ..header.clone()
        };
        assert_eq!(with_signature.signed_bytes(), signed);
        for changed in [
            Header {
                kind: "error".to_owned(),
                ..header.clone()
            },
            Header {
                source_digest: "x".to_owned(),
                ..header.clone()
            },
            Header {
                signer: Some(String::new()),
                ..header.clone()
            },
            // The length before each value keeps one from running into the next.
            Header {
                source_id: "a\nsource_bytes 1 1".to_owned(),
                ..header.clone()
            },
        ] {
            assert_ne!(changed.signed_bytes(), signed);
        }
    }

    proptest! {
        #[test]
        fn mirroring_twice_gives_back_every_text(source in any::<String>()) {
            prop_assert_eq!(reverse(&forward(&source)), source);
        }

        #[test]
        fn every_header_reads_back(kind in any::<String>(), id in any::<String>(), source in any::<String>()) {
            let header = Header::of(&kind, &id, &source, "00", "now");
            let text = write(&header, &source);
            let (found, body) = read(&text).unwrap();
            prop_assert_eq!(found, header);
            prop_assert_eq!(reverse(body), source);
        }

        #[test]
        fn reading_a_mirror_never_panics(text in any::<String>()) {
            let _ = read(&text);
            let _ = read(&format!("---\n{text}\n---\n"));
        }
    }
}
