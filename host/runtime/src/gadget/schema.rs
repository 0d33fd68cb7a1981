//! From an object's BTF to data sources: which streams and tables a gadget has, and what the fields of their rows are.
//!
//! Pure but for the kernel's names of enum values, which are read when a row has an enum the kernel knows too. The result
//! still lacks what enrichers and the guest add; `SourcePlan::finish` applies the rest of gadget.yaml after them.

use crate::{
    bpf::{
        Marker,
        btf::{Btf, KernelBtf, Kind as BtfKind, Member, Type},
        object::{MAP_HASH, MAP_LRU_HASH, Object},
    },
    host_sources::HostSource,
};
use ig_event::{DataSource, Derive, FieldDef, FieldId, Kind, SourceKind, Storage};
use std::{collections::BTreeMap, sync::Arc};

/// Structs nested deeper than this are left out: no gadget's are, and a damaged object's might be endless.
const MAX_DEPTH: u32 = 16;
/// A row of this many fields is a mistake, or an attack on our memory.
const MAX_FIELDS: usize = 4096;

/// What gadget.yaml says about data sources: by source, its own annotations and those of its fields by dotted name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Annotations {
    pub sources: BTreeMap<String, SourceAnnotations>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceAnnotations {
    pub annotations: BTreeMap<String, String>,
    pub fields: BTreeMap<String, BTreeMap<String, String>>,
}

/// Who makes the rows of a source.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(tag = "producer", rename_all = "snake_case")]
pub enum Producer {
    /// Records arrive through this ring buffer or perf event array.
    Tracer { map: String },
    /// These iterator programs write the rows, one after the other.
    Iter { programs: Vec<String> },
    /// Rows are the entries of this map: the key's bytes, then the value's.
    MapIter { map: String },
    /// The host makes the rows itself, without a program in the kernel.
    Host { source: HostSource },
}

/// A data source as the object declares it.
#[derive(Clone, Debug)]
pub struct SourcePlan {
    pub source: DataSource,
    pub producer: Producer,
    /// Annotations of fields that the object does not have: those of enrichers or the guest.
    pending: BTreeMap<String, BTreeMap<String, String>>,
}

/// Why no data source could be made.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SchemaError {
    #[error("{object}: gadget.yaml describes data source {source_name}, which does not exist")]
    UnknownSource { object: String, source_name: String, near: Vec<String> },
    #[error("gadget.yaml describes field {field} of data source {source_name}, which does not exist")]
    UnknownField { source_name: String, field: String, near: Vec<String> },
    #[error("{object}: data source {source_name} is declared twice")]
    TwoSources { object: String, source_name: String },
    #[error("{object}: data source {source_name}: field {field} is there twice")]
    TwoFields { object: String, source_name: String, field: String },
    #[error("{object}: data source {source_name} has more than {MAX_FIELDS} fields")]
    TooManyFields { object: String, source_name: String },
    #[error("{object}: data source {source_name}: there is no struct {structure}")]
    NoStruct { object: String, source_name: String, structure: String },
    #[error("{object}: data source {source_name}: map {map} must be a hash map whose keys and values are structs")]
    MapShape { object: String, source_name: String, map: String },
}

impl SchemaError {
    pub fn hint(&self) -> Option<String> {
        match self {
            SchemaError::UnknownSource { near, .. } | SchemaError::UnknownField { near, .. } if !near.is_empty() => {
                Some(format!("did you mean {}?", near.join(", ")))
            }
            _ => None,
        }
    }
}

impl SourcePlan {
    /// Applies what gadget.yaml says about fields that came after the object's: call it when the schema is complete.
    /// The first that nobody has is an error, told when all others are applied.
    pub fn finish(&self, source: &mut DataSource) -> Result<(), SchemaError> {
        let mut wrong = Ok(());
        for (field, annotations) in &self.pending {
            if !annotate(source, field, annotations) && wrong.is_ok() {
                let known = source.fields().iter().map(|f| f.full_name.as_str());
                wrong = Err(SchemaError::UnknownField {
                    source_name: source.name.clone(),
                    field: field.clone(),
                    near: near(field, known),
                });
            }
        }
        wrong
    }

