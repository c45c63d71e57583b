//! What is to be done about a KeyRotationPolicy: the next single write towards a published key in use. No IO.
//!
//! Order is everything: root, then key, then publication, then use. A crash after any write leaves a state from which
//! the same order goes on: each step is decided anew from what is stored. What is missing although it once existed is
//! never made again silently.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use api::{
    ConditionStatus, KeyRotationPolicy, KeyRotationPolicyStatus,
    condition::{ENTROPY_HEALTHY, READY, Verdict, set},
    duration,
    key_rotation_policy::{KeyState, KeyStatus, Purpose},
    names, reasons,
};
use crypto::trust::{Bundle, TrustedKeys};
use crypto::{Envelope, KeyId};
use jiff::Timestamp;

use crate::bundle_edit::pageable;
use crate::key_ring::KeyRing;

/// How many keys an offline root is asked for ahead of their turn, so that no rotation waits for a person.
const AHEAD_OF_OFFLINE_ROOT: usize = 3;
/// How long a previous key is accepted where the policy does not say.
const OVERLAP: Duration = Duration::from_secs(3600);
/// When a policy at rest is looked at again, so that a Secret that is lost or damaged is noticed.
pub const RESYNC: Duration = Duration::from_secs(30);
/// While a person's answer is awaited.
const ANSWER: Duration = Duration::from_secs(5);
/// A next key is made when so much of a limit on uses or bytes is used up: nine tenths.
const PREFETCH_AT: (u64, u64) = (9, 10);
/// How many statements the bundle's own ConfigMap holds before the oldest go to a page of their own. One takes about
/// 12 kB, and an object of the API server at most 1 MiB.
pub const PAGE_AT: usize = 64;
/// How many statements a page holds.
pub const PAGE_SIZE: usize = 32;

/// Something that is stored, as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored<T> {
    /// It does not exist.
    Missing,
    /// It exists and cannot be used; why, without any of its contents.
    Unreadable(String),
    /// It can be used.
    Present(T),
}

impl<T> Stored<T> {
    /// The same, of what `of` makes of the thing.
    pub fn map<U>(&self, of: impl FnOnce(&T) -> U) -> Stored<U> {
        match self {
            Self::Missing => Stored::Missing,
            Self::Unreadable(why) => Stored::Unreadable(why.clone()),
            Self::Present(value) => Stored::Present(of(value)),
        }
    }
}

/// What is known of the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// The root.
    pub id: KeyId,
    /// Whether its private key is elsewhere: statements are asked for and come when a person has made them.
    pub offline: bool,
    /// The root that is to succeed it, once there is one.
    pub successor: Option<KeyId>,
    /// Value of the policy's annotation that was obeyed last, if one was.
    pub rolled: Option<String>,
}

/// A key, as far as a plan may know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The key.
    pub id: KeyId,
    /// Since when it is in its place.
    pub since: Timestamp,
    /// Whether a root's statement about it is at hand.
    pub endorsed: bool,
}

/// The keys of a policy, as far as a plan may know them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Keys {
    /// The key in use, or the first one before it is published.
    pub active: Option<Known>,
    /// Keys that wait for their turn.
    pub next: Vec<Known>,
    /// Keys that are still accepted, newest first.
    pub previous: Vec<Known>,
    /// Keys that only open what was sealed long ago, newest first.
    pub retired: Vec<Known>,
    /// Value of the annotation that asked for the key in use, if one did.
    pub rotate: Option<String>,
}

impl Keys {
    /// What a plan may know of a policy's keys. `is_believed` says whether a root's statement counts.
    pub fn of(ring: &KeyRing, is_believed: impl Fn(&Envelope) -> bool) -> Self {
        let known = |key: &crate::key_ring::Key| Known {
            id: key.id().clone(),
            since: key.since,
            endorsed: ring.statement(key.id()).is_some_and(&is_believed),
        };
        Self {
            active: ring.active.as_ref().map(known),
            next: ring.next.iter().map(known).collect(),
            previous: ring.previous.iter().map(known).collect(),
            retired: ring.retired.iter().map(known).collect(),
            rotate: ring.rotate.clone(),
        }
    }

    /// Every key whose private half is held.
    fn all(&self) -> impl Iterator<Item = &Known> {
        self.active
            .iter()
            .chain(&self.next)
            .chain(&self.previous)
            .chain(&self.retired)
    }
}

/// What is known of the published bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The bundle's root.
    pub root: KeyId,
    /// Roots that are believed beside it, by statements of roots in the bundle.
    pub former_roots: BTreeSet<KeyId>,
    /// Those of all these roots that were succeeded.
    pub succeeded: BTreeSet<KeyId>,
    /// Keys that the bundle has statements about, and the key that each follows.
    pub keys: BTreeMap<KeyId, Option<KeyId>>,
    /// Keys that the bundle revokes.
    pub revoked: BTreeSet<KeyId>,
    /// How many statements the bundle's own ConfigMap holds, pages apart.
    pub unpaged: usize,
    /// How many of these may go to a page: those about signing keys, which stay for ever.
    pub pageable: usize,
}

impl Published {
    /// What a plan may know of a bundle: `main` is what its own ConfigMap holds, `trusted` comes of all of it.
    pub fn of(main: &Bundle, trusted: &TrustedKeys) -> Self {
        let root = trusted.root().key_id();
        let statements = trusted.iter().map(|key| &key.statement);
        let revoked = trusted.iter().filter(|key| key.revocation.is_some());
        Self {
            root: root.clone(),
            former_roots: trusted.roots().ids().filter(|id| *id != root).cloned().collect(),
            succeeded: trusted.roots().succeeded().cloned().collect(),
            keys: statements
                .map(|one| (one.key_id.clone(), one.predecessor.clone()))
                .collect(),
            revoked: revoked.map(|key| key.statement.key_id.clone()).collect(),
            unpaged: main.statements.len(),
            pageable: pageable(main),
        }
    }
}

/// How much a key was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// How often.
    pub uses: u64,
    /// On how many bytes.
    pub bytes: u64,
}

