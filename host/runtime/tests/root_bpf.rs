//! The loader against the running kernel: needs root, tracefs, clang and bpftool, and fails loudly without them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/clang.rs"]
mod clang;

use ig_runtime::bpf::{
    KernelBtf, LoadError, LoadOptions, Loaded, Object, State, iter, load,
    maps::{RawMap, Update},
    perf::PerfReader,
    ring::{Rest, Ring},
    wait::{LostCounter, Waiter},
};
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    os::{
        fd::{AsFd, AsRawFd},
        unix::net::UnixStream,
    },
    path::Path,
    process::{Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

/// These tests count system calls of this very process, so they run one after the other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(|e| e.into_inner())
}

fn tgid() -> (String, Vec<u8>) {
    ("only_tgid".into(), std::process::id().to_le_bytes().to_vec())
}

fn loaded(name: &str, options: LoadOptions<'_>) -> Result<Loaded, LoadError> {
    let object = Object::parse(name, &clang::object(name)).unwrap();
    load(name, &object, &KernelBtf::new(), options)
}

fn state(l: &Loaded, program: &str) -> State {
    l.reports().into_iter().find(|r| r.name == program).unwrap_or_else(|| panic!("no {program}")).state
}

fn reason(l: &Loaded, program: &str) -> String {
    match state(l, program) {
        State::Skipped { reason, .. } => reason,
        other => panic!("{program} is {other:?}"),
    }
}

fn getpgid(times: usize) {
    for _ in 0..times {
        // SAFETY: takes a plain number
        assert!(unsafe { libc::getpgid(0) } >= 0);
    }
}

fn getsid(times: usize) {
    for _ in 0..times {
        // SAFETY: takes a plain number
        assert!(unsafe { libc::getsid(0) } >= 0);
    }
}

// SAFETY: the name is this test's own
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn bpf_test_probe_me(x: u64) -> u64 {
    std::hint::black_box(x) + 1
}

fn hits(l: &Loaded, slot: u32) -> u64 {
    RawMap::new(l.map_fd("hits").unwrap()).unwrap().sum_u64(slot).unwrap()
}

#[test]
fn root_every_hook_of_this_kernel_runs_and_the_others_say_why_not() {
    let _alone = alone();
    let mut l = loaded("kinds", LoadOptions { params: vec![tgid()], ..LoadOptions::default() }).unwrap();
    assert_eq!(hits(&l, 0), 0);
    l.attach().unwrap();
    getpgid(100);
    for i in 0..10 {
        std::hint::black_box(bpf_test_probe_me(i));
    }
    drop(std::fs::read("/proc/self/comm").unwrap());
    // A sample comes when the processor has worked for some time: on a busy one, for others as well.
    let until = Instant::now() + Duration::from_secs(60);
    while hits(&l, 5) == 0 && Instant::now() < until {
        (0..1_000_000_u32).for_each(|i| assert_eq!(std::hint::black_box(i), i));
    }
    let counted: Vec<u64> = (0..10).map(|s| hits(&l, s)).collect();
    assert_eq!(counted[0], 100, "tracepoint: {counted:?} {:#?}", l.reports());
    assert!(counted[1] >= 100, "raw_tp: {counted:?}");
    assert!(counted[2] >= 100, "tp_btf: {counted:?}");
    assert!(counted[5] > 0, "perf_event: {counted:?}");
    assert_eq!((counted[6], counted[7]), (10, 10), "uprobe and uretprobe: {counted:?}");
    for p in ["on_tracepoint", "on_raw_tp", "on_tp_btf", "on_perf_event", "on_uprobe", "on_uretprobe", "on_iter_task"] {
        assert_eq!(state(&l, p), State::Attached, "{p}");
    }
    for p in ["on_iter_task_file", "on_iter_tcp", "on_iter_elem"] {
        assert_eq!(state(&l, p), State::Attached, "{p}");
    }
    assert_eq!(reason(&l, "on_missing_tracepoint"), "this kernel has no tracepoint syscalls/sys_enter_no_such_call");
    assert_eq!(reason(&l, "on_missing_tp_btf"), "this kernel has no tracepoint no_such_tracepoint");
    // Runs nowhere before it is opened in network namespaces.
    assert_eq!(state(&l, "on_socket"), State::Attached);
    assert!(reason(&l, "on_unknown").contains("program7"));
    for (program, slot) in [("on_kprobe", 3), ("on_kretprobe", 8)] {
        if Path::new("/sys/bus/event_source/devices/kprobe").exists() {
            assert_eq!(state(&l, program), State::Attached);
            assert!(counted[slot] > 0, "{program}: {counted:?}");
        } else {
            assert_eq!(reason(&l, program), "this kernel has no kprobes (CONFIG_KPROBES, CONFIG_KPROBE_EVENTS)");
        }
    }
    // these depend on the kernel in ways that only trying shows; either they run or they say why not
    for (program, slot) in [("on_fentry", 4), ("on_fexit", 9)] {
        match state(&l, program) {
            State::Attached => assert!(counted[slot] > 0, "{program}: {counted:?}"),
            State::Skipped { reason, .. } => {
                assert!(
                    reason.starts_with("this kernel has no fentry and fexit for BPF programs ("),
                    "{program}: {reason}"
                );
            }
            other => panic!("{program} is {other:?}"),
        }
        println!("{program} is {:?}", state(&l, program));
    }
    l.detach();
    let before = hits(&l, 0);
    getpgid(10);
    assert_eq!(hits(&l, 0), before, "nothing runs after detach, and maps can still be read");
}

