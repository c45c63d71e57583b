//! `chimera-head`: reads its arguments, hides its memory, serves until it is told to stop.

use anyhow::Context;
use clap::Parser;
use head::agent::Agent;
use head::arguments::Arguments;
use head::tls::Identity;
use head::{gpu, health, journal, server};
use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// For streams to end after the last run has.
const FAREWELL: Duration = Duration::from_secs(3);

/// musl's own maps and unmaps a dozen regions for each run.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<ExitCode> {
    if std::env::args_os()
        .nth(1)
        .is_some_and(|argument| argument == gpu::CANARY)
    {
        return Ok(gpu::be_canary());
    }
    tokio::runtime::Runtime::new()?.block_on(serve())?;
    Ok(ExitCode::SUCCESS)
}

async fn serve() -> anyhow::Result<()> {
    // First of all: no process of the same user may read the keys out of this one.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).context("hide the agent's memory")?;
    raise_descriptors().context("raise the number of open files")?;
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

/// As many as the container allows: each run takes some, and so does each stream of the controller.
fn raise_descriptors() -> rustix::io::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let current = maximum;
    setrlimit(Resource::Nofile, Rlimit { current, maximum })
}
