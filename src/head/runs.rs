//! The runs that a head knows: those under way, and as many finished ones as fit, so that every question can be asked
//! again. What a run does is not decided here.

use crypto::attestation::RunError;
use head_proto::run_event::Event;
use head_proto::{Finished, RunEvent};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// What is kept of finished runs.
#[derive(Clone, Copy, Debug)]
pub struct Keep {
    /// Runs, at most.
    pub count: usize,
    /// Bytes of their events, at most.
    pub bytes: usize,
}

/// One run and everything that has happened in it.
#[derive(Debug)]
pub struct Run {
    id: Arc<str>,
    log: Mutex<Log>,
    length: watch::Sender<usize>,
    stop: watch::Sender<Option<RunError>>,
}

#[derive(Debug, Default)]
struct Log {
    events: Vec<RunEvent>,
    bytes: usize,
    finished: bool,
}

impl Run {
    fn new(id: Arc<str>) -> Self {
        Self {
            id,
            log: Mutex::default(),
            length: watch::Sender::new(0),
            stop: watch::Sender::new(None),
        }
    }

    /// The run's id.
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Adds an event, numbered in its order.
    pub fn add(&self, event: Event) {
        let length = {
            let mut log = lock(&self.log);
            log.bytes += weight(&event);
            log.finished |= matches!(event, Event::Finished(_));
            let sequence = log.events.len() as u64 + 1;
            log.events.push(RunEvent {
                sequence,
                event: Some(event),
            });
            log.events.len()
        };
        self.length.send_replace(length);
    }

    /// All events from the first, then live, up to and with Finished.
    pub fn follow(self: &Arc<Self>) -> ReceiverStream<Result<RunEvent, Status>> {
        let (sender, receiver) = mpsc::channel(64);
        let run = self.clone();
        tokio::spawn(async move {
            let mut length = run.length.subscribe();
            let mut next = 0;
            loop {
                // One at a time, so that a slow reader never holds copies of the whole log.
                let event = lock(&run.log).events.get(next).cloned();
                let Some(event) = event else {
                    tokio::select! {
                        () = sender.closed() => return,
                        changed = length.wait_for(|length| *length > next) => if changed.is_err() { return },
                    }
                    continue;
                };
                next += 1;
                let last = matches!(event.event, Some(Event::Finished(_)));
                if sender.send(Ok(event)).await.is_err() || last {
                    return;
                }
            }
        });
        ReceiverStream::new(receiver)
    }

    /// A way to be told to stop, and why.
    pub fn stopped(&self) -> watch::Receiver<Option<RunError>> {
        self.stop.subscribe()
    }

    fn stop(&self, cause: RunError) {
        self.stop.send_if_modified(|known| {
            let first = known.is_none();
            known.get_or_insert(cause);
            first
        });
    }
}

/// What came of asking for a run.
#[derive(Debug)]
pub enum Entry {
    /// It is new; the caller must run it.
    New(Arc<Run>),
    /// It is known: under way, or finished.
    Known(Arc<Run>),
    /// As many runs as the head takes are under way.
    Full,
}

/// All runs that are known.
#[derive(Debug)]
pub struct Registry {
    capacity: usize,
    keep: Keep,
    inner: Mutex<Inner>,
    running: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Inner {
    runs: HashMap<Arc<str>, Arc<Run>>,
    running: usize,
    /// Oldest first, with the weight of each.
    finished: VecDeque<(Arc<str>, usize)>,
    bytes: usize,
}

impl Registry {
    /// For `capacity` runs at once.
    pub fn new(capacity: usize, keep: Keep) -> Self {
        Self {
            capacity,
            keep,
            inner: Mutex::default(),
            running: watch::Sender::new(0),
        }
    }

    /// The run with this id; a new one if there is none and there is room.
    pub fn enter(&self, id: &str) -> Entry {
        let mut inner = lock(&self.inner);
        if let Some(run) = inner.runs.get(id) {
            return Entry::Known(run.clone());
        }
        if inner.running >= self.capacity {
            return Entry::Full;
        }
        let run = Arc::new(Run::new(id.into()));
        inner.runs.insert(run.id.clone(), run.clone());
        inner.running += 1;
        self.running.send_replace(inner.running);
        Entry::New(run)
    }

    /// The run with this id, if it is known.
    pub fn find(&self, id: &str) -> Option<Arc<Run>> {
        lock(&self.inner).runs.get(id).cloned()
    }

