//! Labels rows with their container, and leaves out the rows of containers that were not asked for.
//!
//! Runs on the event thread. Never waits: a row whose container is not decided yet is set aside with a copy of its record
//! and comes back with a later batch, at most two seconds on. Nothing leaves uncounted.

mod network;

use crate::containers::{Container, Containers, MEMBERS, Resolution, Selector, TableReader, Verdict};
use ig_event::{Batch, DataSource, Entity, FieldDef, FieldId, Kind, Reason, SourceKind, Storage};
use rustc_hash::FxHashMap;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// A field with this tag holds the number of the mount namespace.
const MNTNS_TAG: &str = "type:gadget_mntns_id";
/// A field with this tag holds the number of the network namespace.
const NETNS_TAG: &str = "type:gadget_netns_id";
/// Marks the number of a network namespace where those of mount namespaces are keys, too.
const IS_NETNS: u64 = 1 << 63;
/// How long a row waits; in tests, where the machine may stand still meanwhile, for what is told.
const WAIT: Duration = Duration::from_millis(if cfg!(test) { 600_000 } else { 2200 });
/// Rows set aside for one mount namespace, and for all.
const HELD_PER_NAMESPACE: usize = 4096;
const HELD_ROWS: usize = 65_536;
const HELD_BYTES: usize = 64 << 20;
/// How soon to look again at rows that wait.
const RETRY: Duration = Duration::from_millis(2);

/// Which rows are shown beside those of the programs in containers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Include {
    /// Of the host.
    pub host: bool,
    /// Of a container's runtime in the container's namespace, before the container's first program runs.
    pub setup: bool,
}

/// What is done with the rows of a namespace.
#[derive(Clone, Debug)]
enum Answer {
    Show(Arc<Entity>),
    /// Of a container whose name, or what the selection depends on, did not come in time.
    ShowUnlabelled(Option<Arc<Entity>>),
    ShowHost,
    LeaveOut,
    LeaveOutSetup,
    Wait,
}

/// An answer for every row of a namespace since `birth` (of a network: since those who are in it are the same), good until the
/// table changes.
struct Remembered {
    birth: u64,
    answer: Answer,
}

struct HeldRow {
    since: Instant,
    time: u64,
    record: Vec<u8>,
}

/// Comes before everything else in the pipeline. Use, once a batch: `clear` the batch, `take_ready`, fill it, `process`.
pub struct ContainerEnricher {
    /// Keeps the tracker going.
    _containers: Option<Containers>,
    reader: TableReader,
    selector: Arc<Selector>,
    include: Include,
    slot: u32,
    /// Offset of the mount namespace's number in the record, and of the network namespace's: one of them at least. The
    /// first decides where it is known, because containers may share a network.
    mntns: Option<u32>,
    netns: Option<u32>,
    /// Offset of the boot-clock time, if the record has one.
    time: Option<u32>,
    snapshot: bool,
    /// Rows were gathered over time, and their containers may have gone since.
    gathered: bool,
    remembered: FxHashMap<u64, Remembered>,
    held: FxHashMap<u64, Vec<HeldRow>>,
    held_rows: usize,
    held_bytes: usize,
    /// Rows at the start of the batch that `take_ready` put there, labelled.
    taken: usize,
}

impl ContainerEnricher {
    /// Adds the fields of a container to `source`; `None` where its records name no namespace, so that nothing can be said
    /// of their containers. Fields that the source has already under these names stay as they are.
    pub fn new(
        source: &mut DataSource,
        containers: Containers,
        selector: Arc<Selector>,
        include: Include,
    ) -> Option<Self> {
        let mut enricher = Self::with_reader(source, containers.reader(), selector, include)?;
        enricher._containers = Some(containers);
        Some(enricher)
    }

