//! The near end of a pipe that a run prints into.

use crate::execution::Happening;
use crate::stream::{Kept, Stream};
use crypto::attestation::RunError;
use rustix::buffer::spare_capacity;
use rustix::io::{ioctl_fionread, read};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

/// One stream of a run under way.
pub(crate) struct Tap<'a> {
    pipe: &'a mut Receiver,
    stream: Stream,
    kept: &'a mut Kept,
    buffer: Vec<u8>,
    /// Whether more may come.
    pub(crate) open: bool,
}

impl<'a> Tap<'a> {
    pub(crate) fn new(pipe: &'a mut Receiver, stream: Stream, kept: &'a mut Kept) -> Self {
        Self {
            pipe,
            stream,
            kept,
            buffer: Vec::with_capacity(8 << 10),
            open: true,
        }
    }

    /// Waits for more, which [`Tap::give`] then gives. May be dropped and asked again.
    pub(crate) async fn fill(&mut self) {
        self.open = matches!(self.pipe.read_buf(&mut self.buffer).await, Ok(1..));
    }

    /// Gives what came. An error when it was too much.
    pub(crate) fn give(&mut self, sink: &mut impl FnMut(Happening)) -> Option<RunError> {
        self.kept.take(&mut self.buffer, self.stream, sink)
    }

    /// Gives what is in the pipe at this moment, without waiting: who goes on printing holds nobody up here. It asks the
    /// kernel, because what Tokio knows of the pipe may be older than what came by another.
    pub(crate) fn give_present(&mut self, sink: &mut impl FnMut(Happening)) -> Option<RunError> {
        let mut present = ioctl_fionread(&*self.pipe).unwrap_or_default();
        while present > 0 {
            let Ok(length @ 1..) = read(&*self.pipe, spare_capacity(&mut self.buffer)) else {
                break;
            };
            if let Some(error) = self.give(sink) {
                return Some(error);
            }
            present = present.saturating_sub(length as u64);
        }
        None
    }
}
