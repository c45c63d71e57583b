//! What the API server will accept and refuse: the definitions' schemas and CEL rules, evaluated without a server.

use std::{fs, path::Path};

use serde_json::{Value, json};

/// The schema that the API server holds objects of that kind to.
fn schema(kind: &str) -> Value {
    let definition = api::schema::definitions()
        .into_iter()
        .find(|definition| definition.spec.names.kind == kind)
        .expect("a kind of this crate");
    let validation = definition.spec.versions[0].schema.clone().expect("a schema");
    serde_json::to_value(validation.open_api_v3_schema).expect("a schema is plain data")
}

/// Everything that is wrong with an object, as `path: message`; with `old`, as an update of that one.
fn faults(object: &Value, old: Option<&Value>) -> Vec<String> {
    let schema = schema(object["kind"].as_str().expect("a kind"));
    let validator = jsonschema::validator_for(&schema).expect("the schema is one");
    let mut faults: Vec<_> = validator
        .iter_errors(object)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    if let Err(errors) = kube_cel::Validator::new().validate(&schema, object, old) {
        faults.extend(
            errors
                .as_slice()
                .iter()
                .map(|error| format!("{}: {}", error.field_path, error.message)),
        );
    }
    faults
}

#[expect(clippy::needless_pass_by_value, reason = "callers have no other use for it")]
fn object(kind: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "chimera.dunes.io/v1alpha1",
        "kind": kind,
        "metadata": {"name": "one", "namespace": "team"},
        "spec": spec,
    })
}

fn receipt() -> Value {
    let digest = json!({"sha256": "a".repeat(64), "blake3": "b".repeat(64)});
    object(
        "MuReceipt",
        json!({
            "workflowRef": {"name": "one", "uid": "u", "generation": 1, "attempt": 1},
            "result": "Success",
            "envelope": "{}",
            "algorithm": "ML-DSA-87",
            "keyId": "c".repeat(64),
            "runId": "d".repeat(32),
            "documentDigest": digest,
        }),
    )
}

#[test]
fn objects_in_order_are_accepted() {
    for object in [
        object("MamlWorkflow", json!({"source": {"inline": "---"}})),
        object(
            "MamlWorkflow",
            json!({
                "source": {"configMapRef": {"name": "documents", "key": "a.maml.md"}},
                "inputs": {"any": [1, {"thing": null}]},
                "actAs": "agent://alpha.beta-1",
                "role": "crypto",
                "headSelector": {"matchLabels": {"tier": "fast"}},
                "timeoutSeconds": 604_800,
                "infrastructureRetries": 0,
                "ttlSecondsAfterFinished": 0,
                "signingPolicyRef": {"name": "payroll"},
            }),
        ),
        object("ChimeraHead", json!({"role": "quantum"})),
        object(
            "ChimeraHead",
            json!({
                "role": "inference", "replicas": 0, "spares": 16, "image": "registry.test:5000/a/b@sha256:00",
                "gpu": {"count": 8, "resourceName": "nvidia.com/mig-1g.10gb"},
                "workers": {"warm": 64, "preload": ["torch", "torch.nn"]},
                "resources": {"limits": {"cpu": 2, "memory": "1.5Gi", "ephemeral-storage": "1e9"}},
                "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
                "topologySpread": [{"topologyKey": "kubernetes.io/hostname"}],
                "terminationGracePeriodSeconds": 86_400,
            }),
        ),
        object(
            "ChimeraHead",
            json!({"role": "inference", "runtimeClassName": "nvidia", "gpu": {"runtimeClassName": "nvidia"}}),
        ),
        object(
            "ChimeraHead",
            json!({"role": "inference", "runtimeClassName": "gvisor", "gpu": {}}),
        ),
        object(
            "KeyRotationPolicy",
            json!({"purpose": "Signing", "algorithm": "ML-DSA-87"}),
        ),
        object(
            "KeyRotationPolicy",
            json!({
                "purpose": "Session", "algorithm": "AES-256-GCM-L4",
                "rotation": {"interval": "60s", "maxBytes": 100_000_000, "prefetch": "30s", "overlap": "60s"},
            }),
        ),
        receipt(),
    ] {
        assert_eq!(faults(&object, None), Vec::<String>::new(), "{object:#}");
    }
}

