//! A namespace for each test. It enforces Pod Security `restricted`, goes when the test passes, and stays, dumped, when
//! the test fails.

use std::{collections::BTreeMap, fmt::Debug, panic::AssertUnwindSafe};

use futures::FutureExt as _;
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{Namespace as Object, ServiceAccount},
};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, ObjectMeta, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};

use crate::{cluster, dump, wait};

/// Label of all namespaces that tests make.
pub const LABEL: &str = "chimera.dunes.io/e2e";

/// The namespace of one test, and the administrator's client.
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// The administrator's client.
    pub client: Client,
}

/// Runs a test in a namespace of its own.
pub async fn in_namespace(stem: &str, test: impl AsyncFnOnce(&Namespace)) {
    let space = Namespace::create(cluster::client().await, stem).await;
    match AssertUnwindSafe(Box::pin(test(&space))).catch_unwind().await {
        Ok(()) => space.delete().await,
        Err(panic) => {
            dump::namespace(&space.client, &space.name).await;
            std::panic::resume_unwind(panic)
        }
    }
}

impl Namespace {
    /// Makes a namespace `e2e-STEM`, or the first free of `e2e-STEM-2`, `e2e-STEM-3` and so on: the API server decides
    /// which name is free, so that neither chance nor a clock is needed.
    pub async fn create(client: Client, stem: &str) -> Self {
        let later = (2..).map(|count| format!("e2e-{stem}-{count}"));
        for name in std::iter::once(format!("e2e-{stem}")).chain(later) {
            let space = Self {
                name,
                client: client.clone(),
            };
            if space.try_create().await {
                return space;
            }
        }
        unreachable!("there is no end to numbers")
    }

    /// Deletes the namespace and makes it again under the same name: for everything that remembers names.
    pub async fn recreate(&self) {
        self.delete().await;
        wait::until_gone(&Api::<Object>::all(self.client.clone()), &self.name).await;
        assert!(
            self.try_create().await,
            "somebody else made namespace {}",
            self.name
        );
    }

    /// Creates it, unless there is one of that name.
    async fn try_create(&self) -> bool {
        let namespaces: Api<Object> = Api::all(self.client.clone());
        match namespaces
            .create(&PostParams::default(), &restricted(&self.name))
            .await
        {
            Ok(_) => {
                // Pods are refused before it is there.
                wait::until::<ServiceAccount>(&self.api(), "default", "the default service account", |_| {
                    true
                })
                .await;
                true
            }
            Err(kube::Error::Api(status)) if status.is_already_exists() => false,
            Err(error) => panic!("create namespace {}: {error}", self.name),
        }
    }

    /// The objects of one kind in the namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Creates an object here.
    pub async fn create_object<K>(&self, object: &K) -> K
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + Serialize
            + DeserializeOwned,
    {
        let name = object.meta().name.clone().unwrap_or_default();
        let created = self.api().create(&PostParams::default(), object).await;
        created.unwrap_or_else(|error| panic!("create {} {name}: {error}", K::kind(&())))
    }

    /// Asks for the end of the namespace and does not wait for it: the next test has another.
    pub async fn delete(&self) {
        let namespaces: Api<Object> = Api::all(self.client.clone());
        match namespaces.delete(&self.name, &DeleteParams::background()).await {
            Ok(_) => {}
            // The test has deleted it itself.
            Err(kube::Error::Api(status)) if status.is_not_found() => {}
            Err(error) => panic!("delete namespace {}: {error}", self.name),
        }
    }
}

fn restricted(name: &str) -> Object {
    let labels = [
        (LABEL, "true"),
        ("pod-security.kubernetes.io/enforce", "restricted"),
        ("pod-security.kubernetes.io/enforce-version", "latest"),
    ];
    Object {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(
                labels
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
                    .into_iter()
                    .collect::<BTreeMap<_, _>>(),
            ),
            ..ObjectMeta::default()
        },
        ..Object::default()
    }
}
