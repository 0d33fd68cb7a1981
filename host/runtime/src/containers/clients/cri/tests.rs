//! Against a server that answers as CRI-O does. CRI-O itself is not among Debian's packages: its shapes are written down
//! here from its source, so this is an emulation.

use super::*;
use crate::containers::clients::{Asked, Source, follow};
use containerd_client::tonic::{
    Request, Response, Status, async_trait,
    body::Body,
    codegen::{Service, http},
    server::NamedService,
    transport::Server,
};
use futures_util::stream::BoxStream;
use k8s_cri::v1::{
    runtime_service_server::{RuntimeService, RuntimeServiceServer},
    *,
};
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU32, AtomicU64},
};
use tokio::net::UnixListener;

const SANDBOX: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const WEB: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
const IMAGE_ID: &str = "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc";
const SOURCE: Source = Source { number: 3, runtime: RuntimeName::CriO };

/// What the server knows.
#[derive(Clone, Default)]
struct Crio {
    sandboxes: Arc<Mutex<Vec<PodSandbox>>>,
    containers: Arc<Mutex<Vec<ContainerStatus>>>,
    /// `None`: `enable_pod_events` is off.
    events: Option<Arc<Mutex<Vec<ContainerEventResponse>>>>,
    requests: Arc<AtomicU32>,
    /// Milliseconds after which the answers to lists come.
    delay: Arc<AtomicU64>,
}

