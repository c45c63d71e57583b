//! The receiving side: one connection, one sender that the bundle vouches for, and what he sends on stdout.

use std::fs::File;
use std::io::{self, Write as _};
use std::net::TcpListener;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::time::Instant;

use crypto::stream::frame::{GREETING, GREETING_LEN, Kind};
use crypto::stream::{self, Receiver};
use crypto::trust::TrustedKeys;
use crypto::{Envelope, KeyId, VerifyingKey};
use jiff::Timestamp;

use super::progress::Progress;
use super::wire::Wire;
use super::{Manner, refused};
use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::{local_keys, output, trust};

/// Waits for one sender, and writes what he sends to stdout
///
/// Each packet is written once it was found genuine: a stream that fails later has written its beginning. The exit code says
/// whether all of it came.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: String,

    /// The trust bundle that vouches for the sender's signing key, instead of this machine's own
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,

    /// The root that the bundle must have (64 hexadecimal digits); without it, the root in the bundle is believed
    #[arg(long, value_name = "KEYID")]
    root: Option<KeyId>,

    #[command(flatten)]
    manner: Manner,
}

pub fn run(args: &Args) -> Result<ExitCode, Error> {
    let key = local_keys::session()?;
    let senders = senders(args)?;
    let failed =
        |cause: io::Error| Error::failed(format!("cannot listen on {}", args.listen)).because(&cause);
    let listener = TcpListener::bind(&args.listen).map_err(failed)?;
    if !args.manner.quiet {
        output::note(format_args!(
            "listening on {}",
            listener.local_addr().map_err(failed)?
        ));
    }
    let (connection, _) = listener.accept().map_err(failed)?;
    drop(listener);
    let mut wire = Wire::new(connection, args.manner.timeout).map_err(failed)?;

    let context = greeting()?;
    wire.write(&context)?;
    let first = match wire.read_frame()? {
        Some((Kind::Header, body)) => header(body)?,
        Some((Kind::Packet, _)) => return Err(refused(&stream::Error::Frame)),
        None => return Err(refused(&stream::Error::Truncated)),
    };
    let sender = trusted_sender(&senders, &first)?;
    let mut receiver = Receiver::accept(&first, sender, &key, &context).map_err(|cause| refused(&cause))?;
    let progress = Progress::new(args.manner.quiet);
    copy(&mut wire, &mut receiver, &progress)?;

    let epoch = receiver.epoch();
    let delivery = receiver.finish().map_err(|cause| refused(&cause))?;
    // A sender that has gone by now has lost the confirmation, and nothing is lost here.
    let _ = wire.write(&delivery.confirmation);
    progress.finish("received", epoch);
    Ok(ExitCode::Ok)
}

/// Writes payloads to stdout until the final packet. On this transport each packet follows the one before.
fn copy(wire: &mut Wire, receiver: &mut Receiver, progress: &Progress) -> Result<(), Error> {
    let mut stdout = unbuffered_stdout()?;
    let mut next = 0;
    while let Some((kind, body)) = wire.read_frame()? {
        match kind {
            Kind::Header => receiver.rotate(&header(body)?).map_err(|cause| refused(&cause))?,
            Kind::Packet => {
                let packet = receiver
                    .open(body, Instant::now())
                    .map_err(|cause| refused(&cause))?;
                if packet.seq != next {
                    return Err(refused(&stream::Error::Sequence(packet.seq)));
                }
                next += 1;
                stdout
                    .write_all(packet.payload)
                    .map_err(|cause| unwritten(&cause))?;
                progress.add(packet.payload.len());
            }
        }
    }
    Ok(())
}

/// Stdout without the buffer of lines: what was received is there at once.
fn unbuffered_stdout() -> Result<File, Error> {
    let stdout = io::stdout()
        .as_fd()
        .try_clone_to_owned()
        .map_err(|cause| unwritten(&cause))?;
    Ok(File::from(stdout))
}

/// A reader that went away has not got all of it: here that is an error.
fn unwritten(cause: &io::Error) -> Error {
    Error::failed("cannot write to stdout").because(cause)
}

fn greeting() -> Result<[u8; GREETING_LEN], Error> {
    let mut greeting = [0; GREETING_LEN];
    let (name, challenge) = greeting.split_at_mut(GREETING.len());
    name.copy_from_slice(&GREETING);
    crypto::entropy::Entropy::system()
        .fill(challenge)
        .map_err(|cause| Error::failed("cannot make a challenge").because(&cause))?;
    Ok(greeting)
}

fn header(json: &[u8]) -> Result<Envelope, Error> {
    Envelope::from_json(json).map_err(|cause| refused(&cause.into()))
}

/// The keys whose streams are accepted.
fn senders(args: &Args) -> Result<TrustedKeys, Error> {
    let anchor = match &args.from {
        Some(file) => trust::of_file(Some(file))?,
        None => trust::of_machine()?,
    };
    let anchor = anchor.ok_or_else(|| Error::usage("there is no trust bundle").hint("give --from FILE"))?;
    anchor.bundle.verify_pinned(args.root.as_ref()).map_err(|cause| {
        Error::new(ExitCode::UntrustedKey, "the trust bundle cannot be believed").because(&cause)
    })
}

/// The key that the header names, if it may sign now. Whether it has signed is yet to be seen.
fn trusted_sender<'a>(senders: &'a TrustedKeys, header: &Envelope) -> Result<&'a VerifyingKey, Error> {
    let now = Timestamp::now();
    let untrusted = |why: &str| {
        Error::new(
            ExitCode::UntrustedKey,
            format!("the sender's key {} {why}", header.key_id()),
        )
    };
    let key = senders.find(header.key_id()).ok_or_else(|| {
        untrusted("is not one that the trust bundle vouches for")
            .hint("--from takes the sender's bundle; on his machine it is trust.json beside his keys")
    })?;
    if key.revoked_at(now).is_some() {
        return Err(untrusted("is revoked"));
    }
    if !key.statement.valid_at(now) {
        return Err(untrusted("is not valid now"));
    }
    key.signing().ok_or_else(|| untrusted("is not one that signs"))
}
