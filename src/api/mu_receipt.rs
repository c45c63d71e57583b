//! MuReceipt: the signed record of one run.

#![expect(
    clippy::duplicated_attributes,
    reason = "several printer columns have the same type"
)]

use jiff::Timestamp;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Condition, DigestSet};

/// The largest mirrored text, in bytes, that a receipt carries.
pub const MU_LIMIT: usize = 256 * 1024;

/// What was run and what came of it, with the signature over both.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "chimera.dunes.io",
    version = "v1alpha1",
    kind = "MuReceipt",
    plural = "mureceipts",
    singular = "mureceipt",
    shortname = "mur",
    category = "chimera",
    namespaced,
    status = "MuReceiptStatus",
    derive = "PartialEq",
    doc = "A MuReceipt is the signed record of one run. Only the operator writes it, and its spec never changes. `chimera verify mur/NAME` checks it; `spec.envelope` and the ConfigMap `chimera-trust` of the operator's namespace are all that a verifier needs.",
    selectable = ".spec.result",
    selectable = ".spec.workflowRef.name",
    printcolumn(
        name = "Workflow",
        type_ = "string",
        json_path = ".spec.workflowRef.name",
        description = "The workflow that was run"
    ),
    printcolumn(
        name = "Result",
        type_ = "string",
        json_path = ".spec.result",
        description = "Success or Error"
    ),
    printcolumn(
        name = "Verified",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Verified\")].status",
        description = "Whether the last audit could verify it"
    ),
    printcolumn(
        name = "Alg",
        type_ = "string",
        json_path = ".spec.algorithm",
        description = "Algorithm of the signature"
    ),
    printcolumn(
        name = "GPU-Seconds",
        type_ = "number",
        json_path = ".spec.gpuSeconds",
        description = "GPUs held times seconds held"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic", "x-kubernetes-validations" = [{
    "rule": "self == oldSelf",
    "message": "a receipt cannot be changed",
}]))]
pub struct MuReceiptSpec {
    /// The workflow that was run. It may be gone; the receipt stays.
    pub workflow_ref: WorkflowRef,

    /// `Success`, or `Error` when the document was refused or its run failed.
    pub result: ReceiptResult,

    /// The DSSE envelope as JSON: an in-toto Statement with the predicate
    /// `https://slsa.dev/provenance/v1` and its signature. Everything else in this spec repeats what is
    /// signed here.
    #[schemars(length(min = 2, max = 1_048_576))]
    pub envelope: String,

    /// The mirrored text (.mu) of the document, when it has at most 256 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 262_144))]
    pub mu: Option<String>,

    /// Algorithm of the signature. Example: `ML-DSA-87`.
    #[schemars(length(min = 1, max = 64))]
    pub algorithm: String,

    /// Id of the signing key: SHA-256 of its public key (SubjectPublicKeyInfo, DER) in hexadecimal.
    #[schemars(regex(pattern = r"^[0-9a-f]{64}$"), length(max = 64))]
    pub key_id: String,

    /// Id of the run: 32 hexadecimal digits.
    #[schemars(regex(pattern = r"^[0-9a-f]{32}$"), length(max = 32))]
    pub run_id: String,

    /// Digests of the document's bytes.
    pub document_digest: DigestSet,

    /// Digests of the outputs as JSON; absent when there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outputs_digest: Option<DigestSet>,

    /// The user who asked for the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub submitter: Option<String>,

    /// The agent on whose behalf the document ran, as `agent://NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 261))]
    pub act_as: Option<String>,

    /// The ChimeraHead that ran the document; absent when nothing was run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub head: Option<String>,

    /// When the program started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,

    /// When the program ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,

    /// GPUs held times seconds held.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub gpu_seconds: f64,

    /// What went wrong; absent on success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ReceiptError>,
}

/// One run of one workflow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkflowRef {
    /// Name of the MamlWorkflow, in the receipt's namespace.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,

    /// Its UID.
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,

    /// Its `metadata.generation` at the run.
    #[schemars(range(min = 0))]
    pub generation: i64,

    /// Number of the attempt that gave the result, from 1; 0 when nothing was run.
    #[schemars(range(min = 0))]
    pub attempt: i32,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ReceiptResult {
    /// The program ended well and its outputs fit their schema.
    Success,
    /// The document was refused or its run failed.
    Error,
}

impl ReceiptResult {
    /// The word used in the API and in the label `chimera.dunes.io/result`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "Success",
            Self::Error => "Error",
        }
    }
}

/// Why a run failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReceiptError {
    /// One word. The words are listed in docs/reference/reasons.md.
    #[schemars(length(min = 1, max = 128))]
    pub reason: String,

    /// A sentence.
    #[schemars(length(max = 32768))]
    pub message: String,

    /// Code of the finding in the document, if it is one. Example: `MAML012`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub code: Option<String>,

    /// Line in the document, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<i32>,

    /// Column in that line, in characters from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<i32>,
}

/// What the audit found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MuReceiptStatus {
    /// The `metadata.generation` that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// When the receipt was last verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_audit_time: Option<Timestamp>,

    /// `Verified` says whether signatures and digests hold; `Ready` follows it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
