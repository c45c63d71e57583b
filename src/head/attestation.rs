//! What a head swears to after a run, signed with a key that is made at its start and never leaves its memory.

use crate::environment::LANGUAGES;
use crate::execution::Outcome;
use crate::zygote::Ready;
use crypto::attestation::{self, Attestation, Environment, Error, Isolation};
use crypto::{DigestSet, SigningKey};
use head_proto::Finished;

/// What does not change between the runs of one agent.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Digest of the head's image, when it is known.
    pub image_digest: Option<String>,
    /// UUIDs of the devices that every run sees.
    pub devices: Vec<String>,
}

/// The last event of a run.
///
/// `gpuSeconds` is the time that the devices were reserved for the run: wall time times their number.
pub fn finish(
    key: &SigningKey,
    machine: &Machine,
    ready: Option<&Ready>,
    run_id: &str,
    grant: DigestSet,
    outcome: Outcome,
) -> Result<Finished, Error> {
    let outputs = outcome.result.as_ref().ok();
    #[allow(clippy::cast_precision_loss, reason = "a machine has few devices")]
    let gpu_seconds = outcome.elapsed.as_secs_f64() * machine.devices.len() as f64;
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
        gpu_seconds,
        devices: machine.devices.clone(),
        environment: Environment {
            interpreter: ready.map(|ready| ready.interpreter.clone()).unwrap_or_default(),
            packages_digest: ready
                .map(|ready| crate::environment::of(ready).packages_digest)
                .unwrap_or_default(),
            image_digest: machine.image_digest.clone(),
            languages: LANGUAGES.map(str::to_owned).to_vec(),
        },
        isolation: Isolation {
            landlock_abi: ready.map_or(0, |ready| ready.landlock_abi),
            // Without both, no child gets as far as user code.
            seccomp: ready.is_some(),
            network: false,
            rlimits: ready.map(|ready| ready.limits.clone()).unwrap_or_default(),
        },
    };
    Ok(Finished {
        attestation: attestation.sign(key)?.to_json().into_bytes(),
        outputs: outcome.result.unwrap_or_default(),
    })
}
