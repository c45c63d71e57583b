//! The ChimeraHeads, whatever pods they have: a run may wait for a head that has none.

use std::{
    collections::BTreeMap,
    sync::{Arc, MutexGuard, PoisonError},
};

use api::{ChimeraHead, ChimeraHeadSpec};
use controller_core::placement::{Group, HeadView, Offer};
use kube::ResourceExt as _;

use super::{Fleet, Member};

/// A ChimeraHead as last seen.
pub(super) struct Noted {
    group: Group,
    /// Its spec but for the numbers of pods: while that stays the same, its pods offer the same.
    spec: ChimeraHeadSpec,
}

impl Fleet {
    /// Notes what is known of a ChimeraHead, whatever pods it has.
    pub fn note(&self, head: &ChimeraHead) {
        let key = (head.namespace().unwrap_or_default(), head.name_any());
        let mut spec = head.spec.clone();
        (spec.replicas, spec.spares) = (0, 0);
        let mut groups = self.groups();
        let known = groups.get(&key).filter(|known| known.spec == spec);
        let offer = known.and_then(|known| known.group.view.offer.clone());
        let group = group(head, offer);
        let changed = known.is_none_or(|known| known.group != group);
        groups.insert(key, Noted { group, spec });
        drop(groups);
        if changed {
            self.room.tell(&head.namespace().unwrap_or_default());
        }
    }

    /// Forgets a ChimeraHead that is gone.
    pub fn forget(&self, namespace: &str, name: &str) {
        self.groups().remove(&(namespace.to_owned(), name.to_owned()));
        self.room.tell(namespace);
    }

    /// Namespace and name of all ChimeraHeads.
    pub fn heads(&self) -> Vec<(String, String)> {
        self.groups().keys().cloned().collect()
    }

    fn groups(&self) -> MutexGuard<'_, BTreeMap<(String, String), Noted>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All of them, as placement sees them.
    pub(super) fn known_groups(&self) -> Vec<Group> {
        self.groups().values().map(|noted| noted.group.clone()).collect()
    }

    /// Remembers what a pod of a head offers, for the time when it has none.
    pub(super) fn remember(&self, member: &Member, offer: Arc<Offer>) {
        let key = (member.namespace.clone(), member.head.clone());
        if let Some(noted) = self.groups().get_mut(&key) {
            noted.group.view.offer = Some(offer);
        }
    }
}

/// What is known of a head's pods before there are any.
fn group(head: &ChimeraHead, offer: Option<Arc<Offer>>) -> Group {
    let gpus = head.spec.gpu.as_ref().map_or(0, |gpu| gpu.count);
    Group {
        view: HeadView {
            pod_uid: String::new(),
            pod: String::new(),
            namespace: head.namespace().unwrap_or_default(),
            head: head.name_any(),
            labels: head.metadata.labels.clone().unwrap_or_default(),
            role: head.spec.role,
            node: None,
            spare: false,
            ready: false,
            capacity: 0,
            running: 0,
            devices: Vec::new(),
            gpus: u32::try_from(gpus).unwrap_or(0),
            offer,
        },
        replicas: head.spec.replicas,
    }
}
