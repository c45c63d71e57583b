//! `chimera trust restore`: puts a backup back, where nothing is.

use std::path::PathBuf;

use api::names;
use crypto::trust::Bundle;
use crypto::{KeyPurpose, KeyStatement, SigningKey};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use kube::api::{Patch, PatchParams};

use super::OperatorArgs;
use super::stored_secrets::{StoredSecret, StoredSecrets};
use crate::cluster::ClusterArgs;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::secret_file::UnlockArgs;
use crate::{confirm, output};

#[derive(clap::Args, Debug)]
pub struct Args {
    /// The file that `chimera trust backup` made
    file: PathBuf,

    #[command(flatten)]
    unlock: UnlockArgs,

    /// Restores without asking
    #[arg(short, long)]
    yes: bool,

    #[command(flatten)]
    operator: OperatorArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

pub async fn run(args: &Args) -> Result<(), Error> {
    let stored = StoredSecrets::from_json(&args.unlock.read(&args.file)?)
        .map_err(|cause| Error::usage(format!("cannot use {}", args.file.display())).because(&cause))?;
    let client = args.cluster.connect().await?;
    let namespace = &args.operator.operator_namespace;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let root = stored
        .root()
        .map_err(|cause| Error::usage("this backup cannot be used").because(&cause))?;
    if let Some(root) = &root {
        fits(root, super::find_bundle(&maps, namespace).await?.as_ref())?;
    }
    let secrets: Api<Secret> = Api::namespaced(client, namespace);
    let missing = missing(&stored, &secrets).await?;
    if missing.is_empty() {
        output::note("nothing is missing");
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(|secret| secret.name.as_str()).collect();
    confirm::confirm(
        &format!(
            "Make {} in namespace {namespace}, as of {}?",
            names.join(", "),
            stored.made_at
        ),
        args.yes,
    )?;
    for secret in missing {
        // The operator's own field manager: it goes on writing these. Without force, so that what another has made
        // meanwhile is a conflict and stays.
        let params = PatchParams::apply(names::FIELD_MANAGER);
        let patch = Patch::Apply(secret.to_secret(namespace));
        secrets.patch(&secret.name, &params, &patch).await?;
        output::note(format_args!("made Secret {namespace}/{}", secret.name));
    }
    Ok(())
}

/// The Secrets that do not exist. Of those that exist, a root of other contents ends it all; keys that have changed since stay
/// as they are.
async fn missing<'a>(
    stored: &'a StoredSecrets,
    secrets: &Api<Secret>,
) -> Result<Vec<&'a StoredSecret>, Error> {
    let mut missing = Vec::new();
    for secret in &stored.secrets {
        match secrets.get_opt(&secret.name).await? {
            None => missing.push(secret),
            Some(there) if secret.is_in(&there) => {
                output::note(format_args!("Secret {} is there already", secret.name));
            }
            Some(_) if secret.name == names::ROOT_SECRET => {
                return Err(Error::failed(format!(
                    "Secret {} holds something else, and is not overwritten",
                    secret.name
                ))
                .hint("keep a copy of it, then delete it, if the backup is to take its place"));
            }
            Some(_) => output::note(format_args!(
                "Secret {} has changed since, and stays as it is",
                secret.name
            )),
        }
    }
    Ok(missing)
}

/// A root is put back only where what it states now is believed: not beside the bundle of another, and not after it was
/// succeeded.
fn fits(root: &SigningKey, bundle: Option<&Bundle>) -> Result<(), Error> {
    let Some(bundle) = bundle else {
        output::note("no trust bundle is published: the restored root will publish one");
        return Ok(());
    };
    let trusted = super::believe(bundle)?;
    let id = root.verifying_key().key_id();
    let refuse = |cause: &dyn std::error::Error| {
        let message = format!(
            "root {id} is not the root of the published bundle, {}",
            bundle.root.key_id
        );
        Error::new(ExitCode::UntrustedKey, message).because(cause)
    };
    let about = root.verifying_key();
    let probe = KeyStatement::about(about, KeyPurpose::Signing, Timestamp::now(), None, None, 0)
        .sign(root)
        .map_err(|cause| refuse(&cause))?;
    let believed = trusted.roots().key_statement(&probe);
    believed.map(drop).map_err(|cause| refuse(&cause))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crypto::Suite;
    use crypto::root_statement::RootStatement;

    #[test]
    fn a_root_is_put_back_beside_its_own_bundle_alone() {
        let [first, second] = [1, 2].map(|seed| SigningKey::from_seed(Suite::MlDsa87, &[seed; 32]).unwrap());
        assert!(fits(&first, None).is_ok());
        let mut bundle = Bundle::new(first.verifying_key(), vec![]);
        assert!(fits(&first, Some(&bundle)).is_ok());
        assert!(fits(&second, Some(&bundle)).is_err());
        let past = Timestamp::from_second(1_000).unwrap();
        bundle = Bundle::new(second.verifying_key(), vec![]);
        bundle.roots = RootStatement::roll_over(&first, &second, past).unwrap().into();
        assert!(fits(&second, Some(&bundle)).is_ok());
        assert!(fits(&first, Some(&bundle)).is_err(), "it was succeeded");
    }
}
