//! System calls: bpf(2), mmap(2), epoll(7), and in `sys/perf_event.rs` perf_event_open(2). All unsafe code of loading lives here.
//!
//! Everything else in this folder calls these safe functions, except `maps.rs` and `ring.rs`, which have their own.

use std::{
    ffi::{CString, c_int},
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    sync::atomic::{AtomicU64, Ordering},
};

mod perf_event;

pub(super) use perf_event::{
    PERF_WATERMARK, PERF_WRITE_BACKWARD, PerfAttr, perf_enable, perf_event_open, perf_lost, perf_pause, perf_set_bpf,
};
pub(crate) use perf_event::{pmu_type, uprobe};

/// Commands of bpf(2).
#[derive(Clone, Copy)]
#[repr(i32)]
pub(super) enum Cmd {
    MapCreate = 0,
    MapLookup = 1,
    MapUpdate = 2,
    MapDelete = 3,
    MapGetNextKey = 4,
    ProgLoad = 5,
    ObjPin = 6,
    ProgGetNextId = 11,
    ProgGetFdById = 13,
    MapGetFdById = 14,
    ObjGetInfoByFd = 15,
    RawTracepointOpen = 17,
    MapLookupAndDeleteBatch = 25,
    LinkCreate = 28,
    EnableStats = 32,
    IterCreate = 33,
    ProgBindMap = 35,
}

/// Calls bpf(2) with an attribute struct.
///
/// # Safety
/// `T` must be laid out as the kernel's `union bpf_attr` for `cmd`, and every pointer in it must be valid for what the
/// command reads and writes there.
pub(super) unsafe fn bpf<T>(cmd: Cmd, attr: &mut T) -> io::Result<c_int> {
    // SAFETY: the kernel reads and writes at most `size_of::<T>()` bytes at `attr`; the rest is the caller's promise
    let r = unsafe { libc::syscall(libc::SYS_bpf, cmd as c_int, std::ptr::from_mut(attr), size_of::<T>()) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(r as c_int) }
}

