//! From an object to running programs, through aya: preparing, loading one by one, attaching, and the report of what could
//! not be.
//!
//! Two steps, because between them the owner hands maps to others: `load` creates everything, `Loaded::attach` starts it.
//! Everything is held by descriptors: dropping `Loaded`, or the end of the process in any way, detaches and frees it all.

use super::{
    attach::{self, AttachError, Attached, PerfOptions},
    btf::{KernelBtf, Kind},
    core_reloc,
    hook::Hook,
    label::Label,
    loaded::{Loaded, Slot, by_preference},
    maps::{self, MapInfo},
    marker::Marker,
    object::{MAP_RINGBUF, Object},
    prepare,
    report::{LoadError, State, skipped},
    sys,
};
use aya::{Ebpf, EbpfError, EbpfLoader};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::PathBuf,
};

/// The value of `attach_to` that switches a program off.
pub const DISABLED: &str = "gadget_program_disabled";
/// Bytes of a ring buffer, unless the user asks for another size.
pub const DEFAULT_RING_BYTES: u32 = 4 << 20;

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

/// Creates the maps and loads the programs; nothing runs before `attach`. `image` is what messages call the gadget.
pub fn load(image: &str, object: &Object, kernel: &KernelBtf, options: LoadOptions<'_>) -> Result<Loaded, LoadError> {
    check_options(image, object, &options)?;
    let bytes = prepared(image, object, kernel, &options)?;
    let mut slots = plan(object, &options);
    if !slots.is_empty() && slots.iter().all(|s| s.state == State::Disabled) {
        return Err(LoadError::AllOff { image: image.into(), flag: None });
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
        label: Label::new(&object.name, image).ok(),
        slots,
    };
    loaded.check_injected(object, &options)?;
    loaded.load_programs()?;
    sys::trim_heap();
    Ok(loaded)
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
