//! Reconciles a ChimeraHead: observe, plan, apply.

use std::{net::IpAddr, sync::Arc, time::Duration};

use api::{
    ChimeraHead, Role,
    chimera_head::{HeadPod, Regeneration},
    names, reasons,
};
use controller_core::{
    head_plan::{Duty, Lost, NewPod, Observed, Plan, PodView, Removal, Return, plan},
    head_pod::{INCARNATION_LABEL, SLOT_LABEL, build_pod},
};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt as _, runtime::controller::Action};

use crate::{
    apply::{apply_status, create, delete, label},
    causes::with_causes,
    client::{CallError, call},
    clock,
    context::{Context, Scope},
    fleet::{Member, PodHealth},
    head_pod_state::{self as state, Condemnation},
    identity::ensure_identity,
    policies::apply_around_head,
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

/// Children are recognised by the owner's UID and their place, never by name alone.
fn owns(head: &ChimeraHead, pod: &Pod) -> bool {
    let uid = head.metadata.uid.as_deref();
    pod.metadata.namespace == head.metadata.namespace
        && pod.labels().contains_key(SLOT_LABEL)
        && pod
            .owner_references()
            .iter()
            .any(|owner| Some(owner.uid.as_str()) == uid)
}

fn view(scope: &Scope, pod: &Pod) -> PodView {
    let labels = pod.labels();
    let uid = pod.uid().unwrap_or_default();
    let PodHealth {
        ready,
        message,
        devices,
        running,
        agent,
        lost,
        sick_devices,
        healthy_devices,
        mends,
        suspect,
    } = scope.context.fleet.health(&uid).unwrap_or_default();
    let (sick_devices, healthy_devices) = state::devices(pod, sick_devices, healthy_devices);
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
        spare: state::is_labelled(pod, names::SPARE_LABEL),
        draining: state::is_labelled(pod, names::DRAINING_LABEL),
        template_hash: pod
            .annotations()
            .get(names::TEMPLATE_HASH_ANNOTATION)
            .cloned()
            .unwrap_or_default(),
        created: pod.metadata.creation_timestamp.as_ref().map(|time| time.0),
        deleting: pod.metadata.deletion_timestamp.is_some(),
        disruption: state::disruption(pod),
        failed: state::failure(pod),
        sick_devices,
        healthy_devices,
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        unschedulable_since: state::unschedulable_since(pod),
        kubelet_ready: state::is_ready(pod),
        ready,
        message: if message.is_empty() {
            state::waiting(pod).unwrap_or_default()
        } else {
            message
        },
        devices,
        running,
        agent,
        lost,
        mends,
        suspect,
    }
}

/// Writes in the order of the plan: policies around the pods, who takes over or goes on, new pods, who stops, status last.
/// Pods that a former plan was about to take out of service and this one keeps are given runs again before any write.
async fn apply_plan(scope: &Scope, head: &ChimeraHead, plan: Plan) -> Result<Action, CallError> {
    let Plan {
        keep,
        duties,
        restore,
        create: new,
        drain,
        remove,
        status,
        regenerations,
        recovered,
        unsettled,
    } = plan;
    let context = &scope.context;
    let restored = keep.iter().filter(|uid| context.fleet.restore(uid)).count();
    if restored > 0 {
        context
            .triggers
            .head(&head.namespace().unwrap_or_default(), &head.name_any());
    }
    let uid = head.uid().unwrap_or_default();
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), &head.namespace().unwrap_or_default());
    apply_around_head(scope, head).await?;
    for duty in &duties {
        apply_duty(scope, head, &pods, duty).await?;
    }
    for wanted in &restore {
        apply_return(head, &pods, wanted).await?;
    }
    let refused = create_pods(scope, head, &pods, &new).await?;
    for removal in &drain {
        apply_drain(scope, head, &pods, removal).await?;
    }
    for removal in &remove {
        tracing::info!(head = %head.name_any(), pod = removal.name, reason = removal.reason, "removing a pod");
        remove_pod(context, &pods, &removal.name, &removal.uid).await?;
        if removal.reason == reasons::DRAINED {
            let note = format!("pod {} had no more runs and was removed", removal.name);
            context.events.normal(head, reasons::DRAINED, note);
        }
    }
    if !(duties.is_empty() && restore.is_empty() && new.is_empty() && drain.is_empty() && remove.is_empty()) {
        scope.refused_pods.note(&uid, refused);
    }
    if head.status.as_ref() != Some(&status) {
        let version = head.metadata.resource_version.as_deref();
        match apply_status(&context.client, head, &status, version).await {
            // Changed or deleted meanwhile: that change brings it back here, and the same is found again.
            Err(error) if error.is_not_found() || error.is_conflict() => return Ok(Action::requeue(AGAIN)),
            other => other.map(|_| ())?,
        }
    }
    // Told when it is written: whoever looks next finds it in the status and does not tell it again.
    announce(scope, head, &regenerations, &recovered);
    let settled = status.ready_replicas >= head.spec.replicas && !unsettled;
    Ok(Action::requeue(if settled { RESYNC } else { AGAIN }))
}

async fn apply_duty(
    scope: &Scope,
    head: &ChimeraHead,
    pods: &Api<Pod>,
    duty: &Duty,
) -> Result<(), CallError> {
    let spare = duty.spare.to_string();
    match label(pods, &duty.name, &duty.uid, names::SPARE_LABEL, &spare).await {
        Err(error) if error.is_not_found() || error.is_conflict() => return Ok(()),
        other => other?,
    }
    if !duty.spare {
        let note = format!("pod {} serves now", duty.name);
        scope.context.events.normal(head, reasons::PROMOTED, note);
    }
    Ok(())
}

