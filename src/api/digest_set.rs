//! The pair of digests by which documents, inputs and outputs are known.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// SHA-256 and BLAKE3 of the same bytes, both in lower-case hexadecimal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DigestSet {
    /// SHA-256 of the bytes, 64 lower-case hexadecimal digits.
    #[schemars(regex(pattern = r"^[0-9a-f]{64}$"), length(max = 64))]
    pub sha256: String,

    /// BLAKE3 of the same bytes, 64 lower-case hexadecimal digits.
    #[schemars(regex(pattern = r"^[0-9a-f]{64}$"), length(max = 64))]
    pub blake3: String,
}
