//! What filters keep, and what they say when they cannot be compiled.

use super::*;
use crate::{Column, Entity, EntityValue, FieldDef, HostNames, SourceKind, Vars};
use proptest::prelude::*;
use std::sync::Arc;

fn source() -> DataSource {
    let mut s = DataSource::new("open", SourceKind::Events, 40);
    let rec = |offset, size| Storage::Record { offset, size };
    let time = s.add(FieldDef::new("timestamp_raw", Kind::U64, Storage::BootTime { offset: 0 })).unwrap();
    s.add(FieldDef::new("timestamp", Kind::Text, Storage::Derived { from: time, how: Derive::Timestamp })).unwrap();
    let proc = s.add(FieldDef::new("proc", Kind::Bytes, Storage::Group)).unwrap();
    s.add(FieldDef::new("pid", Kind::U32, rec(8, 4)).under(proc)).unwrap();
    s.add(FieldDef::new("comm", Kind::CString, rec(12, 8)).under(proc)).unwrap();
    let error = s.add(FieldDef::new("error_raw", Kind::U32, rec(20, 4))).unwrap();
    s.add(FieldDef::new("error", Kind::Text, Storage::Derived { from: error, how: Derive::Errno })).unwrap();
    s.add(FieldDef::new("delta", Kind::I32, rec(24, 4))).unwrap();
    s.add(FieldDef::new("ratio", Kind::F64, rec(28, 8))).unwrap();
    s.add(FieldDef::new("upper", Kind::Bool, rec(36, 1))).unwrap();
    s.add(FieldDef::new("mac", Kind::Bytes, rec(37, 2))).unwrap();
    let size = Storage::Derived { from: error, how: Derive::Bytes };
    s.add(FieldDef::new("size", Kind::Text, size)).unwrap();
    let args = s.new_column(Kind::Text);
    s.add(FieldDef::new("args", Kind::Text, args)).unwrap();
    let slot = s.new_entity_slot();
    let runtime = s.add(FieldDef::new("runtime", Kind::Bytes, Storage::Group)).unwrap();
    let member = |m| Storage::Entity { slot, member: m };
    s.add(FieldDef::new("containerName", Kind::Text, member(0)).under(runtime)).unwrap();
    s.add(FieldDef::new("containerPid", Kind::U32, member(1)).under(runtime)).unwrap();
    s
}

/// Row 0: cat in container `web`, failed. Row 1: zeros, no container, nothing in the columns.
fn batch() -> Batch {
    let source = Arc::new(source());
    let mut b = Batch::new(source);
    b.boot_to_wall = 1_722_451_156_000_000_000;
    let mut record = 7u64.to_le_bytes().to_vec();
    record.extend(42u32.to_le_bytes());
    record.extend(b"cat\0junk");
    record.extend(2u32.to_le_bytes());
    record.extend((-5i32).to_le_bytes());
    record.extend(0.5f64.to_le_bytes());
    record.extend([1, 0xab, 0xcd]);
    b.push(&record);
    b.push(&[]);
    let mut args = Vars::default();
    args.push(b"cat a,b");
    b.columns[0] = Column::Text(args);
    let entity = Entity { values: vec![EntityValue::Text("web".into()), EntityValue::Uint(99)] };
    b.set_entity(0, 0, Some(Arc::new(entity)));
    b
}

/// Rows that a filter keeps.
fn kept(expr: &str) -> Vec<usize> {
    let mut b = batch();
    let mut filter =
        Filter::parse(expr, &b.source().clone(), &TextEnv::default()).unwrap_or_else(|e| panic!("{expr}: {e}"));
    filter.process(&mut b).unwrap();
    assert_eq!(b.loss.get(Reason::Filtered) as usize, 2 - b.live());
    b.iter().collect()
}

#[test]
fn every_operator_on_every_kind() {
    let cases: &[(&str, &[usize])] = &[
        ("proc.pid==42", &[0]),
        ("proc.pid=42", &[0]),
        ("proc.pid==0x2a", &[0]),
        ("proc.pid!=42", &[1]),
        ("proc.pid>41", &[0]),
        ("proc.pid>=43", &[]),
        ("proc.pid<42", &[1]),
        ("proc.pid<=42", &[0, 1]),
        ("delta<0", &[0]),
        ("delta==-5", &[0]),
        ("delta==-0x5", &[0]),
        ("ratio>=0.5", &[0]),
        ("ratio!=0.5", &[1]),
        ("ratio<1e-3", &[1]),
        ("upper==true", &[0]),
        ("upper!=true", &[1]),
        ("upper==0", &[1]),
        ("proc.comm==cat", &[0]),
        ("proc.comm!=cat", &[1]),
        ("proc.comm>ca", &[0]),
        ("proc.comm<b", &[1]),
        ("proc.comm~^c.t$", &[0]),
        ("proc.comm!~^c", &[1]),
        ("mac==abcd", &[0]),
        ("error==ENOENT", &[0]),
        ("error~^E", &[0]),
        ("error!~^E", &[1]),
        ("error!=ENOENT", &[1]),
        ("size==2 B", &[0]),
        ("timestamp==2024-07-31T18:39:16.000000007Z", &[0]),
        ("timestamp>2024", &[0]),
        ("timestamp_raw==1722451156000000007", &[0]),
        ("args==cat a\\,b", &[0]),
        ("args~a\\,b$", &[0]),
        ("runtime.containerName==web", &[0]),
        ("runtime.containerPid>1", &[0]),
        ("proc.comm==cat,error==ENOENT,proc.pid>1", &[0]),
        ("proc.comm==cat, error==", &[]),
        ("", &[0, 1]),
    ];
    for (expr, rows) in cases {
        assert_eq!(kept(expr), *rows, "{expr}");
    }
}

