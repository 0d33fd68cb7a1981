//! Which process a socket belongs to, kept in a map of the kernel for gadgets that see packets: loads and attaches
//! `bpf/host/sockets.bpf.c` and lends its map `gadget_sockets` to their objects.
//!
//! Started on the caller's thread before the first gadget that has such a map is loaded, and shared by all of them; no thread of
//! its own. Dropping it detaches everything. Never decides about a packet.

use crate::{
    bpf::{self, Btf, KernelBtf, LoadError, LoadOptions, Loaded, Object, State, iter, object, sys},
    containers::Cgroups,
};
use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

/// Name of the map in gadgets.
pub const SOCKETS_MAP: &str = "gadget_sockets";
/// As it is for gadgets that ask for the paths of sockets' processes.
pub const PATHS_MAP: &str = "gadget_socket_paths";
/// What messages call this.
const NAME: &str = "socket enricher";
/// What each socket is entered by; gadgets do not see it.
const ENTERED_MAP: &str = "sockets_entered";
const FULL: &str = "sockets_full";
const LATE_SENDS: &str = "late_sends";
const PRESENT: &str = "ig_sockets_present";
/// Without one of these, what is sent before its system call returns has no owner, or closed sockets keep theirs.
const OF_CGROUPS: [&str; 4] = ["ig_sockets_syn", "ig_sockets_send4", "ig_sockets_send6", "ig_sockets_release"];

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sockets.bpf.o"));
static OBJECT_WITH_PATHS: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sockets_paths.bpf.o"));
static VALUE: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/socket_value.bpf.o"));

/// Sockets with a port at once, where the map takes memory only for what is in it (Linux 6.1)…
const ENTRIES: u32 = 65_536;
/// …and where it takes all of it at once: 4 MB in both maps, and 16 more with paths.
const ENTRIES_PREALLOCATED: u32 = 16_384;
const BPF_F_NO_PREALLOC: u32 = 1;

/// The maps that the host makes, by name.
type Maps<'a> = &'a [(&'static str, BorrowedFd<'a>)];

/// Why owners of sockets cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum SocketsError {
    #[error("{source}")]
    Object { source: object::ObjectError },
    #[error("{source}")]
    Load { source: Box<LoadError> },
    #[error("{NAME}: cannot create its map")]
    Map { source: io::Error },
    #[error("{NAME}: cannot look at the files that are open")]
    Present { source: io::Error },
    #[error("{NAME}: {name} is not in the object file")]
    Missing { name: &'static str },
}

impl SocketsError {
    pub fn hint(&self) -> Option<String> {
        match self {
            SocketsError::Load { source } => source.hint(),
            _ => None,
        }
    }
}

/// The running enricher. Wrap it in an `Arc` to share it.
pub struct Sockets {
    loaded: Loaded,
    map: OwnedFd,
    /// Of one that finds paths.
    paths: Option<OwnedFd>,
    types: Object,
    notes: Vec<String>,
}

impl Sockets {
    /// True for an object that wants to be told of sockets' owners.
    pub fn wanted_by(object: &Object) -> bool {
        object.map(SOCKETS_MAP).is_some()
    }

    /// Attaches, then looks at the sockets there are: when this returns, each with a port is in the map. `with_paths`: also
    /// where the sockets' processes work and what they run, which costs time for each socket and a kilobyte of memory.
    pub fn start(kernel: &KernelBtf, host_root: &Path, with_paths: bool) -> Result<Sockets, SocketsError> {
        let parse = |name, bytes| Object::parse(name, bytes).map_err(|source| SocketsError::Object { source });
        let object = parse(NAME, if with_paths { OBJECT_WITH_PATHS } else { OBJECT })?;
        let types = parse("socket types", VALUE)?;
        let map = create_map(&object, SOCKETS_MAP)?;
        let entered = create_map(&object, ENTERED_MAP)?;
        let paths = with_paths.then(|| create_map(&object, PATHS_MAP)).transpose()?;
        let mut maps = vec![(SOCKETS_MAP, map.as_fd()), (ENTERED_MAP, entered.as_fd())];
        maps.extend(paths.iter().map(|fd| (PATHS_MAP, fd.as_fd())));
        let mut notes = Vec::new();
        let loaded = match early(&object, kernel, &maps, host_root) {
            Ok(loaded) => loaded,
            Err(reason) => {
                notes.push(format!(
                    "{NAME}: {reason}; the process behind the first packet of a connection may not be known, and that of a \
                     closed UDP socket is forgotten late"
                ));
                start(&object, kernel, &maps, None)?
            }
        };
        let link = loaded.iterator(PRESENT).ok_or(SocketsError::Missing { name: PRESENT });
        match link {
            // It writes nothing: what it finds goes into the map.
            Ok(link) => drop(iter::read(link, 1, |_| {}).map_err(|source| SocketsError::Present { source })?),
            Err(_) => notes.push(format!(
                "{NAME}: this kernel has no iterator over open files; sockets from before the start have no owner"
            )),
        }
        drop(maps);
        Ok(Sockets { loaded, map, paths, types, notes })
    }

