//! What runtimes say, and to which container it belongs.
//!
//! Precedence: what an OCI annotation says stands, since it was read from the bundle that is running; then the runtime's
//! API; then files of the runtime and conmon's arguments; a cgroup's path comes last. Where several of containerd's
//! namespaces hold the same id, each keeps to its own.

use super::{Follower, MAX_CLAIMED, MAX_KNOWN, NAME_DEADLINE, claimed_id};
use crate::containers::{
    clients::{Described, News, Question, Source},
    container::{Container, ImageAnswer, Pod, RuntimeName},
    identify::MOBY,
    registry::Owner,
    remembered::Remembered,
    snapshot,
};
use rustc_hash::{FxHashMap, FxHashSet};
use std::{collections::BTreeMap, sync::Arc};

type Labels = BTreeMap<Box<str>, Box<str>>;

/// What the name of a pod's sandbox is: it has none, and this is what kubelets call it.
const SANDBOX_NAME: &str = "POD";

/// Everything that runtimes said.
pub(super) struct Knowledge {
    /// By id; more than one where runtimes or containerd's namespaces share it.
    containers: FxHashMap<Box<str>, Vec<Heard>>,
    /// What unprivileged users' runtimes said, by the id they may claim: apart, so that no user can crowd out the rest.
    claims: Remembered<Described>,
    /// Labels of pods, by the id of the sandbox.
    pods: FxHashMap<Box<str>, Labels>,
    /// By image id.
    digests: FxHashMap<Box<str>, Digest>,
    /// The clients that are connected, by number, and whether they know pods.
    connected: FxHashMap<usize, (RuntimeName, bool)>,
    /// Runtimes whose API was there at the start and has not failed yet.
    apis_expected: FxHashSet<RuntimeName>,
    /// The same for the labels of pods.
    pods_expected: FxHashSet<RuntimeName>,
    /// When the running listings began, by the client's number.
    listings: FxHashMap<usize, u64>,
    /// Name of this machine among Kubernetes' nodes.
    node: Box<str>,
    /// How many containers and pods may be known before those that do not run are forgotten.
    room: (usize, usize),
}

impl Default for Knowledge {
    fn default() -> Self {
        Knowledge {
            containers: FxHashMap::default(),
            claims: Remembered::new(MAX_CLAIMED),
            pods: FxHashMap::default(),
            digests: FxHashMap::default(),
            connected: FxHashMap::default(),
            apis_expected: FxHashSet::default(),
            pods_expected: FxHashSet::default(),
            listings: FxHashMap::default(),
            node: Box::default(),
            room: Default::default(),
        }
    }
}

/// So many are kept without a look at whether they still run.
const ROOM: usize = 4096;

impl Knowledge {
    /// How it stands with the container's image.
    fn image_answer(&self, c: &Container) -> ImageAnswer {
        // A bundle has no image, and a sandbox none that anybody asks for.
        if c.runtime.named_by_id() || c.is_sandbox() || c.image_digest.is_some() && c.image_id.is_some() {
            return ImageAnswer::Given;
        }
        let digest = c.image_id.as_ref().and_then(|id| self.digests.get(id));
        match digest {
            Some(Digest::Known(_)) => ImageAnswer::Given,
            // Once its time is up, nobody waits for it again.
            _ if c.image_answer != ImageAnswer::TimeUp && self.has_api(c.runtime) => ImageAnswer::Awaited,
            _ => ImageAnswer::TimeUp,
        }
    }

    fn has_api(&self, runtime: RuntimeName) -> bool {
        self.apis_expected.contains(&runtime) || self.connected.values().any(|(r, _)| *r == runtime)
    }

    fn knows_pods(&self, runtime: RuntimeName) -> bool {
        self.pods_expected.contains(&runtime) || self.connected.values().any(|known| *known == (runtime, true))
    }
}

struct Heard {
    runtime: RuntimeName,
    at: u64,
    what: Described,
}

#[derive(Clone)]
enum Digest {
    Asked(RuntimeName),
    /// `None`: the image was never in a registry.
    Known(Option<Box<str>>),
}

impl Follower {
    /// What is to be expected: runtimes whose API is there, those of which somebody knows pods, and the node's name.
    pub(in crate::containers) fn expect(&mut self, apis: &[RuntimeName], pods_of: &[RuntimeName], node: &str) {
        self.knowledge.apis_expected = apis.iter().copied().collect();
        self.knowledge.pods_expected = pods_of.iter().copied().collect();
        self.knowledge.node = node.into();
    }

