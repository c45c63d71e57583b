//! `chimera run FILE`: runs a document here, without a cluster, and signs the receipt with a key of this machine.

mod local_run;
mod progress;
mod watch;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::maml_workflow::Source;
use api::{MamlWorkflow, MamlWorkflowSpec, MuReceipt, reasons};
use controller_core::document::{Accepted, Refusal, Submission, accept};
use controller_core::inputs::Inputs;
use controller_core::requirements::{Interpreter, unmet};
use controller_core::specification::{self, Files};
use crypto::attestation::{BlockState, RunError};
use jiff::Timestamp;
use sandbox::execution::{Happening, Outcome};
use sandbox::job::Job;
use sandbox::workers::Ready;
use serde_json::{Map, Value};
use tokio::sync::watch as channel;

use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::local_keys;
use crate::output::{self, Format};
use crate::source::{self, InputArgs};
use crate::{render, whole_file};

use local_run::{Ended, Isolation, Sandbox, Submitted};
use progress::Progress;
use watch::Changes;

/// Runs a document here, without a cluster
///
/// Prints the outputs as JSON; what the program prints goes to stderr. The receipt is written beside the document and signed with
/// a key of this machine, which is made on first use. Ends with 0 when the run succeeded, 1 when it failed, 2 when the document
/// or its inputs are invalid, 3 when it took longer than --timeout.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The document; `-` is stdin
    #[arg(value_name = "FILE")]
    file: PathBuf,

    #[command(flatten)]
    inputs: InputArgs,

    /// The agent on whose behalf it runs; the document's permissions.execute decide
    #[arg(long, value_name = "agent://NAME", value_parser = source::parse_agent)]
    act_as: Option<String>,

    /// How long the program may run, such as 90s or 5m
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = api::duration::parse)]
    timeout: Duration,

    /// Writes the outputs and a line of History into the document when the run succeeded
    #[arg(long)]
    in_place: bool,

    /// Where the receipt is written, instead of beside the document; for a refused document too
    #[arg(long, value_name = "FILE")]
    receipt: Option<PathBuf>,

    /// Runs again whenever the document or --inputs changes, until Ctrl-C
    #[arg(long)]
    watch: bool,

    /// How the run is kept apart from this machine
    #[arg(long, value_enum, default_value_t)]
    sandbox: Isolation,

    /// The Python interpreter; that of the active virtual environment, else python3
    #[arg(long, value_name = "PROGRAM", env = "CHIMERA_PYTHON")]
    python: Option<OsString>,

    /// Shows neither progress nor what the program prints
    #[arg(short, long)]
    quiet: bool,

    /// How the outputs are written
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub async fn run(args: Args) -> Result<ExitCode, Error> {
    if args.in_place && source::is_stdin(&args.file) {
        return Err(Error::usage("--in-place needs a file, not stdin"));
    }
    if !args.watch {
        return once(&args).await;
    }
    if source::is_stdin(&args.file) {
        return Err(Error::usage("--watch needs a file, not stdin"));
    }
    follow(&args).await
}

/// Runs at once and after every change.
async fn follow(args: &Args) -> Result<ExitCode, Error> {
    let mut files: Vec<&Path> = vec![&args.file];
    files.extend(args.inputs.inputs.as_deref());
    let mut changes = Changes::of(&files)?;
    let contents = || {
        files
            .iter()
            .map(std::fs::read)
            .map(Result::ok)
            .collect::<Vec<_>>()
    };
    loop {
        if let Err(error) = once(args).await {
            error.report();
        }
        // Also what --in-place wrote just now, which is no reason to run again.
        let seen = contents();
        output::note(format_args!(
            "waiting for a change of {}",
            source::shown(&args.file)
        ));
        loop {
            tokio::select! {
                () = changes.next() => {}
                _ = tokio::signal::ctrl_c() => return Ok(ExitCode::Ok),
            }
            if contents() != seen {
                break;
            }
        }
    }
}