#[test]
fn root_iterators_give_rows() {
    let _alone = alone();
    let mut l = loaded("kinds", LoadOptions::default()).unwrap();
    assert_eq!(l.map_info("table").unwrap().max_entries, 7, "sized by the variable table_max_entries");
    l.attach().unwrap();
    let mut me = 0;
    let run = iter::read(l.iterator("on_iter_task").unwrap(), 8, |row| {
        me += usize::from(row[..4] == std::process::id().to_le_bytes());
    })
    .unwrap();
    assert!(run.rows > 1 && run.rest == 0 && me >= 1, "{run:?}, {me} of them mine");
    let again = iter::read(l.iterator("on_iter_task").unwrap(), 8, |_| {}).unwrap();
    assert!(again.rows > 1, "an iterator can be run again");

    let table = RawMap::new(l.map_fd("table").unwrap()).unwrap();
    for i in 0..5u32 {
        table.update(&i.to_le_bytes(), &u64::from(i * 3).to_le_bytes(), Update::Any).unwrap();
    }
    let mut values = Vec::new();
    iter::read(l.iterator("on_iter_elem").unwrap(), 8, |row| values.push(u64::from_le_bytes(row.try_into().unwrap())))
        .unwrap();
    values.sort_unstable();
    assert_eq!(values, [0, 3, 6, 9, 12]);
    assert!(table.update(&[1, 2], &[0; 8], Update::Any).is_err(), "a key of the wrong length");
    let mut rows = BTreeMap::new();
    let n = table.drain(|k, v| {
        rows.insert(k.to_vec(), v.to_vec());
    });
    assert_eq!((n.unwrap(), rows.len()), (5, 5));
    assert_eq!(table.drain(|_, _| panic!("it is empty")).unwrap(), 0);
}

