//! `gadget.yaml`, out of an image (lenient) and when it is built (strict).
#![no_main]

use ig_runtime::gadget::{metadata, params};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(parsed) = metadata::parse(bytes, "gadget.yaml") {
        params::notes(&parsed.metadata);
        params::wasm_params(&parsed.metadata);
    }
    drop(metadata::parse_strict(bytes, "gadget.yaml"));
});
