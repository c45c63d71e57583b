//! Damage to what is stored, two processes at once, wall clocks that jump, and rest: what must not happen then, and what a
//! person is told.

use std::{
    io::Write,
    sync::{Arc, Mutex},
};

use api::{names, reasons};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use controller_core::key_plan::{PAGE_AT, PAGE_SIZE};
use crypto::KeyPurpose;
use serde_json::{Value, json};

use crate::{
    keys::rotation,
    keys::simulation::{ROOT, Simulation, TRUST, keys_path, policy_path},
};

fn signing(rotation: &Value) -> Value {
    json!({"purpose": "Signing", "algorithm": "ML-DSA-87", "rotation": rotation})
}

fn by_the_minute() -> Value {
    json!({"interval": "60s", "prefetch": "10s", "overlap": "5s"})
}

/// A policy that has rotated and rolled its root over, so that there is something in each place.
async fn grown() -> Simulation {
    let mut simulation = Simulation::new();
    simulation.add(
        "ops",
        "p",
        &signing(&json!({"interval": "60s", "prefetch": "50s", "overlap": "30s"})),
    );
    simulation.settle().await;
    simulation.annotate(names::ROLL_ROOT_ANNOTATION, "once");
    for seconds in [60, 10] {
        simulation.wait(seconds);
        simulation.settle().await;
    }
    simulation.reconcile_all().await;
    simulation
}

/// Everything that is logged while it lives, of this thread.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no panic").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn capture(&self) -> tracing::subscriber::DefaultGuard {
        let log = self.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_writer(move || log.clone())
            .finish();
        tracing::subscriber::set_default(subscriber)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("no panic")).into_owned()
    }
}

/// Every seed that is stored, as a Secret's JSON and as its data hold it.
fn secrets(simulation: &Simulation) -> Vec<String> {
    let mut seeds = Vec::new();
    for (path, object) in simulation.server.objects() {
        if !path.contains("/secrets/") {
            continue;
        }
        for (name, value) in object["data"].as_object().expect("data") {
            let bytes = STANDARD.decode(value.as_str().expect("base64")).expect("base64");
            if ["seed", "successor"].contains(&name.as_str()) {
                seeds.push(value.as_str().expect("base64").to_owned());
            } else if let Ok(value) = serde_json::from_slice::<Value>(&bytes) {
                let keys = value.as_array().cloned().unwrap_or_else(|| vec![value]);
                let inner = keys.iter().filter_map(|key| key["seed"].as_str());
                let inner: Vec<_> = inner.map(str::to_owned).collect();
                seeds.extend(inner.iter().map(|seed| STANDARD.encode(seed)));
                seeds.extend(inner);
            }
        }
    }
    // Of one that was cut off, what is left may be anything.
    seeds.retain(|seed| seed.len() > 16);
    seeds
}

/// Does damage to one object, and looks that nothing is used, nothing is made, and it is told how to recover; then that the
/// object restored is used again by the same process.
async fn damage(simulation: &mut Simulation, path: &str, damaged: Option<&Value>, about: &str) {
    let original = simulation.server.get(path).expect("stored");
    let before = simulation.server.objects();
    let mut seeds = secrets(simulation);
    simulation.damage(path, damaged);
    seeds.extend(secrets(simulation));
    let log = Log::default();
    {
        let _capture = log.capture();
        simulation.settle().await;
    }
    assert!(
        simulation.context.keyring.signer("p").is_err(),
        "{about}: a signer is in use"
    );
    let (status, reason, message) = simulation.ready();
    assert_eq!(status, "False", "{about}");
    let expected = match path {
        ROOT => reasons::ROOT_UNAVAILABLE,
        TRUST => reasons::TRUST_UNREADABLE,
        _ => reasons::KEYS_UNREADABLE,
    };
    assert_eq!(reason, expected, "{about}: {message}");
    assert!(message.contains("restore"), "{about}: {message}");
    for (other, object) in simulation.server.objects() {
        if other != path && !other.contains("/keyrotationpolicies/") {
            assert_eq!(before.get(&other), Some(&object), "{about}: {other} was written");
        }
    }
    let policy = simulation
        .server
        .get(&policy_path("ops", "p"))
        .expect("the policy")
        .to_string();
    let told = log.text() + &policy;
    for seed in &seeds {
        assert!(!told.contains(seed.as_str()), "{about}: a seed is told");
    }

    simulation.damage(path, Some(&original));
    simulation.settle().await;
    assert!(
        simulation.context.keyring.signer("p").is_ok(),
        "{about}: restored"
    );
    assert_eq!(simulation.failures(), <[String; 0]>::default(), "{about}");
}

