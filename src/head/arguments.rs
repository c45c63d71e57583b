//! The command line and the environment of the agent.

use crate::agent::Setup;
use crate::environment::{image_digest, visible_devices};
use crate::gpu;
use crate::runs::Keep;
use clap::Parser;
use sandbox::attestation::Machine;
use sandbox::consumption::Consumption;
use sandbox::environment;
use sandbox::folder::Folders;
use sandbox::policy::{self, Limits, Policy};
use sandbox::workers::{Configuration, Warmth};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why a head cannot be set up as its arguments say.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No policy for the runs.
    #[error("make the sandbox policy")]
    Policy(#[from] policy::Error),
    /// No folder for the runs.
    #[error("make the folder of the runs {}", path.display())]
    Folders {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// What keeps a run from everything else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Isolation {
    /// Landlock with signals and abstract sockets, seccomp and limits; a kernel without one of them gives no ready head
    #[default]
    Full,
    /// Landlock of any ABI, seccomp and limits: on an older kernel runs of one head can signal one another
    Files,
    /// Limits alone, for nodes whose runtime confines the pod by itself; attestations say so
    Limits,
}

/// Runs MAML documents in one pod, for the controller that holds the right client certificate.
#[derive(Debug, Parser)]
#[command(name = "chimera-head", version)]
pub struct Arguments {
    /// Runs at once.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub workers: u32,
    /// Python modules that are imported before the first run, separated by commas.
    #[arg(long, value_delimiter = ',', value_parser = module)]
    pub preload: Vec<String>,
    /// Where the controller calls.
    #[arg(long, default_value = "0.0.0.0:7443")]
    pub listen: SocketAddr,
    /// Where the kubelet asks for health.
    #[arg(long, default_value = "0.0.0.0:7444")]
    pub health: SocketAddr,
    /// Folder with tls.crt, tls.key, ca.crt and root.pem.
    #[arg(long, default_value = "/etc/chimera/identity")]
    pub identity: PathBuf,
    /// Folder for the runs; it is emptied at start.
    #[arg(long, default_value = "/tmp/runs")]
    pub runs: PathBuf,
    /// Memory of a run beyond what the warm interpreter holds, in MiB.
    #[arg(long, env = "CHIMERA_RUN_MEMORY_MIB", default_value_t = 2048, value_parser = mebibytes())]
    pub run_memory_mib: u64,
    /// What a run may hold on disk, in MiB.
    #[arg(long, env = "CHIMERA_RUN_DISK_MIB", default_value_t = 1024, value_parser = mebibytes())]
    pub run_disk_mib: u64,
    /// Processes and threads of one run.
    #[arg(long, default_value_t = 256)]
    pub run_processes: u64,
    /// What keeps a run from everything else.
    #[arg(long, env = "CHIMERA_ISOLATION", value_enum, default_value_t)]
    pub isolation: Isolation,
    /// Time between two computations with a known answer while the head is idle, in seconds.
    #[arg(long, env = "CHIMERA_CANARY_SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    pub canary_seconds: u64,
    /// Time that runs have to finish after SIGTERM, in seconds.
    #[arg(long, default_value_t = 25)]
    pub grace_seconds: u64,
    /// Finished runs that are kept for controllers that ask again.
    #[arg(long, default_value_t = 1000)]
    pub keep_runs: usize,
    /// Memory for those, in MiB.
    #[arg(long, default_value_t = 64)]
    pub keep_mib: usize,
    /// UID of this pod, as grants name it.
    #[arg(long, env = "CHIMERA_POD_UID")]
    pub pod_uid: String,
    /// The one run that this pod is there for, by its id: no other is taken.
    #[arg(long, env = "CHIMERA_ONLY_RUN")]
    pub only_run: Option<String>,
    /// The interpreter.
    #[arg(long, env = "CHIMERA_PYTHON", default_value = "python3")]
    pub python: OsString,
    /// The image that this pod runs; its digest, if it has one, goes into attestations.
    #[arg(long, env = "CHIMERA_IMAGE")]
    pub image: Option<String>,
    /// The management library of the GPU's driver.
    #[arg(long, default_value = devices::driver::LIBRARY, hide = true)]
    pub nvml: OsString,
    /// Devices that the container runtime gave to this pod, until the driver tells of them.
    #[arg(long, env = "NVIDIA_VISIBLE_DEVICES", hide = true)]
    pub devices: Option<String>,
}

impl Arguments {
    /// The agent's setup. `lookup` gives the variables that interpreters inherit.
    pub fn setup(&self, lookup: impl Fn(&str) -> Option<OsString>) -> Result<Setup, Error> {
        let limits = Limits {
            memory: self.run_memory_mib << 20,
            file: self.run_disk_mib << 20,
            descriptors: 1024,
            processes: self.run_processes.saturating_mul(16),
        };
        let inherited = environment::of_interpreter(lookup);
        let nodes = device_nodes(Path::new("/dev"));
        let of_runs = environment::of_runs(&inherited);
        let policy = match self.isolation {
            Isolation::Full => Policy::new(limits, SCOPED_LANDLOCK, of_runs)?,
            Isolation::Files => Policy::new(limits, 1, of_runs)?,
            Isolation::Limits => Policy::unconfined(limits, of_runs),
        };
        let folders = Folders::open(&self.runs).map_err(|source| Error::Folders {
            path: self.runs.clone(),
            source,
        })?;
        Ok(Setup {
            pod_uid: self.pod_uid.clone(),
            workers: self.workers as usize,
            keep: Keep {
                count: self.keep_runs,
                bytes: self.keep_mib << 20,
            },
            interpreter: Configuration {
                python: self.python.clone(),
                preload: self.preload.clone(),
                environment: inherited,
                folders,
                warmth: if nodes.is_empty() {
                    Warmth::Fork
                } else {
                    Warmth::Cuda(self.workers as usize)
                },
                policy: policy.with_devices(nodes.clone()),
                standby: true,
            },
            gpus: (!nodes.is_empty() || self.nvml != *devices::driver::LIBRARY).then(|| gpu::Configuration {
                library: self.nvml.clone(),
                program: std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into()),
            }),
            canary_every: Duration::from_secs(self.canary_seconds),
            together: Consumption {
                tasks: self.run_processes,
                memory: limits.memory,
                disk: limits.file,
            },
            machine: Machine {
                image_digest: image_digest(self.image.as_deref()),
                devices: visible_devices(self.devices.as_deref()),
                only_run: self.only_run.clone(),
            },
            journal: true,
        })
    }
}

