//! Every gadget of the catalogue: the first test of its `test.yaml`, and those that ask for hooks which not every kernel has
//! (with `IG_VM_EVERY=1` all), with containers of runc. What became of it goes to the console, for `docs/gadgets.md`.

#![expect(clippy::print_stdout, reason = "the console is where facts go")]

use super::every;
use crate::{
    gadget_case::{self, Container, Engine, Verdict},
    gadget_table,
    vm::{DISK, FACT, GADGETS, ROOTFS},
    wait_for,
};
use serde_json::{Value, json};
use std::{
    fs::File,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
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

/// Seconds that workloads wait for `ig` to look into files of theirs, on an emulated processor.
const PATIENCE: u32 = 12;

/// Runs one gadget's cases; `ig` may refuse it on kernels that lack what it needs, if it names that.
pub(super) fn run(gadget: &str) {
    let folder = Path::new(GADGETS).join(gadget);
    let engine = Runc { dir: tempfile::tempdir().expect("a temporary directory"), extra: folder.join("rootfs") };
    let cases = gadget_case::read(&folder);
    let mut cell = None;
    for (n, case) in cases.iter().enumerate().filter(|(n, c)| *n == 0 || c.has_needs() || every()) {
        match case.attempt(gadget, &engine, &format!("case-{n}")) {
            Verdict::Passed { stderr } => {
                cell.get_or_insert_with(|| gadget_table::passed(&gadget_case::hooks(&stderr)));
            }
            Verdict::Refused { stderr } => {
                may_be_refused(gadget, &stderr);
                cell.get_or_insert_with(|| gadget_table::refused(&stderr));
            }
            Verdict::Failed(why) => panic!("{gadget}: {}: {why}", case.name),
        }
    }
    println!("{FACT} {gadget} {}", cell.expect("a case"));
}

/// A refusal must say what the kernel lacks.
fn may_be_refused(gadget: &str, stderr: &str) {
    let error = gadget_case::error(stderr);
    assert!(error.contains("this kernel has no "), "{gadget}: a refusal that names no feature:\n{stderr}");
}

/// Containers of runc, each with a root file system of its own.
struct Runc {
    dir: TempDir,
    /// What the gadget's workload brings: itself, and its libraries.
    extra: PathBuf,
}

impl Runc {
    fn bundle(&self, container: &Container<'_>) -> PathBuf {
        let bundle = self.dir.path().join(container.name);
        let bin = bundle.join("rootfs/bin");
        for d in ["bin", "proc", "dev", "tmp", "etc"] {
            std::fs::create_dir_all(bundle.join("rootfs").join(d)).expect("a writable directory");
        }
        std::fs::copy(Path::new(ROOTFS).join("bin/busybox"), bin.join("busybox")).expect("busybox");
        let list = Command::new("/bin/busybox").arg("--list").output().expect("busybox");
        for applet in String::from_utf8_lossy(&list.stdout).lines().filter(|a| *a != "busybox") {
            symlink("busybox", bin.join(applet)).expect("a writable directory");
        }
        copy(&self.extra, &bundle.join("rootfs"));
        std::fs::write(bundle.join("config.json"), config(container).to_string()).expect("a writable directory");
        bundle
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

    fn run(&self, container: &Container<'_>) {
        let bundle = self.bundle(container);
        let mut c = self.command(&["run", "--bundle"]);
        let out = c.arg(&bundle).arg(container.name).output().expect("runc");
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(!said.contains("unable to start container"), "{said}");
        println!("the script ended with {}:\n{said}", out.status);
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
        wait_for("READY from the script", Duration::from_secs(60), || {
            std::fs::read_to_string(&log).ok()?.lines().any(|l| l == "READY").then_some(())
        });
    }

    fn remove(&self, name: &str) {
        let out = self.command(&["delete", "--force", name]).output().expect("runc");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
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

/// config.json as Docker would write it for these options, as far as the tests use them.
fn config(container: &Container<'_>) -> Value {
    let mut capabilities: Vec<String> = CAPABILITIES.iter().map(|c| format!("CAP_{c}")).collect();
    let mut resources = json!({ "devices": [{ "allow": true, "access": "rwm" }] });
    let mut mounts = vec![
        json!({ "destination": "/proc", "type": "proc", "source": "proc" }),
        json!({ "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] }),
    ];
    let mut limits = Vec::new();
    let mut options = container.options.iter();
    while let Some(option) = options.next() {
        if option == "-v" {
            mounts.push(volume(container, options.next().expect("a path after -v")));
            continue;
        }
        match option.split_once('=') {
            Some(("--cap-add", name)) => capabilities.push(format!("CAP_{name}")),
            Some(("--memory", size)) => resources["memory"]["limit"] = json!(bytes(size)),
            Some(("--memory-swap", size)) => resources["memory"]["swap"] = json!(bytes(size)),
            Some(("--pids-limit", n)) => resources["pids"]["limit"] = json!(n.parse::<u64>().expect("a number")),
            Some(("--ulimit", limit)) => limits.push(ulimit(limit)),
            // There is no profile here to begin with, nor are paths hidden.
            Some(("--security-opt", "seccomp=unconfined" | "systempaths=unconfined")) => {}
            _ => panic!("the runner of the virtual machines does not know docker's option {option}"),
        }
    }
    let sets = ["bounding", "effective", "permitted"].map(|set| (set.to_owned(), json!(capabilities)));
    let kinds = ["pid", "ipc", "uts", "mount", "cgroup", "network"];
    let namespaces: Vec<Value> = kinds.iter().map(|k| json!({ "type": k })).collect();
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false, "user": { "uid": 0, "gid": 0 }, "cwd": "/",
            "args": ["/bin/sh", "-c", container.script], "env": ["PATH=/bin", gadget_case::patience(PATIENCE)],
            "rlimits": limits,
            "capabilities": Value::Object(sets.into_iter().collect()),
        },
        "root": { "path": "rootfs", "readonly": false },
        "hostname": "container",
        "mounts": mounts,
        "linux": { "namespaces": namespaces, "resources": resources },
    })
}

/// What docker makes of `-v PATH`: a new directory on a disk.
fn volume(container: &Container<'_>, at: &str) -> Value {
    let source = Path::new(DISK).join(container.name).join(at.trim_start_matches('/'));
    std::fs::create_dir_all(&source).expect("a disk that can be written");
    json!({ "destination": at, "type": "bind", "source": source, "options": ["rbind", "rw"] })
}

/// `memlock=1048576`
fn ulimit(limit: &str) -> Value {
    let (name, number) = limit.split_once('=').expect("a limit such as memlock=1048576");
    let number: u64 = number.parse().expect("a number");
    json!({ "type": format!("RLIMIT_{}", name.to_uppercase()), "hard": number, "soft": number })
}

/// `16m`
fn bytes(size: &str) -> u64 {
    let (number, unit) = size.split_at(size.len() - 1);
    let number: u64 = number.parse().expect("a size such as 16m");
    match unit {
        "k" => number << 10,
        "m" => number << 20,
        "g" => number << 30,
        _ => panic!("{size} is no size"),
    }
}
