//! `chimera seal`: encrypts inputs or files for one workflow, opens again what this machine has sealed, and moves it on to
//! newer keys.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use crypto::kem::{DecapsulationKey, EncapsulationKey};
use crypto::seal::{self, Binding, Sealed};
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::cluster::ClusterArgs;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::output;
use crate::secret::{self, Secret};
use crate::source;
use crate::trust::{self, OperatorArgs};
use crate::{local_keys, trust::Anchor};

/// A longer file is no sealed text.
const TEXT_LIMIT: u64 = 1024 * 1024;

/// Encrypts inputs for one workflow of the cluster
///
/// Prints a text for the workflow's spec.sealedInputs. Only the operator can open it, only for a workflow of this name in this
/// namespace, and this machine, so that it can move the text on to newer keys. Whoever may change that workflow can have the
/// inputs printed: --document binds them to one document as well.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// An input, as NAME=VALUE; VALUE is JSON, or else text, or @FILE for a file's text, or @- for stdin
    #[arg(short = 'i', long = "input", value_name = "NAME=VALUE", value_parser = secret::parse)]
    input: Vec<Secret>,

    /// A JSON or YAML file with inputs; `-` is stdin
    #[arg(long, value_name = "FILE")]
    inputs: Option<PathBuf>,

    /// Seals a file of any length instead of inputs
    #[arg(long, value_name = "FILE", conflicts_with_all = ["input", "inputs"], requires = "out")]
    file: Option<PathBuf>,

    /// Name of the MamlWorkflow that the inputs are for
    #[arg(long, value_name = "NAME", required_unless_present_any = ["open", "rewrap"])]
    workflow: Option<String>,

    /// Binds the inputs to this document, byte for byte
    #[arg(long, value_name = "FILE")]
    document: Option<PathBuf>,

    /// Opens what this machine has sealed
    #[arg(long, value_name = "FILE", conflicts_with_all = ["input", "inputs", "file", "workflow", "document", "rewrap"])]
    open: Option<PathBuf>,

    /// Moves what this machine has sealed on to the newest key of its namespace; the content stays as it is
    #[arg(long, value_name = "FILE", conflicts_with_all = ["input", "inputs", "file", "workflow", "document"])]
    rewrap: Option<PathBuf>,

    /// The file to write, instead of stdout
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,

    /// How a sealed text is printed
    #[arg(short, long, value_enum, default_value_t)]
    output: SealFormat,

    #[command(flatten)]
    keys: SealingArgs,

    #[command(flatten)]
    cluster: ClusterArgs,
}

/// With which keys to seal.
#[derive(clap::Args, Debug)]
pub struct SealingArgs {
    /// A file with the trust bundle that names the sealing key, instead of the cluster's
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,

    /// Takes the sealing key from the pinned trust bundle, without asking the cluster
    #[arg(long, conflicts_with = "trust")]
    pinned: bool,

    /// Leaves out this machine's own key: then only the operator can open it, and nobody can rewrap it
    #[arg(long)]
    no_own_key: bool,

