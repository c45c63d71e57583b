//! Whether what a run gives as its outputs may be taken for outputs.

use crate::execution::failure;
use crate::reason;
use crypto::attestation::RunError;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

/// The outputs of a run, at most.
pub const LONGEST_OUTPUTS: usize = 8 << 20;

/// Outputs are one JSON object of bounded size and depth that every reader understands alike. Read without being built: a
/// few bytes of text can stand for many of memory.
pub(crate) fn check_outputs(outputs: Vec<u8>) -> Result<Vec<u8>, RunError> {
    let refuse = |what: String| Err(failure(reason::INVALID_OUTPUT, what));
    let Ok(text) = std::str::from_utf8(&outputs) else {
        return refuse("the outputs are not UTF-8".into());
    };
    if !text.starts_with('{') {
        return refuse("the outputs are not one JSON object".into());
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    if let Err(error) = Unambiguous.deserialize(&mut reader).and_then(|()| reader.end()) {
        return refuse(format!("the outputs are not JSON: {error}"));
    }
    Ok(outputs)
}

/// Any JSON value with distinct keys, whole Unicode text and numbers that a double can hold. serde_json bounds the depth.
struct Unambiguous;

#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> DeserializeSeed<'de> for Unambiguous {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unambiguous {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let mut keys = Vec::new();
        while let Some(Key(key)) = entries.next_key()? {
            keys.push(key);
            entries.next_value_seed(Self)?;
        }
        keys.sort_unstable();
        match keys.windows(2).find(|pair| pair[0] == pair[1]) {
            None => Ok(()),
            Some(twice) => Err(A::Error::custom(format_args!(
                "the key {:?} is there twice",
                twice[0]
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outputs_that_are_no_object_too_deep_or_open_to_doubt_are_refused() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(200), "]".repeat(200));
        let bad = [
            "[1]",
            "{\"a\":NaN}",
            "{\"a\":1} x",
            "",
            "{\"a\":1e400}",
            r#"{"a":1,"a":2}"#,
            r#"{"b":[{"a":1,"\u0061":2}]}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"\udfff":1}"#,
            deep.as_str(),
        ];
        for bad in bad {
            assert!(check_outputs(bad.as_bytes().to_vec()).is_err(), "{bad}");
        }
        for good in [
            r#"{"a":[1.5,"x",null,{"a":"\ud83d\ude00"},-3,18446744073709551615]}"#,
            "{}",
        ] {
            assert!(check_outputs(good.as_bytes().to_vec()).is_ok(), "{good}");
        }
    }
}
