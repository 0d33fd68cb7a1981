//! Names of users, groups and system calls of the observed host. Read once at start; files only, no NSS, because the
//! binary is static and a lookup must not block on a directory server.

use ig_event::HostNames;
use std::path::Path;

/// Reads `etc/passwd` and `etc/group` below `host_root`. A missing file leaves its table empty: numbers are shown then.
pub fn host_names(host_root: &Path) -> HostNames {
    HostNames {
        users: table(&crate::host_root::join(host_root, Path::new("/etc/passwd"))),
        groups: table(&crate::host_root::join(host_root, Path::new("/etc/group"))),
        syscalls: syscalls::Sysno::iter().map(|s| (s.id() as u64, s.name().to_owned())).collect(),
    }
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
}
