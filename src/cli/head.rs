//! `chimera head`: the warm pods that run documents.

mod mirror;
mod overview;
mod status;

use clap::Subcommand;

use crate::error::Error;
use crate::exit_code::ExitCode;

/// Shows the heads that run documents
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Shows which pods are busy, warm or spare, what was lost lately and how fast it was made good, and devices
    ///
    /// Runs are counted from the workflows of the namespace. With --watch, prints everything again on every change.
    Status(status::Args),
}

pub async fn run(args: Args) -> Result<ExitCode, Error> {
    match args.verb {
        Verb::Status(args) => status::run(args).await,
    }
}
