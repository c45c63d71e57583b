//! The hybrid document, on a head whose image has PyTorch: run, signed, and verified away from the cluster.

use api::{MamlWorkflow, Role, names};
use e2e::{cli::chimera_offline, cluster, heads, images, in_namespace, runs, samples};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::Api;

#[tokio::test]
async fn the_hybrid_document_is_run_signed_and_verified_on_an_inference_head() {
    in_namespace("inference", async |space| {
        let mut head = heads::small("inference");
        head.spec.role = Role::Inference;
        head.spec.image = Some(images::head_inference());
        head.spec.workers.warm = 1;
        head.spec.workers.preload = vec!["torch".into(), "qiskit".into(), "qiskit_aer".into()];
        if let Some(limits) = head.spec.resources.as_mut().and_then(|all| all.limits.as_mut()) {
            limits.memory = Some(Quantity("6Gi".into()));
        }
        heads::start(space, head).await;

        let done = runs::run(space, samples::object::<MamlWorkflow>("hybrid", "MamlWorkflow")).await;
        let receipt = runs::assert_succeeded(space, &done).await;
        let outputs = runs::status(&done).outputs.unwrap();
        let counts = outputs["quantum_counts"].as_object().unwrap();
        assert!(
            counts.keys().all(|state| state == "00" || state == "11"),
            "{counts:?}"
        );
        assert_eq!(
            counts.values().filter_map(serde_json::Value::as_u64).sum::<u64>(),
            1000
        );
        assert!(
            outputs["validation_accuracy"].as_f64().unwrap() > 0.7,
            "{outputs:?}"
        );

        let desk = tempfile::tempdir().unwrap();
        let maps: Api<ConfigMap> = Api::namespaced(space.client.clone(), cluster::OPERATOR_NAMESPACE);
        let trust = maps.get(names::TRUST_CONFIG_MAP).await.unwrap().data.unwrap();
        let write = |name: &str, text: &str| std::fs::write(desk.path().join(name), text).unwrap();
        write("trust.json", &trust[names::TRUST_BUNDLE_KEY]);
        write("root.pem", &trust[names::TRUST_ROOT_KEY]);
        write("receipt.json", &receipt.spec.envelope);
        let arguments = [
            "verify",
            "receipt.json",
            "--trust",
            "trust.json",
            "--root",
            "root.pem",
        ];
        let answer = chimera_offline(desk.path(), &arguments).await;
        assert_eq!(answer.code, 0, "{}{}", answer.stdout, answer.stderr);
    })
    .await;
}
