//! Wires watches to reconciles: one queue for each kind and scope.

mod queue;
mod references;
mod sweep;

use std::{future::Future, sync::Arc, time::Duration};

use anyhow::Context as _;
use api::{ChimeraHead, KeyRotationPolicy, MamlWorkflow, MuReceipt, names};
use controller_core::head_pod::Template;
use futures::{FutureExt as _, StreamExt as _, stream};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Client, Config, Resource,
    core::PartialObjectMeta,
    runtime::{reflector::Store, watcher},
};
use tokio::task::JoinSet;
use tokio_stream::wrappers::{UnboundedReceiverStream, WatchStream};

use crate::{
    audit, bootstrap,
    clock::{self, Clock},
    context::{Context, Remembered, Scope},
    demand_metrics::DemandMetrics,
    events::Events,
    fleet::Fleet,
    head,
    health::Watches,
    identity::{Identities, ensure_authority},
    keys::entropy::KeyMaker,
    keys::keyring::Keyring,
    keys::rotation,
    lease::Term,
    metrics::Metrics,
    runs::Runs,
    settings::Settings,
    triggers::Triggers,
    watch::{Informer, informer},
    workflow,
};
use queue::{Queue, Stop};
use references::{
    all_when, drive, follow_pods, head_changes, limited, references, waiting_for, workflow_changes,
};

/// A first list that takes longer is a fault: the process ends and is started again.
const FIRST_LIST_DEADLINE: Duration = Duration::from_secs(60);
/// How long reconciles under way may take to end when the process is told to stop.
const DRAIN_DEADLINE: Duration = Duration::from_secs(20);
/// Between two receipts that are verified: the audit must not take the API server away from runs.
const AUDIT_PAUSE: Duration = Duration::from_millis(40);
/// The same while runs are under way.
const AUDIT_PAUSE_BESIDE_RUNS: Duration = Duration::from_secs(2);

/// The tasks of the process.
#[derive(Default)]
struct Tasks {
    /// Reconciles; they end in order when the process is told to stop.
    queues: JoinSet<()>,
    /// What feeds the queues; it is cut off when they have ended.
    feeders: JoinSet<()>,
}

/// Runs all controllers until `stop`, then lets reconciles under way end.
pub async fn run(
    config: Config,
    client: Client,
    settings: Settings,
    metrics: Arc<Metrics>,
    watches: Arc<Watches>,
    term: Term,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let context = build_context(client, settings, metrics, term).await?;
    if let Some(path) = &context.settings.bootstrap_file {
        bootstrap::create_absent(&context.client, path).await?;
    }
    let (stopper, stopped) = tokio::sync::oneshot::channel::<()>();
    let stopped: Stop = stopped.map(|_| ()).boxed().shared();
    let mut tasks = Tasks::default();
    start_keys(&config, &context, &watches, &stopped, &mut tasks)?;
    let mut scopes = Vec::new();
    for namespace in context.settings.scopes() {
        let scope = start_scope(
            &config,
            &context,
            namespace.as_deref(),
            &watches,
            &stopped,
            &mut tasks,
        );
        scopes.push(scope.await?);
    }
    tasks.feeders.spawn(sweep::sweep(Arc::clone(&context), scopes));
    let Tasks {
        mut queues,
        mut feeders,
    } = tasks;
    tokio::select! {
        () = stop => {}
        // A queue ends only when its watch does, and that never ends by itself.
        Some(ended) = queues.join_next() => {
            ended.context("a controller panicked")?;
            anyhow::bail!("a controller ended unexpectedly");
        }
        Some(ended) = feeders.join_next() => {
            ended.context("a watch panicked")?;
            anyhow::bail!("a watch ended unexpectedly");
        }
    }
    tracing::info!("draining");
    drop(stopper);
    let drained = async { while queues.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN_DEADLINE, drained).await.is_err() {
        tracing::warn!("reconciles were still under way at the end");
    }
    Ok(())
}

