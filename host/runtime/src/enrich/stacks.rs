//! Stacks onto rows: ids in the maps `ig_kstack` and `ig_ustack` become the names of functions.
//!
//! Runs on the event thread, which also owns the symbols. A stack is named when its row is first seen, because processes
//! do not wait; what was named is kept, bounded. A row whose stack found no room in the kernel's map is shown without it
//! and counted.

use crate::{
    bpf::maps::RawMap,
    host_root,
    symbols::{Symbolizer, Taken},
};
use ig_event::{
    Batch, DataSource, Entity, EntityValue, FieldDef, FieldId, Kind, Reason, Storage,
    output::{KERNEL_STACK_TAG, USER_STACK_TAG, WEIGHT},
};
use rustc_hash::{FxHashMap, FxHashSet};
use std::{
    collections::hash_map::Entry,
    fs,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Maps of the gadget that hold stacks, by upstream's names.
pub const KERNEL_MAP: &str = "ig_kstack";
pub const USER_MAP: &str = "ig_ustack";
const KERNEL_TAG: &str = "type:gadget_kernel_stack";
const USER_TAG: &str = "type:gadget_user_stack";
/// Named stacks that are kept; when there are more, all are dropped and named again as needed.
const MAX_KEPT: usize = 32_768;
/// Members of the object that a row's stack is.
const TEXT: usize = 0;
const ADDRESSES: usize = 1;

/// Where a record says which process a stack is of.
#[derive(Clone, Copy, Debug)]
struct UserFields {
    exe_inode: Option<u32>,
    mtime_sec: Option<u32>,
    mtime_nsec: Option<u32>,
    pid0: Option<u32>,
    pidns0: Option<u32>,
    pid1: Option<u32>,
    pidns1: Option<u32>,
}

/// One field that is a stack.
#[derive(Clone, Copy, Debug)]
struct Place {
    slot: u32,
    /// Offset of the id in the record.
    id: u32,
    /// `None`: of the kernel.
    user: Option<UserFields>,
}

/// The process that a stack is of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Whose {
    pid: u32,
    pidns: u32,
    below: u32,
    below_ns: u32,
    exe_inode: u64,
    mtime: (u64, u32),
}

/// What an id comes to.
#[derive(Clone, Debug)]
enum Answer {
    Stack(Arc<Entity>),
    None,
    /// The kernel took a stack and had no room for it.
    Lost,
}

/// Names the stacks of all sources of a gadget.
pub struct Stacks {
    symbols: Symbolizer,
    proc: Option<PathBuf>,
    /// The pid namespace of /proc, where that is not the host's.
    own_pidns: Option<u32>,
    places: Vec<Vec<Place>>,
    /// By source: where in a record it is counted how often its stacks were found.
    weights: Vec<Option<u32>>,
    kernel: Option<RawMap<OwnedFd>>,
    user: Option<RawMap<OwnedFd>>,
    taken: Taken,
    /// `None` as process: of the kernel.
    kept: FxHashMap<(u32, Option<Whose>), Answer>,
    /// Ids that were looked up since the maps were last emptied.
    seen_kernel: FxHashSet<u32>,
    seen_user: FxHashSet<u32>,
    /// A stack found no room.
    crowded: bool,
    told: bool,
}

impl Stacks {
    /// Adds the texts of stacks to the sources that have any; `None` where none has.
    pub fn new(sources: &mut [DataSource], host_root: &Path) -> Option<Stacks> {
        let places: Vec<Vec<Place>> = sources.iter_mut().map(add_fields).collect();
        if places.iter().all(Vec::is_empty) {
            return None;
        }
        let weights = sources.iter().map(weight).collect();
        let proc = host_root::proc(host_root);
        let own_pidns = match proc {
            Some(_) => None,
            None => fs::metadata("/proc/self/ns/pid").ok().map(|m| m.ino() as u32),
        };
        // a container's own numbers are good for the processes of the container
        let symbols = Symbolizer::new(proc.clone().or_else(|| own_pidns.map(|_| "/proc".into())));
        Some(Stacks {
            symbols,
            proc,
            own_pidns,
            places,
            weights,
            kernel: None,
            user: None,
            taken: Taken::InCall,
            kept: FxHashMap::default(),
            seen_kernel: FxHashSet::default(),
            seen_user: FxHashSet::default(),
            crowded: false,
            told: false,
        })
    }