/// Every way to cut off one of the values of an object, by eighths.
fn truncations(object: &Value) -> Vec<(String, Value)> {
    let is_secret = object["kind"] == "Secret";
    let mut all = Vec::new();
    for (name, value) in object["data"].as_object().expect("data") {
        let text = value.as_str().expect("a text");
        let whole = if is_secret {
            STANDARD.decode(text).expect("base64")
        } else {
            text.as_bytes().to_vec()
        };
        for eighths in 0..8 {
            let cut = &whole[..whole.len() * eighths / 8];
            let cut = if is_secret {
                STANDARD.encode(cut)
            } else {
                String::from_utf8(cut.to_vec()).expect("ASCII")
            };
            let mut damaged = object.clone();
            damaged["data"][name] = json!(cut);
            all.push((format!("{name} cut off at {eighths}/8"), damaged));
        }
    }
    all
}

#[tokio::test]
async fn what_is_cut_off_takes_signing_away_until_it_is_restored() {
    let mut simulation = grown().await;
    for path in [ROOT.to_owned(), keys_path("p"), TRUST.to_owned()] {
        for (how, damaged) in truncations(&simulation.server.get(&path).expect("stored")) {
            // What says nothing of any key is read by nobody: whose the Secret is, is said in full or not at all.
            damage(&mut simulation, &path, Some(&damaged), &format!("{path}: {how}")).await;
        }
    }
}

#[tokio::test]
async fn what_is_deleted_takes_signing_away_until_it_is_restored() {
    let mut simulation = grown().await;
    for path in [ROOT.to_owned(), keys_path("p")] {
        damage(&mut simulation, &path, None, &format!("{path} deleted")).await;
    }
    // The bundle is made again from the Secrets, and nothing in it is lost.
    let outline = simulation.outline();
    simulation.server.remove(TRUST);
    simulation.settle().await;
    assert_eq!(simulation.outline()[TRUST], outline[TRUST]);
    simulation.verify_receipts(&std::collections::BTreeSet::new());
}

#[tokio::test]
async fn what_belongs_to_another_takes_signing_away_until_it_is_restored() {
    let mut simulation = grown().await;
    simulation.add("ops", "other", &signing(&by_the_minute()));
    simulation.settle().await;
    let mut stranger = Simulation::new();
    stranger.add("ops", "p", &signing(&by_the_minute()));
    stranger.settle().await;
    let mut sealing = Simulation::new();
    sealing.add(
        "ops",
        "p",
        &json!({"purpose": "Sealing", "algorithm": "ML-KEM-1024"}),
    );
    sealing.settle().await;

    let keys = keys_path("p");
    let data = |simulation: &Simulation, from: &str, to: &Value| {
        let mut object = to.clone();
        object["data"] = simulation.server.get(from).expect("stored")["data"].clone();
        object
    };
    let (own_keys, own_root) = (
        simulation.server.get(&keys).expect("stored"),
        simulation.server.get(ROOT).expect("stored"),
    );
    let mut swapped = own_root.clone();
    swapped["data"]["seed"] = stranger.server.get(ROOT).expect("stored")["data"]["seed"].clone();
    let mut mixed = own_keys.clone();
    mixed["data"]["active"] = stranger.server.get(&keys).expect("stored")["data"]["active"].clone();
    for (path, damaged, about) in [
        (
            keys.as_str(),
            data(&simulation, &keys_path("other"), &own_keys),
            "the keys of another policy",
        ),
        (&keys, data(&stranger, &keys, &own_keys), "keys of another root"),
        (&keys, data(&sealing, &keys, &own_keys), "keys of another suite"),
        (&keys, mixed, "a key of another root among its own"),
        (ROOT, data(&stranger, ROOT, &own_root), "another root"),
        (ROOT, swapped, "another root's seed"),
    ] {
        damage(&mut simulation, path, Some(&damaged), about).await;
    }
}

