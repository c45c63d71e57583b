//! What a run needs: Python packages, GPUs, memory, qubits, the network.
//!
//! The key is a map or a list in real documents, and its values are lists or single words; all of them are read.

use serde::Serialize;
use serde_json::Value;

use crate::codes::Code;
use crate::diagnostic::Findings;
use crate::front_matter::{texts, wrong_type};
use crate::place::Span;
use crate::yaml::{Data, Key, Node};

/// What a run needs.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Requires {
    /// Python packages, as PEP 508 requirements.
    pub packages: Vec<String>,
    /// GPUs.
    pub gpus: u32,
    /// The version of CUDA that the driver must run: a specifier such as `>=12` (PEP 440), or a bare version such as
    /// `12.4`, which asks for at least that.
    pub cuda: Option<String>,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Qubits of a circuit whose state vector is simulated.
    pub qubits: Option<u32>,
    /// Whether the code needs the network; whether it gets it is up to the head.
    pub network: bool,
    /// The value as JSON.
    pub raw: Value,
}

/// More GPUs than any one head has.
const MAX_GPUS: u32 = 64;

/// Reads the value of `requires`.
pub(crate) fn requires(node: &Node, findings: &mut Findings<'_>) -> Requires {
    let mut requires = Requires {
        raw: node.to_json(),
        ..Requires::default()
    };
    match &node.data {
        Data::Null => {}
        Data::Map(entries) => {
            for (key, value) in entries {
                entry(&mut requires, key, value, findings);
            }
        }
        Data::List(items) => {
            for item in items {
                match &item.data {
                    Data::Map(entries) => {
                        for (key, value) in entries {
                            entry(&mut requires, key, value, findings);
                        }
                    }
                    _ => match item.scalar() {
                        Some(word) => listed(&mut requires, word.trim(), item.span, findings),
                        None => wrong_type("an entry of requires", "text or a map", item, findings),
                    },
                }
            }
        }
        _ => {
            for (word, span) in texts(node, "requires", findings) {
                listed(&mut requires, &word, span, findings);
            }
        }
    }
    requires
}

/// A bare word of a list: the name of a resource, or else a package.
fn listed(requires: &mut Requires, word: &str, span: Span, findings: &mut Findings<'_>) {
    match word.to_ascii_lowercase().as_str() {
        "network" | "internet" => requires.network = true,
        "python" | "python3" => {}
        lower if names_gpu(lower) => {
            requires.gpus = requires.gpus.max(gpus_of(lower));
            let version = lower.strip_prefix("cuda").map(str::trim);
            if let Some(version) = version.filter(|version| is_specifiers(version)) {
                requires.cuda = Some(version.to_owned());
            }
        }
        _ => package(requires, word, span, findings),
    }
}

fn entry(requires: &mut Requires, key: &Key, value: &Node, findings: &mut Findings<'_>) {
    let name = key.text.as_str();
    match name.to_ascii_lowercase().as_str() {
        "libs" | "libraries" | "packages" | "python_packages" | "pip" => {
            packages(requires, name, value, findings);
        }
        "python" => match value.scalar() {
            // `python: ">=3.11"` asks for an interpreter, `python: numpy` for a package.
            Some(version) if is_version(&version) => {
                let message =
                    format!("the Python version `{version}` is not checked; heads bring their own Python");
                findings.info(Code::RequirementUnknown, value.span, message, "");
            }
            _ => packages(requires, name, value, findings),
        },
        "gpu" | "gpus" => requires.gpus = requires.gpus.max(gpus(value, findings)),
        "cuda" => {
            requires.gpus = requires.gpus.max(gpus(value, findings));
            cuda(requires, value, findings);
        }
        "memory" | "ram" => memory(requires, name, value, findings),
        "qubits" => qubits(requires, name, value, findings),
        "resources" | "hardware" => resources(requires, value, findings),
        "network" | "internet" => match &value.data {
            Data::Bool(network) => requires.network = *network,
            Data::Null => {}
            _ => match value.scalar().map(|word| word.to_ascii_lowercase()).as_deref() {
                Some("yes" | "on" | "full" | "required") => requires.network = true,
                Some("no" | "off" | "none") => {}
                _ => wrong_type("requires.network", "true or false", value, findings),
            },
        },
        _ if matches!(value.data, Data::Null) && is_pep508(name) => {
            package(requires, name, key.span, findings);
        }
        _ => no_effect(name, key.span, findings),
    }
}

fn no_effect(name: &str, span: Span, findings: &mut Findings<'_>) {
    findings.info(
        Code::RequirementUnknown,
        span,
        format!("requires.{name} is kept but has no effect on a run"),
        "",
    );
}

