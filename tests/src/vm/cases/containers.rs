//! Containers of runc for the cases of the catalogue's gadgets, made to mean what the same test means with Docker: an image
//! below and a layer above it (overlayfs), Docker's capabilities and hidden paths, and the options of `docker run` that tests
//! use, each as Docker writes it into config.json. An option that is not known is a failure.

use crate::{
    gadget_case::{self, Container, Engine},
    vm::{DISK, ROOTFS},
    wait_for,
};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use serde_json::{Value, json};
use std::{
    ffi::CString,
    fs::File,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};
use tempfile::TempDir;

/// What Docker gives a container that asks for nothing.
const CAPABILITIES: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];
/// What Docker lets nobody read, unless with `systempaths=unconfined`.
const HIDDEN: [&str; 7] = [
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/sched_debug",
    "/proc/scsi",
];
/// What it lets nobody write.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
/// Docker's init: tini, in the machine and at the place where Docker puts it.
const INIT: [&str; 2] = ["/bin/tini-static", "/sbin/docker-init"];

/// Seconds that workloads work while `ig` looks into files of theirs, on an emulated processor.
const PATIENCE: u32 = 12;

/// Containers of runc that share an image.
pub(super) struct Runc {
    dir: TempDir,
}

impl Runc {
    /// `extra`: what the gadget's workload brings: itself, and its libraries.
    pub(super) fn new(extra: &Path) -> Self {
        let runc = Runc { dir: tempfile::tempdir().expect("a temporary directory") };
        let image = runc.image();
        for d in ["bin", "proc", "dev", "tmp", "etc"] {
            std::fs::create_dir_all(image.join(d)).expect("a writable directory");
        }
        let bin = image.join("bin");
        std::fs::copy(Path::new(ROOTFS).join("bin/busybox"), bin.join("busybox")).expect("busybox");
        let list = Command::new("/bin/busybox").arg("--list").output().expect("busybox");
        for applet in String::from_utf8_lossy(&list.stdout).lines().filter(|a| *a != "busybox") {
            symlink("busybox", bin.join(applet)).expect("a writable directory");
        }
        copy(extra, &image);
        runc
    }

    fn image(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    fn bundle(&self, container: &Container<'_>) -> PathBuf {
        let bundle = self.dir.path().join(container.name);
        let [upper, work, rootfs] = ["upper", "work", "rootfs"].map(|d| bundle.join(d));
        for d in [&upper, &work, &rootfs] {
            std::fs::create_dir_all(d).expect("a writable directory");
        }
        let layers =
            format!("lowerdir={},upperdir={},workdir={}", self.image().display(), upper.display(), work.display());
        let layers = CString::new(layers).expect("paths of ours");
        mount("overlay", &rootfs, "overlay", MountFlags::empty(), layers.as_c_str())
            .unwrap_or_else(|e| panic!("cannot mount {layers:?}: {e}"));
        std::fs::write(bundle.join("config.json"), config(container).to_string()).expect("a writable directory");
        bundle
    }

    /// Takes the layers apart, as Docker does when a container has ended.
    fn take_apart(&self, name: &str) {
        let rootfs = self.dir.path().join(name).join("rootfs");
        unmount(&rootfs, UnmountFlags::DETACH).unwrap_or_else(|e| panic!("cannot unmount {}: {e}", rootfs.display()));
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut c = Command::new("runc");
        c.args(["--root", "/run/runc"]).args(arguments);
        c
    }
}

impl Engine for Runc {
    fn flags(&self) -> Vec<String> {
        Vec::new()
    }

    fn run(&self, container: &Container<'_>) -> Output {
        let bundle = self.bundle(container);
        let mut c = self.command(&["run", "--bundle"]);
        let out = c.arg(&bundle).arg(container.name).output().expect("runc");
        self.take_apart(container.name);
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(!said.contains("unable to start container"), "{said}");
        out
    }

