//! What ran before the tracker: one walk over /proc, and the state files that runc and crun keep.
//!
//! Runs once at the start (and again when the tracker lost events), on the containers' thread.

use super::identify;
use rustc_hash::FxHashMap;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A process outside the host's mount namespace, or a runtime anywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) parent: u32,
    pub(super) mntns: u64,
    pub(super) netns: u64,
    /// Path in the default hierarchy, or where that says nothing, in the pids hierarchy.
    pub(super) cgroup: Box<str>,
    /// Boot-clock nanoseconds, to a hundredth of a second.
    pub(super) started: u64,
    pub(super) is_runtime: bool,
}

/// The machine's name, as the kubelet takes it for its node. Another root's is in its file: the kernel tells each process
/// the name in its own UTS namespace, which in a container is the container's.
pub(super) fn node_name(host_root: &Path) -> String {
    let (file, kernel) = (Path::new("/etc/hostname"), Path::new("/proc/sys/kernel/hostname"));
    let order = if host_root == Path::new("/") { [kernel, file] } else { [file, kernel] };
    let read = |p: &Path| identify::read_line(&identify::on_host(host_root, p));
    order.into_iter().find_map(read).unwrap_or_default().to_ascii_lowercase()
}

/// Number of a namespace, from a link such as `/proc/1/ns/mnt`; `None`: gone, or not ours to see.
pub(super) fn namespace(link: &Path) -> Option<u64> {
    let target = fs::read_link(link).ok()?;
    target.to_str()?.split_once('[')?.1.strip_suffix(']')?.parse().ok()
}

/// Every process of interest. Processes that end meanwhile are left out.
pub(super) fn walk(proc: &Path, host_mntns: u64) -> Vec<Process> {
    let Ok(entries) = fs::read_dir(proc) else {
        return Vec::new();
    };
    let pids = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    let mut all: Vec<Process> = pids.filter_map(|pid| process(proc, pid, host_mntns)).collect();
    all.sort_by_key(|p| (p.started, p.pid));
    all
}

fn process(proc: &Path, pid: u32, host_mntns: u64) -> Option<Process> {
    let dir = proc.join(pid.to_string());
    let stat = fs::read(dir.join("stat")).ok()?;
    let (comm, parent, started) = parse_stat(&stat)?;
    let is_runtime = identify::RUNTIME_COMMS.iter().any(|c| c.as_bytes() == comm);
    let mntns = namespace(&dir.join("ns/mnt"))?;
    if mntns == host_mntns && !is_runtime {
        return None;
    }
    let cgroups = fs::read_to_string(dir.join("cgroup")).unwrap_or_default();
    let (unified, pids) = identify::cgroup_paths(&cgroups);
    let cgroup = unified.filter(|p| *p != "/").or(pids).or(unified).unwrap_or_default().into();
    let netns = namespace(&dir.join("ns/net")).unwrap_or_default();
    Some(Process { pid, parent, mntns, netns, cgroup, started, is_runtime })
}

/// comm, parent pid and start of `/proc/PID/stat`. The comm may hold anything, parentheses and spaces included.
fn parse_stat(stat: &[u8]) -> Option<(&[u8], u32, u64)> {
    const TICK: u64 = 10_000_000;
    let open = memchr::memchr(b'(', stat)?;
    let close = memchr::memrchr(b')', stat)?;
    let rest = std::str::from_utf8(stat.get(close + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let parent = fields.nth(1)?.parse().ok()?;
    let started: u64 = fields.nth(17)?.parse().ok()?;
    Some((stat.get(open + 1..close)?, parent, started * TICK))
}

/// A container by its runtime's state file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Recorded {
    pub(super) id: Box<str>,
    pub(super) bundle: Option<PathBuf>,
    pub(super) crun: bool,
}

/// Containers that runc, crun, or containerd's runc wrote down, by the pid of their first process.
pub(super) fn recorded(host_root: &Path) -> FxHashMap<u32, Recorded> {
    let mut all = FxHashMap::default();
    let run = identify::on_host(host_root, Path::new("/run"));
    for dir in subdirs(&run.join("runc")) {
        read_runc(&dir, &mut all);
    }
    for namespace in subdirs(&run.join("containerd/runc")) {
        subdirs(&namespace).iter().for_each(|d| read_runc(d, &mut all));
    }
    for dir in subdirs(&run.join("crun")) {
        let Some(state) = identify::read_json::<serde_json::Value>(&dir.join("status")) else {
            continue;
        };
        let id = dir.file_name().and_then(|n| identify::id(n.as_encoded_bytes()));
        let pid = state["pid"].as_u64().and_then(|p| u32::try_from(p).ok());
        if let (Some(id), Some(pid)) = (id, pid) {
            let bundle = state["bundle"].as_str().map(PathBuf::from);
            all.insert(pid, Recorded { id, bundle, crun: true });
        }
    }
    all
}

fn read_runc(dir: &Path, all: &mut FxHashMap<u32, Recorded>) {
    let Some(state) = identify::read_json::<serde_json::Value>(&dir.join("state.json")) else {
        return;
    };
    let id = state["id"].as_str().and_then(|s| identify::id(s.as_bytes()));
    let pid = state["init_process_pid"].as_u64().and_then(|p| u32::try_from(p).ok());
    let (Some(id), Some(pid)) = (id, pid) else {
        return;
    };
    let labels = state["config"]["labels"].as_array().into_iter().flatten();
    let bundle = labels.filter_map(|l| l.as_str()?.strip_prefix("bundle=").map(PathBuf::from)).next();
    all.insert(pid, Recorded { id, bundle, crun: false });
}

fn subdirs(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    entries.flatten().map(|e| e.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_of_a_process_with_an_awkward_name() {
        let stat =
            b"42 (a ) (b) S 7 42 42 0 -1 4194304 100 0 0 0 0 0 0 0 20 0 1 0 12345 1000 100 18446744073709551615 1";
        assert_eq!(parse_stat(stat), Some((&b"a ) (b"[..], 7, 123_450_000_000)));
        assert_eq!(parse_stat(b"42 (x"), None);
    }

    #[test]
    fn own_process_is_found_when_its_namespace_is_not_the_hosts() {
        let me = std::process::id();
        let all = walk(Path::new("/proc"), 0);
        let p = all.iter().find(|p| p.pid == me).expect("this process");
        assert_eq!(Some(p.mntns), namespace(Path::new("/proc/self/ns/mnt")));
        assert!(walk(Path::new("/proc"), p.mntns).iter().all(|p| p.pid != me));
    }

    #[test]
    fn state_files_of_runc_and_crun_are_read() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, json: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, json).unwrap();
        };
        put(
            "run/runc/web/state.json",
            r#"{"id":"web","init_process_pid":7,"config":{"labels":["a=b","bundle=/srv/web"]}}"#,
        );
        put("run/containerd/runc/default/db/state.json", r#"{"id":"db","init_process_pid":8}"#);
        put("run/crun/cr/status", r#"{"pid":9,"bundle":"/srv/cr"}"#);
        put("run/runc/bad/state.json", "{");
        let all = recorded(root.path());
        assert_eq!(all.len(), 3);
        assert_eq!(all[&7], Recorded { id: "web".into(), bundle: Some("/srv/web".into()), crun: false });
        assert_eq!(all[&8], Recorded { id: "db".into(), bundle: None, crun: false });
        assert_eq!(all[&9], Recorded { id: "cr".into(), bundle: Some("/srv/cr".into()), crun: true });
    }
}
