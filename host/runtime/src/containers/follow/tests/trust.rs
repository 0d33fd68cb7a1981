//! Whose word is taken for what: names, ids and files of those who are not root, or are in a container themselves.

use super::*;

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
