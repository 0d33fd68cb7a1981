//! Which kinds of program and hook this kernel really takes, by loading and attaching programs that do nothing.
//!
//! Each lives for microseconds and goes with its descriptors. Called by `doctor` on the caller's thread.

use super::{btf::Kind, sys};
use crate::bpf::KernelBtf;
use rustix::fs::MemfdFlags;
use std::{
    ffi::CString,
    fs, io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::net::UnixDatagram,
    },
    path::Path,
};

/// A kind of hook that gadgets attach to, or of map that they send events through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Feature {
    RingBuffer,
    RawTracepoint,
    Tracepoint,
    BtfTracepoint,
    Kprobe,
    Fentry,
    Lsm,
    Iterator,
    PerfEvent,
    Uprobe,
    SocketFilter,
    TrafficControl,
}

impl Feature {
    pub(crate) const ALL: [Feature; 12] = [
        Feature::RingBuffer,
        Feature::RawTracepoint,
        Feature::Tracepoint,
        Feature::BtfTracepoint,
        Feature::Kprobe,
        Feature::Fentry,
        Feature::Lsm,
        Feature::Iterator,
        Feature::PerfEvent,
        Feature::Uprobe,
        Feature::SocketFilter,
        Feature::TrafficControl,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Feature::RingBuffer => "ring buffer",
            Feature::RawTracepoint => "raw tracepoint",
            Feature::Tracepoint => "tracepoint",
            Feature::BtfTracepoint => "tp_btf",
            Feature::Kprobe => "kprobe",
            Feature::Fentry => "fentry",
            Feature::Lsm => "lsm",
            Feature::Iterator => "iterator",
            Feature::PerfEvent => "perf_event",
            Feature::Uprobe => "uprobe",
            Feature::SocketFilter => "socket filter",
            Feature::TrafficControl => "tc",
        }
    }
}

/// Where a try ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the kernel refuses the program: {0}")]
    Load(io::Error),
    #[error("loads, but the kernel refuses to attach it: {0}")]
    Attach(io::Error),
    #[error("the kernel refuses the map: {0}")]
    Map(io::Error),
    #[error("this kernel has no {0}")]
    NoTarget(&'static str),
    #[error("{0}")]
    Unseen(String),
}

impl Refusal {
    pub(crate) fn is_permission(&self) -> bool {
        let (Refusal::Load(e) | Refusal::Attach(e) | Refusal::Map(e)) = self else { return false };
        e.kind() == io::ErrorKind::PermissionDenied
    }
}

/// `r0 = value; exit`
fn answer(value: i32) -> [u64; 2] {
    [u64::from(value as u32) << 32 | 0xb7, 0x95]
}

/// Descriptors that keep a try in the kernel.
type Held = Result<Vec<OwnedFd>, Refusal>;

/// Tries one; what it made in the kernel is gone when this returns.
pub(crate) fn try_feature(feature: Feature, kernel: &KernelBtf) -> Result<(), Refusal> {
    if sys::kernel_version_code() < 0x05_0b_00 {
        sys::lift_memlock();
    }
    hold(feature, kernel).map(drop)
}

/// Rare events, so that the programs hardly ever run.
const TRACEPOINT: &str = "sched_process_exit";
const FUNCTION: &str = "do_exit";

fn hold(feature: Feature, kernel: &KernelBtf) -> Held {
    match feature {
        Feature::RingBuffer => {
            const RINGBUF: u32 = 27;
            let size = sys::page_size() as u32;
            sys::map_create(RINGBUF, 0, 0, size).map(|fd| vec![fd]).map_err(Refusal::Map)
        }
        Feature::RawTracepoint => {
            let prog = load(17, 0, 0, 0)?;
            let link = sys::raw_tracepoint_open(Some(c"sched_process_exit"), prog.as_fd()).map_err(Refusal::Attach)?;
            Ok(vec![link, prog])
        }
        Feature::Tracepoint => on_perf_event(load(5, 0, 0, 0)?, 2, tracepoint_id()?, None, 0),
        Feature::BtfTracepoint => {
            let id = target(kernel, &format!("btf_trace_{TRACEPOINT}"), Kind::Typedef, "typed tracepoints in its BTF")?;
            traced(26, 23, id)
        }
        Feature::Fentry => traced(26, 24, target(kernel, FUNCTION, Kind::Func, "function do_exit in its BTF")?),
        Feature::Lsm => {
            super::attach::security_hooks().map_err(|e| Refusal::Unseen(e.to_string()))?;
            let hook = "bpf_lsm_bprm_committed_creds";
            traced(29, 27, target(kernel, hook, Kind::Func, "BPF security hooks (CONFIG_BPF_LSM)")?)
        }
        Feature::Iterator => {
            let prog = load(26, 28, target(kernel, "bpf_iter_task", Kind::Func, "iterator over tasks")?, 0)?;
            let link = sys::link_iter(prog.as_fd(), None).map_err(Refusal::Attach)?;
            Ok(vec![link, prog])
        }
        Feature::Kprobe => {
            let kind = pmu("kprobe", "kprobes (CONFIG_KPROBES, CONFIG_KPROBE_EVENTS)")?;
            on_perf_event(load(2, 0, 0, 0)?, kind, 0, Some(FUNCTION.to_owned()), 0)
        }
        Feature::Uprobe => uprobe(),
        Feature::PerfEvent => on_perf_event(load(7, 0, 0, 0)?, 1, 0, None, 1_000_000_000),
        Feature::SocketFilter => {
            let prog = load(1, 0, 0, 0)?;
            let socket = UnixDatagram::unbound().map_err(Refusal::Attach)?;
            sys::socket_attach_bpf(socket.as_fd(), prog.as_fd()).map_err(Refusal::Attach)?;
            Ok(vec![socket.into(), prog])
        }
        Feature::TrafficControl => {
            // Loopback is the first interface of every network namespace; -1 leaves the packet to whoever comes next.
            const LOOPBACK: u32 = 1;
            let prog = load(3, 0, 0, -1)?;
            match sys::link_tcx(prog.as_fd(), LOOPBACK) {
                Ok(link) => Ok(vec![link, prog]),
                // Before Linux 6.6 such programs are attached by netlink, which would change the interface to try.
                Err(e) if e.raw_os_error() == Some(libc::EINVAL) => Ok(vec![prog]),
                Err(e) => Err(Refusal::Attach(e)),
            }
        }
    }
}

