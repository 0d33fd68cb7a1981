//! What showing and filtering an event costs: ns of CPU and of wall-clock time an event, and events a second, on the
//! shapes that file-open tracing produces (304 and 1000 bytes, about 30 fields, a container on every row).
//!
//! Build it in release mode: `cargo run --release -p ig-event --example render [SECONDS]`. One core does everything; rows
//! are rendered batch by batch into one reused buffer, as in a run, and the buffer is thrown away instead of written.
#![expect(clippy::print_stdout, reason = "a benchmark reports on stdout")]

use ig_event::{
    Batch, DataSource, Derive, Entity, EntityValue, FieldDef, FieldId, FieldSelection, Filter, HostNames, Kind,
    OutputMode, PrinterEnv, SourceKind, Storage, TextEnv, printer,
};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

const ROWS: usize = 512;

/// Bytes of a record before the file name.
const HEAD: u32 = 86;

struct Schema {
    source: DataSource,
    at: u32,
}

impl Schema {
    fn add(&mut self, def: FieldDef) -> FieldId {
        self.source.add(def).expect("names are unique")
    }

    fn record(&mut self, name: &str, kind: Kind, size: u32, parent: Option<FieldId>) -> FieldId {
        let offset = self.at;
        self.at += size;
        let mut def = FieldDef::new(name, kind, Storage::Record { offset, size });
        def.parent = parent;
        self.add(def)
    }

    fn derived(&mut self, name: &str, from: FieldId, how: Derive, parent: Option<FieldId>) {
        let mut def = FieldDef::new(name, Kind::Text, Storage::Derived { from, how });
        def.parent = parent;
        self.add(def);
    }
}

/// The fields of a file-open event; `path` adds the resolved path, which makes the record large.
fn open_source(fname: u32, path: u32) -> Arc<DataSource> {
    let mut s = Schema { source: DataSource::new("open", SourceKind::Events, 0), at: 8 };
    let hidden = FieldDef::new("timestamp_raw", Kind::U64, Storage::BootTime { offset: 0 });
    let time = s.add(hidden.annotate("columns.hidden", "true"));
    s.derived("timestamp", time, Derive::Timestamp, None);
    let proc = s.add(FieldDef::new("proc", Kind::Bytes, Storage::Group));
    s.record("mntns_id", Kind::U64, 8, Some(proc));
    s.record("comm", Kind::CString, 16, Some(proc));
    s.record("pid", Kind::U32, 4, Some(proc));
    s.record("tid", Kind::U32, 4, Some(proc));
    let parent = s.add(FieldDef::new("parent", Kind::Bytes, Storage::Group).under(proc));
    s.record("comm", Kind::CString, 16, Some(parent));
    s.record("pid", Kind::U32, 4, Some(parent));
    s.record("tid", Kind::U32, 4, Some(parent));
    let creds = s.add(FieldDef::new("creds", Kind::Bytes, Storage::Group).under(proc));
    let uid = s.record("uid", Kind::U32, 4, Some(creds));
    let gid = s.record("gid", Kind::U32, 4, Some(creds));
    s.derived("user", uid, Derive::User, Some(creds));
    s.derived("group", gid, Derive::Group, Some(creds));
    let error = s.record("error_raw", Kind::U32, 4, None);
    s.derived("error", error, Derive::Errno, None);
    s.record("fd", Kind::U32, 4, None);
    let flags = s.record("flags_raw", Kind::U32, 4, None);
    s.derived("flags", flags, Derive::OpenFlags, None);
    let mode = s.record("mode_raw", Kind::U16, 2, None);
    s.derived("mode", mode, Derive::FileMode, None);
    s.record("fname", Kind::CString, fname, None);
    if path > 0 {
        s.record("fpath", Kind::CString, path, None);
    }
    let slot = s.source.new_entity_slot();
    let runtime = s.add(FieldDef::new("runtime", Kind::Bytes, Storage::Group));
    for (member, name) in ["containerName", "containerId", "containerImageName", "containerImageDigest", "runtimeName"]
        .into_iter()
        .enumerate()
    {
        let storage = Storage::Entity { slot, member: member as u32 };
        s.add(FieldDef::new(name, Kind::Text, storage).under(runtime));
    }
    s.source.record_size = s.at;
    Arc::new(s.source)
}

fn container() -> Arc<Entity> {
    let digest = format!("sha256:{}", "3fbc6321".repeat(8));
    let id = "9f8e7d6c".repeat(8);
    let values = ["web-frontend-1", &id, "docker.io/library/busybox:latest", &digest, "docker"];
    Arc::new(Entity { values: values.into_iter().map(|v| EntityValue::Text(v.into())).collect() })
}

