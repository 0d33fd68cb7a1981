//! A running gadget: its event loop, its pipeline, recording and replay.
//!
//! One thread, the caller's, owns a run from the ring buffer to the sink. Nothing here prints: what there is to say goes
//! to the `Sink` as a `Note`.

mod feed;
pub(crate) mod filesystems;
mod gadget;
mod live;
mod load;
mod netns;
mod pipeline;
pub mod record;
mod replay;
mod several;
mod stop;

pub use filesystems::{FilesystemError, MissingFilesystem};
pub use gadget::{Gadget, GadgetError, TableTimes};
pub use live::{Live, LiveOptions};
pub use netns::{NetworkError, WhyNot};
pub use pipeline::PipelineOptions;
pub use replay::Replay;
pub use several::{Ended, MemberError, Several, Tag};
pub use stop::Stop;

use crate::{
    bpf::{Gap, LoadError, ProgramReport, Skip, State},
    containers::ContainersError,
    enrich::sockets::SocketsError,
    gadget::params::ParamError,
    host_sources::HostSourceError,
    uprobes::{UprobeError, UprobeNote},
    wasm::{CacheProblem, Document, GuestNote, WasmError},
};
use ig_event::{
    Batch, Ledger, OperatorError, Reason,
    transform::{FilterError, LimitError, SortError},
};
use std::{fmt, io, sync::Arc};

/// Takes what a run has to show.
pub trait Sink {
    /// Rows of one source, in output order (`Batch::iter`).
    fn batch(&mut self, source: usize, batch: &Batch) -> Result<(), SinkError>;
    /// What the gadget has written in one call; never empty. Data, as rows are.
    fn documents(&mut self, documents: &[Document]) -> Result<(), SinkError>;
    /// Something to say besides the data.
    fn note(&mut self, note: Note);
}

/// A sink that takes no more.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The reader has gone: the run ends quietly.
    #[error("the reader of the output has gone")]
    Closed,
    #[error("writing the output")]
    Io(#[source] io::Error),
}

/// What a run says besides its data. `Display` is one line for people.
#[derive(Debug)]
pub enum Note {
    /// What became of a program, other than being skipped.
    Program(ProgramReport),
    /// Programs that were skipped, and with them something that the gadget does not put into words.
    Skipped(Skip),
    /// What the gadget cannot do here.
    Gap(Gap),
    /// Programs that were skipped, and whose work others do.
    Replaced(Skip),
    /// The container tracker has something to say.
    Containers(String),
    /// Packets of some network are not seen.
    Network(String),
    /// The guest did something wrong, or said something.
    Guest(GuestNote),
    /// The guest failed after its last batch.
    GuestStop(WasmError),
    /// Compiled guests cannot be kept, so every start compiles.
    WasmCache(Arc<CacheProblem>),
    /// What became of probes in the files of containers.
    Uprobes(UprobeNote),
    /// Names of functions that cannot be had.
    Symbols(String),
    /// Something odd in gadget.yaml.
    Metadata(String),
    /// The kernel skipped runs of the gadget's programs. Whether an event is missing for each, only the program could say;
    /// the ledger has their number beside the equation.
    MissedRuns { gadget: String, missed: u64 },
    /// Events flow from now on.
    Running { gadget: String, hooks: usize, buffer: u32 },
}

