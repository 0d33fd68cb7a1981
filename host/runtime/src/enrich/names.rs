//! Names of users, groups and system calls of the observed host. Read once at start; files only, no NSS, because the
//! binary is static and a lookup must not block on a directory server.

use ig_event::HostNames;
use std::path::Path;
// The ABI of 32-bit programs on the same machine.
#[cfg(target_arch = "aarch64")]
use syscalls::arm::Sysno as CompatSysno;
#[cfg(target_arch = "x86_64")]
use syscalls::x86::Sysno as CompatSysno;

/// What gadgets add to the number of a 32-bit program's call (`GADGET_SYSCALL_COMPAT` of gadget/current_syscall.h).
const COMPAT: u64 = 1 << 32;

/// Reads `etc/passwd` and `etc/group` below `host_root`. A missing file leaves its table empty: numbers are shown then.
pub fn host_names(host_root: &Path) -> HostNames {
    HostNames {
        users: table(&crate::host_root::join(host_root, Path::new("/etc/passwd"))),
        groups: table(&crate::host_root::join(host_root, Path::new("/etc/group"))),
        syscalls: syscalls(),
    }
}

fn syscalls() -> rustc_hash::FxHashMap<u64, String> {
    let native = syscalls::Sysno::iter().map(|s| (s.id() as u64, s.name().to_owned()));
    let compat = CompatSysno::iter().map(|s| (COMPAT | s.id() as u64, s.name().to_owned()));
    native.chain(compat).collect()
}

/// `name:password:number:…` lines; the first name of a number wins, as in getpwuid(3).
fn table(path: &Path) -> rustc_hash::FxHashMap<u32, String> {
    let text = std::fs::read(path).unwrap_or_default();
    let mut names = rustc_hash::FxHashMap::default();
    for line in String::from_utf8_lossy(&text).lines() {
        let mut parts = line.split(':');
        if let (Some(name), Some(_), Some(Ok(id))) = (parts.next(), parts.next(), parts.next().map(str::parse::<u32>)) {
            names.entry(id).or_insert_with(|| name.to_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_passwd_of_another_root_and_survives_garbage() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(
            dir.path().join("etc/passwd"),
            b"root:x:0:0::/:/bin/sh\ntoor:x:0:0\n\xff\xfe\nbad:x:minus\nweb:x:33:33:\n",
        )
        .unwrap();
        let n = host_names(dir.path());
        assert_eq!(n.users[&0], "root");
        assert_eq!(n.users[&33], "web");
        assert_eq!(n.users.len(), 2);
        assert!(n.groups.is_empty());
        assert_eq!(n.syscalls[&(syscalls::Sysno::openat.id() as u64)], "openat");
    }

    #[test]
    fn calls_of_32_bit_programs_have_numbers_of_their_own() {
        let n = host_names(Path::new("/nonexistent")).syscalls;
        // The same number on both machines: the first calls of Linux never changed.
        assert_eq!(n[&(COMPAT | 5)], "open");
        assert_eq!(n[&(COMPAT | 74)], "sethostname");
        assert!(!n.contains_key(&(COMPAT | 5000)));
    }
}
