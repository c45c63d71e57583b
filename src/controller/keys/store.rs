//! Reads what a rotation depends on: the root, a policy's Secret, the published bundle, requests and answers. Nothing is
//! written here, and what cannot be read is told apart from what does not exist.

use std::collections::{BTreeMap, BTreeSet};

use api::{KeyRotationPolicy, names};
use controller_core::key_plan::{Keys, Published, Stored};
use controller_core::key_ring::KeyRing;
use controller_core::new_key;
use crypto::offline_root::{Answers, Requests};
use crypto::roots::Roots;
use crypto::trust::{Bundle, TrustedKeys};
use crypto::{Envelope, KeyId, KeyStatement, VerifyingKey};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, ResourceExt, api::ListParams};

use crate::{
    causes::with_causes,
    client::{CallError, call},
    context::Context,
    keys::root_key::{self, RootKey},
};

/// Key of the name of the policy whose keys a Secret holds.
pub const OWNER: &str = "policy";

/// Everything that was read, with the keys themselves. No `Debug`.
pub struct Seen {
    /// The root.
    pub root: Stored<RootKey>,
    /// The policy's keys.
    pub ring: Stored<KeyRing>,
    /// `metadata.resourceVersion` of the policy's Secret.
    pub ring_version: Option<String>,
    /// The published bundle.
    pub bundle: Stored<PublishedBundle>,
    /// Pages whose bundle is missing.
    pub orphans: Vec<Bundle>,
    /// Whether other policies have keys of a root; asked only where there is no root.
    pub keys_elsewhere: bool,
    /// What an offline root is asked by this policy.
    pub requests: Option<Requests>,
    /// What an offline root has answered, to whomever.
    pub answers: Answers,
}

/// The bundle as it is published.
pub struct PublishedBundle {
    /// The content of its own ConfigMap.
    pub main: Bundle,
    /// The pages beside it.
    pub pages: Vec<Bundle>,
    /// A further page that was written before the bundle could be: what stands on it is still in the bundle.
    pub begun: Option<Bundle>,
    /// The keys of bundle and pages.
    pub trusted: TrustedKeys,
    /// `metadata.resourceVersion` of its ConfigMap.
    pub version: Option<String>,
}

impl PublishedBundle {
    /// What a plan may know of it.
    pub fn known(&self) -> Published {
        Published::of(&self.main, &self.trusted)
    }
}

/// The keys whose statements stand on pages.
pub fn paged_keys(pages: &[Bundle]) -> BTreeSet<KeyId> {
    let statements = pages.iter().flat_map(|page| &page.statements);
    statements.filter_map(KeyStatement::claimed_key).collect()
}

impl Seen {
    /// Nothing at all: of a policy that keeps no keys.
    pub fn nothing() -> Self {
        Self {
            root: Stored::Missing,
            ring: Stored::Missing,
            ring_version: None,
            bundle: Stored::Missing,
            orphans: Vec::new(),
            keys_elsewhere: false,
            requests: None,
            answers: Answers::default(),
        }
    }

    /// The answers about keys of this policy that are not yet with its keys, and that the root gave.
    pub fn new_statements(&self) -> Vec<Envelope> {
        let (Stored::Present(ring), Some(roots)) = (&self.ring, self.believed_roots()) else {
            return Vec::new();
        };
        let wanted = |envelope: &&Envelope| {
            roots.key_statement(envelope).is_ok_and(|statement| {
                ring.iter().any(|key| *key.id() == statement.key_id)
                    && ring.statement(&statement.key_id).is_none()
            })
        };
        self.answers.statements.iter().filter(wanted).cloned().collect()
    }

    /// The answered revocations that are not yet published.
    pub fn new_revocations(&self) -> Vec<Envelope> {
        let Some(roots) = self.believed_roots() else {
            return Vec::new();
        };
        let published = self.published_revocations();
        let wanted = |one: &&Envelope| !published.contains(one) && roots.revocation(one).is_ok();
        self.answers.revocations.iter().filter(wanted).cloned().collect()
    }

    /// The answered statements about roots that are not yet published and that the published ones lead to.
    pub fn new_root_statements(&self) -> Vec<Envelope> {
        let Stored::Present(bundle) = &self.bundle else {
            return Vec::new();
        };
        let known = &bundle.main.roots;
        let new: Vec<_> = self
            .answers
            .roots
            .iter()
            .filter(|one| !known.contains(one))
            .collect();
        let all: Vec<_> = known.iter().chain(new.iter().copied()).cloned().collect();
        if Roots::follow(bundle.trusted.root(), &all).is_ok() {
            new.into_iter().cloned().collect()
        } else {
            Vec::new()
        }
    }

    fn published_revocations(&self) -> &[Envelope] {
        match &self.bundle {
            Stored::Present(bundle) => &bundle.main.revocations,
            _ => &[],
        }
    }

    /// What a plan may know of the keys.
    pub fn known_keys(&self) -> Stored<Keys> {
        let roots = self.believed_roots();
        let is_believed = |one: &Envelope| {
            roots
                .as_ref()
                .is_some_and(|roots| roots.key_statement(one).is_ok())
        };
        self.ring.map(|ring| Keys::of(ring, is_believed))
    }

