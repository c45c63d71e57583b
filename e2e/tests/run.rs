//! Runs: from a created workflow to its signed receipt, and every way in which a run can go otherwise.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the answer")]

use api::{
    ChimeraHead, ConditionStatus, MamlWorkflow, MuReceipt, Role,
    condition::{ACCEPTED, READY, SCHEDULED, SUCCEEDED},
    maml_workflow::BlockState,
    names, reasons,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use e2e::{
    documents::{self, Document},
    heads, in_namespace, runs, samples, wait,
};
use futures::future::join_all;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{ResourceExt, api::ListParams};
use serde_json::json;

fn sample(file: &str) -> MamlWorkflow {
    samples::object(file, "MamlWorkflow")
}

#[tokio::test]
async fn a_plain_document_ends_in_a_verified_receipt() {
    in_namespace("hello", async |space| {
        heads::start(space, heads::small("small")).await;
        let done = runs::run(space, sample("hello")).await;
        let receipt = runs::assert_succeeded(space, &done).await;

        let status = runs::status(&done);
        let outputs = json!({"greeting": "hello from chimera", "total": 45});
        assert_eq!(status.outputs.map(serde_json::Value::Object), Some(outputs));
        assert_eq!(status.outputs_digest, receipt.spec.outputs_digest);
        assert_eq!((status.attempt, status.attempts.len()), (Some(1), 0));
        let head = status.head.unwrap();
        assert_eq!(
            (head.name.as_str(), receipt.spec.head.as_deref()),
            ("small", Some("small"))
        );
        assert_eq!(head.pod, heads::pods(space, "small").await[0].name_any());
        assert_eq!(status.blocks.len(), 1);
        assert_eq!(status.blocks[0].state, BlockState::Succeeded);
        assert!(status.started_at.unwrap() <= status.finished_at.unwrap());
        assert!(status.duration_millis.is_some() && status.duration.is_some());
        assert_eq!(receipt.name_any(), names_of_receipt(&done));
        assert!(receipt.spec.mu.is_some(), "a small document is mirrored");
        assert_eq!(runs::receipts(space, &done).await.len(), 1);
    })
    .await;
}

fn names_of_receipt(workflow: &MamlWorkflow) -> String {
    let uid = workflow.uid().unwrap();
    let rerun = workflow
        .annotations()
        .get(names::RERUN_ANNOTATION)
        .map(String::as_str);
    let key = names::RunKey {
        uid: &uid,
        generation: workflow.metadata.generation.unwrap(),
        rerun,
    };
    key.receipt_name(&workflow.name_any())
}

#[tokio::test]
async fn inputs_come_from_the_spec_with_the_documents_defaults() {
    in_namespace("inputs", async |space| {
        heads::start(space, heads::small("small")).await;
        let done = runs::run(space, sample("inputs")).await;
        runs::assert_succeeded(space, &done).await;
        let outputs = runs::status(&done).outputs.unwrap();
        let scaled: Vec<_> = outputs["scaled"]
            .as_array()
            .unwrap()
            .iter()
            .map(|value| value.as_f64().unwrap())
            .collect();
        assert_eq!(scaled, [2.0, 5.0, 8.0]);
        assert_eq!(outputs["mean"].as_f64(), Some(5.0));
    })
    .await;
}

#[tokio::test]
async fn inputs_that_break_their_schema_are_refused_with_the_member() {
    in_namespace("bad-inputs", async |space| {
        let mut workflow = sample("inputs");
        workflow
            .spec
            .inputs
            .insert("readings".to_owned(), json!(["warm"]));
        let done = runs::run(space, workflow).await;
        runs::assert_failed(space, &done, reasons::INPUTS_INVALID).await;
        let accepted = runs::condition(&done, ACCEPTED);
        assert_eq!(accepted.status, ConditionStatus::False);
        assert!(accepted.message.contains("/readings/0"), "{}", accepted.message);
    })
    .await;
}

#[tokio::test]
async fn a_document_may_come_from_a_config_map_that_appears_later() {
    in_namespace("late-source", async |space| {
        heads::start(space, heads::small("small")).await;
        space.create_object(&sample("configmap")).await;
        let waiting = runs::says_why(space, "configmap", ACCEPTED, reasons::SOURCE_NOT_FOUND).await;
        let accepted = runs::condition(&waiting, ACCEPTED);
        assert_eq!(accepted.status, ConditionStatus::Unknown);
        assert!(
            accepted.message.contains("ConfigMap documents"),
            "{}",
            accepted.message
        );

        // The map alone is not enough: the key counts.
        let mut map: ConfigMap = samples::object("configmap", "ConfigMap");
        let text = map.data.take();
        space.create_object(&map).await;
        wait::until(
            &space.api::<MamlWorkflow>(),
            "configmap",
            "the missing key is named",
            |workflow| {
                runs::condition(workflow, ACCEPTED)
                    .message
                    .contains("no key words.maml.md")
            },
        )
        .await;
        assert!(
            space
                .api::<MuReceipt>()
                .list(&ListParams::default())
                .await
                .unwrap()
                .items
                .is_empty()
        );

        let change = kube::api::Patch::Merge(json!({"data": text}));
        space
            .api::<ConfigMap>()
            .patch("documents", &kube::api::PatchParams::default(), &change)
            .await
            .unwrap();
        let done = runs::complete(space, "configmap").await;
        runs::assert_succeeded(space, &done).await;
        let outputs = json!({"count": 7, "longest": "receipt"});
        assert_eq!(
            runs::status(&done).outputs.map(serde_json::Value::Object),
            Some(outputs)
        );
    })
    .await;
}

#[tokio::test]
async fn a_faulty_document_is_refused_with_line_and_column_and_nothing_runs() {
    in_namespace("refused", async |space| {
        // There is no head here at all.
        let done = runs::run(space, sample("refused")).await;
        let receipt = runs::assert_failed(space, &done, reasons::DOCUMENT_INVALID).await;
        let accepted = runs::condition(&done, ACCEPTED);
        assert_eq!(
            (accepted.status, accepted.reason.as_str()),
            (ConditionStatus::False, reasons::DOCUMENT_INVALID)
        );
        assert!(
            accepted.message.starts_with("2:15: ") && accepted.message.contains("MAML012"),
            "{}",
            accepted.message
        );
        let scheduled = runs::condition(&done, SCHEDULED);
        assert_eq!(
            (scheduled.status, scheduled.reason.as_str()),
            (ConditionStatus::False, reasons::NOT_SCHEDULED)
        );

        let status = runs::status(&done);
        let first = &status.diagnostics[0];
        assert_eq!(
            (first.code.as_str(), first.line, first.column),
            ("MAML012", Some(2), Some(15))
        );
        assert!(
            status.head.is_none() && status.blocks.is_empty() && status.started_at.is_none(),
            "something ran"
        );
        let error = receipt.spec.error.unwrap();
        assert_eq!(
            (error.code.as_deref(), error.line, error.column),
            (Some("MAML012"), Some(2), Some(15))
        );
        assert_eq!(
            (
                receipt.spec.workflow_ref.attempt,
                receipt.spec.head,
                receipt.spec.outputs_digest
            ),
            (0, None, None)
        );

        // A corrected spec is a new run with a receipt of its own; the refusal stays on record.
        heads::start(space, heads::small("small")).await;
        let text = done.spec.source.inline.clone().unwrap().replace("9.0.0", "2.0.0");
        runs::patch(space, "refused", json!({"spec": {"source": {"inline": text}}})).await;
        let healed = runs::complete(space, "refused").await;
        runs::assert_succeeded(space, &healed).await;
        assert!(runs::status(&healed).diagnostics.is_empty());
        assert_eq!(runs::receipts(space, &healed).await.len(), 2);
    })
    .await;
}

#[tokio::test]
async fn a_document_runs_only_for_the_agents_that_it_names() {
    in_namespace("agents", async |space| {
        heads::start(space, heads::small("small")).await;
        let document = documents::small().execute(&["agent://alpha"]);
        for (name, act_as) in [("nobody", None), ("beta", Some("agent://beta"))] {
            let mut workflow = runs::workflow(name, document.clone());
            workflow.spec.act_as = act_as.map(ToOwned::to_owned);
            let done = runs::run(space, workflow).await;
            runs::assert_failed(space, &done, reasons::NOT_PERMITTED).await;
            let message = runs::condition(&done, ACCEPTED).message;
            assert!(message.contains("agent://alpha"), "{message}");
        }
        let mut workflow = runs::workflow("alpha", document);
        workflow.spec.act_as = Some("agent://alpha".to_owned());
        let done = runs::run(space, workflow).await;
        let receipt = runs::assert_succeeded(space, &done).await;
        assert_eq!(receipt.spec.act_as.as_deref(), Some("agent://alpha"));
    })
    .await;
}

#[tokio::test]
async fn blocks_in_bash_exchange_values_with_python_and_may_fail_where_that_is_allowed() {
    in_namespace("bash", async |space| {
        heads::start(space, heads::small("small")).await;
        let done = runs::run(space, sample("bash")).await;
        runs::assert_succeeded(space, &done).await;
        let status = runs::status(&done);
        let outputs = json!({"total": 3, "distinct": 2, "repeated": 1});
        assert_eq!(status.outputs.map(serde_json::Value::Object), Some(outputs));
        let blocks: Vec<_> = status
            .blocks
            .iter()
            .map(|block| (block.name.as_str(), block.state))
            .collect();
        assert_eq!(
            blocks,
            [
                ("count", BlockState::Succeeded),
                ("extra", BlockState::Failed),
                ("judge", BlockState::Succeeded),
                ("after", BlockState::Skipped)
            ]
        );

        // The specification is strict: inputs that break its precondition fail the run before any block.
        let mut wordless = sample("bash");
        wordless.metadata.name = Some("wordless".to_owned());
        wordless.spec.inputs.insert("words".to_owned(), json!([]));
        let done = runs::run(space, wordless).await;
        runs::assert_failed(space, &done, reasons::VERIFICATION_FAILED).await;
        let message = runs::condition(&done, SUCCEEDED).message;
        assert!(
            message.contains("checks.py") && message.contains("there are no words to count"),
            "{message}"
        );
        assert!(
            runs::status(&done)
                .blocks
                .iter()
                .all(|block| block.state == BlockState::Skipped)
        );
    })
    .await;
}

#[tokio::test]
async fn circuits_in_openqasm_are_counted_on_a_quantum_head() {
    in_namespace("openqasm", async |space| {
        let mut head = heads::small("small");
        head.spec.role = Role::Quantum;
        heads::start(space, head).await;
        let done = runs::run(space, sample("openqasm")).await;
        runs::assert_succeeded(space, &done).await;
        let outputs = runs::status(&done).outputs.unwrap();
        assert_eq!(outputs["total"], json!(400));
    })
    .await;
}

#[tokio::test]
async fn a_document_waits_for_a_head_that_runs_its_language() {
    in_namespace("language", async |space| {
        heads::start(space, heads::small("small")).await;
        let document = documents::small().text().replace(
            "## Output_Schema",
            "```javascript\noutputs.more = 1;\n```\n\n## Output_Schema",
        );
        space.create_object(&runs::workflow("script", document)).await;
        let waiting = runs::says_why(space, "script", SCHEDULED, reasons::NO_HEAD).await;
        let message = runs::condition(&waiting, SCHEDULED).message;
        assert!(message.contains("the language javascript"), "{message}");
    })
    .await;
}

#[tokio::test]
async fn specifications_may_lie_beside_the_document_in_its_config_map() {
    in_namespace("beside", async |space| {
        heads::start(space, heads::small("small")).await;
        let document = documents::small().text().replace(
            "---\n\n## Intent",
            "verification:\n  level: strict\n  spec_files: [beside.py]\n---\n\n## Intent",
        );
        let mut map: ConfigMap = samples::object("configmap", "ConfigMap");
        map.metadata.name = Some("verified".to_owned());
        map.data = Some([("document.maml.md".to_owned(), document)].into());
        space.create_object(&map).await;
        let workflow = |name: &str| {
            let mut workflow = sample("configmap");
            workflow.metadata.name = Some(name.to_owned());
            let reference = workflow.spec.source.config_map_ref.as_mut().unwrap();
            reference.name = "verified".to_owned();
            reference.key = "document.maml.md".to_owned();
            workflow
        };
        let done = runs::run(space, workflow("without")).await;
        runs::assert_failed(space, &done, reasons::SPECIFICATION_NOT_FOUND).await;
        assert!(runs::condition(&done, ACCEPTED).message.contains("beside.py"));

        for (name, code, reason) in [
            (
                "holds",
                "def post(outputs):\n    assert outputs['answer'] == 42\n",
                None,
            ),
            (
                "fails",
                "def post(outputs):\n    assert outputs['answer'] == 43\n",
                Some(reasons::VERIFICATION_FAILED),
            ),
        ] {
            let change = kube::api::Patch::Merge(json!({"data": {"beside.py": code}}));
            space
                .api::<ConfigMap>()
                .patch("verified", &kube::api::PatchParams::default(), &change)
                .await
                .unwrap();
            let done = runs::run(space, workflow(name)).await;
            let receipt = match reason {
                None => runs::assert_succeeded(space, &done).await,
                Some(reason) => runs::assert_failed(space, &done, reason).await,
            };
            let envelope: serde_json::Value = serde_json::from_str(&receipt.spec.envelope).unwrap();
            let payload = STANDARD.decode(envelope["payload"].as_str().unwrap()).unwrap();
            let statement: serde_json::Value = serde_json::from_slice(&payload).unwrap();
            let dependencies = &statement["predicate"]["buildDefinition"]["resolvedDependencies"];
            assert!(
                dependencies
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|one| one["name"] == "specification/beside.py"),
                "the receipt names the specification"
            );
        }
    })
    .await;
}

