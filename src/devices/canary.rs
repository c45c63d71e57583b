//! The canary: a kernel whose answer is known, run on each device.
//!
//! To be run in a process of its own with a time limit: a device that is broken may never answer, and a context takes memory
//! from the device for as long as its process lives.

use cudarc::driver::{CudaContext, DriverError, LaunchConfig, PushKernelArg, sys};
use cudarc::nvrtc::Ptx;

/// Values computed.
const COUNT: u32 = 1 << 20;
const FACTOR: u32 = 2_654_435_761;
const OFFSET: u32 = 40_503;

/// `out[i] = i * FACTOR + OFFSET`, in the instructions of every device since 2017.
const KERNEL: &str = "\
.version 6.3
.target sm_70
.address_size 64
.visible .entry canary(.param .u64 out, .param .u32 count, .param .u32 factor, .param .u32 offset)
{
    .reg .pred %p;
    .reg .b32 %r<8>;
    .reg .b64 %rd<4>;
    ld.param.u64 %rd0, [out];
    ld.param.u32 %r0, [count];
    ld.param.u32 %r1, [factor];
    ld.param.u32 %r2, [offset];
    mov.u32 %r3, %ctaid.x;
    mov.u32 %r4, %ntid.x;
    mov.u32 %r5, %tid.x;
    mad.lo.u32 %r6, %r3, %r4, %r5;
    setp.ge.u32 %p, %r6, %r0;
    @%p bra done;
    mad.lo.u32 %r7, %r6, %r1, %r2;
    cvta.to.global.u64 %rd1, %rd0;
    mul.wide.u32 %rd2, %r6, 4;
    add.u64 %rd3, %rd1, %rd2;
    st.global.u32 [%rd3], %r7;
done:
    ret;
}
";

/// Why a device cannot be relied on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The driver's library is not there.
    #[error("libcuda.so.1 is not there")]
    Missing,
    /// A call of the driver failed.
    #[error("the driver failed: {0}")]
    Driver(DriverError),
    /// Others have all of a device's memory, or all of its time: nothing is known of it.
    #[error("nothing could be computed beside others: {0}")]
    Busy(DriverError),
    /// It computes, and wrongly.
    #[error("device {device} computed {found} where {expected} is right, at {index}")]
    Wrong {
        /// The device's ordinal.
        device: usize,
        /// The place.
        index: u32,
        /// What it computed.
        found: u32,
        /// What is right.
        expected: u32,
    },
    /// There is none.
    #[error("the driver shows no device")]
    None,
}

impl From<DriverError> for Error {
    fn from(error: DriverError) -> Self {
        if BUSY.contains(&error.0) {
            Self::Busy(error)
        } else {
            Self::Driver(error)
        }
    }
}

/// Answers of a device that is well and shared, as by time slices or MPS.
const BUSY: [sys::CUresult; 4] = [
    sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY,
    sys::CUresult::CUDA_ERROR_DEVICE_UNAVAILABLE,
    sys::CUresult::CUDA_ERROR_MPS_MAX_CLIENTS_REACHED,
    sys::CUresult::CUDA_ERROR_MPS_MAX_CONNECTIONS_REACHED,
];

/// Runs the kernel on every device that this process sees, and checks each value. A device that is busy keeps no other from
/// being checked.
pub fn run() -> Result<(), Error> {
    // SAFETY: loads a library by its well-known name and looks for its symbols; the driver's constructors may run.
    if !unsafe { sys::is_culib_present() } {
        return Err(Error::Missing);
    }
    cudarc::driver::result::init()?;
    let devices = usize::try_from(CudaContext::device_count()?).unwrap_or(0);
    if devices == 0 {
        return Err(Error::None);
    }
    let mut busy = Ok(());
    for device in 0..devices {
        match run_on(device) {
            Err(error @ Error::Busy(_)) => busy = Err(error),
            answer => answer?,
        }
    }
    busy
}

fn run_on(device: usize) -> Result<(), Error> {
    let context = CudaContext::new(device)?;
    let stream = context.default_stream();
    let kernel = context
        .load_module(Ptx::from_src(KERNEL))?
        .load_function("canary")?;
    let mut out = stream.alloc_zeros::<u32>(COUNT as usize)?;
    let mut launch = stream.launch_builder(&kernel);
    launch.arg(&mut out).arg(&COUNT).arg(&FACTOR).arg(&OFFSET);
    // SAFETY: the arguments are those that the kernel declares, in its order, and it writes `COUNT` values into `out`.
    unsafe { launch.launch(LaunchConfig::for_num_elems(COUNT)) }?;
    check(device, &stream.clone_dtoh(&out)?)
}

fn check(device: usize, values: &[u32]) -> Result<(), Error> {
    for (index, &found) in (0_u32..).zip(values) {
        let expected = index.wrapping_mul(FACTOR).wrapping_add(OFFSET);
        if found != expected {
            return Err(Error::Wrong {
                device,
                index,
                found,
                expected,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_computes_wrongly_is_found_out() {
        let right: Vec<u32> = (0..100_u32)
            .map(|i| i.wrapping_mul(FACTOR).wrapping_add(OFFSET))
            .collect();
        assert!(check(0, &right).is_ok());
        let mut wrong = right;
        wrong[99] ^= 1;
        assert!(matches!(
            check(3, &wrong),
            Err(Error::Wrong {
                device: 3,
                index: 99,
                ..
            })
        ));
    }

    #[test]
    fn without_a_driver_there_is_an_error_and_no_panic() {
        // On a machine with a device the kernel itself runs.
        match run() {
            Ok(()) | Err(Error::Missing | Error::None) => {}
            Err(error) => panic!("{error}"),
        }
    }
}
