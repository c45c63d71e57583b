//! Every fault at every write of a rotation: the process ends before or after it, its answer is lost, it meets a conflict.
//! Whatever happened, the same keys are there in the end, none was lost, none was used before it was published, and every
//! receipt is believed by whoever pinned the first root.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use api::names;
use controller_core::key_plan::PAGE_AT;
use crypto::{KeyId, KeyPurpose, SigningKey, Suite};
use serde_json::{Value, json};

use crate::{
    keys::simulation::{Simulation, policy_path},
    recorded_server::Fault,
};

/// Times of a policy that rotates every minute.
fn by_the_minute() -> Value {
    json!({"interval": "60s", "prefetch": "10s", "overlap": "5s"})
}

fn spec(purpose: &str, algorithm: &str, rotation: &Value) -> Value {
    json!({"purpose": purpose, "algorithm": algorithm, "rotation": rotation})
}

fn signing() -> Value {
    spec("Signing", "ML-DSA-87", &by_the_minute())
}

/// Goes one way from where `start` is, without a fault and then with each fault at each write, and compares. How many ways
/// were gone.
async fn enumerate(start: &Simulation, way: impl AsyncFn(&mut Simulation) + Sync) -> usize {
    enumerate_revoking(start, &BTreeSet::new(), way).await
}

async fn enumerate_revoking(
    start: &Simulation,
    revoked: &BTreeSet<KeyId>,
    way: impl AsyncFn(&mut Simulation) + Sync,
) -> usize {
    let mut calm = start.copy();
    way(&mut calm).await;
    calm.verify_receipts(revoked);
    assert_eq!(calm.failures(), <[String; 0]>::default(), "without a fault");
    let (end, writes) = (calm.outline(), calm.server.write_count());
    assert!(writes > 0, "nothing happened");
    let faults: Vec<_> = (0..writes)
        .flat_map(|at| Fault::ALL.map(|fault| (at, fault)))
        .collect();
    on_every_core(&faults, async |(at, fault)| {
        let mut simulation = start.copy();
        simulation.server.fail(*at, *fault);
        way(&mut simulation).await;
        let about = || format!("{fault:?} at write {at} of {:?}", simulation.server.writes());
        assert!(
            simulation.failures().len() <= 1,
            "{}: {:?}",
            about(),
            simulation.failures()
        );
        assert_eq!(simulation.outline(), end, "{}", about());
        simulation.verify_receipts(revoked);
    });
    faults.len()
}

/// Does `work` with each of the items, on as many threads as there are cores, each with a runtime of its own.
fn on_every_core<T: Sync>(items: &[T], work: impl AsyncFn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    let take = || items.get(next.fetch_add(1, Ordering::Relaxed));
    let all = async || {
        while let Some(item) = take() {
            work(item).await;
        }
    };
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(all());
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(run);
        }
    });
}

async fn installed(namespace: &str, spec: &Value) -> Simulation {
    let mut simulation = Simulation::new();
    simulation.add(namespace, "p", spec);
    simulation.settle().await;
    simulation
}

/// Prefetched, published, rotated, retired.
async fn one_interval(simulation: &mut Simulation) {
    for seconds in [50, 10, 5] {
        simulation.wait(seconds);
        simulation.settle().await;
    }
}

#[tokio::test]
async fn an_installation() {
    for (namespace, spec) in [
        ("ops", signing()),
        ("ops", spec("Sealing", "ML-KEM-1024", &by_the_minute())),
        ("team", spec("Sealing", "ML-KEM-1024", &by_the_minute())),
        ("ops", spec("Session", "AES-256-GCM-L4", &by_the_minute())),
    ] {
        let mut start = Simulation::new();
        start.add(namespace, "p", &spec);
        enumerate(&start, async |simulation| {
            simulation.settle().await;
        })
        .await;
    }
}

#[tokio::test]
async fn an_installation_of_several_policies_at_once() {
    let mut start = Simulation::new();
    start.add("ops", "signing", &signing());
    start.add("ops", "sealing", &spec("Sealing", "ML-KEM-1024", &json!({})));
    start.add("team", "sealing", &spec("Sealing", "ML-KEM-1024", &json!({})));
    enumerate(&start, async |simulation| {
        simulation.settle().await;
    })
    .await;
}

