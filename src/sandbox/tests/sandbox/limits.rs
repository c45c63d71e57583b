//! Documents that ask for too much, in Python and in bash: each ends with a sentence that says which limit it was.

use crate::bench::{Allowed, Bench};
use sandbox::reason;
use std::time::{Duration, Instant};

async fn assert_ends(bench: &Bench, cases: &[(&str, &str)], expected: &str, sentence: &str) {
    for (language, code) in cases {
        let began = Instant::now();
        let ran = bench.run_blocks(&[(language, code)], "{}").await;
        let error = ran.error();
        assert_eq!(error.reason, expected, "{code}: {error:?}");
        assert!(error.message.contains(sentence), "{code}: {error:?}");
        assert!(
            began.elapsed() < Duration::from_secs(25),
            "{code}: {:?}",
            began.elapsed()
        );
    }
    let ran = bench.run_blocks(&[("bash", "output fine true")], "{}").await;
    assert_eq!(ran.outputs(), serde_json::json!({"fine": true}));
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_printing() {
    let bench = Bench::start().await;
    let cases = [
        ("python", "for _ in range(1000): print('x' * 1_000_000)"),
        ("bash", "head -c 1000000000 /dev/zero"),
        ("bash", "yes >&2"),
    ];
    assert_ends(
        &bench,
        &cases,
        reason::OUTPUT_LIMIT_EXCEEDED,
        "the run printed more than 256 MiB",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_forking() {
    let bench = Bench::start().await;
    let cases = [
        ("python", "import os\nwhile True: os.fork()"),
        (
            "python",
            "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(60,)).start()",
        ),
        ("bash", ":(){ :|:& };:\nwait"),
        ("bash", "f() { f & f & }\nf\nsleep 60"),
    ];
    assert_ends(
        &bench,
        &cases,
        reason::PROCESS_LIMIT_EXCEEDED,
        "128 processes and threads",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_allocating() {
    let allowed = Allowed {
        memory_mib: 256,
        ..Allowed::default()
    };
    let bench = Bench::start_with(allowed, true).await;
    let cases = [
        ("python", "x = []\nwhile True: x.append(bytearray(16 << 20))"),
        ("bash", "x=x\nwhile true; do x=\"$x$x\"; done"),
        ("bash", "tail /dev/zero"),
    ];
    assert_ends(&bench, &cases, reason::OUT_OF_MEMORY, "256 MiB of memory").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_writing() {
    let allowed = Allowed {
        disk_mib: 32,
        ..Allowed::default()
    };
    let bench = Bench::start_with(allowed, true).await;
    let cases = [
        (
            "python",
            "with open('a', 'wb') as file:\n    while True: file.write(b'x' * (1 << 20))",
        ),
        (
            "python",
            "import time\nfor n in range(99): open(str(n), 'wb').write(b'x' * (1 << 20))\ntime.sleep(60)",
        ),
        ("bash", "head -c 10000000000 /dev/zero > big"),
        (
            "bash",
            "for n in {1..99}; do head -c 1000000 /dev/zero > $n; done; sleep 60",
        ),
    ];
    assert_ends(&bench, &cases, reason::DISK_LIMIT_EXCEEDED, "32 MiB").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn endless_sleeping() {
    let bench = Bench::start().await;
    for (language, code) in [
        ("python", "import time\ntime.sleep(1e6)"),
        ("bash", "sleep 1000000"),
    ] {
        let mut job = crate::bench::job(&[(language, code)], "{}");
        job.time_limit = Duration::from_secs(1);
        let ran = bench.run(&job).await;
        assert_eq!(ran.error().reason, reason::TIMED_OUT);
        assert_eq!(ran.error().message, "the run took longer than 1 s");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_network() {
    let bench = Bench::start().await;
    let mut cases = vec![
        ("python", "import socket\nsocket.socket()"),
        (
            "python",
            "import urllib.request\nurllib.request.urlopen('http://127.0.0.1/')",
        ),
        (
            "python",
            "import socket\nsocket.create_connection(('example.org', 80))",
        ),
        ("bash", "echo x > /dev/tcp/127.0.0.1/80"),
    ];
    if bench.offers("javascript") {
        cases.push(("javascript", "await fetch('http://127.0.0.1:80/')"));
        cases.push(("javascript", "require('node:net').connect(80, '127.0.0.1')"));
    }
    assert_ends(&bench, &cases, reason::BLOCK_FAILED, "a run has no network").await;
}
