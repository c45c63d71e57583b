//! The runs that wait for a place, and the places that were given to them and not yet taken up.
//!
//! A place that becomes free is given at once to the run whose turn it is, and only then is its workflow looked at: nobody
//! who comes meanwhile finds the place free. So whoever finds a free place that suits overtakes nobody.
//!
//! The fleet calls this with its own lock held; nothing here calls the fleet.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use api::MamlWorkflow;
use controller_core::{
    demand::Demand,
    queue::{Queue, Waiting},
};
use jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;

use crate::{clock, triggers::Triggers};

/// How many waiting runs a change of the fleet has looked at, so that their statuses say what changed.
const TOLD_AT_ONCE: usize = 64;

/// A run that wants a place.
#[derive(Debug, Clone)]
pub struct Candidacy {
    /// The run's id.
    pub run_id: String,
    /// The workflow.
    pub workflow: ObjectRef<MamlWorkflow>,
    /// UID of the workflow.
    pub uid: String,
    /// `spec.submitter`.
    pub submitter: String,
    /// `spec.priority`.
    pub priority: i32,
    /// Creation of the workflow.
    pub created: Timestamp,
    /// Since when the run waits.
    pub since: Timestamp,
}

/// A place that is kept for a run until its workflow takes it up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The run's id.
    pub run_id: String,
    /// UID of the pod.
    pub pod_uid: String,
}

/// A write that the watch may not have shown yet: the resource versions before and after it.
struct Written {
    before: String,
    after: String,
}

#[derive(Default)]
struct Room {
    /// By namespace.
    queues: BTreeMap<String, Queue>,
    /// Those who wait, by the UID of their workflow.
    waiting: HashMap<String, Candidacy>,
    /// Places given and not taken up, by the UID of the workflow.
    grants: HashMap<String, Grant>,
    /// What was last written of those who wait, by the UID of the workflow.
    written: HashMap<String, Written>,
    /// Namespace and submitter of each run that has a place.
    under_way: HashMap<String, (String, String)>,
}

/// Who waits for a place.
pub struct WaitingRoom {
    room: Mutex<Room>,
    triggers: Arc<Triggers>,
}

impl WaitingRoom {
    /// An empty one.
    pub fn new(triggers: Arc<Triggers>) -> Self {
        Self {
            room: Mutex::default(),
            triggers,
        }
    }

