//! Names that several parts of Chimera must spell alike: in the cluster, in labels, on the wire.

use sha2::{Digest, Sha256};

/// The API group of the four kinds.
pub const GROUP: &str = "chimera.dunes.io";
/// The version of the four kinds.
pub const VERSION: &str = "v1alpha1";

/// Field manager of everything but status.
pub const FIELD_MANAGER: &str = "chimera";
/// Field manager of status subresources.
pub const STATUS_FIELD_MANAGER: &str = "chimera-status";
/// Name under which the controller reports Events.
pub const REPORTING_CONTROLLER: &str = "chimera.dunes.io/controller";

/// ConfigMap in the operator's namespace that publishes the trust bundle.
pub const TRUST_CONFIG_MAP: &str = "chimera-trust";
/// ConfigMap in the operator's namespace that publishes what an offline root is asked to state.
pub const TRUST_REQUESTS_CONFIG_MAP: &str = "chimera-trust-requests";
/// ConfigMap in the operator's namespace in which an offline root's answers are put.
pub const TRUST_ANSWERS_CONFIG_MAP: &str = "chimera-trust-answers";
/// ConfigMap in the operator's namespace with the public key of an offline root, under [`TRUST_ROOT_KEY`].
pub const OFFLINE_ROOT_CONFIG_MAP: &str = "chimera-offline-root";
/// How many pages of old statements the bundle may have beside [`TRUST_CONFIG_MAP`].
pub const TRUST_PAGES: usize = 64;
/// Key of the number of pages in [`TRUST_CONFIG_MAP`].
pub const TRUST_PAGES_KEY: &str = "pages";
/// Key of the bundle in [`TRUST_CONFIG_MAP`] and in its pages.
pub const TRUST_BUNDLE_KEY: &str = "trust.json";
/// Key of the root's public key (SPKI PEM) in [`TRUST_CONFIG_MAP`] and in [`HEAD_IDENTITY_SECRET`].
pub const TRUST_ROOT_KEY: &str = "root.pem";
/// Secret in the operator's namespace that holds the root's seed.
pub const ROOT_SECRET: &str = "chimera-root";
/// Key of the seed in [`ROOT_SECRET`].
pub const ROOT_SEED_KEY: &str = "seed";
/// Secret in the operator's namespace that holds the CA of the heads' TLS certificates.
pub const CA_SECRET: &str = "chimera-ca";
/// Secret in every namespace with heads that is mounted into their pods.
pub const HEAD_IDENTITY_SECRET: &str = "chimera-head-identity";
/// Key of the heads' certificate chain in [`HEAD_IDENTITY_SECRET`].
pub const TLS_CERTIFICATE_KEY: &str = "tls.crt";
/// Key of the heads' private key in [`HEAD_IDENTITY_SECRET`].
pub const TLS_PRIVATE_KEY_KEY: &str = "tls.key";
/// Key of the CA's certificate in [`HEAD_IDENTITY_SECRET`].
pub const TLS_CA_KEY: &str = "ca.crt";
/// Where head pods find [`HEAD_IDENTITY_SECRET`].
pub const HEAD_IDENTITY_PATH: &str = "/etc/chimera/identity";
/// Lease of the leading controller; its `leaseTransitions` is the fencing token.
pub const LEASE: &str = "chimera-controller";
/// Annotation of that Lease: the heads that were claimed and of which no status tells yet, as JSON by UID of the workflow.
pub const CLAIMS_ANNOTATION: &str = "chimera.dunes.io/claims";
/// Name that the controller's client certificate carries.
pub const CONTROLLER_TLS_NAME: &str = "controller.chimera";
/// Policy whose key signs receipts when a workflow names none.
pub const DEFAULT_SIGNING_POLICY: &str = "signing";

/// Port of a head's gRPC server.
pub const HEAD_PORT: i32 = 7443;
/// Port of a head's `/healthz` and `/readyz`.
pub const HEAD_HEALTH_PORT: i32 = 7444;

