//! From an object to running programs, through aya: preparing, loading one by one, attaching, and the report of what could
//! not be.
//!
//! Two steps, because between them the owner hands maps to others: `load` creates everything, `Loaded::attach` starts it.
//! Everything is held by descriptors: dropping `Loaded`, or the end of the process in any way, detaches and frees it all.

use super::{
    attach::{self, AttachError, Attached, PerfOptions},
    btf::{KernelBtf, KernelBtfError, Kind},
    core_reloc::{self, CoreError},
    maps::{self, MapInfo},
    object::{Hook, MAP_RINGBUF, Marker, Object, map_kind_name},
    prepare::{self, PrepareError},
    socket::SocketProgram,
    sys,
};
use aya::{Ebpf, EbpfError, EbpfLoader, programs::ProgramError};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::Arc,
};

/// The value of `attach_to` that switches a program off.
pub const DISABLED: &str = "gadget_program_disabled";
/// Bytes of a ring buffer, unless the user asks for another size.
pub const DEFAULT_RING_BYTES: u32 = 4 << 20;
/// Lines of the verifier's log that a message shows; all of it is in the error.
const LOG_TAIL: usize = 8;

/// What the caller decides about a load.
#[derive(Debug)]
pub struct LoadOptions<'a> {
    /// Values of read-only variables, by name.
    pub params: Vec<(String, Vec<u8>)>,
    /// Size of every ring buffer that carries events; a power of two and of pages.
    pub ring_bytes: u32,
    pub max_entries: BTreeMap<String, u32>,
    /// Another target for a program's hook, or `DISABLED`.
    pub attach_to: BTreeMap<String, String>,
    /// Several ways to do one job: the first whose programs all load and attach is used.
    pub alternatives: Vec<(String, Vec<Vec<String>>)>,
    /// Maps that exist already and take the place of the object's own.
    pub inject: BTreeMap<String, BorrowedFd<'a>>,
    /// Types of the host's that CO-RE finds beside the kernel's, such as those of injected maps.
    pub host_types: Option<&'a super::Btf>,
    /// The control group that programs of such go to. Without it they are not loaded: one of a gadget could cut off the
    /// machine's network.
    pub cgroup: Option<BorrowedFd<'a>>,
    pub perf: BTreeMap<String, PerfOptions>,
    /// Uprobes outside alternatives are attached by the caller, who knows in whose files; see `Loaded::uprobes`.
    pub defer_uprobes: bool,
}

impl Default for LoadOptions<'_> {
    fn default() -> Self {
        LoadOptions {
            params: Vec::new(),
            ring_bytes: DEFAULT_RING_BYTES,
            max_entries: BTreeMap::new(),
            attach_to: BTreeMap::new(),
            alternatives: Vec::new(),
            inject: BTreeMap::new(),
            host_types: None,
            cgroup: None,
            perf: BTreeMap::new(),
            defer_uprobes: false,
        }
    }
}

/// Why an object could not be loaded at all.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("{image}: {source}")]
    KernelBtf { image: String, source: KernelBtfError },
    #[error("{image}: {source}")]
    Core { image: String, source: CoreError },
    #[error("{image}: {source}")]
    Prepare { image: String, source: PrepareError },
    #[error("{image}: there is no map {map}")]
    NoMap { image: String, map: String },
    #[error("{image}: there is no program {program}")]
    NoProgram { image: String, program: String },
    #[error("{image}: {target:?} is no place that program {program} could be attached to")]
    BadTarget { image: String, program: String, target: String },
    #[error("{image}: a buffer of {bytes} bytes is not possible: it must be a power of two, at least one page (4096)")]
    RingSize { image: String, bytes: u32 },
    #[error("{image}: cannot prepare the injection of maps")]
    Inject { image: String, source: io::Error },
    #[error("{image}: the map injected as {map} is of another shape ({found}, wanted {wanted})")]
    InjectShape { image: String, map: String, found: String, wanted: String },
    #[error("{image}: cannot use map {map}")]
    Map { image: String, map: String, source: io::Error },
    #[error("{image}: cannot create its maps or link its programs")]
    Create { image: String, source: Box<EbpfError> },
    #[error("{image}: not permitted to load BPF programs")]
    NotPermitted { image: String, source: io::Error },
    #[error("{image}: all of its programs are switched off")]
    AllOff { image: String },
    #[error("{image}: no program could be started{}", list(.reports))]
    NothingStarted { image: String, reports: Vec<ProgramReport> },
    #[error("{image}: none of the ways to do {job} works{}", list(.reports))]
    NoAlternative { image: String, job: String, reports: Vec<ProgramReport> },
    #[error("{image}: the kernel refused program {program} ({hook}){}", tail(.log))]
    Verifier { image: String, program: String, hook: String, log: String, source: io::Error },
}

