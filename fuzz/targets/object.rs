//! An ELF object with BTF, as a gadget image brings it: parsed, described, relocated and prepared for loading.
#![no_main]

use ig_runtime::{
    bpf::{KernelBtf, Object, core_reloc, prepare},
    gadget::{params, schema},
};
use libfuzzer_sys::fuzz_target;
use std::collections::BTreeMap;

fuzz_target!(|bytes: &[u8]| {
    let Ok(object) = Object::parse("fuzzed", bytes) else { return };
    let no_kernel = KernelBtf::at("/nonexistent");
    drop(schema::data_sources(&object, &no_kernel, &schema::Annotations::default()));
    drop(params::params(&object, &BTreeMap::new()));
    // Its own types stand in for the kernel's: every kind of relocation then finds something.
    let Ok(relocations) = core_reloc::relocations(&object) else { return };
    drop(prepare::prepare(&object, &[], &relocations, &[&object.btf]));
    drop(prepare::prepare(&object, &[], &relocations, &[]));
});
