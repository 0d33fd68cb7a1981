//! The processes of the machine with what they use, from /proc: what `top` shows.
//!
//! Keeps the processor time of each process from one reading to the next, for the share it had in between. Processes that
//! end during a reading are left out.

use super::{
    HostSourceError,
    row::{HIDDEN, Look, Row, Shape},
};
use crate::clocks;
use ig_event::{DataSource, Derive, Kind};
use rustc_hash::FxHashMap;
use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Instant,
};

/// Bytes of a name: threads of the kernel have the longest.
const COMM: u32 = 64;

pub(super) fn schema() -> DataSource {
    let plain = Look::default();
    let hidden = Look { annotations: &[HIDDEN], tag: None };
    let mut s = Shape::new("processes");
    s.number("pid", Kind::U32, "Process id, as the host sees it", Look { tag: Some("gadget_pid"), ..plain });
    s.number("ppid", Kind::U32, "Process id of the parent", Look { tag: Some("gadget_ppid"), ..plain });
    let uid = Look { tag: Some("gadget_uid"), annotations: &[HIDDEN] };
    if let Some(uid) = s.number("uid", Kind::U32, "Effective user id of the initial user namespace", uid) {
        s.derived(
            "user",
            uid,
            Derive::User,
            "Name of the user",
            Look { annotations: &[("columns.width", "10")], tag: None },
        );
    }
    let right = |width| [("columns.width", width), ("columns.minwidth", width), ("columns.alignment", "right")];
    s.number(
        "priority",
        Kind::I32,
        "Priority as the kernel shows it: 20 is that of most, negative is real-time",
        hidden,
    );
    s.number("nice", Kind::I32, "Nice value, from -20 (first) to 19 (last)", hidden);
    s.text("state", 2, "R running, S sleeping, D waiting for a device, T stopped, Z ended and not yet collected, I idle thread of the kernel",
        Look { annotations: &[("columns.width", "5"), ("columns.maxwidth", "5")], tag: None });
    s.number("threadCount", Kind::U32, "Threads", Look { annotations: &right("5"), tag: None });
    s.number(
        "cpuUsage",
        Kind::F64,
        "Share of one processor since the table before, in percent",
        Look { annotations: &right("7"), tag: None },
    );
    s.number("cpuUsageRelative", Kind::F64, "Share of all processors since the table before, in percent", hidden);
    s.number(
        "memoryRelative",
        Kind::F64,
        "Share of the machine's memory that memoryRSS is, in percent",
        Look { annotations: &right("6"), tag: None },
    );
    s.pair("memoryRSS", Derive::Bytes, "Memory in use (resident)", plain);
    s.pair("memoryVirtual", Derive::Bytes, "Addresses in use", hidden);
    s.pair("memoryShared", Derive::Bytes, "Part of memoryRSS that is of files and shared memory", hidden);
    if let Some(time) = s.number("cpuTime", Kind::U64, "Processor time used, in nanoseconds", hidden) {
        s.derived(
            "cpuTimeStr",
            time,
            Derive::Duration,
            "Processor time used",
            Look { annotations: &[("columns.width", "12")], tag: None },
        );
    }
    if let Some(start) = s.number("startTime", Kind::U64, "When the process started, in nanoseconds since 1970", hidden)
    {
        s.derived("startTimeStr", start, Derive::Timestamp, "When the process started", hidden);
    }
    s.number(
        "mntns_id",
        Kind::U64,
        "Inode number of the mount namespace; 0 where it is not ours to see",
        Look { annotations: &[HIDDEN], tag: Some("gadget_mntns_id") },
    );
    s.text("comm", COMM, "Name of the process", Look { annotations: &[("columns.width", "20")], tag: None });
    s.done()
}

/// What a process is known by: a number can be used again.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    pid: u32,
    start: u64,
}

/// What the machine says of itself.
struct Machine {
    proc: PathBuf,
    tick_ns: u64,
    page: u64,
    cpus: f64,
    memory: f64,
}

/// The table, with what was used by the last reading.
pub(crate) struct Processes {
    machine: Machine,
    used: FxHashMap<Key, u64>,
    last: Instant,
}

