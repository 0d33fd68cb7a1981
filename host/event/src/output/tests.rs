//! Goldens of every mode over a schema that has every kind, and properties that hold for any batch.

use super::*;
use crate::{Column, Derive, Entity, EntityValue, FieldDef, Kind, Storage, Vars, output::layout::display_width};
use proptest::prelude::*;

/// Builds a record and its schema side by side.
struct Schema {
    source: DataSource,
    at: u32,
}

impl Schema {
    fn new(kind: SourceKind) -> Self {
        Schema { source: DataSource::new("everything", kind, 0), at: 0 }
    }

    fn add(&mut self, def: FieldDef) -> FieldId {
        self.source.add(def).unwrap()
    }

    fn record(&mut self, name: &str, kind: Kind, size: u32) -> FieldDef {
        let offset = self.at;
        self.at += size;
        self.source.record_size = self.at;
        FieldDef::new(name, kind, Storage::Record { offset, size })
    }

    fn number(&mut self, name: &str, kind: Kind) -> FieldId {
        let def = self.record(name, kind, kind.size().unwrap());
        self.add(def)
    }

    /// `name_raw`, hidden, and `name`, derived from it.
    fn derived(&mut self, name: &str, kind: Kind, how: Derive) -> FieldId {
        let raw = self.record(&format!("{name}_raw"), kind, kind.size().unwrap()).annotate("columns.hidden", "true");
        let from = self.add(raw);
        self.add(FieldDef::new(name, Kind::Text, Storage::Derived { from, how }))
    }
}

/// Every kind, every derivation, nesting, an endpoint, columns of text, numbers and codes, and a container.
fn everything(kind: SourceKind) -> Arc<DataSource> {
    let mut s = Schema::new(kind);
    s.at = 8;
    let time = FieldDef::new("timestamp_raw", Kind::U64, Storage::BootTime { offset: 0 });
    let from = s.add(time.annotate("columns.hidden", "true"));
    s.add(FieldDef::new("timestamp", Kind::Text, Storage::Derived { from, how: Derive::Timestamp }));
    let proc = s.add(FieldDef::new("proc", Kind::Bytes, Storage::Group));
    let comm = s.record("comm", Kind::CString, 16).under(proc).annotate("columns.alias", "comm");
    s.add(comm.tag("type:gadget_comm"));
    let pid = s.record("pid", Kind::U32, 4).under(proc).annotate("columns.alias", "pid").tag("type:gadget_pid");
    s.add(pid);
    let creds = s.add(FieldDef::new("creds", Kind::Bytes, Storage::Group).under(proc));
    let uid = s.record("uid", Kind::U32, 4).under(creds).annotate("columns.width", "0");
    let from = s.add(uid);
    s.add(FieldDef::new("user", Kind::Text, Storage::Derived { from, how: Derive::User }).under(creds));
    for kind in [Kind::Bool, Kind::I8, Kind::I16, Kind::I32, Kind::I64, Kind::U8, Kind::U16, Kind::U64] {
        let def = s.record(&format!("{kind:?}").to_lowercase(), kind, kind.size().unwrap());
        s.add(def.annotate("columns.width", "0"));
    }
    s.number("f32", Kind::F32);
    s.number("f64", Kind::F64);
    let hex = s.record("hex", Kind::I16, 2).annotate("columns.hex", "true").annotate("columns.alignment", "right");
    s.add(hex);
    let mac = s.record("mac", Kind::Bytes, 6);
    s.add(mac);
    let skip = s.record("internal", Kind::U32, 4).annotate("json.skip", "true").annotate("columns.hidden", "true");
    s.add(skip);
    let gone = s.number("gone", Kind::U8);
    s.source.field_mut(gone).unreferenced = true;
    s.derived("error", Kind::U32, Derive::Errno);
    s.derived("sig", Kind::I32, Derive::Signal);
    s.derived("call", Kind::U16, Derive::Syscall);
    s.derived("mode", Kind::U16, Derive::FileMode);
    s.derived("flags", Kind::U32, Derive::OpenFlags);
    s.derived("size", Kind::U64, Derive::Bytes);
    s.derived("latency", Kind::U64, Derive::Duration);
    s.derived("op", Kind::U8, Derive::Enum(Arc::new(vec![(1, "\"read\"\x1b".into()), (2, "write".into())])));
    let bits = Arc::new(vec![(1, "A".to_owned()), (2, "B".to_owned())]);
    s.derived("set", Kind::U8, Derive::Bits { names: bits, separator: "|".into() });
    endpoint(&mut s);
    let args = s.source.new_column(Kind::Text);
    s.add(FieldDef::new("args", Kind::Text, args).annotate("columns.ellipsis", "middle"));
    let count = s.source.new_column(Kind::U32);
    s.add(FieldDef::new("count", Kind::U32, count).annotate("columns.maxwidth", "6"));
    let code = s.source.new_column(Kind::Text);
    s.add(FieldDef::new("code \"x\"", Kind::Text, code));
    runtime(&mut s);
    Arc::new(s.source)
}