/// Everything that the decision depends on.
#[derive(Debug)]
pub struct Observed<'a> {
    /// The policy.
    pub policy: &'a KeyRotationPolicy,
    /// The operator's namespace: the only one where keys are kept.
    pub operator_namespace: &'a str,
    /// The root key.
    pub root: Stored<Root>,
    /// The policy's keys.
    pub keys: Stored<Keys>,
    /// The published bundle.
    pub bundle: Stored<Published>,
    /// Whether other policies have keys of a root.
    pub keys_elsewhere: bool,
    /// Answers of an offline root that are not yet taken: keys that it states something of.
    pub answered: BTreeSet<KeyId>,
    /// Statements of an offline root about its successor that are not yet published.
    pub root_answered: bool,
    /// Keys whose statements are asked for already.
    pub requested: BTreeSet<KeyId>,
    /// How much the key in use was used.
    pub usage: Usage,
    /// Sources of entropy that gave nothing when they were last asked, and why. `None` where none is mixed in.
    pub dropped_sources: Option<Vec<String>>,
    /// The present, by a clock that nobody can set back or forth while the operator runs.
    pub now: Timestamp,
}

/// The next write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make the root. Only where there is neither root nor key nor bundle.
    MintRoot,
    /// Make the root's successor, with the statements of both about one another. With the request that this obeys.
    MintSuccessor(String),
    /// The successor is published: it takes the root's place.
    RollRoot,
    /// Make a key, with the root's statement about it where the root is at hand.
    MintKey,
    /// Ask the offline root for what is missing.
    Request,
    /// Take the offline root's statements about the policy's keys.
    Endorse,
    /// Put statements into the bundle, and revocations; take those out that nobody needs any more.
    Publish,
    /// Move the bundle's oldest statements to a page of their own.
    Page,
    /// The next key takes over. With the request that this obeys, if any.
    Rotate(Option<String>),
    /// Keys that were previous until then are accepted no longer.
    Retire(Timestamp),
    /// Nothing is to be written.
    None,
}

/// The decision.
#[derive(Debug, PartialEq)]
pub struct Plan {
    /// The next write.
    pub step: Step,
    /// Whether the key in use may be used: it is published, and nothing is amiss.
    pub usable: bool,
    /// Statements that are to leave the bundle when it is written.
    pub withdrawn: BTreeSet<KeyId>,
    /// When to look again, if nothing happens before. Zero after a write: the next step follows from what is stored then.
    pub again: Duration,
    /// The status as it is before that write.
    pub status: KeyRotationPolicyStatus,
}

/// Decides.
pub fn plan(observed: &Observed<'_>) -> Plan {
    match check(observed) {
        Ok(sound) => advance(observed, &sound),
        Err(refusal) => Plan {
            again: match refusal.step {
                Step::None => RESYNC,
                _ => Duration::ZERO,
            },
            usable: false,
            withdrawn: BTreeSet::new(),
            status: build_status(observed, None, false, refusal.reason, &refusal.message),
            step: refusal.step,
        },
    }
}

/// Why there is no key to go on with, and what can be done about it.
struct Refusal {
    step: Step,
    reason: &'static str,
    message: String,
}

impl Refusal {
    fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self::with(Step::None, reason, message)
    }

    fn with(step: Step, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            step,
            reason,
            message: message.into(),
        }
    }
}

/// Root, keys and bundle of a policy that fit one another.
struct Sound<'a> {
    root: &'a Root,
    keys: &'a Keys,
    active: &'a Known,
    published: Option<&'a Published>,
}

impl Sound<'_> {
    fn is_published(&self, id: &KeyId) -> bool {
        self.published.is_some_and(|bundle| bundle.keys.contains_key(id))
    }

    fn is_revoked(&self, id: &KeyId) -> bool {
        self.published.is_some_and(|bundle| bundle.revoked.contains(id))
    }

    fn held(&self) -> impl Iterator<Item = &Known> {
        self.keys.all()
    }
}

/// Fails closed: whatever is missing although it existed, cannot be read, or belongs to something else ends here.
fn check<'a>(observed: &'a Observed<'_>) -> Result<Sound<'a>, Refusal> {
    let policy = observed.policy;
    let namespace = policy.metadata.namespace.as_deref();
    if namespace != Some(observed.operator_namespace) && policy.spec.purpose != Purpose::Sealing {
        let message = format!(
            "policies of purpose {} work in the operator's namespace, {}, only",
            policy.spec.purpose.as_str(),
            observed.operator_namespace
        );
        return Err(Refusal::new(reasons::OUTSIDE_OPERATOR_NAMESPACE, message));
    }
    let had_key = policy
        .status
        .as_ref()
        .is_some_and(|status| status.active_key_id.is_some());
    let published = match &observed.bundle {
        Stored::Unreadable(why) => {
            let message = format!(
                "ConfigMap {}: {why}; restore it, or delete it to have it made again from the Secrets",
                names::TRUST_CONFIG_MAP
            );
            return Err(Refusal::new(reasons::TRUST_UNREADABLE, message));
        }
        Stored::Present(bundle) => Some(bundle),
        Stored::Missing => None,
    };
    let root = check_root(observed, published, had_key)?;
    match &observed.keys {
        Stored::Present(keys) if !root.offline && keys.all().any(|key| !key.endorsed) => Err(Refusal::new(
            reasons::KEYS_UNREADABLE,
            format!(
                "the policy's Secret holds a key that root {} vouches not for: restore the Secret, or the root, from a \
                 backup",
                root.id.short()
            ),
        )),
        Stored::Unreadable(why) => Err(Refusal::new(
            reasons::KEYS_UNREADABLE,
            format!("the policy's Secret: {why}; restore it from a backup"),
        )),
        Stored::Missing if had_key => Err(Refusal::new(
            reasons::KEYS_UNREADABLE,
            "the policy's Secret is missing although its key was published: restore it, or delete and create the \
             policy to begin with a new key",
        )),
        Stored::Present(keys) if keys.active.is_some() => Ok(Sound {
            root,
            keys,
            active: keys.active.as_ref().expect("asked in the guard"),
            published,
        }),
        Stored::Missing | Stored::Present(_) => Err(Refusal::with(
            Step::MintKey,
            reasons::PUBLISHING,
            "the first key is being made",
        )),
    }
}

