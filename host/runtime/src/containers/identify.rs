//! From what a runtime leaves behind to who a container is: its command line, its bundle, its cgroup, Docker's own file.
//!
//! Pure parsing; the few functions that read a file say so and take its path. Nothing here decides whom to trust, and no
//! file makes the thread wait or fills the memory, whatever lies at its path.

use super::{
    clients::pod_labels,
    container::{Pod, RuntimeName},
};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    io::{self, Read},
    os::unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Command names (`task_struct.comm`) of the programs that start containers.
pub(super) const RUNTIME_COMMS: [&str; 6] = ["runc", "crun", "youki", "conmon", "buildkit-runc", "docker-runc"];

/// containerd's namespace for Docker's containers.
pub(super) const MOBY: &str = "moby";

/// What a runtime was asked to do, from its command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Invocation {
    /// `create`, `run` or `restore`: a container will be born below this process.
    Launch(Launch),
    /// conmon: knows the name that goes with an id.
    Monitor { id: Box<str>, name: Option<Box<str>>, bundle: Option<PathBuf> },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Launch {
    pub(super) program: RuntimeName,
    pub(super) id: Box<str>,
    /// As given: it may be relative to the runtime's working directory, or missing, which means that directory.
    pub(super) bundle: Option<PathBuf>,
    /// `--root`: where the runtime keeps its state.
    pub(super) root: Option<PathBuf>,
}

/// Options before the verb whose value is the next argument.
const GLOBAL_VALUES: [&str; 6] = ["--root", "--log", "--log-format", "--criu", "--rootless", "--log-level"];

/// Reads a command line; arguments end with NUL. `cut`: the kernel had room for its beginning only.
pub(super) fn invocation(args: &[u8], cut: bool) -> Option<Invocation> {
    let mut args: Vec<&[u8]> = args.split(|b| *b == 0).collect();
    if args.last().is_some_and(|a| a.is_empty()) || cut {
        args.pop();
    }
    let (program, rest) = args.split_first()?;
    let program = program.rsplit(|b| *b == b'/').next()?;
    if program == b"conmon" {
        let id = id(option(rest, &["-c", "--cid"])?)?;
        let name = option(rest, &["-n", "--name"]).and_then(self::id);
        return Some(Invocation::Monitor { id, name, bundle: option(rest, &["-b", "--bundle"]).map(path) });
    }
    let program = match program {
        b"crun" => RuntimeName::Crun,
        b"youki" => RuntimeName::Youki,
        b"buildkit-runc" => RuntimeName::Buildkit,
        p if p == b"runc" || p.ends_with(b"-runc") => RuntimeName::Runc,
        _ => return None,
    };
    let verb = verb_at(rest)?;
    if !matches!(rest[verb], b"create" | b"run" | b"restore") {
        return None;
    }
    let flags = &rest[verb + 1..];
    let bundle = option(flags, &["--bundle", "-b"]).map(path);
    let id = match cut {
        // The id is the last argument; engines name the bundle after it.
        true => bundle.as_deref().and_then(Path::file_name).map(OsStr::as_bytes).and_then(self::id)?,
        false => self::id(flags.last()?)?,
    };
    Some(Invocation::Launch(Launch { program, id, bundle, root: option(&rest[..verb], &["--root"]).map(path) }))
}

fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

/// Index of the first argument that is neither an option nor an option's value.
fn verb_at(args: &[&[u8]]) -> Option<usize> {
    let mut i = 0;
    while i < args.len() {
        if !args[i].starts_with(b"-") {
            return Some(i);
        }
        i += if GLOBAL_VALUES.iter().any(|o| o.as_bytes() == args[i]) { 2 } else { 1 };
    }
    None
}

/// Value of the option: `--name value` or `--name=value`.
fn option<'a>(args: &[&'a [u8]], names: &[&str]) -> Option<&'a [u8]> {
    for (i, arg) in args.iter().enumerate() {
        for name in names {
            match arg.strip_prefix(name.as_bytes()) {
                Some(b"") => return args.get(i + 1).copied(),
                Some([b'=', value @ ..]) if name.starts_with("--") => return Some(value),
                _ => {}
            }
        }
    }
    None
}

/// A container id (or name) as every runtime allows it; anything else names no container.
pub(super) fn id(bytes: &[u8]) -> Option<Box<str>> {
    let s = std::str::from_utf8(bytes).ok()?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b'+');
    (!s.is_empty() && s.len() <= 1024 && s.bytes().all(plain) && !s.starts_with(['-', '.'])).then(|| s.into())
}

/// A container's cgroup, as its path tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CgroupIdentity {
    pub(super) id: Box<str>,
    /// What the path tells of the runtime.
    pub(super) runtime: Option<RuntimeName>,
    /// The user, other than root, to whom this part of the hierarchy is left: the id is then only their word.
    pub(super) user: Option<u32>,
}

/// The user of a cgroup that lies in a user's own slice, where they make cgroups of any name; `None` for root.
pub(super) fn cgroup_user(path: &str) -> Option<u32> {
    path.split('/').find_map(slice_user)
}

