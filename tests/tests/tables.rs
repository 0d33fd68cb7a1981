//! Tables over time: one after the other in a pipe, each in the place of the one before on a terminal.

use ig_tests::{
    alone,
    ig::{Finished, Ig, at},
    load, source_root,
};
use std::{
    io::Read as _,
    process::{Command, Stdio},
};

/// A run of a gadget of the repository, with the host's processes.
fn run(gadget: &str, flags: &[&str]) -> Ig {
    let folder = source_root().join("gadgets").join(gadget).display().to_string();
    Ig::new(&["run", &folder, "--host"]).args(flags)
}

/// On a terminal of this size.
fn on_terminal(ig: Ig, rows: u32, columns: u32) -> Finished {
    let command = format!("exec script -qec \"stty rows {rows} cols {columns}; $*\" /dev/null");
    ig.through(&["sh", "-c", &command, "sh"]).run()
}

/// What stands on a screen in the end, line by line. Knows what `ig` writes, and fails on anything else.
fn screen(written: &str, rows: usize) -> Vec<String> {
    let mut lines = vec![String::new(); rows];
    let (mut row, mut rest) = (0, written);
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\n' if row + 1 == rows => {
                lines.remove(0);
                lines.push(String::new());
            }
            '\n' => row += 1,
            '\r' => {}
            '\x1b' => {
                let end = rest.find(|c: char| c.is_ascii_alphabetic()).expect("an end of the sequence");
                let (parameters, last) = (&rest[1..end], &rest[end..=end]);
                rest = &rest[end + 1..];
                match (parameters, last) {
                    ("?7", "l" | "h") => {}
                    ("", "H") => row = 0,
                    ("2", "J") => lines.iter_mut().for_each(String::clear),
                    ("", "J") => lines[row..].iter_mut().for_each(String::clear),
                    // Only ever after what is to stay, and before what is to be written anew.
                    ("", "K") => {}
                    (at, "H") => {
                        row = at.strip_suffix(";1").and_then(|n| n.parse::<usize>().ok()).expect("a line") - 1;
                        lines[row].clear();
                    }
                    other => panic!("what does {other:?} do?"),
                }
            }
            c => lines[row].push(c),
        }
    }
    lines
}

mod root {
    use super::*;

    #[test]
    fn several_gadgets_tables_have_each_their_place_on_a_terminal() {
        let _alone = alone();
        let folder = |g: &str| source_root().join("gadgets").join(g).display().to_string();
        let gadgets = [folder("top_process"), folder("top_file")];
        let run = |flags: &[&str]| Ig::new(&["run", &gadgets[0], &gadgets[1], "--host"]).args(flags);
        let dir = tempfile::tempdir().expect("a temporary directory");
        let script = "while :; do echo x >file; done";
        let busy = Command::new("sh").args(["-c", script]).current_dir(dir.path()).spawn();
        let mut busy = busy.expect("a busy process");
        // So long that a busy machine lets the writer write.
        let flags = ["--interval", "1s", "--count", "3", "--top_file.filter", "proc.comm==sh"];
        let done = on_terminal(run(&flags), 15, 70);
        let piped = run(&["--interval", "1s", "--count", "2"]).run();
        let asked = run(&["--interval", "300ms", "--count", "2", "--top_process.fields", "gadget,pid"]);
        let asked = on_terminal(asked, 15, 70);
        busy.kill().expect("the process is still there");
        busy.wait().expect("it ends");

        assert_eq!(done.code(), 0, "{}", done.stderr);
        let written = done.stdout();
        assert_eq!(written.matches("\x1b[2J").count(), 1, "cleared once, and then drawn in place: {written:?}");
        let drawn = |title: &str| written.matches(title).count();
        assert!(drawn("top_process:") >= 3 && drawn("top_file:") >= 3, "{written:?}");
        let lines = screen(&written, 15);
        assert_eq!((lines[0].as_str(), lines[7].as_str()), ("top_process:", "top_file:"), "{lines:#?}");
        assert!(lines[1].contains("PID") && lines[6].contains("do not fit the screen"), "{lines:#?}");
        assert!(lines[8].contains("FILE") && lines[9].contains(" sh "), "{lines:#?}");
        assert!(!written.contains("GADGET"), "the name stands over the table: {written:?}");
        assert!(screen(&asked.stdout(), 15)[1].starts_with("GADGET"), "{}", asked.stdout());

        // Without a terminal rows say whose they are, as with other gadgets.
        assert_eq!(piped.code(), 0, "{}", piped.stderr);
        let text = piped.stdout();
        assert!(!text.contains('\x1b') && !text.contains("top_file:"), "{text}");
        assert!(text.lines().filter(|l| l.starts_with("GADGET")).count() >= 4, "{text}");
    }

    #[test]
    fn in_a_pipe_every_table_has_its_header_and_nothing_steers_a_terminal() {
        let _alone = alone();
        for gadget in ["top_process", "snapshot_process"] {
            let done = run(gadget, &["--interval", "300ms", "--count", "3"]).run();
            assert_eq!(done.code(), 0, "{}", done.stderr);
            let headers = done.stdout().lines().filter(|l| l.starts_with("RUNTIME.CONTAINERNAME")).count();
            assert_eq!(headers, 3, "{gadget}:\n{}", done.stdout());
            assert!(!done.stdout().contains('\x1b'), "{gadget}");
        }
    }

