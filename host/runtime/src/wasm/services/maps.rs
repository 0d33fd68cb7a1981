//! The maps and perf buffers of a gadget's object, as its guest sees them: what it may read, write and drain, and how much at
//! a time. Used on the thread of the run.

use super::ServiceError;
use crate::bpf::{
    maps::{MapInfo, RawMap, Update},
    object::{self, map_kind_name},
    perf::{PerfReader, PerfRecorder, Recent},
    sys::{online_cpus, page_size},
};
use std::{
    collections::BTreeMap,
    io,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// Entries and bytes of one scan or drain.
const MOST_ENTRIES: u32 = 4096;
const LARGEST_ANSWER: usize = 4 << 20;

/// Bytes of all perf buffers that a guest has open: memory of the kernel that cannot be swapped out.
const MOST_BUFFERED: u64 = 64 << 20;

/// Kinds whose values are plain bytes. In the others a number may be a descriptor of the host's.
const PLAIN: [u32; 7] = [
    object::MAP_HASH,
    object::MAP_ARRAY,
    object::MAP_PERCPU_HASH,
    object::MAP_PERCPU_ARRAY,
    object::MAP_LRU_HASH,
    object::MAP_LRU_PERCPU_HASH,
    object::MAP_LPM_TRIE,
];

/// A map that is lent to a guest.
#[derive(Debug)]
pub struct Lent {
    pub name: String,
    pub fd: OwnedFd,
    /// The host fills or empties it, so that the guest may only look.
    pub hosts: bool,
}

pub(in crate::wasm) struct Maps {
    by_name: BTreeMap<String, Arc<One>>,
    /// Bytes of perf buffers.
    buffered: Arc<AtomicU64>,
}

#[derive(Debug)]
struct One {
    name: String,
    map: RawMap<OwnedFd>,
    hosts: bool,
    /// Somebody has buffers in it.
    drained: AtomicBool,
}

impl Maps {
    pub(super) fn new(lent: impl IntoIterator<Item = Lent>) -> io::Result<Maps> {
        let one = |l: Lent| {
            let map = RawMap::new(l.fd)?;
            let one = One { name: l.name.clone(), map, hosts: l.hosts, drained: AtomicBool::new(false) };
            Ok((l.name, Arc::new(one)))
        };
        let by_name = lent.into_iter().map(one).collect::<io::Result<_>>()?;
        Ok(Maps { by_name, buffered: Arc::default() })
    }

    pub(super) fn open(&self, name: &str) -> Result<OpenMap, ServiceError> {
        let map = self.by_name.get(name).ok_or_else(|| ServiceError::NoMap {
            name: name[..name.floor_char_boundary(64)].to_owned(),
            known: self.by_name.keys().map(String::as_str).collect::<Vec<_>>().join(", "),
        })?;
        Ok(OpenMap { map: Arc::clone(map), buffered: Arc::clone(&self.buffered) })
    }
}

/// A map that a guest has opened.
#[derive(Clone, Debug)]
#[expect(unreachable_pub, reason = "generated code names it in a public alias")]
pub struct OpenMap {
    map: Arc<One>,
    buffered: Arc<AtomicU64>,
}

impl One {
    fn check(&self, what: &'static str, got: usize, want: usize) -> Result<(), ServiceError> {
        if got == want { Ok(()) } else { Err(ServiceError::Length { map: self.name.clone(), what, got, want }) }
    }

    fn check_key(&self, key: &[u8]) -> Result<(), ServiceError> {
        self.check("key", key.len(), self.map.info().key_size as usize)
    }

    fn may_change(&self) -> Result<(), ServiceError> {
        if self.hosts {
            return Err(ServiceError::HostsMap { name: self.name.clone() });
        }
        if !PLAIN.contains(&self.map.info().kind) {
            return Err(self.wrong_kind("a hash, an array or a longest-prefix trie"));
        }
        Ok(())
    }

    fn wrong_kind(&self, wanted: &'static str) -> ServiceError {
        ServiceError::MapKind { name: self.name.clone(), kind: map_kind_name(self.map.info().kind), wanted }
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> ServiceError {
        ServiceError::Map { doing, name: self.name.clone(), source }
    }
}

impl OpenMap {
    pub(in crate::wasm) fn info(&self) -> &MapInfo {
        self.map.map.info()
    }

    /// Bytes of each value that a lookup gives, and how many: one, or one for each CPU.
    pub(in crate::wasm) fn value_parts(&self) -> (u32, u32) {
        let (size, count) = self.map.map.value_parts();
        (size as u32, count as u32)
    }

    pub(in crate::wasm) fn lookup(&self, key: &[u8]) -> Result<Option<Vec<u8>>, ServiceError> {
        self.map.check_key(key)?;
        self.map.map.lookup(key).map_err(|e| self.map.failed("reading", e))
    }

    /// Keys and values, packed.
    pub(in crate::wasm) fn scan(&self, after: Option<Vec<u8>>, max: u32) -> Result<(Vec<u8>, Vec<u8>), ServiceError> {
        if let Some(key) = &after {
            self.map.check_key(key)?;
        }
        let failed = |e| self.map.failed("reading", e);
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        let mut at = after;
        let mut left = max.min(MOST_ENTRIES);
        while left > 0 && keys.len() + values.len() < LARGEST_ANSWER {
            let Some(key) = self.map.map.next_key(at.as_deref()).map_err(failed)? else { break };
            if let Some(value) = self.map.map.lookup(&key).map_err(failed)? {
                keys.extend_from_slice(&key);
                values.extend_from_slice(&value);
            }
            // One that was deleted in between counts too: the walk must end.
            left -= 1;
            at = Some(key);
        }
        Ok((keys, values))
    }

    pub(in crate::wasm) fn update(&self, key: &[u8], value: &[u8], how: Update) -> Result<(), ServiceError> {
        self.map.may_change()?;
        self.map.check_key(key)?;
        let (size, count) = self.map.map.value_parts();
        self.map.check("value", value.len(), size * count)?;
        self.map.map.update(key, value, how).map_err(|e| self.map.failed("writing", e))
    }

    pub(in crate::wasm) fn delete(&self, key: &[u8]) -> Result<bool, ServiceError> {
        self.map.may_change()?;
        self.map.check_key(key)?;
        self.map.map.delete(key).map_err(|e| self.map.failed("writing", e))
    }

    /// Opens a buffer of `bytes` on each CPU.
    pub(in crate::wasm) fn buffers(&self, bytes: u32, full: WhenFull) -> Result<PerfBuffers, ServiceError> {
        let map = &self.map;
        if map.map.info().kind != object::MAP_PERF_EVENT_ARRAY {
            return Err(map.wrong_kind("a perf_event_array"));
        }
        if map.hosts {
            return Err(ServiceError::HostsMap { name: map.name.clone() });
        }
        if !bytes.is_power_of_two() || (bytes as usize) < page_size() {
            return Err(ServiceError::BufferSize { least: page_size(), got: bytes });
        }
        let cpus = online_cpus().map_err(|e| map.failed("opening the buffers of", e))?.len() as u64;
        let claim = Claim::new(self, cpus * u64::from(bytes))?;
        let array = map.map.as_fd();
        let source = match full {
            WhenFull::LoseNew => PerfReader::new(array, bytes).map(Source::Stream),
            WhenFull::OverwriteOld => PerfRecorder::new(array, bytes).map(|r| Source::Recorder {
                recorder: r,
                next: 0,
                recent: Recent::default(),
            }),
        };
        let source = source.map_err(|e| map.failed("opening the buffers of", e))?;
        Ok(PerfBuffers { source, claim })
    }
}

/// What the kernel does with a record for which there is no room.
#[derive(Clone, Copy, Debug)]
pub(in crate::wasm) enum WhenFull {
    LoseNew,
    OverwriteOld,
}

/// A map's buffers, and their share of what a guest may have; given back when dropped.
#[derive(Debug)]
struct Claim {
    map: Arc<One>,
    buffered: Arc<AtomicU64>,
    bytes: u64,
}

impl Claim {
    fn new(open: &OpenMap, bytes: u64) -> Result<Claim, ServiceError> {
        let map = &open.map;
        if map.drained.swap(true, Ordering::Relaxed) {
            return Err(ServiceError::ReadAlready { name: map.name.clone() });
        }
        open.buffered.fetch_add(bytes, Ordering::Relaxed);
        // From here on dropping it undoes both.
        let claim = Claim { map: Arc::clone(map), buffered: Arc::clone(&open.buffered), bytes };
        if claim.buffered.load(Ordering::Relaxed) > MOST_BUFFERED {
            return Err(ServiceError::TooMuch { what: "bytes of perf buffers", limit: MOST_BUFFERED as usize });
        }
        Ok(claim)
    }
}

impl Claim {
    /// Reading failed. What was read before is not thrown away: the next call meets the error again.
    fn stuck(&self, drained: Drained, e: io::Error) -> Result<Drained, ServiceError> {
        if drained.ends.is_empty() { Err(self.map.failed("reading the buffers of", e)) } else { Ok(drained) }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.map.drained.store(false, Ordering::Relaxed);
        self.buffered.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Perf buffers that a guest reads.
#[derive(Debug)]
#[expect(unreachable_pub, reason = "generated code names it in a public alias")]
pub struct PerfBuffers {
    // First, so that the buffers are gone when others may open theirs.
    source: Source,
    claim: Claim,
}

#[derive(Debug)]
enum Source {
    Stream(PerfReader),
    Recorder {
        recorder: PerfRecorder,
        /// The CPU to read after `recent`.
        next: usize,
        recent: Recent,
    },
}

/// Some records, packed.
#[derive(Debug, Default)]
pub(in crate::wasm) struct Drained {
    pub(in crate::wasm) data: Vec<u8>,
    pub(in crate::wasm) ends: Vec<u32>,
    pub(in crate::wasm) lost: u64,
}

impl Drained {
    fn push(&mut self, record: &[u8]) {
        self.data.extend_from_slice(record);
        self.ends.push(self.data.len() as u32);
    }
}

impl PerfBuffers {
    /// Records of about so many bytes, at least one; none at the end of a round.
    pub(in crate::wasm) fn drain(&mut self, max_bytes: u32) -> Result<Drained, ServiceError> {
        /// Records between two looks at how much there is already.
        const STEP: usize = 16;
        let max = (max_bytes as usize).min(LARGEST_ANSWER);
        let mut drained = Drained::default();
        match &mut self.source {
            Source::Stream(reader) => {
                while drained.data.len() <= max && reader.drain(STEP, |r| drained.push(r)) > 0 {}
                match reader.take_lost() {
                    Ok(lost) => drained.lost = lost,
                    Err(e) => return self.claim.stuck(drained, e),
                }
            }
            Source::Recorder { recorder, next, recent } => loop {
                while let Some(len) = recent.next_len() {
                    if !drained.ends.is_empty() && drained.data.len() + len > max {
                        return Ok(drained);
                    }
                    recent.pop().into_iter().for_each(|r| drained.push(r));
                }
                if *next == recorder.cpus() {
                    // The answer without records, which ends a round, is a call of its own.
                    *next = if drained.ends.is_empty() { 0 } else { *next };
                    break;
                }
                match recorder.read(*next) {
                    Ok(read) => *recent = read,
                    Err(e) => return self.claim.stuck(drained, e),
                }
                drained.lost = drained.lost.saturating_add(recent.lost);
                *next += 1;
            },
        }
        Ok(drained)
    }
}
