//! Receipts, verified by the command line: away from any cluster, and against it.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the answer")]

use api::{MamlWorkflow, MuReceipt, names};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use crypto::{KeyStatement, SigningKey, Suite, key_statement::KeyPurpose, trust::Bundle};
use e2e::{
    Namespace,
    cli::{chimera, chimera_offline},
    cluster, heads, in_namespace, runs, samples,
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, ResourceExt};
use serde_json::Value;
use tempfile::TempDir;

/// What an auditor has on a desk without a network: receipts, the bundle, document and outputs.
struct Desk(TempDir);

impl Desk {
    async fn of(space: &Namespace) -> Self {
        let desk = Self(tempfile::tempdir().unwrap());
        let maps: Api<ConfigMap> = Api::namespaced(space.client.clone(), cluster::OPERATOR_NAMESPACE);
        let trust = maps.get(names::TRUST_CONFIG_MAP).await.unwrap().data.unwrap();
        desk.write("trust.json", &trust[names::TRUST_BUNDLE_KEY]);
        desk.write("root.pem", &trust[names::TRUST_ROOT_KEY]);
        desk
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        std::fs::write(self.0.path().join(name), bytes).unwrap();
    }

    async fn verify(&self, args: &[&str]) -> (i32, String) {
        let answer = chimera_offline(self.0.path(), &[&["verify"], args].concat()).await;
        (answer.code, answer.stdout + &answer.stderr)
    }
}

async fn hello(space: &Namespace) -> (MamlWorkflow, MuReceipt) {
    heads::start(space, heads::small("small")).await;
    let done = runs::run(space, samples::object("hello", "MamlWorkflow")).await;
    let receipt = runs::assert_succeeded(space, &done).await;
    (done, receipt)
}

/// The envelope with one bit of a base64 field flipped.
fn flipped(envelope: &str, pointer: &str, place: f64) -> String {
    let mut value: Value = serde_json::from_str(envelope).unwrap();
    let field = value.pointer_mut(pointer).unwrap();
    let mut bytes = STANDARD.decode(field.as_str().unwrap()).unwrap();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a place in a few kilobytes"
    )]
    let index = ((bytes.len() - 1) as f64 * place) as usize;
    bytes[index] ^= 1;
    *field = STANDARD.encode(bytes).into();
    value.to_string()
}