    /// Fields that gadget.yaml describes and nobody has declared yet.
    pub fn pending(&self) -> impl Iterator<Item = &str> {
        self.pending.keys().map(String::as_str)
    }
}

fn annotate(source: &mut DataSource, field: &str, annotations: &BTreeMap<String, String>) -> bool {
    let Some(id) = source.find(field).map(|f| f.id) else {
        return false;
    };
    let own = &mut source.field_mut(id).def.annotations;
    own.extend(annotations.iter().map(|(k, v)| (k.clone(), v.clone())));
    true
}

/// Applies annotations to a source that has them already or has gained fields since; names it lacks are passed over.
pub fn annotate_again(source: &mut DataSource, annotations: &Annotations) {
    let Some(own) = annotations.sources.get(&source.name) else { return };
    for (field, values) in &own.fields {
        annotate(source, field, values);
    }
}

/// Annotation of a field that only a parameter fills: the flag with which its column is shown.
const WITH: &str = "columns.with";

/// Shows the columns that the parameters in force have filled, and hides those that stay empty.
pub fn choose_columns(source: &mut DataSource, params: &[(String, String)]) {
    let on =
        |flag: &str| params.iter().any(|(k, v)| k == flag && matches!(&*v.to_ascii_lowercase(), "true" | "1" | "t"));
    let waiting: Vec<(FieldId, bool)> =
        source.fields().iter().filter_map(|f| Some((f.id, on(f.annotation(WITH)?)))).collect();
    for (id, shown) in waiting {
        source.field_mut(id).def.annotations.insert("columns.hidden".to_owned(), (!shown).to_string());
    }
}

/// Names that look like `name`: the same last part, or the same but for a few letters at the end.
fn near<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Vec<String> {
    let last = |s: &str| s.rsplit('.').next().unwrap_or_default().trim_end_matches("_raw").to_owned();
    let wanted = last(name);
    let alike = |k: &str| {
        let k = last(k);
        let common = k.bytes().zip(wanted.bytes()).take_while(|(a, b)| a == b).count();
        k == wanted || common >= 3 && common * 3 >= wanted.len().max(k.len()) * 2
    };
    known.filter(|k| alike(k)).take(3).map(str::to_owned).collect()
}

/// Drops what is said of data sources that the object does not declare, and tells which those are.
pub fn drop_unknown(annotations: &mut Annotations, object: &Object) -> Vec<String> {
    let declared = |name: &str| {
        object.markers.iter().any(|m| matches!(m, Marker::Tracer { source, .. } | Marker::Iter { source, .. } | Marker::MapIter { source, .. } if source == name))
    };
    let unknown: Vec<String> = annotations.sources.keys().filter(|name| !declared(name)).cloned().collect();
    annotations.sources.retain(|name, _| !unknown.contains(name));
    unknown
}

/// The data sources an object declares, with the annotations of gadget.yaml on top of the defaults.
pub fn data_sources(
    object: &Object,
    kernel: &KernelBtf,
    annotations: &Annotations,
) -> Result<Vec<SourcePlan>, SchemaError> {
    let mut plans: Vec<SourcePlan> = Vec::new();
    for m in &object.markers {
        let (name, producer) = match m {
            Marker::Tracer { source, map, .. } => (source, Producer::Tracer { map: map.clone() }),
            Marker::Iter { source, programs, .. } => (source, Producer::Iter { programs: programs.clone() }),
            Marker::MapIter { source, map } => (source, Producer::MapIter { map: map.clone() }),
            _ => continue,
        };
        if plans.iter().any(|p| p.source.name == *name) {
            return Err(SchemaError::TwoSources { object: object.name.clone(), source_name: name.clone() });
        }
        plans.push(plan(build(object, kernel, name, m)?, producer, annotations));
    }
    check_sources(&object.name, &plans, annotations)?;
    Ok(plans)
}

