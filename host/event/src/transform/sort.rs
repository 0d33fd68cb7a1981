//! `--sort f1,-f2`: puts the rows of a table in order. Only tables have an end, so only tables can be sorted.

use crate::{
    Batch, DataSource, Derive, FieldId, Operator, OperatorError, SourceKind, Stage, Storage, Value,
    lookup::{UnknownField, find_field},
    value::{Row, Text, TextEnv, inputs},
};
use std::cmp::Ordering;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SortError {
    #[error("cannot sort data source {source_name:?}: it is a stream of events, not a table")]
    NotATable { source_name: String },
    #[error("cannot sort: {0}")]
    UnknownField(#[from] UnknownField),
    #[error("cannot sort by {field:?}: it is a group of fields")]
    Group { field: String },
    #[error("cannot sort: {text:?} names no field between two commas")]
    EmptyKey { text: String },
}

impl SortError {
    pub fn hint(&self) -> Option<String> {
        match self {
            SortError::UnknownField(e) => e.hint(),
            SortError::Group { field } => Some(format!("name one of its fields, as in {field}.NAME")),
            SortError::NotATable { .. } => Some("--sort works with snapshots and tops".to_owned()),
            SortError::EmptyKey { .. } => None,
        }
    }
}

/// One field to sort by.
#[derive(Debug)]
struct Key {
    text: Text,
    descending: bool,
}

/// A value made comparable, in the order the variants are listed.
#[derive(Debug, PartialEq)]
enum Rank {
    Missing,
    Int(i128),
    Float(f64),
    Text(Vec<u8>),
}

impl Rank {
    fn compare(&self, other: &Rank) -> Ordering {
        fn class(r: &Rank) -> u8 {
            match r {
                Rank::Missing => 0,
                Rank::Int(_) => 1,
                Rank::Float(_) => 2,
                Rank::Text(_) => 3,
            }
        }
        match (self, other) {
            (Rank::Int(a), Rank::Int(b)) => a.cmp(b),
            (Rank::Float(a), Rank::Float(b)) => a.total_cmp(b),
            (Rank::Text(a), Rank::Text(b)) => a.cmp(b),
            _ => class(self).cmp(&class(other)),
        }
    }
}

/// Sorts each batch by its keys; rows that are equal keep their order.
#[derive(Debug)]
pub struct Sort {
    keys: Vec<Key>,
    fields: Vec<FieldId>,
}

impl Sort {
    /// `text`: field names separated by commas, `-` before one for the largest first. Empty: leaves the order as it is.
    pub fn parse(text: &str, source: &DataSource, env: &TextEnv) -> Result<Self, SortError> {
        let mut sort = Sort { keys: Vec::new(), fields: Vec::new() };
        if text.trim().is_empty() {
            return Ok(sort);
        }
        if source.kind != SourceKind::Snapshot {
            return Err(SortError::NotATable { source_name: source.name.clone() });
        }
        for part in text.split(',') {
            let part = part.trim();
            let (descending, name) = part.strip_prefix('-').map_or((false, part), |rest| (true, rest));
            if name.is_empty() {
                return Err(SortError::EmptyKey { text: text.to_owned() });
            }
            let field = find_field(source, name)?;
            if field.def.storage == Storage::Group {
                return Err(SortError::Group { field: field.full_name.clone() });
            }
            let mut key = Text::new(source, field.id, env);
            if let Storage::Derived { how: Derive::Bytes | Derive::Duration | Derive::Timestamp, .. } =
                field.def.storage
            {
                // These are read as quantities: `1.2 MB` comes after `900 kB`.
                key.format = None;
            }
            inputs(source, field.id, &mut sort.fields);
            sort.keys.push(Key { text: key, descending });
        }
        Ok(sort)
    }

    /// Fields whose values the order depends on.
    pub fn needed_fields(&self) -> Vec<FieldId> {
        self.fields.clone()
    }
}

fn rank(text: &mut Text, row: Row<'_>) -> Rank {
    match (text.load.get(row), &text.format) {
        (_, Some(_)) => {
            let mut out = Vec::new();
            text.write(row, &mut out);
            Rank::Text(out)
        }
        (Value::Missing, None) => Rank::Missing,
        (Value::Bool(b), None) => Rank::Int(b.into()),
        (Value::Int(n), None) => Rank::Int(n.into()),
        (Value::Uint(n), None) => Rank::Int(n.into()),
        (Value::Float(f), None) => Rank::Float(f),
        (Value::Text(t), None) => Rank::Text(t.into_owned()),
        (Value::Bytes(b), None) => Rank::Text(b.to_vec()),
    }
}

impl Operator for Sort {
    fn name(&self) -> &str {
        "sort"
    }

    fn stage(&self) -> Stage {
        Stage::Sort
    }

    fn process(&mut self, batch: &mut Batch) -> Result<(), OperatorError> {
        if self.keys.is_empty() {
            return Ok(());
        }
        let width = self.keys.len();
        let mut ranks = Vec::with_capacity(batch.len() * width);
        for index in 0..batch.len() {
            let row = Row::new(batch, index);
            ranks.extend(self.keys.iter_mut().map(|k| rank(&mut k.text, row)));
        }
        let mut order: Vec<u32> = (0..batch.len() as u32).collect();
        order.sort_by(|a, b| {
            let (a, b) = (*a as usize * width, *b as usize * width);
            self.keys.iter().enumerate().fold(Ordering::Equal, |so_far, (i, key)| {
                so_far.then_with(|| {
                    let ordering = ranks[a + i].compare(&ranks[b + i]);
                    if key.descending { ordering.reverse() } else { ordering }
                })
            })
        });
        batch.set_order(order);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FieldDef, Kind};
    use std::sync::Arc;

    fn source(kind: SourceKind) -> Arc<DataSource> {
        let mut s = DataSource::new("processes", kind, 8);
        let n = s.add(FieldDef::new("size_raw", Kind::I32, Storage::Record { offset: 0, size: 4 })).unwrap();
        s.add(FieldDef::new("size", Kind::Text, Storage::Derived { from: n, how: Derive::Bytes })).unwrap();
        s.add(FieldDef::new("comm", Kind::CString, Storage::Record { offset: 4, size: 4 })).unwrap();
        s.add(FieldDef::new("proc", Kind::Bytes, Storage::Group)).unwrap();
        Arc::new(s)
    }

    fn order(keys: &str) -> Vec<usize> {
        let source = source(SourceKind::Snapshot);
        let mut batch = Batch::new(source.clone());
        for (n, comm) in [(900_000, b"b\0\0\0"), (1_200_000, b"a\0zz"), (-1, b"b\0\0\0"), (900_000, b"a\0\0\0")] {
            let mut record = i32::to_le_bytes(n).to_vec();
            record.extend_from_slice(comm);
            batch.push(&record);
        }
        Sort::parse(keys, &source, &TextEnv::default()).unwrap().process(&mut batch).unwrap();
        batch.iter().collect()
    }

    #[test]
    fn sorts_numbers_quantities_and_text_stably_in_both_directions() {
        assert_eq!(order("size_raw"), [2, 0, 3, 1]);
        assert_eq!(order("-size"), [1, 0, 3, 2]);
        assert_eq!(order("comm, -size_raw"), [1, 3, 0, 2]);
        assert_eq!(order("comm"), [1, 3, 0, 2]);
        assert_eq!(order(" "), [0, 1, 2, 3]);
    }

    #[test]
    fn what_cannot_be_sorted_says_why() {
        let env = TextEnv::default();
        let table = source(SourceKind::Snapshot);
        let e = Sort::parse("cmom", &table, &env).unwrap_err();
        assert_eq!(e.to_string(), r#"cannot sort: data source "processes" has no field "cmom""#);
        assert_eq!(e.hint().as_deref(), Some("did you mean comm?"));
        assert!(matches!(Sort::parse("comm,", &table, &env), Err(SortError::EmptyKey { .. })));
        assert!(matches!(Sort::parse("proc", &table, &env), Err(SortError::Group { .. })));
        let e = Sort::parse("comm", &source(SourceKind::Events), &env).unwrap_err();
        assert_eq!(e.to_string(), r#"cannot sort data source "processes": it is a stream of events, not a table"#);
    }
}
