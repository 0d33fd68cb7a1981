//! Every runtime: the first program of every container is seen, under the right name, id and runtime. The truth comes
//! from the containers themselves, each of which prints the number of its mount namespace.
//!
//! 20 containers each, 200 with `IG_TEST_SCALE=full`.

#![expect(clippy::print_stderr, reason = "figures for whoever runs the tests with --nocapture")]

use ig_tests::{
    alone,
    containerd::Containerd,
    cri::Cri,
    docker::Docker,
    ig::{Finished, Ig},
    plain::{self, Bundle},
    podman::{Oci, Podman},
    truth::{Truth, check, printed, repeat, repeats, unique},
    wait_for,
};
use serde_json::Value;
use std::{path::Path, time::Duration};

fn tracing() -> Ig {
    Ig::new(&["run", "trace_exec", "-o", "json", "--ledger"])
}

/// With the API of a runtime: `flag` is `--docker-socketpath` and the like.
fn asking(flag: &str, socket: &Path) -> Ig {
    tracing().arg(flag).arg(socket.display().to_string())
}

/// Runs `containers` while `ig` traces.
fn traced(ig: Ig, containers: impl FnOnce() -> Vec<Truth>) -> (Finished, Vec<Truth>) {
    let ig = ig.start_ready();
    let truths = containers();
    (ig.stop().expect_success(), truths)
}

/// Runs `containers` while `ig` traces, checks them all, and says how many it were.
fn show(what: &str, ig: Ig, containers: impl FnOnce() -> Vec<Truth>) {
    let (done, truths) = traced(ig, containers);
    check(&done, &truths);
    let distinct: std::collections::BTreeSet<_> = truths.iter().map(|t| t.mntns).collect();
    let (n, numbers) = (truths.len(), distinct.len());
    eprintln!("{what}: {n} of {n} containers seen and labelled, in {numbers} namespace numbers; nothing lost");
}

mod root {
    use super::*;

    #[test]
    fn docker_one_after_the_other() {
        let _alone = alone();
        let docker = Docker::start();
        let ig = asking("--docker-socketpath", &docker.socket());
        show("docker", ig, || repeat(repeats(), 1, || docker.truth(&unique("seq"))));
    }

    #[test]
    fn docker_eight_at_a_time() {
        let _alone = alone();
        let docker = Docker::start();
        let ig = asking("--docker-socketpath", &docker.socket());
        show("docker, 8 at a time", ig, || repeat(repeats(), 8, || docker.truth(&unique("par"))));
    }

    #[test]
    fn docker_is_named_without_its_api() {
        let _alone = alone();
        let docker = Docker::start();
        show("docker, its API unknown", tracing(), || repeat(5, 2, || docker.truth(&unique("deaf"))));
    }

    #[test]
    fn ctr_in_two_namespaces() {
        let _alone = alone();
        let containerd = Containerd::start(&["second"]);
        let ig = asking("--containerd-socketpath", &containerd.socket());
        show("ctr in two namespaces", ig, || {
            let mut all = repeat(repeats().div_ceil(2), 4, || containerd.truth("default", &unique("ctr")));
            all.extend(repeat(repeats().div_ceil(2), 4, || containerd.truth("second", &unique("ctr"))));
            all
        });
    }

    #[test]
    fn pods_of_containerds_cri() {
        let _alone = alone();
        let containerd = Containerd::start(&[]);
        let mut cri = Cri::connect(&containerd.socket(), &containerd.logs());
        let pods = [("shop", unique("pod")), ("bank", unique("pod"))];
        let mut expected = Vec::new();
        let ig = asking("--containerd-socketpath", &containerd.socket());
        let (done, truths) = traced(ig, || {
            let mut all = Vec::new();
            for (namespace, name) in &pods {
                let pod = cri.pod(namespace, name, &[("app", "demo")]);
                for _ in 0..repeats().div_ceil(2) {
                    let truth = cri.truth(&pod, &unique("cri"));
                    expected.push((truth.id.clone(), pod.clone()));
                    all.push(truth);
                }
            }
            all
        });
        check(&done, &truths);
        let rows = done.rows();
        for (id, pod) in expected {
            let row = rows.iter().find(|r| ig_tests::truth::id(r) == id).expect("checked above");
            let k8s = &row["k8s"];
            assert_eq!((&k8s["podName"], &k8s["namespace"]), (&pod.name.into(), &pod.namespace.into()), "{row}");
            assert_eq!(k8s["podUID"], pod.uid, "{row}");
            assert_eq!(k8s["containerName"], row["runtime"]["containerName"], "{row}");
            assert_eq!(k8s["hostnetwork"], true, "{row}");
            assert!(k8s["podLabels"].as_str().unwrap_or_default().contains("app=demo"), "{row}");
        }
        eprintln!("containerd's CRI: {n} of {n} containers of pods seen and labelled; nothing lost", n = truths.len());
    }

