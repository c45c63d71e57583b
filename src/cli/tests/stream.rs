//! `chimera stream` between two processes, with something in between that changes, cuts or repeats what passes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread::{self, JoinHandle};

/// A user on a machine with keys of its own.
struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn chimera(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chimera"));
        command
            .arg("stream")
            .args(arguments)
            .current_dir(self.0.path())
            .env_clear()
            .env("HOME", self.0.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// The file with the public key for streams to this machine.
    fn public_key(&self) -> String {
        let output = self.chimera(&["key"]).output().unwrap();
        assert!(output.status.success());
        let path = self.path("public.pem");
        std::fs::write(&path, output.stdout).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The trust bundle of this machine and its root.
    fn bundle(&self) -> (String, String) {
        self.public_key();
        let path = self.path(".local/share/chimera/keys/trust.json");
        let text = std::fs::read_to_string(&path).unwrap();
        let bundle: serde_json::Value = serde_json::from_str(&text).unwrap();
        let root = bundle["root"]["keyId"].as_str().unwrap().to_owned();
        (path.to_str().unwrap().to_owned(), root)
    }

    fn receive(&self, arguments: &[&str]) -> Receiving {
        let mut child = self
            .chimera(&[&["receive", "--listen", "127.0.0.1:0"], arguments].concat())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let address = loop {
            let mut line = String::new();
            assert!(stderr.read_line(&mut line).unwrap() > 0, "it listens");
            if let Some(address) = line.strip_prefix("listening on ") {
                break address.trim().to_owned();
            }
        };
        Receiving {
            child,
            stderr,
            address,
        }
    }

    /// Exit code and messages of a sender with this on its stdin.
    fn send(&self, address: &str, arguments: &[&str], payload: &[u8]) -> (i32, String) {
        let mut child = self
            .chimera(&[&["send", address], arguments].concat())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        thread::scope(|scope| {
            // A sender that gave up reads no more of it.
            scope.spawn(move || drop(stdin.write_all(payload)));
            let output = child.wait_with_output().unwrap();
            (
                output.status.code().unwrap(),
                String::from_utf8(output.stderr).unwrap(),
            )
        })
    }
}

/// A receiver that listens.
struct Receiving {
    child: Child,
    stderr: BufReader<ChildStderr>,
    address: String,
}

impl Receiving {
    /// Lets the receiver's output be read while somebody sends.
    fn collect(self) -> (String, JoinHandle<(i32, Vec<u8>, String)>) {
        let address = self.address.clone();
        (address, thread::spawn(|| self.end()))
    }

    /// Exit code, payload and messages.
    fn end(mut self) -> (i32, Vec<u8>, String) {
        let mut stdout = self.child.stdout.take().unwrap();
        let mut stderr = self.stderr;
        let messages = thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).unwrap();
            text
        });
        let mut payload = Vec::new();
        stdout.read_to_end(&mut payload).unwrap();
        let code = self.child.wait().unwrap().code().unwrap();
        (code, payload, messages.join().unwrap())
    }
}

/// What stands between the two.
#[derive(Clone, Copy)]
enum Interference {
    None,
    /// Flips a bit of this byte on the way to the receiver.
    Flip(usize),
    /// Ends the connection after so many bytes.
    Cut(usize),
}