/// The data source of a gadget whose rows the host makes itself. `gadget` is its name, for messages.
pub fn host_plan(gadget: &str, source: HostSource, annotations: &Annotations) -> Result<SourcePlan, SchemaError> {
    let plan = plan(source.schema(), Producer::Host { source }, annotations);
    check_sources(gadget, std::slice::from_ref(&plan), annotations)?;
    Ok(plan)
}

/// Annotates a source that is complete but for what enrichers and the guest add.
fn plan(mut source: DataSource, producer: Producer, annotations: &Annotations) -> SourcePlan {
    let mut pending = BTreeMap::new();
    if let Some(a) = annotations.sources.get(&source.name) {
        source.annotations.extend(a.annotations.iter().map(|(k, v)| (k.clone(), v.clone())));
        for (field, values) in &a.fields {
            if !annotate(&mut source, field, values) {
                pending.insert(field.clone(), values.clone());
            }
        }
    }
    SourcePlan { source, producer, pending }
}

fn check_sources(object: &str, plans: &[SourcePlan], annotations: &Annotations) -> Result<(), SchemaError> {
    match annotations.sources.keys().find(|name| !plans.iter().any(|p| p.source.name == **name)) {
        None => Ok(()),
        Some(name) => Err(SchemaError::UnknownSource {
            object: object.to_owned(),
            source_name: name.clone(),
            near: plans.iter().map(|p| p.source.name.clone()).collect(),
        }),
    }
}

fn build(object: &Object, kernel: &KernelBtf, name: &str, marker: &Marker) -> Result<DataSource, SchemaError> {
    let find = |structure: &str| {
        object.structure(structure).ok_or_else(|| SchemaError::NoStruct {
            object: object.name.clone(),
            source_name: name.into(),
            structure: structure.into(),
        })
    };
    let (kind, parts) = match marker {
        Marker::Tracer { structure, .. } => (SourceKind::Events, vec![find(structure)?]),
        Marker::Iter { structure, .. } => (SourceKind::Snapshot, vec![find(structure)?]),
        Marker::MapIter { map, .. } => {
            let shape =
                || SchemaError::MapShape { object: object.name.clone(), source_name: name.into(), map: map.clone() };
            // Others have several values a key, or entries that cannot be taken out.
            let m = object.map(map).filter(|m| matches!(m.kind, MAP_HASH | MAP_LRU_HASH)).ok_or_else(shape)?;
            let structure = |id| object.btf.resolve(id).filter(|t| t.kind == BtfKind::Struct).ok_or_else(shape);
            (SourceKind::Snapshot, vec![structure(m.key_type)?, structure(m.value_type)?])
        }
        _ => (SourceKind::Events, Vec::new()),
    };
    let size = parts.iter().fold(0u32, |n, t| n.saturating_add(t.size_or_type));
    let mut b = Builder { object, kernel, source: DataSource::new(name, kind, size) };
    let mut base = 0;
    for t in parts {
        b.members(&t, None, base, None, MAX_DEPTH)?;
        base += t.size_or_type;
    }
    Ok(b.source)
}

/// What a member's type chain comes to: the names passed on the way, and the type at its end.
struct Chain {
    names: Vec<String>,
    end: Type,
}

struct Builder<'a> {
    object: &'a Object,
    kernel: &'a KernelBtf,
    source: DataSource,
}