/// Events of as many processes as there are rows, or of one that opens a file after the other.
fn fill(source: &Arc<DataSource>, size: usize, burst: bool) -> Batch {
    let mut batch = Batch::new(source.clone());
    batch.boot_to_wall = 1_722_451_156_455_283_441;
    let containers = [container(), container(), container()];
    for i in 0..ROWS {
        let n = if burst { 1 } else { i as u32 };
        let mut r = (i as u64 * 2_345).to_le_bytes().to_vec();
        r.extend(4_026_531_840u64.to_le_bytes());
        r.extend(b"nginx-worker\0\0\0\0");
        r.extend((1000 + n).to_le_bytes());
        r.extend((100_000 + n).to_le_bytes());
        r.extend(b"containerd-shim\0");
        r.extend(900u32.to_le_bytes());
        r.extend(900u32.to_le_bytes());
        r.extend((n % 3).to_le_bytes());
        r.extend((n % 3).to_le_bytes());
        r.extend((if n.is_multiple_of(4) { 2u32 } else { 0 }).to_le_bytes());
        r.extend((n % 64).to_le_bytes());
        r.extend(0o2000000u32.to_le_bytes());
        r.extend(0o644u16.to_le_bytes());
        r.extend(b"/usr/share/nginx/html/static/img/logo-");
        r.extend(format!("{i}.png\0").bytes());
        r.resize(r.len().max(size.saturating_sub(512)), 0);
        if size > 512 {
            r.extend(b"/var/lib/docker/overlay2/9f8e7d6c/merged/usr/share/nginx/html/static/img/logo-small.png\0");
        }
        r.resize(size, 0);
        let row = batch.push(&r);
        batch.set_entity(0, row, Some(containers[n as usize % 3].clone()));
    }
    batch
}

/// CPU time of this thread, which is the only one.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("a Linux kernel with schedstats");
    let ns = text.split(' ').next().and_then(|n| n.parse().ok()).expect("nanoseconds on the CPU come first");
    Duration::from_nanos(ns)
}

fn measure(label: &str, least: Duration, mut batch: impl FnMut() -> usize) {
    for _ in 0..20 {
        batch();
    }
    let (wall, before, mut rounds, mut bytes) = (Instant::now(), cpu(), 0u64, 0usize);
    while wall.elapsed() < least {
        for _ in 0..16 {
            bytes = std::hint::black_box(batch());
            rounds += 1;
        }
    }
    let (wall, cpu) = (wall.elapsed(), cpu() - before);
    let events = (rounds * ROWS as u64) as f64;
    println!(
        "{label:<47} {:>7.1} ns CPU  {:>7.1} ns wall  {:>6.2} M events/s of CPU  {:>5} B an event",
        cpu.as_nanos() as f64 / events,
        wall.as_nanos() as f64 / events,
        events / cpu.as_secs_f64() / 1e6,
        bytes / ROWS,
    );
}

fn main() {
    let seconds = std::env::args().nth(1).and_then(|s| s.parse().ok()).unwrap_or(2.0);
    let least = Duration::from_secs_f64(seconds);
    let mut names = HostNames::default();
    names.users.extend([(0, "root".to_owned()), (1, "daemon".to_owned())]);
    names.groups.extend([(0, "root".to_owned()), (1, "daemon".to_owned())]);
    let names = Arc::new(names);
    let zone = jiff::tz::TimeZone::UTC;
    for (size, source) in [(304, open_source(304 - HEAD, 0)), (1000, open_source(1000 - HEAD - 512, 512))] {
        let batch = fill(&source, size, false);
        let burst = fill(&source, size, true);
        let modes = [
            ("json", OutputMode::Json, None),
            ("columns, no terminal", OutputMode::Columns, None),
            ("columns, 160 cells", OutputMode::Columns, Some(160)),
        ];
        for (label, mode, width) in modes {
            let env = PrinterEnv { names: names.clone(), zone: zone.clone(), width };
            let mut printer = printer(&source, mode, &FieldSelection::Default, env).expect("the schema has fields");
            let mut out = Vec::new();
            for (of, batch) in [("", &batch), (", one process", &burst)] {
                measure(&format!("{size} B record, {label}{of}"), least, || {
                    out.clear();
                    printer.batch(batch, &mut out);
                    out.len()
                });
            }
        }
        let env = TextEnv { names: names.clone(), zone: zone.clone() };
        for expr in ["proc.pid>=0", "proc.comm==nginx-worker", "error!=EPERM", "fname~\\.png$"] {
            let mut filter = Filter::parse(expr, &source, &env).expect("the fields exist");
            measure(&format!("{size} B record, filter {expr}"), least, || {
                (0..batch.len()).filter(|row| filter.keeps(&batch, *row)).count()
            });
        }
    }
}
