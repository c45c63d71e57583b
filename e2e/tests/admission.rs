//! Who may do what, as the API server decides it: submitters, agents, receipts, and what it says of faulty objects.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the answer")]

use api::{ChimeraHead, KeyRotationPolicy, MamlWorkflow, MuReceipt, names};
use e2e::{Namespace, cluster, documents, in_namespace, runs, wait};
use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec},
    rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject},
};
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, ObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

/// A client of a user who has the cluster's role `edit` in the namespace.
async fn editor(space: &Namespace, user: &str) -> Client {
    bind(space, &format!("edit-{user}"), user, "ClusterRole", "edit").await;
    let client = cluster::client_as(user, &[]).await;
    until_allowed(&client, space, "create", "mamlworkflows", None).await;
    client
}

async fn bind(space: &Namespace, name: &str, user: &str, kind: &str, role: &str) {
    let group = "rbac.authorization.k8s.io".to_owned();
    let binding = RoleBinding {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        role_ref: RoleRef {
            api_group: Some(group.clone()),
            kind: kind.to_owned(),
            name: role.to_owned(),
        },
        subjects: Some(vec![Subject {
            api_group: Some(group),
            kind: "User".to_owned(),
            name: user.to_owned(),
            namespace: None,
        }]),
    };
    space.create_object(&binding).await;
}

/// The authoriser learns of new bindings a moment after they are stored.
async fn until_allowed(client: &Client, space: &Namespace, verb: &str, resource: &str, name: Option<&str>) {
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                group: Some(names::GROUP.to_owned()),
                resource: Some(resource.to_owned()),
                namespace: Some(space.name.clone()),
                name: name.map(ToOwned::to_owned),
                verb: Some(verb.to_owned()),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    wait::until_answered(&format!("{verb} {resource} is allowed"), async || {
        let answer = reviews.create(&PostParams::default(), &review).await.unwrap();
        answer.status.is_some_and(|status| status.allowed)
    })
    .await;
}

fn workflows(client: &Client, space: &Namespace) -> Api<MamlWorkflow> {
    Api::namespaced(client.clone(), &space.name)
}

/// A refusal by the API server: its code and its sentence.
fn refusal<T>(result: kube::Result<T>) -> (u16, String) {
    match result {
        Ok(_) => panic!("the API server let it pass"),
        Err(kube::Error::Api(status)) => (status.code, status.message),
        Err(error) => panic!("not an answer of the API server: {error}"),
    }
}

#[tokio::test]
async fn the_submitter_is_who_asked_whatever_the_request_says() {
    in_namespace("submitter", async |space| {
        let (alice, bob) = (editor(space, "alice").await, editor(space, "bob").await);
        let mut forged = runs::workflow("forged", documents::refused(""));
        forged.spec.submitter = Some("mallory".to_owned());
        let created = workflows(&alice, space)
            .create(&PostParams::default(), &forged)
            .await
            .unwrap();
        assert_eq!(created.spec.submitter.as_deref(), Some("alice"));

        let how = PatchParams::default();
        let label =
            Patch::Merge(json!({"metadata": {"labels": {"team": "b"}}, "spec": {"submitter": "mallory"}}));
        let labelled = workflows(&bob, space)
            .patch("forged", &how, &label)
            .await
            .unwrap();
        assert_eq!(
            labelled.spec.submitter.as_deref(),
            Some("alice"),
            "a label is no request for a run"
        );

        let change = Patch::Merge(json!({"spec": {"timeoutSeconds": 7, "submitter": "alice"}}));
        let changed = workflows(&bob, space)
            .patch("forged", &how, &change)
            .await
            .unwrap();
        assert_eq!(
            changed.spec.submitter.as_deref(),
            Some("bob"),
            "who changes the spec asks for the run"
        );

        let rerun = Patch::Merge(json!({"metadata": {"annotations": {names::RERUN_ANNOTATION: "1"}}}));
        let again = workflows(&alice, space)
            .patch("forged", &how, &rerun)
            .await
            .unwrap();
        assert_eq!(
            again.spec.submitter.as_deref(),
            Some("alice"),
            "so does who sets the annotation"
        );
        let done = runs::complete(space, "forged").await;
        assert_eq!(
            runs::verified_receipt(space, &done)
                .await
                .spec
                .submitter
                .as_deref(),
            Some("alice")
        );
    })
    .await;
}

