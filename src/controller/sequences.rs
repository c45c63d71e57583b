//! The order of writes, against a recorded API server: what a crash between any two of them leaves behind follows
//! from it.

use std::sync::Arc;

use api::{ChimeraHead, KeyRotationPolicy, MamlWorkflow, names};
use controller_core::run::run_key;
use crypto::{
    Envelope,
    kem::{DecapsulationKey, EncapsulationKey},
    receipt::Statement,
    seal::{Binding, Sealed},
};
use serde_json::{Value, json};

use crate::{
    claims::Claims,
    context::Context,
    head,
    keys::rotation,
    recorded_server::Server,
    test_context::{context, scope},
    workflow,
};

const ROOT: &str = "/api/v1/namespaces/ops/secrets/chimera-root";
const KEYS: &str = "/api/v1/namespaces/ops/secrets/chimera-keys-signing";
const TRUST: &str = "/api/v1/namespaces/ops/configmaps/chimera-trust";
const POLICY: &str = "/apis/chimera.dunes.io/v1alpha1/namespaces/ops/keyrotationpolicies/signing";
const WORKFLOW: &str = "/apis/chimera.dunes.io/v1alpha1/namespaces/team/mamlworkflows/w";
const RECEIPTS: &str = "/apis/chimera.dunes.io/v1alpha1/namespaces/team/mureceipts";

fn policy(server: &Server) -> Arc<KeyRotationPolicy> {
    if server.get(POLICY).is_none() {
        let policy = json!({
            "apiVersion": "chimera.dunes.io/v1alpha1", "kind": "KeyRotationPolicy",
            "metadata": {"name": "signing", "namespace": "ops", "generation": 1},
            "spec": {"purpose": "Signing", "algorithm": "ML-DSA-87"},
        });
        server.put(POLICY, &policy);
    }
    let stored = server.get(POLICY).expect("put above");
    Arc::new(serde_json::from_value(stored).expect("a policy"))
}

/// Reconciles the policy until it rests; all writes in their order, status apart.
pub async fn settle_keys(server: &Arc<Server>, context: &Arc<Context>) -> Vec<String> {
    for _ in 0..6 {
        rotation::reconcile(policy(server), Arc::clone(context))
            .await
            .expect("reconciled");
    }
    server
        .writes()
        .into_iter()
        .filter(|write| !write.ends_with("/status"))
        .collect()
}

