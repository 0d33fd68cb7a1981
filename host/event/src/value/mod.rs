//! From a stored value to the text people read: one file for each family of formats, and the compiled access to both.
//!
//! A `Load` is a field's place, worked out once from the schema; a `Format` is a `Derive` with everything it needs at
//! hand. Outputs, filters and sorts are lists of these: per event there is no lookup by name, no virtual call and no
//! allocation.

mod bits;
mod errno;
pub use errno::{LAST_SIGNAL, errno_names, signal_number};
mod ip;
pub(crate) mod number;
mod quantity;
mod time;

use crate::{Batch, DataSource, Derive, EntityValue, FieldId, HostNames, Kind, Storage, Value, batch::decode};
use jiff::tz::TimeZone;
use std::{borrow::Cow, sync::Arc};

/// What turning values into text depends on besides the schema.
#[derive(Clone, Debug)]
pub struct TextEnv {
    pub names: Arc<HostNames>,
    /// The zone times are shown in: the local one, fixed in tests.
    pub zone: TimeZone,
}

/// No names of users, groups or system calls, and times in UTC.
impl Default for TextEnv {
    fn default() -> Self {
        TextEnv { names: Arc::default(), zone: TimeZone::UTC }
    }
}

/// A row of a batch, with its record at hand.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    pub(crate) batch: &'a Batch,
    pub(crate) index: usize,
    record: &'a [u8],
}

impl<'a> Row<'a> {
    #[inline]
    pub(crate) fn new(batch: &'a Batch, index: usize) -> Self {
        Row { batch, index, record: batch.record(index) }
    }
}

/// Where the value of a field is. Derivation is resolved: a derived field loads what it is derived from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Load {
    Record {
        offset: usize,
        size: usize,
        kind: Kind,
    },
    BootTime {
        offset: usize,
    },
    Column(usize),
    Entity {
        slot: u32,
        member: usize,
    },
    /// Of this field of the batch's schema.
    Constant(FieldId),
    Nothing,
}

impl Load {
    pub(crate) fn new(source: &DataSource, id: FieldId) -> Self {
        // A chain of derivations is as long as the schema at most; a circular one has no value.
        let mut id = id;
        for _ in 0..=source.fields().len() {
            let Some(field) = source.fields().get(id.0 as usize) else { return Load::Nothing };
            match field.def.storage {
                Storage::Derived { from, .. } => id = from,
                Storage::Record { offset, size } => {
                    return Load::Record { offset: offset as usize, size: size as usize, kind: field.def.kind };
                }
                Storage::BootTime { offset } => return Load::BootTime { offset: offset as usize },
                Storage::Column(c) => return Load::Column(c as usize),
                Storage::Entity { slot, member } => return Load::Entity { slot, member: member as usize },
                Storage::Constant(_) => return Load::Constant(id),
                Storage::Group => return Load::Nothing,
            }
        }
        Load::Nothing
    }

    /// The slot of the object the value is part of.
    pub(crate) fn slot(self) -> Option<u32> {
        if let Load::Entity { slot, .. } = self { Some(slot) } else { None }
    }

    #[inline]
    pub(crate) fn get(self, row: Row<'_>) -> Value<'_> {
        match self {
            Load::Record { offset, size, kind } => record(row.record, offset, size, kind),
            Load::BootTime { offset } => match record(row.record, offset, 8, Kind::U64) {
                Value::Uint(t) if t != 0 => Value::Uint(t.wrapping_add_signed(row.batch.boot_to_wall)),
                v => v,
            },
            Load::Column(c) => row.batch.columns.get(c).map_or(Value::Missing, |c| c.value(row.index)),
            Load::Entity { slot, member } => {
                match row.batch.entity(slot, row.index).and_then(|e| e.values.get(member)) {
                    Some(EntityValue::Text(t)) => Value::Text(Cow::Borrowed(t.as_bytes())),
                    Some(EntityValue::Uint(n)) => Value::Uint(*n),
                    Some(EntityValue::Bool(b)) => Value::Bool(*b),
                    None => Value::Missing,
                }
            }
            Load::Constant(id) => row.batch.value(row.index, id),
            Load::Nothing => Value::Missing,
        }
    }

    fn uint(self, row: Row<'_>) -> u64 {
        as_u64(&self.get(row))
    }
}

/// Reads whole values straight from the record; the rare short record takes the slow way, which reads zeros.
#[inline]
fn record(bytes: &[u8], offset: usize, size: usize, kind: Kind) -> Value<'_> {
    macro_rules! whole {
        ($t:ty, $make:expr) => {
            if size >= size_of::<$t>()
                && let Some(Ok(b)) = bytes.get(offset..offset + size_of::<$t>()).map(<[u8; size_of::<$t>()]>::try_from)
            {
                return $make(<$t>::from_le_bytes(b));
            }
        };
    }
    match kind {
        Kind::U64 => whole!(u64, Value::Uint),
        Kind::U32 => whole!(u32, |x: u32| Value::Uint(x.into())),
        Kind::U16 => whole!(u16, |x: u16| Value::Uint(x.into())),
        Kind::U8 => whole!(u8, |x: u8| Value::Uint(x.into())),
        Kind::I64 => whole!(i64, Value::Int),
        Kind::I32 => whole!(i32, |x: i32| Value::Int(x.into())),
        _ => {}
    }
    let start = offset.min(bytes.len());
    let end = (offset + size).min(bytes.len());
    decode(kind, &bytes[start..end])
}

