//! A tar with an OCI image layout, as `ig image import` and `ig run FILE.tar` read it.
#![no_main]

use ig_runtime::image::{NameRules, Store};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let tar = dir.path().join("image.tar");
    std::fs::write(&tar, bytes).expect("room for the input");
    let store = Store::at(dir.path().join("store"));
    if store.import(&tar, &NameRules::default()).is_ok() {
        store.list().expect("what was imported can be listed");
    }
});
