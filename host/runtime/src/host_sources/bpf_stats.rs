//! The BPF programs of the machine with what they cost: runs and time since the reading before, the memory of their maps,
//! and the processes that hold them.
//!
//! The kernel measures only while somebody asks for it; the request is held as a descriptor and goes with it.

use super::{
    HostSourceError, processes,
    row::{HIDDEN, Look, Row, Shape},
};
use crate::bpf::{
    label::Names,
    programs::{self, ProgramMap},
};
use ig_event::{DataSource, Derive, Kind};
use rustc_hash::FxHashMap;
use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

/// Bytes of the names of a program's gadget, and of its image; labels hold no longer ones.
const GADGET: u32 = 64;
const IMAGE: u32 = 192;
/// Bytes of the list of owners' names, and of their numbers.
const OWNERS: u32 = 128;

pub(super) fn schema() -> DataSource {
    let hidden = Look { annotations: &[HIDDEN], tag: None };
    let width = |w| [("columns.width", w), ("columns.minwidth", "6"), ("columns.alignment", "right")];
    let right = |w, alias| [("columns.width", w), ("columns.alignment", "right"), ("columns.alias", alias)];
    let mut s = Shape::new("bpfstats");
    s.text(
        "gadgetName",
        GADGET,
        "Gadget that the program is of, or the part of the host that gadgets rest on; empty for programs of others",
        Look { annotations: &[("columns.width", "18")], tag: None },
    );
    s.text("gadgetImage", IMAGE, "What that gadget was run as", hidden);
    s.number("progID", Kind::U32, "Number of the program", Look { annotations: &width("8"), tag: None });
    if let Some(kind) = s.number("progType_raw", Kind::U32, "Kind of the program, as a number", hidden) {
        let names = programs::KINDS.iter().enumerate().map(|(n, name)| (n as i64, (*name).to_owned())).collect();
        s.derived(
            "progType",
            kind,
            Derive::Enum(Arc::new(names)),
            "Kind of the program",
            Look { annotations: &[("columns.width", "16")], tag: None },
        );
    }
    s.text(
        "progName",
        16,
        "Name of the program, as far as the kernel keeps it (15 bytes)",
        Look { annotations: &[("columns.width", "16")], tag: None },
    );
    s.pair(
        "runtime",
        Derive::Duration,
        "Time spent in the program since the table before",
        Look { annotations: &width("12"), tag: None },
    );
    s.number("runcount", Kind::U64, "Runs since the table before", Look { annotations: &width("10"), tag: None });
    s.number(
        "cpuUsage",
        Kind::F64,
        "Share of one processor since the table before, in percent",
        Look { annotations: &right("8", "%CPU"), tag: None },
    );
    s.number(
        "cpuUsageRelative",
        Kind::F64,
        "Share of all processors since the table before, in percent",
        Look { annotations: &right("8", "%RELCPU"), tag: None },
    );
    let total = "Time spent in the program while somebody had it measured";
    if let Some(from) = s.number("totalRuntime_raw", Kind::U64, total, hidden) {
        s.derived("totalRuntime", from, Derive::Duration, total, hidden);
        s.derived("cpuTimeStr", from, Derive::Duration, total, Look { annotations: &right("12", "TIME+"), tag: None });
    }
    s.number("totalRuncount", Kind::U64, "Runs while somebody had them counted", hidden);
    s.pair(
        "mapMemory",
        Derive::Bytes,
        "Memory of the program's maps; a map of several programs counts for each",
        Look { annotations: &width("10"), tag: None },
    );
    s.number("mapCount", Kind::U32, "Maps of the program", Look { annotations: &width("8"), tag: None });
    s.text(
        "pids",
        OWNERS,
        "Processes that hold a descriptor of the program or of its attachment",
        Look { annotations: &[("columns.width", "12")], tag: None },
    );
    s.text("comms", OWNERS, "Names of those processes", Look { annotations: &[("columns.width", "20")], tag: None });
    s.number("owners_truncated", Kind::Bool, "pids or comms is longer than its field and was cut", hidden);
    s.done()
}