impl LoadError {
    pub fn hint(&self) -> Option<String> {
        match self {
            LoadError::KernelBtf { source, .. } => source.hint(),
            LoadError::NotPermitted { .. } => Some("run as root".into()),
            LoadError::AllOff { image } => {
                Some(format!("`ig run {image} --help` lists the flags that choose what is to be looked at"))
            }
            LoadError::Verifier { hook, source, .. }
                if source.raw_os_error() == Some(libc::EPERM) && hook.starts_with("lsm/") =>
            {
                Some(
                    "security hooks need CONFIG_BPF_LSM and CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS; see `ig doctor`"
                        .into(),
                )
            }
            LoadError::Verifier { log, .. } if log.contains("195896080") => {
                Some("the gadget reads a field or type that this kernel does not have".into())
            }
            LoadError::Verifier { log, .. } if log.lines().count() > LOG_TAIL => {
                Some("-v shows all of the verifier's log".into())
            }
            LoadError::NothingStarted { reports, .. } | LoadError::NoAlternative { reports, .. } => {
                reports.iter().find_map(|r| match &r.state {
                    State::Skipped { hint, .. } => hint.clone(),
                    _ => None,
                })
            }
            _ => None,
        }
    }

    /// All of the verifier's log, where there is one.
    pub fn log(&self) -> Option<&str> {
        match self {
            LoadError::Verifier { log, .. } => Some(log),
            _ => None,
        }
    }
}

fn list(reports: &[ProgramReport]) -> String {
    let skipped = reports.iter().filter_map(|r| match &r.state {
        State::Skipped { reason, .. } => Some(format!("\n  {} ({}): {reason}", r.name, r.hook)),
        _ => None,
    });
    skipped.collect()
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().filter(|l| !l.trim().is_empty()).collect();
    let shown = &lines[lines.len().saturating_sub(LOG_TAIL)..];
    shown.iter().map(|l| format!("\n  {l}")).collect()
}

/// What became of a program.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    Loaded,
    Attached,
    /// A uprobe that the caller attaches wherever its file is.
    PerFile,
    Skipped {
        reason: String,
        hint: Option<String>,
    },
    /// Switched off by gadget.yaml.
    Disabled,
    /// Another alternative for the same job is in use.
    NotNeeded,
}

/// One program's fate, for stderr and `inspect`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ProgramReport {
    pub name: String,
    pub hook: String,
    #[serde(flatten)]
    pub state: State,
    /// All of the verifier's log, where it refused the program.
    #[serde(skip)]
    pub log: Option<String>,
}

impl ProgramReport {
    pub fn is_attached(&self) -> bool {
        self.state == State::Attached
    }
}

#[derive(Debug)]
struct Slot {
    name: String,
    hook: Hook,
    state: State,
    log: Option<String>,
    loaded: bool,
    held: Attached,
}

/// Programs, maps and attachments of one running gadget.
pub struct Loaded {
    image: String,
    ebpf: Ebpf,
    /// What aya looks targets up in: the few kernel types it needs, at the ids they have.
    targets: aya::Btf,
    slots: Vec<Slot>,
    maps: BTreeMap<String, (OwnedFd, MapInfo)>,
    alternatives: Vec<(String, Vec<Vec<String>>)>,
    /// By program: the map that its iterator walks.
    walks: BTreeMap<String, String>,
    cgroup: Option<OwnedFd>,
    perf: BTreeMap<String, PerfOptions>,
    defer_uprobes: bool,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded").field("image", &self.image).field("slots", &self.slots).finish_non_exhaustive()
    }
}

