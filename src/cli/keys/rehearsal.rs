//! A policy's life in memory: the operator's own decisions and writes, on a store that is nothing but bytes.
//!
//! Every step begins with reading what is stored, so that each is the step of a process that has just started: a crash
//! between any two writes is part of it. Whatever breaks a promise ends the rehearsal with a sentence that says so.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::key_rotation_policy::Purpose;
use api::{KeyRotationPolicy, names};
use controller_core::bundle_edit::{Edit, edited, paged};
use controller_core::key_plan::{
    Keys, Observed, PAGE_SIZE, Plan, Published, Root, Step, Stored, Usage, plan,
};
use controller_core::key_ring::{Key, KeyRing};
use controller_core::new_key;
use crypto::entropy::Entropy;
use crypto::root_statement::RootStatement;
use crypto::roots::Roots;
use crypto::trust::{Bundle, TrustedKey, TrustedKeys};
use crypto::verify::{Verdict, verify_with};
use crypto::{Envelope, KeyId, KeyStatement, PrivateKey, SigningKey, Suite};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use serde::Serialize;
use zeroize::Zeroizing;

use super::sample::{self, Sample};

/// A policy that has not come to rest, or not to its end, after so many steps never will.
const ENDLESS: usize = 500;
/// How far ahead the clock looks for something that is due.
const HORIZON: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// What a broken promise is, in a sentence.
pub type Broken = String;

/// One write, or one move of the clock.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// What is rehearsed.
    pub phase: &'static str,
    /// The rehearsal's clock.
    pub at: Timestamp,
    /// What was done.
    pub step: String,
    /// The key in use before it, if it was usable.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyId>,
}

/// A policy and its store.
pub struct Rehearsal {
    policy: KeyRotationPolicy,
    operator_namespace: String,
    store: Store,
    /// The root that a verifier has pinned when it all began.
    pinned: Option<KeyId>,
    now: Timestamp,
    usage: Usage,
    phase: &'static str,
    was_usable: bool,
    samples: Vec<Sample>,
    lines: Vec<Line>,
}

/// All that survives a crash.
#[derive(Default)]
struct Store {
    root: Option<StoredRoot>,
    secret: Option<BTreeMap<String, ByteString>>,
    bundle: Option<String>,
    /// How many pages the bundle says that it has.
    pages: usize,
    page_texts: Vec<String>,
}

/// The root, as its Secret would hold it.
#[derive(Clone)]
struct StoredRoot {
    seed: Zeroizing<Vec<u8>>,
    successor: Option<Zeroizing<Vec<u8>>>,
    rolled: Option<String>,
    statements: Vec<Envelope>,
}

/// What a process that has just started finds.
struct Seen {
    root: Option<SigningKey>,
    successor: Option<SigningKey>,
    ring: Option<KeyRing>,
    main: Option<Bundle>,
    paged: BTreeSet<KeyId>,
    trusted: Option<TrustedKeys>,
}

impl Rehearsal {
    /// Of a copy of `policy` that has no key yet. With a bundle, a throwaway root vouches for its root and so for
    /// everything in it; nobody else trusts that root.
    pub fn new(
        mut policy: KeyRotationPolicy,
        operator_namespace: &str,
        bundle: Option<Bundle>,
        now: Timestamp,
    ) -> Result<Self, Broken> {
        policy.status = None;
        policy.metadata.annotations = None;
        policy.spec.suspend = false;
        policy.spec.revoked.clear();
        let mut rehearsal = Self {
            policy,
            operator_namespace: operator_namespace.to_owned(),
            store: Store::default(),
            pinned: None,
            now,
            usage: Usage::default(),
            phase: "first key",
            was_usable: false,
            samples: Vec::new(),
            lines: Vec::new(),
        };
        if let Some(bundle) = bundle {
            rehearsal.copy(bundle)?;
        }
        Ok(rehearsal)
    }

    fn copy(&mut self, mut bundle: Bundle) -> Result<(), Broken> {
        let former = bundle.verify().map_err(told)?.root().clone();
        let root = SigningKey::generate(Suite::MlDsa87).map_err(told)?;
        let statement = RootStatement::about(&former, Timestamp::MIN, None);
        bundle.roots.push(statement.sign(&root).map_err(told)?);
        bundle.root = crypto::trust::RootKey::of(root.verifying_key());
        self.pinned = Some(bundle.root.key_id.clone());
        self.store.bundle = Some(bundle.to_json());
        self.store.root = Some(StoredRoot::first(&root));
        Ok(())
    }

