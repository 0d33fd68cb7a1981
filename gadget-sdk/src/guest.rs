//! The boundary: the exports of `wit/v0.1` over a [`Decoder`]. Only in a guest; a guest has one thread.

use crate::{
    Answer, Decoder, Error, ErrorCode, FieldDef, Kind, Level, Rows, Setup,
    answer::ColumnData,
    schema::{FieldInfo, Host, SourceInfo},
};
use std::{marker::PhantomData, mem::take};

pub mod bindings {
    wit_bindgen::generate!({
        path: "../wit/v0.1",
        world: "ig:gadget/gadget@0.1.0",
        pub_export_macro: true,
        default_bindings_module: "gadget_sdk::guest::bindings",
    });
}

use bindings::{
    exports::ig::gadget::{lifecycle, processor, timer},
    ig::gadget::{
        containers, documents, kernel, ledger, log as wit_log, maps, maps_write, params, perf, sink, sources, types,
    },
};

pub fn log(level: Level, message: &str) {
    let level = match level {
        Level::Error => wit_log::Level::Error,
        Level::Warn => wit_log::Level::Warn,
        Level::Info => wit_log::Level::Info,
        Level::Debug => wit_log::Level::Debug,
        Level::Trace => wit_log::Level::Trace,
    };
    if wit_log::enabled(level) {
        wit_log::log(level, message);
    }
}

pub(crate) fn param(key: &str) -> Option<String> {
    params::get(key)
}

/// An opened decoder and its buffers, by source.
pub struct Running<D> {
    decoder: D,
    answers: Vec<Answer>,
    /// What crosses the boundary; its lists are lent by the answer for the call.
    columns: Vec<types::Column>,
}

/// Gives access to the one instance; `export!` implements it.
pub trait Exported: Decoder + 'static {
    fn with<R>(f: impl FnOnce(&mut Option<Running<Self>>) -> R) -> R;
}

pub struct Adaptor<D>(PhantomData<D>);

impl<D: Exported> lifecycle::Guest for Adaptor<D> {
    fn init() -> Result<(), types::Error> {
        let mut setup = Setup::new(Box::new(Boundary));
        let decoder = D::open(&mut setup).map_err(to_wit)?;
        let answers = setup.finish().map_err(to_wit)?;
        D::with(|state| *state = Some(Running { decoder, answers, columns: Vec::new() }));
        Ok(())
    }

    fn pre_start() -> Result<(), types::Error> {
        Ok(())
    }

    fn start() -> Result<(), types::Error> {
        D::with(|state| state.as_mut().map_or(Ok(()), |s| s.decoder.start().map_err(to_wit)))
    }

    fn stop() -> Result<(), types::Error> {
        D::with(|state| state.as_mut().map_or(Ok(()), |s| s.decoder.stop().map_err(to_wit)))
    }

    fn post_stop() -> Result<(), types::Error> {
        D::with(|state| *state = None);
        Ok(())
    }
}

impl<D: Exported> timer::Guest for Adaptor<D> {
    fn interval_ms() -> u32 {
        D::with(|state| state.as_ref().map_or(0, |s| s.decoder.interval_ms()))
    }

    fn tick() -> Result<(), types::Error> {
        D::with(|state| state.as_mut().map_or(Ok(()), |s| s.decoder.tick().map_err(to_wit)))
    }
}

/// What the host offers besides rows; each function is an import of its own, which a component has only if it calls it.
pub(crate) mod boundary {
    use super::{Error, containers, documents, from_wit, kernel, ledger, maps, maps_write, perf};
    use crate::host::{Abi, Container, Document, MapInfo, Owner, SyscallParam, Update, WhenFull};

    pub struct Map(maps::BpfMap);

    pub fn publish(document: &Document) -> Result<(), Error> {
        /// Bytes that cross the boundary in one call.
        const CHUNK: usize = 1 << 20;
        let d = documents::Document::new(&document.name, &document.media_type);
        for (key, value) in &document.annotations {
            d.annotate(key, value).map_err(from_wit)?;
        }
        document.text.as_bytes().chunks(CHUNK).try_for_each(|chunk| d.write(chunk)).map_err(from_wit)?;
        d.publish().map_err(from_wit)
    }

    impl Map {
        pub fn open(name: &str) -> Result<Map, Error> {
            maps::open(name).map(Map).map_err(from_wit)
        }

        pub fn info(&self) -> MapInfo {
            let i = self.0.info();
            MapInfo { key_size: i.key_size, value_size: i.value_size, max_entries: i.max_entries, cpus: i.cpus }
        }

        pub fn lookup(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
            self.0.lookup(key).map_err(from_wit)
        }

