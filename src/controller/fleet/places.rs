//! Places on heads: reserved for runs, given back, and given to those that wait.

use std::{collections::HashMap, sync::Arc};

use controller_core::{
    demand::Demand,
    no_place::{NoPlace, no_place},
    placement::{choose, is_avoided, is_free, meets, suits},
};

use super::{
    Entry, Fleet, Link, Member,
    health::is_leaving,
    view::{is_shared, shared, view},
};
use crate::waiting_room::Candidacy;

/// A place on a head, reserved for one run.
#[derive(Clone)]
pub struct Reservation {
    /// Whose place it is.
    pub member: Member,
    /// The way to it.
    pub link: Link,
}

/// A run's place, from its reservation until the run is driven. When this is dropped, by an error, a time limit or a panic
/// of the reconcile, the place is free again.
#[must_use]
pub struct Held {
    fleet: Arc<Fleet>,
    run_id: String,
    pod_uid: String,
    kept: bool,
}

impl Held {
    /// Leaves the place to the run: whoever drives it gives the place back.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if !self.kept {
            self.fleet.release(&self.run_id, &self.pod_uid);
        }
    }
}

/// What is known of the pod that was made for a run.
pub enum OwnPod {
    /// Nothing: it has not joined.
    Unknown,
    /// Its agent takes no run yet; why.
    NotReady(String),
    /// It lacks what the run needs; its UID.
    Unsuitable(String),
    /// The run has it.
    Ready(Box<Reservation>),
}

impl Fleet {
    /// Reserves a place for the run: the one that was given to it while it waited, or a free one. Without one, it waits.
    pub fn reserve(&self, run: &Candidacy, demand: &Demand) -> Result<Reservation, NoPlace> {
        let mut entries = self.entries();
        if let Some(reservation) = self.take_up(&mut entries, run, demand) {
            return Ok(reservation);
        }
        let pods = shared(entries.values());
        let Some(pod_uid) = choose(&pods, demand) else {
            self.room.wait(run, demand);
            return Err(no_place(&pods, &self.known_groups(), demand));
        };
        let entry = entries
            .get_mut(pod_uid)
            .expect("placement chooses among the entries");
        let link = entry.link.clone().expect("only a connected head is ready");
        entry.reserved.insert(run.run_id.clone());
        self.room.begun(&demand.namespace, run);
        Ok(Reservation {
            member: entry.member.clone(),
            link,
        })
    }

    /// Holds a reserved place for as long as the answer lives.
    pub fn hold(self: &Arc<Self>, run_id: &str, reservation: &Reservation) -> Held {
        Held {
            fleet: Arc::clone(self),
            run_id: run_id.to_owned(),
            pod_uid: reservation.member.pod_uid.clone(),
            kept: false,
        }
    }

    /// Gives a run the pod that was made for it, as soon as its agent takes runs.
    pub fn reserve_own(&self, run: &Candidacy, demand: &Demand) -> OwnPod {
        let mut entries = self.entries();
        let own = entries.values_mut().find(|entry| {
            let only = entry.member.only_for.as_ref();
            only.is_some_and(|only| only.run_id == run.run_id && only.workflow == run.workflow)
        });
        let Some(entry) = own else {
            return OwnPod::Unknown;
        };
        let view = view(entry);
        if view.offer.is_some() && !meets(&view, demand) {
            return OwnPod::Unsuitable(view.pod_uid);
        }
        match entry.link.clone().filter(|_| view.ready) {
            Some(link) => {
                entry.reserved.insert(run.run_id.clone());
                self.room.begun(&demand.namespace, run);
                let member = entry.member.clone();
                OwnPod::Ready(Box::new(Reservation { member, link }))
            }
            None => OwnPod::NotReady(entry.message.clone()),
        }
    }

    /// The ChimeraHead after which to make a pod for one run: the first by name that suits as far as is known, whatever pods
    /// it has.
    pub fn template_for(&self, demand: &Demand) -> Result<String, NoPlace> {
        let groups = self.known_groups();
        let suitable = groups.iter().find(|group| meets(&group.view, demand));
        suitable
            .map(|group| group.view.head.clone())
            .ok_or_else(|| no_place(&[], &groups, demand))
    }