    fn with_reader(
        source: &mut DataSource,
        reader: TableReader,
        selector: Arc<Selector>,
        include: Include,
    ) -> Option<Self> {
        let place = |tag: &str, wanted: u32| {
            source.fields().iter().find_map(|f| match f.def.storage {
                Storage::Record { offset, size } if size == wanted && f.has_tag(tag) => Some(offset),
                _ => None,
            })
        };
        let (mntns, netns) = (place(MNTNS_TAG, 8), place(NETNS_TAG, 4));
        mntns.or(netns)?;
        let time = source.fields().iter().find_map(|f| match f.def.storage {
            Storage::BootTime { offset } => Some(offset),
            _ => None,
        });
        let slot = add_fields(source);
        Some(ContainerEnricher {
            _containers: None,
            reader,
            selector,
            include,
            slot,
            mntns,
            netns,
            time,
            snapshot: source.kind == SourceKind::Snapshot,
            gathered: false,
            remembered: FxHashMap::default(),
            held: FxHashMap::default(),
            held_rows: 0,
            held_bytes: 0,
            taken: 0,
        })
    }

    /// For a source whose rows programs gather in a map, having left out what was not asked for.
    pub fn of_gathered_rows(mut self) -> Self {
        self.gathered = true;
        self
    }

    /// Puts the rows whose wait is over into the empty `batch`, in order and labelled. They were counted as produced when
    /// they first arrived.
    pub fn take_ready(&mut self, batch: &mut Batch) {
        debug_assert!(batch.is_empty(), "rows that waited come first");
        self.refresh();
        self.release(batch, false);
        self.taken = batch.len();
    }

    /// As `take_ready`, for the last batch of a run: nobody waits any longer.
    pub fn take_all(&mut self, batch: &mut Batch) {
        debug_assert!(batch.is_empty(), "rows that waited come first");
        self.refresh();
        self.release(batch, true);
        self.taken = batch.len();
    }

    /// When to call `take_ready` again though no new row came; `None`: nothing waits.
    pub fn wait(&self) -> Option<Duration> {
        (self.held_rows > 0).then_some(RETRY)
    }

    /// Rows set aside.
    pub fn held(&self) -> usize {
        self.held_rows
    }

    /// Labels the rows of the batch, sets aside those of undecided containers, leaves out those not asked for.
    pub fn process(&mut self, batch: &mut Batch) {
        // With rows waiting, the table stays that of `take_ready`: a namespace's rows stay in order.
        if self.held_rows == 0 {
            self.refresh();
        }
        let mut last: Option<(u64, u64, Answer)> = None;
        let mut waiting = false;
        for row in self.taken..batch.len() {
            if !batch.is_live(row) {
                continue;
            }
            let time = self.time.map_or(u64::MAX, |offset| word(batch.record_bytes(row, offset, 8)));
            let mntns = self.key(batch, row, time);
            let answer = match &last {
                Some((ns, birth, answer)) if *ns == mntns && time >= *birth => answer.clone(),
                _ => {
                    let (answer, lasting) = self.answer(mntns, time);
                    last = lasting.map(|birth| (mntns, birth, answer.clone()));
                    answer
                }
            };
            match answer {
                Answer::Wait if self.snapshot => {
                    let time = if self.time.is_some() { time } else { self.reader.now() };
                    let answer = self.give_up(mntns, time);
                    self.apply(batch, row, answer);
                }
                Answer::Wait => {
                    waiting = true;
                    self.set_aside(batch, row, mntns, time);
                }
                answer => self.apply(batch, row, answer),
            }
        }
        self.taken = 0;
        if waiting {
            self.reader.catch_up();
        }
    }

    /// The number by which the row's container is found: of its mount namespace, unless that is not known or the host's; a
    /// packet of the host's programs in a container's network is the container's.
    fn key(&self, batch: &Batch, row: usize, time: u64) -> u64 {
        let at = |offset: Option<u32>, size| offset.map_or(0, |o| word(batch.record_bytes(row, o, size)));
        let (mntns, netns) = (at(self.mntns, 8), at(self.netns, 4));
        match netns {
            0 => mntns,
            _ if mntns == 0 || self.reader.resolve(mntns, time) == Resolution::Host => netns | IS_NETNS,
            _ => mntns,
        }
    }

    fn refresh(&mut self) {
        if self.reader.refresh() {
            self.remembered.clear();
        }
    }

