//! A stand-in for `docker run --privileged -v /:/host IMAGE`, which many test machines do not permit: `ig` in a root file
//! system of its own, with mount and, if asked for, pid and cgroup namespaces of its own, and the host's root mounted.

use crate::ig::{Ig, Running, binary};
use std::{path::Path, process::Command};
use tempfile::TempDir;

/// What the container shares with the host.
#[derive(Clone, Copy, Debug)]
pub struct Shares {
    /// `--pid=host`
    pub pids: bool,
    /// `-v /:/host`
    pub root: bool,
}

pub struct ContainerRoot {
    dir: TempDir,
}

impl ContainerRoot {
    /// A busybox and the `ig` under test, nothing else.
    pub fn new() -> ContainerRoot {
        let dir = tempfile::Builder::new().prefix("igr").tempdir_in("/tmp").expect("a temporary directory");
        for d in ["bin", "usr/bin", "proc", "sys", "dev", "tmp", "etc", "run", "host", "old", "docker"] {
            std::fs::create_dir_all(dir.path().join(d)).expect("a writable directory");
        }
        std::fs::copy("/bin/busybox", dir.path().join("bin/busybox")).expect("Debian's busybox-static");
        std::fs::copy(binary(), dir.path().join("usr/bin/ig")).expect("the binary under test");
        ContainerRoot { dir }
    }

    /// Runs `ig` inside. `docker` is shown as `/docker` there.
    pub fn run(&self, ig: Ig, shares: Shares, docker: &Path) -> Ig {
        // `$0` is this root, `$1` docker's directory, `$2` the binary's path outside; what follows are its arguments.
        let mut script = "set -e; r=$0; d=$1; shift 2
mount --bind \"$r\" \"$r\"
mount --bind \"$d\" \"$r/docker\"
mount -t proc proc \"$r/proc\"
mount -t sysfs sysfs \"$r/sys\"
mount --rbind /dev \"$r/dev\"
"
        .to_owned();
        if shares.root {
            script.push_str("mount --rbind / \"$r/host\"\n");
        }
        // As runtimes do, so that nothing of the host is reachable but what was mounted.
        script.push_str(
            "cd \"$r\"; pivot_root . old; cd /; /bin/busybox umount -l /old
exec /usr/bin/ig \"$@\"\n",
        );
        let mut words = vec!["unshare", "--mount", "--propagation", "private"];
        if !shares.pids {
            words.extend(["--pid", "--fork", "--kill-child"]);
        }
        let (root, docker) = (self.dir.path().display().to_string(), docker.display().to_string());
        words.extend(["sh", "-c", &script, &root, &docker]);
        let ig = ig.through(&words);
        if shares.root { ig.env("HOST_ROOT", "/host") } else { ig }
    }
}

impl Default for ContainerRoot {
    fn default() -> Self {
        ContainerRoot::new()
    }
}

/// SIGINT to `ig`, which may be a child of what was started: `unshare --fork` passes no signals on.
pub fn interrupt(running: &Running) {
    let pid = running.pid();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let target = children.split_whitespace().next().map_or_else(|| pid.to_string(), str::to_owned);
    let ok = Command::new("kill").args(["-INT", &target]).status().is_ok_and(|s| s.success());
    assert!(ok, "ig had ended already:\n{}", running.stderr());
}
