//! `chimera keys revoke`: has the root state that a key must no longer be believed.

use api::KeyRotationPolicy;
use api::key_rotation_policy::{RevocationReason, RevokedKey};
use api::names;
use clap::ValueEnum;
use crypto::KeyId;
use crypto::trust::TrustedKeys;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use super::policy::{self, PolicyName};
use crate::cluster::ClusterArgs;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::trust::{self, OperatorArgs};
use crate::wait::WaitArgs;
use crate::{confirm, output};

/// Fewer digits than these name no key: a slip of the keyboard must not revoke another one.
const SHORTEST: usize = 8;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// The key: its id, or the first digits of it (at least 8) if no other key has them
    key: String,

    /// Why
    #[arg(long, value_enum, ignore_case = true, default_value_t = Reason::KeyCompromise)]
    reason: Reason,

    /// What the key signed before this time is still believed, such as 2026-05-01T12:00:00Z. Without it nothing is: whoever
    /// has stolen a key can write any time
    #[arg(long, value_name = "TIME")]
    since: Option<Timestamp>,

    /// The KeyRotationPolicy that is to revoke it. Without it: the one that has the key, or else the one that signs
    #[arg(long)]
    policy: Option<PolicyName>,

    /// Revokes without asking
    #[arg(short, long)]
    yes: bool,

    #[command(flatten)]
    wait: WaitArgs,

    #[command(flatten)]
    operator: OperatorArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Reasons, spelt as in the API.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "PascalCase")]
enum Reason {
    /// Somebody else has or may have the private key
    KeyCompromise,
    /// Another key took its place
    Superseded,
    /// It is no longer needed
    CessationOfOperation,
    /// Its owner lost the right to use it
    PrivilegeWithdrawn,
}

impl From<Reason> for RevocationReason {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::KeyCompromise => Self::KeyCompromise,
            Reason::Superseded => Self::Superseded,
            Reason::CessationOfOperation => Self::CessationOfOperation,
            Reason::PrivilegeWithdrawn => Self::PrivilegeWithdrawn,
        }
    }
}

pub async fn run(args: Args) -> Result<ExitCode, Error> {
    let client = args.cluster.connect().await?;
    let namespace = &args.operator.operator_namespace;
    let trusted = trust::believe(&trust::read_cluster(&args.cluster, &args.operator).await?)?;
    let key = find(&trusted, &args.key)?;
    let name = match &args.policy {
        Some(name) => name.clone(),
        None => holder(&client, namespace, &key).await?,
    };
    let policies = name.api(client.clone(), namespace);
    let found = name.find(&policies).await?;
    warn(&found, &key, args.since);
    confirm::confirm(&format!("Revoke key {key}? This cannot be taken back."), args.yes)?;

    let entry = RevokedKey {
        key_id: key.to_string(),
        reason: args.reason.into(),
        since: args.since,
    };
    apply(&policies, &name, &entry).await?;
    let maps: Api<ConfigMap> = Api::namespaced(client, namespace);
    let what = "the publication of the revocation";
    let published = args.wait.until(what, maps, names::TRUST_CONFIG_MAP, |map| {
        trust::revokes(map, &key)
    });
    match published.await? {
        Some(_) => output::print(&format!("{key} is revoked"))?,
        None => output::note(format_args!("{name} is asked to revoke {key}")),
    }
    Ok(ExitCode::Ok)
}

/// The one key whose id is, or begins with, `text`.
fn find(trusted: &TrustedKeys, text: &str) -> Result<KeyId, Error> {
    if text.len() < SHORTEST {
        return Err(Error::usage(format!(
            "give at least {SHORTEST} digits of the key's id"
        )));
    }
    let ids = trusted.iter().map(|key| &key.statement.key_id);
    let found: Vec<_> = ids.filter(|id| id.as_str().starts_with(text)).collect();
    match found.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(Error::failed(format!("no published key has the id {text}")).hint("chimera keys list")),
        _ => Err(Error::usage(format!("{} keys begin with {text}", found.len())).hint("give more digits")),
    }
}

/// The policy that has the key, or the one that signs: any policy may revoke any key.
async fn holder(client: &Client, operator_namespace: &str, key: &KeyId) -> Result<PolicyName, Error> {
    let policies = super::all_policies(client, operator_namespace).await?;
    let holds = |policy: &&KeyRotationPolicy| {
        let status = policy.status.as_ref();
        status.is_some_and(|status| status.keys.iter().any(|held| held.key_id == key.as_str()))
    };
    Ok(policies.iter().find(holds).map_or_else(
        || PolicyName {
            namespace: None,
            name: names::DEFAULT_SIGNING_POLICY.to_owned(),
        },
        |policy| super::name_of(policy, operator_namespace),
    ))
}

/// Says what follows.
fn warn(policy: &KeyRotationPolicy, key: &KeyId, since: Option<Timestamp>) {
    match since {
        Some(since) => output::note(format_args!(
            "what key {} signed before {since} stays valid; nothing later does",
            key.short()
        )),
        None => output::note(format_args!(
            "no receipt that key {} ever signed will verify any more",
            key.short()
        )),
    }
    if policy::active(policy) == Some(key.as_str()) {
        output::note("it is in use: its successor takes over at once");
    }
}

/// Adds the entry as a field manager of its own, so that it neither takes nor loses the entries of others.
async fn apply(
    policies: &Api<KeyRotationPolicy>,
    name: &PolicyName,
    entry: &RevokedKey,
) -> Result<(), Error> {
    let manager = format!("chimera-revoke-{}", &entry.key_id[..32]);
    let patch = json!({
        "apiVersion": format!("{}/{}", names::GROUP, names::VERSION),
        "kind": "KeyRotationPolicy",
        "metadata": {"name": name.name},
        "spec": {"revoked": [entry]},
    });
    match policies
        .patch(&name.name, &PatchParams::apply(&manager), &Patch::Apply(&patch))
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => Err(Error::failed(format!(
            "{name} revokes key {} already, for another reason or since another time",
            entry.key_id
        ))
        .hint(format!("kubectl edit krp {}", name.name))),
        Err(cause) => Err(cause.into()),
    }
}