/// The address of a proxy for one connection to `target`, and what passed it on the way there.
fn proxy(target: String, interference: Interference) -> (String, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let passed = thread::spawn(move || {
        let (mut sender, _) = listener.accept().unwrap();
        let mut receiver = TcpStream::connect(target).unwrap();
        let (mut back, mut to) = (receiver.try_clone().unwrap(), sender.try_clone().unwrap());
        let answers = thread::spawn(move || {
            let _ = std::io::copy(&mut back, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
        let (mut passed, mut buffer) = (Vec::new(), [0; 4096]);
        while let Ok(length @ 1..) = sender.read(&mut buffer) {
            let mut piece = buffer[..length].to_vec();
            match interference {
                Interference::Flip(at) if (passed.len()..passed.len() + length).contains(&at) => {
                    piece[at - passed.len()] ^= 0x10;
                }
                Interference::Cut(at) => piece.truncate(at - passed.len()),
                _ => {}
            }
            passed.extend(&piece);
            if piece.is_empty() || receiver.write_all(&piece).is_err() {
                break;
            }
        }
        let _ = receiver.shutdown(Shutdown::Write);
        if let Interference::Cut(_) = interference {
            let _ = sender.shutdown(Shutdown::Both);
        }
        answers.join().unwrap();
        passed
    });
    (address, passed)
}

fn payload(length: u32) -> Vec<u8> {
    (0..length).map(|index| (index % 251) as u8).collect()
}

#[test]
fn a_stream_of_megabytes_arrives_over_several_epochs_and_is_confirmed() {
    let machine = Machine::new();
    let (address, received) = machine.receive(&[]).collect();
    let sent = payload(5_000_000);
    let (code, messages) = machine.send(&address, &["--rotate-bytes", "1048576"], &sent);
    assert_eq!(code, 0, "{messages}");
    assert!(
        messages.contains("sent and confirmed 5000000 bytes"),
        "{messages}"
    );
    let epochs: u32 = messages.trim().rsplit(' ').next().unwrap().parse().unwrap();
    assert!(epochs >= 5, "{messages}");
    let (code, got, messages) = received.join().unwrap();
    assert_eq!(code, 0, "{messages}");
    assert!(got == sent);
    assert!(messages.contains("received 5000000 bytes"), "{messages}");
}

#[test]
fn an_empty_stream_is_a_whole_one_and_a_line_comes_before_the_end() {
    let machine = Machine::new();
    let (address, received) = machine.receive(&[]).collect();
    assert_eq!(machine.send(&address, &["--quiet"], b""), (0, String::new()));
    assert_eq!(received.join().unwrap().0, 0);

    let mut receiving = machine.receive(&[]);
    let mut sender = machine
        .chimera(&["send", &receiving.address])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = sender.stdin.take().unwrap();
    stdin.write_all(b"hello\n").unwrap();
    let mut line = [0; 6];
    receiving
        .child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut line)
        .unwrap();
    assert_eq!(&line, b"hello\n");
    drop(stdin);
    assert!(sender.wait().unwrap().success());
    assert_eq!(receiving.end().0, 0);
}

#[test]
fn two_machines_trust_each_other_by_what_they_were_given() {
    let (here, there) = (Machine::new(), Machine::new());
    let (to, (from, root)) = (there.public_key(), here.bundle());
    let (address, received) = there.receive(&["--from", &from, "--root", &root]).collect();
    let (code, messages) = here.send(&address, &["--to", &to], b"some payload");
    assert_eq!(code, 0, "{messages}");
    assert_eq!(received.join().unwrap().1, b"some payload");

    let (address, received) = there.receive(&[]).collect();
    let (code, _) = here.send(&address, &["--to", &to], b"some payload");
    assert_ne!(code, 0);
    let (code, got, messages) = received.join().unwrap();
    assert_eq!((code, got), (11, vec![]), "{messages}");

    let other = there.bundle().1;
    let refused = there
        .chimera(&[
            "receive",
            "--listen",
            "127.0.0.1:0",
            "--from",
            &from,
            "--root",
            &other,
        ])
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(11));

    let (address, received) = there.receive(&["--from", &from]).collect();
    let (code, _) = here.send(&address, &[], b"encrypted to this machine");
    assert_ne!(code, 0);
    let (code, got, messages) = received.join().unwrap();
    assert_eq!((code, got), (1, vec![]), "{messages}");
    assert!(messages.contains("meant for another receiver"), "{messages}");
}

#[test]
fn a_changed_byte_is_refused_wherever_it_is() {
    let machine = Machine::new();
    let sent = payload(400_000);
    // In the head of the first frame, in the header, in packets.
    for at in [0, 3, 2000, 8000, 60_000, 300_000] {
        let (target, received) = machine.receive(&[]).collect();
        let (address, passed) = proxy(target, Interference::Flip(at));
        let (code, _) = machine.send(&address, &[], &sent);
        assert_ne!(code, 0, "byte {at}");
        let (code, got, messages) = received.join().unwrap();
        assert!(matches!(code, 10 | 11), "byte {at}: {code} {messages}");
        assert!(sent.starts_with(&got) && got.len() < sent.len());
        passed.join().unwrap();
    }
}

#[test]
fn a_stream_that_was_cut_off_says_so() {
    let machine = Machine::new();
    for at in [100, 200_000] {
        let (target, received) = machine.receive(&[]).collect();
        let (address, passed) = proxy(target, Interference::Cut(at));
        let (code, _) = machine.send(&address, &[], &payload(400_000));
        assert_eq!(code, 1, "after {at} bytes");
        let (code, _, messages) = received.join().unwrap();
        assert_eq!(code, 1, "after {at} bytes: {messages}");
        assert!(messages.contains("cut off"), "{messages}");
        passed.join().unwrap();
    }
}

#[test]
fn a_recorded_stream_is_accepted_once() {
    let machine = Machine::new();
    let (target, received) = machine.receive(&[]).collect();
    let (address, passed) = proxy(target, Interference::None);
    assert_eq!(machine.send(&address, &[], b"once").0, 0);
    assert_eq!(received.join().unwrap().1, b"once");

    let (address, received) = machine.receive(&[]).collect();
    let mut connection = TcpStream::connect(address).unwrap();
    let _ = connection.write_all(&passed.join().unwrap());
    let _ = connection.shutdown(Shutdown::Write);
    let (code, got, messages) = received.join().unwrap();
    assert_eq!((code, got), (10, vec![]), "{messages}");
}

#[test]
fn strangers_get_nothing_and_break_nothing() {
    let machine = Machine::new();
    for (bytes, expected) in [
        (&b""[..], 1),
        (b"GET / HTTP/1.1\r\n\r\n", 10),
        (b"\x01\xff\xff\xff\xff", 10),
        (b"\x02\x00\x00\x00\x1c0000000000000000000000000000", 10),
        (b"\x01\x00\x00\x00\x02{}", 10),
        (b"\x01\x00\x00\x00\x09{}", 1),
    ] {
        let (address, received) = machine.receive(&[]).collect();
        let mut connection = TcpStream::connect(address).unwrap();
        let _ = connection.write_all(bytes);
        let _ = connection.shutdown(Shutdown::Write);
        let (code, got, messages) = received.join().unwrap();
        assert_eq!((code, got), (expected, vec![]), "{messages}");
        assert!(!messages.contains("panicked"), "{messages}");
    }
}

#[test]
fn a_sender_tells_who_is_not_there_or_no_receiver() {
    let machine = Machine::new();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    let answering = thread::spawn(move || {
        let (mut connection, _) = free.accept().unwrap();
        connection.write_all(&[b'x'; 100]).unwrap();
        let _ = connection.read(&mut [0; 1]);
    });
    let (code, messages) = machine.send(&address, &[], b"x");
    assert_eq!(code, 1, "{messages}");
    assert!(messages.contains("does not receive streams"), "{messages}");
    answering.join().unwrap();
    assert_eq!(machine.send(&address, &[], b"x").0, 1, "nobody listens any more");
    assert_eq!(machine.send("nonsense", &[], b"x").0, 2);
    assert_eq!(machine.send(&address, &["--rotate-bytes", "1"], b"x").0, 2);
    assert_eq!(machine.send(&address, &["--to", "absent.pem"], b"x").0, 2);
}
