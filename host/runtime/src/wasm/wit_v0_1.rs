//! The interface `wit/v0.1`: wasmtime's view of it, translated to plain data. A later version is a file beside this one.
//!
//! `sink.finish` is linked by hand: its lists are read where they lie in the guest's memory. Everything else is small and
//! goes through generated code. Nothing here decides what a guest may do; `opening` and `answer` do.

use super::{
    Engine, Phase,
    answer::{AnswerError, Answering, View},
    error::Halt,
    log_gate::{Level, LogGate},
    opening::{OpenError, Opening, Wants, field_id},
};
use ig_event::{Column, DataSource, Field, Kind, SourceKind, Storage, Vars};
use std::{
    mem::take,
    sync::{Arc, Mutex},
    time::Instant,
};
use wasmtime::{
    Store, StoreContextMut,
    component::{Component, ComponentType, HasSelf, Lift, Linker, WasmList, WasmStr},
};

mod bindings {
    wasmtime::component::bindgen!({
        path: "../../wit/v0.1",
        world: "ig:gadget/decoder@0.1.0",
        ownership: Borrowing { duplicate_if_necessary: true },
    });
}

use bindings::{
    Decoder,
    exports::ig::gadget::processor,
    ig::gadget::{log, params, sources, types},
};

/// Interfaces this host offers, in any compatible version.
const OFFERED: [&str; 5] = [
    "ig:gadget/types@0.1.",
    "ig:gadget/log@0.1.",
    "ig:gadget/params@0.1.",
    "ig:gadget/sources@0.1.",
    "ig:gadget/sink@0.1.",
];

/// Bytes that a guest may make the host lift in one call.
const LIFTED: usize = 32 << 20;

pub(super) fn offers(import: &str) -> bool {
    OFFERED.iter().any(|o| import.starts_with(o))
}

/// What belongs to one instance of a guest.
pub(super) struct State {
    limits: Limits,
    /// `None` once the schema is frozen.
    pub(super) opening: Option<Opening>,
    pub(super) answering: Answering,
    params: Arc<Vec<(String, String)>>,
    log: Arc<Mutex<LogGate>>,
}

struct Limits {
    memory: usize,
    exceeded: bool,
}

impl wasmtime::ResourceLimiter for Limits {
    fn memory_growing(&mut self, _now: usize, wanted: usize, _most: Option<usize>) -> wasmtime::Result<bool> {
        if wanted <= self.memory {
            return Ok(true);
        }
        self.exceeded = true;
        Err(wasmtime::Error::msg("memory limit"))
    }

    fn table_growing(&mut self, _now: usize, wanted: usize, _most: Option<usize>) -> wasmtime::Result<bool> {
        Ok(wanted <= 100_000)
    }

    fn instances(&self) -> usize {
        64
    }

    fn tables(&self) -> usize {
        64
    }

    fn memories(&self) -> usize {
        // One for the guest; each reserves address space.
        4
    }
}

/// An error the guest returned.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) code: &'static str,
    pub(super) message: String,
}

/// How a call ended: the guest's own answer, or something that ends the instance.
pub(super) type Called = Result<Result<(), Refusal>, Halt>;

/// One instance of a guest. After a `Halt` it is poisoned: drop it.
pub(super) struct Instance {
    pub(super) store: Store<State>,
    guest: Decoder,
}

/// The rows of one call.
pub(super) struct Call<'a> {
    pub(super) source: u32,
    pub(super) rows: u32,
    pub(super) raw: &'a [u8],
    pub(super) stride: u32,
    pub(super) ends: &'a [u32],
    pub(super) columns: &'a [Column],
    pub(super) lost: u64,
}

pub(super) fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::<State>::new(&engine.wasmtime);
    Decoder::add_to_linker::<_, HasSelf<State>>(&mut linker, |s| s)?;
    linker.allow_shadowing(true);
    linker.instance("ig:gadget/sink@0.1.0")?.func_wrap("finish", finish)?;
    linker.instance("ig:gadget/sink@0.1.0")?.func_wrap("reject", reject)?;
    linker.instance("ig:gadget/sources@0.1.0")?.func_wrap("set-dictionary", set_dictionary)?;
    Ok(linker)
}