    /// The first key, a rotation for each reason that the policy has, one by hand, and for keys that sign a roll-over of
    /// the root with another rotation after it.
    pub fn run(&mut self) -> Result<(), Broken> {
        self.settle()?;
        let rotation = self.policy.spec.rotation.clone();
        if rotation.interval.is_some() {
            self.phase = "by interval";
            self.rotate()?;
        }
        let limit = |limit: i64| u64::try_from(limit).unwrap_or(0);
        if let Some(uses) = rotation.max_uses.map(limit) {
            self.phase = "by uses";
            self.use_up(|usage, tenths| usage.uses = uses * tenths / 10)?;
        }
        if let Some(bytes) = rotation.max_bytes.map(limit) {
            self.phase = "by bytes";
            self.use_up(|usage, tenths| usage.bytes = bytes * tenths / 10)?;
        }
        self.phase = "by hand";
        self.ask(names::ROTATE_ANNOTATION, "1");
        self.rotate()?;
        if self.policy.spec.purpose == Purpose::Signing {
            self.phase = "root";
            self.ask(names::ROLL_ROOT_ANNOTATION, "1");
            self.settle()?;
            self.phase = "under the new root";
            self.ask(names::ROTATE_ANNOTATION, "2");
            self.rotate()?;
        }
        self.check_samples()
    }

    /// What was done so far.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// How many receipts were signed, or secrets sealed.
    pub fn samples(&self) -> usize {
        self.samples.len()
    }

    /// The keys of the copy's bundle, for whoever pinned its first root.
    pub fn trusted(&self) -> Result<TrustedKeys, Broken> {
        let bundle = self.store.whole_bundle()?.ok_or("there is no bundle")?;
        bundle.verify_pinned(self.pinned.as_ref()).map_err(told)
    }

    fn ask(&mut self, annotation: &str, value: &str) {
        let annotations = self.policy.metadata.annotations.get_or_insert_default();
        annotations.insert(annotation.to_owned(), value.to_owned());
    }

    /// Nine tenths of a limit, where the next key is made, then all of it.
    fn use_up(&mut self, set: impl Fn(&mut Usage, u64)) -> Result<(), Broken> {
        set(&mut self.usage, 9);
        self.settle()?;
        set(&mut self.usage, 10);
        self.rotate()
    }

    /// Goes on until a key has taken over and the one before it was retired.
    fn rotate(&mut self) -> Result<(), Broken> {
        let (mut rotated, mut retired) = (false, false);
        for _ in 0..ENDLESS {
            for step in self.settle()? {
                rotated |= matches!(step, Step::Rotate(_));
                retired |= rotated && matches!(step, Step::Retire(_));
            }
            if retired {
                return Ok(());
            }
            if !self.advance()? {
                return Err("no rotation ever becomes due".to_owned());
            }
        }
        Err("the rotation does not come to its end".to_owned())
    }

    /// Steps until nothing is to be written.
    fn settle(&mut self) -> Result<Vec<Step>, Broken> {
        let mut steps = Vec::new();
        while steps.len() < ENDLESS {
            match self.step()? {
                Step::None => return Ok(steps),
                step => steps.push(step),
            }
        }
        Err("the policy never comes to rest".to_owned())
    }

    /// One process: it reads, uses the key if it may, writes once, and is gone.
    fn step(&mut self) -> Result<Step, Broken> {
        let seen = self.store.read()?;
        let plan = self.plan(&seen, self.now);
        let key = seen.ring.as_ref().and_then(|ring| ring.active.as_ref());
        let key = key.filter(|_| plan.usable).map(|key| key.id().clone());
        if plan.usable {
            self.take_sample(&seen)?;
        } else if self.was_usable {
            return Err(format!(
                "no key is usable before {:?}: signing would wait",
                plan.step
            ));
        }
        self.was_usable = plan.usable;
        self.policy.status = Some(plan.status.clone());
        if plan.step == Step::None {
            return Ok(plan.step);
        }
        self.lines.push(Line {
            phase: self.phase,
            at: self.now,
            step: told_step(&plan.step).to_owned(),
            key,
        });
        let held = held(&seen);
        self.write(&plan, seen)?;
        self.check_held(&plan.step, &held)?;
        Ok(plan.step)
    }

