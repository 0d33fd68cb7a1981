//! Real containers on a real kernel: own containerd and dockerd in a directory of their own, and plain runc.
//!
//! Needs root, Debian's docker.io, containerd, runc and busybox-static; fails where one of them is missing. Ground truth
//! is what the containers print themselves: the number of their mount namespace and the time.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "support/process.rs"]
mod process;

use aya::maps::{HashMap, Map, MapData};
use ig_event::{Batch, DataSource, FieldDef, Kind, Reason, SourceKind, Storage, Value};
use ig_runtime::{
    containers::{
        Container, Containers, ContainersError, ContainersOptions, FilterHandle, Resolution, RuntimeName, Selector,
    },
    enrich::container::{ContainerEnricher, Include},
};
use process::{run, wait_for};
use std::{
    fs::{self, File},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::Arc,
    thread::sleep,
    time::{Duration, Instant},
};

/// What a container does: says where it is and when. /proc/uptime counts hundredths: the nap keeps it from telling a time
/// before the container's birth.
const SAY: &str = "sleep 0.02; echo $(readlink /proc/self/ns/mnt) $(cat /proc/uptime)";

/// A daemon that is asked to stop, and waited for, when the test ends, however it ends.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = self.0.id().to_string();
        drop(Command::new("kill").args(["-TERM", &pid]).status());
        for _ in 0..300 {
            if matches!(self.0.try_wait(), Ok(Some(_))) {
                return;
            }
            sleep(Duration::from_millis(50));
        }
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

struct Docker {
    dockerd: Option<Daemon>,
    containerd: Option<Daemon>,
    dir: tempfile::TempDir,
}

fn daemon(log: &Path, command: &mut Command) -> Daemon {
    let log = File::create(log).unwrap();
    let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn();
    Daemon(child.unwrap_or_else(|e| panic!("{command:?} does not start: {e}")))
}

fn containerd(dir: &Path) -> Daemon {
    let p = |name: &str| dir.join(name);
    daemon(
        &p("containerd.log"),
        Command::new("containerd")
            .args(["--config".as_ref(), p("containerd.toml").as_os_str()])
            .args(["--root".as_ref(), p("cd-root").as_os_str()])
            .args(["--state".as_ref(), p("cd-state").as_os_str()])
            .args(["--address".as_ref(), p("cd.sock").as_os_str()]),
    )
}

fn dockerd(dir: &Path) -> Daemon {
    let p = |name: &str| dir.join(name);
    daemon(
        &p("dockerd.log"),
        Command::new("dockerd")
            .args(["--containerd".as_ref(), p("cd.sock").as_os_str()])
            .arg("--host")
            .arg(format!("unix://{}", p("docker.sock").display()))
            .args(["--data-root".as_ref(), p("data").as_os_str()])
            .args(["--exec-root".as_ref(), p("exec").as_os_str()])
            .args(["--pidfile".as_ref(), p("docker.pid").as_os_str()])
            .args(["--iptables=false", "--bridge=none", "-s", "vfs"]),
    )
}

impl Drop for Docker {
    fn drop(&mut self) {
        drop(self.dockerd.take());
        drop(self.containerd.take());
        // Docker leaves the host's network namespace mounted there, which keeps the directory.
        for entry in fs::read_dir(self.dir.path().join("exec/netns")).into_iter().flatten().flatten() {
            drop(Command::new("umount").arg(entry.path()).status());
        }
    }
}

impl Docker {
    fn start() -> Docker {
        let dir = tempfile::Builder::new().prefix("igc-").tempdir().unwrap();
        let p = |name: &str| dir.path().join(name);
        fs::write(p("containerd.toml"), "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n").unwrap();
        let containerd = containerd(dir.path());
        wait_for("containerd's socket", || p("cd.sock").exists().then_some(()));
        let docker = Docker { dockerd: Some(dockerd(dir.path())), containerd: Some(containerd), dir };
        wait_for("dockerd", || docker.command(&["version"]).output().is_ok_and(|o| o.status.success()).then_some(()));
        docker.import_busybox();
        docker
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("docker.sock")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut c = Command::new("docker");
        c.arg("--host").arg(format!("unix://{}", self.socket().display())).args(args);
        c
    }

