//! Records as a gadget's ring buffer brings them, of any length, shown in every output mode.
#![no_main]

use ig_event::{
    Batch, DataSource, Derive, FieldDef, FieldId, Kind, SourceKind, Storage,
    output::{KERNEL_STACK_TAG, USER_STACK_TAG},
};
use libfuzzer_sys::fuzz_target;
use std::sync::{Arc, LazyLock};

static SOURCE: LazyLock<Arc<DataSource>> = LazyLock::new(|| {
    let mut s = DataSource::new("rows", SourceKind::Events, 0);
    let mut at = 0;
    let mut field = |s: &mut DataSource, name: &str, kind, size| {
        let storage = Storage::Record { offset: at, size };
        at += size;
        s.add(FieldDef::new(name, kind, storage)).expect("names are unique")
    };
    let word: FieldId = field(&mut s, "word", Kind::U64, 8);
    let version = field(&mut s, "version", Kind::U8, 1);
    let port = field(&mut s, "port", Kind::U16, 2);
    let address = field(&mut s, "address", Kind::Bytes, 16);
    field(&mut s, "signed", Kind::I64, 8);
    field(&mut s, "small", Kind::I8, 1);
    field(&mut s, "float", Kind::F64, 8);
    field(&mut s, "single", Kind::F32, 4);
    field(&mut s, "yes", Kind::Bool, 1);
    field(&mut s, "bytes", Kind::Bytes, 5);
    field(&mut s, "text", Kind::CString, 64);
    let mut tagged = |s: &mut DataSource, name: &str, kind, size, tag: &str| {
        let storage = Storage::Record { offset: at, size };
        at += size;
        s.add(FieldDef::new(name, kind, storage).tag(tag)).expect("names are unique");
    };
    for (name, size, tag) in
        [("slots", 26, "gadget_histogram_slot__u32"), ("wide_slots", 32, "gadget_histogram_slot__u64")]
    {
        tagged(&mut s, name, Kind::Bytes, size, &format!("type:{tag}"));
    }
    tagged(&mut s, "user_stack", Kind::CString, 48, USER_STACK_TAG);
    tagged(&mut s, "kernel_stack", Kind::CString, 32, KERNEL_STACK_TAG);
    let bits = Arc::new(vec![(1, "ONE".to_owned()), (4, "FOUR".to_owned())]);
    let names = Arc::new(vec![(1, "one".to_owned())]);
    let derived = [
        Derive::Timestamp,
        Derive::Errno,
        Derive::Signal,
        Derive::Syscall,
        Derive::User,
        Derive::Group,
        Derive::FileMode,
        Derive::OpenFlags,
        Derive::Bytes,
        Derive::Duration,
        Derive::Enum(names),
        Derive::Bits { names: bits, separator: "|".into() },
        Derive::IpProto,
    ];
    for (i, how) in derived.into_iter().enumerate() {
        s.add(FieldDef::new(format!("derived{i}"), Kind::Text, Storage::Derived { from: word, how }));
    }
    for (name, how) in [("ip", Derive::Ip { version }), ("endpoint", Derive::Endpoint { port, version })] {
        s.add(FieldDef::new(name, Kind::Text, Storage::Derived { from: address, how }));
    }
    s.record_size = at;
    Arc::new(s)
});

fuzz_target!(|records: Vec<Vec<u8>>| {
    let mut batch = Batch::new(Arc::clone(&SOURCE));
    for record in &records {
        batch.push(record);
    }
    ig_fuzz::show(&batch);
});
