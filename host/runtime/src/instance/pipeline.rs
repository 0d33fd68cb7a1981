//! The path of a batch from the enricher to the sink: guest, filter, sort, limit, then out, and into the ledger.
//!
//! Owned by the one thread that runs the gadget. A live run and a replay use the very same code.

use super::{Note, RunError, Sink, SinkError};
use crate::wasm::Guest;
use ig_event::{
    Batch, DataSource, Ledger, Operator, Reason, SourceKind, TextEnv,
    loss::Class,
    transform::{Filter, Limit, Sort},
};
use std::{sync::Arc, time::Instant};

/// Annotation of a table: how it is sorted unless `--sort` is given.
const DEFAULT_SORT: &str = "cli.default-sort";

/// What the user asked of the rows.
#[derive(Clone, Debug)]
pub struct PipelineOptions {
    pub filter: Option<String>,
    pub sort: Option<String>,
    pub max_entries: Option<u64>,
    /// Names and time zone that derived fields are compared in.
    pub text: TextEnv,
    /// A guest that traps ends the run instead of letting rows pass undecoded.
    pub fail_on_trap: bool,
}

struct PerSource {
    source: Arc<DataSource>,
    operators: Vec<Box<dyn Operator>>,
    ledger: Ledger,
}

/// The stages after the container enricher.
pub(super) struct Pipeline {
    guest: Option<Guest>,
    sources: Vec<PerSource>,
    fail_on_trap: bool,
    /// When the guest's timer is due.
    tick_due: Option<Instant>,
}

impl Pipeline {
    /// Compiles the user's options against the final schema. The list of operators is here, and only here.
    pub(super) fn new(
        sources: &[Arc<DataSource>],
        guest: Option<Guest>,
        options: &PipelineOptions,
    ) -> Result<Self, RunError> {
        let mut built = Vec::with_capacity(sources.len());
        for source in sources {
            let mut operators: Vec<Box<dyn Operator>> = Vec::new();
            if let Some(expr) = &options.filter {
                operators.push(Box::new(Filter::parse(expr, source, &options.text)?));
            }
            let own = source.annotations.get(DEFAULT_SORT).filter(|_| source.kind == SourceKind::Snapshot);
            if let Some(keys) = options.sort.as_ref().or(own) {
                operators.push(Box::new(Sort::parse(keys, source, &options.text)?));
            }
            if let Some(max) = options.max_entries {
                operators.push(Box::new(Limit::new(max as usize, source)?));
            }
            operators.sort_by_key(|o| o.stage());
            built.push(PerSource { source: source.clone(), operators, ledger: Ledger::default() });
        }
        Ok(Pipeline { guest, sources: built, fail_on_trap: options.fail_on_trap, tick_due: None })
    }

    /// Rows that the kernel made for a source, those it then lost included. Counted when they are first heard of.
    pub(super) fn produced(&mut self, source: usize, rows: u64) {
        let ledger = &mut self.sources[source].ledger;
        ledger.produced = ledger.produced.saturating_add(rows);
    }

    pub(super) fn start(&mut self, sink: &mut dyn Sink) -> Result<(), RunError> {
        if let Some(guest) = &mut self.guest {
            guest.start()?;
        }
        self.plan_tick();
        self.hear(sink).map(drop)
    }

    pub(super) fn makes_documents(&self) -> bool {
        self.guest.as_ref().is_some_and(Guest::makes_documents)
    }

    /// When `tick` is to be called next, if at all.
    pub(super) fn tick_due(&self) -> Option<Instant> {
        self.tick_due
    }

    fn plan_tick(&mut self) {
        let interval = self.guest.as_ref().and_then(Guest::interval);
        self.tick_due = interval.and_then(|i| Instant::now().checked_add(i));
    }

    /// Calls the guest's timer.
    pub(super) fn tick(&mut self, sink: &mut dyn Sink) -> Result<(), RunError> {
        if let Some(guest) = &mut self.guest {
            guest.tick();
        }
        self.plan_tick();
        self.heard(sink)
    }

