//! One connection to the agent in a head pod: dial with mutual TLS, then follow its `Watch` stream.

use std::{net::IpAddr, sync::Arc, time::Duration};

use head_proto::{CancelRequest, HeadStatus, WatchRequest, head_client::HeadClient};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::{
    Streaming,
    transport::{Channel, Endpoint, Uri},
};

use crate::client::CALL_DEADLINE;

/// Dialling and the handshake together.
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(3);
/// The largest message from a head: outputs of 8 MiB and what surrounds them.
const LARGEST_MESSAGE: usize = 16 << 20;

/// The connection could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// No valid name or address.
    #[error("address the head")]
    Address,
    /// TCP, TLS or HTTP/2 failed.
    #[error("connect to the head")]
    Connect(#[from] tonic::transport::Error),
    /// The agent refused the watch.
    #[error("watch the head")]
    Watch(#[from] Box<tonic::Status>),
    /// No answer.
    #[error("connect to the head: no answer in {} s", CONNECT_DEADLINE.as_secs())]
    TimedOut,
}

/// A client of the agent with the limits that this operator uses.
pub fn client(channel: Channel) -> HeadClient<Channel> {
    HeadClient::new(channel)
        .max_decoding_message_size(LARGEST_MESSAGE)
        .max_encoding_message_size(LARGEST_MESSAGE)
}

/// Connects to the agent at `address` as a head of `namespace`.
pub async fn connect(
    address: IpAddr,
    namespace: &str,
    tls: Arc<ClientConfig>,
) -> Result<Channel, ConnectionError> {
    let name =
        ServerName::try_from(api::names::head_tls_name(namespace)).map_err(|_| ConnectionError::Address)?;
    let port = u16::try_from(api::names::HEAD_PORT).map_err(|_| ConnectionError::Address)?;
    let endpoint = Endpoint::from_static("https://head.chimera")
        .http2_keep_alive_interval(Duration::from_secs(2))
        .keep_alive_timeout(Duration::from_secs(2))
        .keep_alive_while_idle(true);
    let connector = tower::service_fn(move |_: Uri| {
        let tls = TlsConnector::from(Arc::clone(&tls));
        let name = name.clone();
        async move {
            let tcp = TcpStream::connect((address, port)).await?;
            tcp.set_nodelay(true)?;
            Ok::<_, std::io::Error>(TokioIo::new(tls.connect(name, tcp).await?))
        }
    });
    tokio::time::timeout(CONNECT_DEADLINE, endpoint.connect_with_connector(connector))
        .await
        .map_err(|_| ConnectionError::TimedOut)?
        .map_err(ConnectionError::Connect)
}

/// Opens the stream of the agent's states. Its end or silence means that the head is lost.
pub async fn watch(channel: Channel, heartbeat: Duration) -> Result<Streaming<HeadStatus>, ConnectionError> {
    let heartbeat_millis = u32::try_from(heartbeat.as_millis()).unwrap_or(u32::MAX);
    let request = WatchRequest { heartbeat_millis };
    let mut client = client(channel);
    let answer = tokio::time::timeout(CONNECT_DEADLINE, client.watch(request)).await;
    Ok(answer
        .map_err(|_| ConnectionError::TimedOut)?
        .map_err(Box::new)?
        .into_inner())
}

/// Asks the agent to stop a run. It need not know it.
pub async fn cancel(channel: Channel, run_id: String, reason: String) {
    let mut client = client(channel);
    let request = CancelRequest { run_id, reason };
    match tokio::time::timeout(CALL_DEADLINE, client.cancel(request)).await {
        Ok(Ok(_)) => {}
        Ok(Err(status)) => tracing::warn!(%status, "the head did not take the cancellation"),
        Err(_) => tracing::warn!("the head did not answer the cancellation in time"),
    }
}
