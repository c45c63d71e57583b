//! The words that pass between the agent's side and a run's child, and how they are cut out of the bytes between.
//!
//! User code may say anything here: lengths are bounded before anything is kept for them.

use crate::execution::failure;
use crate::job::{Block, Job, Specification};
use crate::limit::Limit;
use crate::outputs::LONGEST_OUTPUTS;
use crate::reason;
use crypto::attestation::RunError;
use serde::{Deserialize, Serialize};

const LONGEST_MESSAGE: usize = 64 << 10;

/// What the child is told: the whole job, in one frame.
#[derive(Serialize)]
struct Told<'a> {
    blocks: &'a [Block],
    /// JSON in JSON, so that its numbers reach Python as they were written.
    inputs: &'a str,
    outputs: Option<&'a [String]>,
    specifications: &'a [Specification],
    strict: bool,
}

/// What waits to be told to the child.
pub(crate) struct Outbox {
    pub(crate) bytes: Vec<u8>,
    /// How often the child may still be answered: an honest one says two words of each block, and waits after each.
    answers: usize,
}

impl Outbox {
    /// With the job in it.
    pub(crate) fn of(job: &Job) -> Self {
        Self {
            bytes: order(job),
            answers: 2 * job.blocks.len(),
        }
    }

    /// Answers a word about a block: everything that was printed before it has been read, and what the child prints
    /// from here on comes after it.
    pub(crate) fn answer(&mut self, said: &Said) {
        if matches!(said, Said::Message(Message::Block { .. })) && self.answers > 0 {
            self.answers -= 1;
            self.bytes.push(b'.');
        }
    }
}

/// The frame that tells the child of its job.
fn order(job: &Job) -> Vec<u8> {
    let told = Told {
        blocks: &job.blocks,
        inputs: &job.inputs,
        outputs: job.outputs.as_deref(),
        specifications: &job.specifications,
        strict: job.strict,
    };
    let body = serde_json::to_vec(&told).expect("text and numbers always serialise");
    let length = u32::try_from(body.len()).expect("documents and inputs are far below 4 GiB");
    [b"J".as_slice(), &length.to_be_bytes(), &body].concat()
}

/// What the child says.
#[derive(Debug)]
pub(crate) enum Said {
    Message(Message),
    Outputs(Vec<u8>),
}

#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(crate) enum Message {
    Entered,
    Refused {
        message: String,
    },
    Block {
        index: usize,
        state: Step,
        /// Of a block that failed without ending the run, or was left out.
        #[serde(flatten)]
        why: Failure,
    },
    Failed(Failure),
}

/// What went wrong; where nothing did, all of it is empty.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Failure {
    pub(crate) reason: String,
    pub(crate) message: String,
    pub(crate) line: Option<u32>,
    pub(crate) column: Option<u32>,
    pub(crate) traceback: String,
    pub(crate) limit: Option<Limit>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Step {
    Running,
    Succeeded,
    Failed,
    Skipped,
}

/// Cuts the control socket's bytes into frames.
#[derive(Default)]
pub(crate) struct Frames {
    pub(crate) buffer: Vec<u8>,
}

impl Frames {
    pub(crate) fn next(&mut self) -> Option<Result<Said, RunError>> {
        let (kind, length) = match self.buffer.as_slice() {
            [kind, a, b, c, d, ..] => (*kind, u32::from_be_bytes([*a, *b, *c, *d]) as usize),
            _ => return None,
        };
        let limit = if kind == b'O' {
            LONGEST_OUTPUTS
        } else {
            LONGEST_MESSAGE
        };
        if length > limit {
            let message = format!("the outputs have {length} bytes; at most {limit} are taken");
            return Some(Err(failure(reason::INVALID_OUTPUT, message)));
        }
        if self.buffer.len() < 5 + length {
            self.buffer.reserve(5 + length - self.buffer.len());
            return None;
        }
        let rest = self.buffer.split_off(5 + length);
        let body = std::mem::replace(&mut self.buffer, rest).split_off(5);
        Some(match kind {
            b'O' => Ok(Said::Outputs(body)),
            _ => serde_json::from_slice(&body).map(Said::Message).map_err(|_| {
                failure(
                    reason::INTERPRETER_EXITED,
                    "the run wrote nonsense on its control socket",
                )
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_says_more_than_its_blocks_is_answered_no_more() {
        let job = Job {
            blocks: vec![Block::default()],
            inputs: "{}".into(),
            outputs: None,
            specifications: vec![],
            strict: false,
            time_limit: std::time::Duration::from_secs(1),
        };
        let mut outbox = Outbox::of(&job);
        outbox.bytes.clear();
        outbox.answer(&Said::Message(Message::Entered));
        outbox.answer(&Said::Outputs(vec![]));
        assert_eq!(outbox.bytes, b"");
        let word = Said::Message(Message::Block {
            index: 9,
            state: Step::Succeeded,
            why: Failure::default(),
        });
        (0..3).for_each(|_| outbox.answer(&word));
        assert_eq!(outbox.bytes, b"..");
    }

    #[test]
    fn a_forged_length_is_refused_before_anything_is_kept_for_it() {
        let mut frames = Frames {
            buffer: b"O\xff\xff\xff\xff".to_vec(),
        };
        assert!(frames.next().unwrap().is_err());
        assert!(frames.buffer.capacity() < 1024);
    }
}
