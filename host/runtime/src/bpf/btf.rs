//! A reader of BTF, the kernel's type format: an offsets table and a name index over bytes that are left where they are.
//!
//! Untrusted input: every access is checked, nothing here panics on garbage, and chains of types are followed only so
//! far. Plain data, no thread of its own. It must not build an owned model of the types: the kernel has 130,000 of them.

use std::{path::Path, sync::OnceLock};

/// Longest chain of modifiers, arrays and pointers that is followed; the kernel's own limit is 32.
const MAX_DEPTH: u32 = 64;
const HEADER_LEN: usize = 24;
const MAGIC: u16 = 0xeb9f;

/// Why BTF bytes were refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BtfError {
    #[error("the BTF header is cut short")]
    ShortHeader,
    #[error("not BTF, or of another byte order (magic {0:#06x})")]
    Magic(u16),
    #[error("the BTF {0} section lies outside the data")]
    OutOfBounds(&'static str),
    #[error("BTF type {id} is of unknown kind {kind}")]
    UnknownKind { id: u32, kind: u32 },
    #[error("BTF type {id} is cut short")]
    ShortType { id: u32 },
}

/// Kinds of BTF types, with the numbers of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Kind {
    Void = 0,
    Int = 1,
    Ptr = 2,
    Array = 3,
    Struct = 4,
    Union = 5,
    Enum = 6,
    Fwd = 7,
    Typedef = 8,
    Volatile = 9,
    Const = 10,
    Restrict = 11,
    Func = 12,
    FuncProto = 13,
    Var = 14,
    DataSec = 15,
    Float = 16,
    DeclTag = 17,
    TypeTag = 18,
    Enum64 = 19,
}

impl Kind {
    fn from_number(n: u32) -> Option<Kind> {
        const ALL: [Kind; 20] = [
            Kind::Void,
            Kind::Int,
            Kind::Ptr,
            Kind::Array,
            Kind::Struct,
            Kind::Union,
            Kind::Enum,
            Kind::Fwd,
            Kind::Typedef,
            Kind::Volatile,
            Kind::Const,
            Kind::Restrict,
            Kind::Func,
            Kind::FuncProto,
            Kind::Var,
            Kind::DataSec,
            Kind::Float,
            Kind::DeclTag,
            Kind::TypeTag,
            Kind::Enum64,
        ];
        ALL.get(n as usize).copied()
    }

    pub fn is_composite(self) -> bool {
        matches!(self, Kind::Struct | Kind::Union)
    }

    pub fn is_enum(self) -> bool {
        matches!(self, Kind::Enum | Kind::Enum64)
    }

    /// Typedefs and qualifiers: what C code looks through.
    pub fn is_modifier(self) -> bool {
        matches!(self, Kind::Typedef | Kind::Volatile | Kind::Const | Kind::Restrict | Kind::TypeTag)
    }

    /// Bytes after the 12 common ones, for `vlen` entries.
    fn payload(self, vlen: usize) -> usize {
        match self {
            Kind::Int | Kind::Var | Kind::DeclTag => 4,
            Kind::Array => 12,
            Kind::Struct | Kind::Union | Kind::DataSec | Kind::Enum64 => 12 * vlen,
            Kind::Enum | Kind::FuncProto => 8 * vlen,
            _ => 0,
        }
    }
}

/// The common part of one type; its entries are read through `Btf`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Type {
    pub id: u32,
    pub kind: Kind,
    pub name_off: u32,
    pub vlen: u32,
    pub kflag: bool,
    /// Size in bytes, or the type referred to, by kind.
    pub size_or_type: u32,
    /// Where the entries start in the data.
    at: u32,
}

/// A member of a struct or union.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    pub name_off: u32,
    pub ty: u32,
    pub bit_offset: u32,
    /// 0 for anything but a bit field.
    pub bit_size: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Array {
    pub elem: u32,
    pub len: u32,
}

