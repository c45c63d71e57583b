//! Files with secrets in them: encrypted in the age format (<https://age-encryption.org/v1>), so that they also open with the
//! tools that others have written for it.

use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};

use age::armor::{ArmoredReader, ArmoredWriter, Format};
use age::secrecy::{ExposeSecret as _, SecretString};
use age::{Decryptor, Encryptor, IdentityFile, scrypt, x25519};
use zeroize::{Zeroize as _, Zeroizing};

use crate::error::Error;
use crate::whole_file;

/// The first bytes of an age file, armoured or not.
const ARMOURED: &[u8] = b"-----BEGIN AGE ENCRYPTED FILE-----";
const BINARY: &[u8] = b"age-encryption.org/";

/// How a new file is to be locked.
#[derive(clap::Args, Debug)]
pub struct LockArgs {
    /// Encrypts to this age recipient (age1…); may be given several times. Without it, to a passphrase
    #[arg(long, value_name = "AGE_RECIPIENT", conflicts_with = "passphrase_file")]
    recipient: Vec<x25519::Recipient>,

    /// A file whose first line is the passphrase, instead of asking for it at the terminal
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

/// How a file is to be opened.
#[derive(clap::Args, Debug)]
pub struct UnlockArgs {
    /// A file with age identities (AGE-SECRET-KEY-1…), for what was encrypted to a recipient
    #[arg(long, value_name = "FILE", conflicts_with = "passphrase_file")]
    identity: Option<PathBuf>,