fn check_root<'a>(
    observed: &'a Observed<'_>,
    published: Option<&Published>,
    had_key: bool,
) -> Result<&'a Root, Refusal> {
    let secret = names::ROOT_SECRET;
    let is_first = observed.keys == Stored::Missing && published.is_none() && !had_key;
    match &observed.root {
        Stored::Missing if is_first && !observed.keys_elsewhere => Err(Refusal::with(
            Step::MintRoot,
            reasons::PUBLISHING,
            "the root key is being made",
        )),
        Stored::Missing => Err(Refusal::new(
            reasons::ROOT_UNAVAILABLE,
            format!(
                "Secret {secret} is missing although keys or a trust bundle exist: restore it, for example by \
                 `chimera trust restore`"
            ),
        )),
        Stored::Unreadable(why) => Err(Refusal::new(
            reasons::ROOT_UNAVAILABLE,
            format!("Secret {secret}: {why}; restore it, for example by `chimera trust restore`"),
        )),
        Stored::Present(root) => match published {
            Some(bundle) if bundle.root != root.id && !bundle.former_roots.contains(&root.id) => {
                let place = if root.offline {
                    "the operator is told of"
                } else {
                    "Secret chimera-root holds"
                };
                Err(Refusal::new(
                    reasons::ROOT_UNAVAILABLE,
                    format!(
                        "{place} root {} but the trust bundle is of root {}: restore one of them",
                        root.id.short(),
                        bundle.root.short(),
                    ),
                ))
            }
            Some(bundle) if is_outdated(root, bundle) => Err(Refusal::new(
                reasons::ROOT_UNAVAILABLE,
                format!(
                    "root {} was succeeded, and its successor's key is not at hand: restore the root that is in use, for \
                     example by `chimera trust restore`",
                    root.id.short(),
                ),
            )),
            _ => Ok(root),
        },
    }
}

/// Whether the root is one from before a roll-over that the bundle knows of: restored from an old backup, it must not
/// vouch for anything again.
fn is_outdated(root: &Root, bundle: &Published) -> bool {
    let is_in_turn = root.id == bundle.root && (root.offline || root.successor.is_some());
    bundle.succeeded.contains(&root.id) && !is_in_turn
}

/// The next step of a policy whose keys, root and bundle fit one another.
fn advance(observed: &Observed<'_>, sound: &Sound<'_>) -> Plan {
    let usable = sound.is_published(&sound.active.id) && !is_revoked(observed, sound, &sound.active.id);
    let withdrawn = withdrawn(observed.policy.spec.purpose, sound);
    let step = next_step(observed, sound, &withdrawn);
    let (reason, message) = explain(observed, sound, usable, &step);
    Plan {
        again: match step {
            Step::None => until_next(observed, sound),
            _ => Duration::ZERO,
        },
        usable,
        withdrawn,
        status: build_status(observed, Some(sound), usable, reason, &message),
        step,
    }
}

fn next_step(observed: &Observed<'_>, sound: &Sound<'_>, withdrawn: &BTreeSet<KeyId>) -> Step {
    if sound
        .held()
        .any(|key| !key.endorsed && observed.answered.contains(&key.id))
    {
        return Step::Endorse;
    }
    if is_unpublished(observed, sound) || !withdrawn.is_empty() {
        return Step::Publish;
    }
    // A page is full when it is written: there may be only so many.
    let is_page_due = |bundle: &Published| bundle.unpaged > PAGE_AT && bundle.pageable >= PAGE_SIZE;
    if sound.published.is_some_and(is_page_due) {
        return Step::Page;
    }
    if let Some(step) = roll_root(observed, sound) {
        return step;
    }
    let due = due(observed, sound);
    if due
        && sound
            .keys
            .next
            .first()
            .is_some_and(|key| sound.is_published(&key.id))
    {
        return Step::Rotate(annotation(observed, names::ROTATE_ANNOTATION));
    }
    if sound.keys.next.len() < wanted_ahead(observed, sound, due) {
        return Step::MintKey;
    }
    if let Some(until) = retire_until(observed, sound) {
        return Step::Retire(until);
    }
    if is_request_missing(observed, sound) {
        return Step::Request;
    }
    Step::None
}

/// Whether the bundle lacks something that can be put into it now.
fn is_unpublished(observed: &Observed<'_>, sound: &Sound<'_>) -> bool {
    let statement = sound
        .held()
        .any(|key| key.endorsed && !sound.is_published(&key.id));
    let Some(bundle) = sound.published else {
        return statement;
    };
    let successor = sound.root.successor.as_ref();
    statement
        || bundle.root != sound.root.id
        || successor.is_some_and(|id| !bundle.former_roots.contains(id))
        || observed.root_answered
        || revocations(observed, sound).any(|id| !sound.root.offline || observed.answered.contains(&id))
}

/// Keys of the bundle that the policy revokes and the bundle does not, yet. Nobody believes a key that is not in it.
fn revocations<'a>(observed: &'a Observed<'_>, sound: &'a Sound<'_>) -> impl Iterator<Item = KeyId> + 'a {
    let revoked = observed.policy.spec.revoked.iter();
    revoked
        .filter_map(|revoked| revoked.key_id.parse().ok())
        .filter(|id| sound.is_published(id) && !sound.is_revoked(id))
}

/// A key that the policy revokes is not used from then on, whether or not everybody can see it already.
fn is_revoked(observed: &Observed<'_>, sound: &Sound<'_>, id: &KeyId) -> bool {
    let revoked = &observed.policy.spec.revoked;
    sound.is_revoked(id) || revoked.iter().any(|revoked| revoked.key_id == id.as_str())
}

/// Statements about keys that opened things and are gone: nobody will ever need them. Those of signing keys stay for ever.
fn withdrawn(purpose: Purpose, sound: &Sound<'_>) -> BTreeSet<KeyId> {
    let mut gone = BTreeSet::new();
    let Some(bundle) = sound.published.filter(|_| purpose != Purpose::Signing) else {
        return gone;
    };
    let held: BTreeSet<_> = sound.held().map(|key| &key.id).collect();
    for key in sound.held() {
        let mut before = bundle.keys.get(&key.id).and_then(Option::as_ref);
        while let Some(id) = before {
            let Some(further) = bundle.keys.get(id) else { break };
            if !held.contains(id) && !gone.insert(id.clone()) {
                break;
            }
            before = further.as_ref();
        }
    }
    gone
}

