//! The interface `wit/v0.1`: wasmtime's view of it, translated to plain data. A later version is a file beside this one.
//!
//! `sink.finish` is linked by hand: its lists are read where they lie in the guest's memory. Everything else is small and
//! goes through generated code. Nothing here decides what a guest may do; `opening`, `answer` and `services` do.
//!
//! One file an interface: `sink`, `schema` (sources), `documents`, `maps` (also
//! `maps-write`), `perf`, `facts` (kernel and containers). `log`, `params` and `ledger` are small enough to be here.

mod documents;
mod facts;
mod maps;
mod perf;
mod schema;
mod sink;

use super::{
    Engine, Phase,
    answer::{AnswerError, Answering},
    error::Halt,
    log_gate::{Level, LogGate},
    opening::Opening,
    services::{Published, ServiceError, Services},
    ticker::TICK,
};
use ig_event::Column;
use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use wasmtime::{
    Store, UpdateDeadline,
    component::{Component, HasSelf, InstancePre, Linker, ResourceTable},
};

mod bindings {
    wasmtime::component::bindgen!({
        path: "../../wit/v0.1",
        world: "ig:gadget/gadget@0.1.0",
        ownership: Borrowing { duplicate_if_necessary: true },
        with: {
            "ig:gadget/documents.document": crate::wasm::services::Draft,
            "ig:gadget/maps.bpf-map": crate::wasm::services::OpenMap,
            "ig:gadget/perf.reader": crate::wasm::services::PerfBuffers,
        },
        imports: {
            "ig:gadget/documents.[constructor]document": trappable,
            "ig:gadget/documents.[method]document.annotate": trappable,
            "ig:gadget/documents.[method]document.write": trappable,
            "ig:gadget/documents.[method]document.publish": trappable,
            "ig:gadget/maps.[method]bpf-map.info": trappable,
            "ig:gadget/maps.[method]bpf-map.lookup": trappable,
            "ig:gadget/maps.[method]bpf-map.scan": trappable,
            "ig:gadget/maps.open": trappable,
            "ig:gadget/maps-write.update": trappable,
            "ig:gadget/maps-write.delete": trappable,
            "ig:gadget/perf.[method]reader.drain": trappable,
            "ig:gadget/perf.open": trappable,
        },
    });
}

use bindings::{
    exports::ig::gadget::{lifecycle, processor, timer},
    ig::gadget::{ledger, log, params, sources, types},
};

/// Interfaces this host offers, in any compatible version.
const OFFERED: [&str; 12] = [
    "ig:gadget/types@0.1.",
    "ig:gadget/log@0.1.",
    "ig:gadget/params@0.1.",
    "ig:gadget/sources@0.1.",
    "ig:gadget/sink@0.1.",
    "ig:gadget/documents@0.1.",
    "ig:gadget/maps@0.1.",
    "ig:gadget/maps-write@0.1.",
    "ig:gadget/perf@0.1.",
    "ig:gadget/ledger@0.1.",
    "ig:gadget/kernel@0.1.",
    "ig:gadget/containers@0.1.",
];

/// Bytes that a guest may make the host lift in one call.
const LIFTED: usize = 32 << 20;

/// Things of the host that a guest may hold at once.
const MOST_HANDLES: usize = 1024;

/// A guest that asks to be called more often than this is not.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(100);

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
    services: Arc<Services>,
    /// What of the host the guest holds a handle to.
    table: ResourceTable,
    /// Bytes of documents that are not published.
    drafted: usize,
    /// Documents of the present call.
    published: Published,
    /// Processor time of the thread at which the present call ends, once its deadline has passed.
    grace: Option<Duration>,
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

type WitResult = Result<(), types::Error>;

/// One instance of a guest. After a `Halt` it is poisoned: drop it.
pub(super) struct Instance {
    pub(super) store: Store<State>,
    lifecycle: lifecycle::Guest,
    processor: Option<processor::Guest>,
    timer: Option<timer::Guest>,
}

