//! A TCP connection that carries frames. Whoever is at its other end decides neither how long we wait nor how much memory
//! we take.

use std::io::{self, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream, ToSocketAddrs as _};
use std::time::{Duration, Instant};

use crypto::stream::frame::{self, HEAD_LEN, Kind};
use crypto::stream::{self, HEADER_LIMIT, PACKET_LIMIT};

use super::refused;
use crate::error::Error;
use crate::exit_code::ExitCode;

/// The longest body of a frame.
const BODY_LIMIT: usize = if HEADER_LIMIT > PACKET_LIMIT {
    HEADER_LIMIT
} else {
    PACKET_LIMIT
};
/// What is read from the socket at once.
const READ_AHEAD: usize = 256 * 1024;

/// One end of a connection.
pub struct Wire {
    reader: BufReader<TcpStream>,
    timeout: Duration,
    /// The body of the newest frame.
    body: Box<[u8]>,
}

impl Wire {
    /// Connects to the first of the addresses of `address` that answers in time.
    pub fn connect(address: &str, timeout: Duration) -> Result<Self, Error> {
        let failed = |cause: &io::Error| {
            let (code, hint) = match cause.kind() {
                ErrorKind::InvalidInput => (ExitCode::Usage, "give HOST:PORT"),
                _ => (code(cause), "start `chimera stream receive --listen` there first"),
            };
            Error::new(code, format!("cannot connect to {address}"))
                .because(cause)
                .hint(hint)
        };
        let mut last = ErrorKind::NotFound.into();
        for address in address.to_socket_addrs().map_err(|cause| failed(&cause))? {
            match TcpStream::connect_timeout(&address, timeout) {
                Ok(stream) => return Self::new(stream, timeout).map_err(|cause| failed(&cause)),
                Err(cause) => last = cause,
            }
        }
        Err(failed(&last))
    }

    /// Takes over a connection.
    pub fn new(stream: TcpStream, timeout: Duration) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        Ok(Self {
            reader: BufReader::with_capacity(READ_AHEAD, stream),
            timeout,
            body: vec![0; BODY_LIMIT].into_boxed_slice(),
        })
    }

    /// The next frame, which must come within the time limit as a whole; `None` when the other side has ended.
    pub fn read_frame(&mut self) -> Result<Option<(Kind, &mut [u8])>, Error> {
        let mut head = [0; HEAD_LEN];
        let deadline = Instant::now() + self.timeout;
        if !read(&mut self.reader, &mut head, deadline)? {
            return Ok(None);
        }
        let (kind, length) = frame::parse_head(head).map_err(|cause| refused(&cause))?;
        let body = &mut self.body[..length];
        if read(&mut self.reader, body, deadline)? {
            Ok(Some((kind, body)))
        } else {
            Err(refused(&stream::Error::Truncated))
        }
    }

    /// Exactly `N` bytes, for which there is the time of one frame.
    pub fn read_exact<const N: usize>(&mut self) -> Result<Option<[u8; N]>, Error> {
        let mut bytes = [0; N];
        let all = read(&mut self.reader, &mut bytes, Instant::now() + self.timeout)?;
        Ok(all.then_some(bytes))
    }

    /// Sends a frame with this body.
    pub fn write_frame(&mut self, kind: Kind, body: &[u8]) -> Result<(), Error> {
        let head = frame::head(kind, body.len()).map_err(|cause| refused(&cause))?;
        self.write(&[&head, body].concat())
    }

    /// Sends bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.reader
            .get_mut()
            .write_all(bytes)
            .map_err(|cause| broken(&cause))
    }

    /// Tells the other side that nothing follows.
    pub fn end(&mut self) -> Result<(), Error> {
        self.reader
            .get_mut()
            .shutdown(Shutdown::Write)
            .map_err(|cause| broken(&cause))
    }
}

/// Fills `bytes`; `false` when the other side has ended before the first of them.
fn read(reader: &mut BufReader<TcpStream>, bytes: &mut [u8], deadline: Instant) -> Result<bool, Error> {
    let mut filled = 0;
    while filled < bytes.len() {
        match reader.read(&mut bytes[filled..]) {
            Ok(0) if filled == 0 => return Ok(false),
            Ok(0) => return Err(refused(&stream::Error::Truncated)),
            Ok(read) => filled += read,
            Err(cause) if cause.kind() == ErrorKind::Interrupted => {}
            Err(cause) => return Err(broken(&cause)),
        }
        if filled < bytes.len() && Instant::now() >= deadline {
            return Err(broken(&ErrorKind::TimedOut.into()));
        }
    }
    Ok(true)
}

fn broken(cause: &io::Error) -> Error {
    if code(cause) == ExitCode::TimedOut {
        return Error::new(
            ExitCode::TimedOut,
            "the other side was silent, or did not read, for too long",
        )
        .hint("--timeout allows more");
    }
    Error::failed("the connection broke")
        .because(cause)
        .hint("the other side says why, if it refused something")
}

fn code(cause: &io::Error) -> ExitCode {
    match cause.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => ExitCode::TimedOut,
        _ => ExitCode::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const TIMEOUT: Duration = Duration::from_millis(100);

    /// A wire with this time limit, and the other side.
    fn pair() -> (Wire, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let other = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (Wire::new(listener.accept().unwrap().0, TIMEOUT).unwrap(), other)
    }

    fn code_of(error: &Error) -> ExitCode {
        error.report()
    }

    #[test]
    fn silence_ends_a_wire_and_so_does_a_frame_that_comes_byte_by_byte() {
        let (mut wire, _other) = pair();
        let error = wire.read_frame().unwrap_err();
        assert_eq!(code_of(&error), ExitCode::TimedOut);

        let (mut wire, mut other) = pair();
        let trickle = std::thread::spawn(move || {
            let mut frame = frame::head(Kind::Header, 1000)
                .unwrap()
                .into_iter()
                .chain([b' '; 1000]);
            // Ends when the wire has given up and gone.
            while let Some(byte) = frame.next()
                && other.write_all(&[byte]).is_ok()
            {
                std::thread::park_timeout(TIMEOUT / 10);
            }
        });
        let error = wire.read_frame().unwrap_err();
        assert_eq!(code_of(&error), ExitCode::TimedOut);
        drop(wire);
        trickle.join().unwrap();
    }

    #[test]
    fn frames_come_whole_or_not_at_all() {
        let (mut wire, other) = pair();
        let mut sender = Wire::new(other, TIMEOUT).unwrap();
        sender.write_frame(Kind::Header, b"{}").unwrap();
        sender.write(&frame::head(Kind::Header, 2).unwrap()).unwrap();
        sender.end().unwrap();
        let (kind, body) = wire.read_frame().unwrap().unwrap();
        assert_eq!((kind, &*body), (Kind::Header, &b"{}"[..]));
        assert_eq!(code_of(&wire.read_frame().unwrap_err()), ExitCode::Failed);
        assert!(wire.read_frame().unwrap().is_none());
        assert!(sender.write_frame(Kind::Packet, b"short").is_err());
    }
}
