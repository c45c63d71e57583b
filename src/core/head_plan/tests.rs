//! Every fault class, with and without spares; changes of the spec; scaling.

use api::{chimera_head::Regeneration, reasons};
use jiff::{SignedDuration, Timestamp};

use super::{
    Duty, Lost, Mend, NewPod, Observed, PodView, SickDevice, plan,
    test_head::{World, decide, decide_at, head, pod, template},
};
use crate::head_pod::template_hash;

fn uids(removals: &[super::Removal]) -> Vec<&str> {
    removals.iter().map(|removal| removal.uid.as_str()).collect()
}

/// An agent that is heard no more.
fn silence(pod: &mut PodView, cause: &'static str, now: Timestamp) {
    pod.ready = false;
    pod.agent = None;
    pod.lost = Some(Lost {
        cause,
        message: "gone".into(),
        since: now,
    });
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Worker,
    Agent,
    Deleted,
    Forced,
    Failed,
    Device,
    Node,
    Suspect,
}

const FAULTS: [(Fault, &str); 8] = [
    (Fault::Worker, reasons::WORKER_LOST),
    (Fault::Agent, reasons::AGENT_LOST),
    (Fault::Deleted, reasons::POD_DELETED),
    (Fault::Forced, reasons::POD_DELETED),
    (Fault::Failed, reasons::POD_FAILED),
    (Fault::Device, reasons::GPU_UNHEALTHY),
    (Fault::Node, reasons::HEARTBEAT_LOST),
    (Fault::Suspect, reasons::SUSPECT_HEAD),
];

fn strike(world: &mut World, uid: &str, fault: Fault) {
    let now = world.now;
    let pod = world.pod(uid);
    match fault {
        Fault::Worker => pod.mends.push(Mend {
            number: i64::try_from(pod.mends.len()).expect("few") + 1,
            cause: reasons::WORKER_LOST.into(),
            message: "the zygote ended".into(),
            noticed: now,
            duration_millis: 40,
        }),
        Fault::Agent => silence(pod, reasons::AGENT_LOST, now),
        Fault::Node => silence(pod, reasons::HEARTBEAT_LOST, now),
        Fault::Deleted => pod.deleting = true,
        Fault::Failed => {
            pod.failed = Some("Evicted".into());
            pod.ready = false;
        }
        Fault::Device => {
            pod.ready = false;
            pod.sick_devices.push(SickDevice {
                device: "GPU-1".into(),
                message: "XID 79".into(),
            });
        }
        Fault::Suspect => {
            pod.ready = false;
            pod.suspect = Some("three documents".into());
        }
        Fault::Forced => world.pods.retain(|pod| pod.uid != uid),
    }
}

/// What became of the loss of `pod`.
fn row(world: &World, uid: &str) -> Regeneration {
    let status = world.head.status.clone().expect("a status");
    let rows: Vec<_> = status
        .last_regenerations
        .into_iter()
        .filter(|row| row.uid.as_deref() == Some(uid))
        .collect();
    assert_eq!(rows.len(), 1, "one loss, one row: {rows:#?}");
    rows[0].clone()
}

#[test]
fn every_fault_is_found_once_made_good_and_told_with_its_duration() {
    for (fault, cause) in FAULTS {
        for spares in [0, 1] {
            let mut world = World::settled(2, spares);
            let victim = world.uids(false)[0].clone();
            let spare = world.uids(true).first().cloned();
            strike(&mut world, &victim, fault);
            let first = world.step();
            assert_eq!(first.regenerations.len(), 1, "{fault:?}, {spares} spares");
            assert_eq!(first.regenerations[0].reason, cause, "{fault:?}");
            if let Some(spare) = spare.filter(|_| fault != Fault::Worker) {
                let promotion = Duty {
                    name: world.pod(&spare).name.clone(),
                    uid: spare,
                    spare: false,
                };
                assert_eq!(first.duties[0], promotion, "{fault:?}: the spare serves at once");
                assert_eq!(
                    first.regenerations[0].replacement,
                    Some(promotion.name),
                    "{fault:?}"
                );
                assert_eq!(world.serving(), 2, "{fault:?}");
            }
            world.wait(10);
            world.settle();
            assert_eq!(world.serving(), 2, "{fault:?}, {spares} spares");
            assert_eq!(
                world.uids(true).len(),
                usize::try_from(spares).expect("few"),
                "{fault:?}"
            );
            let row = row(&world, &victim);
            assert!(row.replacement.is_some(), "{fault:?}: {row:#?}");
            let (ready, millis) = (row.ready_time.expect("over"), row.duration_millis.expect("over"));
            assert_eq!(
                row.time.checked_add(SignedDuration::from_millis(millis)).ok(),
                Some(ready),
                "{fault:?}"
            );
            let status = world.head.status.as_ref().expect("a status");
            assert_eq!(status.regenerations, 1, "{fault:?}: counted once");
        }
    }
}

