//! The kernel: release, types, restrictions, and which programs and hooks it takes when they are really tried.

use super::{Check, privileges::Privileges};
use crate::bpf::{
    KernelBtf,
    probe::{self, Feature, Refusal},
};
use std::fs;

pub(super) fn checks(btf: &KernelBtf) -> Vec<Check> {
    let uname = rustix::system::uname();
    let text = |t: &std::ffi::CStr| t.to_string_lossy().into_owned();
    let file = |path: &str| fs::read_to_string(path).ok();
    vec![
        Check::ok("release", format!("{} {}", text(uname.release()), text(uname.machine()))),
        types(btf.get().map(|b| b.len()).map_err(|e| (e.to_string(), e.hint()))),
        lockdown(file("/sys/kernel/security/lockdown").as_deref()),
        unprivileged(file("/proc/sys/kernel/unprivileged_bpf_disabled").as_deref()),
    ]
}

fn types(read: Result<u32, (String, Option<String>)>) -> Check {
    match read {
        Ok(n) => Check::ok("BTF", format!("{} ({n} types)", KernelBtf::PATH)),
        Err((e, hint)) => Check::fail("BTF", e)
            .remedy(hint.unwrap_or_else(|| "boot a kernel built with CONFIG_DEBUG_INFO_BTF".into())),
    }
}

/// `none [integrity] confidentiality`
fn lockdown(file: Option<&str>) -> Check {
    let mode = file.and_then(|f| f.split_once('[')?.1.split_once(']')).map(|(mode, _)| mode);
    match mode {
        Some("confidentiality") => Check::warn("lockdown", "confidentiality: programs may not read kernel memory")
            .remedy("boot with lockdown=integrity, or without lockdown"),
        Some(mode) => Check::ok("lockdown", mode),
        None => Check::ok("lockdown", "none that can be seen"),
    }
}

fn unprivileged(file: Option<&str>) -> Check {
    let name = "unprivileged BPF";
    match file.map(str::trim) {
        Some("0") => Check::ok(name, "allowed (kernel.unprivileged_bpf_disabled=0)"),
        Some(n) => Check::ok(name, format!("disabled (kernel.unprivileged_bpf_disabled={n}); root is not affected")),
        None => Check::unknown(name, "kernel.unprivileged_bpf_disabled cannot be read"),
    }
}

/// Tries every kind.
pub(super) fn programs(privileges: &Privileges, btf: &KernelBtf) -> Vec<Check> {
    Feature::ALL.iter().map(|f| feature(*f, probe::try_feature(*f, btf), privileges.can_load())).collect()
}

fn feature(feature: Feature, tried: Result<(), Refusal>, permitted: bool) -> Check {
    let name = feature.name();
    let refusal = match tried {
        Ok(()) => return Check::ok(name, works(feature)),
        Err(e) => e,
    };
    if !permitted && (refusal.is_permission() || matches!(refusal, Refusal::Unseen(_))) {
        return Check::unknown(name, "not permitted to try");
    }
    let needed = matches!(feature, Feature::RingBuffer | Feature::RawTracepoint);
    let check = if needed { Check::fail } else { Check::warn };
    check(name, refusal.to_string()).remedy(remedy(feature))
}

fn works(feature: Feature) -> &'static str {
    match feature {
        Feature::RingBuffer => "can be made",
        _ => "loads and attaches",
    }
}

fn remedy(feature: Feature) -> &'static str {
    match feature {
        Feature::RingBuffer => "gadgets need Linux 5.8 or newer",
        Feature::RawTracepoint => "the container tracker needs it: see the capabilities above, or boot another kernel",
        Feature::Tracepoint => "mount tracefs (--auto-mount-filesystems); the kernel needs CONFIG_FTRACE_SYSCALLS",
        Feature::BtfTracepoint => "gadgets that name a tracepoint as well use that",
        Feature::Kprobe => "gadgets with another hook use that; others need a kernel with CONFIG_KPROBE_EVENTS",
        Feature::Fentry => "gadgets with another hook use that; others need CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS",
        Feature::Lsm => "gadgets for security hooks need CONFIG_BPF_LSM and lsm=...,bpf on the kernel's command line",
        Feature::Iterator => "snapshot gadgets need it: Linux 5.8 or newer with CONFIG_DEBUG_INFO_BTF",
        Feature::PerfEvent => "profiling gadgets need CONFIG_PERF_EVENTS",
        Feature::Uprobe => "gadgets that probe programs and libraries need CONFIG_UPROBE_EVENTS",
        Feature::SocketFilter => "gadgets that read packets of a network namespace need CONFIG_NET",
        Feature::TrafficControl => "gadgets that change or read packets of an interface need CONFIG_NET_CLS_BPF",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Status;
    use std::io;

    fn denied() -> Refusal {
        Refusal::Load(io::Error::from_raw_os_error(libc::EPERM))
    }

    #[test]
    fn only_what_everything_rests_on_is_essential() {
        for f in Feature::ALL {
            let check = feature(f, Err(Refusal::NoTarget("x")), true);
            let expected =
                if matches!(f, Feature::RingBuffer | Feature::RawTracepoint) { Status::Fail } else { Status::Warn };
            assert_eq!(check.status, expected, "{check:?}");
            assert!(check.remedy.is_some());
            assert_eq!(feature(f, Ok(()), true).status, Status::Ok);
        }
    }

    #[test]
    fn without_permission_nothing_is_claimed() {
        assert_eq!(feature(Feature::Lsm, Err(denied()), false).status, Status::Unknown);
        assert_eq!(feature(Feature::Lsm, Err(denied()), true).status, Status::Warn, "root was refused: that is news");
        assert_eq!(feature(Feature::Lsm, Err(Refusal::NoTarget("x")), false).status, Status::Warn);
    }

    #[test]
    fn restrictions_are_read() {
        assert_eq!(lockdown(Some("none [integrity] confidentiality\n")).finding, "integrity");
        assert_eq!(lockdown(Some("none integrity [confidentiality]")).status, Status::Warn);
        assert_eq!(lockdown(None).status, Status::Ok);
        assert!(unprivileged(Some("2\n")).finding.starts_with("disabled"));
        assert_eq!(unprivileged(None).status, Status::Unknown);
        assert_eq!(types(Err(("no BTF".into(), None))).status, Status::Fail);
    }
}