fn slice_user(part: &str) -> Option<u32> {
    let uid = part.strip_prefix("user-")?.strip_suffix(".slice")?.parse().ok()?;
    (uid != 0).then_some(uid)
}

/// Finds the container in a cgroup path, also where the process sits in a cgroup below the container's.
pub(super) fn from_cgroup(path: &str) -> Option<CgroupIdentity> {
    let mut parent = "";
    let (mut found, mut user) = (None, None);
    for part in path.split('/').filter(|p| !p.is_empty()) {
        // A slice below a container is one that runs systemd, and the container's own business.
        user = user.or_else(|| slice_user(part));
        let name = part.strip_suffix(".scope").unwrap_or(part);
        if name.starts_with("crio-conmon-") || name.starts_with("libpod-conmon-") {
            return None;
        }
        // systemd: `docker-<id>.scope`; containerd with systemd: `cri-containerd-<id>.scope`; also `slice:cri-containerd:<id>`
        let (prefix, id) = name.rsplit_once(['-', ':']).unwrap_or(("", name));
        if id.len() == 64 && id.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f')) {
            let runtime = match prefix.rsplit(':').next().unwrap_or_default() {
                "docker" => Some(RuntimeName::Docker),
                "cri-containerd" | "nerdctl" => Some(RuntimeName::Containerd),
                "crio" => Some(RuntimeName::CriO),
                "libpod" => Some(RuntimeName::Podman),
                _ if parent == "docker" => Some(RuntimeName::Docker),
                _ => None,
            };
            // The outermost one: a container in a container belongs to the outer one.
            found = found.or(Some(CgroupIdentity { id: id.into(), runtime, user }));
        }
        parent = part;
    }
    found
}

/// True where the path shows that the cgroup is this container's own, or one below it.
pub(super) fn cgroup_is_of(path: &str, id: &str) -> bool {
    path.split('/').any(|part| {
        let name = part.strip_suffix(".scope").unwrap_or(part);
        name == id || name.strip_suffix(id).is_some_and(|p| p.ends_with(['-', ':']))
    })
}

/// The default hierarchy's path and, where the pids controller is v1, that one's, from `/proc/PID/cgroup`.
pub(super) fn cgroup_paths(text: &str) -> (Option<&str>, Option<&str>) {
    let (mut unified, mut pids) = (None, None);
    for line in text.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        if controllers.is_empty() {
            unified = Some(path);
        } else if controllers.split(',').any(|c| c == "pids") {
            pids = Some(path);
        }
    }
    (unified, pids)
}

/// True where the user is mapped by an entry of their own in `/proc/PID/uid_map`: what an unprivileged user may map of the
/// host beside the ranges that are set aside for them. Root maps ranges.
pub(super) fn maps_single(uid_map: &str, uid: u32) -> bool {
    uid_map.lines().any(|line| {
        let mut numbers = line.split_ascii_whitespace().skip(1).map(str::parse::<u32>);
        numbers.next() == Some(Ok(uid)) && numbers.next() == Some(Ok(1))
    })
}

/// Larger files are no state or configuration of a container.
const MAX_FILE: u64 = 4 << 20;

/// A JSON file of a runtime; `None` where there is none, or what is there is no plain file of sensible size.
pub(super) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&read_plain(path).ok()?).ok()
}

/// First line of a small text file; `None` where there is none.
pub(super) fn read_line(path: &Path) -> Option<String> {
    let bytes = read_plain(path).ok()?;
    let line = std::str::from_utf8(&bytes).ok()?.lines().next()?.trim();
    (!line.is_empty() && line.len() <= 253).then(|| line.to_owned())
}

pub(super) fn read_plain(path: &Path) -> io::Result<Vec<u8>> {
    // Opening a FIFO would wait for its writer, and a link may lead to a device without an end.
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(bytes)
}

/// The few parts of an OCI bundle's `config.json` that are read.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct BundleConfig {
    #[serde(default)]
    pub(super) annotations: BTreeMap<Box<str>, Box<str>>,
    #[serde(default)]
    mounts: Vec<BundleMount>,
}

#[derive(Clone, Debug, Deserialize)]
struct BundleMount {
    #[serde(default)]
    destination: PathBuf,
    #[serde(default)]
    source: PathBuf,
}

impl BundleConfig {
    /// Reads `config.json` of the bundle; `None` where it is gone or no such file.
    pub(super) fn read(bundle: &Path) -> Option<Self> {
        read_json(&bundle.join("config.json"))
    }

    fn annotation(&self, keys: &[&str]) -> Option<Box<str>> {
        keys.iter().find_map(|k| self.annotations.get(*k)).filter(|v| !v.is_empty()).cloned()
    }

    /// Docker's directory for the container: it mounts its own /etc files into each.
    pub(super) fn docker_dir(&self, id: &str) -> Option<&Path> {
        let etc = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"];
        let mount = self.mounts.iter().find(|m| {
            etc.iter().any(|d| m.destination == Path::new(d))
                && m.source.parent().and_then(Path::file_name) == Some(OsStr::new(id))
        })?;
        mount.source.parent()
    }

