//! A head whose GPU's driver is a library of the test's own: the agent's whole way from the driver's answers to its status.

use crate::testbed::Testbed;
use crypto::attestation::GpuSecondsFrom;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// The driver's library, and the file that it answers from.
struct Driver {
    folder: TempDir,
}

impl Driver {
    fn new(control: &str) -> Self {
        let driver = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        driver.say(control);
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../devices/tests/nvml.c");
        let control = format!("-DCONTROL=\"{}\"", driver.folder.path().join("control").display());
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", &control])
            .arg(source)
            .arg("-o")
            .arg(driver.library())
            .status()
            .unwrap();
        assert!(compiled.success());
        driver
    }

    fn library(&self) -> PathBuf {
        self.folder.path().join("libnvidia-ml.so.1")
    }

    fn argument(&self) -> String {
        format!("--nvml={}", self.library().display())
    }

    fn say(&self, control: &str) {
        std::fs::write(self.folder.path().join("control"), control).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_of_the_device_makes_the_head_unready_at_once_and_one_of_a_program_does_not() {
    let driver = Driver::new("count 1\nbusy 50\n");
    let head = Testbed::start_with(&[&driver.argument(), "--devices=all"]).await;
    let status = head.wait_until(|status| status.ready).await;
    let device = &status.device_states[0];
    assert_eq!((device.uuid.as_str(), device.healthy), ("GPU-test-1", true));
    assert_eq!(status.devices, ["GPU-test-1"], "as the driver names it");
    assert_eq!(status.environment.unwrap().cuda, "12.8");

    driver.say("count 1\nbusy 50\nxid 31\n");
    let ran = head.run("import time\ntime.sleep(0.5)\nresult = 1", "{}").await;
    assert_eq!(
        ran.attestation.gpu_seconds_from,
        Some(GpuSecondsFrom::Utilization)
    );
    let seconds = ran.attestation.gpu_seconds;
    assert!(
        (0.1..0.5).contains(&seconds),
        "half of half a second, not {seconds}"
    );
    assert_eq!(ran.attestation.devices, ["GPU-test-1"]);
    assert!(head.agent.status().ready);

    driver.say("count 1\nxid 79\n");
    let status = head.wait_until(|status| !status.ready).await;
    assert!(status.message.contains("XID 79"), "{}", status.message);
    assert!(!status.device_states[0].healthy && status.device_states[0].message.contains("XID 79"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_driver_that_does_not_answer_gives_no_ready_head() {
    let driver = Driver::new("broken 1\n");
    let bring_up = Testbed::start_unready(&[&driver.argument()]).await;
    let status = bring_up
        .wait_until(|status| status.message.contains("libnvidia-ml"))
        .await;
    assert!(!status.ready);
    driver.say("count 1\n");
    bring_up.wait_until(|status| status.ready).await;
}

/// How the program's canary ends on a driver whose contexts fail with `error`, and what it says.
fn canary(error: i32) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sandbox/tests/sandbox/cuda.c");
    let compiled = Command::new("cc")
        .args([
            "-shared",
            "-fPIC",
            "-pthread",
            "-DRESULT=0",
            &format!("-DCONTEXT={error}"),
        ])
        .arg(source)
        .arg("-o")
        .arg(folder.path().join("libcuda.so"))
        .status()
        .unwrap();
    assert!(compiled.success());
    let output = Command::new(env!("CARGO_BIN_EXE_chimera-head"))
        .arg(head::gpu::CANARY)
        .env("LD_LIBRARY_PATH", folder.path())
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn the_canary_tells_a_device_that_is_full_or_busy_from_one_that_fails() {
    for (error, name, code) in [
        (2, "CUDA_ERROR_OUT_OF_MEMORY", 75),
        (46, "CUDA_ERROR_DEVICE_UNAVAILABLE", 75),
        (214, "CUDA_ERROR_ECC_UNCORRECTABLE", 1),
    ] {
        let (ended, said) = canary(error);
        assert_eq!(ended, Some(code), "{said}");
        assert!(said.contains(name), "{said}");
    }
}
