//! A head and its pods for tests: what a plan asks for is done, and pods live and die.

use api::ChimeraHead;
use jiff::{SignedDuration, Timestamp};

use super::{Observed, Plan, PodView, plan};
use crate::head_pod::{Template, pod_name, template_hash};

/// A ChimeraHead `q`.
pub fn head(replicas: i32, spares: i32) -> ChimeraHead {
    let spec = serde_json::json!({"role": "quantum", "replicas": replicas, "spares": spares});
    let mut head = ChimeraHead::new("q", serde_json::from_value(spec).expect("a spec"));
    head.metadata.generation = Some(1);
    head.metadata.namespace = Some("team".into());
    head.metadata.uid = Some("u".into());
    head
}

/// The operator's settings.
pub fn template() -> Template {
    Template {
        default_image: "localhost/head:1".into(),
        allowed_images: Vec::new(),
        isolation: "full".into(),
        operator_namespace: "chimera-system".into(),
    }
}

/// A pod that serves.
pub fn pod(head: &ChimeraHead, slot: i32, incarnation: u32, spare: bool) -> PodView {
    PodView {
        name: pod_name("q", slot, incarnation),
        uid: format!("uid-{slot}-{incarnation}"),
        slot,
        incarnation,
        spare,
        template_hash: template_hash(head, &template()),
        kubelet_ready: true,
        ready: true,
        agent: Some(format!("agent-{slot}-{incarnation}")),
        ..PodView::default()
    }
}

/// The decision about these pods at that second.
pub fn decide_at(head: &ChimeraHead, pods: Vec<PodView>, now: Timestamp) -> Plan {
    plan(&Observed {
        head,
        template: &template(),
        identity: Ok(()),
        refused: None,
        pods,
        now,
    })
}

/// The decision about these pods.
pub fn decide(head: &ChimeraHead, pods: Vec<PodView>) -> Plan {
    decide_at(head, pods, Timestamp::from_second(100).expect("in range"))
}

/// A head with its pods, and the time.
pub struct World {
    /// The head with its status.
    pub head: ChimeraHead,
    /// The pods.
    pub pods: Vec<PodView>,
    /// The present.
    pub now: Timestamp,
    /// The most pods that there were at once.
    pub most: usize,
    /// The fewest that took runs after any step.
    pub fewest_serving: usize,
}

impl World {
    /// A head all of whose pods are ready.
    pub fn settled(replicas: i32, spares: i32) -> Self {
        let mut world = Self {
            head: head(replicas, spares),
            pods: Vec::new(),
            now: Timestamp::from_second(1_000).expect("in range"),
            most: 0,
            fewest_serving: 0,
        };
        world.settle();
        world.fewest_serving = world.serving();
        world
    }

    /// Time goes on.
    pub fn wait(&mut self, seconds: i64) {
        self.now = self
            .now
            .checked_add(SignedDuration::from_secs(seconds))
            .expect("in range");
    }

    /// Decides, and does what was decided. New pods start and are not ready.
    pub fn step(&mut self) -> Plan {
        let plan = decide_at(&self.head, self.pods.clone(), self.now);
        for duty in &plan.duties {
            self.pod(&duty.uid).spare = duty.spare;
        }
        for restored in &plan.restore {
            self.pod(&restored.uid).draining = false;
        }
        for new in &plan.create {
            let made = pod(&self.head, new.slot, new.incarnation, new.spare);
            assert!(
                self.pods.iter().all(|pod| pod.name != made.name),
                "{} twice",
                made.name
            );
            self.pods.push(PodView {
                ready: false,
                kubelet_ready: false,
                agent: None,
                ..made
            });
        }
        for drain in &plan.drain {
            self.pod(&drain.uid).draining = true;
        }
        self.pods
            .retain(|pod| !pod.deleting && plan.remove.iter().all(|removal| removal.uid != pod.uid));
        self.head.status = Some(plan.status.clone());
        self.most = self.most.max(self.pods.len());
        self.fewest_serving = self.fewest_serving.min(self.serving());
        plan
    }

    /// Steps until nothing changes; pods that start become ready in between.
    pub fn settle(&mut self) -> Vec<Plan> {
        let mut plans = Vec::new();
        for _ in 0..100 {
            let before = (self.pods.clone(), self.head.status.clone());
            plans.push(self.step());
            for pod in self.pods.iter_mut().filter(|pod| pod.is_unheard()) {
                if pod.unschedulable_since.is_none() {
                    (pod.ready, pod.kubelet_ready) = (true, true);
                    pod.agent = Some(format!("agent-{}", pod.name));
                }
            }
            self.wait(1);
            if before == (self.pods.clone(), self.head.status.clone()) {
                return plans;
            }
        }
        panic!("it never rests: {:#?}", self.pods);
    }

    /// The pod with that UID.
    pub fn pod(&mut self, uid: &str) -> &mut PodView {
        let found = self.pods.iter_mut().find(|pod| pod.uid == uid);
        found.unwrap_or_else(|| panic!("no pod {uid}"))
    }

    /// UIDs of the pods that serve, or of the spares.
    pub fn uids(&self, spare: bool) -> Vec<String> {
        let of = self.pods.iter().filter(|pod| pod.spare == spare && !pod.draining);
        of.map(|pod| pod.uid.clone()).collect()
    }

    /// How many pods take runs.
    pub fn serving(&self) -> usize {
        let takes = |pod: &&PodView| pod.ready && !pod.spare && pod.stays();
        self.pods.iter().filter(takes).count()
    }
}