impl Processes {
    pub(super) fn open(proc: PathBuf) -> Result<Processes, HostSourceError> {
        let machine = Machine {
            tick_ns: 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1),
            page: rustix::param::page_size() as u64,
            cpus: cpus(&fs::read(proc.join("stat")).unwrap_or_default()) as f64,
            memory: memory(&fs::read(proc.join("meminfo")).unwrap_or_default()) as f64,
            proc,
        };
        let mut table = Processes { machine, used: FxHashMap::default(), last: Instant::now() };
        // What was used before is not of the first interval.
        table.walk(|_| {}).map_err(|_e| HostSourceError::NoProc)?;
        Ok(table)
    }

    pub(super) fn read(&mut self, push: &mut impl FnMut(&[u8])) -> io::Result<()> {
        self.walk(push)
    }

    fn walk(&mut self, mut push: impl FnMut(&[u8])) -> io::Result<()> {
        let entries = fs::read_dir(&self.machine.proc)?;
        let now = Instant::now();
        let elapsed = now.duration_since(self.last).as_nanos() as u64;
        let (boot, boot_to_wall) = (clocks::boot_time(), clocks::boot_to_wall() as u64);
        let mut used = FxHashMap::default();
        let mut row = Row::default();
        for pid in entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok()) {
            let dir = self.machine.proc.join(pid.to_string());
            let Some(p) = Process::read(&dir, pid, &self.machine) else { continue };
            let key = Key { pid, start: p.start };
            used.insert(key, p.cpu_time);
            let before = self.used.get(&key).copied().unwrap_or(0);
            // One that started since had only so long.
            let had = elapsed.min(boot.saturating_sub(p.start)).max(1);
            let share = p.cpu_time.saturating_sub(before) as f64 * 100.0 / had as f64;
            // Processor time is told in ticks: over a short time they may add up to more than there was.
            let share = share.min(100.0 * f64::from(p.threads.max(1)));
            row.clear();
            p.write(share, &self.machine, boot_to_wall, &mut row);
            push(row.bytes());
        }
        self.used = used;
        self.last = now;
        Ok(())
    }
}

/// Processors that are on, from /proc/stat.
pub(super) fn cpus(stat: &[u8]) -> usize {
    let line = |l: &&[u8]| l.starts_with(b"cpu") && l.get(3).is_some_and(u8::is_ascii_digit);
    stat.split(|b| *b == b'\n').filter(line).count().max(1)
}

/// Bytes of memory, from /proc/meminfo; 0 where it cannot be told.
fn memory(meminfo: &[u8]) -> u64 {
    let text = std::str::from_utf8(meminfo).unwrap_or_default();
    let total = text.lines().find_map(|l| l.strip_prefix("MemTotal:"));
    total.and_then(|t| t.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).map_or(0, |kb| kb.saturating_mul(1024))
}

#[derive(Debug, Default, PartialEq)]
struct Process {
    pid: u32,
    parent: u32,
    uid: u32,
    priority: i32,
    nice: i32,
    state: u8,
    threads: u32,
    /// Nanoseconds.
    cpu_time: u64,
    /// Nanoseconds of the boot clock.
    start: u64,
    virt: u64,
    resident: u64,
    shared: u64,
    mntns: u64,
    comm: Vec<u8>,
}

impl Process {
    /// `None` where it has gone.
    fn read(dir: &Path, pid: u32, machine: &Machine) -> Option<Process> {
        let stat = fs::read(dir.join("stat")).ok()?;
        let mut p = Process::parse(&stat, machine)?;
        p.pid = pid;
        // The owner of the directory is the effective user, except of a process that others may not look into: then root.
        p.uid = match fs::read(dir.join("status")) {
            Ok(status) => effective_uid(&status)?,
            Err(_) => fs::metadata(dir).ok()?.uid(),
        };
        p.shared =
            fs::read(dir.join("statm")).ok().and_then(|s| shared_pages(&s)).unwrap_or(0).saturating_mul(machine.page);
        p.mntns = fs::read_link(dir.join("ns/mnt")).ok().and_then(|t| namespace(t.to_str()?)).unwrap_or(0);
        Some(p)
    }

