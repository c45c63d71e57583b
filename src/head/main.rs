//! `chimera-head`: reads its arguments, hides its memory, serves until it is told to stop.

use anyhow::Context;
use clap::Parser;
use head::agent::Agent;
use head::arguments::Arguments;
use head::tls::Identity;
use head::{health, journal, server};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// For streams to end after the last run has.
const FAREWELL: Duration = Duration::from_secs(3);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // First of all: no process of the same user may read the keys out of this one.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("hide the agent's memory")?;
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info")))
        .with_writer(std::io::stderr)
        .init();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    let identity = Arc::new(Identity::open(&arguments.identity).context("open the identity folder")?);
    let agent = Agent::start(arguments.setup(|name| std::env::var_os(name))?, identity.clone())?;
    let listener = TcpListener::bind(arguments.listen)
        .await
        .context("listen for the controller")?;
    let probes = TcpListener::bind(arguments.health)
        .await
        .context("listen for the kubelet")?;
    tokio::spawn(health::serve(probes, agent.clone()));

    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let mut serving = tokio::spawn(server::serve(listener, identity, agent.clone(), async {
        let _ = stopped.await;
    }));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        ended = &mut serving => return Ok(ended??),
    }
    tracing::info!("draining");
    agent.drain(Duration::from_secs(arguments.grace_seconds)).await;
    drop(stop);
    let _ = tokio::time::timeout(FAREWELL, serving).await;
    journal::flush(FAREWELL);
    Ok(())
}
