//! What a user types: filters, sort keys and field lists, over a source with fields of several kinds.
#![no_main]

use ig_event::{
    Batch, DataSource, FieldDef, FieldSelection, Filter, Kind, Operator, SourceKind, Storage, TextEnv, transform::Sort,
};
use libfuzzer_sys::fuzz_target;
use std::sync::{Arc, LazyLock};

static SOURCE: LazyLock<Arc<DataSource>> = LazyLock::new(|| {
    let mut s = DataSource::new("s", SourceKind::Snapshot, 32);
    for (name, kind, offset, size) in
        [("a", Kind::U64, 0, 8), ("b", Kind::I32, 8, 4), ("c", Kind::CString, 12, 16), ("d", Kind::F32, 28, 4)]
    {
        s.add(FieldDef::new(name, kind, Storage::Record { offset, size })).expect("names are unique");
    }
    Arc::new(s)
});

fuzz_target!(|input: (&str, [u8; 32])| {
    let (text, record) = input;
    let env = TextEnv::default();
    let mut batch = Batch::new(Arc::clone(&SOURCE));
    for _ in 0..3 {
        batch.push(&record);
    }
    if let Ok(mut filter) = Filter::parse(text, &SOURCE, &env) {
        filter.process(&mut batch).expect("a filter goes on");
    }
    if let Ok(mut sort) = Sort::parse(text, &SOURCE, &env) {
        sort.process(&mut batch).expect("a sort goes on");
    }
    drop(FieldSelection::parse(text, &SOURCE));
});
