//! What a zygote that dies leaves behind.

use crate::bench::{Bench, job};
use rustix::process::{Pid, Signal, getpid, kill_process, set_child_subreaper};
use sandbox::reason;
use std::time::Duration;
use tokio::time::{sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(20);

/// State, parent and group of all processes.
fn processes() -> Vec<(String, i32, i32)> {
    let stat = |entry: std::io::Result<std::fs::DirEntry>| {
        let stat = std::fs::read_to_string(entry.ok()?.path().join("stat")).ok()?;
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?.to_owned();
        Some((state, fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    std::fs::read_dir("/proc").unwrap().filter_map(stat).collect()
}

/// Waits until `enough` says so of the number of processes in the group.
async fn wait_for(group: impl Fn() -> Option<i32>, enough: impl Fn(usize) -> bool) -> Option<i32> {
    let waiting = async {
        loop {
            let group = group();
            let members: Vec<_> = processes()
                .into_iter()
                .filter(|one| Some(one.2) == group)
                .collect();
            if enough(members.len()) {
                return group;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, waiting)
        .await
        .unwrap_or_else(|_| panic!("{:?}", processes()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zygote_that_dies_during_a_run_leaves_no_zombie() {
    // As the first process of a container is.
    set_child_subreaper(Some(getpid())).unwrap();
    let bench = Bench::start().await;
    let ran = bench
        .run(&job(
            &[("python", "import os\noutputs = {'zygote': os.getppid()}")],
            "{}",
        ))
        .await;
    let zygote = i32::try_from(ran.outputs()["zygote"].as_i64().unwrap()).unwrap();
    let code = "\
import os, time
for _ in range(5): os.fork()
block = bytearray(8 << 20)
time.sleep(600)";
    let family = job(&[("python", code)], "{}");
    let run = bench.run(&family);
    let kill = async {
        let group = wait_for(
            || processes().iter().find(|one| one.1 == zygote).map(|one| one.2),
            |members| members == 32,
        )
        .await;
        kill_process(Pid::from_raw(zygote).unwrap(), Signal::KILL).unwrap();
        group
    };
    let (ran, group) = tokio::join!(run, kill);
    assert_eq!(ran.error().reason, reason::INTERPRETER_LOST);
    wait_for(|| group, |members| members == 0).await;
}