    fn start(&self, container: &Container<'_>) {
        let bundle = self.bundle(container);
        let log = bundle.join("log");
        let out = File::create(&log).expect("a writable directory");
        let mut c = self.command(&["run", "--detach", "--bundle"]);
        c.arg(&bundle)
            .arg(container.name)
            .stdin(Stdio::null())
            .stderr(out.try_clone().expect("a descriptor"))
            .stdout(out);
        assert!(c.status().expect("runc").success(), "{}", std::fs::read_to_string(&log).unwrap_or_default());
        wait_for("READY from the script", Duration::from_secs(180), || {
            std::fs::read_to_string(&log).ok()?.lines().any(|l| l == "READY").then_some(())
        });
    }

    fn remove(&self, name: &str) {
        let out = self.command(&["delete", "--force", name]).output().expect("runc");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        self.take_apart(name);
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a writable directory");
    for entry in std::fs::read_dir(from).expect("a folder of ours").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a file of ours");
        }
    }
}

/// What the options of `docker run` make of a container.
struct Asked {
    capabilities: Vec<String>,
    mounts: Vec<Value>,
    resources: Value,
    limits: Vec<Value>,
    sysctl: serde_json::Map<String, Value>,
    init: bool,
    hidden: &'static [&'static str],
    read_only: &'static [&'static str],
}

impl Asked {
    fn new(container: &Container<'_>) -> Asked {
        let mut asked = Asked {
            capabilities: CAPABILITIES.iter().map(|c| format!("CAP_{c}")).collect(),
            mounts: vec![
                json!({ "destination": "/proc", "type": "proc", "source": "proc" }),
                json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] }),
            ],
            resources: json!({ "devices": [{ "allow": true, "access": "rwm" }] }),
            limits: Vec::new(),
            sysctl: serde_json::Map::new(),
            init: false,
            hidden: &HIDDEN,
            read_only: &READ_ONLY,
        };
        asked.mounts.push(json!({
            "destination": gadget_case::PROBED, "type": "bind", "source": container.probed, "options": ["bind", "ro"],
        }));
        let mut options = container.options.iter();
        while let Some(option) = options.next() {
            if option == "-v" {
                asked.mounts.push(volume(container, options.next().expect("a path after -v")));
            } else {
                asked.option(option);
            }
        }
        asked
    }

    fn option(&mut self, option: &str) {
        if option == "--init" {
            self.init = true;
            let [source, at] = INIT;
            self.mounts.push(json!({ "destination": at, "type": "bind", "source": source, "options": ["bind", "ro"] }));
            return;
        }
        match option.split_once('=') {
            Some(("--cap-add", name)) => self.capabilities.push(format!("CAP_{name}")),
            Some(("--memory", size)) => self.resources["memory"]["limit"] = json!(bytes(size)),
            Some(("--memory-swap", size)) => self.resources["memory"]["swap"] = json!(bytes(size)),
            Some(("--pids-limit", n)) => self.resources["pids"]["limit"] = json!(number(n)),
            Some(("--ulimit", limit)) => self.limits.push(ulimit(limit)),
            Some(("--sysctl", setting)) => {
                let (name, value) = setting.split_once('=').expect("a setting such as net.ipv4.ip_forward=1");
                self.sysctl.insert(name.to_owned(), json!(value));
            }
            // There is no profile here to begin with.
            Some(("--security-opt", "seccomp=unconfined")) => {}
            Some(("--security-opt", "systempaths=unconfined")) => (self.hidden, self.read_only) = (&[], &[]),
            _ => panic!("the runner of the virtual machines does not know docker's option {option}"),
        }
    }
}

