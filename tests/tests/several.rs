//! `ig run GADGET GADGET…`: one process, one tracker, rows that say whose they are, and accounts that add up.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its case has failed")]

use ig_tests::{
    alone,
    docker::Docker,
    ig::{Finished, Ig, Ledger, at, binary, cpu_ticks},
    load::{Load, UID},
    wait_for,
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    process::{Child, Command},
    time::Duration,
};

const LOSS: i32 = 4;
const ENVIRONMENT: i32 = 3;
const BOTH: [&str; 2] = ["trace_exec", "trace_open"];

/// `trace_exec` and `trace_open` of the load generator only.
fn both(arguments: &[&str]) -> Ig {
    let uid = UID.to_string();
    let ig =
        Ig::new(&["run", "trace_exec", "trace_open", "--host", "--trace_exec.uid", &uid, "--trace_open.uid", &uid]);
    ig.args(arguments)
}

/// The accounts by gadget and source, as `--ledger -o json` prints them.
fn ledgers(done: &Finished) -> BTreeMap<String, BTreeMap<String, Ledger>> {
    let line = done.stderr.lines().rev().find(|l| l.starts_with("{\"ledger\":")).unwrap();
    serde_json::from_value(serde_json::from_str::<Value>(line).unwrap()["gadgets"].clone()).unwrap()
}

fn count(rows: &[Value], gadget: &str) -> usize {
    rows.iter().filter(|r| at(r, "gadget") == gadget).count()
}

/// A program that writes without end; ended with the test, however that ends.
struct Busy(Child);

impl Drop for Busy {
    fn drop(&mut self) {
        if self.0.kill().is_ok() {
            drop(self.0.wait());
        }
    }
}

/// From the first of these words on.
fn part(done: Finished, from: &str, to: &str) -> String {
    let text = done.expect_success().stdout();
    let start = text.find(from).unwrap_or_else(|| panic!("no {from:?} in:\n{text}"));
    let end = text[start..].find(to).map_or(text.len(), |at| start + at);
    text[start..end].trim_end().to_owned()
}

#[test]
fn help_has_the_flags_of_each_gadget_under_its_name() {
    let done = Ig::new(&["run", "snapshot_process", "trace_open", "--help"]).run();
    insta::assert_snapshot!(part(done, "Parameters of", "Global options"));
}

#[test]
fn a_parameter_that_is_called_like_a_flag_of_tables_has_that_of_its_gadget() {
    let done = Ig::new(&["run", "trace_sched", "top_process", "--help"]).run();
    let text = part(done, "Parameters of", "Global options");
    let lines = |flag: &str| text.lines().filter(|l| l.trim_start().starts_with(flag)).count();
    assert_eq!([lines("--trace_sched.interval"), lines("--interval")], [1, 1], "{text}");
}

#[test]
fn help_of_a_verb_is_that_of_its_gadget_and_ends_with_the_flags_of_before() {
    let done = Ig::new(&["snapshot", "process", "--help"]).run();
    let text = part(done, "snapshot_process: ", "\u{0}");
    assert!(text.contains("Usage: ig run") && text.contains("--threads"), "{text}");
    insta::assert_snapshot!(text.split("Old flags").nth(1).unwrap());
}

mod root {
    use super::*;

    #[test]
    fn every_row_is_under_its_gadget_and_the_accounts_add_up() {
        let _alone = alone();
        let load = Load::build();
        let ig = both(&["-o", "json", "--ledger"]).start_ready_all(&BOTH);
        load.run(&["open", "-n", "5000"], &load.missing_path());
        load.run(&["exec", "-n", "300"], &load.nothing());
        let done = ig.stop().expect_success();
        let rows = done.rows();
        // Each start of the generator is one more exec, and what it starts opens nothing.
        assert_eq!((count(&rows, "trace_open"), count(&rows, "trace_exec")), (5000, 302));
        for row in &rows {
            let path = at(row, "fname");
            assert_eq!(at(row, "gadget") == "trace_open", path.is_string(), "{row}");
        }
        done.ledger().check();
        let each = ledgers(&done);
        let of = |gadget: &str, source: &str| {
            let ledger = &each[gadget][source];
            ledger.check();
            (ledger.produced, ledger.delivered)
        };
        assert_eq!((of("trace_open", "open"), of("trace_exec", "exec")), ((5000, 5000), (302, 302)));
        assert_eq!(done.ledger().produced, 5302);
    }

