//! Probes in programs and libraries of containers, as they come and go, and of the host if it was asked for.
//!
//! Each container's library is found below its own root, and probed once for each file of the disk, however many containers
//! share it; which events are shown is decided by the gadget's filter. `Uprobes::start` attaches to what runs and returns;
//! a thread of its own attaches to what starts later. What nobody uses any more another one detaches, because the kernel takes a
//! tenth of a second and more for each probe, and containers that start meanwhile are not to wait. No process is stopped for it: the
//! first calls of a container's first program can go by unseen where its library was not probed already.

mod closing;
mod found;
mod inode;
mod library;
mod root;

use crate::{
    bpf::sys,
    clocks::boot_time,
    containers::{Change, Changes, Container, Containers, Selector, Verdict},
    symbols::elf::ElfError,
};
use closing::Closer;
use found::{Found, FoundFile, LookError};
use inode::Inode;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// How soon the thread notices that it is to end.
const TICK: Duration = Duration::from_millis(100);
/// When a container is looked at again that had none of the libraries: they may come with a volume or an installation.
const AGAIN: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(10)];
/// A container that ended before it was looked at was missed, if it ran for so long, in nanoseconds: who waits is not to blame.
const LATE: u64 = 500_000_000;
/// Containers with nothing to probe that are told one by one.
const TOLD: usize = 8;
/// This many files are probed at a time.
const MAX_FILES: usize = 4096;
/// Functions that a message names.
const NAMED: usize = 3;
/// How the host is called among the containers.
const HOST: u64 = u64::MAX;

/// A program of the gadget and where it belongs.
#[derive(Debug)]
pub struct Probe {
    pub program: String,
    pub fd: OwnedFd,
    /// A library's name, or an absolute path.
    pub file: String,
    pub symbol: String,
    /// At the return from the function.
    pub at_return: bool,
}

/// What people may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UprobeNote {
    /// What was attached for a container, and what it lacks.
    Container { name: String, attached: usize, missing: Vec<Lack> },
    /// As many more had nothing to probe.
    More(usize),
    /// Too many files to be probed at once.
    TooMany { name: String },
    /// Containers that came faster than they could be looked at.
    Missed(u64),
}

/// A function that has no probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lack {
    pub file: String,
    pub symbol: String,
    pub reason: String,
    /// It is there, and the kernel refused: its calls are missing, which for a function that is not there are none.
    pub refused: bool,
}

impl UprobeNote {
    /// False for what only `-v` shows.
    pub fn is_for_everybody(&self) -> bool {
        match self {
            UprobeNote::Container { attached, missing, .. } => *attached == 0 || missing.iter().any(|l| l.refused),
            _ => true,
        }
    }

    /// Containers whose calls are not seen although they could be.
    pub fn blind_spots(&self) -> u64 {
        match self {
            UprobeNote::TooMany { .. } => 1,
            UprobeNote::Missed(n) => *n,
            UprobeNote::Container { missing, .. } => missing.iter().any(|l| l.refused).into(),
            UprobeNote::More(_) => 0,
        }
    }
}

impl fmt::Display for UprobeNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UprobeNote::Container { name, attached: 0, missing } => {
                write!(f, "warning: {name}: nothing to probe, so none of its calls are seen: ")?;
                reasons(missing, f)
            }
            UprobeNote::Container { name, attached, missing } if missing.iter().any(|l| l.refused) => {
                write!(f, "warning: {name}: {attached} probes, and some of its calls are not seen: ")?;
                reasons(missing, f)
            }
            UprobeNote::Container { name, attached, missing } => {
                write!(f, "{name}: {attached} probes")?;
                if !missing.is_empty() {
                    f.write_str("; not there: ")?;
                    reasons(missing, f)?;
                }
                Ok(())
            }
            UprobeNote::More(n) => write!(f, "warning: {n} more containers had nothing to probe"),
            UprobeNote::TooMany { name } => {
                write!(f, "warning: {name}: not probed, because {MAX_FILES} files are probed already")
            }
            UprobeNote::Missed(n) => {
                write!(f, "warning: {n} containers came or went too fast to be probed")
            }
        }
    }
}

/// By file and reason, with the functions it is about.
fn reasons(missing: &[Lack], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut by_reason: BTreeMap<(&str, &str), BTreeSet<&str>> = BTreeMap::new();
    for Lack { file, symbol, reason, .. } in missing {
        by_reason.entry((file, reason)).or_default().insert(symbol);
    }
    for (n, ((file, reason), symbols)) in by_reason.into_iter().enumerate() {
        let shown: Vec<&str> = symbols.iter().copied().take(NAMED).collect();
        let more = match symbols.len() - shown.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        write!(f, "{}{file} ({}{more}): {reason}", if n > 0 { "; " } else { "" }, shown.join(", "))?;
    }
    Ok(())
}

