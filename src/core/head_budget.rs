//! The PodDisruptionBudget of a ChimeraHead: how many of its pods may be evicted at once.

use api::{ChimeraHead, names};
use k8s_openapi::{
    api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec},
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, LabelSelectorRequirement, ObjectMeta},
        util::intstr::IntOrString,
    },
};

use crate::head_pod::{SLOT_LABEL, owner, selector_labels};

/// Builds the budget: all but one of the replicas remain. The only pod of a head may be evicted, or its node could never be
/// drained; spares count as pods that remain, since they serve at once. A pod that is not ready may always be evicted.
pub fn build_disruption_budget(head: &ChimeraHead) -> PodDisruptionBudget {
    let name = head.metadata.name.clone().unwrap_or_default();
    PodDisruptionBudget {
        metadata: ObjectMeta {
            name: Some(names::head_disruption_budget(&name)),
            namespace: head.metadata.namespace.clone(),
            labels: Some(selector_labels(&name)),
            owner_references: owner(head),
            ..ObjectMeta::default()
        },
        spec: Some(PodDisruptionBudgetSpec {
            min_available: Some(IntOrString::Int((head.spec.replicas - 1).max(0))),
            selector: Some(LabelSelector {
                match_labels: Some(selector_labels(&name)),
                // Pods of single runs, which are no places of the head, are none of its business.
                match_expressions: Some(vec![LabelSelectorRequirement {
                    key: SLOT_LABEL.to_owned(),
                    operator: "Exists".to_owned(),
                    values: None,
                }]),
            }),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_but_one_replica_remain_and_a_single_one_may_go() {
        for (replicas, remain) in [(0, 0), (1, 0), (2, 1), (5, 4)] {
            let spec = serde_json::json!({"role": "quantum", "replicas": replicas, "spares": 2});
            let head = ChimeraHead::new("q", serde_json::from_value(spec).expect("a spec"));
            let budget = build_disruption_budget(&head).spec.expect("a spec");
            assert_eq!(budget.min_available, Some(IntOrString::Int(remain)), "{replicas}");
        }
    }
}
