//! Faults: whatever dies, a run ends with exactly one receipt.
//!
//! These tests disturb all others, so they have a program of their own, which cargo runs alone, and within it they take
//! turns.

#![expect(clippy::unwrap_used, reason = "in a test, a panic is the answer")]

use api::{ChimeraHead, MamlWorkflow, MuReceipt, names, reasons};
use e2e::{Namespace, documents, faults, heads, in_namespace, runs, wait};
use futures::{StreamExt as _, pin_mut};
use k8s_openapi::{
    api::{
        admissionregistration::v1::{
            MatchResources, NamedRuleWithOperations, ValidatingAdmissionPolicy,
            ValidatingAdmissionPolicyBinding, ValidatingAdmissionPolicyBindingSpec,
            ValidatingAdmissionPolicySpec, Validation,
        },
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt as _, watcher},
};
use serde_json::json;
use tokio::{sync::Mutex, time::timeout};

static TURN: Mutex<()> = Mutex::const_new(());

/// Exactly one receipt, and it is of this run.
async fn assert_one_receipt(space: &Namespace, workflow: &MamlWorkflow) -> MuReceipt {
    let receipt = runs::assert_succeeded(space, workflow).await;
    let all = runs::receipts(space, workflow).await;
    assert_eq!(
        all.len(),
        1,
        "{:?}",
        all.iter().map(ResourceExt::name_any).collect::<Vec<_>>()
    );
    assert_eq!(all[0].uid(), receipt.uid());
    receipt
}

#[tokio::test]
async fn an_operator_killed_during_a_run_finds_the_run_again() {
    let _turn = TURN.lock().await;
    in_namespace("killed-running", async |space| {
        faults::fresh_operator(&space.client).await;
        heads::start(space, heads::small("small")).await;
        space
            .create_object(&runs::workflow("steady", documents::lasting(3)))
            .await;
        let victim = faults::Victim::operator(&space.client).await;
        let before = runs::running(space, "steady").await;
        runs::printed(space, &before, "begun").await;
        victim.kill().await;
        let done = runs::complete(space, "steady").await;
        assert_one_receipt(space, &done).await;
        let (before, after) = (runs::status(&before), runs::status(&done));
        assert_eq!(
            (after.attempt, &after.attempts),
            (Some(1), &Vec::new()),
            "the run was started again"
        );
        assert_eq!((before.run_id, before.head), (after.run_id, after.head));
    })
    .await;
}

/// Of a run that has just begun the Lease alone tells.
#[tokio::test]
async fn an_operator_killed_before_a_status_tells_of_a_run_finds_it_again() {
    let _turn = TURN.lock().await;
    in_namespace("killed-untold", async |space| {
        faults::fresh_operator(&space.client).await;
        heads::start(space, heads::small("small")).await;
        let victim = faults::Victim::operator(&space.client).await;
        let created = space
            .create_object(&runs::workflow("steady", documents::lasting(3)))
            .await;
        let (run_id, pod) = faults::claimed(&space.client, &created).await;
        runs::printed_by(space, &pod, &run_id, "begun").await;
        victim.kill().await;
        let done = runs::complete(space, "steady").await;
        assert_one_receipt(space, &done).await;
        let status = runs::status(&done);
        assert_eq!((status.attempt, &status.attempts), (Some(1), &Vec::new()));
        assert_eq!(
            (status.run_id, status.head.map(|head| head.pod)),
            (Some(run_id), Some(pod))
        );
    })
    .await;
}

#[tokio::test]
async fn an_operator_replaced_during_a_run_hands_the_run_over() {
    let _turn = TURN.lock().await;
    in_namespace("replaced", async |space| {
        heads::start(space, heads::small("small")).await;
        space
            .create_object(&runs::workflow("steady", documents::lasting(3)))
            .await;
        let before = runs::running(space, "steady").await;
        runs::printed(space, &before, "begun").await;
        faults::fresh_operator(&space.client).await;
        let done = runs::complete(space, "steady").await;
        assert_one_receipt(space, &done).await;
        assert_eq!(
            runs::status(&done).run_id,
            runs::status(&before).run_id,
            "the run was started again"
        );
    })
    .await;
}

