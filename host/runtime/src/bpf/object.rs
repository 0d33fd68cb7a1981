//! The pre-pass over a gadget's BPF object: what is in it, before anything is loaded.
//!
//! Reads the ELF file and its BTF into sections, symbols, programs with their hooks, maps, markers and read-only
//! variables. The input is untrusted: wrong input is an error that names the object and the thing, never a panic.
//! It makes no system call and changes nothing.

use super::{
    btf::{Btf, BtfError, Kind, Type},
    elf::{self, Section, Symbol},
    hook::Hook,
    marker::{Marker, MarkerFault, parse_marker},
};
use std::collections::BTreeMap;

/// Why an object was refused.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    #[error("{object}: not a 64-bit little-endian ELF file")]
    NotElf { object: String, source: object::read::Error },
    #[error("{object}: an ELF file for another machine ({machine}), not for BPF")]
    NotBpf { object: String, machine: u16 },
    #[error("{object}: damaged ELF file: {what}")]
    Elf { object: String, what: &'static str, source: object::read::Error },
    #[error("{object}: section {section} has {size} bytes, more than any BPF object needs")]
    SectionSize { object: String, section: String, size: u64 },
    #[error("{object}: section {section} has invalid BTF")]
    Btf { object: String, section: &'static str, source: BtfError },
    #[error("{object}: has no BTF (section .BTF)")]
    NoBtf { object: String },
    #[error("{object}: program {program} does not lie inside its section {section}")]
    ProgramRange { object: String, program: String, section: String },
    #[error("{object}: has no program")]
    NoPrograms { object: String },
    #[error("{object}: map {map}: {what}")]
    Map { object: String, map: String, what: MapFault },
    #[error("{object}: marker {marker}: {what}")]
    Marker { object: String, marker: String, what: MarkerFault },
}

impl ObjectError {
    pub fn hint(&self) -> Option<String> {
        match self {
            ObjectError::NotElf { .. } | ObjectError::NotBpf { .. } => {
                Some("the BPF layer of an image must be an object made by `clang -target bpf`".into())
            }
            ObjectError::NoBtf { .. } => Some("compile with -g and strip with `llvm-strip -g`, which keeps BTF".into()),
            _ => None,
        }
    }
}

/// What is wrong with a map's definition.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MapFault {
    #[error("its definition is not a struct")]
    NotAStruct,
    #[error("member {0} of its definition is not of the expected shape")]
    Member(String),
    #[error("the map type is missing")]
    NoType,
    #[error("its symbol is missing from section .maps")]
    NoSymbol,
    #[error("its name may only hold letters, digits, _ and .")]
    Name,
    #[error("declared in the old form (section maps), which is not supported")]
    OldForm,
}

/// A program of the object.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Program {
    pub name: String,
    pub section: String,
    pub hook: Hook,
    /// From a section like `uprobe.s/…`.
    pub sleepable: bool,
    #[serde(skip)]
    pub section_index: usize,
    /// Bytes from the start of the section, and length in bytes.
    #[serde(skip)]
    pub offset: usize,
    #[serde(skip)]
    pub len: usize,
}

/// A map of the object: declared, or made of a data section.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct MapDef {
    pub name: String,
    /// Number of the kernel's `enum bpf_map_type`.
    pub kind: u32,
    pub key_size: u32,
    pub value_size: u32,
    pub max_entries: u32,
    pub flags: u32,
    pub extra: u64,
    /// BTF ids of key and value; 0 where not given.
    #[serde(skip)]
    pub key_type: u32,
    #[serde(skip)]
    pub value_type: u32,
    /// `LIBBPF_PIN_BY_NAME`.
    pub pin_by_name: bool,
    /// For maps of maps: the shape of the maps inside.
    #[serde(skip)]
    pub inner: Option<Box<MapDef>>,
    /// For a data section: its first contents.
    #[serde(skip)]
    pub data: Option<Vec<u8>>,
    #[serde(skip)]
    pub section_index: usize,
    /// Offset of the map's symbol in its section.
    #[serde(skip)]
    pub offset: u64,
}