#[test]
fn objects_out_of_order_are_refused_with_their_place() {
    let workflow = |spec| object("MamlWorkflow", spec);
    let head = |spec| object("ChimeraHead", spec);
    let policy = |rotation| {
        let spec = json!({"purpose": "Signing", "algorithm": "ML-DSA-87", "rotation": rotation});
        object("KeyRotationPolicy", spec)
    };
    let both = json!({"source": {"inline": "a", "configMapRef": {"name": "a", "key": "b"}}});
    let inline = json!({"inline": "a"});
    for (object, expected) in [
        (workflow(json!({})), "source"),
        (
            workflow(json!({"source": {}})),
            "exactly one of inline and configMapRef",
        ),
        (workflow(both), "exactly one of inline and configMapRef"),
        (
            workflow(json!({"source": {"inline": "a".repeat(1_048_577)}})),
            "source/inline",
        ),
        (
            workflow(json!({"source": {"configMapRef": {"name": "../a", "key": "b"}}})),
            "configMapRef/name",
        ),
        (workflow(json!({"source": inline, "inputs": [1]})), "inputs"),
        (workflow(json!({"source": inline, "actAs": "alpha"})), "actAs"),
        (workflow(json!({"source": inline, "role": "cook"})), "role"),
        (
            workflow(json!({"source": inline, "timeoutSeconds": 0})),
            "timeoutSeconds",
        ),
        (
            workflow(json!({"source": inline, "infrastructureRetries": 21})),
            "infrastructureRetries",
        ),
        (head(json!({})), "role"),
        (head(json!({"role": "quantum", "replicas": 65})), "replicas"),
        (
            head(json!({"role": "quantum", "terminationGracePeriodSeconds": 9})),
            "terminationGracePeriodSeconds",
        ),
        (
            head(
                json!({"role": "inference", "runtimeClassName": "gvisor", "gpu": {"runtimeClassName": "nvidia"}}),
            ),
            "name different RuntimeClasses",
        ),
        (head(json!({"role": "quantum", "gpu": {"count": 0}})), "gpu/count"),
        (
            head(json!({"role": "quantum", "gpu": {"resourceName": "gpu"}})),
            "gpu/resourceName",
        ),
        (
            head(json!({"role": "quantum", "workers": {"preload": ["os; rm"]}})),
            "preload/0",
        ),
        (
            head(json!({"role": "quantum", "health": {"heartbeatMillis": 1}})),
            "heartbeatMillis",
        ),
        (
            head(json!({"role": "quantum", "resources": {"limits": {"cpu": "much"}}})),
            "limits/cpu",
        ),
        (policy(json!({"interval": "1d"})), "rotation/interval"),
        (
            policy(json!({"interval": "10ms"})),
            "interval must be at least 1s",
        ),
        (
            policy(json!({"interval": "1h", "prefetch": "60m"})),
            "prefetch must be shorter",
        ),
        (
            policy(json!({"interval": "1h", "overlap": "61m"})),
            "overlap must not be longer",
        ),
        (policy(json!({"maxUses": 0})), "maxUses"),
        (
            object(
                "KeyRotationPolicy",
                json!({"purpose": "Signing", "algorithm": "ML-KEM-1024"}),
            ),
            "purpose Signing needs",
        ),
        (
            object(
                "KeyRotationPolicy",
                json!({"purpose": "Session", "algorithm": "ML-DSA-87"}),
            ),
            "purpose Session needs",
        ),
    ] {
        let faults = faults(&object, None);
        assert!(
            faults.iter().any(|fault| fault.contains(expected)),
            "{expected} in {faults:?}"
        );
    }
}

#[test]
fn what_must_not_change_cannot() {
    let changed = |object: &Value, pointer: &str, value: Value| {
        let mut new = object.clone();
        *new.pointer_mut(pointer).expect("a field") = value;
        faults(&new, Some(object))
    };
    let receipt = receipt();
    assert_eq!(faults(&receipt, Some(&receipt)), Vec::<String>::new());
    for (pointer, value) in [
        ("/spec/result", json!("Error")),
        ("/spec/envelope", json!("{ }")),
        ("/spec/workflowRef/attempt", json!(2)),
    ] {
        let faults = changed(&receipt, pointer, value);
        assert!(
            faults
                .iter()
                .any(|fault| fault.contains("a receipt cannot be changed")),
            "{faults:?}"
        );
    }
    let head = object("ChimeraHead", json!({"role": "quantum", "replicas": 1}));
    assert_eq!(changed(&head, "/spec/replicas", json!(2)), Vec::<String>::new());
    assert_eq!(changed(&head, "/spec/role", json!("crypto")).len(), 1);
    let policy = object(
        "KeyRotationPolicy",
        json!({"purpose": "Signing", "algorithm": "ML-DSA-87"}),
    );
    assert!(!changed(&policy, "/spec/purpose", json!("Sealing")).is_empty());
}

#[test]
fn every_sample_passes_the_rules() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../manifests/samples");
    let mut checked = 0;
    for entry in fs::read_dir(folder).expect("the samples") {
        let path = entry.expect("a sample").path();
        let Ok(text) = fs::read_to_string(&path) else {
            continue;
        };
        let objects: Vec<Value> = serde_saphyr::from_multiple(&text).expect("YAML");
        for object in objects.iter().filter(|object| object["kind"] != "ConfigMap") {
            assert_eq!(faults(object, None), Vec::<String>::new(), "{}", path.display());
            checked += 1;
        }
    }
    assert!(checked >= 10, "{checked} objects");
}

#[test]
fn every_field_is_documented() {
    fn undocumented(schema: &Value, at: &str, found: &mut Vec<String>) {
        let Some(properties) = schema["properties"].as_object() else {
            let items = schema.get("items").or_else(|| schema.get("additionalProperties"));
            return items.into_iter().for_each(|items| undocumented(items, at, found));
        };
        for (name, property) in properties {
            let at = format!("{at}.{name}");
            let description = property["description"].as_str().unwrap_or_default();
            if !description.ends_with('.') && !description.ends_with('`') {
                found.push(format!("{at}: {description:?}"));
            }
            undocumented(property, &at, found);
        }
    }
    for kind in ["MamlWorkflow", "ChimeraHead", "KeyRotationPolicy", "MuReceipt"] {
        let mut found = Vec::new();
        undocumented(&schema(kind), kind, &mut found);
        assert_eq!(found, Vec::<String>::new());
    }
}