/// Creates the maps and loads the programs; nothing runs before `attach`. `image` is what messages call the gadget.
pub fn load(image: &str, object: &Object, kernel: &KernelBtf, options: LoadOptions<'_>) -> Result<Loaded, LoadError> {
    check_options(image, object, &options)?;
    let bytes = prepared(image, object, kernel, &options)?;
    let mut slots = plan(object, &options);
    if !slots.is_empty() && slots.iter().all(|s| s.state == State::Disabled) {
        return Err(LoadError::AllOff { image: image.into() });
    }
    let targets = find_targets(image, &mut slots, kernel)?;
    if sys::kernel_version_code() < 0x05_0b_00 {
        // kernels before 5.11 count maps against the limit on locked memory; what fails for it says so itself
        sys::lift_memlock();
    }
    let ebpf = create(image, object, &bytes, &options)?;
    drop(bytes);
    let walks = object.markers.iter().filter_map(|m| match m {
        Marker::MapElemTarget { program, map } => Some((program.clone(), map.clone())),
        _ => None,
    });
    let mut loaded = Loaded {
        image: image.into(),
        maps: map_fds(image, &ebpf)?,
        ebpf,
        targets,
        walks: walks.collect(),
        alternatives: by_preference(&options.alternatives, &slots, sys::kernel_version_code()),
        cgroup: cgroup_fd(image, &options)?,
        perf: options.perf.clone(),
        defer_uprobes: options.defer_uprobes,
        slots,
    };
    loaded.check_injected(object, &options)?;
    loaded.load_programs()?;
    sys::trim_heap();
    Ok(loaded)
}

/// The alternatives in the order in which they are tried: the gadget's own, but from Linux 7.0 on sets of plain tracepoints
/// come first. There a program on a raw tracepoint or tp_btf can be preempted, and until it goes on the kernel skips
/// it on that CPU, for whole time slices of other processes; one on a plain tracepoint keeps its CPU.
fn by_preference(
    alternatives: &[(String, Vec<Vec<String>>)],
    slots: &[Slot],
    kernel: u32,
) -> Vec<(String, Vec<Vec<String>>)> {
    let mut all = alternatives.to_vec();
    if kernel >= 0x07_00_00 {
        let plain = |p: &String| slots.iter().any(|s| s.name == *p && matches!(s.hook, Hook::Tracepoint { .. }));
        all.iter_mut().for_each(|(_, sets)| sets.sort_by_key(|set| !set.iter().all(plain)));
    }
    all
}

fn cgroup_fd(image: &str, o: &LoadOptions<'_>) -> Result<Option<OwnedFd>, LoadError> {
    let cloned = o.cgroup.map(|c| c.try_clone_to_owned()).transpose();
    cloned.map_err(|source| LoadError::Inject { image: image.into(), source })
}

fn check_options(image: &str, object: &Object, o: &LoadOptions<'_>) -> Result<(), LoadError> {
    let image = || image.to_owned();
    if !o.ring_bytes.is_power_of_two() || (o.ring_bytes as usize) < sys::page_size() {
        return Err(LoadError::RingSize { image: image(), bytes: o.ring_bytes });
    }
    let programs = o.attach_to.keys().chain(o.alternatives.iter().flat_map(|(_, sets)| sets.iter().flatten()));
    for p in programs {
        if object.program(p).is_none() {
            return Err(LoadError::NoProgram { image: image(), program: p.clone() });
        }
    }
    for (program, target) in &o.attach_to {
        if target.contains('\0') || target.is_empty() {
            return Err(LoadError::BadTarget { image: image(), program: program.clone(), target: target.clone() });
        }
    }
    for m in o.max_entries.keys().chain(o.inject.keys()) {
        if object.map(m).is_none() {
            return Err(LoadError::NoMap { image: image(), map: m.clone() });
        }
    }
    Ok(())
}

/// The bytes that aya is given. The kernel's types are read only if some relocation needs them.
fn prepared(image: &str, object: &Object, kernel: &KernelBtf, o: &LoadOptions<'_>) -> Result<Vec<u8>, LoadError> {
    let relocs = core_reloc::relocations(object).map_err(|source| LoadError::Core { image: image.into(), source })?;
    let prepare = |targets: &[&super::Btf]| {
        prepare::prepare(object, &o.params, &relocs, targets)
            .map_err(|source| LoadError::Prepare { image: image.into(), source })
    };
    if !core_reloc::needs_target(&relocs) {
        return prepare(&[]);
    }
    let target = kernel.get().map_err(|source| LoadError::KernelBtf { image: image.into(), source })?;
    match o.host_types {
        Some(own) => prepare(&[target, own]),
        None => prepare(&[target]),
    }
}

