//! From kernel events and runtimes' news to the registry: who was born where, whose it is, and when it is over.
//!
//! Whom to trust is decided here: what root of the host says in its own mount namespace, or in one that is no container's,
//! is believed. Anybody else only claims an id, which shows as `UID/ID`: what their conmon or their own Podman says of it is
//! taken for that id only, and remembered apart, so that no user can crowd out what root says.
//!
//! Runs on the containers' thread only. Synchronous and free of clocks and sockets, so that tests can replay events.

mod describe;

use super::{
    cgroups::Cgroups,
    clients::Question,
    container::{Container, RuntimeName},
    identify::{self, BundleConfig, DockerConfig, Invocation, Launch},
    networks::Way,
    registry::{Owner, Registry},
    remembered::Remembered,
    snapshot::{self, Process, Recorded},
    tracker::{Event, INIT_USER_NS, RuntimeEvent, TaskEvent},
};
use crate::host_root;
use describe::Knowledge;
use rustc_hash::FxHashMap;
use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    sync::Arc,
};

/// How long rows wait for a container's name and its pod's labels, in nanoseconds.
pub(super) const NAME_DEADLINE: u64 = 2_000_000_000;
/// Containers, monitors and images of which something is kept before they run, or while they do.
const MAX_KNOWN: usize = 65_536;
/// The same by the word of all unprivileged users together.
const MAX_CLAIMED: usize = 4096;

/// A running process of a container runtime.
struct RuntimeProcess {
    parent: u32,
    launch: Option<Launched>,
}

/// A launch with all that was read for it while its files were there.
struct Launched {
    launch: Launch,
    bundle: PathBuf,
    config: BundleConfig,
    /// `None`: may claim any id; else the user who started it.
    unprivileged: Option<u32>,
    instance: Option<u64>,
}

/// What the thread has to do besides publishing the table.
#[derive(Debug, Default)]
pub(super) struct Todo {
    /// (namespace, birth): decide it in every gadget's filter map.
    pub(super) decide: Vec<(u64, u64)>,
    /// (namespace, birth): over; take its key out.
    pub(super) retire: Vec<(u64, u64)>,
    /// Ask the runtime's API.
    pub(super) ask: Vec<(RuntimeName, Question)>,
    /// Have the kernel report the end of these processes.
    pub(super) watch_init: Vec<u32>,
    pub(super) watch_runtime: Vec<u32>,
}

pub(super) struct Follower {
    host_root: PathBuf,
    /// Where processes are by the numbers that the kernel reports; see `host_root::proc`.
    proc: Option<PathBuf>,
    hierarchies: Cgroups,
    pub(super) registry: Registry,
    runtimes: FxHashMap<u32, RuntimeProcess>,
    /// Paths of cgroups made since the start, by (is it v1's pids hierarchy, id).
    cgroups: FxHashMap<(bool, u64), Box<str>>,
    /// Names that conmon was given, by container id: root's word, and everybody else's by the id they may claim.
    monitors: Remembered<Box<str>>,
    claimed_monitors: Remembered<Box<str>>,
    knowledge: Knowledge,
    /// (deadline on the boot clock, instance) of containers of which something is awaited, oldest first.
    waiting: VecDeque<(u64, u64)>,
    host_mntns: u64,
    host_netns: u64,
    /// Wall-clock minus boot-clock nanoseconds.
    boot_to_wall: i64,
    /// Namespaces seen by the last walk over /proc, which began at this boot time.
    walked_at: u64,
    pub(super) todo: Todo,
}

impl Follower {
    pub(super) fn new(host_root: PathBuf, host_mntns: u64, boot_to_wall: i64) -> Self {
        let proc = host_root::proc(&host_root);
        let host_netns = snapshot::host_netns(proc.as_deref());
        Follower {
            hierarchies: Cgroups::find(&host_root),
            proc,
            host_root,
            registry: Registry::default(),
            runtimes: FxHashMap::default(),
            cgroups: FxHashMap::default(),
            monitors: Remembered::new(MAX_KNOWN),
            claimed_monitors: Remembered::new(MAX_CLAIMED),
            knowledge: Knowledge::default(),
            waiting: VecDeque::new(),
            host_mntns,
            host_netns,
            boot_to_wall,
            walked_at: 0,
            todo: Todo::default(),
        }
    }