async fn build_context(
    client: Client,
    settings: Settings,
    metrics: Arc<Metrics>,
    term: Term,
) -> anyhow::Result<Arc<Context>> {
    let offline_root = settings.read_offline_root()?;
    let authority = ensure_authority(&client, &settings.namespace, term.fencing_token).await?;
    let tls = authority.client_config(clock::now())?;
    let triggers = Arc::new(Triggers::default());
    let fleet = Fleet::new(Arc::clone(&triggers));
    metrics.add(DemandMetrics::new(Arc::clone(&fleet))?)?;
    let runs = Runs::new(Arc::clone(&fleet), Arc::clone(&triggers), Arc::clone(&metrics));
    let key_maker = KeyMaker::new(&settings.entropy_sources, Arc::clone(&metrics));
    tokio::spawn(key_maker.clone().check());
    Ok(Arc::new(Context {
        events: Events::start(client.clone(), settings.pod_name.clone()),
        template: Template {
            default_image: settings.default_head_image.clone(),
            allowed_images: settings.allowed_head_images.clone(),
            isolation: settings.head_isolation.clone(),
            operator_namespace: settings.namespace.clone(),
        },
        client,
        settings,
        metrics,
        fleet,
        claims: term.claims,
        runs,
        triggers,
        keyring: Keyring::default(),
        offline_root,
        key_maker,
        clock: Clock::default(),
        identities: Identities::default(),
        authority,
        tls,
        fencing_token: term.fencing_token,
    }))
}

/// Key policies: only those of the operator's namespace have keys, but all of them get a status.
fn start_keys(
    config: &Config,
    context: &Arc<Context>,
    watches: &Watches,
    stop: &Stop,
    tasks: &mut Tasks,
) -> anyhow::Result<()> {
    let mut scopes = context.settings.scopes();
    let own = Some(context.settings.namespace.clone());
    if !scopes.contains(&None) && !scopes.contains(&own) {
        scopes.push(own);
    }
    for scope in scopes {
        let policies: Informer<KeyRotationPolicy> = informer(
            config,
            scope.as_deref(),
            watcher::Config::default(),
            &context.metrics,
        )?;
        watches.add(policies.pulse);
        let used_up = WatchStream::from_changes(context.keyring.used_up());
        let used_up = all_when(used_up, policies.store.clone());
        let references = stream::select(references(policies.changes), used_up).boxed();
        let queue = Queue {
            kind: "KeyRotationPolicy",
            concurrency: 1,
            metrics: Arc::clone(&context.metrics),
        };
        let (shared, stop) = (Arc::clone(context), stop.clone());
        tasks
            .queues
            .spawn(queue.run(policies.store, references, shared, rotation::reconcile, stop));
    }
    Ok(())
}

/// How long the audit waits before each receipt.
fn audit_pause(runs: &Arc<Runs>) -> impl Fn() -> Duration + Send + 'static {
    let runs = Arc::clone(runs);
    move || {
        if runs.are_under_way() {
            AUDIT_PAUSE_BESIDE_RUNS
        } else {
            AUDIT_PAUSE
        }
    }
}

