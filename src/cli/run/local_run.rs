//! A run on this machine, which is controller and head at once: acceptance, grant, sandbox, attestation, judgement and receipt
//! are those of a cluster.

use std::ffi::OsString;
use std::time::Duration;

use api::{MamlWorkflow, MuReceipt};
use controller_core::document::{Accepted, Refusal};
use controller_core::inputs::Inputs;
use controller_core::mirror::mirrored;
use controller_core::receipt::{
    COMMAND_LINE, Finished, Signatory, build_claim, build_receipt, refusal_failure,
};
use controller_core::run;
use controller_core::run::{Destination, Ending, Intent, Record, build_grant, judge};
use controller_core::specification::Files;
use crypto::attestation::RunError;
use crypto::{DigestSet, SigningKey, Suite};
use jiff::Timestamp;
use sandbox::attestation::{Machine, attest};
use sandbox::consumption::Consumption;
use sandbox::environment;
use sandbox::execution::{Happening, Outcome, Place, execute, wait_until_ready};
use sandbox::folder::Folders;
use sandbox::job::Job;
use sandbox::policy::{Limits, Policy};
use sandbox::workers::{Configuration, Ready, Warmth, Workers};
use tokio::sync::watch;

use crate::error::Error;
use crate::local_keys::LocalKeys;

/// The landlock ABI that is asked for, as in a head: below it, a run could signal other processes of its user.
const MINIMUM_LANDLOCK: u32 = 6;
/// What a run may use: the defaults of a head.
const MEMORY: u64 = 2 << 30;
const DISK: u64 = 1 << 30;
const TASKS: u64 = 256;
/// A cold disk, or a slow wrapper around the interpreter.
const START_LIMIT: Duration = Duration::from_secs(30);

/// How runs are kept apart from this machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Isolation {
    /// Landlock, seccomp and limits; refused where the kernel lacks one of them
    #[default]
    Full,
    /// Limits only, for documents that you trust as you trust yourself; the receipt says so
    None,
}

/// The interpreter. Ended when dropped.
pub struct Sandbox {
    workers: Workers,
    together: Consumption,
    isolation: Isolation,
    /// Removed when this is dropped.
    _base: tempfile::TempDir,
}

impl Sandbox {
    /// Starts the interpreter; does not wait for it.
    pub fn start(python: OsString, isolation: Isolation) -> Result<Self, Error> {
        let fail = |cause: &dyn std::error::Error| Error::failed("cannot prepare the sandbox").because(cause);
        let base = tempfile::Builder::new()
            .prefix("chimera-run-")
            .tempdir()
            .map_err(|cause| fail(&cause))?;
        let folders = Folders::open(&base.path().join("runs")).map_err(|cause| fail(&cause))?;
        let limits = Limits {
            memory: MEMORY,
            file: DISK,
            descriptors: 1024,
            processes: TASKS * 16,
        };
        let inherited = environment::of_interpreter(|name| std::env::var_os(name));
        let of_runs = environment::of_runs(&inherited);
        let policy = match isolation {
            Isolation::Full => {
                Policy::new(limits, MINIMUM_LANDLOCK, of_runs).map_err(|cause| fail(&cause))?
            }
            Isolation::None => Policy::unconfined(limits, of_runs),
        };
        let workers = Workers::start(Configuration {
            python,
            preload: Vec::new(),
            policy,
            environment: inherited,
            folders,
            warmth: Warmth::Fork,
            // One run needs no other in reserve.
            standby: false,
        });
        Ok(Self {
            workers,
            together: Consumption {
                tasks: TASKS,
                memory: MEMORY,
                disk: DISK,
            },
            isolation,
            _base: base,
        })
    }

    /// Waits for the interpreter.
    pub async fn ready(&self) -> Result<std::sync::Arc<Ready>, Error> {
        wait_until_ready(&self.workers, START_LIMIT).await.map_err(|cause| {
            let error = Error::failed(format!("the interpreter cannot be started: {cause}"));
            match self.isolation {
                Isolation::Full if cause.contains("landlock") => error.hint(
                    "this machine cannot confine a run; --sandbox=none runs a document that you trust, and the receipt says so",
                ),
                _ => error.hint("--python names another interpreter"),
            }
        })
    }

    /// Runs the job.
    pub async fn run(
        &self,
        job: &Job,
        stop: watch::Receiver<Option<RunError>>,
        sink: impl FnMut(Happening) + Send,
    ) -> Outcome {
        let place = Place {
            workers: &self.workers,
            together: self.together,
        };
        execute(place, job, stop, sink).await
    }
}

