//! The cluster under test, and the clients that talk to it: as its administrator, or as anybody else.

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, Config, api::ListParams, config::KubeConfigOptions};

/// Namespace of the operator.
pub const OPERATOR_NAMESPACE: &str = "chimera-system";
/// The operator's Deployment, service account and Lease all have this name.
pub const OPERATOR: &str = "chimera-controller";
/// The user that the operator's requests come from.
pub const OPERATOR_USER: &str = "system:serviceaccount:chimera-system:chimera-controller";
/// Label selector of the operator's pods.
pub const OPERATOR_PODS: &str = "app.kubernetes.io/name=chimera,app.kubernetes.io/component=controller";

/// The cluster of `KUBECONFIG`. A missing one is a failure: a test that skips itself proves nothing.
pub async fn config() -> Config {
    assert!(
        std::env::var_os("KUBECONFIG").is_some(),
        "these tests need a cluster with the chart installed, and KUBECONFIG names none: run `make test`, which brings one up"
    );
    // The second and later tests of a process find it installed.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Config::from_kubeconfig(&KubeConfigOptions::default())
        .await
        .expect("KUBECONFIG names a usable kubeconfig")
}

/// A client with the rights of the kubeconfig's user, who must be the cluster's administrator.
pub async fn client() -> Client {
    Client::try_from(config().await).expect("the kubeconfig makes a client")
}

/// A client that speaks as `user`, a member of `groups` and of nothing else but the authenticated.
pub async fn client_as(user: &str, groups: &[&str]) -> Client {
    let mut config = config().await;
    config.auth_info.impersonate = Some(user.to_owned());
    if !groups.is_empty() {
        let all = groups.iter().copied().chain(["system:authenticated"]);
        config.auth_info.impersonate_groups = Some(all.map(ToOwned::to_owned).collect());
    }
    Client::try_from(config).expect("the kubeconfig makes a client")
}

/// Whether the cluster is the one of `e2e/cluster`, whose processes can be seen and killed from here.
pub fn is_local() -> bool {
    std::env::var("CHIMERA_LOCAL_CLUSTER").is_ok_and(|value| value == "1")
}

/// The operator's pods that are not being deleted.
pub async fn operator_pods(client: &Client) -> Vec<Pod> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
    let list = pods
        .list(&ListParams::default().labels(OPERATOR_PODS))
        .await
        .expect("the operator's pods can be listed");
    list.items
        .into_iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .collect()
}

/// The operator's one pod.
pub async fn operator_pod(client: &Client) -> Pod {
    let mut pods = operator_pods(client).await;
    assert_eq!(
        pods.len(),
        1,
        "one operator pod in {OPERATOR_NAMESPACE}: is the chart installed?"
    );
    pods.remove(0)
}
