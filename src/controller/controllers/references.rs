//! What is looked at: references to objects, from what watches report and what the process tells itself.

use std::{sync::Arc, time::Duration};

use api::{ChimeraHead, MamlWorkflow};
use futures::{
    Stream, StreamExt as _,
    stream::{self, BoxStream},
};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Resource, ResourceExt as _,
    core::PartialObjectMeta,
    runtime::reflector::{ObjectRef, Store},
};
use tokio::task::JoinSet;
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::stop_run;
use crate::{context::Scope, head, run_pod, watch::Change};

/// Objects that changed.
pub fn references<K>(changes: BoxStream<'static, Change<K>>) -> BoxStream<'static, ObjectRef<K>>
where
    K: Resource<DynamicType = ()> + Send + Sync + 'static,
{
    changes.map(|change| ObjectRef::from_obj(change.object())).boxed()
}

/// All objects of a store, whenever something is told that concerns all of them.
pub fn all_when<K, T>(
    told: impl Stream<Item = T> + Send + 'static,
    store: Store<K>,
) -> BoxStream<'static, ObjectRef<K>>
where
    K: Resource<DynamicType = ()> + Clone + Send + Sync + 'static,
{
    told.flat_map(move |_| {
        let all = store.state();
        stream::iter(all.into_iter().map(|object| ObjectRef::from_obj(object.as_ref())))
    })
    .boxed()
}

/// Polls a stream in a task of its own, so that its store fills before anybody reads the references.
pub fn drive<T: Send + 'static>(
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

/// References one after another, each after a pause that is asked for when its turn has come.
pub fn limited<T: Send + 'static>(
    references: BoxStream<'static, T>,
    pause: impl Fn() -> Duration + Send + 'static,
) -> BoxStream<'static, T> {
    references
        .then(move |reference| {
            let pause = tokio::time::sleep(pause());
            async move {
                pause.await;
                reference
            }
        })
        .boxed()
}

/// Heads that changed, as the fleet notes them too.
pub fn head_changes(
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
pub fn workflow_changes(
    changes: BoxStream<'static, Change<MamlWorkflow>>,
    scope: Arc<Scope>,
) -> BoxStream<'static, ObjectRef<MamlWorkflow>> {
    changes
        .filter_map(move |change| {
            std::future::ready(match change {
                Change::Applied(workflow) => Some(ObjectRef::from_obj(&workflow)),
                Change::Deleted(workflow) => {
                    stop_run(&scope.context, &workflow.uid().unwrap_or_default());
                    None
                }
            })
        })
        .boxed()
}

/// Workflows whose document is in a ConfigMap that changed, if they wait for it.
pub fn waiting_for(
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

/// Keeps the fleet in step with the pods that changed.
pub async fn follow_pods(mut changes: BoxStream<'static, Change<Pod>>, scope: Arc<Scope>) {
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
