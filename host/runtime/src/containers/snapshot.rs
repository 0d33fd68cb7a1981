//! What ran before the tracker: one walk over /proc, and the state files that runc, crun and youki keep.
//!
//! Runs once at the start (and again when the tracker lost events), on the containers' thread.

use super::{container::RuntimeName, identify};
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

/// The host's network namespace; 0: nobody says.
pub(super) fn host_netns(proc: Option<&Path>) -> u64 {
    let of = |pid: &&str| namespace(&proc?.join(pid).join("ns/net"));
    ["1", "2"].iter().find_map(of).unwrap_or_default()
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
    let (dir, mntns) = with_namespaces(dir)?;
    if mntns == host_mntns && !is_runtime {
        return None;
    }
    let cgroups = fs::read_to_string(dir.join("cgroup")).unwrap_or_default();
    let (unified, pids) = identify::cgroup_paths(&cgroups);
    let cgroup = unified.filter(|p| *p != "/").or(pids).or(unified).unwrap_or_default().into();
    let netns = namespace(&dir.join("ns/net")).unwrap_or_default();
    Some(Process { pid, parent, mntns, netns, cgroup, started, is_runtime })
}

/// Threads of a process that are asked for their namespaces.
const MAX_THREADS: usize = 64;

/// The directory that tells a process's namespaces, and its mount namespace. A first thread that has ended while others go on
/// has none any more: then a thread's.
fn with_namespaces(dir: PathBuf) -> Option<(PathBuf, u64)> {
    let told = |dir: PathBuf| namespace(&dir.join("ns/mnt")).map(|mntns| (dir, mntns));
    told(dir.clone()).or_else(|| subdirs(&dir.join("task"), MAX_THREADS).into_iter().find_map(told))
}

/// comm, parent pid and start of `/proc/PID/stat`. The comm may hold anything, parentheses and spaces included.
fn parse_stat(stat: &[u8]) -> Option<(&[u8], u32, u64)> {
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
    pub(super) program: RuntimeName,
    /// When the first process started, where that is written down; as in `Process`.
    pub(super) started: Option<u64>,
    /// The unprivileged user whose file it is: they may have written anything.
    pub(super) user: Option<u32>,
}

impl Recorded {
    /// Whether a process with the pid is the one that was written down: files outlive a runtime that was killed, and pids come
    /// again.
    pub(super) fn is_of(&self, p: &Process) -> bool {
        self.started.is_none_or(|started| started == p.started)
    }
}

/// Nanoseconds of a tick of /proc/PID/stat.
const TICK: u64 = 10_000_000;

/// Entries of one directory, and users, that are looked at.
const MAX_ENTRIES: usize = 16_384;
const MAX_USERS: usize = 1024;
/// The same in the directories of one unprivileged user.
const MAX_USER_ENTRIES: usize = 256;

/// Containers that runtimes wrote down, by the pid of their first process; of several with one pid root's are the first. `extra`:
/// more directories of root's runtimes.
pub(super) fn recorded(host_root: &Path, extra: &[PathBuf]) -> FxHashMap<u32, Vec<Recorded>> {
    let mut all = FxHashMap::<u32, Vec<Recorded>>::default();
    let run = identify::on_host(host_root, Path::new("/run"));
    let mut take = |dir: &Path, user: Option<u32>| {
        let room = if user.is_some() { MAX_USER_ENTRIES } else { MAX_ENTRIES };
        for container in subdirs(dir, room) {
            if let Some((pid, recorded)) = read_state(&container, user) {
                all.entry(pid).or_default().push(recorded);
            }
        }
    };
    ["runc", "crun", "youki"].iter().for_each(|name| take(&run.join(name), None));
    subdirs(&run.join("containerd/runc"), MAX_ENTRIES).iter().for_each(|namespace| take(namespace, None));
    extra.iter().for_each(|dir| take(&identify::on_host(host_root, dir), None));
    for dir in subdirs(&run.join("user"), MAX_USERS) {
        let uid = dir.file_name().and_then(|n| n.to_str()?.parse::<u32>().ok());
        // Root's rootless containers lie here too; what is in the directory of a user is that user's.
        let user = uid.filter(|u| *u != 0);
        if uid.is_some() {
            ["runc", "crun", "youki"].iter().for_each(|name| take(&dir.join(name), user));
        }
    }
    all
}

/// runc and youki keep a `state.json` of different shapes, crun a `status`.
fn read_state(dir: &Path, user: Option<u32>) -> Option<(u32, Recorded)> {
    let (program, state) = match identify::read_json::<serde_json::Value>(&dir.join("status")) {
        Some(state) => (RuntimeName::Crun, state),
        None => {
            let state: serde_json::Value = identify::read_json(&dir.join("state.json"))?;
            let runc = state.get("init_process_pid").is_some();
            (if runc { RuntimeName::Runc } else { RuntimeName::Youki }, state)
        }
    };
    let pid = if program == RuntimeName::Runc { &state["init_process_pid"] } else { &state["pid"] };
    let pid = pid.as_u64().and_then(|p| u32::try_from(p).ok()).filter(|p| *p != 0)?;
    let started = match program {
        RuntimeName::Runc => &state["init_process_start"],
        _ => &state["process-start-time"],
    };
    let started = started.as_u64().filter(|ticks| *ticks != 0).map(|ticks| ticks.saturating_mul(TICK));
    let id = match program {
        RuntimeName::Crun => dir.file_name().map(|n| n.as_encoded_bytes()),
        _ => state["id"].as_str().map(str::as_bytes),
    };
    let bundle = match program {
        RuntimeName::Runc => {
            let labels = state["config"]["labels"].as_array().into_iter().flatten();
            labels.filter_map(|l| l.as_str()?.strip_prefix("bundle=")).next()
        }
        _ => state["bundle"].as_str(),
    };
    Some((pid, Recorded { id: identify::id(id?)?, bundle: bundle.map(PathBuf::from), program, started, user }))
}

