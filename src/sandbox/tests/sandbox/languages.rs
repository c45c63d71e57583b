//! Blocks in other languages than Python: what they find, what they give, how they fail.

use crate::bench::{Allowed, Bench, job};
use sandbox::reason;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn bash_finds_inputs_and_results_and_gives_outputs() {
    let bench = Bench::start().await;
    let ran = bench
        .run_blocks(
            &[
                ("python", "outputs = {'list': [1, 2], 'word': 'so far'}"),
                (
                    "bash",
                    "name=$(input name)\necho \"hello $name\"\noutput greeting \"hello $name\"\noutput number 17\n\
                     output again \"$(result word)\"\noutput list \"$(result list)\"\n\
                     echo '{\"file\": {\"deep\": true}}' > \"$CHIMERA_OUTPUTS\"",
                ),
                ("python", "outputs['sum'] = outputs['number'] + sum(outputs['list'])"),
            ],
            r#"{"name":"Ann O'Neil","n":3}"#,
        )
        .await;
    let expected = json!({
        "greeting": "hello Ann O'Neil", "number": 17, "again": "so far", "list": [1, 2], "word": "so far",
        "file": {"deep": true}, "sum": 20,
    });
    assert_eq!(ran.outputs(), expected);
    assert_eq!(ran.stdout, "hello Ann O'Neil\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_bash_block_names_the_documents_line() {
    let bench = Bench::start().await;
    let cases = [
        ("echo one\n\nfalse\necho never", 12, "bash ended with code 1"),
        (
            "echo one\nnosuchprogram --x",
            11,
            "nosuchprogram: command not found",
        ),
        ("echo $undefined", 10, "undefined: unbound variable"),
        ("if true; then\n  foo (\nfi", 11, "syntax error"),
        ("f() {\n  grep -q x /dev/null\n}\nf", 11, "bash ended with code 1"),
        ("input missing", 10, "missing: there is no input of this name"),
        ("true | false | true", 10, "bash ended with code 1"),
        ("exit 3", 0, "bash ended with code 3"),
        ("kill -9 $$", 0, "bash was ended by SIGKILL"),
    ];
    for (code, line, message) in cases {
        let ran = bench.run_blocks(&[("bash", code)], "{}").await;
        let error = ran.error();
        assert_eq!(error.reason, reason::BLOCK_FAILED, "{code}: {error:?}");
        assert!(error.message.contains(message), "{code}: {error:?}");
        if line > 0 {
            assert_eq!(error.line, Some(line), "{code}: {error:?}");
        }
        assert!(!ran.stdout.contains("never"));
    }
    let ran = bench
        .run_blocks(&[("bash", "echo a >&2\necho b >&2\nfalse")], "{}")
        .await;
    assert_eq!(ran.outcome.blocks[0].diagnostics, "a\nb");
    assert_eq!(ran.stderr, "a\nb\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_that_are_no_object_fail_their_block() {
    let bench = Bench::start().await;
    for code in [
        "echo '[1]' > \"$CHIMERA_OUTPUTS\"",
        "echo 'no' > \"$CHIMERA_OUTPUTS\"",
    ] {
        let ran = bench.run_blocks(&[("bash", code)], "{}").await;
        assert_eq!(ran.error().reason, reason::INVALID_OUTPUT, "{:?}", ran.error());
        assert!(ran.error().message.contains("block a"), "{:?}", ran.error());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn javascript_finds_inputs_and_results_and_gives_outputs() {
    let bench = Bench::start().await;
    if !bench.offers("javascript") {
        return;
    }
    let ran = bench
        .run_blocks(
            &[
                ("python", "outputs = {'one': 1}"),
                (
                    "javascript",
                    "import { readFileSync } from 'node:fs';\nconst later = await Promise.resolve(inputs.n);\n\
                     console.log('n is', later);\noutputs.two = results.one + later;\n\
                     outputs.path = require('node:path').join('a', 'b');\nreadFileSync('/dev/null');",
                ),
                ("javascript", "outputs = {three: results.two + 1}"),
            ],
            r#"{"n":1}"#,
        )
        .await;
    assert_eq!(
        ran.outputs(),
        json!({"one": 1, "two": 2, "path": "a/b", "three": 3})
    );
    assert_eq!(ran.stdout, "n is 1\n");

    let ran = bench
        .run_blocks(&[("javascript", "const x = 1;\n\nx.y.z;")], "{}")
        .await;
    assert_eq!(
        (ran.error().line, ran.error().reason.as_str()),
        (Some(12), reason::BLOCK_FAILED)
    );
    assert!(ran.error().message.contains("TypeError"), "{:?}", ran.error());
    let ran = bench
        .run_blocks(&[("javascript", "let a = 1;\nlet a = 2;")], "{}")
        .await;
    assert_eq!(ran.error().line, Some(11), "{:?}", ran.error());
    assert!(ran.error().message.contains("SyntaxError"), "{:?}", ran.error());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_language_that_is_not_offered_is_refused_before_anything_runs() {
    let bench = Bench::start().await;
    let ran = bench
        .run_blocks(&[("python", "print('never')"), ("cobol", "")], "{}")
        .await;
    let error = ran.error();
    assert_eq!(
        (error.reason.as_str(), error.line),
        (reason::UNSUPPORTED_LANGUAGE, Some(20))
    );
    assert!(
        error.message.contains("block b is in cobol") && error.message.contains("offered: python, bash"),
        "{}",
        error.message
    );
    assert_eq!(ran.stdout, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_confinement_documents_run_and_attestations_would_say_so() {
    let bench = Bench::start_with(Allowed::default(), false).await;
    assert!(!bench.ready.confined);
    assert_eq!(bench.ready.landlock_abi, 0);
    let ran = bench
        .run_blocks(
            &[
                (
                    "python",
                    "import os\noutputs = {'listed': len(os.listdir('/')) > 0}",
                ),
                ("bash", "output limit \"$(ulimit -c)\""),
            ],
            "{}",
        )
        .await;
    assert_eq!(ran.outputs(), json!({"listed": true, "limit": 0}));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs an interpreter with qiskit, qiskit-aer and qiskit-qasm3-import in CHIMERA_PYTHON"]
async fn circuits_of_both_versions_are_counted() {
    let bench = Bench::start().await;
    let two = "OPENQASM 2.0;\ninclude \"qelib1.inc\";\nqreg q[2];\ncreg c[2];\nh q[0];\ncx q[0],q[1];\nmeasure q -> c;";
    let three = "// a pair\nOPENQASM 3.0;\ninclude \"stdgates.inc\";\nqubit[2] q;\nbit[2] c;\nx q[0];\nc = measure q;";
    let ran = bench
        .run_blocks(
            &[
                ("openqasm", two),
                ("openqasm", three),
                ("python", "outputs['total'] = sum(outputs['a'].values())"),
            ],
            r#"{"shots":100,"seed":7}"#,
        )
        .await;
    let outputs = ran.outputs();
    assert_eq!(outputs["b"], json!({"01": 100}));
    assert_eq!(outputs["total"], 100);
    assert!(
        outputs["a"]
            .as_object()
            .unwrap()
            .keys()
            .all(|key| key == "00" || key == "11")
    );
    let again = bench
        .run(&job(&[("openqasm", two)], r#"{"shots":100,"seed":7}"#))
        .await;
    assert_eq!(
        again.outputs()["a"],
        outputs["a"],
        "the same seed gives the same counts"
    );

    let cases = [
        (
            "OPENQASM 2.0;\ninclude \"qelib1.inc\";\nqreg q[2];\nfoo q[0];",
            13,
            1,
            "'foo' is not defined",
        ),
        (
            "OPENQASM 3.0;\ninclude \"stdgates.inc\";\nqubit[2] q;\n  foo q[0];",
            13,
            3,
            "gate 'foo' is not defined",
        ),
        ("OPENQASM 3;\nqubit[2] q\nbit c;", 12, 1, "`bit` is not expected"),
    ];
    for (code, line, column, message) in cases {
        let ran = bench.run_blocks(&[("openqasm", code)], "{}").await;
        let error = ran.error();
        assert_eq!(
            (error.line, error.column),
            (Some(line), Some(column)),
            "{code}: {error:?}"
        );
        assert!(error.message.contains(message), "{code}: {error:?}");
    }
    let silent = "OPENQASM 2.0;\nqreg q[1];";
    let ran = bench.run_blocks(&[("openqasm", silent)], "{}").await;
    assert!(
        ran.error().message.contains("measures nothing"),
        "{:?}",
        ran.error()
    );
    let ran = bench.run_blocks(&[("openqasm", two)], r#"{"shots":0}"#).await;
    assert!(ran.error().message.contains("`shots`"), "{:?}", ran.error());
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_are_read_from_ordinary_files_alone() {
    let bench = Bench::start().await;
    for code in [
        "mkfifo \"$CHIMERA_OUTPUTS\"",
        "ln -s /dev/zero \"$CHIMERA_OUTPUTS\"",
        "ln -s \"$CHIMERA_INPUTS\" \"$CHIMERA_OUTPUTS\"",
        "mkdir \"$CHIMERA_OUTPUTS\"",
        "mkfifo \"$CHIMERA_BLOCK/outputs.list\"",
        "head -c 9000000 /dev/zero >\"$CHIMERA_OUTPUTS\"",
        "echo '{\"a\": NaN}' >\"$CHIMERA_OUTPUTS\"",
        "printf '{\"a\": \"\\\\ud800\"}' >\"$CHIMERA_OUTPUTS\"",
    ] {
        let ran = bench.run_blocks(&[("bash", code)], "{}").await;
        assert_eq!(
            ran.error().reason,
            sandbox::reason::INVALID_OUTPUT,
            "{code}: {:?}",
            ran.error()
        );
    }
}
