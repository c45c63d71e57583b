//! The sending side: stdin in packets, each sent as soon as there is something to read.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender as Returned, SyncSender, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use crypto::kem::EncapsulationKey;
use crypto::stream::frame::{self, GREETING, GREETING_LEN, HEAD_LEN, Kind};
use crypto::stream::{self, OVERHEAD, PACKET_LIMIT, PAYLOAD_LIMIT, PAYLOAD_START, RotationPolicy, Sender};

use super::progress::Progress;
use super::wire::Wire;
use super::{Manner, SIGN_OF_LIFE, refused};
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::local_keys;

/// A lower limit would use up a stream's epochs soon.
const LEAST_ROTATION: u64 = 1 << 20;
/// How many packets are read ahead.
const READ_AHEAD: usize = 4;

/// Sends stdin to a receiver, and waits until he has confirmed all of it
///
/// Signed with this machine's key. The receiver is authenticated by nothing but --to: only the holder of its private half can
/// read the stream and confirm it.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Where the receiver listens
    #[arg(value_name = "HOST:PORT")]
    address: String,

    /// The receiver's public key (PEM), which `chimera stream key` prints there; without it, this machine's own
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,

    /// New keys after so many bytes
    #[arg(long, value_name = "BYTES", default_value_t = RotationPolicy::default().max_bytes,
          value_parser = clap::value_parser!(u64).range(LEAST_ROTATION..))]
    rotate_bytes: u64,

    /// New keys after this time
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = parse_interval)]
    rotate_interval: Duration,

    #[command(flatten)]
    manner: Manner,
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = api::duration::parse(text).map_err(|error| error.to_string())?;
    if interval < Duration::from_secs(1) {
        return Err("at least 1s".to_owned());
    }
    Ok(interval)
}

pub fn run(args: &Args) -> Result<ExitCode, Error> {
    let receiver = match &args.to {
        Some(path) => read_key(path)?,
        None => local_keys::session()?.encapsulation_key().clone(),
    };
    let keys = local_keys::open()?;
    let policy = RotationPolicy {
        interval: args.rotate_interval,
        max_bytes: args.rotate_bytes,
    };
    let mut wire = Wire::connect(&args.address, args.manner.timeout)?;
    let context = read_greeting(&mut wire)?;
    let begun = Sender::begin(&receiver, &keys.signing, &context, policy, Instant::now());
    let (mut sender, header) = begun.map_err(|cause| refused(&cause))?;
    wire.write_frame(Kind::Header, header.to_json().as_bytes())?;

    let progress = Progress::new(args.manner.quiet);
    send_all(&mut wire, &mut sender, &progress)?;
    wire.end()?;
    check_confirmation(wire.read_exact()?, &sender)?;
    progress.finish("sent and confirmed", sender.epoch());
    Ok(ExitCode::Ok)
}

fn read_key(path: &Path) -> Result<EncapsulationKey, Error> {
    let fail = |cause: &dyn std::error::Error| {
        Error::usage(format!("cannot read the receiver's key {}", path.display()))
            .because(cause)
            .hint("--to takes the file that `chimera stream key` prints at the receiver")
    };
    let pem = std::fs::read_to_string(path).map_err(|cause| fail(&cause))?;
    EncapsulationKey::from_spki_pem(&pem).map_err(|cause| fail(&cause))
}

fn read_greeting(wire: &mut Wire) -> Result<[u8; GREETING_LEN], Error> {
    let greeting = wire.read_exact::<GREETING_LEN>()?;
    greeting
        .filter(|bytes| bytes.starts_with(&GREETING))
        .ok_or_else(|| {
            Error::failed("whoever listens there does not receive streams")
                .hint("start `chimera stream receive` of the same version there")
        })
}

