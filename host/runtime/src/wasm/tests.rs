//! Guests that are broken or hostile, written as small core modules and encoded into components, and what the host makes
//! of them. Whatever they do, rows stay and are counted, the error says what happened, and the host lives on.

mod services;

use super::*;
use ig_event::{Batch, Column, DataSource, FieldDef, FieldId, Kind, Reason, SourceKind, Storage, Value};
use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};
use wit_component::{ComponentEncoder, StringEncoding};

/// A guest with one field `out` of kind `uint32` (7) on source 0. Functions for the tests: `$open kind`, `$u32s ptr len`,
/// `$text ends n data n`, `$finish keep n columns`. 0x300 is an ok result, 0x340 an error.
const TEMPLATE: &str = r#"(module
  (import "ig:gadget/sources@0.1.0" "add-field"
    (func $add (param i32 i32 i32 i32 i32 i32 i32 i32 i32)))
  (import "ig:gadget/sources@0.1.0" "subscribe" (func $sub (param i32 i32 i32 i32 i32 i32 i32 i32)))
  (import "ig:gadget/sources@0.1.0" "hide-field" (func $hide (param i32 i32)))
  (import "ig:gadget/sink@0.1.0" "finish" (func $sink (param i32 i32 i32 i32 i32)))
  (import "ig:gadget/sink@0.1.0" "reject" (func $reject (param i32 i32 i32)))
  (import "ig:gadget/log@0.1.0" "log" (func $log (param i32 i32 i32)))
  EXTRA
  (memory (export "memory") 64)
  (global $heap (mut i32) (i32.const 0x100000))
  (global $count (mut i32) (i32.const 0))
  (data (i32.const 0x100) "out")
  (data (i32.const 0x110) "not today")
  (data (i32.const 0x340) "\01\00\00\00\07\00\00\00\10\01\00\00\09\00\00\00")
  (func (export "cabi_realloc") (param $old i32) (param $oldn i32) (param $align i32) (param $n i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 15)) (i32.const -16)))
    (global.set $heap (i32.add (local.get $at) (local.get $n)))
    (local.get $at))
  (func $open (param $kind i32)
    (call $add (i32.const 0) (i32.const 0x100) (i32.const 3) (local.get $kind)
      (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0x200))
    (if (i32.load8_u (i32.const 0x200)) (then unreachable))
    (call $sub (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0x204) (i32.const 1) (i32.const 0)
      (i32.const 0x220))
    (if (i32.load8_u (i32.const 0x220)) (then unreachable)))
  (func $u32s (param $at i32) (param $n i32)
    (i32.store8 (i32.const 0x400) (i32.const 2))
    (i32.store (i32.const 0x404) (local.get $at))
    (i32.store (i32.const 0x408) (local.get $n)))
  (func $text (param $ends i32) (param $n i32) (param $data i32) (param $len i32)
    (i32.store8 (i32.const 0x400) (i32.const 12))
    (i32.store (i32.const 0x404) (local.get $ends))
    (i32.store (i32.const 0x408) (local.get $n))
    (i32.store (i32.const 0x40c) (local.get $data))
    (i32.store (i32.const 0x410) (local.get $len)))
  (func $finish (param $keep i32) (param $n i32) (param $columns i32)
    (call $sink (local.get $keep) (local.get $n) (i32.const 0x400) (local.get $columns) (i32.const 0x240)))
  (func (export "ig:gadget/lifecycle@0.1.0#init") (result i32) INIT (i32.const 0x300))
  (func (export "ig:gadget/lifecycle@0.1.0#pre-start") (result i32) (i32.const 0x300))
  (func (export "ig:gadget/lifecycle@0.1.0#start") (result i32) (i32.const 0x300))
  (func (export "ig:gadget/lifecycle@0.1.0#stop") (result i32) (i32.const 0x300))
  (func (export "ig:gadget/lifecycle@0.1.0#post-stop") (result i32) (i32.const 0x300))
  (func (export "ig:gadget/processor@0.1.0#process") (param $source i32) (param $rows i32) (param $raw i32)
    (param $rawn i32) (param $stride i32) (param $ends i32) (param $endsn i32) (param $cols i32) (param $colsn i32)
    (param $lost i64) (result i32)
    PROCESS
    (global.set $heap (i32.const 0x100000))
    (i32.const 0x300)))"#;