/// Killed as soon as the Lease tells of the claim: the head may or may not have been asked already. Either is fine.
#[tokio::test]
async fn an_operator_killed_between_claim_and_start_loses_no_run() {
    let _turn = TURN.lock().await;
    in_namespace("killed-claiming", async |space| {
        heads::start(space, heads::small("small")).await;
        for round in 1..=3 {
            faults::fresh_operator(&space.client).await;
            let name = format!("round-{round}");
            let victim = faults::Victim::operator(&space.client).await;
            let created = space
                .create_object(&runs::workflow(&name, documents::small()))
                .await;
            faults::claimed(&space.client, &created).await;
            victim.kill().await;
            let done = runs::complete(space, &name).await;
            assert_one_receipt(space, &done).await;
            let status = runs::status(&done);
            assert_eq!(
                usize::try_from(status.attempt.unwrap()).unwrap(),
                status.attempts.len() + 1
            );
        }
    })
    .await;
}

/// The window between the receipt and the status is a millisecond wide. An admission policy that refuses the last
/// status write holds it open for as long as the test wants.
#[tokio::test]
async fn an_operator_killed_between_receipt_and_status_makes_no_second_receipt() {
    let _turn = TURN.lock().await;
    in_namespace("killed-between", async |space| {
        faults::fresh_operator(&space.client).await;
        heads::start(space, heads::small("small")).await;
        let block = Blockade::raise(space).await;
        let created = space
            .create_object(&runs::workflow("between", documents::small()))
            .await;
        let first = first_receipt(space, &created).await;
        faults::Victim::operator(&space.client).await.kill().await;
        let shown = space.api::<MamlWorkflow>().get("between").await.unwrap();
        assert!(
            runs::status(&shown).receipt_ref.is_none(),
            "the status was to be kept back:\n{}",
            wait::yaml(&shown)
        );
        block.lift().await;
        let done = runs::complete(space, "between").await;
        let receipt = assert_one_receipt(space, &done).await;
        assert_eq!(receipt.uid(), first.uid());
        assert_eq!(receipt.spec, first.spec);
    })
    .await;
}

/// The same with the head gone too: the receipt alone is left to tell what happened.
#[tokio::test]
async fn a_receipt_alone_is_enough_to_complete_its_workflow() {
    let _turn = TURN.lock().await;
    in_namespace("receipt-alone", async |space| {
        faults::fresh_operator(&space.client).await;
        heads::start(space, heads::small("small")).await;
        let block = Blockade::raise(space).await;
        let created = space
            .create_object(&runs::workflow("alone", documents::small()))
            .await;
        let first = first_receipt(space, &created).await;
        let pods = heads::pods(space, "small").await;
        space
            .api::<ChimeraHead>()
            .delete("small", &DeleteParams::background())
            .await
            .unwrap();
        for pod in pods {
            wait::until_gone(&space.api::<Pod>(), &pod.name_any()).await;
        }
        faults::Victim::operator(&space.client).await.kill().await;
        block.lift().await;
        let done = runs::complete(space, "alone").await;
        let receipt = assert_one_receipt(space, &done).await;
        assert_eq!(receipt.uid(), first.uid());
    })
    .await;
}

/// Without any help: killed as soon as the receipt is seen, a few times over.
#[tokio::test]
async fn an_operator_killed_as_its_receipt_appears_makes_no_second_one() {
    let _turn = TURN.lock().await;
    in_namespace("killed-at-receipt", async |space| {
        heads::start(space, heads::small("small")).await;
        for round in 1..=3 {
            faults::fresh_operator(&space.client).await;
            // The new operator must be the one that is found, connected to the head and at work.
            runs::run(
                space,
                runs::workflow(&format!("warm-{round}"), documents::small()),
            )
            .await;
            let victim = faults::Victim::operator(&space.client).await;
            let created = space
                .create_object(&runs::workflow(&format!("round-{round}"), documents::small()))
                .await;
            let first = first_receipt(space, &created).await;
            victim.kill().await;
            let done = runs::complete(space, &created.name_any()).await;
            let receipt = assert_one_receipt(space, &done).await;
            assert_eq!(receipt.uid(), first.uid());
        }
    })
    .await;
}