impl Instance {
    pub(super) fn new(
        engine: &Engine,
        linker: &Linker<State>,
        component: &Component,
        opening: Opening,
        params: Arc<Vec<(String, String)>>,
        log: Arc<Mutex<LogGate>>,
    ) -> Result<Self, NewError> {
        let limits = Limits { memory: engine.memory_limit, exceeded: false };
        let state = State { limits, opening: Some(opening), answering: Answering::default(), params, log };
        let mut store = Store::new(&engine.wasmtime, state);
        store.limiter(|s| &mut s.limits);
        store.set_hostcall_fuel(LIFTED);
        store.set_epoch_deadline(ticks(engine));
        let before = linker.instantiate_pre(component).map_err(NewError::Link)?;
        let before = bindings::DecoderPre::new(before).map_err(NewError::Link)?;
        match before.instantiate(&mut store) {
            Ok(guest) => Ok(Instance { store, guest }),
            Err(e) => Err(NewError::Halt(halt(&store, engine, e))),
        }
    }

    pub(super) fn lifecycle(&mut self, engine: &Engine, phase: Phase) -> Called {
        self.store.set_epoch_deadline(ticks(engine));
        let lifecycle = self.guest.ig_gadget_lifecycle();
        let returned = match phase {
            Phase::Init => lifecycle.call_init(&mut self.store),
            Phase::PreStart => lifecycle.call_pre_start(&mut self.store),
            Phase::Start => lifecycle.call_start(&mut self.store),
            Phase::Stop => lifecycle.call_stop(&mut self.store),
            Phase::PostStop => lifecycle.call_post_stop(&mut self.store),
            Phase::Instantiate | Phase::Process => return Ok(Ok(())),
        };
        self.returned(engine, returned)
    }

    /// Puts the rows to the guest. What it answers is in `State::answering`.
    pub(super) fn process(&mut self, engine: &Engine, call: &Call<'_>) -> Called {
        self.store.set_epoch_deadline(ticks(engine));
        let columns: Vec<_> = call.columns.iter().map(lend).collect();
        let batch = processor::Batch {
            source: call.source,
            rows: call.rows,
            raw: call.raw,
            stride: call.stride,
            ends: call.ends,
            columns: &columns,
            lost: call.lost,
        };
        let returned = self.guest.ig_gadget_processor().call_process(&mut self.store, batch);
        self.returned(engine, returned)
    }

    fn returned(&self, engine: &Engine, returned: wasmtime::Result<Result<(), types::Error>>) -> Called {
        match returned {
            Ok(Ok(())) => Ok(Ok(())),
            Ok(Err(e)) => {
                let end = e.message.floor_char_boundary(1024);
                Ok(Err(Refusal { code: code_name(e.code), message: e.message[..end].to_owned() }))
            }
            Err(e) => Err(halt(&self.store, engine, e)),
        }
    }
}

pub(super) enum NewError {
    Link(wasmtime::Error),
    Halt(Halt),
}

fn ticks(engine: &Engine) -> u64 {
    // One more, because the first tick can come at once.
    engine.deadline.as_millis() as u64 / super::ticker::TICK.as_millis() as u64 + 1
}

fn halt(store: &Store<State>, engine: &Engine, e: wasmtime::Error) -> Halt {
    if store.data().limits.exceeded {
        return Halt::Memory(engine.memory_limit);
    }
    match e.downcast_ref::<wasmtime::Trap>() {
        Some(wasmtime::Trap::Interrupt) => Halt::Deadline(engine.deadline),
        Some(trap) => Halt::Trap(*trap),
        None => Halt::Call(e),
    }
}

// Views of the same types, which copy nothing (but floats, for which wasmtime has no such view).

#[derive(ComponentType, Lift)]
#[component(record)]
struct VarsList {
    ends: WasmList<u32>,
    data: WasmList<u8>,
}

