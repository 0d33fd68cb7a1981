//! One running guest: batches go in by chunks of live rows, columns come back; a guest that fails is restarted, and while
//! it is away rows pass undecoded and are counted. Owned by the thread of the run.

mod notes;
mod restarts;

use super::{
    Engine, Phase, WasmError,
    answer::{AnswerError, Answering, ChunkRows},
    chunk::{Cursor, MOST_ROWS, Raw, project},
    error::Halt,
    imports,
    log_gate::{Level, LogGate},
    opening::{Opening, Subscription},
    services::{Document, Services},
    ticker::Ticker,
    wit_v0_1::{self, Call, Called, Equipment, Instance, NewError, Refusal, State},
};
use ig_event::{Batch, Column, DataSource, Reason, loss::Class};
use restarts::Restarts;
use std::{
    collections::BTreeSet,
    fmt,
    mem::{replace, take},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use wasmtime::component::{Component, Linker};

pub use notes::{GuestNote, Problem};

pub struct GuestOptions {
    /// For messages.
    pub gadget: String,
    /// Every parameter of the gadget with its final value.
    pub params: Vec<(String, String)>,
    /// Less important messages of the guest are left out.
    pub log_level: Level,
    /// What it may reach besides its rows.
    pub services: Arc<Services>,
}

impl GuestOptions {
    /// No parameters, and only warnings and errors out of the guest's mouth.
    pub fn quiet(gadget: impl Into<String>) -> Self {
        GuestOptions { gadget: gadget.into(), params: Vec::new(), log_level: Level::Warn, services: Arc::default() }
    }
}

/// A compiled guest and its running instance, if it has one.
pub struct Guest {
    engine: Arc<Engine>,
    ticker: Arc<Ticker>,
    component: Component,
    linker: Linker<State>,
    instance: Option<Instance>,
    gadget: String,
    params: Arc<Vec<(String, String)>>,
    log: Arc<Mutex<LogGate>>,
    services: Arc<Services>,
    /// Whether it can make documents.
    writes: bool,
    /// What it has published and nobody has taken yet.
    documents: Vec<Document>,
    /// Between two ticks, once it has started.
    interval: Option<Duration>,
    /// The schema before the guest changed it, for restarts; and what it made of it.
    before: Vec<DataSource>,
    after: Opening,
    plan: Vec<Option<Subscription>>,
    restarts: Restarts,
    notes: Vec<GuestNote>,
    told: BTreeSet<&'static str>,
    raw: Raw,
    rows: ChunkRows,
    /// Room for the columns that a call lends.
    columns: Vec<Column>,
    started: bool,
    /// An instance was lost after the start, and with it all that it had gathered.
    forgot: bool,
}

impl Guest {
    /// Compiles the guest (or takes it from the cache), and lets it open the schema: it may add fields to `sources`, hide
    /// some, and subscribe. With an error `sources` is as it was.
    ///
    /// `digest` is only for messages.
    pub fn new(
        engine: &Arc<Engine>,
        wasm: &[u8],
        digest: &str,
        options: GuestOptions,
        sources: &mut Vec<DataSource>,
    ) -> Result<Self, WasmError> {
        let gadget = options.gadget;
        let mut writes = false;
        for import in imports(&gadget, digest, wasm)? {
            if !wit_v0_1::offers(&import) {
                return Err(WasmError::UnknownImport { gadget, import });
            }
            writes |= makes_documents(&import);
        }
        let (component, _) = engine.component(&gadget, digest, wasm)?;
        let linker = wit_v0_1::linker(engine).map_err(WasmError::Engine)?;
        let mut guest = Guest {
            engine: Arc::clone(engine),
            ticker: engine.ticker()?,
            component,
            linker,
            instance: None,
            gadget,
            params: Arc::new(options.params),
            log: Arc::new(Mutex::new(LogGate::new(options.log_level))),
            services: options.services,
            writes,
            documents: Vec::new(),
            interval: None,
            before: sources.clone(),
            after: Opening::default(),
            plan: Vec::new(),
            restarts: Restarts::default(),
            notes: Vec::new(),
            told: BTreeSet::new(),
            raw: Raw::default(),
            rows: ChunkRows::default(),
            columns: Vec::new(),
            started: false,
            forgot: false,
        };
        let (instance, after) = guest.open().map_err(|e| guest.not_opened(e))?;
        guest.plan = after.plan();
        guest.instance = Some(instance);
        *sources = after.sources.clone();
        guest.after = after;
        Ok(guest)
    }

    /// Only a guest knows what its parameters mean: what it says of one that the user gave is told as the user's mistake.
    fn not_opened(&self, e: OpenFailure) -> WasmError {
        match e {
            OpenFailure::Refused(Phase::Init, Refusal { code: INVALID, message })
                if is_of_one(&message, &self.params) =>
            {
                WasmError::Param { message }
            }
            e => e.into_error(&self.gadget),
        }
    }

    /// Whether the guest takes the rows of this source.
    pub fn takes(&self, source: usize) -> bool {
        self.plan.get(source).is_some_and(Option::is_some)
    }

    /// Once, before the first batch.
    pub fn start(&mut self) -> Result<(), WasmError> {
        self.started = true;
        let called = self.lifecycle(Phase::Start);
        called.map_err(|e| e.into_error(&self.gadget))?;
        if let Some(instance) = &mut self.instance {
            let _in_flight = self.ticker.enter();
            let interval = instance.interval(&self.engine);
            let halted = |halt| OpenFailure::Halted(Phase::Tick, halt).into_error(&self.gadget);
            self.interval = interval.map_err(halted)?;
        }
        Ok(())
    }

    /// Whether it can make documents: then its failing at the end costs the user what he ran it for.
    pub fn makes_documents(&self) -> bool {
        self.writes
    }

    /// How often `tick` is to be called; `None`: never.
    pub fn interval(&self) -> Option<Duration> {
        self.interval
    }

    /// The call that comes every interval. A guest that fails is restarted as after a batch.
    pub fn tick(&mut self) {
        if !self.ready() {
            return;
        }
        let Some(instance) = &mut self.instance else { return };
        let in_flight = self.ticker.enter();
        let called = instance.tick(&self.engine);
        drop(in_flight);
        self.collect(&called);
        match called {
            Ok(Ok(())) => {}
            Ok(Err(Refusal { code, message })) => self.note(Problem::Tick { phase: Phase::Tick, code, message }),
            Err(halt) => self.failed(Problem::Halted(halt)),
        }
    }

    /// What was published since the last time.
    pub fn take_documents(&mut self) -> Vec<Document> {
        take(&mut self.documents)
    }

    /// What it said that it lost, and what the kernel lost of what it reads itself; see `Ledger::gadget_lost`.
    pub fn lost(&self) -> u64 {
        self.services.lost()
    }

    /// Keeps what a call has published, unless the guest broke in it.
    fn collect(&mut self, called: &Called) {
        if let (Some(instance), Ok(_)) = (&mut self.instance, called) {
            self.documents.append(&mut instance.take_published().documents);
        }
    }

    /// After the last batch. Whatever the guest does here costs no rows, but maybe documents.
    pub fn stop(&mut self) -> Result<(), WasmError> {
        if !replace(&mut self.started, false) {
            return Ok(());
        }
        if self.instance.is_none() && self.writes && !self.ready() {
            return Err(WasmError::Away { gadget: self.gadget.clone() });
        }
        let stopped = self.lifecycle(Phase::Stop).and_then(|()| self.lifecycle(Phase::PostStop));
        self.instance = None;
        if let Ok(mut gate) = self.log.lock() {
            gate.close_window();
        }
        match stopped.map_err(|e| e.into_error(&self.gadget)) {
            Ok(()) if self.writes && self.forgot => Err(WasmError::Forgot { gadget: self.gadget.clone() }),
            stopped => stopped,
        }
    }

    /// What the user should be told since the last time.
    pub fn take_notes(&mut self) -> Vec<GuestNote> {
        let mut notes = take(&mut self.notes);
        if let Ok(mut gate) = self.log.lock() {
            let gadget = &self.gadget;
            notes.extend(gate.take().map(|(level, message)| GuestNote::Said {
                gadget: gadget.clone(),
                level,
                message,
            }));
        }
        notes
    }

    /// Decodes the live rows of a batch of the source with this index. Rows that cannot be decoded stay, without a value
    /// in the guest's fields (zero or empty where decoded rows follow), and are counted as `Undecoded`.
    pub fn process(&mut self, source: usize, batch: &mut Batch) {
        let Some(subscription) = self.plan.get(source).cloned().flatten() else { return };
        let most = match subscription.max_rows as usize {
            0 => MOST_ROWS,
            n => n.min(MOST_ROWS),
        };
        let (mut raw, mut rows) = (take(&mut self.raw), take(&mut self.rows));
        let mut at = Cursor::default();
        let mut lost = batch.loss.of(Class::Loss);
        while raw.next(batch, &mut at, most, &mut rows) {
            if !self.ready() {
                batch.loss.add(Reason::Undecoded, rows.rows.len() as u64);
                continue;
            }
            rows = self.chunk(source, &subscription, batch, &raw, rows, take(&mut lost));
        }
        (self.raw, self.rows) = (raw, rows);
    }

    /// One call. Gives the row list back for reuse.
    fn chunk(
        &mut self,
        source: usize,
        subscription: &Subscription,
        batch: &mut Batch,
        raw: &Raw,
        rows: ChunkRows,
        lost: u64,
    ) -> ChunkRows {
        let Some(instance) = &mut self.instance else {
            batch.loss.add(Reason::Undecoded, rows.rows.len() as u64);
            return rows;
        };
        let projected: Vec<Column> =
            subscription.wants.columns.iter().map(|f| project(batch, &rows.rows, *f)).collect();
        let mut columns = take(&mut self.columns);
        for provided in subscription.provides.iter() {
            if batch.columns.len() <= provided.column {
                batch.columns.resize(provided.column + 1, Column::Empty);
            }
            columns.push(replace(&mut batch.columns[provided.column], Column::Empty));
        }
        let wants = &subscription.wants;
        let call = Call {
            source: source as u32,
            rows: rows.rows.len() as u32,
            raw: wants.raw_of(raw.bytes(batch)),
            stride: if wants.raw { raw.stride } else { 0 },
            ends: if wants.raw && raw.stride == 0 { &raw.ends } else { &[] },
            columns: &projected,
            lost,
        };
        instance.store.data_mut().answering = Answering {
            asked: true,
            chunk: rows,
            provided: Arc::clone(&subscription.provides),
            columns,
            ..Answering::default()
        };
        let in_flight = self.ticker.enter();
        let called = instance.process(&self.engine, &call);
        drop(in_flight);
        let mut answer = take(&mut instance.store.data_mut().answering);
        if called.is_ok() {
            self.documents.append(&mut instance.take_published().documents);
        }
        let problem = match (called, answer.wrong.take()) {
            (Err(halt), _) => Some(Problem::Halted(halt)),
            (Ok(_), Some(wrong)) => Some(Problem::Answer(wrong)),
            (Ok(Err(Refusal { code, message })), None) => Some(Problem::Refused { code, message }),
            (Ok(Ok(())), None) if !answer.answered => Some(Problem::Answer(AnswerError::Missing)),
            (Ok(Ok(())), None) => None,
        };
        match problem {
            None => self.accept(batch, &mut answer),
            Some(problem) => {
                answer.undo();
                batch.loss.add(Reason::Undecoded, answer.chunk.rows.len() as u64);
                self.failed(problem);
            }
        }
        for (provided, column) in subscription.provides.iter().zip(answer.columns.drain(..)) {
            batch.columns[provided.column] = column;
        }
        self.columns = answer.columns;
        answer.chunk
    }

    fn accept(&mut self, batch: &mut Batch, answer: &mut Answering) {
        let kept = |i: usize| answer.keep.get(i / 8).is_none_or(|b| b >> (i % 8) & 1 == 1);
        let rejected = answer.rejected.iter().filter(|i| kept(**i as usize)).count();
        batch.loss.add(Reason::Undecoded, rejected as u64);
        if !answer.keep.is_empty() {
            for (i, row) in answer.chunk.rows.iter().enumerate() {
                if !kept(i) {
                    batch.discard(*row as usize, Reason::DroppedByGuest);
                }
            }
        }
        if let Some(reason) = answer.reason.take() {
            self.note(Problem::Rejected { reason });
        }
    }

    /// Whether there is an instance to ask; makes one when its time has come.
    fn ready(&mut self) -> bool {
        if self.instance.is_some() {
            return true;
        }
        if !self.restarts.due(Instant::now()) {
            return false;
        }
        match self.reopen() {
            Ok(instance) => self.instance = Some(instance),
            Err(problem) => self.failed(problem),
        }
        self.instance.is_some()
    }

    /// After a problem: a guest that said itself that it cannot decode goes on; any other is restarted.
    fn failed(&mut self, problem: Problem) {
        let restart = !matches!(problem, Problem::Refused { .. });
        self.note(problem);
        if restart {
            self.instance = None;
            self.forgot |= self.started;
            if self.restarts.failed(Instant::now()) {
                self.note(Problem::GivenUp);
            }
        }
    }

    fn note(&mut self, problem: Problem) {
        if self.told.insert(problem.key()) {
            self.notes.push(GuestNote::Problem { gadget: self.gadget.clone(), problem });
        }
    }

    fn lifecycle(&mut self, phase: Phase) -> Result<(), OpenFailure> {
        let Some(instance) = &mut self.instance else { return Ok(()) };
        let in_flight = self.ticker.enter();
        let called = instance.lifecycle(&self.engine, phase);
        drop(in_flight);
        self.collect(&called);
        phase_result(called, phase)
    }

    /// A new instance with a schema of its own to open.
    fn open(&self) -> Result<(Instance, Opening), OpenFailure> {
        let _in_flight = self.ticker.enter();
        let opening = Opening::new(self.before.clone());
        let equipment = Equipment {
            opening,
            params: Arc::clone(&self.params),
            log: Arc::clone(&self.log),
            services: Arc::clone(&self.services),
        };
        let mut instance = Instance::new(&self.engine, &self.linker, &self.component, equipment)?;
        call_phase(&self.engine, &mut instance, Phase::Init)?;
        call_phase(&self.engine, &mut instance, Phase::PreStart)?;
        let opening = instance.store.data_mut().opening.take().unwrap_or_default();
        Ok((instance, opening))
    }

    fn reopen(&mut self) -> Result<Instance, Problem> {
        let (mut instance, after) = self.open().map_err(OpenFailure::into_problem)?;
        if !after.same_plan(&self.after) {
            return Err(Problem::OtherPlan);
        }
        // Dictionaries may have other values now; rows decoded so far keep theirs.
        self.plan = after.plan();
        if self.started {
            let _in_flight = self.ticker.enter();
            call_phase(&self.engine, &mut instance, Phase::Start).map_err(OpenFailure::into_problem)?;
        }
        Ok(instance)
    }
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest").field("gadget", &self.gadget).field("running", &self.instance.is_some()).finish()
    }
}

