//! Every gadget of the catalogue: the first test of its `test.yaml`, and those that ask for hooks which not every kernel has,
//! with containers of runc. What became of it goes to the console, for `docs/gadgets.md`.

#![expect(clippy::print_stdout, reason = "the console is where facts go")]

use crate::{
    gadget_case::{self, Container, Engine, Verdict},
    gadget_table,
    vm::{FACT, GADGETS, ROOTFS},
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

/// Gadgets whose test cannot pass in these machines, and why: they are only started, and their programs attached.
const ATTACHED_ONLY: [(&str, &str); 5] = [
    (
        "bpfstats",
        "its workload makes BPF maps, which before Linux 5.11 takes more locked memory than the container may have",
    ),
    ("profile_blockio", "there is no disk"),
    ("profile_cpu", "an emulated processor spends its samples elsewhere than the test expects"),
    ("top_blockio", "there is no disk"),
    ("trace_ssl", "finding the functions in four libraries takes longer here than its workload waits"),
];

/// Starts a gadget, and ends it when its programs are attached; gives its cell.
fn attach(gadget: &str, case: &gadget_case::Case) -> String {
    let mut ig = case.command(gadget).arg("--host").start();
    let done = match ig.wait_ready_or_end() {
        Some(ended) => ended,
        // A table may have been shown, and be done, already.
        None => ig.interrupt(),
    };
    match done.code() {
        0 => gadget_table::passed(&gadget_case::hooks(&done.stderr)).replacen('✓', "attaches", 1),
        3 if gadget_case::is_refusal(&done.stderr) => {
            may_be_refused(gadget, &done.stderr);
            gadget_table::refused(&done.stderr)
        }
        _ => panic!("{gadget}: ig ended with {}:\n{}", done.status, done.stderr),
    }
}

/// Runs one gadget's cases; `ig` may refuse it on kernels that lack what it needs, if it names that.
pub(super) fn run(gadget: &str) {
    let folder = Path::new(GADGETS).join(gadget);
    let engine = Runc { dir: tempfile::tempdir().expect("a temporary directory"), extra: folder.join("rootfs") };
    let cases = gadget_case::read(&folder);
    if ATTACHED_ONLY.iter().any(|(name, _why)| *name == gadget) {
        println!("{FACT} {gadget} {}", attach(gadget, &cases[0]));
        return;
    }
    let mut cell = None;
    for (n, case) in cases.iter().enumerate().filter(|(n, c)| *n == 0 || c.has_needs()) {
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
    for option in container.options {
        match option.split_once('=') {
            Some(("--cap-add", name)) => capabilities.push(format!("CAP_{name}")),
            Some(("--memory", size)) => resources["memory"]["limit"] = json!(bytes(size)),
            Some(("--memory-swap", size)) => resources["memory"]["swap"] = json!(bytes(size)),
            Some(("--pids-limit", n)) => resources["pids"]["limit"] = json!(n.parse::<u64>().expect("a number")),
            // There is no profile here to begin with.
            Some(("--security-opt", "seccomp=unconfined")) => {}
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
            "args": ["/bin/sh", "-c", container.script], "env": ["PATH=/bin"],
            "capabilities": Value::Object(sets.into_iter().collect()),
        },
        "root": { "path": "rootfs", "readonly": false },
        "hostname": "container",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] },
        ],
        "linux": { "namespaces": namespaces, "resources": resources },
    })
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