fn packages(requires: &mut Requires, name: &str, value: &Node, findings: &mut Findings<'_>) {
    if let Data::Map(entries) = &value.data {
        // {qiskit: ">=1.0"}
        for (key, version) in entries {
            let written = version.scalar().unwrap_or_default();
            let version = written.trim();
            let requirement = match version {
                "" | "*" | "latest" => key.text.clone(),
                _ if version.starts_with(|first: char| first.is_ascii_digit()) => {
                    format!("{}=={version}", key.text)
                }
                _ => format!("{}{version}", key.text),
            };
            package(requires, &requirement, key.span, findings);
        }
        return;
    }
    for (word, span) in texts(value, &format!("requires.{name}"), findings) {
        package(requires, &word, span, findings);
    }
}

fn package(requires: &mut Requires, word: &str, span: Span, findings: &mut Findings<'_>) {
    if !is_pep508(word) {
        let message = format!("`{word}` is not a PEP 508 requirement and is not asked for");
        findings.warn(
            Code::InvalidPackage,
            span,
            message,
            "write name>=version, such as numpy>=2",
        );
    } else if !requires.packages.iter().any(|known| known == word) {
        requires.packages.push(word.to_owned());
    }
}

fn resources(requires: &mut Requires, value: &Node, findings: &mut Findings<'_>) {
    match &value.data {
        Data::Map(entries) => {
            for (key, value) in entries {
                match key.text.to_ascii_lowercase().as_str() {
                    "network" | "internet" | "cuda" | "memory" | "ram" | "qubits" => {
                        entry(requires, key, value, findings);
                    }
                    name if names_gpu(name) => requires.gpus = requires.gpus.max(gpus(value, findings)),
                    _ => no_effect(&format!("resources.{}", key.text), key.span, findings),
                }
            }
        }
        _ => {
            for (word, span) in texts(value, "requires.resources", findings) {
                let lower = word.to_ascii_lowercase();
                if names_gpu(&lower) {
                    requires.gpus = requires.gpus.max(gpus_of(&lower));
                } else if lower == "network" {
                    requires.network = true;
                } else {
                    no_effect(&format!("resources `{word}`"), span, findings);
                }
            }
        }
    }
}

/// `cuda: 12.4` and `cuda: ">=12"` name a version, `cuda: 2` and `cuda: true` a count.
fn cuda(requires: &mut Requires, value: &Node, findings: &mut Findings<'_>) {
    let version = value
        .scalar()
        .map(|text| text.trim().to_owned())
        .filter(|text| is_version(text) && text.parse::<u32>().is_err());
    match version {
        Some(version) if is_bare_version(&version) || is_specifiers(&version) => {
            requires.cuda = Some(version);
        }
        Some(_) => not_read("cuda", "a version such as 12.4 or >=12", value, findings),
        None => {}
    }
}

fn memory(requires: &mut Requires, name: &str, value: &Node, findings: &mut Findings<'_>) {
    match value.scalar().and_then(|text| bytes(&text)) {
        Some(bytes) => requires.memory_bytes = Some(bytes),
        None => not_read(name, "a size such as 16Gi", value, findings),
    }
}

fn qubits(requires: &mut Requires, name: &str, value: &Node, findings: &mut Findings<'_>) {
    match value.scalar().and_then(|text| text.trim().parse().ok()) {
        Some(count) => requires.qubits = Some(count),
        None => not_read(name, "a whole number", value, findings),
    }
}

/// What decides nothing refuses nothing either.
fn not_read(name: &str, wanted: &str, value: &Node, findings: &mut Findings<'_>) {
    let message = format!("requires.{name} is not {wanted}; it is kept but has no effect on a run");
    findings.info(Code::RequirementUnknown, value.span, message, "");
}

/// `1024`, `512M`, `16GB` and `1.5Gi` in bytes; `K`, `M`, `G`, `T` are powers of 1000, with `i` of 1024.
fn bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text
        .find(|sign: char| !sign.is_ascii_digit() && sign != '.')
        .unwrap_or(text.len());
    let (count, unit) = text.split_at(digits);
    let unit = unit.trim().to_ascii_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let (prefix, base) = match unit.strip_suffix('i') {
        Some(prefix) => (prefix, 1024_u64),
        None => (unit, 1000),
    };
    let power = ["", "k", "m", "g", "t"]
        .iter()
        .position(|known| *known == prefix)?;
    let factor = u128::from(base.pow(u32::try_from(power).ok()?));
    let (whole, part) = count.split_once('.').unwrap_or((count, ""));
    // More digits than these are below one byte.
    let part = part.get(..15).unwrap_or(part);
    let digits = format!("{whole}{part}").parse::<u64>().ok()?;
    let size = u128::from(digits) * factor / 10_u128.pow(u32::try_from(part.len()).ok()?);
    u64::try_from(size).ok().filter(|size| *size > 0)
}

fn names_gpu(word: &str) -> bool {
    ["gpu", "cuda", "nvidia"].iter().any(|name| word.contains(name))
}