/// Answers what the kernel wrote: the records are four bytes, so raw is the column.
const ECHO: &str =
    "(call $u32s (local.get $raw) (local.get $rows)) (call $finish (i32.const 0) (i32.const 0) (i32.const 1))";
const OPEN: &str = "(call $open (i32.const 7))";
const OPEN_TEXT: &str = "(call $open (i32.const 11))";

fn encode(wat: &str) -> Vec<u8> {
    let mut module = wat::parse_str(wat).unwrap();
    let mut resolve = wit_parser::Resolve::default();
    let (package, _) = resolve.push_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../wit/v0.1")).unwrap();
    let world = resolve.select_world(&[package], Some("decoder")).unwrap();
    wit_component::embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8, false).unwrap();
    ComponentEncoder::default().module(&module).unwrap().validate(true).encode().unwrap()
}

fn component(init: &str, process: &str) -> Vec<u8> {
    encode(&TEMPLATE.replace("EXTRA", "").replace("INIT", init).replace("PROCESS", process))
}

fn engine() -> &'static Arc<Engine> {
    static ENGINE: OnceLock<Arc<Engine>> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let options =
            EngineOptions { deadline: Duration::from_secs(1), memory_limit: 16 << 20, ..EngineOptions::default() };
        Arc::new(Engine::new(options).unwrap())
    })
}

fn options() -> GuestOptions {
    GuestOptions { log_level: Level::Info, ..GuestOptions::quiet("t") }
}

fn sources() -> Vec<DataSource> {
    let mut s = DataSource::new("s", SourceKind::Events, 4);
    s.add(FieldDef::new("n", Kind::U32, Storage::Record { offset: 0, size: 4 }));
    vec![s]
}

fn new(wasm: &[u8]) -> Result<(Guest, Arc<DataSource>), WasmError> {
    let mut sources = sources();
    let guest = Guest::new(engine(), wasm, "sha256:x", options(), &mut sources)?;
    Ok((guest, Arc::new(sources.remove(0))))
}

fn batch(source: &Arc<DataSource>, rows: u32) -> Batch {
    let mut b = Batch::new(Arc::clone(source));
    for i in 0..rows {
        b.push(&(i + 1).to_le_bytes());
    }
    b
}

fn numbers(b: &Batch) -> Vec<Option<u64>> {
    let number = |r| match b.value(r, FieldId(1)) {
        Value::Uint(n) => Some(n),
        _ => None,
    };
    (0..b.len()).map(number).collect()
}

fn explain(e: &WasmError) -> String {
    let mut text = e.to_string();
    let mut source = std::error::Error::source(e);
    while let Some(s) = source {
        text.push_str(&format!("\n  because: {}", s.to_string().lines().next().unwrap_or_default()));
        source = s.source();
    }
    if let Some(hint) = e.hint() {
        text.push_str(&format!("\n  hint: {hint}"));
    }
    text
}

#[test]
fn an_honest_guest_decodes_every_live_row_across_chunks_and_gaps() {
    let (mut guest, source) = new(&component(OPEN, ECHO)).unwrap();
    assert!(guest.takes(0) && !guest.takes(1));
    guest.start().unwrap();
    let mut b = batch(&source, 600);
    for dead in [0, 5, 6, 255, 256, 599] {
        b.discard(dead, Reason::Filtered);
    }
    guest.process(0, &mut b);
    for r in b.iter() {
        assert_eq!(b.value(r, FieldId(1)), Value::Uint(r as u64 + 1), "row {r}");
    }
    assert_eq!((b.live(), b.loss.get(Reason::Undecoded)), (594, 0));
    let mut next = batch(&source, 1);
    guest.process(0, &mut next);
    assert_eq!(numbers(&next), [Some(1)]);
    guest.stop().unwrap();
    assert!(guest.take_notes().is_empty());
}

