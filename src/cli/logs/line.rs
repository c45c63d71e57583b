//! One line of what a run printed, as the agent in a head's pod writes it among the lines of other runs.

use serde::{Deserialize, Serialize};

use crate::output;

/// One line of a run's output, as the agent in the head prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogLine {
    /// The run that printed it.
    pub run_id: String,
    /// The block that was running; none before the first and after the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<String>,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// The line, without its end.
    pub line: String,
    /// When.
    #[serde(default)]
    pub timestamp: String,
}

impl LogLine {
    /// The line, when it is one of this run. Anything else in the pod's log is the agent's own.
    pub fn of_run(line: &str, run_id: &str) -> Option<Self> {
        // Most lines of a busy head are of other runs: look before parsing.
        if !line.contains(run_id) {
            return None;
        }
        serde_json::from_str(line)
            .ok()
            .filter(|found: &Self| found.run_id == run_id)
    }

    /// Whether it came while `block` was running; without one, every line is asked for.
    pub fn is_of(&self, block: Option<&str>) -> bool {
        block.is_none_or(|block| self.block.as_deref() == Some(block))
    }

    /// For a terminal. With `raw`, what could control the terminal stays in.
    pub fn text(&self, raw: bool, timestamps: bool) -> String {
        let text = if raw {
            self.line.clone()
        } else {
            output::harmless(&self.line)
        };
        if timestamps {
            format!("{} {text}\n", output::harmless(&self.timestamp))
        } else {
            format!("{text}\n")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_picked_by_the_block_they_name() {
        let line = |block: &str| {
            let text = format!("{{\"runId\":\"abc\",{block}\"stream\":\"stdout\",\"line\":\"hi\"}}");
            LogLine::of_run(&text, "abc").unwrap()
        };
        // An agent that knows nothing of blocks leaves them out.
        let (named, nameless) = (line("\"block\":\"load\","), line(""));
        assert!(named.is_of(None) && nameless.is_of(None));
        assert!(named.is_of(Some("load")) && !nameless.is_of(Some("load")));
        assert!(!named.is_of(Some("loa")) && !named.is_of(Some("")));
    }

    #[test]
    fn only_the_lines_of_the_run_are_taken() {
        let line = |run: &str| {
            format!(
                "{{\"runId\":\"{run}\",\"stream\":\"stdout\",\"line\":\"hi\",\"timestamp\":\"2026-05-04T10:00:00Z\"}}"
            )
        };
        assert_eq!(
            LogLine::of_run(&line("abc"), "abc").map(|found| found.line),
            Some("hi".to_owned())
        );
        assert_eq!(LogLine::of_run(&line("abd"), "abc"), None);
        assert_eq!(LogLine::of_run("{\"message\":\"run abc started\"}", "abc"), None);
        assert_eq!(LogLine::of_run("abc", "abc"), None);
        // A program that prints such a line prints it inside of one.
        let forged = "{\"runId\":\"xyz\",\"stream\":\"stdout\",\"line\":\"{\\\"runId\\\":\\\"abc\\\"}\"}";
        assert_eq!(LogLine::of_run(forged, "abc"), None);
    }
}