#[test]
fn a_dead_spare_is_replaced_too_and_the_lost_pod_gets_a_new_one() {
    for (fault, cause) in FAULTS {
        let mut world = World::settled(1, 1);
        let (victim, spare) = (world.uids(false)[0].clone(), world.uids(true)[0].clone());
        strike(&mut world, &spare, Fault::Failed);
        strike(&mut world, &victim, fault);
        let plan = world.step();
        let found: Vec<_> = plan.regenerations.iter().map(|row| row.reason.as_str()).collect();
        assert!(
            found.contains(&cause) && found.contains(&reasons::POD_FAILED),
            "{found:?}"
        );
        world.wait(10);
        world.settle();
        assert_eq!((world.serving(), world.uids(true).len()), (1, 1), "{fault:?}");
        assert!(row(&world, &victim).ready_time.is_some(), "{fault:?}");
        assert!(row(&world, &spare).ready_time.is_some(), "{fault:?}");
    }
}

#[test]
fn a_pod_that_its_node_refuses_is_made_again_after_a_while_and_not_at_once() {
    let mut world = World::settled(1, 0);
    let victim = world.uids(false)[0].clone();
    let now = world.now;
    strike(&mut world, &victim, Fault::Failed);
    world.pod(&victim).created = Some(now);
    let plan = world.step();
    assert!(plan.create.is_empty() && plan.remove.is_empty() && plan.unsettled);
    assert_eq!(plan.regenerations.len(), 1);
    world.wait(5);
    let plan = world.step();
    assert_eq!((plan.create.len(), plan.remove.len()), (1, 1));
    assert!(plan.regenerations.is_empty(), "it was found when it failed");
}

#[test]
fn an_agent_that_comes_back_becomes_the_spare() {
    let mut world = World::settled(1, 1);
    let (victim, spare) = (world.uids(false)[0].clone(), world.uids(true)[0].clone());
    strike(&mut world, &victim, Fault::Agent);
    world.step();
    let pod = world.pod(&victim);
    (pod.ready, pod.lost, pod.agent) = (true, None, Some("another".into()));
    world.settle();
    assert_eq!(
        (world.uids(false), world.uids(true)),
        (vec![spare], vec![victim]),
        "and nothing was removed"
    );
    assert_eq!(world.head.status.as_ref().expect("a status").regenerations, 1);
}

#[test]
fn a_pod_that_is_not_heard_keeps_its_place_for_a_while_and_then_loses_it() {
    let mut world = World::settled(1, 0);
    let victim = world.uids(false)[0].clone();
    strike(&mut world, &victim, Fault::Node);
    assert!(world.step().remove.is_empty());
    world.wait(4);
    assert!(world.step().remove.is_empty());
    world.wait(1);
    let plan = world.step();
    assert_eq!(uids(&plan.remove), [victim.as_str()]);
    assert_eq!(plan.create.len(), 1);
    assert!(plan.regenerations.is_empty(), "it was found when it fell silent");
}

#[test]
fn an_agent_that_was_started_again_unseen_is_found_by_its_key() {
    let mut world = World::settled(1, 0);
    let uid = world.uids(false)[0].clone();
    world.pod(&uid).agent = None;
    world.pod(&uid).ready = false;
    assert!(
        world.step().regenerations.is_empty(),
        "a new operator has not heard it yet"
    );
    let pod = world.pod(&uid);
    (pod.ready, pod.agent) = (true, Some("another".into()));
    let plan = world.step();
    assert_eq!(plan.regenerations.len(), 1);
    assert_eq!(plan.regenerations[0].reason, reasons::AGENT_LOST);
    assert!(world.step().regenerations.is_empty());
}