    #[command(flatten)]
    pub operator: OperatorArgs,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum SealFormat {
    /// The text alone.
    #[default]
    Raw,
    /// A part of a workflow, as YAML.
    Yaml,
    /// A part of a workflow, as JSON.
    Json,
}

pub async fn run(args: Args) -> Result<ExitCode, Error> {
    if let Some(path) = &args.open {
        return open(path, args.out.as_deref());
    }
    if let Some(path) = &args.rewrap {
        return rewrap(path, &args).await;
    }
    let workflow = args.workflow.as_deref().unwrap_or_default();
    let document = args.document.as_deref().map(source::read_bytes).transpose()?;
    let namespace = args.cluster.namespace().await?;
    let binding = Binding::new(&namespace, workflow, document.as_deref());
    if let (Some(file), Some(out)) = (&args.file, &args.out) {
        let keys = Recipients::find(&namespace, &args.keys, &args.cluster).await?;
        return seal_file(file, out, binding, &keys);
    }
    let mut inputs = match &args.inputs {
        None => Map::new(),
        Some(path) => source::parse_inputs(&source::read_text(path)?, &source::shown(path))?,
    };
    inputs.extend(secret::read(&args.input)?);
    if inputs.is_empty() {
        return Err(
            Error::usage("there is nothing to seal").hint("give -i NAME=VALUE, --inputs FILE or --file FILE")
        );
    }
    let keys = Recipients::find(&namespace, &args.keys, &args.cluster).await?;
    print(&keys.seal(inputs, binding)?, &args)?;
    Ok(ExitCode::Ok)
}

/// The keys that may open what is sealed.
pub struct Recipients {
    namespace_key: EncapsulationKey,
    own: Option<DecapsulationKey>,
}

impl Recipients {
    /// The newest sealing key for a namespace that a believed bundle vouches for, and this machine's own.
    pub async fn find(namespace: &str, args: &SealingArgs, cluster: &ClusterArgs) -> Result<Self, Error> {
        let anchor = match &args.trust {
            None if args.pinned => trust::of_pinned()?,
            file => trust::of_cluster(file.as_deref(), cluster, &args.operator).await?,
        };
        let own = if args.no_own_key {
            None
        } else {
            Some(
                local_keys::sealing()
                    .map_err(|error| error.hint("--no-own-key seals without a key of this machine"))?,
            )
        };
        Ok(Self {
            namespace_key: sealing_key(namespace, &anchor)?,
            own,
        })
    }

    fn keys(&self) -> Vec<&EncapsulationKey> {
        let own = self.own.as_ref().map(DecapsulationKey::encapsulation_key);
        std::iter::once(&self.namespace_key).chain(own).collect()
    }

