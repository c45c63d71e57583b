//! What autoscalers ask: places, how many are taken, how many runs wait and for how long.
//!
//! Gathered at each scrape from what is known then, so that nothing is counted twice and what is gone is no longer told of.
//! There are as many series as ChimeraHeads, and as namespaces with waiting runs times roles.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use controller_core::{
    demand::Demand,
    placement::{Group, HeadView, suits},
    queue::waited,
};
use jiff::Timestamp;
use prometheus::{
    GaugeVec, IntGauge, IntGaugeVec, Opts,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use crate::{clock, fleet::Fleet};

/// Role in the labels of runs that ask for none.
const ANY_ROLE: &str = "any";

/// The metrics.
pub struct DemandMetrics {
    fleet: Arc<Fleet>,
    /// Two scrapes at once would fill each other's gauges.
    turn: Mutex<()>,
    places: IntGaugeVec,
    busy: IntGaugeVec,
    wanted: IntGaugeVec,
    waiting_for: IntGaugeVec,
    waiting_for_since: GaugeVec,
    queued: IntGaugeVec,
    queued_since: GaugeVec,
    waiting: IntGauge,
}

/// Waiting runs of equal demands.
struct Lane {
    demand: Demand,
    length: usize,
    oldest: Timestamp,
}

impl DemandMetrics {
    /// Metrics about this fleet.
    pub fn new(fleet: Arc<Fleet>) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str, labels: &[&str]| IntGaugeVec::new(Opts::new(name, help), labels);
        let seconds = |name: &str, help: &str, labels: &[&str]| GaugeVec::new(Opts::new(name, help), labels);
        Ok(Self {
            fleet,
            turn: Mutex::default(),
            places: gauge(
                "chimera_head_places",
                "Runs that the ready pods of a ChimeraHead take at once.",
                &["namespace", "head"],
            )?,
            busy: gauge(
                "chimera_head_places_busy",
                "Places of a ChimeraHead that are taken.",
                &["namespace", "head"],
            )?,
            wanted: gauge(
                "chimera_head_places_wanted",
                "Places of a ChimeraHead that are taken, and waiting runs that it suits: what to scale by.",
                &["namespace", "head"],
            )?,
            waiting_for: gauge(
                "chimera_head_runs_waiting",
                "Waiting runs that a ChimeraHead suits, whether or not it has pods.",
                &["namespace", "head"],
            )?,
            waiting_for_since: seconds(
                "chimera_head_oldest_wait_seconds",
                "For how long the run has waited that has waited longest of those that a ChimeraHead suits.",
                &["namespace", "head"],
            )?,
            queued: gauge(
                "chimera_queue_runs_waiting",
                "Waiting runs by the role that they ask for.",
                &["namespace", "role"],
            )?,
            queued_since: seconds(
                "chimera_queue_oldest_wait_seconds",
                "For how long the run has waited that has waited longest, by the role that it asks for.",
                &["namespace", "role"],
            )?,
            waiting: IntGauge::new("chimera_runs_waiting", "Runs that wait for a head.")?,
        })
    }

    fn gauges(&self) -> [&IntGaugeVec; 5] {
        [
            &self.places,
            &self.busy,
            &self.wanted,
            &self.waiting_for,
            &self.queued,
        ]
    }

    fn lanes(&self) -> Vec<Lane> {
        self.fleet.room().look(|queues| {
            let lanes = queues.values().flat_map(controller_core::queue::Queue::lanes);
            lanes
                .map(|lane| Lane {
                    demand: lane.demand.clone(),
                    length: lane.length,
                    oldest: lane.oldest,
                })
                .collect()
        })
    }

    fn fill(&self, now: Timestamp) {
        for gauges in self.gauges() {
            gauges.reset();
        }
        self.waiting_for_since.reset();
        self.queued_since.reset();
        let (pods, groups) = self.fleet.views();
        let lanes = self.lanes();
        for group in &groups {
            self.fill_head(group, &pods, &lanes, now);
        }
        self.fill_queues(&lanes, now);
    }

    fn fill_head(&self, group: &Group, pods: &[HeadView], lanes: &[Lane], now: Timestamp) {
        let labels = [group.view.namespace.as_str(), group.view.head.as_str()];
        let pods = pods
            .iter()
            .filter(|pod| [pod.namespace.as_str(), pod.head.as_str()] == labels);
        let pods: Vec<_> = pods.collect();
        let serving = pods.iter().filter(|pod| pod.ready && !pod.spare);
        let (mut places, mut busy) = (0, 0);
        for pod in serving {
            places += i64::from(pod.capacity);
            busy += i64::from(pod.running.min(pod.capacity));
        }
        let told = pods.iter().copied().filter(|pod| pod.offer.is_some());
        let known: Vec<_> = told.collect();
        let suited = lanes.iter().filter(|lane| match known.as_slice() {
            [] => suits(&group.view, &lane.demand),
            known => known.iter().any(|pod| suits(pod, &lane.demand)),
        });
        let (waiting, oldest) = total(suited);
        self.places.with_label_values(&labels).set(places);
        self.busy.with_label_values(&labels).set(busy);
        self.wanted.with_label_values(&labels).set(busy + waiting);
        self.waiting_for.with_label_values(&labels).set(waiting);
        self.waiting_for_since
            .with_label_values(&labels)
            .set(seconds(oldest, now));
    }

    fn fill_queues(&self, lanes: &[Lane], now: Timestamp) {
        let mut queues: BTreeMap<_, Vec<&Lane>> = BTreeMap::new();
        for lane in lanes {
            let role = lane.demand.role.map_or(ANY_ROLE, api::Role::as_str);
            queues
                .entry([lane.demand.namespace.as_str(), role])
                .or_default()
                .push(lane);
        }
        for (labels, lanes) in &queues {
            let (length, oldest) = total(lanes.iter().copied());
            self.queued.with_label_values(labels).set(length);
            self.queued_since
                .with_label_values(labels)
                .set(seconds(oldest, now));
        }
        self.waiting.set(total(lanes.iter()).0);
    }
}

fn total<'a>(lanes: impl Iterator<Item = &'a Lane>) -> (i64, Option<Timestamp>) {
    lanes.fold((0, None), |(length, oldest), lane| {
        let more = i64::try_from(lane.length).unwrap_or(i64::MAX);
        let oldest = oldest.map_or(lane.oldest, |oldest: Timestamp| oldest.min(lane.oldest));
        (length + more, Some(oldest))
    })
}

fn seconds(oldest: Option<Timestamp>, now: Timestamp) -> f64 {
    oldest.map_or(0.0, |oldest| waited(oldest, now).as_secs_f64())
}

impl Collector for DemandMetrics {
    fn desc(&self) -> Vec<&Desc> {
        let descriptions = self.gauges().into_iter().flat_map(Collector::desc);
        descriptions
            .chain(self.waiting_for_since.desc())
            .chain(self.queued_since.desc())
            .chain(self.waiting.desc())
            .collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.fill(clock::now());
        let families = self.gauges().into_iter().flat_map(Collector::collect);
        families
            .chain(self.waiting_for_since.collect())
            .chain(self.queued_since.collect())
            .chain(self.waiting.collect())
            .collect()
    }
}
