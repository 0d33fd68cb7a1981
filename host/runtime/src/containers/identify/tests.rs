//! Tables of real command lines and cgroup paths.

use super::*;

const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn parse(line: &str) -> Option<Invocation> {
    let mut bytes = line.replace("$ID", HEX).replace(' ', "\0").into_bytes();
    bytes.push(0);
    invocation(&bytes, false)
}

#[test]
fn command_lines_of_every_engine() {
    let mut seen = Vec::new();
    for line in [
        // dockerd, through containerd-shim
        "runc --root /var/run/docker/runtime-runc/moby --log /run/containerd/io.containerd.runtime.v2.task/moby/$ID/log.json --log-format json create --bundle /run/containerd/io.containerd.runtime.v2.task/moby/$ID --pid-file /run/containerd/io.containerd.runtime.v2.task/moby/$ID/init.pid $ID",
        "runc --root /var/run/docker/runtime-runc/moby --log /l --log-format json --systemd-cgroup create --bundle /b/moby/$ID $ID",
        // ctr
        "/usr/sbin/runc --root /run/containerd/runc/default --log /x/log.json --log-format json create --bundle /run/containerd/io.containerd.runtime.v2.task/default/web --pid-file /p web",
        // podman
        "/usr/bin/conmon --api-version 1 -c $ID -u $ID -r /usr/bin/crun -b /var/lib/containers/storage/overlay-containers/$ID/userdata -p /p -n web --exit-dir /e",
        "/usr/bin/crun --systemd-cgroup create --bundle /var/lib/containers/storage/overlay-containers/$ID/userdata --pid-file /p $ID",
        "/usr/bin/crun --log-format=json --log /l --cgroup-manager disabled create --bundle /s/overlay-containers/$ID/userdata --pid-file /p $ID",
        // by hand
        "runc run web",
        "runc --debug run -b /srv/web web",
        "crun --cgroup-manager=disabled run --bundle=/srv/web web",
        "youki -r /run/y -l /l create --bundle /srv/web web",
        // buildkit
        "buildkit-runc --log /l --log-format json run --bundle /var/lib/buildkit/runc-overlayfs/executor/abc123 --keep abc123",
        "runc --log /l --log-format json run --bundle /var/lib/docker/buildkit/executor/abc123 --keep abc123",
    ] {
        seen.push(format!("{}\n  {:?}", line, parse(line)).replace(HEX, "$ID"));
    }
    insta::assert_snapshot!(seen.join("\n"));
}

#[test]
fn other_commands_launch_nothing() {
    for line in [
        "runc --root /r state web",
        "runc --root /r start web",
        "runc --root create exec web",
        "runc init",
        "runc --version",
        "runc",
        "runc create",
        "runc run --bundle",
        "runc run ../../etc",
        "runc run we/b",
        "containerd-shim-runc-v2 -namespace moby -id $ID -address /run/containerd/containerd.sock",
        "conmon --version",
        "bash -c runc",
        "",
    ] {
        let got = parse(line);
        assert!(got.is_none(), "`{line}` gave {got:?}");
    }
}

#[test]
fn a_cut_command_line_is_named_by_its_bundle() {
    let line = format!("runc\0--root\0/r/moby\0create\0--bundle\0/run/x/moby/{HEX}\0--pid-file\0/run/very/lo");
    let Some(Invocation::Launch(l)) = invocation(line.as_bytes(), true) else { panic!("no launch") };
    assert_eq!(&*l.id, HEX);
    assert_eq!(invocation(b"runc\0create\0--pid-file\0/run/very/lo", true), None);
}

#[test]
fn cgroup_paths_of_every_engine() {
    use RuntimeName::*;
    for (path, runtime) in [
        ("/docker/$ID", Some(Docker)),
        ("/docker/$ID/init", Some(Docker)),
        ("/system.slice/docker-$ID.scope", Some(Docker)),
        ("/system.slice/docker-$ID.scope/system.slice/x.service", Some(Docker)),
        ("/kubepods/burstable/pod0a1b2c3d-0000-1111-2222-333344445555/$ID", None),
        (
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod0a1b_2c3d.slice/cri-containerd-$ID.scope",
            Some(Containerd),
        ),
        ("/system.slice/containerd.service/kubepods-pod1.slice:cri-containerd:$ID", Some(Containerd)),
        ("/kubepods.slice/kubepods-pod1.slice/crio-$ID.scope", Some(CriO)),
        ("/kubepods.slice/kubepods-pod1.slice/crio-$ID.scope/container", Some(CriO)),
        ("/machine.slice/libpod-$ID.scope", Some(Podman)),
        ("/machine.slice/libpod-$ID.scope/container", Some(Podman)),
        ("/libpod_parent/libpod-$ID", Some(Podman)),
        ("/docker/$ID/user.slice/user-1000.slice/session-1.scope", Some(Docker)),
        ("/user.slice/user-0.slice/libpod-$ID.scope", Some(Podman)),
    ] {
        let expected = Some(CgroupIdentity { id: HEX.into(), runtime, user: None });
        assert_eq!(from_cgroup(&path.replace("$ID", HEX)), expected, "{path}");
    }
    for path in [
        "/",
        "/init.scope",
        "/default/web",
        "/system.slice/docker.service",
        "/kubepods.slice/kubepods-pod1.slice/crio-conmon-$ID.scope",
        "/machine.slice/libpod-conmon-$ID.scope",
        "/docker/0123456789abcdef",
        "/docker/0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF",
    ] {
        assert_eq!(from_cgroup(&path.replace("$ID", HEX)), None, "{path}");
    }
}

