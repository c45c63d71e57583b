//! Bytes as text: base64 of the standard alphabet with padding (RFC 4648, section 4), read strictly.
//!
//! Envelopes are mostly base64, so the engine is the fastest that this processor has. All engines agree on every byte.

#[cfg(any(target_arch = "x86_64", all(target_arch = "aarch64", target_feature = "neon")))]
mod engine {
    use base64::engine::{Simd, general_purpose::PAD};
    use std::sync::LazyLock;

    pub(crate) static BASE64: LazyLock<Simd> = LazyLock::new(|| Simd::standard(PAD));
}

#[cfg(not(any(target_arch = "x86_64", all(target_arch = "aarch64", target_feature = "neon"))))]
mod engine {
    pub(crate) use base64::engine::general_purpose::STANDARD as BASE64;
}

pub(crate) use base64::Engine;
pub(crate) use engine::BASE64;

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::STANDARD;

    #[test]
    fn the_fast_engine_reads_and_writes_exactly_what_the_plain_one_does() {
        let bytes: Vec<u8> = (0..=u8::MAX).cycle().step_by(167).take(997).collect();
        for length in [0, 1, 2, 3, 47, 48, 49, 95, 96, 97, 200, 997] {
            let text = STANDARD.encode(&bytes[..length]);
            assert_eq!(BASE64.encode(&bytes[..length]), text);
            assert_eq!(BASE64.decode(&text).unwrap(), &bytes[..length]);
            for index in 0..text.len() {
                for other in [b'A', b'/', b'-', b'_', b'=', b' ', b'\n', 0, 0x80, 0xff] {
                    let mut bent = text.clone().into_bytes();
                    bent[index] = other;
                    assert_eq!(
                        BASE64.decode(&bent).ok(),
                        STANDARD.decode(&bent).ok(),
                        "{index} {other}"
                    );
                }
            }
            for cut in 0..text.len() {
                assert_eq!(
                    BASE64.decode(&text[..cut]).ok(),
                    STANDARD.decode(&text[..cut]).ok()
                );
            }
        }
    }
}