fn strings(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

fn pod_sandbox() -> PodSandbox {
    PodSandbox {
        id: SANDBOX.into(),
        metadata: Some(PodSandboxMetadata {
            name: "web-0".into(),
            uid: "u-1".into(),
            namespace: "shop".into(),
            attempt: 0,
        }),
        labels: strings(&[
            ("app", "web"),
            ("tier", ""),
            ("io.kubernetes.container.name", "POD"),
            ("io.kubernetes.pod.name", "web-0"),
            ("io.kubernetes.pod.namespace", "shop"),
            ("io.kubernetes.pod.uid", "u-1"),
        ]),
        ..PodSandbox::default()
    }
}

fn status() -> ContainerStatus {
    ContainerStatus {
        id: WEB.into(),
        metadata: Some(ContainerMetadata { name: "nginx".into(), attempt: 0 }),
        state: ContainerState::ContainerRunning.into(),
        image: Some(ImageSpec { image: "docker.io/library/nginx:1.25".into(), ..ImageSpec::default() }),
        image_ref: "docker.io/library/nginx@sha256:1234".into(),
        image_id: IMAGE_ID.into(),
        labels: strings(&[
            ("io.kubernetes.container.name", "nginx"),
            ("io.kubernetes.pod.name", "web-0"),
            ("io.kubernetes.pod.namespace", "shop"),
            ("io.kubernetes.pod.uid", "u-1"),
        ]),
        ..ContainerStatus::default()
    }
}

/// As CRI-O's `server/container_status.go` writes it.
fn info() -> HashMap<String, String> {
    let annotations = serde_json::json!({
        "io.kubernetes.cri-o.Name": "k8s_nginx_web-0_shop_u-1_0",
        "io.kubernetes.cri-o.SandboxID": SANDBOX,
        "io.kubernetes.cri-o.ContainerType": "container",
    });
    let info = serde_json::json!({
        "checkpointedAt": "0001-01-01T00:00:00Z", "sandboxID": SANDBOX, "pid": 4242, "privileged": false,
        "runtimeSpec": {"ociVersion": "1.1.0", "annotations": annotations},
    });
    HashMap::from([("info".to_owned(), info.to_string())])
}

/// A server: the methods in the block are its own, the others are refused.
macro_rules! runtime_service {
    ($($name:ident($request:ident) -> $answer:ident;)* { $($own:tt)* }) => {
        #[async_trait]
        impl RuntimeService for Crio {
            $($own)*
            $(async fn $name(&self, _: Request<$request>) -> Result<Response<$answer>, Status> {
                Err(Status::unimplemented(stringify!($name)))
            })*
        }
    };
}

runtime_service! {
    run_pod_sandbox(RunPodSandboxRequest) -> RunPodSandboxResponse;
    stop_pod_sandbox(StopPodSandboxRequest) -> StopPodSandboxResponse;
    remove_pod_sandbox(RemovePodSandboxRequest) -> RemovePodSandboxResponse;
    create_container(CreateContainerRequest) -> CreateContainerResponse;
    start_container(StartContainerRequest) -> StartContainerResponse;
    stop_container(StopContainerRequest) -> StopContainerResponse;
    remove_container(RemoveContainerRequest) -> RemoveContainerResponse;
    update_container_resources(UpdateContainerResourcesRequest) -> UpdateContainerResourcesResponse;
    reopen_container_log(ReopenContainerLogRequest) -> ReopenContainerLogResponse;
    exec_sync(ExecSyncRequest) -> ExecSyncResponse;
    exec(ExecRequest) -> ExecResponse;
    attach(AttachRequest) -> AttachResponse;
    port_forward(PortForwardRequest) -> PortForwardResponse;
    container_stats(ContainerStatsRequest) -> ContainerStatsResponse;
    list_container_stats(ListContainerStatsRequest) -> ListContainerStatsResponse;
    pod_sandbox_stats(PodSandboxStatsRequest) -> PodSandboxStatsResponse;
    list_pod_sandbox_stats(ListPodSandboxStatsRequest) -> ListPodSandboxStatsResponse;
    update_runtime_config(UpdateRuntimeConfigRequest) -> UpdateRuntimeConfigResponse;
    status(StatusRequest) -> StatusResponse;
    checkpoint_container(CheckpointContainerRequest) -> CheckpointContainerResponse;
    list_metric_descriptors(ListMetricDescriptorsRequest) -> ListMetricDescriptorsResponse;
    list_pod_sandbox_metrics(ListPodSandboxMetricsRequest) -> ListPodSandboxMetricsResponse;
    runtime_config(RuntimeConfigRequest) -> RuntimeConfigResponse;
    {
        async fn version(&self, _: Request<VersionRequest>) -> Result<Response<VersionResponse>, Status> {
            let (runtime_name, runtime_version) = ("cri-o".to_owned(), "1.30.0".to_owned());
            let version = VersionResponse { runtime_name, runtime_version, ..VersionResponse::default() };
            Ok(Response::new(version))
        }

        async fn list_pod_sandbox(
            &self,
            request: Request<ListPodSandboxRequest>,
        ) -> Result<Response<ListPodSandboxResponse>, Status> {
            self.requests.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(self.delay.load(Ordering::Relaxed))).await;
            let id = request.into_inner().filter.unwrap_or_default().id;
            let all = self.sandboxes.lock().unwrap();
            let items = all.iter().filter(|s| s.id.starts_with(&id)).cloned().collect();
            Ok(Response::new(ListPodSandboxResponse { items }))
        }

        async fn pod_sandbox_status(
            &self,
            request: Request<PodSandboxStatusRequest>,
        ) -> Result<Response<PodSandboxStatusResponse>, Status> {
            let id = request.into_inner().pod_sandbox_id;
            let all = self.sandboxes.lock().unwrap();
            let found = all.iter().find(|s| s.id == id).cloned();
            let s = found.ok_or_else(|| Status::not_found(format!("could not find pod {id:?}: ID does not exist")))?;
            let status =
                PodSandboxStatus { id, metadata: s.metadata, labels: s.labels, ..PodSandboxStatus::default() };
            Ok(Response::new(PodSandboxStatusResponse { status: Some(status), ..Default::default() }))
        }

        async fn list_containers(
            &self,
            request: Request<ListContainersRequest>,
        ) -> Result<Response<ListContainersResponse>, Status> {
            self.requests.fetch_add(1, Ordering::Relaxed);
            let state = request.into_inner().filter.and_then(|f| f.state).map(|s| s.state);
            let all = self.containers.lock().unwrap();
            let fits = all.iter().filter(|c| state.is_none_or(|s| s == c.state));
            let containers = fits.map(|c| k8s_cri::v1::Container {
                id: c.id.clone(),
                pod_sandbox_id: SANDBOX.into(),
                metadata: c.metadata.clone(),
                image: c.image.clone(),
                image_ref: c.image_ref.clone(),
                image_id: c.image_id.clone(),
                state: c.state,
                labels: c.labels.clone(),
                ..Default::default()
            });
            Ok(Response::new(ListContainersResponse { containers: containers.collect() }))
        }

        async fn container_status(
            &self,
            request: Request<ContainerStatusRequest>,
        ) -> Result<Response<ContainerStatusResponse>, Status> {
            self.requests.fetch_add(1, Ordering::Relaxed);
            let request = request.into_inner();
            let all = self.containers.lock().unwrap();
            let found = all.iter().find(|c| c.id == request.container_id).cloned();
            let status = found.ok_or_else(|| Status::not_found("ID does not exist"))?;
            let info = if request.verbose { info() } else { HashMap::new() };
            Ok(Response::new(ContainerStatusResponse { status: Some(status), info }))
        }

        type GetContainerEventsStream = BoxStream<'static, Result<ContainerEventResponse, Status>>;

        async fn get_container_events(
            &self,
            _: Request<GetEventsRequest>,
        ) -> Result<Response<Self::GetContainerEventsStream>, Status> {
            let Some(events) = self.events.clone() else {
                return Err(Status::unimplemented("method GetContainerEvents not implemented"));
            };
            let stream = futures_util::stream::unfold(events, |events| async {
                loop {
                    let next = events.lock().unwrap().pop();
                    if let Some(event) = next {
                        return Some((Ok(event), events));
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            });
            Ok(Response::new(stream.boxed()))
        }
    }
}

/// Serves until dropped; then its connections end too.
struct Serving {
    socket: std::path::PathBuf,
    _dir: tempfile::TempDir,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().unwrap().join().unwrap();
    }
}

/// A server with one service, on a thread and a runtime of its own.
fn serve<S>(service: S) -> Serving
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = std::convert::Infallible>
        + NamedService
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send + 'static,
{
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("crio.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    listener.set_nonblocking(true).unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = UnixListener::from_std(listener).unwrap();
            let incoming = futures_util::stream::unfold(listener, |listener| async {
                let (stream, _) = listener.accept().await.unwrap();
                Some((Ok::<_, std::io::Error>(stream), listener))
            });
            let serving = Server::builder().add_service(service).serve_with_incoming(Box::pin(incoming));
            tokio::select! {
                end = serving => end.unwrap(),
                // The sender is dropped: that is the sign.
                _gone = stopped => {}
            }
        });
    });
    Serving { socket, _dir: dir, stop: Some(stop), thread: Some(thread) }
}

