//! What a row shares with the row before it. Events come in bursts from one process, so that most of a line stands in the
//! output already: it is copied from there, and only values whose inputs differ are written anew.
//!
//! A printer owns one of each; nothing here knows a format. Steps are values in the order in which they are written.

use crate::{Batch, DataSource, Entity, FieldId, Storage, value::Row};
use std::{ops::Range, sync::Arc};

/// Words of 8 bytes of a record that are told apart; what lies behind them counts as one.
const WORDS: usize = 63;
/// Steps that are told apart; the last bit stands for all that follow.
const LAST_STEP: usize = 63;

/// Steps as bits; see [`Steps::each`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Steps(u64);

impl Steps {
    const ALL: Steps = Steps(u64::MAX);

    fn one(step: usize) -> Self {
        Steps(1 << step.min(LAST_STEP))
    }

    /// Those of `count` steps that are set.
    pub(super) fn each(self, count: usize) -> impl Iterator<Item = usize> {
        let mut bits = self.0 & !(1 << LAST_STEP);
        let single = std::iter::from_fn(move || {
            let step = (bits != 0).then_some(bits.trailing_zeros() as usize)?;
            bits &= bits - 1;
            Some(step)
        });
        let rest = if self.0 >> LAST_STEP == 0 { count } else { LAST_STEP };
        single.take_while(move |s| *s < count).chain(rest..count)
    }
}

/// Which steps depend on what, and what the last row was.
#[derive(Debug)]
pub(super) struct Changes {
    /// Steps by the word of the record they read.
    words: [u64; WORDS],
    /// Steps that read what lies behind the words.
    behind: u64,
    /// Steps that read a word or anything after it.
    from: [u64; WORDS + 1],
    /// Steps whose inputs are not compared: columns are filled anew for each batch.
    always: u64,
    /// Steps that depend on the offset between the clocks.
    clock: u64,
    /// Steps by entity slot.
    slots: Vec<u64>,
    seen: bool,
    record: Vec<u8>,
    boot_to_wall: i64,
    /// Held, so that an address is not used again.
    entities: Vec<Option<Arc<Entity>>>,
}

impl Changes {
    /// `inputs` are the fields that each step reads.
    pub(super) fn new(source: &DataSource, inputs: &[Vec<FieldId>]) -> Self {
        let slots = source.entity_slots() as usize;
        let mut changes = Changes {
            words: [0; WORDS],
            behind: 0,
            from: [0; WORDS + 1],
            always: 0,
            clock: 0,
            slots: vec![0; slots],
            seen: false,
            record: Vec::new(),
            boot_to_wall: 0,
            entities: vec![None; slots],
        };
        for (step, fields) in inputs.iter().enumerate() {
            let Steps(bit) = Steps::one(step);
            for field in fields {
                changes.depends(bit, &source.field(*field).def.storage);
            }
        }
        let mut after = changes.behind;
        for (word, from) in changes.from.iter_mut().enumerate().rev() {
            after |= changes.words.get(word).copied().unwrap_or(0);
            *from = after;
        }
        changes
    }

    fn depends(&mut self, bit: u64, on: &Storage) {
        match on {
            Storage::Record { offset, size } => self.reads(bit, *offset as usize, *size as usize),
            Storage::BootTime { offset } => {
                self.reads(bit, *offset as usize, 8);
                self.clock |= bit;
            }
            Storage::Column(_) => self.always |= bit,
            Storage::Entity { slot, .. } => match self.slots.get_mut(*slot as usize) {
                Some(steps) => *steps |= bit,
                None => self.always |= bit,
            },
            // Its inputs are among the fields of the step; a constant never changes.
            Storage::Derived { .. } | Storage::Constant(_) | Storage::Group => {}
        }
    }

    fn reads(&mut self, bit: u64, offset: usize, size: usize) {
        for word in offset / 8..(offset + size).div_ceil(8).min(WORDS) {
            self.words[word] |= bit;
        }
        if offset + size > WORDS * 8 {
            self.behind |= bit;
        }
    }

