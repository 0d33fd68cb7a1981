//! What is read from an object, without root: markers, maps, params, schema, CO-RE, and garbage that must not panic.
//! Needs clang.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/clang.rs"]
mod clang;

use aya_obj::btf::BtfFeatures;
use ig_event::Storage;
use ig_runtime::{
    bpf::{
        Hook, KernelBtf, Marker, Object,
        btf::{Btf, Kind, essential},
        core_reloc::{self, CoreError, Fault, RelocKind},
        object::{MapFault, ObjectError},
        prepare::{self, PrepareError},
    },
    gadget::{
        params::{Param, ParamError, ParamNotes, params},
        schema::{Annotations, Producer, SchemaError, SourceAnnotations, data_sources},
    },
};
use proptest::prelude::*;
use std::{collections::BTreeMap, sync::LazyLock};

static FIELDS: LazyLock<Vec<u8>> = LazyLock::new(|| clang::object("fields"));
static KINDS: LazyLock<Vec<u8>> = LazyLock::new(|| clang::object("kinds"));
static CORE: LazyLock<Vec<u8>> = LazyLock::new(|| clang::object("core"));

fn parse(bytes: &[u8]) -> Object {
    Object::parse("test", bytes).unwrap()
}

fn no_kernel() -> KernelBtf {
    KernelBtf::at("/nonexistent")
}

#[test]
fn programs_hooks_maps_and_markers() {
    let o = parse(&KINDS);
    let hooks: Vec<String> = o.programs.iter().map(|p| format!("{} {}", p.name, p.hook)).collect();
    assert!(hooks.contains(&"on_uprobe uprobe//proc/self/exe:bpf_test_probe_me".to_owned()), "{hooks:?}");
    assert_eq!(o.program("on_unknown").unwrap().hook, Hook::Unknown { section: "program7".into() });
    assert_eq!(o.program("on_socket").unwrap().hook, Hook::SocketFilter { section: "socket1".into() });
    assert_eq!(o.license, "GPL");
    let hits = o.map("hits").unwrap();
    assert_eq!((hits.kind, hits.key_size, hits.value_size, hits.max_entries), (6, 4, 8, 16));
    assert!(o.map(".rodata").unwrap().data.is_some());
    let iter = Marker::Iter { source: "tasks".into(), structure: "row".into(), programs: vec!["on_iter_task".into()] };
    let walks = Marker::MapElemTarget { program: "on_iter_elem".into(), map: "table".into() };
    for m in [&iter, &walks, &Marker::Param { var: "only_tgid".into() }] {
        assert!(o.markers.contains(m), "{m} in {:?}", o.markers);
    }
    assert_eq!(o.var("table_max_entries").unwrap().default, 7u32.to_le_bytes());
    serde_json::to_string(&(&o.programs, &o.maps, &o.markers, &o.vars)).unwrap();
}

#[test]
fn what_is_no_bpf_object_says_so() {
    let fails = |b: &[u8]| Object::parse("img", b).unwrap_err();
    assert!(matches!(fails(b"hello"), ObjectError::NotElf { .. }));
    assert!(fails(b"hello").to_string().contains("img"));
    let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
    assert!(matches!(fails(&own), ObjectError::NotBpf { .. }));
    assert!(fails(&own).hint().is_some());
}

/// One line a field: what tells whether the schema is right.
fn listing(o: &Object) -> String {
    let mut out = String::new();
    for p in data_sources(o, &no_kernel(), &Annotations::default()).unwrap() {
        let s = &p.source;
        out += &format!("{} {:?} {} bytes, {:?}\n", s.name, s.kind, s.record_size, p.producer);
        for f in s.fields() {
            let storage = match &f.def.storage {
                Storage::Derived { from, how } => format!("from {} by {how:?}", s.field(*from).full_name),
                other => format!("{other:?}"),
            };
            out += &format!("  {} {:?} {storage} {:?} {:?}\n", f.full_name, f.def.kind, f.def.tags, f.def.annotations);
        }
    }
    out
}

