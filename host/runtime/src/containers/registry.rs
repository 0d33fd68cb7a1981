//! Who lives in which mount namespace, and since when.
//!
//! The kernel reuses the numbers of mount namespaces at once, so a number alone names nobody: every birth starts a new
//! generation, and an event belongs to the generation that was alive at its time.
//!
//! Written only by the containers' thread (`Registry`), which publishes a `Table`; read by any thread without locks. A
//! table is 64 shared shards, so that a change copies one of them and not all.

use super::{
    container::Container,
    networks::{Networks, Way},
};
use rustc_hash::{FxHashMap, FxHashSet};
use std::{collections::VecDeque, sync::Arc};

pub(super) const SHARDS: usize = 64;
/// For so long after its end, in nanoseconds, what happens in a container's namespaces may still be its own, and more may be
/// learnt of it.
pub(super) const TOMBSTONE: u64 = 10_000_000_000;
/// Ended containers that are known beyond that, the last ones: their rows may be read much later. Tables are, and so is all
/// else where whoever reads the output pauses.
const REMEMBERED: usize = 4096;
/// Generations kept of one namespace number beside the present one; each is also dropped with its tombstone.
const OLD_GENERATIONS: usize = 64;

/// Whose a mount namespace is.
#[derive(Clone, Debug)]
pub(super) enum Owner {
    /// A namespace without a container: a service with a private /tmp, a runtime's helper.
    Host,
    Container(Arc<Container>),
}

#[derive(Clone, Debug)]
pub(super) struct Generation {
    /// Boot-clock nanoseconds; 0 where it existed before it was looked at.
    pub(super) birth: u64,
    pub(super) owner: Owner,
    /// When its container ended: what comes later may be of a generation that is not known yet. Boot-clock nanoseconds.
    pub(super) ended: Option<u64>,
}

#[derive(Clone, Debug)]
struct Slot {
    now: Generation,
    /// From when on the number stands for nobody, as far as is known.
    over: Option<u64>,
    /// Newest first.
    before: Vec<Generation>,
}

impl Slot {
    fn at(&self, time: u64) -> Option<&Generation> {
        if time >= self.now.birth {
            return Some(&self.now).filter(|_| self.over.is_none_or(|over| time < over));
        }
        // Some gadgets take the time when a system call starts and the namespace when it ends.
        self.before.iter().find(|g| g.birth <= time).or(self.before.last()).or(Some(&self.now))
    }

    fn now(&self) -> Option<&Generation> {
        Some(&self.now).filter(|_| self.over.is_none())
    }
}

/// A complete, unchanging view: mount namespaces by number.
#[derive(Clone, Debug)]
pub(super) struct Table {
    shards: [Arc<FxHashMap<u64, Slot>>; SHARDS],
    /// By network namespace.
    pub(super) networks: Networks,
}

impl Default for Table {
    fn default() -> Self {
        Table { shards: std::array::from_fn(|_| Arc::default()), networks: Networks::default() }
    }
}

impl Table {
    fn shard(&self, mntns: u64) -> &FxHashMap<u64, Slot> {
        &self.shards[mntns as usize % SHARDS]
    }

    fn shard_mut(&mut self, mntns: u64) -> &mut FxHashMap<u64, Slot> {
        Arc::make_mut(&mut self.shards[mntns as usize % SHARDS])
    }

    /// The generation of `mntns` alive at `time` (boot-clock nanoseconds).
    pub(super) fn at(&self, mntns: u64, time: u64) -> Option<&Generation> {
        self.shard(mntns).get(&mntns).and_then(|s| s.at(time))
    }

    pub(super) fn now(&self, mntns: u64) -> Option<&Generation> {
        self.shard(mntns).get(&mntns).and_then(Slot::now)
    }

    /// Present generations of every namespace.
    pub(super) fn present(&self) -> impl Iterator<Item = (u64, &Generation)> {
        self.shards.iter().flat_map(|s| s.iter()).filter_map(|(ns, s)| Some((*ns, s.now()?)))
    }
}

