//! The way to the cluster: kubeconfig, namespace, and one workflow with what is known about it.

use api::MamlWorkflow;
use api::condition::{self, Condition, ConditionStatus};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

use crate::completion;
use crate::error::Error;

/// Which cluster and namespace.
#[derive(clap::Args, Debug, Default)]
pub struct ClusterArgs {
    /// Namespace; the kubeconfig's when not given
    #[arg(short, long, env = "CHIMERA_NAMESPACE")]
    pub namespace: Option<String>,

    /// Context of the kubeconfig
    #[arg(long)]
    pub context: Option<String>,

    /// Path of the kubeconfig, instead of KUBECONFIG and ~/.kube/config
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<std::path::PathBuf>,
}

impl ClusterArgs {
    /// A client whose default namespace is the chosen one.
    pub async fn connect(&self) -> Result<Client, Error> {
        let mut config = self.config().await?;
        if let Some(namespace) = &self.namespace {
            config.default_namespace.clone_from(namespace);
        }
        Client::try_from(config).map_err(|cause| Error::failed("cannot talk to the cluster").because(&cause))
    }

    /// The chosen namespace; the kubeconfig is read only when it decides.
    pub async fn namespace(&self) -> Result<String, Error> {
        match &self.namespace {
            Some(namespace) => Ok(namespace.clone()),
            None => Ok(self.config().await?.default_namespace),
        }
    }

    async fn config(&self) -> Result<Config, Error> {
        let hint = "give --kubeconfig, or set KUBECONFIG";
        let fail =
            |cause: &dyn std::error::Error| Error::usage("no usable kubeconfig").because(cause).hint(hint);
        let options = KubeConfigOptions {
            context: self.context.clone(),
            ..KubeConfigOptions::default()
        };
        match &self.kubeconfig {
            Some(path) => {
                let file = Kubeconfig::read_from(path).map_err(|cause| fail(&cause))?;
                Config::from_custom_kubeconfig(file, &options)
                    .await
                    .map_err(|cause| fail(&cause))
            }
            None if self.context.is_some() => Config::from_kubeconfig(&options)
                .await
                .map_err(|cause| fail(&cause)),
            None => Config::infer().await.map_err(|cause| fail(&cause)),
        }
    }
}

/// A workflow by name.
#[derive(clap::Args, Debug)]
pub struct WorkflowArgs {
    /// Name of the MamlWorkflow; `mamlwf/NAME` too
    #[arg(value_name = "NAME", value_parser = parse_name, add = completion::workflows())]
    pub name: String,

    #[command(flatten)]
    pub cluster: ClusterArgs,
}

impl WorkflowArgs {
    /// The client, its workflows, and the one that is named.
    pub async fn find(&self) -> Result<(Client, Api<MamlWorkflow>, MamlWorkflow), Error> {
        let client = self.cluster.connect().await?;
        let workflows: Api<MamlWorkflow> = Api::default_namespaced(client.clone());
        let workflow = workflows.get(&self.name).await.map_err(|cause| match &cause {
            // A 404 without a name in it means that the kind itself is not there.
            kube::Error::Api(status) if status.code == 404 && status.message.contains(&self.name) => {
                let namespace = client.default_namespace();
                Error::failed(format!(
                    "there is no MamlWorkflow {} in namespace {namespace}",
                    self.name
                ))
                .hint("kubectl get mamlwf -A")
            }
            _ => cause.into(),
        })?;
        Ok((client, workflows, workflow))
    }
}

fn parse_name(text: &str) -> Result<String, String> {
    let name = match text.split_once('/') {
        None => text,
        Some((kind, name)) => {
            let kind = kind.split('.').next().unwrap_or_default().to_ascii_lowercase();
            if !matches!(kind.as_str(), "mamlwf" | "mamlworkflow" | "mamlworkflows") {
                return Err(format!("{kind} is not a MamlWorkflow"));
            }
            name
        }
    };
    if name.is_empty() {
        Err("the name is missing".to_owned())
    } else {
        Ok(name.to_owned())
    }
}

/// A condition that speaks of the present spec.
pub fn current<'w>(workflow: &'w MamlWorkflow, type_: &str) -> Option<&'w Condition> {
    let generation = workflow.metadata.generation;
    let conditions = &workflow.status.as_ref()?.conditions;
    condition::find(conditions, type_).filter(|found| {
        found
            .observed_generation
            .is_none_or(|seen| Some(seen) >= generation)
    })
}

/// Whether a condition of the present spec has this status.
pub fn is(workflow: &MamlWorkflow, type_: &str, status: ConditionStatus) -> bool {
    current(workflow, type_).is_some_and(|condition| condition.status == status)
}

/// Whether the present run is over.
pub fn is_complete(workflow: &MamlWorkflow) -> bool {
    let rerun = workflow
        .metadata
        .annotations
        .as_ref()
        .and_then(|all| all.get(api::names::RERUN_ANNOTATION));
    let seen = workflow
        .status
        .as_ref()
        .and_then(|status| status.observed_rerun.as_ref());
    rerun == seen && is(workflow, condition::COMPLETE, ConditionStatus::True)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workflow_is_named_with_or_without_its_kind() {
        assert_eq!(parse_name("a"), Ok("a".to_owned()));
        assert_eq!(parse_name("mamlwf/a"), Ok("a".to_owned()));
        assert_eq!(parse_name("mamlworkflow.chimera.dunes.io/a"), Ok("a".to_owned()));
        assert!(parse_name("pod/a").is_err());
        assert!(parse_name("mamlwf/").is_err());
    }
}