    pub(super) fn event(&mut self, event: Event, now: u64) {
        match event {
            Event::RuntimeExec(e) => self.runtime_exec(e),
            Event::Birth(e) => self.birth(&e, now),
            Event::FirstExec(e) => self.first_exec(&e, now),
            Event::Exit { tgid, time } => {
                self.runtimes.remove(&tgid);
                if let Some(instance) = self.registry.by_pid(tgid) {
                    self.registry.end(instance, time);
                }
            }
            Event::CgroupMkdir { v1, id, path } => drop(self.cgroups.insert((v1, id), path)),
            Event::CgroupRmdir { v1, id, time } => {
                self.cgroups.remove(&(v1, id));
                if let Some(instance) = self.registry.by_cgroup(id).filter(|_| !v1) {
                    self.registry.end(instance, time);
                }
            }
        }
    }

    /// Below the process's directory; where the host's proc cannot be seen, a path that is never there.
    fn proc(&self, pid: u32, what: &str) -> PathBuf {
        match &self.proc {
            Some(proc) => proc.join(format!("{pid}/{what}")),
            None => host_root::nowhere(),
        }
    }

    pub(super) fn hosts_proc(&self) -> Option<&Path> {
        self.proc.as_deref()
    }

    fn container_at(&self, mntns: u64, time: u64) -> Option<Arc<Container>> {
        match &self.registry.table().at(mntns, time)?.owner {
            Owner::Container(c) => Some(c.clone()),
            Owner::Host => None,
        }
    }

    fn runtime_exec(&mut self, e: RuntimeEvent) {
        let launch = match identify::invocation(&e.args, e.args_cut) {
            // A runtime inside a container: what it starts belongs to that container.
            Some(_) if self.container_at(e.mntns, u64::MAX).is_some() => None,
            Some(Invocation::Monitor { id, name, .. }) => {
                if let Some(name) = name {
                    self.monitor(&e, id, name);
                }
                None
            }
            Some(Invocation::Launch(launch)) => Some(self.prepare(launch, &e)),
            None => None,
        };
        match self.runtimes.get_mut(&e.tgid) {
            // crun executes itself anew from memory; the first command line stays.
            Some(known) if known.launch.is_some() && launch.is_none() => {}
            _ => drop(self.runtimes.insert(e.tgid, RuntimeProcess { parent: e.parent_tgid, launch })),
        }
    }

    /// conmon was given a name for this id. Anybody may call a program conmon and give anyone's container a name.
    fn monitor(&mut self, e: &RuntimeEvent, id: Box<str>, name: Box<str>) {
        let (id, name) = match is_root(e) {
            true => {
                self.monitors.insert(id.clone(), name.clone());
                (id, name)
            }
            false => {
                let claimed = claimed_id(e.euid, &id);
                self.claimed_monitors.insert(claimed.clone(), name.clone());
                (claimed, claimed_id(e.euid, &name))
            }
        };
        // After a walk it comes last; a claim goes by its id until then.
        for instance in self.registry.running(&id) {
            let touched = self.registry.update(instance, |c| {
                if c.name.as_ref().is_none_or(|known| c.is_claim() && *known == c.id) {
                    c.name = Some(name.clone());
                    c.complete = true;
                }
            });
            self.todo.decide.extend(touched);
        }
    }

    /// Reads the bundle now: a short container's is gone soon. Only a trusted launcher's: anybody can call a program runc
    /// and name a bundle of their making.
    fn prepare(&self, launch: Launch, e: &RuntimeEvent) -> Launched {
        let cwd = || std::fs::read_link(self.proc(e.tgid, "cwd")).unwrap_or_default();
        let bundle = match &launch.bundle {
            Some(b) if b.is_absolute() => b.clone(),
            Some(b) => cwd().join(b),
            None => cwd(),
        };
        let root = is_root(e);
        let read = || BundleConfig::read(&identify::on_host(&self.host_root, &bundle));
        let config = root.then(read).flatten().unwrap_or_default();
        Launched { launch, bundle, config, unprivileged: (!root).then_some(e.euid), instance: None }
    }

    /// The launch at or above this process.
    fn launch_above(&mut self, mut tgid: u32) -> Option<u32> {
        for _ in 0..8 {
            let process = self.runtimes.get(&tgid)?;
            if process.launch.is_some() {
                return Some(tgid);
            }
            tgid = process.parent;
        }
        None
    }