    /// Reads `/proc/PID/stat`. The name may hold anything, parentheses and spaces included.
    fn parse(stat: &[u8], machine: &Machine) -> Option<Process> {
        let (open, close) = (memchr::memchr(b'(', stat)?, memchr::memrchr(b')', stat)?);
        let mut fields = std::str::from_utf8(stat.get(close + 1..)?).ok()?.split_ascii_whitespace();
        let state = *fields.next()?.as_bytes().first()?;
        // Numbered as in proc(5), after the state, which is the third.
        let numbers: Vec<i64> =
            fields.map(|f| f.parse().or_else(|_e| f.parse().map(|n: u64| n as i64)).unwrap_or(0)).collect();
        let field = |n: usize| numbers.get(n - 4).copied();
        let ticks = |n: usize| Some((field(n)? as u64).saturating_mul(machine.tick_ns));
        Some(Process {
            parent: field(4)? as u32,
            cpu_time: ticks(14)?.saturating_add(ticks(15)?),
            priority: field(18)? as i32,
            nice: field(19)? as i32,
            threads: field(20)? as u32,
            start: ticks(22)?,
            virt: field(23)? as u64,
            resident: (field(24)?.max(0) as u64).saturating_mul(machine.page),
            state,
            comm: stat.get(open + 1..close)?.to_vec(),
            ..Process::default()
        })
    }

    /// In the order of `schema`.
    fn write(&self, share: f64, machine: &Machine, boot_to_wall: u64, row: &mut Row) {
        let of_memory = if machine.memory > 0.0 { self.resident as f64 * 100.0 / machine.memory } else { 0.0 };
        row.u32(self.pid).u32(self.parent).u32(self.uid).i32(self.priority).i32(self.nice);
        row.text(&[self.state], 2);
        row.u32(self.threads).f64(rounded(share)).f64(rounded(share / machine.cpus)).f64(rounded(of_memory));
        row.u64(self.resident).u64(self.virt).u64(self.shared).u64(self.cpu_time);
        row.u64(self.start.wrapping_add(boot_to_wall)).u64(self.mntns);
        row.text(&self.comm, COMM as usize);
    }
}

/// Hundredths: ticks say no more.
fn rounded(percent: f64) -> f64 {
    (percent * 100.0).round() / 100.0
}