/// What a new instance is given.
pub(super) struct Equipment {
    pub(super) opening: Opening,
    pub(super) params: Arc<Vec<(String, String)>>,
    pub(super) log: Arc<Mutex<LogGate>>,
    pub(super) services: Arc<Services>,
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
    bindings::Gadget::add_to_linker::<_, HasSelf<State>>(&mut linker, |s| s)?;
    linker.allow_shadowing(true);
    linker.instance("ig:gadget/sink@0.1.0")?.func_wrap("finish", sink::finish)?;
    linker.instance("ig:gadget/sink@0.1.0")?.func_wrap("reject", sink::reject)?;
    linker.instance("ig:gadget/sources@0.1.0")?.func_wrap("set-dictionary", schema::set_dictionary)?;
    Ok(linker)
}

/// Where the exports are that a guest may leave out; one that is there must be of the right type.
struct Optional {
    processor: Option<processor::GuestIndices>,
    timer: Option<timer::GuestIndices>,
}

impl Optional {
    fn of(component: &Component, before: &InstancePre<State>) -> wasmtime::Result<Optional> {
        let has = |name: &str| component.get_export_index(None, name).is_some();
        Ok(Optional {
            processor: has("ig:gadget/processor@0.1.0").then(|| processor::GuestIndices::new(before)).transpose()?,
            timer: has("ig:gadget/timer@0.1.0").then(|| timer::GuestIndices::new(before)).transpose()?,
        })
    }
}

impl Instance {
    pub(super) fn new(
        engine: &Engine,
        linker: &Linker<State>,
        component: &Component,
        equipment: Equipment,
    ) -> Result<Self, NewError> {
        let Equipment { opening, params, log, services } = equipment;
        let mut table = ResourceTable::new();
        table.set_max_capacity(MOST_HANDLES);
        let state = State {
            limits: Limits { memory: engine.memory_limit, exceeded: false },
            opening: Some(opening),
            answering: Answering::default(),
            params,
            log,
            services,
            table,
            drafted: 0,
            published: Published::default(),
            grace: None,
        };
        let mut store = Store::new(&engine.wasmtime, state);
        store.limiter(|s| &mut s.limits);
        store.set_hostcall_fuel(LIFTED);
        let deadline = engine.deadline;
        store.epoch_deadline_callback(move |mut context| late(&mut context.data_mut().grace, deadline));
        begin(&mut store, engine);
        let before = linker.instantiate_pre(component).map_err(NewError::Link)?;
        let lifecycle = lifecycle::GuestIndices::new(&before).map_err(NewError::Link)?;
        let optional = Optional::of(component, &before).map_err(NewError::Link)?;
        let instance = match before.instantiate(&mut store) {
            Ok(instance) => instance,
            Err(e) => return Err(NewError::Halt(halt(&store, engine, e))),
        };
        let lifecycle = lifecycle.load(&mut store, &instance).map_err(NewError::Link)?;
        let processor = optional.processor.map(|p| p.load(&mut store, &instance));
        let timer = optional.timer.map(|t| t.load(&mut store, &instance));
        Ok(Instance {
            lifecycle,
            processor: processor.transpose().map_err(NewError::Link)?,
            timer: timer.transpose().map_err(NewError::Link)?,
            store,
        })
    }

    pub(super) fn lifecycle(&mut self, engine: &Engine, phase: Phase) -> Called {
        begin(&mut self.store, engine);
        let lifecycle = &self.lifecycle;
        let returned = match phase {
            Phase::Init => lifecycle.call_init(&mut self.store),
            Phase::PreStart => lifecycle.call_pre_start(&mut self.store),
            Phase::Start => lifecycle.call_start(&mut self.store),
            Phase::Stop => lifecycle.call_stop(&mut self.store),
            Phase::PostStop => lifecycle.call_post_stop(&mut self.store),
            Phase::Instantiate | Phase::Process | Phase::Tick => return Ok(Ok(())),
        };
        self.returned(engine, returned)
    }

    /// Puts the rows to the guest. What it answers is in `State::answering`.
    pub(super) fn process(&mut self, engine: &Engine, call: &Call<'_>) -> Called {
        begin(&mut self.store, engine);
        let Some(processor) = &self.processor else { return Ok(Err(missing("processor"))) };
        let columns: Vec<_> = call.columns.iter().map(sink::lend).collect();
        let batch = processor::Batch {
            source: call.source,
            rows: call.rows,
            raw: call.raw,
            stride: call.stride,
            ends: call.ends,
            columns: &columns,
            lost: call.lost,
        };
        let returned = processor.call_process(&mut self.store, batch);
        self.returned(engine, returned)
    }

