//! How many workers wait for runs with CUDA initialised: as many as are wanted, if the device's memory suffices.

use super::wire::{FromWorker, PACKET, ToWorker, Wire};
use super::{Begin, Order};
use crate::folder::Folder;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Tokens of workers, which are forked before there is a run to give one.
const FIRST_TOKEN: u64 = 1 << 63;

/// Of the device's memory, what contexts that only wait may take together: one part in this many. The rest is for runs.
const SHARE: u64 = 4;

/// How many workers should be warm. `first` is what the first of them found once its own context was there: the device's
/// free memory and all of it, in bytes. Until then there is one.
///
/// What is in use beside the first context counts as part of it, so the estimate errs towards fewer.
pub(super) fn wanted(most: usize, first: Option<(u64, u64)>) -> usize {
    let Some((free, total)) = first else {
        return most.min(1);
    };
    let context = total.saturating_sub(free).max(1);
    let more = (total / SHARE).saturating_sub(context).min(free) / context;
    most.min(1 + usize::try_from(more).unwrap_or(usize::MAX - 1))
}

/// A worker that was forked for a run to come.
pub(super) struct Worker {
    pub(super) token: u64,
    pub(super) group: i32,
    pub(super) folder: Folder,
    wire: Arc<Wire>,
}

impl Worker {
    /// Hands the run's descriptors over.
    pub(super) async fn give(&self, order: &Order) -> io::Result<()> {
        let told = ToWorker {
            cpu: order.cpu_seconds,
        };
        self.wire
            .send(&told, &[&order.control, &order.stdout, &order.stderr])
            .await
    }
}

/// The token of a worker, and the memory that it found or why it is of no use.
pub(super) type Told = (u64, Result<(u64, u64), String>);

/// Workers with CUDA initialised, and the runs that wait for one.
pub(super) struct Pool {
    most: usize,
    first: Option<(u64, u64)>,
    next: u64,
    coming: HashMap<u64, Worker>,
    warm: VecDeque<Worker>,
    waiting: VecDeque<Begin>,
    told: mpsc::UnboundedReceiver<Told>,
    tell: mpsc::UnboundedSender<Told>,
}

impl Pool {
    pub(super) fn new(most: usize) -> Self {
        let (tell, told) = mpsc::unbounded_channel();
        Self {
            most,
            first: None,
            next: FIRST_TOKEN,
            coming: HashMap::new(),
            warm: VecDeque::new(),
            waiting: VecDeque::new(),
            told,
            tell,
        }
    }

    /// For another zygote on the same devices.
    pub(super) fn like(&self) -> Self {
        Self::new(self.most)
    }

    /// The token of a worker that ought to be forked, if one ought to.
    pub(super) fn missing(&mut self) -> Option<u64> {
        if self.coming.len() + self.warm.len() >= wanted(self.most, self.first) {
            return None;
        }
        self.next += 1;
        Some(self.next)
    }

    /// A worker has been asked for.
    pub(super) fn come(&mut self, token: u64, wire: Wire, folder: Folder) {
        let (wire, tell) = (Arc::new(wire), self.tell.clone());
        let worker = Worker {
            token,
            group: 0,
            folder,
            wire: wire.clone(),
        };
        self.coming.insert(token, worker);
        tokio::spawn(async move {
            let _ = tell.send((token, hear(&wire).await));
        });
    }

    pub(super) fn started(&mut self, token: u64, group: i32) {
        if let Some(worker) = self.coming.get_mut(&token) {
            worker.group = group;
        }
    }

    /// What the next worker tells after its warm-up.
    pub(super) async fn warmed(&mut self) -> Option<Told> {
        self.told.recv().await
    }

    /// A worker is warm. True when it is the first.
    pub(super) fn arrive(&mut self, token: u64, memory: (u64, u64)) -> bool {
        self.warm.extend(self.coming.remove(&token));
        let first = self.first.is_none();
        self.first.get_or_insert(memory);
        first
    }

    /// The folder of a worker that is gone.
    pub(super) fn lose(&mut self, token: u64) -> Option<Folder> {
        let lost = self.coming.remove(&token).or_else(|| {
            let place = self.warm.iter().position(|worker| worker.token == token)?;
            self.warm.remove(place)
        });
        lost.map(|worker| worker.folder)
    }

    pub(super) fn wait(&mut self, begin: Begin) {
        self.waiting.push_back(begin);
    }

    /// A worker for a run, when there are both.
    pub(super) fn pair(&mut self) -> Option<(Worker, Begin)> {
        if self.warm.is_empty() {
            return None;
        }
        let begin = self.waiting.pop_front()?;
        Some((self.warm.pop_front()?, begin))
    }

    pub(super) fn take_waiting(&mut self) -> impl Iterator<Item = Begin> {
        self.waiting.drain(..)
    }

    fn workers(&self) -> impl Iterator<Item = &Worker> {
        self.coming.values().chain(&self.warm)
    }

    /// Process groups of workers without a run.
    pub(super) fn groups(&self) -> impl Iterator<Item = i32> {
        self.workers().map(|worker| worker.group)
    }

    /// Folders of workers without a run.
    pub(super) fn folders(&self) -> impl Iterator<Item = &Folder> {
        self.workers().map(|worker| &worker.folder)
    }
}

async fn hear(wire: &Wire) -> Result<(u64, u64), String> {
    let mut buffer = vec![0; PACKET];
    let length = wire
        .receive(&mut buffer)
        .await
        .map_err(|error| error.to_string())?;
    match serde_json::from_slice(&buffer[..length]) {
        Ok(FromWorker::Warm { free, total }) => Ok((free, total)),
        Ok(FromWorker::Failed { message }) => Err(message),
        Err(_) if length == 0 => Err("it ended".into()),
        Err(error) => Err(format!("it speaks nonsense: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn contexts_that_wait_take_a_quarter_of_the_device_at_most() {
        for (most, first, expected) in [
            (4, None, 1),
            (0, None, 0),
            // Half a GiB each, of eighty.
            (4, Some((80 * GIB - GIB / 2, 80 * GIB)), 4),
            (100, Some((80 * GIB - GIB / 2, 80 * GIB)), 40),
            // A slice of ten: five of half a GiB.
            (8, Some((10 * GIB - GIB / 2, 10 * GIB)), 5),
            // Somebody else has most of it.
            (8, Some((GIB, 10 * GIB)), 1),
            (8, Some((0, 0)), 1),
        ] {
            assert_eq!(wanted(most, first), expected, "{most} {first:?}");
        }
    }
}
