//! The four kinds as users meet them: columns, documentation, short names, scale.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the answer")]

use api::{ChimeraHead, condition::READY, reasons};
use e2e::{cluster, heads, in_namespace, wait};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde::Deserialize;
use serde_json::json;

const KINDS: [(&str, &str, &str); 4] = [
    (
        "mamlworkflows",
        "mamlwf",
        "READY REASON HEAD GPU RECEIPT DURATION AGE",
    ),
    (
        "chimeraheads",
        "head",
        "ROLE READY DESIRED SPARE GPU REGENERATIONS AGE",
    ),
    (
        "keyrotationpolicies",
        "krp",
        "PURPOSE ALGORITHM KEY READY ROTATED NEXT AGE",
    ),
    (
        "mureceipts",
        "mur",
        "WORKFLOW RESULT VERIFIED ALG GPU-SECONDS AGE",
    ),
];

async fn definition(plural: &str) -> CustomResourceDefinition {
    let definitions: Api<CustomResourceDefinition> = Api::all(cluster::client().await);
    definitions
        .get(&format!("{plural}.chimera.dunes.io"))
        .await
        .unwrap()
}

/// What the API server answers to `kubectl get`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Table {
    column_definitions: Vec<Column>,
}

#[derive(Deserialize)]
struct Column {
    name: String,
    #[serde(default)]
    description: String,
    priority: i32,
}

#[tokio::test]
async fn kubectl_get_shows_the_columns_of_the_design() {
    let client = cluster::client().await;
    for (plural, _, columns) in KINDS {
        let request = http::Request::get(format!("/apis/chimera.dunes.io/v1alpha1/{plural}?limit=1"))
            .header("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
            .body(Vec::new())
            .unwrap();
        let table: Table = client.request(request).await.unwrap();
        let shown: Vec<_> = table
            .column_definitions
            .iter()
            .filter(|column| column.priority == 0)
            .collect();
        let names: Vec<_> = shown.iter().map(|column| column.name.to_uppercase()).collect();
        assert_eq!(names.join(" "), format!("NAME {columns}"), "{plural}");
        assert!(
            shown.iter().all(|column| !column.description.is_empty()),
            "{plural}"
        );
    }
}

#[tokio::test]
async fn kinds_are_found_by_their_short_names_and_their_category() {
    for (plural, short, _) in KINDS {
        let spec = definition(plural).await.spec;
        assert_eq!(spec.names.short_names, Some(vec![short.to_owned()]));
        assert_eq!(spec.names.categories, Some(vec!["chimera".to_owned()]));
        assert_eq!(spec.scope, "Namespaced");
    }
    let answer = e2e::cli::kubectl(&["get", "mamlwf,head,krp,mur,chimera", "-A"]).await;
    assert_eq!(answer.code, 0, "{}", answer.stderr);
}

/// Paths of the members without a description. Schemas of items and of maps are described by the member that has them.
fn undocumented(schema: &JSONSchemaProps, path: &str, missing: &mut Vec<String>) {
    for (name, member) in schema.properties.iter().flatten() {
        let path = format!("{path}.{name}");
        if member
            .description
            .as_ref()
            .is_none_or(|text| text.trim().is_empty())
        {
            missing.push(path.clone());
        }
        undocumented(member, &path, missing);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items {
        undocumented(items, &format!("{path}[]"), missing);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &schema.additional_properties {
        undocumented(values, &format!("{path}[*]"), missing);
    }
}

#[tokio::test]
async fn kubectl_explain_has_a_word_on_every_field() {
    for (plural, ..) in KINDS {
        for version in definition(plural).await.spec.versions {
            let schema = version.schema.unwrap().open_api_v3_schema.unwrap();
            assert!(
                schema.description.as_ref().is_some_and(|text| text.len() > 40),
                "{plural}"
            );
            let mut missing = Vec::new();
            for part in ["spec", "status"] {
                let member = &schema.properties.as_ref().unwrap()[part];
                if member.description.is_none() {
                    missing.push(part.to_owned());
                }
                undocumented(member, part, &mut missing);
            }
            assert!(missing.is_empty(), "{plural}: {missing:?}");
        }
    }
    let answer = e2e::cli::kubectl(&["explain", "mamlworkflow.spec", "--recursive"]).await;
    assert_eq!(answer.code, 0, "{}", answer.stderr);
    assert!(
        answer.stdout.contains("infrastructureRetries"),
        "{}",
        answer.stdout
    );
}

#[tokio::test]
async fn definitions_are_small_enough_to_be_applied() {
    for (plural, ..) in KINDS {
        let mut definition = definition(plural).await;
        definition.metadata.managed_fields = None;
        let size = serde_json::to_vec(&definition).unwrap().len();
        assert!(size < 200_000, "{plural}: {size} bytes");
    }
}

#[tokio::test]
async fn a_head_is_scaled_by_its_subresource() {
    in_namespace("scale", async |space| {
        heads::start(space, heads::small("scaled")).await;
        let api = space.api::<ChimeraHead>();
        let scale = api.get_scale("scaled").await.unwrap();
        let status = scale.status.unwrap();
        assert_eq!((scale.spec.unwrap().replicas, status.replicas), (Some(1), 1));
        assert!(
            status
                .selector
                .is_some_and(|selector| selector.contains("chimera.dunes.io/head=scaled"))
        );
        for replicas in [2, 1] {
            let change = Patch::Merge(json!({"spec": {"replicas": replicas}}));
            api.patch_scale("scaled", &PatchParams::default(), &change)
                .await
                .unwrap();
            let head = heads::ready(space, "scaled").await;
            assert_eq!(head.status.unwrap().ready_replicas, replicas);
            assert_eq!(
                api.get_scale("scaled").await.unwrap().status.unwrap().replicas,
                replicas
            );
        }
        let change = Patch::Merge(json!({"spec": {"replicas": 0}}));
        api.patch_scale("scaled", &PatchParams::default(), &change)
            .await
            .unwrap();
        wait::until(&api, "scaled", "it says that it has no pods", |head| {
            let status = head.status.clone().unwrap_or_default();
            let ready = api::condition::find(&status.conditions, READY);
            status.ready_replicas == 0 && ready.is_some_and(|ready| ready.reason == reasons::SCALED_TO_ZERO)
        })
        .await;
        assert!(heads::pods(space, "scaled").await.is_empty());
    })
    .await;
}