#[tokio::test]
async fn acting_as_an_agent_takes_the_verb_act_as() {
    in_namespace("act-as", async |space| {
        let alice = editor(space, "alice").await;
        let acting = |name: &str, agent: &str| {
            let mut workflow = runs::workflow(name, documents::refused(""));
            workflow.spec.act_as = Some(format!("agent://{agent}"));
            workflow
        };
        let api = workflows(&alice, space);
        let (code, message) = refusal(
            api.create(&PostParams::default(), &acting("first", "alpha"))
                .await,
        );
        assert_eq!(code, 403, "{message}");
        for part in [
            "'alice' may not act as agent 'alpha'",
            &space.name,
            "act-as",
            "agents",
        ] {
            assert!(message.contains(part), "{part} is not in: {message}");
        }

        let role = Role {
            metadata: ObjectMeta {
                name: Some("alpha".to_owned()),
                ..ObjectMeta::default()
            },
            rules: Some(vec![PolicyRule {
                api_groups: Some(vec![names::GROUP.to_owned()]),
                resources: Some(vec![names::AGENTS_RESOURCE.to_owned()]),
                resource_names: Some(vec!["alpha".to_owned()]),
                verbs: vec![names::ACT_AS_VERB.to_owned()],
                ..PolicyRule::default()
            }]),
        };
        space.create_object(&role).await;
        bind(space, "alpha", "alice", "Role", "alpha").await;
        until_allowed(
            &alice,
            space,
            names::ACT_AS_VERB,
            names::AGENTS_RESOURCE,
            Some("alpha"),
        )
        .await;
        let created = api
            .create(&PostParams::default(), &acting("first", "alpha"))
            .await
            .unwrap();
        assert_eq!(created.spec.submitter.as_deref(), Some("alice"));
        let (code, message) = refusal(
            api.create(&PostParams::default(), &acting("second", "beta"))
                .await,
        );
        assert_eq!(code, 403, "{message}");
        let change = Patch::Merge(json!({"spec": {"actAs": "agent://beta"}}));
        let (code, message) = refusal(api.patch("first", &PatchParams::default(), &change).await);
        assert_eq!(code, 403, "{message}");

        // Who may edit but not act as alpha cannot borrow it by changing alice's workflow.
        let bob = editor(space, "bob").await;
        let change = Patch::Merge(json!({"spec": {"timeoutSeconds": 9}}));
        let (code, message) = refusal(
            workflows(&bob, space)
                .patch("first", &PatchParams::default(), &change)
                .await,
        );
        assert_eq!(code, 403, "{message}");
    })
    .await;
}

#[tokio::test]
async fn a_tenant_can_neither_make_nor_change_a_receipt() {
    in_namespace("tenant", async |space| {
        let done = runs::run(space, runs::workflow("refused", documents::refused(""))).await;
        let receipt = runs::verified_receipt(space, &done).await;
        let name = receipt.name_any();
        let mut copy = MuReceipt::new("copy", receipt.spec.clone());
        copy.metadata.labels = receipt.metadata.labels.clone();

        let spec = Patch::Merge(json!({"spec": {"result": "Success"}}));
        let labels = Patch::Merge(json!({"metadata": {"labels": {names::RESULT_LABEL: "Success"}}}));
        let status = Patch::Merge(json!({"status": {"conditions": []}}));
        let how = PatchParams::default();
        let alice = editor(space, "alice").await;
        // The administrator has every right that RBAC can give, and still is not the operator.
        for (who, client) in [("alice", alice), ("the administrator", space.client.clone())] {
            let api: Api<MuReceipt> = Api::namespaced(client, &space.name);
            let attempts = [
                ("create", refusal(api.create(&PostParams::default(), &copy).await)),
                ("change the spec", refusal(api.patch(&name, &how, &spec).await)),
                (
                    "change the labels",
                    refusal(api.patch(&name, &how, &labels).await),
                ),
                (
                    "change the status",
                    refusal(api.patch_status(&name, &how, &status).await),
                ),
            ];
            for (what, (code, message)) in attempts {
                assert!([403, 422].contains(&code), "{who}: {what}: {code} {message}");
                if who != "alice" && what != "change the spec" {
                    assert!(
                        message.contains("only the Chimera operator writes receipts"),
                        "{what}: {message}"
                    );
                }
            }
            if who == "alice" {
                assert_eq!(refusal(api.delete(&name, &DeleteParams::default()).await).0, 403);
                assert_eq!(
                    api.get(&name).await.unwrap().spec,
                    receipt.spec,
                    "she may read it"
                );
            }
        }
        let now = space.api::<MuReceipt>().get(&name).await.unwrap();
        assert_eq!((now.spec, now.status), (receipt.spec, receipt.status));
    })
    .await;
}

