//! A private Podman: storage, state and API socket of our own in a temporary directory, with a busybox image.

use crate::wait_for;
use std::{
    fs,
    os::unix::fs::symlink,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};
use tempfile::TempDir;

pub struct Podman {
    dir: TempDir,
    service: Option<Child>,
}

impl Podman {
    /// With its API service.
    pub fn start() -> Podman {
        // A short path: a socket's name has at most 107 bytes.
        let dir = tempfile::Builder::new().prefix("igp").tempdir_in("/tmp").expect("a temporary directory");
        let mut podman = Podman { dir, service: None };
        let root = podman.dir.path().join("rootfs/bin");
        fs::create_dir_all(&root).expect("a folder");
        fs::copy("/bin/busybox", root.join("busybox")).expect("busybox-static");
        symlink("busybox", root.join("sh")).expect("a link");
        let tar = podman.dir.path().join("bb.tar");
        let from = podman.dir.path().join("rootfs");
        let packed = Command::new("tar").arg("-C").arg(from).arg("-cf").arg(&tar).arg(".").status();
        assert!(packed.is_ok_and(|s| s.success()), "tar failed");
        podman.run(&["import", &tar.display().to_string(), "localhost/busybox:latest"]);
        let socket = format!("unix://{}", podman.socket().display());
        let mut service = podman.command(&["system", "service", "--time=0", &socket]);
        podman.service = Some(service.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("podman starts"));
        wait_for("podman's socket", Duration::from_secs(30), || podman.socket().exists().then_some(()));
        podman
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("podman.sock")
    }

    /// A `podman` command with our storage, not yet started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut c = Command::new("podman");
        for (flag, dir) in [("--root", "root"), ("--runroot", "run"), ("--tmpdir", "tmp")] {
            c.arg(flag).arg(self.dir.path().join(dir));
        }
        c.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "file"]).args(arguments);
        c
    }

    /// Runs `podman ARGUMENTS`; panics when it fails.
    pub fn run(&self, arguments: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.command(arguments).output().expect("podman is installed");
        assert!(status.success(), "podman {arguments:?}: {status}\n{}", String::from_utf8_lossy(&stderr));
        String::from_utf8_lossy(&stdout).trim().to_string()
    }

    /// Runs a container of the busybox image with runc; limits as every kernel and every user may set them.
    pub fn container(&self, name: &str, flags: &[&str], program: &[&str]) -> String {
        let limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"];
        let mut all = vec!["run", "--name", name, "--runtime", "runc", "--net=none"];
        all.extend(limits.iter().chain(flags));
        all.push("localhost/busybox");
        all.extend(program);
        self.run(&all)
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        // Whatever fails here must not hide the test's own failure.
        self.command(&["rm", "-fa", "-t", "0"]).output().ok();
        if let Some(service) = &mut self.service {
            service.kill().ok();
            service.wait().ok();
        }
    }
}
