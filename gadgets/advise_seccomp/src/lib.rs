//! The writing half of advise_seccomp: for each container a seccomp profile in the format of the OCI runtimes, out of the
//! map that the BPF half keeps.
//!
//! A profile allows what was seen and what a runtime itself needs between installing it and starting the program
//! ([`RUNTIME`]). Numbers become names here, because a profile is written in names and serves every architecture it lists.

use gadget_sdk::{
    Decoder, Error, ErrorCode, Level, Setup,
    host::{self, Abi, Container, Document, Map, Owner},
    log,
};
use std::collections::{BTreeMap, BTreeSet};

const MAP: &str = "containers";
/// Where the parts of a value lie: boot time, two flags, then a byte for each call.
const FLAGS: usize = 8;
const NATIVE: std::ops::Range<usize> = FLAGS + 2..FLAGS + 2 + 1024;
const COMPAT: std::ops::Range<usize> = NATIVE.end..NATIVE.end + 512;

/// What runc and crun call between installing the filter and starting the program, and what every program needs to end
/// and to return from a signal. Much of it is the Go runtime's, whose threads call when they like, so that a run does not
/// show all of it.
const RUNTIME: &[&str] = &[
    "brk",
    "capget",
    "capset",
    "chdir",
    "clock_gettime",
    "clone",
    "clone3",
    "close",
    "close_range",
    "dup3",
    "epoll_create1",
    "epoll_ctl",
    "epoll_pwait",
    "eventfd2",
    "execve",
    "exit",
    "exit_group",
    "faccessat2",
    "fchdir",
    "fchown",
    "fcntl",
    "fstat",
    "fstatfs",
    "futex",
    "getcwd",
    "getdents64",
    "getegid",
    "geteuid",
    "getgid",
    "getpid",
    "getppid",
    "gettid",
    "getuid",
    "ioctl",
    "lseek",
    "madvise",
    "mmap",
    "mprotect",
    "munmap",
    "nanosleep",
    "newfstatat",
    "openat",
    "openat2",
    "pipe2",
    "prctl",
    "pread64",
    "prlimit64",
    "read",
    "readlinkat",
    "restart_syscall",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sched_getaffinity",
    "sched_yield",
    "set_robust_list",
    "set_tid_address",
    "setgid",
    "setgroups",
    "setresgid",
    "setresuid",
    "setuid",
    "sigaltstack",
    "statfs",
    "tgkill",
    "umask",
    "uname",
    "unlinkat",
    "wait4",
    "waitid",
    "write",
];

/// Gathers nothing itself: the map holds it all.
pub struct Advise {
    interval_ms: u32,
    /// Namespaces that were counted as lost.
    lost: u64,
}

impl Decoder for Advise {
    fn open(setup: &mut Setup) -> Result<Self, Error> {
        let seconds = setup.param("interval").unwrap_or_default();
        let seconds: u32 = seconds.parse().map_err(|_e| {
            Error::new(ErrorCode::Invalid, format!("parameter interval: {seconds:?} is no number of seconds"))
        })?;
        Ok(Advise { interval_ms: seconds.saturating_mul(1000), lost: 0 })
    }

    fn interval_ms(&self) -> u32 {
        self.interval_ms
    }

    fn tick(&mut self) -> Result<(), Error> {
        self.publish()
    }

    fn stop(&mut self) -> Result<(), Error> {
        self.publish()
    }
}

impl Advise {
    fn publish(&mut self) -> Result<(), Error> {
        let doubtful = publish()?;
        // The map still has those of the time before.
        host::lost(doubtful.saturating_sub(self.lost));
        self.lost = self.lost.max(doubtful);
        Ok(())
    }
}

/// A container and which of its system calls were seen, by number.
struct Seen {
    container: Container,
    native: [bool; NATIVE.end - NATIVE.start],
    compat: [bool; COMPAT.end - COMPAT.start],
}

/// Answers how many namespaces have no profile because nobody knows whose they are.
fn publish() -> Result<u64, Error> {
    let mut all: BTreeMap<(String, String), Seen> = BTreeMap::new();
    let (mut wrong, mut doubtful) = (0, 0u64);
    Map::open(MAP)?.each(|key, value| {
        let Some((mntns, since)) = word(key).zip(word(value)) else { return wrong += 1 };
        let container = match host::owner(mntns, since) {
            Owner::Container(c) => named(c),
            Owner::Nobody => Container { name: format!("mntns-{mntns}"), ..Container::default() },
            Owner::LeftOut => return,
            Owner::Doubtful => return doubtful += 1,
        };
        let place = (container.name.clone(), container.id.clone());
        // A container may have made namespaces of its own.
        let seen = all.entry(place).or_insert_with(|| Seen { container, native: [false; 1024], compat: [false; 512] });
        wrong += u32::from(!seen.add(value));
    })?;
    if wrong > 0 {
        return Err(Error::new(ErrorCode::Other, format!("{wrong} entries of map {MAP} are not of the known shape")));
    }
    if doubtful > 0 {
        let text = format!(
            "{doubtful} mount namespaces have no profile: whether they are of the containers asked for is not known"
        );
        log(Level::Warn, &text);
    }
    if all.is_empty() {
        log(Level::Warn, "no system call of a container was seen, so there is no profile");
    }
    let (arch, native, compat) = (host::arch(), host::syscall_names(Abi::Native), host::syscall_names(Abi::Compat));
    for seen in all.into_values() {
        let (calls, nameless) = seen.names(&native, &compat);
        if !nameless.is_empty() {
            let name = &seen.container.name;
            log(
                Level::Warn,
                &format!("{name}: no name is known for system calls {nameless:?}; its profile forbids them"),
            );
        }
        let annotations = [("containerId", seen.container.id), ("image", seen.container.image)];
        Document {
            name: seen.container.name,
            media_type: "application/json".into(),
            annotations: annotations.into_iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| (k.into(), v)).collect(),
            text: profile(&arch, &calls),
        }
        .publish()?;
    }
    Ok(doubtful)
}

