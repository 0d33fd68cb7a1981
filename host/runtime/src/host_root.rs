//! The observed host's files as this process sees them: below `/`, or below a mount of the host's root in a container.
//!
//! A path of the host is never just appended to that mount: an absolute link in the host's tree (`/var/run -> /run`) would
//! lead back into the container's own files. Links are followed here, inside the root, and nothing leaves it. Pure path
//! work and small reads; any thread.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::ffi::OsStrExt,
    path::{Component, Path, PathBuf},
};

/// Links followed in one path: as many as the kernel follows.
const MAX_LINKS: usize = 40;
/// `ns/pid` of a process in the first pid namespace: a constant of the kernel.
const INIT_PID_NS: &str = "pid:[4026531836]";

/// `path` of the observed host as this process sees it, whose view of the host's root is `root`.
///
/// Links are resolved inside `root`; `..` stops there. What does not exist keeps its name, below the part that does. Not
/// for links below `/proc/PID`, which lead where no path does: those are opened as they are, below `proc`. Whoever can
/// change the host's directories between this and the opening can still lead astray, so secrets do not hang on it.
pub fn join(root: &Path, path: &Path) -> PathBuf {
    if root == Path::new("/") {
        let mut out = root.to_path_buf();
        out.extend(path.components().filter(|c| !matches!(c, Component::RootDir)));
        return out;
    }
    inside(root, path).map_or_else(nowhere, |relative| root.join(relative))
}

/// A path that can be joined and opened like any other and is never there.
pub(crate) fn nowhere() -> PathBuf {
    PathBuf::from(OsStr::from_bytes(b"/\0"))
}

/// The path below `root` without links; `None` where they go in circles.
fn inside(root: &Path, path: &Path) -> Option<PathBuf> {
    let mut at = PathBuf::new();
    // Still to walk, the next component last.
    let mut rest: Vec<OsString> = Vec::new();
    let push = |rest: &mut Vec<OsString>, path: &Path| {
        let parts = path.components().filter(|c| matches!(c, Component::Normal(_) | Component::ParentDir));
        let parts: Vec<OsString> = parts.map(|c| c.as_os_str().to_owned()).collect();
        rest.extend(parts.into_iter().rev());
    };
    push(&mut rest, path);
    let mut links = 0;
    while let Some(part) = rest.pop() {
        if part == ".." {
            at.pop();
            continue;
        }
        at.push(&part);
        let Ok(target) = fs::read_link(root.join(&at)) else {
            continue;
        };
        links += 1;
        if links > MAX_LINKS {
            return None;
        }
        at.pop();
        if target.is_absolute() {
            at.clear();
        }
        push(&mut rest, &target);
    }
    Some(at)
}

/// The mount of proc that numbers processes as the host and BPF programs do: `root`'s, else this process's own. `None`:
/// both belong to another pid namespace, and a number looked up there would be another process.
pub fn proc(root: &Path) -> Option<PathBuf> {
    let candidates = [join(root, Path::new("/proc")), PathBuf::from("/proc")];
    candidates.into_iter().find(|p| is_hosts_proc(p))
}

/// True for a mount of proc that belongs to the first pid namespace.
fn is_hosts_proc(proc: &Path) -> bool {
    // The threads of the kernel live in that one only, and the second process is always one of them.
    let kernel_thread = fs::read(proc.join("2/stat")).is_ok_and(|stat| is_kernel_thread(&stat));
    // Where processes of others are hidden: a mount shows us only if it belongs to our namespace or one around it.
    kernel_thread || fs::read_link(proc.join("self/ns/pid")).is_ok_and(|ns| ns == OsStr::new(INIT_PID_NS))
}

/// Reads a flag that no program can give itself, from `/proc/PID/stat`.
fn is_kernel_thread(stat: &[u8]) -> bool {
    const PF_KTHREAD: u32 = 0x0020_0000;
    let Some(close) = memchr::memrchr(b')', stat) else { return false };
    let fields = std::str::from_utf8(&stat[close + 1..]).unwrap_or_default();
    fields.split_ascii_whitespace().nth(6).and_then(|f| f.parse::<u32>().ok()).is_some_and(|f| f & PF_KTHREAD != 0)
}

