//! `-o columns=a,b`: columns chosen in the output mode, the way users of earlier tools write it, and the names that columns
//! had there.
//!
//! `columns=` takes the names that fields have today, and an old one where no field is called so. `custom-columns=` is the
//! older spelling, and there an old name comes first where the two differ: its `pcomm` is the process, today's the parent.

use crate::error::{CliError, Kind};
use ig_event::{DataSource, FieldSelection, Storage, lookup::find_field};

/// A list of columns out of `-o`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Columns<'a> {
    list: &'a str,
    /// Written `custom-columns=`.
    old: bool,
}

/// A column of the tools before this one.
struct OldName {
    name: &'static str,
    /// Full names of the fields that hold the same today; the first that a gadget has is meant.
    now: &'static [&'static str],
    /// A field may be called so today, and is not what the old name meant.
    misleading: bool,
}

const fn old(name: &'static str, now: &'static [&'static str]) -> OldName {
    OldName { name, now, misleading: false }
}

const fn misleading(name: &'static str, now: &'static [&'static str]) -> OldName {
    OldName { name, now, misleading: true }
}

const OLD_NAMES: &[OldName] = &[
    misleading("addr", &["addr.addr"]),
    old("container", &["runtime.containerName"]),
    old("daddr", &["dst.addr"]),
    old("dport", &["dst.port"]),
    old("err", &["error"]),
    old("fullpath", &["fpath"]),
    old("id", &["runtime.containerId"]),
    old("if", &["bound_dev_if", "interface"]),
    old("ip", &["src.version", "addr.version"]),
    old("local", &["src"]),
    old("mntnsid", &["proc.mntns_id", "mntns", "mntns_id", "mount_ns_id"]),
    old("mountnsid", &["proc.mntns_id", "mntns", "mntns_id", "mount_ns_id"]),
    old("name", &["runtime.containerName"]),
    old("namespace", &["k8s.namespace"]),
    old("node", &["k8s.node"]),
    old("op", &["operation", "type"]),
    old("path", &["fname", "file"]),
    misleading("pcomm", &["proc.comm"]),
    old("pod", &["k8s.podName"]),
    old("podname", &["k8s.podName"]),
    old("port", &["addr.port"]),
    old("proto", &["addr.proto", "src.proto"]),
    old("protocol", &["addr.proto", "src.proto"]),
    old("remote", &["dst"]),
    old("ret", &["error_raw"]),
    misleading("runtime", &["runtime.runtimeName"]),
    old("saddr", &["src.addr"]),
    old("sport", &["src.port"]),
    old("status", &["state"]),
    old("t", &["type"]),
    old("tgid", &["proc.pid", "pid"]),
];

impl<'a> Columns<'a> {
    /// The list in `-o MODE`; `None` where the mode has none.
    pub fn of(mode: &'a str) -> Result<Option<Self>, CliError> {
        let (name, list) = mode.split_once('=').map_or((mode, None), |(name, list)| (name, Some(list)));
        let old = match name {
            "columns" => false,
            "custom-columns" => true,
            _ => return Ok(None),
        };
        match list.map(str::trim) {
            None if !old => Ok(None),
            None | Some("") => Err(CliError::user(format!("-o {mode:?} names no column"))
                .hint("for example -o columns=proc.pid,proc.comm; -o columns alone shows the usual ones")),
            Some(list) => Ok(Some(Columns { list, old })),
        }
    }

    /// The names in the list, one by one.
    pub fn each(&self) -> impl Iterator<Item = &'a str> {
        self.list.split(',').map(str::trim)
    }

    /// The list with the names that fields of `source` have today; one that is neither is left as it is.
    pub fn names(&self, source: &DataSource) -> String {
        let name = |name: &str| self.today(name, source).unwrap_or_else(|| name.to_owned());
        self.each().map(name).collect::<Vec<_>>().join(",")
    }

    fn today(&self, name: &str, source: &DataSource) -> Option<String> {
        let known = OLD_NAMES.iter().find(|o| o.name.eq_ignore_ascii_case(name))?;
        let field = find_field(source, name).ok();
        // A group is no column: `runtime` alone was one.
        let is_column = field.is_some_and(|f| f.def.storage != Storage::Group);
        if is_column && !(self.old && known.misleading) {
            return None;
        }
        known.now.iter().find(|now| find_field(source, now).is_ok()).map(|now| (*now).to_owned())
    }

    /// For a column that `source` does not have, though an earlier tool had one of that name.
    pub fn hint(&self, source: &DataSource) -> Option<String> {
        let missing = |name: &&str| find_field(source, name).is_err() && self.today(name, source).is_none();
        let name = self.each().find(missing)?;
        let known = OLD_NAMES.iter().find(|o| o.name.eq_ignore_ascii_case(name))?;
        let now = known.now.join(" or ");
        Some(format!("the old column {name} is {now} today, and the rows of {} have none", source.name))
    }
}

/// The fields asked for: the list of `-o columns=`, else that of `--fields`. The mark of one of several gadgets' rows stands in
/// front, unless the list has it elsewhere.
pub fn selection(columns: Option<Columns<'_>>, fields: &str, source: &DataSource) -> Result<FieldSelection, CliError> {
    let list = columns.map_or_else(|| fields.to_owned(), |c| c.names(source));
    let chosen = FieldSelection::parse(&list, source)
        .map_err(|e| CliError::chain(Kind::User, &e, columns.and_then(|c| c.hint(source)).or_else(|| e.hint())))?;
    let mark = source.fields().iter().find(|f| matches!(f.def.storage, Storage::Constant(_))).map(|f| f.id);
    Ok(match (chosen, mark) {
        (FieldSelection::Only(mut ids), Some(mark)) if !ids.contains(&mark) => {
            ids.insert(0, mark);
            FieldSelection::Only(ids)
        }
        (chosen, _) => chosen,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ig_event::{FieldDef, Kind, SourceKind};

    fn source() -> DataSource {
        let mut s = DataSource::new("exec", SourceKind::Events, 0);
        let rec = || Storage::Record { offset: 0, size: 4 };
        let proc = s.add(FieldDef::new("proc", Kind::Bytes, Storage::Group)).unwrap();
        s.add(FieldDef::new("comm", Kind::CString, rec()).under(proc).annotate("columns.alias", "comm")).unwrap();
        s.add(FieldDef::new("pid", Kind::U32, rec()).under(proc).annotate("columns.alias", "pid")).unwrap();
        let parent = s.add(FieldDef::new("parent", Kind::Bytes, Storage::Group).under(proc)).unwrap();
        s.add(FieldDef::new("comm", Kind::CString, rec()).under(parent).annotate("columns.alias", "pcomm")).unwrap();
        s.add(FieldDef::new("error_raw", Kind::U32, rec())).unwrap();
        s.add(FieldDef::new("name", Kind::Text, rec())).unwrap();
        let runtime = s.add(FieldDef::new("runtime", Kind::Bytes, Storage::Group)).unwrap();
        for name in ["containerName", "runtimeName"] {
            s.add(FieldDef::new(name, Kind::Text, rec()).under(runtime)).unwrap();
        }
        s
    }

    fn names(mode: &str) -> String {
        Columns::of(mode).unwrap().unwrap().names(&source())
    }

    #[test]
    fn modes_without_a_list_have_none_and_an_empty_list_is_refused() {
        for mode in ["columns", "json", "yaml", "json=a", ""] {
            assert_eq!(Columns::of(mode).unwrap(), None, "{mode}");
        }
        for mode in ["columns=", "columns= ", "custom-columns=", "custom-columns"] {
            let e = Columns::of(mode).unwrap_err();
            assert!(e.message.contains("names no column") && e.hint.is_some(), "{mode}");
        }
    }

    #[test]
    fn old_names_become_todays_and_misleading_ones_only_in_the_old_spelling() {
        assert_eq!(names("custom-columns=container,pid,pcomm"), "runtime.containerName,pid,proc.comm");
        assert_eq!(names("columns=container, PID ,pcomm"), "runtime.containerName,PID,pcomm");
        assert_eq!(names("columns=runtime,name,ret"), "runtime.runtimeName,name,error_raw");
        // Each of them selects, but for what nothing is called.
        let s = source();
        for mode in ["custom-columns=container,pid,pcomm", "columns=runtime,RET"] {
            FieldSelection::parse(&names(mode), &s).unwrap();
        }
    }

    #[test]
    fn an_old_name_without_a_field_says_what_it_was() {
        let s = source();
        let columns = Columns::of("custom-columns=pid,saddr").unwrap().unwrap();
        assert_eq!(columns.names(&s), "pid,saddr");
        let hint = "the old column saddr is src.addr today, and the rows of exec have none";
        assert_eq!(columns.hint(&s).as_deref(), Some(hint));
        assert_eq!(Columns::of("columns=pid,nonsense").unwrap().unwrap().hint(&s), None);
    }

    #[test]
    fn the_mark_of_a_gadget_is_shown_with_every_choice() {
        let mut s = source();
        let mark = s.add(FieldDef::new("gadget", Kind::Text, Storage::Constant("exec".into()))).unwrap();
        let only = |list: &str| match selection(None, list, &s).unwrap() {
            FieldSelection::Only(ids) => ids.iter().position(|id| *id == mark),
            other => panic!("{list}: {other:?}"),
        };
        assert_eq!((only("name"), only("name,gadget")), (Some(0), Some(1)));
        assert_eq!(selection(None, "", &s).unwrap(), FieldSelection::Default);
    }

    #[test]
    fn the_table_is_in_order_and_has_each_name_once() {
        assert!(OLD_NAMES.is_sorted_by(|a, b| a.name < b.name));
    }
}
