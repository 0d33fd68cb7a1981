//! A containerd of the test's own with its CRI service, in a directory of its own; and pods, as a kubelet makes them.
//!
//! Needs root, Debian's containerd, runc and busybox-static.

use crate::process::run;
use containerd_client::tonic::transport::{Channel, Endpoint};
use k8s_cri::v1::{
    ContainerConfig, ContainerMetadata, CreateContainerRequest, ImageSpec, LinuxContainerConfig,
    LinuxContainerSecurityContext, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, ListPodSandboxRequest,
    NamespaceMode, NamespaceOption, PodSandboxConfig, PodSandboxMetadata, RunPodSandboxRequest, StartContainerRequest,
    runtime_service_client::RuntimeServiceClient,
};
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Output},
    thread::sleep,
    time::Duration,
};

pub(crate) const IMAGE: &str = "docker.io/library/busybox:latest";
const PAUSE: &str = "registry.k8s.io/pause:3.6";

fn text(out: Output) -> String {
    String::from_utf8(out.stdout).unwrap()
}

pub(crate) struct Containerd {
    dir: tempfile::TempDir,
    daemon: Option<Child>,
    /// Digest of the image's configuration.
    pub(crate) image_id: String,
}

impl Containerd {
    /// Starts it, with a busybox image in each namespace.
    pub(crate) fn start(namespaces: &[&str]) -> Containerd {
        let dir = tempfile::Builder::new().prefix("igcd-").tempdir().unwrap();
        let p = |name: &str| dir.path().join(name).display().to_string();
        // Without CAP_SYS_RESOURCE nobody may ask the kernel to spare a process.
        let config = format!(
            r#"version = 2
root = "{root}"
state = "{state}"
[grpc]
  address = "{socket}"
[ttrpc]
  address = "{socket}.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "{opt}"
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  sandbox_image = "{PAUSE}"
  disable_tcp_service = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{opt}"
    conf_dir = "{opt}"
"#,
            root = p("root"),
            state = p("state"),
            socket = p("cd.sock"),
            opt = p("opt"),
        );
        fs::write(dir.path().join("config.toml"), config).unwrap();
        let image_id = image(&dir.path().join("image.tar"));
        let mut c = Containerd { dir, daemon: None, image_id };
        c.again();
        for namespace in namespaces {
            let tar = c.dir.path().join("image.tar");
            run(c.ctr(namespace).args(["image", "import"]).arg(tar));
        }
        c
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("cd.sock")
    }

    /// Starts the daemon, again.
    pub(crate) fn again(&mut self) {
        let log = File::options().append(true).create(true).open(self.dir.path().join("log")).unwrap();
        let mut command = Command::new("containerd");
        command.arg("--config").arg(self.dir.path().join("config.toml"));
        self.daemon = Some(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().expect("containerd starts"));
        for _ in 0..2400 {
            if self.ctr("default").arg("version").output().is_ok_and(|o| o.status.success()) {
                return;
            }
            sleep(Duration::from_millis(50));
        }
        panic!("no containerd: {}", fs::read_to_string(self.dir.path().join("log")).unwrap());
    }

