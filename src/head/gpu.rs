//! The GPUs of this head: which there are, whether they are well, and how busy they are. Asked of the driver, never guessed:
//! without a driver nothing is said of any device.

use devices::driver::{Device, Driver, Fault};
use devices::{canary, xid};
use std::ffi::OsString;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::timeout;

/// The one argument of this program that makes it run the canary on every device, and nothing else.
pub const CANARY: &str = "device-canary";

/// How it ends when the devices were too busy for it: sysexits' EX_TEMPFAIL.
const UNMEASURED: u8 = 75;

/// Between two looks at how busy the devices are.
const SAMPLE: Duration = Duration::from_millis(100);
/// A driver that gives no answer is asked again.
const RETRY: Duration = Duration::from_secs(5);
/// Loading the driver, making a context, a kernel of a million additions.
const CANARY_LIMIT: Duration = Duration::from_secs(30);

/// Where the devices are found.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// The driver's management library: a name or a path.
    pub library: OsString,
    /// This program, which runs the canary in a process of its own.
    pub program: PathBuf,
}

/// One device and its health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The device.
    pub device: Device,
    /// Why it must not be given runs, if it must not.
    pub fault: Option<String>,
}

/// What is known of the devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// The newest CUDA version that the driver runs; empty until it has answered.
    pub cuda: String,
    /// All of them.
    pub devices: Vec<Health>,
    /// Why the driver gives no answer.
    pub silence: Option<String>,
}

impl View {
    /// The names that the driver gives to the devices; None while it has told of none.
    pub fn uuids(&self) -> Option<Vec<String>> {
        let uuids: Vec<_> = self
            .devices
            .iter()
            .map(|health| health.device.uuid.clone())
            .collect();
        Some(uuids).filter(|uuids| !uuids.is_empty())
    }

    /// Why no runs should come, if there is a reason.
    pub fn fault(&self) -> Option<String> {
        let failed = self.devices.iter().find_map(|health| {
            let fault = health.fault.as_ref()?;
            Some(format!("device {}: {fault}", health.device.uuid))
        });
        failed.or_else(|| self.silence.clone())
    }

    /// Takes what the driver reported. A fault of a GPU is one of all its instances.
    fn take(&mut self, fault: &Fault) -> bool {
        if xid::class(fault.xid) == xid::Class::Application {
            return false;
        }
        let what = format!("XID {}: {}", fault.xid, xid::meaning(fault.xid));
        for health in &mut self.devices {
            let device = &health.device;
            if device.uuid == fault.uuid || device.parent.as_ref() == Some(&fault.uuid) {
                health.fault.get_or_insert_with(|| what.clone());
            }
        }
        true
    }
}

/// Follows the devices from its start to the end of the process.
#[derive(Debug)]
pub struct Gpus {
    view: watch::Sender<View>,
    /// Seconds for which a device was busy, shared out among the runs under way. None where the driver does not say.
    used: Arc<Mutex<Option<f64>>>,
}

impl Gpus {
    /// Begins to follow them. `running` is the number of runs under way.
    pub fn follow(
        configuration: Configuration,
        running: watch::Receiver<usize>,
        canary_every: Duration,
    ) -> Arc<Self> {
        let gpus = Arc::new(Self {
            view: watch::Sender::new(View {
                silence: Some("the GPU's driver has not answered yet".into()),
                ..View::default()
            }),
            used: Arc::default(),
        });
        let (following, library) = (Arc::clone(&gpus), configuration.library);
        let counted = running.clone();
        std::thread::spawn(move || {
            while let Err(error) = Driver::load(&library).and_then(|driver| following.ask(&driver, &counted))
            {
                let silence = crate::tls::chain(&error);
                tracing::error!(error = silence, "the GPU's driver gives no answer");
                following.view.send_modify(|view| view.silence = Some(silence));
                std::thread::sleep(RETRY);
            }
        });
        tokio::spawn(
            gpus.clone()
                .keep_canary(configuration.program, running, canary_every),
        );
        gpus
    }

    /// What is known, and a way to wait for a change.
    pub fn view(&self) -> watch::Receiver<View> {
        self.view.subscribe()
    }

    /// Device-seconds used by one run's share so far. The difference over a run is what the run used.
    pub fn used(&self) -> Option<f64> {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listens to the driver until it fails.
    fn ask(&self, driver: &Driver, running: &watch::Receiver<usize>) -> Result<(), devices::driver::Error> {
        let (cuda, devices) = (driver.cuda()?, driver.devices()?);
        let uuids: Vec<_> = devices.iter().map(|device| device.uuid.clone()).collect();
        self.view.send_modify(|view| {
            // A device that has failed stays so until this process is another: the pod moves.
            let fault = |device: &Device| {
                view.devices
                    .iter()
                    .find(|known| known.device == *device)?
                    .fault
                    .clone()
            };
            let devices = devices.into_iter().map(|device| Health {
                fault: fault(&device),
                device,
            });
            *view = View {
                cuda,
                devices: devices.collect(),
                silence: None,
            };
        });
        let mut last = Instant::now();
        driver.watch(SAMPLE, |fault| {
            if let Some(fault) = fault {
                tracing::warn!(device = %fault.uuid, xid = fault.xid, "the GPU's driver reports a fault");
                self.view.send_if_modified(|view| view.take(&fault));
            }
            let busy: Option<f64> = uuids.iter().map(|uuid| driver.busy(uuid)).sum();
            self.count(busy, last.elapsed(), *running.borrow());
            last = Instant::now();
            true
        })
    }

    fn count(&self, busy: Option<f64>, time: Duration, running: usize) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let sharing = u32::try_from(running.max(1)).unwrap_or(u32::MAX);
        *used = busy.map(|busy| used.unwrap_or_default() + busy * time.as_secs_f64() / f64::from(sharing));
    }