    pub(in crate::containers) fn news(&mut self, news: News, now: u64) {
        match news {
            News::Known(runtime, d) => self.described(runtime, d, now),
            News::Removed(runtime, id) => self.forget(runtime, &id),
            News::Image { id, digest } => {
                for instance in self.registry.with_image(&id) {
                    let touched = self.registry.update(instance, |c| {
                        c.image_digest = digest.clone();
                        c.image_answer = ImageAnswer::Given;
                    });
                    self.todo.decide.extend(touched);
                }
                self.knowledge.digests.insert(id, Digest::Known(digest));
            }
            News::FirstAnswer => {}
            News::Listing(source) => drop(self.knowledge.listings.insert(source.number, now)),
            News::Connected { source, pods } => self.connected(source, pods),
            News::Lost(source, _) => {
                self.knowledge.listings.remove(&source.number);
                // Nobody waits for an answer that will not come in time. The next listing makes up for it.
                self.knowledge.connected.remove(&source.number);
                self.knowledge.apis_expected.remove(&source.runtime);
                self.knowledge.pods_expected.remove(&source.runtime);
                self.settle_waiting();
            }
        }
    }

    fn connected(&mut self, source: Source, pods: Option<bool>) {
        let Source { number, runtime } = source;
        self.knowledge.connected.insert(number, (runtime, pods == Some(true)));
        if pods.is_some() {
            self.knowledge.pods_expected.remove(&runtime);
            self.settle_waiting();
        }
        if let Some(began) = self.knowledge.listings.remove(&number) {
            let registry = &self.registry;
            // What was not said again is gone, or does not run; it is asked for when it is born.
            self.knowledge.containers.retain(|id, heard| {
                heard.retain(|h| h.runtime != runtime || h.at >= began || !registry.running(id).is_empty());
                !heard.is_empty()
            });
        }
        let unanswered = |d: &Digest| matches!(d, Digest::Asked(r) if *r == runtime);
        let ask = self.knowledge.digests.iter().filter(|(_, d)| unanswered(d));
        self.todo.ask.extend(ask.map(|(id, _)| (runtime, Question::Image(id.clone()))));
    }

    /// Containers that wait for nothing but what nobody will tell go on without it.
    fn settle_waiting(&mut self) {
        for i in 0..self.waiting.len() {
            let (_, instance) = self.waiting[i];
            let awaits = self.registry.container(instance).is_some_and(|c| self.awaits_labels(c));
            let image = self.registry.container(instance).map(|c| self.knowledge.image_answer(c)).unwrap_or_default();
            let touched = self.registry.update(instance, |c| {
                c.complete |= !awaits && c.name.is_some();
                c.image_answer = image;
            });
            self.todo.decide.extend(touched);
        }
    }

    fn forget(&mut self, runtime: RuntimeName, id: &str) {
        if let Some(heard) = self.knowledge.containers.get_mut(id) {
            heard.retain(|h| h.runtime != runtime);
            if heard.is_empty() {
                self.knowledge.containers.remove(id);
            }
        }
        self.knowledge.pods.remove(id);
        self.knowledge.claims.remove(id);
        self.monitors.remove(id);
        self.claimed_monitors.remove(id);
    }

    /// What an unprivileged user's daemon says: of that user's containers, whatever it says.
    fn claimed(&mut self, runtime: RuntimeName, d: Described, now: u64) {
        for instance in self.registry.all_of(&d.id) {
            let touched = self.registry.update(instance, |c| add_description(c, runtime, &d));
            self.todo.decide.extend(touched);
        }
        if let Some(pid) = d.pid.filter(|_| self.registry.running(&d.id).is_empty()) {
            self.adopt_described(runtime, &d, pid, now);
        }
        self.knowledge.claims.insert(d.id.clone(), d);
    }

    fn described(&mut self, runtime: RuntimeName, mut d: Described, now: u64) {
        if d.user.is_some() {
            return self.claimed(runtime, d, now);
        }
        let runtime = if d.namespace.as_deref() == Some(MOBY) { RuntimeName::Docker } else { runtime };
        if let (Some(sandbox), Some(Pod { labels: Some(labels), .. })) = (&d.sandbox, &d.pod) {
            self.pod_labels(sandbox, labels);
        }
        let digest = match &d.image_id {
            Some(id) if d.image_digest.is_none() => self.digest(runtime, id),
            _ => None,
        };
        d.image_digest = d.image_digest.take().or(digest);
        let mut running = false;
        for instance in self.registry.all_of(&d.id) {
            let Some(c) = self.registry.container(instance).filter(|c| speaks_of(c, runtime, &d)) else { continue };
            let mut known = Container::clone(c);
            add_description(&mut known, runtime, &d);
            self.add_pod(&mut known);
            known.complete |= known.name.is_some() && !self.awaits_labels(&known);
            known.image_answer = self.knowledge.image_answer(&known);
            let touched = self.registry.update(instance, |c| *c = known);
            self.todo.decide.extend(touched);
            running |= self.registry.running(&d.id).contains(&instance);
        }
        if !running {
            // Neither the kernel nor the walk gave it away; its process leads to its namespace.
            match d.pid {
                Some(pid) => self.adopt_described(runtime, &d, pid, now),
                None if d.listed => self.todo.ask.push((runtime, Question::Container(d.id.clone()))),
                None => {}
            }
        }
        self.keep(runtime, d, now);
    }

