//! Prometheus metrics: what the operator counts. Labels are kinds, roles, results and reasons, never objects' names,
//! apart from the four well-known heads of `chimera_head_status` and what autoscalers need (`demand_metrics.rs`).

use api::key_rotation_policy::Purpose;
use prometheus::{
    Encoder as _, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec,
    IntGauge, IntGaugeVec, Opts, Registry, TextEncoder, core::Collector,
};

/// All metrics of the process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Runs that ended, by result (`Success`, `Error`) and reason.
    pub requests: IntCounterVec,
    /// Seconds that a document ran on its head, by result.
    pub execution_seconds: HistogramVec,
    /// Seconds from the creation of a workflow to its signed receipt, by result.
    pub signed_seconds: HistogramVec,
    /// Seconds that a run waited for a head.
    pub queue_seconds: Histogram,
    /// 1 when a head of that number (role) is ready, else 0.
    pub head_status: GaugeVec,
    /// Ready heads, by role and duty (`active`, `spare`).
    pub heads_ready: IntGaugeVec,
    /// Runs under way.
    pub runs_in_flight: IntGauge,
    /// Losses of head pods, agents and interpreters, by role and cause.
    pub regenerations: IntCounterVec,
    /// Seconds from a noticed loss until its replacement took runs, by role and cause.
    pub regeneration_seconds: HistogramVec,
    /// Share of receipts whose verification succeeded, from 0 to 1, since the start.
    pub verification_success: Gauge,
    /// Receipts verified by the audit, by verdict.
    pub verifications: IntCounterVec,
    /// Signatures made, by policy purpose.
    pub signatures: IntCounterVec,
    /// Keys that took over, by purpose.
    pub rotations: IntCounterVec,
    /// 1 when the last key made was given something by that entropy source, 0 when the source was dropped.
    pub entropy_source_healthy: IntGaugeVec,
    /// Attempts that were lost to infrastructure, by reason.
    pub attempts_lost: IntCounterVec,
    /// Reconciles, by kind and outcome (`ok`, `error`).
    pub reconciles: IntCounterVec,
    /// Seconds of a reconcile, by kind.
    pub reconcile_seconds: HistogramVec,
    /// Errors of watches, by watch.
    pub watch_errors: IntCounterVec,
    /// 1 while this process holds the Lease.
    pub leader: IntGauge,
    verified: IntCounter,
    refused: IntCounter,
}

const RUN_BUCKETS: &[f64] = &[
    0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
    1800.0,
];

impl Default for Metrics {
    fn default() -> Self {
        Self::new().expect("names and labels are constants that the registry accepts")
    }
}

