//! The network namespaces there are, each once, as something that can be entered: those of the containers, and the host's.
//!
//! A look at one moment; who comes and goes later is told by `Containers::changes`. Opens files below /proc; any thread.

use super::{Containers, Selector, Verdict, snapshot};
use crate::{bpf::sys, host_root};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

/// A network namespace, kept alive by its file.
#[derive(Debug)]
pub(crate) struct NetworkNamespace {
    pub(crate) number: u64,
    file: File,
}

impl NetworkNamespace {
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Has this thread live in it from now on; the rest of the process does not.
    pub(crate) fn enter(&self) -> io::Result<()> {
        sys::enter_network(self.file.as_fd())
    }
}

/// Opens `/proc/PID/ns/net`; `wanted` is the number it must have, because the process may be another by now.
fn open(proc: &Path, pid: u32, wanted: Option<u64>) -> Option<NetworkNamespace> {
    let link = proc.join(format!("{pid}/ns/net"));
    let file = File::open(&link).ok()?;
    let number =
        snapshot::namespace(&PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file))))?;
    (wanted.is_none() || wanted == Some(number)).then_some(NetworkNamespace { number, file })
}

/// That of the host: of its first process, or of the kernel's first thread where that one is closed to us. Whoever can see
/// neither is taken to live in it. `proc` is the host's, if it can be seen.
pub(crate) fn hosts_network(proc: Option<&Path>) -> Option<NetworkNamespace> {
    let hosts = proc.and_then(|proc| [1, 2].into_iter().find_map(|pid| open(proc, pid, None)));
    hosts.or_else(|| open(Path::new("/proc"), std::process::id(), None))
}

/// Where to look, and what is left out although it was asked for.
#[derive(Debug, Default)]
pub(crate) struct NetworkSurvey {
    pub(crate) found: Vec<NetworkNamespace>,
    pub(crate) closed: Vec<ClosedNetwork>,
}

/// A namespace that cannot be entered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClosedNetwork {
    /// 0 for the host's where it is not known.
    pub(crate) number: u64,
    /// A container in it, because the kernel reuses numbers; 0 where none is known.
    pub(crate) instance: u64,
    pub(crate) why: String,
}

/// The namespaces of running containers that `selector` does not rule out, and that of the host where `host` is true. Those of
/// which no process is left are left out, and so is the host's where only containers were asked for that use it.
pub(crate) fn network_namespaces(
    containers: Option<&Containers>,
    selector: &Selector,
    host: bool,
    root: &Path,
) -> NetworkSurvey {
    let proc = host_root::proc(root);
    let mut seen = BTreeSet::new();
    let mut survey = NetworkSurvey::default();
    match hosts_network(proc.as_deref()) {
        Some(hosts) => {
            seen.insert(hosts.number);
            survey.found.extend(host.then_some(hosts));
        }
        None if host => {
            survey.closed.push(ClosedNetwork {
                number: 0,
                instance: 0,
                why: "its first process cannot be seen".into(),
            });
        }
        None => {}
    }
    let mut closed: BTreeMap<u64, ClosedNetwork> = BTreeMap::new();
    for c in containers.map(Containers::list).unwrap_or_default() {
        if c.pid == 0 || c.netns == 0 || seen.contains(&c.netns) || selector.verdict(&c) == Verdict::No {
            continue;
        }
        match try_open(proc.as_deref(), c.pid, c.netns) {
            Ok(Some(namespace)) => {
                seen.insert(namespace.number);
                survey.found.push(namespace);
            }
            // It ended meanwhile, or another container shows the way to what it shared.
            Ok(None) => {}
            Err(why) => {
                let found = ClosedNetwork { number: c.netns, instance: c.instance, why };
                let first = closed.entry(c.netns).or_insert_with(|| found);
                first.instance = first.instance.min(c.instance);
            }
        }
    }
    survey.closed.extend(closed.into_values().filter(|n| !seen.contains(&n.number)));
    survey
}

/// `None` where the process is over.
fn try_open(proc: Option<&Path>, pid: u32, netns: u64) -> Result<Option<NetworkNamespace>, String> {
    let proc = proc.ok_or("its processes cannot be seen, because /proc belongs to another pid namespace")?;
    match File::open(proc.join(format!("{pid}/ns/net"))) {
        Ok(_) => Ok(open(proc, pid, Some(netns))),
        Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(libc::ESRCH) => Ok(None),
        Err(e) => Err(format!("cannot be opened: {e}")),
    }
}
