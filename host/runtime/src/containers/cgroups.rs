//! The host's cgroup hierarchies as directories: where they are mounted, a cgroup's id, and who may make cgroups in it.
//!
//! Works with v2 alone, v1 alone, both (hybrid) and none mounted: what is not mounted answers nothing. Read-only; on the
//! containers' thread.

use super::identify;
use std::{
    ffi::OsString,
    fs,
    os::{
        fd::AsFd,
        unix::{ffi::OsStringExt, fs::MetadataExt},
    },
    path::{Path, PathBuf},
};

/// `ns/cgroup` of a process in the first cgroup namespace: a constant of the kernel.
const INIT_CGROUP_NS: u64 = 4_026_531_835;

/// Mounts of the whole of a hierarchy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cgroups {
    /// The default hierarchy (v2).
    unified: Option<PathBuf>,
    /// The pids controller's, where that is v1.
    pids: Option<PathBuf>,
}

impl Cgroups {
    /// Looks at this process's mounts: those below the host's root come first.
    pub(crate) fn find(host_root: &Path) -> Cgroups {
        let text = fs::read("/proc/self/mountinfo").unwrap_or_default();
        let root = host_root.canonicalize().unwrap_or_else(|_e| host_root.to_owned());
        let (unified, pids) = mounts(&String::from_utf8_lossy(&text), &root);
        // In a cgroup namespace of our own a mount may show a part as if it were all.
        let whole = |p: &PathBuf| p.join("cgroup.controllers").exists() && !p.join("cgroup.events").exists();
        let whole_v1 = |p: &PathBuf| p.join("release_agent").exists();
        Cgroups { unified: unified.into_iter().find(whole), pids: pids.into_iter().find(whole_v1) }
    }

    /// Where all of the default hierarchy is mounted.
    pub(crate) fn default_root(&self) -> Option<&Path> {
        self.unified.as_deref()
    }

    #[cfg(test)]
    pub(super) fn at(unified: Option<PathBuf>, pids: Option<PathBuf>) -> Cgroups {
        Cgroups { unified, pids }
    }

    /// Id of the cgroup at `path`: the inode of its directory in the default hierarchy.
    pub(super) fn id(&self, path: &str) -> Option<u64> {
        let root = self.unified.as_deref()?;
        let relative = path.trim_matches('/');
        if relative.is_empty() || relative.split('/').any(|p| p == "..") {
            return None;
        }
        fs::metadata(root.join(relative)).ok().map(|d| d.ino())
    }

    /// Directory of a cgroup by its paths in the default hierarchy and in the pids one: in the first that knows it by a
    /// name of its own.
    pub(super) fn directory(&self, unified: Option<&str>, pids: Option<&str>) -> Option<PathBuf> {
        let below = |mount: &Option<PathBuf>, path: Option<&str>| {
            let relative = path?.trim_matches('/');
            let plain = !relative.is_empty() && !relative.split('/').any(|p| p == "..");
            plain.then(|| mount.as_ref().map(|m| m.join(relative))).flatten()
        };
        below(&self.unified, unified).or_else(|| below(&self.pids, pids))
    }

    /// The user, other than root, in whose directory the container's cgroup lies: there they make cgroups of any name,
    /// so the id is only their word. The container's own directory may be anyone's. `None` also where nothing can be seen:
    /// without the file system mounted nobody could have been given a part of it.
    pub(super) fn user_above(&self, path: &str, id: &str) -> Option<u32> {
        let owner = |dir: &Path| fs::symlink_metadata(dir).ok().map(|d| d.uid());
        [&self.unified, &self.pids].into_iter().flatten().find_map(|mount| user_above(mount, path, id, owner))
    }
}

/// From the top: a directory lent to a user lies in one of root's, so that the user cannot make it vanish.
fn user_above(mount: &Path, path: &str, id: &str, owner: impl Fn(&Path) -> Option<u32>) -> Option<u32> {
    let mut dir = mount.to_owned();
    for part in path.split('/').filter(|p| !p.is_empty() && *p != "..") {
        let uid = owner(&dir)?;
        if uid != 0 {
            return Some(uid);
        }
        if identify::cgroup_is_of(part, id) {
            return None;
        }
        dir.push(part);
    }
    None
}

/// Mount points of cgroup2, and of v1 with the pids controller; those below `host_root` first.
fn mounts(mountinfo: &str, host_root: &Path) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let (mut unified, mut pids) = (Vec::new(), Vec::new());
    for line in mountinfo.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let Some(point) = before.split(' ').nth(4).map(unescaped) else { continue };
        let mut after = after.split(' ');
        match (after.next(), after.nth(1)) {
            (Some("cgroup2"), _) => unified.push(point),
            (Some("cgroup"), Some(options)) if options.split(',').any(|o| o == "pids") => pids.push(point),
            _ => {}
        }
    }
    // Stable: among equals the order of mounting stays.
    unified.sort_by_key(|p| !p.starts_with(host_root));
    pids.sort_by_key(|p| !p.starts_with(host_root));
    (unified, pids)
}