    fn import_busybox(&self) {
        let rootfs = self.dir.path().join("rootfs");
        make_rootfs(&rootfs);
        let tar = self.dir.path().join("rootfs.tar");
        run(Command::new("tar").arg("-C").arg(&rootfs).arg("-cf").arg(&tar).arg("."));
        run(&mut self.command(&["import", &tar.to_string_lossy(), "busybox:latest"]));
    }

    /// Runs a container to its end; gives its id and what it said.
    fn say(&self, name: &str) -> (String, Said) {
        let cidfile = self.dir.path().join(format!("{name}.cid"));
        let cid = cidfile.to_string_lossy().into_owned();
        let args = ["run", "--net=none", "--name", name, "--cidfile", &cid, "busybox", "/bin/busybox", "sh", "-c", SAY];
        let out = run(&mut self.command(&args));
        (fs::read_to_string(&cidfile).unwrap(), Said::parse(&out.stdout))
    }

    /// Starts a container that stays; gives its id.
    fn stay(&self, name: &str) -> String {
        let args = ["run", "-d", "--net=host", "--name", name, "busybox", "/bin/busybox", "sleep", "3600"];
        String::from_utf8(run(&mut self.command(&args)).stdout).unwrap().trim().to_owned()
    }

    /// The mount namespace of a running container.
    fn mntns(&self, name: &str) -> u64 {
        let out = run(&mut self.command(&["exec", name, "/bin/busybox", "readlink", "/proc/self/ns/mnt"]));
        namespace(std::str::from_utf8(&out.stdout).unwrap())
    }
}

fn make_rootfs(rootfs: &Path) {
    fs::create_dir_all(rootfs.join("bin")).unwrap();
    for dir in ["proc", "sys", "dev", "etc", "tmp"] {
        fs::create_dir_all(rootfs.join(dir)).unwrap();
    }
    fs::copy("/bin/busybox", rootfs.join("bin/busybox")).expect("busybox-static is installed");
    for applet in ["sh", "readlink", "cat", "sleep", "unshare"] {
        std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
    }
}

fn namespace(link: &str) -> u64 {
    let number = link.trim().strip_prefix("mnt:[").and_then(|s| s.strip_suffix(']'));
    number.and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("`{link}` is no mount namespace"))
}

#[derive(Clone, Copy, Debug)]
struct Said {
    mntns: u64,
    /// Boot-clock nanoseconds.
    time: u64,
}

impl Said {
    fn parse(stdout: &[u8]) -> Said {
        let text = std::str::from_utf8(stdout).unwrap();
        let mut words = text.split_ascii_whitespace();
        let (Some(link), Some(Ok(seconds))) = (words.next(), words.next().map(str::parse::<f64>)) else {
            panic!("a container said `{text}`");
        };
        Said { mntns: namespace(link), time: (seconds * 1e9) as u64 }
    }
}

/// Waits as a row would.
fn container(containers: &Containers, said: Said) -> Arc<Container> {
    wait_for("the container to be known", || match containers.resolve(said.mntns, said.time) {
        Resolution::Known(c) => Some(c),
        Resolution::Pending => None,
        other => panic!("{said:?} is {other:?}: {:?}", containers.status()),
    })
}

type FilterMap = HashMap<MapData, u64, u32>;

/// As a gadget's loader makes it and hands it over.
fn filtered(containers: &Containers, names: &str) -> (FilterMap, FilterHandle) {
    const HASH: u32 = 1;
    let data = MapData::create(aya_obj::Map::new_from_params(HASH, 8, 4, 1024, 0), "filter", None).unwrap();
    let selector = Arc::new(Selector::parse(names).unwrap());
    let handle = containers.add_filter(data.fd().as_fd(), selector).unwrap();
    (HashMap::try_from(Map::from_map_data(data).unwrap()).unwrap(), handle)
}

fn keys(map: &FilterMap) -> Vec<u64> {
    let mut keys: Vec<u64> = map.keys().map(Result::unwrap).collect();
    keys.sort_unstable();
    keys
}

