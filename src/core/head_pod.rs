//! The pods of a ChimeraHead, and the NetworkPolicy around them.
//!
//! Users choose numbers, names of modules and where pods are scheduled; never the security settings, which are the
//! same for every head and pass Pod Security `restricted`.

use std::collections::BTreeMap;

use api::{
    ChimeraHead, ChimeraHeadSpec,
    chimera_head::{GRACE_SECONDS, ResourceAmounts, TopologySpread, WhenUnsatisfiable},
    names,
};
use k8s_openapi::{
    api::{
        core::v1::{
            Capabilities, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, EnvVarSource,
            HTTPGetAction, ObjectFieldSelector, Pod, PodSecurityContext, PodSpec, Probe,
            ResourceRequirements, SeccompProfile, SecretVolumeSource, SecurityContext,
            TopologySpreadConstraint, Volume, VolumeMount,
        },
        networking::v1::{
            NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
        },
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference},
        util::intstr::IntOrString,
    },
};
use sha2::{Digest as _, Sha256};

use crate::{head_image, run_share};

/// User and group that head images run as.
const USER: i64 = 65532;
/// Seconds of a pod's grace period that are the agent's own, after the runs': to hand out results and to end.
const FAREWELL_SECONDS: i64 = 5;
/// Label of nodes over which pods are spread where their head does not say otherwise.
const HOSTNAME: &str = "kubernetes.io/hostname";

/// Label of head pods: which of the head's places the pod fills.
pub const SLOT_LABEL: &str = "chimera.dunes.io/slot";
/// Label of head pods: how often the place was filled before.
pub const INCARNATION_LABEL: &str = "chimera.dunes.io/incarnation";

/// What the operator decides about all head pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// Image of a head whose spec names none.
    pub default_image: String,
    /// Images that may be named, as [`head_image`](crate::head_image) reads them.
    pub allowed_images: Vec<String>,
    /// What keeps runs from everything else, as `chimera-head --isolation` names it.
    pub isolation: String,
    /// Namespace of the operator, whose pods alone may connect.
    pub operator_namespace: String,
}

impl Template {
    /// The image of a head, unless it is not allowed.
    pub fn image<'a>(&'a self, spec: &'a ChimeraHeadSpec) -> Result<&'a str, String> {
        let Some(image) = spec.image.as_deref() else {
            return Ok(&self.default_image);
        };
        if image != self.default_image {
            head_image::check(image, &self.allowed_images)?;
        }
        Ok(image)
    }
}

/// The labels by which a head's pods are found.
pub fn selector_labels(head: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (names::MANAGED_BY_LABEL.to_owned(), names::MANAGED_BY.to_owned()),
        (names::HEAD_LABEL.to_owned(), head.to_owned()),
    ])
}

/// The selector as the `scale` subresource shows it.
pub fn selector_text(head: &str) -> String {
    let labels = selector_labels(head);
    labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect::<Vec<_>>()
        .join(",")
}

/// The name of the pod that fills a place for the nth time.
pub fn pod_name(head: &str, slot: i32, incarnation: u32) -> String {
    let stem: String = head.chars().take(50).collect();
    format!("{}-{slot}-{incarnation}", stem.trim_end_matches(['-', '.']))
}

/// A digest of everything in the pod that follows from the head's spec and the operator's settings.
pub fn template_hash(head: &ChimeraHead, template: &Template) -> String {
    let image = template.image(&head.spec).unwrap_or_default();
    let spec = build_pod_spec(head, image, &template.isolation);
    let json = serde_json::to_vec(&spec).expect("a pod spec serialises");
    hex::encode(&Sha256::digest(json)[..5])
}