    /// SIGKILL to the daemon; its containers stay.
    pub(crate) fn kill(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().unwrap();
            daemon.wait().unwrap();
        }
    }

    pub(crate) fn ctr(&self, namespace: &str) -> Command {
        let mut c = Command::new("ctr");
        c.arg("-a").arg(self.socket()).args(["-n", namespace]);
        c
    }

    /// `ctr run` with these options in front of the image, and the program.
    pub(crate) fn run(&self, namespace: &str, options: &[&str], id: &str, program: &[&str]) -> Output {
        run(self.ctr(namespace).arg("run").args(options).args([IMAGE, id]).args(program))
    }

    /// Runs a short container and gives what it printed. On a loaded machine `ctr` now and then loses the output of a fast
    /// program: without ground truth it is run again.
    pub(crate) fn said(&self, namespace: &str, options: &[&str], id: &str, program: &[&str]) -> String {
        let options: Vec<&str> = ["--rm"].iter().chain(options).copied().collect();
        let mut tries = (0..5).map(|_| text(self.run(namespace, &options, id, program)));
        tries.find(|said| !said.trim().is_empty()).expect("a container that prints something")
    }

    pub(crate) fn pid(&self, namespace: &str, id: &str) -> u32 {
        let list = text(run(self.ctr(namespace).args(["task", "ls"])));
        let line = list.lines().find(|l| l.split_whitespace().next() == Some(id));
        let pid = line.and_then(|l| l.split_whitespace().nth(1)?.parse().ok());
        pid.unwrap_or_else(|| panic!("no task {id} in {list}"))
    }

    /// Digest of the image's manifest, as containerd itself says.
    pub(crate) fn image_digest(&self, namespace: &str) -> String {
        let list = text(run(self.ctr(namespace).args(["image", "ls"])));
        let line = list.lines().find(|l| l.starts_with(IMAGE)).unwrap();
        line.split_whitespace().find(|w| w.starts_with("sha256:")).unwrap().to_owned()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if self.daemon.is_none() && !std::thread::panicking() {
            self.again();
        }
        let lines =
            |c: &mut Command| c.output().map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
        for namespace in lines(self.ctr("default").args(["namespace", "ls", "-q"])).lines() {
            for task in lines(self.ctr(namespace).args(["task", "ls", "-q"])).lines() {
                drop(self.ctr(namespace).args(["task", "rm", "-f", task]).output());
            }
        }
        if let Some(daemon) = &mut self.daemon {
            drop(Command::new("kill").args(["-TERM", &daemon.id().to_string()]).status());
            for _ in 0..100 {
                if matches!(daemon.try_wait(), Ok(Some(_))) {
                    break;
                }
                sleep(Duration::from_millis(50));
            }
            drop(daemon.kill());
            drop(daemon.wait());
        }
        // Whatever a daemon that was cut short has left: shims of ours, and mounts.
        let socket = self.socket().display().to_string();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let args = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let args: Vec<_> = args.split(|b| *b == 0).collect();
            if args[0].ends_with(b"containerd-shim-runc-v2") && args.contains(&socket.as_bytes()) {
                drop(Command::new("kill").args(["-9", &entry.file_name().to_string_lossy()]).status());
            }
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let ours = self.dir.path().display().to_string();
        for mount in mounts.lines().rev().filter_map(|l| l.split(' ').nth(1)).filter(|m| m.starts_with(&ours)) {
            drop(Command::new("umount").args(["-l", mount]).status());
        }
    }
}

/// An image archive as `docker save` writes it: busybox, under its own name and as the pods' pause. Gives its id.
fn image(path: &Path) -> String {
    let mut layer = tar::Builder::new(Vec::new());
    let mut busybox = File::open("/bin/busybox").expect("busybox-static is installed");
    for dir in ["bin", "proc", "sys", "dev", "etc", "tmp"] {
        layer.append_dir(dir, "/").unwrap();
    }
    layer.append_file("bin/busybox", &mut busybox).unwrap();
    for applet in ["sh", "readlink", "cat", "sleep"] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        layer.append_link(&mut header, format!("bin/{applet}"), "busybox").unwrap();
    }
    let layer = layer.into_inner().unwrap();
    let sha = |bytes: &[u8]| format!("sha256:{}", hex::encode(Sha256::digest(bytes)));
    let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = serde_json::json!({
        "architecture": arch, "os": "linux",
        "config": {"Entrypoint": null, "Cmd": ["/bin/busybox", "sleep", "1000000"], "Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [sha(&layer)]},
    });
    let config = config.to_string().into_bytes();
    let manifest = serde_json::json!([{"Config": "config.json", "RepoTags": [IMAGE, PAUSE], "Layers": ["layer.tar"]}]);
    let mut archive = tar::Builder::new(File::create(path).unwrap());
    for (name, bytes) in
        [("layer.tar", layer), ("config.json", config.clone()), ("manifest.json", manifest.to_string().into_bytes())]
    {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, &*bytes).unwrap();
    }
    archive.finish().unwrap();
    sha(&config)
}

/// Makes pods as a kubelet does. They use the host's network, which needs no CNI plugin.
pub(crate) struct Kubelet {
    io: tokio::runtime::Runtime,
    cri: RuntimeServiceClient<Channel>,
    logs: tempfile::TempDir,
}