async fn once(args: &Args) -> Result<ExitCode, Error> {
    let bytes = source::read_bytes(&args.file)?;
    let inputs = args.inputs.read()?;
    let accepted = accept(&Submission {
        document: &bytes,
        inputs: &inputs,
        sealed: None,
        act_as: args.act_as.as_deref(),
    });
    let workflow = workflow(args, inputs)?;
    let accepted = match accepted {
        Ok(accepted) => accepted,
        Err(refusal) => return refuse(args, &bytes, &workflow, &refusal),
    };
    if !args.quiet {
        warn(args, &bytes);
    }
    check_machine(&accepted)?;
    let specifications = match specification::find(&accepted.document, &beside(args, &accepted)) {
        Ok(found) => found,
        Err(refusal) => return refuse(args, &bytes, &workflow, &refusal),
    };
    if !specifications.missing.is_empty() {
        output::note(format_args!(
            "warning: {}",
            specification::not_found(&specifications.missing)
        ));
    }

    let sandbox = Sandbox::start(python(args), args.sandbox)?;
    // The interpreter starts while the keys are read.
    tokio::task::yield_now().await;
    let keys = local_keys::open()?;
    let submitted = Submitted {
        workflow: &workflow,
        document: &bytes,
        specifications: &specifications.files,
        keys: &keys,
    };
    let granted = submitted.grant(&accepted, Timestamp::now())?;
    let job = job(args, &accepted, &specifications.files)?;
    let ready = sandbox.ready().await?;
    check_packages(&accepted, &ready)?;
    let outcome = carry_out(args, &sandbox, &job).await;
    let report = block_report(&outcome);
    let took = outcome.elapsed;
    let ended = granted.conclude(outcome, &ready)?;
    // A run has succeeded only when its receipt is there.
    let receipt = write_receipt(args, &ended.receipt)?;
    if let Some(failure) = &ended.record.failure {
        return Ok(fail(args, failure, &report, receipt.as_deref()));
    }
    if args.in_place {
        write_back(args, &bytes, &ended, granted.run_id())?;
    }
    let outputs = ended.record.outputs.unwrap_or_default();
    match args.output {
        Format::Yaml => args.output.print(&outputs, |_| String::new())?,
        Format::Table | Format::Json => output::print_json(&outputs)?,
    }
    if !args.quiet {
        tell_success(&report, took, receipt.as_deref());
    }
    Ok(ExitCode::Ok)
}

/// What speaks against a document without refusing it.
fn warn(args: &Args, bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        render::tell(&source::shown(&args.file), text, maml::read(text).diagnostics);
    }
}

fn tell_success(report: &[String], took: Duration, receipt: Option<&Path>) {
    for line in report {
        output::note(line);
    }
    let place = receipt.map_or_else(
        || "not written (stdin; --receipt FILE)".to_owned(),
        |path| path.display().to_string(),
    );
    output::note(format_args!(
        "succeeded in {:.2} s; receipt {place}",
        took.as_secs_f64()
    ));
}

/// Runs the job, showing it, until its end or Ctrl-C, which cancels it.
async fn carry_out(args: &Args, sandbox: &Sandbox, job: &Job) -> Outcome {
    let names = job.blocks.iter().map(|block| block.name.clone()).collect();
    let mut progress = Progress::new(names, args.quiet);
    let (stop, stopped) = channel::channel(None);
    let outcome = {
        let running = sandbox.run(job, stopped, |happening| match happening {
            Happening::Began(index) => progress.began(index),
            Happening::Ended(..) => {}
            Happening::Printed(stream, data) => progress.printed(stream, &data),
        });
        tokio::pin!(running);
        loop {
            tokio::select! {
                outcome = &mut running => break outcome,
                _ = tokio::signal::ctrl_c() => {
                    let cause = sandbox::execution::failure(sandbox::reason::CANCELLED, "the run was cancelled");
                    stop.send_replace(Some(cause));
                }
            }
        }
    };
    progress.finish();
    outcome
}

