//! Containers as they come and go, for whoever shows them: each told once, when it can be told well, and once when it ends.
//!
//! The containers' thread sends (`Listener`) and never waits: a reader that is too slow misses moments and is told how many.
//! The reader's side (`Changes`) lives on any one thread and decides when a container is ripe to be shown.

use super::{
    container::Container,
    filter::{Selector, Verdict},
    registry::Moment,
};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    time::{Duration, Instant},
};

/// Moments on their way to one reader.
const QUEUE: usize = 16_384;
/// How long a container is held back for what is still to be learnt of it.
const RIPE: Duration = Duration::from_millis(2500);

/// What a reader is told.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It runs: started just now, or found when listening began.
    Created(Arc<Container>),
    Removed {
        container: Arc<Container>,
        /// Wall-clock nanoseconds.
        at: u64,
    },
    /// Whether it is one of those asked for could not be learnt. Nothing more is told of it, unless that comes later.
    Undecided(Arc<Container>),
    /// So many changes came faster than they were read.
    Missed(u64),
}

pub(super) enum Message {
    Moment(Moment),
    /// All that runs when listening begins, always the first: in one, because the queue has room for few.
    Running(Vec<Arc<Container>>),
    /// Nothing but an end to waiting.
    Wake,
}

/// The sending side.
pub(super) struct Listener {
    sender: SyncSender<Message>,
    missed: Arc<AtomicU64>,
    gone: bool,
}

impl Listener {
    pub(super) fn send(&mut self, message: Message) {
        match self.sender.try_send(message) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => drop(self.missed.fetch_add(1, Ordering::AcqRel)),
            Err(TrySendError::Disconnected(_)) => self.gone = true,
        }
    }

    pub(super) fn sender(&self) -> SyncSender<Message> {
        self.sender.clone()
    }

    pub(super) fn is_gone(&self) -> bool {
        self.gone
    }
}

/// Moments as they are, and how many found no room.
pub(super) fn queue() -> (Listener, Receiver<Message>, Arc<AtomicU64>) {
    let (sender, receiver) = sync_channel(QUEUE);
    let missed = Arc::new(AtomicU64::new(0));
    (Listener { sender, missed: missed.clone(), gone: false }, receiver, missed)
}

/// `at_once`: tell of containers as soon as they run, though their names, and whether they were asked for, come later.
pub(super) fn channel(selector: Arc<Selector>, at_once: bool) -> (Listener, Changes) {
    let (listener, receiver, missed) = queue();
    let (present, waiting, ready) = (BTreeMap::new(), VecDeque::new(), VecDeque::new());
    let changes = Changes { receiver, missed, told_missed: 0, selector, at_once, present, waiting, ready };
    (listener, changes)
}

struct Present {
    container: Arc<Container>,
    since: Instant,
    told: bool,
    /// That it is undecided was told.
    doubted: bool,
}

impl Present {
    fn new(container: Arc<Container>, since: Instant) -> Self {
        Present { container, since, told: false, doubted: false }
    }
}

/// The reading side; dropping it ends the listening.
pub struct Changes {
    receiver: Receiver<Message>,
    missed: Arc<AtomicU64>,
    told_missed: u64,
    selector: Arc<Selector>,
    at_once: bool,
    /// By instance.
    present: BTreeMap<u64, Present>,
    /// Instances that were not told at once, oldest first.
    waiting: VecDeque<(Instant, u64)>,
    ready: VecDeque<Change>,
}