fn as_u64(value: &Value<'_>) -> u64 {
    match value {
        Value::Uint(n) => *n,
        Value::Int(n) => *n as u64,
        Value::Bool(b) => (*b).into(),
        Value::Float(f) => *f as u64,
        Value::Missing | Value::Text(_) | Value::Bytes(_) => 0,
    }
}

/// A `Derive`, ready to run.
#[derive(Clone, Debug)]
pub(crate) enum Format {
    Timestamp(time::Clock),
    Errno,
    Signal,
    Syscall(Arc<HostNames>),
    User(Arc<HostNames>),
    Group(Arc<HostNames>),
    FileMode,
    OpenFlags,
    Bytes,
    Duration,
    Enum(bits::Names),
    Bits { names: Arc<Vec<(u64, String)>>, separator: String },
    Ip { version: Load },
    IpProto,
    Endpoint { port: Load, version: Load },
}

impl Format {
    pub(crate) fn new(source: &DataSource, how: &Derive, env: &TextEnv) -> Self {
        match how {
            Derive::Timestamp => Format::Timestamp(time::Clock::new(env.zone.clone())),
            Derive::Errno => Format::Errno,
            Derive::Signal => Format::Signal,
            Derive::Syscall => Format::Syscall(env.names.clone()),
            Derive::User => Format::User(env.names.clone()),
            Derive::Group => Format::Group(env.names.clone()),
            Derive::FileMode => Format::FileMode,
            Derive::OpenFlags => Format::OpenFlags,
            Derive::Bytes => Format::Bytes,
            Derive::Duration => Format::Duration,
            Derive::Enum(names) => Format::Enum(bits::Names::new(names)),
            Derive::Bits { names, separator } => Format::Bits { names: names.clone(), separator: separator.clone() },
            Derive::Ip { version } => Format::Ip { version: Load::new(source, *version) },
            Derive::IpProto => Format::IpProto,
            Derive::Endpoint { port, version } => {
                Format::Endpoint { port: Load::new(source, *port), version: Load::new(source, *version) }
            }
        }
    }

    /// True where the text is printable ASCII that no output has to escape. Other formats show names which come from
    /// the host or the gadget, and those can be anything.
    pub(crate) fn is_plain(&self) -> bool {
        match self {
            Format::Timestamp(_)
            | Format::Errno
            | Format::Signal
            | Format::FileMode
            | Format::OpenFlags
            | Format::Bytes
            | Format::Ip { .. }
            | Format::IpProto
            | Format::Endpoint { .. } => true,
            Format::Syscall(_)
            | Format::User(_)
            | Format::Group(_)
            | Format::Duration
            | Format::Enum(_)
            | Format::Bits { .. } => false,
        }
    }

