//! The network namespaces there are, each once, as something that can be entered: those of the containers, and the host's.
//!
//! A look at one moment; who comes and goes later is told by `Containers::changes`. Opens files below /proc; any thread.

use super::{Containers, Selector, Verdict, snapshot};
use crate::{bpf::sys, host_root};
use std::{
    collections::BTreeSet,
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
        sys::enter_network_namespace(self.file.as_fd())
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

/// The namespaces of running containers that `selector` does not rule out, and that of the host where `host` is true. Those of
/// which no process is left are left out, and so is the host's where only containers were asked for that use it.
pub(crate) fn network_namespaces(
    containers: Option<&Containers>,
    selector: &Selector,
    host: bool,
    root: &Path,
) -> Vec<NetworkNamespace> {
    let proc = host_root::proc(root);
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    if let Some(hosts) = hosts_network(proc.as_deref()) {
        seen.insert(hosts.number);
        found.extend(host.then_some(hosts));
    }
    let Some(proc) = proc else { return found };
    for c in containers.map(Containers::list).unwrap_or_default() {
        if c.pid == 0 || c.netns == 0 || seen.contains(&c.netns) || selector.verdict(&c) == Verdict::No {
            continue;
        }
        if let Some(namespace) = open(&proc, c.pid, Some(c.netns)) {
            seen.insert(namespace.number);
            found.push(namespace);
        }
    }
    found
}
