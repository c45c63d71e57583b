//! Durations as users write them (`24h`, `1h30m`) and as tables show them (`42ms`, `1.5s`).
//!
//! The written form is the one that CEL's `duration()` and Go read, so that the API server, the
//! controller and people agree on it. Days are not part of it: a day has no fixed length.

use std::{fmt, time::Duration};

use thiserror::Error;

/// The form of a written duration, as the kinds' schemas check it.
pub const PATTERN: &str = r"^([0-9]{1,9}(ms|s|m|h))+$";

/// Why a text is not a duration.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ParseError {
    /// The text is empty.
    #[error("the duration is empty; write for example `24h` or `90s`")]
    Empty,
    /// A number was expected at this byte.
    #[error("a number was expected at byte {0} of the duration")]
    Number(usize),
    /// A unit was expected at this byte.
    #[error("a unit (ms, s, m or h) was expected at byte {0} of the duration")]
    Unit(usize),
    /// The sum does not fit.
    #[error("the duration is too long")]
    TooLong,
}

/// Reads a duration such as `24h`, `1h30m` or `250ms`.
pub fn parse(text: &str) -> Result<Duration, ParseError> {
    if text.is_empty() {
        return Err(ParseError::Empty);
    }
    let mut total = 0_u64;
    let mut rest = text;
    while !rest.is_empty() {
        let at = text.len() - rest.len();
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return Err(ParseError::Number(at));
        }
        let number: u64 = rest[..digits].parse().map_err(|_| ParseError::TooLong)?;
        rest = &rest[digits..];
        let (unit, millis) = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)]
            .into_iter()
            .find(|(unit, _)| rest.starts_with(unit))
            .ok_or(ParseError::Unit(at + digits))?;
        rest = &rest[unit.len()..];
        total = number
            .checked_mul(millis)
            .and_then(|part| total.checked_add(part))
            .ok_or(ParseError::TooLong)?;
    }
    Ok(Duration::from_millis(total))
}

/// A duration in milliseconds as a table shows it: `42ms`, `1.5s`, `3m20s`, `2h5m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Printed(pub i64);

impl fmt::Display for Printed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.max(0);
        let seconds = millis / 1_000;
        match seconds {
            0 => write!(formatter, "{millis}ms"),
            1..=59 => {
                let tenths = (millis % 1_000) / 100;
                if tenths == 0 {
                    write!(formatter, "{seconds}s")
                } else {
                    write!(formatter, "{seconds}.{tenths}s")
                }
            }
            60..=3_599 => write!(formatter, "{}m{}s", seconds / 60, seconds % 60),
            _ => write!(formatter, "{}h{}m", seconds / 3_600, seconds % 3_600 / 60),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        for (text, seconds) in [
            ("24h", 86_400),
            ("60s", 60),
            ("1h30m", 5_400),
            ("2160h", 7_776_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert_eq!(parse("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse("1m1ms"), Ok(Duration::from_millis(60_001)));
    }

    #[test]
    fn what_is_no_duration_is_refused_with_its_place() {
        assert_eq!(parse(""), Err(ParseError::Empty));
        assert_eq!(parse("h"), Err(ParseError::Number(0)));
        assert_eq!(parse("10"), Err(ParseError::Unit(2)));
        assert_eq!(parse("1d"), Err(ParseError::Unit(1)));
        assert_eq!(parse("1h x"), Err(ParseError::Number(2)));
        assert_eq!(parse("1é"), Err(ParseError::Unit(1)));
        assert_eq!(parse("99999999999999999999h"), Err(ParseError::TooLong));
        assert_eq!(parse("9999999999999999h"), Err(ParseError::TooLong));
    }

    #[test]
    fn durations_are_printed_short() {
        for (millis, text) in [
            (-5, "0ms"),
            (0, "0ms"),
            (42, "42ms"),
            (1_000, "1s"),
            (1_590, "1.5s"),
            (61_000, "1m1s"),
            (7_500_000, "2h5m"),
        ] {
            assert_eq!(Printed(millis).to_string(), text);
        }
    }
}