fn plan(object: &Object, o: &LoadOptions<'_>) -> Vec<Slot> {
    let slot = |p: &super::object::Program| {
        let target = o.attach_to.get(&p.name);
        let hook = target.filter(|t| *t != DISABLED).map_or_else(|| p.hook.clone(), |t| p.hook.retarget(t));
        let state = if target.is_some_and(|t| t == DISABLED) {
            State::Disabled
        } else {
            match attach::available(&hook) {
                Ok(()) => State::Loaded,
                Err(_) if o.cgroup.is_some() && matches!(hook, Hook::Cgroup { .. }) => State::Loaded,
                Err(e) => skipped(&e),
            }
        };
        Slot { name: p.name.clone(), hook, state, log: None, loaded: false, held: Attached::ByAya }
    };
    object.programs.iter().map(slot).collect()
}

/// The kernel type that a program of this hook is loaded for, if there is one, and what to say if the kernel lacks it.
fn target_of(hook: &Hook) -> Option<(String, Kind, String)> {
    Some(match hook {
        Hook::BtfTracepoint { name } => {
            (format!("btf_trace_{name}"), Kind::Typedef, format!("this kernel has no tracepoint {name}"))
        }
        Hook::Fentry { function, .. } => {
            (function.clone(), Kind::Func, format!("this kernel has no function {function}"))
        }
        Hook::Lsm { hook } => {
            (format!("bpf_lsm_{hook}"), Kind::Func, format!("this kernel has no security hook {hook}"))
        }
        Hook::Iter { target } => {
            (format!("bpf_iter_{target}"), Kind::Func, format!("this kernel has no iterator {target}"))
        }
        _ => return None,
    })
}

/// Why a program of this hook would be skipped on this machine, as far as that can be told without loading it. Whether
/// the kernel's tracepoints can be listed depends on privileges; where they cannot, nothing is said.
pub fn missing_here(hook: &Hook, kernel: &KernelBtf) -> Option<String> {
    if let Err(e) = attach::available(hook)
        && !matches!(e, AttachError::NoTracefs)
    {
        return Some(e.to_string());
    }
    let (name, kind, missing) = target_of(hook)?;
    match kernel.get() {
        Ok(btf) => btf.find(&name, kind).is_none().then_some(missing),
        Err(e) => Some(e.to_string()),
    }
}

/// Finds the kernel's types that programs are loaded for. aya wants them in a `Btf`: one that has fillers everywhere else
/// costs a millisecond, where parsing the kernel's would cost tens of megabytes.
fn find_targets(image: &str, slots: &mut [Slot], kernel: &KernelBtf) -> Result<aya::Btf, LoadError> {
    let mut wanted: BTreeMap<u32, (String, Kind)> = BTreeMap::new();
    for slot in slots.iter_mut().filter(|s| s.state == State::Loaded) {
        let Some((name, kind, missing)) = target_of(&slot.hook) else { continue };
        let btf = kernel.get().map_err(|source| LoadError::KernelBtf { image: image.into(), source })?;
        match btf.find(&name, kind) {
            Some(t) => {
                wanted.insert(t.id, (name, kind));
            }
            None => slot.state = State::Skipped { reason: missing, hint: None },
        }
    }
    let bytes = sparse_btf(&wanted);
    aya::Btf::parse(&bytes, aya::Endianness::Little)
        .map_err(|e| LoadError::Create { image: image.into(), source: Box::new(EbpfError::BtfError(e)) })
}

/// BTF with the given types at their ids, and pointers to nothing at all ids before and between.
fn sparse_btf(wanted: &BTreeMap<u32, (String, Kind)>) -> Vec<u8> {
    let mut types: Vec<u8> = Vec::new();
    let mut strings = vec![0u8];
    let mut add = |name: u32, kind: Kind| {
        for word in [name, (kind as u32) << 24, 0] {
            types.extend_from_slice(&word.to_le_bytes());
        }
    };
    let mut next = 1;
    for (id, (name, kind)) in wanted {
        for _ in next..*id {
            add(0, Kind::Ptr);
        }
        add(strings.len() as u32, *kind);
        strings.extend_from_slice(name.as_bytes());
        strings.push(0);
        next = id + 1;
    }
    let (types_len, strings_len) = (types.len() as u32, strings.len() as u32);
    let mut out = vec![0x9f, 0xeb, 1, 0];
    for word in [24, 0, types_len, types_len, strings_len] {
        out.extend_from_slice(&u32::to_le_bytes(word));
    }
    out.extend(types);
    out.extend(strings);
    out
}