/// The steps of a root's succession, asked for by an annotation. An offline root's successor comes as an answer.
fn roll_root(observed: &Observed<'_>, sound: &Sound<'_>) -> Option<Step> {
    if sound.root.offline || observed.policy.spec.purpose != Purpose::Signing {
        return None;
    }
    let asked = annotation(observed, names::ROLL_ROOT_ANNOTATION);
    match &sound.root.successor {
        // Whoever comes first goes on with what another policy began.
        Some(_) => Some(Step::RollRoot),
        None => asked
            .filter(|asked| sound.root.rolled.as_ref() != Some(asked))
            .map(Step::MintSuccessor),
    }
}

fn annotation(observed: &Observed<'_>, name: &str) -> Option<String> {
    let annotations = observed.policy.metadata.annotations.as_ref()?;
    annotations.get(name).cloned()
}

/// Whether the key in use is to be replaced.
fn due(observed: &Observed<'_>, sound: &Sound<'_>) -> bool {
    if is_revoked(observed, sound, &sound.active.id) {
        return true;
    }
    if observed.policy.spec.suspend {
        return false;
    }
    let rotation = &observed.policy.spec.rotation;
    let asked = annotation(observed, names::ROTATE_ANNOTATION);
    (asked.is_some() && asked != sound.keys.rotate)
        || interval(observed).is_some_and(|interval| age(observed, sound) >= interval)
        || used_up(observed.usage.uses, rotation.max_uses, (1, 1))
        || used_up(observed.usage.bytes, rotation.max_bytes, (1, 1))
}

fn used_up(used: u64, limit: Option<i64>, (numerator, denominator): (u64, u64)) -> bool {
    limit.is_some_and(|limit| {
        let limit = u64::try_from(limit).unwrap_or(0);
        used >= limit.saturating_mul(numerator) / denominator
    })
}

/// How many keys are to wait for their turn.
fn wanted_ahead(observed: &Observed<'_>, sound: &Sound<'_>, due: bool) -> usize {
    if sound.root.offline {
        return AHEAD_OF_OFFLINE_ROOT;
    }
    let rotation = &observed.policy.spec.rotation;
    let soon = interval(observed).is_some_and(|interval| {
        let prefetch = written(rotation.prefetch.as_deref()).unwrap_or(interval / 10);
        age(observed, sound) + prefetch >= interval
    });
    let nearly = used_up(observed.usage.uses, rotation.max_uses, PREFETCH_AT)
        || used_up(observed.usage.bytes, rotation.max_bytes, PREFETCH_AT);
    usize::from(due || ((soon || nearly) && !observed.policy.spec.suspend))
}

/// The time before which a previous key must have come to its place to be retired now, if there is such a key.
fn retire_until(observed: &Observed<'_>, sound: &Sound<'_>) -> Option<Timestamp> {
    let until = observed.now.checked_sub(overlap(observed)).ok()?;
    let done = |key: &Known| key.since <= until;
    sound.keys.previous.iter().any(done).then_some(until)
}

/// Whether the offline root was not yet asked for something that only it can state.
fn is_request_missing(observed: &Observed<'_>, sound: &Sound<'_>) -> bool {
    sound.root.offline
        && (sound
            .held()
            .any(|key| !key.endorsed && !observed.requested.contains(&key.id))
            || revocations(observed, sound).any(|id| !observed.requested.contains(&id)))
}

fn written(text: Option<&str>) -> Option<Duration> {
    duration::parse(text?).ok()
}

fn interval(observed: &Observed<'_>) -> Option<Duration> {
    written(observed.policy.spec.rotation.interval.as_deref())
}

fn overlap(observed: &Observed<'_>) -> Duration {
    let shortest = interval(observed).unwrap_or(OVERLAP);
    written(observed.policy.spec.rotation.overlap.as_deref()).unwrap_or(OVERLAP.min(shortest))
}

/// A clock that was set back makes no key older.
fn age(observed: &Observed<'_>, sound: &Sound<'_>) -> Duration {
    Duration::try_from(observed.now.duration_since(sound.active.since)).unwrap_or(Duration::ZERO)
}

/// When the next limit in time is reached.
fn until_next(observed: &Observed<'_>, sound: &Sound<'_>) -> Duration {
    let age = age(observed, sound);
    let rotation = &observed.policy.spec.rotation;
    let mut moments = vec![RESYNC];
    if let Some(interval) = interval(observed).filter(|_| !observed.policy.spec.suspend) {
        let prefetch = written(rotation.prefetch.as_deref()).unwrap_or(interval / 10);
        for moment in [interval, interval.saturating_sub(prefetch)] {
            moments.extend(moment.checked_sub(age).filter(|wait| !wait.is_zero()));
        }
    }
    for key in &sound.keys.previous {
        let kept = Duration::try_from(observed.now.duration_since(key.since)).unwrap_or(Duration::ZERO);
        moments.extend(overlap(observed).checked_sub(kept));
    }
    if sound.root.offline && sound.held().any(|key| !key.endorsed) {
        moments.push(ANSWER);
    }
    // A moment later than the limit, so that it is reached for certain.
    moments.into_iter().min().unwrap_or(RESYNC) + Duration::from_millis(5)
}