/// A document that was submitted here.
pub struct Submitted<'a> {
    /// Stands for the object that a cluster would hold.
    pub workflow: &'a MamlWorkflow,
    /// The document, byte for byte.
    pub document: &'a [u8],
    /// Specifications that lie beside it.
    pub specifications: &'a Files,
    /// Keys of this machine.
    pub keys: &'a LocalKeys,
}

/// A run before its end.
pub struct Granted<'a> {
    submitted: &'a Submitted<'a>,
    accepted: &'a Accepted,
    attester: SigningKey,
    grant: crypto::Envelope,
    run_id: String,
}

/// How a run ended.
pub struct Ended {
    /// Both records, checked against one another.
    pub record: Record,
    /// What is kept.
    pub receipt: MuReceipt,
}

impl<'a> Submitted<'a> {
    /// Grants the run, signed as in a cluster.
    pub fn grant(&'a self, accepted: &'a Accepted, now: Timestamp) -> Result<Granted<'a>, Error> {
        let attester = SigningKey::generate(Suite::MlDsa87).map_err(|cause| unsigned(&cause))?;
        let uid = self.workflow.metadata.uid.clone().unwrap_or_default();
        let grant = build_grant(
            &Intent {
                workflow: self.workflow,
                attempt: 1,
                document: self.document,
                inputs: &accepted.inputs,
                specifications: self.specifications,
                suite: self.keys.signing.suite(),
                fencing_token: 0,
                now,
            },
            &Destination {
                head: "local",
                pod: "local",
                pod_uid: &uid,
                node: None,
                attester: attester.verifying_key(),
            },
        );
        Ok(Granted {
            submitted: self,
            accepted,
            attester,
            grant: grant.sign(&self.keys.signing).map_err(|cause| unsigned(&cause))?,
            run_id: grant.run_id,
        })
    }

    /// The receipt of a document that was refused.
    pub fn refuse(&self, refusal: &Refusal, inputs: &Inputs) -> Result<MuReceipt, Error> {
        let failure = refusal_failure(refusal);
        self.sign(&Finished {
            workflow: self.workflow,
            attempt: 0,
            document: self.document,
            inputs,
            record: None,
            failure: Some(&failure),
        })
    }

    fn sign(&self, finished: &Finished<'_>) -> Result<MuReceipt, Error> {
        let key = &self.keys.signing;
        let key_id = key.verifying_key().key_id();
        let now = Timestamp::now();
        let claim = build_claim(
            finished,
            &Signatory {
                suite: key.suite(),
                key_id: key_id.clone(),
                predecessor: self.keys.trusted.predecessor(key_id).cloned(),
                fencing_token: 0,
                builder: COMMAND_LINE,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                now,
            },
        );
        let statement = crypto::receipt::statement(&claim).map_err(|cause| unsigned(&cause))?;
        let envelope = crypto::receipt::sign(&statement, key).map_err(|cause| unsigned(&cause))?;
        let mirrored = mirrored(finished.document, &claim, now, |bytes| key.sign(bytes))
            .map_err(|cause| unsigned(&cause))?;
        Ok(build_receipt(finished, &claim, &envelope, mirrored))
    }
}

impl Granted<'_> {
    /// The run's id.
    pub fn run_id(&self) -> &str {
        &self.run_id
    }

    /// Attests the outcome, judges both records, and signs the receipt.
    pub fn conclude(&self, outcome: Outcome, ready: &Ready) -> Result<Ended, Error> {
        let Submitted {
            workflow,
            document,
            keys,
            ..
        } = *self.submitted;
        let attested = attest(
            &self.attester,
            &Machine::default(),
            ready,
            &self.run_id,
            DigestSet::of(self.grant.payload()),
            outcome,
            None,
        )
        .map_err(|cause| unsigned(&cause))?;
        let ending = Ending {
            grant: self.grant.to_json().into_bytes(),
            document: document.to_vec(),
            inputs: self.accepted.inputs.clone(),
            attestation: attested.envelope.to_json().into_bytes(),
            outputs: attested.outputs,
        };
        let record =
            judge(&ending, workflow, 1, &keys.trusted, &self.accepted.document).map_err(|disbelief| {
                match disbelief {
                    run::Disbelief::Infrastructure { message, .. } => {
                        Error::failed(format!("the document was not run to its end: {message}"))
                    }
                    other => Error::failed("the records of the run disagree").because(&other),
                }
            })?;
        let receipt = self.submitted.sign(&Finished {
            workflow,
            attempt: 1,
            document,
            inputs: &self.accepted.inputs,
            record: Some(&record),
            failure: record.failure.as_ref(),
        })?;
        Ok(Ended { record, receipt })
    }
}

fn unsigned(cause: &dyn std::error::Error) -> Error {
    Error::failed("cannot sign the receipt").because(cause)
}
