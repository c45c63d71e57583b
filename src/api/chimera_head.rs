//! ChimeraHead: a group of warm pods that run documents.

#![expect(
    clippy::duplicated_attributes,
    reason = "several printer columns have the same type"
)]

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::{api::core::v1 as core, apimachinery::pkg::api::resource::Quantity};
use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::{Condition, Role};

/// How many rows [`ChimeraHeadStatus::last_regenerations`] keeps, unless more losses are to be made good.
pub const REGENERATIONS_LIMIT: usize = 5;
/// How many rows [`ChimeraHeadStatus::unhealthy_devices`] keeps.
pub const UNHEALTHY_DEVICES_LIMIT: usize = 64;
/// Seconds that runs have to end when a pod is stopped and its head does not say.
pub const GRACE_SECONDS: i64 = 30;

/// What kind of pods to keep warm, and how many.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "chimera.dunes.io",
    version = "v1alpha1",
    kind = "ChimeraHead",
    plural = "chimeraheads",
    singular = "chimerahead",
    shortname = "head",
    category = "chimera",
    namespaced,
    status = "ChimeraHeadStatus",
    derive = "PartialEq",
    doc = "A ChimeraHead keeps pods with warm interpreters that run documents of this namespace, and replaces those that fail. `kubectl scale head/NAME --replicas=N` changes how many serve.",
    selectable = ".spec.role",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(
        name = "Role",
        type_ = "string",
        json_path = ".spec.role",
        description = "What the head is for"
    ),
    printcolumn(
        name = "Ready",
        type_ = "integer",
        json_path = ".status.readyReplicas",
        description = "Pods that take runs"
    ),
    printcolumn(
        name = "Desired",
        type_ = "integer",
        json_path = ".spec.replicas",
        description = "Pods that should take runs"
    ),
    printcolumn(
        name = "Spare",
        type_ = "integer",
        json_path = ".status.spares",
        description = "Warm pods that wait to replace a lost one"
    ),
    printcolumn(
        name = "GPU",
        type_ = "integer",
        json_path = ".status.gpus",
        description = "GPUs of all its pods"
    ),
    printcolumn(
        name = "Regenerations",
        type_ = "integer",
        json_path = ".status.regenerations",
        description = "Pods replaced after a failure"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.runtimeClassName) || !has(self.gpu) || !has(self.gpu.runtimeClassName) || \
             self.runtimeClassName == self.gpu.runtimeClassName",
    "message": "runtimeClassName and gpu.runtimeClassName name different RuntimeClasses; a pod has one: leave one of them out",
}]))]
pub struct ChimeraHeadSpec {
    /// What the head is for: `quantum`, `crypto`, `inference` or `orchestrator`. Documents name the roles
    /// by number, `gateway://chimera-head-1` to `gateway://chimera-head-4` in this order.
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "self == oldSelf",
        "message": "the role of a head cannot change; create another ChimeraHead",
    }]))]
    pub role: Role,

    /// How many pods take runs, from 0 to 64.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 64))]
    pub replicas: i32,

    /// How many more warm pods wait to take over from a lost one, from 0 to 16. Each costs as much as
    /// a replica.
    #[serde(default)]
    #[schemars(range(min = 0, max = 16))]
    pub spares: i32,

    /// Image of the pods. It must be on the operator's list of allowed images; where that list has digests only, it
    /// must name its digest. Without it, the operator's own image for the head is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 512),
        regex(pattern = r"^[A-Za-z0-9][-A-Za-z0-9._:/@]*$")
    )]
    pub image: Option<String>,

    /// GPUs of each pod. Without it, the pods have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<Gpu>,

    /// The interpreters that wait in each pod.
    #[serde(default)]
    pub workers: Workers,

    /// CPU, memory and ephemeral storage of each pod. Without it, the operator's defaults apply. The runs of a pod share its
    /// limits in equal parts: each may use (limit - what is kept) / `workers.warm`, where an eighth is kept for the agent and
    /// its interpreters, and at least 256Mi of memory and 64Mi of storage. A run that needs more waits for a head with a larger share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,

    /// How failures are noticed.
    #[serde(default)]
    pub health: Health,

    /// RuntimeClass of the pods, such as `gvisor` or `kata`. When it does not exist, no pod starts and the head says so;
    /// there is no fall-back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub runtime_class_name: Option<String>,

    /// Seconds that runs have to end when a pod is stopped from outside, as by `kubectl drain`, from 10 to 86400. What has
    /// not ended by then is tried again on another pod. Without it, 30. A change of the head itself never cuts a run short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 86_400))]
    pub termination_grace_period_seconds: Option<i64>,

    /// Labels of the nodes on which the pods may run.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub node_selector: BTreeMap<String, String>,

    /// Taints of nodes that the pods tolerate.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub tolerations: Vec<Toleration>,

    /// PriorityClass of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub priority_class_name: Option<String>,

    /// How the pods are spread over nodes or zones. Without it, over nodes as far as there is room.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 8),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["topologyKey", "whenUnsatisfiable"])
    )]
    pub topology_spread: Vec<TopologySpread>,
}

