//! Counts of one set, and the table of all.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// How the vectors of one set were judged.
pub struct Tally {
    /// The set, and what is asked of it.
    pub set: String,
    /// Vectors that were judged as they say.
    pub right: usize,
    /// Names of those that were not.
    pub wrong: Vec<String>,
    reasons: BTreeMap<&'static str, usize>,
}

impl Tally {
    /// An empty count.
    pub fn new(set: impl Into<String>) -> Self {
        Self {
            set: set.into(),
            right: 0,
            wrong: Vec::new(),
            reasons: BTreeMap::new(),
        }
    }

    /// Counts one vector.
    pub fn judge(&mut self, id: usize, right: bool) {
        if right {
            self.right += 1;
        } else {
            self.wrong.push(format!("{} {id}", self.set));
        }
    }

    /// Counts `count` vectors that cannot be judged.
    pub fn skip(&mut self, count: usize, reason: &'static str) {
        *self.reasons.entry(reason).or_default() += count;
    }

    /// How many were not judged.
    pub fn skipped(&self) -> usize {
        self.reasons.values().sum()
    }
}

/// The table in Markdown.
pub fn table(tallies: &[Tally]) -> String {
    let mut text =
        String::from("| set | right | wrong | skipped | why skipped |\n| --- | --- | --- | --- | --- |\n");
    let mut row = |set: &str, right: usize, wrong: usize, skipped: usize, why: &str| {
        let why = if why.is_empty() {
            String::new()
        } else {
            format!("{why} ")
        };
        writeln!(text, "| {set} | {right} | {wrong} | {skipped} | {why}|").unwrap();
    };
    for tally in tallies {
        let why: Vec<_> = tally
            .reasons
            .iter()
            .map(|(reason, count)| format!("{count}: {reason}"))
            .collect();
        row(
            &tally.set,
            tally.right,
            tally.wrong.len(),
            tally.skipped(),
            &why.join("; "),
        );
    }
    let sum = |count: fn(&Tally) -> usize| tallies.iter().map(count).sum();
    row(
        "all",
        sum(|tally| tally.right),
        sum(|tally| tally.wrong.len()),
        sum(Tally::skipped),
        "",
    );
    text
}
