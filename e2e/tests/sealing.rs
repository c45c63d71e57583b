//! Sealed inputs: opened by their own run, refused anywhere else, and readable in nothing that the cluster keeps.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the answer")]

use api::{
    KeyRotationPolicy, MamlWorkflow, MuReceipt,
    condition::{READY, SCHEDULED, is_true},
    reasons,
};
use crypto::{Envelope, kem::DecapsulationKey, seal::Binding, seal::Sealed};
use e2e::{
    Namespace,
    cli::{chimera, kubectl},
    cluster,
    documents::Document,
    heads, in_namespace, processes, runs, wait,
};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, LogParams},
};
use serde_json::json;

/// Checks the secret and tells nothing but that it is right.
fn checks(canary: &str) -> String {
    // The document is public: it knows only a digest.
    let digest = crypto::digest::sha256_hex(canary.as_bytes());
    Document::python(&format!(
        "import hashlib\nright = hashlib.sha256(inputs['password'].encode()).hexdigest() == '{digest}'\n\
         outputs = {{'right': right, 'n': inputs.get('n')}}"
    ))
    .text()
}

/// Waits until the key of the chart's own policy, which opens what is sealed for any namespace, is in use.
async fn sealing_key(space: &Namespace) {
    let policies: Api<KeyRotationPolicy> = Api::namespaced(space.client.clone(), cluster::OPERATOR_NAMESPACE);
    wait::until(&policies, "sealing", "its key is in use", |policy| {
        let status = policy.status.as_ref();
        status.is_some_and(|status| is_true(&status.conditions, READY))
    })
    .await;
}

/// The text for a workflow of this namespace.
async fn sealed(space: &Namespace, workflow: &str, canary: &str) -> String {
    let input = format!("password={canary}");
    let answer = chimera(&[
        "seal",
        "-i",
        &input,
        "-n",
        &space.name,
        "--workflow",
        workflow,
        "--no-own-key",
        "--operator-namespace",
        cluster::OPERATOR_NAMESPACE,
    ])
    .await;
    assert_eq!(answer.code, 0, "{}", answer.stderr);
    answer.stdout.trim().to_owned()
}

fn workflow(name: &str, document: &str, sealed: &str) -> MamlWorkflow {
    let mut workflow = runs::workflow(name, document);
    workflow.spec.sealed_inputs = Some(sealed.to_owned());
    workflow
}

/// Everything that is kept of a run: objects with what is signed in them, events, logs of heads and operator, metrics.
async fn kept(space: &Namespace) -> String {
    let mut text = String::new();
    for workflow in space
        .api::<MamlWorkflow>()
        .list(&ListParams::default())
        .await
        .unwrap()
    {
        text.push_str(&wait::yaml(&workflow));
        text.push_str(
            &chimera(&["status", &workflow.name_any(), "-n", &space.name])
                .await
                .stdout,
        );
        text.push_str(
            &chimera(&["why", &workflow.name_any(), "-n", &space.name])
                .await
                .stdout,
        );
    }
    for receipt in space
        .api::<MuReceipt>()
        .list(&ListParams::default())
        .await
        .unwrap()
    {
        let envelope = Envelope::from_json(receipt.spec.envelope.as_bytes()).unwrap();
        let statement = crypto::receipt::parse(&envelope).unwrap();
        text.push_str(&wait::yaml(&receipt));
        text.push_str(&String::from_utf8_lossy(envelope.payload()));
        for inner in [statement.grant().unwrap(), statement.attestation().unwrap()]
            .into_iter()
            .flatten()
        {
            text.push_str(&String::from_utf8_lossy(inner.payload()));
        }
    }
    for event in space.api::<Event>().list(&ListParams::default()).await.unwrap() {
        text.push_str(&wait::yaml(&event));
    }
    let operator = Namespace {
        name: cluster::OPERATOR_NAMESPACE.to_owned(),
        client: space.client.clone(),
    };
    for pods in [space, &operator] {
        let api: Api<Pod> = pods.api();
        for pod in api.list(&ListParams::default()).await.unwrap() {
            text.push_str(&wait::yaml(&pod));
            text.push_str(
                &api.logs(&pod.name_any(), &LogParams::default())
                    .await
                    .unwrap_or_default(),
            );
        }
    }
    let pod = cluster::operator_pod(&space.client).await.name_any();
    let path = format!(
        "/api/v1/namespaces/{}/pods/{pod}:9090/proxy/metrics",
        cluster::OPERATOR_NAMESPACE
    );
    let request = http::Request::get(path).body(Vec::new()).unwrap();
    text + &space.client.request_text(request).await.unwrap()
}

