//! The command line against the cluster: what it shows of runs that wait, run, failed and succeeded.

use api::{condition::SCHEDULED, reasons};
use e2e::{
    Namespace,
    cli::{Answer, chimera},
    documents::{self, Document},
    heads, in_namespace, runs,
};

async fn ask(space: &Namespace, args: &[&str]) -> Answer {
    chimera(&[args, &["--namespace", &space.name]].concat()).await
}

#[tokio::test]
async fn logs_are_what_the_program_printed_and_nothing_of_others() {
    in_namespace("logs", async |space| {
        heads::start(space, heads::small("small")).await;
        for name in ["one", "two"] {
            let code = format!("import sys\nprint('out of {name}')\nprint('err of {name}', file=sys.stderr)");
            let done = runs::run(space, runs::workflow(name, Document::python(&code))).await;
            runs::assert_succeeded(space, &done).await;
        }
        let answer = ask(space, &["logs", "two"]).await;
        assert_eq!(answer.code, 0, "{}", answer.stderr);
        let mut lines: Vec<_> = answer.stdout.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["err of two", "out of two"], "{}", answer.stderr);
    })
    .await;
}

#[tokio::test]
async fn logs_of_one_block_are_what_came_while_it_ran() {
    in_namespace("logs-of-a-block", async |space| {
        heads::start(space, heads::small("small")).await;
        let document = Document::python("print('loaded')\nprint('no end', end='')")
            .block("python {name=fit}", "print('fitted\\x1b[2J')");
        let done = runs::run(space, runs::workflow("blocks", document)).await;
        runs::assert_succeeded(space, &done).await;
        for (block, expected) in [("block-1", "loaded\nno end\n"), ("fit", "fitted")] {
            let answer = ask(space, &["logs", "blocks", "--block", block]).await;
            assert_eq!(answer.code, 0, "{}", answer.stderr);
            assert!(answer.stdout.starts_with(expected), "{block}: {}", answer.stdout);
            assert_eq!(
                answer.stdout.lines().count(),
                expected.lines().count(),
                "{}",
                answer.stdout
            );
            assert!(!answer.stdout.contains('\u{1b}'), "{:?}", answer.stdout);
        }
        let answer = ask(space, &["logs", "blocks", "--block", "fit", "--json"]).await;
        assert!(answer.stdout.contains("\"block\":\"fit\""), "{}", answer.stdout);
        let answer = ask(space, &["logs", "blocks", "--follow", "--block", "fti"]).await;
        assert_ne!(answer.code, 0, "{}", answer.stdout);
        assert!(
            answer.stderr.contains("its blocks: block-1, fit"),
            "{}",
            answer.stderr
        );
    })
    .await;
}

#[tokio::test]
async fn why_and_status_say_what_a_run_waits_for_and_what_became_of_it() {
    in_namespace("why", async |space| {
        space
            .create_object(&runs::workflow("patient", documents::small()))
            .await;
        runs::says_why(space, "patient", SCHEDULED, reasons::NO_HEAD).await;
        let answer = ask(space, &["why", "patient"]).await;
        let said = answer.stdout.clone() + &answer.stderr;
        assert!(
            said.contains(reasons::NO_HEAD) && said.contains("ChimeraHead"),
            "{said}"
        );

        heads::start(space, heads::small("small")).await;
        let done = runs::complete(space, "patient").await;
        let receipt = runs::assert_succeeded(space, &done).await;
        let answer = ask(space, &["status", "patient"]).await;
        assert_eq!(answer.code, 0, "{}", answer.stderr);
        let name = receipt.metadata.name.unwrap_or_default();
        assert!(
            answer.stdout.contains(&name),
            "{name} is not in:\n{}",
            answer.stdout
        );

        let failed = Document::python("raise ValueError('no such luck')");
        let done = runs::run(space, runs::workflow("unlucky", failed)).await;
        runs::assert_failed(space, &done, reasons::PROGRAM_FAILED).await;
        let answer = ask(space, &["why", "unlucky"]).await;
        let said = answer.stdout + &answer.stderr;
        assert!(said.contains("no such luck"), "{said}");
    })
    .await;
}

#[tokio::test]
async fn cancel_ends_a_run() {
    in_namespace("cancel-command", async |space| {
        heads::start(space, heads::small("small")).await;
        space
            .create_object(&runs::workflow("long", documents::lasting(3600)))
            .await;
        runs::running(space, "long").await;
        let answer = ask(space, &["cancel", "long"]).await;
        assert_eq!(answer.code, 0, "{}", answer.stderr);
        let done = runs::complete(space, "long").await;
        runs::assert_failed(space, &done, reasons::CANCELLED).await;
    })
    .await;
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_an_error_with_a_hint() {
    in_namespace("nameless", async |space| {
        for verb in ["status", "why", "logs", "cancel"] {
            let answer = ask(space, &[verb, "nobody"]).await;
            assert_ne!(answer.code, 0, "{verb}: {}", answer.stdout);
            assert!(
                answer.stderr.contains("nobody") && answer.stderr.contains("hint:"),
                "{verb}: {}",
                answer.stderr
            );
        }
    })
    .await;
}