/// Reads the ring as the run does, while `work` is done by another thread; gives rows and losses.
fn read_ring(ring_bytes: u32, work: usize) -> (u64, u64) {
    let options = LoadOptions { params: vec![tgid()], ring_bytes, ..LoadOptions::default() };
    let mut l = loaded("flood", options).unwrap();
    let size = l.map_info("events").unwrap().max_entries;
    assert_eq!(size, ring_bytes);
    let mut ring = Ring::new(l.map_fd("events").unwrap(), size).unwrap();
    let mut lost = LostCounter::new(l.map_fd("events_lost_samples").unwrap()).unwrap();
    let mut waiter = Waiter::new().unwrap();
    waiter.add(ring.fd()).unwrap();
    l.attach().unwrap();
    let (stopped, stop) = UnixStream::pair().unwrap();
    stopped.set_nonblocking(true).unwrap();
    waiter.add(stopped.as_fd()).unwrap();
    let producer = std::thread::spawn(move || {
        getpgid(work);
        (&stop).write_all(b"s").unwrap();
    });
    let (mut rows, mut losses, mut last, mut done) = (0, 0, None, false);
    while !done {
        let mut n = 0;
        n += ring.drain(1024, 1 << 20, |r| {
            assert_eq!(r.len(), 64);
            let sequence = u64::from_le_bytes(r[..8].try_into().unwrap());
            assert!(last.is_none_or(|l| sequence > l), "in order, none twice");
            last = Some(sequence);
        });
        rows += n as u64;
        losses += lost.take().unwrap();
        waiter.wait(n, &mut [&mut ring], None).unwrap();
        done = (&stopped).read(&mut [0]).is_ok_and(|n| n == 1);
    }
    producer.join().unwrap();
    l.detach();
    loop {
        let n = ring.drain(usize::MAX, usize::MAX, |_| {});
        rows += n as u64;
        if n == 0 {
            break;
        }
    }
    assert_eq!(ring.release(), Rest::Nothing);
    losses += lost.take().unwrap();
    (rows, losses)
}

/// Peak memory of this process in KiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Not a test of its own: a process in which nothing else has been loaded.
#[test]
#[ignore = "started by another test"]
fn child_that_loads_a_gadget() {
    let elf = std::fs::read(std::env::var("OBJECT").unwrap()).unwrap();
    let (before, t) = (peak(), Instant::now());
    let object = Object::parse("trace_open", &elf).unwrap();
    let kernel = KernelBtf::new();
    let mut l = load("trace_open", &object, &kernel, LoadOptions::default()).unwrap();
    drop(kernel);
    l.attach().unwrap();
    println!("\nUSED {} {}", peak() - before, t.elapsed().as_millis());
}

#[test]
fn root_loading_a_gadget_does_not_read_all_of_the_kernels_types() {
    let _alone = alone();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let elf = clang::compile(&root.join("gadgets/trace_open/program.bpf.c"), &[&root.join("bpf/include")]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("o.o");
    std::fs::write(&file, elf).unwrap();
    let out = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "child_that_loads_a_gadget"])
        .env("OBJECT", &file)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let used = text.lines().find_map(|l| l.strip_prefix("USED ")).unwrap_or_else(|| panic!("{text}"));
    let kib: u64 = used.split(' ').next().unwrap().parse().unwrap();
    // the kernel's types are 6 MiB as they are, and 35 as a tree of objects
    assert!(kib < 16 << 10, "{kib} KiB at the peak (and ms): {used}");
}

/// Of `n` reserved records the program discards those with sequence % 7 == 3.
fn submitted(reserved: u64) -> u64 {
    reserved - (reserved + 3) / 7
}

#[test]
fn root_a_large_ring_loses_nothing() {
    let _alone = alone();
    // 200,000 records of 72 bytes fit, so nothing depends on when this thread runs
    let (rows, lost) = read_ring(16 << 20, 200_000);
    assert_eq!((rows, lost), (submitted(200_000), 0));
}

#[test]
fn root_what_a_tiny_ring_loses_is_counted_exactly() {
    let _alone = alone();
    let (rows, lost) = read_ring(4096, 100_000);
    assert!(lost > 0, "4 kB hold 56 records; nothing lost would be a wonder");
    assert_eq!(rows, submitted(100_000 - lost), "{lost} lost");
}

