//! Deletion: whatever is deleted, in whatever order and however often, ends.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the answer")]

use std::path::PathBuf;

use api::MamlWorkflow;
use e2e::{Namespace, cli::kubectl, documents, heads, in_namespace, runs, samples, wait};
use k8s_openapi::api::core::v1::Namespace as Object;
use kube::Api;

async fn apply(space: &Namespace) {
    let folder = samples::folder();
    let answer = kubectl(&["apply", "-n", &space.name, "-f", folder.to_str().unwrap()]).await;
    assert_eq!(answer.code, 0, "{}", answer.stderr);
}

/// As a user would: kubectl waits until the objects are gone.
async fn delete(space: &Namespace, files: &[PathBuf]) {
    for file in files {
        let file = file.to_str().unwrap();
        let args = [
            "delete",
            "-n",
            &space.name,
            "-f",
            file,
            "--ignore-not-found",
            "--wait",
            "--timeout=90s",
        ];
        let answer = kubectl(&args).await;
        assert_eq!(answer.code, 0, "{file}: {}{}", answer.stdout, answer.stderr);
    }
}

#[tokio::test]
async fn samples_can_be_deleted_twice_in_any_order() {
    in_namespace("delete-samples", async |space| {
        let files = samples::files();
        let backwards: Vec<_> = files.iter().rev().cloned().collect();
        for order in [&files, &backwards] {
            apply(space).await;
            delete(space, order).await;
            delete(space, order).await;
        }
        apply(space).await;
        // The kinds, not the files, and the heads before what runs on them.
        for kind in ["head", "mamlwf"] {
            let answer = kubectl(&["delete", "-n", &space.name, kind, "--all", "--timeout=90s"]).await;
            assert_eq!(answer.code, 0, "{kind}: {}", answer.stderr);
        }
    })
    .await;
}

#[tokio::test]
async fn a_workflow_under_way_can_be_deleted_and_frees_its_head() {
    in_namespace("delete-running", async |space| {
        let mut head = heads::small("small");
        head.spec.workers.warm = 1;
        heads::start(space, head).await;
        space
            .create_object(&runs::workflow("long", documents::lasting(3600)))
            .await;
        runs::running(space, "long").await;
        let answer = kubectl(&["delete", "-n", &space.name, "mamlwf", "long", "--timeout=30s"]).await;
        assert_eq!(answer.code, 0, "{}", answer.stderr);
        wait::until_gone(&space.api::<MamlWorkflow>(), "long").await;
        let next = runs::run(space, runs::workflow("next", documents::small())).await;
        runs::assert_succeeded(space, &next).await;
    })
    .await;
}

#[tokio::test]
async fn a_namespace_with_a_run_under_way_ends() {
    in_namespace("delete-namespace", async |space| {
        heads::start(space, heads::small("small")).await;
        space
            .create_object(&runs::workflow("long", documents::lasting(3600)))
            .await;
        runs::running(space, "long").await;
        space.delete().await;
        let namespaces: Api<Object> = Api::all(space.client.clone());
        wait::until_gone(&namespaces, &space.name).await;
    })
    .await;
}

#[tokio::test]
async fn a_namespace_made_again_serves_as_the_first_did() {
    in_namespace("again", async |space| {
        for _ in 0..2 {
            heads::start(space, heads::small("small")).await;
            let done = runs::run(space, runs::workflow("same", documents::small())).await;
            runs::assert_succeeded(space, &done).await;
            space.recreate().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_workflow_made_again_under_its_name_has_a_receipt_of_its_own() {
    in_namespace("same-name", async |space| {
        heads::start(space, heads::small("small")).await;
        let mut names = std::collections::BTreeSet::new();
        for _ in 0..3 {
            let done = runs::run(space, runs::workflow("same", documents::small())).await;
            names.insert(runs::assert_succeeded(space, &done).await.metadata.name);
            let answer = kubectl(&["delete", "-n", &space.name, "mamlwf", "same", "--timeout=30s"]).await;
            assert_eq!(answer.code, 0, "{}", answer.stderr);
        }
        assert_eq!(names.len(), 3, "{names:?}");
    })
    .await;
}

/// The identity is not the user's, but a tenant's administrator can delete it: heads that come later must have one.
#[tokio::test]
async fn a_deleted_identity_of_the_heads_is_made_again() {
    in_namespace("identity", async |space| {
        heads::start(space, heads::small("first")).await;
        let name = api::names::HEAD_IDENTITY_SECRET;
        let answer = kubectl(&["delete", "-n", &space.name, "secret", name]).await;
        assert_eq!(answer.code, 0, "{}", answer.stderr);
        heads::start(space, heads::small("second")).await;
        let done = runs::run(space, runs::workflow("served", documents::small())).await;
        runs::assert_succeeded(space, &done).await;
    })
    .await;
}
