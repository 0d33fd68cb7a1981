//! Every kind of hook that the loader attaches to, with the gadgets of `tests/vm/gadgets`: proven by rows with exact values.

use super::{kernel, run};
use crate::ig::{Finished, Running, at};
use rustix::process::{Pid, getpgid};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    hint::black_box,
    io::{BufRead, BufReader, Write},
    os::{fd::AsRawFd, unix::fs::MetadataExt},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// This and those above are pids that no process has: the call fails with ESRCH.
const NOBODY: i32 = 4_000_000;

fn me() -> i32 {
    std::process::id() as i32
}

fn ask(pid: i32) {
    // Failing is part of the plan.
    getpgid(Pid::from_raw(pid)).ok();
}

/// Starts a gadget that looks only at process `pid`.
fn watching(gadget: &str, pid: u32, arguments: &[&str]) -> Running {
    run(gadget, &["--host", "--pid", &pid.to_string()]).args(arguments).start_ready()
}

/// Stops it; nothing may have been lost.
fn rows(ig: Running) -> (Vec<Value>, Finished) {
    let done = ig.stop().expect_success();
    let ledger = done.ledger();
    ledger.check();
    assert_eq!(ledger.lost_total(), 0, "{ledger:?}");
    (done.rows(), done)
}

/// Values by the hook that saw them, in order.
fn by_hook(rows: &[Value]) -> BTreeMap<String, Vec<i64>> {
    let mut found: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for r in rows {
        assert_eq!(at(r, "pid"), at(&rows[0], "pid"));
        let hook = at(r, "hook").as_str().expect("a text");
        found.entry(hook.to_owned()).or_default().push(at(r, "value").as_i64().expect("a number"));
    }
    found
}

pub(super) fn hooks() {
    let ig = watching("hooks", std::process::id(), &[]);
    for pid in [me(), NOBODY, 1] {
        ask(pid);
    }
    let own = getpgid(None).map_or(0, |p| i64::from(p.as_raw_nonzero().get()));
    let (rows, done) = rows(ig);
    // `getpgid(None)` asks with 0. Process 1 leads the group 1.
    let asked = vec![i64::from(me()), i64::from(NOBODY), 1, 0];
    let answered = vec![own, -3, 1, own];
    let mut wanted: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for hook in ["tracepoint", "raw_tp", "kprobe", "fentry"] {
        wanted.insert(hook.into(), asked.clone());
    }
    for hook in ["tp_btf", "kretprobe", "fexit"] {
        wanted.insert(hook.into(), answered.clone());
    }
    // Asked only where there is such a process, and not for the caller's own group.
    wanted.insert("lsm".into(), vec![i64::from(me()), 1]);
    assert_eq!(by_hook(&rows), wanted, "{}", done.stderr);
}

pub(super) fn uprobes() {
    let mut child =
        Command::new("/bin/target").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("/bin/target");
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().expect("a pipe")).read_line(&mut line).expect("its pid");
    let ig = watching("hooks", line.trim().parse().expect("a pid"), &[]);
    child.stdin.take().expect("a pipe").write_all(b"\n").expect("it reads a line");
    assert!(child.wait().expect("a child of ours").success());
    let (rows, done) = rows(ig);
    let found = by_hook(&rows);
    assert_eq!(found.get("uprobe"), Some(&vec![1, 2, 3, 4, 5]), "{found:?}\n{}", done.stderr);
    assert_eq!(found.get("uretprobe"), Some(&vec![4, 7, 10, 13, 16]), "{found:?}\n{}", done.stderr);
}

pub(super) fn perf_events() {
    const PAGES: usize = 64;
    const PAGE: usize = 4096;
    const BUSY: Duration = Duration::from_secs(2);
    let ig = watching("sampler", std::process::id(), &[]);
    // Fresh memory: every page faults when it is first written.
    let mut memory = vec![0u8; PAGES * PAGE];
    let start = memory.as_ptr().addr();
    for page in memory.chunks_mut(PAGE) {
        page[PAGE / 2] = 1;
    }
    black_box(&memory);
    let begun = Instant::now();
    while begun.elapsed() < BUSY {
        black_box(begun);
    }
    let (rows, done) = rows(ig);
    let faults = rows.iter().filter(|r| at(r, "what") == "fault").filter_map(|r| at(r, "address").as_u64());
    let mut by_page: BTreeMap<usize, u32> = BTreeMap::new();
    for address in faults {
        *by_page.entry(address as usize / PAGE).or_default() += 1;
    }
    // The pages that are wholly ours; the allocator writes to the edges.
    let first = start.div_ceil(PAGE);
    let wrong: Vec<_> =
        (first..first + PAGES - 1).map(|p| by_page.get(&p).copied()).filter(|n| *n != Some(1)).collect();
    assert!(wrong.is_empty(), "each page faults once, but {} did not: {wrong:?}\n{}", wrong.len(), done.stderr);
    // The pace is in the sample: how many there are says little, because the timers of a busy emulator are late.
    let periods: BTreeSet<_> = rows.iter().map(|r| (at(r, "what").as_str(), at(r, "period").as_u64())).collect();
    let wanted = [(Some("clock"), Some(1_000_000_000 / 200)), (Some("fault"), Some(1))];
    assert_eq!(periods, wanted.into(), "{}", done.stderr);
    let clock = rows.iter().filter(|r| at(r, "what") == "clock").count();
    assert!((10..=500).contains(&clock), "{clock} samples of {BUSY:?}\n{}", done.stderr);
}

