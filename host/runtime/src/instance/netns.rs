//! Socket filters in the network namespaces of the containers that were asked for, and of the host where that was.
//!
//! A thread of its own enters each namespace, opens the sockets there and comes back; nothing else of this process ever
//! sees another network. A container's namespace is entered when the container is born, long before its first program
//! runs, and left when the last container that shares it has ended: an open socket would keep the namespace alive. Sockets
//! are closed beside it, because each close waits for a grace period of the kernel.

use crate::{
    bpf::socket::{SocketError, SocketProgram},
    bpf::sys,
    containers::{Container, Containers, NetworkFeed, NetworkNews, Selector, Verdict, Waker, Way, hosts_network},
    enrich::container::Include,
    host_root,
};
use rustc_hash::{FxHashMap, FxHashSet};
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::JoinHandle,
    time::Duration,
};

/// Threads that close sockets at the same time, so that they wait for the same grace periods.
const CLOSERS: usize = 32;
/// How long the thread sleeps when it hears nothing. After missed news nobody can wake it, so this is also how late it may
/// hear that the run has ended.
const SLEEP: Duration = Duration::from_millis(500);
/// Notes kept until somebody takes them.
const MAX_NOTES: usize = 64;
/// Children of a runtime's process that are looked at, and how often they are listed.
const MAX_CHILDREN: usize = 64;
const MAX_LOOKS: u32 = 16;

/// Stands for the host's network where its number is not known, and for the host among the instances.
const HOST: u64 = 0;

/// Why no network namespace at all could be looked into.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    #[error("{what}: {source}")]
    Network { what: String, source: WhyNot },
    #[error("cannot start the thread that opens sockets in network namespaces")]
    Thread { source: io::Error },
}

impl NetworkError {
    pub fn hint(&self) -> Option<String> {
        let NetworkError::Network { source, .. } = self else { return None };
        source.hint()
    }
}

/// Why a network namespace could not be looked into.
#[derive(Debug, thiserror::Error)]
pub enum WhyNot {
    #[error("no process by which it could be entered is left")]
    Gone,
    #[error("its processes cannot be seen, because /proc belongs to another pid namespace")]
    NoProc,
    #[error("cannot enter it: {0}")]
    Enter(io::Error),
    #[error("{what}: {source}")]
    Socket { what: String, source: io::Error },
    #[error("cannot return from it to this program's own: {0}")]
    Return(io::Error),
}

impl WhyNot {
    fn hint(&self) -> Option<String> {
        let (WhyNot::Enter(e) | WhyNot::Socket { source: e, .. }) = self else { return None };
        Some(match e.raw_os_error()? {
            libc::EPERM | libc::EACCES => "run as root, or with CAP_SYS_ADMIN and CAP_NET_RAW".to_owned(),
            libc::EMFILE | libc::ENFILE => "raise the limit on open files (ulimit -n)".to_owned(),
            libc::ENOBUFS | libc::ENOMEM => {
                "the kernel has no memory for more sockets (net.core.optmem_max)".to_owned()
            }
            libc::EAFNOSUPPORT => "the kernel lacks packet sockets (CONFIG_PACKET)".to_owned(),
            _ => return None,
        })
    }
}

impl From<SocketError> for WhyNot {
    fn from(e: SocketError) -> Self {
        let what = e.to_string();
        let (SocketError::Open(source)
        | SocketError::Dispatcher(source)
        | SocketError::Attach(source)
        | SocketError::Bind(source)) = e;
        WhyNot::Socket { what, source }
    }
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    notes: Mutex<Vec<String>>,
    /// Networks whose packets were not seen, at least for a time.
    unseen: AtomicU64,
}

impl Shared {
    fn note(&self, text: String) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.len() < MAX_NOTES && !notes.contains(&text) {
            notes.push(text);
        }
    }
}

/// The socket filters of a run. Dropping it stops them and closes all sockets.
pub(super) struct NetworkSockets {
    programs: Vec<Arc<SocketProgram>>,
    shared: Arc<Shared>,
    waker: Option<Waker>,
    thread: Option<JoinHandle<()>>,
}

