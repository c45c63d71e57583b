//! The keys of this machine, for runs without a cluster: a root of its own, and one signing key that it vouches for.
//!
//! Made on first use under `$XDG_DATA_HOME/chimera/keys` (by default `~/.local/share/chimera/keys`), readable by its owner
//! alone. Whatever is wrong with them later is an error: new keys are never made in the place of old ones.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use crypto::kem::DecapsulationKey;
use crypto::trust::{Bundle, TrustedKeys};
use crypto::{KeyPurpose, KeyStatement, SigningKey, Suite};
use jiff::Timestamp;
use zeroize::Zeroizing;

use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::{output, user_folder};

const ROOT: &str = "root.pem";
const SIGNING: &str = "signing.pem";
const BUNDLE: &str = "trust.json";
const SEALING: &str = "sealing.pem";
const SESSION: &str = "session.pem";

/// The key that signs here, and what a verifier needs.
pub struct LocalKeys {
    /// Signs grants and receipts.
    pub signing: SigningKey,
    /// The root of this machine and what it vouches for.
    pub trusted: TrustedKeys,
}

/// The keys of this machine; made when there are none.
pub fn open() -> Result<LocalKeys, Error> {
    let folder = folder()?;
    if !folder.exists() {
        make(&folder).map_err(|cause| broken(&folder, &cause))?;
    }
    read(&folder)
}

/// The trust bundle of this machine, if it has keys.
pub fn bundle() -> Result<Option<Bundle>, Error> {
    // In a container there may be no home, and so no keys.
    let Ok(folder) = folder() else { return Ok(None) };
    if !folder.exists() {
        return Ok(None);
    }
    read_bundle(&folder).map(Some)
}

/// The key with which this machine opens again what it has sealed itself; made when there is none.
pub fn sealing() -> Result<DecapsulationKey, Error> {
    decapsulation(SEALING, "with it this machine opens and rewraps what it seals")
}

/// The key to which streams for this machine are encrypted; made when there is none.
pub fn session() -> Result<DecapsulationKey, Error> {
    decapsulation(SESSION, "with it this machine opens streams that are sent to it")
}

fn decapsulation(name: &str, purpose: &str) -> Result<DecapsulationKey, Error> {
    open()?;
    let path = folder()?.join(name);
    if !path.exists() {
        make_decapsulation(&path, purpose).map_err(|cause| broken(&path, &cause))?;
    }
    let pem = read_private(&path)?;
    DecapsulationKey::from_pkcs8_pem(&pem).map_err(|cause| broken(&path, &cause))
}

