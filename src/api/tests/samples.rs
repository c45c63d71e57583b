//! Every object of manifests/samples/ is one of the kinds, has no field that the kinds do not know, and holds a document
//! that is read as its comment says.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the answer")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use api::{ChimeraHead, KeyRotationPolicy, MamlWorkflow};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

fn samples() -> Vec<(PathBuf, Vec<Value>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/samples");
    let mut samples: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .map(|path| {
            let objects = serde_saphyr::from_multiple(&fs::read_to_string(&path).unwrap()).unwrap();
            (path, objects)
        })
        .collect();
    samples.sort_by(|(one, _), (other, _)| one.cmp(other));
    assert!(samples.len() >= 9, "samples are missing");
    samples
}

/// Parses and writes back; whatever the author wrote must still be there.
fn assert_understood<K: DeserializeOwned + Serialize>(path: &Path, object: &Value) {
    let parsed: K =
        serde_json::from_value(object.clone()).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_contains(path, &serde_json::to_value(parsed).unwrap(), object, "");
}

fn assert_contains(path: &Path, whole: &Value, part: &Value, at: &str) {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            for (key, value) in part {
                let at = format!("{at}/{key}");
                let found = whole
                    .get(key)
                    .unwrap_or_else(|| panic!("{}: {at} is no field", path.display()));
                assert_contains(path, found, value, &at);
            }
        }
        _ => assert_eq!(whole, part, "{}: {at}", path.display()),
    }
}

fn document<'a>(objects: &'a [Value], object: &'a Value) -> &'a str {
    let inline = object.pointer("/spec/source/inline").and_then(Value::as_str);
    inline.unwrap_or_else(|| {
        let key = object
            .pointer("/spec/source/configMapRef/key")
            .unwrap()
            .as_str()
            .unwrap();
        let map = objects.iter().find(|other| other["kind"] == "ConfigMap").unwrap();
        map["data"][key].as_str().unwrap()
    })
}

#[test]
fn every_sample_is_one_of_the_kinds() {
    for (path, objects) in samples() {
        for object in &objects {
            match object["kind"].as_str() {
                Some("MamlWorkflow") => assert_understood::<MamlWorkflow>(&path, object),
                Some("ChimeraHead") => assert_understood::<ChimeraHead>(&path, object),
                Some("KeyRotationPolicy") => assert_understood::<KeyRotationPolicy>(&path, object),
                Some("ConfigMap") => {}
                other => panic!("{}: a {other:?}", path.display()),
            }
        }
    }
}

#[test]
fn every_document_is_read_without_a_finding_but_the_refused_one() {
    for (path, objects) in samples() {
        for object in objects.iter().filter(|object| object["kind"] == "MamlWorkflow") {
            let findings = maml::read(document(&objects, object)).diagnostics;
            if object["metadata"]["name"] == "refused" {
                let first = &findings[0];
                assert_eq!((first.start.line, first.start.column), (2, 15));
                assert_eq!(first.code.as_str(), "MAML012");
            } else {
                assert!(findings.is_empty(), "{}: {findings:#?}", path.display());
            }
        }
    }
}