#[tokio::test]
async fn outputs_that_break_their_schema_fail_the_run() {
    in_namespace("schema-break", async |space| {
        heads::start(space, heads::small("small")).await;
        let done = runs::run(space, sample("schema-break")).await;
        runs::assert_failed(space, &done, reasons::OUTPUTS_INVALID).await;
        let message = runs::condition(&done, SUCCEEDED).message;
        assert!(message.contains("/total"), "{message}");
        assert!(
            runs::status(&done).outputs.is_none(),
            "outputs that break their schema are not shown"
        );
    })
    .await;
}

#[tokio::test]
async fn an_error_of_the_program_is_told_with_its_line() {
    in_namespace("program-error", async |space| {
        heads::start(space, heads::small("small")).await;
        let document = Document::python("first = 1\nraise ValueError('no such luck')").text();
        let line = 1 + document
            .lines()
            .position(|line| line.starts_with("raise "))
            .unwrap();
        let done = runs::run(space, runs::workflow("error", document)).await;
        let receipt = runs::assert_failed(space, &done, reasons::PROGRAM_FAILED).await;
        let message = runs::condition(&done, SUCCEEDED).message;
        assert!(message.contains("ValueError: no such luck"), "{message}");
        assert_eq!(receipt.spec.error.unwrap().line, i32::try_from(line).ok());
        let status = runs::status(&done);
        assert_eq!(status.blocks[0].state, BlockState::Failed);
        assert!(
            status.attempts.is_empty(),
            "a program's own error is not tried again"
        );
    })
    .await;
}

