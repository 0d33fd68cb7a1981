//! The root directory of a container or of the host, and safe ways to open what is below it.
//!
//! Links are resolved inside the root by the kernel itself, so that nobody in a container can lead a path out of it, not even
//! by changing directories meanwhile. Pipes, devices and files of unlikely size are not opened at all.

use crate::symbols::elf::ElfError;
use rustix::{
    fs::{FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2},
    io::Errno,
};
use std::{
    ffi::OsString,
    fs::File,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
    path::{Path, PathBuf},
};

/// A library or program larger than this is refused.
const MAX_FILE: i64 = 4 << 30;
/// Entries of a directory that are looked at.
const MAX_ENTRIES: usize = 32_768;

/// A root directory.
#[derive(Debug)]
pub(super) struct Root {
    dir: OwnedFd,
    path: PathBuf,
}

impl Root {
    /// `path` is a directory of this process: `/`, or `/proc/PID/root`.
    pub(super) fn open(path: &Path) -> io::Result<Root> {
        let dir = open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Root { dir, path: path.to_path_buf() })
    }

    fn at(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC;
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        match openat2(&self.dir, path, flags, Mode::empty(), inside) {
            // before Linux 5.6
            Err(Errno::NOSYS) => Ok(open(crate::host_root::join(&self.path, path), flags, Mode::empty())?),
            done => Ok(done?),
        }
    }

    /// A regular file for reading.
    pub(super) fn file(&self, path: &Path) -> Result<File, ElfError> {
        // without opening it for anything yet, which for a device or a pipe could have effects
        let found = self.at(path, OFlags::PATH)?;
        let stat = fstat(&found).map_err(io::Error::from)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(ElfError::NotRegular);
        }
        if stat.st_size > MAX_FILE {
            return Err(ElfError::TooLarge { what: "content", bytes: stat.st_size as u64 });
        }
        let again = format!("/proc/self/fd/{}", found.as_raw_fd());
        let file = open(again, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty());
        Ok(File::from(file.map_err(io::Error::from)?))
    }

    /// Names in a directory; none where there is no such directory.
    pub(super) fn names(&self, path: &Path) -> Vec<OsString> {
        let Ok(dir) = self.at(path, OFlags::RDONLY | OFlags::DIRECTORY) else { return Vec::new() };
        let Ok(entries) = rustix::fs::Dir::new(dir) else { return Vec::new() };
        let names = entries.take(MAX_ENTRIES).map_while(Result::ok);
        names.map(|e| OsString::from_vec(e.file_name().to_bytes().to_vec())).collect()
    }

    /// All of a small file; nothing where it is larger or not there.
    pub(super) fn small(&self, path: &Path, max: u64) -> Option<Vec<u8>> {
        use io::Read;
        let mut out = Vec::new();
        let file = self.file(path).ok()?;
        file.take(max + 1).read_to_end(&mut out).ok()?;
        (out.len() as u64 <= max).then_some(out)
    }
}

/// The root of this process.
#[cfg(test)]
pub(super) fn own() -> Root {
    Root::open(Path::new("/")).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink};

    #[test]
    fn nothing_leaves_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        fs::create_dir(dir.path().join("etc")).unwrap();
        fs::write(dir.path().join("etc/passwd"), "inside").unwrap();
        symlink("/etc", dir.path().join("abs")).unwrap();
        symlink("../../../../etc/passwd", dir.path().join("up")).unwrap();
        symlink("circle", dir.path().join("circle")).unwrap();
        for path in ["/etc/passwd", "/abs/passwd", "/up", "/../../etc/passwd"] {
            assert_eq!(root.small(Path::new(path), 100).as_deref(), Some(&b"inside"[..]), "{path}");
        }
        assert!(root.file(Path::new("/circle")).is_err());
        assert!(root.file(Path::new("/proc/self/exe")).is_err());
        assert_eq!(root.small(Path::new("/etc/passwd"), 5), None);
    }

    #[test]
    fn pipes_devices_directories_and_huge_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let made = std::process::Command::new("mkfifo").arg(dir.path().join("pipe")).status().unwrap();
        assert!(made.success());
        assert!(matches!(root.file(Path::new("/pipe")), Err(ElfError::NotRegular)));
        fs::create_dir(dir.path().join("d")).unwrap();
        assert!(matches!(root.file(Path::new("/d")), Err(ElfError::NotRegular)));
        assert!(matches!(own().file(Path::new("/dev/zero")), Err(ElfError::NotRegular)));
        File::create(dir.path().join("huge")).unwrap().set_len(MAX_FILE as u64 + 1).unwrap();
        assert!(matches!(root.file(Path::new("/huge")), Err(ElfError::TooLarge { .. })));
    }
}
