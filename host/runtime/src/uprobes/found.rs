//! What a root directory has of the files that are to be probed, and where in them their functions begin.
//!
//! All that touches files of a container is here, and is done by a child process ([`crate::aside`]): the container's root or a
//! volume may be on a file system that never answers. Pages that the kernel will want for a probe are read here, too, so
//! that it finds them in memory.

use super::{
    inode::{self, Inode},
    library,
    root::Root,
};
use crate::{
    aside::{self, Answer, AsideError},
    symbols::elf::{Elf, ElfError, open_regular},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::{Path, PathBuf},
    time::Duration,
};

/// How long a container's files are waited for.
const PATIENCE: Duration = Duration::from_secs(3);
/// Bytes of an answer: some offsets for each of a few files.
const MAX_ANSWER: usize = 16 << 20;

/// A file, by what it is and not by where.
#[derive(Debug)]
pub(super) struct FoundFile {
    /// Opened for nothing (O_PATH): closing it asks nobody.
    pub(super) file: OwnedFd,
    pub(super) inode: Inode,
    /// By symbol; without those that are not there.
    pub(super) offsets: BTreeMap<String, u64>,
}

/// What there is of each wanted name; an error says what is wrong with one file.
pub(super) type Found = BTreeMap<String, Vec<Result<FoundFile, String>>>;

/// Why a root directory could not be looked at.
#[derive(Debug, thiserror::Error)]
pub(super) enum LookError {
    /// Whose it was has ended.
    #[error("it is gone")]
    Gone,
    #[error("its files cannot be looked at: {0}")]
    Root(String),
    #[error("its files cannot be looked at: {0}")]
    Aside(#[from] AsideError),
}

/// What a file is, and where its functions are.
type InFile = (Inode, BTreeMap<String, u64>);

/// As it comes from the child, without the descriptors, which come in the same order.
#[derive(Serialize, Deserialize)]
enum Told {
    Gone,
    Root(String),
    Files(BTreeMap<String, Vec<Result<InFile, String>>>),
}

/// Looks for files by name below a root, with the symbols that are wanted of each.
pub(super) fn look(root: &Path, wanted: &BTreeMap<String, Vec<String>>) -> Result<Found, LookError> {
    let answer = aside::call(PATIENCE, MAX_ANSWER, || {
        let mut fds = Vec::new();
        let told = search(root, wanted, &mut fds);
        Answer { bytes: serde_json::to_vec(&told).unwrap_or_default(), fds }
    })?;
    let files = match serde_json::from_slice(&answer.bytes) {
        Ok(Told::Files(files)) => files,
        Ok(Told::Gone) => return Err(LookError::Gone),
        Ok(Told::Root(why)) => return Err(LookError::Root(why)),
        Err(_) => return Err(AsideError::Broken.into()),
    };
    let mut fds = answer.fds.into_iter();
    let mut with_file = |one: Result<InFile, String>| {
        let (inode, offsets) = match one {
            Ok(found) => found,
            Err(why) => return Ok(Err(why)),
        };
        let file = fds.next().ok_or(AsideError::Broken)?;
        Ok(Ok(FoundFile { file, inode, offsets }))
    };
    let with_files = |(name, all): (String, Vec<_>)| {
        let all: Result<Vec<_>, AsideError> = all.into_iter().map(&mut with_file).collect();
        Ok((name, all?))
    };
    files.into_iter().map(with_files).collect()
}

fn search(root: &Path, wanted: &BTreeMap<String, Vec<String>>, fds: &mut Vec<OwnedFd>) -> Told {
    let root = match Root::open(root) {
        Ok(root) => root,
        Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(libc::ESRCH) => return Told::Gone,
        Err(e) => return Told::Root(e.to_string()),
    };
    let mut found = BTreeMap::new();
    for (name, symbols) in wanted {
        let mut all = Vec::new();
        for path in library::candidates(&root, name) {
            let one = in_file(&root, &path, symbols).map_err(|e| format!("{}: {e}", path.display()));
            all.push(one.map(|(file, found)| {
                fds.push(file);
                found
            }));
        }
        found.insert(name.clone(), all);
    }
    Told::Files(found)
}

/// The file, opened for nothing, and what there is in it.
fn in_file(root: &Root, path: &Path, symbols: &[String]) -> Result<(OwnedFd, InFile), ElfError> {
    let file = root.file(path)?;
    let inode = inode::of(&file);
    let symbols: Vec<&str> = symbols.iter().map(String::as_str).collect();
    let offsets = offsets(file.try_clone()?, &symbols)?;
    for offset in offsets.values() {
        // one that is not there is the kernel's to refuse
        let (Ok(_) | Err(_)) = file.read_at(&mut [0; 16], *offset);
    }
    let again = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    let bare = rustix::fs::open(again, flags, rustix::fs::Mode::empty()).map_err(io::Error::from)?;
    Ok((bare, (inode, offsets)))
}

/// The files of this process's own root that a path or a library's name stands for, each once, and where in them a function
/// begins. Without a limit: the host's own files.
pub(super) fn places(name: &str, symbol: &str) -> Vec<(PathBuf, Result<Option<u64>, ElfError>)> {
    let Ok(root) = Root::open(Path::new("/")) else { return Vec::new() };
    let mut seen = BTreeSet::new();
    let mut place = |path: PathBuf| {
        // as it is: /proc/self/exe is a path, too
        let file = match open_regular(&path) {
            Ok((file, _)) => file,
            Err(e) => return Some((path, Err(e))),
        };
        let new = seen.insert(inode::of(&file));
        new.then(|| (path, offsets(file, &[symbol]).map(|mut found| found.remove(symbol))))
    };
    library::candidates(&root, name).into_iter().filter_map(&mut place).collect()
}

/// Where in the file each function begins; `name+0x10` is inside one, and a bare number a place in the file.
pub(super) fn offsets(file: File, symbols: &[&str]) -> Result<BTreeMap<String, u64>, ElfError> {
    let elf = Elf::read(file)?;
    if elf.machine != elf_machine() {
        return Err(ElfError::NotElf);
    }
    let number = |t: &str| t.strip_prefix("0x").map_or_else(|| t.parse().ok(), |h| u64::from_str_radix(h, 16).ok());
    let parts: Vec<(&str, &str, u64)> = symbols
        .iter()
        .map(|s| s.split_once('+').map_or((*s, *s, 0), |(name, add)| (*s, name, number(add).unwrap_or(0))))
        .collect();
    let mut out: BTreeMap<String, u64> =
        parts.iter().filter_map(|(s, name, _)| Some(((*s).to_owned(), number(name)?))).collect();
    elf.functions(|f| {
        for (symbol, name, add) in &parts {
            if f.name == name.as_bytes()
                && let Some(place) = elf.layout.offset_of(f.address).and_then(|offset| offset.checked_add(*add))
            {
                out.entry((*symbol).to_owned()).or_insert(place);
            }
        }
    })?;
    Ok(out)
}

/// What files of this machine say that they are for; others, such as 32-bit ones, pass their arguments in other places.
fn elf_machine() -> u16 {
    match std::env::consts::ARCH {
        "x86_64" => 62,
        "aarch64" => 183,
        _ => 0,
    }
}
