//! Functions of files on file systems that may never answer (FUSE, network): read by a child process, for a second at most.
//!
//! A file system that did not answer is left alone for a while, so that one that hangs costs the event thread a
//! second a minute, and not one for each of its files. What was read is trusted for a short time without looking at the file.

use super::{
    MAX_MODULES, MAX_NAME_BYTES, Module, Placed,
    elf::{Elf, Layout},
    mounts::Device,
    process::{self, Mapping},
};
use crate::aside::{self, Answer, AsideError};
use rustc_hash::{FxHashMap, FxHashSet};
use std::{
    collections::VecDeque,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

/// How long a file is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a file system that did not answer is left alone.
const LEFT_ALONE: Duration = Duration::from_secs(60);
/// How long a file is trusted to be what was read of it.
const TRUSTED: Duration = Duration::from_secs(10);
/// Notes about file systems, so that one that mounts many of them does not fill the screen.
const MAX_NOTES: usize = 16;
/// The names, and the table of functions for as many.
const MAX_ANSWER: usize = 2 * MAX_NAME_BYTES + (1 << 20);

/// What is known of such files.
#[derive(Debug, Default)]
pub(super) struct Served {
    known: FxHashMap<(Device, u64), (Instant, Arc<Module>)>,
    silent: FxHashMap<Device, Instant>,
    told: FxHashSet<Device>,
    notes: VecDeque<String>,
}

impl Served {
    pub(super) fn known(&self, mapping: &Mapping) -> Option<Arc<Module>> {
        let (at, module) = self.known.get(&(mapping.device, mapping.inode))?;
        (at.elapsed() < TRUSTED).then(|| module.clone())
    }

    pub(super) fn remember(&mut self, mapping: &Mapping, module: &Arc<Module>) {
        if self.known.len() >= MAX_MODULES {
            self.known.clear();
        }
        self.known.insert((mapping.device, mapping.inode), (Instant::now(), module.clone()));
    }

    pub(super) fn forget(&mut self) {
        self.known.clear();
    }

    pub(super) fn take_note(&mut self) -> Option<String> {
        self.notes.pop_front()
    }

    /// The file's build id and functions; `None` where it does not answer, now or a short while ago.
    pub(super) fn read(&mut self, pid: u32, dir: &Path, mapping: &Mapping) -> Option<(Option<Vec<u8>>, Module)> {
        self.read_within(PATIENCE, pid, dir, mapping)
    }

    fn read_within(
        &mut self,
        limit: Duration,
        pid: u32,
        dir: &Path,
        mapping: &Mapping,
    ) -> Option<(Option<Vec<u8>>, Module)> {
        if self.silent.get(&mapping.device).is_some_and(|since| since.elapsed() < LEFT_ALONE) {
            return None;
        }
        let answer = aside::call(limit, MAX_ANSWER, || {
            let elf = process::open(dir, mapping).ok().and_then(|(file, _)| Elf::read(file).ok());
            let id = elf.as_ref().and_then(Elf::build_id).unwrap_or_default();
            let module = elf.and_then(|e| Module::read(&e).ok()).unwrap_or_default();
            Answer { bytes: written(&id, &module), fds: Vec::new() }
        });
        match answer.and_then(|a| read_back(&a.bytes).ok_or(AsideError::Broken)) {
            Ok((id, module)) => Some(((!id.is_empty()).then_some(id), module)),
            Err(e) => {
                self.fell_silent(pid, mapping, &e);
                None
            }
        }
    }

    fn fell_silent(&mut self, pid: u32, mapping: &Mapping, why: &AsideError) {
        if self.silent.len() >= MAX_MODULES {
            self.silent.clear();
        }
        self.silent.insert(mapping.device, Instant::now());
        if self.told.len() < MAX_NOTES && self.told.insert(mapping.device) {
            let path = mapping.path.to_string_lossy();
            self.notes.push_back(format!(
                "functions of {} (process {pid}), and of other files on the same file system, are shown as addresses: {why}",
                path.escape_debug()
            ));
        }
    }
}

/// `id, parts, functions: u32 each; id; parts; functions; names`
fn written(id: &[u8], module: &Module) -> Vec<u8> {
    let parts = module.layout.numbers();
    let mut out = Vec::with_capacity(64 + module.bytes());
    for count in [id.len(), parts.len(), module.functions.len()] {
        out.extend((count as u32).to_le_bytes());
    }
    out.extend_from_slice(id);
    out.extend(parts.iter().flatten().flat_map(|n| n.to_le_bytes()));
    for f in &module.functions {
        out.extend(f.address.to_le_bytes());
        out.extend(f.size.to_le_bytes());
        out.extend(f.name.to_le_bytes());
    }
    out.extend_from_slice(&module.names);
    out
}

fn read_back(bytes: &[u8]) -> Option<(Vec<u8>, Module)> {
    let (counts, rest) = bytes.split_at_checked(12)?;
    let counts = counts.as_chunks::<4>().0;
    let count = |n: usize| counts.get(n).map(|c| u32::from_le_bytes(*c) as usize);
    let (id, rest) = rest.split_at_checked(count(0)?)?;
    let (parts, rest) = rest.split_at_checked(count(1)?.checked_mul(24)?)?;
    let (functions, names) = rest.split_at_checked(count(2)?.checked_mul(16)?)?;
    let words = |b: &[u8; 24]| {
        let all = b.as_chunks::<8>().0;
        [0, 1, 2].map(|n| all.get(n).map_or(0, |w| u64::from_le_bytes(*w)))
    };
    let function = |b: &[u8; 16]| {
        let [a0, a1, a2, a3, a4, a5, a6, a7, s0, s1, s2, s3, n0, n1, n2, n3] = *b;
        Placed {
            address: u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
            size: u32::from_le_bytes([s0, s1, s2, s3]),
            name: u32::from_le_bytes([n0, n1, n2, n3]),
        }
    };
    let module = Module {
        layout: Layout::from_numbers(parts.as_chunks::<24>().0.iter().map(words)),
        functions: functions.as_chunks::<16>().0.iter().map(function).collect(),
        names: names.to_vec(),
    };
    Some((id.to_vec(), module))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own_code() -> (std::path::PathBuf, Mapping, u64) {
        let dir = std::path::PathBuf::from(format!("/proc/{}", std::process::id()));
        let here = own_code as *const () as u64;
        let all = process::mappings(&dir).unwrap();
        (dir, all.into_iter().find(|m| m.start <= here && here < m.end).unwrap(), here)
    }

    #[test]
    fn a_child_finds_the_same_as_we_do() {
        let (dir, mapping, here) = own_code();
        let mut served = Served::default();
        // more than it has in earnest: a test binary is large and slow
        let (id, module) = served.read_within(Duration::from_secs(120), std::process::id(), &dir, &mapping).unwrap();
        let elf = Elf::read(process::open(&dir, &mapping).unwrap().0).unwrap();
        let own = Module::read(&elf).unwrap();
        assert_eq!((id, module.names == own.names), (elf.build_id(), true));
        assert_eq!(written(b"", &module), written(b"", &own));
        let name = module.name(here - mapping.start + mapping.offset).unwrap();
        assert!(String::from_utf8_lossy(name).contains("own_code"));
        served.remember(&mapping, &Arc::new(module));
        // as if it were read in an hour, so that a slow machine trusts it as well
        served.known.values_mut().for_each(|(at, _)| *at += Duration::from_secs(3600));
        assert!(served.known(&mapping).is_some());
    }

    #[test]
    fn a_file_system_that_was_silent_is_left_alone_and_told_once() {
        let (dir, mapping, _) = own_code();
        let mut served = Served::default();
        served.fell_silent(7, &mapping, &AsideError::Late(PATIENCE));
        served.fell_silent(8, &mapping, &AsideError::Late(PATIENCE));
        let note = served.take_note().unwrap();
        assert!(note.contains("(process 7)") && note.contains("no answer within 1000 ms"), "{note}");
        assert_eq!(served.take_note(), None);
        // Its file would answer, if it were asked.
        assert!(served.read(7, &dir, &mapping).is_none());
    }

    #[test]
    fn damaged_answers_are_none() {
        let whole = written(b"id", &Module::default());
        assert!(read_back(&whole).is_some());
        assert!((0..whole.len()).all(|n| read_back(&whole[..n]).is_none()));
        assert!(read_back(&[0xff; 64]).is_none());
    }
}