struct Instance {
    container: Arc<Container>,
    /// (number, birth) of its own namespace and of those made inside it.
    namespaces: Vec<(u64, u64)>,
    cgroups: Vec<u64>,
    /// Network namespace, once known.
    netns: Option<u64>,
    /// Boot-clock nanoseconds.
    ended: Option<u64>,
    /// Its tombstone is over: only its labels are left.
    gone: bool,
}

/// What happened to a container.
#[derive(Clone, Debug)]
pub(super) enum Moment {
    /// It is there, or more is known of it.
    Known(Arc<Container>),
    /// Its network namespace can be entered, while that process or one beside it lives.
    Born(Arc<Container>, Way),
    /// Boot-clock nanoseconds.
    Ended(Arc<Container>, u64),
}

/// The writer's side.
#[derive(Default)]
pub(super) struct Registry {
    table: Table,
    instances: FxHashMap<u64, Instance>,
    by_id: FxHashMap<Box<str>, Vec<u64>>,
    by_pid: FxHashMap<u32, u64>,
    by_cgroup: FxHashMap<u64, u64>,
    /// (end, instance), oldest first.
    tombstones: VecDeque<(u64, u64)>,
    /// Those whose tombstone is over, oldest first, as many as `REMEMBERED`.
    gone: VecDeque<u64>,
    last_instance: u64,
    changed: bool,
    /// Since the last `take_moments`, while somebody listens.
    moments: Option<Vec<Moment>>,
}

impl Registry {
    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    /// True once after any change: the table wants publishing.
    pub(super) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Whether moments are to be kept for `take_moments`.
    pub(super) fn listen(&mut self, listen: bool) {
        if listen != self.moments.is_some() {
            self.moments = listen.then(Vec::new);
        }
    }