#[tokio::test]
async fn an_exported_receipt_verifies_offline_and_every_change_is_found() {
    in_namespace("offline", async |space| {
        let (workflow, receipt) = hello(space).await;
        let desk = Desk::of(space).await;
        let envelope = &receipt.spec.envelope;
        desk.write("receipt.json", envelope);
        desk.write("object.json", serde_json::to_string_pretty(&receipt).unwrap());
        desk.write("object.yaml", serde_saphyr::to_string(&receipt).unwrap());
        desk.write("hello.maml.md", workflow.spec.source.inline.as_ref().unwrap());
        desk.write("outputs.json", r#"{"greeting":"hello from chimera","total":45}"#);
        let trust = ["--trust", "trust.json", "--root", "root.pem"];

        for file in ["receipt.json", "object.json", "object.yaml"] {
            let evidence = ["--document", "hello.maml.md", "--outputs", "outputs.json"];
            let (code, text) = desk.verify(&[&[file], &trust[..], &evidence].concat()).await;
            assert_eq!(code, 0, "{file}: {text}");
            assert!(!text.contains("FAIL"), "{text}");
        }

        for pointer in ["/payload", "/signatures/0/sig"] {
            for place in [0.0, 0.25, 0.5, 0.75, 1.0] {
                desk.write("flipped.json", flipped(envelope, pointer, place));
                let (code, text) = desk.verify(&[&["flipped.json"], &trust[..]].concat()).await;
                assert_eq!(code, 10, "{pointer} at {place}: {text}");
            }
        }

        let other = SigningKey::generate(Suite::MlDsa87).unwrap();
        let other_id = other.verifying_key().key_id().to_string();
        let (code, text) = desk
            .verify(&["receipt.json", "--trust", "trust.json", "--root", &other_id])
            .await;
        assert_eq!(code, 11, "another pinned root: {text}");
        desk.write("renamed.json", envelope.replace(&receipt.spec.key_id, &other_id));
        let (code, text) = desk.verify(&[&["renamed.json"], &trust[..]].concat()).await;
        assert_eq!(code, 11, "another key id: {text}");
        let start = "2026-01-01T00:00:00Z".parse().unwrap();
        let statement = KeyStatement::about(other.verifying_key(), KeyPurpose::Signing, start, None, None, 1);
        let foreign = Bundle::new(other.verifying_key(), vec![statement.sign(&other).unwrap()]);
        desk.write("foreign.json", foreign.to_json());
        let (code, text) = desk.verify(&["receipt.json", "--trust", "foreign.json"]).await;
        assert_eq!(code, 11, "another root's bundle: {text}");

        desk.write("other.maml.md", workflow.spec.source.inline.unwrap() + "\n");
        desk.write("others.json", r#"{"greeting":"hello from chimera","total":46}"#);
        for evidence in [["--document", "other.maml.md"], ["--outputs", "others.json"]] {
            let (code, text) = desk
                .verify(&[&["receipt.json"], &trust[..], &evidence].concat())
                .await;
            assert_eq!(code, 12, "{evidence:?}: {text}");
        }
        let mut forged = receipt.clone();
        forged.spec.submitter = Some("somebody-else".to_owned());
        desk.write("forged.json", serde_json::to_string(&forged).unwrap());
        let (code, text) = desk.verify(&[&["forged.json"], &trust[..]].concat()).await;
        assert_eq!(code, 12, "a plain field that is not what is signed: {text}");

        let (code, text) = desk.verify(&[&["missing.json"], &trust[..]].concat()).await;
        assert_eq!(code, 13, "{text}");
        for file in ["hello.maml.md", "outputs.json", "trust.json"] {
            let (code, text) = desk.verify(&[&[file], &trust[..]].concat()).await;
            assert_eq!(code, 2, "{file}: {text}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_receipt_of_a_refusal_verifies_offline_too() {
    in_namespace("offline-error", async |space| {
        let done = runs::run(space, samples::object("refused", "MamlWorkflow")).await;
        let receipt = runs::verified_receipt(space, &done).await;
        let desk = Desk::of(space).await;
        desk.write("object.json", serde_json::to_string(&receipt).unwrap());
        desk.write("refused.maml.md", done.spec.source.inline.as_ref().unwrap());
        let trust = ["--trust", "trust.json", "--root", "root.pem"];
        let (code, text) = desk
            .verify(&[&["object.json", "--document", "refused.maml.md"], &trust[..]].concat())
            .await;
        assert_eq!(code, 0, "{text}");
        desk.write("flipped.json", flipped(&receipt.spec.envelope, "/payload", 0.5));
        assert_eq!(desk.verify(&[&["flipped.json"], &trust[..]].concat()).await.0, 10);
    })
    .await;
}

#[tokio::test]
async fn a_receipt_in_the_cluster_is_verified_by_its_name() {
    in_namespace("by-name", async |space| {
        let done = runs::run(space, samples::object("refused", "MamlWorkflow")).await;
        let receipt = runs::verified_receipt(space, &done).await;
        let named = format!("mur/{}", receipt.name_any());
        let answer = chimera(&["verify", &named, "--namespace", &space.name]).await;
        assert_eq!(answer.code, 0, "{}{}", answer.stdout, answer.stderr);
        assert!(answer.stdout.ends_with("verdict: valid\n"), "{}", answer.stdout);
        let answer = chimera(&["verify", "mur/no-such-receipt", "--namespace", &space.name]).await;
        assert_eq!(answer.code, 13, "{}{}", answer.stdout, answer.stderr);
    })
    .await;
}

#[tokio::test]
async fn the_command_line_submits_waits_and_verifies() {
    in_namespace("submit", async |space| {
        heads::start(space, heads::small("small")).await;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sum.maml.md");
        std::fs::write(&file, e2e::documents::small().text()).unwrap();
        let path = file.to_str().unwrap();
        let answer = chimera(&["submit", path, "--namespace", &space.name, "--wait", "--verify"]).await;
        assert_eq!(answer.code, 0, "{}{}", answer.stdout, answer.stderr);
        std::fs::write(&file, e2e::documents::refused("")).unwrap();
        let answer = chimera(&["submit", path, "--namespace", &space.name, "--wait"]).await;
        assert_eq!(answer.code, 2, "{}{}", answer.stdout, answer.stderr);
        assert!(answer.stderr.contains("2:15"), "{}", answer.stderr);
    })
    .await;
}
