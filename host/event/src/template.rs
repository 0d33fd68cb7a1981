//! How a field is laid out when its schema says little: templates by name, by derivation and by C type.
//!
//! # Annotations
//! Every key a schema builder may set on a field; nothing else changes how it is shown.
//!
//! | key | value | default | meaning |
//! |---|---|---|---|
//! | `template`, `columns.template` | see [`Template::named`] | by derivation, type tag or name | defaults for the keys below |
//! | `columns.hidden` | `true`, `false` | template, else `false` | not among the default columns; can be asked for |
//! | `columns.alias` | text | full name | heading, upper-cased; `--fields`, `--filter` and `--sort` know it too |
//! | `columns.width` | cells | template, else 16 | weight when columns are fitted to a terminal; 0: what the kind needs |
//! | `columns.minwidth` | cells | template, else none | never narrower |
//! | `columns.maxwidth` | cells | template, else none | never wider on a terminal; 0: what the kind needs |
//! | `columns.alignment` | `left`, `right` | template, else `left` | |
//! | `columns.ellipsis` | `end`, `middle`, `start`, `none` | template, else `end` | where a value too long is cut |
//! | `columns.order` | integer | place in the schema × 100 | smaller is further left |
//! | `columns.precision` | digits | 2 | after the point of a float |
//! | `columns.unset` | integer | none | a number that says that there is none: its cell, and that of what is derived from it, is empty |
//! | `columns.hex` | `true`, `false` | `false` | integers as `0x2A` |
//! | `json.skip` | `true`, `false` | `false` | not in JSON and YAML, nor the fields below it, unless asked for by name |
//! | `description` | text | none | for people: `inspect`, generated documentation |
//!
//! A number that is none, or a word that is not listed, is as if the annotation were absent: annotations come with
//! images, and a gadget must not fail over its layout.

use crate::{Derive, Field, Storage};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    Left,
    Right,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ellipsis {
    End,
    Middle,
    Start,
    /// Cut without a mark.
    None,
}

/// Layout that fields of one meaning share. `None`: what any field has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Template {
    pub width: Option<usize>,
    pub min: Option<usize>,
    pub max: Option<usize>,
    pub align: Align,
    pub ellipsis: Ellipsis,
    pub hidden: bool,
}

const PLAIN: Template =
    Template { width: None, min: None, max: None, align: Align::Left, ellipsis: Ellipsis::End, hidden: false };

impl Template {
    /// The template of this name: `timestamp`, `node`, `pod`, `namespace`, `container`, `containerPid`, `pid`, `uid`,
    /// `gid`, `ns`, `comm`, `l4endpoint`, `syscall`, `errorString`, `bytes`, `duration`; and those of what is hidden
    /// unless asked for: `ppid`, `ptid`, `pcomm`, `mntns_id`, `netns_id`, `user_stack`.
    pub fn named(name: &str) -> Option<Template> {
        let right = Template { align: Align::Right, ..PLAIN };
        let middle = Template { ellipsis: Ellipsis::Middle, ..PLAIN };
        Some(match name {
            "timestamp" => Template { width: Some(35), max: Some(35), hidden: true, ..PLAIN },
            "node" | "pod" => Template { width: Some(30), ..middle },
            "namespace" | "container" => Template { width: Some(30), ..PLAIN },
            "containerPid" => Template { width: Some(6), hidden: true, ..PLAIN },
            "pid" | "tid" => Template { min: Some(7), ..right },
            "ppid" | "ptid" => Template { min: Some(7), hidden: true, ..right },
            "uid" | "gid" => Template { min: Some(8), ..right },
            "ns" | "mntns_id" | "netns_id" => Template { width: Some(12), hidden: true, ..right },
            "comm" => Template { max: Some(16), ..PLAIN },
            "pcomm" => Template { max: Some(16), hidden: true, ..PLAIN },
            "user_stack" => Template { hidden: true, ..PLAIN },
            "l4endpoint" => Template { width: Some(40), min: Some(22), max: Some(52), ..middle },
            "syscall" => Template { width: Some(18), max: Some(28), ..PLAIN },
            "errorString" => Template { width: Some(12), ..PLAIN },
            "bytes" => Template { width: Some(10), ..right },
            "duration" => Template { width: Some(20), ..right },
            _ => return None,
        })
    }

    /// The template a field asks for, else the one its meaning suggests, else the plain one.
    pub fn of(field: &Field) -> Template {
        // Images in the field have the short key.
        let asked = field.annotation("columns.template").or_else(|| field.annotation("template"));
        asked.and_then(Template::named).or_else(|| meaning(field).and_then(Template::named)).unwrap_or(PLAIN)
    }
}

/// The template of what the field is: how it is derived, its C type, or for the host's own fields its name.
fn meaning(field: &Field) -> Option<&'static str> {
    if let Storage::Derived { how, .. } = &field.def.storage {
        return Some(match how {
            Derive::Timestamp => "timestamp",
            Derive::Errno => "errorString",
            Derive::Syscall => "syscall",
            Derive::Bytes => "bytes",
            Derive::Duration => "duration",
            Derive::Endpoint { .. } => "l4endpoint",
            _ => return None,
        });
    }
    let tagged = field.def.tags.iter().find_map(|tag| {
        Some(match tag.as_str() {
            "type:gadget_pid" | "type:gadget_tid" => "pid",
            "type:gadget_ppid" => "ppid",
            "type:gadget_ptid" => "ptid",
            "type:gadget_uid" => "uid",
            "type:gadget_gid" => "gid",
            "type:gadget_mntns_id" | "type:gadget_netns_id" => "ns",
            "type:gadget_comm" => "comm",
            "type:gadget_pcomm" => "pcomm",
            _ => return None,
        })
    });
    tagged.or_else(|| {
        Some(match field.full_name.as_str() {
            "k8s.node" => "node",
            "k8s.podName" => "pod",
            "k8s.namespace" => "namespace",
            "k8s.containerName" | "runtime.containerName" => "container",
            "runtime.containerPid" => "containerPid",
            _ => return None,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DataSource, FieldDef, FieldId, Kind, SourceKind};

    fn field(def: FieldDef) -> Field {
        let mut s = DataSource::new("t", SourceKind::Events, 8);
        let id = s.add(def).unwrap();
        s.field(id).clone()
    }

    #[test]
    fn annotation_wins_over_meaning_and_unknown_names_are_ignored() {
        let how = Storage::Derived { from: FieldId(0), how: Derive::Timestamp };
        let time = FieldDef::new("t", Kind::Text, how);
        assert_eq!(Template::of(&field(time.clone())).width, Some(35));
        assert_eq!(Template::of(&field(time.clone().annotate("columns.template", "pid"))).min, Some(7));
        assert_eq!(Template::of(&field(time.clone().annotate("template", "pid"))).min, Some(7));
        assert_eq!(Template::of(&field(time.annotate("columns.template", "nope"))).width, Some(35));
        let plain = FieldDef::new("p", Kind::U32, Storage::Record { offset: 0, size: 4 });
        assert_eq!(Template::of(&field(plain.clone())), PLAIN);
        assert_eq!(Template::of(&field(plain.clone().tag("type:gadget_uid"))).min, Some(8));
        for parent in ["type:gadget_ppid", "type:gadget_ptid", "type:gadget_pcomm"] {
            assert!(field(plain.clone().tag(parent)).hidden(), "{parent}");
            assert!(!field(plain.clone().tag(parent).annotate("columns.hidden", "false")).hidden(), "{parent}");
        }
    }
}