fn start(socket: Option<PathBuf>) -> Containers {
    let options = ContainersOptions {
        sockets: socket.map(|s| (RuntimeName::Docker, s)).into_iter().collect(),
        ..ContainersOptions::default()
    };
    let containers = Containers::start(options).expect("the tracker loads: are you root?");
    assert_eq!(containers.notes(), Vec::<String>::new());
    containers
}

#[test]
fn root_docker() {
    let mut docker = Docker::start();
    let early = docker.stay("early");
    let early_ns = docker.mntns("early");
    let containers = start(Some(docker.socket()));

    running_before_the_start(&containers, &docker, &early, early_ns);
    short_containers(&containers, &docker);
    by_name_before_it_exists(&containers, &docker, early_ns);
    namespaces_inside(&containers, &docker, &early, early_ns);
    rows_of_a_gadget(&containers, &docker, early_ns);
    rename_and_restart(&containers, &docker, &early);
    lost_and_found(&containers, &mut docker);

    run(&mut docker.command(&["rm", "-f", "early"]));
    let status = containers.status();
    assert_eq!((status.loss, status.malformed), (Default::default(), 0), "{status:?}");
}

fn running_before_the_start(containers: &Containers, docker: &Docker, id: &str, mntns: u64) {
    let c = wait_for("Docker's list", || containers.list().into_iter().find(|c| *c.id == *id && c.name.is_some()));
    assert_eq!((c.name.as_deref(), c.runtime, c.mntns), (Some("early"), RuntimeName::Docker, mntns));
    assert!(c.host_network, "it was started with --net=host");
    let pid = run(&mut docker.command(&["inspect", "-f", "{{.State.Pid}}", "early"]));
    assert_eq!(c.pid.to_string(), String::from_utf8(pid.stdout).unwrap().trim());
    let image = run(&mut docker.command(&["inspect", "-f", "{{.Image}}", "early"]));
    assert_eq!(c.image_id.as_deref(), Some(String::from_utf8(image.stdout).unwrap().trim()));
    assert_eq!(c.image_name.as_deref(), Some("busybox"));
    wait_for("the client", || (containers.status().connected == [RuntimeName::Docker]).then_some(()));
}

/// Fifty, four at a time: each one is known by id and name for what it did, though it is long gone.
fn short_containers(containers: &Containers, docker: &Docker) {
    let known = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|worker| {
                scope.spawn(move || {
                    let mut known = 0;
                    for n in (worker..50).step_by(4) {
                        let name = format!("short-{n}");
                        let (id, said) = docker.say(&name);
                        let c = container(containers, said);
                        assert_eq!((&*c.id, c.name.as_deref()), (&*id, Some(&*name)), "{said:?}");
                        assert!(c.pid != 0 && !c.host_network && c.started_at > 0, "{c:?}");
                        known += 1;
                    }
                    known
                })
            })
            .collect();
        workers.into_iter().map(|w| w.join().unwrap()).sum::<u32>()
    });
    assert_eq!(known, 50);
}

fn by_name_before_it_exists(containers: &Containers, docker: &Docker, early_ns: u64) {
    let (wanted, _wanted) = filtered(containers, "later");
    let (others, _others) = filtered(containers, "!later");
    let (all, handle) = filtered(containers, "");
    assert!(keys(&wanted).is_empty());
    assert!(keys(&others).contains(&early_ns) && keys(&all).contains(&early_ns));
    docker.stay("later");
    docker.stay("neighbour");
    let (later, neighbour) = (docker.mntns("later"), docker.mntns("neighbour"));
    wait_for("the filters", || {
        let neighbours = keys(&others).contains(&neighbour) && keys(&all).contains(&neighbour);
        (keys(&wanted) == [later] && neighbours).then_some(())
    });
    assert!(!keys(&others).contains(&later));
    assert!([early_ns, later, neighbour].iter().all(|ns| keys(&all).contains(ns)));
    assert!(!keys(&all).contains(&containers.host_mntns()));
    drop(handle);
    let before = keys(&all);
    docker.say("after-the-filter");
    assert_eq!(keys(&all), before, "a filter that was given back stays as it is");
    run(&mut docker.command(&["rm", "-f", "later", "neighbour"]));
}