    /// Ends a run that was entered as new: adds its last event and forgets the oldest runs if there are too many.
    pub fn finish(&self, run: &Run, finished: Finished) {
        let mut inner = lock(&self.inner);
        // The place is free before anyone can see that the run is over.
        inner.running -= 1;
        run.add(Event::Finished(finished));
        let weight = lock(&run.log).bytes;
        inner.bytes += weight;
        inner.finished.push_back((run.id.clone(), weight));
        while inner.finished.len() > self.keep.count || inner.bytes > self.keep.bytes {
            let Some((id, weight)) = inner.finished.pop_front() else {
                break;
            };
            inner.runs.remove(&id);
            inner.bytes -= weight;
        }
        self.running.send_replace(inner.running);
    }

    /// Stops a run. False when it is unknown or over.
    pub fn stop(&self, id: &str, cause: RunError) -> bool {
        let Some(run) = self.find(id) else {
            return false;
        };
        if lock(&run.log).finished {
            return false;
        }
        run.stop(cause);
        true
    }

    /// Stops all runs under way.
    pub fn stop_all(&self, cause: &RunError) {
        let runs: Vec<_> = lock(&self.inner).runs.values().cloned().collect();
        for run in runs {
            if !lock(&run.log).finished {
                run.stop(cause.clone());
            }
        }
    }

    /// Ids of the runs under way, in order.
    pub fn running_ids(&self) -> Vec<String> {
        let runs: Vec<_> = lock(&self.inner).runs.values().cloned().collect();
        let mut ids: Vec<_> = runs
            .iter()
            .filter(|run| !lock(&run.log).finished)
            .map(|run| run.id.to_string())
            .collect();
        ids.sort();
        ids
    }

    /// How many runs are under way, and a way to wait for a change.
    pub fn running(&self) -> watch::Receiver<usize> {
        self.running.subscribe()
    }
}

/// What an event takes in memory, roughly.
fn weight(event: &Event) -> usize {
    const SELF: usize = 128;
    SELF + match event {
        Event::Started(started) => started.grant.len() + started.document.len() + started.inputs.len(),
        Event::Block(block) => block.name.len() + block.language.len() + block.diagnostics.len(),
        Event::Output(output) => output.data.len(),
        Event::Finished(finished) => finished.attestation.len() + finished.outputs.len(),
    }
}

/// Nothing panics while a lock is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandbox::execution::failure;
    use sandbox::reason;

    fn finish(registry: &Registry, id: &str) {
        let Entry::New(run) = registry.enter(id) else {
            panic!("{id} is not new");
        };
        registry.finish(&run, Finished::default());
    }

    #[test]
    fn a_known_run_is_rejoined_and_takes_no_second_place() {
        let keep = Keep {
            count: 10,
            bytes: 1 << 20,
        };
        let registry = Registry::new(1, keep);
        assert!(matches!(registry.enter("a"), Entry::New(_)));
        assert!(matches!(registry.enter("a"), Entry::Known(_)));
        assert!(matches!(registry.enter("b"), Entry::Full));
        assert_eq!(registry.running_ids(), ["a"]);
    }

    #[test]
    fn the_oldest_finished_runs_are_forgotten_first() {
        let registry = Registry::new(
            1,
            Keep {
                count: 2,
                bytes: 1 << 20,
            },
        );
        for id in ["a", "b", "c"] {
            finish(&registry, id);
        }
        assert!(registry.find("a").is_none());
        assert!(registry.find("b").is_some() && registry.find("c").is_some());
        assert_eq!(*registry.running().borrow(), 0);
    }

    #[test]
    fn only_a_run_under_way_can_be_stopped_and_the_first_cause_counts() {
        let registry = Registry::new(
            2,
            Keep {
                count: 2,
                bytes: 1 << 20,
            },
        );
        finish(&registry, "a");
        assert!(!registry.stop("a", failure(reason::CANCELLED, "")));
        assert!(!registry.stop("unknown", failure(reason::CANCELLED, "")));
        let Entry::New(run) = registry.enter("b") else {
            panic!("b is not new");
        };
        assert!(registry.stop("b", failure(reason::CANCELLED, "first")));
        assert!(registry.stop("b", failure(reason::CANCELLED, "second")));
        assert_eq!(run.stopped().borrow().as_ref().unwrap().message, "first");
    }
}