    #[test]
    fn pods_through_cri_alone() {
        let _alone = alone();
        let containerd = Containerd::start(&[]);
        let mut cri = Cri::connect(&containerd.socket(), &containerd.logs());
        let early = cri.pod("shop", &unique("early"), &[("app", "early")]);
        cri.start(&early, "web", &["/bin/busybox", "sh", "-c", LOOP]);
        let ig = asking("--containerd-socketpath", &containerd.socket()).args(&["--runtime-protocol", "cri"]);
        let late = unique("late");
        let (done, truths) = traced(ig, || {
            let pod = cri.pod("bank", &late, &[("app", "late")]);
            (0..5).map(|_| cri.truth(&pod, &unique("cri"))).collect()
        });
        check(&done, &truths);
        let rows = done.rows();
        for (pod, label) in [(&early.name, "app=early"), (&late, "app=late")] {
            let mine: Vec<_> = rows.iter().filter(|r| r["k8s"]["podName"] == **pod).collect();
            assert!(mine.len() > 3, "{} rows of pod {pod}", mine.len());
            for row in mine {
                assert!(row["k8s"]["podLabels"].as_str().unwrap_or_default().contains(label), "{row}");
                assert_eq!(row["runtime"]["runtimeName"], "containerd", "{row}");
            }
        }
    }

    /// Rows of the container `name` that began before `ig` did: all have its name, and soon what is expected of
    /// `runtime.FIELD`, some of which only the runtime's API tells.
    fn ran_before(ig: Ig, name: &str, expected: &[(&str, &str)]) {
        let ig = ig.start_ready();
        let is_known = |row: &Value| expected.iter().all(|(field, value)| row["runtime"][field] == *value);
        let of_it = |row: &Value| ig_tests::truth::name(row) == name;
        wait_for(&format!("a row of {name} with {expected:?}"), Duration::from_secs(120), || {
            // The last line may not be whole yet.
            let rows = ig.stdout().lines().filter_map(|l| serde_json::from_str(l).ok()).collect::<Vec<Value>>();
            rows.iter().any(|row| of_it(row) && is_known(row)).then_some(())
        });
        let done = ig.stop().expect_success();
        let rows = done.rows();
        let last = rows.iter().rfind(|row| of_it(row)).expect("waited for");
        assert!(is_known(last), "what was known is not any more: {last}");
    }

    #[test]
    fn what_ran_before_is_known_too() {
        let _alone = alone();
        let containerd = Containerd::start(&[]);
        let name = unique("before");
        let run = containerd.run("default", &["-d"], &name, &["sh", "-c", LOOP]).output();
        printed("ctr run", run.expect("ctr"));
        let expected = [("runtimeName", "containerd"), ("containerImageName", "docker.io/library/busybox:latest")];
        ran_before(asking("--containerd-socketpath", &containerd.socket()), &name, &expected);

        podman_ran_before(Oci::Runc);
    }

    #[test]
    fn what_ran_before_over_crun_is_known_too() {
        let _alone = alone();
        podman_ran_before(Oci::Crun);
    }

    fn podman_ran_before(oci: Oci) {
        let mut podman = Podman::new(oci);
        podman.serve();
        let name = unique("before");
        let id = podman.container(&name, &["-d"], &["sh", "-c", LOOP]);
        let expected =
            [("runtimeName", "podman"), ("containerId", &*id), ("containerImageName", "localhost/busybox:latest")];
        ran_before(asking("--podman-socketpath", &podman.socket()), &name, &expected);
        podman.run(&["rm", "-f", "-t", "0", &name]);
    }

    #[test]
    fn podman_over_runc() {
        let _alone = alone();
        let podman = Podman::start();
        let ig = asking("--podman-socketpath", &podman.socket());
        show("podman over runc", ig, || repeat(repeats(), 2, || podman.truth(&unique("pod"))));
    }

    #[test]
    fn podman_over_crun_without_a_cgroup() {
        let _alone = alone();
        let podman = Podman::new(Oci::Crun);
        show("podman over crun, no cgroup", tracing(), || repeat(repeats(), 2, || podman.truth(&unique("pod"))));
    }

    #[test]
    fn plain_runc() {
        let _alone = alone();
        let bundle = Bundle::new();
        show("runc run", tracing(), || repeat(repeats(), 4, || bundle.runc_truth(&unique("runc"))));
    }

    #[test]
    fn plain_crun_without_a_cgroup() {
        let _alone = alone();
        let bundle = Bundle::new();
        show("crun run, no cgroup", tracing(), || repeat(repeats(), 4, || bundle.crun_truth(&unique("crun"))));
    }

