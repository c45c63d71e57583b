//! What one run may use: its part of what its pod may, so that all the runs of a pod together stay within the pod's limits.
//! A run that takes too much then ends alone, and neither the kernel nor the kubelet has a reason to end its neighbours.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

const MIB: u64 = 1 << 20;
/// One part in this many of a pod's limit is no run's: the agent, the interpreters that the runs are forked from, what a run
/// takes before it is seen.
const KEPT: u64 = 8;
/// The least that is kept of memory: an agent with the results that it holds, and an interpreter without modules.
const KEPT_MEMORY: u64 = 256 * MIB;
/// The least that is kept of storage: what the kubelet keeps of the agent's log.
const KEPT_STORAGE: u64 = 64 * MIB;
/// What a run may hold on disk when nothing limits its pod: the agent's own default.
const DEFAULT_DISK: u64 = 1 << 30;
/// More than any node has, and little enough to be added to.
const MOST: u64 = 1 << 60;

/// What one run may use, in MiB. None where the pod has no limit: then the agent's default holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RunShare {
    /// Memory beyond what the warm interpreter holds.
    pub memory_mib: Option<u64>,
    /// What it may hold on disk.
    pub disk_mib: Option<u64>,
}

/// The share of each of `runs` runs of a pod with these limits. It is 0 when nothing is left for them, which the agent
/// answers by taking none.
pub fn of(limits: &BTreeMap<String, Quantity>, runs: i32) -> RunShare {
    let share = |name, kept| {
        let limit = bytes(limits.get(name)?)?;
        let left = limit.saturating_sub(kept_of(limit, kept));
        Some(left / count(runs) / MIB)
    };
    RunShare {
        memory_mib: share("memory", KEPT_MEMORY),
        disk_mib: share("ephemeral-storage", KEPT_STORAGE),
    }
}

/// How large the volume of the runs' folders may become.
pub fn volume(limits: &BTreeMap<String, Quantity>, runs: i32) -> Quantity {
    let limit = limits.get("ephemeral-storage").cloned();
    limit.unwrap_or_else(|| Quantity(((count(runs) + 1) * DEFAULT_DISK).to_string()))
}

fn count(runs: i32) -> u64 {
    u64::try_from(runs).unwrap_or(0).max(1)
}

fn kept_of(limit: u64, least: u64) -> u64 {
    (limit / KEPT).max(least)
}

/// A quantity of bytes, as Kubernetes writes it: `4Gi`, `1.5G`, `2e9`, `512000m`.
fn bytes(quantity: &Quantity) -> Option<u64> {
    let text = quantity.0.as_str();
    let end = text
        .find(|one: char| !one.is_ascii_digit() && one != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let (times, parts) = unit_of(unit)?;
    let parts = 10_u128
        .checked_pow(u32::try_from(fraction.len()).ok()?)?
        .checked_mul(parts)?;
    let bytes = digits.saturating_mul(times) / parts;
    Some(u64::try_from(bytes).unwrap_or(u64::MAX).min(MOST))
}

/// What a unit multiplies by, and what it divides by.
fn unit_of(unit: &str) -> Option<(u128, u128)> {
    let power = |base: u128, exponent: u32| Some((base.saturating_pow(exponent), 1));
    match unit {
        "" => Some((1, 1)),
        "m" => Some((1, 1000)),
        "k" => power(1000, 1),
        "M" => power(1000, 2),
        "G" => power(1000, 3),
        "T" => power(1000, 4),
        "P" => power(1000, 5),
        "E" => power(1000, 6),
        "Ki" => power(1024, 1),
        "Mi" => power(1024, 2),
        "Gi" => power(1024, 3),
        "Ti" => power(1024, 4),
        "Pi" => power(1024, 5),
        "Ei" => power(1024, 6),
        _ => power(10, unit.strip_prefix(['e', 'E'])?.parse().ok()?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn limits(memory: &str, storage: &str) -> BTreeMap<String, Quantity> {
        [("memory", memory), ("ephemeral-storage", storage)]
            .into_iter()
            .filter(|(_, amount)| !amount.is_empty())
            .map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned())))
            .collect()
    }

    #[test]
    fn runs_share_what_the_agent_and_its_interpreters_leave() {
        for (memory, storage, runs, memory_mib, disk_mib) in [
            ("4Gi", "2Gi", 2, Some(1792), Some(896)),
            ("4Gi", "1Gi", 10, Some(358), Some(89)),
            ("64Gi", "1Ti", 2, Some(28_672), Some(458_752)),
            ("64Gi", "1Gi", 64, Some(896), Some(14)),
            ("512Mi", "128Mi", 1, Some(256), Some(64)),
            // Nothing is left.
            ("128Mi", "64Mi", 1, Some(0), Some(0)),
            ("0", "0", 1, Some(0), Some(0)),
            // No limit, no share.
            ("", "", 2, None, None),
            ("16E", "", 1, Some(917_504 << 20), None),
            (
                "99999999999999999999Ei",
                "1e99",
                1,
                Some(917_504 << 20),
                Some(917_504 << 20),
            ),
        ] {
            let expected = RunShare { memory_mib, disk_mib };
            assert_eq!(
                of(&limits(memory, storage), runs),
                expected,
                "{memory} {storage} {runs}"
            );
        }
    }

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1.5Gi", Some(3 << 29)),
            ("2.Ki", Some(2048)),
            ("12e6", Some(12_000_000)),
            ("1E3", Some(1000)),
            ("512000m", Some(512)),
            ("1E", Some(10_u64.pow(18))),
            ("2Ei", Some(MOST)),
            ("", None),
            ("Gi", None),
            ("1GB", None),
            ("1.2.3", None),
        ] {
            assert_eq!(bytes(&Quantity(text.to_owned())), expected, "{text}");
        }
    }

    #[test]
    fn the_volume_holds_what_all_runs_may_write() {
        assert_eq!(volume(&limits("", "3Gi"), 2).0, "3Gi");
        assert_eq!(bytes(&volume(&limits("", ""), 2)), Some(3 << 30));
    }

    proptest! {
        #[test]
        fn all_runs_together_stay_within_the_pods_limits(limit in 0..1_u64 << 50, runs in 1..=64_i32) {
            let text = limit.to_string();
            let share = of(&limits(&text, &text), runs);
            for mib in [share.memory_mib, share.disk_mib] {
                let together = mib.expect("there is a limit") * MIB * count(runs);
                prop_assert!(together <= limit - limit / KEPT);
            }
        }
    }
}
