//! Creates the objects of the bootstrap file where they are absent: the chart's default head and signing policy. They
//! cannot be part of the chart itself, since on a first install their kinds do not exist when it is rendered.

use std::path::Path;

use anyhow::Context as _;
use api::{ChimeraHead, KeyRotationPolicy};
use kube::{Client, ResourceExt as _};
use serde::Deserialize;

use crate::{
    apply::{Namespaced, create},
    client::CallError,
};

/// An object that may stand in the file.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind")]
enum Object {
    ChimeraHead(Box<ChimeraHead>),
    KeyRotationPolicy(Box<KeyRotationPolicy>),
}

/// Creates what is absent. What exists is left as it is.
pub async fn create_absent(client: &Client, path: &Path) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let objects: Vec<Object> =
        serde_saphyr::from_str(&text).with_context(|| format!("parse {}", path.display()))?;
    for object in objects {
        match object {
            Object::ChimeraHead(head) => create_one(client, *head).await?,
            Object::KeyRotationPolicy(policy) => create_one(client, *policy).await?,
        }
    }
    Ok(())
}

async fn create_one<K: Namespaced>(client: &Client, object: K) -> Result<(), CallError> {
    match create(client, &object).await {
        Ok(_) => {
            tracing::info!(kind = %K::kind(&()), name = %object.name_any(), "created from the bootstrap file");
            Ok(())
        }
        Err(error) if error.is_conflict() => Ok(()),
        Err(error) => Err(error),
    }
}
