//! The kernel's half of the tracker: loads and attaches `bpf/host/tracker.bpf.c` and reads its events.
//!
//! Loaded on the caller's thread, then owned by the containers' thread. Nothing is pinned: the programs go with this process.

use super::{
    ContainersError,
    admission::{Admission, BirthRecord},
    identify::RUNTIME_COMMS,
};
use crate::bpf::{
    self, KernelBtf, LoadOptions, Loaded, Object, State,
    ring::{Rest, Ring},
};
use aya::maps::{Array, HashMap, Map, MapData, MapError};
use std::os::fd::{BorrowedFd, OwnedFd};

/// What messages call the tracker.
const NAME: &str = "container tracker";
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/tracker.bpf.o"));

/// `user_namespace.ns.inum` of the first user namespace: a constant of the kernel.
pub(super) const INIT_USER_NS: u32 = 0xEFFF_FFFD;

/// A process in a new or newly executed namespace. Numbers are the kernel's; see the struct of the same name in C.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TaskEvent {
    /// Boot-clock nanoseconds; of a birth that was found late: 0.
    pub(super) time: u64,
    pub(super) found_late: bool,
    pub(super) mntns: u64,
    pub(super) parent_mntns: u64,
    pub(super) netns: u64,
    /// Id in the default hierarchy.
    pub(super) cgroup: u64,
    /// Id in the pids hierarchy where that is v1, else 0.
    pub(super) cgroup_v1: u64,
    /// Of a first exec: boot-clock nanoseconds when its system call began; 0: not seen.
    pub(super) entered: u64,
    pub(super) tgid: u32,
    /// Nearest ancestor that is a runtime; 0: none.
    pub(super) launcher: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RuntimeEvent {
    pub(super) tgid: u32,
    pub(super) parent_tgid: u32,
    pub(super) mntns: u64,
    pub(super) euid: u32,
    pub(super) user_ns: u32,
    /// Arguments, each with its NUL.
    pub(super) args: Vec<u8>,
    pub(super) args_cut: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    Birth(TaskEvent),
    FirstExec(TaskEvent),
    RuntimeExec(RuntimeEvent),
    Exit { tgid: u32, time: u64 },
    CgroupMkdir { v1: bool, id: u64, path: Box<str> },
    CgroupRmdir { v1: bool, id: u64, time: u64 },
}

/// Reads native-endian numbers one after the other.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_ne_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_ne_bytes(self.take(8)?.try_into().ok()?))
    }
}

impl Event {
    /// `None`: not of a shape that the program writes.
    pub(super) fn parse(record: &[u8]) -> Option<Event> {
        let mut r = Reader(record);
        match r.u32()? {
            1 => Some(Event::Birth(task(r)?)),
            2 => Some(Event::FirstExec(task(r)?)),
            3 => Some(Event::RuntimeExec(runtime(r)?)),
            4 => Some(Event::Exit { tgid: r.u32()?, time: r.u64()? }),
            kind @ (5 | 6) => {
                let (v1, time, id) = (r.u32()? != 0, r.u64()?, r.u64()?);
                if kind == 6 {
                    return Some(Event::CgroupRmdir { v1, id, time });
                }
                let path = r.0.split(|b| *b == 0).next().unwrap_or_default();
                Some(Event::CgroupMkdir { v1, id, path: String::from_utf8_lossy(path).into() })
            }
            _ => None,
        }
    }
}

fn task(mut r: Reader<'_>) -> Option<TaskEvent> {
    const FOUND_LATE: u32 = 3;
    let found_late = r.u32()? == FOUND_LATE;
    let (time, mntns, _identity, parent_mntns) = (r.u64()?, r.u64()?, r.u64()?, r.u64()?);
    let (netns, cgroup, cgroup_v1, entered) = (r.u64()?, r.u64()?, r.u64()?, r.u64()?);
    let (tgid, _parent, launcher) = (r.u32()?, r.u32()?, r.u32()?);
    Some(TaskEvent { time, found_late, mntns, parent_mntns, netns, cgroup, cgroup_v1, entered, tgid, launcher })
}

