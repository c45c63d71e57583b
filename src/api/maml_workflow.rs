//! MamlWorkflow: one document to run, and what became of it.

#![expect(
    clippy::duplicated_attributes,
    reason = "several printer columns have the same type"
)]

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{Condition, DigestSet, Role};

/// How many rows [`MamlWorkflowStatus::attempts`] keeps.
pub const ATTEMPTS_LIMIT: usize = 5;
/// How many diagnostics a status keeps.
pub const DIAGNOSTICS_LIMIT: usize = 20;
/// How many rows [`MamlWorkflowStatus::candidates`] keeps.
pub const CANDIDATES_LIMIT: usize = 16;
/// The largest outputs, in bytes of JSON, that a status carries itself.
pub const OUTPUTS_LIMIT: usize = 16 * 1024;
/// The largest document, in bytes.
pub const DOCUMENT_LIMIT: usize = 1024 * 1024;

/// What to run, with what, as whom and for how long.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "chimera.dunes.io",
    version = "v1alpha1",
    kind = "MamlWorkflow",
    plural = "mamlworkflows",
    singular = "mamlworkflow",
    shortname = "mamlwf",
    category = "chimera",
    namespaced,
    status = "MamlWorkflowStatus",
    derive = "PartialEq",
    doc = "A MamlWorkflow runs one executable Markdown document on a warm head and ends in a signed MuReceipt. A changed spec, or a changed annotation `chimera.dunes.io/rerun`, is a new run with a new receipt; the annotation `chimera.dunes.io/cancel: \"true\"` ends the current run.",
    selectable = ".spec.submitter",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "True once the run has succeeded and its receipt is signed"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        description = "Why the workflow is ready or not"
    ),
    printcolumn(
        name = "Head",
        type_ = "string",
        json_path = ".status.head.name",
        description = "The head that runs, or ran, the document"
    ),
    printcolumn(
        name = "GPU",
        type_ = "integer",
        json_path = ".status.gpus",
        description = "GPUs of the pod that the run was given"
    ),
    printcolumn(
        name = "Receipt",
        type_ = "string",
        json_path = ".status.receiptRef.name",
        description = "The signed receipt"
    ),
    printcolumn(
        name = "Duration",
        type_ = "string",
        json_path = ".status.duration",
        description = "From the start of the program to its end"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct MamlWorkflowSpec {
    /// Where the document comes from: exactly one of `inline` and `configMapRef`.
    pub source: Source,

    /// Values for the document's Input_Schema, as a plain object. The program sees them as the dict
    /// `inputs`. Example: `{"shots": 1024}`.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "crate::schema::any_object")]
    pub inputs: Map<String, Value>,

    /// More inputs, encrypted: a text that `chimera seal` or `chimera submit --seal` made for this
    /// namespace and for a workflow of this name. The operator opens it for this run alone; no object,
    /// log, event or receipt holds more of it than a digest. A name may not be in `inputs` too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 262_144))]
    pub sealed_inputs: Option<String>,

    /// The user who asked for the run. The API server writes it from the request that created or
    /// changed the spec; whatever else is set here is overwritten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub submitter: Option<String>,

    /// The agent on whose behalf the document runs, as `agent://NAME`. The requester needs the RBAC
    /// verb `act-as` on the resource `agents.chimera.dunes.io` of that name in this namespace. The
    /// document's `permissions.execute` must allow the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 261),
        regex(pattern = r"^agent://[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    pub act_as: Option<String>,

    /// Runs only on heads of this role. Without it, the document's `permissions` decide, and any
    /// allowed head will do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Role")]
    pub role: Option<Role>,

    /// How the run is kept apart from others. `Process`: in a sandbox of its own, on a warm pod that may
    /// hold other runs. `Pod`: on a pod that is made from a suitable ChimeraHead for this run alone and
    /// deleted after it, which takes seconds. The receipt names it.
    #[serde(default)]
    pub isolation: Isolation,

    /// Whose turn it is when several runs wait for the same place: the highest goes first, from -1000
    /// to 1000. A run under way is never stopped for another one.
    #[serde(default)]
    #[schemars(range(min = -1000, max = 1000))]
    pub priority: i32,

    /// Runs only on heads whose labels match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head_selector: Option<HeadSelector>,

    /// How long one attempt of the program may take, in seconds, from 1 to 604800 (a week). The
    /// program is then killed and the run ends with the reason `TimedOut`.
    #[serde(default = "default_timeout_seconds")]
    #[schemars(range(min = 1, max = 604_800))]
    pub timeout_seconds: i32,

    /// How long the run may wait for a head, in seconds, since the workflow was created or its spec last
    /// changed. It then ends with the reason `PendingDeadlineExceeded`. Time in which `suspend` is true
    /// does not count. Without it, the run waits for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub pending_deadline_seconds: Option<i32>,

    /// How often the run is tried again after the loss of its head, node or GPU, from 0 to 20. An
    /// error of the program itself is never tried again.
    #[serde(default = "default_infrastructure_retries")]
    #[schemars(range(min = 0, max = 20))]
    pub infrastructure_retries: i32,

    /// While true, a run that has not begun does not begin. A run under way goes on.
    #[serde(default)]
    pub suspend: bool,

    /// Deletes the workflow this many seconds after its run is complete. Its receipt stays. Without
    /// it, the workflow stays too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 315_360_000))]
    pub ttl_seconds_after_finished: Option<i32>,

    /// The KeyRotationPolicy of purpose Signing, in the operator's namespace, whose key signs the
    /// receipt. Without it, the operator's own policy is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signing_policy_ref: Option<SigningPolicyRef>,
}

const fn default_timeout_seconds() -> i32 {
    300
}

const fn default_infrastructure_retries() -> i32 {
    2
}

impl Default for MamlWorkflowSpec {
    /// What the API server makes of an empty spec, but for the source, which has no default.
    fn default() -> Self {
        Self {
            source: Source::default(),
            inputs: Map::new(),
            sealed_inputs: None,
            submitter: None,
            act_as: None,
            role: None,
            isolation: Isolation::default(),
            priority: 0,
            head_selector: None,
            timeout_seconds: default_timeout_seconds(),
            pending_deadline_seconds: None,
            infrastructure_retries: default_infrastructure_retries(),
            suspend: false,
            ttl_seconds_after_finished: None,
            signing_policy_ref: None,
        }
    }
}

/// Where a document comes from.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.inline) != has(self.configMapRef)",
    "message": "exactly one of inline and configMapRef must be set",
}]))]
pub struct Source {
    /// The document itself, at most 1 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1_048_576))]
    pub inline: Option<String>,