/// Builds one pod.
pub fn build_pod(head: &ChimeraHead, template: &Template, slot: i32, incarnation: u32, spare: bool) -> Pod {
    let name = head.metadata.name.clone().unwrap_or_default();
    let image = template.image(&head.spec).unwrap_or_default();
    let mut labels = selector_labels(&name);
    labels.insert("app.kubernetes.io/name".into(), "chimera-head".into());
    labels.insert(names::ROLE_LABEL.into(), head.spec.role.as_str().into());
    labels.insert(names::SPARE_LABEL.into(), spare.to_string());
    labels.insert(SLOT_LABEL.into(), slot.to_string());
    labels.insert(INCARNATION_LABEL.into(), incarnation.to_string());
    Pod {
        metadata: ObjectMeta {
            name: Some(pod_name(&name, slot, incarnation)),
            namespace: head.metadata.namespace.clone(),
            labels: Some(labels),
            annotations: Some(BTreeMap::from([(
                names::TEMPLATE_HASH_ANNOTATION.to_owned(),
                template_hash(head, template),
            )])),
            owner_references: owner(head),
            ..ObjectMeta::default()
        },
        spec: Some(build_pod_spec(head, image, &template.isolation)),
        status: None,
    }
}

pub(crate) fn owner(head: &ChimeraHead) -> Option<Vec<OwnerReference>> {
    Some(vec![OwnerReference {
        api_version: format!("{}/{}", names::GROUP, names::VERSION),
        kind: "ChimeraHead".to_owned(),
        name: head.metadata.name.clone()?,
        uid: head.metadata.uid.clone()?,
        controller: Some(true),
        // Blocking would need the right to change the head's finalizers, and nothing here waits for pods.
        block_owner_deletion: None,
    }])
}

fn build_pod_spec(head: &ChimeraHead, image: &str, isolation: &str) -> PodSpec {
    let spec = &head.spec;
    let resources = build_resources(spec);
    let limits = resources.limits.clone().unwrap_or_default();
    PodSpec {
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(grace_seconds(spec)),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            seccomp_profile: Some(runtime_default()),
            ..PodSecurityContext::default()
        }),
        containers: vec![build_container(head, image, isolation, resources)],
        volumes: Some(vec![
            Volume {
                name: "identity".into(),
                secret: Some(SecretVolumeSource {
                    secret_name: Some(names::HEAD_IDENTITY_SECRET.into()),
                    default_mode: Some(0o440),
                    ..SecretVolumeSource::default()
                }),
                ..Volume::default()
            },
            Volume {
                name: "tmp".into(),
                empty_dir: Some(EmptyDirVolumeSource {
                    size_limit: Some(run_share::volume(&limits, spec.workers.warm)),
                    ..EmptyDirVolumeSource::default()
                }),
                ..Volume::default()
            },
        ]),
        runtime_class_name: runtime_class(spec).map(ToOwned::to_owned),
        node_selector: Some(spec.node_selector.clone()).filter(|selector| !selector.is_empty()),
        tolerations: Some(spec.tolerations.iter().map(Into::into).collect::<Vec<_>>())
            .filter(|all| !all.is_empty()),
        priority_class_name: spec.priority_class_name.clone(),
        topology_spread_constraints: Some(build_spread(head)),
        ..PodSpec::default()
    }
}

fn grace_seconds(spec: &ChimeraHeadSpec) -> i64 {
    spec.termination_grace_period_seconds.unwrap_or(GRACE_SECONDS)
}

/// The RuntimeClass of a head's pods. Where both fields name one, the kind's rules have seen to it that it is the same.
pub fn runtime_class(spec: &ChimeraHeadSpec) -> Option<&str> {
    let of_gpu = spec
        .gpu
        .as_ref()
        .and_then(|gpu| gpu.runtime_class_name.as_deref());
    spec.runtime_class_name.as_deref().or(of_gpu)
}

