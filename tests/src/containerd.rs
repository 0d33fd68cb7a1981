//! A private containerd with its CRI service, and `ctr` on it. Ended with its containers when dropped.

use crate::{
    source_root,
    truth::{PROGRAM, Truth},
};
use std::{path::PathBuf, process::Command};
use tempfile::TempDir;

const IMAGE: &str = "docker.io/library/busybox:latest";

pub struct Containerd {
    dir: TempDir,
}

impl Containerd {
    /// Starts it with a busybox image in `default`, `k8s.io` and the `namespaces`.
    pub fn start(namespaces: &[&str]) -> Containerd {
        // A short path: a socket's name has at most 107 bytes.
        let dir = tempfile::Builder::new().prefix("igc").tempdir_in("/tmp").expect("a temporary directory");
        let containerd = Containerd { dir };
        assert!(containerd.script("start", namespaces), "no private containerd: see the message above");
        containerd
    }

    fn script(&self, verb: &str, rest: &[&str]) -> bool {
        let script = source_root().join("tests/runtimes/private-containerd");
        Command::new(script).arg(verb).arg(self.dir.path()).args(rest).status().is_ok_and(|s| s.success())
    }

    /// The API socket, CRI's too.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("containerd.sock")
    }

    /// Where pods are to write their logs.
    pub fn logs(&self) -> PathBuf {
        self.dir.path().join("logs")
    }

    /// SIGKILL to the daemon. Its containers stay.
    pub fn kill(&self) {
        assert!(self.script("kill", &[]), "the daemon could not be killed");
    }

    /// Starts the daemon anew.
    pub fn again(&self) {
        assert!(self.script("again", &[]), "the daemon did not come back: see the message above");
    }

    /// `ctr -n NAMESPACE ARGUMENTS`, not yet started.
    pub fn ctr(&self, namespace: &str, arguments: &[&str]) -> Command {
        let mut c = Command::new("ctr");
        c.arg("-a").arg(self.socket()).args(["-n", namespace]).args(arguments);
        c
    }

    /// `ctr run` of `command` in a new container, not yet started.
    pub fn run(&self, namespace: &str, options: &[&str], name: &str, command: &[&str]) -> Command {
        let mut c = self.ctr(namespace, &["run"]);
        c.args(options).args([IMAGE, name]).args(command);
        c
    }

    /// Runs a container that says who it is; `None` when it could not run. On a busy machine `ctr` now and then loses the output
    /// of a program that ends at once: nobody knows who that was, and another is run.
    pub fn try_truth(&self, namespace: &str, name: &str) -> Option<Truth> {
        let attempt = |n: u32| {
            let name = if n == 0 { name.to_owned() } else { format!("{name}-again-{n}") };
            let run = self.run(namespace, &["--rm"], &name, &PROGRAM).output();
            let output = run.expect("ctr (Debian package containerd)");
            let printed = String::from_utf8_lossy(&output.stdout).into_owned();
            (output.status.success(), printed, name)
        };
        let told = |(ran, printed, _): &(bool, String, String)| !ran || !printed.trim().is_empty();
        let (ran, printed, name) = (0..10).map(attempt).find(told)?;
        ran.then(|| Truth::new(&name, &name, "containerd", &printed))
    }

    /// Runs a container that says who it is.
    pub fn truth(&self, namespace: &str, name: &str) -> Truth {
        self.try_truth(namespace, name).unwrap_or_else(|| panic!("container {name} did not run"))
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if !self.script("stop", &[]) {
            // A panic in a drop would hide the test's own failure.
            std::thread::yield_now();
        }
    }
}