impl NetworkSockets {
    /// Returns when the programs see the packets of every namespace that is there and was asked for. An error if that is
    /// none, and some could not be entered.
    pub(super) fn start(
        programs: Vec<Arc<SocketProgram>>,
        containers: Option<&Containers>,
        host_root: &Path,
        selector: Arc<Selector>,
        include: Include,
    ) -> Result<NetworkSockets, NetworkError> {
        let shared = Arc::new(Shared::default());
        let (feed, waker) = containers.map(Containers::networks).unzip();
        let (ready, is_ready) = channel();
        let proc = host_root::proc(host_root);
        let thread = {
            let (programs, shared) = (programs.clone(), shared.clone());
            let containers = containers.cloned();
            std::thread::Builder::new().name("ig-networks".to_owned()).spawn(move || {
                match Worker::new(programs, shared, proc, selector, include.host) {
                    Ok(worker) => worker.run(feed, containers, &ready),
                    Err(e) => drop(ready.send(Err(e))),
                }
            })
        };
        let thread = thread.map_err(|source| NetworkError::Thread { source })?;
        let sockets = NetworkSockets { programs, shared, waker, thread: Some(thread) };
        match is_ready.recv() {
            Ok(Ok(())) => Ok(sockets),
            Ok(Err(e)) => Err(e),
            Err(gone) => Err(NetworkError::Thread { source: io::Error::other(gone) }),
        }
    }

    /// What people should know, each once.
    pub(super) fn notes(&self) -> Vec<String> {
        std::mem::take(&mut *self.shared.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Networks of those asked for that could not be looked into when they should have been.
    pub(super) fn unseen(&self) -> u64 {
        self.shared.unseen.load(Ordering::Acquire)
    }

    /// Stops the programs everywhere; those that are at work still end.
    pub(super) fn silence(&self) {
        for p in &self.programs {
            // Cannot fail for a slot that is ours; if it did, rows would go on to come until the sockets are closed.
            drop(p.silence());
        }
        self.shared.stop.store(true, Ordering::Release);
        if let Some(waker) = &self.waker {
            waker.wake();
        }
    }
}

impl Drop for NetworkSockets {
    fn drop(&mut self) {
        self.silence();
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic over there was already reported by the panic hook.
            drop(thread.join());
        }
    }
}

/// A container, as far as its network goes.
struct Member {
    container: Arc<Container>,
    way: Option<Way>,
}

/// A network namespace that was asked for.
#[derive(Default)]
struct Network {
    instances: FxHashSet<u64>,
    /// One of each program.
    sockets: Vec<OwnedFd>,
}

struct Worker {
    programs: Vec<Arc<SocketProgram>>,
    shared: Arc<Shared>,
    /// This process's own network namespace.
    home: File,
    proc: Option<PathBuf>,
    selector: Arc<Selector>,
    include_host: bool,
    members: FxHashMap<u64, Member>,
    /// Instances that were known when news were missed, and of which nothing was heard since.
    stale: FxHashSet<u64>,
    networks: FxHashMap<u64, Network>,
    /// Networks that could not be looked into, with the instances in them: each is counted once, however often it is tried,
    /// and once more when the kernel has reused its number.
    unseen: FxHashMap<u64, FxHashSet<u64>>,
    /// Sockets to close, beside this thread.
    closer: Option<(Sender<OwnedFd>, JoinHandle<()>)>,
    /// The first failure while starting.
    failed: Option<NetworkError>,
}

impl Worker {
    fn new(
        programs: Vec<Arc<SocketProgram>>,
        shared: Arc<Shared>,
        proc: Option<PathBuf>,
        selector: Arc<Selector>,
        include_host: bool,
    ) -> Result<Worker, NetworkError> {
        sys::raise_open_files();
        let thread = |source| NetworkError::Thread { source };
        let home = File::open("/proc/thread-self/ns/net").map_err(thread)?;
        let (sender, receiver) = channel();
        let closer = std::thread::Builder::new()
            .name("ig-closing".to_owned())
            .spawn(move || close(&receiver))
            .map_err(thread)?;
        Ok(Worker {
            programs,
            shared,
            home,
            proc,
            selector,
            include_host,
            members: FxHashMap::default(),
            stale: FxHashSet::default(),
            networks: FxHashMap::default(),
            unseen: FxHashMap::default(),
            closer: Some((sender, closer)),
            failed: None,
        })
    }