    fn plan(&self, seen: &Seen, now: Timestamp) -> Plan {
        fn stored<T>(value: Option<T>) -> Stored<T> {
            value.map_or(Stored::Missing, Stored::Present)
        }
        let root = self.store.root.as_ref().zip(seen.root.as_ref());
        plan(&Observed {
            policy: &self.policy,
            operator_namespace: &self.operator_namespace,
            root: stored(root.map(|(stored, key)| Root {
                id: id(key),
                offline: false,
                successor: seen.successor.as_ref().map(id),
                rolled: stored.rolled.clone(),
            })),
            keys: stored(seen.keys()),
            bundle: stored(seen.published()),
            answered: BTreeSet::new(),
            root_answered: false,
            keys_elsewhere: false,
            requested: BTreeSet::new(),
            usage: self.usage,
            dropped_sources: None,
            now,
        })
    }

    /// Moves the clock to the first moment at which something is due; false if there is none.
    fn advance(&mut self) -> Result<bool, Broken> {
        let seen = self.store.read()?;
        let due = |wait: Duration| {
            let then = self.now.saturating_add(wait).unwrap_or(Timestamp::MAX);
            self.plan(&seen, then).step != Step::None
        };
        let mut late = Duration::from_millis(1);
        while !due(late) {
            late *= 2;
            if late > HORIZON {
                return Ok(false);
            }
        }
        let mut early = late / 2;
        while late.saturating_sub(early) > Duration::from_millis(1) {
            let middle = (early + late) / 2;
            if due(middle) {
                late = middle;
            } else {
                early = middle;
            }
        }
        self.now = self.now.saturating_add(late).map_err(told)?;
        Ok(true)
    }

    fn write(&mut self, plan: &Plan, seen: Seen) -> Result<(), Broken> {
        match &plan.step {
            Step::MintRoot => {
                let root = SigningKey::generate(Suite::MlDsa87).map_err(told)?;
                self.pinned = Some(id(&root));
                self.store.root = Some(StoredRoot::first(&root));
            }
            Step::MintSuccessor(asked) => self.mint_successor(seen, asked)?,
            Step::RollRoot => self.store.roll_root(),
            Step::MintKey => self.mint_key(seen)?,
            Step::Publish => self.publish(plan, seen)?,
            Step::Page => self.page(seen)?,
            Step::Rotate(asked) => {
                let ring = seen.ring.ok_or("there are no keys to rotate")?;
                self.store.secret = Some(ring.rotated(asked.clone(), self.now).to_data());
                self.usage = Usage::default();
            }
            Step::Retire(until) => {
                let ring = seen.ring.ok_or("there are no keys to retire")?;
                let retain = usize::try_from(self.policy.spec.retain).unwrap_or(0);
                let ring = ring.retired(self.policy.spec.purpose, *until, retain, self.now);
                self.store.secret = Some(ring.to_data());
            }
            Step::Request | Step::Endorse | Step::None => {
                return Err(format!("{:?} is no step of a root that is at hand", plan.step));
            }
        }
        Ok(())
    }

    fn mint_successor(&mut self, seen: Seen, asked: &str) -> Result<(), Broken> {
        let (root, Some(stored)) = (seen.root.ok_or("there is no root")?, &mut self.store.root) else {
            return Err("there is no root".to_owned());
        };
        let successor = SigningKey::generate(Suite::MlDsa87).map_err(told)?;
        let both = RootStatement::roll_over(&root, &successor, self.now).map_err(told)?;
        stored.statements.extend(both);
        stored.successor = Some(successor.seed());
        stored.rolled = Some(asked.to_owned());
        Ok(())
    }