    /// Appends the text. A missing value has no text.
    pub(crate) fn write(&mut self, value: &Value<'_>, row: Row<'_>, out: &mut Vec<u8>) {
        if matches!(value, Value::Missing) {
            return;
        }
        let n = as_u64(value);
        match self {
            Format::Timestamp(clock) => clock.write(n, out),
            Format::Errno => errno::errno(n as i64, out),
            Format::Signal => errno::signal(n as i64, out),
            Format::Syscall(names) => syscall(n, names, out),
            Format::User(names) => named(n as u32, names.users.get(&(n as u32)), b"uid:", out),
            Format::Group(names) => named(n as u32, names.groups.get(&(n as u32)), b"gid:", out),
            Format::FileMode => bits::file_mode(n, out),
            Format::OpenFlags => bits::open_flags(n, out),
            Format::Bytes => signed(value, out, quantity::bytes),
            Format::Duration => signed(value, out, quantity::duration),
            Format::Enum(names) => names.write(n as i64, out),
            Format::Bits { names, separator } => bits::set(n, names, separator, out),
            Format::Ip { version } => ip(value, version.uint(row), out),
            Format::IpProto => ip::protocol(n, out),
            Format::Endpoint { port, version } => {
                let start = out.len();
                ip(value, version.uint(row), out);
                if out.len() > start {
                    out.push(b':');
                    number::uint(port.uint(row), out);
                }
            }
        }
    }
}

fn ip(value: &Value<'_>, version: u64, out: &mut Vec<u8>) {
    match value {
        Value::Bytes(b) => ip::address(b, version, out),
        Value::Text(b) => ip::address(b, version, out),
        // An IPv4 address read as one number: its bytes in memory are the address.
        v => ip::address(&(as_u64(v) as u32).to_le_bytes(), 4, out),
    }
}

fn syscall(n: u64, names: &HostNames, out: &mut Vec<u8>) {
    out.extend_from_slice(b"SYS_");
    match names.syscalls.get(&n) {
        Some(name) => out.extend(name.bytes().map(|b| b.to_ascii_uppercase())),
        None => out.extend_from_slice(b"UNKNOWN"),
    }
}

/// The highest number is no user and no group: the kernel's way to say that there is none.
fn named(n: u32, name: Option<&String>, unknown: &[u8], out: &mut Vec<u8>) {
    match name {
        None if n == u32::MAX => {}
        Some(name) => out.extend_from_slice(name.as_bytes()),
        None => {
            out.extend_from_slice(unknown);
            number::uint(n.into(), out);
        }
    }
}

fn signed(value: &Value<'_>, out: &mut Vec<u8>, write: fn(u64, &mut Vec<u8>)) {
    match value {
        Value::Int(n) if *n < 0 => {
            out.push(b'-');
            write(n.unsigned_abs(), out);
        }
        v => write(as_u64(v), out),
    }
}

/// A field as text: where its value is, and the format if it is a derived one.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    pub(crate) load: Load,
    pub(crate) format: Option<Format>,
}

impl Text {
    pub(crate) fn new(source: &DataSource, id: FieldId, env: &TextEnv) -> Self {
        let format = match &source.field(id).def.storage {
            Storage::Derived { how, .. } => Some(Format::new(source, how, env)),
            _ => None,
        };
        Text { load: Load::new(source, id), format }
    }

    /// Appends the text, unescaped: what filters and sorts compare.
    pub(crate) fn write(&mut self, row: Row<'_>, out: &mut Vec<u8>) {
        let value = self.load.get(row);
        match &mut self.format {
            Some(format) => format.write(&value, row, out),
            None => match value {
                Value::Missing => {}
                Value::Bool(b) => out.extend_from_slice(if b { b"true" } else { b"false" }),
                Value::Int(n) => number::int(n, out),
                Value::Uint(n) => number::uint(n, out),
                Value::Float(f) => number::json_float(f, out),
                Value::Text(t) => out.extend_from_slice(&t),
                Value::Bytes(b) => number::hex_bytes(b, out),
            },
        }
    }
}

