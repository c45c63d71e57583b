//! What makes an object be looked at again besides its own change: a run that ended, a place that was given to it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use api::{ChimeraHead, MamlWorkflow};
use kube::runtime::reflector::ObjectRef;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Sends references to the queues of all scopes; a scope that does not hold the object ignores it.
#[derive(Default)]
pub struct Triggers {
    workflows: Mutex<Vec<UnboundedSender<ObjectRef<MamlWorkflow>>>>,
    heads: Mutex<Vec<UnboundedSender<ObjectRef<ChimeraHead>>>>,
    everything: Mutex<Vec<UnboundedSender<()>>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Triggers {
    /// References to workflows that are to be looked at.
    pub fn subscribe_workflows(&self) -> UnboundedReceiver<ObjectRef<MamlWorkflow>> {
        let (sender, receiver) = unbounded_channel();
        locked(&self.workflows).push(sender);
        receiver
    }

    /// References to heads that are to be looked at.
    pub fn subscribe_heads(&self) -> UnboundedReceiver<ObjectRef<ChimeraHead>> {
        let (sender, receiver) = unbounded_channel();
        locked(&self.heads).push(sender);
        receiver
    }

    /// Has a workflow looked at.
    pub fn workflow(&self, reference: &ObjectRef<MamlWorkflow>) {
        locked(&self.workflows).retain(|queue| queue.send(reference.clone()).is_ok());
    }

    /// Has a head looked at.
    pub fn head(&self, namespace: &str, name: &str) {
        let reference = ObjectRef::new(name).within(namespace);
        locked(&self.heads).retain(|queue| queue.send(reference.clone()).is_ok());
    }

    /// Has every queue look at all its workflows: something that all of them may have waited for has changed.
    pub fn wake_all(&self) {
        locked(&self.everything).retain(|queue| queue.send(()).is_ok());
    }

    /// Calls to look at everything.
    pub fn subscribe_everything(&self) -> UnboundedReceiver<()> {
        let (sender, receiver) = unbounded_channel();
        locked(&self.everything).push(sender);
        receiver
    }
}