    fn mint_key(&mut self, seen: Seen) -> Result<(), Broken> {
        let suite = new_key::suite_of(self.policy.spec.algorithm);
        let (key, _) = PrivateKey::generate_from(suite, &Entropy::system()).map_err(told)?;
        let ring = seen.ring.unwrap_or_default();
        let predecessor = new_key::predecessor_in(&ring);
        let (namespace, public) = (&self.operator_namespace, key.public_key());
        let statement = new_key::statement_about(&self.policy, namespace, public, predecessor, 0, self.now);
        let root = seen.root.ok_or("there is no root")?;
        let statement = statement.sign(&root).map_err(told)?;
        let asked = self.policy.metadata.annotations.as_ref();
        let asked = asked.and_then(|all| all.get(names::ROTATE_ANNOTATION)).cloned();
        let ring = ring.with_key(key, Some(statement), asked, self.now);
        self.store.secret = Some(ring.to_data());
        Ok(())
    }

    fn publish(&mut self, plan: &Plan, seen: Seen) -> Result<(), Broken> {
        let root = seen.root.ok_or("there is no root")?;
        let stored = self.store.root.as_ref();
        let edit = Edit {
            statements: seen.ring.map(|ring| ring.statements).unwrap_or_default(),
            withdrawn: plan.withdrawn.clone(),
            roots: stored.map(|root| root.statements.clone()).unwrap_or_default(),
            ..Edit::default()
        };
        let bundle = edited(seen.main, root.verifying_key(), &seen.paged, edit);
        self.store.bundle = Some(bundle.to_json());
        Ok(())
    }

    /// The page first; the bundle without its statements only in the next step, after a crash.
    fn page(&mut self, seen: Seen) -> Result<(), Broken> {
        let (left, page) = paged(seen.main.ok_or("there is no bundle")?, PAGE_SIZE);
        if self.store.page_texts.len() == self.store.pages {
            self.store.page_texts.push(page.to_json());
        } else {
            self.store.pages += 1;
            self.store.bundle = Some(left.to_json());
        }
        Ok(())
    }

    /// Uses the key in use as it is used in earnest, and holds the result against what is published at that moment.
    fn take_sample(&mut self, seen: &Seen) -> Result<(), Broken> {
        let (Some(ring), Some(trusted)) = (&seen.ring, &seen.trusted) else {
            return Err("a key is said to be usable that is not there".to_owned());
        };
        let published = |key: &Key| trusted.find(key.id().as_str());
        let active = ring.active.as_ref();
        let (key, published) = active
            .and_then(|key| Some((key, published(key)?)))
            .ok_or("a key is said to be usable that is not published")?;
        let sample = match key.private.as_signing() {
            Some(key) => {
                let receipt = sample::receipt(key, &published.statement, self.now);
                Sample::Receipt(receipt.map_err(told)?)
            }
            None => self.seal(published, trusted)?,
        };
        check(&sample, ring, trusted)?;
        self.samples.push(sample);
        Ok(())
    }

    fn seal(&self, active: &TrustedKey, trusted: &TrustedKeys) -> Result<Sample, Broken> {
        let served = self.policy.metadata.namespace.as_deref().unwrap_or_default();
        let key = match self.policy.spec.purpose {
            Purpose::Sealing => trusted.sealing_key(served).map(|(_, key)| key),
            _ => active.key.as_encapsulation(),
        };
        let key = key.ok_or("no published key takes what is to be sealed")?;
        let (ciphertext, secret) = key.encapsulate().map_err(told)?;
        Ok(Sample::Sealed {
            key: key.key_id().clone(),
            ciphertext,
            secret,
        })
    }

    /// Only retirement forgets a private key.
    fn check_held(&self, step: &Step, before: &BTreeSet<KeyId>) -> Result<(), Broken> {
        let after = held(&self.store.read()?);
        match before.difference(&after).next() {
            Some(lost) if !matches!(step, Step::Retire(_)) => {
                Err(format!("key {lost} was lost by {}", told_step(step)))
            }
            _ => Ok(()),
        }
    }

    /// Everything that was ever made, held against what is published at the end. What was sealed under a key that was
    /// forgotten since opens no more, which is what retirement is for.
    fn check_samples(&self) -> Result<(), Broken> {
        let trusted = self.trusted()?;
        let ring = self.store.read()?.ring.ok_or("there are no keys")?;
        let forgotten = |sample: &&Sample| match sample {
            Sample::Receipt(_) => false,
            Sample::Sealed { key, .. } => ring.iter().all(|held| held.id() != key),
        };
        self.samples
            .iter()
            .filter(|sample| !forgotten(sample))
            .try_for_each(|sample| check(sample, &ring, &trusted))
    }
}

