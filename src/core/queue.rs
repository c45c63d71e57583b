//! Whose turn it is: the order in which the waiting runs of one namespace are given places. No IO, no clock.
//!
//! Priority first; among equals the submitter with the fewest runs under way, then the one who was given a place longest
//! ago; of one submitter's runs the oldest. Of the places of each head, one in [`PATIENCE_TURNS`] goes to whoever has waited
//! longest, once that is more than [`PATIENCE`]: so everybody is served in the end, whoever else keeps coming.
//!
//! Runs of equal demands wait in one lane. A run that no head suits stands in nobody's way: a place is offered to the lanes
//! that it suits. A turn costs one look at each lane and at each submitter who waits.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;

use crate::demand::Demand;

/// A run that has waited longer than this is served out of turn.
pub const PATIENCE: Duration = Duration::from_secs(600);
/// Of so many places, one is given out of turn.
pub const PATIENCE_TURNS: u64 = 8;

/// The submitters remembered beyond those who wait or run.
const IDLE_SHARES: usize = 64;

/// A run that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// UID of the workflow.
    pub uid: String,
    /// `spec.submitter`: places are shared between submitters.
    pub submitter: String,
    /// `spec.priority`.
    pub priority: i32,
    /// Creation of the workflow: of one submitter's runs the oldest workflow is first.
    pub created: Timestamp,
    /// Since when the run waits: another run of an old workflow has waited no longer than a new one.
    pub since: Timestamp,
    /// What it asks for.
    pub demand: Demand,
}

/// A time in the life of a workflow, and its UID: no two are alike.
type Moment = (Timestamp, String);

/// Runs of equal demands.
#[derive(Debug)]
struct Lane {
    demand: Arc<Demand>,
    /// By priority, submitter and creation.
    levels: BTreeMap<Reverse<i32>, BTreeMap<String, BTreeSet<Moment>>>,
    /// By when they began to wait.
    waits: BTreeSet<Moment>,
}

/// Where a waiting run stands.
#[derive(Debug)]
struct Stand {
    lane: u64,
    submitter: String,
    priority: Reverse<i32>,
    created: Moment,
    since: Moment,
}

/// What a submitter has been given.
#[derive(Debug, Default)]
struct Share {
    under_way: u32,
    /// The round after the one in which it was served last.
    next_round: u64,
}

/// The waiting runs of one namespace, and what their submitters have been given.
#[derive(Debug, Default)]
pub struct Queue {
    lanes: BTreeMap<u64, Lane>,
    lane_of: HashMap<Arc<Demand>, u64>,
    next_lane: u64,
    stands: HashMap<String, Stand>,
    shares: HashMap<String, Share>,
    /// A submitter who comes now is served in this round; everybody who waits gets one place a round.
    round: u64,
    /// Places given, by head.
    turns: HashMap<String, u64>,
}

/// Some waiting runs of equal demands.
#[derive(Debug, Clone, Copy)]
pub struct LaneView<'a> {
    /// What they ask for.
    pub demand: &'a Demand,
    /// How many they are.
    pub length: usize,
    /// Since when the one waits that has waited longest.
    pub oldest: Timestamp,
}

impl Queue {
    /// Lets a run wait. One that waits already takes the place of its new priority and demand.
    pub fn wait(&mut self, run: Waiting) {
        self.leave(&run.uid);
        let demand = Arc::new(run.demand);
        let id = *self.lane_of.entry(Arc::clone(&demand)).or_insert_with(|| {
            self.next_lane += 1;
            self.next_lane
        });
        let lane = self.lanes.entry(id).or_insert_with(|| Lane {
            demand,
            levels: BTreeMap::new(),
            waits: BTreeSet::new(),
        });
        let stand = Stand {
            lane: id,
            submitter: run.submitter,
            priority: Reverse(run.priority),
            created: (run.created, run.uid.clone()),
            since: (run.since, run.uid.clone()),
        };
        let level = lane.levels.entry(stand.priority).or_default();
        let line = level.entry(stand.submitter.clone()).or_default();
        line.insert(stand.created.clone());
        lane.waits.insert(stand.since.clone());
        self.stands.insert(run.uid, stand);
    }

