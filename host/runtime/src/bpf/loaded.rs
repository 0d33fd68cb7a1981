//! The programs, maps and attachments of one running gadget, and which of several ways to do a job is in use.
//!
//! Everything is held by descriptors: dropping `Loaded`, or the end of the process in any way, detaches and frees it all.

use super::{
    attach::{self, Attached, PerfOptions},
    hook::Hook,
    label::Label,
    loader::LoadOptions,
    maps::{self, MapInfo},
    object::{Object, map_kind_name},
    report::{LoadError, ProgramReport, State, skipped, tail},
    socket::SocketProgram,
};
use aya::{Ebpf, programs::ProgramError};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) name: String,
    pub(super) hook: Hook,
    pub(super) state: State,
    pub(super) log: Option<String>,
    pub(super) loaded: bool,
    pub(super) held: Attached,
}

/// Programs, maps and attachments of one running gadget.
pub struct Loaded {
    pub(super) image: String,
    pub(super) ebpf: Ebpf,
    /// What aya looks targets up in: the few kernel types it needs, at the ids they have.
    pub(super) targets: aya::Btf,
    pub(super) slots: Vec<Slot>,
    pub(super) maps: BTreeMap<String, (OwnedFd, MapInfo)>,
    pub(super) alternatives: Vec<(String, Vec<Vec<String>>)>,
    /// By program: the map that its iterator walks.
    pub(super) walks: BTreeMap<String, String>,
    pub(super) cgroup: Option<OwnedFd>,
    pub(super) perf: BTreeMap<String, PerfOptions>,
    pub(super) defer_uprobes: bool,
    /// `None` where the kernel made none.
    pub(super) label: Option<Label>,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded").field("image", &self.image).field("slots", &self.slots).finish_non_exhaustive()
    }
}

impl Loaded {
    pub fn image(&self) -> &str {
        &self.image
    }

    /// What became of each program, in the object's order.
    pub fn reports(&self) -> Vec<ProgramReport> {
        self.slots.iter().map(Slot::report).collect()
    }

