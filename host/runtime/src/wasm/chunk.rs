//! A run of live rows of a batch as a guest takes them: raw records back to back, straight from the batch's arena when no
//! discarded row lies in between, else gathered; and chosen fields as columns.

use super::answer::ChunkRows;
use ig_event::{Batch, Column, FieldId, Kind, Value, Vars};

/// Rows a call; beyond this a larger batch brings nothing.
pub(super) const MOST_ROWS: usize = 256;
/// Bytes a call, unless a single record is larger: bounds what a guest must allocate.
const MOST_BYTES: usize = 4 << 20;

/// Where the next chunk starts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor {
    row: usize,
    offset: usize,
}

/// The records of one call. Reused, so that its buffers stay.
#[derive(Debug, Default)]
pub(super) struct Raw {
    /// End of each record, from the start of the chunk.
    pub(super) ends: Vec<u32>,
    /// Size of every record, if it is the same for all and not 0.
    pub(super) stride: u32,
    start: usize,
    len: usize,
    gathered: Vec<u8>,
}

impl Raw {
    /// Takes the next live rows into `rows`; `false` when there are none left.
    pub(super) fn next(&mut self, batch: &Batch, at: &mut Cursor, most_rows: usize, rows: &mut ChunkRows) -> bool {
        self.ends.clear();
        self.gathered.clear();
        rows.rows.clear();
        (self.start, self.len) = (at.offset, 0);
        if batch.live() == batch.len() {
            return self.next_of_all(batch, at, most_rows, rows);
        }
        while at.row < batch.len() && rows.rows.len() < most_rows {
            let size = batch.record(at.row).len();
            if batch.is_live(at.row) {
                if !rows.rows.is_empty() && self.len + size > MOST_BYTES {
                    break;
                }
                self.take(batch, *at, size, rows);
            }
            at.row += 1;
            at.offset += size;
        }
        rows.contiguous = rows.rows.windows(2).all(|w| w[1] == w[0] + 1);
        let size = self.ends.first().copied().unwrap_or(0);
        let same = self.ends.iter().enumerate().all(|(i, e)| *e as u64 == (i as u64 + 1) * u64::from(size));
        self.stride = if same { size } else { 0 };
        !rows.rows.is_empty()
    }

    /// The common case, in which nothing was discarded: the same without a look at each row.
    fn next_of_all(&mut self, batch: &Batch, at: &mut Cursor, most_rows: usize, rows: &mut ChunkRows) -> bool {
        let first = at.row;
        let most = most_rows.min(batch.len() - first);
        self.ends.reserve(most);
        let mut same = true;
        let mut size_before = None;
        for row in first..first + most {
            let size = batch.record(row).len();
            if row > first && self.len + size > MOST_BYTES {
                break;
            }
            same &= size_before.is_none_or(|before| before == size);
            size_before = Some(size);
            self.len += size;
            self.ends.push(self.len as u32);
        }
        at.row += self.ends.len();
        at.offset += self.len;
        rows.rows.extend(first as u32..at.row as u32);
        rows.contiguous = true;
        self.stride = if same { self.ends.first().copied().unwrap_or(0) } else { 0 };
        !rows.rows.is_empty()
    }

    fn take(&mut self, batch: &Batch, at: Cursor, size: usize, rows: &mut ChunkRows) {
        if rows.rows.is_empty() {
            self.start = at.offset;
        } else if self.gathered.is_empty() && self.start + self.len != at.offset {
            self.gathered.extend_from_slice(&batch.arena()[self.start..self.start + self.len]);
        }
        let gathering = !rows.rows.is_empty() && (!self.gathered.is_empty() || self.start + self.len != at.offset);
        if gathering {
            self.gathered.extend_from_slice(batch.record(at.row));
        }
        self.len += size;
        self.ends.push(self.len as u32);
        rows.rows.push(at.row as u32);
    }

    /// The records themselves.
    pub(super) fn bytes<'a>(&'a self, batch: &'a Batch) -> &'a [u8] {
        if self.gathered.is_empty() {
            batch.arena().get(self.start..self.start + self.len).unwrap_or_default()
        } else {
            &self.gathered
        }
    }
}

