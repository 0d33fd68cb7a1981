//! A guest's answer to one chunk of rows: checked as a whole, then appended to the batch's columns in bulk.
//!
//! Nothing here trusts a length, an offset or an index. A column is only touched when all of them are right, and what was
//! appended can be taken back while the call is not over.

use ig_event::{Column, Kind, Vars};
use std::sync::Arc;

/// A field that a guest fills.
#[derive(Clone, Debug)]
pub(super) struct Provided {
    pub(super) name: String,
    /// Of `Batch::columns`.
    pub(super) column: usize,
    pub(super) kind: Kind,
    pub(super) names: Arc<Vec<String>>,
}

/// What is wrong with an answer.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum AnswerError {
    #[error("did not answer")]
    Missing,
    #[error("answered twice")]
    Twice,
    #[error("answered outside of process")]
    NotAsked,
    #[error("answered {got} columns instead of {want}")]
    Columns { got: usize, want: usize },
    /// Bytes, not values, where the field holds bytes of one length.
    #[error("answered {got} values of {field} for {want} rows")]
    Length { field: String, got: usize, want: usize },
    #[error("answered {field}, which is of kind {kind:?}, with a column of {got}")]
    Kind { field: String, kind: Kind, got: &'static str },
    #[error("answered {got} bytes of keep bits instead of {want}")]
    Keep { got: usize, want: usize },
    #[error("answered {field} with ends that do not fit its data")]
    Ends { field: String },
    #[error("answered {field} with code {code} of a dictionary of {names}")]
    Code { field: String, code: u16, names: usize },
    #[error("answered {field} with more than {limit} bytes in one batch")]
    TooLarge { field: String, limit: usize },
    #[error("rejected row {row} of {rows}")]
    Row { row: u32, rows: usize },
}

impl AnswerError {
    /// One word for machines.
    pub fn key(&self) -> &'static str {
        match self {
            AnswerError::Missing => "no-answer",
            AnswerError::Twice => "two-answers",
            AnswerError::NotAsked => "not-asked",
            AnswerError::Columns { .. } => "columns",
            AnswerError::Length { .. } => "length",
            AnswerError::Kind { .. } => "kind",
            AnswerError::Keep { .. } => "keep",
            AnswerError::Ends { .. } => "ends",
            AnswerError::Code { .. } => "code",
            AnswerError::TooLarge { .. } => "too-large",
            AnswerError::Row { .. } => "row",
        }
    }
}

/// Bytes of all values of one field in one batch: bounds what a guest can make the host keep.
const LARGEST_COLUMN: usize = 64 << 20;

