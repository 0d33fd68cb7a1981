//! What every command needs to know about where it runs: flags, configuration and environment, read once.

use crate::{args::GlobalArgs, config::Config, error::CliError};
use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Settings in force: flag over environment over file over default.
#[derive(Clone, Debug)]
pub struct Context {
    pub config: Config,
    pub verbose: bool,
    pub(crate) store: Option<PathBuf>,
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
        // Without a home only what needs images fails, and says so.
        let store = global.store.clone().or_else(|| config.store.clone());
        let store = store.or_else(|| default_store(is_root, home.as_deref()));
        let auto_mount = global.auto_mount_filesystems || host_root != Path::new("/");
        Ok(Context { config, verbose: global.verbose, store, host_root, home, auto_mount, is_root })
    }

    /// Where compiled Wasm is kept: beside the store, so that `--store` moves both.
    pub fn wasm_cache(&self) -> Option<PathBuf> {
        let store = self.store.as_ref()?;
        let name = store.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Some(store.with_file_name(format!("{name}.wasm-cache")))
    }

    /// Where images are.
    pub fn store(&self) -> Result<&Path, CliError> {
        self.store.as_deref().ok_or_else(|| {
            CliError::user("HOME is not set, so there is no place for images").hint("name one with --store DIR")
        })
    }
}

fn default_store(is_root: bool, home: Option<&Path>) -> Option<PathBuf> {
    if is_root {
        return Some("/var/lib/ig/oci-store".into());
    }
    home.map(|h| h.join(".ig/oci-store"))
}