fn owned(fd: c_int) -> OwnedFd {
    // SAFETY: only called with a descriptor that the kernel has just made for us
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn raw(fd: Option<BorrowedFd<'_>>) -> u32 {
    fd.map_or(0, |f| f.as_raw_fd() as u32)
}

/// `LINUX_VERSION_CODE` of the running kernel; 0 when it cannot be told. Debian's uname(2) release says 6.1.0 where the
/// code is of 6.1.y, and its version string has the full number.
pub(crate) fn kernel_version_code() -> u32 {
    // SAFETY: utsname is plain bytes, and uname fills it in
    let mut u: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: `u` is valid for writes
    if unsafe { libc::uname(&mut u) } != 0 {
        return 0;
    }
    let text = |c: &[libc::c_char]| -> String { c.iter().take_while(|b| **b != 0).map(|b| *b as u8 as char).collect() };
    let (release, version) = (text(&u.release), text(&u.version));
    let debian = version.split_once("Debian ").map(|(_, v)| v.to_owned());
    version_code(debian.as_deref().unwrap_or(&release))
}

fn version_code(text: &str) -> u32 {
    let mut parts = text.split(|c: char| !c.is_ascii_digit()).map(|p| p.parse::<u32>().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    let (a, b, c) = (next(), next(), next());
    (a << 16) + (b << 8) + c.min(255)
}

#[repr(C)]
#[derive(Default)]
struct LinkCreateAttr {
    prog_fd: u32,
    target_fd: u32,
    attach_type: u32,
    flags: u32,
    iter_info: u64,
    iter_info_len: u32,
    pad: u32,
}

const ATTACH_TRACE_ITER: u32 = 28;

/// A link of an iterator; `map` for those that walk a map.
pub(super) fn link_iter(prog: BorrowedFd<'_>, map: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    // union bpf_iter_link_info: its first member is the map's fd, its size 16 bytes
    let info: [u32; 4] = [raw(map), 0, 0, 0];
    let mut attr = LinkCreateAttr {
        prog_fd: prog.as_raw_fd() as u32,
        attach_type: ATTACH_TRACE_ITER,
        ..LinkCreateAttr::default()
    };
    if map.is_some() {
        attr.iter_info = info.as_ptr() as u64;
        // the first kernels with map iterators know four bytes of it only, and refuse unknown bytes only if not zero
        attr.iter_info_len = size_of_val(&info) as u32;
    }
    // SAFETY: `info` lives through the call and has the length that is given
    unsafe { bpf(Cmd::LinkCreate, &mut attr) }.map(owned)
}

/// A readable descriptor of one run of an iterator.
pub(super) fn iter_create(link: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let mut attr: [u32; 2] = [link.as_raw_fd() as u32, 0];
    // SAFETY: no pointers
    unsafe { bpf(Cmd::IterCreate, &mut attr) }.map(owned)
}

/// A link of a traffic control program to a network interface (tcx). Linux 6.6.
pub(super) fn link_tcx(prog: BorrowedFd<'_>, interface: u32) -> io::Result<OwnedFd> {
    const ATTACH_TCX_INGRESS: u32 = 46;
    let mut attr = LinkCreateAttr {
        prog_fd: prog.as_raw_fd() as u32,
        target_fd: interface,
        attach_type: ATTACH_TCX_INGRESS,
        ..LinkCreateAttr::default()
    };
    // SAFETY: no pointers
    unsafe { bpf(Cmd::LinkCreate, &mut attr) }.map(owned)
}

#[repr(C)]
#[derive(Default)]
struct MapCreateAttr {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

pub(super) fn map_create(kind: u32, key_size: u32, value_size: u32, max_entries: u32) -> io::Result<OwnedFd> {
    map_create_with(kind, key_size, value_size, max_entries, 0)
}

pub(crate) fn map_create_with(
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
) -> io::Result<OwnedFd> {
    let mut attr = MapCreateAttr { map_type: kind, key_size, value_size, max_entries, flags };
    // SAFETY: no pointers
    unsafe { bpf(Cmd::MapCreate, &mut attr) }.map(owned)
}

/// A map whose name others can see; at most 15 bytes of it. Linux 4.15.
pub(super) fn map_create_named(
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    name: &str,
) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        map: MapCreateAttr,
        inner_map_fd: u32,
        numa_node: u32,
        name: [u8; 16],
    }
    let map = MapCreateAttr { map_type: kind, key_size, value_size, max_entries, flags: 0 };
    let mut attr = Attr { map, inner_map_fd: 0, numa_node: 0, name: [0; 16] };
    let shown = name.len().min(15);
    attr.name[..shown].copy_from_slice(&name.as_bytes()[..shown]);
    // SAFETY: no pointers
    unsafe { bpf(Cmd::MapCreate, &mut attr) }.map(owned)
}

/// Has a program keep a map that it does not use. Linux 5.10.
pub(super) fn bind_map(program: BorrowedFd<'_>, map: BorrowedFd<'_>) -> io::Result<()> {
    let mut attr = [program.as_raw_fd(), map.as_raw_fd(), 0];
    // SAFETY: no pointers
    unsafe { bpf(Cmd::ProgBindMap, &mut attr) }.map(drop)
}

/// The part of the attribute of BPF_PROG_LOAD up to the kernel type that a program is for.
#[repr(C)]
#[derive(Default)]
struct ProgLoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_cnt: u32,
    attach_btf_id: u32,
}

/// Loads a program of a few instructions, without the verifier's log.
pub(super) fn prog_load(kind: u32, attach_type: u32, btf_id: u32, insns: &[u64]) -> io::Result<OwnedFd> {
    let mut attr = ProgLoadAttr {
        prog_type: kind,
        insn_cnt: insns.len() as u32,
        insns: insns.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        expected_attach_type: attach_type,
        attach_btf_id: btf_id,
        ..ProgLoadAttr::default()
    };
    // SAFETY: instructions and licence live through the call, and the kernel reads as many of them as are there
    unsafe { bpf(Cmd::ProgLoad, &mut attr) }.map(owned)
}

/// Attaches a raw tracepoint program by the tracepoint's name; without one a program that was loaded for its target.
pub(super) fn raw_tracepoint_open(name: Option<&std::ffi::CStr>, prog: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attr {
        name: u64,
        prog_fd: u32,
        pad: u32,
    }
    let name = name.map_or(0, |n| n.as_ptr() as u64);
    let mut attr = Attr { name, prog_fd: prog.as_raw_fd() as u32, pad: 0 };
    // SAFETY: the name is a C string that lives through the call, or null
    unsafe { bpf(Cmd::RawTracepointOpen, &mut attr) }.map(owned)
}

/// Has the kernel count the runs and the time of all programs while the descriptor is open.
pub(super) fn enable_run_stats() -> io::Result<OwnedFd> {
    const STATS_RUN_TIME: u32 = 0;
    let mut attr = [STATS_RUN_TIME];
    // SAFETY: no pointers
    unsafe { bpf(Cmd::EnableStats, &mut attr) }.map(owned)
}

