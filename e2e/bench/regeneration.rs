//! How long a head is away after each class of fault, and whether a queue survives many of them.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use api::{MamlWorkflow, MuReceipt, condition::SUCCEEDED, condition::is_true, names};
use e2e::{
    Namespace, documents,
    faults::{CutOff, HeadFault},
    heads, runs,
};
use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt as _, api::ListParams};
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};

use crate::figures::Quantiles;

/// Between two faults while the queue is worked off.
const BETWEEN_FAULTS: Duration = Duration::from_secs(5);

/// What a head has to fall back on.
#[derive(Clone, Copy, Debug)]
enum Reserve {
    None,
    Spare,
    /// A spare that is killed at the same moment.
    DeadSpare,
}

impl Reserve {
    const ALL: [Self; 3] = [Self::None, Self::Spare, Self::DeadSpare];

    fn as_str(self) -> &'static str {
        match self {
            Self::None => "no spare",
            Self::Spare => "one spare",
            Self::DeadSpare => "a dead spare",
        }
    }

    fn spares(self) -> i32 {
        i32::from(!matches!(self, Self::None))
    }
}

/// One class of fault.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Away {
    /// What was done.
    pub fault: &'static str,
    /// What there was to fall back on.
    pub reserve: &'static str,
    /// How often.
    pub times: usize,
    /// Milliseconds from just before the fault to the end of a run that was submitted right after it.
    pub next_run: Quantiles,
}

/// Strikes a head of one pod that many times with each fault and each reserve.
pub async fn measure(space: &Namespace, times: usize) -> Vec<Away> {
    let mut all = Vec::new();
    for fault in HeadFault::ALL {
        for reserve in Reserve::ALL {
            let mut head = heads::small("victim");
            head.spec.spares = reserve.spares();
            heads::start(space, head).await;
            let mut millis = Vec::with_capacity(times);
            for round in 0..times {
                let stem = format!("{}-{}-{round}", fault.as_str(), reserve.as_str());
                millis.push(strike_once(space, fault, reserve, &stem.replace(' ', "-")).await);
            }
            all.push(Away {
                fault: fault.as_str(),
                reserve: reserve.as_str(),
                times,
                next_run: Quantiles::of(millis),
            });
            heads::remove(space, "victim").await;
        }
    }
    all
}

async fn strike_once(space: &Namespace, fault: HeadFault, reserve: Reserve, name: &str) -> f64 {
    let (serving, spares) = (
        heads::on_duty(space, "victim", false).await,
        heads::on_duty(space, "victim", true).await,
    );
    let begun = Instant::now();
    if matches!(reserve, Reserve::DeadSpare) {
        for spare in &spares {
            HeadFault::Agent.strike(&space.client, spare).await;
        }
    }
    let cut_off = fault.strike(&space.client, &serving[0]).await;
    let done = runs::run(space, runs::workflow(name, documents::small())).await;
    let taken = begun.elapsed().as_secs_f64() * 1e3;
    assert!(
        is_true(&runs::status(&done).conditions, SUCCEEDED),
        "{name} failed: {:#?}",
        done.status
    );
    drop(cut_off);
    heads::ready(space, "victim").await;
    taken
}

/// What became of a queue during which faults came at random.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Storm {
    /// With which the faults can be had again.
    pub seed: u64,
    /// Workflows that were created at once.
    pub runs: usize,
    /// Faults, by class.
    pub faults: BTreeMap<&'static str, usize>,
    /// Seconds until the last run was over.
    pub seconds: f64,
    /// Attempts that were lost and made again.
    pub attempts_lost: usize,
    /// Runs that did not succeed.
    pub failed: usize,
    /// Runs without a receipt.
    pub lost: usize,
    /// Runs with more than one.
    pub done_twice: usize,
}

/// Creates that many workflows at once and strikes a pod at random every few seconds until all are over.
pub async fn storm(space: &Namespace, count: usize, seed: u64) -> Storm {
    let mut head = heads::small("storm");
    (head.spec.replicas, head.spec.spares, head.spec.workers.warm) = (4, 1, 4);
    heads::start(space, head).await;
    let begun = Instant::now();
    let names: Vec<_> = (0..count).map(|index| format!("storm-{index}")).collect();
    join_all(names.iter().map(|name| create(space, name))).await;
    let over = join_all(
        names
            .iter()
            .map(|name| runs::complete_within(space, name, DEADLINE)),
    );
    let mut faults = BTreeMap::new();
    let done = tokio::select! {
        done = over => done,
        () = strike_for_ever(space, seed, &mut faults) => unreachable!("it strikes for ever"),
    };
    let seconds = begun.elapsed().as_secs_f64();
    let receipts = receipts(space).await;
    let count_of = |workflow: &MamlWorkflow| {
        receipts
            .get(&workflow.uid().unwrap_or_default())
            .copied()
            .unwrap_or(0)
    };
    let report = Storm {
        seed,
        runs: count,
        faults,
        seconds,
        attempts_lost: done
            .iter()
            .map(|workflow| runs::status(workflow).attempts.len())
            .sum(),
        failed: done
            .iter()
            .filter(|workflow| !is_true(&runs::status(workflow).conditions, SUCCEEDED))
            .count(),
        lost: done.iter().filter(|workflow| count_of(workflow) == 0).count(),
        done_twice: done.iter().filter(|workflow| count_of(workflow) > 1).count(),
    };
    heads::remove(space, "storm").await;
    report
}

/// How long the whole queue may take.
const DEADLINE: Duration = Duration::from_secs(900);

async fn create(space: &Namespace, name: &str) {
    let mut workflow = runs::workflow(name, documents::lasting(1));
    workflow.spec.infrastructure_retries = 20;
    space.create_object(&workflow).await;
}

/// How many receipts each workflow has, by its UID.
async fn receipts(space: &Namespace) -> BTreeMap<String, usize> {
    let list = space.api::<MuReceipt>().list(&ListParams::default()).await;
    let mut counts = BTreeMap::new();
    for receipt in list.expect("receipts can be listed").items {
        if let Some(uid) = receipt.labels().get(names::WORKFLOW_UID_LABEL) {
            *counts.entry(uid.clone()).or_default() += 1;
        }
    }
    counts
}

async fn strike_for_ever(space: &Namespace, seed: u64, faults: &mut BTreeMap<&'static str, usize>) {
    let mut dice = Dice(seed);
    let mut ticks = interval(BETWEEN_FAULTS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // What is cut off comes back when the next fault strikes.
    let mut cut_off: Option<CutOff> = None;
    loop {
        ticks.tick().await;
        drop(cut_off.take());
        let pods: Vec<Pod> = heads::on_duty(space, "storm", false).await;
        let fault = HeadFault::ALL[dice.below(HeadFault::ALL.len())];
        if pods.is_empty() {
            continue;
        }
        cut_off = fault.strike(&space.client, &pods[dice.below(pods.len())]).await;
        *faults.entry(fault.as_str()).or_default() += 1;
    }
}

/// Numbers that look random and are the same for the same seed (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        usize::try_from(mixed % limit.max(1) as u64).unwrap_or(0)
    }
}
