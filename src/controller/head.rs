//! Reconciles a ChimeraHead: observe, plan, apply.

use std::{net::IpAddr, sync::Arc, time::Duration};

use api::{ChimeraHead, Role, names, reasons};
use controller_core::{
    head_plan::{Observed, Plan, PodView, plan},
    head_pod::{INCARNATION_LABEL, SLOT_LABEL, build_network_policy, build_pod},
};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt as _, runtime::controller::Action};

use crate::{
    apply::{apply, apply_status, create, delete, label},
    causes::with_causes,
    client::{CallError, call},
    clock,
    context::Scope,
    fleet::Member,
    identity::ensure_identity,
};

/// When a head is looked at again although nothing happened.
const RESYNC: Duration = Duration::from_secs(120);
/// When a head that is not as it should be is looked at again.
const AGAIN: Duration = Duration::from_secs(5);

/// Brings one head a step further.
pub async fn reconcile(head: Arc<ChimeraHead>, scope: Arc<Scope>) -> Result<Action, CallError> {
    if head.metadata.deletion_timestamp.is_some() {
        return Ok(Action::await_change());
    }
    let identity = observe_identity(&scope, &head).await;
    let pods = observe_pods(&scope, &head);
    let plan = plan(&Observed {
        head: &head,
        template: &scope.context.template,
        identity,
        refused: scope.refused_pods.recall(&head.uid().unwrap_or_default()),
        pods,
        now: clock::now(),
    });
    match apply_plan(&scope, &head, plan).await {
        // The head goes with its namespace; there is nothing left to bring about.
        Err(error) if error.is_terminating() => Ok(Action::await_change()),
        applied => applied,
    }
}

async fn observe_identity(scope: &Scope, head: &ChimeraHead) -> Result<(), String> {
    let namespace = head.namespace().unwrap_or_default();
    let ready = head.status.as_ref().map_or(0, |status| status.ready_replicas);
    let settled = head.status.is_some() && ready >= head.spec.replicas;
    ensure_identity(&scope.context, &namespace, settled)
        .await
        .map_err(|error| with_causes(&error))
}

fn observe_pods(scope: &Scope, head: &ChimeraHead) -> Vec<PodView> {
    let pods = scope.pods.state();
    let mut views: Vec<_> = pods
        .iter()
        .filter(|pod| owns(head, pod))
        .map(|pod| view(scope, pod))
        .collect();
    views.sort_by_key(|view| (view.slot, view.incarnation));
    views
}

/// Children are recognised by the owner's UID, never by name alone.
fn owns(head: &ChimeraHead, pod: &Pod) -> bool {
    let uid = head.metadata.uid.as_deref();
    pod.metadata.namespace == head.metadata.namespace
        && pod
            .owner_references()
            .iter()
            .any(|owner| Some(owner.uid.as_str()) == uid)
}

fn view(scope: &Scope, pod: &Pod) -> PodView {
    let labels = pod.labels();
    let uid = pod.uid().unwrap_or_default();
    let health = scope.context.fleet.health(&uid).unwrap_or_default();
    let status = pod.status.as_ref();
    let phase = status
        .and_then(|status| status.phase.as_deref())
        .unwrap_or_default();
    let ended = matches!(phase, "Failed" | "Succeeded").then(|| {
        let told = status.and_then(|status| status.reason.clone().or_else(|| status.message.clone()));
        told.unwrap_or_else(|| format!("the pod ended: {phase}"))
    });
    PodView {
        name: pod.name_any(),
        uid,
        slot: labels
            .get(SLOT_LABEL)
            .and_then(|slot| slot.parse().ok())
            .unwrap_or(i32::MAX),
        incarnation: labels
            .get(INCARNATION_LABEL)
            .and_then(|count| count.parse().ok())
            .unwrap_or(0),
        spare: labels
            .get(names::SPARE_LABEL)
            .is_some_and(|spare| spare == "true"),
        template_hash: pod
            .annotations()
            .get(names::TEMPLATE_HASH_ANNOTATION)
            .cloned()
            .unwrap_or_default(),
        deleting: pod.metadata.deletion_timestamp.is_some(),
        failed: ended,
        unhealthy_device: unhealthy_device(pod),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        ready: health.ready,
        message: if health.message.is_empty() {
            waiting(pod).unwrap_or_default()
        } else {
            health.message
        },
        devices: health.devices,
        running: health.running,
    }
}

