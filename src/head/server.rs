//! The gRPC service: translates calls to the agent and its answers to streams. Decides nothing.

use crate::agent::Agent;
use crate::tls::{Identity, accept};
use head_proto::head_server::{Head, HeadServer};
use head_proto::{
    CancelRequest, CancelResponse, HeadStatus, ResumeRequest, RunEvent, RunRequest, WatchRequest,
};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// Grant, document and inputs, at most.
const LONGEST_REQUEST: usize = 32 << 20;
const KEEPALIVE: Duration = Duration::from_secs(10);
const HEARTBEAT_MILLIS: std::ops::RangeInclusive<u32> = 100..=60_000;

/// Serves the controller until `stopped`, then lets the open runs' streams end.
pub async fn serve(
    listener: TcpListener,
    identity: Arc<Identity>,
    agent: Arc<Agent>,
    stopped: impl Future<Output = ()> + Send + 'static,
) -> Result<(), tonic::transport::Error> {
    let (stopping, stop) = watch::channel(false);
    let service = HeadServer::new(Service { agent, stop })
        .max_decoding_message_size(LONGEST_REQUEST)
        .max_encoding_message_size(LONGEST_REQUEST * 2);
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .add_service(service)
        .serve_with_incoming_shutdown(accept(listener, identity), async move {
            stopped.await;
            // Watches have no end of their own.
            stopping.send_replace(true);
        })
        .await
}

struct Service {
    agent: Arc<Agent>,
    stop: watch::Receiver<bool>,
}

#[tonic::async_trait]
impl Head for Service {
    type RunStream = ReceiverStream<Result<RunEvent, Status>>;
    type ResumeStream = ReceiverStream<Result<RunEvent, Status>>;
    type WatchStream = ReceiverStream<Result<HeadStatus, Status>>;

    async fn run(&self, request: Request<RunRequest>) -> Result<Response<Self::RunStream>, Status> {
        Ok(Response::new(self.agent.run(request.into_inner())?.follow()))
    }

    async fn resume(&self, request: Request<ResumeRequest>) -> Result<Response<Self::ResumeStream>, Status> {
        let run = self.agent.find(&request.into_inner().run_id);
        let run = run.ok_or_else(|| Status::not_found("this head does not know the run"))?;
        Ok(Response::new(run.follow()))
    }

    async fn cancel(&self, request: Request<CancelRequest>) -> Result<Response<CancelResponse>, Status> {
        let request = request.into_inner();
        let cancelled = self.agent.cancel(&request.run_id, &request.reason);
        Ok(Response::new(CancelResponse { cancelled }))
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let asked = request.into_inner().heartbeat_millis;
        let heartbeat = asked.clamp(*HEARTBEAT_MILLIS.start(), *HEARTBEAT_MILLIS.end());
        let heartbeat = Duration::from_millis(u64::from(heartbeat));
        let (sender, receiver) = mpsc::channel(4);
        let (agent, mut stop) = (self.agent.clone(), self.stop.clone());
        let mut revision = agent.revision();
        tokio::spawn(async move {
            loop {
                revision.mark_unchanged();
                if sender.send(Ok(agent.status())).await.is_err() {
                    return;
                }
                tokio::select! {
                    // A change or the next heartbeat, whichever is first.
                    _ = timeout(heartbeat, revision.changed()) => {}
                    () = sender.closed() => return,
                    _ = stop.wait_for(|stop| *stop) => return,
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}
