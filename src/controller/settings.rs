//! What the operator is told at start: flags and the pod's own coordinates. Nothing here is read again later.

use std::{net::SocketAddr, path::PathBuf};

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use crypto::VerifyingKey;

use crate::keys::entropy::EntropySource;

/// The Chimera operator.
#[derive(Debug, Clone, Parser)]
#[command(name = "chimera-controller", version, about)]
pub struct Settings {
    /// Namespace that the operator runs in: its Lease, keys and trust bundle live there.
    #[arg(long, env = "POD_NAMESPACE", default_value = "chimera-system")]
    pub namespace: String,

    /// Name of the operator's pod, used in Events.
    #[arg(long, env = "POD_NAME", default_value = "chimera-controller")]
    pub pod_name: String,

    /// UID of the operator's pod: its identity in the Lease. A restarted container of the same pod is the same
    /// candidate, since the kubelet never runs both.
    #[arg(long, env = "POD_UID", default_value = "")]
    pub pod_uid: String,

    /// Namespaces to watch, separated by commas. Empty: all of them.
    #[arg(long, value_delimiter = ',')]
    pub watch_namespaces: Vec<String>,

    /// Image of a head whose spec names none.
    #[arg(long, default_value = "localhost/chimera-head-cpu:dev")]
    pub default_head_image: String,

    /// Images that heads may name beside the default: exact references, prefixes that end in `*`, or bare digests. Where
    /// every entry has a digest, an image without one is refused.
    #[arg(long, value_delimiter = ',')]
    pub allowed_head_images: Vec<String>,

    /// What keeps runs from everything else: a kernel that lacks it gives no ready head.
    #[arg(long, default_value = "full", value_parser = ["full", "files", "limits"])]
    pub head_isolation: String,

    /// The KeyRotationPolicy that signs where a workflow names none.
    #[arg(long, default_value = "signing")]
    pub signing_policy: String,

    /// PEM file with the public key of a root whose private key is elsewhere. Without it, the operator makes a root of its own
    /// and keeps it in a Secret.
    #[arg(long)]
    pub offline_root: Option<PathBuf>,

    /// A source of entropy that is mixed into every key beside the operating system's, as NAME=PATH. May be given more
    /// than once. One that fails is dropped.
    #[arg(long = "entropy-source", value_name = "NAME=PATH")]
    pub entropy_sources: Vec<EntropySource>,

    /// YAML file with ChimeraHeads and KeyRotationPolicies to create where they are absent.
    #[arg(long)]
    pub bootstrap_file: Option<PathBuf>,

    /// Where Prometheus metrics are served.
    #[arg(long, default_value = "0.0.0.0:9090")]
    pub metrics_addr: SocketAddr,

    /// Where the kubelet's probes are answered.
    #[arg(long, default_value = "0.0.0.0:8080")]
    pub health_addr: SocketAddr,

    /// Form of the logs.
    #[arg(long, env = "CHIMERA_LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,

    /// Seconds after which a Lease that nobody renewed may be taken over.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u16).range(3..=300))]
    pub lease_seconds: u16,

    /// Workflows that are reconciled at once.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub concurrency: u16,
}

/// Form of the log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For a person at a terminal.
    Pretty,
}

impl Settings {
    /// The scopes to watch: `None` is the whole cluster.
    pub fn scopes(&self) -> Vec<Option<String>> {
        let named: Vec<_> = self
            .watch_namespaces
            .iter()
            .filter(|name| !name.is_empty())
            .cloned()
            .map(Some)
            .collect();
        if named.is_empty() { vec![None] } else { named }
    }

    /// The offline root's public key, if there is such a root.
    pub fn read_offline_root(&self) -> anyhow::Result<Option<VerifyingKey>> {
        let Some(path) = &self.offline_root else {
            return Ok(None);
        };
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        let key = VerifyingKey::from_spki_pem(&text)
            .with_context(|| format!("read the offline root in {}", path.display()))?;
        Ok(Some(key))
    }

    /// Who holds the Lease: the pod's UID, or host-independent coordinates where there is no pod.
    pub fn identity(&self) -> String {
        if self.pod_uid.is_empty() {
            format!("{}-{}", self.pod_name, std::process::id())
        } else {
            self.pod_uid.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropy_sources_may_be_given_more_than_once() {
        let settings = Settings::parse_from([
            "chimera-controller",
            "--entropy-source=hwrng=/dev/hwrng",
            "--entropy-source",
            "circuit=/var/run/circuit",
        ]);
        assert_eq!(settings.entropy_sources.len(), 2);
        assert!(Settings::try_parse_from(["chimera-controller", "--entropy-source=hwrng"]).is_err());
    }

    #[test]
    fn no_watched_namespace_means_the_whole_cluster() {
        let settings = Settings::parse_from(["chimera-controller"]);
        assert_eq!(settings.scopes(), vec![None]);
        let settings = Settings::parse_from(["chimera-controller", "--watch-namespaces", "a,b"]);
        assert_eq!(settings.scopes(), vec![Some("a".into()), Some("b".into())]);
    }
}
