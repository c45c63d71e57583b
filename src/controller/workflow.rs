//! Reconciles a MamlWorkflow: observe, plan, apply.

use std::{sync::Arc, time::Duration};

use api::{
    Isolation, MamlWorkflow, MamlWorkflowStatus,
    condition::{COMPLETE, is_true},
    maml_workflow::AssignedHead,
    reasons,
};
use controller_core::{
    claim::Claim,
    demand::{Demand, Tried},
    no_place::{NoPlace, Why},
    queue::waited,
    run::{Destination, Intent, build_grant, run_key},
    run_pod::{RunPod, lost, wanted},
    sealed::{self, SealedInputs},
    specification::{Files, not_found},
    workflow_plan::{
        Loss, Observed, Plan, QUIET_RUN, RunState, Source, Start, current_status, is_current, pending_since,
        plan, plan_without_head, receipt_name,
    },
    workflow_status::{self, Wait},
};
use crypto::DigestSet;
use head_proto::{RunRequest, SpecificationFile};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, ResourceExt as _, core::PartialObjectMeta, runtime::controller::Action,
    runtime::reflector::ObjectRef,
};

use crate::{
    apply::{apply_status, delete},
    client::{CallError, call},
    clock,
    conclusion::{conclude, recover},
    context::{Context, Scope},
    fleet::Reservation,
    keys::keyring::Signer,
    run_pod::{self, Prepared},
    runs::{Driven, Request},
    waiting_room::Candidacy,
};

/// When an object is looked at again although nothing happened: a missed event heals within this time.
pub const RESYNC: Duration = Duration::from_secs(300);
/// When a change that is on its way should have been seen.
pub const SOON: Duration = Duration::from_millis(250);

/// A reconcile failed; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum WorkflowError {
    /// The API server could not be read or written.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A grant could not be signed.
    #[error("sign the grant")]
    Grant(#[from] crypto::grant::Error),
    /// The receipt could not be made.
    #[error("make the receipt")]
    Receipt(#[from] crypto::receipt::Error),
    /// The mirrored text could not be signed.
    #[error("sign the mirrored text")]
    Mirror(#[from] crypto::key::Error),
}

/// Brings one workflow a step further.
pub async fn reconcile(workflow: Arc<MamlWorkflow>, scope: Arc<Scope>) -> Result<Action, WorkflowError> {
    let run_pods = run_pod::observe(&scope, &workflow);
    let observed = observe(&scope, &workflow, &run_pods).await?;
    let status = (!run_pods.is_empty()).then(|| observed.status.clone());
    let plan = plan(observed);
    if let Some(status) = status {
        let wanted = wanted(&workflow, &status, &plan);
        run_pod::remove_superfluous(&scope, &workflow, &run_pods, wanted.as_deref()).await?;
    }
    if !matches!(plan, Plan::Start(_)) {
        scope
            .context
            .fleet
            .stop_waiting(&workflow.uid().unwrap_or_default());
    }
    apply(&scope, &workflow, plan).await
}

/// The policy whose key signs for this workflow.
pub fn policy(workflow: &MamlWorkflow, scope: &Scope) -> String {
    let named = workflow
        .spec
        .signing_policy_ref
        .as_ref()
        .map(|reference| reference.name.clone());
    named.unwrap_or_else(|| scope.context.settings.signing_policy.clone())
}

async fn observe<'a>(
    scope: &Scope,
    workflow: &'a MamlWorkflow,
    run_pods: &[RunPod],
) -> Result<Observed<'a>, CallError> {
    let context = &scope.context;
    let uid = workflow.uid().unwrap_or_default();
    let receipt = receipt_name(workflow);
    context.runs.forget_others(&uid, &receipt);
    let (run, status) = context.runs.state(&uid, &receipt);
    let status = status.unwrap_or_else(|| known_status(context, workflow));
    let run = match own_pod_lost(workflow, &status, run_pods) {
        Some(loss) if matches!(run, RunState::Unknown | RunState::Lost(_)) => {
            context.runs.lose(&uid, loss.clone());
            RunState::Lost(loss)
        }
        _ => run,
    };
    let complete = workflow
        .status
        .as_ref()
        .is_some_and(|shown| is_current(workflow, shown) && is_true(&shown.conditions, COMPLETE));
    if complete {
        // A predecessor's, which did not come to tell the Lease.
        context.claims.settle(&uid);
    }
    if complete && matches!(run, RunState::Concluded) {
        context.runs.forget(&uid);
    }
    let reference = ObjectRef::new(&receipt).within(&workflow.namespace().unwrap_or_default());
    let receipt_exists = scope.receipts.get(&reference).is_some();
    let to_start = matches!(run, RunState::Unknown | RunState::Lost(_)) && !complete && !receipt_exists;
    let (source, beside) = if to_start {
        observe_source(scope, workflow).await?
    } else {
        missing("")
    };
    let sealed = match &source {
        Source::Found(document) => observe_sealed(scope, workflow, document),
        Source::Missing(_) => SealedInputs::None,
    };
    let claimed_head_known = status
        .head
        .as_ref()
        .is_some_and(|head| context.fleet.may_answer(&head.uid));
    Ok(Observed {
        workflow,
        status,
        source,
        beside,
        sealed,
        run,
        receipt_exists,
        claimed_head_known,
        signer: context.keyring.signer(&policy(workflow, scope)).map(|_| ()),
        now: clock::now(),
    })
}