/// How an integer's bits are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Int {
    pub signed: bool,
    pub char: bool,
    pub bool: bool,
    /// Non-zero only in the deprecated form of bit fields.
    pub bit_offset: u32,
    pub bits: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enumerator {
    pub name_off: u32,
    /// Sign- or zero-extended to 64 bits as the enum's signedness says.
    pub value: i64,
}

/// A variable of a DATASEC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SecVar {
    pub ty: u32,
    pub offset: u32,
    pub size: u32,
}

/// BTF bytes with a table of where each type starts.
pub struct Btf {
    data: Vec<u8>,
    /// By type id; id 0 (void) has a placeholder.
    offsets: Vec<u32>,
    str_start: usize,
    str_len: usize,
    index: OnceLock<NameIndex>,
}

/// A chained hash table over the names of all types: two flat arrays, built in one pass.
struct NameIndex {
    heads: Vec<u32>,
    next: Vec<u32>,
}

impl std::fmt::Debug for Btf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Btf({} types, {} bytes)", self.offsets.len(), self.data.len())
    }
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(data.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

const HASH_START: u32 = 0x811c_9dc5;

/// FNV-1a: names are short, and the table only needs an even spread.
fn hash_step(h: u32, byte: u8) -> u32 {
    (h ^ u32::from(byte)).wrapping_mul(0x0100_0193)
}

fn hash(name: &[u8]) -> u32 {
    name.iter().fold(HASH_START, |h, b| hash_step(h, *b))
}

/// A type's name without its flavour: `task_struct___old` is a `task_struct`.
pub fn essential(name: &str) -> &str {
    let b = name.as_bytes();
    for i in (0..b.len().saturating_sub(4)).rev() {
        // exactly three underscores between two other characters, the last such place
        if b[i] != b'_' && &b[i + 1..i + 4] == b"___" && b[i + 4] != b'_' {
            return &name[..i + 1];
        }
    }
    name
}

impl Btf {
    /// Checks the header and walks all types once.
    pub fn parse(data: Vec<u8>) -> Result<Btf, BtfError> {
        let head = data.get(..HEADER_LEN).ok_or(BtfError::ShortHeader)?;
        let magic = u16::from_le_bytes([head[0], head[1]]);
        if magic != MAGIC {
            return Err(BtfError::Magic(magic));
        }
        let word = |at| u32_at(&data, at).map(|w| w as usize).ok_or(BtfError::ShortHeader);
        let hdr_len = word(4)?;
        let section = |off: usize, len: usize, what| {
            let start = hdr_len.checked_add(off).ok_or(BtfError::OutOfBounds(what))?;
            let end = start.checked_add(len).filter(|e| *e <= data.len()).ok_or(BtfError::OutOfBounds(what))?;
            Ok((start, end))
        };
        let (type_start, type_end) = section(word(8)?, word(12)?, "type")?;
        let (str_start, str_end) = section(word(16)?, word(20)?, "string")?;
        if str_end > str_start && data[str_end - 1] != 0 {
            return Err(BtfError::OutOfBounds("string"));
        }
        let mut offsets = Vec::with_capacity((type_end - type_start) / 24 + 1);
        offsets.push(0);
        let mut at = type_start;
        while at < type_end {
            let id = offsets.len() as u32;
            let short = BtfError::ShortType { id };
            let Some(info) = u32_at(&data[..type_end], at + 4) else {
                return Err(short);
            };
            let number = info >> 24 & 0x1f;
            let kind = Kind::from_number(number)
                .filter(|k| *k != Kind::Void)
                .ok_or(BtfError::UnknownKind { id, kind: number })?;
            offsets.push(at as u32);
            at += 12 + kind.payload((info & 0xffff) as usize);
            if at > type_end {
                return Err(short);
            }
        }
        Ok(Btf { offsets, str_start, str_len: str_end - str_start, index: OnceLock::new(), data })
    }

    /// The bytes it was made from.
    pub fn bytes(&self) -> &[u8] {
        &self.data
    }

    /// Number of types, void included.
    pub fn len(&self) -> u32 {
        self.offsets.len() as u32
    }

    pub fn is_empty(&self) -> bool {
        self.offsets.len() <= 1
    }

    /// Where the 12 common bytes of a type start in `bytes()`.
    pub(super) fn position(&self, id: u32) -> Option<usize> {
        if id == 0 {
            return None;
        }
        self.offsets.get(id as usize).map(|o| *o as usize)
    }

    pub fn ty(&self, id: u32) -> Option<Type> {
        if id == 0 {
            return Some(Type { id: 0, kind: Kind::Void, name_off: 0, vlen: 0, kflag: false, size_or_type: 0, at: 0 });
        }
        let at = *self.offsets.get(id as usize)? as usize;
        let info = u32_at(&self.data, at + 4)?;
        Some(Type {
            id,
            kind: Kind::from_number(info >> 24 & 0x1f)?,
            name_off: u32_at(&self.data, at)?,
            vlen: info & 0xffff,
            kflag: info >> 31 == 1,
            size_or_type: u32_at(&self.data, at + 8)?,
            at: at as u32 + 12,
        })
    }

    /// All types but void, in order of their ids.
    pub fn types(&self) -> impl Iterator<Item = Type> + '_ {
        (1..self.len()).filter_map(|id| self.ty(id))
    }

    fn name_bytes(&self, off: u32) -> &[u8] {
        let strings = &self.data[self.str_start..self.str_start + self.str_len];
        let rest = strings.get(off as usize..).unwrap_or(&[]);
        &rest[..memchr::memchr(0, rest).unwrap_or(rest.len())]
    }

    /// The string at `off`; empty where there is none or it is no UTF-8.
    pub fn name(&self, off: u32) -> &str {
        std::str::from_utf8(self.name_bytes(off)).unwrap_or("")
    }

    pub fn type_name(&self, id: u32) -> &str {
        self.ty(id).map_or("", |t| self.name(t.name_off))
    }

    /// Whether every name that types, members, values and parameters refer to lies in the strings. Reading one that does
    /// not gives an empty name here; other readers are less forgiving.
    pub fn names_are_inside(&self) -> bool {
        let inside = |off: u32| off == 0 || (off as usize) < self.str_len;
        self.types().all(|t| {
            inside(t.name_off)
                && self.members(&t).all(|m| inside(m.name_off))
                && self.enumerators(&t).all(|e| inside(e.name_off))
                && (t.kind != Kind::FuncProto || (0..t.vlen).all(|i| inside(self.entry(&t, i, 8, 0))))
        })
    }

    fn entry(&self, t: &Type, i: u32, size: usize, word: usize) -> u32 {
        u32_at(&self.data, t.at as usize + i as usize * size + word * 4).unwrap_or(0)
    }

    pub fn members(&self, t: &Type) -> impl Iterator<Item = Member> + use<'_> {
        let t = *t;
        let n = if t.kind.is_composite() { t.vlen } else { 0 };
        (0..n).filter_map(move |i| self.member(&t, i))
    }

    pub fn member(&self, t: &Type, i: u32) -> Option<Member> {
        if !t.kind.is_composite() || i >= t.vlen {
            return None;
        }
        let off = self.entry(t, i, 12, 2);
        let (bit_offset, bit_size) = if t.kflag { (off & 0xff_ffff, off >> 24) } else { (off, 0) };
        Some(Member { name_off: self.entry(t, i, 12, 0), ty: self.entry(t, i, 12, 1), bit_offset, bit_size })
    }

    pub fn array(&self, t: &Type) -> Option<Array> {
        (t.kind == Kind::Array).then(|| Array { elem: self.entry(t, 0, 12, 0), len: self.entry(t, 0, 12, 2) })
    }

    pub fn int(&self, t: &Type) -> Option<Int> {
        (t.kind == Kind::Int).then(|| {
            let w = self.entry(t, 0, 4, 0);
            let enc = w >> 24 & 0xf;
            Int {
                signed: enc & 1 != 0,
                char: enc & 2 != 0,
                bool: enc & 4 != 0,
                bit_offset: w >> 16 & 0xff,
                bits: w & 0xff,
            }
        })
    }

    pub fn enumerators(&self, t: &Type) -> impl Iterator<Item = Enumerator> + use<'_> {
        let t = *t;
        let n = if t.kind.is_enum() { t.vlen } else { 0 };
        (0..n).map(move |i| {
            if t.kind == Kind::Enum64 {
                let value = u64::from(self.entry(&t, i, 12, 1)) | u64::from(self.entry(&t, i, 12, 2)) << 32;
                Enumerator { name_off: self.entry(&t, i, 12, 0), value: value as i64 }
            } else {
                let raw = self.entry(&t, i, 8, 1);
                let value = if t.kflag { i64::from(raw as i32) } else { i64::from(raw) };
                Enumerator { name_off: self.entry(&t, i, 8, 0), value }
            }
        })
    }

    /// Types of a function prototype's parameters.
    pub fn params(&self, t: &Type) -> impl Iterator<Item = u32> + use<'_> {
        let t = *t;
        let n = if t.kind == Kind::FuncProto { t.vlen } else { 0 };
        (0..n).map(move |i| self.entry(&t, i, 8, 1))
    }

    pub fn section_vars(&self, t: &Type) -> impl Iterator<Item = SecVar> + use<'_> {
        let t = *t;
        let n = if t.kind == Kind::DataSec { t.vlen } else { 0 };
        (0..n).map(move |i| SecVar {
            ty: self.entry(&t, i, 12, 0),
            offset: self.entry(&t, i, 12, 1),
            size: self.entry(&t, i, 12, 2),
        })
    }

    /// 0 static, 1 global, 2 extern.
    pub fn var_linkage(&self, t: &Type) -> u32 {
        if t.kind == Kind::Var { self.entry(t, 0, 4, 0) } else { 0 }
    }

    /// Looks through typedefs and qualifiers. `None` for a dangling or endless chain.
    pub fn resolve(&self, id: u32) -> Option<Type> {
        let mut t = self.ty(id)?;
        for _ in 0..MAX_DEPTH {
            if !t.kind.is_modifier() {
                return Some(t);
            }
            t = self.ty(t.size_or_type)?;
        }
        None
    }

    /// Size in bytes; `None` for what has none (functions, void, endless chains) or does not fit 32 bits.
    pub fn size_of(&self, id: u32) -> Option<u32> {
        let mut count: u32 = 1;
        let mut t = self.ty(id)?;
        for _ in 0..MAX_DEPTH {
            match t.kind {
                Kind::Int | Kind::Struct | Kind::Union | Kind::Enum | Kind::Enum64 | Kind::Float | Kind::DataSec => {
                    return count.checked_mul(t.size_or_type);
                }
                Kind::Ptr => return count.checked_mul(8),
                Kind::Array => {
                    let a = self.array(&t)?;
                    count = count.checked_mul(a.len)?;
                    t = self.ty(a.elem)?;
                }
                k if k.is_modifier() || k == Kind::Var => t = self.ty(t.size_or_type)?,
                _ => return None,
            }
        }
        None
    }

    /// Hash of the name at `off` without its flavour, in one pass over its bytes; `None` for no name.
    fn hash_at(&self, off: u32) -> Option<u32> {
        let strings = &self.data[self.str_start..self.str_start + self.str_len];
        let rest = strings.get(off as usize..).filter(|r| r.first().is_some_and(|b| *b != 0))?;
        let (mut h, mut underscores) = (HASH_START, 0);
        for b in rest.iter().take_while(|b| **b != 0) {
            h = hash_step(h, *b);
            underscores = if *b == b'_' { underscores + 1 } else { 0 };
            if underscores == 3 {
                return Some(hash(essential(self.name(off)).as_bytes()));
            }
        }
        Some(h)
    }

    fn index(&self) -> &NameIndex {
        self.index.get_or_init(|| {
            let n = self.offsets.len();
            let buckets = n.next_power_of_two().max(16);
            let mut heads = vec![0u32; buckets];
            let mut next = vec![0u32; n];
            // backwards, so that a chain lists types in order of their ids
            for id in (1..n).rev() {
                let name_off = u32_at(&self.data, self.offsets[id] as usize).unwrap_or(0);
                let Some(hash) = self.hash_at(name_off) else { continue };
                let head = &mut heads[hash as usize & (buckets - 1)];
                next[id] = std::mem::replace(head, id as u32);
            }
            NameIndex { heads, next }
        })
    }

    /// Types whose name without flavour is `name`, in order of their ids.
    pub fn by_essential_name<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Type> + 'a {
        let ix = self.index();
        let mut id = ix.heads[hash(name.as_bytes()) as usize & (ix.heads.len() - 1)];
        std::iter::from_fn(move || {
            while id != 0 {
                let t = self.ty(id)?;
                id = ix.next[id as usize];
                if essential(self.name(t.name_off)) == name {
                    return Some(t);
                }
            }
            None
        })
    }

    /// The first type of this very name and kind.
    pub fn find(&self, name: &str, kind: Kind) -> Option<Type> {
        self.by_essential_name(essential(name)).find(|t| t.kind == kind && self.name(t.name_off) == name)
    }
}