    /// The steps whose text may differ from that of the last row this was asked for.
    pub(super) fn since_last(&mut self, row: Row<'_>) -> Steps {
        let record = row.batch.record(row.index);
        let mut steps = self.always | self.in_record(record);
        self.record.clear();
        self.record.extend_from_slice(record);
        if self.boot_to_wall != row.batch.boot_to_wall {
            self.boot_to_wall = row.batch.boot_to_wall;
            steps |= self.clock;
        }
        steps |= self.in_entities(row.batch, row.index);
        if std::mem::replace(&mut self.seen, true) { Steps(steps) } else { Steps::ALL }
    }

    fn in_record(&self, record: &[u8]) -> u64 {
        let (old, old_rest) = self.record.as_chunks::<8>();
        let (new, new_rest) = record.as_chunks::<8>();
        let mut steps = 0;
        for ((old, new), readers) in old.iter().zip(new).zip(&self.words) {
            steps |= if u64::from_ne_bytes(*old) == u64::from_ne_bytes(*new) { 0 } else { *readers };
        }
        if self.record.len() != record.len() {
            let same = self.record.len().min(record.len());
            steps |= self.from[(same / 8).min(WORDS)];
        } else if record.len() > WORDS * 8 {
            if self.record[WORDS * 8..] != record[WORDS * 8..] {
                steps |= self.behind;
            }
        } else if old_rest != new_rest {
            steps |= self.from[new.len()];
        }
        steps
    }

    fn in_entities(&mut self, batch: &Batch, row: usize) -> u64 {
        let mut steps = 0;
        for (slot, (readers, last)) in self.slots.iter().zip(&mut self.entities).enumerate() {
            let now = batch.entity(slot as u32, row);
            if now.map(Arc::as_ptr) != last.as_ref().map(Arc::as_ptr) {
                *last = now.cloned();
                steps |= readers;
            }
        }
        steps
    }
}

/// Where the value of each step stands in the text of the last row.
#[derive(Debug, Default)]
pub(super) struct Line {
    spans: Vec<Range<usize>>,
    /// Of the whole text.
    len: usize,
}

impl Line {
    /// Forgets the last row; tell of each step of the next one with `mark`, then `end` it.
    pub(super) fn clear(&mut self) {
        self.spans.clear();
    }

    /// Tells where the value of the next step stands, from the start of its row.
    pub(super) fn mark(&mut self, span: Range<usize>) {
        self.spans.push(span);
    }

    pub(super) fn end(&mut self, len: usize) {
        self.len = len;
    }

    /// Appends the last row, whose text starts at `last` in `out`, with other values of `steps`, which `write` appends.
    pub(super) fn repeat(
        &mut self,
        last: usize,
        steps: Steps,
        out: &mut Vec<u8>,
        mut write: impl FnMut(usize, &mut Vec<u8>),
    ) {
        let first = out.len();
        // What was taken of the last row, and how many steps of it; how much further right everything stands now.
        let (mut taken, mut done, mut shift) = (0, 0, 0usize);
        for step in steps.each(self.spans.len()) {
            self.shift(done..step, shift);
            let old = self.spans[step].clone();
            out.extend_from_within(last + taken..last + old.start);
            let start = out.len() - first;
            write(step, out);
            let end = out.len() - first;
            self.spans[step] = start..end;
            (taken, done, shift) = (old.end, step + 1, end.wrapping_sub(old.end));
        }
        self.shift(done..self.spans.len(), shift);
        out.extend_from_within(last + taken..last + self.len);
        self.len = out.len() - first;
    }

