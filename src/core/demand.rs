//! What a run asks of a head, need by need, and what a head lacks of it. No IO.

use std::{collections::BTreeMap, fmt, time::Duration};

use api::{Isolation, MamlWorkflow, Role, maml_workflow::LostAttempt};
use jiff::Timestamp;
use maml::Document;

use crate::{
    placement::{HeadView, Offer},
    requirements::{Interpreter, meets_cuda, unmet},
};

/// What a head offers that can check OCaml specifications.
const ORTAC: &str = "ortac";
/// The distributions that simulate a circuit's state vector; one of them is enough.
const SIMULATORS: [&str; 2] = ["qiskit-aer", "qiskit"];
/// Bytes of one amplitude of a state vector: a complex number of two doubles.
const AMPLITUDE_BYTES: u128 = 16;

/// For how long after a loss another pod is waited for, were all of them busy.
const AVOIDED_FOR: Duration = Duration::from_secs(30);

/// The pods that have lost attempts of a run: the last resort for the next one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Tried {
    /// Their names, the latest last.
    pods: Vec<String>,
    /// Whether a place elsewhere is rather waited for.
    avoided: bool,
}

impl Tried {
    /// What these attempts have tried.
    pub fn of(attempts: &[LostAttempt], now: Timestamp) -> Self {
        let mut pods: Vec<String> = Vec::new();
        for pod in attempts.iter().filter_map(|lost| lost.pod.as_ref()) {
            pods.retain(|known| known != pod);
            pods.push(pod.clone());
        }
        let avoided = avoided_for(attempts, now).is_some();
        Self { pods, avoided }
    }

    /// How lately a pod has lost an attempt: the lower, the longer ago; none when it has lost none.
    pub fn lately(&self, pod: &str) -> Option<usize> {
        self.pods.iter().position(|tried| tried == pod)
    }

    /// Whether a pod is not used as long as another one takes such runs.
    pub fn avoids(&self, pod: &str) -> bool {
        self.avoided && self.lately(pod).is_some()
    }
}

/// For how long the pods of these attempts are avoided still.
pub fn avoided_for(attempts: &[LostAttempt], now: Timestamp) -> Option<Duration> {
    let last = attempts
        .iter()
        .filter(|lost| lost.pod.is_some())
        .map(|lost| lost.time)
        .max()?;
    let passed = Duration::try_from(now.duration_since(last)).unwrap_or_default();
    AVOIDED_FOR.checked_sub(passed).filter(|left| !left.is_zero())
}

/// What a run asks of a head. Runs of equal demands wait in one lane of the queue.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Demand {
    /// Namespace of the workflow: heads serve their own only.
    pub namespace: String,
    /// `spec.role`.
    pub role: Option<Role>,
    /// `spec.headSelector`: labels that the ChimeraHead must carry.
    pub labels: BTreeMap<String, String>,
    /// The roles that the document's `gateway://` entries allow.
    pub allowed: Vec<Role>,
    /// GPU devices.
    pub gpus: u32,
    /// Languages of the blocks, as [`languages`] gives them.
    pub languages: Vec<String>,
    /// Python packages, as in PEP 508.
    pub packages: Vec<String>,
    /// Version of CUDA that the driver must run.
    pub cuda: Option<String>,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
    /// Qubits of a circuit.
    pub qubits: Option<u32>,
    /// Whether a place beside other runs will do, or a pod of its own is asked for.
    pub isolation: Isolation,
    /// Where it has been tried.
    pub tried: Tried,
}

impl Demand {
    /// What this workflow asks for with this document, before any attempt.
    pub fn of(workflow: &MamlWorkflow, document: &Document) -> Self {
        let (spec, requires) = (&workflow.spec, &document.front_matter.requires);
        let permissions = &document.front_matter.permissions;
        let selector = spec.head_selector.as_ref();
        Self {
            namespace: workflow.metadata.namespace.clone().unwrap_or_default(),
            role: spec.role,
            labels: selector
                .map(|selector| selector.match_labels.clone())
                .unwrap_or_default(),
            allowed: Role::ALL
                .into_iter()
                .filter(|role| permissions.allows_gateway(role.gateway()))
                .collect(),
            gpus: requires.gpus,
            languages: languages(document),
            packages: requires.packages.clone(),
            cuda: requires.cuda.clone(),
            memory_bytes: requires.memory_bytes,
            qubits: requires.qubits,
            isolation: spec.isolation,
            tried: Tried::default(),
        }
    }

