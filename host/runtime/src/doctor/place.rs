//! Where ig runs: mounts, cgroup layout, the host's root and pid namespace, and the image store.

use super::Check;
use crate::{host_root, instance::filesystems};
use std::{
    fs,
    path::{Path, PathBuf},
};

pub(super) fn filesystems(auto_mount: bool) -> Vec<Check> {
    let mut all: Vec<Check> =
        filesystems::ALL.iter().map(|f| mount(f.kind, f.path, f.needed, f.mounted_at(), auto_mount)).collect();
    let text = fs::read("/proc/self/mountinfo").unwrap_or_default();
    all.push(cgroups(&String::from_utf8_lossy(&text)));
    all
}

fn mount(kind: &str, path: &str, needed: bool, at: Option<&str>, auto_mount: bool) -> Check {
    let name = if kind == "bpf" { "bpffs" } else { kind };
    match at {
        Some(at) => Check::ok(name, at),
        None if auto_mount => Check::ok(name, format!("not mounted; a run mounts it on {path}")),
        None if !needed => Check::ok(name, "not mounted; no gadget needs it"),
        None => Check::fail(name, format!("not mounted on {path}"))
            .remedy(format!("ig run --auto-mount-filesystems, or: mount -t {kind} {kind} {path}")),
    }
}

/// Which hierarchies are mounted, from `/proc/self/mountinfo`.
fn cgroups(mountinfo: &str) -> Check {
    let kinds = || mountinfo.lines().filter_map(|l| l.split_once(" - ")?.1.split(' ').next());
    let (v2, v1) = (kinds().any(|k| k == "cgroup2"), kinds().any(|k| k == "cgroup"));
    match (v2, v1) {
        (true, false) => Check::ok("cgroups", "v2"),
        (true, true) => Check::ok("cgroups", "hybrid (v1 controllers beside v2)"),
        (false, true) => Check::ok("cgroups", "v1"),
        (false, false) => Check::warn(
            "cgroups",
            "not mounted: containers are known by their runtime's command line and state files only",
        )
        .remedy("mount -t cgroup2 cgroup2 /sys/fs/cgroup"),
    }
}

pub(super) fn host(root: &Path) -> Vec<Check> {
    let exists =
        host_root::join(root, Path::new("/proc")).is_dir() && host_root::join(root, Path::new("/etc")).is_dir();
    vec![host_root_check(root, exists), pid_namespace(host_root::shares_pid_namespace(), host_root::proc(root))]
}

fn host_root_check(root: &Path, is_root: bool) -> Check {
    let name = "host root";
    match (root == Path::new("/"), is_root) {
        (true, _) => Check::ok(name, "/"),
        (false, true) => Check::ok(name, format!("{} (HOST_ROOT)", root.display())),
        (false, false) => {
            Check::warn(name, format!("{} has no proc and etc: no root directory is mounted there", root.display()))
                .remedy("mount the host's root there (docker: -v /:/host; pod: hostPath /), or unset HOST_ROOT")
        }
    }
}

fn pid_namespace(shared: Option<bool>, proc: Option<PathBuf>) -> Check {
    let name = "pid namespace";
    match (shared, proc) {
        (Some(true), Some(_)) => Check::ok(name, "the host's"),
        (_, Some(proc)) => Check::ok(name, format!("a container's own; processes are looked up in {}", proc.display())),
        (_, None) => Check::warn(
            name,
            "a container's own, and no proc of the host's is mounted: containers that ran before are found late",
        )
        .remedy("docker: --pid=host or -v /:/host -e HOST_ROOT=/host; pod: hostPID: true"),
    }
}

pub(super) fn images(dir: Result<&Path, &str>, catalogue: usize) -> Vec<Check> {
    let dir = match dir {
        Ok(dir) => dir,
        Err(why) => {
            let none = Check::warn("image store", format!("{why}, so there is no place for one"));
            return vec![none.remedy("name a directory with --store DIR"), embedded(catalogue)];
        }
    };
    // What does not exist is made in the nearest directory that does.
    let existing = dir.ancestors().find(|d| d.exists()).unwrap_or(Path::new("/"));
    let writable = rustix::fs::access(existing, rustix::fs::Access::WRITE_OK).map_err(std::io::Error::from);
    let read_only = rustix::fs::statvfs(existing).ok();
    let free = read_only.map(|s| s.f_bavail.saturating_mul(s.f_frsize));
    vec![store(dir, existing, writable.map_err(|e| e.to_string()), free), embedded(catalogue)]
}