#[derive(ComponentType, Lift)]
#[component(variant)]
enum ColumnList {
    #[component(name = "u8s")]
    U8s(WasmList<u8>),
    #[component(name = "u16s")]
    U16s(WasmList<u16>),
    #[component(name = "u32s")]
    U32s(WasmList<u32>),
    #[component(name = "u64s")]
    U64s(WasmList<u64>),
    #[component(name = "s8s")]
    S8s(WasmList<i8>),
    #[component(name = "s16s")]
    S16s(WasmList<i16>),
    #[component(name = "s32s")]
    S32s(WasmList<i32>),
    #[component(name = "s64s")]
    S64s(WasmList<i64>),
    #[component(name = "f32s")]
    F32s(Vec<f32>),
    #[component(name = "f64s")]
    F64s(Vec<f64>),
    #[component(name = "bits")]
    Bits(WasmList<u8>),
    #[component(name = "fixed")]
    Fixed(WasmList<u8>),
    #[component(name = "text")]
    Text(VarsList),
    #[component(name = "bytes")]
    Bytes(VarsList),
    #[component(name = "codes")]
    Codes(WasmList<u16>),
}

impl ColumnList {
    fn view<'a>(&'a self, cx: &'a StoreContextMut<'_, State>) -> View<'a> {
        match self {
            ColumnList::U8s(v) => View::U8(v.as_le_slice(cx)),
            ColumnList::U16s(v) => View::U16(v.as_le_slice(cx)),
            ColumnList::U32s(v) => View::U32(v.as_le_slice(cx)),
            ColumnList::U64s(v) => View::U64(v.as_le_slice(cx)),
            ColumnList::S8s(v) => View::I8(v.as_le_slice(cx)),
            ColumnList::S16s(v) => View::I16(v.as_le_slice(cx)),
            ColumnList::S32s(v) => View::I32(v.as_le_slice(cx)),
            ColumnList::S64s(v) => View::I64(v.as_le_slice(cx)),
            ColumnList::F32s(v) => View::F32(v),
            ColumnList::F64s(v) => View::F64(v),
            ColumnList::Bits(v) => View::Bits(v.as_le_slice(cx)),
            ColumnList::Fixed(v) => View::Fixed(v.as_le_slice(cx)),
            ColumnList::Text(v) => View::Text { ends: v.ends.as_le_slice(cx), data: v.data.as_le_slice(cx) },
            ColumnList::Bytes(v) => View::Bytes { ends: v.ends.as_le_slice(cx), data: v.data.as_le_slice(cx) },
            ColumnList::Codes(v) => View::Codes(v.as_le_slice(cx)),
        }
    }
}

type WitResult = Result<(), types::Error>;

fn finish(
    mut cx: StoreContextMut<'_, State>,
    (keep, columns): (WasmList<u8>, Vec<ColumnList>),
) -> wasmtime::Result<(WitResult,)> {
    let mut answering = take(&mut cx.data_mut().answering);
    let views: Vec<_> = columns.iter().map(|c| c.view(&cx)).collect();
    let finished = answering.finish(keep.as_le_slice(&cx), &views);
    drop(views);
    let told = finished.as_ref().copied().map_err(invalid);
    note_wrong(&mut answering, finished);
    cx.data_mut().answering = answering;
    Ok((told,))
}

fn reject(mut cx: StoreContextMut<'_, State>, (row, reason): (u32, WasmStr)) -> wasmtime::Result<()> {
    let reason = reason.to_str(&cx)?;
    let reason = reason[..reason.floor_char_boundary(256)].to_owned();
    let answering = &mut cx.data_mut().answering;
    let rejected = answering.reject(row, reason);
    note_wrong(answering, rejected);
    Ok(())
}

fn set_dictionary(
    mut cx: StoreContextMut<'_, State>,
    (field, values): (u32, WasmList<WasmStr>),
) -> wasmtime::Result<(WitResult,)> {
    let Some(mut opening) = cx.data_mut().opening.take() else { return Ok((Err(frozen()),)) };
    let mut broken = None;
    let strings: Vec<_> = values.iter(&mut cx)?.take(1 << 17).collect::<wasmtime::Result<_>>()?;
    let texts = strings.iter().map_while(|s| match s.to_str(&cx) {
        Ok(text) => Some(text.into_owned()),
        Err(e) => {
            broken = Some(e);
            None
        }
    });
    let done = opening.set_dictionary(field, texts);
    cx.data_mut().opening = Some(opening);
    broken.map_or_else(|| Ok((done.map_err(refused),)), Err)
}

