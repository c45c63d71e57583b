//! The program itself: its start, what it prints, its health, its end.

use crate::testbed::{PATIENCE, Testbed, connect, document};
use crypto::VerifyingKey;
use head_proto::run_event::Event;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::net::{SocketAddr, TcpListener as StdListener};
use std::process::{Child, Command, ExitStatus, Stdio};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The program, ended when dropped.
pub struct Program {
    pub child: Child,
    health: SocketAddr,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Program {
    /// Asks the program to end when its runs have.
    pub fn drain(&self) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, Signal::TERM).unwrap();
    }

    /// How it ended, and everything that it printed.
    pub async fn end(mut self) -> (ExitStatus, String) {
        let ended = tokio::task::spawn_blocking(move || {
            let mut stdout = self.child.stdout.take().unwrap();
            let status = self.child.wait().unwrap();
            let mut text = String::new();
            std::io::Read::read_to_string(&mut stdout, &mut text).unwrap();
            (status, text)
        });
        timeout(PATIENCE, ended).await.expect("the program ends").unwrap()
    }
}

/// Puts the program in the place of the testbed's own agent.
pub async fn start(head: &mut Testbed, more: &[&str]) -> Program {
    let runs = head.outside().join("runs of the program");
    let [listen, health] = [free_address(), free_address()];
    let child = Command::new(env!("CARGO_BIN_EXE_chimera-head"))
        .args(["--listen", &listen.to_string(), "--health", &health.to_string()])
        .arg("--identity")
        .arg(&head.identity)
        .arg("--runs")
        .arg(&runs)
        .args(more)
        .env("CHIMERA_POD_UID", "pod-uid")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let program = Program { child, health };
    let starting = async {
        while get(health, "/readyz")
            .await
            .is_none_or(|answer| !answer.starts_with("HTTP/1.1 200"))
        {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, starting)
        .await
        .expect("the program becomes ready");
    head.address = listen;
    head.client = connect(
        listen,
        &head.authority,
        &head.authority.client("controller.chimera"),
    );
    let status = head.wait_until(|status| status.ready).await;
    head.attester = VerifyingKey::from_spki_der(&status.attester_spki).unwrap();
    head.runs = runs.canonicalize().unwrap();
    program
}

fn free_address() -> SocketAddr {
    StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

async fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: head\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_serves_prints_and_drains() {
    let mut head = Testbed::start().await;
    let program = start(&mut head, &[]).await;
    assert!(
        get(program.health, "/healthz")
            .await
            .unwrap()
            .starts_with("HTTP/1.1 200")
    );

    // Its memory is hidden even from a process of the same user.
    let owner = std::fs::metadata(format!("/proc/{}/environ", program.child.id())).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&owner), 0);

    let text = document("import time\nprint('up\\x1b[2J', flush=True)\ntime.sleep(0.5)\nresult = 1");
    let grant = head.grant(&text, "{}");
    let mut stream = head.send(head.request(&grant, &text, "{}")).await.unwrap();
    while !matches!(
        stream.message().await.unwrap().unwrap().event,
        Some(Event::Output(_))
    ) {}
    program.drain();

    // The run under way goes on to its end, and its stream to Finished, before the program ends.
    let mut finished = false;
    while let Some(event) = stream.message().await.unwrap() {
        finished = matches!(event.event, Some(Event::Finished(_)));
    }
    assert!(finished);
    let (status, text) = program.end().await;
    assert!(status.success(), "{status}");
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 1, "{text}");
    assert_eq!(lines[0]["line"], "up\u{1b}[2J");
    assert_eq!(lines[0]["runId"], json!(grant.run_id));
    assert!(!text.contains('\u{1b}'));
}
