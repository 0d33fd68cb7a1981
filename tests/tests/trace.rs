//! The gadgets of the embedded catalogue, on this kernel, from an empty disk: the rows a user sees.

use ig_tests::{
    alone,
    ig::{Ig, at},
    load::{Load, UID},
    wait_for,
};
use serde_json::Value;
use std::{process::Command, time::Duration};

mod root {
    use super::*;

    #[test]
    fn trace_exec_shows_a_program_with_its_arguments() {
        let _alone = alone();
        let mut ig = Ig::new(&["run", "trace_exec", "--host", "-o", "json"]).start_ready();
        let child = Command::new("/bin/echo").args(["a b", "", "ü", "tab\there", "\"quoted\""]).output().unwrap();
        assert!(child.status.success());
        ig.wait_ready();
        let done = ig.stop().expect_success();
        let rows = done.rows();
        let row =
            rows.iter().find(|r| at(r, "proc.comm") == "echo").unwrap_or_else(|| panic!("no row of echo in {rows:#?}"));
        assert_eq!(at(row, "args"), "/bin/echo a b  ü tab\there \"quoted\"");
        assert_eq!(at(row, "error"), "");
        assert_eq!(at(row, "proc.creds.uid"), 0);
        assert_eq!(at(row, "proc.creds.user"), "root");
        assert_eq!(at(row, "proc.parent.pid"), std::process::id());
        assert!(at(row, "timestamp").is_string() && at(row, "timestamp_raw").is_u64(), "{row}");
    }

    #[test]
    fn trace_exec_shows_five_thousand_arguments_or_says_that_it_cut_them() {
        let _alone = alone();
        let ig = Ig::new(&["run", "trace_exec", "--host", "-o", "json"]).start_ready();
        let arguments: Vec<String> = (0..5000).map(|i| i.to_string()).collect();
        assert!(Command::new("/bin/true").args(&arguments).status().unwrap().success());
        let done = ig.stop().expect_success();
        let rows = done.rows();
        // Ours, not that of somebody's script.
        let ours = |r: &&Value| at(r, "proc.comm") == "true" && at(r, "proc.parent.pid") == std::process::id();
        let row = rows.iter().find(ours).expect("a row of true");
        let whole = format!("/bin/true {}", arguments.join(" "));
        let shown = at(row, "args").as_str().unwrap();
        let cut = at(row, "args_truncated").as_bool().expect("a flag that says whether arguments were cut");
        assert_eq!(cut, shown != whole, "{} of {} bytes are shown", shown.len(), whole.len());
        assert!(whole.starts_with(shown), "what is shown is the beginning");
    }

    #[test]
    fn trace_exec_shows_failed_execs_only_when_asked() {
        let _alone = alone();
        for (flag, expected) in [("--ignore-failed=true", 0), ("--ignore-failed=false", 1)] {
            let load = Load::build();
            let ig = Ig::new(&["run", "trace_exec", "--host", "-o", "json", flag, "--uid"])
                .arg(UID.to_string())
                .start_ready();
            let status = Command::new("setpriv")
                .arg(format!("--reuid={UID}"))
                .args(["--clear-groups", "--"])
                .arg(load.missing_path())
                .status()
                .unwrap();
            assert!(!status.success());
            let rows = ig.stop().expect_success().rows();
            let failed = rows.iter().filter(|r| at(r, "error") == "ENOENT").count();
            assert_eq!(failed, expected, "{flag}: {rows:#?}");
        }
    }

    #[test]
    fn trace_open_shows_path_flags_and_error() {
        let _alone = alone();
        let load = Load::build();
        let path = load.missing_path();
        let ig = Ig::new(&["run", "trace_open", "--host", "-o", "json", "--uid"]).arg(UID.to_string()).start_ready();
        let done = load.run(&["open", "-n", "10"], &path);
        let rows = ig.stop().expect_success().rows();
        let ours: Vec<_> = rows.iter().filter(|r| at(r, "fname") == path.to_str().unwrap()).collect();
        assert_eq!(ours.len() as u64, done.ops);
        assert_eq!(at(ours[0], "error"), "ENOENT");
        assert_eq!(at(ours[0], "flags"), "O_RDONLY");
        assert_eq!(at(ours[0], "proc.creds.uid"), UID);
        assert_eq!(at(ours[0], "proc.comm"), "load");
    }

    #[test]
    fn trace_open_failed_shows_only_opens_that_failed() {
        let _alone = alone();
        let load = Load::build();
        let ig = Ig::new(&["run", "trace_open", "--host", "-o", "json", "--failed", "--uid"])
            .arg(UID.to_string())
            .start_ready();
        load.run(&["open", "-n", "5"], &load.nothing());
        load.run(&["open", "-n", "7"], &load.missing_path());
        let rows = ig.stop().expect_success().rows();
        assert_eq!(rows.len(), 7, "{rows:#?}");
        assert!(rows.iter().all(|r| at(r, "error") == "ENOENT"));
    }

    #[test]
    fn snapshot_process_lists_this_process_once_and_ends_by_itself() {
        let _alone = alone();
        let rows = Ig::new(&["run", "snapshot_process", "--host", "-o", "json"]).run().expect_success().rows();
        let me = u64::from(std::process::id());
        assert_eq!(rows.iter().filter(|r| at(r, "pid") == me).count(), 1, "of {} rows", rows.len());
        let threads =
            Ig::new(&["run", "snapshot_process", "--host", "--threads", "-o", "json"]).run().expect_success().rows();
        // The test harness runs each test in a thread of its own.
        assert!(threads.iter().filter(|r| at(r, "pid") == me).count() > 1, "of {} rows", threads.len());
    }

