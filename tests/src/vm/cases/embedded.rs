//! The gadgets of the embedded catalogue: the rows are exactly the events there were.

use super::run;
use crate::{
    ig::at,
    load::{Load, UID},
    vm::LOAD,
};
use serde_json::Value;
use std::{path::Path, process::Command};

/// Runs a command as the user that nobody else is. setpriv does one exec as that user.
fn as_user(command: &[&str]) -> std::process::Output {
    let user = format!("--reuid={UID}");
    Command::new("setpriv").args([user.as_str(), "--clear-groups", "--"]).args(command).output().expect("setpriv")
}

fn only_user(arguments: &[&str]) -> Vec<String> {
    let uid = UID.to_string();
    arguments.iter().copied().chain(["--host", "--uid", &uid]).map(str::to_owned).collect()
}

/// Runs the gadget on what that user does; gives the rows, none of which may be lost.
fn rows_of(gadget: &str, arguments: &[&str], work: impl FnOnce()) -> Vec<Value> {
    let all = only_user(arguments);
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let ig = run(gadget, &all).start_ready();
    work();
    let done = ig.stop().expect_success();
    let ledger = done.ledger();
    ledger.check();
    assert_eq!(ledger.lost_total(), 0, "{ledger:?}");
    done.rows()
}

pub(super) fn trace_exec() {
    let rows = rows_of("trace_exec", &[], || {
        let out = as_user(&["/bin/busybox", "echo", "a b", "", "ü"]);
        assert_eq!(String::from_utf8_lossy(&out.stdout), "a b  ü\n");
    });
    assert_eq!(rows.len(), 1, "{rows:#?}");
    let row = &rows[0];
    assert_eq!(at(row, "args"), "/bin/busybox echo a b  ü");
    assert_eq!(at(row, "proc.comm"), "busybox");
    assert_eq!(at(row, "error"), "");
    assert_eq!(at(row, "proc.creds.uid"), UID);
    assert_eq!(at(row, "proc.parent.pid"), std::process::id());
}

pub(super) fn trace_exec_failed() {
    let rows = rows_of("trace_exec", &["--ignore-failed=false"], || {
        assert!(!as_user(&["/no/such/program", "x"]).status.success());
        assert!(as_user(&["/bin/busybox", "true"]).status.success());
    });
    let seen: Vec<_> = rows.iter().map(|r| (at(r, "args").as_str(), at(r, "error").as_str())).collect();
    assert_eq!(seen, [(Some("/no/such/program x"), Some("ENOENT")), (Some("/bin/busybox true"), Some(""))]);
}

pub(super) fn trace_open() {
    let load = Load::at(Path::new(LOAD));
    let missing = load.missing_path();
    let rows = rows_of("trace_open", &[], || {
        assert_eq!(load.run(&["open", "-s", "-n", "10"], &missing).ops, 10);
    });
    let names: Vec<_> = rows.iter().filter_map(|r| at(r, "fname").as_str()).collect();
    let wanted: Vec<_> = (0..10).map(|n| format!("{}.0.{n}", missing.display())).collect();
    assert_eq!(names, wanted);
    for row in &rows {
        assert_eq!((at(row, "error").as_str(), at(row, "flags").as_str()), (Some("ENOENT"), Some("O_RDONLY")));
        assert_eq!((at(row, "proc.comm").as_str(), at(row, "fd").as_i64()), (Some("load"), Some(-1)));
    }
    // With paths, what an open found: the walk from the file to the root runs on this kernel too.
    let rows = rows_of("trace_open", &["--paths", "--failed=false"], || {
        assert_eq!(load.run(&["open", "-n", "1"], &load.nothing()).ops, 1);
    });
    let found: Vec<_> = rows.iter().filter_map(|r| at(r, "fpath").as_str()).collect();
    assert_eq!(found, [load.nothing().to_str().unwrap_or_default()], "{rows:#?}");
}

pub(super) fn snapshot_process() {
    let done = run("snapshot_process", &["--host"]).run().expect_success();
    let mut shown: Vec<_> = done.rows().iter().filter_map(|r| at(r, "pid").as_u64()).collect();
    shown.sort_unstable();
    let ig = shown.clone();
    shown.dedup();
    assert_eq!(ig, shown, "no process twice");
    for pid in [1, u64::from(std::process::id())] {
        assert!(shown.contains(&pid), "{pid} is not among {shown:?}");
    }
    // Every process of user space that there is before and after. Kernel threads come and go.
    let there = std::fs::read_dir("/proc").expect("procfs").flatten();
    let there = there.filter_map(|e| e.file_name().to_str()?.parse::<u64>().ok());
    let lasting = there.filter(|p| std::fs::read(format!("/proc/{p}/cmdline")).is_ok_and(|c| !c.is_empty()));
    let missing: Vec<_> = lasting.filter(|p| !shown.contains(p)).collect();
    assert!(missing.is_empty(), "{missing:?} are not among {shown:?}");
}

/// Before Linux 5.12 the kernel leaves the rest of a longer name behind the end of a shorter one.
pub(super) fn comm_filters() {
    let name = |n: &str| std::fs::write("/proc/thread-self/comm", n).expect("a thread may name itself");
    let work = || {
        std::thread::spawn(move || {
            name("a-much-longer-1");
            name("ab");
            // A process of its own that has this name, for the list of processes: a copy before its exec is too short-lived.
            drop(std::fs::File::open("/no/such/file/of/ab"));
            name("abc");
            drop(std::fs::File::open("/no/such/file/of/abc"));
        })
        .join()
        .expect("a thread that does not panic");
    };
    let ig = run("trace_open", &["--host", "--comm", "ab"]).start_ready();
    work();
    let rows = ig.stop().expect_success().rows();
    let seen: Vec<_> = rows.iter().map(|r| (at(r, "proc.comm").as_str(), at(r, "fname").as_str())).collect();
    // Naming the thread is an open, too: the one that made it `abc` was made as `ab`.
    assert_eq!(
        seen,
        [(Some("ab"), Some("/no/such/file/of/ab")), (Some("ab"), Some("/proc/thread-self/comm"))],
        "{rows:#?}"
    );
    snapshot_by_name();
}

/// The same for the table of processes, which reads the names out of the tasks as they are.
fn snapshot_by_name() {
    let script = "echo a-much-longer-1 >/proc/$$/comm; echo -n ab >/proc/$$/comm; echo ready; read end";
    let mut child = Command::new("/bin/sh")
        .args(["-c", script])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("sh");
    let mut line = String::new();
    let out = child.stdout.as_mut().expect("a pipe");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).expect("a line");
    assert_eq!(line, "ready\n");
    let rows = run("snapshot_process", &["--host", "--comm", "ab"]).run().expect_success().rows();
    let seen: Vec<_> = rows.iter().map(|r| (at(r, "comm").as_str(), at(r, "pid").as_u64())).collect();
    assert_eq!(seen, [(Some("ab"), Some(u64::from(child.id())))], "{rows:#?}");
    child.kill().expect("a child of ours");
    child.wait().expect("a child of ours");
}
