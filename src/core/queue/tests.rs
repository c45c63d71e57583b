//! Turns: who is next, and who is never passed over for ever.

use proptest::prelude::*;

use super::*;
use crate::placement::tests::demand;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("in range")
}

fn waiting(uid: &str, submitter: &str, priority: i32, created: i64) -> Waiting {
    Waiting {
        uid: uid.into(),
        submitter: submitter.into(),
        priority,
        created: at(created),
        since: at(created),
        demand: demand(),
    }
}

/// Gives the next place, as the controller does.
fn give(queue: &mut Queue, now: i64) -> Option<String> {
    give_suiting(queue, now, |_, _| true)
}

fn give_suiting(queue: &mut Queue, now: i64, suits: impl FnMut(u64, &Demand) -> bool) -> Option<String> {
    give_of(queue, "h", now, suits)
}

fn give_of(
    queue: &mut Queue,
    head: &str,
    now: i64,
    suits: impl FnMut(u64, &Demand) -> bool,
) -> Option<String> {
    let uid = queue.next(head, at(now), suits)?;
    let submitter = queue.stands[&uid].submitter.clone();
    queue.leave(&uid);
    queue.begun(&submitter);
    Some(uid)
}

#[test]
fn the_highest_priority_goes_first_and_the_oldest_among_equals() {
    let mut queue = Queue::default();
    for (uid, priority, created) in [("old", 0, 1), ("low", -5, 0), ("high", 9, 3), ("young", 0, 2)] {
        queue.wait(waiting(uid, "ann", priority, created));
    }
    let order: Vec<_> = std::iter::from_fn(|| give(&mut queue, 10)).collect();
    assert_eq!(order, ["high", "old", "young", "low"]);
}

#[test]
fn one_who_submits_one_run_is_served_before_the_rest_of_a_thousand() {
    let mut queue = Queue::default();
    for number in 0..1000 {
        queue.wait(waiting(&format!("many-{number:04}"), "many", 0, number));
    }
    assert_eq!(give(&mut queue, 1000).as_deref(), Some("many-0000"));
    queue.wait(waiting("single", "one", 0, 1001));
    assert_eq!(give(&mut queue, 1001).as_deref(), Some("single"));
    assert_eq!(give(&mut queue, 1002).as_deref(), Some("many-0001"));
}

#[test]
fn submitters_take_turns_and_the_one_with_fewer_runs_under_way_comes_first() {
    let mut queue = Queue::default();
    for number in 0..4 {
        queue.wait(waiting(&format!("a{number}"), "ann", 0, number));
        queue.wait(waiting(&format!("b{number}"), "bob", 0, 100 + number));
    }
    // Runs that end at once: turn by turn, in the order of age.
    let mut order = Vec::new();
    for _ in 0..4 {
        let uid = give(&mut queue, 200).expect("somebody waits");
        queue.ended(if uid.starts_with('a') { "ann" } else { "bob" });
        order.push(uid);
    }
    assert_eq!(order, ["a0", "b0", "a1", "b1"]);
    // Ann's run goes on, and Bob catches up.
    queue.begun("ann");
    queue.begun("ann");
    assert_eq!(give(&mut queue, 200).as_deref(), Some("b2"));
    assert_eq!(give(&mut queue, 200).as_deref(), Some("b3"));
}

#[test]
fn what_nobody_else_wanted_is_not_held_against_a_submitter() {
    let mut queue = Queue::default();
    for _ in 0..500 {
        queue.begun("ann");
        queue.ended("ann");
    }
    queue.wait(waiting("b", "bob", 0, 2));
    queue.wait(waiting("a", "ann", 0, 1));
    queue.wait(waiting("b2", "bob", 0, 3));
    let order: Vec<_> = std::iter::from_fn(|| give(&mut queue, 10)).collect();
    assert_eq!(order, ["b", "a", "b2"], "one turn each, not 500");
}

