//! Informers: a store kept by a watch, and the stream of objects that changed in it.
//!
//! Each watch has its own backoff and swallows its own errors into a metric, so that one forbidden or broken watch
//! never delays another. An object that cannot be read as its kind is left out with a warning; it never stops the
//! watch. A watch that the server closes at once is reopened once a second at most.

use std::{
    fmt::Debug,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{
    Stream, StreamExt as _,
    stream::{self, BoxStream},
};
use kube::{
    Api, Resource, ResourceExt as _,
    runtime::{
        reflector::{Store, store},
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;

use crate::{client, metrics::Metrics, readable::Readable};

/// The server ends each watch after this time; below the idle limit of common load balancers.
pub const WATCH_SECONDS: u32 = 200;

/// A watch that was not opened again for this long is stale.
pub const STALE_AFTER: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 90);

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// When a watch was last heard of, for the health endpoint.
#[derive(Debug)]
pub struct Pulse {
    /// Kind and scope, for a person.
    pub name: String,
    started: Instant,
    /// Milliseconds from `started` to the last answer.
    answered: AtomicU64,
}

impl Pulse {
    fn new(name: String) -> Arc<Self> {
        Arc::new(Self {
            name,
            started: Instant::now(),
            answered: AtomicU64::new(0),
        })
    }

    /// Notes that the API server answered a request of this watch.
    pub fn beat(&self) {
        let millis = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.answered.store(millis, Ordering::Relaxed);
    }

    /// The time since the API server last answered, or since the start while it never did. A watch in good health is
    /// opened again every [`WATCH_SECONDS`].
    pub fn age(&self) -> Duration {
        self.started
            .elapsed()
            .saturating_sub(Duration::from_millis(self.answered.load(Ordering::Relaxed)))
    }
}

/// One change that a watch reported.
#[derive(Debug, Clone)]
pub enum Change<K> {
    /// Added or modified, or listed again after the watch was reopened.
    Applied(K),
    /// Deleted. May be missed while the watch is down.
    Deleted(K),
}

impl<K> Change<K> {
    /// The object, as it is or as it last was.
    pub fn object(&self) -> &K {
        match self {
            Self::Applied(object) | Self::Deleted(object) => object,
        }
    }
}

/// An informer: a store, when it was last heard of, and the changes, which must be polled to keep the store current.
pub struct Informer<K: Resource<DynamicType = ()> + 'static> {
    /// The objects as last seen.
    pub store: Store<K>,
    /// Signs of life.
    pub pulse: Arc<Pulse>,
    /// What changed. Dropping the stream stops the watch.
    pub changes: BoxStream<'static, Change<K>>,
}

/// Starts an informer over the objects that `scope` (a namespace, or the whole cluster) and `selection` choose.
pub fn informer<K>(
    config: &kube::Config,
    scope: Option<&str>,
    selection: watcher::Config,
    metrics: &Arc<Metrics>,
) -> Result<Informer<K>, kube::Error>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    let pulse = Pulse::new(format!(
        "{} in {}",
        K::plural(&()),
        scope.unwrap_or("all namespaces")
    ));
    let client = client::watcher(config, &pulse)?;
    let api: Api<Readable<K>> = match scope {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    let (reader, mut writer) = store::<K>();
    let watch = watcher(api, selection.timeout(WATCH_SECONDS));
    let changes = without_errors(watch, Arc::clone(&pulse), Arc::clone(metrics))
        .filter_map(|event| std::future::ready(readable(event)))
        .filter_map(move |event| {
            writer.apply_watcher_event(&event);
            std::future::ready(match event {
                Event::Apply(object) | Event::InitApply(object) => Some(Change::Applied(object)),
                Event::Delete(object) => Some(Change::Deleted(object)),
                Event::Init | Event::InitDone => None,
            })
        })
        .boxed();
    Ok(Informer {
        store: reader,
        pulse,
        changes,
    })
}

/// Counts errors in the metric, pauses after each, and passes on everything else.
fn without_errors<K: Send + 'static>(
    watch: impl Stream<Item = Result<Event<K>, watcher::Error>> + Send + 'static,
    pulse: Arc<Pulse>,
    metrics: Arc<Metrics>,
) -> impl Stream<Item = Event<K>> + Send + 'static {
    stream::unfold((Box::pin(watch), 0_u32), move |(mut watch, mut failures)| {
        let pulse = Arc::clone(&pulse);
        let metrics = Arc::clone(&metrics);
        async move {
            loop {
                match watch.next().await? {
                    Ok(event) => {
                        let ended = !matches!(event, Event::Init | Event::InitApply(_));
                        return Some((event, (watch, if ended { 0 } else { failures })));
                    }
                    Err(error) => {
                        metrics
                            .watch_errors
                            .with_label_values(&[pulse.name.as_str()])
                            .inc();
                        let pause = FIRST_PAUSE
                            .saturating_mul(1 << failures.min(5))
                            .min(LONGEST_PAUSE);
                        failures = failures.saturating_add(1);
                        tracing::warn!(watch = %pulse.name, %error, ?pause, "watch failed");
                        tokio::time::sleep(pause).await;
                    }
                }
            }
        }
    })
}

/// The event with its object read as its kind; `None`, with a warning, when it cannot be read.
fn readable<K: Resource<DynamicType = ()>>(event: Event<Readable<K>>) -> Option<Event<K>> {
    let read = |read: Readable<K>| match read.0 {
        Ok(mut object) => {
            object.managed_fields_mut().clear();
            Some(object)
        }
        Err(unreadable) => {
            tracing::warn!(
                kind = %K::kind(&()),
                name = unreadable.metadata.name.as_deref().unwrap_or_default(),
                namespace = unreadable.metadata.namespace.as_deref().unwrap_or_default(),
                error = %unreadable.error,
                "object cannot be read and is left out",
            );
            None
        }
    };
    match event {
        Event::Apply(object) => read(object).map(Event::Apply),
        Event::InitApply(object) => read(object).map(Event::InitApply),
        Event::Delete(object) => read(object).map(Event::Delete),
        Event::Init => Some(Event::Init),
        Event::InitDone => Some(Event::InitDone),
    }
}
