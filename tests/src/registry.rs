//! A real OCI registry (Debian's docker-registry) on a free loopback port.

use crate::wait_for;
use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;

pub struct Registry {
    child: Child,
    port: u16,
    _dir: TempDir,
}

impl Registry {
    pub fn start() -> Registry {
        // A port that is free now may be somebody's a moment later: then the registry ends, and another is looked for.
        (0..10).find_map(|_| Registry::try_start()).expect("a registry that stays (Debian package docker-registry)")
    }

    fn try_start() -> Option<Registry> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a loopback port").port();
        let config = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\nhttp: {{addr: 127.0.0.1:{port}}}\n",
            dir.path().join("data").display()
        );
        let path = dir.path().join("config.yml");
        std::fs::write(&path, config).expect("a writable directory");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry (Debian package docker-registry)");
        let mut registry = Registry { child, port, _dir: dir };
        wait_for("the registry", Duration::from_secs(120), || {
            let ended = registry.child.try_wait().expect("a child of ours").is_some();
            (ended || registry.is_its_port()).then_some(!ended)
        })
        .then_some(registry)
    }

    /// Whether somebody listens there, and it is the registry.
    fn is_its_port(&self) -> bool {
        let answers = |mut s: TcpStream| {
            s.write_all(b"GET /v2/ HTTP/1.0\r\n\r\n")?;
            s.set_read_timeout(Some(Duration::from_secs(20)))?;
            let mut answer = Vec::new();
            s.read_to_end(&mut answer)?;
            Ok::<_, std::io::Error>(answer.to_ascii_lowercase())
        };
        let answer = TcpStream::connect(("127.0.0.1", self.port)).and_then(answers).unwrap_or_default();
        answer.windows(31).any(|w| w == b"docker-distribution-api-version")
    }

    /// `127.0.0.1:PORT`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
