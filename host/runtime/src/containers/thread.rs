//! The containers' thread: drains the tracker, hears the runtimes, publishes the table, corrects the filters.
//!
//! A current-thread tokio runtime. Sleeps until something happens: no polling while nothing starts or stops.

use super::{
    ContainersError, ContainersOptions, ContainersStatus, Published, Shared,
    admission::Admission,
    cgroups,
    changes::{Listener, Message},
    clients::{ClientError, Clients, News, Roster, Source},
    follow::Follower,
    registry::Moment,
    snapshot,
    tracker::Tracker,
};
use crate::{
    bpf::{KernelBtf, ring::Rest},
    clocks::{boot_time, boot_to_wall},
    host_root,
};
use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::mpsc,
};

/// A birth is written to the ring this much after its time was taken, at most, in nanoseconds.
const WRITE_SLACK: u64 = 2_000_000;
const QUEUE: usize = 1024;
/// How often /proc is looked at where there is no tracker.
const LOOK: Duration = Duration::from_secs(1);

pub(super) fn start(
    options: ContainersOptions,
    kernel: Option<&KernelBtf>,
) -> Result<(Arc<Shared>, JoinHandle<()>), ContainersError> {
    let roster = Roster::of(&options)?;
    let (tracker, admission) = kernel.map(Tracker::load).transpose()?.unzip();
    let (go, waiting) = std::sync::mpsc::channel::<Arc<Shared>>();
    let (done, is_done) = std::sync::mpsc::channel::<Result<(), ContainersError>>();
    let host_root = options.host_root.clone();
    let node = options.node_name.clone().unwrap_or_else(|| snapshot::node_name(&host_root));
    // Starting a thread is a fork: it makes the tracker learn the host's mount namespace.
    let thread = std::thread::Builder::new()
        .name("ig-containers".to_owned())
        .spawn(move || {
            let Ok(shared) = waiting.recv() else { return };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build();
            let ready = runtime.and_then(|runtime| {
                let readiness = tracker.as_ref().map(Tracker::readiness).transpose()?;
                let fd = runtime.block_on(async { readiness.map(register).transpose() })?;
                Ok((runtime, fd))
            });
            let (runtime, fd) = match ready {
                Ok(ready) => ready,
                Err(source) => return drop(done.send(Err(ContainersError::Thread { source }))),
            };
            if let Some(proc) = host_root::proc(&host_root) {
                cgroups::enter_hosts_namespace(&proc);
            }
            let mut worker = Worker::new(host_root, shared, tracker);
            worker.follower.expect(&roster.present, &roster.pods, &node);
            worker.look_around();
            drop(done.send(Ok(())));
            runtime.block_on(worker.run(fd, roster));
        })
        .map_err(|source| ContainersError::Thread { source })?;
    let shared = Arc::new(share(admission, &options.host_root)?);
    // Either side going away shows in the other channel.
    drop(go.send(shared.clone()));
    match is_done.recv() {
        Ok(Ok(())) => Ok((shared, thread)),
        Ok(Err(e)) => Err(e),
        Err(closed) => Err(ContainersError::Thread { source: std::io::Error::other(closed) }),
    }
}

#[expect(deprecated, reason = "the replacement is unsafe for types that may close their descriptor; this one keeps it")]
fn register(fd: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, Interest::READABLE)
}

/// Ready when the tracker has written something; never without a tracker.
async fn written(ring: Option<&AsyncFd<OwnedFd>>) {
    match ring {
        None => std::future::pending().await,
        Some(ring) => match ring.readable().await {
            Ok(mut guard) => guard.clear_ready(),
            // Cannot happen for a live descriptor; the pause keeps a broken one from taking the processor.
            Err(_gone) => tokio::time::sleep(Duration::from_millis(10)).await,
        },
    }
}

fn share(mut admission: Option<Admission>, host_root: &Path) -> Result<Shared, ContainersError> {
    let mut host_mntns = admission.as_ref().map_or(0, Admission::host_mntns);
    if host_mntns == 0 {
        // The first process could not be reached through its children; /proc may know.
        let proc = host_root::proc(host_root);
        // In a container this process's own is not the host's; the kernel's threads are in the host's.
        let own = (host_root == Path::new("/")).then_some("self");
        let namespace = |pid| snapshot::namespace(&proc.as_ref()?.join(pid).join("ns/mnt"));
        host_mntns = ["1", "2"].into_iter().chain(own).find_map(namespace).unwrap_or_default();
        if let Some(admission) = &mut admission {
            admission.set_host_mntns(host_mntns)?;
        }
    }
    Ok(Shared {
        published: Arc::new(Published::new(host_mntns, snapshot::host_netns(host_root::proc(host_root).as_deref()))),
        admission: Mutex::new(admission),
        status: Mutex::new(ContainersStatus::default()),
        new_listeners: Mutex::default(),
        asking: Arc::default(),
        stop: AtomicBool::new(false),
    })
}

