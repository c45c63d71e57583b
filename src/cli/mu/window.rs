//! The rest of a file, as if it were all of it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

/// A file from some byte on.
pub struct Window {
    file: File,
    start: u64,
}

impl Window {
    /// What lies behind the first `start` bytes.
    pub fn new(file: File, start: u64) -> Self {
        Self { file, start }
    }
}

impl Read for Window {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read(buffer)
    }
}

impl Seek for Window {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let before = || io::Error::new(io::ErrorKind::InvalidInput, "seek before the start");
        let to = match to {
            SeekFrom::Start(at) => SeekFrom::Start(self.start.checked_add(at).ok_or_else(before)?),
            other => other,
        };
        let at = self.file.seek(to)?;
        at.checked_sub(self.start).ok_or_else(before)
    }
}
