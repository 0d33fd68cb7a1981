//! Replays of what the kernel reports, against a host root made for the test.

mod before;
mod pods;
mod trust;

use super::*;
use crate::containers::{
    ImageAnswer,
    clients::{ClientError, Described, News, Source},
    container::Pod,
    filter::{Selector, Verdict},
};

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
const HOST: u64 = 1;

struct Host {
    root: tempfile::TempDir,
    follower: Follower,
}

fn host() -> Host {
    let root = tempfile::tempdir().unwrap();
    let mut follower = Follower::new(root.path().to_owned(), HOST, 1_000_000);
    // Files that the test makes, not those of the machine it runs on.
    follower.proc = Some(root.path().join("proc"));
    follower.hierarchies = Cgroups::at(Some(root.path().join("cgroup")), None);
    Host { root, follower }
}

fn task(mntns: u64, time: u64, tgid: u32, launcher: u32) -> TaskEvent {
    TaskEvent {
        entered: 0,
        time,
        found_late: false,
        mntns,
        parent_mntns: HOST,
        netns: 99,
        cgroup: 500,
        cgroup_v1: 0,
        tgid,
        launcher,
    }
}

impl Host {
    fn put(&self, path: &str, text: &str) {
        let path = self.root.path().join(path.trim_start_matches('/'));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn exec_runtime(&mut self, tgid: u32, euid: u32, mntns: u64, line: &str) {
        let mut args = line.replace(' ', "\0").into_bytes();
        args.push(0);
        let (parent_tgid, user_ns) = (1, INIT_USER_NS);
        let e = RuntimeEvent { tgid, parent_tgid, mntns, euid, user_ns, args, args_cut: false };
        self.follower.event(Event::RuntimeExec(e), 0);
    }

    fn birth(&mut self, e: TaskEvent) {
        let now = e.time;
        self.follower.event(Event::Birth(e), now);
    }

    fn first_exec(&mut self, e: TaskEvent) {
        let now = e.time;
        self.follower.event(Event::FirstExec(e), now);
    }

    fn mkdir(&mut self, id: u64, path: &str) {
        self.follower.event(Event::CgroupMkdir { v1: false, id, path: path.into() }, 0);
    }

    fn at(&self, mntns: u64, time: u64) -> Option<Arc<Container>> {
        self.follower.container_at(mntns, time)
    }

    fn docker_create(&mut self, tgid: u32) {
        let bundle = format!("/run/containerd/io.containerd.runtime.v2.task/moby/{ID}");
        let dir = format!("/data/docker/containers/{ID}");
        let mounts = format!(r#"{{"mounts":[{{"destination":"/etc/hosts","source":"{dir}/hosts"}}]}}"#);
        self.put(&format!("{bundle}/config.json"), &mounts);
        self.put(&format!("{dir}/config.v2.json"), r#"{"Name":"/web","Image":"sha256:ab","Config":{"Image":"nginx"}}"#);
        self.exec_runtime(tgid, 0, HOST, &format!("runc --root /r/moby create --bundle {bundle} {ID}"));
    }
}

#[test]
fn a_docker_container_has_its_name_at_birth_and_its_pid_at_its_first_program() {
    let mut h = host();
    h.docker_create(10);
    h.birth(task(7, 100, 12, 10));
    let c = h.at(7, 100).unwrap();
    assert_eq!((&*c.id, c.name.as_deref(), c.runtime), (ID, Some("web"), RuntimeName::Docker));
    assert_eq!((c.image_name.as_deref(), c.image_id.as_deref()), (Some("nginx"), Some("sha256:ab")));
    assert!(c.complete);
    assert_eq!((c.pid, c.started_at), (0, 1_000_000));
    assert_eq!(h.follower.todo.decide, [(7, 100)]);
    assert_eq!(h.follower.todo.ask, [(RuntimeName::Docker, Question::Image("sha256:ab".into()))]);

    h.mkdir(500, &format!("/docker/{ID}"));
    h.first_exec(task(7, 200, 13, 0));
    let c = h.at(7, 200).unwrap();
    assert_eq!((c.pid, c.cgroup_id, c.netns), (13, 500, 99));
    assert_eq!(c.cgroup_path.as_deref(), Some(&*format!("/docker/{ID}")));

    h.follower.news(News::Image { id: "sha256:ab".into(), digest: Some("sha256:cd".into()) }, 300);
    assert_eq!(h.at(7, 200).unwrap().image_digest.as_deref(), Some("sha256:cd"));
}

#[test]
fn a_restart_with_a_reused_number_is_another_instance() {
    let mut h = host();
    h.docker_create(10);
    h.birth(task(7, 100, 12, 10));
    h.first_exec(task(7, 150, 13, 0));
    h.follower.event(Event::Exit { tgid: 10, time: 160 }, 160);
    h.follower.event(Event::Exit { tgid: 13, time: 200 }, 200);
    assert!(h.follower.registry.running(ID).is_empty());
    h.docker_create(20);
    h.birth(task(7, 300, 22, 20));
    h.first_exec(task(7, 350, 23, 0));
    let (first, second) = (h.at(7, 160).unwrap(), h.at(7, 360).unwrap());
    assert_ne!(first.instance, second.instance);
    assert_eq!((first.pid, second.pid), (13, 23));
    assert_eq!(h.follower.registry.running(ID), [second.instance]);
}

#[test]
fn a_runtimes_pid_that_is_reused_launches_nothing() {
    let mut h = host();
    h.docker_create(10);
    h.follower.event(Event::Exit { tgid: 10, time: 50 }, 50);
    h.birth(task(7, 100, 12, 10));
    assert!(h.at(7, 100).is_none());
}

#[test]
fn namespaces_without_a_runtime_are_the_hosts() {
    let mut h = host();
    h.mkdir(500, "/system.slice/app.service");
    h.birth(task(7, 100, 12, 0));
    h.first_exec(task(7, 150, 12, 0));
    assert!(h.at(7, 200).is_none());
    assert!(matches!(h.follower.registry.table().now(7).unwrap().owner, Owner::Host));
}

#[test]
fn plain_runc_is_named_by_its_id() {
    let mut h = host();
    h.exec_runtime(10, 0, HOST, "runc run --bundle /srv/web web");
    h.birth(task(7, 100, 12, 10));
    let c = h.at(7, 100).unwrap();
    assert_eq!((&*c.id, c.name.as_deref(), c.runtime), ("web", Some("web"), RuntimeName::Runc));
    assert_eq!(c.bundle.as_deref(), Some(Path::new("/srv/web")));
}

#[test]
fn podman_is_named_by_conmon() {
    let mut h = host();
    let bundle = format!("/s/overlay-containers/{ID}/userdata");
    h.exec_runtime(9, 0, HOST, &format!("conmon -c {ID} -r /usr/bin/crun -b {bundle} -n web"));
    h.exec_runtime(10, 0, HOST, &format!("crun create --bundle {bundle} {ID}"));
    // crun executes itself from memory; its command line is the same, or its own business.
    h.exec_runtime(10, 0, HOST, "crun");
    h.birth(task(7, 100, 12, 10));
    let c = h.at(7, 100).unwrap();
    assert_eq!((c.name.as_deref(), c.runtime), (Some("web"), RuntimeName::Podman));
}

#[test]
fn a_service_that_the_kernel_meets_late_is_decided_anew() {
    let mut h = host();
    h.follower.walked(&[process(40, 11, "/system.slice/a.service", 10)], 1000);
    let birth = h.follower.registry.table().now(11).unwrap().birth;
    h.follower.todo.decide.clear();
    // Its next program makes the kernel put it into every filter.
    let mut e = task(11, 0, 40, 0);
    e.found_late = true;
    h.birth(e);
    assert_eq!(h.follower.todo.decide, [(11, birth)]);
}

#[test]
fn a_namespace_made_inside_a_container_is_that_containers() {
    let mut h = host();
    h.docker_create(10);
    h.birth(task(7, 100, 12, 10));
    h.first_exec(task(7, 150, 13, 0));
    let mut e = task(9, 200, 14, 0);
    e.parent_mntns = 7;
    h.birth(e);
    h.first_exec(task(9, 250, 14, 0));
    assert_eq!((&*h.at(9, 300).unwrap().id, h.at(9, 300).unwrap().pid), (ID, 13));
}

#[test]
fn found_late_a_container_is_known_by_its_cgroup() {
    let mut h = host();
    h.mkdir(500, &format!("/docker/{ID}"));
    h.put(&format!("/var/lib/docker/containers/{ID}/config.v2.json"), r#"{"Name":"/web"}"#);
    let mut e = task(7, 0, 12, 0);
    e.found_late = true;
    h.birth(e);
    let c = h.at(7, 1).unwrap();
    assert_eq!((&*c.id, c.name.as_deref()), (ID, Some("web")));
}

#[test]
fn a_name_that_does_not_come_is_asked_for_then_given_up() {
    let mut h = host();
    h.exec_runtime(10, 0, HOST, &format!("runc --root /r/moby create --bundle /gone/{ID} {ID}"));
    h.birth(task(7, 100, 12, 10));
    let c = h.at(7, 100).unwrap();
    assert_eq!((c.runtime, c.name.as_deref(), c.complete), (RuntimeName::Docker, None, false));
    assert_eq!(h.follower.todo.ask, [(RuntimeName::Docker, Question::Container(ID.into()))]);
    assert_eq!(h.follower.next_tick(), Some(100 + NAME_DEADLINE));
    h.follower.tick(99 + NAME_DEADLINE);
    assert!(!h.at(7, 100).unwrap().complete);
    h.follower.tick(100 + NAME_DEADLINE);
    assert!(h.at(7, 100).unwrap().complete);
    assert_eq!(h.follower.todo.decide, [(7, 100), (7, 100)], "its filters are decided anew");
}

#[test]
fn news_names_a_container_and_renames_it() {
    let mut h = host();
    let known = |name: &str| {
        let d = Described { id: ID.into(), name: Some(name.into()), ..Described::default() };
        News::Known(RuntimeName::Docker, d)
    };
    h.follower.news(known("early"), 50);
    h.exec_runtime(10, 0, HOST, &format!("runc --root /r/moby create --bundle /gone/{ID} {ID}"));
    h.birth(task(7, 100, 12, 10));
    assert_eq!(h.at(7, 100).unwrap().name.as_deref(), Some("early"));
    h.follower.todo = Todo::default();
    h.follower.news(known("late"), 200);
    assert_eq!(h.at(7, 100).unwrap().name.as_deref(), Some("late"));
    assert_eq!(h.follower.todo.decide, [(7, 100)]);
}

#[test]
fn the_end_of_its_cgroup_is_the_end_of_a_container() {
    let mut h = host();
    h.mkdir(500, &format!("/docker/{ID}"));
    h.docker_create(10);
    h.birth(task(7, 100, 12, 10));
    h.first_exec(task(7, 150, 13, 0));
    h.follower.event(Event::CgroupRmdir { v1: true, id: 500, time: 160 }, 160);
    assert_eq!(h.follower.registry.running(ID).len(), 1, "ids of another hierarchy mean nothing");
    h.follower.event(Event::CgroupRmdir { v1: false, id: 500, time: 200 }, 200);
    assert!(h.follower.registry.running(ID).is_empty());
    h.follower.tick(200 + crate::containers::registry::TOMBSTONE);
    assert_eq!(h.follower.todo.retire, [(7, 100)]);
}

fn process(pid: u32, mntns: u64, cgroup: &str, started: u64) -> Process {
    Process { pid, parent: 1, mntns, netns: 99, cgroup: cgroup.into(), started, is_runtime: false }
}

const SANDBOX: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn pod_json(container: &str, kind: &str) -> String {
    format!(
        r#"{{"annotations":{{"io.kubernetes.cri.container-name":"{container}","io.kubernetes.cri.container-type":"{kind}",
        "io.kubernetes.cri.image-name":"nginx","io.kubernetes.cri.sandbox-id":"{SANDBOX}",
        "io.kubernetes.cri.sandbox-name":"web-0","io.kubernetes.cri.sandbox-namespace":"shop"}}}}"#
    )
}

