//! The way of a run: what is refused, what is streamed, what is attested.

use crate::testbed::{Authority, Testbed, connect, document};
use crypto::attestation::{BlockState, Outcome, Unit};
use crypto::root_statement::RootStatement;
use crypto::seal::Blinding;
use crypto::{DigestSet, KeyPurpose, KeyStatement, SigningKey, Suite};
use head_proto::run_event::Event;
use head_proto::{BlockState as State, CancelRequest, ResumeRequest, SpecificationFile, WatchRequest};
use jiff::{SignedDuration, Timestamp};
use sandbox::reason;
use serde_json::json;
use std::time::{Duration, Instant};
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn a_granted_document_runs_and_is_attested() {
    let head = Testbed::start().await;
    let code = "print('hello', inputs['n'])\nresult = {'double': inputs['n'] * 2, 'main': __name__}";
    let text = document(code);
    let inputs = r#"{"n":21}"#;
    let grant = head.grant(&text, inputs);
    let request = head.request(&grant, &text, inputs);
    let stream = head.send(request.clone()).await.unwrap();
    let ran = head.finish(stream).await;
    assert_eq!(ran.outputs, json!({"result": {"double": 42, "main": "__main__"}}));
    assert_eq!(ran.printed(), "hello 21\n");
    assert_eq!(ran.attestation.result, Outcome::Success);
    assert_eq!(ran.attestation.blocks[0].state, BlockState::Succeeded);
    assert_eq!(ran.attestation.stdout.bytes, 9);
    let payload = crypto::Envelope::from_json(&request.grant)
        .unwrap()
        .payload()
        .to_vec();
    assert_eq!(ran.attestation.grant, DigestSet::of(&payload));
    let Some(Event::Started(started)) = &ran.events[0].event else {
        panic!("the first event is {:?}", ran.events[0]);
    };
    assert_eq!(started.grant, request.grant);
    assert_eq!(started.document, request.document);
    let states: Vec<_> = ran
        .events
        .iter()
        .filter_map(|event| match event.event.as_ref()? {
            Event::Block(block) => Some(block.state()),
            _ => None,
        })
        .collect();
    assert_eq!(states, [State::Running, State::Succeeded]);
    assert_eq!(head.left_in_folders(), None, "the run's files remain");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_is_there_for_one_run_takes_that_one_and_no_other() {
    let (own, other) = ("a".repeat(32), "b".repeat(32));
    let head = Testbed::start_with(&["--only-run", &own]).await;
    let text = document("result = 1");
    let granted = |run_id: &str, isolation| {
        let mut grant = head.grant(&text, "{}");
        (grant.run_id, grant.isolation) = (run_id.to_owned(), isolation);
        head.request(&grant, &text, "{}")
    };
    for (run_id, isolation) in [
        (&other, Unit::Pod),
        (&other, Unit::Process),
        (&own, Unit::Process),
    ] {
        let refused = head.send(granted(run_id, isolation)).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    }
    let ran = head
        .finish(head.send(granted(&own, Unit::Pod)).await.unwrap())
        .await;
    assert_eq!(ran.attestation.result, Outcome::Success);
    assert_eq!(ran.attestation.isolation.unit, Unit::Pod);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_for_many_runs_gives_none_a_pod_of_its_own_and_does_not_say_so() {
    let head = Testbed::start().await;
    let text = document("result = 1");
    let mut grant = head.grant(&text, "{}");
    grant.isolation = Unit::Pod;
    let refused = head.send(head.request(&grant, &text, "{}")).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    grant.isolation = Unit::Process;
    let ran = head
        .finish(head.send(head.request(&grant, &text, "{}")).await.unwrap())
        .await;
    assert_eq!(ran.attestation.isolation.unit, Unit::Process);
}

#[tokio::test(flavor = "multi_thread")]
async fn asking_again_rejoins_and_executes_nothing_twice() {
    let head = Testbed::start().await;
    let text = document("import os\nresult = os.urandom(8).hex()");
    let grant = head.grant(&text, "{}");
    let first = head
        .finish(head.send(head.request(&grant, &text, "{}")).await.unwrap())
        .await;
    let mut later = grant.clone();
    later.fencing_token += 1;
    let again = head
        .finish(head.send(head.request(&later, &text, "{}")).await.unwrap())
        .await;
    assert_eq!(first.events, again.events);
    let resume = ResumeRequest {
        run_id: grant.run_id.clone(),
    };
    let resumed = head.client.clone().resume(resume).await.unwrap().into_inner();
    assert_eq!(head.finish(resumed).await.events, first.events);
    let unknown = ResumeRequest {
        run_id: "f".repeat(32),
    };
    assert_eq!(
        head.client.clone().resume(unknown).await.unwrap_err().code(),
        Code::NotFound
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn grants_that_do_not_hold_are_refused_before_anything_runs() {
    let head = Testbed::start().await;
    let text = document("result = 1");
    let good = head.grant(&text, "{}");
    let now = Timestamp::now();

    let mut other_pod = good.clone();
    other_pod.head.uid = "another".into();
    let mut expired = good.clone();
    expired.not_before = now - SignedDuration::from_mins(10);
    expired.expires = now - SignedDuration::from_mins(9);
    let mut network = good.clone();
    network.network = true;
    let mut other_key = good.clone();
    other_key.head.attester = head.root.verifying_key().key_id().clone();
    other_key.head.attester_public_key = head.root.verifying_key().spki_pem();
    let cases = [
        (other_pod, Code::FailedPrecondition, "another head"),
        (expired, Code::FailedPrecondition, "valid from"),
        (network, Code::PermissionDenied, "network"),
        (other_key, Code::FailedPrecondition, "another head"),
    ];
    for (grant, code, words) in cases {
        let status = head.send(head.request(&grant, &text, "{}")).await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains(words), "{status}");
    }

    let mut swapped = head.request(&good, &text, "{}");
    swapped.document = document("result = 2").into_bytes();
    assert_eq!(
        head.send(swapped).await.unwrap_err().code(),
        Code::InvalidArgument
    );

    let mut forged = head.request(&good, &text, "{}");
    forged.grant = good.sign(&head.root).unwrap().to_json().into_bytes();
    assert_eq!(
        head.send(forged).await.unwrap_err().code(),
        Code::PermissionDenied
    );

    let mut self_made = head.request(&good, &text, "{}");
    let about = head.signing.verifying_key();
    let statement = KeyStatement::about(about, KeyPurpose::Signing, now, None, None, 1);
    self_made.key_statement = statement.sign(&head.signing).unwrap().to_json().into_bytes();
    assert_eq!(
        head.send(self_made).await.unwrap_err().code(),
        Code::PermissionDenied
    );

    let mut sealing = head.request(&good, &text, "{}");
    let statement = KeyStatement::about(about, KeyPurpose::Sealing, now, None, None, 1);
    sealing.key_statement = statement.sign(&head.root).unwrap().to_json().into_bytes();
    assert_eq!(
        head.send(sealing).await.unwrap_err().code(),
        Code::PermissionDenied
    );

    let mut succeeded = head.request(&head.grant(&text, "{}"), &text, "{}");
    let successor = SigningKey::generate(Suite::MlDsa87).unwrap();
    let statement = KeyStatement::about(about, KeyPurpose::Signing, now, None, None, 1);
    succeeded.key_statement = statement.sign(&successor).unwrap().to_json().into_bytes();
    assert_eq!(
        head.send(succeeded.clone()).await.unwrap_err().code(),
        Code::PermissionDenied
    );
    let [forward, back] = RootStatement::roll_over(&head.root, &successor, now).unwrap();
    succeeded.root_statements = vec![back.to_json().into_bytes(), forward.to_json().into_bytes()];
    head.finish(head.send(succeeded).await.unwrap()).await;

    let mut newer = good.clone();
    newer.fencing_token = 7;
    head.finish(head.send(head.request(&newer, &text, "{}")).await.unwrap())
        .await;
    let stale = head.grant(&text, "{}");
    let status = head.send(head.request(&stale, &text, "{}")).await.unwrap_err();
    assert!(status.message().contains("leads no more"), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_controllers_certificate_opens_a_connection() {
    let head = Testbed::start().await;
    let stranger = Authority::new();
    let server = rcgen::ExtendedKeyUsagePurpose::ServerAuth;
    let wrong = [
        head.authority.client("someone.chimera"),
        head.authority.issue("controller.chimera", server),
        stranger.client("controller.chimera"),
    ];
    for identity in wrong {
        let mut client = connect(head.address, &head.authority, &identity);
        assert!(client.watch(WatchRequest::default()).await.is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_used_by_the_next_connection() {
    let head = Testbed::start().await;
    let renewed = Authority::new();
    let (certificate, key) = renewed.issue("heads.team.chimera", rcgen::ExtendedKeyUsagePurpose::ServerAuth);
    for (name, text) in [
        ("tls.key", &key),
        ("tls.crt", &certificate),
        ("ca.crt", &renewed.pem),
    ] {
        std::fs::write(head.identity.join(name), text).unwrap();
    }
    let mut client = connect(head.address, &renewed, &renewed.client("controller.chimera"));
    assert!(client.watch(WatchRequest::default()).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_names_the_line_of_the_document() {
    let head = Testbed::start().await;
    let ran = head.run("def f():\n    return 1 / 0\n\nf()", "{}").await;
    let error = ran.error();
    assert_eq!(
        (error.reason.as_str(), error.line),
        (reason::BLOCK_FAILED, Some(15))
    );
    assert_eq!(error.message, "ZeroDivisionError: division by zero");
    let diagnostics = &ran.attestation.blocks[0].diagnostics;
    assert!(
        diagnostics.contains("File \"<document>\", line 17"),
        "{diagnostics}"
    );
    assert!(!diagnostics.contains("_chimera"), "{diagnostics}");
    let ran = head.run("x = (1", "{}").await;
    assert_eq!((ran.error().line, ran.error().column), (Some(14), Some(5)));
    let ran = head.run("result = {'a': [float('nan')]}", "{}").await;
    assert_eq!(ran.error().reason, reason::INVALID_OUTPUT);
    assert!(
        ran.error().message.contains("`result`['a'][0]"),
        "{}",
        ran.error().message
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_run_ends_with_that_cause() {
    let head = Testbed::start().await;
    let text = document("print('up', flush=True)\nwhile True: pass");
    let grant = head.grant(&text, "{}");
    let mut stream = head.send(head.request(&grant, &text, "{}")).await.unwrap();
    while !matches!(
        stream.message().await.unwrap().unwrap().event,
        Some(Event::Output(_))
    ) {}
    let cancel = CancelRequest {
        run_id: grant.run_id.clone(),
        reason: "no longer needed".into(),
    };
    assert!(
        head.client
            .clone()
            .cancel(cancel.clone())
            .await
            .unwrap()
            .into_inner()
            .cancelled
    );
    let resumed = head
        .client
        .clone()
        .resume(ResumeRequest { run_id: grant.run_id })
        .await
        .unwrap();
    let ran = head.finish(resumed.into_inner()).await;
    assert_eq!(ran.error().reason, reason::CANCELLED);
    assert!(ran.error().message.contains("no longer needed"));
    assert!(
        !head
            .client
            .clone()
            .cancel(cancel)
            .await
            .unwrap()
            .into_inner()
            .cancelled
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_head_says_so_and_a_draining_head_finishes_what_it_has() {
    let head = Testbed::start_with(&["--workers", "1"]).await;
    let text = document("import time\nprint('up', flush=True)\ntime.sleep(1)\nresult = 1");
    let grant = head.grant(&text, "{}");
    let mut stream = head.send(head.request(&grant, &text, "{}")).await.unwrap();
    while !matches!(
        stream.message().await.unwrap().unwrap().event,
        Some(Event::Output(_))
    ) {}
    let other = head.grant(&text, "{}");
    let status = head.send(head.request(&other, &text, "{}")).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    let draining = tokio::spawn({
        let agent = head.agent.clone();
        async move { agent.drain(Duration::from_secs(20)).await }
    });
    let status = head.wait_until(|status| status.draining).await;
    assert_eq!(status.running, std::slice::from_ref(&grant.run_id));
    draining.await.unwrap();
    let resumed = head
        .client
        .clone()
        .resume(ResumeRequest { run_id: grant.run_id })
        .await
        .unwrap();
    assert_eq!(
        head.finish(resumed.into_inner()).await.outputs,
        json!({"result": 1})
    );
    let status = head.send(head.request(&other, &text, "{}")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_zygote_costs_its_runs_and_is_replaced() {
    let head = Testbed::start().await;
    let text = document("import os\nprint(os.getppid(), flush=True)\nwhile True: pass");
    let grant = head.grant(&text, "{}");
    let mut stream = head.send(head.request(&grant, &text, "{}")).await.unwrap();
    let zygote = loop {
        if let Some(Event::Output(output)) = stream.message().await.unwrap().unwrap().event {
            break String::from_utf8(output.data).unwrap().trim().parse().unwrap();
        }
    };
    let zygote = rustix::process::Pid::from_raw(zygote).unwrap();
    rustix::process::kill_process(zygote, rustix::process::Signal::KILL).unwrap();
    let resumed = head
        .client
        .clone()
        .resume(ResumeRequest { run_id: grant.run_id })
        .await
        .unwrap();
    assert_eq!(
        head.finish(resumed.into_inner()).await.error().reason,
        reason::INTERPRETER_LOST
    );
    let status = head
        .wait_until(|status| status.ready && !status.mends.is_empty())
        .await;
    assert_eq!(
        (status.mends[0].number, status.mends[0].cause.as_str()),
        (1, "WorkerLost")
    );
    assert_eq!(status.environment.unwrap().memory_bytes, 2 << 30);
    assert_eq!(head.run("result = 3", "{}").await.outputs, json!({"result": 3}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zygote_that_hangs_gives_its_place_up_and_keeps_its_runs() {
    let head = Testbed::start().await;
    let text = document("import os, time\nprint(os.getppid(), flush=True)\ntime.sleep(1)\nresult = 1");
    let grant = head.grant(&text, "{}");
    let mut stream = head.send(head.request(&grant, &text, "{}")).await.unwrap();
    let zygote = loop {
        if let Some(Event::Output(output)) = stream.message().await.unwrap().unwrap().event {
            break String::from_utf8(output.data).unwrap().trim().parse().unwrap();
        }
    };
    let zygote = rustix::process::Pid::from_raw(zygote).unwrap();
    rustix::process::kill_process(zygote, rustix::process::Signal::STOP).unwrap();
    let status = head.wait_until(|status| !status.mends.is_empty()).await;
    assert_eq!(status.mends[0].cause, "WorkerSlow");
    assert!(
        status.ready && status.mends[0].duration_millis < 500,
        "{:?}",
        status.mends
    );
    assert_eq!(head.run("result = 3", "{}").await.outputs, json!({"result": 3}));
    rustix::process::kill_process(zygote, rustix::process::Signal::CONT).unwrap();
    let request = ResumeRequest { run_id: grant.run_id };
    let resumed = head.client.clone().resume(request).await.unwrap();
    let ran = head.finish(resumed.into_inner()).await;
    assert_eq!(ran.outputs, json!({"result": 1}));
}

/// Not a bound, a figure: `cargo test -p chimera-head latency -- --nocapture`, with PRELOAD=numpy,qiskit for those.
#[tokio::test(flavor = "multi_thread")]
async fn latency_from_grant_to_finished_is_printed() {
    let preload = std::env::var("PRELOAD").unwrap_or_default();
    let more = ["--preload", preload.as_str()];
    let head = Testbed::start_with(if preload.is_empty() { &[] } else { &more }).await;
    let text = document("result = 1");
    let mut times = Vec::new();
    for _ in 0..100 {
        let grant = head.grant(&text, "{}");
        let request = head.request(&grant, &text, "{}");
        let began = Instant::now();
        let mut stream = head.send(request).await.unwrap();
        let mut marks = Vec::new();
        while let Some(event) = stream.message().await.unwrap() {
            marks.push(began.elapsed());
            if let Some(Event::Finished(_)) = event.event {
                break;
            }
        }
        times.push((marks[1], *marks.last().unwrap()));
    }
    for (what, pick) in [("user code begins", 0), ("Finished", 1)] {
        let mut of: Vec<_> = times
            .iter()
            .map(|time| if pick == 0 { time.0 } else { time.1 })
            .collect();
        of.sort();
        println!(
            "{what}: p50 {:?}, p90 {:?}, p99 {:?} (preload: {preload:?})",
            of[50], of[90], of[99]
        );
    }
}

/// Prints a figure as well: `cargo test -p chimera-head at_once -- --nocapture`.
#[tokio::test(flavor = "multi_thread")]
async fn many_runs_at_once_all_finish_and_leave_nothing() {
    const RUNS: usize = 200;
    let head = std::sync::Arc::new(Testbed::start_with(&["--workers", "8"]).await);
    let places = std::sync::Arc::new(tokio::sync::Semaphore::new(8));
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let (before, began) = (descriptors(), Instant::now());
    let mut runs = tokio::task::JoinSet::new();
    for number in 0..RUNS {
        let (head, places) = (head.clone(), places.clone());
        runs.spawn(async move {
            let _place = places.acquire_owned().await.unwrap();
            let inputs = format!("{{\"n\":{number}}}");
            let ran = head
                .run("print(inputs['n'])\nresult = inputs['n']", &inputs)
                .await;
            assert_eq!(ran.outputs, json!({ "result": number }));
            assert_eq!(ran.printed(), format!("{number}\n"));
        });
    }
    while let Some(ran) = runs.join_next().await {
        ran.unwrap();
    }
    println!(
        "{RUNS} runs in {:?}; open descriptors {before} before, {} after",
        began.elapsed(),
        descriptors()
    );
    assert_eq!(head.left_in_folders(), None);
    assert!(head.agent.status().running.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn blocks_of_several_languages_run_and_an_allowed_failure_is_attested() {
    let head = Testbed::start().await;
    let languages = head.agent.status().environment.unwrap().languages;
    assert!(
        languages.starts_with(&["python".to_owned(), "bash".to_owned()]),
        "{languages:?}"
    );
    let text = document("first = 1").replace(
        "## Output_Schema",
        "```bash {name=shell}\noutput result \"$(input n)\"\n```\n\
         ```bash {name=bad allow_failure=true}\necho why >&2\nfalse\n```\n\
         ```bash {name=last needs=bad}\noutput result 0\n```\n## Output_Schema",
    );
    let inputs = r#"{"n":21}"#;
    let grant = head.grant(&text, inputs);
    let stream = head.send(head.request(&grant, &text, inputs)).await.unwrap();
    let ran = head.finish(stream).await;
    assert_eq!(ran.outputs, json!({"result": 21}));
    assert_eq!(ran.attestation.environment.languages, languages);
    let blocks: Vec<_> = ran
        .attestation
        .blocks
        .iter()
        .map(|block| (block.name.as_str(), block.state, block.diagnostics.as_str()))
        .collect();
    assert_eq!(blocks[1], ("shell", BlockState::Succeeded, ""));
    assert_eq!((blocks[2].0, blocks[2].1), ("bad", BlockState::Failed));
    assert!(blocks[2].2.contains("why"), "{blocks:?}");
    assert_eq!(blocks[3].1, BlockState::Skipped);
    let last = ran
        .events
        .iter()
        .rev()
        .find_map(|event| match event.event.as_ref()? {
            Event::Block(block) => Some((block.name.as_str(), block.state())),
            _ => None,
        });
    assert_eq!(last, Some(("last", State::Skipped)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_language_that_the_head_does_not_run_is_refused_by_name() {
    let head = Testbed::start().await;
    let languages = head.agent.status().environment.unwrap().languages;
    let Some(missing) = ["javascript", "openqasm"]
        .into_iter()
        .find(|language| !languages.iter().any(|offered| offered == language))
    else {
        return;
    };
    let text = document("print('never')").replace(
        "## Output_Schema",
        &format!("```{missing}\nx\n```\n## Output_Schema"),
    );
    let grant = head.grant(&text, "{}");
    let stream = head.send(head.request(&grant, &text, "{}")).await.unwrap();
    let ran = head.finish(stream).await;
    assert_eq!(ran.error().reason, reason::UNSUPPORTED_LANGUAGE);
    assert!(
        ran.error().message.contains(missing) && ran.error().message.contains("offered: python"),
        "{:?}",
        ran.error()
    );
    assert_eq!(ran.printed(), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn specifications_are_those_that_were_granted_and_decide() {
    let head = Testbed::start().await;
    let text = document("result = inputs['n']").replace(
        "---\n## Intent",
        "verification: {level: strict, spec_files: [inside.py, beside.py]}\n---\n## Intent",
    ) + "## Verification\n```python {name=inside.py}\ndef pre(inputs):\n    assert inputs['n'] > 0, 'too small'\n```\n";
    let beside = "def post(outputs):\n    return outputs['result'] < 10\n";
    let run = async |inputs: &str, sent: &[(&str, &str)]| {
        let mut grant = head.grant(&text, inputs);
        let digest = DigestSet::of(beside.as_bytes());
        grant.specifications.insert("beside.py".to_owned(), digest);
        let mut request = head.request(&grant, &text, inputs);
        let files = sent.iter().map(|(name, content)| SpecificationFile {
            name: (*name).to_owned(),
            content: content.as_bytes().to_vec(),
        });
        request.specifications = files.collect();
        head.send(request).await
    };
    for sent in [
        &[][..],
        &[("beside.py", "pass")],
        &[("other.py", beside)],
        &[("beside.py", beside), ("beside.py", beside)],
        &[("beside.py", beside), ("more.py", "pass")],
    ] {
        let status = run(r#"{"n":1}"#, sent).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains("specifications"), "{status}");
    }
    let good = [("beside.py", beside)];
    let ran = head.finish(run(r#"{"n":1}"#, &good).await.unwrap()).await;
    assert_eq!(ran.outputs, json!({"result": 1}));
    let ran = head.finish(run(r#"{"n":0}"#, &good).await.unwrap()).await;
    let line = text.lines().position(|line| line.contains("too small")).unwrap() + 1;
    assert_eq!(ran.error().reason, reason::VERIFICATION_FAILED);
    assert_eq!(ran.error().line, u32::try_from(line).ok());
    assert!(ran.error().message.contains("too small"), "{:?}", ran.error());
    let ran = head.finish(run(r#"{"n":10}"#, &good).await.unwrap()).await;
    assert_eq!(ran.error().message, "beside.py, line 1, post: gave False");
}

#[tokio::test(flavor = "multi_thread")]
async fn sealed_inputs_are_those_whose_digest_and_blinding_were_granted() {
    let head = Testbed::start().await;
    let (text, inputs) = (document("result = inputs['n']"), r#"{"n":21}"#);
    let blinding = Blinding::from_slice(&[7; 32]).unwrap();
    let run = async |sealed: bool, sent: &[u8], inputs: &str| {
        let mut grant = head.grant(&text, r#"{"n":21}"#);
        if sealed {
            grant.sealed_inputs = Some(DigestSet::of(b"the sealed text"));
            grant.inputs = blinding.digest(br#"{"n":21}"#);
        }
        let mut request = head.request(&grant, &text, inputs);
        request.inputs_blinding = sent.to_vec();
        head.send(request).await
    };
    for (sealed, sent, inputs) in [
        (true, &[][..], inputs),
        (true, &[7; 31], inputs),
        (true, &[8; 32], inputs),
        (true, &[7; 32], r#"{"n":22}"#),
        (false, &[7; 32], inputs),
    ] {
        let status = run(sealed, sent, inputs).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains("inputs"), "{status}");
    }
    let ran = head.finish(run(true, &[7; 32], inputs).await.unwrap()).await;
    assert_eq!(ran.outputs, json!({"result": 21}));
    let Some(Event::Started(started)) = &ran.events[0].event else {
        panic!("the first event is {:?}", ran.events[0]);
    };
    assert_eq!(started.inputs_blinding, [7; 32]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_cannot_make_a_runs_folder_says_so_and_takes_no_more_runs_until_it_can() {
    let head = Testbed::start_with(&["--canary-seconds", "1"]).await;
    let aside = head.outside().join("aside");
    std::fs::rename(&head.runs, &aside).unwrap();
    let ran = head.run("result = 1", "{}").await;
    assert_eq!(ran.error().reason, reason::SANDBOX_FAILED);
    assert!(
        ran.error().message.contains("the run's folder cannot be made"),
        "{:?}",
        ran.error()
    );
    let status = head.wait_until(|status| !status.ready).await;
    assert!(
        status.message.contains("the run's folder cannot be made"),
        "{status:?}"
    );
    std::fs::rename(&aside, &head.runs).unwrap();
    head.wait_until(|status| status.ready).await;
    assert_eq!(head.run("result = 3", "{}").await.outputs, json!({"result": 3}));
}