    /// The maps, once they exist, and how stacks come into that of the kernel.
    pub fn set_maps(&mut self, kernel: Option<OwnedFd>, user: Option<OwnedFd>, taken: Taken) -> std::io::Result<()> {
        self.taken = taken;
        let usable = |m: &RawMap<OwnedFd>| m.info().key_size == 4 && m.info().value_size.is_multiple_of(8);
        self.kernel = kernel.map(RawMap::new).transpose()?.filter(usable);
        self.user = user.map(RawMap::new).transpose()?.filter(usable);
        Ok(())
    }

    /// Names the stacks of rows while their processes are there, before rows are set aside for other reasons.
    pub fn look_ahead(&mut self, source: usize, batch: &Batch) {
        for at in 0..self.places[source].len() {
            let place = self.places[source][at];
            for row in batch.iter() {
                self.answer(batch, row, place);
            }
        }
    }

    /// Makes one of those rows of a table that differ in nothing but at which places in the same functions they were found.
    /// Addresses and ids are those of the first. To be called before the rows are counted.
    pub fn join(&mut self, source: usize, batch: &mut Batch) {
        let Some(weight) = self.weights[source] else { return };
        let mut texts: FxHashMap<Box<str>, u32> = FxHashMap::default();
        let mut found: FxHashMap<Vec<u8>, usize> = FxHashMap::default();
        let mut joined: Vec<Vec<u8>> = Vec::new();
        for row in batch.iter() {
            let mut key = batch.record(row).to_vec();
            for at in 0..self.places[source].len() {
                let place = self.places[source][at];
                let Answer::Stack(entity) = self.answer(batch, row, place) else { continue };
                let Some(EntityValue::Text(text)) = entity.values.get(TEXT) else { continue };
                let next = texts.len() as u32;
                let number = texts.get(text).copied().unwrap_or_else(|| *texts.entry(text.clone()).or_insert(next));
                replace(&mut key, place.id, &number.to_le_bytes());
            }
            let count = long(&key, weight);
            replace(&mut key, weight, &[0; 8]);
            match found.entry(key) {
                Entry::Occupied(same) => {
                    let sum = long(&joined[*same.get()], weight).saturating_add(count);
                    replace(&mut joined[*same.get()], weight, &sum.to_le_bytes());
                }
                Entry::Vacant(new) => {
                    new.insert(joined.len());
                    joined.push(batch.record(row).to_vec());
                }
            }
        }
        if joined.len() < batch.live() {
            let loss = std::mem::take(&mut batch.loss);
            batch.clear();
            batch.loss = loss;
            for record in &joined {
                batch.push(record);
            }
        }
    }

    /// Gives every live row its stacks.
    pub fn fill(&mut self, source: usize, batch: &mut Batch) {
        for at in 0..self.places[source].len() {
            let place = self.places[source][at];
            for row in 0..batch.len() {
                if !batch.is_live(row) {
                    continue;
                }
                match self.answer(batch, row, place) {
                    Answer::Stack(entity) => batch.set_entity(place.slot, row, Some(entity)),
                    Answer::None => {}
                    Answer::Lost => batch.loss.add(Reason::Stackless, 1),
                }
            }
        }
    }

    /// Empties the maps of stacks where room has become scarce. To be called when no row with an id is on its way, nor set
    /// aside: it would get no stack, or another that has its id by then.
    pub fn make_room(&mut self) {
        let half = |m: &Option<RawMap<OwnedFd>>| m.as_ref().map_or(usize::MAX, |m| m.info().max_entries as usize / 2);
        let full = self.seen_kernel.len() > half(&self.kernel) || self.seen_user.len() > half(&self.user);
        if !full && !self.crowded {
            return;
        }
        self.crowded = false;
        self.kept.clear();
        for (map, seen) in [(&self.kernel, &mut self.seen_kernel), (&self.user, &mut self.seen_user)] {
            let Some(map) = map else { continue };
            for id in seen.drain() {
                // one that is gone already is as good
                let (Ok(_) | Err(_)) = map.delete(&id.to_le_bytes());
            }
        }
    }

