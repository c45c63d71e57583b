//! What is known of a namespace when its test has failed: objects, Events and logs, on stderr and in a folder.

use std::{fmt::Debug, path::PathBuf};

use api::{ChimeraHead, MamlWorkflow, MuReceipt};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{core::v1::Pod, events::v1::Event},
};
use kube::{
    Api, Client, Resource,
    api::{ListParams, LogParams},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{cluster, wait::yaml};

/// Lines of each log that are kept.
const LOG_LINES: i64 = 400;
/// Characters of each piece that go to stderr; the folder has it all.
const SHOWN: usize = 6000;

/// Dumps everything that may tell why a test failed. Never panics: the test's own message matters more.
pub async fn namespace(client: &Client, name: &str) {
    let mut pieces = vec![
        (
            "workflows.yaml".to_owned(),
            objects::<MamlWorkflow>(client, name).await,
        ),
        (
            "heads.yaml".to_owned(),
            objects::<ChimeraHead>(client, name).await,
        ),
        (
            "receipts.yaml".to_owned(),
            objects::<MuReceipt>(client, name).await,
        ),
        ("pods.yaml".to_owned(), objects::<Pod>(client, name).await),
        ("events.txt".to_owned(), events(client, name).await),
    ];
    pieces.extend(logs(client, name, &ListParams::default()).await);
    let operator = ListParams::default().labels(cluster::OPERATOR_PODS);
    pieces.extend(logs(client, cluster::OPERATOR_NAMESPACE, &operator).await);

    let folder = folder().join(name);
    let stored = std::fs::create_dir_all(&folder);
    for (file, text) in pieces {
        eprintln!("--- {name}: {file}\n{}", tail(&text));
        if let Err(error) = std::fs::write(folder.join(&file), text) {
            eprintln!("cannot write {file}: {error}");
        }
    }
    if stored.is_ok() {
        eprintln!(
            "--- the namespace {name} was left as it is; dumped to {}",
            folder.display()
        );
    }
}

/// `CHIMERA_TEST_DUMPS`, or `target/e2e-dumps` of the repository.
fn folder() -> PathBuf {
    std::env::var_os("CHIMERA_TEST_DUMPS").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/e2e-dumps")),
        PathBuf::from,
    )
}

fn tail(text: &str) -> &str {
    let skip = text.chars().count().saturating_sub(SHOWN);
    text.char_indices()
        .nth(skip)
        .map_or("", |(start, _)| &text[start..])
}

async fn objects<K>(client: &Client, namespace: &str) -> String
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    match api.list(&ListParams::default()).await {
        Ok(list) => {
            let all: Vec<_> = list.items.iter().map(yaml).collect();
            all.join("---\n")
        }
        Err(error) => format!("cannot be listed: {error}\n"),
    }
}

async fn events(client: &Client, namespace: &str) -> String {
    let api: Api<Event> = Api::namespaced(client.clone(), namespace);
    let list = match api.list(&ListParams::default()).await {
        Ok(list) => list.items,
        Err(error) => return format!("cannot be listed: {error}\n"),
    };
    let mut lines: Vec<_> = list
        .into_iter()
        .map(|event| {
            let time = event
                .metadata
                .creation_timestamp
                .map(|time| time.0.to_string())
                .unwrap_or_default();
            let about = event.regarding.unwrap_or_default();
            let about = format!(
                "{}/{}",
                about.kind.unwrap_or_default(),
                about.name.unwrap_or_default()
            );
            let (reason, note) = (event.reason.unwrap_or_default(), event.note.unwrap_or_default());
            format!(
                "{time} {} {about}: {reason}: {note}\n",
                event.type_.unwrap_or_default()
            )
        })
        .collect();
    lines.sort();
    lines.concat()
}

async fn logs(client: &Client, namespace: &str, which: &ListParams) -> Vec<(String, String)> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let Ok(list) = pods.list(which).await else {
        return Vec::new();
    };
    let mut logs = Vec::new();
    for pod in list.items {
        let name = pod.metadata.name.unwrap_or_default();
        for (previous, file) in [
            (false, format!("{name}.log")),
            (true, format!("{name}.previous.log")),
        ] {
            let params = LogParams {
                tail_lines: Some(LOG_LINES),
                previous,
                ..LogParams::default()
            };
            match pods.logs(&name, &params).await {
                Ok(text) => logs.push((file, text)),
                // Most containers never restarted.
                Err(_) if previous => {}
                Err(error) => logs.push((file, format!("cannot be read: {error}\n"))),
            }
        }
    }
    logs
}
