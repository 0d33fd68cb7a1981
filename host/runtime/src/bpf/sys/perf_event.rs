//! perf_event_open(2) and what is done with an event: programs that run at it, buffers that it writes, probes in files.

use super::{c_string, owned};
use std::{
    ffi::{c_int, c_ulong},
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

/// Has a program run at a perf event.
pub(in crate::bpf) fn perf_set_bpf(event: BorrowedFd<'_>, prog: BorrowedFd<'_>) -> io::Result<()> {
    const PERF_IOC_SET_BPF: c_ulong = 0x4004_2408;
    // SAFETY: takes a plain number
    let r = unsafe { libc::ioctl(event.as_raw_fd(), PERF_IOC_SET_BPF as _, prog.as_raw_fd()) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The part of `struct perf_event_attr` (version 5, 112 bytes) that is used here.
#[repr(C)]
#[derive(Default)]
pub(in crate::bpf) struct PerfAttr {
    pub kind: u32,
    pub size: u32,
    pub config: u64,
    pub sample: u64,
    pub sample_type: u64,
    pub read_format: u64,
    pub flags: u64,
    pub wakeup: u32,
    pub bp_type: u32,
    pub config1: u64,
    pub config2: u64,
    pub branch_sample_type: u64,
    pub sample_regs_user: u64,
    pub sample_stack_user: u32,
    pub clockid: i32,
    pub sample_regs_intr: u64,
    pub aux_watermark: u32,
    pub sample_max_stack: u16,
    pub reserved: u16,
}

/// `flags` bit: wake up by bytes, not by records.
pub(in crate::bpf) const PERF_WATERMARK: u64 = 1 << 14;

pub(in crate::bpf) fn perf_event_open(attr: &mut PerfAttr, pid: i32, cpu: i32) -> io::Result<OwnedFd> {
    const FD_CLOEXEC: c_ulong = 8;
    attr.size = size_of::<PerfAttr>() as u32;
    // SAFETY: `attr` says its own size; pointers in config1 are C strings that the callers keep alive
    let r = unsafe {
        libc::syscall(libc::SYS_perf_event_open, std::ptr::from_mut(attr), pid, cpu, -1 as c_int, FD_CLOEXEC)
    };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(owned(r as c_int)) }
}

/// `flags` bit: writes towards lower addresses, so that the newest record is found, and the oldest is overwritten.
pub(in crate::bpf) const PERF_WRITE_BACKWARD: u64 = 1 << 27;

/// Has nothing be written into the event's buffer, or again. What comes meanwhile the kernel counts as lost.
pub(in crate::bpf) fn perf_pause(event: BorrowedFd<'_>, pause: bool) -> io::Result<()> {
    const PERF_IOC_PAUSE_OUTPUT: c_ulong = 0x4004_2409;
    // SAFETY: takes a plain number
    let r = unsafe { libc::ioctl(event.as_raw_fd(), PERF_IOC_PAUSE_OUTPUT as _, c_int::from(pause)) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// How many records an event had no room for; it must have been opened with `PERF_FORMAT_LOST` as its only format.
pub(in crate::bpf) fn perf_lost(event: BorrowedFd<'_>) -> io::Result<u64> {
    let mut value_and_lost = [0u64; 2];
    let len = size_of_val(&value_and_lost);
    // SAFETY: `value_and_lost` is valid for writes of `len` bytes
    let n = unsafe { libc::read(event.as_raw_fd(), value_and_lost.as_mut_ptr().cast(), len) };
    match n {
        n if n < 0 => Err(io::Error::last_os_error()),
        n if n as usize == len => Ok(value_and_lost[1]),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

const PERF_IOC_ENABLE: c_ulong = 0x2400;

pub(in crate::bpf) fn perf_enable(event: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: takes a plain number
    let r = unsafe { libc::ioctl(event.as_raw_fd(), PERF_IOC_ENABLE as _, 0) };
    if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The kernel's number of a kind of perf event.
pub(crate) fn pmu_type(name: &str) -> io::Result<u32> {
    let text = std::fs::read_to_string(format!("/sys/bus/event_source/devices/{name}/type"))?;
    text.trim().parse().map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// Has a program run at a place of a file, in every process. It is detached when the descriptor is closed.
pub(crate) fn uprobe(kind: u32, path: &str, offset: u64, at_return: bool, prog: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    const ALL_PROCESSES: i32 = -1;
    const FIRST_CPU: i32 = 0;
    let path = c_string(path)?;
    let mut attr = PerfAttr {
        kind,
        // the only bit there is, as /sys/bus/event_source/devices/uprobe/format/retprobe says
        config: at_return.into(),
        config1: path.as_ptr() as u64,
        config2: offset,
        ..PerfAttr::default()
    };
    let event = perf_event_open(&mut attr, ALL_PROCESSES, FIRST_CPU)?;
    perf_set_bpf(event.as_fd(), prog)?;
    perf_enable(event.as_fd())?;
    Ok(event)
}