impl Builder<'_> {
    fn btf(&self) -> &Btf {
        &self.object.btf
    }

    fn add(&mut self, def: FieldDef) -> Result<FieldId, SchemaError> {
        let (object, source_name) = (self.object.name.clone(), self.source.name.clone());
        if self.source.fields().len() >= MAX_FIELDS {
            return Err(SchemaError::TooManyFields { object, source_name });
        }
        let field = def.name.clone();
        self.source.add(def).ok_or(SchemaError::TwoFields { object, source_name, field })
    }

    /// Adds a readable sibling; a field of that name which the gadget itself has wins.
    fn add_derived(&mut self, name: &str, like: &FieldDef, from: FieldId, how: Derive) -> Option<FieldId> {
        let mut def = FieldDef::new(name, Kind::Text, Storage::Derived { from, how });
        def.parent = like.parent;
        def.tags = like.tags.iter().filter(|t| !t.starts_with("name:")).cloned().collect();
        def.tags.push(format!("name:{name}"));
        self.source.add(def)
    }

    fn chain(&self, mut id: u32) -> Option<Chain> {
        let mut names = Vec::new();
        for _ in 0..32 {
            let t = self.btf().ty(id)?;
            if !t.kind.is_modifier() {
                let name = self.btf().name(t.name_off);
                if !name.is_empty() {
                    names.push(name.to_owned());
                }
                return Some(Chain { names, end: t });
            }
            if t.kind == BtfKind::Typedef {
                names.push(self.btf().name(t.name_off).to_owned());
            }
            id = t.size_or_type;
        }
        None
    }

    /// `within`: the known struct whose members these are.
    fn members(
        &mut self,
        structure: &Type,
        parent: Option<FieldId>,
        base: u32,
        within: Option<&str>,
        depth: u32,
    ) -> Result<(), SchemaError> {
        if depth == 0 {
            return Ok(());
        }
        let members: Vec<Member> = self.object.btf.members(structure).collect();
        for m in members {
            let name = self.object.btf.name(m.name_off).to_owned();
            // a bit field has no byte of its own, and `__` is how authors hide members
            if name.starts_with("__") || m.bit_size > 0 || m.bit_offset % 8 != 0 {
                continue;
            }
            let Some(offset) = base.checked_add(m.bit_offset / 8) else {
                continue;
            };
            let Some(chain) = self.chain(m.ty) else {
                continue;
            };
            if name.is_empty() {
                if chain.end.kind.is_composite() {
                    self.members(&chain.end, parent, offset, within, depth - 1)?;
                }
                continue;
            }
            self.member(&name, parent, offset, &chain, within, depth)?;
        }
        Ok(())
    }

    fn member(
        &mut self,
        name: &str,
        parent: Option<FieldId>,
        offset: u32,
        chain: &Chain,
        within: Option<&str>,
        depth: u32,
    ) -> Result<(), SchemaError> {
        let t = chain.end;
        if t.kind.is_composite() {
            return self.composite(name, parent, offset, chain, depth);
        }
        let (kind, size, mut names) = match t.kind {
            BtfKind::Array => {
                let Some(a) = self.btf().array(&t) else {
                    return Ok(());
                };
                let (Some(elem), Some(size)) = (self.chain(a.elem), self.btf().size_of(t.id)) else {
                    return Ok(());
                };
                let Some(kind) = self.array_kind(&elem) else {
                    return Ok(());
                };
                (kind, size, elem.names)
            }
            _ => match self.scalar_kind(&t) {
                Some(kind) => (kind, t.size_or_type, Vec::new()),
                // pointers, functions, 128-bit integers: nothing that could be shown
                None => return Ok(()),
            },
        };
        names.splice(0..0, chain.names.iter().cloned());
        let mut def = FieldDef::new(name, kind, Storage::Record { offset, size });
        def.parent = parent;
        def.tags = names.iter().map(|n| format!("type:{n}")).collect();
        def.tags.push(format!("name:{name}"));
        if let Some(alias) = within.and_then(|w| alias(w, name)) {
            def = def.annotate("columns.alias", alias);
        }
        if t.kind.is_enum() {
            return self.enumeration(def, &t);
        }
        self.formatted(def, &names, within)
    }

    fn scalar_kind(&self, t: &Type) -> Option<Kind> {
        let signed = match t.kind {
            BtfKind::Int => {
                let i = self.btf().int(t)?;
                if i.bool && t.size_or_type == 1 {
                    return Some(Kind::Bool);
                }
                i.signed
            }
            BtfKind::Enum | BtfKind::Enum64 => t.kflag,
            BtfKind::Float => {
                return match t.size_or_type {
                    4 => Some(Kind::F32),
                    8 => Some(Kind::F64),
                    _ => None,
                };
            }
            _ => return None,
        };
        Some(match (t.size_or_type, signed) {
            (1, false) => Kind::U8,
            (1, true) => Kind::I8,
            (2, false) => Kind::U16,
            (2, true) => Kind::I16,
            (4, false) => Kind::U32,
            (4, true) => Kind::I32,
            (8, false) => Kind::U64,
            (8, true) => Kind::I64,
            _ => return None,
        })
    }

    fn array_kind(&self, elem: &Chain) -> Option<Kind> {
        let char = elem.names.iter().any(|n| n == "char") && elem.end.size_or_type == 1;
        match elem.end.kind {
            BtfKind::Int if char => Some(Kind::CString),
            BtfKind::Int | BtfKind::Float | BtfKind::Enum | BtfKind::Enum64 => Some(Kind::Bytes),
            _ => None,
        }
    }

    fn composite(
        &mut self,
        name: &str,
        parent: Option<FieldId>,
        offset: u32,
        chain: &Chain,
        depth: u32,
    ) -> Result<(), SchemaError> {
        let mut def = FieldDef::new(name, Kind::Bytes, Storage::Group);
        def.parent = parent;
        def.tags = chain.names.iter().map(|n| format!("type:{n}")).collect();
        def.tags.push(format!("name:{name}"));
        let known = |n: &str| chain.names.iter().any(|c| c == n);
        if known("gadget_l4endpoint_t") || known("gadget_l3endpoint_t") {
            return self.endpoint(def, offset, &chain.end);
        }
        let within = ["gadget_process", "gadget_creds", "gadget_parent"].into_iter().find(|n| known(n));
        if within.is_some() {
            def = def.annotate("columns.hidden", "true");
        }
        let id = self.add(def)?;
        self.members(&chain.end, Some(id), offset, within, depth - 1)
    }

    /// `{addr_raw, version[, port, proto_raw]}`: shown as `ip:port` or `ip`, with the parts below it.
    fn endpoint(&mut self, mut def: FieldDef, offset: u32, t: &Type) -> Result<(), SchemaError> {
        def.kind = Kind::Text;
        let group = self.add(def)?;
        let mut ids: BTreeMap<String, FieldId> = BTreeMap::new();
        let members: Vec<Member> = self.object.btf.members(t).collect();
        for m in members {
            let name = self.object.btf.name(m.name_off).to_owned();
            let (Some(chain), Some(at)) = (self.chain(m.ty), offset.checked_add(m.bit_offset / 8)) else {
                continue;
            };
            let (kind, size) = if chain.end.kind.is_composite() {
                (Kind::Bytes, chain.end.size_or_type)
            } else {
                match self.scalar_kind(&chain.end) {
                    Some(k) => (k, chain.end.size_or_type),
                    None => continue,
                }
            };
            if name.starts_with("__") || name.is_empty() {
                continue;
            }
            let mut part = FieldDef::new(&name, kind, Storage::Record { offset: at, size })
                .under(group)
                .tag(format!("name:{name}"))
                .annotate("columns.hidden", "true");
            if name == "addr_raw" {
                part = part.annotate("json.skip", "true");
            }
            let id = self.add(part)?;
            ids.insert(name, id);
        }
        let (Some(addr), Some(version)) = (ids.get("addr_raw").copied(), ids.get("version").copied()) else {
            return Ok(());
        };
        let hidden = |name: &str, from, how| {
            FieldDef::new(name, Kind::Text, Storage::Derived { from, how })
                .under(group)
                .annotate("columns.hidden", "true")
        };
        self.add(hidden("addr", addr, Derive::Ip { version }))?;
        if let Some(proto) = ids.get("proto_raw") {
            self.add(hidden("proto", *proto, Derive::IpProto))?;
        }
        let how = match ids.get("port") {
            Some(port) => Derive::Endpoint { port: *port, version },
            None => Derive::Ip { version },
        };
        self.source.field_mut(group).def.storage = Storage::Derived { from: addr, how };
        Ok(())
    }

    /// A number that has names: the name gets the field's name, the number gets `_raw`.
    fn enumeration(&mut self, mut def: FieldDef, t: &Type) -> Result<(), SchemaError> {
        let shown = def.name.strip_suffix("_raw").unwrap_or(&def.name).to_owned();
        let how = self.enum_names(t);
        let alias = def.annotations.remove("columns.alias");
        def.name = format!("{shown}_raw");
        def = def.annotate("columns.hidden", "true");
        let raw = self.add(def.clone())?;
        if let Some(id) = self.add_derived(&shown, &def, raw, how)
            && let Some(a) = alias
        {
            self.source.field_mut(id).def.annotations.insert("columns.alias".into(), a);
        }
        Ok(())
    }

    fn enum_names(&self, t: &Type) -> Derive {
        let name = self.btf().name(t.name_off);
        // the kernel's own enum of that name knows values the author's headers may lack
        let theirs = (!name.is_empty()).then(|| self.kernel.get().ok()).flatten();
        let theirs = theirs.and_then(|k| k.find(name, t.kind).map(|t| (k, t)));
        let (btf, t) = theirs.unwrap_or((self.btf(), *t));
        let values = btf.enumerators(&t).map(|e| (e.value, btf.name(e.name_off).to_owned()));
        if name.ends_with("_set") {
            let names = values.map(|(v, n)| (v as u64, n)).collect();
            return Derive::Bits { names: Arc::new(names), separator: "|".into() };
        }
        Derive::Enum(Arc::new(values.collect()))
    }

    /// A field whose typedef says how to show it. `X_raw` keeps the number and gets a sibling `X`.
    fn formatted(&mut self, mut def: FieldDef, names: &[String], within: Option<&str>) -> Result<(), SchemaError> {
        let how = names.iter().find_map(|n| derivation(n)).filter(|_| def.kind.is_number());
        let Some(how) = how else {
            return self.add(def).map(drop);
        };
        let target = match &how {
            // ids keep their name, and the name they stand for gets its own
            Derive::User => {
                Some(def.name.strip_suffix("_raw").map_or_else(|| renamed(&def.name, "uid", "user"), str::to_owned))
            }
            Derive::Group => {
                Some(def.name.strip_suffix("_raw").map_or_else(|| renamed(&def.name, "gid", "group"), str::to_owned))
            }
            _ => def.name.strip_suffix("_raw").map(str::to_owned),
        };
        if matches!(how, Derive::Timestamp)
            && let Storage::Record { offset, .. } = def.storage
        {
            def.storage = Storage::BootTime { offset };
        }
        let Some(target) = target else {
            return self.add(def).map(drop);
        };
        def = def.annotate("columns.hidden", "true");
        let id = self.add(def.clone())?;
        if let Some(d) = self.add_derived(&target, &def, id, how)
            && within.is_some()
        {
            self.source.field_mut(d).def.annotations.insert("columns.alias".into(), target);
        }
        Ok(())
    }
}

fn renamed(name: &str, id: &str, to: &str) -> String {
    match name.strip_suffix(id) {
        Some(front) => format!("{front}{to}"),
        None => format!("{name}_{to}"),
    }
}

fn derivation(typedef: &str) -> Option<Derive> {
    Some(match typedef {
        "gadget_timestamp" => Derive::Timestamp,
        "gadget_errno" => Derive::Errno,
        "gadget_signal" => Derive::Signal,
        "gadget_syscall" => Derive::Syscall,
        "gadget_uid" => Derive::User,
        "gadget_gid" => Derive::Group,
        "gadget_file_mode" => Derive::FileMode,
        "gadget_file_flags" => Derive::OpenFlags,
        "gadget_bytes" => Derive::Bytes,
        "gadget_duration" => Derive::Duration,
        _ => return None,
    })
}

/// Headings of the members of known structs: `proc.comm` is `COMM`, `proc.parent.comm` is `PCOMM`.
fn alias(within: &str, member: &str) -> Option<String> {
    match (within, member) {
        ("gadget_parent", "comm") => Some("pcomm".into()),
        ("gadget_parent", "pid") => Some("ppid".into()),
        ("gadget_parent", "tid") => Some("ptid".into()),
        _ => Some(member.into()),
    }
}
