//! What a run prints, as the agent writes it down: each line with the block that was running.

use crate::binary::start;
use crate::testbed::{Testbed, document};
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn each_line_names_the_block_that_was_running() {
    let mut head = Testbed::start().await;
    let program = start(&mut head, &[]).await;
    let blocks = [
        "python {name=load}\nimport subprocess, sys\nprint('one')\n\
         late = subprocess.Popen(['sh', '-c', 'read line; echo late'], stdin=subprocess.PIPE)\n\
         print('no end', end='')\nprint('oh', file=sys.stderr)",
        "bash {name=fit}\nprintf 'two\\nno end either'",
        "python\nlate.communicate(b'go\\n')\nprint('three')\nresult = 3",
    ];
    let text = document("pass").replace("python\npass", &blocks.join("\n```\n```"));
    let grant = head.grant(&text, "{}");
    let ran = head
        .finish(head.send(head.request(&grant, &text, "{}")).await.unwrap())
        .await;
    assert_eq!(ran.outputs["result"], 3, "{:?}", ran.attestation.error);
    program.drain();
    let (status, written) = program.end().await;
    assert!(status.success(), "{status}");
    let mut lines: Vec<_> = written
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|line| line["runId"] == grant.run_id.as_str())
        .map(|line| {
            [&line["block"], &line["stream"], &line["line"]].map(|field| field.as_str().unwrap().to_owned())
        })
        .collect();
    // The two streams of one block come in any order.
    lines.sort_by_key(|[block, stream, _]| {
        (
            ["load", "fit", "block-3"].iter().position(|name| name == block),
            stream.clone(),
        )
    });
    let expected = [
        ["load", "stderr", "oh"],
        ["load", "stdout", "one"],
        ["load", "stdout", "no end"],
        ["fit", "stdout", "two"],
        ["fit", "stdout", "no end either"],
        ["block-3", "stdout", "late"],
        ["block-3", "stdout", "three"],
    ];
    assert_eq!(lines, expected, "{written}");
}