fn explain(observed: &Observed<'_>, sound: &Sound<'_>, usable: bool, step: &Step) -> (&'static str, String) {
    let id = sound.active.id.short();
    if usable {
        let message = match step {
            Step::MintSuccessor(_) | Step::RollRoot => {
                format!("key {id} is in use; the root is being succeeded")
            }
            _ if sound.root.offline && sound.keys.next.iter().all(|key| !key.endorsed) => format!(
                "key {id} is in use, but none waits for its turn: answer the requests in ConfigMap {} with `chimera \
                 trust sign`",
                names::TRUST_REQUESTS_CONFIG_MAP
            ),
            _ => format!("key {id} is published and in use"),
        };
        return (reasons::KEY_ACTIVE, message);
    }
    if is_revoked(observed, sound, &sound.active.id) {
        let message = format!("key {id} is revoked; its successor is being published");
        return (reasons::KEY_REVOKED, message);
    }
    if sound.root.offline && !sound.active.endorsed {
        let message = format!(
            "key {id} waits for the offline root: answer the requests in ConfigMap {} with `chimera trust sign`",
            names::TRUST_REQUESTS_CONFIG_MAP
        );
        return (reasons::AWAITING_ROOT, message);
    }
    (reasons::PUBLISHING, format!("key {id} is being published"))
}

fn build_status(
    observed: &Observed<'_>,
    sound: Option<&Sound<'_>>,
    usable: bool,
    reason: &'static str,
    message: &str,
) -> KeyRotationPolicyStatus {
    let policy = observed.policy;
    let mut status = policy.status.clone().unwrap_or_default();
    status.observed_generation = policy.metadata.generation;
    if let Some(sound) = sound.filter(|_| usable) {
        let active = sound.active;
        status.keys = rows(observed, sound, &status.keys);
        status.active_key_id = Some(active.id.to_string());
        status.active_key = Some(active.id.short().to_owned());
        status.last_rotation_time = Some(active.since);
        status.next_rotation_time = interval(observed)
            .filter(|_| !policy.spec.suspend)
            .and_then(|interval| active.since.checked_add(interval).ok());
        status.observed_rotate.clone_from(&sound.keys.rotate);
        let rotation = &policy.spec.rotation;
        let shown = |limit: Option<i64>, used: u64| limit.map(|_| i64::try_from(used).unwrap_or(i64::MAX));
        status.uses = shown(rotation.max_uses, observed.usage.uses);
        status.bytes = shown(rotation.max_bytes, observed.usage.bytes);
    }
    if policy.spec.purpose == Purpose::Session {
        (status.key_bits, status.lanes, status.tag_bits) = (Some(256), Some(4), Some(128));
    }
    let verdict = Verdict {
        type_: READY,
        status: ConditionStatus::from(usable),
        reason,
        message,
        observed_generation: policy.metadata.generation,
    };
    set(&mut status.conditions, &verdict, observed.now);
    if let Some(dropped) = &observed.dropped_sources {
        let healthy = dropped.is_empty();
        let (reason, message) = if healthy {
            (
                reasons::ENTROPY_SOURCES_HEALTHY,
                "every source was mixed in".to_owned(),
            )
        } else {
            (reasons::ENTROPY_SOURCE_DROPPED, dropped.join("; "))
        };
        let verdict = Verdict {
            type_: ENTROPY_HEALTHY,
            status: ConditionStatus::from(healthy),
            reason,
            message: &message,
            observed_generation: policy.metadata.generation,
        };
        set(&mut status.conditions, &verdict, observed.now);
    }
    status
}

