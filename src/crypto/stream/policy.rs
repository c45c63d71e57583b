//! When a sender goes on to the next epoch.

use std::time::Duration;

/// How many packets an epoch carries at most, whatever the policy says. A receiver insists on it too.
pub const PACKETS_PER_EPOCH: u64 = 1 << 24;

/// When keys are to be replaced: whichever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RotationPolicy {
    /// How long an epoch lasts.
    pub interval: Duration,
    /// How many bytes of payload an epoch carries. A single packet that is longer is an epoch of its own.
    pub max_bytes: u64,
}

impl Default for RotationPolicy {
    /// Ten minutes, 100 MB.
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(600),
            max_bytes: 100_000_000,
        }
    }
}

/// What an epoch has carried.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Usage {
    pub(super) packets: u64,
    pub(super) bytes: u64,
}

impl RotationPolicy {
    /// Whether the next packet, with so many bytes of payload, belongs to a new epoch. An epoch without a packet never
    /// ends: each carries one at least.
    pub(super) fn is_due(&self, usage: Usage, age: Duration, payload: usize) -> bool {
        let bytes = usage.bytes.saturating_add(payload as u64);
        usage.packets > 0
            && (usage.packets >= PACKETS_PER_EPOCH || bytes > self.max_bytes || age >= self.interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_ends_by_age_bytes_or_packets_and_never_empty() {
        let policy = RotationPolicy {
            interval: Duration::from_secs(60),
            max_bytes: 1000,
        };
        let due = |packets, bytes, seconds, payload| {
            policy.is_due(Usage { packets, bytes }, Duration::from_secs(seconds), payload)
        };
        assert!(!due(1, 900, 59, 100));
        assert!(due(1, 900, 59, 101));
        assert!(due(1, 0, 60, 0));
        assert!(!due(PACKETS_PER_EPOCH - 1, 0, 0, 0));
        assert!(due(PACKETS_PER_EPOCH, 0, 0, 0));
        assert!(!due(0, 0, 1_000_000, 2000));
    }
}