#[tokio::test]
async fn a_sealed_input_is_used_by_its_run_and_readable_in_nothing_that_is_kept() {
    in_namespace("sealed", async |space| {
        let canary = format!("canary-{}", space.name);
        heads::start(space, heads::small("small")).await;
        sealing_key(space).await;
        let text = sealed(space, "own", &canary).await;
        let mut own = workflow("own", &checks(&canary), &text);
        own.spec.inputs.insert("n".into(), json!(21));
        let done = runs::run(space, own).await;
        let receipt = runs::assert_succeeded(space, &done).await;
        let outputs = runs::status(&done).outputs.unwrap();
        assert_eq!(
            serde_json::Value::Object(outputs),
            json!({"right": true, "n": 21})
        );

        let envelope = Envelope::from_json(receipt.spec.envelope.as_bytes()).unwrap();
        let external = crypto::receipt::parse(&envelope).unwrap().external().clone();
        let sealed = Sealed::from_json(text.as_bytes()).unwrap();
        assert_eq!(external.sealed_inputs, Some(sealed.digest()));
        let guess = json!({"n": 21, "password": canary}).to_string();
        assert!(
            !external.inputs.matches(guess.as_bytes()),
            "the inputs could be guessed"
        );

        // A schema that the secret breaks is told without it.
        let number = Document::python("x = 1")
            .inputs(json!({"type": "object", "properties": {"password": {"type": "integer"}}}));
        let text = self::sealed(space, "broken", &canary).await;
        let done = runs::run(space, workflow("broken", &number.text(), &text)).await;
        runs::assert_failed(space, &done, reasons::INPUTS_INVALID).await;

        let kept = kept(space).await;
        assert!(
            kept.contains(&space.name) && !kept.contains(&canary),
            "the secret is told"
        );
    })
    .await;
}

#[tokio::test]
async fn a_sealed_input_is_refused_under_another_name_namespace_and_document() {
    in_namespace("sealed-here", async |space| {
        sealing_key(space).await;
        let canary = format!("canary-{}", space.name);
        let document = checks(&canary);
        let text = sealed(space, "own", &canary).await;
        let done = runs::run(space, workflow("other", &document, &text)).await;
        let receipt = runs::assert_failed(space, &done, reasons::SEALED_INPUTS_REFUSED).await;
        assert!(
            receipt
                .spec
                .error
                .unwrap()
                .message
                .contains("workflow own, not for other")
        );

        in_namespace("sealed-there", async |there| {
            let done = runs::run(there, workflow("own", &document, &text)).await;
            runs::assert_failed(there, &done, reasons::SEALED_INPUTS_REFUSED).await;
        })
        .await;

        // A text for this very document, in another one.
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &document).unwrap();
        let path = file.path().display().to_string();
        let bound = chimera(&[
            "seal",
            "-i",
            "password=x",
            "-n",
            &space.name,
            "--workflow",
            "bound",
            "--no-own-key",
            "--document",
            &path,
        ])
        .await;
        assert_eq!(bound.code, 0, "{}", bound.stderr);
        let done = runs::run(space, workflow("bound", &checks("another"), bound.stdout.trim())).await;
        let receipt = runs::assert_failed(space, &done, reasons::SEALED_INPUTS_REFUSED).await;
        assert!(receipt.spec.error.unwrap().message.contains("document"));
    })
    .await;
}

#[tokio::test]
async fn a_text_for_a_key_that_nobody_holds_waits_and_says_how_to_renew_it() {
    in_namespace("sealed-lost", async |space| {
        sealing_key(space).await;
        let lost = DecapsulationKey::generate().unwrap();
        let binding = Binding::new(&space.name, "waits", None);
        let text = Sealed::seal(b"{}", binding, &[lost.encapsulation_key()])
            .unwrap()
            .to_json();
        space.create_object(&workflow("waits", &checks("x"), &text)).await;
        runs::says_why(space, "waits", SCHEDULED, reasons::SEALING_KEY_UNAVAILABLE).await;
        let why = chimera(&["why", "waits", "-n", &space.name]).await;
        assert!(why.stdout.contains("chimera seal --rewrap"), "{}", why.stdout);
        let explained = kubectl(&["explain", "mamlworkflow.spec.sealedInputs"]).await;
        assert!(explained.stdout.contains("chimera seal"), "{}", explained.stdout);
    })
    .await;
}

#[tokio::test]
async fn what_the_operator_holds_in_memory_is_in_no_core_dump() {
    if !cluster::is_local() {
        // Its process is on another machine.
        return;
    }
    let pod = cluster::operator_pod(&cluster::client().await).await;
    let found = processes::of_pod(&pod.uid().unwrap());
    assert!(!found.is_empty());
    for process in found {
        assert!(!process.is_dumpable(), "{process:?}");
    }
}
