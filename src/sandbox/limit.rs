//! The limits of a run, and the sentences that say which one was reached and how much it allows.

use crate::consumption::Consumption;
use crate::execution::failure;
use crate::reason;
use crypto::attestation::RunError;
use serde::Deserialize;

/// A limit that a process of the run ran into by itself, and was told of by an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Limit {
    /// No more memory.
    Memory,
    /// A file became too long.
    File,
    /// No more processes or threads.
    Processes,
    /// A socket was asked for.
    Network,
}

impl Limit {
    /// The reason that it gives to a failure; asking for a socket is an ordinary error of the program.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Memory => reason::OUT_OF_MEMORY,
            Self::File => reason::DISK_LIMIT_EXCEEDED,
            Self::Processes => reason::PROCESS_LIMIT_EXCEEDED,
            Self::Network => reason::BLOCK_FAILED,
        }
    }

    /// What the limit is.
    pub(crate) fn sentence(self, allowed: &Consumption) -> String {
        match self {
            Self::Memory => format!("a run may use {} MiB of memory", allowed.memory >> 20),
            Self::File => format!("a run may hold {} MiB on disk", allowed.disk >> 20),
            Self::Processes => format!("a run may have {} processes and threads", allowed.tasks),
            Self::Network => "a run has no network".to_owned(),
        }
    }
}

/// Why a run that uses `used` must end, if it must.
pub(crate) fn exceeded(used: &Consumption, allowed: &Consumption) -> Option<RunError> {
    if used.tasks > allowed.tasks {
        let message = format!("the run had more than {} processes and threads", allowed.tasks);
        return Some(failure(reason::PROCESS_LIMIT_EXCEEDED, message));
    }
    if used.disk > allowed.disk {
        let message = format!(
            "the run wrote more than {} MiB to disk, or more files than can be looked at",
            allowed.disk >> 20
        );
        return Some(failure(reason::DISK_LIMIT_EXCEEDED, message));
    }
    (used.memory > allowed.memory).then(|| {
        let message = format!(
            "the run's processes used more than {} MiB of memory together",
            allowed.memory >> 20
        );
        failure(reason::OUT_OF_MEMORY, message)
    })
}