fn build_container(
    head: &ChimeraHead,
    image: &str,
    isolation: &str,
    resources: ResourceRequirements,
) -> Container {
    let spec = &head.spec;
    let mut environment = build_environment(head, image, isolation);
    environment.extend(build_share(spec, &resources));
    let mut args = vec![
        format!("--workers={}", spec.workers.warm),
        format!("--listen=0.0.0.0:{}", names::HEAD_PORT),
        format!("--health=0.0.0.0:{}", names::HEAD_HEALTH_PORT),
        format!("--identity={}", names::HEAD_IDENTITY_PATH),
        format!("--grace-seconds={}", grace_seconds(spec) - FAREWELL_SECONDS),
    ];
    if !spec.workers.preload.is_empty() {
        args.push(format!("--preload={}", spec.workers.preload.join(",")));
    }
    Container {
        name: "head".into(),
        image: Some(image.to_owned()),
        image_pull_policy: Some("IfNotPresent".into()),
        args: Some(args),
        env: Some(environment),
        ports: Some(vec![
            port("grpc", names::HEAD_PORT),
            port("health", names::HEAD_HEALTH_PORT),
        ]),
        resources: Some(resources),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".into()]),
                add: None,
            }),
            privileged: Some(false),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            seccomp_profile: Some(runtime_default()),
            ..SecurityContext::default()
        }),
        readiness_probe: Some(probe("/readyz", 2, 3)),
        liveness_probe: Some(probe("/healthz", 10, 3)),
        startup_probe: Some(Probe {
            failure_threshold: Some(150),
            ..probe("/healthz", 2, 3)
        }),
        volume_mounts: Some(vec![
            VolumeMount {
                name: "identity".into(),
                mount_path: names::HEAD_IDENTITY_PATH.into(),
                read_only: Some(true),
                ..VolumeMount::default()
            },
            VolumeMount {
                name: "tmp".into(),
                mount_path: "/tmp".into(),
                ..VolumeMount::default()
            },
        ]),
        ..Container::default()
    }
}

fn runtime_default() -> SeccompProfile {
    SeccompProfile {
        type_: "RuntimeDefault".into(),
        localhost_profile: None,
    }
}

fn port(name: &str, number: i32) -> ContainerPort {
    ContainerPort {
        name: Some(name.into()),
        container_port: number,
        ..ContainerPort::default()
    }
}

fn probe(path: &str, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.into()),
            port: IntOrString::String("health".into()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(2),
        failure_threshold: Some(failures),
        ..Probe::default()
    }
}

fn build_environment(head: &ChimeraHead, image: &str, isolation: &str) -> Vec<EnvVar> {
    let field = |name: &str, path: &str| EnvVar {
        name: name.into(),
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                field_path: path.into(),
                api_version: None,
            }),
            ..EnvVarSource::default()
        }),
        value: None,
    };
    vec![
        field("CHIMERA_NAMESPACE", "metadata.namespace"),
        field("CHIMERA_POD_NAME", "metadata.name"),
        field("CHIMERA_POD_UID", "metadata.uid"),
        field("CHIMERA_NODE", "spec.nodeName"),
        literal("CHIMERA_HEAD", head.metadata.name.as_deref().unwrap_or_default()),
        literal("CHIMERA_ROLE", head.spec.role.as_str()),
        literal("CHIMERA_IMAGE", image),
        // Variables, because an older agent passes over those that it does not know.
        literal("CHIMERA_ISOLATION", isolation),
        literal(
            "CHIMERA_CANARY_SECONDS",
            &head.spec.health.canary_seconds.to_string(),
        ),
    ]
}

fn literal(name: &str, value: &str) -> EnvVar {
    EnvVar {
        name: name.into(),
        value: Some(value.into()),
        value_from: None,
    }
}

/// Tells the agent what each of its runs may use.
fn build_share(spec: &ChimeraHeadSpec, resources: &ResourceRequirements) -> impl Iterator<Item = EnvVar> {
    let limits = resources.limits.as_ref();
    let share = limits.map(|limits| run_share::of(limits, spec.workers.warm));
    let memory = share.and_then(|share| share.memory_mib);
    let disk = share.and_then(|share| share.disk_mib);
    [("CHIMERA_RUN_MEMORY_MIB", memory), ("CHIMERA_RUN_DISK_MIB", disk)]
        .into_iter()
        .filter_map(|(name, mib)| Some(literal(name, &mib?.to_string())))
}

