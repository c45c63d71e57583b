//! `chimera trust`: the trust bundle of a cluster, the one that this user has pinned, and roots that are kept offline.

mod answer;
mod backup;
mod new_root;
mod pin;
mod requests;
mod restore;
mod roll;
mod show;
mod sign;
mod stored_secrets;

use std::path::{Path, PathBuf};

use api::names;
use clap::Subcommand;
use crypto::KeyId;
use crypto::revocation::Revocation;
use crypto::trust::{Bundle, TrustedKeys};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;

use crate::cluster::ClusterArgs;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::output::{self, Format};
use crate::{local_keys, whole_file};

pub use show::{by_age, revoked, time};

/// Shows, exports or pins the trust bundle, and keeps its root
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Shows the roots, and the keys that they vouch for
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
    /// Compare the printed root with what the cluster's operator tells you by another way. Pinning again takes what is new in the
    /// bundle; the root that was pinned first stays the one to insist on, also when others have succeeded it since. A bundle to
    /// which nothing leads from that root, or that lacks a revocation, is refused without --replace.
    Pin {
        /// Pin this bundle and its root, whatever is pinned
        #[arg(long)]
        replace: bool,
        #[command(flatten)]
        source: SourceArgs,
    },
    /// Makes a root that is kept away from the cluster
    ///
    /// Give its public key to the chart as `trust.offlineRoot`. What only this root can state is then asked for in
    /// `chimera trust requests`, and answered with `chimera trust sign`.
    NewRoot(new_root::Args),
    /// Writes what the operator asks of its offline root
    Requests(requests::Args),
    /// Signs requests with an offline root, after showing each; needs no cluster
    Sign(sign::Args),
    /// Hands an offline root's answers to the operator
    Answer(answer::Args),
    /// Has a new root succeed the present one
    ///
    /// Without files, the operator is asked to make a root of its own. With the files of two offline roots, their statements about
    /// one another are written as answers, for `chimera trust answer`; this needs no cluster.
    Roll(roll::Args),
    /// Writes the operator's root into an encrypted file
    Backup(backup::Args),
    /// Puts a backup back where a Secret is missing; never over another root
    Restore(restore::Args),
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
        Verb::Show { source, output } => show::print(&source.read().await?, output)?,
        Verb::Export { output, source } => export(&source.read().await?, output.as_deref())?,
        Verb::Pin { replace, source } => pin::pin(&source.read().await?, replace)?,
        Verb::NewRoot(args) => new_root::run(&args)?,
        Verb::Requests(args) => requests::run(&args).await?,
        Verb::Sign(args) => sign::run(&args)?,
        Verb::Answer(args) => answer::run(&args).await?,
        Verb::Roll(args) => roll::run(&args).await?,
        Verb::Backup(args) => backup::run(&args).await?,
        Verb::Restore(args) => restore::run(&args).await?,
    }
    Ok(ExitCode::Ok)
}

fn export(bundle: &Bundle, output: Option<&Path>) -> Result<(), Error> {
    believe(bundle)?;
    let Some(path) = output else {
        return output::print(&bundle.to_json());
    };
    write(path, bundle.to_json().as_bytes())?;
    output::note(format_args!(
        "wrote {}; its root is {}",
        path.display(),
        bundle.root.key_id
    ));
    Ok(())
}

/// Writes a file whole or not at all, and the folders above it.
fn write(path: &Path, text: &[u8]) -> Result<(), Error> {
    let fail =
        |cause: std::io::Error| Error::failed(format!("cannot write {}", path.display())).because(&cause);
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(fail)?;
    }
    whole_file::replace(path, text).map_err(fail)
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
        pinned: pin::read()?.map(|pinned| pinned.root),
        ..Anchor::of(read_cluster(cluster, operator).await?)
    })
}

/// The bundle to verify files with: the given one, else the pinned one, if there is any.
pub fn of_file(file: Option<&Path>) -> Result<Option<Anchor>, Error> {
    match file {
        Some(file) => Ok(Some(Anchor::of(read_file(file)?))),
        None => pinned(),
    }
}

/// The pinned bundle, held to the root that was pinned first.
fn pinned() -> Result<Option<Anchor>, Error> {
    let anchor = |pinned: pin::Pinned| Anchor {
        pinned: Some(pinned.root),
        ..Anchor::of(pinned.bundle)
    };
    Ok(pin::read()?.map(anchor))
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
    pinned()?.ok_or_else(|| {
        Error::usage("no trust bundle is pinned")
            .hint("store a cluster's bundle once with `chimera trust pin`")
    })
}

