//! Nothing is lost silently: what was generated is what was seen plus what was reported lost, to the last event.
//!
//! The load runs under a user id of its own and the gadget filters on it in the kernel, so every number here is exact
//! whatever else the machine does.

use ig_tests::{
    alone, full_scale,
    ig::{Finished, Ig},
    load::{self, Load, UID},
    wait_for,
};
use std::{
    net::{Ipv4Addr, UdpSocket},
    process::Command,
    thread::sleep,
    time::Duration,
};

fn opens() -> u64 {
    if full_scale() { 1_000_000 } else { 200_000 }
}

fn execs() -> u64 {
    if full_scale() { 100_000 } else { 5_000 }
}

fn tracing(gadget: &str, fields: &str) -> Ig {
    Ig::new(&["run", gadget, "--host", "-o", "json", "--ledger", "--fields", fields, "--uid", &UID.to_string()])
}

/// Seen + lost = generated, and seen is what was really printed.
fn check(done: &Finished, generated: u64) -> u64 {
    let ledger = done.ledger();
    ledger.check();
    let seen = done.lines().count() as u64;
    assert_eq!(seen, ledger.delivered, "lines printed and rows said to be delivered differ");
    assert_eq!(seen + ledger.lost_total(), generated, "generated {generated}, but {ledger:?}");
    ledger.lost_total()
}

/// What others do takes no room: `make` does it while `ig` is stopped and its ring, of one page, is not emptied.
fn others_lose_nothing(gadget: &str, make: impl FnOnce()) {
    let ig = tracing(gadget, "timestamp_raw").args(&["--buffer-size", "4096"]).start_ready();
    ig.signal("STOP");
    make();
    ig.signal("CONT");
    let ledger = ig.stop().expect_success().ledger();
    ledger.check();
    assert_eq!((ledger.produced, ledger.lost_total()), (0, 0), "{ledger:?}");
}

mod root {
    use super::*;

    #[test]
    fn every_open_is_seen_at_full_speed() {
        let _alone = alone();
        let load = Load::build();
        let ig = tracing("trace_open", "fname").start_ready();
        let done = load.run(&["open", "-n", &opens().to_string()], &load.missing_path());
        assert_eq!(done.ops, opens());
        check(&ig.stop().expect_success(), done.ops);
    }

    #[test]
    fn nothing_is_lost_at_two_hundred_thousand_a_second_with_defaults() {
        // On a machine whose processors others have, too, the reader may be kept waiting for longer than 4 MiB last, some 50 ms; the
        // account is exact all the same, every time. An `ig` that is too slow is so every time.
        const TRIES: usize = 6;
        let _alone = alone();
        let load = Load::build();
        let mut tries = Vec::new();
        for _ in 0..TRIES {
            let ig = tracing("trace_open", "fname").start_ready();
            let flags = ["open", "-r", "200000", "-b", "200", "-n", &opens().to_string()];
            let done = load.run(&flags, &load.missing_path());
            let lost = check(&ig.stop().expect_success(), done.ops);
            // More than one event in a thousand is a defect.
            if lost * 1000 <= done.ops {
                return;
            }
            tries.push(format!("{lost} of {} lost at {} a second", done.ops, done.ops_per_s));
        }
        panic!("{tries:#?}");
    }

    #[test]
    fn a_ring_that_is_too_small_loses_events_and_counts_each() {
        let _alone = alone();
        let load = Load::build();
        let ig = tracing("trace_open", "fname").args(&["--buffer-size", "4096"]).start_ready();
        let done = load.run(&["open", "-p", "2", "-n", &(opens() / 2).to_string()], &load.missing_path());
        let finished = ig.stop().expect_success();
        let lost = check(&finished, done.ops);
        assert!(lost > 0, "a ring of one page lost nothing: the test does not test what it should");
        assert!(finished.stderr.contains("lost"), "the loss is said to the user:\n{}", finished.stderr);
    }

    #[test]
    fn loss_becomes_exit_code_4_on_request() {
        let _alone = alone();
        let load = Load::build();
        let ig = tracing("trace_open", "fname").args(&["--buffer-size", "4096", "--fail-on-loss"]).start_ready();
        let done = load.run(&["open", "-p", "2", "-n", "100000"], &load.missing_path());
        let finished = ig.stop();
        assert!(check(&finished, done.ops) > 0);
        assert_eq!(finished.code(), 4, "{}", finished.stderr);
    }

    #[test]
    fn every_exec_is_seen() {
        let _alone = alone();
        let load = Load::build();
        let ig = tracing("trace_exec", "proc.comm,args").start_ready();
        let done = load.run(&["exec", "-p", "2", "-n", &(execs() / 2).to_string()], &load.nothing());
        assert_eq!(done.ops, execs());
        // And the exec of the load itself.
        let lost = check(&ig.stop().expect_success(), done.ops + 1);
        assert_eq!(lost, 0, "execs are slow: none may be lost with the default buffer");
    }