    pub fn map_fd(&self, name: &str) -> Option<BorrowedFd<'_>> {
        self.maps.get(name).map(|(fd, _)| fd.as_fd())
    }

    pub fn map_info(&self, name: &str) -> Option<&MapInfo> {
        self.maps.get(name).map(|(_, i)| i)
    }

    /// Names of all maps, data sections included.
    pub fn map_names(&self) -> impl Iterator<Item = &str> {
        self.maps.keys().map(String::as_str)
    }

    /// The descriptor of a loaded program.
    pub fn program_fd(&self, name: &str) -> Option<BorrowedFd<'_>> {
        self.ebpf.program(name)?.fd().ok().map(AsFd::as_fd)
    }

    /// Events for which the kernel did not run a program, because the program was at work on that CPU already. They are
    /// in no buffer and no counter of the gadget. A kernel that does not tell counts as none.
    pub fn missed_runs(&self) -> u64 {
        let missed = |s: &Slot| self.program_fd(&s.name).and_then(|fd| maps::missed_runs(fd).ok()).unwrap_or(0);
        let running = |s: &&Slot| matches!(s.state, State::Attached | State::PerFile);
        self.slots.iter().filter(running).map(missed).sum()
    }

    /// Programs that the caller is to attach, with their hooks.
    pub fn uprobes(&self) -> impl Iterator<Item = (&str, &Hook)> {
        self.slots.iter().filter(|s| s.state == State::PerFile).map(|s| (s.name.as_str(), &s.hook))
    }

    /// Whether programs run when a clock strikes, in the middle of anything.
    pub fn samples(&self) -> bool {
        self.slots.iter().any(|s| matches!(s.hook, Hook::PerfEvent { .. }))
    }

    /// The link of an attached iterator, for `iter::read`.
    pub fn iterator(&self, name: &str) -> Option<BorrowedFd<'_>> {
        match &self.slots.iter().find(|s| s.name == name)?.held {
            Attached::Iterator(link) => Some(link.as_fd()),
            _ => None,
        }
    }

    /// Attached socket filters, which run nowhere before they are opened in network namespaces.
    pub(crate) fn socket_programs(&self) -> Vec<Arc<SocketProgram>> {
        let socket = |s: &Slot| match &s.held {
            Attached::Socket(p) => Some(p.clone()),
            _ => None,
        };
        self.slots.iter().filter_map(socket).collect()
    }

    fn index(&self, name: &str) -> Option<usize> {
        self.slots.iter().position(|s| s.name == name)
    }

    /// Makes sure that the injected maps are what the programs use: a pin that could not be opened would silently have
    /// given them a map of their own.
    pub(super) fn check_injected(&self, object: &Object, o: &LoadOptions<'_>) -> Result<(), LoadError> {
        let shape = |kind, key, value| format!("{} of {key}-byte keys and {value}-byte values", map_kind_name(kind));
        for (name, fd) in &o.inject {
            let failed = |source| LoadError::Map { image: self.image.clone(), map: name.clone(), source };
            let theirs = maps::info(*fd).map_err(failed)?;
            let (Some(ours), Some(def)) = (self.map_info(name), object.map(name)) else { continue };
            if ours.id != theirs.id || (theirs.kind, theirs.key_size) != (def.kind, def.key_size) {
                return Err(LoadError::InjectShape {
                    image: self.image.clone(),
                    map: name.clone(),
                    found: shape(theirs.kind, theirs.key_size, theirs.value_size),
                    wanted: shape(def.kind, def.key_size, def.value_size),
                });
            }
        }
        Ok(())
    }

    /// Loads every program outside alternatives, and of each job the first set that loads as a whole.
    pub(super) fn load_programs(&mut self) -> Result<(), LoadError> {
        let in_sets: BTreeSet<String> =
            self.alternatives.iter().flat_map(|(_, sets)| sets.iter().flatten().cloned()).collect();
        let mut refused = None;
        for i in 0..self.slots.len() {
            if !in_sets.contains(&self.slots[i].name)
                && let Err(e) = self.load_one(i)
            {
                refused.get_or_insert(e);
            }
        }
        for (job, sets) in self.alternatives.clone() {
            if !self.load_first(&sets, 0).0 {
                return Err(self.no_alternative(&job, &sets));
            }
        }
        // a gadget whose programs are all refused shows the verifier's words, not a list
        match refused {
            Some(e) if self.slots.iter().all(|s| s.state != State::Loaded) => Err(e),
            _ => Ok(()),
        }
    }

    /// Loads the first set from `from` on that loads as a whole; whether there was one, and which.
    fn load_first(&mut self, sets: &[Vec<String>], from: usize) -> (bool, usize) {
        for (n, set) in sets.iter().enumerate().skip(from) {
            let indices: Vec<usize> = set.iter().filter_map(|p| self.index(p)).collect();
            let ok = indices.iter().all(|i| self.load_one(*i).is_ok() && self.slots[*i].state == State::Loaded);
            if ok {
                for later in sets.iter().skip(n + 1).flatten() {
                    if let Some(i) =
                        self.index(later).filter(|i| !indices.contains(i) && self.slots[*i].state == State::Loaded)
                    {
                        self.slots[i].state = State::NotNeeded;
                    }
                }
                return (true, n);
            }
            self.unload(&indices);
        }
        (false, sets.len())
    }

    /// Gives up a set of which one program did not work.
    fn unload(&mut self, indices: &[usize]) {
        for i in indices {
            let s = &mut self.slots[*i];
            s.held = Attached::ByAya;
            if std::mem::take(&mut s.loaded)
                && let Some(p) = self.ebpf.program_mut(&s.name)
            {
                attach::unload(p);
            }
            if matches!(s.state, State::Loaded | State::Attached) {
                s.state = State::NotNeeded;
            }
        }
    }

    /// Detaches and unloads every program; maps stay, so that what is in them can still be read.
    pub fn detach(&mut self) {
        for s in &mut self.slots {
            s.held = Attached::ByAya;
            if std::mem::take(&mut s.loaded)
                && let Some(p) = self.ebpf.program_mut(&s.name)
            {
                attach::unload(p);
            }
        }
    }

    fn no_alternative(&self, job: &str, sets: &[Vec<String>]) -> LoadError {
        let all: Vec<ProgramReport> =
            sets.iter().flatten().filter_map(|p| self.index(p)).map(|i| self.slots[i].report()).collect();
        LoadError::NoAlternative { image: self.image.clone(), job: job.into(), reports: all }
    }

    /// Loads one program; a refusal is noted in its state and given back too.
    fn load_one(&mut self, i: usize) -> Result<(), LoadError> {
        let slot = &mut self.slots[i];
        if slot.state == State::NotNeeded {
            slot.state = State::Loaded;
        }
        if slot.state != State::Loaded || slot.loaded {
            return Ok(());
        }
        let Some(program) = self.ebpf.program_mut(&slot.name) else {
            slot.state = State::Skipped { reason: "it is not in the object".into(), hint: None };
            return Ok(());
        };
        let error = match attach::load(&slot.hook, program, &self.targets) {
            Ok(()) => {
                slot.loaded = true;
                if let (Some(label), Some(fd)) = (&self.label, self.program_fd(&self.slots[i].name)) {
                    label.put_on(fd);
                }
                return Ok(());
            }
            Err(e) => e,
        };
        let (source, log) = match error {
            ProgramError::LoadError { io_error, verifier_log } => (io_error, verifier_log.to_string()),
            other => (io::Error::other(other), String::new()),
        };
        if let Some(e) = attach::lacks_trampolines(&slot.hook, &source) {
            slot.state = skipped(&e);
            return Ok(());
        }
        slot.state = State::Skipped { reason: format!("the kernel refused it: {source}{}", tail(&log)), hint: None };
        slot.log = Some(log.clone());
        Err(LoadError::Verifier {
            image: self.image.clone(),
            program: slot.name.clone(),
            hook: slot.hook.to_string(),
            log,
            source,
        })
    }

    fn attach_one(&mut self, i: usize) -> bool {
        let slot = &mut self.slots[i];
        if slot.state == State::Attached {
            return true;
        }
        let Some(program) = self.ebpf.program_mut(&slot.name).filter(|_| slot.loaded) else { return false };
        let map = self.walks.get(&slot.name).and_then(|m| self.maps.get(m)).map(|(fd, _)| fd.as_fd());
        let cgroup = self.cgroup.as_ref().map(AsFd::as_fd);
        let perf = self.perf.get(&slot.name).copied().unwrap_or_default();
        match attach::attach(&slot.hook, program, map, cgroup, perf, self.label.as_ref()) {
            Ok(held) => {
                slot.held = held;
                slot.state = State::Attached;
                true
            }
            Err(e) => {
                slot.state = skipped(&e);
                slot.loaded = false;
                attach::unload(program);
                false
            }
        }
    }

    /// Programs of ways that come after the one in use: whether this kernel could take them does not matter.
    fn nobody_misses(&mut self, later: &[Vec<String>], used: &[usize]) {
        for i in later.iter().flatten().filter_map(|p| self.index(p)).collect::<Vec<_>>() {
            if !used.contains(&i) && matches!(self.slots[i].state, State::Skipped { .. }) {
                self.slots[i].state = State::NotNeeded;
            }
        }
    }

    /// Starts everything that was loaded. An error when nothing could be started, or no way to do some job works.
    pub fn attach(&mut self) -> Result<(), LoadError> {
        let alternatives = std::mem::take(&mut self.alternatives);
        let in_sets: BTreeSet<&String> = alternatives.iter().flat_map(|(_, s)| s.iter().flatten()).collect();
        for i in 0..self.slots.len() {
            if self.slots[i].state == State::Loaded && !in_sets.contains(&self.slots[i].name) {
                match self.slots[i].hook {
                    Hook::Uprobe { .. } if self.defer_uprobes && self.slots[i].loaded => {
                        self.slots[i].state = State::PerFile;
                    }
                    _ => {
                        self.attach_one(i);
                    }
                }
            }
        }
        for (job, sets) in &alternatives {
            let mut from = 0;
            loop {
                let (found, n) = self.load_first(sets, from);
                if !found {
                    return Err(self.no_alternative(job, sets));
                }
                let set: Vec<usize> = sets[n].iter().filter_map(|p| self.index(p)).collect();
                if set.iter().all(|i| self.attach_one(*i)) {
                    self.nobody_misses(&sets[n + 1..], &set);
                    break;
                }
                self.unload(&set);
                from = n + 1;
            }
        }
        if self.slots.iter().any(|s| matches!(s.state, State::Attached | State::PerFile)) {
            return Ok(());
        }
        Err(LoadError::NothingStarted { image: self.image.clone(), reports: self.reports() })
    }
}