/// One field of the chunk's rows as a column. What is missing reads as zero or empty.
pub(super) fn project(batch: &Batch, rows: &[u32], field: FieldId) -> Column {
    fn list<T>(batch: &Batch, rows: &[u32], field: FieldId, f: impl Fn(i128, f64) -> T) -> Vec<T> {
        let number = |row: &u32| match batch.value(*row as usize, field) {
            Value::Bool(b) => (b.into(), 0.0),
            Value::Int(n) => (n.into(), 0.0),
            Value::Uint(n) => (n.into(), 0.0),
            Value::Float(n) => (0, n),
            Value::Missing | Value::Text(_) | Value::Bytes(_) => (0, 0.0),
        };
        rows.iter().map(number).map(|(int, float)| f(int, float)).collect()
    }
    let vars = || {
        let mut vars = Vars::default();
        for row in rows {
            match batch.value(*row as usize, field) {
                Value::Text(t) => vars.push(&t),
                Value::Bytes(b) => vars.push(b),
                _ => vars.push(b""),
            }
        }
        vars
    };
    match batch.source().field(field).def.kind {
        Kind::U8 => Column::U8(list(batch, rows, field, |n, _| n as u8)),
        Kind::U16 => Column::U16(list(batch, rows, field, |n, _| n as u16)),
        Kind::U32 => Column::U32(list(batch, rows, field, |n, _| n as u32)),
        Kind::U64 => Column::U64(list(batch, rows, field, |n, _| n as u64)),
        Kind::I8 => Column::I8(list(batch, rows, field, |n, _| n as i8)),
        Kind::I16 => Column::I16(list(batch, rows, field, |n, _| n as i16)),
        Kind::I32 => Column::I32(list(batch, rows, field, |n, _| n as i32)),
        Kind::I64 => Column::I64(list(batch, rows, field, |n, _| n as i64)),
        Kind::F32 => Column::F32(list(batch, rows, field, |_, x| x as f32)),
        Kind::F64 => Column::F64(list(batch, rows, field, |_, x| x)),
        Kind::Bool => {
            let mut bits = vec![0u8; rows.len().div_ceil(8)];
            for (i, on) in list(batch, rows, field, |n, _| n != 0).into_iter().enumerate() {
                bits[i / 8] |= u8::from(on) << (i % 8);
            }
            Column::Bits(bits)
        }
        Kind::Text | Kind::CString => Column::Text(vars()),
        Kind::Bytes => Column::Bytes(vars()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ig_event::{DataSource, FieldDef, Reason, SourceKind, Storage};
    use std::sync::Arc;

    fn batch(records: &[&[u8]], dead: &[usize]) -> Batch {
        let mut s = DataSource::new("t", SourceKind::Events, 4);
        s.add(FieldDef::new("n", Kind::I16, Storage::Record { offset: 0, size: 2 }));
        s.add(FieldDef::new("t", Kind::CString, Storage::Record { offset: 2, size: 8 }));
        s.add(FieldDef::new("b", Kind::Bool, Storage::Record { offset: 0, size: 1 }));
        let mut b = Batch::new(Arc::new(s));
        for r in records {
            b.push(r);
        }
        dead.iter().for_each(|r| b.discard(*r, Reason::Filtered));
        b
    }

    /// Rows, bytes, ends, stride, and whether bytes were copied.
    type Seen = (Vec<u32>, Vec<u8>, Vec<u32>, u32, bool);

    fn chunks(b: &Batch, most: usize) -> Vec<Seen> {
        let (mut raw, mut at, mut rows, mut all) = (Raw::default(), Cursor::default(), ChunkRows::default(), vec![]);
        while raw.next(b, &mut at, most, &mut rows) {
            let copied = !raw.gathered.is_empty();
            all.push((rows.rows.clone(), raw.bytes(b).to_vec(), raw.ends.clone(), raw.stride, copied));
        }
        all
    }

    #[test]
    fn live_rows_are_cut_into_chunks_and_copied_only_across_gaps() {
        let b = batch(&[b"aa", b"bb", b"cc", b"d", b"ee"], &[]);
        assert_eq!(
            chunks(&b, 3),
            [
                (vec![0, 1, 2], b"aabbcc".to_vec(), vec![2, 4, 6], 2, false),
                (vec![3, 4], b"dee".to_vec(), vec![1, 3], 0, false)
            ]
        );
        let b = batch(&[b"aa", b"bb", b"cc", b"d", b"ee"], &[0, 2]);
        assert_eq!(chunks(&b, 9), [(vec![1, 3, 4], b"bbdee".to_vec(), vec![2, 3, 5], 0, true)]);
        assert_eq!(chunks(&batch(&[b"aa", b"bb"], &[0, 1]), 9), []);
        let empty = batch(&[b"", b"", b"x"], &[1]);
        assert_eq!(chunks(&empty, 9), [(vec![0, 2], b"x".to_vec(), vec![0, 1], 0, false)]);
    }

    #[test]
    fn all_rows_are_cut_as_some_are() {
        let (large, small) = (vec![1u8; MOST_BYTES - 3], b"abcd".as_slice());
        let records: [&[u8]; 8] = [b"aa", b"bb", b"cc", &large, b"d", b"", small, small];
        for most in 1..=8 {
            // The dead row comes last, so that no other chunk differs.
            let with_dead = [&records[..], &[b"x"]].concat();
            assert_eq!(
                chunks(&batch(&records, &[]), most),
                chunks(&batch(&with_dead, &[8]), most),
                "{most} rows a call"
            );
        }
    }

    #[test]
    fn a_projected_field_has_a_value_for_every_row_however_short_the_record() {
        let b = batch(&[&[0xff, 0xff, b'h', b'i', 0, b'x'], &[1], &[]], &[]);
        assert_eq!(project(&b, &[0, 1, 2], FieldId(0)), Column::I16(vec![-1, 1, 0]));
        assert_eq!(project(&b, &[0, 2], FieldId(2)), Column::Bits(vec![1]));
        let want = Vars { ends: vec![2, 2], data: b"hi".to_vec() };
        assert_eq!(project(&b, &[0, 1], FieldId(1)), Column::Text(want));
    }
}
