//! Guests that go wrong with documents, timers and maps: the run and the host's memory live on, and what was wrong is said.

use super::*;

/// A guest that has no rows at all. `$doc` makes a document, `$write ptr len` and `$publish` act on it; results of calls lie
/// at 0x500: the first byte is not 0 for an error.
const SILENT: &str = r#"(module
  (import "ig:gadget/documents@0.1.0" "[constructor]document" (func $new (param i32 i32 i32 i32) (result i32)))
  (import "ig:gadget/documents@0.1.0" "[method]document.write" (func $wr (param i32 i32 i32 i32)))
  (import "ig:gadget/documents@0.1.0" "[method]document.publish" (func $pub (param i32 i32)))
  (import "ig:gadget/maps@0.1.0" "open" (func $map (param i32 i32 i32)))
  (memory (export "memory") 64)
  (global $heap (mut i32) (i32.const 0x100000))
  (global $doc (mut i32) (i32.const 0))
  (data (i32.const 0x100) "name")
  (data (i32.const 0x110) "text/plain")
  (data (i32.const 0x120) "hello")
  (data (i32.const 0x130) "\ff")
  (data (i32.const 0x340) "\01\00\00\00\07\00\00\00\00\01\00\00\04\00\00\00")
  (func (export "cabi_realloc") (param i32 i32 i32) (param $n i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 15)) (i32.const -16)))
    (global.set $heap (i32.add (local.get $at) (local.get $n)))
    (local.get $at))
  (func $make (global.set $doc (call $new (i32.const 0x100) (i32.const 4) (i32.const 0x110) (i32.const 10))))
  (func $write (param $at i32) (param $n i32) (call $wr (global.get $doc) (local.get $at) (local.get $n) (i32.const 0x500)))
  (func $publish (call $pub (global.get $doc) (i32.const 0x500)))
  (func $must (if (i32.load8_u (i32.const 0x500)) (then unreachable)))
  (func $fail (if (i32.eqz (i32.load8_u (i32.const 0x500))) (then unreachable)))
  (func (export "ig:gadget/lifecycle@0.1.0#init") (result i32) (i32.const 0x300))
  (func (export "ig:gadget/lifecycle@0.1.0#pre-start") (result i32) (i32.const 0x300))
  (func (export "ig:gadget/lifecycle@0.1.0#start") (result i32) (i32.const 0x300))
  (func (export "ig:gadget/lifecycle@0.1.0#stop") (result i32) STOP (i32.const 0x300))
  (func (export "ig:gadget/lifecycle@0.1.0#post-stop") (result i32) (i32.const 0x300))
  (func (export "ig:gadget/timer@0.1.0#interval-ms") (result i32) (i32.const INTERVAL))
  (func (export "ig:gadget/timer@0.1.0#tick") (result i32) TICK (i32.const 0x300)))"#;

/// The world of a guest without a processor.
fn encode_silent(wat: &str) -> Vec<u8> {
    let mut module = wat::parse_str(wat).unwrap();
    let mut resolve = wit_parser::Resolve::default();
    resolve.push_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../wit/v0.1")).unwrap();
    let world = "package t:t; world silent { import ig:gadget/documents@0.1.0; import ig:gadget/maps@0.1.0;
        export ig:gadget/lifecycle@0.1.0; export ig:gadget/timer@0.1.0; }";
    let package = resolve.push_str("t.wit", world).unwrap();
    let world = resolve.select_world(&[package], Some("silent")).unwrap();
    wit_component::embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8, false).unwrap();
    ComponentEncoder::default().module(&module).unwrap().validate(true).encode().unwrap()
}

fn silent(interval: u32, tick: &str, stop: &str) -> Guest {
    let wat = SILENT.replace("INTERVAL", &interval.to_string()).replace("TICK", tick).replace("STOP", stop);
    let mut guest = Guest::new(engine(), &encode_silent(&wat), "d", options(), &mut Vec::new()).unwrap();
    guest.start().unwrap();
    guest
}

const SAY: &str =
    "(call $make) (call $write (i32.const 0x120) (i32.const 5)) (call $must) (call $publish) (call $must)";

#[test]
fn a_guest_without_rows_writes_when_it_is_called_and_at_the_end() {
    let mut guest = silent(250, SAY, &format!("{SAY} {SAY}"));
    assert!(guest.makes_documents() && guest.interval() == Some(Duration::from_millis(250)));
    guest.tick();
    let first = guest.take_documents();
    assert_eq!(
        (first[0].name.as_str(), first[0].media_type.as_str(), first[0].text.as_str()),
        ("name", "text/plain", "hello")
    );
    assert!(first.len() == 1 && guest.take_documents().is_empty());
    guest.stop().unwrap();
    assert_eq!(guest.take_documents().len(), 2);
    assert!(guest.take_notes().is_empty());
    assert_eq!(silent(0, "", "").interval(), None);
    assert_eq!(silent(1, "", "").interval(), Some(Duration::from_millis(100)), "no faster than that");
}

