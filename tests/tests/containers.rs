//! Containers of a real Docker: short ones are all seen, and all named.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its case has failed")]

use ig_tests::{
    alone,
    docker::Docker,
    ig::{Ig, at},
    wait_for,
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

fn tracing(docker: &Docker) -> Ig {
    Ig::new(&["run", "trace_exec", "-o", "json", "--ledger", "--docker-socketpath"])
        .arg(docker.socket().display().to_string())
}

/// Runs `count` containers, `at_once` at a time; gives name and id of each.
fn short_containers(docker: &Docker, count: usize, at_once: usize) -> BTreeMap<String, String> {
    let next = AtomicUsize::new(0);
    let ids = tempfile::tempdir().unwrap();
    std::thread::scope(|s| {
        for _ in 0..at_once {
            s.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= count {
                        return;
                    }
                    let file = ids.path().join(format!("short-{n}"));
                    let file = format!("--cidfile={}", file.display());
                    let name = format!("short-{n}");
                    docker.run(&[
                        "run",
                        "--rm",
                        "--net=none",
                        "--name",
                        &name,
                        &file,
                        "busybox",
                        "/bin/busybox",
                        "true",
                    ]);
                }
            });
        }
    });
    std::fs::read_dir(ids.path())
        .unwrap()
        .flatten()
        .map(|e| (e.file_name().to_string_lossy().into_owned(), read(&e.path())))
        .collect()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap().trim().to_string()
}

fn name(row: &Value) -> &str {
    at(row, "runtime.containerName").as_str().unwrap_or_default()
}

mod root {
    use super::*;

    #[test]
    fn the_first_program_of_200_short_containers_is_seen_and_named() {
        let _alone = alone();
        let docker = Docker::start();
        let ig = tracing(&docker).start_ready();
        let containers = short_containers(&docker, 200, 4);
        assert_eq!(containers.len(), 200);
        let done = ig.stop().expect_success();
        let rows = done.rows();
        let mut wrong = Vec::new();
        for (container, id) in &containers {
            let first = rows.iter().find(|r| name(r) == container && at(r, "args") == "/bin/busybox true");
            match first {
                Some(row)
                    if at(row, "runtime.containerId") == id.as_str() && at(row, "runtime.runtimeName") == "docker" => {}
                Some(row) => wrong.push(format!("{container}: {row}")),
                None => wrong.push(format!("{container}: not seen")),
            }
        }
        assert!(wrong.is_empty(), "{} of 200 are not right:\n{}", wrong.len(), wrong.join("\n"));
        let unnamed: Vec<_> = rows.iter().filter(|r| name(r).is_empty()).collect();
        assert!(unnamed.is_empty(), "rows without a container, though the host was not asked for: {unnamed:#?}");
        let ledger = done.ledger();
        ledger.check();
        assert_eq!(ledger.lost_total(), 0, "{ledger:?}");
    }

    #[test]
    fn a_container_that_ran_before_is_named_too() {
        let _alone = alone();
        let docker = Docker::start();
        docker.run(&[
            "run",
            "-d",
            "--net=none",
            "--name",
            "early",
            "busybox",
            "sh",
            "-c",
            "while :; do /bin/busybox sleep 0.2; done",
        ]);
        let ig = tracing(&docker).start_ready();
        wait_for("a row", Duration::from_secs(120), || ig.stdout().contains("/bin/busybox sleep 0.2").then_some(()));
        let rows = ig.stop().expect_success().rows();
        assert!(rows.iter().any(|r| name(r) == "early" && at(r, "args") == "/bin/busybox sleep 0.2"), "{rows:#?}");
    }

    #[test]
    fn only_the_containers_asked_for_are_shown_also_those_started_later() {
        let _alone = alone();
        let docker = Docker::start();
        let start = |n: &str| {
            docker.run(&["run", "--rm", "--net=none", "--name", n, "busybox", "/bin/busybox", "true"]);
        };
        let wanted = tracing(&docker).args(&["-c", "one,two"]).start_ready();
        ["one", "two", "three"].into_iter().for_each(start);
        let done = wanted.stop().expect_success();
        let mut names: Vec<_> = done.rows().iter().map(|r| name(r).to_string()).collect();
        names.sort();
        names.dedup();
        assert_eq!(names, ["one", "two"]);
        done.ledger().check();

        let unwanted = tracing(&docker).args(&["-c", "!one"]).start_ready();
        ["one", "two"].into_iter().for_each(start);
        let rows = unwanted.stop().expect_success().rows();
        assert!(rows.iter().any(|r| name(r) == "two") && rows.iter().all(|r| name(r) != "one"), "{rows:#?}");
    }

    #[test]
    fn what_an_ended_container_did_is_shown_however_long_the_reader_pauses() {
        let _alone = alone();
        let docker = Docker::start();
        let dir = tempfile::tempdir().unwrap();
        let (goes_on, pipe) =
            (dir.path().join("goes-on"), r#"exec "$@" > >(until [ -e "$GOES_ON" ]; do sleep 0.1; done; cat)"#);
        let ig = tracing(&docker).through(&["bash", "-c", pipe, "bash"]).env("GOES_ON", &goes_on.display().to_string());
        let running = ig.start_ready();
        // more than a pipe has room for
        let script = "i=0; while [ $i -lt 1000 ]; do /bin/busybox true; i=$((i + 1)); done";
        docker.run(&["run", "--rm", "--net=none", "--name", "paused", "busybox", "/bin/sh", "-c", script]);
        // longer than what happens in its namespaces is taken for its own
        std::thread::sleep(Duration::from_secs(12));
        std::fs::write(&goes_on, "").unwrap();
        let done = running.stop().expect_success();
        let ledger = done.ledger();
        ledger.check();
        // the pipe's other end writes the file
        let lines = || (done.stdout().lines().count() as u64 == ledger.delivered).then_some(());
        wait_for("the rows", Duration::from_secs(120), lines);
        let seen = done.rows().iter().filter(|r| name(r) == "paused").count();
        assert_eq!((seen, ledger.lost_total()), (1001, 0), "{ledger:?}");
    }

    #[test]
    fn the_host_is_left_out_unless_asked_for() {
        let _alone = alone();
        let docker = Docker::start();
        for (host, expected) in [(false, false), (true, true)] {
            let ig = tracing(&docker);
            let ig = if host { ig.arg("--host") } else { ig }.start_ready();
            std::process::Command::new("/bin/echo").arg("from-the-host").output().unwrap();
            let rows = ig.stop().expect_success().rows();
            let seen = rows.iter().any(|r| at(r, "args") == "/bin/echo from-the-host");
            assert_eq!(seen, expected, "--host={host}: {rows:#?}");
        }
    }
}
