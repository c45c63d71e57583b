//! Conditions before the first block and after the last.

use crate::bench::{Bench, Ran, job};
use crypto::attestation::BlockState::{Skipped, Succeeded};
use sandbox::job::Specification;
use sandbox::reason;
use serde_json::json;

const CHECKS: &str = "\
import math
LIMIT = 10
def helper():
    return False
def pre_n_is_small(inputs):
    assert inputs['n'] < LIMIT, f\"n is {inputs['n']}\"
def requires_nothing():
    pass
def post_double(inputs, outputs):
    inputs['n'] = outputs['double'] = None
def ensures_even(outputs):
    return outputs['double'] % 2 == 0
";

async fn run(bench: &Bench, code: &str, line: Option<u32>, strict: bool, inputs: &str) -> Ran {
    let mut job = job(
        &[(
            "python",
            "outputs = {'double': inputs['n'] * 2 + inputs.get('more', 0)}",
        )],
        inputs,
    );
    job.specifications = vec![Specification {
        name: "checks.py".into(),
        code: code.into(),
        line,
    }];
    job.strict = strict;
    bench.run(&job).await
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_that_hold_change_nothing() {
    let bench = Bench::start().await;
    let ran = run(&bench, CHECKS, None, true, r#"{"n":4}"#).await;
    assert_eq!(ran.outputs(), json!({"double": 8}));
    assert_eq!(ran.stderr, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_that_does_not_hold_fails_a_strict_run_with_file_function_and_line() {
    let bench = Bench::start().await;
    let ran = run(&bench, CHECKS, None, true, r#"{"n":40}"#).await;
    assert_eq!(ran.error().reason, reason::VERIFICATION_FAILED);
    assert_eq!(
        ran.error().message,
        "checks.py, line 6, pre_n_is_small: AssertionError: n is 40"
    );
    assert_eq!((ran.error().line, ran.states()), (None, vec![Skipped]));

    let ran = run(&bench, CHECKS, Some(100), true, r#"{"n":4,"more":1}"#).await;
    assert_eq!(
        ran.error().message,
        "checks.py, line 110, ensures_even: gave False"
    );
    assert_eq!((ran.error().line, ran.states()), (Some(110), vec![Succeeded]));

    for (code, message) in [
        ("def pre(wrong): pass", "wants `wrong`"),
        ("def broken(:", "checks.py, line 1: SyntaxError"),
        ("import nosuchmodule", "ModuleNotFoundError"),
    ] {
        let ran = run(&bench, code, None, true, r#"{"n":4}"#).await;
        assert_eq!(ran.error().reason, reason::VERIFICATION_FAILED);
        assert!(ran.error().message.contains(message), "{:?}", ran.error());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_condition_that_does_not_hold_is_a_remark_of_other_runs() {
    let bench = Bench::start().await;
    let ran = run(&bench, CHECKS, None, false, r#"{"n":40,"more":1}"#).await;
    assert_eq!(ran.outputs(), json!({"double": 81}));
    assert_eq!(
        ran.stderr,
        "verification: checks.py, line 6, pre_n_is_small: AssertionError: n is 40\n\
         verification: checks.py, line 11, ensures_even: gave False\n"
    );
}