#[tokio::test]
async fn a_run_whose_head_is_lost_is_tried_again_on_another() {
    let _turn = TURN.lock().await;
    in_namespace("lost-head", async |space| {
        let mut head = heads::small("pair");
        head.spec.replicas = 2;
        heads::start(space, head).await;
        space
            .create_object(&runs::workflow("moved", documents::lasting(8)))
            .await;
        let running = runs::running(space, "moved").await;
        let lost = runs::status(&running).head.unwrap();
        let pod = space.api::<Pod>().get(&lost.pod).await.unwrap();
        faults::delete_by_force(&space.client, &pod).await;

        let done = runs::complete(space, "moved").await;
        let receipt = assert_one_receipt(space, &done).await;
        let status = runs::status(&done);
        assert_eq!((status.attempt, receipt.spec.workflow_ref.attempt), (Some(2), 2));
        assert_ne!(status.head.unwrap().uid, lost.uid);
        assert_eq!(status.attempts.len(), 1);
        let attempt = &status.attempts[0];
        assert_eq!(
            (attempt.attempt, attempt.pod.as_deref()),
            (1, Some(lost.pod.as_str()))
        );
        assert_eq!(attempt.reason, reasons::HEAD_LOST);

        let healed = heads::ready(space, "pair").await.status.unwrap();
        assert_eq!(healed.regenerations, 1);
        assert_eq!(healed.last_regenerations.last().unwrap().pod, lost.pod);
    })
    .await;
}

