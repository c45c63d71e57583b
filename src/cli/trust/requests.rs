//! `chimera trust requests`: what the operator asks of its offline root, all of it as one file.

use std::path::PathBuf;

use api::names;
use crypto::offline_root::Requests;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;

use super::OperatorArgs;
use crate::cluster::ClusterArgs;
use crate::error::Error;
use crate::output;

#[derive(clap::Args, Debug)]
pub struct Args {
    /// The file to write, instead of stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    operator: OperatorArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub async fn run(args: &Args) -> Result<(), Error> {
    let namespace = &args.operator.operator_namespace;
    let maps: Api<ConfigMap> = Api::namespaced(args.cluster.connect().await?, namespace);
    let name = names::TRUST_REQUESTS_CONFIG_MAP;
    let map = maps.get_opt(name).await?.ok_or_else(|| {
        Error::failed(format!("there is no ConfigMap {namespace}/{name}")).hint(
            "only an operator with an offline root asks for anything; see the chart's trust.offlineRoot",
        )
    })?;
    let all = read(&map)?;
    let root = all.last().map(|requests| requests.root.clone());
    let root = root.ok_or_else(|| Error::failed(format!("ConfigMap {namespace}/{name} is empty")))?;
    if all.iter().any(|requests| requests.root != root) {
        return Err(Error::failed("the requests are for several roots").hint(
            "the operator writes them anew for its present root; see the conditions of `kubectl get krp -A`",
        ));
    }
    let requests = merged(all, root);
    output::note(format_args!(
        "{} statement(s) and {} revocation(s) are asked of root {}",
        requests.statements.len(),
        requests.revocations.len(),
        requests.root
    ));
    let mut json = serde_json::to_string_pretty(&requests)
        .map_err(|cause| Error::failed("cannot write JSON").because(&cause))?;
    json.push('\n');
    match &args.output {
        Some(path) => super::write(path, json.as_bytes()),
        None => output::print(&json),
    }
}

fn read(map: &ConfigMap) -> Result<Vec<Requests>, Error> {
    let entries = map.data.iter().flatten();
    entries
        .map(|(key, text)| {
            Requests::from_json(text.as_bytes())
                .map_err(|cause| Error::failed(format!("cannot read the requests {key}")).because(&cause))
        })
        .collect()
}

/// All requests as one, each once.
fn merged(all: Vec<Requests>, root: crypto::KeyId) -> Requests {
    let mut merged = Requests::of(root, Vec::new(), Vec::new());
    for requests in all {
        for statement in requests.statements {
            if !merged.statements.contains(&statement) {
                merged.statements.push(statement);
            }
        }
        for revocation in requests.revocations {
            let known = |one: &crypto::revocation::Revocation| one.key_id == revocation.key_id;
            if !merged.revocations.iter().any(known) {
                merged.revocations.push(revocation);
            }
        }
    }
    merged
}
