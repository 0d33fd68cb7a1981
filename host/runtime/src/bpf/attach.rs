//! Loading a program and attaching it to its hook, through aya; iterators get their links beside it, because aya gives
//! neither the descriptor of one nor a way to name the map it walks.
//!
//! Everything is held by descriptors: all of it goes away with the process, however it ends.

use super::{hook::Hook, label::Label, socket::SocketProgram, sys};
use crate::{symbols::elf::ElfError, uprobes};
use aya::{
    Btf,
    programs::{
        CgroupAttachMode, Program, ProgramError,
        perf_event::{PerfEventConfig, PerfEventScope, SamplePolicy},
        uprobe::{UProbeAttachLocation, UProbeScope},
    },
};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Why a program could not be attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    #[error("neither /sys/kernel/tracing nor /sys/kernel/debug/tracing is mounted")]
    NoTracefs,
    #[error("this kernel has no tracepoint {category}/{name}")]
    NoTracepoint { category: String, name: String },
    #[error("this kernel has no {what} ({option})")]
    NoKernelSupport { what: &'static str, option: &'static str },
    #[error("this kernel has no function {function} that can be probed")]
    NoFunction { function: String, source: io::Error },
    #[error("there is no file {path}")]
    NoFile { path: String },
    #[error("{path} has no symbol {symbol}")]
    NoSymbol { path: String, symbol: String },
    #[error("{path} cannot be probed")]
    Unusable { path: String, source: ElfError },
    #[error("hooks of the kind {hook} are not supported by this host")]
    Unsupported { hook: String },
    #[error("the kernel refused to attach to {hook}")]
    Refused { hook: String, source: io::Error },
    #[error("cannot attach to {hook}")]
    Aya { hook: String, source: ProgramError },
    #[error("the program is in a section of another kind than {hook}")]
    WrongKind { hook: String },
    #[error("{hook} walks a map, and the gadget names none (GADGET_ITER_TARGET_MAP)")]
    NoIterMap { hook: String },
}

impl AttachError {
    pub fn hint(&self) -> Option<String> {
        match self {
            AttachError::NoTracefs => Some(
                "mount it with `mount -t tracefs tracefs /sys/kernel/tracing`, or pass --auto-mount-filesystems".into(),
            ),
            AttachError::Refused { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("run as root".into())
            }
            _ => None,
        }
    }
}

/// At what a `perf_event` program runs, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerfOptions {
    /// `perf_event_attr.type` and `.config`; 1 and 0: the software CPU clock.
    pub kind: u32,
    pub config: u64,
    pub pace: Pace,
}

/// How often, on each CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// So many times a second; the kernel adapts the period to come near it.
    PerSecond(u64),
    /// At every n-th event; of a clock, every n nanoseconds.
    EveryNth(u64),
}

impl Default for PerfOptions {
    fn default() -> Self {
        // 49 Hz: out of step with everything that runs at round frequencies
        PerfOptions { kind: 1, config: 0, pace: Pace::PerSecond(49) }
    }
}

