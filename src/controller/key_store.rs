//! Reads what a rotation depends on: the root, a policy's Secret, the published bundle, requests and answers. Nothing is
//! written here, and what cannot be read is told apart from what does not exist.

use std::collections::BTreeSet;

use api::{KeyRotationPolicy, names};
use controller_core::key_plan::{Published, Stored};
use controller_core::key_ring::KeyRing;
use crypto::offline_root::{Answers, Requests};
use crypto::roots::Roots;
use crypto::trust::{Bundle, TrustedKeys};
use crypto::{Envelope, KeyId, KeyStatement};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, ResourceExt};

use crate::{
    client::{CallError, call},
    context::Context,
    root_key::{self, RootKey},
};

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
    /// What an offline root is asked by this policy.
    pub requests: Option<Requests>,
    /// What an offline root has answered, to whomever.
    pub answers: Answers,
}

/// The bundle as it is published.
pub struct PublishedBundle {
    /// The content of its own ConfigMap.
    pub main: Bundle,
    /// How many pages there are beside it.
    pub pages: usize,
    /// The keys whose statements stand on pages.
    pub paged: BTreeSet<KeyId>,
    /// The keys of bundle and pages.
    pub trusted: TrustedKeys,
    /// `metadata.resourceVersion` of its ConfigMap.
    pub version: Option<String>,
}

impl PublishedBundle {
    /// What a plan may know of it.
    pub fn known(&self) -> Published {
        let keys = self.trusted.iter().map(|key| &key.statement);
        let root = self.trusted.root().key_id();
        Published {
            root: root.clone(),
            former_roots: self
                .trusted
                .roots()
                .ids()
                .filter(|id| *id != root)
                .cloned()
                .collect(),
            keys: keys
                .map(|one| (one.key_id.clone(), one.predecessor.clone()))
                .collect(),
            revoked: self
                .trusted
                .iter()
                .filter(|key| key.revocation.is_some())
                .map(|key| key.statement.key_id.clone())
                .collect(),
            unpaged: self.main.statements.len(),
        }
    }
}

impl Seen {
    /// Nothing at all: of a policy that keeps no keys.
    pub fn nothing() -> Self {
        Self {
            root: Stored::Missing,
            ring: Stored::Missing,
            ring_version: None,
            bundle: Stored::Missing,
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

    /// The roots whose word counts: those of the bundle, or the one that this operator has.
    fn believed_roots(&self) -> Option<Roots> {
        match (&self.bundle, &self.root) {
            (Stored::Present(bundle), _) => Some(bundle.trusted.roots().clone()),
            (_, Stored::Present(root)) => Roots::follow(root.public(), &[]).ok(),
            _ => None,
        }
    }
}

/// Reads everything.
pub async fn observe(context: &Context, policy: &KeyRotationPolicy) -> Result<Seen, CallError> {
    let namespace = &context.settings.namespace;
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), namespace);
    let maps: Api<ConfigMap> = Api::namespaced(context.client.clone(), namespace);
    let name = secret_name(context, policy);
    let secret = call("read the policy's keys", secrets.get_opt(&name)).await?;
    let mut seen = Seen {
        root: observe_root(context, &secrets).await?,
        ring_version: secret.as_ref().and_then(ResourceExt::resource_version),
        ring: secret.map_or(Stored::Missing, |secret| read_ring(&secret)),
        bundle: observe_bundle(&maps).await?,
        requests: None,
        answers: Answers::default(),
    };
    if context.offline_root.is_some() {
        let requests = call(
            "read the root's requests",
            maps.get_opt(names::TRUST_REQUESTS_CONFIG_MAP),
        )
        .await?;
        seen.requests = requests.and_then(|map| read_requests(&map, &requests_key(policy)));
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

fn read_ring(secret: &Secret) -> Stored<KeyRing> {
    let empty = std::collections::BTreeMap::new();
    match KeyRing::from_data(secret.data.as_ref().unwrap_or(&empty)) {
        Ok(ring) => Stored::Present(ring),
        Err(why) => Stored::Unreadable(why),
    }
}

async fn observe_bundle(maps: &Api<ConfigMap>) -> Result<Stored<PublishedBundle>, CallError> {
    let Some(map) = call("read the trust bundle", maps.get_opt(names::TRUST_CONFIG_MAP)).await? else {
        return Ok(Stored::Missing);
    };
    let mut pages = Vec::new();
    for page in 1..=page_count(&map) {
        let name = names::trust_page(page);
        match call("read a page of the trust bundle", maps.get_opt(&name)).await? {
            Some(page) => pages.push(page),
            None => return Ok(Stored::Unreadable(format!("its page {name} is missing"))),
        }
    }
    Ok(read_bundle(&map, &pages).map_or_else(Stored::Unreadable, Stored::Present))
}

/// How many pages the bundle says that it has.
pub fn page_count(map: &ConfigMap) -> usize {
    let data = map.data.as_ref();
    let count = data.and_then(|data| data.get(names::TRUST_PAGES_KEY));
    count
        .and_then(|count| count.parse().ok())
        .unwrap_or(0)
        .min(names::TRUST_PAGES)
}

fn read_bundle(map: &ConfigMap, pages: &[ConfigMap]) -> Result<PublishedBundle, String> {
    let main = parse_bundle(map)?;
    let pages = pages.iter().map(parse_bundle).collect::<Result<Vec<_>, _>>()?;
    let paged = pages
        .iter()
        .flat_map(|page| &page.statements)
        .filter_map(KeyStatement::claimed_key)
        .collect();
    let count = pages.len();
    let whole = main.clone().with_pages(pages);
    Ok(PublishedBundle {
        trusted: whole.verify().map_err(|error| error.to_string())?,
        main,
        pages: count,
        paged,
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
