//! Where a run goes: the choice of a head, from what is known of all heads. No IO, no clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{Role, maml_workflow::HeadSelector};
use maml::{Document, Permissions};

use crate::requirements::{Interpreter, unmet};

/// What is known of one head pod.
#[derive(Debug, Clone, PartialEq)]
pub struct HeadView {
    /// UID of the pod.
    pub pod_uid: String,
    /// Name of the pod.
    pub pod: String,
    /// Namespace of pod and ChimeraHead: a head serves its own namespace only.
    pub namespace: String,
    /// Name of the ChimeraHead.
    pub head: String,
    /// The ChimeraHead's labels, for `spec.headSelector`.
    pub labels: BTreeMap<String, String>,
    /// Role of the ChimeraHead.
    pub role: Role,
    /// Node that the pod runs on.
    pub node: Option<String>,
    /// Spares take no runs until they are promoted.
    pub spare: bool,
    /// Whether the agent takes runs: connected, interpreters warm, not draining.
    pub ready: bool,
    /// Runs that fit at once.
    pub capacity: u32,
    /// Runs under way.
    pub running: u32,
    /// UUIDs of its GPU devices.
    pub devices: Vec<String>,
    /// What its interpreter offers; unknown until its agent has told.
    pub offer: Option<Arc<Offer>>,
}

/// What a head offers documents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Offer {
    /// Languages of blocks that it runs.
    pub languages: Vec<String>,
    /// The interpreter, such as `CPython 3.13.5`.
    pub interpreter: String,
    /// Installed Python distributions by normalised name, to versions.
    pub packages: BTreeMap<String, String>,
}

/// What a run asks of a head.
#[derive(Debug, Clone, Copy)]
pub struct Demand<'a> {
    /// Namespace of the workflow.
    pub namespace: &'a str,
    /// `spec.role`.
    pub role: Option<Role>,
    /// `spec.headSelector`, over the ChimeraHead's labels.
    pub selector: Option<&'a HeadSelector>,
    /// The document's `gateway://` entries say where.
    pub permissions: &'a Permissions,
    /// GPU devices that the document requires.
    pub gpus: u32,
    /// What the document needs to be run in, as [`languages`] gives it.
    pub languages: &'a [String],
    /// Python packages that the document requires, as in PEP 508.
    pub packages: &'a [String],
}

/// The languages of a document's blocks, each once, and `ortac` when it may not run without its OCaml specifications.
pub fn languages(document: &Document) -> Vec<String> {
    let mut languages: Vec<String> = Vec::new();
    let of_blocks = document.blocks.iter().map(|block| block.language.as_str());
    let verification = document.front_matter.verification.as_ref();
    let ortac = verification
        .filter(|verification| verification.level == maml::Level::Strict && verification.needs_ortac());
    for language in of_blocks.chain(ortac.map(|_| ORTAC)) {
        if !languages.iter().any(|known| known == language) {
            languages.push(language.to_owned());
        }
    }
    languages
}

/// What a head offers that can check OCaml specifications.
const ORTAC: &str = "ortac";

/// The choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// The pod with this UID.
    On {
        /// UID of the pod.
        pod_uid: String,
    },
    /// Heads that suit exist, but none has room.
    Busy {
        /// For a person.
        message: String,
    },
    /// Heads that suit exist, but none is ready.
    NotReady {
        /// For a person.
        message: String,
    },
    /// No head suits.
    NoMatch {
        /// For a person: what is missing and what would help.
        message: String,
    },
}

/// Chooses the least loaded ready head that suits; among equals the first by name.
pub fn place(heads: &[HeadView], demand: &Demand<'_>) -> Placement {
    let in_namespace: Vec<_> = heads
        .iter()
        .filter(|head| head.namespace == demand.namespace)
        .collect();
    let suitable: Vec<_> = in_namespace
        .iter()
        .copied()
        .filter(|head| suits(head, demand))
        .collect();
    if suitable.is_empty() {
        return Placement::NoMatch {
            message: no_match(&in_namespace, demand),
        };
    }
    let ready: Vec<_> = suitable
        .iter()
        .copied()
        .filter(|head| head.ready && !head.spare)
        .collect();
    if ready.is_empty() {
        let message = format!("{} suitable head pod(s), none of them ready", suitable.len());
        return Placement::NotReady { message };
    }
    // Load as a fraction, compared without division: running / capacity.
    let free = ready.iter().filter(|head| head.running < head.capacity);
    let least = free.min_by(|a, b| {
        let left = u64::from(a.running) * u64::from(b.capacity);
        let right = u64::from(b.running) * u64::from(a.capacity);
        left.cmp(&right).then_with(|| a.pod.cmp(&b.pod))
    });
    match least {
        Some(head) => Placement::On {
            pod_uid: head.pod_uid.clone(),
        },
        None => Placement::Busy {
            message: format!("all {} suitable head pod(s) are busy", ready.len()),
        },
    }
}