/// A row for each key that is held, newest first, then those that were shown before and are held no more.
fn rows(observed: &Observed<'_>, sound: &Sound<'_>, before: &[KeyStatus]) -> Vec<KeyStatus> {
    let keys = sound.keys;
    let places = [
        (KeyState::Next, keys.next.iter().rev().collect::<Vec<_>>()),
        (KeyState::Active, vec![sound.active]),
        (KeyState::Previous, keys.previous.iter().collect()),
        (KeyState::Retired, keys.retired.iter().collect()),
    ];
    let mut rows: Vec<KeyStatus> = Vec::new();
    for (state, known) in places {
        rows.extend(known.into_iter().map(|key| KeyStatus {
            key_id: key.id.to_string(),
            state,
            since: key.since,
        }));
    }
    for row in before {
        if rows.iter().all(|known| known.key_id != row.key_id) {
            let since = if row.state == KeyState::Retired {
                row.since
            } else {
                observed.now
            };
            rows.push(KeyStatus {
                state: KeyState::Retired,
                since,
                ..row.clone()
            });
        }
    }
    let retain = usize::try_from(observed.policy.spec.retain).unwrap_or(0);
    let mut retired = 0;
    rows.retain(|row| {
        retired += usize::from(row.state == KeyState::Retired);
        row.state != KeyState::Retired || retired <= retain
    });
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(digit: char) -> KeyId {
        digit.to_string().repeat(64).parse().expect("a key id")
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn policy(namespace: &str, purpose: &str, algorithm: &str) -> KeyRotationPolicy {
        let spec = serde_json::json!({"purpose": purpose, "algorithm": algorithm});
        let mut policy = KeyRotationPolicy::new("signing", serde_json::from_value(spec).expect("a spec"));
        policy.metadata.namespace = Some(namespace.into());
        policy.metadata.generation = Some(1);
        policy
    }

    type Change = fn(&mut World);

    /// What is stored, and what a controller does with each step.
    struct World {
        policy: KeyRotationPolicy,
        root: Stored<Root>,
        keys: Stored<Keys>,
        bundle: Stored<Published>,
        answered: BTreeSet<KeyId>,
        requested: BTreeSet<KeyId>,
        usage: Usage,
        now: i64,
        made: u32,
    }

    impl World {
        fn new(purpose: &str, algorithm: &str, rotation: serde_json::Value) -> Self {
            let mut policy = policy("ops", purpose, algorithm);
            policy.spec.rotation = serde_json::from_value(rotation).expect("a rotation");
            Self {
                policy,
                root: Stored::Missing,
                keys: Stored::Missing,
                bundle: Stored::Missing,
                answered: BTreeSet::new(),
                requested: BTreeSet::new(),
                usage: Usage::default(),
                now: 1_000,
                made: 0,
            }
        }

        fn signing(rotation: serde_json::Value) -> Self {
            Self::new("Signing", "ML-DSA-87", rotation)
        }

        fn offline(rotation: serde_json::Value) -> Self {
            let mut world = Self::signing(rotation);
            let mut root = root('a');
            root.offline = true;
            world.root = Stored::Present(root);
            world
        }

        fn plan(&self) -> Plan {
            plan(&self.observed())
        }

        fn observed(&self) -> Observed<'_> {
            Observed {
                policy: &self.policy,
                operator_namespace: "ops",
                root: self.root.clone(),
                keys: self.keys.clone(),
                bundle: self.bundle.clone(),
                answered: self.answered.clone(),
                root_answered: false,
                keys_elsewhere: false,
                requested: self.requested.clone(),
                usage: self.usage,
                dropped_sources: None,
                now: at(self.now),
            }
        }

        /// One step; what it was.
        fn step(&mut self) -> Step {
            let plan = self.plan();
            self.policy.status = Some(plan.status);
            self.write(&plan.step, &plan.withdrawn);
            plan.step
        }

        /// Steps until nothing is to be written.
        fn settle(&mut self) -> Vec<Step> {
            let mut steps = Vec::new();
            while let step @ (Step::MintRoot
            | Step::MintSuccessor(_)
            | Step::RollRoot
            | Step::MintKey
            | Step::Request
            | Step::Endorse
            | Step::Publish
            | Step::Page
            | Step::Rotate(_)
            | Step::Retire(_)) = self.step()
            {
                steps.push(step);
                assert!(steps.len() < 50, "it never rests: {steps:?}");
            }
            steps
        }

        fn write(&mut self, step: &Step, withdrawn: &BTreeSet<KeyId>) {
            let now = at(self.now);
            match step {
                Step::MintRoot => self.root = Stored::Present(root('a')),
                Step::MintSuccessor(asked) => self.edit_root(|root| {
                    root.successor = Some(id('b'));
                    root.rolled = Some(asked.clone());
                }),
                Step::RollRoot => {
                    self.edit_root(|root| root.id = root.successor.take().expect("a successor"));
                }
                Step::MintKey => self.mint(now),
                Step::Request => {
                    let missing = self
                        .held()
                        .into_iter()
                        .filter(|key| !key.endorsed)
                        .map(|key| key.id);
                    self.requested = missing.collect();
                }
                Step::Endorse => {
                    let answered = self.answered.clone();
                    self.edit_keys(|keys| {
                        for key in keys.active.iter_mut().chain(&mut keys.next) {
                            key.endorsed |= answered.contains(&key.id);
                        }
                    });
                }
                Step::Publish => self.publish(withdrawn),
                Step::Page => {
                    let Stored::Present(bundle) = &mut self.bundle else {
                        panic!("no bundle")
                    };
                    bundle.unpaged -= PAGE_SIZE;
                    bundle.pageable -= PAGE_SIZE;
                }
                Step::Rotate(asked) => {
                    self.usage = Usage::default();
                    self.edit_keys(|keys| {
                        let mut successor = keys.next.remove(0);
                        successor.since = now;
                        let mut before = keys.active.replace(successor).expect("a key in use");
                        before.since = now;
                        keys.previous.insert(0, before);
                        keys.rotate.clone_from(asked);
                    });
                }
                Step::Retire(until) => self.edit_keys(|keys| keys.previous.retain(|key| key.since > *until)),
                Step::None => {}
            }
        }

        fn mint(&mut self, now: Timestamp) {
            let Stored::Present(root) = &self.root else {
                panic!("no root")
            };
            let key = Known {
                id: format!("{:064x}", self.made).parse().expect("a key id"),
                since: now,
                endorsed: !root.offline,
            };
            self.made += 1;
            let mut keys = match &self.keys {
                Stored::Present(keys) => keys.clone(),
                _ => Keys::default(),
            };
            if keys.active.is_none() {
                keys.active = Some(key);
            } else {
                keys.next.push(key);
            }
            self.keys = Stored::Present(keys);
        }

        fn publish(&mut self, withdrawn: &BTreeSet<KeyId>) {
            let Stored::Present(root) = self.root.clone() else {
                panic!("no root")
            };
            let mut bundle = match &self.bundle {
                Stored::Present(bundle) => bundle.clone(),
                _ => published(root.id.clone(), &[]),
            };
            if bundle.root != root.id {
                bundle.former_roots.insert(bundle.root);
                bundle.root = root.id.clone();
            }
            if let Some(successor) = root.successor {
                bundle.former_roots.insert(successor);
                bundle.succeeded.insert(root.id);
            }
            let mut before = None;
            for key in self.held().into_iter().filter(|key| key.endorsed) {
                bundle.keys.entry(key.id.clone()).or_insert(before.clone());
                before = Some(key.id);
            }
            bundle.keys.retain(|id, _| !withdrawn.contains(id));
            let revoked = self.policy.spec.revoked.iter();
            bundle
                .revoked
                .extend(revoked.filter_map(|key| key.key_id.parse().ok()));
            bundle.unpaged = bundle.keys.len();
            bundle.pageable = bundle.keys.len();
            self.bundle = Stored::Present(bundle);
        }

        /// Oldest first.
        fn held(&self) -> Vec<Known> {
            let Stored::Present(keys) = &self.keys else {
                return Vec::new();
            };
            let old = keys.retired.iter().rev().chain(keys.previous.iter().rev());
            old.chain(&keys.active).chain(&keys.next).cloned().collect()
        }

        fn edit_root(&mut self, edit: impl FnOnce(&mut Root)) {
            let Stored::Present(root) = &mut self.root else {
                panic!("no root")
            };
            edit(root);
        }

        fn edit_keys(&mut self, edit: impl FnOnce(&mut Keys)) {
            let Stored::Present(keys) = &mut self.keys else {
                panic!("no keys")
            };
            edit(keys);
        }

        fn annotate(&mut self, name: &str, value: &str) {
            let annotations = self.policy.metadata.annotations.get_or_insert_default();
            annotations.insert(name.to_owned(), value.to_owned());
        }

        fn active(&self) -> KeyId {
            let Stored::Present(keys) = &self.keys else {
                panic!("no keys")
            };
            keys.active.as_ref().expect("a key in use").id.clone()
        }
    }

    fn root(digit: char) -> Root {
        Root {
            id: id(digit),
            offline: false,
            successor: None,
            rolled: None,
        }
    }

    fn published(root: KeyId, keys: &[char]) -> Published {
        Published {
            root,
            former_roots: BTreeSet::new(),
            succeeded: BTreeSet::new(),
            keys: keys.iter().map(|&key| (id(key), None)).collect(),
            revoked: BTreeSet::new(),
            unpaged: keys.len(),
            pageable: keys.len(),
        }
    }

    #[test]
    fn an_installation_goes_root_key_publication_use_and_rests() {
        let mut world = World::signing(serde_json::json!({"interval": "24h"}));
        assert!(!world.plan().usable);
        assert_eq!(world.settle(), [Step::MintRoot, Step::MintKey, Step::Publish]);
        let plan = world.plan();
        assert!(plan.usable);
        assert_eq!(plan.status.active_key.as_deref(), Some("000000000000"));
        assert_eq!(plan.status.next_rotation_time, Some(at(1_000 + 24 * 3600)));
        assert_eq!(Some(plan.status), world.policy.status, "nothing changes at rest");
    }

    #[test]
    fn by_interval_the_next_key_is_published_first_and_the_previous_one_kept_for_the_overlap() {
        let mut world =
            World::signing(serde_json::json!({"interval": "60s", "prefetch": "10s", "overlap": "5s"}));
        world.settle();
        for round in 0..20 {
            let first = world.active();
            let start = world.now;
            assert_eq!(world.settle(), [], "round {round}");
            world.now = start + 49;
            assert_eq!(world.settle(), []);
            world.now = start + 50;
            assert_eq!(world.settle(), [Step::MintKey, Step::Publish]);
            assert_eq!(world.active(), first);
            world.now = start + 60;
            assert_eq!(world.settle(), [Step::Rotate(None)]);
            assert_ne!(world.active(), first);
            world.now += 5;
            assert_eq!(world.settle(), [Step::Retire(at(start + 60))]);
            let rows = world.policy.status.as_ref().map(|status| status.keys.clone());
            let rows = rows.expect("a status");
            assert_eq!(
                (rows[0].state, rows[1].state),
                (KeyState::Active, KeyState::Retired)
            );
            assert!(rows.len() <= 9, "{rows:?}");
            world.now = start + 60;
        }
    }

    #[test]
    fn uses_bytes_a_request_and_a_revocation_rotate_and_suspension_holds_all_but_the_last() {
        let limits = serde_json::json!({"maxUses": 100, "maxBytes": 1000});
        let changes: [(&str, Change, bool); 4] = [
            ("uses", |world| world.usage.uses = 100, false),
            ("bytes", |world| world.usage.bytes = 1000, false),
            (
                "request",
                |world| world.annotate(names::ROTATE_ANNOTATION, "1"),
                false,
            ),
            (
                "revocation",
                |world| {
                    world.policy.spec.revoked = vec![api::key_rotation_policy::RevokedKey {
                        key_id: world.active().to_string(),
                        reason: api::key_rotation_policy::RevocationReason::KeyCompromise,
                        since: None,
                    }];
                },
                true,
            ),
        ];
        for (name, change, although_suspended) in changes {
            for suspended in [false, true] {
                let mut world = World::signing(limits.clone());
                world.settle();
                let first = world.active();
                world.policy.spec.suspend = suspended;
                change(&mut world);
                let revoked = name == "revocation";
                assert_eq!(world.plan().usable, !revoked, "{name}");
                world.settle();
                let rotated = world.active() != first;
                assert_eq!(
                    rotated,
                    !suspended || although_suspended,
                    "{name}, suspended: {suspended}"
                );
                assert!(world.plan().usable, "{name}");
            }
        }
        let mut world = World::signing(limits);
        world.settle();
        world.usage.uses = 90;
        assert_eq!(world.settle(), [Step::MintKey, Step::Publish], "nearly used up");
    }

    #[test]
    fn a_request_is_obeyed_once_and_one_made_before_the_first_key_is_no_request() {
        let mut world = World::signing(serde_json::json!({}));
        world.annotate(names::ROTATE_ANNOTATION, "1");
        world.settle();
        let first = world.active();
        // The first key of this model remembers no request.
        world.edit_keys(|keys| keys.rotate = Some("1".to_owned()));
        assert_eq!(world.settle(), []);
        world.annotate(names::ROTATE_ANNOTATION, "2");
        let steps = world.settle();
        assert_eq!(
            steps,
            [Step::MintKey, Step::Publish, Step::Rotate(Some("2".to_owned()))]
        );
        assert_ne!(world.active(), first);
        assert_eq!(world.settle(), []);
    }

    #[test]
    fn a_clock_that_is_set_back_rotates_nothing_and_expires_nothing() {
        let mut world = World::signing(serde_json::json!({"interval": "2h", "overlap": "1h"}));
        world.settle();
        world.now += 2 * 3600;
        world.settle();
        let active = world.active();
        world.now -= 3600;
        assert_eq!(world.settle(), []);
        assert_eq!(world.active(), active);
        assert!(world.plan().again <= RESYNC + Duration::from_millis(5));
    }

    #[test]
    fn an_offline_root_is_asked_ahead_and_no_rotation_waits_for_it() {
        let mut world = World::offline(serde_json::json!({"interval": "24h"}));
        let steps = world.settle();
        assert_eq!(steps.iter().filter(|step| **step == Step::MintKey).count(), 4);
        assert_eq!(steps.last(), Some(&Step::Request));
        let plan = world.plan();
        assert!(!plan.usable);
        assert_eq!(plan.status.conditions[0].reason, reasons::AWAITING_ROOT);

        world.answered = world.requested.clone();
        assert_eq!(world.settle(), [Step::Endorse, Step::Publish]);
        assert!(world.plan().usable);
        for _ in 0..3 {
            let before = world.active();
            world.now += 24 * 3600;
            world.settle();
            assert_ne!(world.active(), before, "nobody was asked");
        }
        // Now the keys that were asked for ahead are used up; the one in use stays.
        let last = world.active();
        world.now += 24 * 3600;
        world.settle();
        assert_eq!(world.active(), last);
        assert!(world.plan().usable);
    }

    #[test]
    fn a_root_is_succeeded_by_one_that_was_published_before() {
        let mut world = World::signing(serde_json::json!({}));
        world.settle();
        world.annotate(names::ROLL_ROOT_ANNOTATION, "1");
        assert_eq!(
            world.settle(),
            [
                Step::MintSuccessor("1".to_owned()),
                Step::Publish,
                Step::RollRoot,
                Step::Publish
            ]
        );
        assert!(world.plan().usable);
        assert_eq!(world.settle(), []);
    }

    #[test]
    fn statements_of_keys_that_opened_things_leave_the_bundle_and_those_that_signed_stay() {
        for (purpose, algorithm, left) in [
            ("Session", "AES-256-GCM-L4", 1),
            ("Sealing", "ML-KEM-1024", 1),
            ("Signing", "ML-DSA-87", 4),
        ] {
            let mut world = World::new(
                purpose,
                algorithm,
                serde_json::json!({"interval": "60s", "overlap": "1s"}),
            );
            world.root = Stored::Present(root('a'));
            world.settle();
            for _ in 0..3 {
                world.now += 60;
                world.settle();
                world.now += 2;
                world.settle();
            }
            let Stored::Present(bundle) = &world.bundle else {
                panic!("no bundle")
            };
            assert_eq!(bundle.keys.len(), left, "{purpose}");
            assert!(bundle.keys.contains_key(&world.active()));
        }
    }

    #[test]
    fn what_is_lost_is_never_made_again_silently() {
        let sound = || {
            let mut world = World::signing(serde_json::json!({}));
            world.settle();
            world
        };
        let damages: [(Change, &str); 7] = [
            (|world| world.root = Stored::Missing, reasons::ROOT_UNAVAILABLE),
            (
                |world| {
                    world.root = Stored::Missing;
                    world.keys = Stored::Missing;
                    world.bundle = Stored::Missing;
                },
                reasons::ROOT_UNAVAILABLE,
            ),
            (
                |world| world.root = Stored::Unreadable("truncated".to_owned()),
                reasons::ROOT_UNAVAILABLE,
            ),
            (
                |world| world.root = Stored::Present(root('f')),
                reasons::ROOT_UNAVAILABLE,
            ),
            (|world| world.keys = Stored::Missing, reasons::KEYS_UNREADABLE),
            (
                |world| world.keys = Stored::Unreadable("truncated".to_owned()),
                reasons::KEYS_UNREADABLE,
            ),
            (
                |world| world.bundle = Stored::Unreadable("truncated".to_owned()),
                reasons::TRUST_UNREADABLE,
            ),
        ];
        for (damage, reason) in damages {
            let mut world = sound();
            damage(&mut world);
            let plan = world.plan();
            assert_eq!(
                (&plan.step, plan.usable, plan.status.conditions[0].reason.as_str()),
                (&Step::None, false, reason)
            );
        }
    }

    #[test]
    fn a_lost_bundle_is_published_again_from_the_secrets() {
        let mut world = World::signing(serde_json::json!({}));
        world.settle();
        world.bundle = Stored::Missing;
        assert!(!world.plan().usable);
        assert_eq!(world.settle(), [Step::Publish]);
        assert!(world.plan().usable);
    }

    #[test]
    fn a_full_bundle_is_continued_on_a_page() {
        let mut world = World::signing(serde_json::json!({}));
        world.settle();
        let Stored::Present(bundle) = &mut world.bundle else {
            panic!("no bundle")
        };
        bundle.unpaged = PAGE_AT + 1;
        bundle.pageable = PAGE_SIZE - 1;
        assert_eq!(world.settle(), [], "a page would not be full");
        let Stored::Present(bundle) = &mut world.bundle else {
            panic!("no bundle")
        };
        bundle.pageable = PAGE_SIZE;
        assert_eq!(world.settle(), [Step::Page]);
    }

    #[test]
    fn a_revoked_key_that_nobody_believes_anyway_is_not_revoked_again_and_again() {
        for offline in [false, true] {
            let mut world = if offline {
                World::offline(serde_json::json!({}))
            } else {
                World::signing(serde_json::json!({}))
            };
            world.settle();
            world.answered = world.requested.clone();
            world.settle();
            world.policy.spec.revoked = vec![api::key_rotation_policy::RevokedKey {
                key_id: id('c').to_string(),
                reason: api::key_rotation_policy::RevocationReason::KeyCompromise,
                since: None,
            }];
            assert_eq!(world.settle(), [], "offline: {offline}");
        }
    }

    #[test]
    fn a_root_from_before_a_roll_over_vouches_for_nothing() {
        let mut world = World::signing(serde_json::json!({}));
        world.settle();
        let old = world.root.clone();
        world.annotate(names::ROLL_ROOT_ANNOTATION, "1");
        // The successor is published, and not yet in its place.
        world.step();
        world.step();
        for _ in 0..2 {
            let new = std::mem::replace(&mut world.root, old.clone());
            let plan = world.plan();
            let reason = plan.status.conditions[0].reason.as_str();
            assert_eq!(
                (plan.step, plan.usable, reason),
                (Step::None, false, reasons::ROOT_UNAVAILABLE)
            );
            world.root = new;
            world.settle();
        }
        assert!(world.plan().usable);
    }

    #[test]
    fn no_root_is_made_where_another_policy_has_keys() {
        let world = World::signing(serde_json::json!({}));
        let plan = plan(&Observed {
            keys_elsewhere: true,
            ..world.observed()
        });
        assert_eq!((plan.step, plan.usable), (Step::None, false));
    }

    #[test]
    fn only_sealing_policies_work_in_other_namespaces() {
        for (purpose, algorithm, reason) in [
            ("Signing", "ML-DSA-87", reasons::OUTSIDE_OPERATOR_NAMESPACE),
            ("Session", "AES-256-GCM-L4", reasons::OUTSIDE_OPERATOR_NAMESPACE),
            ("Sealing", "ML-KEM-1024", reasons::PUBLISHING),
        ] {
            let mut world = World::new(purpose, algorithm, serde_json::json!({}));
            world.policy.metadata.namespace = Some("team".to_owned());
            assert_eq!(world.plan().status.conditions[0].reason, reason, "{purpose}");
        }
    }
}
