//! Secret inputs from the command line: in files or on stdin, so that no list of processes and no shell's history shows them.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::Error;
use crate::source;

/// An input that is to be sealed. `Debug` does not show it.
#[derive(Clone)]
pub struct Secret {
    name: String,
    from: From,
}

#[derive(Clone)]
enum From {
    Value(Value),
    File(PathBuf),
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secret({})", self.name)
    }
}

/// Reads `NAME=VALUE`: VALUE is JSON, or else text, or `@FILE`.
pub fn parse(text: &str) -> Result<Secret, String> {
    let (name, value) = source::parse_input(text)?;
    let from = match &value {
        // Quoted, as JSON, an @ is an @.
        Value::String(value) if text[name.len() + 1..].starts_with('@') => {
            From::File(PathBuf::from(&value[1..]))
        }
        _ => From::Value(value),
    };
    Ok(Secret { name, from })
}

/// The inputs by name; files are read as text, without one newline at the end.
pub fn read(secrets: &[Secret]) -> Result<Map<String, Value>, Error> {
    let mut inputs = Map::new();
    for secret in secrets {
        let value = match &secret.from {
            From::Value(value) => value.clone(),
            From::File(path) => Value::String(read_file(path)?),
        };
        if inputs.insert(secret.name.clone(), value).is_some() {
            return Err(Error::usage(format!("input {} is given twice", secret.name)));
        }
    }
    Ok(inputs)
}

fn read_file(path: &Path) -> Result<String, Error> {
    let mut text = source::read_text(path)?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn secrets_are_json_text_or_the_text_of_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "hunter2\n\n").unwrap();
        let at = format!("d=@{}", file.path().display());
        let secrets: Vec<_> = ["a=1", "b=x", "c=\"@x\"", at.as_str()]
            .map(|text| parse(text).unwrap())
            .into();
        assert_eq!(
            Value::Object(read(&secrets).unwrap()),
            json!({"a": 1, "b": "x", "c": "@x", "d": "hunter2\n"})
        );
        assert!(!format!("{:?}", parse("a=hunter2").unwrap()).contains("hunter2"));
        assert!(parse("a").is_err() && parse("=x").is_err());
    }

    #[test]
    fn a_name_that_is_given_twice_or_a_file_that_is_not_there_is_an_error() {
        let twice: Vec<_> = ["a=1", "a=2"].map(|text| parse(text).unwrap()).into();
        assert!(read(&twice).is_err());
        assert!(read(&[parse("a=@/nonexistent").unwrap()]).is_err());
    }
}
