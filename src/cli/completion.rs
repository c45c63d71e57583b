//! `chimera completion SHELL`: the script that completes this command line, and the names in the cluster that it offers.
//!
//! The script asks this binary for candidates. While somebody types, a cluster that does not answer is a cluster without names.

use std::ffi::{OsStr, OsString};
use std::fmt::Debug;
use std::time::Duration;

use api::{ChimeraHead, MamlWorkflow, MuReceipt};
use clap::ValueEnum;
use clap_complete::engine::{ArgValueCandidates, ArgValueCompleter, PathCompleter, ValueCompleter as _};
use clap_complete::env::{CompleteEnv, Shells};
use clap_complete::{CompletionCandidate, Shell};
use kube::api::ListParams;
use kube::core::NamespaceResourceScope;
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::cluster::ClusterArgs;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::output;

/// The variable by which the script asks for candidates.
const ASKED: &str = "COMPLETE";
/// How long the cluster has to answer.
const ANSWER: Duration = Duration::from_secs(1);
/// More names than that help nobody.
const MOST: u32 = 500;
/// Before the name of a receipt in the cluster.
const RECEIPT: &str = "mur/";

/// Prints a completion script for a shell
///
/// bash: source <(chimera completion bash); zsh: source <(chimera completion zsh); fish: chimera completion fish | source. In the
/// file that the shell reads when it starts, so that the script is always that of the installed version.
#[derive(clap::Args, Debug)]
pub struct Args {
    shell: Shell,
}

#[allow(clippy::unused_async, reason = "every verb has the same form")]
pub async fn run(args: Args) -> Result<ExitCode, Error> {
    output::print_raw(&script(args.shell)?)?;
    Ok(ExitCode::Ok)
}

fn script(shell: Shell) -> Result<Vec<u8>, Error> {
    let named = shell.to_possible_value();
    let shells = Shells::builtins();
    let writer = named.and_then(|named| shells.completer(named.get_name()));
    let mut script = Vec::new();
    writer
        .ok_or_else(|| Error::usage(format!("there is no completion for {shell}")))?
        .write_registration(ASKED, "chimera", "chimera", "chimera", &mut script)
        .map_err(|cause| Error::failed("the script cannot be written").because(&cause))?;
    Ok(script)
}

/// Answers the script, and ends the process, if it is the script that asks.
pub fn answer() {
    CompleteEnv::with_factory(crate::command).var(ASKED).complete();
}

/// Names of workflows.
pub fn workflows() -> ArgValueCandidates {
    ArgValueCandidates::new(candidates::<MamlWorkflow>)
}

/// Names of heads.
pub fn heads() -> ArgValueCandidates {
    ArgValueCandidates::new(candidates::<ChimeraHead>)
}

/// Files, and receipts in the cluster once `mur/` is begun.
pub fn receipts() -> ArgValueCompleter {
    ArgValueCompleter::new(|current: &OsStr| {
        let mut found = PathCompleter::any().stdio().complete(current);
        let typed = current.to_string_lossy();
        if typed.starts_with(RECEIPT) {
            let names = candidates::<MuReceipt>().into_iter();
            let named = names.map(|name| name.add_prefix(RECEIPT));
            found.extend(named.filter(|name| name.get_value().to_string_lossy().starts_with(&*typed)));
        } else if RECEIPT.starts_with(&*typed) {
            found.push(CompletionCandidate::new(RECEIPT));
        }
        found
    })
}

fn candidates<K>() -> Vec<CompletionCandidate>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let cluster = cluster_of(std::env::args_os());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else {
        return Vec::new();
    };
    let names = async { tokio::time::timeout(ANSWER, names::<K>(&cluster)).await };
    let names = runtime.block_on(names).ok().and_then(Result::ok);
    names
        .unwrap_or_default()
        .into_iter()
        .map(CompletionCandidate::new)
        .collect()
}

async fn names<K>(cluster: &ClusterArgs) -> Result<Vec<String>, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let objects: Api<K> = Api::default_namespaced(cluster.connect().await?);
    let listed = objects.list_metadata(&ListParams::default().limit(MOST)).await?;
    Ok(listed.items.iter().map(ResourceExt::name_any).collect())
}

/// The cluster that the words of an unfinished command line name.
fn cluster_of(words: impl Iterator<Item = OsString>) -> ClusterArgs {
    let words: Vec<_> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    let value = |names: &[&str]| {
        let mut after = words.iter().zip(words.iter().skip(1));
        let apart = after.find(|(word, _)| names.contains(&word.as_str()));
        let joined = || {
            let joined = |word: &String| {
                let (name, value) = word.split_once('=')?;
                names.contains(&name).then(|| value.to_owned())
            };
            words.iter().find_map(joined)
        };
        apart.map(|(_, value)| value.clone()).or_else(joined)
    };
    ClusterArgs {
        namespace: value(&["-n", "--namespace"]).or_else(|| std::env::var("CHIMERA_NAMESPACE").ok()),
        context: value(&["--context"]),
        kubeconfig: value(&["--kubeconfig"]).map(Into::into),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_asked_of_the_cluster_that_the_line_names() {
        let of = |line: &str| cluster_of(line.split(' ').map(OsString::from));
        let there = of("chimera -- chimera why -n team --context=prod --kubeconfig /k w");
        assert_eq!(there.namespace.as_deref(), Some("team"));
        assert_eq!(there.context.as_deref(), Some("prod"));
        assert_eq!(there.kubeconfig, Some("/k".into()));
        assert_eq!(
            of("chimera -- chimera why --namespace=other")
                .namespace
                .as_deref(),
            Some("other")
        );
        // The value is not typed yet.
        assert_eq!(of("chimera -- chimera why --context").context, None);
    }

    #[test]
    fn every_shell_has_a_script() {
        for shell in Shell::value_variants() {
            let script = String::from_utf8(script(*shell).unwrap()).unwrap();
            assert!(script.contains(ASKED) && script.contains("chimera"), "{script}");
        }
    }
}