#[test]
fn root_the_first_event_after_idle_comes_at_once() {
    let _alone = alone();
    let mut l = loaded("flood", LoadOptions { params: vec![tgid()], ..LoadOptions::default() }).unwrap();
    let size = l.map_info("events").unwrap().max_entries;
    let mut ring = Ring::new(l.map_fd("events").unwrap(), size).unwrap();
    let mut waiter = Waiter::new().unwrap();
    waiter.add(ring.fd()).unwrap();
    l.attach().unwrap();
    for round in 0..5 {
        let late = std::thread::spawn(|| {
            std::thread::sleep(Duration::from_millis(50));
            // the fourth record of seven is discarded: two make sure that one arrives
            getpgid(2);
        });
        let mut rows = 0;
        while rows == 0 {
            // A wakeup that is missed shows as all of this time; a busy machine takes some of it.
            let deadline = Instant::now() + Duration::from_secs(60);
            waiter.wait(0, &mut [&mut ring], Some(deadline)).unwrap();
            assert!(Instant::now() < deadline, "round {round}: no wakeup");
            rows = ring.drain(usize::MAX, usize::MAX, |_| {});
        }
        late.join().unwrap();
        while ring.drain(usize::MAX, usize::MAX, |_| {}) > 0 {}
    }
}

#[test]
fn root_perf_arrays_are_read_and_their_losses_counted() {
    let _alone = alone();
    let mut l = loaded("flood", LoadOptions { params: vec![tgid()], ..LoadOptions::default() }).unwrap();
    let mut perf = PerfReader::new(l.map_fd("perf").unwrap(), 4096).unwrap();
    l.attach().unwrap();
    getsid(10);
    let mut sequences = Vec::new();
    let n = perf.drain(usize::MAX, |r| sequences.push(u64::from_le_bytes(r[..8].try_into().unwrap())));
    sequences.sort_unstable();
    assert_eq!((n, sequences), (10, (0..10).collect()));
    getsid(1000);
    let rows = perf.drain(usize::MAX, |_| {}) as u64;
    let lost = perf.take_lost().unwrap();
    assert!(lost > 0);
    assert_eq!(rows + lost, 1000, "{rows} read, {lost} lost");
    assert_eq!(perf.take_lost().unwrap(), 0, "each is told once");
}

/// Does that on one of the processors, by a thread of its own.
fn on_processor(number: usize, work: impl FnOnce() + Send) {
    let pinned = move || {
        // SAFETY: a set of zeroes is valid, and it is valid for reads of its size
        let done = unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(number, &mut set);
            libc::sched_setaffinity(0, size_of_val(&set), &raw const set)
        };
        assert_eq!(done, 0, "processor {number}: {}", std::io::Error::last_os_error());
        work();
    };
    std::thread::scope(|s| s.spawn(pinned).join().unwrap());
}

#[test]
fn root_a_processor_that_never_runs_dry_keeps_no_other_waiting() {
    let _alone = alone();
    let mut l = loaded("flood", LoadOptions { params: vec![tgid()], ..LoadOptions::default() }).unwrap();
    let mut perf = PerfReader::new(l.map_fd("perf").unwrap(), 64 << 10).unwrap();
    l.attach().unwrap();
    // each record has its number
    on_processor(1, || getsid(5));
    on_processor(0, || getsid(100));
    let mut quiet = 0;
    for _ in 0..3 {
        on_processor(0, || getsid(10));
        let mut look = |r: &[u8]| quiet += usize::from(u64::from_le_bytes(r[..8].try_into().unwrap()) < 5);
        assert!(perf.drain(10, &mut look) <= 10);
    }
    assert_eq!(quiet, 5, "records of the other processor");
}

