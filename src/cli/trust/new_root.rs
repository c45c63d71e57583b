//! `chimera trust new-root`: a root that the cluster never holds; and reading one back.

use std::path::{Path, PathBuf};

use crypto::{SigningKey, Suite};

use crate::error::Error;
use crate::output;
use crate::secret_file::{self, LockArgs, UnlockArgs};

#[derive(clap::Args, Debug)]
pub struct Args {
    /// The file to make, for the private key: PKCS #8, encrypted in the age format
    #[arg(long, value_name = "FILE")]
    out: PathBuf,

    /// The file to make, for the public key. Without it: the name of --out with `.pub.pem` at its end
    #[arg(long, value_name = "FILE")]
    public: Option<PathBuf>,

    /// Does not encrypt the private key: its file is PKCS #8 PEM, readable by its owner only
    #[arg(long, conflicts_with_all = ["recipient", "passphrase_file"])]
    plain: bool,

    #[command(flatten)]
    lock: LockArgs,
}

pub fn run(args: &Args) -> Result<(), Error> {
    let public = args.public.clone().unwrap_or_else(|| beside(&args.out));
    if public.exists() {
        return Err(Error::usage(format!("{} exists already", public.display())).hint("name another file"));
    }
    let root = SigningKey::generate(Suite::MlDsa87)
        .map_err(|cause| Error::failed("cannot make a key").because(&cause))?;
    let pem = root.pkcs8_pem();
    if args.plain {
        secret_file::write_plain(&args.out, pem.as_bytes())?;
    } else {
        args.lock.write(&args.out, pem.as_bytes())?;
    }
    let key = root.verifying_key();
    super::write(&public, key.spki_pem().as_bytes())?;
    output::print(key.key_id().as_str())?;
    output::note(format_args!(
        "the private key is in {}, the public key in {}",
        args.out.display(),
        public.display()
    ));
    Ok(())
}

fn beside(out: &Path) -> PathBuf {
    let mut name = out.as_os_str().to_owned();
    name.push(".pub.pem");
    name.into()
}

/// An offline root from its file, encrypted or not.
pub fn read(path: &Path, unlock: &UnlockArgs) -> Result<SigningKey, Error> {
    let fail = |cause: &dyn std::error::Error| {
        Error::usage(format!("{} holds no root", path.display())).because(cause)
    };
    let bytes = unlock.read_either(path)?;
    let text = std::str::from_utf8(&bytes).map_err(|cause| fail(&cause))?;
    SigningKey::from_pkcs8_pem(text).map_err(|cause| fail(&cause))
}
