//! KeyRotationPolicy: which keys there are, and when they change.

#![expect(
    clippy::duplicated_attributes,
    reason = "several printer columns have the same type"
)]

use jiff::Timestamp;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Condition;

/// What kind of key to keep, and when to replace it.
#[derive(CustomResource, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "chimera.dunes.io",
    version = "v1alpha1",
    kind = "KeyRotationPolicy",
    plural = "keyrotationpolicies",
    singular = "keyrotationpolicy",
    shortname = "krp",
    category = "chimera",
    namespaced,
    status = "KeyRotationPolicyStatus",
    derive = "PartialEq",
    doc = "A KeyRotationPolicy owns a key and its successors. The public half of a key is published before the key is used, so that a rotation never leaves a receipt that cannot be verified. The annotation `chimera.dunes.io/rotate`, when changed, asks for a rotation now; `chimera.dunes.io/roll-root`, on a policy that signs, for a new root.",
    printcolumn(
        name = "Purpose",
        type_ = "string",
        json_path = ".spec.purpose",
        description = "What the key is for"
    ),
    printcolumn(
        name = "Algorithm",
        type_ = "string",
        json_path = ".spec.algorithm",
        description = "Algorithm of the key"
    ),
    printcolumn(
        name = "Key",
        type_ = "string",
        json_path = ".status.activeKey",
        description = "First digits of the id of the key in use"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "True while a published key is in use"
    ),
    printcolumn(
        name = "Rotated",
        type_ = "date",
        json_path = ".status.lastRotationTime",
        description = "Time since the key in use was put to use"
    ),
    printcolumn(
        name = "Next",
        type_ = "string",
        json_path = ".status.nextRotationTime",
        description = "When its successor takes over"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "self.purpose != 'Signing' || self.algorithm in ['ML-DSA-87', 'ML-DSA-65', 'Ed25519+ML-DSA-87']",
        "message": "purpose Signing needs the algorithm ML-DSA-87, ML-DSA-65 or Ed25519+ML-DSA-87",
    },
    {
        "rule": "self.purpose != 'Sealing' || self.algorithm == 'ML-KEM-1024'",
        "message": "purpose Sealing needs the algorithm ML-KEM-1024",
    },
    {
        "rule": "self.purpose != 'Session' || self.algorithm == 'AES-256-GCM-L4'",
        "message": "purpose Session needs the algorithm AES-256-GCM-L4",
    },
]))]
pub struct KeyRotationPolicySpec {
    /// What the key is for: `Signing` of receipts, `Sealing` of inputs or `Session` encryption of streams.
    /// It cannot change.
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "self == oldSelf",
        "message": "the purpose of a policy cannot change; create another KeyRotationPolicy",
    }]))]
    pub purpose: Purpose,

    /// Algorithm of the key: `ML-DSA-87` or `ML-DSA-65` (FIPS 204) or `Ed25519+ML-DSA-87` (both must verify) to sign, `ML-KEM-1024` (FIPS 203) to seal,
    /// `AES-256-GCM-L4` (four lanes of AES-256-GCM) for sessions. It cannot change.
    #[schemars(extend("x-kubernetes-validations" = [{
        "rule": "self == oldSelf",
        "message": "the algorithm of a policy cannot change; create another KeyRotationPolicy",
    }]))]
    pub algorithm: Algorithm,

    /// When the key is replaced. Without any limit, only on request.
    #[serde(default)]
    pub rotation: Rotation,

    /// How many retired keys stay in status, from 0 to 64; as many sealing keys also stay in the Secret, so
    /// that what was sealed under them still opens. The public halves of retired signing keys stay published for ever, so
    /// that old receipts verify; their private halves are forgotten.
    #[serde(default = "default_retain")]
    #[schemars(range(min = 0, max = 64))]
    pub retain: i32,

    /// While true, the key is used but not replaced, unless it is revoked.
    #[serde(default)]
    pub suspend: bool,

    /// Keys whose signatures must no longer be believed. A key of this policy that is in use is replaced at once. What was
    /// once revoked stays so, even when it is taken out of this list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["keyId"]))]
    pub revoked: Vec<RevokedKey>,
}

/// A key that must no longer be believed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevokedKey {
    /// Id of the key: 64 hexadecimal digits.
    #[schemars(length(max = 64), regex(pattern = "^[0-9a-f]{64}$"))]
    pub key_id: String,
    /// Why: `KeyCompromise`, `Superseded`, `CessationOfOperation` or `PrivilegeWithdrawn`.
    pub reason: RevocationReason,
    /// What names this time or a later one under the key does not count. Without it nothing does that the key ever signed:
    /// whoever has stolen a key can write any time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

/// Why a key is revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum RevocationReason {
    /// Somebody else has or may have the private key.
    KeyCompromise,
    /// Another key took its place.
    Superseded,
    /// It is no longer needed.
    CessationOfOperation,
    /// Its owner lost the right to use it.
    PrivilegeWithdrawn,
}

