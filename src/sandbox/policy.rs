//! The sandbox policy: which system calls and which paths a run may use, and how much of everything.
//!
//! Decided here, in force in the child (`python/sandbox.py`). The lists name what is allowed; whatever a kernel adds
//! later stays refused until someone decides otherwise.

mod calls;
mod filters;
mod paths;

use filters::{encode, first, last};
use paths::{DEVICE, DRIVER, EXECUTE, READ};
use serde::Serialize;
use std::collections::BTreeMap;

/// Why no filter could be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rules do not compile to BPF.
    #[error("compile the seccomp filter")]
    Compile(#[from] seccompiler::BackendError),
}

/// How much a run may use.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Limits {
    /// Memory of each of the run's processes beyond what the warm interpreter holds already, in bytes.
    pub memory: u64,
    /// Length of a single file, in bytes.
    pub file: u64,
    /// Open descriptors of each process.
    pub descriptors: u64,
    /// Processes and threads that the kernel lets a run's user have: it counts those of other runs, of the agent and of
    /// other pods with the same user too, so this is a brake for the node and no limit for a run.
    pub processes: u64,
}

/// What the zygote puts in force in each child.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    /// False where the user gave up confinement: then limits alone are put in force.
    confined: bool,
    /// The landlock ABI below which nothing is run. 6 confines files, TCP, signals and abstract sockets.
    minimum_landlock: u32,
    /// BPF programs that the zygote installs before it forks, in their order, base64.
    seccomp: Vec<String>,
    /// Those that a child adds when nothing is left to do but run the document.
    last_seccomp: Vec<String>,
    /// Paths by what is allowed beneath them. The interpreter's own folders are added by the zygote.
    paths: BTreeMap<&'static str, Vec<String>>,
    limits: Limits,
    /// The environment of user code; HOME and TMPDIR are added for each run.
    environment: BTreeMap<String, String>,
}

impl Policy {
    /// The policy for heads: no network, nothing but the interpreter and the run's own folder.
    pub fn new(
        limits: Limits,
        minimum_landlock: u32,
        environment: BTreeMap<String, String>,
    ) -> Result<Self, Error> {
        let owned = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
        Ok(Self {
            confined: true,
            minimum_landlock,
            seccomp: first()?.iter().map(encode).collect(),
            last_seccomp: last()?.iter().map(encode).collect(),
            paths: BTreeMap::from([
                ("execute", owned(EXECUTE)),
                ("read", owned(READ)),
                ("device", owned(DEVICE)),
            ]),
            limits,
            environment,
        })
    }

    /// Opens device nodes to runs, and what a GPU's driver tells of itself.
    #[must_use]
    pub fn with_devices(mut self, nodes: Vec<String>) -> Self {
        if self.confined && !nodes.is_empty() {
            self.paths.entry("device").or_default().extend(nodes);
            let told = DRIVER.iter().map(|path| (*path).to_owned());
            self.paths.entry("read").or_default().extend(told);
        }
        self
    }

    /// Whether runs are kept to themselves.
    pub(crate) fn confines(&self) -> bool {
        self.confined
    }

    /// Resource limits, a process group and an environment of its own, and nothing else: for machines that cannot
    /// confine a run, when the user has said that he trusts the document. Attestations say so.
    pub fn unconfined(limits: Limits, environment: BTreeMap<String, String>) -> Self {
        Self {
            confined: false,
            minimum_landlock: 0,
            seccomp: vec![],
            last_seccomp: vec![],
            paths: BTreeMap::new(),
            limits,
            environment,
        }
    }
}
