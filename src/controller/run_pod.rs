//! The pods that are made for one run alone: followed, prepared, removed. Every step can be the last before a crash: what a
//! pod is for stands in its labels, and whether it still is follows from the workflow.

use api::{ChimeraHead, MamlWorkflow, names, reasons};
use controller_core::{
    demand::Demand,
    no_place::NoPlace,
    run_pod::{RunPod, build_run_pod, run_pod_name, superfluous},
    workflow_status::Wait,
};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt as _, runtime::reflector::ObjectRef};

use crate::{
    apply::{create, delete},
    client::{CallError, call},
    context::Scope,
    fleet::{Member, OnlyFor, OwnPod, Reservation},
    head,
    head_pod_state::{self, failure, waiting},
    policies::apply_around_runs,
    waiting_room::Candidacy,
};

/// Whether a pod is made for one run.
pub fn is_run_pod(pod: &Pod) -> bool {
    pod.labels().contains_key(names::RUN_LABEL)
}

/// Keeps the fleet in step with such a pod, and has its workflow looked at.
pub fn follow(scope: &Scope, pod: &Pod, deleted: bool) {
    let context = &scope.context;
    let Some(workflow) = workflow_of(pod) else {
        return;
    };
    if deleted || failure(pod).is_some() {
        context.fleet.leave(&pod.uid().unwrap_or_default());
    } else if let Some(member) = template_of(scope, pod).and_then(|head| member(pod, &head, &workflow)) {
        context.fleet.join(member, &context.tls);
    }
    context.triggers.workflow(&workflow);
}

fn workflow_of(pod: &Pod) -> Option<ObjectRef<MamlWorkflow>> {
    let owner = pod
        .owner_references()
        .iter()
        .find(|owner| owner.kind == "MamlWorkflow")?;
    Some(ObjectRef::new(&owner.name).within(&pod.namespace()?))
}

fn template_of(scope: &Scope, pod: &Pod) -> Option<std::sync::Arc<ChimeraHead>> {
    let name = pod.labels().get(names::RUN_OF_LABEL)?;
    scope.heads.get(&ObjectRef::new(name).within(&pod.namespace()?))
}

/// Such a pod is dialled as the head's own are. It has one run, so a failed device ends its use.
fn member(pod: &Pod, head: &ChimeraHead, workflow: &ObjectRef<MamlWorkflow>) -> Option<Member> {
    let member = head::member(pod, head)?;
    Some(Member {
        leaving: member.leaving || head_pod_state::condemnation(pod).is_some(),
        only_for: Some(OnlyFor {
            run_id: pod.labels().get(names::RUN_LABEL)?.clone(),
            workflow: workflow.clone(),
        }),
        ..member
    })
}

/// The pods that were made for runs of a workflow: by its UID, never by name alone.
pub fn observe(scope: &Scope, workflow: &MamlWorkflow) -> Vec<RunPod> {
    let of_workflow = |pod: &Pod| {
        is_run_pod(pod) && pod.metadata.namespace == workflow.metadata.namespace && owns(workflow, pod)
    };
    let pods = scope.pods.state_filter(of_workflow);
    let views = pods.iter().map(|pod| RunPod {
        name: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
        run_id: pod.labels().get(names::RUN_LABEL).cloned().unwrap_or_default(),
        deleting: pod.metadata.deletion_timestamp.is_some(),
        failed: failure(pod),
    });
    views.collect()
}

/// Removes pods that serve no purpose any more.
pub async fn remove_superfluous(
    scope: &Scope,
    workflow: &MamlWorkflow,
    pods: &[RunPod],
    wanted: Option<&str>,
) -> Result<(), CallError> {
    let api: Api<Pod> = Api::namespaced(
        scope.context.client.clone(),
        &workflow.namespace().unwrap_or_default(),
    );
    for pod in superfluous(pods, wanted) {
        tracing::info!(workflow = %workflow.name_any(), pod = pod.name, "removing the pod of a run that is over");
        head::remove_pod(&scope.context, &api, &pod.name, &pod.uid).await?;
    }
    Ok(())
}

