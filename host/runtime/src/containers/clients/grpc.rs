//! One gRPC connection over a unix socket, for the clients that speak gRPC.
//!
//! Plain HTTP/2 without tonic's channel: that one connects anew behind our back, and a client here must know when its
//! connection ended. Runs on the containers' thread. Every request but the event streams has a deadline, and no message
//! may be larger than `MAX_MESSAGE`.

use super::{ClientError, LOOKUP_DEADLINE, MAX_TEXT, text};
use crate::containers::container::RuntimeName;
use containerd_client::tonic::{
    Code, Response, Status,
    body::Body,
    codegen::{Service, StdError, http},
};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{
    error::Error as _,
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    net::UnixStream,
    sync::{OnceCell, watch},
    task::AbortHandle,
};

/// Largest message taken from a daemon; containerd and the kubelet allow as much.
pub(super) const MAX_MESSAGE: usize = 16 << 20;
/// What requests are addressed to: a unix socket has no host.
pub(super) const ORIGIN: &str = "http://localhost";

pub(super) struct Connection {
    runtime: RuntimeName,
    socket: PathBuf,
    live: OnceCell<Live>,
}

struct Live {
    sender: Sender,
    /// True once the connection ended.
    ended: watch::Receiver<bool>,
    driver: AbortHandle,
}

impl Drop for Live {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Failure {
    NotFound,
    /// The daemon does not know this request.
    Unimplemented,
    Client(ClientError),
}

impl Failure {
    /// The error; `None` where the thing asked for is not there.
    pub(super) fn or_absent<T>(self, none: T) -> Result<T, ClientError> {
        match self {
            Failure::Client(e) => Err(e),
            Failure::NotFound | Failure::Unimplemented => Ok(none),
        }
    }
}

impl Connection {
    /// Prepares a connection; the first request connects.
    pub(super) fn new(runtime: RuntimeName, socket: &Path) -> Self {
        Connection { runtime, socket: socket.to_owned(), live: OnceCell::new() }
    }

    pub(super) fn runtime(&self) -> RuntimeName {
        self.runtime
    }

    async fn live(&self) -> Result<&Live, ClientError> {
        let connect = async {
            let what = "connecting";
            match tokio::time::timeout(LOOKUP_DEADLINE, open(&self.socket)).await {
                Ok(Ok(live)) => Ok(live),
                Ok(Err(cause)) => {
                    Err(ClientError::Connect { runtime: self.runtime, socket: self.socket.clone(), cause })
                }
                // The deadline is all that is to be known of the timer's error.
                Err(tokio::time::error::Elapsed { .. }) => Err(self.late(what, LOOKUP_DEADLINE)),
            }
        };
        self.live.get_or_try_init(|| connect).await
    }

    pub(super) async fn sender(&self) -> Result<Sender, ClientError> {
        Ok(self.live().await?.sender.clone())
    }

    /// Waits for the end of the connection.
    pub(super) async fn ended(&self) -> ClientError {
        match self.live().await {
            Ok(live) => {
                // An error means that the driver is gone, and with it the connection.
                drop(live.ended.clone().wait_for(|ended| *ended).await);
                self.stream_ended()
            }
            Err(e) => e,
        }
    }

    pub(super) fn stream_ended(&self) -> ClientError {
        ClientError::StreamEnded { runtime: self.runtime, socket: self.socket.clone() }
    }

    fn late(&self, what: &'static str, deadline: Duration) -> ClientError {
        ClientError::Deadline { runtime: self.runtime, socket: self.socket.clone(), what, deadline }
    }

    /// The answer to one request, in time.
    pub(super) async fn within<T>(
        &self,
        what: &'static str,
        deadline: Duration,
        request: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Failure> {
        match tokio::time::timeout(deadline, request).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => Err(self.failure(what, &status)),
            Err(tokio::time::error::Elapsed { .. }) => Err(Failure::Client(self.late(what, deadline))),
        }
    }

    /// As `within`, for more than one exchange.
    pub(super) async fn all_within<T>(
        &self,
        what: &'static str,
        deadline: Duration,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        match tokio::time::timeout(deadline, work).await {
            Ok(done) => done,
            Err(tokio::time::error::Elapsed { .. }) => Err(Failure::Client(self.late(what, deadline))),
        }
    }

    pub(super) fn failure(&self, what: &'static str, status: &Status) -> Failure {
        match status.code() {
            Code::NotFound => Failure::NotFound,
            Code::Unimplemented => Failure::Unimplemented,
            _ => Failure::Client(self.refused(what, cause(status))),
        }
    }

    pub(super) fn refused(&self, what: &'static str, cause: String) -> ClientError {
        ClientError::Request { runtime: self.runtime, socket: self.socket.clone(), what, cause }
    }
}

/// What a status says, without its debugging aids; the innermost error is the one that tells.
fn cause(status: &Status) -> String {
    let mut inner = status.source();
    while let Some(next) = inner.and_then(std::error::Error::source) {
        inner = Some(next);
    }
    let said = match inner {
        Some(e) => e.to_string(),
        None if status.message().is_empty() => status.code().description().to_owned(),
        None => status.message().to_owned(),
    };
    text(&said).unwrap_or_default().chars().take(MAX_TEXT / 16).collect()
}

async fn open(socket: &Path) -> Result<Live, String> {
    let stream = UnixStream::connect(socket).await.map_err(|e| e.to_string())?;
    let handshake = http2::Builder::new(TokioExecutor::new()).handshake(TokioIo::new(stream));
    let (sender, connection) = handshake.await.map_err(|e| e.to_string())?;
    let (end, ended) = watch::channel(false);
    let driver = tokio::spawn(async move {
        // How it ended shows in the requests that were on their way.
        drop(connection.await);
        end.send_replace(true);
    });
    Ok(Live { sender: Sender(sender), ended, driver: driver.abort_handle() })
}

/// What generated clients send their requests through.
#[derive(Clone)]
pub(super) struct Sender(http2::SendRequest<Body>);

impl Service<http::Request<Body>> for Sender {
    type Response = http::Response<Incoming>;
    type Error = StdError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answer = self.0.send_request(request);
        Box::pin(async move { answer.await.map_err(Into::into) })
    }
}
