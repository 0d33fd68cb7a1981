//! Data sources and their fields: names, kinds, where a value lives, and how it is shown.
//!
//! A schema is built once, before the first event, by the loader (fields of the kernel's record), the host's enrichers
//! and the guest; then it is frozen in an `Arc` and every later step compiles its plan from it.

use crate::template::Template;
use std::{collections::BTreeMap, sync::Arc};

/// The kinds a value can have: the same set on the Wasm boundary and in upstream's data model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Bool,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    F32,
    F64,
    /// UTF-8 text of any length.
    Text,
    /// Text in a fixed-size array, up to the first NUL.
    CString,
    Bytes,
}

impl Kind {
    /// Bytes of a fixed-size value; `None` where the length varies.
    pub fn size(self) -> Option<u32> {
        Some(match self {
            Kind::Bool | Kind::I8 | Kind::U8 => 1,
            Kind::I16 | Kind::U16 => 2,
            Kind::I32 | Kind::U32 | Kind::F32 => 4,
            Kind::I64 | Kind::U64 | Kind::F64 => 8,
            Kind::Text | Kind::CString | Kind::Bytes => return None,
        })
    }

    pub fn is_signed(self) -> bool {
        matches!(self, Kind::I8 | Kind::I16 | Kind::I32 | Kind::I64)
    }

    pub fn is_unsigned(self) -> bool {
        matches!(self, Kind::U8 | Kind::U16 | Kind::U32 | Kind::U64)
    }

    pub fn is_number(self) -> bool {
        self.is_signed() || self.is_unsigned() || matches!(self, Kind::F32 | Kind::F64)
    }

    pub fn is_text(self) -> bool {
        matches!(self, Kind::Text | Kind::CString)
    }
}

/// Index of a field in its data source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct FieldId(pub u32);

/// Where the value of a field comes from.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum Storage {
    /// Bytes of the record as the kernel wrote it. A record shorter than `offset + size` reads as zeros there.
    Record { offset: u32, size: u32 },
    /// As `Record`, a boot-clock time in nanoseconds which is shown as wall-clock time.
    BootTime { offset: u32 },
    /// A column that the host or a guest fills, batch by batch (`Batch::columns`).
    Column(u32),
    /// One member of the object that a row refers to, e.g. its container (`Batch::entities`).
    Entity { slot: u32, member: u32 },
    /// The same in every row, such as the gadget that the rows are of.
    Constant(Arc<str>),
    /// Computed from another field, and only when somebody looks.
    Derived { from: FieldId, how: Derive },
    /// Has no value of its own; groups the fields below it.
    Group,
}

/// How a derived field turns a raw value into what people read.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub enum Derive {
    /// Wall-clock nanoseconds to RFC 3339 with nine decimals, in the local zone.
    Timestamp,
    /// Positive errno to its name; 0 to the empty string.
    Errno,
    Signal,
    Syscall,
    User,
    Group,
    /// `-rw-r--r--`
    FileMode,
    /// open(2) flags: `O_RDONLY|O_CREAT`
    OpenFlags,
    /// `1.2 MB`
    Bytes,
    /// nanoseconds: `1.50µs`
    Duration,
    /// Symbolic names of an enum; unknown values print as numbers.
    Enum(Arc<Vec<(i64, String)>>),
    /// Names of set bits joined by `separator`.
    Bits {
        names: Arc<Vec<(u64, String)>>,
        separator: String,
    },
    /// An address of 4 or 16 bytes; `version` holds 4 or 6.
    Ip {
        version: FieldId,
    },
    /// IP protocol number to its name.
    IpProto,
    /// `ip:port`; `from` is the address field (see `Ip`).
    Endpoint {
        port: FieldId,
        version: FieldId,
    },
}

/// What a new field is to be; everything but name, kind and storage has a sensible default.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct FieldDef {
    /// Last part of the dotted name.
    pub name: String,
    pub parent: Option<FieldId>,
    pub kind: Kind,
    pub storage: Storage,
    /// `type:<typedef>`, `name:<member>`, … as upstream's.
    pub tags: Vec<String>,
    /// `columns.width`, `columns.hidden`, `json.skip`, `description`, …: all of them are listed in [`crate::template`].
    pub annotations: BTreeMap<String, String>,
}