#[test]
fn in_a_users_slice_a_cgroup_is_the_users_word() {
    let path = format!("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{HEX}.scope");
    let found = CgroupIdentity { id: HEX.into(), runtime: Some(RuntimeName::Podman), user: Some(1000) };
    assert_eq!(from_cgroup(&path), Some(found));
    assert_eq!(cgroup_user(&path), Some(1000));
    for path in ["/", "/user.slice/user-0.slice/x", "/user.slice/user-x.slice", "/machine.slice"] {
        assert_eq!(cgroup_user(path), None, "{path}");
    }
}

#[test]
fn the_outer_container_owns_what_runs_in_it() {
    let inner = HEX.replace('0', "f");
    let found = from_cgroup(&format!("/docker/{HEX}/docker/{inner}")).unwrap();
    assert_eq!(&*found.id, HEX);
}

#[test]
fn a_cgroup_is_a_containers_own_only_by_whole_names() {
    assert!(cgroup_is_of("/web", "web"));
    assert!(cgroup_is_of("/default/web", "web"));
    assert!(cgroup_is_of("/machine.slice/libpod-web.scope/container", "web"));
    for path in ["/", "/user.slice", "/webserver", "/myweb", "/we/b"] {
        assert!(!cgroup_is_of(path, "web"), "{path}");
    }
}

#[test]
fn cgroup_file_in_every_layout() {
    let hybrid = "9:name=systemd:/docker/x\n8:pids:/docker/x\n2:cpu,cpuacct:/c\n0::/docker/u\n";
    assert_eq!(cgroup_paths(hybrid), (Some("/docker/u"), Some("/docker/x")));
    assert_eq!(cgroup_paths("0::/a:b\n"), (Some("/a:b"), None));
    assert_eq!(cgroup_paths("garbage\n"), (None, None));
}

fn config(json: serde_json::Value) -> BundleConfig {
    serde_json::from_value(json).unwrap()
}

fn launch(program: RuntimeName, root: Option<&str>) -> Launch {
    Launch { program, id: HEX.into(), bundle: None, root: root.map(PathBuf::from) }
}

#[test]
fn the_engine_is_found_by_annotation_then_by_place() {
    let none = BundleConfig::default();
    let engine = |bundle: &str, root: Option<&str>, config: &BundleConfig| {
        engine(&launch(RuntimeName::Runc, root), Path::new(bundle), config)
    };
    assert_eq!(engine("/run/containerd/io.containerd.runtime.v2.task/moby/x", None, &none), RuntimeName::Docker);
    assert_eq!(engine("/run/containerd/io.containerd.runtime.v2.task/k8s.io/x", None, &none), RuntimeName::Containerd);
    assert_eq!(engine("/srv/web", Some("/run/docker/runtime-runc/moby"), &none), RuntimeName::Docker);
    assert_eq!(engine("/s/overlay-containers/x/userdata", None, &none), RuntimeName::Podman);
    assert_eq!(engine("/var/lib/docker/buildkit/executor/x", None, &none), RuntimeName::Buildkit);
    assert_eq!(engine("/srv/web", None, &none), RuntimeName::Runc);
    let crio = config(serde_json::json!({"annotations": {"io.kubernetes.cri-o.ContainerID": "x"}}));
    assert_eq!(engine("/s/overlay-containers/x/userdata", None, &crio), RuntimeName::CriO);
}

#[test]
fn podman_is_no_cri_o_though_it_uses_its_annotations() {
    // As podman 4.3.1 writes them; older ones lack the second.
    let podman = serde_json::json!({
        "io.container.manager": "libpod",
        "io.podman.annotations.autoremove": "FALSE",
        "io.kubernetes.cri-o.Created": "2026-11-22T00:35:54.809520516Z",
        "io.kubernetes.cri-o.TTY": "false",
        "org.opencontainers.image.stopSignal": "15"
    });
    for missing in ["", "io.container.manager", "io.podman.annotations.autoremove"] {
        let mut annotations = podman.clone();
        annotations.as_object_mut().unwrap().remove(missing);
        let config = config(serde_json::json!({"annotations": annotations}));
        assert_eq!(config.engine(), Some(RuntimeName::Podman), "without {missing:?}");
    }
}