fn load(kind: u32, attach_type: u32, btf_id: u32, value: i32) -> Result<OwnedFd, Refusal> {
    sys::prog_load(kind, attach_type, btf_id, &answer(value)).map_err(Refusal::Load)
}

/// Programs that are loaded for one place of the kernel.
fn traced(kind: u32, attach_type: u32, btf_id: u32) -> Held {
    let prog = load(kind, attach_type, btf_id, 0)?;
    let link = sys::raw_tracepoint_open(None, prog.as_fd()).map_err(Refusal::Attach)?;
    Ok(vec![link, prog])
}

fn target(kernel: &KernelBtf, name: &str, kind: Kind, what: &'static str) -> Result<u32, Refusal> {
    let btf = kernel.get().map_err(|e| Refusal::Unseen(e.to_string()))?;
    btf.find(name, kind).map(|t| t.id).ok_or(Refusal::NoTarget(what))
}

fn tracepoint_id() -> Result<u64, Refusal> {
    let dirs = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
    let read = |dir: &&str| fs::read_to_string(format!("{dir}/events/sched/{TRACEPOINT}/id")).ok();
    let id = dirs.iter().find_map(read).and_then(|id| id.trim().parse().ok());
    id.ok_or_else(|| Refusal::Unseen("tracefs cannot be read, so no tracepoint has a number".into()))
}

fn pmu(name: &str, what: &'static str) -> Result<u32, Refusal> {
    let path = Path::new("/sys/bus/event_source/devices").join(name).join("type");
    let kind = fs::read_to_string(path).ok().and_then(|t| t.trim().parse().ok());
    kind.ok_or(Refusal::NoTarget(what))
}

/// In a file of our own that nobody runs: a probe in somebody's code would be one.
fn uprobe() -> Held {
    let kind = pmu("uprobe", "uprobes (CONFIG_UPROBES, CONFIG_UPROBE_EVENTS)")?;
    let unseen = |e: rustix::io::Errno| Refusal::Unseen(format!("no file in memory to probe: {e}"));
    let file = rustix::fs::memfd_create("ig-doctor", MemfdFlags::CLOEXEC).map_err(unseen)?;
    rustix::fs::ftruncate(&file, 4096).map_err(unseen)?;
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let mut held = on_perf_event(load(2, 0, 0, 0)?, kind, 0, Some(path), 0)?;
    held.push(file);
    Ok(held)
}

/// Attaches by way of a perf event: `text` is the function or file of a dynamic probe.
fn on_perf_event(prog: OwnedFd, kind: u32, config: u64, text: Option<String>, sample: u64) -> Held {
    const FIRST_CPU: i32 = 0;
    const ALL_PROCESSES: i32 = -1;
    let text = text.map(CString::new).transpose().map_err(|e| Refusal::Attach(io::Error::other(e)))?;
    let config1 = text.as_ref().map_or(0, |t| t.as_ptr() as u64);
    let mut attr = sys::PerfAttr { kind, config, config1, sample, ..sys::PerfAttr::default() };
    let event = sys::perf_event_open(&mut attr, ALL_PROCESSES, FIRST_CPU).map_err(Refusal::Attach)?;
    sys::perf_set_bpf(event.as_fd(), prog.as_fd()).map_err(Refusal::Attach)?;
    sys::perf_enable(event.as_fd()).map_err(Refusal::Attach)?;
    Ok(vec![event, prog])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_as_the_kernel_reads_them() {
        assert_eq!(answer(0).map(u64::to_le_bytes), [[0xb7, 0, 0, 0, 0, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]]);
        assert_eq!(answer(-1)[0].to_le_bytes(), [0xb7, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    }

    #[test]
    fn what_needs_btf_is_refused_without_it() {
        let none = KernelBtf::at("/nonexistent/vmlinux");
        for feature in [Feature::BtfTracepoint, Feature::Fentry, Feature::Lsm, Feature::Iterator] {
            let e = try_feature(feature, &none).unwrap_err();
            assert!(e.to_string().contains("/nonexistent/vmlinux"), "{e}");
        }
    }
}
