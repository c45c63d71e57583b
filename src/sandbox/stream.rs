//! What a run prints: the beginning of each stream is kept, the rest is counted, and there is an end to it.

use crate::execution::{Happening, failure};
use crate::reason;
use crypto::DigestSet;
use crypto::attestation::{RunError, StreamDigest};
use serde::Serialize;

/// What is kept of each stream.
pub const KEPT_OUTPUT: usize = 1 << 20;
/// What a run may print before it is stopped.
pub const MOST_OUTPUT: u64 = 256 << 20;

/// One of a run's two streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One stream: its beginning, and how much there was.
#[derive(Default)]
pub(crate) struct Kept {
    data: Vec<u8>,
    bytes: u64,
}

impl Kept {
    /// Takes what came, and leaves room for more. An error when it was too much.
    pub(crate) fn take(
        &mut self,
        data: &mut Vec<u8>,
        stream: Stream,
        sink: &mut impl FnMut(Happening),
    ) -> Option<RunError> {
        self.bytes += data.len() as u64;
        let room = KEPT_OUTPUT - self.data.len();
        let kept = &data[..data.len().min(room)];
        if !kept.is_empty() {
            self.data.extend(kept);
            sink(Happening::Printed(stream, kept.to_vec()));
        }
        data.clear();
        // A pipe's worth at a time; read_buf fills what is reserved.
        data.reserve(64 << 10);
        (self.bytes > MOST_OUTPUT).then(|| {
            failure(
                reason::OUTPUT_LIMIT_EXCEEDED,
                format!("the run printed more than {} MiB", MOST_OUTPUT >> 20),
            )
        })
    }

    pub(crate) fn digest(&self) -> StreamDigest {
        StreamDigest {
            bytes: self.bytes,
            truncated: self.bytes > self.data.len() as u64,
            digest: DigestSet::of(&self.data),
        }
    }
}