    /// A ConfigMap of this namespace that holds the document. A later change of the ConfigMap starts no
    /// new run. When it does not exist yet, the run waits for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<ConfigMapKeyRef>,
}

/// One entry of a ConfigMap in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapKeyRef {
    /// Name of the ConfigMap.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    pub name: String,

    /// Key in its `data`. Example: `report.maml.md`.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// Chooses ChimeraHeads by their labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeadSelector {
    /// Labels that the ChimeraHead must carry, all of them, with these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub match_labels: BTreeMap<String, String>,
}

impl HeadSelector {
    /// Whether a head with these labels is chosen.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.match_labels
            .iter()
            .all(|(name, value)| labels.get(name) == Some(value))
    }
}

/// A KeyRotationPolicy in the operator's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SigningPolicyRef {
    /// Name of the policy. Example: `signing`.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    pub name: String,
}

/// What became of the run.
// One value with one owner: the API server need not track who wrote each of its fields, which would be half of the object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct MamlWorkflowStatus {
    /// The `metadata.generation` that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// The value of the annotation `chimera.dunes.io/rerun` that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_rerun: Option<String>,

    /// Id of the current attempt: 32 hexadecimal digits, found again in logs, traces and the receipt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<String>,

    /// Number of the current attempt, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<i32>,

    /// Attempts that were lost with their head, newest last; at most 5.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5), extend("x-kubernetes-list-type" = "atomic"))]
    pub attempts: Vec<LostAttempt>,

    /// Digests of the document's bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document_digest: Option<DigestSet>,

    /// Digests of the inputs that the program was given, as JSON after defaults were applied. With
    /// `sealedInputs`, 32 secret bytes are digested before them, so that nobody finds them by trying.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs_digest: Option<DigestSet>,

    /// Digests of the outputs as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs_digest: Option<DigestSet>,

    /// The outputs, when their JSON has at most 16 KiB. Larger ones are known by `outputsDigest` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::any_object")]
    pub outputs: Option<Map<String, Value>>,

    /// The head and pod that run, or ran, the document.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<AssignedHead>,

    /// While the run waits for a head: what stands between it and each head of this namespace, those that
    /// are nearest to taking it first; at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub candidates: Vec<Candidate>,

    /// How many GPUs the pod of the run has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpus: Option<i32>,

    /// The document's code blocks in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "atomic"))]
    pub blocks: Vec<BlockStatus>,

    /// What reading the document found, worst first; at most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub diagnostics: Vec<Diagnostic>,

    /// The signed receipt of the run, in this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt_ref: Option<ReceiptRef>,

    /// When a head was claimed for the current attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled_at: Option<Timestamp>,

    /// When the program started, by the clock of its head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,

    /// When the program ended, by the clock of its head.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,

    /// From `startedAt` to `finishedAt`, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_millis: Option<i64>,

    /// The same for people. Example: `42ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,

    /// GPUs held times seconds held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu_seconds: Option<f64>,

    /// `Ready`, `Accepted`, `Scheduled`, `Succeeded`, `Signed`, `Complete` and, after a final failure,
    /// `Stalled`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// The head and pod of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AssignedHead {
    /// Name of the ChimeraHead.
    pub name: String,
    /// Name of its pod.
    pub pod: String,
    /// UID of the pod.
    pub uid: String,
    /// Node of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// GPUs of the pod, by the names that their driver gives them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub devices: Vec<String>,
}