#[test]
fn empty_text_matches_what_is_shown_empty() {
    for expr in ["error==", "proc.comm==", "args==", "runtime.containerName==", "timestamp=", "proc.comm~^$"] {
        assert_eq!(kept(expr), [1], "{expr}");
    }
    for expr in ["error!=", "proc.comm!=", "args!=", "runtime.containerName!~^$"] {
        assert_eq!(kept(expr), [0], "{expr}");
    }
}

#[test]
fn names_of_the_host_can_be_filtered() {
    let mut s = DataSource::new("t", SourceKind::Events, 4);
    let uid = s.add(FieldDef::new("uid", Kind::U32, Storage::Record { offset: 0, size: 4 })).unwrap();
    s.add(FieldDef::new("user", Kind::Text, Storage::Derived { from: uid, how: Derive::User })).unwrap();
    let source = Arc::new(s);
    let mut names = HostNames::default();
    names.users.insert(0, "root".into());
    let env = TextEnv { names: Arc::new(names), ..TextEnv::default() };
    let mut filter = Filter::parse("user==root", &source, &env).unwrap();
    let mut b = Batch::new(source);
    b.push(&[0; 4]);
    b.push(&[1; 4]);
    assert!(filter.keeps(&b, 0) && !filter.keeps(&b, 1));
    assert_eq!(filter.needed_fields(), [FieldId(1), FieldId(0)]);
}

#[test]
fn errors_name_rule_field_and_source() {
    let s = source();
    let shown: Vec<String> = [
        "proc.cmm==cat",
        "proc.comm",
        "==cat",
        "proc.pid=>3",
        "proc.comm=~x",
        "proc.comm!x",
        "proc.pid~4",
        "proc.pid==cat",
        "proc.pid==-1",
        "proc.pid==4294967296",
        "proc.pid==",
        "upper>true",
        "upper==maybe",
        "ratio==x",
        "proc==1",
        "size>1 MB",
        "proc.comm~(",
        "proc.comm==a,,error==",
        "proc.comm==a,",
    ]
    .into_iter()
    .map(|expr| {
        let e = Filter::parse(expr, &s, &TextEnv::default()).unwrap_err();
        format!("{expr}\n  {}\n  hint: {}\n", e.to_string().replace('\n', "\n  "), e.hint().unwrap_or_default())
    })
    .collect();
    insta::assert_snapshot!(shown.concat());
}

proptest! {
    #[test]
    fn parsing_never_panics(expr in any::<String>()) {
        let parsed = Filter::parse(&expr, &source(), &TextEnv::default());
        prop_assert_eq!(parsed.is_ok_and(|f| f.is_empty()), expr.trim().is_empty());
    }

    #[test]
    fn near_misses_never_panic(
        field in "(proc\\.)?(pid|comm|error|ratio|upper|mac|args|size|nope)",
        op in "[=!<>~]{0,3}",
        value in "[-+0-9a-fx.,\\\\(\\[*é ]{0,12}",
    ) {
        let expr = format!("{field}{op}{value}");
        if let Ok(mut filter) = Filter::parse(&expr, &source(), &TextEnv::default()) {
            let mut b = batch();
            filter.process(&mut b).unwrap();
            prop_assert_eq!(b.live() as u64 + b.loss.get(Reason::Filtered), 2);
        }
    }

    #[test]
    fn a_rule_and_its_opposite_share_out_the_rows(text in "[a-z.^$]{0,4}", n in any::<u32>()) {
        for (yes, no) in [
            (format!("proc.comm=={text}"), format!("proc.comm!={text}")),
            (format!("proc.comm~{text}"), format!("proc.comm!~{text}")),
            (format!("proc.pid>={n}"), format!("proc.pid<{n}")),
        ] {
            let mut all = kept(&yes);
            all.extend(kept(&no));
            all.sort_unstable();
            prop_assert_eq!(all, [0, 1]);
        }
    }
}