async fn connect(socket: &Path) -> RuntimeServiceClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).unwrap();
    let mut client = RuntimeServiceClient::new(endpoint.connect().await.expect("a CRI service"));
    // The daemon answers before this service of it does.
    for _ in 0..2400 {
        if client.list_pod_sandbox(ListPodSandboxRequest::default()).await.is_ok() {
            return client;
        }
        sleep(Duration::from_millis(50));
    }
    panic!("the CRI service does not answer");
}

pub(crate) struct Pod {
    pub(crate) sandbox: String,
    name: String,
    config: PodSandboxConfig,
}

fn labels(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

impl Kubelet {
    pub(crate) fn new(socket: &Path) -> Kubelet {
        let io = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let cri = io.block_on(connect(socket));
        Kubelet { io, cri, logs: tempfile::tempdir().unwrap() }
    }

    /// To the daemon that was started anew.
    pub(crate) fn connect_again(&mut self, socket: &Path) {
        self.cri = self.io.block_on(connect(socket));
    }

    /// Runs a pod in the namespace `shop`.
    pub(crate) fn pod(&mut self, name: &str, own: &[(&str, &str)]) -> Pod {
        let uid = format!("uid-{name}");
        let mut all = labels(own);
        all.extend(self.kubelets(name));
        let network = NamespaceOption { network: NamespaceMode::Node as i32, ..NamespaceOption::default() };
        let security = LinuxSandboxSecurityContext { namespace_options: Some(network), ..Default::default() };
        let config = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata { name: name.into(), uid, namespace: "shop".into(), attempt: 0 }),
            labels: all,
            log_directory: self.logs.path().join(name).display().to_string(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: format!("/kubepods/pod-{name}"),
                security_context: Some(security),
                ..LinuxPodSandboxConfig::default()
            }),
            ..PodSandboxConfig::default()
        };
        fs::create_dir_all(&config.log_directory).unwrap();
        let request = RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() };
        let sandbox = self.io.block_on(self.cri.run_pod_sandbox(request)).expect("a pod").into_inner().pod_sandbox_id;
        Pod { sandbox, name: name.to_owned(), config }
    }

    fn kubelets(&self, pod: &str) -> HashMap<String, String> {
        labels(&[
            ("io.kubernetes.pod.name", pod),
            ("io.kubernetes.pod.namespace", "shop"),
            ("io.kubernetes.pod.uid", &format!("uid-{pod}")),
        ])
    }

    /// Starts a container in the pod; gives its id.
    pub(crate) fn container(&mut self, pod: &Pod, name: &str, program: &[&str]) -> String {
        let mut all = self.kubelets(&pod.name);
        all.extend(labels(&[("io.kubernetes.container.name", name)]));
        let network = NamespaceOption { network: NamespaceMode::Node as i32, ..NamespaceOption::default() };
        let security = LinuxContainerSecurityContext { namespace_options: Some(network), ..Default::default() };
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata { name: name.into(), attempt: 0 }),
            image: Some(ImageSpec { image: IMAGE.into(), ..ImageSpec::default() }),
            command: program.iter().map(|s| (*s).to_owned()).collect(),
            labels: all,
            log_path: format!("{name}.log"),
            linux: Some(LinuxContainerConfig { security_context: Some(security), ..Default::default() }),
            ..ContainerConfig::default()
        };
        let request = CreateContainerRequest {
            pod_sandbox_id: pod.sandbox.clone(),
            config: Some(config),
            sandbox_config: Some(pod.config.clone()),
        };
        let id = self.io.block_on(self.cri.create_container(request)).expect("a container").into_inner().container_id;
        self.io
            .block_on(self.cri.start_container(StartContainerRequest { container_id: id.clone() }))
            .expect("it runs");
        id
    }

    /// The first line that the container wrote, once it is whole.
    pub(crate) fn said(&self, pod: &Pod, container: &str) -> String {
        let file = self.logs.path().join(&pod.name).join(format!("{container}.log"));
        for _ in 0..2400 {
            let text = fs::read_to_string(&file).unwrap_or_default();
            // Time, stream, tag, then the line.
            if let Some((line, _)) = text.split_once('\n') {
                return line.splitn(4, ' ').nth(3).unwrap_or_default().to_owned();
            }
            sleep(Duration::from_millis(50));
        }
        panic!("nothing in {}", file.display());
    }
}