/// Fields whose values the text of `id` needs: itself, and what it is derived from.
pub(crate) fn inputs(source: &DataSource, id: FieldId, into: &mut Vec<FieldId>) {
    if into.contains(&id) || source.fields().get(id.0 as usize).is_none() {
        return;
    }
    into.push(id);
    if let Storage::Derived { from, how } = &source.field(id).def.storage {
        inputs(source, *from, into);
        match how {
            Derive::Ip { version } => inputs(source, *version, into),
            Derive::Endpoint { port, version } => {
                inputs(source, *port, into);
                inputs(source, *version, into);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FieldDef, SourceKind};

    fn number_source(how: Derive) -> (Arc<DataSource>, FieldId) {
        let mut s = DataSource::new("t", SourceKind::Events, 8);
        let raw = s.add(FieldDef::new("x_raw", Kind::U64, Storage::Record { offset: 0, size: 8 })).unwrap();
        let id = s.add(FieldDef::new("x", Kind::Text, Storage::Derived { from: raw, how })).unwrap();
        (Arc::new(s), id)
    }

    fn shown(how: Derive, n: u64, env: &TextEnv) -> String {
        let (source, id) = number_source(how);
        let mut batch = Batch::new(source.clone());
        batch.push(&n.to_le_bytes());
        let mut out = Vec::new();
        Text::new(&source, id, env).write(Row::new(&batch, 0), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn names_of_the_host() {
        let mut names = HostNames::default();
        names.users.insert(0, "root".into());
        names.groups.insert(4, "adm".into());
        names.syscalls.insert(257, "openat".into());
        let env = TextEnv { names: Arc::new(names), zone: TimeZone::UTC };
        assert_eq!(shown(Derive::User, 0, &env), "root");
        assert_eq!(shown(Derive::User, u32::MAX.into(), &env), "");
        assert_eq!(shown(Derive::User, 4_000_000_000, &env), "uid:4000000000");
        assert_eq!(shown(Derive::Group, 4, &env), "adm");
        assert_eq!(shown(Derive::Group, 1000, &env), "gid:1000");
        assert_eq!(shown(Derive::Syscall, 257, &env), "SYS_OPENAT");
        assert_eq!(shown(Derive::Syscall, 9999, &env), "SYS_UNKNOWN");
        assert_eq!(shown(Derive::IpProto, 6, &env), "TCP");
        assert_eq!(shown(Derive::IpProto, 200, &env), "proto#200");
    }

    #[test]
    fn short_records_read_as_zeros_in_every_kind() {
        let (source, _) = number_source(Derive::Errno);
        let mut batch = Batch::new(source);
        batch.push(&[2]);
        let row = Row::new(&batch, 0);
        for (kind, size) in [(Kind::U64, 8), (Kind::I32, 4), (Kind::U16, 2), (Kind::I64, 8)] {
            assert_eq!(as_u64(&Load::Record { offset: 0, size, kind }.get(row)), 2, "{kind:?}");
            assert_eq!(as_u64(&Load::Record { offset: 40, size, kind }.get(row)), 0, "{kind:?}");
        }
    }

    #[test]
    fn a_circular_derivation_has_no_value() {
        let mut s = DataSource::new("t", SourceKind::Events, 8);
        let a =
            s.add(FieldDef::new("a", Kind::Text, Storage::Derived { from: FieldId(1), how: Derive::Errno })).unwrap();
        s.add(FieldDef::new("b", Kind::Text, Storage::Derived { from: a, how: Derive::Errno })).unwrap();
        assert!(matches!(Load::new(&s, a), Load::Nothing));
        let mut needed = Vec::new();
        inputs(&s, a, &mut needed);
        assert_eq!(needed, [FieldId(0), FieldId(1)]);
    }

    #[test]
    fn an_endpoint_is_address_and_port() {
        let mut s = DataSource::new("t", SourceKind::Events, 19);
        let mut add =
            |name, kind, offset, size| s.add(FieldDef::new(name, kind, Storage::Record { offset, size })).unwrap();
        let addr = add("addr_raw", Kind::Bytes, 0, 16);
        let port = add("port", Kind::U16, 16, 2);
        let version = add("version", Kind::U8, 18, 1);
        let how = Derive::Endpoint { port, version };
        let id = s.add(FieldDef::new("src", Kind::Text, Storage::Derived { from: addr, how })).unwrap();
        let source = Arc::new(s);
        let mut batch = Batch::new(source.clone());
        let mut record = [0u8; 19];
        record[16] = 80;
        record[18] = 6;
        batch.push(&record);
        record[..4].copy_from_slice(&[1, 1, 1, 1]);
        record[18] = 4;
        batch.push(&record);
        batch.push(&[]);
        let mut text = Text::new(&source, id, &TextEnv::default());
        let shown: Vec<String> = (0..3)
            .map(|i| {
                let mut out = Vec::new();
                text.write(Row::new(&batch, i), &mut out);
                String::from_utf8(out).unwrap()
            })
            .collect();
        assert_eq!(shown, [":::80", "1.1.1.1:80", ""]);
    }
}