    /// The answer for a row, and the time from which it holds for all rows of the namespace while the table stays.
    fn answer(&mut self, mntns: u64, time: u64) -> (Answer, Option<u64>) {
        if let Some(r) = self.remembered.get(&mntns)
            && time >= r.birth
        {
            return (r.answer.clone(), Some(r.birth));
        }
        // A source without times says when its rows happened only by their coming now.
        let time = if self.time.is_some() { time } else { self.reader.now() };
        if mntns & IS_NETNS != 0 {
            return self.answer_network(mntns, time);
        }
        let resolution = match mntns {
            // Of a process that has none any more, or whose namespace is not ours to see: nobody's container.
            0 if self.snapshot => Resolution::Host,
            _ => self.reader.resolve(mntns, time),
        };
        // The answer for the rows of a set-up is not that for those after it.
        let (lasting, from) = match &resolution {
            Resolution::Host => (true, 0),
            Resolution::Known(c) => (c.pid != 0, c.first_exec),
            Resolution::Pending | Resolution::Unknown => (false, 0),
        };
        let answer = match &resolution {
            Resolution::Known(_) if self.has_times() && self.reader.may_be_the_next_ones(mntns, time) => Answer::Wait,
            Resolution::Known(c) if self.is_setup(c, mntns, time) == Some(true) => Answer::LeaveOutSetup,
            Resolution::Known(c) if self.is_setup(c, mntns, time).is_none() => Answer::Wait,
            _ => self.judge(&resolution),
        };
        let birth = self.reader.present_birth(mntns).map(|birth| birth.max(from));
        let birth = birth.filter(|birth| lasting && time >= *birth);
        if let Some(birth) = birth {
            self.remembered.insert(mntns, Remembered { birth, answer: answer.clone() });
        }
        (answer, birth)
    }

    /// Whether its rows say when they happened, and can wait.
    fn has_times(&self) -> bool {
        self.time.is_some() && !self.snapshot
    }

    /// Whether a row is of the container's set-up; `None`: that shows when its first program runs.
    fn is_setup(&self, c: &Container, mntns: u64, time: u64) -> Option<bool> {
        if self.include.setup || self.time.is_none() || self.snapshot || c.mntns != mntns {
            return Some(false);
        }
        if c.pid == 0 && self.reader.may_have_missed() {
            // Its first program may be what was missed; then these are its rows.
            return Some(false);
        }
        (c.pid != 0).then_some(time < c.first_exec)
    }

    fn judge(&self, resolution: &Resolution) -> Answer {
        match resolution {
            Resolution::Known(c) => self.judge_container(c),
            Resolution::Host if self.include.host => Answer::ShowHost,
            Resolution::Host => Answer::LeaveOut,
            Resolution::Pending => Answer::Wait,
            // The kernel let it into the table, so it was of a container that was asked for.
            Resolution::Unknown if self.gathered && !self.include.host => Answer::ShowUnlabelled(None),
            // The tracker saw everything, so nobody's container it is; else it may be one that was missed.
            Resolution::Unknown if self.reader.may_have_missed() => Answer::ShowUnlabelled(None),
            Resolution::Unknown if self.include.host => Answer::ShowHost,
            Resolution::Unknown => Answer::LeaveOut,
        }
    }

    fn judge_container(&self, c: &Container) -> Answer {
        match self.selector.verdict(c) {
            Verdict::No => Answer::LeaveOut,
            Verdict::Yes if c.name.is_some() => Answer::Show(c.entity().clone()),
            // Its image's digest or its pod's labels decide, and are on their way.
            Verdict::Unknown if c.is_settling() => Answer::Wait,
            Verdict::Yes | Verdict::Unknown => Answer::ShowUnlabelled(Some(c.entity().clone())),
        }
    }

