//! The TLS identity of the heads of a namespace: a Secret of a fixed name, which their pods mount.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use api::names;
use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::Api;

use crate::{
    apply::{apply, apply_new},
    certificates::{Authority, CertificateError, Pair, renew_after},
    client::{CallError, call},
    clock,
    context::Context,
};

/// Annotation of the identity: when it is replaced.
const RENEW_AFTER: &str = "chimera.dunes.io/renew-after";

/// An identity or the authority could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The API server refused.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A certificate could not be made.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The Secret of the authority lacks a key.
    #[error("Secret {secret} lacks {key}; restore it, or delete it to begin with a new authority")]
    Incomplete {
        /// Name of the Secret.
        secret: &'static str,
        /// What it lacks.
        key: &'static str,
    },
    /// No root to pin yet.
    #[error("no trust bundle is published yet; see `kubectl get krp`")]
    NoTrust,
}

/// Identities that are known to be in order, by namespace: until when, and of which root.
#[derive(Default)]
pub struct Identities(Mutex<BTreeMap<String, (Timestamp, String)>>);

/// Reads the certificate authority, or makes it.
pub async fn ensure_authority(
    client: &kube::Client,
    namespace: &str,
    fencing_token: u64,
) -> Result<Authority, IdentityError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let mut secret = call("read the certificate authority", api.get_opt(names::CA_SECRET)).await?;
    if secret.is_none() {
        let Pair {
            certificate,
            private_key,
        } = Authority::generate(clock::now())?;
        let new = Secret {
            metadata: managed(names::CA_SECRET, namespace),
            immutable: Some(true),
            type_: Some("kubernetes.io/tls".to_owned()),
            data: Some(data([
                (names::TLS_CERTIFICATE_KEY, certificate.as_bytes()),
                (names::TLS_PRIVATE_KEY_KEY, private_key.as_bytes()),
            ])),
            ..Secret::default()
        };
        let manager = format!("{}-{fencing_token}", names::FIELD_MANAGER);
        secret = Some(apply_new(client, &new, &manager).await?);
    }
    let data = secret.and_then(|secret| secret.data).unwrap_or_default();
    let text = |key: &'static str| {
        let incomplete = || IdentityError::Incomplete {
            secret: names::CA_SECRET,
            key,
        };
        let bytes = data.get(key).ok_or_else(incomplete)?;
        std::str::from_utf8(&bytes.0).map_err(|_| incomplete())
    };
    Ok(Authority::from_pem(
        text(names::TLS_CERTIFICATE_KEY)?,
        text(names::TLS_PRIVATE_KEY_KEY)?,
    )?)
}

/// Makes sure that the heads of a namespace have an identity that lasts and that pins the published root. What is
/// remembered counts for a `settled` head only: one whose pods do not run may lack a Secret that was deleted.
pub async fn ensure_identity(context: &Context, namespace: &str, settled: bool) -> Result<(), IdentityError> {
    let now = clock::now();
    let trust = context.keyring.trust().ok_or(IdentityError::NoTrust)?;
    let known = context
        .identities
        .0
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get(namespace)
        .cloned();
    if settled && known.is_some_and(|(until, root)| now < until && root == trust.root_pem) {
        return Ok(());
    }
    let api: Api<Secret> = Api::namespaced(context.client.clone(), namespace);
    let stored = call(
        "read the heads' identity",
        api.get_opt(names::HEAD_IDENTITY_SECRET),
    )
    .await?;
    let good_until = stored
        .as_ref()
        .and_then(|secret| lasts_until(secret, &context.authority, &trust.root_pem, now));
    let until = if let Some(until) = good_until {
        until
    } else {
        let until = renew_after(now);
        let pair = context.authority.issue_server(namespace, now)?;
        apply(
            &context.client,
            &build_identity(namespace, &pair, &context.authority, &trust.root_pem, until),
        )
        .await?;
        until
    };
    let mut identities = context
        .identities
        .0
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    identities.insert(namespace.to_owned(), (until, trust.root_pem.clone()));
    Ok(())
}

/// Until when a stored identity is good; `None` when it must be replaced now.
fn lasts_until(secret: &Secret, authority: &Authority, root_pem: &str, now: Timestamp) -> Option<Timestamp> {
    let data = secret.data.as_ref()?;
    let is = |key: &str, text: &str| data.get(key).is_some_and(|bytes| bytes.0 == text.as_bytes());
    let until: Timestamp = secret
        .metadata
        .annotations
        .as_ref()?
        .get(RENEW_AFTER)?
        .parse()
        .ok()?;
    let complete =
        data.contains_key(names::TLS_CERTIFICATE_KEY) && data.contains_key(names::TLS_PRIVATE_KEY_KEY);
    let current = is(names::TLS_CA_KEY, authority.certificate()) && is(names::TRUST_ROOT_KEY, root_pem);
    (complete && current && now < until).then_some(until)
}

fn build_identity(
    namespace: &str,
    pair: &Pair,
    authority: &Authority,
    root_pem: &str,
    until: Timestamp,
) -> Secret {
    let mut metadata = managed(names::HEAD_IDENTITY_SECRET, namespace);
    metadata.annotations = Some(BTreeMap::from([(RENEW_AFTER.to_owned(), until.to_string())]));
    Secret {
        metadata,
        data: Some(data([
            (names::TLS_CERTIFICATE_KEY, pair.certificate.as_bytes()),
            (names::TLS_PRIVATE_KEY_KEY, pair.private_key.as_bytes()),
            (names::TLS_CA_KEY, authority.certificate().as_bytes()),
            (names::TRUST_ROOT_KEY, root_pem.as_bytes()),
        ])),
        ..Secret::default()
    }
}

/// Metadata of an object of the operator's own.
pub fn managed(name: &str, namespace: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        labels: Some(BTreeMap::from([(
            names::MANAGED_BY_LABEL.to_owned(),
            names::MANAGED_BY.to_owned(),
        )])),
        ..ObjectMeta::default()
    }
}

/// The data of a Secret.
pub fn data<'a>(entries: impl IntoIterator<Item = (&'static str, &'a [u8])>) -> BTreeMap<String, ByteString> {
    entries
        .into_iter()
        .map(|(key, bytes)| (key.to_owned(), ByteString(bytes.to_vec())))
        .collect()
}