/// `2 gpus`, `gpu: 2` and `cuda>=12` in a list of words.
fn gpus_of(word: &str) -> u32 {
    let count = |text: &str| text.trim().parse::<u32>().ok();
    let behind = word
        .strip_prefix("gpus")
        .or_else(|| word.strip_prefix("gpu"))
        .and_then(|rest| rest.trim_start().strip_prefix([':', '=', 'x']).and_then(count));
    let before = word
        .split(|sign: char| !sign.is_ascii_digit())
        .next()
        .filter(|_| !word.contains('.'))
        .and_then(count);
    behind.or(before).unwrap_or(1).clamp(1, MAX_GPUS)
}

/// A count, a switch, or the name or version of what is wanted.
fn gpus(value: &Node, findings: &mut Findings<'_>) -> u32 {
    match &value.data {
        Data::Null => 1,
        Data::Bool(wanted) => u32::from(*wanted),
        Data::Number(number, _) => match number.as_u64() {
            Some(count) if count <= u64::from(MAX_GPUS) => u32::try_from(count).unwrap_or(MAX_GPUS),
            // `cuda: 12.4` is a version.
            _ if number.is_f64() => 1,
            _ => {
                wrong_type(
                    "the count of GPUs",
                    &format!("between 0 and {MAX_GPUS}"),
                    value,
                    findings,
                );
                0
            }
        },
        Data::Text(text) => match text.trim().to_ascii_lowercase().as_str() {
            "no" | "none" | "off" | "optional" => 0,
            word => word.parse::<u32>().map_or(1, |count| count.min(MAX_GPUS)),
        },
        Data::Map(entries) => entries
            .iter()
            .find(|(key, _)| matches!(key.text.as_str(), "count" | "number" | "min"))
            .map_or(1, |(_, count)| gpus(count, findings)),
        Data::List(items) => u32::from(!items.is_empty()),
    }
}

fn is_version(text: &str) -> bool {
    text.trim().starts_with(|first: char| {
        first.is_ascii_digit() || matches!(first, '<' | '>' | '=' | '~' | '!' | '^')
    })
}

/// Whether the text is a PEP 508 requirement by name: `name[extra,…] specifiers ; marker`.
fn is_pep508(text: &str) -> bool {
    let (requirement, marker) = match text.split_once(';') {
        Some((requirement, marker)) => (requirement, Some(marker)),
        None => (text, None),
    };
    let requirement = requirement.trim();
    let name_end = requirement
        .find(|sign: char| !(sign.is_ascii_alphanumeric() || matches!(sign, '.' | '_' | '-')))
        .unwrap_or(requirement.len());
    let (name, mut rest) = requirement.split_at(name_end);
    if !is_name(name) || marker.is_some_and(|marker| marker.trim().is_empty()) {
        return false;
    }
    rest = rest.trim_start();
    if let Some(extras) = rest.strip_prefix('[') {
        let Some((extras, behind)) = extras.split_once(']') else {
            return false;
        };
        if !extras.split(',').all(|extra| is_name(extra.trim())) {
            return false;
        }
        rest = behind.trim_start();
    }
    let specifiers = rest
        .strip_prefix('(')
        .and_then(|inner| inner.strip_suffix(')'))
        .unwrap_or(rest)
        .trim();
    specifiers.is_empty() || is_specifiers(specifiers)
}

/// `12` and `12.4`.
fn is_bare_version(text: &str) -> bool {
    text.split('.')
        .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}

fn is_specifiers(text: &str) -> bool {
    text.split(',').all(|specifier| is_specifier(specifier.trim()))
}

fn is_name(name: &str) -> bool {
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    edge(name.as_bytes().first())
        && edge(name.as_bytes().last())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
}