    fn keep(&mut self, runtime: RuntimeName, d: Described, now: u64) {
        let Knowledge { containers, room: (room, _), .. } = &mut self.knowledge;
        if containers.len() >= (*room).max(ROOM) {
            containers.retain(|id, _| !self.registry.running(id).is_empty());
            *room = (containers.len() * 2).min(MAX_KNOWN);
        }
        if self.knowledge.containers.len() >= MAX_KNOWN && !self.knowledge.containers.contains_key(&d.id) {
            return;
        }
        let heard = self.knowledge.containers.entry(d.id.clone()).or_default();
        match heard.iter_mut().find(|h| h.runtime == runtime && h.what.namespace == d.namespace) {
            Some(h) => {
                h.at = now;
                h.what.merge(d);
            }
            None => heard.push(Heard { runtime, at: now, what: d }),
        }
    }

    /// The labels of a pod hold for all its containers.
    fn pod_labels(&mut self, sandbox: &str, labels: &Labels) {
        if self.knowledge.pods.get(sandbox) == Some(labels) {
            return;
        }
        let Knowledge { pods, room: (_, room), .. } = &mut self.knowledge;
        if pods.len() >= (*room).max(ROOM) {
            let alive = self.registry.sandboxes();
            pods.retain(|id, _| alive.contains(id));
            *room = (pods.len() * 2).min(MAX_KNOWN);
        }
        if pods.len() < MAX_KNOWN {
            pods.insert(sandbox.into(), labels.clone());
        }
        for instance in self.registry.with_sandbox(sandbox) {
            let touched = self.registry.update(instance, |c| {
                let Some(pod) = c.pod.as_mut() else { return };
                Arc::make_mut(pod).labels = Some(labels.clone());
                c.complete |= c.name.is_some();
            });
            self.todo.decide.extend(touched);
        }
    }

    /// Adds what runtimes said of this id, decides whether more is to be waited for, and asks for what is missing.
    pub(super) fn finish(&mut self, c: &mut Container, claimed_by: Option<u32>, now: u64) {
        if let Some(uid) = claimed_by {
            let name = c.name.take().unwrap_or_else(|| c.id.clone());
            c.name = Some(format!("{uid}/{name}").into());
            c.id = claimed_id(uid, &c.id);
            if let Some(d) = self.knowledge.claims.get(&c.id) {
                add_description(c, RuntimeName::Podman, d);
            }
        }
        if c.is_claim() {
            // Their Podman may still say more; nobody waits for it.
            c.name.get_or_insert_with(|| c.id.clone());
            c.complete = true;
            c.image_answer = ImageAnswer::Given;
            return;
        }
        for heard in self.knowledge.containers.get(&c.id).into_iter().flatten() {
            if speaks_of(c, heard.runtime, &heard.what) {
                add_description(c, heard.runtime, &heard.what);
            }
        }
        // CRI-O writes the labels of the pod into the sandbox's bundle, and nobody else's.
        if let (true, Some(labels)) = (c.is_sandbox(), c.pod_labels()) {
            let (id, labels) = (c.id.clone(), labels.clone());
            self.pod_labels(&id, &labels);
        }
        self.add_pod(c);
        let api = self.knowledge.has_api(c.runtime);
        // Without its bundle, only containerd knows whether it is in a pod or has a name of its own.
        let bare = c.runtime == RuntimeName::Containerd && c.pod.is_none() && (c.bundle.is_some() || !api);
        if c.name.is_none() && (c.runtime.named_by_id() || bare) {
            c.name = Some(c.id.clone());
        }
        let labels = self.awaits_labels(c);
        c.complete = c.name.is_some() && !labels;
        if c.name.is_none() || api && c.image_id.is_none() && !c.is_sandbox() {
            self.todo.ask.push((c.runtime, Question::Container(c.id.clone())));
        }
        if let (true, Some(sandbox)) = (labels, &c.sandbox) {
            self.todo.ask.push((c.runtime, Question::Sandbox(sandbox.clone())));
        }
        c.image_digest = c.image_digest.take().or_else(|| self.digest(c.runtime, c.image_id.as_deref()?));
        c.image_answer = self.knowledge.image_answer(c);
        if c.is_settling() {
            self.waiting.push_back((now + NAME_DEADLINE, c.instance));
        }
    }

