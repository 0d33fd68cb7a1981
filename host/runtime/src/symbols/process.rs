//! What code a process has mapped: the executable part of `/proc/PID/maps`, and the files behind it.
//!
//! A file is opened through `/proc/PID/map_files`, which is the very file that is mapped, also where it was replaced or
//! deleted since, and in whatever mount namespace it is. Where that is not permitted, by its path below the process's root.

use super::{
    elf::{ElfError, Identity, open_regular},
    mounts::Device,
};
use crate::host_root;
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Read},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

/// A process with more executable mappings is cut off here.
const MAX_MAPPINGS: usize = 8192;
const MAX_BYTES: u64 = 64 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) offset: u64,
    /// As the process sees it, or `[vdso]` and the like; empty for memory without a file.
    pub(super) path: PathBuf,
    pub(super) has_file: bool,
    pub(super) device: Device,
    pub(super) inode: u64,
}

impl Mapping {
    /// Memory of the kernel's own that only looks like a file, such as that of memfd_create(2).
    pub(super) fn is_memory(&self) -> bool {
        ["/memfd:", "/dev/zero", "/SYSV"]
            .iter()
            .any(|start| self.path.as_os_str().as_bytes().starts_with(start.as_bytes()))
    }

    /// What people call it: the file's last part.
    pub(super) fn label(&self) -> String {
        let text = self.path.to_string_lossy();
        let name = text.rsplit('/').next().unwrap_or_default();
        let name = name.trim_start_matches('[').trim_end_matches(']').trim_end_matches(" (deleted)");
        if name.is_empty() { "anon".to_owned() } else { name.to_owned() }
    }
}

/// The executable mappings of a process, lowest first.
pub(super) fn mappings(process: &Path) -> io::Result<Vec<Mapping>> {
    let mut text = Vec::new();
    File::open(process.join("maps"))?.take(MAX_BYTES).read_to_end(&mut text)?;
    Ok(text.split(|b| *b == b'\n').filter_map(mapping).take(MAX_MAPPINGS).collect())
}

/// `start-end perms offset device inode path`; the path may hold spaces, and new lines as `\012`.
fn mapping(line: &[u8]) -> Option<Mapping> {
    let mut rest = line;
    let mut word = || {
        let start = rest.iter().position(|b| *b != b' ')?;
        let word = &rest[start..];
        let len = word.iter().position(|b| *b == b' ').unwrap_or(word.len());
        rest = &word[len..];
        std::str::from_utf8(&word[..len]).ok()
    };
    let (range, perms, offset, device, inode) = (word()?, word()?, word()?, word()?, word()?);
    let (start, end) = range.split_once('-')?;
    let hex = |t: &str| u64::from_str_radix(t, 16).ok();
    if !perms.contains('x') {
        return None;
    }
    let (major, minor) = device.split_once(':')?;
    let number = |t: &str| u32::from_str_radix(t, 16).ok();
    let path = rest.iter().position(|b| *b != b' ').map_or(&[][..], |at| &rest[at..]);
    Some(Mapping {
        start: hex(start)?,
        end: hex(end)?,
        offset: hex(offset)?,
        path: PathBuf::from(OsString::from_vec(path.to_vec())),
        has_file: inode != "0" && path.first() == Some(&b'/'),
        device: (number(major)?, number(minor)?),
        inode: inode.parse().ok()?,
    })
}

/// Opens the file that is mapped there.
pub(super) fn open(process: &Path, mapping: &Mapping) -> Result<(File, Identity), ElfError> {
    let name = format!("{:x}-{:x}", mapping.start, mapping.end);
    match open_regular(&process.join("map_files").join(name)) {
        Err(ElfError::Io(_)) => open_regular(&host_root::join(&process.join("root"), &mapping.path)),
        done => done,
    }
}

/// Which program a process runs: another value after every execve, also of the same file, because the kernel then lays out
/// the memory anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Program {
    life: Life,
    /// Disk and inode; `None` where it may not be seen.
    file: Option<(u32, u32, u64)>,
    written: Option<Written>,
}