/// Stands for the object that a cluster would hold.
fn workflow(args: &Args, inputs: Map<String, Value>) -> Result<MamlWorkflow, Error> {
    let seconds = args.timeout.as_secs_f64().ceil().max(1.0);
    if seconds > 604_800.0 {
        return Err(Error::usage(
            "--timeout is longer than a run may take, which is a week",
        ));
    }
    let user = ["USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok());
    let mut workflow = MamlWorkflow::new(
        &source::workflow_name(&args.file),
        MamlWorkflowSpec {
            source: Source::default(),
            inputs,
            submitter: Some(format!("local:{}", user.as_deref().unwrap_or("user"))),
            act_as: args.act_as.clone(),
            #[expect(clippy::cast_possible_truncation, reason = "from 1 to 604800")]
            timeout_seconds: seconds as i32,
            ..MamlWorkflowSpec::default()
        },
    );
    workflow.metadata.namespace = Some("local".to_owned());
    workflow.metadata.uid = Some(uuid::Uuid::new_v4().to_string());
    workflow.metadata.generation = Some(1);
    Ok(workflow)
}

/// The specifications that the document needs, as far as they lie beside it.
fn beside(args: &Args, accepted: &Accepted) -> Files {
    if source::is_stdin(&args.file) {
        return Files::new();
    }
    let folder = args.file.parent().unwrap_or(Path::new(""));
    specification::needed(&accepted.document)
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), std::fs::read_to_string(folder.join(name)).ok()?)))
        .collect()
}

fn job(args: &Args, accepted: &Accepted, specifications: &Files) -> Result<Job, Error> {
    let inputs = std::str::from_utf8(accepted.inputs.bytes())
        .map_err(|cause| Error::failed("the inputs are not UTF-8").because(&cause))?;
    let mut job = Job::of(&accepted.document, inputs, args.timeout)
        .map_err(|cause| Error::usage("the document cannot be run").because(&cause))?;
    for (name, code) in specifications {
        job.add_specification(name, code);
    }
    Ok(job)
}

/// What a document requires and a run on this machine never has.
fn check_machine(accepted: &Accepted) -> Result<(), Error> {
    let requires = &accepted.document.front_matter.requires;
    if requires.gpus > 0 {
        return Err(Error::failed(format!(
            "the document requires {} GPU(s), which runs on this machine do not get",
            requires.gpus
        ))
        .hint("`chimera submit` runs it in a cluster"));
    }
    let verification = accepted.document.front_matter.verification.as_ref();
    if verification
        .is_some_and(|verification| verification.level == maml::Level::Strict && verification.needs_ortac())
    {
        return Err(Error::failed(
            "the document may run only where ortac checks its specifications, which this machine does not",
        )
        .hint("with `level: warn` it runs unverified"));
    }
    Ok(())
}

/// The packages that a document requires, against those of the interpreter.
fn check_packages(accepted: &Accepted, ready: &Ready) -> Result<(), Error> {
    let interpreter = Interpreter {
        name: &ready.interpreter,
        packages: &ready.packages,
    };
    let unmet = unmet(&accepted.document.front_matter.requires.packages, interpreter);
    if unmet.is_empty() {
        return Ok(());
    }
    Err(Error::failed(format!(
        "the interpreter ({}) lacks what the document requires: {}",
        ready.interpreter,
        unmet.join(", ")
    ))
    .hint("install it in a virtual environment and activate that, or name its interpreter with --python"))
}

/// The interpreter: as told, of the active virtual environment, or the first python3.
fn python(args: &Args) -> OsString {
    if let Some(python) = &args.python {
        return python.clone();
    }
    let active = std::env::var_os("VIRTUAL_ENV")
        .map(|folder| PathBuf::from(folder).join("bin/python3"))
        .filter(|python| python.exists());
    active.map_or_else(|| "python3".into(), PathBuf::into_os_string)
}

/// Tells what is wrong with a document or its inputs. The receipt of that is written where --receipt asks for it.
fn refuse(args: &Args, bytes: &[u8], workflow: &MamlWorkflow, refusal: &Refusal) -> Result<ExitCode, Error> {
    let shown = source::shown(&args.file);
    if args.receipt.is_some() {
        let keys = local_keys::open()?;
        let submitted = Submitted {
            workflow,
            document: bytes,
            specifications: &Files::new(),
            keys: &keys,
        };
        let inputs = Inputs::plain(serde_json::to_vec(&workflow.spec.inputs).unwrap_or_default());
        write_receipt(args, &submitted.refuse(refusal, &inputs)?)?;
    }
    let error = match std::str::from_utf8(bytes) {
        Ok(text) if !refusal.diagnostics.is_empty() => {
            let summary = render::tell(&shown, text, maml::read(text).diagnostics);
            Error::usage(format!("{shown} is not a valid document: {summary}"))
                .hint("`chimera explain CODE` tells more about a fault")
        }
        _ => {
            let error = Error::usage(format!("{shown}: {}", refusal.message));
            match refusal.reason {
                reasons::NOT_PERMITTED => error.hint("--act-as agent://NAME runs it on behalf of an agent"),
                reasons::INPUTS_INVALID => error.hint("set inputs with -i NAME=VALUE or --inputs FILE"),
                _ => error,
            }
        }
    };
    Err(error)
}