/// The code of an error for a value that is none.
const INVALID: &str = "invalid";

/// Why an instance could not be made.
enum OpenFailure {
    Link(wasmtime::Error),
    Halted(Phase, Halt),
    Refused(Phase, Refusal),
}

impl From<NewError> for OpenFailure {
    fn from(e: NewError) -> Self {
        match e {
            NewError::Link(e) => OpenFailure::Link(e),
            NewError::Halt(h) => OpenFailure::Halted(Phase::Instantiate, h),
        }
    }
}

impl OpenFailure {
    fn into_error(self, gadget: &str) -> WasmError {
        let gadget = gadget.to_owned();
        match self {
            OpenFailure::Link(source) => WasmError::Link { gadget, source },
            OpenFailure::Halted(phase, halt) => WasmError::Halted { gadget, phase, halt },
            OpenFailure::Refused(phase, Refusal { code, message }) => {
                WasmError::Refused { gadget, phase, code, message }
            }
        }
    }

    fn into_problem(self) -> Problem {
        match self {
            OpenFailure::Link(e) => Problem::RestartHalted { phase: Phase::Instantiate, halt: Halt::Call(e) },
            OpenFailure::Halted(phase, halt) => Problem::RestartHalted { phase, halt },
            OpenFailure::Refused(phase, Refusal { code, message }) => Problem::RestartRefused { phase, code, message },
        }
    }
}

/// Whether a guest's words are about a parameter: `parameter KEY: …`, as ours are.
pub(super) fn is_of_one(message: &str, params: &[(String, String)]) -> bool {
    let key = message.strip_prefix("parameter ").and_then(|rest| rest.split_once(": ")).map(|(key, _)| key);
    params.iter().any(|(k, _)| Some(k.as_str()) == key)
}

fn call_phase(engine: &Engine, instance: &mut Instance, phase: Phase) -> Result<(), OpenFailure> {
    phase_result(instance.lifecycle(engine, phase), phase)
}

/// Whether who imports this can make documents.
pub(crate) fn makes_documents(import: &str) -> bool {
    import.starts_with("ig:gadget/documents@")
}

fn phase_result(called: Called, phase: Phase) -> Result<(), OpenFailure> {
    match called {
        Ok(Ok(())) => Ok(()),
        Ok(Err(refusal)) => Err(OpenFailure::Refused(phase, refusal)),
        Err(halt) => Err(OpenFailure::Halted(phase, halt)),
    }
}
