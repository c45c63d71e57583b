//! One head and its controller's side: keys, certificates, grants, a client.

use crypto::attestation::{Attestation, Outcome, Unit};
use crypto::grant::{self, Grant, HeadIdentity, WorkflowRef};
use crypto::{DigestSet, Envelope, KeyPurpose, KeyStatement, SigningKey, Suite, VerifyingKey};
use head::agent::Agent;
use head::arguments::Arguments;
use head::server;
use head::tls::Identity;
use head_proto::head_client::HeadClient;
use head_proto::run_event::Event;
use head_proto::{Finished, HeadStatus, RunEvent, RunRequest, WatchRequest, output};
use hyper_util::rt::TokioIo;
use jiff::{SignedDuration, Timestamp};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustix::fs::{Dir, Mode, OFlags};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

pub const PATIENCE: Duration = Duration::from_mins(1);

/// A CA as the controller has one.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(vec![]).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(DnType::CommonName, "heads");
        let pem = parameters.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(parameters, key),
            pem,
        }
    }

    pub fn issue(&self, name: &str, usage: ExtendedKeyUsagePurpose) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(vec![name.to_owned()]).unwrap();
        parameters.extended_key_usages = vec![usage];
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    pub fn client(&self, name: &str) -> (String, String) {
        self.issue(name, ExtendedKeyUsagePurpose::ClientAuth)
    }
}

pub struct Testbed {
    pub agent: Arc<Agent>,
    pub client: HeadClient<Channel>,
    pub address: SocketAddr,
    pub authority: Authority,
    pub root: SigningKey,
    pub signing: SigningKey,
    pub statement: Envelope,
    pub attester: VerifyingKey,
    pub identity: PathBuf,
    pub runs: PathBuf,
    folder: TempDir,
    next: AtomicU32,
}

/// A run that is over.
#[derive(Debug)]
pub struct Ran {
    pub events: Vec<RunEvent>,
    pub attestation: Attestation,
    pub outputs: Value,
}

impl Ran {
    pub fn error(&self) -> &crypto::attestation::RunError {
        self.attestation.error.as_ref().expect("the run failed")
    }

    pub fn printed(&self) -> String {
        let stdout = i32::from(output::Stream::Stdout);
        let bytes: Vec<u8> = self
            .events
            .iter()
            .filter_map(|event| match event.event.as_ref()? {
                Event::Output(output) if output.stream == stdout => Some(output.data.clone()),
                _ => None,
            })
            .flatten()
            .collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// Counted without a trace, so that later runs get a folder that was counted.
fn entries(folder: &Path) -> rustix::io::Result<usize> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOATIME;
    let names = Dir::new(rustix::fs::open(folder, flags, Mode::empty())?)?;
    let counted = names.filter(|name| {
        name.as_ref()
            .is_ok_and(|name| ![c".", c".."].contains(&name.file_name()))
    });
    Ok(counted.count())
}

impl Testbed {
    /// What lies in the folder of runs beside folders kept for later ones, which have no more than empty parts in them.
    pub fn left_in_folders(&self) -> Option<PathBuf> {
        let holds_nothing = |folder: &PathBuf| {
            let parts = ["work", "home", "tmp"].map(|part| entries(&folder.join(part)));
            (entries(folder), parts) == (Ok(3), [const { Ok(0) }; 3])
        };
        let mut folders = std::fs::read_dir(&self.runs)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        folders.find(|folder| !holds_nothing(folder))
    }

    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub async fn start_with(more: &[&str]) -> Self {
        let testbed = Self::start_unready(more).await;
        testbed.wait_until(|status| status.ready).await;
        testbed
    }