    /// The map to put in the place of a gadget's own.
    pub fn map(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }

    /// As `map`, with the paths, if it finds any.
    pub fn paths(&self) -> Option<BorrowedFd<'_>> {
        self.paths.as_ref().map(AsFd::as_fd)
    }

    /// The type of its values, for the CO-RE relocations of published gadgets.
    pub fn types(&self) -> &Btf {
        &self.types.btf
    }

    /// Sockets that found the map full since the start: their processes are unknown.
    pub fn overflow(&self) -> u64 {
        let counter = self.loaded.map_fd(FULL).and_then(|fd| bpf::maps::RawMap::new(fd).ok());
        counter.and_then(|c| c.sum_u64(0).ok()).unwrap_or(0)
    }

    /// Runs of its programs that the kernel skipped since the start: sockets without their process, or with one that has
    /// closed them.
    pub fn missed_runs(&self) -> u64 {
        self.loaded.missed_runs()
    }

    /// What a user should be told, one line each; empty when all is well.
    pub fn notes(&self) -> Vec<String> {
        notes(&self.notes, self.overflow(), self.missed_runs())
    }
}

fn notes(start: &[String], overflow: u64, missed: u64) -> Vec<String> {
    let mut notes = start.to_vec();
    if overflow > 0 {
        notes.push(format!("{NAME}: {overflow} sockets found its map full: their processes are not known"));
    }
    if missed > 0 {
        notes.push(format!(
            "{NAME}: {missed} runs of its programs were left out by the kernel: as many sockets may have no process, or \
             another's"
        ));
    }
    notes
}

fn create_map(object: &Object, name: &'static str) -> Result<OwnedFd, SocketsError> {
    let def = object.map(name).ok_or(SocketsError::Missing { name })?;
    // Before, memory taken at run time was not safe in tracing programs, and the kernel says so in its log.
    let on_demand = sys::kernel_version_code() >= 0x06_01_00;
    let (entries, flags) = if on_demand { (ENTRIES, BPF_F_NO_PREALLOC) } else { (ENTRIES_PREALLOCATED, 0) };
    sys::map_create_with(object::MAP_HASH, def.key_size, def.value_size, entries, flags)
        .map_err(|source| SocketsError::Map { source })
}

/// With programs at the root of the control groups: they see a packet's process before the packet leaves.
fn early(object: &Object, kernel: &KernelBtf, maps: Maps<'_>, host_root: &Path) -> Result<Loaded, String> {
    let cgroups = Cgroups::find(host_root);
    let root = cgroups.default_root().ok_or("no cgroup2 file system is mounted")?;
    let dir = File::open(root).map_err(|e| format!("cannot open {}: {e}", root.display()))?;
    let loaded = start(object, kernel, maps, Some(dir.as_fd())).map_err(|e| e.to_string())?;
    for report in loaded.reports() {
        if let State::Skipped { reason, .. } = report.state
            && OF_CGROUPS.contains(&report.name.as_str())
        {
            return Err(format!("{}: {reason}", report.hook));
        }
    }
    Ok(loaded)
}

fn start(
    object: &Object,
    kernel: &KernelBtf,
    maps: Maps<'_>,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<Loaded, SocketsError> {
    let ways = |job: &str, names: [&str; 2]| (job.to_owned(), names.map(|n| vec![n.to_owned()]).to_vec());
    let options = LoadOptions {
        params: vec![(LATE_SENDS.into(), vec![u8::from(cgroup.is_none())])],
        alternatives: vec![
            ways("calls", ["ig_sockets_call", "ig_sockets_call_raw"]),
            ways("states", ["ig_sockets_state", "ig_sockets_state_raw"]),
        ],
        inject: maps.iter().map(|(name, fd)| ((*name).to_owned(), *fd)).collect(),
        cgroup,
        ..LoadOptions::default()
    };
    let load = |source| SocketsError::Load { source: Box::new(source) };
    let mut loaded = bpf::load(NAME, object, kernel, options).map_err(load)?;
    loaded.attach().map_err(load)?;
    Ok(loaded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_it_could_not_do_is_told() {
        assert_eq!(notes(&["late".into()], 0, 0), ["late"]);
        let told = notes(&[], 3, 4);
        assert!(
            told[0].contains("3 sockets found its map full") && told[1].contains("4 runs of its programs"),
            "{told:?}"
        );
    }
}