fn is_specifier(text: &str) -> bool {
    ["===", "==", "~=", "!=", "<=", ">=", "<", ">"]
        .iter()
        .find_map(|operator| text.strip_prefix(operator))
        .is_some_and(|version| {
            let version = version.trim();
            version.starts_with(|first: char| first.is_ascii_alphanumeric())
                && version
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b".+!*_-".contains(&byte))
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::{Excerpt, Text};

    fn read(yaml: &str) -> (Requires, Vec<String>) {
        let text = Text::new(yaml);
        let excerpt = Excerpt::new(&text, 0..text.lines.len(), 0);
        let mut findings = Findings::new(&text);
        let node = crate::yaml::load(&excerpt, &mut findings).unwrap();
        let requires = requires(&node, &mut findings);
        (
            requires,
            findings
                .finish()
                .iter()
                .map(|found| found.code.to_string())
                .collect(),
        )
    }

    #[test]
    #[expect(clippy::type_complexity, reason = "a table of cases")]
    fn every_way_to_write_requirements_is_read() {
        let cases: &[(&str, &[&str], u32, bool, &[&str])] = &[
            (
                "libs: [qiskit, 'numpy>=2']",
                &["qiskit", "numpy>=2"],
                0,
                false,
                &[],
            ),
            ("python: [torch]", &["torch"], 0, false, &[]),
            ("python: torch", &["torch"], 0, false, &["MAML022"]),
            ("python: '>=3.11'", &[], 0, false, &["MAML030"]),
            ("python: 3.11", &[], 0, false, &["MAML030"]),
            (
                "packages: {qiskit: '>=1.0', numpy: '2.1', scipy: }",
                &["qiskit>=1.0", "numpy==2.1", "scipy"],
                0,
                false,
                &[],
            ),
            ("[qiskit, cuda, network]", &["qiskit"], 1, true, &[]),
            ("- libs: [a]\n- gpu: 2\n", &["a"], 2, false, &[]),
            ("resources: cuda", &[], 1, false, &["MAML022"]),
            ("resources: [gpu, 16GB]", &[], 1, false, &["MAML030"]),
            ("resources: {gpu: 4, memory: 1Gi}", &[], 4, false, &[]),
            ("cuda: '12.4'", &[], 1, false, &[]),
            ("cuda: 12.4", &[], 1, false, &[]),
            ("cuda: '^12'", &[], 1, false, &["MAML030"]),
            ("cuda: '12.x'", &[], 1, false, &["MAML030"]),
            ("cuda: 2", &[], 2, false, &[]),
            ("memory: much", &[], 0, false, &["MAML030"]),
            ("qubits: 8", &[], 0, false, &[]),
            ("qubits: few", &[], 0, false, &["MAML030"]),
            ("gpu: false", &[], 0, false, &[]),
            ("gpu: 1000", &[], 0, false, &["MAML011"]),
            ("network: true", &[], 0, true, &[]),
            ("network: maybe", &[], 0, false, &["MAML011"]),
            ("ocaml: '5.1'", &[], 0, false, &["MAML030"]),
            (
                "libs: ['evil @ https://x/y.whl', '-e .']",
                &[],
                0,
                false,
                &["MAML031", "MAML031"],
            ),
            ("~", &[], 0, false, &[]),
        ];
        for (yaml, packages, gpus, network, codes) in cases {
            let (requires, found) = read(yaml);
            assert_eq!(requires.packages, *packages, "{yaml}");
            assert_eq!((requires.gpus, requires.network), (*gpus, *network), "{yaml}");
            assert_eq!(found, *codes, "{yaml}");
        }
    }

    #[test]
    fn pep_508_requirements_are_told_from_other_text() {
        for good in [
            "a",
            "a-b.c_d1",
            "a[x,y]",
            "a >= 1, < 2",
            "a(>=1)",
            "a==1.*",
            "a; python_version < '4'",
            "a[x]~=1.2",
        ] {
            assert!(is_pep508(good), "{good}");
        }
        for bad in [
            "",
            "-a",
            "a b",
            "a=1",
            "a>",
            "a[",
            "a @ file:///x",
            "a;",
            "ä",
            "a>=1,,<2",
            "a-",
        ] {
            assert!(!is_pep508(bad), "{bad}");
        }
    }

    #[test]
    fn sizes_are_read_in_both_sorts_of_units() {
        for (text, expected) in [
            ("1024", Some(1024)),
            ("16GB", Some(16_000_000_000)),
            ("16 GiB", Some(16 << 30)),
            ("1.5Gi", Some(3 << 29)),
            ("512m", Some(512_000_000)),
            ("0", None),
            ("", None),
            ("1..5", None),
            ("-1", None),
            ("1e9", None),
            ("99999999999T", None),
        ] {
            assert_eq!(bytes(text), expected, "{text}");
        }
        let requires = read("{memory: 2Gi, qubits: 5, cuda: '>=12'}").0;
        assert_eq!((requires.memory_bytes, requires.qubits), (Some(2 << 30), Some(5)));
        assert_eq!(requires.cuda.as_deref(), Some(">=12"));
        for (yaml, cuda) in [
            ("cuda: 12.4", Some("12.4")),
            ("cuda: '>=12,<14'", Some(">=12,<14")),
            ("['cuda>=12.4']", Some(">=12.4")),
            ("cuda: 2", None),
            ("cuda: '^12'", None),
            ("[cuda]", None),
        ] {
            assert_eq!(read(yaml).0.cuda.as_deref(), cuda, "{yaml}");
        }
    }

    #[test]
    fn counts_of_gpus_are_read_from_words() {
        for (word, count) in [
            ("gpu", 1),
            ("2 gpus", 2),
            ("gpu:3", 3),
            ("cuda-12.4", 1),
            ("cuda", 1),
            ("nvidia h100", 1),
        ] {
            assert_eq!(gpus_of(word), count, "{word}");
        }
    }
}
