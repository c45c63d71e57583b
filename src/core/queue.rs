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
    /// Creation of the workflow.
    pub created: Timestamp,
    /// What it asks for.
    pub demand: Demand,
}

/// When a workflow was created, and its UID: no two are alike.
type Age = (Timestamp, String);

/// Runs of equal demands.
#[derive(Debug)]
struct Lane {
    demand: Arc<Demand>,
    /// By priority and submitter.
    levels: BTreeMap<Reverse<i32>, BTreeMap<String, BTreeSet<Age>>>,
    ages: BTreeSet<Age>,
}

/// Where a waiting run stands.
#[derive(Debug)]
struct Stand {
    lane: u64,
    submitter: String,
    priority: Reverse<i32>,
    age: Age,
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
    /// When the oldest was created.
    pub oldest: Timestamp,
}

impl Queue {
    /// Lets a run wait. One that waits already keeps its age and takes the place of its new priority and demand.
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
            ages: BTreeSet::new(),
        });
        let stand = Stand {
            lane: id,
            submitter: run.submitter,
            priority: Reverse(run.priority),
            age: (run.created, run.uid.clone()),
        };
        let level = lane.levels.entry(stand.priority).or_default();
        let line = level.entry(stand.submitter.clone()).or_default();
        line.insert(stand.age.clone());
        lane.ages.insert(stand.age.clone());
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
        lane.ages.remove(&stand.age);
        if let Some(level) = lane.levels.get_mut(&stand.priority) {
            if let Some(line) = level.get_mut(&stand.submitter) {
                line.remove(&stand.age);
                if line.is_empty() {
                    level.remove(&stand.submitter);
                }
            }
            if level.is_empty() {
                lane.levels.remove(&stand.priority);
            }
        }
        if lane.ages.is_empty() {
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
        let age = out_of_turn.or_else(|| self.in_turn(&lanes))?;
        let uid = age.1.clone();
        self.turns.insert(head.to_owned(), turns + 1);
        Some(uid)
    }

    fn in_turn<'a>(&self, lanes: &[&'a Lane]) -> Option<&'a Age> {
        let highest = lanes.iter().filter_map(|lane| lane.levels.keys().next()).min()?;
        let levels = lanes.iter().filter_map(|lane| lane.levels.get(highest));
        levels
            .flatten()
            .filter_map(|(submitter, line)| Some((self.standing(submitter), line.first()?)))
            .min()
            .map(|(_, age)| age)
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
                length: lane.ages.len(),
                oldest: lane.ages.first()?.0,
            })
        })
    }

    /// The oldest workflows of every lane, up to `count` of each.
    pub fn oldest_of_each_lane(&self, count: usize) -> impl Iterator<Item = &str> {
        let lanes = self.lanes.values();
        lanes.flat_map(move |lane| lane.ages.iter().take(count).map(|age| age.1.as_str()))
    }

    /// The UIDs of all workflows that wait.
    pub fn uids(&self) -> impl Iterator<Item = &String> {
        self.stands.keys()
    }
}

/// Who has waited longest, if that is too long.
fn impatient<'a>(lanes: &[&'a Lane], now: Timestamp) -> Option<&'a Age> {
    let oldest = lanes.iter().filter_map(|lane| lane.ages.first()).min()?;
    (waited(oldest.0, now) > PATIENCE).then_some(oldest)
}

/// For how long a run has waited that was created then.
pub fn waited(created: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(created)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