#[test]
fn schema_of_every_kind_of_field() {
    insta::assert_snapshot!(listing(&parse(&FIELDS)));
}

#[test]
fn annotations_go_on_top_and_unknown_names_are_errors() {
    let o = parse(&FIELDS);
    let of = |source: &str, field: &str| {
        let values = BTreeMap::from([("columns.width".to_owned(), "9".to_owned())]);
        let fields = BTreeMap::from([(field.to_owned(), values)]);
        let source_annotations = SourceAnnotations { annotations: BTreeMap::new(), fields };
        Annotations { sources: BTreeMap::from([(source.to_owned(), source_annotations)]) }
    };
    let plans = data_sources(&o, &no_kernel(), &of("all", "proc.comm")).unwrap();
    assert_eq!(plans[0].source.find("proc.comm").unwrap().annotation("columns.width"), Some("9"));
    assert!(matches!(&plans[0].producer, Producer::Tracer { map } if map == "events"));
    let plans = data_sources(&o, &no_kernel(), &of("all", "proc.com")).unwrap();
    assert_eq!(plans[0].pending().collect::<Vec<_>>(), ["proc.com"], "the guest may still add it");
    let e = plans[0].finish(&mut plans[0].source.clone()).unwrap_err();
    assert!(matches!(e, SchemaError::UnknownField { .. }));
    assert!(e.hint().unwrap().contains("proc.comm"), "{:?}", e.hint());
    let e = data_sources(&o, &no_kernel(), &of("al", "proc.comm")).unwrap_err();
    assert!(matches!(e, SchemaError::UnknownSource { .. }), "{e}");
}

fn param<'a>(all: &'a [Param], key: &str) -> &'a Param {
    all.iter().find(|p| p.key == key).unwrap_or_else(|| panic!("no {key} in {all:?}"))
}

#[test]
fn params_have_types_and_defaults_and_refuse_what_does_not_fit() {
    let o = parse(&FIELDS);
    let all = params(&o, &BTreeMap::new()).unwrap();
    let shown: Vec<String> = all.iter().map(|p| format!("{} {} {}", p.key, p.ty, p.default)).collect();
    for wanted in [
        "flag bool true",
        "tiny int8 -5",
        "small uint16 500",
        "pid int32 -1",
        "large uint64 18446744073709551615",
        "ratio float64 0.5",
        "text string abc",
        "peer ip ",
    ] {
        assert!(shown.iter().any(|s| s == wanted), "{wanted} in {shown:?}");
    }
    for p in &all {
        assert_eq!(
            p.parse(&p.default).unwrap(),
            o.var(p.var.as_ref().unwrap()).unwrap().default,
            "{} keeps its default",
            p.key
        );
    }
    assert_eq!(param(&all, "tiny").parse("-128").unwrap(), [0x80]);
    assert_eq!(param(&all, "small").parse("0xffff").unwrap(), [0xff, 0xff]);
    assert_eq!(param(&all, "text").parse("1234567").unwrap(), *b"1234567\0");
    assert_eq!(param(&all, "peer").parse("10.0.0.1").unwrap()[..4], [10, 0, 0, 1]);
    assert_eq!(param(&all, "peer").parse("::1").unwrap()[15..17], [1, 6]);
    let fails = |key: &str, text: &str| param(&all, key).parse(text).unwrap_err();
    assert_eq!(fails("tiny", "-129").to_string(), "parameter tiny: -129 is out of range, -128 to 127");
    assert!(matches!(fails("small", "65536"), ParamError::Range { .. }));
    assert!(matches!(fails("small", "-1"), ParamError::Range { .. }));
    assert!(matches!(fails("large", "18446744073709551616"), ParamError::Range { .. }));
    assert!(matches!(fails("large", "999999999999999999999999999999999999999999999"), ParamError::Range { .. }));
    for text in ["", "x", "--1", "-+1", "1.5", "0x", "1 2"] {
        assert!(matches!(fails("pid", text), ParamError::NotNumber { .. }), "{text:?}");
    }
    assert!(matches!(fails("flag", "yes"), ParamError::NotBool { .. }));
    assert!(matches!(fails("text", "12345678"), ParamError::TooLong { max: 7, .. }));
    assert!(matches!(fails("text", "a\0b"), ParamError::Nul { .. }));
    assert!(matches!(fails("peer", "1.2.3"), ParamError::NotIp { .. }));
    assert!(matches!(fails("ratio", "half"), ParamError::NotFloat { .. }));
    let notes = |var: &str, default: &str| {
        BTreeMap::from([(var.to_owned(), ParamNotes { default: Some(default.into()), ..ParamNotes::default() })])
    };
    assert_eq!(param(&params(&o, &notes("small", "7")).unwrap(), "small").default, "7");
    assert!(
        matches!(params(&o, &notes("small", "-7")), Err(ParamError::Range { .. })),
        "a wrong default in gadget.yaml"
    );
    assert!(matches!(params(&o, &notes("smal", "7")), Err(ParamError::Unknown { .. })));
}