/// Why nothing could be started.
#[derive(Debug, thiserror::Error)]
pub enum UprobeError {
    #[error("the kernel has no uprobes (CONFIG_UPROBE_EVENTS)")]
    NoUprobes { source: io::Error },
    #[error("cannot look at the programs of the host below {root}: {reason}")]
    HostRoot { root: String, reason: String },
    #[error("cannot start the thread that follows containers")]
    Thread { source: io::Error },
}

/// Which processes are to be probed.
pub struct Scope {
    pub containers: Containers,
    pub selector: Arc<Selector>,
    /// The host's root directory, where the host is wanted too.
    pub host: Option<PathBuf>,
    /// The mount of proc that numbers processes as the host does.
    pub proc: Option<PathBuf>,
}

/// Attached probes; dropping them detaches all.
pub struct Uprobes {
    notes: Arc<Mutex<Vec<UprobeNote>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Uprobes {
    /// Attaches to all that runs, and from then on to all that starts.
    pub fn start(probes: Vec<Probe>, scope: Scope) -> Result<Uprobes, UprobeError> {
        let kind = sys::pmu_type("uprobe").map_err(|source| UprobeError::NoUprobes { source })?;
        let notes = Arc::new(Mutex::new(Vec::new()));
        let mut attached = Attached {
            kind,
            probes,
            proc: scope.proc.clone(),
            files: BTreeMap::new(),
            users: BTreeMap::new(),
            notes: notes.clone(),
            told: BTreeSet::new(),
            empty: 0,
            late: 0,
            closer: Closer::start().map_err(|source| UprobeError::Thread { source })?,
        };
        if let Some(host) = &scope.host {
            let found = found::look(host, &attached.wanted());
            let found =
                found.map_err(|e| UprobeError::HostRoot { root: host.display().to_string(), reason: e.to_string() })?;
            attached.attach(HOST, "the host", found, true);
        }
        // first the listening, then the looking: what starts in between is in both
        let changes = scope.containers.changes_at_once(scope.selector.clone());
        for c in scope.containers.list() {
            if scope.selector.verdict(&c) != Verdict::No {
                attached.container(&c, true);
            }
        }
        let stop = Arc::new(AtomicBool::new(false));
        let ended = stop.clone();
        let thread = std::thread::Builder::new().name("uprobes".into());
        let Scope { containers, selector, .. } = scope;
        let thread = thread.spawn(move || attached.follow(changes, &containers, &selector, &ended));
        let thread = thread.map_err(|source| UprobeError::Thread { source })?;
        Ok(Uprobes { notes, stop, thread: Some(thread) })
    }

    /// What was not told yet.
    pub fn take_notes(&self) -> Vec<UprobeNote> {
        std::mem::take(&mut *self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Has the thread detach everything. The kernel takes a tenth of a second and more for each probe, and those that are left go
    /// on to call their programs meanwhile.
    pub fn detach(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// Whether all is detached.
    pub fn is_detached(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Detaches everything; gives the last notes.
    pub fn stop(mut self) -> Vec<UprobeNote> {
        self.end();
        self.take_notes()
    }

    fn end(&mut self) {
        self.detach();
        if let Some(thread) = self.thread.take() {
            // A panic over there was already reported by the panic hook.
            drop(thread.join());
        }
    }
}

impl Drop for Uprobes {
    fn drop(&mut self) {
        self.end();
    }
}

/// One probed file of the disk.
struct Probed {
    /// By the probe's place among all; open as long as the probes are: closing detaches.
    events: BTreeMap<usize, OwnedFd>,
    missing: Vec<Lack>,
    users: BTreeSet<u64>,
}

/// What is attached, and for whom. Owned by one thread at a time.
struct Attached {
    /// The kernel's number of this kind of event.
    kind: u32,
    probes: Vec<Probe>,
    proc: Option<PathBuf>,
    /// By file of the disk and the name by which gadgets ask for it.
    files: BTreeMap<(Inode, String), Probed>,
    /// By container: the files it uses.
    users: BTreeMap<u64, Vec<(Inode, String)>>,
    notes: Arc<Mutex<Vec<UprobeNote>>>,
    /// Of whom was told that there is nothing to probe.
    told: BTreeSet<u64>,
    /// How many they were.
    empty: usize,
    /// Containers that ended before they were looked at. The first is told at once, the others at the end.
    late: u64,
    closer: Closer,
}

impl Attached {
    fn follow(mut self, mut changes: Changes, containers: &Containers, selector: &Arc<Selector>, stop: &AtomicBool) {
        let mut again: Vec<(Instant, usize, Arc<Container>)> = Vec::new();
        while !stop.load(Ordering::Acquire) {
            match changes.next(TICK) {
                Some(Change::Created(c) | Change::Undecided(c)) if self.container(&c, false) == Some(0) => {
                    again.push((Instant::now() + AGAIN[0], 0, c));
                }
                Some(Change::Created(_) | Change::Undecided(_)) | None => {}
                Some(Change::Removed { container, .. }) => {
                    again.retain(|(_, _, c)| c.instance != container.instance);
                    self.forget(container.instance);
                }
                Some(Change::Missed(n)) => {
                    self.note(UprobeNote::Missed(n));
                    // All that runs is told again; who is not there has ended.
                    changes = containers.changes_at_once(selector.clone());
                    let present: BTreeSet<u64> = containers.list().iter().map(|c| c.instance).collect();
                    again.retain(|(_, _, c)| present.contains(&c.instance));
                    self.keep(&present);
                }
            }
            let now = Instant::now();
            let (due, rest) = again.into_iter().partition(|(at, _, _)| *at <= now);
            again = rest;
            let due: Vec<(Instant, usize, Arc<Container>)> = due;
            for (_, round, c) in due {
                let last = round + 1 == AGAIN.len();
                if self.container(&c, last) == Some(0) && !last {
                    again.push((now + AGAIN[round + 1], round + 1, c));
                }
            }
        }
        if self.empty > TOLD {
            self.note(UprobeNote::More(self.empty - TOLD));
        }
        if self.late > 1 {
            self.note(UprobeNote::Missed(self.late - 1));
        }
    }

    fn note(&self, note: UprobeNote) {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).push(note);
    }

    /// Probes a container's files; how many probes it has, `None` where it cannot be looked at. `last`: no other try comes,
    /// so that it is time to say that there is nothing.
    fn container(&mut self, c: &Container, last: bool) -> Option<usize> {
        let probes = |f: &(Inode, String)| self.files.get(f).map_or(0, |p| p.events.len());
        let count = self.users.get(&c.instance).map_or(0, |files| files.iter().map(probes).sum());
        if count > 0 {
            return Some(count);
        }
        // what holds a pod together runs nothing that anybody would look at
        if c.pid == 0 || c.is_sandbox() {
            return None;
        }
        let name = format!("container {}", c.name.as_deref().unwrap_or(&c.id));
        match found::look(&self.proc.as_ref()?.join(c.pid.to_string()).join("root"), &self.wanted()) {
            Ok(found) => Some(self.attach(c.instance, &name, found, last)),
            Err(LookError::Gone) => {
                self.gone(c);
                None
            }
            Err(e) => {
                if last && self.told.insert(c.instance) {
                    let lack = |p: &Probe| Lack {
                        file: p.file.clone(),
                        symbol: p.symbol.clone(),
                        reason: e.to_string(),
                        refused: true,
                    };
                    self.note(UprobeNote::Container {
                        name,
                        attached: 0,
                        missing: self.probes.iter().map(lack).collect(),
                    });
                }
                Some(0)
            }
        }
    }

    /// One that ended before it was looked at: as its end is told next, this was the first time, unless it is known.
    fn gone(&mut self, c: &Container) {
        let late = c.first_exec != 0 && boot_time().saturating_sub(c.first_exec) > LATE;
        if late && !self.users.contains_key(&c.instance) {
            self.late += 1;
            if self.late == 1 {
                self.note(UprobeNote::Missed(1));
            }
        }
    }

    /// The functions that are to be probed, by file.
    fn wanted(&self) -> BTreeMap<String, Vec<String>> {
        let mut wanted: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for p in &self.probes {
            wanted.entry(p.file.clone()).or_default().push(p.symbol.clone());
        }
        wanted
    }

    /// Probes what was found of a user; how many probes it has.
    fn attach(&mut self, user: u64, name: &str, found: Found, last: bool) -> usize {
        let _first = self.closer.pause();
        let (mut count, mut missing, mut mine) = (0, Vec::new(), Vec::new());
        for (file, all) in found {
            if all.is_empty() {
                self.lacks(&file, "there is no such library", &mut missing);
            }
            let (mut probed, mut failed) = (false, Vec::new());
            for one in all {
                match one.and_then(|f| self.probe(user, name, &file, f, &mut missing)) {
                    Ok((key, n)) => {
                        probed = true;
                        if !mine.contains(&key) {
                            count += n;
                            mine.push(key);
                        }
                    }
                    Err(reason) => failed.push(reason),
                }
            }
            // beside a library there may be files of its name that are none, such as a linker's script
            if !probed {
                failed.iter().for_each(|reason| self.lacks(&file, reason, &mut missing));
            }
        }
        self.users.insert(user, mine);
        if count > 0 || last && self.told.insert(user) {
            let refused = missing.iter().any(|l| l.refused);
            self.empty += usize::from(count == 0 && !refused);
            if count > 0 || refused || self.empty <= TOLD {
                self.note(UprobeNote::Container { name: name.to_owned(), attached: count, missing });
            }
        }
        count
    }

    fn lacks(&self, file: &str, reason: &str, missing: &mut Vec<Lack>) {
        let of_file = self.probes.iter().filter(|p| p.file == file);
        let lack = |symbol: &String| Lack {
            file: file.to_owned(),
            symbol: symbol.clone(),
            reason: reason.to_owned(),
            refused: false,
        };
        missing.extend(of_file.map(|p| lack(&p.symbol)));
    }

    /// Attaches all programs for `wanted` to a file, unless somebody uses it already; what the kernel refused is tried again.
    fn probe(
        &mut self,
        user: u64,
        name: &str,
        wanted: &str,
        found: FoundFile,
        missing: &mut Vec<Lack>,
    ) -> Result<((Inode, String), usize), String> {
        let FoundFile { file, inode, offsets } = found;
        let key = (inode, wanted.to_owned());
        if let Some(known) = self.files.get_mut(&key) {
            known.users.insert(user);
            if !known.missing.iter().any(|l| l.refused) {
                missing.extend(known.missing.iter().cloned());
                return Ok((key, known.events.len()));
            }
        }
        if self.files.len() >= MAX_FILES {
            self.note(UprobeNote::TooMany { name: name.to_owned() });
            return Err("too many files are probed".into());
        }
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let before = self.files.remove(&key);
        let (mut events, mut users) = before.map(|p| (p.events, p.users)).unwrap_or_default();
        users.insert(user);
        let mut lacking = Vec::new();
        for (n, p) in self.probes.iter().enumerate().filter(|(_, p)| p.file == wanted) {
            if events.contains_key(&n) {
                continue;
            }
            let lack = |reason, refused| Lack { file: wanted.to_owned(), symbol: p.symbol.clone(), reason, refused };
            let Some(offset) = offsets.get(p.symbol.as_str()) else {
                lacking.push(lack("there is no such function".to_owned(), false));
                continue;
            };
            match sys::uprobe(self.kind, &path, *offset, p.at_return, p.fd.as_fd()) {
                Ok(event) => drop(events.insert(n, event)),
                Err(e) => lacking.push(lack(format!("the kernel refused: {e}"), true)),
            }
        }
        missing.extend(lacking.iter().cloned());
        let count = events.len();
        // one without probes is looked at again for the next who has it
        if count > 0 {
            self.files.insert(key.clone(), Probed { events, missing: lacking, users });
        }
        Ok((key, count))
    }

    /// Forgets containers that are not among these.
    fn keep(&mut self, present: &BTreeSet<u64>) {
        let gone: Vec<u64> = self.users.keys().copied().filter(|u| *u != HOST && !present.contains(u)).collect();
        gone.into_iter().for_each(|user| self.forget(user));
    }

    /// Detaches what nobody uses any more.
    fn forget(&mut self, user: u64) {
        self.told.remove(&user);
        for key in self.users.remove(&user).unwrap_or_default() {
            if let Some(probed) = self.files.get_mut(&key) {
                probed.users.remove(&user);
                if probed.users.is_empty()
                    && let Some(probed) = self.files.remove(&key)
                {
                    self.closer.close(probed.events.into_values());
                }
            }
        }
    }
}

/// See [`found::places`].
pub(crate) fn places(name: &str, symbol: &str) -> Vec<(PathBuf, Result<Option<u64>, ElfError>)> {
    found::places(name, symbol)
}

#[cfg(fuzzing)]
pub(crate) fn fuzz_cache(bytes: &[u8]) {
    library::fuzz_cache(bytes);
}

#[cfg(test)]
mod tests;
