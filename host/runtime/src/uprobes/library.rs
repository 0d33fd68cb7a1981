//! Where a root directory keeps its libraries: what `libc` or `libssl` is there.
//!
//! As the dynamic loaders look: glibc's cache, musl's path file, then the usual directories. Every version that is there is
//! found, because programs of one container may use different ones. All of it is foreign: bounded, checked, no errors but
//! "not there".

use super::root::Root;
use std::{
    collections::BTreeSet,
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

const CACHE: &str = "/etc/ld.so.cache";
const MAX_CACHE: u64 = 16 << 20;
const MAX_LIBRARIES: usize = 65_536;
/// Bytes of a name or path in the cache; longer ones cannot be opened.
const MAX_TEXT: usize = 4096;
/// Files that one name may stand for.
const MAX_FOUND: usize = 16;
const NEW_MAGIC: &[u8; 20] = b"glibc-ld.so.cache1.1";
const OLD_MAGIC: &[u8; 11] = b"ld.so-1.7.0";

/// Files of a library by its name without version, as paths below the root; a path stands for itself.
pub(super) fn candidates(root: &Root, name: &str) -> Vec<PathBuf> {
    if name.contains('/') {
        return vec![PathBuf::from(name)];
    }
    let mut found = BTreeSet::new();
    if let Some(cache) = root.small(Path::new(CACHE), MAX_CACHE) {
        found.extend(cached(&cache, name));
    }
    for dir in directories(root) {
        for file in root.names(&dir) {
            if is_version_of(file.as_bytes(), name) {
                found.insert(dir.join(file));
            }
        }
    }
    found.into_iter().take(MAX_FOUND).collect()
}

/// `libssl` stands for `libssl.so`, `libssl.so.3`, and `libssl` itself; `libc` for musl's too.
fn is_version_of(file: &[u8], name: &str) -> bool {
    let Some(rest) = file.strip_prefix(name.as_bytes()) else {
        return name == "libc" && file.starts_with(b"ld-musl-") && file.ends_with(b".so.1");
    };
    rest.is_empty() || rest == b".so" || rest.starts_with(b".so.") || name == "libc" && rest.starts_with(b".musl-")
}

fn directories(root: &Root) -> Vec<PathBuf> {
    let arch = std::env::consts::ARCH;
    let mut dirs: Vec<PathBuf> = Vec::new();
    let musl = root.small(Path::new(&format!("/etc/ld-musl-{arch}.path")), 64 << 10).unwrap_or_default();
    let listed = musl.split(|b| matches!(b, b'\n' | b':')).filter(|d| d.starts_with(b"/"));
    dirs.extend(listed.take(64).map(|d| PathBuf::from(OsStr::from_bytes(d))));
    let multiarch = format!("{arch}-linux-gnu");
    for base in ["/lib", "/usr/lib", "/usr/local/lib"] {
        dirs.push(Path::new(base).join(&multiarch));
        dirs.push(base.into());
    }
    dirs.extend(["/lib64", "/usr/lib64", "/usr/local/lib64"].map(PathBuf::from));
    dirs.dedup();
    dirs
}

/// Paths in glibc's cache whose name is a version of `name`.
fn cached(cache: &[u8], name: &str) -> Vec<PathBuf> {
    let Some(base) = new_format(cache) else { return Vec::new() };
    let table = &cache[base..];
    let count = (u32_at(table, 20).unwrap_or(0) as usize).min(MAX_LIBRARIES);
    let text = |at: u32| {
        let rest = table.get(at as usize..)?;
        // cut before it is looked through: all of them may be without an end
        let rest = &rest[..rest.len().min(MAX_TEXT)];
        rest.get(..memchr::memchr(0, rest)?)
    };
    let entry = |n: usize| {
        let at = 48 + n * 24;
        let (key, value) = (text(u32_at(table, at + 4)?)?, text(u32_at(table, at + 8)?)?);
        (is_version_of(key, name) && value.starts_with(b"/")).then(|| PathBuf::from(OsStr::from_bytes(value)))
    };
    (0..count).filter_map(entry).take(MAX_FOUND * 4).collect()
}

/// Where the newer of the two formats begins; older systems put the old one before it.
fn new_format(cache: &[u8]) -> Option<usize> {
    if cache.starts_with(NEW_MAGIC) {
        return Some(0);
    }
    if !cache.starts_with(OLD_MAGIC) {
        return None;
    }
    let at = 16usize.checked_add((u32_at(cache, 12)? as usize).checked_mul(12)?)?.checked_next_multiple_of(8)?;
    cache.get(at..)?.starts_with(NEW_MAGIC).then_some(at)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at.checked_add(4)?).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes)
}

