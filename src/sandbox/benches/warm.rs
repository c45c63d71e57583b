//! What a warm interpreter saves, and what it costs: the time from an order to a finished run beside that of a cold start, and
//! the memory of an idle head's interpreters beside an idle Python with the same modules; what a lost zygote costs; and the
//! processor time of a run of one line, which noise changes less than the time that it takes.
//!
//! `CHIMERA_PYTHON` names the interpreter, `CHIMERA_PRELOAD` its modules (qiskit, qiskit_aer). `cargo bench … -- processor`
//! measures the processor time alone.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a benchmark prints, and may panic"
)]

use sandbox::consumption::Consumption;
use sandbox::environment;
use sandbox::execution::{Place, execute, wait_until_ready};
use sandbox::folder::Folders;
use sandbox::job::{Block, Job};
use sandbox::policy::{Limits, Policy};
use sandbox::workers::{Configuration, State, Warmth, Workers};
use std::ffi::OsString;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

const RUNS: usize = 200;
const COLD: usize = 5;
const KILLS: usize = 30;
const LINES: u32 = 512;

#[tokio::main]
async fn main() {
    let python = std::env::var_os("CHIMERA_PYTHON").unwrap_or_else(|| "python3".into());
    let modules = std::env::var("CHIMERA_PRELOAD").unwrap_or_else(|_| "qiskit,qiskit_aer".into());
    for (preload, at_once) in [("", 4), ("", 16), (&*modules, 4)] {
        processor_time(&python, preload, at_once).await;
    }
    if std::env::args().any(|argument| argument == "processor") {
        return;
    }
    let imports = format!("import {modules}");

    let mut cold: Vec<_> = (0..COLD).map(|_| cold_start(&python, &imports)).collect();
    figures("cold start: python, import, end", &mut cold);

    let folder = tempfile::tempdir().unwrap();
    let workers = start(&python, &modules, folder.path(), false);
    wait_until_ready(&workers, Duration::from_mins(2))
        .await
        .expect("the modules can be imported");
    let code = format!("{imports}\noutputs = {{'answer': 42}}");
    let mut warm = Vec::new();
    for _ in 0..RUNS {
        let began = Instant::now();
        run(&workers, &code).await.expect("the run succeeds");
        warm.push(began.elapsed());
    }
    figures(
        "warm start: a run with the same imports, in the sandbox",
        &mut warm,
    );
    memory("idle interpreters without one that stands by", std::process::id());
    drop(workers);

    let mut idle = idle_python(&python, &imports);
    println!(
        "{:60} {:8.1} MiB",
        "an idle Python with the same modules (PSS)",
        proportional(idle.id())
    );
    idle.kill().unwrap();
    idle.wait().unwrap();

    let folder = tempfile::tempdir().unwrap();
    let workers = start(&python, &modules, folder.path(), true);
    wait_until_ready(&workers, Duration::from_mins(2)).await.unwrap();
    let mut mended = Vec::new();
    let mut zygote = zygote(&workers).await;
    memory("idle interpreters with one that stands by", std::process::id());
    for _ in 0..KILLS {
        let before = zygote;
        // The next one stands by once it has been forked: a head's faults are further apart than this.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let began = Instant::now();
        rustix::process::kill_process(before, rustix::process::Signal::KILL).unwrap();
        while run(&workers, &code).await.is_err() {}
        mended.push(began.elapsed());
        zygote = self::zygote(&workers).await;
        assert_ne!(zygote, before);
    }
    figures("zygote killed, to the end of the next run", &mut mended);
}

fn start(python: &OsString, modules: &str, folder: &std::path::Path, standby: bool) -> Workers {
    let interpreter = environment::of_interpreter(|name| std::env::var_os(name));
    let limits = Limits {
        memory: 2 << 30,
        file: 1 << 30,
        descriptors: 1024,
        processes: 4096,
    };
    Workers::start(Configuration {
        python: python.clone(),
        preload: modules.split_terminator(',').map(str::to_owned).collect(),
        policy: Policy::new(limits, 6, environment::of_runs(&interpreter)).unwrap(),
        environment: interpreter,
        folders: Folders::open(&folder.join("runs")).unwrap(),
        warmth: Warmth::Fork,
        standby,
    })
}

async fn run(workers: &Workers, code: &str) -> Result<String, String> {
    let together = Consumption {
        tasks: 256,
        memory: 2 << 30,
        disk: 1 << 30,
    };
    let job = Job {
        blocks: vec![Block {
            name: "a".into(),
            language: "python".into(),
            code: code.into(),
            line: 1,
            ..Block::default()
        }],
        inputs: "{}".into(),
        outputs: None,
        specifications: vec![],
        strict: false,
        time_limit: Duration::from_secs(30),
    };
    let (_keep, stop) = watch::channel(None);
    let outcome = execute(Place { workers, together }, &job, stop, |_| {}).await;
    let outputs = outcome.result.map_err(|error| error.message)?;
    Ok(String::from_utf8(outputs).unwrap())
}

