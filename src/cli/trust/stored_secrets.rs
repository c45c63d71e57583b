//! The Secrets of a backup as JSON: what the encrypted file holds. No `Debug`.

use std::collections::BTreeMap;

use api::names;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use crypto::{SigningKey, Suite};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// The `_type` of a backup.
const TYPE: &str = "https://chimera.dunes.io/backup/v1";

/// Why a file holds no backup that can be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not JSON of this shape. The parser's own words could quote what it read.
    #[error("it is no backup, or damaged")]
    Format,
    /// A `_type` of another version.
    #[error("a backup's _type must be `{TYPE}`, found `{0}`")]
    Type(String),
    /// The root's Secret holds no root.
    #[error("Secret {} holds no root", names::ROOT_SECRET)]
    NoRoot,
}

/// The Secrets of an operator.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StoredSecrets {
    #[serde(rename = "_type")]
    type_: String,
    /// When they were read.
    pub made_at: Timestamp,
    /// One by one.
    pub secrets: Vec<StoredSecret>,
}

/// One Secret.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StoredSecret {
    /// Its name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    type_: String,
    /// Its data in base64.
    data: BTreeMap<String, Zeroizing<String>>,
}

impl StoredSecrets {
    /// What was read at `now`.
    pub fn of(secrets: Vec<StoredSecret>, made_at: Timestamp) -> Self {
        Self {
            type_: TYPE.to_owned(),
            made_at,
            secrets,
        }
    }

    /// The JSON, to be encrypted.
    pub fn to_json(&self) -> Result<Zeroizing<Vec<u8>>, serde_json::Error> {
        let texts = self.secrets.iter().flat_map(|secret| secret.data.values());
        let room = texts.map(|text| text.len() + 512).sum::<usize>() + 4096;
        // A buffer that grew would leave copies behind.
        let mut json = Zeroizing::new(Vec::with_capacity(room));
        serde_json::to_writer(&mut *json, self)?;
        Ok(json)
    }

    /// Reads a backup strictly.
    pub fn from_json(json: &[u8]) -> Result<Self, Error> {
        let stored: Self = serde_json::from_slice(json).map_err(|_| Error::Format)?;
        if stored.type_ != TYPE {
            return Err(Error::Type(stored.type_));
        }
        let sound = |secret: &StoredSecret| secret.to_data().is_some();
        if stored.secrets.iter().all(sound) {
            Ok(stored)
        } else {
            Err(Error::Format)
        }
    }

    /// The root, if the backup has it.
    pub fn root(&self) -> Result<Option<SigningKey>, Error> {
        let mut secrets = self.secrets.iter();
        let Some(secret) = secrets.find(|secret| secret.name == names::ROOT_SECRET) else {
            return Ok(None);
        };
        let seed = secret.data.get(names::ROOT_SEED_KEY).ok_or(Error::NoRoot)?;
        let seed = STANDARD.decode(seed.as_bytes()).map_err(|_| Error::NoRoot)?;
        let seed = Zeroizing::new(seed);
        SigningKey::from_seed(Suite::MlDsa87, &seed)
            .map(Some)
            .map_err(|_| Error::NoRoot)
    }
}

impl StoredSecret {
    /// A copy of a Secret of the cluster.
    pub fn of(name: &str, secret: &Secret) -> Self {
        let data = secret.data.iter().flatten();
        Self {
            name: name.to_owned(),
            type_: secret.type_.clone().unwrap_or_default(),
            data: data
                .map(|(key, bytes)| (key.clone(), Zeroizing::new(STANDARD.encode(&bytes.0))))
                .collect(),
        }
    }

    /// The Secret to be applied.
    pub fn to_secret(&self, namespace: &str) -> Secret {
        Secret {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                namespace: Some(namespace.to_owned()),
                labels: Some(BTreeMap::from([(
                    names::MANAGED_BY_LABEL.to_owned(),
                    names::MANAGED_BY.to_owned(),
                )])),
                ..ObjectMeta::default()
            },
            type_: Some(self.type_.clone()),
            data: self.to_data(),
            ..Secret::default()
        }
    }

    /// Whether a Secret of the cluster holds the same.
    pub fn is_in(&self, secret: &Secret) -> bool {
        secret.data == self.to_data()
    }

    fn to_data(&self) -> Option<BTreeMap<String, ByteString>> {
        let data = self.data.iter();
        data.map(|(key, text)| Some((key.clone(), ByteString(STANDARD.decode(text.as_bytes()).ok()?))))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(seed: &[u8]) -> StoredSecrets {
        let secret = Secret {
            type_: Some("chimera.dunes.io/root".to_owned()),
            data: Some(BTreeMap::from([(
                names::ROOT_SEED_KEY.to_owned(),
                ByteString(seed.to_vec()),
            )])),
            ..Secret::default()
        };
        let one = StoredSecret::of(names::ROOT_SECRET, &secret);
        assert!(one.is_in(&secret) && !one.is_in(&Secret::default()));
        StoredSecrets::of(vec![one], Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_backup_comes_back_as_the_secrets_that_it_was_made_of() {
        let json = stored(&[1; 32]).to_json().unwrap();
        let back = StoredSecrets::from_json(&json).unwrap();
        let root = SigningKey::from_seed(Suite::MlDsa87, &[1; 32]).unwrap();
        assert_eq!(
            back.root().unwrap().unwrap().verifying_key(),
            root.verifying_key()
        );
        let secret = back.secrets[0].to_secret("ops");
        assert!(back.secrets[0].is_in(&secret));
        assert_eq!(secret.metadata.namespace.as_deref(), Some("ops"));
        assert!(json.capacity() >= json.len());
    }

    #[test]
    fn what_is_no_backup_is_refused_without_quoting_it() {
        let json = stored(&[1; 32]).to_json().unwrap();
        let text = std::str::from_utf8(&json).unwrap();
        for bad in [
            "hunter2".to_owned(),
            text.replace("backup/v1", "backup/v2"),
            text.replace("\"secrets\"", "\"more\":1,\"secrets\""),
            text.replace("AQEB", "hunter2!"),
        ] {
            let error = StoredSecrets::from_json(bad.as_bytes()).err().expect("refused");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        assert!(matches!(stored(&[1; 31]).root(), Err(Error::NoRoot)));
    }
}