#[test]
fn root_alternatives_take_the_first_that_works() {
    let _alone = alone();
    let sets = |sets: &[&[&str]]| {
        vec![("job".to_owned(), sets.iter().map(|s| s.iter().map(|p| (*p).to_owned()).collect()).collect())]
    };
    let first =
        sets(&[&["on_missing_tp_btf"], &["on_tp_btf", "on_missing_tracepoint"], &["on_raw_tp"], &["on_tracepoint"]]);
    let mut l =
        loaded("kinds", LoadOptions { alternatives: first, params: vec![tgid()], ..LoadOptions::default() }).unwrap();
    l.attach().unwrap();
    assert_eq!(state(&l, "on_raw_tp"), State::Attached);
    assert_eq!(state(&l, "on_tracepoint"), State::NotNeeded);
    assert_eq!(state(&l, "on_tp_btf"), State::NotNeeded);
    getpgid(3);
    assert_eq!((hits(&l, 0), hits(&l, 2)), (0, 0), "the others do not run");
    assert!(hits(&l, 1) >= 3);

    let none = sets(&[&["on_missing_tp_btf"], &["on_missing_tracepoint"]]);
    let e = loaded("kinds", LoadOptions { alternatives: none, ..LoadOptions::default() }).unwrap_err();
    assert!(matches!(e, LoadError::NoAlternative { .. }), "{e}");
    assert!(e.to_string().contains("no tracepoint no_such_tracepoint"), "{e}");
}

#[test]
fn root_hooks_can_be_moved_and_switched_off() {
    let _alone = alone();
    let attach_to = [("on_tracepoint", "syscalls/sys_enter_getsid"), ("on_raw_tp", "gadget_program_disabled")];
    let attach_to = attach_to.map(|(p, t)| (p.to_owned(), t.to_owned())).into_iter().collect();
    let mut l = loaded("kinds", LoadOptions { attach_to, params: vec![tgid()], ..LoadOptions::default() }).unwrap();
    l.attach().unwrap();
    getsid(4);
    getpgid(1);
    assert_eq!((hits(&l, 0), hits(&l, 1)), (4, 0));
    assert_eq!(state(&l, "on_raw_tp"), State::Disabled);
}

#[test]
fn root_injected_maps_are_the_ones_the_programs_use() {
    let _alone = alone();
    let mut one = loaded("kinds", LoadOptions::default()).unwrap();
    let mine = one.map_fd("hits").unwrap().try_clone_to_owned().unwrap();
    let inject = BTreeMap::from([("hits".to_owned(), mine.as_fd())]);
    let mut two = loaded("kinds", LoadOptions { inject, params: vec![tgid()], ..LoadOptions::default() }).unwrap();
    assert_eq!(two.map_info("hits"), one.map_info("hits"));
    two.attach().unwrap();
    getpgid(6);
    assert_eq!(hits(&one, 0), 6, "the first object's map counts what the second's programs see");
    one.detach();
    let inject = BTreeMap::from([("table".to_owned(), mine.as_fd())]);
    let e = loaded("kinds", LoadOptions { inject, ..LoadOptions::default() }).unwrap_err();
    assert!(matches!(e, LoadError::InjectShape { .. }), "{e}");
}

#[test]
fn root_the_verifiers_words_are_kept() {
    let _alone = alone();
    let mut l = loaded("refused", LoadOptions::default()).unwrap();
    assert!(reason(&l, "wild").contains("R0 invalid mem access"), "{}", reason(&l, "wild"));
    let log = l.reports().into_iter().find(|r| r.name == "no_field").unwrap().log.unwrap();
    assert!(log.contains("195896080"), "a missing field is poison: {log}");
    l.attach().unwrap();
    assert_eq!(state(&l, "guarded"), State::Attached, "a guard makes the missing field harmless");
    drop(l);

    let attach_to = [("guarded".to_owned(), "gadget_program_disabled".to_owned())].into();
    let e = loaded("refused", LoadOptions { attach_to, ..LoadOptions::default() }).unwrap_err();
    assert!(matches!(&e, LoadError::Verifier { program, .. } if program == "wild"), "{e}");
    assert!(e.to_string().contains("tracepoint/syscalls/sys_enter_getpgid"), "{e}");
    assert!(e.log().unwrap().lines().count() > 3);
}