#[tokio::test]
async fn a_run_that_loses_every_head_ends_with_an_error_receipt() {
    let _turn = TURN.lock().await;
    in_namespace("lost-for-good", async |space| {
        heads::start(space, heads::small("single")).await;
        let mut workflow = runs::workflow("once", documents::lasting(3600));
        workflow.spec.infrastructure_retries = 0;
        space.create_object(&workflow).await;
        let running = runs::running(space, "once").await;
        let pod = space
            .api::<Pod>()
            .get(&runs::status(&running).head.unwrap().pod)
            .await
            .unwrap();
        faults::delete_by_force(&space.client, &pod).await;
        let done = runs::complete(space, "once").await;
        runs::assert_failed(space, &done, reasons::HEAD_LOST).await;
        assert_eq!(runs::receipts(space, &done).await.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_spare_takes_over_from_a_lost_pod() {
    let _turn = TURN.lock().await;
    in_namespace("spare", async |space| {
        let mut head = heads::small("spared");
        head.spec.spares = 1;
        heads::start(space, head).await;
        let pods = heads::pods(space, "spared").await;
        let is_spare = |pod: &Pod| pod.labels().get(names::SPARE_LABEL).map(String::as_str) == Some("true");
        let (spare, active): (Vec<_>, Vec<_>) = pods.into_iter().partition(is_spare);
        assert_eq!((spare.len(), active.len()), (1, 1));
        faults::delete_by_force(&space.client, &active[0]).await;
        wait::until(
            &space.api::<Pod>(),
            &spare[0].name_any(),
            "the spare serves",
            |pod| !is_spare(pod),
        )
        .await;
        let done = runs::run(space, runs::workflow("after", documents::small())).await;
        runs::assert_succeeded(space, &done).await;
        let status = heads::ready(space, "spared").await.status.unwrap();
        assert_eq!(
            (status.ready_replicas, status.spares, status.regenerations),
            (1, 1, 1)
        );
    })
    .await;
}

#[tokio::test]
async fn a_broken_gpu_costs_the_pod_that_has_it_and_no_other() {
    if !e2e::cluster::is_local() {
        eprintln!("nothing to break: only the local cluster's device plugin obeys a test");
        return;
    }
    let _turn = TURN.lock().await;
    in_namespace("broken-gpu", async |space| {
        heads::start(space, heads::small("plain")).await;
        let plain = heads::fingerprint(space, "plain").await;
        heads::start(space, heads::with_gpu("gpu")).await;
        let first = runs::run(space, runs::workflow("first", documents::small().on_gpu())).await;
        runs::assert_succeeded(space, &first).await;
        let before = runs::status(&first).head.unwrap();
        let broken = faults::BrokenDevice::begin(&before.devices[0]);
        let replaced = wait::until(
            &space.api::<ChimeraHead>(),
            "gpu",
            "its pod was replaced",
            |head| {
                head.status
                    .as_ref()
                    .is_some_and(|status| status.regenerations > 0)
            },
        )
        .await;
        let status = replaced.status.unwrap();
        let last = status.last_regenerations.last().unwrap();
        assert_eq!(
            (last.pod.as_str(), last.reason.as_str()),
            (before.pod.as_str(), reasons::GPU_UNHEALTHY)
        );
        let second = runs::run(space, runs::workflow("second", documents::small().on_gpu())).await;
        drop(broken);
        runs::assert_succeeded(space, &second).await;
        let after = runs::status(&second).head.unwrap();
        assert_ne!(after.devices, before.devices);
        assert_eq!(heads::fingerprint(space, "plain").await, plain);
    })
    .await;
}

/// The first receipt of a workflow, as soon as a watch shows it.
async fn first_receipt(space: &Namespace, workflow: &MamlWorkflow) -> MuReceipt {
    let which = format!("{}={}", names::WORKFLOW_UID_LABEL, workflow.uid().unwrap());
    let stream = watcher(
        space.api::<MuReceipt>(),
        watcher::Config::default().labels(&which),
    )
    .applied_objects();
    pin_mut!(stream);
    let receipt = timeout(wait::DEADLINE, stream.next())
        .await
        .expect("a receipt within the deadline");
    receipt.expect("the watch goes on").expect("the watch works")
}

/// Keeps the operator from writing a receipt's name into the status of any workflow of one namespace.
struct Blockade<'a> {
    space: &'a Namespace,
}

const METADATA_NAME: &str = "kubernetes.io/metadata.name";

impl<'a> Blockade<'a> {
    async fn raise(space: &'a Namespace) -> Self {
        let name = &space.name;
        let metadata = ObjectMeta {
            name: Some(name.clone()),
            ..ObjectMeta::default()
        };
        let policy = ValidatingAdmissionPolicy {
            metadata: metadata.clone(),
            spec: Some(ValidatingAdmissionPolicySpec {
                failure_policy: Some("Fail".to_owned()),
                match_constraints: Some(MatchResources {
                    resource_rules: Some(vec![NamedRuleWithOperations {
                        api_groups: Some(vec![names::GROUP.to_owned()]),
                        api_versions: Some(vec!["*".to_owned()]),
                        operations: Some(vec!["UPDATE".to_owned()]),
                        resources: Some(vec!["mamlworkflows/status".to_owned()]),
                        ..NamedRuleWithOperations::default()
                    }]),
                    ..MatchResources::default()
                }),
                validations: Some(vec![Validation {
                    expression: "!has(object.status) || !has(object.status.receiptRef)".to_owned(),
                    message: Some("this test keeps receipts out of statuses".to_owned()),
                    ..Validation::default()
                }]),
                ..ValidatingAdmissionPolicySpec::default()
            }),
            ..ValidatingAdmissionPolicy::default()
        };
        let here = LabelSelector {
            match_labels: Some([(METADATA_NAME.to_owned(), name.clone())].into()),
            ..LabelSelector::default()
        };
        let binding = ValidatingAdmissionPolicyBinding {
            metadata,
            spec: ValidatingAdmissionPolicyBindingSpec {
                policy_name: name.clone(),
                match_resources: Some(MatchResources {
                    namespace_selector: Some(here),
                    ..MatchResources::default()
                }),
                validation_actions: vec!["Deny".to_owned()],
                ..ValidatingAdmissionPolicyBindingSpec::default()
            },
        };
        let post = PostParams::default();
        // A former test that failed may have left them; they are named after the namespace, which is new.
        let blockade = Self { space };
        blockade.clear().await;
        Api::all(space.client.clone())
            .create(&post, &policy)
            .await
            .unwrap();
        Api::all(space.client.clone())
            .create(&post, &binding)
            .await
            .unwrap();
        blockade.until_in_force().await;
        blockade
    }

    /// The API server reads new policies in its own time.
    async fn until_in_force(&self) {
        let mut probe = runs::workflow("probe", documents::small());
        probe.spec.suspend = true;
        self.space.create_object(&probe).await;
        let api = self.space.api::<MamlWorkflow>();
        let how = PatchParams {
            dry_run: true,
            ..PatchParams::default()
        };
        let write = json!({"status": {"receiptRef": {"name": "none", "uid": "none"}}});
        wait::until_answered("the blockade is in force", async || {
            api.patch_status("probe", &how, &Patch::Merge(&write))
                .await
                .is_err()
        })
        .await;
    }

    async fn lift(self) {
        self.clear().await;
    }

    async fn clear(&self) {
        let (client, name, how) = (&self.space.client, &self.space.name, DeleteParams::default());
        let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(client.clone());
        let policies: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
        for result in [
            bindings.delete(name, &how).await.map(|_| ()),
            policies.delete(name, &how).await.map(|_| ()),
        ] {
            match result {
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                other => other.unwrap(),
            }
        }
    }
}
