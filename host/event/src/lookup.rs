//! Finding the field a user meant: by full name, or by the name its column shows, with suggestions when there is none.
//!
//! Used while filters, sorts and selections are compiled; never on the path of an event.

use crate::{DataSource, Field, FieldId};

/// A name that is no field of the source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("data source {source_name:?} has no field {name:?}")]
pub struct UnknownField {
    pub name: String,
    pub source_name: String,
    /// Full names of fields that look or sound like it; best first, at most three.
    pub near: Vec<String>,
}

impl UnknownField {
    pub fn hint(&self) -> Option<String> {
        if self.near.is_empty() { None } else { Some(format!("did you mean {}?", self.near.join(", "))) }
    }
}

/// The field with this full name, else the only one whose column is headed so (`comm` for `proc.comm`), else the only
/// one with this name in other letters.
pub fn find_field<'a>(source: &'a DataSource, name: &str) -> Result<&'a Field, UnknownField> {
    let shown = || source.fields().iter().filter(|f| is_referenced(source, f.id));
    if let Some(field) = shown().find(|f| f.full_name == name) {
        return Ok(field);
    }
    let only = |wanted: &dyn Fn(&Field) -> bool| {
        let mut hits = shown().filter(|f| wanted(f));
        hits.next().filter(|_| hits.next().is_none())
    };
    only(&|f| f.annotation("columns.alias") == Some(name))
        .or_else(|| only(&|f| f.full_name.eq_ignore_ascii_case(name)))
        .or_else(|| only(&|f| f.annotation("columns.alias").is_some_and(|a| a.eq_ignore_ascii_case(name))))
        .ok_or_else(|| UnknownField {
            name: name.to_owned(),
            source_name: source.name.clone(),
            near: near_names(name, shown().map(|f| f.full_name.as_str())),
        })
}

/// False for fields their owner took out, and for everything below such a field.
pub fn is_referenced(source: &DataSource, id: FieldId) -> bool {
    let field = source.field(id);
    !field.unreferenced && field.def.parent.is_none_or(|p| is_referenced(source, p))
}

/// Names worth suggesting: a few typing errors away, or the same last part.
fn near_names<'a>(name: &str, all: impl Iterator<Item = &'a str>) -> Vec<String> {
    let wanted = name.to_ascii_lowercase();
    let last = |s: &str| s.rsplit('.').next().map(str::to_owned).unwrap_or_default();
    let mut scored: Vec<(usize, &str)> = all
        .filter_map(|candidate| {
            let lower = candidate.to_ascii_lowercase();
            let score = if last(&lower) == last(&wanted) {
                0
            } else {
                distance(&wanted, &lower).min(distance(&wanted, &last(&lower)))
            };
            (score <= (wanted.chars().count() / 3).clamp(1, 3)).then_some((score, candidate))
        })
        .collect();
    scored.sort();
    scored.into_iter().take(3).map(|(_, s)| s.to_owned()).collect()
}

/// Typing errors between two names: letters added, left out, exchanged, or two of them swapped. Names longer than any
/// field's are cut off, so that hostile input stays cheap.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let exchanged = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = exchanged.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FieldDef, Kind, SourceKind, Storage};

    fn source() -> DataSource {
        let mut s = DataSource::new("open", SourceKind::Events, 0);
        let proc = s.add(FieldDef::new("proc", Kind::Bytes, Storage::Group)).unwrap();
        let text = Storage::Record { offset: 0, size: 16 };
        s.add(FieldDef::new("comm", Kind::CString, text.clone()).under(proc).annotate("columns.alias", "comm"))
            .unwrap();
        s.add(FieldDef::new("fname", Kind::CString, text.clone())).unwrap();
        let gone = s.add(FieldDef::new("secret", Kind::CString, text)).unwrap();
        s.field_mut(gone).unreferenced = true;
        s
    }

    #[test]
    fn full_name_alias_and_other_case_find_the_field() {
        let s = source();
        for name in ["proc.comm", "comm", "PROC.COMM", "COMM"] {
            assert_eq!(find_field(&s, name).map(|f| f.full_name.as_str()), Ok("proc.comm"), "{name}");
        }
    }

    #[test]
    fn an_unknown_name_gets_near_ones_and_an_unreferenced_field_is_unknown() {
        let s = source();
        let e = find_field(&s, "fnmae").unwrap_err();
        assert_eq!(e.to_string(), r#"data source "open" has no field "fnmae""#);
        assert_eq!(e.hint().as_deref(), Some("did you mean fname?"));
        assert_eq!(find_field(&s, "process.comm").unwrap_err().near, ["proc.comm"]);
        let e = find_field(&s, "secret").unwrap_err();
        assert_eq!((e.near.len(), e.hint()), (0, None));
    }
}