    /// How often the guest wants to be called; `None`: never.
    pub(super) fn interval(&mut self, engine: &Engine) -> Result<Option<Duration>, Halt> {
        let Some(timer) = &self.timer else { return Ok(None) };
        begin(&mut self.store, engine);
        match timer.call_interval_ms(&mut self.store) {
            Ok(0) => Ok(None),
            Ok(ms) => Ok(Some(Duration::from_millis(ms.into()).max(SHORTEST_INTERVAL))),
            Err(e) => Err(halt(&self.store, engine, e)),
        }
    }

    pub(super) fn tick(&mut self, engine: &Engine) -> Called {
        let Some(timer) = &self.timer else { return Ok(Ok(())) };
        begin(&mut self.store, engine);
        let returned = timer.call_tick(&mut self.store);
        self.returned(engine, returned)
    }

    /// What the last call has published.
    pub(super) fn take_published(&mut self) -> Published {
        std::mem::take(&mut self.store.data_mut().published)
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

fn missing(export: &str) -> Refusal {
    Refusal { code: "unsupported", message: format!("the gadget does not export {export}") }
}

pub(super) enum NewError {
    Link(wasmtime::Error),
    Halt(Halt),
}

/// Before each call of the guest's.
fn begin(store: &mut Store<State>, engine: &Engine) {
    store.data_mut().grace = None;
    // One more, because the first tick can come at once.
    store.set_epoch_deadline(engine.deadline.as_millis() as u64 / TICK.as_millis() as u64 + 1);
}

/// A call has outlived its deadline. On a machine that is busy it may hardly have run: it gets as much processor time
/// again, counted from here, so that the clock of the processor is read by calls that are late and by no other.
fn late(grace: &mut Option<Duration>, deadline: Duration) -> wasmtime::Result<UpdateDeadline> {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let now = Duration::new(t.tv_sec.unsigned_abs(), t.tv_nsec.unsigned_abs() as u32);
    if now >= *grace.get_or_insert(now + deadline) {
        return Err(wasmtime::Trap::Interrupt.into());
    }
    Ok(UpdateDeadline::Continue(1))
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

impl ledger::Host for State {
    fn lost(&mut self, count: u64) {
        self.services.lose(count);
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

fn error(code: types::ErrorCode, message: String) -> types::Error {
    types::Error { code, message }
}

fn invalid(e: &AnswerError) -> types::Error {
    error(types::ErrorCode::Invalid, format!("the gadget {e}"))
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

fn service_error(e: ServiceError) -> types::Error {
    let code = match &e {
        ServiceError::TooMuch { .. } => types::ErrorCode::Exhausted,
        ServiceError::NotText { .. } | ServiceError::Length { .. } | ServiceError::BufferSize { .. } => {
            types::ErrorCode::Invalid
        }
        ServiceError::NoMap { .. } => types::ErrorCode::NotFound,
        ServiceError::NoMaps | ServiceError::MapKind { .. } => types::ErrorCode::Unsupported,
        ServiceError::HostsMap { .. } => types::ErrorCode::Denied,
        ServiceError::ReadAlready { .. } => types::ErrorCode::Busy,
        ServiceError::Map { .. } => types::ErrorCode::Kernel,
    };
    error(code, e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_call_ends_by_the_time_it_has_run_not_by_that_of_the_clock() {
        let goes_on = |grace: &mut _, deadline| matches!(late(grace, deadline), Ok(UpdateDeadline::Continue(1)));
        let mut grace = None;
        assert!(goes_on(&mut grace, Duration::from_secs(3600)));
        std::thread::sleep(Duration::from_millis(20));
        assert!(goes_on(&mut grace, Duration::from_secs(3600)), "the clock ran, the thread did not");
        let mut grace = None;
        let mut rounds = 0;
        while goes_on(&mut grace, Duration::from_millis(20)) {
            rounds += 1;
        }
        assert!(rounds > 0, "20 ms of processor time are not over at once");
    }
}