/// Sizes that the host decides: rings, per-CPU arrays of events, and what `<map>_max_entries` and the options say.
fn sizes(object: &Object, o: &LoadOptions<'_>) -> BTreeMap<String, u32> {
    let events: BTreeSet<&String> = object
        .markers
        .iter()
        .filter_map(|m| match m {
            Marker::Tracer { map, .. } | Marker::MapTracer { map } => Some(map),
            _ => None,
        })
        .collect();
    let mut out = BTreeMap::new();
    for m in &object.maps {
        let var = format!("{}_max_entries", m.name);
        let given = o.params.iter().find(|(n, _)| *n == var).map(|(_, b)| b.as_slice());
        let by_var = given.or_else(|| object.var(&var).map(|v| v.default.as_slice()));
        let by_var = by_var.and_then(|b| b.try_into().ok()).map(u32::from_le_bytes);
        let ring = m.kind == MAP_RINGBUF && (events.contains(&m.name) || m.max_entries == 0);
        let size = o.max_entries.get(&m.name).copied().or(by_var).or(ring.then_some(o.ring_bytes));
        if let Some(size) = size {
            out.insert(m.name.clone(), size);
        }
    }
    out
}

fn create(image: &str, object: &Object, bytes: &[u8], o: &LoadOptions<'_>) -> Result<Ebpf, LoadError> {
    let sizes = sizes(object, o);
    // aya's constructor reads and parses all of the kernel's types, before it can be told (`btf(None)`) that they are not
    // wanted: 14 ms and 25 MiB. Where it cannot find them it goes on without.
    let mut loader = sys::without_sysfs(EbpfLoader::new);
    loader.btf(None).allow_unsupported_maps();
    for (name, size) in &sizes {
        loader.map_max_entries(name, *size);
    }
    // pins live in a file system that only this function can see, and that ends with it
    let private = if o.inject.is_empty() && !object.maps.iter().any(|m| m.pin_by_name) {
        None
    } else {
        let inject = |source| LoadError::Inject { image: image.into(), source };
        let fs = sys::private_bpffs().map_err(inject)?;
        let dir = PathBuf::from(format!("/proc/self/fd/{}", fs.as_raw_fd()));
        loader.default_map_pin_directory(&dir);
        for (name, fd) in &o.inject {
            let path = dir.join(name);
            sys::obj_pin(*fd, &path).map_err(inject)?;
            loader.map_pin_path(name, path);
        }
        Some(fs)
    };
    let loaded = loader.load(bytes);
    drop(private);
    loaded.map_err(|e| match attach::io_error(&e).and_then(io::Error::raw_os_error) {
        Some(libc::EPERM) => {
            LoadError::NotPermitted { image: image.into(), source: io::Error::from_raw_os_error(libc::EPERM) }
        }
        _ => LoadError::Create { image: image.into(), source: Box::new(e) },
    })
}

fn map_fds(image: &str, ebpf: &Ebpf) -> Result<BTreeMap<String, (OwnedFd, MapInfo)>, LoadError> {
    let mut out = BTreeMap::new();
    for (name, map) in ebpf.maps() {
        let failed = |source| LoadError::Map { image: image.into(), map: name.into(), source };
        let fd = map_data(map).fd().as_fd().try_clone_to_owned().map_err(failed)?;
        let info = maps::info(fd.as_fd()).map_err(failed)?;
        out.insert(name.to_owned(), (fd, info));
    }
    Ok(out)
}