    /// Seals inputs.
    pub fn seal(&self, inputs: Map<String, Value>, binding: Binding) -> Result<Sealed, Error> {
        let plaintext = serde_json::to_vec(&Value::Object(inputs)).map(Zeroizing::new);
        let plaintext =
            plaintext.map_err(|cause| Error::failed("cannot write the inputs").because(&cause))?;
        Sealed::seal(&plaintext, binding, &self.keys()).map_err(|cause| unsealed(&cause))
    }
}

fn sealing_key(namespace: &str, anchor: &Anchor) -> Result<EncapsulationKey, Error> {
    let trusted = anchor
        .bundle
        .verify_pinned(anchor.pinned.as_ref())
        .map_err(|cause| {
            Error::new(ExitCode::UntrustedKey, "the trust bundle cannot be believed").because(&cause)
        })?;
    let (_, key) = trusted.sealing_key(namespace).ok_or_else(|| {
        Error::failed(format!(
            "the trust bundle names no sealing key for namespace {namespace}"
        ))
        .hint("create a KeyRotationPolicy of purpose Sealing in the operator's namespace, or in this one")
    })?;
    output::note(format_args!(
        "seals for namespace {namespace} with key {}, which root {} vouches for",
        key.key_id().short(),
        trusted.root().key_id().short()
    ));
    Ok(key.clone())
}

fn seal_file(file: &Path, out: &Path, binding: Binding, keys: &Recipients) -> Result<ExitCode, Error> {
    let mut from = open_file(file)?;
    write_whole(out, SHARED, |to| {
        seal::seal_file(&mut from, to, binding, &keys.keys())
    })?;
    Ok(ExitCode::Ok)
}

fn open(path: &Path, out: Option<&Path>) -> Result<ExitCode, Error> {
    let key = local_keys::sealing()?;
    if let Some(sealed) = read_text(path)? {
        let opened = sealed.open(&key).map_err(|cause| unsealed(&cause))?;
        if let Some(out) = out {
            write_whole(out, PRIVATE, |to| Ok(to.write_all(&opened.plaintext)?))?;
        } else {
            output::print_raw(&opened.plaintext)?;
            output::print_raw(b"\n")?;
        }
        return Ok(ExitCode::Ok);
    }
    // Nothing is given out before the end of the file proved that none of it is missing.
    let out =
        out.ok_or_else(|| Error::usage("a sealed file is opened into another one").hint("give --out FILE"))?;
    let mut from = open_file(path)?;
    write_whole(out, PRIVATE, |to| {
        seal::open_file(&mut from, to, &key).map(|_| ())
    })?;
    Ok(ExitCode::Ok)
}

async fn rewrap(path: &Path, args: &Args) -> Result<ExitCode, Error> {
    let own = local_keys::sealing()?;
    if let Some(sealed) = read_text(path)? {
        let namespace = &sealed.header().binding().namespace;
        let keys = Recipients::find(namespace, &args.keys, &args.cluster).await?;
        let sealed = sealed
            .rewrap(&own, &keys.keys())
            .map_err(|cause| unsealed(&cause))?;
        print(&sealed, args)?;
        return Ok(ExitCode::Ok);
    }
    let out = args.out.as_deref();
    let out = out
        .ok_or_else(|| Error::usage("a sealed file is rewrapped into another one").hint("give --out FILE"))?;
    let header = seal::read_header(&mut open_file(path)?).map_err(|cause| unsealed(&cause))?;
    let keys = Recipients::find(&header.binding().namespace, &args.keys, &args.cluster).await?;
    let mut from = open_file(path)?;
    write_whole(out, SHARED, |to| {
        seal::rewrap_file(&mut from, to, &own, &keys.keys())
    })?;
    Ok(ExitCode::Ok)
}

/// The sealed text in a file; nothing if it is something else, a sealed file for example.
pub fn read_text(path: &Path) -> Result<Option<Sealed>, Error> {
    let long = !source::is_stdin(path) && std::fs::metadata(path).is_ok_and(|file| file.len() > TEXT_LIMIT);
    if long {
        return Ok(None);
    }
    match Sealed::from_json(&source::read_bytes(path)?) {
        Ok(sealed) => Ok(Some(sealed)),
        Err(seal::Error::Format(_) | seal::Error::Body) if !source::is_stdin(path) => Ok(None),
        Err(cause) => Err(unsealed(&cause)),
    }
}

fn print(sealed: &Sealed, args: &Args) -> Result<(), Error> {
    let text = sealed.to_json();
    let part = serde_json::json!({"spec": {"sealedInputs": text}});
    let text = match args.output {
        SealFormat::Raw => format!("{text}\n"),
        SealFormat::Json => format!("{part:#}\n"),
        SealFormat::Yaml => serde_saphyr::to_string(&part)
            .map_err(|cause| Error::failed("cannot write YAML").because(&cause))?,
    };
    match &args.out {
        None => output::print(&text),
        Some(out) => write_whole(out, SHARED, |to| Ok(to.write_all(text.as_bytes())?)),
    }
}

fn open_file(path: &Path) -> Result<BufReader<File>, Error> {
    let fail = |cause| Error::usage(format!("cannot read {}", path.display())).because(&cause);
    File::open(path).map(BufReader::new).map_err(fail)
}

/// Permissions of a sealed file.
const SHARED: u32 = 0o644;
/// Permissions of a file that was opened.
const PRIVATE: u32 = 0o600;

/// Writes a file whole or not at all.
fn write_whole(
    path: &Path,
    mode: u32,
    write: impl FnOnce(&mut BufWriter<&File>) -> Result<(), seal::Error>,
) -> Result<(), Error> {
    let fail =
        |cause: std::io::Error| Error::failed(format!("cannot write {}", path.display())).because(&cause);
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let fresh = tempfile::Builder::new()
        .prefix(".chimera-")
        .tempfile_in(folder)
        .map_err(fail)?;
    let mut to = BufWriter::new(fresh.as_file());
    write(&mut to).map_err(|cause| unsealed(&cause))?;
    to.flush().map_err(fail)?;
    drop(to);
    let file = fresh.as_file();
    file.set_permissions(std::fs::Permissions::from_mode(mode))
        .map_err(fail)?;
    file.sync_all().map_err(fail)?;
    fresh.persist(path).map(|_| ()).map_err(|error| fail(error.error))
}

fn unsealed(cause: &seal::Error) -> Error {
    let error = Error::failed("cannot seal or open").because(cause);
    if !matches!(cause, seal::Error::NotForKey(_)) {
        return error;
    }
    error.hint(
        "only the machine that sealed it has a key for it, unless --no-own-key was given; seal the inputs again",
    )
}