#[tokio::test]
async fn an_endless_document_times_out_and_its_head_takes_the_next() {
    in_namespace("endless", async |space| {
        let mut head = heads::small("small");
        head.spec.workers.warm = 1;
        heads::start(space, head).await;
        let before = heads::fingerprint(space, "small").await;
        let mut workflow = sample("endless");
        workflow.spec.timeout_seconds = 2;
        let done = runs::run(space, workflow).await;
        runs::assert_failed(space, &done, reasons::TIMED_OUT).await;
        assert!(runs::status(&done).duration_millis.unwrap() >= 2000);

        let next = runs::run(space, runs::workflow("next", documents::small())).await;
        runs::assert_succeeded(space, &next).await;
        assert_eq!(runs::status(&next).head, runs::status(&done).head);
        let head = heads::ready(space, "small").await;
        assert_eq!(head.status.unwrap().regenerations, 0);
        assert_eq!(heads::fingerprint(space, "small").await, before);
    })
    .await;
}

#[tokio::test]
async fn another_rerun_annotation_is_another_run_with_its_own_receipt() {
    in_namespace("rerun", async |space| {
        heads::start(space, heads::small("small")).await;
        let first = runs::run(space, runs::workflow("again", documents::small())).await;
        let one = runs::assert_succeeded(space, &first).await;
        runs::annotate(space, "again", names::RERUN_ANNOTATION, "1").await;
        let second = runs::complete(space, "again").await;
        let two = runs::assert_succeeded(space, &second).await;
        assert_ne!(one.name_any(), two.name_any());
        assert_ne!(one.spec.run_id, two.spec.run_id);
        assert_eq!(one.spec.document_digest, two.spec.document_digest);
        let mut names: Vec<_> = runs::receipts(space, &second)
            .await
            .iter()
            .map(ResourceExt::name_any)
            .collect();
        let mut expected = vec![one.name_any(), two.name_any()];
        names.sort();
        expected.sort();
        assert_eq!(names, expected);
    })
    .await;
}

