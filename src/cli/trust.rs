//! `chimera trust`: the trust bundle of a cluster, and the one that this user has pinned.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use crypto::trust::{Bundle, TrustedKey, TrustedKeys};
use crypto::{KeyId, KeyStatement, Suite};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use serde::Serialize;

use crate::cluster::ClusterArgs;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::output::{self, Format};
use crate::{local_keys, user_folder, whole_file};

/// Shows, exports or pins the trust bundle
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Shows the root and the keys that it vouches for
    Show {
        #[command(flatten)]
        source: SourceArgs,
        #[arg(short, long, value_enum, default_value_t)]
        output: Format,
    },
    /// Writes the cluster's bundle as JSON, for verification elsewhere
    Export {
        /// The file to write, instead of stdout
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        #[command(flatten)]
        source: SourceArgs,
    },
    /// Stores the bundle for `chimera verify`, which insists on its root from then on
    ///
    /// Compare the printed root with what the cluster's operator tells you by another way. Pinning again takes new keys of the
    /// same root; another root is refused without --replace.
    Pin {
        /// Pin this bundle even though another root is pinned
        #[arg(long)]
        replace: bool,
        #[command(flatten)]
        source: SourceArgs,
    },
}

/// Where a bundle comes from.
#[derive(clap::Args, Debug)]
struct SourceArgs {
    /// A file with the bundle, instead of the cluster
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,
    #[command(flatten)]
    operator: OperatorArgs,
    #[command(flatten)]
    cluster: ClusterArgs,
}

impl SourceArgs {
    async fn read(&self) -> Result<Bundle, Error> {
        match &self.trust {
            Some(file) => read_file(file),
            None => read_cluster(&self.cluster, &self.operator).await,
        }
    }
}

/// Where the operator runs.
#[derive(clap::Args, Debug)]
pub struct OperatorArgs {
    /// Namespace of the operator, which publishes the trust bundle
    #[arg(
        long,
        value_name = "NAMESPACE",
        default_value = "chimera-system",
        env = "CHIMERA_OPERATOR_NAMESPACE"
    )]
    pub operator_namespace: String,
}

/// What a verification rests on.
pub struct Anchor {
    /// The bundle to find keys in.
    pub bundle: Bundle,
    /// The root that this user has pinned, when the bundle came from the cluster.
    pub pinned: Option<KeyId>,
    /// Whether the bundle is that of this machine's own keys.
    pub local: bool,
}

impl Anchor {
    fn of(bundle: Bundle) -> Self {
        Self {
            bundle,
            pinned: None,
            local: false,
        }
    }
}

pub async fn run(args: Args) -> Result<ExitCode, Error> {
    match args.verb {
        Verb::Show { source, output } => {
            let trusted = believe(&source.read().await?)?;
            output.print(&Listing::of(&trusted), text)?;
        }
        Verb::Export { output, source } => {
            let bundle = source.read().await?;
            believe(&bundle)?;
            match output {
                Some(path) => {
                    write(&path, &bundle)?;
                    output::note(format_args!(
                        "wrote {}; its root is {}",
                        path.display(),
                        bundle.root.key_id
                    ));
                }
                None => output::print(&bundle.to_json())?,
            }
        }
        Verb::Pin { replace, source } => {
            let bundle = source.read().await?;
            pin(&bundle, &pinned_path()?, replace)?;
        }
    }
    Ok(ExitCode::Ok)
}

/// The bundle to verify an object of the cluster with: the given file, else the cluster's, held to the pinned root.
pub async fn of_cluster(
    file: Option<&Path>,
    cluster: &ClusterArgs,
    operator: &OperatorArgs,
) -> Result<Anchor, Error> {
    if let Some(file) = file {
        return Ok(Anchor::of(read_file(file)?));
    }
    Ok(Anchor {
        pinned: pinned()?.map(|stored| stored.root.key_id),
        ..Anchor::of(read_cluster(cluster, operator).await?)
    })
}

/// The bundle to verify files with: the given one, else the pinned one, if there is any.
pub fn of_file(file: Option<&Path>) -> Result<Option<Anchor>, Error> {
    let bundle = match file {
        Some(file) => Some(read_file(file)?),
        None => pinned()?,
    };
    Ok(bundle.map(Anchor::of))
}

