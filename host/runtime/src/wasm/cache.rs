//! Compiled guests on disk. Compiled code is native code that wasmtime maps without looking, so a file is only used when
//! the folder and the file belong to us alone and the content has the checksum it was written with.
//!
//! One file for each guest and engine configuration: magic, SHA-256 of the rest, compiled code. Files are written under a
//! temporary name, synced and renamed; they are never changed in place.

use sha2::{Digest, Sha256};
use std::{
    fs,
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

const MAGIC: &[u8; 8] = b"igcwasm1";
const HEADER: usize = MAGIC.len() + 32;

/// Of files that are being written.
const UNFINISHED: &str = ".new-";
/// No write takes that long: what is older was left by a process that was killed.
const STALE: Duration = Duration::from_secs(3600);

/// Why compiled guests are not kept; the run goes on, with a compilation at every start.
#[derive(Debug, thiserror::Error)]
pub enum CacheProblem {
    #[error("compiled Wasm is not kept: {} cannot be used", dir.display())]
    Unusable { dir: PathBuf, source: io::Error },
    #[error("compiled Wasm is not kept: {} must be a folder of the user that runs ig, with mode 0700", dir.display())]
    NotPrivate { dir: PathBuf },
}

#[derive(Debug)]
pub(super) struct Cache {
    dir: PathBuf,
}

impl Cache {
    /// Makes the folder if need be. Its parent must exist.
    pub(super) fn open(dir: &Path) -> Result<Self, CacheProblem> {
        let unusable = |source| CacheProblem::Unusable { dir: dir.to_owned(), source };
        match fs::DirBuilder::new().mode(0o700).create(dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(unusable(e)),
            _ => {}
        }
        // Not followed: a link could lead into a folder of somebody else.
        let meta = fs::symlink_metadata(dir).map_err(unusable)?;
        if !meta.is_dir() || meta.mode() & 0o077 != 0 || meta.uid() != own_uid().map_err(unusable)? {
            return Err(CacheProblem::NotPrivate { dir: dir.to_owned() });
        }
        Ok(Cache { dir: dir.to_owned() })
    }

    /// The compiled code stored under `key`, if it is there and whole. A damaged file is removed.
    pub(super) fn load(&self, key: &str) -> Option<Vec<u8>> {
        let path = self.path(key);
        let mut file = fs::OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(&path).ok()?;
        let meta = file.metadata().ok()?;
        if !meta.is_file() || meta.mode() & 0o022 != 0 || meta.uid() != own_uid().ok()? {
            return None;
        }
        let mut bytes = Vec::with_capacity(meta.len() as usize + 1);
        file.read_to_end(&mut bytes).ok()?;
        let whole = bytes.len() > HEADER
            && bytes[..MAGIC.len()] == MAGIC[..]
            && Sha256::digest(&bytes[HEADER..]).as_slice() == &bytes[MAGIC.len()..HEADER];
        if !whole {
            self.remove(key);
            return None;
        }
        bytes.drain(..HEADER);
        Some(bytes)
    }

    pub(super) fn store(&self, key: &str, code: &[u8]) -> Result<(), CacheProblem> {
        self.write(key, code).map_err(|source| CacheProblem::Unusable { dir: self.dir.clone(), source })
    }

    /// Forgets an entry, for instance one that wasmtime refused.
    pub(super) fn remove(&self, key: &str) {
        // Without the file, or without the right to remove it, the next start simply finds it bad again.
        drop(fs::remove_file(self.path(key)));
    }

    fn write(&self, key: &str, code: &[u8]) -> io::Result<()> {
        self.sweep(SystemTime::now());
        let mut file = tempfile::Builder::new().prefix(UNFINISHED).tempfile_in(&self.dir)?;
        file.write_all(MAGIC)?;
        file.write_all(&Sha256::digest(code))?;
        file.write_all(code)?;
        file.as_file().sync_all()?;
        file.persist(self.path(key)).map_err(|e| e.error)?;
        fs::File::open(&self.dir)?.sync_all()
    }

    /// Removes what killed processes left. A file that cannot be removed only takes room.
    fn sweep(&self, now: SystemTime) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let written = entry.metadata().and_then(|m| m.modified());
            let age = written.ok().and_then(|w| now.duration_since(w).ok());
            if entry.file_name().as_encoded_bytes().starts_with(UNFINISHED.as_bytes()) && age.is_some_and(|a| a > STALE)
            {
                drop(fs::remove_file(entry.path()));
            }
        }
    }

    fn path(&self, key: &str) -> PathBuf {
        self.dir.join(key)
    }
}

/// The effective user, by what the kernel says about this process; there is no safe call for it in std.
fn own_uid() -> io::Result<u32> {
    Ok(fs::metadata("/proc/self/task")?.uid())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn cache() -> (tempfile::TempDir, Cache) {
        let t = tempfile::tempdir().unwrap();
        let c = Cache::open(&t.path().join("wasm")).unwrap();
        (t, c)
    }

    #[test]
    fn what_was_stored_comes_back_and_any_changed_byte_is_noticed() {
        let (_t, c) = cache();
        assert_eq!(c.load("k"), None);
        c.store("k", b"native code").unwrap();
        assert_eq!(c.load("k").as_deref(), Some(&b"native code"[..]));
        let good = fs::read(c.path("k")).unwrap();
        let write = |bytes: &[u8]| {
            fs::write(c.path("k"), bytes).unwrap();
            // whatever the umask of who runs this: what others may write is not looked at
            fs::set_permissions(c.path("k"), fs::Permissions::from_mode(0o600)).unwrap();
        };
        for i in 0..good.len() {
            let mut bad = good.clone();
            bad[i] ^= 1;
            write(&bad);
            assert_eq!(c.load("k"), None, "byte {i}");
            assert!(!c.path("k").exists(), "a damaged file is removed");
        }
        write(&good[..10]);
        assert_eq!(c.load("k"), None);
    }

    #[test]
    fn what_killed_processes_left_is_swept_and_nothing_else() {
        let (_t, c) = cache();
        let old = SystemTime::now() - STALE - Duration::from_secs(60);
        for (name, written) in [(".new-old", old), (".new-young", SystemTime::now()), ("done", old)] {
            fs::File::create(c.path(name)).unwrap().set_modified(written).unwrap();
        }
        c.store("k", b"code").unwrap();
        let mut left: Vec<_> = fs::read_dir(&c.dir).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, [".new-young", "done", "k"]);
    }

    #[test]
    fn a_folder_others_can_enter_or_a_link_is_refused() {
        let t = tempfile::tempdir().unwrap();
        let open = t.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(Cache::open(&open), Err(CacheProblem::NotPrivate { .. })));
        let (_t, c) = cache();
        let link = t.path().join("link");
        std::os::unix::fs::symlink(&c.dir, &link).unwrap();
        assert!(matches!(Cache::open(&link), Err(CacheProblem::NotPrivate { .. })));
        assert!(matches!(Cache::open(&t.path().join("no/such")), Err(CacheProblem::Unusable { .. })));
    }

    #[test]
    fn a_file_that_others_may_write_or_a_link_is_not_used() {
        let (_t, c) = cache();
        c.store("k", b"code").unwrap();
        std::os::unix::fs::symlink(c.path("k"), c.path("l")).unwrap();
        assert_eq!(c.load("l"), None);
        fs::set_permissions(c.path("k"), fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(c.load("k"), None);
    }
}