impl Note {
    /// False for what only `-v` shows.
    pub fn is_for_everybody(&self) -> bool {
        match self {
            Note::Guest(note) => note.is_for_everybody(),
            Note::Uprobes(note) => note.is_for_everybody(),
            Note::Containers(_)
            | Note::Network(_)
            | Note::Skipped(_)
            | Note::Gap(_)
            | Note::Symbols(_)
            | Note::GuestStop(_)
            | Note::MissedRuns { .. } => true,
            Note::Program(_) | Note::Replaced(_) | Note::Running { .. } | Note::WasmCache(_) | Note::Metadata(_) => {
                false
            }
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::Program(p) => match &p.state {
                State::Attached => write!(f, "program {} attached to {}", p.name, p.hook),
                State::Loaded => write!(f, "program {} loaded for {}", p.name, p.hook),
                State::PerFile => write!(f, "program {} goes to {} in each container", p.name, p.hook),
                State::Disabled => write!(f, "program {} is switched off", p.name),
                State::NotNeeded => write!(f, "program {} ({}) is not needed: another does its job", p.name, p.hook),
                State::Skipped { reason, .. } => write!(f, "program {} skipped: {reason}", p.name),
            },
            Note::Skipped(skip) => write!(f, "warning: {skip}"),
            Note::Gap(gap) => write!(f, "warning: {gap}"),
            Note::Replaced(skip) => write!(f, "{skip}; another does its work"),
            Note::Uprobes(note) => note.fmt(f),
            Note::Containers(text) | Note::Network(text) | Note::Symbols(text) => write!(f, "warning: {text}"),
            Note::Guest(note) if note.problem().is_some() => write!(f, "warning: {note}"),
            Note::Guest(note) => note.fmt(f),
            Note::GuestStop(e) => write!(f, "warning: {e}"),
            Note::WasmCache(problem) => write!(f, "compiled Wasm is not kept: {problem}"),
            Note::Metadata(text) => f.write_str(text),
            Note::MissedRuns { gadget, missed } => write!(
                f,
                "warning: {gadget}: the kernel skipped {missed} runs of its programs, which were at work on that CPU already; \
                 as many events may be missing"
            ),
            Note::Running { gadget, hooks, buffer } => {
                write!(f, "{gadget}: running, {hooks} programs attached, event buffer {} KiB", buffer / 1024)
            }
        }
    }
}

/// The account of a run that has ended.
#[derive(Debug, Default)]
pub struct Summary {
    /// By data source.
    pub ledgers: Vec<(String, Ledger)>,
    /// The reader of the output went away before the end, which is nobody's fault.
    pub closed: bool,
}

impl Summary {
    /// Rows that an output kept for its end, which then could not be written, were not delivered after all.
    pub fn undeliver(&mut self) {
        for (_, ledger) in &mut self.ledgers {
            ledger.loss.add(Reason::OutputClosed, std::mem::take(&mut ledger.delivered));
        }
    }
}

/// Why a run did not start, or ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Gadget(#[from] GadgetError),
    #[error(transparent)]
    Param(#[from] ParamError),
    #[error(transparent)]
    Filter(#[from] FilterError),
    #[error(transparent)]
    Sort(#[from] SortError),
    #[error(transparent)]
    Limit(#[from] LimitError),
    #[error(transparent)]
    Filesystem(#[from] FilesystemError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Containers(#[from] ContainersError),
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error(transparent)]
    Sockets(#[from] SocketsError),
    #[error(transparent)]
    Wasm(#[from] WasmError),
    #[error(transparent)]
    Uprobes(#[from] UprobeError),
    #[error(transparent)]
    Operator(#[from] OperatorError),
    #[error("{what}, and --fail-on-trap was given")]
    GuestFailed { what: String },
    #[error(transparent)]
    Sink(SinkError),
    #[error(transparent)]
    Record(#[from] record::RecordError),
    #[error("recording file {path}")]
    RecordFile { path: String, source: io::Error },
    #[error("waiting for events")]
    Wait(#[source] io::Error),
    #[error("starting the thread of gadget {gadget}")]
    Thread { gadget: String, source: io::Error },
    #[error("data source {source_name:?} has a field `gadget` of its own, so the gadget cannot run beside others")]
    TagTaken { source_name: String },
    #[error("gadget {gadget}")]
    HostSource { gadget: String, source: HostSourceError },
    #[error("reading {what} of gadget {gadget}")]
    Read { gadget: String, what: String, source: io::Error },
}
