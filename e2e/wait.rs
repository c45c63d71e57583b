//! Waiting: on a watch, with a deadline, and with the object in the message when the deadline passes.

use std::{fmt::Debug, time::Duration};

use futures::{StreamExt as _, pin_mut};
use kube::{
    Api, Resource,
    runtime::{WatchStreamExt as _, watcher},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};

/// How long anything may take. Far more than it does: the machine may be busy with other tests and with builds.
pub const DEADLINE: Duration = Duration::from_secs(120);

/// Waits until the object exists and `holds` is true of it.
pub async fn until<K>(api: &Api<K>, name: &str, what: &str, holds: impl Fn(&K) -> bool) -> K
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Serialize + DeserializeOwned + 'static,
{
    until_within(api, name, what, DEADLINE, holds).await
}

/// The same, for what may take another time.
pub async fn until_within<K>(
    api: &Api<K>,
    name: &str,
    what: &str,
    limit: Duration,
    holds: impl Fn(&K) -> bool,
) -> K
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Serialize + DeserializeOwned + 'static,
{
    // Boxed, like every wait: the state of a watch is large, and tests hold many.
    let holds = |object: Option<&K>| object.is_some_and(&holds);
    let found = Box::pin(watch(api, name, what, limit, holds)).await;
    found.expect("a predicate that holds had an object")
}

/// Waits until there is no object of that name.
pub async fn until_gone<K>(api: &Api<K>, name: &str)
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Serialize + DeserializeOwned + 'static,
{
    Box::pin(watch(api, name, "it is gone", DEADLINE, |object| {
        object.is_none()
    }))
    .await;
}

async fn watch<K>(
    api: &Api<K>,
    name: &str,
    what: &str,
    limit: Duration,
    holds: impl Fn(Option<&K>) -> bool,
) -> Option<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Serialize + DeserializeOwned + 'static,
{
    let deadline = Instant::now() + limit;
    let stream = watcher::watch_object(api.clone(), name).default_backoff();
    pin_mut!(stream);
    let mut last = None;
    loop {
        match timeout_at(deadline, stream.next()).await {
            Ok(Some(Ok(object))) if holds(object.as_ref()) => return object,
            Ok(Some(Ok(object))) => last = object,
            // The API server may restart; the watcher comes back by itself.
            Ok(Some(Err(error))) => eprintln!("watch of {name}: {error}"),
            Ok(None) => panic!("the watch of {name} ended"),
            Err(_) => {
                let seen = last.map_or_else(|| "no such object".to_owned(), |object| yaml(&object));
                panic!(
                    "{} {name}: {what}: not within {} s; last seen:\n{seen}",
                    K::kind(&()),
                    limit.as_secs()
                );
            }
        }
    }
}

/// Asks again until the answer is yes. Only for what the API server offers no watch of, such as the moment from which
/// its own caches know a new RoleBinding or policy; each answer is a request's, never a guess of time.
pub async fn until_answered(what: &str, mut ask: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    let mut turns = interval(Duration::from_millis(25));
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        match timeout_at(deadline, ask()).await {
            Ok(true) => return,
            Ok(false) if Instant::now() < deadline => {}
            _ => panic!("{what}: not within {} s", DEADLINE.as_secs()),
        }
    }
}

/// An object as a person reads it.
pub fn yaml<T: Serialize>(object: &T) -> String {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    if let Some(metadata) = value
        .pointer_mut("/metadata")
        .and_then(serde_json::Value::as_object_mut)
    {
        metadata.remove("managedFields");
    }
    // Two hundred lines of base64 help nobody.
    for long in ["/spec/envelope", "/spec/mu"] {
        if let Some(text) = value.pointer_mut(long) {
            *text = "(left out)".into();
        }
    }
    serde_saphyr::to_string(&value).unwrap_or_else(|error| format!("cannot be shown: {error}"))
}