#[tokio::test]
async fn a_root_from_before_its_roll_over_vouches_for_nothing() {
    let mut simulation = Simulation::new();
    simulation.add("ops", "p", &signing(&by_the_minute()));
    simulation.settle().await;
    let backup = simulation.server.get(ROOT).expect("stored");
    simulation.annotate(names::ROLL_ROOT_ANNOTATION, "once");
    simulation.settle().await;
    damage(&mut simulation, ROOT, Some(&backup), "an old backup").await;
}

#[tokio::test]
async fn no_root_is_made_for_a_new_policy_where_the_one_of_others_was_lost() {
    let mut simulation = grown().await;
    for path in [ROOT, TRUST] {
        simulation.server.remove(path);
    }
    simulation.add("ops", "new", &signing(&by_the_minute()));
    simulation.settle().await;
    assert_eq!(simulation.server.get(ROOT), None);
}

#[tokio::test]
async fn a_leader_that_was_deposed_writes_nothing_over_what_its_successor_wrote() {
    for steps in 0..6 {
        let mut simulation = Simulation::new();
        simulation.add("ops", "p", &signing(&by_the_minute()));
        if steps > 2 {
            simulation.settle().await;
            simulation.wait(60);
        }
        for _ in 0..steps % 3 {
            simulation.reconcile_all().await;
        }
        // The old leader has read everything, and is stopped before it writes.
        let old = simulation.another_process(1);
        let policy = Arc::new(simulation.policy());
        let late = simulation.server.hold_next_write();
        let late_write = tokio::spawn(rotation::reconcile(policy, old));
        late.reached().await;
        simulation.restart();
        simulation.settle().await;
        let before = simulation.outline();
        let stored = simulation.server.objects();
        late.release();
        let _ = late_write.await.expect("no panic");
        for (path, object) in simulation.server.objects() {
            if !path.contains("/keyrotationpolicies/") {
                assert_eq!(
                    stored[&path]["data"], object["data"],
                    "{path} after {steps} steps"
                );
            }
        }
        simulation.settle().await;
        assert_eq!(simulation.outline(), before, "after {steps} steps");
    }
}

#[tokio::test]
async fn policies_that_publish_at_once_lose_nothing_of_one_another() {
    let mut simulation = Simulation::new();
    simulation.add("ops", "p", &signing(&by_the_minute()));
    simulation.add("ops", "q", &signing(&by_the_minute()));
    let paths = [policy_path("ops", "p"), policy_path("ops", "q")];
    for round in 0..8 {
        let [first, second] = paths.clone().map(|path| {
            let policy =
                serde_json::from_value(simulation.server.get(&path).expect("stored")).expect("a policy");
            rotation::reconcile(Arc::new(policy), Arc::clone(&simulation.context))
        });
        // Both read before either writes.
        let (first, second) = tokio::join!(first, second);
        assert!(
            first.is_ok() && second.is_ok(),
            "round {round}: {:?} {:?}",
            first.err(),
            second.err()
        );
        if let Some(trusted) = simulation.trusted() {
            let known = trusted.iter().count();
            assert!(known <= 2);
        }
    }
    simulation.settle().await;
    assert_eq!(simulation.trusted().expect("a bundle").iter().count(), 2);
    for name in ["p", "q"] {
        assert!(simulation.context.keyring.signer(name).is_ok());
    }
    let outline = simulation.outline();
    assert_eq!(
        (&outline[ROOT]["made"], &outline[&keys_path("q")]["made"]),
        (&json!(1), &json!(1))
    );
}

