//! The operator's process: settings, logs, endpoints, then the Lease; the leader runs the controllers until it is told
//! to stop or loses the Lease.

mod apply;
mod audit;
mod backoff;
mod bootstrap;
mod causes;
mod certificates;
mod claims;
mod client;
mod clock;
mod conclusion;
mod connection;
mod context;
mod controllers;
mod demand_metrics;
mod events;
mod fate;
mod fleet;
mod head;
mod head_pod_state;
mod health;
mod identity;
mod keys;
mod lease;
mod metrics;
mod policies;
mod readable;
#[cfg(test)]
mod recorded_server;
mod run_pod;
#[cfg(test)]
mod run_pod_faults;
mod runs;
#[cfg(test)]
mod sequences;
mod settings;
mod telemetry;
#[cfg(test)]
mod test_context;
mod triggers;
mod waiting_room;
mod watch;
mod workflow;

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use clap::Parser as _;
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    health::Watches,
    lease::{Election, Term},
    metrics::Metrics,
    settings::Settings,
};

/// musl's own takes a quarter of the operator's time under load.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // First of all: the keys are in no core dump, and no process of the same user reads them out of this one.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("hide the operator's memory")?;
    let settings = Settings::parse();
    telemetry::init(settings.log_format);
    // Two providers are linked through kube's features; every connection uses this one.
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a TLS provider was installed before main"))?;
    let metrics = Arc::new(Metrics::default());
    let watches = Arc::new(Watches::default());
    let probes = tokio::spawn(health::serve_probes(settings.health_addr, Arc::clone(&watches)));
    let exposition = tokio::spawn(health::serve_metrics(settings.metrics_addr, Arc::clone(&metrics)));
    tokio::select! {
        result = lead(settings, metrics, watches) => result,
        result = probes => result?.context("serve the probes"),
        result = exposition => result?.context("serve the metrics"),
    }
}

/// Waits for the Lease, runs the controllers while it is held, gives it back.
async fn lead(settings: Settings, metrics: Arc<Metrics>, watches: Arc<Watches>) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    };
    tokio::pin!(stop);
    let config = client::config().await.context("find the API server")?;
    let client = client::writer(&config)?;
    let duration = Duration::from_secs(u64::from(settings.lease_seconds));
    let election = Election::new(
        client.clone(),
        &settings.namespace,
        api::names::LEASE,
        settings.identity(),
        duration,
    );
    let held = tokio::select! {
        held = election.acquire() => held,
        () = &mut stop => return Ok(()),
    };
    let term = Term {
        fencing_token: held.fencing_token(),
        claims: Arc::new(held.claims()?),
    };
    let claims = Arc::clone(&term.claims);
    tracing::info!(fencing_token = term.fencing_token, "leading");
    metrics.leader.set(1);
    let controllers = controllers::run(config, client, settings, metrics, watches, term, stop);
    tokio::select! {
        result = controllers => {
            election.release().await;
            tracing::info!("stopped");
            result
        }
        // Others may take over soon: this process must not write anything more.
        error = election.keep(held, &claims) => Err(anyhow::Error::new(error).context("the lease was lost")),
    }
}