pub const MAP_HASH: u32 = 1;
pub const MAP_ARRAY: u32 = 2;
pub const MAP_PROG_ARRAY: u32 = 3;
pub const MAP_PERF_EVENT_ARRAY: u32 = 4;
pub const MAP_PERCPU_HASH: u32 = 5;
pub const MAP_PERCPU_ARRAY: u32 = 6;
pub const MAP_LRU_HASH: u32 = 9;
pub const MAP_LRU_PERCPU_HASH: u32 = 10;
pub const MAP_LPM_TRIE: u32 = 11;
pub const MAP_ARRAY_OF_MAPS: u32 = 12;
pub const MAP_HASH_OF_MAPS: u32 = 13;
pub const MAP_PERCPU_CGROUP_STORAGE: u32 = 21;
pub const MAP_RINGBUF: u32 = 27;
const F_RDONLY_PROG: u32 = 1 << 7;

/// The kernel's name of a map type, for messages and `inspect`.
pub fn map_kind_name(kind: u32) -> &'static str {
    const NAMES: [&str; 34] = [
        "unspec",
        "hash",
        "array",
        "prog_array",
        "perf_event_array",
        "percpu_hash",
        "percpu_array",
        "stack_trace",
        "cgroup_array",
        "lru_hash",
        "lru_percpu_hash",
        "lpm_trie",
        "array_of_maps",
        "hash_of_maps",
        "devmap",
        "sockmap",
        "cpumap",
        "xskmap",
        "sockhash",
        "cgroup_storage",
        "reuseport_sockarray",
        "percpu_cgroup_storage",
        "queue",
        "stack",
        "sk_storage",
        "devmap_hash",
        "struct_ops",
        "ringbuf",
        "inode_storage",
        "task_storage",
        "bloom_filter",
        "user_ringbuf",
        "cgrp_storage",
        "arena",
    ];
    NAMES.get(kind as usize).copied().unwrap_or("unknown map type")
}

/// A variable in a data section, with its value as compiled.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Var {
    pub name: String,
    pub section: String,
    /// BTF id of its type, qualifiers included.
    #[serde(skip)]
    pub type_id: u32,
    #[serde(skip)]
    pub section_index: usize,
    #[serde(skip)]
    pub offset: usize,
    #[serde(skip)]
    pub default: Vec<u8>,
}

/// A parsed object.
#[derive(Debug)]
pub struct Object {
    /// How messages call it: the image's name, or a path.
    pub name: String,
    pub license: String,
    pub sections: Vec<Section>,
    pub symbols: Vec<Symbol>,
    pub programs: Vec<Program>,
    pub maps: Vec<MapDef>,
    pub markers: Vec<Marker>,
    /// Variables of `.rodata*` sections.
    pub vars: Vec<Var>,
    pub btf: Btf,
    /// Raw `.BTF.ext`.
    pub btf_ext: Vec<u8>,
    /// The file as it came.
    pub image: Vec<u8>,
}

impl Object {
    /// `name` is what messages call the object.
    pub fn parse(name: &str, bytes: &[u8]) -> Result<Object, ObjectError> {
        let (sections, symbols) = elf::read(name, bytes)?;
        let section = |n: &str| sections.iter().find(|s| s.name == n);
        let btf = match section(".BTF") {
            Some(s) => Btf::parse(s.data.clone()).map_err(|source| ObjectError::Btf {
                object: name.into(),
                section: ".BTF",
                source,
            })?,
            None => {
                return Err(ObjectError::NoBtf { object: name.into() });
            }
        };
        let license = section("license").map_or("", |s| until_nul(&s.data)).to_owned();
        let mut object = Object {
            name: name.into(),
            license,
            programs: programs(name, &sections, &symbols)?,
            maps: Vec::new(),
            markers: Vec::new(),
            vars: Vec::new(),
            btf_ext: section(".BTF.ext").map(|s| s.data.clone()).unwrap_or_default(),
            btf,
            sections,
            symbols,
            image: bytes.to_vec(),
        };
        if object.programs.is_empty() {
            return Err(ObjectError::NoPrograms { object: name.into() });
        }
        object.maps = object.declared_maps()?;
        object.maps.extend(object.data_maps());
        object.vars = object.read_only_vars();
        object.markers = object.find_markers()?;
        object.check_markers()?;
        Ok(object)
    }