fn crio_server(crio: &Crio) -> Serving {
    serve(RuntimeServiceServer::new(crio.clone()))
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(120), work).await.expect("it hangs") })
}

async fn next(hear: &mut mpsc::Receiver<News>) -> News {
    loop {
        let n = hear.recv().await.expect("the client lives");
        if n != News::FirstAnswer {
            return n;
        }
    }
}

#[test]
fn what_crio_lists_and_what_it_says_of_one() {
    block_on(async {
        let crio = Crio::default();
        crio.sandboxes.lock().unwrap().push(pod_sandbox());
        crio.containers.lock().unwrap().push(status());
        let exited = ContainerStatus { state: ContainerState::ContainerExited.into(), id: "gone".into(), ..status() };
        crio.containers.lock().unwrap().push(exited);
        let server = crio_server(&crio);
        let path = server.socket.clone();
        let client = CriClient::new(RuntimeName::CriO, &path);
        client.hello().await.unwrap();
        assert_eq!(client.knows_pods(), Some(true));
        insta::assert_debug_snapshot!("crio_list", client.list().await.unwrap());
        insta::assert_debug_snapshot!("crio_lookup", client.lookup(WEB).await.unwrap());
        let sandbox = client.lookup(SANDBOX).await.unwrap().unwrap();
        assert_eq!((sandbox.sandbox.as_deref(), sandbox.pid), (Some(SANDBOX), None));
        assert_eq!(client.sandbox(SANDBOX).await.unwrap().unwrap().pod, sandbox.pod);
        assert_eq!(client.sandbox(&SANDBOX[..12]).await.unwrap(), None, "the beginning of an id is not the id");
        assert_eq!(client.lookup("nobody").await.unwrap(), None);
    });
}