/// Standard label that says who manages an object.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// Value of [`MANAGED_BY_LABEL`] on everything that the controller makes.
pub const MANAGED_BY: &str = "chimera";
/// Label of head pods: the ChimeraHead's name.
pub const HEAD_LABEL: &str = "chimera.dunes.io/head";
/// Label of head pods: the role.
pub const ROLE_LABEL: &str = "chimera.dunes.io/role";
/// Label of head pods: `true` while the pod waits as a spare, `false` while it serves.
pub const SPARE_LABEL: &str = "chimera.dunes.io/spare";
/// Label of head pods: `true` once the pod takes no new runs and goes when those under way have ended.
pub const DRAINING_LABEL: &str = "chimera.dunes.io/draining";
/// Label of pods that are made for one run: the run's id.
pub const RUN_LABEL: &str = "chimera.dunes.io/run";
/// Label of pods that are made for one run: the ChimeraHead that they are made after.
pub const RUN_OF_LABEL: &str = "chimera.dunes.io/run-of";
/// Annotation of head pods: digest of the template that they were made from.
pub const TEMPLATE_HASH_ANNOTATION: &str = "chimera.dunes.io/template-hash";
/// Label of receipts: the workflow's name, cut to 63 characters.
pub const WORKFLOW_LABEL: &str = "chimera.dunes.io/workflow";
/// Label of receipts: the workflow's UID.
pub const WORKFLOW_UID_LABEL: &str = "chimera.dunes.io/workflow-uid";
/// Label of receipts: `Success` or `Error`.
pub const RESULT_LABEL: &str = "chimera.dunes.io/result";

/// Annotation of workflows: a changed value asks for a new run.
pub const RERUN_ANNOTATION: &str = "chimera.dunes.io/rerun";
/// Annotation of workflows: `true` cancels the current run.
pub const CANCEL_ANNOTATION: &str = "chimera.dunes.io/cancel";
/// Annotation of key policies: a changed value asks for a rotation now.
pub const ROTATE_ANNOTATION: &str = "chimera.dunes.io/rotate";

/// Annotation of a key policy that signs: a changed value asks for a new root, vouched for by the present one.
pub const ROLL_ROOT_ANNOTATION: &str = "chimera.dunes.io/roll-root";

/// Virtual resource on which RBAC grants [`ACT_AS_VERB`].
pub const AGENTS_RESOURCE: &str = "agents";
/// Verb that allows `spec.actAs`.
pub const ACT_AS_VERB: &str = "act-as";
/// Scheme of `spec.actAs`.
pub const AGENT_SCHEME: &str = "agent://";

/// Secret in the operator's namespace with the keys of a KeyRotationPolicy there.
pub fn key_secret(policy: &str) -> String {
    format!("chimera-keys-{policy}")
}

/// Secret in the operator's namespace with the sealing keys of a KeyRotationPolicy of another namespace. No namespace's
/// name has a dot, so no two policies share a Secret.
pub fn tenant_key_secret(namespace: &str, policy: &str) -> String {
    format!("chimera-sealing-{namespace}.{policy}")
}

/// ConfigMap in the operator's namespace with the `page`th page (from 1) of the bundle's old statements.
pub fn trust_page(page: usize) -> String {
    format!("{TRUST_CONFIG_MAP}-{page}")
}

/// Host name in the certificate that all heads of a namespace share.
pub fn head_tls_name(namespace: &str) -> String {
    format!("heads.{namespace}.chimera")
}

/// Name of the NetworkPolicy that the controller keeps for a ChimeraHead.
pub fn head_network_policy(head: &str) -> String {
    format!("chimera-head-{head}")
}

/// Name of the PodDisruptionBudget that the controller keeps for a ChimeraHead.
pub fn head_disruption_budget(head: &str) -> String {
    format!("chimera-head-{head}")
}

/// Name of the NetworkPolicy that the controller keeps around pods that are made for one run after a ChimeraHead.
pub fn run_network_policy(head: &str) -> String {
    format!("chimera-run-{head}")
}

/// The agent of `agent://NAME`, if `act_as` has that form.
pub fn agent_name(act_as: &str) -> Option<&str> {
    act_as.strip_prefix(AGENT_SCHEME).filter(|name| !name.is_empty())
}