impl FieldDef {
    pub fn new(name: impl Into<String>, kind: Kind, storage: Storage) -> Self {
        FieldDef { name: name.into(), parent: None, kind, storage, tags: Vec::new(), annotations: BTreeMap::new() }
    }

    pub fn under(mut self, parent: FieldId) -> Self {
        self.parent = Some(parent);
        self
    }

    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    pub fn annotate(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.annotations.insert(key.into(), value.into());
        self
    }
}

/// A field of a data source.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Field {
    pub id: FieldId,
    pub def: FieldDef,
    /// Dotted name from the root: `proc.parent.pid`.
    pub full_name: String,
    /// Taken out of every output and of the field list by its owner (the loader or the guest).
    pub unreferenced: bool,
}

impl Field {
    pub fn annotation(&self, key: &str) -> Option<&str> {
        self.def.annotations.get(key).map(String::as_str)
    }

    /// True for `key` set to anything but `false`.
    pub fn flag(&self, key: &str) -> bool {
        self.annotation(key).is_some_and(|v| v != "false")
    }

    /// Not in the default columns, though it can be asked for: `columns.hidden`, else what the field's template says.
    pub fn hidden(&self) -> bool {
        match self.annotation("columns.hidden") {
            Some(value) => value != "false",
            None => Template::of(self).hidden,
        }
    }

    pub fn has_tag(&self, tag: &str) -> bool {
        self.def.tags.iter().any(|t| t == tag)
    }
}

/// A stream of events, or a table that is taken as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    Events,
    /// Every batch is one complete table (snapshots, tops).
    Snapshot,
}

/// A named producer of rows of one shape.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct DataSource {
    pub name: String,
    pub kind: SourceKind,
    /// Size of the kernel's struct. Records may be shorter or longer.
    pub record_size: u32,
    pub annotations: BTreeMap<String, String>,
    fields: Vec<Field>,
    column_kinds: Vec<Kind>,
    entity_slots: u32,
}

impl DataSource {
    pub fn new(name: impl Into<String>, kind: SourceKind, record_size: u32) -> Self {
        DataSource {
            name: name.into(),
            kind,
            record_size,
            annotations: BTreeMap::new(),
            fields: Vec::new(),
            column_kinds: Vec::new(),
            entity_slots: 0,
        }
    }

    /// Adds a field; `None` when its full name is taken or its parent does not exist.
    pub fn add(&mut self, def: FieldDef) -> Option<FieldId> {
        let full_name = match def.parent {
            Some(p) => format!("{}.{}", self.fields.get(p.0 as usize)?.full_name, def.name),
            None => def.name.clone(),
        };
        if self.find(&full_name).is_some() {
            return None;
        }
        let id = FieldId(self.fields.len() as u32);
        self.fields.push(Field { id, def, full_name, unreferenced: false });
        Some(id)
    }

    /// Reserves a column that some operator fills in every batch.
    pub fn new_column(&mut self, kind: Kind) -> Storage {
        self.column_kinds.push(kind);
        Storage::Column(self.column_kinds.len() as u32 - 1)
    }

    /// Reserves a slot for objects that rows refer to; its members are `Storage::Entity { slot, member }`.
    pub fn new_entity_slot(&mut self) -> u32 {
        self.entity_slots += 1;
        self.entity_slots - 1
    }

    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    pub fn field(&self, id: FieldId) -> &Field {
        &self.fields[id.0 as usize]
    }

    pub fn field_mut(&mut self, id: FieldId) -> &mut Field {
        &mut self.fields[id.0 as usize]
    }

    /// The field with this dotted name.
    pub fn find(&self, full_name: &str) -> Option<&Field> {
        self.fields.iter().find(|f| f.full_name == full_name)
    }

    /// Fields directly below `parent` (`None`: at the top), in order of declaration.
    pub fn children(&self, parent: Option<FieldId>) -> impl Iterator<Item = &Field> {
        self.fields.iter().filter(move |f| f.def.parent == parent)
    }

    pub fn column_kinds(&self) -> &[Kind] {
        &self.column_kinds
    }

    pub fn entity_slots(&self) -> u32 {
        self.entity_slots
    }
}