#[test]
fn a_run_that_the_place_does_not_suit_stands_in_nobodys_way() {
    let mut queue = Queue::default();
    let mut picky = waiting("picky", "ann", 1000, 0);
    picky.demand.gpus = 8;
    queue.wait(picky);
    queue.wait(waiting("easy", "ann", 0, 1));
    assert_eq!(
        give_suiting(&mut queue, 10, |_, demand| demand.gpus == 0).as_deref(),
        Some("easy")
    );
    assert_eq!(give_suiting(&mut queue, 10, |_, demand| demand.gpus == 0), None);
    assert_eq!(give(&mut queue, 10).as_deref(), Some("picky"));
}

#[test]
fn a_run_that_waits_again_has_the_place_of_its_new_priority_and_its_old_age() {
    let mut queue = Queue::default();
    queue.wait(waiting("a", "ann", 0, 1));
    queue.wait(waiting("b", "ann", 0, 2));
    queue.wait(waiting("c", "ann", 0, 3));
    queue.wait(waiting("c", "ann", 1, 3));
    queue.wait(waiting("a", "ann", 0, 1));
    assert_eq!(queue.len(), 3);
    let order: Vec<_> = std::iter::from_fn(|| give(&mut queue, 10)).collect();
    assert_eq!(order, ["c", "a", "b"]);
    assert!(queue.lanes().next().is_none() && queue.lane_of.is_empty());
}

#[test]
fn another_run_of_an_old_workflow_has_waited_no_longer_than_it_has() {
    let mut queue = Queue::default();
    let now = 300_000;
    for turn in 1..PATIENCE_TURNS {
        queue.wait(waiting(&format!("first-{turn}"), "ann", 1, now));
        assert!(give(&mut queue, now).is_some());
        queue.ended("ann");
    }
    // The next place is given out of turn, to who has waited longest.
    let again = Waiting {
        since: at(now - 1),
        ..waiting("again", "bob", -1, 0)
    };
    queue.wait(again);
    queue.wait(waiting("patient", "cid", -1, now - 700));
    queue.wait(waiting("urgent", "dan", 1, now));
    assert_eq!(queue.lanes().next().map(|lane| lane.oldest), Some(at(now - 700)));
    assert_eq!(give(&mut queue, now).as_deref(), Some("patient"));
    assert_eq!(queue.lanes().next().map(|lane| lane.oldest), Some(at(now - 1)));
    assert_eq!(give(&mut queue, now).as_deref(), Some("urgent"));
    // Among one submitter's runs the workflow's age decides.
    queue.wait(waiting("newer", "bob", -1, 5));
    assert_eq!(give(&mut queue, now).as_deref(), Some("again"));
}

#[test]
fn who_needs_a_rare_place_is_served_in_the_end_whatever_rhythm_the_others_have() {
    for rhythm in 1..=2 * PATIENCE_TURNS {
        let mut queue = Queue::default();
        let mut picky = waiting("picky", "ann", -1000, 0);
        picky.demand.gpus = 1;
        queue.wait(picky);
        let mut served = false;
        for turn in 0..40 * rhythm {
            let now = 1000 + i64::try_from(turn).expect("small");
            queue.wait(waiting(&format!("easy-{turn}"), &format!("s{turn}"), 1000, 5));
            // Every so many places, one has a GPU.
            let rare = turn % rhythm == 0;
            let head = if rare { "gpu" } else { "cpu" };
            let given = give_of(&mut queue, head, now, |_, demand| rare || demand.gpus == 0);
            served |= given.as_deref() == Some("picky");
        }
        assert!(served, "one place in {rhythm}");
    }
}

#[test]
fn those_who_have_nothing_under_way_are_forgotten_in_time() {
    let mut queue = Queue::default();
    for number in 0..10_000 {
        let submitter = format!("s{number}");
        queue.begun(&submitter);
        queue.ended(&submitter);
        queue.begun("again");
        queue.ended("again");
    }
    assert!(queue.shares.len() <= 2 * IDLE_SHARES, "{}", queue.shares.len());
}