#[tokio::test]
async fn a_suspended_run_begins_when_it_is_resumed() {
    in_namespace("suspend", async |space| {
        heads::start(space, heads::small("small")).await;
        let mut workflow = runs::workflow("later", documents::small());
        workflow.spec.suspend = true;
        space.create_object(&workflow).await;
        let waiting = runs::says_why(space, "later", READY, reasons::SUSPENDED).await;
        assert_eq!(runs::condition(&waiting, READY).status, ConditionStatus::False);
        assert!(runs::status(&waiting).head.is_none() && runs::receipts(space, &waiting).await.is_empty());
        runs::patch(space, "later", json!({"spec": {"suspend": false}})).await;
        let done = runs::complete(space, "later").await;
        runs::assert_succeeded(space, &done).await;
    })
    .await;
}

#[tokio::test]
async fn a_cancelled_run_ends_at_once_and_frees_its_head() {
    in_namespace("cancel", async |space| {
        let mut head = heads::small("small");
        head.spec.workers.warm = 1;
        heads::start(space, head).await;
        let before = heads::fingerprint(space, "small").await;
        space
            .create_object(&runs::workflow("long", documents::lasting(3600)))
            .await;
        runs::running(space, "long").await;
        // The only place is taken: this one waits until the other is cancelled, and says so.
        space
            .create_object(&runs::workflow("next", documents::small()))
            .await;
        runs::says_why(space, "next", SCHEDULED, reasons::HEADS_BUSY).await;
        runs::annotate(space, "long", names::CANCEL_ANNOTATION, "true").await;
        let done = runs::complete(space, "long").await;
        runs::assert_failed(space, &done, reasons::CANCELLED).await;
        let next = runs::complete(space, "next").await;
        runs::assert_succeeded(space, &next).await;
        assert_eq!(heads::fingerprint(space, "small").await, before);
    })
    .await;
}

