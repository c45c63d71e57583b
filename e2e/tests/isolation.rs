//! Isolation: a run that asks for a pod of its own has one, made for it and gone after it.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the answer")]

use api::{ChimeraHead, Isolation, MamlWorkflow, condition::SCHEDULED, names, reasons};
use e2e::{Namespace, cli, documents, heads, in_namespace, runs, wait};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt as _,
    api::{DeleteParams, ListParams},
};

fn isolated(name: &str, document: impl Into<String>) -> MamlWorkflow {
    let mut workflow = runs::workflow(name, document);
    workflow.spec.isolation = Isolation::Pod;
    workflow
}

/// The pods that were made for single runs.
async fn run_pods(space: &Namespace) -> Vec<Pod> {
    let which = ListParams::default().labels(names::RUN_LABEL);
    space.api::<Pod>().list(&which).await.unwrap().items
}

#[tokio::test]
async fn two_isolated_runs_have_two_pods_which_are_gone_afterwards_and_the_receipts_say_so() {
    in_namespace("isolated", async |space| {
        // Its own pod keeps its two places: neither run takes one.
        heads::start(space, heads::small("small")).await;
        let before = heads::fingerprint(space, "small").await;
        let names = ["first", "second"];
        for name in names {
            space.create_object(&isolated(name, documents::small())).await;
        }
        let mut pods = Vec::new();
        for name in names {
            let done = runs::complete(space, name).await;
            let receipt = runs::assert_succeeded(space, &done).await;
            let head = runs::status(&done).head.unwrap();
            assert_eq!(head.name, "small", "the head that it is made after");
            assert!(head.pod.starts_with("chimera-run-"), "{}", head.pod);
            let answer = cli::chimera(&[
                "verify",
                &format!("mur/{}", receipt.name_any()),
                "--namespace",
                &space.name,
            ])
            .await;
            assert_eq!(answer.code, 0, "{answer:?}");
            assert!(answer.stdout.contains("isolation Pod"), "{answer:?}");
            pods.push(head.pod);
        }
        assert_ne!(pods[0], pods[1]);
        for pod in &pods {
            wait::until_gone(&space.api::<Pod>(), pod).await;
        }
        assert_eq!(heads::fingerprint(space, "small").await, before);
        let head = space.api::<ChimeraHead>().get("small").await.unwrap();
        assert_eq!(head.status.unwrap().replicas, 1, "run pods are no replicas");
    })
    .await;
}

#[tokio::test]
async fn the_pod_of_a_deleted_workflow_goes_with_it() {
    in_namespace("isolated-gone", async |space| {
        let mut head = heads::small("template");
        head.spec.replicas = 0;
        heads::start(space, head).await;
        space
            .create_object(&isolated("long", documents::lasting(3600)))
            .await;
        let running = runs::running(space, "long").await;
        let pod = runs::status(&running).head.unwrap().pod;
        assert_eq!(run_pods(space).await.len(), 1);
        space
            .api::<MamlWorkflow>()
            .delete("long", &DeleteParams::background())
            .await
            .unwrap();
        wait::until_gone(&space.api::<Pod>(), &pod).await;
    })
    .await;
}

#[tokio::test]
async fn an_isolated_run_whose_pod_is_lost_is_tried_again_on_another() {
    in_namespace("isolated-lost", async |space| {
        let mut head = heads::small("template");
        head.spec.replicas = 0;
        heads::start(space, head).await;
        space
            .create_object(&isolated("unlucky", documents::lasting(10)))
            .await;
        let running = runs::running(space, "unlucky").await;
        let first = runs::status(&running).head.unwrap().pod;
        let now = DeleteParams::default().grace_period(0);
        space.api::<Pod>().delete(&first, &now).await.unwrap();
        let done = runs::complete(space, "unlucky").await;
        runs::assert_succeeded(space, &done).await;
        let status = runs::status(&done);
        assert_eq!(status.attempt, Some(2));
        assert_ne!(status.head.unwrap().pod, first);
    })
    .await;
}

#[tokio::test]
async fn an_isolated_run_without_a_head_to_make_its_pod_from_waits_and_says_so() {
    in_namespace("isolated-none", async |space| {
        space
            .create_object(&isolated("homeless", documents::small()))
            .await;
        runs::says_why(space, "homeless", SCHEDULED, reasons::NO_HEAD).await;
        assert_eq!(run_pods(space).await.len(), 0);
        let mut head = heads::small("late");
        head.spec.replicas = 0;
        space.create_object(&head).await;
        let done = runs::complete(space, "homeless").await;
        runs::assert_succeeded(space, &done).await;
    })
    .await;
}
