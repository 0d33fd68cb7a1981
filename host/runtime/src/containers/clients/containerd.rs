//! containerd's own API: containers of all its namespaces (or those asked for), their labels, images and first processes.
//!
//! Runs on the containers' thread, as a task. Docker's containers live in the namespace `moby`: of those nothing is told
//! but the first process, because their names and images are Docker's. Nothing is asked while nothing starts.

use super::{
    Client, ClientError, Described, LIST_DEADLINE, LOOKUP_DEADLINE, MAX_LISTED, News, Question,
    grpc::{Connection, Failure, MAX_MESSAGE, ORIGIN, Sender},
    text,
};
use crate::containers::{
    container::{Pod, RuntimeName},
    identify::{BundleConfig, MOBY},
};
use containerd_client::{
    events,
    services::v1::{
        Container, GetContainerRequest, GetImageRequest, GetRequest, ListContainersRequest, ListNamespacesRequest,
        ListTasksRequest, ReadContentRequest, SubscribeRequest, containers_client::ContainersClient,
        content_client::ContentClient, events_client::EventsClient, images_client::ImagesClient,
        namespaces_client::NamespacesClient, tasks_client::TasksClient, version_client::VersionClient,
    },
    tonic::{Request, codegen::http::Uri},
    types::{Envelope, v1::Status},
};
use futures_util::{StreamExt, stream::FuturesUnordered};
use prost::Message;
use rustc_hash::FxHashMap;
use serde::Deserialize;
use std::{
    collections::HashMap,
    path::Path,
    sync::{Mutex, PoisonError},
    time::SystemTime,
};
use tokio::sync::mpsc;

/// Where containerd listens by default; k3s and Docker bring their own.
pub(super) const SOCKETS: &[&str] = &[
    "/run/containerd/containerd.sock",
    "/run/k3s/containerd/containerd.sock",
    "/run/docker/containerd/containerd.sock",
];
/// Events of interest; the others (snapshots, content, programs run in containers) are not even sent.
const TOPICS: [&str; 4] = ["/containers/create", "/containers/update", "/containers/delete", "/tasks/start"];
/// Containers that are looked up at the same time because of events.
const LOOKUPS: usize = 16;
/// Images remembered, and the longest manifest that is read.
const MAX_IMAGES: usize = 1024;
const MAX_MANIFEST: usize = 1 << 20;

pub(super) struct ContainerdClient {
    connection: Connection,
    /// Empty: all.
    namespaces: Vec<String>,
    /// By the digest of an image's manifest or index: its id, which never changes.
    image_ids: Mutex<FxHashMap<String, Option<Box<str>>>>,
}

macro_rules! service {
    ($client:ident, $sender:expr) => {
        $client::with_origin($sender, Uri::from_static(ORIGIN)).max_decoding_message_size(MAX_MESSAGE)
    };
}

fn runs(status: i32) -> bool {
    [Status::Running, Status::Paused, Status::Pausing].iter().any(|s| *s as i32 == status)
}

/// A request of one of containerd's namespaces.
fn of<T>(namespace: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    // containerd's identifiers are plain ASCII; for anything else it answers that there is no namespace.
    if let Ok(value) = namespace.parse() {
        request.metadata_mut().insert("containerd-namespace", value);
    }
    request
}

impl ContainerdClient {
    /// Prepares a client; the first request connects.
    pub(super) fn new(socket: &Path, namespaces: &[String]) -> Self {
        ContainerdClient {
            connection: Connection::new(RuntimeName::Containerd, socket),
            namespaces: namespaces.to_vec(),
            image_ids: Mutex::default(),
        }
    }

    async fn sender(&self) -> Result<Sender, Failure> {
        self.connection.sender().await.map_err(Failure::Client)
    }

    async fn namespaces(&self) -> Result<Vec<String>, Failure> {
        if !self.namespaces.is_empty() {
            return Ok(self.namespaces.clone());
        }
        let mut client = service!(NamespacesClient, self.sender().await?);
        let all = client.list(ListNamespacesRequest::default());
        let all = self.connection.within("listing namespaces", LIST_DEADLINE, all).await?;
        Ok(all.namespaces.into_iter().map(|n| n.name).collect())
    }