/// A value cut so that it is a valid label value: 63 characters, not ending in punctuation.
pub fn label_value(text: &str) -> &str {
    let end = text.char_indices().nth(63).map_or(text.len(), |(index, _)| index);
    text[..end].trim_end_matches(|c: char| !c.is_ascii_alphanumeric())
}

/// What makes one run of a workflow different from its others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunKey<'a> {
    /// `metadata.uid` of the workflow.
    pub uid: &'a str,
    /// `metadata.generation` of the workflow.
    pub generation: i64,
    /// Value of [`RERUN_ANNOTATION`], if set.
    pub rerun: Option<&'a str>,
}

impl RunKey<'_> {
    /// The run's id at that attempt (from 1): 32 hexadecimal digits that a head can be asked for again.
    pub fn run_id(&self, attempt: i32) -> String {
        let mut hash = self.hash("chimera.dunes.io/run/v1");
        hash.update(attempt.to_be_bytes());
        hex::encode(&hash.finalize()[..16])
    }

    /// The name of the run's receipt.
    ///
    /// All attempts share it, so that the API server itself lets only one receipt of a run exist.
    pub fn receipt_name(&self, workflow: &str) -> String {
        let hash = self.hash("chimera.dunes.io/receipt/v1").finalize();
        let end = workflow
            .char_indices()
            .nth(200)
            .map_or(workflow.len(), |(index, _)| index);
        // A cut in the middle could leave a dot before the dash, which no DNS name may have.
        let stem = workflow[..end].trim_end_matches(['.', '-']);
        format!("{stem}-{}", hex::encode(&hash[..5]))
    }

    /// Each part is preceded by its length, so that no two keys share their bytes.
    fn hash(&self, domain: &str) -> Sha256 {
        let mut hash = Sha256::new();
        for part in [
            domain.as_bytes(),
            self.uid.as_bytes(),
            &self.generation.to_be_bytes(),
            &[u8::from(self.rerun.is_some())],
            self.rerun.unwrap_or_default().as_bytes(),
        ] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: RunKey<'_> = RunKey {
        uid: "7d8c3f0e-0000-4000-8000-000000000001",
        generation: 1,
        rerun: None,
    };

    #[test]
    fn run_ids_differ_in_every_part() {
        let others = [
            KEY.run_id(2),
            RunKey { generation: 2, ..KEY }.run_id(1),
            RunKey {
                rerun: Some(""),
                ..KEY
            }
            .run_id(1),
            RunKey {
                rerun: Some("1"),
                ..KEY
            }
            .run_id(1),
            RunKey {
                uid: "7d8c3f0e",
                ..KEY
            }
            .run_id(1),
        ];
        let first = KEY.run_id(1);
        assert_eq!(first.len(), 32);
        assert!(first.bytes().all(|byte| byte.is_ascii_hexdigit()));
        for (index, other) in others.iter().enumerate() {
            assert_ne!(&first, other, "part {index}");
        }
    }

    #[test]
    fn a_run_id_is_the_same_for_ever() {
        assert_eq!(KEY.run_id(1), KEY.run_id(1));
        assert_eq!(KEY.receipt_name("hello"), KEY.receipt_name("hello"));
    }

    #[test]
    fn receipt_names_are_dns_names_for_the_longest_workflow() {
        let workflow = format!("{}.{}", "a".repeat(199), "b".repeat(53));
        let name = KEY.receipt_name(&workflow);
        assert!(name.len() <= 253);
        assert!(!name.contains(".-"));
    }

    #[test]
    fn label_values_fit() {
        let long = format!("{}.{}", "a".repeat(62), "b".repeat(20));
        assert_eq!(label_value(&long), "a".repeat(62));
        assert_eq!(label_value("hello"), "hello");
    }

    #[test]
    fn agents_are_named_by_their_scheme() {
        assert_eq!(agent_name("agent://alpha"), Some("alpha"));
        assert_eq!(agent_name("agent://"), None);
        assert_eq!(agent_name("alpha"), None);
    }
}