#[tokio::test]
async fn without_a_head_a_run_says_what_it_waits_for_and_gives_up_at_its_deadline() {
    in_namespace("no-head", async |space| {
        let mut workflow = runs::workflow("lonely", documents::small());
        workflow.spec.pending_deadline_seconds = Some(3);
        space.create_object(&workflow).await;
        let waiting = runs::says_why(space, "lonely", SCHEDULED, reasons::NO_HEAD).await;
        let message = runs::condition(&waiting, SCHEDULED).message;
        assert!(message.contains("create a ChimeraHead"), "{message}");
        let done = runs::complete(space, "lonely").await;
        runs::assert_failed(space, &done, reasons::PENDING_DEADLINE_EXCEEDED).await;
    })
    .await;
}

#[tokio::test]
async fn a_finished_workflow_is_deleted_after_its_time_and_its_receipt_stays() {
    in_namespace("ttl", async |space| {
        let mut workflow = runs::workflow("brief", documents::refused(""));
        workflow.spec.ttl_seconds_after_finished = Some(0);
        let created = space.create_object(&workflow).await;
        wait::until_gone(&space.api::<MamlWorkflow>(), "brief").await;
        let receipts = runs::receipts(space, &created).await;
        assert_eq!(receipts.len(), 1);
        assert_eq!(receipts[0].name_any(), names_of_receipt(&created));
    })
    .await;
}

