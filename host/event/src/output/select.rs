//! `--fields`: which fields an output shows. The same selection works in every mode.

use crate::{
    DataSource, Field, FieldId, Storage,
    lookup::{UnknownField, find_field, is_referenced},
};
use rustc_hash::FxHashSet;

/// A user's choice of fields, resolved against a data source.
///
/// A group stands for everything below it. With `a,b` columns appear in that order; JSON and YAML sort their keys always.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum FieldSelection {
    /// Columns: all that are not hidden. Other modes: all but `json.skip`.
    #[default]
    Default,
    /// `a,b`: exactly these.
    Only(Vec<FieldId>),
    /// `+a,-b`: the default with some added and some removed.
    Change { add: Vec<FieldId>, remove: Vec<FieldId> },
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldsError {
    #[error("cannot select fields: {0}")]
    UnknownField(#[from] UnknownField),
    #[error("cannot select fields with {text:?}: either every name has + or - before it, or none has")]
    Mixed { text: String },
    #[error("cannot select fields with {text:?}: a name is missing between two commas")]
    EmptyName { text: String },
}

impl FieldsError {
    pub fn hint(&self) -> Option<String> {
        match self {
            FieldsError::UnknownField(e) => e.hint(),
            FieldsError::Mixed { .. } | FieldsError::EmptyName { .. } => {
                Some("write --fields a,b for exactly these, or --fields +a,-b to change the default".to_owned())
            }
        }
    }
}

impl FieldSelection {
    pub fn parse(text: &str, source: &DataSource) -> Result<Self, FieldsError> {
        if text.trim().is_empty() {
            return Ok(FieldSelection::Default);
        }
        let (mut only, mut add, mut remove) = (Vec::new(), Vec::new(), Vec::new());
        for part in text.split(',').map(str::trim) {
            let (list, name) = match (part.strip_prefix('+'), part.strip_prefix('-')) {
                (Some(name), _) => (&mut add, name),
                (_, Some(name)) => (&mut remove, name),
                (None, None) => (&mut only, part),
            };
            if name.is_empty() {
                return Err(FieldsError::EmptyName { text: text.to_owned() });
            }
            let id = find_field(source, name)?.id;
            if !list.contains(&id) {
                list.push(id);
            }
        }
        match (only.is_empty(), add.is_empty() && remove.is_empty()) {
            (false, true) => Ok(FieldSelection::Only(only)),
            (true, _) => Ok(FieldSelection::Change { add, remove }),
            (false, false) => Err(FieldsError::Mixed { text: text.to_owned() }),
        }
    }

    /// Fields with a cell of their own, from left to right.
    pub(crate) fn columns(&self, source: &DataSource) -> Vec<FieldId> {
        let shown = |f: &&Field| is_referenced(source, f.id) && has_cell(source, f);
        let mut ids: Vec<FieldId> = match self {
            FieldSelection::Only(ids) => return expand(source, ids),
            FieldSelection::Default | FieldSelection::Change { .. } => {
                source.fields().iter().filter(shown).map(|f| f.id).collect()
            }
        };
        ids.retain(|id| !is_hidden(source, *id));
        if let FieldSelection::Change { add, remove } = self {
            let removed = |id: FieldId| remove.iter().any(|r| is_at_or_below(source, id, *r));
            ids.retain(|id| !removed(*id));
            ids.extend(expand(source, add));
        }
        let mut seen = FxHashSet::default();
        ids.retain(|id| seen.insert(*id));
        let places = places(source);
        ids.sort_by_key(|id| (order(source, &places, *id), places[id.0 as usize]));
        ids
    }

    /// True where JSON shows the field; for groups, where it may show some of what is below.
    pub(crate) fn in_object(&self, source: &DataSource, id: FieldId) -> bool {
        let by_default = || !skipped(source, id);
        let picked =
            |ids: &[FieldId]| ids.iter().any(|p| is_at_or_below(source, id, *p) && !skipped_below(source, id, *p));
        is_referenced(source, id)
            && match self {
                FieldSelection::Default => by_default(),
                FieldSelection::Only(ids) => picked(ids),
                FieldSelection::Change { add, remove } => {
                    picked(add) || (by_default() && !remove.iter().any(|r| is_at_or_below(source, id, *r)))
                }
            }
    }
}

/// True where the field is the group itself, or somewhere below it.
fn is_at_or_below(source: &DataSource, id: FieldId, group: FieldId) -> bool {
    id == group || source.field(id).def.parent.is_some_and(|p| is_at_or_below(source, p, group))
}

fn skipped(source: &DataSource, id: FieldId) -> bool {
    let field = source.field(id);
    field.flag("json.skip") || field.def.parent.is_some_and(|p| skipped(source, p))
}

/// As `skipped`, but what is asked for by name (`from`) is not skipped for its own sake or its parents'.
fn skipped_below(source: &DataSource, id: FieldId, from: FieldId) -> bool {
    if id == from {
        return false;
    }
    let field = source.field(id);
    field.flag("json.skip") || field.def.parent.is_some_and(|p| skipped_below(source, p, from))
}

/// True where the field is hidden, or a text above it already shows it (`src` shows `src.port`). A hidden struct does not
/// hide its members: it is hidden because they stand for it.
fn is_hidden(source: &DataSource, id: FieldId) -> bool {
    let field = source.field(id);
    field.hidden() || field.def.parent.is_some_and(|p| has_cell(source, source.field(p)))
}

/// False for groups: those declared so, and structs whose bytes are shown member by member.
pub(crate) fn has_cell(source: &DataSource, field: &Field) -> bool {
    match field.def.storage {
        Storage::Group => false,
        Storage::Derived { .. } => true,
        _ => source.children(Some(field.id)).next().is_none(),
    }
}

/// Replaces groups by the cells below them: those not hidden, or all where all are hidden.
fn expand(source: &DataSource, ids: &[FieldId]) -> Vec<FieldId> {
    let mut cells = Vec::new();
    for id in ids {
        if has_cell(source, source.field(*id)) {
            cells.push(*id);
            continue;
        }
        let below: Vec<FieldId> = source
            .fields()
            .iter()
            .filter(|f| f.id != *id && is_at_or_below(source, f.id, *id))
            .filter(|f| is_referenced(source, f.id) && has_cell(source, f))
            .map(|f| f.id)
            .collect();
        let own = |id: &FieldId| source.field(*id).hidden();
        let visible: Vec<FieldId> = below.iter().copied().filter(|id| !own(id)).collect();
        cells.extend(if visible.is_empty() { below } else { visible });
    }
    cells
}

/// Place of each field when the schema is read from top to bottom, members after their group.
fn places(source: &DataSource) -> Vec<usize> {
    fn walk(source: &DataSource, parent: Option<FieldId>, next: &mut usize, places: &mut Vec<usize>) {
        let children: Vec<FieldId> = source.children(parent).map(|f| f.id).collect();
        for id in children {
            places[id.0 as usize] = *next;
            *next += 1;
            walk(source, Some(id), next, places);
        }
    }
    let mut places = vec![0; source.fields().len()];
    walk(source, None, &mut 0, &mut places);
    places
}

/// Smaller is further left. A derived field stands where what it is derived from stands, wherever it was declared.
fn order(source: &DataSource, places: &[usize], id: FieldId) -> i64 {
    let field = source.field(id);
    if let Some(order) = field.annotation("columns.order").and_then(|o| o.parse().ok()) {
        return order;
    }
    if let Some(order) = host_order(&field.full_name) {
        return order;
    }
    let own = places[id.0 as usize];
    let place = match field.def.storage {
        Storage::Derived { from, .. } => places.get(from.0 as usize).map_or(own, |p| own.min(*p)),
        _ => own,
    };
    place as i64 * 100
}

/// Fields the host adds stand before the gadget's own.
fn host_order(full_name: &str) -> Option<i64> {
    Some(match full_name {
        "k8s.node" => -31,
        "k8s.namespace" => -30,
        "k8s.podName" => -29,
        "k8s.containerName" => -28,
        "k8s.hostnetwork" => -27,
        "k8s.podLabels" => -26,
        "runtime.containerName" => -25,
        "runtime.runtimeName" => -24,
        "runtime.containerId" => -23,
        "runtime.containerPid" => -22,
        "runtime.containerImageName" => -21,
        "runtime.containerImageDigest" => -20,
        "runtime.containerStartedAt" => -19,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Derive, FieldDef, Kind, SourceKind};

    fn source() -> DataSource {
        let mut s = DataSource::new("tcp", SourceKind::Events, 0);
        let rec = |n| Storage::Record { offset: n, size: 4 };
        let time = s
            .add(
                FieldDef::new("timestamp_raw", Kind::U64, Storage::BootTime { offset: 0 })
                    .annotate("columns.hidden", "true"),
            )
            .unwrap();
        let proc = s.add(FieldDef::new("proc", Kind::Bytes, rec(0))).unwrap();
        s.add(FieldDef::new("comm", Kind::CString, rec(0)).under(proc).annotate("columns.alias", "comm")).unwrap();
        s.add(FieldDef::new("mntns_id", Kind::U64, rec(0)).under(proc).tag("type:gadget_mntns_id")).unwrap();
        let error = s.add(FieldDef::new("error_raw", Kind::U32, rec(0)).annotate("columns.hidden", "true")).unwrap();
        s.add(FieldDef::new("fd", Kind::U32, rec(0))).unwrap();
        let src = s.add(FieldDef::new("src", Kind::Text, Storage::Group)).unwrap();
        let addr = s.add(FieldDef::new("addr", Kind::Bytes, rec(0)).under(src)).unwrap();
        s.field_mut(src).def.storage =
            Storage::Derived { from: addr, how: Derive::Endpoint { port: addr, version: addr } };
        s.add(FieldDef::new("error", Kind::Text, Storage::Derived { from: error, how: Derive::Errno })).unwrap();
        s.add(FieldDef::new("timestamp", Kind::Text, Storage::Derived { from: time, how: Derive::Timestamp })).unwrap();
        let runtime = s.add(FieldDef::new("runtime", Kind::Text, Storage::Group)).unwrap();
        s.add(FieldDef::new("containerName", Kind::Text, rec(0)).under(runtime)).unwrap();
        s.add(FieldDef::new("containerPid", Kind::U32, rec(0)).under(runtime)).unwrap();
        s
    }

    fn columns(text: &str) -> Vec<String> {
        let s = source();
        let selection = FieldSelection::parse(text, &s).unwrap_or_else(|e| panic!("{text}: {e}"));
        selection.columns(&s).into_iter().map(|id| s.field(id).full_name.clone()).collect()
    }

    #[test]
    fn default_columns_leave_out_the_hidden_and_put_the_host_first() {
        assert_eq!(columns(""), ["runtime.containerName", "proc.comm", "error", "fd", "src"]);
    }

    #[test]
    fn names_select_in_their_order_and_groups_stand_for_their_members() {
        assert_eq!(columns("fd, comm"), ["fd", "proc.comm"]);
        assert_eq!(columns("proc,timestamp"), ["proc.comm", "timestamp"]);
        assert_eq!(columns("proc.mntns_id,src.addr"), ["proc.mntns_id", "src.addr"]);
        assert_eq!(columns("+timestamp,-src,-runtime"), ["timestamp", "proc.comm", "error", "fd"]);
        assert_eq!(columns("+runtime.containerPid,-fd,+comm")[..2], ["runtime.containerName", "runtime.containerPid"]);
    }

    #[test]
    fn what_cannot_be_selected_says_why() {
        let s = source();
        let e = FieldSelection::parse("fd,erorr", &s).unwrap_err();
        assert_eq!(e.to_string(), r#"cannot select fields: data source "tcp" has no field "erorr""#);
        assert_eq!(e.hint().as_deref(), Some("did you mean error?"));
        assert!(matches!(FieldSelection::parse("fd,+error", &s), Err(FieldsError::Mixed { .. })));
        assert!(matches!(FieldSelection::parse("fd,,error", &s), Err(FieldsError::EmptyName { .. })));
        assert!(matches!(FieldSelection::parse("+", &s), Err(FieldsError::EmptyName { .. })));
    }
}
