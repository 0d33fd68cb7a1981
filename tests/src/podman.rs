//! Podman with storage of its own, over runc or over crun.
//!
//! crun refuses cgroups of version 1 beside those of version 2: there it runs in a mount namespace that shows only
//! version 2, and its containers get no cgroup at all. That makes them the hardest to recognise.

use crate::{
    source_root,
    truth::{self, PROGRAM, Truth},
};
use std::{
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;

const IMAGE: &str = "localhost/busybox:latest";
/// What may be raised without CAP_SYS_RESOURCE: nothing, so what everybody has.
const LIMITS: [&str; 4] = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"];

/// A command in a mount namespace where /sys/fs/cgroup is the version 2 hierarchy alone.
pub fn with_cgroup2_only() -> Command {
    let mut c = Command::new("unshare");
    c.args(["-m", "sh", "-c", "mount -t cgroup2 none /sys/fs/cgroup && exec \"$@\"", "sh"]);
    c
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Oci {
    Runc,
    /// Without a cgroup.
    Crun,
}

pub struct Podman {
    dir: TempDir,
    oci: Oci,
    service: Option<Child>,
}

impl Podman {
    /// Over runc, with its API service.
    pub fn start() -> Podman {
        let mut podman = Podman::new(Oci::Runc);
        podman.serve();
        podman
    }

    /// Without its API service.
    pub fn new(oci: Oci) -> Podman {
        let dir = tempfile::Builder::new().prefix("igp").tempdir_in("/tmp").expect("a temporary directory");
        let podman = Podman { dir, oci, service: None };
        let image = Command::new(source_root().join("tests/runtimes/image")).arg(IMAGE).output().expect("python3");
        assert!(image.status.success(), "{}", String::from_utf8_lossy(&image.stderr));
        let tar = podman.dir.path().join("busybox.tar");
        std::fs::write(&tar, image.stdout).expect("a writable directory");
        podman.run(&["load", "-q", "-i", &tar.display().to_string()]);
        podman
    }

    /// `podman ARGUMENTS`, not yet started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let (mut c, runtime) = match self.oci {
            Oci::Runc => (Command::new("podman"), "runc"),
            Oci::Crun => {
                let mut c = with_cgroup2_only();
                c.arg("podman");
                (c, "crun")
            }
        };
        let at = |name: &str| self.dir.path().join(name).display().to_string();
        c.args(["--root", &at("root"), "--runroot", &at("run"), "--tmpdir", &at("tmp")]);
        c.args(["--events-backend", "file", "--runtime", runtime]).args(arguments);
        c
    }

    /// Runs `podman ARGUMENTS`; panics when it fails.
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments).output().expect("podman is installed");
        truth::printed(&format!("podman {arguments:?}"), output).trim().to_owned()
    }

    /// Runs a container of the busybox image; panics when it fails.
    pub fn container(&self, name: &str, options: &[&str], program: &[&str]) -> String {
        let output = self.container_command(options, name, program).output().expect("podman is installed");
        truth::printed(&format!("podman run {name}"), output).trim().to_owned()
    }

    /// `podman run` of `command` in a new container, not yet started.
    pub fn container_command(&self, options: &[&str], name: &str, command: &[&str]) -> Command {
        let mut c = self.command(&["run", "--net=none", "--name", name]);
        if self.oci == Oci::Crun {
            c.arg("--cgroups=disabled");
        }
        c.args(LIMITS).args(options).arg(IMAGE).args(command);
        c
    }

    /// Runs a container that says who it is.
    pub fn truth(&self, name: &str) -> Truth {
        let file = self.dir.path().join(format!("{name}.id"));
        let option = format!("--cidfile={}", file.display());
        let printed = self.container(name, &[&option], &PROGRAM);
        // Newer ones delete the file with the container, so that --rm would be too early.
        let id = std::fs::read_to_string(file).expect("podman's id file");
        self.run(&["rm", name]);
        Truth::new(name, &id, "podman", &printed)
    }

    /// Starts the API service.
    pub fn serve(&mut self) {
        let address = format!("unix://{}", self.socket().display());
        let mut service = self.command(&["system", "service", "--time=0", &address]);
        let service = service.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.service = Some(service.expect("podman is installed"));
        // The file is there a moment before somebody listens.
        let listens = || UnixStream::connect(self.socket()).is_ok().then_some(());
        crate::wait_for("podman's socket", Duration::from_secs(180), listens);
    }

    /// Of the API service.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("podman.sock")
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        if let Some(mut service) = self.service.take() {
            // Ended already is as good as killed.
            service.kill().ok();
            service.wait().ok();
        }
        // Containers that a failed test has left, and the mounts of the storage.
        self.command(&["rm", "--all", "--force", "--time", "0"]).output().ok();
        let below = self.dir.path().display().to_string();
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let ours = mounts.lines().filter_map(|l| l.split(' ').nth(1)).filter(|m| m.starts_with(&below));
        for mount in ours.collect::<Vec<_>>().into_iter().rev() {
            Command::new("umount").args(["-l", mount]).output().ok();
        }
    }
}
