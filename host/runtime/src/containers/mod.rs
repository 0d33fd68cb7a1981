//! Containers: tracked in the kernel from the birth of their mount namespace, named by their runtime.
//!
//! `Containers::start` loads the tracker and starts the containers' thread, which owns the registry and the runtimes'
//! clients (a current-thread tokio runtime). Event threads only read the published table: no lock, no system call.
//! Nothing here prints; what people should know is in `Containers::notes` and `Containers::status`.

mod admission;
mod cgroups;
mod changes;
mod clients;
mod container;
mod filter;
mod follow;
mod identify;
pub mod listing;
mod namespaces;
mod networks;
mod registry;
mod remembered;
mod snapshot;
mod thread;
mod tracker;

pub(crate) use cgroups::Cgroups;
pub use changes::{Change, Changes};
pub use clients::ClientError;
pub(crate) use clients::default_sockets;
pub(crate) use container::MEMBERS;
pub use container::{Container, ImageAnswer, Pod, RuntimeName, UnknownRuntime};
pub use filter::{Attribute, Selector, SelectorError, Verdict};
pub(crate) use namespaces::{ClosedNetwork, NetworkSurvey, hosts_network, network_namespaces};
pub(crate) use networks::{NetworkFeed, NetworkNews, NetworkOwner, Waker, Way};
pub use tracker::TrackerLoss;

use crate::bpf::{KernelBtf, LoadError};
use admission::Admission;
use arc_swap::ArcSwap;
use aya::maps::MapError;
use changes::Listener;
use registry::{Owner, Table};
use std::{
    collections::BTreeMap,
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};
use tokio::sync::Notify;

/// How long the thread may take to say what runs; it is busy for milliseconds at most.
const LISTING: Duration = Duration::from_secs(1);

/// How to find containers.
#[derive(Clone, Debug)]
pub struct ContainersOptions {
    /// Where the observed host's root file system is: `/`, or `/host` in a container.
    pub host_root: PathBuf,
    /// Sockets that the user named, as paths on the observed host: each must exist. Of the other runtimes the default
    /// ones are used if and when they exist.
    pub sockets: BTreeMap<RuntimeName, PathBuf>,
    /// Runtimes whose API may be asked. Containers of the others are seen all the same, by what the kernel and their
    /// bundles tell.
    pub runtimes: Vec<RuntimeName>,
    /// containerd's namespaces to list and watch; empty: all.
    pub containerd_namespaces: Vec<String>,
    /// How containerd is asked. CRI-O is always asked by CRI.
    pub protocol: RuntimeProtocol,
    /// Name of this machine among Kubernetes' nodes; `None`: its host name.
    pub node_name: Option<String>,
}

/// `--runtime-protocol`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RuntimeProtocol {
    /// Each runtime's own API.
    #[default]
    Internal,
    /// The Kubernetes container runtime interface, which knows pods and their labels and nothing outside Kubernetes.
    Cri,
}

impl Default for ContainersOptions {
    fn default() -> Self {
        ContainersOptions {
            host_root: "/".into(),
            sockets: BTreeMap::new(),
            runtimes: RuntimeName::ALL.to_vec(),
            containerd_namespaces: Vec::new(),
            protocol: RuntimeProtocol::default(),
            node_name: None,
        }
    }
}

