//! Replay: a recording through the same pipeline as the live run.

use super::{
    Note, PipelineOptions, RunError, Sink, Stop, Summary, gadget,
    pipeline::{Pipeline, is_quiet_end},
    record::{RecordError, Replayer},
};
use crate::{
    gadget::{metadata, schema},
    wasm::{Engine, EngineOptions, Guest, GuestOptions},
};
use ig_event::{Batch, DataSource, loss::Class};
use std::{io::Read, path::PathBuf, sync::Arc};

/// A recording that is ready to run.
pub struct Replay<R: Read> {
    replayer: Replayer<R>,
    pipeline: Pipeline,
    sources: Vec<Arc<DataSource>>,
    batches: Vec<Batch>,
    engine_notes: Vec<Note>,
}

impl<R: Read> Replay<R> {
    /// Reads the header, starts the guest if there is one, and compiles the pipeline.
    pub fn open(input: R, options: &PipelineOptions, wasm_cache: Option<PathBuf>) -> Result<Self, RunError> {
        let mut replayer = Replayer::open(input)?;
        let mut sources = replayer.header.sources.clone();
        let mut engine_notes = Vec::new();
        let guest = match replayer.wasm.take() {
            None => None,
            Some(wasm) => {
                let engine =
                    Arc::new(Engine::new(EngineOptions { cache_dir: wasm_cache, ..EngineOptions::default() })?);
                engine_notes.extend(engine.cache_problem().map(Note::WasmCache));
                let (name, params) = (replayer.header.image.clone(), replayer.header.params.clone());
                let digest = replayer.header.digest.clone();
                let options = GuestOptions { params, ..GuestOptions::quiet(name) };
                Some(Guest::new(&engine, &wasm, &digest, options, &mut sources)?)
            }
        };
        // What gadget.yaml says of the guest's fields could not be in the recorded schema.
        if let Ok(parsed) = metadata::parse(replayer.header.metadata.as_bytes(), metadata::FILE) {
            let all = gadget::annotations(&parsed.metadata);
            sources.iter_mut().for_each(|s| schema::annotate_again(s, &all));
        }
        sources.iter_mut().for_each(|s| schema::choose_columns(s, &replayer.header.params));
        let sources: Vec<_> = sources.into_iter().map(Arc::new).collect();
        let batches = sources.iter().map(|s| Batch::new(s.clone())).collect();
        let pipeline = Pipeline::new(&sources, guest, options)?;
        Ok(Replay { replayer, pipeline, sources, batches, engine_notes })
    }

    /// Whether the gadget writes documents, too.
    pub fn makes_documents(&self) -> bool {
        self.pipeline.makes_documents()
    }

    pub fn sources(&self) -> &[Arc<DataSource>] {
        &self.sources
    }

    /// Runs to the end of the recording, or to the first error; the account comes back either way.
    pub fn run(mut self, stop: &Stop, sink: &mut dyn Sink) -> (Summary, Option<RunError>) {
        self.engine_notes.drain(..).for_each(|n| sink.note(n));
        let played = self.play(stop, sink);
        let stopped = self.pipeline.stop(sink);
        let closed = [&played, &stopped].into_iter().any(|r| r.as_ref().is_err_and(is_quiet_end));
        let failed = played.err().or(stopped.err()).filter(|e| !is_quiet_end(e));
        (Summary { ledgers: self.pipeline.ledgers(), closed }, failed)
    }

    fn play(&mut self, stop: &Stop, sink: &mut dyn Sink) -> Result<(), RunError> {
        self.pipeline.start(sink)?;
        while !stop.requested() {
            let source = match self.replayer.next(&mut self.batches) {
                Ok(Some(source)) => source,
                Ok(None) => break,
                // Stopped while it waited for more: cut short by the user, not by accident.
                Err(RecordError::CutShort { .. }) if stop.requested() => break,
                Err(e) => {
                    for (i, batch) in self.batches.iter_mut().enumerate() {
                        self.pipeline.malformed(i, batch);
                    }
                    return Err(e.into());
                }
            };
            let batch = &mut self.batches[source];
            // What the recorded run lost or left out was produced there too.
            let gone: u64 = batch
                .loss
                .iter()
                .filter(|(r, _)| r.class() != Class::Degraded)
                .fold(0, |sum: u64, (_, n)| sum.saturating_add(n));
            self.pipeline.produced(source, batch.len() as u64 + gone);
            let done = self.pipeline.process(source, batch, sink);
            batch.clear();
            done?;
        }
        Ok(())
    }
}
