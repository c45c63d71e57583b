//! `chimera`, also installed as `kubectl-chimera`: writes, checks, submits and verifies MAML documents.
//!
//! One file per verb, each with `Args` and `run`. This file only chooses between them; it must not know what a verb does.

mod cancel;
mod cluster;
mod completion;
mod confirm;
mod error;
mod events;
mod exit_code;
mod explain;
mod fmt;
mod head;
mod keys;
mod lint;
mod local_keys;
mod logs;
mod mu;
mod output;
mod render;
mod run;
mod sarif;
mod seal;
mod secret;
mod secret_file;
mod source;
mod status;
mod stream;
mod submit;
mod trust;
mod user_folder;
mod verify;
mod wait;
mod whole_file;
mod why;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::error::Error;

/// Runs executable Markdown documents (MAML) and verifies their signed receipts.
#[derive(Parser)]
#[command(
    name = "chimera",
    version,
    propagate_version = true,
    after_help = "Exit codes: 0 ok, 1 the run failed, 2 usage or invalid document, 3 time-out, 10 bad signature, \
                  11 untrusted key, 12 digest mismatch, 13 no receipt."
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    Cancel(cancel::Args),
    Completion(completion::Args),
    Events(events::Args),
    Explain(explain::Args),
    Fmt(fmt::Args),
    Head(Box<head::Args>),
    Keys(Box<keys::Args>),
    Lint(lint::Args),
    Logs(logs::Args),
    Mu(mu::Args),
    Run(Box<run::Args>),
    Seal(Box<seal::Args>),
    Status(status::Args),
    Stream(stream::Args),
    Submit(Box<submit::Args>),
    Trust(Box<trust::Args>),
    Verify(verify::Args),
    Why(why::Args),
}

async fn dispatch(verb: Verb) -> Result<exit_code::ExitCode, Error> {
    match verb {
        Verb::Cancel(args) => cancel::run(args).await,
        Verb::Completion(args) => completion::run(args).await,
        Verb::Events(args) => events::run(args).await,
        Verb::Explain(args) => explain::run(args).await,
        Verb::Fmt(args) => fmt::run(args).await,
        Verb::Head(args) => head::run(*args).await,
        Verb::Keys(args) => keys::run(*args).await,
        Verb::Lint(args) => lint::run(args).await,
        Verb::Logs(args) => logs::run(args).await,
        Verb::Mu(args) => mu::run(args).await,
        Verb::Run(args) => run::run(*args).await,
        Verb::Seal(args) => seal::run(*args).await,
        Verb::Status(args) => status::run(args).await,
        Verb::Stream(args) => stream::run(args),
        Verb::Submit(args) => submit::run(*args).await,
        Verb::Trust(args) => trust::run(*args).await,
        Verb::Verify(args) => verify::run(args).await,
        Verb::Why(args) => why::run(args).await,
    }
}

/// The command as its user calls it: `chimera`, or `kubectl chimera` when it runs as a plug-in of kubectl.
fn command() -> clap::Command {
    let called = std::env::args_os().next().map(std::path::PathBuf::from);
    let stem = called
        .as_deref()
        .and_then(std::path::Path::file_stem)
        .and_then(std::ffi::OsStr::to_str);
    match stem {
        Some("kubectl-chimera" | "kubectl_chimera") => Cli::command().bin_name("kubectl chimera"),
        _ => Cli::command(),
    }
}

fn main() -> ExitCode {
    // Both providers of rustls can be in one build; the TLS of every verb uses this one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    completion::answer();
    let cli = match Cli::from_arg_matches(&command().get_matches()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime
        .map_err(|cause| Error::failed("cannot start").because(&cause))
        .and_then(|runtime| runtime.block_on(dispatch(cli.verb)));
    match result {
        Ok(code) => code.into(),
        Err(error) => error.report().into(),
    }
}