    #[test]
    fn filters_fields_and_parameters_are_of_the_gadget_that_is_named() {
        let _alone = alone();
        let load = Load::build();
        let dir = tempfile::tempdir().unwrap();
        let record = dir.path().join("opens.igrec");
        let ig = both(&["-o", "json", "--failed", "--trace_open.fields", "fname,error", "--ledger"])
            .args(&["--trace_open.filter", "error==ENOENT", "--trace_exec.filter", "proc.comm==nothing"])
            .args(&["--trace_open.record", record.to_str().unwrap()])
            .start_ready_all(&BOTH);
        load.run(&["open", "-n", "10"], &load.missing_path());
        load.run(&["open", "-n", "10"], &load.nothing());
        load.run(&["exec", "-n", "20"], &load.nothing());
        let done = ig.stop().expect_success();
        let rows = done.rows();
        assert_eq!((count(&rows, "trace_open"), count(&rows, "trace_exec")), (10, 20));
        let open = rows.iter().find(|r| at(r, "gadget") == "trace_open").unwrap();
        let expected =
            format!(r#"{{"error":"ENOENT","fname":"{}","gadget":"trace_open"}}"#, load.missing_path().display());
        assert_eq!(open.to_string(), expected);
        assert_eq!(done.ledger().left_out["filtered"], 3, "the generator's own execs");
        // A recording is of one gadget, and knows of no other.
        let replayed = Ig::new(&["replay", record.to_str().unwrap(), "-o", "json"]).run().expect_success().rows();
        assert!(replayed.len() == 10 && replayed.iter().all(|r| at(r, "gadget").is_null()), "{replayed:?}");
    }

    #[test]
    fn columns_name_the_gadget_and_a_heading_stands_over_every_change() {
        let _alone = alone();
        let load = Load::build();
        let ig = both(&["--trace_exec.fields", "proc.comm,args", "--trace_open.fields", "fname"]);
        let ig = ig.start_ready_all(&BOTH);
        // Each waits until the one before has surely been written.
        for _ in 0..2 {
            load.run(&["open", "-n", "2"], &load.missing_path());
            std::thread::sleep(Duration::from_millis(700));
        }
        let done = ig.stop().expect_success();
        let (mut shape, mut kinds) = (String::new(), Vec::new());
        for line in done.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            if words[0] == "GADGET" {
                shape = words[1..].join(" ");
            } else {
                let expected = if words[0] == "trace_open" { "FNAME" } else { "COMM ARGS" };
                assert_eq!(shape, expected, "over {line:?}");
            }
            if kinds.last().map(String::as_str) != Some(words[0]) {
                kinds.push(words[0].to_owned());
            }
        }
        assert!(kinds.windows(2).all(|w| w[0] == "GADGET" || w[1] == "GADGET"), "{kinds:?}");
        assert_eq!(done.lines().filter(|l| l.starts_with("trace_open ")).count(), 4);
        assert_eq!(done.lines().filter(|l| l.starts_with("trace_exec ")).count(), 2);
    }

    #[test]
    fn a_snapshot_that_is_done_leaves_the_others_running() {
        let _alone = alone();
        let load = Load::build();
        let uid = UID.to_string();
        let ig = Ig::new(&["run", "snapshot_process", "trace_open", "--host", "-o", "json", "--trace_open.uid", &uid])
            .start_ready_all(&["snapshot_process", "trace_open"]);
        std::thread::sleep(Duration::from_millis(500));
        load.run(&["open", "-n", "100"], &load.missing_path());
        let rows = ig.stop().expect_success().rows();
        assert_eq!(count(&rows, "trace_open"), 100);
        assert!(count(&rows, "snapshot_process") > 10);
        // Alone it would have ended by itself.
        let two = Ig::new(&["run", "snapshot_process", "trace_open", "--host", "-o", "none", "-t", "2"]);
        let start = std::time::Instant::now();
        two.run().expect_success();
        assert!(start.elapsed() >= Duration::from_secs(2));
    }