impl ContainersOptions {
    /// Of `runtimes`, those that have an API and no socket to be asked at, with the places that were looked at.
    pub fn absent(&self) -> Vec<(RuntimeName, Vec<PathBuf>)> {
        let with_api = self.runtimes.iter().map(|r| (*r, default_sockets(*r))).filter(|(_, paths)| !paths.is_empty());
        let places = with_api.map(|(runtime, paths)| match self.sockets.get(&runtime) {
            Some(path) => (runtime, vec![identify::on_host(&self.host_root, path)]),
            None => (runtime, paths.iter().map(|p| identify::on_host(&self.host_root, Path::new(p))).collect()),
        });
        places.filter(|(_, paths)| !paths.iter().any(|p| p.exists())).collect()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ContainersError {
    #[error("{source}")]
    Object { source: crate::bpf::object::ObjectError },
    #[error("{source}")]
    Load { source: Box<LoadError> },
    #[error("container tracker: cannot attach to {hook}: {reason}")]
    Hook { hook: String, reason: String },
    #[error("container tracker: cannot use its maps: {source}")]
    Ring { source: std::io::Error },
    #[error("container tracker: map {map}: {source}")]
    Map { map: &'static str, source: MapError },
    #[error("container tracker: map {map} is not in the object file")]
    MissingMap { map: &'static str },
    #[error("cannot start the thread that follows containers: {source}")]
    Thread { source: std::io::Error },
    #[error("{runtime}: no socket at {}", path.display())]
    NoSocket { runtime: RuntimeName, path: PathBuf },
    #[error("{source}")]
    Client { source: ClientError },
    #[error("the gadget's container filter map cannot be used: {source}")]
    Filter { source: MapError },
    #[error("the gadget's container filter map cannot be shared: {source}")]
    FilterFd { source: std::io::Error },
    #[error("more than {limit} gadgets filter by container at the same time")]
    TooManyFilters { limit: usize },
    #[error("gadgets cannot filter by container without the container tracker")]
    NoTracker,
}

impl ContainersError {
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            ContainersError::Load { source } => return source.hint(),
            ContainersError::Hook { .. } => "needs root, or CAP_BPF and CAP_PERFMON",
            ContainersError::NoSocket { runtime, .. } => {
                return Some(format!("is {runtime} running? without a socket of your own choice, none is required"));
            }
            ContainersError::Filter { .. } => {
                "`gadget_mntns_filter_map` must be a hash map with 8-byte keys and 4-byte values"
            }
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

/// Whose an event is.
#[derive(Clone, Debug, PartialEq)]
pub enum Resolution {
    Known(Arc<Container>),
    Host,
    /// Not decided yet; it will be within two seconds.
    Pending,
    /// A mount namespace of which the tracker knows nothing, and will not.
    Unknown,
}

/// What the tracker did and could not do; counts since the start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainersStatus {
    /// Kernel hooks that are attached.
    pub attached: Vec<String>,
    /// Hooks this kernel lacks, with the reason.
    pub missing: Vec<(String, String)>,
    pub loss: TrackerLoss,
    /// Records of the tracker that could not be read.
    pub malformed: u64,
    /// Keys a gadget's filter map had no room for, beside those in `loss.filter_full`.
    pub filter_refused: u64,
    /// Running containers.
    pub containers: usize,
    /// No mount of proc numbers processes as the host does: what needs one by its number is not looked up.
    pub without_proc: bool,
    /// Runtimes whose API answers.
    pub connected: Vec<RuntimeName>,
    /// The first failure of each runtime's API since it answered.
    pub failed: Vec<ClientError>,
    /// Connections to runtimes of which nothing was heard yet.
    pub asking: usize,
    /// How often each runtime's API went away and came back.
    pub gaps: BTreeMap<RuntimeName, u64>,
}

/// What the containers' thread tells the event threads.
pub(crate) struct Published {
    table: ArcSwap<Table>,
    /// Grows with every published table.
    version: AtomicU64,
    /// Everything the kernel reported until this boot time is in the table.
    watermark: AtomicU64,
    host_mntns: u64,
    /// 0: not known.
    host_netns: u64,
    /// The kernel had no room for some event.
    missed: AtomicBool,
    /// Wakes the thread: somebody waits for the watermark, or it is to stop.
    kick: Notify,
}

impl Published {
    fn new(host_mntns: u64, host_netns: u64) -> Self {
        Published {
            table: ArcSwap::from_pointee(Table::default()),
            version: AtomicU64::new(0),
            watermark: AtomicU64::new(0),
            host_mntns,
            host_netns,
            missed: AtomicBool::new(false),
            kick: Notify::new(),
        }
    }

    fn publish(&self, table: Table) {
        self.table.store(Arc::new(table));
        self.version.fetch_add(1, Ordering::AcqRel);
    }

    /// Everything until `time` (boot-clock nanoseconds) is in the table.
    fn advance(&self, time: u64) {
        self.watermark.fetch_max(time, Ordering::AcqRel);
    }
}

/// What the containers' thread shares with everybody.
struct Shared {
    published: Arc<Published>,
    /// `None` without the tracker.
    admission: Mutex<Option<Admission>>,
    status: Mutex<ContainersStatus>,
    /// Who wants to hear of changes; the thread takes them over.
    new_listeners: Mutex<Vec<Listener>>,
    /// Clients that have not given their first answer.
    asking: Arc<AtomicUsize>,
    stop: AtomicBool,
}

impl Shared {
    fn admission(&self) -> MutexGuard<'_, Option<Admission>> {
        self.admission.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn new_listeners(&self) -> MutexGuard<'_, Vec<Listener>> {
        self.new_listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn status(&self) -> MutexGuard<'_, ContainersStatus> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Running {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.shared.published.kick.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic over there was already reported by the panic hook.
            drop(thread.join());
        }
    }
}

/// The running tracker. Clones share it; it ends with the last of them and the last filter.
#[derive(Clone)]
pub struct Containers {
    running: Arc<Running>,
}

impl Containers {
    /// Attaches the tracker, then looks at what already runs; when this returns, nothing is missed any more. The
    /// runtimes' APIs are asked in the background.
    pub fn start(options: ContainersOptions) -> Result<Containers, ContainersError> {
        Containers::start_with(options, &KernelBtf::new())
    }

    /// As `start`, for a caller who needs the kernel's types too: they are read once.
    pub fn start_with(options: ContainersOptions, kernel: &KernelBtf) -> Result<Containers, ContainersError> {
        let (shared, thread) = thread::start(options, Some(kernel))?;
        Ok(Containers { running: Arc::new(Running { shared, thread: Some(thread) }) })
    }

    /// Without BPF: containers are found by a look at /proc each second, by their runtimes' files, and by what the
    /// runtimes' APIs say. What lives for less than that is not seen, and gadgets cannot filter by container.
    pub fn start_without_tracker(options: ContainersOptions) -> Result<Containers, ContainersError> {
        let (shared, thread) = thread::start(options, None)?;
        Ok(Containers { running: Arc::new(Running { shared, thread: Some(thread) }) })
    }

    /// Containers that run, and from then on every one that starts or ends, as far as `selector` does not rule it out.
    pub fn changes(&self, selector: Arc<Selector>) -> Changes {
        self.listen(selector, false)
    }

    /// As `changes`, for who has to be there early: a container is told when its first program runs, without its name
    /// where that is not known yet, and also where the selection may still leave it out.
    pub fn changes_at_once(&self, selector: Arc<Selector>) -> Changes {
        self.listen(selector, true)
    }

    fn listen(&self, selector: Arc<Selector>, at_once: bool) -> Changes {
        let (listener, changes) = changes::channel(selector, at_once);
        self.shared().new_listeners().push(listener);
        self.published().kick.notify_one();
        changes
    }

    /// Waits until the runtimes that are there have listed their containers and what a selection can depend on is known,
    /// and no longer than `deadline`. Gives the containers that run then, in no order.
    pub fn settled(&self, deadline: Duration) -> Vec<Arc<Container>> {
        let end = Instant::now() + deadline;
        loop {
            let asked_all = self.shared().asking.load(Ordering::Acquire) == 0;
            let mut present = self.changes(Arc::new(Selector::all()));
            let running = present.running(end.saturating_duration_since(Instant::now()).max(LISTING));
            if Instant::now() >= end || asked_all && !running.iter().any(|c| c.is_settling()) {
                return running;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn shared(&self) -> &Shared {
        &self.running.shared
    }

    fn published(&self) -> &Published {
        &self.shared().published
    }

    /// Hands a gadget's filter map (`u64` mount namespace to `u32`) to the tracker, which from now on holds in it the
    /// containers that `selector` does not rule out. To be called after the gadget is loaded and before it is attached.
    pub fn add_filter(&self, map: BorrowedFd<'_>, selector: Arc<Selector>) -> Result<FilterHandle, ContainersError> {
        let mut admission = self.shared().admission();
        let admission = admission.as_mut().ok_or(ContainersError::NoTracker)?;
        let index = admission.add(map, selector, &self.published().table.load())?;
        Ok(FilterHandle { running: self.running.clone(), index })
    }

    /// Whose an event is that happened in `mntns` at `boot_time` (boot-clock nanoseconds).
    pub fn resolve(&self, mntns: u64, boot_time: u64) -> Resolution {
        let published = self.published();
        if mntns == published.host_mntns {
            return Resolution::Host;
        }
        // The watermark first: a table read after it holds all that the watermark promises.
        let watermark = published.watermark.load(Ordering::Acquire);
        resolve(&published.table.load(), watermark, mntns, boot_time)
    }

    /// Running containers and those that ended within the last seconds, in no order.
    pub fn list(&self) -> Vec<Arc<Container>> {
        let table = self.published().table.load();
        let mut all: Vec<Arc<Container>> = table.present().filter_map(|(_, g)| owner_container(&g.owner)).collect();
        all.sort_by_key(|c| c.instance);
        all.dedup_by_key(|c| c.instance);
        all
    }

    /// Containers that share this network namespace, in no order.
    pub fn in_netns(&self, netns: u64) -> Vec<Arc<Container>> {
        self.list().into_iter().filter(|c| c.netns == netns).collect()
    }

    pub fn host_mntns(&self) -> u64 {
        self.published().host_mntns
    }

    pub fn status(&self) -> ContainersStatus {
        let mut status = self.shared().status().clone();
        status.filter_refused = self.shared().admission().as_ref().map_or(0, Admission::refused);
        status.asking = self.shared().asking.load(Ordering::Acquire);
        status
    }

    /// Namespaces that a gadget may not have seen, because its filter had no room for them.
    pub(crate) fn blind_spots(&self) -> u64 {
        let status = self.status();
        status.loss.filter_full + status.filter_refused
    }

    /// What a user should be told about the tracking, one line each; empty when all is well.
    pub fn notes(&self) -> Vec<String> {
        notes(&self.status())
    }

    /// Reads tables for many rows in a row.
    pub(crate) fn reader(&self) -> TableReader {
        TableReader::new(self.shared().published.clone())
    }
}

fn owner_container(owner: &Owner) -> Option<Arc<Container>> {
    match owner {
        Owner::Container(c) => Some(c.clone()),
        Owner::Host => None,
    }
}

fn resolve(table: &Table, watermark: u64, mntns: u64, boot_time: u64) -> Resolution {
    match table.at(mntns, boot_time).map(|g| &g.owner) {
        Some(Owner::Host) => Resolution::Host,
        // Before its first program runs, a container's pid is not known; a row from after that deserves it.
        Some(Owner::Container(c)) if c.complete && (c.pid != 0 || boot_time <= watermark) => {
            Resolution::Known(c.clone())
        }
        Some(Owner::Container(_)) => Resolution::Pending,
        None if boot_time > watermark => Resolution::Pending,
        None => Resolution::Unknown,
    }
}

/// A thread's own copy of the published table: one atomic load a batch while nothing changes.
pub(crate) struct TableReader {
    published: Arc<Published>,
    version: u64,
    watermark: u64,
    table: Arc<Table>,
}

impl TableReader {
    pub(crate) fn new(published: Arc<Published>) -> Self {
        TableReader { published, version: 0, watermark: 0, table: Arc::default() }
    }

    /// Takes over what was published since; true where that is another table.
    pub(crate) fn refresh(&mut self) -> bool {
        self.watermark = self.published.watermark.load(Ordering::Acquire);
        let version = self.published.version.load(Ordering::Acquire);
        if version == self.version {
            return false;
        }
        self.version = version;
        self.table = self.published.table.load_full();
        true
    }

    pub(crate) fn resolve(&self, mntns: u64, boot_time: u64) -> Resolution {
        if mntns == self.published.host_mntns {
            return Resolution::Host;
        }
        resolve(&self.table, self.watermark, mntns, boot_time)
    }

    /// Whether an event of that time may be the next container's, the news of whose birth is on its way: the kernel gives the
    /// number away at once when a container has ended.
    pub(crate) fn may_be_the_next_ones(&self, mntns: u64, boot_time: u64) -> bool {
        let ended = self.table.at(mntns, boot_time).and_then(|g| g.ended);
        boot_time > self.watermark && ended.is_some_and(|end| boot_time > end)
    }

    /// Birth of the present generation, unless it is over: what is decided for it holds for every later event until the table
    /// changes.
    pub(crate) fn present_birth(&self, mntns: u64) -> Option<u64> {
        self.table.now(mntns).filter(|g| g.ended.is_none()).map(|g| g.birth)
    }

    /// Boot-clock nanoseconds now.
    pub(crate) fn now(&self) -> u64 {
        crate::clocks::boot_time()
    }

    /// The container of this namespace at that time, however little is known of it.
    pub(crate) fn owner(&self, mntns: u64, boot_time: u64) -> Option<Arc<Container>> {
        owner_container(&self.table.at(mntns, boot_time)?.owner)
    }

    /// True once the kernel had no room for some event of the tracker.
    pub(crate) fn may_have_missed(&self) -> bool {
        self.published.missed.load(Ordering::Relaxed)
    }

    /// Asks the tracker to catch up now; it moves the watermark within a millisecond or so.
    pub(crate) fn catch_up(&self) {
        self.published.kick.notify_one();
    }
}

fn notes(status: &ContainersStatus) -> Vec<String> {
    let mut notes = Vec::new();
    let loss = &status.loss;
    let mut count = |n: u64, what: &str| {
        if n > 0 {
            notes.push(format!("container tracker: {n} {what}"));
        }
    };
    count(loss.events, "kernel events were lost; running containers were looked up again");
    count(
        loss.missed_runs,
        "runs of its programs were left out by the kernel; running containers were looked up again",
    );
    count(
        loss.filter_full + status.filter_refused,
        "namespaces found a gadget's container filter full: their events are missing",
    );
    count(loss.births_full, "namespaces had no room in the tracker's own maps");
    count(loss.args_unreadable, "command lines of container runtimes could not be read");
    count(status.malformed, "tracker records were not of the expected shape");
    for (hook, reason) in &status.missing {
        let effect = match hook.contains("execve") {
            true => "what runtimes do to set up a container is shown as the container's",
            false => "some containers are found at their first exec",
        };
        notes.push(format!("container tracker: hook {hook} is missing ({reason}); {effect}"));
    }
    if status.without_proc {
        notes.push(
            "container tracker: /proc belongs to another pid namespace, so containers that ran before are found at their \
             next program start; share the host's (--pid=host, hostPID) or mount its root (-v /:/host, HOST_ROOT=/host)"
                .to_owned(),
        );
    }
    for (runtime, times) in &status.gaps {
        let times = if *times == 1 { "once".to_owned() } else { format!("{times} times") };
        notes.push(format!("{runtime}: its API was away {times}; what runs was listed again when it came back"));
    }
    notes.extend(status.failed.iter().map(ToString::to_string));
    notes
}

/// Keeps a gadget's filter map filled; dropping it stops that. The keys that are in the map stay.
pub struct FilterHandle {
    running: Arc<Running>,
    index: usize,
}

impl Drop for FilterHandle {
    fn drop(&mut self) {
        if let Some(admission) = self.running.shared.admission().as_mut() {
            admission.remove(self.index);
        }
    }
}

/// Reads `bytes` as each of the things that runtimes leave behind.
#[cfg(fuzzing)]
pub(crate) fn fuzz(bytes: &[u8]) {
    tracker::Event::parse(bytes);
    for cut in [false, true] {
        identify::invocation(bytes, cut);
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let (unified, pids) = identify::cgroup_paths(text);
        for path in unified.into_iter().chain(pids).chain([text]) {
            if let Some(found) = identify::from_cgroup(path) {
                assert!(identify::cgroup_is_of(path, &found.id), "{path} names {} and is not of it", found.id);
            }
        }
    }
    if let Ok(config) = serde_json::from_slice::<identify::BundleConfig>(bytes) {
        config.engine();
        config.container_name();
        config.image_name();
        config.pod();
        config.docker_dir("0123456789ab");
    }
    if let Ok(config) = serde_json::from_slice::<identify::DockerConfig>(bytes) {
        config.name();
        config.image_name();
        config.image_id();
    }
}

#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_name_every_loss_and_nothing_else() {
        assert!(notes(&ContainersStatus::default()).is_empty());
        let status = ContainersStatus {
            loss: TrackerLoss { events: 3, filter_full: 1, missed_runs: 5, ..TrackerLoss::default() },
            filter_refused: 2,
            missing: vec![("tracepoint/syscalls/sys_exit_unshare".into(), "no tracefs".into())],
            ..ContainersStatus::default()
        };
        insta::assert_snapshot!(notes(&status).join("\n"));
    }

    #[test]
    fn a_row_waits_only_for_what_may_still_come() {
        let mut r = registry::Registry::default();
        let mut c = Container::new(r.next_instance(), "a".into(), RuntimeName::Docker, 7);
        c.complete = false;
        r.birth(7, 100, Owner::Container(c.seal()));
        r.birth(8, 100, Owner::Host);
        let at = |r: &registry::Registry, ns, time| match resolve(r.table(), 200, ns, time) {
            Resolution::Known(c) => c.id.to_string(),
            other => format!("{other:?}"),
        };
        assert_eq!(at(&r, 7, 150), "Pending", "its name may still come");
        r.update(1, |c| c.complete = true);
        assert_eq!(at(&r, 7, 150), "a", "before its first program a container has no pid");
        assert_eq!(at(&r, 7, 250), "Pending", "its first program may have run, unseen so far");
        r.update(1, |c| c.pid = 42);
        assert_eq!(at(&r, 7, 250), "a");
        assert_eq!(at(&r, 8, 150), "Host");
        assert_eq!(at(&r, 9, 150), "Unknown", "all births until then were seen");
        assert_eq!(at(&r, 9, 250), "Pending", "a birth may be on its way");
    }
}
