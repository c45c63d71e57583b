//! Wires watches to reconciles: one queue for each kind and scope.

use std::{
    fmt::Debug,
    future::Future,
    hash::Hash,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use api::{ChimeraHead, KeyRotationPolicy, MamlWorkflow, MuReceipt, names};
use controller_core::head_pod::Template;
use futures::{
    FutureExt as _, Stream, StreamExt as _,
    future::Shared,
    stream::{self, BoxStream},
};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Client, Config, Resource, ResourceExt as _,
    core::PartialObjectMeta,
    runtime::{
        controller::{self, Action, applier},
        reflector::{ObjectRef, Store},
        watcher,
    },
};
use tokio::task::JoinSet;
use tokio_stream::wrappers::{IntervalStream, UnboundedReceiverStream, WatchStream};

use crate::{
    audit,
    backoff::Backoff,
    bootstrap,
    causes::with_causes,
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
    metrics::Metrics,
    run_pod,
    runs::Runs,
    settings::Settings,
    triggers::Triggers,
    watch::{Change, Informer, informer},
    workflow,
};

/// The longest that one reconcile may take; every call in it has a shorter limit of its own.
const RECONCILE_DEADLINE: Duration = Duration::from_secs(60);
/// A first list that takes longer is a fault: the process ends and is started again.
const FIRST_LIST_DEADLINE: Duration = Duration::from_secs(60);
/// How long reconciles under way may take to end when the process is told to stop.
const DRAIN_DEADLINE: Duration = Duration::from_secs(20);
/// When runs whose workflow is gone are looked for: their deletion may have been missed.
const SWEEP_EVERY: Duration = Duration::from_secs(30);
/// Receipts verified a second, at most.
const AUDITS_PER_SECOND: u64 = 25;

/// The tasks of the process.
#[derive(Default)]
struct Tasks {
    /// Reconciles; they end in order when the process is told to stop.
    queues: JoinSet<()>,
    /// What feeds the queues; it is cut off when they have ended.
    feeders: JoinSet<()>,
}

type Stop = Shared<futures::future::BoxFuture<'static, ()>>;

/// Runs all controllers until `stop`, then lets reconciles under way end.
pub async fn run(
    config: Config,
    client: Client,
    settings: Settings,
    metrics: Arc<Metrics>,
    watches: Arc<Watches>,
    fencing_token: u64,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let context = build_context(client, settings, metrics, fencing_token).await?;
    if let Some(path) = &context.settings.bootstrap_file {
        bootstrap::create_absent(&context.client, path).await?;
    }
    let (stopper, stopped) = tokio::sync::oneshot::channel::<()>();
    let stopped: Stop = stopped.map(|_| ()).boxed().shared();
    let mut tasks = Tasks::default();
    start_keys(&config, &context, &watches, &stopped, &mut tasks)?;
    for scope in context.settings.scopes() {
        start_scope(
            &config,
            &context,
            scope.as_deref(),
            &watches,
            &stopped,
            &mut tasks,
        )
        .await?;
    }
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
    fencing_token: u64,
) -> anyhow::Result<Arc<Context>> {
    let offline_root = settings.read_offline_root()?;
    let authority = ensure_authority(&client, &settings.namespace, fencing_token).await?;
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
        runs,
        suspicion: std::sync::Mutex::default(),
        triggers,
        keyring: Keyring::default(),
        offline_root,
        key_maker,
        clock: Clock::default(),
        identities: Identities::default(),
        authority,
        tls,
        fencing_token,
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
        let used_up = all_when(context.keyring.used_up(), policies.store.clone());
        let references = stream::select(references(policies.changes), used_up).boxed();
        let queue = Queue {
            kind: "KeyRotationPolicy",
            concurrency: 1,
            metrics: Arc::clone(&context.metrics),
        };
        let backoff = Arc::new(Backoff::default());
        let (shared, stop) = (Arc::clone(context), stop.clone());
        tasks.queues.spawn(queue.run(
            policies.store,
            references,
            shared,
            rotation::reconcile,
            backoff,
            stop,
        ));
    }
    Ok(())
}