/// A column as it lies in the guest's memory.
#[derive(Clone, Copy, Debug)]
pub(super) enum View<'a> {
    U8(&'a [u8]),
    U16(&'a [u16]),
    U32(&'a [u32]),
    U64(&'a [u64]),
    I8(&'a [i8]),
    I16(&'a [i16]),
    I32(&'a [i32]),
    I64(&'a [i64]),
    F32(&'a [f32]),
    F64(&'a [f64]),
    Bits(&'a [u8]),
    Fixed(&'a [u8]),
    Text { ends: &'a [u32], data: &'a [u8] },
    Bytes { ends: &'a [u32], data: &'a [u8] },
    Codes(&'a [u16]),
}

/// Which rows of the batch a chunk has, ascending.
#[derive(Debug, Default)]
pub(super) struct ChunkRows {
    pub(super) rows: Vec<u32>,
    /// No discarded row lies between them.
    pub(super) contiguous: bool,
}

impl ChunkRows {
    fn first(&self) -> usize {
        self.rows.first().map_or(0, |r| *r as usize)
    }
}

/// The question that a guest has to answer, and the answer so far. Lives in the guest's store during a call.
#[derive(Debug, Default)]
pub(super) struct Answering {
    pub(super) asked: bool,
    pub(super) chunk: ChunkRows,
    pub(super) provided: Arc<Vec<Provided>>,
    /// The batch's own columns, by place in `provided`, lent for the call.
    pub(super) columns: Vec<Column>,
    pub(super) answered: bool,
    pub(super) keep: Vec<u8>,
    /// By place in the chunk.
    pub(super) rejected: Vec<u32>,
    /// Why the first rejected row was, for the user.
    pub(super) reason: Option<String>,
    /// The first thing that was wrong. The chunk is then undecoded, whatever else the guest says.
    pub(super) wrong: Option<AnswerError>,
}

impl Answering {
    /// Takes the answer, or nothing of it.
    pub(super) fn finish(&mut self, keep: &[u8], views: &[View<'_>]) -> Result<(), AnswerError> {
        if !self.asked {
            return Err(AnswerError::NotAsked);
        }
        if std::mem::replace(&mut self.answered, true) {
            return Err(AnswerError::Twice);
        }
        let rows = self.chunk.rows.len();
        if !keep.is_empty() && keep.len() != rows.div_ceil(8) {
            return Err(AnswerError::Keep { got: keep.len(), want: rows.div_ceil(8) });
        }
        if views.len() != self.provided.len() {
            return Err(AnswerError::Columns { got: views.len(), want: self.provided.len() });
        }
        for ((provided, view), column) in self.provided.iter().zip(views).zip(&self.columns) {
            let end = self.chunk.rows.last().map_or(0, |r| *r as usize + 1);
            check(provided, view, column, rows, end)?;
        }
        self.keep.extend_from_slice(keep);
        for ((provided, view), column) in self.provided.iter().zip(views).zip(&mut self.columns) {
            append(column, view, &self.chunk, &provided.names);
        }
        Ok(())
    }

    pub(super) fn reject(&mut self, row: u32, reason: String) -> Result<(), AnswerError> {
        if !self.asked {
            return Err(AnswerError::NotAsked);
        }
        let rows = self.chunk.rows.len();
        if row as usize >= rows {
            return Err(AnswerError::Row { row, rows });
        }
        if !self.rejected.contains(&row) {
            self.rejected.push(row);
            self.reason.get_or_insert(reason);
        }
        Ok(())
    }

    /// Takes back what `finish` appended.
    pub(super) fn undo(&mut self) {
        let first = self.chunk.first();
        self.columns.iter_mut().for_each(|c| truncate(c, first));
        self.keep.clear();
        self.rejected.clear();
        self.reason = None;
    }
}

/// `end`: one more than the last row of the chunk, which is how long the column becomes.
fn check(p: &Provided, view: &View<'_>, column: &Column, rows: usize, end: usize) -> Result<(), AnswerError> {
    let length = |got: usize| {
        if got == rows {
            return Ok(());
        }
        Err(AnswerError::Length { field: p.name.clone(), got, want: rows })
    };
    match (p.kind, view) {
        (Kind::U8, View::U8(v)) => length(v.len()),
        (Kind::U16, View::U16(v)) => length(v.len()),
        (Kind::U32, View::U32(v)) => length(v.len()),
        (Kind::U64, View::U64(v)) => length(v.len()),
        (Kind::I8, View::I8(v)) => length(v.len()),
        (Kind::I16, View::I16(v)) => length(v.len()),
        (Kind::I32, View::I32(v)) => length(v.len()),
        (Kind::I64, View::I64(v)) => length(v.len()),
        (Kind::F32, View::F32(v)) => length(v.len()),
        (Kind::F64, View::F64(v)) => length(v.len()),
        (Kind::Bool, View::Bits(v)) if v.len() == rows.div_ceil(8) => Ok(()),
        (Kind::Bool, View::Bits(v)) => length(v.len() * 8),
        (Kind::Bytes, View::Fixed(v)) => {
            // The size is the guest's to choose, once a batch.
            let size = match column {
                Column::Empty => v.len() / rows.max(1),
                Column::Fixed { size, .. } => *size as usize,
                _ => return wrong_kind(p, view),
            };
            if size == 0 || size.checked_mul(rows) != Some(v.len()) {
                let want = size.max(1).saturating_mul(rows);
                return Err(AnswerError::Length { field: p.name.clone(), got: v.len(), want });
            }
            if size.saturating_mul(end) > LARGEST_COLUMN {
                return Err(AnswerError::TooLarge { field: p.name.clone(), limit: LARGEST_COLUMN });
            }
            Ok(())
        }
        (Kind::Text | Kind::CString, View::Text { ends, data }) | (Kind::Bytes, View::Bytes { ends, data }) => {
            length(ends.len())?;
            check_ends(p, ends, data)?;
            match column {
                Column::Empty => Ok(()),
                Column::Text(v) | Column::Bytes(v) if v.data.len() + data.len() <= LARGEST_COLUMN => Ok(()),
                Column::Text(_) | Column::Bytes(_) => {
                    Err(AnswerError::TooLarge { field: p.name.clone(), limit: LARGEST_COLUMN })
                }
                _ => wrong_kind(p, view),
            }
        }
        (Kind::Text | Kind::CString, View::Codes(codes)) => {
            length(codes.len())?;
            if !matches!(column, Column::Empty | Column::Codes { .. }) {
                return wrong_kind(p, view);
            }
            match codes.iter().copied().max() {
                Some(code) if code as usize >= p.names.len() => {
                    Err(AnswerError::Code { field: p.name.clone(), code, names: p.names.len() })
                }
                _ => Ok(()),
            }
        }
        _ => wrong_kind(p, view),
    }
}

fn check_ends(p: &Provided, ends: &[u32], data: &[u8]) -> Result<(), AnswerError> {
    // Without early exit, so that it becomes vector code.
    let ordered = ends.windows(2).fold(true, |ok, w| ok & (w[0] <= w[1]));
    let last = ends.last().map_or(0, |e| *e as usize);
    if ordered && last == data.len() {
        return Ok(());
    }
    Err(AnswerError::Ends { field: p.name.clone() })
}

fn wrong_kind(p: &Provided, view: &View<'_>) -> Result<(), AnswerError> {
    let got = match view {
        View::U8(_) => "u8s",
        View::U16(_) => "u16s",
        View::U32(_) => "u32s",
        View::U64(_) => "u64s",
        View::I8(_) => "s8s",
        View::I16(_) => "s16s",
        View::I32(_) => "s32s",
        View::I64(_) => "s64s",
        View::F32(_) => "f32s",
        View::F64(_) => "f64s",
        View::Bits(_) => "bits",
        View::Fixed(_) => "fixed",
        View::Text { .. } => "text",
        View::Bytes { .. } => "bytes",
        View::Codes(_) => "codes",
    };
    Err(AnswerError::Kind { field: p.name.clone(), kind: p.kind, got })
}

/// Appends a checked view; rows in between that are not part of the chunk get zeros or empty values.
fn append(column: &mut Column, view: &View<'_>, chunk: &ChunkRows, names: &Arc<Vec<String>>) {
    if matches!(column, Column::Empty) {
        *column = empty_for(view, chunk.rows.len(), names);
    }
    match (column, *view) {
        (Column::U8(to), View::U8(v)) => fill(to, v, chunk),
        (Column::U16(to), View::U16(v)) => fill(to, v, chunk),
        (Column::U32(to), View::U32(v)) => fill(to, v, chunk),
        (Column::U64(to), View::U64(v)) => fill(to, v, chunk),
        (Column::I8(to), View::I8(v)) => fill(to, v, chunk),
        (Column::I16(to), View::I16(v)) => fill(to, v, chunk),
        (Column::I32(to), View::I32(v)) => fill(to, v, chunk),
        (Column::I64(to), View::I64(v)) => fill(to, v, chunk),
        (Column::F32(to), View::F32(v)) => fill(to, v, chunk),
        (Column::F64(to), View::F64(v)) => fill(to, v, chunk),
        (Column::Codes { codes, .. }, View::Codes(v)) => fill(codes, v, chunk),
        (Column::Text(to), View::Text { ends, data }) | (Column::Bytes(to), View::Bytes { ends, data }) => {
            fill_vars(to, ends, data, chunk);
        }
        (Column::Bits(to), View::Bits(v)) => {
            for (i, row) in chunk.rows.iter().enumerate() {
                set_bit(to, *row as usize, v[i / 8] >> (i % 8) & 1 == 1);
            }
        }
        (Column::Fixed { size, data }, View::Fixed(v)) => {
            for (row, value) in chunk.rows.iter().zip(v.chunks_exact(*size as usize)) {
                data.resize(*row as usize * *size as usize, 0);
                data.extend_from_slice(value);
            }
        }
        _ => debug_assert!(false, "check lets no other pair through"),
    }
}

fn empty_for(view: &View<'_>, rows: usize, names: &Arc<Vec<String>>) -> Column {
    match view {
        View::U8(_) => Column::U8(Vec::new()),
        View::U16(_) => Column::U16(Vec::new()),
        View::U32(_) => Column::U32(Vec::new()),
        View::U64(_) => Column::U64(Vec::new()),
        View::I8(_) => Column::I8(Vec::new()),
        View::I16(_) => Column::I16(Vec::new()),
        View::I32(_) => Column::I32(Vec::new()),
        View::I64(_) => Column::I64(Vec::new()),
        View::F32(_) => Column::F32(Vec::new()),
        View::F64(_) => Column::F64(Vec::new()),
        View::Bits(_) => Column::Bits(Vec::new()),
        View::Fixed(v) => Column::Fixed { size: (v.len() / rows.max(1)) as u32, data: Vec::new() },
        View::Text { .. } => Column::Text(Vars::default()),
        View::Bytes { .. } => Column::Bytes(Vars::default()),
        View::Codes(_) => Column::Codes { codes: Vec::new(), names: Arc::clone(names) },
    }
}

fn fill<T: Copy + Default>(to: &mut Vec<T>, values: &[T], chunk: &ChunkRows) {
    to.resize(chunk.first(), T::default());
    if chunk.contiguous {
        to.extend_from_slice(values);
        return;
    }
    for (row, value) in chunk.rows.iter().zip(values) {
        to.resize(*row as usize, T::default());
        to.push(*value);
    }
}

fn fill_vars(to: &mut Vars, ends: &[u32], data: &[u8], chunk: &ChunkRows) {
    let base = to.data.len() as u32;
    to.data.extend_from_slice(data);
    to.ends.resize(chunk.first(), base);
    if chunk.contiguous {
        to.ends.extend(ends.iter().map(|e| base + e));
        return;
    }
    let mut last = base;
    for (row, end) in chunk.rows.iter().zip(ends) {
        to.ends.resize(*row as usize, last);
        last = base + end;
        to.ends.push(last);
    }
}

fn set_bit(bits: &mut Vec<u8>, row: usize, on: bool) {
    if bits.len() <= row / 8 {
        bits.resize(row / 8 + 1, 0);
    }
    let mask = 1 << (row % 8);
    bits[row / 8] = if on { bits[row / 8] | mask } else { bits[row / 8] & !mask };
}

fn truncate(column: &mut Column, rows: usize) {
    match column {
        Column::Empty => {}
        Column::U8(v) => v.truncate(rows),
        Column::U16(v) => v.truncate(rows),
        Column::U32(v) => v.truncate(rows),
        Column::U64(v) => v.truncate(rows),
        Column::I8(v) => v.truncate(rows),
        Column::I16(v) => v.truncate(rows),
        Column::I32(v) => v.truncate(rows),
        Column::I64(v) => v.truncate(rows),
        Column::F32(v) => v.truncate(rows),
        Column::F64(v) => v.truncate(rows),
        Column::Codes { codes, .. } => codes.truncate(rows),
        Column::Fixed { size, data } => data.truncate(rows * *size as usize),
        Column::Text(v) | Column::Bytes(v) => {
            v.ends.truncate(rows);
            v.data.truncate(v.ends.last().map_or(0, |e| *e as usize));
        }
        Column::Bits(v) => {
            v.truncate(rows.div_ceil(8));
            if !rows.is_multiple_of(8)
                && let Some(last) = v.get_mut(rows / 8)
            {
                *last &= (1 << (rows % 8)) - 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ig_event::Value;

    fn asking(kind: Kind, rows: &[u32], column: Column) -> Answering {
        let names = Arc::new(vec!["a".to_owned(), "b".to_owned()]);
        Answering {
            asked: true,
            chunk: ChunkRows { rows: rows.to_vec(), contiguous: rows.windows(2).all(|w| w[1] == w[0] + 1) },
            provided: Arc::new(vec![Provided { name: "f".into(), column: 0, kind, names }]),
            columns: vec![column],
            ..Answering::default()
        }
    }

    fn texts(c: &Column, rows: usize) -> Vec<Option<String>> {
        let text = |v| match v {
            Value::Text(t) => Some(String::from_utf8_lossy(&t).into_owned()),
            _ => None,
        };
        (0..rows).map(|r| text(c.value(r))).collect()
    }

    #[test]
    fn values_of_one_length_keep_that_length_for_the_whole_batch() {
        let mut a = asking(Kind::Bytes, &[0, 1], Column::Empty);
        a.finish(&[], &[View::Fixed(b"aaaabbbb")]).unwrap();
        let column = a.columns.remove(0);
        // As many bytes as rows, but the batch has four bytes a row already.
        let mut next = asking(Kind::Bytes, &[2, 3], column);
        let refused = next.finish(&[], &[View::Fixed(b"cd")]);
        assert_eq!(refused, Err(AnswerError::Length { field: "f".into(), got: 2, want: 8 }));
    }

    #[test]
    fn text_lands_in_its_rows_with_gaps_before_and_in_between() {
        let mut a = asking(Kind::Text, &[1, 2, 5], Column::Empty);
        a.finish(&[], &[View::Text { ends: &[2, 2, 5], data: b"xyabc" }]).unwrap();
        let want = [Some(""), Some("xy"), Some(""), Some(""), Some(""), Some("abc"), None];
        assert_eq!(texts(&a.columns[0], 7), want.map(|t| t.map(str::to_owned)));
        let mut next = asking(Kind::Text, &[7, 8], a.columns.remove(0));
        next.finish(&[0b01], &[View::Text { ends: &[1, 3], data: b"qrs" }]).unwrap();
        assert_eq!(texts(&next.columns[0], 9)[5..], ["abc", "", "q", "rs"].map(|t| Some(t.to_owned())));
        next.undo();
        assert_eq!(texts(&next.columns[0], 8)[5..], [Some("abc".to_owned()), Some(String::new()), None]);
    }

    #[test]
    fn numbers_bits_fixed_and_codes_land_in_their_rows() {
        let mut a = asking(Kind::U32, &[0, 3], Column::Empty);
        a.finish(&[], &[View::U32(&[7, 9])]).unwrap();
        assert_eq!(a.columns[0], Column::U32(vec![7, 0, 0, 9]));
        let mut a = asking(Kind::Bool, &[6, 9], Column::Empty);
        a.finish(&[], &[View::Bits(&[0b11])]).unwrap();
        assert_eq!(a.columns[0], Column::Bits(vec![0x40, 0x02]));
        a.undo();
        assert_eq!(a.columns[0], Column::Bits(vec![0]));
        let mut a = asking(Kind::Bytes, &[0, 2], Column::Empty);
        a.finish(&[], &[View::Fixed(b"abcd")]).unwrap();
        assert_eq!(a.columns[0], Column::Fixed { size: 2, data: b"ab\0\0cd".to_vec() });
        let mut a = asking(Kind::Text, &[1, 2], Column::Empty);
        a.finish(&[], &[View::Codes(&[1, 0])]).unwrap();
        assert_eq!(texts(&a.columns[0], 4), [Some("a"), Some("b"), Some("a"), None].map(|t| t.map(str::to_owned)));
    }

    #[test]
    fn wrong_answers_change_nothing_and_are_named() {
        let cases: &[(Kind, &[u8], &[View<'_>])] = &[
            (Kind::U32, &[], &[View::U32(&[1])]),
            (Kind::U32, &[], &[View::U32(&[1, 2, 3])]),
            (Kind::U32, &[], &[View::U64(&[1, 2])]),
            (Kind::U32, &[], &[]),
            (Kind::U32, &[0, 0], &[View::U32(&[1, 2])]),
            (Kind::Text, &[], &[View::Text { ends: &[3, 1], data: b"a" }]),
            (Kind::Text, &[], &[View::Text { ends: &[0, 9], data: b"abc" }]),
            (Kind::Text, &[], &[View::Text { ends: &[0, 1], data: b"abc" }]),
            (Kind::Text, &[], &[View::Bytes { ends: &[0, 0], data: b"" }]),
            (Kind::Text, &[], &[View::Codes(&[0, 2])]),
            (Kind::Bytes, &[], &[View::Fixed(b"abc")]),
            (Kind::Bytes, &[], &[View::Fixed(b"")]),
            (Kind::Bool, &[], &[View::Bits(&[])]),
        ];
        let mut seen = Vec::new();
        for (kind, keep, views) in cases {
            let mut a = asking(*kind, &[0, 1], Column::Empty);
            seen.push(a.finish(keep, views).unwrap_err().to_string());
            assert_eq!(a.columns[0], Column::Empty);
        }
        insta::assert_snapshot!(seen.join("\n"));
    }

    #[test]
    fn only_one_answer_and_only_when_asked() {
        let mut a = asking(Kind::U8, &[0], Column::Empty);
        a.finish(&[], &[View::U8(&[1])]).unwrap();
        assert_eq!(a.finish(&[], &[View::U8(&[1])]), Err(AnswerError::Twice));
        assert_eq!(a.reject(1, "x".into()), Err(AnswerError::Row { row: 1, rows: 1 }));
        assert_eq!(Answering::default().finish(&[], &[]), Err(AnswerError::NotAsked));
    }
}

/// Checks and appends answers of any shape, chunk after chunk, as a hostile guest may give them.
#[cfg(fuzzing)]
pub(crate) fn fuzz(answers: &[crate::fuzzing::Answer]) {
    const KINDS: [Kind; 13] = [
        Kind::U8,
        Kind::U16,
        Kind::U32,
        Kind::U64,
        Kind::I8,
        Kind::I16,
        Kind::I32,
        Kind::I64,
        Kind::F32,
        Kind::F64,
        Kind::Bool,
        Kind::Text,
        Kind::Bytes,
    ];
    let Some(first) = answers.first() else { return };
    let kind = KINDS[first.kind as usize % KINDS.len()];
    let names = Arc::new(vec!["a".to_owned(), "b".to_owned()]);
    let provided = Arc::new(vec![Provided { name: "f".into(), column: 0, kind, names }]);
    let (mut column, mut next) = (Column::Empty, 0u32);
    for a in answers {
        let from = next + u32::from(a.skip % 4);
        let gaps = a.skip & 0x80 != 0;
        let rows: Vec<u32> = (0..u32::from(a.rows)).map(|i| from + if gaps { 2 * i } else { i }).collect();
        next = rows.last().map_or(next, |r| r + 1);
        let mut answering = Answering {
            asked: true,
            chunk: ChunkRows { rows, contiguous: !gaps },
            provided: Arc::clone(&provided),
            columns: vec![column],
            ..Answering::default()
        };
        let n = &a.numbers;
        let (u16s, u32s): (Vec<u16>, Vec<u32>) = n.iter().map(|n| (*n as u16, *n as u32)).unzip();
        let view = match a.view % 15 {
            0 => View::U8(&a.data),
            1 => View::U16(&u16s),
            2 => View::U32(&u32s),
            3 => View::U64(n),
            4 => View::I8(&[1; 3]),
            5 => View::I16(&[-1; 2]),
            6 => View::I32(&[-1; 4]),
            7 => View::I64(&[-1; 5]),
            8 => View::F32(&[f32::NAN; 2]),
            9 => View::F64(&[f64::INFINITY; 2]),
            10 => View::Bits(&a.data),
            11 => View::Fixed(&a.data),
            12 => View::Text { ends: &u32s, data: &a.data },
            13 => View::Bytes { ends: &u32s, data: &a.data },
            _ => View::Codes(&u16s),
        };
        if let Some(row) = a.reject {
            drop(answering.reject(row, String::new()));
        }
        let wrong = answering.finish(&a.keep, &[view]).is_err();
        if wrong || a.undo {
            answering.undo();
        }
        column = answering.columns.remove(0);
    }
    // Whatever was accepted can be read, every row of it and beyond.
    let mut source = ig_event::DataSource::new("s", ig_event::SourceKind::Events, 1);
    let field = source.add(ig_event::FieldDef::new("f", kind, ig_event::Storage::Column(0)));
    let mut batch = ig_event::Batch::new(Arc::new(source));
    for _ in 0..next.min(4096) {
        batch.push(&[0]);
    }
    batch.columns.push(column);
    for row in batch.iter() {
        field.iter().for_each(|f| drop(batch.value(row, *f)));
    }
}