#[test]
fn core_against_types_that_differ() {
    let local = parse(&clang::object("core_local"));
    let target = parse(&clang::object("core_target")).btf;
    let relocs = core_reloc::relocations(&local).unwrap();
    let resolve = |r| core_reloc::resolve(&local.btf, r, &[&target]);
    let of = |section: &str| relocs.iter().filter(|r| r.section == section).collect::<Vec<_>>();
    let all: Vec<(RelocKind, u64, bool)> = of("raw_tp/all")
        .iter()
        .map(|r| resolve(r).map(|v| (r.kind, v.new, v.poison)).unwrap_or_else(|e| panic!("{r:?}: {e}")))
        .collect();
    use RelocKind as K;
    let id = |name| u64::from(target.find(name, Kind::Struct).unwrap().id);
    let own = u64::from(local.btf.find("absent", Kind::Struct).unwrap().id);
    let wanted = [
        (K::FieldByteOffset, 64), // through two anonymous members
        (K::FieldExists, 0),
        (K::FieldExists, 1),
        (K::FieldByteSize, 32),
        (K::FieldByteOffset, 11),
        (K::FieldSigned, 0),
        (K::FieldLshiftU64, 64 - 9),
        (K::FieldRshiftU64, 60),
        (K::FieldByteOffset, 48),
        (K::FieldByteSize, 4),
        (K::FieldByteOffset, 40), // another flavour's name for the same type
        (K::FieldByteOffset, 28), // beyond the end of a flexible array
        (K::FieldByteOffset, 0),  // two types of this name that agree
        (K::TypeExists, 0),
        (K::TypeSize, 80),
        (K::TypeMatches, 1),
        (K::TypeMatches, 0),
        (K::TypeIdTarget, id("tail")),
        (K::TypeIdLocal, own),
        (K::EnumvalExists, 0),
        (K::EnumvalValue, 77),
        (K::EnumvalValue, 1 << 41),
    ];
    let got: Vec<(RelocKind, u64)> = all.iter().map(|(k, v, _)| (*k, *v)).collect();
    assert_eq!(got, wanted);
    assert!(all.iter().all(|(_, _, poison)| !poison));
    assert!(resolve(of("raw_tp/poison")[0]).unwrap().poison);
    assert_eq!(resolve(of("raw_tp/ambiguous")[0]), Err(Fault::Ambiguous));
}