    /// First processes of the running containers. One shim that hangs must not hide the containers: then without.
    async fn tasks(&self, namespace: &str) -> Option<HashMap<String, u32>> {
        let mut client = service!(TasksClient, self.sender().await.ok()?);
        let all = client.list(of(namespace, ListTasksRequest::default()));
        let all = self.connection.within("listing tasks", LIST_DEADLINE / 2, all).await.ok()?;
        Some(all.tasks.into_iter().filter(|t| runs(t.status) && t.pid != 0).map(|t| (t.id, t.pid)).collect())
    }

    /// First process of a running container.
    async fn pid(&self, namespace: &str, id: &str) -> Result<Option<u32>, Failure> {
        let mut client = service!(TasksClient, self.sender().await?);
        let request = GetRequest { container_id: id.to_owned(), ..GetRequest::default() };
        let task = client.get(of(namespace, request));
        match self.connection.within("looking up a task", LOOKUP_DEADLINE, task).await {
            Ok(answer) => Ok(answer.process.filter(|p| runs(p.status) && p.pid != 0).map(|p| p.pid)),
            Err(Failure::NotFound) => Ok(None),
            Err(e) => Err(e),
        }
    }

    async fn list_namespace(&self, namespace: &str, all: &mut Vec<Described>) -> Result<(), Failure> {
        let tasks = self.tasks(namespace).await;
        let mut client = service!(ContainersClient, self.sender().await?);
        let stream = client.list_stream(of(namespace, ListContainersRequest::default()));
        let what = "listing containers";
        let mut stream = self.connection.within(what, LIST_DEADLINE, stream).await?;
        let mut images = FxHashMap::default();
        while let Some(message) = stream.next().await {
            let message = message.map_err(|s| self.connection.failure(what, &s))?;
            let Some(container) = message.container else { continue };
            let pid = tasks.as_ref().and_then(|t| t.get(&container.id).copied());
            if tasks.is_some() && pid.is_none() {
                continue;
            }
            let image = container.image.clone();
            let mut d = described(namespace, &container);
            (d.pid, d.listed) = (pid, pid.is_some());
            if namespace != MOBY {
                if !images.contains_key(&image) {
                    images.insert(image.clone(), self.image(namespace, &image).await?);
                }
                (d.image_digest, d.image_id) = images[&image].clone();
            }
            all.push(d);
            if all.len() >= MAX_LISTED {
                break;
            }
        }
        Ok(())
    }

    async fn get(&self, namespace: &str, id: &str) -> Result<Option<Described>, Failure> {
        let mut client = service!(ContainersClient, self.sender().await?);
        let container = client.get(of(namespace, GetContainerRequest { id: id.to_owned() }));
        let container = match self.connection.within("looking up a container", LOOKUP_DEADLINE, container).await {
            Ok(answer) => answer.container,
            Err(Failure::NotFound) => None,
            Err(e) => return Err(e),
        };
        let Some(container) = container else { return Ok(None) };
        let mut d = described(namespace, &container);
        if namespace != MOBY {
            (d.image_digest, d.image_id) = self.image(namespace, &container.image).await?;
        }
        Ok(Some(d))
    }

    /// Digest and id of the image with this name.
    async fn image(&self, namespace: &str, name: &str) -> Result<(Option<Box<str>>, Option<Box<str>>), Failure> {
        if name.is_empty() {
            return Ok((None, None));
        }
        let mut client = service!(ImagesClient, self.sender().await?);
        let image = client.get(of(namespace, GetImageRequest { name: name.to_owned() }));
        let image = match self.connection.within("looking up an image", LOOKUP_DEADLINE, image).await {
            Ok(answer) => answer.image,
            Err(Failure::NotFound) => None,
            Err(e) => return Err(e),
        };
        let Some(target) = image.and_then(|i| i.target) else { return Ok((None, None)) };
        Ok((text(&target.digest), self.image_id(namespace, &target.digest).await?))
    }

    /// An image's id is the digest of its configuration, which its manifest names; an index names manifests.
    async fn image_id(&self, namespace: &str, digest: &str) -> Result<Option<Box<str>>, Failure> {
        let known = |m: &Mutex<FxHashMap<String, Option<Box<str>>>>| {
            m.lock().unwrap_or_else(PoisonError::into_inner).get(digest).cloned()
        };
        if let Some(id) = known(&self.image_ids) {
            return Ok(id);
        }
        let mut manifest = self.manifest(namespace, digest).await?;
        if let Some(own) = manifest.as_ref().and_then(Manifest::of_this_machine) {
            manifest = self.manifest(namespace, &own).await?;
        }
        let id = manifest.and_then(|m| text(&m.config?.digest));
        let mut ids = self.image_ids.lock().unwrap_or_else(PoisonError::into_inner);
        if ids.len() >= MAX_IMAGES {
            ids.clear();
        }
        ids.insert(digest.to_owned(), id.clone());
        Ok(id)
    }

