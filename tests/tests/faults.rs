//! Runtimes that misbehave, names that are hostile, processes that lie, and an `ig` that is killed: containers start all
//! the same, labels stay true, and what is wrong is said once.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its case has failed")]

use ig_tests::{
    alone,
    containerd::Containerd,
    cri::{self, Cri},
    docker::Docker,
    ig::{Ig, Running, at},
    kernel,
    plain::Bundle,
    sockets::{BadSocket, Fault},
    truth::{self, Truth, check, id, mistakes, name, of_program, repeat, unique},
    wait_for,
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

fn tracing() -> Ig {
    Ig::new(&["run", "trace_exec", "-o", "json", "--ledger"])
}

/// The sockets that can be named, and the word with which a complaint about each begins.
const SOCKETS: [(&str, &str); 4] = [
    ("--docker-socketpath", "warning: docker: "),
    ("--containerd-socketpath", "warning: containerd: "),
    ("--crio-socketpath", "warning: cri-o: "),
    ("--podman-socketpath", "warning: podman: "),
];

/// What a busy machine is waited for.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs `disturb` while short containers start one after the other, at least six of them; gives those that could run.
fn under_load(start: impl Fn() -> Option<Truth> + Sync, disturb: impl FnOnce()) -> Vec<Truth> {
    let over = AtomicBool::new(false);
    std::thread::scope(|s| {
        let worker = || {
            let mut ran = Vec::new();
            while !over.load(Ordering::Acquire) || ran.len() < 3 {
                match start() {
                    Some(truth) => ran.push(truth),
                    None => std::thread::sleep(Duration::from_millis(50)),
                }
            }
            ran
        };
        let workers = [s.spawn(worker), s.spawn(worker)];
        disturb();
        over.store(true, Ordering::Release);
        workers.into_iter().flat_map(|w| w.join().unwrap()).collect()
    })
}

/// Rows of one container that ran from before the start to after the end of a trace, in a loop of short programs.
fn assert_never_unnamed(rows: &[Value], mntns: u64, expected: &str) {
    let mine: Vec<_> = rows.iter().filter(|r| at(r, "proc.mntns_id").as_u64() == Some(mntns)).collect();
    assert!(mine.len() > 20, "{} rows of the container that runs all the time", mine.len());
    let wrong: Vec<_> = mine.iter().filter(|r| name(r) != expected).collect();
    assert!(wrong.is_empty(), "{} of {} rows lost their label: {wrong:#?}", wrong.len(), mine.len());
}

const DOCKER_WAS_AWAY: &str = "warning: docker: its API was away";

/// Waits until `ig` has said this in so many lines.
fn wait_told(ig: &Running, what: &str, times: usize) {
    wait_for(&format!("{what:?} {times} times"), LIMIT, || {
        (ig.stderr().lines().filter(|l| l.contains(what)).count() >= times).then_some(())
    });
}

const LOOP: &str = "while :; do /bin/busybox sleep 0.05; done";

fn namespace_of(pid: &str) -> u64 {
    let link = std::fs::read_link(format!("/proc/{}/ns/mnt", pid.trim())).unwrap();
    truth::mntns(&link.to_string_lossy())
}

mod root {
    use super::*;

    #[test]
    fn a_socket_where_nobody_answers_properly_is_told_of_once_and_labels_go_on() {
        let _alone = alone();
        let bundle = Bundle::new();
        let bad: Vec<_> = Fault::ALL.into_iter().map(|f| (f, BadSocket::new(f))).collect();
        let mut running = Vec::new();
        for (fault, socket) in &bad {
            let mut ig = tracing();
            for (flag, _) in SOCKETS {
                ig = ig.arg(flag).arg(socket.path().display().to_string());
            }
            running.push((*fault, ig.start_ready()));
        }
        // A list has ten seconds; then comes the second attempt.
        let truths = repeat(24, 1, || {
            std::thread::sleep(Duration::from_millis(500));
            bundle.runc_truth(&unique("bad"))
        });
        for (fault, ig) in running {
            SOCKETS.iter().for_each(|(_, begin)| wait_told(&ig, begin, 1));
            let done = ig.stop();
            assert_eq!(done.code(), 0, "{fault:?}: {}", done.stderr);
            check(&done, &truths);
            for (flag, begin) in SOCKETS {
                let said: Vec<_> = done.stderr.lines().filter(|l| l.contains(begin)).collect();
                assert_eq!(said.len(), 1, "{fault:?} {flag}: {said:#?}");
            }
        }
    }

    #[test]
    fn dockerd_and_its_containerd_are_killed_and_come_back() {
        let _alone = alone();
        let docker = Docker::start();
        let keep = unique("keep");
        docker.run(&["run", "-d", "--net=none", "--name", &keep, "busybox", "sh", "-c", LOOP]);
        let mntns = namespace_of(&docker.run(&["inspect", "-f", "{{.State.Pid}}", &keep]));
        let ig = tracing().arg("--docker-socketpath").arg(docker.socket().display().to_string()).start_ready();
        let truths = under_load(
            || docker.try_truth(&unique("load")),
            || {
                std::thread::sleep(Duration::from_secs(1));
                docker.restart("dockerd");
                wait_told(&ig, DOCKER_WAS_AWAY, 1);
                docker.restart("containerd");
                std::thread::sleep(Duration::from_secs(1));
                docker.restart("dockerd");
                wait_told(&ig, DOCKER_WAS_AWAY, 2);
            },
        );
        let done = ig.stop().expect_success();
        let rows = done.rows();
        assert!(truths.len() >= 5, "only {} containers ran beside the restarts", truths.len());
        check(&done, &truths);
        assert_never_unnamed(&rows, mntns, &keep);
        let gaps = done.stderr.lines().filter(|l| l.contains(DOCKER_WAS_AWAY)).count();
        assert_eq!(gaps, 2, "each time that dockerd was away is told: {}", done.stderr);
        eprintln!("{} containers beside three restarts; told: {}", truths.len(), told(&done.stderr));
    }

    #[test]
    fn containerd_is_killed_and_comes_back() {
        let _alone = alone();
        let containerd = Containerd::start(&[]);
        let keep = unique("keep");
        let started = containerd.run("default", &["-d"], &keep, &["sh", "-c", LOOP]).output().unwrap();
        truth::printed("ctr run -d", started);
        let list = truth::printed("ctr task ls", containerd.ctr("default", &["task", "ls"]).output().unwrap());
        let pid = list.lines().find(|l| l.starts_with(&keep)).unwrap().split_whitespace().nth(1).unwrap();
        let mntns = namespace_of(pid);
        let ig = tracing().arg("--containerd-socketpath").arg(containerd.socket().display().to_string()).start_ready();
        let truths = under_load(
            || containerd.try_truth("default", &unique("load")),
            || {
                std::thread::sleep(Duration::from_secs(1));
                containerd.kill();
                wait_told(&ig, "warning: containerd: ", 1);
                containerd.again();
                wait_told(&ig, "warning: containerd: its API was away", 1);
            },
        );
        let done = ig.stop().expect_success();
        assert!(truths.len() >= 5, "only {} containers ran beside the restart", truths.len());
        check(&done, &truths);
        assert_never_unnamed(&done.rows(), mntns, &keep);
        assert!(done.stderr.contains("warning: containerd: "), "the gap was not told: {}", done.stderr);
        eprintln!("{} containers beside a restart; told: {}", truths.len(), told(&done.stderr));
    }

    fn told(stderr: &str) -> String {
        stderr.lines().filter(|l| l.contains("warning")).collect::<Vec<_>>().join(" | ")
    }

    #[test]
    fn hostile_names_reach_json_as_they_are_and_no_terminal() {
        let _alone = alone();
        let containerd = Containerd::start(&[]);
        let mut cri = Cri::connect(&containerd.socket(), &containerd.logs());
        let long = "x".repeat(4000);
        let hostile =
            ["\x1b[2J\x1b]0;owned\x07", "two\nlines\r\n{\"a\":1}", "\u{202e}gnp.exe\u{9b}31m", &long, "\"quoted\\"];
        let socket = containerd.socket().display().to_string();
        let json = tracing().args(&["--containerd-socketpath", &socket]).start_ready();
        let columns = Ig::new(&["run", "trace_exec", "--containerd-socketpath", &socket])
            .args(&["--fields", "+k8s.podName,+k8s.namespace,+k8s.containerName,+k8s.podLabels"])
            .start_ready();
        let mut pods = Vec::new();
        for (n, bad) in hostile.iter().enumerate() {
            let pod = cri.hostile_pod(&unique(&format!("evil{n}")), bad);
            pods.push((cri.truth(&pod, &unique("evil")), *bad, pod));
        }
        let (json, columns) = (json.stop().expect_success(), columns.stop().expect_success());
        let rows = json.rows();
        for (truth, bad, pod) in pods {
            let row = of_program(&rows).find(|r| id(r) == truth.id).unwrap_or_else(|| panic!("{bad:?} was not seen"));
            assert_eq!(row["k8s"]["podName"], pod.name, "{row}");
            assert_eq!(row["k8s"]["namespace"], pod.namespace, "{row}");
            assert!(pod.name.contains(bad) && pod.namespace.contains(bad));
            let labels = row["k8s"]["podLabels"].as_str().unwrap_or_default();
            assert!(labels.contains(&format!("label={}", cri::cut(bad))), "{row}");
            assert_eq!(row["runtime"]["containerName"], truth.name, "{row}");
        }
        let text = columns.stdout();
        assert!(text.lines().any(|l| l.contains("evil0")), "{text}");
        let raw = |c: char| c.is_control() && c != '\n' || ('\u{202a}'..='\u{202e}').contains(&c);
        let bad: Vec<_> = text.lines().filter(|l| l.contains(raw)).collect();
        assert!(bad.is_empty(), "control characters reached the terminal: {bad:?}");
        assert!(!text.lines().any(|l| l.starts_with("lines") || l.starts_with("{\"a\"")), "a name broke a row: {text}");
    }

    /// Runs `impostor run ID` as somebody; gives its mount namespace.
    fn impostor(dir: &Path, who: &[&str], id: &str) -> u64 {
        let program = dir.join("runc");
        let output = Command::new(who[0]).args(&who[1..]).arg(&program).args(["run", id]).output().unwrap();
        truth::mntns(&truth::printed("the impostor", output))
    }

    #[test]
    fn nobody_passes_for_a_container_of_root() {
        let _alone = alone();
        let dir = tempfile::tempdir().unwrap();
        let source = ig_tests::source_root().join("tests/runtimes/impostor.c");
        let compiled =
            Command::new("cc").args(["-O1", "-static", "-o"]).arg(dir.path().join("runc")).arg(source).status();
        assert!(compiled.unwrap().success());
        Command::new("chmod").arg("-R").arg("a+rX").arg(dir.path()).status().unwrap();
        let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"];
        // Root, but of a user namespace that anybody can make.
        let in_user_namespace = ["unshare", "--user", "--map-root-user", "--"];

        let victim = unique("victim");
        let bundle = Bundle::new();
        let real = Bundle::with(&["sh", "-c", LOOP], |_| {});
        let all = tracing().start_ready();
        let selected = tracing().args(&["-c", &victim]).start_ready();
        let mut container = real.runc(&["run", &victim]).spawn().unwrap();
        let running = || real.runc(&["state", &victim]).output().is_ok_and(|o| o.status.success());
        wait_for("the real container", LIMIT, || running().then_some(()));
        let mut false_ones = BTreeMap::new();
        for who in [&nobody[..], &in_user_namespace[..]] {
            false_ones.insert(impostor(dir.path(), who, &victim), who[0]);
        }
        // And one that is to come: its id is claimed before it exists.
        let later = unique("later");
        impostor(dir.path(), &nobody, &later);
        let truth = bundle.runc_truth(&later);
        std::thread::sleep(Duration::from_millis(300));
        let (all, selected) = (all.stop().expect_success(), selected.stop().expect_success());
        truth::printed("runc kill", real.runc(&["kill", &victim, "KILL"]).output().unwrap());
        container.wait().unwrap();

        let rows = all.rows();
        assert!(rows.iter().any(|r| id(r) == victim), "the real container was not seen");
        let wrong = mistakes(&rows, &[truth]);
        assert!(wrong.is_empty(), "the later container lost its name to the impostor: {wrong:?}");
        let lies: Vec<_> = of_program(&rows).filter(|r| id(r) == victim || name(r) == victim).collect();
        assert!(lies.is_empty(), "an impostor passed for {victim}: {lies:#?}");
        let claimed = format!("65534/{victim}");
        assert!(of_program(&rows).any(|r| id(r) == claimed), "nobody's own container goes by {claimed}: {rows:#?}");
        let rows = selected.rows();
        assert!(
            rows.iter().all(|r| id(r) == victim && !false_ones.contains_key(&at(r, "proc.mntns_id").as_u64().unwrap()))
        );
        assert!(!rows.is_empty() && of_program(&rows).count() == 0, "-c let an impostor in: {rows:#?}");
    }

    #[test]
    fn reused_process_and_namespace_numbers_swap_no_labels() {
        let _alone = alone();
        let bundle = Bundle::new();
        let ig = tracing().start_ready();
        // The kernel counts on from here: the same numbers again for every container.
        let again = || std::fs::write("/proc/sys/kernel/ns_last_pid", "21000").unwrap();
        let truths = repeat(40, 1, || {
            again();
            bundle.runc_truth(&unique("reuse"))
        });
        let done = ig.stop().expect_success();
        check(&done, &truths);
        let rows = done.rows();
        let mine = || of_program(&rows).filter(|r| truths.iter().any(|t| t.id == id(r)));
        let pids: BTreeSet<_> = mine().filter_map(|r| at(r, "runtime.containerPid").as_u64()).collect();
        let namespaces: BTreeSet<_> = truths.iter().map(|t| t.mntns).collect();
        assert!(pids.len() < 40 && namespaces.len() < 40, "nothing was reused: {pids:?} {namespaces:?}");
        eprintln!("40 containers with {} first pids in {} namespace numbers", pids.len(), namespaces.len());
    }

    #[test]
    fn containers_start_while_ig_is_killed() {
        let _alone = alone();
        let containerd = Containerd::start(&[]);
        let bundle = Bundle::new();
        let pins = kernel::pins();
        for _ in 0..3 {
            let ig = tracing().start_ready();
            let held = kernel::Objects::of(ig.pid());
            assert!(!held.is_empty());
            let started = std::thread::scope(|s| {
                let plain = s.spawn(|| repeat(12, 2, || bundle.runc_truth(&unique("kill"))));
                let ctr = s.spawn(|| repeat(6, 2, || containerd.truth("default", &unique("kill"))));
                std::thread::sleep(Duration::from_millis(150));
                ig.signal("KILL");
                plain.join().unwrap().len() + ctr.join().unwrap().len()
            });
            assert_eq!(started, 18, "a container did not start");
            assert_eq!(ig.wait().status.code(), None, "ig ended before it was killed");
            wait_for("the kernel to drop every BPF object of the run", LIMIT, || {
                held.still_there().is_empty().then_some(())
            });
        }
        let new: Vec<_> = kernel::pins().difference(&pins).cloned().collect();
        assert!(new.is_empty(), "left pinned: {new:?}");
    }
}