fn build_resources(spec: &ChimeraHeadSpec) -> ResourceRequirements {
    let resources = spec.resources.clone().unwrap_or_default();
    let mut requests = amounts(resources.requests.as_ref());
    let mut limits = amounts(resources.limits.as_ref());
    for (name, request, limit) in [
        ("cpu", "100m", "4"),
        ("memory", "256Mi", "5Gi"),
        ("ephemeral-storage", "64Mi", "3Gi"),
    ] {
        // A default never contradicts what the user did say.
        if !requests.contains_key(name) && !limits.contains_key(name) {
            requests.insert(name.into(), Quantity(request.into()));
            limits.insert(name.into(), Quantity(limit.into()));
        }
    }
    if let Some(gpu) = &spec.gpu {
        limits.insert(gpu.resource_name.clone(), Quantity(gpu.count.to_string()));
    }
    ResourceRequirements {
        requests: Some(requests),
        limits: Some(limits),
        claims: None,
    }
}

fn amounts(amounts: Option<&ResourceAmounts>) -> BTreeMap<String, Quantity> {
    let Some(ResourceAmounts {
        cpu,
        memory,
        ephemeral_storage,
    }) = amounts
    else {
        return BTreeMap::new();
    };
    let named = [
        ("cpu", cpu),
        ("memory", memory),
        ("ephemeral-storage", ephemeral_storage),
    ];
    named
        .into_iter()
        .filter_map(|(name, amount)| Some((name.to_owned(), amount.clone()?)))
        .collect()
}

fn build_spread(head: &ChimeraHead) -> Vec<TopologySpreadConstraint> {
    let name = head.metadata.name.as_deref().unwrap_or_default();
    let over_nodes = [TopologySpread {
        max_skew: 1,
        topology_key: HOSTNAME.to_owned(),
        when_unsatisfiable: WhenUnsatisfiable::ScheduleAnyway,
    }];
    let asked = head.spec.topology_spread.as_slice();
    let constraints = if asked.is_empty() { &over_nodes } else { asked };
    constraints
        .iter()
        .map(|spread| TopologySpreadConstraint {
            max_skew: spread.max_skew,
            topology_key: spread.topology_key.clone(),
            when_unsatisfiable: spread.when_unsatisfiable.as_str().to_owned(),
            label_selector: Some(LabelSelector {
                match_labels: Some(selector_labels(name)),
                ..LabelSelector::default()
            }),
            ..TopologySpreadConstraint::default()
        })
        .collect()
}

