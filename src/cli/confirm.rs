//! Asks before what cannot be taken back.

use std::io::{BufRead as _, IsTerminal as _};

use crate::error::Error;
use crate::output;

/// Goes on when the user says yes, or has said so with `--yes`. Without a terminal nobody can be asked.
pub fn confirm(question: &str, yes: bool) -> Result<(), Error> {
    if yes {
        return Ok(());
    }
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Error::usage("nobody is at a terminal to confirm this").hint("--yes confirms it"));
    }
    output::note(format_args!("{question} [y/N]"));
    let mut answer = String::new();
    stdin
        .lock()
        .read_line(&mut answer)
        .map_err(|cause| Error::failed("cannot read the answer").because(&cause))?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        Err(Error::failed("nothing was done"))
    }
}
