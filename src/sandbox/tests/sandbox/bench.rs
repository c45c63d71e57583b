//! One zygote, and what a run on it comes to.

use crypto::attestation::{BlockState, RunError};
use rustix::fs::{Dir, Mode, OFlags};
use sandbox::consumption::Consumption;
use sandbox::environment;
use sandbox::execution::{Happening, Outcome, Place, execute, wait_until_ready};
use sandbox::folder::Folders;
use sandbox::job::{Block, Job};
use sandbox::policy::{Limits, Policy};
use sandbox::stream::Stream;
use sandbox::workers::{Configuration, Ready, Warmth, Workers};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::sync::watch;

/// How much the runs of a bench may use.
#[derive(Clone, Copy)]
pub struct Allowed {
    pub memory_mib: u64,
    pub disk_mib: u64,
    pub tasks: u64,
}

impl Default for Allowed {
    fn default() -> Self {
        Self {
            memory_mib: 2048,
            disk_mib: 256,
            tasks: 128,
        }
    }
}

pub struct Bench {
    pub ready: Arc<Ready>,
    workers: Workers,
    together: Consumption,
    folder: TempDir,
}

/// A run that is over.
#[derive(Debug)]
pub struct Ran {
    pub outcome: Outcome,
    pub stdout: String,
    pub stderr: String,
    /// What happened, in its order.
    pub happenings: Vec<Happening>,
}

impl Ran {
    pub fn outputs(&self) -> Value {
        let outputs = self.outcome.result.as_ref();
        let outputs = outputs.unwrap_or_else(|error| panic!("{error:?}\n{}{}", self.stdout, self.stderr));
        serde_json::from_slice(outputs).unwrap()
    }

    pub fn error(&self) -> &RunError {
        self.outcome.result.as_ref().expect_err("the run fails")
    }

    pub fn states(&self) -> Vec<BlockState> {
        self.outcome.blocks.iter().map(|block| block.state).collect()
    }
}

impl Bench {
    pub async fn start() -> Self {
        Self::start_with(Allowed::default(), true).await
    }

    pub async fn start_with(allowed: Allowed, confined: bool) -> Self {
        Self::try_start(allowed, confined, None).await.unwrap()
    }

    /// With workers that wait, and a driver's library in `folder`.
    pub async fn with_driver(folder: &Path, workers: usize) -> Result<Self, String> {
        Self::try_start(Allowed::default(), true, Some((folder, workers))).await
    }

    async fn try_start(
        allowed: Allowed,
        confined: bool,
        driver: Option<(&Path, usize)>,
    ) -> Result<Self, String> {
        let folder = tempfile::tempdir().unwrap();
        let limits = Limits {
            memory: allowed.memory_mib << 20,
            file: allowed.disk_mib << 20,
            descriptors: 1024,
            processes: 4096,
        };
        let mut interpreter = environment::of_interpreter(|name| std::env::var_os(name));
        if let Some((library, _)) = driver {
            // What Python imports from, a run may read.
            for name in ["LD_LIBRARY_PATH", "PYTHONPATH"] {
                interpreter.insert(name.into(), library.into());
            }
        }
        let of_runs = environment::of_runs(&interpreter);
        let policy = if confined {
            Policy::new(limits, 6, of_runs).unwrap()
        } else {
            Policy::unconfined(limits, of_runs)
        };
        let workers = Workers::start(Configuration {
            python: std::env::var_os("CHIMERA_PYTHON").unwrap_or_else(|| "python3".into()),
            preload: vec![],
            policy,
            environment: interpreter,
            folders: Folders::open(&folder.path().join("runs")).unwrap(),
            warmth: driver.map_or(Warmth::Fork, |(_, workers)| Warmth::Cuda(workers)),
            standby: false,
        });
        let ready = wait_until_ready(&workers, Duration::from_secs(60)).await?;
        Ok(Self {
            ready,
            workers,
            together: Consumption {
                tasks: allowed.tasks,
                memory: allowed.memory_mib << 20,
                disk: allowed.disk_mib << 20,
            },
            folder,
        })
    }

    pub fn offers(&self, language: &str) -> bool {
        self.ready.languages.iter().any(|offered| offered == language)
    }

    pub async fn run(&self, job: &Job) -> Ran {
        let place = Place {
            workers: &self.workers,
            together: self.together,
        };
        let (mut stdout, mut stderr, mut happenings) = (Vec::new(), Vec::new(), Vec::new());
        let (_keep, stop) = watch::channel(None);
        let outcome = execute(place, job, stop, |happening| {
            if let Happening::Printed(stream, data) = &happening {
                match stream {
                    Stream::Stdout => stdout.extend(data),
                    Stream::Stderr => stderr.extend(data),
                }
            }
            happenings.push(happening);
        })
        .await;
        let runs = self.folder.path().join("runs");
        for folder in std::fs::read_dir(runs).unwrap() {
            assert_holds_nothing(&folder.unwrap().path());
        }
        Ran {
            outcome,
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
            happenings,
        }
    }

    /// Runs blocks, given as language and code; the first begins at line 10, each ten lines after the last.
    pub async fn run_blocks(&self, blocks: &[(&str, &str)], inputs: &str) -> Ran {
        self.run(&job(blocks, inputs)).await
    }
}

/// What is kept for later runs, and what waits for one, has no more than its parts in it.
fn assert_holds_nothing(folder: &Path) {
    let parts = ["work", "home", "tmp"].map(|part| entries(&folder.join(part)));
    assert_eq!((entries(folder), parts), (3, [0; 3]), "nothing of a run remains");
}

/// Counted without a trace, so that later runs get a folder that was counted.
fn entries(folder: &Path) -> usize {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOATIME;
    let opened = rustix::fs::open(folder, flags, Mode::empty()).unwrap();
    let names = Dir::new(opened)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_owned());
    names
        .filter(|name| ![c".", c".."].contains(&name.as_c_str()))
        .count()
}

/// A job of blocks named `a`, `b` and so on.
pub fn job(blocks: &[(&str, &str)], inputs: &str) -> Job {
    let blocks = blocks.iter().zip("abcdefgh".chars()).zip(1..);
    Job {
        blocks: blocks
            .map(|(((language, code), name), number)| Block {
                name: name.into(),
                language: (*language).into(),
                code: (*code).into(),
                line: number * 10,
                output: name.into(),
                ..Block::default()
            })
            .collect(),
        inputs: inputs.into(),
        outputs: None,
        specifications: vec![],
        strict: false,
        time_limit: Duration::from_secs(30),
    }
}
