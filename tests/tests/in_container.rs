//! `ig` inside a container, and on hosts with odd mounts: containers of the host get their names all the same.
//!
//! The container is emulated with unshare(1) and pivot_root(8); see `ig_tests::container_root`. Some 40 seconds in all.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its case has failed")]

use ig_tests::{
    alone,
    container_root::{ContainerRoot, Shares, interrupt},
    docker::Docker,
    ig::{Finished, Ig, Running, at},
    wait_for,
};
use serde_json::Value;
use std::{path::Path, time::Duration};

const ALL: Shares = Shares { pids: true, root: true };
const OWN_PIDS: Shares = Shares { pids: false, root: true };
const NOTHING: Shares = Shares { pids: false, root: false };

fn dir(docker: &Docker) -> std::path::PathBuf {
    docker.socket().parent().unwrap().to_owned()
}

fn early(docker: &Docker) {
    let forever = "while :; do /bin/busybox sleep 0.2; done";
    docker.run(&["run", "-d", "--net=none", "--name", "early", "busybox", "sh", "-c", forever]);
}

fn short(docker: &Docker, n: usize) -> Vec<String> {
    let names: Vec<String> = (0..n).map(|n| format!("short-{n}")).collect();
    for name in &names {
        docker.run(&["run", "--rm", "--net=none", "--name", name, "busybox", "/bin/busybox", "true"]);
    }
    names
}

fn tracing(socket: &str) -> Ig {
    Ig::new(&["run", "trace_exec", "-o", "json", "--ledger", "--docker-socketpath", socket])
}

fn name(row: &Value) -> &str {
    at(row, "runtime.containerName").as_str().unwrap_or_default()
}

/// Until there is a row of the container that ran before.
fn wait_for_early(ig: &Running) {
    wait_for("a row of what ran before", Duration::from_secs(120), || {
        ig.stdout().contains("\"containerName\":\"early\"").then_some(())
    });
}

fn missing(done: &Finished, names: &[String]) -> Vec<String> {
    let rows = done.rows();
    let is = |row: &Value, n: &str| name(row) == n && at(row, "args") == "/bin/busybox true";
    names.iter().filter(|n| !rows.iter().any(|r| is(r, n))).cloned().collect()
}

mod root {
    use super::*;

    /// Ten containers that start later, and one that ran before.
    fn all_named(shares: Shares) -> Finished {
        let _alone = alone();
        let (docker, root) = (Docker::start(), ContainerRoot::new());
        early(&docker);
        // An absolute link of the host, as /var/run is on every distribution.
        let links = tempfile::tempdir_in("/tmp").unwrap();
        std::os::unix::fs::symlink(docker.socket(), links.path().join("docker.sock")).unwrap();
        let socket = links.path().join("docker.sock");
        let ig = root.run(tracing(socket.to_str().unwrap()), shares, &dir(&docker)).start_ready();
        let names = short(&docker, 10);
        wait_for_early(&ig);
        interrupt(&ig);
        let done = ig.wait().expect_success();
        assert_eq!(missing(&done, &names), Vec::<String>::new(), "{}", done.stdout());
        let rows = done.rows();
        assert!(rows.iter().any(|r| name(r) == "early"), "what ran before has no name: {rows:#?}");
        assert!(rows.iter().all(|r| !name(r).is_empty()), "{rows:#?}");
        assert_eq!(done.ledger().lost_total(), 0);
        assert!(!done.stderr.contains("another pid namespace"), "{}", done.stderr);
        done
    }

    #[test]
    fn with_the_hosts_pids_and_root_everything_is_named() {
        all_named(ALL);
    }

    /// Pids that BPF tells are the host's: they are looked up in its proc, below its root.
    #[test]
    fn with_pids_of_its_own_the_hosts_proc_is_used() {
        all_named(OWN_PIDS);
    }

