//! The Kubernetes container runtime interface: CRI-O's only API, an alternative for containerd, and beside containerd's
//! own API the one place that knows the labels of pods.
//!
//! Runs on the containers' thread, as a task. Servers that report events are listened to; others (containerd before 1.7,
//! CRI-O without `enable_pod_events`) are asked when something is born, and never without a reason.

use super::{
    Client, ClientError, Described, LIST_DEADLINE, LOOKUP_DEADLINE, MAX_LISTED, News, Question,
    grpc::{Connection, Failure, MAX_MESSAGE, ORIGIN, Sender},
    pod_labels, text,
};
use crate::containers::{
    container::{Pod, RuntimeName},
    identify::BundleConfig,
};
use containerd_client::tonic::codegen::http::Uri;
use futures_util::StreamExt;
use k8s_cri::v1::{
    Container, ContainerEventResponse, ContainerEventType, ContainerFilter, ContainerState, ContainerStateValue,
    ContainerStatus, ContainerStatusRequest, GetEventsRequest, ImageSpec, ImageStatusRequest, ListContainersRequest,
    ListPodSandboxRequest, PodSandboxFilter, PodSandboxMetadata, PodSandboxStatusRequest, VersionRequest,
    image_service_client::ImageServiceClient, runtime_service_client::RuntimeServiceClient,
};
use serde::Deserialize;
use std::{
    collections::HashMap,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, SystemTime},
};
use tokio::{sync::mpsc, time::Instant};

/// Where CRI-O listens by default.
pub(super) const CRIO_SOCKETS: &[&str] = &["/run/crio/crio.sock", "/var/run/crio/crio.sock"];
/// An event stream that ends sooner than this was never meant to be one.
const STREAM_LIVES: Duration = Duration::from_secs(1);

pub(super) struct CriClient {
    connection: Connection,
    /// The containers are another client's business.
    pods_only: bool,
    /// The server speaks this interface.
    speaks: AtomicBool,
}

impl CriClient {
    /// Prepares a client for containers and pods; the first request connects.
    pub(super) fn new(runtime: RuntimeName, socket: &Path) -> Self {
        let connection = Connection::new(runtime, socket);
        CriClient { connection, pods_only: false, speaks: AtomicBool::new(false) }
    }

    /// Prepares a client for pods only.
    pub(super) fn for_pods(runtime: RuntimeName, socket: &Path) -> Self {
        CriClient { pods_only: true, ..CriClient::new(runtime, socket) }
    }

    async fn client(&self) -> Result<RuntimeServiceClient<Sender>, Failure> {
        let sender = self.connection.sender().await.map_err(Failure::Client)?;
        let client = RuntimeServiceClient::with_origin(sender, Uri::from_static(ORIGIN));
        Ok(client.max_decoding_message_size(MAX_MESSAGE))
    }

    /// Sandboxes: all, or the one with this id.
    async fn sandboxes(&self, id: Option<&str>, deadline: Duration) -> Result<Vec<Described>, Failure> {
        let mut client = self.client().await?;
        let filter = id.map(|id| PodSandboxFilter { id: id.to_owned(), ..PodSandboxFilter::default() });
        let all = client.list_pod_sandbox(ListPodSandboxRequest { filter });
        let all = self.connection.within("listing pods", deadline, all).await?;
        let all = all.items.into_iter().take(MAX_LISTED);
        Ok(all.filter_map(|s| sandbox(&s.id, s.metadata, &s.labels)).collect())
    }

    async fn running(&self) -> Result<Vec<Described>, Failure> {
        let mut client = self.client().await?;
        let state = Some(ContainerStateValue { state: ContainerState::ContainerRunning.into() });
        let filter = Some(ContainerFilter { state, ..ContainerFilter::default() });
        let all = client.list_containers(ListContainersRequest { filter });
        let all = self.connection.within("listing containers", LIST_DEADLINE, all).await?;
        Ok(all.containers.into_iter().take(MAX_LISTED).filter_map(listed).collect())
    }