impl Slot {
    fn report(&self) -> ProgramReport {
        ProgramReport {
            name: self.name.clone(),
            hook: self.hook.to_string(),
            state: self.state.clone(),
            log: self.log.clone(),
        }
    }
}

/// The alternatives in the order in which they are tried: the gadget's own, but from Linux 7.0 on sets of plain tracepoints
/// come first. There a program on a raw tracepoint or tp_btf can be preempted, and until it goes on the kernel skips
/// it on that CPU, for whole time slices of other processes; one on a plain tracepoint keeps its CPU.
pub(super) fn by_preference(
    alternatives: &[(String, Vec<Vec<String>>)],
    slots: &[Slot],
    kernel: u32,
) -> Vec<(String, Vec<Vec<String>>)> {
    let mut all = alternatives.to_vec();
    if kernel >= 0x07_00_00 {
        let plain = |p: &String| slots.iter().any(|s| s.name == *p && matches!(s.hook, Hook::Tracepoint { .. }));
        all.iter_mut().for_each(|(_, sets)| sets.sort_by_key(|set| !set.iter().all(plain)));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_tracepoints_come_first_from_7_0_on() {
        let slot = |name: &str, hook: Hook| Slot {
            name: name.into(),
            hook,
            state: State::Loaded,
            log: None,
            loaded: false,
            held: Attached::ByAya,
        };
        let plain = || Hook::Tracepoint { category: "syscalls".into(), name: "sys_exit_open".into() };
        let slots = [
            slot("btf", Hook::BtfTracepoint { name: "sys_exit".into() }),
            slot("raw", Hook::RawTracepoint { name: "sys_exit".into() }),
            slot("one", plain()),
            slot("two", plain()),
        ];
        let sets = |sets: &[&[&str]]| -> Vec<(String, Vec<Vec<String>>)> {
            vec![("job".into(), sets.iter().map(|s| s.iter().map(|p| (*p).to_owned()).collect()).collect())]
        };
        let given = sets(&[&["btf"], &["raw", "one"], &["one", "two"], &["two"]]);
        assert_eq!(by_preference(&given, &slots, 0x06_13_00), given);
        let preferred = sets(&[&["one", "two"], &["two"], &["btf"], &["raw", "one"]]);
        assert_eq!(by_preference(&given, &slots, 0x07_00_00), preferred);
    }
}