fn endpoint(s: &mut Schema) {
    let src = s.add(FieldDef::new("src", Kind::Text, Storage::Group));
    let raw = s.record("addr_raw", Kind::Bytes, 16).under(src).annotate("json.skip", "true");
    let addr = s.add(raw);
    let port = s.record("port", Kind::U16, 2).under(src);
    let port = s.add(port);
    let version = s.record("version", Kind::U8, 1).under(src);
    let version = s.add(version);
    let proto = s.record("proto_raw", Kind::U8, 1).under(src);
    let proto = s.add(proto);
    let text = |from, how| Storage::Derived { from, how };
    s.add(FieldDef::new("addr", Kind::Text, text(addr, Derive::Ip { version })).under(src));
    s.add(FieldDef::new("proto", Kind::Text, text(proto, Derive::IpProto)).under(src));
    s.source.field_mut(src).def.storage = text(addr, Derive::Endpoint { port, version });
}

fn runtime(s: &mut Schema) {
    let slot = s.source.new_entity_slot();
    let group = s.add(FieldDef::new("runtime", Kind::Bytes, Storage::Group));
    for (member, (name, kind)) in
        [("containerName", Kind::Text), ("containerPid", Kind::U32), ("privileged", Kind::Bool)].into_iter().enumerate()
    {
        let storage = Storage::Entity { slot, member: member as u32 };
        s.add(FieldDef::new(name, kind, storage).under(group));
    }
}

fn container(name: &str) -> Arc<Entity> {
    let values = vec![EntityValue::Text(name.into()), EntityValue::Uint(4711), EntityValue::Bool(true)];
    Arc::new(Entity { values })
}

