//! The columns of earlier tools laid beside ours: their commands as their users wrote them, with the columns they had, on a
//! real workload. Every column must be there, and say what it said.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its case has failed")]

use ig_tests::{
    alone,
    docker::Docker,
    ig::{Ig, Running},
    wait_for,
};
use regex::Regex;
use std::time::Duration;

/// One table of an earlier tool.
struct Old {
    command: &'static [&'static str],
    /// Its heading, our column for each, and what a row of the workload must show there (a regular expression).
    columns: &'static [(&'static str, &'static str, &'static str)],
    /// What runs in the container `old-columns`.
    script: &'static str,
}

const NAME: &str = "old-columns";
const NUMBER: &str = "[1-9][0-9]*";
/// A connection inside the container, which has a loopback and nothing else.
const CONNECTION: &str = "/bin/busybox timeout 200 /bin/busybox nc -l -p 4100 -e /bin/busybox true & \
    for i in $(/bin/busybox seq 2000); do \
    /bin/busybox netstat -ltn | /bin/busybox grep -q 4100 && break; /bin/busybox usleep 50000; done; \
    /bin/busybox timeout 100 /bin/busybox nc 127.0.0.1 4100 </dev/null; wait";

const TRACES: &[Old] = &[
    Old {
        command: &["trace", "exec"],
        columns: &[
            ("CONTAINER", "RUNTIME.CONTAINERNAME", NAME),
            ("PID", "PID", NUMBER),
            ("PPID", "PPID", NUMBER),
            ("PCOMM", "COMM", "busybox"),
            ("RET", "ERROR_RAW", "0"),
            ("ARGS", "ARGS", "/bin/busybox cat /dev/null"),
        ],
        script: "/bin/busybox cat /dev/null",
    },
    Old {
        command: &["trace", "open"],
        columns: &[
            ("CONTAINER", "RUNTIME.CONTAINERNAME", NAME),
            ("PID", "PID", NUMBER),
            ("COMM", "COMM", "busybox"),
            ("FD", "FD", "3"),
            ("RET", "ERROR_RAW", "0"),
            ("PATH", "FNAME", "/etc/hostname"),
        ],
        script: "/bin/busybox cat /etc/hostname",
    },
    Old {
        command: &["trace", "bind", "-P", "4100"],
        columns: &[
            ("CONTAINER", "RUNTIME.CONTAINERNAME", NAME),
            ("PID", "PID", NUMBER),
            ("COMM", "COMM", "busybox"),
            ("PROTO", "PROTO", "TCP"),
            ("ADDR", "ADDR.ADDR", "::"),
            ("PORT", "ADDR.PORT", "4100"),
            ("OPTS", "OPTS", "REUSEADDRESS"),
            ("IF", "BOUND_DEV_IF", "0"),
        ],
        script: CONNECTION,
    },
    Old {
        command: &["trace", "tcp"],
        columns: &[
            ("CONTAINER", "RUNTIME.CONTAINERNAME", NAME),
            ("T", "TYPE", "connect"),
            ("PID", "PID", NUMBER),
            ("COMM", "COMM", "busybox"),
            ("IP", "SRC.VERSION", "4"),
            ("SADDR", "SRC.ADDR", r"127\.0\.0\.1"),
            ("DADDR", "DST.ADDR", r"127\.0\.0\.1"),
            ("SPORT", "SRC.PORT", NUMBER),
            ("DPORT", "DST.PORT", "4100"),
        ],
        script: CONNECTION,
    },
    Old {
        command: &["trace", "tcpconnect"],
        columns: &[
            ("CONTAINER", "RUNTIME.CONTAINERNAME", NAME),
            ("PID", "PID", NUMBER),
            ("COMM", "COMM", "busybox"),
            ("IP", "SRC.VERSION", "4"),
            ("SADDR", "SRC.ADDR", r"127\.0\.0\.1"),
            ("DADDR", "DST.ADDR", r"127\.0\.0\.1"),
            ("DPORT", "DST.PORT", "4100"),
        ],
        script: CONNECTION,
    },
];

/// Taken while `sleep` runs in the container.
const LISTS: &[Old] = &[
    Old {
        command: &["snapshot", "process"],
        columns: &[("CONTAINER", "RUNTIME.CONTAINERNAME", NAME), ("COMM", "COMM", "busybox"), ("PID", "PID", NUMBER)],
        script: "",
    },
    Old {
        command: &["snapshot", "process", "-t"],
        columns: &[
            ("CONTAINER", "RUNTIME.CONTAINERNAME", NAME),
            ("COMM", "COMM", "busybox"),
            ("TGID", "PID", NUMBER),
            // The one heading that means something else today: with threads, PID was the thread.
            ("TID", "TID", NUMBER),
        ],
        script: "",
    },
    Old {
        command: &["list-containers"],
        columns: &[
            ("RUNTIME", "RUNTIMENAME", "docker"),
            ("ID", "CONTAINERID", "[0-9a-f]{64}"),
            ("NAME", "CONTAINERNAME", NAME),
        ],
        script: "",
    },
];

fn ig(old: &Old, docker: &Docker) -> Ig {
    let headings: Vec<String> = old.columns.iter().map(|(heading, ..)| heading.to_lowercase()).collect();
    Ig::new(old.command)
        .args(&["-c", NAME, "-o"])
        .arg(format!("custom-columns={}", headings.join(",")))
        .arg("--docker-socketpath")
        .arg(docker.socket().display().to_string())
}

fn check(old: &Old, text: &str) {
    let mut lines = text.lines();
    let heading: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    let ours: Vec<&str> = old.columns.iter().map(|(_, ours, _)| *ours).collect();
    assert_eq!(heading, ours, "ig {}", old.command.join(" "));
    let cells: Vec<&str> = old.columns.iter().map(|(.., cell)| *cell).collect();
    let row = Regex::new(&format!(r"^\s*{}\s*$", cells.join(r"\s+"))).unwrap();
    assert!(lines.any(|l| row.is_match(l)), "ig {}: no row {row} in\n{text}", old.command.join(" "));
}

mod root {
    use super::*;

    #[test]
    fn traces_have_every_column_of_before() {
        let _alone = alone();
        let docker = Docker::start();
        for old in TRACES {
            let running: Running = ig(old, &docker).start_ready();
            docker.run(&[
                "run",
                "--rm",
                "--net=none",
                "--name",
                NAME,
                "busybox",
                "/bin/busybox",
                "sh",
                "-c",
                old.script,
            ]);
            check(old, &running.stop().expect_success().stdout());
        }
    }

    #[test]
    fn lists_have_every_column_of_before() {
        let _alone = alone();
        let docker = Docker::start();
        docker.run(&["run", "-d", "--net=none", "--name", NAME, "busybox", "/bin/busybox", "sleep", "1000"]);
        // Docker is content before the runtime has made room for the program.
        let pid = docker.run(&["inspect", "-f", "{{.State.Pid}}", NAME]);
        let comm = || std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
        wait_for("the container's program", Duration::from_secs(120), || (comm() == "busybox\n").then_some(()));
        for old in LISTS {
            check(old, &ig(old, &docker).run().expect_success().stdout());
        }
    }
}