    async fn manifest(&self, namespace: &str, digest: &str) -> Result<Option<Manifest>, Failure> {
        let mut client = service!(ContentClient, self.sender().await?);
        let request = ReadContentRequest { digest: digest.to_owned(), offset: 0, size: 0 };
        let what = "reading an image's manifest";
        let read = async {
            let mut stream = match client.read(of(namespace, request)).await {
                Ok(answer) => answer.into_inner(),
                Err(s) => return Err(self.connection.failure(what, &s)),
            };
            let mut bytes = Vec::new();
            while let Some(part) = stream.next().await {
                bytes.extend(part.map_err(|s| self.connection.failure(what, &s))?.data);
                if bytes.len() > MAX_MANIFEST {
                    return Err(Failure::NotFound);
                }
            }
            Ok(bytes)
        };
        match self.connection.all_within(what, LOOKUP_DEADLINE, read).await {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
            // Content may be gone while the image's name stays.
            Err(Failure::NotFound) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// What an event tells, after a look at its container where it does not tell enough.
    async fn told(&self, happening: Happening) -> Option<News> {
        let runtime = RuntimeName::Containerd;
        match happening {
            Happening::Gone { id } => Some(News::Removed(runtime, id)),
            Happening::Here { namespace, id, pid } if namespace == MOBY => {
                let d = Described { pid: Some(pid?), id, namespace: text(&namespace), ..Described::default() };
                Some(News::Known(runtime, d))
            }
            Happening::Here { namespace, id, pid } => {
                // Without an answer the event's own words have to do; a connection that broke shows in the stream.
                let look =
                    self.connection.all_within("looking up a container", LOOKUP_DEADLINE, self.get(&namespace, &id));
                let found = look.await.ok().flatten();
                let bare = || Described { id, namespace: text(&namespace), ..Described::default() };
                let mut d = found.unwrap_or_else(bare);
                d.pid = pid;
                Some(News::Known(runtime, d))
            }
        }
    }

    fn filters(&self) -> Vec<String> {
        let topics = || TOPICS.iter().map(|t| format!("topic=={t:?}"));
        if self.namespaces.is_empty() {
            return topics().collect();
        }
        self.namespaces.iter().flat_map(|n| topics().map(move |t| format!("namespace=={n:?},{t}"))).collect()
    }
}

/// An event of interest.
#[derive(Debug, PartialEq)]
enum Happening {
    /// `pid`: it was started.
    Here {
        namespace: String,
        id: Box<str>,
        pid: Option<u32>,
    },
    Gone {
        id: Box<str>,
    },
}

fn happening(envelope: Envelope) -> Option<Happening> {
    let namespace = envelope.namespace;
    let event = &*envelope.event?.value;
    let (id, pid) = match &*envelope.topic {
        "/containers/create" => (events::ContainerCreate::decode(event).ok()?.id, None),
        "/containers/update" => (events::ContainerUpdate::decode(event).ok()?.id, None),
        "/tasks/start" => {
            let start = events::TaskStart::decode(event).ok()?;
            (start.container_id, Some(start.pid).filter(|p| *p != 0))
        }
        "/containers/delete" => {
            let id = text(&events::ContainerDelete::decode(event).ok()?.id)?;
            // Docker itself says when one of its containers is gone.
            return (namespace != MOBY).then_some(Happening::Gone { id });
        }
        _ => return None,
    };
    Some(Happening::Here { namespace, id: text(&id)?, pid })
}

/// A container by its specification's annotations and its labels.
fn described(namespace: &str, c: &Container) -> Described {
    let id = text(&c.id).unwrap_or_default();
    let mut d = Described { id, namespace: text(namespace), ..Described::default() };
    if namespace == MOBY {
        return d;
    }
    let spec = c.spec.as_ref().and_then(|s| serde_json::from_slice::<BundleConfig>(&s.value).ok()).unwrap_or_default();
    let label = |key: &str| c.labels.get(key).and_then(|v| text(v));
    let sandbox = spec.sandbox();
    d.sandbox = sandbox.or_else(|| text(&c.sandbox));
    d.image_name = spec.image_name().or_else(|| text(&c.image));
    d.pod = spec.pod().or_else(|| {
        Some(Pod {
            name: label("io.kubernetes.pod.name")?,
            namespace: label("io.kubernetes.pod.namespace")?,
            uid: label("io.kubernetes.pod.uid").unwrap_or_default(),
            container_name: label("io.kubernetes.container.name").unwrap_or_default(),
            ..Pod::default()
        })
    });
    d.name = match &d.pod {
        Some(_) => spec.container_name().or_else(|| label("io.kubernetes.container.name")),
        None => label("nerdctl/name").or_else(|| Some(d.id.clone())),
    };
    d
}

/// A manifest, or an index of manifests for several machines.
#[derive(Debug, Deserialize)]
struct Manifest {
    config: Option<Blob>,
    #[serde(default)]
    manifests: Vec<Blob>,
}

#[derive(Debug, Deserialize)]
struct Blob {
    digest: String,
    platform: Option<Platform>,
}

#[derive(Debug, Deserialize)]
struct Platform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
}

impl Manifest {
    /// Of an index: the digest of this machine's manifest.
    fn of_this_machine(&self) -> Option<String> {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let fits = |b: &&Blob| b.platform.as_ref().is_none_or(|p| p.os == "linux" && p.architecture == architecture);
        self.manifests.iter().find(fits).map(|b| b.digest.clone())
    }
}

impl Client for ContainerdClient {
    async fn hello(&self) -> Result<(), ClientError> {
        let mut client = service!(VersionClient, self.connection.sender().await?);
        let what = "asking for the version";
        match self.connection.within(what, LOOKUP_DEADLINE, client.version(())).await {
            Ok(_) => Ok(()),
            Err(Failure::Client(e)) => Err(e),
            Err(_) => Err(self.connection.refused(what, "this is no containerd".to_owned())),
        }
    }