/// True where this process is in the host's first pid namespace; `None`: cannot be told.
pub fn shares_pid_namespace() -> Option<bool> {
    fs::read_link("/proc/self/ns/pid").ok().map(|ns| ns == OsStr::new(INIT_PID_NS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    struct Tree(tempfile::TempDir);

    impl Tree {
        fn new() -> Tree {
            let tree = Tree(tempfile::tempdir().unwrap());
            fs::create_dir_all(tree.0.path().join("run/user")).unwrap();
            fs::create_dir_all(tree.0.path().join("var")).unwrap();
            fs::write(tree.0.path().join("run/a.sock"), "").unwrap();
            tree
        }

        fn link(self, at: &str, to: &str) -> Tree {
            symlink(to, self.0.path().join(at)).unwrap();
            self
        }

        fn join(&self, path: &str) -> String {
            let joined = join(self.0.path(), Path::new(path));
            joined.strip_prefix(self.0.path()).map_or_else(|_e| "nowhere".into(), |p| p.display().to_string())
        }
    }

    #[test]
    fn the_root_itself_changes_nothing() {
        assert_eq!(join(Path::new("/"), Path::new("/run/x")), Path::new("/run/x"));
        assert_eq!(join(Path::new("/"), Path::new("run/x")), Path::new("/run/x"));
    }

    #[test]
    fn links_are_followed_inside_the_root() {
        let t = Tree::new().link("var/run", "/run").link("var/up", "../run").link("run/b.sock", "a.sock");
        assert_eq!(t.join("/var/run/a.sock"), "run/a.sock");
        assert_eq!(t.join("/var/up/b.sock"), "run/a.sock");
        assert_eq!(t.join("var/run/user/../a.sock"), "run/a.sock");
    }

    #[test]
    fn nothing_leaves_the_root() {
        let t = Tree::new().link("var/out", "../../../../etc/passwd").link("var/abs", "/etc/passwd").link("all", "/");
        for path in ["/var/out", "/var/abs", "/../../etc/passwd", "/all/../../etc/passwd", "/all/all/etc/passwd"] {
            assert_eq!(t.join(path), "etc/passwd", "{path}");
        }
    }

    #[test]
    fn what_is_not_there_keeps_its_name() {
        let t = Tree::new().link("var/run", "/run");
        assert_eq!(t.join("/var/run/none/x.sock"), "run/none/x.sock");
        assert_eq!(t.join("/run/a.sock/x"), "run/a.sock/x");
    }

    #[test]
    fn links_in_circles_lead_nowhere() {
        let t = Tree::new().link("a", "b").link("b", "/a");
        assert_eq!(t.join("/a/x"), "nowhere");
        let path = join(t.0.path(), Path::new("/a")).join("config.json");
        assert_eq!(fs::read(&path).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
        assert!(!path.exists());
    }

    #[test]
    fn only_threads_of_the_kernel_prove_the_hosts_proc() {
        let kthreadd = b"2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0";
        assert!(is_kernel_thread(kthreadd));
        // Who calls themselves so.
        assert!(!is_kernel_thread(b"2 (kthreadd) S 0 0 0 0 -1 4194304 0 0 0 0"));
        assert!(!is_kernel_thread(b"2 (a) S 0 0 2129984) S 0 0 0 0 -1 4194304 0"));
        assert!(!is_kernel_thread(b"2"));
    }

    #[test]
    fn a_proc_that_is_none_is_not_the_hosts() {
        let t = Tree::new();
        fs::create_dir_all(t.0.path().join("proc/2")).unwrap();
        fs::write(t.0.path().join("proc/2/stat"), "2 (kthreadd) S 1 0 0 0 -1 4194304 0").unwrap();
        assert!(!is_hosts_proc(&t.0.path().join("proc")));
        assert_ne!(proc(t.0.path()), Some(t.0.path().join("proc")));
    }
}