/// The landlock ABI that keeps signals and abstract sockets inside a run.
const SCOPED_LANDLOCK: u32 = 6;

/// Nodes of NVIDIA's driver in `folder`: there are some exactly when the container runtime gave this pod a GPU.
fn device_nodes(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut nodes: Vec<_> = names
        .filter(|name| name.starts_with("nvidia"))
        .map(|name| folder.join(name).to_string_lossy().into_owned())
        .collect();
    nodes.sort();
    nodes
}

/// Amounts whose bytes can be counted.
fn mebibytes() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(..=1 << 40)
}

fn module(name: &str) -> Result<String, String> {
    let part = |part: &str| {
        let mut bytes = part.bytes();
        bytes
            .next()
            .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
            && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    if name.split('.').all(part) {
        Ok(name.to_owned())
    } else {
        Err("not the name of a Python module".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(more: &[&str]) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(["chimera-head", "--pod-uid", "u"].iter().chain(more))
    }

    #[test]
    fn nodes_of_a_gpu_are_found() {
        let folder = tempfile::tempdir().unwrap();
        assert!(device_nodes(folder.path()).is_empty());
        for name in ["nvidiactl", "nvidia0", "null"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let nodes = device_nodes(folder.path());
        assert_eq!(nodes.len(), 2);
        assert!(nodes[0].ends_with("/nvidia0"));
    }

    #[test]
    fn amounts_are_those_that_can_be_counted_in_bytes() {
        assert_eq!(parse(&["--run-memory-mib", "0"]).unwrap().run_memory_mib, 0);
        assert!(parse(&["--run-disk-mib", "17592186044416"]).is_err());
    }

    #[test]
    fn only_names_of_modules_are_preloaded() {
        assert_eq!(
            parse(&["--preload", "numpy,a.b_2"]).unwrap().preload,
            ["numpy", "a.b_2"]
        );
        for bad in ["os; x", "a..b", "1a", "a b"] {
            assert!(parse(&["--preload", bad]).is_err(), "{bad}");
        }
    }
}
