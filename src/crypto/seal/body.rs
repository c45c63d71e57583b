//! The body of a seal: STREAM (Hoang, Reyhanitabar, Rogaway and Vizár, <https://eprint.iacr.org/2015/189>) over
//! AES-256-GCM, as the crate `aead-stream` builds it: a 7-byte prefix, a 32-bit counter and a byte that marks the last
//! chunk make the nonce. The key serves one body only, so the prefix is zero. Memory does not grow with the body.

use super::Error;
use super::schedule::LEN;
use aead_stream::{NewStream as _, StreamBE32, StreamPrimitive as _};
use aes_gcm::Aes256Gcm;
use std::io::{Read, Write};
use zeroize::Zeroizing;

/// Bytes of plaintext in every chunk but the last.
pub(super) const CHUNK: usize = 64 * 1024;
const TAG: usize = 16;

/// How long the body of so much plaintext is.
pub(super) const fn sealed_len(plaintext: usize) -> usize {
    plaintext
        + TAG
            * (if plaintext == 0 {
                1
            } else {
                plaintext.div_ceil(CHUNK)
            })
}

pub(super) fn encrypt(
    key: &[u8; LEN],
    context: &[u8],
    from: &mut impl Read,
    to: &mut impl Write,
) -> Result<(), Error> {
    let stream = stream(key);
    each_chunk(from, to, CHUNK, |position, last, chunk| {
        stream
            .encrypt_in_place(position, last, context, chunk)
            .map_err(|_| Error::TooLarge)
    })
}

/// Each chunk is written when it proved genuine; that none is missing at the end is known only when this returns.
pub(super) fn decrypt(
    key: &[u8; LEN],
    context: &[u8],
    from: &mut impl Read,
    to: &mut impl Write,
) -> Result<(), Error> {
    let stream = stream(key);
    each_chunk(from, to, CHUNK + TAG, |position, last, chunk| {
        stream
            .decrypt_in_place(position, last, context, chunk)
            .map_err(|_| Error::Damaged)?;
        // An empty last chunk would be a second way to write the same plaintext.
        if chunk.is_empty() && position > 0 {
            return Err(Error::Damaged);
        }
        Ok(())
    })
}

fn stream(key: &[u8; LEN]) -> StreamBE32<Aes256Gcm> {
    StreamBE32::new(&(*key).into(), &[0; 7].into())
}

/// Writes every chunk as `change` leaves it, which is given its position, whether it is the last, and its bytes. There is
/// always one.
fn each_chunk(
    from: &mut impl Read,
    to: &mut impl Write,
    size: usize,
    change: impl Fn(u32, bool, &mut Vec<u8>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut chunk = read_chunk(from, size)?;
    for position in 0..u32::MAX {
        let next = read_chunk(from, size)?;
        let last = next.is_empty();
        change(position, last, &mut chunk)?;
        to.write_all(&chunk)?;
        if last {
            return Ok(());
        }
        chunk = next;
    }
    Err(Error::TooLarge)
}

fn read_chunk(from: &mut impl Read, size: usize) -> Result<Zeroizing<Vec<u8>>, Error> {
    // Room for the tag: a buffer that grew would leave plaintext behind.
    let mut chunk = Zeroizing::new(Vec::with_capacity(size + TAG));
    from.take(size as u64).read_to_end(&mut chunk)?;
    Ok(chunk)
}
