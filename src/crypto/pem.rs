//! PEM (RFC 7468), strictly: blocks of a known label with nothing but white space around them, lines of 64 characters.

use crate::binary_text::{BASE64, Engine as _};
use zeroize::Zeroizing;

/// Characters in a line but the last.
const LINE: usize = 64;

/// `der` as one block, newline at the end. The text is wiped when it is dropped: it may be a private key.
pub(crate) fn encode(label: &str, der: &[u8]) -> Zeroizing<String> {
    let text = Zeroizing::new(BASE64.encode(der));
    let mut pem = Zeroizing::new(String::with_capacity(
        text.len() + text.len() / LINE + 2 * label.len() + 40,
    ));
    for part in ["-----BEGIN ", label, "-----\n"] {
        pem.push_str(part);
    }
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(LINE));
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
    let mut blocks = decode_blocks(label, text)?;
    if blocks.len() == 1 { blocks.pop() } else { None }
}

/// The DER of each of the blocks that `text` is: one, or two where a key is made of two. `Der` is `Zeroizing` where it is
/// secret, and a plain vector where it is public.
pub(crate) fn decode_blocks<Der>(label: &str, text: &str) -> Option<Vec<Der>>
where
    Der: From<Vec<u8>> + AsMut<Vec<u8>>,
{
    const MOST: usize = 2;
    let mut blocks = Vec::with_capacity(MOST);
    let mut rest = text.trim();
    while !rest.is_empty() {
        if blocks.len() == MOST {
            return None;
        }
        let (block, tail) = decode_first(label, rest)?;
        blocks.push(block);
        rest = tail.trim_start();
        // A block ends with its line.
        if !rest.is_empty() && rest.len() == tail.len() {
            return None;
        }
    }
    (!blocks.is_empty()).then_some(blocks)
}

/// The DER of the block at the start of `text`, and what follows it.
fn decode_first<'a, Der>(label: &str, text: &'a str) -> Option<(Der, &'a str)>
where
    Der: From<Vec<u8>> + AsMut<Vec<u8>>,
{
    let (body, rest) = text
        .strip_prefix("-----BEGIN ")?
        .strip_prefix(label)?
        .strip_prefix("-----")?
        .split_once("-----END ")?;
    let rest = rest.strip_prefix(label)?.strip_prefix("-----")?;
    let mut lines = body.trim_ascii().lines().peekable();
    // Room for all of it: a buffer that grows leaves parts of a private key behind.
    let mut der = Der::from(Vec::with_capacity(body.len()));
    while let Some(line) = lines.next() {
        if lines.peek().is_some() && line.len() != LINE {
            return None;
        }
        BASE64.decode_vec(line, der.as_mut()).ok()?;
    }
    Some((der, rest))
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

    #[test]
    fn two_blocks_are_read_apart_and_nothing_between_or_after_them() {
        let (one, two) = (encode("X", &[1; 60]), encode("X", &[2; 100]));
        let both = format!("{}{}", *one, *two);
        for text in [
            both.clone(),
            both.replace('\n', "\r\n"),
            format!("\n{}\n\n{}\n", *one, *two),
        ] {
            let blocks: Vec<Vec<u8>> = decode_blocks("X", &text).unwrap();
            assert_eq!(blocks.len(), 2);
            assert_eq!(
                (blocks[0].as_slice(), blocks[1].as_slice()),
                (&[1; 60][..], &[2; 100][..])
            );
        }
        assert_eq!(decode_blocks::<Vec<u8>>("X", &one).unwrap().len(), 1);
        for bad in [
            String::new(),
            format!("{both}{}", *one),
            format!("{}x{}", *one, *two),
            format!("{}{}", one.trim_end(), *two),
            both.replacen("END X", "END Y", 1),
            both.replacen("AQEB", "AQ==\nAQEB", 1),
            both.replacen("AQEB", "AQEB ", 1),
            both.replacen("AQEB", "AQEB\n", 1),
            both.replacen("-----END X-----\n", "", 1),
            format!("{both}x"),
            format!("{}{}", *one, *encode("Y", b"y")),
        ] {
            assert!(decode_blocks::<Vec<u8>>("X", &bad).is_none(), "{bad}");
        }
    }
}
