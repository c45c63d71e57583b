//! The real loading path, against a library with the driver's interface that answers from a file.

#![allow(clippy::unwrap_used, reason = "all of it is test code")]

use devices::driver::{Driver, Error, Fault};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

struct Fake {
    folder: TempDir,
}

impl Fake {
    fn new(control: &str) -> Self {
        let fake = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        fake.say(control);
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/nvml.c");
        let control = format!("-DCONTROL=\"{}\"", fake.control().display());
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-Wall", "-Werror", &control, source, "-o"])
            .arg(fake.library())
            .status()
            .unwrap();
        assert!(compiled.success());
        fake
    }

    fn library(&self) -> PathBuf {
        self.folder.path().join("libnvidia-ml.so.1")
    }

    fn control(&self) -> PathBuf {
        self.folder.path().join("control")
    }

    fn say(&self, control: &str) {
        std::fs::write(self.control(), control).unwrap();
    }

    fn load(&self) -> Result<Driver, Error> {
        Driver::load(self.library().as_os_str())
    }
}

#[test]
fn devices_are_told_with_their_memory_and_cuda_version() {
    let fake = Fake::new("count 2\nbusy 25\n");
    let driver = fake.load().unwrap();
    assert_eq!(driver.cuda().unwrap(), "12.8");
    let devices = driver.devices().unwrap();
    let uuids: Vec<_> = devices.iter().map(|device| device.uuid.as_str()).collect();
    assert_eq!(uuids, ["GPU-test-1", "GPU-test-2"]);
    assert_eq!(
        (devices[0].name.as_str(), devices[0].memory),
        ("NVIDIA Test", 1 << 34)
    );
    assert_eq!(driver.busy("GPU-test-2"), Some(0.25));
}

#[test]
fn a_partitioned_device_is_told_by_its_instances() {
    let fake = Fake::new("count 1\nmig 2\n");
    let devices = fake.load().unwrap().devices().unwrap();
    let found: Vec<_> = devices
        .iter()
        .map(|device| (device.uuid.as_str(), device.parent.as_deref()))
        .collect();
    assert_eq!(
        found,
        [
            ("MIG-test-11", Some("GPU-test-1")),
            ("MIG-test-12", Some("GPU-test-1"))
        ]
    );
}

#[test]
fn an_xid_is_told_at_once() {
    let fake = Fake::new("count 1\n");
    let driver = fake.load().unwrap();
    let (mut told, mut quiet) = (Vec::new(), 0);
    driver
        .watch(Duration::from_millis(20), |fault| {
            match fault {
                Some(fault) => told.push(fault),
                None if quiet == 0 => {
                    quiet = 1;
                    fake.say("count 1\nxid 79\n");
                }
                None => quiet += 1,
            }
            told.is_empty() && quiet < 100
        })
        .unwrap();
    let uuid = "GPU-test-1".to_owned();
    assert_eq!(told, [Fault { uuid, xid: 79 }]);
}

#[test]
fn a_driver_that_does_not_answer_and_one_that_is_not_there_are_errors() {
    assert!(matches!(Fake::new("broken 1\n").load(), Err(Error::Load(_))));
    assert!(matches!(
        Driver::load("/nowhere/libnvidia-ml.so.1".as_ref()),
        Err(Error::Load(_))
    ));
}