    /// Each thing that it asks for.
    pub fn needs(&self) -> Vec<Need<'_>> {
        let mut needs: Vec<_> = self.role.map(Need::Role).into_iter().collect();
        needs.extend(self.labels.iter().map(|(key, value)| Need::Label(key, value)));
        if self.allowed.len() < Role::ALL.len() {
            needs.push(Need::Allowed(&self.allowed));
        }
        if self.gpus > 0 {
            needs.push(Need::Gpus(self.gpus));
        }
        needs.extend(self.cuda.as_deref().map(Need::Cuda));
        needs.extend(self.memory_bytes.map(Need::Memory));
        needs.extend(self.qubits.map(Need::Qubits));
        needs.extend(self.languages.iter().map(|language| Need::Language(language)));
        needs.extend(self.packages.iter().map(|package| Need::Package(package)));
        needs
    }
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

/// One thing that a run asks of its head. Its text completes "offers …" and "a ChimeraHead with …".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need<'a> {
    /// `spec.role`.
    Role(Role),
    /// A label of `spec.headSelector`.
    Label(&'a str, &'a str),
    /// One of the roles that the document may run on.
    Allowed(&'a [Role]),
    /// So many devices.
    Gpus(u32),
    /// A version of CUDA.
    Cuda(&'a str),
    /// Bytes of memory.
    Memory(u64),
    /// Memory for the state vector of so many qubits.
    Qubits(u32),
    /// A language.
    Language(&'a str),
    /// A Python package, as in PEP 508.
    Package(&'a str),
}

impl fmt::Display for Need<'_> {
    fn fmt(&self, text: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Role(role) => write!(text, "role {role}"),
            Self::Label(key, value) => write!(text, "label {key}={value}"),
            Self::Allowed([]) => text.write_str("a name in the document's permissions.execute"),
            Self::Allowed(roles) => {
                let names: Vec<_> = roles.iter().map(|role| role.as_str()).collect();
                write!(
                    text,
                    "role {}, as the document's permissions.execute demands",
                    names.join(" or ")
                )
            }
            Self::Gpus(count) => write!(text, "{count} GPU(s)"),
            Self::Cuda(version) => write!(text, "CUDA {version}"),
            Self::Memory(bytes) => write!(text, "{} of memory", size(u128::from(*bytes))),
            Self::Qubits(count) => write!(text, "{count} qubits"),
            Self::Language(ORTAC) => text.write_str("ortac, which the document's verification needs"),
            Self::Language(language) => write!(text, "the language {language}"),
            Self::Package(package) => write!(text, "the package {package}"),
        }
    }
}

impl Need<'_> {
    /// What the head has instead, when it does not meet the need; empty where the need says it all. What a head has not
    /// told is not held against it while it is not ready; what a ready head does not know of itself, it does not offer.
    pub fn lacking(&self, head: &HeadView) -> Option<String> {
        let unless = |met: bool, instead: &str| (!met).then(|| instead.to_owned());
        match self {
            Self::Role(role) => unless(*role == head.role, &format!("it is {}", head.role)),
            Self::Label(key, value) => unless(head.labels.get(*key).is_some_and(|has| has == value), ""),
            Self::Allowed(roles) => unless(roles.contains(&head.role), &format!("it is {}", head.role)),
            Self::Gpus(wanted) => gpus_lacking(*wanted, head),
            _ => self.lacking_of(head.offer.as_deref()?),
        }
    }

    fn lacking_of(&self, offer: &Offer) -> Option<String> {
        match self {
            Self::Cuda(version) => cuda_lacking(version, &offer.cuda),
            Self::Memory(bytes) => memory_lacking(u128::from(*bytes), offer.memory_bytes),
            Self::Qubits(count) => qubits_lacking(*count, offer),
            Self::Language(language) => {
                let offered = offer.languages.iter().any(|offered| offered == language);
                (!offered).then(String::new)
            }
            Self::Package(package) => {
                let interpreter = Interpreter {
                    name: &offer.interpreter,
                    packages: &offer.packages,
                };
                unmet(&[(*package).to_owned()], interpreter).pop()
            }
            Self::Role(_) | Self::Label(..) | Self::Allowed(_) | Self::Gpus(_) => None,
        }
    }
}