/// Everything but keys, in one namespace or the whole cluster.
async fn start_scope(
    config: &Config,
    context: &Arc<Context>,
    namespace: Option<&str>,
    watches: &Watches,
    stop: &Stop,
    tasks: &mut Tasks,
) -> anyhow::Result<Arc<Scope>> {
    let all = watcher::Config::default;
    let managed = || all().labels(&format!("{}={}", names::MANAGED_BY_LABEL, names::MANAGED_BY));
    let metrics = &context.metrics;
    let workflows: Informer<MamlWorkflow> = informer(config, namespace, all(), metrics)?;
    let heads: Informer<ChimeraHead> = informer(config, namespace, all(), metrics)?;
    let pods: Informer<Pod> = informer(config, namespace, managed(), metrics)?;
    let receipts: Informer<PartialObjectMeta<MuReceipt>> = informer(config, namespace, all(), metrics)?;
    // Every namespace has this one, and no document is in it.
    let documents = all().fields("metadata.name!=kube-root-ca.crt");
    let maps: Informer<PartialObjectMeta<ConfigMap>> = informer(config, namespace, documents, metrics)?;
    for pulse in [
        &workflows.pulse,
        &heads.pulse,
        &pods.pulse,
        &receipts.pulse,
        &maps.pulse,
    ] {
        watches.add(Arc::clone(pulse));
    }
    let scope = Arc::new(Scope {
        context: Arc::clone(context),
        workflows: workflows.store.clone(),
        heads: heads.store.clone(),
        pods: pods.store.clone(),
        receipts: receipts.store.clone(),
        refused_pods: Remembered::default(),
        head_policies: Remembered::default(),
        run_network_policies: Remembered::default(),
    });
    let receipt_references = stream::select(
        references(receipts.changes),
        all_when(
            WatchStream::from_changes(context.keyring.revoked()),
            receipts.store.clone(),
        ),
    );
    let receipt_references = drive(receipt_references, &mut tasks.feeders);
    let head_references = stream::select_all([
        head_changes(heads.changes, Arc::clone(&scope)),
        UnboundedReceiverStream::new(context.triggers.subscribe_heads()).boxed(),
    ]);
    // Heads are listed before pods are followed, and both before runs are: a run that a predecessor started is
    // rejoined on its head, and must not be taken for lost because the head is not known yet.
    let head_references = drive(head_references, &mut tasks.feeders);
    listed(&scope.heads, "ChimeraHead").await?;
    tasks.feeders.spawn(follow_pods(pods.changes, Arc::clone(&scope)));
    listed(&scope.pods, "Pod").await?;
    listed(&scope.receipts, "MuReceipt").await?;

    let queue = Queue {
        kind: "ChimeraHead",
        concurrency: 8,
        metrics: Arc::clone(metrics),
    };
    tasks.queues.spawn(queue.run(
        heads.store,
        head_references,
        Arc::clone(&scope),
        head::reconcile,
        stop.clone(),
    ));

    let queue = Queue {
        kind: "MuReceipt",
        concurrency: 2,
        metrics: Arc::clone(metrics),
    };
    tasks.queues.spawn(queue.run(
        receipts.store,
        limited(receipt_references, audit_pause(&context.runs)),
        Arc::clone(&scope),
        audit::reconcile,
        stop.clone(),
    ));

    let workflow_references = stream::select_all([
        workflow_changes(workflows.changes, Arc::clone(&scope)),
        waiting_for(maps.changes, workflows.store.clone()),
        all_when(
            UnboundedReceiverStream::new(context.triggers.subscribe_everything()),
            workflows.store.clone(),
        ),
        UnboundedReceiverStream::new(context.triggers.subscribe_workflows()).boxed(),
    ]);
    let queue = Queue {
        kind: "MamlWorkflow",
        concurrency: context.settings.concurrency,
        metrics: Arc::clone(metrics),
    };
    tasks.queues.spawn(queue.run(
        workflows.store,
        workflow_references,
        Arc::clone(&scope),
        workflow::reconcile,
        stop.clone(),
    ));
    Ok(scope)
}

/// Waits for a first list, for a time.
async fn listed<K>(store: &Store<K>, kind: &str) -> anyhow::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    tokio::time::timeout(FIRST_LIST_DEADLINE, store.wait_until_ready())
        .await
        .with_context(|| format!("list {kind}: no answer in {} s", FIRST_LIST_DEADLINE.as_secs()))?
        .with_context(|| format!("list {kind}"))
}

/// Lets go of all there is of a workflow that is gone.
fn stop_run(context: &Context, uid: &str) {
    context.runs.cancel(uid, "the workflow was deleted");
    context.runs.forget(uid);
    context.claims.settle(uid);
    context.fleet.stop_waiting(uid);
}