    /// A file whose first line is the passphrase, instead of asking for it at the terminal
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

/// Why a file could not be encrypted or opened.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Encrypt(#[from] age::EncryptError),
    #[error(transparent)]
    Decrypt(#[from] age::DecryptError),
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

impl LockArgs {
    /// Writes a new encrypted file, for its owner alone.
    pub fn write(&self, path: &Path, plain: &[u8]) -> Result<(), Error> {
        refuse_existing(path)?;
        let locked = self.lock(path, plain)?;
        create(path, &locked)
    }

    fn lock(&self, path: &Path, plain: &[u8]) -> Result<Vec<u8>, Error> {
        let encryptor = if self.recipient.is_empty() {
            Encryptor::with_user_passphrase(self.new_passphrase(path)?)
        } else {
            let recipients = self.recipient.iter();
            Encryptor::with_recipients(recipients.map(|one| one as &dyn age::Recipient))
                .map_err(|cause| Error::usage("cannot encrypt to these recipients").because(&cause))?
        };
        encrypt(encryptor, plain)
            .map_err(|cause| Error::failed(format!("cannot encrypt {}", path.display())).because(&cause))
    }

    /// Asked for twice: nobody can tell later that a finger slipped.
    fn new_passphrase(&self, path: &Path) -> Result<SecretString, Error> {
        if let Some(file) = &self.passphrase_file {
            return read_passphrase(file);
        }
        let first = ask(&format!("Passphrase for {}: ", path.display()))?;
        let again = ask("The same once more: ")?;
        if first.expose_secret() == again.expose_secret() {
            Ok(first)
        } else {
            Err(Error::usage("the passphrases differ"))
        }
    }
}

impl UnlockArgs {
    /// The content of an encrypted file.
    pub fn read(&self, path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
        let bytes = read(path)?;
        if !is_encrypted(&bytes) {
            return Err(Error::usage(format!("{} is no age file", path.display())));
        }
        self.open(path, &bytes)
    }

    /// The content of a file that may be encrypted. One that is not must be for its owner alone.
    pub fn read_either(&self, path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
        let bytes = read(path)?;
        if is_encrypted(&bytes) {
            return self.open(path, &bytes);
        }
        refuse_shared(path)?;
        Ok(bytes)
    }

    fn open(&self, path: &Path, bytes: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        let fail = |cause: &dyn std::error::Error| {
            Error::failed(format!("cannot decrypt {}", path.display())).because(cause)
        };
        let decryptor = Decryptor::new_buffered(ArmoredReader::new(bytes)).map_err(|cause| fail(&cause))?;
        let identities = self.identities(path, decryptor.is_scrypt())?;
        let identities = identities.iter().map(|one| &**one as &dyn age::Identity);
        decrypt(decryptor, identities, bytes.len()).map_err(|cause| fail(&cause))
    }

    fn identities(&self, path: &Path, by_passphrase: bool) -> Result<Vec<Box<dyn age::Identity>>, Error> {
        if by_passphrase {
            let passphrase = match &self.passphrase_file {
                Some(file) => read_passphrase(file)?,
                None => ask(&format!("Passphrase of {}: ", path.display()))?,
            };
            return Ok(vec![Box::new(scrypt::Identity::new(passphrase))]);
        }
        let file = self.identity.as_ref().ok_or_else(|| {
            Error::usage(format!("{} is encrypted to a recipient", path.display()))
                .hint("--identity names the file with the recipient's secret key")
        })?;
        let fail = |cause: &dyn std::error::Error| {
            Error::usage(format!("cannot read the identities in {}", file.display())).because(cause)
        };
        let text = read(file)?;
        let identities = IdentityFile::from_buffer(text.as_slice()).map_err(|cause| fail(&cause))?;
        let identities = identities.into_identities().map_err(|cause| fail(&cause))?;
        Ok(identities
            .into_iter()
            .map(|one| one as Box<dyn age::Identity>)
            .collect())
    }
}

/// Writes a new file for its owner alone, as it is.
pub fn write_plain(path: &Path, plain: &[u8]) -> Result<(), Error> {
    refuse_existing(path)?;
    create(path, plain)
}

/// Before a passphrase is asked for in vain. What counts is that the file is made only where there is none.
fn refuse_existing(path: &Path) -> Result<(), Error> {
    if path.exists() {
        Err(Error::usage(format!("{} exists already", path.display())).hint("name another file"))
    } else {
        Ok(())
    }
}

fn create(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    whole_file::create_private(path, bytes)
        .map_err(|cause| Error::failed(format!("cannot write {}", path.display())).because(&cause))
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Error> {
    std::fs::read(path)
        .map(Zeroizing::new)
        .map_err(|cause| Error::usage(format!("cannot read {}", path.display())).because(&cause))
}

/// A secret that others than its owner may read is not used.
pub fn refuse_shared(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt as _;
    let metadata = std::fs::metadata(path)
        .map_err(|cause| Error::usage(format!("cannot read {}", path.display())).because(&cause))?;
    let others = metadata.permissions().mode() & 0o077;
    if others == 0 {
        return Ok(());
    }
    let message = format!("others than its owner may read the secret {}", path.display());
    Err(Error::failed(message).hint(format!("chmod 600 {}", path.display())))
}

fn is_encrypted(bytes: &[u8]) -> bool {
    bytes.starts_with(ARMOURED) || bytes.starts_with(BINARY)
}

fn encrypt(encryptor: Encryptor, plain: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut locked = Vec::new();
    let armour = ArmoredWriter::wrap_output(&mut locked, Format::AsciiArmor)?;
    let mut writer = encryptor.wrap_output(armour)?;
    writer.write_all(plain)?;
    writer.finish()?.finish()?;
    Ok(locked)
}

fn decrypt<'a>(
    decryptor: Decryptor<impl Read>,
    identities: impl Iterator<Item = &'a dyn age::Identity>,
    locked: usize,
) -> Result<Zeroizing<Vec<u8>>, Failure> {
    // What is locked is longer, so the buffer never moves and leaves no copy behind.
    let mut plain = Zeroizing::new(Vec::with_capacity(locked));
    decryptor.decrypt(identities)?.read_to_end(&mut plain)?;
    Ok(plain)
}

fn ask(question: &str) -> Result<SecretString, Error> {
    let answer = rpassword::prompt_password(question).map_err(|cause| {
        Error::usage("nobody is at a terminal to enter a passphrase")
            .because(&cause)
            .hint("--passphrase-file names a file that holds it")
    })?;
    passphrase(answer)
}

fn read_passphrase(file: &Path) -> Result<SecretString, Error> {
    refuse_shared(file)?;
    let bytes = read(file)?;
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let text = std::str::from_utf8(line)
        .map_err(|_| Error::usage(format!("the passphrase in {} is no UTF-8", file.display())))?;
    passphrase(text.to_owned())
}

fn passphrase(mut text: String) -> Result<SecretString, Error> {
    if text.is_empty() {
        return Err(Error::usage("an empty passphrase protects nothing"));
    }
    let secret = SecretString::from(text.as_str());
    text.zeroize();
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(recipient: Vec<x25519::Recipient>, passphrase_file: Option<PathBuf>) -> LockArgs {
        LockArgs {
            recipient,
            passphrase_file,
        }
    }

    fn unlock(identity: Option<PathBuf>, passphrase_file: Option<PathBuf>) -> UnlockArgs {
        UnlockArgs {
            identity,
            passphrase_file,
        }
    }

    #[test]
    fn a_file_opens_for_its_recipients_and_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let [mine, other] = ["mine", "other"].map(|name| {
            let identity = x25519::Identity::generate();
            write_plain(&path(name), identity.to_string().expose_secret().as_bytes()).unwrap();
            identity.to_public()
        });
        lock(vec![mine], None).write(&path("a"), b"hunter2").unwrap();
        let locked = std::fs::read(path("a")).unwrap();
        assert!(!locked.windows(7).any(|part| part == b"hunter2"));
        let read = |identity: &str| unlock(Some(path(identity)), None).read(&path("a"));
        assert_eq!(read("mine").unwrap().as_slice(), b"hunter2");
        assert!(read("other").is_err());
        assert!(unlock(None, None).read(&path("a")).is_err());
        assert!(
            lock(vec![other], None).write(&path("a"), b"x").is_err(),
            "it exists"
        );
    }

    #[test]
    fn a_plain_secret_is_read_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write_plain(&path, b"x").unwrap();
        assert_eq!(unlock(None, None).read_either(&path).unwrap().as_slice(), b"x");
        assert!(unlock(None, None).read(&path).is_err(), "it is not encrypted");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(unlock(None, None).read_either(&path).is_err());
    }
}