/// aya's map types all hold the same thing.
fn map_data(map: &aya::maps::Map) -> &aya::maps::MapData {
    use aya::maps::Map as M;
    match map {
        M::Array(d)
        | M::ArrayOfMaps(d)
        | M::BloomFilter(d)
        | M::CgroupArray(d)
        | M::CgroupStorage(d)
        | M::CgrpStorage(d)
        | M::CpuMap(d)
        | M::DevMap(d)
        | M::DevMapHash(d)
        | M::HashMap(d)
        | M::HashOfMaps(d)
        | M::InodeStorage(d)
        | M::LpmTrie(d)
        | M::LruHashMap(d)
        | M::PerCpuArray(d)
        | M::PerCpuCgroupStorage(d)
        | M::PerCpuHashMap(d)
        | M::PerCpuLruHashMap(d)
        | M::PerfEventArray(d)
        | M::ProgramArray(d)
        | M::Queue(d)
        | M::ReusePortSockArray(d)
        | M::RingBuf(d)
        | M::SockHash(d)
        | M::SockMap(d)
        | M::SkStorage(d)
        | M::Stack(d)
        | M::StackTraceMap(d)
        | M::Unsupported(d)
        | M::XskMap(d) => d,
    }
}

fn skipped(e: &AttachError) -> State {
    State::Skipped { reason: with_causes(e), hint: e.hint() }
}

fn with_causes(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut next = e.source();
    while let Some(s) = next {
        text.push_str(": ");
        text.push_str(&s.to_string());
        next = s.source();
    }
    text
}

impl Loaded {
    pub fn image(&self) -> &str {
        &self.image
    }

    /// What became of each program, in the object's order.
    pub fn reports(&self) -> Vec<ProgramReport> {
        self.slots.iter().map(Slot::report).collect()
    }