fn check(sample: &Sample, ring: &KeyRing, trusted: &TrustedKeys) -> Result<(), Broken> {
    match sample {
        Sample::Receipt(envelope) => {
            let report = verify_with(envelope.to_json().as_bytes(), Ok(trusted), None, None);
            match report.failure() {
                None if report.verdict == Verdict::Valid => Ok(()),
                failure => Err(format!(
                    "a receipt by key {} is not valid: {}",
                    envelope.key_id(),
                    failure.map_or("no check was made", |check| &check.detail)
                )),
            }
        }
        Sample::Sealed {
            key,
            ciphertext,
            secret,
        } => {
            let mut keys = ring.iter().filter(|held| held.id() == key);
            if keys.any(|held| sample::opens(&held.private, ciphertext, secret)) {
                Ok(())
            } else {
                Err(format!("what was sealed under key {key} does not open"))
            }
        }
    }
}

fn held(seen: &Seen) -> BTreeSet<KeyId> {
    let keys = seen.ring.iter().flat_map(KeyRing::iter);
    keys.map(|key| key.id().clone()).collect()
}

impl Store {
    fn read(&self) -> Result<Seen, Broken> {
        let key = |seed: &Zeroizing<Vec<u8>>| SigningKey::from_seed(Suite::MlDsa87, seed).map_err(told);
        let root = self.root.as_ref();
        let successor = root.and_then(|root| root.successor.as_ref());
        let whole = self.whole_bundle()?;
        Ok(Seen {
            root: root.map(|root| key(&root.seed)).transpose()?,
            successor: successor.map(key).transpose()?,
            ring: self.secret.as_ref().map(KeyRing::from_data).transpose()?,
            main: self.bundle.as_deref().map(parse).transpose()?,
            paged: self.paged()?,
            trusted: whole.map(|bundle| bundle.verify().map_err(told)).transpose()?,
        })
    }

    fn announced_pages(&self) -> Result<Vec<Bundle>, Broken> {
        let pages = self.page_texts.iter().take(self.pages);
        pages.map(|text| parse(text)).collect()
    }

    fn paged(&self) -> Result<BTreeSet<KeyId>, Broken> {
        let pages = self.announced_pages()?;
        let statements = pages.iter().flat_map(|page| &page.statements);
        Ok(statements.filter_map(KeyStatement::claimed_key).collect())
    }

    fn whole_bundle(&self) -> Result<Option<Bundle>, Broken> {
        let Some(text) = &self.bundle else { return Ok(None) };
        Ok(Some(parse(text)?.with_pages(self.announced_pages()?)))
    }

    fn roll_root(&mut self) {
        if let Some(root) = &mut self.root
            && let Some(successor) = root.successor.take()
        {
            root.seed = successor;
        }
    }
}

impl StoredRoot {
    fn first(root: &SigningKey) -> Self {
        Self {
            seed: root.seed(),
            successor: None,
            rolled: None,
            statements: Vec::new(),
        }
    }
}

impl Seen {
    /// What a plan may know of the bundle.
    fn published(&self) -> Option<Published> {
        let (main, trusted) = self.main.as_ref().zip(self.trusted.as_ref())?;
        Some(Published::of(main, trusted))
    }

    /// What a plan may know of the keys.
    fn keys(&self) -> Option<Keys> {
        let own = self.root.as_ref().map(SigningKey::verifying_key);
        let own = own.and_then(|root| Roots::follow(root, &[]).ok());
        let roots = self.trusted.as_ref().map(TrustedKeys::roots).or(own.as_ref());
        let is_believed = |one: &Envelope| roots.is_some_and(|roots| roots.key_statement(one).is_ok());
        self.ring.as_ref().map(|ring| Keys::of(ring, is_believed))
    }
}

fn id(key: &SigningKey) -> KeyId {
    key.verifying_key().key_id().clone()
}

fn parse(text: &str) -> Result<Bundle, Broken> {
    Bundle::from_json(text.as_bytes()).map_err(told)
}