    /// The roots whose word counts: those to which statements lead from the bundle's root, or from the one that this
    /// operator has.
    fn believed_roots(&self) -> Option<Roots> {
        let (anchor, mut statements) = match (&self.bundle, &self.root) {
            (Stored::Present(bundle), _) => (bundle.trusted.root(), bundle.main.roots.clone()),
            (_, Stored::Present(root)) => (root.public(), Vec::new()),
            _ => return None,
        };
        let published = Roots::follow(anchor, &statements).ok();
        if let Stored::Present(RootKey::Kept(root)) = &self.root {
            statements.extend(root.statements.iter().cloned());
        }
        // Statements of another root than the bundle's lead nowhere; those that are published still count.
        Roots::follow(anchor, &statements).ok().or(published)
    }
}

/// Reads everything.
pub async fn observe(context: &Context, policy: &KeyRotationPolicy) -> Result<Seen, CallError> {
    let namespace = &context.settings.namespace;
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), namespace);
    let maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), namespace);
    let name = secret_name(context, policy);
    let secret = call("read the policy's keys", secrets.get_opt(&name)).await?;
    let (bundle, orphans) = observe_bundle(&maps).await?;
    let mut seen = Seen {
        root: observe_root(context, &secrets).await?,
        ring_version: secret.as_ref().and_then(ResourceExt::resource_version),
        ring: secret.map_or(Stored::Missing, |secret| read_ring(&secret, policy)),
        bundle,
        orphans,
        keys_elsewhere: false,
        requests: None,
        answers: Answers::default(),
    };
    if matches!(
        (&seen.root, &seen.ring, &seen.bundle),
        (Stored::Missing, Stored::Missing, Stored::Missing)
    ) {
        seen.keys_elsewhere = !seen.orphans.is_empty() || has_keys_elsewhere(context).await?;
    }
    if context.offline_root.is_some() {
        let requests = call(
            "read the root's requests",
            maps.get_opt(names::TRUST_REQUESTS_CONFIG_MAP),
        )
        .await?;
        let requests = requests.and_then(|map| read_requests(&map, &requests_key(policy)));
        // What another root was asked, this one will not answer.
        let asked = context.offline_root.as_ref().map(VerifyingKey::key_id);
        seen.requests = requests.filter(|requests| Some(&requests.root) == asked);
        let answers = call(
            "read the root's answers",
            maps.get_opt(names::TRUST_ANSWERS_CONFIG_MAP),
        )
        .await?;
        seen.answers = answers.map(|map| read_answers(&map)).unwrap_or_default();
    }
    Ok(seen)
}

/// The Secret of a policy, in the operator's namespace.
pub fn secret_name(context: &Context, policy: &KeyRotationPolicy) -> String {
    let namespace = policy.namespace().unwrap_or_default();
    if namespace == context.settings.namespace {
        names::key_secret(&policy.name_any())
    } else {
        names::tenant_key_secret(&namespace, &policy.name_any())
    }
}

/// The key of a policy's requests in their ConfigMap.
pub fn requests_key(policy: &KeyRotationPolicy) -> String {
    let namespace = policy.namespace().unwrap_or_default();
    format!("{namespace}.{}.json", policy.name_any())
}

async fn observe_root(context: &Context, secrets: &Api<Secret>) -> Result<Stored<RootKey>, CallError> {
    if let Some(offline) = &context.offline_root {
        return Ok(Stored::Present(RootKey::Offline(offline.clone())));
    }
    let secret = call("read the root key", secrets.get_opt(names::ROOT_SECRET)).await?;
    Ok(match secret.map(|secret| root_key::read(&secret)) {
        None | Some(Stored::Missing) => Stored::Missing,
        Some(Stored::Unreadable(why)) => Stored::Unreadable(why),
        Some(Stored::Present(root)) => Stored::Present(RootKey::Kept(Box::new(root))),
    })
}

/// Whether a policy of the operator's namespace says that it has keys.
async fn has_keys_elsewhere(context: &Context) -> Result<bool, CallError> {
    let policies: Api<KeyRotationPolicy> =
        Api::namespaced(context.client.clone(), &context.settings.namespace);
    let policies = call("list the policies", policies.list(&ListParams::default())).await?;
    let mut statuses = policies.items.iter().filter_map(|policy| policy.status.as_ref());
    Ok(statuses.any(|status| status.active_key_id.is_some()))
}

fn read_ring(secret: &Secret, policy: &KeyRotationPolicy) -> Stored<KeyRing> {
    match parse_ring(secret, policy) {
        Ok(ring) => Stored::Present(ring),
        Err(why) => Stored::Unreadable(why),
    }
}

