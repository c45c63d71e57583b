//! `chimera stream`: bytes from one terminal to another, encrypted and signed, over TCP. docs/streams.md has the format.

mod progress;
mod receive;
mod send;
mod wire;

use std::time::Duration;

use clap::Subcommand;
use crypto::stream;

use crate::error::Error;
use crate::exit_code::ExitCode;
use crate::{local_keys, output};

/// Sends or receives a stream of bytes, encrypted with AES-256-GCM-L4 and signed
///
/// In one terminal `chimera stream receive --listen 127.0.0.1:7000 > copy`, in another
/// `chimera stream send 127.0.0.1:7000 < file`. Exit code 0 alone says that all of it came. Others: 1 cut off or not connected, 3 the
/// other side was silent, 10 something was changed on the way, 11 the sender is not trusted.
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Sends stdin to a receiver, and waits until he has confirmed all of it
    Send(send::Args),
    /// Waits for one sender, and writes what he sends to stdout
    Receive(receive::Args),
    /// Prints the public key to which senders encrypt streams for this machine (PEM)
    Key,
}

/// How both sides talk.
#[derive(clap::Args, Debug)]
struct Manner {
    /// How long the other side may be silent; an idle sender gives a sign of life every 5 seconds
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = parse_timeout)]
    timeout: Duration,

    /// Shows neither progress nor what was done
    #[arg(short, long)]
    quiet: bool,
}

/// An idle sender sends an empty packet this often.
const SIGN_OF_LIFE: Duration = Duration::from_secs(5);

pub fn run(args: Args) -> Result<ExitCode, Error> {
    match args.verb {
        Verb::Send(args) => send::run(&args),
        Verb::Receive(args) => receive::run(&args),
        Verb::Key => {
            output::print(&local_keys::session()?.encapsulation_key().spki_pem())?;
            Ok(ExitCode::Ok)
        }
    }
}

/// Less could not tell an idle sender from a dead one.
fn parse_timeout(text: &str) -> Result<Duration, String> {
    let timeout = api::duration::parse(text).map_err(|error| error.to_string())?;
    if timeout < 2 * SIGN_OF_LIFE {
        return Err(format!("at least {} s", 2 * SIGN_OF_LIFE.as_secs()));
    }
    Ok(timeout)
}

/// What a refusal means to the user.
fn refused(cause: &stream::Error) -> Error {
    match cause {
        stream::Error::Truncated => Error::failed("the stream was cut off: its final packet never came")
            .hint("what was written is the beginning of it and no more; let it be sent again"),
        stream::Error::NotForKey { .. } => Error::failed("the stream is meant for another receiver")
            .because(cause)
            .hint("the sender's --to must be the file that `chimera stream key` prints here"),
        stream::Error::Key(_) | stream::Error::Exhausted | stream::Error::Ended => {
            Error::failed("the stream cannot go on").because(cause)
        }
        _ => Error::new(ExitCode::BadSignature, "the stream is not genuine")
            .because(cause)
            .hint("something between the two sides, or another sender than the expected one, has changed it"),
    }
}
