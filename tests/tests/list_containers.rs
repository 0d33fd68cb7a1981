//! `ig list-containers`, and selections by what only a runtime's API tells, with a real Docker and a real Podman.

use ig_tests::{
    alone,
    docker::Docker,
    ig::{Finished, Ig, at},
    podman::Podman,
    wait_for,
};
use serde_json::Value;
use std::{collections::BTreeSet, time::Duration};

const USER: i32 = 2;
const ENVIRONMENT: i32 = 3;
const LIMIT: Duration = Duration::from_secs(120);

fn list(docker: &Docker, arguments: &[&str]) -> Finished {
    Ig::new(&["list-containers", "--docker-socketpath"])
        .arg(docker.socket().display().to_string())
        .args(arguments)
        .run()
}

/// Names of the listed containers whose image is ours: other tests' machines may run others.
fn names(done: Finished) -> BTreeSet<String> {
    let rows = done.expect_success().rows();
    rows.iter().filter_map(|r| at(r, "runtime.containerName").as_str()).map(str::to_owned).collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

fn sleeper(docker: &Docker, name: &str, image: &str) -> String {
    docker.run(&["run", "-d", "--net=none", "--name", name, image, "/bin/busybox", "sleep", "1000"])
}

/// A second image: the same files, another id.
fn other_image(docker: &Docker) -> String {
    docker.run(&["create", "--name", "seed", "busybox", "true"]);
    let id = docker.run(&["commit", "-c", "ENV OTHER=1", "seed", "other"]);
    docker.run(&["rm", "seed"]);
    id
}

mod root {
    use super::*;

    #[test]
    fn running_containers_are_listed_with_all_that_docker_knows() {
        let _alone = alone();
        let docker = Docker::start();
        let id = sleeper(&docker, "list-web", "busybox");
        let other = other_image(&docker);
        sleeper(&docker, "list-db", "other");
        docker.run(&["create", "--name", "list-never-started", "busybox", "true"]);
        let inspect = |what: &str| docker.run(&["inspect", "-f", what, "list-web"]);

        let rows = list(&docker, &["-o", "json", "-c", "list-web"]).expect_success().rows();
        let [web] = &rows[..] else { panic!("{rows:#?}") };
        assert_eq!(at(web, "runtime.runtimeName"), "docker");
        assert_eq!(at(web, "runtime.containerId"), id.as_str());
        assert_eq!(at(web, "runtime.containerPid").to_string(), inspect("{{.State.Pid}}"));
        assert_eq!(at(web, "runtime.containerImageName"), "busybox");
        assert_eq!(at(web, "runtime.containerImageId"), inspect("{{.Image}}").as_str());
        assert!(at(web, "runtime.containerImageDigest").is_null(), "it was never in a registry");
        let pid = inspect("{{.State.Pid}}");
        for (key, kind) in [("mntns", "mnt"), ("netns", "net")] {
            let link = std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
            assert_eq!(link.to_str().unwrap(), format!("{kind}:[{}]", at(web, key)));
        }
        assert_eq!(at(web, "hostNetwork"), false);
        let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let v2 = at(web, "cgroupV2").as_str().unwrap();
        assert!(cgroups.lines().any(|l| l == format!("0::{v2}")), "{cgroups} has no {v2}");
        assert!(std::path::Path::new(at(web, "cgroupPath").as_str().unwrap()).is_dir());

        let short = &other.trim_start_matches("sha256:")[..12];
        let of = |arguments: &[&str]| names(list(&docker, &[&["-o", "json"], arguments].concat()));
        assert!(of(&[]).is_superset(&set(&["list-web", "list-db"])), "{:?}", of(&[]));
        assert!(!of(&[]).contains("list-never-started"));
        assert_eq!(of(&["--runtime-containerimage-id", short]), set(&["list-db"]));
        assert_eq!(
            of(&["-c", "list-web,list-db", "--runtime-containerimage-id", &format!("!{other}")]),
            set(&["list-web"])
        );
        assert_eq!(of(&["--k8s-namespace", "!none"]), set(&[]), "they are in no pod");
        assert_eq!(of(&["-c", "list-web,list-db", "-F", "runtime.containerImageName==other"]), set(&["list-db"]));

        let columns = list(&docker, &["-c", "list-web,list-db", "-o", "custom-columns=containerName,runtimeName"]);
        let text = columns.expect_success().stdout();
        assert_eq!(text, "CONTAINERNAME RUNTIMENAME\nlist-db       docker\nlist-web      docker\n");
        let yaml = list(&docker, &["-c", "list-web", "-o", "yaml"]).expect_success().stdout();
        assert!(yaml.contains("containerName: list-web"), "{yaml}");
        assert_eq!(list(&docker, &["-c", "nobody", "-o", "json"]).expect_success().stdout(), "[]\n");
    }

    #[test]
    fn a_watch_tells_of_what_ran_what_starts_and_what_ends() {
        let _alone = alone();
        let docker = Docker::start();
        sleeper(&docker, "watch-before", "busybox");
        let ig =
            Ig::new(&["list-containers", "-w", "-o", "json", "-c", "watch-before,watch-short", "--docker-socketpath"])
                .arg(docker.socket().display().to_string())
                .start();
        wait_for("the first line", LIMIT, || (ig.stdout_len() > 0).then_some(()));
        docker.run(&["run", "--rm", "--net=none", "--name", "watch-other", "busybox", "true"]);
        docker.run(&["run", "--rm", "--net=none", "--name", "watch-short", "busybox", "true"]);
        wait_for("the end of the short one", LIMIT, || (ig.stdout().lines().count() >= 3).then_some(()));
        docker.run(&["rm", "-f", "watch-before"]);
        wait_for("the last line", LIMIT, || (ig.stdout().lines().count() >= 4).then_some(()));
        // Nothing comes after it.
        std::thread::sleep(Duration::from_millis(500));
        let rows = ig.stop().expect_success().rows();
        let told: Vec<_> = rows
            .iter()
            .map(|r| {
                format!(
                    "{} {}",
                    at(r, "event").as_str().unwrap(),
                    at(r, "container.runtime.containerName").as_str().unwrap()
                )
            })
            .collect();
        assert_eq!(
            told,
            ["CREATED watch-before", "CREATED watch-short", "DELETED watch-short", "DELETED watch-before"]
        );
        assert!(rows.iter().all(|r| at(r, "timestamp").as_str().is_some_and(|t| t.contains('T'))), "{rows:#?}");
    }

    #[test]
    fn without_the_rights_for_bpf_docker_and_proc_are_enough_to_list() {
        let _alone = alone();
        let docker = Docker::start();
        sleeper(&docker, "no-bpf", "busybox");
        let done = Ig::new(&["list-containers", "-o", "json", "-c", "no-bpf", "--docker-socketpath"])
            .arg(docker.socket().display().to_string())
            .through(&["setpriv", "--bounding-set", "-bpf,-perfmon,-sys_admin"])
            .run();
        assert!(done.stderr.contains("without the container tracker"), "{}", done.stderr);
        let rows = done.expect_success().rows();
        assert_eq!(rows.len(), 1, "{rows:#?}");
        assert_eq!(at(&rows[0], "runtime.containerName"), "no-bpf");
        assert_ne!(at(&rows[0], "runtime.containerPid"), &Value::Null);
    }

    #[test]
    fn an_image_is_selected_before_its_container_exists() {
        let _alone = alone();
        let docker = Docker::start();
        let other = other_image(&docker);
        let ig = Ig::new(&["run", "trace_exec", "-o", "json", "--ledger", "--runtime-containerimage-id", &other])
            .arg("--docker-socketpath")
            .arg(docker.socket().display().to_string())
            .start_ready();
        for (name, image) in
            [("image-a", "busybox"), ("image-b", "other"), ("image-c", "busybox"), ("image-d", "other")]
        {
            docker.run(&["run", "--rm", "--net=none", "--name", name, image, "/bin/busybox", "true"]);
        }
        let done = ig.stop().expect_success();
        let rows = done.rows();
        let first = |name: &str| {
            rows.iter().any(|r| at(r, "runtime.containerName") == name && at(r, "args") == "/bin/busybox true")
        };
        assert!(first("image-b") && first("image-d"), "{rows:#?}");
        // Containers of a Docker that is not asked have images that nobody knows, and are shown for that.
        let ours = |name: &str| name.starts_with("image-");
        let seen: BTreeSet<_> = rows
            .iter()
            .map(|r| at(r, "runtime.containerName").as_str().unwrap().to_owned())
            .filter(|n| ours(n))
            .collect();
        assert_eq!(seen, set(&["image-b", "image-d"]));
        let ledger = done.ledger();
        ledger.check();
        assert_eq!(ledger.lost_total(), 0, "{ledger:?}");
    }

    #[test]
    fn podmans_containers_are_listed_and_selected_before_they_exist() {
        let _alone = alone();
        let podman = Podman::start();
        podman.container("pod-before", &["-d"], &["/bin/busybox", "sleep", "1000"]);
        let image = podman.run(&["image", "inspect", "-f", "{{.Id}}", "localhost/busybox"]);
        let digest = podman.run(&["image", "inspect", "-f", "{{index .RepoDigests 0}}", "localhost/busybox"]);
        let digest = digest.rsplit_once('@').unwrap().1;
        let socket = podman.socket().display().to_string();
        let listed = |arguments: &[&str]| {
            let all = [&["list-containers", "-o", "json", "--podman-socketpath", &socket], arguments].concat();
            Ig::new(&all).run().expect_success().rows()
        };
        let rows = listed(&["--runtime-containerimage-digest", digest]);
        let [before] = &rows[..] else { panic!("{rows:#?}") };
        assert_eq!(at(before, "runtime.runtimeName"), "podman");
        assert_eq!(at(before, "runtime.containerName"), "pod-before");
        assert_eq!(at(before, "runtime.containerImageName"), "localhost/busybox:latest");
        assert_eq!(at(before, "runtime.containerImageId"), image.as_str());
        assert_eq!(at(before, "runtime.containerImageDigest"), digest);
        assert_eq!(listed(&["--runtime-containerimage-id", &image[..12]]).len(), 1);

        let ig = Ig::new(&["run", "trace_exec", "-o", "json", "--ledger", "--podman-socketpath", &socket])
            .args(&["-c", "pod-mine", "--runtime-containerimage-digest", digest])
            .start_ready();
        for name in ["pod-other", "pod-mine"] {
            podman.container(name, &["--rm"], &["/bin/busybox", "echo", name]);
        }
        let done = ig.stop().expect_success();
        let rows = done.rows();
        assert!(rows.iter().any(|r| at(r, "args") == "/bin/busybox echo pod-mine"), "{rows:#?}");
        assert!(rows.iter().all(|r| at(r, "runtime.containerName") == "pod-mine"), "{rows:#?}");
        let ledger = done.ledger();
        ledger.check();
        assert_eq!(ledger.lost_total(), 0, "{ledger:?}");
    }

    #[test]
    fn runtimes_that_are_not_there_are_named() {
        let _alone = alone();
        let done =
            Ig::new(&["list-containers", "-r", "cri-o,podman", "-o", "json"]).env("HOST_ROOT", "/nonexistent").run();
        let line = "warning: podman was asked for, but there is no socket at /nonexistent/run/podman/podman.sock";
        assert!(done.stderr.contains(line), "{}", done.stderr);
        // /proc is the host's still, so that another's containers may be listed.
        assert!(serde_json::from_str::<Vec<Value>>(&done.expect_success().stdout()).is_ok());
        let named = Ig::new(&["list-containers", "--podman-socketpath", "/nonexistent/p.sock"]).run();
        assert_eq!(named.code(), ENVIRONMENT, "{}", named.stderr);
        assert!(named.stderr.contains("podman: no socket at /nonexistent/p.sock"), "{}", named.stderr);
        assert_eq!(named.stdout(), "");
        for bad in [
            ["-r", "dockr"],
            ["-o", "xml"],
            ["-o", "columns=nothing"],
            ["-c", "a,!a"],
            ["--runtime-containerimage-id", "nginx"],
            ["--k8s-selector", "app"],
            ["-t", "3"],
            ["-F", "nothing==1"],
        ] {
            let done = Ig::new(&["list-containers"]).args(&bad).run();
            assert_eq!((done.code(), done.stdout().as_str()), (USER, ""), "{bad:?}: {}", done.stderr);
            assert!(done.stderr.starts_with("error: "), "{}", done.stderr);
        }
    }
}