/// What is known of the current run of which this process remembers nothing: what its status says, and what the Lease does.
pub fn known_status(context: &Context, workflow: &MamlWorkflow) -> MamlWorkflowStatus {
    let status = current_status(workflow);
    match context.claims.of(&workflow.uid().unwrap_or_default()) {
        Some(claim) => claim.told_by(status, workflow),
        None => status,
    }
}

/// The attempt that is about to start, if the pod that was made for it has failed.
fn own_pod_lost(workflow: &MamlWorkflow, status: &MamlWorkflowStatus, run_pods: &[RunPod]) -> Option<Loss> {
    if status.head.is_some() {
        // It has begun: the head is asked, or known to be lost.
        return None;
    }
    let attempt = status.attempt.unwrap_or(0) + 1;
    lost(run_pods, &run_key(workflow).run_id(attempt), attempt)
}

/// Opens the sealed inputs, for this run and in this process only.
fn observe_sealed(scope: &Scope, workflow: &MamlWorkflow, document: &[u8]) -> SealedInputs {
    let namespace = workflow.namespace().unwrap_or_default();
    sealed::open(workflow, document, |key| {
        let opener = scope.context.keyring.opener(key, &namespace)?;
        opener
            .counter
            .count(workflow.spec.sealed_inputs.as_ref().map_or(0, String::len));
        Some(opener)
    })
}

fn missing(why: &str) -> (Source, Files) {
    (Source::Missing(why.to_owned()), Files::new())
}

/// The document, and the other texts of its ConfigMap.
async fn observe_source(scope: &Scope, workflow: &MamlWorkflow) -> Result<(Source, Files), CallError> {
    let source = &workflow.spec.source;
    if let Some(inline) = &source.inline {
        return Ok((Source::Found(inline.clone().into_bytes()), Files::new()));
    }
    let Some(reference) = &source.config_map_ref else {
        return Ok(missing("spec.source names no document"));
    };
    let namespace = workflow.namespace().unwrap_or_default();
    let api: Api<ConfigMap> = Api::namespaced(scope.context.client.clone(), &namespace);
    let Some(map) = call("read the document's ConfigMap", api.get_opt(&reference.name)).await? else {
        return Ok(missing(&format!("ConfigMap {} does not exist", reference.name)));
    };
    let mut texts = map.data.unwrap_or_default();
    let document = texts.remove(&reference.key).map(String::into_bytes).or_else(|| {
        map.binary_data
            .and_then(|mut data| data.remove(&reference.key))
            .map(|data| data.0)
    });
    Ok(document.map_or_else(
        || {
            missing(&format!(
                "ConfigMap {} has no key {}",
                reference.name, reference.key
            ))
        },
        |document| (Source::Found(document), texts),
    ))
}

