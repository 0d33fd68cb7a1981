//! runc and crun called by hand, without any engine: a bundle of Debian's static busybox.

use crate::{
    podman::with_cgroup2_only,
    truth::{self, PROGRAM, Truth},
};
use serde_json::{Value, json};
use sha2::Digest;
use std::{
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use tempfile::TempDir;

pub struct Bundle {
    dir: TempDir,
}

impl Bundle {
    /// A bundle that runs `PROGRAM`.
    pub fn new() -> Bundle {
        Bundle::with(&PROGRAM, |_| {})
    }

    /// A bundle that runs `command`; `change` may change its `config.json`.
    pub fn with(command: &[&str], change: impl FnOnce(&mut Value)) -> Bundle {
        let dir = tempfile::Builder::new().prefix("igb").tempdir_in("/tmp").expect("a temporary directory");
        let bundle = Bundle { dir };
        let bin = bundle.path().join("rootfs/bin");
        for d in ["bin", "proc", "sys", "dev", "tmp"] {
            std::fs::create_dir_all(bundle.path().join("rootfs").join(d)).expect("a writable directory");
        }
        std::fs::copy("/bin/busybox", bin.join("busybox")).expect("busybox (Debian package busybox-static)");
        for applet in ["sh", "sleep", "true"] {
            symlink("busybox", bin.join(applet)).expect("a writable directory");
        }
        truth::printed(
            "runc spec",
            Command::new("runc").arg("spec").current_dir(bundle.path()).output().expect("runc"),
        );
        let file = bundle.path().join("config.json");
        let mut config: Value =
            serde_json::from_slice(&std::fs::read(&file).expect("runc's config.json")).expect("JSON of runc");
        config["process"]["terminal"] = json!(false);
        config["process"]["rlimits"] = json!([]);
        config["process"]["args"] = json!(command);
        change(&mut config);
        std::fs::write(&file, config.to_string()).expect("a writable directory");
        bundle
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// `runc ARGUMENTS` in the bundle's directory, with a state directory of its own.
    pub fn runc(&self, arguments: &[&str]) -> Command {
        let mut c = Command::new("runc");
        c.arg("--root").arg(self.state()).args(arguments).current_dir(self.path());
        c
    }

    /// The same for crun, without a cgroup.
    pub fn crun(&self, arguments: &[&str]) -> Command {
        let mut c = with_cgroup2_only();
        c.arg("crun").arg("--root").arg(self.state()).arg("--cgroup-manager=disabled").args(arguments);
        c.current_dir(self.path());
        c
    }

    pub fn runc_truth(&self, name: &str) -> Truth {
        let printed = truth::printed("runc run", self.runc(&["run", name]).output().expect("runc"));
        Truth::new(name, name, "runc", &printed)
    }

    pub fn crun_truth(&self, name: &str) -> Truth {
        let printed = truth::printed("crun run", self.crun(&["run", name]).output().expect("crun"));
        Truth::new(name, name, "crun", &printed)
    }
}

/// Runs a container as CRI-O would: conmon as its monitor, over runc, with CRI-O's annotations and cgroup. Gives what is
/// true of it, and the name of its pod in the namespace `shop`. This emulates CRI-O: it is not CRI-O.
pub fn cri_o_truth(pod: &str, name: &str) -> (Truth, String) {
    // As long as a real id, and nobody else's.
    let id: String = sha2::Sha256::digest(pod.as_bytes()).iter().map(|b| format!("{b:02x}")).collect();
    let bundle = Bundle::with(&PROGRAM, |config| {
        config["annotations"] = json!({
            "io.kubernetes.container.name": name,
            "io.kubernetes.cri-o.ContainerID": id,
            "io.kubernetes.cri-o.ContainerType": "container",
            "io.kubernetes.cri-o.ImageName": "docker.io/library/busybox:latest",
            "io.kubernetes.cri-o.Name": format!("k8s_{name}_{pod}_shop_uid-{pod}_0"),
            "io.kubernetes.pod.name": pod,
            "io.kubernetes.pod.namespace": "shop",
            "io.kubernetes.pod.uid": format!("uid-{pod}"),
        });
        config["linux"]["cgroupsPath"] = json!(format!("/kubepods/poduid-{pod}/crio-{id}"));
    });
    let at = |file: &str| bundle.path().join(file).display().to_string();
    let full_name = format!("k8s_{name}_{pod}_shop_uid-{pod}_0");
    let (log, pid_file) = (at("log"), at("pid"));
    let conmon = ["-c", &id, "-n", &full_name, "-u", &id, "-b", &at("."), "-p", &pid_file, "-l", &log];
    let mut command = Command::new("conmon");
    command.args(conmon).args([
        "--log-level",
        "error",
        "--socket-dir-path",
        &at("sockets"),
        "--exit-dir",
        &at("exits"),
    ]);
    command.args(["-r", "/usr/sbin/runc", "--runtime-arg"]).arg(format!("--root={}", at("state")));
    for dir in ["sockets", "exits"] {
        std::fs::create_dir(bundle.path().join(dir)).expect("a writable directory");
    }
    truth::printed("conmon", command.output().expect("conmon"));
    let state = || bundle.runc(&["state", &id]).output().is_ok_and(|o| o.status.success());
    crate::wait_for("conmon to create the container", Duration::from_secs(180), || state().then_some(()));
    truth::printed("runc start", bundle.runc(&["start", &id]).output().expect("runc"));
    let printed = crate::wait_for("the container's output", Duration::from_secs(180), || {
        std::fs::read_to_string(&log).ok().filter(|t| t.ends_with('\n'))
    });
    bundle.runc(&["delete", "--force", &id]).output().expect("runc");
    (Truth::new(name, &id, "cri-o", &printed), pod.to_owned())
}

impl Default for Bundle {
    fn default() -> Self {
        Bundle::new()
    }
}