    /// True while the labels of its pod are not known and may still come.
    fn awaits_labels(&self, c: &Container) -> bool {
        let lacks = c.pod.as_ref().is_some_and(|p| p.labels.is_none()) && c.sandbox.is_some();
        lacks && self.knowledge.knows_pods(c.runtime)
    }

    /// Node and labels, where it is in a pod.
    fn add_pod(&self, c: &mut Container) {
        if c.is_sandbox() && c.name.is_none() {
            c.name = Some(SANDBOX_NAME.into());
        }
        let labels = c.sandbox.as_ref().and_then(|s| self.knowledge.pods.get(s));
        let Some(pod) = &mut c.pod else { return };
        let lacks_labels = pod.labels.is_none() && labels.is_some();
        if pod.node != self.knowledge.node || lacks_labels {
            let pod = Arc::make_mut(pod);
            pod.node.clone_from(&self.knowledge.node);
            if lacks_labels {
                pod.labels = labels.cloned();
            }
        }
    }

    /// The image's digest; asks for it once where it is not known.
    fn digest(&mut self, runtime: RuntimeName, image_id: &str) -> Option<Box<str>> {
        match self.knowledge.digests.get(image_id) {
            Some(Digest::Known(digest)) => return digest.clone(),
            Some(Digest::Asked(_)) => return None,
            None => {}
        }
        if self.knowledge.digests.len() < MAX_KNOWN {
            self.knowledge.digests.insert(image_id.into(), Digest::Asked(runtime));
            self.todo.ask.push((runtime, Question::Image(image_id.into())));
        }
        None
    }

    fn adopt_described(&mut self, runtime: RuntimeName, d: &Described, pid: u32, now: u64) {
        let Some(mntns) = snapshot::namespace(&self.proc(pid, "ns/mnt")) else {
            return;
        };
        let Some(generation) = self.registry.table().now(mntns) else {
            return;
        };
        if mntns == self.host_mntns || matches!(generation.owner, Owner::Container(_)) {
            return;
        }
        let birth = generation.birth;
        if d.user.is_some_and(|uid| !self.is_of_user(pid, uid)) {
            return;
        }
        let mut c = Container::new(self.registry.next_instance(), d.id.clone(), runtime, mntns);
        c.started_at = self.wall(birth);
        c.pid = pid;
        c.namespace.clone_from(&d.namespace);
        c.netns = snapshot::namespace(&self.proc(pid, "ns/net")).unwrap_or_default();
        c.host_network = c.netns != 0 && c.netns == self.host_netns;
        add_description(&mut c, runtime, d);
        self.finish(&mut c, None, now);
        self.registry.reassign(mntns, birth, Owner::Container(c.seal()));
        self.todo.decide.push((mntns, birth));
        self.todo.watch_init.push(pid);
    }
}

/// The time for a better answer is over.
pub(super) fn give_up(c: &mut Container) {
    if c.runtime == RuntimeName::Containerd && c.name.is_none() {
        c.name = Some(c.id.clone());
    }
    c.complete = true;
    if c.image_answer == ImageAnswer::Awaited {
        c.image_answer = ImageAnswer::TimeUp;
    }
}

/// Whether what a runtime says of an id is meant for this container of that id: ids that people choose are not unique.
fn speaks_of(c: &Container, runtime: RuntimeName, d: &Described) -> bool {
    let elsewhere = matches!((&c.namespace, &d.namespace), (Some(mine), Some(theirs)) if mine != theirs);
    let unique = d.id.len() == 64 && d.id.bytes().all(|b| b.is_ascii_hexdigit());
    !elsewhere && (c.runtime == runtime || unique || d.pid.is_some_and(|pid| pid == c.pid))
}

fn add_description(c: &mut Container, runtime: RuntimeName, d: &Described) {
    // The command line told only which program started it.
    if c.runtime.named_by_id() && c.runtime != RuntimeName::Buildkit {
        c.runtime = runtime;
    }
    let annotated = c.pod.is_some();
    if !annotated {
        c.name = d.name.clone().or(c.name.take());
    }
    if !(annotated && c.image_name.is_some()) {
        c.image_name = d.image_name.clone().or(c.image_name.take());
    }
    c.image_id = d.image_id.clone().or(c.image_id.take());
    c.image_digest = d.image_digest.clone().or(c.image_digest.take());
    c.namespace = c.namespace.take().or_else(|| d.namespace.clone());
    c.sandbox = c.sandbox.take().or_else(|| d.sandbox.clone());
    match (&mut c.pod, &d.pod) {
        (Some(mine), Some(theirs)) => Arc::make_mut(mine).fill(theirs),
        (mine @ None, Some(theirs)) => *mine = Some(Arc::new(theirs.clone())),
        (_, None) => {}
    }
}