/// The bundle to verify what `signer` signed with: the given one, else that of this machine when the key is its own, else
/// the pinned one.
pub fn of_signer(file: Option<&Path>, signer: &str) -> Result<Anchor, Error> {
    if file.is_none()
        && let Some(own) = of_machine()?
        && own
            .bundle
            .verify()
            .is_ok_and(|trusted| trusted.find(signer).is_some())
    {
        return Ok(own);
    }
    of_file(file)?.ok_or_else(no_bundle)
}

/// Neither a bundle was given nor one pinned.
pub fn no_bundle() -> Error {
    Error::usage("there is no trust bundle to verify with")
        .hint("give --trust FILE, or store a cluster's bundle once with `chimera trust pin`")
}

/// The bundle of this machine's own keys, for what they signed.
pub fn of_machine() -> Result<Option<Anchor>, Error> {
    let local = |bundle| Anchor {
        local: true,
        ..Anchor::of(bundle)
    };
    Ok(local_keys::bundle()?.map(local))
}

/// The pinned bundle, without asking anybody.
pub fn of_pinned() -> Result<Anchor, Error> {
    pinned()?.map(Anchor::of).ok_or_else(|| {
        Error::usage("no trust bundle is pinned")
            .hint("store a cluster's bundle once with `chimera trust pin`")
    })
}

/// The pinned bundle. In a container there may be no home, and so nothing pinned.
fn pinned() -> Result<Option<Bundle>, Error> {
    let path = pinned_path().ok().filter(|path| path.exists());
    path.map(|path| read_file(&path)).transpose()
}

/// The bundle that the operator publishes.
pub async fn read_cluster(cluster: &ClusterArgs, operator: &OperatorArgs) -> Result<Bundle, Error> {
    let (name, namespace) = (api::names::TRUST_CONFIG_MAP, &operator.operator_namespace);
    let maps: Api<ConfigMap> = Api::namespaced(cluster.connect().await?, namespace);
    let map = maps.get_opt(name).await?.ok_or_else(|| {
        Error::failed(format!("there is no ConfigMap {name} in namespace {namespace}"))
            .hint("--operator-namespace names the namespace that the operator runs in")
    })?;
    bundle_of(&map)
        .map_err(|cause| Error::failed(format!("cannot read ConfigMap {namespace}/{name}")).because(&cause))
}

/// A bundle whose every statement holds.
pub fn believe(bundle: &Bundle) -> Result<TrustedKeys, Error> {
    bundle.verify().map_err(|cause| {
        Error::new(ExitCode::UntrustedKey, "the trust bundle cannot be believed").because(&cause)
    })
}