    /// `by` is a difference that may have wrapped.
    fn shift(&mut self, steps: Range<usize>, by: usize) {
        if by == 0 {
            return;
        }
        for span in &mut self.spans[steps] {
            *span = span.start.wrapping_add(by)..span.end.wrapping_add(by);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FieldDef, Kind, SourceKind};

    #[test]
    fn steps_past_the_last_bit_go_together() {
        let each = |steps: Steps, count| steps.each(count).collect::<Vec<_>>();
        assert_eq!(each(Steps(0b1010), 3), [1]);
        assert_eq!(each(Steps(0b1010), 64), [1, 3]);
        assert_eq!(each(Steps(Steps::one(70).0 | 1), 66), [0, 63, 64, 65]);
        assert_eq!(each(Steps::ALL, 66), (0..66).collect::<Vec<_>>());
    }

    #[test]
    fn a_row_is_the_one_before_with_other_values() {
        let (mut line, mut out) = (Line::default(), b"before<one<<three>".to_vec());
        [1..4, 5..5, 6..11].into_iter().for_each(|s| line.mark(s));
        line.end(12);
        let mut last = 6;
        let mut now = |values: &[(usize, &str)]| {
            let steps = values.iter().fold(0, |bits, (step, _)| bits | 1 << step);
            let start = out.len();
            line.repeat(last, Steps(steps), &mut out, |step, out| {
                out.extend(values.iter().filter(|(s, _)| *s == step).flat_map(|(_, v)| v.bytes()));
            });
            last = start;
            String::from_utf8(out[start..].to_vec()).unwrap()
        };
        assert_eq!(now(&[]), "<one<<three>");
        assert_eq!(now(&[(1, "two")]), "<one<two<three>");
        assert_eq!(now(&[(0, ""), (2, "3")]), "<<two<3>");
        assert_eq!(now(&[(0, "eins")]), "<eins<two<3>");
        assert_eq!(now(&[(1, "ZWO"), (2, "drei")]), "<eins<ZWO<drei>");
        assert_eq!(now(&[(0, "1"), (1, "2"), (2, "3")]), "<1<2<3>");
        assert_eq!(now(&[]), "<1<2<3>");
    }

    /// One step for each of: 2 bytes at 7, 8 bytes at 500, a time at 16, a column, an entity.
    fn changes() -> (Batch, Changes) {
        let mut s = DataSource::new("t", SourceKind::Events, 600);
        let add = |s: &mut DataSource, name, storage| vec![s.add(FieldDef::new(name, Kind::U64, storage)).unwrap()];
        let column = s.new_column(Kind::U64);
        let slot = s.new_entity_slot();
        let inputs = [
            add(&mut s, "a", Storage::Record { offset: 7, size: 2 }),
            add(&mut s, "b", Storage::Record { offset: 500, size: 8 }),
            add(&mut s, "t", Storage::BootTime { offset: 16 }),
            add(&mut s, "c", column),
            add(&mut s, "e", Storage::Entity { slot, member: 0 }),
        ];
        let changes = Changes::new(&s, &inputs);
        (Batch::new(Arc::new(s)), changes)
    }

    #[test]
    fn a_step_changes_with_what_it_reads_and_with_nothing_else() {
        const COLUMN: usize = 3;
        let (mut batch, mut changes) = changes();
        let mut push = |record: &[u8]| {
            batch.clear();
            batch.push(record);
            changes.since_last(Row::new(&batch, 0)).each(5).filter(|s| *s != COLUMN).collect::<Vec<_>>()
        };
        let mut record = vec![0; 520];
        assert_eq!(push(&record), [0, 1, 2, 4]);
        assert_eq!(push(&record), [0; 0]);
        for (at, steps) in [(0, &[0][..]), (7, &[0]), (8, &[0]), (16, &[2]), (24, &[]), (500, &[1]), (507, &[1])] {
            record[at] ^= 1;
            assert_eq!(push(&record), steps, "byte {at}");
            assert_eq!(push(&record), [0; 0], "byte {at}, again");
        }
        assert_eq!(push(&record[..20]), [1, 2]);
        assert_eq!(push(&record[..9]), [0, 1, 2]);
        assert_eq!(push(&[]), [0, 1, 2]);
        assert_eq!(push(&[1, 2, 3]), [0, 1, 2]);
        assert_eq!(push(&[1, 2, 4]), [0, 1, 2]);
    }

    #[test]
    fn columns_always_change_and_clocks_and_entities_when_they_are_others() {
        let (mut batch, mut changes) = changes();
        let mut ask = |batch: &Batch| changes.since_last(Row::new(batch, 0)).each(5).collect::<Vec<_>>();
        batch.push(&[0; 24]);
        ask(&batch);
        assert_eq!(ask(&batch), [3]);
        batch.boot_to_wall = 1;
        assert_eq!(ask(&batch), [2, 3]);
        let entity = Arc::new(Entity::default());
        batch.set_entity(0, 0, Some(entity.clone()));
        assert_eq!(ask(&batch), [3, 4]);
        assert_eq!(ask(&batch), [3]);
        batch.set_entity(0, 0, Some(Arc::new((*entity).clone())));
        assert_eq!(ask(&batch), [3, 4]);
        batch.set_entity(0, 0, None);
        assert_eq!(ask(&batch), [3, 4]);
    }
}
