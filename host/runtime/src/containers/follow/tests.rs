//! Replays of what the kernel reports, against a host root made for the test.

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
fn a_name_is_believed_only_of_root_outside_containers() {
    let mut h = host();
    h.exec_runtime(5, 0, HOST, "runc run --bundle /srv/web web");
    h.birth(task(7, 50, 6, 5));
    h.exec_runtime(8, 1000, HOST, &format!("conmon -c {ID} -n fake"));
    h.exec_runtime(9, 0, 7, &format!("conmon -c {ID} -n fake"));
    let mut args = format!("conmon -c {ID} -n fake ").replace(' ', "\0").into_bytes();
    args.pop();
    let e = RuntimeEvent {
        tgid: 4,
        parent_tgid: 1,
        mntns: HOST,
        euid: 0,
        user_ns: INIT_USER_NS + 1,
        args,
        args_cut: false,
    };
    h.follower.event(Event::RuntimeExec(e), 0);
    assert_eq!(h.follower.monitors.get(ID), None);
    h.exec_runtime(10, 0, HOST, &format!("conmon -c {ID} -n real"));
    assert_eq!(h.follower.monitors.get(ID).map(|n| &**n), Some("real"));
}

#[test]
fn a_runtime_that_ran_inside_a_container_before_is_not_believed() {
    let mut h = host();
    h.put("/run/runc/plain/state.json", r#"{"id":"plain","init_process_pid":30}"#);
    let runtimes = [(10, "conmon\0-c\0inner\0-n\0fake\0"), (11, "conmon\0-c\0outer\0-n\0real\0")];
    for (pid, line) in runtimes {
        h.put(&format!("/proc/{pid}/cmdline"), line);
        let user = h.root.path().join(format!("proc/{pid}/ns/user"));
        std::fs::create_dir_all(user.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(format!("user:[{INIT_USER_NS}]"), user).unwrap();
    }
    let runtime = |pid, mntns| Process { is_runtime: true, ..process(pid, mntns, "/", 5) };
    h.follower.walked(&[runtime(10, 9), runtime(11, HOST), process(30, 9, "/plain", 10)], 50);
    assert_eq!(h.follower.monitors.get("inner"), None);
    // The processes of this test are the files of whoever runs it.
    let me = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(h.root.path()).unwrap());
    assert_eq!(h.follower.monitors.get("outer").is_some(), me == 0);
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
fn a_claimed_id_is_not_believed_without_privilege() {
    let mut h = host();
    h.docker_create(10);
    h.birth(task(7, 100, 12, 10));
    h.exec_runtime(20, 1000, HOST, &format!("runc --root /r/moby create --bundle /tmp/b {ID}"));
    let mut e = task(8, 200, 22, 20);
    e.cgroup = 501;
    h.mkdir(501, "/user.slice/user-1000.slice");
    h.birth(e);
    let c = h.at(8, 200).unwrap();
    assert_eq!(&*c.id, format!("1000/{ID}"));
    assert_eq!(Selector::parse("web").unwrap().verdict(&c), Verdict::No);
    assert_eq!(h.follower.registry.running(ID).len(), 1, "news about the real one reaches only that");
}

#[test]
fn the_bundle_of_an_unprivileged_launcher_is_not_read() {
    let mut h = host();
    h.put(
        "/home/b/config.json",
        r#"{"annotations":{"io.kubernetes.cri.image-name":"victim","nerdctl/name":"victim"}}"#,
    );
    h.exec_runtime(20, 1000, HOST, "runc run --bundle /home/b mine");
    h.birth(task(8, 200, 22, 20));
    let c = h.at(8, 200).unwrap();
    assert_eq!((&*c.id, c.image_name.as_deref(), c.runtime), ("1000/mine", None, RuntimeName::Runc));
    h.exec_runtime(21, 0, HOST, "runc run --bundle /home/b roots");
    h.birth(task(9, 200, 23, 21));
    assert_eq!(h.at(9, 200).unwrap().image_name.as_deref(), Some("victim"), "root's is");
}

#[test]
fn a_claimed_id_is_believed_where_the_cgroup_says_the_same() {
    let mut h = host();
    h.exec_runtime(20, 1000, HOST, &format!("crun create --bundle /s/overlay-containers/{ID}/userdata {ID}"));
    h.mkdir(500, &format!("/machine.slice/libpod-{ID}.scope"));
    h.birth(task(8, 200, 22, 20));
    assert_eq!(&*h.at(8, 200).unwrap().id, ID);
}

#[test]
fn a_cgroup_in_a_users_slice_proves_nothing() {
    let mut h = host();
    h.docker_create(10);
    h.birth(task(7, 100, 12, 10));
    let mine = format!("/user.slice/user-1000.slice/user@1000.service/docker-{ID}.scope");
    h.mkdir(501, &mine);
    let user = |mntns, launcher| TaskEvent { cgroup: 501, ..task(mntns, 200, 22, launcher) };
    h.birth(user(8, 0));
    h.exec_runtime(20, 1000, HOST, &format!("runc run --bundle /tmp/b {ID}"));
    h.birth(user(9, 20));
    // Born before it entered the cgroup.
    h.birth(task(11, 200, 23, 0));
    h.first_exec(user(11, 0));
    h.follower.walked(&[process(44, 13, &mine, 300)], 1000);
    for mntns in [8, 9, 11, 13] {
        let c = h.at(mntns, 1000).unwrap();
        assert_eq!((&*c.id, c.image_id.as_deref()), (&*format!("1000/{ID}"), None), "{mntns}");
    }
    assert_eq!(h.follower.registry.running(ID).len(), 1);
}

#[test]
fn a_runtime_inside_a_container_makes_no_container_of_its_own() {
    let mut h = host();
    h.docker_create(10);
    h.birth(task(7, 100, 12, 10));
    h.exec_runtime(30, 0, 7, "runc run --bundle /b victim");
    let mut e = task(9, 200, 32, 30);
    e.parent_mntns = 7;
    h.birth(e.clone());
    assert_eq!(&*h.at(9, 200).unwrap().id, ID);
    // Also where the launcher left its namespace before.
    e.parent_mntns = HOST;
    e.mntns = 11;
    h.birth(e);
    assert!(h.at(11, 200).is_none());
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

#[test]
fn what_ran_before_is_known_by_cgroup_or_by_state_file() {
    let mut h = host();
    h.put(&format!("/var/lib/docker/containers/{ID}/config.v2.json"), r#"{"Name":"/web"}"#);
    h.put("/run/runc/plain/state.json", r#"{"id":"plain","init_process_pid":30}"#);
    let docker = format!("/docker/{ID}");
    let all = [
        process(20, 7, &docker, 10),
        process(21, 7, &docker, 20),
        process(22, 8, &docker, 30),
        process(30, 9, "/plain", 10),
        process(40, 11, "/system.slice/a.service", 10),
        process(50, HOST, "/", 10),
    ];
    h.follower.walked(&all, 1000);
    let (web, inner, plain) = (h.at(7, 5).unwrap(), h.at(8, 5).unwrap(), h.at(9, 5).unwrap());
    assert_eq!((web.name.as_deref(), web.pid, web.runtime), (Some("web"), 20, RuntimeName::Docker));
    assert_eq!(inner.instance, web.instance, "a namespace of its own inside the same container");
    assert_eq!((plain.name.as_deref(), plain.pid, plain.runtime), (Some("plain"), 30, RuntimeName::Runc));
    assert!(h.at(11, 5).is_none() && h.follower.registry.table().now(HOST).is_none());
    assert_eq!(h.follower.todo.watch_init, [30, 20]);
    // The kernel comes to know it at its next program.
    let mut e = task(7, 0, 23, 0);
    e.found_late = true;
    h.birth(e);
    h.first_exec(task(7, 1100, 23, 0));
    assert_eq!(h.at(7, 2000).unwrap(), web);
    // Born while the walk went on, and seen by it.
    h.birth(task(9, 900, 30, 0));
    assert_eq!(h.at(9, 2000).unwrap(), plain);
}

#[test]
fn a_runtime_that_was_running_before_still_launches() {
    let mut h = host();
    h.put("/proc/10/cmdline", "runc\0run\0--bundle\0/srv/web\0web\0");
    let user = h.root.path().join("proc/10/ns/user");
    std::fs::create_dir_all(user.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(format!("user:[{INIT_USER_NS}]"), user).unwrap();
    let mut p = process(10, HOST, "/", 10);
    p.is_runtime = true;
    h.follower.walked(&[p], 50);
    assert_eq!(h.follower.todo.watch_runtime, [10]);
    h.birth(task(7, 100, 12, 10));
    let me = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(h.root.path()).unwrap());
    let id = if me == 0 { "web".to_owned() } else { format!("{me}/web") };
    assert_eq!(*h.at(7, 100).unwrap().id, *id);
}

#[test]
fn a_walk_after_a_loss_sees_that_a_number_went_to_another() {
    let mut h = host();
    h.docker_create(10);
    h.birth(task(7, 100, 12, 10));
    h.first_exec(task(7, 150, 13, 0));
    h.follower.event(Event::Exit { tgid: 13, time: 200 }, 200);
    let other = ID.replace('0', "f");
    h.put(&format!("/var/lib/docker/containers/{other}/config.v2.json"), r#"{"Name":"/other"}"#);
    h.follower.walked(&[process(44, 7, &format!("/docker/{other}"), 300)], 1000);
    assert_eq!(h.at(7, 150).unwrap().name.as_deref(), Some("web"));
    assert_eq!(h.at(7, 400).unwrap().name.as_deref(), Some("other"));
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
fn a_rootless_container_has_its_users_name_for_it_and_never_another_id() {
    let mut h = host();
    let bundle = format!("/home/u/overlay-containers/{ID}/userdata");
    h.exec_runtime(9, 1000, HOST, &format!("conmon -c {ID} -b {bundle} -n web"));
    h.exec_runtime(10, 1000, HOST, &format!("crun create --bundle {bundle} {ID}"));
    let mut e = task(7, 100, 12, 10);
    e.cgroup = 501;
    h.mkdir(501, "/user.slice/user-1000.slice");
    h.birth(e);
    let c = h.at(7, 100).unwrap();
    assert_eq!((&*c.id, c.name.as_deref()), (&*format!("1000/{ID}"), Some("1000/web")));
    assert!(c.is_claim() && !c.is_settling() && c.runtime == RuntimeName::Podman);
    assert!(h.follower.todo.ask.is_empty(), "root's daemons know nothing of it");
    h.follower.news(claim("web2", Some(12)), 200);
    let c = h.at(7, 100).unwrap();
    assert_eq!((c.name.as_deref(), c.image_name.as_deref()), (Some("1000/web2"), Some("busybox")));
}

#[test]
fn a_users_socket_names_no_process_that_is_not_theirs() {
    let mut h = host();
    let mntns = h.root.path().join("proc/33/ns/mnt");
    std::fs::create_dir_all(mntns.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("mnt:[7]", mntns).unwrap();
    h.put("/proc/33/uid_map", "0 0 4294967295");
    h.birth(task(7, 100, 33, 0));
    h.follower.news(claim("web", Some(33)), 200);
    assert!(h.at(7, 100).is_none(), "a service of the host");
    h.put("/proc/33/uid_map", "0 1000 1\n1 100000 65536\n");
    h.follower.news(claim("web", Some(33)), 300);
    let c = h.at(7, 100).unwrap();
    assert_eq!((&*c.id, c.name.as_deref(), c.pid), (&*format!("1000/{ID}"), Some("1000/web"), 33));
    assert!(c.is_claim() && !c.is_settling());
}

#[test]
fn a_users_state_file_is_believed_of_their_own_processes_only() {
    let mut h = host();
    h.put("/run/user/1000/crun/mine/status", r#"{"pid":30,"bundle":"/home/u/mine"}"#);
    h.put("/run/user/1000/crun/liar/status", r#"{"pid":31,"bundle":"/home/u/liar"}"#);
    h.put("/proc/30/uid_map", "0 1000 1");
    h.put("/proc/31/uid_map", "0 0 4294967295");
    h.follower.walked(&[process(30, 8, "/", 10), process(31, 9, "/", 10)], 50);
    let c = h.at(8, 60).unwrap();
    assert_eq!((&*c.id, c.name.as_deref(), c.pid), ("1000/mine", Some("1000/mine"), 30));
    assert!(h.at(9, 60).is_none());
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
fn the_shim_of_a_container_that_ran_before_leads_to_its_bundle_and_name() {
    let mut h = host();
    let bundle = format!("/run/own/io.containerd.runtime.v2.task/moby/{ID}");
    let dir = format!("/data/docker/containers/{ID}");
    h.put(
        &format!("{bundle}/config.json"),
        &format!(r#"{{"mounts":[{{"destination":"/etc/hosts","source":"{dir}/hosts"}}]}}"#),
    );
    h.put(&format!("{dir}/config.v2.json"), r#"{"Name":"/web","Image":"sha256:ab","Config":{"Image":"nginx"}}"#);
    for shim in ["11", "12"] {
        std::fs::create_dir_all(h.root.path().join("proc").join(shim)).unwrap();
    }
    std::os::unix::fs::symlink(&bundle, h.root.path().join("proc/11/cwd")).unwrap();
    std::os::unix::fs::symlink("/tmp", h.root.path().join("proc/12/cwd")).unwrap();
    let other = ID.replace('0', "f");
    let of = |pid, parent, mntns, id: &str| Process { parent, ..process(pid, mntns, &format!("/docker/{id}"), 10) };
    h.follower.walked(&[of(20, 11, 7, ID), of(30, 12, 8, &other)], 1000);
    let (web, none) = (h.at(7, 5).unwrap(), h.at(8, 5).unwrap());
    // Only of root's shims; the files of this test are whose who runs it.
    let me = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(h.root.path()).unwrap());
    assert_eq!(web.name.as_deref(), (me == 0).then_some("web"));
    assert_eq!(web.bundle.is_some(), me == 0);
    assert_eq!((none.name.as_deref(), none.bundle.as_deref()), (None, None));
}

#[test]
fn a_conmon_that_is_found_after_its_container_names_it() {
    let mut h = host();
    h.put("/run/user/1000/crun/mine/status", r#"{"pid":30}"#);
    h.put("/proc/30/uid_map", "0 1000 1");
    h.put(
        "/run/runc/plain/state.json",
        r#"{"id":"plain","init_process_pid":40,"config":{"labels":["bundle=/s/overlay-containers/plain"]}}"#,
    );
    h.follower.walked(&[process(30, 8, "/", 10), process(40, 9, "/", 10)], 50);
    assert_eq!(h.at(8, 60).unwrap().name.as_deref(), Some("1000/mine"));
    assert!(!h.at(9, 60).unwrap().complete);
    h.exec_runtime(5, 1000, 77, "conmon -c mine -n web");
    h.exec_runtime(6, 1000, 77, "conmon -c plain -n fake");
    assert!(!h.at(9, 60).unwrap().complete);
    h.exec_runtime(7, 0, 77, "conmon -c plain -n db");
    assert_eq!(h.at(8, 60).unwrap().name.as_deref(), Some("1000/web"));
    assert_eq!(h.at(9, 60).unwrap().name.as_deref(), Some("db"));
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

/// What a client says of a pod.
fn pod_news(labels: &[(&str, &str)]) -> News {
    let labels = labels.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
    let pod = Pod { name: "web-0".into(), namespace: "shop".into(), labels: Some(labels), ..Pod::default() };
    let d = Described { id: SANDBOX.into(), sandbox: Some(SANDBOX.into()), pod: Some(pod), ..Described::default() };
    News::Known(RuntimeName::Containerd, d)
}

fn shown_labels(c: &Container) -> Option<Vec<String>> {
    Some(c.pod_labels()?.iter().map(|(k, v)| format!("{k}={v}")).collect())
}

#[test]
fn a_pods_labels_are_waited_for_and_hold_for_all_its_containers() {
    let mut h = host();
    h.with_pods();
    h.launch(10, "k8s.io", SANDBOX, &pod_json("", "sandbox"));
    h.birth(task(7, 100, 12, 10));
    h.launch(20, "k8s.io", ID, &pod_json("nginx", "container"));
    h.birth(task(8, 200, 22, 20));
    let (sandbox, web) = (h.at(7, 100).unwrap(), h.at(8, 200).unwrap());
    assert_eq!((sandbox.name.as_deref(), sandbox.is_sandbox(), sandbox.complete), (Some("POD"), true, false));
    assert_eq!((web.name.as_deref(), web.is_sandbox(), web.complete), (Some("nginx"), false, false));
    let pod = web.pod.as_deref().unwrap();
    assert_eq!((&*pod.node, &*pod.name, &pod.labels), ("node-1", "web-0", &None));
    assert!(h.follower.todo.ask.contains(&(RuntimeName::Containerd, Question::Sandbox(SANDBOX.into()))));
    h.follower.news(pod_news(&[("app", "web")]), 300);
    for ns in [7, 8] {
        let c = h.at(ns, 300).unwrap();
        assert_eq!((shown_labels(&c), c.complete), (Some(vec!["app=web".to_owned()]), true), "{c:?}");
    }
    assert!(h.follower.todo.decide.contains(&(8, 200)), "its filters are decided anew");
    // Another container of the pod: nothing is asked any more.
    h.follower.todo = Todo::default();
    h.launch(30, "k8s.io", "other", &pod_json("sidecar", "container"));
    h.birth(task(9, 400, 32, 30));
    let c = h.at(9, 400).unwrap();
    assert_eq!((shown_labels(&c), c.complete), (Some(vec!["app=web".to_owned()]), true));
    assert!(!h.follower.todo.ask.iter().any(|(_, q)| matches!(q, Question::Sandbox(_))));
}

#[test]
fn labels_that_do_not_come_are_given_up_and_taken_late() {
    let mut h = host();
    h.with_pods();
    h.launch(20, "k8s.io", ID, &pod_json("nginx", "container"));
    h.birth(task(8, 200, 22, 20));
    assert!(!h.at(8, 200).unwrap().complete);
    h.follower.tick(200 + NAME_DEADLINE);
    let c = h.at(8, 200).unwrap();
    assert_eq!((c.complete, c.pod_labels()), (true, None));
    h.follower.news(pod_news(&[]), 5_000_000_000);
    assert_eq!(shown_labels(&h.at(8, 200).unwrap()), Some(Vec::new()), "a pod without labels is not an unknown one");
}

#[test]
fn without_anybody_who_knows_pods_nobody_waits() {
    let mut h = host();
    h.launch(20, "k8s.io", ID, &pod_json("nginx", "container"));
    h.birth(task(8, 200, 22, 20));
    assert!(h.at(8, 200).unwrap().complete);
    // There was somebody, and is no more.
    let mut h = host();
    h.with_pods();
    h.launch(20, "k8s.io", ID, &pod_json("nginx", "container"));
    h.birth(task(8, 200, 22, 20));
    assert!(!h.at(8, 200).unwrap().complete);
    let source = Source { number: 1, runtime: RuntimeName::Containerd };
    h.follower.news(News::Connected { source, pods: Some(true) }, 210);
    assert!(!h.at(8, 200).unwrap().complete);
    let socket = PathBuf::from("/s");
    h.follower.news(News::Lost(source, ClientError::StreamEnded { runtime: source.runtime, socket }), 220);
    assert!(h.at(8, 200).unwrap().complete);
}

#[test]
fn crio_writes_the_labels_of_the_pod_into_the_sandboxs_bundle() {
    let mut h = host();
    let annotations = |name: &str, kind: &str, labels: &str| {
        serde_json::json!({"annotations": {
            "io.kubernetes.cri-o.ContainerType": kind, "io.kubernetes.cri-o.SandboxID": SANDBOX,
            "io.kubernetes.cri-o.Labels": labels, "io.kubernetes.container.name": name,
            "io.kubernetes.pod.name": "web-0", "io.kubernetes.pod.namespace": "shop", "io.kubernetes.pod.uid": "u-1",
        }})
        .to_string()
    };
    let bundle = |id: &str| format!("/run/containers/storage/overlay-containers/{id}/userdata");
    let own = r#"{"app":"web","io.kubernetes.container.name":"POD","io.kubernetes.pod.name":"web-0"}"#;
    h.put(&format!("{}/config.json", bundle(SANDBOX)), &annotations("POD", "sandbox", own));
    h.put(&format!("{}/config.json", bundle(ID)), &annotations("nginx", "container", r#"{"not":"the pod's"}"#));
    h.exec_runtime(9, 0, HOST, &format!("conmon -c {ID} -n k8s_nginx_web-0_shop_u-1_0"));
    for (tgid, id, mntns) in [(10, SANDBOX, 7), (20, ID, 8)] {
        h.exec_runtime(tgid, 0, HOST, &format!("crun create --bundle {} {id}", bundle(id)));
        h.birth(task(mntns, 100, tgid + 1, tgid));
    }
    let (sandbox, web) = (h.at(7, 100).unwrap(), h.at(8, 100).unwrap());
    assert_eq!((sandbox.name.as_deref(), sandbox.is_sandbox()), (Some("POD"), true));
    assert_eq!((web.name.as_deref(), web.runtime), (Some("nginx"), RuntimeName::CriO));
    assert_eq!(web.pod.as_ref().unwrap().container_name, "nginx".into());
    for c in [sandbox, web] {
        assert_eq!(shown_labels(&c), Some(vec!["app=web".to_owned()]));
    }
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