        pub fn scan(&self, after: Option<&[u8]>, max: u32) -> Result<(Vec<u8>, Vec<u8>), Error> {
            self.0.scan(after, max).map_err(from_wit)
        }

        pub fn update(&self, key: &[u8], value: &[u8], how: Update) -> Result<(), Error> {
            let mode = match how {
                Update::Any => maps_write::Mode::Any,
                Update::OnlyNew => maps_write::Mode::OnlyNew,
                Update::OnlyExisting => maps_write::Mode::OnlyExisting,
            };
            maps_write::update(&self.0, key, value, mode).map_err(from_wit)
        }

        pub fn delete(&self, key: &[u8]) -> Result<bool, Error> {
            maps_write::delete(&self.0, key).map_err(from_wit)
        }

        pub fn perf_buffers(&self, bytes: u32, full: WhenFull) -> Result<PerfReader, Error> {
            let full = match full {
                WhenFull::LoseNew => perf::WhenFull::LoseNew,
                WhenFull::OverwriteOld => perf::WhenFull::OverwriteOld,
            };
            perf::open(&self.0, bytes, full).map(PerfReader).map_err(from_wit)
        }
    }

    pub struct PerfReader(perf::Reader);

    impl PerfReader {
        /// Records, where each ends, and how many were lost.
        pub fn drain(&self, max_bytes: u32) -> Result<(Vec<u8>, Vec<u32>, u64), Error> {
            self.0.drain(max_bytes).map(|r| (r.data, r.ends, r.lost)).map_err(from_wit)
        }
    }

    pub fn lost(count: u64) {
        ledger::lost(count);
    }

    pub fn owner(mntns: u64, boot_ns: u64) -> Owner {
        let c = match containers::by_mntns(mntns, boot_ns) {
            containers::Owner::Container(c) => c,
            containers::Owner::Nobody => return Owner::Nobody,
            containers::Owner::LeftOut => return Owner::LeftOut,
            containers::Owner::Doubtful => return Owner::Doubtful,
        };
        Owner::Container(Container {
            id: c.id,
            name: c.name,
            runtime: c.runtime,
            image: c.image,
            pod_namespace: c.pod_namespace,
            pod_name: c.pod_name,
            pod_labels: c.pod_labels,
        })
    }

    pub fn arch() -> String {
        kernel::arch()
    }

    pub fn syscall_names(abi: Abi) -> Vec<String> {
        kernel::syscall_names(match abi {
            Abi::Native => kernel::Abi::Native,
            Abi::Compat => kernel::Abi::Compat,
        })
    }

    pub fn syscall_params(name: &str) -> Option<Vec<SyscallParam>> {
        let params = kernel::syscall_params(name)?;
        let one = |p: kernel::SyscallParam| SyscallParam { name: p.name, type_name: p.type_name, pointer: p.pointer };
        Some(params.into_iter().map(one).collect())
    }

    pub fn errno_names() -> Vec<String> {
        kernel::errno_names()
    }
}

impl<D: Exported> processor::Guest for Adaptor<D> {
    fn process(b: processor::Batch) -> Result<(), types::Error> {
        D::with(|state| {
            let not_open = || to_wit(Error::new(ErrorCode::Invalid, "a batch came before init"));
            let state = state.as_mut().ok_or_else(not_open)?;
            let answer = state.answers.iter_mut().find(|a| a.source() == b.source).ok_or_else(not_open)?;
            let rows = Rows::new(b.source, b.rows as usize, &b.raw, b.stride as usize, &b.ends, b.lost);
            answer.begin(rows.len());
            state.decoder.decode(&rows, answer).and_then(|()| answer.complete()).map_err(to_wit)?;
            send(answer, &mut state.columns)
        })
    }
}

fn send(answer: &mut Answer, lent: &mut Vec<types::Column>) -> Result<(), types::Error> {
    let (keep, columns, rejected) = answer.parts();
    for (row, reason) in rejected {
        sink::reject(*row, reason);
    }
    lent.clear();
    lent.extend(columns.iter_mut().map(lend));
    let answered = sink::finish(keep, lent);
    for (column, lent) in columns.iter_mut().zip(lent.drain(..)) {
        give_back(column, lent);
    }
    answered
}