    async fn container(&self, id: &str) -> Result<Option<Described>, Failure> {
        let mut client = self.client().await?;
        let status = client.container_status(ContainerStatusRequest { container_id: id.to_owned(), verbose: true });
        match self.connection.within("looking up a container", LOOKUP_DEADLINE, status).await {
            Ok(answer) => Ok(answer.status.and_then(|s| with_info(from_status(s)?, &answer.info))),
            Err(Failure::NotFound) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// A sandbox with its first process, if it has one.
    async fn sandbox_status(&self, id: &str) -> Result<Option<Described>, Failure> {
        let mut client = self.client().await?;
        let request = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: true };
        match self.connection.within("looking up a pod", LOOKUP_DEADLINE, client.pod_sandbox_status(request)).await {
            Ok(answer) => {
                let status = answer.status.and_then(|s| sandbox(&s.id, s.metadata, &s.labels));
                Ok(status.and_then(|d| with_info(d, &answer.info)))
            }
            Err(Failure::NotFound) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Reads the events; `None`: the server has none to report.
    async fn events(&self, news: &mpsc::Sender<News>) -> Option<ClientError> {
        let what = "reading events";
        let mut client = match self.client().await {
            Ok(client) => client,
            Err(e) => return e.or_absent(()).err(),
        };
        let began = Instant::now();
        // No deadline: the answer begins with the first event.
        let mut stream = match client.get_container_events(GetEventsRequest {}).await {
            Ok(answer) => answer.into_inner(),
            Err(s) => {
                return self
                    .connection
                    .failure(what, &s)
                    .or_absent(())
                    .err()
                    .filter(|_| began.elapsed() > STREAM_LIVES);
            }
        };
        loop {
            match stream.next().await {
                Some(Ok(event)) => {
                    for n in told(self.connection.runtime(), event) {
                        drop(news.send(n).await);
                    }
                }
                _ if began.elapsed() < STREAM_LIVES => return None,
                Some(Err(s)) => return self.connection.failure(what, &s).or_absent(()).err(),
                None => return Some(self.connection.stream_ended()),
            }
        }
    }
}

/// What an event tells of a container and of its pod.
fn told(runtime: RuntimeName, event: ContainerEventResponse) -> Vec<News> {
    let Some(id) = text(&event.container_id) else { return Vec::new() };
    if event.container_event_type == ContainerEventType::ContainerDeletedEvent as i32 {
        return vec![News::Removed(runtime, id)];
    }
    if event.container_event_type == ContainerEventType::ContainerStoppedEvent as i32 {
        return Vec::new();
    }
    let pod = event.pod_sandbox_status.and_then(|s| sandbox(&s.id, s.metadata, &s.labels));
    let own = event.containers_statuses.into_iter().find(|s| s.id == event.container_id).and_then(from_status);
    let own = own.map(|mut d| {
        d.sandbox = pod.as_ref().map(|p| p.id.clone());
        d
    });
    pod.into_iter().chain(own).map(|d| News::Known(runtime, d)).collect()
}

fn sandbox(id: &str, metadata: Option<PodSandboxMetadata>, labels: &HashMap<String, String>) -> Option<Described> {
    let (id, m) = (text(id)?, metadata?);
    let pod = Pod {
        name: text(&m.name)?,
        namespace: text(&m.namespace)?,
        uid: text(&m.uid).unwrap_or_default(),
        labels: Some(pod_labels(labels)),
        ..Pod::default()
    };
    Some(Described { sandbox: Some(id.clone()), id, pod: Some(pod), ..Described::default() })
}

/// The pod of a container, by the labels that the kubelet gives it.
fn pod(labels: &HashMap<String, String>, container_name: Option<&str>) -> Option<Pod> {
    let label = |key: &str| labels.get(key).and_then(|v| text(v));
    Some(Pod {
        name: label("io.kubernetes.pod.name")?,
        namespace: label("io.kubernetes.pod.namespace")?,
        uid: label("io.kubernetes.pod.uid").unwrap_or_default(),
        container_name: label("io.kubernetes.container.name").or_else(|| text(container_name?)).unwrap_or_default(),
        ..Pod::default()
    })
}

/// Name, id and digest of an image. `reference` is an id, or a name with a digest; `id` only newer servers send.
fn add_image(d: &mut Described, image: Option<ImageSpec>, reference: &str, id: &str) {
    let spec = image.unwrap_or_default();
    let hash = |s: &str| s.starts_with("sha256:") || s.len() == 64 && s.bytes().all(|b| b.is_ascii_hexdigit());
    let digest = reference.split_once('@').map(|(_, digest)| digest);
    d.image_digest = digest.and_then(text);
    d.image_id = text(id).or_else(|| if digest.is_none() && hash(reference) { text(reference) } else { None });
    // What the user wrote, rather than what it became.
    let name = [&spec.user_specified_image, &spec.image].into_iter().find(|s| !s.is_empty() && !hash(s));
    d.image_name = name.and_then(|s| text(s));
}

fn listed(c: Container) -> Option<Described> {
    let name = c.metadata.map(|m| m.name);
    let mut d = Described {
        id: text(&c.id)?,
        pod: pod(&c.labels, name.as_deref()),
        name: name.as_deref().and_then(text),
        sandbox: text(&c.pod_sandbox_id),
        listed: true,
        ..Described::default()
    };
    add_image(&mut d, c.image, &c.image_ref, &c.image_id);
    Some(d)
}

fn from_status(s: ContainerStatus) -> Option<Described> {
    let name = s.metadata.map(|m| m.name);
    let mut d = Described {
        id: text(&s.id)?,
        pod: pod(&s.labels, name.as_deref()),
        name: name.as_deref().and_then(text),
        ..Described::default()
    };
    add_image(&mut d, s.image, &s.image_ref, &s.image_id);
    Some(d)
}

/// What containerd and CRI-O add, as JSON, to the verbose status of a container or sandbox.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Info {
    #[serde(default)]
    pid: u32,
    #[serde(default, rename = "sandboxID")]
    sandbox_id: String,
    #[serde(default)]
    runtime_spec: Option<BundleConfig>,
}

fn with_info(mut d: Described, info: &HashMap<String, String>) -> Option<Described> {
    let info: Info = info.get("info").and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default();
    d.pid = Some(info.pid).filter(|p| *p != 0);
    let spec = info.runtime_spec.unwrap_or_default();
    d.sandbox = d.sandbox.or_else(|| text(&info.sandbox_id)).or_else(|| spec.sandbox());
    d.image_name = d.image_name.or_else(|| spec.image_name());
    Some(d)
}

impl Client for CriClient {
    async fn hello(&self) -> Result<(), ClientError> {
        let what = "asking for the version";
        let asked = async {
            let mut client = self.client().await?;
            let version = client.version(VersionRequest { version: "v1".to_owned() });
            self.connection.within(what, LOOKUP_DEADLINE, version).await
        };
        match asked.await {
            Ok(_) => self.speaks.store(true, Ordering::Relaxed),
            Err(Failure::Client(e)) => return Err(e),
            // A containerd without the CRI, as Docker's: it has no pods.
            Err(_) if self.pods_only => {}
            Err(_) => return Err(self.connection.refused(what, "it does not speak the CRI, version v1".to_owned())),
        }
        Ok(())
    }

    async fn watch(&self, _since: SystemTime, news: &mpsc::Sender<News>) -> ClientError {
        if !self.pods_only
            && let Some(e) = self.events(news).await
        {
            return e;
        }
        self.connection.ended().await
    }

    async fn list(&self) -> Result<Vec<Described>, ClientError> {
        if !self.knows_pods().unwrap_or_default() {
            return Ok(Vec::new());
        }
        let work = async {
            let mut all = self.sandboxes(None, LIST_DEADLINE).await?;
            if !self.pods_only {
                all.extend(self.running().await?);
            }
            Ok(all)
        };
        let all = self.connection.all_within("listing containers", LIST_DEADLINE, work).await;
        all.or_else(|e| e.or_absent(Vec::new()))
    }

    async fn lookup(&self, id: &str) -> Result<Option<Described>, ClientError> {
        let found = match self.container(id).await {
            Ok(None) => self.sandbox_status(id).await,
            other => other,
        };
        found.or_else(|e| e.or_absent(None))
    }

    async fn sandbox(&self, id: &str) -> Result<Option<Described>, ClientError> {
        if !self.knows_pods().unwrap_or_default() {
            return Ok(None);
        }
        let found = self.sandboxes(Some(id), LOOKUP_DEADLINE).await;
        // Servers take the beginning of an id for the id.
        found.map(|all| all.into_iter().find(|s| *s.id == *id)).or_else(|e| e.or_absent(None))
    }

    async fn image_digest(&self, image_id: &str) -> Result<Option<Box<str>>, ClientError> {
        let sender = self.connection.sender().await?;
        let client = ImageServiceClient::with_origin(sender, Uri::from_static(ORIGIN));
        let mut client = client.max_decoding_message_size(MAX_MESSAGE);
        let image = Some(ImageSpec { image: image_id.to_owned(), ..ImageSpec::default() });
        let status = client.image_status(ImageStatusRequest { image, verbose: false });
        match self.connection.within("looking up an image", LOOKUP_DEADLINE, status).await {
            Ok(answer) => {
                let digests = answer.image.map(|i| i.repo_digests).unwrap_or_default();
                Ok(digests.iter().find_map(|d| text(d.rsplit_once('@')?.1)))
            }
            Err(e) => e.or_absent(None),
        }
    }

    fn knows_pods(&self) -> Option<bool> {
        Some(self.speaks.load(Ordering::Relaxed))
    }

    fn answers(&self, question: &Question) -> bool {
        matches!(question, Question::Sandbox(_)) || !self.pods_only
    }

    fn runtime(&self) -> RuntimeName {
        self.connection.runtime()
    }
}

#[cfg(test)]
mod tests;