    #[test]
    fn execs_through_a_ring_that_is_too_small_are_counted_too() {
        let _alone = alone();
        let load = Load::build();
        let ig = tracing("trace_exec", "proc.comm,args").args(&["--buffer-size", "4096"]).start_ready();
        let done = load.run(&["exec", "-p", "2", "-n", &(execs() / 2).to_string()], &load.nothing());
        check(&ig.stop().expect_success(), done.ops + 1);
    }

    #[test]
    fn a_stop_with_a_full_buffer_still_accounts_for_every_event() {
        let _alone = alone();
        let load = Load::build();
        for round in 0..5 {
            let ig = tracing("trace_open", "fname").start_ready();
            let running = load.start(&["open", "-p", "2", "-n", "100000000"], &load.missing_path());
            // Before it runs, the load would die of the signal that is to end it.
            wait_for("the first rows", Duration::from_secs(120), || (ig.stdout_len() > 0).then_some(()));
            sleep(Duration::from_millis(200 + round * 37));
            // No pause between the two: what is in the ring when SIGINT comes must be read or counted.
            let done = load::stop(running);
            check(&ig.stop().expect_success(), done.ops);
        }
    }

    #[test]
    fn stopped_in_the_middle_of_the_load_no_number_is_missing_without_being_counted() {
        let _alone = alone();
        let load = Load::build();
        let path = load.missing_path();
        let ig = tracing("trace_open", "fname").start_ready();
        let running = load.start(&["open", "-s", "-n", "100000000"], &path);
        wait_for("the first rows", Duration::from_secs(120), || (ig.stdout_len() > 0).then_some(()));
        sleep(Duration::from_millis(500));
        let finished = ig.stop().expect_success();
        let generated = load::stop(running).ops;
        let ledger = finished.ledger();
        ledger.check();
        let prefix = format!("{}.0.", path.display());
        let numbers: Vec<u64> = finished
            .rows()
            .iter()
            .map(|r| r["fname"].as_str().unwrap().strip_prefix(&prefix).expect("a path of the load").parse().unwrap())
            .collect();
        assert!(numbers.is_sorted_by(|a, b| a < b), "out of order or twice");
        assert_eq!(numbers.len() as u64, ledger.delivered);
        let last = *numbers.last().expect("events were seen before the stop");
        let missing = last + 1 - numbers.len() as u64;
        assert!(
            missing <= ledger.lost_total(),
            "{missing} numbers are missing, {} were reported lost",
            ledger.lost_total()
        );
        assert!(ledger.produced <= generated, "more events than the load made: {} > {generated}", ledger.produced);
    }

    #[test]
    fn signals_of_others_are_not_counted_as_lost() {
        let _alone = alone();
        others_lose_nothing("trace_signal", || {
            let script = "i=0; while [ $i -lt 2000 ]; do kill -URG $$; i=$((i + 1)); done";
            assert!(Command::new("sh").args(["-c", script]).status().expect("sh").success());
        });
    }

    #[test]
    fn dropped_packets_that_are_not_tcp_are_not_counted_as_lost() {
        let _alone = alone();
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        let nobody = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|s| s.local_addr()).expect("a port of nobody");
        others_lose_nothing("trace_tcpdrop", || {
            for _ in 0..2000 {
                socket.send_to(b"x", nobody).expect("a datagram");
            }
        });
    }

    /// `--ledger`, of an `ig` that writes into a full disk.
    fn into_a_full_disk(ig: Ig) -> Finished {
        let ig = ig.args(&["--ledger"]).through(&["sh", "-c", "exec \"$@\" >/dev/full", "sh"]);
        let done = ig.start().wait();
        assert_eq!(done.code(), 3, "{}", done.stderr);
        let at = |word: &str| done.stderr.find(word).unwrap_or_else(|| panic!("no {word:?} in:\n{}", done.stderr));
        assert!(at("ledger") < at("error: ") && done.stderr.contains("No space left"), "{}", done.stderr);
        done
    }

    #[test]
    fn the_account_comes_although_the_disk_is_full() {
        let _alone = alone();
        // Something to add up: idle processors give no samples.
        let mut busy = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().expect("a busy process");
        for mode in ["folded", "flamegraph"] {
            let done = into_a_full_disk(Ig::new(&["run", "profile_cpu", "--host", "-o", mode, "--timeout", "2"]));
            let first = done.stderr.lines().find(|l| l.starts_with("ledger: ")).expect("a ledger");
            let numbers: Vec<u64> = first.split_whitespace().filter_map(|w| w.parse().ok()).collect();
            let [produced, delivered, lost, _left_out] = numbers[..] else { panic!("{first}") };
            // It was to be written at the end: nothing of it arrived.
            assert!(produced > 0 && delivered == 0 && lost > 0, "{}", done.stderr);
            assert!(done.stderr.contains("(output_closed)"), "{}", done.stderr);
        }
        busy.kill().expect("the process is still there");
        busy.wait().expect("it ends");
        let done = into_a_full_disk(Ig::new(&["run", "snapshot_process", "--host", "-o", "json"]));
        let ledger = done.ledger();
        ledger.check();
        assert_eq!((ledger.delivered, ledger.lost_total()), (0, ledger.produced), "{ledger:?}");
        assert!(ledger.lost["output_closed"] > 0, "{ledger:?}");
    }
}