#[derive(Clone, Copy, Default)]
struct Used {
    time: u64,
    runs: u64,
}

pub(crate) struct BpfStats {
    /// Has the kernel measure for as long as it is open.
    _measuring: OwnedFd,
    proc: Option<PathBuf>,
    processors: f64,
    used: FxHashMap<u32, Used>,
    last: Instant,
    gadgets_only: bool,
}

impl BpfStats {
    pub(super) fn open(proc: Option<PathBuf>, gadgets_only: bool) -> Result<BpfStats, HostSourceError> {
        let measuring = programs::measure().map_err(|e| match e.raw_os_error() {
            Some(libc::EINVAL) => HostSourceError::NoBpfStats(e),
            _ => HostSourceError::BpfStats(e),
        })?;
        let stat = proc.as_ref().and_then(|proc| fs::read(proc.join("stat")).ok()).unwrap_or_default();
        let processors = processes::cpus(&stat) as f64;
        let (used, last) = (FxHashMap::default(), Instant::now());
        let mut table = BpfStats { _measuring: measuring, proc, processors, used, last, gadgets_only };
        programs::each(|p| {
            table.used.insert(p.id, Used { time: p.run_time_ns, runs: p.run_count });
            Ok(())
        })
        .map_err(HostSourceError::BpfStats)?;
        Ok(table)
    }

    pub(super) fn read(&mut self, push: &mut impl FnMut(&[u8])) -> io::Result<()> {
        let owners = self.proc.as_deref().map(owners).unwrap_or_default();
        let now = Instant::now();
        let elapsed = now.duration_since(self.last).as_nanos().max(1) as f64;
        let mut used = FxHashMap::default();
        let mut maps = FxHashMap::default();
        let mut row = Row::default();
        let gadgets_only = self.gadgets_only;
        programs::each(|p| {
            let before = self.used.get(&p.id).copied().unwrap_or_default();
            used.insert(p.id, Used { time: p.run_time_ns, runs: p.run_count });
            let time = p.run_time_ns.saturating_sub(before.time);
            let runs = p.run_count.saturating_sub(before.runs);
            let (mut memory, mut count, mut gadget) = (0u64, 0, None);
            for id in &p.maps {
                match maps.entry(*id).or_insert_with(|| programs::map(*id)) {
                    Some(ProgramMap::Label(names)) => gadget = Some(names.clone()),
                    Some(ProgramMap::Own(bytes)) => (memory, count) = (memory.saturating_add(*bytes), count + 1),
                    None => count += 1,
                }
            }
            if gadgets_only && gadget.is_none() {
                return Ok(());
            }
            row.clear();
            write_gadget(gadget.as_ref(), &mut row);
            row.u32(p.id).u32(p.kind);
            row.text(&p.name, 16);
            let share = |of: f64| (time as f64 * 1e4 / elapsed / of).round() / 100.0;
            row.u64(time).u64(runs).f64(share(1.0)).f64(share(self.processors));
            row.u64(p.run_time_ns).u64(p.run_count).u64(memory).u32(count);
            write_owners(owners.get(&p.id), &mut row);
            push(row.bytes());
            Ok(())
        })?;
        self.used = used;
        self.last = now;
        Ok(())
    }
}

fn write_gadget(names: Option<&Names>, row: &mut Row) {
    // a label holds less than there is room for
    row.text(names.map_or(b"", |n| &n.gadget), GADGET as usize);
    row.text(names.map_or(b"", |n| &n.image), IMAGE as usize);
}

fn write_owners(owners: Option<&BTreeMap<u32, Vec<u8>>>, row: &mut Row) {
    let (mut pids, mut comms) = (Vec::new(), Vec::new());
    for (pid, comm) in owners.into_iter().flatten() {
        if !pids.is_empty() {
            pids.push(b',');
            comms.push(b',');
        }
        pids.extend_from_slice(pid.to_string().as_bytes());
        comms.extend_from_slice(comm);
    }
    let cut = row.text(&pids, OWNERS as usize);
    let cut = row.text(&comms, OWNERS as usize) || cut;
    row.u8(u8::from(cut));
}

