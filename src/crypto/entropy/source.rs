//! One source of entropy: a name, and something that can be read.

use super::health::{self, Failure, SAMPLE_LEN};
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::PathBuf;
use zeroize::Zeroizing;

/// A named source. It is opened anew for every seed.
///
/// A source that blocks is the caller's matter: nothing here waits with a limit ([`Failure::Silent`] is for those who do). A file that something wrote once, such
/// as the counts of a quantum circuit, gives the same bytes each time; a simulated circuit is no entropy at all. Both may
/// be mixed in and neither may be relied upon.
pub struct Source {
    name: String,
    open: Box<dyn Fn() -> io::Result<Box<dyn Read>> + Send + Sync>,
}

impl Source {
    /// A source that `open` opens.
    pub fn new(
        name: impl Into<String>,
        open: impl Fn() -> io::Result<Box<dyn Read>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            name: name.into(),
            open: Box::new(open),
        }
    }

    /// A file or device, such as `/dev/hwrng`.
    pub fn file(name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self::new(name, move || Ok(Box::new(File::open(&path)?)))
    }

    /// The operating system's generator.
    pub(super) fn system() -> Self {
        Self::new("system", || Ok(Box::new(System)))
    }

    /// The source's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// [`SAMPLE_LEN`] bytes that passed the health tests.
    pub(super) fn sample(&self) -> Result<Zeroizing<Vec<u8>>, Failure> {
        let mut reader = (self.open)().map_err(Failure::Read)?;
        let mut sample = Zeroizing::new(vec![0; SAMPLE_LEN]);
        let mut filled = 0;
        while filled < SAMPLE_LEN {
            match reader.read(&mut sample[filled..]) {
                Ok(0) => return Err(Failure::Ended(filled)),
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Failure::Read(error)),
            }
        }
        health::check(&sample)?;
        Ok(sample)
    }
}

struct System;

impl Read for System {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        getrandom::fill(buffer).map_err(|error| io::Error::other(error.to_string()))?;
        Ok(buffer.len())
    }
}