#[tokio::test]
async fn a_document_that_asks_for_a_gpu_gets_a_head_that_has_one() {
    in_namespace("gpu", async |space| {
        heads::start(space, heads::small("plain")).await;
        // Pinned to no role, so that only the missing GPU keeps it from the plain head.
        space
            .create_object(&runs::workflow("waits", documents::small().on_gpu()))
            .await;
        runs::says_why(space, "waits", SCHEDULED, reasons::WAITING_FOR_GPU).await;

        let mut head: ChimeraHead = samples::object("gpu", "ChimeraHead");
        head.spec.resources = heads::small("small").spec.resources;
        let head = heads::start(space, head).await;
        assert_eq!(head.status.unwrap().gpus, 1);
        let done = runs::run(space, sample("gpu")).await;
        let receipt = runs::assert_succeeded(space, &done).await;
        let status = runs::status(&done);
        assert_eq!(
            (status.gpus, status.outputs.unwrap()["trace"].as_i64()),
            (Some(1), Some(204))
        );
        let assigned = status.head.unwrap();
        assert_eq!(assigned.name, "inference");
        assert_eq!(assigned.devices.len(), 1);
        assert!(assigned.devices[0].starts_with("GPU-"), "{:?}", assigned.devices);
        assert!(receipt.spec.gpu_seconds > 0.0, "a GPU was held");
        assert_eq!(status.gpu_seconds, Some(receipt.spec.gpu_seconds));
        let waited = runs::complete(space, "waits").await;
        runs::assert_succeeded(space, &waited).await;
    })
    .await;
}

#[tokio::test]
async fn a_bell_circuit_counts_only_equal_bits() {
    in_namespace("bell", async |space| {
        let mut head = heads::small("quantum");
        head.spec.workers.preload = ["numpy", "qiskit", "qiskit_aer"].map(ToOwned::to_owned).to_vec();
        heads::start(space, head).await;
        let done = runs::run(space, sample("bell")).await;
        runs::assert_succeeded(space, &done).await;
        let outputs = runs::status(&done).outputs.unwrap();
        let counts = outputs["quantum_counts"].as_object().unwrap();
        assert!(
            counts.keys().all(|bits| bits == "00" || bits == "11"),
            "{counts:?}"
        );
        // One of 2^1023 correct runs would count only one of the two.
        assert_eq!(counts.len(), 2, "{counts:?}");
        assert_eq!(
            counts.values().filter_map(serde_json::Value::as_i64).sum::<i64>(),
            1024
        );
        assert_eq!(runs::status(&done).blocks.len(), 2);
    })
    .await;
}

#[tokio::test]
async fn a_run_goes_only_to_heads_of_its_role_and_labels() {
    in_namespace("placement", async |space| {
        let mut labelled = heads::small("labelled");
        labelled.metadata.labels = Some([("zone".to_owned(), "a".to_owned())].into());
        let mut crypto = heads::small("crypto");
        crypto.spec.role = Role::Crypto;
        heads::start(space, labelled).await;
        heads::start(space, crypto).await;

        let mut by_role = runs::workflow("by-role", documents::small());
        by_role.spec.role = Some(Role::Crypto);
        let mut by_label = runs::workflow("by-label", documents::small());
        let labels = [("zone".to_owned(), "a".to_owned())].into();
        by_label.spec.head_selector = Some(api::maml_workflow::HeadSelector { match_labels: labels });
        let by_document = runs::workflow(
            "by-document",
            documents::small().execute(&["gateway://chimera-head-2"]),
        );
        for (workflow, head) in [
            (by_role, "crypto"),
            (by_label, "labelled"),
            (by_document, "crypto"),
        ] {
            let done = runs::run(space, workflow).await;
            runs::assert_succeeded(space, &done).await;
            assert_eq!(
                runs::status(&done).head.unwrap().name,
                head,
                "{}",
                done.name_any()
            );
        }
    })
    .await;
}

#[tokio::test]
async fn faulty_and_huge_objects_delay_nobody() {
    in_namespace("crowd", async |space| {
        heads::start(space, heads::small("small")).await;
        let huge = documents::refused(&"All work and no play makes a dull document.\n".repeat(20_000));
        assert!(huge.len() > 800_000);
        let faulty = (0..50).map(|index| runs::workflow(&format!("faulty-{index}"), documents::refused("")));
        let crowd: Vec<_> = faulty.chain([runs::workflow("huge", huge)]).collect();
        let crowd = join_all(crowd.iter().map(|workflow| space.create_object(workflow))).await;
        let good = runs::run(space, runs::workflow("good", documents::small())).await;
        runs::assert_succeeded(space, &good).await;
        for workflow in crowd {
            let done = runs::complete(space, &workflow.name_any()).await;
            runs::assert_failed(space, &done, reasons::DOCUMENT_INVALID).await;
        }
    })
    .await;
}
