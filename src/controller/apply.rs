//! The writes. Each can be repeated: server-side apply of the full intent, creation by a deterministic name, deletion
//! by UID. One field manager for spec objects, another for status.

use api::names;
use http::{HeaderValue, header};
use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    core::{PartialObjectMeta, Request},
};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;

use crate::client::{CallError, call};

/// <https://kubernetes.io/docs/reference/using-api/api-concepts/#receiving-resources-as-partialobjectmetadata>
const METADATA_ONLY: HeaderValue =
    HeaderValue::from_static("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1");

/// A kind of this process's own, in a namespace.
pub trait Namespaced:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Serialize
{
}

impl<K> Namespaced for K where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned
        + Serialize
{
}

/// The API for an object's kind in its namespace.
pub fn api_of<K: Namespaced>(client: &Client, object: &K) -> Api<K> {
    let namespace = object.meta().namespace.as_deref().unwrap_or_default();
    Api::namespaced(client.clone(), namespace)
}

fn name_of<K: Resource>(object: &K) -> &str {
    object.meta().name.as_deref().unwrap_or_default()
}

/// Applies an object that this operator owns. It takes over fields that others wrote.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place where spec objects are applied"
)]
pub async fn apply<K: Namespaced>(client: &Client, object: &K) -> Result<K, CallError> {
    let params = PatchParams::apply(names::FIELD_MANAGER).force();
    call(
        "apply an object",
        api_of(client, object).patch(name_of(object), &params, &Patch::Apply(object)),
    )
    .await
}

/// Applies an object under a field manager of its own and without force: if another process has made one with other
/// contents, that is a conflict. A POST would say the same, but RBAC cannot limit a POST to a name.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place where secrets are made"
)]
pub async fn apply_new<K: Namespaced>(client: &Client, object: &K, manager: &str) -> Result<K, CallError> {
    let params = PatchParams::apply(manager);
    call(
        "make an object",
        api_of(client, object).patch(name_of(object), &params, &Patch::Apply(object)),
    )
    .await
}

/// Creates an object whose name must be free. 409 when it is not. What was made, without its contents.
pub async fn create<K: Namespaced>(client: &Client, object: &K) -> Result<PartialObjectMeta<K>, CallError> {
    let params = PostParams {
        field_manager: Some(names::FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    call("create an object", async {
        let body = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
        let request = Request::new(api_of(client, object).resource_url()).create(&params, body);
        send(client, request).await
    })
    .await
}

/// Applies the status of an object. With `resource_version`, only if the object has not changed since. What was written,
/// without its contents.
pub async fn apply_status<K: Namespaced, S: Serialize + Debug>(
    client: &Client,
    object: &K,
    status: &S,
    resource_version: Option<&str>,
) -> Result<PartialObjectMeta<K>, CallError> {
    #[derive(Debug, Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata<'a> {
        name: &'a str,
        namespace: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        uid: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        resource_version: Option<&'a str>,
    }
    #[derive(Debug, Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Intent<'a, S> {
        api_version: String,
        kind: String,
        metadata: Metadata<'a>,
        status: &'a S,
    }
    let meta = object.meta();
    let intent = Intent {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        metadata: Metadata {
            name: name_of(object),
            namespace: meta.namespace.as_deref(),
            // Never the status of an object that was deleted and made again under the same name.
            uid: meta.uid.as_deref(),
            resource_version,
        },
        status,
    };
    let params = PatchParams::apply(names::STATUS_FIELD_MANAGER).force();
    call("write a status", async {
        let request = Request::new(api_of(client, object).resource_url());
        let request = request.patch_subresource("status", name_of(object), &params, &Patch::Apply(&intent));
        send(client, request).await
    })
    .await
}

/// Sends a write, and asks for the metadata alone of what came of it: nobody here reads the rest, and the API server need
/// not encode a receipt of 50 kB once more.
async fn send<K: Namespaced>(
    client: &Client,
    request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
) -> Result<PartialObjectMeta<K>, kube::Error> {
    let mut request = request.map_err(kube::Error::BuildRequest)?;
    request.headers_mut().insert(header::ACCEPT, METADATA_ONLY);
    client.request(request).await
}

/// Sets one label of an object, if it is still the one with this UID.
#[expect(
    clippy::disallowed_methods,
    reason = "one label of a pod whose other fields are not to be touched"
)]
pub async fn label<K: Namespaced>(
    api: &Api<K>,
    name: &str,
    uid: &str,
    label: &str,
    value: &str,
) -> Result<(), CallError> {
    let patch = serde_json::json!({"metadata": {"uid": uid, "labels": {label: value}}});
    call(
        "label an object",
        api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)),
    )
    .await?;
    Ok(())
}

/// Deletes the object with this UID, and no other of its name. Nothing to delete is no error.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place where objects are deleted"
)]
pub async fn delete<K: Namespaced>(api: &Api<K>, name: &str, uid: &str) -> Result<(), CallError> {
    let preconditions = Preconditions {
        uid: Some(uid.to_owned()),
        resource_version: None,
    };
    let params = DeleteParams {
        preconditions: Some(preconditions),
        ..DeleteParams::background()
    };
    match call("delete an object", api.delete(name, &params)).await {
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        other => other.map(|_| ()),
    }
}
