//! How the objects of one kind are reconciled: a few at once, each for a limited time, and again after a pause when it failed.

use std::{
    fmt::Debug,
    future::Future,
    hash::Hash,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{FutureExt as _, Stream, StreamExt as _, future::BoxFuture, future::Shared};
use kube::{
    Resource,
    runtime::{
        controller::{self, Action, applier},
        reflector::{ObjectRef, Store},
    },
};

use crate::{backoff::Backoff, causes::with_causes, metrics::Metrics};

/// The longest that one reconcile may take; every call in it has a shorter limit of its own.
const RECONCILE_DEADLINE: Duration = Duration::from_secs(60);

/// Resolves when the process is told to stop.
pub type Stop = Shared<BoxFuture<'static, ()>>;

/// How one kind is reconciled.
pub struct Queue {
    /// The kind, for metrics and logs.
    pub kind: &'static str,
    /// Objects of it that are reconciled at once.
    pub concurrency: u16,
    /// Counts what comes of it.
    pub metrics: Arc<Metrics>,
}

impl Queue {
    /// Reconciles what `references` names until `stop`.
    pub async fn run<K, C, R, E>(
        self,
        store: Store<K>,
        references: impl Stream<Item = ObjectRef<K>> + Send + 'static,
        context: Arc<C>,
        reconcile: impl Fn(Arc<K>, Arc<C>) -> R + Clone + Send + Sync + 'static,
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
        let backoff = Arc::new(Backoff::default());
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