/// The number of the program after `id`; `None` after the last.
pub(super) fn next_program(id: u32) -> io::Result<Option<u32>> {
    let mut attr = [id, 0, 0];
    // SAFETY: no pointers; the kernel writes the second word
    match unsafe { bpf(Cmd::ProgGetNextId, &mut attr) } {
        Ok(_) => Ok(Some(attr[1])),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

pub(super) fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    let mut attr = [id, 0, 0];
    // SAFETY: no pointers
    unsafe { bpf(Cmd::ProgGetFdById, &mut attr) }.map(owned)
}

pub(super) fn map_by_id(id: u32) -> io::Result<OwnedFd> {
    let mut attr = [id, 0, 0];
    // SAFETY: no pointers
    unsafe { bpf(Cmd::MapGetFdById, &mut attr) }.map(owned)
}

/// The start of `struct bpf_prog_info` up to `run_cnt`, in words; the numbers of the program's maps go into `maps`, as
/// many as fit.
pub(super) fn program_info(program: &OwnedFd, maps: &mut [u32]) -> io::Result<[u64; 26]> {
    #[repr(C)]
    struct Attr {
        fd: u32,
        len: u32,
        info: u64,
    }
    let mut raw = [0u64; 26];
    // nr_map_ids and map_ids: how many there is room for, and where.
    raw[6] = (maps.len() as u64) << 32;
    raw[7] = maps.as_mut_ptr() as u64;
    let info = std::ptr::from_mut(&mut raw) as u64;
    let mut attr = Attr { fd: program.as_raw_fd() as u32, len: size_of_val(&raw) as u32, info };
    // SAFETY: `info` is valid for writes of `len` bytes; the only length and pointer in it are those of `maps`
    unsafe { bpf(Cmd::ObjGetInfoByFd, &mut attr) }?;
    Ok(raw)
}

/// Has a program filter what a socket receives.
pub(super) fn socket_attach_bpf(socket: BorrowedFd<'_>, prog: BorrowedFd<'_>) -> io::Result<()> {
    let prog = prog.as_raw_fd();
    // SAFETY: the option's value is one int, valid for reads
    let r = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_BPF,
            std::ptr::from_ref(&prog).cast(),
            size_of::<c_int>() as libc::socklen_t,
        )
    };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Has this thread, and no other, use that network namespace from now on.
pub(crate) fn enter_network(namespace: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes plain numbers; changes which network this thread's system calls mean, and no memory
    let r = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A packet socket in this thread's network namespace that receives nothing yet.
pub(super) fn packet_socket() -> io::Result<OwnedFd> {
    // SAFETY: takes plain numbers
    let r = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(owned(r)) }
}

/// Has a packet socket receive every packet of its network namespace, in both directions, on every interface.
pub(super) fn receive_all_packets(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: sockaddr_ll is plain numbers, for which zero is valid
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    let len = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the address lives through the call and has the length that is given
    let r = unsafe { libc::bind(socket.as_raw_fd(), std::ptr::from_ref(&address).cast(), len) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Raises the number of descriptors this process may have to what it may be raised to.
pub(crate) fn raise_open_files() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for writes
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } == 0 && limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: `limit` is valid for reads; failing leaves the limit as it is, which opening then says
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
    }
}

/// A BPF file system of our own that is mounted nowhere: pins in it are reachable through the descriptor only, and gone
/// with it. Linux 5.2.
pub(super) fn private_bpffs() -> io::Result<OwnedFd> {
    const CLOEXEC: c_int = 1;
    const FSCONFIG_CMD_CREATE: c_int = 6;
    let null = std::ptr::null::<libc::c_char>();
    // SAFETY: the name is a C string
    let r = unsafe { libc::syscall(libc::SYS_fsopen, c"bpf".as_ptr(), CLOEXEC) };
    if r < 0 {
        return Err(io::Error::last_os_error());
    }
    let context = owned(r as c_int);
    // SAFETY: this command takes null pointers
    let r = unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, null, null, 0) };
    if r < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: takes plain numbers
    let r = unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), CLOEXEC, 0) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(owned(r as c_int)) }
}

#[repr(C)]
#[derive(Default)]
struct ObjPinAttr {
    pathname: u64,
    bpf_fd: u32,
    flags: u32,
}

pub(super) fn obj_pin(object: BorrowedFd<'_>, path: &std::path::Path) -> io::Result<()> {
    let path = c_string(&path.to_string_lossy())?;
    let mut attr =
        ObjPinAttr { pathname: path.as_ptr() as u64, bpf_fd: object.as_raw_fd() as u32, ..ObjPinAttr::default() };
    // SAFETY: `path` is a C string that lives through the call
    unsafe { bpf(Cmd::ObjPin, &mut attr) }.map(drop)
}

