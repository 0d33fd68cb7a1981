//! Who lives in which network namespace, and telling those who look into network namespaces of each as early as it can be
//! entered.
//!
//! Several containers may share one (a pod, `--net=container:`), and the kernel reuses the numbers at once: a packet belongs
//! to those that were there at its time. Written by the containers' thread only, as part of the published table.

use super::{
    Containers,
    changes::{self, Message},
    container::Container,
    registry::{Moment, SHARDS, TOMBSTONE},
};
use rustc_hash::FxHashMap;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender},
    },
    time::Duration,
};

/// A container's stay in a network namespace; boot-clock nanoseconds.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) container: Arc<Container>,
    pub(super) since: u64,
    pub(super) ended: Option<u64>,
}

/// Part of a published table; a change copies one shard.
#[derive(Clone, Debug)]
pub(super) struct Networks {
    shards: [Arc<FxHashMap<u64, Vec<Member>>>; SHARDS],
}

impl Default for Networks {
    fn default() -> Self {
        Networks { shards: std::array::from_fn(|_| Arc::default()) }
    }
}

impl Networks {
    fn members(&self, netns: u64) -> &[Member] {
        self.shards[netns as usize % SHARDS].get(&netns).map(Vec::as_slice).unwrap_or_default()
    }

    fn members_mut(&mut self, netns: u64) -> &mut Vec<Member> {
        Arc::make_mut(&mut self.shards[netns as usize % SHARDS]).entry(netns).or_default()
    }

    pub(super) fn join(&mut self, netns: u64, container: Arc<Container>, since: u64) {
        self.members_mut(netns).push(Member { container, since, ended: None });
    }

    pub(super) fn leave(&mut self, netns: u64, instance: u64) {
        let members = self.members_mut(netns);
        members.retain(|m| m.container.instance != instance);
        if members.is_empty() {
            Arc::make_mut(&mut self.shards[netns as usize % SHARDS]).remove(&netns);
        }
    }

    /// Replaces what is known of a container that is in it.
    pub(super) fn update(&mut self, netns: u64, container: &Arc<Container>) {
        let of = |m: &&mut Member| m.container.instance == container.instance;
        self.members_mut(netns).iter_mut().filter(of).for_each(|m| m.container = container.clone());
    }

    pub(super) fn end(&mut self, netns: u64, instance: u64, at: u64) {
        let of = |m: &&mut Member| m.container.instance == instance;
        self.members_mut(netns).iter_mut().filter(of).for_each(|m| m.ended = Some(at));
    }

    /// Those whose a packet of that time is: who was there; else who left last, or came soon after.
    fn at(&self, netns: u64, time: u64) -> Vec<Arc<Container>> {
        let all = self.members(netns);
        let there = |m: &&Member| m.since <= time && m.ended.is_none_or(|end| end >= time);
        let mut found: Vec<_> = all.iter().filter(there).map(|m| m.container.clone()).collect();
        if found.is_empty() {
            let left = all.iter().filter(|m| m.since <= time).max_by_key(|m| m.ended);
            let whose = left.or_else(|| all.iter().min_by_key(|m| m.since));
            // the number may have become somebody else's since
            let still = |m: &&Member| m.ended.is_none_or(|end| time.saturating_sub(end) < TOMBSTONE);
            found.extend(whose.filter(still).map(|m| m.container.clone()));
        }
        found
    }

    /// Whether all had left by then.
    fn is_left(&self, netns: u64, time: u64) -> bool {
        let all = self.members(netns);
        !all.is_empty() && all.iter().all(|m| m.ended.is_some_and(|end| end < time))
    }

    /// From when on the same are there: since the last came, and after the last that left.
    fn settled(&self, netns: u64) -> Option<u64> {
        let changes = |m: &Member| m.since.max(m.ended.map_or(0, |end| end.saturating_add(1)));
        self.members(netns).iter().map(changes).max()
    }
}

/// Whose a packet is, by its network namespace alone.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum NetworkOwner {
    Host,
    /// One, or several that share it.
    Containers(Vec<Arc<Container>>),
    /// Not decided yet; it will be within two seconds.
    Pending,
    Unknown,
}

impl super::TableReader {
    /// Whose a packet of this network namespace and time (boot-clock nanoseconds) is.
    pub(crate) fn network(&self, netns: u64, time: u64) -> NetworkOwner {
        if netns == self.published.host_netns {
            return NetworkOwner::Host;
        }
        let found = self.table.networks.at(netns, time);
        let may_come = |c: &Arc<Container>| !c.complete || c.pid == 0 && time > self.watermark;
        match () {
            () if found.is_empty() && time > self.watermark => NetworkOwner::Pending,
            () if found.is_empty() => NetworkOwner::Unknown,
            () if found.iter().any(may_come) => NetworkOwner::Pending,
            () => NetworkOwner::Containers(found),
        }
    }

    /// As `may_be_the_next_ones`, of a network namespace that all have left.
    pub(crate) fn network_may_be_the_next_ones(&self, netns: u64, time: u64) -> bool {
        time > self.watermark && self.table.networks.is_left(netns, time)
    }

