//! Policies, their controller and its clocks, on a [recorded server](crate::recorded_server): what the tests of rotations
//! drive, and what they look at.
//!
//! A simulation looks after every single reconcile: a key that is in use stands in the published bundle, a receipt is
//! signed with it and kept, and no private key has left its Secret before its time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use api::{KeyRotationPolicy, names};
use controller_core::key_ring::KeyRing;
use crypto::{
    DigestSet, KemSuite, KeyId, KeyPurpose, KeyStatement, KeySuite, PrivateKey, SigningKey, Suite,
    VerifyingKey,
    attestation::RunError,
    grant::WorkflowRef,
    offline_root::Requests,
    receipt::{self, Builder, Claim},
    trust::{Bundle, TrustedKeys},
    verify::{Verdict, verify_with},
};
use jiff::Timestamp;
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
};
use kube::runtime::controller::Action;
use serde_json::{Value, json};

use crate::{
    clock::Clock,
    context::Context,
    keys::keyring::Signer,
    keys::rotation::{self, KeyError},
    recorded_server::Server,
    test_context::process,
};

/// The root's Secret.
pub const ROOT: &str = "/api/v1/namespaces/ops/secrets/chimera-root";
/// The bundle's ConfigMap.
pub const TRUST: &str = "/api/v1/namespaces/ops/configmaps/chimera-trust";
/// The requests to an offline root.
pub const REQUESTS: &str = "/api/v1/namespaces/ops/configmaps/chimera-trust-requests";
/// The answers of an offline root.
pub const ANSWERS: &str = "/api/v1/namespaces/ops/configmaps/chimera-trust-answers";
const SECRETS: &str = "/api/v1/namespaces/ops/secrets/";
const MAPS: &str = "/api/v1/namespaces/ops/configmaps/";

/// More reconciles than any way to rest takes.
const MANY: usize = 60;

/// Where a policy is stored.
pub fn policy_path(namespace: &str, name: &str) -> String {
    format!("/apis/chimera.dunes.io/v1alpha1/namespaces/{namespace}/keyrotationpolicies/{name}")
}

/// Where the keys of a policy of the operator's namespace are stored.
pub fn keys_path(policy: &str) -> String {
    format!("{SECRETS}{}", names::key_secret(policy))
}

/// The time, in seconds: as it is, and as the wall clock has it.
#[derive(Clone, Default)]
struct Time {
    true_seconds: Arc<AtomicI64>,
    wall_is_ahead: Arc<AtomicI64>,
}

impl Time {
    /// The clocks of a process that begins now.
    fn clock(&self) -> Clock {
        let (wall, steady) = (self.clone(), self.clone());
        let ahead = self.wall_is_ahead.load(Ordering::Relaxed);
        Clock::reading(
            move || wall.seconds(wall.wall_is_ahead.load(Ordering::Relaxed)),
            move || steady.seconds(ahead),
        )
    }

    fn seconds(&self, ahead: i64) -> Timestamp {
        let second = self.true_seconds.load(Ordering::Relaxed) + ahead;
        Timestamp::from_second(second).expect("a time")
    }
}

/// A receipt that was signed on the way: by which key, when, and beside which version of the bundle.
#[derive(Clone)]
struct Signed {
    circumstances: (KeyId, Timestamp, String),
    envelope: Vec<u8>,
}

/// The keys of a Secret as last seen.
#[derive(Clone)]
struct Held {
    version: String,
    active: Option<KeyId>,
    places: Arc<Places>,
}

/// A private key in its Secret: its place, and since when it is there.
type Places = BTreeMap<String, (String, Timestamp)>;

/// A cluster with policies, and one process that reconciles them.
pub struct Simulation {
    /// What is stored.
    pub server: Arc<Server>,
    /// The process.
    pub context: Arc<Context>,
    time: Time,
    term: u64,
    /// The root that is elsewhere.
    offline: Option<Arc<SigningKey>>,
    /// Where the policies are stored.
    policies: Vec<String>,
    /// The first root that ever was: what everybody has pinned.
    pinned: Option<KeyId>,
    receipts: Vec<Signed>,
    held: BTreeMap<String, Held>,
    /// The bundle as last verified, and its version.
    bundle: Option<(String, TrustedKeys)>,
    writes: usize,
    failures: Vec<String>,
}