    #[test]
    fn fields_and_filters_work_in_json() {
        let _alone = alone();
        let load = Load::build();
        let ig = Ig::new(&[
            "run",
            "trace_open",
            "--host",
            "-o",
            "json",
            "--fields",
            "fname,error",
            "--filter",
            "error==ENOENT",
            "--ledger",
        ])
        .args(&["--uid", &UID.to_string()])
        .start_ready();
        load.run(&["open", "-n", "4"], &load.nothing());
        load.run(&["open", "-n", "3"], &load.missing_path());
        let done = ig.stop().expect_success();
        let rows = done.rows();
        assert_eq!(rows.len(), 3);
        let keys: Vec<_> = rows[0].as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys, ["error", "fname"]);
        let ledger = done.ledger();
        ledger.check();
        assert_eq!((ledger.produced, ledger.delivered, ledger.left_out["filtered"]), (7, 3, 4));
    }

    #[test]
    fn a_timeout_ends_the_run_with_success() {
        let _alone = alone();
        let start = std::time::Instant::now();
        Ig::new(&["run", "trace_exec", "--host", "-o", "none", "--timeout", "1"]).run().expect_success();
        // One that never ends by itself is given up after ten minutes, which is a failure.
        assert!(start.elapsed().as_secs() >= 1, "took {:?}", start.elapsed());
    }

    #[test]
    fn a_record_replays_to_the_same_rows() {
        let _alone = alone();
        let load = Load::build();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("opens.igrec");
        let live = Ig::new(&["run", "trace_open", "--host", "-o", "json", "--uid", &UID.to_string(), "--record"])
            .arg(file.to_str().unwrap())
            .start_ready();
        load.run(&["open", "-n", "500"], &load.missing_path());
        let live = live.stop().expect_success();
        // As a user without rights, and without a store: a replay needs neither.
        Command::new("chmod").args(["a+rx", dir.path().to_str().unwrap()]).status().unwrap();
        Command::new("chmod").arg("a+r").arg(&file).status().unwrap();
        let replay = Ig::new(&["replay", file.to_str().unwrap(), "-o", "json", "--ledger"]).run().expect_success();
        assert_eq!(live.rows().len(), 500);
        assert_eq!(replay.rows(), live.rows());
        replay.ledger().check();
        let columns = Ig::new(&["replay", file.to_str().unwrap(), "-o", "columns"]).run().expect_success();
        assert_eq!(columns.lines().count(), 501, "a header and a line an event");
    }

    #[test]
    fn a_recording_cut_short_is_shown_as_far_as_it_is_whole_and_then_is_an_error() {
        let _alone = alone();
        let load = Load::build();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("opens.igrec");
        let live = Ig::new(&["run", "trace_open", "--host", "-o", "none", "--uid", &UID.to_string(), "--record"])
            .arg(file.to_str().unwrap())
            .start_ready();
        load.run(&["open", "-n", "20000"], &load.missing_path());
        // A part of it is on the disk; the rest, and the end, never will be.
        wait_for("a recording that has begun", Duration::from_secs(120), || {
            (file.metadata().is_ok_and(|m| m.len() >= 1 << 20)).then_some(())
        });
        live.signal("KILL");
        live.wait();
        let replay = Ig::new(&["replay", file.to_str().unwrap(), "-o", "json", "--fields", "fname"]).run();
        assert_eq!(replay.code(), 2, "{}", replay.stderr);
        assert!(replay.stderr.contains("cut short"), "{}", replay.stderr);
        let shown = replay.lines().count();
        assert!(shown > 0 && shown <= 20_000, "{shown} rows of what was whole");
    }

    #[test]
    fn memory_for_stacks_is_taken_only_with_the_flag() {
        let _alone = alone();
        let all: [(&[&str], &str); 2] = [(&[], "1"), (&["--collect-ustack"], "10000")];
        for (flags, entries) in all {
            let ig = Ig::new(&["run", "trace_open", "--host", "-o", "none"]).args(flags).start_ready();
            let mut maps = stack_maps(ig.pid());
            // The same map may have several descriptors.
            maps.dedup();
            ig.stop().expect_success();
            assert_eq!(maps, [entries], "{flags:?}");
        }
    }

    /// The sizes of a process's maps of stacks, by what the kernel says of its descriptors.
    fn stack_maps(pid: u32) -> Vec<String> {
        const STACK_TRACE: &str = "7";
        let files = std::fs::read_dir(format!("/proc/{pid}/fdinfo")).expect("a process of ours").flatten();
        let said = files.filter_map(|f| std::fs::read_to_string(f.path()).ok());
        let of = |text: &str, key: &str| {
            text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':')).map(|v| v.trim().to_owned())
        };
        said.filter(|text| of(text, "map_type").as_deref() == Some(STACK_TRACE))
            .filter_map(|text| of(&text, "max_entries"))
            .collect()
    }

    #[test]
    fn trace_capabilities_asks_anew_for_a_namespace_whose_number_was_used_before() {
        const NAMESPACES: usize = 20;
        let _alone = alone();
        let ig = Ig::new(&["run", "trace_capabilities", "--host", "--unique", "--comm", "chroot", "-o", "json"])
            .start_ready();
        for _ in 0..NAMESPACES {
            // One after the other: the kernel gives the number of the last to the next.
            let private = ["-m", "--propagation", "private", "chroot", "/", "true"];
            assert!(Command::new("unshare").args(private).status().unwrap().success());
        }
        let rows = ig.stop().expect_success().rows();
        let shown = rows.iter().filter(|r| at(r, "cap") == "CAP_SYS_CHROOT").count();
        assert_eq!(shown, NAMESPACES, "{rows:#?}");
    }
}
