//! Deletions that a watch missed while it was down: what this process still keeps of objects that are gone is let go.

use std::{collections::HashSet, hash::Hash, sync::Arc, time::Duration};

use kube::ResourceExt as _;

use super::stop_run;
use crate::{
    context::{Context, Scope},
    head,
};

const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// Sweeps now and then, over all scopes: an object is gone when none of them has it.
pub async fn sweep(context: Arc<Context>, scopes: Vec<Arc<Scope>>) {
    // The claims of a predecessor are known before any workflow is.
    for scope in &scopes {
        if scope.workflows.wait_until_ready().await.is_err() {
            return;
        }
    }
    let mut ticks = tokio::time::interval(SWEEP_EVERY);
    loop {
        ticks.tick().await;
        sweep_once(&context, &scopes);
    }
}

/// Stops runs whose workflow is gone, and forgets pods and heads that are.
fn sweep_once(context: &Context, scopes: &[Arc<Scope>]) {
    let fleet = &context.fleet;
    let workflows = context.runs.workflows().into_iter();
    let workflows = workflows.chain(context.claims.workflows());
    for uid in gone(workflows.chain(fleet.room().workflows()), || {
        let seen = scopes.iter().flat_map(|scope| scope.workflows.state());
        seen.filter_map(|workflow| workflow.uid()).collect()
    }) {
        stop_run(context, &uid);
    }
    for uid in gone(fleet.pods(), || {
        let seen = scopes.iter().flat_map(|scope| scope.pods.state());
        seen.filter_map(|pod| pod.uid()).collect()
    }) {
        fleet.leave(&uid);
    }
    for (namespace, name) in gone(fleet.heads(), || {
        let seen = scopes.iter().flat_map(|scope| scope.heads.state());
        seen.map(|head| (head.namespace().unwrap_or_default(), head.name_any()))
            .collect()
    }) {
        fleet.forget(&namespace, &name);
    }
    head::show_head_status(context);
}

/// What is known and not seen. It is seen before it is known, so what is seen is asked for last: nothing new is missed in it.
fn gone<T: Eq + Hash>(known: impl IntoIterator<Item = T>, seen: impl FnOnce() -> HashSet<T>) -> Vec<T> {
    let known: Vec<_> = known.into_iter().collect();
    let seen = seen();
    known.into_iter().filter(|one| !seen.contains(one)).collect()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use api::{ChimeraHead, MamlWorkflow, MamlWorkflowStatus, names};
    use controller_core::head_pod::SLOT_LABEL;
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;
    use crate::{
        recorded_server::Server,
        test_context::{self, filled},
    };

    fn head(namespace: &str) -> ChimeraHead {
        let head = json!({
            "apiVersion": "chimera.dunes.io/v1alpha1", "kind": "ChimeraHead",
            "metadata": {"name": "h", "namespace": namespace, "uid": format!("head-{namespace}")},
            "spec": {"role": "quantum"},
        });
        serde_json::from_value(head).expect("a head")
    }

    fn pod(namespace: &str) -> Pod {
        let pod = json!({
            "metadata": {
                "name": "h-0", "namespace": namespace, "uid": format!("pod-{namespace}"),
                "labels": {names::HEAD_LABEL: "h", SLOT_LABEL: "0"},
                "ownerReferences": [{
                    "apiVersion": "chimera.dunes.io/v1alpha1", "kind": "ChimeraHead",
                    "name": "h", "uid": format!("head-{namespace}"),
                }],
            },
            "status": {"podIP": "127.0.0.1"},
        });
        serde_json::from_value(pod).expect("a pod")
    }

    fn workflow(namespace: &str) -> MamlWorkflow {
        let workflow = json!({
            "apiVersion": "chimera.dunes.io/v1alpha1", "kind": "MamlWorkflow",
            "metadata": {"name": "w", "namespace": namespace, "uid": format!("workflow-{namespace}")},
            "spec": {"source": {"inline": ""}},
        });
        serde_json::from_value(workflow).expect("a workflow")
    }

    /// A namespace with a head, its pod and a workflow that has run, all of which this process knows.
    fn scope(context: &Arc<Context>, namespace: &str) -> Scope {
        let (heads, pods) = (vec![head(namespace)], vec![pod(namespace)]);
        let scope = test_context::scope_of(Arc::clone(context), heads, pods);
        head::follow_pod(&scope, &pod(namespace), false);
        let uid = format!("workflow-{namespace}");
        context
            .runs
            .concluded(&uid, "receipt", MamlWorkflowStatus::default());
        Scope {
            workflows: filled(vec![workflow(namespace)]),
            ..Arc::into_inner(scope).expect("nobody else has it")
        }
    }

    #[tokio::test]
    async fn what_any_scope_has_stays_and_the_rest_is_let_go() {
        let context = test_context::context(&Arc::new(Server::default()).client());
        let scopes = ["a", "b"].map(|namespace| Arc::new(scope(&context, namespace)));
        drop(scope(&context, "missed"));

        sweep_once(&context, &scopes);

        let sorted = |mut names: Vec<String>| {
            names.sort();
            names
        };
        assert_eq!(sorted(context.runs.workflows()), ["workflow-a", "workflow-b"]);
        assert_eq!(sorted(context.fleet.pods()), ["pod-a", "pod-b"]);
        let heads = ["a", "b"].map(|namespace| (namespace.to_owned(), "h".to_owned()));
        assert_eq!(context.fleet.heads(), heads);
    }

    #[test]
    fn what_appears_meanwhile_is_not_taken_for_gone() {
        let known = RefCell::new(vec!["old"]);
        let ask = std::iter::once(()).flat_map(|()| known.borrow().clone());
        let gone = gone(ask, || {
            known.borrow_mut().push("new");
            HashSet::new()
        });
        assert_eq!(gone, ["old"]);
    }
}
