//! What is left and what is missing: nothing stays in the kernel, and every event is seen or counted.

use super::{kernel, run};
use crate::{
    ig::Ledger,
    kernel::{Objects, pins},
    load::{Load, UID},
    vm::LOAD,
    wait_for,
};
use std::{fs, path::Path, time::Duration};

/// Probes that are set through tracefs, where they would outlive their maker.
fn probes() -> String {
    let list = |name| fs::read_to_string(format!("/sys/kernel/tracing/{name}")).unwrap_or_default();
    list("kprobe_events") + &list("uprobe_events")
}

pub(super) fn sigkill() {
    let pins_before = pins();
    let pid = std::process::id().to_string();
    // Every kind of hook, and one that tracks containers.
    for arguments in [&["hooks", "--host", "--pid", &pid][..], &["trace_exec"]] {
        let ig = run(arguments[0], &arguments[1..]).start_ready();
        let held = Objects::of(ig.pid());
        assert!(
            !held.programs.is_empty() && !held.maps.is_empty(),
            "a running gadget holds programs and maps: {held:?}"
        );
        assert!(!held.still_there().is_empty(), "the kernel lists what a running gadget holds");
        ig.signal("KILL");
        assert_eq!(ig.wait().status.code(), None);
        wait_for("the kernel to drop every BPF object of the run", Duration::from_secs(180), || {
            held.still_there().is_empty().then_some(())
        });
        assert_eq!(pins(), pins_before);
        assert_eq!(probes(), "");
    }
}

/// Through a ring of one page: what was generated is what was printed and what is counted as lost.
fn accounted(gadget: &str, work: impl FnOnce(&Load) -> u64) -> Ledger {
    let load = Load::at(Path::new(LOAD));
    let ig = run(gadget, &["--host", "--uid", &UID.to_string(), "--buffer-size", "4096"]).start_ready();
    let generated = work(&load);
    let done = ig.stop().expect_success();
    let ledger = done.ledger();
    ledger.check();
    let seen = done.lines().count() as u64;
    assert_eq!(seen, ledger.delivered, "lines printed and rows said to be delivered differ");
    let known = seen + ledger.lost_total();
    let all = known..=known + ledger.missed_runs;
    assert!(all.contains(&generated), "generated {generated}, {ledger:?}\n{}", done.stderr);
    assert!(seen > 0, "nothing was seen: {ledger:?}");
    ledger
}

pub(super) fn opens_accounted() {
    let ledger = accounted("trace_open", |load| {
        // More processes than processors, so that they preempt each other.
        let done = load.run(&["open", "-p", "4", "-n", "10000"], &load.missing_path());
        assert_eq!(done.ops, 40_000);
        done.ops
    });
    assert_eq!(ledger.missed_runs, 0, "it uses a hook that cannot be preempted: {ledger:?}");
}

pub(super) fn execs_accounted() {
    let ledger = accounted("trace_exec", |load| {
        let done = load.run(&["exec", "-p", "2", "-n", "150"], &load.nothing());
        assert_eq!(done.ops, 300);
        // and the exec of the generator itself
        done.ops + 1
    });
    // From Linux 7.0 on its program may be preempted by another exec, whose run the kernel then leaves out.
    assert!(ledger.missed_runs == 0 || kernel() >= (7, 0), "nothing preempts this program here: {ledger:?}");
}

/// The gadget's own program, a socket filter, is never skipped; those that tell it whose a socket is look at the end of every call.
pub(super) fn socket_enricher_skipped() {
    let load = Load::at(Path::new(LOAD));
    let ig = run("trace_dns", &["--host", "--fail-on-loss"]).start_ready();
    load.run(&["open", "-p", "6", "-n", "20000"], &load.missing_path());
    let done = ig.stop();
    let ledger = done.ledger();
    ledger.check();
    // From Linux 7.0 on another process may preempt them, and has its own end of a call skipped.
    assert_eq!(ledger.missed_runs > 0, kernel() >= (7, 0), "{ledger:?}\n{}", done.stderr);
    let told = done.stderr.contains("socket enricher: ") && done.stderr.contains("were left out by the kernel");
    assert_eq!((told, done.code() == 4), (ledger.missed_runs > 0, ledger.missed_runs > 0), "{}", done.stderr);
}