/// CRI-O runs the runtime first and lists the container afterwards; without events nothing else tells of it.
#[test]
fn a_container_that_is_being_made_is_asked_for_until_it_is_listed_and_nothing_is_asked_in_between() {
    block_on(async {
        let crio = Crio::default();
        let server = crio_server(&crio);
        let path = server.socket.clone();
        let (news, mut hear) = mpsc::channel(16);
        let (ask, questions) = mpsc::channel(16);
        tokio::spawn(follow(SOURCE, move || Ok(Some(CriClient::new(RuntimeName::CriO, &path))), news, questions));
        assert_eq!(next(&mut hear).await, News::Listing(SOURCE));
        assert_eq!(next(&mut hear).await, News::Connected { source: SOURCE, pods: Some(true) });
        let before = crio.requests.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(1200)).await;
        assert_eq!(crio.requests.load(Ordering::Relaxed), before, "an idle client asks nothing");

        let start = Instant::now();
        for question in [Question::Container(WEB.into()), Question::Sandbox(SANDBOX.into())] {
            ask.send(Asked { question, at: Instant::now() }).await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
        crio.sandboxes.lock().unwrap().push(pod_sandbox());
        crio.containers.lock().unwrap().push(status());
        let mut known: Vec<Described> = Vec::new();
        while known.len() < 2 {
            let News::Known(RuntimeName::CriO, d) = next(&mut hear).await else { panic!("no answer") };
            known.push(d);
        }
        known.sort_by(|a, b| a.id.cmp(&b.id));
        let labels = known[0].pod.as_ref().unwrap().labels.as_ref().unwrap();
        assert_eq!(labels.keys().map(|k| &**k).collect::<Vec<_>>(), ["app", "tier"]);
        assert_eq!((&*known[1].id, known[1].pid), (WEB, Some(4242)));
        // Two questions of two requests at most, each 2.5 times a second in the end; a busy machine answers late.
        let (asked, seconds) = (crio.requests.load(Ordering::Relaxed) - before, start.elapsed().as_secs_f64());
        assert!(f64::from(asked) < 30.0 + 10.0 * seconds, "asked {asked} times in {seconds} s, with growing pauses");
    });
}

#[test]
fn events_name_containers_and_bring_the_labels_of_their_pods() {
    block_on(async {
        let crio = Crio { events: Some(Arc::default()), ..Crio::default() };
        let server = crio_server(&crio);
        let path = server.socket.clone();
        let (news, mut hear) = mpsc::channel(16);
        let (_ask, questions) = mpsc::channel(16);
        tokio::spawn(follow(SOURCE, move || Ok(Some(CriClient::new(RuntimeName::CriO, &path))), news, questions));
        while next(&mut hear).await != (News::Connected { source: SOURCE, pods: Some(true) }) {}
        let sandbox = pod_sandbox();
        let event = |kind: ContainerEventType| ContainerEventResponse {
            container_id: WEB.into(),
            container_event_type: kind.into(),
            pod_sandbox_status: Some(PodSandboxStatus {
                id: SANDBOX.into(),
                metadata: sandbox.metadata.clone(),
                labels: sandbox.labels.clone(),
                ..PodSandboxStatus::default()
            }),
            containers_statuses: vec![status()],
            ..ContainerEventResponse::default()
        };
        let send = |kind| crio.events.as_ref().unwrap().lock().unwrap().push(event(kind));
        send(ContainerEventType::ContainerStartedEvent);
        let News::Known(_, pod) = next(&mut hear).await else { panic!("no pod") };
        assert_eq!((pod.sandbox.as_deref(), pod.pod.unwrap().labels.unwrap().len()), (Some(SANDBOX), 2));
        let News::Known(_, own) = next(&mut hear).await else { panic!("no container") };
        assert_eq!((own.name.as_deref(), own.sandbox.as_deref()), (Some("nginx"), Some(SANDBOX)));
        send(ContainerEventType::ContainerStoppedEvent);
        send(ContainerEventType::ContainerDeletedEvent);
        // The stack gives the last one first; that it stopped is the kernel's to say.
        assert_eq!(next(&mut hear).await, News::Removed(RuntimeName::CriO, WEB.into()));
        tokio::time::sleep(STREAM_LIVES).await;
        drop(server);
        let lost = next(&mut hear).await;
        assert!(matches!(&lost, News::Lost(SOURCE, _)), "{lost:?}");
    });
}