#[tokio::test]
async fn not_even_the_operator_can_change_a_receipt() {
    in_namespace("immutable", async |space| {
        let done = runs::run(space, runs::workflow("refused", documents::refused(""))).await;
        let name = runs::verified_receipt(space, &done).await.name_any();
        let change = Patch::Merge(json!({"spec": {"result": "Success"}}));
        for groups in [&[][..], &["system:masters"]] {
            let operator = cluster::client_as(cluster::OPERATOR_USER, groups).await;
            let api: Api<MuReceipt> = Api::namespaced(operator, &space.name);
            let (code, message) = refusal(api.patch(&name, &PatchParams::default(), &change).await);
            if groups.is_empty() {
                assert_eq!(code, 403, "{message}");
            } else {
                assert_eq!(code, 422, "{message}");
                assert!(message.contains("a receipt cannot be changed"), "{message}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn faulty_objects_are_refused_with_a_sentence_that_helps() {
    in_namespace("faulty", async |space| {
        let text = documents::small().text();
        let source = json!({"inline": text});
        let cases: Vec<(&str, Value, &[&str])> = vec![
            (
                "MamlWorkflow",
                json!({"source": {"inline": text, "configMapRef": {"name": "a", "key": "b"}}}),
                &["spec.source", "exactly one of inline and configMapRef must be set"],
            ),
            ("MamlWorkflow", json!({"source": {}}), &["exactly one of inline and configMapRef must be set"]),
            ("MamlWorkflow", json!({}), &["spec.source", "Required value"]),
            (
                "MamlWorkflow",
                json!({"source": source, "timeoutSeconds": 0}),
                &["spec.timeoutSeconds", "greater than or equal to 1"],
            ),
            (
                "MamlWorkflow",
                json!({"source": source, "role": "wizard"}),
                &["spec.role", "wizard", "quantum", "crypto", "inference", "orchestrator"],
            ),
            ("MamlWorkflow", json!({"source": source, "actAs": "alpha"}), &["spec.actAs", "agent://"]),
            ("MamlWorkflow", json!({"source": source, "inputs": [1]}), &["spec.inputs", "object"]),
            (
                "MamlWorkflow",
                json!({"source": {"configMapRef": {"name": "Not A Name", "key": "b"}}}),
                &["spec.source.configMapRef.name", "should match"],
            ),
            ("ChimeraHead", json!({"role": "wizard"}), &["spec.role", "wizard", "orchestrator"]),
            ("ChimeraHead", json!({"role": "quantum", "replicas": 65}), &["spec.replicas", "less than or equal to 64"]),
            ("ChimeraHead", json!({"role": "quantum", "workers": {"preload": ["os; rm"]}}), &["spec.workers.preload"]),
            (
                "KeyRotationPolicy",
                json!({"purpose": "Signing", "algorithm": "ML-KEM-1024"}),
                &["purpose Signing needs the algorithm ML-DSA-87"],
            ),
            (
                "KeyRotationPolicy",
                json!({"purpose": "Signing", "algorithm": "ML-DSA-87", "rotation": {"interval": "1h", "prefetch": "2h"}}),
                &["prefetch must be shorter than interval"],
            ),
        ];
        for (index, (kind, spec, parts)) in cases.into_iter().enumerate() {
            let resource = match kind {
                "MamlWorkflow" => ApiResource::erase::<MamlWorkflow>(&()),
                "ChimeraHead" => ApiResource::erase::<ChimeraHead>(&()),
                _ => ApiResource::erase::<KeyRotationPolicy>(&()),
            };
            let mut object = DynamicObject::new(&format!("faulty-{index}"), &resource);
            object.data = json!({"spec": spec});
            let api: Api<DynamicObject> = Api::namespaced_with(space.client.clone(), &space.name, &resource);
            let (code, message) = refusal(api.create(&PostParams::default(), &object).await);
            assert_eq!(code, 422, "{spec}: {message}");
            for part in parts {
                assert!(message.contains(part), "{part} is not in the answer to {spec}: {message}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn the_role_of_a_head_never_changes() {
    in_namespace("role", async |space| {
        let mut head = e2e::heads::small("empty");
        head.spec.replicas = 0;
        space.create_object(&head).await;
        let change = Patch::Merge(json!({"spec": {"role": "crypto"}}));
        let (code, message) = refusal(
            space
                .api::<ChimeraHead>()
                .patch("empty", &PatchParams::default(), &change)
                .await,
        );
        assert_eq!(code, 422);
        assert!(message.contains("create another ChimeraHead"), "{message}");
    })
    .await;
}
