//! Processes of pods on the local cluster, whose node is this machine: found by their control group, never by name.

use std::{fs, path::PathBuf};

use rustix::process::{Pid, Signal, kill_process};

/// One process of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process(i32);

/// The processes of the pod with that UID, without the one that only holds its namespaces.
pub fn of_pod(uid: &str) -> Vec<Process> {
    let entries = fs::read_dir("/proc").expect("this machine has a /proc");
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    // cgroupfs writes the UID as it is, systemd with underscores.
    let slices = [format!("pod{uid}"), format!("pod{}", uid.replace('-', "_"))];
    let in_pod = |pid: &i32| {
        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        slices.iter().any(|slice| groups.contains(slice))
    };
    let is_pause =
        |pid: &i32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"/pause"));
    numbers
        .filter(in_pod)
        .filter(|pid| !is_pause(pid))
        .map(Process)
        .collect()
}

/// The agent in a head's pod.
pub fn agent_of(uid: &str) -> Option<Process> {
    of_pod(uid).into_iter().find(|process| process.is_agent())
}

/// The interpreters that the agent of a head's pod keeps warm: what it has started itself.
pub fn interpreters_of(uid: &str) -> Vec<Process> {
    let Some(agent) = agent_of(uid) else {
        return Vec::new();
    };
    let mut all = of_pod(uid);
    all.retain(|process| process.parent() == Some(agent));
    all
}

impl Process {
    fn is_agent(self) -> bool {
        fs::read_to_string(format!("/proc/{}/comm", self.0))
            .is_ok_and(|name| name.trim_end() == "chimera-head")
    }

    fn parent(self) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0)).ok()?;
        // The name before it may hold blanks and brackets.
        let rest = stat.rsplit_once(')')?.1;
        rest.split_whitespace().nth(1)?.parse().ok().map(Self)
    }

    /// Halts it, as if its node did not reach the network: its connections stay open and say nothing.
    pub fn halt(self) {
        self.send(Signal::STOP)
            .unwrap_or_else(|error| panic!("halt process {}: {error}", self.0));
    }

    /// Lets it go on, if it is still there.
    pub fn resume(self) {
        // It may have been killed meanwhile.
        let _ = self.send(Signal::CONT);
    }

    fn send(self, signal: Signal) -> rustix::io::Result<()> {
        let pid = Pid::from_raw(self.0).expect("a process found in /proc has a number above 0");
        kill_process(pid, signal)
    }

    /// Whether its memory may be written into a core dump or read by another process of its user. The kernel gives the files
    /// of a process that hides its memory to root.
    pub fn is_dumpable(self) -> bool {
        use std::os::unix::fs::MetadataExt as _;
        let status = fs::read_to_string(format!("/proc/{}/status", self.0)).unwrap_or_default();
        let user = status.lines().find_map(|line| line.strip_prefix("Uid:"));
        let user: u32 = user
            .and_then(|ids| ids.split_whitespace().next()?.parse().ok())
            .unwrap_or_else(|| panic!("process {} has no user", self.0));
        assert_ne!(user, 0, "process {} is root's: nothing can be told apart", self.0);
        let environment = fs::metadata(format!("/proc/{}/environ", self.0));
        environment.is_ok_and(|file| file.uid() == user)
    }

    /// Ends it by SIGKILL: it gets no chance to tidy up.
    pub fn kill(self) {
        self.send(Signal::KILL)
            .unwrap_or_else(|error| panic!("kill process {}: {error}", self.0));
    }

    /// The most memory that it ever held, in bytes.
    pub fn peak_memory(self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.split_whitespace()
            .next()?
            .parse::<u64>()
            .ok()
            .map(|kib| kib * 1024)
    }

    /// CPU seconds that all processes of its container used, those that ended included.
    pub fn container_cpu_seconds(self) -> Option<f64> {
        let (version, folder) = self.control_group("cpuacct")?;
        let nanos: u64 = if version == 1 {
            fs::read_to_string(folder.join("cpuacct.usage"))
                .ok()?
                .trim()
                .parse()
                .ok()?
        } else {
            let stat = fs::read_to_string(folder.join("cpu.stat")).ok()?;
            let micros = stat.lines().find_map(|line| line.strip_prefix("usage_usec "))?;
            micros.parse::<u64>().ok()? * 1000
        };
        #[expect(clippy::cast_precision_loss, reason = "seconds for a person to read")]
        let seconds = nanos as f64 / 1e9;
        Some(seconds)
    }

    /// The most memory that all processes of its container held at once, in bytes; the file cache counts too.
    pub fn container_peak_memory(self) -> Option<u64> {
        let (version, folder) = self.control_group("memory")?;
        let file = if version == 1 {
            "memory.max_usage_in_bytes"
        } else {
            "memory.peak"
        };
        fs::read_to_string(folder.join(file)).ok()?.trim().parse().ok()
    }

    /// Version of the control groups and the folder of the process's, for one controller.
    fn control_group(self, controller: &str) -> Option<(u8, PathBuf)> {
        let groups = fs::read_to_string(format!("/proc/{}/cgroup", self.0)).ok()?;
        let mut unified = None;
        for line in groups.lines() {
            let mut fields = line.splitn(3, ':');
            let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            if controllers.split(',').any(|name| name == controller) {
                let folders = [controllers, controller]
                    .map(|name| PathBuf::from(format!("/sys/fs/cgroup/{name}{path}")));
                return folders
                    .into_iter()
                    .find(|folder| folder.exists())
                    .map(|folder| (1, folder));
            }
            if controllers.is_empty() {
                unified = Some((2, PathBuf::from(format!("/sys/fs/cgroup{path}"))));
            }
        }
        unified
    }
}