#[test]
fn rows_that_a_guest_drops_or_rejects_are_counted_and_said() {
    let process = r"(i32.store8 (i32.const 0x500) (i32.const 0xfd))
        (call $reject (i32.const 2) (i32.const 0x110) (i32.const 9))
        (call $reject (i32.const 2) (i32.const 0x110) (i32.const 9))
        (call $u32s (local.get $raw) (local.get $rows)) (call $finish (i32.const 0x500) (i32.const 1) (i32.const 1))";
    let (mut guest, source) = new(&component(OPEN, process)).unwrap();
    let mut b = batch(&source, 4);
    b.discard(0, Reason::Filtered);
    guest.process(0, &mut b);
    assert_eq!(b.iter().collect::<Vec<_>>(), [1, 3]);
    assert_eq!((b.loss.get(Reason::DroppedByGuest), b.loss.get(Reason::Undecoded)), (1, 1));
    let notes: Vec<String> = guest.take_notes().iter().map(ToString::to_string).collect();
    assert_eq!(notes, ["gadget t: its wasm rejected events: not today; these events are shown undecoded and counted"]);
}

/// Process bodies that are wrong, each in its own way.
const WRONG: &[(&str, &str, &str)] = &[
    ("trap", OPEN, "unreachable"),
    ("no answer", OPEN, ""),
    ("two answers", OPEN, "ECHO ECHO"),
    ("too few values", OPEN, "(call $u32s (local.get $raw) (i32.const 1)) (call $finish (i32.const 0) (i32.const 0) (i32.const 1))"),
    ("no columns", OPEN, "(call $finish (i32.const 0) (i32.const 0) (i32.const 0))"),
    ("other kind", OPEN_TEXT, "ECHO"),
    ("keep bits", OPEN, "(call $u32s (local.get $raw) (local.get $rows)) (call $finish (i32.const 0) (i32.const 9) (i32.const 1))"),
    (
        "garbage ends",
        OPEN_TEXT,
        "(i32.store (i32.const 0x600) (i32.const 0x7fffffff)) (call $text (i32.const 0x600) (local.get $rows) (i32.const 0x100) (i32.const 3))
         (call $finish (i32.const 0) (i32.const 0) (i32.const 1))",
    ),
    (
        "code without dictionary",
        OPEN_TEXT,
        "(i32.store8 (i32.const 0x400) (i32.const 14)) (i32.store (i32.const 0x404) (i32.const 0x800)) (i32.store (i32.const 0x408) (local.get $rows))
         (call $finish (i32.const 0) (i32.const 0) (i32.const 1))",
    ),
    (
        "list outside memory",
        OPEN,
        "(call $u32s (i32.const 0x7ffffff0) (local.get $rows)) (call $finish (i32.const 0) (i32.const 0) (i32.const 1))",
    ),
    ("row that is not there", OPEN, "(call $reject (i32.const 999) (i32.const 0x110) (i32.const 9)) ECHO"),
    ("memory bomb", OPEN, "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))"),
    ("deep recursion", OPEN, "(drop (call $process (local.get $source) (local.get $rows) (local.get $raw) (local.get $rawn) (local.get $stride) (local.get $ends) (local.get $endsn) (local.get $cols) (local.get $colsn) (local.get $lost)))"),
    ("answers, then traps", OPEN, "ECHO unreachable"),
    ("error", OPEN, "(return (i32.const 0x340))"),
    ("answers, then error", OPEN, "ECHO (return (i32.const 0x340))"),
];

