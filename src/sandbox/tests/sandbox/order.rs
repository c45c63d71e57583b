//! Which blocks run when others fail, and how long each may take.

use crate::bench::{Bench, Ran, job};
use crypto::attestation::BlockState::{Failed, Skipped, Succeeded};
use sandbox::execution::Happening;
use sandbox::job::Specification;
use sandbox::reason;
use sandbox::stream::Stream;
use serde_json::json;
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_that_is_allowed_is_told_and_the_run_goes_on() {
    let bench = Bench::start().await;
    for (language, code, diagnostics) in [
        ("python", "1 / 0", "ZeroDivisionError"),
        ("bash", "echo oh no >&2\nfalse", "oh no"),
    ] {
        let mut job = job(
            &[
                (language, code),
                ("python", "outputs['needs a'] = 1"),
                ("python", "outputs = {'free': 1}"),
                ("python", "outputs['needs b'] = 1"),
                ("python", "outputs['needs c'] = 1"),
            ],
            "{}",
        );
        job.blocks[0].allow_failure = true;
        job.blocks[1].needs = vec!["a".into()];
        job.blocks[3].needs = vec!["c".into(), "b".into()];
        job.blocks[4].needs = vec!["c".into()];
        let ran = bench.run(&job).await;
        assert_eq!(ran.outputs(), json!({"free": 1, "needs c": 1}));
        assert_eq!(ran.states(), [Failed, Skipped, Succeeded, Skipped, Succeeded]);
        let blocks = &ran.outcome.blocks;
        assert!(blocks[0].diagnostics.contains(diagnostics), "{blocks:?}");
        assert!(blocks[1].diagnostics.contains("it needs a"), "{blocks:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_that_is_not_allowed_ends_the_run() {
    let bench = Bench::start().await;
    let ran = bench
        .run_blocks(&[("python", "pass"), ("bash", "false"), ("python", "pass")], "{}")
        .await;
    assert_eq!(ran.states(), [Succeeded, Failed, Skipped]);
    // A block cannot allow itself to fail, or leave itself out, by forging what the run says.
    let forged = "import json, os, struct\ndef say(**message):\n    body = json.dumps(message).encode()\n    \
                  os.write(3, b'J' + struct.pack('!I', len(body)) + body)\n\
                  say(kind='block', index=0, state='failed', message='x')\n\
                  say(kind='block', index=1, state='skipped', message='x')\noutputs = {'n': 1}";
    let ran = bench
        .run_blocks(&[("python", forged), ("python", "outputs['n'] += 1")], "{}")
        .await;
    assert_eq!(ran.outputs(), json!({"n": 2}));
    assert_eq!(ran.states(), [Succeeded, Succeeded]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_may_have_a_time_limit_of_its_own() {
    let bench = Bench::start().await;
    let mut python = job(&[("python", "while True: pass"), ("python", "pass")], "{}");
    python.blocks[0].timeout_seconds = Some(1);
    python.blocks[0].allow_failure = true;
    let ran = bench.run(&python).await;
    assert_eq!(ran.error().reason, reason::TIMED_OUT);
    assert_eq!(ran.error().message, "block a took longer than 1 s");
    assert_eq!(
        ran.states(),
        [Failed, Skipped],
        "the interpreter is gone with its block"
    );

    let mut bash = job(
        &[
            ("bash", "sleep 600 & sleep 600"),
            ("python", "outputs = {'went': 'on'}"),
        ],
        "{}",
    );
    bash.blocks[0].timeout_seconds = Some(1);
    let ran = bench.run(&bash).await;
    assert_eq!(ran.error().reason, reason::TIMED_OUT);
    assert_eq!(
        (ran.error().message.as_str(), ran.error().line),
        ("block a took longer than 1 s", Some(10))
    );
    bash.blocks[0].allow_failure = true;
    let began = Instant::now();
    let ran = bench.run(&bash).await;
    assert_eq!(ran.outputs(), json!({"went": "on"}));
    assert_eq!(ran.states(), [Failed, Succeeded]);
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_block_printed_is_told_between_its_beginning_and_its_end() {
    let bench = Bench::start().await;
    let python = "import sys\nsys.stdout.write('x' * 30000)\nsys.stderr.write('y' * 30000)";
    let bash = "printf x; printf y >&2";
    let mut job = job(
        &[
            ("python", python),
            ("bash", bash),
            ("python", "pass"),
            ("bash", bash),
            ("python", python),
            ("python", "1 / 0"),
            ("python", "print('x', end='')"),
        ],
        "{}",
    );
    job.blocks[5].allow_failure = true;
    // One that holds not is told on standard error, behind the last block.
    job.specifications = vec![Specification {
        name: "after.py".into(),
        code: "def post(inputs, outputs):\n    return False".into(),
        line: None,
    }];
    for _ in 0..20 {
        let ran = bench.run(&job).await;
        assert_eq!(ran.outputs(), json!({}));
        let lengths = printed(&ran).map(|(place, stdout, stderr)| (place, stdout.len(), stderr.len()));
        let (inside, after): (Vec<_>, Vec<_>) = lengths.partition(|(place, ..)| !place.is_empty());
        let expected = [
            ("a", 30000, 30000),
            ("b", 1, 1),
            ("d", 1, 1),
            ("e", 30000, 30000),
            ("g", 1, 0),
        ];
        assert_eq!(inside, expected);
        assert!(ran.stderr.ends_with('\n') && after.len() == 1, "{after:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_process_prints_late_is_told_of_the_block_that_runs_then() {
    let bench = Bench::start().await;
    let start = "import subprocess\nlate = subprocess.Popen(['sh', '-c', 'read line; printf late'], stdin=subprocess.PIPE)\n\
                 print('started', end='')";
    let ran = bench
        .run_blocks(
            &[
                ("python", start),
                ("python", "pass"),
                ("python", "late.communicate(b'go\\n')"),
                ("python", "pass"),
            ],
            "{}",
        )
        .await;
    let printed: Vec<_> = printed(&ran).collect();
    let expected = [("a", "started"), ("c", "late")];
    assert_eq!(
        printed,
        expected.map(|(place, text)| (place, text.to_owned(), String::new()))
    );
}

/// What came while each block ran, or behind it: the name of the block, or nothing, with both streams.
fn printed(ran: &Ran) -> impl Iterator<Item = (&str, String, String)> {
    let mut told = vec![("", String::new(), String::new())];
    for happening in &ran.happenings {
        match happening {
            Happening::Began(index) => {
                let name = ran.outcome.blocks[*index].name.as_str();
                told.push((name, String::new(), String::new()));
            }
            Happening::Ended(..) => told.push(("", String::new(), String::new())),
            Happening::Printed(stream, data) => {
                let (_, stdout, stderr) = told.last_mut().unwrap();
                let text = std::str::from_utf8(data).unwrap();
                match stream {
                    Stream::Stdout => stdout.push_str(text),
                    Stream::Stderr => stderr.push_str(text),
                }
            }
        }
    }
    told.into_iter()
        .filter(|(_, stdout, stderr)| !(stdout.is_empty() && stderr.is_empty()))
}