/// Pods of one head, and why they do not take the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Candidate {
    /// Name of the ChimeraHead.
    pub head: String,
    /// How many of its pods this is said of; 0 when it has none.
    pub pods: i32,
    /// `Busy`, `Spare`, `NotReady`, `ScaledToZero` or `Unsuitable`.
    pub state: CandidateState,
    /// The same as a sentence; of an unsuitable head, what it lacks.
    pub message: String,
}

/// Why a pod does not take a run, in the order of how near it is to taking it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum CandidateState {
    /// It suits; all its places are taken.
    Busy,
    /// It suits, and waits to replace a lost pod.
    Spare,
    /// It suits as far as is known, and takes no runs yet.
    NotReady,
    /// The head suits as far as is known, and `spec.replicas` is 0.
    ScaledToZero,
    /// It lacks something that the run needs.
    Unsuitable,
}

/// Whether a run shares its pod with others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Isolation {
    /// A sandbox of its own on a warm pod, which may hold other runs beside it.
    #[default]
    Process,
    /// A pod of its own, made for it and deleted after it.
    Pod,
}

/// An attempt that ended without an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LostAttempt {
    /// Number of the attempt, from 1.
    pub attempt: i32,
    /// Name of the ChimeraHead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<String>,
    /// Name of the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Why it was lost, as one word. Example: `HeadLost`.
    pub reason: String,
    /// Why it was lost, as a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When the loss was noticed.
    pub time: Timestamp,
}

/// One code block of the document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BlockStatus {
    /// The block's name in the document, or `block-N`.
    pub name: String,
    /// Language of the code. Example: `python`.
    pub language: String,
    /// `Pending`, `Running`, `Succeeded`, `Failed` or `Skipped`.
    pub state: BlockState,
    /// How long the block took, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_millis: Option<i64>,
    /// What went wrong in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 20), extend("x-kubernetes-list-type" = "atomic"))]
    pub diagnostics: Vec<Diagnostic>,
}

/// How far a block has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BlockState {
    /// Its turn has not come.
    #[default]
    Pending,
    /// It runs.
    Running,
    /// It ended well.
    Succeeded,
    /// It raised an error, or was killed.
    Failed,
    /// An earlier block failed.
    Skipped,
}

/// One finding about a document or its program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Diagnostic {
    /// Code of the finding, to look up in the documentation. Example: `MAML012`.
    pub code: String,
    /// `Error`, `Warning` or `Note`.
    pub severity: Severity,
    /// Line in the document, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<i32>,
    /// Column in that line, in characters from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<i32>,
    /// What was found.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Severity {
    /// The document is refused, or the program has failed.
    Error,
    /// The document runs, but probably not as meant.
    Warning,
    /// For information.
    Note,
}

/// A MuReceipt of this namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReceiptRef {
    /// Name of the MuReceipt.
    pub name: String,
    /// UID of the MuReceipt.
    pub uid: String,
}
