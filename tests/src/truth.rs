//! What is true of a container, by its runtime's word and by its own: each prints the number of its mount namespace.
//!
//! The numbers of namespaces are reused at once, so that a label that came from the container before would show here as
//! an id that does not belong to the number.

use crate::ig::{Finished, at};
use serde_json::Value;
use std::{
    process::Output,
    sync::atomic::{AtomicUsize, Ordering},
};

/// What every container runs, as its first program: it prints `mnt:[NUMBER]`.
pub const PROGRAM: [&str; 3] = ["/bin/busybox", "readlink", "/proc/self/ns/mnt"];

/// How often a show is repeated: 20 times, at full scale 200.
pub fn repeats() -> usize {
    if crate::full_scale() { 200 } else { 20 }
}

/// One container that has run `PROGRAM`.
#[derive(Clone, Debug)]
pub struct Truth {
    pub name: String,
    pub id: String,
    /// As in `runtime.runtimeName`.
    pub runtime: &'static str,
    pub mntns: u64,
}

impl Truth {
    pub fn new(name: &str, id: &str, runtime: &'static str, printed: &str) -> Truth {
        Truth { name: name.into(), id: id.trim().into(), runtime, mntns: mntns(printed) }
    }
}

/// The number in `mnt:[NUMBER]`, which may stand among other output.
pub fn mntns(printed: &str) -> u64 {
    let number = printed.split_once("mnt:[").and_then(|(_, rest)| rest.split_once(']')?.0.parse().ok());
    number.unwrap_or_else(|| panic!("no mount namespace in {printed:?}"))
}

/// What a command printed; panics when it failed.
pub fn printed(what: &str, output: Output) -> String {
    let Output { status, stdout, stderr } = output;
    assert!(status.success(), "{what}: {status}\n{}", String::from_utf8_lossy(&stderr));
    String::from_utf8_lossy(&stdout).into_owned()
}

/// A name that no other container on the machine has, this run's or another's.
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("{prefix}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Calls `make` `count` times, `at_once` at a time.
pub fn repeat(count: usize, at_once: usize, make: impl Fn() -> Truth + Sync) -> Vec<Truth> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut made = Vec::new();
        while next.fetch_add(1, Ordering::Relaxed) < count {
            made.push(make());
        }
        made
    };
    std::thread::scope(|s| {
        let workers: Vec<_> = (0..at_once).map(|_| s.spawn(worker)).collect();
        workers.into_iter().flat_map(|w| w.join().expect("a container that ran")).collect()
    })
}

fn text<'a>(row: &'a Value, field: &str) -> &'a str {
    at(row, field).as_str().unwrap_or_default()
}

pub fn name(row: &Value) -> &str {
    text(row, "runtime.containerName")
}

pub fn id(row: &Value) -> &str {
    text(row, "runtime.containerId")
}

/// Rows of `PROGRAM`.
pub fn of_program(rows: &[Value]) -> impl Iterator<Item = &Value> {
    rows.iter().filter(|r| text(r, "args") == PROGRAM.join(" "))
}

/// What is wrong with the rows, one line each: every container's first exec must be there exactly once, under its own
/// name, id, runtime and mount namespace, and none of those names may be on any other row.
pub fn mistakes(rows: &[Value], truths: &[Truth]) -> Vec<String> {
    let mut wrong = Vec::new();
    for t in truths {
        let mine: Vec<&Value> = of_program(rows).filter(|r| id(r) == t.id).collect();
        match mine[..] {
            [row]
                if name(row) == t.name
                    && text(row, "runtime.runtimeName") == t.runtime
                    && at(row, "proc.mntns_id").as_u64() == Some(t.mntns) => {}
            [] => wrong.push(format!("{t:?}: not seen")),
            _ => {
                let shown = mine.iter().map(|r| format!("{} in {}", r["runtime"], at(r, "proc.mntns_id")));
                wrong.push(format!("{t:?}: shown as {}", shown.collect::<Vec<_>>().join(" and ")));
            }
        }
    }
    for row in rows {
        let swapped = truths.iter().find(|t| t.name == name(row) && t.id != id(row));
        if let Some(t) = swapped {
            wrong.push(format!("the name of {t:?} is on another's row: {row}"));
        }
    }
    wrong
}

/// Panics unless every container's first exec is there, labelled, nothing was lost, and the tracker had nothing to say.
pub fn check(done: &Finished, truths: &[Truth]) {
    let rows = done.rows();
    let wrong = mistakes(&rows, truths);
    assert!(wrong.is_empty(), "{} mistakes about {} containers:\n{}", wrong.len(), truths.len(), wrong.join("\n"));
    let unlabelled: Vec<_> = of_program(&rows).filter(|r| name(r).is_empty()).collect();
    assert!(unlabelled.is_empty(), "rows without a container: {unlabelled:#?}");
    let ledger = done.ledger();
    ledger.check();
    assert_eq!(ledger.lost_total(), 0, "{ledger:?}");
    let notes: Vec<_> = done.stderr.lines().filter(|l| l.contains("container tracker")).collect();
    assert!(notes.is_empty(), "the tracker was not content: {notes:#?}");
    assert!(!truths.is_empty(), "nothing was shown");
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn truth() -> Truth {
        Truth::new("a", "1\n", "docker", "x mnt:[40]\n")
    }

    fn row(name: &str, id: &str, mntns: u64) -> Value {
        json!({
            "args": PROGRAM.join(" "),
            "proc": {"mntns_id": mntns},
            "runtime": {"containerName": name, "containerId": id, "runtimeName": "docker"},
        })
    }

    #[test]
    fn what_is_wrong_is_found() {
        let none = |rows: &[Value]| mistakes(rows, &[truth()]).is_empty();
        assert!(none(&[row("a", "1", 40), row("b", "2", 40)]));
        assert!(!none(&[]), "not seen");
        assert!(!none(&[row("a", "1", 40), row("a", "1", 40)]), "seen twice");
        assert!(!none(&[row("a", "1", 41)]), "in another namespace");
        assert!(!none(&[row("b", "1", 40)]), "under another name");
        assert!(!none(&[row("a", "1", 40), row("a", "2", 41)]), "its name on another's row");
    }
}
