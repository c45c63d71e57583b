//! The command line and the environment of the agent.

use crate::agent::Setup;
use crate::environment::{devices, image_digest};
use crate::runs::Keep;
use clap::Parser;
use sandbox::attestation::Machine;
use sandbox::consumption::Consumption;
use sandbox::environment;
use sandbox::policy::{self, Limits, Policy};
use sandbox::zygote::Configuration;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

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
    #[arg(long, default_value_t = 2048)]
    pub run_memory_mib: u64,
    /// What a run may hold on disk, in MiB.
    #[arg(long, default_value_t = 1024)]
    pub run_disk_mib: u64,
    /// Processes and threads of one run.
    #[arg(long, default_value_t = 256)]
    pub run_processes: u64,
    /// Landlock ABI that the kernel must offer. Below 6, runs of one head could signal one another.
    #[arg(long, default_value_t = 6)]
    pub minimum_landlock: u32,
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
    /// Devices that the container runtime gave to this pod.
    #[arg(long, env = "NVIDIA_VISIBLE_DEVICES", hide = true)]
    pub devices: Option<String>,
}

impl Arguments {
    /// The agent's setup. `lookup` gives the variables that interpreters inherit.
    pub fn setup(&self, lookup: impl Fn(&str) -> Option<OsString>) -> Result<Setup, policy::Error> {
        let limits = Limits {
            memory: self.run_memory_mib << 20,
            file: self.run_disk_mib << 20,
            descriptors: 1024,
            processes: self.run_processes.saturating_mul(16),
        };
        let inherited = environment::of_interpreter(lookup);
        Ok(Setup {
            pod_uid: self.pod_uid.clone(),
            workers: self.workers as usize,
            runs: self.runs.clone(),
            keep: Keep {
                count: self.keep_runs,
                bytes: self.keep_mib << 20,
            },
            zygote: Configuration {
                python: self.python.clone(),
                preload: self.preload.clone(),
                policy: Policy::new(limits, self.minimum_landlock, environment::of_runs(&inherited))?,
                environment: inherited,
            },
            together: Consumption {
                tasks: self.run_processes,
                memory: limits.memory,
                disk: limits.file,
            },
            machine: Machine {
                image_digest: image_digest(self.image.as_deref()),
                devices: devices(self.devices.as_deref()),
                only_run: self.only_run.clone(),
            },
            journal: true,
        })
    }
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