    /// Takes a run out of the queue; whether it was there.
    pub fn leave(&mut self, uid: &str) -> bool {
        let Some(stand) = self.stands.remove(uid) else {
            return false;
        };
        let Some(lane) = self.lanes.get_mut(&stand.lane) else {
            return false;
        };
        lane.waits.remove(&stand.since);
        if let Some(level) = lane.levels.get_mut(&stand.priority) {
            if let Some(line) = level.get_mut(&stand.submitter) {
                line.remove(&stand.created);
                if line.is_empty() {
                    level.remove(&stand.submitter);
                }
            }
            if level.is_empty() {
                lane.levels.remove(&stand.priority);
            }
        }
        if lane.waits.is_empty() {
            self.lane_of.remove(&lane.demand);
            self.lanes.remove(&stand.lane);
        }
        true
    }

    /// The UID of the workflow whose turn it is for a place of a head that suits some demands. A lane's number is never used
    /// again, so that an answer about it may be remembered.
    pub fn next(
        &mut self,
        head: &str,
        now: Timestamp,
        mut suits: impl FnMut(u64, &Demand) -> bool,
    ) -> Option<String> {
        let lanes = self.lanes.iter();
        let lanes: Vec<_> = lanes
            .filter(|(id, lane)| suits(**id, &lane.demand))
            .map(|(_, lane)| lane)
            .collect();
        let turns = self.turns.get(head).copied().unwrap_or(0);
        let out_of_turn = (turns % PATIENCE_TURNS == PATIENCE_TURNS - 1)
            .then(|| impatient(&lanes, now))
            .flatten();
        let (_, uid) = out_of_turn.or_else(|| self.in_turn(&lanes))?;
        let uid = uid.clone();
        self.turns.insert(head.to_owned(), turns + 1);
        Some(uid)
    }

    fn in_turn<'a>(&self, lanes: &[&'a Lane]) -> Option<&'a Moment> {
        let highest = lanes.iter().filter_map(|lane| lane.levels.keys().next()).min()?;
        let levels = lanes.iter().filter_map(|lane| lane.levels.get(highest));
        levels
            .flatten()
            .filter_map(|(submitter, line)| Some((self.standing(submitter), line.first()?)))
            .min()
            .map(|(_, created)| created)
    }

    /// The lower, the sooner a submitter is served.
    fn standing(&self, submitter: &str) -> (u32, u64) {
        self.shares.get(submitter).map_or((0, self.round), |share| {
            (share.under_way, share.next_round.max(self.round))
        })
    }

    /// Notes that a submitter's run was given a place. [`Queue::leave`] takes it out of the queue.
    pub fn begun(&mut self, submitter: &str) {
        let share = self.shares.entry(submitter.to_owned()).or_default();
        self.round = self.round.max(share.next_round);
        share.next_round = self.round + 1;
        share.under_way += 1;
    }

    /// Notes that a submitter's run gave its place back.
    pub fn ended(&mut self, submitter: &str) {
        if let Some(share) = self.shares.get_mut(submitter) {
            share.under_way = share.under_way.saturating_sub(1);
        }
        if self.shares.len() > IDLE_SHARES {
            // Who is forgotten stands where a newcomer does.
            let round = self.round;
            self.shares
                .retain(|_, share| share.under_way > 0 || share.next_round > round);
        }
    }

    /// How many runs wait.
    pub fn len(&self) -> usize {
        self.stands.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.stands.is_empty()
    }

    /// Whether there is nothing to remember: nobody waits or runs.
    pub fn is_idle(&self) -> bool {
        self.is_empty() && self.shares.values().all(|share| share.under_way == 0)
    }

    /// The lanes.
    pub fn lanes(&self) -> impl Iterator<Item = LaneView<'_>> {
        self.lanes.values().filter_map(|lane| {
            Some(LaneView {
                demand: &lane.demand,
                length: lane.waits.len(),
                oldest: lane.waits.first()?.0,
            })
        })
    }

    /// The workflows of every lane that have waited longest, up to `count` of each.
    pub fn longest_of_each_lane(&self, count: usize) -> impl Iterator<Item = &str> {
        let lanes = self.lanes.values();
        lanes.flat_map(move |lane| lane.waits.iter().take(count).map(|wait| wait.1.as_str()))
    }

    /// The UIDs of all workflows that wait.
    pub fn uids(&self) -> impl Iterator<Item = &String> {
        self.stands.keys()
    }
}

/// Who has waited longest, if that is too long.
fn impatient<'a>(lanes: &[&'a Lane], now: Timestamp) -> Option<&'a Moment> {
    let longest = lanes.iter().filter_map(|lane| lane.waits.first()).min()?;
    (waited(longest.0, now) > PATIENCE).then_some(longest)
}

/// For how long a run has waited that began to wait then.
pub fn waited(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