async fn start_scope(
    config: &Config,
    context: &Arc<Context>,
    namespace: Option<&str>,
    watches: &Watches,
    stop: &Stop,
    tasks: &mut Tasks,
) -> anyhow::Result<()> {
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
        all_when(context.keyring.revoked(), receipts.store.clone()),
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
    let backoff = Arc::new(Backoff::default());
    tasks.queues.spawn(queue.run(
        heads.store,
        head_references,
        Arc::clone(&scope),
        head::reconcile,
        backoff,
        stop.clone(),
    ));

    let limited = limited(receipt_references);
    let queue = Queue {
        kind: "MuReceipt",
        concurrency: 2,
        metrics: Arc::clone(metrics),
    };
    let backoff = Arc::new(Backoff::default());
    tasks.queues.spawn(queue.run(
        receipts.store,
        limited,
        Arc::clone(&scope),
        audit::reconcile,
        backoff,
        stop.clone(),
    ));

    let workflow_references = stream::select_all([
        workflow_changes(workflows.changes, Arc::clone(&scope)),
        waiting_for(maps.changes, workflows.store.clone()),
        everything(context, workflows.store.clone()),
        UnboundedReceiverStream::new(context.triggers.subscribe_workflows()).boxed(),
    ]);
    let queue = Queue {
        kind: "MamlWorkflow",
        concurrency: context.settings.concurrency,
        metrics: Arc::clone(metrics),
    };
    let backoff = Arc::new(Backoff::default());
    tasks.feeders.spawn(sweep(Arc::clone(&scope)));
    tasks.queues.spawn(queue.run(
        workflows.store,
        workflow_references,
        scope,
        workflow::reconcile,
        backoff,
        stop.clone(),
    ));
    Ok(())
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

fn references<K>(changes: BoxStream<'static, Change<K>>) -> BoxStream<'static, ObjectRef<K>>
where
    K: Resource<DynamicType = ()> + Send + Sync + 'static,
{
    changes.map(|change| ObjectRef::from_obj(change.object())).boxed()
}

/// All objects of a store, whenever something is told.
fn all_when<K>(told: tokio::sync::watch::Receiver<()>, store: Store<K>) -> BoxStream<'static, ObjectRef<K>>
where
    K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
{
    WatchStream::from_changes(told)
        .flat_map(move |()| {
            let all = store.state();
            stream::iter(all.into_iter().map(|object| ObjectRef::from_obj(object.as_ref())))
        })
        .boxed()
}

/// Polls a stream in a task of its own, so that its store fills before anybody reads the references.
fn drive<T: Send + 'static>(
    mut from: impl Stream<Item = T> + Send + Unpin + 'static,
    feeders: &mut JoinSet<()>,
) -> BoxStream<'static, T> {
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    feeders.spawn(async move {
        while let Some(item) = from.next().await {
            if sender.send(item).is_err() {
                break;
            }
        }
    });
    UnboundedReceiverStream::new(receiver).boxed()
}

/// References at a limited rate: the audit must not take the API server away from runs.
fn limited<T: Send + 'static>(references: BoxStream<'static, T>) -> BoxStream<'static, T> {
    let pause = Duration::from_millis(1000 / AUDITS_PER_SECOND);
    let mut ticks = tokio::time::interval(pause);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    references
        .zip(IntervalStream::new(ticks))
        .map(|(reference, _)| reference)
        .boxed()
}

/// Heads that changed, as the fleet notes them too.
fn head_changes(
    changes: BoxStream<'static, Change<ChimeraHead>>,
    scope: Arc<Scope>,
) -> BoxStream<'static, ObjectRef<ChimeraHead>> {
    changes
        .map(move |change| {
            let fleet = &scope.context.fleet;
            match &change {
                Change::Applied(head) => fleet.note(head),
                Change::Deleted(head) => {
                    fleet.forget(&head.namespace().unwrap_or_default(), &head.name_any());
                }
            }
            ObjectRef::from_obj(change.object())
        })
        .boxed()
}

/// Workflows that changed; the run of one that was deleted is stopped.
fn workflow_changes(
    changes: BoxStream<'static, Change<MamlWorkflow>>,
    scope: Arc<Scope>,
) -> BoxStream<'static, ObjectRef<MamlWorkflow>> {
    changes
        .filter_map(move |change| {
            std::future::ready(match change {
                Change::Applied(workflow) => Some(ObjectRef::from_obj(&workflow)),
                Change::Deleted(workflow) => {
                    stop_run(&scope, &workflow.uid().unwrap_or_default());
                    None
                }
            })
        })
        .boxed()
}

fn stop_run(scope: &Scope, uid: &str) {
    scope.context.runs.cancel(uid, "the workflow was deleted");
    scope.context.runs.forget(uid);
    scope.context.fleet.stop_waiting(uid);
}

/// Workflows whose document is in a ConfigMap that changed, if they wait for it.
fn waiting_for(
    changes: BoxStream<'static, Change<PartialObjectMeta<ConfigMap>>>,
    workflows: Store<MamlWorkflow>,
) -> BoxStream<'static, ObjectRef<MamlWorkflow>> {
    let of = move |change: Change<PartialObjectMeta<ConfigMap>>| {
        let map = change.object();
        let (name, namespace) = (map.name_any(), map.namespace());
        let users = workflows.state_filter(|workflow| {
            let reference = workflow.spec.source.config_map_ref.as_ref();
            workflow.namespace() == namespace && reference.is_some_and(|reference| reference.name == name)
        });
        stream::iter(
            users
                .into_iter()
                .map(|workflow| ObjectRef::from_obj(&*workflow))
                .collect::<Vec<_>>(),
        )
    };
    changes.flat_map(of).boxed()
}

