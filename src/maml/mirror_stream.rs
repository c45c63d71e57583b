//! The mirror of a text of any size in little memory: it is read from its end.

use std::io::{self, Read, Seek, SeekFrom, Write};

use crate::mirror::mirror;

/// Bytes that are read at once.
const CHUNK: usize = 256 * 1024;
/// A character has at most this many bytes behind its leading one.
const MAX_CONTINUATION: usize = 3;

/// Why a text could not be mirrored.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// It cannot be read.
    #[error("cannot read the text")]
    Read(#[source] io::Error),
    /// The mirror cannot be written.
    #[error("cannot write the mirror")]
    Write(#[source] io::Error),
    /// It is no text.
    #[error("the byte at offset {0} is not UTF-8")]
    NotUtf8(u64),
}

/// Writes the mirror of the text from the start of `source` to its end, and gives its length in bytes. What is written before
/// a fault is found is of no use.
pub fn forward_stream(source: &mut (impl Read + Seek), target: &mut impl Write) -> Result<u64, StreamError> {
    reverse_stream(source, 0, target)
}

/// As [`forward_stream`], from the offset at which the body of a mirrored text begins.
pub fn reverse_stream(
    source: &mut (impl Read + Seek),
    body: u64,
    target: &mut impl Write,
) -> Result<u64, StreamError> {
    let length = source.seek(SeekFrom::End(0)).map_err(StreamError::Read)?;
    let mut buffer = Vec::with_capacity(CHUNK + MAX_CONTINUATION);
    // The bytes at the start of a chunk that belong to a character which starts before it.
    let mut carried: Vec<u8> = Vec::new();
    let mut end = length;
    while end > body {
        let start = end.saturating_sub(CHUNK as u64).max(body);
        source.seek(SeekFrom::Start(start)).map_err(StreamError::Read)?;
        buffer.resize(usize::try_from(end - start).unwrap_or(CHUNK), 0);
        source.read_exact(&mut buffer).map_err(StreamError::Read)?;
        buffer.extend_from_slice(&carried);
        let continued = if start == body { 0 } else { continued(&buffer) };
        let whole = &mut buffer[continued..];
        if let Err(error) = std::str::from_utf8(whole) {
            let at = (continued + error.valid_up_to()) as u64;
            return Err(StreamError::NotUtf8(start + at));
        }
        mirror(whole);
        target.write_all(whole).map_err(StreamError::Write)?;
        carried.clear();
        carried.extend_from_slice(&buffer[..continued]);
        end = start;
    }
    target.flush().map_err(StreamError::Write)?;
    Ok(length.saturating_sub(body))
}

/// How many bytes at the start belong to a character before them.
fn continued(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .take(MAX_CONTINUATION)
        .take_while(|byte| **byte & 0b1100_0000 == 0b1000_0000)
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::{Header, forward, read_header, write};
    use proptest::prelude::*;
    use std::io::Cursor;

    fn streamed(source: &[u8]) -> Result<Vec<u8>, StreamError> {
        let mut target = Vec::new();
        forward_stream(&mut Cursor::new(source), &mut target)?;
        Ok(target)
    }

    #[test]
    fn characters_across_the_borders_of_chunks_stay_whole() {
        for sign in ["a", "é", "€", "😀"] {
            for shift in 0..5 {
                let source = format!("{}{}", "x".repeat(shift), sign.repeat(3 * CHUNK / sign.len()));
                assert_eq!(
                    streamed(source.as_bytes()).unwrap(),
                    forward(&source).into_bytes()
                );
            }
        }
        assert_eq!(streamed(b"").unwrap(), b"");
    }

    #[test]
    fn the_body_of_a_mirrored_text_is_mirrored_back() {
        let source = "ab€😀".repeat(CHUNK / 4);
        let header = Header::of("receipt", "a", &source, "00", "2026-05-04T10:00:00Z");
        let text = write(&header, &source);
        let (found, body) = read_header(&text.as_bytes()[..400]).unwrap();
        assert_eq!(found, header);
        let mut back = Vec::new();
        let length = reverse_stream(&mut Cursor::new(&text), body as u64, &mut back).unwrap();
        assert_eq!((length, back), (source.len() as u64, source.into_bytes()));
    }

    #[test]
    fn bytes_that_are_no_text_are_named() {
        let mut source = "€".repeat(CHUNK).into_bytes();
        let at = CHUNK + 100 - (CHUNK + 100) % 3;
        source[at] = 0xff;
        assert!(matches!(streamed(&source), Err(StreamError::NotUtf8(found)) if found == at as u64));
        for bad in [
            &b"\x80"[..],
            b"ab\xe2\x82",
            b"\xe2\x82",
            b"a\x80\x80\x80\x80",
            &vec![0x80; 2 * CHUNK],
        ] {
            assert!(matches!(streamed(bad), Err(StreamError::NotUtf8(_))));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn the_stream_writes_what_the_mirror_is(text in any::<String>(), filler in 0_usize..5) {
            let source = format!("{}{text}{}", "ab€".repeat(filler * 10_000), "é".repeat(CHUNK / 2 - 3));
            prop_assert_eq!(streamed(source.as_bytes()).unwrap(), forward(&source).into_bytes());
        }

        #[test]
        fn any_bytes_are_mirrored_or_refused(source in prop::collection::vec(any::<u8>(), 0..64)) {
            match std::str::from_utf8(&source) {
                Ok(text) => prop_assert_eq!(streamed(&source).unwrap(), forward(text).into_bytes()),
                Err(_) => prop_assert!(streamed(&source).is_err()),
            }
        }
    }
}