fn subdirs(dir: &Path, room: usize) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    entries.take(room).flatten().map(|e| e.path()).collect()
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
    fn another_roots_name_is_in_its_file() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(node_name(root.path()), "");
        for (path, name) in [("proc/sys/kernel/hostname", "inside\n"), ("etc/hostname", "Node-7\nmore")] {
            write(&root.path().join(path), name);
        }
        assert_eq!(node_name(root.path()), "node-7");
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
    fn a_process_whose_first_thread_has_ended_is_found_by_another() {
        let proc = tempfile::tempdir().unwrap();
        let (first, second) = (proc.path().join("50"), proc.path().join("50/task/51"));
        for dir in [first.join("task/50/ns"), second.join("ns")] {
            fs::create_dir_all(dir).unwrap();
        }
        let stat = "50 (web) Z 7 50 50 0 -1 4194304 100 0 0 0 0 0 0 0 20 0 2 0 12345 0 0 0";
        fs::write(first.join("stat"), stat).unwrap();
        // What a control group of version 1 says of it.
        fs::write(first.join("cgroup"), "0::/\n").unwrap();
        fs::write(second.join("cgroup"), "0::/pods/web\n").unwrap();
        assert_eq!(walk(proc.path(), 1), []);
        for (name, number) in [("mnt", 7), ("net", 8)] {
            std::os::unix::fs::symlink(format!("{name}:[{number}]"), second.join("ns").join(name)).unwrap();
        }
        let found = Process {
            pid: 50,
            parent: 7,
            mntns: 7,
            netns: 8,
            cgroup: "/pods/web".into(),
            started: 123_450_000_000,
            is_runtime: false,
        };
        assert_eq!(walk(proc.path(), 1), [found]);
        assert_eq!(walk(proc.path(), 7), []);
    }

    fn write(path: &Path, text: &str) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    #[test]
    fn state_files_are_read_and_a_users_never_win_over_roots() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, json: &str| write(&root.path().join(path), json);
        put(
            "run/runc/web/state.json",
            r#"{"id":"web","init_process_pid":7,"config":{"labels":["a=b","bundle=/srv/web"]}}"#,
        );
        put("run/containerd/runc/default/db/state.json", r#"{"id":"db","init_process_pid":8}"#);
        put("run/crun/cr/status", r#"{"pid":9,"bundle":"/srv/cr"}"#);
        put("run/youki/yo/state.json", r#"{"id":"yo","pid":10,"bundle":"/srv/yo"}"#);
        put("own/place/state.json", r#"{"id":"place","init_process_pid":11}"#);
        put("run/user/1000/crun/mine/status", r#"{"pid":12,"bundle":"/home/u/mine"}"#);
        // A user's file about somebody else's process.
        put("run/user/1000/runc/liar/state.json", r#"{"id":"liar","init_process_pid":7}"#);
        put("run/user/nobody/runc/x/state.json", r#"{"id":"x","init_process_pid":13}"#);
        put("run/runc/bad/state.json", "{");
        put("run/runc/over/state.json", r#"{"id":"over","init_process_pid":0}"#);
        let all = recorded(root.path(), &["/own".into()]);
        let is = |pid: u32, id: &str, bundle: Option<&str>, program, user| {
            let expected = Recorded { id: id.into(), bundle: bundle.map(Into::into), program, started: None, user };
            assert_eq!(all.get(&pid).and_then(|of_pid| of_pid.first()), Some(&expected));
        };
        is(7, "web", Some("/srv/web"), RuntimeName::Runc, None);
        is(8, "db", None, RuntimeName::Runc, None);
        is(9, "cr", Some("/srv/cr"), RuntimeName::Crun, None);
        is(10, "yo", Some("/srv/yo"), RuntimeName::Youki, None);
        is(11, "place", None, RuntimeName::Runc, None);
        is(12, "mine", Some("/home/u/mine"), RuntimeName::Crun, Some(1000));
        assert_eq!(all.len(), 6);
    }

    #[test]
    fn what_was_written_of_an_earlier_process_with_the_pid_is_not_of_this_one() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, json: &str| write(&root.path().join(path), json);
        // Left by a runtime that was killed.
        put("run/runc/old/state.json", r#"{"id":"old","init_process_pid":7,"init_process_start":100}"#);
        put(
            "run/containerd/runc/k8s.io/new/state.json",
            r#"{"id":"new","init_process_pid":7,"init_process_start":12345}"#,
        );
        put("run/crun/older/status", r#"{"pid":7,"process-start-time":50,"bundle":"/b"}"#);
        put("run/crun/silent/status", r#"{"pid":8,"bundle":"/b"}"#);
        let all = recorded(root.path(), &[]);
        let of = |pid, ticks: u64| {
            let p = Process {
                pid,
                parent: 1,
                mntns: 2,
                netns: 3,
                cgroup: "/".into(),
                started: ticks * TICK,
                is_runtime: false,
            };
            all[&pid].iter().find(|r| r.is_of(&p)).map(|r| r.id.to_string())
        };
        assert_eq!([of(7, 12345), of(7, 100), of(7, 50)].map(Option::unwrap), ["new", "old", "older"]);
        assert_eq!((of(7, 777), of(8, 777).as_deref()), (None, Some("silent")));
    }
}