fn parse_ring(secret: &Secret, policy: &KeyRotationPolicy) -> Result<KeyRing, String> {
    let empty = BTreeMap::new();
    let data = secret.data.as_ref().unwrap_or(&empty);
    // Absent in Secrets that were made before keys rotated.
    if let Some(owner) = data.get(OWNER)
        && owner.0 != owner_of(policy).as_bytes()
    {
        return Err("it holds the keys of another policy".to_owned());
    }
    let ring = KeyRing::from_data(data)?;
    let suite = new_key::suite_of(policy.spec.algorithm);
    if let Some(other) = ring.iter().find(|key| key.private.suite() != suite) {
        return Err(format!("it holds a key of suite {}", other.private.suite()));
    }
    Ok(ring)
}

/// How a Secret names the policy whose keys it holds.
pub fn owner_of(policy: &KeyRotationPolicy) -> String {
    format!("{}/{}", policy.namespace().unwrap_or_default(), policy.name_any())
}

/// The bundle, or the pages that are left of it.
async fn observe_bundle(maps: &Api<ConfigMap>) -> Result<(Stored<PublishedBundle>, Vec<Bundle>), CallError> {
    let map = call("read the trust bundle", maps.get_opt(names::TRUST_CONFIG_MAP)).await?;
    let count = match map.as_ref().map(page_count) {
        Some(Err(why)) => return Ok((Stored::Unreadable(why), Vec::new())),
        Some(Ok(count)) => Some(count),
        None => None,
    };
    // One more than there should be: it may have been written just before the process ended.
    let last = count.map_or(names::TRUST_PAGES, |count| (count + 1).min(names::TRUST_PAGES));
    let mut pages = Vec::new();
    for page in 1..=last {
        let name = names::trust_page(page);
        match call("read a page of the trust bundle", maps.get_opt(&name)).await? {
            Some(page) => pages.push(page),
            None if count.is_some_and(|count| page <= count) => {
                return Ok((
                    Stored::Unreadable(format!("its page {name} is missing")),
                    Vec::new(),
                ));
            }
            None => break,
        }
    }
    let pages = match pages.iter().map(parse_bundle).collect::<Result<Vec<_>, _>>() {
        Ok(pages) => pages,
        Err(why) => return Ok((Stored::Unreadable(why), Vec::new())),
    };
    let (Some(map), Some(count)) = (map, count) else {
        return Ok((Stored::Missing, pages));
    };
    let bundle = read_bundle(&map, pages, count);
    Ok((
        bundle.map_or_else(Stored::Unreadable, Stored::Present),
        Vec::new(),
    ))
}

/// How many pages the bundle says that it has.
fn page_count(map: &ConfigMap) -> Result<usize, String> {
    let data = map.data.as_ref();
    let Some(count) = data.and_then(|data| data.get(names::TRUST_PAGES_KEY)) else {
        return Ok(0);
    };
    let count = count.parse().ok().filter(|count| *count <= names::TRUST_PAGES);
    count.ok_or_else(|| format!("its key {} is no number of pages", names::TRUST_PAGES_KEY))
}

/// `pages` are those that there are: `count`, or one more.
fn read_bundle(map: &ConfigMap, mut pages: Vec<Bundle>, count: usize) -> Result<PublishedBundle, String> {
    let main = parse_bundle(map)?;
    let data = map.data.as_ref();
    if data.and_then(|data| data.get(names::TRUST_ROOT_KEY)) != Some(&main.root.public_key) {
        return Err(format!(
            "its key {} is not the bundle's root",
            names::TRUST_ROOT_KEY
        ));
    }
    let begun = (pages.len() > count).then(|| pages.pop()).flatten();
    if let Some(begun) = &begun
        && !begun.statements.iter().all(|one| main.statements.contains(one))
    {
        return Err(format!("it says that it has {count} pages, and there are more"));
    }
    let whole = main.clone().with_pages(pages.clone());
    Ok(PublishedBundle {
        trusted: whole.verify().map_err(|error| with_causes(&error))?,
        main,
        pages,
        begun,
        version: map.resource_version(),
    })
}

fn parse_bundle(map: &ConfigMap) -> Result<Bundle, String> {
    let data = map.data.as_ref();
    let text = data
        .and_then(|data| data.get(names::TRUST_BUNDLE_KEY))
        .ok_or_else(|| format!("{} has no key {}", map.name_any(), names::TRUST_BUNDLE_KEY))?;
    Bundle::from_json(text.as_bytes()).map_err(|error| error.to_string())
}

fn read_requests(map: &ConfigMap, key: &str) -> Option<Requests> {
    let text = map.data.as_ref()?.get(key)?;
    Requests::from_json(text.as_bytes()).ok()
}

/// Every entry of the ConfigMap may hold answers, so that answers may be added without touching earlier ones.
fn read_answers(map: &ConfigMap) -> Answers {
    let texts = map.data.iter().flat_map(|data| data.iter());
    texts
        .filter_map(|(key, text)| match Answers::from_json(text.as_bytes()) {
            Ok(answers) => Some(answers),
            Err(error) => {
                tracing::warn!(key, %error, "answers of the offline root cannot be read");
                None
            }
        })
        .fold(Answers::default(), Answers::and)
}