    pub fn map(&self, name: &str) -> Option<&MapDef> {
        self.maps.iter().find(|m| m.name == name)
    }

    pub fn program(&self, name: &str) -> Option<&Program> {
        self.programs.iter().find(|p| p.name == name)
    }

    pub fn var(&self, name: &str) -> Option<&Var> {
        self.vars.iter().find(|v| v.name == name)
    }

    /// The struct of this name.
    pub fn structure(&self, name: &str) -> Option<Type> {
        self.btf.find(name, Kind::Struct)
    }

    fn map_error(&self, map: &str, what: MapFault) -> ObjectError {
        ObjectError::Map { object: self.name.clone(), map: map.into(), what }
    }

    fn declared_maps(&self) -> Result<Vec<MapDef>, ObjectError> {
        if self.sections.iter().any(|s| s.name.starts_with("maps") && s.size > 0) {
            return Err(self.map_error("maps", MapFault::OldForm));
        }
        let Some(index) = self.sections.iter().position(|s| s.name == ".maps") else {
            return Ok(Vec::new());
        };
        let Some(sec) = self.btf.find(".maps", Kind::DataSec) else {
            return Ok(Vec::new());
        };
        let symbols: BTreeMap<&str, u64> =
            self.symbols.iter().filter(|s| s.section == Some(index)).map(|s| (s.name.as_str(), s.value)).collect();
        let mut maps = Vec::new();
        for v in self.btf.section_vars(&sec) {
            let name = self.btf.type_name(v.ty).to_owned();
            // the kernel takes no other, and a pinned map's name becomes the name of a file
            let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.');
            if !name.bytes().all(fits) || name.bytes().all(|b| b == b'.') {
                return Err(self.map_error(&name, MapFault::Name));
            }
            let root = self.btf.ty(v.ty).filter(|t| t.kind == Kind::Var).and_then(|t| self.btf.resolve(t.size_or_type));
            let root =
                root.filter(|t| t.kind == Kind::Struct).ok_or_else(|| self.map_error(&name, MapFault::NotAStruct))?;
            let mut def = self.map_def(&name, &root, 0)?;
            def.offset = *symbols.get(name.as_str()).ok_or_else(|| self.map_error(&name, MapFault::NoSymbol))?;
            def.section_index = index;
            maps.push(def);
        }
        Ok(maps)
    }

    /// `__uint(name, N)` is a pointer to an array of N ints.
    fn encoded_number(&self, ty: u32) -> Option<u32> {
        let p = self.btf.resolve(ty).filter(|t| t.kind == Kind::Ptr)?;
        let a = self.btf.resolve(p.size_or_type)?;
        self.btf.array(&a).map(|a| a.len)
    }

    fn map_def(&self, name: &str, root: &Type, depth: u32) -> Result<MapDef, ObjectError> {
        let mut def = MapDef { name: name.into(), ..MapDef::default() };
        for m in self.btf.members(root) {
            let member = self.btf.name(m.name_off);
            let bad = || self.map_error(name, MapFault::Member(member.into()));
            let number = || self.encoded_number(m.ty).ok_or_else(bad);
            let pointee = || self.btf.resolve(m.ty).filter(|t| t.kind == Kind::Ptr).map(|t| t.size_or_type);
            match member {
                "type" => def.kind = number()?,
                "max_entries" => def.max_entries = number()?,
                "map_flags" => def.flags = number()?,
                "map_extra" => def.extra = number()?.into(),
                "key_size" => def.key_size = number()?,
                "value_size" => def.value_size = number()?,
                "pinning" => def.pin_by_name = number()? == 1,
                "key" => {
                    def.key_type = pointee().ok_or_else(bad)?;
                    def.key_size = self.btf.size_of(def.key_type).ok_or_else(bad)?;
                }
                "value" => {
                    def.value_type = pointee().ok_or_else(bad)?;
                    def.value_size = self.btf.size_of(def.value_type).ok_or_else(bad)?;
                }
                // `values` of a map of maps is an array of pointers to the inner definition; of a program array it
                // is an array of functions, which nobody fills in from here
                "values" => {
                    let inner = self.btf.resolve(m.ty).and_then(|t| self.btf.array(&t)).and_then(|a| {
                        self.btf
                            .resolve(a.elem)
                            .filter(|t| t.kind == Kind::Ptr)
                            .and_then(|t| self.btf.resolve(t.size_or_type))
                    });
                    if let Some(t) = inner.filter(|t| t.kind == Kind::Struct && depth == 0) {
                        def.inner = Some(Box::new(self.map_def(&format!("{name}.inner"), &t, depth + 1)?));
                    }
                    def.key_size = if def.key_size == 0 { 4 } else { def.key_size };
                    def.value_size = 4;
                }
                _ => {}
            }
        }
        if def.kind == 0 {
            return Err(self.map_error(name, MapFault::NoType));
        }
        Ok(def)
    }

