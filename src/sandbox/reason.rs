//! Reasons of failed runs, as they stand in attestations and conditions.

/// A block raised an error.
pub const BLOCK_FAILED: &str = "ProgramFailed";
/// The run took longer than its grant allows.
pub const TIMED_OUT: &str = "TimedOut";
/// The run asked for more memory than it may have.
pub const OUT_OF_MEMORY: &str = "OutOfMemory";
/// The run printed without end.
pub const OUTPUT_LIMIT_EXCEEDED: &str = "OutputLimitExceeded";
/// The run started more processes and threads than it may have.
pub const PROCESS_LIMIT_EXCEEDED: &str = "ProcessLimitExceeded";
/// The run wrote more to disk than it may.
pub const DISK_LIMIT_EXCEEDED: &str = "DiskLimitExceeded";
/// The outputs are not JSON, or too large.
pub const INVALID_OUTPUT: &str = "OutputsUnreadable";
/// A signal ended the run.
pub const KILLED: &str = "ProgramKilled";
/// The interpreter ended before the document did.
pub const INTERPRETER_EXITED: &str = "InterpreterExited";
/// Someone cancelled the run.
pub const CANCELLED: &str = "Cancelled";
/// The head was stopped before the run was over. Not the document's fault.
pub const HEAD_STOPPING: &str = "HeadStopping";
/// The warm interpreter was lost. Not the document's fault.
pub const INTERPRETER_LOST: &str = "InterpreterLost";
/// The sandbox could not be put in force, and nothing was run. Not the document's fault.
pub const SANDBOX_FAILED: &str = "SandboxFailed";
/// A condition of the document's specifications does not hold.
pub const VERIFICATION_FAILED: &str = "VerificationFailed";
/// A block is in a language that this head does not run.
pub const UNSUPPORTED_LANGUAGE: &str = "UnsupportedLanguage";

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [&str; 15] = [
        BLOCK_FAILED,
        TIMED_OUT,
        OUT_OF_MEMORY,
        OUTPUT_LIMIT_EXCEEDED,
        PROCESS_LIMIT_EXCEEDED,
        DISK_LIMIT_EXCEEDED,
        INVALID_OUTPUT,
        KILLED,
        INTERPRETER_EXITED,
        CANCELLED,
        HEAD_STOPPING,
        INTERPRETER_LOST,
        SANDBOX_FAILED,
        VERIFICATION_FAILED,
        UNSUPPORTED_LANGUAGE,
    ];

    #[test]
    fn users_can_look_up_every_reason() {
        for reason in ALL {
            assert!(
                api::reasons::ALL.iter().any(|known| known.name == reason),
                "{reason}"
            );
        }
    }
}