/// What a fuzzer calls: nothing in a container's cache may do more than not be found.
#[cfg(fuzzing)]
pub(super) fn fuzz_cache(bytes: &[u8]) {
    for name in ["libc", "libssl"] {
        let found = cached(bytes, name);
        assert!(found.len() <= MAX_FOUND * 4);
        assert!(found.iter().all(|p| p.is_absolute() && p.as_os_str().len() < MAX_TEXT));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::symlink};

    fn cache(libraries: &[(&str, &str)]) -> Vec<u8> {
        let mut out = NEW_MAGIC.to_vec();
        out.extend((libraries.len() as u32).to_le_bytes());
        out.resize(48, 0);
        let mut at = 48 + 24 * libraries.len();
        let mut strings = Vec::new();
        for (name, path) in libraries {
            let mut entry = [0u8; 24];
            for (field, text) in [(4, name), (8, path)] {
                entry[field..field + 4].copy_from_slice(&(at as u32).to_le_bytes());
                strings.extend(text.bytes().chain([0]));
                at += text.len() + 1;
            }
            out.extend(entry);
        }
        out.extend(strings);
        out
    }

    #[test]
    fn versions_are_told_from_other_libraries() {
        for (file, name, yes) in [
            ("libssl.so.3", "libssl", true),
            ("libssl.so", "libssl", true),
            ("libssl3.so", "libssl", false),
            ("libssl.so.3", "libss", false),
            ("libnspr4.so", "libnspr4", true),
            ("libc.so.6", "libc", true),
            ("libc.musl-x86_64.so.1", "libc", true),
            ("ld-musl-x86_64.so.1", "libc", true),
            ("libcrypt.so.1", "libc", false),
            ("libc.a", "libc", false),
            ("ld-musl-x86_64.so.1", "libssl", false),
        ] {
            assert_eq!(is_version_of(file.as_bytes(), name), yes, "{file} {name}");
        }
    }

    #[test]
    fn the_cache_is_read_in_both_formats() {
        let libraries =
            [("libssl.so.3", "/opt/libssl.so.3"), ("libssl.so.1.1", "/x/libssl.so.1.1"), ("libm.so.6", "/m")];
        let new = cache(&libraries);
        let found = [PathBuf::from("/opt/libssl.so.3"), PathBuf::from("/x/libssl.so.1.1")];
        assert_eq!(cached(&new, "libssl"), found);
        let mut old = OLD_MAGIC.to_vec();
        old.resize(12, 0);
        old.extend(1u32.to_le_bytes());
        old.resize(16 + 12, 0);
        old.resize(old.len().next_multiple_of(8), 0);
        old.extend(&new);
        assert_eq!(cached(&old, "libssl"), found);
    }

    #[test]
    fn a_damaged_cache_holds_nothing_it_should_not() {
        let whole = cache(&[("libssl.so.3", "/opt/libssl.so.3")]);
        for len in 0..whole.len() {
            assert!(cached(&whole[..len], "libssl").is_empty(), "{len}");
        }
        let mut many = whole.clone();
        many[20..24].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(cached(&many, "libssl").len(), 1);
        assert!(cached(&cache(&[("libssl.so.3", "relative")]), "libssl").is_empty());
    }

    #[test]
    fn names_without_an_end_are_cut_before_they_are_looked_through() {
        // looked through to the end, this would be a terabyte
        let mut bytes = NEW_MAGIC.to_vec();
        bytes.extend((MAX_LIBRARIES as u32).to_le_bytes());
        bytes.resize(48, 0);
        for n in 0..MAX_LIBRARIES as u32 {
            let mut entry = [0u8; 24];
            let at = 48 + 24 * MAX_LIBRARIES as u32 + n;
            entry[4..8].copy_from_slice(&at.to_le_bytes());
            entry[8..12].copy_from_slice(&at.to_le_bytes());
            bytes.extend(entry);
        }
        bytes.resize(MAX_CACHE as usize, b'/');
        // what this thread worked, however long it waited for its processor
        let worked = || rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime).tv_sec;
        let start = worked();
        assert!(cached(&bytes, "libssl").is_empty());
        assert!(worked() - start < 20, "{} s", worked() - start);
    }

    #[test]
    fn a_root_without_a_cache_has_its_directories() {
        let dir = tempfile::tempdir().unwrap();
        let arch = std::env::consts::ARCH;
        for d in ["lib", "etc", "opt/musl", &format!("usr/lib/{arch}-linux-gnu")] {
            fs::create_dir_all(dir.path().join(d)).unwrap();
        }
        fs::write(dir.path().join(format!("etc/ld-musl-{arch}.path")), "/opt/musl\n/lib\n").unwrap();
        for f in ["opt/musl/libssl.so.3", &format!("usr/lib/{arch}-linux-gnu/libssl.so.1.1"), "lib/libother.so"] {
            fs::write(dir.path().join(f), "").unwrap();
        }
        symlink("/outside", dir.path().join("lib64")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        let found = candidates(&root, "libssl");
        let multiarch = PathBuf::from(format!("/usr/lib/{arch}-linux-gnu/libssl.so.1.1"));
        assert_eq!(found, [PathBuf::from("/opt/musl/libssl.so.3"), multiarch]);
        assert_eq!(candidates(&root, "/bin/app"), [PathBuf::from("/bin/app")]);
        assert!(candidates(&root, "libnone").is_empty());
    }

    #[test]
    fn our_own_libc_is_found() {
        let found = candidates(&super::super::root::own(), "libc");
        assert!(found.iter().any(|p| p.ends_with("libc.so.6")), "{found:?}");
    }
}
