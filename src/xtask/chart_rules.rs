//! Rules that the rendered chart keeps whatever the values: who may do what, and how pods are locked up.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use api::{ChimeraHead, KeyRotationPolicy, names};
use serde_json::Value;

const CONTROLLER: &str = "chimera-controller";
/// Roles that must name every page that the trust bundle may have.
const PAGED_ROLES: [&str; 2] = ["/chimera-controller-own", "/chimera-trust-reader"];

/// What the rendered objects break, as sentences; empty when all is well.
pub fn violations(manifests: &str) -> Result<Vec<String>> {
    let objects = objects(manifests)?;
    let mut violations = Vec::new();
    let mut names = BTreeSet::new();
    for object in &objects {
        let name = title(object);
        if !names.insert(name.clone()) {
            violations.push(format!("{name} is rendered twice"));
        }
        for rule in items(object, "/rules") {
            check_rule(&name, rule, &mut violations);
        }
        if PAGED_ROLES.iter().any(|role| name.ends_with(role)) {
            check_pages(&name, object, &mut violations);
        }
        if let Some(pod) = pod(object) {
            check_pod(&name, pod, &mut violations);
        }
        if let Some(list) = object.pointer("/data/bootstrap.yaml").and_then(Value::as_str) {
            check_bootstrap(list, &mut violations);
        }
    }
    Ok(violations)
}

/// The objects of a stream of YAML documents, without the empty ones.
fn objects(manifests: &str) -> Result<Vec<Value>> {
    let objects: Vec<Value> =
        serde_saphyr::from_multiple(manifests).context("the rendered chart is no YAML")?;
    Ok(objects.into_iter().filter(Value::is_object).collect())
}

fn title(object: &Value) -> String {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or("-");
    format!(
        "{} {}/{}",
        text("/kind"),
        text("/metadata/namespace"),
        text("/metadata/name")
    )
}

fn items<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

fn texts<'a>(value: &'a Value, pointer: &str) -> Vec<&'a str> {
    items(value, pointer).filter_map(Value::as_str).collect()
}

fn check_rule(name: &str, rule: &Value, violations: &mut Vec<String>) {
    let resources = texts(rule, "/resources");
    let verbs = texts(rule, "/verbs");
    let groups = texts(rule, "/apiGroups");
    if [&resources, &verbs, &groups]
        .iter()
        .any(|list| list.iter().any(|text| text.contains('*')))
    {
        violations.push(format!("{name} grants a wildcard: {rule}"));
    }
    if resources.contains(&"secrets") && texts(rule, "/resourceNames").is_empty() {
        violations.push(format!("{name} grants secrets without naming them"));
    }
    let writes = verbs.iter().any(|verb| !["get", "list", "watch"].contains(verb));
    let receipts = resources
        .iter()
        .any(|resource| resource.starts_with("mureceipts"));
    if receipts && writes && !name.contains(CONTROLLER) {
        violations.push(format!("{name} lets somebody but the operator write receipts"));
    }
}

/// A page that a role does not name could not be written, or not be read.
fn check_pages(name: &str, object: &Value, violations: &mut Vec<String>) {
    if object["kind"] != "Role" {
        return;
    }
    let named: BTreeSet<_> = items(object, "/rules")
        .flat_map(|rule| texts(rule, "/resourceNames"))
        .collect();
    let missing: Vec<_> = (1..=names::TRUST_PAGES)
        .map(names::trust_page)
        .filter(|page| !named.contains(page.as_str()))
        .collect();
    if let Some(page) = missing.first() {
        violations.push(format!(
            "{name} lacks {} page(s) of the trust bundle, the first of them {page}",
            missing.len()
        ));
    }
}

fn pod(object: &Value) -> Option<&Value> {
    if object["kind"] == "Pod" {
        object.get("spec")
    } else {
        object.pointer("/spec/template/spec")
    }
}