/// Moves the lists, not what is in them.
fn lend(column: &mut ColumnData) -> types::Column {
    let vars = |v: &mut crate::answer::TextData| types::Vars { ends: take(&mut v.ends), data: take(&mut v.data) };
    match column {
        ColumnData::U8(v) => types::Column::U8s(take(v)),
        ColumnData::U16(v) => types::Column::U16s(take(v)),
        ColumnData::U32(v) => types::Column::U32s(take(v)),
        ColumnData::U64(v) => types::Column::U64s(take(v)),
        ColumnData::S8(v) => types::Column::S8s(take(v)),
        ColumnData::S16(v) => types::Column::S16s(take(v)),
        ColumnData::S32(v) => types::Column::S32s(take(v)),
        ColumnData::S64(v) => types::Column::S64s(take(v)),
        ColumnData::F32(v) => types::Column::F32s(take(v)),
        ColumnData::F64(v) => types::Column::F64s(take(v)),
        ColumnData::Text(v) => types::Column::Text(vars(v)),
        ColumnData::Bytes(v) => types::Column::Bytes(vars(v)),
        ColumnData::Codes(v) => types::Column::Codes(take(v)),
    }
}

fn give_back(column: &mut ColumnData, lent: types::Column) {
    match (column, lent) {
        (ColumnData::U8(v), types::Column::U8s(l)) => *v = l,
        (ColumnData::U16(v), types::Column::U16s(l)) | (ColumnData::Codes(v), types::Column::Codes(l)) => *v = l,
        (ColumnData::U32(v), types::Column::U32s(l)) => *v = l,
        (ColumnData::U64(v), types::Column::U64s(l)) => *v = l,
        (ColumnData::S8(v), types::Column::S8s(l)) => *v = l,
        (ColumnData::S16(v), types::Column::S16s(l)) => *v = l,
        (ColumnData::S32(v), types::Column::S32s(l)) => *v = l,
        (ColumnData::S64(v), types::Column::S64s(l)) => *v = l,
        (ColumnData::F32(v), types::Column::F32s(l)) => *v = l,
        (ColumnData::F64(v), types::Column::F64s(l)) => *v = l,
        (ColumnData::Text(v), types::Column::Text(l)) | (ColumnData::Bytes(v), types::Column::Bytes(l)) => {
            (v.ends, v.data) = (l.ends, l.data);
        }
        _ => unreachable!("lend made this column"),
    }
}

struct Boundary;

impl Host for Boundary {
    fn source(&mut self, name: &str) -> Result<SourceInfo, Error> {
        let info = sources::get(name).map_err(from_wit)?;
        let field = |f: types::FieldInfo| FieldInfo {
            id: f.id,
            name: f.def.name,
            kind: kind_from(f.def.kind),
            offset: f.offset,
            size: f.size,
        };
        Ok(SourceInfo { id: info.id, fields: info.fields.into_iter().map(field).collect() })
    }

    fn add_field(&mut self, source: u32, def: &FieldDef, kind: Kind) -> Result<u32, Error> {
        let def = types::FieldDef {
            name: def.name.clone(),
            kind: kind_to(kind),
            tags: def.tags.clone(),
            annotations: def.annotations.clone(),
        };
        sources::add_field(source, &def).map_err(from_wit)
    }

    fn set_dictionary(&mut self, field: u32, values: &[&str]) -> Result<(), Error> {
        let values: Vec<String> = values.iter().map(|v| (*v).to_owned()).collect();
        sources::set_dictionary(field, &values).map_err(from_wit)
    }

    fn hide_field(&mut self, field: u32) -> Result<(), Error> {
        sources::hide_field(field).map_err(from_wit)
    }

    fn subscribe(&mut self, source: u32, provides: &[u32]) -> Result<(), Error> {
        sources::subscribe(source, &sources::Want::Raw, provides, 0).map_err(from_wit)
    }
}

macro_rules! same_names {
    ($($sdk:ident = $wit:ident),* $(,)?; $($code:ident),* $(,)?) => {
        fn kind_from(kind: types::Kind) -> Kind {
            match kind { $(types::Kind::$wit => Kind::$sdk),* }
        }

        fn kind_to(kind: Kind) -> types::Kind {
            match kind { $(Kind::$sdk => types::Kind::$wit),* }
        }

        fn to_wit(e: Error) -> types::Error {
            let code = match e.code { $(ErrorCode::$code => types::ErrorCode::$code),* };
            types::Error { code, message: e.message }
        }

        fn from_wit(e: types::Error) -> Error {
            let code = match e.code { $(types::ErrorCode::$code => ErrorCode::$code),* };
            Error { code, message: e.message }
        }
    };
}

same_names! {
    Bool = Boolean, Int8 = Int8, Int16 = Int16, Int32 = Int32, Int64 = Int64,
    Uint8 = Uint8, Uint16 = Uint16, Uint32 = Uint32, Uint64 = Uint64,
    Float32 = Float32, Float64 = Float64, Text = Text, CString = Cstring, Bytes = Bytes;
    NotFound, Invalid, Denied, Busy, Exhausted, Unsupported, Kernel, Other,
}
