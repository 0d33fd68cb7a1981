//! User and capabilities of this process, from `/proc/self/status`, and which of those that gadgets need are missing.

use super::Check;

/// Capabilities by number, as the kernel counts them.
const NAMES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

const DAC_READ_SEARCH: u32 = 2;
const DAC_OVERRIDE: u32 = 1;
const NET_ADMIN: u32 = 12;
const SYS_PTRACE: u32 = 19;
const SYS_ADMIN: u32 = 21;
const PERFMON: u32 = 38;
const BPF: u32 = 39;

/// What this process may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Privileges {
    pub(super) euid: Option<u32>,
    /// Effective capabilities, one bit each.
    effective: Option<u64>,
    /// Capabilities that exist on this kernel.
    last: u32,
}

impl Privileges {
    pub(super) fn own() -> Privileges {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let last = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap").ok().and_then(|t| t.trim().parse().ok());
        Privileges::parse(&status, last.unwrap_or(40))
    }

    fn parse(status: &str, last: u32) -> Privileges {
        let line = |key: &str| status.lines().find_map(|l| l.strip_prefix(key)).map(str::trim);
        Privileges {
            euid: line("Uid:").and_then(|u| u.split_ascii_whitespace().nth(1)?.parse().ok()),
            effective: line("CapEff:").and_then(|c| u64::from_str_radix(c, 16).ok()),
            last,
        }
    }

    pub(super) fn is_root(&self) -> bool {
        self.euid == Some(0)
    }

    fn has(&self, capability: u32) -> bool {
        self.effective.is_some_and(|e| e >> capability & 1 != 0)
    }

    pub(super) fn has_sys_admin(&self) -> bool {
        self.has(SYS_ADMIN)
    }

    /// May load BPF programs of every kind.
    pub(super) fn can_load(&self) -> bool {
        self.has(SYS_ADMIN) || self.has(BPF) && self.has(PERFMON)
    }
}

pub(super) fn checks(p: &Privileges) -> Vec<Check> {
    let user = match p.euid {
        Some(0) => Check::ok("user", "root"),
        Some(uid) => Check::fail("user", format!("user id {uid}; running gadgets needs root")).remedy("sudo ig ..."),
        None => Check::unknown("user", "/proc/self/status cannot be read"),
    };
    let Some(effective) = p.effective else {
        return vec![user, Check::unknown("capabilities", "/proc/self/status cannot be read")];
    };
    let mut all = vec![user, effective_set(effective, p.last)];
    if p.last < BPF {
        // Before Linux 5.8 one capability stands for both.
        all.push(needed(p, "CAP_SYS_ADMIN", p.has(SYS_ADMIN)));
    } else {
        all.push(needed(p, "CAP_BPF", p.has(BPF) || p.has(SYS_ADMIN)));
        all.push(needed(p, "CAP_PERFMON", p.has(PERFMON) || p.has(SYS_ADMIN)));
    }
    if !p.is_root() {
        // They come with root.
        return all;
    }
    let helpful = [
        (p.has(SYS_PTRACE), "CAP_SYS_PTRACE", "namespaces of running processes cannot be told, nor containers by them"),
        (
            p.has(DAC_READ_SEARCH) || p.has(DAC_OVERRIDE),
            "CAP_DAC_READ_SEARCH",
            "bundles and state of containers cannot be read",
        ),
        (p.has(SYS_ADMIN), "CAP_SYS_ADMIN", "nothing can be mounted, and perf events may be refused"),
        (p.has(NET_ADMIN), "CAP_NET_ADMIN", "gadgets that look at packets do not attach"),
    ];
    for (has, name, lack) in helpful {
        if !has && !all.iter().any(|c| c.name == name) {
            all.push(Check::warn(name, format!("missing: {lack}")).remedy(grant(p, name)));
        }
    }
    all
}

