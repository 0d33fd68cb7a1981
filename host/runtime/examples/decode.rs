//! What decoding in Wasm costs: the decoder of trace_exec as a component against the same code compiled for the host, in
//! nanoseconds an event, at several sizes of batch. `cargo run --release -p ig-runtime --example decode`
#![expect(clippy::print_stdout, reason = "this is a program for a person")]

use ig_event::{Batch, DataSource, FieldDef, Kind, SourceKind, Storage, Vars};
use ig_runtime::wasm::{Engine, EngineOptions, Guest, GuestOptions, build};
use std::{error::Error, hint::black_box, path::Path, sync::Arc, time::Instant};

const EVENTS: usize = 8192;
const HEADER: u32 = 8;
const ARGS: usize = 190;
const ROUNDS: usize = 15;

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let wasm = build::build(&root.join("gadgets/trace_exec"), &root.join("target/wasm"))?;
    let cache = tempfile::tempdir()?;
    let engine_options = EngineOptions { cache_dir: Some(cache.path().join("wasm")), ..EngineOptions::default() };
    let engine = Arc::new(Engine::new(engine_options.clone())?);
    let mut source = DataSource::new("exec", SourceKind::Events, HEADER + 256);
    source.add(FieldDef::new("args_size", Kind::U32, Storage::Record { offset: 0, size: 4 }));
    source.add(FieldDef::new("args_raw", Kind::CString, Storage::Record { offset: HEADER, size: 256 }));
    let before = vec![source];
    let mut sources = before.clone();
    let options = GuestOptions::quiet("trace_exec");
    let t = Instant::now();
    let guest = Guest::new(&engine, &wasm, "local", options, &mut sources)?;
    println!("component of {} bytes, compiled and opened in {:?}", wasm.len(), t.elapsed());
    drop(guest);
    let t = Instant::now();
    let engine = Arc::new(Engine::new(engine_options)?);
    let mut sources = before;
    let mut guest = Guest::new(&engine, &wasm, "local", GuestOptions::quiet("trace_exec"), &mut sources)?;
    println!("from the cache, engine included, in {:?}", t.elapsed());
    guest.start()?;
    let source = Arc::new(sources.remove(0));
    println!("{:>6} {:>12} {:>12} {:>7}", "batch", "native ns", "wasm ns", "ratio");
    for size in [1, 16, 64, 256, 1024] {
        let mut batches = batches(&source, size);
        let (mut native, mut wasm) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            native.push(time(&mut batches, decode_natively));
            wasm.push(time(&mut batches, |b| guest.process(0, b)));
        }
        let (native, wasm) = (median(&mut native), median(&mut wasm));
        println!("{size:>6} {native:>12.1} {wasm:>12.1} {:>7.2}", wasm / native);
    }
    let notes = guest.take_notes();
    if let Some(note) = notes.first() {
        return Err(note.to_string().into());
    }
    Ok(guest.stop()?)
}

/// Records with `ARGS` bytes of arguments, more of them than fit the nearest cache.
fn batches(source: &Arc<DataSource>, size: usize) -> Vec<Batch> {
    let mut all = Vec::new();
    for first in (0..EVENTS).step_by(size) {
        let mut batch = Batch::new(Arc::clone(source));
        for i in first..first + size {
            let mut args = Vec::new();
            let mut n = 0;
            while args.len() < ARGS {
                args.extend_from_slice(format!("--option-{}={}\0", i % 977, n * i).as_bytes());
                n += 1;
            }
            let mut record = (args.len() as u32).to_le_bytes().to_vec();
            record.extend_from_slice(&[0; 4]);
            record.extend_from_slice(&args);
            batch.push(&record);
        }
        all.push(batch);
    }
    all
}

/// The same logic as the guest's, writing the same column.
fn decode_natively(batch: &mut Batch) {
    let mut column = Vars::default();
    for row in 0..batch.len() {
        let record = batch.record(row);
        let size = record.first_chunk().map_or(0, |b| u32::from_le_bytes(*b)) as usize;
        let raw = record.get(HEADER as usize..).unwrap_or_default();
        gadget_sdk::text::join_nul(&raw[..raw.len().min(size)], &mut column.data);
        column.ends.push(column.data.len() as u32);
    }
    batch.columns[0] = ig_event::Column::Text(column);
}

/// Nanoseconds an event.
fn time(batches: &mut [Batch], mut decode: impl FnMut(&mut Batch)) -> f64 {
    batches.iter_mut().for_each(|b| b.columns.fill(ig_event::Column::Empty));
    let t = Instant::now();
    for batch in batches.iter_mut() {
        decode(black_box(batch));
    }
    t.elapsed().as_nanos() as f64 / EVENTS as f64
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