    /// As `hear`, and a guest that broke ends the run if that was asked for.
    fn heard(&mut self, sink: &mut dyn Sink) -> Result<(), RunError> {
        match self.hear(sink)? {
            Some(what) if self.fail_on_trap => Err(RunError::GuestFailed { what }),
            _ => Ok(()),
        }
    }

    /// Rows of a recording that are not of the declared shape: produced, and not delivered.
    pub(super) fn malformed(&mut self, source: usize, batch: &mut Batch) {
        let rows = batch.live() as u64;
        self.produced(source, rows);
        // The losses that came with the batch are as doubtful as its rows.
        self.sources[source].ledger.loss.add(Reason::Malformed, rows);
        batch.clear();
    }

    /// Takes a batch to the sink and into the ledger. The caller clears it afterwards.
    pub(super) fn process(&mut self, source: usize, batch: &mut Batch, sink: &mut dyn Sink) -> Result<(), RunError> {
        let done = self.stages(source, batch, sink);
        let per = &mut self.sources[source];
        if let Err(e) = &done {
            // Whatever stopped the batch, its rows did not arrive, and the ledger says so.
            let reason = if matches!(e, RunError::Sink(_)) { Reason::OutputClosed } else { Reason::Aborted };
            let rows: Vec<usize> = batch.iter().collect();
            rows.into_iter().for_each(|r| batch.discard(r, reason));
        }
        per.ledger.delivered += batch.live() as u64;
        per.ledger.loss.merge(&batch.loss);
        done
    }

    fn stages(&mut self, source: usize, batch: &mut Batch, sink: &mut dyn Sink) -> Result<(), RunError> {
        if let Some(guest) = &mut self.guest {
            guest.process(source, batch);
            self.heard(sink)?;
        }
        for op in &mut self.sources[source].operators {
            op.process(batch)?;
        }
        // A table without rows is an answer; a batch that only carries losses is none.
        let table = self.sources[source].source.kind == SourceKind::Snapshot;
        let only_loss = batch.is_empty() && batch.loss.of(Class::Loss) > 0;
        if batch.live() > 0 || (table && !only_loss) {
            sink.batch(source, batch).map_err(RunError::Sink)?;
        }
        Ok(())
    }

    /// Hands on what the guest has to say and has written; the last failure among what it says comes back.
    fn hear(&mut self, sink: &mut dyn Sink) -> Result<Option<String>, RunError> {
        let mut failed = None;
        for note in self.guest.iter_mut().flat_map(Guest::take_notes) {
            if note.is_failure() {
                failed = Some(note.to_string());
            }
            sink.note(Note::Guest(note));
        }
        let documents = self.guest.as_mut().map(Guest::take_documents).unwrap_or_default();
        if !documents.is_empty() {
            sink.documents(&documents).map_err(RunError::Sink)?;
        }
        Ok(failed)
    }

    /// Last call of the guest, after the last batch. Its rows are all delivered by now, so a failure is only told, unless
    /// the gadget was run for its documents.
    pub(super) fn stop(&mut self, sink: &mut dyn Sink) -> Result<(), RunError> {
        let Some(guest) = &mut self.guest else { return Ok(()) };
        let mut result = Ok(());
        match (guest.stop(), guest.makes_documents()) {
            (Err(e), true) => result = Err(e.into()),
            (Err(e), false) => sink.note(Note::GuestStop(e)),
            (Ok(()), _) => {}
        }
        let heard = self.hear(sink).map(drop);
        result.and(heard)
    }

    /// Whether nothing was shown yet.
    pub(super) fn is_silent(&self) -> bool {
        self.sources.iter().all(|s| s.ledger.delivered == 0)
    }

    /// What the guest lost that is in no batch.
    pub(super) fn lost_by_guest(&self) -> u64 {
        self.guest.as_ref().map_or(0, Guest::lost)
    }

    pub(super) fn ledgers(self) -> Vec<(String, Ledger)> {
        self.sources.into_iter().map(|s| (s.source.name.clone(), s.ledger)).collect()
    }
}

/// True where the run should end without complaint: the reader of stdout has gone.
pub(super) fn is_quiet_end(e: &RunError) -> bool {
    matches!(e, RunError::Sink(SinkError::Closed))
}