/// When a file was last written, in seconds and nanoseconds: all that a BPF program can tell of it that holds outside of the
/// kernel too. Numbers of inodes do not: on overlayfs they differ.
pub type Written = (u64, u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Life {
    /// In clock ticks since boot: with its number, which process it is.
    started: u64,
    code: u64,
    stack: u64,
}

impl Program {
    /// Of a process that is there and has memory, which those that have ended and are only still listed have not.
    pub(super) fn of(process: &Path) -> Option<Program> {
        let life = life(&fs::read(process.join("stat")).ok()?)?;
        // as the kernel knows the file: asked again and again, a server of a container must not be waited for
        let wanted = StatxFlags::INO | StatxFlags::MTIME;
        let file = statx(CWD, process.join("exe"), AtFlags::STATX_DONT_SYNC, wanted).ok();
        let written = file.map(|f| (f.stx_mtime.tv_sec as u64, f.stx_mtime.tv_nsec));
        Some(Program { life, file: file.map(|f| (f.stx_dev_major, f.stx_dev_minor, f.stx_ino)), written })
    }

    /// Whether this is the program that was written then; `None` fits all.
    pub(super) fn is(&self, written: Option<Written>) -> bool {
        written.is_none() || self.written == written
    }
}

/// The name before the numbers may hold anything, parentheses too.
fn life(stat: &[u8]) -> Option<Life> {
    let close = memchr::memrchr(b')', stat)?;
    let mut numbers = std::str::from_utf8(&stat[close + 1..]).ok()?.split_ascii_whitespace().skip(19);
    let started = numbers.next()?.parse().ok()?;
    let code = numbers.nth(3)?.parse().ok()?;
    let stack = numbers.nth(1)?.parse().ok()?;
    (code != 0).then_some(Life { started, code, stack })
}

/// What a fuzzer calls.
#[cfg(fuzzing)]
pub(super) fn fuzz(bytes: &[u8]) {
    for m in bytes.split(|b| *b == b'\n').filter_map(mapping) {
        assert!(!m.label().is_empty());
    }
    life(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_maps() {
        let m = mapping(b"7f5d2c000000-7f5d2c028000 r-xp 00028000 08:01 1234567                   /usr/lib/a b.so")
            .unwrap();
        assert_eq!((m.start, m.end, m.offset), (0x7f5d_2c00_0000, 0x7f5d_2c02_8000, 0x28000));
        assert_eq!((m.label().as_str(), m.has_file), ("a b.so", true));
        assert_eq!((m.device, m.inode), ((8, 1), 1_234_567));
        let vdso = mapping(b"7ffd1000-7ffd2000 r-xp 00000000 00:00 0     [vdso]").unwrap();
        assert_eq!((vdso.label().as_str(), vdso.has_file), ("vdso", false));
        let jit = mapping(b"7ffd1000-7ffd2000 rwxp 00000000 00:00 0").unwrap();
        assert_eq!(jit.label(), "anon");
        assert_eq!(mapping(b"7ffd1000-7ffd2000 r--p 00000000 08:01 12 /x"), None);
        assert_eq!(mapping(b"garbage"), None);
        assert_eq!(mapping(b""), None);
    }

    #[test]
    fn a_life_is_read_behind_any_name_and_ends_before_the_number_does() {
        let stat = |code: u64| {
            let mut words = vec!["S".to_owned()];
            words.extend((4..=52).map(|n| n.to_string()));
            words[26 - 3] = code.to_string();
            format!("7 (a) b (c) {}\n", words.join(" "))
        };
        assert_eq!(life(stat(26).as_bytes()), Some(Life { started: 22, code: 26, stack: 28 }));
        // without memory: a zombie
        assert_eq!(life(stat(0).as_bytes()), None);
        assert_eq!(life(b"7 (a) S 1 2"), None);
    }

    #[test]
    fn own_code_is_mapped_and_can_be_opened() {
        let own = Path::new("/proc/self");
        let address = own_code_is_mapped_and_can_be_opened as *const () as u64;
        let all = mappings(own).unwrap();
        let m = all.iter().find(|m| m.start <= address && address < m.end).unwrap();
        let (_, identity) = open(own, m).unwrap();
        assert_eq!(identity, Identity::of(&fs::metadata("/proc/self/exe").unwrap()));
        assert_eq!(Program::of(own), Program::of(own));
    }
}