    fn birth(&mut self, e: &TaskEvent, now: u64) {
        if e.mntns == self.host_mntns {
            return;
        }
        // The kernel reports what it did not know: the walk over /proc may have found it before.
        let generation = self.registry.table().now(e.mntns);
        if e.found_late && !self.registry.is_news(e.mntns, now) {
            // The filters let it pass from now on; whether they should was decided when they did not have it.
            self.todo.decide.extend(generation.map(|g| (e.mntns, g.birth)));
            return;
        }
        let walked_over = generation.filter(|g| g.birth == 0 && e.time <= self.walked_at).map(|g| g.owner.clone());
        match walked_over {
            Some(Owner::Container(_)) => return,
            Some(Owner::Host) => {
                let owner = self.owner_of(e, now);
                self.registry.reassign(e.mntns, e.time, owner);
            }
            None => {
                let owner = self.owner_of(e, now);
                self.registry.birth(e.mntns, e.time, owner);
            }
        }
        self.todo.decide.push((e.mntns, e.time));
        self.born_in_network(e);
    }

    /// A container has its network from birth on, or joins it before: whoever looks into it can be there before the first
    /// program. One that is born in the host's may still get another.
    fn born_in_network(&mut self, e: &TaskEvent) {
        let Some(c) = self.container_at(e.mntns, u64::MAX).filter(|c| c.mntns == e.mntns && c.pid == 0) else {
            return;
        };
        if e.netns != 0 && e.netns != self.host_netns {
            self.registry.set_network(c.instance, e.netns, e.time);
            let way = Way { netns: e.netns, pid: e.tgid, launcher: e.launcher };
            self.registry.born(c.instance, way);
        }
    }

    fn owner_of(&mut self, e: &TaskEvent, now: u64) -> Owner {
        let time = if e.found_late { u64::MAX } else { e.time };
        if let Some(outer) = self.container_at(e.parent_mntns, time) {
            return Owner::Container(outer);
        }
        if let Some(c) = self.launched(e, now) {
            return Owner::Container(c);
        }
        self.by_cgroup(e, now).map_or(Owner::Host, Owner::Container)
    }

    fn launched(&mut self, e: &TaskEvent, now: u64) -> Option<Arc<Container>> {
        let tgid = self.launch_above(e.launcher)?;
        let cgroup = self.cgroup_path(e);
        let instance = self.runtimes.get(&tgid)?.launch.as_ref()?.instance;
        if let Some(c) = instance.and_then(|i| self.registry.container(i)) {
            return Some(c.clone());
        }
        let number = self.registry.next_instance();
        let started_at = self.wall(e.time);
        self.runtimes.get_mut(&tgid)?.launch.as_mut()?.instance = Some(number);
        let launched = self.runtimes.get(&tgid)?.launch.as_ref()?;
        let id = &launched.launch.id;
        // Anybody may call a program runc and claim an id: believed only of root, or where the cgroup says the same and
        // is not one that users make themselves.
        let lent = |p: &str| identify::cgroup_user(p).or_else(|| self.hierarchies.user_above(p, id));
        let proof = |p: &str| identify::cgroup_is_of(p, id) && lent(p).is_none();
        let claimed = launched.unprivileged.filter(|_| !cgroup.as_deref().is_some_and(proof));
        let runtime = identify::engine(&launched.launch, &launched.bundle, &launched.config);
        let mut c = Container::new(number, id.clone(), runtime, e.mntns);
        c.bundle = Some(launched.bundle.clone());
        c.image_name = launched.config.image_name();
        c.pod = launched.config.pod().map(Arc::new);
        c.sandbox = launched.config.sandbox();
        c.namespace = identify::containerd_namespace(&launched.bundle).map(Into::into);
        c.name = launched.config.container_name().or_else(|| self.monitor_name(claimed, id));
        c.started_at = started_at;
        let docker_dir = launched.config.docker_dir(id).map(Path::to_path_buf);
        if runtime == RuntimeName::Docker && claimed.is_none() {
            self.add_docker_file(&mut c, docker_dir);
        }
        self.finish(&mut c, claimed, now);
        Some(c.seal())
    }

    /// The name that the container's conmon was given.
    fn monitor_name(&self, claimed_by: Option<u32>, id: &str) -> Option<Box<str>> {
        match claimed_by {
            Some(uid) => self.claimed_monitors.get(&claimed_id(uid, id)).cloned(),
            None => self.monitors.get(id).cloned(),
        }
    }

