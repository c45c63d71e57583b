//! Why a verb could not do its work: a sentence, its cause, a hint, and the exit code.

use std::error::Error as StdError;
use std::fmt;

use crate::exit_code::ExitCode;
use crate::output;

/// An error as the user reads it.
#[derive(Debug)]
pub struct Error {
    message: String,
    hint: Option<String>,
    code: ExitCode,
    /// The reader of stdout went away: nothing to report.
    quiet: bool,
}

impl Error {
    /// An error that ends with `code`.
    pub fn new(code: ExitCode, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            hint: None,
            code,
            quiet: false,
        }
    }

    /// Something could not be done.
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(ExitCode::Failed, message)
    }

    /// The command or a file that it was given is wrong.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ExitCode::Usage, message)
    }

    /// Appends the cause and its causes.
    #[must_use]
    pub fn because(mut self, cause: &dyn StdError) -> Self {
        let mut cause = Some(cause);
        while let Some(error) = cause {
            let text = error.to_string();
            // Many errors repeat their source.
            if !self.message.contains(&text) {
                self.message.push_str(": ");
                self.message.push_str(&text);
            }
            cause = error.source();
        }
        self
    }

    /// Adds what would help.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What the process would end with.
    pub fn code(&self) -> ExitCode {
        self.code
    }

    /// The sentence with its causes, without the hint.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The error of a write to stdout. `chimera … | head` is not an error.
    pub fn of_stdout(cause: &std::io::Error) -> Self {
        let quiet = cause.kind() == std::io::ErrorKind::BrokenPipe;
        let code = if quiet { ExitCode::Ok } else { ExitCode::Failed };
        Self {
            quiet,
            ..Self::new(code, "cannot write to stdout").because(cause)
        }
    }

    /// Prints the error on stderr and gives its exit code.
    pub fn report(&self) -> ExitCode {
        if !self.quiet {
            anstream::eprintln!("{self}");
        }
        self.code
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        use anstyle::{AnsiColor, Style};
        let red = AnsiColor::Red.on_default().bold();
        let bold = Style::new().bold();
        // Messages quote documents and servers; neither may control the terminal.
        let harmless = |text: &str| text.lines().map(output::harmless).collect::<Vec<_>>().join("\n");
        write!(
            out,
            "{red}error{red:#}{bold}:{bold:#} {}",
            harmless(&self.message)
        )?;
        if let Some(hint) = self.hint.as_deref().map(harmless) {
            let cyan = AnsiColor::Cyan.on_default().bold();
            write!(out, "\n{cyan}hint{cyan:#}: {hint}")?;
        }
        Ok(())
    }
}

impl StdError for Error {}

impl From<kube::Error> for Error {
    fn from(cause: kube::Error) -> Self {
        match &cause {
            kube::Error::Api(status) => {
                let error = Self::failed(format!("the cluster refused: {}", status.message));
                match status.code {
                    401 => error.hint("log in again: the cluster does not know these credentials"),
                    403 => error.hint("ask for the role that allows this; the chart ships `chimera-edit` and `chimera-view`"),
                    404 if status.message.contains("the server could not find") => {
                        error.hint("the kinds of Chimera are not installed in this cluster")
                    }
                    _ => error,
                }
            }
            kube::Error::Service(_) | kube::Error::HyperError(_) => {
                Self::failed("the cluster cannot be reached")
                    .because(&cause)
                    .hint("check the kubeconfig and the network")
            }
            _ => Self::failed("the cluster could not be asked").because(&cause),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_once() {
        let inner = std::io::Error::other("no such thing");
        let error = Error::usage("cannot read x").because(&inner).hint("look again");
        let text = anstream::adapter::strip_str(&error.to_string()).to_string();
        assert_eq!(text, "error: cannot read x: no such thing\nhint: look again");
    }

    #[test]
    fn a_reader_that_went_away_is_no_error() {
        let cause = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        assert_eq!(Error::of_stdout(&cause).report(), ExitCode::Ok);
    }
}