/// Devices are known from the agent; of a head that has not told, by what its pods ask for.
fn gpus_lacking(wanted: u32, head: &HeadView) -> Option<String> {
    if head.gpus >= wanted {
        return None;
    }
    let sick = usize::try_from(head.gpus).map_or(0, |healthy| head.devices.len().saturating_sub(healthy));
    Some(match (head.gpus, sick) {
        (0, 0) => "it has none".to_owned(),
        (healthy, 0) => format!("it has {healthy}"),
        (healthy, sick) => format!("it has {healthy}, and {sick} unhealthy"),
    })
}

fn cuda_lacking(wanted: &str, offered: &str) -> Option<String> {
    if offered.is_empty() {
        return Some("its version is unknown".to_owned());
    }
    match meets_cuda(wanted, offered) {
        Some(true) => None,
        Some(false) => Some(format!("newest is {offered}")),
        None => Some(format!("{offered} cannot be compared with it")),
    }
}

fn memory_lacking(wanted: u128, offered: u64) -> Option<String> {
    match offered {
        0 => Some("what its runs may use is unknown".to_owned()),
        _ if u128::from(offered) >= wanted => None,
        _ => Some(format!("its runs may use {}", size(u128::from(offered)))),
    }
}

fn qubits_lacking(count: u32, offer: &Offer) -> Option<String> {
    if !SIMULATORS.iter().any(|name| offer.packages.contains_key(*name)) {
        return Some(format!("neither {} is installed", SIMULATORS.join(" nor ")));
    }
    let Some(needed) = 1_u128
        .checked_shl(count)
        .and_then(|n| n.checked_mul(AMPLITUDE_BYTES))
    else {
        return Some("no computer holds their state vector".to_owned());
    };
    let instead = memory_lacking(needed, offer.memory_bytes)?;
    Some(format!(
        "their state vector takes {}, and {instead}",
        size(needed)
    ))
}

