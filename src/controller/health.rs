//! HTTP endpoints for the kubelet (`/healthz`, `/readyz`) and for Prometheus (`/metrics`).
//!
//! Alive means: every watch was answered lately. Ready means: the process serves; a candidate that waits for the
//! Lease is ready too, or a rolling update of two replicas could never proceed.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use tokio::net::TcpListener;

use crate::{
    metrics::Metrics,
    watch::{Pulse, STALE_AFTER},
};

/// The watches whose age decides whether the process is alive.
#[derive(Debug, Default)]
pub struct Watches(Mutex<Vec<Arc<Pulse>>>);

impl Watches {
    /// Adds a watch.
    pub fn add(&self, pulse: Arc<Pulse>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(pulse);
    }

    /// What is wrong with the watches, one line each.
    fn stale(&self) -> Vec<String> {
        let watches = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let stale = watches.iter().filter(|pulse| pulse.age() > STALE_AFTER);
        stale
            .map(|pulse| format!("watch of {} silent for {} s", pulse.name, pulse.age().as_secs()))
            .collect()
    }
}

/// Serves the probes until the process ends.
pub async fn serve_probes(address: SocketAddr, watches: Arc<Watches>) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/healthz", get(alive))
        .route("/readyz", get(|| async { "ok\n" }))
        .with_state(watches);
    axum::serve(TcpListener::bind(address).await?, routes).await
}

/// Serves the metrics until the process ends.
pub async fn serve_metrics(address: SocketAddr, metrics: Arc<Metrics>) -> std::io::Result<()> {
    let routes = Router::new().route("/metrics", get(render)).with_state(metrics);
    axum::serve(TcpListener::bind(address).await?, routes).await
}

async fn alive(State(watches): State<Arc<Watches>>) -> impl IntoResponse {
    let stale = watches.stale();
    if stale.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, stale.join("\n") + "\n")
    }
}

async fn render(State(metrics): State<Arc<Metrics>>) -> impl IntoResponse {
    match metrics.render() {
        Ok(text) => ([("content-type", prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
