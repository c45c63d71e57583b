//! CPU and memory of the operator, of heads and of the API server. The API server tells by itself; of the others: from this machine's own books where the cluster runs here, else from the
//! kubelet's summary, which is some seconds old and knows no peaks.

use e2e::{cluster, processes};
use k8s_openapi::api::core::v1::Pod;
use kube::{Client, ResourceExt as _};
use serde::{Deserialize, Serialize};

/// Whose consumption is measured.
pub struct Consumer {
    name: String,
    /// The pod's UID and node. The API server has none.
    pod: Option<(String, String)>,
}

/// What one consumer used.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// `controller` or `head` with the name of the pod, or `API server`.
    pub name: String,
    /// CPU seconds of all its processes while the load lasted.
    pub cpu_seconds: Option<f64>,
    /// The most memory that it held, in MiB: of the operator, its one process; of a head, all processes with their files.
    /// From the kubelet's summary, what it holds now.
    pub peak_mib: Option<f64>,
}

impl Consumer {
    /// A pod, and what it is.
    pub fn new(what: &str, pod: &Pod) -> Self {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
        Self {
            name: format!("{what} {}", pod.name_any()),
            pod: Some((pod.uid().unwrap_or_default(), node.unwrap_or_default())),
        }
    }

    /// The API server.
    pub fn api_server() -> Self {
        Self {
            name: "API server".to_owned(),
            pod: None,
        }
    }

    fn is_operator(&self) -> bool {
        self.name.starts_with("controller ")
    }
}

/// CPU seconds that each consumer has used so far.
pub async fn cpu(client: &Client, consumers: &[Consumer]) -> Vec<Option<f64>> {
    let mut seconds = Vec::new();
    for consumer in consumers {
        seconds.push(now(client, consumer).await.0);
    }
    seconds
}

/// What each consumer used since `before`, and its peak.
pub async fn since(client: &Client, consumers: &[Consumer], before: &[Option<f64>]) -> Vec<Usage> {
    let mut all = Vec::new();
    for (consumer, before) in consumers.iter().zip(before) {
        let (cpu, peak_mib) = now(client, consumer).await;
        let cpu_seconds = cpu.zip(*before).map(|(now, before)| now - before);
        all.push(Usage {
            name: consumer.name.clone(),
            cpu_seconds,
            peak_mib,
        });
    }
    all
}

#[expect(clippy::cast_precision_loss, reason = "figures for a person to read")]
async fn now(client: &Client, consumer: &Consumer) -> (Option<f64>, Option<f64>) {
    let Some((uid, node)) = &consumer.pod else {
        return of_api_server(client).await;
    };
    if cluster::is_local() {
        let Some(&process) = processes::of_pod(uid).first() else {
            return (None, None);
        };
        let peak = if consumer.is_operator() {
            process.peak_memory()
        } else {
            process.container_peak_memory()
        };
        return (
            process.container_cpu_seconds(),
            peak.map(|bytes| bytes as f64 / f64::from(1 << 20)),
        );
    }
    let Some(pod) = summary(client, uid, node).await else {
        return (None, None);
    };
    let cpu = pod.cpu.usage_core_nano_seconds.map(|nanos| nanos as f64 / 1e9);
    (
        cpu,
        pod.memory
            .working_set_bytes
            .map(|bytes| bytes as f64 / f64::from(1 << 20)),
    )
}

/// From its own metrics: the memory is what it holds now.
async fn of_api_server(client: &Client) -> (Option<f64>, Option<f64>) {
    let request = http::Request::get("/metrics").body(Vec::new()).ok();
    let metrics = match request {
        Some(request) => client.request_text(request).await.unwrap_or_default(),
        None => String::new(),
    };
    let value = |name: &str| -> Option<f64> {
        let mut lines = metrics.lines();
        lines.find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    };
    (
        value("process_cpu_seconds_total "),
        value("process_resident_memory_bytes ").map(|bytes| bytes / f64::from(1 << 20)),
    )
}

#[derive(Deserialize)]
struct Summary {
    pods: Vec<PodStats>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodStats {
    pod_ref: PodRef,
    #[serde(default)]
    cpu: CpuStats,
    #[serde(default)]
    memory: MemoryStats,
}

#[derive(Deserialize)]
struct PodRef {
    uid: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CpuStats {
    usage_core_nano_seconds: Option<u64>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct MemoryStats {
    working_set_bytes: Option<u64>,
}

async fn summary(client: &Client, uid: &str, node: &str) -> Option<PodStats> {
    let url = format!("/api/v1/nodes/{node}/proxy/stats/summary");
    let request = http::Request::get(url).body(Vec::new()).ok()?;
    let summary: Summary = client.request(request).await.ok()?;
    summary.pods.into_iter().find(|pod| pod.pod_ref.uid == uid)
}