pub(super) fn iterators() {
    let tcp = std::net::TcpListener::bind("0.0.0.0:0").expect("a port");
    let udp = std::net::UdpSocket::bind("0.0.0.0:0").expect("a port");
    let file = std::fs::File::open("/bin/target").expect("a file");
    let inode = file.metadata().expect("a file").ino();
    let done = run("tables", &["--host"]).run().expect_success();
    let rows = done.rows();
    let count = |kind: &str, pid: u64, number: u64, value: u64| {
        let fits = |r: &&Value| {
            at(r, "kind") == kind && at(r, "pid") == pid && at(r, "number") == number && at(r, "value") == value
        };
        let n = rows.iter().filter(fits).count();
        assert_eq!(n, 1, "{kind} {pid} {number} {value} among {rows:#?}\n{}", done.stderr);
    };
    let me = u64::from(std::process::id());
    count("task", me, me, 0);
    count("task_file", me, file.as_raw_fd() as u64, inode);
    // 10: listening; 7: a UDP socket that is not connected
    count("tcp", 0, tcp.local_addr().expect("an address").port().into(), 10);
    count("udp", 0, udp.local_addr().expect("an address").port().into(), 7);
}

pub(super) fn perf_arrays() {
    let ig = watching("perfarray", std::process::id(), &[]);
    (1..=50).for_each(|n| ask(NOBODY + n));
    let (rows, _) = rows(ig);
    // One buffer a CPU: in order on each, not between them.
    let mut values: Vec<_> = rows.iter().filter_map(|r| at(r, "value").as_i64()).collect();
    values.sort_unstable();
    assert_eq!(values, (1..=50).map(|n| i64::from(NOBODY + n)).collect::<Vec<_>>());
}

pub(super) fn map_tables() {
    let ig = watching("counts", std::process::id(), &["--map-fetch-interval", "0"]);
    for argument in 1..=20 {
        (0..argument).for_each(|_| ask(NOBODY + argument));
    }
    let (rows, _) = rows(ig);
    let mut table: Vec<_> = rows.iter().map(|r| (at(r, "argument").as_i64(), at(r, "calls").as_i64())).collect();
    table.sort_unstable();
    let wanted = (1..=20).map(|n| (Some(i64::from(NOBODY + n)), Some(i64::from(n))));
    assert_eq!(table, wanted.collect::<Vec<_>>());
}

pub(super) fn missing_hooks() {
    let ig = watching("fallback", std::process::id(), &[]);
    (1..=3).for_each(|n| ask(NOBODY + n));
    let (rows, done) = rows(ig);
    let ways: Vec<_> = rows.iter().filter_map(|r| at(r, "way").as_str()).collect();
    let old = kernel() < (5, 11);
    assert_eq!(ways, [if old { "old" } else { "new" }; 3], "{}", done.stderr);
    for said in [
        "program missing_kprobe (kprobe/no_such_function) was skipped: this kernel has no function no_such_function",
        "program missing_fentry (fentry/no_such_function) was skipped: this kernel has no function no_such_function",
        "program missing_lsm (lsm/no_such_hook) was skipped: this kernel has no security hook no_such_hook",
        "program missing_tracepoint (tracepoint/no_such_group/no_such_event) was skipped: this kernel has no tracepoint",
        "program missing_raw_tp (raw_tp/no_such_event) was skipped: this kernel has no tracepoint",
        "program missing_uprobe (uprobe//bin/no_such_file:no_such_symbol) was skipped: there is no file /bin/no_such_file",
    ] {
        assert!(done.stderr.contains(said), "not said: {said}\n{}", done.stderr);
    }
    let degraded = done.stderr.contains("program way_new (tracepoint/syscalls/sys_enter_getpgid) was skipped");
    assert_eq!(degraded, old, "{}", done.stderr);
}