/// Why the kernel's types could not be had.
#[derive(Debug, thiserror::Error)]
pub enum KernelBtfError {
    #[error("this kernel offers no type information ({path})")]
    Missing { path: String, source: std::io::Error },
    #[error("cannot read the kernel's type information ({path})")]
    Read { path: String, source: std::io::Error },
    #[error("the kernel's type information ({path}) is not valid")]
    Invalid { path: String, source: BtfError },
}

impl KernelBtfError {
    pub fn hint(&self) -> Option<String> {
        match self {
            KernelBtfError::Missing { .. } => Some(
                "the kernel must be built with CONFIG_DEBUG_INFO_BTF=y; most distributions' kernels since 5.8 are"
                    .into(),
            ),
            _ => None,
        }
    }
}

/// The kernel's BTF, read when first asked for and given back when this is dropped.
#[derive(Debug, Default)]
pub struct KernelBtf {
    path: Option<std::path::PathBuf>,
    cell: OnceLock<Btf>,
}

impl KernelBtf {
    pub const PATH: &'static str = "/sys/kernel/btf/vmlinux";

    /// The running kernel's.
    pub fn new() -> KernelBtf {
        KernelBtf::default()
    }

    /// Another file instead, for tests and for kernels whose BTF is shipped apart.
    pub fn at(path: impl Into<std::path::PathBuf>) -> KernelBtf {
        KernelBtf { path: Some(path.into()), cell: OnceLock::new() }
    }

    /// Reads and indexes at the first call.
    pub fn get(&self) -> Result<&Btf, KernelBtfError> {
        if let Some(b) = self.cell.get() {
            return Ok(b);
        }
        let path = self.path.as_deref().unwrap_or(Path::new(Self::PATH));
        let name = || path.display().to_string();
        let data = std::fs::read(path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => KernelBtfError::Missing { path: name(), source },
            _ => KernelBtfError::Read { path: name(), source },
        })?;
        let btf = Btf::parse(data).map_err(|source| KernelBtfError::Invalid { path: name(), source })?;
        Ok(self.cell.get_or_init(|| btf))
    }

    /// True once the kernel's types have been read.
    pub fn is_read(&self) -> bool {
        self.cell.get().is_some()
    }
}

impl Drop for KernelBtf {
    fn drop(&mut self) {
        if self.cell.take().is_some() {
            // megabytes that were needed for a moment: a run that lasts for days must not keep them
            super::sys::trim_heap();
        }
    }
}