    #[test]
    fn every_gadget_shows_its_tables_on_every_sigusr1_and_the_run_sleeps_again() {
        let _alone = alone();
        // Tables that are read when they are asked for, and somebody who always has rows in both.
        let file = tempfile::NamedTempFile::new().unwrap();
        let busy = Busy(
            Command::new("/bin/sh")
                .args(["-c", "while :; do echo x; done"])
                .stdout(file.reopen().unwrap())
                .spawn()
                .unwrap(),
        );
        let ig = Ig::new(&["run", "top_file", "profile_cpu", "--host", "-o", "json", "--interval", "0"])
            .start_ready_all(&["top_file", "profile_cpu"]);
        let shown = || {
            let rows = ig.stdout();
            ["top_file", "profile_cpu"].map(|g| rows.matches(&format!("\"gadget\":\"{g}\"")).count())
        };
        for _ in 0..5 {
            // Some samples of what runs now: there are 49 in a second of a processor's time.
            let until = cpu_ticks(busy.0.id()) + 30;
            wait_for("a busy process", Duration::from_secs(120), || (cpu_ticks(busy.0.id()) >= until).then_some(()));
            let before = shown();
            ig.signal("USR1");
            wait_for("the tables of both", Duration::from_secs(120), || {
                let now = shown();
                (now[0] > before[0] && now[1] > before[1]).then_some(())
            });
        }
        drop(busy);
        let before = ig.cpu_ticks();
        std::thread::sleep(Duration::from_secs(2));
        let used = ig.cpu_ticks() - before;
        assert!(used < 100, "{used} ticks of 200 without an event: it spins");
        ig.stop().expect_success();
    }

    #[test]
    fn containers_have_their_names_in_the_rows_of_every_gadget() {
        let _alone = alone();
        let docker = Docker::start();
        let ig = Ig::new(&["run", "trace_exec", "trace_open", "-o", "json", "-c", "several-web", "--ledger"])
            .arg("--docker-socketpath")
            .arg(docker.socket().display().to_string())
            .start_ready_all(&BOTH);
        docker.run(&["run", "--rm", "--net=none", "--name", "several-web", "busybox", "cat", "/etc/hostname"]);
        docker.run(&["run", "--rm", "--net=none", "--name", "several-other", "busybox", "cat", "/etc/hostname"]);
        let done = ig.stop().expect_success();
        let rows = done.rows();
        assert!(rows.iter().all(|r| at(r, "runtime.containerName") == "several-web"), "{rows:#?}");
        let has = |gadget: &str, field: &str, value: &str| {
            rows.iter().any(|r| at(r, "gadget") == gadget && at(r, field) == value)
        };
        assert!(has("trace_exec", "args", "cat /etc/hostname") || has("trace_exec", "args", "/bin/cat /etc/hostname"));
        assert!(has("trace_open", "fname", "/etc/hostname"), "{rows:#?}");
        done.ledger().check();
    }

    #[test]
    fn loss_in_one_gadget_is_told_under_its_name_and_in_the_exit_code() {
        let _alone = alone();
        let load = Load::build();
        let ig = both(&["-o", "none", "--fail-on-loss", "--buffer-size", "4KiB"]).start_ready_all(&BOTH);
        ig.signal("STOP");
        load.run(&["open", "-n", "20000"], &load.missing_path());
        ig.signal("CONT");
        let done = ig.stop();
        assert_eq!(done.code(), LOSS, "{}", done.stderr);
        let lossy = done.stderr.lines().find(|l| l.starts_with("trace_open (open) ledger: 20000 produced"));
        assert!(lossy.is_some(), "{}", done.stderr);
        assert!(done.stderr.contains("all gadgets ledger: "), "{}", done.stderr);
    }

    #[test]
    fn one_that_cannot_start_ends_the_run_and_is_named() {
        let _alone = alone();
        let done = both(&["-o", "json", "--trace_open.record", "/nonexistent/opens.igrec"]).run();
        assert_eq!((done.code(), done.stdout().as_str()), (ENVIRONMENT, ""), "{}", done.stderr);
        let said =
            "error: trace_open: recording file /nonexistent/opens.igrec: No such file or directory (os error 2)\n";
        assert_eq!(done.stderr, said);
    }

    #[test]
    fn a_closed_stdout_ends_all_of_them_quietly() {
        let _alone = alone();
        let dir = tempfile::tempdir().unwrap();
        let script = format!(
            "{} run trace_exec trace_open --host -o json --store {1}/store 2>{1}/err | head -n 1",
            binary().display(),
            dir.path().display()
        );
        let busy = "while :; do /bin/true; sleep 0.02; done & busy=$!; trap 'kill $busy' EXIT; ";
        let out = Command::new("timeout")
            .args(["180", "bash", "-c", &format!("{busy}{script}; exit ${{PIPESTATUS[0]}}")])
            .output()
            .unwrap();
        let said = std::fs::read_to_string(dir.path().join("err")).unwrap();
        assert_eq!(out.status.code(), Some(0), "{said}");
        assert_eq!(String::from_utf8_lossy(&out.stdout).lines().count(), 1);
        assert!(!said.contains("error") && !said.to_lowercase().contains("broken pipe"), "{said}");
    }
}