    /// The engine, where an annotation is proof.
    pub(super) fn engine(&self) -> Option<RuntimeName> {
        let has = |prefix: &str| self.annotations.keys().any(|k| k.starts_with(prefix));
        // Podman writes some of CRI-O's annotations, too.
        if self.annotations.get("io.container.manager").is_some_and(|m| &**m == "libpod")
            || has("io.podman.annotations.")
        {
            Some(RuntimeName::Podman)
        } else if has("io.kubernetes.cri-o.") {
            Some(RuntimeName::CriO)
        } else if has("io.kubernetes.cri.") || has("nerdctl/") {
            Some(RuntimeName::Containerd)
        } else {
            None
        }
    }

    pub(super) fn container_name(&self) -> Option<Box<str>> {
        self.annotation(&["io.kubernetes.cri.container-name", "io.kubernetes.container.name", "nerdctl/name"])
    }

    pub(super) fn image_name(&self) -> Option<Box<str>> {
        self.annotation(&["io.kubernetes.cri.image-name", "io.kubernetes.cri-o.ImageName"])
    }

    pub(super) fn pod(&self) -> Option<Pod> {
        let name = if self.is_sandbox() { None } else { self.container_name() };
        Some(Pod {
            name: self.annotation(&["io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"])?,
            namespace: self.annotation(&["io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace"])?,
            uid: self.annotation(&["io.kubernetes.cri.sandbox-uid", "io.kubernetes.pod.uid"]).unwrap_or_default(),
            container_name: name.unwrap_or_default(),
            labels: self.labels(),
            ..Pod::default()
        })
    }

    /// Id of the pod's sandbox; the sandbox itself has it too.
    pub(super) fn sandbox(&self) -> Option<Box<str>> {
        self.annotation(&["io.kubernetes.cri.sandbox-id", "io.kubernetes.cri-o.SandboxID"])
    }

    fn is_sandbox(&self) -> bool {
        let kind = self.annotation(&["io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType"]);
        kind.as_deref() == Some("sandbox")
    }

    /// The pod's labels: CRI-O writes them down, for the sandbox only.
    fn labels(&self) -> Option<BTreeMap<Box<str>, Box<str>>> {
        let json = self.annotations.get("io.kubernetes.cri-o.Labels").filter(|_| self.is_sandbox())?;
        let all: BTreeMap<String, String> = serde_json::from_str(json).ok()?;
        Some(pod_labels(&all))
    }
}

/// What Docker itself wrote about a container before starting it (`config.v2.json`).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DockerConfig {
    name: String,
    #[serde(default)]
    image: Box<str>,
    #[serde(default)]
    config: DockerImageConfig,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImageConfig {
    #[serde(default)]
    image: Box<str>,
}

impl DockerConfig {
    /// Reads the file in Docker's directory of the container; `None` where it is gone or no such file.
    pub(super) fn read(dir: &Path) -> Option<Self> {
        read_json(&dir.join("config.v2.json"))
    }

    pub(super) fn name(&self) -> Option<Box<str>> {
        let name = self.name.strip_prefix('/').unwrap_or(&self.name);
        (!name.is_empty()).then(|| name.into())
    }

    pub(super) fn image_name(&self) -> Option<Box<str>> {
        Some(self.config.image.clone()).filter(|i| !i.is_empty())
    }

    pub(super) fn image_id(&self) -> Option<Box<str>> {
        Some(self.image.clone()).filter(|i| !i.is_empty())
    }
}

/// The engine behind a runtime's command line: annotations are proof, then where engines put bundles and state.
pub(super) fn engine(launch: &Launch, bundle: &Path, config: &BundleConfig) -> RuntimeName {
    if let Some(engine) = config.engine() {
        return engine;
    }
    let parts: Vec<&OsStr> = bundle.iter().collect();
    let root_is_docker = launch.root.as_deref().is_some_and(|r| r.ends_with("moby") || r.ends_with("runtime-runc"));
    match containerd_namespace(bundle) {
        Some(ns) if ns == MOBY || root_is_docker => RuntimeName::Docker,
        Some(_) => RuntimeName::Containerd,
        None if config.docker_dir(&launch.id).is_some() || root_is_docker => RuntimeName::Docker,
        None if parts.iter().any(|p| *p == "overlay-containers" || *p == "vfs-containers") => RuntimeName::Podman,
        None if ["buildkit", "executor"].iter().all(|dir| parts.iter().any(|p| p == dir)) => RuntimeName::Buildkit,
        None => launch.program,
    }
}

/// containerd's namespace, from where it puts its bundles.
pub(super) fn containerd_namespace(bundle: &Path) -> Option<&str> {
    let mut parts = bundle.iter().skip_while(|p| *p != "io.containerd.runtime.v2.task");
    parts.nth(1)?.to_str()
}

/// `path` of the observed host as this process sees it, whose view of the host's root is `host_root`; see `host_root`.
pub(super) fn on_host(host_root: &Path, path: &Path) -> PathBuf {
    crate::host_root::join(host_root, path)
}

#[cfg(test)]
mod tests;