struct Worker {
    shared: Arc<Shared>,
    /// `None`: this kernel, or this user's rights, do not allow it.
    tracker: Option<Tracker>,
    listeners: Vec<Listener>,
    follower: Follower,
    /// Lost events that a look around has made up for.
    made_up_for: u64,
    apis: Vec<Api>,
}

/// How it stands with one client.
struct Api {
    source: Source,
    connected: bool,
    failed: Option<ClientError>,
    /// How often it came back.
    gaps: Option<u64>,
}

impl Worker {
    fn new(host_root: PathBuf, shared: Arc<Shared>, tracker: Option<Tracker>) -> Self {
        if let Some(tracker) = &tracker {
            let mut status = shared.status();
            status.attached.clone_from(&tracker.attached);
            status.missing.clone_from(&tracker.missing);
        }
        let follower = Follower::new(host_root, shared.published.host_mntns, boot_to_wall());
        shared.status().without_proc = follower.hosts_proc().is_none();
        Worker { shared, tracker, listeners: Vec::new(), follower, made_up_for: 0, apis: Vec::new() }
    }

    async fn run(mut self, ring: Option<AsyncFd<OwnedFd>>, roster: Roster) {
        let (news, mut hear) = mpsc::channel(QUEUE);
        let ask = roster.start(&news, &self.shared.asking);
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // `news` lives to the end of this function, so that the channel stays open without any client.
        while !self.shared.stop.load(Ordering::Acquire) {
            let pause = self.follower.next_tick().map(|t| Duration::from_nanos(t.saturating_sub(boot_time())));
            tokio::select! {
                () = written(ring.as_ref()) => {}
                _ = look.tick(), if ring.is_none() => self.look_around(),
                () = self.shared.published.kick.notified() => {}
                Some(n) = hear.recv() => self.hear(n),
                () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {}
            }
            while let Ok(n) = hear.try_recv() {
                self.hear(n);
            }
            while self.drain() {
                self.carry_out(&ask);
            }
            self.follower.tick(boot_time());
            self.carry_out(&ask);
            self.check_loss();
            self.tell();
        }
    }

    /// Tells whoever listens what happened since.
    fn tell(&mut self) {
        let new = std::mem::take(&mut *self.shared.new_listeners());
        let moments = self.follower.registry.take_moments();
        if self.listeners.is_empty() && new.is_empty() {
            return;
        }
        let to_wall = boot_to_wall();
        for moment in moments {
            let moment = match moment {
                Moment::Ended(c, boot) => Moment::Ended(c, boot.wrapping_add_signed(to_wall)),
                known => known,
            };
            self.listeners.iter_mut().for_each(|l| l.send(Message::Moment(moment.clone())));
        }
        for mut listener in new {
            listener.send(Message::Running(self.follower.registry.all_running()));
            self.listeners.push(listener);
        }
        self.listeners.retain(|l| !l.is_gone());
        self.follower.registry.listen(!self.listeners.is_empty());
    }

    fn hear(&mut self, news: News) {
        match &news {
            News::Connected { source, .. } => self.stands(*source, None),
            News::Lost(source, error) => self.stands(*source, Some(error.clone())),
            News::FirstAnswer => drop(self.shared.asking.fetch_sub(1, Ordering::AcqRel)),
            _ => {}
        }
        self.follower.news(news, boot_time());
    }