fn suits(head: &HeadView, demand: &Demand<'_>) -> bool {
    let labels_match = demand
        .selector
        .is_none_or(|selector| selector.matches(&head.labels));
    let devices = u32::try_from(head.devices.len()).unwrap_or(u32::MAX);
    demand.role.is_none_or(|role| role == head.role)
        && labels_match
        && demand.permissions.allows_gateway(head.role.gateway())
        && (demand.gpus == 0 || devices >= demand.gpus)
        && demand.languages.iter().all(|language| may_run(head, language))
        && lacking(head, demand.packages).is_empty()
}

/// A head that has not told yet is not passed over: it is not ready either.
fn may_run(head: &HeadView, language: &String) -> bool {
    head.offer
        .as_ref()
        .is_none_or(|offer| offer.languages.contains(language))
}

/// Which of the packages a head lacks, each with what it has instead.
fn lacking(head: &HeadView, packages: &[String]) -> Vec<String> {
    match &head.offer {
        Some(offer) if !packages.is_empty() => {
            let interpreter = Interpreter {
                name: &offer.interpreter,
                packages: &offer.packages,
            };
            unmet(packages, interpreter)
        }
        _ => Vec::new(),
    }
}

fn no_match(in_namespace: &[&HeadView], demand: &Demand<'_>) -> String {
    if in_namespace.is_empty() {
        return format!(
            "no head in namespace {}: create a ChimeraHead there",
            demand.namespace
        );
    }
    let mut wanted = Vec::new();
    if let Some(role) = demand.role {
        wanted.push(format!("role {}", role.as_str()));
    }
    if let Some(selector) = demand.selector {
        wanted.extend(
            selector
                .match_labels
                .iter()
                .map(|(key, value)| format!("label {key}={value}")),
        );
    }
    if demand.gpus > 0 {
        wanted.push(format!("{} GPU(s)", demand.gpus));
    }
    // Those that every head runs are not the reason.
    let scarce = demand
        .languages
        .iter()
        .filter(|language| !in_namespace.iter().all(|head| may_run(head, language)));
    wanted.extend(scarce.map(|language| match language.as_str() {
        ORTAC => "ortac, which the document's verification needs".to_owned(),
        language => format!("the language {language}"),
    }));
    wanted.extend(missing_packages(in_namespace, demand));
    if demand
        .permissions
        .execute
        .iter()
        .any(|entry| entry.starts_with("gateway://"))
    {
        wanted.push("a name in the document's permissions.execute".to_owned());
    }
    if wanted.is_empty() {
        wanted.push("all that the document requires at once".to_owned());
    }
    format!(
        "none of {} head pod(s) in namespace {} offers {}",
        in_namespace.len(),
        demand.namespace,
        wanted.join(", ")
    )
}