#[test]
fn core_rewrites_instructions() {
    let local = parse(&clang::object("core_local"));
    let target = parse(&clang::object("core_target")).btf;
    let relocs = core_reloc::relocations(&local).unwrap();
    let only = |section: &str| relocs.iter().filter(|r| r.section == section).cloned().collect::<Vec<_>>();
    let code = |section: &str| {
        let mut image = local.image.clone();
        core_reloc::apply(&local, &only(section), &[&target], &mut image).map(|()| {
            let s = local.sections.iter().find(|s| s.name == section).unwrap();
            image[s.file_offset..s.file_offset + s.data.len()].to_vec()
        })
    };
    let poison = code("raw_tp/poison").unwrap();
    let call = [0x85, 0, 0, 0, 0x10, 0x23, 0xad, 0x0b];
    assert!(poison.chunks(8).any(|i| i == call), "{poison:02x?}");
    let load = code("raw_tp/load").unwrap();
    // a load of four bytes (0x61) becomes one of one byte (0x71) at offset 73
    assert!(load.chunks(8).any(|i| i[0] == 0x71 && i[2] == 73), "{load:02x?}");
    let e = code("raw_tp/ambiguous").unwrap_err();
    assert!(matches!(&e, CoreError::Relocation { fault: Fault::Ambiguous, .. }), "{e}");
    assert!(e.to_string().contains("twin"), "{e}");
}

#[test]
fn names_without_flavour() {
    for (name, is) in [
        ("a", "a"),
        ("task___x", "task"),
        ("a___b___c", "a___b"),
        ("a____b", "a____b"),
        ("___x", "___x"),
        ("x___", "x___"),
    ] {
        assert_eq!(essential(name), is, "{name}");
    }
}

#[test]
fn the_kernels_types_are_found_by_name() {
    let kernel = KernelBtf::new();
    assert!(!kernel.is_read());
    let btf = kernel.get().expect("this test needs a kernel with BTF");
    let task = btf.find("task_struct", Kind::Struct).unwrap();
    assert!(btf.members(&task).any(|m| btf.name(m.name_off) == "tgid"));
    assert!(btf.find("btf_trace_sys_enter", Kind::Typedef).is_some());
    assert!(btf.find("bpf_iter_task", Kind::Func).is_some());
    assert!(btf.find("no_such_type_anywhere", Kind::Struct).is_none());
    assert_eq!(btf.size_of(btf.find("list_head", Kind::Struct).unwrap().id), Some(16));
}

/// Everything that is done with an image's object before the kernel sees it.
fn exercise(bytes: &[u8]) {
    let Ok(o) = Object::parse("garbage", bytes) else { return };
    drop(data_sources(&o, &no_kernel(), &Annotations::default()));
    drop(params(&o, &BTreeMap::new()));
    let Ok(relocs) = core_reloc::relocations(&o) else { return };
    let given: Vec<(String, Vec<u8>)> = o.vars.iter().map(|v| (v.name.clone(), v.default.clone())).collect();
    let targets = [&o.btf];
    let Ok(prepared) = prepare::prepare(&o, &given, &relocs, &targets) else { return };
    // what aya does with it may fail, and must not panic: a release build would abort
    let Ok(mut theirs) = aya_obj::Object::parse(&prepared) else { return };
    let all = BtfFeatures::new(true, true, true, true, true, true, true, true);
    drop(theirs.fixup_and_sanitize_btf(&all));
    let text = theirs.functions.keys().map(|(section, _)| *section).collect();
    let maps = theirs.maps.clone();
    if theirs.relocate_maps(maps.iter().map(|(name, m)| (name.as_str(), 7, m)), &text).is_ok() {
        drop(theirs.relocate_calls(&text));
    }
}

#[test]
fn aya_parses_what_is_prepared() {
    for (name, bytes) in [("fields", &*FIELDS), ("kinds", &*KINDS), ("core", &*CORE)] {
        let o = parse(bytes);
        let relocs = core_reloc::relocations(&o).unwrap();
        let prepared = prepare::prepare(&o, &[], &relocs, &[&o.btf]).unwrap_or_else(|e| panic!("{name}: {e}"));
        let theirs = aya_obj::Object::parse(&prepared).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(theirs.programs.len(), o.programs.len(), "{name}");
        assert!(!theirs.has_btf_relocations(), "{name}");
        let ours: Vec<_> = o.maps.iter().filter(|m| m.data.is_none()).collect();
        for m in ours {
            let t = &theirs.maps[&m.name];
            let of_theirs = (t.map_type(), t.key_size(), t.value_size(), t.max_entries(), t.map_flags());
            assert_eq!((m.kind, m.key_size, m.value_size, m.max_entries, m.flags), of_theirs, "{name}: {}", m.name);
        }
    }
}

