//! Whose turn it is when a place becomes free, and what a waiting run says of itself.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the answer")]

use api::{ChimeraHead, MamlWorkflow, condition::SCHEDULED, maml_workflow::CandidateState, names, reasons};
use e2e::{
    Namespace, cli, cluster,
    documents::{self, Document},
    heads, images, in_namespace, runs,
};
use k8s_openapi::api::rbac::v1::{RoleBinding, RoleRef, Subject};
use kube::{
    Api, ResourceExt as _,
    api::{ObjectMeta, PostParams},
};
use serde_json::{Value, json};

/// A head with one place, which a long run has taken.
async fn one_place_taken(space: &Namespace) {
    let mut head = heads::small("single");
    head.spec.workers.warm = 1;
    heads::start(space, head).await;
    space
        .create_object(&runs::workflow("long", documents::lasting(3600)))
        .await;
    runs::running(space, "long").await;
}

/// Ends the long run, waits for the others, and gives their names in the order in which they were given the place.
async fn order(space: &Namespace, names: &[&str]) -> Vec<String> {
    runs::annotate(space, "long", names::CANCEL_ANNOTATION, "true").await;
    let mut order = Vec::new();
    for name in names {
        let done = runs::complete(space, name).await;
        runs::assert_succeeded(space, &done).await;
        order.push((runs::status(&done).scheduled_at.unwrap(), done.name_any()));
    }
    order.sort();
    order.into_iter().map(|(_, name)| name).collect()
}

#[tokio::test]
async fn a_free_place_goes_to_the_highest_priority_also_when_it_was_raised_while_waiting() {
    in_namespace("priority", async |space| {
        one_place_taken(space).await;
        for (name, priority) in [("low", -5), ("plain", 0), ("raised", 0), ("high", 10)] {
            let mut workflow = runs::workflow(name, documents::small());
            workflow.spec.priority = priority;
            space.create_object(&workflow).await;
            runs::says_why(space, name, SCHEDULED, reasons::HEADS_BUSY).await;
        }
        runs::patch(space, "raised", json!({"spec": {"priority": 100}})).await;
        runs::says_why(space, "raised", SCHEDULED, reasons::HEADS_BUSY).await;
        let served = order(space, &["low", "plain", "raised", "high"]).await;
        assert_eq!(served, ["raised", "high", "plain", "low"]);
        let raised: MamlWorkflow = space.api().get("raised").await.unwrap();
        assert_eq!(
            runs::receipts(space, &raised).await.len(),
            1,
            "one run, one receipt"
        );
    })
    .await;
}

#[tokio::test]
async fn who_submits_one_run_is_served_before_the_rest_of_anothers_many() {
    in_namespace("share", async |space| {
        one_place_taken(space).await;
        let many = ["many-1", "many-2", "many-3"];
        for name in many {
            space
                .create_object(&runs::workflow(name, documents::small()))
                .await;
            runs::says_why(space, name, SCHEDULED, reasons::HEADS_BUSY).await;
        }
        space.create_object(&editor(&space.name, "bob")).await;
        let bob = cluster::client_as("bob", &[]).await;
        let workflows: Api<MamlWorkflow> = Api::namespaced(bob, &space.name);
        e2e::wait::until_answered("bob may submit", async || {
            let single = runs::workflow("single", documents::small());
            workflows.create(&PostParams::default(), &single).await.is_ok()
        })
        .await;
        runs::says_why(space, "single", SCHEDULED, reasons::HEADS_BUSY).await;
        let served = order(space, &["many-1", "many-2", "many-3", "single"]).await;
        assert_eq!(
            served[0], "single",
            "the administrator has run before, bob has not: {served:?}"
        );
        assert_eq!(served[1..], many, "then by age");
    })
    .await;
}

fn editor(namespace: &str, user: &str) -> RoleBinding {
    RoleBinding {
        metadata: ObjectMeta {
            name: Some(format!("{user}-edits")),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        role_ref: RoleRef {
            api_group: Some("rbac.authorization.k8s.io".to_owned()),
            kind: "ClusterRole".to_owned(),
            name: "edit".to_owned(),
        },
        subjects: Some(vec![Subject {
            kind: "User".to_owned(),
            name: user.to_owned(),
            api_group: Some("rbac.authorization.k8s.io".to_owned()),
            namespace: None,
        }]),
    }
}

#[tokio::test]
async fn why_says_what_every_head_has_against_a_run() {
    in_namespace("candidates", async |space| {
        one_place_taken(space).await;
        let mut asleep = heads::small("asleep");
        asleep.spec.replicas = 0;
        space.create_object(&asleep).await;
        let mut other: ChimeraHead = heads::small("other");
        other.spec.role = api::Role::Crypto;
        heads::start(space, other).await;
        let mut workflow = runs::workflow("waits", documents::small());
        workflow.spec.role = Some(api::Role::Quantum);
        space.create_object(&workflow).await;
        let waiting = runs::says_why(space, "waits", SCHEDULED, reasons::HEADS_BUSY).await;
        let states: Vec<_> = runs::status(&waiting)
            .candidates
            .into_iter()
            .map(|candidate| (candidate.head, candidate.state))
            .collect();
        assert_eq!(
            states,
            [
                ("single".to_owned(), CandidateState::Busy),
                ("asleep".to_owned(), CandidateState::ScaledToZero),
                ("other".to_owned(), CandidateState::Unsuitable),
            ]
        );
        let answer = cli::chimera(&["why", "waits", "-o", "json", "--namespace", &space.name]).await;
        let said: Value = serde_json::from_str(&answer.stdout).unwrap();
        assert_eq!(said["reason"], reasons::HEADS_BUSY);
        assert_eq!(
            said["heads"][2]["message"], "lacks role quantum (it is crypto)",
            "{said}"
        );
        assert!(said["help"].as_str().unwrap().contains("head/asleep"), "{said}");
    })
    .await;
}

#[tokio::test]
async fn a_run_waits_for_a_head_that_has_its_packages_and_runs_when_one_appears() {
    in_namespace("packages", async |space| {
        heads::start(space, heads::small("small")).await;
        let asks = Document::python("import numpy\nversion = numpy.__version__").outputs(json!({
            "type": "object", "properties": {"version": {"type": "string"}}, "required": ["version"]
        }));
        let there = runs::run(space, runs::workflow("there", asks.clone().package("numpy>=2"))).await;
        runs::assert_succeeded(space, &there).await;
        let version = &runs::status(&there).outputs.unwrap()["version"];
        assert!(version.as_str().unwrap().starts_with("2."), "{version}");

        space
            .create_object(&runs::workflow("newer", asks.package("numpy>=99")))
            .await;
        let waiting = runs::says_why(space, "newer", SCHEDULED, reasons::NO_HEAD).await;
        let message = runs::condition(&waiting, SCHEDULED).message;
        assert!(
            message.contains("the package numpy>=99 (installed is 2."),
            "{message}"
        );

        let mut next = heads::small("next");
        next.spec.image = Some(images::head_next());
        heads::start(space, next).await;
        let done = runs::complete(space, "newer").await;
        let receipt = runs::assert_succeeded(space, &done).await;
        let status = runs::status(&done);
        assert_eq!(
            status.outputs.map(Value::Object),
            Some(json!({"version": "99.0.0"}))
        );
        assert_eq!(status.head.unwrap().name, "next");
        assert_eq!(receipt.spec.head.as_deref(), Some("next"));
        assert_eq!(
            runs::receipts(space, &done).await.len(),
            1,
            "one run, one receipt"
        );
    })
    .await;
}
