//! The CustomResourceDefinitions of the four kinds, as they are installed.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::Value;

use crate::{ChimeraHead, KeyRotationPolicy, MamlWorkflow, MuReceipt};

/// The definitions of all kinds, ready to be written down.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    [
        MamlWorkflow::crd(),
        ChimeraHead::crd(),
        KeyRotationPolicy::crd(),
        MuReceipt::crd(),
    ]
    .into_iter()
    .map(finished)
    .collect()
}

/// An object of any content, of at most 256 members, that the API server keeps as it is.
pub(crate) fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 256,
        "x-kubernetes-preserve-unknown-fields": true,
    })
}

/// Takes away what the derive adds and an API server has no use for.
fn finished(definition: CustomResourceDefinition) -> CustomResourceDefinition {
    let mut value = serde_json::to_value(definition).expect("a definition is plain data");
    tidy(&mut value);
    serde_json::from_value(value).expect("tidying keeps the shape of a definition")
}

/// Without `nullable`, the API server drops an explicit null before it applies defaults and rules,
/// so that `has(self.x)` in CEL means what it says. Doc comments are broken at the width of the
/// source; as descriptions, their paragraphs are single lines that `kubectl explain` wraps itself.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(members) => {
            if members.get("nullable").is_some_and(Value::is_boolean) {
                members.remove("nullable");
            }
            if members.get("default").is_some_and(Value::is_null) {
                members.remove("default");
            }
            if let Some(Value::String(description)) = members.get_mut("description") {
                *description = unwrapped(description);
            }
            members.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

fn unwrapped(description: &str) -> String {
    description
        .split("\n\n")
        .map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect::<Vec<_>>()
        .join("\n\n")
}
