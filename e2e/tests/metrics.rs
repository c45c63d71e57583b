//! What the operator tells Prometheus and the kubelet.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the answer")]

use e2e::{Namespace, cluster, documents, heads, in_namespace, runs};
use kube::ResourceExt;

/// Asks the operator's pod through the API server.
async fn ask(space: &Namespace, port: u16, path: &str) -> String {
    let pod = cluster::operator_pod(&space.client).await.name_any();
    let url = format!(
        "/api/v1/namespaces/{}/pods/{pod}:{port}/proxy{path}",
        cluster::OPERATOR_NAMESPACE
    );
    space
        .client
        .request_text(http::Request::get(url).body(Vec::new()).unwrap())
        .await
        .unwrap()
}

/// The value of a metric with exactly these labels.
fn value(text: &str, series: &str) -> f64 {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in:\n{text}"))
        .parse()
        .unwrap()
}

#[tokio::test]
async fn the_missions_metrics_follow_what_happens() {
    in_namespace("metrics", async |space| {
        heads::start(space, heads::small("small")).await;
        let done = runs::run(space, runs::workflow("first", documents::small())).await;
        runs::assert_succeeded(space, &done).await;
        let before = ask(space, 9090, "/metrics").await;
        let done = runs::run(space, runs::workflow("second", documents::small())).await;
        runs::assert_succeeded(space, &done).await;
        let after = ask(space, 9090, "/metrics").await;

        for series in [
            r#"chimera_requests_total{reason="Succeeded",result="Success"}"#,
            r#"chimera_execution_time_seconds_count{result="Success"}"#,
            r#"chimera_signatures_total{kind="receipt"}"#,
        ] {
            assert!(
                value(&after, series) > value(&before, series),
                "{series} stands still"
            );
        }
        assert!(
            (value(&after, r#"chimera_head_status{head="head1"}"#) - 1.0).abs() < f64::EPSILON,
            "head 1 is ready"
        );
        // Another test revokes a key, so that some receipts rightly do not verify any more.
        let share = |text: &str| value(text, "signature_verification_success");
        assert!(
            share(&after) > 0.0 && share(&after) >= share(&before),
            "a receipt did not verify"
        );
        assert!((value(&after, "chimera_leader") - 1.0).abs() < f64::EPSILON);
        assert!(
            after.contains("# TYPE chimera_execution_time_seconds histogram"),
            "{after}"
        );
        for name in ["first", "second"] {
            assert!(
                !after.contains(&format!("\"{name}\"")),
                "a metric is labelled by a workflow's name: {name}"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn the_operator_says_that_it_is_well() {
    let space = Namespace {
        name: cluster::OPERATOR_NAMESPACE.to_owned(),
        client: cluster::client().await,
    };
    for path in ["/healthz", "/readyz"] {
        assert_eq!(ask(&space, 8080, path).await.trim(), "ok", "{path}");
    }
}
