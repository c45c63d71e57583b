//! Files that the user names; `-` is stdin.

use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::Error;

/// More than this is not read: no document, receipt or set of inputs is nearly as large.
const MAX_BYTES: u64 = 256 * 1024 * 1024;

/// The bytes of a file or of stdin.
pub fn read_bytes(path: &Path) -> Result<Vec<u8>, Error> {
    let shown = shown(path);
    let fail = |cause: std::io::Error| Error::usage(format!("cannot read {shown}")).because(&cause);
    let mut bytes = Vec::new();
    let count = if is_stdin(path) {
        std::io::stdin()
            .lock()
            .take(MAX_BYTES + 1)
            .read_to_end(&mut bytes)
    } else {
        let file = std::fs::File::open(path).map_err(fail)?;
        file.take(MAX_BYTES + 1).read_to_end(&mut bytes)
    }
    .map_err(fail)?;
    if count as u64 > MAX_BYTES {
        return Err(Error::usage(format!("{shown} is larger than 256 MiB")));
    }
    Ok(bytes)
}

/// The text of a file or of stdin, which must be UTF-8.
pub fn read_text(path: &Path) -> Result<String, Error> {
    String::from_utf8(read_bytes(path)?).map_err(|cause| {
        let at = cause.utf8_error().valid_up_to();
        let line = cause.as_bytes()[..at].split(|byte| *byte == b'\n').count();
        Error::usage(format!(
            "{} is not UTF-8: line {line} holds other bytes",
            shown(path)
        ))
        .hint("save it as UTF-8")
    })
}

/// Endings of the names of documents.
const ENDINGS: [&str; 4] = [".maml.md", ".maml.markdown", ".maml.ml", ".maml"];

/// The documents that the user means: files as they are, folders with every document in them, sorted.
pub fn documents(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    files(paths, &ENDINGS, "documents")
}

/// Files as they are, and of folders every file with one of these endings, sorted; `sort` names them to the user.
pub fn files(paths: &[PathBuf], endings: &[&str], sort: &str) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::with_capacity(paths.len());
    for path in paths {
        if is_stdin(path) || !path.is_dir() {
            found.push(path.clone());
            continue;
        }
        let before = found.len();
        walk(path, endings, &mut found).map_err(|cause| {
            Error::usage(format!("cannot read the folder {}", path.display())).because(&cause)
        })?;
        if found.len() == before {
            return Err(Error::usage(format!("{} holds no {sort}", path.display()))
                .hint(format!("their names end in {}", endings.join(", "))));
        }
        found[before..].sort();
    }
    Ok(found)
}

/// Links to folders are not followed: they may lead in circles.
fn walk(folder: &Path, endings: &[&str], found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().to_ascii_lowercase();
        if entry.file_type()?.is_dir() {
            if !name.starts_with('.') {
                walk(&entry.path(), endings, found)?;
            }
        } else if endings.iter().any(|ending| name.ends_with(ending)) {
            found.push(entry.path());
        }
    }
    Ok(())
}

/// How a path is named to the user.
pub fn shown(path: &Path) -> String {
    if is_stdin(path) {
        "stdin".to_owned()
    } else {
        path.display().to_string()
    }
}

/// Whether stdin is meant.
pub fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// `docs/bell.maml.md` with `ending` becomes `docs/bell` and the ending.
pub fn beside(document: &Path, ending: &str) -> PathBuf {
    let name = document
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let lower = name.to_ascii_lowercase();
    let known = ENDINGS.iter().chain(&[".md", ".markdown", ".ml"]);
    let stem = known
        .filter(|ending| lower.ends_with(*ending))
        .map(|ending| &name[..name.len() - ending.len()])
        .find(|stem| !stem.is_empty())
        .unwrap_or(&name);
    document.with_file_name(format!("{stem}{ending}"))
}