    fn add_docker_file(&self, c: &mut Container, dir: Option<PathBuf>) {
        let dir = dir.unwrap_or_else(|| Path::new("/var/lib/docker/containers").join(&*c.id));
        if let Some(d) = DockerConfig::read(&identify::on_host(&self.host_root, &dir)) {
            c.name = c.name.take().or_else(|| d.name());
            c.image_name = c.image_name.take().or_else(|| d.image_name());
            c.image_id = c.image_id.take().or_else(|| d.image_id());
        }
    }

    /// To the millisecond: how far the clocks are apart is measured by every run anew, and start times that the kernel tells of
    /// what ran before are no better either.
    fn wall(&self, boot: u64) -> u64 {
        if boot == 0 { 0 } else { boot.wrapping_add_signed(self.boot_to_wall) / 1_000_000 * 1_000_000 }
    }

    /// Path of the cgroup that the task is in, if it was made since the start; else what /proc says while it lives.
    fn cgroup_path(&self, e: &TaskEvent) -> Option<Box<str>> {
        let made = self.cgroups.get(&(false, e.cgroup)).or_else(|| self.cgroups.get(&(true, e.cgroup_v1)));
        made.cloned().or_else(|| {
            let text = std::fs::read_to_string(self.proc(e.tgid, "cgroup")).ok()?;
            let (unified, pids) = identify::cgroup_paths(&text);
            unified.filter(|p| *p != "/").or(pids).map(Into::into)
        })
    }

    /// A container by its cgroup alone: a namespace made inside it, or one whose runtime started before the tracker.
    fn by_cgroup(&mut self, e: &TaskEvent, now: u64) -> Option<Arc<Container>> {
        if let Some(c) = self.registry.by_cgroup(e.cgroup).and_then(|i| self.registry.container(i)) {
            return Some(c.clone());
        }
        let path = self.cgroup_path(e)?;
        self.at_cgroup_path(&path, None, e.mntns, e.time, now)
    }

    /// containerd's shims run in the bundle: that of the container whose first process is a child of `shim`.
    fn bundle_of_shim(&self, shim: u32, id: &str) -> Option<PathBuf> {
        let uid = std::fs::metadata(self.proc(shim, "")).map(|m| std::os::unix::fs::MetadataExt::uid(&m)).ok()?;
        let bundle = std::fs::read_link(self.proc(shim, "cwd")).ok()?;
        (uid == 0 && bundle.file_name().is_some_and(|n| n == id)).then_some(bundle)
    }

    fn at_cgroup_path(
        &mut self,
        path: &str,
        shim: Option<u32>,
        mntns: u64,
        time: u64,
        now: u64,
    ) -> Option<Arc<Container>> {
        let mut found = identify::from_cgroup(path)?;
        found.user = found.user.or_else(|| self.hierarchies.user_above(path, &found.id));
        let known = match found.user {
            Some(uid) => self.registry.running(&claimed_id(uid, &found.id)),
            None => self.registry.running(&found.id),
        };
        if let Some(c) = known.last().and_then(|i| self.registry.container(*i)) {
            return Some(c.clone());
        }
        let docker_dir = Path::new("/var/lib/docker/containers").join(&*found.id);
        let bundle = shim.filter(|_| found.user.is_none()).and_then(|pid| self.bundle_of_shim(pid, &found.id));
        let read = |b: &PathBuf| BundleConfig::read(&identify::on_host(&self.host_root, b));
        let config = bundle.as_ref().and_then(read).unwrap_or_default();
        let runtime = found.runtime.or_else(|| config.engine()).unwrap_or_else(|| {
            let docker = found.user.is_none() && identify::on_host(&self.host_root, &docker_dir).exists();
            if docker { RuntimeName::Docker } else { RuntimeName::Containerd }
        });
        let mut c = Container::new(self.registry.next_instance(), found.id, runtime, mntns);
        c.cgroup_path = Some(path.into());
        c.started_at = self.wall(time);
        c.namespace = bundle.as_deref().and_then(identify::containerd_namespace).map(Into::into);
        c.bundle = bundle;
        c.image_name = config.image_name();
        c.pod = config.pod().map(Arc::new);
        c.sandbox = config.sandbox();
        c.name = config.container_name().or_else(|| self.monitor_name(found.user, &c.id));
        if runtime == RuntimeName::Docker && found.user.is_none() {
            let dir = config.docker_dir(&c.id).map(Path::to_path_buf);
            self.add_docker_file(&mut c, dir);
        }
        self.finish(&mut c, found.user, now);
        Some(c.seal())
    }

