//! For unit tests of whoever reads tables: a registry that is published by hand, without kernel and thread.

use super::{
    Container, Published, RuntimeName,
    registry::{Owner, Registry},
};
use std::sync::{Arc, atomic::Ordering};

/// The host's network namespace.
pub(crate) const HOST_NETNS: u64 = 2;

/// One with its name, of no registry.
pub(crate) fn named(name: &str) -> Arc<Container> {
    let mut c = Container::new(1, "0123456789ab".into(), RuntimeName::Docker, 7);
    c.name = Some(name.into());
    c.seal()
}

/// A container of which only this is known.
pub(crate) fn container(instance: u64, pid: u32) -> Arc<Container> {
    let mut c = Container::new(instance, format!("id-{instance}").into(), RuntimeName::Docker, 0);
    c.pid = pid;
    c.seal()
}

pub(crate) struct ByHand {
    pub(crate) published: Arc<Published>,
    registry: Registry,
}

impl ByHand {
    pub(crate) fn new(host_mntns: u64) -> Self {
        ByHand { published: Arc::new(Published::new(host_mntns, HOST_NETNS)), registry: Registry::default() }
    }

    /// A container with its name; `None`: it may still come.
    pub(crate) fn birth(&mut self, mntns: u64, time: u64, name: Option<&str>) -> u64 {
        let instance = self.registry.next_instance();
        let mut c = Container::new(instance, format!("id-{instance}").into(), RuntimeName::Docker, mntns);
        c.name = name.map(Into::into);
        c.complete = name.is_some();
        c.pid = 42;
        self.registry.birth(mntns, time, Owner::Container(c.seal()));
        instance
    }

    pub(crate) fn host_birth(&mut self, mntns: u64, time: u64) {
        self.registry.birth(mntns, time, Owner::Host);
    }

    pub(crate) fn network(&mut self, instance: u64, netns: u64, since: u64) {
        self.registry.set_network(instance, netns, since);
    }

    pub(crate) fn end(&mut self, instance: u64, time: u64) {
        self.registry.end(instance, time);
    }

    pub(crate) fn change(&mut self, instance: u64, change: impl FnOnce(&mut Container)) {
        self.registry.update(instance, change);
    }

    /// Publishes, as of `time`.
    pub(crate) fn publish(&self, time: u64) {
        self.published.publish(self.registry.table().clone());
        self.published.advance(time);
    }

    pub(crate) fn miss_something(&self) {
        self.published.missed.store(true, Ordering::Relaxed);
    }
}