impl Changes {
    /// The next change; `None` when none comes within `timeout`, or the containers' thread has ended.
    pub fn next(&mut self, timeout: Duration) -> Option<Change> {
        let end = Instant::now() + timeout;
        loop {
            let missed = self.missed.load(Ordering::Acquire);
            if missed > self.told_missed {
                let new = missed - std::mem::replace(&mut self.told_missed, missed);
                return Some(Change::Missed(new));
            }
            if let Some(change) = self.ready.pop_front() {
                return Some(change);
            }
            let now = Instant::now();
            self.ripen(now);
            if !self.ready.is_empty() {
                continue;
            }
            let left = end.saturating_duration_since(now);
            match self.receiver.recv_timeout(left.min(self.next_ripe(now))) {
                Ok(Message::Moment(moment)) => self.take(moment, Instant::now()),
                Err(RecvTimeoutError::Timeout) if left.is_zero() => return None,
                Ok(Message::Running(all)) => {
                    let now = Instant::now();
                    all.into_iter().for_each(|c| self.take(Moment::Known(c), now));
                }
                Ok(Message::Wake) | Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// What runs when listening begins; nothing, if that is not heard until `timeout`.
    pub(super) fn running(&mut self, timeout: Duration) -> Vec<Arc<Container>> {
        let Ok(Message::Running(all)) = self.receiver.recv_timeout(timeout) else { return Vec::new() };
        let now = Instant::now();
        self.present.extend(all.iter().map(|c| (c.instance, Present::new(c.clone(), now))));
        all
    }

    fn take(&mut self, moment: Moment, now: Instant) {
        match moment {
            Moment::Known(container) => {
                let instance = container.instance;
                let waiting = &mut self.waiting;
                let new = || {
                    waiting.push_back((now, instance));
                    Present::new(container.clone(), now)
                };
                self.present.entry(instance).or_insert_with(new).container = container.clone();
                self.tell(instance, now);
            }
            Moment::Born(..) => {}
            Moment::Ended(container, at) => {
                let known = self.present.remove(&container.instance);
                if known.as_ref().is_none_or(|p| !p.told) {
                    match self.selector.verdict(&container) {
                        Verdict::No => return,
                        Verdict::Unknown if known.is_some_and(|p| p.doubted) => return,
                        Verdict::Unknown => return self.ready.push_back(Change::Undecided(container)),
                        // Too short to be learnt of in full; it was there all the same.
                        Verdict::Yes => self.ready.push_back(Change::Created(container.clone())),
                    }
                }
                self.ready.push_back(Change::Removed { container, at });
            }
        }
    }

    /// Tells of a container that is ripe and was not told yet.
    fn tell(&mut self, instance: u64, now: Instant) {
        let Some(p) = self.present.get_mut(&instance).filter(|p| !p.told) else {
            return;
        };
        let late = now.saturating_duration_since(p.since) >= RIPE;
        match self.selector.verdict(&p.container) {
            Verdict::Yes | Verdict::Unknown if self.at_once && p.container.pid != 0 => {
                p.told = true;
                self.ready.push_back(Change::Created(p.container.clone()));
            }
            // Who cannot wait wants its first process: until that runs, however long it takes, there is nothing to tell.
            Verdict::Yes if late && !self.at_once || p.container.complete && p.container.pid != 0 => {
                p.told = true;
                self.ready.push_back(Change::Created(p.container.clone()));
            }
            Verdict::Unknown if late && !p.doubted => {
                p.doubted = true;
                self.ready.push_back(Change::Undecided(p.container.clone()));
            }
            Verdict::Yes | Verdict::No | Verdict::Unknown => {}
        }
    }

    fn ripen(&mut self, now: Instant) {
        let due = |since: Instant| now.saturating_duration_since(since) >= RIPE;
        while let Some((_, instance)) = self.waiting.pop_front_if(|(since, _)| due(*since)) {
            self.tell(instance, now);
        }
    }

    /// How long until time alone makes a container ripe.
    fn next_ripe(&self, now: Instant) -> Duration {
        self.waiting.front().map_or(RIPE, |(since, _)| RIPE.saturating_sub(now.saturating_duration_since(*since)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containers::container::RuntimeName;

    fn container(instance: u64, name: Option<&str>, pid: u32) -> Arc<Container> {
        let mut c = Container::new(instance, format!("id-{instance}").into(), RuntimeName::Docker, 7);
        c.name = name.map(Into::into);
        c.complete = name.is_some();
        c.pid = pid;
        c.seal()
    }

    fn said(changes: &mut Changes) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(change) = changes.next(Duration::ZERO) {
            all.push(match change {
                Change::Created(c) => format!("+{}", c.name.as_deref().unwrap_or(&c.id)),
                Change::Removed { container, at } => {
                    format!("-{}@{at}", container.name.as_deref().unwrap_or(&container.id))
                }
                Change::Undecided(c) => format!("?{}", c.id),
                Change::Missed(n) => format!("missed {n}"),
            });
        }
        all
    }

    /// When containers of these tests come: in an hour, so that none ripens because the machine is slow.
    fn later() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    fn take(changes: &mut Changes, moments: Vec<Moment>, now: Instant) {
        moments.into_iter().for_each(|m| changes.take(m, now));
    }

    #[test]
    fn a_container_is_told_once_when_it_is_known_and_once_when_it_ends() {
        let (_listener, mut changes) = channel(Arc::new(Selector::all()), false);
        let now = later();
        take(&mut changes, vec![Moment::Known(container(1, None, 0))], now);
        assert_eq!(said(&mut changes), [""; 0]);
        take(&mut changes, vec![Moment::Known(container(1, Some("web"), 0))], now);
        assert_eq!(said(&mut changes), [""; 0], "its first program has not run");
        let web = container(1, Some("web"), 42);
        take(&mut changes, vec![Moment::Known(web.clone()), Moment::Known(web.clone())], now);
        assert_eq!(said(&mut changes), ["+web"]);
        take(&mut changes, vec![Moment::Ended(web, 9)], now);
        assert_eq!(said(&mut changes), ["-web@9"]);
        assert!(changes.present.is_empty());
    }

    #[test]
    fn short_ones_and_late_ones_are_told_all_the_same() {
        let (_listener, mut changes) = channel(Arc::new(Selector::all()), false);
        let now = later();
        let short = container(1, None, 0);
        take(&mut changes, vec![Moment::Known(short.clone()), Moment::Ended(short, 5)], now);
        assert_eq!(said(&mut changes), ["+id-1", "-id-1@5"]);
        take(&mut changes, vec![Moment::Known(container(2, None, 42))], now);
        changes.ripen(now + RIPE);
        assert_eq!(said(&mut changes), ["+id-2"]);
    }

    #[test]
    fn who_cannot_wait_is_told_of_a_container_that_is_started_long_after_it_was_made() {
        let (_listener, mut changes) = channel(Arc::new(Selector::all()), true);
        let now = later();
        take(&mut changes, vec![Moment::Known(container(1, Some("web"), 0))], now);
        changes.ripen(now + RIPE);
        take(&mut changes, vec![Moment::Known(container(1, Some("web"), 0))], now + RIPE);
        assert_eq!(said(&mut changes), [""; 0], "it has no process yet");
        take(&mut changes, vec![Moment::Known(container(1, Some("web"), 5))], now + 4 * RIPE);
        assert_eq!(said(&mut changes), ["+web"]);
    }

    #[test]
    fn who_cannot_wait_is_told_when_the_first_program_runs() {
        let (_listener, mut changes) = channel(Arc::new(Selector::parse("web").unwrap()), true);
        let now = later();
        take(&mut changes, vec![Moment::Known(container(1, None, 0))], now);
        assert_eq!(said(&mut changes), [""; 0]);
        take(&mut changes, vec![Moment::Known(container(1, None, 5)), Moment::Known(container(2, Some("db"), 6))], now);
        assert_eq!(said(&mut changes), ["+id-1"]);
        take(&mut changes, vec![Moment::Known(container(1, Some("web"), 5))], now);
        assert_eq!(said(&mut changes), [""; 0], "once");
    }

    #[test]
    fn a_selection_decides_when_it_can() {
        let (_listener, mut changes) = channel(Arc::new(Selector::parse("web").unwrap()), false);
        let now = later();
        let db = container(2, Some("db"), 3);
        let moments = vec![Moment::Known(container(1, None, 3)), Moment::Known(db.clone()), Moment::Ended(db, 4)];
        take(&mut changes, moments, now);
        assert_eq!(said(&mut changes), [""; 0]);
        changes.ripen(now + RIPE);
        changes.ripen(now + RIPE);
        assert_eq!(said(&mut changes), ["?id-1"], "once");
        take(&mut changes, vec![Moment::Known(container(1, Some("web"), 3))], now);
        assert_eq!(said(&mut changes), ["+web"]);
        let short = container(4, None, 0);
        take(&mut changes, vec![Moment::Known(short.clone()), Moment::Ended(short, 5)], now);
        assert_eq!(said(&mut changes), ["?id-4"]);
    }

    #[test]
    fn what_runs_when_listening_begins_is_told_however_much_it_is() {
        let (mut listener, mut changes) = channel(Arc::new(Selector::all()), false);
        let all: Vec<_> = (0..QUEUE as u64 + 3).map(|i| container(i, Some("x"), 1)).collect();
        listener.send(Message::Running(all.clone()));
        let mut told = 0;
        while let Some(change) = changes.next(Duration::from_millis(1)) {
            assert!(matches!(change, Change::Created(_)), "{change:?}");
            told += 1;
        }
        assert_eq!(told, all.len());
        let (mut listener, mut changes) = channel(Arc::new(Selector::all()), false);
        listener.send(Message::Running(all.clone()));
        assert_eq!(changes.running(Duration::from_secs(1)).len(), all.len());
    }

    #[test]
    fn a_slow_reader_learns_how_much_it_missed() {
        let (mut listener, mut changes) = channel(Arc::new(Selector::all()), false);
        for i in 0..QUEUE as u64 + 3 {
            listener.send(Message::Moment(Moment::Known(container(i, Some("x"), 1))));
        }
        assert_eq!(changes.next(Duration::ZERO), Some(Change::Missed(3)));
        let mut told = 0;
        while changes.next(Duration::from_millis(1)).is_some() {
            told += 1;
        }
        assert_eq!(told, QUEUE);
        drop(changes);
        listener.send(Message::Wake);
        assert!(listener.is_gone());
    }
}