fn told(cause: impl std::error::Error) -> Broken {
    let mut text = cause.to_string();
    let mut source = cause.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

fn told_step(step: &Step) -> &'static str {
    match step {
        Step::MintRoot => "make the root",
        Step::MintSuccessor(_) => "make the root's successor",
        Step::RollRoot => "the successor becomes the root",
        Step::MintKey => "make a key",
        Step::Request => "ask the offline root",
        Step::Endorse => "take the offline root's statements",
        Step::Publish => "publish",
        Step::Page => "move old statements to a page",
        Step::Rotate(_) => "the next key takes over",
        Step::Retire(_) => "retire the previous key",
        Step::None => "nothing",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use controller_core::key_plan::PAGE_AT;
    use crypto::KeyPurpose;

    fn policy(purpose: &str, algorithm: &str, rotation: &serde_json::Value) -> KeyRotationPolicy {
        let spec = serde_json::json!({"purpose": purpose, "algorithm": algorithm, "rotation": rotation});
        let mut policy = KeyRotationPolicy::new("rehearsed", serde_json::from_value(spec).unwrap());
        policy.metadata.namespace = Some("ops".to_owned());
        policy
    }

    fn rehearse(policy: KeyRotationPolicy, bundle: Option<Bundle>) -> Rehearsal {
        let now = "2026-06-01T00:00:00Z".parse().unwrap();
        let mut rehearsal = Rehearsal::new(policy, "ops", bundle, now).unwrap();
        rehearsal.run().unwrap_or_else(|broken| panic!("{broken}"));
        rehearsal
    }

    #[test]
    fn policies_of_every_purpose_rotate_for_each_of_their_reasons() {
        let all = serde_json::json!({"interval": "60s", "prefetch": "20s", "overlap": "10s", "maxUses": 100, "maxBytes": 1000});
        for (purpose, algorithm) in [
            ("Signing", "ML-DSA-87"),
            ("Signing", "Ed25519+ML-DSA-87"),
            ("Sealing", "ML-KEM-1024"),
            ("Session", "AES-256-GCM-L4"),
        ] {
            let rehearsal = rehearse(policy(purpose, algorithm, &all), None);
            let of_phase = |phase| {
                let lines = rehearsal.lines().iter();
                lines.filter(|line| line.phase == phase).count()
            };
            for phase in ["first key", "by interval", "by uses", "by bytes", "by hand"] {
                assert!(of_phase(phase) >= 3, "{purpose} {phase}");
            }
            assert_eq!(of_phase("root") > 0, purpose == "Signing");
        }
    }

    #[test]
    fn a_policy_without_limits_rotates_by_hand() {
        let rehearsal = rehearse(policy("Signing", "ML-DSA-87", &serde_json::json!({})), None);
        let trusted = rehearsal.trusted().unwrap();
        assert_eq!(trusted.iter().count(), 3);
        assert_eq!(trusted.roots().ids().count(), 2);
        assert_ne!(trusted.anchor(), trusted.root());
    }

    #[test]
    fn a_long_bundle_is_copied_paged_and_still_holds_for_the_copy_alone() {
        let root = SigningKey::from_seed(Suite::MlDsa87, &[1; 32]).unwrap();
        let statements = (0..=PAGE_AT).map(|number| {
            let mut seed = [2; 32];
            seed[0] = u8::try_from(number).unwrap();
            let key = SigningKey::from_seed(Suite::MlDsa87, &seed).unwrap();
            let (about, start) = (key.verifying_key(), Timestamp::UNIX_EPOCH);
            KeyStatement::about(about, KeyPurpose::Signing, start, None, None, 0)
                .sign(&root)
                .unwrap()
        });
        let bundle = Bundle::new(root.verifying_key(), statements.collect());
        let rehearsal = rehearse(
            policy("Signing", "ML-DSA-87", &serde_json::json!({"interval": "24h"})),
            Some(bundle.clone()),
        );
        assert_eq!(rehearsal.store.pages, 1);
        let trusted = rehearsal.trusted().unwrap();
        assert!(trusted.iter().count() > bundle.statements.len());
        let whole = rehearsal.store.whole_bundle().unwrap().unwrap();
        assert!(whole.verify_pinned(Some(root.verifying_key().key_id())).is_err());
    }
}
