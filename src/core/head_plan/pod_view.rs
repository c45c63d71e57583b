//! One pod of a head, as API server, kubelet and agent tell of it.

use jiff::Timestamp;

/// One pod that the head owns (by UID).
#[derive(Debug, Clone, PartialEq, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own about the pod"
)]
pub struct PodView {
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Which place it fills.
    pub slot: i32,
    /// How often the place was filled before.
    pub incarnation: u32,
    /// Whether it is marked as a spare.
    pub spare: bool,
    /// Whether it is marked to take no new runs and to go when it has none left.
    pub draining: bool,
    /// Digest of the template that it was made from.
    pub template_hash: String,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// Being deleted.
    pub deleting: bool,
    /// Who is disrupting it, as by an eviction.
    pub disruption: Option<String>,
    /// Ended by itself, was evicted or refused by its node; why.
    pub failed: Option<String>,
    /// Devices of the pod that the kubelet or the agent reports as unhealthy.
    pub sick_devices: Vec<SickDevice>,
    /// Devices of the pod that are reported as healthy, and by nobody as unhealthy.
    pub healthy_devices: Vec<String>,
    /// Node.
    pub node: Option<String>,
    /// Since when no node has room for it.
    pub unschedulable_since: Option<Timestamp>,
    /// Whether the kubelet found its agent ready.
    pub kubelet_ready: bool,
    /// Whether its agent takes runs.
    pub ready: bool,
    /// Why not.
    pub message: String,
    /// UUIDs of its devices.
    pub devices: Vec<String>,
    /// Runs under way.
    pub running: u32,
    /// Id of its agent's attestation key, while it is heard.
    pub agent: Option<String>,
    /// Why its agent is heard no more.
    pub lost: Option<Lost>,
    /// Faults that its agent mended itself, oldest first.
    pub mends: Vec<Mend>,
    /// Why it is to be replaced although nothing of it failed by itself.
    pub suspect: Option<String>,
}

/// An agent that was heard and is heard no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// One of [`api::reasons`].
    pub cause: &'static str,
    /// For a person.
    pub message: String,
    /// When it was noticed.
    pub since: Timestamp,
}

/// A fault that an agent mended itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mend {
    /// Counts from 1 since the start of the agent.
    pub number: i64,
    /// The agent's word for it.
    pub cause: String,
    /// For a person.
    pub message: String,
    /// When the agent noticed it.
    pub noticed: Timestamp,
    /// From then until runs were taken again.
    pub duration_millis: i64,
}

/// A device that does not work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SickDevice {
    /// Its name.
    pub device: String,
    /// For a person.
    pub message: String,
}

impl PodView {
    /// Whether it is there and about to remain.
    pub(super) fn lives(&self) -> bool {
        !self.deleting && self.failed.is_none()
    }

    /// Whether it fills a place.
    pub(super) fn stays(&self) -> bool {
        self.lives() && !self.draining
    }

    /// Whether it is well as far as the kubelet knows, and its agent was not heard yet: after a start of the operator
    /// nothing follows from that.
    pub(super) fn is_awaited(&self) -> bool {
        self.agent.is_none() && self.lost.is_none() && self.kubelet_ready
    }

    /// Whether neither agent nor kubelet has a good word for it, and nobody a bad one.
    pub(super) fn is_unheard(&self) -> bool {
        self.agent.is_none() && self.lost.is_none() && !self.kubelet_ready
    }
}
