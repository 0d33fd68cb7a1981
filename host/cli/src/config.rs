//! The configuration file: where images live and come from. Flags win over it; it wins over the defaults.
//!
//! `~/.ig/config.yaml`, else `/etc/ig/config.yaml`: the first that exists; `--config FILE` names the only one to read.

use crate::{
    error::{CliError, Kind},
    output::say,
};
use serde::Deserialize;
use std::{
    io::Read,
    path::{Path, PathBuf},
};

/// Larger files are no settings.
const MAX_FILE: u64 = 1 << 20;

/// Keys of the file. An unknown key is an error: a misspelt one must not be ignored.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Config {
    /// OCI store directory.
    pub store: Option<PathBuf>,
    /// Registry of names without one. Default `ghcr.io`.
    pub default_registry: Option<String>,
    /// Path before bare names. Default `inspektor-gadget/gadget`.
    pub default_prefix: Option<String>,
    /// `host[:port]` of registries that are spoken to in plain HTTP.
    pub insecure_registries: Vec<String>,
    /// Docker-style credentials file.
    pub authfile: Option<PathBuf>,
    /// Where the observed host's files are, when ig itself runs in a container.
    pub host_root: Option<PathBuf>,
    /// As the flags of the same names.
    pub runtimes: Vec<String>,
    pub docker_socketpath: Option<PathBuf>,
    pub containerd_socketpath: Option<PathBuf>,
    pub crio_socketpath: Option<PathBuf>,
    pub podman_socketpath: Option<PathBuf>,
    pub containerd_namespace: Vec<String>,
    pub runtime_protocol: Option<String>,
}

impl Config {
    /// Reads `explicit`, which must exist, or else the default files that do.
    pub fn load(explicit: Option<&Path>, home: Option<&Path>) -> Result<Config, CliError> {
        if let Some(path) = explicit {
            return Self::read(path)?.ok_or_else(|| {
                CliError::user(format!("config file {}: no such file", path.display()))
                    .hint("name an existing file with --config")
            });
        }
        let user = home.map(|h| h.join(".ig/config.yaml"));
        let user = user.map_or(Ok(None), |path| Self::read_default(&path))?;
        let any = user.map_or_else(|| Self::read_default(Path::new("/etc/ig/config.yaml")), |c| Ok(Some(c)))?;
        Ok(any.unwrap_or_default())
    }

    /// As `read`, but nobody asked for this file: one that is not for this user is passed over, and said where it is there. A home
    /// that was inherited from somebody else and cannot be looked into has none.
    fn read_default(path: &Path) -> Result<Option<Config>, CliError> {
        let denied = |e: &std::io::Error| e.kind() == std::io::ErrorKind::PermissionDenied;
        match (path.try_exists(), std::fs::File::open(path)) {
            (Err(e), _) if denied(&e) => Ok(None),
            (Ok(true), Err(e)) if denied(&e) => {
                say(&format!("warning: config file {} is not read: {e}", path.display()));
                Ok(None)
            }
            _ => Self::read(path),
        }
    }

    fn read(path: &Path) -> Result<Option<Config>, CliError> {
        let mut text = String::new();
        let read = std::fs::File::open(path).and_then(|f| f.take(MAX_FILE + 1).read_to_string(&mut text));
        match read {
            Ok(read) if read as u64 > MAX_FILE => {
                let message = format!("config file {}: larger than {} KiB", path.display(), MAX_FILE / 1024);
                return Err(CliError::user(message));
            }
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(CliError::environment(format!("config file {}: {e}", path.display()))),
        }
        if text.trim().is_empty() {
            return Ok(Some(Config::default()));
        }
        serde_saphyr::from_str(&text).map(Some).map_err(|e| CliError {
            kind: Kind::User,
            message: format!("config file {}: {e}", path.display()),
            hint: Some(
                "keys: store, default-registry, default-prefix, insecure-registries, authfile, host-root, runtimes, \
                 docker-socketpath, containerd-socketpath, crio-socketpath, podman-socketpath, containerd-namespace, \
                 runtime-protocol"
                    .into(),
            ),
            detail: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_keys_and_refuses_unknown_ones() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.yaml");
        std::fs::write(&path, "store: /s\ninsecure-registries: [\"127.0.0.1:5000\"]\n").unwrap();
        let c = Config::load(Some(&path), None).unwrap();
        assert_eq!(c.store.as_deref(), Some(Path::new("/s")));
        assert_eq!(c.insecure_registries, ["127.0.0.1:5000"]);
        std::fs::write(&path, "stroe: /s\n").unwrap();
        assert!(Config::load(Some(&path), None).unwrap_err().message.contains("stroe"));
        let endless = Config::load(Some(Path::new("/dev/zero")), None).unwrap_err();
        assert_eq!(
            (endless.kind, endless.message.as_str()),
            (Kind::User, "config file /dev/zero: larger than 1024 KiB")
        );
        assert!(Config::load(Some(&dir.path().join("none")), None).unwrap_err().message.contains("no such file"));
    }
}