#[test]
fn root_program_arrays_and_kernel_variables_work() {
    let _alone = alone();
    let l = loaded("fields", LoadOptions::default()).unwrap();
    assert_eq!(state(&l, "uses_all"), State::Loaded);
    assert_eq!(l.map_info("jumps").unwrap().value_size, 4);

    let mut l = loaded("core", LoadOptions::default()).unwrap();
    l.attach().unwrap();
    getsid(1);
    let bss = RawMap::new(l.map_fd(".bss").unwrap()).unwrap().lookup(&[0; 4]).unwrap().unwrap();
    let version = bss.chunks_exact(8).find(|c| c[4..] == 0x1234_5678u32.to_le_bytes()).expect("the program ran");
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|n| n.parse::<u8>().unwrap_or(0));
    assert_eq!((version[2], version[1]), (numbers.next().unwrap(), numbers.next().unwrap()), "{release}");
}

#[test]
fn root_wrong_options_are_named() {
    let _alone = alone();
    let fails = |o: LoadOptions<'_>| loaded("kinds", o).unwrap_err().to_string();
    let no = || "nothing".to_owned();
    assert!(fails(LoadOptions { ring_bytes: 5000, ..LoadOptions::default() }).contains("5000"));
    assert!(
        fails(LoadOptions { params: vec![(no(), vec![1])], ..LoadOptions::default() }).contains("variable nothing")
    );
    let short = vec![("only_tgid".to_owned(), vec![1u8])];
    assert!(
        fails(LoadOptions { params: short, ..LoadOptions::default() }).contains("has 4 bytes, the value given has 1")
    );
    assert!(fails(LoadOptions { max_entries: [(no(), 1)].into(), ..LoadOptions::default() }).contains("map nothing"));
    assert!(
        fails(LoadOptions { attach_to: [(no(), no())].into(), ..LoadOptions::default() }).contains("program nothing")
    );
    let kernel = KernelBtf::at("/nonexistent");
    let object = Object::parse("kinds", &clang::object("kinds")).unwrap();
    let e = load("kinds", &object, &kernel, LoadOptions::default()).unwrap_err();
    assert!(matches!(e, LoadError::KernelBtf { .. }) && e.hint().is_some(), "{e}");
    let object = Object::parse("flood", &clang::object("flood")).unwrap();
    load("flood", &object, &kernel, LoadOptions::default()).expect("an object without CO-RE needs no kernel types");
    assert!(!kernel.is_read());
}

fn bpftool(args: &[&str]) -> serde_json::Value {
    let out =
        Command::new("bpftool").arg("-j").args(args).output().expect("bpftool is needed: apt-get install bpftool");
    assert!(
        out.status.success(),
        "bpftool {args:?}: {}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    if out.stdout.is_empty() { serde_json::Value::Null } else { serde_json::from_slice(&out.stdout).unwrap() }
}

/// Kernel ids of a run's programs and maps.
fn ids(l: &Loaded) -> (Vec<u64>, Vec<u64>) {
    let programs = l.reports().into_iter().filter_map(|r| {
        let fd = l.program_fd(&r.name)?;
        Some(fdinfo(fd, "prog_id:").parse().unwrap())
    });
    (programs.collect(), l.map_names().map(|m| l.map_info(m).unwrap().id.into()).collect())
}

fn fdinfo(fd: impl AsRawFd, key: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).unwrap();
    text.lines().find_map(|l| l.strip_prefix(key)).unwrap().trim().to_owned()
}

/// How many of these programs, of their links, and of these maps the kernel has.
fn alive((programs, maps): &(Vec<u64>, Vec<u64>)) -> (usize, usize, usize) {
    let count = |what: &str, key: &str, wanted: &[u64]| {
        let all = bpftool(&[what, "show"]);
        let wanted = |o: &&serde_json::Value| o[key].as_u64().is_some_and(|id| wanted.contains(&id));
        all.as_array().map_or(0, |a| a.iter().filter(wanted).count())
    };
    (count("prog", "id", programs), count("link", "prog_id", programs), count("map", "id", maps))
}