#[test]
fn whatever_a_guest_does_wrong_its_rows_stay_and_are_counted() {
    let mut seen = Vec::new();
    for (name, init, process) in WRONG {
        let wat = TEMPLATE.replace("EXTRA", "").replace("INIT", init).replace("PROCESS", process).replace("ECHO", ECHO);
        let wat = wat.replace("(func (export \"ig:gadget/processor", "(func $process (export \"ig:gadget/processor");
        let (mut guest, source) = new(&encode(&wat)).unwrap_or_else(|e| panic!("{name}: {e}"));
        guest.start().unwrap();
        let mut b = batch(&source, 3);
        guest.process(0, &mut b);
        assert_eq!((b.live(), b.loss.get(Reason::Undecoded)), (3, 3), "{name}");
        assert_eq!(numbers(&b), [None; 3], "{name}");
        // Told once, however often it happens.
        let mut again = batch(&source, 300);
        guest.process(0, &mut again);
        assert_eq!((again.live(), again.loss.get(Reason::Undecoded)), (300, 300), "{name}");
        let notes = guest.take_notes();
        assert_eq!(notes.len(), 1, "{name}: {notes:?}");
        let text = notes[0].to_string();
        let key = notes[0].problem().map(Problem::key).unwrap();
        seen.push(format!("{name} ({key}): {}", text.lines().next().unwrap_or_default()));
    }
    insta::assert_snapshot!(seen.join("\n"));
}

#[test]
fn a_guest_that_loops_is_stopped_at_its_deadline() {
    let options = EngineOptions { deadline: Duration::from_millis(50), ..EngineOptions::default() };
    let engine = Arc::new(Engine::new(options).unwrap());
    let mut s = sources();
    let wasm = component(OPEN, "(loop $l (br $l))");
    let mut guest = Guest::new(&engine, &wasm, "d", self::options(), &mut s).unwrap();
    let mut b = batch(&Arc::new(s.remove(0)), 2);
    guest.process(0, &mut b);
    assert_eq!(b.loss.get(Reason::Undecoded), 2);
    assert_eq!(guest.take_notes()[0].problem().unwrap().to_string(), "ran longer than 50 ms");
    let e = Guest::new(&engine, &component("(loop $l (br $l))", ""), "d", self::options(), &mut sources()).unwrap_err();
    assert_eq!(e.to_string(), "gadget t: its wasm failed in init: ran longer than 50 ms");
}

#[test]
fn a_guest_that_traps_once_is_restarted_and_goes_on() {
    // Traps on the first record 13.
    let process = format!("(if (i32.eq (i32.load (local.get $raw)) (i32.const 13)) (then unreachable)) {ECHO}");
    let (mut guest, source) = new(&component(OPEN, &process)).unwrap();
    guest.start().unwrap();
    let mut b = Batch::new(Arc::clone(&source));
    b.push(&13u32.to_le_bytes());
    guest.process(0, &mut b);
    assert_eq!(b.loss.get(Reason::Undecoded), 1);
    let mut b = batch(&source, 2);
    guest.process(0, &mut b);
    assert_eq!((numbers(&b), b.loss.get(Reason::Undecoded)), (vec![Some(1), Some(2)], 0));
}