    pub fn map_fd(&self, name: &str) -> Option<BorrowedFd<'_>> {
        self.maps.get(name).map(|(fd, _)| fd.as_fd())
    }

    pub fn map_info(&self, name: &str) -> Option<&MapInfo> {
        self.maps.get(name).map(|(_, i)| i)
    }

    /// Names of all maps, data sections included.
    pub fn map_names(&self) -> impl Iterator<Item = &str> {
        self.maps.keys().map(String::as_str)
    }

    /// The descriptor of a loaded program.
    pub fn program_fd(&self, name: &str) -> Option<BorrowedFd<'_>> {
        self.ebpf.program(name)?.fd().ok().map(AsFd::as_fd)
    }

    /// Events for which the kernel did not run a program, because the program was at work on that CPU already. They are
    /// in no buffer and no counter of the gadget. A kernel that does not tell counts as none.
    pub fn missed_runs(&self) -> u64 {
        let missed = |s: &Slot| self.program_fd(&s.name).and_then(|fd| maps::missed_runs(fd).ok()).unwrap_or(0);
        let running = |s: &&Slot| matches!(s.state, State::Attached | State::PerFile);
        self.slots.iter().filter(running).map(missed).sum()
    }

    /// Programs that the caller is to attach, with their hooks.
    pub fn uprobes(&self) -> impl Iterator<Item = (&str, &Hook)> {
        self.slots.iter().filter(|s| s.state == State::PerFile).map(|s| (s.name.as_str(), &s.hook))
    }

    /// The link of an attached iterator, for `iter::read`.
    pub fn iterator(&self, name: &str) -> Option<BorrowedFd<'_>> {
        match &self.slots.iter().find(|s| s.name == name)?.held {
            Attached::Iterator(link) => Some(link.as_fd()),
            _ => None,
        }
    }

    /// Attached socket filters, which run nowhere before they are opened in network namespaces.
    pub(crate) fn socket_programs(&self) -> Vec<Arc<SocketProgram>> {
        let socket = |s: &Slot| match &s.held {
            Attached::Socket(p) => Some(p.clone()),
            _ => None,
        };
        self.slots.iter().filter_map(socket).collect()
    }

    fn index(&self, name: &str) -> Option<usize> {
        self.slots.iter().position(|s| s.name == name)
    }

    /// Makes sure that the injected maps are what the programs use: a pin that could not be opened would silently have
    /// given them a map of their own.
    fn check_injected(&self, object: &Object, o: &LoadOptions<'_>) -> Result<(), LoadError> {
        let shape = |kind, key, value| format!("{} of {key}-byte keys and {value}-byte values", map_kind_name(kind));
        for (name, fd) in &o.inject {
            let failed = |source| LoadError::Map { image: self.image.clone(), map: name.clone(), source };
            let theirs = maps::info(*fd).map_err(failed)?;
            let (Some(ours), Some(def)) = (self.map_info(name), object.map(name)) else { continue };
            if ours.id != theirs.id || (theirs.kind, theirs.key_size) != (def.kind, def.key_size) {
                return Err(LoadError::InjectShape {
                    image: self.image.clone(),
                    map: name.clone(),
                    found: shape(theirs.kind, theirs.key_size, theirs.value_size),
                    wanted: shape(def.kind, def.key_size, def.value_size),
                });
            }
        }
        Ok(())
    }

    /// Loads every program outside alternatives, and of each job the first set that loads as a whole.
    fn load_programs(&mut self) -> Result<(), LoadError> {
        let in_sets: BTreeSet<String> =
            self.alternatives.iter().flat_map(|(_, sets)| sets.iter().flatten().cloned()).collect();
        let mut refused = None;
        for i in 0..self.slots.len() {
            if !in_sets.contains(&self.slots[i].name)
                && let Err(e) = self.load_one(i)
            {
                refused.get_or_insert(e);
            }
        }
        for (job, sets) in self.alternatives.clone() {
            if !self.load_first(&sets, 0).0 {
                return Err(self.no_alternative(&job, &sets));
            }
        }
        // a gadget whose programs are all refused shows the verifier's words, not a list
        match refused {
            Some(e) if self.slots.iter().all(|s| s.state != State::Loaded) => Err(e),
            _ => Ok(()),
        }
    }

    /// Loads the first set from `from` on that loads as a whole; whether there was one, and which.
    fn load_first(&mut self, sets: &[Vec<String>], from: usize) -> (bool, usize) {
        for (n, set) in sets.iter().enumerate().skip(from) {
            let indices: Vec<usize> = set.iter().filter_map(|p| self.index(p)).collect();
            let ok = indices.iter().all(|i| self.load_one(*i).is_ok() && self.slots[*i].state == State::Loaded);
            if ok {
                for later in sets.iter().skip(n + 1).flatten() {
                    if let Some(i) =
                        self.index(later).filter(|i| !indices.contains(i) && self.slots[*i].state == State::Loaded)
                    {
                        self.slots[i].state = State::NotNeeded;
                    }
                }
                return (true, n);
            }
            self.unload(&indices);
        }
        (false, sets.len())
    }

    /// Gives up a set of which one program did not work.
    fn unload(&mut self, indices: &[usize]) {
        for i in indices {
            let s = &mut self.slots[*i];
            s.held = Attached::ByAya;
            if std::mem::take(&mut s.loaded)
                && let Some(p) = self.ebpf.program_mut(&s.name)
            {
                attach::unload(p);
            }
            if matches!(s.state, State::Loaded | State::Attached) {
                s.state = State::NotNeeded;
            }
        }
    }

    /// Detaches and unloads every program; maps stay, so that what is in them can still be read.
    pub fn detach(&mut self) {
        for s in &mut self.slots {
            s.held = Attached::ByAya;
            if std::mem::take(&mut s.loaded)
                && let Some(p) = self.ebpf.program_mut(&s.name)
            {
                attach::unload(p);
            }
        }
    }

    fn no_alternative(&self, job: &str, sets: &[Vec<String>]) -> LoadError {
        let all: Vec<ProgramReport> =
            sets.iter().flatten().filter_map(|p| self.index(p)).map(|i| self.slots[i].report()).collect();
        LoadError::NoAlternative { image: self.image.clone(), job: job.into(), reports: all }
    }

    /// Loads one program; a refusal is noted in its state and given back too.
    fn load_one(&mut self, i: usize) -> Result<(), LoadError> {
        let slot = &mut self.slots[i];
        if slot.state == State::NotNeeded {
            slot.state = State::Loaded;
        }
        if slot.state != State::Loaded || slot.loaded {
            return Ok(());
        }
        let Some(program) = self.ebpf.program_mut(&slot.name) else {
            slot.state = State::Skipped { reason: "it is not in the object".into(), hint: None };
            return Ok(());
        };
        let error = match attach::load(&slot.hook, program, &self.targets) {
            Ok(()) => {
                slot.loaded = true;
                return Ok(());
            }
            Err(e) => e,
        };
        let (source, log) = match error {
            ProgramError::LoadError { io_error, verifier_log } => (io_error, verifier_log.to_string()),
            other => (io::Error::other(other), String::new()),
        };
        slot.state = State::Skipped { reason: format!("the kernel refused it: {source}{}", tail(&log)), hint: None };
        slot.log = Some(log.clone());
        Err(LoadError::Verifier {
            image: self.image.clone(),
            program: slot.name.clone(),
            hook: slot.hook.to_string(),
            log,
            source,
        })
    }

    fn attach_one(&mut self, i: usize) -> bool {
        let slot = &mut self.slots[i];
        if slot.state == State::Attached {
            return true;
        }
        let Some(program) = self.ebpf.program_mut(&slot.name).filter(|_| slot.loaded) else { return false };
        let map = self.walks.get(&slot.name).and_then(|m| self.maps.get(m)).map(|(fd, _)| fd.as_fd());
        let cgroup = self.cgroup.as_ref().map(AsFd::as_fd);
        let perf = self.perf.get(&slot.name).copied().unwrap_or_default();
        match attach::attach(&slot.hook, program, map, cgroup, perf) {
            Ok(held) => {
                slot.held = held;
                slot.state = State::Attached;
                true
            }
            Err(e) => {
                slot.state = skipped(&e);
                slot.loaded = false;
                attach::unload(program);
                false
            }
        }
    }

    /// Programs of ways that come after the one in use: whether this kernel could take them does not matter.
    fn nobody_misses(&mut self, later: &[Vec<String>], used: &[usize]) {
        for i in later.iter().flatten().filter_map(|p| self.index(p)).collect::<Vec<_>>() {
            if !used.contains(&i) && matches!(self.slots[i].state, State::Skipped { .. }) {
                self.slots[i].state = State::NotNeeded;
            }
        }
    }

    /// Starts everything that was loaded. An error when nothing could be started, or no way to do some job works.
    pub fn attach(&mut self) -> Result<(), LoadError> {
        let alternatives = std::mem::take(&mut self.alternatives);
        let in_sets: BTreeSet<&String> = alternatives.iter().flat_map(|(_, s)| s.iter().flatten()).collect();
        for i in 0..self.slots.len() {
            if self.slots[i].state == State::Loaded && !in_sets.contains(&self.slots[i].name) {
                match self.slots[i].hook {
                    Hook::Uprobe { .. } if self.defer_uprobes && self.slots[i].loaded => {
                        self.slots[i].state = State::PerFile;
                    }
                    _ => {
                        self.attach_one(i);
                    }
                }
            }
        }
        for (job, sets) in &alternatives {
            let mut from = 0;
            loop {
                let (found, n) = self.load_first(sets, from);
                if !found {
                    return Err(self.no_alternative(job, sets));
                }
                let set: Vec<usize> = sets[n].iter().filter_map(|p| self.index(p)).collect();
                if set.iter().all(|i| self.attach_one(*i)) {
                    self.nobody_misses(&sets[n + 1..], &set);
                    break;
                }
                self.unload(&set);
                from = n + 1;
            }
        }
        if self.slots.iter().any(|s| matches!(s.state, State::Attached | State::PerFile)) {
            return Ok(());
        }
        Err(LoadError::NothingStarted { image: self.image.clone(), reports: self.reports() })
    }
}