/// The bundle that the operator publishes, with all its pages.
pub async fn read_cluster(cluster: &ClusterArgs, operator: &OperatorArgs) -> Result<Bundle, Error> {
    let (name, namespace) = (names::TRUST_CONFIG_MAP, &operator.operator_namespace);
    let maps: Api<ConfigMap> = Api::namespaced(cluster.connect().await?, namespace);
    find_bundle(&maps, namespace).await?.ok_or_else(|| {
        Error::failed(format!("there is no ConfigMap {name} in namespace {namespace}"))
            .hint("--operator-namespace names the namespace that the operator runs in")
    })
}

/// The same, if one is published. The bundle is read before its pages: those never change once it counts them.
async fn find_bundle(maps: &Api<ConfigMap>, namespace: &str) -> Result<Option<Bundle>, Error> {
    let fail = |name: &str, cause: &NoBundle| {
        Error::failed(format!("cannot read ConfigMap {namespace}/{name}")).because(cause)
    };
    let name = names::TRUST_CONFIG_MAP;
    let Some(map) = maps.get_opt(name).await? else {
        return Ok(None);
    };
    let main = bundle_of(&map).map_err(|cause| fail(name, &cause))?;
    let mut pages = Vec::new();
    for number in 1..=page_count(&map).map_err(|cause| fail(name, &cause))? {
        let name = names::trust_page(number);
        let page = maps.get_opt(&name).await?;
        let page = page
            .ok_or_else(|| Error::failed(format!("the trust bundle's page {namespace}/{name} is missing")))?;
        pages.push(bundle_of(&page).map_err(|cause| fail(&name, &cause))?);
    }
    Ok(Some(main.with_pages(pages)))
}

/// Whether the published bundle says that a key is revoked. Nobody's word is verified here.
pub fn revokes(map: &ConfigMap, key: &KeyId) -> bool {
    bundle_of(map).is_ok_and(|bundle| {
        let mut revoked = bundle.revocations.iter().filter_map(Revocation::claimed_key);
        revoked.any(|revoked| revoked == *key)
    })
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
    #[error("the ConfigMap has no key `{key}`", key = names::TRUST_BUNDLE_KEY)]
    NoKey,
    #[error("the ConfigMap's number of pages, `{0}`, is none")]
    PageCount(String),
    #[error(
        "the ConfigMap is not the whole bundle: {0} page(s) are in others; `chimera trust export` writes all of it"
    )]
    Pages(usize),
}

/// A bundle as JSON, or inside the ConfigMap as YAML or JSON.
pub fn read_file(path: &Path) -> Result<Bundle, Error> {
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
        let map = serde_json::from_value(value)?;
        return match page_count(&map)? {
            0 => bundle_of(&map),
            pages => Err(NoBundle::Pages(pages)),
        };
    }
    Ok(Bundle::from_json(bytes)?)
}

fn bundle_of(map: &ConfigMap) -> Result<Bundle, NoBundle> {
    let data = map
        .data
        .as_ref()
        .and_then(|data| data.get(names::TRUST_BUNDLE_KEY));
    Ok(Bundle::from_json(data.ok_or(NoBundle::NoKey)?.as_bytes())?)
}

/// How many pages belong to the bundle in a ConfigMap.
fn page_count(map: &ConfigMap) -> Result<usize, NoBundle> {
    let data = map.data.as_ref();
    let Some(text) = data.and_then(|data| data.get(names::TRUST_PAGES_KEY)) else {
        return Ok(0);
    };
    let count = text.parse().ok().filter(|count| *count <= names::TRUST_PAGES);
    count.ok_or_else(|| NoBundle::PageCount(text.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crypto::{SigningKey, Suite};

    #[test]
    fn a_bundle_is_read_from_its_config_map_too() {
        let root = SigningKey::from_seed(Suite::MlDsa87, &[1; 32]).unwrap();
        let bundle = Bundle::new(root.verifying_key(), vec![]);
        let indented: String = bundle
            .to_json()
            .lines()
            .flat_map(|line| ["    ", line, "\n"])
            .collect();
        let yaml = format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: chimera-trust\ndata:\n  trust.json: |\n{indented}"
        );
        assert_eq!(parse(yaml.as_bytes()).unwrap(), bundle);
        let paged = format!("{yaml}  pages: \"2\"\n");
        assert!(matches!(parse(paged.as_bytes()), Err(NoBundle::Pages(2))));
        let strange = format!("{yaml}  pages: \"65\"\n");
        assert!(matches!(parse(strange.as_bytes()), Err(NoBundle::PageCount(_))));
        assert!(matches!(
            parse(b"kind: ConfigMap\ndata: {}\n"),
            Err(NoBundle::NoKey)
        ));
        assert!(parse(b"{}").is_err());
    }
}