#[test]
fn a_guest_that_keeps_failing_stays_away() {
    let (mut guest, source) = new(&component(OPEN, "unreachable")).unwrap();
    let mut notes = Vec::new();
    let started = std::time::Instant::now();
    while notes.len() < 2 {
        assert!(started.elapsed() < Duration::from_secs(30), "never given up: {notes:?}");
        let mut b = batch(&source, 1);
        guest.process(0, &mut b);
        assert_eq!(b.loss.get(Reason::Undecoded), 1);
        notes.extend(guest.take_notes().iter().map(ToString::to_string));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(
        notes[1],
        "gadget t: its wasm failed 5 times within 60 s and stays away from now on; events are shown undecoded"
    );
}

#[test]
fn a_chunk_that_fails_between_two_good_ones_leaves_their_values_alone() {
    let process = format!("(if (i32.eq (i32.load (local.get $raw)) (i32.const 257)) (then {ECHO} unreachable)) {ECHO}");
    let (mut guest, source) = new(&component(OPEN, &process)).unwrap();
    let mut b = batch(&source, 600);
    guest.process(0, &mut b);
    assert_eq!(b.loss.get(Reason::Undecoded), 256);
    let got = numbers(&b);
    assert_eq!((got[255], got[256], got[511], got[512], got[599]), (Some(256), Some(0), Some(0), Some(513), Some(600)));
}

#[test]
fn what_cannot_be_opened_is_an_error_that_says_why() {
    let bad_init = |init: &str| new(&component(init, "")).map(|_| ()).unwrap_err();
    let core = wat::parse_str("(module)").unwrap();
    let wasi = wat::parse_str(r#"(component (import "wasi:cli/environment@0.2.0" (instance)))"#).unwrap();
    let newer = wat::parse_str(r#"(component (import "ig:gadget/weather@0.1.0" (instance)))"#).unwrap();
    let newer_fn = wat::parse_str(
        r#"(component (import "ig:gadget/log@0.1.0" (instance (export "shout" (func (param "m" string))))))"#,
    )
    .unwrap();
    let no_exports = wat::parse_str("(component)").unwrap();
    let good = component(OPEN, ECHO);
    let mut cut = good.clone();
    cut.truncate(good.len() / 2);
    let cases = [
        ("empty", new(b"").map(|_| ()).unwrap_err()),
        ("text", new(b"#!/bin/sh\n").map(|_| ()).unwrap_err()),
        ("core module", new(&core).map(|_| ()).unwrap_err()),
        ("truncated", new(&cut).map(|_| ()).unwrap_err()),
        ("wasi", new(&wasi).map(|_| ()).unwrap_err()),
        ("newer interface", new(&newer).map(|_| ()).unwrap_err()),
        ("newer function", new(&newer_fn).map(|_| ()).unwrap_err()),
        ("no exports", new(&no_exports).map(|_| ()).unwrap_err()),
        ("trap in init", bad_init("unreachable")),
        ("error in init", bad_init("(return (i32.const 0x340))")),
        ("memory in init", bad_init("(loop $l (br_if $l (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))")),
        ("taken name", bad_init("(call $open (i32.const 7)) (call $open (i32.const 7))")),
    ];
    let text: Vec<String> = cases.iter().map(|(name, e)| format!("{name}: {}", explain(e))).collect();
    insta::assert_snapshot!(text.join("\n"));
}

#[test]
fn what_a_guest_says_of_a_parameter_is_the_users_mistake() {
    let params = [("filters".to_owned(), "nope".to_owned())];
    let of = |message: &str| super::guest::is_of_one(message, &params);
    assert!(of("parameter filters: there is no system call \"nope\""));
    for other in
        ["parameter filter: no", "parameter filters", "filters: no", "parameter : no", "", "no field filters: x"]
    {
        assert!(!of(other), "{other}");
    }
}

#[test]
fn an_error_while_opening_leaves_the_schema_as_it_was() {
    let mut s = sources();
    let wasm = component("(call $open (i32.const 7)) unreachable", "");
    assert!(Guest::new(engine(), &wasm, "d", options(), &mut s).is_err());
    assert_eq!(s, sources());
}

#[test]
fn the_import_list_is_read_without_running_anything() {
    let wasm = component(OPEN, ECHO);
    let mut list = imports("t", "d", &wasm).unwrap();
    list.sort();
    let want = ["ig:gadget/log@0.1.0", "ig:gadget/sink@0.1.0", "ig:gadget/sources@0.1.0", "ig:gadget/types@0.1.0"];
    assert_eq!(list, want);
}

#[test]
fn the_schema_is_frozen_after_it_was_opened() {
    let process = format!(
        "(call $hide (i32.const 0) (i32.const 0x260)) (if (i32.eqz (i32.load8_u (i32.const 0x260))) (then unreachable)) {ECHO}"
    );
    let (mut guest, source) = new(&component(OPEN, &process)).unwrap();
    let mut b = batch(&source, 1);
    guest.process(0, &mut b);
    assert_eq!((numbers(&b), guest.take_notes().len()), (vec![Some(1)], 0));
}

#[test]
fn what_a_guest_says_reaches_the_log_and_no_flood_of_it() {
    let flood = r"(loop $l (call $log (i32.const 0) (i32.const 0x110) (i32.const 9))
        (global.set $count (i32.add (global.get $count) (i32.const 1)))
        (br_if $l (i32.lt_u (global.get $count) (i32.const 1000))))";
    let mut s = sources();
    let mut guest = Guest::new(engine(), &component(OPEN, &format!("{flood} {ECHO}")), "d", options(), &mut s).unwrap();
    let mut b = batch(&Arc::new(s.remove(0)), 1);
    let start = std::time::Instant::now();
    guest.process(0, &mut b);
    let said = guest.take_notes();
    // Fifty lines a second, and one that tells how many were left out; a busy machine may take some seconds.
    let seconds = start.elapsed().as_secs() as usize + 2;
    assert!((1..=51 * seconds).contains(&said.len()), "{} in {seconds} s", said.len());
    assert_eq!(said[0].to_string(), "gadget t: not today");
    assert!(said[0].is_for_everybody() && !said[0].is_failure());
}

#[test]
fn a_second_start_takes_the_compiled_code_from_disk_and_a_damaged_one_is_compiled_anew() {
    let t = tempfile::tempdir().unwrap();
    let dir = t.path().join("wasm");
    let options = EngineOptions { cache_dir: Some(dir.clone()), ..EngineOptions::default() };
    let wasm = component(OPEN, ECHO);
    let prepare = || Engine::new(options.clone()).unwrap().prepare("t", "d", &wasm).unwrap();
    assert_eq!(prepare(), engine::Compiled::Now);
    assert_eq!(prepare(), engine::Compiled::FromCache);
    let file = std::fs::read_dir(&dir).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(&file, bytes).unwrap();
    assert_eq!(prepare(), engine::Compiled::Now);
    assert_eq!(prepare(), engine::Compiled::FromCache);
    let mut s = sources();
    let engine = Arc::new(Engine::new(options.clone()).unwrap());
    let mut guest = Guest::new(&engine, &wasm, "d", self::options(), &mut s).unwrap();
    let mut b = batch(&Arc::new(s.remove(0)), 1);
    guest.process(0, &mut b);
    assert_eq!(numbers(&b), [Some(1)]);
    assert!(engine.cache_problem().is_none());
}

#[test]
fn a_cache_that_cannot_be_used_is_said_and_costs_only_time() {
    let options = EngineOptions { cache_dir: Some("/proc/no/such".into()), ..EngineOptions::default() };
    let engine = Engine::new(options).unwrap();
    assert_eq!(engine.prepare("t", "d", &component(OPEN, ECHO)).unwrap(), engine::Compiled::Now);
    let problem = engine.cache_problem().unwrap();
    assert_eq!(problem.to_string(), "compiled Wasm is not kept: /proc/no/such cannot be used");
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 64, failure_persistence: None, ..Default::default() })]

    #[test]
    fn arbitrary_bytes_never_make_a_guest_nor_a_panic(tail in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
        let header = b"\0asm\x0d\0\x01\0";
        for bytes in [tail.clone(), [&header[..], &tail].concat()] {
            drop(imports("t", "d", &bytes));
            if let Ok((mut guest, source)) = new(&bytes) {
                guest.process(0, &mut batch(&source, 1));
            }
        }
    }

    #[test]
    fn a_damaged_component_never_panics(at in 0usize..4000, bit in 0u8..8) {
        static GOOD: OnceLock<Vec<u8>> = OnceLock::new();
        let mut bytes = GOOD.get_or_init(|| component(OPEN, ECHO)).clone();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        drop(imports("t", "d", &bytes));
        if let Ok((mut guest, source)) = new(&bytes) {
            let mut b = batch(&source, 3);
            guest.process(0, &mut b);
            proptest::prop_assert_eq!(b.live() as u64 + b.loss.get(Reason::DroppedByGuest), 3);
        }
    }
}