/// A gadget is well below a megabyte; an image with a large Wasm half is a few.
const ROOM: u64 = 64 << 20;

fn store(dir: &Path, existing: &Path, writable: Result<(), String>, free: Option<u64>) -> Check {
    let name = "image store";
    let at = dir.display();
    if let Err(e) = writable {
        let place = if existing == dir { String::new() } else { format!(" (nearest: {})", existing.display()) };
        return Check::warn(name, format!("{at} cannot be written{place}: {e}"))
            .remedy("name another directory with --store DIR; embedded gadgets run all the same");
    }
    let yet = if existing == dir { "" } else { ", made when needed" };
    let Some(free) = free else { return Check::unknown(name, format!("{at}: its free space cannot be told")) };
    let room = format!("{} MiB free", free >> 20);
    if free < ROOM {
        return Check::warn(name, format!("{at}: {room}"))
            .remedy("make room, or name a directory on another disk with --store DIR");
    }
    Check::ok(name, format!("{at}: writable, {room}{yet}"))
}

fn embedded(catalogue: usize) -> Check {
    match catalogue {
        0 => Check::warn("embedded gadgets", "none: this ig was built without a catalogue")
            .remedy("pull or build gadgets (ig image pull, ig image build), or build ig with `make build`"),
        n => Check::ok("embedded gadgets", format!("{n}; `ig list-gadgets` names them")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Status;

    #[test]
    fn layouts_of_cgroups_are_told_apart() {
        let v1 = "39 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n";
        let v2 = "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(cgroups(v2).finding, "v2");
        assert_eq!(cgroups(v1).finding, "v1");
        assert!(cgroups(&format!("{v1}{v2}")).finding.starts_with("hybrid"));
        assert_eq!(cgroups("25 1 8:1 / / rw - ext4 /dev/sda1 rw").status, Status::Warn);
    }

    #[test]
    fn a_missing_mount_fails_only_where_nothing_mounts_it() {
        let check = |needed, at, auto| mount("tracefs", "/sys/kernel/tracing", needed, at, auto);
        assert_eq!(check(true, Some("/sys/kernel/debug/tracing"), false).status, Status::Ok);
        assert_eq!(check(true, None, true).status, Status::Ok);
        assert_eq!(check(false, None, false).status, Status::Ok);
        let failed = check(true, None, false);
        assert_eq!(failed.status, Status::Fail);
        assert!(failed.remedy.unwrap().contains("--auto-mount-filesystems"));
    }

    #[test]
    fn in_a_container_it_is_said_whose_processes_are_seen() {
        let proc = |p: &str| Some(PathBuf::from(p));
        assert_eq!(pid_namespace(Some(true), proc("/proc")).finding, "the host's");
        assert!(pid_namespace(Some(false), proc("/host/proc")).finding.contains("/host/proc"));
        assert_eq!(pid_namespace(Some(false), None).status, Status::Warn);
        assert_eq!(host_root_check(Path::new("/host"), false).status, Status::Warn);
        assert_eq!(host_root_check(Path::new("/host"), true).finding, "/host (HOST_ROOT)");
    }

    #[test]
    fn a_store_without_room_or_permission_is_said() {
        let dir = Path::new("/var/lib/ig/oci-store");
        let s = |writable, free| store(dir, Path::new("/var/lib"), writable, free);
        assert_eq!(
            s(Ok(()), Some(1 << 30)).finding,
            "/var/lib/ig/oci-store: writable, 1024 MiB free, made when needed"
        );
        assert_eq!(s(Ok(()), Some(1)).status, Status::Warn);
        assert_eq!(s(Ok(()), None).status, Status::Unknown);
        let refused = s(Err("read-only file system".into()), Some(1 << 30));
        assert_eq!(refused.status, Status::Warn);
        assert!(refused.finding.contains("(nearest: /var/lib): read-only"), "{}", refused.finding);
        assert_eq!(embedded(0).status, Status::Warn);
    }
}
