//! What reconciles may use, in tests: a client of a [recorded server](crate::recorded_server), and clocks of the test's own.

use std::sync::{Arc, OnceLock};

use api::ChimeraHead;
use clap::Parser as _;
use controller_core::head_pod::Template;
use crypto::VerifyingKey;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Client, Resource,
    runtime::{
        reflector::{Store, store},
        watcher,
    },
};

use crate::{
    certificates::{Authority, Pair},
    claims::Claims,
    clock::{self, Clock},
    context::{Context, Remembered, Scope},
    events::Events,
    fleet::Fleet,
    identity::Identities,
    keys::entropy::KeyMaker,
    keys::keyring::Keyring,
    metrics::Metrics,
    runs::Runs,
    settings::Settings,
    triggers::Triggers,
};

/// What a process has when it begins: nothing that another one remembered.
pub fn context(client: &Client) -> Arc<Context> {
    process(client, 7, None, Clock::default())
}

/// A process of this term, whose root may be offline.
pub fn process(
    client: &Client,
    fencing_token: u64,
    offline_root: Option<VerifyingKey>,
    clock: Clock,
) -> Arc<Context> {
    static PAIR: OnceLock<Pair> = OnceLock::new();
    let now = clock::now();
    let pair = PAIR.get_or_init(|| Authority::generate(now).expect("an authority"));
    let authority = Authority::from_pem(&pair.certificate, &pair.private_key).expect("read back");
    let tls = authority.client_config(now).expect("a configuration");
    let triggers = Arc::new(Triggers::default());
    let metrics = Arc::new(Metrics::default());
    let fleet = Fleet::new(Arc::clone(&triggers));
    Arc::new(Context {
        client: client.clone(),
        claims: Arc::new(Claims::inherited(None).expect("none")),
        settings: Settings::parse_from(["chimera-controller", "--namespace", "ops"]),
        runs: Runs::new(Arc::clone(&fleet), Arc::clone(&triggers), Arc::clone(&metrics)),
        key_maker: KeyMaker::new(&[], Arc::clone(&metrics)),
        metrics,
        fleet,
        triggers,
        keyring: Keyring::default(),
        offline_root,
        clock,
        events: Events::start(client.clone(), "test".to_owned()),
        template: Template {
            default_image: "localhost/head:1".to_owned(),
            allowed_images: Vec::new(),
            isolation: "full".into(),
            operator_namespace: "ops".to_owned(),
        },
        identities: Identities::default(),
        authority,
        tls,
        fencing_token,
    })
}

/// The whole cluster, without anything in it.
pub fn scope(context: Arc<Context>) -> Arc<Scope> {
    scope_of(context, Vec::new(), Vec::new())
}

/// A store with these objects in it.
pub fn filled<K>(objects: Vec<K>) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let (reader, mut writer) = store();
    for object in objects {
        writer.apply_watcher_event(&watcher::Event::Apply(object));
    }
    reader
}

/// The whole cluster, in which these heads and pods have been seen.
pub fn scope_of(context: Arc<Context>, heads: Vec<ChimeraHead>, pods: Vec<Pod>) -> Arc<Scope> {
    for head in &heads {
        context.fleet.note(head);
    }
    Arc::new(Scope {
        context,
        workflows: store().0,
        heads: filled(heads),
        pods: filled(pods),
        receipts: store().0,
        refused_pods: Remembered::default(),
        head_policies: Remembered::default(),
        run_network_policies: Remembered::default(),
    })
}
