//! Many receipts as they are shown: one after the other, and counted.

use std::collections::BTreeMap;
use std::fmt;

use crypto::verify::{Check, Verdict};
use serde::Serialize;

use super::desk::Examined;
use super::exit_code;
use super::named::Named;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::output;

/// One of many receipts. What is signed is left out: it is shown of a receipt that is verified alone.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    receipt: String,
    exit_code: u8,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    #[serde(flatten)]
    outcome: Outcome,
    #[serde(skip)]
    other_pin: bool,
    #[serde(skip)]
    code: ExitCode,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Outcome {
    Examined {
        checks: Vec<Check>,
        verdict: Verdict,
    },
    /// Why the receipt was not looked at.
    Unread {
        error: String,
    },
}

impl Entry {
    pub fn new(receipt: &Named, result: Result<Examined, Error>) -> Self {
        let receipt = receipt.to_string();
        match result {
            Ok(Examined {
                report,
                notes,
                other_pin,
            }) => {
                let code = exit_code(report.verdict);
                Self {
                    receipt,
                    exit_code: code as u8,
                    notes,
                    outcome: Outcome::Examined {
                        checks: report.checks,
                        verdict: report.verdict,
                    },
                    other_pin,
                    code,
                }
            }
            Err(error) => Self {
                receipt,
                exit_code: error.code() as u8,
                notes: Vec::new(),
                outcome: Outcome::Unread {
                    error: error.message().to_owned(),
                },
                other_pin: false,
                code: error.code(),
            },
        }
    }

    /// The receipt's line, and below it what failed, or every check.
    pub fn text(&self, verbose: bool) -> String {
        let mark = if self.code == ExitCode::Ok { "ok  " } else { "FAIL" };
        let mut text = format!(
            "{mark}  {}  {}\n",
            output::harmless(&self.receipt),
            self.outcome.in_words(self.code)
        );
        let below = match &self.outcome {
            Outcome::Examined { checks, .. } => super::checks(checks, |check| verbose || !check.passed),
            Outcome::Unread { error } => output::harmless(error),
        };
        let notes = self.notes.iter().filter(|_| verbose);
        let notes = notes.map(|note| format!("note: {note}"));
        for line in below.lines().map(ToOwned::to_owned).chain(notes) {
            text.push_str("      ");
            text.push_str(&line);
            text.push('\n');
        }
        text
    }
}

impl Outcome {
    fn in_words(&self, code: ExitCode) -> String {
        match self {
            Self::Examined { verdict, .. } => verdict.to_string(),
            Self::Unread { .. } if code == ExitCode::NoReceipt => "no receipt".to_owned(),
            Self::Unread { .. } => "not verified".to_owned(),
        }
    }
}

/// How many receipts ended how.
#[derive(Default)]
pub struct Tally {
    counts: BTreeMap<(u8, String), usize>,
    first_failure: Option<ExitCode>,
    /// Whether one of them met another root than the pinned one.
    pub other_pin: bool,
}

impl Tally {
    pub fn count(&mut self, entry: &Entry) {
        let words = entry.outcome.in_words(entry.code);
        *self.counts.entry((entry.exit_code, words)).or_default() += 1;
        if entry.code != ExitCode::Ok {
            self.first_failure.get_or_insert(entry.code);
        }
        self.other_pin |= entry.other_pin;
    }

    /// That of the first receipt that is not valid.
    pub fn exit_code(&self) -> ExitCode {
        self.first_failure.unwrap_or(ExitCode::Ok)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total: usize = self.counts.values().sum();
        let counts = self.counts.iter();
        let counts: Vec<String> = counts
            .map(|((_, words), count)| format!("{count} {words}"))
            .collect();
        write!(f, "{total} receipts: {}", counts.join(", "))
    }
}
