//! What ran before the tracker did, and what a walk over /proc finds after a loss.

use super::*;

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