/// Spaces and the like are written as `\040` there.
fn unescaped(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let code = (*first == b'\\').then(|| tail.get(..3)).flatten();
        let code = code.and_then(|c| u8::from_str_radix(std::str::from_utf8(c).ok()?, 8).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &tail[3..] } else { tail };
    }
    PathBuf::from(OsString::from_vec(bytes))
}

/// Has this thread see cgroup paths as the host does: in a container they are told relative to the container's own. `proc`
/// is the host's. Where it may not be, paths stay relative, and containers are known by the ids in them all the same.
pub(super) fn enter_hosts_namespace(proc: &Path) {
    let own = super::snapshot::namespace(Path::new("/proc/thread-self/ns/cgroup"));
    if own.is_none_or(|ns| ns == INIT_CGROUP_NS) {
        return;
    }
    for pid in ["1", "2"] {
        let Ok(link) = fs::File::open(proc.join(pid).join("ns/cgroup")) else { continue };
        if crate::bpf::sys::enter_cgroup_namespace(link.as_fd()).is_ok() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate";
    const V1: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd";
    const HYBRID_REST: &str = "\n41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";

    fn found(text: &str, root: &str) -> (Vec<String>, Vec<String>) {
        let (a, b) = mounts(text, Path::new(root));
        let text = |v: Vec<PathBuf>| v.into_iter().map(|p| p.display().to_string()).collect();
        (text(a), text(b))
    }

    #[test]
    fn every_layout_is_found() {
        let none: Vec<String> = Vec::new();
        let (v2, pids) = (vec!["/sys/fs/cgroup".to_owned()], vec!["/sys/fs/cgroup/pids".to_owned()]);
        assert_eq!(found(V2, "/"), (v2, none.clone()), "v2 only");
        assert_eq!(found(V1, "/"), (none.clone(), pids.clone()), "v1 only");
        let unified = vec!["/sys/fs/cgroup/unified".to_owned()];
        assert_eq!(found(&format!("{V1}{HYBRID_REST}"), "/"), (unified, pids), "hybrid");
        assert_eq!(found("25 1 8:1 / / rw - ext4 /dev/sda1 rw", "/"), (none.clone(), none), "none at all");
    }

    #[test]
    fn co_mounted_controllers_and_odd_mount_points_are_found() {
        let text = "39 31 0:36 / /mnt/a\\040b rw - cgroup none rw,cpu,pids\nbroken line\n1 2 3 - cgroup2";
        assert_eq!(found(text, "/").1, ["/mnt/a b"]);
    }

    #[test]
    fn in_a_container_the_hosts_mounts_come_first() {
        let text = format!("{V2}\n90 80 0:28 / /host/sys/fs/cgroup rw - cgroup2 cgroup2 rw");
        assert_eq!(found(&text, "/host").0, ["/host/sys/fs/cgroup", "/sys/fs/cgroup"]);
    }

    #[test]
    fn an_id_is_the_inode_of_the_directory_and_nothing_outside() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("all/docker/x")).unwrap();
        let cgroups = Cgroups::at(Some(dir.path().join("all")), None);
        let ino = fs::metadata(dir.path().join("all/docker/x")).unwrap().ino();
        assert_eq!(cgroups.id("/docker/x"), Some(ino));
        for path in ["/", "", "/../all", "/docker/y"] {
            assert_eq!(cgroups.id(path), None, "{path}");
        }
        assert_eq!(Cgroups::default().id("/docker/x"), None);
    }

    #[test]
    fn a_directory_lent_to_a_user_is_that_users_word() {
        let id = "a".repeat(64);
        // The user may have made `gone` vanish already, never what root lent them.
        let owner = |dir: &Path| match dir.strip_prefix("/cg").ok()?.to_str()? {
            "lent" => Some(1000),
            "" | "docker" => Some(0),
            own if own == format!("docker/{id}") => Some(1000),
            _ => None,
        };
        let user = |path: &str| user_above(Path::new("/cg"), &path.replace("ID", &id), &id, owner);
        assert_eq!(user("/lent/ID"), Some(1000));
        assert_eq!(user("/lent/gone/docker-ID.scope"), Some(1000));
        assert_eq!(user("/docker/ID"), None, "its own directory may be a user's");
        assert_eq!(user("/docker/ID/init.scope"), None);
        assert_eq!(user("/gone/ID"), None);
        assert_eq!(Cgroups::default().user_above(&format!("/lent/{id}"), &id), None, "nothing mounted");
    }
}
