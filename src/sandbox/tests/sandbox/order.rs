//! Which blocks run when others fail, and how long each may take.

use crate::bench::{Bench, job};
use crypto::attestation::BlockState::{Failed, Skipped, Succeeded};
use sandbox::reason;
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