fn word(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk().map(|b| u64::from_le_bytes(*b))
}

/// A container whose name did not come in time goes by its id.
fn named(mut c: Container) -> Container {
    if c.name.is_empty() {
        c.name = c.id.chars().take(12).collect();
    }
    c
}

impl Seen {
    /// False for a value that is too short.
    fn add(&mut self, value: &[u8]) -> bool {
        let (Some(native), Some(compat)) = (value.get(NATIVE), value.get(COMPAT)) else { return false };
        self.native.iter_mut().zip(native).for_each(|(seen, byte)| *seen |= *byte != 0);
        self.compat.iter_mut().zip(compat).for_each(|(seen, byte)| *seen |= *byte != 0);
        true
    }

    /// The names, and the numbers that have none.
    fn names<'a>(&self, native: &'a [String], compat: &'a [String]) -> (BTreeSet<&'a str>, Vec<usize>) {
        let (mut names, mut nameless) = (BTreeSet::from_iter(RUNTIME.iter().copied()), Vec::new());
        for (seen, table) in [(&self.native[..], native), (&self.compat[..], compat)] {
            for number in seen.iter().enumerate().filter(|(_, seen)| **seen).map(|(number, _)| number) {
                match table.get(number).filter(|name| !name.is_empty()) {
                    Some(name) => {
                        names.insert(name);
                    }
                    None => nameless.push(number),
                }
            }
        }
        (names, nameless)
    }
}

/// As seccomp libraries call the architectures that programs on this machine can be of.
fn architectures(arch: &str) -> &'static [&'static str] {
    match arch {
        "x86_64" => &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "aarch64" => &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        _ => &[],
    }
}

fn profile(arch: &str, calls: &BTreeSet<&str>) -> String {
    // Names of calls and architectures need no escaping.
    let list = |indent: &str, items: &mut dyn Iterator<Item = &str>| {
        items.map(|i| format!("{indent}\"{i}\"")).collect::<Vec<_>>().join(",\n")
    };
    let architectures = list("    ", &mut architectures(arch).iter().copied());
    let names = list("        ", &mut calls.iter().copied());
    format!(
        "{{\n  \"defaultAction\": \"SCMP_ACT_ERRNO\",\n  \"architectures\": [\n{architectures}\n  ],\n  \"syscalls\": [\n    \
         {{\n      \"names\": [\n{names}\n      ],\n      \"action\": \"SCMP_ACT_ALLOW\"\n    }}\n  ]\n}}\n"
    )
}

gadget_sdk::export!(Advise);

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> Seen {
        Seen { container: Container::default(), native: [false; 1024], compat: [false; 512] }
    }

    fn value(native: &[usize], compat: &[usize]) -> Vec<u8> {
        let mut v = vec![0; COMPAT.end + 6];
        native.iter().for_each(|n| v[NATIVE.start + n] = 1);
        compat.iter().for_each(|n| v[COMPAT.start + n] = 1);
        v
    }

    #[test]
    fn calls_of_both_doors_and_of_several_namespaces_come_together_by_name() {
        let table = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let (native, compat) = (table(&["ptrace", "", "swapon"]), table(&["restart_syscall", "swapoff"]));
        let mut s = seen();
        assert!(s.add(&value(&[0], &[1])) && s.add(&value(&[2, 1, 1023], &[])));
        let (names, nameless) = s.names(&native, &compat);
        let new: Vec<&str> = names.iter().copied().filter(|n| !RUNTIME.contains(n)).collect();
        assert_eq!((new, nameless), (vec!["ptrace", "swapoff", "swapon"], vec![1, 1023]));
        assert!(!s.add(&[0; 100]), "a value of another shape");
    }

    #[test]
    fn the_profile_is_that_of_the_runtimes_format() {
        let text = profile("x86_64", &BTreeSet::from(["write", "read"]));
        assert_eq!(
            text,
            r#"{
  "defaultAction": "SCMP_ACT_ERRNO",
  "architectures": [
    "SCMP_ARCH_X86_64",
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X32"
  ],
  "syscalls": [
    {
      "names": [
        "read",
        "write"
      ],
      "action": "SCMP_ACT_ALLOW"
    }
  ]
}
"#
        );
        assert!(profile("aarch64", &BTreeSet::new()).contains("\"SCMP_ARCH_AARCH64\",\n    \"SCMP_ARCH_ARM\"\n"));
    }

    #[test]
    fn everything_has_a_name() {
        let c = |id: &str, name: &str| Container { id: id.into(), name: name.into(), ..Container::default() };
        assert_eq!(named(c("0123456789abcdef", "web")).name, "web");
        assert_eq!(named(c("0123456789abcdef", "")).name, "0123456789ab");
    }

    #[test]
    fn the_runtimes_calls_are_sorted_and_named_once() {
        assert!(RUNTIME.is_sorted() && RUNTIME.windows(2).all(|w| w[0] != w[1]));
    }
}
