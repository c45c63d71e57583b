//! Clients of the API server whose every call ends.
//!
//! kube's own defaults are dangerous for a writer: reads never time out, and its retry layer repeats a POST after a
//! 503 although the first one may have been stored. Both are off here; what repeats a call is the next reconcile.

use std::{future::Future, sync::Arc, time::Duration};

use kube::{Client, Config, client::ClientBuilder};
use tower::{limit::RateLimitLayer, util::MapResponseLayer};

use crate::watch::{Pulse, WATCH_SECONDS};

/// The longest that one call may take.
pub const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// A failed call.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The API server answered with an error.
    #[error("{action}: {message} ({status})")]
    Refused {
        /// What was being done.
        action: &'static str,
        /// HTTP status.
        status: u16,
        /// Its reason in one word, the most particular one: of a cause, if it names causes.
        reason: String,
        /// The API server's own words.
        message: String,
    },
    /// The connection broke, or the answer could not be read.
    #[error("{action}")]
    Failed {
        /// What was being done.
        action: &'static str,
        /// kube's own account.
        #[source]
        source: Box<kube::Error>,
    },
    /// No answer within [`CALL_DEADLINE`].
    #[error("{action}: no answer in {} s", CALL_DEADLINE.as_secs())]
    TimedOut {
        /// What was being done.
        action: &'static str,
    },
}

impl CallError {
    /// The HTTP status, when the API server answered with one.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            Self::Failed { .. } | Self::TimedOut { .. } => None,
        }
    }

    /// Whether nothing can be made because the namespace is on its way out.
    pub fn is_terminating(&self) -> bool {
        matches!(self, Self::Refused { reason, .. } if reason == "NamespaceTerminating")
    }

    /// Whether the object is not there.
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(404)
    }

    /// Whether the API server understood the request and will not have it: a quota, a policy, an invalid object.
    pub fn is_refusal(&self) -> bool {
        matches!(self.status(), Some(400 | 403 | 422))
    }

    /// Whether somebody else wrote first, or the name is taken.
    pub fn is_conflict(&self) -> bool {
        self.status() == Some(409)
    }
}

/// Awaits one call of the API server, for [`CALL_DEADLINE`] at most.
pub async fn call<T>(
    action: &'static str,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, CallError> {
    match tokio::time::timeout(CALL_DEADLINE, request).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(kube::Error::Api(refusal))) => {
            let kube::core::Status {
                code,
                message,
                reason,
                details,
                ..
            } = *refusal;
            let cause =
                details.and_then(|details| details.causes.into_iter().map(|cause| cause.reason).next());
            let reason = cause.filter(|cause| !cause.is_empty()).unwrap_or(reason);
            Err(CallError::Refused {
                action,
                status: code,
                reason,
                message,
            })
        }
        Ok(Err(source)) => Err(CallError::Failed {
            action,
            source: Box::new(source),
        }),
        Err(_) => Err(CallError::TimedOut { action }),
    }
}

/// The configuration for all clients: from the kubeconfig, else from the pod.
pub async fn config() -> Result<Config, kube::config::InferConfigError> {
    let mut config = Config::infer().await?;
    config.connect_timeout = Some(Duration::from_secs(5));
    config.default_retry = false;
    Ok(config)
}

/// A client for short calls: reads and writes that end within [`CALL_DEADLINE`].
pub fn writer(config: &Config) -> Result<Client, kube::Error> {
    let mut config = config.clone();
    config.read_timeout = Some(CALL_DEADLINE);
    config.write_timeout = Some(CALL_DEADLINE);
    config.reset_reader_on_write = true;
    Client::try_from(config)
}

/// A client for one watch, which notes every answer on `pulse`. A watch ends by itself after [`WATCH_SECONDS`]; a
/// connection that says nothing for longer is dead. kube reopens a watch that the server closes without an error at
/// once and for ever, so the requests of a watch are limited to three in three seconds.
pub fn watcher(config: &Config, pulse: &Arc<Pulse>) -> Result<Client, kube::Error> {
    let mut config = config.clone();
    config.read_timeout = Some(Duration::from_secs(u64::from(WATCH_SECONDS) + 60));
    config.reset_reader_on_write = true;
    let pulse = Arc::clone(pulse);
    let answered = MapResponseLayer::new(move |response: http::Response<_>| {
        if response.status().is_success() {
            pulse.beat();
        }
        response
    });
    let limit = RateLimitLayer::new(3, Duration::from_secs(3));
    Ok(ClientBuilder::try_from(config)?
        .with_layer(&answered)
        .with_layer(&limit)
        .build())
}