/// What a container makes of namespaces is its own; what the host makes is the host's.
fn namespaces_inside(containers: &Containers, docker: &Docker, id: &str, mntns: u64) {
    let say = ["exec", "--privileged", "early", "/bin/busybox", "unshare", "-m", "/bin/busybox", "sh", "-c", SAY];
    let inside = docker.command(&say).output().unwrap();
    // This machine may forbid --privileged; then a process in the container's namespace does it from outside.
    let said = if inside.status.success() {
        Said::parse(&inside.stdout)
    } else {
        let pid = run(&mut docker.command(&["inspect", "-f", "{{.State.Pid}}", "early"])).stdout;
        let pid = String::from_utf8(pid).unwrap();
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["-m", "-p", "-t", pid.trim(), "/bin/busybox", "unshare", "-m", "/bin/busybox", "sh", "-c", SAY]);
        Said::parse(&run(&mut nsenter).stdout)
    };
    assert_ne!(said.mntns, mntns);
    assert_eq!(&*container(containers, said).id, id);

    let host = Said::parse(&run(Command::new("unshare").args(["-m", "sh", "-c", SAY])).stdout);
    wait_for("the host's own namespace", || match containers.resolve(host.mntns, host.time) {
        Resolution::Host => Some(()),
        Resolution::Pending => None,
        other => panic!("{other:?}"),
    });
}

/// A gadget's record: mount namespace, then time.
fn record(mntns: u64, time: u64) -> Vec<u8> {
    [mntns.to_le_bytes(), time.to_le_bytes()].concat()
}

fn rows_of_a_gadget(containers: &Containers, docker: &Docker, early_ns: u64) {
    let mut source = DataSource::new("exec", SourceKind::Events, 16);
    let ns = FieldDef::new("mntns_id", Kind::U64, Storage::Record { offset: 0, size: 8 }).tag("type:gadget_mntns_id");
    source.add(ns).unwrap();
    source.add(FieldDef::new("timestamp_raw", Kind::U64, Storage::BootTime { offset: 8 })).unwrap();
    let selector = Arc::new(Selector::parse("row").unwrap());
    let mut enricher = ContainerEnricher::new(&mut source, containers.clone(), selector, Include::default()).unwrap();
    let name = source.find("runtime.containerName").unwrap().id;
    let mut batch = Batch::new(Arc::new(source));
    let (_, said) = docker.say("row");
    // A row of one that is not known yet would wait, too.
    container(containers, said);
    for ns in [said.mntns, early_ns, containers.host_mntns()] {
        batch.push(&record(ns, said.time));
    }
    // Of a namespace that is just being born, as far as anybody knows.
    batch.push(&record(u64::MAX, said.time + 3_600_000_000_000));
    let waited = Instant::now();
    enricher.process(&mut batch);
    assert_eq!(batch.iter().collect::<Vec<_>>(), [0]);
    assert_eq!(batch.value(0, name), Value::Text(b"row".as_slice().into()));
    assert_eq!(batch.loss.get(Reason::OtherContainer), 2);
    assert_eq!((enricher.held(), batch.loss.iter().count()), (1, 1), "the fourth waits, uncounted");
    loop {
        batch.clear();
        enricher.take_ready(&mut batch);
        enricher.process(&mut batch);
        if batch.live() > 0 {
            break;
        }
        assert!(waited.elapsed() < Duration::from_secs(60), "it waits for ever");
        sleep(enricher.wait().unwrap());
    }
    assert!(waited.elapsed() > Duration::from_secs(2));
    assert_eq!((batch.len(), batch.loss.get(Reason::Unlabelled), enricher.held()), (1, 1, 0));
    assert_eq!(batch.value(0, name), Value::Missing);
}

fn rename_and_restart(containers: &Containers, docker: &Docker, id: &str) {
    let before = containers.list().into_iter().find(|c| *c.id == *id).unwrap();
    run(&mut docker.command(&["rename", "early", "late"]));
    wait_for("the new name", || containers.list().iter().find(|c| c.name.as_deref() == Some("late")).map(|_| ()));
    run(&mut docker.command(&["restart", "-t", "0", "late"]));
    let ns = docker.mntns("late");
    let after = wait_for("the new start", || {
        let is_new =
            |c: &Arc<Container>| *c.id == *id && c.instance != before.instance && c.pid != 0 && c.name.is_some();
        containers.list().into_iter().find(is_new)
    });
    assert_eq!((after.name.as_deref(), after.mntns), (Some("late"), ns));
    assert_ne!(after.pid, before.pid);
    run(&mut docker.command(&["rename", "late", "early"]));
    wait_for("the old name", || containers.list().iter().find(|c| c.name.as_deref() == Some("early")).map(|_| ()));
}