/// Why a file or a ConfigMap holds no bundle.
#[derive(Debug, thiserror::Error)]
enum NoBundle {
    #[error(transparent)]
    Bundle(#[from] crypto::trust::Error),
    #[error("not a ConfigMap")]
    Yaml(#[from] serde_saphyr::Error),
    #[error("not a ConfigMap")]
    Object(#[from] serde_json::Error),
    #[error("the ConfigMap has no key `{key}`", key = api::names::TRUST_BUNDLE_KEY)]
    NoKey,
}

/// A bundle as JSON, or inside the ConfigMap as YAML or JSON.
fn read_file(path: &Path) -> Result<Bundle, Error> {
    let fail = |cause: &dyn std::error::Error| {
        Error::usage(format!("cannot read the trust bundle {}", path.display())).because(cause)
    };
    let bytes = std::fs::read(path).map_err(|cause| fail(&cause))?;
    parse(&bytes).map_err(|cause| fail(&cause))
}

fn parse(bytes: &[u8]) -> Result<Bundle, NoBundle> {
    let text = String::from_utf8_lossy(bytes);
    if text.contains("ConfigMap") {
        let value: serde_json::Value = serde_saphyr::from_str(&text)?;
        return bundle_of(&serde_json::from_value(value)?);
    }
    Ok(Bundle::from_json(bytes)?)
}

fn bundle_of(map: &ConfigMap) -> Result<Bundle, NoBundle> {
    let data = map
        .data
        .as_ref()
        .and_then(|data| data.get(api::names::TRUST_BUNDLE_KEY));
    Ok(Bundle::from_json(data.ok_or(NoBundle::NoKey)?.as_bytes())?)
}

/// Where this user's pinned bundle is: `$XDG_CONFIG_HOME/chimera/trust.json`, by default under `~/.config`.
fn pinned_path() -> Result<PathBuf, Error> {
    Ok(user_folder::config()?.join("trust.json"))
}

fn pin(bundle: &Bundle, path: &Path, replace: bool) -> Result<(), Error> {
    let trusted = believe(bundle)?;
    let root = trusted.root().key_id();
    if path.exists() && !replace {
        let pinned = read_file(path)?.root.key_id;
        if pinned != *root {
            let message = format!("the bundle's root is {root}, but {pinned} is pinned");
            return Err(Error::new(ExitCode::UntrustedKey, message)
                .hint("--replace pins the new one, if you know why it changed"));
        }
    }
    write(path, bundle)?;
    output::print(root.as_str())?;
    output::note(format_args!(
        "pinned in {}: compare this root with what the operator tells you",
        path.display()
    ));
    Ok(())
}

/// Writes a bundle whole or not at all.
fn write(path: &Path, bundle: &Bundle) -> Result<(), Error> {
    let fail =
        |cause: std::io::Error| Error::failed(format!("cannot write {}", path.display())).because(&cause);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(fail)?;
    }
    whole_file::replace(path, bundle.to_json().as_bytes()).map_err(fail)
}

/// The keys of a bundle, as they are printed.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listing {
    root: Root,
    keys: Vec<KeyStatement>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Root {
    key_id: KeyId,
    suite: Suite,
    public_key: String,
}

impl Listing {
    fn of(trusted: &TrustedKeys) -> Self {
        let root = trusted.root();
        Self {
            root: Root {
                key_id: root.key_id().clone(),
                suite: root.suite(),
                public_key: root.spki_pem(),
            },
            keys: by_age(trusted)
                .into_iter()
                .map(|key| key.statement.clone())
                .collect(),
        }
    }
}

/// The keys, oldest first.
pub fn by_age(trusted: &TrustedKeys) -> Vec<&TrustedKey> {
    let mut keys: Vec<_> = trusted.iter().collect();
    keys.sort_by_key(|key| key.statement.not_before);
    keys
}

fn text(listing: &Listing) -> String {
    let rows: Vec<_> = listing
        .keys
        .iter()
        .map(|key| {
            vec![
                key.key_id.to_string(),
                key.suite.to_string(),
                key.purpose.to_string(),
                key.not_before.to_string(),
                key.not_after
                    .map_or_else(|| "-".to_owned(), |end| end.to_string()),
                key.predecessor.as_ref().map_or("-", KeyId::short).to_owned(),
            ]
        })
        .collect();
    let keys = output::table(
        &["KEY", "SUITE", "PURPOSE", "VALID FROM", "UNTIL", "PREDECESSOR"],
        &rows,
    );
    format!(
        "Root   {}   {}\n\n{keys}",
        listing.root.suite, listing.root.key_id
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crypto::SigningKey;

    fn bundle(seed: u8) -> Bundle {
        let root = SigningKey::from_seed(Suite::MlDsa87, &[seed; 32]).unwrap();
        Bundle::new(root.verifying_key(), vec![])
    }

    #[test]
    fn a_pinned_root_is_replaced_on_demand_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("chimera/trust.json");
        pin(&bundle(1), &path, false).unwrap();
        pin(&bundle(1), &path, false).unwrap();
        assert!(pin(&bundle(2), &path, false).is_err());
        assert_eq!(read_file(&path).unwrap(), bundle(1));
        pin(&bundle(2), &path, true).unwrap();
        assert_eq!(read_file(&path).unwrap(), bundle(2));
    }

    #[test]
    fn a_bundle_is_read_from_its_config_map_too() {
        let bundle = bundle(1);
        let indented: String = bundle
            .to_json()
            .lines()
            .flat_map(|line| ["    ", line, "\n"])
            .collect();
        let yaml = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: chimera-trust\ndata:\n  trust.json: |\n{indented}"
        );
        assert_eq!(parse(yaml.as_bytes()).unwrap(), bundle);
        assert!(matches!(
            parse(b"kind: ConfigMap\ndata: {}\n"),
            Err(NoBundle::NoKey)
        ));
        assert!(parse(b"{}").is_err());
    }
}
