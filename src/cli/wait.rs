//! Waits for the state of one object, by a watch.

use std::fmt::Debug;
use std::time::Duration;

use futures::StreamExt as _;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::exit_code::ExitCode;

/// Whether, and how long, a verb waits for what it asked of the operator.
#[derive(clap::Args, Debug)]
pub struct WaitArgs {
    /// Waits until the operator has done it, and prints what came of it
    #[arg(short, long)]
    wait: bool,

    /// How long to wait; the operator goes on by itself
    #[arg(long, value_name = "DURATION", requires = "wait", default_value = "2m", value_parser = api::duration::parse)]
    timeout: Duration,
}

impl WaitArgs {
    /// Waits until `done`, and gives the object as it is then; `None` when nobody asked to wait.
    pub async fn until<K>(
        &self,
        what: &str,
        objects: Api<K>,
        name: &str,
        done: impl Fn(&K) -> bool,
    ) -> Result<Option<K>, Error>
    where
        K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        if !self.wait {
            return Ok(None);
        }
        at_most(self.timeout, what, until(objects, name, done))
            .await
            .map(Some)
    }
}

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
async fn at_most<T>(
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