fn refused_workflow() -> Arc<MamlWorkflow> {
    let workflow = json!({
        "apiVersion": "chimera.dunes.io/v1alpha1", "kind": "MamlWorkflow",
        "metadata": {"name": "w", "namespace": "team", "uid": "u", "generation": 1,
                     "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"source": {"inline": "no front matter"}, "submitter": "alice"},
    });
    Arc::new(serde_json::from_value(workflow).expect("a workflow"))
}

#[tokio::test]
async fn keys_are_written_root_first_published_before_use_and_then_left_alone() {
    let server = Arc::new(Server::default());
    let context = context(&server.client());
    let writes = settle_keys(&server, &context).await;
    assert_eq!(writes, [ROOT, KEYS, TRUST].map(|path| format!("PATCH {path}")));
    assert!(context.keyring.signer("signing").is_ok());
    assert_eq!(
        settle_keys(&server, &context).await,
        Vec::<String>::new(),
        "a policy at rest writes nothing"
    );
}

#[tokio::test]
async fn a_crash_after_any_write_of_an_installation_ends_in_the_same_keys() {
    for kept in [vec![ROOT], vec![ROOT, KEYS], vec![ROOT, KEYS, TRUST]] {
        let server = Arc::new(Server::default());
        settle_keys(&server, &context(&server.client())).await;
        let before = kept
            .iter()
            .map(|path| (*path, server.get(path)))
            .collect::<Vec<_>>();
        for path in [ROOT, KEYS, TRUST, POLICY] {
            if !kept.contains(&path) {
                server.remove(path);
            }
        }
        // Another process goes on from there.
        let successor = context(&server.client());
        let writes = settle_keys(&server, &successor).await;
        assert_eq!(writes.len(), 3 - kept.len(), "{kept:?}");
        for (path, object) in before {
            assert_eq!(server.get(path), object, "{path} was written again");
        }
        assert!(successor.keyring.signer("signing").is_ok(), "{kept:?}");
    }
}

#[tokio::test]
async fn a_lost_or_damaged_key_takes_signing_away_and_is_never_made_again() {
    for (path, damaged) in [
        (KEYS, None),
        (ROOT, None),
        (KEYS, Some(json!({"data": {"active": "e30="}}))),
    ] {
        let server = Arc::new(Server::default());
        let context = context(&server.client());
        settle_keys(&server, &context).await;
        match damaged {
            Some(damaged) => server.put(path, &damaged),
            None => {
                server.remove(path);
            }
        }
        assert_eq!(settle_keys(&server, &context).await, Vec::<String>::new());
        assert!(context.keyring.signer("signing").is_err());
        let ready = &server.get(POLICY).expect("the policy")["status"]["conditions"][0];
        assert_eq!(ready["status"], "False", "{ready}");
    }
}

#[tokio::test]
async fn a_run_is_concluded_by_its_receipt_and_then_its_status() {
    let server = Arc::new(Server::default());
    let context = context(&server.client());
    settle_keys(&server, &context).await;
    let workflow = refused_workflow();
    server.put(WORKFLOW, &workflow);
    workflow::reconcile(Arc::clone(&workflow), scope(Arc::clone(&context)))
        .await
        .expect("reconciled");
    assert_eq!(
        server.writes(),
        [format!("POST {RECEIPTS}"), format!("PATCH {WORKFLOW}/status")]
    );

    // The status was lost with the process: the receipt is found, and there is still one.
    let successor = self::context(&server.client());
    settle_keys(&server, &successor).await;
    workflow::reconcile(workflow, scope(successor))
        .await
        .expect("reconciled");
    assert_eq!(
        server.writes(),
        [format!("POST {RECEIPTS}"), format!("PATCH {WORKFLOW}/status")]
    );
    let paths = server.paths();
    let receipts: Vec<_> = paths.iter().filter(|path| path.starts_with(RECEIPTS)).collect();
    assert_eq!(receipts.len(), 1);
    let receipt = server.get(receipts[0]).expect("stored");
    let status = &server.get(WORKFLOW).expect("a status")["status"];
    assert_eq!(status["receiptRef"]["uid"], receipt["metadata"]["uid"]);
}

#[tokio::test]
async fn a_run_of_which_only_the_lease_tells_was_begun() {
    let server = Arc::new(Server::default());
    let successor = context(&server.client());
    settle_keys(&server, &successor).await;
    let mut workflow = (*refused_workflow()).clone();
    workflow.spec.source.inline = Some(COUNTS.to_owned());
    workflow.spec.infrastructure_retries = 0;
    server.put(WORKFLOW, &workflow);
    let left = json!({"u": {
        "runId": run_key(&workflow).run_id(1), "attempt": 1, "time": "2026-01-01T00:00:00Z",
        "head": {"name": "q", "pod": "q-0-0", "uid": "gone"},
        "document": {"sha256": "d", "blake3": "d"}, "inputs": {"sha256": "i", "blake3": "i"},
    }});
    let context = Context {
        claims: Arc::new(Claims::inherited(Some(&left.to_string())).expect("claims")),
        ..Arc::into_inner(successor).expect("nobody else has it")
    };
    let context = Arc::new(context);
    workflow::reconcile(Arc::new(workflow), scope(Arc::clone(&context)))
        .await
        .expect("reconciled");
    let status = server.get(WORKFLOW).expect("a status")["status"].clone();
    assert_eq!(status["attempts"][0]["pod"], "q-0-0", "{status}");
    assert_eq!(status["documentDigest"]["sha256"], "d", "{status}");
    assert!(status["conditions"].to_string().contains("HeadLost"), "{status}");
    assert_eq!(
        context.claims.workflows(),
        Vec::<String>::new(),
        "the status tells now"
    );
}

#[tokio::test]
async fn without_a_key_nothing_is_written_but_why_the_run_waits() {
    let server = Arc::new(Server::default());
    let context = context(&server.client());
    let workflow = refused_workflow();
    server.put(WORKFLOW, &workflow);
    workflow::reconcile(workflow, scope(context))
        .await
        .expect("reconciled");
    assert_eq!(server.writes(), [format!("PATCH {WORKFLOW}/status")]);
    let text = server.get(WORKFLOW).expect("a status")["status"]["conditions"].to_string();
    assert!(text.contains("SigningKeyUnavailable"), "{text}");
}

#[tokio::test]
async fn secrets_of_the_operator_never_reach_logs_through_debug() {
    let server = Arc::new(Server::default());
    let context = context(&server.client());
    settle_keys(&server, &context).await;
    let status = server.get(POLICY).expect("the policy").to_string();
    let stored = server.get(KEYS).expect("the key")["data"]["active"].to_string();
    assert!(
        !status.contains(stored.trim_matches('"')) && !status.contains("seed"),
        "{status}"
    );
    assert_eq!(names::key_secret("signing"), "chimera-keys-signing");
}

#[tokio::test]
async fn a_heads_pods_are_made_after_the_policies_around_them_and_before_its_status() {
    const HEAD: &str = "/apis/chimera.dunes.io/v1alpha1/namespaces/team/chimeraheads/q";
    let server = Arc::new(Server::default());
    let context = context(&server.client());
    settle_keys(&server, &context).await;
    let head = json!({
        "apiVersion": "chimera.dunes.io/v1alpha1", "kind": "ChimeraHead",
        "metadata": {"name": "q", "namespace": "team", "generation": 1},
        "spec": {"role": "quantum", "replicas": 1, "spares": 1},
    });
    server.put(HEAD, &head);
    server.writes();
    let stored: ChimeraHead = serde_json::from_value(server.get(HEAD).expect("put above")).expect("a head");
    head::reconcile(Arc::new(stored), scope(context))
        .await
        .expect("reconciled");
    assert_eq!(
        server.writes(),
        [
            "PATCH /api/v1/namespaces/team/secrets/chimera-head-identity",
            "PATCH /apis/networking.k8s.io/v1/namespaces/team/networkpolicies/chimera-head-q",
            "PATCH /apis/policy/v1/namespaces/team/poddisruptionbudgets/chimera-head-q",
            "POST /api/v1/namespaces/team/pods",
            "POST /api/v1/namespaces/team/pods",
            &format!("PATCH {HEAD}/status"),
        ]
    );
    let owner =
        |path: &str| server.get(path).expect("written")["metadata"]["ownerReferences"][0]["kind"].clone();
    for path in [
        "/apis/policy/v1/namespaces/team/poddisruptionbudgets/chimera-head-q",
        "/api/v1/namespaces/team/pods/q-0-0",
        "/api/v1/namespaces/team/pods/q-1-0",
    ] {
        assert_eq!(owner(path), "ChimeraHead", "{path}");
    }
}

const SEALING_POLICY: &str = "/apis/chimera.dunes.io/v1alpha1/namespaces/ops/keyrotationpolicies/sealing";
/// What must be found nowhere.
const CANARY: &str = "canary-7f3a1c";
/// Takes a number `n`.
pub const COUNTS: &str = "---\nmaml_version: \"2.0.0\"\nid: urn:uuid:3f2b6c1e-6a63-4f0e-9d0a-0d8a2f1c7b11\ntype: workflow\n\
    origin: agent://tests\npermissions:\n  read: [\"agent://*\"]\n  write: [\"agent://tests\"]\n  execute: [\"agent://*\"]\n\
    created_at: 2026-01-01T00:00:00Z\n---\n## Intent\n\nCount.\n\n## Context\n\nNone.\n\n## Input_Schema\n\n\
    {\"type\":\"object\",\"properties\":{\"n\":{\"type\":\"integer\"}}}\n\n## Code_Blocks\n\n```python\nx = 1\n```\n";

/// A key to seal with for the namespace `team`, from the bundle that is published.
async fn sealing_key(server: &Arc<Server>, context: &Arc<Context>) -> EncapsulationKey {
    for _ in 0..6 {
        let stored = server.get(SEALING_POLICY).unwrap_or_else(|| {
            json!({
                "apiVersion": "chimera.dunes.io/v1alpha1", "kind": "KeyRotationPolicy",
                "metadata": {"name": "sealing", "namespace": "ops", "uid": "s", "generation": 1},
                "spec": {"purpose": "Sealing", "algorithm": "ML-KEM-1024"},
            })
        });
        server.put(SEALING_POLICY, &stored);
        let policy = Arc::new(serde_json::from_value(stored).expect("a policy"));
        rotation::reconcile(policy, Arc::clone(context))
            .await
            .expect("reconciled");
    }
    let trust = context.keyring.trust().expect("a published bundle");
    let (_, key) = trust.keys.sealing_key("team").expect("a sealing key");
    key.clone()
}

/// Reconciles workflow `team/w`, whose secret `n` is sealed so; its status then.
async fn reconcile_sealed(
    server: &Arc<Server>,
    context: &Arc<Context>,
    binding: Binding,
    key: &EncapsulationKey,
) -> Value {
    let secret = json!({"n": CANARY}).to_string();
    let sealed = Sealed::seal(secret.as_bytes(), binding, &[key]).expect("sealed");
    let mut workflow = (*refused_workflow()).clone();
    workflow.spec.source.inline = Some(COUNTS.to_owned());
    workflow.spec.sealed_inputs = Some(sealed.to_json());
    server.put(WORKFLOW, &workflow);
    server.writes();
    workflow::reconcile(Arc::new(workflow), scope(Arc::clone(context)))
        .await
        .expect("reconciled");
    server.get(WORKFLOW).expect("a status")["status"].clone()
}

/// The receipt's statement, once nothing in it or in any stored object or metric tells the secret.
fn receipt_without_canary(server: &Server, context: &Context) -> Statement {
    let objects = server.objects();
    let everything = serde_json::to_string(&objects).expect("JSON");
    let metrics = context.metrics.render().expect("rendered");
    assert!(!everything.contains(CANARY) && !String::from_utf8_lossy(&metrics).contains(CANARY));
    let (_, receipt) = objects
        .iter()
        .find(|(path, _)| path.starts_with(RECEIPTS))
        .expect("a receipt");
    let envelope = receipt["spec"]["envelope"].as_str().expect("an envelope");
    let envelope = Envelope::from_json(envelope.as_bytes()).expect("an envelope");
    assert!(!String::from_utf8_lossy(envelope.payload()).contains(CANARY));
    crypto::receipt::parse(&envelope).expect("a statement")
}

#[tokio::test]
async fn sealed_inputs_without_their_key_are_waited_for() {
    let server = Arc::new(Server::default());
    let context = context(&server.client());
    settle_keys(&server, &context).await;
    sealing_key(&server, &context).await;
    let foreign = DecapsulationKey::from_seed(&[9; 64]).expect("a key");
    let binding = Binding::new("team", "w", None);
    let status = reconcile_sealed(&server, &context, binding, foreign.encapsulation_key()).await;
    assert_eq!(server.writes(), [format!("PATCH {WORKFLOW}/status")]);
    let text = status["conditions"].to_string();
    assert!(
        text.contains("SealingKeyUnavailable") && text.contains("--rewrap"),
        "{text}"
    );
}

#[tokio::test]
async fn sealed_inputs_of_another_workflow_or_against_their_schema_are_refused_and_never_told() {
    for (binding, reason) in [
        (Binding::new("other", "w", None), "SealedInputsRefused"),
        (Binding::new("team", "other", None), "SealedInputsRefused"),
        (
            Binding::new("team", "w", Some(b"another document")),
            "SealedInputsRefused",
        ),
        (
            Binding::new("team", "w", Some(COUNTS.as_bytes())),
            "InputsInvalid",
        ),
    ] {
        let server = Arc::new(Server::default());
        let context = context(&server.client());
        settle_keys(&server, &context).await;
        let key = sealing_key(&server, &context).await;
        let status = reconcile_sealed(&server, &context, binding, &key).await;
        assert!(status["conditions"].to_string().contains(reason), "{status}");
        let statement = receipt_without_canary(&server, &context);
        let error = statement.internal().error.as_ref().expect("an error");
        assert_eq!(error.reason, reason);
        let text = server.get(WORKFLOW).expect("the workflow")["spec"]["sealedInputs"].clone();
        let sealed = Sealed::from_json(text.as_str().expect("a text").as_bytes()).expect("sealed");
        assert_eq!(statement.external().sealed_inputs, Some(sealed.digest()));
    }
}