const fn one() -> i32 {
    1
}

/// GPUs of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gpu {
    /// How many GPUs each pod has, from 1 to 16.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 16))]
    pub count: i32,

    /// Name under which the nodes' device plugin offers them.
    #[serde(default = "default_resource_name")]
    #[schemars(
        length(min = 3, max = 317),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")
    )]
    pub resource_name: String,

    /// RuntimeClass of the pods, like `spec.runtimeClassName`, which must not name another one. Example: `nvidia`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub runtime_class_name: Option<String>,
}

fn default_resource_name() -> String {
    "nvidia.com/gpu".to_owned()
}

/// The interpreters that wait in a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Workers {
    /// How many runs a pod takes at once, each in an interpreter of its own, from 1 to 64. They share the pod's limits: the
    /// more runs, the less memory and storage each may use, as `spec.resources` tells.
    #[serde(default = "default_warm")]
    #[schemars(range(min = 1, max = 64))]
    pub warm: i32,

    /// Python modules that are imported before a run arrives, so that the run does not wait for them.
    /// Example: `["numpy", "qiskit"]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(length(min = 1, max = 128), regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*([.][A-Za-z_][A-Za-z0-9_]*)*$")),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub preload: Vec<String>,
}

impl Default for Workers {
    fn default() -> Self {
        Self {
            warm: default_warm(),
            preload: Vec::new(),
        }
    }
}

const fn default_warm() -> i32 {
    2
}

/// What a pod asks for and may use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// What the scheduler sets aside for each pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<ResourceAmounts>,

    /// What each pod may use at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<ResourceAmounts>,
}

/// Amounts of the resources that a head may choose.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResourceAmounts {
    /// CPUs. Example: `2` or `500m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "quantity")]
    pub cpu: Option<Quantity>,

    /// Memory in bytes. Example: `2Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "quantity")]
    pub memory: Option<Quantity>,

    /// Ephemeral storage in bytes. Example: `1Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "ephemeral-storage")]
    #[schemars(schema_with = "quantity")]
    pub ephemeral_storage: Option<Quantity>,
}

fn quantity(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-int-or-string": true,
        "maxLength": 64,
        "pattern": "^[0-9]+([.][0-9]*)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][0-9]+)?$",
    })
}

/// How failures are noticed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// Time between two signs of life of a pod, in milliseconds, from 100 to 60000.
    #[serde(default = "default_heartbeat_millis")]
    #[schemars(range(min = 100, max = 60_000))]
    pub heartbeat_millis: i32,

    /// Time between two test computations, in seconds, from 1 to 3600: one in the interpreter while no run is under way, and
    /// one on each GPU. Until a pod's first one has succeeded, it takes no runs.
    #[serde(default = "default_canary_seconds")]
    #[schemars(range(min = 1, max = 3_600))]
    pub canary_seconds: i32,

    /// How many signs of life may be missing in a row before the pod counts as lost, from 1 to 100. 1 means the same as 2:
    /// one that is late by a moment is no loss.
    #[serde(default = "default_failure_threshold")]
    #[schemars(range(min = 1, max = 100))]
    pub failure_threshold: i32,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            heartbeat_millis: default_heartbeat_millis(),
            canary_seconds: default_canary_seconds(),
            failure_threshold: default_failure_threshold(),
        }
    }
}

const fn default_heartbeat_millis() -> i32 {
    500
}

const fn default_canary_seconds() -> i32 {
    30
}

const fn default_failure_threshold() -> i32 {
    3
}

/// A taint that pods tolerate. Fields are those of a pod's `tolerations`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Toleration {
    /// Key of the taint. Without it, and with the operator `Exists`, every taint is tolerated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 317))]
    pub key: Option<String>,

    /// `Equal` (the default) compares the value too, `Exists` does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "TolerationOperator")]
    pub operator: Option<TolerationOperator>,

    /// Value of the taint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub value: Option<String>,

    /// Effect of the taint: `NoSchedule`, `PreferNoSchedule` or `NoExecute`. Without it, all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "TaintEffect")]
    pub effect: Option<TaintEffect>,

    /// How long a taint of effect `NoExecute` is tolerated, in seconds. Without it, for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toleration_seconds: Option<i64>,
}

/// How a toleration is compared with a taint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TolerationOperator {
    /// Key and value must be equal.
    Equal,
    /// The key must be equal.
    Exists,
}

/// What a taint does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TaintEffect {
    /// Keeps new pods away.
    NoSchedule,
    /// Keeps new pods away if there is another place.
    PreferNoSchedule,
    /// Drives pods away.
    NoExecute,
}

