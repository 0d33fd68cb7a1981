//! The kernel file systems a gadget needs: bpffs and tracefs, and debugfs, which some programs around them expect. Mounted
//! on request where they are missing, in this process's own mount namespace; else named with the remedy.

use rustix::mount::{MountFlags, mount};
use std::{ffi::CStr, io, path::Path};

/// A kernel file system and where it belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KernelFilesystem {
    pub(crate) kind: &'static str,
    pub(crate) path: &'static str,
    /// `f_type` of statfs(2).
    magic: u32,
    /// Where it is found, too, when something else mounted it.
    elsewhere: Option<&'static str>,
    /// Gadgets do not run without it.
    pub(crate) needed: bool,
}

pub(crate) const BPFFS: KernelFilesystem =
    KernelFilesystem { kind: "bpf", path: "/sys/fs/bpf", magic: 0xcafe_4a11, elsewhere: None, needed: true };
pub(crate) const TRACEFS: KernelFilesystem = KernelFilesystem {
    kind: "tracefs",
    path: "/sys/kernel/tracing",
    magic: 0x7472_6163,
    elsewhere: Some("/sys/kernel/debug/tracing"),
    needed: true,
};
pub(crate) const DEBUGFS: KernelFilesystem =
    KernelFilesystem { kind: "debugfs", path: "/sys/kernel/debug", magic: 0x6462_6720, elsewhere: None, needed: false };
pub(crate) const ALL: [KernelFilesystem; 3] = [BPFFS, TRACEFS, DEBUGFS];

impl KernelFilesystem {
    /// Where it is mounted.
    pub(crate) fn mounted_at(&self) -> Option<&'static str> {
        let is = |path: &&str| rustix::fs::statfs(Path::new(path)).is_ok_and(|s| s.f_type as u32 == self.magic);
        [Some(self.path), self.elsewhere].into_iter().flatten().find(is)
    }

    fn mount(&self) -> io::Result<()> {
        Ok(mount(self.kind, self.path, self.kind, MountFlags::empty(), None::<&CStr>)?)
    }

    fn command(&self) -> String {
        format!("mount -t {0} {0} {1}", self.kind, self.path)
    }
}

/// File systems that are missing.
#[derive(Debug, thiserror::Error)]
pub enum FilesystemError {
    #[error("not mounted: {}", list(.missing))]
    NotMounted { missing: Vec<MissingFilesystem> },
    #[error("mounting {kind} on {path}")]
    Mount { kind: &'static str, path: &'static str, source: io::Error },
}

/// One that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingFilesystem {
    pub kind: &'static str,
    pub path: &'static str,
    command: String,
}

fn list(missing: &[MissingFilesystem]) -> String {
    missing.iter().map(|m| format!("{} on {}", m.kind, m.path)).collect::<Vec<_>>().join(", ")
}

impl FilesystemError {
    pub fn hint(&self) -> Option<String> {
        match self {
            FilesystemError::NotMounted { missing } => {
                let commands: Vec<&str> = missing.iter().map(|m| m.command.as_str()).collect();
                Some(format!("add --auto-mount-filesystems, or: {}", commands.join(" && ")))
            }
            FilesystemError::Mount { source, kind, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => {
                    Some("mounting needs CAP_SYS_ADMIN: in a container, run it privileged".into())
                }
                // No mount point, or no such file system.
                io::ErrorKind::NotFound => Some(format!("this kernel seems to be built without {kind}")),
                _ if source.raw_os_error() == Some(libc::ENODEV) => {
                    Some(format!("this kernel is built without {kind}"))
                }
                _ => None,
            },
        }
    }
}

/// Checks that bpffs and tracefs are there; mounts what is missing if told to.
pub(super) fn ensure(auto_mount: bool) -> Result<(), FilesystemError> {
    ensure_all(auto_mount, &ALL, KernelFilesystem::mounted_at, KernelFilesystem::mount)
}

fn ensure_all(
    auto_mount: bool,
    all: &[KernelFilesystem],
    mounted_at: impl Fn(&KernelFilesystem) -> Option<&'static str>,
    mount: impl Fn(&KernelFilesystem) -> io::Result<()>,
) -> Result<(), FilesystemError> {
    let missing = all.iter().filter(|f| mounted_at(f).is_none());
    if !auto_mount {
        let missing = missing.filter(|f| f.needed);
        let missing: Vec<MissingFilesystem> =
            missing.map(|f| MissingFilesystem { kind: f.kind, path: f.path, command: f.command() }).collect();
        return if missing.is_empty() { Ok(()) } else { Err(FilesystemError::NotMounted { missing }) };
    }
    for f in missing {
        match mount(f) {
            Err(source) if f.needed => return Err(FilesystemError::Mount { kind: f.kind, path: f.path, source }),
            // Many a locked-down kernel is built without debugfs, and nothing of ours asks for it.
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn what_is_missing_is_named_at_once_with_both_remedies() {
        let e = ensure_all(false, &ALL, |_f| None, |_f| panic!("not asked to mount")).unwrap_err();
        assert_eq!(e.to_string(), "not mounted: bpf on /sys/fs/bpf, tracefs on /sys/kernel/tracing");
        let hint = "add --auto-mount-filesystems, or: mount -t bpf bpf /sys/fs/bpf && mount -t tracefs tracefs /sys/kernel/tracing";
        assert_eq!(e.hint().as_deref(), Some(hint));
    }

    #[test]
    fn only_what_is_missing_is_mounted_and_debugfs_may_fail() {
        let tried = RefCell::new(Vec::new());
        let mount = |f: &KernelFilesystem| {
            tried.borrow_mut().push(f.kind);
            if f.kind == "debugfs" { Err(io::ErrorKind::NotFound.into()) } else { Ok(()) }
        };
        let there = |f: &KernelFilesystem| (f.kind == "bpf").then_some(f.path);
        ensure_all(true, &ALL, there, mount).unwrap();
        assert_eq!(*tried.borrow(), ["tracefs", "debugfs"]);
    }

    #[test]
    fn a_mount_that_is_refused_says_what_it_needs() {
        let refuse = |_: &KernelFilesystem| Err(io::ErrorKind::PermissionDenied.into());
        let e = ensure_all(true, &ALL, |_f| None, refuse).unwrap_err();
        assert!(e.hint().unwrap().contains("CAP_SYS_ADMIN"), "{e}");
    }
}
