//! The way in: TLS 1.3 with client certificates, for one client alone, the controller.
//!
//! The identity folder is read again for each connection, so that a renewed certificate, another CA or another root is
//! in use at once. Key agreement begins with X25519MLKEM768. Knows nothing of what is said over the connection.

use crypto::VerifyingKey;
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ParsedCertificate, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;

/// The DNS name in the controller's client certificate.
pub const CONTROLLER: &str = "controller.chimera";

const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
const HANDSHAKES_AT_ONCE: usize = 64;

/// Why the identity folder is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file is not PEM of the expected kind.
    #[error("{file} is not PEM of the expected kind")]
    Pem {
        /// The file.
        file: &'static str,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// The CA's certificates cannot be used.
    #[error("trust the CA in ca.crt")]
    Authority(#[source] rustls::Error),
    /// No verifier of client certificates can be made.
    #[error("verify clients by ca.crt")]
    Verifier(#[from] VerifierBuilderError),
    /// Certificate and key do not fit together.
    #[error("use tls.crt with tls.key")]
    Certificate(#[source] rustls::Error),
    /// `root.pem` is not text.
    #[error("root.pem is not text")]
    RootText(#[from] std::string::FromUtf8Error),
    /// `root.pem` is not a public key.
    #[error("read the root key in root.pem")]
    Root(#[source] crypto::key::Error),
}

/// The bytes of `tls.crt`, `tls.key` and `ca.crt`, and what they made.
type Kept = ([Vec<u8>; 3], Arc<ServerConfig>);

/// The folder with `tls.crt`, `tls.key`, `ca.crt` and `root.pem`; what was parsed is kept while its bytes stay the same.
pub struct Identity {
    folder: PathBuf,
    provider: Arc<CryptoProvider>,
    server: Mutex<Option<Kept>>,
    root: Mutex<Option<(Vec<u8>, VerifyingKey)>>,
}

impl Identity {
    /// Reads everything once, so that a broken folder is known at start.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let identity = Self {
            folder: folder.to_owned(),
            provider: Arc::new(aws_lc_rs::default_provider()),
            server: Mutex::new(None),
            root: Mutex::new(None),
        };
        identity.server_config()?;
        identity.root()?;
        Ok(identity)
    }

    /// The root that statements about signing keys must be signed by.
    pub fn root(&self) -> Result<VerifyingKey, Error> {
        let bytes = self.read("root.pem")?;
        let mut kept = self.root.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            Some((known, key)) if *known == bytes => Ok(key.clone()),
            _ => {
                let key =
                    VerifyingKey::from_spki_pem(&String::from_utf8(bytes.clone())?).map_err(Error::Root)?;
                *kept = Some((bytes, key.clone()));
                Ok(key)
            }
        }
    }

    fn server_config(&self) -> Result<Arc<ServerConfig>, Error> {
        let files = [self.read("tls.crt")?, self.read("tls.key")?, self.read("ca.crt")?];
        let mut kept = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            Some((known, config)) if *known == files => Ok(config.clone()),
            _ => {
                let config = Arc::new(self.build_config(&files)?);
                *kept = Some((files, config.clone()));
                Ok(config)
            }
        }
    }

    fn build_config(&self, [certificate, key, authority]: &[Vec<u8>; 3]) -> Result<ServerConfig, Error> {
        let mut roots = RootCertStore::empty();
        for root in certificates("ca.crt", authority)? {
            roots.add(root).map_err(Error::Authority)?;
        }
        // Checks the chain, the dates and that the certificate is for client authentication.
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), self.provider.clone()).build()?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|source| Error::Pem {
            file: "tls.key",
            source,
        })?;
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(Error::Certificate)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(certificates("tls.crt", certificate)?, key)
            .map_err(Error::Certificate)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }

    fn read(&self, name: &str) -> Result<Vec<u8>, Error> {
        let path = self.folder.join(name);
        std::fs::read(&path).map_err(|source| Error::Read { path, source })
    }
}

fn certificates(file: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|source| Error::Pem { file, source })
}

/// Connections of the controller, ready to be spoken on. Whoever else calls gets no further than the handshake.
pub fn accept(
    listener: TcpListener,
    identity: Arc<Identity>,
) -> ReceiverStream<io::Result<TlsStream<TcpStream>>> {
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES_AT_ONCE));
        loop {
            let Ok(permit) = handshakes.clone().acquire_owned().await else {
                return;
            };
            let (stream, peer) = tokio::select! {
                () = sender.closed() => return,
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::warn!(%error, "a connection cannot be accepted");
                        // Out of descriptors, most likely: some will be given back.
                        sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
            };
            let (identity, sender) = (identity.clone(), sender.clone());
            tokio::spawn(async move {
                match timeout(HANDSHAKE_LIMIT, greet(stream, &identity)).await {
                    Ok(Ok(stream)) => drop(sender.send(Ok(stream)).await),
                    Ok(Err(error)) => {
                        tracing::warn!(%peer, error = %chain(&*error), "a connection is refused");
                    }
                    Err(_) => tracing::warn!(%peer, "a connection is refused: its handshake takes too long"),
                }
                drop(permit);
            });
        }
    });
    ReceiverStream::new(receiver)
}

async fn greet(
    stream: TcpStream,
    identity: &Identity,
) -> Result<TlsStream<TcpStream>, Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    let config = identity.server_config()?;
    let stream = TlsAcceptor::from(config).accept(stream).await?;
    let certificate = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(<[_]>::first)
        .ok_or("the client showed no certificate")?;
    verify_server_name(
        &ParsedCertificate::try_from(certificate)?,
        &ServerName::try_from(CONTROLLER)?,
    )?;
    Ok(stream)
}

/// An error with everything that caused it, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
