//! The writes. Each can be repeated: server-side apply of the full intent, creation by a deterministic name, deletion
//! by UID. One field manager for spec objects, another for status.

use api::names;
use k8s_openapi::NamespaceResourceScope;
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt::Debug;

use crate::client::{CallError, call};

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

/// Creates an object whose name must be free. 409 when it is not.
#[expect(
    clippy::disallowed_methods,
    reason = "the API server decides who is first: that is the point"
)]
pub async fn create<K: Namespaced>(client: &Client, object: &K) -> Result<K, CallError> {
    let params = PostParams {
        field_manager: Some(names::FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    call("create an object", api_of(client, object).create(&params, object)).await
}

/// Applies the status of an object. With `resource_version`, only if the object has not changed since.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place where status is written"
)]
pub async fn apply_status<K: Namespaced, S: Serialize + Debug>(
    client: &Client,
    object: &K,
    status: &S,
    resource_version: Option<&str>,
) -> Result<K, CallError> {
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
    let api = api_of(client, object);
    call(
        "write a status",
        api.patch_status(name_of(object), &params, &Patch::Apply(&intent)),
    )
    .await
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
