//! Data on stdout: a table for people, JSON or YAML for programs. Colour only where a terminal shows it.

use std::io::Write;

use clap::ValueEnum;
use serde::Serialize;

use crate::error::Error;

/// How data is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// JSON, indented.
    Json,
    /// YAML.
    Yaml,
}

impl Format {
    /// Writes `value`, or for people what `table` makes of it.
    pub fn print<T: Serialize>(self, value: &T, table: impl FnOnce(&T) -> String) -> Result<(), Error> {
        match self {
            Self::Table => print(&table(value)),
            Self::Json => print_json(value),
            Self::Yaml => {
                let yaml = serde_saphyr::to_string(value)
                    .map_err(|cause| Error::failed("cannot write YAML").because(&cause))?;
                print(&yaml)
            }
        }
    }
}

/// Writes `value` as indented JSON.
pub fn print_json<T: Serialize>(value: &T) -> Result<(), Error> {
    let json = serde_json::to_string_pretty(value)
        .map_err(|cause| Error::failed("cannot write JSON").because(&cause))?;
    print(&json)
}

/// Writes a text, ended by a line feed. Styles are dropped where stdout is no terminal or NO_COLOR is set.
pub fn print(text: &str) -> Result<(), Error> {
    let end = if text.is_empty() || text.ends_with('\n') {
        ""
    } else {
        "\n"
    };
    let mut stdout = anstream::stdout().lock();
    write!(stdout, "{text}{end}")
        .and_then(|()| stdout.flush())
        .map_err(|cause| Error::of_stdout(&cause))
}

/// Writes bytes as they are.
pub fn print_raw(bytes: &[u8]) -> Result<(), Error> {
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(bytes)
        .and_then(|()| stdout.flush())
        .map_err(|cause| Error::of_stdout(&cause))
}

/// Tells the user something on stderr.
pub fn note(text: impl std::fmt::Display) {
    anstream::eprintln!("{text}");
}

/// Rows below a heading, in columns as wide as their widest cell.
pub fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count());
        cells.chain([heading[column].len()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    let mut text = String::new();
    let heading = heading.iter().map(ToString::to_string).collect();
    for row in std::iter::once(&heading).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width + 3 - cell.chars().count()));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Text that came from elsewhere, without what could control the terminal: escape sequences and control characters but for
/// tabs.
pub fn harmless(text: &str) -> String {
    let stripped = anstream::adapter::strip_str(text).to_string();
    stripped
        .chars()
        .filter(|sign| !sign.is_control() || *sign == '\t')
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [
            vec!["a".to_owned(), "bb".to_owned()],
            vec!["cccc".to_owned(), String::new()],
        ];
        assert_eq!(table(&["X", "LONG"], &rows), "X      LONG\na      bb\ncccc\n");
    }

    #[test]
    fn text_from_elsewhere_cannot_control_the_terminal() {
        assert_eq!(
            harmless("a\u{1b}[31mb\u{1b}[0m\tc\u{7}\u{1b}]0;title\u{7}d\r\u{9b}2J"),
            "ab\tcd2J"
        );
    }
}