#[test]
fn a_guest_can_have_columns_instead_of_records() {
    // Asks for field 0 alone and gives it back; a list of columns has 20 bytes an entry: case, then pointer and length.
    let init = "(call $add (i32.const 0) (i32.const 0x100) (i32.const 3) (i32.const 7) (i32.const 0) (i32.const 0)
        (i32.const 0) (i32.const 0) (i32.const 0x200))
        (call $sub (i32.const 0) (i32.const 1) (i32.const 0x280) (i32.const 1) (i32.const 0x204) (i32.const 1) (i32.const 2)
        (i32.const 0x220))
        (if (i32.load8_u (i32.const 0x220)) (then unreachable))";
    let process = "(if (i32.or (local.get $rawn) (i32.gt_u (local.get $rows) (i32.const 2))) (then unreachable))
        (if (i32.ne (local.get $colsn) (i32.const 1)) (then unreachable))
        (if (i32.ne (i32.load8_u (local.get $cols)) (i32.const 2)) (then unreachable))
        (call $u32s (i32.load offset=4 (local.get $cols)) (i32.load offset=8 (local.get $cols)))
        (call $finish (i32.const 0) (i32.const 0) (i32.const 1))";
    let (mut guest, source) = new(&component(init, process)).unwrap();
    let mut b = batch(&source, 5);
    b.discard(1, Reason::Filtered);
    guest.process(0, &mut b);
    assert!(guest.take_notes().is_empty());
    assert_eq!(numbers(&b), [Some(1), Some(0), Some(3), Some(4), Some(5)]);
}