impl Host {
    fn launch(&mut self, tgid: u32, namespace: &str, id: &str, config: &str) {
        let bundle = format!("/run/containerd/io.containerd.runtime.v2.task/{namespace}/{id}");
        self.put(&format!("{bundle}/config.json"), config);
        self.exec_runtime(tgid, 0, HOST, &format!("runc create --bundle {bundle} {id}"));
    }

    fn with_pods(&mut self) {
        self.follower.expect(&[RuntimeName::Containerd], &[RuntimeName::Containerd], "node-1");
    }
}

fn claim(name: &str, pid: Option<u32>) -> News {
    let d = Described {
        id: claimed_id(1000, ID),
        name: Some(claimed_id(1000, name)),
        image_name: Some("busybox".into()),
        user: Some(1000),
        pid,
        ..Described::default()
    };
    News::Known(RuntimeName::Podman, d)
}

#[test]
fn a_digest_decides_anew_and_an_answer_without_one_is_an_answer() {
    let mut h = host();
    h.follower.expect(&[RuntimeName::Docker, RuntimeName::Podman], &[], "n");
    h.docker_create(10);
    h.birth(task(7, 100, 12, 10));
    assert!(h.at(7, 100).unwrap().is_settling());
    h.follower.todo = Todo::default();
    h.follower.news(News::Image { id: "sha256:ab".into(), digest: None }, 200);
    assert_eq!(h.follower.todo.decide, [(7, 100)]);
    assert!(!h.at(7, 100).unwrap().is_settling());
    // The next of that image knows at once; one whose image nobody tells of waits for its time only.
    h.docker_create(20);
    h.birth(task(8, 300, 22, 20));
    assert!(!h.at(8, 300).unwrap().is_settling());
    h.follower.news(News::Removed(RuntimeName::Docker, ID.into()), 400);
    let bundle = format!("/s/overlay-containers/{ID}/userdata");
    h.exec_runtime(29, 0, HOST, &format!("conmon -c {ID} -b {bundle} -n web"));
    h.exec_runtime(30, 0, HOST, &format!("crun create --bundle {bundle} {ID}"));
    h.birth(task(9, 500, 32, 30));
    let c = h.at(9, 500).unwrap();
    assert!(c.complete && c.is_settling(), "its name is known, its image is not");
    assert_eq!(h.follower.todo.ask, [(RuntimeName::Podman, Question::Container(ID.into()))]);
    h.follower.tick(500 + NAME_DEADLINE);
    let c = h.at(9, 500).unwrap();
    assert_eq!((c.is_settling(), c.image_answer), (false, ImageAnswer::TimeUp));
}

