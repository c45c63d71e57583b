//! The policies around a head's pods. They are applied when the head has changed, and again after a while: nobody tells when
//! one of them was deleted or changed by somebody else.

use std::time::Duration;

use api::{ChimeraHead, names};
use controller_core::{
    head_budget::build_disruption_budget, head_pod::build_network_policy, queue::waited,
    run_pod::build_run_network_policy,
};
use jiff::Timestamp;
use kube::ResourceExt as _;

use crate::{apply::apply, client::CallError, context::Scope};

/// How long it is taken for granted that a policy is as it was applied.
pub const GOOD_FOR: Duration = Duration::from_secs(120);

/// What was applied.
#[derive(Debug, Clone, Copy)]
pub struct Applied {
    generation: Option<i64>,
    at: Timestamp,
}

/// Applies what is around the pods of a head: its own, and those that are made after it for one run.
pub async fn apply_around_head(scope: &Scope, head: &ChimeraHead) -> Result<(), CallError> {
    let uid = head.uid().unwrap_or_default();
    let Some(applied) = due(scope, head, scope.head_policies.recall(&uid)) else {
        return Ok(());
    };
    let client = &scope.context.client;
    apply(client, &build_network_policy(head, &scope.context.template)).await?;
    apply(client, &build_disruption_budget(head)).await?;
    if has_run_pods(scope, head) {
        apply_around_runs(scope, head).await?;
    }
    scope.head_policies.note(&uid, Some(applied));
    Ok(())
}

/// Applies what is around the pods that are made after a head for one run each.
pub async fn apply_around_runs(scope: &Scope, head: &ChimeraHead) -> Result<(), CallError> {
    let uid = head.uid().unwrap_or_default();
    let Some(applied) = due(scope, head, scope.run_network_policies.recall(&uid)) else {
        return Ok(());
    };
    let policy = build_run_network_policy(head, &scope.context.template);
    apply(&scope.context.client, &policy).await?;
    scope.run_network_policies.note(&uid, Some(applied));
    Ok(())
}

/// What is to be noted when it is applied now; nothing when that need not be.
fn due(scope: &Scope, head: &ChimeraHead, before: Option<Applied>) -> Option<Applied> {
    let now = Applied {
        generation: head.metadata.generation,
        at: scope.context.clock.steady(),
    };
    let holds = before
        .is_some_and(|before| before.generation == now.generation && waited(before.at, now.at) < GOOD_FOR);
    (!holds).then_some(now)
}

fn has_run_pods(scope: &Scope, head: &ChimeraHead) -> bool {
    let (name, namespace) = (head.name_any(), head.namespace());
    let made_after = |pod: &k8s_openapi::api::core::v1::Pod| {
        pod.namespace() == namespace && pod.labels().get(names::RUN_OF_LABEL) == Some(&name)
    };
    scope.pods.find(made_after).is_some()
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    };

    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;
    use crate::{
        clock::Clock,
        recorded_server::Server,
        test_context::{process, scope_of},
    };

    const NETWORK: &str = "/apis/networking.k8s.io/v1/namespaces/team/networkpolicies/";
    const BUDGET: &str = "/apis/policy/v1/namespaces/team/poddisruptionbudgets/";

    fn head() -> ChimeraHead {
        let head = json!({
            "apiVersion": "chimera.dunes.io/v1alpha1", "kind": "ChimeraHead",
            "metadata": {"name": "q", "namespace": "team", "uid": "u"}, "spec": {"role": "quantum"},
        });
        serde_json::from_value(head).expect("a head")
    }

    /// A pod that is made after the head for one run.
    fn run_pod() -> Pod {
        let pod = json!({"metadata": {"name": "chimera-run-1", "namespace": "team", "labels": {names::RUN_OF_LABEL: "q"}}});
        serde_json::from_value(pod).expect("a pod")
    }

    /// What is written around a head of this generation, at each of these seconds.
    async fn writes(pods: Vec<Pod>, looks: &[(i64, i64)]) -> Vec<Vec<String>> {
        let server = Arc::new(Server::default());
        let second = Arc::new(AtomicI64::new(0));
        let seen = Arc::clone(&second);
        let read = move || Timestamp::from_second(seen.load(Ordering::SeqCst)).expect("in range");
        let clock = Clock::reading(crate::clock::now, read);
        let scope = scope_of(process(&server.client(), 7, None, clock), Vec::new(), pods);
        let mut written = Vec::new();
        for &(at, generation) in looks {
            second.store(at, Ordering::SeqCst);
            let mut head = head();
            head.metadata.generation = Some(generation);
            apply_around_head(&scope, &head).await.expect("applied");
            written.push(server.writes());
        }
        written
    }

    fn kinds(writes: &[String]) -> (usize, usize) {
        let of = |path: &str| writes.iter().filter(|write| write.contains(path)).count();
        assert_eq!(of(NETWORK) + of(BUDGET), writes.len(), "{writes:?}");
        (of(NETWORK), of(BUDGET))
    }

    #[tokio::test]
    async fn policies_that_were_deleted_are_applied_again_within_minutes_and_not_before() {
        let good_for = i64::try_from(GOOD_FOR.as_secs()).expect("small");
        let looks = [
            (0, 1),
            (1, 1),
            (good_for - 1, 1),
            (good_for, 1),
            (good_for + 1, 1),
        ];
        let written = writes(Vec::new(), &looks).await;
        let counts: Vec<_> = written.iter().map(|writes| kinds(writes)).collect();
        assert_eq!(counts, [(1, 1), (0, 0), (0, 0), (1, 1), (0, 0)]);
    }

    #[tokio::test]
    async fn a_change_of_the_head_is_applied_at_once() {
        let written = writes(Vec::new(), &[(0, 1), (1, 2), (2, 2)]).await;
        let counts: Vec<_> = written.iter().map(|writes| kinds(writes)).collect();
        assert_eq!(counts, [(1, 1), (1, 1), (0, 0)]);
    }

    #[tokio::test]
    async fn the_policy_around_the_pods_of_single_runs_is_kept_while_there_are_any() {
        let good_for = i64::try_from(GOOD_FOR.as_secs()).expect("small");
        let written = writes(vec![run_pod()], &[(0, 1), (1, 1), (good_for, 1)]).await;
        let counts: Vec<_> = written.iter().map(|writes| kinds(writes)).collect();
        assert_eq!(counts, [(2, 1), (0, 0), (2, 1)]);
    }
}
