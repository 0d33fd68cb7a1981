//! What lies in a perf buffer that the kernel overwrites while it is read.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| ig_runtime::fuzzing::perf_records(bytes));
