//! A batch: rows as the kernel wrote them, in one reused arena, plus the columns and objects the host adds, plus its loss.
//!
//! A batch is owned by one thread and reused for the whole run: `clear` keeps every allocation. A row leaves by
//! `discard`, which counts it, or is set aside for a later batch with `withdraw`.

use crate::{DataSource, FieldId, Kind, Loss, Reason, Storage};
use std::{borrow::Cow, sync::Arc};

/// Variable-length values: value `i` is `data[ends[i-1]..ends[i]]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vars {
    pub ends: Vec<u32>,
    pub data: Vec<u8>,
}

impl Vars {
    pub fn push(&mut self, value: &[u8]) {
        self.data.extend_from_slice(value);
        self.ends.push(self.data.len() as u32);
    }

    pub fn get(&self, i: usize) -> Option<&[u8]> {
        let end = *self.ends.get(i)? as usize;
        let start = if i == 0 { 0 } else { self.ends[i - 1] as usize };
        self.data.get(start..end)
    }

    pub fn clear(&mut self) {
        self.ends.clear();
        self.data.clear();
    }
}

/// Values of one added field for every row of a batch. A row past the end of a column reads as missing.
#[derive(Clone, Debug, PartialEq)]
pub enum Column {
    /// Nobody has filled it in this batch.
    Empty,
    U8(Vec<u8>),
    U16(Vec<u16>),
    U32(Vec<u32>),
    U64(Vec<u64>),
    I8(Vec<i8>),
    I16(Vec<i16>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    /// One bit a row: bit `i % 8` of byte `i / 8`.
    Bits(Vec<u8>),
    /// `size` bytes a row.
    Fixed {
        size: u32,
        data: Vec<u8>,
    },
    Text(Vars),
    Bytes(Vars),
    /// Index into a dictionary that was sent once.
    Codes {
        codes: Vec<u16>,
        names: Arc<Vec<String>>,
    },
}

/// One value, borrowed from the batch.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// The field has no value in this row (nobody filled its column, or the row has no container).
    Missing,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Float(f64),
    /// Text as it came: usually, but not surely, UTF-8.
    Text(Cow<'a, [u8]>),
    Bytes(&'a [u8]),
}

/// A value inside an `Entity`.
#[derive(Clone, Debug, PartialEq)]
pub enum EntityValue {
    Text(Box<str>),
    Uint(u64),
    Bool(bool),
}

/// An object that many rows refer to, such as a container. Immutable: a change makes a new one, so that a printer may
/// cache what it rendered for as long as it holds the `Arc`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Entity {
    /// By `member` of `Storage::Entity`.
    pub values: Vec<EntityValue>,
}

#[derive(Clone, Copy, Debug)]
struct Row {
    start: u32,
    len: u32,
}

/// Rows of one data source on their way to the output.
#[derive(Debug)]
pub struct Batch {
    source: Arc<DataSource>,
    arena: Vec<u8>,
    rows: Vec<Row>,
    gone: Vec<bool>,
    /// Row numbers in output order; set by a sort, else the order of arrival.
    order: Option<Vec<u32>>,
    /// By column number of `Storage::Column`.
    pub columns: Vec<Column>,
    /// By entity slot, then by row.
    entities: Vec<Vec<Option<Arc<Entity>>>>,
    /// Wall-clock minus boot-clock nanoseconds at the time of the batch.
    pub boot_to_wall: i64,
    /// Rows lost or left out since the batch before, the kernel's included.
    pub loss: Loss,
    live: usize,
}

impl Batch {
    pub fn new(source: Arc<DataSource>) -> Self {
        let columns = source.column_kinds().iter().map(|_| Column::Empty).collect();
        let entities = (0..source.entity_slots()).map(|_| Vec::new()).collect();
        Batch {
            source,
            arena: Vec::new(),
            rows: Vec::new(),
            gone: Vec::new(),
            order: None,
            columns,
            entities,
            boot_to_wall: 0,
            loss: Loss::default(),
            live: 0,
        }
    }

    pub fn source(&self) -> &Arc<DataSource> {
        &self.source
    }

    /// Makes the batch empty for the next use; keeps its memory.
    pub fn clear(&mut self) {
        self.arena.clear();
        self.rows.clear();
        self.gone.clear();
        self.order = None;
        self.columns.iter_mut().for_each(|c| *c = Column::Empty);
        self.entities.iter_mut().for_each(Vec::clear);
        self.loss.clear();
        self.live = 0;
    }

