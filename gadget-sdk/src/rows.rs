//! The rows of a batch, read where they lie: raw records back to back.

use crate::{SourceId, answer::Number};
use std::marker::PhantomData;

/// Where a number lies in the record.
#[derive(Clone, Copy, Debug)]
pub struct NumberField<T> {
    pub(crate) offset: usize,
    pub(crate) number: PhantomData<T>,
}

/// Where text or bytes lie in the record.
#[derive(Clone, Copy, Debug)]
pub struct BytesField {
    pub(crate) offset: usize,
    pub(crate) size: usize,
}

/// A batch of records of one source. Iterate over `&rows`.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    source: u32,
    len: usize,
    raw: &'a [u8],
    stride: usize,
    ends: &'a [u32],
    lost: u64,
}

impl<'a> Rows<'a> {
    #[doc(hidden)]
    pub fn new(source: u32, len: usize, raw: &'a [u8], stride: usize, ends: &'a [u32], lost: u64) -> Self {
        Rows { source, len, raw, stride, ends, lost }
    }

    pub fn source(&self) -> SourceId {
        SourceId(self.source)
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Events lost since the batch before.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Panics when there is no such row.
    pub fn row(&self, index: usize) -> Row<'a> {
        assert!(index < self.len, "row {index} of {}", self.len);
        let record = if self.stride > 0 {
            &self.raw[index * self.stride..(index + 1) * self.stride]
        } else {
            let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
            &self.raw[start..self.ends[index] as usize]
        };
        Row { index, record }
    }

    pub fn iter(&self) -> Iter<'a> {
        Iter { rows: *self, next: 0, start: 0 }
    }
}

impl<'a> IntoIterator for &Rows<'a> {
    type Item = Row<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// The rows of a batch, in order.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    rows: Rows<'a>,
    next: usize,
    /// Where the next record starts.
    start: usize,
}

impl<'a> Iterator for Iter<'a> {
    type Item = Row<'a>;

    #[inline]
    fn next(&mut self) -> Option<Row<'a>> {
        let index = self.next;
        if index >= self.rows.len {
            return None;
        }
        let end = match self.rows.stride {
            0 => self.rows.ends[index] as usize,
            stride => self.start + stride,
        };
        let record = &self.rows.raw[self.start..end];
        (self.next, self.start) = (index + 1, end);
        Some(Row { index, record })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.rows.len - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Iter<'_> {}

/// One record.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    index: usize,
    record: &'a [u8],
}

impl<'a> Row<'a> {
    /// Its place in the batch, from 0.
    pub fn index(&self) -> usize {
        self.index
    }

    /// All of it, as the kernel wrote it.
    pub fn record(&self) -> &'a [u8] {
        self.record
    }

    /// A number; bytes that a short record does not have read as zeros.
    #[inline]
    pub fn number<T: Number>(&self, field: NumberField<T>) -> T {
        T::read(self.record.get(field.offset..).unwrap_or_default())
    }

    /// The bytes of a field, down to none where the record ends early. NULs are left in.
    #[inline]
    pub fn bytes(&self, field: BytesField) -> &'a [u8] {
        let rest = self.record.get(field.offset..).unwrap_or_default();
        &rest[..rest.len().min(field.size)]
    }
}