/// A device of the pod that the kubelet reports as unhealthy (KEP-4680).
pub fn unhealthy_device(pod: &Pod) -> Option<String> {
    let containers = pod.status.as_ref()?.container_statuses.as_ref()?;
    let statuses = containers
        .iter()
        .filter_map(|container| container.allocated_resources_status.as_ref())
        .flatten();
    let devices = statuses.filter_map(|status| status.resources.as_ref()).flatten();
    let mut sick = devices.filter(|device| device.health.as_deref() == Some("Unhealthy"));
    sick.next().map(|device| device.resource_id.clone())
}

/// Why the pod does not run yet.
pub fn waiting(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let container = status.container_statuses.iter().flatten().find_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        let reason = waiting.reason.clone().unwrap_or_default();
        Some(
            waiting
                .message
                .as_ref()
                .map_or(reason.clone(), |message| format!("{reason}: {message}")),
        )
    });
    container.or_else(|| {
        let conditions = status.conditions.iter().flatten();
        let mut unscheduled =
            conditions.filter(|condition| condition.type_ == "PodScheduled" && condition.status != "True");
        unscheduled.find_map(|condition| condition.message.clone())
    })
}

/// Writes in this order: policy around the pods, removals, duties, new pods, status last.
async fn apply_plan(scope: &Scope, head: &ChimeraHead, plan: Plan) -> Result<Action, CallError> {
    let Plan {
        remove,
        duties,
        create: new,
        status,
        regenerations,
    } = plan;
    let context = &scope.context;
    let uid = head.uid().unwrap_or_default();
    apply_network_policy(scope, head, &uid).await?;
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), &head.namespace().unwrap_or_default());
    for removal in &remove {
        tracing::info!(head = %head.name_any(), pod = removal.name, reason = removal.reason, "removing a pod");
        context.fleet.retire(&removal.uid);
        delete(&pods, &removal.name, &removal.uid).await?;
    }
    for duty in &duties {
        match label(
            &pods,
            &duty.name,
            &duty.uid,
            names::SPARE_LABEL,
            &duty.spare.to_string(),
        )
        .await
        {
            Err(error) if error.is_not_found() || error.is_conflict() => continue,
            other => other?,
        }
        if !duty.spare {
            context
                .events
                .normal(head, reasons::PROMOTED, format!("pod {} serves now", duty.name));
        }
    }
    let mut refused = None;
    for place in &new {
        let pod = build_pod(
            head,
            &context.template,
            place.slot,
            place.incarnation,
            place.spare,
        );
        if let Err(error) = create(&context.client, &pod).await {
            if error.is_terminating() {
                return Err(error);
            }
            refused = Some(refusal(&pods, &pod.name_any(), head, &error).await);
            tracing::warn!(pod = %pod.name_any(), error = &error as &dyn std::error::Error, "a pod could not be made");
        }
    }
    let changed = !remove.is_empty() || !duties.is_empty() || !new.is_empty();
    if changed {
        scope.refused_pods.note(&uid, refused);
    }
    for regeneration in &regenerations {
        let role = head.spec.role.as_str();
        context
            .metrics
            .regenerations
            .with_label_values(&[role, &regeneration.reason])
            .inc();
        let by = regeneration.replacement.as_deref().unwrap_or("nothing yet");
        let note = format!(
            "pod {} was lost ({}); replaced by {by}",
            regeneration.pod, regeneration.reason
        );
        context.events.warning(head, reasons::REGENERATED, note);
    }
    if head.status.as_ref() != Some(&status) {
        match apply_status(
            &context.client,
            head,
            &status,
            head.metadata.resource_version.as_deref(),
        )
        .await
        {
            Err(error) if error.is_not_found() || error.is_conflict() => return Ok(Action::requeue(AGAIN)),
            other => other.map(|_| ())?,
        }
    }
    let settled = status.ready_replicas >= head.spec.replicas;
    Ok(Action::requeue(if settled { RESYNC } else { AGAIN }))
}

