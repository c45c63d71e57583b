//! The operator's rights: every verb that the chart grants is used, and none that it lacks is asked for.
//!
//! The API server's audit log is the witness, so this needs the local cluster. The test itself makes the operator do
//! everything that it ever does; what other tests made it do counts as well.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the answer")]

use std::collections::BTreeSet;

use api::{ChimeraHead, MamlWorkflow};
use e2e::{Namespace, audit, cluster, documents, faults, heads, in_namespace, runs, samples, wait};
use k8s_openapi::api::{
    core::v1::ConfigMap,
    rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, Subject},
};
use kube::{
    Api, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;

/// Rights that are needed although the log never shows them: group, resource, verb, why.
const UNSEEN: &[(&str, &str, &str, &str)] = &[
    (
        "events.k8s.io",
        "events",
        "patch",
        "an Event that repeats within minutes becomes a series; no test waits for that",
    ),
    (
        "",
        "pods",
        "get",
        "read when the name of a new pod is taken, which takes a lost watch event",
    ),
    (
        "",
        "configmaps",
        "create",
        "the trust bundle gets a page of its own after 64 statements",
    ),
    (
        "",
        "configmaps",
        "patch",
        "the same page, made by server-side apply",
    ),
];

/// One right: group, resource with its subresource, verb, and the names and namespace that limit it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Right {
    group: String,
    resource: String,
    verb: String,
    name: Option<String>,
    namespace: Option<String>,
}

#[tokio::test]
async fn the_operator_may_do_what_it_does_and_nothing_else() {
    let Some(log) = audit::log() else {
        assert!(
            !cluster::is_local(),
            "CHIMERA_AUDIT_LOG is missing: run `make test`"
        );
        eprintln!("nothing to compare with: only the local cluster has an audit log");
        return;
    };
    in_namespace("rbac", async |space| {
        do_everything(space).await;
        // The log is written in batches; once this request is in it, so is all that came before.
        let marker = format!("{}-marker", space.name);
        space.api::<ConfigMap>().get_opt(&marker).await.unwrap();
        let requests = audit::requests_until(&log, cluster::OPERATOR_USER, &marker).await;
        assert!(
            !requests.is_empty(),
            "the log knows nothing of {}",
            cluster::OPERATOR_USER
        );

        let denied: BTreeSet<_> = requests
            .iter()
            .filter(|request| request.annotations.decision == "forbid")
            .map(|request| {
                let object = request.object_ref.clone().unwrap_or_default();
                format!(
                    "{} {}/{} {} {}: {}",
                    request.verb,
                    object.api_group,
                    object.resource,
                    object.subresource,
                    object.namespace,
                    request.annotations.reason
                )
            })
            .collect();
        assert!(denied.is_empty(), "denied to the operator: {denied:#?}");

        let granted = granted(space).await;
        assert!(
            granted
                .iter()
                .all(|right| ![&right.group, &right.resource, &right.verb]
                    .iter()
                    .any(|part| *part == "*")),
            "a wildcard"
        );
        let unused: Vec<_> = granted
            .iter()
            .filter(|right| !requests.iter().any(|request| uses(request, right)))
            .collect();
        for right in &unused {
            eprintln!("granted and not seen: {right:?}");
        }
        let unexplained: Vec<_> = unused
            .iter()
            .filter(|right| !UNSEEN.iter().any(|explained| is(right, explained)))
            .collect();
        assert!(
            unexplained.is_empty(),
            "granted, never used, not explained: {unexplained:#?}"
        );
    })
    .await;
}

fn is(right: &Right, (group, resource, verb, _): &(&str, &str, &str, &str)) -> bool {
    right.group == *group && right.resource == *resource && right.verb == *verb
}