#[test]
fn codes_stand_for_names_that_were_sent_once() {
    let dictionary = r#"(import "ig:gadget/sources@0.1.0" "set-dictionary" (func $names (param i32 i32 i32 i32)))"#;
    let init = format!(
        r"{OPEN_TEXT} (i32.store (i32.const 0x500) (i32.const 0x100)) (i32.store (i32.const 0x504) (i32.const 3))
        (i32.store (i32.const 0x508) (i32.const 0x110)) (i32.store (i32.const 0x50c) (i32.const 9))
        (call $names (i32.load (i32.const 0x204)) (i32.const 0x500) (i32.const 2) (i32.const 0x220))
        (if (i32.load8_u (i32.const 0x220)) (then unreachable))"
    );
    let process = r"(i32.store (i32.const 0x800) (i32.const 0x00000001))
        (i32.store8 (i32.const 0x400) (i32.const 14)) (i32.store (i32.const 0x404) (i32.const 0x800))
        (i32.store (i32.const 0x408) (local.get $rows)) (call $finish (i32.const 0) (i32.const 0) (i32.const 1))";
    let wat = TEMPLATE.replace("EXTRA", dictionary).replace("INIT", &init).replace("PROCESS", process);
    let (mut guest, source) = new(&encode(&wat)).unwrap();
    let mut b = batch(&source, 2);
    guest.process(0, &mut b);
    assert!(guest.take_notes().is_empty());
    let texts = [0, 1].map(|r| b.value(r, FieldId(1)));
    assert_eq!(texts, [Value::Text(b"not today".as_slice().into()), Value::Text(b"out".as_slice().into())]);
}

#[test]
fn a_field_of_its_own_is_a_column_of_the_batch() {
    let (_, source) = new(&component(OPEN, ECHO)).unwrap();
    assert_eq!(source.column_kinds(), [Kind::U32]);
    assert_eq!(Batch::new(source).columns, [Column::Empty]);
}