    /// `.rodata`, `.data`, `.bss` and their numbered relatives are arrays with one value.
    fn data_maps(&self) -> Vec<MapDef> {
        let mut out = Vec::new();
        for (i, s) in self.sections.iter().enumerate() {
            let read_only = s.name.starts_with(".rodata");
            if s.size == 0 || !(read_only || is_data(&s.name, ".data") || is_data(&s.name, ".bss")) {
                continue;
            }
            let mut data = s.data.clone();
            data.resize(s.size as usize, 0);
            out.push(MapDef {
                name: s.name.clone(),
                kind: MAP_ARRAY,
                key_size: 4,
                value_size: s.size as u32,
                max_entries: 1,
                flags: if read_only { F_RDONLY_PROG } else { 0 },
                value_type: self.btf.find(&s.name, Kind::DataSec).map_or(0, |t| t.id),
                data: Some(data),
                section_index: i,
                ..MapDef::default()
            });
        }
        out
    }

    fn read_only_vars(&self) -> Vec<Var> {
        let mut out = Vec::new();
        for (section_index, s) in self.sections.iter().enumerate() {
            if !s.name.starts_with(".rodata") {
                continue;
            }
            let Some(sec) = self.btf.find(&s.name, Kind::DataSec) else {
                continue;
            };
            for v in self.btf.section_vars(&sec) {
                let Some(t) = self.btf.ty(v.ty).filter(|t| t.kind == Kind::Var) else {
                    continue;
                };
                let name = self.btf.name(t.name_off);
                // offsets in the BTF are filled in by the linker only; the symbol table always has them
                let Some(sym) = self.symbols.iter().find(|y| y.section == Some(section_index) && y.name == name) else {
                    continue;
                };
                let (start, size) = (sym.value as usize, sym.size as usize);
                let Some(default) = start.checked_add(size).and_then(|end| s.data.get(start..end)) else {
                    continue;
                };
                out.push(Var {
                    name: name.into(),
                    section: s.name.clone(),
                    type_id: t.size_or_type,
                    section_index,
                    offset: start,
                    default: default.to_vec(),
                });
            }
        }
        out
    }

    fn find_markers(&self) -> Result<Vec<Marker>, ObjectError> {
        let mut out = Vec::new();
        for t in self.btf.types() {
            let name = self.btf.name(t.name_off);
            if t.kind == Kind::Func {
                if let Some(n) = name.strip_prefix("gadget_pf_") {
                    out.push(Marker::PacketFilter { name: n.into() });
                }
                continue;
            }
            if t.kind != Kind::Var || self.btf.var_linkage(&t) != 1 || !name.starts_with("gadget_") {
                continue;
            }
            if !self.is_marker_type(t.size_or_type) {
                continue;
            }
            if let Some(m) = parse_marker(name).map_err(|what| self.marker_error(name, what))? {
                out.push(m);
            }
        }
        Ok(out)
    }

    /// A marker is declared `const void *`.
    fn is_marker_type(&self, id: u32) -> bool {
        let Some(p) = self.btf.ty(id).filter(|t| t.kind == Kind::Ptr) else {
            return false;
        };
        let Some(c) = self.btf.ty(p.size_or_type).filter(|t| t.kind == Kind::Const) else {
            return false;
        };
        c.size_or_type == 0
    }

