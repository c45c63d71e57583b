//! `chimera trust roll`: a new root succeeds the present one.

use std::path::PathBuf;

use api::key_rotation_policy::Purpose;
use api::{KeyRotationPolicy, names};
use crypto::offline_root::Answers;
use crypto::root_statement::RootStatement;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::{OperatorArgs, new_root, sign};
use crate::cluster::ClusterArgs;
use crate::error::Error;
use crate::secret_file::UnlockArgs;
use crate::wait::WaitArgs;
use crate::{confirm, output};

#[derive(clap::Args, Debug)]
pub struct Args {
    /// The file with the private key of the offline root that is succeeded
    #[arg(long, value_name = "FILE", requires = "new_root", conflicts_with = "wait")]
    root: Option<PathBuf>,

    /// The file with the private key of the offline root that succeeds it
    #[arg(long, value_name = "FILE", requires = "root")]
    new_root: Option<PathBuf>,

    #[command(flatten)]
    unlock: UnlockArgs,

    /// The file to write the answers to, instead of stdout
    #[arg(long, value_name = "FILE", requires = "root")]
    out: Option<PathBuf>,

    /// The KeyRotationPolicy that signs, in the operator's namespace
    #[arg(long, default_value = names::DEFAULT_SIGNING_POLICY)]
    policy: String,

    /// Goes on without asking
    #[arg(short, long)]
    yes: bool,

    #[command(flatten)]
    wait: WaitArgs,

    #[command(flatten)]
    operator: OperatorArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub async fn run(args: &Args) -> Result<(), Error> {
    match (&args.root, &args.new_root) {
        (Some(old), Some(new)) => {
            let (old, new) = (
                new_root::read(old, &args.unlock)?,
                new_root::read(new, &args.unlock)?,
            );
            offline(args, &old, &new)
        }
        _ => ask(args).await,
    }
}

fn offline(args: &Args, old: &crypto::SigningKey, new: &crypto::SigningKey) -> Result<(), Error> {
    let (was, is) = (old.verifying_key().key_id(), new.verifying_key().key_id());
    if was == is {
        return Err(Error::usage("a root cannot succeed itself"));
    }
    let now = Timestamp::now();
    output::note(format_args!(
        "Root {was} is asked to state:\n1. root {is} is its successor, from {now}\n\
         Root {is} is asked to state:\n1. what root {was} states of times after {now} does not count"
    ));
    confirm::confirm("Sign all of this?", args.yes)?;
    let roots = RootStatement::roll_over(old, new, now)
        .map_err(|cause| Error::failed("cannot sign the statements").because(&cause))?;
    let answers = Answers {
        roots: roots.into(),
        ..Answers::default()
    };
    sign::write(&answers, args.out.as_deref())
}

async fn ask(args: &Args) -> Result<(), Error> {
    let client = args.cluster.connect().await?;
    let namespace = &args.operator.operator_namespace;
    let policies: Api<KeyRotationPolicy> = Api::namespaced(client.clone(), namespace);
    let policy = policies.get(&args.policy).await?;
    if policy.spec.purpose != Purpose::Signing {
        return Err(Error::usage(format!("{} does not sign", args.policy))
            .hint("--policy names a KeyRotationPolicy of purpose Signing"));
    }
    let maps: Api<ConfigMap> = Api::namespaced(client, namespace);
    if maps.get_opt(names::OFFLINE_ROOT_CONFIG_MAP).await?.is_some() {
        return Err(
            Error::failed("the operator's root is offline: it cannot make another")
                .hint("`chimera trust roll --root OLD --new-root NEW` writes the statements of both"),
        );
    }
    let old = super::read_cluster(&args.cluster, &args.operator)
        .await?
        .root
        .key_id;
    confirm::confirm(&format!("Replace root {old} by a new one?"), args.yes)?;
    let patch =
        json!({"metadata": {"annotations": {names::ROLL_ROOT_ANNOTATION: Timestamp::now().to_string()}}});
    // The annotation belongs to whoever asks, so it is a merge and not an apply that would have to own it.
    policies
        .patch(&args.policy, &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    let root_of = |map: &ConfigMap| super::bundle_of(map).ok().map(|bundle| bundle.root.key_id);
    let what = "the roll-over of the root";
    let rolled = args.wait.until(what, maps, names::TRUST_CONFIG_MAP, |map| {
        root_of(map).is_some_and(|new| new != old)
    });
    let Some(map) = rolled.await? else {
        output::note("the operator is asked for a new root; see it with `chimera trust show`");
        return Ok(());
    };
    let new = root_of(&map).map_or_else(String::new, |root| root.to_string());
    output::print(&format!("{old} → {new}"))
}
