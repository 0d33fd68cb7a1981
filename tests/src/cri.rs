//! Pods by hand, through the Kubernetes container runtime interface of a private containerd: what a kubelet does.
//!
//! The client is another than ours on purpose. Pods use the host's network, so that no CNI plugin is needed.

use crate::truth::{self, PROGRAM, Truth};
use k8s_cri::v1::{
    ContainerConfig, ContainerMetadata, ContainerState, ContainerStatusRequest, CreateContainerRequest, ImageSpec,
    LinuxContainerConfig, LinuxContainerSecurityContext, LinuxPodSandboxConfig, LinuxSandboxSecurityContext,
    ListPodSandboxRequest, NamespaceMode, NamespaceOption, PodSandboxConfig, PodSandboxMetadata,
    RemoveContainerRequest, RemovePodSandboxRequest, RunPodSandboxRequest, StartContainerRequest,
    StopPodSandboxRequest, runtime_service_client::RuntimeServiceClient,
};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};
use tonic::transport::{Channel, Endpoint};

pub struct Cri {
    io: tokio::runtime::Runtime,
    client: RuntimeServiceClient<Channel>,
    logs: PathBuf,
    pods: Vec<String>,
}

/// A pod that runs.
#[derive(Clone, Debug)]
pub struct Pod {
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub sandbox: String,
    config: PodSandboxConfig,
}

fn host_network() -> NamespaceOption {
    NamespaceOption { network: NamespaceMode::Node as i32, ..NamespaceOption::default() }
}

