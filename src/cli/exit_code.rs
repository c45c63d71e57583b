//! What the process ends with. Scripts rely on these numbers: they never change their meaning.

/// The exit codes of all verbs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(
    dead_code,
    reason = "the list is complete whether or not a verb uses each code yet"
)]
pub enum ExitCode {
    /// All went well.
    Ok = 0,
    /// The run failed, or what was asked for could not be done.
    Failed = 1,
    /// Wrong usage, or an invalid document.
    Usage = 2,
    /// It took longer than allowed.
    TimedOut = 3,
    /// A signature does not hold.
    BadSignature = 10,
    /// A key is not one that the trust bundle vouches for.
    UntrustedKey = 11,
    /// What was given is not what was signed.
    DigestMismatch = 12,
    /// There is no such receipt.
    NoReceipt = 13,
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}