    fn room(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a run wait until it is given a place.
    pub fn wait(&self, run: &Candidacy, demand: &Demand) {
        let mut room = self.room();
        let waiting = Waiting {
            uid: run.uid.clone(),
            submitter: run.submitter.clone(),
            priority: run.priority,
            created: run.created,
            since: run.since,
            demand: demand.clone(),
        };
        room.queue(&demand.namespace).wait(waiting);
        room.waiting.insert(run.uid.clone(), run.clone());
    }

    /// Takes up the place that was given to a workflow, if one was.
    pub fn take_up(&self, uid: &str) -> Option<Grant> {
        self.room().grants.remove(uid)
    }

    /// Notes that a run has a place; it waits no longer.
    pub fn begun(&self, namespace: &str, run: &Candidacy) {
        let mut room = self.room();
        room.leave(&run.uid);
        room.begun(namespace, &run.run_id, &run.submitter);
    }

    /// Notes that a run which this process did not place has a place.
    pub fn rejoined(&self, namespace: &str, run_id: &str, submitter: &str) {
        self.room().begun(namespace, run_id, submitter);
    }

    /// Notes that a run gave its place back.
    pub fn ended(&self, run_id: &str) {
        let mut room = self.room();
        let Some((namespace, submitter)) = room.under_way.remove(run_id) else {
            return;
        };
        room.queue(&namespace).ended(&submitter);
        room.tidy(&namespace);
    }

    /// Takes a workflow out: it found a place, ended, is suspended or gone. Gives what place was kept for it.
    pub fn leave(&self, uid: &str) -> Option<Grant> {
        let mut room = self.room();
        room.leave(uid);
        room.written.remove(uid);
        room.grants.remove(uid)
    }

    /// Notes that the status of a workflow that waits was written.
    pub fn wrote(&self, uid: &str, before: String, after: String) {
        let mut room = self.room();
        if room.waiting.contains_key(uid) || room.grants.contains_key(uid) {
            room.written.insert(uid.to_owned(), Written { before, after });
        }
    }

    /// The resource version on which to write next, once: of this process's last write, if what is seen is what that was made on.
    pub fn take_version(&self, uid: &str, seen: Option<&str>) -> Option<String> {
        let written = self.room().written.remove(uid);
        let unseen = written.filter(|written| seen == Some(&written.before));
        unseen
            .map(|written| written.after)
            .or_else(|| seen.map(ToOwned::to_owned))
    }

    /// Gives a place on a pod to the run whose turn it is among those that `suits` names, and has its workflow looked at.
    /// The run's id.
    pub fn give(
        &self,
        (namespace, head): (&str, &str),
        pod_uid: &str,
        suits: impl FnMut(u64, &Demand) -> bool,
    ) -> Option<String> {
        let mut room = self.room();
        let uid = room.queues.get_mut(namespace)?.next(head, clock::now(), suits)?;
        let run = room.leave(&uid)?;
        room.begun(namespace, &run.run_id, &run.submitter);
        let grant = Grant {
            run_id: run.run_id.clone(),
            pod_uid: pod_uid.to_owned(),
        };
        room.grants.insert(uid, grant);
        drop(room);
        self.triggers.workflow(&run.workflow);
        Some(run.run_id)
    }

    /// Has waiting runs of a namespace looked at, those of every lane first that have waited longest: what they wait for has
    /// changed.
    pub fn tell(&self, namespace: &str) {
        let room = self.room();
        let Some(queue) = room.queues.get(namespace).filter(|queue| !queue.is_empty()) else {
            return;
        };
        let told: Vec<_> = queue
            .longest_of_each_lane(TOLD_AT_ONCE.div_ceil(queue.lanes().count()))
            .take(TOLD_AT_ONCE)
            .filter_map(|uid| room.waiting.get(uid).map(|run| run.workflow.clone()))
            .collect();
        drop(room);
        for workflow in &told {
            self.triggers.workflow(workflow);
        }
    }

    /// The UIDs of all workflows that wait or are kept a place.
    pub fn workflows(&self) -> Vec<String> {
        let room = self.room();
        room.waiting.keys().chain(room.grants.keys()).cloned().collect()
    }

    /// Looks at the queue of every namespace.
    pub fn look<R>(&self, look: impl FnOnce(&BTreeMap<String, Queue>) -> R) -> R {
        look(&self.room().queues)
    }

    /// How many runs wait in a namespace.
    pub fn len(&self, namespace: &str) -> usize {
        self.room().queues.get(namespace).map_or(0, Queue::len)
    }

    /// How many lanes of runs wait in a namespace.
    pub fn lanes(&self, namespace: &str) -> usize {
        self.room()
            .queues
            .get(namespace)
            .map_or(0, |queue| queue.lanes().count())
    }
}

impl Room {
    fn queue(&mut self, namespace: &str) -> &mut Queue {
        self.queues.entry(namespace.to_owned()).or_default()
    }

    fn leave(&mut self, uid: &str) -> Option<Candidacy> {
        let run = self.waiting.remove(uid)?;
        let namespace = run.workflow.namespace.clone().unwrap_or_default();
        self.queue(&namespace).leave(uid);
        self.tidy(&namespace);
        Some(run)
    }

    /// A run is counted once, however often it is noted.
    fn begun(&mut self, namespace: &str, run_id: &str, submitter: &str) {
        let of = (namespace.to_owned(), submitter.to_owned());
        if self.under_way.insert(run_id.to_owned(), of).is_none() {
            self.queue(namespace).begun(submitter);
        }
    }

    /// Namespaces come and go.
    fn tidy(&mut self, namespace: &str) {
        if self.queues.get(namespace).is_some_and(Queue::is_idle) {
            self.queues.remove(namespace);
        }
    }
}
