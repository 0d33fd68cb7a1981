//! The schema while a guest may change it, and what it asked for. Plain data; knows nothing of Wasm.
//!
//! A restarted guest opens a fresh copy of the schema it saw the first time, and must come to the same plan: the rows in
//! flight already have that shape.

use super::answer::Provided;
use ig_event::{DataSource, FieldDef, FieldId, Kind, Storage};
use std::{collections::BTreeMap, sync::Arc};

/// What a guest may add to one gadget.
const MOST_FIELDS: usize = 512;
const MOST_NAMES: usize = 1 << 16;
const MOST_NAME_BYTES: usize = 1 << 20;
/// Longest name, tag or annotation.
const LONGEST_TEXT: usize = 4096;
const MOST_TEXTS: usize = 64;

/// Why a request of the guest is refused; the guest is told and may go on.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(super) enum OpenError {
    #[error("no data source {name}; there is {known}")]
    NoSource { name: String, known: String },
    #[error("no data source has the id {id}")]
    NoSourceId { id: u32 },
    #[error("no field has the id {id}")]
    NoField { id: u32 },
    #[error("field {name} exists already in data source {of}")]
    Taken { of: String, name: String },
    #[error("field {name} cannot be added: data source {of} has no field {parent}")]
    NoParent { of: String, name: String, parent: String },
    #[error("field {name} holds no text, so it has no dictionary")]
    NoText { name: String },
    #[error("field name {name:?} has other characters than a-z, A-Z, 0-9, _, - and dots between them")]
    BadName { name: String },
    #[error("field {name} is not the gadget's own")]
    NotOwn { name: String },
    #[error("field {name} is of another data source")]
    OtherSource { name: String },
    #[error("data source {name} is subscribed to already")]
    Subscribed { name: String },
    #[error("more than {limit} {what}")]
    TooMany { what: &'static str, limit: usize },
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Wants {
    pub(super) raw: bool,
    pub(super) columns: Vec<FieldId>,
}

/// What a guest gets and gives for one source.
#[derive(Clone, Debug)]
pub(super) struct Subscription {
    pub(super) wants: Wants,
    pub(super) provides: Arc<Vec<Provided>>,
    /// 0: the host's choice.
    pub(super) max_rows: u32,
}

/// An id as the guest sees it: the source in the upper half, the field in the lower.
pub(super) fn field_id(source: u32, field: FieldId) -> u32 {
    source << 16 | field.0
}

/// The open schema.
#[derive(Debug, Default)]
pub(super) struct Opening {
    pub(super) sources: Vec<DataSource>,
    own: Vec<u32>,
    names: BTreeMap<u32, Vec<String>>,
    pub(super) subscriptions: Vec<Option<(Wants, Vec<u32>, u32)>>,
}

impl Opening {
    pub(super) fn new(sources: Vec<DataSource>) -> Self {
        let subscriptions = sources.iter().map(|_| None).collect();
        Opening { sources, subscriptions, ..Opening::default() }
    }

    pub(super) fn source(&self, name: &str) -> Result<(u32, &DataSource), OpenError> {
        let found = self.sources.iter().enumerate().find(|(_, s)| s.name == name);
        found.map(|(i, s)| (i as u32, s)).ok_or_else(|| OpenError::NoSource {
            name: clip(name),
            known: self.sources.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", "),
        })
    }

    pub(super) fn add_field(
        &mut self,
        source: u32,
        name: &str,
        kind: Kind,
        tags: Vec<String>,
        annotations: Vec<(String, String)>,
    ) -> Result<u32, OpenError> {
        let s = self.sources.get_mut(source as usize).ok_or(OpenError::NoSourceId { id: source })?;
        if self.own.len() == MOST_FIELDS {
            return Err(OpenError::TooMany { what: "added fields", limit: MOST_FIELDS });
        }
        if tags.len() + annotations.len() > MOST_TEXTS {
            return Err(OpenError::TooMany { what: "tags and annotations of one field", limit: MOST_TEXTS });
        }
        let texts = annotations.iter().flat_map(|(k, v)| [k, v]).chain(&tags);
        if texts.map(String::len).max().unwrap_or(0) > LONGEST_TEXT {
            return Err(OpenError::TooMany { what: "bytes in a tag or annotation", limit: LONGEST_TEXT });
        }
        if !good_name(name) {
            return Err(OpenError::BadName { name: clip(name) });
        }
        if s.find(name).is_some() {
            return Err(OpenError::Taken { of: s.name.clone(), name: name.to_owned() });
        }
        let (parent, last) = name.rsplit_once('.').unwrap_or(("", name));
        let no_parent = || OpenError::NoParent { of: s.name.clone(), name: name.to_owned(), parent: parent.to_owned() };
        let parent_id = match parent {
            "" => None,
            p => Some(s.find(p).map(|f| f.id).ok_or_else(no_parent)?),
        };
        let storage = s.new_column(kind);
        let mut def = FieldDef::new(last, kind, storage);
        (def.parent, def.tags, def.annotations) = (parent_id, tags, annotations.into_iter().collect());
        let id = s.add(def).ok_or(OpenError::NoSourceId { id: source })?;
        let id = field_id(source, id);
        self.own.push(id);
        Ok(id)
    }

    /// The values come one by one, because the guest's list may be far longer than the limit.
    pub(super) fn set_dictionary(
        &mut self,
        field: u32,
        values: impl IntoIterator<Item = String>,
    ) -> Result<(), OpenError> {
        let (_, def) = self.own(field)?;
        if !def.kind.is_text() {
            return Err(OpenError::NoText { name: def.name.clone() });
        }
        let names = self.names.entry(field).or_default();
        let mut bytes: usize = names.iter().map(String::len).sum();
        for value in values {
            bytes += value.len();
            if names.len() == MOST_NAMES {
                return Err(OpenError::TooMany { what: "values in one dictionary", limit: MOST_NAMES });
            }
            if bytes > MOST_NAME_BYTES {
                return Err(OpenError::TooMany { what: "bytes in one dictionary", limit: MOST_NAME_BYTES });
            }
            names.push(value);
        }
        Ok(())
    }

    pub(super) fn hide_field(&mut self, field: u32) -> Result<(), OpenError> {
        let (source, id) = self.find(field)?;
        self.sources[source].field_mut(id).unreferenced = true;
        Ok(())
    }

    pub(super) fn subscribe(
        &mut self,
        source: u32,
        raw: bool,
        columns: &[u32],
        provides: Vec<u32>,
        max_rows: u32,
    ) -> Result<(), OpenError> {
        let at = source as usize;
        let name = self.sources.get(at).ok_or(OpenError::NoSourceId { id: source })?.name.clone();
        if self.subscriptions[at].is_some() {
            return Err(OpenError::Subscribed { name });
        }
        if columns.len() + provides.len() > 2 * MOST_FIELDS {
            return Err(OpenError::TooMany { what: "fields in one subscription", limit: 2 * MOST_FIELDS });
        }
        let mut wanted = Vec::new();
        for id in columns {
            let (of, field) = self.find(*id)?;
            if of != at {
                return Err(OpenError::OtherSource { name: self.sources[of].field(field).full_name.clone() });
            }
            wanted.push(field);
        }
        for (i, id) in provides.iter().enumerate() {
            let (of, def) = self.own(*id)?;
            if of != at {
                return Err(OpenError::OtherSource { name: def.name.clone() });
            }
            if provides[..i].contains(id) {
                return Err(OpenError::TooMany { what: "mention of a provided field", limit: 1 });
            }
        }
        self.subscriptions[at] = Some((Wants { raw, columns: wanted }, provides, max_rows));
        Ok(())
    }

    /// The plan, once the schema is frozen.
    pub(super) fn plan(&self) -> Vec<Option<Subscription>> {
        let provided = |id: &u32| {
            let (source, field) = self.find(*id).ok()?;
            let f = self.sources[source].field(field);
            let Storage::Column(column) = f.def.storage else { return None };
            let names = Arc::new(self.names.get(id).cloned().unwrap_or_default());
            Some(Provided { name: f.full_name.clone(), column: column as usize, kind: f.def.kind, names })
        };
        let one = |s: &(Wants, Vec<u32>, u32)| Subscription {
            wants: s.0.clone(),
            provides: Arc::new(s.1.iter().filter_map(provided).collect()),
            max_rows: s.2,
        };
        self.subscriptions.iter().map(|s| s.as_ref().map(one)).collect()
    }

    /// Whether two openings led to rows of the same shape.
    pub(super) fn same_plan(&self, other: &Opening) -> bool {
        self.subscriptions == other.subscriptions && self.sources == other.sources
    }

    fn find(&self, id: u32) -> Result<(usize, FieldId), OpenError> {
        let (source, field) = ((id >> 16) as usize, id & 0xffff);
        let known = self.sources.get(source).is_some_and(|s| (field as usize) < s.fields().len());
        if known { Ok((source, FieldId(field))) } else { Err(OpenError::NoField { id }) }
    }

    fn own(&self, id: u32) -> Result<(usize, &FieldDef), OpenError> {
        let (source, field) = self.find(id)?;
        let f = self.sources[source].field(field);
        if self.own.contains(&id) {
            return Ok((source, &f.def));
        }
        Err(OpenError::NotOwn { name: f.full_name.clone() })
    }
}