/// Keeps the first thing that was wrong.
fn note_wrong(answering: &mut Answering, result: Result<(), AnswerError>) {
    if let Err(e) = result {
        answering.wrong.get_or_insert(e);
    }
}

impl types::Host for State {}

impl log::Host for State {
    fn enabled(&mut self, level: log::Level) -> bool {
        self.log.lock().is_ok_and(|gate| level_of(level) <= gate.level)
    }

    fn log(&mut self, level: log::Level, message: String) {
        if let Ok(mut gate) = self.log.lock() {
            gate.say(Instant::now(), level_of(level), &message);
        }
    }
}

impl params::Host for State {
    fn get(&mut self, key: String) -> Option<String> {
        self.params.iter().find(|(k, _)| *k == key).map(|(_, v)| v.clone())
    }

    fn all(&mut self) -> Vec<(String, String)> {
        self.params.to_vec()
    }
}

impl bindings::ig::gadget::sink::Host for State {
    // Both are shadowed by functions that read the lists in place; see `linker`.
    fn finish(&mut self, _keep: Vec<u8>, _columns: Vec<bindings::ig::gadget::sink::Column>) -> WitResult {
        Err(invalid(&AnswerError::NotAsked))
    }

    fn reject(&mut self, _row: u32, _reason: String) {}
}

impl State {
    fn open<T>(&mut self, f: impl FnOnce(&mut Opening) -> Result<T, OpenError>) -> Result<T, types::Error> {
        self.opening.as_mut().map_or_else(|| Err(frozen()), |o| f(o).map_err(refused))
    }
}

impl sources::Host for State {
    fn get(&mut self, name: String) -> Result<sources::SourceInfo, types::Error> {
        self.open(|o| o.source(&name).map(|(id, s)| source_info(id, s)))
    }

    fn add_field(&mut self, source: u32, def: types::FieldDef) -> Result<u32, types::Error> {
        self.open(|o| o.add_field(source, &def.name, kind_from(def.kind), def.tags, def.annotations))
    }

    fn set_dictionary(&mut self, _field: u32, _values: Vec<String>) -> WitResult {
        // Shadowed, as those of the sink are.
        Err(frozen())
    }

    fn hide_field(&mut self, field: u32) -> WitResult {
        self.open(|o| o.hide_field(field))
    }

    fn subscribe(&mut self, source: u32, want: sources::Want, provides: Vec<u32>, max_rows: u32) -> WitResult {
        let (raw, columns) = match want {
            sources::Want::Raw => (true, Vec::new()),
            sources::Want::Columns(c) => (false, c),
            sources::Want::Both(c) => (true, c),
        };
        self.open(|o| o.subscribe(source, raw, &columns, provides, max_rows))
    }
}

impl Wants {
    /// Records as the guest asked for them: none if it only wants columns.
    pub(super) fn raw_of<'a>(&self, raw: &'a [u8]) -> &'a [u8] {
        if self.raw { raw } else { &[] }
    }
}

fn source_info(id: u32, source: &DataSource) -> sources::SourceInfo {
    let field = |f: &Field| {
        let (offset, size) = match f.def.storage {
            Storage::Record { offset, size } => (Some(offset), size),
            Storage::BootTime { offset } => (Some(offset), 8),
            Storage::Column(_)
            | Storage::Entity { .. }
            | Storage::Constant(_)
            | Storage::Derived { .. }
            | Storage::Group => (None, f.def.kind.size().unwrap_or(0)),
        };
        let def = types::FieldDef {
            name: f.full_name.clone(),
            kind: kind_to(f.def.kind),
            tags: f.def.tags.clone(),
            annotations: f.def.annotations.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        };
        types::FieldInfo { id: field_id(id, f.id), def, offset, size }
    };
    let kind = match source.kind {
        SourceKind::Events => types::SourceKind::Events,
        SourceKind::Snapshot => types::SourceKind::Snapshot,
    };
    sources::SourceInfo { id, kind, stride: source.record_size, fields: source.fields().iter().map(field).collect() }
}