/// The runtime's API comes back after the daemon behind it was away; the containers never left.
fn lost_and_found(containers: &Containers, docker: &mut Docker) {
    drop(docker.containerd.take());
    let (running, failed) = (containers.list(), containers.status().failed);
    assert!(running.iter().any(|c| c.name.as_deref() == Some("early")), "{running:?} {failed:?}");
    docker.containerd = Some(containerd(docker.dir.path()));
    wait_for("docker to run containers again", || {
        docker
            .command(&["run", "--rm", "--net=none", "busybox", "/bin/busybox", "cat", "/dev/null"])
            .status()
            .ok()?
            .success()
            .then_some(())
    });
    let (id, said) = docker.say("again");
    assert_eq!(&*container(containers, said).id, &*id);

    drop(docker.dockerd.take());
    wait_for("the loss of Docker", || (containers.status().failed.len() == 1).then_some(()));
    assert!(containers.notes()[0].starts_with("docker: "), "{:?}", containers.notes());
    docker.dockerd = Some(dockerd(docker.dir.path()));
    wait_for("the client to be back", || (containers.status().connected == [RuntimeName::Docker]).then_some(()));
    assert_eq!(containers.notes(), ["docker: its API was away once; what runs was listed again when it came back"]);
}

#[test]
fn root_plain_runc() {
    let containers = start(None);
    let dir = tempfile::Builder::new().prefix("igc-").tempdir().unwrap();
    make_rootfs(&dir.path().join("rootfs"));
    run(Command::new("runc").arg("spec").current_dir(dir.path()));
    let path = dir.path().join("config.json");
    let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["process"]["terminal"] = false.into();
    config["process"]["rlimits"] = serde_json::json!([]);
    config["process"]["args"] = serde_json::json!(["/bin/busybox", "sh", "-c", SAY]);
    fs::write(&path, config.to_string()).unwrap();
    for n in 0..10 {
        let name = format!("igc-{}-{n}", std::process::id());
        let root = dir.path().join("state");
        let out = run(Command::new("runc").arg("--root").arg(&root).args(["run", &name]).current_dir(dir.path()));
        let said = Said::parse(&out.stdout);
        let c = container(&containers, said);
        assert_eq!((&*c.id, c.name.as_deref(), c.runtime), (&*name, Some(&*name), RuntimeName::Runc));
        assert_eq!(c.bundle.as_deref(), Some(dir.path()));
    }
    assert_eq!(containers.status().loss, Default::default());
}

/// A user without privilege; no account has it.
const NOBODY: &str = "--reuid=54321";

/// Whoever cannot be trusted may claim a container's id, and gets neither its name nor into its filter.
fn only_a_claim(containers: &Containers, filter: &FilterMap, victim: &str, said: Said) {
    let c = container(containers, said);
    let claim = format!("54321/{victim}");
    assert_eq!((&*c.id, c.name.as_deref()), (&*claim, Some(&*claim)), "{c:?}");
    wait_for("its key to go", || (!keys(filter).contains(&said.mntns)).then_some(()));
}

fn unified() -> PathBuf {
    let places = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(PathBuf::from);
    places.into_iter().find(|p| p.join("cgroup.controllers").exists()).expect("cgroup2 is mounted")
}

/// A process that was waited for may leave its cgroup a little later.
fn remove_cgroup(dir: &Path) {
    wait_for("an empty cgroup", || match fs::remove_dir(dir) {
        Ok(()) => Some(()),
        Err(e) if e.kind() == std::io::ErrorKind::ResourceBusy => None,
        Err(e) => panic!("{}: {e}", dir.display()),
    });
}

