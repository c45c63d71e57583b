//! What makes an object be looked at again besides its own change: a run that ended, a head that became free.
//!
//! Runs that found no place wait here, oldest first. A freed place wakes as many as may fit, so that a queue of a
//! thousand is not looked at a thousand times for each place.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use api::{ChimeraHead, MamlWorkflow};
use jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// How many waiting runs a change of the fleet wakes at once.
const WAKE_AT_ONCE: usize = 64;
/// How many are woken by one freed place: the first may have waited for another head.
pub const WAKE_ON_RELEASE: usize = 4;

/// The place of a waiting run in the queue: the creation of its workflow, then its UID.
type Turn = (Timestamp, String);

/// Sends references to the queues of all scopes; a scope that does not hold the object ignores it.
#[derive(Default)]
pub struct Triggers {
    workflows: Mutex<Vec<UnboundedSender<ObjectRef<MamlWorkflow>>>>,
    heads: Mutex<Vec<UnboundedSender<ObjectRef<ChimeraHead>>>>,
    everything: Mutex<Vec<UnboundedSender<()>>>,
    waiting: Mutex<BTreeMap<Turn, ObjectRef<MamlWorkflow>>>,
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

    /// Queues a workflow that found no place.
    pub fn wait(&self, created: Timestamp, uid: &str, reference: ObjectRef<MamlWorkflow>) {
        locked(&self.waiting).insert((created, uid.to_owned()), reference);
    }

    /// Takes a workflow out of the queue: it found a place, ended, or is gone.
    pub fn stop_waiting(&self, created: Timestamp, uid: &str) {
        locked(&self.waiting).remove(&(created, uid.to_owned()));
    }

    /// How many runs wait for a place.
    pub fn waiting(&self) -> usize {
        locked(&self.waiting).len()
    }

    /// Has the oldest waiting runs looked at.
    pub fn wake_waiting(&self) {
        self.wake_waiting_up_to(WAKE_AT_ONCE);
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

    /// Has the oldest `count` waiting runs looked at. They keep their turn until they stop waiting.
    pub fn wake_waiting_up_to(&self, count: usize) {
        let woken: Vec<_> = locked(&self.waiting).values().take(count).cloned().collect();
        for reference in &woken {
            self.workflow(reference);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_waiting_run_is_woken_first_and_keeps_its_turn_until_it_stops_waiting() {
        let triggers = Triggers::default();
        let mut queue = triggers.subscribe_workflows();
        let at = |second| Timestamp::from_second(second).expect("in range");
        triggers.wait(at(2), "b", ObjectRef::new("young").within("n"));
        triggers.wait(at(1), "a", ObjectRef::new("old").within("n"));
        triggers.wake_waiting_up_to(1);
        assert_eq!(queue.try_recv().expect("woken").name, "old");
        assert!(queue.try_recv().is_err());
        triggers.stop_waiting(at(1), "a");
        triggers.wake_waiting_up_to(1);
        assert_eq!(queue.try_recv().expect("woken").name, "young");
    }
}