impl Simulation {
    /// A cluster without policies, whose root the operator keeps.
    pub fn new() -> Self {
        Self::with_root(None)
    }

    /// A cluster without policies, whose root is elsewhere.
    pub fn offline(root: SigningKey) -> Self {
        Self::with_root(Some(Arc::new(root)))
    }

    fn with_root(offline: Option<Arc<SigningKey>>) -> Self {
        let time = Time::default();
        time.true_seconds.store(1_800_000_000, Ordering::Relaxed);
        let server = Arc::new(Server::default());
        Self {
            context: begin(&server, 1, offline.as_deref(), &time),
            pinned: offline
                .as_deref()
                .map(|root| root.verifying_key().key_id().clone()),
            server,
            time,
            term: 1,
            offline,
            policies: Vec::new(),
            receipts: Vec::new(),
            held: BTreeMap::new(),
            bundle: None,
            writes: 0,
            failures: Vec::new(),
        }
    }

    /// The same cluster once more, with a process that has just begun.
    pub fn copy(&self) -> Self {
        let time = Time::default();
        for (to, from) in [
            (&time.true_seconds, &self.time.true_seconds),
            (&time.wall_is_ahead, &self.time.wall_is_ahead),
        ] {
            to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        let server = self.server.copy();
        Self {
            context: begin(&server, self.term + 1, self.offline.as_deref(), &time),
            server,
            time,
            term: self.term + 1,
            offline: self.offline.clone(),
            policies: self.policies.clone(),
            pinned: self.pinned.clone(),
            receipts: self.receipts.clone(),
            held: self.held.clone(),
            bundle: None,
            writes: 0,
            failures: Vec::new(),
        }
    }

    /// Another process on the same server, with clocks of the same time.
    pub fn another_process(&self, term: u64) -> Arc<Context> {
        begin(&self.server, term, self.offline.as_deref(), &self.time)
    }

    /// The process ends, and another one begins.
    pub fn restart(&mut self) {
        self.term += 1;
        self.context = self.another_process(self.term);
    }

    /// Adds a policy.
    pub fn add(&mut self, namespace: &str, name: &str, spec: &Value) {
        let path = policy_path(namespace, name);
        let policy = json!({
            "apiVersion": "chimera.dunes.io/v1alpha1", "kind": "KeyRotationPolicy",
            "metadata": {"name": name, "namespace": namespace, "generation": 1},
            "spec": spec,
        });
        self.server.put(&path, &policy);
        self.policies.push(path);
    }

    /// Changes a policy as a person would.
    pub fn edit(&self, path: &str, edit: impl FnOnce(&mut Value)) {
        let mut object = self.server.get(path).expect("a policy");
        edit(&mut object);
        self.server.put(path, &object);
    }

    /// Puts another object in the place of one, or nothing: what is lost by that is not the controller's doing.
    pub fn damage(&mut self, path: &str, object: Option<&Value>) {
        self.held.remove(path);
        match object {
            Some(object) => self.server.put(path, object),
            None => drop(self.server.remove(path)),
        }
    }

    /// Annotates the first policy.
    pub fn annotate(&self, annotation: &str, value: &str) {
        self.edit(&self.policies[0], |policy| {
            policy["metadata"]["annotations"][annotation] = json!(value);
        });
    }

    /// The first policy, as it is stored.
    pub fn policy(&self) -> KeyRotationPolicy {
        self.policy_at(&self.policies[0])
    }

    fn policy_at(&self, path: &str) -> KeyRotationPolicy {
        serde_json::from_value(self.server.get(path).expect("a policy")).expect("a policy")
    }

    /// The Ready condition of the first policy: its status, reason and message.
    pub fn ready(&self) -> (String, String, String) {
        let policy = self.server.get(&self.policies[0]).expect("a policy");
        let ready = &policy["status"]["conditions"][0];
        let text = |key: &str| ready[key].as_str().unwrap_or_default().to_owned();
        (text("status"), text("reason"), text("message"))
    }

    /// Time goes on.
    pub fn wait(&self, seconds: i64) {
        self.time.true_seconds.fetch_add(seconds, Ordering::Relaxed);
    }

    /// Somebody sets the wall clock.
    pub fn set_wall_clock_ahead(&self, seconds: i64) {
        self.time.wall_is_ahead.store(seconds, Ordering::Relaxed);
    }

    /// Somebody answers, with the offline root, what is asked.
    pub fn answer(&self) {
        let root = self.offline.as_ref().expect("an offline root");
        let requests: ConfigMap = self.read(REQUESTS);
        for (index, text) in requests.data.unwrap_or_default().values().enumerate() {
            let answers = Requests::from_json(text.as_bytes())
                .expect("requests")
                .answer(root);
            let text = serde_json::to_string(&answers.expect("answered")).expect("JSON");
            let mut map = self.server.get(ANSWERS).unwrap_or_else(
                || json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "chimera-trust-answers"}}),
            );
            map["data"][format!("{index}.json")] = json!(text);
            self.server.put(ANSWERS, &map);
        }
    }

    /// Reconciles all policies until there is nothing to write; how often it wrote.
    pub async fn settle(&mut self) -> usize {
        let before = self.writes;
        for _ in 0..MANY {
            let (writes, failures) = (self.writes, self.failures.len());
            self.reconcile_all().await;
            if self.writes == writes && self.failures.len() == failures {
                return self.writes - before;
            }
        }
        panic!("it never rests: {:?}, {:?}", self.server.writes(), self.failures);
    }

    /// Reconciles every policy once.
    pub async fn reconcile_all(&mut self) {
        for path in self.policies.clone() {
            if let Err(error) = self.reconcile(&path).await {
                self.failures.push(crate::causes::with_causes(&error));
            }
        }
    }

    /// Reconciles one policy, and looks. A process that ended is followed by another one.
    pub async fn reconcile(&mut self, path: &str) -> Result<Action, KeyError> {
        let before = self.server.write_count();
        let policy = Arc::new(self.policy_at(path));
        let result = rotation::reconcile(policy, Arc::clone(&self.context)).await;
        self.writes += self.server.write_count() - before;
        if self.server.begin_anew() {
            self.restart();
        }
        self.look();
        result
    }

    /// What went wrong on the way.
    pub fn failures(&self) -> &[String] {
        &self.failures
    }

    fn look(&mut self) {
        if self.pinned.is_none() && self.server.get(ROOT).is_some() {
            self.pinned = Some(self.root().key_id().clone());
        }
        self.look_at_secrets();
        for path in self.policies.clone() {
            let policy = self.policy_at(&path);
            let name = policy.metadata.name.unwrap_or_default();
            if !path.contains("/ops/") {
                continue;
            }
            if let Ok(signer) = self.context.keyring.signer(&name) {
                self.look_at_signer(&signer);
            }
        }
        self.look_at_openers();
    }

    fn look_at_signer(&mut self, signer: &Signer) {
        let id = signer.key().verifying_key().key_id().clone();
        let time = signer.time(self.context.clock.now());
        let trusted = self.trusted().expect("a key is in use, so there is a bundle");
        let known = trusted.find(id.as_str());
        assert!(
            known.is_some_and(|key| key.revocation.is_none()),
            "{id} is in use and not published"
        );
        let (version, _) = self.bundle.as_ref().expect("there is a bundle");
        // The same key at the same time beside the same bundle would sign the same again.
        let circumstances = (id.clone(), time, version.clone());
        if self
            .receipts
            .last()
            .is_none_or(|last| last.circumstances != circumstances)
        {
            let envelope = sign_receipt(signer, time);
            self.receipts.push(Signed {
                circumstances,
                envelope,
            });
        }
    }

    fn look_at_openers(&mut self) {
        for (path, held) in self.held.clone() {
            let opens = |id: &&KeyId| self.context.keyring.opener(id, "team").is_some();
            let Some(active) = held.active.as_ref().filter(opens) else {
                continue;
            };
            let trusted = self.trusted().expect("a key is in use, so there is a bundle");
            assert!(
                trusted.find(active.as_str()).is_some(),
                "{path}: {active} is in use and not published"
            );
        }
    }

    /// No private key leaves its Secret but one whose overlap is over.
    fn look_at_secrets(&mut self) {
        let now = self.context.clock.steady();
        for path in self.server.paths().into_iter().filter(|path| is_keys(path)) {
            let secret = self.server.get(&path).expect("stored");
            let version = secret["metadata"]["resourceVersion"].to_string();
            if self.held.get(&path).is_some_and(|held| held.version == version) {
                continue;
            }
            let Some(places) = places(&secret) else { continue };
            let held = Held {
                version,
                active: active(&secret),
                places: Arc::new(places),
            };
            let before = self.held.insert(path.clone(), held.clone());
            for (seed, (place, since)) in before.iter().flat_map(|before| before.places.iter()) {
                let over = match place.as_str() {
                    "previous" => now.duration_since(*since).as_secs() >= 5,
                    "retired" => true,
                    _ => false,
                };
                assert!(
                    over || held.places.contains_key(seed),
                    "{path} lost a key of {place} at {now}"
                );
            }
        }
    }

    /// The published keys, verified from the first root.
    pub fn trusted(&mut self) -> Option<&TrustedKeys> {
        let version = self.server.get(TRUST)?["metadata"]["resourceVersion"].to_string();
        if self.bundle.as_ref().is_none_or(|(known, _)| *known != version) {
            let bundle = self.bundle()?;
            let trusted = bundle.verify_pinned(self.pinned.as_ref());
            self.bundle = Some((
                version,
                trusted.expect("whoever pinned the first root believes the bundle"),
            ));
        }
        self.bundle.as_ref().map(|(_, trusted)| trusted)
    }

    /// The bundle with its pages.
    pub fn bundle(&self) -> Option<Bundle> {
        self.server.get(TRUST)?;
        let map: ConfigMap = self.read(TRUST);
        let data = map.data.expect("data");
        let pages = data
            .get(names::TRUST_PAGES_KEY)
            .map_or(0, |count| count.parse().expect("a number"));
        let pages: Vec<_> = (1..=pages)
            .map(|page| {
                let map: ConfigMap = self.read(&format!("{MAPS}{}", names::trust_page(page)));
                let text = map
                    .data
                    .expect("data")
                    .remove(names::TRUST_BUNDLE_KEY)
                    .expect("a page");
                Bundle::from_json(text.as_bytes()).expect("a page")
            })
            .collect();
        let main = Bundle::from_json(data[names::TRUST_BUNDLE_KEY].as_bytes()).expect("a bundle");
        Some(main.with_pages(pages))
    }

    /// The public key of the root that the operator keeps.
    pub fn root(&self) -> VerifyingKey {
        let secret: Secret = self.read(ROOT);
        let pem = secret.data.expect("data")[names::TRUST_ROOT_KEY].0.clone();
        VerifyingKey::from_spki_pem(&String::from_utf8(pem).expect("PEM")).expect("a root")
    }

    /// Adds statements about keys that others published, until the bundle has so many.
    pub fn fill_bundle(&self, count: usize, purpose: KeyPurpose) {
        let secret: Secret = self.read(ROOT);
        let seed = secret.data.expect("data")["seed"].0.clone();
        let root = SigningKey::from_seed(Suite::MlDsa87, &seed).expect("a key");
        let mut bundle = self.bundle().expect("a bundle");
        for number in 0..count - bundle.statements.len() {
            let number = u8::try_from(number).expect("few");
            let key = match purpose {
                KeyPurpose::Signing => {
                    PrivateKey::from_seed(KeySuite::Signature(Suite::MlDsa65), &[number; 32])
                }
                _ => PrivateKey::from_seed(KeySuite::Encapsulation(KemSuite::MlKem1024), &[number; 64]),
            };
            let key = key.expect("a key");
            let now = self.context.clock.steady();
            let about = KeyStatement::about(key.public_key(), purpose, now, None, None, 1);
            bundle.statements.insert(0, about.sign(&root).expect("signed"));
        }
        let mut map = self.server.get(TRUST).expect("the bundle");
        map["data"][names::TRUST_BUNDLE_KEY] = json!(bundle.to_json());
        self.server.put(TRUST, &map);
    }

    fn read<K: serde::de::DeserializeOwned>(&self, path: &str) -> K {
        serde_json::from_value(self.server.get(path).expect("stored")).expect("an object")
    }

    /// Every receipt that was ever signed is believed by whoever pinned the first root; those of `revoked` are not.
    pub fn verify_receipts(&mut self, revoked: &BTreeSet<KeyId>) {
        let receipts = std::mem::take(&mut self.receipts);
        let trusted = self.trusted().expect("a bundle");
        for (index, receipt) in receipts.iter().enumerate() {
            let report = verify_with(&receipt.envelope, Ok(trusted), None, None);
            let expected = if revoked.contains(&receipt.circumstances.0) {
                Verdict::UntrustedKey
            } else {
                Verdict::Valid
            };
            assert_eq!(
                report.verdict,
                expected,
                "receipt {index}: {:?}",
                report.failure()
            );
        }
        self.receipts = receipts;
    }

    /// How many receipts were signed.
    pub fn receipt_count(&self) -> usize {
        self.receipts.len()
    }

    /// What is stored, without what differs between any two runs: key material, times and versions.
    pub fn outline(&self) -> BTreeMap<String, Value> {
        let paths = self.server.paths().into_iter();
        let objects = paths.map(|path| {
            let object = self.server.get(&path).expect("stored");
            let outline = match path.as_str() {
                path if is_keys(path) => self.outline_of_keys(path, &object),
                ROOT => self.outline_of_root(&object),
                path if path.starts_with(TRUST) && path != ANSWERS && path != REQUESTS => {
                    outline_of_bundle(&object)
                }
                REQUESTS => outline_of_requests(&object),
                ANSWERS => json!(null),
                _ => outline_of_policy(&object),
            };
            (path, outline)
        });
        objects.collect()
    }

    /// How many keys are in each place, and how many were ever stored.
    fn outline_of_keys(&self, path: &str, secret: &Value) -> Value {
        let mut count: BTreeMap<String, usize> = BTreeMap::new();
        for (place, _) in places(secret).expect("keys").into_values() {
            *count.entry(place).or_default() += 1;
        }
        let history = self.server.history(path);
        let seeds: BTreeSet<_> = history
            .iter()
            .filter_map(places)
            .flat_map(BTreeMap::into_keys)
            .collect();
        let secret: Secret = serde_json::from_value(secret.clone()).expect("a Secret");
        let ring = KeyRing::from_data(&secret.data.expect("data")).unwrap_or_else(|why| panic!("{why}"));
        let statements: BTreeSet<_> = ring
            .statements
            .iter()
            .filter_map(KeyStatement::claimed_key)
            .collect();
        assert_eq!(
            statements.len(),
            ring.statements.len(),
            "two statements about one key"
        );
        let suites: Vec<_> = ring.iter().map(|key| key.private.suite()).collect();
        json!({"places": count, "made": seeds.len(), "statements": statements.len(), "suites": suites, "rotate": ring.rotate})
    }

    fn outline_of_root(&self, secret: &Value) -> Value {
        let history = self.server.history(ROOT);
        let roots = history.iter().flat_map(|secret| {
            let of = |key: &str| secret["data"][key].as_str().map(str::to_owned);
            [of("seed"), of("successor")].into_iter().flatten()
        });
        json!({
            "made": roots.collect::<BTreeSet<_>>().len(),
            "successor": !secret["data"]["successor"].is_null(),
            "rolled": secret["data"]["rolled"],
        })
    }
}