    fn run(
        mut self,
        mut feed: Option<NetworkFeed>,
        containers: Option<Containers>,
        ready: &Sender<Result<(), NetworkError>>,
    ) {
        if self.include_host {
            self.look_into_host();
        }
        let mut starting = feed.is_some();
        if !starting {
            self.tell_ready(ready);
        }
        while !self.shared.stop.load(Ordering::Acquire) {
            let Some(feed) = &mut feed else {
                std::thread::park_timeout(SLEEP);
                continue;
            };
            match feed.next(SLEEP) {
                NetworkNews::Known(c) => self.known(c),
                NetworkNews::Born(c, way) => self.born(c, way),
                NetworkNews::Ended(instance) => self.ended(instance),
                NetworkNews::Complete => {
                    self.forget_stale();
                    if std::mem::take(&mut starting) {
                        self.tell_ready(ready);
                    }
                }
                NetworkNews::Nothing => {}
                NetworkNews::Missed(n) => {
                    self.shared.note(format!("{n} changes of containers came too fast to follow their networks"));
                    // Each may have been the birth of a network.
                    self.shared.unseen.fetch_add(n, Ordering::AcqRel);
                    if let Some(c) = &containers {
                        // The old queue is dropped: everything that runs is told again, and who is not has ended.
                        self.stale = self.members.keys().copied().collect();
                        (*feed, _) = c.networks();
                    }
                }
            }
        }
        let all: Vec<OwnedFd> = self.networks.drain().flat_map(|(_, n)| n.sockets).collect();
        if let Some((sender, closer)) = self.closer.take() {
            drop(sender);
            close_all(all);
            drop(closer.join());
        }
    }

    fn tell_ready(&mut self, ready: &Sender<Result<(), NetworkError>>) {
        let none = self.networks.values().all(|n| n.sockets.is_empty());
        let answer = match self.failed.take() {
            Some(e) if none => Err(e),
            _ => Ok(()),
        };
        // The other side waits for it.
        drop(ready.send(answer));
    }

    fn look_into_host(&mut self) {
        let found = hosts_network(self.proc.as_deref()).ok_or(WhyNot::Gone);
        let opened = found.and_then(|ns| Ok((ns.number, self.open(ns.file(), ns.number)?)));
        match opened {
            Ok((netns, sockets)) => {
                // Instance 0 is nobody: the host's stays open for the whole run.
                let network = self.networks.entry(netns).or_default();
                network.instances.insert(0);
                network.sockets = sockets;
            }
            Err(source) => self.fail("the network of the host".to_owned(), (HOST, HOST), source),
        }
    }

    fn known(&mut self, c: Arc<Container>) {
        let instance = c.instance;
        self.stale.remove(&instance);
        let way = (c.netns != 0).then(|| Way { netns: c.netns, pid: c.pid, launcher: 0 });
        let known = self.members.remove(&instance).and_then(|m| m.way);
        let moved = known.as_ref().zip(way.as_ref()).is_some_and(|(old, new)| old.netns != new.netns);
        if moved {
            self.leave(instance);
        }
        self.members.insert(instance, Member { container: c, way: way.or(known) });
        self.decide(instance);
    }

    fn born(&mut self, c: Arc<Container>, way: Way) {
        let instance = c.instance;
        self.members.insert(instance, Member { container: c, way: Some(way) });
        self.decide(instance);
    }

    fn ended(&mut self, instance: u64) {
        self.members.remove(&instance);
        self.unseen.retain(|_, inside| !inside.remove(&instance) || !inside.is_empty());
        self.leave(instance);
    }

    fn forget_stale(&mut self) {
        for instance in std::mem::take(&mut self.stale) {
            self.ended(instance);
        }
    }