fn runtime(mut r: Reader<'_>) -> Option<RuntimeEvent> {
    let (tgid, _time, mntns) = (r.u32()?, r.u64()?, r.u64()?);
    let (parent_tgid, euid, user_ns, len, cut, _pad) = (r.u32()?, r.u32()?, r.u32()?, r.u32()?, r.u32()?, r.u32()?);
    let args = r.take(len as usize)?.to_vec();
    Some(RuntimeEvent { tgid, parent_tgid, mntns, euid, user_ns, args, args_cut: cut != 0 })
}

/// What the tracker's programs could not do; counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrackerLoss {
    /// Events the ring buffer had no room for.
    pub events: u64,
    /// Command lines of runtimes longer than 4 KiB, of which the beginning was read.
    pub args_cut: u64,
    pub args_unreadable: u64,
    /// New namespaces for which a gadget's filter map had no room: their events are missing.
    pub filter_full: u64,
    /// Namespaces for which the tracker's own maps had no room.
    pub births_full: u64,
    /// Runs that the kernel left out, because the program was at work on that CPU already: from Linux 7.0 on, programs on
    /// raw tracepoints can be preempted.
    pub missed_runs: u64,
}

impl TrackerLoss {
    /// Whatever may have been a birth, a command line or an end: a reason to look at what runs.
    pub(super) fn unseen(&self) -> u64 {
        self.events + self.missed_runs
    }
}

pub(super) struct Tracker {
    /// Holds the programs and their attachments.
    loaded: Loaded,
    ring: Ring,
    counters: Array<MapData, u64>,
    watched: HashMap<MapData, u32, u32>,
    /// Programs that run.
    pub(super) attached: Vec<String>,
    /// Programs that this kernel does not take, with the reason.
    pub(super) missing: Vec<(String, String)>,
}

/// Without these containers would be missed. Without the two halves of unshare(2) (no tracefs) a namespace is found at its
/// first exec instead.
const NEEDED: [&str; 5] = ["ig_ctr_fork", "ig_ctr_exec", "ig_ctr_exit", "ig_ctr_mkdir", "ig_ctr_rmdir"];
/// Records read before the caller publishes, and their bytes.
const ROWS_AT_ONCE: usize = 4096;
const BYTES_AT_ONCE: usize = 1 << 20;

impl Tracker {
    /// Loads and attaches; from here on nothing is missed.
    pub(super) fn load(kernel: &KernelBtf) -> Result<(Tracker, Admission), ContainersError> {
        let object = Object::parse(NAME, OBJECT).map_err(|source| ContainersError::Object { source })?;
        let mut loaded = bpf::load(NAME, &object, kernel, LoadOptions::default()).map_err(load_error)?;
        let mut names: HashMap<MapData, [u8; 16], u32> = typed(&loaded, "runtime_names")?;
        for comm in RUNTIME_COMMS {
            let mut key = [0; 16];
            key[..comm.len()].copy_from_slice(comm.as_bytes());
            names.insert(key, 1, 0).map_err(|source| ContainersError::Map { map: "runtime_names", source })?;
        }
        let births: HashMap<MapData, u64, BirthRecord> = typed(&loaded, "births")?;
        let admission = Admission::new(map(&loaded, "filters")?, births, typed(&loaded, "state")?)?;
        let size = loaded.map_info("events").map_or(0, |i| i.max_entries);
        let mut ring =
            Ring::new(descriptor(&loaded, "events")?, size).map_err(|source| ContainersError::Ring { source })?;
        // Every record is to wake the thread: there are few, and rows wait for them.
        ring.set_lag(false);
        loaded.attach().map_err(load_error)?;
        let (mut attached, mut missing) = (Vec::new(), Vec::new());
        for report in loaded.reports() {
            match report.state {
                State::Skipped { reason, .. } if NEEDED.contains(&report.name.as_str()) => {
                    return Err(ContainersError::Hook { hook: report.hook, reason });
                }
                State::Skipped { reason, .. } => missing.push((report.hook, reason)),
                _ => attached.push(report.hook),
            }
        }
        let (counters, watched) = (typed(&loaded, "counters")?, typed(&loaded, "watched")?);
        Ok((Tracker { loaded, ring, counters, watched, attached, missing }, admission))
    }