    fn first_exec(&mut self, e: &TaskEvent, now: u64) {
        let Some(generation) = self.registry.table().now(e.mntns) else {
            return;
        };
        let (birth, owner) = (generation.birth, generation.owner.clone());
        let container = match owner {
            Owner::Container(c) => c,
            // Some runtimes enter the container's cgroup only after the birth.
            Owner::Host => {
                let Some(c) = self.by_cgroup(e, now) else {
                    return;
                };
                self.registry.reassign(e.mntns, birth, Owner::Container(c.clone()));
                self.todo.decide.push((e.mntns, birth));
                c
            }
        };
        if container.pid != 0 || container.mntns != e.mntns {
            return;
        }
        let path = self.cgroup_path(e).filter(|p| identify::cgroup_is_of(p, &container.id));
        self.registry.update(container.instance, |c| c.first_exec = e.entered);
        self.settle(&container, (e.tgid, birth), e.netns, e.cgroup, path);
    }

    /// The container's first process is known; `birth` is that of its mount namespace.
    fn settle(&mut self, c: &Container, (pid, birth): (u32, u64), netns: u64, cgroup: u64, path: Option<Box<str>>) {
        let host_network = netns != 0 && netns == self.host_netns;
        // Only a cgroup of its own: others may be shared with half the machine.
        if path.is_some() && cgroup > 1 {
            self.registry.set_cgroup(c.instance, cgroup);
        }
        if netns != 0 {
            self.registry.set_network(c.instance, netns, birth);
        }
        self.registry.update(c.instance, |c| {
            c.pid = pid;
            c.netns = netns;
            c.host_network = host_network;
            if path.is_some() {
                c.cgroup_id = cgroup;
                c.cgroup_path = path;
            }
        });
    }

    /// Takes in what ran at `now` (boot-clock nanoseconds).
    pub(super) fn walked(&mut self, all: &[Process], now: u64) {
        self.walked_at = now;
        let host_mntns = self.host_mntns;
        let runtimes = || all.iter().filter(|p| p.is_runtime);
        for p in runtimes().filter(|p| p.mntns == host_mntns) {
            self.running_runtime(p);
        }
        let recorded = snapshot::recorded(&self.host_root, &self.state_dirs());
        let news = |p: &Process, r: &Registry| p.mntns != self.host_mntns && r.is_news(p.mntns, p.started);
        let found: Vec<&Process> = all.iter().filter(|p| news(p, &self.registry)).collect();
        // First those that a state file names, so that the processes beside them find their container by id.
        for p in &found {
            let believed = |r: &&Recorded| r.user.is_none_or(|uid| self.is_of_user(p.pid, uid));
            let of_pid = recorded.get(&p.pid).into_iter().flatten();
            if let Some(r) = of_pid.filter(|r| r.is_of(p)).find(believed) {
                self.adopt_recorded(p, r, now);
            }
        }
        for p in &found {
            if self.registry.is_news(p.mntns, p.started) {
                let owner = self.at_cgroup_path(&p.cgroup, Some(p.parent), p.mntns, p.started, now);
                self.adopt(p, owner.map_or(Owner::Host, Owner::Container));
            }
        }
        // Last, because only now is it known which of these run inside a container.
        for p in runtimes().filter(|p| p.mntns != host_mntns) {
            self.running_runtime(p);
        }
    }

    /// A runtime that was there before: its command line is still to be had.
    fn running_runtime(&mut self, p: &Process) {
        self.todo.watch_runtime.push(p.pid);
        let Ok(args) = std::fs::read(self.proc(p.pid, "cmdline")) else {
            return;
        };
        let euid = std::fs::metadata(self.proc(p.pid, "")).map(|m| std::os::unix::fs::MetadataExt::uid(&m));
        let user_ns = snapshot::namespace(&self.proc(p.pid, "ns/user")).and_then(|n| u32::try_from(n).ok());
        let (Ok(euid), Some(user_ns)) = (euid, user_ns) else {
            return;
        };
        let (tgid, parent_tgid, mntns) = (p.pid, p.parent, p.mntns);
        self.runtime_exec(RuntimeEvent { tgid, parent_tgid, mntns, euid, user_ns, args, args_cut: false });
    }