impl Slot {
    fn report(&self) -> ProgramReport {
        ProgramReport {
            name: self.name.clone(),
            hook: self.hook.to_string(),
            state: self.state.clone(),
            log: self.log.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_tracepoints_come_first_from_7_0_on() {
        let slot = |name: &str, hook: Hook| Slot {
            name: name.into(),
            hook,
            state: State::Loaded,
            log: None,
            loaded: false,
            held: Attached::ByAya,
        };
        let plain = || Hook::Tracepoint { category: "syscalls".into(), name: "sys_exit_open".into() };
        let slots = [
            slot("btf", Hook::BtfTracepoint { name: "sys_exit".into() }),
            slot("raw", Hook::RawTracepoint { name: "sys_exit".into() }),
            slot("one", plain()),
            slot("two", plain()),
        ];
        let sets = |sets: &[&[&str]]| -> Vec<(String, Vec<Vec<String>>)> {
            vec![("job".into(), sets.iter().map(|s| s.iter().map(|p| (*p).to_owned()).collect()).collect())]
        };
        let given = sets(&[&["btf"], &["raw", "one"], &["one", "two"], &["two"]]);
        assert_eq!(by_preference(&given, &slots, 0x06_13_00), given);
        let preferred = sets(&[&["one", "two"], &["two"], &["btf"], &["raw", "one"]]);
        assert_eq!(by_preference(&given, &slots, 0x07_00_00), preferred);
    }
}