fn begin(server: &Arc<Server>, term: u64, offline: Option<&SigningKey>, time: &Time) -> Arc<Context> {
    let offline = offline.map(|root| root.verifying_key().clone());
    process(&server.client(), term, offline, time.clock())
}

/// Whether a policy's keys are stored there.
fn is_keys(path: &str) -> bool {
    let name = path.strip_prefix(SECRETS).unwrap_or_default();
    name.starts_with("chimera-keys-") || name.starts_with("chimera-sealing-")
}

/// The key in use of a Secret.
fn active(secret: &Value) -> Option<KeyId> {
    let secret: Secret = serde_json::from_value(secret.clone()).ok()?;
    let ring = KeyRing::from_data(&secret.data?).ok()?;
    ring.active.map(|key| key.id().clone())
}

/// The seeds in a Secret. `None` for one that is damaged.
fn places(secret: &Value) -> Option<Places> {
    let secret: Secret = serde_json::from_value(secret.clone()).ok()?;
    let mut places = Places::new();
    for (place, ByteString(bytes)) in secret.data? {
        if !["active", "next", "previous", "retired"].contains(&place.as_str()) {
            continue;
        }
        let value: Value = serde_json::from_slice(&bytes).ok()?;
        let keys = value.as_array().cloned().unwrap_or_else(|| vec![value]);
        for key in keys {
            let Some(seed) = key["seed"].as_str() else {
                continue;
            };
            places.insert(
                seed.to_owned(),
                (place.clone(), key["since"].as_str()?.parse().ok()?),
            );
        }
    }
    Some(places)
}