async fn apply(scope: &Arc<Scope>, workflow: &MamlWorkflow, plan: Plan) -> Result<Action, WorkflowError> {
    match plan {
        Plan::Rest => Ok(Action::requeue(RESYNC)),
        Plan::RestFor(time) => Ok(Action::requeue(time.min(RESYNC))),
        Plan::Wait { wait, status, again } => {
            write_wait(scope, workflow, &wait, *status).await?;
            Ok(Action::requeue(again))
        }
        Plan::Start(start) => Box::pin(start_run(scope, workflow, *start)).await,
        Plan::Rejoin { attempt, pod_uid } => Ok(rejoin(scope, workflow, attempt, &pod_uid)),
        Plan::Cancel => {
            scope
                .context
                .runs
                .cancel(&workflow.uid().unwrap_or_default(), "cancelled by annotation");
            Ok(Action::requeue(RESYNC))
        }
        Plan::Show(status) => {
            show(scope, workflow, *status).await?;
            Ok(Action::requeue(RESYNC))
        }
        Plan::Conclude(conclusion) => conclude(scope, workflow, *conclusion).await,
        Plan::Recover => recover(scope, workflow).await,
        Plan::Expire => {
            let namespace = workflow.namespace().unwrap_or_default();
            let api: Api<MamlWorkflow> = Api::namespaced(scope.context.client.clone(), &namespace);
            delete(&api, &workflow.name_any(), &workflow.uid().unwrap_or_default()).await?;
            Ok(Action::await_change())
        }
    }
}

async fn write_wait(
    scope: &Scope,
    workflow: &MamlWorkflow,
    wait: &Wait,
    status: MamlWorkflowStatus,
) -> Result<(), CallError> {
    let status = workflow_status::waiting(status, wait, clock::now());
    if workflow.status.as_ref() == Some(&status) {
        return Ok(());
    }
    show(scope, workflow, status).await
}

/// Writes a status that says more than the last one did, unless the workflow was changed or deleted meanwhile: that change
/// brings it back here.
async fn show(scope: &Scope, workflow: &MamlWorkflow, status: MamlWorkflowStatus) -> Result<(), CallError> {
    let Some(written) = write_status(scope, workflow, &status).await? else {
        return Ok(());
    };
    let context = &scope.context;
    let uid = workflow.uid().unwrap_or_default();
    if let (Some(before), Some(after)) = (workflow.resource_version(), written.resource_version()) {
        context.fleet.room().wrote(&uid, before, after);
    }
    context.runs.shown(&uid, status);
    Ok(())
}

/// Writes a status upon what was seen of the workflow, or upon this process's own last write of it; it tells of the run's
/// claim from then on. `None` when somebody else changed or deleted the workflow meanwhile.
async fn write_status(
    scope: &Scope,
    workflow: &MamlWorkflow,
    status: &MamlWorkflowStatus,
) -> Result<Option<PartialObjectMeta<MamlWorkflow>>, CallError> {
    let context = &scope.context;
    let uid = workflow.uid().unwrap_or_default();
    let seen = workflow.metadata.resource_version.as_deref();
    let version = context.fleet.room().take_version(&uid, seen);
    match apply_status(&context.client, workflow, status, version.as_deref()).await {
        Err(error) if error.is_conflict() || error.is_not_found() => Ok(None),
        written => {
            let written = written?;
            context.claims.settle(&uid);
            Ok(Some(written))
        }
    }
}

/// When it was created.
pub fn created(workflow: &MamlWorkflow) -> Timestamp {
    let created = workflow.metadata.creation_timestamp.as_ref();
    created.map_or(Timestamp::UNIX_EPOCH, |time| time.0)
}