    /// Directories of state that running runtimes of root's were told to use.
    fn state_dirs(&self) -> Vec<PathBuf> {
        let launches = self.runtimes.values().filter_map(|r| r.launch.as_ref());
        let mut dirs: Vec<PathBuf> =
            launches.filter(|l| l.unprivileged.is_none()).filter_map(|l| l.launch.root.clone()).collect();
        dirs.sort_unstable();
        dirs.dedup();
        dirs
    }

    /// True where the process is in a user namespace that this unprivileged user can have made: one where they are
    /// somebody. Their files and their daemons may name any process.
    fn is_of_user(&self, pid: u32, uid: u32) -> bool {
        std::fs::read_to_string(self.proc(pid, "uid_map")).is_ok_and(|map| identify::maps_single(&map, uid))
    }

    fn adopt_recorded(&mut self, p: &Process, recorded: &Recorded, now: u64) {
        let program = recorded.program;
        let launch = Launch { program, id: recorded.id.clone(), bundle: recorded.bundle.clone(), root: None };
        let bundle = recorded.bundle.clone().unwrap_or_default();
        let read = || BundleConfig::read(&identify::on_host(&self.host_root, &bundle));
        let config = recorded.user.is_none().then(read).flatten().unwrap_or_default();
        let runtime = identify::engine(&launch, &bundle, &config);
        let mut c = Container::new(self.registry.next_instance(), launch.id, runtime, p.mntns);
        c.bundle = recorded.bundle.clone();
        c.image_name = config.image_name();
        c.pod = config.pod().map(Arc::new);
        c.sandbox = config.sandbox();
        c.namespace = identify::containerd_namespace(&bundle).map(Into::into);
        c.name = config.container_name().or_else(|| self.monitor_name(recorded.user, &recorded.id));
        c.started_at = self.wall(p.started);
        if runtime == RuntimeName::Docker && recorded.user.is_none() {
            self.add_docker_file(&mut c, config.docker_dir(&recorded.id).map(Path::to_path_buf));
        }
        self.finish(&mut c, recorded.user, now);
        self.adopt(p, Owner::Container(c.seal()));
    }

    fn adopt(&mut self, p: &Process, owner: Owner) {
        // Since ever, unless another had the number before.
        let birth = self.registry.table().now(p.mntns).map_or(0, |_| p.started);
        self.registry.birth(p.mntns, birth, owner.clone());
        self.todo.decide.push((p.mntns, birth));
        let Owner::Container(c) = owner else { return };
        if c.pid == 0 && c.mntns == p.mntns {
            let own = identify::cgroup_is_of(&p.cgroup, &c.id);
            let path = own.then(|| p.cgroup.clone());
            let cgroup = path.as_deref().and_then(|p| self.hierarchies.id(p)).unwrap_or_default();
            self.settle(&c, (p.pid, birth), p.netns, cgroup, path);
            self.todo.watch_init.push(p.pid);
        }
    }

    /// Does what is due at `now`.
    pub(super) fn tick(&mut self, now: u64) {
        while let Some((_, instance)) = self.waiting.pop_front_if(|(deadline, _)| *deadline <= now) {
            let touched = self.registry.update(instance, describe::give_up);
            self.todo.decide.extend(touched);
        }
        let over = self.registry.expire(now);
        self.todo.retire.extend(over);
    }

    /// Boot time of the next `tick` that has something to do.
    pub(super) fn next_tick(&self) -> Option<u64> {
        let name = self.waiting.front().map(|(deadline, _)| *deadline);
        [name, self.registry.next_expiry()].into_iter().flatten().min()
    }

    pub(super) fn set_boot_to_wall(&mut self, boot_to_wall: i64) {
        self.boot_to_wall = boot_to_wall;
    }
}

/// A slash is in nobody's id or name: an unprivileged user's container never passes for another.
pub(super) fn claimed_id(uid: u32, id: &str) -> Box<str> {
    format!("{uid}/{id}").into()
}

/// Root of the host, and not of a user namespace that anybody can make.
fn is_root(e: &RuntimeEvent) -> bool {
    e.euid == 0 && e.user_ns == INIT_USER_NS
}

#[cfg(test)]
mod tests;
