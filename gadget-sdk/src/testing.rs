//! Runs a decoder on the host, without Wasm: for the unit tests of a gadget.

use crate::{
    Answer, Decoder, Error, ErrorCode, FieldDef, Kind, Rows, Setup,
    answer::ColumnData,
    schema::{Host, SourceInfo},
};
use std::{cell::RefCell, collections::BTreeMap, rc::Rc};

/// A data source with the fields that a test declares, packed in order.
pub struct Fixture {
    info: SourceInfo,
    name: String,
    size: u32,
    params: BTreeMap<String, String>,
    seen: Rc<RefCell<Seen>>,
}

#[derive(Default)]
struct Seen {
    hidden: Vec<u32>,
    dictionaries: BTreeMap<u32, Vec<String>>,
    added: Vec<String>,
}

impl Fixture {
    pub fn new(source: &str) -> Self {
        Fixture {
            info: SourceInfo { id: 0, fields: Vec::new() },
            name: source.to_owned(),
            size: 0,
            params: BTreeMap::new(),
            seen: Rc::default(),
        }
    }

    /// Appends a field of `size` bytes, right after the one before.
    pub fn field(mut self, name: &str, kind: Kind, size: u32) -> Self {
        let id = self.info.fields.len() as u32;
        let offset = Some(self.size);
        self.info.fields.push(crate::FieldInfo { id, name: name.to_owned(), kind, offset, size });
        self.size += size;
        self
    }

    pub fn param(mut self, key: &str, value: &str) -> Self {
        self.params.insert(key.to_owned(), value.to_owned());
        self
    }

    /// Opens the decoder, hands it the records as one batch, and checks the answer as the host does.
    pub fn decode<D: Decoder>(&mut self, records: &[&[u8]]) -> Result<Decoded, Error> {
        *self.seen.borrow_mut() = Seen::default();
        let mut setup = Setup::new(Box::new(FixtureHost {
            name: self.name.clone(),
            info: self.info.clone(),
            params: self.params.clone(),
            seen: Rc::clone(&self.seen),
        }));
        let mut decoder = D::open(&mut setup)?;
        let mut answers = setup.finish()?;
        let answer =
            answers.first_mut().ok_or_else(|| Error::new(ErrorCode::Invalid, "no data source was asked for"))?;
        let raw = records.concat();
        let ends: Vec<u32> = records
            .iter()
            .scan(0, |end, r| {
                *end += r.len() as u32;
                Some(*end)
            })
            .collect();
        answer.begin(records.len());
        decoder.decode(&Rows::new(0, records.len(), &raw, 0, &ends, 0), answer)?;
        answer.complete()?;
        decoder.stop()?;
        let seen = self.seen.take();
        let hidden = seen.hidden.iter().map(|id| self.info.fields[*id as usize].name.clone()).collect();
        Ok(Decoded { answer: answers.swap_remove(0), hidden, dictionaries: seen.dictionaries })
    }
}

struct FixtureHost {
    name: String,
    info: SourceInfo,
    params: BTreeMap<String, String>,
    seen: Rc<RefCell<Seen>>,
}

impl Host for FixtureHost {
    fn source(&mut self, name: &str) -> Result<SourceInfo, Error> {
        if name == self.name {
            return Ok(self.info.clone());
        }
        Err(Error::new(ErrorCode::NotFound, format!("no data source {name}; there is {}", self.name)))
    }

    fn add_field(&mut self, _source: u32, def: &FieldDef, _kind: Kind) -> Result<u32, Error> {
        let mut seen = self.seen.borrow_mut();
        seen.added.push(def.name.clone());
        Ok(seen.added.len() as u32 - 1)
    }

    fn set_dictionary(&mut self, field: u32, values: &[&str]) -> Result<(), Error> {
        let values = values.iter().map(|v| (*v).to_owned()).collect();
        self.seen.borrow_mut().dictionaries.insert(field, values);
        Ok(())
    }

    fn hide_field(&mut self, field: u32) -> Result<(), Error> {
        self.seen.borrow_mut().hidden.push(field);
        Ok(())
    }

    fn subscribe(&mut self, _source: u32, _provides: &[u32]) -> Result<(), Error> {
        Ok(())
    }

    fn param(&mut self, key: &str) -> Option<String> {
        self.params.get(key).cloned()
    }
}

/// What a decoder answered.
pub struct Decoded {
    answer: Answer,
    hidden: Vec<String>,
    dictionaries: BTreeMap<u32, Vec<String>>,
}

impl Decoded {
    /// Text, bytes or the name behind a code of an added field; `None` when there is no such field or row.
    pub fn text(&self, field: &str, row: usize) -> Option<&[u8]> {
        let (at, column) = self.column(field)?;
        match column {
            ColumnData::Text(v) | ColumnData::Bytes(v) => {
                let start = if row == 0 { 0 } else { *v.ends.get(row - 1)? as usize };
                v.data.get(start..*v.ends.get(row)? as usize)
            }
            ColumnData::Codes(v) => {
                let names = self.dictionaries.get(&(at as u32))?;
                names.get(*v.get(row)? as usize).map(String::as_bytes)
            }
            _ => None,
        }
    }

    /// An added number.
    pub fn number(&self, field: &str, row: usize) -> Option<f64> {
        Some(match self.column(field)?.1 {
            ColumnData::U8(v) => (*v.get(row)?).into(),
            ColumnData::U16(v) => (*v.get(row)?).into(),
            ColumnData::U32(v) => (*v.get(row)?).into(),
            ColumnData::U64(v) => *v.get(row)? as f64,
            ColumnData::S8(v) => (*v.get(row)?).into(),
            ColumnData::S16(v) => (*v.get(row)?).into(),
            ColumnData::S32(v) => (*v.get(row)?).into(),
            ColumnData::S64(v) => *v.get(row)? as f64,
            ColumnData::F32(v) => (*v.get(row)?).into(),
            ColumnData::F64(v) => *v.get(row)?,
            ColumnData::Text(_) | ColumnData::Bytes(_) | ColumnData::Codes(_) => return None,
        })
    }

    /// Whether the row stays.
    pub fn kept(&self, row: usize) -> bool {
        self.answer.keep().is_empty() || self.answer.keep()[row / 8] >> (row % 8) & 1 == 1
    }

    /// Why the row could not be decoded, if it was rejected.
    pub fn rejected(&self, row: usize) -> Option<&str> {
        self.answer.rejected().iter().find(|(r, _)| *r as usize == row).map(|(_, why)| why.as_str())
    }

    /// Fields that were taken out of the output.
    pub fn hidden(&self) -> &[String] {
        &self.hidden
    }

    fn column(&self, field: &str) -> Option<(usize, &ColumnData)> {
        let at = self.answer.names().iter().position(|n| n == field)?;
        Some((at, &self.answer.columns()[at]))
    }
}