fn needed(p: &Privileges, name: &str, has: bool) -> Check {
    match has {
        true => Check::ok(name, "effective"),
        false => Check::fail(name, "missing: no BPF program can be loaded").remedy(grant(p, name)),
    }
}

fn grant(p: &Privileges, name: &str) -> String {
    if !p.is_root() {
        return "run as root: sudo ig ...".to_owned();
    }
    let short = name.strip_prefix("CAP_").unwrap_or(name);
    format!("in a container: --privileged or --cap-add {short}; in a pod: securityContext.privileged: true")
}

/// The whole set in one line: what is missing is shorter where most are there.
fn effective_set(effective: u64, last: u32) -> Check {
    let existing: Vec<(u32, &str)> =
        NAMES.iter().enumerate().map(|(i, n)| (i as u32, *n)).filter(|(i, _)| *i <= last).collect();
    let names = |has: bool| -> Vec<&str> {
        existing.iter().filter(|(i, _)| (effective >> i & 1 != 0) == has).map(|(_, n)| *n).collect()
    };
    let (have, lack) = (names(true), names(false));
    let text = match (have.len(), lack.len()) {
        (_, 0) => "all".to_owned(),
        (0, _) => "none".to_owned(),
        (h, l) if l < h => format!("all but {}", lack.join(", ")),
        _ => have.join(", "),
    };
    Check::ok("capabilities", text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Status;

    fn of(euid: u32, effective: u64, last: u32) -> Vec<Check> {
        let status = format!("Name:\tig\nUid:\t1000\t{euid}\t0\t0\nCapEff:\t{effective:016x}\n");
        checks(&Privileges::parse(&status, last))
    }

    fn shown(checks: &[Check]) -> String {
        checks.iter().map(|c| format!("{:?} {}: {}\n", c.status, c.name, c.finding)).collect()
    }

    #[test]
    fn root_with_everything_but_one() {
        insta::assert_snapshot!(shown(&of(0, 0x1ff_feff_ffff, 40)), @"
        Ok user: root
        Ok capabilities: all but sys_resource
        Ok CAP_BPF: effective
        Ok CAP_PERFMON: effective
        ");
    }

    #[test]
    fn a_docker_container_without_privileges() {
        let all = of(0, 0xa804_25fb, 40);
        insta::assert_snapshot!(shown(&all), @"
        Ok user: root
        Ok capabilities: chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap, net_bind_service, net_raw, sys_chroot, mknod, audit_write, setfcap
        Fail CAP_BPF: missing: no BPF program can be loaded
        Fail CAP_PERFMON: missing: no BPF program can be loaded
        Warn CAP_SYS_PTRACE: missing: namespaces of running processes cannot be told, nor containers by them
        Warn CAP_SYS_ADMIN: missing: nothing can be mounted, and perf events may be refused
        Warn CAP_NET_ADMIN: missing: gadgets that look at packets do not attach
        ");
        assert!(all.iter().filter(|c| c.status != Status::Ok).all(|c| c.remedy.is_some()), "{all:#?}");
    }

    #[test]
    fn an_ordinary_user_is_told_to_use_sudo() {
        let all = of(1000, 0, 40);
        assert_eq!(all[0].status, Status::Fail);
        assert!(all.iter().filter(|c| c.status == Status::Fail).all(|c| c.remedy.as_ref().unwrap().contains("sudo")));
        assert_eq!(all[1].finding, "none");
    }

    #[test]
    fn before_linux_5_8_one_capability_is_needed() {
        let all = of(0, 1 << 21, 37);
        assert!(all.iter().all(|c| c.status != Status::Fail), "{all:#?}");
        assert!(of(0, 0, 37).iter().any(|c| c.name == "CAP_SYS_ADMIN" && c.status == Status::Fail));
    }

    #[test]
    fn garbage_is_said_to_be_unknown() {
        let all = checks(&Privileges::parse("what", 40));
        assert!(all.iter().all(|c| c.status == Status::Unknown), "{all:#?}");
    }
}