fn le(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// The first record has a plain value everywhere, the second hostile and extreme ones.
fn records() -> [Vec<u8>; 2] {
    #[rustfmt::skip]
    let plain = le(&[
        &5_000_000_000u64.to_le_bytes(), b"cat\0garbage.....", &42u32.to_le_bytes(), &0u32.to_le_bytes(),
        &[1, (-3i8) as u8], &(-300i16).to_le_bytes(), &(-70_000i32).to_le_bytes(), &(-1i64 << 40).to_le_bytes(),
        &[200], &60_000u16.to_le_bytes(), &(1u64 << 63).to_le_bytes(), &1.5f32.to_le_bytes(), &(-0.1f64).to_le_bytes(),
        &0x2ai16.to_le_bytes(), &[0, 1, 2, 0xfd, 0xfe, 0xff], &7u32.to_le_bytes(), &[9],
        &2u32.to_le_bytes(), &9i32.to_le_bytes(), &257u16.to_le_bytes(), &0o644u16.to_le_bytes(), &0o101u32.to_le_bytes(),
        &1_200_000u64.to_le_bytes(), &1500u64.to_le_bytes(), &[1], &[3],
        &[10, 0, 0, 1], &[0; 12], &443u16.to_le_bytes(), &[4, 6],
    ]);
    #[rustfmt::skip]
    let hostile = le(&[
        &u64::MAX.to_le_bytes(), b"\x1b[2J\xff\xe6\x97\xa5\"\\\n\t\xe2\x80\xaez", &u32::MAX.to_le_bytes(), &u32::MAX.to_le_bytes(),
        &[7, 0x80], &i16::MIN.to_le_bytes(), &i32::MIN.to_le_bytes(), &i64::MIN.to_le_bytes(),
        &[255], &u16::MAX.to_le_bytes(), &u64::MAX.to_le_bytes(), &f32::NAN.to_le_bytes(), &f64::NEG_INFINITY.to_le_bytes(),
        &(-1i16).to_le_bytes(), &[0; 6], &0u32.to_le_bytes(), &[0],
        &4000u32.to_le_bytes(), &64i32.to_le_bytes(), &u16::MAX.to_le_bytes(), &u16::MAX.to_le_bytes(), &u32::MAX.to_le_bytes(),
        &u64::MAX.to_le_bytes(), &u64::MAX.to_le_bytes(), &[99], &[0xff],
        &[0x20, 1, 0xd, 0xb8], &[0; 11], &[1], &u16::MAX.to_le_bytes(), &[6, 255],
    ]);
    [plain, hostile]
}

/// Rows: plain, hostile, and one whose record is empty and which has neither columns nor a container.
fn batch(source: &Arc<DataSource>) -> Batch {
    let mut b = Batch::new(source.clone());
    b.boot_to_wall = 1_722_451_151_455_283_441;
    for record in records() {
        assert_eq!(record.len(), source.record_size as usize);
        b.push(&record);
    }
    b.push(&[]);
    let mut args = Vars::default();
    args.push(b"cat /etc/passwd --and-many more arguments");
    args.push("日本語の長い引数がここにあります\0\u{2028}é".as_bytes());
    b.columns[0] = Column::Text(args);
    b.columns[1] = Column::U32(vec![1, 4_000_000_000]);
    b.columns[2] = Column::Codes { codes: vec![0, 1], names: Arc::new(vec!["one".into(), "<&>".into()]) };
    b.set_entity(0, 0, Some(container("web")));
    b.set_entity(0, 1, Some(container("\"evil\"\n\u{202e}")));
    b
}

fn env(width: Option<usize>) -> PrinterEnv {
    let mut names = HostNames::default();
    names.users.insert(0, "root".into());
    names.syscalls.insert(257, "openat".into());
    PrinterEnv { names: Arc::new(names), zone: TimeZone::fixed(jiff::tz::offset(-5)), width }
}

fn shown(source: &Arc<DataSource>, mode: OutputMode, fields: &str, env: PrinterEnv, batch: &Batch) -> String {
    let fields = FieldSelection::parse(fields, source).unwrap();
    let mut printer = printer(source, mode, &fields, env).unwrap();
    let mut out = Vec::new();
    printer.header(&mut out);
    printer.batch(batch, &mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn json_of_every_kind() {
    let source = everything(SourceKind::Events);
    let text = shown(&source, OutputMode::Json, "", env(None), &batch(&source));
    insta::assert_snapshot!(text);
    for line in text.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
}

#[test]
fn jsonpretty_of_every_kind_says_the_same() {
    let source = everything(SourceKind::Events);
    let b = batch(&source);
    let pretty = shown(&source, OutputMode::JsonPretty, "", env(None), &b);
    insta::assert_snapshot!(pretty);
    let values = |text: &str| -> Vec<serde_json::Value> {
        serde_json::Deserializer::from_str(text).into_iter().map(Result::unwrap).collect()
    };
    assert_eq!(values(&pretty), values(&shown(&source, OutputMode::Json, "", env(None), &b)));
}

#[test]
fn yaml_of_every_kind_says_the_same() {
    let source = everything(SourceKind::Events);
    let b = batch(&source);
    let yaml = shown(&source, OutputMode::Yaml, "", env(None), &b);
    insta::assert_snapshot!(yaml);
    let json = shown(&source, OutputMode::Json, "", env(None), &b);
    let from_yaml: Vec<serde_json::Value> = serde_saphyr::from_multiple(&yaml).unwrap();
    let from_json: Vec<serde_json::Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(from_yaml, from_json);
}

#[test]
fn columns_without_a_terminal_cut_nothing() {
    let source = everything(SourceKind::Events);
    let text = shown(&source, OutputMode::Columns, "", env(None), &batch(&source));
    insta::assert_snapshot!(text);
    assert!(text.contains("cat /etc/passwd --and-many more arguments") && !text.contains('…'));
}

#[test]
fn columns_share_the_width_of_a_terminal() {
    let source = everything(SourceKind::Events);
    let b = batch(&source);
    let fields = "runtime.containerName,comm,pid,error,src,args,latency";
    insta::assert_snapshot!(
        [160, 100, 20].map(|w| shown(&source, OutputMode::Columns, fields, env(Some(w)), &b)).join("\n")
    );
}

#[test]
fn fields_are_chosen_in_every_mode() {
    let source = everything(SourceKind::Events);
    let b = batch(&source);
    let text: Vec<String> = ["proc.pid,error,src", "src.addr_raw,internal", "error,comm,proc.creds"]
        .into_iter()
        .flat_map(|fields| {
            [OutputMode::Json, OutputMode::JsonPretty, OutputMode::Yaml, OutputMode::Columns].map(|mode| {
                format!("--fields {fields} -o {}\n{}", mode.name(), shown(&source, mode, fields, env(None), &b))
            })
        })
        .collect();
    insta::assert_snapshot!(text.join("\n"));
}

#[test]
fn fields_change_the_default_of_each_mode() {
    let source = everything(SourceKind::Events);
    let b = batch(&source);
    let keys = |fields| -> Vec<String> {
        let text = shown(&source, OutputMode::Json, fields, env(None), &b);
        let first: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        first.as_object().unwrap().keys().cloned().collect()
    };
    let (all, changed) = (keys(""), keys("+internal,-runtime,-proc.pid,-src"));
    assert!(all.contains(&"runtime".to_owned()) && !all.contains(&"internal".to_owned()));
    assert!(!all.contains(&"gone".to_owned()));
    let expected: Vec<String> = {
        let mut keys: Vec<String> = all.iter().filter(|k| *k != "runtime" && *k != "src").cloned().collect();
        keys.push("internal".into());
        keys.sort();
        keys
    };
    assert_eq!(changed, expected);
    let heading = |fields| shown(&source, OutputMode::Columns, fields, env(None), &Batch::new(source.clone()));
    assert!(!heading("").contains("TIMESTAMP") && heading("+timestamp,-comm").contains("TIMESTAMP"));
    assert!(heading("").contains("COMM") && !heading("+timestamp,-comm").contains("COMM"));
}

#[test]
fn a_table_is_one_array_or_one_block_with_its_headings() {
    let source = everything(SourceKind::Snapshot);
    let mut b = batch(&source);
    b.set_order(vec![2, 1, 0]);
    b.discard(1, crate::Reason::Filtered);
    let empty = Batch::new(source.clone());
    let text: Vec<String> = OutputMode::ALL
        .into_iter()
        .filter(|m| !matches!(m, OutputMode::Folded | OutputMode::Flamegraph))
        .map(|mode| {
            let fields = FieldSelection::parse("pid,error,runtime", &source).unwrap();
            let mut printer = printer(&source, mode, &fields, env(None)).unwrap();
            let mut out = Vec::new();
            printer.header(&mut out);
            printer.batch(&b, &mut out);
            printer.batch(&empty, &mut out);
            format!("-o {}\n{}", mode.name(), String::from_utf8(out).unwrap())
        })
        .collect();
    insta::assert_snapshot!(text.join("\n"));
}

/// What the screen gets of each table, with escapes made visible.
fn on_screens(source: &Arc<DataSource>, fields: &str, sizes: &[(usize, usize)], b: &Batch) -> Vec<String> {
    let fields = FieldSelection::parse(fields, source).unwrap();
    let mut printer = printer(source, OutputMode::Columns, &fields, env(Some(80))).unwrap();
    let screen = |(width, height): &(usize, usize)| {
        printer.on_screen(*width, *height);
        let mut out = Vec::new();
        printer.batch(b, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.matches('\n').count() < (*height).max(4), "{text:?} would scroll {height} lines");
        format!("{width}x{height}\n{}", text.replace('\x1b', "ESC"))
    };
    sizes.iter().map(screen).collect()
}

#[test]
fn tables_take_each_others_place_and_follow_the_size_of_the_screen() {
    let source = everything(SourceKind::Snapshot);
    let mut b = Batch::new(source.clone());
    for n in 0..40u32 {
        let row = b.push(&records()[0]);
        b.set_entity(0, row, Some(container(&format!("c{n}"))));
    }
    let sizes = [(80, 50), (80, 43), (80, 42), (80, 41), (40, 10), (10, 3), (10, 0)];
    insta::assert_snapshot!(on_screens(&source, "runtime.containerName,pid,comm", &sizes, &b).join("\n"));
    // A part of a screen has only its lines.
    let fields = FieldSelection::parse("pid", &source).unwrap();
    let mut part = printer(&source, OutputMode::Columns, &fields, env(Some(80))).unwrap();
    part.in_section(80, 4);
    let mut out = Vec::new();
    part.batch(&b, &mut out);
    let text = String::from_utf8(out).unwrap();
    assert!(!text.contains('\x1b') && text.lines().count() == 4 && text.contains("38 more of 40 rows"), "{text}");
    // A stream has no tables, and nothing of it is taken away.
    let stream = everything(SourceKind::Events);
    let mut printer = printer(&stream, OutputMode::Columns, &FieldSelection::Default, env(Some(80))).unwrap();
    printer.on_screen(80, 5);
    let mut out = Vec::new();
    printer.batch(&batch(&stream), &mut out);
    assert!(!out.contains(&0x1b));
}

/// A table of functions with how often they were found, and an address that is no column.
fn found(rows: &[(&str, u32, u64)]) -> Batch {
    let rec = |offset, size| Storage::Record { offset, size };
    let mut s = DataSource::new("samples", SourceKind::Snapshot, 20);
    s.add(FieldDef::new("name", Kind::CString, rec(0, 8))).unwrap();
    s.add(FieldDef::new("samples", Kind::U32, rec(8, 4)).annotate("stack.weight", "true")).unwrap();
    s.add(FieldDef::new("address", Kind::U64, rec(12, 8)).annotate("columns.hidden", "true")).unwrap();
    let mut b = Batch::new(Arc::new(s));
    for (name, samples, address) in rows {
        let mut text = [0; 8];
        text[..name.len()].copy_from_slice(name.as_bytes());
        b.push(&le(&[&text, &samples.to_le_bytes(), &address.to_le_bytes()]));
    }
    b
}

#[test]
fn rows_that_nothing_tells_apart_are_one_with_what_they_weigh_together() {
    let lines = |rows: &[(&str, u32, u64)], mode, fields: &str| {
        let b = found(rows);
        let text = shown(b.source(), mode, fields, env(None), &b);
        text.lines().skip(1).map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
    };
    let rows = [("leaf", 4, 1), ("main", 3, 2), ("leaf", 1, 3), ("main", 9, 4), ("x", 1, 5)];
    assert_eq!(lines(&rows, OutputMode::Columns, ""), ["leaf 5", "main 12", "x 1"]);
    let told_apart = lines(&rows, OutputMode::Columns, "+address");
    assert_eq!(told_apart.len(), 5, "{told_apart:?}");
    // Sorted before, sorted after.
    let falling = [("a", 5, 1), ("b", 4, 2), ("b", 3, 3), ("c", 1, 4)];
    assert_eq!(lines(&falling, OutputMode::Columns, ""), ["b 7", "a 5", "c 1"]);
    // A program sees every row.
    let b = found(&rows);
    let json = shown(b.source(), OutputMode::Json, "", env(None), &b);
    assert_eq!(serde_json::from_str::<Vec<serde_json::Value>>(&json).unwrap().len(), 5);
}

#[test]
fn what_was_not_measured_is_an_empty_cell_in_columns_only() {
    let rec = |offset, size| Storage::Record { offset, size };
    let mut s = DataSource::new("x", SourceKind::Events, 8);
    s.add(FieldDef::new("pages", Kind::U32, rec(0, 4)).annotate("columns.unset", "0")).unwrap();
    s.add(FieldDef::new("audit", Kind::I32, rec(4, 4)).annotate("columns.unset", "-1")).unwrap();
    let mut b = Batch::new(Arc::new(s));
    b.push(&le(&[&0u32.to_le_bytes(), &0i32.to_le_bytes()]));
    b.push(&le(&[&7u32.to_le_bytes(), &(-1i32).to_le_bytes()]));
    let text = shown(b.source(), OutputMode::Columns, "", env(None), &b);
    let cells: Vec<Vec<&str>> = text.lines().skip(1).map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(cells, [["0"], ["7"]]);
    let json = shown(b.source(), OutputMode::Json, "", env(None), &b);
    assert!(json.contains(r#"{"audit":0,"pages":0}"#) && json.contains(r#"{"audit":-1,"pages":7}"#), "{json}");
}

fn histogram(key: bool) -> (Arc<DataSource>, Batch) {
    let mut s = DataSource::new("blockio", SourceKind::Snapshot, 4 + 4 * 8);
    if key {
        s.add(FieldDef::new("dev", Kind::U32, Storage::Record { offset: 0, size: 4 })).unwrap();
    }
    let slots = FieldDef::new("latency", Kind::Bytes, Storage::Record { offset: 4, size: 32 });
    s.add(slots.tag("type:gadget_histogram_slot__u32").annotate("metrics.unit", "µ\x1bs")).unwrap();
    let source = Arc::new(s);
    let mut b = Batch::new(source.clone());
    for (dev, counts) in [(8u32, [0u32, 0, 7, 100, 20, 1, 0, 0]), (259, [0; 8]), (7, [1, 0, 0, 0, 0, 0, 0, 3])] {
        let words = std::iter::once(dev).chain(counts);
        b.push(&words.flat_map(u32::to_le_bytes).collect::<Vec<u8>>());
    }
    (source, b)
}

#[test]
fn a_zero_that_says_nothing_is_blank_in_columns_only() {
    let mut s = DataSource::new("dns", SourceKind::Events, 8);
    let from = s.add(FieldDef::new("raw", Kind::U64, Storage::Record { offset: 0, size: 8 })).unwrap();
    let derived = Storage::Derived { from, how: Derive::Duration };
    s.add(FieldDef::new("took", Kind::Text, derived.clone()).annotate("columns.unset", "0")).unwrap();
    s.add(FieldDef::new("plain", Kind::Text, derived)).unwrap();
    let source = Arc::new(s);
    let mut b = Batch::new(source.clone());
    for n in [0_u64, 7] {
        b.push(&n.to_le_bytes());
    }
    let columns = shown(&source, OutputMode::Columns, "took,plain", env(None), &b);
    let cells: Vec<Vec<&str>> = columns.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(cells, [vec!["TOOK", "PLAIN"], vec!["0ns"], vec!["7ns", "7ns"]]);
    let json = shown(&source, OutputMode::Json, "took", env(None), &b);
    assert_eq!(json, "{\"took\":\"0ns\"}\n{\"took\":\"7ns\"}\n");
}

#[test]
fn histograms_are_bars_in_columns_and_numbers_elsewhere() {
    let (source, b) = histogram(true);
    let bare = histogram(false);
    let mut text: Vec<String> = [None, Some(100), Some(44), Some(12)]
        .map(|width| format!("columns, {width:?}\n{}", shown(&source, OutputMode::Columns, "", env(width), &b)))
        .to_vec();
    text.push(format!("without a key\n{}", shown(&bare.0, OutputMode::Columns, "", env(None), &bare.1)));
    text.push(format!("--fields dev\n{}", shown(&source, OutputMode::Columns, "dev", env(None), &b)));
    text.push(format!("nothing\n{}", shown(&source, OutputMode::Columns, "", env(None), &Batch::new(source.clone()))));
    for mode in [OutputMode::Json, OutputMode::JsonPretty, OutputMode::Yaml] {
        text.push(format!("-o {}\n{}", mode.name(), shown(&source, mode, "", env(None), &b)));
    }
    text.extend(on_screens(&source, "", &[(60, 40), (60, 12), (30, 4)], &b));
    let text = text.join("\n");
    assert!(!text.contains('\x1b'));
    insta::assert_snapshot!(text);
}

#[test]
fn an_entitys_text_is_kept_for_that_entity_only() {
    let source = everything(SourceKind::Events);
    let mut printer =
        printer(&source, OutputMode::Json, &FieldSelection::parse("runtime", &source).unwrap(), env(None)).unwrap();
    let mut b = Batch::new(source);
    for round in 0..3 {
        b.clear();
        for row in 0..4 {
            b.push(&[]);
            // The entity of the last round is dropped by everyone but the printer: its address must not be taken again.
            b.set_entity(0, row, (row != 1).then(|| container(&format!("c{round}-{row}"))));
        }
        let mut out = Vec::new();
        printer.batch(&b, &mut out);
        let names: Vec<String> = String::from_utf8(out)
            .unwrap()
            .lines()
            .map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap()["runtime"]["containerName"].to_string())
            .collect();
        let expected = [0, 1, 2, 3].map(|r| if r == 1 { "\"\"".to_owned() } else { format!("\"c{round}-{r}\"") });
        assert_eq!(names, expected);
    }
}

#[test]
fn printers_say_what_they_need() {
    let source = everything(SourceKind::Events);
    let needed = |mode, fields| -> Vec<String> {
        let fields = FieldSelection::parse(fields, &source).unwrap();
        let ids = printer(&source, mode, &fields, env(None)).unwrap().needed_fields();
        ids.into_iter().map(|id| source.field(id).full_name.clone()).collect()
    };
    assert_eq!(
        needed(OutputMode::Columns, "error,src"),
        ["error_raw", "error", "src", "src.addr_raw", "src.port", "src.version"]
    );
    assert_eq!(needed(OutputMode::Json, "proc.creds.user"), ["proc.creds.uid", "proc.creds.user"]);
    assert_eq!(needed(OutputMode::None, ""), [""; 0]);
}

#[test]
fn wrong_modes_and_empty_selections_are_errors() {
    let e = "xml".parse::<OutputMode>().unwrap_err();
    assert_eq!(
        e.to_string(),
        r#"unknown output mode "xml": valid modes are columns, json, jsonpretty, yaml, advise, folded, flamegraph, none"#
    );
    for mode in OutputMode::ALL {
        assert_eq!(mode.name().parse(), Ok(mode));
    }
    let source = Arc::new(DataSource::new("bare", SourceKind::Events, 0));
    for mode in [OutputMode::Columns, OutputMode::Json, OutputMode::Yaml] {
        let e = printer(&source, mode, &FieldSelection::Default, env(None)).map(|_| ()).unwrap_err();
        assert_eq!(e.to_string(), r#"data source "bare" has no field left to show"#);
    }
}

/// Any record, any column of any variant (also one the schema does not promise), with or without a container.
fn any_batch(kind: SourceKind) -> impl Strategy<Value = Batch> {
    let column = prop_oneof![
        Just(Column::Empty),
        proptest::collection::vec(any::<f64>(), 0..4).prop_map(Column::F64),
        proptest::collection::vec(any::<i64>(), 0..4).prop_map(Column::I64),
        any::<Vec<u8>>().prop_map(Column::Bits),
        proptest::collection::vec(any::<Vec<u8>>(), 0..4).prop_map(|values| {
            let mut vars = Vars::default();
            values.iter().for_each(|v| vars.push(v));
            Column::Text(vars)
        }),
        proptest::collection::vec(any::<String>(), 0..4).prop_map(|values| {
            let mut vars = Vars::default();
            values.iter().for_each(|v| vars.push(v.as_bytes()));
            Column::Bytes(vars)
        }),
    ];
    let row = (proptest::collection::vec(any::<u8>(), 0..200), proptest::option::of(any::<String>()), any::<bool>());
    let columns = proptest::collection::vec(column, 3);
    (proptest::collection::vec(row, 0..4), columns, any::<i64>()).prop_map(move |(rows, columns, boot_to_wall)| {
        let mut b = Batch::new(everything(kind));
        b.boot_to_wall = boot_to_wall;
        for (i, (record, name, keep)) in rows.iter().enumerate() {
            b.push(record);
            b.set_entity(0, i, name.as_ref().map(|n| container(n)));
            if !keep {
                b.discard(i, crate::Reason::Filtered);
            }
        }
        b.columns = columns;
        b
    })
}

/// True where the keys of every object in the text of a value come in byte order.
fn keys_are_sorted(line: &str) -> bool {
    struct Sorted;
    impl<'de> serde::de::DeserializeSeed<'de> for Sorted {
        type Value = bool;
        fn deserialize<D: serde::Deserializer<'de>>(self, d: D) -> Result<bool, D::Error> {
            d.deserialize_any(self)
        }
    }
    impl<'de> serde::de::Visitor<'de> for Sorted {
        type Value = bool;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("any JSON")
        }
        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<bool, A::Error> {
            let (mut last, mut sorted) = (String::new(), true);
            while let Some(key) = map.next_key::<String>()? {
                sorted &= last < key;
                last = key;
                sorted &= map.next_value_seed(Sorted)?;
            }
            Ok(sorted)
        }
        fn visit_bool<E>(self, _: bool) -> Result<bool, E> {
            Ok(true)
        }
        fn visit_i64<E>(self, _: i64) -> Result<bool, E> {
            Ok(true)
        }
        fn visit_u64<E>(self, _: u64) -> Result<bool, E> {
            Ok(true)
        }
        fn visit_f64<E>(self, _: f64) -> Result<bool, E> {
            Ok(true)
        }
        fn visit_str<E>(self, _: &str) -> Result<bool, E> {
            Ok(true)
        }
        fn visit_unit<E>(self) -> Result<bool, E> {
            Ok(true)
        }
    }
    serde::de::DeserializeSeed::deserialize(Sorted, &mut serde_json::Deserializer::from_str(line)).unwrap()
}

/// Rows that differ from the row before by a few bytes, the length of the record, or the container.
fn bursts() -> impl Strategy<Value = Batch> {
    let bytes = proptest::collection::vec((any::<u16>(), any::<u8>()), 0..4);
    let row = (any::<bool>(), bytes, prop_oneof![8 => Just(1000usize), 1 => 0usize..180], 0usize..3);
    (0usize..2, proptest::collection::vec(row, 1..12)).prop_map(|(first, rows)| {
        let source = everything(SourceKind::Events);
        let mut b = Batch::new(source.clone());
        b.boot_to_wall = 1_722_451_151_455_283_441;
        let entities = [None, Some(container("web")), Some(container("db"))];
        let (mut record, mut entity) = (records()[first].clone(), 0);
        for (other, changes, len, next) in rows {
            for (at, byte) in changes {
                let at = at as usize % record.len();
                record[at] = byte;
            }
            entity = if other { next } else { entity };
            let row = b.push(&record[..len.min(record.len())]);
            b.set_entity(0, row, entities[entity].clone());
        }
        b.columns[1] = Column::U32((0..b.len() as u32).map(|n| n / 2).collect());
        b
    })
}

proptest! {
    #[test]
    fn a_row_says_the_same_whatever_stands_before_it(mut b in bursts(), discarded in any::<u16>()) {
        (0..b.len()).filter(|r| discarded & discarded >> 8 & 1 << r != 0).for_each(|r| b.discard(r, crate::Reason::Filtered));
        let source = b.source().clone();
        let alone = |row: usize| {
            let mut one = Batch::new(source.clone());
            one.boot_to_wall = b.boot_to_wall;
            one.push(b.record(row));
            one.set_entity(0, 0, b.entity(0, row).cloned());
            if let Column::U32(v) = &b.columns[1] {
                one.columns[1] = Column::U32(vec![v[row]]);
            }
            one
        };
        for mode in [OutputMode::Json, OutputMode::JsonPretty] {
            let mut printer = printer(&source, mode, &FieldSelection::Default, env(None)).unwrap();
            let want: String = b.iter().map(|r| shown(&source, mode, "", env(None), &alone(r))).collect();
            for round in 0..2 {
                let mut out = Vec::new();
                printer.batch(&b, &mut out);
                prop_assert_eq!(std::str::from_utf8(&out).unwrap(), &want, "round {}", round);
            }
        }
    }

    #[test]
    fn any_batch_is_valid_json_with_sorted_keys(b in any_batch(SourceKind::Events)) {
        let text = shown(b.source(), OutputMode::Json, "+internal", env(None), &b);
        prop_assert_eq!(text.lines().count(), b.live());
        for line in text.lines() {
            prop_assert!(keys_are_sorted(line), "{}", line);
        }
    }

    #[test]
    fn any_table_is_one_valid_array_in_both_styles(b in any_batch(SourceKind::Snapshot)) {
        let compact = shown(b.source(), OutputMode::Json, "", env(None), &b);
        let pretty = shown(b.source(), OutputMode::JsonPretty, "", env(None), &b);
        prop_assert_eq!(compact.matches('\n').count(), 1);
        let rows: Vec<serde_json::Value> = serde_json::from_str(&compact).unwrap();
        prop_assert_eq!(rows.len(), b.live());
        prop_assert_eq!(serde_json::from_str::<Vec<serde_json::Value>>(&pretty).unwrap(), rows);
    }

    #[test]
    fn any_batch_is_valid_yaml(b in any_batch(SourceKind::Events)) {
        let yaml = shown(b.source(), OutputMode::Yaml, "args,comm,runtime,f64", env(None), &b);
        let json = shown(b.source(), OutputMode::Json, "args,comm,runtime,f64", env(None), &b);
        let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(&yaml).unwrap();
        let rows: Vec<serde_json::Value> = json.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        prop_assert_eq!(documents, rows);
    }

    #[test]
    fn any_cell_is_harmless_and_lines_keep_their_width(b in any_batch(SourceKind::Events), width in 20usize..300) {
        let fields = "args,comm,runtime.containerName,op,error,pid";
        for width in [None, Some(width)] {
            let text = shown(b.source(), OutputMode::Columns, fields, env(width), &b);
            prop_assert_eq!(text.lines().count(), b.live() + 1);
            for line in text.lines() {
                let harmful = |c: char| c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c);
                prop_assert!(!line.chars().any(harmful), "{line:?}");
                if let Some(width) = width {
                    prop_assert!(display_width(line) <= width, "{line:?} is wider than {width}");
                }
            }
        }
    }
}