/// The second number of the line `Uid:`.
fn effective_uid(status: &[u8]) -> Option<u32> {
    let line = status.split(|b| *b == b'\n').find_map(|l| l.strip_prefix(b"Uid:"))?;
    std::str::from_utf8(line).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn shared_pages(statm: &[u8]) -> Option<u64> {
    std::str::from_utf8(statm).ok()?.split_ascii_whitespace().nth(2)?.parse().ok()
}

/// `mnt:[4026531841]`
fn namespace(link: &str) -> Option<u64> {
    link.split_once('[')?.1.strip_suffix(']')?.parse().ok()
}

/// What a fuzzer calls: any text is refused, or gives a whole row.
#[cfg(fuzzing)]
pub(super) fn fuzz(bytes: &[u8]) {
    let machine = Machine { proc: "/proc".into(), tick_ns: 10_000_000, page: 4096, cpus: 4.0, memory: 1e9 };
    if let Some(mut p) = Process::parse(bytes, &machine) {
        p.uid = effective_uid(bytes).unwrap_or(0);
        p.shared = shared_pages(bytes).unwrap_or(0);
        let mut row = Row::default();
        p.write(1.0, &machine, 1, &mut row);
        assert_eq!(row.bytes().len(), schema().record_size as usize);
    }
    effective_uid(bytes);
    shared_pages(bytes);
    cpus(bytes);
    memory(bytes);
    std::str::from_utf8(bytes).ok().and_then(namespace);
}

#[cfg(test)]
mod tests {
    use super::*;
    use ig_event::{Batch, Value};
    use proptest::prelude::*;
    use rustix::time::{ClockId, clock_gettime};
    use std::{sync::Arc, time::Duration};

    fn machine() -> Machine {
        Machine { proc: "/proc".into(), tick_ns: 10_000_000, page: 4096, cpus: 4.0, memory: 1e9 }
    }

    const STAT: &[u8] = b"42 (a) b (c) R 7 42 42 0 -1 4194304 100 0 0 0 250 50 0 0 20 -5 3 0 1000 8192000 200 18446744073709551615 1 1 0 0 0 0 0 0 0 0 0 0 17 3 0 0 0 0 0\n";

    #[test]
    fn a_row_has_every_field_where_the_schema_says() {
        let p = Process { pid: 42, uid: 1000, shared: 4096, mntns: 77, ..Process::parse(STAT, &machine()).unwrap() };
        let mut row = Row::default();
        p.write(12.345, &machine(), 1_000, &mut row);
        let source = Arc::new(schema());
        assert_eq!(row.bytes().len(), source.record_size as usize);
        let mut batch = Batch::new(source.clone());
        batch.push(row.bytes());
        let value = |name: &str| batch.value(0, source.find(name).unwrap_or_else(|| panic!("{name}")).id);
        for (name, wanted) in [
            ("pid", Value::Uint(42)),
            ("ppid", Value::Uint(7)),
            ("uid", Value::Uint(1000)),
            ("priority", Value::Int(20)),
            ("nice", Value::Int(-5)),
            ("state", Value::Text(b"R"[..].into())),
            ("threadCount", Value::Uint(3)),
            ("cpuUsage", Value::Float(12.35)),
            ("cpuUsageRelative", Value::Float(3.09)),
            ("memoryRelative", Value::Float(0.08)),
            ("memoryRSS_raw", Value::Uint(819_200)),
            ("memoryVirtual_raw", Value::Uint(8_192_000)),
            ("memoryShared_raw", Value::Uint(4096)),
            ("cpuTime", Value::Uint(3_000_000_000)),
            ("startTime", Value::Uint(10_000_001_000)),
            ("mntns_id", Value::Uint(77)),
            ("comm", Value::Text(b"a) b (c"[..].into())),
        ] {
            assert_eq!(value(name), wanted, "{name}");
        }
    }

    #[test]
    fn what_procfs_says_is_read() {
        assert_eq!(cpus(b"cpu  1 2\ncpu0 1\ncpu13 1\nintr 5\n"), 2);
        assert_eq!(memory(b"MemTotal:       24576 kB\nMemFree: 1 kB\n"), 24576 * 1024);
        assert_eq!((memory(b""), cpus(b"")), (0, 1));
        assert_eq!(effective_uid(b"Name:\tUid:\nUid:\t1\t2\t3\t4\n"), Some(2));
        assert_eq!(shared_pages(b"100 50 7 1 0 9 0\n"), Some(7));
        assert_eq!(namespace("mnt:[4026531841]"), Some(4026531841));
        assert_eq!(namespace("(unreachable)"), None);
    }

    #[test]
    fn a_process_that_works_has_a_share_and_one_that_sleeps_has_none() {
        const WORK: Duration = Duration::from_millis(300);
        let worked = || Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap();
        let start = Instant::now();
        let mut table = Processes::open("/proc".into()).unwrap();
        // other threads of the process work too, and on a busy machine it gets what it gets
        let until = worked() + WORK;
        while worked() < until {}
        let source = Arc::new(schema());
        let mut batch = Batch::new(source.clone());
        table
            .read(&mut |r: &[u8]| {
                batch.push(r);
            })
            .unwrap();
        let elapsed = start.elapsed();
        let id = |name: &str| source.find(name).unwrap().id;
        let own =
            (0..batch.len()).find(|r| batch.value(*r, id("pid")) == Value::Uint(std::process::id().into())).unwrap();
        let Value::Float(share) = batch.value(own, id("cpuUsage")) else { panic!("no share") };
        // the kernel tells it in ticks
        let least = 100.0 * (WORK - Duration::from_millis(30)).as_secs_f64() / elapsed.as_secs_f64();
        assert!(share >= least - 0.01, "{share}%, not {least}%");
        let Value::Float(relative) = batch.value(own, id("cpuUsageRelative")) else { panic!("no share") };
        assert!(relative <= share);
        assert_ne!(batch.value(own, id("memoryRSS_raw")), Value::Uint(0));
    }

    proptest! {
        #[test]
        fn any_text_for_stat_is_refused_or_read(text in proptest::collection::vec(any::<u8>(), 0..300), cut in 0usize..200) {
            Process::parse(&text, &machine());
            Process::parse(&STAT[..cut.min(STAT.len())], &machine());
            effective_uid(&text);
            shared_pages(&text);
            cpus(&text);
            memory(&text);
        }
    }
}