/// Reserves a head, claims it, and dispatches.
async fn start_run(
    scope: &Arc<Scope>,
    workflow: &MamlWorkflow,
    start: Start,
) -> Result<Action, WorkflowError> {
    let context = &scope.context;
    let uid = workflow.uid().unwrap_or_default();
    let run_id = run_key(workflow).run_id(start.attempt);
    let since = pending_since(workflow, &start.status, clock::now());
    let demand = Demand {
        tried: Tried::of(&start.status.attempts, clock::now()),
        ..Demand::of(workflow, &start.accepted.document)
    };
    let run = Candidacy {
        run_id: run_id.clone(),
        workflow: ObjectRef::from_obj(workflow),
        uid: uid.clone(),
        submitter: workflow.spec.submitter.clone().unwrap_or_default(),
        priority: workflow.spec.priority,
        created: created(workflow),
        since,
    };
    let reservation = match reserve(scope, workflow, &run, &demand).await? {
        Ok(reservation) => reservation,
        Err(wait) => {
            let waiting = context.fleet.room().len(&demand.namespace);
            let plan = plan_without_head(workflow, start, wait, waiting, clock::now());
            if matches!(plan, Plan::Conclude(_)) {
                context.fleet.stop_waiting(&uid);
            }
            return Box::pin(apply(scope, workflow, plan)).await;
        }
    };
    let held = context.fleet.hold(&run_id, &reservation);
    match claim(scope, workflow, &start, &run_id, &reservation).await? {
        Some((status, request)) => {
            let waited = waited(since, clock::now());
            context.metrics.queue_seconds.observe(waited.as_secs_f64());
            if !start.specifications.missing.is_empty() {
                let message = not_found(&start.specifications.missing);
                context
                    .events
                    .warning(workflow, reasons::SPECIFICATION_NOT_FOUND, message);
            }
            let run = Driven {
                workflow: ObjectRef::from_obj(workflow),
                uid,
                receipt_name: receipt_name(workflow),
                run_id,
                attempt: start.attempt,
                status,
                timeout: timeout(workflow),
            };
            context.runs.drive(run, reservation, Request::Run(request));
            held.keep();
            Ok(Action::requeue(QUIET_RUN))
        }
        // Somebody changed the workflow meanwhile: that change brings it back here.
        None => Ok(Action::requeue(SOON)),
    }
}

fn timeout(workflow: &MamlWorkflow) -> Duration {
    Duration::from_secs(u64::try_from(workflow.spec.timeout_seconds).unwrap_or(1))
}

/// A place among others, or a pod of its own, as the workflow asks for; else what it waits for.
async fn reserve(
    scope: &Scope,
    workflow: &MamlWorkflow,
    run: &Candidacy,
    demand: &Demand,
) -> Result<Result<Reservation, Wait>, CallError> {
    match demand.isolation {
        Isolation::Process => Ok(scope.context.fleet.reserve(run, demand).map_err(wait_for)),
        Isolation::Pod => Ok(match run_pod::prepare(scope, workflow, run, demand).await? {
            Prepared::Ready(reservation) => Ok(*reservation),
            Prepared::Waits(wait) => {
                scope.context.fleet.stop_waiting(&run.uid);
                Err(wait)
            }
            Prepared::Nowhere(none) => {
                // No place is ever given to it; it is told of new heads.
                scope.context.fleet.room().wait(run, demand);
                Err(wait_for(none))
            }
        }),
    }
}

fn wait_for(none: NoPlace) -> Wait {
    let reason = match none.why {
        Why::Busy => reasons::HEADS_BUSY,
        Why::NotReady => reasons::HEADS_NOT_READY,
        Why::ScaledToZero => reasons::SCALED_TO_ZERO,
        Why::NoGpu => reasons::WAITING_FOR_GPU,
        Why::NoMatch => reasons::NO_HEAD,
    };
    Wait {
        candidates: none.candidates,
        ..Wait::for_head(reason, none.message)
    }
}

