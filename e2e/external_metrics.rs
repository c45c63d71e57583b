//! An external metrics API (`external.metrics.k8s.io`) for the cluster's HorizontalPodAutoscaler: what prometheus-adapter or
//! KEDA are elsewhere, as small as it can be. It answers with a gauge of the operator's own `/metrics`.
//!
//! It listens in the process of the test, so the cluster must be the local one.

use std::{net::SocketAddr, panic::AssertUnwindSafe, sync::Arc};

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    routing::get,
    serve::Listener,
};
use futures::FutureExt as _;
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    kube_aggregator::pkg::apis::apiregistration::v1::{APIService, APIServiceSpec, ServiceReference},
};
use kube::{
    Api, Client,
    api::{DeleteParams, ObjectMeta, PostParams},
};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{Namespace, cluster, wait};

const GROUP: &str = "external.metrics.k8s.io";
const VERSION: &str = "v1beta1";
const SERVICE: &str = "external-metrics";

/// Serves the metrics while `test` runs. The API is taken out of the cluster whatever becomes of the test: a broken one
/// would keep every namespace from being deleted.
pub async fn while_served(space: &Namespace, test: impl AsyncFnOnce()) {
    assert!(
        cluster::is_local(),
        "the API server of the cluster must reach this process: only the local one does"
    );
    let address = serve(space.client.clone()).await;
    let apis: Api<APIService> = Api::all(space.client.clone());
    let outcome = AssertUnwindSafe(Box::pin(async {
        register(space, &apis, address).await;
        test().await;
    }))
    .catch_unwind()
    .await;
    let name = format!("{VERSION}.{GROUP}");
    if let Err(error) = apis.delete(&name, &DeleteParams::default()).await {
        eprintln!("delete APIService {name}: {error}");
    }
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// Tells the API server where the metrics are, and waits until it finds them.
async fn register(space: &Namespace, apis: &Api<APIService>, address: SocketAddr) {
    let port = i32::from(address.port());
    let service = Service {
        metadata: named(SERVICE),
        spec: Some(ServiceSpec {
            type_: Some("ExternalName".to_owned()),
            external_name: Some(address.ip().to_string()),
            ports: Some(vec![ServicePort {
                port,
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        status: None,
    };
    space.create_object(&service).await;
    let api = APIService {
        metadata: named(&format!("{VERSION}.{GROUP}")),
        spec: Some(APIServiceSpec {
            group: Some(GROUP.to_owned()),
            version: Some(VERSION.to_owned()),
            service: Some(ServiceReference {
                name: Some(SERVICE.to_owned()),
                namespace: Some(space.name.clone()),
                port: Some(port),
            }),
            // Its certificate is made for this test, and it is reached over loopback.
            insecure_skip_tls_verify: Some(true),
            group_priority_minimum: 100,
            version_priority: 100,
            ca_bundle: None,
        }),
        status: None,
    };
    let made = apis.create(&PostParams::default(), &api).await;
    made.unwrap_or_else(|error| panic!("create the APIService: {error}"));
    let name = format!("{VERSION}.{GROUP}");
    wait::until(apis, &name, "the API server reaches it", |api| {
        let conditions = api.status.as_ref().and_then(|status| status.conditions.as_ref());
        conditions.is_some_and(|all| {
            all.iter()
                .any(|condition| condition.type_ == "Available" && condition.status == "True")
        })
    })
    .await;
}

fn named(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        ..ObjectMeta::default()
    }
}

/// Serves until the test's process ends.
async fn serve(client: Client) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let address = listener.local_addr().expect("a bound listener has an address");
    let router = Router::new()
        .route(&format!("/apis/{GROUP}/{VERSION}"), get(resources))
        .route(
            &format!("/apis/{GROUP}/{VERSION}/namespaces/{{namespace}}/{{metric}}"),
            get(values),
        )
        .with_state(client);
    let listener = Tls {
        listener,
        acceptor: acceptor(),
    };
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

fn acceptor() -> TlsAcceptor {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .expect("the key fits the certificate");
    TlsAcceptor::from(Arc::new(config))
}

/// Connections whose handshake succeeded.
struct Tls {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            if let Ok((stream, address)) = self.listener.accept().await
                && let Ok(stream) = self.acceptor.accept(stream).await
            {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// What the API server asks to learn whether somebody is there.
async fn resources() -> Json<Value> {
    Json(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{GROUP}/{VERSION}"), "resources": [],
    }))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Selector {
    #[serde(default)]
    label_selector: String,
}

/// The series of a metric in a namespace whose labels are those of the selector.
async fn values(
    State(client): State<Client>,
    Path((namespace, metric)): Path<(String, String)>,
    Query(selector): Query<Selector>,
) -> Result<Json<Value>, StatusCode> {
    let text = operator_metrics(&client).await.ok_or(StatusCode::BAD_GATEWAY)?;
    let mut wanted: Vec<_> = selector.label_selector.split(',').filter_map(equality).collect();
    wanted.push(format!("namespace=\"{namespace}\""));
    let items: Vec<_> = text
        .lines()
        .filter_map(|line| {
            let (labels, value) = line.strip_prefix(&metric)?.strip_prefix('{')?.split_once("} ")?;
            let labels: Vec<_> = labels.split(',').collect();
            wanted
                .iter()
                .all(|wanted| labels.contains(&wanted.as_str()))
                .then_some(value)
        })
        .map(|value| {
            json!({"metricName": metric, "metricLabels": {}, "timestamp": Timestamp::now().to_string(), "value": value})
        })
        .collect();
    Ok(Json(json!({
        "kind": "ExternalMetricValueList", "apiVersion": format!("{GROUP}/{VERSION}"), "metadata": {}, "items": items,
    })))
}

/// `a=b` as Prometheus writes it.
fn equality(term: &str) -> Option<String> {
    let (label, value) = term.split_once('=')?;
    Some(format!("{label}=\"{}\"", value.trim_start_matches('=')))
}

/// The operator's metrics, asked of its pod through the API server.
pub async fn operator_metrics(client: &Client) -> Option<String> {
    let pod = cluster::operator_pods(client)
        .await
        .into_iter()
        .next()?
        .metadata
        .name?;
    let url = format!(
        "/api/v1/namespaces/{}/pods/{pod}:9090/proxy/metrics",
        cluster::OPERATOR_NAMESPACE
    );
    let request = http::Request::get(url).body(Vec::new()).ok()?;
    client.request_text(request).await.ok()
}