    /// Something that people should know and were not told yet.
    pub fn note(&mut self) -> Option<String> {
        if let Some(note) = self.symbols.take_note() {
            return Some(note);
        }
        if self.told || self.seen_kernel.is_empty() {
            return None;
        }
        self.told = true;
        (!self.symbols.knows_kernel()).then(|| {
            "functions of the kernel are shown as addresses, because it hides where they are (kernel.kptr_restrict, or no \
             CAP_SYSLOG)"
                .to_owned()
        })
    }

    fn answer(&mut self, batch: &Batch, row: usize, place: Place) -> Answer {
        let record = batch.record(row);
        let id = word(record, place.id);
        let whose = place.user.map(|u| whose(record, u));
        // the kernel's errors, as bpf_get_stackid gives them
        match id as i32 {
            e if e == -libc::EEXIST || e == -libc::ENOMEM => {
                self.crowded = true;
                return Answer::Lost;
            }
            ..0 => return Answer::None,
            _ => {}
        }
        if whose.is_some_and(|w| w.pid == 0 && w.exe_inode == 0) {
            return Answer::None;
        }
        if let Some(known) = self.kept.get(&(id, whose)) {
            return known.clone();
        }
        let answer = self.name(id, whose);
        // One that is not in the map now may be there for the next row: the same stack has the same id.
        if matches!(answer, Answer::Lost) {
            return answer;
        }
        if self.kept.len() >= MAX_KEPT {
            self.kept.clear();
        }
        self.kept.insert((id, whose), answer.clone());
        answer
    }

    fn name(&mut self, id: u32, whose: Option<Whose>) -> Answer {
        let (map, seen) = match whose {
            None => (&self.kernel, &mut self.seen_kernel),
            Some(_) => (&self.user, &mut self.seen_user),
        };
        let Some(map) = map else { return Answer::None };
        let Ok(Some(value)) = map.lookup(&id.to_le_bytes()) else { return Answer::Lost };
        seen.insert(id);
        let words = value.as_chunks::<8>().0.iter().map(|b| u64::from_le_bytes(*b));
        let addresses: Vec<u64> = words.take_while(|a| *a != 0).collect();
        let mut text = String::new();
        match whose {
            None => self.symbols.kernel_stack(&addresses, self.taken, &mut text),
            Some(w) => {
                let pid = self.pid(w);
                let written = (w.mtime != (0, 0)).then_some(w.mtime);
                self.symbols.user_stack(pid, &addresses, written, &mut text);
            }
        }
        let list: Vec<String> = addresses.iter().enumerate().map(|(n, a)| format!("[{n}]{a:#018x}")).collect();
        let mut values = vec![EntityValue::Uint(0); 2];
        values[TEXT] = EntityValue::Text(text.into());
        values[ADDRESSES] = EntityValue::Text(list.join("; ").into());
        Answer::Stack(Arc::new(Entity { values }))
    }

    /// The number that /proc knows the process by; 0, which none has, where it knows it by none.
    fn pid(&self, w: Whose) -> u32 {
        match (&self.proc, self.own_pidns) {
            (Some(_), _) => w.pid,
            (None, Some(own)) if own == w.below_ns => w.below,
            (None, Some(own)) if own == w.pidns => w.pid,
            _ => 0,
        }
    }
}

fn word(record: &[u8], at: u32) -> u32 {
    let bytes = record.get(at as usize..at as usize + 4);
    bytes.and_then(|b| b.try_into().ok()).map_or(0, u32::from_le_bytes)
}

fn long(record: &[u8], at: u32) -> u64 {
    u64::from(word(record, at)) | u64::from(word(record, at + 4)) << 32
}