    /// Computes something with a known answer on every device while the head is idle. Failing twice is a fault of all of them;
    /// finding no room is none.
    async fn keep_canary(
        self: Arc<Self>,
        program: PathBuf,
        mut running: watch::Receiver<usize>,
        every: Duration,
    ) {
        let mut doubt = Doubt::default();
        while running.wait_for(|running| *running == 0).await.is_ok() {
            let answers = self.view.borrow().silence.is_none();
            if answers && let Some(what) = doubt.hear(run_canary(&program).await) {
                self.view.send_modify(|view| {
                    for health in &mut view.devices {
                        health.fault.get_or_insert_with(|| what.clone());
                    }
                });
            }
            tokio::time::sleep(every).await;
        }
    }
}

/// What the canary has shown.
#[derive(Debug)]
enum Answer {
    Right,
    /// Nothing: others have the devices' memory or time, which is no fault of theirs.
    Unmeasured(String),
    Wrong(String),
}

/// How often in a row the canary has failed.
#[derive(Debug, Default)]
struct Doubt {
    failures: u32,
}

impl Doubt {
    /// What is wrong, once it is certain.
    fn hear(&mut self, answer: Answer) -> Option<String> {
        match answer {
            Answer::Right => self.failures = 0,
            Answer::Unmeasured(why) => tracing::info!(why, "the canary could not measure"),
            Answer::Wrong(what) => {
                self.failures += 1;
                return (self.failures >= 2).then_some(what);
            }
        }
        None
    }
}

async fn run_canary(program: &std::path::Path) -> Answer {
    let output = Command::new(program)
        .arg(CANARY)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    match timeout(CANARY_LIMIT, output).await {
        Err(_) => Answer::Wrong(format!(
            "the canary did not end within {} s",
            CANARY_LIMIT.as_secs()
        )),
        Ok(Err(error)) => Answer::Wrong(format!("the canary cannot be started: {error}")),
        Ok(Ok(output)) if output.status.success() => Answer::Right,
        Ok(Ok(output)) => {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            if output.status.code() == Some(UNMEASURED.into()) {
                return Answer::Unmeasured(said);
            }
            Answer::Wrong(format!("the canary failed ({}): {said}", output.status))
        }
    }
}

/// What the program does when it is started as the canary.
pub fn be_canary() -> ExitCode {
    let Err(error) = canary::run() else {
        return ExitCode::SUCCESS;
    };
    let _ = writeln!(std::io::stderr(), "{error}");
    match error {
        canary::Error::Busy(_) => UNMEASURED.into(),
        _ => ExitCode::FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        let device = |uuid: &str, parent: Option<&str>| Health {
            device: Device {
                uuid: uuid.into(),
                name: "Test".into(),
                memory: 1,
                parent: parent.map(Into::into),
            },
            fault: None,
        };
        View {
            cuda: "12.8".into(),
            devices: vec![device("GPU-1", None), device("MIG-2", Some("GPU-2"))],
            silence: None,
        }
    }

    #[test]
    fn a_fault_of_the_hardware_is_one_of_the_device_and_its_instances_alone() {
        let fault = |uuid: &str, xid| Fault {
            uuid: uuid.into(),
            xid,
        };
        let mut view = view();
        assert!(!view.take(&fault("GPU-1", 31)));
        assert_eq!(view.fault(), None);
        assert!(view.take(&fault("GPU-2", 79)));
        assert_eq!(view.devices[0].fault, None);
        let message = view.fault().unwrap();
        assert!(message.starts_with("device MIG-2: XID 79"), "{message}");
    }

    #[test]
    fn a_device_that_had_no_room_is_neither_well_nor_at_fault() {
        let mut doubt = Doubt::default();
        let (wrong, busy) = (
            || Answer::Wrong("wrong".into()),
            || Answer::Unmeasured("busy".into()),
        );
        for _ in 0..5 {
            assert_eq!(doubt.hear(busy()), None);
        }
        assert_eq!(doubt.hear(wrong()), None);
        assert_eq!(doubt.hear(busy()), None);
        assert_eq!(doubt.hear(wrong()).as_deref(), Some("wrong"));
        assert_eq!(doubt.hear(Answer::Right), None);
        assert_eq!(doubt.hear(wrong()), None);
    }

    #[test]
    fn busy_time_is_shared_out_among_the_runs_under_way() {
        let gpus = Gpus {
            view: watch::Sender::new(View::default()),
            used: Arc::default(),
        };
        assert_eq!(gpus.used(), None);
        gpus.count(Some(1.0), Duration::from_secs(2), 4);
        gpus.count(Some(0.5), Duration::from_secs(1), 0);
        assert_eq!(gpus.used(), Some(1.0));
        gpus.count(None, Duration::from_secs(1), 1);
        assert_eq!(gpus.used(), None, "half a measurement is none");
    }
}
