//! SARIF 2.1.0 (OASIS), the part of it that says findings: one run, its rules, its results.

use maml::{Code, Severity};
use serde::Serialize;

use crate::lint::Report;

/// The root of a SARIF file.
#[derive(Serialize)]
pub struct Log {
    #[serde(rename = "$schema")]
    schema: &'static str,
    version: &'static str,
    runs: [Run; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Run {
    tool: Tool,
    column_kind: &'static str,
    results: Vec<Finding>,
}

#[derive(Serialize)]
struct Tool {
    driver: Driver,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Driver {
    name: &'static str,
    version: &'static str,
    information_uri: &'static str,
    rules: Vec<Rule>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    id: &'static str,
    short_description: Text,
    full_description: Text,
}

#[derive(Serialize)]
struct Text {
    text: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Finding {
    rule_id: &'static str,
    rule_index: usize,
    level: &'static str,
    message: Text,
    locations: [Location; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Location {
    physical_location: PhysicalLocation,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PhysicalLocation {
    artifact_location: ArtifactLocation,
    region: Region,
}

#[derive(Serialize)]
struct ArtifactLocation {
    uri: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Region {
    start_line: u32,
    start_column: u32,
    end_line: u32,
    end_column: u32,
}

/// All reports as one run of this tool.
pub fn log(reports: &[Report]) -> Log {
    let rules = Code::ALL.iter().map(|code| Rule {
        id: code.as_str(),
        short_description: Text {
            text: code.title().to_owned(),
        },
        full_description: Text {
            text: code
                .explanation()
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" "),
        },
    });
    let driver = Driver {
        name: "chimera",
        version: env!("CARGO_PKG_VERSION"),
        information_uri: "https://chimera.dunes.io",
        rules: rules.collect(),
    };
    let results = reports.iter().flat_map(|report| {
        report.diagnostics.iter().map(|found| {
            let hint = found
                .hint
                .as_ref()
                .map(|hint| format!(" (hint: {hint})"))
                .unwrap_or_default();
            Finding {
                rule_id: found.code.as_str(),
                rule_index: Code::ALL
                    .iter()
                    .position(|code| *code == found.code)
                    .unwrap_or_default(),
                level: match found.severity {
                    Severity::Error => "error",
                    Severity::Warning => "warning",
                    Severity::Info => "note",
                },
                message: Text {
                    text: format!("{}{hint}", found.message),
                },
                locations: [Location {
                    physical_location: PhysicalLocation {
                        artifact_location: ArtifactLocation {
                            uri: uri(&report.path),
                        },
                        region: Region {
                            start_line: found.start.line,
                            start_column: found.start.column,
                            end_line: found.end.line,
                            end_column: found.end.column,
                        },
                    },
                }],
            }
        })
    });
    Log {
        schema: "https://json.schemastore.org/sarif-2.1.0.json",
        version: "2.1.0",
        runs: [Run {
            tool: Tool { driver },
            column_kind: "unicodeCodePoints",
            results: results.collect(),
        }],
    }
}

/// A path as a relative or absolute URI reference (RFC 3986).
fn uri(path: &str) -> String {
    let mut uri = String::with_capacity(path.len());
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                uri.push(char::from(byte));
            }
            b'\\' => uri.push('/'),
            _ => uri.extend(escaped(byte)),
        }
    }
    uri
}

/// `%20` for a space.
fn escaped(byte: u8) -> impl Iterator<Item = char> {
    let digit = |nibble: u8| {
        char::from_digit(u32::from(nibble), 16)
            .unwrap_or('0')
            .to_ascii_uppercase()
    };
    ['%', digit(byte >> 4), digit(byte & 15)].into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_uris() {
        assert_eq!(uri("a b/ü.maml.md"), "a%20b/%C3%BC.maml.md");
    }
}
