//! `chimera keys`: the keys of a cluster, from the bundle that vouches for them and the policies that rotate them.

use std::collections::HashMap;

use api::KeyRotationPolicy;
use api::key_rotation_policy::KeyState;
use clap::Subcommand;
use jiff::Timestamp;
use kube::Api;
use kube::api::ListParams;
use serde::Serialize;

use crate::cluster::ClusterArgs;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::output::{self, Format};
use crate::trust::{self, OperatorArgs};

/// Lists the keys of the cluster
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Lists every key that the root vouches for, with the policy that rotates it
    List {
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
        #[command(flatten)]
        operator: OperatorArgs,
        #[command(flatten)]
        cluster: ClusterArgs,
    },
}

/// One key, as the bundle and its policy tell.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    key_id: String,
    suite: String,
    purpose: String,
    not_before: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_after: Option<Timestamp>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    rotation: Option<Rotation>,
}

/// What the policy says of a key; a key that no policy knows any more only verifies.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct Rotation {
    policy: String,
    state: KeyState,
    since: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_rotation_time: Option<Timestamp>,
}

pub async fn run(args: Args) -> Result<ExitCode, Error> {
    let Verb::List {
        output,
        operator,
        cluster,
    } = args.verb;
    let keys = list(&cluster, &operator).await?;
    output.print(&keys, |keys| text(keys))?;
    Ok(ExitCode::Ok)
}

async fn list(cluster: &ClusterArgs, operator: &OperatorArgs) -> Result<Vec<Entry>, Error> {
    let trusted = trust::believe(&trust::read_cluster(cluster, operator).await?)?;
    let policies: Api<KeyRotationPolicy> =
        Api::namespaced(cluster.connect().await?, &operator.operator_namespace);
    let mut rotations = HashMap::new();
    for policy in policies.list(&ListParams::default()).await? {
        let name = policy.metadata.name.unwrap_or_default();
        let Some(status) = policy.status else { continue };
        for key in status.keys {
            let rotation = Rotation {
                policy: name.clone(),
                state: key.state,
                since: key.since,
                next_rotation_time: status
                    .next_rotation_time
                    .filter(|_| key.state == KeyState::Active),
            };
            rotations.insert(key.key_id, rotation);
        }
    }
    let key = |statement: &crypto::KeyStatement| Entry {
        key_id: statement.key_id.to_string(),
        suite: statement.suite.to_string(),
        purpose: statement.purpose.to_string(),
        not_before: statement.not_before,
        not_after: statement.not_after,
        rotation: rotations.get(statement.key_id.as_str()).cloned(),
    };
    Ok(trust::by_age(&trusted)
        .into_iter()
        .map(|trusted| key(&trusted.statement))
        .collect())
}

fn text(keys: &[Entry]) -> String {
    let time = |time: Option<Timestamp>| time.map_or_else(|| "-".to_owned(), |time| time.to_string());
    let rows: Vec<_> = keys
        .iter()
        .map(|key| {
            let rotation = key.rotation.as_ref();
            vec![
                key.key_id[..12].to_owned(),
                key.suite.clone(),
                key.purpose.clone(),
                rotation.map_or_else(
                    || "Retired".to_owned(),
                    |rotation| format!("{:?}", rotation.state),
                ),
                rotation.map_or_else(|| "-".to_owned(), |rotation| rotation.policy.clone()),
                key.not_before.to_string(),
                time(key.not_after),
                time(rotation.and_then(|rotation| rotation.next_rotation_time)),
            ]
        })
        .collect();
    output::table(
        &[
            "KEY",
            "SUITE",
            "PURPOSE",
            "STATE",
            "POLICY",
            "VALID FROM",
            "UNTIL",
            "NEXT",
        ],
        &rows,
    )
}