/// All workflows, whenever something changed that all may have waited for.
fn everything(
    context: &Context,
    workflows: Store<MamlWorkflow>,
) -> BoxStream<'static, ObjectRef<MamlWorkflow>> {
    UnboundedReceiverStream::new(context.triggers.subscribe_everything())
        .flat_map(move |()| {
            let all = workflows.state();
            stream::iter(
                all.into_iter()
                    .map(|workflow| ObjectRef::from_obj(&*workflow))
                    .collect::<Vec<_>>(),
            )
        })
        .boxed()
}

async fn follow_pods(mut changes: BoxStream<'static, Change<Pod>>, scope: Arc<Scope>) {
    while let Some(change) = changes.next().await {
        let deleted = matches!(change, Change::Deleted(_));
        let pod = change.object();
        if run_pod::is_run_pod(pod) {
            run_pod::follow(&scope, pod, deleted);
        } else {
            head::follow_pod(&scope, pod, deleted);
        }
    }
}

/// Stops runs whose workflow is gone, should its deletion have been missed, and leaves pods that are gone.
async fn sweep(scope: Arc<Scope>) {
    let mut ticks = tokio::time::interval(SWEEP_EVERY);
    loop {
        ticks.tick().await;
        if scope.context.settings.scopes().len() > 1 {
            // The runs of other scopes are not in this one's store.
            continue;
        }
        let alive: std::collections::HashSet<_> =
            scope.workflows.state().iter().filter_map(|w| w.uid()).collect();
        let known = scope.context.runs.workflows().into_iter();
        for uid in known.chain(scope.context.fleet.room().workflows()) {
            if !alive.contains(&uid) {
                stop_run(&scope, &uid);
            }
        }
        let pods: std::collections::HashSet<_> =
            scope.pods.state().iter().filter_map(|pod| pod.uid()).collect();
        scope.context.fleet.retain(|uid| pods.contains(uid));
        let heads: std::collections::HashSet<_> = scope
            .heads
            .state()
            .iter()
            .map(|head| (head.namespace().unwrap_or_default(), head.name_any()))
            .collect();
        scope.context.fleet.retain_heads(|head| heads.contains(head));
        head::show_head_status(&scope);
    }
}

/// How one kind is reconciled.
struct Queue {
    kind: &'static str,
    concurrency: u16,
    metrics: Arc<Metrics>,
}

impl Queue {
    /// Reconciles what `references` names until `stop`.
    async fn run<K, C, R, E>(
        self,
        store: Store<K>,
        references: impl Stream<Item = ObjectRef<K>> + Send + 'static,
        context: Arc<C>,
        reconcile: impl Fn(Arc<K>, Arc<C>) -> R + Clone + Send + Sync + 'static,
        backoff: Arc<Backoff<ObjectRef<K>>>,
        stop: Stop,
    ) where
        K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
        ObjectRef<K>: Hash + Eq,
        C: Send + Sync + 'static,
        R: Future<Output = Result<Action, E>> + Send + 'static,
        E: std::error::Error + Send + Sync + 'static,
    {
        let Self {
            kind,
            concurrency,
            metrics,
        } = self;
        let queue = references
            .take_until(stop)
            .map(Ok::<_, std::convert::Infallible>)
            .boxed();
        let step = move |object: Arc<K>, context: Arc<C>| {
            let reference = ObjectRef::from_obj(&*object);
            let (backoff, metrics, reconcile) =
                (Arc::clone(&backoff), Arc::clone(&metrics), reconcile.clone());
            async move {
                let begun = Instant::now();
                // In a task of its own: reconciles use all cores, and a panic ends one of them only.
                let mut task = tokio::spawn(reconcile(object, context));
                let result = tokio::time::timeout(RECONCILE_DEADLINE, &mut task).await;
                metrics
                    .reconcile_seconds
                    .with_label_values(&[kind])
                    .observe(begun.elapsed().as_secs_f64());
                let fault: String = match result {
                    Ok(Ok(Ok(action))) => {
                        backoff.succeeded(&reference);
                        metrics.reconciles.with_label_values(&[kind, "ok"]).inc();
                        return Ok(action);
                    }
                    Ok(Ok(Err(error))) => with_causes(&error),
                    Ok(Err(panic)) => format!("panicked: {panic}"),
                    Err(_) => {
                        task.abort();
                        format!("not done in {} s", RECONCILE_DEADLINE.as_secs())
                    }
                };
                metrics.reconciles.with_label_values(&[kind, "error"]).inc();
                let pause = backoff.failed(&reference);
                tracing::warn!(kind, object = %reference, error = fault, ?pause, "reconcile failed");
                Ok::<_, std::convert::Infallible>(Action::requeue(pause))
            }
            .boxed()
        };
        let config = controller::Config::default().concurrency(concurrency);
        let outcomes = applier(
            step,
            |_, _, _| Action::await_change(),
            context,
            store,
            queue,
            config,
        );
        outcomes.for_each(|_| std::future::ready(())).await;
    }
}
