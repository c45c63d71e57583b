//! Whether a workflow has the block that is asked for: by its document while it waits or runs, and by its status afterwards.

use api::MamlWorkflow;
use controller_core::{workflow_plan::is_current, workflow_status::shown_digest};
use crypto::DigestSet;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, Client};

use crate::cluster;
use crate::error::Error;

/// A name that no block has is a mistake. As long as no block is known, any name may be right.
pub async fn check(client: &Client, workflow: &MamlWorkflow, block: &str) -> Result<(), Error> {
    let mut known = of_status(workflow);
    if known.iter().all(|name| name != block) {
        // Whoever may see workflows may not see ConfigMaps.
        let document = document(client, workflow).await;
        known.extend(
            document
                .map(|document| of_document(workflow, &document))
                .unwrap_or_default(),
        );
    }
    judge(workflow, &known, block)
}

/// The same, by what the status says alone.
pub fn check_status(workflow: &MamlWorkflow, block: &str) -> Result<(), Error> {
    judge(workflow, &of_status(workflow), block)
}

fn judge(workflow: &MamlWorkflow, known: &[String], block: &str) -> Result<(), Error> {
    if known.is_empty() || known.iter().any(|name| name == block) {
        return Ok(());
    }
    let name = workflow.metadata.name.as_deref().unwrap_or_default();
    let mut named: Vec<_> = Vec::new();
    for name in known.iter().map(String::as_str) {
        if !named.contains(&name) {
            named.push(name);
        }
    }
    Err(Error::failed(format!("{name} has no block {block}"))
        .hint(format!("its blocks: {}", named.join(", "))))
}

/// The blocks are in the status when the run is over. Until then these may be the blocks of another attempt.
fn of_status(workflow: &MamlWorkflow) -> Vec<String> {
    let status = workflow.status.iter().filter(|_| cluster::is_complete(workflow));
    status
        .flat_map(|status| &status.blocks)
        .map(|block| block.name.clone())
        .collect()
}

/// The blocks of a document, unless it is another one than what runs or is none at all.
fn of_document(workflow: &MamlWorkflow, document: &[u8]) -> Vec<String> {
    let status = workflow
        .status
        .as_ref()
        .filter(|status| is_current(workflow, status));
    let ran = status.and_then(|status| status.document_digest.as_ref());
    if ran.is_some_and(|ran| *ran != shown_digest(&DigestSet::of(document))) {
        return Vec::new();
    }
    let read = std::str::from_utf8(document).ok().map(maml::read);
    let Some(Ok(document)) = read.map(maml::Reading::accept) else {
        return Vec::new();
    };
    document.blocks.into_iter().map(|block| block.name).collect()
}

async fn document(client: &Client, workflow: &MamlWorkflow) -> Option<Vec<u8>> {
    let source = &workflow.spec.source;
    if let Some(inline) = &source.inline {
        return Some(inline.clone().into_bytes());
    }
    let reference = source.config_map_ref.as_ref()?;
    let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let map = maps.get(&reference.name).await.ok()?;
    let text = map.data.and_then(|mut data| data.remove(&reference.key));
    let bytes = || Some(map.binary_data?.remove(&reference.key)?.0);
    text.map(String::into_bytes).or_else(bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const DOCUMENT: &str = "---\nmaml_version: \"2.0.0\"\nid: urn:uuid:3f2b6c1e-6a63-4f0e-9d0a-0d8a2f1c7b11\n\
        type: workflow\norigin: agent://tests\npermissions:\n  read: [\"agent://*\"]\n  write: [\"agent://tests\"]\n  \
        execute: [\"agent://*\"]\ncreated_at: 2026-01-01T00:00:00Z\n---\n## Intent\n\nAdd.\n\n## Context\n\nNone.\n\n\
        ## Code_Blocks\n\n```python {name=load}\nx = 1\n```\n\n```python\ny = x\n```\n";

    fn workflow(status: &Value) -> MamlWorkflow {
        serde_json::from_value(json!({
            "apiVersion": "chimera.dunes.io/v1alpha1", "kind": "MamlWorkflow",
            "metadata": {"name": "w", "generation": 1}, "spec": {"source": {"inline": "x"}}, "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn a_block_that_a_finished_run_does_not_have_is_a_mistake() {
        let parse = |conditions: Value| {
            let block = |name| json!({"name": name, "language": "python", "state": "Succeeded"});
            workflow(&json!({"blocks": [block("load"), block("fit")], "conditions": conditions}))
        };
        // Until the run is over these may be the blocks of another attempt.
        assert!(check_status(&parse(json!([])), "lode").is_ok());
        let workflow = parse(json!([{
            "type": "Complete", "status": "True", "reason": "Finished", "lastTransitionTime": "2026-05-04T10:00:00Z",
        }]));
        assert!(check_status(&workflow, "fit").is_ok());
        let error = check_status(&workflow, "lode").unwrap_err();
        assert_eq!(error.message(), "w has no block lode");
        assert!(error.to_string().contains("its blocks: load, fit"), "{error}");
    }

    #[test]
    fn the_document_tells_the_blocks_before_the_run_is_over() {
        let workflow = workflow(&json!({}));
        let known = of_document(&workflow, DOCUMENT.as_bytes());
        assert_eq!(known, ["load", "block-2"]);
        assert!(judge(&workflow, &known, "load").is_ok());
        let error = judge(&workflow, &known, "lode").unwrap_err();
        assert!(error.to_string().contains("its blocks: load, block-2"), "{error}");
    }

    #[test]
    fn a_document_that_is_another_one_by_now_or_none_at_all_refuses_nothing() {
        let ran = |document: &str| shown_digest(&DigestSet::of(document.as_bytes()));
        let of = |generation: i64, digest: &api::DigestSet| {
            workflow(&json!({"observedGeneration": generation, "documentDigest": digest}))
        };
        let names =
            |workflow: &MamlWorkflow, document: &str| of_document(workflow, document.as_bytes()).len();
        assert_eq!(names(&of(1, &ran(DOCUMENT)), DOCUMENT), 2);
        assert_eq!(names(&of(1, &ran("another")), DOCUMENT), 0);
        assert_eq!(
            names(&of(0, &ran("another")), DOCUMENT),
            2,
            "an earlier generation's"
        );
        assert_eq!(names(&workflow(&json!({})), "no front matter"), 0);
        assert!(of_document(&workflow(&json!({})), b"\xff").is_empty());
    }
}