/// A column on its way to the guest.
fn lend(column: &Column) -> processor::Column<'_> {
    use processor::Column as C;
    fn vars(v: &Vars) -> types::VarsParam<'_> {
        types::VarsParam { ends: &v.ends, data: &v.data }
    }
    match column {
        Column::U8(v) => C::U8s(v),
        Column::U16(v) => C::U16s(v),
        Column::U32(v) => C::U32s(v),
        Column::U64(v) => C::U64s(v),
        Column::I8(v) => C::S8s(v),
        Column::I16(v) => C::S16s(v),
        Column::I32(v) => C::S32s(v),
        Column::I64(v) => C::S64s(v),
        Column::F32(v) => C::F32s(v),
        Column::F64(v) => C::F64s(v),
        Column::Bits(v) => C::Bits(v),
        Column::Fixed { data, .. } => C::Fixed(data),
        Column::Text(v) => C::Text(vars(v)),
        Column::Bytes(v) => C::Bytes(vars(v)),
        Column::Codes { codes, .. } => C::Codes(codes),
        Column::Empty => C::Fixed(&[]),
    }
}

fn error(code: types::ErrorCode, message: String) -> types::Error {
    types::Error { code, message }
}

fn invalid(e: &AnswerError) -> types::Error {
    error(types::ErrorCode::Invalid, format!("the gadget {e}"))
}

fn frozen() -> types::Error {
    error(types::ErrorCode::Busy, "the schema is frozen since pre-start".into())
}

fn refused(e: OpenError) -> types::Error {
    let code = match &e {
        OpenError::NoSource { .. }
        | OpenError::NoSourceId { .. }
        | OpenError::NoField { .. }
        | OpenError::NoParent { .. } => types::ErrorCode::NotFound,
        OpenError::NotOwn { .. } => types::ErrorCode::Denied,
        OpenError::TooMany { .. } => types::ErrorCode::Exhausted,
        OpenError::Taken { .. }
        | OpenError::NoText { .. }
        | OpenError::BadName { .. }
        | OpenError::OtherSource { .. }
        | OpenError::Subscribed { .. } => types::ErrorCode::Invalid,
    };
    error(code, e.to_string())
}

fn code_name(code: types::ErrorCode) -> &'static str {
    match code {
        types::ErrorCode::NotFound => "not-found",
        types::ErrorCode::Invalid => "invalid",
        types::ErrorCode::Denied => "denied",
        types::ErrorCode::Busy => "busy",
        types::ErrorCode::Exhausted => "exhausted",
        types::ErrorCode::Unsupported => "unsupported",
        types::ErrorCode::Kernel => "kernel",
        types::ErrorCode::Other => "other",
    }
}

fn level_of(level: log::Level) -> Level {
    match level {
        log::Level::Error => Level::Error,
        log::Level::Warn => Level::Warn,
        log::Level::Info => Level::Info,
        log::Level::Debug => Level::Debug,
        log::Level::Trace => Level::Trace,
    }
}

macro_rules! kinds {
    ($($wit:ident = $ours:ident),* $(,)?) => {
        fn kind_from(kind: types::Kind) -> Kind {
            match kind { $(types::Kind::$wit => Kind::$ours),* }
        }

        fn kind_to(kind: Kind) -> types::Kind {
            match kind { $(Kind::$ours => types::Kind::$wit),* }
        }
    };
}

kinds! {
    Boolean = Bool, Int8 = I8, Int16 = I16, Int32 = I32, Int64 = I64, Uint8 = U8, Uint16 = U16, Uint32 = U32,
    Uint64 = U64, Float32 = F32, Float64 = F64, Text = Text, Cstring = CString, Bytes = Bytes,
}