fn outline_of_bundle(map: &Value) -> Value {
    let text = map["data"][names::TRUST_BUNDLE_KEY].as_str().expect("a bundle");
    let bundle = Bundle::from_json(text.as_bytes()).expect("a bundle");
    let mut purposes: BTreeMap<String, usize> = BTreeMap::new();
    for statement in &bundle.statements {
        let purpose = KeyStatement::claimed_purpose(statement).expect("a statement");
        *purposes.entry(format!("{purpose:?}")).or_default() += 1;
    }
    json!({
        "statements": purposes, "roots": bundle.roots.len(), "revocations": bundle.revocations.len(),
        "pages": map["data"][names::TRUST_PAGES_KEY],
    })
}

fn outline_of_requests(map: &Value) -> Value {
    let entries = map["data"].as_object().expect("data").iter();
    entries
        .map(|(key, text)| {
            let requests =
                Requests::from_json(text.as_str().unwrap_or_default().as_bytes()).expect("requests");
            (
                key.clone(),
                json!([requests.statements.len(), requests.revocations.len()]),
            )
        })
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn outline_of_policy(policy: &Value) -> Value {
    let all = |of: &Value, keys: &[&str]| -> Value {
        let items = of.as_array().into_iter().flatten();
        items
            .map(|item| keys.iter().map(|key| item[*key].clone()).collect::<Value>())
            .collect()
    };
    let status = &policy["status"];
    json!({
        "conditions": all(&status["conditions"], &["type", "status", "reason"]),
        "keys": all(&status["keys"], &["state"]),
        "rotate": status["observedRotate"],
    })
}

fn sign_receipt(signer: &Signer, time: Timestamp) -> Vec<u8> {
    let claim = Claim {
        suite: signer.key().suite(),
        key_id: signer.key().verifying_key().key_id().clone(),
        signed_at: time,
        fencing_token: 1,
        builder: Builder {
            id: "https://chimera.dunes.io/test".to_owned(),
            version: BTreeMap::new(),
        },
        run_id: "run".to_owned(),
        workflow: WorkflowRef {
            namespace: "team".to_owned(),
            name: "w".to_owned(),
            uid: "u".to_owned(),
            generation: 1,
            attempt: 0,
        },
        document: DigestSet::of(b"document"),
        inputs: DigestSet::of(b"{}"),
        submitter: "alice".to_owned(),
        act_as: None,
        predecessor: None,
        sealed_inputs: None,
        started_at: time,
        finished_at: time,
        error: Some(RunError {
            reason: "InvalidDocument".to_owned(),
            message: "no front matter".to_owned(),
            line: None,
            column: None,
            code: None,
        }),
        grant: None,
        attestation: None,
    };
    let statement = receipt::statement(&claim).expect("a statement");
    let envelope = receipt::sign(&statement, signer.key()).expect("signed");
    envelope.to_json().into_bytes()
}
