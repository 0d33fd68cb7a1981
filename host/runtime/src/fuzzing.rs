//! Ways in for the fuzz targets in `fuzz/`, which may not call what is private. Compiled with `--cfg fuzzing` only.

use crate::{bpf, host_sources, instance, symbols, uprobes, wasm};
use ig_event::Batch;
use std::sync::Arc;

/// Everything that reads what container runtimes and other processes leave behind.
pub fn runtimes(bytes: &[u8]) {
    crate::containers::fuzz(bytes);
}

/// What lies in an overwriting perf buffer.
pub fn perf_records(bytes: &[u8]) {
    bpf::perf::fuzz(bytes);
}

/// A program's file, whose functions are named.
pub fn elf_symbols(file: std::fs::File) {
    symbols::fuzz_file(file);
}

/// A function's name as compilers write it.
pub fn function_name(bytes: &[u8]) {
    symbols::fuzz_name(bytes);
}

/// What a container and /proc tell of libraries and processes: `ld.so.cache`, `maps`, `stat`, `status`, `kallsyms`.
pub fn host_files(bytes: &[u8]) {
    uprobes::fuzz_cache(bytes);
    symbols::fuzz_texts(bytes);
    host_sources::fuzz(bytes);
}

/// A recording; `show` gets every batch.
pub fn recording(bytes: &[u8], mut show: impl FnMut(&Batch)) {
    let Ok(mut replayer) = instance::record::Replayer::open(bytes) else { return };
    let mut batches: Vec<Batch> = replayer.header.sources.iter().map(|s| Batch::new(Arc::new(s.clone()))).collect();
    while let Ok(Some(source)) = replayer.next(&mut batches) {
        show(&batches[source]);
    }
}

/// One answer of a guest for one field, of any shape.
#[derive(Debug)]
pub struct Answer {
    /// Rows before the chunk that are not asked for.
    pub skip: u8,
    pub rows: u8,
    pub kind: u8,
    pub view: u8,
    pub numbers: Vec<u64>,
    pub data: Vec<u8>,
    pub keep: Vec<u8>,
    pub reject: Option<u32>,
    pub undo: bool,
}

/// The answers to the chunks of one batch, one after the other.
pub fn answers(all: &[Answer]) {
    wasm::answer::fuzz(all);
}