    #[test]
    fn with_nothing_of_the_hosts_but_a_socket_it_is_degraded_and_says_so() {
        let _alone = alone();
        let (docker, root) = (Docker::start(), ContainerRoot::new());
        let ig = tracing("/docker/docker.sock").arg("--auto-mount-filesystems");
        let ig = root.run(ig, NOTHING, &dir(&docker)).start_ready();
        let names = short(&docker, 5);
        let named = |n: &String| ig.stdout().contains(&format!("\"containerName\":\"{n}\""));
        wait_for("the last one's rows", Duration::from_secs(120), || names.iter().all(named).then_some(()));
        interrupt(&ig);
        let done = ig.wait().expect_success();
        assert_eq!(missing(&done, &names), Vec::<String>::new(), "{}", done.stdout());
        assert!(done.stderr.contains("/proc belongs to another pid namespace"), "{}", done.stderr);
        assert!(done.stderr.contains("--pid=host") && done.stderr.contains("HOST_ROOT"), "{}", done.stderr);
    }

    /// What nobody can enter is no silence: packets and sockets of such networks are a gap in the account.
    #[test]
    fn networks_that_cannot_be_entered_are_in_the_account() {
        let _alone = alone();
        let (docker, root) = (Docker::start(), ContainerRoot::new());
        let run = |gadget: &str, flags: &[&str]| {
            let ig = Ig::new(&["run", gadget, "-o", "json", "--ledger", "--fail-on-loss", "--auto-mount-filesystems"]);
            let ig = ig.args(&["--docker-socketpath", "/docker/docker.sock"]).args(flags);
            root.run(ig, NOTHING, &dir(&docker)).start_ready()
        };
        let (packets, table) = (run("trace_dns", &[]), run("snapshot_socket", &["--interval", "200ms"]));
        early(&docker);
        short(&docker, 2);
        let told = |l: &&str| l.starts_with("warning: network ") && l.contains("another pid namespace");
        for (running, least) in [(packets, 3), (table, 1)] {
            wait_for("networks that are told of", Duration::from_secs(120), || {
                (running.stderr().lines().filter(told).count() as u64 >= least).then_some(())
            });
            interrupt(&running);
            let done = running.wait();
            assert_eq!(done.code(), 4, "{}", done.stderr);
            let ledger = done.ledger();
            ledger.check();
            assert!(ledger.blind_spots >= least, "{ledger:?}\n{}", done.stderr);
            let told = done.stderr.lines().filter(told).count() as u64;
            assert_eq!(told, ledger.blind_spots, "each is told once:\n{}", done.stderr);
        }
        // The same containers, to one who can see them.
        let ig = Ig::new(&["run", "trace_dns", "-o", "json", "--ledger", "--fail-on-loss"]);
        let ig = ig.args(&["--docker-socketpath", docker.socket().to_str().unwrap()]);
        let ig = root.run(ig, OWN_PIDS, &dir(&docker)).start_ready();
        short(&docker, 2);
        interrupt(&ig);
        let done = ig.wait();
        assert_eq!((done.code(), done.ledger().blind_spots), (0, 0), "{}", done.stderr);
    }

    /// The status of a check of `ig doctor -o json`.
    fn status(report: &Value, check: &str) -> String {
        let all = report["groups"].as_array().unwrap().iter().flat_map(|g| g["checks"].as_array().unwrap());
        let found = all.clone().find(|c| c["name"] == check).unwrap_or_else(|| panic!("no check {check}: {report:#}"));
        format!("{}: {}", found["status"].as_str().unwrap(), found["finding"].as_str().unwrap())
    }

