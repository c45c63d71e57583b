//! What one run has of another's folder: nothing, whether the folder is new or served before.

use crate::bench::{Allowed, Bench};
use std::collections::BTreeSet;

const RUNS: usize = 40;
const LOOK: &str = "\
import os
parts = [os.stat('../' + part) for part in ('work', 'home', 'tmp')]
outputs = {'name': os.environ['HOME'], 'parts': [[part.st_ino, part.st_ctime_ns] for part in parts]}";

#[tokio::test(flavor = "multi_thread")]
async fn folders_that_runs_leave_alone_serve_again_and_each_run_has_a_name_of_its_own() {
    let bench = Bench::start().await;
    let (mut names, mut parts) = (BTreeSet::new(), BTreeSet::new());
    for _ in 0..RUNS {
        let outputs = bench.run_blocks(&[("python", LOOK)], "{}").await.outputs();
        names.insert(outputs["name"].to_string());
        parts.insert(outputs["parts"].to_string());
    }
    assert_eq!(names.len(), RUNS);
    assert!(parts.len() < RUNS, "{parts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_a_run_has_changed_and_tidied_up_serves_nobody() {
    let tidy = format!("{LOOK}\nopen('file', 'w').close()\nos.remove('file')");
    assert_serve_once(&Bench::start().await, &tidy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn folders_of_runs_that_are_not_confined_serve_once() {
    assert_serve_once(&Bench::start_with(Allowed::default(), false).await, LOOK).await;
}

async fn assert_serve_once(bench: &Bench, code: &str) {
    let mut parts = BTreeSet::new();
    for _ in 0..RUNS {
        let outputs = bench.run_blocks(&[("python", code)], "{}").await.outputs();
        parts.insert(outputs["parts"].to_string());
    }
    assert_eq!(parts.len(), RUNS);
}