    #[test]
    fn the_count_ends_the_run_and_every_row_is_accounted_for() {
        let _alone = alone();
        for (gadget, count) in [("top_process", 2), ("snapshot_process", 3), ("bpfstats", 2), ("top_file", 2)] {
            let flags = ["--interval", "300ms", "--count", &count.to_string(), "-o", "json", "--ledger"];
            let done = run(gadget, &flags).run();
            assert_eq!(done.code(), 0, "{gadget}: {}", done.stderr);
            assert_eq!(done.stdout().lines().count(), count, "{gadget}: one array a table");
            for line in done.stdout().lines() {
                assert!(line.starts_with('[') && line.ends_with(']'), "{gadget}: {line}");
            }
            done.ledger().check();
        }
        let done = run("snapshot_process", &["-o", "json"]).run();
        assert_eq!((done.code(), done.stdout().lines().count()), (0, 1), "once, unless asked for");
    }

    #[test]
    fn programs_of_gadgets_are_told_from_others() {
        let _alone = alone();
        let dir = tempfile::tempdir().expect("a temporary directory");
        let other = dir.path().join("other");
        load::compile(&source_root().join("gadgets/bpfstats/workload.c"), &other);
        let running = run("trace_open", &["-o", "none"]).start_ready();
        let own = running.pid().to_string();
        // holds a program that is no gadget's, until its input ends
        let other = Command::new(other).arg("hold").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut other = other.expect("a program that runs");
        let mut ready = [0; 6];
        other.stdout.as_mut().expect("a pipe").read_exact(&mut ready).expect("READY");
        let table = |flags: &[&str]| {
            let done = run("bpfstats", &["--count", "1", "--interval", "500ms", "-o", "json"]).args(flags).run();
            assert_eq!(done.code(), 0, "{}", done.stderr);
            done.rows()
        };
        let (all, gadgets) = (table(&[]), table(&["--gadgets-only"]));
        drop(other.stdin.take());
        other.wait().expect("it ends");
        running.stop();
        let of = |rows: &[serde_json::Value], name: &str| {
            rows.iter().filter(|r| at(r, "gadgetName") == name).cloned().collect::<Vec<_>>()
        };
        assert!(of(&all, "").iter().any(|r| at(r, "progName") == "counted"), "{all:#?}");
        assert!(of(&gadgets, "").is_empty(), "{gadgets:#?}");
        for rows in [&all, &gadgets] {
            let [opens, tracker] = ["trace_open", "container tracker"].map(|name| of(rows, name));
            assert!(!opens.is_empty() && !tracker.is_empty(), "{rows:#?}");
            for row in &opens {
                let image = at(row, "gadgetImage").as_str().expect("a text");
                assert!(image.ends_with("gadgets/trace_open"), "{row:#?}");
                assert!(at(row, "pids").as_str().is_some_and(|p| p.split(',').any(|p| p == own)), "{row:#?}");
            }
        }
    }

    #[test]
    fn on_a_terminal_each_table_takes_the_place_of_the_one_before() {
        let _alone = alone();
        let flags = ["--interval", "300ms", "--count", "3"];
        let done = on_terminal(run("top_process", &flags), 8, 70);
        assert_eq!(done.code(), 0, "{}", done.stderr);
        let shown = done.stdout();
        let tables: Vec<&str> = shown.split("\x1b[H\x1b[2J").skip(1).collect();
        assert_eq!(tables.len(), 3, "{shown:?}");
        for table in tables {
            let lines: Vec<&str> = table.lines().filter(|l| !l.trim_start_matches("\x1b[?7h").is_empty()).collect();
            assert_eq!(lines.len(), 7, "a header, rows and how many are missing: {table:?}");
            assert!(lines[0].contains("PID") && lines[6].contains("do not fit the screen"), "{table:?}");
        }
        // What is shown once stays on the terminal whole.
        let once = on_terminal(run("snapshot_process", &[]), 8, 70);
        assert!(!once.stdout().contains('\x1b') && once.stdout().lines().count() > 8, "{:?}", once.stdout());
        let last = on_terminal(run("top_process", &["--count", "1"]), 8, 70);
        assert!(!last.stdout().contains('\x1b') && last.stdout().lines().count() > 8, "{:?}", last.stdout());
    }

    #[test]
    fn the_gadgets_order_gives_way_to_the_users() {
        let _alone = alone();
        let mut child = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().expect("a busy process");
        let first = |flags: &[&str]| {
            let flags = [flags, &["--count", "1", "--interval", "1s", "--max-entries", "1", "-o", "json"]].concat();
            let done = run("top_process", &flags).run();
            assert_eq!(done.code(), 0, "{}", done.stderr);
            let row = done.rows().first().cloned().expect("a row");
            (row["pid"].as_u64().expect("a pid"), row["cpuUsage"].as_f64().expect("a share"))
        };
        let (by_default, by_pid) = (first(&[]), first(&["--sort", "pid"]));
        child.kill().expect("the process is still there");
        child.wait().expect("it ends");
        assert!(by_default.1 > 1.0, "the busiest first: {by_default:?}");
        assert_eq!(by_pid.0, 1, "{by_pid:?}");
    }

    #[test]
    fn a_time_that_is_none_is_refused() {
        let _alone = alone();
        for flags in [["--interval", "often"], ["--interval", "-1s"], ["--count", "many"]] {
            let done = run("snapshot_process", &flags).run();
            assert_eq!((done.code(), done.stdout().as_str()), (2, ""), "{flags:?}: {}", done.stderr);
            assert!(done.stderr.contains(flags[1]), "{}", done.stderr);
        }
        // A stream has no tables.
        let done = run("trace_open", &["--interval", "1s"]).run();
        assert_eq!(done.code(), 2, "{}", done.stderr);
    }
}