#[test]
fn a_tick_that_breaks_takes_its_documents_along_and_the_guest_comes_back() {
    for (body, says) in [
        (format!("{SAY} unreachable"), "trapped: wasm `unreachable` instruction executed"),
        (format!("{SAY} (loop $l (br $l))"), "ran longer than 1000 ms"),
    ] {
        let mut guest = silent(100, &body, SAY);
        guest.tick();
        assert!(guest.take_documents().is_empty(), "{says}");
        let notes = guest.take_notes();
        assert_eq!(notes[0].problem().unwrap().to_string(), says);
        assert!(notes[0].is_failure());
        let stopped = guest.stop().map_err(|e| e.to_string());
        let forgot = "gadget t: its wasm broke and was started anew, so its documents may lack what came before that";
        assert_eq!(stopped, Err(forgot.to_owned()));
        assert_eq!(guest.take_documents().len(), 1, "a new instance writes at the end");
    }
}

#[test]
fn an_error_of_a_tick_is_told_once_and_what_was_published_stays() {
    let mut guest = silent(100, &format!("{SAY} (return (i32.const 0x340))"), "");
    guest.tick();
    guest.tick();
    assert_eq!(guest.take_documents().len(), 2);
    let notes: Vec<String> = guest.take_notes().iter().map(ToString::to_string).collect();
    assert_eq!(notes, ["gadget t: its wasm failed in tick: name (other); it goes on"]);
}

#[test]
fn a_guest_that_stays_away_says_that_its_documents_are_missing() {
    let mut guest = silent(100, "unreachable", SAY);
    let started = std::time::Instant::now();
    let mut given_up = false;
    while !given_up {
        assert!(started.elapsed() < Duration::from_secs(30));
        guest.tick();
        given_up = guest.take_notes().iter().any(|n| matches!(n.problem(), Some(Problem::GivenUp)));
        std::thread::sleep(Duration::from_millis(5));
    }
    let e = guest.stop().unwrap_err();
    assert_eq!(e.to_string(), "gadget t: its wasm failed too often and stays away, so its documents are missing");
    let mut trapping = silent(0, "", "unreachable");
    assert!(trapping.stop().unwrap_err().to_string().contains("failed in stop: trapped"));
}

#[test]
fn documents_are_bounded_whatever_a_guest_writes() {
    // What is not UTF-8, then a document that is too large, then more than all may have together.
    let stop = "(call $make) (call $write (i32.const 0x130) (i32.const 1)) (call $must) (call $publish) (call $fail)
        (loop $one (call $write (i32.const 0x1000) (i32.const 0x200000))
          (br_if $one (i32.eqz (i32.load8_u (i32.const 0x500)))))
        (loop $all (call $make) (call $write (i32.const 0x1000) (i32.const 0x200000)) (call $write (i32.const 0x1000) (i32.const 0x200000))
          (br_if $all (i32.eqz (i32.load8_u (i32.const 0x500)))))";
    let mut guest = silent(0, "", stop);
    guest.stop().unwrap();
    assert!(guest.take_documents().is_empty());
    // Handles without end.
    let mut guest = silent(0, "", "(loop $l (call $make) (br $l))");
    let e = guest.stop().unwrap_err().to_string();
    assert!(e.contains("failed in stop: broke the rules of the interface"), "{e}");
    // A handle that was never given.
    let mut guest = silent(0, "", "(global.set $doc (i32.const 77)) (call $publish)");
    assert!(guest.stop().is_err());
}

#[test]
fn there_are_no_maps_without_a_kernel_and_none_of_another_name() {
    let open = "(call $map (i32.const 0x100) (i32.const 4) (i32.const 0x500)) (call $fail)";
    silent(0, "", open).stop().unwrap();
    let services = Arc::new(Services::default());
    services.lend_maps([]).unwrap();
    let wat = SILENT.replace("INTERVAL", "0").replace("TICK", "").replace("STOP", open);
    let options = GuestOptions { services, ..options() };
    let mut guest = Guest::new(engine(), &encode_silent(&wat), "d", options, &mut Vec::new()).unwrap();
    guest.start().unwrap();
    guest.stop().unwrap();
}
