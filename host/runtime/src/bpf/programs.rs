//! The BPF programs that are loaded on the machine, whoever loaded them. Any thread; nothing is kept.

use super::{
    label::{self, Names},
    sys,
};
use std::{
    fs, io,
    os::fd::{AsRawFd, OwnedFd},
};

/// Kinds of programs by the kernel's number, under the names that bpftool gives them.
pub(crate) const KINDS: &[&str] = &[
    "unspec",
    "socket_filter",
    "kprobe",
    "sched_cls",
    "sched_act",
    "tracepoint",
    "xdp",
    "perf_event",
    "cgroup_skb",
    "cgroup_sock",
    "lwt_in",
    "lwt_out",
    "lwt_xmit",
    "sock_ops",
    "sk_skb",
    "cgroup_device",
    "sk_msg",
    "raw_tracepoint",
    "cgroup_sock_addr",
    "lwt_seg6local",
    "lirc_mode2",
    "sk_reuseport",
    "flow_dissector",
    "cgroup_sysctl",
    "raw_tracepoint_writable",
    "cgroup_sockopt",
    "tracing",
    "struct_ops",
    "ext",
    "lsm",
    "sk_lookup",
    "syscall",
    "netfilter",
];

/// What the kernel says of a program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProgramInfo {
    pub id: u32,
    pub kind: u32,
    pub name: Vec<u8>,
    /// Nanoseconds and runs while somebody had them counted.
    pub run_time_ns: u64,
    pub run_count: u64,
    /// Numbers of its maps.
    pub maps: Vec<u32>,
}

/// Maps of one program that are asked for: the kernel's own limit is 64.
const MAX_MAPS: usize = 256;

/// Has the kernel count the runs and the time of all programs while the descriptor is open. Linux 5.8.
pub(crate) fn measure() -> io::Result<OwnedFd> {
    sys::enable_run_stats()
}

/// Calls `f` for every program. One that goes meanwhile is left out.
pub(crate) fn each(mut f: impl FnMut(ProgramInfo) -> io::Result<()>) -> io::Result<()> {
    let mut id = 0;
    while let Some(next) = sys::next_program(id)? {
        id = next;
        match sys::program_by_id(id) {
            Ok(program) => f(info(&program)?)?,
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn info(program: &OwnedFd) -> io::Result<ProgramInfo> {
    let mut maps = [0u32; MAX_MAPS];
    let words = sys::program_info(program, &mut maps)?;
    let half = |n: usize, high: bool| if high { (words[n] >> 32) as u32 } else { words[n] as u32 };
    // struct bpf_prog_info in words of 8 bytes: type and id; created_by_uid and nr_map_ids; name; run_time_ns, run_cnt.
    let count = (half(6, true) as usize).min(MAX_MAPS);
    let name: Vec<u8> = words[8..10].iter().flat_map(|w| w.to_le_bytes()).take_while(|b| *b != 0).collect();
    Ok(ProgramInfo {
        kind: half(0, false),
        id: half(0, true),
        name,
        run_time_ns: words[24],
        run_count: words[25],
        maps: maps[..count].to_vec(),
    })
}

/// What a map of a program is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ProgramMap {
    /// Of so many bytes; 0 where the kernel does not say.
    Own(u64),
    /// Says whose the program is, and is none of its work.
    Label(Names),
}

/// `None` where it has gone.
pub(crate) fn map(id: u32) -> Option<ProgramMap> {
    let map = sys::map_by_id(id).ok()?;
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd())).unwrap_or_default();
    if let Some(names) = label::read(map) {
        return Some(ProgramMap::Label(names));
    }
    let bytes = text.lines().find_map(|l| l.strip_prefix("memlock:")).and_then(|n| n.trim().parse().ok());
    Some(ProgramMap::Own(bytes.unwrap_or(0)))
}