/// Bytes for people, rounded to a tenth of the largest binary unit that fits.
fn size(bytes: u128) -> String {
    const UNITS: [&str; 7] = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let (mut unit, mut base) = (0, 1_u128);
    while unit + 1 < UNITS.len() && bytes / base >= 1024 {
        unit += 1;
        base *= 1024;
    }
    // Rounded, in tenths.
    let tenths = (bytes / base).saturating_mul(10) + ((bytes % base) * 10 + base / 2) / base;
    let (whole, part) = (tenths / 10, tenths % 10);
    if part == 0 {
        format!("{whole} {}", UNITS[unit])
    } else {
        format!("{whole}.{part} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::placement::tests::head;

    fn offering(cuda: &str, memory_bytes: u64, packages: &[&str]) -> HeadView {
        let packages = packages.iter().map(|&name| (name.to_owned(), "1.0".to_owned()));
        let offer = Offer {
            languages: vec!["python".into()],
            interpreter: "CPython 3.13.5".into(),
            packages: packages.collect(),
            cuda: cuda.into(),
            memory_bytes,
        };
        HeadView {
            offer: Some(Arc::new(offer)),
            ..head("a", Role::Quantum)
        }
    }

    #[test]
    fn cuda_is_met_by_what_the_driver_runs() {
        for (wanted, offered, lacking) in [
            ("12.4", "12.4", None),
            ("12.4", "12.8", None),
            ("12", "13.0", None),
            ("12.4", "12.2", Some("newest is 12.2")),
            (">=13", "12.8", Some("newest is 12.8")),
            (">=12,<13", "12.8", None),
            ("==12.*", "12.8", None),
            ("12.4", "", Some("its version is unknown")),
            ("12.4", "new", Some("new cannot be compared with it")),
        ] {
            let head = offering(offered, 0, &[]);
            assert_eq!(
                Need::Cuda(wanted).lacking(&head).as_deref(),
                lacking,
                "{wanted} of {offered}"
            );
        }
    }

    #[test]
    fn memory_is_compared_with_what_a_run_may_use_and_unknown_memory_offers_nothing() {
        for (wanted, offered, lacking) in [
            (2 << 30, 2 << 30, None),
            ((2 << 30) + 1, 2 << 30, Some("its runs may use 2 GiB")),
            (1, 0, Some("what its runs may use is unknown")),
        ] {
            let head = offering("", offered, &[]);
            assert_eq!(Need::Memory(wanted).lacking(&head).as_deref(), lacking);
        }
    }

    #[test]
    fn qubits_need_a_simulator_and_memory_for_their_state_vector() {
        let simulating = |memory| offering("", memory, &["qiskit"]);
        for (count, head, lacking) in [
            (20, simulating(16 << 20), None),
            (
                21,
                simulating(16 << 20),
                Some("their state vector takes 32 MiB, and its runs may use 16 MiB"),
            ),
            (
                2,
                offering("", 1 << 30, &["numpy"]),
                Some("neither qiskit-aer nor qiskit is installed"),
            ),
            (
                2,
                simulating(0),
                Some("their state vector takes 64 bytes, and what its runs may use is unknown"),
            ),
            (
                126,
                simulating(1 << 30),
                Some("no computer holds their state vector"),
            ),
            (
                u32::MAX,
                simulating(1 << 30),
                Some("no computer holds their state vector"),
            ),
        ] {
            assert_eq!(Need::Qubits(count).lacking(&head).as_deref(), lacking, "{count}");
        }
    }

    #[test]
    fn devices_that_are_not_healthy_are_not_offered() {
        let mut head = head("gpu", Role::Inference);
        head.devices = vec!["GPU-1".into(), "GPU-2".into()];
        head.gpus = 1;
        assert_eq!(Need::Gpus(1).lacking(&head), None);
        assert_eq!(
            Need::Gpus(2).lacking(&head).as_deref(),
            Some("it has 1, and 1 unhealthy")
        );
    }

    #[test]
    fn pods_that_lost_attempts_are_known_by_how_lately_and_avoided_for_a_while() {
        let lost = |attempt, pod: &str, second| LostAttempt {
            attempt,
            head: Some("h".into()),
            pod: Some(pod.into()),
            reason: "HeadLost".into(),
            message: None,
            time: Timestamp::from_second(second).expect("in range"),
        };
        let attempts = [lost(1, "a", 10), lost(2, "b", 20), lost(3, "a", 30)];
        let at = |second| Tried::of(&attempts, Timestamp::from_second(second).expect("in range"));
        let tried = at(30);
        assert_eq!(
            ["b", "a", "c"].map(|pod| tried.lately(pod)),
            [Some(0), Some(1), None]
        );
        for (second, avoided) in [(30, true), (59, true), (60, false)] {
            assert_eq!(
                (at(second).avoids("a"), at(second).avoids("c")),
                (avoided, false),
                "{second}"
            );
        }
        assert_eq!(at(60).lately("a"), Some(1), "it stays the last choice");
        let nowhere = LostAttempt {
            pod: None,
            ..lost(1, "a", 10)
        };
        assert_eq!(Tried::of(&[nowhere], attempts[0].time), Tried::default());
    }

    #[test]
    fn sizes_are_written_for_people() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1536, "1.5 KiB"),
            (16_000_000_000, "14.9 GiB"),
            (16 << 70, "16384 EiB"),
            (u128::MAX, "295147905179352825856 EiB"),
        ] {
            assert_eq!(size(bytes), text);
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
}
