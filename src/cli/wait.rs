//! Waits for the state of one object, by a watch.

use std::fmt::Debug;
use std::time::Duration;

use futures::StreamExt as _;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::exit_code::ExitCode;

/// How long a verb waits for the operator where its user does not say.
pub const LIMIT: &str = "2m";

/// Waits until `done`.
pub async fn until<K>(objects: Api<K>, name: &str, done: impl Fn(&K) -> bool) -> Result<K, Error>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let mut states = std::pin::pin!(watcher::watch_object(objects, name).default_backoff());
    while let Some(state) = states.next().await {
        match state {
            Ok(Some(object)) if done(&object) => return Ok(object),
            Ok(None) => return Err(Error::failed(format!("{name} was deleted"))),
            // The watch starts again by itself, unless it is refused.
            Err(watcher::Error::InitialListFailed(cause) | watcher::Error::WatchStartFailed(cause)) => {
                if let kube::Error::Api(status) = &cause
                    && matches!(status.code, 401 | 403)
                {
                    return Err(cause.into());
                }
            }
            Ok(Some(_)) | Err(_) => {}
        }
    }
    Err(Error::failed(format!("the watch of {name} ended")))
}

/// The same, but not for ever. `what` did not happen, says the error.
pub async fn at_most<T>(
    limit: Duration,
    what: &str,
    wait: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    match tokio::time::timeout(limit, wait).await {
        Ok(result) => result,
        Err(_) => Err(Error::new(
            ExitCode::TimedOut,
            format!("{what} did not happen within {limit:?}"),
        )),
    }
}
