//! Whether what a run gives as its outputs may be taken for outputs.

use crate::execution::failure;
use crate::reason;
use crypto::attestation::RunError;

/// The outputs of a run, at most.
pub const LONGEST_OUTPUTS: usize = 8 << 20;
/// Nesting of the outputs, at most: twice what the child's own conversion allows.
const DEEPEST_OUTPUTS: usize = 128;

/// Outputs are one JSON object of bounded size and depth. Read without being built: a few bytes of text can stand for
/// many of memory.
pub(crate) fn check_outputs(outputs: Vec<u8>) -> Result<Vec<u8>, RunError> {
    let refuse = |what: String| Err(failure(reason::INVALID_OUTPUT, what));
    let Ok(text) = std::str::from_utf8(&outputs) else {
        return refuse("the outputs are not UTF-8".into());
    };
    if !text.starts_with('{') {
        return refuse("the outputs are not one JSON object".into());
    }
    if let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text) {
        return refuse(format!("the outputs are not JSON: {error}"));
    }
    if depth(&outputs) > DEEPEST_OUTPUTS {
        return refuse(format!("the outputs are nested more than {DEEPEST_OUTPUTS} deep"));
    }
    Ok(outputs)
}

/// The deepest nesting of a text that is known to be JSON.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_text, mut escaped) = (0_usize, 0, false, false);
    for &byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_brackets_outside_of_text() {
        assert_eq!(depth(br#"{"a":[1,{"b]]":"\"[[["}]}"#), 3);
    }

    #[test]
    fn outputs_that_are_no_object_or_too_deep_are_refused() {
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(200), "]".repeat(200));
        for bad in ["[1]", "{\"a\":NaN}", "{\"a\":1} x", "", deep.as_str()] {
            assert!(check_outputs(bad.as_bytes().to_vec()).is_err(), "{bad}");
        }
        assert!(check_outputs(br#"{"a":[1.5,"x",null]}"#.to_vec()).is_ok());
    }
}