    /// Those in the namespace at that time, however little is known of them.
    pub(crate) fn network_members(&self, netns: u64, time: u64) -> Vec<Arc<Container>> {
        if netns == self.published.host_netns { Vec::new() } else { self.table.networks.at(netns, time) }
    }

    /// Since when the present members are the present ones; `None` where there are none, and the next may come.
    pub(crate) fn present_network(&self, netns: u64) -> Option<u64> {
        self.table.networks.settled(netns).filter(|_| !self.table.networks.is_left(netns, u64::MAX))
    }
}

/// How to enter a network namespace: through one of these processes, while it lives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) netns: u64,
    pub(crate) pid: u32,
    /// The runtime that sets the container up, whose children are in the namespace, too; 0: not known.
    pub(crate) launcher: u32,
}

/// What happens to containers, for those who look into their network namespaces.
#[derive(Clone, Debug)]
pub(crate) enum NetworkNews {
    /// More is known of it. `netns` is 0 until its first program runs.
    Known(Arc<Container>),
    /// It is born in this namespace; its first program runs later.
    Born(Arc<Container>, Way),
    /// By instance.
    Ended(u64),
    /// All that ran when listening began has been told.
    Complete,
    /// So many of these were missed: listen anew.
    Missed(u64),
    /// Nothing came in time, or somebody called `Waker::wake`.
    Nothing,
}

/// Interrupts `NetworkFeed::next`.
pub(crate) struct Waker(SyncSender<Message>);

impl Waker {
    pub(crate) fn wake(&self) {
        // A full queue wakes the reader, too.
        drop(self.0.try_send(Message::Wake));
    }
}

pub(crate) struct NetworkFeed {
    receiver: Receiver<Message>,
    missed: Arc<AtomicU64>,
    told: u64,
    /// What ran when listening began, as long as it is being told.
    running: Option<std::vec::IntoIter<Arc<Container>>>,
}

impl NetworkFeed {
    pub(crate) fn next(&mut self, timeout: Duration) -> NetworkNews {
        if let Some(running) = &mut self.running {
            if let Some(c) = running.next() {
                return NetworkNews::Known(c);
            }
            self.running = None;
            return NetworkNews::Complete;
        }
        let missed = self.missed.load(Ordering::Acquire);
        if missed > self.told {
            return NetworkNews::Missed(missed - std::mem::replace(&mut self.told, missed));
        }
        match self.receiver.recv_timeout(timeout) {
            Ok(Message::Moment(Moment::Known(c))) => NetworkNews::Known(c),
            Ok(Message::Moment(Moment::Born(c, way))) => NetworkNews::Born(c, way),
            Ok(Message::Moment(Moment::Ended(c, _))) => NetworkNews::Ended(c.instance),
            Ok(Message::Running(all)) => {
                self.running = Some(all.into_iter());
                NetworkNews::Nothing
            }
            Ok(Message::Wake) => NetworkNews::Nothing,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => NetworkNews::Nothing,
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => {
                // The containers' thread is gone, which ends the run; until then there is no news.
                std::thread::sleep(timeout);
                NetworkNews::Nothing
            }
        }
    }
}

impl Containers {
    /// Containers that run, then `Complete`, and from then on what happens to containers, as early as it is known.
    pub(crate) fn networks(&self) -> (NetworkFeed, Waker) {
        let (listener, receiver, missed) = changes::queue();
        let waker = Waker(listener.sender());
        self.shared().new_listeners().push(listener);
        self.published().kick.notify_one();
        (NetworkFeed { receiver, missed, told: 0, running: None }, waker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containers::container::RuntimeName;

    fn container(instance: u64) -> Arc<Container> {
        Container::new(instance, format!("id-{instance}").into(), RuntimeName::Docker, 7).seal()
    }

    fn at(n: &Networks, netns: u64, time: u64) -> Vec<u64> {
        n.at(netns, time).iter().map(|c| c.instance).collect()
    }

    #[test]
    fn a_packet_is_of_those_who_were_there_at_its_time() {
        let mut n = Networks::default();
        n.join(7, container(1), 100);
        n.join(7, container(2), 200);
        assert_eq!(at(&n, 7, 150), [1]);
        assert_eq!(at(&n, 7, 250), [1, 2]);
        n.end(7, 1, 300);
        n.end(7, 2, 400);
        assert_eq!(at(&n, 7, 350), [2]);
        assert_eq!(at(&n, 7, 450), [2], "what comes after the end is of the last");
        assert!(n.is_left(7, 450) && !n.is_left(7, 400) && !n.is_left(8, 450));
        assert!(at(&n, 7, 400 + TOMBSTONE).is_empty(), "but not for ever");
        n.join(7, container(3), 500);
        assert_eq!(at(&n, 7, 450), [2]);
        assert_eq!(at(&n, 7, 500), [3], "the number was reused");
        assert_eq!(at(&n, 7, 50), [1], "a time from just before the birth");
        n.leave(7, 1);
        n.leave(7, 2);
        n.leave(7, 3);
        assert!(at(&n, 7, 500).is_empty() && n.settled(7).is_none());
    }
}
