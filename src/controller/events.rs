//! Events (events.k8s.io/v1) for `kubectl describe` and `chimera events`.
//!
//! They are told in the background, at a limited rate, and dropped when too many wait: an Event is a courtesy and
//! must never slow a run down.

use std::time::Duration;

use api::names::REPORTING_CONTROLLER;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client, Resource,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::client::CALL_DEADLINE;

const WAITING_AT_MOST: usize = 256;
const PAUSE_BETWEEN: Duration = Duration::from_millis(40);

/// Tells Events.
#[derive(Clone)]
pub struct Events(Sender<(Event, ObjectReference)>);

impl Events {
    /// Starts the background task that writes Events in the name of `instance`.
    pub fn start(client: Client, instance: String) -> Self {
        let (sender, receiver) = channel(WAITING_AT_MOST);
        let reporter = Reporter {
            controller: REPORTING_CONTROLLER.to_owned(),
            instance: Some(instance),
        };
        tokio::spawn(publish(Recorder::new(client, reporter), receiver));
        Self(sender)
    }

    /// Tells of something as it should be.
    pub fn normal<K: Resource<DynamicType = ()>>(&self, about: &K, reason: &str, note: impl Into<String>) {
        self.tell(about, EventType::Normal, reason, &note.into());
    }

    /// Tells of something that somebody should look at.
    pub fn warning<K: Resource<DynamicType = ()>>(&self, about: &K, reason: &str, note: impl Into<String>) {
        self.tell(about, EventType::Warning, reason, &note.into());
    }

    fn tell<K: Resource<DynamicType = ()>>(&self, about: &K, type_: EventType, reason: &str, note: &str) {
        let event = Event {
            type_,
            reason: reason.to_owned(),
            // The API takes a kilobyte.
            note: Some(controller_core::workflow_status::shortened(note, 1000)),
            action: reason.to_owned(),
            secondary: None,
        };
        if self.0.try_send((event, about.object_ref(&()))).is_err() {
            tracing::debug!(reason, "an event was dropped: too many wait");
        }
    }
}

async fn publish(recorder: Recorder, mut events: Receiver<(Event, ObjectReference)>) {
    while let Some((event, about)) = events.recv().await {
        match tokio::time::timeout(CALL_DEADLINE, recorder.publish(&event, &about)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, reason = event.reason, "an event could not be written"),
            Err(_) => tracing::warn!(reason = event.reason, "an event could not be written in time"),
        }
        tokio::time::sleep(PAUSE_BETWEEN).await;
    }
}