#[tokio::test]
async fn a_wall_clock_that_jumps_an_hour_rotates_nothing_and_expires_nothing() {
    for ahead in [3600, -3600] {
        let mut simulation = Simulation::new();
        simulation.add(
            "ops",
            "p",
            &signing(&json!({"interval": "30m", "prefetch": "10m", "overlap": "5s"})),
        );
        simulation.settle().await;
        simulation.set_wall_clock_ahead(ahead);
        simulation.reconcile_all().await;
        assert_eq!(simulation.settle().await, 0, "{ahead}");
        // Rotations and a roll-over go on while it is wrong, and when it is set right again.
        simulation.wait(1800);
        simulation.settle().await;
        simulation.annotate(names::ROLL_ROOT_ANNOTATION, "once");
        simulation.settle().await;
        simulation.set_wall_clock_ahead(0);
        simulation.reconcile_all().await;
        // A process that begins while the clock is wrong.
        for (wrong, name) in [(ahead, "twice"), (0, "thrice")] {
            simulation.set_wall_clock_ahead(wrong);
            simulation.restart();
            simulation.wait(1800);
            simulation.settle().await;
            simulation.annotate(names::ROLL_ROOT_ANNOTATION, name);
            simulation.settle().await;
        }
        assert!(simulation.context.keyring.signer("p").is_ok());
        assert_eq!(simulation.failures(), <[String; 0]>::default(), "{ahead}");
        simulation.verify_receipts(&std::collections::BTreeSet::new());
    }
}

#[tokio::test]
async fn a_policy_at_rest_writes_nothing_also_while_it_signs() {
    let mut simulation = Simulation::new();
    simulation.add("ops", "signing", &signing(&json!({})));
    simulation.add(
        "ops",
        "sealing",
        &json!({"purpose": "Sealing", "algorithm": "ML-KEM-1024"}),
    );
    simulation.add(
        "team",
        "sealing",
        &json!({"purpose": "Sealing", "algorithm": "ML-KEM-1024"}),
    );
    simulation.add(
        "ops",
        "session",
        &json!({"purpose": "Session", "algorithm": "AES-256-GCM-L4"}),
    );
    simulation.settle().await;
    simulation.server.writes();
    for _ in 0..100 {
        simulation.wait(30);
        let signer = simulation
            .context
            .keyring
            .signer("signing")
            .expect("a key in use");
        signer.counter.count(1000);
        simulation.reconcile_all().await;
    }
    assert_eq!(simulation.server.writes(), Vec::<String>::new());
    assert!(simulation.receipt_count() >= 100);
}

#[tokio::test]
async fn statements_that_leave_the_bundle_in_time_fill_no_pages() {
    let mut simulation = Simulation::new();
    simulation.add("ops", "p", &signing(&by_the_minute()));
    simulation.settle().await;
    simulation.fill_bundle(PAGE_AT + 1, KeyPurpose::Sealing);
    simulation.settle().await;
    let paths = simulation.server.paths();
    let page = names::trust_page(1);
    assert!(!paths.iter().any(|path| path.ends_with(&page)), "{paths:?}");
}

#[tokio::test]
async fn a_bundle_that_was_deleted_keeps_its_pages() {
    let mut simulation = Simulation::new();
    simulation.add("ops", "p", &signing(&by_the_minute()));
    simulation.settle().await;
    simulation.fill_bundle(PAGE_AT + 1, KeyPurpose::Signing);
    simulation.settle().await;
    let published = simulation.trusted().expect("a bundle").iter().count();
    let pages = simulation.outline()[TRUST]["pages"].clone();
    assert_eq!(pages, json!("1"));
    let whole = simulation.server.get(TRUST).expect("stored");
    for (pages, is_usable) in [(json!("x"), false), (json!(null), false), (json!("1"), true)] {
        let mut damaged = whole.clone();
        damaged["data"][names::TRUST_PAGES_KEY] = pages.clone();
        if pages.is_null() {
            damaged["data"]
                .as_object_mut()
                .expect("data")
                .remove(names::TRUST_PAGES_KEY);
        }
        simulation.server.put(TRUST, &damaged);
        simulation.reconcile_all().await;
        assert_eq!(
            simulation.context.keyring.signer("p").is_ok(),
            is_usable,
            "{pages}"
        );
    }
    simulation.server.remove(TRUST);
    simulation.settle().await;
    let left = simulation.trusted().expect("a bundle").iter().count();
    assert_eq!(
        (left, &simulation.outline()[TRUST]["pages"]),
        (PAGE_SIZE + 1, &json!("1")),
        "of {published}"
    );
}
