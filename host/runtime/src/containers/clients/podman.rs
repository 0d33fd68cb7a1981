//! Podman's own API over its unix sockets: root's, and those of every user who runs one.
//!
//! A user's socket is found by itself and believed as far as that user may be: the peer on the socket says who speaks, and
//! all that an unprivileged one says is about ids and names that begin with their number. They may answer without end, or
//! not at all, so every answer is bounded in size and time; and a fault of theirs is nobody else's news.
//!
//! Tasks on the containers' thread.

use super::{
    Client, ClientError, Described, FIRST_RETRY, LAST_RETRY, LIST_DEADLINE, LOOKUP_DEADLINE, News, Source, follow, text,
};
use crate::containers::{container::RuntimeName, follow::claimed_id, identify};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, body::Incoming};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};
use tokio::{net::UnixStream, sync::mpsc};

/// Where root's Podman listens by default.
pub(in crate::containers) const SOCKETS: &[&str] = &["/run/podman/podman.sock", "/var/run/podman/podman.sock"];

/// A list of thousands of containers fits, and no daemon fills the memory.
const MAX_ANSWER: usize = 32 << 20;
const MAX_ANSWER_OF_USERS: usize = 2 << 20;
const MAX_EVENT: usize = 256 << 10;
const MAX_HEAD: usize = 64 << 10;
/// Users whose sockets are followed, and containers of one user.
const MAX_SOCKETS: usize = 64;
const MAX_CONTAINERS_OF_USER: usize = 256;
/// Between two events of one user's: about as fast as containers can start.
const EVENT_PAUSE: Duration = Duration::from_millis(4);

pub(in crate::containers) struct PodmanClient {
    socket: PathBuf,
    /// The user in whose place the socket lies; who speaks there must be the same.
    owner: Option<u32>,
}

/// A connection that stands, and who is at its other end.
struct Connection {
    sender: hyper::client::conn::http1::SendRequest<Empty<&'static [u8]>>,
    /// `None`: root.
    user: Option<u32>,
}

enum Answer<T> {
    Found(T),
    NotFound,
}

impl PodmanClient {
    /// Prepares a client; the first request connects.
    pub(in crate::containers) fn new(socket: &Path) -> Self {
        PodmanClient { socket: socket.to_owned(), owner: None }
    }

    fn of_user(socket: PathBuf, uid: u32) -> Self {
        PodmanClient { socket, owner: Some(uid) }
    }

    fn failed(&self, what: &'static str, cause: impl std::fmt::Display) -> ClientError {
        // The daemon's words may be long.
        let cause: String = cause.to_string().chars().take(1024).collect();
        ClientError::Request { runtime: RuntimeName::Podman, socket: self.socket.clone(), what, cause }
    }

    async fn connect(&self) -> Result<Connection, ClientError> {
        let cannot =
            |cause: String| ClientError::Connect { runtime: RuntimeName::Podman, socket: self.socket.clone(), cause };
        let stream = UnixStream::connect(&self.socket).await.map_err(|e| cannot(e.to_string()))?;
        let peer = stream.peer_cred().map_err(|e| cannot(e.to_string()))?.uid();
        if let Some(owner) = self.owner.filter(|owner| *owner != peer) {
            return Err(cannot(format!("it is user {peer} who listens there, not {owner}")));
        }
        let mut builder = hyper::client::conn::http1::Builder::new();
        builder.max_buf_size(MAX_HEAD);
        let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|e| cannot(e.to_string()))?;
        // Ends with the sender; what went wrong shows in the answer, too.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Connection { sender, user: (peer != 0).then_some(peer) })
    }

    /// The answer's body, not yet read, and whose word it is.
    async fn get(&self, path: &str, what: &'static str) -> Result<Answer<(Incoming, Option<u32>)>, ClientError> {
        let Connection { mut sender, user } = self.connect().await?;
        let request = Request::get(path).header("Host", "d").body(Empty::new()).map_err(|e| self.failed(what, e))?;
        let response = sender.send_request(request).await.map_err(|e| self.failed(what, e))?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(Answer::NotFound),
            StatusCode::OK => Ok(Answer::Found((response.into_body(), user))),
            status => Err(self.failed(what, status)),
        }
    }

    async fn json<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        what: &'static str,
        deadline: Duration,
    ) -> Result<Answer<(T, Option<u32>)>, ClientError> {
        let ask = async {
            let (body, user) = match self.get(path, what).await? {
                Answer::Found(found) => found,
                Answer::NotFound => return Ok(Answer::NotFound),
            };
            let room = if user.is_some() { MAX_ANSWER_OF_USERS } else { MAX_ANSWER };
            let bytes = Limited::new(body, room).collect().await.map_err(|e| self.failed(what, e))?.to_bytes();
            serde_json::from_slice(&bytes).map(|t| Answer::Found((t, user))).map_err(|e| self.failed(what, e))
        };
        let socket = self.socket.clone();
        tokio::time::timeout(deadline, ask).await.unwrap_or(Err(ClientError::Deadline {
            runtime: RuntimeName::Podman,
            socket,
            what,
            deadline,
        }))
    }

    /// Of a user's container nobody else asks: the digest of its image is fetched with it.
    async fn add_digest(&self, d: &mut Described) {
        if let Some(image) = d.image_id.clone().filter(|_| d.user.is_some()) {
            d.image_digest = self.image_digest(&image).await.ok().flatten();
        }
    }

    async fn told(&self, event: Event, user: Option<u32>) -> Option<News> {
        let id = plain_id(&event.actor.id)?;
        let known = match event.action.as_str() {
            "create" | "init" | "start" | "restart" | "rename" => Described {
                name: event.actor.attributes.get("name").and_then(|n| text(n)),
                image_name: event.actor.attributes.get("image").and_then(|i| text(i)),
                ..Described::default()
            },
            "remove" | "destroy" => {
                return Some(News::Removed(
                    RuntimeName::Podman,
                    said_by(user, Described { id: id.into(), ..Described::default() }).id,
                ));
            }
            _ => return None,
        };
        let mut d = said_by(user, Described { id: id.into(), ..known });
        if user.is_some()
            && let Ok(Some(more)) = self.lookup(id).await
        {
            d = Described { name: d.name.or(more.name.clone()), ..more };
        }
        Some(News::Known(RuntimeName::Podman, d))
    }
}

