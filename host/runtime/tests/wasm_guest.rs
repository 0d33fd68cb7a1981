//! The decoder of trace_exec, built as `ig image build` builds it, over batches of records. Needs a Rust toolchain with
//! the Wasm target (or Debian's rustc-web), not root.
#![expect(clippy::unwrap_used, reason = "a test")]

use ig_event::{Batch, DataSource, FieldDef, FieldId, Kind, Reason, SourceKind, Storage, Value};
use ig_runtime::wasm::{Engine, EngineOptions, Guest, GuestOptions, Level, build, imports};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

const ROOM: u32 = 128 * 1024;

fn gadget() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../gadgets/trace_exec")
}

fn component() -> &'static [u8] {
    static COMPONENT: OnceLock<Vec<u8>> = OnceLock::new();
    COMPONENT.get_or_init(|| {
        // What `make` sets, so that the Wasm standard library is built once for all.
        let target = std::env::var_os("IG_WASM_TARGET_DIR")
            .map_or_else(|| Path::new(env!("CARGO_TARGET_TMPDIR")).join("wasm"), PathBuf::from);
        build::build(&gadget(), &target).unwrap_or_else(|e| panic!("{e} (hint: {:?})", e.hint()))
    })
}

fn source() -> DataSource {
    let mut s = DataSource::new("exec", SourceKind::Events, 12 + ROOM);
    let at = |offset, size| Storage::Record { offset, size };
    s.add(FieldDef::new("args_size", Kind::U32, at(0, 4)));
    s.add(FieldDef::new("args_count", Kind::U32, at(4, 4)));
    s.add(FieldDef::new("args_truncated", Kind::Bool, at(8, 1)));
    s.add(FieldDef::new("args_raw", Kind::CString, at(9, ROOM)));
    s
}

fn open() -> (Guest, Arc<DataSource>, FieldId) {
    let engine = Arc::new(Engine::new(EngineOptions::default()).unwrap());
    let options = GuestOptions { log_level: Level::Trace, ..GuestOptions::quiet("trace_exec") };
    let mut sources = vec![source()];
    let guest = Guest::new(&engine, component(), "sha256:test", options, &mut sources).unwrap();
    let source = sources.remove(0);
    let args = source.find("args").unwrap().id;
    (guest, Arc::new(source), args)
}

fn record(args: &[u8]) -> Vec<u8> {
    let count = args.iter().filter(|b| **b == 0).count() as u32;
    [&(args.len() as u32).to_le_bytes()[..], &count.to_le_bytes(), &[0], args].concat()
}

#[test]
fn arguments_of_every_length_come_through_the_guest_as_text() {
    let (mut guest, source, args) = open();
    assert!(source.find("args_raw").unwrap().unreferenced);
    guest.start().unwrap();
    let many: Vec<String> = (0..5000).map(|i| format!("argument-{i}")).collect();
    let mut batch = Batch::new(Arc::clone(&source));
    for round in 0..3 {
        batch.clear();
        let mut want = Vec::new();
        for i in 0..600u32 {
            let list: Vec<Vec<u8>> = match i % 5 {
                0 => vec![],
                1 => vec![b"/bin/true".to_vec()],
                2 => vec![b"sh".to_vec(), b"".to_vec(), format!("{round}-{i}").into_bytes()],
                3 => vec![b"\xff\xfe".to_vec(), vec![b'x'; i as usize]],
                _ if i == 4 => many.iter().map(|a| a.clone().into_bytes()).collect(),
                _ => vec![b"last".to_vec()],
            };
            let raw: Vec<u8> = list.iter().flat_map(|a| [&a[..], b"\0"].concat()).collect();
            batch.push(&record(&raw));
            want.push(list.join(&b' '));
            if i % 7 == 0 {
                batch.discard(i as usize, Reason::Filtered);
            }
        }
        guest.process(0, &mut batch);
        assert_eq!(batch.loss.get(Reason::Undecoded), 0);
        for row in batch.iter() {
            assert_eq!(batch.value(row, args), Value::Text(want[row].clone().into()), "row {row}");
        }
    }
    guest.stop().unwrap();
    assert!(guest.take_notes().is_empty());
}

#[test]
fn the_component_only_imports_what_it_uses_and_is_the_same_every_time() {
    let mut list = imports("trace_exec", "d", component()).unwrap();
    list.sort();
    let names: Vec<&str> = list.iter().map(|i| i.trim_start_matches("ig:gadget/").trim_end_matches("@0.1.0")).collect();
    assert_eq!(names, ["sink", "sources", "types"]);
    let text = String::from_utf8_lossy(component());
    let here = gadget().canonicalize().unwrap();
    assert!(!text.contains(here.to_str().unwrap()), "a path of this machine is in the component");
    assert!(!text.contains("/.cargo/registry"), "a path of this machine is in the component");
}