    /// Looks into the container's network, or no longer, as the selection says by now.
    fn decide(&mut self, instance: u64) {
        let Some(m) = self.members.get(&instance) else { return };
        if self.selector.verdict(&m.container) == Verdict::No {
            return self.leave(instance);
        }
        let Some(way) = m.way.clone() else { return };
        if let Some(n) = self.networks.get_mut(&way.netns).filter(|n| !n.sockets.is_empty()) {
            n.instances.insert(instance);
            return;
        }
        // Before its first program runs another try is still to come.
        let last = m.container.pid != 0;
        let name = m.container.name.clone().unwrap_or_else(|| m.container.id.clone());
        match self.find(&way).and_then(|ns| self.open(&ns, way.netns)) {
            Ok(sockets) => {
                let network = self.networks.entry(way.netns).or_default();
                network.instances.insert(instance);
                network.sockets = sockets;
            }
            Err(WhyNot::Gone) if !last => {}
            Err(source) => {
                self.fail(format!("network {} of container {name}", way.netns), (way.netns, instance), source)
            }
        }
    }

    fn leave(&mut self, instance: u64) {
        let mut over = Vec::new();
        self.networks.retain(|_, n| {
            let was = n.instances.remove(&instance);
            let empty = was && n.instances.is_empty();
            if empty {
                over.append(&mut n.sockets);
            }
            !empty
        });
        if let Some((closer, _)) = &self.closer {
            // It runs as long as this sender lives.
            over.into_iter().for_each(|socket| drop(closer.send(socket)));
        }
    }

    fn fail(&mut self, what: String, (netns, instance): (u64, u64), source: WhyNot) {
        let unseen = self.unseen.entry(netns).or_default();
        if unseen.is_empty() {
            self.shared.unseen.fetch_add(1, Ordering::AcqRel);
        }
        // It is tried again with every news of the container; once is enough, whoever has taken the note meanwhile.
        if unseen.insert(instance) {
            let hint = source.hint().map(|h| format!("; {h}")).unwrap_or_default();
            self.shared.note(format!("{what}: {source}; its packets are not seen{hint}"));
        }
        self.failed.get_or_insert(NetworkError::Network { what, source });
    }

    /// The namespace itself, through whatever process is in it.
    fn find(&self, way: &Way) -> Result<File, WhyNot> {
        let proc = self.proc.as_ref().ok_or(WhyNot::NoProc)?;
        let of = |pid: u32| {
            let ns = File::open(proc.join(format!("{pid}/ns/net"))).ok()?;
            (ns.metadata().ok()?.ino() == way.netns).then_some(ns)
        };
        of(way.pid).or_else(|| children(proc, way.launcher).into_iter().find_map(of)).ok_or(WhyNot::Gone)
    }