/// Who holds which program, by its number: from the descriptors of all processes.
fn owners(proc: &Path) -> FxHashMap<u32, BTreeMap<u32, Vec<u8>>> {
    let mut owners: FxHashMap<u32, BTreeMap<u32, Vec<u8>>> = FxHashMap::default();
    let Ok(entries) = fs::read_dir(proc) else { return owners };
    for pid in entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok()) {
        let dir = proc.join(pid.to_string());
        let Ok(fds) = fs::read_dir(dir.join("fd")) else { continue };
        for fd in fds.flatten() {
            let is_bpf = fs::read_link(fd.path()).is_ok_and(|t| {
                matches!(t.to_str(), Some("anon_inode:bpf-prog" | "anon_inode:bpf_link" | "anon_inode:bpf-link"))
            });
            let program = || program_of(&fs::read(dir.join("fdinfo").join(fd.file_name())).ok()?);
            if let Some(id) = is_bpf.then(program).flatten() {
                let comm = || fs::read(dir.join("comm")).unwrap_or_default().trim_ascii_end().to_vec();
                owners.entry(id).or_default().entry(pid).or_insert_with(comm);
            }
        }
    }
    owners
}

/// `prog_id:` of a descriptor of a program or a link.
fn program_of(fdinfo: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(fdinfo).ok()?;
    text.lines().find_map(|l| l.strip_prefix("prog_id:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ig_event::{Batch, Value};

    #[test]
    fn a_row_has_every_field_where_the_schema_says() {
        let source = Arc::new(schema());
        let mut row = Row::default();
        let names = Names { gadget: b"trace_open".to_vec(), image: b"trace_open:v1".to_vec() };
        write_gadget(Some(&names), &mut row);
        row.u32(5).u32(26);
        row.text(b"prog", 16);
        row.u64(1).u64(2).f64(0.5).f64(0.25).u64(3).u64(4).u64(5).u32(6);
        let owners = BTreeMap::from([(7, b"a".to_vec()), (8, b"b".to_vec())]);
        write_owners(Some(&owners), &mut row);
        assert_eq!(row.bytes().len(), source.record_size as usize);
        let mut batch = Batch::new(source.clone());
        batch.push(row.bytes());
        let value = |name: &str| batch.value(0, source.find(name).unwrap_or_else(|| panic!("{name}")).id);
        assert_eq!(value("gadgetName"), Value::Text(b"trace_open"[..].into()));
        assert_eq!(value("gadgetImage"), Value::Text(b"trace_open:v1"[..].into()));
        assert_eq!(value("mapCount"), Value::Uint(6));
        assert_eq!((value("cpuUsage"), value("cpuUsageRelative")), (Value::Float(0.5), Value::Float(0.25)));
        assert_eq!(value("totalRuntime_raw"), Value::Uint(3));
        assert_eq!(value("mapMemory_raw"), Value::Uint(5));
        assert_eq!(value("pids"), Value::Text(b"7,8"[..].into()));
        assert_eq!(value("comms"), Value::Text(b"a,b"[..].into()));
        assert_eq!(value("owners_truncated"), Value::Bool(false));
    }

    #[test]
    fn lists_that_do_not_fit_say_so() {
        let owners: BTreeMap<u32, Vec<u8>> = (100_000..100_030).map(|pid| (pid, b"x".to_vec())).collect();
        let mut row = Row::default();
        write_owners(Some(&owners), &mut row);
        assert_eq!(row.bytes().last(), Some(&1));
        assert_eq!(row.bytes().len(), 2 * OWNERS as usize + 1);
    }

    #[test]
    fn the_program_of_a_descriptor() {
        assert_eq!(program_of(b"pos:\t0\nlink_type:\titer\nprog_id:\t17\n"), Some(17));
        assert_eq!(program_of(b"map_id: 3\n"), None);
    }
}