    /// CRI-O is emulated: its monitor, its annotations and its cgroups, without CRI-O itself.
    #[test]
    fn emulated_cri_o() {
        let _alone = alone();
        let (done, launched) = {
            let ig = tracing().start_ready();
            let launched: Vec<_> = (0..repeats()).map(|_| plain::cri_o_truth(&unique("pod"), &unique("web"))).collect();
            (ig.stop().expect_success(), launched)
        };
        let truths: Vec<_> = launched.iter().map(|(t, _)| t.clone()).collect();
        check(&done, &truths);
        let rows = done.rows();
        for (truth, pod) in launched {
            let row = rows.iter().find(|r| ig_tests::truth::id(r) == truth.id).expect("checked above");
            assert_eq!((&row["k8s"]["podName"], &row["k8s"]["namespace"]), (&pod.into(), &"shop".into()), "{row}");
            assert_eq!(row["k8s"]["containerName"], truth.name, "{row}");
        }
    }
}

const LOOP: &str = "while :; do /bin/busybox sleep 0.05; done";

/// What a container does that is asked for with `-c`; each line is one exec.
const STEPS: &str = "/bin/busybox true; /bin/busybox echo two; /bin/busybox sleep 0";

/// Starts `ig -c WANTED`, then `run`s that container among others: all of its events are shown, and no others.
fn only_the_wanted(ig: Ig, mut run: impl FnMut(&str, &[&str])) {
    let (wanted, before, after) = (unique("wanted"), unique("before"), unique("after"));
    let command = ["/bin/busybox", "sh", "-c", STEPS];
    let ig = ig.args(&["-c", &wanted]).start_ready();
    for name in [&before, &wanted, &after] {
        run(name, &command);
    }
    let done = ig.stop().expect_success();
    let rows = done.rows();
    let shown: Vec<_> =
        rows.iter().map(|r| (ig_tests::truth::name(r), r["args"].as_str().unwrap_or_default())).collect();
    let execs = [&command.join(" "), "/bin/busybox true", "/bin/busybox echo two", "/bin/busybox sleep 0"];
    assert_eq!(shown, execs.map(|args| (wanted.as_str(), args)), "{}", done.stderr);
    done.ledger().check();
    assert_eq!(done.ledger().lost_total(), 0);
}

mod root_selection {
    use super::*;

    #[test]
    fn docker() {
        let _alone = alone();
        let docker = Docker::start();
        let ig = asking("--docker-socketpath", &docker.socket());
        only_the_wanted(ig, |name, command| {
            docker.run(&[&["run", "--rm", "--net=none", "--name", name, "busybox"], command].concat());
        });
    }

    #[test]
    fn containerd() {
        let _alone = alone();
        let containerd = Containerd::start(&[]);
        only_the_wanted(asking("--containerd-socketpath", &containerd.socket()), |name, command| {
            let output = containerd.run("default", &["--rm"], name, command).output();
            printed("ctr run", output.expect("ctr"));
        });
    }

    #[test]
    fn podman() {
        let _alone = alone();
        let podman = Podman::start();
        only_the_wanted(asking("--podman-socketpath", &podman.socket()), |name, command| {
            podman.container(name, &["--rm"], command);
        });
    }

    #[test]
    fn pods() {
        let _alone = alone();
        let containerd = Containerd::start(&[]);
        let mut cri = Cri::connect(&containerd.socket(), &containerd.logs());
        let pod = cri.pod("shop", &unique("pod"), &[]);
        only_the_wanted(asking("--containerd-socketpath", &containerd.socket()), |name, command| {
            cri.run(&pod, name, command);
        });
    }

    #[test]
    fn pods_by_name_namespace_and_label() {
        let _alone = alone();
        let containerd = Containerd::start(&[]);
        let mut cri = Cri::connect(&containerd.socket(), &containerd.logs());
        let socket = containerd.socket().display().to_string();
        let (wanted, other) = (unique("wanted"), unique("other"));
        let selectors = [["--k8s-podname", &wanted], ["--k8s-namespace", "shop"], ["--k8s-selector", "app=shop"]];
        let running = selectors.map(|s| tracing().args(&["--containerd-socketpath", &socket]).args(&s).start_ready());
        for (namespace, name) in [("bank", &other), ("shop", &wanted)] {
            let pod = cri.pod(namespace, name, &[("app", namespace)]);
            // The same name in both pods.
            cri.run(&pod, "web", &["/bin/busybox", "sh", "-c", STEPS]);
        }
        for (ig, selector) in running.into_iter().zip(selectors) {
            let rows = ig.stop().expect_success().rows();
            let of_web = |r: &&Value| r["k8s"]["containerName"] == "web";
            assert!(rows.iter().all(|r| r["k8s"]["podName"] == *wanted), "{selector:?}: {rows:#?}");
            assert_eq!(rows.iter().filter(of_web).count(), 4, "{selector:?}: {rows:#?}");
        }
    }
}