/// The rules of Pod Security "restricted", a read-only root and a limit of memory.
fn check_pod(name: &str, pod: &Value, violations: &mut Vec<String>) {
    let mut require = |holds: bool, what: &str| {
        if !holds {
            violations.push(format!("{name}: {what}"));
        }
    };
    let is = |value: Option<&Value>, wanted: Value| value == Some(&wanted);
    require(
        is(pod.pointer("/securityContext/runAsNonRoot"), true.into()),
        "may run as root",
    );
    require(
        is(
            pod.pointer("/securityContext/seccompProfile/type"),
            "RuntimeDefault".into(),
        ),
        "has no seccomp profile",
    );
    for field in ["hostNetwork", "hostPID", "hostIPC", "hostUsers"] {
        require(pod.get(field).is_none(), &format!("sets {field}"));
    }
    for volume in items(pod, "/volumes") {
        require(volume.get("hostPath").is_none(), "mounts a path of its node");
    }
    for container in items(pod, "/containers").chain(items(pod, "/initContainers")) {
        let context = &container["securityContext"];
        require(
            context["allowPrivilegeEscalation"] == false,
            "allows privilege escalation",
        );
        require(context["readOnlyRootFilesystem"] == true, "has a writable root");
        require(
            context["runAsNonRoot"] == true,
            "has a container that may run as root",
        );
        require(
            texts(context, "/capabilities/drop") == ["ALL"],
            "keeps capabilities",
        );
        require(
            context.pointer("/capabilities/add").is_none(),
            "adds capabilities",
        );
        require(context.get("privileged").is_none(), "sets privileged");
        require(
            container.pointer("/resources/limits/memory").is_some(),
            "has no limit of memory",
        );
        require(
            items(container, "/ports").all(|port| port.get("hostPort").is_none()),
            "opens a port of its node",
        );
    }
}

/// The operator reads this list at its start: each entry must be one of its kinds, with no field that it does not know.
fn check_bootstrap(list: &str, violations: &mut Vec<String>) {
    let objects: Vec<Value> = match serde_saphyr::from_str(list) {
        Ok(objects) => objects,
        Err(error) => return violations.push(format!("bootstrap.yaml is no list: {error}")),
    };
    for object in objects {
        let parsed = match object["kind"].as_str() {
            Some("ChimeraHead") => serde_json::from_value::<ChimeraHead>(object.clone()).map(drop),
            Some("KeyRotationPolicy") => {
                serde_json::from_value::<KeyRotationPolicy>(object.clone()).map(drop)
            }
            _ => {
                violations.push(format!("bootstrap.yaml holds a {}", title(&object)));
                continue;
            }
        };
        if let Err(error) = parsed {
            violations.push(format!(
                "bootstrap.yaml: {} cannot be read: {error}",
                title(&object)
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(manifests: &str) -> String {
        violations(manifests).unwrap().join("\n")
    }

    #[test]
    fn wildcards_unnamed_secrets_and_foreign_writers_are_found() {
        let found = broken(
            "kind: Role\nmetadata: {name: a}\nrules: [{apiGroups: [''], resources: ['*'], verbs: [get]}]\n---\n\
             kind: Role\nmetadata: {name: b}\nrules: [{apiGroups: [''], resources: [secrets], verbs: [get]}]\n---\n\
             kind: Role\nmetadata: {name: c}\nrules: [{apiGroups: [x], resources: [mureceipts], verbs: [patch]}]\n",
        );
        for part in ["a grants a wildcard", "b grants secrets", "c lets somebody"] {
            assert!(found.contains(part), "{part} in {found}");
        }
    }

    #[test]
    fn a_role_that_lacks_a_page_of_the_trust_bundle_is_found() {
        let found = broken(
            "kind: Role\nmetadata: {namespace: a, name: chimera-trust-reader}\n\
             rules: [{apiGroups: [''], resources: [configmaps], resourceNames: [chimera-trust-1], verbs: [get]}]\n",
        );
        assert!(
            found.contains("lacks 63 page(s)") && found.contains("chimera-trust-2"),
            "{found}"
        );
    }

    #[test]
    fn an_unlocked_pod_is_found() {
        let found =
            broken("kind: Pod\nmetadata: {name: a}\nspec: {hostPID: true, containers: [{name: b}]}\n");
        for part in [
            "may run as root",
            "hostPID",
            "privilege escalation",
            "capabilities",
            "memory",
        ] {
            assert!(found.contains(part), "{part} in {found}");
        }
    }

    #[test]
    fn an_empty_rendering_breaks_nothing() {
        assert_eq!(
            broken("---\n# nothing\n---\nkind: Service\nmetadata: {name: a}\n"),
            ""
        );
    }
}