    fn apply(&self, batch: &mut Batch, row: usize, answer: Answer) {
        match answer {
            Answer::Show(entity) => batch.set_entity(self.slot, row, Some(entity)),
            Answer::ShowUnlabelled(entity) => {
                batch.set_entity(self.slot, row, entity);
                batch.loss.add(Reason::Unlabelled, 1);
            }
            Answer::ShowHost => {}
            Answer::LeaveOut => batch.discard(row, Reason::OtherContainer),
            Answer::LeaveOutSetup => batch.discard(row, Reason::Setup),
            Answer::Wait => {}
        }
    }

    fn set_aside(&mut self, batch: &mut Batch, row: usize, mntns: u64, time: u64) {
        let record = batch.record(row);
        let rows = self.held.entry(mntns).or_default();
        let full = rows.len() >= HELD_PER_NAMESPACE
            || self.held_rows >= HELD_ROWS
            || self.held_bytes + record.len() > HELD_BYTES;
        if full {
            return batch.discard(row, Reason::HoldOverflow);
        }
        self.held_rows += 1;
        self.held_bytes += record.len();
        rows.push(HeldRow { since: Instant::now(), time, record: record.to_vec() });
        batch.withdraw(row);
    }

    /// Moves rows whose container is decided, or whose time is up, into the batch.
    fn release(&mut self, batch: &mut Batch, at_once: bool) {
        if self.held_rows == 0 {
            return;
        }
        for (mntns, mut rows) in std::mem::take(&mut self.held) {
            let mut kept = 0;
            for row in &rows {
                let (mut answer, _) = self.answer(mntns, row.time);
                if matches!(answer, Answer::Wait) {
                    if !at_once && row.since.elapsed() < WAIT {
                        break;
                    }
                    answer = self.give_up(mntns, row.time);
                }
                let number = batch.push(&row.record);
                self.apply(batch, number, answer);
                self.held_bytes -= row.record.len();
                kept += 1;
            }
            self.held_rows -= kept;
            rows.drain(..kept);
            if !rows.is_empty() {
                self.held.insert(mntns, rows);
            }
        }
        if self.held_rows > 0 {
            self.reader.catch_up();
        }
    }

    /// What is known by now has to do: never dropped in silence.
    fn give_up(&self, mntns: u64, time: u64) -> Answer {
        if mntns & IS_NETNS != 0 {
            return self.give_up_network(mntns, time);
        }
        match self.reader.owner(mntns, time) {
            Some(c) if self.selector.verdict(&c) == Verdict::No => Answer::LeaveOut,
            // No program of its own in all this time: it is set up and not started, or never will be.
            Some(c) if c.complete && self.is_setup(&c, mntns, time) != Some(false) => Answer::LeaveOutSetup,
            Some(c) => Answer::ShowUnlabelled(Some(c.entity().clone())),
            None => Answer::ShowUnlabelled(None),
        }
    }
}

fn word(bytes: &[u8]) -> u64 {
    let mut w = [0; 8];
    w[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(w)
}

/// Adds `k8s.*` and `runtime.*` and returns their entity slot.
pub(crate) fn add_fields(source: &mut DataSource) -> u32 {
    let slot = source.new_entity_slot();
    let mut groups: Vec<(&str, FieldId)> = Vec::new();
    for (member, m) in MEMBERS.iter().enumerate() {
        let group = match groups.iter().find(|(name, _)| *name == m.group) {
            Some((_, id)) => *id,
            None => {
                let existing = source.find(m.group).map(|f| f.id);
                let Some(id) = existing.or_else(|| source.add(FieldDef::new(m.group, Kind::Bytes, Storage::Group)))
                else {
                    continue;
                };
                groups.push((m.group, id));
                id
            }
        };
        // Before every field of the gadget: -31 … as users of upstream know them.
        let order = member as i64 - 31;
        let mut def = FieldDef::new(m.name, m.kind, Storage::Entity { slot, member: member as u32 })
            .under(group)
            .annotate("description", m.description)
            .annotate("columns.order", order.to_string());
        if m.hidden {
            def = def.annotate("columns.hidden", "true");
        }
        if m.width > 0 {
            def = def.annotate("columns.width", m.width.to_string());
        }
        // Of a name that the gadget has already nothing is added: its field stays.
        source.add(def);
    }
    slot
}

#[cfg(test)]
mod tests;