/// config.json as Docker would write it for these options, as far as the tests use them.
fn config(container: &Container<'_>) -> Value {
    let asked = Asked::new(container);
    let sets = ["bounding", "effective", "permitted"].map(|set| (set.to_owned(), json!(asked.capabilities)));
    let kinds = ["pid", "ipc", "uts", "mount", "cgroup", "network"];
    let namespaces: Vec<Value> = kinds.iter().map(|k| json!({ "type": k })).collect();
    let init: &[&str] = if asked.init { &[INIT[1], "--"] } else { &[] };
    let arguments = [init, &["/bin/sh", "-c", container.script]].concat();
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false, "user": { "uid": 0, "gid": 0 }, "cwd": "/",
            "args": arguments,
            "env": ["PATH=/bin", gadget_case::patience(PATIENCE)],
            "rlimits": asked.limits,
            "capabilities": Value::Object(sets.into_iter().collect()),
        },
        "root": { "path": "rootfs", "readonly": false },
        "hostname": "container",
        "mounts": asked.mounts,
        "linux": {
            "namespaces": namespaces, "resources": asked.resources, "sysctl": asked.sysctl,
            "maskedPaths": asked.hidden, "readonlyPaths": asked.read_only,
        },
    })
}

/// What docker makes of `-v PATH`: a new directory on a disk.
fn volume(container: &Container<'_>, at: &str) -> Value {
    let source = Path::new(DISK).join(container.name).join(at.trim_start_matches('/'));
    std::fs::create_dir_all(&source).expect("a disk that can be written");
    json!({ "destination": at, "type": "bind", "source": source, "options": ["rbind", "rw"] })
}

/// `memlock=1048576`, or `nofile=1024:4096`: the soft limit and the hard one.
fn ulimit(limit: &str) -> Value {
    let (name, values) = limit.split_once('=').expect("a limit such as memlock=1048576");
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    json!({ "type": format!("RLIMIT_{}", name.to_uppercase()), "hard": number(hard), "soft": number(soft) })
}

/// `16m`
fn bytes(size: &str) -> u64 {
    let (count, unit) = size.split_at(size.len() - 1);
    match unit {
        "k" => number(count) << 10,
        "m" => number(count) << 20,
        "g" => number(count) << 30,
        _ => panic!("{size} is no size"),
    }
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|e| panic!("{text:?} in an option of docker is no number: {e}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config_of(options: &[&str]) -> Value {
        let options: Vec<String> = options.iter().map(|o| (*o).to_owned()).collect();
        config(&Container { name: "c", options: &options, script: "true", probed: Path::new("/tmp") })
    }

    #[test]
    fn options_become_what_docker_makes_of_them() {
        let plain = config_of(&[]);
        assert_eq!(plain["process"]["args"], json!(["/bin/sh", "-c", "true"]));
        assert_eq!(plain["linux"]["readonlyPaths"], json!(READ_ONLY));
        let c = config_of(&[
            "--init",
            "--security-opt=systempaths=unconfined",
            "--sysctl=net.ipv4.ip_local_port_range=40000 40001",
            "--ulimit=nofile=1024:4096",
            "--ulimit=memlock=16",
            "--memory=16m",
            "--cap-add=NET_ADMIN",
        ]);
        assert_eq!(c["process"]["args"], json!(["/sbin/docker-init", "--", "/bin/sh", "-c", "true"]));
        assert_eq!(c["mounts"][3]["source"], "/bin/tini-static");
        assert_eq!((&c["linux"]["readonlyPaths"], &c["linux"]["maskedPaths"]), (&json!([]), &json!([])));
        assert_eq!(c["linux"]["sysctl"], json!({ "net.ipv4.ip_local_port_range": "40000 40001" }));
        assert_eq!(
            c["process"]["rlimits"],
            json!([
                { "type": "RLIMIT_NOFILE", "soft": 1024, "hard": 4096 },
                { "type": "RLIMIT_MEMLOCK", "soft": 16, "hard": 16 },
            ])
        );
        assert_eq!(c["linux"]["resources"]["memory"]["limit"], 16 << 20);
        assert_eq!(c["process"]["capabilities"]["bounding"][14], "CAP_NET_ADMIN");
    }

    #[test]
    #[should_panic(expected = "does not know docker's option --privileged")]
    fn an_option_that_is_not_known_is_a_failure() {
        config_of(&["--privileged"]);
    }
}