#[test]
fn mends_are_told_once_by_whichever_process_and_counted_anew_for_another_agent() {
    let mut world = World::settled(1, 0);
    let uid = world.uids(false)[0].clone();
    strike(&mut world, &uid, Fault::Worker);
    strike(&mut world, &uid, Fault::Worker);
    let plan = world.step();
    let millis: Vec<_> = plan.recovered.iter().map(|row| row.duration_millis).collect();
    assert_eq!(millis, [Some(40), Some(40)]);
    assert!(
        world.step().regenerations.is_empty(),
        "the status alone is remembered"
    );
    let now = world.now;
    let pod = world.pod(&uid);
    pod.agent = Some("another".into());
    pod.mends.truncate(1);
    pod.mends[0].cause = "Anything\nelse".into();
    pod.mends[0].noticed = now + SignedDuration::from_hours(1);
    let plan = world.step();
    let causes: Vec<_> = plan.regenerations.iter().map(|row| row.reason.as_str()).collect();
    assert_eq!(causes, [reasons::AGENT_LOST, reasons::WORKER_LOST]);
    assert!(
        plan.regenerations.iter().all(|row| row.time <= now),
        "nothing is in the future"
    );
}

#[test]
fn a_mend_keeps_the_cause_that_its_agent_gave_it() {
    let causes = [
        "WorkerLost",
        "WorkerSlow",
        "WorkerGrown",
        "RunUnending",
        "CanaryFailed",
    ];
    for cause in causes {
        let mut world = World::settled(1, 0);
        let uid = world.uids(false)[0].clone();
        strike(&mut world, &uid, Fault::Worker);
        world.pod(&uid).mends[0].cause = cause.into();
        assert_eq!(world.step().regenerations[0].reason, cause);
    }
}

#[test]
fn a_device_is_avoided_until_a_pod_that_holds_it_is_told_healthy() {
    let mut world = World::settled(1, 0);
    let uid = world.uids(false)[0].clone();
    strike(&mut world, &uid, Fault::Device);
    world.settle();
    let avoided = |world: &World| {
        let status = world.head.status.clone().expect("a status");
        status.unhealthy_devices
    };
    assert_eq!(avoided(&world).len(), 1);
    assert_eq!(avoided(&world)[0].device, "GPU-1");
    let heir = world.uids(false)[0].clone();
    world.pod(&heir).healthy_devices = vec!["GPU-2".into()];
    world.settle();
    assert_eq!(avoided(&world).len(), 1, "another device says nothing of it");
    world.pod(&heir).healthy_devices = vec!["GPU-1::3".into()];
    world.settle();
    assert!(avoided(&world).is_empty());
}

#[test]
fn rows_are_bounded_and_open_ones_outlive_closed_ones() {
    let mut world = World::settled(1, 0);
    let uid = world.uids(false)[0].clone();
    strike(&mut world, &uid, Fault::Agent);
    world.step();
    let pod = world.pod(&uid);
    (pod.agent, pod.lost) = (Some("another".into()), None);
    for _ in 0..9 {
        strike(&mut world, &uid, Fault::Worker);
    }
    world.step();
    let rows = world.head.status.clone().expect("a status").last_regenerations;
    assert_eq!(rows.len(), 5);
    assert!(rows[0].ready_time.is_none() && rows[0].reason == reasons::AGENT_LOST);
}

fn rows(world: &World) -> Vec<Regeneration> {
    let status = world.head.status.clone().expect("a status");
    status.last_regenerations
}

#[test]
fn every_one_of_many_losses_at_once_is_told_of_and_timed() {
    for (replicas, spares, fault) in [(8, 0, Fault::Forced), (6, 3, Fault::Forced), (8, 2, Fault::Node)] {
        let mut world = World::settled(replicas, spares);
        let lost = world.uids(false);
        for uid in &lost {
            strike(&mut world, uid, fault);
        }
        let found = world.step().regenerations.len();
        assert_eq!(found, lost.len(), "{fault:?}");
        assert!(rows(&world).len() >= lost.len(), "{:#?}", rows(&world));
        world.wait(6);
        let plans = world.settle();
        let recovered: Vec<_> = plans.iter().flat_map(|plan| &plan.recovered).collect();
        for uid in &lost {
            let times = recovered.iter().filter(|row| row.uid.as_ref() == Some(uid));
            assert_eq!(times.count(), 1, "{replicas}, {spares}, {fault:?}: {uid}");
        }
        assert_eq!(rows(&world).len(), 5);
        assert!(rows(&world).iter().all(|row| row.ready_time.is_some()));
    }
}

