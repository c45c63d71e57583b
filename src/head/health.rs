//! What the kubelet asks: `/healthz` while the agent answers at all, `/readyz` while it takes runs.

use crate::agent::Agent;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use std::sync::Arc;
use tokio::net::TcpListener;

/// Answers on `listener` for as long as the agent lives.
pub async fn serve(listener: TcpListener, agent: Arc<Agent>) -> std::io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(agent);
    axum::serve(listener, router).await
}

async fn ready(State(agent): State<Arc<Agent>>) -> (StatusCode, String) {
    let status = agent.status();
    if status.ready {
        (StatusCode::OK, "ok\n".into())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", status.message))
    }
}
