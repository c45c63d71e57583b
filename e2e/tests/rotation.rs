//! Keys that change under load: rotations, a new root, a revocation. Whatever was signed verifies with the root that was
//! pinned first.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the answer")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use api::{
    KeyRotationPolicy, MuReceipt,
    condition::{VERIFIED, find},
    names, reasons,
};
use crypto::Envelope;
use e2e::{Namespace, cli::chimera_offline, cluster, documents, heads, in_namespace, runs, wait};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

fn policies(space: &Namespace) -> Api<KeyRotationPolicy> {
    Api::namespaced(space.client.clone(), cluster::OPERATOR_NAMESPACE)
}

async fn trust(space: &Namespace) -> BTreeMap<String, String> {
    let maps: Api<ConfigMap> = Api::namespaced(space.client.clone(), cluster::OPERATOR_NAMESPACE);
    maps.get(names::TRUST_CONFIG_MAP).await.unwrap().data.unwrap()
}

async fn change(space: &Namespace, change: Value) -> KeyRotationPolicy {
    let changed = policies(space)
        .patch(
            names::DEFAULT_SIGNING_POLICY,
            &PatchParams::default(),
            &Patch::Merge(change),
        )
        .await;
    changed.unwrap()
}

fn active(policy: &KeyRotationPolicy) -> Option<String> {
    policy.status.as_ref()?.active_key_id.clone()
}

/// A value that no earlier request had: the object's own version.
fn fresh(policy: &KeyRotationPolicy) -> String {
    policy.resource_version().unwrap()
}

/// Asks for another key, and waits until it is in use.
async fn rotate(space: &Namespace) -> String {
    let before = policies(space).get(names::DEFAULT_SIGNING_POLICY).await.unwrap();
    let request = json!({"metadata": {"annotations": {names::ROTATE_ANNOTATION: fresh(&before)}}});
    change(space, request).await;
    let after = wait::until(
        &policies(space),
        names::DEFAULT_SIGNING_POLICY,
        "another key is in use",
        |policy| active(policy).is_some() && active(policy) != active(&before),
    )
    .await;
    active(&after).unwrap()
}

/// Asks for another root, and waits until the bundle is its.
async fn roll_root(space: &Namespace) {
    let before = trust(space).await[names::TRUST_ROOT_KEY].clone();
    let policy = policies(space).get(names::DEFAULT_SIGNING_POLICY).await.unwrap();
    let request = json!({"metadata": {"annotations": {names::ROLL_ROOT_ANNOTATION: fresh(&policy)}}});
    change(space, request).await;
    let maps: Api<ConfigMap> = Api::namespaced(space.client.clone(), cluster::OPERATOR_NAMESPACE);
    wait::until(
        &maps,
        names::TRUST_CONFIG_MAP,
        "the bundle is of another root",
        |map| {
            let root = map.data.as_ref().and_then(|data| data.get(names::TRUST_ROOT_KEY));
            root.is_some_and(|root| *root != before)
        },
    )
    .await;
}

/// Runs one workflow after another until told to stop; how many.
async fn load(space: &Namespace, name: &str, stop: &AtomicBool) -> usize {
    for count in 0.. {
        if stop.load(Ordering::Relaxed) {
            return count;
        }
        let workflow = runs::workflow(&format!("{name}-{count}"), documents::small());
        let done = runs::run(space, workflow).await;
        runs::assert_succeeded(space, &done).await;
    }
    unreachable!("there is no end to numbers")
}

#[tokio::test]
async fn receipts_across_rotations_and_a_roll_over_verify_with_the_first_root_and_those_of_a_revoked_key_do_not()
 {
    in_namespace("rotation", async |space| {
        heads::start(space, heads::small("small")).await;
        let desk = tempfile::tempdir().unwrap();
        let first_root = trust(space).await[names::TRUST_ROOT_KEY].clone();
        std::fs::write(desk.path().join("root.pem"), &first_root).unwrap();

        let stop = AtomicBool::new(false);
        let turns = async {
            let mut keys = Vec::new();
            for turn in 0..3 {
                keys.push(rotate(space).await);
                if turn == 1 {
                    roll_root(space).await;
                }
                // Something is signed by each key, whatever the load does.
                let workflow = runs::workflow(&format!("turn-{turn}"), documents::small());
                let done = runs::run(space, workflow).await;
                runs::assert_succeeded(space, &done).await;
            }
            stop.store(true, Ordering::Relaxed);
            keys
        };
        let (keys, one, two) = tokio::join!(turns, load(space, "one", &stop), load(space, "two", &stop));
        assert_ne!(trust(space).await[names::TRUST_ROOT_KEY], first_root);

        let receipts = space
            .api::<MuReceipt>()
            .list(&ListParams::default())
            .await
            .unwrap()
            .items;
        assert_eq!(receipts.len(), one + two + 3, "one receipt for each run");
        for key in &keys {
            assert!(
                receipts.iter().any(|receipt| receipt.spec.key_id == *key),
                "{key} signed nothing"
            );
        }
        verify_all(space, desk.path(), &receipts, |_| 0).await;

        let revoked = &keys[1];
        let request = json!({"spec": {"revoked": [{"keyId": revoked, "reason": "KeyCompromise"}]}});
        change(space, request).await;
        let of_revoked = receipts
            .iter()
            .find(|receipt| receipt.spec.key_id == *revoked)
            .unwrap();
        wait::until(
            &space.api::<MuReceipt>(),
            &of_revoked.name_any(),
            "the audit has heard of the revocation",
            |receipt| {
                let conditions = receipt.status.clone().unwrap_or_default().conditions;
                find(&conditions, VERIFIED).is_some_and(|found| found.reason == reasons::KEY_REVOKED)
            },
        )
        .await;
        verify_all(space, desk.path(), &receipts, |receipt| {
            let relies = receipt.spec.key_id == *revoked || grant_key(receipt) == *revoked;
            if relies { 11 } else { 0 }
        })
        .await;
        // What was once revoked stays so; the list is for people.
        change(space, json!({"spec": {"revoked": null}})).await;
        let done = runs::run(space, runs::workflow("after", documents::small())).await;
        runs::assert_succeeded(space, &done).await;
    })
    .await;
}

/// The key that signed the grant of a receipt's run: the one before, when a rotation fell between the two.
fn grant_key(receipt: &MuReceipt) -> String {
    let envelope = Envelope::from_json(receipt.spec.envelope.as_bytes()).unwrap();
    let statement = crypto::receipt::parse(&envelope).unwrap();
    statement.grant().unwrap().unwrap().key_id().to_owned()
}

/// Verifies every receipt without a cluster, with today's bundle and the root that was pinned first.
async fn verify_all(
    space: &Namespace,
    desk: &std::path::Path,
    receipts: &[MuReceipt],
    expected: impl Fn(&MuReceipt) -> i32,
) {
    std::fs::write(
        desk.join("trust.json"),
        &trust(space).await[names::TRUST_BUNDLE_KEY],
    )
    .unwrap();
    for receipt in receipts {
        std::fs::write(desk.join("receipt.json"), &receipt.spec.envelope).unwrap();
        let args = [
            "verify",
            "receipt.json",
            "--trust",
            "trust.json",
            "--root",
            "root.pem",
        ];
        let answer = chimera_offline(desk, &args).await;
        let told = answer.stdout + &answer.stderr;
        assert_eq!(answer.code, expected(receipt), "{}: {told}", receipt.name_any());
        assert_eq!(answer.code == 11, told.contains("was revoked"), "{told}");
    }
}