    #[test]
    fn doctor_says_what_a_container_lacks() {
        let _alone = alone();
        let root = ContainerRoot::new();
        let doctor = |shares| root.run(Ig::new(&["doctor", "-o", "json"]), shares, Path::new("/tmp")).run();
        let done = doctor(NOTHING);
        assert_eq!(done.code(), 3, "{}", done.stderr);
        let report: Value = serde_json::from_str(&done.stdout()).unwrap();
        assert_eq!(report["ready"], false);
        assert_eq!(report["missing"], serde_json::json!(["bpffs", "tracefs"]));
        assert!(status(&report, "pid namespace").starts_with("warn: a container's own, and no proc of the host's"));
        assert!(status(&report, "cgroups").starts_with("warn: not mounted"));
        assert!(status(&report, "tracker").starts_with("ok: starts"));

        let done = doctor(OWN_PIDS).expect_success();
        let report: Value = serde_json::from_str(&done.stdout()).unwrap();
        assert_eq!(report["ready"], true);
        assert!(status(&report, "pid namespace").ends_with("/host/proc"), "{report:#}");
        assert_eq!(status(&report, "host root"), "ok: /host (HOST_ROOT)");
        // HOST_ROOT has missing file systems mounted.
        assert!(status(&report, "tracefs").starts_with("ok: not mounted; a run mounts it"), "{report:#}");
    }

    #[test]
    fn doctor_as_nobody_says_what_it_could_not_check() {
        let ig = Ig::new(&["doctor", "-o", "json"]).env("HOME", "/tmp");
        let done = ig.through(&["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]).run();
        assert_eq!(done.code(), 3, "{}", done.stderr);
        let report: Value = serde_json::from_str(&done.stdout()).unwrap();
        assert_eq!(report["missing"][0], "user");
        for check in ["tracker", "raw tracepoint", "ring buffer"] {
            assert_eq!(status(&report, check), "unknown: not permitted to try");
        }
        let screen = Ig::new(&["doctor"]).env("HOME", "/tmp");
        let screen = screen.through(&["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]).run();
        assert!(screen.stdout().contains("Gadgets cannot run on this host; missing: user"), "{}", screen.stdout());
    }

    /// The probes really load and attach: what this kernel is known to take, whichever it is, works.
    #[test]
    fn doctor_really_loads_and_attaches() {
        let _alone = alone();
        let done = Ig::new(&["doctor", "-o", "json"]).run().expect_success();
        let report: Value = serde_json::from_str(&done.stdout()).unwrap();
        for check in ["raw tracepoint", "tracepoint", "tp_btf", "iterator", "perf_event", "socket filter", "tc"] {
            assert_eq!(status(&report, check), "ok: loads and attaches");
        }
        assert_eq!(status(&report, "ring buffer"), "ok: can be made");
    }

    /// Where no cgroup is mounted, containers are known by their runtime's command line and files.
    #[test]
    fn without_any_cgroup_mounted_containers_are_named() {
        let _alone = alone();
        let docker = Docker::start();
        early(&docker);
        let script = "umount -R /sys/fs/cgroup && exec \"$@\"";
        let wrapper = ["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh"];
        let ig = tracing(docker.socket().to_str().unwrap()).through(&wrapper).start_ready();
        let names = short(&docker, 5);
        wait_for_early(&ig);
        let done = ig.stop().expect_success();
        assert_eq!(missing(&done, &names), Vec::<String>::new(), "{}", done.stdout());
        assert!(done.rows().iter().any(|r| name(r) == "early"), "{}", done.stdout());
    }

    /// In a mount namespace of its own, so that the machine keeps what it has.
    #[test]
    fn only_missing_file_systems_are_mounted_and_nowhere_else() {
        let _alone = alone();
        let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let before = mounts();
        let script = "umount /sys/kernel/debug/tracing 2>/dev/null; umount /sys/kernel/debug 2>/dev/null
umount /sys/kernel/tracing; set -e
\"$@\"; grep -c ' - bpf ' /proc/self/mountinfo; grep -c ' - tracefs ' /proc/self/mountinfo";
        let ig = Ig::new(&["run", "trace_exec", "--host", "-o", "none", "--timeout", "1", "--auto-mount-filesystems"]);
        let done = ig.through(&["unshare", "-m", "--propagation", "private", "sh", "-c", script, "sh"]).run();
        let done = done.expect_success();
        let bpf = before.lines().filter(|l| l.contains(" - bpf ")).count();
        assert_eq!(done.stdout(), format!("{bpf}\n1\n"), "bpffs was there already; tracefs was not");
        assert_eq!(mounts(), before);
    }
}