/// Takes a pod back that is still on its way out.
async fn apply_return(head: &ChimeraHead, pods: &Api<Pod>, wanted: &Return) -> Result<(), CallError> {
    tracing::info!(head = %head.name_any(), pod = wanted.name, "a pod that was drained is wanted again");
    match label(pods, &wanted.name, &wanted.uid, names::DRAINING_LABEL, "false").await {
        // It is gone meanwhile, which brings the head back here.
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        other => other,
    }
}

/// Takes a pod out of service, first here and then by its label, which is what later decisions go by.
async fn apply_drain(
    scope: &Scope,
    head: &ChimeraHead,
    pods: &Api<Pod>,
    removal: &Removal,
) -> Result<(), CallError> {
    let fleet = &scope.context.fleet;
    fleet.retire(&removal.uid);
    match label(pods, &removal.name, &removal.uid, names::DRAINING_LABEL, "true").await {
        Err(error) if error.is_not_found() || error.is_conflict() => return Ok(()),
        Err(error) => {
            fleet.restore(&removal.uid);
            return Err(error);
        }
        Ok(()) => {}
    }
    let note = format!("pod {} takes no new runs", removal.name);
    scope.context.events.normal(head, removal.reason, note);
    Ok(())
}

/// Deletes a pod, which is given no more runs from now on unless that fails.
pub async fn remove_pod(context: &Context, pods: &Api<Pod>, name: &str, uid: &str) -> Result<(), CallError> {
    context.fleet.retire(uid);
    let deleted = delete(pods, name, uid).await;
    match &deleted {
        Ok(()) => context.fleet.deleted(uid),
        Err(_) => {
            context.fleet.restore(uid);
        }
    }
    deleted
}

/// Makes pods; why the last one could not be made.
async fn create_pods(
    scope: &Scope,
    head: &ChimeraHead,
    pods: &Api<Pod>,
    new: &[NewPod],
) -> Result<Option<(&'static str, String)>, CallError> {
    let context = &scope.context;
    let mut refused = None;
    for place in new {
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
            refused = Some(refusal(pods, &pod.name_any(), head, &error).await);
            tracing::warn!(pod = %pod.name_any(), error = &error as &dyn std::error::Error, "a pod could not be made");
        }
    }
    Ok(refused)
}

/// Tells of losses and of what made them good: Events and metrics.
fn announce(scope: &Scope, head: &ChimeraHead, lost: &[Regeneration], recovered: &[Regeneration]) {
    let context = &scope.context;
    let role = head.spec.role.as_str();
    for row in lost {
        let labels = [role, row.reason.as_str()];
        context.metrics.regenerations.with_label_values(&labels).inc();
        let why = row
            .message
            .as_ref()
            .map_or_else(String::new, |message| format!(": {message}"));
        let by = row.replacement.as_deref().unwrap_or("nothing yet");
        let note = format!("pod {} was lost ({}{why}); replaced by {by}", row.pod, row.reason);
        tracing::warn!(head = %head.name_any(), note, "regenerating");
        context.events.warning(head, reasons::REGENERATED, note);
    }
    for row in recovered {
        let millis = u64::try_from(row.duration_millis.unwrap_or(0)).unwrap_or(0);
        let labels = [role, row.reason.as_str()];
        let seconds = Duration::from_millis(millis).as_secs_f64();
        context
            .metrics
            .regeneration_seconds
            .with_label_values(&labels)
            .observe(seconds);
    }
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
    let message = error.to_string();
    // Said by the API server's admission of RuntimeClasses, which gives no reason of its own.
    if message.contains("RuntimeClass") && message.contains("not found") {
        return (reasons::RUNTIME_CLASS_NOT_FOUND, message);
    }
    (reasons::PODS_REFUSED, message)
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
    let ended = state::failure(pod).is_some();
    match head.filter(|head| owns(head, pod)) {
        Some(head) if !deleted && !ended => {
            let condemnation = state::condemnation(pod);
            if let Some(member) = member(pod, &head) {
                let member = Member {
                    leaving: member.leaving || condemnation.is_some(),
                    ..member
                };
                context.fleet.join(member, &context.tls);
            }
            if let Some(Condemnation { cause, message }) = condemnation {
                let since = clock::now();
                context.fleet.condemn(
                    &uid,
                    &Lost {
                        cause,
                        message,
                        since,
                    },
                );
            }
        }
        _ => context.fleet.leave(&uid),
    }
    context.triggers.head(&namespace, head_name);
    show_head_status(&scope.context);
}

/// What is needed to dial a pod that has an address, and to place runs on it.
pub fn member(pod: &Pod, head: &ChimeraHead) -> Option<Member> {
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
        spare: state::is_labelled(pod, names::SPARE_LABEL),
        leaving: pod.metadata.deletion_timestamp.is_some() || state::is_labelled(pod, names::DRAINING_LABEL),
        expected: state::is_ready(pod) || has_served(head, pod),
        avoided: state::avoided(pod, head),
        heartbeat: Duration::from_millis(millis),
        failure_threshold: u32::try_from(head.spec.health.failure_threshold).unwrap_or(3),
        only_for: None,
    })
}

/// Whether the pod's agent was heard before, as the head's status remembers.
fn has_served(head: &ChimeraHead, pod: &Pod) -> bool {
    let status = head.status.as_ref();
    let known = status.and_then(|status| status.pods.iter().find(|known| known.uid == pod.metadata.uid));
    known.is_some_and(HeadPod::has_served)
}

/// Brings the metrics about heads in line with the fleet.
pub fn show_head_status(context: &Context) {
    let metrics = &context.metrics;
    let ready = context.fleet.ready_by_role();
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