fn good_name(name: &str) -> bool {
    let part = |p: &str| {
        !p.is_empty() && p.len() <= 128 && p.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    };
    name.len() <= LONGEST_TEXT && name.split('.').all(part)
}

fn clip(text: &str) -> String {
    text[..text.floor_char_boundary(64)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ig_event::SourceKind;

    fn opening() -> Opening {
        let mut a = DataSource::new("a", SourceKind::Events, 8);
        a.add(FieldDef::new("pid", Kind::U32, Storage::Record { offset: 0, size: 4 }));
        a.add(FieldDef::new("proc", Kind::Bytes, Storage::Group));
        Opening::new(vec![a, DataSource::new("b", SourceKind::Events, 8)])
    }

    fn add(o: &mut Opening, source: u32, name: &str) -> Result<u32, OpenError> {
        o.add_field(source, name, Kind::Text, vec![], vec![])
    }

    #[test]
    fn fields_are_added_below_their_parent_and_become_columns() {
        let mut o = opening();
        let args = add(&mut o, 0, "args").unwrap();
        let comm = add(&mut o, 0, "proc.comm").unwrap();
        o.set_dictionary(comm, ["x".to_owned()]).unwrap();
        o.hide_field(0).unwrap();
        o.subscribe(0, true, &[0], vec![comm, args], 7).unwrap();
        assert_eq!(o.sources[0].find("proc.comm").unwrap().def.storage, Storage::Column(1));
        assert!(o.sources[0].find("pid").unwrap().unreferenced);
        let plan = o.plan();
        let s = plan[0].as_ref().unwrap();
        assert_eq!(
            s.provides.iter().map(|p| (p.name.as_str(), p.column, p.names.len())).collect::<Vec<_>>(),
            [("proc.comm", 1, 1), ("args", 0, 0)]
        );
        assert!(plan[1].is_none());
        let mut other = opening();
        assert!(!o.same_plan(&other));
        add(&mut other, 0, "args").unwrap();
        add(&mut other, 0, "proc.comm").unwrap();
        other.hide_field(0).unwrap();
        other.subscribe(0, true, &[0], vec![comm, args], 7).unwrap();
        assert!(o.same_plan(&other));
    }

    #[test]
    fn what_is_not_the_guests_to_do_is_refused_by_name() {
        let mut o = opening();
        let b = add(&mut o, 1, "x").unwrap();
        let number = o.add_field(0, "n", Kind::U8, vec![], vec![]).unwrap();
        let errors = [
            o.source("nope").map(|_| ()).unwrap_err(),
            add(&mut o, 9, "x").unwrap_err(),
            add(&mut o, 0, "pid").unwrap_err(),
            add(&mut o, 0, "no.such").unwrap_err(),
            add(&mut o, 0, "with space").unwrap_err(),
            add(&mut o, 0, "").unwrap_err(),
            o.set_dictionary(0, []).unwrap_err(),
            o.set_dictionary(number, []).unwrap_err(),
            o.set_dictionary(b, (0..70_000).map(|i| i.to_string())).unwrap_err(),
            o.hide_field(0xffff_ffff).unwrap_err(),
            o.subscribe(0, true, &[], vec![0], 0).unwrap_err(),
            o.subscribe(0, true, &[], vec![b], 0).unwrap_err(),
            o.subscribe(0, true, &[b], vec![], 0).unwrap_err(),
            o.subscribe(1, true, &[], vec![b, b], 0).unwrap_err(),
            o.subscribe(0, true, &[], vec![], 0).and_then(|()| o.subscribe(0, true, &[], vec![], 0)).unwrap_err(),
        ];
        insta::assert_snapshot!(errors.map(|e| e.to_string()).join("\n"));
    }

    #[test]
    fn a_guest_cannot_add_fields_without_end() {
        let mut o = opening();
        let error = (0..).find_map(|i| add(&mut o, 0, &format!("f{i}")).err()).unwrap();
        assert_eq!(error.to_string(), "more than 512 added fields");
    }
}
