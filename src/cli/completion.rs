//! `chimera completion SHELL`: the script that completes this command line.

use clap_complete::Shell;

use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::output;

/// Prints a completion script for a shell
///
/// bash: source <(chimera completion bash); zsh: chimera completion zsh > "${fpath[1]}/_chimera"; fish: chimera completion
/// fish > ~/.config/fish/completions/chimera.fish
#[derive(clap::Args, Debug)]
pub struct Args {
    shell: Shell,
}

#[allow(clippy::unused_async, reason = "every verb has the same form")]
pub async fn run(args: Args) -> Result<ExitCode, Error> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::command(), "chimera", &mut script);
    output::print_raw(&script)?;
    Ok(ExitCode::Ok)
}