#[test]
fn pods_that_are_lost_before_they_serve_are_one_outage_from_the_first_to_the_one_that_serves() {
    let mut world = World::settled(1, 0);
    let first = world.uids(false)[0].clone();
    for _ in 0..20 {
        let uid = world.pods[0].uid.clone();
        strike(&mut world, &uid, Fault::Forced);
        assert_eq!(world.step().regenerations.len(), 1);
        // The status tells of the new pod when it has been seen.
        world.wait(10);
        world.step();
    }
    assert_eq!(rows(&world).len(), 5);
    assert_eq!(row(&world, &first).ready_time, None);
    let plans = world.settle();
    let heir = world.pods[0].name.clone();
    let row = row(&world, &first);
    assert_eq!(row.replacement, Some(heir));
    assert!(row.duration_millis > Some(200_000), "{row:#?}");
    assert!(plans.last().is_some_and(|plan| !plan.unsettled));
}

#[test]
fn a_loss_whose_place_is_given_up_is_not_waited_for() {
    let mut world = World::settled(2, 0);
    let victim = world.uids(false)[1].clone();
    strike(&mut world, &victim, Fault::Forced);
    world.head.spec.replicas = 1;
    let plans = world.settle();
    assert!(
        plans.iter().all(|plan| plan.recovered.is_empty()),
        "nobody replaced it"
    );
    assert!(
        plans.last().is_some_and(|plan| !plan.unsettled),
        "{:#?}",
        rows(&world)
    );
}

#[test]
fn a_status_of_an_older_operator_is_enough_and_its_pods_go_on() {
    let mut world = World::settled(2, 0);
    let mut status = serde_json::to_value(world.head.status.clone()).expect("JSON");
    for pod in status["pods"].as_array_mut().expect("pods") {
        pod.as_object_mut().expect("a pod").remove("agent");
    }
    status["lastRegenerations"] = serde_json::json!([
        {"pod": "q-0-0", "replacement": "q-0-1", "reason": "PodDeleted", "time": "2026-01-01T00:00:00Z"}
    ]);
    let status: api::ChimeraHeadStatus = serde_json::from_value(status).expect("it can be read");
    world.head.status = Some(status);
    let plan = world.step();
    assert!(plan.regenerations.is_empty() && plan.recovered.is_empty());
    assert!(plan.remove.is_empty() && plan.create.is_empty() && plan.drain.is_empty());
    let victim = world.uids(false)[0].clone();
    strike(&mut world, &victim, Fault::Agent);
    assert_eq!(world.step().regenerations.len(), 1);
}

fn change(world: &mut World) {
    world.head.spec.workers.warm += 1;
}

#[test]
fn a_change_replaces_every_pod_with_one_more_at_most_and_never_serves_with_fewer() {
    for (replicas, spares) in [(1, 0), (2, 1), (3, 0)] {
        let mut world = World::settled(replicas, spares);
        let before = world.pods.len();
        change(&mut world);
        let plans = world.settle();
        let hash = template_hash(&world.head, &template());
        assert!(world.pods.iter().all(|pod| pod.template_hash == hash));
        assert_eq!(world.pods.len(), before, "{:#?}", world.pods);
        assert_eq!(world.most, before + 1, "one more at most");
        assert_eq!(world.fewest_serving, usize::try_from(replicas).expect("few"));
        assert!(
            plans.iter().all(|plan| plan.regenerations.is_empty()),
            "nothing was lost"
        );
    }
}

#[test]
fn a_busy_pod_of_an_earlier_spec_keeps_its_runs_and_gets_no_more() {
    let mut world = World::settled(1, 0);
    let old = world.uids(false)[0].clone();
    world.pod(&old).running = 2;
    change(&mut world);
    world.settle();
    assert!(world.pod(&old).draining);
    assert_eq!(world.serving(), 1);
    let shown = world.head.status.clone().expect("a status").pods;
    assert!(shown.iter().any(|pod| pod.draining && pod.outdated && !pod.ready));
    world.pod(&old).running = 0;
    let plan = world.step();
    assert_eq!(
        (uids(&plan.remove), plan.remove[0].reason),
        (vec![old.as_str()], reasons::DRAINED)
    );
    world.settle();
    assert_eq!(world.pods.len(), 1);
}