/// The packages that no head has, with what the first one has instead.
fn missing_packages(heads: &[&HeadView], demand: &Demand<'_>) -> Vec<String> {
    let nowhere = demand.packages.iter().filter_map(|package| {
        let package = std::slice::from_ref(package);
        let lacks: Vec<_> = heads.iter().map(|head| lacking(head, package)).collect();
        let first = lacks.first()?.first()?.clone();
        lacks.iter().all(|lacks| !lacks.is_empty()).then_some(first)
    });
    nowhere.map(|package| format!("the package {package}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(languages: &[&str], packages: &[(&str, &str)]) -> Arc<Offer> {
        let packages = packages
            .iter()
            .map(|&(name, version)| (name.to_owned(), version.to_owned()));
        Arc::new(Offer {
            languages: languages.iter().map(|&language| language.to_owned()).collect(),
            interpreter: "CPython 3.13.5".to_owned(),
            packages: packages.collect(),
        })
    }

    fn head(pod: &str, role: Role) -> HeadView {
        HeadView {
            pod_uid: format!("uid-{pod}"),
            pod: pod.to_owned(),
            namespace: "team".to_owned(),
            head: "h".to_owned(),
            labels: BTreeMap::new(),
            role,
            node: None,
            spare: false,
            ready: true,
            capacity: 2,
            running: 0,
            devices: Vec::new(),
            offer: Some(offer(&["python", "bash"], &[("numpy", "2.3.1")])),
        }
    }

    fn permissions(execute: &[&str]) -> Permissions {
        Permissions {
            execute: execute.iter().map(|&entry| entry.to_owned()).collect(),
            ..Permissions::default()
        }
    }

    fn demand(permissions: &Permissions) -> Demand<'_> {
        Demand {
            namespace: "team",
            role: None,
            selector: None,
            permissions,
            gpus: 0,
            languages: &[],
            packages: &[],
        }
    }

    #[test]
    fn the_least_loaded_head_is_chosen_and_the_first_by_name_among_equals() {
        let anywhere = permissions(&[]);
        let mut heads = vec![head("b", Role::Quantum), head("a", Role::Quantum)];
        assert_eq!(
            place(&heads, &demand(&anywhere)),
            Placement::On {
                pod_uid: "uid-a".into()
            }
        );
        heads[1].running = 1;
        assert_eq!(
            place(&heads, &demand(&anywhere)),
            Placement::On {
                pod_uid: "uid-b".into()
            }
        );
        heads[0].running = 2;
        heads[1].running = 2;
        assert!(matches!(
            place(&heads, &demand(&anywhere)),
            Placement::Busy { .. }
        ));
    }

    #[test]
    fn heads_of_another_namespace_are_never_used() {
        let anywhere = permissions(&[]);
        let mut other = head("a", Role::Quantum);
        other.namespace = "other".into();
        assert!(matches!(
            place(&[other], &demand(&anywhere)),
            Placement::NoMatch { .. }
        ));
    }

    #[test]
    fn a_documents_gateway_entries_say_where_it_may_run() {
        let heads = vec![head("q", Role::Quantum), head("o", Role::Orchestrator)];
        for (entries, expected) in [
            (&["gateway://chimera-head-1"][..], Some("uid-q")),
            (&["gateway://chimera-head-4"], Some("uid-o")),
            (&["gateway://chimera-head4"], Some("uid-o")),
            (&["gateway://chimera-2048"], Some("uid-o")),
            (&["gateway://chimera-head-3"], None),
            (&["agent://someone"], Some("uid-o")),
        ] {
            let permissions = permissions(entries);
            let placement = place(&heads, &demand(&permissions));
            match expected {
                Some(uid) => assert_eq!(placement, Placement::On { pod_uid: uid.into() }, "{entries:?}"),
                None => assert!(
                    matches!(placement, Placement::NoMatch { .. }),
                    "{entries:?}: {placement:?}"
                ),
            }
        }
    }

    #[test]
    fn role_labels_and_gpus_must_all_match() {
        let anywhere = permissions(&[]);
        let mut gpu = head("gpu", Role::Inference);
        gpu.devices = vec!["GPU-1".into()];
        gpu.labels.insert("zone".into(), "a".into());
        let heads = vec![head("cpu", Role::Inference), gpu];
        let selector = HeadSelector {
            match_labels: BTreeMap::from([("zone".to_owned(), "a".to_owned())]),
        };
        let on_gpu = Placement::On {
            pod_uid: "uid-gpu".into(),
        };
        assert_eq!(
            place(
                &heads,
                &Demand {
                    gpus: 1,
                    ..demand(&anywhere)
                }
            ),
            on_gpu
        );
        assert_eq!(
            place(
                &heads,
                &Demand {
                    selector: Some(&selector),
                    ..demand(&anywhere)
                }
            ),
            on_gpu
        );
        let quantum = Demand {
            role: Some(Role::Quantum),
            ..demand(&anywhere)
        };
        assert!(matches!(place(&heads, &quantum), Placement::NoMatch { .. }));
        let two = Demand {
            gpus: 2,
            ..demand(&anywhere)
        };
        let Placement::NoMatch { message } = place(&heads, &two) else {
            panic!("two GPUs are not there")
        };
        assert!(message.contains("2 GPU(s)"), "{message}");
    }

    #[test]
    fn a_document_goes_where_all_its_languages_are_run() {
        let anywhere = permissions(&[]);
        let mut node = head("node", Role::Quantum);
        node.offer = Some(offer(&["python", "javascript"], &[]));
        let heads = vec![head("bash", Role::Quantum), node];
        for (languages, expected) in [
            (&["python"][..], Ok("uid-bash")),
            (&["python", "javascript"], Ok("uid-node")),
            (
                &["bash", "javascript"],
                Err("offers the language bash, the language javascript"),
            ),
            (
                &["python", "ortac"],
                Err("offers ortac, which the document's verification needs"),
            ),
        ] {
            let languages: Vec<_> = languages.iter().map(|&language| language.to_owned()).collect();
            let demand = Demand {
                languages: &languages,
                ..demand(&anywhere)
            };
            match (place(&heads, &demand), expected) {
                (Placement::On { pod_uid }, Ok(uid)) => assert_eq!(pod_uid, uid),
                (Placement::NoMatch { message }, Err(why)) => assert!(message.ends_with(why), "{message}"),
                (placement, _) => panic!("{languages:?}: {placement:?}"),
            }
        }
        let mut unknown = head("unknown", Role::Quantum);
        (unknown.offer, unknown.ready) = (None, false);
        let languages = ["javascript".to_owned()];
        let demand = Demand {
            languages: &languages,
            ..demand(&anywhere)
        };
        assert!(matches!(place(&[unknown], &demand), Placement::NotReady { .. }));
    }

    #[test]
    fn a_document_goes_where_its_packages_are_installed() {
        let anywhere = permissions(&[]);
        let mut torch = head("torch", Role::Quantum);
        torch.offer = Some(offer(&["python"], &[("torch", "2.9.0"), ("numpy", "1.26.4")]));
        let heads = vec![head("numpy", Role::Quantum), torch];
        for (packages, expected) in [
            (&["numpy>=2"][..], Ok("uid-numpy")),
            (&["numpy", "torch>=2,<3"], Ok("uid-torch")),
            (
                &["numpy>=99", "torch"],
                Err("offers the package numpy>=99 (installed is 2.3.1)"),
            ),
            (
                &["numpy>=2", "torch"],
                Err("offers all that the document requires at once"),
            ),
        ] {
            let packages: Vec<_> = packages.iter().map(|&package| package.to_owned()).collect();
            let demand = Demand {
                packages: &packages,
                ..demand(&anywhere)
            };
            match (place(&heads, &demand), expected) {
                (Placement::On { pod_uid }, Ok(uid)) => assert_eq!(pod_uid, uid),
                (Placement::NoMatch { message }, Err(why)) => assert!(message.ends_with(why), "{message}"),
                (placement, _) => panic!("{packages:?}: {placement:?}"),
            }
        }
    }

    #[test]
    fn a_document_needs_each_language_of_its_blocks_and_strict_ocaml_specifications_need_ortac() {
        for (level, expected) in [
            ("warn", &["python", "bash"][..]),
            ("strict", &["python", "bash", "ortac"]),
        ] {
            let text = format!(
                "---\nmaml_version: \"2.0\"\nid: urn:uuid:550e8400-e29b-41d4-a716-446655440000\ntype: workflow\n\
                 origin: agent://ann\npermissions: {{execute: ['*']}}\nverification: {{method: ortac-runtime, level: {level}}}\n\
                 ---\n## Intent\na\n## Context\nb\n## Code_Blocks\n```python\nx = 1\n```\n```bash\n:\n```\n```py\n```\n"
            );
            let document = maml::read(&text).document.expect("a document");
            assert_eq!(languages(&document), expected);
        }
    }

    #[test]
    fn spares_and_heads_that_are_not_ready_take_no_runs() {
        let anywhere = permissions(&[]);
        let mut spare = head("spare", Role::Quantum);
        spare.spare = true;
        let mut cold = head("cold", Role::Quantum);
        cold.ready = false;
        assert!(matches!(
            place(&[spare, cold], &demand(&anywhere)),
            Placement::NotReady { .. }
        ));
    }
}