/// Makes the operator use each of its rights.
async fn do_everything(space: &Namespace) {
    // Leads, reads its keys, creates what the chart asks for where it is missing.
    faults::fresh_operator(&space.client).await;
    // Pods created, promoted, deleted; identity and NetworkPolicy written.
    let mut head = heads::small("all");
    head.spec.spares = 1;
    heads::start(space, head).await;
    let pods = heads::pods(space, "all").await;
    let active = pods
        .iter()
        .find(|pod| pod.labels().get(api::names::SPARE_LABEL).map(String::as_str) == Some("false"));
    faults::delete_by_force(&space.client, active.unwrap()).await;
    wait::until(
        &space.api::<ChimeraHead>(),
        "all",
        "the lost pod was replaced",
        |head| {
            head.status
                .as_ref()
                .is_some_and(|status| status.regenerations > 0)
        },
    )
    .await;
    heads::ready(space, "all").await;
    let change = Patch::Merge(json!({"spec": {"spares": 0}}));
    space
        .api::<ChimeraHead>()
        .patch("all", &PatchParams::default(), &change)
        .await
        .unwrap();
    // One of the two is left; which one is the operator's choice.
    wait::until(&space.api::<ChimeraHead>(), "all", "the spare is gone", |head| {
        head.status.as_ref().is_some_and(|status| status.pods.len() == 1)
    })
    .await;
    // A document from a ConfigMap, a receipt, its audit, Events.
    space
        .create_object(&samples::object::<ConfigMap>("configmap", "ConfigMap"))
        .await;
    let done = runs::run(space, samples::object("configmap", "MamlWorkflow")).await;
    runs::assert_succeeded(space, &done).await;
    // Deleted when its time is over.
    let mut brief = runs::workflow("brief", documents::refused(""));
    brief.spec.ttl_seconds_after_finished = Some(0);
    space.create_object(&brief).await;
    wait::until_gone(&space.api::<MamlWorkflow>(), "brief").await;
    // A run that goes on under a new operator.
    space
        .create_object(&runs::workflow("rejoined", documents::lasting(3)))
        .await;
    runs::running(space, "rejoined").await;
    faults::fresh_operator(&space.client).await;
    let done = runs::complete(space, "rejoined").await;
    runs::assert_succeeded(space, &done).await;
}

/// Whether a request is a use of a right.
fn uses(request: &audit::Request, right: &Right) -> bool {
    let Some(object) = &request.object_ref else {
        return false;
    };
    let resource = if object.subresource.is_empty() {
        object.resource.clone()
    } else {
        format!("{}/{}", object.resource, object.subresource)
    };
    // Server-side apply of an object that does not exist is a patch that also takes the right to create.
    let verb = request.verb == right.verb
        || (right.verb == "create" && request.verb == "patch" && request.response_status.code == 201);
    verb && object.api_group == right.group
        && resource == right.resource
        && right.name.as_ref().is_none_or(|name| *name == object.name)
        && right
            .namespace
            .as_ref()
            .is_none_or(|namespace| *namespace == object.namespace)
}

/// Every right that a binding gives the operator.
async fn granted(space: &Namespace) -> BTreeSet<Right> {
    let client = &space.client;
    let all = ListParams::default();
    let mut rights = BTreeSet::new();
    for binding in Api::<ClusterRoleBinding>::all(client.clone())
        .list(&all)
        .await
        .unwrap()
    {
        if concerns(binding.subjects.as_deref()) {
            let role = Api::<ClusterRole>::all(client.clone())
                .get(&binding.role_ref.name)
                .await
                .unwrap();
            add(&mut rights, &role.rules.unwrap_or_default(), None);
        }
    }
    for binding in Api::<RoleBinding>::all(client.clone()).list(&all).await.unwrap() {
        if concerns(binding.subjects.as_deref()) {
            let namespace = binding.namespace().unwrap();
            let rules = if binding.role_ref.kind == "Role" {
                Api::<Role>::namespaced(client.clone(), &namespace)
                    .get(&binding.role_ref.name)
                    .await
                    .unwrap()
                    .rules
            } else {
                Api::<ClusterRole>::all(client.clone())
                    .get(&binding.role_ref.name)
                    .await
                    .unwrap()
                    .rules
            };
            add(&mut rights, &rules.unwrap_or_default(), Some(&namespace));
        }
    }
    assert!(!rights.is_empty(), "no binding names the operator");
    rights
}

fn concerns(subjects: Option<&[Subject]>) -> bool {
    subjects.unwrap_or_default().iter().any(|subject| {
        subject.kind == "ServiceAccount"
            && subject.name == cluster::OPERATOR
            && subject.namespace.as_deref() == Some(cluster::OPERATOR_NAMESPACE)
    })
}

fn add(rights: &mut BTreeSet<Right>, rules: &[PolicyRule], namespace: Option<&str>) {
    for rule in rules {
        let names: Vec<Option<String>> = match rule.resource_names.as_deref() {
            None | Some([]) => vec![None],
            Some(names) => names.iter().cloned().map(Some).collect(),
        };
        for group in rule.api_groups.iter().flatten() {
            for resource in rule.resources.iter().flatten() {
                for verb in &rule.verbs {
                    for name in &names {
                        rights.insert(Right {
                            group: group.clone(),
                            resource: resource.clone(),
                            verb: verb.clone(),
                            name: name.clone(),
                            namespace: namespace.map(ToOwned::to_owned),
                        });
                    }
                }
            }
        }
    }
}

/// Explanations are for rights that exist: a stale one is an error of this file.
#[tokio::test]
async fn every_explanation_is_of_a_right_that_is_granted() {
    let space = Namespace {
        name: cluster::OPERATOR_NAMESPACE.to_owned(),
        client: cluster::client().await,
    };
    let granted = granted(&space).await;
    for explained in UNSEEN {
        assert!(granted.iter().any(|right| is(right, explained)), "{explained:?}");
    }
}
