//! `chimera keys list`: every published key, and what its policy says of it.

use std::collections::HashMap;

use api::key_rotation_policy::KeyState;
use crypto::revocation::Revocation;
use crypto::trust::TrustedKey;
use jiff::Timestamp;
use serde::Serialize;

use crate::cluster::ClusterArgs;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::output::{self, Format};
use crate::trust::{self, OperatorArgs};

#[derive(clap::Args, Debug)]
pub struct Args {
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    operator: OperatorArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// One key, as the bundle and its policy tell.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    key_id: String,
    suite: String,
    purpose: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    not_before: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    not_after: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revocation: Option<Revocation>,
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

impl Entry {
    fn of(key: &TrustedKey, rotations: &HashMap<String, Rotation>) -> Self {
        let statement = &key.statement;
        Self {
            key_id: statement.key_id.to_string(),
            suite: statement.suite.to_string(),
            purpose: statement.purpose.to_string(),
            namespace: statement.namespace.clone(),
            not_before: statement.not_before,
            not_after: statement.not_after,
            revocation: key.revocation.clone(),
            rotation: rotations.get(statement.key_id.as_str()).cloned(),
        }
    }

    fn state(&self) -> String {
        match &self.rotation {
            Some(rotation) => format!("{:?}", rotation.state),
            None => "Retired".to_owned(),
        }
    }
}

pub async fn run(args: Args) -> Result<ExitCode, Error> {
    let trusted = trust::believe(&trust::read_cluster(&args.cluster, &args.operator).await?)?;
    let rotations = rotations(&args).await?;
    let keys: Vec<_> = trust::by_age(&trusted)
        .into_iter()
        .map(|key| Entry::of(key, &rotations))
        .collect();
    args.output.print(&keys, |keys| text(keys))?;
    Ok(ExitCode::Ok)
}

/// What the policies say, by the ids of keys.
async fn rotations(args: &Args) -> Result<HashMap<String, Rotation>, Error> {
    let operator = &args.operator.operator_namespace;
    let mut rotations = HashMap::new();
    for policy in super::all_policies(&args.cluster.connect().await?, operator).await? {
        let name = super::name_of(&policy, operator).to_string();
        let Some(status) = policy.status else { continue };
        for key in status.keys {
            let next = status.next_rotation_time;
            let rotation = Rotation {
                policy: name.clone(),
                state: key.state,
                since: key.since,
                next_rotation_time: next.filter(|_| key.state == KeyState::Active),
            };
            rotations.insert(key.key_id, rotation);
        }
    }
    Ok(rotations)
}

fn text(keys: &[Entry]) -> String {
    let rows: Vec<_> = keys
        .iter()
        .map(|key| {
            let rotation = key.rotation.as_ref();
            vec![
                key.key_id[..12].to_owned(),
                key.suite.clone(),
                key.purpose.clone(),
                key.state(),
                rotation.map_or_else(|| "-".to_owned(), |rotation| rotation.policy.clone()),
                key.namespace.clone().unwrap_or_else(|| "-".to_owned()),
                key.not_before.to_string(),
                trust::time(key.not_after),
                trust::time(rotation.and_then(|rotation| rotation.next_rotation_time)),
                trust::revoked(key.revocation.as_ref()),
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
            "NAMESPACE",
            "VALID FROM",
            "UNTIL",
            "NEXT",
            "REVOKED",
        ],
        &rows,
    )
}
