//! A private Docker: containerd and dockerd of our own, with a busybox image, on sockets in a temporary directory.

use crate::{
    source_root,
    truth::{PROGRAM, Truth},
};
use std::{
    path::PathBuf,
    process::{Command, Output},
};
use tempfile::TempDir;

pub struct Docker {
    dir: TempDir,
}

impl Docker {
    pub fn start() -> Docker {
        // A short path: a socket's name has at most 107 bytes.
        let dir = tempfile::Builder::new().prefix("igd").tempdir_in("/tmp").expect("a temporary directory");
        let docker = Docker { dir };
        assert!(docker.script("start"), "no private Docker: see the message above");
        docker
    }

    fn script(&self, verb: &str) -> bool {
        let script = source_root().join("scripts/private-docker");
        Command::new(script).arg(verb).arg(self.dir.path()).status().is_ok_and(|s| s.success())
    }

    /// The API socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("docker.sock")
    }

    /// A `docker` command on this daemon, not yet started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut c = Command::new("docker");
        c.arg("-H").arg(format!("unix://{}", self.socket().display())).args(arguments);
        c
    }

    /// Runs a container that says who it is; `None` when it could not run.
    pub fn try_truth(&self, name: &str) -> Option<Truth> {
        let file = self.dir.path().join(format!("{name}.id"));
        let option = format!("--cidfile={}", file.display());
        let run = ["run", "--rm", "--net=none", "--name", name, &option, "busybox"];
        let output = self.command(&[&run, &PROGRAM[..]].concat()).output().expect("the docker client");
        let printed = String::from_utf8_lossy(&output.stdout);
        let id = std::fs::read_to_string(file).ok()?;
        output.status.success().then(|| Truth::new(name, &id, "docker", &printed))
    }

    /// Runs a container that says who it is.
    pub fn truth(&self, name: &str) -> Truth {
        self.try_truth(name).unwrap_or_else(|| panic!("container {name} did not run"))
    }

    /// SIGKILL to `dockerd` or `containerd`, which then starts anew. Containers go on.
    pub fn restart(&self, daemon: &str) {
        assert!(self.script(&format!("restart-{daemon}")), "{daemon} did not come back: see the message above");
    }

    /// A file beside the sockets, gone with them.
    pub fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, content).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        path
    }

    /// Runs `docker ARGUMENTS`; panics when it fails.
    pub fn run(&self, arguments: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.command(arguments).output().expect("the docker client");
        assert!(status.success(), "docker {arguments:?}: {status}\n{}", String::from_utf8_lossy(&stderr));
        String::from_utf8_lossy(&stdout).trim().to_string()
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        if !self.script("stop") {
            // A panic in a drop would hide the test's own failure.
            std::thread::yield_now();
        }
    }
}
