//! A recording, as `ig replay` reads it: header, schema, batches, and every row of them shown.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| ig_runtime::fuzzing::recording(bytes, ig_fuzz::show));
