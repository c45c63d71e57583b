//! What a head is for, and the numbers under which documents name it.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The purpose of a head. Documents may name it by number: `gateway://chimera-head-1` is the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Quantum circuits; `chimera-head-1`.
    Quantum,
    /// Keys, signatures and entropy; `chimera-head-2`.
    Crypto,
    /// Inference of models; `chimera-head-3`.
    Inference,
    /// Training, coordination and recovery; `chimera-head-4`.
    Orchestrator,
}

impl Role {
    /// All roles in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Quantum, Self::Crypto, Self::Inference, Self::Orchestrator];

    /// The name used in `spec.role`, in labels and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Quantum => "quantum",
            Self::Crypto => "crypto",
            Self::Inference => "inference",
            Self::Orchestrator => "orchestrator",
        }
    }

    /// The number N of `gateway://chimera-head-N`, 1 to 4.
    pub const fn number(self) -> u8 {
        match self {
            Self::Quantum => 1,
            Self::Crypto => 2,
            Self::Inference => 3,
            Self::Orchestrator => 4,
        }
    }

    /// The name under which documents allow a head of this role, such as `chimera-head-1`.
    pub const fn gateway(self) -> &'static str {
        match self {
            Self::Quantum => "chimera-head-1",
            Self::Crypto => "chimera-head-2",
            Self::Inference => "chimera-head-3",
            Self::Orchestrator => "chimera-head-4",
        }
    }

    /// The role of that name, if there is one.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_gateway_and_name_agree() {
        for (index, role) in Role::ALL.into_iter().enumerate() {
            assert_eq!(usize::from(role.number()), index + 1);
            assert_eq!(role.gateway(), format!("chimera-head-{}", role.number()));
            assert_eq!(Role::parse(role.as_str()), Some(role));
            assert_eq!(
                serde_json::to_value(role).unwrap(),
                serde_json::json!(role.as_str())
            );
        }
        assert_eq!(Role::parse("other"), None);
    }
}
