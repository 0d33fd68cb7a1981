//! The answer to a batch: one column for each field that was added, and which rows to leave out.
//!
//! The buffers live as long as the guest: clearing keeps their memory, so that a batch costs no allocation.

use crate::{
    rows::Row,
    schema::{ColumnAt, Error, ErrorCode, Kind},
};
use std::marker::PhantomData;

/// Where the values of an added text field go.
#[derive(Clone, Copy, Debug)]
pub struct TextColumn(pub(crate) ColumnAt);

/// Where the values of an added field of bytes go.
#[derive(Clone, Copy, Debug)]
pub struct BytesColumn(pub(crate) ColumnAt);

/// Where the values of an added number field go.
#[derive(Clone, Copy, Debug)]
pub struct NumberColumn<T> {
    pub(crate) at: ColumnAt,
    pub(crate) number: PhantomData<T>,
}

/// Where indices into a dictionary go.
#[derive(Clone, Copy, Debug)]
pub struct CodesColumn(pub(crate) ColumnAt);

/// Variable-length values: value `i` is `data[ends[i-1]..ends[i]]`.
#[doc(hidden)]
#[derive(Clone, Debug, Default)]
pub struct TextData {
    pub ends: Vec<u32>,
    pub data: Vec<u8>,
}

#[doc(hidden)]
#[derive(Clone, Debug)]
pub enum ColumnData {
    U8(Vec<u8>),
    U16(Vec<u16>),
    U32(Vec<u32>),
    U64(Vec<u64>),
    S8(Vec<i8>),
    S16(Vec<i16>),
    S32(Vec<i32>),
    S64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Text(TextData),
    Bytes(TextData),
    Codes(Vec<u16>),
}

/// Runs `$body` for whatever kind of list the column holds.
macro_rules! each_list {
    ($column:expr, $list:ident => $body:expr, $vars:ident => $vars_body:expr) => {
        match $column {
            ColumnData::U8($list) => $body,
            ColumnData::U16($list) | ColumnData::Codes($list) => $body,
            ColumnData::U32($list) => $body,
            ColumnData::U64($list) => $body,
            ColumnData::S8($list) => $body,
            ColumnData::S16($list) => $body,
            ColumnData::S32($list) => $body,
            ColumnData::S64($list) => $body,
            ColumnData::F32($list) => $body,
            ColumnData::F64($list) => $body,
            ColumnData::Text($vars) | ColumnData::Bytes($vars) => $vars_body,
        }
    };
}

impl ColumnData {
    fn len(&self) -> usize {
        each_list!(self, v => v.len(), t => t.ends.len())
    }

    fn clear(&mut self) {
        each_list!(self, v => v.clear(), t => { t.ends.clear(); t.data.clear() })
    }

    /// Appends zeros or empty values until there are `len`.
    fn pad(&mut self, len: usize) {
        each_list!(self, v => if v.len() < len { v.resize(len, Default::default()) }, t => {
            let end = t.data.len() as u32;
            if t.ends.len() < len { t.ends.resize(len, end) }
        })
    }
}

/// A number that a field can hold.
pub trait Number: Copy + Default + 'static {
    #[doc(hidden)]
    const KIND: Kind;
    #[doc(hidden)]
    fn read(bytes: &[u8]) -> Self;
    #[doc(hidden)]
    fn column() -> ColumnData;
    #[doc(hidden)]
    fn list(column: &mut ColumnData) -> Option<&mut Vec<Self>>;
}

macro_rules! number {
    ($($t:ty, $kind:ident, $case:ident;)*) => {$(
        impl Number for $t {
            const KIND: Kind = Kind::$kind;

            #[inline]
            fn read(bytes: &[u8]) -> Self {
                match bytes.first_chunk() {
                    Some(all) => <$t>::from_le_bytes(*all),
                    None => {
                        let mut padded = [0; size_of::<$t>()];
                        padded[..bytes.len()].copy_from_slice(bytes);
                        <$t>::from_le_bytes(padded)
                    }
                }
            }

            fn column() -> ColumnData {
                ColumnData::$case(Vec::new())
            }

            fn list(column: &mut ColumnData) -> Option<&mut Vec<Self>> {
                match column {
                    ColumnData::$case(v) => Some(v),
                    _ => None,
                }
            }
        }
    )*};
}

number! {
    u8, Uint8, U8;
    u16, Uint16, U16;
    u32, Uint32, U32;
    u64, Uint64, U64;
    i8, Int8, S8;
    i16, Int16, S16;
    i32, Int32, S32;
    i64, Int64, S64;
    f32, Float32, F32;
    f64, Float64, F64;
}