fn refused(bytes: &[u8]) -> PrepareError {
    let o = parse(bytes);
    prepare::prepare(&o, &[], &[], &[&o.btf]).unwrap_err()
}

#[test]
fn code_that_is_not_marked_as_such_is_refused() {
    const FLAGS: usize = 8;
    let o = parse(&CORE);
    let text = o.sections.iter().position(|s| s.name == ".text" && s.size > 0).unwrap();
    let headers = u64::from_le_bytes(CORE[0x28..0x30].try_into().unwrap()) as usize;
    let mut forged = CORE.clone();
    forged[headers + text * 64 + FLAGS..][..8].fill(0);
    assert_eq!(refused(&forged), PrepareError::Damaged("code that is not marked as such"));
}

#[test]
fn kernel_supplied_variables_have_the_size_of_a_number() {
    assert!(matches!(refused(&clang::object("externs")), PrepareError::Damaged(what) if what.contains("larger")));
}

#[test]
fn a_map_has_no_name_that_leads_elsewhere() {
    for name in ["../h", "a/bc", "....", "a\x1bbc"] {
        let mut forged = KINDS.clone();
        let (old, new) = (b"\0hits\0", format!("\0{name}\0"));
        for at in 0..forged.len() - old.len() {
            if forged[at..].starts_with(old) {
                forged[at..at + old.len()].copy_from_slice(new.as_bytes());
            }
        }
        let e = Object::parse("img", &forged).unwrap_err();
        assert!(matches!(&e, ObjectError::Map { what: MapFault::Name, .. }), "{name}: {e}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changed_bytes_never_panic(which in 0..3usize, changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12)) {
        let mut bytes = [&*FIELDS, &*KINDS, &*CORE][which].clone();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        exercise(&bytes);
    }

    #[test]
    fn changed_headers_and_tables_never_panic(which in 0..3usize, table in 0..6usize, changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6)) {
        let mut bytes = [&*FIELDS, &*KINDS, &*CORE][which].clone();
        let o = parse(&bytes);
        let range = |name: &str| o.sections.iter().find(|s| s.name == name).map(|s| (s.file_offset, s.data.len()));
        let headers = u64::from_le_bytes(bytes[0x28..0x30].try_into().unwrap()) as usize;
        let (start, len) = match table {
            0 => (0, 64),
            1 => (headers, bytes.len() - headers),
            2 => range(".symtab").unwrap(),
            3 => range(".BTF").unwrap(),
            4 => range(".BTF.ext").unwrap(),
            _ => o.sections.iter().find(|s| s.name.starts_with(".rel")).map(|s| (s.file_offset, s.data.len())).unwrap(),
        };
        for (at, byte) in changes {
            bytes[start + at.index(len)] = byte;
        }
        exercise(&bytes);
    }

    #[test]
    fn cut_files_never_panic(which in 0..3usize, at in any::<prop::sample::Index>()) {
        let bytes = [&*FIELDS, &*KINDS, &*CORE][which];
        exercise(&bytes[..at.index(bytes.len())]);
    }

    #[test]
    fn garbage_btf_never_panics(head in any::<bool>(), mut bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if head && bytes.len() > 24 {
            let len = bytes.len() as u32 - 24;
            for (i, w) in [0x0001_eb9f, 24, 0, len / 2, len / 2, len - len / 2].into_iter().enumerate() {
                bytes[i * 4..i * 4 + 4].copy_from_slice(&u32::to_le_bytes(w));
            }
            *bytes.last_mut().unwrap() = 0;
        }
        if let Ok(b) = Btf::parse(bytes) {
            for t in b.types() {
                let _ = (b.name(t.name_off), b.resolve(t.id), b.size_of(t.id), b.members(&t).count(), b.enumerators(&t).count());
                let _ = (b.find("x", t.kind), b.params(&t).count(), b.section_vars(&t).count(), b.array(&t), b.int(&t));
            }
        }
    }
}
