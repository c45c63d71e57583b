//! What passes between the agent and a zygote, or a worker that waits for its run: JSON, one object a packet, over sockets of
//! type SOCK_SEQPACKET that also carry descriptors.

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use tokio::io::Interest;
use tokio::net::UnixStream;

/// No packet is longer.
pub(super) const PACKET: usize = 1 << 17;

/// What a zygote is told.
#[derive(Debug, Serialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub(super) enum ToZygote<'a> {
    /// Fork a child for a run.
    Run {
        token: u64,
        folder: &'a Path,
        cpu: u64,
    },
    /// Fork a child that initialises CUDA and waits for its run.
    Warm {
        token: u64,
        folder: &'a Path,
    },
    /// Fork a zygote like yourself.
    Spawn {
        number: u64,
    },
    /// End every process of a run.
    Kill {
        token: u64,
    },
    Ping {
        nonce: u64,
    },
}

/// What a zygote says.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(super) enum FromZygote {
    Packages {
        packages: BTreeMap<String, String>,
    },
    Ready(Account),
    /// Of a forked zygote, which has everything else in common with the one that it comes from.
    Standby {
        pid: i32,
        anonymous: u64,
    },
    Failed {
        message: String,
    },
    Started {
        token: u64,
        pid: i32,
    },
    Ended {
        token: u64,
        code: Option<i32>,
        signal: Option<i32>,
    },
    Pong {
        nonce: u64,
        anonymous: u64,
    },
}

/// What a zygote tells of itself once its modules are imported.
#[derive(Debug, Deserialize)]
pub(super) struct Account {
    pub(super) interpreter: String,
    pub(super) languages: Vec<String>,
    pub(super) confined: bool,
    pub(super) landlock: u32,
    pub(super) limits: BTreeMap<String, u64>,
    pub(super) anonymous: u64,
}

/// What a worker that waits for its run is told.
#[derive(Debug, Serialize)]
pub(super) struct ToWorker {
    pub(super) cpu: u64,
}

/// What a worker says once it has initialised CUDA.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub(super) enum FromWorker {
    /// Bytes of the device with the least of them free.
    Warm {
        free: u64,
        total: u64,
    },
    Failed {
        message: String,
    },
}

/// The agent's end of such a socket.
#[derive(Debug)]
pub(super) struct Wire {
    /// Spoken to with sendmsg and recv alone, a packet at a time.
    socket: UnixStream,
}

impl Wire {
    /// Both ends.
    pub(super) fn pair() -> io::Result<(Self, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        let socket = UnixStream::from_std(StdUnixStream::from(ours))?;
        Ok((Self { socket }, theirs))
    }

    pub(super) async fn send(&self, message: &impl Serialize, descriptors: &[&OwnedFd]) -> io::Result<()> {
        let bytes = serde_json::to_vec(message)?;
        let descriptors: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
        self.socket
            .async_io(Interest::WRITABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
                let mut ancillary = SendAncillaryBuffer::new(&mut space);
                if !descriptors.is_empty() {
                    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
                }
                let text = [IoSlice::new(&bytes)];
                rustix::net::sendmsg(&self.socket, &text, &mut ancillary, SendFlags::NOSIGNAL)?;
                Ok(())
            })
            .await
    }

    /// The length of the next packet, 0 when the other end is closed. May be dropped and asked again.
    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket
            .async_io(Interest::READABLE, || {
                match rustix::net::recv(&self.socket, &mut *buffer, RecvFlags::empty()) {
                    Ok((length, _)) => Ok(length),
                    Err(Errno::CONNRESET) => Ok(0),
                    Err(error) => Err(error.into()),
                }
            })
            .await
    }
}