fn pairs(labels: &[(&str, &str)]) -> HashMap<String, String> {
    labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

/// As much of the text as containerd takes for a label.
pub fn cut(text: &str) -> &str {
    &text[..text.len().min(1000)]
}

impl Cri {
    /// Pods on the service at `socket`, which write their output below `logs`.
    pub fn connect(socket: &Path, logs: &Path) -> Cri {
        let io = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an I/O runtime");
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display())).expect("an address");
        let client = io.block_on(async { endpoint.timeout(Duration::from_secs(60)).connect().await });
        let mut client = RuntimeServiceClient::new(client.expect("a CRI service"));
        // The daemon answers before this service of it does.
        crate::wait_for("the CRI service", Duration::from_secs(180), || {
            io.block_on(client.list_pod_sandbox(ListPodSandboxRequest::default())).ok()
        });
        Cri { io, client, logs: logs.into(), pods: Vec::new() }
    }

    /// Runs an empty pod, as a kubelet labels it, with the user's `labels` besides.
    pub fn pod(&mut self, namespace: &str, name: &str, labels: &[(&str, &str)]) -> Pod {
        self.run_pod(namespace, name, name, labels)
    }

    /// Runs an empty pod whose name, namespace and labels hold `text`, which may be anything: a runtime does not check
    /// what a kubelet would.
    pub fn hostile_pod(&mut self, plain: &str, text: &str) -> Pod {
        let labels = [("label", cut(text)), (cut(text), "value")];
        self.run_pod(&format!("ns-{text}"), &format!("{plain}-{text}"), plain, &labels)
    }

    fn run_pod(&mut self, namespace: &str, name: &str, plain: &str, labels: &[(&str, &str)]) -> Pod {
        let uid = format!("uid-{plain}");
        let mut all = pairs(labels);
        all.extend(pairs(&[
            ("io.kubernetes.pod.name", name),
            ("io.kubernetes.pod.namespace", namespace),
            ("io.kubernetes.pod.uid", &uid),
        ]));
        let config = PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.into(),
                uid: uid.clone(),
                namespace: namespace.into(),
                attempt: 0,
            }),
            labels: all,
            log_directory: self.logs.join(&uid).display().to_string(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: format!("/kubepods/pod{uid}"),
                security_context: Some(LinuxSandboxSecurityContext {
                    namespace_options: Some(host_network()),
                    ..LinuxSandboxSecurityContext::default()
                }),
                ..LinuxPodSandboxConfig::default()
            }),
            ..PodSandboxConfig::default()
        };
        std::fs::create_dir_all(&config.log_directory).expect("a writable directory");
        let request = RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() };
        let answer = self.io.block_on(self.client.run_pod_sandbox(request)).expect("a pod");
        let sandbox = answer.into_inner().pod_sandbox_id;
        self.pods.push(sandbox.clone());
        Pod { name: name.into(), namespace: namespace.into(), uid, sandbox, config }
    }

    /// Creates and starts a container in the pod; gives its id.
    pub fn start(&mut self, pod: &Pod, name: &str, command: &[&str]) -> String {
        let labels = pairs(&[
            ("io.kubernetes.pod.name", &pod.name),
            ("io.kubernetes.pod.namespace", &pod.namespace),
            ("io.kubernetes.pod.uid", &pod.uid),
            ("io.kubernetes.container.name", name),
        ]);
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata { name: name.into(), attempt: 0 }),
            image: Some(ImageSpec { image: "docker.io/library/busybox:latest".into(), ..ImageSpec::default() }),
            command: command.iter().map(|s| (*s).to_owned()).collect(),
            labels,
            log_path: format!("{name}.log"),
            linux: Some(LinuxContainerConfig {
                security_context: Some(LinuxContainerSecurityContext {
                    namespace_options: Some(host_network()),
                    ..LinuxContainerSecurityContext::default()
                }),
                ..LinuxContainerConfig::default()
            }),
            ..ContainerConfig::default()
        };
        let request = CreateContainerRequest {
            pod_sandbox_id: pod.sandbox.clone(),
            config: Some(config),
            sandbox_config: Some(pod.config.clone()),
        };
        let answer = self.io.block_on(self.client.create_container(request)).expect("a container");
        let id = answer.into_inner().container_id;
        let request = StartContainerRequest { container_id: id.clone() };
        self.io.block_on(self.client.start_container(request)).expect("a container that starts");
        id
    }

    /// What the container wrote, once there is a whole line.
    pub fn log(&self, pod: &Pod, name: &str) -> String {
        let file = self.logs.join(&pod.uid).join(format!("{name}.log"));
        crate::wait_for(&format!("a line in {}", file.display()), Duration::from_secs(180), || {
            std::fs::read_to_string(&file).ok().filter(|t| t.ends_with('\n'))
        })
    }

    /// Runs a container in the pod to its end.
    pub fn run(&mut self, pod: &Pod, name: &str, command: &[&str]) {
        let id = self.start(pod, name, command);
        self.wait_for_exit(&id);
    }

    fn wait_for_exit(&mut self, id: &str) {
        crate::wait_for("the container to end", Duration::from_secs(180), || {
            let request = ContainerStatusRequest { container_id: id.into(), verbose: false };
            let answer = self.io.block_on(self.client.container_status(request)).expect("a container's state");
            let status = answer.into_inner().status.expect("a status");
            (status.state == ContainerState::ContainerExited as i32).then_some(())
        });
    }

    /// Runs a container that says who it is, and removes it.
    pub fn truth(&mut self, pod: &Pod, name: &str) -> Truth {
        let id = self.start(pod, name, &PROGRAM);
        let printed = self.log(pod, name);
        self.wait_for_exit(&id);
        let request = RemoveContainerRequest { container_id: id.clone() };
        self.io.block_on(self.client.remove_container(request)).expect("a container that goes");
        Truth { name: name.into(), id, runtime: "containerd", mntns: truth::mntns(&printed) }
    }
}

impl Drop for Cri {
    fn drop(&mut self) {
        for pod in std::mem::take(&mut self.pods) {
            let stop = StopPodSandboxRequest { pod_sandbox_id: pod.clone() };
            // What cannot be stopped goes with its daemon.
            self.io.block_on(self.client.stop_pod_sandbox(stop)).ok();
            self.io.block_on(self.client.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: pod })).ok();
        }
    }
}
