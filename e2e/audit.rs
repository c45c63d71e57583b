//! The API server's audit log: what a user really asked for, to be compared with what that user may ask for.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use serde::Deserialize;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::Command,
    time::timeout,
};

use crate::wait::DEADLINE;

/// One request, as far as the log tells.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// The verb that was authorised.
    pub verb: String,
    /// Who asked.
    pub user: User,
    /// The program that asked.
    #[serde(default)]
    pub user_agent: String,
    /// What was asked for; absent for paths that are no objects.
    #[serde(default)]
    pub object_ref: Option<Reference>,
    /// The answer.
    #[serde(default)]
    pub response_status: Answer,
    /// What the authoriser said.
    #[serde(default)]
    pub annotations: Annotations,
}

/// Who asked.
#[derive(Clone, Debug, Deserialize)]
pub struct User {
    /// The user's name.
    pub username: String,
}

/// The object of a request.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reference {
    /// API group; empty for the core group.
    #[serde(default)]
    pub api_group: String,
    /// Resource, in the plural.
    #[serde(default)]
    pub resource: String,
    /// Subresource, or empty.
    #[serde(default)]
    pub subresource: String,
    /// Namespace, or empty.
    #[serde(default)]
    pub namespace: String,
    /// Name, or empty.
    #[serde(default)]
    pub name: String,
}

/// The answer to a request.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct Answer {
    /// HTTP status.
    #[serde(default)]
    pub code: u16,
}

/// What the authoriser noted.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Annotations {
    /// `allow` or `forbid`.
    #[serde(default, rename = "authorization.k8s.io/decision")]
    pub decision: String,
    /// Which binding allowed it, or why it was forbidden.
    #[serde(default, rename = "authorization.k8s.io/reason")]
    pub reason: String,
}

/// `CHIMERA_AUDIT_LOG`, which only the local cluster has.
pub fn log() -> Option<PathBuf> {
    std::env::var_os("CHIMERA_AUDIT_LOG").map(PathBuf::from)
}

/// All requests of one user in the log, up to and including the one that carries `marker` in its line: the log is
/// written in batches, and what precedes the marker is complete once the marker is there.
pub async fn requests_until(log: &Path, user: &str, marker: &str) -> Vec<Request> {
    let mut requests = Vec::new();
    for old in rotated(log) {
        let text = std::fs::read_to_string(&old).unwrap_or_else(|error| panic!("{}: {error}", old.display()));
        requests.extend(text.lines().filter_map(|line| request_of(line, user)));
    }
    // tail reads to the end and then waits for more by inotify.
    let mut tail = Command::new("tail")
        .args(["--lines=+1", "--follow=name"])
        .arg(log)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("tail can be started");
    let mut lines = BufReader::new(tail.stdout.take().expect("stdout is a pipe")).lines();
    let read = async {
        while let Some(line) = lines.next_line().await.expect("the audit log can be read") {
            if line.contains(marker) {
                return;
            }
            requests.extend(request_of(&line, user));
        }
    };
    timeout(DEADLINE, read)
        .await
        .unwrap_or_else(|_| panic!("{marker} never came into {}", log.display()));
    requests
}

/// The files that the log was moved to when it had grown: `audit-TIME.log` beside `audit.log`.
fn rotated(log: &Path) -> Vec<PathBuf> {
    let stem = log.file_stem().unwrap_or_default().to_string_lossy().into_owned() + "-";
    let entries = log
        .parent()
        .and_then(|folder| std::fs::read_dir(folder).ok())
        .into_iter()
        .flatten()
        .flatten();
    let is_old = |path: &PathBuf| {
        path.file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with(&stem))
    };
    entries.map(|entry| entry.path()).filter(is_old).collect()
}

fn request_of(line: &str, user: &str) -> Option<Request> {
    // Cheap before dear: most lines are of others.
    if !line.contains(user) {
        return None;
    }
    let request: Request = serde_json::from_str(line)
        .unwrap_or_else(|error| panic!("a line of the audit log cannot be read: {error}\n{line}"));
    (request.user.username == user).then_some(request)
}