/// Runs `f` on a thread whose root directory is /dev, so that it finds nothing below /sys. The rest of the process keeps
/// its root. Where that is not permitted, `f` runs all the same and sees everything.
pub(super) fn without_sysfs<T: Send + 'static>(f: fn() -> T) -> T {
    let thread = std::thread::Builder::new().name("no-sysfs".into()).spawn(move || {
        // SAFETY: makes root and working directory this thread's own; takes a plain number
        if unsafe { libc::unshare(libc::CLONE_FS) } == 0 {
            // SAFETY: changes the root of this thread only; the path is a C string. Failing makes `f` slower, no more
            unsafe { libc::chroot(c"/dev".as_ptr()) };
        }
        f()
    });
    thread.ok().and_then(|t| t.join().ok()).unwrap_or_else(f)
}

/// Has this thread see cgroups as the processes of that namespace do; the rest of the process does not.
pub(crate) fn enter_cgroup_namespace(namespace: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes plain numbers; changes how this thread sees paths, and no memory
    let r = unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWCGROUP) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Asks the allocator to give back what loading needed for a moment.
pub(super) fn trim_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes a plain number; touches free memory only
    unsafe {
        libc::malloc_trim(0);
    }
}

/// The number that a file's file system was given when it was made, if it has one. Linux 6.9.
pub(crate) fn file_system_uuid(file: BorrowedFd<'_>) -> io::Result<[u8; 16]> {
    #[repr(C)]
    struct Uuid {
        len: u8,
        bytes: [u8; 16],
    }
    // _IOR(0x15, 0, struct fsuuid2)
    const FS_IOC_GETFSUUID: u64 = 2 << 30 | (size_of::<Uuid>() as u64) << 16 | 0x15 << 8;
    let mut uuid = Uuid { len: 0, bytes: [0; 16] };
    // SAFETY: the command writes a structure of the size in its number, for which `uuid` is valid
    let r = unsafe { libc::ioctl(file.as_raw_fd(), FS_IOC_GETFSUUID as _, std::ptr::from_mut(&mut uuid)) };
    match (r, uuid.len) {
        (0, 16) => Ok(uuid.bytes),
        (0, _) => Err(io::ErrorKind::Unsupported.into()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The kernel's handle of a file: its kind and content, also on file systems whose files cannot be opened by it. Linux 6.6.
pub(crate) fn file_handle(file: BorrowedFd<'_>) -> io::Result<(i32, Vec<u8>)> {
    const AT_HANDLE_FID: c_int = 0x200;
    const MAX_HANDLE: usize = 128;
    #[repr(C)]
    struct Handle {
        len: u32,
        kind: c_int,
        bytes: [u8; MAX_HANDLE],
    }
    let mut handle = Handle { len: MAX_HANDLE as u32, kind: 0, bytes: [0; MAX_HANDLE] };
    let mut mount: c_int = 0;
    // SAFETY: the handle says how many bytes it has room for, the empty path is a C string, and `mount` is valid for writes
    let r = unsafe {
        libc::syscall(
            libc::SYS_name_to_handle_at,
            file.as_raw_fd(),
            c"".as_ptr(),
            std::ptr::from_mut(&mut handle),
            std::ptr::from_mut(&mut mount),
            libc::AT_EMPTY_PATH | AT_HANDLE_FID,
        )
    };
    if r < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok((handle.kind, handle.bytes[..(handle.len as usize).min(MAX_HANDLE)].to_vec()))
}

/// Lifts the limit on locked memory, which kernels before 5.11 count maps against. True when it could.
pub(super) fn lift_memlock() -> bool {
    let l = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: `l` is valid for reads
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &l) == 0 }
}

/// Waits until every program that was running when this was called has returned: a grace period of the kernel.
pub(crate) fn wait_for_running_programs() -> io::Result<()> {
    const MEMBARRIER_CMD_GLOBAL: c_int = 1;
    // SAFETY: the call takes no pointers
    let r = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if r == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

pub(crate) fn page_size() -> usize {
    // SAFETY: a plain query
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.max(4096) as usize
}

/// CPUs that can exist (per-CPU maps have a value for each), from /sys/devices/system/cpu/possible.
pub(super) fn possible_cpus() -> io::Result<usize> {
    cpu_list("possible").map(|l| l.last().map_or(1, |c| *c as usize + 1))
}

/// CPUs that run now.
pub(crate) fn online_cpus() -> io::Result<Vec<u32>> {
    cpu_list("online")
}

fn cpu_list(which: &str) -> io::Result<Vec<u32>> {
    let text = std::fs::read_to_string(format!("/sys/devices/system/cpu/{which}"))?;
    parse_cpu_list(text.trim()).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a list of CPUs"))
}

fn parse_cpu_list(text: &str) -> Option<Vec<u32>> {
    let mut out = Vec::new();
    for part in text.split(',').filter(|p| !p.is_empty()) {
        let (a, b) = part.split_once('-').unwrap_or((part, part));
        let (a, b): (u32, u32) = (a.parse().ok()?, b.parse().ok()?);
        if b < a || b > 1 << 16 {
            return None;
        }
        out.extend(a..=b);
    }
    Some(out)
}

/// Memory shared with the kernel; unmapped when dropped.
pub(crate) struct Mapping {
    at: *mut u8,
    len: usize,
}

// SAFETY: the mapping is owned and not tied to a thread
unsafe impl Send for Mapping {}

impl Mapping {
    pub(crate) fn new(fd: BorrowedFd<'_>, len: usize, offset: usize, writable: bool) -> io::Result<Mapping> {
        let prot = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        // SAFETY: a new mapping at an address the kernel chooses cannot overlap anything of ours
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), len, prot, libc::MAP_SHARED, fd.as_raw_fd(), offset as libc::off_t)
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mapping = Mapping { at: at.cast(), len };
        // A child that does not end must not keep the kernel's buffer alive.
        // SAFETY: the range is the mapping's own, and this process keeps it as it is
        match unsafe { libc::madvise(at, len, libc::MADV_DONTFORK) } {
            0 => Ok(mapping),
            _ => Err(io::Error::last_os_error()),
        }
    }

    pub(crate) fn as_ptr(&self) -> *const u8 {
        self.at
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset + 8 <= self.len && offset.is_multiple_of(8), "a position outside the mapping");
        // SAFETY: in bounds and aligned (checked; mappings start at a page), and only accessed atomically
        unsafe { &*self.at.add(offset).cast::<AtomicU64>() }
    }

    pub(super) fn load(&self, offset: usize) -> u64 {
        self.word(offset).load(Ordering::Acquire)
    }

    /// The mapping must be writable, or this faults.
    pub(super) fn store(&self, offset: usize, value: u64) {
        self.word(offset).store(value, Ordering::Release);
    }

    /// Copies bytes out; the kernel must not be writing there.
    pub(super) fn copy(&self, offset: usize, out: &mut [u8]) {
        assert!(offset.checked_add(out.len()).is_some_and(|e| e <= self.len), "bytes outside the mapping");
        // SAFETY: in bounds (checked); `out` is memory of ours and cannot overlap
        unsafe { std::ptr::copy_nonoverlapping(self.at.add(offset), out.as_mut_ptr(), out.len()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` with this length, and nothing borrowed from it outlives it
        let r = unsafe { libc::munmap(self.at.cast(), self.len) };
        debug_assert_eq!(r, 0);
    }
}

pub(super) fn epoll_create() -> io::Result<OwnedFd> {
    // SAFETY: takes a plain number
    let r = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(owned(r)) }
}

pub(super) fn epoll_add(epoll: BorrowedFd<'_>, fd: BorrowedFd<'_>) -> io::Result<()> {
    let mut ev = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 0 };
    // SAFETY: `ev` is valid for reads
    let r = unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd.as_raw_fd(), &mut ev) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Returns when something is ready, after `timeout_ms` (-1: never), or with a signal.
pub(super) fn epoll_wait(epoll: BorrowedFd<'_>, timeout_ms: i32) -> io::Result<()> {
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    // SAFETY: `event` is valid for writes of one event
    let n = unsafe { libc::epoll_wait(epoll.as_raw_fd(), &mut event, 1, timeout_ms) };
    let e = io::Error::last_os_error();
    if n >= 0 || e.kind() == io::ErrorKind::Interrupted { Ok(()) } else { Err(e) }
}

pub(super) fn c_string(text: &str) -> io::Result<CString> {
    CString::new(text).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists() {
        assert_eq!(parse_cpu_list("0-1"), Some(vec![0, 1]));
        assert_eq!(parse_cpu_list("0,2-3"), Some(vec![0, 2, 3]));
        assert_eq!(parse_cpu_list("3-1"), None);
        assert_eq!(parse_cpu_list("x"), None);
    }

    #[test]
    fn version_codes() {
        assert_eq!(version_code("6.1.176-1 (2025)"), 0x0601b0);
        assert_eq!(version_code("6.18.44-fc"), 0x06122c);
        assert_eq!(version_code("5.10.300"), 0x050aff);
        assert_eq!(version_code("nonsense"), 0);
    }
}