#[test]
fn nobody_waits_for_the_image_of_a_runtime_that_nobody_asks() {
    let mut h = host();
    h.docker_create(10);
    h.birth(task(7, 100, 12, 10));
    let c = h.at(7, 100).unwrap();
    assert_eq!((c.complete, c.is_settling(), c.image_answer), (true, false, ImageAnswer::TimeUp));
    h.follower.expect(&[RuntimeName::Docker], &[], "n");
    h.docker_create(20);
    h.birth(task(8, 200, 22, 20));
    assert!(h.at(8, 200).unwrap().is_settling());
    let source = Source { number: 0, runtime: RuntimeName::Docker };
    let gone = ClientError::StreamEnded { runtime: RuntimeName::Docker, socket: "/s".into() };
    h.follower.news(News::Lost(source, gone), 300);
    assert_eq!(h.at(8, 200).unwrap().image_answer, ImageAnswer::TimeUp);
}

#[test]
fn the_same_id_in_two_of_containerds_namespaces_is_two_containers() {
    let mut h = host();
    h.with_pods();
    h.launch(10, "red", "web", "{}");
    h.birth(task(7, 100, 12, 10));
    h.launch(20, "blue", "web", "{}");
    h.birth(task(8, 200, 22, 20));
    let news = |namespace: &str, name: &str| {
        let (namespace, name) = (Some(namespace.into()), Some(name.into()));
        News::Known(RuntimeName::Containerd, Described { id: "web".into(), namespace, name, ..Described::default() })
    };
    assert_eq!(h.at(7, 100).unwrap().name.as_deref(), Some("web"));
    h.follower.news(news("red", "red-web"), 300);
    h.follower.news(news("blue", "blue-web"), 300);
    assert_eq!(h.at(7, 100).unwrap().name.as_deref(), Some("red-web"));
    assert_eq!(h.at(8, 200).unwrap().name.as_deref(), Some("blue-web"));
    // Told before they start, too.
    h.launch(30, "blue", "web", "{}");
    h.birth(task(9, 400, 32, 30));
    assert_eq!(h.at(9, 400).unwrap().name.as_deref(), Some("blue-web"));
}

