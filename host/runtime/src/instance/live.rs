//! A live run: programs in the kernel, one loop on the caller's thread, and an account at the end.
//!
//! Order of a stop: detach, wait for running programs, drain, release held rows, last counters. How a run is put together
//! is in `load`, what its rows come from in `feed`.

use super::{
    Note, PipelineOptions, RunError, Sink, Stop, Summary, Tag,
    feed::{Buffer, Drained, Feed, Iteration, Source, TablePlan, Tables, run_iterators},
    load::{self, Recording},
    netns::NetworkSockets,
    pipeline::{Pipeline, is_quiet_end},
};
use crate::{
    bpf::{
        Loaded, Object, Roles, Skipped, State,
        maps::RawMap,
        perf::PerfReader,
        ring::Ring,
        sys,
        wait::{LostCounter, Waiter},
    },
    clocks,
    containers::{ClosedNetwork, Containers, ContainersOptions, FilterHandle, Selector, Verdict, network_namespaces},
    enrich::{container::Include, sockets::Sockets, stacks::Stacks},
    gadget::schema::Producer,
    host_sources::HostTable,
    uprobes::{Scope, UprobeNote, Uprobes},
};
use ig_event::{DataSource, Ledger, Reason, SourceKind};
use std::{
    collections::BTreeSet,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

/// Rows after which a batch is handed on, even if the buffer holds more.
const BATCH_ROWS: usize = 1024;
/// Bytes after which it is.
const BATCH_BYTES: usize = 1 << 20;
/// Loss counters are read at least this often while events flow, and always before the end.
const COUNTERS_EVERY: Duration = Duration::from_millis(100);
/// While nothing flows, how soon the user hears that a runtime went away.
const NOTES_EVERY: Duration = Duration::from_secs(1);
/// After so long, containers that ran before have their names.
const NAMES_KNOWN: Duration = Duration::from_millis(2500);
/// Longest time to empty a buffer after the last event.
const DRAIN_AT_MOST: Duration = Duration::from_secs(30);
/// Between two looks at empty buffers while probes are detached.
const WHILE_DETACHING: Duration = Duration::from_millis(1);
/// Containers that a message names.
const NAMED_CONTAINERS: usize = 10;
/// Times, 2 ms apart, that the tracker is given at the end to name the containers of rows that wait.
const LAST_LOOKS: u32 = 10;

/// What the caller decides about a run.
#[derive(Clone)]
pub struct LiveOptions {
    /// The gadget's parameters that were given, `(key, text)`.
    pub params: Vec<(String, String)>,
    pub pipeline: PipelineOptions,
    /// Bytes of each event buffer: a power of two, at least a page.
    pub ring_bytes: u32,
    pub selector: Arc<Selector>,
    /// Which events are shown beside those of the programs in containers.
    pub include: Include,
    pub containers: ContainersOptions,
    /// Record raw events to this file.
    pub record: Option<PathBuf>,
    /// Where compiled guests are kept.
    pub wasm_cache: Option<PathBuf>,
    /// Mount bpffs and tracefs if they are missing.
    pub auto_mount: bool,
    pub timeout: Option<Duration>,
    /// Between two readings of what is a table, instead of the gadget's own interval. Zero reads maps only at the end, and
    /// everything else once. Tables that are read once without it are read again and again with it.
    pub table_interval: Option<Duration>,
    /// Readings after which tables are done, and the run if there is nothing else; 0 for no end.
    pub table_count: Option<u64>,
    /// Says in every row which gadget it is of: for one of several.
    pub tag: Option<Tag>,
}

/// Whose packets are looked at.
pub(super) struct Whose {
    pub(super) selector: Arc<Selector>,
    pub(super) include: Include,
    pub(super) host_root: PathBuf,
}

/// A gadget that is loaded and not yet attached, or running.
pub struct Live {
    pub(super) name: String,
    pub(super) ring_bytes: u32,
    /// `None` once detached.
    pub(super) loaded: Option<Loaded>,
    pub(super) producers: Vec<Producer>,
    pub(super) sources: Vec<Arc<DataSource>>,
    pub(super) state: Vec<Source>,
    pub(super) pipeline: Pipeline,
    pub(super) stacks: Option<Stacks>,
    /// Whose files uprobes go to; `None` where only the host's, which the loader finds.
    pub(super) scope: Option<Scope>,
    pub(super) uprobes: Option<Uprobes>,
    /// Count events that a full map of the gadget swallowed, and gaps in streams; not of one source, so told to the first.
    pub(super) counters: Vec<(Reason, LostCounter)>,
    /// The account of a gadget without rows, which can miss something all the same.
    pub(super) silent: Ledger,
    pub(super) recording: Option<Recording>,
    pub(super) containers: Option<Containers>,
    /// Socket filters, while they run.
    pub(super) networks: Option<NetworkSockets>,
    pub(super) whose: Whose,
    pub(super) object: Option<Object>,
    /// Tells the gadget whose a socket is, if it asks.
    pub(super) sockets: Option<Arc<Sockets>>,
    /// Held, so that the tracker goes on filling the gadget's filter.
    pub(super) filter: Option<FilterHandle>,
    pub(super) roles: Roles,
    pub(super) notes: Vec<Note>,
    pub(super) told: BTreeSet<String>,
    /// When to say, once, that nobody who was asked for runs.
    pub(super) look_for_wanted: Option<Instant>,
    /// Networks that iterators could not look into, by number and a container in it.
    pub(super) closed_networks: BTreeSet<(u64, u64)>,
    /// Containers that probes could not be set in.
    pub(super) unprobed: u64,
    pub(super) timeout: Option<Duration>,
    pub(super) tables: TablePlan,
    /// A table of BPF programs shows no others.
    pub(super) gadgets_only: bool,
}

impl Live {
    /// The final schema, by source.
    pub fn sources(&self) -> &[Arc<DataSource>] {
        &self.sources
    }

    /// Opens the buffers and starts the guest, then lets the programs run.
    pub fn attach(&mut self, sink: &mut dyn Sink) -> Result<(), RunError> {
        for i in 0..self.producers.len() {
            if let Producer::Tracer { map } = &self.producers[i] {
                self.state[i].feed = Some(self.tracer(map)?);
            }
        }
        for (reason, map) in [(Reason::MapFull, LostCounter::MAP_FULL), (Reason::StreamGap, LostCounter::STREAM_GAP)] {
            self.counters.extend(self.counter(map)?.map(|counter| (reason, counter)));
        }
        self.notes.drain(..).for_each(|n| sink.note(n));
        // What the guest writes into maps, and the buffers it opens, are there before any program runs.
        self.pipeline.start(sink)?;
        let hooks = self.attach_programs(sink)?;
        for i in 0..self.producers.len() {
            if let Some(table) = self.table(i)? {
                self.state[i].feed = Some(table);
            }
        }
        // The last that can fail: an older recording of this name ends here, and nothing was read before.
        if let Some(recording) = &mut self.recording {
            recording.open()?;
        }
        self.look_for_wanted = Instant::now().checked_add(NAMES_KNOWN);
        sink.note(Note::Running { gadget: self.name.clone(), hooks, buffer: self.ring_bytes });
        Ok(())
    }

    /// The number of hooks at work.
    fn attach_programs(&mut self, sink: &mut dyn Sink) -> Result<usize, RunError> {
        let Some(loaded) = &mut self.loaded else { return Ok(0) };
        let attached = loaded.attach();
        let reports = loaded.reports();
        let hooks = reports.iter().filter(|r| matches!(r.state, State::Attached | State::PerFile)).count();
        // An error has the list itself.
        if attached.is_ok() {
            let Skipped { gaps, unexplained, replaced } = self.roles.sort(&reports);
            gaps.into_iter().for_each(|g| sink.note(Note::Gap(g)));
            unexplained.into_iter().for_each(|s| sink.note(Note::Skipped(s)));
            replaced.into_iter().for_each(|s| sink.note(Note::Replaced(s)));
        }
        let others = reports.into_iter().filter(|r| !matches!(r.state, State::Skipped { .. }));
        others.for_each(|r| sink.note(Note::Program(r)));
        attached?;
        if let Some(scope) = self.scope.take() {
            self.uprobes = load::start_uprobes(loaded, scope, &self.name)?;
        }
        self.uprobe_notes(sink);
        self.open_networks()?;
        Ok(hooks)
    }

    /// What a source is read from, if it is a table.
    fn table(&self, i: usize) -> Result<Option<Feed>, RunError> {
        Ok(Some(match (&self.producers[i], &self.object) {
            (Producer::Iter { programs }, Some(object)) => {
                let row = self.sources[i].record_size as usize;
                Feed::Iterator { programs: programs.iter().map(|p| Iteration::new(p, row, object)).collect() }
            }
            (Producer::MapIter { map }, _) => {
                let fd = self.map_fd(map)?;
                Feed::Map { map: RawMap::new(fd).map_err(|e| self.read_error(map, e))? }
            }
            (Producer::Host { source }, _) => {
                let table = HostTable::open(*source, &self.whose.host_root, self.gadgets_only);
                Feed::Host(table.map_err(|source| RunError::HostSource { gadget: self.name.clone(), source })?)
            }
            (Producer::Tracer { .. } | Producer::Iter { .. }, _) => return Ok(None),
        }))
    }

    /// Has socket filters see the packets of everybody who was asked for.
    fn open_networks(&mut self) -> Result<(), RunError> {
        let programs = self.loaded.as_ref().map(Loaded::socket_programs).unwrap_or_default();
        if !programs.is_empty() {
            let Whose { selector, include, host_root } = &self.whose;
            let (containers, selector) = (self.containers.as_ref(), selector.clone());
            self.networks = Some(NetworkSockets::start(programs, containers, host_root, selector, *include)?);
        }
        Ok(())
    }

    fn map_fd(&self, map: &str) -> Result<OwnedFd, RunError> {
        let missing = || std::io::Error::new(std::io::ErrorKind::NotFound, "the object has no such map");
        let fd = self.loaded.as_ref().and_then(|l| l.map_fd(map));
        let fd = fd.ok_or_else(missing).and_then(|fd| fd.try_clone_to_owned());
        fd.map_err(|e| self.read_error(map, e))
    }

    fn read_error(&self, what: &str, source: std::io::Error) -> RunError {
        RunError::Read { gadget: self.name.clone(), what: what.to_owned(), source }
    }

    fn tracer(&self, map: &str) -> Result<Feed, RunError> {
        let fd = self.map_fd(map)?;
        let info = self.loaded.as_ref().and_then(|l| l.map_info(map));
        let size = info.map_or(self.ring_bytes, |i| i.max_entries);
        let is_ring = info.is_some_and(|i| i.kind == crate::bpf::object::MAP_RINGBUF);
        let buffer = match is_ring {
            true => Ring::new(fd.as_fd(), size).map(Buffer::Ring),
            false => PerfReader::new(fd.as_fd(), self.ring_bytes).map(Buffer::Perf),
        };
        let buffer = buffer.map_err(|e| self.read_error(map, e))?;
        let lost = self.counter(&format!("{map}{}", LostCounter::SUFFIX))?;
        Ok(Feed::Tracer { buffer, lost })
    }

    /// A counter of the gadget, if it has one of this name.
    fn counter(&self, name: &str) -> Result<Option<LostCounter>, RunError> {
        let fd = self.loaded.as_ref().and_then(|l| l.map_fd(name));
        fd.map(LostCounter::new).transpose().map_err(|e| self.read_error(name, e))
    }

    /// Runs until stopped, timed out, or done (a snapshot is done once it is shown). The account comes back either way.
    pub fn run(mut self, stop: &Stop, sink: &mut dyn Sink) -> (Summary, Option<RunError>) {
        let looped = self.event_loop(stop, sink);
        let looped = looped.and(self.detach_uprobes(sink));
        // What is produced until all is detached, and what is in the buffers then, still counts.
        if let Some(networks) = &self.networks {
            networks.silence();
        }
        let missed = self.loaded.as_ref().map_or(0, |l| l.missed_runs());
        let looped = looped.and(self.detach(sink));
        if missed > 0 {
            sink.note(Note::MissedRuns { gadget: self.name.clone(), missed });
        }
        // Told by the enricher itself.
        let missed = missed + self.sockets.as_ref().map_or(0, |s| s.missed_runs());
        let drained = self.last_words(sink);
        let stopped = self.pipeline.stop(sink);
        let recorded = self.recording.take().map_or(Ok(()), Recording::finish);
        let closed = [&looped, &drained, &stopped].into_iter().any(|r| r.as_ref().is_err_and(is_quiet_end));
        let real = |r: Result<(), RunError>| r.err().filter(|e| !is_quiet_end(e));
        let failed = real(looped).or_else(|| real(drained)).or_else(|| real(stopped)).or_else(|| real(recorded));
        let (blind_spots, gadget_lost) = (self.blind_spots(), self.pipeline.lost_by_guest());
        let mut ledgers = self.pipeline.ledgers();
        if self.sources.is_empty() {
            ledgers.push((self.name, self.silent));
        }
        // Programs are not of one source, so what they missed is told to the first, as with full maps.
        if let Some((_, first)) = ledgers.first_mut() {
            first.missed_runs = missed;
            first.blind_spots = blind_spots;
            first.gadget_lost = gadget_lost;
        }
        (Summary { ledgers, closed }, failed)
    }

    /// Takes seconds. Where there is a filter, nothing passes it any more; else what the probes still produce needs its room.
    fn detach_uprobes(&mut self, sink: &mut dyn Sink) -> Result<(), RunError> {
        let Some(uprobes) = self.uprobes.take() else { return Ok(()) };
        uprobes.detach();
        if let Some(map) = self.filter.as_ref().and(self.loaded.as_ref()).and_then(|l| l.map_fd(load::FILTER_MAP)) {
            // Were it ever not emptied, rows would come for so long as without a filter.
            drop(RawMap::new(map).and_then(|map| map.drain(|_, _| {})));
        }
        let result = self.drain_until(|| uprobes.is_detached(), sink);
        uprobes.stop().into_iter().for_each(|n| self.uprobe_note(n, sink));
        result
    }

    /// A gadget of a hundred programs takes seconds as well: each waits for the kernel.
    fn detach(&mut self, sink: &mut dyn Sink) -> Result<(), RunError> {
        let Some(loaded) = self.loaded.take() else { return Ok(()) };
        let detaching = std::thread::Builder::new().name("ig-detach".into()).spawn(move || drop(loaded));
        // Without the thread it went with what was to be run in it.
        let Ok(detaching) = detaching else { return Ok(()) };
        self.drain_until(|| detaching.is_finished(), sink)
    }

    /// What is still produced needs its room, and what lies there must not wait until its container is forgotten.
    fn drain_until(&mut self, done: impl Fn() -> bool, sink: &mut dyn Sink) -> Result<(), RunError> {
        let mut result = Ok(());
        while !done() {
            let mut rows = 0;
            for i in 0..self.state.len() {
                match self.drain(i, sink) {
                    Ok(drained) => rows += drained.rows,
                    Err(e) => result = result.and(Err(e)),
                }
            }
            if rows == 0 {
                std::thread::sleep(WHILE_DETACHING);
            }
        }
        result
    }

    /// What could not be followed, and was told; see `Ledger::blind_spots`.
    fn blind_spots(&self) -> u64 {
        let networks = self.networks.as_ref().map_or(0, NetworkSockets::unseen) + self.closed_networks.len() as u64;
        // Of a gadget without a filter the tracker's counts are other gadgets'.
        let filters = self.filter.as_ref().and(self.containers.as_ref()).map_or(0, Containers::blind_spots);
        networks + filters + self.sockets.as_ref().map_or(0, |s| s.overflow()) + self.unprobed
    }

    fn event_loop(&mut self, stop: &Stop, sink: &mut dyn Sink) -> Result<(), RunError> {
        let mut waiter = Waiter::new().map_err(RunError::Wait)?;
        waiter.add(stop.as_fd()).map_err(RunError::Wait)?;
        let mut streams = false;
        for s in &self.state {
            if let Some(Feed::Tracer { buffer, .. }) = &s.feed {
                streams = true;
                match buffer {
                    Buffer::Ring(r) => waiter.add(r.fd()).map_err(RunError::Wait)?,
                    Buffer::Perf(p) => p.fds().try_for_each(|fd| waiter.add(fd)).map_err(RunError::Wait)?,
                }
            }
        }
        // A time too far off to be told is no end.
        let end = self.timeout.and_then(|t| Instant::now().checked_add(t));
        self.read_tables(Tables::Start, sink)?;
        let feeds = || self.state.iter().filter_map(|s| s.feed.as_ref());
        let again = feeds().any(|f| self.tables.reads(f, Tables::Due) || self.tables.reads(f, Tables::End));
        if again {
            let only_iterators = !feeds().any(|f| matches!(f, Feed::Map { .. } | Feed::Host(_)));
            self.tables.begin(Instant::now(), only_iterators);
        }
        // A gadget without rows is one that writes at the end.
        let silent = self.sources.is_empty();
        let again = again && !self.tables.done();
        let mut counters_due = Instant::now() + COUNTERS_EVERY;
        while (streams || again || silent) && !stop.requested() && end.is_none_or(|e| Instant::now() < e) {
            if self.tables.due.is_some_and(|due| Instant::now() >= due) {
                self.read_tables(Tables::Due, sink)?;
                self.tables.advance(Instant::now());
                if self.tables.done() && !streams {
                    break;
                }
            }
            if stop.take_look() {
                self.read_tables(Tables::Due, sink)?;
                if self.pipeline.makes_documents() {
                    self.pipeline.tick(sink)?;
                }
            }
            if self.pipeline.tick_due().is_some_and(|due| Instant::now() >= due) {
                self.pipeline.tick(sink)?;
            }
            let mut all = Drained::default();
            for i in 0..self.state.len() {
                all.add(self.drain(i, sink)?);
            }
            if Instant::now() >= counters_due {
                self.counters(sink)?;
                self.container_notes(sink);
                self.stack_notes(sink);
                self.uprobe_notes(sink);
                counters_due = Instant::now() + COUNTERS_EVERY;
            }
            if all.more {
                continue;
            }
            if all.rows == 0
                && self.state.iter().all(Source::holds_nothing)
                && let Some(stacks) = &mut self.stacks
            {
                stacks.make_room();
            }
            let notes = self.containers.is_some().then(|| Instant::now() + NOTES_EVERY);
            let wakes = [end, self.held_until(), self.tables.due, self.pipeline.tick_due(), notes];
            let wake_by = wakes.into_iter().flatten().min();
            let mut rings: Vec<&mut Ring> = self.state.iter_mut().filter_map(Source::ring).collect();
            waiter.wait(all.pace(self.ring_bytes), &mut rings, wake_by).map_err(RunError::Wait)?;
        }
        Ok(())
    }

    /// When the first held row must go out, named or not.
    fn held_until(&self) -> Option<Instant> {
        self.state.iter().filter_map(|s| Some(Instant::now() + s.enricher.as_ref()?.wait()?)).min()
    }

    /// Tells each thing about the tracking once.
    fn container_notes(&mut self, sink: &mut dyn Sink) {
        let containers = self.containers.iter().flat_map(Containers::notes);
        for note in containers.chain(self.sockets.iter().flat_map(|s| s.notes())).collect::<Vec<_>>() {
            // A count of the tracker's that has grown is no news, they all do on a busy machine; a runtime that was away once
            // more is.
            let counts = note.starts_with("container tracker:") || note.starts_with("socket enricher:");
            let key = match counts {
                true => note.chars().filter(|c| !c.is_ascii_digit()).collect(),
                false => note.clone(),
            };
            if self.told.insert(key) {
                sink.note(Note::Containers(note));
            }
        }
        if self.look_for_wanted.is_some_and(|at| Instant::now() >= at) {
            self.look_for_wanted = None;
            if let Some(text) = self.nobody_asked_for() {
                sink.note(Note::Containers(text));
            }
        }
        for note in self.networks.iter().flat_map(NetworkSockets::notes) {
            sink.note(Note::Network(note));
        }
    }

    /// A name that is mistyped and one that is still to come look alike, so that it is said which there are.
    fn nobody_asked_for(&self) -> Option<String> {
        let selector = &self.whose.selector;
        let running = self.containers.as_ref().filter(|_| !selector.selects_all() && self.pipeline.is_silent())?.list();
        if running.iter().any(|c| selector.verdict(c) == Verdict::Yes) {
            return None;
        }
        let names: Vec<&str> =
            running.iter().map(|c| c.name.as_deref().unwrap_or(&c.id)).take(NAMED_CONTAINERS).collect();
        let more = running.len() - names.len();
        Some(match (running.len(), more) {
            (0, _) => "no container runs now; those that were asked for are waited for".into(),
            (_, 0) => {
                format!("no container that was asked for runs now, and is waited for; running: {}", names.join(", "))
            }
            _ => format!(
                "no container that was asked for runs now, and is waited for; running: {} and {more} more",
                names.join(", ")
            ),
        })
    }

    fn uprobe_notes(&mut self, sink: &mut dyn Sink) {
        let notes: Vec<_> = self.uprobes.iter().flat_map(Uprobes::take_notes).collect();
        notes.into_iter().for_each(|n| self.uprobe_note(n, sink));
    }

    fn uprobe_note(&mut self, note: UprobeNote, sink: &mut dyn Sink) {
        self.unprobed += note.blind_spots();
        sink.note(Note::Uprobes(note));
    }

    /// Tells each network that iterators could not look into once, and counts it.
    fn closed_networks(&mut self, closed: Vec<ClosedNetwork>, sink: &mut dyn Sink) {
        for ClosedNetwork { number, instance, why } in closed {
            if self.closed_networks.insert((number, instance)) {
                let what = if number == 0 { "the network of the host".into() } else { format!("network {number}") };
                sink.note(Note::Network(format!("{what}: {why}; it is not shown")));
            }
        }
    }

    fn stack_notes(&mut self, sink: &mut dyn Sink) {
        if let Some(text) = self.stacks.as_mut().and_then(Stacks::note) {
            sink.note(Note::Symbols(text));
        }
    }

    /// One batch out of the buffer of a source, at most. One pass only, so that no flood of events keeps the run from
    /// stopping, from reading its counters, or from its other sources.
    fn drain(&mut self, i: usize, sink: &mut dyn Sink) -> Result<Drained, RunError> {
        let s = &mut self.state[i];
        let Some(Feed::Tracer { buffer, .. }) = &mut s.feed else { return Ok(Drained::default()) };
        let batch = &mut s.batch;
        if let Some(e) = &mut s.enricher {
            e.take_ready(batch);
        }
        let held = batch.bytes();
        let mut push = |rec: &[u8]| {
            batch.push(rec);
        };
        let rows = match buffer {
            Buffer::Ring(r) => r.drain(BATCH_ROWS, BATCH_BYTES, &mut push),
            Buffer::Perf(p) => p.drain(BATCH_ROWS, &mut push),
        };
        let bytes = s.batch.bytes() - held;
        self.pipeline.produced(i, rows as u64);
        self.hand_on(i, sink)?;
        Ok(Drained { rows, bytes, more: rows >= BATCH_ROWS || bytes >= BATCH_BYTES })
    }

    /// Enriches what is in the batch of a source and takes it to the sink.
    fn hand_on(&mut self, i: usize, sink: &mut dyn Sink) -> Result<(), RunError> {
        let s = &mut self.state[i];
        s.batch.boot_to_wall = clocks::boot_to_wall();
        if let Some(stacks) = &mut self.stacks {
            stacks.look_ahead(i, &s.batch);
        }
        if let Some(e) = &mut s.enricher {
            e.process(&mut s.batch);
        }
        if let Some(stacks) = &mut self.stacks {
            stacks.fill(i, &mut s.batch);
        }
        if s.batch.is_empty() && s.batch.loss.is_empty() && self.sources[i].kind == SourceKind::Events {
            return Ok(());
        }
        let recorded = self.recording.as_mut().map_or(Ok(()), |r| r.batch(i as u32, &s.batch));
        let done = self.pipeline.process(i, &mut s.batch, sink);
        s.batch.clear();
        recorded.and(done)
    }

    /// Reads the kernel's loss counters and puts what is new into the account. One that fails does not stop the others.
    fn counters(&mut self, sink: &mut dyn Sink) -> Result<(), RunError> {
        let mut result = Ok(());
        let mut counts: Vec<_> = self.counters.iter_mut().map(|(reason, c)| (*reason, c.take())).collect();
        if self.state.is_empty() {
            for (reason, count) in counts.drain(..) {
                let new = count.map_err(|e| self.read_error("the loss counters", e))?;
                self.silent.produced += new;
                self.silent.loss.add(reason, new);
            }
        }
        for i in 0..self.state.len() {
            let ring_full = self.state[i].feed.as_mut().and_then(Feed::lost);
            let mut new = 0;
            // Those of the whole gadget go to its first source.
            for (reason, count) in ring_full.map(|n| (Reason::RingFull, n)).into_iter().chain(counts.drain(..)) {
                match count {
                    Ok(count) => {
                        self.state[i].batch.loss.add(reason, count);
                        new += count;
                    }
                    Err(e) => result = result.and(Err(self.read_error("the loss counters", e))),
                }
            }
            if new > 0 {
                self.pipeline.produced(i, new);
                result = result.and(self.hand_on(i, sink));
            }
        }
        result
    }

    /// Reads the tables whose time it is, once. A map is emptied by reading it.
    fn read_tables(&mut self, when: Tables, sink: &mut dyn Sink) -> Result<(), RunError> {
        let mut result = Ok(());
        for i in 0..self.state.len() {
            let s = &mut self.state[i];
            let Some(feed) = s.feed.as_mut().filter(|f| self.tables.reads(f, when)) else { continue };
            let batch = &mut s.batch;
            let mut push = |rec: &[u8]| {
                batch.push(rec);
            };
            let mut closed = Vec::new();
            let read = match (feed, &self.loaded) {
                (Feed::Iterator { programs }, Some(loaded)) => {
                    let Whose { selector, include, host_root } = &self.whose;
                    let containers = self.containers.as_ref();
                    let networks = || network_namespaces(containers, selector, include.host, host_root);
                    run_iterators(loaded, programs, networks, &mut push).map(|found| closed = found)
                }
                (Feed::Map { map }, _) => {
                    let mut row = Vec::new();
                    map.drain(|key, value| {
                        row.clear();
                        row.extend_from_slice(key);
                        row.extend_from_slice(value);
                        push(&row);
                    })
                    .map(|_| ())
                }
                (Feed::Host(table), _) => table.read(&mut push),
                _ => continue,
            };
            self.closed_networks(closed, sink);
            if let Some(stacks) = &mut self.stacks {
                stacks.join(i, &mut self.state[i].batch);
            }
            // What was read before a failure has left the kernel: it is shown and counted all the same.
            self.pipeline.produced(i, self.state[i].batch.len() as u64);
            let handed = self.hand_on(i, sink);
            result = result.and(read.map_err(|e| self.read_error("a table", e))).and(handed);
        }
        result
    }

    /// After detaching: everything the programs have written, the last counters, and rows that still wait for a name.
    /// An error ends the output, not the account: what comes after it is counted as not delivered.
    fn last_words(&mut self, sink: &mut dyn Sink) -> Result<(), RunError> {
        // A program that was running on another CPU when it was detached may still be writing its record.
        if sys::wait_for_running_programs().is_err() {
            std::thread::sleep(Duration::from_millis(2));
        }
        // Unless all that was asked for is shown.
        let mut result = if self.tables.done() { Ok(()) } else { self.read_tables(Tables::End, sink) };
        result = result.and(self.drain_all(sink));
        for _ in 0..LAST_LOOKS {
            if self.state.iter().all(Source::holds_nothing) {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
            result = result.and(self.drain_all(sink));
        }
        for i in 0..self.state.len() {
            let s = &mut self.state[i];
            if let Some(e) = &mut s.enricher {
                e.take_all(&mut s.batch);
            }
            if !s.batch.is_empty() {
                result = result.and(self.hand_on(i, sink));
            }
        }
        result = result.and(self.counters(sink));
        // A run that was too short to wait for names says it all the same.
        self.look_for_wanted = self.look_for_wanted.map(|_| Instant::now());
        self.container_notes(sink);
        self.stack_notes(sink);
        result
    }

    /// Empties the buffers of programs that write no more.
    fn drain_all(&mut self, sink: &mut dyn Sink) -> Result<(), RunError> {
        let mut result = Ok(());
        for i in 0..self.state.len() {
            // Bounded, should a record never be finished.
            let until = Instant::now() + DRAIN_AT_MOST;
            loop {
                match self.drain(i, sink) {
                    Err(e) => result = result.and(Err(e)),
                    Ok(d) if d.rows == 0 && self.state[i].pending() == 0 => break,
                    Ok(_) => {}
                }
                if Instant::now() >= until {
                    break;
                }
            }
        }
        result
    }
}
