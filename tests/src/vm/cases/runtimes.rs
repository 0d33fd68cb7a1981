//! Containers of runc and crun, without any daemon, on pure cgroup v2. Ground truth: every container prints its own mount
//! namespace.

use super::run;
use crate::{ig::at, vm::ROOTFS};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
};
use tempfile::TempDir;

/// Containers of each runtime.
const COUNT: usize = 20;
/// Started side by side.
const AT_ONCE: usize = 2;
const FIRST: [&str; 3] = ["/bin/busybox", "readlink", "/proc/self/ns/mnt"];

#[derive(Clone, Copy)]
struct Runtime {
    name: &'static str,
    options: &'static [&'static str],
}

const RUNC: Runtime = Runtime { name: "runc", options: &[] };
const CRUN: Runtime = Runtime { name: "crun", options: &["--cgroup-manager=cgroupfs"] };

/// A bundle whose containers run `command`.
fn bundle(command: &[&str]) -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let kinds = ["pid", "ipc", "uts", "mount", "cgroup"];
    let namespaces: Vec<Value> = kinds.iter().map(|k| json!({ "type": k })).collect();
    let config = json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false, "user": { "uid": 0, "gid": 0 }, "cwd": "/",
            "args": command, "env": ["PATH=/bin"], "noNewPrivileges": true,
        },
        "root": { "path": ROOTFS, "readonly": false },
        "hostname": "container",
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] },
        ],
        "linux": { "namespaces": namespaces, "resources": { "devices": [{ "allow": false, "access": "rwm" }] } },
    });
    std::fs::write(dir.path().join("config.json"), config.to_string()).expect("a writable directory");
    dir
}

/// Runs a container to its end; gives what it printed.
fn start(runtime: Runtime, name: &str, bundle: &Path) -> String {
    let state = PathBuf::from("/run").join(runtime.name);
    let out = Command::new(runtime.name)
        .arg("--root")
        .arg(state)
        .args(runtime.options)
        .args(["run", "--bundle"])
        .arg(bundle)
        .arg(name)
        .output()
        .expect("the runtime starts");
    assert!(out.status.success(), "{} run {name}: {}", runtime.name, String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

/// `mnt:[4026532256]`
fn number(said: &str) -> u64 {
    let inside = said.strip_prefix("mnt:[").and_then(|s| s.strip_suffix(']'));
    inside.and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("no mount namespace: {said:?}"))
}

/// Runs the containers `NAME-0` to `NAME-19`; gives each one's mount namespace.
fn many(runtime: Runtime) -> BTreeMap<String, u64> {
    let (next, bundle) = (AtomicUsize::new(0), bundle(&FIRST));
    let work = || {
        let mut said = Vec::new();
        loop {
            let n = next.fetch_add(1, Ordering::Relaxed);
            if n >= COUNT {
                return said;
            }
            let name = format!("{}-{n}", runtime.name);
            let namespace = number(&start(runtime, &name, bundle.path()));
            said.push((name, namespace));
        }
    };
    std::thread::scope(|s| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| s.spawn(work)).collect();
        workers.into_iter().flat_map(|w| w.join().expect("a container that failed has said why")).collect()
    })
}

fn seen_and_named(runtime: Runtime) {
    let ig = run("trace_exec", &[]).start_ready();
    let containers = many(runtime);
    let done = ig.stop().expect_success();
    let rows = done.rows();
    let first: Vec<_> = rows.iter().filter(|r| at(r, "args") == FIRST.join(" ").as_str()).collect();
    let mut wrong = Vec::new();
    for (name, namespace) in &containers {
        let own: Vec<_> = first.iter().filter(|r| at(r, "runtime.containerName") == name.as_str()).collect();
        let right = |r: &Value| {
            at(r, "proc.mntns_id") == *namespace
                && at(r, "runtime.containerId") == name.as_str()
                && at(r, "runtime.runtimeName") == runtime.name
        };
        if own.len() != 1 || !right(own[0]) {
            wrong.push(format!("{name} ({namespace}): {own:?}"));
        }
    }
    let n = containers.len();
    assert_eq!(n, COUNT);
    assert!(wrong.is_empty(), "{} of {n}:\n{}\n{first:#?}\n{}", wrong.len(), wrong.join("\n"), done.stderr);
    assert_eq!(first.len(), n, "no first program but theirs: {first:#?}");
    let ledger = done.ledger();
    ledger.check();
    assert_eq!(ledger.lost_total(), 0, "{ledger:?}");
}

/// Chosen by name before anything of that name exists: all of its programs are shown, and nobody else's.
fn chosen(runtime: Runtime) {
    let bundle = bundle(&["/bin/busybox", "sh", "-c", "/bin/busybox true; /bin/busybox echo done"]);
    let ig = run("trace_exec", &["-c", "wanted"]).start_ready();
    for name in ["before", "wanted", "after", "wanted-not"] {
        assert_eq!(start(runtime, name, bundle.path()), "done");
    }
    let done = ig.stop().expect_success();
    let rows = done.rows();
    let text = |r: &Value, name| at(r, name).as_str().unwrap_or_default().to_owned();
    let seen: Vec<_> = rows.iter().map(|r| (text(r, "runtime.containerName"), text(r, "args"))).collect();
    let wanted =
        ["/bin/busybox sh -c /bin/busybox true; /bin/busybox echo done", "/bin/busybox true", "/bin/busybox echo done"];
    let wanted: Vec<_> = wanted.iter().map(|a| ("wanted".to_owned(), (*a).to_owned())).collect();
    assert_eq!(seen, wanted, "{}", done.stderr);
    let ledger = done.ledger();
    ledger.check();
    assert_eq!(ledger.lost_total(), 0, "{ledger:?}");
}

pub(super) fn runc() {
    seen_and_named(RUNC);
}

pub(super) fn crun() {
    seen_and_named(CRUN);
}

pub(super) fn runc_chosen() {
    chosen(RUNC);
}

pub(super) fn crun_chosen() {
    chosen(CRUN);
}