async fn zygote(workers: &Workers) -> rustix::process::Pid {
    assert!(matches!(&*workers.state().borrow(), State::Ready(_)));
    let outputs = run(workers, "import os\noutputs = {'zygote': os.getppid()}")
        .await
        .unwrap();
    let digits: String = outputs.chars().filter(char::is_ascii_digit).collect();
    rustix::process::Pid::from_raw(digits.parse().unwrap()).unwrap()
}

/// What runs of one line take of the agent's side, of the zygote and of their own processes.
async fn processor_time(python: &OsString, preload: &str, at_once: u32) {
    let folder = tempfile::tempdir().unwrap();
    let workers = Arc::new(start(python, preload, folder.path(), false));
    wait_until_ready(&workers, Duration::from_mins(2)).await.unwrap();
    let zygote = zygote(&workers).await;
    let before = [spent(None), spent(Some(zygote))];
    let mut places = tokio::task::JoinSet::new();
    for _ in 0..at_once {
        let workers = workers.clone();
        places.spawn(async move {
            for _ in 0..LINES / at_once {
                run(&workers, "outputs = {'answer': 42}").await.unwrap();
            }
        });
    }
    places.join_all().await;
    let after = [spent(None), spent(Some(zygote))];
    let [agent, zygote] = [0, 1].map(|of| after[of].since(&before[of]));
    println!("processor time of a run of one line, {at_once} at once, preloaded: [{preload}]");
    for (who, own) in [
        ("agent", agent.itself),
        ("zygote", zygote.itself),
        ("child", zygote.children),
    ] {
        println!(
            "{who:>60} {:8.2} ms  ({:.2} of user code, {:.2} of the kernel), {:.0} page faults",
            own.user + own.system,
            own.user,
            own.system,
            own.faults
        );
    }
}

/// What a process and the children that it has reaped have taken.
struct Spent {
    itself: Taken,
    children: Taken,
}

/// Milliseconds of processors, and pages.
struct Taken {
    user: f64,
    system: f64,
    faults: f64,
}

impl Spent {
    /// For each run.
    fn since(&self, before: &Self) -> Self {
        let each = |after: f64, before: f64| (after - before) / f64::from(LINES);
        let taken = |after: &Taken, before: &Taken| Taken {
            user: each(after.user, before.user),
            system: each(after.system, before.system),
            faults: each(after.faults, before.faults),
        };
        Self {
            itself: taken(&self.itself, &before.itself),
            children: taken(&self.children, &before.children),
        }
    }
}

/// Fields 10 to 17 of proc_pid_stat(5).
fn spent(pid: Option<rustix::process::Pid>) -> Spent {
    let pid = pid.map_or("self".to_owned(), |pid| pid.as_raw_nonzero().to_string());
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, rest) = stat.rsplit_once(')').unwrap();
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |place: usize| fields[place - 3].parse::<f64>().unwrap();
    let ticks = |place| number(place) * 10.0;
    Spent {
        itself: Taken {
            user: ticks(14),
            system: ticks(15),
            faults: number(10),
        },
        children: Taken {
            user: ticks(16),
            system: ticks(17),
            faults: number(11),
        },
    }
}

fn cold_start(python: &OsString, imports: &str) -> Duration {
    let began = Instant::now();
    assert!(
        Command::new(python)
            .args(["-c", imports])
            .status()
            .unwrap()
            .success()
    );
    began.elapsed()
}

/// Says when it is idle.
fn idle_python(python: &OsString, imports: &str) -> std::process::Child {
    let code = format!("{imports}\nimport time\nprint(flush=True)\ntime.sleep(600)");
    let mut child = Command::new(python)
        .args(["-c", &code])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = child.stdout.as_mut().unwrap();
    std::io::Read::read_exact(stdout, &mut [0]).unwrap();
    child
}

fn memory(what: &str, parent: u32) {
    let processes = descendants(parent);
    let total: f64 = processes.iter().map(|&pid| proportional(pid)).sum();
    println!(
        "{:60} {total:8.1} MiB in {} processes",
        format!("{what} (PSS)"),
        processes.len()
    );
}

/// The share of memory that is this process's, in MiB.
fn proportional(pid: u32) -> f64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let kilobytes = rollup.lines().find_map(|line| {
        line.strip_prefix("Pss:")?
            .trim()
            .strip_suffix(" kB")?
            .parse::<f64>()
            .ok()
    });
    kilobytes.unwrap_or(0.0) / 1024.0
}

fn descendants(parent: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut next = vec![parent];
    while let Some(pid) = next.pop() {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task"))
            .into_iter()
            .flatten()
            .flatten();
        for task in tasks {
            let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            let children: Vec<u32> = children
                .split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect();
            found.extend(&children);
            next.extend(children);
        }
    }
    found
}

fn figures(what: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)].as_secs_f64() * 1e3;
    println!(
        "{what:60} p50 {:8.1} ms  p99 {:8.1} ms  of {}",
        at(50),
        at(99),
        times.len()
    );
}