/// Makes the file beside its place and links it there: of two that try, one wins, and none sees half of it.
fn make_decapsulation(path: &Path, purpose: &str) -> Result<(), NotMade> {
    let key = DecapsulationKey::generate()?;
    let fresh = path.with_file_name(format!(".key.{}", uuid::Uuid::new_v4().simple()));
    write(&fresh, &key.pkcs8_pem())?;
    let linked = fs::hard_link(&fresh, path);
    fs::remove_file(&fresh)?;
    match linked {
        Ok(()) => {
            output::note(format_args!("made {}: {purpose}", path.display()));
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn folder() -> Result<PathBuf, Error> {
    Ok(user_folder::data()?.join("keys"))
}

/// Why the keys could not be made.
#[derive(Debug, thiserror::Error)]
enum NotMade {
    #[error(transparent)]
    Key(#[from] crypto::key::Error),
    #[error(transparent)]
    Statement(#[from] crypto::key_statement::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Makes all files in a folder beside it, which then takes its name: of two that try, one wins, and none sees half of it.
fn make(folder: &Path) -> Result<(), NotMade> {
    let parent = folder.parent().unwrap_or(folder);
    fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    let root = SigningKey::generate(Suite::MlDsa87)?;
    let signing = SigningKey::generate(Suite::MlDsa87)?;
    let statement = KeyStatement::about(
        signing.verifying_key(),
        KeyPurpose::Signing,
        Timestamp::now(),
        None,
        None,
        0,
    );
    let bundle = Bundle::new(root.verifying_key(), vec![statement.sign(&root)?]);

    let fresh = parent.join(format!(".keys.{}", uuid::Uuid::new_v4().simple()));
    fs::DirBuilder::new().mode(0o700).create(&fresh)?;
    write(&fresh.join(ROOT), &root.pkcs8_pem())?;
    write(&fresh.join(SIGNING), &signing.pkcs8_pem())?;
    write(&fresh.join(BUNDLE), &bundle.to_json())?;
    fs::File::open(&fresh)?.sync_all()?;
    match fs::rename(&fresh, folder) {
        Ok(()) => {
            fs::File::open(parent)?.sync_all()?;
            output::note(format_args!(
                "made the keys of this machine in {}; its root is {}",
                folder.display(),
                root.verifying_key().key_id()
            ));
            Ok(())
        }
        // Another process made them meanwhile.
        Err(_) if folder.join(BUNDLE).exists() => Ok(fs::remove_dir_all(&fresh)?),
        Err(error) => {
            let _ = fs::remove_dir_all(&fresh);
            Err(error.into())
        }
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn read_bundle(folder: &Path) -> Result<Bundle, Error> {
    let path = folder.join(BUNDLE);
    let json = fs::read(&path).map_err(|cause| broken(&path, &cause))?;
    Bundle::from_json(&json).map_err(|cause| broken(&path, &cause))
}

fn read(folder: &Path) -> Result<LocalKeys, Error> {
    let trusted = read_bundle(folder)?
        .verify()
        .map_err(|cause| broken(folder, &cause))?;
    let signing = read_key(&folder.join(SIGNING))?;
    let id = signing.verifying_key().key_id();
    if trusted.key(id, KeyPurpose::Signing).is_none() {
        let message = format!(
            "{SIGNING} in {} is not a key that its {BUNDLE} vouches for",
            folder.display()
        );
        return Err(Error::new(ExitCode::UntrustedKey, message).hint(RECOVER));
    }
    Ok(LocalKeys { signing, trusted })
}

fn read_key(path: &Path) -> Result<SigningKey, Error> {
    SigningKey::from_pkcs8_pem(&read_private(path)?).map_err(|cause| broken(path, &cause))
}

fn read_private(path: &Path) -> Result<Zeroizing<String>, Error> {
    let fail = |cause: &dyn std::error::Error| broken(path, cause);
    let mode = fs::metadata(path)
        .map_err(|cause| fail(&cause))?
        .permissions()
        .mode();
    if mode & 0o077 != 0 {
        return Err(Error::failed(format!(
            "others than its owner may read the key {}",
            path.display()
        ))
        .hint(format!("chmod 600 {}", path.display())));
    }
    Ok(Zeroizing::new(
        fs::read_to_string(path).map_err(|cause| fail(&cause))?,
    ))
}

const RECOVER: &str = "restore the folder from a backup, or move it away: then new keys are made, and receipts of the old ones \
                       verify with the old trust.json (`--trust FILE`)";

fn broken(path: &Path, cause: &dyn std::error::Error) -> Error {
    Error::failed(format!("cannot use the keys of this machine: {}", path.display()))
        .because(cause)
        .hint(RECOVER)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> (tempfile::TempDir, PathBuf) {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("chimera/keys");
        make(&folder).unwrap();
        (home, folder)
    }

    #[test]
    fn keys_are_made_once_and_for_their_owner_alone() {
        let (_home, folder) = made();
        let before = fs::read(folder.join(SIGNING)).unwrap();
        make(&folder).unwrap();
        assert_eq!(fs::read(folder.join(SIGNING)).unwrap(), before);
        for name in [ROOT, SIGNING, BUNDLE] {
            let mode = fs::metadata(folder.join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
        assert_eq!(fs::read_dir(folder.parent().unwrap()).unwrap().count(), 1);
        let bundle = Bundle::from_json(&fs::read(folder.join(BUNDLE)).unwrap()).unwrap();
        let key = read_key(&folder.join(SIGNING)).unwrap();
        let trusted = bundle.verify().unwrap();
        assert!(
            trusted
                .key(key.verifying_key().key_id(), KeyPurpose::Signing)
                .is_some()
        );
    }

    #[test]
    fn keys_that_open_are_made_once_and_for_their_owner_alone() {
        let (_home, folder) = made();
        for name in [SEALING, SESSION] {
            let path = folder.join(name);
            make_decapsulation(&path, "a test").unwrap();
            let before = fs::read(&path).unwrap();
            make_decapsulation(&path, "a test").unwrap();
            assert_eq!(fs::read(&path).unwrap(), before);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            assert!(DecapsulationKey::from_pkcs8_pem(&read_private(&path).unwrap()).is_ok());
        }
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 5);
    }

    #[test]
    fn a_key_that_others_may_read_is_not_used() {
        let (_home, folder) = made();
        let path = folder.join(SIGNING);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(read_key(&path).is_err());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "x").unwrap();
        assert!(read_key(&path).is_err());
    }
}
