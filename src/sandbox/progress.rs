//! Where a run stands in its blocks. What its child says is believed as far as it fits the job: user code may forge it.

use crate::consumption::Consumption;
use crate::dialogue::{Failure, Message, Said, Step};
use crate::execution::{Happening, failure};
use crate::job::Job;
use crate::reason;
use crypto::attestation::{BlockResult, BlockState, RunError};
use std::time::Duration;
use tokio::time::Instant;

const LONGEST_TEXT: usize = 8 << 10;
/// A program's time limit is kept by the interpreter that waits for it; after this long it is kept from outside.
const PROGRAM_GRACE: Duration = Duration::from_secs(2);

/// Where a run stands.
pub(crate) struct Progress<'a> {
    job: &'a Job,
    allowed: Consumption,
    blocks: Vec<BlockResult>,
    /// The block that runs, and since when.
    current: Option<(usize, Instant)>,
    /// Blocks that have ended.
    done: usize,
    /// Whether the child said that its sandbox is in force: always the first thing said, before any user code.
    pub(crate) entered: bool,
    heard: bool,
    diagnostics: String,
}

impl<'a> Progress<'a> {
    /// Before the first block.
    pub(crate) fn of(job: &'a Job, allowed: Consumption) -> Self {
        let blocks = job.blocks.iter().map(|block| BlockResult {
            name: block.name.clone(),
            language: block.language.clone(),
            state: BlockState::Skipped,
            duration_millis: 0,
            diagnostics: String::new(),
        });
        Self {
            job,
            allowed,
            blocks: blocks.collect(),
            current: None,
            done: 0,
            entered: false,
            heard: false,
            diagnostics: String::new(),
        }
    }

    /// When the block that runs must have ended, and what is to be said if it has not.
    pub(crate) fn deadline(&self) -> Option<(Instant, RunError)> {
        let (index, began) = self.current?;
        let block = &self.job.blocks[index];
        let seconds = block.timeout_seconds?;
        let grace = if block.is_program() {
            PROGRAM_GRACE
        } else {
            Duration::ZERO
        };
        let message = format!("block {} took longer than {seconds} s", block.name);
        let error = RunError {
            line: Some(block.line),
            ..failure(reason::TIMED_OUT, message)
        };
        Some((began + Duration::from_secs(u64::from(seconds)) + grace, error))
    }

    /// Takes what the child said; what is out of order is a forgery and ignored. A result when it said the last word.
    pub(crate) fn hear(
        &mut self,
        said: Said,
        sink: &mut impl FnMut(Happening),
    ) -> Option<Result<Vec<u8>, RunError>> {
        let first = !std::mem::replace(&mut self.heard, true);
        match said {
            Said::Message(Message::Entered) if first => self.entered = true,
            Said::Message(Message::Refused { message }) if first => {
                return Some(Err(failure(reason::SANDBOX_FAILED, plain(&message))));
            }
            Said::Message(Message::Block { index, state, why }) => self.step(index, state, why, sink),
            Said::Message(Message::Failed(why)) => {
                self.diagnostics = plain(&why.traceback);
                return Some(Err(self.error(why)));
            }
            Said::Outputs(outputs) if self.done == self.blocks.len() => return Some(Ok(outputs)),
            Said::Outputs(_) | Said::Message(_) => {}
        }
        None
    }

    fn step(&mut self, index: usize, state: Step, why: Failure, sink: &mut impl FnMut(Happening)) {
        let runs = self.current.is_some_and(|(current, _)| current == index);
        let next = self.current.is_none() && index == self.done && index < self.blocks.len();
        match state {
            Step::Running if next => {
                self.current = Some((index, Instant::now()));
                sink(Happening::Began(index));
            }
            Step::Skipped if next && !self.may_run(index) => {
                let block = &mut self.blocks[index];
                block.diagnostics = plain(&why.message);
                self.done = index + 1;
                sink(Happening::Ended(index, block.clone()));
            }
            Step::Succeeded if runs => self.end_block(BlockState::Succeeded, String::new(), sink),
            Step::Failed if runs && self.job.blocks[index].allow_failure => {
                let (traceback, limited) = (plain(&why.traceback), why.limit.is_some());
                let message = self.error(why).message;
                let diagnostics = match traceback.as_str() {
                    "" => message,
                    _ if limited => format!("{traceback}\n{message}"),
                    _ => traceback,
                };
                self.end_block(BlockState::Failed, diagnostics, sink);
            }
            _ => {}
        }
    }

    fn may_run(&self, index: usize) -> bool {
        self.job.blocks[index].needs.iter().all(|name| {
            self.blocks
                .iter()
                .any(|block| block.name == *name && block.state == BlockState::Succeeded)
        })
    }

    /// A failure that the child tells of, with what the limit allows that it ran into.
    fn error(&self, why: Failure) -> RunError {
        let (reason, message) = match why.limit {
            Some(limit) => (
                limit.reason().to_owned(),
                format!("{} ({})", plain(&why.message), limit.sentence(&self.allowed)),
            ),
            None => (why.reason, plain(&why.message)),
        };
        RunError {
            reason: match reason.as_str() {
                reason::OUT_OF_MEMORY
                | reason::DISK_LIMIT_EXCEEDED
                | reason::PROCESS_LIMIT_EXCEEDED
                | reason::INVALID_OUTPUT
                | reason::TIMED_OUT
                | reason::VERIFICATION_FAILED => reason,
                _ => reason::BLOCK_FAILED.to_owned(),
            },
            message,
            line: why.line,
            column: why.column,
            code: None,
        }
    }

    fn end_block(&mut self, state: BlockState, diagnostics: String, sink: &mut impl FnMut(Happening)) {
        if let Some((index, began)) = self.current.take() {
            let block = &mut self.blocks[index];
            block.state = state;
            block.duration_millis = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            block.diagnostics = diagnostics;
            self.done = index + 1;
            sink(Happening::Ended(index, block.clone()));
        }
    }

    /// The run failed: so did the block that was running.
    pub(crate) fn fail(&mut self, error: &RunError, sink: &mut impl FnMut(Happening)) {
        let mut diagnostics = std::mem::take(&mut self.diagnostics);
        if diagnostics.is_empty() {
            diagnostics.clone_from(&error.message);
        }
        self.end_block(BlockState::Failed, diagnostics, sink);
    }

    /// Tells of the blocks that were never begun.
    pub(crate) fn finish(self, sink: &mut impl FnMut(Happening)) -> Vec<BlockResult> {
        for (index, block) in self.blocks.iter().enumerate().skip(self.done) {
            sink(Happening::Ended(index, block.clone()));
        }
        self.blocks
    }
}

/// Text of the user's, for people and for objects in a cluster: bounded, without control characters.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    for character in text.chars() {
        if plain.len() >= LONGEST_TEXT {
            plain.push('…');
            break;
        }
        match character {
            '\n' | '\t' => plain.push(character),
            character if character.is_control() => plain.push('\u{fffd}'),
            character => plain.push(character),
        }
    }
    plain
}