/// What a decoder answers to one batch.
#[derive(Debug)]
pub struct Answer {
    source: u32,
    names: Vec<String>,
    columns: Vec<ColumnData>,
    /// One bit a row; empty while every row is kept.
    keep: Vec<u8>,
    rows: usize,
    rejected: Vec<(u32, String)>,
}

impl Answer {
    #[doc(hidden)]
    pub fn new(source: u32, columns: Vec<(String, ColumnData)>) -> Self {
        let (names, columns) = columns.into_iter().unzip();
        Answer { source, names, columns, keep: Vec::new(), rows: 0, rejected: Vec::new() }
    }

    #[doc(hidden)]
    pub fn source(&self) -> u32 {
        self.source
    }

    #[doc(hidden)]
    pub fn begin(&mut self, rows: usize) {
        self.rows = rows;
        self.keep.clear();
        self.rejected.clear();
        self.columns.iter_mut().for_each(ColumnData::clear);
    }

    /// Appends text, one value for each row.
    #[inline]
    pub fn text(&mut self, column: TextColumn) -> TextWriter<'_> {
        self.vars(column.0)
    }

    /// Appends bytes, one value for each row.
    #[inline]
    pub fn bytes(&mut self, column: BytesColumn) -> TextWriter<'_> {
        self.vars(column.0)
    }

    /// The values of a number column so far; push one for each row.
    #[inline]
    pub fn numbers<T: Number>(&mut self, column: NumberColumn<T>) -> &mut Vec<T> {
        match T::list(self.at(column.at)) {
            Some(list) => list,
            None => unreachable!("a number column holds its own kind"),
        }
    }

    /// The indices into the dictionary so far; push one for each row, each below the number of names.
    #[inline]
    pub fn codes(&mut self, column: CodesColumn) -> &mut Vec<u16> {
        match self.at(column.0) {
            ColumnData::Codes(list) => list,
            _ => unreachable!("a codes column holds codes"),
        }
    }

    /// Leaves the row out of everything. The host counts it. Columns that have no value for it yet get an empty one.
    pub fn drop_row(&mut self, row: Row<'_>) {
        if self.keep.is_empty() {
            self.keep.resize(self.rows.div_ceil(8), 0xff);
        }
        self.keep[row.index() / 8] &= !(1 << (row.index() % 8));
        self.pad(row);
    }

    /// Says that the row cannot be decoded: it is shown as it is, and counted. Columns that have no value for it yet get
    /// an empty one.
    pub fn reject(&mut self, row: Row<'_>, reason: impl Into<String>) {
        self.rejected.push((row.index() as u32, reason.into()));
        self.pad(row);
    }

    fn pad(&mut self, row: Row<'_>) {
        self.columns.iter_mut().for_each(|c| c.pad(row.index() + 1));
    }

    #[inline]
    fn at(&mut self, at: ColumnAt) -> &mut ColumnData {
        assert_eq!(at.source, self.source, "a column of another data source");
        &mut self.columns[at.column]
    }

    #[inline]
    fn vars(&mut self, at: ColumnAt) -> TextWriter<'_> {
        match self.at(at) {
            ColumnData::Text(vars) | ColumnData::Bytes(vars) => TextWriter(vars),
            _ => unreachable!("a text column holds text"),
        }
    }

    /// Whether every column has a value for every row.
    #[doc(hidden)]
    pub fn complete(&self) -> Result<(), Error> {
        for (name, column) in self.names.iter().zip(&self.columns) {
            if column.len() != self.rows {
                let message = format!("field {name} has {} values for {} rows", column.len(), self.rows);
                return Err(Error::new(ErrorCode::Invalid, message));
            }
        }
        Ok(())
    }

    #[doc(hidden)]
    pub fn parts(&mut self) -> (&[u8], &mut [ColumnData], &[(u32, String)]) {
        (&self.keep, &mut self.columns, &self.rejected)
    }

    pub(crate) fn keep(&self) -> &[u8] {
        &self.keep
    }

    pub(crate) fn rejected(&self) -> &[(u32, String)] {
        &self.rejected
    }

    pub(crate) fn columns(&self) -> &[ColumnData] {
        &self.columns
    }

    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }
}

/// Appends values of any length to a column.
pub struct TextWriter<'a>(&'a mut TextData);

impl TextWriter<'_> {
    #[inline]
    pub fn push(self, value: &[u8]) {
        self.push_with(|out| out.extend_from_slice(value));
    }

    /// One value, out of what `write` appends. It must not touch what is there already.
    #[inline]
    pub fn push_with(self, write: impl FnOnce(&mut Vec<u8>)) {
        write(&mut self.0.data);
        self.0.ends.push(self.0.data.len() as u32);
    }
}
