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
use std::sync::Arc;

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
        Ok(Pipeline { guest, sources: built, fail_on_trap: options.fail_on_trap })
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
        self.notes(sink);
        Ok(())
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
            let failed = self.notes(sink);
            if let (true, Some(what)) = (self.fail_on_trap, failed) {
                return Err(RunError::GuestFailed { what });
            }
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

    /// Hands on what the guest has to say; the last failure among it comes back.
    fn notes(&mut self, sink: &mut dyn Sink) -> Option<String> {
        let mut failed = None;
        for note in self.guest.iter_mut().flat_map(Guest::take_notes) {
            if note.is_failure() {
                failed = Some(note.to_string());
            }
            sink.note(Note::Guest(note));
        }
        failed
    }

    /// Last call of the guest, after the last batch. Its rows are all delivered by now, so a failure is only told.
    pub(super) fn stop(&mut self, sink: &mut dyn Sink) {
        if let Some(Err(e)) = self.guest.as_mut().map(Guest::stop) {
            sink.note(Note::GuestStop(e));
        }
        self.notes(sink);
    }

    pub(super) fn ledgers(self) -> Vec<(String, Ledger)> {
        self.sources.into_iter().map(|s| (s.source.name.clone(), s.ledger)).collect()
    }
}

/// True where the run should end without complaint: the reader of stdout has gone.
pub(super) fn is_quiet_end(e: &RunError) -> bool {
    matches!(e, RunError::Sink(SinkError::Closed))
}