#[tokio::test]
async fn a_rotation_of_signing_keys() {
    for algorithm in ["ML-DSA-87", "Ed25519+ML-DSA-87"] {
        let start = installed("ops", &spec("Signing", algorithm, &by_the_minute())).await;
        enumerate(&start, one_interval).await;
    }
}

#[tokio::test]
async fn a_rotation_of_sealing_keys() {
    for namespace in ["ops", "team"] {
        let mut start = installed(namespace, &spec("Sealing", "ML-KEM-1024", &by_the_minute())).await;
        one_interval(&mut start).await;
        enumerate(&start, one_interval).await;
    }
}

#[tokio::test]
async fn a_rotation_of_session_keys() {
    let mut start = installed("ops", &spec("Session", "AES-256-GCM-L4", &by_the_minute())).await;
    one_interval(&mut start).await;
    enumerate(&start, one_interval).await;
}

#[tokio::test]
async fn a_rotation_by_hand() {
    let start = installed("ops", &spec("Signing", "ML-DSA-87", &json!({"overlap": "5s"}))).await;
    start.annotate(names::ROTATE_ANNOTATION, "now");
    enumerate(&start, async |simulation| {
        simulation.settle().await;
        simulation.wait(5);
        simulation.settle().await;
    })
    .await;
}

#[tokio::test]
async fn a_roll_over_of_the_root_and_the_rotation_after_it() {
    let start = installed("ops", &signing()).await;
    start.annotate(names::ROLL_ROOT_ANNOTATION, "now");
    enumerate(&start, async |simulation| {
        simulation.settle().await;
        one_interval(simulation).await;
    })
    .await;
}

#[tokio::test]
async fn a_roll_over_of_the_root_while_other_policies_rotate() {
    let mut start = Simulation::new();
    // In this order, so that the others come between the steps of the root's succession.
    start.add("ops", "signing", &signing());
    start.add("ops", "other", &signing());
    start.add(
        "ops",
        "sealing",
        &spec("Sealing", "ML-KEM-1024", &by_the_minute()),
    );
    start.settle().await;
    enumerate(&start, async |simulation| {
        simulation.annotate(names::ROLL_ROOT_ANNOTATION, "now");
        simulation.wait(50);
        // Time passes between any two steps.
        for _ in 0..16 {
            simulation.wait(1);
            simulation.reconcile_all().await;
        }
        simulation.settle().await;
    })
    .await;
}

#[tokio::test]
async fn a_revocation_of_the_key_in_use() {
    let start = installed("ops", &signing()).await;
    let active = start
        .policy()
        .status
        .and_then(|status| status.active_key_id)
        .expect("a key in use");
    start.edit(&policy_path("ops", "p"), |policy| {
        policy["spec"]["revoked"] = json!([{"keyId": active, "reason": "KeyCompromise"}]);
    });
    let revoked = BTreeSet::from([active.parse().expect("a key id")]);
    enumerate_revoking(&start, &revoked, async |simulation| {
        simulation.settle().await;
        simulation.wait(5);
        simulation.settle().await;
    })
    .await;
}

#[tokio::test]
async fn a_page_of_old_statements() {
    let start = installed("ops", &signing()).await;
    start.fill_bundle(PAGE_AT + 1, KeyPurpose::Signing);
    enumerate(&start, async |simulation| {
        simulation.settle().await;
    })
    .await;
}

#[tokio::test]
async fn an_offline_root_that_is_asked_and_answers() {
    let root = SigningKey::from_seed(Suite::MlDsa87, &[7; 32]).expect("a key");
    let mut start = Simulation::offline(root);
    start.add("ops", "p", &signing());
    enumerate(&start, async |simulation| {
        simulation.settle().await;
        simulation.answer();
        simulation.settle().await;
        simulation.wait(60);
        simulation.settle().await;
        simulation.answer();
        simulation.settle().await;
    })
    .await;
}