/// Where the run's own pod stands.
pub enum Prepared {
    /// Its agent takes the run.
    Ready(Box<Reservation>),
    /// Not yet.
    Waits(Wait),
    /// There is no head to make it from.
    Nowhere(NoPlace),
}

/// Brings the pod for a run a step further.
pub async fn prepare(
    scope: &Scope,
    workflow: &MamlWorkflow,
    run: &Candidacy,
    demand: &Demand,
) -> Result<Prepared, CallError> {
    let context = &scope.context;
    let namespace = workflow.namespace().unwrap_or_default();
    let name = run_pod_name(&run.run_id);
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), &namespace);
    match context.fleet.reserve_own(run, demand) {
        OwnPod::Ready(reservation) => return Ok(Prepared::Ready(reservation)),
        OwnPod::NotReady(message) => return Ok(waits(&name, &message)),
        OwnPod::Unsuitable(uid) => {
            // What it lacks is known of its head from now on.
            delete(&pods, &name, &uid).await?;
        }
        OwnPod::Unknown => {}
    }
    if let Some(pod) = scope.pods.get(&ObjectRef::new(&name).within(&namespace)) {
        let message = if pod.metadata.deletion_timestamp.is_some() {
            "the former one of that name is being deleted".to_owned()
        } else {
            waiting(&pod).unwrap_or_else(|| "it is starting".to_owned())
        };
        return Ok(if owns(workflow, &pod) {
            waits(&name, &message)
        } else {
            taken(&name)
        });
    }
    let head = match context.fleet.template_for(demand) {
        Ok(head) => head,
        Err(none) => return Ok(Prepared::Nowhere(none)),
    };
    let Some(head) = scope.heads.get(&ObjectRef::new(&head).within(&namespace)) else {
        return Ok(waits(&name, "its ChimeraHead is just gone"));
    };
    make(scope, workflow, &head, &run.run_id, &pods).await
}

/// Makes the pod: the policy around it first.
async fn make(
    scope: &Scope,
    workflow: &MamlWorkflow,
    head: &ChimeraHead,
    run_id: &str,
    pods: &Api<Pod>,
) -> Result<Prepared, CallError> {
    let context = &scope.context;
    let name = run_pod_name(run_id);
    if let Err(message) = context.template.image(&head.spec) {
        return Ok(Prepared::Waits(Wait::for_head(
            reasons::IMAGE_NOT_ALLOWED,
            message,
        )));
    }
    apply_around_runs(scope, head).await?;
    let pod = build_run_pod(workflow, head, &context.template, run_id);
    match create(&context.client, &pod).await {
        Ok(_) => Ok(waits(&name, "it was just made")),
        Err(error) if error.is_terminating() => Err(error),
        Err(error) if error.is_conflict() => {
            let stored = call("read a pod", pods.get_opt(&name)).await?;
            Ok(match stored {
                Some(stored) if !owns(workflow, &stored) => taken(&name),
                _ => waits(&name, "it was just made"),
            })
        }
        Err(error) if error.is_refusal() => {
            let message = format!("pod {name} for this run alone was refused: {error}");
            Ok(Prepared::Waits(Wait::for_head(reasons::PODS_REFUSED, message)))
        }
        Err(error) => Err(error),
    }
}

fn owns(workflow: &MamlWorkflow, pod: &Pod) -> bool {
    let uid = workflow.metadata.uid.as_deref();
    pod.owner_references()
        .iter()
        .any(|owner| Some(owner.uid.as_str()) == uid)
}

fn waits(name: &str, message: &str) -> Prepared {
    let message = format!("pod {name} is made for this run alone: {message}");
    Prepared::Waits(Wait::for_head(reasons::PREPARING_POD, message))
}

fn taken(name: &str) -> Prepared {
    let message = format!("pod {name} exists and belongs to something else; delete it");
    Prepared::Waits(Wait::for_head(reasons::NAME_TAKEN, message))
}