    async fn watch(&self, _since: SystemTime, news: &mpsc::Sender<News>) -> ClientError {
        let sender = match self.connection.sender().await {
            Ok(sender) => sender,
            Err(e) => return e,
        };
        let what = "reading events";
        let mut client = service!(EventsClient, sender);
        // No deadline: the answer begins with the first event.
        let mut stream = match client.subscribe(SubscribeRequest { filters: self.filters() }).await {
            Ok(answer) => answer.into_inner(),
            Err(s) => return self.stream_error(what, &s),
        };
        let mut open = FuturesUnordered::new();
        loop {
            tokio::select! {
                event = stream.next(), if open.len() < LOOKUPS => match event {
                    Some(Ok(envelope)) => open.extend(happening(envelope).map(|h| self.told(h))),
                    Some(Err(s)) => return self.stream_error(what, &s),
                    None => return self.connection.stream_ended(),
                },
                Some(n) = open.next() => if let Some(n) = n {
                    drop(news.send(n).await);
                },
            }
        }
    }

    async fn list(&self) -> Result<Vec<Described>, ClientError> {
        let work = async {
            let mut all = Vec::new();
            for namespace in self.namespaces().await? {
                self.list_namespace(&namespace, &mut all).await?;
            }
            Ok(all)
        };
        let all = self.connection.all_within("listing containers", LIST_DEADLINE, work).await;
        all.or_else(|e| e.or_absent(Vec::new()))
    }

    async fn lookup(&self, id: &str) -> Result<Option<Described>, ClientError> {
        let work = async {
            for namespace in self.namespaces().await? {
                if let Some(mut d) = self.get(&namespace, id).await? {
                    d.pid = self.pid(&namespace, id).await?;
                    return Ok(Some(d));
                }
            }
            Ok(None)
        };
        let found = self.connection.all_within("looking up a container", LOOKUP_DEADLINE, work).await;
        found.or_else(|e| e.or_absent(None))
    }

    /// Never needed: the digest comes with the container.
    async fn image_digest(&self, _image_id: &str) -> Result<Option<Box<str>>, ClientError> {
        Ok(None)
    }

    fn answers(&self, question: &Question) -> bool {
        matches!(question, Question::Container(_))
    }

    fn runtime(&self) -> RuntimeName {
        RuntimeName::Containerd
    }
}

impl ContainerdClient {
    fn stream_error(&self, what: &'static str, status: &containerd_client::tonic::Status) -> ClientError {
        match self.connection.failure(what, status) {
            Failure::Client(e) => e,
            Failure::NotFound | Failure::Unimplemented => {
                self.connection.refused(what, "this is no containerd".to_owned())
            }
        }
    }
}

#[cfg(test)]
mod tests;
