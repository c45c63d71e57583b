//! `chimera trust backup`: the operator's root, and on demand the keys of its policies, in one encrypted file.

use std::path::PathBuf;

use api::key_rotation_policy::Purpose;
use api::names;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, ResourceExt as _};

use super::OperatorArgs;
use super::stored_secrets::{StoredSecret, StoredSecrets};
use crate::cluster::ClusterArgs;
use crate::error::Error;
use crate::secret_file::LockArgs;
use crate::{keys, output};

#[derive(clap::Args, Debug)]
pub struct Args {
    /// The file to make
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// Also the keys of all policies
    #[arg(long)]
    keys: bool,

    #[command(flatten)]
    lock: LockArgs,
    #[command(flatten)]
    operator: OperatorArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub async fn run(args: &Args) -> Result<(), Error> {
    let client = args.cluster.connect().await?;
    let namespace = &args.operator.operator_namespace;
    let mut wanted = vec![names::ROOT_SECRET.to_owned()];
    if args.keys {
        wanted.extend(key_secrets(&client, namespace).await?);
    }
    let api: Api<Secret> = Api::namespaced(client, namespace);
    let mut secrets = Vec::new();
    for name in &wanted {
        match api.get_opt(name).await? {
            Some(secret) => secrets.push(StoredSecret::of(name, &secret)),
            None if name == names::ROOT_SECRET && !args.keys => {
                return Err(Error::failed(format!("there is no Secret {namespace}/{name}"))
                    .hint("an offline root is backed up by a copy of its file"));
            }
            None => output::note(format_args!("there is no Secret {namespace}/{name}")),
        }
    }
    let stored = StoredSecrets::of(secrets, Timestamp::now());
    // A root that cannot be read would only be missed when it is needed.
    let root = stored
        .root()
        .map_err(|cause| Error::failed("this is nothing to keep").because(&cause))?;
    let json = stored
        .to_json()
        .map_err(|cause| Error::failed("cannot write JSON").because(&cause))?;
    args.lock.write(&args.out, &json)?;
    if let Some(root) = root {
        output::print(root.verifying_key().key_id().as_str())?;
    }
    output::note(format_args!(
        "{} Secret(s) of namespace {namespace} are in {}",
        stored.secrets.len(),
        args.out.display()
    ));
    Ok(())
}

/// The Secrets of all policies that keep keys.
async fn key_secrets(client: &Client, operator_namespace: &str) -> Result<Vec<String>, Error> {
    let policies = keys::all_policies(client, operator_namespace).await?;
    Ok(policies
        .iter()
        .filter_map(|policy| match policy.namespace()? {
            own if own == operator_namespace => Some(names::key_secret(&policy.name_any())),
            other if policy.spec.purpose == Purpose::Sealing => {
                Some(names::tenant_key_secret(&other, &policy.name_any()))
            }
            _ => None,
        })
        .collect())
}