#[test]
fn a_server_without_the_cri_has_no_pods_and_is_no_failure_beside_containerds_own_api() {
    block_on(async {
        // Some service, but none of the CRI's that matter.
        let server = serve(image_service_server::ImageServiceServer::new(NoImages));
        let path = server.socket.clone();
        let client = CriClient::for_pods(RuntimeName::Containerd, &path);
        client.hello().await.unwrap();
        assert_eq!((client.knows_pods(), client.list().await.unwrap().len()), (Some(false), 0));
        let e = CriClient::new(RuntimeName::CriO, &path).hello().await.unwrap_err();
        let said = format!(
            "cri-o: asking for the version at {} failed: it does not speak the CRI, version v1",
            path.display()
        );
        assert_eq!(e.to_string(), said);
    });
}

struct NoImages;

#[async_trait]
impl image_service_server::ImageService for NoImages {
    async fn list_images(&self, _: Request<ListImagesRequest>) -> Result<Response<ListImagesResponse>, Status> {
        Err(Status::unimplemented("none"))
    }
    async fn image_status(&self, _: Request<ImageStatusRequest>) -> Result<Response<ImageStatusResponse>, Status> {
        Err(Status::unimplemented("none"))
    }
    async fn pull_image(&self, _: Request<PullImageRequest>) -> Result<Response<PullImageResponse>, Status> {
        Err(Status::unimplemented("none"))
    }
    async fn remove_image(&self, _: Request<RemoveImageRequest>) -> Result<Response<RemoveImageResponse>, Status> {
        Err(Status::unimplemented("none"))
    }
    async fn image_fs_info(&self, _: Request<ImageFsInfoRequest>) -> Result<Response<ImageFsInfoResponse>, Status> {
        Err(Status::unimplemented("none"))
    }
}

#[test]
fn a_list_that_hangs_ends_at_its_deadline() {
    block_on(async {
        let crio = Crio::default();
        crio.delay.store(60_000, Ordering::Relaxed);
        let server = crio_server(&crio);
        let path = server.socket.clone();
        let client = CriClient::new(RuntimeName::CriO, &path);
        client.hello().await.unwrap();
        let e = client.sandbox(SANDBOX).await.unwrap_err();
        assert!(matches!(e, ClientError::Deadline { what: "listing pods", .. }), "{e}");
    });
}

#[test]
fn images_are_told_by_what_is_in_them() {
    let image = |image: &str, reference: &str, id: &str| {
        let mut d = Described::default();
        add_image(&mut d, Some(ImageSpec { image: image.into(), ..ImageSpec::default() }), reference, id);
        let text = |o: Option<Box<str>>| o.unwrap_or_else(|| "-".into());
        format!("{} {} {}", text(d.image_name), text(d.image_id), text(d.image_digest))
    };
    let id = format!("sha256:{IMAGE_ID}");
    assert_eq!(image("nginx:1", "nginx@sha256:12", ""), "nginx:1 - sha256:12");
    assert_eq!(image("nginx:1", &id, ""), format!("nginx:1 {id} -"));
    assert_eq!(image(&id, IMAGE_ID, ""), format!("- {IMAGE_ID} -"), "an id is no name");
    assert_eq!(image("nginx:1", "nginx@sha256:12", IMAGE_ID), format!("nginx:1 {IMAGE_ID} sha256:12"));
    assert_eq!(image("", "", ""), "- - -");
}