/// The name of a workflow for a document: `Bell State.maml.md` becomes `bell-state`.
pub fn workflow_name(document: &Path) -> String {
    let file = document
        .file_name()
        .and_then(std::ffi::OsStr::to_str)
        .unwrap_or_default();
    let stem = file.split('.').next().unwrap_or_default();
    let words: Vec<String> = stem
        .split(|sign: char| !sign.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_ascii_lowercase)
        .collect();
    let name: String = words.join("-").chars().take(50).collect();
    let name = name.trim_end_matches('-');
    if name.is_empty() {
        "maml".to_owned()
    } else {
        name.to_owned()
    }
}

/// An agent's URI, from the command line.
pub fn parse_agent(text: &str) -> Result<String, String> {
    match api::names::agent_name(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err("write it as agent://NAME".to_owned()),
    }
}

/// Inputs of a run, from a file and from the command line, of which the latter wins.
#[derive(clap::Args, Debug, Default)]
pub struct InputArgs {
    /// An input, as NAME=VALUE; VALUE is JSON, or else text
    #[arg(short = 'i', long = "input", value_name = "NAME=VALUE", value_parser = parse_input)]
    pub input: Vec<(String, Value)>,

    /// A JSON or YAML file with all inputs; `-` is stdin
    #[arg(long, value_name = "FILE")]
    pub inputs: Option<PathBuf>,
}

impl InputArgs {
    /// All inputs as one object.
    pub fn read(&self) -> Result<Map<String, Value>, Error> {
        let mut inputs = match &self.inputs {
            None => Map::new(),
            Some(path) => parse_inputs(&read_text(path)?, &shown(path))?,
        };
        inputs.extend(self.input.iter().cloned());
        Ok(inputs)
    }
}

/// Reads `NAME=VALUE`.
pub fn parse_input(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE")?;
    if name.is_empty() {
        return Err("the name is missing".to_owned());
    }
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
    Ok((name.to_owned(), value))
}

/// An object of inputs, written as JSON or YAML.
pub fn parse_inputs(text: &str, shown: &str) -> Result<Map<String, Value>, Error> {
    // YAML is a superset of JSON but for rare cases, so JSON is tried first.
    let value: Value = match serde_json::from_str(text) {
        Ok(value) => value,
        Err(_) => serde_saphyr::from_str(text)
            .map_err(|cause| Error::usage(format!("{shown} is neither JSON nor YAML")).because(&cause))?,
    };
    match value {
        Value::Object(map) => Ok(map),
        Value::Null => Ok(Map::new()),
        _ => Err(Error::usage(format!("{shown} must hold an object of inputs")).hint("name: value")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn inputs_are_json_or_else_text() {
        for (text, name, value) in [
            ("a=1", "a", json!(1)),
            ("a=true", "a", json!(true)),
            ("a=x y", "a", json!("x y")),
            ("a=\"1\"", "a", json!("1")),
            ("a=[1,2]", "a", json!([1, 2])),
            ("a=b=c", "a", json!("b=c")),
            ("a=", "a", json!("")),
        ] {
            assert_eq!(parse_input(text), Ok((name.to_owned(), value)), "{text}");
        }
        assert!(parse_input("a").is_err());
        assert!(parse_input("=1").is_err());
    }

    #[test]
    fn files_beside_a_document_have_its_name() {
        for (document, receipt) in [
            ("a/bell.maml.md", "a/bell.receipt.json"),
            ("Bell.MAML.ml", "Bell.receipt.json"),
            ("notes.md", "notes.receipt.json"),
            (".maml.md", ".maml.receipt.json"),
            ("plain", "plain.receipt.json"),
        ] {
            assert_eq!(beside(Path::new(document), ".receipt.json"), Path::new(receipt));
        }
    }

    #[test]
    fn files_of_inputs_are_json_or_yaml() {
        assert_eq!(
            Value::Object(parse_inputs("{\"a\": 1}", "f").unwrap()),
            json!({"a": 1})
        );
        assert_eq!(
            Value::Object(parse_inputs("a: 1\nb: [x]\n", "f").unwrap()),
            json!({"a": 1, "b": ["x"]})
        );
        assert!(parse_inputs("[1]", "f").is_err());
        assert!(parse_inputs("", "f").is_ok());
    }
}
