//! What a test of a gadget asks of the kernel that not every kernel has, each looked for in the kernel at hand: by what it
//! does, never by its version.
//!
//! Hooks are what a gadget needs; the others are what a workload does, or what the kernel tells a gadget.

use crate::ig::Ig;
use rustix::{
    io::Errno,
    net::{AddressFamily, Protocol, SocketType, socket},
};
use serde::Deserialize;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// By the names that `test.yaml` has for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Feature {
    /// kprobe and kretprobe
    Kprobe,
    /// fentry and fexit
    Fentry,
    Lsm,
    /// Sockets of Multipath TCP.
    Mptcp,
    /// The system call, of Linux 5.12.
    MountSetattr,
    /// The kernel says why it drops a packet, from Linux 5.17 on.
    DropReasons,
}

impl Feature {
    /// True for what a gadget's programs are attached to.
    pub fn is_hook(self) -> bool {
        matches!(self, Feature::Kprobe | Feature::Fentry | Feature::Lsm)
    }

    /// Whether the kernel of this machine has it; looked for once.
    pub fn is_here(self) -> bool {
        static KNOWN: Mutex<BTreeMap<Feature, bool>> = Mutex::new(BTreeMap::new());
        *KNOWN.lock().unwrap_or_else(PoisonError::into_inner).entry(self).or_insert_with(|| self.look())
    }

    fn look(self) -> bool {
        match self {
            Feature::Kprobe | Feature::Fentry | Feature::Lsm => told_by_doctor(self.word()),
            Feature::Mptcp => has_mptcp(),
            Feature::MountSetattr => has_symbol("_sys_mount_setattr"),
            Feature::DropReasons => has_type_text("SKB_DROP_REASON_NO_SOCKET"),
        }
    }

    /// Its name, for a hook that in `ig doctor`, which the refusal on a kernel without it must hold, too.
    pub fn word(self) -> &'static str {
        match self {
            Feature::Kprobe => "kprobe",
            Feature::Fentry => "fentry",
            Feature::Lsm => "lsm",
            Feature::Mptcp => "mptcp",
            Feature::MountSetattr => "mount_setattr",
            Feature::DropReasons => "drop_reasons",
        }
    }
}

/// By the word of `ig doctor`. Were that wrong, the case would fail either way: by a gadget that runs where it must be refused,
/// or by one that does not run.
fn told_by_doctor(name: &str) -> bool {
    let done = Ig::new(&["doctor", "-o", "json"]).run();
    let told: Value = serde_json::from_str(&done.stdout()).unwrap_or_else(|e| panic!("ig doctor: {e}"));
    let groups = told["groups"].as_array().into_iter().flatten();
    let mut checks = groups.flat_map(|g| g["checks"].as_array().into_iter().flatten());
    let check = checks.find(|c| c["name"] == name);
    check.unwrap_or_else(|| panic!("ig doctor does not look for {name}"))["status"] == "ok"
}

/// Whether a socket of it can be made; any other failure than "there is no such thing" is one of the test.
fn has_mptcp() -> bool {
    const IPPROTO_MPTCP: u32 = 262;
    let protocol = std::num::NonZeroU32::new(IPPROTO_MPTCP).map(Protocol::from_raw);
    match socket(AddressFamily::INET, SocketType::STREAM, protocol) {
        Ok(_closed_at_once) => true,
        Err(Errno::PROTONOSUPPORT | Errno::INVAL | Errno::NOPROTOOPT) => false,
        Err(e) => panic!("a socket of MPTCP: {e}"),
    }
}

/// Whether the kernel has a function whose name ends so. Names are there for everybody, only addresses are not.
fn has_symbol(end: &str) -> bool {
    let symbols = std::fs::read_to_string("/proc/kallsyms").expect("a kernel that tells its symbols");
    assert!(symbols.contains("_sys_mount"), "the kernel tells no symbols");
    symbols.lines().any(|l| l.split_whitespace().nth(2).is_some_and(|name| name.ends_with(end)))
}

/// Whether the kernel's types know this name.
fn has_type_text(name: &str) -> bool {
    let types = std::fs::read("/sys/kernel/btf/vmlinux").expect("a kernel with types");
    let wanted = format!("\0{name}\0");
    types.windows(wanted.len()).any(|w| w == wanted.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_files_are_those_of_messages() {
        for (name, hook) in [
            ("kprobe", true),
            ("fentry", true),
            ("lsm", true),
            ("mptcp", false),
            ("mount_setattr", false),
            ("drop_reasons", false),
        ] {
            let feature: Feature = serde_saphyr::from_str(name).unwrap();
            assert_eq!((feature.word(), feature.is_hook()), (name, hook));
        }
    }

    #[test]
    fn what_is_not_there_is_not_found() {
        assert!(has_symbol("_sys_mount") && !has_symbol("_sys_no_such_call"));
        assert!(has_type_text("task_struct") && !has_type_text("task_struct_of_nobody"));
    }
}