async fn apply_network_policy(scope: &Scope, head: &ChimeraHead, uid: &str) -> Result<(), CallError> {
    if scope.network_policies.recall(uid) == head.metadata.generation {
        return Ok(());
    }
    apply(
        &scope.context.client,
        &build_network_policy(head, &scope.context.template),
    )
    .await?;
    scope.network_policies.note(uid, head.metadata.generation);
    Ok(())
}

/// Why a pod could not be made, as the head's condition says it.
async fn refusal(
    pods: &Api<Pod>,
    name: &str,
    head: &ChimeraHead,
    error: &CallError,
) -> (&'static str, String) {
    if error.is_conflict()
        && let Ok(Some(other)) = call("read a pod", pods.get_opt(name)).await
        && !owns(head, &other)
    {
        let message = format!("pod {name} exists and belongs to something else; delete or rename it");
        return (reasons::NAME_TAKEN, message);
    }
    (reasons::PODS_REFUSED, error.to_string())
}

/// Keeps the fleet in step with a pod: joined while it runs, left when it is gone.
pub fn follow_pod(scope: &Scope, pod: &Pod, deleted: bool) {
    let context = &scope.context;
    let uid = pod.uid().unwrap_or_default();
    let Some(head_name) = pod.labels().get(names::HEAD_LABEL) else {
        return;
    };
    let namespace = pod.namespace().unwrap_or_default();
    let head = scope
        .heads
        .get(&kube::runtime::reflector::ObjectRef::new(head_name).within(&namespace));
    let ended = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        .is_some_and(|phase| matches!(phase, "Failed" | "Succeeded"));
    match head.filter(|head| owns(head, pod)) {
        Some(head) if !deleted && !ended => {
            if let Some(member) = member(pod, &head) {
                context.fleet.join(member, &context.tls);
            }
        }
        _ => context.fleet.leave(&uid),
    }
    context.triggers.head(&namespace, head_name);
    show_head_status(scope);
}

fn member(pod: &Pod, head: &ChimeraHead) -> Option<Member> {
    let address: IpAddr = pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?;
    let millis = u64::try_from(head.spec.health.heartbeat_millis).unwrap_or(500);
    Some(Member {
        pod_uid: pod.uid()?,
        pod: pod.name_any(),
        namespace: pod.namespace()?,
        address,
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        head: head.name_any(),
        labels: head.metadata.labels.clone().unwrap_or_default(),
        role: head.spec.role,
        spare: pod
            .labels()
            .get(names::SPARE_LABEL)
            .is_some_and(|spare| spare == "true"),
        leaving: pod.metadata.deletion_timestamp.is_some() || unhealthy_device(pod).is_some(),
        heartbeat: Duration::from_millis(millis),
        failure_threshold: u32::try_from(head.spec.health.failure_threshold).unwrap_or(3),
        only_for: None,
    })
}

/// Brings the metrics about heads in line with the fleet.
pub fn show_head_status(scope: &Scope) {
    let metrics = &scope.context.metrics;
    let ready = scope.context.fleet.ready_by_role();
    for role in Role::ALL {
        for (spare, duty) in [(false, "active"), (true, "spare")] {
            let count = ready.get(&(role, spare)).copied().unwrap_or(0);
            metrics
                .heads_ready
                .with_label_values(&[role.as_str(), duty])
                .set(count);
        }
        let active = ready.contains_key(&(role, false));
        let head = format!("head{}", role.number());
        metrics
            .head_status
            .with_label_values(&[head.as_str()])
            .set(f64::from(u8::from(active)));
    }
}