    fn marker_error(&self, marker: &str, what: MarkerFault) -> ObjectError {
        ObjectError::Marker { object: self.name.clone(), marker: marker.into(), what }
    }

    fn check_markers(&self) -> Result<(), ObjectError> {
        for m in &self.markers {
            self.check_marker(m).map_err(|what| self.marker_error(&m.to_string(), what))?;
        }
        Ok(())
    }

    fn check_marker(&self, marker: &Marker) -> Result<(), MarkerFault> {
        let map = |name: &str| self.map(name).ok_or_else(|| MarkerFault::NoMap(name.into()));
        let kind_is = |m: &MapDef, kinds: &[u32], wanted| {
            if kinds.contains(&m.kind) {
                return Ok(());
            }
            Err(MarkerFault::MapKind { map: m.name.clone(), kind: map_kind_name(m.kind), wanted })
        };
        let events = |m: &MapDef| kind_is(m, &[MAP_RINGBUF, MAP_PERF_EVENT_ARRAY], "a ringbuf or perf_event_array");
        let structure = |name: &str| self.structure(name).map(drop).ok_or_else(|| MarkerFault::NoStruct(name.into()));
        let program = |name: &str| self.program(name).ok_or_else(|| MarkerFault::NoProgram(name.into()));
        match marker {
            Marker::Tracer { map: m, structure: s, .. } => {
                events(map(m)?)?;
                structure(s)
            }
            Marker::MapTracer { map: m } => events(map(m)?),
            Marker::Iter { structure: s, programs, .. } => {
                structure(s)?;
                for p in programs {
                    let p = program(p)?;
                    if !matches!(p.hook, Hook::Iter { .. }) {
                        return Err(MarkerFault::NotIterator { program: p.name.clone(), section: p.section.clone() });
                    }
                }
                Ok(())
            }
            Marker::MapIter { map: m, .. } => kind_is(map(m)?, &[MAP_HASH], "a hash"),
            Marker::MapElemTarget { program: p, map: m } | Marker::SocketTarget { program: p, map: m } => {
                program(p)?;
                map(m).map(drop)
            }
            Marker::Param { var } => self.var(var).map(drop).ok_or_else(|| MarkerFault::NoVariable(var.clone())),
            Marker::PacketFilter { .. } => Ok(()),
        }
    }
}

fn is_data(name: &str, prefix: &str) -> bool {
    name == prefix || name.strip_prefix(prefix).is_some_and(|r| r.starts_with('.'))
}

fn until_nul(bytes: &[u8]) -> &str {
    let end = memchr::memchr(0, bytes).unwrap_or(bytes.len());
    std::str::from_utf8(&bytes[..end]).unwrap_or("")
}

fn programs(object: &str, sections: &[Section], symbols: &[Symbol]) -> Result<Vec<Program>, ObjectError> {
    let mut out = Vec::new();
    for s in symbols.iter().filter(|s| s.is_function && !s.name.is_empty()) {
        let Some((section_index, sec)) = s.section.and_then(|i| Some((i, sections.get(i)?))) else {
            continue;
        };
        if !sec.executable || sec.name == ".text" {
            continue;
        }
        let (offset, len) = (s.value as usize, s.size as usize);
        let fits = offset.checked_add(len).is_some_and(|end| end <= sec.data.len());
        if !fits || len == 0 || !offset.is_multiple_of(super::insn::SIZE) || !len.is_multiple_of(super::insn::SIZE) {
            return Err(ObjectError::ProgramRange {
                object: object.into(),
                program: s.name.clone(),
                section: sec.name.clone(),
            });
        }
        out.push(Program {
            name: s.name.clone(),
            section: sec.name.clone(),
            hook: Hook::parse(&sec.name),
            sleepable: sec.name.split('/').next().is_some_and(|k| k.ends_with(".s")),
            section_index,
            offset,
            len,
        });
    }
    out.sort_by_key(|p| (p.section_index, p.offset));
    Ok(out)
}