#[test]
fn without_room_for_one_more_the_old_pod_goes_first_after_a_while() {
    let mut world = World::settled(1, 0);
    let old = world.uids(false)[0].clone();
    change(&mut world);
    let surge = world.step().create.remove(0);
    let since = world.now;
    let uid = format!("uid-{}-{}", surge.slot, surge.incarnation);
    world.pod(&uid).unschedulable_since = Some(since);
    assert!(world.step().drain.is_empty());
    world.wait(15);
    assert_eq!(uids(&world.step().drain), [old.as_str()]);
    world.step();
    assert_eq!(world.uids(false).len() + world.uids(true).len(), 1);
    world.pod(&uid).unschedulable_since = None;
    world.settle();
    assert_eq!(world.serving(), 1);
}

#[test]
fn pods_that_never_started_do_not_hold_a_correction_up() {
    let mut world = World::settled(1, 0);
    change(&mut world);
    let broken = world.step().create.remove(0);
    world.step();
    change(&mut world);
    let plan = world.step();
    assert_eq!(
        uids(&plan.drain),
        [format!("uid-{}-{}", broken.slot, broken.incarnation).as_str()]
    );
    world.settle();
    assert_eq!((world.pods.len(), world.fewest_serving), (1, 1));
}

#[test]
fn an_operator_that_has_heard_nobody_yet_replaces_and_promotes_nobody() {
    let mut world = World::settled(2, 1);
    change(&mut world);
    for pod in &mut world.pods {
        (pod.agent, pod.ready) = (None, false);
    }
    let plan = world.step();
    assert!(plan.remove.is_empty() && plan.drain.is_empty());
    assert!(plan.duties.is_empty() && plan.regenerations.is_empty());
}

#[test]
fn a_pod_that_served_a_former_operator_is_not_taken_for_one_that_never_started() {
    for draining in [false, true] {
        let mut world = World::settled(2, 0);
        change(&mut world);
        let doubted = world.uids(false)[0].clone();
        for pod in &mut world.pods {
            (pod.agent, pod.ready) = (None, false);
        }
        // It has runs, and its kubelet finds it busy at this moment.
        (world.pod(&doubted).kubelet_ready, world.pod(&doubted).running) = (false, 2);
        world.pod(&doubted).draining = draining;
        let plan = world.step();
        assert!(
            uids(&plan.drain).is_empty() && uids(&plan.remove).is_empty(),
            "{draining}"
        );
        // Heard or lost, it is dealt with as any other.
        let now = world.now;
        silence(world.pod(&doubted), reasons::HEARTBEAT_LOST, now);
        world.wait(5);
        assert_eq!(uids(&world.step().remove), [doubted.as_str()], "{draining}");
    }
}

#[test]
fn scaling_down_drains_idle_pods_first_and_a_drained_pod_is_no_loss() {
    let mut world = World::settled(3, 0);
    let pods = world.uids(false);
    world.pod(&pods[1]).running = 1;
    world.pod(&pods[2]).running = 2;
    world.head.spec.replicas = 1;
    let plan = world.step();
    assert_eq!(uids(&plan.drain), [pods[0].as_str(), pods[1].as_str()]);
    let plans = world.settle();
    assert_eq!(
        world.uids(false),
        [pods[2].clone()],
        "the busiest stays: moving it would cost most"
    );
    assert!(
        world.pods.iter().any(|pod| pod.uid == pods[1]),
        "it has a run still"
    );
    assert!(plans.iter().all(|plan| plan.regenerations.is_empty()));
}

#[test]
fn scaling_up_again_takes_back_the_pods_that_are_still_on_their_way_out() {
    let mut world = World::settled(4, 0);
    for pod in &mut world.pods {
        pod.running = 1;
    }
    let before = world.uids(false);
    world.head.spec.replicas = 2;
    world.settle();
    assert_eq!((world.pods.len(), world.uids(false).len()), (4, 2));
    world.head.spec.replicas = 4;
    let plan = world.step();
    assert_eq!((plan.restore.len(), plan.create.len()), (2, 0));
    assert!(plan.restore.iter().all(|pod| plan.keep.contains(&pod.uid)));
    let plans = world.settle();
    assert!(plans.iter().all(|plan| plan.regenerations.is_empty()));
    assert_eq!((world.uids(false), world.most), (before, 4));
}