    /// Opens a socket of each program in the namespace.
    fn open(&self, ns: &File, netns: u64) -> Result<Vec<OwnedFd>, WhyNot> {
        sys::enter_network(ns.as_fd()).map_err(WhyNot::Enter)?;
        let opened: Result<Vec<OwnedFd>, SocketError> = self.programs.iter().map(|p| p.open(netns as u32)).collect();
        sys::enter_network(self.home.as_fd()).map_err(WhyNot::Return)?;
        Ok(opened?)
    }
}

/// Processes that `pid` started; none where it is over, or the kernel does not tell (CONFIG_PROC_CHILDREN).
fn children(proc: &Path, pid: u32) -> Vec<u32> {
    if pid == 0 {
        return Vec::new();
    }
    all_listed(|| by_thread(proc, pid)).into_iter().take(MAX_CHILDREN).collect()
}

/// When a thread or a child ends, the kernel may leave out the one behind it, and the one that ended is gone in the next
/// look: two that are the same left out nothing.
fn all_listed(mut look: impl FnMut() -> BTreeMap<OsString, Vec<u32>>) -> BTreeSet<u32> {
    let (mut last, mut found) = (BTreeMap::new(), BTreeSet::new());
    for _ in 0..MAX_LOOKS {
        let now = look();
        found.extend(now.values().flatten().copied());
        if now == last {
            break;
        }
        last = now;
    }
    found
}

/// The children of each thread.
fn by_thread(proc: &Path, pid: u32) -> BTreeMap<OsString, Vec<u32>> {
    let Ok(threads) = fs::read_dir(proc.join(format!("{pid}/task"))) else { return BTreeMap::new() };
    let list = |thread: fs::DirEntry| {
        let text = fs::read_to_string(thread.path().join("children")).ok()?;
        Some((thread.file_name(), text.split_ascii_whitespace().filter_map(|n| n.parse().ok()).collect()))
    };
    threads.flatten().filter_map(list).collect()
}

/// Closes what comes until nobody can send any more.
fn close(sockets: &Receiver<OwnedFd>) {
    while let Ok(first) = sockets.recv() {
        let batch = std::iter::once(first).chain(sockets.try_iter()).collect();
        close_all(batch);
    }
}

/// Closes many sockets in the time of few.
fn close_all(sockets: Vec<OwnedFd>) {
    let share = sockets.len().div_ceil(CLOSERS).max(1);
    let mut rest = sockets;
    std::thread::scope(|scope| {
        while rest.len() > share {
            let part = rest.split_off(rest.len() - share);
            let closing = std::thread::Builder::new().name("ig-closing".to_owned()).spawn_scoped(scope, || drop(part));
            // Where no thread can be had the part is closed right here.
            drop(closing);
        }
        drop(rest);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_are_found_by_the_thread_that_started_them() {
        let mut child = std::process::Command::new("/bin/sleep").arg("600").spawn().unwrap();
        let found = children(Path::new("/proc"), std::process::id());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found.contains(&child.id()), "{} is not in {found:?}", child.id());
        assert!(children(Path::new("/proc"), 0).is_empty());
    }

    #[test]
    fn a_thread_that_ends_while_children_are_listed_hides_nobodys_child() {
        let of = |threads: &[(&str, &[u32])]| threads.iter().map(|(t, c)| ((*t).into(), c.to_vec())).collect();
        // 8 was left out behind 7, which ended; then 9 began
        let mut looks =
            vec![of(&[("6", &[60]), ("7", &[])]), of(&[("6", &[60]), ("8", &[80])]), of(&[("6", &[60]), ("8", &[80])])];
        looks.push(of(&[("9", &[90])]));
        let mut looks = looks.into_iter();
        assert_eq!(all_listed(|| looks.next().unwrap()), BTreeSet::from([60, 80]));
        assert_eq!(looks.len(), 1, "two were the same");
        // one whose threads never stand still
        let mut n = 0;
        let busy = all_listed(|| {
            n += 1;
            of(&[("6", &[n])])
        });
        assert_eq!(busy.len(), MAX_LOOKS as usize);
        // one that is over
        assert!(all_listed(BTreeMap::new).is_empty());
    }

    #[test]
    fn a_network_that_is_tried_again_is_told_and_counted_once() {
        let shared = Arc::new(Shared::default());
        let mut w = Worker::new(Vec::new(), shared.clone(), None, Arc::new(Selector::all()), false).unwrap();
        let mut told = |instance, name: &str| {
            w.fail(format!("network 5 of container {name}"), (5, instance), WhyNot::NoProc);
            std::mem::take(&mut *shared.notes.lock().unwrap()).len()
        };
        assert_eq!((told(1, "a"), told(1, "a"), told(1, "its name by now"), told(2, "b")), (1, 0, 0, 1));
        assert_eq!(shared.unseen.load(Ordering::Acquire), 1);
    }

    #[test]
    fn all_descriptors_are_closed_whatever_their_number() {
        for n in [0, 1, 31, 32, 33, 100] {
            let (reader, writer) = io::pipe().unwrap();
            let all: Vec<OwnedFd> = (0..n).map(|_| writer.try_clone().unwrap().into()).collect();
            drop(writer);
            close_all(all);
            assert_eq!(io::read_to_string(reader).unwrap(), "", "the last writer is gone");
        }
    }
}
