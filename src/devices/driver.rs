//! The management library of NVIDIA's driver (NVML).

use nvml_wrapper::bitmasks::event::EventTypes;
use nvml_wrapper::enums::event::XidError;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device as NvmlDevice, Nvml};
use std::ffi::OsStr;
use std::time::Duration;

/// The library's name, by which the loader finds it.
pub const LIBRARY: &str = "libnvidia-ml.so.1";

/// Why the driver gives no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The library is not there, or the driver behind it does not answer.
    #[error("load {LIBRARY}")]
    Load(#[source] NvmlError),
    /// A question that has no answer.
    #[error("ask the driver for {0}")]
    Ask(&'static str, #[source] NvmlError),
}

/// One GPU, or one instance of a partitioned one (MIG).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// As in NVIDIA_VISIBLE_DEVICES: `GPU-…` or `MIG-…`.
    pub uuid: String,
    /// For example `NVIDIA H200`.
    pub name: String,
    /// Bytes.
    pub memory: u64,
    /// Of a MIG instance, the UUID of the GPU that it is a part of. That one's faults are its own too.
    pub parent: Option<String>,
}

/// An XID that was reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The GPU.
    pub uuid: String,
    /// See [`crate::xid`].
    pub xid: u64,
}

/// The driver.
#[derive(Debug)]
pub struct Driver {
    nvml: Nvml,
}

impl Driver {
    /// Loads the library by `name`: [`LIBRARY`], or a path.
    pub fn load(name: &OsStr) -> Result<Self, Error> {
        let nvml = Nvml::builder().lib_path(name).init().map_err(Error::Load)?;
        Ok(Self { nvml })
    }

    /// The newest CUDA version that the driver runs, for example `12.8`.
    pub fn cuda(&self) -> Result<String, Error> {
        let version = ask("its CUDA version", self.nvml.sys_cuda_driver_version())?;
        Ok(format!("{}.{}", version / 1000, version % 1000 / 10))
    }

    /// The devices that this container sees, a partitioned one by its instances.
    pub fn devices(&self) -> Result<Vec<Device>, Error> {
        let mut devices = Vec::new();
        for gpu in self.gpus()? {
            let parent = ask("a UUID", gpu.uuid())?;
            let instances = instances(&gpu);
            if instances.is_empty() {
                devices.push(describe(&gpu, None)?);
            }
            for instance in &instances {
                devices.push(describe(instance, Some(parent.clone()))?);
            }
        }
        Ok(devices)
    }

    /// How busy a GPU was over the driver's last sampling period: 0 to 1. None where the driver does not say, as for MIG.
    pub fn busy(&self, uuid: &str) -> Option<f64> {
        let device = self.nvml.device_by_uuid(uuid).ok()?;
        let rates = device.utilization_rates().ok()?;
        Some(f64::from(rates.gpu.min(100)) / 100.0)
    }

    /// Tells `tell` of every critical XID until it answers false; `pause` is the longest time between two calls, with None
    /// when there was nothing.
    pub fn watch(&self, pause: Duration, mut tell: impl FnMut(Option<Fault>) -> bool) -> Result<(), Error> {
        let mut events = ask("its events", self.nvml.create_event_set())?;
        for gpu in self.gpus()? {
            events = gpu
                .register_events(EventTypes::CRITICAL_XID_ERROR, events)
                .map_err(|error| Error::Ask("its XIDs", error.error))?;
        }
        let millis = u32::try_from(pause.as_millis()).unwrap_or(u32::MAX);
        loop {
            let fault = match events.wait(millis) {
                Ok(event) => event.device.uuid().ok().map(|uuid| Fault {
                    uuid,
                    xid: match event.event_data {
                        Some(XidError::Value(xid)) => xid,
                        Some(XidError::Unknown) | None => 0,
                    },
                }),
                Err(NvmlError::Timeout) => None,
                Err(error) => return Err(Error::Ask("the next event", error)),
            };
            if !tell(fault) {
                return Ok(());
            }
        }
    }

    fn gpus(&self) -> Result<Vec<NvmlDevice<'_>>, Error> {
        let count = ask("the number of devices", self.nvml.device_count())?;
        (0..count)
            .map(|index| ask("a device", self.nvml.device_by_index(index)))
            .collect()
    }
}

/// The MIG instances of a GPU; none where it is not partitioned, or cannot be.
fn instances<'a>(gpu: &NvmlDevice<'a>) -> Vec<NvmlDevice<'a>> {
    let most = gpu.mig_device_count().unwrap_or(0);
    // Indices may have gaps.
    (0..most)
        .filter_map(|index| gpu.mig_device_by_index(index).ok())
        .collect()
}

fn describe(device: &NvmlDevice<'_>, parent: Option<String>) -> Result<Device, Error> {
    Ok(Device {
        uuid: ask("a UUID", device.uuid())?,
        name: ask("a name", device.name())?,
        memory: ask("a device's memory", device.memory_info())?.total,
        parent,
    })
}

fn ask<T>(what: &'static str, answer: Result<T, NvmlError>) -> Result<T, Error> {
    answer.map_err(|error| Error::Ask(what, error))
}