#[test]
fn a_pod_on_its_way_out_is_not_taken_back_when_it_is_of_an_earlier_spec_or_not_well() {
    type Spoil = fn(&mut World, &str);
    let spoilt: [Spoil; 4] = [
        |world, _| change(world),
        |world, uid| strike(world, uid, Fault::Suspect),
        |world, uid| world.pod(uid).disruption = Some("evicted".into()),
        |world, uid| {
            let now = world.now;
            silence(world.pod(uid), reasons::HEARTBEAT_LOST, now);
        },
    ];
    for spoil in spoilt {
        let mut world = World::settled(2, 0);
        let pods = world.uids(false);
        for uid in &pods {
            world.pod(uid).running = 1;
        }
        world.head.spec.replicas = 1;
        world.settle();
        let leaving = pods.iter().find(|uid| !world.uids(false).contains(uid));
        let leaving = leaving.expect("one is drained").clone();
        world.head.spec.replicas = 2;
        spoil(&mut world, &leaving);
        let plan = world.step();
        assert!(plan.restore.is_empty(), "{:?}", plan.restore);
        assert_eq!(plan.create.len(), 1);
    }
}

#[test]
fn spares_that_are_too_many_go_before_pods_that_serve() {
    let mut world = World::settled(1, 2);
    let serving = world.uids(false);
    world.head.spec.spares = 0;
    world.settle();
    assert_eq!(world.uids(false), serving);
    assert!(world.uids(true).is_empty());
}

#[test]
fn applying_a_plan_and_planning_again_changes_nothing() {
    for (replicas, spares) in [(0, 0), (1, 0), (2, 1), (3, 2)] {
        let mut world = World::settled(replicas, spares);
        let status = world.head.status.clone();
        let again = world.step();
        assert!(again.create.is_empty() && again.remove.is_empty() && again.duties.is_empty());
        assert!(again.drain.is_empty() && !again.unsettled);
        assert_eq!(world.head.status, status, "an unchanged status is not written");
    }
}

#[test]
fn a_new_head_gets_replicas_and_spares() {
    let plan = decide(&head(2, 1), Vec::new());
    let spares: Vec<_> = plan.create.iter().map(|pod| pod.spare).collect();
    assert_eq!(spares, [false, false, true]);
    assert!(plan.remove.is_empty() && plan.duties.is_empty() && plan.regenerations.is_empty());
}

#[test]
fn a_place_is_filled_under_a_new_name_although_the_old_pod_is_not_gone() {
    let mut head = head(1, 0);
    let mut stuck = pod(&head, 0, 3, false);
    stuck.deleting = true;
    let next = [NewPod {
        slot: 0,
        incarnation: 4,
        spare: false,
    }];
    assert_eq!(decide(&head, vec![stuck.clone()]).create, next);
    stuck.deleting = false;
    head.status = Some(decide(&head, vec![stuck]).status);
    assert_eq!(
        decide(&head, Vec::new()).create,
        next,
        "the status remembers names of pods that are gone"
    );
}

#[test]
fn without_identity_or_with_a_forbidden_image_no_pod_is_made_and_none_replaced() {
    let mut head = head(1, 0);
    let mut old = pod(&head, 0, 0, false);
    old.template_hash = "old".into();
    let template = template();
    let without = plan(&Observed {
        head: &head,
        template: &template,
        identity: Err("no root".to_owned()),
        refused: None,
        pods: Vec::new(),
        now: Timestamp::UNIX_EPOCH,
    });
    assert!(without.create.is_empty());
    assert_eq!(without.status.conditions[0].reason, reasons::IDENTITY_UNAVAILABLE);
    head.spec.image = Some("evil/image".into());
    let forbidden = decide(&head, vec![old]);
    assert!(forbidden.create.is_empty() && forbidden.drain.is_empty() && forbidden.remove.is_empty());
    assert_eq!(forbidden.status.conditions[0].reason, reasons::IMAGE_NOT_ALLOWED);
}

#[test]
fn a_refused_change_is_told_although_the_head_is_ready() {
    let mut head = head(1, 0);
    let mut old = pod(&head, 0, 0, false);
    old.template_hash = "old".into();
    head.status = Some(decide_at(&head, vec![old.clone()], Timestamp::UNIX_EPOCH).status);
    let plan = plan(&Observed {
        head: &head,
        template: &template(),
        identity: Ok(()),
        refused: Some((reasons::RUNTIME_CLASS_NOT_FOUND, "no gvisor".into())),
        pods: vec![old],
        now: Timestamp::UNIX_EPOCH,
    });
    let ready = &plan.status.conditions[0];
    assert_eq!(ready.status, api::ConditionStatus::True);
    assert!(ready.message.contains("no gvisor"), "{}", ready.message);
}