    /// A descriptor that becomes readable with the next event after a `drain` that was complete.
    pub(super) fn readiness(&self) -> std::io::Result<OwnedFd> {
        self.ring.fd().try_clone_to_owned()
    }

    /// Reads events, `None` for a record of unknown shape, as many as are read at once.
    pub(super) fn drain(&mut self, mut f: impl FnMut(Option<Event>)) -> Rest {
        self.ring.drain(ROWS_AT_ONCE, BYTES_AT_ONCE, |record| f(Event::parse(record)));
        self.ring.release()
    }

    /// Has the end of this process reported, as that of a container's first process.
    pub(super) fn watch_init(&mut self, pid: u32) {
        const AN_INIT: u32 = 2;
        // A full map shows in the container's end being seen late, through its cgroup; nothing to do about it here.
        drop(self.watched.insert(pid, AN_INIT, 0));
    }

    /// Has it reported, and known as a runtime to the births below it.
    pub(super) fn watch_runtime(&mut self, pid: u32) {
        const A_RUNTIME: u32 = 1;
        drop(self.watched.insert(pid, A_RUNTIME, 0));
    }

    pub(super) fn loss(&self) -> TrackerLoss {
        let n = |i| self.counters.get(&i, 0).unwrap_or_default();
        TrackerLoss {
            events: n(0),
            args_cut: n(1),
            args_unreadable: n(2),
            filter_full: n(3),
            births_full: n(4),
            missed_runs: self.loaded.missed_runs(),
        }
    }
}

fn load_error(source: bpf::LoadError) -> ContainersError {
    ContainersError::Load { source: Box::new(source) }
}

fn descriptor<'a>(loaded: &'a Loaded, name: &'static str) -> Result<BorrowedFd<'a>, ContainersError> {
    loaded.map_fd(name).ok_or(ContainersError::MissingMap { map: name })
}

fn map(loaded: &Loaded, name: &'static str) -> Result<Map, ContainersError> {
    let fd = descriptor(loaded, name)?.try_clone_to_owned().map_err(|source| ContainersError::Ring { source })?;
    MapData::from_fd(fd).and_then(Map::from_map_data).map_err(|source| ContainersError::Map { map: name, source })
}

fn typed<T: TryFrom<Map, Error = MapError>>(loaded: &Loaded, name: &'static str) -> Result<T, ContainersError> {
    map(loaded, name)?.try_into().map_err(|source| ContainersError::Map { map: name, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(kind: u32, second: u32, rest: &[u64]) -> Vec<u8> {
        let mut b = kind.to_ne_bytes().to_vec();
        b.extend(second.to_ne_bytes());
        rest.iter().for_each(|w| b.extend(w.to_ne_bytes()));
        b
    }

    #[test]
    fn records_are_read_as_the_program_writes_them() {
        let mut b = words(1, 2, &[10, 20, 0, 30, 40, 50, 60, 65]);
        for n in [70u32, 80, 90, 0] {
            b.extend(n.to_ne_bytes());
        }
        b.extend([0; 16]);
        let expected = TaskEvent {
            time: 10,
            found_late: false,
            mntns: 20,
            parent_mntns: 30,
            netns: 40,
            cgroup: 50,
            cgroup_v1: 60,
            entered: 65,
            tgid: 70,
            launcher: 90,
        };
        assert_eq!(Event::parse(&b), Some(Event::Birth(expected)));
        assert_eq!(Event::parse(&words(4, 5, &[6])), Some(Event::Exit { tgid: 5, time: 6 }));
        let mut b = words(5, 0, &[1, 77]);
        b.extend(b"/docker/x\0rest");
        assert_eq!(Event::parse(&b), Some(Event::CgroupMkdir { v1: false, id: 77, path: "/docker/x".into() }));
    }

    #[test]
    fn records_of_another_shape_are_refused() {
        for b in [&b""[..], b"\x01", &words(9, 0, &[0; 9]), &words(1, 0, &[0; 3]), &words(3, 0, &[0; 4])] {
            assert_eq!(Event::parse(b), None);
        }
    }
}
