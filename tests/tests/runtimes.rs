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
    truth::{Truth, check, repeat, repeats, unique},
};

fn tracing() -> Ig {
    Ig::new(&["run", "trace_exec", "-o", "json", "--ledger"])
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
        let ig = tracing().arg("--docker-socketpath").arg(docker.socket().display().to_string());
        show("docker", ig, || repeat(repeats(), 1, || docker.truth(&unique("seq"))));
    }

    #[test]
    fn docker_eight_at_a_time() {
        let _alone = alone();
        let docker = Docker::start();
        let ig = tracing().arg("--docker-socketpath").arg(docker.socket().display().to_string());
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
        show("ctr in two namespaces", tracing(), || {
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
        let (done, truths) = traced(tracing(), || {
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
        }
    }

    #[test]
    fn podman_over_runc() {
        let _alone = alone();
        let podman = Podman::new(Oci::Runc);
        show("podman over runc", tracing(), || repeat(repeats(), 2, || podman.truth(&unique("pod"))));
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
    use ig_tests::truth::printed;

    #[test]
    fn docker() {
        let _alone = alone();
        let docker = Docker::start();
        let ig = tracing().arg("--docker-socketpath").arg(docker.socket().display().to_string());
        only_the_wanted(ig, |name, command| {
            docker.run(&[&["run", "--rm", "--net=none", "--name", name, "busybox"], command].concat());
        });
    }

    #[test]
    fn containerd() {
        let _alone = alone();
        let containerd = Containerd::start(&[]);
        only_the_wanted(tracing(), |name, command| {
            let output = containerd.run("default", &["--rm"], name, command).output();
            printed("ctr run", output.expect("ctr"));
        });
    }

    #[test]
    fn podman() {
        let _alone = alone();
        let podman = Podman::new(Oci::Runc);
        only_the_wanted(tracing(), |name, command| {
            podman.container(name, &["--rm"], command);
        });
    }

    #[test]
    fn pods() {
        let _alone = alone();
        let containerd = Containerd::start(&[]);
        let mut cri = Cri::connect(&containerd.socket(), &containerd.logs());
        let pod = cri.pod("shop", &unique("pod"), &[]);
        only_the_wanted(tracing(), |name, command| {
            cri.start(&pod, name, command);
            cri.log(&pod, name);
        });
    }
}
