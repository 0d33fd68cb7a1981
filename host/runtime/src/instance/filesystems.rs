//! The kernel file systems a gadget needs: bpffs and tracefs. Mounted on request, else named with the remedy.

use std::{io, path::Path};

/// A file system that is missing.
#[derive(Debug, thiserror::Error)]
pub enum FilesystemError {
    #[error("{kind} is not mounted on {path}")]
    NotMounted { kind: &'static str, path: &'static str },
    #[error("mounting {kind} on {path}")]
    Mount { kind: &'static str, path: &'static str, source: io::Error },
}

impl FilesystemError {
    pub fn hint(&self) -> Option<String> {
        match self {
            FilesystemError::NotMounted { kind, path } => {
                Some(format!("add --auto-mount-filesystems, or: mount -t {kind} {kind} {path}"))
            }
            FilesystemError::Mount { .. } => Some("ig must be root in the host's mount namespace to mount it".into()),
        }
    }
}

const NEEDED: [(&str, &str, u32); 2] =
    [("bpf", "/sys/fs/bpf", 0xcafe_4a11), ("tracefs", "/sys/kernel/tracing", 0x7472_6163)];

/// Checks that bpffs and tracefs are there, and mounts them if told to.
pub(super) fn ensure(auto_mount: bool) -> Result<(), FilesystemError> {
    for (kind, path, magic) in NEEDED {
        if is_mounted(path, magic) || (kind == "tracefs" && is_mounted("/sys/kernel/debug/tracing", magic)) {
            continue;
        }
        if !auto_mount {
            return Err(FilesystemError::NotMounted { kind, path });
        }
        rustix::mount::mount(kind, path, kind, rustix::mount::MountFlags::empty(), None::<&std::ffi::CStr>)
            .map_err(|e| FilesystemError::Mount { kind, path, source: e.into() })?;
    }
    Ok(())
}

fn is_mounted(path: &str, magic: u32) -> bool {
    rustix::fs::statfs(Path::new(path)).is_ok_and(|s| s.f_type as u32 == magic)
}
