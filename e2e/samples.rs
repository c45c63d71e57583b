//! The samples of `manifests/samples/`, which the tests run as they are.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;

/// The folder of the samples.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/samples")
}

/// The samples' files, by name.
pub fn files() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder()).expect("the samples can be listed");
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("the samples can be listed").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    files
}

/// The object of one kind in `manifests/samples/FILE.yaml`.
pub fn object<K: DeserializeOwned>(file: &str, kind: &str) -> K {
    let path = folder().join(format!("{file}.yaml"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text).expect("a sample is YAML");
    let object = objects.into_iter().find(|object| object["kind"] == kind);
    let object = object.unwrap_or_else(|| panic!("no {kind} in {}", path.display()));
    serde_json::from_value(object).expect("a sample is an object of its kind")
}