    /// A head that may not become ready.
    pub async fn start_unready(more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (identity, runs) = (folder.path().join("identity"), folder.path().join("runs"));
        std::fs::create_dir(&identity).unwrap();
        let root = SigningKey::from_seed(Suite::MlDsa87, &[1; 32]).unwrap();
        let signing = SigningKey::from_seed(Suite::MlDsa87, &[2; 32]).unwrap();
        let authority = Authority::new();
        let (certificate, key) = authority.issue("heads.team.chimera", ExtendedKeyUsagePurpose::ServerAuth);
        let files = [
            ("ca.crt", &authority.pem),
            ("tls.crt", &certificate),
            ("tls.key", &key),
            ("root.pem", &root.verifying_key().spki_pem()),
        ];
        for (name, text) in files {
            std::fs::write(identity.join(name), text).unwrap();
        }
        let mut arguments = vec![
            "chimera-head",
            "--pod-uid",
            "pod-uid",
            "--runs",
            runs.to_str().unwrap(),
        ];
        arguments.extend(more);
        let arguments = <Arguments as clap::Parser>::parse_from(arguments);
        let mut setup = arguments.setup(|name| std::env::var_os(name)).unwrap();
        setup.journal = false;
        let opened = Arc::new(Identity::open(&identity).unwrap());
        let agent = Agent::start(setup, opened.clone()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(server::serve(
            listener,
            opened,
            agent.clone(),
            std::future::pending(),
        ));

        let statement = KeyStatement::about(
            signing.verifying_key(),
            KeyPurpose::Signing,
            Timestamp::now() - SignedDuration::from_hours(1),
            None,
            None,
            1,
        );
        let client = connect(address, &authority, &authority.client("controller.chimera"));
        let attester = VerifyingKey::from_spki_der(&agent.status().attester_spki).unwrap();
        Self {
            statement: statement.sign(&root).unwrap(),
            client,
            address,
            authority,
            root,
            signing,
            attester,
            identity,
            runs: runs.canonicalize().unwrap(),
            agent,
            folder,
            next: AtomicU32::new(1),
        }
    }

    pub fn outside(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Follows Watch until `wanted`; what the head says of itself meanwhile is in the failure.
    pub async fn wait_until(&self, wanted: impl Fn(&HeadStatus) -> bool) -> HeadStatus {
        let mut client = self.client.clone();
        let mut last = None;
        let watching = async {
            let request = WatchRequest {
                heartbeat_millis: 200,
            };
            let mut stream = client.watch(request).await.unwrap().into_inner();
            while let Some(status) = stream.message().await.unwrap() {
                if wanted(&status) {
                    return status;
                }
                assert!(
                    !status.message.contains("landlock"),
                    "these tests need a kernel with landlock: {}",
                    status.message
                );
                last = Some((status.ready, status.message));
            }
            panic!("the watch ended");
        };
        let watched = timeout(PATIENCE, watching).await;
        watched.unwrap_or_else(|_| panic!("the head did not get there; last: {last:?}"))
    }

    pub fn grant(&self, document: &str, inputs: &str) -> Grant {
        let now = Timestamp::now();
        Grant {
            type_: grant::TYPE.into(),
            suite: Suite::MlDsa87,
            run_id: format!("{:032x}", self.next.fetch_add(1, Ordering::Relaxed)),
            workflow: WorkflowRef {
                namespace: "team".into(),
                name: "test".into(),
                uid: "workflow-uid".into(),
                generation: 1,
                attempt: 1,
            },
            document: DigestSet::of(document.as_bytes()),
            inputs: DigestSet::of(inputs.as_bytes()),
            sealed_inputs: None,
            specifications: BTreeMap::new(),
            submitter: "ann".into(),
            act_as: None,
            head: HeadIdentity {
                name: "chimera-head-1".into(),
                pod: "head-0".into(),
                uid: "pod-uid".into(),
                node: None,
                attester: self.attester.key_id().clone(),
                attester_public_key: self.attester.spki_pem(),
            },
            isolation: Unit::Process,
            not_before: now,
            expires: now + SignedDuration::from_mins(1),
            timeout_seconds: 30,
            network: false,
            fencing_token: 1,
        }
    }

    pub fn request(&self, grant: &Grant, document: &str, inputs: &str) -> RunRequest {
        RunRequest {
            grant: grant.sign(&self.signing).unwrap().to_json().into_bytes(),
            key_statement: self.statement.to_json().into_bytes(),
            root_statements: Vec::new(),
            document: document.as_bytes().to_vec(),
            inputs: inputs.as_bytes().to_vec(),
            specifications: vec![],
            inputs_blinding: vec![],
        }
    }

    pub async fn send(&self, request: RunRequest) -> Result<Streaming<RunEvent>, Status> {
        Ok(self.client.clone().run(request).await?.into_inner())
    }

    /// Runs code and gives back what its variable `result` was.
    pub async fn run(&self, code: &str, inputs: &str) -> Ran {
        self.run_for(30, code, inputs).await
    }

    pub async fn run_for(&self, seconds: u32, code: &str, inputs: &str) -> Ran {
        let document = document(code);
        let mut grant = self.grant(&document, inputs);
        grant.timeout_seconds = seconds;
        let stream = self.send(self.request(&grant, &document, inputs)).await.unwrap();
        let ran = self.finish(stream).await;
        assert_eq!(ran.attestation.run_id, grant.run_id);
        ran
    }

    /// Reads to the end, checks the attestation as the controller does.
    pub async fn finish(&self, mut stream: Streaming<RunEvent>) -> Ran {
        let mut events = Vec::new();
        let reading = async {
            while let Some(event) = stream.message().await.unwrap() {
                events.push(event);
            }
        };
        timeout(PATIENCE, reading).await.expect("the run ends");
        let numbers: Vec<_> = events.iter().map(|event| event.sequence).collect();
        assert_eq!(numbers, (1..=events.len() as u64).collect::<Vec<_>>());
        let Some(RunEvent {
            event: Some(Event::Finished(finished)),
            ..
        }) = events.last()
        else {
            panic!("the last event is {:?}", events.last());
        };
        let Finished { attestation, outputs } = finished.clone();
        let envelope = Envelope::from_json(&attestation).unwrap();
        let attestation = Attestation::verify(&envelope, &self.attester).unwrap();
        let outputs = match attestation.result {
            Outcome::Success => {
                assert_eq!(attestation.outputs, Some(DigestSet::of(&outputs)));
                serde_json::from_slice(&outputs).unwrap()
            }
            Outcome::Error => Value::Null,
        };
        assert_eq!(attestation.isolation.landlock_abi, *LANDLOCK);
        assert!(attestation.isolation.seccomp);
        Ran {
            events,
            attestation,
            outputs,
        }
    }
}

/// Asked of the kernel itself: the head's own statement would be no witness.
static LANDLOCK: LazyLock<u32> = LazyLock::new(|| {
    let program = "import ctypes; print(ctypes.CDLL(None).syscall(444, None, 0, 1))";
    let output = Command::new("python3").args(["-c", program]).output().unwrap();
    String::from_utf8(output.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap_or(0)
});

/// A document with one block, whose code begins at line 14.
pub fn document(code: &str) -> String {
    format!(
        "---\nmaml_version: \"2.0.0\"\nid: urn:uuid:550e8400-e29b-41d4-a716-446655440000\ntype: workflow\n\
         origin: agent://ann\npermissions: {{execute: ['*']}}\n---\n## Intent\nTest.\n## Context\nNone.\n## Code_Blocks\n```python\n{code}\n```\n\
         ## Output_Schema\n{{\"properties\": {{\"result\": {{}}}}}}\n"
    )
}

/// A client with the given certificate and key.
pub fn connect(
    address: SocketAddr,
    authority: &Authority,
    identity: &(String, String),
) -> HeadClient<Channel> {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap())
        .unwrap();
    let certificate = CertificateDer::from_pem_slice(identity.0.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(identity.1.as_bytes()).unwrap();
    let mut config =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate], key)
            .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let channel = Endpoint::from_static("http://heads.team.chimera").connect_with_connector_lazy(
        tower::service_fn(move |_| {
            let connector = connector.clone();
            async move {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                let name = ServerName::try_from("heads.team.chimera").expect("a DNS name");
                let stream = connector.connect(name, stream).await?;
                let group = stream
                    .get_ref()
                    .1
                    .negotiated_key_exchange_group()
                    .expect("a group")
                    .name();
                assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
                Ok::<_, std::io::Error>(TokioIo::new(stream))
            }
        }),
    );
    HeadClient::new(channel).max_decoding_message_size(64 << 20)
}