    /// Appends a record and returns its row number. A record for which a batch has no room any more (4 GiB in all, which
    /// only a table could come near) is discarded as malformed.
    pub fn push(&mut self, record: &[u8]) -> usize {
        let row = self.rows.len();
        let fits = self.arena.len().saturating_add(record.len()) <= u32::MAX as usize;
        let record = if fits { record } else { &[] };
        self.rows.push(Row { start: self.arena.len() as u32, len: record.len() as u32 });
        self.arena.extend_from_slice(record);
        self.gone.push(false);
        self.live += 1;
        if !fits {
            self.discard(row, Reason::Malformed);
        }
        row
    }

    /// Rows that were pushed, those discarded since included. Columns are indexed by this.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Rows still on their way.
    pub fn live(&self) -> usize {
        self.live
    }

    pub fn is_live(&self, row: usize) -> bool {
        !self.gone[row]
    }

    /// Bytes of all records: what bounds a batch besides its rows.
    pub fn bytes(&self) -> usize {
        self.arena.len()
    }

    /// All records back to back, for a guest that takes them raw.
    pub fn arena(&self) -> &[u8] {
        &self.arena
    }

    /// The record as the kernel wrote it.
    pub fn record(&self, row: usize) -> &[u8] {
        let r = self.rows[row];
        &self.arena[r.start as usize..(r.start + r.len) as usize]
    }

    /// The only way a row leaves. Discarding a row twice counts once, for the first reason.
    pub fn discard(&mut self, row: usize, reason: Reason) {
        if !std::mem::replace(&mut self.gone[row], true) {
            self.live -= 1;
            self.loss.add(reason, 1);
        }
    }

    /// Takes a row out without counting it. For whoever keeps a copy of its record, to `push` it into a later batch or to
    /// count it there as lost; anybody else uses `discard`.
    pub fn withdraw(&mut self, row: usize) {
        if !std::mem::replace(&mut self.gone[row], true) {
            self.live -= 1;
        }
    }

    /// Rows still on their way, in output order.
    pub fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        let n = self.order.as_ref().map_or(self.rows.len(), Vec::len);
        (0..n).map(move |i| self.order.as_ref().map_or(i, |o| o[i] as usize)).filter(move |r| !self.gone[*r])
    }

    /// Sets the output order: a permutation of row numbers.
    pub fn set_order(&mut self, order: Vec<u32>) {
        debug_assert_eq!(order.len(), self.rows.len());
        self.order = Some(order);
    }

    /// The object that `row` refers to in `slot`.
    pub fn entity(&self, slot: u32, row: usize) -> Option<&Arc<Entity>> {
        self.entities.get(slot as usize)?.get(row)?.as_ref()
    }

    pub fn set_entity(&mut self, slot: u32, row: usize, entity: Option<Arc<Entity>>) {
        let column = &mut self.entities[slot as usize];
        if column.len() <= row {
            column.resize(row + 1, None);
        }
        column[row] = entity;
    }

    /// Bytes of a record field; shorter than `size`, down to empty, where the record ends early.
    pub fn record_bytes(&self, row: usize, offset: u32, size: u32) -> &[u8] {
        let rec = self.record(row);
        let start = (offset as usize).min(rec.len());
        let end = (offset as usize + size as usize).min(rec.len());
        &rec[start..end]
    }

    /// The value of any field that is stored. A derived field gives the value it is derived from; formatters do the rest.
    pub fn value(&self, row: usize, field: FieldId) -> Value<'_> {
        let f = self.source.field(field);
        match &f.def.storage {
            Storage::Record { offset, size } => decode(f.def.kind, self.record_bytes(row, *offset, *size)),
            Storage::BootTime { offset } => match decode(Kind::U64, self.record_bytes(row, *offset, 8)) {
                Value::Uint(0) => Value::Uint(0),
                Value::Uint(t) => Value::Uint(t.wrapping_add_signed(self.boot_to_wall)),
                v => v,
            },
            Storage::Column(c) => self.columns.get(*c as usize).map_or(Value::Missing, |c| c.value(row)),
            Storage::Entity { slot, member } => {
                match self.entity(*slot, row).and_then(|e| e.values.get(*member as usize)) {
                    Some(EntityValue::Text(t)) => Value::Text(Cow::Borrowed(t.as_bytes())),
                    Some(EntityValue::Uint(n)) => Value::Uint(*n),
                    Some(EntityValue::Bool(b)) => Value::Bool(*b),
                    None => Value::Missing,
                }
            }
            Storage::Constant(text) => Value::Text(Cow::Borrowed(text.as_bytes())),
            Storage::Derived { from, .. } => self.value(row, *from),
            Storage::Group => Value::Missing,
        }
    }
}

