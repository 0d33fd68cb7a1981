//! Plain HTTP over a unix socket, as Docker speaks it: every answer bounded in size and in time.
//!
//! One connection per request: a daemon that went away shows at the next one. Runs on the containers' thread.

use super::{ClientError, text};
use crate::containers::container::RuntimeName;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::net::UnixStream;

/// A list of thousands of containers fits, and no daemon fills the memory.
const MAX_ANSWER: usize = 32 << 20;
const MAX_LINE: usize = 256 << 10;
const MAX_HEAD: usize = 64 << 10;
/// Of an error's explanation.
const MAX_CAUSE: usize = 1024;

pub(super) struct Http {
    runtime: RuntimeName,
    socket: PathBuf,
}

impl Http {
    pub(super) fn new(runtime: RuntimeName, socket: &Path) -> Self {
        Http { runtime, socket: socket.to_owned() }
    }

    pub(super) fn failed(&self, what: &'static str, cause: impl std::fmt::Display) -> ClientError {
        let cause = cause.to_string().chars().take(MAX_CAUSE).collect();
        ClientError::Request { runtime: self.runtime, socket: self.socket.clone(), what, cause }
    }

    pub(super) fn stream_ended(&self) -> ClientError {
        ClientError::StreamEnded { runtime: self.runtime, socket: self.socket.clone() }
    }

    /// The answer's body, not yet read; `None`: not found.
    pub(super) async fn get(&self, path: &str, what: &'static str) -> Result<Option<Incoming>, ClientError> {
        let cannot = |cause: String| ClientError::Connect { runtime: self.runtime, socket: self.socket.clone(), cause };
        let stream = UnixStream::connect(&self.socket).await.map_err(|e| cannot(e.to_string()))?;
        let mut builder = http1::Builder::new();
        builder.max_buf_size(MAX_HEAD);
        let (mut sender, connection) =
            builder.handshake(TokioIo::new(stream)).await.map_err(|e| cannot(e.to_string()))?;
        // Ends with the request; what went wrong shows in the answer, too.
        tokio::spawn(async move { drop(connection.await) });
        let request = Request::get(path).header("Host", "localhost").body(Empty::<&[u8]>::new());
        let request = request.map_err(|e| self.failed(what, e))?;
        let response = sender.send_request(request).await.map_err(|e| self.failed(what, e))?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => Ok(Some(response.into_body())),
            status => {
                let said = Limited::new(response.into_body(), MAX_CAUSE).collect().await;
                let said = said.map(|b| String::from_utf8_lossy(&b.to_bytes()).trim().to_owned()).unwrap_or_default();
                Err(self.failed(what, format!("{status}{}{said}", if said.is_empty() { "" } else { ": " })))
            }
        }
    }

    /// The whole answer, in time; `None`: not found.
    pub(super) async fn bytes(
        &self,
        path: &str,
        what: &'static str,
        deadline: Duration,
    ) -> Result<Option<Vec<u8>>, ClientError> {
        let ask = async {
            let Some(body) = self.get(path, what).await? else { return Ok(None) };
            let all = Limited::new(body, MAX_ANSWER).collect().await.map_err(|e| self.failed(what, e))?;
            Ok(Some(all.to_bytes().to_vec()))
        };
        let (runtime, socket) = (self.runtime, self.socket.clone());
        let late = ClientError::Deadline { runtime, socket, what, deadline };
        tokio::time::timeout(deadline, ask).await.unwrap_or(Err(late))
    }

    pub(super) async fn json<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        what: &'static str,
        deadline: Duration,
    ) -> Result<Option<T>, ClientError> {
        let Some(bytes) = self.bytes(path, what, deadline).await? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).map_err(|e| self.failed(what, e))
    }
}

/// The lines of an answer that does not end.
pub(super) struct Lines {
    body: Incoming,
    /// What came and is not told yet; the first `told` bytes are.
    buffer: Vec<u8>,
    told: usize,
}

impl Lines {
    pub(super) fn new(body: Incoming) -> Self {
        Lines { body, buffer: Vec::new(), told: 0 }
    }

    /// The next line; `None` at the end. An error says what is wrong with the stream.
    pub(super) async fn next(&mut self) -> Result<Option<&[u8]>, String> {
        loop {
            if let Some(n) = memchr::memchr(b'\n', &self.buffer[self.told..]) {
                let start = self.told;
                self.told += n + 1;
                return Ok(Some(&self.buffer[start..start + n]));
            }
            self.buffer.drain(..self.told);
            self.told = 0;
            if self.buffer.len() > MAX_LINE {
                return Err("a line of its answer does not end".to_owned());
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
                Some(Err(e)) => return Err(e.to_string()),
                None => return Ok(None),
            }
        }
    }
}

/// An id or a name that is safe in a request's path.
pub(super) fn in_path(id: &str) -> Option<&str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b':');
    let fits = text(id).is_some_and(|t| t.len() <= 256) && id.len() <= 256;
    (fits && !id.starts_with('.') && id.bytes().all(plain)).then_some(id)
}