#[test]
fn a_turn_of_ten_thousand_is_short() {
    let mut queue = Queue::default();
    for number in 0..10_000 {
        let mut run = waiting(
            &format!("u{number}"),
            &format!("s{number}"),
            number % 7,
            i64::from(number),
        );
        run.demand.gpus = u32::try_from(number % 5000).expect("small");
        queue.wait(run);
    }
    let begun = std::time::Instant::now();
    for _ in 0..100 {
        assert!(give(&mut queue, 20_000).is_some());
    }
    // In the debug build on a slow machine; it is a thousandth of that otherwise.
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

proptest! {
    /// Whoever else keeps coming, and with whatever priority: everybody who waits is served.
    #[test]
    fn everybody_is_served_in_the_end(
        first in prop::collection::vec((-1000_i32..=1000, 0_u8..4), 1..20),
        newcomers in prop::collection::vec((-1000_i32..=1000, 0_u8..200), 1..20),
    ) {
        let mut queue = Queue::default();
        let mut left: BTreeSet<String> = BTreeSet::new();
        for (index, (priority, submitter)) in first.iter().enumerate() {
            let uid = format!("first-{index:02}");
            queue.wait(waiting(&uid, &submitter.to_string(), *priority, 0));
            left.insert(uid);
        }
        // One place a minute, and one newcomer for each.
        let mut minutes = 0;
        while !left.is_empty() {
            prop_assert!(minutes < 400, "still waiting: {left:?}");
            let (priority, submitter) = newcomers[minutes % newcomers.len()];
            let now = i64::try_from(minutes).expect("small") * 60;
            queue.wait(waiting(&format!("new-{minutes}"), &format!("{minutes}-{submitter}"), priority, now));
            let given = give(&mut queue, now).expect("somebody waits");
            left.remove(&given);
            minutes += 1;
        }
    }

    /// The order follows from who waits, not from the order in which they were noticed.
    #[test]
    fn the_order_is_the_same_however_the_runs_were_noticed(
        runs in prop::collection::vec((-2_i32..=2, 0_u8..4, 0_i64..5, 0_u32..3), 1..40),
        seed in any::<u64>(),
    ) {
        let order = |runs: &[Waiting]| {
            let mut queue = Queue::default();
            for run in runs {
                queue.wait(run.clone());
            }
            std::iter::from_fn(|| give(&mut queue, 10)).collect::<Vec<_>>()
        };
        let mut runs: Vec<_> = runs
            .iter()
            .enumerate()
            .map(|(index, (priority, submitter, created, gpus))| {
                let mut run = waiting(&format!("u{index:02}"), &submitter.to_string(), *priority, *created);
                run.demand.gpus = *gpus;
                run
            })
            .collect();
        let expected = order(&runs);
        prop_assert_eq!(expected.len(), runs.len());
        let length = runs.len();
        for index in 0..length {
            let other = usize::try_from(seed.rotate_left(u32::try_from(index).expect("small")) % length as u64);
            runs.swap(index, other.expect("small"));
        }
        prop_assert_eq!(order(&runs), expected);
    }

    /// Among equals, nobody has two runs more than another who waits.
    #[test]
    fn places_are_shared_evenly(submitters in 2_usize..6, places in 1_usize..20) {
        let mut queue = Queue::default();
        for number in 0..20 {
            for submitter in 0..submitters {
                let uid = format!("{submitter}-{number:02}");
                queue.wait(waiting(&uid, &submitter.to_string(), 0, i64::try_from(submitter).expect("small")));
            }
        }
        let mut given = vec![0_usize; submitters];
        for _ in 0..places {
            let uid = give(&mut queue, 100).expect("somebody waits");
            let submitter: usize = uid.split('-').next().and_then(|text| text.parse().ok()).expect("a number");
            given[submitter] += 1;
        }
        let most = given.iter().max().expect("some");
        let least = given.iter().min().expect("some");
        prop_assert!(most - least <= 1, "{given:?}");
    }
}