/// One line of the event stream.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Event {
    #[serde(rename = "Action")]
    action: String,
    #[serde(rename = "Actor")]
    actor: Actor,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Actor {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "Attributes")]
    attributes: BTreeMap<String, String>,
}

/// An entry of the list.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Listed {
    id: String,
    names: Option<Vec<String>>,
    image: String,
    #[serde(rename = "ImageID")]
    image_id: String,
    pid: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Inspected {
    id: String,
    name: String,
    /// The image's id.
    image: String,
    image_name: String,
    state: State,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct State {
    pid: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Image {
    repo_digests: Option<Vec<String>>,
}

/// An id that is safe in a request's path, and has no slash.
fn plain_id(id: &str) -> Option<&str> {
    (!id.is_empty() && id.len() <= 128 && id.bytes().all(|b| b.is_ascii_alphanumeric())).then_some(id)
}

fn process(pid: i64) -> Option<u32> {
    u32::try_from(pid).ok().filter(|p| *p != 0)
}

/// What a user says is about that user's containers, whatever it is.
fn said_by(user: Option<u32>, d: Described) -> Described {
    let Some(uid) = user else { return d };
    Described { id: claimed_id(uid, &d.id), name: d.name.map(|n| claimed_id(uid, &n)), user, ..d }
}

impl Listed {
    fn described(self, user: Option<u32>) -> Option<Described> {
        let d = Described {
            id: plain_id(&self.id)?.into(),
            name: self.names.unwrap_or_default().first().and_then(|n| text(n)),
            image_name: text(&self.image),
            image_id: plain_id(&self.image_id).map(Into::into),
            pid: process(self.pid),
            listed: true,
            ..Described::default()
        };
        Some(said_by(user, d))
    }
}

impl Client for PodmanClient {
    async fn watch(&self, since: SystemTime, news: &mpsc::Sender<News>) -> ClientError {
        const WHAT: &str = "reading events";
        let since = since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        // {"type":["container"]}
        let path =
            format!("/v4.0.0/libpod/events?stream=true&since={since}&filters=%7B%22type%22%3A%5B%22container%22%5D%7D");
        let (mut body, user) = match self.get(&path, WHAT).await {
            Ok(Answer::Found(found)) => found,
            Ok(Answer::NotFound) => return self.failed(WHAT, "not found"),
            Err(e) => return e,
        };
        let mut line = Vec::new();
        loop {
            let frame = match body.frame().await {
                Some(Ok(frame)) => frame,
                Some(Err(e)) => return self.failed(WHAT, e),
                None => {
                    return ClientError::StreamEnded { runtime: RuntimeName::Podman, socket: self.socket.clone() };
                }
            };
            let Ok(data) = frame.into_data() else { continue };
            for part in data.split_inclusive(|b| *b == b'\n') {
                line.extend_from_slice(part);
                if line.len() > MAX_EVENT {
                    return self.failed(WHAT, "an event is too long");
                }
                if !part.ends_with(b"\n") {
                    continue;
                }
                let event = serde_json::from_slice::<Event>(&line);
                line.clear();
                // What is no event of a container says nothing of one.
                let told = match event {
                    Ok(event) => self.told(event, user).await,
                    Err(_) => None,
                };
                if let Some(n) = told {
                    drop(news.send(n).await);
                }
                if user.is_some() {
                    tokio::time::sleep(EVENT_PAUSE).await;
                }
            }
        }
    }

    async fn list(&self) -> Result<Vec<Described>, ClientError> {
        let answer =
            self.json::<Option<Vec<Listed>>>("/v4.0.0/libpod/containers/json", "listing containers", LIST_DEADLINE);
        let Answer::Found((all, user)) = answer.await? else { return Ok(Vec::new()) };
        let room = if user.is_some() { MAX_CONTAINERS_OF_USER } else { usize::MAX };
        let mut described: Vec<Described> =
            all.unwrap_or_default().into_iter().filter_map(|c| c.described(user)).take(room).collect();
        for d in &mut described {
            self.add_digest(d).await;
        }
        Ok(described)
    }

    async fn lookup(&self, id: &str) -> Result<Option<Described>, ClientError> {
        let Some(id) = plain_id(id) else { return Ok(None) };
        let path = format!("/v4.0.0/libpod/containers/{id}/json");
        let answer = self.json::<Inspected>(&path, "inspecting a container", LOOKUP_DEADLINE).await?;
        let Answer::Found((c, user)) = answer else { return Ok(None) };
        let d = Described {
            id: plain_id(&c.id).unwrap_or(id).into(),
            name: text(&c.name),
            image_name: text(&c.image_name),
            image_id: plain_id(&c.image).map(Into::into),
            pid: process(c.state.pid),
            ..Described::default()
        };
        let mut d = said_by(user, d);
        self.add_digest(&mut d).await;
        Ok(Some(d))
    }

    async fn image_digest(&self, image_id: &str) -> Result<Option<Box<str>>, ClientError> {
        let Some(id) = plain_id(image_id.strip_prefix("sha256:").unwrap_or(image_id)) else { return Ok(None) };
        let path = format!("/v4.0.0/libpod/images/{id}/json");
        let answer = self.json::<Image>(&path, "inspecting an image", LOOKUP_DEADLINE).await?;
        let Answer::Found((image, _)) = answer else { return Ok(None) };
        Ok(image.repo_digests.unwrap_or_default().iter().find_map(|d| Some(d.rsplit_once('@')?.1.into())))
    }

    fn runtime(&self) -> RuntimeName {
        RuntimeName::Podman
    }

    fn is_a_users(&self) -> bool {
        self.owner.is_some()
    }
}

/// Follows the Podman of every user that has one, now or later. `asking` counts clients that owe their first answer; this
/// task is one of them.
pub(in crate::containers) async fn follow_users(
    host_root: PathBuf,
    news: mpsc::Sender<News>,
    asking: Arc<AtomicUsize>,
) {
    let run_user = identify::on_host(&host_root, Path::new("/run/user"));
    let mut followed = Vec::new();
    let mut pause = FIRST_RETRY;
    let mut first = true;
    loop {
        for (uid, socket) in sockets(&run_user) {
            if followed.len() >= MAX_SOCKETS || followed.iter().any(|(u, _)| *u == uid) {
                continue;
            }
            // Nobody asks a user's Podman; the channel stays open as long as it is followed.
            let (never, questions) = mpsc::channel(1);
            followed.push((uid, never));
            asking.fetch_add(1, Ordering::AcqRel);
            let connect = move || Ok(is_socket(&socket).then(|| PodmanClient::of_user(socket.clone(), uid)));
            // Says neither that it is connected nor that it is not, so that its number is nobody's.
            let source = Source { number: usize::MAX, runtime: RuntimeName::Podman };
            tokio::spawn(follow(source, connect, news.clone(), questions));
        }
        if std::mem::take(&mut first) {
            drop(news.send(News::FirstAnswer).await);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LAST_RETRY);
    }
}

fn is_socket(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|m| m.file_type().is_socket())
}

/// Users' sockets that are there now.
fn sockets(run_user: &Path) -> Vec<(u32, PathBuf)> {
    let Ok(entries) = std::fs::read_dir(run_user) else { return Vec::new() };
    entries
        .take(1024)
        .flatten()
        .filter_map(|e| {
            let uid = e.file_name().to_str()?.parse().ok().filter(|uid| *uid != 0)?;
            let socket = e.path().join("podman/podman.sock");
            is_socket(&socket).then_some((uid, socket))
        })
        .collect()
}

#[cfg(test)]
mod tests;