fn replace(record: &mut [u8], at: u32, bytes: &[u8]) {
    // a record that is too short is left out as malformed later
    if let Some(place) = record.get_mut(at as usize..at as usize + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

/// Where rows count how often their stacks were found.
fn weight(source: &DataSource) -> Option<u32> {
    source.fields().iter().filter(|f| f.flag(WEIGHT)).find_map(|f| match f.def.storage {
        Storage::Record { offset, size: 8 } if f.def.kind.is_unsigned() => Some(offset),
        _ => None,
    })
}

fn whose(record: &[u8], u: UserFields) -> Whose {
    let small = |at: Option<u32>| at.map_or(0, |at| word(record, at));
    let large = |at: Option<u32>| at.map_or(0, |at| long(record, at));
    Whose {
        pid: small(u.pid0),
        pidns: small(u.pidns0),
        below: small(u.pid1),
        below_ns: small(u.pidns1),
        exe_inode: large(u.exe_inode),
        mtime: (large(u.mtime_sec), small(u.mtime_nsec)),
    }
}

/// The text of a stack stands beside a field `x_raw` as `x`; of a struct under another name it is a member.
fn add_fields(source: &mut DataSource) -> Vec<Place> {
    let mut places = Vec::new();
    let ids = |source: &DataSource, tag: &str| -> Vec<FieldId> {
        source.fields().iter().filter(|f| f.has_tag(tag)).map(|f| f.id).collect()
    };
    for id in ids(source, KERNEL_TAG) {
        let field = source.field(id).clone();
        let Storage::Record { offset, size: 4 } = field.def.storage else { continue };
        let Some(name) = field.def.name.strip_suffix("_raw").map(str::to_owned) else { continue };
        let slot = source.new_entity_slot();
        if source.add(text(&name, slot, TEXT, KERNEL_STACK_TAG, field.def.parent)).is_some() {
            hide(source, id);
            places.push(Place { slot, id: offset, user: None });
        }
    }
    for group in ids(source, USER_TAG) {
        let member = |name: &str| {
            source.children(Some(group)).find(|f| f.def.name == name).and_then(|f| match f.def.storage {
                Storage::Record { offset, .. } => Some(offset),
                _ => None,
            })
        };
        let Some(id) = member("stack_id") else { continue };
        let user = UserFields {
            exe_inode: member("exe_inode"),
            mtime_sec: member("mtime_sec"),
            mtime_nsec: member("mtime_nsec"),
            pid0: member("pid_level0"),
            pidns0: member("pidns_level0"),
            pid1: member("pid_level1"),
            pidns1: member("pidns_level1"),
        };
        let field = source.field(group).clone();
        let members: Vec<FieldId> = source.children(Some(group)).map(|f| f.id).collect();
        members.into_iter().for_each(|m| hide(source, m));
        let slot = source.new_entity_slot();
        let beside = field.def.name.strip_suffix("_raw").map(str::to_owned);
        let (name, parent) = match &beside {
            Some(name) => (name.as_str(), field.def.parent),
            None => ("symbols", Some(group)),
        };
        if source.add(text(name, slot, TEXT, USER_STACK_TAG, parent)).is_some() {
            source.add(
                text("addresses", slot, ADDRESSES, "name:addresses", Some(group)).annotate("columns.hidden", "true"),
            );
            places.push(Place { slot, id, user: Some(user) });
        }
    }
    places
}

fn hide(source: &mut DataSource, id: FieldId) {
    source.field_mut(id).def.annotations.insert("columns.hidden".into(), "true".into());
}

fn text(name: &str, slot: u32, member: usize, tag: &str, parent: Option<FieldId>) -> FieldDef {
    let mut def = FieldDef::new(name, Kind::Text, Storage::Entity { slot, member: member as u32 })
        .tag(tag)
        .annotate("columns.width", "40");
    def.parent = parent;
    def
}

#[cfg(test)]
mod tests {
    use super::*;
    use ig_event::SourceKind;

    fn source() -> DataSource {
        let mut s = DataSource::new("t", SourceKind::Events, 48);
        let at = |offset, size| Storage::Record { offset, size };
        s.add(FieldDef::new("kstack_raw", Kind::U32, at(0, 4)).tag(KERNEL_TAG)).unwrap();
        for (name, base) in [("ustack_raw", 8), ("other", 32)] {
            let g = s.add(FieldDef::new(name, Kind::Bytes, Storage::Group).tag(USER_TAG)).unwrap();
            s.add(FieldDef::new("stack_id", Kind::U32, at(base, 4)).under(g)).unwrap();
            s.add(FieldDef::new("pid_level0", Kind::U32, at(base + 4, 4)).under(g)).unwrap();
        }
        s
    }

    fn record(kernel: i32, user: i32, pid: u32) -> Vec<u8> {
        let mut r = vec![0; 48];
        r[..4].copy_from_slice(&kernel.to_le_bytes());
        r[8..12].copy_from_slice(&user.to_le_bytes());
        r[12..16].copy_from_slice(&pid.to_le_bytes());
        r
    }

    #[test]
    fn texts_stand_where_people_look_for_them() {
        let mut sources = [source()];
        let stacks = Stacks::new(&mut sources, Path::new("/")).unwrap();
        assert_eq!(stacks.places[0].len(), 3);
        let s = &sources[0];
        for name in ["kstack", "ustack", "ustack_raw.addresses", "other.symbols", "other.addresses"] {
            assert!(s.find(name).is_some(), "{name}");
        }
        assert!(s.find("kstack_raw").unwrap().hidden() && !s.find("ustack").unwrap().hidden());
        assert!(s.find("other.stack_id").unwrap().hidden() && !s.find("other.symbols").unwrap().hidden());
    }

    #[test]
    fn a_gadget_without_stacks_has_nothing_to_do_with_them() {
        let mut sources = [DataSource::new("t", SourceKind::Events, 8)];
        assert!(Stacks::new(&mut sources, Path::new("/")).is_none());
        assert!(sources[0].fields().is_empty());
    }

    #[test]
    fn rows_whose_stacks_read_the_same_are_one() {
        let mut source = source();
        let at = Storage::Record { offset: 40, size: 8 };
        source.add(FieldDef::new("samples", Kind::U64, at).annotate(WEIGHT, "true")).unwrap();
        let mut sources = [source];
        let mut stacks = Stacks::new(&mut sources, Path::new("/")).unwrap();
        for (id, text) in [(1, "[0]f"), (2, "[0]f"), (3, "[0]g")] {
            let values = vec![EntityValue::Text(text.into()), EntityValue::Text("".into())];
            stacks.kept.insert((id, None), Answer::Stack(Arc::new(Entity { values })));
        }
        let [source] = sources;
        let mut batch = Batch::new(Arc::new(source));
        // kernel's stack, a number that is of the row, samples
        let rows = [(1, 7, 10), (3, 7, 1), (2, 7, 5), (2, 8, 3), (-libc::EFAULT, 7, 2), (-libc::EFAULT, 7, 4)];
        for (kernel, pid, samples) in rows {
            let mut record = record(kernel, -libc::EFAULT, pid);
            record[32..36].copy_from_slice(&(-libc::EFAULT).to_le_bytes());
            record[40..].copy_from_slice(&u64::to_le_bytes(samples));
            batch.push(&record);
        }
        batch.loss.add(Reason::MapFull, 2);
        stacks.join(0, &mut batch);
        let left: Vec<(u32, u32, u64)> = batch
            .iter()
            .map(|row| batch.record(row))
            .map(|record| (word(record, 0), word(record, 12), long(record, 40)))
            .collect();
        assert_eq!(left, [(1, 7, 15), (3, 7, 1), (2, 8, 3), (-libc::EFAULT as u32, 7, 6)]);
        assert_eq!(batch.loss.get(Reason::MapFull), 2);
    }

    #[test]
    fn stacks_that_found_no_room_are_counted_and_those_never_taken_are_not() {
        let mut sources = [source()];
        let mut stacks = Stacks::new(&mut sources, Path::new("/")).unwrap();
        let [source] = sources;
        let mut batch = Batch::new(Arc::new(source));
        batch.push(&record(-libc::EEXIST, -libc::ENOMEM, 7));
        batch.push(&record(-libc::EFAULT, -libc::EFAULT, 7));
        batch.push(&record(-1, 0, 0));
        stacks.fill(0, &mut batch);
        assert_eq!(batch.loss.get(Reason::Stackless), 2);
        assert_eq!(batch.live(), 3);
        assert!(stacks.crowded);
        stacks.make_room();
        assert!(!stacks.crowded);
    }
}
