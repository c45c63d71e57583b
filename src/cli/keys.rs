//! `chimera keys`: the keys of a cluster, from the bundle that vouches for them and the policies that rotate them.

mod list;
mod policy;
mod rehearsal;
mod rehearse;
mod revoke;
mod rotate;
mod sample;

use api::KeyRotationPolicy;
use clap::Subcommand;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};

use crate::error::Error;
use crate::exit_code::ExitCode;

use policy::PolicyName;

/// Lists, rotates and revokes the keys of the cluster
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Lists every key that the root vouches for, with the policy that rotates it
    List(list::Args),
    /// Asks a policy for its next key now
    ///
    /// The next key is published before it is used, and the one in use is accepted until the policy's overlap is over: nothing
    /// that is under way breaks.
    Rotate(rotate::Args),
    /// Has the root state that a key must no longer be believed
    ///
    /// `chimera verify` then refuses what the key signed, with exit code 11. A key that is in use is replaced at once. This cannot
    /// be taken back.
    Revoke(revoke::Args),
    /// Runs whole rotations on a copy, and verifies receipts across them
    ///
    /// The copy has the policy, the published bundle and a throwaway root that nobody trusts. Each step is done by a process that
    /// knows only what is stored, as after a crash; the clock jumps to each moment at which something is due. Nothing is written
    /// to the cluster.
    Rehearse(rehearse::Args),
}

pub async fn run(args: Args) -> Result<ExitCode, Error> {
    match args.verb {
        Verb::List(args) => list::run(args).await,
        Verb::Rotate(args) => rotate::run(args).await,
        Verb::Revoke(args) => revoke::run(args).await,
        Verb::Rehearse(args) => rehearse::run(args).await,
    }
}

/// All policies that the user may see: those of every namespace, or of the operator's alone.
pub async fn all_policies(
    client: &Client,
    operator_namespace: &str,
) -> Result<Vec<KeyRotationPolicy>, Error> {
    let everywhere: Api<KeyRotationPolicy> = Api::all(client.clone());
    match everywhere.list(&ListParams::default()).await {
        Ok(policies) => Ok(policies.items),
        Err(kube::Error::Api(status)) if status.code == 403 => {
            let own: Api<KeyRotationPolicy> = Api::namespaced(client.clone(), operator_namespace);
            Ok(own.list(&ListParams::default()).await?.items)
        }
        Err(cause) => Err(cause.into()),
    }
}

/// How a policy is named on the command line.
fn name_of(policy: &KeyRotationPolicy, operator_namespace: &str) -> PolicyName {
    PolicyName {
        namespace: policy
            .namespace()
            .filter(|namespace| namespace != operator_namespace),
        name: policy.name_any(),
    }
}