/// As that of a pod in a cluster that itself runs in a pod: known by the end of its cgroup's path.
#[test]
fn root_a_container_deep_in_cgroups_is_known() {
    let containers = start(None);
    let id = "c0ffee".repeat(11)[..64].to_owned();
    let top = unified().join(format!("igc-deep-{}", std::process::id()));
    let dirs = ["a", "b", "c"].map(|c| c.repeat(200)).into_iter().chain([format!("docker-{id}.scope")]);
    let all: Vec<PathBuf> = std::iter::once(top.clone())
        .chain(dirs.scan(top, |at, name| {
            at.push(name);
            Some(at.clone())
        }))
        .collect();
    all.iter().for_each(|dir| fs::create_dir(dir).unwrap());
    let script = "echo $$ >\"$0/cgroup.procs\"; exec unshare -m sh -c \"$1\"";
    let out = Command::new("sh").args(["-c", script]).arg(&all[4]).arg(SAY).output().unwrap();
    all.iter().rev().for_each(|dir| remove_cgroup(dir));
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(&*container(&containers, Said::parse(&out.stdout)).id, &*id);
}

#[test]
fn root_what_a_user_claims_is_only_their_word() {
    let docker = Docker::start();
    let victim = docker.stay("victim");
    let containers = start(Some(docker.socket()));
    let (filter, _handle) = filtered(&containers, "victim");
    let victims = docker.mntns("victim");
    wait_for("the victim's key", || (keys(&filter) == [victims]).then_some(()));

    // A shell that is called runc: its command line is that of a runtime, and what it starts makes a namespace.
    let dir = tempfile::Builder::new().prefix("igc-").tempdir_in("/tmp").unwrap();
    fs::copy("/bin/sh", dir.path().join("runc")).unwrap();
    fs::write(dir.path().join("run"), format!("unshare -Um sh -c '{SAY}'\n")).unwrap();
    run(Command::new("chmod").arg("-R").arg("a+rX").arg(dir.path()));
    let mut fake = Command::new("setpriv");
    fake.args([NOBODY, "--clear-groups", "--"]).arg(dir.path().join("runc")).args(["run", &victim]);
    only_a_claim(&containers, &filter, &victim, Said::parse(&run(fake.current_dir(dir.path())).stdout));

    // A cgroup in a directory that was lent to the user, who names what they make there as they like.
    let lent = unified().join(format!("igc-lent-{}", std::process::id()));
    let own = lent.join(format!("docker-{victim}.scope"));
    fs::create_dir(&lent).unwrap();
    std::os::unix::fs::chown(&lent, Some(54321), None).unwrap();
    run(Command::new("setpriv").args([NOBODY, "--clear-groups", "--", "mkdir"]).arg(&own));
    let script = "echo $$ >\"$0/cgroup.procs\"; exec setpriv --reuid=54321 --clear-groups -- unshare -Um sh -c \"$1\"";
    let out = Command::new("sh").args(["-c", script]).arg(&own).arg(SAY).output().unwrap();
    remove_cgroup(&own);
    remove_cgroup(&lent);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    only_a_claim(&containers, &filter, &victim, Said::parse(&out.stdout));
    assert_eq!(keys(&filter), [victims]);
    run(&mut docker.command(&["rm", "-f", "victim"]));
}

#[test]
fn root_a_named_socket_must_exist() {
    let path = PathBuf::from("/nonexistent/docker.sock");
    let options =
        ContainersOptions { sockets: [(RuntimeName::Docker, path.clone())].into(), ..ContainersOptions::default() };
    match Containers::start(options) {
        Err(e @ ContainersError::NoSocket { .. }) => {
            assert_eq!(e.to_string(), "docker: no socket at /nonexistent/docker.sock");
            assert!(e.hint().is_some());
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("started with a socket that is not there"),
    }
}

#[test]
fn root_a_map_of_another_shape_is_refused() {
    let containers = start(None);
    let data = MapData::create(aya_obj::Map::new_from_params(1, 4, 4, 16, 0), "odd", None).unwrap();
    let e = containers.add_filter(data.fd().as_fd(), Arc::new(Selector::all())).err().expect("a 4-byte key");
    assert!(matches!(e, ContainersError::Filter { .. }), "{e}");
}