/// Claims the head: what is written before it is asked, so that whoever leads next asks no other. `None` when somebody
/// changed the workflow meanwhile.
async fn claim(
    scope: &Scope,
    workflow: &MamlWorkflow,
    start: &Start,
    run_id: &str,
    on: &Reservation,
) -> Result<Option<(MamlWorkflowStatus, RunRequest)>, WorkflowError> {
    let context = &scope.context;
    let Ok(signer) = context.keyring.signer(&policy(workflow, scope)) else {
        return Ok(None);
    };
    let claim = Claim {
        run_id: run_id.to_owned(),
        attempt: start.attempt,
        head: AssignedHead {
            name: on.member.head.clone(),
            pod: on.member.pod.clone(),
            uid: on.member.pod_uid.clone(),
            node: on.member.node.clone(),
            devices: on.link.status.devices.clone(),
        },
        document: workflow_status::shown_digest(&DigestSet::of(&start.source)),
        inputs: workflow_status::shown_digest(&start.accepted.inputs.digest()),
        time: clock::now(),
    };
    let request = build_request(scope, workflow, start, on, &signer)?;
    let status = workflow_status::claimed(start.status.clone(), &claim);
    let uid = workflow.uid().unwrap_or_default();
    // The attempts before this one are told of in the status alone.
    let in_lease = start.attempt == 1 && context.claims.claim(&uid, claim).await;
    if in_lease || write_status(scope, workflow, &status).await?.is_some() {
        Ok(Some((status, request)))
    } else {
        Ok(None)
    }
}

fn build_request(
    scope: &Scope,
    workflow: &MamlWorkflow,
    start: &Start,
    on: &Reservation,
    signer: &Signer,
) -> Result<RunRequest, crypto::grant::Error> {
    let intent = Intent {
        workflow,
        attempt: start.attempt,
        document: &start.source,
        inputs: &start.accepted.inputs,
        specifications: &start.specifications.files,
        suite: signer.key().suite(),
        fencing_token: scope.context.fencing_token,
        now: signer.time(clock::now()),
    };
    let destination = Destination {
        head: &on.member.head,
        pod: &on.member.pod,
        pod_uid: &on.member.pod_uid,
        node: on.member.node.as_deref(),
        attester: &on.link.attester,
    };
    let grant = build_grant(&intent, &destination).sign(signer.key())?;
    signer.counter.count(grant.payload().len());
    scope
        .context
        .metrics
        .signatures
        .with_label_values(&["grant"])
        .inc();
    Ok(RunRequest {
        grant: grant.to_json().into_bytes(),
        key_statement: signer.statement.clone(),
        root_statements: signer.root_statements.clone(),
        document: start.source.clone(),
        inputs: start.accepted.inputs.bytes().to_vec(),
        inputs_blinding: start.accepted.inputs.blinding().to_vec(),
        specifications: start
            .specifications
            .files
            .iter()
            .map(|(name, code)| SpecificationFile {
                name: name.clone(),
                content: code.clone().into_bytes(),
            })
            .collect(),
    })
}

/// Asks the claimed head for a run that a predecessor started.
fn rejoin(scope: &Scope, workflow: &MamlWorkflow, attempt: i32, pod_uid: &str) -> Action {
    let context = &scope.context;
    let Some(reservation) = context.fleet.link(pod_uid) else {
        // The head exists and is not connected yet.
        return Action::requeue(SOON);
    };
    let run_id = run_key(workflow).run_id(attempt);
    let submitter = workflow.spec.submitter.as_deref().unwrap_or_default();
    context.fleet.occupy(&run_id, pod_uid, submitter);
    let run = Driven {
        workflow: ObjectRef::from_obj(workflow),
        uid: workflow.uid().unwrap_or_default(),
        receipt_name: receipt_name(workflow),
        run_id,
        attempt,
        status: known_status(context, workflow),
        timeout: timeout(workflow),
    };
    tracing::info!(workflow = %workflow.name_any(), pod = %reservation.member.pod, "rejoining a run");
    context.runs.drive(run, reservation, Request::Resume);
    Action::requeue(QUIET_RUN)
}