impl Metrics {
    fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let histogram = |name: &str, help: &str, labels: &[&str]| {
            HistogramVec::new(
                HistogramOpts::new(name, help).buckets(RUN_BUCKETS.to_vec()),
                labels,
            )
        };
        let counter =
            |name: &str, help: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name, help), labels);
        let metrics = Self {
            requests: counter(
                "chimera_requests_total",
                "Runs that ended.",
                &["result", "reason"],
            )?,
            execution_seconds: histogram(
                "chimera_execution_time_seconds",
                "Time that a document ran on its head.",
                &["result"],
            )?,
            signed_seconds: histogram(
                "chimera_signed_time_seconds",
                "Time from the creation of a workflow to the signed receipt of its first run.",
                &["result"],
            )?,
            queue_seconds: Histogram::with_opts(
                HistogramOpts::new("chimera_queue_time_seconds", "Time that a run waited for a head.")
                    .buckets(RUN_BUCKETS.to_vec()),
            )?,
            head_status: GaugeVec::new(
                Opts::new(
                    "chimera_head_status",
                    "1 when a head of that number is ready, else 0.",
                ),
                &["head"],
            )?,
            heads_ready: IntGaugeVec::new(
                Opts::new("chimera_heads_ready", "Ready heads."),
                &["role", "duty"],
            )?,
            runs_in_flight: IntGauge::new("chimera_runs_in_flight", "Runs under way.")?,
            regenerations: counter(
                "chimera_regenerations_total",
                "Head pods, agents and interpreters that were lost and replaced or mended.",
                &["role", "cause"],
            )?,
            regeneration_seconds: histogram(
                "chimera_regeneration_time_seconds",
                "Time from a noticed loss until its replacement took runs.",
                &["role", "cause"],
            )?,
            verification_success: Gauge::new(
                "signature_verification_success",
                "Share of receipts whose verification succeeded since the start, from 0 to 1.",
            )?,
            verifications: counter("chimera_verifications_total", "Receipts verified.", &["verdict"])?,
            signatures: counter("chimera_signatures_total", "Signatures made.", &["kind"])?,
            rotations: counter(
                "chimera_key_rotations_total",
                "Keys that took over.",
                &["purpose"],
            )?,
            entropy_source_healthy: IntGaugeVec::new(
                Opts::new(
                    "chimera_entropy_source_healthy",
                    "1 when the entropy source passed its last health tests, 0 when it was dropped.",
                ),
                &["source"],
            )?,
            attempts_lost: counter(
                "chimera_attempts_lost_total",
                "Attempts lost to infrastructure and tried again.",
                &["reason"],
            )?,
            reconciles: counter("chimera_reconciles_total", "Reconciles.", &["kind", "outcome"])?,
            reconcile_seconds: histogram(
                "chimera_reconcile_time_seconds",
                "Time of a reconcile.",
                &["kind"],
            )?,
            watch_errors: counter("chimera_watch_errors_total", "Errors of watches.", &["watch"])?,
            leader: IntGauge::new("chimera_leader", "1 while this process holds the Lease.")?,
            verified: IntCounter::new("chimera_receipts_valid_total", "Receipts found valid.")?,
            refused: IntCounter::new("chimera_receipts_invalid_total", "Receipts found invalid.")?,
            registry,
        };
        metrics.register()?;
        for head in ["head1", "head2", "head3", "head4"] {
            metrics.head_status.with_label_values(&[head]).set(0.0);
        }
        metrics.verification_success.set(1.0);
        Ok(metrics)
    }

    fn register(&self) -> Result<(), prometheus::Error> {
        let Self {
            registry,
            requests,
            execution_seconds,
            signed_seconds,
            queue_seconds,
            head_status,
            heads_ready,
            runs_in_flight,
            regenerations,
            regeneration_seconds,
            verification_success,
            verifications,
            signatures,
            rotations,
            entropy_source_healthy,
            attempts_lost,
            reconciles,
            reconcile_seconds,
            watch_errors,
            leader,
            verified,
            refused,
        } = self;
        let all: [Box<dyn Collector>; 21] = [
            Box::new(requests.clone()),
            Box::new(execution_seconds.clone()),
            Box::new(signed_seconds.clone()),
            Box::new(queue_seconds.clone()),
            Box::new(head_status.clone()),
            Box::new(heads_ready.clone()),
            Box::new(runs_in_flight.clone()),
            Box::new(regenerations.clone()),
            Box::new(regeneration_seconds.clone()),
            Box::new(verification_success.clone()),
            Box::new(verifications.clone()),
            Box::new(signatures.clone()),
            Box::new(rotations.clone()),
            Box::new(entropy_source_healthy.clone()),
            Box::new(attempts_lost.clone()),
            Box::new(reconciles.clone()),
            Box::new(reconcile_seconds.clone()),
            Box::new(watch_errors.clone()),
            Box::new(leader.clone()),
            Box::new(verified.clone()),
            Box::new(refused.clone()),
        ];
        all.into_iter()
            .try_for_each(|collector| registry.register(collector))
    }

    /// Adds metrics that are gathered when they are asked for.
    pub fn add(&self, collector: impl Collector + 'static) -> Result<(), prometheus::Error> {
        self.registry.register(Box::new(collector))
    }

    /// Counts a key that took over.
    pub fn count_rotation(&self, purpose: Purpose) {
        self.rotations.with_label_values(&[purpose.as_str()]).inc();
    }

    /// Counts one verification of a receipt and keeps the share of successes current.
    pub fn count_verification(&self, verdict: &str, valid: bool) {
        self.verifications.with_label_values(&[verdict]).inc();
        if valid { &self.verified } else { &self.refused }.inc();
        #[expect(clippy::cast_precision_loss, reason = "a share needs no 53 bits")]
        let (valid, invalid) = (self.verified.get() as f64, self.refused.get() as f64);
        self.verification_success.set(valid / (valid + invalid));
    }

    /// The metrics in Prometheus' text format.
    pub fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_missions_names_are_served() {
        let metrics = Metrics::default();
        metrics
            .requests
            .with_label_values(&["Success", "Succeeded"])
            .inc();
        metrics
            .execution_seconds
            .with_label_values(&["Success"])
            .observe(0.2);
        metrics.count_verification("Valid", true);
        metrics.count_verification("BadSignature", false);
        let text = String::from_utf8(metrics.render().expect("renders")).expect("text");
        for line in [
            "chimera_head_status{head=\"head1\"} 0",
            "signature_verification_success 0.5",
            "chimera_requests_total{reason=\"Succeeded\",result=\"Success\"} 1",
            "chimera_execution_time_seconds_bucket{result=\"Success\",le=\"0.2\"} 1",
        ] {
            assert!(text.contains(line), "{line} is missing in:\n{text}");
        }
    }
}
