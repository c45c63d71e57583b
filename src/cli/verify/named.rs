//! The receipts that the user names: files, folders of files, standard input, objects of the cluster.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use api::MuReceipt;
use kube::{Api, Client};

use crate::cluster::ClusterArgs;
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::source;

/// More than this is not read: no receipt is nearly as large, and many are read at once.
const MAX_BYTES: u64 = 16 * 1024 * 1024;
/// Endings of the names of receipts in a folder.
const ENDINGS: [&str; 1] = [".json"];

/// One receipt, not yet read.
#[derive(Debug, PartialEq, Eq)]
pub enum Named {
    Stdin,
    /// The name of a MuReceipt.
    Cluster(String),
    File(PathBuf),
}

impl Named {
    pub fn parse(argument: &str) -> Self {
        if argument == "-" {
            Self::Stdin
        } else if let Some(name) = in_cluster(argument) {
            Self::Cluster(name.to_owned())
        } else {
            Self::File(argument.into())
        }
    }

    /// The receipts that the arguments mean, in their order; a folder means every `*.json` in it, sorted.
    pub fn all(arguments: &[String]) -> Result<Vec<Self>, Error> {
        let mut all = Vec::with_capacity(arguments.len());
        for argument in arguments {
            match Self::parse(argument) {
                Self::File(path) if path.is_dir() => {
                    let files = source::files(&[path], &ENDINGS, "receipts")?;
                    all.extend(files.into_iter().map(Self::File));
                }
                Self::Stdin if all.contains(&Self::Stdin) => {
                    return Err(Error::usage("standard input can be read once only"));
                }
                named => all.push(named),
            }
        }
        Ok(all)
    }

    pub fn is_in_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdin => f.write_str("-"),
            Self::Cluster(name) => write!(f, "mur/{name}"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

/// `NAME` of `mur/NAME`, and of the other names of the kind.
fn in_cluster(receipt: &str) -> Option<&str> {
    let (kind, name) = receipt.split_once('/')?;
    let known = ["mur", "mureceipt", "mureceipts", "mureceipts.chimera.dunes.io"].contains(&kind);
    (known && !name.is_empty() && !name.contains('/')).then_some(name)
}

/// Reads receipts; connects to the cluster when the first one asks for it.
pub struct Reader<'a> {
    cluster: &'a ClusterArgs,
    client: Option<Client>,
}

impl<'a> Reader<'a> {
    pub fn new(cluster: &'a ClusterArgs) -> Self {
        Self {
            cluster,
            client: None,
        }
    }

    pub async fn read(&mut self, named: &Named) -> Result<Vec<u8>, Error> {
        match named {
            Named::Cluster(name) => {
                let client = match &self.client {
                    Some(client) => client.clone(),
                    None => self.client.insert(self.cluster.connect().await?).clone(),
                };
                read_object(client, name).await
            }
            Named::Stdin => bounded(io::stdin().lock()).map_err(|cause| unread(named, &cause)),
            Named::File(path) => read_file(path),
        }
    }
}

/// The bytes of a receipt in a file.
pub fn read_file(path: &Path) -> Result<Vec<u8>, Error> {
    File::open(path).and_then(bounded).map_err(|cause| {
        let error = unread(&Named::File(path.to_owned()), &cause);
        if cause.kind() == ErrorKind::NotFound {
            error.hint("a receipt is a file, `-`, or mur/NAME for one in the cluster")
        } else {
            error
        }
    })
}

fn unread(named: &Named, cause: &io::Error) -> Error {
    let code = match cause.kind() {
        ErrorKind::NotFound => ExitCode::NoReceipt,
        ErrorKind::FileTooLarge => ExitCode::Usage,
        _ => ExitCode::Failed,
    };
    Error::new(code, format!("cannot read the receipt {named}")).because(cause)
}

fn bounded(reader: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 <= MAX_BYTES {
        Ok(bytes)
    } else {
        Err(io::Error::new(
            ErrorKind::FileTooLarge,
            format!("larger than {} MiB", MAX_BYTES >> 20),
        ))
    }
}

async fn read_object(client: Client, name: &str) -> Result<Vec<u8>, Error> {
    let namespace = client.default_namespace().to_owned();
    let receipts: Api<MuReceipt> = Api::default_namespaced(client);
    let receipt = receipts.get_opt(name).await?.ok_or_else(|| {
        Error::new(
            ExitCode::NoReceipt,
            format!("there is no MuReceipt {name} in namespace {namespace}"),
        )
        .hint("kubectl get mur -A")
    })?;
    serde_json::to_vec(&receipt).map_err(|cause| Error::failed("cannot read the MuReceipt").because(&cause))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receipts_are_files_objects_or_standard_input() {
        for (argument, named) in [
            ("-", Named::Stdin),
            ("mur/hello", Named::Cluster("hello".into())),
            ("mureceipts/hello", Named::Cluster("hello".into())),
            ("mur/", Named::File("mur/".into())),
            ("mur/a/b", Named::File("mur/a/b".into())),
            ("./mur/hello", Named::File("./mur/hello".into())),
        ] {
            assert_eq!(Named::parse(argument), named, "{argument}");
        }
        assert!(Named::all(&["-".into(), "x".into(), "-".into()]).is_err());
    }

    #[test]
    fn more_than_the_limit_is_not_read() {
        let error = bounded(io::repeat(b' ')).unwrap_err();
        assert_eq!(error.to_string(), "larger than 16 MiB");
        assert_eq!(bounded(&b"{}"[..]).unwrap(), b"{}");
    }
}