fn check_confirmation(confirmation: Option<[u8; 32]>, sender: &Sender<'_>) -> Result<(), Error> {
    let Some(confirmation) = confirmation else {
        return Err(
            Error::failed("the receiver has not confirmed that all of it came").hint("the receiver says why"),
        );
    };
    if sender.is_confirmed_by(&confirmation) {
        return Ok(());
    }
    Err(Error::new(
        ExitCode::BadSignature,
        "the receiver's confirmation is not genuine, or not of all that was sent",
    ))
}

fn send_all(wire: &mut Wire, sender: &mut Sender<'_>, progress: &Progress) -> Result<(), Error> {
    let (packets, sent) = read_stdin();
    let mut sign_of_life = Unsealed::new();
    loop {
        let mut packet = match packets.recv_timeout(SIGN_OF_LIFE) {
            Ok(packet) => packet.map_err(|cause| Error::failed("cannot read stdin").because(&cause))?,
            Err(RecvTimeoutError::Timeout) => {
                send(wire, &mut sign_of_life, |packet| {
                    sender.seal(packet, Instant::now())
                })?;
                continue;
            }
            // The end of stdin is a packet too: without it, nobody may be told that this was all.
            Err(RecvTimeoutError::Disconnected) => return Err(Error::failed("cannot read stdin")),
        };
        if packet.payload == 0 {
            return send(wire, &mut packet, |packet| {
                sender.seal_final(packet, Instant::now())
            });
        }
        send(wire, &mut packet, |packet| sender.seal(packet, Instant::now()))?;
        progress.add(packet.payload);
        // The reader has gone once stdin has ended.
        let _ = sent.send(packet);
    }
}

/// Seals a packet and sends it, behind the header of its epoch when there is a new one.
fn send(
    wire: &mut Wire,
    packet: &mut Unsealed,
    seal: impl FnOnce(&mut [u8]) -> Result<Option<crypto::Envelope>, stream::Error>,
) -> Result<(), Error> {
    let end = HEAD_LEN + OVERHEAD + packet.payload;
    let (head, body) = packet.frame[..end].split_at_mut(HEAD_LEN);
    if let Some(header) = seal(body).map_err(|cause| refused(&cause))? {
        wire.write_frame(Kind::Header, header.to_json().as_bytes())?;
    }
    head.copy_from_slice(&frame::head(Kind::Packet, body.len()).map_err(|cause| refused(&cause))?);
    wire.write(&packet.frame[..end])
}

/// A frame with the payload where the packet will be: nothing is copied on its way from stdin to the socket.
struct Unsealed {
    frame: Box<[u8]>,
    payload: usize,
}

impl Unsealed {
    fn new() -> Self {
        Self {
            frame: vec![0; HEAD_LEN + PACKET_LIMIT].into_boxed_slice(),
            payload: 0,
        }
    }

    /// Reads what there is on stdin: nothing at its end.
    fn fill(&mut self) -> io::Result<()> {
        let start = HEAD_LEN + PAYLOAD_START;
        let room = &mut self.frame[start..start + PAYLOAD_LIMIT];
        self.payload = loop {
            match io::stdin().lock().read(room) {
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        Ok(())
    }
}

/// Reads stdin in a thread of its own, so that a silent one delays no sign of life and no end of the program. Packets that
/// were sent are given back to it, which is why there are never more than a few.
fn read_stdin() -> (Receiver<io::Result<Unsealed>>, Returned<Unsealed>) {
    let (to_send, packets) = sync_channel(READ_AHEAD);
    let (sent, returned) = channel();
    thread::spawn(move || read_packets(&to_send, &returned));
    (packets, sent)
}

fn read_packets(to_send: &SyncSender<io::Result<Unsealed>>, returned: &Receiver<Unsealed>) {
    loop {
        let mut packet = returned.try_recv().unwrap_or_else(|_| Unsealed::new());
        let filled = packet.fill().map(|()| packet);
        let goes_on = filled.as_ref().is_ok_and(|packet| packet.payload > 0);
        if to_send.send(filled).is_err() || !goes_on {
            return;
        }
    }
}