    /// Notes that a client is connected, or with which error it is not.
    fn stands(&mut self, source: Source, failed: Option<ClientError>) {
        let known = self.apis.iter().position(|a| a.source == source);
        let i = known.unwrap_or_else(|| {
            self.apis.push(Api { source, connected: false, failed: None, gaps: None });
            self.apis.len() - 1
        });
        let api = &mut self.apis[i];
        if failed.is_none() && !api.connected {
            // The first time is none.
            api.gaps = Some(api.gaps.map_or(0, |n| n + 1));
        }
        api.connected = failed.is_none();
        // The first failure is the cause; what else fails while it lasts only follows from it, and is no news.
        api.failed = failed.map(|f| api.failed.take().unwrap_or(f));
        let mut status = self.shared.status();
        status.connected.clear();
        status.failed.clear();
        for Api { source: Source { runtime, .. }, connected, failed, gaps } in &self.apis {
            if *connected && !status.connected.contains(runtime) {
                status.connected.push(*runtime);
            }
            // Two clients of one socket that is gone say the same, and have the same gaps.
            let said = failed.as_ref().is_some_and(|e| status.failed.contains(e));
            status.failed.extend(failed.clone().filter(|_| !said));
            if let Some(n) = gaps.filter(|n| *n > 0) {
                let all = status.gaps.entry(*runtime).or_default();
                *all = n.max(*all);
            }
        }
    }

    /// Reads what the kernel wrote; true where there is more than is read at once.
    fn drain(&mut self) -> bool {
        let began = boot_time();
        self.follower.set_boot_to_wall(boot_to_wall());
        let (follower, mut malformed) = (&mut self.follower, 0);
        let rest = self.tracker.as_mut().map_or(Rest::Nothing, |tracker| {
            tracker.drain(|event| match event {
                Some(event) => follower.event(event, began),
                None => malformed += 1,
            })
        });
        if malformed > 0 {
            self.shared.status().malformed += malformed;
        }
        self.publish();
        // Behind a record that is still being written others may wait: on a busy machine, and where the kernel can preempt
        // programs (Linux 7.0), for long. What is in them is not known yet.
        if rest == Rest::Nothing {
            self.shared.published.advance(began.saturating_sub(WRITE_SLACK));
        }
        rest == Rest::More
    }

    fn publish(&mut self) {
        if self.follower.registry.take_changed() {
            self.shared.published.publish(self.follower.registry.table().clone());
            self.shared.status().containers = self.follower.registry.len();
        }
    }

    /// Publishes, corrects the filters, asks the runtimes.
    fn carry_out(&mut self, ask: &Clients) {
        self.publish();
        self.filters();
        for (runtime, question) in std::mem::take(&mut self.follower.todo.ask) {
            ask.ask(runtime, &question);
        }
    }

    fn filters(&mut self) {
        let todo = &mut self.follower.todo;
        let lists = [todo.decide.len(), todo.retire.len(), todo.watch_init.len(), todo.watch_runtime.len()];
        if lists == [0; 4] {
            return;
        }
        let mut admission = self.shared.admission();
        let (Some(tracker), Some(admission)) = (&mut self.tracker, admission.as_mut()) else {
            for list in [&mut todo.watch_init, &mut todo.watch_runtime] {
                list.clear();
            }
            todo.decide.clear();
            return todo.retire.clear();
        };
        todo.watch_init.drain(..).for_each(|pid| tracker.watch_init(pid));
        todo.watch_runtime.drain(..).for_each(|pid| tracker.watch_runtime(pid));
        for (mntns, birth) in todo.decide.drain(..) {
            let table = self.follower.registry.table();
            // Of a generation that is over nothing is to be decided.
            if let Some(g) = table.now(mntns).filter(|g| g.birth == birth) {
                admission.decide(mntns, birth, &g.owner);
            }
        }
        todo.retire.drain(..).for_each(|(mntns, birth)| admission.retire(mntns, birth));
    }

    /// Takes in what runs already.
    fn look_around(&mut self) {
        let began = boot_time();
        // Without it, what runs already is found at its next exec.
        let proc = self.follower.hosts_proc();
        let all = proc.map(|proc| snapshot::walk(proc, self.shared.published.host_mntns)).unwrap_or_default();
        self.follower.walked(&all, boot_time());
        if self.tracker.is_none() {
            let pids = all.iter().map(|p| p.pid).collect();
            self.follower.registry.end_all_but(&pids, boot_time());
        }
        while self.drain() {}
        self.publish();
        self.filters();
        self.shared.published.advance(began);
    }

    /// After lost events: births may be among them, so what runs is looked at again.
    fn check_loss(&mut self) {
        let Some(tracker) = &self.tracker else { return };
        let loss = tracker.loss();
        if loss.unseen() > self.made_up_for {
            self.made_up_for = loss.unseen();
            self.shared.published.missed.store(true, Ordering::Relaxed);
            self.look_around();
        } else if loss.births_full > 0 {
            // Of these namespaces no first program is ever reported.
            self.shared.published.missed.store(true, Ordering::Relaxed);
        }
        self.shared.status().loss = loss;
    }
}