impl Column {
    /// The value for `row`, or `Missing`.
    pub fn value(&self, row: usize) -> Value<'_> {
        fn opt<'a, T: Copy>(v: &[T], row: usize, f: impl Fn(T) -> Value<'a>) -> Value<'a> {
            v.get(row).map_or(Value::Missing, |x| f(*x))
        }
        match self {
            Column::Empty => Value::Missing,
            Column::U8(v) => opt(v, row, |x| Value::Uint(x.into())),
            Column::U16(v) => opt(v, row, |x| Value::Uint(x.into())),
            Column::U32(v) => opt(v, row, |x| Value::Uint(x.into())),
            Column::U64(v) => opt(v, row, Value::Uint),
            Column::I8(v) => opt(v, row, |x| Value::Int(x.into())),
            Column::I16(v) => opt(v, row, |x| Value::Int(x.into())),
            Column::I32(v) => opt(v, row, |x| Value::Int(x.into())),
            Column::I64(v) => opt(v, row, Value::Int),
            Column::F32(v) => opt(v, row, |x| Value::Float(x.into())),
            Column::F64(v) => opt(v, row, Value::Float),
            Column::Bits(v) => v.get(row / 8).map_or(Value::Missing, |b| Value::Bool(b >> (row % 8) & 1 == 1)),
            Column::Fixed { size, data } => {
                let size = *size as usize;
                data.get(row * size..(row + 1) * size).map_or(Value::Missing, Value::Bytes)
            }
            Column::Text(v) => v.get(row).map_or(Value::Missing, |b| Value::Text(Cow::Borrowed(b))),
            Column::Bytes(v) => v.get(row).map_or(Value::Missing, Value::Bytes),
            Column::Codes { codes, names } => codes
                .get(row)
                .and_then(|c| names.get(*c as usize))
                .map_or(Value::Missing, |s| Value::Text(Cow::Borrowed(s.as_bytes()))),
        }
    }
}

/// Reads a value of `kind` from record bytes; bytes that are not there read as zeros.
pub fn decode(kind: Kind, bytes: &[u8]) -> Value<'_> {
    fn word(bytes: &[u8], size: usize) -> u64 {
        let mut w = [0u8; 8];
        let n = bytes.len().min(size);
        w[..n].copy_from_slice(&bytes[..n]);
        u64::from_le_bytes(w)
    }
    match kind {
        Kind::Bool => Value::Bool(word(bytes, 1) != 0),
        Kind::U8 => Value::Uint(word(bytes, 1)),
        Kind::U16 => Value::Uint(word(bytes, 2)),
        Kind::U32 => Value::Uint(word(bytes, 4)),
        Kind::U64 => Value::Uint(word(bytes, 8)),
        Kind::I8 => Value::Int((word(bytes, 1) as i8).into()),
        Kind::I16 => Value::Int((word(bytes, 2) as i16).into()),
        Kind::I32 => Value::Int((word(bytes, 4) as i32).into()),
        Kind::I64 => Value::Int(word(bytes, 8) as i64),
        Kind::F32 => Value::Float(f32::from_bits(word(bytes, 4) as u32).into()),
        Kind::F64 => Value::Float(f64::from_bits(word(bytes, 8))),
        Kind::CString | Kind::Text => {
            let n = memchr::memchr(0, bytes).unwrap_or(bytes.len());
            Value::Text(Cow::Borrowed(&bytes[..n]))
        }
        Kind::Bytes => Value::Bytes(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FieldDef, SourceKind};

    fn source() -> Arc<DataSource> {
        let mut s = DataSource::new("t", SourceKind::Events, 8);
        s.add(FieldDef::new("a", Kind::U32, Storage::Record { offset: 0, size: 4 }));
        s.add(FieldDef::new("b", Kind::I32, Storage::Record { offset: 4, size: 4 }));
        Arc::new(s)
    }

    #[test]
    fn a_short_record_reads_as_zeros() {
        let mut b = Batch::new(source());
        b.push(&[1, 0, 0, 0, 0xff]);
        assert_eq!(b.value(0, FieldId(0)), Value::Uint(1));
        assert_eq!(b.value(0, FieldId(1)), Value::Int(255));
        b.push(&[]);
        assert_eq!(b.value(1, FieldId(1)), Value::Int(0));
    }

    #[test]
    fn discard_counts_once_and_hides_the_row() {
        let mut b = Batch::new(source());
        for i in 0..3u8 {
            b.push(&[i, 0, 0, 0]);
        }
        b.set_order(vec![2, 1, 0]);
        b.discard(1, Reason::Filtered);
        b.discard(1, Reason::Limited);
        assert_eq!(b.iter().collect::<Vec<_>>(), [2, 0]);
        assert_eq!((b.live(), b.loss.get(Reason::Filtered), b.loss.get(Reason::Limited)), (2, 1, 0));
    }
}
