//! `make bench`: how long a small document takes from its creation to its signed receipt, and how many a second.
//!
//! Measures and prints; judges nothing and never fails because something was slow.

mod commands;
mod figures;
mod load;
mod regeneration;
mod usage;

use std::{error::Error, io::Write as _};

use clap::{Parser, ValueEnum};
use e2e::{Namespace, cluster, documents, heads, runs};
use serde::Serialize;

use crate::{
    commands::Commands,
    figures::Quantiles,
    load::{Finished, Signed},
    regeneration::{Away, Storm},
    usage::{Consumer, Usage},
};

/// Creates small documents and measures the time until their receipts are signed.
#[derive(Debug, Parser)]
#[command(name = "bench")]
struct Arguments {
    /// Documents that are created one after another, each when the one before is signed.
    #[arg(long, default_value_t = 100)]
    sequential: usize,
    /// Documents that are created at once; several numbers are measured one after another.
    #[arg(long, value_delimiter = ',', default_values_t = [200, 1000])]
    burst: Vec<usize>,
    /// Pods of the head.
    #[arg(long, default_value_t = 4)]
    replicas: i32,
    /// Runs that each pod takes at once.
    #[arg(long, default_value_t = 4)]
    workers: i32,
    /// Faults of each class, with no spare, one spare and a dead spare; on the local cluster only.
    #[arg(long, default_value_t = 30)]
    faults: usize,
    /// Runs that are worked off while a fault comes every 5 seconds; on the local cluster only.
    #[arg(long, default_value_t = 1000)]
    storm: usize,
    /// Seed of those faults; the present time when not given.
    #[arg(long)]
    seed: Option<u64>,
    /// How the figures are written.
    #[arg(short, long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Everything that is measured.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    replicas: i32,
    workers: i32,
    sequential: Load,
    bursts: Vec<Load>,
    usage: Vec<Usage>,
    regeneration: Vec<Away>,
    storm: Option<Storm>,
    /// Where CHIMERA_BIN names the command line.
    commands: Option<Commands>,
}

/// What one kind of load took. Times are milliseconds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Load {
    documents: usize,
    failed: usize,
    runs_per_second: f64,
    /// From just before the request that creates the workflow to the watch event that shows it Signed.
    signed: Quantiles,
    stages: Vec<Stage>,
}

/// Milliseconds of one part of a run, if both its ends are known.
type Measure = fn(&Finished) -> Option<f64>;

/// A part of that time, by the clocks of the client, the operator and the head.
#[derive(Debug, Serialize)]
struct Stage {
    name: &'static str,
    time: Quantiles,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let space = Namespace::create(cluster::client().await, "bench").await;
    let measured = tokio::spawn(async move {
        let report = measure(&space, &arguments).await;
        (space, arguments, report)
    });
    let (space, arguments, mut report) = measured.await?;
    space.delete().await;
    if let Some(chimera) = std::env::var_os("CHIMERA_BIN") {
        report.commands = Some(commands::measure(chimera.as_ref())?);
    }
    let text = match arguments.output {
        Format::Text => text(&report),
        Format::Json => serde_json::to_string_pretty(&report)? + "\n",
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(())
}

async fn measure(space: &Namespace, arguments: &Arguments) -> Report {
    let mut head = heads::small("bench");
    head.spec.replicas = arguments.replicas;
    head.spec.workers.warm = arguments.workers;
    heads::start(space, head).await;
    // Not counted: the first runs find the operator's connections to the new pods still being made.
    for index in 0..4 {
        runs::run(
            space,
            runs::workflow(&format!("warm-{index}"), documents::small()),
        )
        .await;
    }
    let consumers = consumers(space).await;
    let before = usage::cpu(&space.client, &consumers).await;
    let mut signed = Signed::watch(space).await;
    let sequential = load(signed.one_after_another(space, arguments.sequential).await);
    let mut bursts = Vec::new();
    for &count in &arguments.burst {
        bursts.push(load(signed.at_once(space, count).await));
    }
    let usage = usage::since(&space.client, &consumers, &before).await;
    heads::remove(space, "bench").await;
    let local = cluster::is_local();
    let regeneration = if local && arguments.faults > 0 {
        regeneration::measure(space, arguments.faults).await
    } else {
        Vec::new()
    };
    let storm = if local && arguments.storm > 0 {
        let seed = arguments.seed.unwrap_or_else(now);
        Some(regeneration::storm(space, arguments.storm, seed).await)
    } else {
        None
    };
    Report {
        replicas: arguments.replicas,
        workers: arguments.workers,
        sequential,
        bursts,
        usage,
        regeneration,
        storm,
        commands: None,
    }
}

fn now() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default()
}

