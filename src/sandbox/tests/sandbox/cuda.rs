//! Workers that wait with CUDA initialised, on a driver of the test's own.

use crate::bench::Bench;
use serde_json::json;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// The folder of a `libcuda.so.1` whose cuInit answers `result`.
fn driver(result: i32) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sandbox/cuda.c");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-pthread", &format!("-DRESULT={result}")])
        .arg(source)
        .arg("-o")
        .arg(folder.path().join("libcuda.so.1"))
        .status()
        .unwrap();
    assert!(compiled.success());
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn each_run_has_a_worker_of_its_own_with_its_contexts_there_and_its_threads_confined() {
    let driver = driver(0);
    let bench = Bench::with_driver(driver.path(), 2).await.unwrap();
    let code = "\
import ctypes, os, random
driver = ctypes.CDLL('libcuda.so.1')
open('left', 'w').close()
left = sorted(os.listdir('.'))
opened = []
for number in range(1 << 12):
    try: os.fstat(number)
    except OSError: continue
    opened.append(number)
outputs = {'contexts': driver.test_contexts(), 'opened': driver.test_open(b'/etc/passwd'), 'own': driver.test_open(b'left'),
           'process': os.getpid(), 'left': left, 'descriptors': opened, 'drawn': random.random()}";
    let mut seen = Vec::new();
    for _ in 0..5 {
        let outputs = bench.run_blocks(&[("python", code)], "{}").await.outputs();
        assert_eq!(outputs["contexts"], 2, "one for each device");
        assert_eq!(
            (&outputs["opened"], &outputs["own"]),
            (&json!(libc::EACCES), &json!(0))
        );
        assert_eq!(outputs["left"], json!(["left"]));
        assert_eq!(outputs["descriptors"], json!([0, 1, 2, 3]));
        assert!(!seen.contains(&outputs["process"]) && !seen.contains(&outputs["drawn"]));
        seen.extend([outputs["process"].clone(), outputs["drawn"].clone()]);
    }
    let hog = "x = []\nwhile True: x.append(bytearray(64 << 20))";
    let ran = bench.run_blocks(&[("python", hog)], "{}").await;
    assert_eq!(ran.error().reason, sandbox::reason::OUT_OF_MEMORY);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_cannot_be_initialised_gives_no_worker_and_says_why() {
    let driver = driver(100);
    let error = Bench::with_driver(driver.path(), 2).await.err().unwrap();
    assert!(error.contains("cuInit: CUDA_ERROR_OF_THE_TEST (100)"), "{error}");
}
