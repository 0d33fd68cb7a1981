//! What every command needs to know about where it runs: flags, configuration and environment, read once.

use crate::{args::GlobalArgs, config::Config, error::CliError, output::say};
use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Settings in force: flag over environment over file over default.
#[derive(Clone, Debug)]
pub struct Context {
    pub config: Config,
    pub verbose: bool,
    /// Where images are, or why there is no place for them. That is nobody's mistake until some are to be kept.
    pub(crate) store: Result<PathBuf, String>,
    /// `/`, or where the host is mounted when ig runs in a container (`HOST_ROOT`).
    pub host_root: PathBuf,
    pub home: Option<PathBuf>,
    pub auto_mount: bool,
    pub is_root: bool,
}

impl Context {
    pub fn new(global: &GlobalArgs) -> Result<Self, CliError> {
        let home = std::env::var_os("HOME").map(PathBuf::from).filter(|h| h.is_absolute());
        let config = Config::load(global.config.as_deref(), home.as_deref())?;
        // The kernel shows this folder as the effective user's; std has no call for it, and libc's is unsafe.
        let is_root = std::fs::metadata("/proc/self/").is_ok_and(|m| m.uid() == 0);
        let host_root = std::env::var_os("HOST_ROOT")
            .map(PathBuf::from)
            .or_else(|| config.host_root.clone())
            .unwrap_or_else(|| "/".into());
        let store = global.store.clone().or_else(|| config.store.clone());
        let store = store.map_or_else(|| default_store(is_root, home.as_deref()), Ok);
        if let (true, Err(why)) = (global.verbose, &store) {
            say(&format!("no images and no settings of a user are read: {why}"));
        }
        let auto_mount = global.auto_mount_filesystems || host_root != Path::new("/");
        Ok(Context { config, verbose: global.verbose, store, host_root, home, auto_mount, is_root })
    }

    /// Where compiled Wasm is kept: beside the store, so that `--store` moves both.
    pub fn wasm_cache(&self) -> Option<PathBuf> {
        let store = self.store.as_ref().ok()?;
        let name = store.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Some(store.with_file_name(format!("{name}.wasm-cache")))
    }
}

fn default_store(is_root: bool, home: Option<&Path>) -> Result<PathBuf, String> {
    if is_root {
        return Ok("/var/lib/ig/oci-store".into());
    }
    let home = home.ok_or("HOME is not set")?;
    match is_shut(home) {
        // As su and setpriv leave it: the home of another.
        true => Err(format!("HOME is {}, which this user may not look into", home.display())),
        false => Ok(home.join(".ig/oci-store")),
    }
}

/// Whether this user cannot even know what is in a home.
pub(crate) fn is_shut(home: &Path) -> bool {
    home.join(".ig/oci-store").try_exists().is_err_and(|e| e.kind() == std::io::ErrorKind::PermissionDenied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_store_is_where_its_user_can_write() {
        assert_eq!(default_store(true, None), Ok("/var/lib/ig/oci-store".into()));
        let home = tempfile::tempdir().unwrap();
        assert_eq!(default_store(false, Some(home.path())), Ok(home.path().join(".ig/oci-store")));
        assert_eq!(default_store(false, None), Err("HOME is not set".to_owned()));
    }
}