async fn consumers(space: &Namespace) -> Vec<Consumer> {
    let mut consumers = vec![Consumer::new(
        "controller",
        &cluster::operator_pod(&space.client).await,
    )];
    consumers.push(Consumer::api_server());
    let heads = heads::pods(space, "bench").await;
    consumers.extend(heads.iter().map(|pod| Consumer::new("head", pod)));
    consumers
}

fn load((finished, seconds): (Vec<Finished>, f64)) -> Load {
    let quantiles =
        |of: &dyn Fn(&Finished) -> Option<f64>| Quantiles::of(finished.iter().filter_map(of).collect());
    let stages: [(&'static str, Measure); 5] = [
        ("create request", |run| Some(run.create_millis)),
        ("created to head claimed", Finished::to_scheduled),
        ("claimed to program started", Finished::to_started),
        ("program", Finished::program),
        ("program ended to Signed seen", Finished::to_seen),
    ];
    #[expect(clippy::cast_precision_loss, reason = "a few hundred documents")]
    let runs_per_second = finished.len() as f64 / seconds;
    Load {
        documents: finished.len(),
        failed: finished.iter().filter(|run| !run.succeeded).count(),
        runs_per_second,
        signed: quantiles(&|run| Some(run.signed_millis)),
        stages: stages
            .into_iter()
            .map(|(name, of)| Stage {
                name,
                time: quantiles(&of),
            })
            .collect(),
    }
}

fn text(report: &Report) -> String {
    use std::fmt::Write as _;
    let mut text = format!(
        "{} head pods, {} runs at once each\n",
        report.replicas, report.workers
    );
    let bursts = report.bursts.iter().map(|load| ("at once", load));
    for (title, load) in std::iter::once(("one after another", &report.sequential)).chain(bursts) {
        let _ = write!(
            text,
            "\n{} documents {title}: {:.1} runs/s, {} failed\n{:32}{:>9}{:>9}{:>9}\n",
            load.documents, load.runs_per_second, load.failed, "milliseconds", "p50", "p90", "p99"
        );
        let rows = [("creation to Signed", &load.signed)].into_iter();
        for (name, time) in rows.chain(load.stages.iter().map(|stage| (stage.name, &stage.time))) {
            let _ = writeln!(
                text,
                "{name:32}{:>9.1}{:>9.1}{:>9.1}",
                time.p50, time.p90, time.p99
            );
        }
    }
    let _ = writeln!(
        text,
        "\n{:32}{:>12}{:>14}",
        "while measured", "CPU seconds", "peak MiB"
    );
    for usage in &report.usage {
        let shown = |value: Option<f64>| value.map_or_else(|| "?".to_owned(), |value| format!("{value:.1}"));
        let _ = writeln!(
            text,
            "{:32}{:>12}{:>14}",
            usage.name,
            shown(usage.cpu_seconds),
            shown(usage.peak_mib)
        );
    }
    if !report.regeneration.is_empty() {
        let _ = writeln!(
            text,
            "\n{:32}{:>9}{:>9}{:>9}",
            "fault to end of next run, ms", "p50", "p90", "p99"
        );
    }
    for away in &report.regeneration {
        let name = format!("{}, {}", away.fault, away.reserve);
        let time = &away.next_run;
        let _ = writeln!(
            text,
            "{name:32}{:>9.1}{:>9.1}{:>9.1}",
            time.p50, time.p90, time.p99
        );
    }
    if let Some(storm) = &report.storm {
        let faults: usize = storm.faults.values().sum();
        let _ = writeln!(
            text,
            "\n{} runs under {faults} faults (seed {}): {:.1} s, {} attempts made again, {} failed, {} lost, {} done \
             twice\n{:?}",
            storm.runs,
            storm.seed,
            storm.seconds,
            storm.attempts_lost,
            storm.failed,
            storm.lost,
            storm.done_twice,
            storm.faults
        );
    }
    if let Some(commands) = &report.commands {
        let _ = writeln!(
            text,
            "\n{:32}{:>9}{:>9}{:>9}",
            "commands, milliseconds", "p50", "p90", "p99"
        );
        for (name, time) in [
            ("chimera lint, 1000 documents", &commands.lint),
            ("chimera run, one line of Python", &commands.run),
            ("python3 -c, the same line", &commands.python),
        ] {
            let _ = writeln!(
                text,
                "{name:32}{:>9.1}{:>9.1}{:>9.1}",
                time.p50, time.p90, time.p99
            );
        }
    }
    text
}