#[test]
fn a_pod_is_read_from_annotations() {
    let c = config(serde_json::json!({"annotations": {
        "io.kubernetes.cri.container-name": "app", "io.kubernetes.cri.sandbox-name": "pod-1",
        "io.kubernetes.cri.sandbox-namespace": "shop", "io.kubernetes.cri.sandbox-uid": "u",
        "io.kubernetes.cri.image-name": "docker.io/library/nginx:1"
    }}));
    let pod = c.pod().unwrap();
    assert_eq!((&*pod.name, &*pod.namespace, &*pod.uid, &*pod.container_name), ("pod-1", "shop", "u", "app"));
    assert_eq!(c.image_name().as_deref(), Some("docker.io/library/nginx:1"));
    assert_eq!(BundleConfig::default().pod(), None);
}

#[test]
fn dockers_directory_is_found_through_its_mounts() {
    let source = format!("/data/docker/containers/{HEX}/hostname");
    let c = config(serde_json::json!({"mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/etc/hostname", "type": "bind", "source": source}
    ]}));
    assert_eq!(c.docker_dir(HEX), Some(Path::new(&source).parent().unwrap()));
    assert_eq!(c.docker_dir("other"), None);
}

#[test]
fn dockers_own_file_names_the_container_and_its_image() {
    let dir = tempfile::tempdir().unwrap();
    let json = r#"{"ID":"x","Name":"/web","Image":"sha256:ab","Config":{"Image":"nginx","Env":null}}"#;
    std::fs::write(dir.path().join("config.v2.json"), json).unwrap();
    let d = DockerConfig::read(dir.path()).unwrap();
    assert_eq!(d.name().as_deref(), Some("web"));
    assert_eq!((d.image_name().as_deref(), d.image_id().as_deref()), (Some("nginx"), Some("sha256:ab")));
    std::fs::write(dir.path().join("config.v2.json"), "{").unwrap();
    assert_eq!(DockerConfig::read(dir.path()), None);
}

#[test]
fn host_paths_stay_below_the_host_root() {
    assert_eq!(on_host(Path::new("/"), Path::new("/run/x")), Path::new("/run/x"));
    assert_eq!(on_host(Path::new("/host"), Path::new("/run/x")), Path::new("/host/run/x"));
}

#[test]
fn only_plain_files_of_sensible_size_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::write(at("plain"), "[1]").unwrap();
    assert_eq!(read_json::<Vec<u8>>(&at("plain")), Some(vec![1]));
    std::os::unix::fs::symlink(at("plain"), at("link")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", at("endless")).unwrap();
    std::fs::File::create(at("huge")).unwrap().set_len(MAX_FILE + 1).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    for name in ["link", "endless", "huge", "fifo", "."] {
        assert!(read_plain(&at(name)).is_err(), "{name}");
    }
    assert!(read_plain(Path::new("/dev/zero")).is_err());
}

#[test]
fn only_a_users_own_map_entry_shows_that_a_namespace_is_theirs() {
    let rootless = "         0       1000          1\n         1     100000      65536\n";
    assert!(maps_single(rootless, 1000));
    assert!(!maps_single(rootless, 100_000) && !maps_single(rootless, 0) && !maps_single(rootless, 1001));
    assert!(!maps_single("         0          0 4294967295\n", 1000), "the host's own user namespace");
    assert!(!maps_single("0 1000 65536\n", 1000), "a range is root's doing");
    assert!(!maps_single("garbage\n0 1000", 1000));
}

#[test]
fn podmans_own_annotations_are_not_taken_for_crios() {
    let engine = |annotations: &str| {
        let config: BundleConfig = serde_json::from_str(&format!(r#"{{"annotations":{{{annotations}}}}}"#)).unwrap();
        config.engine()
    };
    // As Podman 4.3 writes them.
    let podman = r#""io.container.manager":"libpod","io.kubernetes.cri-o.Created":"2026-11-22T00:52:57.94Z",
        "io.kubernetes.cri-o.TTY":"false","io.podman.annotations.init":"FALSE","org.opencontainers.image.stopSignal":"15""#;
    assert_eq!(engine(podman), Some(RuntimeName::Podman));
    assert_eq!(
        engine(r#""io.container.manager":"libpod","io.kubernetes.cri-o.TTY":"false""#),
        Some(RuntimeName::Podman)
    );
    assert_eq!(engine(r#""io.container.manager":"cri-o","io.kubernetes.cri-o.TTY":"false""#), Some(RuntimeName::CriO));
    assert_eq!(engine(""), None);
}