fn gone(ids: &(Vec<u64>, Vec<u64>)) -> bool {
    // the kernel frees them after a grace period
    (0..1200).any(|_| {
        std::thread::sleep(Duration::from_millis(100));
        alive(ids) == (0, 0, 0)
    })
}

#[test]
fn root_nothing_is_left_behind() {
    let _alone = alone();
    let mut l = loaded("kinds", LoadOptions::default()).unwrap();
    l.attach().unwrap();
    let ids = ids(&l);
    let (programs, links, maps) = alive(&ids);
    assert_eq!((programs, maps), (ids.0.len(), ids.1.len()));
    assert!(programs > 8 && links > 5 && maps >= 3, "{programs} programs, {links} links, {maps} maps");
    drop(l);
    assert!(gone(&ids), "{:?}", alive(&ids));
}

/// Not a test of its own: what `root_nothing_is_left_behind_by_sigkill` kills.
#[test]
#[ignore = "started by another test"]
fn child_that_waits_to_be_killed() {
    let mut l = loaded("kinds", LoadOptions::default()).unwrap();
    l.attach().unwrap();
    let ids = ids(&l);
    println!("\nIDS {}", serde_json::to_string(&ids).unwrap());
    std::thread::sleep(Duration::from_secs(600));
}

#[test]
fn root_nothing_is_left_behind_by_sigkill() {
    let _alone = alone();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--nocapture", "child_that_waits_to_be_killed"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ids = lines.map(|l| l.unwrap()).find_map(|l| Some(l.strip_prefix("IDS ")?.to_owned()));
    let ids: (Vec<u64>, Vec<u64>) = serde_json::from_str(&ids.expect("the child loads and attaches")).unwrap();
    assert!(alive(&ids).0 > 8);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(gone(&ids), "{:?}", alive(&ids));
}

/// Loads with libbpf, through bpftool, and compares the kernel's tags: a hash over all instructions of a program.
fn same_as_libbpf(name: &str, elf: &[u8]) -> usize {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("o.o");
    std::fs::write(&file, elf).unwrap();
    let pins = format!("/sys/fs/bpf/ig-test-{}-{name}", std::process::id());
    let pinned = bpftool_load(file.to_str().unwrap(), &pins);
    let object = Object::parse(name, elf).unwrap();
    let l = load(name, &object, &KernelBtf::new(), LoadOptions::default()).unwrap();
    let mut compared = 0;
    for r in l.reports() {
        let Some(fd) = l.program_fd(&r.name) else { continue };
        let ours = fdinfo(fd, "prog_tag:");
        let Some(theirs) = pinned.get(&r.name) else { continue };
        assert_eq!(&ours, theirs, "{name}: {}", r.name);
        compared += 1;
    }
    compared
}

/// Tags by program name. The pins are removed before this returns.
fn bpftool_load(file: &str, pins: &str) -> BTreeMap<String, String> {
    bpftool(&["prog", "loadall", file, pins]);
    let mut tags = BTreeMap::new();
    for e in std::fs::read_dir(pins).unwrap().flatten() {
        let info = bpftool(&["prog", "show", "pinned", e.path().to_str().unwrap()]);
        tags.insert(e.file_name().to_string_lossy().into_owned(), info["tag"].as_str().unwrap().to_owned());
    }
    std::fs::remove_dir_all(pins).unwrap();
    tags
}

#[test]
fn root_programs_are_those_that_libbpf_makes() {
    let _alone = alone();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let include = root.join("bpf/include");
    let mut compared = same_as_libbpf("core", &clang::object("core"));
    assert!(compared > 0, "the CO-RE object");
    for gadget in ["trace_exec", "trace_open", "snapshot_process"] {
        let elf = clang::compile(&root.join("gadgets").join(gadget).join("program.bpf.c"), &[&include]);
        let n = same_as_libbpf(gadget, &elf);
        assert!(n > 0, "{gadget}");
        compared += n;
    }
    assert!(compared >= 6, "{compared} programs compared");
}