impl From<&Toleration> for core::Toleration {
    fn from(toleration: &Toleration) -> Self {
        Self {
            key: toleration.key.clone(),
            operator: toleration.operator.map(|operator| {
                match operator {
                    TolerationOperator::Equal => "Equal",
                    TolerationOperator::Exists => "Exists",
                }
                .to_owned()
            }),
            value: toleration.value.clone(),
            effect: toleration.effect.map(|effect| {
                match effect {
                    TaintEffect::NoSchedule => "NoSchedule",
                    TaintEffect::PreferNoSchedule => "PreferNoSchedule",
                    TaintEffect::NoExecute => "NoExecute",
                }
                .to_owned()
            }),
            toleration_seconds: toleration.toleration_seconds,
        }
    }
}

/// How pods are spread. The pods that are counted are those of the head.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TopologySpread {
    /// How many more pods one domain may have than another, from 1 to 64.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 64))]
    pub max_skew: i32,

    /// Label of nodes whose value names the domain. Example: `topology.kubernetes.io/zone`.
    #[schemars(length(min = 1, max = 317))]
    pub topology_key: String,

    /// What happens to a pod that would break the rule: `DoNotSchedule` or `ScheduleAnyway`.
    #[serde(default)]
    pub when_unsatisfiable: WhenUnsatisfiable,
}

/// What happens to a pod that cannot be spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WhenUnsatisfiable {
    /// It waits.
    DoNotSchedule,
    /// It starts nevertheless.
    #[default]
    ScheduleAnyway,
}

impl WhenUnsatisfiable {
    /// The word that pods use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DoNotSchedule => "DoNotSchedule",
            Self::ScheduleAnyway => "ScheduleAnyway",
        }
    }
}

/// The pods there are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChimeraHeadStatus {
    /// The `metadata.generation` that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Pods that serve or are about to, spares not counted.
    #[serde(default)]
    pub replicas: i32,

    /// Pods that take runs now.
    #[serde(default)]
    pub ready_replicas: i32,

    /// Warm pods that wait to take over.
    #[serde(default)]
    pub spares: i32,

    /// Label selector of the pods, for autoscalers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,

    /// GPUs of all pods.
    #[serde(default)]
    pub gpus: i32,

    /// How many pods were replaced after a failure since the head was created.
    #[serde(default)]
    pub regenerations: i64,

    /// The pods, by name. The number of runs of each is in the workflows' own statuses; `chimera head status` counts them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub pods: Vec<HeadPod>,

    /// The latest replacements, newest last: all that are under way, and as many others as make 5.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 80), extend("x-kubernetes-list-type" = "atomic"))]
    pub last_regenerations: Vec<Regeneration>,

    /// Devices that failed and have not been found healthy since. A pod that holds one gets no runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["device"]))]
    pub unhealthy_devices: Vec<UnhealthyDevice>,

    /// `Ready` is True while at least as many pods take runs as `spec.replicas` asks for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// One pod of a head.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeadPod {
    /// Name of the pod.
    pub name: String,
    /// UID of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Node of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// `active` takes runs, `spare` waits.
    #[serde(default)]
    pub role: PodRole,
    /// Whether its agent has said that it can run documents.
    #[serde(default)]
    pub ready: bool,
    /// Why it is not ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Its GPUs, by the names that their driver gives them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub devices: Vec<String>,
    /// Always 0: a count that changes with every run would cost a write for every run.
    #[serde(default)]
    pub running: i32,
    /// The agent in it, by the id of its attestation key; another start of the agent has another. None while nothing is
    /// heard of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// How many faults that agent has mended itself, as far as they are recorded here.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub mends: i64,
    /// Whether it takes no new runs and is removed when those under way have ended.
    #[serde(default, skip_serializing_if = "is_false")]
    pub draining: bool,
    /// Whether it was made from an earlier spec, and is to be replaced.
    #[serde(default, skip_serializing_if = "is_false")]
    pub outdated: bool,
}

impl HeadPod {
    /// Whether an agent was heard in it.
    pub const fn has_served(&self) -> bool {
        self.agent.is_some() || self.ready
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(number: &i64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

/// A device that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnhealthyDevice {
    /// The name that its driver gives it.
    pub device: String,
    /// The node that it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// What is wrong with it, as a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When that was noticed.
    pub since: Timestamp,
}

/// Whether two names are of one device: a device that is shared in time has a name for each share, `UUID::N`.
pub fn same_device(one: &str, other: &str) -> bool {
    let uuid = |name| str::split(name, "::").next();
    uuid(one) == uuid(other)
}

/// Whether a pod serves or waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PodRole {
    /// It takes runs.
    #[default]
    Active,
    /// It waits to take over.
    Spare,
}

/// One loss of a pod, of its agent or of its interpreters, and how it was made good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Regeneration {
    /// Name of the pod that was lost.
    pub pod: String,
    /// UID of that pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Name of the pod that takes over: a spare, a new pod, or the same one when it mends in place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replacement: Option<String>,
    /// Why it was lost, as one word. Example: `NodeLost`.
    pub reason: String,
    /// Why it was lost, as a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// From the noticed loss to the replacement taking runs, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_millis: Option<i64>,
    /// When the loss was noticed.
    pub time: Timestamp,
    /// When the replacement took runs. None while it does not yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_time: Option<Timestamp>,
}