#[test]
fn what_containerd_says_of_dockers_containers_is_said_of_docker() {
    let mut h = host();
    h.docker_create(10);
    h.birth(task(7, 100, 12, 10));
    let namespace = Some("moby".into());
    let d = Described { id: ID.into(), namespace, pid: Some(12), ..Described::default() };
    h.follower.news(News::Known(RuntimeName::Containerd, d), 200);
    let c = h.at(7, 100).unwrap();
    assert_eq!(
        (c.name.as_deref(), c.runtime, c.namespace.as_deref()),
        (Some("web"), RuntimeName::Docker, Some("moby"))
    );
    assert_eq!(h.follower.registry.len(), 1);
}

/// Only its process leads to it: no bundle, no cgroup of a known form, no launch that was seen.
#[test]
fn a_container_that_only_the_api_knows_is_taken_in() {
    let mut h = host();
    h.with_pods();
    h.follower.walked(&[process(40, 11, "/odd", 10)], 1000);
    assert!(h.at(11, 5).is_none());
    let listed = Described { id: "web".into(), listed: true, name: Some("web".into()), ..Described::default() };
    h.follower.news(News::Known(RuntimeName::Containerd, listed), 1100);
    assert_eq!(h.follower.todo.ask, [(RuntimeName::Containerd, Question::Container("web".into()))]);
    let link = h.root.path().join("proc/40/ns/mnt");
    std::fs::create_dir_all(link.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("mnt:[11]", link).unwrap();
    let looked_up = Described { id: "web".into(), pid: Some(40), ..Described::default() };
    h.follower.news(News::Known(RuntimeName::Containerd, looked_up), 1200);
    let c = h.at(11, 1200).unwrap();
    assert_eq!((c.name.as_deref(), c.pid, c.complete), (Some("web"), 40, true));
}

#[test]
fn a_listing_puts_out_of_date_what_is_not_said_again() {
    let mut h = host();
    let source = Source { number: 0, runtime: RuntimeName::Docker };
    let known = |id: &str, name: &str| {
        let d = Described { id: id.into(), name: Some(name.into()), ..Described::default() };
        News::Known(RuntimeName::Docker, d)
    };
    h.follower.news(known(ID, "stale"), 50);
    h.follower.news(News::Listing(source), 60);
    h.follower.news(News::Connected { source, pods: None }, 70);
    h.exec_runtime(10, 0, HOST, &format!("runc --root /r/moby create --bundle /gone/{ID} {ID}"));
    h.birth(task(7, 100, 12, 10));
    assert_eq!(h.at(7, 100).unwrap().name, None, "it is asked for, not guessed");
}
