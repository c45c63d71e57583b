//! The load: workflows created one after another or at once, and the moments at which a watch shows them Signed.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use api::{
    MamlWorkflow, MamlWorkflowStatus,
    condition::{SIGNED, SUCCEEDED, is_true},
};
use e2e::{Namespace, documents, runs, wait::DEADLINE};
use futures::{StreamExt as _, future::join_all, pin_mut};
use jiff::Timestamp;
use kube::{
    ResourceExt,
    api::ListParams,
    runtime::{WatchStreamExt as _, watcher},
};
use tokio::{
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    time::timeout,
};

/// A run that is over, with what was measured.
#[derive(Debug)]
pub struct Finished {
    /// From just before the request to the watch event that showed the workflow Signed.
    pub signed_millis: f64,
    /// The request that created the workflow.
    pub create_millis: f64,
    /// Whether the run succeeded.
    pub succeeded: bool,
    created: Timestamp,
    seen: Timestamp,
    status: MamlWorkflowStatus,
}

impl Finished {
    /// Milliseconds from the API server's answer to the operator's claim of a head.
    pub fn to_scheduled(&self) -> Option<f64> {
        between(Some(self.created), self.status.scheduled_at)
    }

    /// Milliseconds from the claim to the start of the program.
    pub fn to_started(&self) -> Option<f64> {
        between(self.status.scheduled_at, self.status.started_at)
    }

    /// Milliseconds that the program ran.
    pub fn program(&self) -> Option<f64> {
        between(self.status.started_at, self.status.finished_at)
    }

    /// Milliseconds from the end of the program to the watch event.
    pub fn to_seen(&self) -> Option<f64> {
        between(self.status.finished_at, Some(self.seen))
    }
}

fn between(from: Option<Timestamp>, to: Option<Timestamp>) -> Option<f64> {
    Some(to?.duration_since(from?).as_secs_f64() * 1000.0)
}

/// A workflow that the watch showed Signed.
struct Sight {
    name: String,
    at: Instant,
    seen: Timestamp,
    status: MamlWorkflowStatus,
}

/// The watch.
pub struct Signed(UnboundedReceiver<Sight>);

impl Signed {
    /// Begins to watch the namespace. What is Signed already is not reported again.
    pub async fn watch(space: &Namespace) -> Self {
        let api = space.api::<MamlWorkflow>();
        let old = api
            .list(&ListParams::default())
            .await
            .expect("workflows can be listed");
        let mut known: Vec<_> = old.items.iter().map(ResourceExt::name_any).collect();
        let (sender, receiver) = unbounded_channel();
        tokio::spawn(async move {
            let stream = watcher(api, watcher::Config::default())
                .default_backoff()
                .applied_objects();
            pin_mut!(stream);
            while let Some(event) = stream.next().await {
                let (at, seen) = (Instant::now(), Timestamp::now());
                let Ok(workflow) = event else { continue };
                let (name, status) = (workflow.name_any(), runs::status(&workflow));
                if is_true(&status.conditions, SIGNED) && !known.contains(&name) {
                    known.push(name.clone());
                    if sender
                        .send(Sight {
                            name,
                            at,
                            seen,
                            status,
                        })
                        .is_err()
                    {
                        return;
                    }
                }
            }
        });
        Self(receiver)
    }

    /// Creates each document when the one before is signed. With it, the seconds that all took.
    pub async fn one_after_another(&mut self, space: &Namespace, count: usize) -> (Vec<Finished>, f64) {
        let begun = Instant::now();
        let mut finished = Vec::with_capacity(count);
        for index in 0..count {
            let birth = create(space, &format!("single-{index}")).await;
            finished.push(self.next().await.since(&birth));
        }
        (finished, begun.elapsed().as_secs_f64())
    }

    /// Creates all documents at once. With it, the seconds until the last was signed.
    pub async fn at_once(&mut self, space: &Namespace, count: usize) -> (Vec<Finished>, f64) {
        let begun = Instant::now();
        let names: Vec<_> = (0..count).map(|index| format!("burst-{count}-{index}")).collect();
        let births = join_all(names.iter().map(|name| create(space, name))).await;
        let births: BTreeMap<_, _> = names.iter().zip(births).collect();
        let mut finished = Vec::with_capacity(count);
        let mut last = begun;
        while finished.len() < count {
            let sight = self.next().await;
            let Some(birth) = births.get(&sight.name) else {
                continue;
            };
            last = last.max(sight.at);
            finished.push(sight.since(birth));
        }
        (finished, last.duration_since(begun).as_secs_f64())
    }

    async fn next(&mut self) -> Sight {
        let next = timeout(DEADLINE, self.0.recv()).await;
        next.expect("a run is signed within the deadline")
            .expect("the watch goes on")
    }
}

/// When a workflow was created.
struct Birth {
    asked: Instant,
    took: Duration,
    created: Timestamp,
}

async fn create(space: &Namespace, name: &str) -> Birth {
    let workflow = runs::workflow(name, documents::small());
    let asked = Instant::now();
    space.create_object(&workflow).await;
    Birth {
        asked,
        took: asked.elapsed(),
        created: Timestamp::now(),
    }
}

impl Sight {
    fn since(self, birth: &Birth) -> Finished {
        let millis = |time: Duration| time.as_secs_f64() * 1000.0;
        Finished {
            signed_millis: millis(self.at.saturating_duration_since(birth.asked)),
            create_millis: millis(birth.took),
            succeeded: is_true(&self.status.conditions, SUCCEEDED),
            created: birth.created,
            seen: self.seen,
            status: self.status,
        }
    }
}