/// Loads a program for its hook. `btf` has the hook's target at the id it has in the kernel.
pub(super) fn load(hook: &Hook, program: &mut Program, btf: &Btf) -> Result<(), ProgramError> {
    match (hook, program) {
        (Hook::Tracepoint { .. }, Program::TracePoint(p)) => p.load(),
        (Hook::RawTracepoint { .. }, Program::RawTracePoint(p)) => p.load(),
        (Hook::BtfTracepoint { name }, Program::BtfTracePoint(p)) => p.load(name, btf),
        (Hook::Kprobe { .. }, Program::KProbe(p)) => p.load(),
        (Hook::Uprobe { .. }, Program::UProbe(p)) => p.load(),
        (Hook::Fentry { function, exit: false }, Program::FEntry(p)) => p.load(function, btf),
        (Hook::Fentry { function, exit: true }, Program::FExit(p)) => p.load(function, btf),
        (Hook::Lsm { hook }, Program::Lsm(p)) => p.load(hook, btf),
        (Hook::Iter { target }, Program::Iter(p)) => p.load(target, btf),
        (Hook::PerfEvent { .. }, Program::PerfEvent(p)) => p.load(),
        (Hook::SocketFilter { .. }, Program::SocketFilter(p)) => p.load(),
        (Hook::Cgroup { .. }, Program::CgroupSock(p)) => p.load(),
        (Hook::Cgroup { .. }, Program::CgroupSockAddr(p)) => p.load(),
        (Hook::Cgroup { .. }, Program::SockOps(p)) => p.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

/// Detaches and unloads; the program can be loaded again.
pub(super) fn unload(program: &mut Program) {
    let done = match program {
        Program::TracePoint(p) => p.unload(),
        Program::RawTracePoint(p) => p.unload(),
        Program::BtfTracePoint(p) => p.unload(),
        Program::KProbe(p) => p.unload(),
        Program::UProbe(p) => p.unload(),
        Program::FEntry(p) => p.unload(),
        Program::FExit(p) => p.unload(),
        Program::Lsm(p) => p.unload(),
        Program::Iter(p) => p.unload(),
        Program::PerfEvent(p) => p.unload(),
        Program::SocketFilter(p) => p.unload(),
        Program::CgroupSock(p) => p.unload(),
        Program::CgroupSockAddr(p) => p.unload(),
        Program::SockOps(p) => p.unload(),
        _ => Ok(()),
    };
    // the only failure is that it was not loaded
    drop(done);
}

/// What keeps an attachment that aya does not keep.
#[derive(Debug, Default)]
pub(super) enum Attached {
    #[default]
    ByAya,
    /// The link that runs an iterator.
    Iterator(OwnedFd),
    /// Runs nowhere before its owner opens it in network namespaces.
    Socket(Arc<SocketProgram>),
}

/// Attaches a loaded program; `map` is what a `bpf_map_elem` iterator walks, `cgroup` where programs of control groups go.
pub(super) fn attach(
    hook: &Hook,
    program: &mut Program,
    map: Option<BorrowedFd<'_>>,
    cgroup: Option<BorrowedFd<'_>>,
    perf: PerfOptions,
    label: Option<&Label>,
) -> Result<Attached, AttachError> {
    let refused = |source| AttachError::Refused { hook: hook.to_string(), source };
    let aya = |e: ProgramError| match io_error(&e).and_then(io::Error::raw_os_error) {
        Some(code) => refused(io::Error::from_raw_os_error(code)),
        None => AttachError::Aya { hook: hook.to_string(), source: e },
    };
    match (hook, program) {
        (Hook::Tracepoint { category, name }, Program::TracePoint(p)) => {
            p.attach(category, name).map(drop).map_err(aya)?
        }
        (Hook::RawTracepoint { name }, Program::RawTracePoint(p)) => {
            p.attach(name).map(drop).map_err(|e| match io_error(&e).and_then(io::Error::raw_os_error) {
                Some(libc::ENOENT) => AttachError::NoTracepoint { category: "raw_tp".into(), name: name.clone() },
                _ => aya(e),
            })?
        }
        (Hook::BtfTracepoint { .. }, Program::BtfTracePoint(p)) => p.attach().map(drop).map_err(aya)?,
        (Hook::Fentry { exit: false, .. }, Program::FEntry(p)) => p.attach().map(drop).map_err(aya)?,
        (Hook::Fentry { exit: true, .. }, Program::FExit(p)) => p.attach().map(drop).map_err(aya)?,
        (Hook::Lsm { .. }, Program::Lsm(p)) => p.attach().map(drop).map_err(aya)?,
        (Hook::Kprobe { function, .. }, Program::KProbe(p)) => {
            // `function+0x10` probes inside
            let (name, offset) = function.split_once('+').unwrap_or((function, "0"));
            p.attach(name, number(offset).unwrap_or(0)).map(drop).map_err(|e| {
                match io_error(&e).and_then(io::Error::raw_os_error) {
                    Some(c @ (libc::ENOENT | libc::EADDRNOTAVAIL)) => {
                        AttachError::NoFunction { function: function.clone(), source: io::Error::from_raw_os_error(c) }
                    }
                    _ => aya(e),
                }
            })?;
        }
        (Hook::Uprobe { path, symbol, .. }, Program::UProbe(p)) => {
            for (file, offset) in uprobe_places(path, symbol)? {
                let place = UProbeAttachLocation::AbsoluteOffset(offset);
                p.attach(place, &file, UProbeScope::AllProcesses).map(drop).map_err(aya)?;
            }
        }
        (Hook::PerfEvent { .. }, Program::PerfEvent(p)) => {
            for cpu in sys::online_cpus().map_err(refused)? {
                let config = PerfEventConfig::Pmu { pmu_type: perf.kind, config: perf.config };
                let scope = PerfEventScope::AllProcessesOneCpu { cpu };
                let pace = match perf.pace {
                    Pace::PerSecond(n) => SamplePolicy::Frequency(n.max(1)),
                    Pace::EveryNth(n) => SamplePolicy::Period(n.max(1)),
                };
                p.attach(config, scope, pace, false).map_err(aya)?;
            }
        }
        (Hook::Iter { target }, Program::Iter(p)) => {
            if target == "bpf_map_elem" && map.is_none() {
                return Err(AttachError::NoIterMap { hook: hook.to_string() });
            }
            let fd = p.fd().map_err(aya)?;
            return sys::link_iter(fd.as_fd(), map).map(Attached::Iterator).map_err(refused);
        }
        (Hook::SocketFilter { .. }, Program::SocketFilter(p)) => {
            let fd = p.fd().map_err(aya)?;
            return SocketProgram::new(fd.as_fd(), label.cloned())
                .map(|p| Attached::Socket(Arc::new(p)))
                .map_err(refused);
        }
        (Hook::Cgroup { .. }, program) => {
            let unsupported = || AttachError::Unsupported { hook: hook.to_string() };
            return attach_cgroup(program, cgroup.ok_or_else(unsupported)?).map(|()| Attached::ByAya).map_err(aya);
        }
        _ => return Err(AttachError::WrongKind { hook: hook.to_string() }),
    }
    Ok(Attached::ByAya)
}

/// Beside the programs that others have there: what the kernel makes of every link.
fn attach_cgroup(program: &mut Program, cgroup: BorrowedFd<'_>) -> Result<(), ProgramError> {
    let mode = CgroupAttachMode::Single;
    match program {
        Program::CgroupSock(p) => p.attach(cgroup, mode).map(drop),
        Program::CgroupSockAddr(p) => p.attach(cgroup, mode).map(drop),
        Program::SockOps(p) => p.attach(cgroup, mode).map(drop),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

/// The system's error at the bottom of a chain of errors.
pub(super) fn io_error<'a>(e: &'a (dyn std::error::Error + 'static)) -> Option<&'a io::Error> {
    let mut next = Some(e);
    while let Some(e) = next {
        if let Some(io) = e.downcast_ref::<io::Error>() {
            return Some(io);
        }
        next = e.source();
    }
    None
}

fn number(text: &str) -> Option<u64> {
    text.strip_prefix("0x").map_or_else(|| text.parse().ok(), |h| u64::from_str_radix(h, 16).ok())
}

/// Whether this kernel could take the hook, asked before a program is loaded for it.
pub(super) fn available(hook: &Hook) -> Result<(), AttachError> {
    match hook {
        Hook::Tracepoint { category, name } => tracepoint_exists(category, name),
        Hook::Kprobe { .. } => pmu("kprobe"),
        Hook::Uprobe { .. } => pmu("uprobe"),
        Hook::Lsm { .. } => security_hooks(),
        Hook::Classifier { .. } | Hook::Cgroup { .. } | Hook::Unknown { .. } => {
            Err(AttachError::Unsupported { hook: hook.to_string() })
        }
        _ => Ok(()),
    }
}

fn tracefs() -> Result<&'static Path, AttachError> {
    ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"]
        .into_iter()
        .map(Path::new)
        .find(|p| p.join("events").read_dir().is_ok())
        .ok_or(AttachError::NoTracefs)
}

fn tracepoint_exists(category: &str, name: &str) -> Result<(), AttachError> {
    // names come from the image: `..` would read another file
    let plain = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if plain(category) && plain(name) && tracefs()?.join("events").join(category).join(name).join("id").exists() {
        return Ok(());
    }
    tracefs()?;
    Err(AttachError::NoTracepoint { category: category.into(), name: name.into() })
}

/// Without `bpf` among the security modules the kernel takes programs for its hooks and never asks them. Where the list
/// cannot be read (securityfs is not mounted) nothing is said.
pub(super) fn security_hooks() -> Result<(), AttachError> {
    match std::fs::read_to_string("/sys/kernel/security/lsm") {
        Ok(modules) if !modules.trim().split(',').any(|m| m == "bpf") => {
            let what = "BPF among its security modules";
            Err(AttachError::NoKernelSupport { what, option: "lsm=...,bpf on its command line" })
        }
        _ => Ok(()),
    }
}

/// Functions and security hooks are reached by code that the kernel writes into itself. One that cannot says so with no
/// more than a number, and only when a program is loaded; maps were made before that, so privileges are not what lacks.
pub(super) fn lacks_trampolines(hook: &Hook, refusal: &io::Error) -> Option<AttachError> {
    let (what, option) = match hook {
        Hook::Lsm { .. } => {
            ("security hooks for BPF programs", "CONFIG_BPF_LSM, CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS")
        }
        Hook::Fentry { .. } => ("fentry and fexit for BPF programs", "CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS"),
        _ => return None,
    };
    (refusal.raw_os_error() == Some(libc::EPERM)).then_some(AttachError::NoKernelSupport { what, option })
}

/// Dynamic probes are a kind of perf event, with a number that sysfs tells.
fn pmu(name: &'static str) -> Result<(), AttachError> {
    if Path::new("/sys/bus/event_source/devices").join(name).join("type").exists() {
        return Ok(());
    }
    let (what, option) = match name {
        "kprobe" => ("kprobes", "CONFIG_KPROBES, CONFIG_KPROBE_EVENTS"),
        _ => ("uprobes", "CONFIG_UPROBES, CONFIG_UPROBE_EVENTS"),
    };
    Err(AttachError::NoKernelSupport { what, option })
}

/// Where to probe on a host whose containers are not followed: in each of its files that a path or a library's name stands
/// for. Those of containers are `uprobes`' work, and so is the search.
fn uprobe_places(path: &str, symbol: &str) -> Result<Vec<(PathBuf, u64)>, AttachError> {
    let mut none = AttachError::NoFile { path: path.into() };
    let mut found = Vec::new();
    for (file, place) in uprobes::places(path, symbol) {
        let path = || file.display().to_string();
        match place {
            Ok(Some(offset)) => found.push((file, offset)),
            Ok(None) => none = AttachError::NoSymbol { path: path(), symbol: symbol.into() },
            // beside a library there may be files of its name that are none, such as a linker's script
            Err(_) if matches!(none, AttachError::NoSymbol { .. }) => {}
            Err(ElfError::Io(e)) if e.kind() == io::ErrorKind::NotFound => {}
            Err(source) => none = AttachError::Unusable { path: path(), source },
        }
    }
    if found.is_empty() { Err(none) } else { Ok(found) }
}
