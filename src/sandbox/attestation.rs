//! What is sworn to after a run, signed with a key that the caller keeps.

use crate::execution::Outcome;
use crate::workers::Ready;
use crypto::attestation::{self, Attestation, Environment, Error, GpuSecondsFrom, Isolation, Unit};
use crypto::{DigestSet, Envelope, SigningKey};

/// What does not change between the runs of one machine.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// Digest of the head's image, when it is known.
    pub image_digest: Option<String>,
    /// UUIDs of the devices that every run sees.
    pub devices: Vec<String>,
    /// The one run that this machine is there for, if it is for one.
    pub only_run: Option<String>,
}

/// The signed account of a run, and what it is about.
#[derive(Clone, Debug)]
pub struct Attested {
    /// The attestation.
    pub envelope: Envelope,
    /// The outputs whose digest is in it; empty when the run failed.
    pub outputs: Vec<u8>,
}

/// Attests `outcome`. `grant` is the digest of the payload that asked for the run.
///
/// `gpu_seconds` is what was measured; where nothing was, the time that the devices were reserved for the run is attested:
/// wall time times their number.
pub fn attest(
    key: &SigningKey,
    machine: &Machine,
    ready: &Ready,
    run_id: &str,
    grant: DigestSet,
    outcome: Outcome,
    gpu_seconds: Option<f64>,
) -> Result<Attested, Error> {
    let outputs = outcome.result.as_ref().ok();
    #[allow(clippy::cast_precision_loss, reason = "a machine has few devices")]
    let reserved = outcome.elapsed.as_secs_f64() * machine.devices.len() as f64;
    let attestation = Attestation {
        type_: attestation::TYPE.to_owned(),
        suite: key.suite(),
        run_id: run_id.to_owned(),
        grant,
        started_at: outcome.started_at,
        finished_at: outcome.finished_at,
        result: match &outcome.result {
            Ok(_) => attestation::Outcome::Success,
            Err(_) => attestation::Outcome::Error,
        },
        error: outcome.result.as_ref().err().cloned(),
        outputs: outputs.map(|outputs| DigestSet::of(outputs)),
        output_bytes: outputs.map_or(0, |outputs| outputs.len() as u64),
        stdout: outcome.stdout,
        stderr: outcome.stderr,
        blocks: outcome.blocks,
        gpu_seconds: gpu_seconds.unwrap_or(reserved),
        gpu_seconds_from: gpu_seconds.map(|_| GpuSecondsFrom::Utilization),
        devices: machine.devices.clone(),
        environment: Environment {
            interpreter: ready.interpreter.clone(),
            packages_digest: ready.packages_digest.clone(),
            image_digest: machine.image_digest.clone(),
            languages: ready.languages.clone(),
        },
        isolation: Isolation {
            unit: if machine.only_run.as_deref() == Some(run_id) {
                Unit::Pod
            } else {
                Unit::Process
            },
            landlock_abi: ready.landlock_abi,
            seccomp: ready.confined,
            // Without confinement nothing keeps a run from the network.
            network: !ready.confined,
            rlimits: ready.limits.clone(),
        },
    };
    Ok(Attested {
        envelope: attestation.sign(key)?,
        outputs: outcome.result.unwrap_or_default(),
    })
}