    /// The place that was given to the run while it waited, unless it suits no longer.
    fn take_up(
        &self,
        entries: &mut HashMap<String, Entry>,
        run: &Candidacy,
        demand: &Demand,
    ) -> Option<Reservation> {
        let grant = self.room.take_up(&run.uid)?;
        let entry = entries.get(&grant.pod_uid);
        let usable = entry.filter(|entry| {
            let view = view(entry);
            grant.run_id == run.run_id && view.ready && !view.spare && suits(&view, demand)
        });
        if let Some(Entry {
            member,
            link: Some(link),
            ..
        }) = usable
        {
            return Some(Reservation {
                member: member.clone(),
                link: link.clone(),
            });
        }
        self.give_back(entries, &grant.run_id, &grant.pod_uid);
        None
    }

    /// Takes a workflow out of the queue: it waits for something else, ended, or is gone.
    pub fn stop_waiting(&self, uid: &str) {
        if let Some(grant) = self.room.leave(uid) {
            self.release(&grant.run_id, &grant.pod_uid);
        }
    }

    /// Notes that a run which this process did not start occupies a place.
    pub fn occupy(&self, run_id: &str, pod_uid: &str, submitter: &str) {
        if let Some(entry) = self.entries().get_mut(pod_uid) {
            entry.reserved.insert(run_id.to_owned());
            self.room.rejoined(&entry.member.namespace, run_id, submitter);
        }
    }

    /// Gives a run's place back.
    pub fn release(&self, run_id: &str, pod_uid: &str) {
        self.give_back(&mut self.entries(), run_id, pod_uid);
    }

    fn give_back(&self, entries: &mut HashMap<String, Entry>, run_id: &str, pod_uid: &str) {
        self.room.ended(run_id);
        let Some(entry) = entries.get_mut(pod_uid) else {
            return;
        };
        let freed = entry.reserved.remove(run_id);
        if freed && is_leaving(entry) && view(entry).running == 0 {
            self.triggers.head(&entry.member.namespace, &entry.member.head);
        }
        if freed {
            self.serve(entries, pod_uid);
        }
    }

    /// Gives the free places of a pod to waiting runs, in their order.
    pub(super) fn serve(&self, entries: &mut HashMap<String, Entry>, pod_uid: &str) {
        let Some(entry) = entries.get_mut(pod_uid).filter(|entry| is_shared(entry)) else {
            return;
        };
        let mut suited = std::mem::take(&mut entry.suited);
        while let Some(run_id) = self.give(entries, pod_uid, &mut suited)
            && let Some(entry) = entries.get_mut(pod_uid)
        {
            entry.reserved.insert(run_id);
        }
        if let Some(entry) = entries.get_mut(pod_uid) {
            entry.suited = suited;
        }
    }

    /// Gives a place of a pod, if one is free, to the run whose turn it is.
    fn give(
        &self,
        entries: &HashMap<String, Entry>,
        pod_uid: &str,
        suited: &mut HashMap<u64, bool>,
    ) -> Option<String> {
        let view = view(entries.get(pod_uid)?);
        if !is_free(&view) {
            return None;
        }
        // Lanes end, and answers about them are of no more use.
        if suited.len() > 2 * self.room.lanes(&view.namespace) + 64 {
            suited.clear();
        }
        let others = std::cell::LazyCell::new(|| shared(entries.values()));
        let of = (view.namespace.as_str(), view.head.as_str());
        self.room.give(of, pod_uid, |lane, demand| {
            *suited.entry(lane).or_insert_with(|| suits(&view, demand))
                && !(demand.tried.avoids(&view.pod) && is_avoided(&view, demand, &others))
        })
    }

    /// Notes that a run is tried elsewhere: nothing that this pod may still say of it is asked for.
    pub fn abandon(&self, run_id: &str, pod_uid: &str) {
        if let Some(entry) = self.entries().get_mut(pod_uid) {
            entry.abandoned.insert(run_id.to_owned());
        }
    }
}