/// Tells why a run failed, and what its exit code is.
fn fail(args: &Args, failure: &RunError, report: &[String], receipt: Option<&Path>) -> ExitCode {
    for line in report {
        output::note(line);
    }
    let shown = source::shown(&args.file);
    let place = failure.line.map_or_else(
        || shown.clone(),
        |line| match failure.column {
            Some(column) => format!("{shown}:{line}:{column}"),
            None => format!("{shown}:{line}"),
        },
    );
    let code = if failure.reason == sandbox::reason::TIMED_OUT {
        ExitCode::TimedOut
    } else {
        ExitCode::Failed
    };
    let mut error = Error::new(code, format!("{place}: {}: {}", failure.reason, failure.message));
    if let Some(receipt) = receipt {
        error = error.hint(format!(
            "`chimera explain {}` says more; the receipt of the failure is {}",
            failure.reason,
            receipt.display()
        ));
    }
    error.report()
}

/// A line for each block that says more than that all went well.
fn block_report(outcome: &Outcome) -> Vec<String> {
    let several = outcome.blocks.len() > 1;
    let mut lines = Vec::new();
    for block in &outcome.blocks {
        let state = match block.state {
            BlockState::Succeeded => "ok",
            BlockState::Failed => "failed",
            BlockState::Skipped => "skipped",
        };
        if several || block.state == BlockState::Failed {
            lines.push(format!(
                "{:<8} {} ({}, {} ms)",
                state,
                output::harmless(&block.name),
                output::harmless(&block.language),
                block.duration_millis
            ));
        }
        lines.extend(
            block
                .diagnostics
                .lines()
                .map(|line| format!("  {}", output::harmless(line))),
        );
    }
    lines
}

/// Writes the receipt; nowhere when the document is stdin and no file was named.
fn write_receipt(args: &Args, receipt: &MuReceipt) -> Result<Option<PathBuf>, Error> {
    let path = match &args.receipt {
        Some(path) => path.clone(),
        None if source::is_stdin(&args.file) => return Ok(None),
        None => source::beside(&args.file, ".receipt.json"),
    };
    let fail = |cause: &dyn std::error::Error| {
        Error::failed(format!("cannot write the receipt {}", path.display())).because(cause)
    };
    let mut json = serde_json::to_vec_pretty(receipt).map_err(|cause| fail(&cause))?;
    json.push(b'\n');
    whole_file::replace(&path, &json).map_err(|cause| fail(&cause))?;
    Ok(Some(path))
}

/// Writes outputs and History into the document, unless it was changed while it ran.
fn write_back(args: &Args, ran: &[u8], ended: &Ended, run_id: &str) -> Result<(), Error> {
    let path = &args.file;
    let fail = |cause: &dyn std::error::Error| {
        Error::failed(format!("cannot write the outputs into {}", path.display())).because(cause)
    };
    if std::fs::read(path).map_err(|cause| fail(&cause))? != ran {
        return Err(Error::failed(format!(
            "{} was changed while it ran, so the outputs were not written into it",
            path.display()
        ))
        .hint("the receipt is of the document as it was; run it again"));
    }
    let text = std::str::from_utf8(ran).map_err(|cause| fail(&cause))?;
    let outputs = serde_json::to_string_pretty(&ended.record.outputs).map_err(|cause| fail(&cause))?;
    let ended_at = ended.record.attestation.finished_at;
    let ended_at = ended_at
        .round(jiff::Unit::Millisecond)
        .unwrap_or(ended_at)
        .to_string();
    let edited = maml::with_run(
        text,
        &maml::RunNote {
            outputs_json: Some(&outputs),
            ended_at: &ended_at,
            run_id,
            result: maml::RunResult::Success,
            text: "",
        },
    )
    .map_err(|cause| fail(&cause))?;
    whole_file::replace(path, edited.as_bytes()).map_err(|cause| fail(&cause))
}