/// Builds the NetworkPolicy of a head: nothing out, and in only the operator to the gRPC port. The kubelet's probes
/// come from the node, which network plugins always let through.
pub fn build_network_policy(head: &ChimeraHead, template: &Template) -> NetworkPolicy {
    let name = head.metadata.name.clone().unwrap_or_default();
    let operator = NetworkPolicyPeer {
        namespace_selector: Some(LabelSelector {
            match_labels: Some(BTreeMap::from([(
                "kubernetes.io/metadata.name".to_owned(),
                template.operator_namespace.clone(),
            )])),
            ..LabelSelector::default()
        }),
        pod_selector: Some(LabelSelector {
            match_labels: Some(BTreeMap::from([(
                "app.kubernetes.io/component".to_owned(),
                "controller".to_owned(),
            )])),
            ..LabelSelector::default()
        }),
        ip_block: None,
    };
    NetworkPolicy {
        metadata: ObjectMeta {
            name: Some(names::head_network_policy(&name)),
            namespace: head.metadata.namespace.clone(),
            labels: Some(selector_labels(&name)),
            owner_references: owner(head),
            ..ObjectMeta::default()
        },
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(LabelSelector {
                match_labels: Some(selector_labels(&name)),
                ..LabelSelector::default()
            }),
            policy_types: Some(vec!["Ingress".into(), "Egress".into()]),
            ingress: Some(vec![NetworkPolicyIngressRule {
                from: Some(vec![operator]),
                ports: Some(vec![NetworkPolicyPort {
                    port: Some(IntOrString::Int(names::HEAD_PORT)),
                    protocol: Some("TCP".into()),
                    end_port: None,
                }]),
            }]),
            egress: None,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::Role;

    fn head(spec: serde_json::Value) -> ChimeraHead {
        let mut head = ChimeraHead::new("q", serde_json::from_value(spec).expect("a spec"));
        head.metadata.namespace = Some("team".into());
        head.metadata.uid = Some("u".into());
        head
    }

    fn template() -> Template {
        Template {
            default_image: "localhost/head:1".into(),
            allowed_images: vec!["registry.example/heads/*".into(), "other@sha256:1".into()],
            isolation: "full".into(),
            operator_namespace: "chimera-system".into(),
        }
    }

    #[test]
    fn only_allowed_images_are_used() {
        let template = template();
        for (image, allowed) in [
            ("localhost/head:1", true),
            ("registry.example/heads/gpu:2", true),
            ("registry.example/other", false),
        ] {
            let head = head(serde_json::json!({"role": "quantum", "image": image}));
            assert_eq!(template.image(&head.spec).is_ok(), allowed, "{image}");
        }
    }

    #[test]
    fn pods_have_the_runtime_class_that_either_field_names() {
        for (spec, class) in [
            (serde_json::json!({"role": "quantum"}), None),
            (
                serde_json::json!({"role": "quantum", "runtimeClassName": "gvisor"}),
                Some("gvisor"),
            ),
            (
                serde_json::json!({"role": "inference", "gpu": {"runtimeClassName": "nvidia"}}),
                Some("nvidia"),
            ),
        ] {
            let pod = build_pod(&head(spec), &template(), 0, 0, false);
            assert_eq!(pod.spec.expect("a spec").runtime_class_name.as_deref(), class);
        }
    }

    #[test]
    fn runs_get_the_grace_period_but_for_what_the_agent_needs_itself() {
        let head = head(serde_json::json!({"role": "quantum", "terminationGracePeriodSeconds": 600}));
        let spec = build_pod(&head, &template(), 0, 0, false).spec.expect("a spec");
        assert_eq!(spec.termination_grace_period_seconds, Some(600));
        let arguments = spec.containers[0].args.clone().expect("arguments");
        assert!(
            arguments.contains(&"--grace-seconds=595".to_owned()),
            "{arguments:?}"
        );
    }

    #[test]
    fn pods_are_spread_over_nodes_unless_the_head_says_otherwise() {
        let keys = |spec: serde_json::Value| {
            let spec = build_pod(&head(spec), &template(), 0, 0, false)
                .spec
                .expect("a spec");
            let constraints = spec.topology_spread_constraints.unwrap_or_default();
            constraints
                .into_iter()
                .map(|constraint| (constraint.topology_key, constraint.when_unsatisfiable))
                .collect::<Vec<_>>()
        };
        let anyway = |key: &str| vec![(key.to_owned(), "ScheduleAnyway".to_owned())];
        assert_eq!(keys(serde_json::json!({"role": "quantum"})), anyway(HOSTNAME));
        let zones = serde_json::json!({"role": "quantum", "topologySpread": [{"topologyKey": "zone"}]});
        assert_eq!(keys(zones), anyway("zone"));
    }

    #[test]
    fn no_field_of_a_head_changes_its_security_settings() {
        let plain = build_pod(
            &head(serde_json::json!({"role": "quantum"})),
            &template(),
            0,
            0,
            false,
        );
        let rich = build_pod(
            &head(serde_json::json!({
                "role": "inference", "replicas": 3, "image": "registry.example/heads/x",
                "gpu": {"count": 2, "runtimeClassName": "nvidia"},
                "workers": {"warm": 9, "preload": ["os"]},
                "resources": {"limits": {"cpu": "8", "memory": "1Gi"}},
                "nodeSelector": {"a": "b"}, "priorityClassName": "system-node-critical",
                "tolerations": [{"operator": "Exists"}],
            })),
            &template(),
            1,
            4,
            true,
        );
        let skeleton = |pod: &Pod| {
            let spec = pod.spec.clone().expect("a spec");
            let container = spec.containers.first().cloned().expect("a container");
            (
                spec.containers.len(),
                spec.security_context,
                container.security_context,
                spec.automount_service_account_token,
                spec.service_account_name,
                spec.host_network.or(spec.host_pid).or(spec.host_ipc),
                spec.volumes,
                container.volume_mounts,
            )
        };
        assert_eq!(skeleton(&plain), skeleton(&rich));
        assert_eq!(
            plain.spec.expect("a spec").automount_service_account_token,
            Some(false)
        );
    }

    #[test]
    fn gpus_are_requested_by_their_resource_name() {
        let head = head(
            serde_json::json!({"role": "inference", "gpu": {"count": 2, "resourceName": "nvidia.com/mig-1g"}}),
        );
        let pod = build_pod(&head, &template(), 0, 0, false);
        let limits = pod.spec.expect("a spec").containers[0]
            .resources
            .clone()
            .expect("resources")
            .limits;
        assert_eq!(limits.expect("limits")["nvidia.com/mig-1g"].0, "2");
    }

    #[test]
    fn the_agent_is_told_what_its_pods_limits_leave_for_each_run() {
        let told = |spec: serde_json::Value| {
            let spec = build_pod(&head(spec), &template(), 0, 0, false)
                .spec
                .expect("a spec");
            let environment = spec.containers[0].env.clone().unwrap_or_default();
            let value = |name: &str| environment.iter().find(|one| one.name == name)?.value.clone();
            let volume = spec.volumes.unwrap_or_default().remove(1);
            let size = volume.empty_dir.and_then(|folder| folder.size_limit);
            (
                value("CHIMERA_RUN_MEMORY_MIB"),
                value("CHIMERA_RUN_DISK_MIB"),
                size.expect("a limit").0,
            )
        };
        let shares = |memory: &str, disk: &str, volume: &str| {
            (Some(memory.to_owned()), Some(disk.to_owned()), volume.to_owned())
        };
        let of = |warm: i32, resources: serde_json::Value| {
            told(serde_json::json!({"role": "quantum", "workers": {"warm": warm}, "resources": resources}))
        };
        let limits = serde_json::json!({"limits": {"memory": "64Gi", "ephemeral-storage": "8Gi"}});
        assert_eq!(of(2, serde_json::json!({})), shares("2240", "1344", "3Gi"));
        assert_eq!(of(4, limits), shares("14336", "1792", "8Gi"));
        let requests = serde_json::json!({"requests": {"memory": "1Gi", "ephemeral-storage": "1Gi"}});
        assert_eq!(of(2, requests), (None, None, (3_u64 << 30).to_string()));
    }

    #[test]
    fn the_template_hash_follows_the_pod_and_not_its_place() {
        let one = head(serde_json::json!({"role": "quantum"}));
        let more = head(serde_json::json!({"role": "quantum", "replicas": 5, "spares": 2}));
        let other = head(serde_json::json!({"role": "quantum", "workers": {"warm": 3}}));
        assert_eq!(
            template_hash(&one, &template()),
            template_hash(&more, &template())
        );
        assert_ne!(
            template_hash(&one, &template()),
            template_hash(&other, &template())
        );
        assert_eq!(one.spec.role, Role::Quantum);
    }

    #[test]
    fn pod_names_are_dns_labels_for_long_heads() {
        let name = pod_name(&format!("{}.{}", "a".repeat(49), "b".repeat(100)), 12, 3);
        assert!(
            name.len() <= 63 && name.ends_with("-12-3") && !name.contains(".-"),
            "{name}"
        );
    }
}