const fn default_retain() -> i32 {
    8
}

/// What a key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Purpose {
    /// Signs receipts and grants.
    Signing,
    /// Encrypts inputs to the operator.
    Sealing,
    /// Encrypts streams.
    Session,
}

impl Purpose {
    /// The word used in the API and in key statements.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Signing => "Signing",
            Self::Sealing => "Sealing",
            Self::Session => "Session",
        }
    }
}

/// An algorithm, with all its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Algorithm {
    /// ML-DSA-87 of FIPS 204.
    #[serde(rename = "ML-DSA-87")]
    MlDsa87,
    /// ML-DSA-65 of FIPS 204.
    #[serde(rename = "ML-DSA-65")]
    MlDsa65,
    /// Ed25519 of RFC 8032 and ML-DSA-87; a signature counts only when both verify.
    #[serde(rename = "Ed25519+ML-DSA-87")]
    Ed25519MlDsa87,
    /// ML-KEM-1024 of FIPS 203.
    #[serde(rename = "ML-KEM-1024")]
    MlKem1024,
    /// Four lanes of AES-256-GCM.
    #[serde(rename = "AES-256-GCM-L4")]
    Aes256GcmL4,
}

impl Algorithm {
    /// The name used in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MlDsa87 => "ML-DSA-87",
            Self::MlDsa65 => "ML-DSA-65",
            Self::Ed25519MlDsa87 => "Ed25519+ML-DSA-87",
            Self::MlKem1024 => "ML-KEM-1024",
            Self::Aes256GcmL4 => "AES-256-GCM-L4",
        }
    }
}

/// When a key is replaced: at the first limit that is reached.
//
// The rules compare only texts that are durations: for others, the pattern's own message is enough.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!has(self.interval) || !self.interval.matches('^([0-9]{1,9}(ms|s|m|h))+$') || duration(self.interval) >= duration('1s')",
        "message": "interval must be at least 1s",
        "fieldPath": ".interval",
    },
    {
        "rule": "!has(self.prefetch) || !has(self.interval) || !(self.prefetch + self.interval).matches('^([0-9]{1,9}(ms|s|m|h))+$') || duration(self.prefetch) < duration(self.interval)",
        "message": "prefetch must be shorter than interval",
        "fieldPath": ".prefetch",
    },
    {
        "rule": "!has(self.overlap) || !has(self.interval) || !(self.overlap + self.interval).matches('^([0-9]{1,9}(ms|s|m|h))+$') || duration(self.overlap) <= duration(self.interval)",
        "message": "overlap must not be longer than interval",
        "fieldPath": ".overlap",
    },
]))]
pub struct Rotation {
    /// How long a key is used, in ms, s, m and h. Example: `24h` or `60s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = crate::duration::PATTERN))]
    pub interval: Option<String>,

    /// How many bytes are encrypted under one key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_bytes: Option<i64>,

    /// How often one key is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_uses: Option<i64>,

    /// How long before its first use the next key is made and published. Example: `1h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = crate::duration::PATTERN))]
    pub prefetch: Option<String>,

    /// How long the previous key is still accepted after a rotation, for what was under way. Example: `5m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = crate::duration::PATTERN))]
    pub overlap: Option<String>,
}

/// The keys there are. Secrets never appear here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyRotationPolicyStatus {
    /// The `metadata.generation` that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// The value of the annotation `chimera.dunes.io/rotate` that was last obeyed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_rotate: Option<String>,

    /// The keys, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 67), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["keyId"]))]
    pub keys: Vec<KeyStatus>,

    /// Id of the key in use: SHA-256 of its public key (SubjectPublicKeyInfo, DER) in hexadecimal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_key_id: Option<String>,

    /// Its first 12 digits, for tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_key: Option<String>,

    /// How often the key in use was used, as far as it is counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<i64>,

    /// How many bytes were encrypted under the key in use, as far as they are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<i64>,

    /// When the key in use was put to use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_rotation_time: Option<Timestamp>,

    /// When its successor takes over, if time alone decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_rotation_time: Option<Timestamp>,

    /// Size of one key in bits, where the algorithm has such a size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_bits: Option<i32>,

    /// How many independent keys encrypt side by side, where the algorithm has lanes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lanes: Option<i32>,

    /// Size of an authentication tag in bits, where the algorithm has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag_bits: Option<i32>,

    /// `Ready` is True while a published key is in use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// One key of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyStatus {
    /// Id of the key: SHA-256 of its public key (SubjectPublicKeyInfo, DER) in hexadecimal.
    pub key_id: String,
    /// `Next` is published and waits, `Active` is in use, `Previous` is still accepted, `Retired` only verifies.
    pub state: KeyState,
    /// Since when it is in that state.
    pub since: Timestamp,
}

/// Where a key is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum KeyState {
    /// Published, not yet used.
    Next,
    /// In use.
    Active,
    /// Still accepted.
    Previous,
    /// Verifies only.
    Retired,
}