    pub(super) fn take_moments(&mut self) -> Vec<Moment> {
        self.moments.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Containers that are not over, in no order.
    pub(super) fn all_running(&self) -> Vec<Arc<Container>> {
        self.instances.values().filter(|i| i.ended.is_none()).map(|i| i.container.clone()).collect()
    }

    pub(super) fn next_instance(&mut self) -> u64 {
        self.last_instance += 1;
        self.last_instance
    }

    /// Starts a new generation of `mntns`.
    pub(super) fn birth(&mut self, mntns: u64, birth: u64, owner: Owner) {
        self.note_namespace(mntns, birth, &owner);
        let generation = Generation { birth, owner, ended: None };
        match self.table.shard_mut(mntns).entry(mntns) {
            std::collections::hash_map::Entry::Vacant(v) => {
                v.insert(Slot { now: generation, over: None, before: Vec::new() });
            }
            std::collections::hash_map::Entry::Occupied(mut o) => {
                let slot = o.get_mut();
                let old = std::mem::replace(&mut slot.now, generation);
                slot.over = None;
                slot.before.insert(0, old);
                slot.before.truncate(OLD_GENERATIONS);
            }
        }
        self.changed = true;
    }

    /// Says better whose the present generation of `mntns` is.
    pub(super) fn reassign(&mut self, mntns: u64, birth: u64, owner: Owner) {
        self.note_namespace(mntns, birth, &owner);
        if let Some(slot) = self.table.shard_mut(mntns).get_mut(&mntns) {
            slot.now = Generation { birth, owner, ended: None };
        }
        self.changed = true;
    }

    fn note_namespace(&mut self, mntns: u64, birth: u64, owner: &Owner) {
        let Owner::Container(c) = owner else { return };
        match self.instances.get_mut(&c.instance) {
            Some(i) => i.namespaces.push((mntns, birth)),
            None => {
                let instance = Instance {
                    container: c.clone(),
                    namespaces: vec![(mntns, birth)],
                    cgroups: Vec::new(),
                    netns: None,
                    ended: None,
                    gone: false,
                };
                self.instances.insert(c.instance, instance);
                if let Some(moments) = &mut self.moments {
                    moments.push(Moment::Known(c.clone()));
                }
                self.by_id.entry(c.id.clone()).or_default().push(c.instance);
                if c.pid != 0 {
                    self.by_pid.insert(c.pid, c.instance);
                }
            }
        }
    }

    /// True where nothing is known of `mntns` that could hold for a process started at `started` (boot-clock nanoseconds):
    /// no generation, or one of a container that was over by then.
    pub(super) fn is_news(&self, mntns: u64, started: u64) -> bool {
        match self.table.now(mntns).map(|g| &g.owner) {
            None => true,
            Some(Owner::Host) => false,
            Some(Owner::Container(c)) => {
                self.instances.get(&c.instance).and_then(|i| i.ended).is_some_and(|end| end < started)
            }
        }
    }

    pub(super) fn container(&self, instance: u64) -> Option<&Arc<Container>> {
        self.instances.get(&instance).map(|i| &i.container)
    }

    /// Starts of the container with this id that are not over.
    pub(super) fn running(&self, id: &str) -> Vec<u64> {
        let all = self.by_id.get(id).map(Vec::as_slice).unwrap_or_default();
        all.iter().copied().filter(|i| self.instances.get(i).is_some_and(|x| x.ended.is_none())).collect()
    }

    /// Starts of the container with this id, those of the last seconds included.
    pub(super) fn all_of(&self, id: &str) -> Vec<u64> {
        self.by_id.get(id).cloned().unwrap_or_default()
    }

    pub(super) fn with_image(&self, image_id: &str) -> Vec<u64> {
        let has = |i: &Instance| !i.gone && i.container.image_id.as_deref() == Some(image_id);
        self.instances.iter().filter(|(_, i)| has(i)).map(|(k, _)| *k).collect()
    }

    /// Containers of the pod with this sandbox, those of the last seconds included.
    pub(super) fn with_sandbox(&self, sandbox: &str) -> Vec<u64> {
        let has = |i: &Instance| !i.gone && i.container.sandbox.as_deref() == Some(sandbox);
        self.instances.iter().filter(|(_, i)| has(i)).map(|(k, _)| *k).collect()
    }

    /// Sandboxes of all pods that have a container.
    pub(super) fn sandboxes(&self) -> FxHashSet<Box<str>> {
        self.instances.values().filter(|i| !i.gone).filter_map(|i| i.container.sandbox.clone()).collect()
    }

    pub(super) fn by_pid(&self, pid: u32) -> Option<u64> {
        self.by_pid.get(&pid).copied()
    }

    pub(super) fn by_cgroup(&self, cgroup: u64) -> Option<u64> {
        self.by_cgroup.get(&cgroup).copied()
    }

    pub(super) fn set_cgroup(&mut self, instance: u64, cgroup: u64) {
        if let Some(i) = self.instances.get_mut(&instance) {
            i.cgroups.push(cgroup);
            self.by_cgroup.insert(cgroup, instance);
        }
    }

    /// The container is in this network namespace since `since` (boot-clock nanoseconds).
    pub(super) fn set_network(&mut self, instance: u64, netns: u64, since: u64) {
        let Some(i) = self.instances.get_mut(&instance).filter(|i| i.netns != Some(netns)) else {
            return;
        };
        if let Some(old) = i.netns.replace(netns) {
            self.table.networks.leave(old, instance);
        }
        self.table.networks.join(netns, i.container.clone(), since);
        self.changed = true;
    }

    /// The container, which is born in a network namespace, can be entered this way.
    pub(super) fn born(&mut self, instance: u64, way: Way) {
        if let (Some(moments), Some(i)) = (&mut self.moments, self.instances.get(&instance)) {
            moments.push(Moment::Born(i.container.clone(), way));
        }
    }

    /// Replaces what is known of a container, in every namespace of it. Returns those namespaces with their births.
    pub(super) fn update(&mut self, instance: u64, change: impl FnOnce(&mut Container)) -> Vec<(u64, u64)> {
        let Some(i) = self.instances.get_mut(&instance) else {
            return Vec::new();
        };
        let mut c = Container::clone(&i.container);
        change(&mut c);
        if c == *i.container {
            return Vec::new();
        }
        if c.pid != i.container.pid {
            self.by_pid.remove(&i.container.pid);
            self.by_pid.insert(c.pid, instance);
        }
        let c = c.seal();
        i.container = c.clone();
        if let Some(moments) = self.moments.as_mut().filter(|_| i.ended.is_none()) {
            moments.push(Moment::Known(c.clone()));
        }
        if let Some(netns) = i.netns {
            self.table.networks.update(netns, &c);
        }
        for (mntns, birth) in &i.namespaces {
            let Some(slot) = self.table.shard_mut(*mntns).get_mut(mntns) else {
                continue;
            };
            for g in std::iter::once(&mut slot.now).chain(&mut slot.before) {
                if g.birth == *birth && matches!(&g.owner, Owner::Container(x) if x.instance == instance) {
                    g.owner = Owner::Container(c.clone());
                }
            }
        }
        self.changed = true;
        i.namespaces.clone()
    }

    /// The container is over; its labels stay for the events that are still on their way.
    pub(super) fn end(&mut self, instance: u64, now: u64) {
        let Some(i) = self.instances.get_mut(&instance) else {
            return;
        };
        if i.ended.is_some() {
            return;
        }
        i.ended = Some(now);
        if let Some(netns) = i.netns {
            self.table.networks.end(netns, instance, now);
        }
        for (mntns, birth) in &i.namespaces {
            let slot = self.table.shard_mut(*mntns).get_mut(mntns).filter(|slot| slot.now.birth == *birth);
            slot.into_iter().for_each(|slot| slot.now.ended = Some(now));
        }
        self.changed = true;
        if let Some(moments) = &mut self.moments {
            moments.push(Moment::Ended(i.container.clone(), now));
        }
        self.tombstones.push_back((now, instance));
        if self.by_pid.get(&i.container.pid) == Some(&instance) {
            self.by_pid.remove(&i.container.pid);
        }
        for cgroup in &i.cgroups {
            if self.by_cgroup.get(cgroup) == Some(&instance) {
                self.by_cgroup.remove(cgroup);
            }
        }
    }

    /// Takes their namespaces from those whose tombstone is over, and forgets the oldest of many. Returns the generations that
    /// went, present ones only: their filter keys are due.
    pub(super) fn expire(&mut self, now: u64) -> Vec<(u64, u64)> {
        let mut due = Vec::new();
        while let Some((end, instance)) = self.tombstones.pop_front_if(|(end, _)| now.saturating_sub(*end) >= TOMBSTONE)
        {
            let Some(i) = self.instances.get_mut(&instance) else {
                continue;
            };
            i.gone = true;
            let (id, namespaces) = (i.container.id.clone(), i.namespaces.clone());
            self.forget_id(&id, instance);
            due.extend(namespaces.into_iter().filter(|(mntns, birth)| self.vacate(*mntns, *birth, end + TOMBSTONE)));
            self.gone.push_back(instance);
            self.changed = true;
        }
        while self.gone.len() > REMEMBERED {
            self.gone.pop_front().into_iter().for_each(|instance| self.forget(instance));
        }
        due
    }

    /// True where the generation was the present one, after which there is none.
    fn vacate(&mut self, mntns: u64, birth: u64, since: u64) -> bool {
        let slot = self.table.shard_mut(mntns).get_mut(&mntns).filter(|slot| slot.now.birth == birth);
        slot.map(|slot| slot.over = Some(since)).is_some()
    }

    fn forget(&mut self, instance: u64) {
        let Some(i) = self.instances.remove(&instance) else { return };
        if let Some(netns) = i.netns {
            self.table.networks.leave(netns, instance);
        }
        for (mntns, birth) in i.namespaces {
            let shard = self.table.shard_mut(mntns);
            let Some(slot) = shard.get_mut(&mntns) else { continue };
            slot.before.retain(|g| g.birth != birth);
            if slot.now.birth != birth {
                continue;
            }
            // An older generation may be remembered for longer than this one: containers do not end in order of birth.
            if slot.before.is_empty() {
                shard.remove(&mntns);
            } else {
                slot.now.owner = Owner::Host;
            }
        }
        self.changed = true;
    }

    fn forget_id(&mut self, id: &str, instance: u64) {
        if let Some(all) = self.by_id.get_mut(id) {
            all.retain(|i| *i != instance);
            if all.is_empty() {
                self.by_id.remove(id);
            }
        }
    }

    /// Boot-clock nanoseconds at which `expire` has something to do.
    pub(super) fn next_expiry(&self) -> Option<u64> {
        self.tombstones.front().map(|(end, _)| end + TOMBSTONE)
    }

    /// Ends every container whose first process is known and not among these.
    pub(super) fn end_all_but(&mut self, pids: &rustc_hash::FxHashSet<u32>, now: u64) {
        let gone: Vec<u64> = self.by_pid.iter().filter(|(pid, _)| !pids.contains(*pid)).map(|(_, i)| *i).collect();
        gone.into_iter().for_each(|instance| self.end(instance, now));
    }

    pub(super) fn len(&self) -> usize {
        self.instances.values().filter(|i| i.ended.is_none()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::containers::container::RuntimeName;

    fn container(r: &mut Registry, id: &str, mntns: u64) -> Arc<Container> {
        Container::new(r.next_instance(), id.into(), RuntimeName::Runc, mntns).seal()
    }

    fn id_at(r: &Registry, mntns: u64, time: u64) -> Option<String> {
        match &r.table().at(mntns, time)?.owner {
            Owner::Host => Some("host".into()),
            Owner::Container(c) => Some(c.id.to_string()),
        }
    }

    #[test]
    fn a_reused_number_is_told_apart_by_time() {
        let mut r = Registry::default();
        for (i, id) in ["a", "b", "c"].into_iter().enumerate() {
            let c = container(&mut r, id, 7);
            r.birth(7, 100 * (i as u64 + 1), Owner::Container(c));
        }
        for (time, id) in [(100, "a"), (199, "a"), (200, "b"), (250, "b"), (300, "c"), (u64::MAX, "c")] {
            assert_eq!(id_at(&r, 7, time).as_deref(), Some(id), "at {time}");
        }
        assert_eq!(id_at(&r, 7, 99).as_deref(), Some("a"), "an event may carry a time from just before the birth");
        assert_eq!(id_at(&r, 8, 100), None);
    }

    #[test]
    fn labels_outlive_the_container_and_go_only_with_their_own_generation() {
        let mut r = Registry::default();
        let a = container(&mut r, "a", 7);
        r.birth(7, 100, Owner::Container(a.clone()));
        r.end(a.instance, 1000);
        assert!(r.expire(1000 + TOMBSTONE - 1).is_empty());
        assert_eq!(id_at(&r, 7, 500).as_deref(), Some("a"));
        let b = container(&mut r, "b", 7);
        r.birth(7, 2000, Owner::Container(b));
        assert!(r.expire(1000 + TOMBSTONE).is_empty(), "the present generation is b's: its filter key must stay");
        assert_eq!(id_at(&r, 7, u64::MAX).as_deref(), Some("b"));
        assert!(r.running("a").is_empty());
        assert_eq!(r.running("b").len(), 1);
    }

    #[test]
    fn what_happened_in_a_container_is_its_own_however_late_it_is_read() {
        let mut r = Registry::default();
        let a = container(&mut r, "a", 7);
        r.birth(7, 100, Owner::Container(a.clone()));
        r.set_network(a.instance, 70, 100);
        r.end(a.instance, 1000);
        assert_eq!(r.expire(u64::MAX), [(7, 100)]);
        assert_eq!(id_at(&r, 7, 500).as_deref(), Some("a"));
        assert_eq!(id_at(&r, 7, 1000 + TOMBSTONE), None, "the number may be anybody's by then");
        assert!(r.table().now(7).is_none() && r.table().present().next().is_none() && r.all_of("a").is_empty());
        assert!(r.is_news(7, 2000 + TOMBSTONE));
        // another one gets the number
        let b = container(&mut r, "b", 7);
        r.birth(7, 3000 + TOMBSTONE, Owner::Container(b));
        assert_eq!(id_at(&r, 7, 500).as_deref(), Some("a"));
        assert_eq!(id_at(&r, 7, u64::MAX).as_deref(), Some("b"));
    }

    #[test]
    fn ended_containers_are_remembered_but_not_without_end() {
        let mut r = Registry::default();
        for n in 0..=REMEMBERED as u64 {
            let c = container(&mut r, &format!("c{n}"), n);
            r.birth(n, n, Owner::Container(c.clone()));
            r.end(c.instance, 10_000 + n);
        }
        assert_eq!(r.expire(u64::MAX).len(), REMEMBERED + 1);
        assert_eq!((id_at(&r, 0, 5).as_deref(), id_at(&r, 1, 5).as_deref()), (None, Some("c1")));
        assert_eq!((r.instances.len(), r.by_id.len()), (REMEMBERED, 0));
        assert!(r.expire(u64::MAX).is_empty() && r.next_expiry().is_none());
    }

    #[test]
    fn an_expired_present_generation_gives_up_its_filter_key() {
        let mut r = Registry::default();
        let a = container(&mut r, "a", 7);
        r.birth(7, 100, Owner::Container(a.clone()));
        r.birth(9, 150, Owner::Container(a.clone()));
        r.end(a.instance, 1000);
        assert_eq!(r.next_expiry(), Some(1000 + TOMBSTONE));
        let mut due = r.expire(1000 + TOMBSTONE);
        due.sort_unstable();
        assert_eq!(due, [(7, 100), (9, 150)]);
        assert_eq!((id_at(&r, 7, u64::MAX), r.next_expiry(), r.len()), (None, None, 0));
    }

    #[test]
    fn news_reaches_every_namespace_of_the_container_and_no_other() {
        let mut r = Registry::default();
        let a = container(&mut r, "a", 7);
        r.birth(7, 100, Owner::Container(a.clone()));
        r.birth(9, 150, Owner::Container(a.clone()));
        r.birth(9, 300, Owner::Host);
        let before = r.table().clone();
        let touched = r.update(a.instance, |c| c.name = Some("web".into()));
        assert_eq!(touched, [(7, 100), (9, 150)]);
        let name = |t: &Table, ns, time| match &t.at(ns, time).unwrap().owner {
            Owner::Container(c) => c.name.clone(),
            Owner::Host => None,
        };
        assert_eq!(name(r.table(), 7, 200).as_deref(), Some("web"));
        assert_eq!(name(r.table(), 9, 200).as_deref(), Some("web"));
        assert_eq!(name(r.table(), 9, 400), None);
        assert_eq!(name(&before, 7, 200), None, "a published table never changes");
    }

    #[test]
    fn a_cgroup_of_the_past_names_nobody() {
        let mut r = Registry::default();
        let a = container(&mut r, "a", 7);
        r.birth(7, 100, Owner::Container(a.clone()));
        r.set_cgroup(a.instance, 55);
        assert_eq!(r.by_cgroup(55), Some(a.instance));
        r.end(a.instance, 200);
        assert_eq!(r.by_cgroup(55), None);
    }
}
